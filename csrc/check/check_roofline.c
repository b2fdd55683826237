/* check_roofline.c: the limit loops do all of the work that they are timed for. */
#include "check.h"

static int filled(const fnn_kernels *k, const void *p, ptrdiff_t begin, ptrdiff_t end, double value) {
    for (ptrdiff_t i = begin; i < end; i++)
        if (check_get(k, p, i) != value) return 0;
    return 1;
}

int check_roofline(const fnn_kernels *k) {
    const ptrdiff_t n = 48 * k->lanes, chains = k->gemm_mr * k->gemm_nr / k->lanes;
    void *p = check_alloc(k, n);
    const char *name = fnn_isa_name(k->isa);

    /* x = x / 2 + 1 / 2 ends at 1 from anywhere, and the sums of all chains are added up. */
    k->limit(FNN_LIMIT_FMA, 80, n, p);
    check_that(filled(k, p, 0, k->lanes, (double)chains), "%s: chains", name);

    k->limit(FNN_LIMIT_WRITE, 4, n, p);
    check_that(filled(k, p, k->lanes, n, 3), "%s: written", name);
    k->limit(FNN_LIMIT_STREAM_WRITE, 3, n, p);
    check_that(filled(k, p, k->lanes, n, 2), "%s: streamed", name);

    /* Sum i of eight starts at p + i; two rounds add up every vector in each lane. */
    for (ptrdiff_t i = 0; i < n; i++) check_set(k, p, i, 1);
    k->limit(FNN_LIMIT_READ, 2, n, p);
    const double start = 8 + 8 * 7 / 2;
    check_that(filled(k, p, 0, k->lanes, start + 2.0 * (double)(n / k->lanes)), "%s: read",
               name);

    for (int stream = 0; stream < 2; stream++) {
        for (ptrdiff_t i = 0; i < n; i++) check_set(k, p, i, (double)i);
        k->limit(stream ? FNN_LIMIT_STREAM_COPY : FNN_LIMIT_COPY, 1, n, p);
        int copied = 1;
        for (ptrdiff_t i = 0; i < n / 2; i++) copied &= check_get(k, p, n / 2 + i) == (double)i;
        check_that(copied, "%s: copied%s", name, stream ? ", streamed" : "");
    }

    for (ptrdiff_t i = 0; i < n; i++) check_set(k, p, i, 1);
    k->limit(FNN_LIMIT_UPDATE, 4, n, p); /* adds 0, 1, 2, 3 */
    check_that(filled(k, p, k->lanes, n, 7), "%s: updated", name);
    return check_failures();
}
