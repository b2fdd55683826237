/* gemm_pack.h: copies of matrix blocks for gemm.h, in the layouts that the tiles like best. */

/* r[q] = column q of 16 bytes of each of VL rows from p on. A vector is loaded in pieces of 16 bytes from
 * rows that far apart that only elements within 16 bytes are left to exchange: half of the shuffles
 * of a transposition of whole rows, and none of them crosses 16 bytes. */
INLINE void FN(exchange)(const vec *piece, vec *r) {
#if F32
    const vf64 ab_lo = (vf64)vzip_lo(piece[0], piece[1]), ab_hi = (vf64)vzip_hi(piece[0], piece[1]);
    const vf64 cd_lo = (vf64)vzip_lo(piece[2], piece[3]), cd_hi = (vf64)vzip_hi(piece[2], piece[3]);
    r[0] = (vec)vzip_lo_f64(ab_lo, cd_lo);
    r[1] = (vec)vzip_hi_f64(ab_lo, cd_lo);
    r[2] = (vec)vzip_lo_f64(ab_hi, cd_hi);
    r[3] = (vec)vzip_hi_f64(ab_hi, cd_hi);
#else
    r[0] = vzip_lo(piece[0], piece[1]);
    r[1] = vzip_hi(piece[0], piece[1]);
#endif
}

INLINE void FN(transpose_chunk)(const REAL *p, ptrdiff_t ld, vec *r) {
    enum { E = 16 / sizeof(REAL) };
    vec piece[E];
    UNROLL for (int i = 0; i < E; i++) piece[i] = vpieces(p + i * ld, E * ld);
    FN(exchange)(piece, r);
}

/* The pieces of the square of VL x VL at p, those of E columns in E vectors, still to be exchanged. A row's
 * are read one after another: where rows are pages apart, L1 cannot hold a line of each. */
INLINE void FN(square_pieces)(const REAL *p, ptrdiff_t ld, vec *piece) {
    enum { E = 16 / sizeof(REAL), CHUNKS = VEC_BYTES / 16 };
    UNROLL for (int i = 0; i < E; i++)
        UNROLL for (int c = 0; c < CHUNKS; c++) piece[c * E + i] = vpieces(p + i * ld + c * E, E * ld);
}

/* r[q] = column q of that square. */
INLINE void FN(transpose_square)(const REAL *p, ptrdiff_t ld, vec *r) {
    enum { E = 16 / sizeof(REAL), LANES = VEC_BYTES / sizeof(REAL) };
    vec piece[LANES];
    FN(square_pieces)(p, ld, piece);
    UNROLL for (int q = 0; q < LANES; q += E) FN(exchange)(piece + q, r + q);
}

/* The same for a square of which only height x width elements exist, to columns of VL elements. Other
 * elements are zero. */
static void FN(transpose_part)(ptrdiff_t height, ptrdiff_t width, const REAL *p, ptrdiff_t ld,
                               REAL *columns) {
    enum { LANES = VEC_BYTES / sizeof(REAL) };
    REAL square[LANES * LANES] __attribute__((aligned(VEC_BYTES)));
    const vtail across = vtail_make(width < LANES ? width : LANES);
    vec r[LANES];
    for (ptrdiff_t q = 0; q < LANES; q++) {
        vec row = vset1(0);
        if (q < height) row = vload_t(p + q * ld, across);
        vstore(square + q * LANES, row);
    }
    FN(transpose_square)(square, LANES, r);
    UNROLL for (int q = 0; q < LANES; q++) vstore(columns + q * LANES, r[q]);
}

/* dst[j * ldd + i] = src[i * lds + j] for i < m, j < n. There are `rows` rows of src, m or more: squares are read
 * whole where they exist, though less is stored. */
static void FN(transpose)(ptrdiff_t m, ptrdiff_t rows, ptrdiff_t n, const REAL *src, ptrdiff_t lds, REAL *dst,
                          ptrdiff_t ldd) {
    enum { LANES = VEC_BYTES / sizeof(REAL) };
    for (ptrdiff_t i = 0; i < m; i += LANES) {
        const ptrdiff_t height = m - i < LANES ? m - i : LANES;
        const vtail down = vtail_make(height);
        for (ptrdiff_t j = 0; j < n; j += LANES) {
            const ptrdiff_t width = n - j < LANES ? n - j : LANES;
            const REAL *const s = src + i * lds + j;
            REAL *const d = dst + j * ldd + i;
            if (width == LANES && i + LANES <= rows) {
                vec r[LANES];
                FN(transpose_square)(s, lds, r);
                if (height == LANES)
                    UNROLL for (int q = 0; q < LANES; q++) vstore(d + q * ldd, r[q]);
                else
                    UNROLL for (int q = 0; q < LANES; q++) vstore_t(d + q * ldd, r[q], down);
            } else {
                REAL columns[LANES * LANES] __attribute__((aligned(VEC_BYTES)));
                FN(transpose_part)(height, width, s, lds, columns);
                for (ptrdiff_t q = 0; q < width; q++)
                    vstore_t(d + q * ldd, vload(columns + q * LANES), down);
            }
        }
    }
}

/* A strip of A, mr x k elements, to k columns of GEMM_MR. From `a` on there are `rows` rows, mr or more, which may
 * be copied too. */
static void FN(copy_strip)(ptrdiff_t mr, ptrdiff_t rows, ptrdiff_t k, const REAL *a, ptrdiff_t a_rs, ptrdiff_t a_cs,
                           REAL *to) {
    assert(GEMM_COPIES || a_cs != 1);
    if (GEMM_COPIES && a_cs == 1) {
        FN(transpose)(mr, rows, k, a, a_rs, to, GEMM_MR);
    } else if (rows >= GEMM_MR) {
        for (ptrdiff_t p = 0; p < k; p++) memcpy(to + p * GEMM_MR, a + p * a_cs, GEMM_MR * sizeof(REAL));
    } else {
        for (ptrdiff_t p = 0; p < k; p++)
            for (ptrdiff_t i = 0; i < mr; i++) to[p * GEMM_MR + i] = a[p * a_cs + i];
    }
}

/* B (k x n), whose rows or columns are contiguous, as panels of GEMM_NV vectors, each k rows long, one
 * after another. */
static void FN(pack_b)(ptrdiff_t k, ptrdiff_t n, const REAL *b, ptrdiff_t b_rs, ptrdiff_t b_cs,
                       REAL *dst) {
    enum { WIDTH = GEMM_NV * (VEC_BYTES / sizeof(REAL)), AHEAD = 8 };
    if (b_cs != 1) {
        for (ptrdiff_t j = 0; j < n; j += WIDTH, dst += k * WIDTH)
            FN(transpose)(FN(least)(n - j, WIDTH), FN(least)(n - j, WIDTH), k, b + j * b_cs, b_cs, dst, WIDTH);
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
