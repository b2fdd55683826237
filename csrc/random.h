/* random.h: uniforms, normals, raw bits and dropout from the streams of philox.h.
 *
 * Every value is a pure function of (seed, stream, element): the bits are the same on every
 * instruction set, for any chunking and any number of threads. So nothing here uses a fused
 * multiply-add or libm: only + - * / and sqrt, each correctly rounded, and integers.
 *
 * An element takes the words of one counter that fastnn.h assigns to it. float32: one word, 24 bits
 * of it for a uniform. float64: two words, 53 bits. Normals come in pairs (Box and Muller 1958): of
 * a counter's draws d0, d1, ... (32-bit words for float32, 64-bit ones for float64), the pair
 * (d0, d1) yields elements j = 0, 1 and (d2, d3) yields j = 2, 3, as
 *     r cos a, r sin a     r = sqrt(-2 ln u),  u = (d_even + 1/2) 2^-B,  a = 2 pi d_odd 2^-B
 * with B = 32 or 64. r is at most sqrt(2 (B + 1) ln 2) = 6.764 for float32, 9.493 for float64: the
 * largest normals that can come. u keeps small values to full precision, so the tail is true. A
 * normal is within 4 units in the last place of what these formulas give for u in the dtype. */
#include "philox.h"

#undef RNG_MANTISSA
#undef RNG_BIAS
#undef RNG_WORDS
#if F32
#define RNG_MANTISSA 23
#define RNG_BIAS 127
#define RNG_WORDS 4 /* draws of a counter */
#else
#define RNG_MANTISSA 52
#define RNG_BIAS 1023
#define RNG_WORDS 2
#endif
#define RNG_BITS ((int)(8 * sizeof(REAL)))
#define RNG_GROUP (RNG_WORDS * FNN_RNG_GROUP) /* elements of a group, of a block */
#define RNG_BLOCK (RNG_WORDS * PHILOX_BLOCK)
#define RNG_VECTORS (PHILOX_BLOCK / VL) /* vectors of counters in a block */
#define RNG_PAIRS 4 /* of draws whose normals are computed side by side */
#define RNG_POWER(n) ((REAL)((UINT)1 << (n)))

#if F32
enum { RNG_UNIT, RNG_NORMAL, RNG_TRUNCATED }; /* what a fill draws */
#endif

/* Minimax polynomials: the two leading coefficients rounded first, the rest fitted to them.
 * -2 ln((1 + s) / (1 - s)) = s (-4 + s^2 L(s^2)) for |s| <= (sqrt 2 - 1) / (sqrt 2 + 1),
 * sin(pi t / 2) = t S(t^2) and cos(pi t / 2) = 1 + t^2 C(t^2) for |t| <= 1/2.
 * Relative errors with these coefficients: below 2^-25 for float32, 2^-54 for float64. */
#if F32
static const float log_terms_f32[] = {-1.333335518836975f, -0.7995520234107971f,
                                      -0.5973988175392151f};
static const float sin_terms_f32[] = {1.5707963705062866f, -0.6459665894508362f,
                                      0.0797116756439209f, -0.004683306440711021f};
static const float cos_terms_f32[] = {-1.2337005138397217f, 0.25366851687431335f,
                                      -0.0208552535623312f, 0.0008935770019888878f};
#else
static const double log_terms_f64[] = {
    -1.3333333333333468, -0.7999999999883521, -0.5714285748331859, -0.44444397312206285,
    -0.3636711914619855, -0.306283682679662,  -0.29588970788997343};
static const double sin_terms_f64[] = {
    1.5707963267948966,     -0.6459640975062287,    0.07969262624531706, -0.00468175411991112,
    0.00016044105445378866, -3.598299524725215e-06, 5.5878985548766434e-08};
static const double cos_terms_f64[] = {
    -1.2337005501361697,    0.25366950790104154,    -0.02086348076317299, 0.0009192602724998466,
    -2.520202645176851e-05, 4.7102994421884283e-07, -6.284846355132747e-09};
#endif

/* The draws of a block of counters from `first` on, one per lane: 32-bit words for float32, for
 * float64 two words, low one first. */
INLINE void FN(draws)(const philox *p, uint64_t first, vuint d[]) {
#if F32
    philox_words32(p, first, (vu32(*)[4])d);
#else
    vu64 w[PHILOX_CHAINS][4];
    philox_words(p, 0, PHILOX_ROUNDS, first, w);
    UNROLL for (int i = 0; i < RNG_VECTORS; i++)
        UNROLL for (int j = 0; j < 2; j++)
            d[2 * i + j] = (w[i][2 * j] & 0xffffffffu) | w[i][2 * j + 1] << 32;
#endif
}

/* u in [0, 1) from the upper 24 or 53 bits of a draw, exact. */
INLINE vec FN(unit)(vuint d) {
#if F32
    return vreal((vint)(d >> 8)) * 0x1p-24f;
#else
    /* 2^20 + (upper word) 2^-32 and 1/2 + (the 21 bits below it) 2^-53, each a mantissa */
    const vec high = (vec)(d >> 32 | (vuint)vset1(0x1p20));
    const vec low = (vec)((d >> 11 & 0x1fffff) | (vuint)vset1(0.5));
    return (high - (0x1p20 + 0.5)) + low;
#endif
}

/* What follows is done for several pairs of draws step by step: one after another, so much waits for a division and
 * a root that the window in which a CPU looks for work is full. */
#define EACH_PAIR UNROLL for (int h = 0; h < RNG_PAIRS; h++)

#define RNG_POLYNOMIAL(z, terms, sum) FN(unfused)(z, FN(terms), sizeof FN(terms) / sizeof(REAL), sum)
INLINE void FN(unfused)(const vec z[], const REAL *terms, int n, vec sum[]) {
    EACH_PAIR sum[h] = vset1(terms[n - 1]);
    UNROLL for (int i = n - 2; i >= 0; i--) {
        EACH_PAIR sum[h] = sum[h] * z[h];
        EACH_PAIR sum[h] = sum[h] + vset1(terms[i]);
    }
}

/* k and s = (m - 1) / (m + 1) of d_even + 1/2 = 2^(k + B) m with sqrt 1/2 <= m < sqrt 2. */
INLINE void FN(log_parts)(const vuint d[], vec k[], vec s[]) {
    const vuint root_half = (vuint)vset1((REAL)0.70710678118654752440);
    const REAL one = RNG_POWER(RNG_MANTISSA);
    vuint shifted[RNG_PAIRS];
    EACH_PAIR shifted[h] = (vuint)(vreal_u(d[2 * h]) + (REAL)0.5) + ((vuint)vset1(1) - root_half);
    EACH_PAIR {
        const vec m = (vec)((shifted[h] & (((UINT)1 << RNG_MANTISSA) - 1)) + root_half);
        s[h] = (m - 1) / (m + 1);
    }
    EACH_PAIR k[h] = (vec)(shifted[h] >> RNG_MANTISSA | (vuint)vset1(one)) - (one + RNG_BIAS + RNG_BITS);
}

/* r = sqrt(-2 ln u), the logarithm as k (-2 ln 2) - 2 ln m. */
INLINE void FN(radius)(const vec k[], const vec s[], vec r[]) {
    vec z[RNG_PAIRS];
    EACH_PAIR z[h] = s[h] * s[h];
    RNG_POLYNOMIAL(z, log_terms, r);
    EACH_PAIR r[h] = s[h] * (z[h] * r[h] - 4);
    EACH_PAIR r[h] = vsqrt(k[h] * (REAL)-1.38629436111989061883 + r[h]);
}

/* cos and sin of 2 pi d_odd 2^-B: to the nearest quarter turn, then t in [-1/2, 1/2] quarter turns. */
INLINE void FN(cos_sin)(const vuint d[], vec c[], vec s[]) {
    const UINT turn_8 = (UINT)1 << (RNG_BITS - 3);
    vec t[RNG_PAIRS], z[RNG_PAIRS];
    EACH_PAIR t[h] = vreal((vint)(d[2 * h + 1] << 2)) * (1 / RNG_POWER(RNG_BITS - 1) / 2);
    EACH_PAIR z[h] = t[h] * t[h];
    RNG_POLYNOMIAL(z, sin_terms, s);
    EACH_PAIR s[h] = t[h] * s[h];
    RNG_POLYNOMIAL(z, cos_terms, c);
    EACH_PAIR c[h] = z[h] * c[h] + 1;
    EACH_PAIR {
        const vuint nearest = d[2 * h + 1] + turn_8; /* its two top bits: the quarter */
        vswap_if(nearest, 2 * turn_8, c + h, s + h);
        c[h] = vneg_if(c[h], (vec)(nearest + 2 * turn_8));
        s[h] = vneg_if(s[h], (vec)nearest);
    }
}

/* 2 * RNG_PAIRS vectors of normals from as many of draws; the angles while divisions are under way. */
INLINE void FN(normals)(const vuint d[], vec v[]) {
    vec k[RNG_PAIRS], m[RNG_PAIRS], r[RNG_PAIRS], c[RNG_PAIRS], s[RNG_PAIRS];
    FN(log_parts)(d, k, m);
    FN(cos_sin)(d, c, s);
    FN(radius)(k, m, r);
    EACH_PAIR {
        v[2 * h] = r[h] * c[h];
        v[2 * h + 1] = r[h] * s[h];
    }
}

typedef struct {
    REAL shift, scale, low, high;
} FN(range);

/* Where vector j of the draws of a block has its elements. */
INLINE REAL *FN(at)(REAL *out, ptrdiff_t j) {
    return out + philox_place((int)(j / RNG_WORDS * VL), RNG_GROUP) + FNN_RNG_GROUP * (j % RNG_WORDS);
}

/* One block, shift + scale * value, at out. */
INLINE void FN(unit_block)(const philox *p, uint64_t first, FN(range) r, REAL *out) {
    vuint d[RNG_BLOCK / VL];
    FN(draws)(p, first, d);
    UNROLL for (int j = 0; j < RNG_BLOCK / (int)VL; j++)
        vstore(FN(at)(out, j), vset1(r.shift) + FN(unit)(d[j]) * vset1(r.scale));
}

/* Once for both fills that begin with a normal. */
static __attribute__((noinline)) void FN(normal_block)(const philox *p, uint64_t first, FN(range) r, REAL *out) {
    vuint d[RNG_BLOCK / VL];
    _Static_assert(RNG_BLOCK % (2 * RNG_PAIRS * VEC_BYTES / sizeof(REAL)) == 0, "whole groups of pairs");
    FN(draws)(p, first, d);
    for (int j = 0; j < RNG_BLOCK / (int)VL; j += 2 * RNG_PAIRS) {
        vec v[2 * RNG_PAIRS];
        FN(normals)(d + j, v);
        UNROLL for (int h = 0; h < 2 * RNG_PAIRS; h++)
            vstore(FN(at)(out, j + h), vset1(r.shift) + v[h] * vset1(r.scale));
    }
}

INLINE vmask FN(inside)(vec v, FN(range) r) { return vand(vge(v, vset1(r.low)), vge(vset1(r.high), v)); }

INLINE int FN(all_inside)(const REAL *v, FN(range) r) {
    vec outside = {0};
    ROLLED for (int i = 0; i < RNG_BLOCK; i += (int)VL)
        outside += vsel(FN(inside)(vload(v + i), r), vset1(0), vset1(1));
    return !vany(vgt(outside, vset1(0)));
}

/* Each lane takes its first attempt that lies in [low, high]. After 2^16 attempts, which no caller
 * with a reasonable interval will see, it takes the nearest bound. */
static void FN(truncated_block)(const philox *p, uint64_t first, FN(range) r, REAL *out) {
    const FN(range) standard = {0, 1, 0, 0};
    REAL again[RNG_BLOCK];
    FN(normal_block)(p, first, standard, out);
    for (int attempt = 1; !FN(all_inside)(out, r); attempt++) {
        const philox retry = philox_attempt(*p, attempt);
        FN(normal_block)(&retry, first, standard, again);
        ROLLED for (int i = 0; i < RNG_BLOCK; i += (int)VL) {
            const vec v = vload(out + i), bound = vsel(vgt(v, vset1(r.high)), vset1(r.high), vset1(r.low));
            const vec next = attempt == PHILOX_MAX_ATTEMPTS ? bound : vload(again + i);
            vstore(out + i, vsel(FN(inside)(v, r), v, next));
        }
    }
    ROLLED for (int i = 0; i < RNG_BLOCK; i += (int)VL)
        vstore(out + i, vset1(r.shift) + vload(out + i) * vset1(r.scale));
}

/* Plain stores: beyond the last-level cache, non-temporal ones took 1.2 to 1.8 times as long. */
INLINE void FN(fill)(int kind, const fnn_stream *s, ptrdiff_t n, void *to, FN(range) r) {
    const philox p = philox_make(s);
    uint64_t first = s->start / RNG_WORDS;
    REAL *out = to;
    for (ptrdiff_t take; n > 0; n -= take, out += take, first += take / RNG_WORDS) {
        REAL last[RNG_BLOCK];
        take = FN(least)(n, RNG_WORDS * philox_run(first));
        const int whole = take == RNG_BLOCK;
        REAL *const block = whole ? out : last;
        if (kind == RNG_UNIT) FN(unit_block)(&p, first, r, block);
        if (kind == RNG_NORMAL) FN(normal_block)(&p, first, r, block);
        if (kind == RNG_TRUNCATED) FN(truncated_block)(&p, first, r, block);
        if (!whole) memcpy(out, last, take * sizeof *out);
    }
}

static void FN(uniform)(const fnn_stream *s, ptrdiff_t n, void *out, double low, double high) {
    FN(fill)(RNG_UNIT, s, n, out, (FN(range)){(REAL)low, (REAL)high - (REAL)low, 0, 0});
}

static void FN(normal)(const fnn_stream *s, ptrdiff_t n, void *out, double mean, double std) {
    FN(fill)(RNG_NORMAL, s, n, out, (FN(range)){(REAL)mean, (REAL)std, 0, 0});
}

static void FN(truncated_normal)(const fnn_stream *s, ptrdiff_t n, void *out, double mean,
                                 double std, double low, double high) {
    FN(fill)(RNG_TRUNCATED, s, n, out, (FN(range)){(REAL)mean, (REAL)std, (REAL)low, (REAL)high});
}

static void FN(bits)(const fnn_stream *s, ptrdiff_t n, uint32_t *out) {
    const philox p = philox_make(s);
    const ptrdiff_t block = 4 * PHILOX_BLOCK;
    uint64_t first = s->start / 4;
    for (ptrdiff_t take; n > 0; n -= take, out += take, first += take / 4) {
        uint32_t last[4 * PHILOX_BLOCK];
        take = FN(least)(n, 4 * philox_run(first));
        philox_block(&p, first, take == block ? out : last);
        if (take < block) memcpy(out, last, take * sizeof *out);
    }
}

/* The upper 24 bits of the words of a block as reals, one per lane. */
INLINE void FN(words24)(const philox *p, uint64_t first, vec v[][4]) {
#if F32
    vu32 w[RNG_VECTORS][4];
    philox_words32(p, first, w);
#else
    vu64 w[RNG_VECTORS][4];
    philox_words(p, 0, PHILOX_ROUNDS, first, w);
#endif
    UNROLL for (int i = 0; i < RNG_VECTORS; i++)
        UNROLL for (int j = 0; j < 4; j++)
#if F32
            v[i][j] = vreal((vint)(w[i][j] >> 8));
#else
            v[i][j] = (vec)((w[i][j] >> 8 & 0xffffff) | (vuint)vset1(0x1p52)) - 0x1p52;
#endif
}

/* A block in float32's order for either dtype; u = k 2^-24 >= rate is k >= rate 2^24. */
INLINE void FN(dropout_block)(const philox *p, uint64_t first, REAL threshold, REAL scale,
                              const REAL *x, REAL *y) {
    vec k[RNG_VECTORS][4];
    FN(words24)(p, first, k);
    UNROLL for (int i = 0; i < RNG_VECTORS; i++)
        UNROLL for (int j = 0; j < 4; j++) {
            const ptrdiff_t place = philox_place(i * VL, 64) + FNN_RNG_GROUP * j;
            const vec kept = vload(x + place) * scale;
            vstore(y + place, vsel(vge(k[i][j], vset1(threshold)), kept, vset1(0)));
        }
}

static void FN(dropout)(const fnn_stream *s, double rate, ptrdiff_t n, const void *from, void *to) {
    const philox p = philox_make(s);
    const double share = rate * 0x1p24;
    const int64_t whole = (int64_t)share;
    const REAL threshold = (REAL)(whole + (whole < share)); /* rounded up */
    const REAL scale = (REAL)(1 / (1 - rate));
    const ptrdiff_t block = 4 * PHILOX_BLOCK;
    const REAL *x = from;
    REAL *y = to;
    REAL last[4 * PHILOX_BLOCK] = {0};
    uint64_t first = s->start / 4;
    for (ptrdiff_t take; n > 0; n -= take, x += take, y += take, first += take / 4) {
        take = FN(least)(n, 4 * philox_run(first));
        if (take < block) memcpy(last, x, take * sizeof *x);
        FN(dropout_block)(&p, first, threshold, scale, take < block ? last : x, take < block ? last : y);
        if (take < block) memcpy(y, last, take * sizeof *y);
    }
}
