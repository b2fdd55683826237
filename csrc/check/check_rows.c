/* check_rows.c: softmax and its gradient against long double references, argmax against a plain
 * loop with NumPy's rules, marks of positive columns, sums of columns, gathering; sizes around the
 * vector, leading dimensions, special rows. */
#include "check.h"

#include <math.h>
#include <string.h>

enum { ROWS = 5, PAD = 3 };

/* Every width from 0 to past four vectors, then two long ones. */
static ptrdiff_t width(const fnn_kernels *k, int step) {
    const ptrdiff_t last = 4 * k->lanes + 4;
    return step <= last ? step : step == last + 1 ? 1000 : step == last + 2 ? 4099 : -1;
}

static void fill(const fnn_kernels *k, void *x, ptrdiff_t n, double size) {
    for (ptrdiff_t i = 0; i < n; i++) check_set(k, x, i, check_uniform() * size);
}

/* The padding between rows still holds `value`. */
static int padding_kept(const fnn_kernels *k, const void *x, ptrdiff_t n, ptrdiff_t ld,
                        double value) {
    int kept = 1;
    for (ptrdiff_t i = 0; i < ROWS; i++)
        for (ptrdiff_t j = n; j < ld; j++) kept &= check_get(k, x, i * ld + j) == value;
    return kept;
}

static void *at(const fnn_kernels *k, void *x, ptrdiff_t i) { return (char *)x + i * k->itemsize; }

static void check_softmax(const fnn_kernels *k, ptrdiff_t n, double size) {
    const ptrdiff_t ld = n + PAD, all = ROWS * ld;
    void *x = check_alloc(k, all), *y = check_alloc(k, all), *one = check_alloc(k, all);
    fill(k, x, all, size);
    for (ptrdiff_t i = 0; i < all; i++) check_set(k, y, i, 7);
    k->softmax(ROWS, n, x, ld, y, ld);
    /* e^x amplifies no error, as x - max is exact or rounded once: size eps; sums add about n / 8.
     * */
    const double bound = check_eps(k) * (4 + size + (double)n / 8);
    double worst = 0;
    for (ptrdiff_t i = 0; i < ROWS; i++) {
        long double top = -INFINITY, sum = 0;
        for (ptrdiff_t j = 0; j < n; j++) top = fmaxl(top, check_get(k, x, i * ld + j));
        for (ptrdiff_t j = 0; j < n; j++) sum += expl(check_get(k, x, i * ld + j) - top);
        for (ptrdiff_t j = 0; j < n; j++) {
            const long double want = expl(check_get(k, x, i * ld + j) - top) / sum;
            worst = check_worst(worst, (double)fabsl(check_get(k, y, i * ld + j) / want - 1));
        }
    }
    check_that(worst <= bound, "softmax, n %td: relative error %g, allowed %g", n, worst, bound);
    check_that(padding_kept(k, y, n, ld, 7), "softmax, n %td: wrote into the padding", n);
    memcpy(one, x, (size_t)(all * k->itemsize));
    for (ptrdiff_t i = ROWS - 1; i >= 0; i--) /* alone, in place */
        k->softmax(1, n, at(k, one, i * ld), ld, at(k, one, i * ld), ld);
    for (ptrdiff_t i = 0; i < ROWS; i++)
        check_that(!memcmp(at(k, one, i * ld), at(k, y, i * ld), (size_t)(n * k->itemsize)),
                   "softmax, n %td: row %td alone has other bits", n, i);
}

static void check_softmax_grad(const fnn_kernels *k, ptrdiff_t n) {
    const ptrdiff_t ld = n + PAD, all = ROWS * ld;
    void *x = check_alloc(k, all), *y = check_alloc(k, all), *gy = check_alloc(k, all);
    void *gx = check_alloc(k, all);
    fill(k, x, all, 2);
    fill(k, gy, all, 1);
    k->softmax(ROWS, n, x, ld, y, ld);
    for (ptrdiff_t i = 0; i < all; i++) check_set(k, gx, i, 7);
    k->softmax_grad(ROWS, n, y, ld, gy, ld, gx, ld);
    double worst = 0;
    for (ptrdiff_t i = 0; i < ROWS; i++) {
        long double dot = 0;
        for (ptrdiff_t j = 0; j < n; j++)
            dot += (long double)check_get(k, y, i * ld + j) * check_get(k, gy, i * ld + j);
        for (ptrdiff_t j = 0; j < n; j++) {
            const double yi = check_get(k, y, i * ld + j);
            const long double want = yi * (check_get(k, gy, i * ld + j) - dot);
            worst = check_worst(worst, (double)fabsl(check_get(k, gx, i * ld + j) - want) / yi);
        }
    }
    const double bound = check_eps(k) * (4 + (double)n / 64);
    check_that(worst <= bound, "softmax_grad, n %td: error %g, allowed %g", n, worst, bound);
    check_that(padding_kept(k, gx, n, ld, 7), "softmax_grad, n %td: wrote into the padding", n);
    k->softmax_grad(ROWS, n, y, ld, gy, ld, gy, ld); /* in place of gy */
    for (ptrdiff_t i = 0; i < ROWS; i++)
        check_that(!memcmp(at(k, gx, i * ld), at(k, gy, i * ld), (size_t)(n * k->itemsize)),
                   "softmax_grad, n %td: in place, row %td has other bits", n, i);
}

/* Rows with a NaN or a positive infinity are NaN, those beside them are not; -infinity has weight
 * 0. */
static void check_softmax_special(const fnn_kernels *k, ptrdiff_t n) {
    void *x = check_alloc(k, 5 * n), *y = check_alloc(k, 5 * n);
    fill(k, x, 5 * n, 1);
    check_set(k, x, n + n / 2, NAN);
    check_set(k, x, 2 * n + n - 1, INFINITY);
    check_set(k, x, 3 * n + n - 1, -INFINITY);
    for (ptrdiff_t j = 0; j < n; j++) check_set(k, x, 4 * n + j, j ? -INFINITY : -1e30);
    k->softmax(5, n, x, n, y, n);
    for (ptrdiff_t i = 0; i < 5; i++) {
        double sum = 0;
        for (ptrdiff_t j = 0; j < n; j++) sum += check_get(k, y, i * n + j);
        if (i == 1 || i == 2)
            for (ptrdiff_t j = 0; j < n; j++)
                check_that(isnan(check_get(k, y, i * n + j)), "softmax, n %td: no NaN at %td", n,
                           j);
        else if (n > 1 || i != 3)
            check_that(fabs(sum - 1) <= check_eps(k) * (double)(n + 4),
                       "softmax, n %td: row %td sums to %g",
                       n, i, sum);
    }
    if (n > 1) check_that(check_get(k, y, 4 * n - 1) == 0, "softmax, n %td: weight of -infinity",
                          n);
    check_that(check_get(k, y, 4 * n) == 1, "softmax, n %td: one finite logit", n);
}

static int64_t plain_argmax(const fnn_kernels *k, const void *z, ptrdiff_t n) {
    int64_t best = 0;
    for (ptrdiff_t j = 0; j < n; j++) {
        const double value = check_get(k, z, j), top = check_get(k, z, best);
        if (isnan(top)) break;
        if (isnan(value) || value > top) best = j;
    }
    return best;
}

static void check_argmax(const fnn_kernels *k, ptrdiff_t n) {
    enum { KINDS = 6 };
    const ptrdiff_t ld = n + 1;
    void *z = check_alloc(k, KINDS * 8 * ld);
    int64_t out[KINDS * 8 + 1];
    for (ptrdiff_t i = 0; i < KINDS * 8; i++)
        for (ptrdiff_t j = 0; j < ld; j++) {
            const int kind = (int)(i / 8);
            double value = kind == 0 ? check_uniform() : check_integer(3); /* integers: ties */
            if (kind == 2 && check_integer(4) == 0) value = NAN;
            if (kind == 3) value = -INFINITY;
            if (kind == 4) value = check_integer(1) ? -0.0 : 0.0;
            if (kind == 5) value = check_integer(1) ? INFINITY : -INFINITY;
            check_set(k, z, i * ld + j, j == n ? 1e9 : value);
        }
    out[KINDS * 8] = -5;
    k->argmax(KINDS * 8, n, z, ld, out);
    for (ptrdiff_t i = 0; i < KINDS * 8; i++) {
        const int64_t want = plain_argmax(k, at(k, z, i * ld), n);
        check_that(out[i] == want, "argmax, n %td, row %td: %ld, expected %ld", n, i, (long)out[i],
                   (long)want);
    }
    check_that(out[KINDS * 8] == -5, "argmax wrote past its end");
}

/* Marks are set by what is above 0 alone, in two goes, and never taken back. */
static void check_mark_positive(const fnn_kernels *k, ptrdiff_t n) {
    static const double kinds[] = {-1, -0.0, 0.0, NAN, -INFINITY, 1e-30, INFINITY};
    const ptrdiff_t ld = n + PAD, rows = 3 * ROWS;
    void *x = check_alloc(k, rows * ld), *seen = check_alloc(k, ld);
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < ld; j++) {
            const int positive = j >= n || check_integer(12) == 12; /* 1 of 25 */
            check_set(k, x, i * ld + j, kinds[(check_integer(100) + 100) % 5]);
            if (positive) check_set(k, x, i * ld + j, kinds[5 + (i + j) % 2]);
        }
    for (ptrdiff_t j = 0; j < ld; j++) check_set(k, seen, j, j < n ? j % 5 == 0 : 7);
    k->mark_positive(rows - 4, n, x, ld, seen);
    k->mark_positive(4, n, at(k, x, (rows - 4) * ld), ld, seen);
    k->mark_positive(0, n, x, ld, seen);
    int right = 1;
    for (ptrdiff_t j = 0; j < n; j++) {
        double want = j % 5 == 0;
        for (ptrdiff_t i = 0; i < rows; i++)
            if (check_get(k, x, i * ld + j) > 0) want = 1;
        right &= check_get(k, seen, j) == want;
    }
    check_that(right, "mark_positive, n %td: wrong marks", n);
    for (ptrdiff_t j = n; j < ld; j++)
        check_that(check_get(k, seen, j) == 7, "mark_positive, n %td: wrote past its end", n);
}

static void check_gather(const fnn_kernels *k, ptrdiff_t n) {
    enum { SOURCES = 9, MOST = 90 };
    const ptrdiff_t lds = n + 2, ldd = n + PAD;
    static float f32[SOURCES * (MOST + 2)];
    static double f64[SOURCES * (MOST + 2)];
    static uint8_t u8[SOURCES * (MOST + 2)];
    static const int64_t index[ROWS] = {8, 0, 3, 3, 7};
    for (ptrdiff_t i = 0; i < SOURCES * lds; i++) {
        f32[i] = (float)check_uniform();
        f64[i] = check_uniform() * 1e3;
        u8[i] = (uint8_t)check_integer(1000);
    }
    void *dst = check_alloc(k, ROWS * ldd);
    for (int kind = 0; kind < 6; kind++) {
        const int64_t *rows = kind % 2 ? index : NULL;
        for (ptrdiff_t i = 0; i < ROWS * ldd; i++) check_set(k, dst, i, 7);
        if (kind < 2) k->gather_f32(ROWS, n, f32, lds, rows, dst, ldd);
        else if (kind < 4) k->gather_f64(ROWS, n, f64, lds, rows, dst, ldd);
        else k->gather_u8(ROWS, n, u8, lds, rows, 1.0 / 255, dst, ldd);
        int right = 1;
        for (ptrdiff_t i = 0; i < ROWS; i++)
            for (ptrdiff_t j = 0; j < n; j++) {
                const ptrdiff_t from = (rows ? rows[i] : i) * lds + j;
                const double byte = k->dtype == FNN_F32 ? (float)u8[from] * (float)(1.0 / 255)
                                                        : u8[from] * (1.0 / 255);
                const double value = kind < 2 ? f32[from] : kind < 4 ? f64[from] : byte;
                const double want = k->dtype == FNN_F32 ? (float)value : value;
                right &= check_get(k, dst, i * ldd + j) == want;
            }
        check_that(right, "gather kind %d, n %td: wrong elements", kind, n);
        check_that(padding_kept(k, dst, n, ldd, 7),
                   "gather kind %d, n %td: wrote into the padding", kind, n);
    }
}

/* In the order of the rows; nothing is read between rows nor written past the sums. */
static void check_column_sums(const fnn_kernels *k) {
    for (ptrdiff_t n = 0; n <= 70; n++)
        for (ptrdiff_t m = 0; m <= 40; m += 1 + m) {
            const ptrdiff_t ld = n + PAD;
            void *g = check_alloc(k, (m + 1) * ld), *sums = check_alloc(k, n + 1);
            for (ptrdiff_t i = 0; i < m * ld; i++) check_set(k, g, i, i % ld < n ? check_uniform() : NAN);
            check_set(k, sums, n, 7);
            k->column_sums(m, n, g, ld, sums);
            int right = check_get(k, sums, n) == 7;
            for (ptrdiff_t j = 0; j < n; j++) {
                double sum = 0;
                for (ptrdiff_t i = 0; i < m; i++) {
                    sum += check_get(k, g, i * ld + j);
                    if (k->dtype == FNN_F32) sum = (float)sum;
                }
                right &= check_get(k, sums, j) == sum;
            }
            check_that(right, "column_sums m=%td n=%td", m, n);
            check_free_all();
        }
}

int check_rows(const fnn_kernels *k) {
    check_column_sums(k);
    ptrdiff_t n;
    for (int step = 0; (n = width(k, step)) >= 0; step++) {
        check_softmax(k, n, 1);
        check_softmax(k, n, 30);
        check_softmax_grad(k, n);
        if (n > 0) {
            check_softmax_special(k, n);
            check_argmax(k, n);
        }
        check_mark_positive(k, n);
        if (n <= 90) check_gather(k, n);
    }
    return check_failures();
}
