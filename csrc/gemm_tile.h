/* gemm_tile.h: the register tiles of the matrix product, mr rows by nv vectors of C, k innermost.
 *
 * One body, always inlined with constant mr and nv, gives a function per shape. Two flavours differ in
 * which stride of A is 1: "rows" (a row of A is contiguous) and "cols" (a column is, or A is packed so).
 * With 32 registers the shapes are 1x1..16, 2x1..8, 3..6x1..4 and 7..14x1..2; with 16 registers
 * 1x1..8, 2x1..4, 3..4x1..3 and 5..6x1..2. Few rows get more vectors, so that at least eight sums are under
 * way at once (two units, four cycles each) and W streams through in long stretches. */

typedef struct {
    ptrdiff_t k;
    const REAL *a;
    ptrdiff_t a_rs, a_cs;
    const REAL *b;
    ptrdiff_t ldb;
    REAL *c;
    ptrdiff_t ldc;
    const REAL *bias; /* NULL: zero */
    int resume;       /* start from what C holds: an earlier k-block left its partial sums there */
    fnn_act act;      /* applied here: IDENTITY, LEAKY_RELU or RELU */
    REAL slope;
    vtail tail;       /* lanes of the last vector, for tiles that mask */
} FN(tile);

#ifndef GEMM_MASKED_FREE
#define GEMM_MASKED_FREE 0
#endif

#if !defined(GEMM_SHAPES)
#if GEMM_MR > 6
#define GEMM_NV_MAX 16
#define GEMM_WIDEST(mr) ((mr) == 1 ? 16 : (mr) == 2 ? 8 : (mr) <= 6 ? 4 : 2)
#define GEMM_SHAPES_FEW(X)                                                                          \
    X(1, 1) X(1, 2) X(1, 3) X(1, 4) X(1, 5) X(1, 6) X(1, 7) X(1, 8) X(1, 9) X(1, 10) X(1, 11)       \
    X(1, 12) X(1, 13) X(1, 14) X(1, 15) X(1, 16)                                                    \
    X(2, 1) X(2, 2) X(2, 3) X(2, 4) X(2, 5) X(2, 6) X(2, 7) X(2, 8)                                 \
    X(3, 1) X(3, 2) X(3, 3) X(3, 4) X(4, 1) X(4, 2) X(4, 3) X(4, 4)                                 \
    X(5, 1) X(5, 2) X(5, 3) X(5, 4) X(6, 1) X(6, 2) X(6, 3) X(6, 4)                                 \
    X(7, 1) X(7, 2) X(8, 1) X(8, 2) X(9, 1) X(9, 2) X(10, 1) X(10, 2)                               \
    X(11, 1) X(11, 2) X(12, 1) X(12, 2)
#if GEMM_MR == 14
#define GEMM_SHAPES(X) GEMM_SHAPES_FEW(X) X(13, 1) X(13, 2) X(14, 1) X(14, 2)
#else
#define GEMM_SHAPES(X) GEMM_SHAPES_FEW(X)
#endif
#else
#define GEMM_NV_MAX 8
#define GEMM_WIDEST(mr) ((mr) == 1 ? 8 : (mr) == 2 ? 4 : (mr) <= 4 ? 3 : 2)
#define GEMM_SHAPES(X)                                                                              \
    X(1, 1) X(1, 2) X(1, 3) X(1, 4) X(1, 5) X(1, 6) X(1, 7) X(1, 8) X(2, 1) X(2, 2) X(2, 3) X(2, 4) \
    X(3, 1) X(3, 2) X(3, 3) X(4, 1) X(4, 2) X(4, 3) X(5, 1) X(5, 2) X(6, 1) X(6, 2)
#endif
#endif

INLINE vec FN(tile_load)(const REAL *p, int masked, vtail tail) {
    if (masked) return vload_t(p, tail);
    return vload(p);
}

INLINE void FN(tile_body)(const FN(tile) *t, const int mr, const int nv, const int rows,
                          const int masked) {
    const ptrdiff_t a_rs = rows ? t->a_rs : 1, a_cs = rows ? 1 : t->a_cs, ldb = t->ldb, ldc = t->ldc;
    const REAL *a = t->a, *b = t->b;
    REAL *const c = t->c;
    const vtail tail = t->tail;
    vec acc[GEMM_MR][GEMM_NV_MAX];

#define TILE_LOAD(p, j) FN(tile_load)((p) + (j) * VL, masked && (j) == nv - 1, tail)
    if (t->resume) {
        UNROLL for (int i = 0; i < mr; i++)
            UNROLL for (int j = 0; j < nv; j++) acc[i][j] = TILE_LOAD(c + i * ldc, j);
    } else if (t->bias) {
        UNROLL for (int j = 0; j < nv; j++) {
            const vec v = TILE_LOAD(t->bias, j);
            UNROLL for (int i = 0; i < mr; i++) acc[i][j] = v;
        }
    } else {
        UNROLL for (int i = 0; i < mr; i++)
            UNROLL for (int j = 0; j < nv; j++) acc[i][j] = vset1(0);
    }

    for (ptrdiff_t p = t->k; p > 0; p--) {
        vec w[GEMM_NV_MAX];
        UNROLL for (int j = 0; j < nv; j++) w[j] = TILE_LOAD(b, j);
        UNROLL for (int i = 0; i < mr; i++) {
            const vec x = vset1(a[i * a_rs]);
            UNROLL for (int j = 0; j < nv; j++) acc[i][j] = vfma(x, w[j], acc[i][j]);
        }
        a += a_cs;
        b += ldb;
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

#define TILE_FUNCTIONS(mr, nv)                                                                      \
    static void FN(rows_##mr##x##nv)(const FN(tile) *t) {                                           \
        FN(tile_body)(t, mr, nv, 1, GEMM_MASKED_FREE);                                              \
    }                                                                                               \
    static void FN(cols_##mr##x##nv)(const FN(tile) *t) {                                           \
        FN(tile_body)(t, mr, nv, 0, GEMM_MASKED_FREE);                                              \
    }
GEMM_SHAPES(TILE_FUNCTIONS)
#undef TILE_FUNCTIONS

typedef void (*FN(tile_function))(const FN(tile) *);
#define TILE_ROWS(mr, nv) [mr - 1][nv - 1] = FN(rows_##mr##x##nv),
#define TILE_COLS(mr, nv) [mr - 1][nv - 1] = FN(cols_##mr##x##nv),
static const FN(tile_function) FN(tiles)[2][GEMM_MR][GEMM_NV_MAX] = {
    {GEMM_SHAPES(TILE_COLS)},
    {GEMM_SHAPES(TILE_ROWS)},
};
#undef TILE_ROWS
#undef TILE_COLS

/* The columns that do not fill a vector, where masks are not free: one vector wide, masked, four rows. */
#if !GEMM_MASKED_FREE
static void FN(tile_masked)(const FN(tile) *t, ptrdiff_t mr, int rows) {
    const ptrdiff_t a_step = rows ? t->a_rs : 1;
    FN(tile) part = *t;
    for (; mr > 0; mr -= 4) {
#define CASE(n)                                                                                     \
    case n:                                                                                         \
        if (rows)                                                                                   \
            FN(tile_body)(&part, n, 1, 1, 1);                                                       \
        else                                                                                        \
            FN(tile_body)(&part, n, 1, 0, 1);                                                       \
        break;
        switch (mr) {
            CASE(1) CASE(2) CASE(3)
        default:
            CASE(4)
        }
#undef CASE
        part.a += 4 * a_step;
        part.c += 4 * part.ldc;
    }
}
#endif
