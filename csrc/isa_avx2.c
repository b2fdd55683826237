/* isa_avx2.c: x86-64 with AVX2 and FMA: 32-byte vectors, sixteen registers, a tile of 6 x 2 vectors. */
#include "fastnn.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
/* Not to double the tiles of dW: versions of loops for strides of 1, clones for constant arguments; nor what only
 * makes the code larger. */
#pragma GCC optimize("no-version-loops-for-strides,no-ipa-cp-clone,no-tree-slp-vectorize,no-split-loops,no-gcse")
#endif
#include <immintrin.h>

#define VEC_BYTES 32
#define GEMM_MR 6
#define GEMM_NV 2
#define ISA_ID FNN_AVX2
#define TABLE fnn_table_avx2

#define INLINE_ISA static inline __attribute__((always_inline, unused))
typedef uint64_t isa_u64 __attribute__((vector_size(32)));

#define HAVE_FMA
INLINE_ISA __m256 vfma_f32(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
INLINE_ISA __m256d vfma_f64(__m256d a, __m256d b, __m256d c) { return _mm256_fmadd_pd(a, b, c); }

#define HAVE_SQRT
INLINE_ISA __m256 vsqrt_f32(__m256 a) { return _mm256_sqrt_ps(a); }
INLINE_ISA __m256d vsqrt_f64(__m256d a) { return _mm256_sqrt_pd(a); }

#define HAVE_MASK
typedef __m256 vmask_f32;
typedef __m256d vmask_f64;
#define ISA_COMPARE(NAME, CMP)                                                                 \
    INLINE_ISA __m256 NAME##_f32(__m256 a, __m256 b) { return _mm256_cmp_ps(a, b, CMP); }      \
    INLINE_ISA __m256d NAME##_f64(__m256d a, __m256d b) { return _mm256_cmp_pd(a, b, CMP); }
ISA_COMPARE(vgt, _CMP_GT_OQ)
ISA_COMPARE(vge, _CMP_GE_OQ)
ISA_COMPARE(vlt, _CMP_LT_OQ)
ISA_COMPARE(veq, _CMP_EQ_OQ)
INLINE_ISA __m256 vand_f32(__m256 a, __m256 b) { return _mm256_and_ps(a, b); }
INLINE_ISA __m256d vand_f64(__m256d a, __m256d b) { return _mm256_and_pd(a, b); }
INLINE_ISA int vany_f32(__m256 m) { return _mm256_movemask_ps(m) != 0; }
INLINE_ISA int vany_f64(__m256d m) { return _mm256_movemask_pd(m) != 0; }
INLINE_ISA __m256 vsel_f32(__m256 m, __m256 a, __m256 b) { return _mm256_blendv_ps(b, a, m); }
INLINE_ISA __m256d vsel_f64(__m256d m, __m256d a, __m256d b) { return _mm256_blendv_pd(b, a, m); }

#define HAVE_MAX
INLINE_ISA __m256 vmax_f32(__m256 a, __m256 b) { return _mm256_max_ps(a, b); }
INLINE_ISA __m256d vmax_f64(__m256d a, __m256d b) { return _mm256_max_pd(a, b); }

#define HAVE_TAIL
typedef __m256i vtail_f32;
typedef __m256i vtail_f64;
INLINE_ISA __m256i vtail_make_f32(ptrdiff_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE_ISA __m256i vtail_make_f64(ptrdiff_t n) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}
INLINE_ISA __m256 vload_t_f32(const float *p, __m256i t) { return _mm256_maskload_ps(p, t); }
INLINE_ISA __m256d vload_t_f64(const double *p, __m256i t) { return _mm256_maskload_pd(p, t); }
INLINE_ISA void vstore_t_f32(float *p, __m256 v, __m256i t) { _mm256_maskstore_ps(p, t, v); }
INLINE_ISA void vstore_t_f64(double *p, __m256d v, __m256i t) { _mm256_maskstore_pd(p, t, v); }

#define HAVE_MUL32
INLINE_ISA isa_u64 vmul32(isa_u64 a, isa_u64 b) { return (isa_u64)_mm256_mul_epu32((__m256i)a, (__m256i)b); }

#define HAVE_PAIR32
typedef uint32_t isa_u32 __attribute__((vector_size(32)));
INLINE_ISA isa_u32 vpair32(isa_u64 even, isa_u64 odd) {
    return (isa_u32)_mm256_blend_ps((__m256)even, _mm256_moveldup_ps((__m256)odd), 0xaa);
}
INLINE_ISA isa_u32 vpair32_high(isa_u64 even, isa_u64 odd) {
    return (isa_u32)_mm256_blend_ps(_mm256_movehdup_ps((__m256)even), (__m256)odd, 0xaa);
}

#define HAVE_STREAM
INLINE_ISA void vstream_f32(float *p, __m256 v) { _mm256_stream_ps(p, v); }
INLINE_ISA void vstream_f64(double *p, __m256d v) { _mm256_stream_pd(p, v); }
INLINE_ISA void vstream_end(void) { _mm_sfence(); }

#define HAVE_PIECES
INLINE_ISA __m256 vpieces_f32(const float *p, ptrdiff_t step) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + step), 1);
}
INLINE_ISA __m256d vpieces_f64(const double *p, ptrdiff_t step) {
    return _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(p)), _mm_loadu_pd(p + step), 1);
}

#include "bodies.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
