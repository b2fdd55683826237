/* losses.h: losses on raw outputs, row by row, with the gradient in the same pass. A row's loss is
 * a float64; what is summed over a row is summed as rows.h says. */

/* The logarithms of VL rows are taken at once; until then loss[i] holds max z_i - z_i,label. */
static void FN(cross_entropy)(ptrdiff_t m, ptrdiff_t n, const void *z, ptrdiff_t ldz,
                              const int64_t *labels, const void *w, double scale, void *grad,
                              ptrdiff_t ldg, double *loss) {
    const REAL *weights = w;
    const vec one = vset1(1);
    for (ptrdiff_t begin = 0; begin < m; begin += VL) {
        const ptrdiff_t end = m - begin < VL ? m : begin + VL;
        REAL sums[VL], logs[VL];
        vstore(sums, one);
        for (ptrdiff_t i = begin; i < end; i++) {
            const REAL *zi = (const REAL *)z + i * ldz;
            REAL *gi = grad ? (REAL *)grad + i * ldg : NULL;
            const ptrdiff_t label = labels[i];
            assert(label >= 0 && label < n);
            const vec top = FN(row_top)(n, zi);
            const REAL factor = (REAL)(weights ? scale * weights[i] : scale);
            loss[i] = (double)top[0] - zi[label];
            if (n <= VL) { /* the row stays in a register */
                const vec e = FN(row_power)(zi, n, top), sum = vsum(e);
                const vec hot = vsel(veq(viota(), vset1((REAL)label)), one, (vec){0});
                sums[i - begin] = sum[0];
                if (gi) FN(row_store)(gi, n, (e * (one / sum) - hot) * vset1(factor));
                continue;
            }
            const vec sum = FN(row_exp)(n, zi, top, gi);
            sums[i - begin] = sum[0];
            if (!gi) continue;
            const vec r = one / sum;
            const REAL hot = (gi[label] * r[0] - 1) * factor;
            for (ptrdiff_t j = 0; j < n; j += VL)
                FN(row_store)(gi + j, n - j, FN(row_load)(gi + j, n - j) * r * vset1(factor));
            gi[label] = hot;
        }
        vstore(logs, FN(log)(vload(sums)));
        for (ptrdiff_t i = begin; i < end; i++)
            loss[i] = (loss[i] + (double)logs[i - begin]) * (weights ? (double)weights[i] : 1.0);
    }
}

/* l(z, t), and its derivative in *slope. */
INLINE vec FN(loss_vec)(fnn_loss kind, vec delta, vec z, vec t, vec *slope) {
    const vec zero = {0}, one = vset1(1), half = vset1(0.5f), d = z - t, a = vabs(d);
    const vmask far = vgt(a, delta);
    switch (kind) {
    case FNN_MSE:
        *slope = d + d;
        return d * d;
    case FNN_MAE:
        *slope = vsel(vgt(a, zero), vneg_if(one, d), d); /* d: 0, or NaN */
        return a;
    case FNN_HUBER:
        *slope = vsel(far, vneg_if(delta, d), d);
        return vsel(far, delta * (a - delta * half), d * d * half);
    default: { /* BCE */
        const vec e = FN(exp_negative)(-vabs(z)); /* serves the sigmoid, too */
        *slope = vsel(vlt(z, zero), e, one) / (e + one) - t;
        return vfma(-z, t, vsel(vlt(z, zero), zero, z)) + FN(log1p)(e);
    }
    }
}

INLINE void FN(loss_rows)(fnn_loss kind, double delta, ptrdiff_t m, ptrdiff_t n, const REAL *z,
                          ptrdiff_t ldz, const REAL *t, ptrdiff_t ldt, const REAL *w, double scale,
                          REAL *grad, ptrdiff_t ldg, double *loss) {
    const vec zero = {0}, bound = vset1((REAL)delta);
    for (ptrdiff_t i = 0; i < m; i++, z += ldz, t += ldt) {
        const vec factor = vset1((REAL)(w ? scale * w[i] : scale));
        vf64 sum = {0};
        for (ptrdiff_t j = 0; j < n; j += VL) {
            vec slope, l = FN(loss_vec)(kind, bound, FN(row_load)(z + j, n - j),
                                        FN(row_load)(t + j, n - j), &slope);
            if (n - j < VL) l = vsel(vfirst(n - j), l, zero);
            vwiden(&sum, l);
            if (grad) FN(row_store)(grad + i * ldg + j, n - j, slope * factor);
        }
        loss[i] = vsum_f64(sum)[0] * (w ? (double)w[i] : 1.0);
    }
}

static void FN(elementwise_loss)(fnn_loss kind, double delta, ptrdiff_t m, ptrdiff_t n,
                                 const void *z, ptrdiff_t ldz, const void *t, ptrdiff_t ldt,
                                 const void *w, double scale, void *grad, ptrdiff_t ldg,
                                 double *loss) {
#define LOSS_ROWS(KIND) \
    FN(loss_rows)(KIND, delta, m, n, z, ldz, t, ldt, w, scale, grad, ldg, loss)
    switch (kind) {
    case FNN_MSE: LOSS_ROWS(FNN_MSE); break;
    case FNN_MAE: LOSS_ROWS(FNN_MAE); break;
    case FNN_HUBER: LOSS_ROWS(FNN_HUBER); break;
    default: LOSS_ROWS(FNN_BCE);
    }
#undef LOSS_ROWS
}
