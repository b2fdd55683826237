/* gemm_panels.h: the matrix product with one panel of B in L1, NR columns of it, which all strips of some rows
 * of A pass before the next one comes. For a step of k L2 then delivers a strip's column of A (24 bytes of
 * float32 with AVX2), not a row of a block of B (64); with a neighbour on the core, who takes his part of
 * the caches, that decides.
 *
 * It serves products whose sums need not wait in C, and up to PANEL_DEEP_ROWS rows. Of a B beyond L2 the next
 * panel is fetched by the last strips of this one. */

/* Bytes of a panel's column; more than those of a block's, since the panel alone is in L1. */
#define PANEL_DEPTH ((ptrdiff_t)(1280 / sizeof(REAL)))
/* Rows of A that pass one copy of a panel; they stay in L2. */
#define PANEL_ROWS 192
/* Rows that pay for a panel's copy: of a B in L2, of one beyond, and of a transposed one. */
#define PANEL_WORTH 40
#define PANEL_WORTH_FAR 16
#define PANEL_WORTH_TURNED 96
/* Rows up to which k may be cut: the sums wait in C, and a strip of A is no longer one run. */
#define PANEL_DEEP_ROWS 96

/* Some rows of A, in strips, and k rows of B. */
typedef struct {
    ptrdiff_t i, m, strips, p, k;
    int far; /* B is beyond L2 */
} FN(chunk);

/* The last strips fetch the panel that comes after column j, each some of its rows. */
INLINE void FN(fetch_panel)(FN(tile) *t, const FN(chunk) *s, ptrdiff_t r, const fnn_gemm *g, ptrdiff_t j) {
    const ptrdiff_t share = s->strips - 1 - r, ldb = g->b_rs, below = s->p + s->k < g->k ? s->p + s->k : 0;
    const REAL *const next = (const REAL *)g->b + (j + NR < g->n ? s->p * ldb + j + NR : below * ldb);
    int shift = 0;
    while (shift < 3 && 2 << shift < s->strips) shift++;
    t->fetches = share < (ptrdiff_t)1 << shift;
    t->ahead = (const char *)(next + share * (s->k >> shift) * ldb);
    t->ahead_step = ldb * (ptrdiff_t)sizeof(REAL);
    t->ahead_shift = shift;
}

/* With the last whole panel, the rows of A that come after these; where they lie one after another. */
INLINE void FN(fetch_rows)(FN(tile) *t, const FN(chunk) *s, ptrdiff_t mr) {
    t->fetches = 1;
    t->ahead = (const char *)(t->a + (s->m + mr) * s->k);
    t->ahead_step = -mr * (ptrdiff_t)sizeof(REAL);
    t->ahead_shift = 0;
}

static void FN(run_panel)(const fnn_gemm *g, const FN(chunk) *s, ptrdiff_t j) {
    const ptrdiff_t n = FN(least)(NR, g->n - j);
    const int last = s->p + s->k >= g->k, copies = g->b_cs == 1 && n == NR;
    const REAL *const b = (const REAL *)g->b + s->p * g->b_rs + j * g->b_cs;
    const int rows_follow = j + 2 * NR > g->n && s->i + s->m < g->m && g->a_rs == s->k;
    FN(errands) none = FN(no_errands)();
    FN(tile) t = FN(first_tile)(g, last);
    t.k = s->k;
    t.start_ld = s->p ? g->ldc : 0;
    if (!copies) {
        FN(pack_b)(s->k, n, b, g->b_rs, g->b_cs, g->work);
        t.b = g->work;
        t.ldb = NR;
    }
    for (ptrdiff_t r = 0, i = s->i, mr; r < s->strips; r++, i += mr) {
        mr = s->i + FN(part)(s->m, s->strips, r + 1) - i;
        t.a = (const REAL *)g->a + i * g->a_rs + s->p;
        t.c = (REAL *)g->c + i * g->ldc + j;
        t.start = s->p ? t.c : g->bias ? (const REAL *)g->bias + j : FN(zeros);
        if (n < NR) {
            FN(strip)(&t, mr, n, 1, NR, &none);
        } else if (copies && !r) {
            t.b = b;
            t.b_copy = g->work;
            assert(FN(packs_tiles)[mr - 1]);
            FN(packs_tiles)[mr - 1](&t);
            t.b = g->work;
            t.ldb = NR;
        } else {
            if (s->far)
                FN(fetch_panel)(&t, s, r, g, j);
            else if (rows_follow)
                FN(fetch_rows)(&t, s, mr);
            FN(rows_tiles)[mr - 1][GEMM_NV - 1](&t);
        }
        if (last && FN(act_after)(g)) FN(finish)(g, i, j, mr, n);
    }
}

static void FN(by_panels)(const fnn_gemm *g) {
    const ptrdiff_t depths = g->k > 0 ? FN(ceil_div)(g->k, PANEL_DEPTH) : 1;
    const ptrdiff_t chunks = FN(ceil_div)(g->m, PANEL_ROWS);
    FN(chunk) s = {.far = g->b_cs == 1 && g->n * g->k * (ptrdiff_t)sizeof(REAL) > GEMM_LARGE};
    for (ptrdiff_t q = 0; q < chunks * depths; q++) {
        s.i = FN(part)(g->m, chunks, q / depths);
        s.m = FN(part)(g->m, chunks, q / depths + 1) - s.i;
        s.strips = FN(ceil_div)(s.m, GEMM_MR);
        s.p = FN(part)(g->k, depths, q % depths);
        s.k = FN(part)(g->k, depths, q % depths + 1) - s.p;
        for (ptrdiff_t j = 0; j < g->n; j += NR) FN(run_panel)(g, &s, j);
    }
}

INLINE int FN(better_by_panels)(const fnn_gemm *g) {
    const int deep = g->k > PANEL_DEPTH, far = g->n * g->k * (ptrdiff_t)sizeof(REAL) > GEMM_LARGE;
    if (!GEMM_PANELS || g->a_cs != 1 || g->n < NR) return 0;
    if (g->b_cs != 1) return !deep && g->k >= 2 * VL && g->m >= PANEL_WORTH_TURNED;
    return g->m >= (far ? PANEL_WORTH_FAR : PANEL_WORTH) && (!deep || g->m <= PANEL_DEEP_ROWS);
}
