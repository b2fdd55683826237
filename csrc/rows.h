/* rows.h: kernels that see a whole row or column: softmax and its gradient, argmax, marks of columns
 * with a positive element, and the gathering of rows. A row is read in vectors from its start, the last
 * one masked, and what is summed over it is summed lane by lane in that order and folded at the end: the
 * bits depend on the row and its length alone. */

/* The next vector of a row of which n elements are left. Lanes beyond them hold 0 or, in the second
 * form, `fill`. */
INLINE vec FN(row_load)(const REAL *x, ptrdiff_t n) {
    if (n >= VL) return vload(x);
    return vload_t(x, vtail_make(n));
}

INLINE vec FN(row_fill)(const REAL *x, ptrdiff_t n, vec fill) {
    if (n >= VL) return vload(x);
    return vsel(vfirst(n), vload_t(x, vtail_make(n)), fill);
}

INLINE void FN(row_store)(REAL *y, ptrdiff_t n, vec v) {
    if (n >= VL)
        vstore(y, v);
    else
        vstore_t(y, v, vtail_make(n));
}

/* The largest element, in every lane; NaNs are passed over. */
INLINE vec FN(row_top)(ptrdiff_t n, const REAL *x) {
    const vec lowest = vset1(-(REAL)__builtin_inf());
    vec top = lowest;
    for (ptrdiff_t j = 0; j < n; j += VL) top = vmax(FN(row_fill)(x + j, n - j, lowest), top);
    return vtop(top);
}

/* e^(x - top) of the next vector of a row, and 0 in lanes beyond it. What is computed there is e^0: CPUs
 * take a hundred cycles and more over an underflow. */
INLINE vec FN(row_power)(const REAL *x, ptrdiff_t n, vec top) {
    const vec e = FN(exp_negative)(FN(row_fill)(x, n, top) - top);
    if (n >= VL) return e;
    return vsel(vfirst(n), e, (vec){0});
}

/* sum e^(x - top), in every lane; the terms go to y where it is not NULL. A NaN, and an infinity at
 * the top, make the sum NaN. */
INLINE vec FN(row_exp)(ptrdiff_t n, const REAL *x, vec top, REAL *y) {
    vec sum = {0};
    for (ptrdiff_t j = 0; j < n; j += VL) {
        const vec e = FN(row_power)(x + j, n - j, top);
        if (y) FN(row_store)(y + j, n - j, e);
        sum += e;
    }
    return vsum(sum);
}

static void FN(softmax)(ptrdiff_t m, ptrdiff_t n, const void *x, ptrdiff_t ldx, void *y,
                        ptrdiff_t ldy) {
    for (ptrdiff_t i = 0; i < m; i++) {
        const REAL *xi = (const REAL *)x + i * ldx;
        REAL *yi = (REAL *)y + i * ldy;
        const vec top = FN(row_top)(n, xi);
        if (n <= VL) { /* the row stays in a register */
            const vec e = FN(row_power)(xi, n, top);
            FN(row_store)(yi, n, e * (vset1(1) / vsum(e)));
            continue;
        }
        const vec r = vset1(1) / FN(row_exp)(n, xi, top, yi);
        for (ptrdiff_t j = 0; j < n; j += VL)
            FN(row_store)(yi + j, n - j, FN(row_load)(yi + j, n - j) * r);
    }
}

static void FN(softmax_grad)(ptrdiff_t m, ptrdiff_t n, const void *y, ptrdiff_t ldy, const void *gy,
                             ptrdiff_t ldgy, void *gx, ptrdiff_t ldgx) {
    for (ptrdiff_t i = 0; i < m; i++) {
        const REAL *yi = (const REAL *)y + i * ldy, *gi = (const REAL *)gy + i * ldgy;
        REAL *xi = (REAL *)gx + i * ldgx;
        vec sum = {0};
        for (ptrdiff_t j = 0; j < n; j += VL)
            sum = vfma(FN(row_load)(yi + j, n - j), FN(row_load)(gi + j, n - j), sum);
        sum = vsum(sum);
        for (ptrdiff_t j = 0; j < n; j += VL) {
            const vec g = FN(row_load)(gi + j, n - j) - sum;
            FN(row_store)(xi + j, n - j, FN(row_load)(yi + j, n - j) * g);
        }
    }
}

/* The first vector that holds the largest element, or a NaN if the row has one, then its first
 * lane. */
static void FN(argmax)(ptrdiff_t m, ptrdiff_t n, const void *z, ptrdiff_t ldz, int64_t *out) {
    const vec lowest = vset1(-(REAL)__builtin_inf()), one = vset1(1);
    assert(m == 0 || n > 0);
    for (ptrdiff_t i = 0; i < m; i++) {
        const REAL *zi = (const REAL *)z + i * ldz;
        vec top = lowest, ordered = one; /* ordered: 1 where no NaN was seen */
        for (ptrdiff_t j = 0; j < n; j += VL) {
            const vec v = FN(row_fill)(zi + j, n - j, lowest);
            top = vmax(v, top);
            ordered = vsel(veq(v, v), ordered, (vec){0});
        }
        top = vtop(top);
        const int nan = vtop(-ordered)[0] == 0;
        for (ptrdiff_t j = 0; j < n; j += VL) {
            const vec v = FN(row_fill)(zi + j, n - j, lowest), lane = viota();
            vec found = vsel(veq(v, top), -lane, lowest);
            if (nan) found = vsel(veq(v, v), lowest, -lane);
            const REAL first = vtop(found)[0];
            if (first <= 0 && first > -VL) {
                out[i] = j + (ptrdiff_t)-first;
                break;
            }
        }
    }
}

/* A vector of columns at a time, and of its rows no more than it takes to mark all of them: where most
 * columns have their mark already, or get it from the first rows, this costs next to nothing. */
static void FN(mark_positive)(ptrdiff_t m, ptrdiff_t n, const void *x, ptrdiff_t ldx, void *seen) {
    enum { BLOCK = 8 };
    const vec zero = {0}, one = vset1(1);
    for (ptrdiff_t j = 0; j < n; j += VL) {
        const REAL *xj = (const REAL *)x + j;
        REAL *mark = (REAL *)seen + j;
        vec marks = FN(row_fill)(mark, n - j, one);
        if (!vany(vlt(marks, one))) continue;
        ptrdiff_t i = 0;
        for (; i + BLOCK <= m && vany(vlt(marks, one)); i += BLOCK) {
            vec top[2] = {zero, zero}; /* vmax passes over a NaN that comes first */
            UNROLL for (int u = 0; u < BLOCK; u++)
                top[u % 2] = vmax(FN(row_load)(xj + (i + u) * ldx, n - j), top[u % 2]);
            marks = vsel(vgt(vmax(top[0], top[1]), zero), one, marks);
        }
        for (; i < m; i++)
            marks = vsel(vgt(FN(row_load)(xj + i * ldx, n - j), zero), one, marks);
        FN(row_store)(mark, n - j, marks);
    }
}

/* Gathering. Plain loops, which the compiler vectorises (to a memcpy where the dtypes agree): each
 * conversion is exact or rounded once, so the bits cannot depend on how. Rows picked by an index come
 * from anywhere in memory, so those that follow are fetched while one is copied. */
#define GATHER_AHEAD 6144 /* bytes */
#define GATHER(TYPE, VALUE)                                                                        \
    const ptrdiff_t bytes = n * (ptrdiff_t)sizeof(TYPE), ahead = 1 + GATHER_AHEAD / (bytes + 1);   \
    for (ptrdiff_t i = 0; i < m; i++) {                                                            \
        const TYPE *restrict from = src + (index ? index[i] : i) * lds;                            \
        REAL *restrict to = (REAL *)dst + i * ldd;                                                 \
        if (index && i + ahead < m)                                                                \
            for (ptrdiff_t at = 0; at < bytes; at += 64)                                           \
                __builtin_prefetch((const char *)(src + index[i + ahead] * lds) + at);             \
        for (ptrdiff_t j = 0; j < n; j++) to[j] = VALUE;                                           \
    }

static void FN(gather_f32)(ptrdiff_t m, ptrdiff_t n, const float *src, ptrdiff_t lds,
                           const int64_t *index, void *dst, ptrdiff_t ldd) {
    GATHER(float, (REAL)from[j])
}

static void FN(gather_f64)(ptrdiff_t m, ptrdiff_t n, const double *src, ptrdiff_t lds,
                           const int64_t *index, void *dst, ptrdiff_t ldd) {
    GATHER(double, (REAL)from[j])
}

static void FN(gather_u8)(ptrdiff_t m, ptrdiff_t n, const uint8_t *src, ptrdiff_t lds,
                          const int64_t *index, double scale, void *dst, ptrdiff_t ldd) {
    const REAL factor = (REAL)scale;
    GATHER(uint8_t, (REAL)from[j] * factor)
}
#undef GATHER
#undef GATHER_AHEAD
