from libc.stdint cimport int64_t, uint64_t
from fastnn._core.csrc cimport fnn_act, fnn_kernels
from fastnn._core.losses cimport Loss
from fastnn._core.updates cimport Rule

cdef enum:
    LINEAR      # y = act(x W + b)
    ACT
    SOFTMAX
    DROPOUT

cdef struct Op:
    int kind
    Py_ssize_t n_in, n_out
    Py_ssize_t weight, bias   # offsets in the flat buffers, in elements; bias -1: none
    fnn_act act
    double slope, rate
    bint from_input           # f' is computed from the pre-activation, which is kept

cdef enum:
    NEAR = 1 << 18  # bytes that stay near a core while an update passes over as many

cdef enum:
    SAME        # of the model's dtype, read in place where the rows are in order
    FLOAT32
    FLOAT64
    UINT8

# Rows of data: row i is data[index ? index[i] : i], converted to the model's dtype.
cdef struct Rows:
    int kind
    const char *data
    Py_ssize_t ld
    const int64_t *index
    double scale

cdef struct Net:
    const fnn_kernels *K
    const Op *ops
    int n_ops
    Py_ssize_t n_in, n_out, width   # width: the widest activation, the input included
    const char *parameters
    char *gradients
    size_t gemm_bytes               # work of one thread
    size_t near_bytes               # after it in training: gradients that wait for their update

cdef struct Inference:
    Net net
    Rows x
    Py_ssize_t m, block             # block: rows that go through all layers at a time
    bint by_rows
    Py_ssize_t quantum              # by_rows: rows are claimed in multiples of it; 0: equal shares
    Py_ssize_t next                 # the first row that nobody has claimed
    char *out
    char *work                      # by_rows: member_bytes for each member; else shared buffers first
    size_t member_bytes

cdef struct Training:
    Net net
    Rows x
    Py_ssize_t m
    char *input                     # m x n_in, where x cannot be read in place
    char **outputs                  # of each op, m x n_out
    char **inputs                   # pre-activations, where from_input
    char *grads[3]                  # m x the widest output each
    char *work                      # net.gemm_bytes and net.near_bytes for each member
    uint64_t seed, step             # of the dropout masks
    bint drop
    # a whole step only
    const Loss *loss
    const int64_t *next_index       # the next_m rows of the next batch; 0: none are picked
    Py_ssize_t next_m, x_itemsize
    const char *targets             # of this batch, in its order
    const char *weights             # of this batch, or NULL
    Py_ssize_t target_bytes         # of a row
    const char *all_targets         # what x.index picks from, into batch_*; NULL: nothing to pick
    const char *all_weights
    char *batch_targets
    char *batch_weights
    double *row_loss                # m
    int64_t *guesses                # m, cross-entropy only
    char **seen                     # of each op: marks of its units that were positive, or NULL
    const Rule *rule                # NULL: no update
    # backward only
    const char *grad_out            # what backward starts from (then grads[0] is written)
    char *grad_x                    # or NULL

cdef void inference_task(void *context, int member, int team) noexcept nogil
cdef void forward_task(void *context, int member, int team) noexcept nogil
cdef void backward_task(void *context, int member, int team) noexcept nogil
cdef void step_task(void *context, int member, int team) noexcept nogil
cdef const char *training_output(const Training *t) noexcept nogil
