/* gemm_pack.h: copies of matrix blocks for gemm.h, in the layouts that the tiles like best. */

/* dst[j * ldd + i] = src[i * lds + j] for i < m, j < n: squares of VL x VL in registers. A round of
 * zips moves the top bit of the row number to the bottom of the column number; log2 VL rounds
 * exchange the two. */
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
            vec r[LANES], z[LANES];
            if (width == LANES && height == LANES) {
                UNROLL for (int q = 0; q < LANES; q++) r[q] = vload(s + q * lds);
            } else {
                const vtail across = vtail_make(width);
                UNROLL for (int q = 0; q < LANES; q++) {
                    r[q] = vset1(0);
                    if (q < height) r[q] = vload_t(s + q * lds, across);
                }
            }
            UNROLL for (int round = 1; round < LANES; round *= 2) {
                UNROLL for (int q = 0; q < LANES / 2; q++) {
                    z[2 * q] = vzip_lo(r[q], r[q + LANES / 2]);
                    z[2 * q + 1] = vzip_hi(r[q], r[q + LANES / 2]);
                }
                UNROLL for (int q = 0; q < LANES; q++) r[q] = z[q];
            }
            if (width == LANES && height == LANES) {
                UNROLL for (int q = 0; q < LANES; q++) vstore(d + q * ldd, r[q]);
            } else {
                UNROLL for (int q = 0; q < LANES; q++)
                    if (q < width) vstore_t(d + q * ldd, r[q], down);
            }
        }
    }
}

/* m rows of n elements. */
static void FN(copy_rows)(ptrdiff_t m, ptrdiff_t n, const REAL *src, ptrdiff_t lds, REAL *dst,
                          ptrdiff_t ldd) {
    for (ptrdiff_t i = 0; i < m; i++, src += lds, dst += ldd) {
        ptrdiff_t j = 0;
        for (; j + VL <= n; j += VL) vstore(dst + j, vload(src + j));
        for (; j < n; j++) dst[j] = src[j];
    }
}

/* B (k x n) as panels of `width` columns, each k x width, one after another. `ld` is the stride
 * between B's rows, or between its columns if `transposed`. */
static void FN(pack_b)(ptrdiff_t k, ptrdiff_t n, ptrdiff_t width, const REAL *b, ptrdiff_t ld,
                       int transposed, REAL *dst) {
    for (ptrdiff_t j = 0; j < n; j += width, dst += k * width) {
        const ptrdiff_t part = n - j < width ? n - j : width;
        if (transposed)
            FN(transpose)(part, k, b + j * ld, ld, dst, width);
        else
            FN(copy_rows)(k, part, b + j, ld, dst, width);
    }
}
