/* pointwise.h: the activations and their derivatives, elementwise. FN(act_vec) and FN(act_grad_vec)
 * also serve the epilogue of gemm.h. Everywhere f is a constant after inlining, so each loop holds
 * one activation; an element's result never depends on where it lies, as full vectors and masked
 * ones run the same arithmetic. (A NaN stays one; its sign and payload are nobody's promise.) */

INLINE vec FN(act_vec)(fnn_act f, vec slope, vec x) {
    const vec zero = {0}, one = vset1(1);
    switch (f) {
    case FNN_LEAKY_RELU: return vsel(vgt(x, zero), x, slope * x);
    case FNN_RELU: return vsel(vlt(x, zero), zero, x);
    case FNN_TANH: return FN(tanh)(x);
    case FNN_SIGMOID: return FN(sigmoid)(x);
    case FNN_GELU: { /* x Phi(x) = max(x, 0) - |x| Q(|x|): no cancellation on either side */
        vec a = vabs(x), density, n;
        const vec q = FN(normal_tail)(&a, &density, &n);
        return vsel(vlt(x, zero), zero, x) - vscale(a * q, n);
    }
    case FNN_SILU: { /* the limit at -infinity is 0: x is held where e^x has become 0 */
        const vec e = FN(exp_negative)(-vabs(x));
        return vmax(vset1(NUM(-105.0, -747.0)), x) * (vsel(vlt(x, zero), e, one) / (e + one));
    }
    default: return x;
    }
}

/* f'(x). */
INLINE vec FN(act_derivative_vec)(fnn_act f, vec slope, vec x) {
    const vec zero = {0}, one = vset1(1);
    switch (f) {
    case FNN_LEAKY_RELU: return vsel(vgt(x, zero), one, slope);
    case FNN_RELU: return vsel(vgt(x, zero), one, zero);
    case FNN_TANH: { /* 1 - tanh^2 = 4 e / (1 + e)^2, e = e^(-2 |x|) */
        const vec e = FN(exp_negative)(vabs(x) * vset1(-2));
        return vset1(4) * e / ((e + one) * (e + one));
    }
    case FNN_SIGMOID: {
        const vec e = FN(exp_negative)(-vabs(x));
        return e / ((e + one) * (e + one));
    }
    case FNN_GELU: { /* Phi(x) + x phi(x), Phi(x) = Q(-x) = 1 - Q(x) */
        vec a = vabs(x), density, n;
        const vec q = FN(normal_tail)(&a, &density, &n);
        const vec rest = vfma(a, density, -q);
        const vmask left = vlt(x, zero);
        return vsel(left, zero, one) + vscale(vsel(left, -rest, rest), n);
    }
    case FNN_SILU: { /* s + x s (1 - s), s (1 - s) = e / (1 + e)^2 */
        const vec far = vset1(NUM(105.0, 747.0)), a = vabs(x);
        const vec e = FN(exp_negative)(-a), r = one / (e + one);
        const vec held = vneg_if(vsel(vlt(a, far), a, far), x);
        return vfma(held, e * r * r, vsel(vlt(x, zero), e, one) * r);
    }
    default: return one;
    }
}

/* gy * f'(s), with s = f(x) or x as fnn_act says. */
INLINE vec FN(act_grad_vec)(fnn_act f, vec slope, vec s, vec gy) {
    const vec zero = {0}, one = vset1(1);
    switch (f) {
    case FNN_LEAKY_RELU: return vsel(vgt(s, zero), gy, slope * gy);
    case FNN_RELU: return vsel(vgt(s, zero), gy, zero);
    case FNN_TANH: return gy * ((one - s) * (one + s));
    case FNN_SIGMOID: return gy * (s * (one - s));
    case FNN_GELU:
    case FNN_SILU: return gy * FN(act_derivative_vec)(f, slope, s);
    default: return gy;
    }
}

/* Which of the three functions above a loop applies; a constant, as f is. Outputs of STREAM_BYTES
 * and more would leave the last-level cache before anyone reads them: streamed past it, they spare
 * the reading of the lines that they overwrite (1.3 times the speed of plain stores from 16 MiB
 * on). What comes STREAM_AHEAD bytes later is fetched then, also beyond the page, where the hardware stops. */
#ifndef STREAM_BYTES
#define STREAM_BYTES (16 << 20)
#define STREAM_AHEAD 2048
enum { ACT_VALUE, ACT_DERIVATIVE, ACT_GRAD };
#endif

INLINE vec FN(act_one)(int what, fnn_act f, vec slope, vec x, vec gy) {
    return what == ACT_VALUE        ? FN(act_vec)(f, slope, x)
           : what == ACT_DERIVATIVE ? FN(act_derivative_vec)(f, slope, x)
                                    : FN(act_grad_vec)(f, slope, x, gy);
}

/* `gy` is read only for ACT_GRAD; elsewhere pass x. The first, masked vector reaches up to an
 * aligned address of y: stores that straddle cache lines would halve the speed. */
INLINE void FN(act_loop)(int what, fnn_act f, double slope, ptrdiff_t n, const REAL *x,
                         const REAL *gy, REAL *y) {
    enum { BLOCK = 2 };
    const vec a = vset1((REAL)slope);
    const int stream = n >= (ptrdiff_t)(STREAM_BYTES / sizeof(REAL)) && y != x && y != gy;
    ptrdiff_t i = 0;
    if (n > 2 * BLOCK * VL) {
        i = (ptrdiff_t)(-(uintptr_t)y % VEC_BYTES / sizeof(REAL));
        const vtail t = vtail_make(i);
        vstore_t(y, FN(act_one)(what, f, a, vload_t(x, t), vload_t(gy, t)), t);
    }
    for (; i + BLOCK * VL <= n; i += BLOCK * VL) {
        vec v[BLOCK];
        UNROLL for (int u = 0; u < BLOCK; u++)
            v[u] = FN(act_one)(what, f, a, vload(x + i + u * VL), vload(gy + i + u * VL));
        if (stream)
            UNROLL for (int u = 0; u < BLOCK; u++) {
                vstream(y + i + u * VL, v[u]);
                if (u * VEC_BYTES % 64) continue;
                __builtin_prefetch((const char *)(x + i + u * VL) + STREAM_AHEAD, 0, 2);
                if (what == ACT_GRAD) __builtin_prefetch((const char *)(gy + i + u * VL) + STREAM_AHEAD, 0, 2);
            }
        else
            UNROLL for (int u = 0; u < BLOCK; u++) vstore(y + i + u * VL, v[u]);
    }
    if (stream) vstream_end();
    for (; i + VL <= n; i += VL)
        vstore(y + i, FN(act_one)(what, f, a, vload(x + i), vload(gy + i)));
    if (i < n) {
        const vtail t = vtail_make(n - i);
        vstore_t(y + i, FN(act_one)(what, f, a, vload_t(x + i, t), vload_t(gy + i, t)), t);
    }
}

INLINE void FN(act_any)(int what, fnn_act f, double slope, ptrdiff_t n, const REAL *x,
                        const REAL *gy, REAL *y) {
    switch (f) {
    case FNN_LEAKY_RELU: FN(act_loop)(what, FNN_LEAKY_RELU, slope, n, x, gy, y); break;
    case FNN_RELU: FN(act_loop)(what, FNN_RELU, slope, n, x, gy, y); break;
    case FNN_TANH: FN(act_loop)(what, FNN_TANH, slope, n, x, gy, y); break;
    case FNN_SIGMOID: FN(act_loop)(what, FNN_SIGMOID, slope, n, x, gy, y); break;
    case FNN_GELU: FN(act_loop)(what, FNN_GELU, slope, n, x, gy, y); break;
    case FNN_SILU: FN(act_loop)(what, FNN_SILU, slope, n, x, gy, y); break;
    default: FN(act_loop)(what, FNN_IDENTITY, slope, n, x, gy, y);
    }
}

static void FN(act)(fnn_act f, double slope, ptrdiff_t n, const void *x, void *y) {
    FN(act_any)(ACT_VALUE, f, slope, n, x, x, y);
}

static void FN(act_derivative)(fnn_act f, double slope, ptrdiff_t n, const void *x, void *d) {
    FN(act_any)(ACT_DERIVATIVE, f, slope, n, x, x, d);
}

static void FN(act_grad)(fnn_act f, double slope, ptrdiff_t n, const void *s, const void *gy,
                         void *gx) {
    FN(act_any)(ACT_GRAD, f, slope, n, s, gy, gx);
}
