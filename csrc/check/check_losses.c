/* check_losses.c: the losses against their formulas in long double, their gradients against the
 * formulas and against central differences; weights, labels, special rows, narrow and wide rows. */
#include "check.h"

#include <math.h>
#include <string.h>

enum { M = 37, PAD = 2 };

static const ptrdiff_t widths[] = {1, 2, 3, 4, 5, 7, 8, 9, 10, 15, 16, 17, 31, 33, 64, 67, 1000};
enum { WIDTHS = sizeof widths / sizeof widths[0] };

typedef struct {
    ptrdiff_t n, ld;
    void *z, *t, *w, *grad;
    int64_t labels[M];
    double loss[M + 1], scale, delta;
} problem;

static problem make(const fnn_kernels *k, ptrdiff_t n, double size) {
    problem p = {.n = n, .ld = n + PAD, .scale = 1.0 / M, .delta = 0.75};
    p.z = check_alloc(k, M * p.ld), p.t = check_alloc(k, M * p.ld);
    p.grad = check_alloc(k, M * p.ld), p.w = check_alloc(k, M);
    for (ptrdiff_t i = 0; i < M * p.ld; i++) {
        check_set(k, p.z, i, check_uniform() * size);
        check_set(k, p.t, i, i % 3 ? (check_uniform() + 1) / 2 : i % 2);
        check_set(k, p.grad, i, 7);
    }
    for (ptrdiff_t i = 0; i < M; i++) {
        check_set(k, p.w, i, 1 + check_uniform());
        p.labels[i] = (check_integer((int)n - 1) + n - 1) / 2;
    }
    p.loss[M] = 7;
    return p;
}

/* log sum e^z of row i. */
static long double log_sum_exp(const fnn_kernels *k, const problem *p, ptrdiff_t i) {
    long double top = -INFINITY, sum = 0;
    for (ptrdiff_t j = 0; j < p->n; j++) top = fmaxl(top, check_get(k, p->z, i * p->ld + j));
    for (ptrdiff_t j = 0; j < p->n; j++) sum += expl(check_get(k, p->z, i * p->ld + j) - top);
    return logl(sum) + top;
}

static void check_cross_entropy(const fnn_kernels *k, ptrdiff_t n, double size, int weighted) {
    problem p = make(k, n, size);
    const void *w = weighted ? p.w : NULL;
    k->cross_entropy(M, n, p.z, p.ld, p.labels, w, p.scale, p.grad, p.ld, p.loss);
    const double eps = check_eps(k), bound = eps * (4 + size + (double)n / 16);
    double worst = 0, worst_slope = 0;
    for (ptrdiff_t i = 0; i < M; i++) {
        const double wi = weighted ? check_get(k, p.w, i) : 1;
        const long double all = log_sum_exp(k, &p, i);
        const long double loss = all - check_get(k, p.z, i * p.ld + p.labels[i]);
        worst = check_worst(worst, (double)fabsl(p.loss[i] - wi * loss));
        for (ptrdiff_t j = 0; j < n; j++) {
            const double slope = check_get(k, p.grad, i * p.ld + j) / p.scale;
            const double zj = check_get(k, p.z, i * p.ld + j);
            const long double want = expl(zj - all) - (j == p.labels[i]);
            worst_slope = check_worst(worst_slope, (double)fabsl(slope - wi * want));
        }
        for (ptrdiff_t j = n; j < p.ld; j++)
            check_that(check_get(k, p.grad, i * p.ld + j) == 7,
                       "cross_entropy wrote into the padding");
    }
    check_that(worst <= 2 * bound, "cross_entropy, n %td: off by %g", n, worst);
    check_that(worst_slope <= bound, "cross_entropy gradient, n %td: off by %g", n, worst_slope);
    check_that(p.loss[M] == 7, "cross_entropy wrote past its losses");

    /* without a gradient, row by row, and in place: the same bits */
    double alone[M];
    k->cross_entropy(M, n, p.z, p.ld, p.labels, w, p.scale, NULL, 0, alone);
    check_that(!memcmp(alone, p.loss, sizeof alone), "cross_entropy, n %td: loss without gradient",
               n);
    for (ptrdiff_t i = 0; i < M; i++) {
        char *zi = (char *)p.z + i * p.ld * k->itemsize;
        const char *gi = (char *)p.grad + i * p.ld * k->itemsize;
        const char *wi = weighted ? (const char *)p.w + i * k->itemsize : NULL;
        k->cross_entropy(1, n, zi, p.ld, p.labels + i, wi, p.scale, zi, p.ld, alone);
        check_that(alone[0] == p.loss[i] && !memcmp(zi, gi, (size_t)(n * k->itemsize)),
                   "cross_entropy, n %td: row %td alone, in place, has other bits", n, i);
    }
}

/* A NaN stays in its row, -infinity is a class without weight, large logits do not overflow. */
static void check_cross_entropy_special(const fnn_kernels *k, ptrdiff_t n) {
    problem p = make(k, n, 1);
    const double big = k->dtype == FNN_F32 ? 1e30 : 1e300;
    check_set(k, p.z, 2 * p.ld + n - 1, NAN);
    check_set(k, p.z, 4 * p.ld + n - 1, -INFINITY);
    p.labels[4] = 0;
    for (ptrdiff_t j = 0; j < n; j++) check_set(k, p.z, 6 * p.ld + j, j ? -big : big);
    p.labels[6] = 0;
    k->cross_entropy(M, n, p.z, p.ld, p.labels, NULL, p.scale, p.grad, p.ld, p.loss);
    for (ptrdiff_t i = 0; i < M; i++)
        check_that(isnan(p.loss[i]) == (i == 2), "cross_entropy, n %td: row %td gives %g", n, i,
                   p.loss[i]);
    for (ptrdiff_t j = 0; j < n; j++)
        check_that(isnan(check_get(k, p.grad, 2 * p.ld + j)), "cross_entropy: no NaN at %td", j);
    check_that(check_get(k, p.grad, 4 * p.ld + n - 1) == 0, "cross_entropy: gradient at -infinity");
    check_that(p.loss[6] == 0, "cross_entropy of a certain answer: %g", p.loss[6]);
}

static long double reference(fnn_loss kind, long double delta, long double z, long double t,
                             long double *slope) {
    const long double d = z - t, a = fabsl(d), e = expl(-fabsl(z));
    switch (kind) {
    case FNN_MSE: *slope = 2 * d; return d * d;
    case FNN_MAE: *slope = d > 0 ? 1 : d < 0 ? -1 : 0; return a;
    case FNN_HUBER:
        *slope = a <= delta ? d : copysignl(delta, d);
        return a <= delta ? d * d / 2 : delta * (a - delta / 2);
    default:
        *slope = (z < 0 ? e : 1) / (1 + e) - t;
        return (z > 0 ? z : 0) - z * t + log1pl(e);
    }
}

static const char *const names[] = {"mse", "mae", "huber", "bce"};

static void check_elementwise(const fnn_kernels *k, fnn_loss kind, ptrdiff_t n, int weighted) {
    problem p = make(k, n, 4);
    const void *w = weighted ? p.w : NULL;
    check_set(k, p.z, 0, check_get(k, p.t, 0)); /* d = 0 */
    k->elementwise_loss(kind, p.delta, M, n, p.z, p.ld, p.t, p.ld, w, p.scale, p.grad, p.ld,
                        p.loss);
    const double eps = check_eps(k);
    double worst = 0, worst_slope = 0;
    for (ptrdiff_t i = 0; i < M; i++) {
        const double wi = weighted ? check_get(k, p.w, i) : 1;
        long double sum = 0, size = 0;
        for (ptrdiff_t j = 0; j < n; j++) {
            const double z = check_get(k, p.z, i * p.ld + j), t = check_get(k, p.t, i * p.ld + j);
            long double slope, l = reference(kind, p.delta, z, t, &slope);
            sum += l;
            size += l + fabsl(z * t);
            slope = check_get(k, p.grad, i * p.ld + j) / p.scale - wi * slope;
            worst_slope = check_worst(worst_slope, (double)fabsl(slope));
        }
        worst = check_worst(worst, (double)(fabsl(p.loss[i] - wi * sum) / (wi * size + 1e-300L)));
        for (ptrdiff_t j = n; j < p.ld; j++)
            check_that(check_get(k, p.grad, i * p.ld + j) == 7, "%s wrote into the padding",
                       names[kind]);
    }
    check_that(worst <= 3 * eps + (double)n * 0x1p-54, "%s, n %td: relative error %g", names[kind],
               n, worst);
    check_that(worst_slope <= 32 * eps, "%s gradient, n %td: off by %g", names[kind], n,
               worst_slope);
    check_that(p.loss[M] == 7, "%s wrote past its losses", names[kind]);

    double alone[M];
    k->elementwise_loss(kind, p.delta, M, n, p.z, p.ld, p.t, p.ld, w, p.scale, NULL, 0, alone);
    check_that(!memcmp(alone, p.loss, sizeof alone), "%s, n %td: loss without gradient",
               names[kind], n);
    k->elementwise_loss(kind, p.delta, M, n, p.z, p.ld, p.t, p.ld, w, p.scale, p.z, p.ld, alone);
    for (ptrdiff_t i = 0; i < M; i++)
        check_that(alone[i] == p.loss[i] && !memcmp((char *)p.z + i * p.ld * k->itemsize,
                                                    (char *)p.grad + i * p.ld * k->itemsize,
                                                    (size_t)(n * k->itemsize)),
                   "%s, n %td: in place, row %td has other bits", names[kind], n, i);
}

/* The slope of the loss that the kernel itself computes. */
static void check_differences(const fnn_kernels *k, int kind) {
    enum { N = 6 };
    problem p = make(k, N, 2);
    const char *name = kind < 0 ? "cross_entropy" : names[kind];
    const double eps = check_eps(k), h = exp2(rint(log2(cbrt(eps))));
    for (ptrdiff_t i = 0; i < M * p.ld; i++) { /* on a grid of h, away from the kinks */
        check_set(k, p.z, i, rint(check_get(k, p.z, i) / h) * h);
        if (fabs(check_get(k, p.z, i) - check_get(k, p.t, i)) < 3 * h) check_set(k, p.z, i, 1.5);
    }
    for (int j = 0; j < N; j++) {
        double loss[3][M];
        for (int side = 2; side >= 0; side--) {
            for (ptrdiff_t i = 0; i < M; i++) { /* z + h, then z, then z - h */
                const double z = check_get(k, p.z, i * p.ld + j);
                check_set(k, p.z, i * p.ld + j, side == 2 ? z + h : z - h);
            }
            if (kind < 0)
                k->cross_entropy(M, N, p.z, p.ld, p.labels, NULL, 1, p.grad, p.ld, loss[side]);
            else
                k->elementwise_loss((fnn_loss)kind, p.delta, M, N, p.z, p.ld, p.t, p.ld, NULL, 1,
                                    p.grad,
                                    p.ld, loss[side]);
            if (side == 1)
                for (ptrdiff_t i = 0; i < M; i++) p.loss[i] = check_get(k, p.grad, i * p.ld + j);
        }
        for (ptrdiff_t i = 0; i < M; i++) {
            const double quotient = (loss[2][i] - loss[0][i]) / (2 * h);
            check_that(fabs(quotient - p.loss[i]) <= 64 * eps / h + h * h,
                       "%s: central difference %g, gradient %g", name, quotient, p.loss[i]);
            check_set(k, p.z, i * p.ld + j, check_get(k, p.z, i * p.ld + j) + h);
        }
    }
}

int check_losses(const fnn_kernels *k) {
    for (int i = 0; i < WIDTHS; i++)
        for (int weighted = 0; weighted < 2; weighted++) {
            check_cross_entropy(k, widths[i], 3, weighted);
            check_cross_entropy(k, widths[i], 80, weighted);
            for (int kind = FNN_MSE; kind <= FNN_BCE; kind++)
                check_elementwise(k, (fnn_loss)kind, widths[i], weighted);
        }
    for (int i = 1; i < WIDTHS; i++) check_cross_entropy_special(k, widths[i]);
    for (int kind = -1; kind <= FNN_BCE; kind++) check_differences(k, kind);
    return check_failures();
}
