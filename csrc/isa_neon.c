/* isa_neon.c: AArch64: 16-byte vectors, fused multiply-add, 32 registers, a tile of 12 x 2 vectors. */
#include "fastnn.h"

#if defined(__aarch64__)
#include <arm_neon.h>

/* arm_neon.h has these names for vectors of 8 bytes */
#define vfma_f32 wide_vfma_f32
#define vfma_f64 wide_vfma_f64
#define vsqrt_f32 wide_vsqrt_f32
#define vsqrt_f64 wide_vsqrt_f64
#define vdiv_f32 wide_vdiv_f32
#define vdiv_f64 wide_vdiv_f64
#define vabs_f32 wide_vabs_f32
#define vabs_f64 wide_vabs_f64
#define vmax_f32 wide_vmax_f32
#define vmax_f64 wide_vmax_f64

#define VEC_BYTES 16
#define GEMM_MR 12
#define GEMM_NV 2
#define ISA_ID FNN_NEON
#define TABLE fnn_table_neon

#define INLINE_ISA static inline __attribute__((always_inline, unused))
typedef float isa_f32 __attribute__((vector_size(16)));
typedef double isa_f64 __attribute__((vector_size(16)));
typedef uint64_t isa_u64 __attribute__((vector_size(16)));

#define HAVE_FMA
INLINE_ISA isa_f32 vfma_f32(isa_f32 a, isa_f32 b, isa_f32 c) {
    return (isa_f32)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
INLINE_ISA isa_f64 vfma_f64(isa_f64 a, isa_f64 b, isa_f64 c) {
    return (isa_f64)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}

#define HAVE_SQRT
INLINE_ISA isa_f32 vsqrt_f32(isa_f32 a) { return (isa_f32)vsqrtq_f32((float32x4_t)a); }
INLINE_ISA isa_f64 vsqrt_f64(isa_f64 a) { return (isa_f64)vsqrtq_f64((float64x2_t)a); }

#define HAVE_REAL64

#define HAVE_MUL32
INLINE_ISA isa_u64 vmul32(isa_u64 a, isa_u64 b) {
    return (isa_u64)vmull_u32(vmovn_u64((uint64x2_t)a), vmovn_u64((uint64x2_t)b));
}

#include "bodies.h"
#endif
