/* optimizers.h: one update of n parameters w from their gradients g, elementwise, in one pass over
 * memory; the formulas are in fastnn.h. What is the same for all parameters is worked out in
 * float64 before the loop, and each step function serves whole vectors (`left` the constant VL), of Adam and RMSprop
 * `side` of them, and the last, masked one. Where gradients have become 0 the state shrinks until it is subnormal, and would stay
 * so: there it counts as 0. A weight decay of 0 costs SGD and RMSprop a fused multiply-add that memory
 * hides; Adam, which has the units for arithmetic busy, does without. */

enum { FN(SGD_PLAIN), FN(SGD_MOMENTUM), FN(SGD_NESTEROV) };

/* Vectors that take the steps of an update side by side: one after another, so much waits for a root and a division
 * that the window in which a CPU looks for work is full. With other vectors and in float64 it was not quicker. */
#define UPDATE_SIDE (F32 && VEC_BYTES == 64 ? 4 : 1)
#define EACH_SIDE UNROLL for (int h = 0; h < side; h++)

/* Where a call is for UPDATE_FAR bytes of each array or more, which lie in memory, what comes UPDATE_AHEAD bytes later
 * is fetched, also beyond the page, where the hardware stops. */
#define UPDATE_AHEAD 512
#define UPDATE_FAR (4 << 20)
#define UPDATE_FETCH(p) UNROLL for (int h = 0; h < UPDATE_SIDE; h++) \
    __builtin_prefetch((const char *)((p) + i + h * VL) + UPDATE_AHEAD)
INLINE int FN(update_far)(ptrdiff_t n) { return n >= (ptrdiff_t)(UPDATE_FAR / sizeof(REAL)); }

INLINE void FN(sgd_step)(int kind, int first, ptrdiff_t left, REAL *w, const REAL *g, REAL *v,
                         vec lr, vec momentum, vec weight_decay) {
    const vec old = FN(row_load)(w, left);
    vec step = vfma(weight_decay, old, FN(row_load)(g, left));
    if (kind != FN(SGD_PLAIN)) {
        vec velocity = step;
        if (!first) velocity = vfma(momentum, FN(row_load)(v, left), step);
        FN(row_store)(v, left, velocity);
        if (kind == FN(SGD_NESTEROV)) velocity = vfma(momentum, velocity, step);
        step = velocity;
    }
    FN(row_store)(w, left, vfma(-lr, step, old));
}

INLINE void FN(sgd_loop)(int kind, int first, ptrdiff_t n, REAL *w, const REAL *g, REAL *v,
                         double lr, double momentum, double weight_decay) {
    const vec l = vset1((REAL)lr), mu = vset1((REAL)momentum), decay = vset1((REAL)weight_decay);
    ptrdiff_t i = 0;
    for (; n - i >= VL; i += VL) FN(sgd_step)(kind, first, VL, w + i, g + i, v + i, l, mu, decay);
    if (i < n) FN(sgd_step)(kind, first, n - i, w + i, g + i, v + i, l, mu, decay);
}

static void FN(sgd)(ptrdiff_t n, void *w, const void *g, void *v, double lr, double momentum,
                    int nesterov, int first, double weight_decay) {
    const unsigned mode = vflush_begin();
    if (momentum == 0)
        FN(sgd_loop)(FN(SGD_PLAIN), 0, n, w, g, w, lr, momentum, weight_decay);
    else if (nesterov)
        FN(sgd_loop)(FN(SGD_NESTEROV), first, n, w, g, v, lr, momentum, weight_decay);
    else
        FN(sgd_loop)(FN(SGD_MOMENTUM), first, n, w, g, v, lr, momentum, weight_decay);
    vflush_end(mode);
}

/* An eps that is not 0 stays so: 0 / 0 would follow where a gradient is 0. */
INLINE vec FN(normal_eps)(double eps) {
    const REAL least = F32 ? (REAL)0x1p-126 : (REAL)0x1p-1022;
    return vset1(eps > 0 && (REAL)eps < least ? least : (REAL)eps);
}

typedef struct {
    vec beta1, rest1, beta2, rest2, step, root, eps, coupled, decoupled;
} FN(adam_constants);

INLINE void FN(adam_step)(int decays, const int side, const FN(adam_constants) *c, ptrdiff_t left, REAL *w,
                          const REAL *g, REAL *m, REAL *s) {
    vec old[UPDATE_SIDE], mv[UPDATE_SIDE], sv[UPDATE_SIDE], root[UPDATE_SIDE];
    EACH_SIDE {
        old[h] = FN(row_load)(w + h * VL, left);
        vec gv = FN(row_load)(g + h * VL, left);
        if (decays) gv = vfma(c->coupled, old[h], gv);
        sv[h] = vfma(c->beta2, FN(row_load)(s + h * VL, left), c->rest2 * (gv * gv));
        mv[h] = vfma(c->beta1, FN(row_load)(m + h * VL, left), c->rest1 * gv);
    }
    EACH_SIDE root[h] = vsqrt(sv[h]);
    EACH_SIDE FN(row_store)(m + h * VL, left, mv[h]);
    EACH_SIDE FN(row_store)(s + h * VL, left, sv[h]);
    EACH_SIDE mv[h] = c->step * mv[h];
    EACH_SIDE root[h] = vfma(root[h], c->root, c->eps);
    EACH_SIDE {
        const vec update = vdiv(mv[h], root[h]);
        if (decays) old[h] = vfma(c->decoupled, old[h], old[h]);
        FN(row_store)(w + h * VL, left, old[h] - update);
    }
}

INLINE void FN(adam_loop)(int decays, const FN(adam_constants) *c, ptrdiff_t n, REAL *w, const REAL *g,
                          REAL *m, REAL *s) {
    const int far = FN(update_far)(n);
    ptrdiff_t i = 0;
    for (; n - i >= UPDATE_SIDE * VL; i += UPDATE_SIDE * VL) {
        if (far) {
            UPDATE_FETCH(w);
            UPDATE_FETCH(g);
            UPDATE_FETCH(m);
            UPDATE_FETCH(s);
        }
        FN(adam_step)(decays, UPDATE_SIDE, c, VL, w + i, g + i, m + i, s + i);
    }
    for (; UPDATE_SIDE > 1 && n - i >= VL; i += VL) FN(adam_step)(decays, 1, c, VL, w + i, g + i, m + i, s + i);
    if (i < n) FN(adam_step)(decays, 1, c, n - i, w + i, g + i, m + i, s + i);
}

static void FN(adam)(ptrdiff_t n, void *w, const void *g, void *m, void *s, double lr, double beta1,
                     double beta2, double eps, double weight_decay, int decoupled, double bias1,
                     double bias2) {
    const FN(adam_constants) c = {
        .beta1 = vset1((REAL)beta1),
        .rest1 = vset1((REAL)(1 - beta1)),
        .beta2 = vset1((REAL)beta2),
        .rest2 = vset1((REAL)(1 - beta2)),
        .step = vset1((REAL)(lr / bias1)),
        .root = vset1((REAL)(1 / __builtin_sqrt(bias2))),
        .eps = FN(normal_eps)(eps),
        .coupled = vset1((REAL)(decoupled ? 0 : weight_decay)),
        .decoupled = vset1((REAL)(decoupled ? -lr * weight_decay : 0)),
    };
    const unsigned mode = vflush_begin();
    if (weight_decay == 0)
        FN(adam_loop)(0, &c, n, w, g, m, s);
    else
        FN(adam_loop)(1, &c, n, w, g, m, s);
    vflush_end(mode);
}

typedef struct {
    vec lr, alpha, rest, eps, momentum, weight_decay;
} FN(rmsprop_constants);

INLINE void FN(rmsprop_step)(int momentum, const int side, const FN(rmsprop_constants) *c, ptrdiff_t left,
                             REAL *w, const REAL *g, REAL *s, REAL *v) {
    vec old[UPDATE_SIDE], gv[UPDATE_SIDE], root[UPDATE_SIDE];
    EACH_SIDE {
        old[h] = FN(row_load)(w + h * VL, left);
        gv[h] = vfma(c->weight_decay, old[h], FN(row_load)(g + h * VL, left));
        root[h] = vfma(c->alpha, FN(row_load)(s + h * VL, left), c->rest * (gv[h] * gv[h]));
        FN(row_store)(s + h * VL, left, root[h]);
    }
    EACH_SIDE root[h] = vsqrt(root[h]);
    EACH_SIDE {
        vec update = vdiv(gv[h], root[h] + c->eps);
        if (momentum) {
            update = vfma(c->momentum, FN(row_load)(v + h * VL, left), update);
            FN(row_store)(v + h * VL, left, update);
        }
        FN(row_store)(w + h * VL, left, vfma(-c->lr, update, old[h]));
    }
}

INLINE void FN(rmsprop_loop)(int momentum, const FN(rmsprop_constants) *c, ptrdiff_t n, REAL *w,
                             const REAL *g, REAL *s, REAL *v) {
    const int far = FN(update_far)(n);
    ptrdiff_t i = 0;
    for (; n - i >= UPDATE_SIDE * VL; i += UPDATE_SIDE * VL) {
        if (far) {
            UPDATE_FETCH(w);
            UPDATE_FETCH(g);
            UPDATE_FETCH(s);
            if (momentum) UPDATE_FETCH(v);
        }
        FN(rmsprop_step)(momentum, UPDATE_SIDE, c, VL, w + i, g + i, s + i, v + i);
    }
    for (; UPDATE_SIDE > 1 && n - i >= VL; i += VL) FN(rmsprop_step)(momentum, 1, c, VL, w + i, g + i, s + i, v + i);
    if (i < n) FN(rmsprop_step)(momentum, 1, c, n - i, w + i, g + i, s + i, v + i);
}

static void FN(rmsprop)(ptrdiff_t n, void *w, const void *g, void *s, void *v, double lr,
                        double alpha, double eps, double momentum, double weight_decay) {
    const FN(rmsprop_constants) c = {
        .lr = vset1((REAL)lr),
        .alpha = vset1((REAL)alpha),
        .rest = vset1((REAL)(1 - alpha)),
        .eps = FN(normal_eps)(eps),
        .momentum = vset1((REAL)momentum),
        .weight_decay = vset1((REAL)weight_decay),
    };
    const unsigned mode = vflush_begin();
    if (momentum == 0)
        FN(rmsprop_loop)(0, &c, n, w, g, s, w);
    else
        FN(rmsprop_loop)(1, &c, n, w, g, s, v);
    vflush_end(mode);
}
