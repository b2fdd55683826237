/* gemm.h: the matrix product of fastnn.h, in seven ways that give the same bits:
 *
 *   direct      A and B are read where they lie, a strip of rows at a time. The way of few rows
 *               (with 32 registers of many too) as long as W stays in the cache, and of dW.
 *   blocked     the same on blocks of B (kc x nc) that stay in L2 while all strips of A pass (Goto and
 *               van de Geijn 2008). Where the rows of A are many, the block is copied to panels that lie
 *               one after another: by the tiles of the first strip, which have its vectors in
 *               registers; or before, where it must be transposed. Strips of A are copied where their
 *               rows or columns fall out of L1, or the tiles that copy B want it: once for all columns where
 *               there are several blocks of them. The tiles of the last strips fetch the next block.
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
#include "gemm_held.h"

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
#define GEMM_WORTH 128
#define GEMM_APART 3584
#define GEMM_APART_PACKED GEMM_LARGE
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

/* Bytes of B's rows above which tiles fetch the line in which one ends, where vectors straddle, rather than A. */
#define GEMM_LINES (13 * 64)
/* Rows of A that pay for a copy, where B is not copied. */
#define GEMM_COPIED 48
/* Rows of A whose copies are kept while the blocks of some k pass, and the least for which B is copied anew. They
 * need not stay in L2, being read in order. */
#define GEMM_KEPT 1024
#define GEMM_KEPT_LEAST 256
/* Bytes of a strip up to which it is copied since the columns of A lie apart. */
#define GEMM_STRIP (256 << 10)
/* Bytes of B from which also two strips fetch the next block. */
#define GEMM_FAR (24 << 20)

/* Bytes of C up to which it may wait in the outer caches. */
#define GEMM_C (8 << 20)

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
    if (t.b_copy && n % NR)
        FN(pack_b)(t.k, n % NR, t.b + full * NR, t.ldb, 1, t.b_copy + full * t.k * NR);
    t.tail = vtail_make(GEMM_MASKED_FREE ? VL : 0);
    for (ptrdiff_t i = 0; i < parts; i++) {
        const ptrdiff_t nv = i < wide ? each + (i < more) : 1;
        if (masks && i == parts - 1) t.tail = vtail_make(rest);
        FN(take_errands)(&t, errands, nv, GEMM_COLS_FETCH(mr, nv));
        if (errands->fetch_c) FN(prefetch_c)(i + 1 < parts ? t.c + nv * VL : first->c + mr * t.ldc, mr, t.ldc);
        if (t.b_copy && i < full) {
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

/* The blocks in which a product is done, kc x nc of B, and what of them is copied. */
typedef struct {
    ptrdiff_t kc, nc;
    int packs_b, copies_a, whole; /* whole: rows of B, one after another */
    ptrdiff_t kept;               /* rows of A at a time whose copies serve all columns, or 0 */
} FN(blocks);

static FN(blocks) FN(block_sizes)(const fnn_gemm *g) {
    const ptrdiff_t size = sizeof(REAL), bytes = g->n * g->k * size;
    const ptrdiff_t packed = g->b_rs * size >= GEMM_APART ? GEMM_APART_PACKED : GEMM_PACKED;
    FN(blocks) s = {.kc = g->k > 0 ? g->k : 1, .nc = g->n};
    s.packs_b = g->b_cs != 1 || (bytes > packed && g->m >= GEMM_WORTH);
    /* B is cut later for dW, whose strips of A are copied anew for each block. */
    const ptrdiff_t large = GEMM_MR > 8 && g->a_cs == 1 ? GEMM_LARGE / 4 * 3 : GEMM_LARGE;
    if (s.packs_b || (g->m > 1 && bytes > large)) {
        const ptrdiff_t block = g->a_cs == 1 ? GEMM_BLOCK : GEMM_BLOCK_MOST;
        /* Rows a page apart (in smaller caches half of one) meet in few of L2's sets, whose ways hold 256 of
         * them; 128 of rows four pages apart. */
        const ptrdiff_t page = GEMM_MR > 8 ? 4096 : 2048, row = g->b_rs * size;
        const int meet = !s.packs_b && g->m > GEMM_MR && row % page == 0;
        /* float64's dX, whose rows of A may meet in few sets of L1, and dW are better off with less (measured). */
        const ptrdiff_t kc = !GEMM_COPIES || F32 || (g->a_cs == 1 && g->b_cs == 1) ? KC : KC / 4 * 3;
        ptrdiff_t most = !meet ? kc : GEMM_MR > 8 && row >= 4 * page ? 64 : 128;
        /* A block that is one run of memory is fetched as such, from line to line; the hardware helps. */
        const ptrdiff_t whole = g->b_rs == g->n && (meet || g->m <= 2 * GEMM_MR) ? FN(quotient)(GEMM_WHOLE, row) : 0;
        s.whole = !s.packs_b && g->m > GEMM_MR && whole >= 64;
        if (s.whole) most = FN(least)(whole, kc);
        s.kc = FN(ceil_div)(s.kc, FN(ceil_div)(s.kc, most));
        s.nc = FN(round_up)(g->n, NR);
        if (!s.whole) s.nc = FN(least)(s.nc, FN(quotient)(block, s.kc * size) / NR * NR);
    }
    /* Rows of A in one set of L1, or a new line at each step: both fall out of L1. A "packs" tile reads rows or
     * copies. */
    const int scattered = g->a_cs != 1 || (GEMM_COPIES && g->a_rs * size % 4096 == 0);
    /* Columns of A that no CPU fetches unasked, being further apart than it looks; or so many of them, for several
     * tiles, that L1 does not keep them. All loads of a copy are under way at once. */
    const ptrdiff_t between = g->a_cs == 1 ? 0 : g->a_cs * size;
    const int apart = GEMM_COPIES && GEMM_MR * g->k * size <= GEMM_STRIP &&
                      ((between >= 2048 && g->k >= 96) || (between >= 1024 && g->k >= 256 && g->n > NR));
    s.copies_a = (s.packs_b && g->b_cs == 1 && (GEMM_COPIES || g->a_cs != 1)) ||
                 (scattered && (s.nc >= 8 * NR || apart) && g->m >= GEMM_COPIED);
    if (GEMM_COPIES && s.packs_b && s.copies_a && g->a_cs == 1 && s.nc < g->n) {
        s.kept = FN(least)(GEMM_KEPT, GEMM_C / (g->ldc * size));
        if (s.kept < GEMM_KEPT_LEAST) s.kept = 0;
    }
    return s;
}

/* Few rows, and a B that is not cut: one strip. */
static void FN(one_strip)(const fnn_gemm *g) {
    const FN(tile) t = FN(first_tile)(g, 1);
    FN(errands) none = FN(no_errands)();
    FN(strip)(&t, g->m, g->n, g->a_cs == 1, 0, &none);
    if (FN(act_after)(g)) FN(finish)(g, 0, 0, g->m, g->n);
}

/* One block: C(i, j) += A(i, p) B(p, j) for k rows of B from b on and n columns. */
typedef struct {
    ptrdiff_t p, j, k, n;
    int across;       /* the next block is beside this one, else below it */
    const REAL *b;    /* where it lies: rows of ldb, a panel of NR columns `panel` after the one before */
    ptrdiff_t ldb, panel;
    const REAL *next; /* the block after this one, if it is read where it lies in B; else NULL */
    ptrdiff_t next_ld;
    int whole;        /* as in blocks */
    REAL *b_copy;     /* where the tiles of the first strip leave its panels, for the others; or NULL */
    REAL *a_copy;     /* room for a strip of A, or for all of them; or NULL */
    int keeps_a;
} FN(block);

/* What the tiles of the r-th strip, of mr rows, fetch; the next strip of A, or its copy, is at `a`. */
static void FN(look_ahead)(const fnn_gemm *g, const FN(block) *b, ptrdiff_t r, ptrdiff_t strips,
                           ptrdiff_t mr, const REAL *a, FN(errands) *e) {
    const ptrdiff_t lines = NR * (ptrdiff_t)sizeof(REAL) / 64;
    /* The next block: a line of each row a tile, late, so that it is still there; tiles that read rows
     * of A are so short that several strips share the work. */
    int shift = 0;
    if (GEMM_MR <= 8 && strips < 8) return; /* a fetch takes a load slot that the sums need */
    if (b->whole && b->next) {
        const ptrdiff_t tiles = FN(ceil_div)(b->n, NR);
        e->ahead_turn = FN(ceil_div)(b->n * b->k, strips * tiles);
        e->ahead_step = 64 / sizeof(REAL);
        e->ahead = b->next + r * tiles * e->ahead_turn;
        e->ahead_shift = 0;
        return;
    }
    while (!GEMM_COPIES && shift < 3 && lines << (shift + 1) < strips) shift++;
    const ptrdiff_t shares = (ptrdiff_t)1 << shift;
    const ptrdiff_t first = strips > lines * shares ? strips - lines * shares : 1, turn = r - first;
    if (b->next && turn >= 0) {
        e->ahead_turn = 64 / sizeof(REAL);
        e->ahead = b->next + (turn & (shares - 1)) * (b->k >> shift) * b->next_ld +
                   (turn >> shift) * FN(ceil_div)(b->n, NR) * e->ahead_turn;
        e->ahead_step = b->next_ld;
        e->ahead_shift = shift;
        return;
    }
    /* The strips follow one another. Those that L2 holds are not fetched: asking it at each step for a line that L1 may
     * lack gets in the way of the loads. */
    const int run = b->a_copy ? b->keeps_a && b->j : g->a_cs == 1 && g->a_rs == b->k;
    /* Where tiles fetch the line in which a row of B ends, it is wanted more. */
    const int line = !b->panel && FN(straddles)(g) && FN(row_ahead)(g) && b->n * (ptrdiff_t)sizeof(REAL) > GEMM_LINES;
    if (run && !line && (GEMM_MR <= 8 || g->m * b->k * (ptrdiff_t)sizeof(REAL) >= GEMM_LARGE)) {
        e->ahead = a;
        e->ahead_step = FN(ceil_div)(mr * NR, b->n);
        e->ahead_turn = e->ahead_step * b->k;
        e->ahead_shift = 0;
    }
}

/* Of a B that only the outer caches hold: whether its rows would push each other out of the few sets of L1 in
 * which they meet. */
INLINE int FN(meet_from_far)(const fnn_gemm *g, const FN(block) *b) {
    const int far = g->n * g->k * (ptrdiff_t)sizeof(REAL) > GEMM_LARGE;
    return far && b->ldb * (ptrdiff_t)sizeof(REAL) % 2048 == 0;
}

/* How far on is what the r-th strip fetches of B. With 16 registers that is the first: of a B whose rows meet the
 * columns of the next tile; of another from afar the rows that come soon. */
static ptrdiff_t FN(b_ahead)(const fnn_gemm *g, const FN(block) *b, ptrdiff_t r) {
    if (GEMM_MR > 8) return FN(row_ahead)(g) ? GEMM_AHEAD * b->ldb : 0;
    if (r) return 0;
    if (FN(meet_from_far)(g, b)) return NR;
    return g->n * g->k * (ptrdiff_t)sizeof(REAL) > GEMM_LARGE ? 8 * b->ldb : 0;
}

static void FN(run_block)(const fnn_gemm *g, const FN(block) *block) {
    FN(block) b = *block;
    const ptrdiff_t strips = FN(ceil_div)(g->m, GEMM_MR), each = FN(quotient)(g->m, strips);
    const ptrdiff_t more = g->m - each * strips;
    const int last = b.p + b.k >= g->k;
    const REAL *a = (const REAL *)g->a + b.p * g->a_cs;
    FN(errands) errands = FN(no_errands)();
    if (GEMM_COPIES && g->a_cs != 1 && b.a_copy && b.n == g->n && b.n >= NR && b.k == g->k && b.k > 0)
        FN(look_soon)(g, strips, &errands);
    if (GEMM_COPIES && g->a_cs != 1 && g->picked && b.k > 0) FN(look_at_picked)(g->picked, b.k, &errands);
    errands.fetch_c =
        !errands.soons && (b.panel || g->m * g->ldc * (ptrdiff_t)sizeof(REAL) >= GEMM_LARGE / 2);
    errands.narrow = strips == 1 && g->m > 6 && FN(meet_from_far)(g, &b);
    for (ptrdiff_t r = 0, i = 0, mr; r < strips; r++, i += mr, a += mr * g->a_rs) {
        FN(tile) t = FN(first_tile)(g, last);
        mr = each + (r < more);
        t.k = b.k;
        t.a = a;
        t.b = b.b;
        t.ldb = b.ldb;
        t.b_ahead = FN(b_ahead)(g, &b, r);
        if (b.panel > NR) t.straddles = 0;
        t.fetches = t.b_ahead != 0;
        t.b_copy = r ? NULL : b.b_copy;
        t.c = (REAL *)g->c + i * g->ldc + b.j;
        t.start = b.p ? t.c : g->bias ? (const REAL *)g->bias + b.j : FN(zeros);
        t.start_ld = b.p ? g->ldc : 0;
        if (b.a_copy) {
            REAL *const copy = b.a_copy + (b.keeps_a ? r * GEMM_MR * b.k : 0);
            if (!b.keeps_a || b.j == 0) FN(copy_strip)(mr, g->m - i, b.k, a, g->a_rs, g->a_cs, copy);
            t.a = copy;
            t.a_cs = GEMM_MR;
        }
        FN(look_ahead)(g, &b, r, strips, mr, b.keeps_a ? t.a + GEMM_MR * b.k : a + mr * g->a_rs, &errands);
        if (GEMM_COPIES && b.a_copy && g->a_cs != 1 && b.n / NR >= COLUMNS_LEAST && !errands.ahead) {
            errands.columns = a + 2 * mr - 1;
            errands.columns_step = g->a_cs;
        }
        FN(strip)(&t, mr, b.n, g->a_cs == 1 && !b.a_copy, b.panel, &errands);
        if (last && FN(act_after)(g)) FN(finish)(g, i, b.j, mr, b.n);
        if (!r && b.b_copy) {
            b.b = b.b_copy;
            b.ldb = NR;
            b.panel = b.k * NR;
        }
    }
}

/* The block of B at (p, j), and how it is come by. */
static void FN(find_block)(const fnn_gemm *g, const FN(blocks) *s, FN(block) *b) {
    const REAL *const base = g->b;
    b->k = FN(least)(s->kc, g->k - b->p);
    b->n = FN(least)(s->nc, g->n - b->j);
    b->b = base + b->p * g->b_rs + b->j * g->b_cs;
    if (s->packs_b && (g->b_cs != 1 || (!GEMM_COPIES && s->copies_a))) {
        FN(pack_b)(b->k, b->n, b->b, g->b_rs, g->b_cs, g->work);
        b->b = g->work;
        b->ldb = NR;
        b->panel = b->k * NR;
        return;
    }
    b->ldb = g->b_rs;
    b->panel = s->copies_a || s->kc < g->k ? NR : 0;
    if (s->packs_b) b->b_copy = g->work;
    const ptrdiff_t bytes = g->n * g->k * (ptrdiff_t)sizeof(REAL);
    if (GEMM_COPIES && !s->packs_b && !s->whole && g->m <= 2 * GEMM_MR && bytes <= GEMM_FAR) return;
    b->next_ld = g->b_rs;
    const int right = b->j + b->n < g->n, down = b->p + b->k < g->k;
    const REAL *const below = base + (b->p + b->k) * g->b_rs + (b->across ? 0 : b->j);
    const REAL *const beside = base + b->j + b->n + (b->across ? b->p * g->b_rs : 0);
    b->next = b->across ? (right ? beside : down ? below : NULL) : down ? below : right ? beside : NULL;
}

/* Where C, of these rows, fits in the outer caches, all columns for some of k: the rows of B that these are lie in few
 * pages, and each page is looked up once. Else all of k for some columns, while those of C stay. */
static void FN(run_blocks)(const fnn_gemm *g, const FN(blocks) *s) {
    const ptrdiff_t depths = g->k > 0 ? FN(ceil_div)(g->k, s->kc) : 1; /* once also where k is 0 */
    const ptrdiff_t widths = FN(ceil_div)(g->n, s->nc);
    FN(block) b = {.across = g->m * g->ldc * (ptrdiff_t)sizeof(REAL) <= GEMM_C, .whole = s->whole};
    if (s->copies_a) b.a_copy = (REAL *)g->work + (s->packs_b ? s->kc * s->nc : 0);
    b.keeps_a = GEMM_COPIES && s->kept > 0; /* then C fits */
    for (ptrdiff_t i = 0; i < depths * widths; i++) {
        b.p = (b.across ? i / widths : i % depths) * s->kc;
        b.j = (b.across ? i % widths : i / depths) * s->nc;
        FN(find_block)(g, s, &b);
        FN(run_block)(g, &b);
    }
}

/* Where copies are kept, as many rows at a time as there is room for. */
static void FN(by_blocks)(const fnn_gemm *g) {
    const FN(blocks) s = FN(block_sizes)(g);
    const ptrdiff_t chunks = GEMM_COPIES && s.kept ? FN(ceil_div)(g->m, s.kept) : 1;
    fnn_gemm rows = *g;
    for (ptrdiff_t q = 0; q < chunks; q++) {
        const ptrdiff_t i = FN(part)(g->m, chunks, q);
        rows.m = FN(part)(g->m, chunks, q + 1) - i;
        rows.a = (const REAL *)g->a + i * g->a_rs;
        rows.c = (REAL *)g->c + i * g->ldc;
        if (g->saved) rows.saved = (const REAL *)g->saved + i * g->lds;
        FN(run_blocks)(&rows, &s);
    }
}

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
    const ptrdiff_t packed = FN(least)(depth * width, block) + kept * depth;
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
#undef STREAM
#undef STREAM_ROWS
#undef STREAM_MOST
#undef TURN_MOST
#undef TURN_SQUARES
#undef T_ROWS
#undef T_COLUMNS
#undef COLUMNS_LEAST
