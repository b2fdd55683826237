/* gemm_errands.h: what the tiles of gemm.h do besides, in issue slots that they have to spare: they copy the
 * strip of A that comes next, and fetch what is wanted soon. */

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

/* What the tiles of a strip do besides, in issue slots that they have to spare. */
typedef struct {
    FN(source) next;       /* the strip that comes next, where it is copied; else its copy is NULL */
    ptrdiff_t copied;      /* rows of it */
    const REAL *ahead;     /* what is fetched: from the next block of B a line of each row, a tile, or, where
                            * it is one run, a line a step; or from the next strip of A, where it is not
                            * copied, some elements a step */
    ptrdiff_t ahead_step, ahead_turn; /* on for each step of k, each tile */
    int ahead_shift;       /* where tiles do not copy, rows of B for 2^ahead_shift steps: a strip's share */
    int fetch_c;
    int soons, which;           /* how many of g->soon are fetched instead, and whose turn it is: */
    const void *const *soon;    /* a tile takes soon_turn elements of one of them from soon_at on, */
    ptrdiff_t soon_turn, soon_at, soon_step; /* soon_step for each step of k */
} FN(errands);

INLINE FN(errands) FN(no_errands)(void) {
    FN(errands) e;
    e.next.copy = NULL;
    e.ahead = NULL;
    e.fetch_c = e.soons = 0;
    return e;
}

INLINE void FN(take_errands)(FN(tile) *t, FN(errands) *e, int able, REAL *sink) {
    t->from[0] = t->from[1] = t->ahead = t->b;
    t->to = sink;
    t->from_step = t->to_step = t->fetch = t->ahead_step = t->ahead_shift = 0;
    if (able && e->next.copy && e->copied < e->next.mr) {
        t->from[0] = t->from[1] = e->next.a + e->copied * e->next.a_rs;
        if (e->copied + 1 < e->next.mr) t->from[1] += e->next.a_rs;
        t->to = e->next.copy + e->copied;
        t->from_step = e->next.a_cs;
        t->to_step = GEMM_MR;
        t->fetch = 2 * e->next.a_rs;
        e->copied += 2;
    }
    if (e->soons && able) {
        t->ahead = (const REAL *)e->soon[e->which] + e->soon_at;
        t->ahead_step = e->soon_step;
        if (++e->which == e->soons) {
            e->which = 0;
            e->soon_at += e->soon_turn;
        }
    } else if (e->ahead) {
        t->ahead = e->ahead;
        t->ahead_step = e->ahead_step;
        t->ahead_shift = e->ahead_shift;
        t->fetches = 1;
        e->ahead += e->ahead_turn;
    }
}
