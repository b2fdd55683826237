/* roofline.h: loops that do nothing but run one core at a limit of its own, for benches to compare with.
 * FMA takes as many independent sums as the gemm tile holds: enough to hide the latency, few enough
 * for the registers. READ adds up, as a load alone would be optimized away. */

#define LIMIT_VECTORS 8 /* of one turn of a memory loop */
#define LIMIT_LOOP(end)                                                                            \
    for (ptrdiff_t i = 0; i + LIMIT_VECTORS * VL <= (end); i += LIMIT_VECTORS * VL)                \
        UNROLL for (int j = 0; j < LIMIT_VECTORS; j++)

INLINE void FN(limit_loop)(const fnn_limit what, ptrdiff_t rounds, ptrdiff_t n, REAL *p) {
    const ptrdiff_t middle = n / 2;
    const int sums = what == FNN_LIMIT_FMA ? GEMM_MR * GEMM_NV : what == FNN_LIMIT_READ ? LIMIT_VECTORS : 1;
    const vec half = vset1((REAL)0.5);
    vec sum[GEMM_MR * GEMM_NV];
    /* From values of their own: equal sums would be computed once. */
    UNROLL for (int i = 0; i < sums; i++) sum[i] = vload(p) + vset1((REAL)i);
    for (ptrdiff_t round = 0; round < rounds; round++) {
        __asm__ volatile("" ::: "memory"); /* no round is merged with the next */
        const vec v = vset1((REAL)round);
        switch (what) {
        case FNN_LIMIT_FMA:
            UNROLL for (int i = 0; i < sums; i++) sum[i] = vfma(sum[i], half, half);
            break;
        case FNN_LIMIT_READ: LIMIT_LOOP(n) sum[j] += vload(p + i + j * VL); break;
        case FNN_LIMIT_WRITE: LIMIT_LOOP(n) vstore(p + i + j * VL, v); break;
        case FNN_LIMIT_COPY:
            LIMIT_LOOP(middle) vstore(p + middle + i + j * VL, vload(p + i + j * VL));
            break;
        case FNN_LIMIT_UPDATE:
            LIMIT_LOOP(n) vstore(p + i + j * VL, vload(p + i + j * VL) + v);
            break;
        case FNN_LIMIT_STREAM_WRITE:
            LIMIT_LOOP(n) vstream(p + i + j * VL, v);
            vstream_end();
            break;
        case FNN_LIMIT_STREAM_COPY:
            LIMIT_LOOP(middle) vstream(p + middle + i + j * VL, vload(p + i + j * VL));
            vstream_end();
            break;
        }
    }
    UNROLL for (int i = 1; i < sums; i++) sum[0] += sum[i];
    vstore(p, sum[0]);
}

static void FN(limit)(fnn_limit what, ptrdiff_t rounds, ptrdiff_t n, void *data) {
#define LIMIT_CASE(name) case name: FN(limit_loop)(name, rounds, n, data); break
    switch (what) {
    LIMIT_CASE(FNN_LIMIT_FMA);
    LIMIT_CASE(FNN_LIMIT_READ);
    LIMIT_CASE(FNN_LIMIT_WRITE);
    LIMIT_CASE(FNN_LIMIT_COPY);
    LIMIT_CASE(FNN_LIMIT_UPDATE);
    LIMIT_CASE(FNN_LIMIT_STREAM_WRITE);
    LIMIT_CASE(FNN_LIMIT_STREAM_COPY);
    }
#undef LIMIT_CASE
}
#undef LIMIT_LOOP
#undef LIMIT_VECTORS
