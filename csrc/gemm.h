/* gemm.h: the matrix product of fastnn.h, in five ways that give the same bits:
 *
 *   direct      A and B are read where they lie, a strip of rows at a time. The way of the forward
 *               pass and of dW as long as W stays in the cache.
 *   blocked     the same on blocks of B (kc x nc) that stay in L2 while all strips of A pass (Goto and
 *               van de Geijn 2008). B is copied to panels that lie one after another, transposed
 *               if need be, where its rows are pages apart and the rows of A many enough to pay for it.
 *               A strip of A is copied for all its panels, by the tiles of the strip before.
 *   transposed  for dX with few rows: C^T = B^T A^T has W's rows in the role of A, so that only
 *               the two small matrices are transposed, never W.
 *   streamed    for up to four rows and a W that only the outer caches hold.
 *   turned      for up to four rows and a transposed W, which is turned in registers.
 *
 * Every element of C is one chain of fused multiply-adds over k from the bias; between k-blocks it
 * waits in C, which is exact. Thresholds are measured, on 48 KiB of L1 and 1 MiB of L2. */
#include "gemm_tile.h"
#include "gemm_pack.h"

/* Bytes of B from which it comes in blocks; from which 48 rows pay for copying it, elsewhere 128. */
#define GEMM_LARGE (1 << 20)
#define GEMM_HUGE (6 << 20)
/* Bytes of W from which few rows stream through it. */
#define GEMM_STREAM (2 << 20)
/* Bytes between rows of B from which each lies in a page of its own, as good as. */
#define GEMM_APART 3584
/* Bytes of a block of B: it stays in L2 while the rows of A and C pass. */
#define GEMM_BLOCK (512 << 10)

#define NR (GEMM_NV * VL)
#define KC ((ptrdiff_t)(2048 / sizeof(REAL)))  /* deepest block: a strip of A stays in L1 */
#define STREAM 8                               /* rows of W that a row of C takes at a time */
#define STREAM_ROWS 4                          /* rows of C from which its tiles are better */

/* `parts` nearly equal parts of n: where the i-th begins. */
INLINE ptrdiff_t FN(part)(ptrdiff_t n, ptrdiff_t parts, ptrdiff_t i) {
    const ptrdiff_t each = n / parts, extra = n % parts;
    return i * each + (i < extra ? i : extra);
}
INLINE ptrdiff_t FN(ceil_div)(ptrdiff_t a, ptrdiff_t b) { return (a + b - 1) / b; }
INLINE ptrdiff_t FN(round_up)(ptrdiff_t a, ptrdiff_t b) { return FN(ceil_div)(a, b) * b; }
INLINE ptrdiff_t FN(least)(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

/* The epilogues that a tile does not do, over m x n elements of C at (i, j). */
static void FN(finish)(const fnn_gemm *g, ptrdiff_t i, ptrdiff_t j, ptrdiff_t m, ptrdiff_t n) {
    const vec zero = vset1(0), slope = vset1((REAL)g->slope);
    REAL *c = (REAL *)g->c + i * g->ldc + j;
    if (!g->saved) {
        for (; m > 0; m--, c += g->ldc) FN(act)(g->act, g->slope, n, c, c);
        return;
    }
    const REAL *saved = (const REAL *)g->saved + i * g->lds + j;
    for (; m > 0; m--, c += g->ldc, saved += g->lds) {
        if (g->act > FNN_RELU) {
            FN(act_grad)(g->act, g->slope, n, saved, c, c);
            continue;
        }
        ptrdiff_t q = 0;
        for (; q + VL <= n; q += VL) {
            const vec v = vload(c + q), low = g->act == FNN_RELU ? zero : v * slope;
            vstore(c + q, vsel(vgt(vload(saved + q), zero), v, low));
        }
        if (q < n) {
            const vtail tail = vtail_make(n - q);
            const vec v = vload_t(c + q, tail), low = g->act == FNN_RELU ? zero : v * slope;
            vstore_t(c + q, vsel(vgt(vload_t(saved + q, tail), zero), v, low), tail);
        }
    }
}

INLINE int FN(act_in_tile)(const fnn_gemm *g) { return !g->saved && g->act <= FNN_RELU; }
INLINE int FN(act_after)(const fnn_gemm *g) {
    return !FN(act_in_tile)(g) && g->act != FNN_IDENTITY;
}

/* The next tile of C is fetched while this one is computed. */
INLINE void FN(prefetch_c)(const REAL *c, ptrdiff_t mr, ptrdiff_t ldc) {
    for (ptrdiff_t i = 0; i < mr; i++, c += ldc)
        UNROLL for (int q = 0; q < GEMM_NV; q++) __builtin_prefetch(c + q * VL, 1);
}

/* A strip of A: mr x k elements at a, and where they are copied to, as k columns of GEMM_MR. */
typedef struct {
    const REAL *a;
    ptrdiff_t a_rs, a_cs, mr;
    REAL *copy; /* NULL: read where it lies */
} FN(source);

/* The rows of a strip's copy from `begin` on. */
static void FN(copy_strip)(const FN(source) *s, ptrdiff_t begin, ptrdiff_t k) {
    const REAL *a = s->a + begin * s->a_rs;
    REAL *to = s->copy + begin;
    if (s->a_cs == 1) {
        FN(transpose)(s->mr - begin, k, a, s->a_rs, to, GEMM_MR);
    } else if (s->mr - begin == GEMM_MR) {
        for (ptrdiff_t p = 0; p < k; p++) memcpy(to + p * GEMM_MR, a + p * s->a_cs, GEMM_MR * sizeof(REAL));
    } else {
        for (ptrdiff_t p = 0; p < k; p++)
            for (ptrdiff_t i = 0; i < s->mr - begin; i++) to[p * GEMM_MR + i] = a[p * s->a_cs + i];
    }
}

/* Columns [0, n) of mr rows of C, from t's b, c and start on. `panel` is the distance in B between one
 * NR columns and the next. Meanwhile `next`, if any, is copied. */
static void FN(strip)(const FN(tile) *first, ptrdiff_t mr, ptrdiff_t n, int rows, ptrdiff_t panel,
                      const FN(source) *next) {
    const ptrdiff_t rest = n % VL, vectors = n / VL + (GEMM_MASKED_FREE && rest);
    const ptrdiff_t parts = FN(ceil_div)(vectors, rows ? GEMM_WIDEST_ROWS(mr) : GEMM_WIDEST_COLS);
    const int advance = first->start != FN(zeros);
    ptrdiff_t copied = 0;
    REAL sink[2];
    FN(tile) t = *first;
    t.tail = vtail_make(GEMM_MASKED_FREE ? VL : 0);
    for (ptrdiff_t i = 0; i < parts; i++) {
        const ptrdiff_t nv = FN(part)(vectors, parts, i + 1) - FN(part)(vectors, parts, i);
        if (GEMM_MASKED_FREE && rest && i == parts - 1) t.tail = vtail_make(rest);
        if (next && copied < next->mr && GEMM_COPIES_IN(mr, nv)) {
            t.from[0] = t.from[1] = next->a + copied * next->a_rs;
            if (copied + 1 < next->mr) t.from[1] += next->a_rs;
            t.to = next->copy + copied;
            t.from_step = next->a_cs;
            t.to_step = GEMM_MR;
            copied += 2;
        } else {
            t.from[0] = t.from[1] = t.a;
            t.to = sink;
            t.from_step = t.to_step = 0;
        }
        if (panel) FN(prefetch_c)(i + 1 < parts ? t.c + NR : first->c + mr * t.ldc, mr, t.ldc);
        (rows ? FN(rows_tiles)[mr - 1][nv - 1] : FN(cols_tiles)[mr - 1][nv - 1])(&t);
        t.b += panel && nv == GEMM_NV ? panel : nv * VL;
        t.c += nv * VL;
        if (advance) t.start += nv * VL;
    }
    if (next && copied < next->mr) FN(copy_strip)(next, copied, t.k);
#if !GEMM_MASKED_FREE
    if (rest) {
        t.tail = vtail_make(rest);
        FN(tile_masked)(&t, mr, rows);
    }
#endif
}

/* The blocks in which a product is done, kc x nc of B, and what of them is copied. */
typedef struct {
    ptrdiff_t kc, nc;
    int packs_b, copies_a;
} FN(blocks);

static FN(blocks) FN(block_sizes)(const fnn_gemm *g) {
    const ptrdiff_t size = sizeof(REAL), bytes = g->n * g->k * size;
    FN(blocks) s = {.kc = g->k > 0 ? g->k : 1, .nc = g->n};
    s.packs_b = g->b_cs != 1 || (g->m >= 128 && bytes >= GEMM_LARGE && g->b_rs * size >= GEMM_APART) ||
                (g->m >= 48 && bytes >= GEMM_HUGE);
    if (s.packs_b || (g->m > 1 && bytes >= GEMM_LARGE)) {
        /* Rows a page apart meet in a quarter of L2's sets, whose ways hold 256 of them. */
        const ptrdiff_t most = !s.packs_b && g->b_rs * size % 4096 == 0 && g->m > GEMM_MR ? 128 : KC;
        s.kc = FN(ceil_div)(s.kc, FN(ceil_div)(s.kc, most));
        s.nc = FN(least)(FN(round_up)(g->n, NR), GEMM_BLOCK / (s.kc * size) / NR * NR);
    }
    s.copies_a = s.packs_b || (s.nc >= 8 * NR && g->m >= 48 &&
                 (g->a_cs != 1 || g->a_rs * size % 4096 == 0));
    return s;
}

/* One block: C(i, j) += A(i, p) B(p, j) for k rows of B from b on and n columns. */
typedef struct {
    ptrdiff_t p, j, k, n;
    const REAL *b;
    REAL *a_copy;
} FN(block);

/* The r-th of the strips into which the rows are cut. */
static FN(source) FN(source_of)(const fnn_gemm *g, const FN(block) *b, ptrdiff_t strips, ptrdiff_t r) {
    const ptrdiff_t i = FN(part)(g->m, strips, r);
    FN(source) s = {.a = (const REAL *)g->a + i * g->a_rs + b->p * g->a_cs, .a_rs = g->a_rs,
                    .a_cs = g->a_cs, .mr = FN(part)(g->m, strips, r + 1) - i};
    if (b->a_copy) s.copy = b->a_copy + r % 2 * GEMM_MR * b->k;
    return s;
}

static void FN(run_block)(const fnn_gemm *g, const FN(blocks) *s, const FN(block) *b) {
    const ptrdiff_t strips = FN(ceil_div)(g->m, GEMM_MR);
    const int rows = g->a_cs == 1 && !s->copies_a, last = b->p + b->k >= g->k;
    const ptrdiff_t panel = s->packs_b ? b->k * NR : s->copies_a || s->kc < g->k ? NR : 0;
    FN(source) source = FN(source_of)(g, b, strips, 0);
    if (s->copies_a) FN(copy_strip)(&source, 0, b->k);
    for (ptrdiff_t r = 0, i = 0; r < strips; r++) {
        const FN(source) next = FN(source_of)(g, b, strips, r + 1 < strips ? r + 1 : r);
        FN(tile) t = {.k = b->k, .a = source.a, .a_rs = g->a_rs, .a_cs = g->a_cs, .b = b->b,
                      .ldb = s->packs_b ? NR : g->b_rs, .ldc = g->ldc, .slope = (REAL)g->slope,
                      .act = last && FN(act_in_tile)(g) ? g->act : FNN_IDENTITY};
        t.c = (REAL *)g->c + i * g->ldc + b->j;
        t.start = b->p ? t.c : g->bias ? (const REAL *)g->bias + b->j : FN(zeros);
        t.start_ld = b->p ? g->ldc : 0;
        if (s->copies_a) {
            t.a = source.copy;
            t.a_cs = GEMM_MR;
        }
        FN(strip)(&t, source.mr, b->n, rows, panel, s->copies_a && r + 1 < strips ? &next : NULL);
        if (last && FN(act_after)(g)) FN(finish)(g, i, b->j, source.mr, b->n);
        i += source.mr;
        source = next;
    }
}

static void FN(by_blocks)(const fnn_gemm *g) {
    const FN(blocks) s = FN(block_sizes)(g);
    REAL *const b_copy = g->work;
    FN(block) b = {.p = 0};
    if (s.copies_a) b.a_copy = b_copy + (s.packs_b ? s.kc * s.nc : 0);
    do { /* once also where k is 0 */
        b.k = FN(least)(s.kc, g->k - b.p);
        for (b.j = 0; b.j < g->n; b.j += s.nc) {
            b.n = FN(least)(s.nc, g->n - b.j);
            b.b = (const REAL *)g->b + b.p * g->b_rs + b.j * g->b_cs;
            if (s.packs_b) {
                FN(pack_b)(b.k, b.n, b.b, g->b_rs, g->b_cs, b_copy);
                b.b = b_copy;
            }
            FN(run_block)(g, &s, &b);
        }
        b.p += b.k;
    } while (b.p < g->k);
}

/* m sums that wait in y for the next `count` terms of each:
 * y[i * ldy + j] += sum over q of x[i * x_rs + q * x_cs] b[q * ldb + j]. */
INLINE void FN(stream_rows)(const int m, const int count, ptrdiff_t n, const REAL *x, ptrdiff_t x_rs,
                            ptrdiff_t x_cs, const REAL *b, ptrdiff_t ldb, REAL *y, ptrdiff_t ldy) {
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
    for (; j + VL <= n; j += VL) STREAM_STEP(vload(b + q * ldb + j));
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
    ptrdiff_t p = 0;
    for (; p + count <= g->k; p += count, x += count * cs, b += count * ldb) {
        if (head) FN(stream_rows)(m, count, head, x, rs, cs, b, ldb, y - VL, ldy);
        FN(stream_rows)(m, count, n - head, x, rs, cs, b + head, ldb, y, ldy);
    }
    for (; p < g->k; p++, x += cs, b += ldb) {
        if (head) FN(stream_rows)(m, 1, head, x, rs, cs, b, ldb, y - VL, ldy);
        FN(stream_rows)(m, 1, n - head, x, rs, cs, b + head, ldb, y, ldy);
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

/* VL terms of VL columns of C: the square of B^T at b is turned in registers. Fewer where `terms` or
 * `columns` is less. */
INLINE void FN(turn_square)(const int m, ptrdiff_t columns, ptrdiff_t terms, const REAL *x,
                            ptrdiff_t x_rs, ptrdiff_t x_cs, const REAL *b, ptrdiff_t ldb, vec *sums) {
    enum { LANES = VEC_BYTES / sizeof(REAL) };
    vec r[LANES];
    if (columns >= VL && terms >= VL) {
        UNROLL for (int q = 0; q < LANES; q++) r[q] = vload(b + q * ldb);
        FN(transpose_square)(r);
        UNROLL for (int q = 0; q < LANES; q++)
            UNROLL for (int i = 0; i < m; i++)
                sums[i] = vfma(vset1(x[i * x_rs + q * x_cs]), r[q], sums[i]);
    } else {
        const vtail across = vtail_make(FN(least)(terms, VL));
        UNROLL for (int q = 0; q < LANES; q++) {
            r[q] = vset1(0);
            if (q < columns) r[q] = vload_t(b + q * ldb, across);
        }
        FN(transpose_square)(r);
        UNROLL for (int q = 0; q < LANES; q++)
            if (q < terms) UNROLL for (int i = 0; i < m; i++)
                sums[i] = vfma(vset1(x[i * x_rs + q * x_cs]), r[q], sums[i]);
    }
}

/* Two vectors of columns at a time: their sums are chains that the core runs side by side. */
INLINE void FN(turn_columns)(const fnn_gemm *g, const int m) {
    const ptrdiff_t ldb = g->b_cs;
    for (ptrdiff_t j = 0; j < g->n; j += 2 * VL) {
        const ptrdiff_t n = g->n - j;
        const REAL *x = g->a, *b = (const REAL *)g->b + j * ldb;
        const vtail tail[2] = {vtail_make(FN(least)(n, VL)), vtail_make(n > VL ? FN(least)(n - VL, VL) : 0)};
        vec sums[2][STREAM_ROWS];
        UNROLL for (int h = 0; h < 2; h++)
            UNROLL for (int i = 0; i < m; i++) {
                sums[h][i] = vset1(0);
                if (g->bias && n > h * VL)
                    sums[h][i] = vload_t((const REAL *)g->bias + j + h * VL, tail[h]);
            }
        for (ptrdiff_t p = 0; p < g->k; p += VL, x += VL * g->a_cs, b += VL) {
            FN(turn_square)(m, n, g->k - p, x, g->a_rs, g->a_cs, b, ldb, sums[0]);
            if (n > VL)
                FN(turn_square)(m, n - VL, g->k - p, x, g->a_rs, g->a_cs, b + VL * ldb, ldb, sums[1]);
        }
        UNROLL for (int h = 0; h < 2; h++)
            UNROLL for (int i = 0; i < m; i++)
                if (n > h * VL) vstore_t((REAL *)g->c + i * g->ldc + j + h * VL, sums[h][i], tail[h]);
    }
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

/* Few rows of C, at most T_ROWS, and T_COLUMNS columns at a time, a part of C^T in g->work. */
#define T_ROWS FN(round_up)(8 * (VL / 2 + 1), VL)
#define T_COLUMNS ((ptrdiff_t)GEMM_MR * 8)

static void FN(transposed)(const fnn_gemm *g) {
    const ptrdiff_t m = g->m, ld = FN(round_up)(m, VL);
    REAL *const a = g->work, *const c = a + g->k * ld;
    FN(transpose)(m, g->k, g->a, g->a_rs, a, ld);
    for (ptrdiff_t j = 0; j < g->n; j += T_COLUMNS) {
        const ptrdiff_t n = FN(least)(T_COLUMNS, g->n - j), strips = FN(ceil_div)(n, GEMM_MR);
        if (g->bias)
            for (ptrdiff_t q = 0; q < n * ld; q++) c[q] = ((const REAL *)g->bias)[j + q / ld];
        for (ptrdiff_t r = 0; r < strips; r++) {
            const ptrdiff_t begin = FN(part)(n, strips, r);
            FN(tile) t = {.k = g->k, .a_rs = g->b_cs, .a_cs = 1, .b = a, .ldb = ld, .ldc = ld,
                          .act = FN(act_in_tile)(g) ? g->act : FNN_IDENTITY,
                          .slope = (REAL)g->slope};
            t.a = (const REAL *)g->b + (j + begin) * g->b_cs;
            t.c = c + begin * ld;
            t.start = g->bias ? t.c : FN(zeros);
            t.start_ld = g->bias ? ld : 0;
            FN(strip)(&t, FN(part)(n, strips, r + 1) - begin, m, 1, 0, NULL);
        }
        FN(transpose)(n, m, c, ld, (REAL *)g->c + j, g->ldc);
        if (FN(act_after)(g)) FN(finish)(g, 0, j, m, n);
    }
}

/* The packed way costs as much as VL / 2 + 1 more rows, for W's transposition; the transposed one
 * an eighth more, and what its last vector of rows leaves empty. */
INLINE int FN(better_transposed)(const fnn_gemm *g) {
    return g->b_cs != 1 && g->a_cs == 1 && 9 * FN(round_up)(g->m, VL) <= 8 * (g->m + VL / 2 + 1);
}

/* Never less for a larger m, n or k, so one answer serves all batches up to the largest: a shorter k
 * may come in deeper blocks. */
static size_t FN(gemm_work)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, ptrdiff_t b_cs) {
    const ptrdiff_t depth = FN(least)(k > 0 ? k : 1, KC), width = FN(round_up)(n, NR);
    const ptrdiff_t block = GEMM_BLOCK / (ptrdiff_t)sizeof(REAL);
    const ptrdiff_t packed = FN(least)(depth * width, block) + 2 * GEMM_MR * depth;
    const ptrdiff_t rows = FN(least)(FN(round_up)(m, VL), T_ROWS);
    const ptrdiff_t transposed = b_cs == 1 ? 0 : (k + T_COLUMNS) * rows;
    if (b_cs == 1 && m < 48) return 0;
    return (size_t)(transposed > packed ? transposed : packed) * sizeof(REAL);
}

static void FN(gemm)(const fnn_gemm *g) {
    if (g->m <= 0 || g->n <= 0) return;
    assert((g->a_rs == 1 || g->a_cs == 1) && (g->b_rs == 1 || g->b_cs == 1));
    assert(g->work || !FN(gemm_work)(g->m, g->n, g->k, g->b_cs));
    if (g->m <= STREAM_ROWS && g->b_cs == 1 && g->n >= 8 * VL &&
        g->n * g->k * (ptrdiff_t)sizeof(REAL) >= GEMM_STREAM)
        FN(streamed)(g);
    else if (g->m <= STREAM_ROWS && g->b_cs != 1)
        FN(turned)(g);
    else if (FN(better_transposed)(g))
        FN(transposed)(g);
    else
        FN(by_blocks)(g);
}

/* Up to eight vectors of sums stay in registers while the rows stream by. */
static void FN(column_sums)(ptrdiff_t m, ptrdiff_t n, const void *g, ptrdiff_t ldg, void *out) {
    enum { WIDTH = 8 };
    ptrdiff_t j = 0;
    for (; j + WIDTH * VL <= n; j += WIDTH * VL) {
        const REAL *x = (const REAL *)g + j;
        vec sums[WIDTH];
        UNROLL for (int q = 0; q < WIDTH; q++) sums[q] = vset1(0);
        for (ptrdiff_t i = 0; i < m; i++, x += ldg)
            UNROLL for (int q = 0; q < WIDTH; q++) sums[q] = sums[q] + vload(x + q * VL);
        UNROLL for (int q = 0; q < WIDTH; q++) vstore((REAL *)out + j + q * VL, sums[q]);
    }
    for (; j < n; j += VL) {
        const vtail tail = vtail_make(FN(least)(VL, n - j));
        const REAL *x = (const REAL *)g + j;
        vec sums = vset1(0);
        for (ptrdiff_t i = 0; i < m; i++, x += ldg) sums = sums + vload_t(x, tail);
        vstore_t((REAL *)out + j, sums, tail);
    }
}

#undef NR
#undef KC
#undef STREAM
#undef STREAM_ROWS
#undef T_ROWS
#undef T_COLUMNS
