/* gemm_few.h: the matrix product for up to STREAM_ROWS rows of C, bound by reading B.
 *
 *   streamed    B's rows are contiguous and only the outer caches hold it: some rows of B at a time along
 *               n, with the sums in L1.
 *   turned      B's columns are contiguous: squares of it are turned in registers.
 *
 * Both sum each element of C in the order of k. */
#define STREAM 8      /* rows of B that a row of C takes at a time */
#define TURN_AHEAD (256 / (int)sizeof(REAL)) /* of a row of B^T, fetched into L2: L1 has no room for each */
#define TURN_WIDTH 2 /* vectors of columns of B^T at a time: chains of sums that run side by side */
#define TURN_FAR (256 << 10) /* bytes of B from which its rows are fetched ahead */
#define STREAM_FAR (24 << 20) /* bytes of B beyond which it lies in memory */
#define STREAM_ROWS 4 /* more rows of C are better served by tiles */

/* m sums that wait in y for the next `count` terms of each:
 * y[i * ldy + j] += sum over q of x[i * x_rs + q * x_cs] b[q * ldb + j]. `far`: B lies in memory; the
 * rows that come next are fetched. From L3 the hardware is quicker without. */
INLINE void FN(stream_rows)(const int m, const int count, ptrdiff_t n, const REAL *x, ptrdiff_t x_rs,
                            ptrdiff_t x_cs, const REAL *b, ptrdiff_t ldb, int far, REAL *y,
                            ptrdiff_t ldy) {
    vec w[STREAM_ROWS][STREAM], sums[STREAM_ROWS];
    UNROLL for (int i = 0; i < m; i++)
        UNROLL for (int q = 0; q < count; q++) w[i][q] = vset1(x[i * x_rs + q * x_cs]);
#define STREAM_STEP(LOAD)                                                                          \
    do {                                                                                           \
        UNROLL for (int i = 0; i < m; i++) sums[i] = vload(y + i * ldy + j);                       \
        UNROLL for (int q = 0; q < count; q++) {                                                   \
            const vec v = LOAD;                                                                    \
            UNROLL for (int i = 0; i < m; i++) sums[i] = vfma(w[i][q], v, sums[i]);                \
        }                                                                                          \
        UNROLL for (int i = 0; i < m; i++) vstore(y + i * ldy + j, sums[i]);                       \
    } while (0)
    ptrdiff_t j = 0;
    for (; j + VL <= n; j += VL) {
        if (far) UNROLL for (int q = 0; q < count; q++) __builtin_prefetch(b + (count + q) * ldb + j, 0, 2);
        STREAM_STEP(vload(b + q * ldb + j));
    }
    if (j < n) {
        const vtail tail = vtail_make(n - j);
        STREAM_STEP(vload_t(b + q * ldb + j, tail));
    }
#undef STREAM_STEP
}

/* All terms of the sums of n columns: m rows, `count` terms at a time. Up to an aligned address first:
 * loads that straddle cache lines take a fifth longer. */
INLINE void FN(stream_columns)(const fnn_gemm *g, const int m, const int count, ptrdiff_t n,
                               ptrdiff_t head, const REAL *b, REAL *y, ptrdiff_t ldy) {
    const REAL *x = g->a;
    const ptrdiff_t rs = g->a_rs, cs = g->a_cs, ldb = g->b_rs;
    const int far = g->k * ldb * (ptrdiff_t)sizeof(REAL) > STREAM_FAR;
    ptrdiff_t p = 0;
    for (; p + count <= g->k; p += count, x += count * cs, b += count * ldb) {
        if (head) FN(stream_rows)(m, count, head, x, rs, cs, b, ldb, far, y - VL, ldy);
        FN(stream_rows)(m, count, n - head, x, rs, cs, b + head, ldb, far, y, ldy);
    }
    for (; p < g->k; p++, x += cs, b += ldb) {
        if (head) FN(stream_rows)(m, 1, head, x, rs, cs, b, ldb, far, y - VL, ldy);
        FN(stream_rows)(m, 1, n - head, x, rs, cs, b + head, ldb, far, y, ldy);
    }
}

/* Up to STREAM_ROWS rows of C, for a W that the inner caches do not hold: bound by reading W, so it is
 * read in long runs, some rows at a time along n. The sums wait in a buffer of this thread's own: in
 * C, a cache line that two threads share would travel at each of their turns. A row of it begins with
 * a vector for the columns before the first aligned one. */
static void FN(streamed)(const fnn_gemm *g) {
    enum { LANES = VEC_BYTES / sizeof(REAL), WIDTH = STREAM_ROWS * 8192 / sizeof(REAL) };
    REAL buffer[WIDTH + 2 * STREAM_ROWS * LANES] __attribute__((aligned(VEC_BYTES)));
    const ptrdiff_t m = g->m, columns = WIDTH / STREAM_ROWS, ldy = columns + 2 * VL;
    const int parallel = g->b_rs * (ptrdiff_t)sizeof(REAL) % VEC_BYTES == 0;
    for (ptrdiff_t j = 0; j < g->n; j += columns) {
        const REAL *b = (const REAL *)g->b + j;
        const ptrdiff_t n = FN(least)(columns, g->n - j);
        const ptrdiff_t head = FN(least)(
            n, parallel ? (ptrdiff_t)(-(uintptr_t)b % VEC_BYTES / sizeof(REAL)) : 0);
        const size_t head_bytes = (size_t)head * sizeof(REAL), bytes = (size_t)n * sizeof(REAL);
        memset(buffer, 0, (size_t)(m * ldy) * sizeof(REAL));
        for (ptrdiff_t i = 0; g->bias && i < m; i++) {
            const REAL *const bias = (const REAL *)g->bias + j;
            memcpy(buffer + i * ldy, bias, head_bytes);
            memcpy(buffer + i * ldy + VL, bias + head, bytes - head_bytes);
        }
        switch (m) {
        case 1: FN(stream_columns)(g, 1, 8, n, head, b, buffer + VL, ldy); break;
        case 2: FN(stream_columns)(g, 2, 8, n, head, b, buffer + VL, ldy); break;
        case 3: FN(stream_columns)(g, 3, 8, n, head, b, buffer + VL, ldy); break;
        default: FN(stream_columns)(g, 4, 8, n, head, b, buffer + VL, ldy);
        }
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

/* The next VL terms of the sums of `width` vectors of columns, 16 bytes of each row of B^T at a time: so
 * few registers hold what is being turned, and x is broadcast once for all columns. */
INLINE void FN(turn_squares)(const int m, const int width, const REAL *x, ptrdiff_t x_rs, ptrdiff_t x_cs,
                             const REAL *b, ptrdiff_t ldb, vec sums[][STREAM_ROWS]) {
    enum { E = 16 / sizeof(REAL), CHUNKS = VEC_BYTES / 16 };
    UNROLL for (int c = 0; c < CHUNKS; c++, b += E, x += E * x_cs)
        UNROLL for (int h = 0; h < width; h++) {
            vec r[E];
            FN(transpose_chunk)(b + h * VL * ldb, ldb, r);
            UNROLL for (int q = 0; q < E; q++)
                UNROLL for (int i = 0; i < m; i++)
                    sums[h][i] = vfma(vset1(x[i * x_rs + q * x_cs]), r[q], sums[h][i]);
        }
}

/* The same for a square of which only columns x terms elements exist. */
INLINE void FN(turn_part)(const int m, ptrdiff_t columns, ptrdiff_t terms, const REAL *x, ptrdiff_t x_rs,
                          ptrdiff_t x_cs, const REAL *b, ptrdiff_t ldb, vec *sums) {
    REAL turned[VEC_BYTES / sizeof(REAL) * VL] __attribute__((aligned(VEC_BYTES)));
    FN(transpose_part)(columns, terms, b, ldb, turned);
    for (ptrdiff_t q = 0; q < VL && q < terms; q++)
        UNROLL for (int i = 0; i < m; i++)
            sums[i] = vfma(vset1(x[i * x_rs + q * x_cs]), vload(turned + q * VL), sums[i]);
}

/* `count` elements of each of m rows, and the next as many fetched into L2. */
INLINE void FN(move_rows)(ptrdiff_t m, const int count, const REAL *from, ptrdiff_t ld, REAL *to,
                          ptrdiff_t to_ld) {
    enum { LINE = 64 / sizeof(REAL), LANES = VEC_BYTES / sizeof(REAL) };
    for (; m > 0; m--, from += ld, to += to_ld) {
        UNROLL for (int i = 0; i < count; i += LINE) __builtin_prefetch(from + count + i, 0, 2);
        UNROLL for (int i = 0; i < count; i += LANES) vstore(to + i, vload(from + i));
    }
}

/* Columns of C from j on, `width` vectors, of which a single one need not be full. */
INLINE void FN(turn_group)(const fnn_gemm *g, const int m, const int width, ptrdiff_t j) {
    const ptrdiff_t ldb = g->b_cs, n = FN(least)(g->n - j, width * VL);
    const int far = g->n * g->k * (ptrdiff_t)sizeof(REAL) > TURN_FAR;
    const REAL *x = g->a, *b = (const REAL *)g->b + j * ldb;
    const vtail tail = vtail_make(width == 1 ? n : VL);
    vec sums[TURN_WIDTH][STREAM_ROWS];
    UNROLL for (int h = 0; h < width; h++)
        UNROLL for (int i = 0; i < m; i++) {
            sums[h][i] = vset1(0);
            if (g->bias) sums[h][i] = vload_t((const REAL *)g->bias + j + h * VL, tail);
        }
    ptrdiff_t p = 0;
    if (far && width > 1 && ldb * (ptrdiff_t)sizeof(REAL) % 4096 == 0) {
        /* All these rows share the few ways of one set of L1: so they move out of it, a run at a time. */
        enum { RUN = 256 / sizeof(REAL), LD = RUN + 16 / sizeof(REAL) };
        REAL moved[TURN_WIDTH * VEC_BYTES / sizeof(REAL) * LD] __attribute__((aligned(VEC_BYTES)));
        for (; p + RUN <= g->k; p += RUN, b += RUN) {
            FN(move_rows)(width * VL, RUN, b, ldb, moved, LD);
            for (ptrdiff_t q = 0; q < RUN; q += VL, x += VL * g->a_cs)
                FN(turn_squares)(m, width, x, g->a_rs, g->a_cs, moved + q, LD, sums);
        }
    }
    for (; p + VL <= g->k && n == width * VL; p += VL, x += VL * g->a_cs, b += VL) {
        if (far && p % (64 / (ptrdiff_t)sizeof(REAL)) == 0)
            for (ptrdiff_t q = 0; q < width * VL; q++) __builtin_prefetch(b + q * ldb + TURN_AHEAD, 0, 2);
        FN(turn_squares)(m, width, x, g->a_rs, g->a_cs, b, ldb, sums);
    }
    for (; p < g->k; p += VL, x += VL * g->a_cs, b += VL)
        UNROLL for (int h = 0; h < width; h++)
            FN(turn_part)(m, n - h * VL, g->k - p, x, g->a_rs, g->a_cs, b + h * VL * ldb, ldb, sums[h]);
    UNROLL for (int h = 0; h < width; h++)
        UNROLL for (int i = 0; i < m; i++)
            vstore_t((REAL *)g->c + i * g->ldc + j + h * VL, sums[h][i], tail);
}

INLINE void FN(turn_columns)(const fnn_gemm *g, const int m) {
    ptrdiff_t j = 0;
    for (; j + TURN_WIDTH * VL <= g->n; j += TURN_WIDTH * VL) FN(turn_group)(g, m, TURN_WIDTH, j);
    for (; j < g->n; j += VL) FN(turn_group)(g, m, 1, j);
}

/* Up to STREAM_ROWS rows of C, where a column of B is contiguous: bound by reading and turning B. */
static void FN(turned)(const fnn_gemm *g) {
    switch (g->m) {
    case 1: FN(turn_columns)(g, 1); break;
    case 2: FN(turn_columns)(g, 2); break;
    case 3: FN(turn_columns)(g, 3); break;
    default: FN(turn_columns)(g, 4);
    }
    for (ptrdiff_t i = 0; FN(act_in_tile)(g) && g->act != FNN_IDENTITY && i < g->m; i++) {
        REAL *const c = (REAL *)g->c + i * g->ldc;
        FN(act)(g->act, g->slope, g->n, c, c);
    }
    if (FN(act_after)(g)) FN(finish)(g, 0, 0, g->m, g->n);
}
