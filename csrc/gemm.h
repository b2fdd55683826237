/* gemm.h: the matrix product of fastnn.h, in four ways that give the same bits:
 *
 *   direct      A and B are read where they lie, a strip of rows at a time. The way of the forward
 *               pass and of dW as long as W stays in the cache, and of few rows at any size.
 *   packed      the same strips, but a block of B (kc x nc) is copied to panels that lie one after
 *               another (Goto and van de Geijn 2008), transposed on the way if need be. For large
 *               products: rows a power of two apart share a few cache sets.
 *   transposed  for dX with few rows: C^T = B^T A^T has W's rows in the role of A, so that only
 *               the two small matrices are transposed, never W.
 *   streamed    for one row and a W that only the outer caches hold.
 *
 * Every element of C is one chain of fused multiply-adds over k from the bias; between k-blocks it
 * waits in C, which is exact. Thresholds are measured, on 48 KiB of L1 and 1 MiB of L2. */
#include "gemm_tile.h"
#include "gemm_pack.h"

/* Bytes of B from which packing pays, with 128 rows and with 48; the latter is also where few rows
 * go through W 32 of its rows at a time, which are streams that the hardware can follow. */
#define GEMM_LARGE (1 << 20)
#define GEMM_HUGE (6 << 20)
/* Bytes of W from which a single row streams through it. */
#define GEMM_STREAM (2 << 20)
/* Bytes of a packed block of B: what stays in L2, or, where many rows pay for the copy, in L3. */
#define GEMM_BLOCK_L2 (512 << 10)
#define GEMM_BLOCK_L3 (4 << 20)

#define NR (GEMM_NV * VL)
#define KC ((ptrdiff_t)(4096 / sizeof(REAL)))  /* deepest packed block: each loads and stores C */
#define STREAM 8                               /* rows of W that a single row of C takes at a time */
#define STREAM_COLUMNS ((ptrdiff_t)(8192 / sizeof(REAL)))
#define A_PAD ((ptrdiff_t)(64 / sizeof(REAL))) /* spreads a copied strip over the cache sets */
#define AHEAD (64 * NR)                        /* prefetch distance in a packed block, for L3 */

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

/* Columns [0, n) of mr rows of C, from t's b, c and start on. */
static void FN(strip)(const FN(tile) *first, ptrdiff_t mr, ptrdiff_t n, int rows) {
    const ptrdiff_t rest = n % VL, vectors = n / VL + (GEMM_MASKED_FREE && rest);
    const ptrdiff_t parts = FN(ceil_div)(vectors, rows ? GEMM_WIDEST_ROWS(mr) : GEMM_WIDEST_COLS);
    const int advance = first->start != FN(zeros);
    FN(tile) t = *first;
    t.tail = vtail_make(GEMM_MASKED_FREE ? VL : 0);
    for (ptrdiff_t i = 0; i < parts; i++) {
        const ptrdiff_t nv = FN(part)(vectors, parts, i + 1) - FN(part)(vectors, parts, i);
        if (GEMM_MASKED_FREE && rest && i == parts - 1) t.tail = vtail_make(rest);
        (rows ? FN(rows_tiles)[mr - 1][nv - 1] : FN(cols_tiles)[mr - 1][nv - 1])(&t);
        t.b += nv * VL;
        t.c += nv * VL;
        if (advance) t.start += nv * VL;
    }
#if !GEMM_MASKED_FREE
    if (rest) {
        t.tail = vtail_make(rest);
        FN(tile_masked)(&t, mr, rows);
    }
#endif
}

/* The blocks in which a product is done: kc x nc of B, packed or not. */
typedef struct {
    ptrdiff_t kc, nc;
    int packed;
} FN(blocks);

static FN(blocks) FN(block_sizes)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, ptrdiff_t b_cs) {
    const ptrdiff_t bytes = n * k * (ptrdiff_t)sizeof(REAL);
    FN(blocks) s = {.kc = k > 0 ? k : 1, .nc = n};
    s.packed = b_cs != 1 || (m >= 128 && bytes >= GEMM_LARGE) || (m >= 48 && bytes >= GEMM_HUGE);
    if (s.packed) {
        const ptrdiff_t block = m < 512 ? GEMM_BLOCK_L2 : GEMM_BLOCK_L3;
        s.kc = FN(ceil_div)(s.kc, FN(ceil_div)(s.kc, KC));
        s.nc = FN(least)(FN(round_up)(n, NR), block / (s.kc * (ptrdiff_t)sizeof(REAL)) / NR * NR);
    } else if (bytes >= GEMM_HUGE)
        s.kc = FN(least)(s.kc, 32);
    return s;
}

/* Whether a strip of A is worth a copy: where many panels read it, and its rows lie in one cache
 * set or its columns far apart. */
INLINE int FN(copies_a)(const fnn_gemm *g, const FN(blocks) *s) {
    const int spread = g->a_cs != 1 || g->a_rs * (ptrdiff_t)sizeof(REAL) % 4096 == 0;
    return s->packed && s->nc >= 8 * NR && spread;
}

/* mr x k elements of A, by rows or (as A lies by columns) by columns: t reads the copy. */
static void FN(copy_a)(FN(tile) *t, ptrdiff_t mr, int rows, REAL *dst) {
    if (rows) {
        FN(copy_rows)(mr, t->k, t->a, t->a_rs, dst, t->k + A_PAD);
        t->a_rs = t->k + A_PAD;
    } else {
        const REAL *a = t->a;
        for (ptrdiff_t p = 0; p < t->k; p++, a += t->a_cs)
            if (mr == GEMM_MR)
                memcpy(dst + p * mr, a, GEMM_MR * sizeof(REAL));
            else
                for (ptrdiff_t i = 0; i < mr; i++) dst[p * mr + i] = a[i];
        t->a_cs = mr;
    }
    t->a = dst;
}

/* One strip of the packed block: panel by panel, the next piece of C on its way. */
static void FN(packed_strip)(FN(tile) *t, ptrdiff_t mr, ptrdiff_t n, int rows) {
    for (ptrdiff_t j = 0; j < n; j += NR) {
        for (ptrdiff_t i = 0; i < mr; i++) {
            __builtin_prefetch(t->c + i * t->ldc + NR, 1);
            __builtin_prefetch(t->c + i * t->ldc + NR + VL, 1);
        }
        FN(strip)(t, mr, FN(least)(NR, n - j), rows);
        t->b += t->k * NR;
        t->c += NR;
        if (t->start != FN(zeros)) t->start += NR;
    }
}

static void FN(by_strips)(const fnn_gemm *g) {
    const FN(blocks) s = FN(block_sizes)(g->m, g->n, g->k, g->b_cs);
    const int rows = g->a_cs == 1, transposed = g->b_cs != 1;
    const int copies_a = FN(copies_a)(g, &s);
    const ptrdiff_t strips = FN(ceil_div)(g->m, GEMM_MR);
    REAL *const b_copy = g->work, *const a_copy = b_copy + s.kc * s.nc;
    for (ptrdiff_t j = 0; j < g->n; j += s.nc) {
        const ptrdiff_t n = FN(least)(s.nc, g->n - j);
        ptrdiff_t p = 0;
        do { /* once also where k is 0 */
            const ptrdiff_t k = FN(least)(s.kc, g->k - p);
            const REAL *b = (const REAL *)g->b + p * g->b_rs + j * g->b_cs;
            if (s.packed) {
                FN(pack_b)(k, n, NR, b, transposed ? g->b_cs : g->b_rs, transposed, b_copy);
                b = b_copy;
            }
            const int last = p + k >= g->k;
            for (ptrdiff_t r = 0; r < strips; r++) {
                const ptrdiff_t i = FN(part)(g->m, strips, r);
                const ptrdiff_t mr = FN(part)(g->m, strips, r + 1) - i;
                FN(tile) t = {.k = k, .a_rs = g->a_rs, .a_cs = g->a_cs, .b = b,
                              .ldb = s.packed ? NR : g->b_rs, .ldc = g->ldc,
                              .act = last && FN(act_in_tile)(g) ? g->act : FNN_IDENTITY,
                              .slope = (REAL)g->slope, .ahead = s.packed ? AHEAD : 0};
                t.a = (const REAL *)g->a + i * g->a_rs + p * g->a_cs;
                t.c = (REAL *)g->c + i * g->ldc + j;
                t.start = p ? t.c : g->bias ? (const REAL *)g->bias + j : FN(zeros);
                t.start_ld = p ? g->ldc : 0;
                if (copies_a) FN(copy_a)(&t, mr, rows, a_copy);
                if (s.packed)
                    FN(packed_strip)(&t, mr, n, rows);
                else
                    FN(strip)(&t, mr, n, rows);
                if (last && FN(act_after)(g)) FN(finish)(g, i, j, mr, n);
            }
            p += k;
        } while (p < g->k);
    }
}

/* Sums that wait in y for the next `count` terms of each: y[j] += sum over q of x[q] b[q * ldb + j]. */
INLINE void FN(stream_rows)(const int count, ptrdiff_t n, const REAL *x, ptrdiff_t x_step,
                            const REAL *b, ptrdiff_t ldb, REAL *y) {
    vec w[STREAM];
    UNROLL for (int q = 0; q < count; q++) w[q] = vset1(x[q * x_step]);
    ptrdiff_t j = 0;
    for (; j + VL <= n; j += VL) {
        vec sum = vload(y + j);
        UNROLL for (int q = 0; q < count; q++) sum = vfma(w[q], vload(b + q * ldb + j), sum);
        vstore(y + j, sum);
    }
    if (j < n) {
        const vtail tail = vtail_make(n - j);
        vec sum = vload_t(y + j, tail);
        UNROLL for (int q = 0; q < count; q++) sum = vfma(w[q], vload_t(b + q * ldb + j, tail), sum);
        vstore_t(y + j, sum, tail);
    }
}

/* One row of C, for a W that the inner caches do not hold: bound by reading W, so it is read in long
 * runs, some rows at a time along n. The sums wait in a buffer of this thread's own: in C, a cache
 * line that two threads share would travel at each of their turns. */
static void FN(streamed)(const fnn_gemm *g) {
    REAL buffer[STREAM_COLUMNS + VL] __attribute__((aligned(VEC_BYTES)));
    const int parallel = g->b_rs * (ptrdiff_t)sizeof(REAL) % VEC_BYTES == 0;
    for (ptrdiff_t j = 0; j < g->n; j += STREAM_COLUMNS) {
        const REAL *x = g->a, *b = (const REAL *)g->b + j;
        const ptrdiff_t n = FN(least)(STREAM_COLUMNS, g->n - j);
        /* Columns up to an aligned address: loads that straddle cache lines take a fifth longer. */
        const ptrdiff_t head = FN(least)(
            n, parallel ? (ptrdiff_t)(-(uintptr_t)b % VEC_BYTES / sizeof(REAL)) : 0);
        REAL *const y = buffer + (VL - head) % VL;
        if (g->bias)
            memcpy(y, (const REAL *)g->bias + j, (size_t)n * sizeof(REAL));
        else
            memset(y, 0, (size_t)n * sizeof(REAL));
        ptrdiff_t p = 0;
        for (; p + STREAM <= g->k; p += STREAM, x += STREAM * g->a_cs, b += STREAM * g->b_rs) {
            FN(stream_rows)(STREAM, head, x, g->a_cs, b, g->b_rs, y);
            FN(stream_rows)(STREAM, n - head, x, g->a_cs, b + head, g->b_rs, y + head);
        }
        for (; p < g->k; p++, x += g->a_cs, b += g->b_rs) FN(stream_rows)(1, n, x, 0, b, 0, y);
        if (FN(act_in_tile)(g) && g->act != FNN_IDENTITY) FN(act)(g->act, g->slope, n, y, y);
        memcpy((REAL *)g->c + j, y, (size_t)n * sizeof(REAL));
    }
    if (FN(act_after)(g)) FN(finish)(g, 0, 0, 1, g->n);
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
            FN(strip)(&t, FN(part)(n, strips, r + 1) - begin, m, 1);
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
    if (!FN(block_sizes)(m, n, k, b_cs).packed) return 0;
    const ptrdiff_t depth = FN(least)(k > 0 ? k : 1, KC), width = FN(round_up)(n, NR);
    const ptrdiff_t block = GEMM_BLOCK_L3 / (ptrdiff_t)sizeof(REAL);
    const ptrdiff_t packed = FN(least)(depth * width, block) + GEMM_MR * (depth + A_PAD);
    const ptrdiff_t rows = FN(least)(FN(round_up)(m, VL), T_ROWS);
    const ptrdiff_t transposed = b_cs == 1 ? 0 : (k + T_COLUMNS) * rows;
    return (size_t)(transposed > packed ? transposed : packed) * sizeof(REAL);
}

static void FN(gemm)(const fnn_gemm *g) {
    if (g->m <= 0 || g->n <= 0) return;
    assert((g->a_rs == 1 || g->a_cs == 1) && (g->b_rs == 1 || g->b_cs == 1));
    assert(g->work || !FN(gemm_work)(g->m, g->n, g->k, g->b_cs));
    if (g->m == 1 && g->b_cs == 1 && g->n >= 8 * VL &&
        g->n * g->k * (ptrdiff_t)sizeof(REAL) >= GEMM_STREAM)
        FN(streamed)(g);
    else if (FN(better_transposed)(g))
        FN(transposed)(g);
    else
        FN(by_strips)(g);
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
#undef A_PAD
#undef STREAM
#undef STREAM_COLUMNS
#undef AHEAD
#undef T_ROWS
#undef T_COLUMNS
