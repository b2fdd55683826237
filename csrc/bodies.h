/* bodies.h: every algorithm, once per dtype, and the table that holds them. The last line of an
 * instruction-set file, which has set its target, VEC_BYTES, GEMM_MR, ISA_ID and TABLE before. */
#include "vec.h"

#define F32 1
#include "names.h"
#include "kernels.h"
#undef F32
#define F32 0
#include "names.h"
#include "kernels.h"
#undef F32

const fnn_kernels *const TABLE[FNN_DTYPES] = {&table_f32, &table_f64};
