/* isa_baseline.c: any CPU that the compiler knows: 16-byte vectors (SSE2 on x86-64), no fused
 * multiply-add. Sixteen registers: a tile of 6 x 2 vectors leaves four for operands. */
#include "fastnn.h"

#define VEC_BYTES 16
#define GEMM_MR 6
#define GEMM_NV 2
#define ISA_ID FNN_BASELINE
#define TABLE fnn_table_baseline

#if defined(__SSE2__)
#include <emmintrin.h>
#define INLINE_ISA static inline __attribute__((always_inline, unused))
#define HAVE_SQRT
#define HAVE_MUL32
typedef uint64_t isa_u64 __attribute__((vector_size(16)));
INLINE_ISA __m128 vsqrt_f32(__m128 a) { return _mm_sqrt_ps(a); }
INLINE_ISA __m128d vsqrt_f64(__m128d a) { return _mm_sqrt_pd(a); }
INLINE_ISA isa_u64 vmul32(isa_u64 a, isa_u64 b) { return (isa_u64)_mm_mul_epu32((__m128i)a, (__m128i)b); }
#endif

#include "bodies.h"
