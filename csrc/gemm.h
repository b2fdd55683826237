/* gemm.h: the matrix product of fastnn.h, in seven ways that give the same bits:
 *
 *   direct      A and B are read where they lie, a strip of rows at a time. The way of few rows
 *               (with 32 registers of many too) as long as W stays in the cache, and of dW.
 *   blocked     the same on blocks of B (kc x nc) that stay in L2 while all strips of A pass (Goto and
 *               van de Geijn 2008). Where the rows of A are many, the block is copied to panels that lie
 *               one after another: with GEMM_COPIES row by row by all tiles of the block before; else by
 *               those of its first strip, which have its vectors in registers; or at once, where it must be
 *               transposed. Strips of A are copied where their rows or columns fall out of L1, or B is
 *               copied so: once for all columns where there are several blocks of them. A next block that is
 *               not copied is fetched by the tiles of the last strips.
 *   by panels   with 16 registers, the forward pass and dX from some rows on: one panel of B stays in L1
 *               while strips of A pass.
 *   transposed  for dX with few rows: C^T = B^T A^T has W's rows in the role of A, so that only
 *               the two small matrices are transposed, never W.
 *   streamed    for up to four rows (eight where W's rows meet in few sets of L1) and a W that only the
 *               outer caches hold.
 *   held        with vectors of 64 bytes, for up to HELD_MOST rows and a W that L2 does not hold: some rows of it
 *               are in registers, a vector of columns at a time, while A passes.
 *   turned      for up to four rows (eight of float32 with vectors of 64 bytes) and a transposed W, which is
 *               turned in registers.
 *
 * Every element of C is one chain of fused multiply-adds over k from the bias; between k-blocks it
 * waits in C, which is exact. Thresholds are measured: for 32 registers on CPUs with 1 MiB of L2 and
 * then, where those were in doubt, on one with 2 MiB; for 16 on one with 512 KiB. */
#define NR (GEMM_NV * VL)

#include "gemm_tile.h"
#include "gemm_common.h"
#include "gemm_pack.h"
#include "gemm_errands.h"
#include "gemm_few.h"

/* LARGE: bytes of B above which it comes in blocks (see block_sizes). BLOCK: bytes of such a block, which stays in
 * L2 while the rows of A and C pass; BLOCK_MOST: the same where a strip of A is copied anew for each block. DEPTH:
 * bytes of a block for each column, so that a strip of A stays in L1; in float64, whose sums in C have twice the
 * bytes, in L2.
 * PACKED: bytes above which blocks are copied, WORTH: rows of A that pay for it. APART: bytes between the rows of B
 * from which they meet in few sets of L1 and few pages; APART_PACKED: bytes above which such a B is copied. WHOLE:
 * bytes of a block of whole rows, where those are best. CPUs of 16 registers tend to have less L2. */
#if GEMM_MR > 8
#define GEMM_LARGE (1 << 20)
#define GEMM_BLOCK (384 << 10)
#define GEMM_BLOCK_MOST GEMM_BLOCK
#define GEMM_DEPTH (F32 || !GEMM_COPIES ? 1536 : 4096)
#define GEMM_PACKED (3 << 20)
#define GEMM_WORTH (GEMM_COPIES ? 56 : 128)
#define GEMM_APART 3584
#define GEMM_APART_PACKED (GEMM_COPIES ? 512 << 10 : GEMM_LARGE)
#define GEMM_WHOLE (512 << 10)
#define GEMM_PANELS 0 /* slower where tried; with masks and copies `tail` and a "packs" of rows are missing */
#else
#define GEMM_LARGE (288 << 10)
#define GEMM_BLOCK (128 << 10)
#define GEMM_BLOCK_MOST (256 << 10)
#define GEMM_DEPTH 1024
#define GEMM_PACKED GEMM_LARGE
#define GEMM_WORTH 24
#define GEMM_APART 1920
#define GEMM_APART_PACKED (32 << 10)
#define GEMM_WHOLE 0 /* not measured */
#define GEMM_PANELS (VEC_BYTES > 16) /* the baseline has none, for the size of a wheel */
#endif

#define KC ((ptrdiff_t)(GEMM_DEPTH / sizeof(REAL)))

/* Whether tiles fetch the row of B that is GEMM_AHEAD on, with 32 registers: not of a B that L1 holds, nor where that
 * is often beyond its end. There may be no page there, for which the CPU would look in vain each time. */
INLINE int FN(row_ahead)(const fnn_gemm *g) {
    return GEMM_MR > 8 && g->k > 6 * GEMM_AHEAD && g->n * g->k * (ptrdiff_t)sizeof(REAL) > (32 << 10);
}

/* The whole product as one tile, but for what depends on where it is; no more than a tile needs is
 * written, since this is done for each of the smallest products. */
INLINE FN(tile) FN(first_tile)(const fnn_gemm *g, int last) {
    FN(tile) t;
    t.k = g->k;
    t.a = g->a;
    t.a_rs = g->a_rs;
    t.a_cs = g->a_cs;
    t.b = g->b;
    t.ldb = g->b_rs;
    t.fetches = 0;
    t.b_ahead = FN(row_ahead)(g) ? GEMM_AHEAD * g->b_rs : 0;
    t.straddles = FN(straddles)(g);
    t.b_copy = NULL;
    t.start = g->bias ? g->bias : FN(zeros);
    t.start_ld = 0;
    t.c = g->c;
    t.ldc = g->ldc;
    t.act = last && FN(act_in_tile)(g) ? g->act : FNN_IDENTITY;
    t.slope = (REAL)g->slope;
    return t;
}

/* Columns [0, n) of mr rows of C, from t's b, c and start on. `panel` is the distance in B between one
 * NR columns and the next. Where b_copy is set, B is copied there on the way. */
static __attribute__((noinline)) void FN(strip)(const FN(tile) *first, ptrdiff_t mr, ptrdiff_t n,
                                                int rows, ptrdiff_t panel, FN(errands) *errands) {
    const ptrdiff_t rest = n % VL, full = n / NR;
    const int masks = GEMM_MASKED_FREE && rest, alone = masks && !GEMM_MASKED_IN(mr, GEMM_NV);
    const ptrdiff_t vectors = n / VL + (masks && !alone);
    const int by_panels = !rows || first->b_copy || panel > NR;
    const ptrdiff_t widest = by_panels || errands->narrow ? GEMM_NV : GEMM_WIDEST_ROWS(mr);
    const ptrdiff_t wide = vectors > widest ? FN(ceil_div)(vectors, widest) : vectors > 0; /* divisions are dear here */
    const ptrdiff_t each = wide > 1 ? FN(quotient)(vectors, wide) : vectors, more = vectors - each * wide;
    const ptrdiff_t parts = wide + alone;
    const int advance = first->start != FN(zeros);
    FN(tile) t = *first;
    t.straddles &= rows;
    if (!GEMM_COPIES && t.b_copy && n % NR)
        FN(pack_b)(t.k, n % NR, t.b + full * NR, t.ldb, 1, t.b_copy + full * t.k * NR);
    t.tail = vtail_make(GEMM_MASKED_FREE ? VL : 0);
    for (ptrdiff_t i = 0; i < parts; i++) {
        const ptrdiff_t nv = i < wide ? each + (i < more) : 1;
        if (masks && i == parts - 1) t.tail = vtail_make(rest);
        FN(take_errands)(&t, errands, nv, GEMM_RUNS(mr, nv));
        if (errands->fetch_c) FN(prefetch_c)(i + 1 < parts ? t.c + nv * VL : first->c + mr * t.ldc, mr, t.ldc);
        if (!GEMM_COPIES && t.b_copy && i < full) {
            assert(FN(packs_tiles)[mr - 1]);
            FN(packs_tiles)[mr - 1](&t);
            t.b_copy += t.k * NR;
        } else {
            (rows ? FN(rows_tiles)[mr - 1][nv - 1] : FN(cols_tiles)[mr - 1][nv - 1])(&t);
        }
        t.b += panel && nv == GEMM_NV ? panel : nv * VL;
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

/* Few rows, and a B that is not cut: one strip. */
static void FN(one_strip)(const fnn_gemm *g) {
    const FN(tile) t = FN(first_tile)(g, 1);
    FN(errands) none = FN(no_errands)();
    FN(strip)(&t, g->m, g->n, g->a_cs == 1, 0, &none);
    if (FN(act_after)(g)) FN(finish)(g, 0, 0, g->m, g->n);
}

#include "gemm_blocks.h"
#include "gemm_held.h"
#include "gemm_panels.h"

/* Few rows of C, at most T_ROWS, and T_COLUMNS columns at a time, a part of C^T in g->work. */
#define T_ROWS 96
#define T_COLUMNS ((ptrdiff_t)GEMM_MR * 8)

static void FN(transposed)(const fnn_gemm *g) {
    const ptrdiff_t m = g->m, ld = FN(round_up)(m, VL);
    REAL *const a = g->work, *const c = a + g->k * ld;
    FN(errands) none = FN(no_errands)();
    FN(transpose)(m, m, g->k, g->a, g->a_rs, a, ld);
    for (ptrdiff_t j = 0; j < g->n; j += T_COLUMNS) {
        const ptrdiff_t n = FN(least)(T_COLUMNS, g->n - j), strips = FN(ceil_div)(n, GEMM_MR);
        for (ptrdiff_t q = 0; g->bias && q < n; q++) {
            const vec b = vset1(((const REAL *)g->bias)[j + q]);
            for (ptrdiff_t i = 0; i < ld; i += VL) vstore(c + q * ld + i, b);
        }
        for (ptrdiff_t r = 0; r < strips; r++) {
            const ptrdiff_t begin = FN(part)(n, strips, r);
            FN(tile) t = FN(first_tile)(g, 1);
            t.a_rs = g->b_cs;
            t.a_cs = 1;
            t.b = a;
            t.ldb = t.ldc = ld;
            t.straddles = 0;
            t.b_ahead = GEMM_MR > 8 ? GEMM_AHEAD * ld : 0; /* c follows */
            t.a = (const REAL *)g->b + (j + begin) * g->b_cs;
            t.c = c + begin * ld;
            t.start = g->bias ? t.c : FN(zeros);
            t.start_ld = g->bias ? ld : 0;
            FN(strip)(&t, FN(part)(n, strips, r + 1) - begin, m, 1, 0, &none);
        }
        FN(transpose)(n, n, m, c, ld, (REAL *)g->c + j, g->ldc);
        if (FN(act_after)(g)) FN(finish)(g, 0, j, m, n);
    }
}

/* Turning W costs as much as a few more rows, and with 32 registers and a large W as half a vector of them and
 * four; a vector that the last rows do not fill costs as many as are missing. What is turned here must stay
 * in L2. */
INLINE int FN(better_transposed)(const fnn_gemm *g) {
    const ptrdiff_t rows = FN(round_up)(g->m, VL);
    const int large = GEMM_MR > 8 && g->n * g->k * (ptrdiff_t)sizeof(REAL) >= GEMM_LARGE;
    return g->b_cs != 1 && g->a_cs == 1 && rows <= g->m + (large ? VL / 2 + 4 : 3) && rows <= T_ROWS &&
           rows * g->k * (ptrdiff_t)sizeof(REAL) <= GEMM_LARGE / 2;
}

/* Never less for a larger m, n or k, so one answer serves all batches up to the largest: a shorter k
 * may come in deeper blocks. */
static size_t FN(gemm_work)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, ptrdiff_t b_cs) {
    const ptrdiff_t depth = FN(least)(k > 0 ? k : 1, KC), width = FN(round_up)(n, NR);
    const ptrdiff_t block = GEMM_BLOCK_MOST / (ptrdiff_t)sizeof(REAL);
    _Static_assert(PANEL_DEPTH * NR <= KC * (NR + GEMM_MR), "a panel fits too");
    const int large = n * k * (ptrdiff_t)sizeof(REAL) > FN(least)(GEMM_PACKED, GEMM_APART_PACKED);
    const int keeps = GEMM_COPIES && (b_cs == 1 ? m >= GEMM_WORTH && large : m >= GEMM_COPIED);
    const ptrdiff_t kept = GEMM_MR + (keeps ? FN(least)(m, GEMM_KEPT) : 0);
    const ptrdiff_t packed = (keeps ? BLOCK_COPIES(b_cs) : 1) * FN(least)(depth * width, block) + kept * depth;
    /* Strips of A may be copied also where B is neither copied nor cut: see block_sizes. */
    const ptrdiff_t whole = GEMM_MR * (GEMM_LARGE / (8 * NR * (ptrdiff_t)sizeof(REAL)));
    const ptrdiff_t apart = GEMM_COPIES ? GEMM_STRIP / (ptrdiff_t)sizeof(REAL) : 0;
    const ptrdiff_t strips = FN(least)(GEMM_MR * k, whole > apart ? whole : apart);
    const ptrdiff_t rows = FN(least)(FN(round_up)(m, VL), T_ROWS);
    const ptrdiff_t transposed = b_cs == 1 ? 0 : (k + T_COLUMNS) * rows;
    const ptrdiff_t held = HELD && b_cs == 1 && m > STREAM_ROWS && k >= HELD_DEPTH ? FN(held_room)(m, n) : 0;
    if (b_cs == 1 && m <= GEMM_MR) return (size_t)held * sizeof(REAL);
    const ptrdiff_t copied = packed > strips ? packed : strips;
    const ptrdiff_t work = transposed > copied ? transposed : copied;
    return (size_t)(work > held ? work : held) * sizeof(REAL);
}

static void FN(gemm)(const fnn_gemm *g) {
    if (g->m <= 0 || g->n <= 0) return;
    assert((g->a_rs == 1 || g->a_cs == 1) && (g->b_rs == 1 || g->b_cs == 1));
    assert(g->work || !FN(gemm_work)(g->m, g->n, g->k, g->b_cs));
    if (FN(better_streamed)(g))
        FN(streamed)(g);
    else if (FN(better_held)(g))
        FN(held)(g);
    else if (FN(better_turned)(g))
        FN(turned)(g);
    else if (FN(better_transposed)(g))
        FN(transposed)(g);
    else if (FN(better_by_panels)(g))
        FN(by_panels)(g);
    else if (g->m <= GEMM_MR && g->b_cs == 1 &&
             (g->m == 1 || g->n * g->k * (ptrdiff_t)sizeof(REAL) <= GEMM_LARGE))
        FN(one_strip)(g);
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
#undef BLOCK_COPIES
#undef STREAM
#undef STREAM_ROWS
#undef STREAM_MOST
#undef TURN_MOST
#undef TURN_SQUARES
#undef T_ROWS
#undef T_COLUMNS
#undef COLUMNS_LEAST
