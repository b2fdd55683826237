/* check_pointwise.c: activations and derivatives against long double references, over their whole
 * range, in units of the last place (ulp); special values; sizes around the vector; bits that do
 * not depend on position, size or alignment. */
#include "check.h"

#include <math.h>
#include <string.h>

#define ROOT_HALF 0.707106781186547524400844362104849039L

/* Phi(-a) and phi(a), a >= 0. a^2 / 2 to more than a long double, since both amplify its error. */
static long double square_rest(long double a, long double y) {
    const long double p = a * a, q = y * y;
    return p / 2 - q + (fmal(a, a, -p) / 2 - fmal(y, y, -q));
}
static long double upper_tail(long double a) {
    const long double y = a * ROOT_HALF;
    return erfcl(y) / 2 * expl(-square_rest(a, y));
}
static long double cdf(long double x) { return x < 0 ? upper_tail(-x) : 1 - upper_tail(x); }
static long double density(long double x) {
    const long double y = x * ROOT_HALF, p = y * y;
    return 0.398942280401432677939946059934381868L * expl(-p) *
           expl(-square_rest(x, y) - fmal(y, y, -p));
}
static long double logistic(long double x) {
    return x < 0 ? expl(x) / (1 + expl(x)) : 1 / (1 + expl(-x));
}
static long double logistic_slope(long double x) {
    const long double e = expl(-fabsl(x));
    return e / ((1 + e) * (1 + e));
}

/* f(x), f'(x), and in *scale the size of the terms that f' adds up: its error is relative to that.
 * */
static long double value_of(fnn_act f, long double slope, long double x) {
    switch (f) {
    case FNN_LEAKY_RELU: return x > 0 ? x : slope * x;
    case FNN_RELU: return x < 0 ? 0 : x;
    case FNN_TANH: return tanhl(x);
    case FNN_SIGMOID: return logistic(x);
    case FNN_GELU: return x * cdf(x);
    case FNN_SILU: return x * logistic(x);
    default: return x;
    }
}
static long double slope_of(fnn_act f, long double slope, long double x, long double *scale) {
    long double a, b = 0;
    switch (f) {
    case FNN_LEAKY_RELU: a = x > 0 ? 1 : slope; break;
    case FNN_RELU: a = x > 0; break;
    case FNN_TANH: a = 4 * logistic_slope(2 * x); break;
    case FNN_SIGMOID: a = logistic_slope(x); break;
    case FNN_GELU: a = cdf(x), b = x * density(x); break;
    case FNN_SILU: a = logistic(x), b = x * logistic_slope(x); break;
    default: a = 1;
    }
    *scale = fabsl(a) + fabsl(b);
    return a + b;
}

/* Tolerances in ulp, and the x beyond which a function has reached its limits, for each dtype. */
static const struct {
    const char *name;
    double value_ulp, slope_ulp, limit[FNN_DTYPES];
} acts[FNN_ACTS] = {
    [FNN_IDENTITY] = {"identity", 0, 0, {100, 100}},
    [FNN_LEAKY_RELU] = {"leaky_relu", 0.5, 0.5, {100, 100}},
    [FNN_RELU] = {"relu", 0, 0, {100, 100}},
    [FNN_TANH] = {"tanh", 2.6, 4.2, {52, 373}},
    [FNN_SIGMOID] = {"sigmoid", 2.4, 4.2, {104, 746}},
    [FNN_GELU] = {"gelu", 4.5, 5, {14.5, 38.7}},
    [FNN_SILU] = {"silu", 3, 5, {104, 746}},
};

static double least(const fnn_kernels *k) { return k->dtype == FNN_F32 ? 0x1p-149 : 0x1p-1074; }

static double ulp_of(const fnn_kernels *k, long double r) {
    int exponent;
    if (r == 0) return least(k);
    frexpl(r, &exponent);
    const double ulp = ldexp(check_eps(k), exponent - 1);
    return ulp < least(k) ? least(k) : ulp;
}

/* Random x of either sign: uniform up to the limit, uniform near 0, and over many powers of two. */
static double random_x(int i, double limit) {
    const double u = check_uniform();
    if (i % 3 == 0) return u * limit;
    if (i % 3 == 1) return u * 6;
    return copysign(4 * exp2(-30 * fabs(u)), check_uniform());
}

/* SiLU of large negative x multiplies by an e^x that may be subnormal: |x| steps of the least. */
static void check_accuracy(const fnn_kernels *k, fnn_act f, double slope) {
    enum { N = 3000 };
    void *x = check_alloc(k, N), *y = check_alloc(k, N), *d = check_alloc(k, N);
    for (int i = 0; i < N; i++) check_set(k, x, i, random_x(i, acts[f].limit[k->dtype]));
    k->act(f, slope, N, x, y);
    k->act_derivative(f, slope, N, x, d);
    const double a = k->dtype == FNN_F32 ? (float)slope : slope;
    double worst[2] = {0, 0}, where[2] = {0, 0};
    for (int i = 0; i < N; i++) {
        const double xi = check_get(k, x, i), steps = (f == FNN_SILU ? 1 + fabs(xi) : 2) * least(k);
        long double scale, r = value_of(f, a, xi), s = slope_of(f, a, xi, &scale);
        const double got[2] = {check_get(k, y, i), check_get(k, d, i)};
        const long double want[2] = {r, s}, size[2] = {r, scale};
        for (int j = 0; j < 2; j++) {
            const double off = (double)fabsl(got[j] - want[j]);
            const int subnormal = off <= steps && fabsl(size[j]) < steps / check_eps(k);
            const double error = subnormal ? 0 : off / ulp_of(k, size[j]);
            if (!(error <= worst[j]) && worst[j] == worst[j]) worst[j] = error, where[j] = xi;
        }
    }
    check_that(worst[0] <= acts[f].value_ulp, "%s: %.2f ulp at %a", acts[f].name, worst[0],
               where[0]);
    check_that(worst[1] <= acts[f].slope_ulp, "%s': %.2f ulp at %a", acts[f].name, worst[1],
               where[1]);
}

/* f' is the slope of f as computed, away from a kink. */
static void check_central_differences(const fnn_kernels *k, fnn_act f, double slope) {
    enum { N = 400 };
    const double eps = check_eps(k), h = exp2(rint(log2(cbrt(eps))));
    void *x = check_alloc(k, 3 * N), *y = check_alloc(k, 3 * N), *d = check_alloc(k, 3 * N);
    for (int i = 0; i < N; i++) {
        double xi = rint(check_uniform() * 5 / h) * h;
        if (fabs(xi) < 2 * h) xi = 2 * h;
        for (int j = 0; j < 3; j++) check_set(k, x, 3 * i + j, xi + (j - 1) * h);
    }
    k->act(f, slope, 3 * N, x, y);
    k->act_derivative(f, slope, 3 * N, x, d);
    double worst = 0;
    for (int i = 0; i < 3 * N; i += 3) {
        const double quotient = (check_get(k, y, i + 2) - check_get(k, y, i)) / (2 * h);
        worst = check_worst(worst, fabs(quotient - check_get(k, d, i + 1)));
    }
    check_that(worst <= 8 * eps / h + h * h, "%s: central differences off by %g", acts[f].name,
               worst);
}

/* gx = gy f'(s): against the derivative kernel, s being x or y as fastnn.h says. */
static void check_gradient(const fnn_kernels *k, fnn_act f, double slope) {
    enum { N = 300 };
    void *x = check_alloc(k, N), *y = check_alloc(k, N), *d = check_alloc(k, N);
    void *gy = check_alloc(k, N), *gx = check_alloc(k, N);
    for (int i = 0; i < N; i++) {
        check_set(k, x, i, check_uniform() * 8);
        check_set(k, gy, i, check_uniform());
    }
    k->act(f, slope, N, x, y);
    k->act_derivative(f, slope, N, x, d);
    const int from_x = f == FNN_GELU || f == FNN_SILU || (f == FNN_LEAKY_RELU && slope < 0);
    k->act_grad(f, slope, N, from_x ? x : y, gy, gx);
    double worst = 0;
    for (int i = 0; i < N; i++)
        worst = check_worst(worst,
                            fabs(check_get(k, gx, i) - check_get(k, gy, i) * check_get(k, d, i)));
    check_that(worst <= 4 * check_eps(k) * fmax(1, fabs(slope)), "%s: gradient off by %g",
               acts[f].name, worst);
}

static int same(double a, double b) {
    return (isnan(a) && isnan(b)) || (a == b && signbit(a) == signbit(b));
}

static void check_special(const fnn_kernels *k) {
    enum { N = 70 };
    static const struct {
        fnn_act f;
        double x, y, slope; /* f(x) and f'(x), with a negative slope of 0.25 */
    } cases[] = {
        {FNN_IDENTITY, -0.0, -0.0, 1},          {FNN_IDENTITY, NAN, NAN, 1},
        {FNN_LEAKY_RELU, 0.0, 0.0, 0.25},       {FNN_LEAKY_RELU, -0.0, -0.0, 0.25},
        {FNN_LEAKY_RELU, NAN, NAN, 0.25},       {FNN_LEAKY_RELU, INFINITY, INFINITY, 1},
        {FNN_LEAKY_RELU, -INFINITY, -INFINITY, 0.25},
        {FNN_RELU, 0.0, 0.0, 0},                {FNN_RELU, -0.0, -0.0, 0},
        {FNN_RELU, NAN, NAN, 0},                {FNN_RELU, INFINITY, INFINITY, 1},
        {FNN_RELU, -INFINITY, 0.0, 0},          {FNN_RELU, -1, 0.0, 0},
        {FNN_TANH, 0.0, 0.0, 1},                {FNN_TANH, -0.0, -0.0, 1},
        {FNN_TANH, NAN, NAN, NAN},              {FNN_TANH, INFINITY, 1, 0},
        {FNN_TANH, -INFINITY, -1, 0},           {FNN_TANH, -1e30, -1, 0},
        {FNN_TANH, 0x1p-126, 0x1p-126, 1},      {FNN_TANH, 0x1p-149, 0x1p-149, 1},
        {FNN_SIGMOID, 0.0, 0.5, 0.25},          {FNN_SIGMOID, -0.0, 0.5, 0.25},
        {FNN_SIGMOID, NAN, NAN, NAN},           {FNN_SIGMOID, INFINITY, 1, 0},
        {FNN_SIGMOID, -INFINITY, 0.0, 0},       {FNN_SIGMOID, -1e30, 0.0, 0},
        {FNN_GELU, 0.0, 0.0, 0.5},              {FNN_GELU, -0.0, -0.0, 0.5},
        {FNN_GELU, NAN, NAN, NAN},              {FNN_GELU, INFINITY, INFINITY, 1},
        {FNN_GELU, -INFINITY, 0.0, 0},          {FNN_GELU, 1e30, 1e30, 1},
        {FNN_SILU, 0.0, 0.0, 0.5},              {FNN_SILU, -0.0, -0.0, 0.5},
        {FNN_SILU, NAN, NAN, NAN},              {FNN_SILU, INFINITY, INFINITY, 1},
        {FNN_SILU, -INFINITY, -0.0, 0},         {FNN_SILU, 1e30, 1e30, 1},
    };
    void *x = check_alloc(k, N), *y = check_alloc(k, N), *d = check_alloc(k, N);
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        const fnn_act f = cases[c].f;
        for (int i = 0; i < N; i++) check_set(k, x, i, cases[c].x);
        k->act(f, 0.25, N, x, y);
        k->act_derivative(f, 0.25, N, x, d);
        for (int i = 0; i < N; i++) {
            const double want = k->dtype == FNN_F32 ? (float)cases[c].y : cases[c].y;
            const double got = check_get(k, y, i), slope = check_get(k, d, i);
            check_that(same(got, want), "%s(%g) = %g", acts[f].name, cases[c].x, got);
            check_that(fabs(slope) == cases[c].slope || same(slope, cases[c].slope), "%s'(%g) = %g",
                       acts[f].name, cases[c].x, slope);
        }
    }
    const double zeros[] = {0.0, -0.0, -3}, upstream[] = {INFINITY, NAN, -INFINITY, 1};
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 4; j++) {
            check_set(k, x, 0, zeros[i]);
            check_set(k, y, 0, upstream[j]);
            k->act_grad(FNN_RELU, 0, 1, x, y, d);
            check_that(check_get(k, d, 0) == 0, "relu gradient of %g at %g", upstream[j], zeros[i]);
        }
}

static int same_bits(const fnn_kernels *k, const char *a, const char *b, ptrdiff_t n) {
    int all = 1;
    for (ptrdiff_t i = 0; i < n; i++) all &= same(check_get(k, a, i), check_get(k, b, i));
    return all;
}

/* Any part of an array, anywhere, in place or not, gives the bits that the whole gives, and nothing
 * else is written. */
static void check_positions(const fnn_kernels *k, fnn_act f) {
    const ptrdiff_t v = k->lanes;
    const ptrdiff_t sizes[] = {0, 1, v - 1, v, v + 1, 2 * v, 4 * v + 3, 9 * v + 1, 12 * v};
    const ptrdiff_t whole = 14 * v, item = k->itemsize;
    char *x = check_alloc(k, whole), *gy = check_alloc(k, whole), *out = check_alloc(k, whole);
    char *want[3];
    for (int i = 0; i < 3; i++) want[i] = check_alloc(k, whole);
    for (ptrdiff_t i = 0; i < whole; i++) {
        check_set(k, x, i, i % 7 == 3 ? (i % 2 ? -0.0 : NAN) : check_uniform() * 5);
        check_set(k, gy, i, check_uniform());
    }
    for (ptrdiff_t i = 0; i < whole; i++) { /* one at a time */
        k->act(f, 0.1, 1, x + i * item, want[0] + i * item);
        k->act_derivative(f, 0.1, 1, x + i * item, want[1] + i * item);
        k->act_grad(f, 0.1, 1, x + i * item, gy + i * item, want[2] + i * item);
    }
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (ptrdiff_t from = 0; from < 3; from++)
            for (int mode = 0; mode < 7; mode++) {
                const ptrdiff_t n = sizes[s], to = mode < 3 ? (from + 1) % 3 : from;
                char *source = x + from * item, *dest = out + to * item, *g = gy + from * item;
                memset(out, 0x5a, (size_t)(whole * item));
                if (mode >= 3) memcpy(dest, mode == 5 ? g : source, (size_t)(n * item));
                switch (mode) {
                case 0: k->act(f, 0.1, n, source, dest); break;
                case 1: k->act_derivative(f, 0.1, n, source, dest); break;
                case 2: k->act_grad(f, 0.1, n, source, g, dest); break;
                case 3: k->act(f, 0.1, n, dest, dest); break;
                case 4: k->act_derivative(f, 0.1, n, dest, dest); break;
                case 5: k->act_grad(f, 0.1, n, source, dest, dest); break;
                default: k->act_grad(f, 0.1, n, dest, g, dest);
                }
                const char *expected = want[mode < 3 ? mode : mode < 5 ? mode - 3 : 2];
                check_that(same_bits(k, dest, expected + from * item, n),
                           "%s: mode %d, %td elements from %td", acts[f].name, mode, n, from);
                int untouched = 1;
                for (ptrdiff_t b = 0; b < whole * item; b++)
                    if (b < to * item || b >= (to + n) * item) untouched &= out[b] == 0x5a;
                check_that(untouched, "%s: wrote outside, mode %d, n %td", acts[f].name, mode, n);
            }
}

/* Past 16 MiB the output is streamed: the same bits, also at an odd address, and nothing beyond. */
static void check_streamed(const fnn_kernels *k) {
    const ptrdiff_t n = ((16 << 20) + 100) / k->itemsize, part = 1000;
    char *x = check_alloc(k, n), *y = check_alloc(k, n + 2), *want = check_alloc(k, n);
    for (ptrdiff_t i = 0; i < n; i++) check_set(k, x, i, (double)(i % 1001 - 500));
    for (ptrdiff_t i = 0; i < n; i += part)
        k->act(FNN_LEAKY_RELU, 0.01, n - i < part ? n - i : part, x + i * k->itemsize,
               want + i * k->itemsize);
    check_set(k, y, n + 1, 7);
    k->act(FNN_LEAKY_RELU, 0.01, n, x, y + k->itemsize);
    check_that(!memcmp(y + k->itemsize, want, (size_t)(n * k->itemsize)),
               "streamed output differs");
    check_that(check_get(k, y, 0) == 0 && check_get(k, y, n + 1) == 7, "streaming wrote outside");
}

int check_pointwise(const fnn_kernels *k) {
    static const double slopes[] = {0.01, 0, 1, -0.5, 3};
    for (int f = 0; f < FNN_ACTS; f++) {
        for (int s = 0; s < (f == FNN_LEAKY_RELU ? 5 : 1); s++) {
            check_accuracy(k, (fnn_act)f, slopes[s]);
            check_central_differences(k, (fnn_act)f, slopes[s]);
            if (f != FNN_LEAKY_RELU || slopes[s] != 0) check_gradient(k, (fnn_act)f, slopes[s]);
        }
        check_positions(k, (fnn_act)f);
    }
    check_special(k);
    check_streamed(k);
    return check_failures();
}
