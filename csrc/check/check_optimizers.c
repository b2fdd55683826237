/* check_optimizers.c: some steps of each optimizer against fastnn.h's formulas in float64, with
 * every combination of its options; sizes around the vector; bits that do not depend on position.
 * */
#include "check.h"

#include <math.h>
#include <string.h>

enum { STEPS = 4, MOST = 160 };

typedef struct {
    void *w, *g, *a, *b;              /* parameters, gradients, state; the kernel's */
    double w64[MOST], g64[MOST], a64[MOST], b64[MOST];
} state;

static state make(const fnn_kernels *k, ptrdiff_t n) {
    state s = {.w = check_alloc(k, n + 1), .g = check_alloc(k, n + 1), .a = check_alloc(k, n + 1),
               .b = check_alloc(k, n + 1)};
    for (ptrdiff_t i = 0; i <= n; i++) check_set(k, s.w, i, check_uniform());
    for (ptrdiff_t i = 0; i < n; i++) s.w64[i] = check_get(k, s.w, i);
    void *const guarded[] = {s.w, s.a, s.b};
    for (int i = 0; i < 3; i++) check_set(k, guarded[i], n, 7);
    return s;
}

static void next_gradients(const fnn_kernels *k, state *s, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) {
        check_set(k, s->g, i, i % 5 ? check_uniform() * exp2(check_integer(8)) : 0);
        s->g64[i] = check_get(k, s->g, i);
    }
}

/* Parameters and state follow the reference within a few roundings each step. */
static void compare(const fnn_kernels *k, const state *s, ptrdiff_t n, const char *what) {
    const double eps = check_eps(k);
    for (ptrdiff_t i = 0; i < n; i++) {
        const double w = check_get(k, s->w, i), a = check_get(k, s->a, i), b = check_get(k, s->b,
                                                                                         i);
        check_that(fabs(w - s->w64[i]) <= 16 * eps * (1 + fabs(s->w64[i])),
                   "%s: w is %.17g, expected %.17g", what, w, s->w64[i]);
        check_that(fabs(a - s->a64[i]) <= 64 * eps * (1 + fabs(s->a64[i])),
                   "%s: first state %.17g, expected %.17g", what, a, s->a64[i]);
        check_that(fabs(b - s->b64[i]) <= 64 * eps * (1 + fabs(s->b64[i])),
                   "%s: second state %.17g, expected %.17g", what, b, s->b64[i]);
    }
    check_that(check_get(k, s->w, n) == 7 && check_get(k, s->a, n) == 7 && check_get(k, s->b,
                                                                                     n) == 7,
               "%s: wrote past %td elements", what, n);
}

static void check_sgd(const fnn_kernels *k, ptrdiff_t n, double momentum, int nesterov,
                      double decay) {
    const double lr = 0.01;
    state s = make(k, n);
    if (momentum != 0)
        for (ptrdiff_t i = 0; i < n; i++) check_set(k, s.a, i, NAN); /* unread */
    for (int step = 0; step < STEPS; step++) {
        next_gradients(k, &s, n);
        k->sgd(n, s.w, s.g, momentum != 0 ? s.a : NULL, lr, momentum, nesterov, step == 0, decay);
        for (ptrdiff_t i = 0; i < n; i++) {
            const double g = s.g64[i] + decay * s.w64[i];
            double update = g;
            if (momentum != 0) {
                s.a64[i] = step == 0 ? g : momentum * s.a64[i] + g;
                update = nesterov ? g + momentum * s.a64[i] : s.a64[i];
            }
            s.w64[i] -= lr * update;
        }
        compare(k, &s, n, nesterov ? "sgd, nesterov" : momentum != 0 ? "sgd, momentum" : "sgd");
    }
}

static void check_adam(const fnn_kernels *k, ptrdiff_t n, double decay, int decoupled) {
    const double lr = 0.01, beta1 = 0.9, beta2 = 0.99, eps = 1e-4;
    state s = make(k, n);
    for (int step = 1; step <= STEPS; step++) {
        const double bias1 = 1 - pow(beta1, step), bias2 = 1 - pow(beta2, step);
        next_gradients(k, &s, n);
        k->adam(n, s.w, s.g, s.a, s.b, lr, beta1, beta2, eps, decay, decoupled, bias1, bias2);
        for (ptrdiff_t i = 0; i < n; i++) {
            const double g = s.g64[i] + (decoupled ? 0 : decay * s.w64[i]);
            if (decoupled) s.w64[i] -= lr * decay * s.w64[i];
            s.a64[i] = beta1 * s.a64[i] + (1 - beta1) * g;
            s.b64[i] = beta2 * s.b64[i] + (1 - beta2) * g * g;
            s.w64[i] -= lr / bias1 * s.a64[i] / (sqrt(s.b64[i]) / sqrt(bias2) + eps);
        }
        compare(k, &s, n, decoupled ? "adam, decoupled" : "adam");
    }
}

static void check_rmsprop(const fnn_kernels *k, ptrdiff_t n, double momentum, double decay) {
    const double lr = 0.01, alpha = 0.9, eps = 1e-4;
    state s = make(k, n);
    for (int step = 0; step < STEPS; step++) {
        next_gradients(k, &s, n);
        k->rmsprop(n, s.w, s.g, s.a, momentum != 0 ? s.b : NULL, lr, alpha, eps, momentum, decay);
        for (ptrdiff_t i = 0; i < n; i++) {
            const double g = s.g64[i] + decay * s.w64[i];
            s.a64[i] = alpha * s.a64[i] + (1 - alpha) * g * g;
            const double u = g / (sqrt(s.a64[i]) + eps);
            if (momentum != 0) s.b64[i] = momentum * s.b64[i] + u;
            s.w64[i] -= lr * (momentum != 0 ? s.b64[i] : u);
        }
        compare(k, &s, n, momentum != 0 ? "rmsprop, momentum" : "rmsprop");
    }
}

/* One call over everything and one call per element give the same bits. */
static void check_positions(const fnn_kernels *k) {
    enum { N = 117 };
    const size_t item = (size_t)k->itemsize;
    char *p[2][4];
    for (int copy = 0; copy < 2; copy++)
        for (int j = 0; j < 4; j++) p[copy][j] = check_alloc(k, N);
    for (int j = 0; j < 4; j++) {
        for (int i = 0; i < N; i++) check_set(k, p[0][j], i,
                                              j == 3 ? 1 + check_uniform() : check_uniform());
        memcpy(p[1][j], p[0][j], N * item);
    }
    for (int kind = 0; kind < 3; kind++) {
        for (int copy = 0; copy < 2; copy++)
            for (size_t i = 0; i < (copy ? N : 1); i++) {
                void *w = p[copy][0] + i * item, *g = p[copy][1] + i * item;
                void *a = p[copy][2] + i * item, *b = p[copy][3] + i * item;
                const ptrdiff_t n = copy ? 1 : N;
                if (kind == 0) k->sgd(n, w, g, a, 0.1, 0.9, 1, 0, 0.01);
                if (kind == 1) k->adam(n, w, g, a, b, 0.1, 0.9, 0.999, 1e-8, 0.01, 1, 0.1, 0.001);
                if (kind == 2) k->rmsprop(n, w, g, b, a, 0.1, 0.9, 1e-8, 0.5, 0.01);
            }
        for (int j = 0; j < 4; j++)
            check_that(!memcmp(p[0][j], p[1][j], N * item),
                       "optimizer %d: bits depend on position", kind);
    }
}

/* What an update makes of a number: see fastnn.h. */
static double flushed(const fnn_kernels *k, double x) {
#ifdef __SSE2__
    if (fabs(x) < (k->dtype == FNN_F32 ? 0x1p-126 : 0x1p-1022)) return copysign(0, x);
#endif
    (void)k;
    return x;
}

/* State that shrinks ends at 0, and the caller's arithmetic is as it was. */
static void check_fading(const fnn_kernels *k) {
    enum { N = 117 };
    const double least = k->dtype == FNN_F32 ? 0x1p-126 : 0x1p-1022;
    void *const w = check_alloc(k, N), *const g = check_alloc(k, N);
    void *const a = check_alloc(k, N), *const b = check_alloc(k, N);
    for (int kind = 0; kind < 3; kind++) {
        for (int i = 0; i < N; i++) {
            check_set(k, w, i, 1 + i);
            check_set(k, g, i, 0);
            check_set(k, a, i, least);
            check_set(k, b, i, least);
        }
        if (kind == 0) k->sgd(N, w, g, a, 0.1, 0.75, 0, 0, 0);
        if (kind == 1) k->adam(N, w, g, a, b, 0.1, 0.75, 0.75, 1e-8, 0, 0, 1, 1);
        if (kind == 2) k->rmsprop(N, w, g, b, a, 0.1, 0.75, 1e-8, 0.75, 0);
        for (int i = 0; i < N; i++) {
            const double state = check_get(k, a, i), other = kind ? check_get(k, b, i) : flushed(k, 0.75 * least);
            check_that(state == flushed(k, 0.75 * least), "optimizer %d: %g is left of its state", kind, state);
            check_that(other == flushed(k, 0.75 * least), "optimizer %d: %g is left of its state", kind, other);
            check_that(check_get(k, w, i) == 1 + i, "optimizer %d: such a state moves w", kind);
        }
        for (int i = 0; i < N; i++) {
            check_set(k, a, i, 0);
            check_set(k, b, i, 0);
        }
        if (kind == 1) k->adam(N, w, g, a, b, 0.1, 0.75, 0.75, least / 8, 0, 0, 1, 1);
        if (kind == 2) k->rmsprop(N, w, g, b, a, 0.1, 0.75, least / 8, 0.75, 0);
        for (int i = 0; i < N; i++)
            check_that(check_get(k, w, i) == 1 + i, "optimizer %d: a tiny eps counts as 0", kind);
        volatile float tiny = 0x1p-126f;
        check_that(tiny * 0.5f > 0, "optimizer %d: subnormal numbers are lost after it", kind);
    }
}

/* Updates divide as C does, also by what has no reciprocal and no remainder: rmsprop with rates that leave
 * w = 0 - g / (sqrt(b^2) + 0). AVX-512 rounds alike but for one in billions (isa_avx512.c). */
static void check_division(const fnn_kernels *k) {
    static const double special[] = {0, -0.0, 1, -3, 1e-30, -1e30, 0x1p126, 0x1p-126, 0x1p-140, INFINITY, NAN};
    enum { S = sizeof special / sizeof special[0], N = S * S + 1000 };
    void *w = check_alloc(k, N), *g = check_alloc(k, N), *s = check_alloc(k, N);
    double expected[N];
    for (int i = 0; i < N; i++) {
        double a = check_uniform(), b = fabs(check_uniform());
        if (i < S * S) {
            a = special[i % S], b = fabs(special[i / S]);
            if (fabs(a) > 1e15) a = 7; /* g^2, which goes into s with factor 0, must be finite */
            if (k->dtype == FNN_F32 && (b < 0x1p-60 || b > 0x1p60)) b = b > 1 ? INFINITY : 0; /* so must b^2 */
        }
        check_set(k, g, i, a);
        check_set(k, w, i, b);
        a = flushed(k, check_get(k, g, i)), b = check_get(k, w, i);
        check_set(k, s, i, b * b);
        check_set(k, w, i, 0);
        expected[i] = k->dtype == FNN_F32 ? (float)a / sqrtf((float)check_get(k, s, i)) : a / sqrt(b * b);
        expected[i] = flushed(k, expected[i]);
    }
    k->rmsprop(N, w, g, s, NULL, 1, 1, 0, 0, 0);
    for (int i = 0; i < N; i++) {
        const double got = -check_get(k, w, i), e = expected[i];
        check_that(got == e || (got != got && e != e), "division %d: %.17g, expected %.17g", i, got, e);
    }
}

int check_optimizers(const fnn_kernels *k) {
    const ptrdiff_t v = k->lanes, sizes[] = {0, 1, v - 1, v, v + 1, 2 * v, 4 * v + 3, 6 * v + 3, 8 * v + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const ptrdiff_t n = sizes[i];
        for (int decay = 0; decay < 2; decay++) {
            check_sgd(k, n, 0, 0, 0.1 * decay);
            check_sgd(k, n, 0.9, 0, 0.1 * decay);
            check_sgd(k, n, 0.9, 1, 0.1 * decay);
            check_adam(k, n, 0.1 * decay, 0);
            check_adam(k, n, 0.1 * decay, 1);
            check_rmsprop(k, n, 0, 0.1 * decay);
            check_rmsprop(k, n, 0.9, 0.1 * decay);
        }
    }
    check_positions(k);
    check_fading(k);
    check_division(k);
    return check_failures();
}
