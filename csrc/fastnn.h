/* fastnn.h: the arithmetic of one core, as a table of functions. This header is its manual.
 *
 * Nothing below allocates, opens a thread, prints, or reads anything but its arguments. Each
 * instruction set fills one table per dtype from the same bodies (see bodies.h); dispatch.c hands out
 * the tables. All data pointers are `void *` and of the table's dtype (float32 or float64), aligned to
 * their element; matrices are row-major with a leading dimension (`ld*`) counted in elements.
 * Callers guarantee valid, non-overlapping memory unless "in place" is said; sizes may be zero.
 * Debug builds (FNN_DEBUG) assert what can be asserted.
 *
 * Sums. Every sum over k runs in the order k = 0, 1, ..., one fused multiply-add (baseline: one
 * multiply, one add) at a time, starting from the bias or from zero, whichever path, tile or block
 * computes it. So an output element has the same bits for any batch, any split of the output between
 * threads, and any position in a tile. Tables of different instruction sets may differ in rounding;
 * the random numbers never do. */
#ifndef FASTNN_H
#define FASTNN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { FNN_F32, FNN_F64, FNN_DTYPES } fnn_dtype;
typedef enum { FNN_BASELINE, FNN_AVX2, FNN_AVX512, FNN_NEON, FNN_ISAS } fnn_isa;

/* Activations f. "From y" means that f'(x) is computed from y = f(x), otherwise from x.
 *   LEAKY_RELU  x > 0 ? x : slope * x          f' = x > 0 ? 1 : slope      (from x; from y if slope >= 0)
 *   RELU        x < 0 ? 0 : x                  f' = x > 0 ? 1 : 0          (from y)
 *   TANH        tanh x                         f' = 1 - y^2                (from y)
 *   SIGMOID     1 / (1 + e^-x)                 f' = y (1 - y)              (from y)
 *   GELU        x Phi(x), Phi the normal CDF   f' = Phi(x) + x phi(x)      (from x)
 *   SILU        x sigmoid(x)                   f' = s (1 + x (1 - s))      (from x) */
typedef enum {
    FNN_IDENTITY, FNN_LEAKY_RELU, FNN_RELU, FNN_TANH, FNN_SIGMOID, FNN_GELU, FNN_SILU, FNN_ACTS
} fnn_act;

/* Elementwise losses l(z, t) on raw outputs, d = z - t:
 *   MSE    d^2                                                l' = 2 d
 *   MAE    |d|                                                l' = sign d (0 at 0)
 *   HUBER  d^2 / 2 if |d| <= delta, else delta (|d| - delta / 2)      l' = d clipped to +-delta
 *   BCE    max(z, 0) - z t + log(1 + e^-|z|), t in [0, 1]     l' = sigmoid(z) - t */
typedef enum { FNN_MSE, FNN_MAE, FNN_HUBER, FNN_BCE } fnn_loss;

/* What a core can do at most: FMA (one multiply, one add) from registers; READ, WRITE and COPY; UPDATE,
 * a read and a write in place; STREAM, with writes that pass by the cache. */
typedef enum {
    FNN_LIMIT_FMA, FNN_LIMIT_READ, FNN_LIMIT_WRITE, FNN_LIMIT_COPY, FNN_LIMIT_UPDATE,
    FNN_LIMIT_STREAM_WRITE, FNN_LIMIT_STREAM_COPY
} fnn_limit;

/* Rows of `bytes`, at least 1, at data + index[i] * stride for i < rows. Of the tiles that may fetch, one in `every`
 * takes a part of a row. The product keeps here how far it is, so each thread needs one of its own: `at` bytes into
 * `row`, and `turn` tiles since then (below 0 before the first). */
typedef struct {
    const char *data;
    const int64_t *index;
    ptrdiff_t stride, bytes, rows, every, row, at, turn;
} fnn_picked;

/* C = epilogue(A B + bias), C of m x n, A of m x k, B of k x n.
 * A(i, p) = a[i * a_rs + p * a_cs] and B(p, j) = b[p * b_rs + j * b_cs]; of each pair of strides one is
 * 1. The three forms of a dense layer, with its weights W kept as the (n_in, n_out) buffer:
 *   forward   Y  = act(X W + b)      a = X,    a_cs = 1;   b = W,  b_cs = 1
 *   dW        G  = X^T dZ            a = X,    a_rs = 1;   b = dZ, b_cs = 1
 *   dX        dX = dZ W^T (* f')     a = dZ,   a_cs = 1;   b = W,  b_rs = 1  (transposed on the way)
 * Epilogue: act(c) when `saved` is NULL; else c * f'(saved), with f' from y or from x as fnn_act says
 * (LEAKY_RELU: f' = saved > 0 ? 1 : slope). `saved` has C's shape and leading dimension lds. */
typedef struct {
    ptrdiff_t m, n, k;
    const void *a;
    ptrdiff_t a_rs, a_cs;
    const void *b;
    ptrdiff_t b_rs, b_cs;
    const void *bias; /* n elements, or NULL for zero */
    void *c;
    ptrdiff_t ldc;
    fnn_act act;
    double slope;
    const void *saved;
    ptrdiff_t lds;
    void *work; /* at least gemm_work(m, n, k, b_cs) bytes, 64-byte aligned; NULL if that is 0 */
    /* What the caller reads next, `soon_bytes` from each (NULL: none): a product with a_rs = 1 may fetch it, and
     * then takes C to be near the core already. */
    const void *soon[3];
    size_t soon_bytes;
    fnn_picked *picked; /* rows that are read after this product and that, or NULL: it may fetch some of them */
    size_t cache; /* bytes of the outermost cache, 0 if unknown: some rows on a B as large take other ways */
} fnn_gemm;

/* Philox4x32-10 (Salmon et al. 2011): ten rounds on a 128-bit counter under a 64-bit key.
 * A stream is named by (seed, stream): key = seed (low word first), counter words 2 and 3 hold the
 * stream (low 48 bits) and the attempt (high 16 bits, for rejection), words 0 and 1 the block number.
 *
 * Elements lie in groups of FNN_RNG_GROUP counters so that stores are contiguous in any vector width.
 * float32 and uint32: group q holds 64 elements; element 64 q + 16 j + l is word j of counter 16 q + l.
 * float64: group q holds 32 elements; element 32 q + 16 j + l is words (2 j, 2 j + 1) of counter
 * 16 q + l, low word first. `start` is a multiple of 64 in every call; `n` is free. */
enum { FNN_RNG_GROUP = 16 };
typedef struct {
    uint64_t seed, stream;
    uint64_t start; /* index of the first element, a multiple of 64 */
} fnn_stream;

void fnn_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

typedef struct fnn_kernels {
    fnn_isa isa;
    fnn_dtype dtype;
    ptrdiff_t itemsize, lanes;  /* bytes of an element; elements of a vector */
    ptrdiff_t gemm_mr, gemm_nr; /* the main tile: rows, columns. Splits along n at multiples of gemm_nr */

    void (*gemm)(const fnn_gemm *g);
    /* never less for a larger m, n or k */
    size_t (*gemm_work)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, ptrdiff_t b_cs);
    /* out[j] = sum over i of g[i * ldg + j], in the order of i */
    void (*column_sums)(ptrdiff_t m, ptrdiff_t n, const void *g, ptrdiff_t ldg, void *out);

    /* y = f(x); d = f'(x); gx = gy * f'(s) with s = y or x as fnn_act says. In place allowed: y may be
     * x, gx may be gy or s. RELU's zero branch yields 0 even where gy is infinite or NaN. */
    void (*act)(fnn_act f, double slope, ptrdiff_t n, const void *x, void *y);
    void (*act_derivative)(fnn_act f, double slope, ptrdiff_t n, const void *x, void *d);
    void (*act_grad)(fnn_act f, double slope, ptrdiff_t n, const void *s, const void *gy, void *gx);

    /* Rows of n: y = e^(x - max) / sum; gx = y * (gy - sum(gy * y)). In place allowed. */
    void (*softmax)(ptrdiff_t m, ptrdiff_t n, const void *x, ptrdiff_t ldx, void *y, ptrdiff_t ldy);
    void (*softmax_grad)(ptrdiff_t m, ptrdiff_t n, const void *y, ptrdiff_t ldy, const void *gy,
                         ptrdiff_t ldgy, void *gx, ptrdiff_t ldgx);

    /* Inverted dropout: element i of the stream is kept with probability 1 - rate, and kept ones are
     * multiplied by 1 / (1 - rate). The same call with gy for x is the backward pass: the mask is a
     * function of the stream alone (element i is kept when its float32 uniform is >= rate). In place
     * allowed. */
    void (*dropout)(const fnn_stream *s, double rate, ptrdiff_t n, const void *x, void *y);

    /* Losses. loss[i] (float64) = w_i * l_i for each row i, with w_i = 1 where w is NULL;
     * grad (NULL: not wanted) = scale * w_i * dl/dz. grad may be z.
     * cross_entropy: l_i = log sum_j e^z_ij - z_i,label (labels in [0, n)); elementwise: sum over the row. */
    void (*cross_entropy)(ptrdiff_t m, ptrdiff_t n, const void *z, ptrdiff_t ldz, const int64_t *labels,
                          const void *w, double scale, void *grad, ptrdiff_t ldg, double *loss);
    void (*elementwise_loss)(fnn_loss kind, double delta, ptrdiff_t m, ptrdiff_t n, const void *z,
                             ptrdiff_t ldz, const void *t, ptrdiff_t ldt, const void *w, double scale,
                             void *grad, ptrdiff_t ldg, double *loss);
    /* out[i] = the first index of the largest z_i (a NaN counts as largest, as in NumPy) */
    void (*argmax)(ptrdiff_t m, ptrdiff_t n, const void *z, ptrdiff_t ldz, int64_t *out);

    /* seen[j] = 1 where x(i, j) > 0 for some i, else as it was; seen holds 0 and 1. A NaN is not > 0. */
    void (*mark_positive)(ptrdiff_t m, ptrdiff_t n, const void *x, ptrdiff_t ldx, void *seen);

    /* Optimizer updates, elementwise over n parameters w with gradients g; state in place.
     * sgd:     g += weight_decay * w; v = first ? g : momentum * v + g; w -= lr * (nesterov ? g + momentum * v : v)
     *          (momentum 0: v may be NULL)
     * adam:    (weight_decay coupled: g += weight_decay * w; decoupled: w -= lr * weight_decay * w)
     *          m = beta1 m + (1 - beta1) g;  s = beta2 s + (1 - beta2) g^2;
     *          w -= lr / bias1 * m / (sqrt(s) / sqrt(bias2) + eps), bias_i = 1 - beta_i^step from the caller
     * rmsprop: g += weight_decay * w; s = alpha s + (1 - alpha) g^2; u = g / (sqrt(s) + eps);
     *          momentum 0: w -= lr u; else v = momentum v + u, w -= lr v
     * On x86 subnormal numbers count as 0 here, and an eps that is one as the least normal number. */
    void (*sgd)(ptrdiff_t n, void *w, const void *g, void *v, double lr, double momentum, int nesterov,
                int first, double weight_decay);
    void (*adam)(ptrdiff_t n, void *w, const void *g, void *m, void *s, double lr, double beta1,
                 double beta2, double eps, double weight_decay, int decoupled, double bias1, double bias2);
    void (*rmsprop)(ptrdiff_t n, void *w, const void *g, void *s, void *v, double lr, double alpha,
                    double eps, double momentum, double weight_decay);

    /* dst row i = src row (index ? index[i] : i), converted to the table's dtype.
     * gather_u8 multiplies by scale (in the table's dtype). */
    void (*gather_f32)(ptrdiff_t m, ptrdiff_t n, const float *src, ptrdiff_t lds, const int64_t *index,
                       void *dst, ptrdiff_t ldd);
    void (*gather_f64)(ptrdiff_t m, ptrdiff_t n, const double *src, ptrdiff_t lds, const int64_t *index,
                       void *dst, ptrdiff_t ldd);
    void (*gather_u8)(ptrdiff_t m, ptrdiff_t n, const uint8_t *src, ptrdiff_t lds, const int64_t *index,
                      double scale, void *dst, ptrdiff_t ldd);

    /* Random fills of elements [s.start, s.start + n): u in [0, 1) with 24 (float32) or 53 (float64)
     * random bits, out = low + u * (high - low), each operation rounded once.
     * normal: mean + std * z, z by Box-Muller from the element's own pair of words (random.h).
     * truncated_normal: z redrawn (attempt 0, 1, ...) until low <= z <= high, then mean + std * z.
     * bits: the raw words, 32 bits each, the same for both dtypes. */
    void (*uniform)(const fnn_stream *s, ptrdiff_t n, void *out, double low, double high);
    void (*normal)(const fnn_stream *s, ptrdiff_t n, void *out, double mean, double std);
    void (*truncated_normal)(const fnn_stream *s, ptrdiff_t n, void *out, double mean, double std,
                             double low, double high);
    void (*bits)(const fnn_stream *s, ptrdiff_t n, uint32_t *out);

    /* `rounds` times: read, write or update n elements at data; copy n / 2 from the first half to the
     * second; or gemm_mr * gemm_nr multiply-adds. data is 64-byte aligned, n a multiple of 16 vectors and not
     * 0; its first vector is overwritten. */
    void (*limit)(fnn_limit what, ptrdiff_t rounds, ptrdiff_t n, void *data);
} fnn_kernels;

/* The table of an instruction set, or NULL where this build or this CPU lacks it. */
const fnn_kernels *fnn_get_kernels(fnn_isa isa, fnn_dtype dtype);
int fnn_isa_supported(fnn_isa isa); /* compiled in, and this CPU has it */
fnn_isa fnn_isa_best(void);
const char *fnn_isa_name(fnn_isa isa); /* "baseline", "avx2", "avx512", "neon" */

#ifdef __cplusplus
}
#endif
#endif
