/* gemm_pack.h: copies of matrix blocks for gemm.h, in the layouts that the tiles like best. */

/* A square of VL x VL in registers. A round of zips moves the top bit of the row number to the bottom of
 * the column number; log2 VL rounds exchange the two. */
INLINE void FN(transpose_square)(vec *r) {
    enum { LANES = VEC_BYTES / sizeof(REAL) };
    vec z[LANES];
    UNROLL for (int round = 1; round < LANES; round *= 2) {
        UNROLL for (int q = 0; q < LANES / 2; q++) {
            z[2 * q] = vzip_lo(r[q], r[q + LANES / 2]);
            z[2 * q + 1] = vzip_hi(r[q], r[q + LANES / 2]);
        }
        UNROLL for (int q = 0; q < LANES; q++) r[q] = z[q];
    }
}

/* dst[j * ldd + i] = src[i * lds + j] for i < m, j < n. */
static void FN(transpose)(ptrdiff_t m, ptrdiff_t n, const REAL *src, ptrdiff_t lds, REAL *dst,
                          ptrdiff_t ldd) {
    enum { LANES = VEC_BYTES / sizeof(REAL) };
    for (ptrdiff_t i = 0; i < m; i += LANES) {
        const ptrdiff_t height = m - i < LANES ? m - i : LANES;
        const vtail down = vtail_make(height);
        for (ptrdiff_t j = 0; j < n; j += LANES) {
            const ptrdiff_t width = n - j < LANES ? n - j : LANES;
            const REAL *const s = src + i * lds + j;
            REAL *const d = dst + j * ldd + i;
            vec r[LANES];
            if (width == LANES && height == LANES) {
                UNROLL for (int q = 0; q < LANES; q++) r[q] = vload(s + q * lds);
            } else {
                const vtail across = vtail_make(width);
                UNROLL for (int q = 0; q < LANES; q++) {
                    r[q] = vset1(0);
                    if (q < height) r[q] = vload_t(s + q * lds, across);
                }
            }
            FN(transpose_square)(r);
            if (width == LANES && height == LANES) {
                UNROLL for (int q = 0; q < LANES; q++) vstore(d + q * ldd, r[q]);
            } else {
                UNROLL for (int q = 0; q < LANES; q++)
                    if (q < width) vstore_t(d + q * ldd, r[q], down);
            }
        }
    }
}

/* B (k x n), whose rows or columns are contiguous, as panels of GEMM_NV vectors, each k rows long, one
 * after another. */
static void FN(pack_b)(ptrdiff_t k, ptrdiff_t n, const REAL *b, ptrdiff_t b_rs, ptrdiff_t b_cs,
                       REAL *dst) {
    enum { WIDTH = GEMM_NV * (VEC_BYTES / sizeof(REAL)), AHEAD = 8 };
    if (b_cs != 1) {
        for (ptrdiff_t j = 0; j < n; j += WIDTH, dst += k * WIDTH)
            FN(transpose)(n - j < WIDTH ? n - j : WIDTH, k, b + j * b_cs, b_cs, dst, WIDTH);
        return;
    }
    ptrdiff_t j = 0;
    for (; j + WIDTH <= n; j += WIDTH, dst += k * WIDTH) {
        const REAL *from = b + j;
        REAL *d = dst;
        for (ptrdiff_t p = 0; p < k; p++, from += b_rs, d += WIDTH)
            UNROLL for (int q = 0; q < GEMM_NV; q++) {
                __builtin_prefetch(from + AHEAD * b_rs + q * VL);
                vstore(d + q * VL, vload(from + q * VL));
            }
    }
    for (ptrdiff_t p = 0; p < k && j < n; p++, b += b_rs)
        memcpy(dst + p * WIDTH, b + j, (size_t)(n - j) * sizeof(REAL));
}
