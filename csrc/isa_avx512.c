/* isa_avx512.c: x86-64 with AVX-512 F, BW, DQ, VL: 64-byte vectors, 32 registers. A tile of 14 x 2
 * vectors leaves four for operands; masked loads cost little, with some CPUs a slot for arithmetic. */
#include "fastnn.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
/* Not to double the tiles of dW: versions of loops for strides of 1, clones for constant arguments; nor what only
 * makes the code larger. */
#pragma GCC optimize("no-version-loops-for-strides,no-ipa-cp-clone,no-tree-slp-vectorize,no-split-loops")
#endif
#include <immintrin.h>

#define VEC_BYTES 64
#define GEMM_MR 14
#define GEMM_NV 2
#define GEMM_MASKED_FREE 1
#define GEMM_COPIES 1
#define ISA_ID FNN_AVX512
#define TABLE fnn_table_avx512

#define INLINE_ISA static inline __attribute__((always_inline, unused))
typedef uint32_t isa_u32 __attribute__((vector_size(64)));
typedef uint64_t isa_u64 __attribute__((vector_size(64)));

#define HAVE_FMA
INLINE_ISA __m512 vfma_f32(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
INLINE_ISA __m512d vfma_f64(__m512d a, __m512d b, __m512d c) { return _mm512_fmadd_pd(a, b, c); }

/* In assembly: compilers load a number once where it is used twice. */
#define HAVE_FMA_AT
INLINE_ISA __m512 vfma_at_f32(const float *p, __m512 b, __m512 c) {
    __asm__("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(c) : "v"(b), "m"(*p));
    return c;
}
INLINE_ISA __m512d vfma_at_f64(const double *p, __m512d b, __m512d c) {
    __asm__("vfmadd231pd %2%{1to8%}, %1, %0" : "+v"(c) : "v"(b), "m"(*p));
    return c;
}

#define HAVE_SQRT
INLINE_ISA __m512 vsqrt_f32(__m512 a) { return _mm512_sqrt_ps(a); }
INLINE_ISA __m512d vsqrt_f64(__m512d a) { return _mm512_sqrt_pd(a); }

/* The unit for division takes many cycles for 64 bytes. From an estimate of 14 bits one of Newton's steps gives
 * the reciprocal, and the remainder then the quotient (Markstein 1990), rounded as by a division but for
 * one pair in billions, and for |a| below 2^-100, where the remainder is rounded or flushed too; b is below
 * 2^126, and -0 gives 0. A lane in which an infinity or a 0 on this way leaves a NaN is divided after all. */
#define HAVE_DIV
INLINE_ISA __m512 vdiv_f32(__m512 a, __m512 b) {
    __m512 r = _mm512_rcp14_ps(b);
    r = _mm512_fmadd_ps(_mm512_fnmadd_ps(b, r, _mm512_set1_ps(1)), r, r);
    const __m512 q = _mm512_mul_ps(a, r), c = _mm512_fmadd_ps(_mm512_fnmadd_ps(b, q, a), r, q);
    const __mmask16 odd = _mm512_cmp_ps_mask(c, c, _CMP_UNORD_Q);
    return __builtin_expect(odd != 0, 0) ? _mm512_mask_div_ps(c, odd, a, b) : c;
}
INLINE_ISA __m512d vdiv_f64(__m512d a, __m512d b) { return _mm512_div_pd(a, b); }

#define HAVE_MASK
typedef __mmask16 vmask_f32;
typedef __mmask8 vmask_f64;
#define ISA_COMPARE(NAME, CMP)                                                                     \
    INLINE_ISA __mmask16 NAME##_f32(__m512 a, __m512 b) { return _mm512_cmp_ps_mask(a, b, CMP); }  \
    INLINE_ISA __mmask8 NAME##_f64(__m512d a, __m512d b) { return _mm512_cmp_pd_mask(a, b, CMP); }
ISA_COMPARE(vgt, _CMP_GT_OQ)
ISA_COMPARE(vge, _CMP_GE_OQ)
ISA_COMPARE(vlt, _CMP_LT_OQ)
ISA_COMPARE(veq, _CMP_EQ_OQ)
INLINE_ISA __mmask16 vand_f32(__mmask16 a, __mmask16 b) { return a & b; }
INLINE_ISA __mmask8 vand_f64(__mmask8 a, __mmask8 b) { return a & b; }
INLINE_ISA int vany_f32(__mmask16 m) { return m != 0; }
INLINE_ISA int vany_f64(__mmask8 m) { return m != 0; }
INLINE_ISA __m512 vsel_f32(__mmask16 m, __m512 a, __m512 b) { return _mm512_mask_mov_ps(b, m, a); }
INLINE_ISA __m512d vsel_f64(__mmask8 m, __m512d a, __m512d b) { return _mm512_mask_mov_pd(b, m, a); }

#define HAVE_REAL64

#define HAVE_SWAP
#define ISA_SWAP(V, M, BITS, KIND, S)                                                              \
    INLINE_ISA void vswap_if_##S(isa_u##BITS u, uint##BITS##_t bit, V *a, V *b) {                  \
        const M m = _mm512_test_epi##BITS##_mask((__m512i)u, _mm512_set1_epi##BITS(bit));          \
        const V first = *a;                                                                        \
        *a = _mm512_mask_mov_##KIND(first, m, *b);                                                 \
        *b = _mm512_mask_mov_##KIND(*b, m, first);                                                 \
    }
ISA_SWAP(__m512, __mmask16, 32, ps, f32)
ISA_SWAP(__m512d, __mmask8, 64, pd, f64)

#define HAVE_MAX
INLINE_ISA __m512 vmax_f32(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
INLINE_ISA __m512d vmax_f64(__m512d a, __m512d b) { return _mm512_max_pd(a, b); }

/* Lanes that would become 0 are left out and keep their sign: CPUs take a hundred cycles over an underflow. */
#define HAVE_SCALE
INLINE_ISA __m512 vscale_f32(__m512 a, __m512 n) {
    const __mmask16 some = _mm512_cmp_ps_mask(n, _mm512_set1_ps(-150), _CMP_NLT_UQ);
    return _mm512_mask_scalef_ps(_mm512_and_ps(a, _mm512_set1_ps(-0.0f)), some, a, n);
}
INLINE_ISA __m512d vscale_f64(__m512d a, __m512d n) {
    const __mmask8 some = _mm512_cmp_pd_mask(n, _mm512_set1_pd(-1075), _CMP_NLT_UQ);
    return _mm512_mask_scalef_pd(_mm512_and_pd(a, _mm512_set1_pd(-0.0)), some, a, n);
}

#define HAVE_TAIL
typedef __mmask16 vtail_f32;
typedef __mmask8 vtail_f64;
INLINE_ISA __mmask16 vtail_make_f32(ptrdiff_t n) { return (__mmask16)((1u << n) - 1); }
INLINE_ISA __mmask8 vtail_make_f64(ptrdiff_t n) { return (__mmask8)((1u << n) - 1); }
INLINE_ISA __m512 vload_t_f32(const float *p, __mmask16 t) { return _mm512_maskz_loadu_ps(t, p); }
INLINE_ISA __m512d vload_t_f64(const double *p, __mmask8 t) { return _mm512_maskz_loadu_pd(t, p); }
INLINE_ISA void vstore_t_f32(float *p, __m512 v, __mmask16 t) { _mm512_mask_storeu_ps(p, t, v); }
INLINE_ISA void vstore_t_f64(double *p, __m512d v, __mmask8 t) { _mm512_mask_storeu_pd(p, t, v); }

#define HAVE_MUL32
INLINE_ISA isa_u64 vmul32(isa_u64 a, isa_u64 b) { return (isa_u64)_mm512_mul_epu32((__m512i)a, (__m512i)b); }

#define HAVE_PAIR32
INLINE_ISA isa_u32 vpair32(isa_u64 even, isa_u64 odd) {
    return (isa_u32)_mm512_mask_moveldup_ps((__m512)even, 0xaaaa, (__m512)odd);
}
INLINE_ISA isa_u32 vpair32_high(isa_u64 even, isa_u64 odd) {
    return (isa_u32)_mm512_mask_movehdup_ps((__m512)odd, 0x5555, (__m512)even);
}

#define HAVE_STREAM
INLINE_ISA void vstream_f32(float *p, __m512 v) { _mm512_stream_ps(p, v); }
INLINE_ISA void vstream_f64(double *p, __m512d v) { _mm512_stream_pd(p, v); }
INLINE_ISA void vstream_end(void) { _mm_sfence(); }

#define HAVE_PIECES
INLINE_ISA __m512 vpieces_f32(const float *p, ptrdiff_t step) {
    __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(p));
    v = _mm512_insertf32x4(v, _mm_loadu_ps(p + step), 1);
    v = _mm512_insertf32x4(v, _mm_loadu_ps(p + 2 * step), 2);
    return _mm512_insertf32x4(v, _mm_loadu_ps(p + 3 * step), 3);
}
INLINE_ISA __m512d vpieces_f64(const double *p, ptrdiff_t step) {
    return (__m512d)vpieces_f32((const float *)p, 2 * step);
}

#include "bodies.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
