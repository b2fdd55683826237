/* gemm_errands.h: what the tiles of gemm.h do besides: they fetch what is wanted soon. */

/* The next tile of C is fetched while this one is computed. */
INLINE void FN(prefetch_c)(const REAL *c, ptrdiff_t mr, ptrdiff_t ldc) {
    for (ptrdiff_t i = 0; i < mr; i++, c += ldc)
        UNROLL for (int q = 0; q < GEMM_NV; q++) __builtin_prefetch(c + q * VL, 1);
}

/* What the tiles of a strip fetch. */
typedef struct {
    const REAL *ahead;     /* what is fetched: from the next block of B a line of each row, a tile, or, where
                            * it is one run, a line a step; or from the next strip of A, where that is one
                            * run or a kept copy, some elements a step */
    ptrdiff_t ahead_step, ahead_turn; /* on for each step of k, each tile */
    int ahead_shift;       /* without GEMM_COPIES, rows of B for 2^ahead_shift steps: a strip's share */
    int fetch_c;
    /* The next block of B: what is left of its rows for tiles of GEMM_RUNS, which take rows_each of them. The first is
     * at `row` and goes to row_to, if there are `panels`, as in the tile. */
    ptrdiff_t rows, rows_each, row_ld, row_bytes, panels, panel;
    const REAL *row;
    REAL *row_to;
    const REAL *columns;        /* of the next strip of A, columns_step apart: the last line of each, for the first
                                 * tile; or NULL */
    ptrdiff_t columns_step;
    fnn_picked *picked;         /* g->picked: a tile takes picked_part bytes of a row, picked_step for each step */
    ptrdiff_t picked_part, picked_step;
    int narrow;                 /* no tiles of more than GEMM_NV vectors */
    int soons, which;           /* how many of g->soon are fetched instead, and whose turn it is: */
    const void *const *soon;    /* a tile takes soon_turn elements of one of them from soon_at on, */
    ptrdiff_t soon_turn, soon_at, soon_step; /* soon_step for each step of k */
} FN(errands);

INLINE FN(errands) FN(no_errands)(void) {
    FN(errands) e;
    e.ahead = e.columns = NULL;
    e.picked = NULL;
    e.fetch_c = e.narrow = e.soons = 0;
    e.rows = 0;
    return e;
}

/* In strips of how many tiles one of them fetches columns of A. */
#define COLUMNS_LEAST 4

/* What the caller wants soon, in equal parts for all other tiles of GEMM_RUNS, one of the arrays each. Tiles
 * that fetch picked rows take no part, and what would be theirs at the end is left out. */
static void FN(look_soon)(const fnn_gemm *g, ptrdiff_t strips, FN(errands) *e) {
    const ptrdiff_t tiles = strips * (g->n / NR - (g->n / NR >= COLUMNS_LEAST));
    const ptrdiff_t n = (ptrdiff_t)(g->soon_bytes / sizeof(REAL));
    while (e->soons < 3 && g->soon[e->soons]) e->soons++;
    e->soon = g->soon;
    e->soon_turn = FN(ceil_div)(n * e->soons, tiles);
    e->soon_step = FN(ceil_div)(e->soon_turn, g->k);
    e->soon_at = e->which = 0;
}

/* Parts of rows that have as many lines as a tile has steps, or less. */
static void FN(look_at_picked)(fnn_picked *picked, ptrdiff_t k, FN(errands) *e) {
    const ptrdiff_t parts = FN(ceil_div)(picked->bytes, 64 * k);
    e->picked = picked;
    e->picked_part = FN(ceil_div)(picked->bytes, parts);
    e->picked_step = FN(ceil_div)(e->picked_part, k);
}

/* Some rows of the next block, a run of steps for each. */
INLINE void FN(take_rows)(FN(tile) *t, FN(errands) *e) {
    t->run = FN(ceil_div)(t->k, FN(least)(e->rows, e->rows_each));
    t->ahead = (const char *)e->row;
    t->ahead_step = FN(ceil_div)(e->row_bytes, t->run);
    t->row_step = e->row_ld * (ptrdiff_t)sizeof(REAL);
    t->row_to = e->row_to;
    t->panels = e->panels;
    t->panel = e->panel;
    const ptrdiff_t runs = FN(ceil_div)(t->k, t->run);
    e->row += runs * e->row_ld;
    e->row_to += runs * GEMM_NV * VL;
    e->rows -= runs;
}

INLINE void FN(take_errands)(FN(tile) *t, FN(errands) *e, ptrdiff_t nv, int able) {
    const REAL *ahead = t->b;
    ptrdiff_t step = 0;
    t->ahead_shift = 0;
    t->run = t->k;
    t->row_to = t->c; /* any address, there being no panels */
    t->panels = t->panel = t->row_step = 0;
    /* Without errands, the line in which a row of its B ends. */
    if (t->straddles) {
        ahead += t->b_ahead + nv * VL - 1;
        step = t->ldb;
    }
    fnn_picked *const p = GEMM_COPIES ? e->picked : NULL;
    if (p && able && p->row < p->rows && ++p->turn >= p->every) {
        p->turn = 0;
        t->ahead = p->data + p->index[p->row] * p->stride + p->at;
        t->ahead_step = e->picked_step;
        p->at += e->picked_part;
        if (p->at >= p->bytes) {
            p->row++;
            p->at = 0;
        }
        return;
    }
    if (GEMM_COPIES && e->rows > 0 && able) {
        FN(take_rows)(t, e);
        return;
    }
    if (GEMM_COPIES && e->columns && able) {
        ahead = e->columns;
        step = e->columns_step;
        e->columns = NULL;
    } else if (e->soons && able) {
        ahead = (const REAL *)e->soon[e->which] + e->soon_at;
        step = e->soon_step;
        if (++e->which == e->soons) {
            e->which = 0;
            e->soon_at += e->soon_turn;
        }
    } else if (e->ahead) {
        ahead = e->ahead;
        step = e->ahead_step;
        t->ahead_shift = e->ahead_shift;
        t->fetches = 1;
        e->ahead += e->ahead_turn;
    }
    t->ahead = (const char *)ahead;
    t->ahead_step = step * (ptrdiff_t)sizeof(REAL);
}
