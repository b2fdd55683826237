/* vec.h: the vocabulary that every body is written in, for vectors of VEC_BYTES.
 *
 * GCC's and Clang's vector extensions give + - * / & | ^ ~ << >> and conversions by value
 * (__builtin_convertvector); this header names the rest. An instruction-set file defines VEC_BYTES and
 * its own versions (marked by a HAVE_ macro) before it includes bodies.h; what it leaves out is filled
 * in here from plain vector code, which is what the baseline runs.
 *
 *   vset1(s)              every lane s            vload(p), vstore(p, v)     unaligned
 *   vtail_make(n)         the first n lanes, 0 <= n <= lanes
 *   vload_t, vstore_t     only those lanes are read (others 0) or written
 *   vfma(a, b, c)         a b + c, one rounding where the hardware has it
 *   vsqrt(a)              correctly rounded
 *   vgt vge vlt veq       masks; false where a lane is NaN
 *   vsel(m, a, b)         m ? a : b               vmax(a, b)  a > b ? a : b
 *   vabs, vneg_if(v, s)   clear the sign; flip v's sign where s has one
 *   vzip_lo, vzip_hi      a0 b0 a1 b1 ... of the lower or the upper halves
 *   vscale(a, n)          a 2^n, rounded once; |a| < 2, n whole, at most twice the exponent's range
 *   vsum(v), vtop(v)      the sum, the largest of all lanes, in every lane, always in the same pairs
 *   viota()               0, 1, 2, ...            vfirst(n)  mask of the first n lanes
 *   vwiden(&sum, v)       adds the lanes of v to the float64 lanes of sum, in a fixed order
 * Names end in _f32 or _f64; names.h gives the short ones to the dtype that is being compiled. */
#include <assert.h>
#include <string.h>

typedef float vf32 __attribute__((vector_size(VEC_BYTES)));
typedef double vf64 __attribute__((vector_size(VEC_BYTES)));
typedef int32_t vi32 __attribute__((vector_size(VEC_BYTES)));
typedef int64_t vi64 __attribute__((vector_size(VEC_BYTES)));
typedef uint32_t vu32 __attribute__((vector_size(VEC_BYTES)));
typedef uint64_t vu64 __attribute__((vector_size(VEC_BYTES)));

#define INLINE static inline __attribute__((always_inline, unused))
#define PRAGMA(x) _Pragma(#x)
#if defined(__clang__)
#define UNROLL PRAGMA(clang loop unroll(full))
#else
#define UNROLL PRAGMA(GCC unroll 32)
#endif

/* The unsuffixed operations, for one dtype. T: element, V: vector, I: integer vector, U: unsigned. */
#define VEC_COMMON(T, V, I, U, S)                                                              \
    INLINE V vset1_##S(T s) { return s - (V){0}; }                                             \
    INLINE V vload_##S(const T *p) { V v; memcpy(&v, p, sizeof v); return v; }                 \
    INLINE void vstore_##S(T *p, V v) { memcpy(p, &v, sizeof v); }                             \
    INLINE V vabs_##S(V v) { return (V)((U)v & ((U){0} - 1) >> 1); }                           \
    INLINE V vneg_if_##S(V v, V s) { return (V)((U)v ^ ((U)s & ~(((U){0} - 1) >> 1))); }
VEC_COMMON(float, vf32, vi32, vu32, f32)
VEC_COMMON(double, vf64, vi64, vu64, f64)

#ifndef HAVE_FMA
INLINE vf32 vfma_f32(vf32 a, vf32 b, vf32 c) { return a * b + c; }
INLINE vf64 vfma_f64(vf64 a, vf64 b, vf64 c) { return a * b + c; }
#endif

#ifndef HAVE_SQRT
INLINE vf32 vsqrt_f32(vf32 a) {
    UNROLL for (int i = 0; i < VEC_BYTES / 4; i++) a[i] = __builtin_sqrtf(a[i]);
    return a;
}
INLINE vf64 vsqrt_f64(vf64 a) {
    UNROLL for (int i = 0; i < VEC_BYTES / 8; i++) a[i] = __builtin_sqrt(a[i]);
    return a;
}
#endif

#ifndef HAVE_MASK
typedef vi32 vmask_f32;
typedef vi64 vmask_f64;
#define VEC_MASK(V, I, S)                                                                      \
    INLINE I vgt_##S(V a, V b) { return a > b; }                                               \
    INLINE I vge_##S(V a, V b) { return a >= b; }                                              \
    INLINE I vlt_##S(V a, V b) { return a < b; }                                               \
    INLINE I veq_##S(V a, V b) { return a == b; }                                              \
    INLINE I vand_##S(I a, I b) { return a & b; }                                              \
    INLINE int vany_##S(I m) {                                                                 \
        int any = 0;                                                                           \
        UNROLL for (int i = 0; i < (int)(sizeof m / sizeof m[0]); i++) any |= m[i] != 0;       \
        return any;                                                                            \
    }                                                                                          \
    INLINE V vsel_##S(I m, V a, V b) { return (V)(((I)a & m) | ((I)b & ~m)); }
VEC_MASK(vf32, vi32, f32)
VEC_MASK(vf64, vi64, f64)
#endif

#ifndef HAVE_MAX
INLINE vf32 vmax_f32(vf32 a, vf32 b) { return vsel_f32(vgt_f32(a, b), a, b); }
INLINE vf64 vmax_f64(vf64 a, vf64 b) { return vsel_f64(vgt_f64(a, b), a, b); }
#endif

/* Two factors of about 2^(n/2), so that neither over- or underflows where the result does not. Below
 * the subnormals one of them is 0: CPUs may take a hundred cycles over an underflow. */
#ifndef HAVE_SCALE
#define VEC_SCALE(V, U, S, MAGIC, BITS, BIAS)                                                  \
    INLINE V vscale_##S(V a, V n) {                                                            \
        const U k = (U)(n + vset1_##S(MAGIC + 2 * BIAS)) - (U)vset1_##S(MAGIC);                \
        const U half = k >> 1;                                                                 \
        const V zero = {0}, rest = (V)((k - half) << BITS);                                    \
        return a * (V)(half << BITS) * vsel_##S(vlt_##S(n, vset1_##S(-BIAS - BITS)), zero, rest); \
    }
VEC_SCALE(vf32, vu32, f32, 0x1.8p23f, 23, 127)
VEC_SCALE(vf64, vu64, f64, 0x1.8p52, 52, 1023)
#endif

/* Folding: lane i meets lane i ^ s, so all lanes end with the same bits. */
#define LANES_2(s) 0 ^ (s), 1 ^ (s)
#define LANES_4(s) LANES_2(s), 2 ^ (s), 3 ^ (s)
#define LANES_8(s) LANES_4(s), 4 ^ (s), 5 ^ (s), 6 ^ (s), 7 ^ (s)
#define LANES_16(s) LANES_8(s), 8 ^ (s), 9 ^ (s), 10 ^ (s), 11 ^ (s), 12 ^ (s), 13 ^ (s), 14 ^ (s), 15 ^ (s)
#if VEC_BYTES == 64
#define LANES_F32 LANES_16
#define LANES_F64 LANES_8
#elif VEC_BYTES == 32
#define LANES_F32 LANES_8
#define LANES_F64 LANES_4
#else
#define LANES_F32 LANES_4
#define LANES_F64 LANES_2
#endif
#if defined(__clang__)
#define VEC_PERMUTE(I, v, ...) __builtin_shufflevector(v, v, __VA_ARGS__)
#else
#define VEC_PERMUTE(I, v, ...) __builtin_shuffle(v, (I){__VA_ARGS__})
#endif
#define VEC_FOLD(T, V, I, S, LANES)                                                            \
    enum { LANES_##S = VEC_BYTES / sizeof(T) };                                                \
    INLINE V vsum_##S(V v) {                                                                   \
        if (LANES_##S > 8) v += VEC_PERMUTE(I, v, LANES(8 % LANES_##S));                       \
        if (LANES_##S > 4) v += VEC_PERMUTE(I, v, LANES(4 % LANES_##S));                       \
        if (LANES_##S > 2) v += VEC_PERMUTE(I, v, LANES(2 % LANES_##S));                       \
        return v + VEC_PERMUTE(I, v, LANES(1));                                                \
    }                                                                                          \
    INLINE V vtop_##S(V v) {                                                                   \
        if (LANES_##S > 8) v = vmax_##S(v, VEC_PERMUTE(I, v, LANES(8 % LANES_##S)));           \
        if (LANES_##S > 4) v = vmax_##S(v, VEC_PERMUTE(I, v, LANES(4 % LANES_##S)));           \
        if (LANES_##S > 2) v = vmax_##S(v, VEC_PERMUTE(I, v, LANES(2 % LANES_##S)));           \
        return vmax_##S(v, VEC_PERMUTE(I, v, LANES(1)));                                       \
    }                                                                                          \
    INLINE V viota_##S(void) { return (V){LANES(0)}; }                                         \
    INLINE vmask_##S vfirst_##S(ptrdiff_t n) { return vlt_##S(viota_##S(), vset1_##S((T)n)); }
VEC_FOLD(float, vf32, vi32, f32, LANES_F32)
VEC_FOLD(double, vf64, vi64, f64, LANES_F64)

INLINE void vwiden_f64(vf64 *sum, vf64 v) { *sum += v; }
INLINE void vwiden_f32(vf64 *sum, vf32 v) {
    typedef float half __attribute__((vector_size(VEC_BYTES / 2)));
    half h[2];
    memcpy(h, &v, sizeof h);
    *sum += __builtin_convertvector(h[0], vf64) + __builtin_convertvector(h[1], vf64);
}

#ifndef HAVE_TAIL
typedef int vtail_f32;
typedef int vtail_f64;
#define VEC_TAIL(T, V, S)                                                                      \
    INLINE int vtail_make_##S(ptrdiff_t n) { return (int)n; }                                  \
    INLINE V vload_t_##S(const T *p, int n) {                                                  \
        V v = {0};                                                                             \
        UNROLL for (int i = 0; i < LANES_##S; i++) if (i < n) v[i] = p[i];                     \
        return v;                                                                              \
    }                                                                                          \
    INLINE void vstore_t_##S(T *p, V v, int n) {                                               \
        UNROLL for (int i = 0; i < LANES_##S; i++) if (i < n) p[i] = v[i];                     \
    }
VEC_TAIL(float, vf32, f32)
VEC_TAIL(double, vf64, f64)
#endif

#define VEC_LO_2 0, 2
#define VEC_HI_2 1, 3
#define VEC_LO_4 0, 4, 1, 5
#define VEC_HI_4 2, 6, 3, 7
#define VEC_LO_8 0, 8, 1, 9, 2, 10, 3, 11
#define VEC_HI_8 4, 12, 5, 13, 6, 14, 7, 15
#define VEC_LO_16 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define VEC_HI_16 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define VEC_ZIP(V, S, N)                                                                       \
    INLINE V vzip_lo_##S(V a, V b) { return __builtin_shufflevector(a, b, VEC_LO_##N); }       \
    INLINE V vzip_hi_##S(V a, V b) { return __builtin_shufflevector(a, b, VEC_HI_##N); }
#if VEC_BYTES == 64
VEC_ZIP(vf32, f32, 16)
VEC_ZIP(vf64, f64, 8)
#elif VEC_BYTES == 32
VEC_ZIP(vf32, f32, 8)
VEC_ZIP(vf64, f64, 4)
#else
VEC_ZIP(vf32, f32, 4)
VEC_ZIP(vf64, f64, 2)
#endif

/* 64-bit product of the low 32 bits of each 64-bit lane; the high halves of the inputs are ignored. */
#ifndef HAVE_MUL32
INLINE vu64 vmul32(vu64 a, vu64 b) {
    const vu64 low = (vu64){0} + 0xffffffffu;
    return (a & low) * (b & low);
}
#endif

/* A store that need not stay in the cache, for 64-byte aligned p; vstream_end orders what follows. */
#ifndef HAVE_STREAM
INLINE void vstream_f32(float *p, vf32 v) { vstore_f32(p, v); }
INLINE void vstream_f64(double *p, vf64 v) { vstore_f64(p, v); }
INLINE void vstream_end(void) {}
#endif
