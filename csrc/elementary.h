/* elementary.h: e^x for x <= 0, log, log1p, tanh, sigmoid and the normal distribution, on vectors.
 *
 * Each is a reduction, one Horner loop and a reconstruction, without a branch, so a lane's result
 * depends on that lane alone; NaN goes through everywhere. The coefficients are own minimax fits:
 * Remez exchange at 50 digits, rounded to the dtype (float32: then improved by a search over the
 * neighbouring floats), highest power first; the error stated is the rounded polynomial's, relative
 * to the function. Errors in units of the last place (ulp) are those check/ finds and asserts. */
#undef NUM
#undef MANTISSA_BITS
#undef EXPONENT_BIAS
#if F32
#define NUM(f32, f64) f32##f
#define MANTISSA_BITS 23
#define EXPONENT_BIAS 127
#else
#define NUM(f32, f64) f64
#define MANTISSA_BITS 52
#define EXPONENT_BIAS 1023
#endif
#ifndef HORNER
#define HORNER(table, x) FN(horner)(table, (int)(sizeof(table) / sizeof((table)[0])), x)
#endif

INLINE vec FN(horner)(const REAL *c, int n, vec x) {
    vec p = vset1(c[0]);
    UNROLL for (int i = 1; i < n; i++) p = vfma(p, x, vset1(c[i]));
    return p;
}

/* (e^r - 1 - r) / r^2 on |r| <= 0.35, weighted for e^r - 1: errors 2^-26.0 and 2^-55.0. */
static const REAL FN(exp_table)[] = {
#if F32
    0x1.6beb48p-10f, 0x1.122d72p-7f, 0x1.5556c4p-5f, 0x1.5554aap-3f, 0x1.fffffep-2f,
#else
    0x1.ae6bc650682a6p-26, 0x1.28a5a07e6f16cp-22, 0x1.71de8b2944c9fp-19, 0x1.a019a3d1d4db2p-16,
    0x1.a01a017275d7ap-13, 0x1.6c16c17fff1a9p-10, 0x1.1111111119a09p-7,  0x1.5555555551e97p-5,
    0x1.5555555555537p-3,  0x1.0000000000005p-1,
#endif
};

/* (2 atanh(s) - 2 s) / s^3 in z = s^2 on [0, 0.0297], weighted for 2 atanh(s): 2^-30.1 and 2^-59.1.
 * */
static const REAL FN(log_table)[] = {
#if F32
    0x1.320614p-2f, 0x1.995d50p-2f, 0x1.55557cp-1f,
#else
    0x1.2f572698523fbp-3, 0x1.3999f6bc02b1fp-3, 0x1.7466884dd2e65p-3, 0x1.c71c50b673e89p-3,
    0x1.2492494379883p-2, 0x1.999999997e3ddp-2, 0x1.5555555555597p-1,
#endif
};

/* (a + k) e^(a^2 / 2) Q(a), Q the upper tail of the normal distribution, in t = (a - k) / (a + k);
 * k = 4, a <= 14.5: 2^-25.5; k = 5.5, a <= 39: 2^-55.2. The factor (a + k) makes a function that
 * varies only from 0.45 to 2 out of one that falls like 1 / a. */
static const REAL FN(tail_table)[] = {
#if F32
    -0x1.14c720p-13f, 0x1.7821bcp-13f, 0x1.9b72bep-10f, -0x1.cc6456p-9f, -0x1.ed268cp-8f,
    0x1.eed408p-5f,   -0x1.7dfffap-3f, 0x1.8c6d9cp-2f,  -0x1.373e3ap-1f, 0x1.82b4bcp-1f,
#else
    -0x1.62984dbaff561p-29, -0x1.847665537b564p-28, 0x1.8a1a364035fcbp-26,  0x1.afa7a91ded1f4p-25,
    -0x1.7d620c9482a5ap-23, -0x1.1f859705790cep-22, 0x1.8e5276de1f28fp-20,  0x1.df447dc7dda9bp-22,
    -0x1.96a48d6eb45d0p-17, 0x1.11cdc7306842fp-16,  0x1.2b891cc4ec1a6p-14,  -0x1.544962c15d3a9p-12,
    0x1.1ab345ddc9147p-12,  0x1.4034e561d1201p-9,   -0x1.c83edf4336b30p-7,  0x1.71707b5751f1bp-5,
    -0x1.c15806fa4912fp-4,  0x1.be33e6ee995f1p-3,   -0x1.77dbb5cdda96cp-2,  0x1.1239b3f8c06dap-1,
    -0x1.5ed05c7e41a2ep-1,  0x1.8c2b8893b5c8dp-1,
#endif
};

/* ln 2 in two pieces: n times the first is exact for every exponent n, with or without an fma. */
#define LN2_HIGH NUM(0x1.62e4p-1, 0x1.62e42fefa38p-1)
#define LN2_LOW NUM(0x1.7f7d1cp-20, 0x1.ef35793c7673p-45)
#define LOG2_E NUM(0x1.715476p+0, 0x1.71547652b82fep+0)
/* Added to a number and taken away again, it leaves the nearest integer. */
#define ROUNDER NUM(0x1.8p23, 0x1.8p52)

/* e^r - 1 for x - low = n ln 2 + r; n is whole, |r| <= ln(2) / 2. */
INLINE vec FN(exp_reduced)(vec x, vec low, vec *n) {
    *n = vfma(x - low, vset1(LOG2_E), vset1(ROUNDER)) -
         vset1(ROUNDER);
    vec r = vfma(*n, vset1(-LN2_HIGH), x);
    r = vfma(*n, vset1(-LN2_LOW), r) - low;
    return vfma(r * r, HORNER(FN(exp_table), r), r);
}

/* e^x for x <= 0, all that is needed here, within 1 ulp; subnormal results are rounded once, and
 * the clamp is where e^x has become 0. */
INLINE vec FN(exp_negative)(vec x) {
    vec n, u = FN(exp_reduced)(vmax(vset1(NUM(-105.0, -747.0)), x), (vec){0}, &n);
    return vscale(u + vset1(1), n);
}

/* log(1 + f) + n ln 2 for 1 + f in [1/sqrt 2, sqrt 2]. With s = f / (2 + f), log(1 + f) = f - (h -
 * s (h + R)), h = f^2 / 2, R = 2 atanh(s) / s - 2: f enters with its own bits. */
INLINE vec FN(log_reduced)(vec f, vec n) {
    const vec s = f / (f + vset1(2)), z = s * s, h = f * f * vset1(0.5f);
    const vec R = z * HORNER(FN(log_table), z);
    const vec small = vfma(s, h + R, n * vset1(LN2_LOW));
    return vfma(n, vset1(LN2_HIGH), f - (h - small));
}

/* log x for normal x > 0, within 1 ulp; infinity gives infinity. */
INLINE vec FN(log)(vec x) {
    const UINT one = (UINT)EXPONENT_BIAS << MANTISSA_BITS;
    const UINT root_half = F32 ? 0x3f3504f3 : (UINT)0x3fe6a09e667f3bcd; /* bits of 1 / sqrt 2 */
    const vuint e = ((vuint)x + (one - root_half)) >> MANTISSA_BITS; /* exponent + bias */
    /* e under the bits of 2^MANTISSA_BITS is that power plus e: a conversion without an
     * instruction. */
    const vec power = vset1(NUM(0x1p23, 0x1p52));
    const vec n = (vec)(e | (vuint)power) - (power + vset1(EXPONENT_BIAS));
    const vec m = (vec)((vuint)x - (e << MANTISSA_BITS) + one);
    return vsel(vlt(x, vset1((REAL)__builtin_inf())), FN(log_reduced)(m - vset1(1), n), x);
}

/* log(1 + t) for t in [0, 1], within 1.5 ulp: t itself is the f of log_reduced, or (t - 1) / 2. A t whose
 * square does not count is kept from being squared: CPUs take a hundred cycles over an underflow. */
INLINE vec FN(log1p)(vec t) {
    const vmask big = vgt(t, vset1(NUM(0.41421356, 0.41421356237309503)));
    const vmask least = vlt(t, vset1(NUM(0x1p-26, 0x1p-55)));
    const vec f = vsel(big, (t - vset1(1)) * vset1(0.5f), vsel(least, (vec){0}, t));
    return vsel(least, t, FN(log_reduced)(f, vsel(big, vset1(1), (vec){0})));
}

/* tanh x = w / (2 - w), w = 1 - e^(-2 |x|) without cancellation: within 2.5 ulp everywhere, exact at
 * +-0 and from where it rounds to +-1. Errors of e^(-2 |x|) count for less the smaller it is, so one
 * piece of ln 2 does. */
INLINE vec FN(tanh)(vec x) {
    const vec y = vmax(vset1(-40), vabs(x) * vset1(-2));
    const vec t = vfma(y, vset1(LOG2_E), vset1(ROUNDER)), n = t - vset1(ROUNDER);
    const vec r = vfma(n, vset1(-NUM(0x1.62e43p-1, 0x1.62e42fefa39efp-1)), y);
    const vec u = vfma(r * r, HORNER(FN(exp_table), r), r); /* e^r - 1 */
    const vuint one = (vuint)vset1(1);
    const vec p = (vec)(((vuint)t << MANTISSA_BITS) + one); /* 2^n */
    const vec w = vfma(-p, u, vset1(1) - p);
    return vneg_if(w / (vset1(2) - w), x);
}

/* 1 / (1 + e^-x) from e = e^-|x|: both tails keep their relative accuracy. Within 2.3 ulp. */
INLINE vec FN(sigmoid)(vec x) {
    const vec e = FN(exp_negative)(-vabs(x));
    return vsel(vlt(x, (vec){0}), e, vset1(1)) / (e + vset1(1));
}

/* The normal distribution at a >= 0: its upper tail Q(a) = erfc(a / sqrt 2) / 2, returned, and its
 * density, both still to be scaled by 2^n, so that a caller's factor comes in before any underflow;
 * `a` is held where a times the density has become 0. Relative accuracy in the tail needs a^2 to
 * more digits than a REAL has: half of a's bits are squared exactly, the rest comes in as `low`. 4
 * ulp. */
INLINE vec FN(normal_tail)(vec *a, vec *density, vec *n) {
    const vec end = vset1(NUM(15.0, 39.0)), k = vset1(NUM(4.0, 5.5)), half = vset1(0.5f);
    const vec x = *a = vsel(vgt(*a, end), end, *a);
    const vec high = (vec)((vuint)x & ~(((UINT)1 << (MANTISSA_BITS + 3) / 2) - 1));
    const vec low = (x - high) * (x + high) * half;
    const vec e = FN(exp_reduced)(high * high * -half, low, n) + vset1(1);
    const vec d = vset1(1) / (x + k);
    const vec t = vfma(x + x, d, vset1(-1)); /* (x - k) / (x + k), and without error at 0 */
    *density = e * vset1(NUM(0.3989422804, 0.3989422804014326779));
    return e * (HORNER(FN(tail_table), t) * d);
}
