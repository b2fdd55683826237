# The declarations of csrc/fastnn.h, which is their manual.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "fastnn.h" nogil:
    ctypedef enum fnn_dtype:
        FNN_F32
        FNN_F64
        FNN_DTYPES

    ctypedef enum fnn_isa:
        FNN_BASELINE
        FNN_AVX2
        FNN_AVX512
        FNN_NEON
        FNN_ISAS

    ctypedef enum fnn_act:
        FNN_IDENTITY
        FNN_LEAKY_RELU
        FNN_RELU
        FNN_TANH
        FNN_SIGMOID
        FNN_GELU
        FNN_SILU
        FNN_ACTS

    ctypedef enum fnn_loss:
        FNN_MSE
        FNN_MAE
        FNN_HUBER
        FNN_BCE

    ctypedef enum fnn_limit:
        FNN_LIMIT_FMA
        FNN_LIMIT_READ
        FNN_LIMIT_WRITE
        FNN_LIMIT_COPY
        FNN_LIMIT_UPDATE
        FNN_LIMIT_STREAM_WRITE
        FNN_LIMIT_STREAM_COPY

    ctypedef struct fnn_picked:
        const char *data
        const int64_t *index
        Py_ssize_t stride, bytes, rows, every, row, at, turn

    ctypedef struct fnn_gemm:
        Py_ssize_t m, n, k
        const void *a
        Py_ssize_t a_rs, a_cs
        const void *b
        Py_ssize_t b_rs, b_cs
        const void *bias
        void *c
        Py_ssize_t ldc
        fnn_act act
        double slope
        const void *saved
        Py_ssize_t lds
        void *work
        const void *soon[3]
        size_t soon_bytes
        fnn_picked *picked
        size_t cache

    ctypedef struct fnn_stream:
        uint64_t seed, stream
        uint64_t start

    void fnn_philox4x32(const uint32_t *counter, const uint32_t *key, uint32_t *out)

    ctypedef struct fnn_kernels:
        fnn_isa isa
        fnn_dtype dtype
        Py_ssize_t itemsize, lanes
        Py_ssize_t gemm_mr, gemm_nr
        void (*gemm)(const fnn_gemm *g) noexcept nogil
        size_t (*gemm_work)(Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, Py_ssize_t b_cs) noexcept nogil
        void (*column_sums)(Py_ssize_t m, Py_ssize_t n, const void *g, Py_ssize_t ldg, void *out) noexcept nogil
        void (*act)(fnn_act f, double slope, Py_ssize_t n, const void *x, void *y) noexcept nogil
        void (*act_derivative)(fnn_act f, double slope, Py_ssize_t n, const void *x, void *d) noexcept nogil
        void (*act_grad)(fnn_act f, double slope, Py_ssize_t n, const void *s, const void *gy,
                         void *gx) noexcept nogil
        void (*softmax)(Py_ssize_t m, Py_ssize_t n, const void *x, Py_ssize_t ldx, void *y,
                        Py_ssize_t ldy) noexcept nogil
        void (*softmax_grad)(Py_ssize_t m, Py_ssize_t n, const void *y, Py_ssize_t ldy,
                             const void *gy, Py_ssize_t ldgy, void *gx, Py_ssize_t ldgx) noexcept nogil
        void (*dropout)(const fnn_stream *s, double rate, Py_ssize_t n, const void *x,
                        void *y) noexcept nogil
        void (*cross_entropy)(Py_ssize_t m, Py_ssize_t n, const void *z, Py_ssize_t ldz,
                              const int64_t *labels, const void *w, double scale, void *grad,
                              Py_ssize_t ldg, double *loss) noexcept nogil
        void (*elementwise_loss)(fnn_loss kind, double delta, Py_ssize_t m, Py_ssize_t n,
                                 const void *z, Py_ssize_t ldz, const void *t, Py_ssize_t ldt,
                                 const void *w, double scale, void *grad, Py_ssize_t ldg,
                                 double *loss) noexcept nogil
        void (*argmax)(Py_ssize_t m, Py_ssize_t n, const void *z, Py_ssize_t ldz,
                       int64_t *out) noexcept nogil
        void (*mark_positive)(Py_ssize_t m, Py_ssize_t n, const void *x, Py_ssize_t ldx,
                              void *seen) noexcept nogil
        void (*sgd)(Py_ssize_t n, void *w, const void *g, void *v, double lr, double momentum,
                    int nesterov, int first, double weight_decay) noexcept nogil
        void (*adam)(Py_ssize_t n, void *w, const void *g, void *m, void *s, double lr,
                     double beta1, double beta2, double eps, double weight_decay, int decoupled,
                     double bias1, double bias2) noexcept nogil
        void (*rmsprop)(Py_ssize_t n, void *w, const void *g, void *s, void *v, double lr,
                        double alpha, double eps, double momentum, double weight_decay) noexcept nogil
        void (*gather_f32)(Py_ssize_t m, Py_ssize_t n, const float *src, Py_ssize_t lds,
                           const int64_t *index, void *dst, Py_ssize_t ldd) noexcept nogil
        void (*gather_f64)(Py_ssize_t m, Py_ssize_t n, const double *src, Py_ssize_t lds,
                           const int64_t *index, void *dst, Py_ssize_t ldd) noexcept nogil
        void (*gather_u8)(Py_ssize_t m, Py_ssize_t n, const uint8_t *src, Py_ssize_t lds,
                          const int64_t *index, double scale, void *dst, Py_ssize_t ldd) noexcept nogil
        void (*uniform)(const fnn_stream *s, Py_ssize_t n, void *out, double low,
                        double high) noexcept nogil
        void (*normal)(const fnn_stream *s, Py_ssize_t n, void *out, double mean,
                       double std) noexcept nogil
        void (*truncated_normal)(const fnn_stream *s, Py_ssize_t n, void *out, double mean,
                                 double std, double low, double high) noexcept nogil
        void (*bits)(const fnn_stream *s, Py_ssize_t n, uint32_t *out) noexcept nogil
        void (*limit)(fnn_limit what, Py_ssize_t rounds, Py_ssize_t n, void *data) noexcept nogil

    const fnn_kernels *fnn_get_kernels(fnn_isa isa, fnn_dtype dtype)
    int fnn_isa_supported(fnn_isa isa)
    fnn_isa fnn_isa_best()
    const char *fnn_isa_name(fnn_isa isa)
