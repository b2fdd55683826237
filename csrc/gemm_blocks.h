/* gemm_blocks.h: the blocked way of gemm.h: blocks of B, kc x nc, stay in L2 while all strips of A pass. */

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

/* Rows of the next block that a tile copies at the least, so that of many strips some fetch A. */
#define GEMM_ROWS_EACH (F32 ? 4 : 8)

/* Blocks of B whose copies there is room for: with GEMM_COPIES the one in use and the next. */
#define BLOCK_COPIES(b_cs) (GEMM_COPIES && (b_cs) == 1 ? 2 : 1)

/* Bytes of C up to which it may wait in the outer caches. */
#define GEMM_C (8 << 20)

/* The blocks in which a product is done, kc x nc of B, and what of them is copied. */
typedef struct {
    ptrdiff_t kc, nc, depths, widths; /* so many one below another, and side by side */
    int packs_b, copies_a, whole; /* whole: rows of B, one after another */
    ptrdiff_t kept;               /* rows of A at a time whose copies serve all columns, or 0 */
} FN(blocks);

/* Whether blocks of a B with rows are copied. */
INLINE int FN(copied_b)(const fnn_gemm *g) {
    const ptrdiff_t size = sizeof(REAL), packed = g->b_rs * size >= GEMM_APART ? GEMM_APART_PACKED : GEMM_PACKED;
    return g->n * g->k * size > packed && g->m >= GEMM_WORTH;
}

static FN(blocks) FN(block_sizes)(const fnn_gemm *g) {
    const ptrdiff_t size = sizeof(REAL), bytes = g->n * g->k * size;
    FN(blocks) s = {.kc = g->k > 0 ? g->k : 1, .nc = g->n};
    s.packs_b = g->b_cs != 1 || FN(copied_b)(g);
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
    s.depths = FN(ceil_div)(g->k > 0 ? g->k : 1, s.kc); /* once also where k is 0 */
    s.widths = FN(ceil_div)(g->n, s.nc);
    /* Rows of A in one set of L1, or a new line at each step: both fall out of L1. */
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

/* One block: C(i, j) += A(i, p) B(p, j) for k rows of B from b on and n columns. */
typedef struct {
    ptrdiff_t p, j, k, n;
    int across;       /* the next block is beside this one, else below it */
    const REAL *b;    /* where it lies: rows of ldb, a panel of NR columns `panel` after the one before */
    ptrdiff_t ldb, panel;
    const REAL *next; /* where the block after this one lies in B, and its size; or NULL */
    ptrdiff_t next_k, next_n;
    REAL *next_copy;  /* where the tiles of this one leave the next one's panels, if there is one; or NULL */
    int whole;        /* as in blocks */
    REAL *b_copy;     /* where the tiles of the first strip leave this block's panels, for the others; or NULL */
    REAL *a_copy;     /* room for a strip of A, or for all of them; or NULL */
    int keeps_a;
} FN(block);

/* The tiles of GEMM_RUNS copy the next block, in all strips if these are few. */
static void FN(copy_next)(const fnn_gemm *g, const FN(block) *b, ptrdiff_t strips, FN(errands) *e) {
    const ptrdiff_t tiles = strips * (b->n / NR);
    e->row = b->next;
    e->row_ld = g->b_rs;
    e->row_bytes = b->next_n * (ptrdiff_t)sizeof(REAL);
    e->row_to = b->next_copy;
    e->panels = b->next_n / NR;
    e->panel = b->next_k * NR;
    e->rows = b->next_k;
    const ptrdiff_t each = FN(ceil_div)(e->rows, tiles ? tiles : 1);
    e->rows_each = each > GEMM_ROWS_EACH ? each : GEMM_ROWS_EACH;
}

/* What the tiles of the r-th strip, of mr rows, fetch; the next strip of A, or its copy, is at `a`. */
static void FN(look_ahead)(const fnn_gemm *g, const FN(block) *b, ptrdiff_t r, ptrdiff_t strips,
                           ptrdiff_t mr, const REAL *a, FN(errands) *e) {
    if (GEMM_MR <= 8 && strips < 8) return; /* a fetch takes a load slot that the sums need */
    /* The next block: a line of each row a tile, late, so that it is still there; tiles that read rows
     * of A are so short that several strips share the work. */
    const ptrdiff_t lines = NR * (ptrdiff_t)sizeof(REAL) / 64;
    int shift = 0;
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
    if (b->next && !b->next_copy && turn >= 0) {
        e->ahead_turn = 64 / sizeof(REAL);
        e->ahead = b->next + (turn & (shares - 1)) * (b->k >> shift) * g->b_rs +
                   (turn >> shift) * FN(ceil_div)(b->n, NR) * e->ahead_turn;
        e->ahead_step = g->b_rs;
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
    if (GEMM_COPIES && b.next && b.next_copy) FN(copy_next)(g, &b, strips, &errands);
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
        if (!GEMM_COPIES && !r) t.b_copy = b.b_copy;
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
        if (!GEMM_COPIES && !r && b.b_copy) {
            b.b = b.b_copy;
            b.ldb = NR;
            b.panel = b.k * NR;
        }
    }
    /* Blocks of a few columns have no tiles of GEMM_RUNS. */
    for (ptrdiff_t q = 0; errands.rows > 0 && q < errands.panels; q++)
        FN(pack_b)(errands.rows, NR, errands.row + q * NR, errands.row_ld, 1, errands.row_to + q * errands.panel);
}

/* Where the i-th block is: for all columns some of k, or the other way round. */
static void FN(place)(const fnn_gemm *g, const FN(blocks) *s, ptrdiff_t i, FN(block) *b) {
    b->p = (b->across ? i / s->widths : i % s->depths) * s->kc;
    b->j = (b->across ? i % s->widths : i / s->depths) * s->nc;
    b->k = FN(least)(s->kc, g->k - b->p);
    b->n = FN(least)(s->nc, g->n - b->j);
    b->b = (const REAL *)g->b + b->p * g->b_rs + b->j * g->b_cs;
}

/* The i-th block of B, and how it is come by. */
static void FN(find_block)(const fnn_gemm *g, const FN(blocks) *s, ptrdiff_t i, FN(block) *b) {
    FN(place)(g, s, i, b);
    if (s->packs_b && (g->b_cs != 1 || (!GEMM_COPIES && s->copies_a))) {
        FN(pack_b)(b->k, b->n, b->b, g->b_rs, g->b_cs, g->work);
        b->b = g->work;
        b->ldb = NR;
        b->panel = b->k * NR;
        return;
    }
    b->ldb = g->b_rs;
    b->panel = s->copies_a || s->kc < g->k ? NR : 0;
    if (GEMM_COPIES && s->packs_b) {
        /* The block before has copied whole panels of this one. */
        REAL *const copy = (REAL *)g->work + i % 2 * s->kc * s->nc;
        const ptrdiff_t full = i ? b->n / NR * NR : 0;
        FN(pack_b)(b->k, b->n - full, b->b + full, g->b_rs, 1, copy + full * b->k);
        b->next_copy = (REAL *)g->work + (i + 1) % 2 * s->kc * s->nc;
        b->b = copy;
        b->ldb = NR;
        b->panel = b->k * NR;
    } else if (s->packs_b) {
        b->b_copy = g->work;
    }
    const ptrdiff_t bytes = g->n * g->k * (ptrdiff_t)sizeof(REAL);
    if (GEMM_COPIES && !s->packs_b && !s->whole && g->m <= 2 * GEMM_MR && bytes <= GEMM_FAR) return;
    FN(block) next = *b;
    b->next = NULL;
    if (i + 1 >= s->depths * s->widths) return;
    FN(place)(g, s, i + 1, &next);
    b->next = next.b;
    b->next_k = next.k;
    b->next_n = next.n;
}

/* Where C, of these rows, fits in the outer caches, all columns for some of k: the rows of B that these are lie in few
 * pages, and each page is looked up once. Else all of k for some columns, while those of C stay. */
static void FN(run_blocks)(const fnn_gemm *g, const FN(blocks) *s) {
    FN(block) b = {.across = g->m * g->ldc * (ptrdiff_t)sizeof(REAL) <= GEMM_C, .whole = s->whole};
    if (s->copies_a) b.a_copy = (REAL *)g->work + (s->packs_b ? BLOCK_COPIES(g->b_cs) * s->kc * s->nc : 0);
    b.keeps_a = GEMM_COPIES && s->kept > 0; /* then C fits */
    for (ptrdiff_t i = 0; i < s->depths * s->widths; i++) {
        FN(find_block)(g, s, i, &b);
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
