/* gemm.h: the matrix product of fastnn.h, in three ways that give the same bits:
 *
 *   direct      A and B are read where they lie, a strip of rows at a time. The way of the forward pass
 *               and of dW as long as W stays in the cache, and of few rows at any size.
 *   packed      blocks of B (KC x NC) and A (MC x KC) are copied to panels that lie one after another
 *               (Goto and van de Geijn 2008), B transposed on the way if need be. For large products.
 *   transposed  for dX with few rows: C^T = B^T A^T has W's rows in the role of A, so that only the
 *               two small matrices are transposed, never W.
 *
 * Every element of C is one chain of fused multiply-adds over k from the bias; between k-blocks it waits
 * in C, which is exact. */
#include "gemm_tile.h"
#include "gemm_pack.h"

/* Bytes of a column panel of B that stays in L1, of a block of A in L2, of a block of B in L3. */
#ifndef GEMM_L1
#define GEMM_L1 (32 << 10)
#define GEMM_L2 (384 << 10)
#define GEMM_L3 (2 << 20)
#endif

#define NR (GEMM_NV * VL)
#define KC ((ptrdiff_t)(GEMM_L1 / (NR * sizeof(REAL))))
#define MC ((ptrdiff_t)(GEMM_L2 / (KC * sizeof(REAL))) / GEMM_MR * GEMM_MR)
#define NC ((ptrdiff_t)(GEMM_L3 / (KC * sizeof(REAL))))
#define A_PAD ((ptrdiff_t)(64 / sizeof(REAL))) /* keeps the rows of a packed A out of one cache set */

/* `parts` nearly equal parts of n: where the i-th begins. */
INLINE ptrdiff_t FN(part)(ptrdiff_t n, ptrdiff_t parts, ptrdiff_t i) {
    const ptrdiff_t each = n / parts, extra = n % parts;
    return i * each + (i < extra ? i : extra);
}
INLINE ptrdiff_t FN(ceil_div)(ptrdiff_t a, ptrdiff_t b) { return (a + b - 1) / b; }
INLINE ptrdiff_t FN(least)(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

/* What is the same for all tiles of a call. */
typedef struct {
    const fnn_gemm *g;
    int rows;        /* A's rows are contiguous, else its columns */
    int in_tile;     /* the tile itself applies the activation */
    int after_strip; /* finish() does */
} FN(job);

/* Epilogues that a tile does not do, over m x n elements of C at (i, j). */
static void FN(finish)(const FN(job) *job, ptrdiff_t i, ptrdiff_t j, ptrdiff_t m, ptrdiff_t n) {
    const fnn_gemm *const g = job->g;
    REAL *c = (REAL *)g->c + i * g->ldc + j;
    const REAL *saved = g->saved ? (const REAL *)g->saved + i * g->lds + j : NULL;
    const REAL slope = g->act == FNN_RELU ? 0 : (REAL)g->slope;
    for (ptrdiff_t row = 0; row < m; row++, c += g->ldc) {
        if (!saved) {
            FN(act)(g->act, g->slope, n, c, c);
            continue;
        }
        FN(act_grad)(g->act, g->slope, n, saved, c, c);
        saved += g->lds;
    }
    (void)slope;
}

/* Columns [0, n) of mr rows of C, from t's a, b, c and bias on. */
static void FN(strip)(FN(tile) *t, ptrdiff_t mr, ptrdiff_t n, int rows) {
    const REAL *const b = t->b, *const bias = t->bias;
    REAL *const c = t->c;
    const ptrdiff_t rest = n % VL;
    const ptrdiff_t vectors = n / VL + (GEMM_MASKED_FREE && rest);
    const ptrdiff_t parts = FN(ceil_div)(vectors, GEMM_WIDEST(mr));
    t->tail = vtail_make(GEMM_MASKED_FREE ? VL : 0);
    for (ptrdiff_t i = 0, j = 0; i < parts; i++) {
        const ptrdiff_t next = FN(part)(vectors, parts, i + 1);
        t->b = b + j * VL;
        t->c = c + j * VL;
        t->bias = bias ? bias + j * VL : NULL;
        if (GEMM_MASKED_FREE && i == parts - 1 && rest) t->tail = vtail_make(rest);
        FN(tiles)[rows][mr - 1][next - j - 1](t);
        j = next;
    }
#if !GEMM_MASKED_FREE
    if (rest) {
        t->b = b + n - rest;
        t->c = c + n - rest;
        t->bias = bias ? bias + n - rest : NULL;
        t->tail = vtail_make(rest);
        FN(tile_masked)(t, mr, rows);
    }
#endif
    t->b = b;
    t->c = c;
    t->bias = bias;
}

static FN(tile) FN(first_tile)(const FN(job) *job) {
    const fnn_gemm *const g = job->g;
    return (FN(tile)){.k = g->k, .a = g->a, .a_rs = g->a_rs, .a_cs = g->a_cs, .b = g->b, .ldb = g->b_rs,
                      .c = g->c, .ldc = g->ldc, .bias = g->bias,
                      .act = job->in_tile ? g->act : FNN_IDENTITY, .slope = (REAL)g->slope};
}

/* k-blocks: `t` is set for rows [p, p + kc) of B; only the last block applies the activation. */
static void FN(set_block)(FN(tile) *t, const FN(job) *job, ptrdiff_t p, ptrdiff_t kc) {
    t->k = kc;
    t->resume = p > 0;
    t->act = job->in_tile && p + kc == job->g->k ? job->g->act : FNN_IDENTITY;
}

#ifndef DIRECT_KC
#define DIRECT_KC 16
#define DIRECT_KC_FROM (256<<10)
#define DIRECT_KC_M 4
#endif
static void FN(direct)(const FN(job) *job) {
    const fnn_gemm *const g = job->g;
    const ptrdiff_t parts = FN(ceil_div)(g->m, GEMM_MR), a_step = job->rows ? g->a_rs : 1;
    FN(tile) t = FN(first_tile)(job);
    const ptrdiff_t kc = g->m <= DIRECT_KC_M && g->n * g->k * (ptrdiff_t)sizeof(REAL) > DIRECT_KC_FROM ? DIRECT_KC : g->k + 1;
    ptrdiff_t p = 0;
    do {
        const ptrdiff_t depth = FN(least)(kc, g->k - p);
        const int last = p + depth == g->k;
        FN(set_block)(&t, job, p, depth);
        t.b = (const REAL *)g->b + p * g->b_rs;
        for (ptrdiff_t r = 0; r < parts; r++) {
            const ptrdiff_t i = FN(part)(g->m, parts, r), mr = FN(part)(g->m, parts, r + 1) - i;
            t.a = (const REAL *)g->a + i * a_step + p * g->a_cs;
            t.c = (REAL *)g->c + i * g->ldc;
            FN(strip)(&t, mr, g->n, job->rows);
            if (last && job->after_strip) FN(finish)(job, i, 0, mr, g->n);
        }
        p += depth;
    } while (p < g->k);
}

/* A block of A, m x k at (i, p): rows as rows, columns as panels of the tiles' heights. */
static void FN(pack_a)(const FN(job) *job, ptrdiff_t i, ptrdiff_t p, ptrdiff_t m, ptrdiff_t k, REAL *dst) {
    const REAL *a = (const REAL *)job->g->a + i * job->g->a_rs + p * job->g->a_cs;
    const ptrdiff_t parts = FN(ceil_div)(m, GEMM_MR);
    if (job->rows) {
        FN(copy_rows)(m, k, a, job->g->a_rs, dst, k + A_PAD);
        return;
    }
    for (ptrdiff_t r = 0; r < parts; r++) {
        const ptrdiff_t begin = FN(part)(m, parts, r), mr = FN(part)(m, parts, r + 1) - begin;
        const REAL *s = a + begin;
        for (ptrdiff_t q = 0; q < k; q++, s += job->g->a_cs, dst += mr) {
            if (mr == GEMM_MR)
                memcpy(dst, s, GEMM_MR * sizeof(REAL));
            else
                for (ptrdiff_t e = 0; e < mr; e++) dst[e] = s[e];
        }
    }
}

/* The sizes of the packed way: depth of a k-block, columns and rows of a block. */
typedef struct {
    ptrdiff_t kc, nc, mc;
} FN(blocks);

static FN(blocks) FN(block_sizes)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k) {
    FN(blocks) s;
    s.kc = k > 0 ? FN(ceil_div)(k, FN(ceil_div)(k, KC)) : 1;
    s.nc = FN(least)(FN(ceil_div)(n, NR) * NR, m < MC ? NC / 4 : NC);
    s.mc = FN(least)(m, MC);
    return s;
}

static void FN(packed)(const FN(job) *job) {
    const fnn_gemm *const g = job->g;
    const FN(blocks) s = FN(block_sizes)(g->m, g->n, g->k);
    const int pack_a = !job->rows || g->k > s.kc;
    REAL *const b = g->work, *const a = b + s.kc * s.nc;
    FN(tile) t = FN(first_tile)(job);
    for (ptrdiff_t j = 0; j < g->n; j += s.nc) {
        const ptrdiff_t nc = FN(least)(s.nc, g->n - j);
        ptrdiff_t p = 0;
        do {
            const ptrdiff_t kc = FN(least)(s.kc, g->k - p);
            const int transposed = g->b_cs != 1;
            FN(pack_b)(kc, nc, NR, (const REAL *)g->b + p * g->b_rs + j * g->b_cs, transposed ? g->b_cs : g->b_rs, transposed, b);
            FN(set_block)(&t, job, p, kc);
            t.ldb = NR;
            for (ptrdiff_t i = 0; i < g->m; i += s.mc) {
                const ptrdiff_t mc = FN(least)(s.mc, g->m - i);
                const ptrdiff_t parts = FN(ceil_div)(mc, GEMM_MR);
                const REAL *a_block = a;
                if (pack_a) {
                    FN(pack_a)(job, i, p, mc, kc, a);
                    t.a_rs = kc + A_PAD;
                } else
                    a_block = (const REAL *)g->a + i * g->a_rs;
                for (ptrdiff_t jr = 0; jr < nc; jr += NR) {
                    t.b = b + jr * kc;
                    t.bias = g->bias ? (const REAL *)g->bias + j + jr : NULL;
                    for (ptrdiff_t r = 0; r < parts; r++) {
                        const ptrdiff_t begin = FN(part)(mc, parts, r);
                        const ptrdiff_t mr = FN(part)(mc, parts, r + 1) - begin;
                        t.a = a_block + begin * (job->rows ? t.a_rs : kc);
                        if (!job->rows) t.a_cs = mr;
                        t.c = (REAL *)g->c + (i + begin) * g->ldc + j + jr;
                        FN(strip)(&t, mr, FN(least)(NR, nc - jr), job->rows);
                    }
                }
                if (p + kc == g->k && job->after_strip) FN(finish)(job, i, j, mc, nc);
            }
            p += kc;
        } while (p < g->k);
    }
}

/* Rows of C (columns of A^T) and columns of C that the transposed way takes at once. */
#define T_ROWS ((ptrdiff_t)128)
#define T_COLUMNS ((ptrdiff_t)GEMM_MR * 8)

static void FN(transposed)(const FN(job) *job) {
    const fnn_gemm *const g = job->g;
    const ptrdiff_t chunks = FN(ceil_div)(g->m, T_ROWS);
    for (ptrdiff_t chunk = 0; chunk < chunks; chunk++) {
        const ptrdiff_t i = FN(part)(g->m, chunks, chunk), m = FN(part)(g->m, chunks, chunk + 1) - i;
        const ptrdiff_t ld = FN(ceil_div)(m, VL) * VL;
        REAL *const a = g->work, *const c = a + g->k * ld;
        FN(transpose)(m, g->k, (const REAL *)g->a + i * g->a_rs, g->a_rs, a, ld);
        FN(tile) t = {.k = g->k, .a_rs = g->b_cs, .b = a, .ldb = ld, .ldc = ld, .resume = g->bias != NULL,
                      .act = job->in_tile ? g->act : FNN_IDENTITY, .slope = (REAL)g->slope};
        for (ptrdiff_t j = 0; j < g->n; j += T_COLUMNS) {
            const ptrdiff_t n = FN(least)(T_COLUMNS, g->n - j), parts = FN(ceil_div)(n, GEMM_MR);
            if (g->bias)
                for (ptrdiff_t q = 0; q < n * ld; q++) c[q] = ((const REAL *)g->bias)[j + q / ld];
            for (ptrdiff_t r = 0; r < parts; r++) {
                const ptrdiff_t begin = FN(part)(n, parts, r);
                t.a = (const REAL *)g->b + (j + begin) * g->b_cs;
                t.c = c + begin * ld;
                FN(strip)(&t, FN(part)(n, parts, r + 1) - begin, m, 1);
            }
            FN(transpose)(n, m, c, ld, (REAL *)g->c + i * g->ldc + j, g->ldc);
            if (job->after_strip) FN(finish)(job, i, j, m, n);
        }
    }
}

enum FN(way) { FN(DIRECT), FN(PACKED), FN(TRANSPOSED) };
#ifndef WAY_T_LO
#define WAY_T_LO 8
#define WAY_T_HI 256
#define WAY_P_BYTES (3<<20)
#define WAY_P_M 128
#endif
static enum FN(way) FN(way)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, ptrdiff_t b_cs) {
    if (b_cs != 1)
        return m >= WAY_T_LO && m <= WAY_T_HI && m < 2 * k ? FN(TRANSPOSED) : FN(PACKED);
    return m >= WAY_P_M && n * k * (ptrdiff_t)sizeof(REAL) >= WAY_P_BYTES ? FN(PACKED) : FN(DIRECT);
}

static void FN(gemm)(const fnn_gemm *g) {
    if (g->m <= 0 || g->n <= 0) return;
    const int in_tile = !g->saved && g->act <= FNN_RELU;
    const FN(job) job = {.g = g, .rows = g->a_cs == 1, .in_tile = in_tile,
                         .after_strip = !in_tile && g->act != FNN_IDENTITY};
    enum FN(way) way = FN(way)(g->m, g->n, g->k, g->b_cs);
    if (way == FN(TRANSPOSED) && job.rows)
        FN(transposed)(&job);
    else if (way == FN(DIRECT))
        FN(direct)(&job);
    else
        FN(packed)(&job);
}

static size_t FN(gemm_work)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, ptrdiff_t b_cs) {
    const FN(blocks) s = FN(block_sizes)(m, n, k);
    const ptrdiff_t packed = s.kc * s.nc + s.mc * (s.kc + A_PAD);
    const ptrdiff_t rows = FN(ceil_div)(FN(least)(m, T_ROWS), VL) * VL;
    const ptrdiff_t transposed = (k + T_COLUMNS) * rows;
    if (FN(way)(m, n, k, b_cs) == FN(DIRECT)) return 0;
    return (size_t)(b_cs != 1 && transposed > packed ? transposed : packed) * sizeof(REAL);
}

static void FN(column_sums)(ptrdiff_t m, ptrdiff_t n, const void *g, ptrdiff_t ldg, void *out) {
    const REAL *const x = g;
    REAL *const sums = out;
    for (ptrdiff_t j = 0; j < n; j++) {
        REAL s = 0;
        for (ptrdiff_t i = 0; i < m; i++) s += x[i * ldg + j];
        sums[j] = s;
    }
}

#undef NR
#undef KC
#undef MC
#undef NC
#undef A_PAD
#undef T_ROWS
#undef T_COLUMNS
