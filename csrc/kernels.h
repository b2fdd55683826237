/* kernels.h: the bodies in the order of their needs, then one table. Included once per dtype. */
#include "elementary.h"
#include "pointwise.h"
#include "gemm.h"
#include "rows.h"
#include "losses.h"
#include "optimizers.h"
#include "random.h"
#include "roofline.h"

static const fnn_kernels FN(table) = {
    .isa = ISA_ID,
    .dtype = sizeof(REAL) == 4 ? FNN_F32 : FNN_F64,
    .itemsize = sizeof(REAL),
    .lanes = VEC_BYTES / sizeof(REAL),
    .gemm_mr = GEMM_MR,
    .gemm_nr = GEMM_NV * (VEC_BYTES / sizeof(REAL)),
    .gemm = FN(gemm),
    .gemm_work = FN(gemm_work),
    .column_sums = FN(column_sums),
    .act = FN(act),
    .act_derivative = FN(act_derivative),
    .act_grad = FN(act_grad),
    .softmax = FN(softmax),
    .softmax_grad = FN(softmax_grad),
    .dropout = FN(dropout),
    .cross_entropy = FN(cross_entropy),
    .elementwise_loss = FN(elementwise_loss),
    .argmax = FN(argmax),
    .mark_positive = FN(mark_positive),
    .sgd = FN(sgd),
    .adam = FN(adam),
    .rmsprop = FN(rmsprop),
    .gather_f32 = FN(gather_f32),
    .gather_f64 = FN(gather_f64),
    .gather_u8 = FN(gather_u8),
    .uniform = FN(uniform),
    .normal = FN(normal),
    .truncated_normal = FN(truncated_normal),
    .bits = FN(bits),
    .limit = FN(limit),
};
