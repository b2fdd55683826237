/* gemm_common.h: what all ways of the matrix product share: cutting a range into parts, whether
 * rows of B are whole cache lines, and the epilogues that a tile does not do. */

/* a / b for a >= 0, b > 0. Some CPUs take 90 cycles to divide 64 bits and 25 to divide 32. */
INLINE ptrdiff_t FN(quotient)(ptrdiff_t a, ptrdiff_t b) {
    if (__builtin_constant_p(b) || (uint64_t)(a | b) >> 32) return a / b;
    return (ptrdiff_t)((uint32_t)a / (uint32_t)b);
}

/* `parts` nearly equal parts of n: where the i-th begins. */
INLINE ptrdiff_t FN(part)(ptrdiff_t n, ptrdiff_t parts, ptrdiff_t i) {
    const ptrdiff_t each = FN(quotient)(n, parts), extra = n - each * parts;
    return i * each + (i < extra ? i : extra);
}
INLINE ptrdiff_t FN(ceil_div)(ptrdiff_t a, ptrdiff_t b) { return FN(quotient)(a + b - 1, b); }
INLINE ptrdiff_t FN(round_up)(ptrdiff_t a, ptrdiff_t b) { return FN(ceil_div)(a, b) * b; }
INLINE ptrdiff_t FN(least)(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

/* Whether B's rows are not whole cache lines, so that vectors straddle them; only vectors of 64 bytes care. */
INLINE int FN(straddles)(const fnn_gemm *g) {
    return GEMM_COPIES && g->b_rs * (ptrdiff_t)sizeof(REAL) % 64 != 0;
}

/* The epilogues that a tile does not do, over m x n elements of C at (i, j). */
static void FN(finish)(const fnn_gemm *g, ptrdiff_t i, ptrdiff_t j, ptrdiff_t m, ptrdiff_t n) {
    const vec zero = vset1(0), slope = vset1((REAL)g->slope);
    REAL *c = (REAL *)g->c + i * g->ldc + j;
    if (!g->saved) {
        for (; m > 0; m--, c += g->ldc) FN(act)(g->act, g->slope, n, c, c);
        return;
    }
    const REAL *saved = (const REAL *)g->saved + i * g->lds + j;
    for (; m > 0; m--, c += g->ldc, saved += g->lds) {
        if (g->act > FNN_RELU) {
            FN(act_grad)(g->act, g->slope, n, saved, c, c);
            continue;
        }
        ptrdiff_t q = 0;
        for (; q + VL <= n; q += VL) {
            const vec v = vload(c + q), low = g->act == FNN_RELU ? zero : v * slope;
            vstore(c + q, vsel(vgt(vload(saved + q), zero), v, low));
        }
        if (q < n) {
            const vtail tail = vtail_make(n - q);
            const vec v = vload_t(c + q, tail), low = g->act == FNN_RELU ? zero : v * slope;
            vstore_t(c + q, vsel(vgt(vload_t(saved + q, tail), zero), v, low), tail);
        }
    }
}

INLINE int FN(act_in_tile)(const fnn_gemm *g) { return !g->saved && g->act <= FNN_RELU; }
INLINE int FN(act_after)(const fnn_gemm *g) {
    return !FN(act_in_tile)(g) && g->act != FNN_IDENTITY;
}
