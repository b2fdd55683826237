/* gemm_tile.h: the register tiles of the matrix product, mr rows by nv vectors of C, k innermost.
 *
 * One body, always inlined with constant mr and nv, gives a function per shape. Two flavours differ
 * in which stride of A is 1: "rows" (a row of A is contiguous) and "cols" (a column is, or A was
 * copied so). With 32 registers the shapes of "rows" are 1x1..16, 2x1..8, 3..6x1..4, 7..9x1..3,
 * 10..14x1..2; with 16 registers 1x1..8, 2x1..4, 3..4x1..3, 5..6x1..2. Few rows get more vectors: eight
 * sums must be under way at once (two units, four cycles each), an element of A is loaded once for all of
 * them, and W then streams through in long stretches. "cols" has one or two vectors: it serves dW, whose
 * rows are many. */

typedef struct {
    ptrdiff_t k;
    const REAL *a;
    ptrdiff_t a_rs, a_cs;
    const REAL *b;
    ptrdiff_t ldb;
    const REAL *start; /* the sums start from the bias or zeros (ld 0), or partial sums in C */
    ptrdiff_t start_ld;
    REAL *c;
    ptrdiff_t ldc;
    fnn_act act;       /* applied here: IDENTITY, LEAKY_RELU or RELU */
    REAL slope;
    vtail tail;        /* lanes of the last vector, for tiles that mask */
    const char *ahead;
    ptrdiff_t ahead_step; /* bytes on for each step of k; without GEMM_COPIES, for 2^ahead_shift steps */
    int ahead_shift;
    /* With 16 registers, where it costs: whether tiles that read rows of A fetch anything. With 32 registers those of
     * more than 4 rows and the tiles of GEMM_RUNS do. */
    int fetches;
    ptrdiff_t b_ahead; /* what they fetch of B is so many elements on; 0: that is there already */
    int straddles;     /* whether they also fetch the line in which a row of B ends: see take_errands */
    REAL *b_copy;      /* where a "packs" tile leaves its panel of B, GEMM_NV vectors a row */
    /* Tiles of GEMM_RUNS go in runs of so many steps. In each they fetch a row of the next block of B, from `ahead` on,
     * and then copy it to row_to, GEMM_NV vectors to each of `panels`; the next row is row_step bytes on. With other
     * errands there is one run, and no panels. */
    ptrdiff_t run, row_step, panels, panel;
    REAL *row_to;
} FN(tile);

#ifndef GEMM_MASKED_FREE
#define GEMM_MASKED_FREE 0
#endif
/* Whether tiles of copied strips copy the next block of B too, and fetch. */
#ifndef GEMM_COPIES
#define GEMM_COPIES 0
#endif
/* Which tiles mask their last vector. A masked load takes some CPUs a slot of the units for arithmetic, so where
 * tiles are tall those of full width do not. */
#define GEMM_MASKED_IN(mr, nv) (GEMM_MASKED_FREE && ((mr) <= GEMM_MR / 2 || (nv) == 1))
/* Which "cols" tiles fetch, and can copy meanwhile. */
#define GEMM_RUNS(mr, nv) (GEMM_COPIES && (mr) > GEMM_MR / 2 && (nv) == GEMM_NV)
/* Rows whose elements the multiply-adds load themselves, where they can: a slot of issue less for a load more, and
 * both are scarce if the core has a second thread to serve. Not where an address has two registers, since such
 * instructions are issued as two. */
#define GEMM_LOADS_IN(rows, nv, i) ((nv) == 2 && ((rows) ? (i) % 5 == 0 : (i) % 3 == 0))

/* How many rows on is the row of B that a tile fetches. With 16 registers only "packs" tiles do so, from as far as
 * memory; with 32, where the block before has fetched most of it, no more than one set of L1 holds. */
#define GEMM_AHEAD (GEMM_MR > 8 ? 8 : 16)

/* GEMM_TALL: the rows of a first strip that copies B on the way; it has the most rows of all, and strips are
 * nearly equal, so from 13 rows on (128 with 32 registers) there are no others. */
#ifndef GEMM_SHAPES
#define GEMM_PAIR(X, mr) X(mr, 1) X(mr, 2)
#define GEMM_QUAD(X, mr) GEMM_PAIR(X, mr) X(mr, 3) X(mr, 4)
#define GEMM_OCTET(X, mr) GEMM_QUAD(X, mr) X(mr, 5) X(mr, 6) X(mr, 7) X(mr, 8)
#define GEMM_PAIRS_6(X)                                                                        \
    GEMM_PAIR(X, 1) GEMM_PAIR(X, 2) GEMM_PAIR(X, 3) GEMM_PAIR(X, 4) GEMM_PAIR(X, 5) GEMM_PAIR(X, 6)
#if GEMM_MR > 6
#define GEMM_PAIRS_7_12(X)                                                                     \
    GEMM_PAIR(X, 7) GEMM_PAIR(X, 8) GEMM_PAIR(X, 9) GEMM_PAIR(X, 10) GEMM_PAIR(X, 11)         \
    GEMM_PAIR(X, 12)
#if GEMM_MR == 14
#define GEMM_PAIRS_7(X) GEMM_PAIRS_7_12(X) GEMM_PAIR(X, 13) GEMM_PAIR(X, 14)
#else
#define GEMM_PAIRS_7(X) GEMM_PAIRS_7_12(X)
#endif
#define GEMM_NARROW(X) GEMM_PAIRS_6(X) GEMM_PAIRS_7(X)
#define GEMM_SHAPES(X)                                                                         \
    GEMM_OCTET(X, 1) X(1, 9) X(1, 10) X(1, 11) X(1, 12) X(1, 13) X(1, 14) X(1, 15) X(1, 16)    \
    GEMM_OCTET(X, 2) GEMM_QUAD(X, 3) GEMM_QUAD(X, 4) GEMM_QUAD(X, 5) GEMM_QUAD(X, 6) GEMM_PAIRS_7(X) \
    X(7, 3) X(8, 3) X(9, 3)
#if GEMM_COPIES
#define GEMM_TALL(X)
#else
#define GEMM_TALL(X) X(11) X(12)
#endif
#define GEMM_NV_MAX 16
#define GEMM_WIDEST_ROWS(mr) ((mr) == 1 ? 16 : (mr) == 2 ? 8 : (mr) <= 6 ? 4 : (mr) <= 9 ? 3 : 2)
#else
#define GEMM_NARROW(X) GEMM_PAIRS_6(X)
#define GEMM_SHAPES(X)                                                                         \
    GEMM_OCTET(X, 1) GEMM_QUAD(X, 2) GEMM_PAIR(X, 3) X(3, 3) GEMM_PAIR(X, 4) X(4, 3)           \
    GEMM_PAIR(X, 5) GEMM_PAIR(X, 6)
#define GEMM_TALL(X) X(5) X(6)
#define GEMM_NV_MAX 8
#define GEMM_WIDEST_ROWS(mr) ((mr) == 1 ? 8 : (mr) == 2 ? 4 : (mr) <= 4 ? 3 : 2)
#endif
#endif

/* A bias of zeros. */
static const REAL FN(zeros)[GEMM_NV_MAX * (VEC_BYTES / sizeof(REAL))];

INLINE vec FN(tile_load)(const REAL *p, int masked, vtail tail) {
    if (masked) return vload_t(p, tail);
    return vload(p);
}

INLINE void FN(tile_body)(const FN(tile) *t, const int mr, const int nv, const int rows,
                          const int masked, const int packs) {
    const ptrdiff_t a_cs = rows ? 1 : t->a_cs;
    /* Any of 15 rows is a base register and 0, 1, 2, 4 times a stride, which x86's addresses add up, or
     * another one's. */
    ptrdiff_t step = (rows ? t->a_rs : 1) * (ptrdiff_t)sizeof(REAL), step_3 = 3 * step;
    const char *a[3] = {(const char *)t->a, (const char *)t->a + 5 * step, (const char *)t->a + 10 * step};
    if (rows) __asm__("" : "+r"(step), "+r"(step_3));
    const ptrdiff_t ldb = t->ldb, ldc = t->ldc, start_ld = t->start_ld;
    const REAL *b = t->b, *const start = t->start;
    REAL *const c = t->c;
    const vtail tail = t->tail;
    REAL *b_copy = t->b_copy;
    const char *ahead = t->ahead, *row = ahead;
    REAL *row_to = t->row_to;
    const ptrdiff_t ahead_step = t->ahead_step, fetch = t->b_ahead * (ptrdiff_t)sizeof(REAL);
    const int ahead_shift = GEMM_COPIES ? 0 : t->ahead_shift;
    const int fetches = rows && (GEMM_MR > 8 ? mr > 4 : mr > 2 && nv > 1 && !packs && t->fetches);
    const int runs = !rows && GEMM_RUNS(mr, nv);
    vec acc[GEMM_MR][GEMM_NV_MAX];

#define TILE_LOAD(p, j) FN(tile_load)((p) + (j) * VL, masked && (j) == nv - 1, tail)
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int j = 0; j < nv; j++) acc[i][j] = TILE_LOAD(start + i * start_ld, j);

    for (ptrdiff_t left = t->k; left > 0;) {
        const ptrdiff_t end = runs && left > t->run ? left - t->run : 0;
        for (; left > end; left--) {
            vec w[GEMM_NV_MAX];
            if (rows) UNROLL for (int i = 0; i < mr; i += 5) __asm__("" : "+r"(a[i / 5]));
            UNROLL for (int j = 0; j < nv; j++) w[j] = TILE_LOAD(b, j);
            if (packs) {
                UNROLL for (int j = 0; j < nv; j++) {
                    const REAL *const next = b + GEMM_AHEAD * ldb + j * VL;
                    __builtin_prefetch(GEMM_MR > 8 ? (const char *)(b + j * VL) + fetch : (const char *)next);
                    vstore(b_copy + j * VL, w[j]);
                }
                b_copy += nv * VL;
            }
            UNROLL for (int i = 0; i < mr; i++) {
                const char *const row_x = a[i / 5] + (i % 5 == 3 ? step_3 : i % 5 * step);
                const REAL *const x = rows ? (const REAL *)row_x : (const REAL *)a[0] + i;
                UNROLL for (int j = 0; j < nv; j++)
                    if (GEMM_LOADS_IN(rows, nv, i))
                        acc[i][j] = vfma_at(x, w[j], acc[i][j]);
                    else
                        acc[i][j] = vfma(vset1(*x), w[j], acc[i][j]);
            }
            if (fetches) {
                UNROLL for (int j = 0; j < nv; j += 64 / VEC_BYTES)
                    __builtin_prefetch((const char *)(b + j * VL) + fetch, 0, GEMM_MR > 8 ? 3 : 2);
                if (!GEMM_COPIES) __builtin_prefetch(ahead + (left >> ahead_shift) * ahead_step, 0, 2);
            }
            if (runs)
                UNROLL for (int j = 0; j < nv; j += 64 / VEC_BYTES)
                    __builtin_prefetch((const char *)(b + j * VL) + fetch);
            if (runs || (fetches && GEMM_COPIES)) {
                __builtin_prefetch(ahead, 0, runs ? 2 : 3); /* a line of B that straddles is wanted in L1 */
                ahead += ahead_step;
            }
            a[0] += a_cs * (ptrdiff_t)sizeof(REAL);
            if (rows && mr > 5) a[1] += a_cs * (ptrdiff_t)sizeof(REAL);
            if (rows && mr > 10) a[2] += a_cs * (ptrdiff_t)sizeof(REAL);
            b += ldb;
        }
        if (!runs) break;
        const REAL *from = (const REAL *)row;
        REAL *to = row_to;
        for (ptrdiff_t q = t->panels; q > 0; q--, from += nv * VL, to += t->panel)
            UNROLL for (int j = 0; j < nv; j++) vstore(to + j * VL, vload(from + j * VL));
        row_to += nv * VL;
        ahead = row += t->row_step;
    }
#undef TILE_LOAD

    if (t->act == FNN_LEAKY_RELU) {
        const vec zero = vset1(0), slope = vset1(t->slope);
        UNROLL for (int i = 0; i < mr; i++)
            UNROLL for (int j = 0; j < nv; j++)
                acc[i][j] = vsel(vgt(acc[i][j], zero), acc[i][j], acc[i][j] * slope);
    } else if (t->act == FNN_RELU) {
        UNROLL for (int i = 0; i < mr; i++)
            UNROLL for (int j = 0; j < nv; j++) acc[i][j] = vmax(vset1(0), acc[i][j]);
    }
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int j = 0; j < nv; j++) {
            if (masked && j == nv - 1)
                vstore_t(c + i * ldc + j * VL, acc[i][j], tail);
            else
                vstore(c + i * ldc + j * VL, acc[i][j]);
        }
}

#define TILE_ROWS(mr, nv)                                                                      \
    static void FN(rows_##mr##x##nv)(const FN(tile) *t) {                                      \
        FN(tile_body)(t, mr, nv, 1, GEMM_MASKED_IN(mr, nv), 0);                                   \
    }
#define TILE_COLS(mr, nv)                                                                      \
    static void FN(cols_##mr##x##nv)(const FN(tile) *t) {                                      \
        FN(tile_body)(t, mr, nv, 0, GEMM_MASKED_IN(mr, nv), 0);                                   \
    }
#define TILE_PACKS(mr)                                                                         \
    static void FN(packs_##mr)(const FN(tile) *t) {                                            \
        FN(tile_body)(t, mr, GEMM_NV, 1, 0, 1);                                                \
    }
GEMM_SHAPES(TILE_ROWS)
GEMM_NARROW(TILE_COLS)
GEMM_TALL(TILE_PACKS)
#undef TILE_ROWS
#undef TILE_COLS
#undef TILE_PACKS

typedef void (*FN(tile_function))(const FN(tile) *);
#define TILE_ROWS(mr, nv) [mr - 1][nv - 1] = FN(rows_##mr##x##nv),
#define TILE_COLS(mr, nv) [mr - 1][nv - 1] = FN(cols_##mr##x##nv),
static const FN(tile_function) FN(rows_tiles)[GEMM_MR][GEMM_NV_MAX] = {GEMM_SHAPES(TILE_ROWS)};
static const FN(tile_function) FN(cols_tiles)[GEMM_MR][GEMM_NV] = {GEMM_NARROW(TILE_COLS)};
#define TILE_PACKS(mr) [mr - 1] = FN(packs_##mr),
static const FN(tile_function) FN(packs_tiles)[GEMM_MR] = {GEMM_TALL(TILE_PACKS)};
#undef TILE_ROWS
#undef TILE_COLS
#undef TILE_PACKS

/* The columns that do not fill a vector, where masks are not free: four rows at a time. */
#if !GEMM_MASKED_FREE
static void FN(tile_masked)(const FN(tile) *t, ptrdiff_t mr, int rows) {
    const ptrdiff_t a_step = rows ? t->a_rs : 1;
    FN(tile) part = *t;
    for (; mr > 0; mr -= 4) {
#define CASE(n)                                                                                \
    case n:                                                                                    \
        if (rows)                                                                              \
            FN(tile_body)(&part, n, 1, 1, 1, 0);                                                  \
        else                                                                                   \
            FN(tile_body)(&part, n, 1, 0, 1, 0);                                                  \
        break;
        switch (mr) {
            CASE(1) CASE(2) CASE(3)
        default:
            CASE(4)
        }
#undef CASE
        part.a += 4 * a_step;
        part.c += 4 * part.ldc;
        part.start += 4 * part.start_ld;
    }
}
#endif
