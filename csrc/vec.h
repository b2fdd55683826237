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
 *   vfma(a, b, c)         a b + c, one rounding where the hardware has it; vfma_at(p, b, c)  p[0] b + c
 *   vsqrt(a)              correctly rounded
 *   vdiv(a, b)            a / b, or for float32 with AVX-512 nearly always that: see there
 *   vgt vge vlt veq       masks; false where a lane is NaN
 *   vsel(m, a, b)         m ? a : b               vmax(a, b)  a > b ? a : b
 *   vabs, vneg_if(v, s)   clear the sign; flip v's sign where s has one
 *   vreal(i), vreal_u(u)  a signed or unsigned integer in each lane as a real, rounded once
 *   vswap_if(u, bit, &a, &b)  a and b change places where u has that bit
 *   vzip_lo, vzip_hi      in each 16 bytes, a0 b0 ... of their lower or upper halves
 *   vpieces(p, step)      VEC_BYTES / 16 pieces of 16 bytes, at p, p + step, p + 2 step, ...
 *   vscale(a, n)          a 2^n, rounded once; |a| < 2, n whole, at most twice the exponent's range
 *   vsum(v), vtop(v)      the sum, the largest of all lanes, in every lane, always in the same pairs
 *   viota()               0, 1, 2, ...            vfirst(n)  mask of the first n lanes
 *   vflush_begin, _end    between them subnormal numbers count as 0: see there
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
#define ROLLED PRAGMA(clang loop unroll(disable))
#else
#define UNROLL PRAGMA(GCC unroll 32)
#define ROLLED PRAGMA(GCC unroll 1)
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

/* p[0] * b + c, where the CPU can by an instruction that loads p[0] itself. */
#ifndef HAVE_FMA_AT
INLINE vf32 vfma_at_f32(const float *p, vf32 b, vf32 c) { return vfma_f32(vset1_f32(*p), b, c); }
INLINE vf64 vfma_at_f64(const double *p, vf64 b, vf64 c) { return vfma_f64(vset1_f64(*p), b, c); }
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

#ifndef HAVE_DIV
INLINE vf32 vdiv_f32(vf32 a, vf32 b) { return a / b; }
INLINE vf64 vdiv_f64(vf64 a, vf64 b) { return a / b; }
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

INLINE vf32 vreal_f32(vi32 i) { return __builtin_convertvector(i, vf32); }
INLINE vf32 vreal_u_f32(vu32 u) { return __builtin_convertvector(u, vf32); }
#ifdef HAVE_REAL64
INLINE vf64 vreal_f64(vi64 i) { return __builtin_convertvector(i, vf64); }
INLINE vf64 vreal_u_f64(vu64 u) { return __builtin_convertvector(u, vf64); }
#else
/* u - offset: the halves become reals by taking the place of a mantissa; all but the last operation are exact. */
INLINE vf64 vreal_less_f64(vu64 u, double offset) {
    const vu64 low = (u & 0xffffffffu) | (vu64)vset1_f64(0x1p52), high = u >> 32 | (vu64)vset1_f64(0x1p84);
    return ((vf64)high - vset1_f64(0x1p84 + 0x1p52 + offset)) + (vf64)low;
}
INLINE vf64 vreal_f64(vi64 i) { return vreal_less_f64((vu64)i ^ (uint64_t)1 << 63, 0x1p63); }
INLINE vf64 vreal_u_f64(vu64 u) { return vreal_less_f64(u, 0); }
#endif

#ifndef HAVE_SWAP
#define VEC_SWAP(T, V, I, U, S)                                                                \
    INLINE void vswap_if_##S(U u, T bit, V *a, V *b) {                                         \
        const U swap = ((U)*a ^ (U)*b) & (U)((I)(u & bit) != 0);                               \
        *a = (V)((U)*a ^ swap);                                                                \
        *b = (V)((U)*b ^ swap);                                                                \
    }
VEC_SWAP(uint32_t, vf32, vi32, vu32, f32)
VEC_SWAP(uint64_t, vf64, vi64, vu64, f64)
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

#if VEC_BYTES == 64
#define VEC_ZIP_F64(a, b) a, 8 + b, 2 + a, 10 + b, 4 + a, 12 + b, 6 + a, 14 + b
#define VEC_ZIP_F32(a, b)                                                                      \
    a, 16 + a, b, 16 + b, 4 + a, 20 + a, 4 + b, 20 + b, 8 + a, 24 + a, 8 + b, 24 + b, 12 + a,  \
        28 + a, 12 + b, 28 + b
#elif VEC_BYTES == 32
#define VEC_ZIP_F64(a, b) a, 4 + b, 2 + a, 6 + b
#define VEC_ZIP_F32(a, b) a, 8 + a, b, 8 + b, 4 + a, 12 + a, 4 + b, 12 + b
#else
#define VEC_ZIP_F64(a, b) a, 2 + b
#define VEC_ZIP_F32(a, b) a, 4 + a, b, 4 + b
#endif
INLINE vf32 vzip_lo_f32(vf32 a, vf32 b) { return __builtin_shufflevector(a, b, VEC_ZIP_F32(0, 1)); }
INLINE vf32 vzip_hi_f32(vf32 a, vf32 b) { return __builtin_shufflevector(a, b, VEC_ZIP_F32(2, 3)); }
INLINE vf64 vzip_lo_f64(vf64 a, vf64 b) { return __builtin_shufflevector(a, b, VEC_ZIP_F64(0, 0)); }
INLINE vf64 vzip_hi_f64(vf64 a, vf64 b) { return __builtin_shufflevector(a, b, VEC_ZIP_F64(1, 1)); }

#ifndef HAVE_PIECES
#define VEC_PIECES(T, V, S)                                                                    \
    INLINE V vpieces_##S(const T *p, ptrdiff_t step) {                                         \
        V v;                                                                                   \
        UNROLL for (int g = 0; g < VEC_BYTES / 16; g++)                                        \
            memcpy((char *)&v + 16 * g, p + g * step, 16);                                     \
        return v;                                                                              \
    }
VEC_PIECES(float, vf32, f32)
VEC_PIECES(double, vf64, f64)
#endif

/* Between these two, numbers below the normal ones count as 0 in this thread, where the CPU can be told so:
 * x86 takes a hundred cycles and more over each vector with one. The barriers keep what is computed from
 * memory in between; flags that are raised there are lost. */
#ifdef __SSE2__
INLINE unsigned vflush_begin(void) {
    const unsigned before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(before | 0x8040); /* results, operands */
    __asm__ volatile("" ::: "memory");
    return before;
}
INLINE void vflush_end(unsigned before) {
    __asm__ volatile("" ::: "memory");
    __builtin_ia32_ldmxcsr(before);
}
#else
INLINE unsigned vflush_begin(void) { return 0; }
INLINE void vflush_end(unsigned before) { (void)before; }
#endif

/* 64-bit product of the low 32 bits of each 64-bit lane; the high halves of the inputs are ignored. */
#ifndef HAVE_MUL32
INLINE vu64 vmul32(vu64 a, vu64 b) {
    const vu64 low = (vu64){0} + 0xffffffffu;
    return (a & low) * (b & low);
}
#endif

/* The low, or high, 32 bits of even[0], odd[0], even[1], odd[1], ... */
#ifndef HAVE_PAIR32
INLINE vu32 vpair32(vu64 even, vu64 odd) { return (vu32)((even & 0xffffffffu) | odd << 32); }
INLINE vu32 vpair32_high(vu64 even, vu64 odd) { return (vu32)(even >> 32 | (odd & ~(uint64_t)0xffffffffu)); }
#endif

/* A store that need not stay in the cache, for 64-byte aligned p; vstream_end orders what follows. */
#ifndef HAVE_STREAM
INLINE void vstream_f32(float *p, vf32 v) { vstore_f32(p, v); }
INLINE void vstream_f64(double *p, vf64 v) { vstore_f64(p, v); }
INLINE void vstream_end(void) {}
#endif
