/* gemm.h: the matrix product of fastnn.h, in four ways that give the same bits:
 *
 *   direct      A and B are read where they lie, a strip of rows at a time. The way of the forward
 *               pass and of dW as long as W stays in the cache.
 *   blocked     the same on blocks of B (kc x nc) that stay in L2 while all strips of A pass (Goto and
 *               van de Geijn 2008). B is copied to panels that lie one after another, transposed
 *               if need be, where its rows are pages apart and the rows of A many enough to pay for it.
 *               A strip of A is copied for all its panels, by the tiles of the strip before.
 *   transposed  for dX with few rows: C^T = B^T A^T has W's rows in the role of A, so that only
 *               the two small matrices are transposed, never W.
 *   streamed    for one row and a W that only the outer caches hold.
 *
 * Every element of C is one chain of fused multiply-adds over k from the bias; between k-blocks it
 * waits in C, which is exact. Thresholds are measured, on 48 KiB of L1 and 1 MiB of L2. */
#include "gemm_tile.h"
#include "gemm_pack.h"

/* Bytes of B from which it comes in blocks; from which 48 rows pay for copying it, elsewhere 128. */
#define GEMM_LARGE (1 << 20)
#define GEMM_HUGE (6 << 20)
/* Bytes of W from which a single row streams through it. */
#define GEMM_STREAM (2 << 20)
/* Bytes between rows of B from which each lies in a page of its own, as good as. */
#define GEMM_APART 3584
/* Bytes of a block of B: it stays in L2 while the rows of A and C pass. */
#define GEMM_BLOCK (512 << 10)

#define NR (GEMM_NV * VL)
#define KC ((ptrdiff_t)(2048 / sizeof(REAL)))  /* deepest block: a strip of A stays in L1 */
#define STREAM 8                               /* rows of W that a single row of C takes at a time */
#define STREAM_COLUMNS ((ptrdiff_t)(8192 / sizeof(REAL)))

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
        s.kc = FN(ceil_div)(s.kc, FN(ceil_div)(s.kc, KC));
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
    if (g->m == 1 && g->b_cs == 1 && g->n >= 8 * VL &&
        g->n * g->k * (ptrdiff_t)sizeof(REAL) >= GEMM_STREAM)
        FN(streamed)(g);
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
#undef STREAM_COLUMNS
#undef T_ROWS
#undef T_COLUMNS
