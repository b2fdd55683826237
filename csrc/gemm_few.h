/* gemm_few.h: the matrix product for a few rows of C, bound by reading B.
 *
 *   streamed    B's rows are contiguous and only the outer caches hold it: some rows of B at a time along
 *               n, with the sums in L1; up to STREAM_MOST rows of C, in groups of STREAM_ROWS.
 *   turned      B's columns are contiguous: it is turned in registers, in pieces of 16 bytes of a row or in
 *               squares; up to TURN_MOST.
 *
 * Both sum each element of C in the order of k. */

/* Rows of B at a time, as many as leave room for the sums in the registers. */
#define STREAM(m) (GEMM_MR > 8 || (m) == 1 ? 8 : 4)
#define TURN_AHEAD (256 / (int)sizeof(REAL)) /* of a row of B^T, fetched into L2: L1 has no room for each */
#define TURN_STEP (16 / (int)sizeof(REAL)) /* elements of it at a time */
#define TURN_LD (TURN_AHEAD + 16 / (int)sizeof(REAL)) /* between the rows of a run that is moved */
#define TURN_WIDTH 2 /* vectors of columns of B^T at a time: chains of sums that run side by side */
#define TURN_FAR (256 << 10) /* bytes of B from which its rows are fetched ahead, with 16 registers */
#define TURN_SQUARES (VEC_BYTES == 64) /* other vectors hold no line */
#define SQUARES_FAR (6 << 20) /* bytes of B from which squares serve any, and are fetched for a few rows too */
#define SQUARES_AHEAD 4 /* of them on */
#define TURN_MOST (TURN_SQUARES && F32 ? 2 * STREAM_ROWS : STREAM_ROWS) /* rows of C */
#define STREAM_NEAR (2 << 20) /* bytes of B from which few rows stream through it; see better_streamed */
#define STREAM_FAR (24 << 20) /* bytes of B beyond which it lies in memory, where nothing is known of the cache */
/* Between the sums and a row of B, mod 4096: no rows a multiple of 512 bytes apart (1024 for vectors of 64,
 * whose sums are further apart) come within a few steps of a store. */
#define STREAM_APART (VEC_BYTES > 32 ? 512 : 768)
#define STREAM_ROWS 4 /* of C, whose terms the registers hold */
#define STREAM_MOST 8 /* more are better served by tiles */

/* m rows of sums that wait in y for the next `count` terms of each:
 * y[i * ldy + j] += sum over q of x[i * x_rs + q * x_cs] b[q * ldb + j], for n columns and for the `head`
 * columns of b before them, whose sums have the vector before y. `far`: B lies in memory; the rows that come
 * next are fetched. From L3 the hardware is quicker without. */
INLINE void FN(stream_rows)(const int m, const int count, ptrdiff_t head, ptrdiff_t n, const REAL *x,
                            ptrdiff_t x_rs, ptrdiff_t x_cs, const REAL *b, ptrdiff_t ldb, int far,
                            REAL *y, ptrdiff_t ldy) {
    vec w[STREAM_ROWS][STREAM(1)], sums[STREAM_ROWS];
    UNROLL for (int i = 0; i < m; i++)
        UNROLL for (int q = 0; q < count; q++) w[i][q] = vset1(x[i * x_rs + q * x_cs]);
#define STREAM_STEP(AT, LOAD)                                                                      \
    do {                                                                                           \
        UNROLL for (int i = 0; i < m; i++) sums[i] = vload(y + i * ldy + (AT));                    \
        UNROLL for (int q = 0; q < count; q++) {                                                   \
            const vec v = LOAD;                                                                    \
            UNROLL for (int i = 0; i < m; i++) sums[i] = vfma(w[i][q], v, sums[i]);                \
        }                                                                                          \
        UNROLL for (int i = 0; i < m; i++) vstore(y + i * ldy + (AT), sums[i]);                    \
    } while (0)
    if (head) {
        const vtail tail = vtail_make(head);
        STREAM_STEP(-VL, vload_t(b - head + q * ldb, tail));
    }
    ptrdiff_t j = 0;
    for (; j + VL <= n; j += VL) {
        if (far) UNROLL for (int q = 0; q < count; q++) __builtin_prefetch(b + (count + q) * ldb + j, 0, 2);
        STREAM_STEP(j, vload(b + q * ldb + j));
    }
    if (j < n) {
        const vtail tail = vtail_make(n - j);
        STREAM_STEP(j, vload_t(b + q * ldb + j, tail));
    }
#undef STREAM_STEP
}

/* `turns` times `count` terms, STREAM(m) or 1, of a group of rows. */
static __attribute__((noinline)) void FN(stream_group)(int m, int count, ptrdiff_t turns,
                                                       ptrdiff_t head, ptrdiff_t n, const REAL *x,
                                                       ptrdiff_t x_rs, ptrdiff_t x_cs, const REAL *b,
                                                       ptrdiff_t ldb, int far, REAL *y, ptrdiff_t ldy) {
    assert(count == 1 || count == STREAM(m)); /* the same for all groups: none of several has one row */
#define STREAM_CASE(M, COUNT)                                                                      \
    for (; turns > 0; turns--, x += COUNT * x_cs, b += COUNT * ldb)                                \
        FN(stream_rows)(M, COUNT, head, n, x, x_rs, x_cs, b, ldb, far, y, ldy)
    switch (count > 1 ? m : m + STREAM_ROWS) {
    case 1: STREAM_CASE(1, STREAM(1)); break;
    case 2: STREAM_CASE(2, STREAM(2)); break;
    case 3: STREAM_CASE(3, STREAM(3)); break;
    case 4: STREAM_CASE(4, STREAM(4)); break;
    case STREAM_ROWS + 1: STREAM_CASE(1, 1); break;
    case STREAM_ROWS + 2: STREAM_CASE(2, 1); break;
    case STREAM_ROWS + 3: STREAM_CASE(3, 1); break;
    default: STREAM_CASE(4, 1);
    }
#undef STREAM_CASE
}

/* All terms of the sums of n columns; for several groups of rows of C some rows of B at a time, which the
 * first group brings into L1. Up to an aligned address first: loads that straddle cache lines take a fifth
 * longer. */
static void FN(stream_columns)(const fnn_gemm *g, ptrdiff_t n, ptrdiff_t head, const REAL *b, REAL *y,
                               ptrdiff_t ldy) {
    const REAL *x = g->a;
    const ptrdiff_t rs = g->a_rs, cs = g->a_cs, ldb = g->b_rs, groups = FN(ceil_div)(g->m, STREAM_ROWS);
    /* One row with 16 registers keeps so many loads under way that fetches are in their way. */
    const ptrdiff_t beyond = g->cache ? (ptrdiff_t)(g->cache / 4 * 3) : STREAM_FAR; /* other data is there too */
    const int far = (GEMM_MR > 8 || g->m > 1) && g->k * ldb * (ptrdiff_t)sizeof(REAL) > beyond;
    for (ptrdiff_t p = 0, terms; p < g->k; p += terms, x += terms * cs, b += terms * ldb) {
        const int count = p + STREAM(g->m) <= g->k ? STREAM(g->m) : 1;
        const ptrdiff_t turns = groups > 1 ? 1 : (g->k - p) / count;
        terms = turns * count;
        for (ptrdiff_t h = 0; h < groups; h++) {
            const ptrdiff_t i = FN(part)(g->m, groups, h);
            const int m = (int)(FN(part)(g->m, groups, h + 1) - i), fetch = far && !h;
            FN(stream_group)(m, count, turns, head, n - head, x + i * rs, rs, cs, b + head, ldb, fetch,
                             y + i * ldy, ldy);
        }
    }
}

/* A few rows of C, for a W that the inner caches do not hold: bound by reading W, so it is read in long
 * runs, some rows at a time along n. The sums wait in a buffer of this thread's own: in C, a cache line that
 * two threads share would travel at each of their turns. It keeps away from W's rows in the last 12 bits of
 * addresses: a CPU takes a load that agrees with a recent store there to want what was stored. A row of
 * it begins with a vector for the columns before the first aligned one. */
static void FN(streamed)(const fnn_gemm *g) {
    enum { LANES = VEC_BYTES / sizeof(REAL), PAGE = 4096 / sizeof(REAL), WIDTH = STREAM_ROWS * 2 * PAGE };
    REAL room[WIDTH + 2 * STREAM_MOST * LANES + PAGE] __attribute__((aligned(VEC_BYTES)));
    const ptrdiff_t m = g->m, columns = WIDTH / FN(round_up)(m, STREAM_ROWS), ldy = columns + 2 * VL;
    const int parallel = g->b_rs * (ptrdiff_t)sizeof(REAL) % VEC_BYTES == 0;
    for (ptrdiff_t j = 0; j < g->n; j += columns) {
        const REAL *b = (const REAL *)g->b + j;
        const ptrdiff_t n = FN(least)(columns, g->n - j);
        const ptrdiff_t head = FN(least)(
            n, parallel ? (ptrdiff_t)(-(uintptr_t)b % VEC_BYTES / sizeof(REAL)) : 0);
        const size_t head_bytes = (size_t)head * sizeof(REAL), bytes = (size_t)n * sizeof(REAL);
        REAL *const buffer = room + ((uintptr_t)b + STREAM_APART - (uintptr_t)room) % 4096 / VEC_BYTES * LANES;
        memset(buffer, 0, (size_t)(m * ldy) * sizeof(REAL));
        for (ptrdiff_t i = 0; g->bias && i < m; i++) {
            const REAL *const bias = (const REAL *)g->bias + j;
            memcpy(buffer + i * ldy, bias, head_bytes);
            memcpy(buffer + i * ldy + VL, bias + head, bytes - head_bytes);
        }
        FN(stream_columns)(g, n, head, b, buffer + VL, ldy);
        for (ptrdiff_t i = 0; i < m; i++) {
            REAL *const y = buffer + i * ldy, *const c = (REAL *)g->c + i * g->ldc + j;
            if (FN(act_in_tile)(g) && g->act != FNN_IDENTITY)
                FN(act)(g->act, g->slope, ldy, y, y);
            memcpy(c, y, head_bytes);
            memcpy(c + head, y + VL, bytes - head_bytes);
        }
    }
    if (FN(act_after)(g)) FN(finish)(g, 0, 0, m, g->n);
}

/* The next 16 bytes of terms of the sums of `width` vectors of columns: so few registers hold what is being
 * turned, and x is broadcast once for all columns. */
INLINE void FN(turn_piece)(const int m, const int width, const REAL *x, ptrdiff_t x_rs, ptrdiff_t x_cs,
                           const REAL *b, ptrdiff_t ldb, vec sums[][STREAM_ROWS]) {
    UNROLL for (int h = 0; h < width; h++) {
        vec r[TURN_STEP];
        FN(transpose_chunk)(b + h * VL * ldb, ldb, r);
        UNROLL for (int q = 0; q < TURN_STEP; q++)
            UNROLL for (int i = 0; i < m; i++)
                sums[h][i] = vfma(vset1(x[i * x_rs + q * x_cs]), r[q], sums[h][i]);
    }
}

/* A run of each of some rows of B^T, and the next one fetched into L2. */
static __attribute__((noinline)) void FN(move_rows)(ptrdiff_t rows, ptrdiff_t count, const REAL *from,
                                                    ptrdiff_t ld, REAL *to) {
    for (; rows > 0; rows--, from += ld, to += TURN_LD) {
        for (int i = 0; i < TURN_AHEAD; i += 64 / (int)sizeof(REAL)) __builtin_prefetch(from + TURN_AHEAD + i, 0, 2);
        ptrdiff_t i = 0;
        for (; i + VL <= count; i += VL) vstore(to + i, vload(from + i));
        if (i < count) memcpy(to + i, from + i, (size_t)(count - i) * sizeof(REAL));
    }
}

/* Columns of C from j on, `width` vectors, and their terms from 0 on; where whole pieces of B^T end. */
INLINE ptrdiff_t FN(turn_group)(const fnn_gemm *g, const int m, const int width, ptrdiff_t j) {
    const ptrdiff_t ldb = g->b_cs, n = FN(least)(g->n - j, width * VL);
    const ptrdiff_t whole = n == width * VL ? g->k / TURN_STEP * TURN_STEP : 0;
    const int far = GEMM_MR <= 8 && g->n * g->k * (ptrdiff_t)sizeof(REAL) > TURN_FAR;
    /* Rows that share the few ways of one set of L1 move out of it. */
    int moves = far && ldb * (ptrdiff_t)sizeof(REAL) % 4096 == 0;
    const ptrdiff_t run = moves ? TURN_AHEAD : far ? 64 / (ptrdiff_t)sizeof(REAL) : whole, ld = moves ? TURN_LD : ldb;
    const REAL *const b = (const REAL *)g->b + j * ldb, *from = b, *x = g->a;
    const vtail tail = vtail_make(width == 1 ? n : VL);
    REAL moved[TURN_WIDTH * VEC_BYTES / sizeof(REAL) * TURN_LD] __attribute__((aligned(VEC_BYTES)));
    vec sums[TURN_WIDTH][STREAM_ROWS];
    UNROLL for (int h = 0; h < width; h++)
        UNROLL for (int i = 0; i < m; i++) {
            sums[h][i] = vset1(0);
            if (g->bias) sums[h][i] = vload_t((const REAL *)g->bias + j + h * VL, tail);
        }
    for (ptrdiff_t p = 0, next = far ? 0 : whole; p < whole;
         p += TURN_STEP, from += TURN_STEP, x += TURN_STEP * g->a_cs) {
        if (p == next) {
            next += run;
            __asm__("" : "+r"(moves)); /* might change: else two loops are made of this, twice the code */
            if (moves) {
                FN(move_rows)(width * VL, FN(least)(run, whole - p), b + p, ldb, moved);
                from = moved;
            } else {
                UNROLL for (int q = 0; q < width * (int)VL; q++)
                    __builtin_prefetch(from + q * ldb + TURN_AHEAD, 0, 2);
            }
        }
        FN(turn_piece)(m, width, x, g->a_rs, g->a_cs, from, ld, sums);
    }
    UNROLL for (int h = 0; h < width; h++)
        UNROLL for (int i = 0; i < m; i++)
            vstore_t((REAL *)g->c + i * g->ldc + j + h * VL, sums[h][i], tail);
    return whole;
}

/* What is left: the terms from p on of n columns from j on. */
static __attribute__((noinline)) void FN(turn_rest)(const fnn_gemm *g, ptrdiff_t j, ptrdiff_t n, ptrdiff_t p) {
    enum { MOST = TURN_MOST };
    REAL turned[VEC_BYTES / sizeof(REAL) * (VEC_BYTES / sizeof(REAL))] __attribute__((aligned(VEC_BYTES)));
    for (; n > 0; n -= VL, j += VL) {
        const vtail tail = vtail_make(FN(least)(n, VL));
        REAL *const c = (REAL *)g->c + j;
        vec sums[MOST];
        for (ptrdiff_t i = 0; i < g->m; i++) sums[i] = vload_t(c + i * g->ldc, tail);
        for (ptrdiff_t q = p; q < g->k; q += VL) {
            const REAL *x = (const REAL *)g->a + q * g->a_cs;
            FN(transpose_part)(n, g->k - q, (const REAL *)g->b + j * g->b_cs + q, g->b_cs, turned);
            for (ptrdiff_t t = 0; t < VL && q + t < g->k; t++, x += g->a_cs)
                for (ptrdiff_t i = 0; i < g->m; i++)
                    sums[i] = vfma(vset1(x[i * g->a_rs]), vload(turned + t * VL), sums[i]);
        }
        for (ptrdiff_t i = 0; i < g->m; i++) vstore_t(c + i * g->ldc, sums[i], tail);
    }
}

INLINE void FN(turn_columns)(const fnn_gemm *g, const int m) {
    for (ptrdiff_t j = 0, n; j < g->n; j += n) {
        const int wide = j + TURN_WIDTH * VL <= g->n;
        n = FN(least)(wide ? TURN_WIDTH * VL : VL, g->n - j);
        const ptrdiff_t p = wide ? FN(turn_group)(g, m, TURN_WIDTH, j) : FN(turn_group)(g, m, 1, j);
        if (p < g->k) FN(turn_rest)(g, j, n, p);
    }
}

/* The same with squares of B, whole lines of its rows at a time: L1 need not keep as many lines as rows, which
 * may meet in few of its sets, until their last piece. One vector of columns leaves room for eight sums. */
INLINE void FN(turn_squares)(const fnn_gemm *g, const int m) {
    enum { LANES = VEC_BYTES / sizeof(REAL), MOST = TURN_MOST };
    /* Where the sums take longer, or B comes from afar, its lines are fetched; else the hardware is quicker alone. */
    const int fetches = m > STREAM_ROWS || g->n * g->k * (ptrdiff_t)sizeof(REAL) >= SQUARES_FAR;
    for (ptrdiff_t j = 0, n, p; j < g->n; j += n) {
        n = FN(least)(LANES, g->n - j);
        const vtail tail = vtail_make(n);
        const REAL *const b = (const REAL *)g->b + j * g->b_cs, *x = g->a;
        vec sums[MOST];
        sums[0] = vset1(0);
        if (g->bias) sums[0] = vload_t((const REAL *)g->bias + j, tail);
        UNROLL for (int i = 1; i < m; i++) sums[i] = sums[0];
        for (p = 0; n == LANES && p + LANES <= g->k; p += LANES, x += LANES) {
            vec piece[LANES], r[TURN_STEP];
            if (fetches) {
                const ptrdiff_t over = p + SQUARES_AHEAD * LANES - g->k, more = j + 2 * LANES <= g->n;
                const REAL *next = over < 0 ? b + p + SQUARES_AHEAD * LANES : more ? b + LANES * g->b_cs + over : b;
                UNROLL for (int q = 0; q < LANES; q++, next += g->b_cs) __builtin_prefetch(next);
            }
            FN(square_pieces)(b + p, g->b_cs, piece);
            UNROLL for (int q = 0; q < LANES; q++) {
                if (q % TURN_STEP == 0) FN(exchange)(piece + q, r);
                UNROLL for (int i = 0; i < m; i++)
                    sums[i] = vfma(vset1(x[i * g->a_rs + q]), r[q % TURN_STEP], sums[i]);
            }
        }
        UNROLL for (int i = 0; i < m; i++) vstore_t((REAL *)g->c + i * g->ldc + j, sums[i], tail);
        if (p < g->k) FN(turn_rest)(g, j, n, p);
    }
}

/* For more rows than pieces serve; for fewer where the rows of B^T are whole lines and do not all stay in L2,
 * or meet in few sets of L1; or where B comes from afar. */
INLINE int FN(better_in_squares)(const fnn_gemm *g) {
    const ptrdiff_t row = g->b_cs * (ptrdiff_t)sizeof(REAL), bytes = g->n * g->k * (ptrdiff_t)sizeof(REAL);
    const ptrdiff_t large = row % 2048 ? 3 << 19 : 1 << 20;
    if (!TURN_SQUARES || g->a_cs != 1) return 0;
    return g->m > STREAM_ROWS || bytes >= SQUARES_FAR || (row % 64 == 0 && bytes >= large);
}

INLINE int FN(better_turned)(const fnn_gemm *g) {
    return g->b_cs != 1 && g->m <= (g->a_cs == 1 ? TURN_MOST : STREAM_ROWS);
}

/* Up to TURN_MOST rows of C, where a column of B is contiguous: bound by reading and turning B. */
static void FN(turned)(const fnn_gemm *g) {
    switch (g->m + (FN(better_in_squares)(g) ? STREAM_ROWS : 0)) {
    case 1: FN(turn_columns)(g, 1); break;
    case 2: FN(turn_columns)(g, 2); break;
    case 3: FN(turn_columns)(g, 3); break;
    case 4: FN(turn_columns)(g, 4); break;
#define TURN_CASE(M) case STREAM_ROWS + M: if (TURN_SQUARES && M <= TURN_MOST) FN(turn_squares)(g, M); break
    TURN_CASE(1); TURN_CASE(2); TURN_CASE(3); TURN_CASE(4);
    TURN_CASE(5); TURN_CASE(6); TURN_CASE(7); TURN_CASE(8);
#undef TURN_CASE
    }
    for (ptrdiff_t i = 0; FN(act_in_tile)(g) && g->act != FNN_IDENTITY && i < g->m; i++) {
        REAL *const c = (REAL *)g->c + i * g->ldc;
        FN(act)(g->act, g->slope, g->n, c, c);
    }
    if (FN(act_after)(g)) FN(finish)(g, 0, 0, g->m, g->n);
}

/* With 16 registers up to three rows stream from half of STREAM_NEAR on; where W's rows are a multiple of
 * 2 KiB apart, and so in few sets of L1, four do, and up to eight from STREAM_NEAR on. With 32 registers
 * neither is measured. */
INLINE int FN(better_streamed)(const fnn_gemm *g) {
    const ptrdiff_t bytes = g->n * g->k * (ptrdiff_t)sizeof(REAL);
    const int meet = GEMM_MR <= 8 && g->b_rs * (ptrdiff_t)sizeof(REAL) % 2048 == 0;
    if (g->b_cs != 1 || g->n < 8 * VL || g->m > (meet ? STREAM_MOST : STREAM_ROWS)) return 0;
    const int early = meet ? g->m <= STREAM_ROWS : GEMM_MR <= 8 && g->m < STREAM_ROWS;
    return bytes >= (early ? STREAM_NEAR / 2 : STREAM_NEAR);
}
