/* gemm_held.h: the matrix product for some rows of C and a B that L2 does not hold.
 *
 * Registers hold HELD_DEPTH rows of B, a vector of columns at a time, while all rows of A pass: so B is read once, in
 * long runs, and the next rows of it are fetched meanwhile. The sums wait in `work`, in L2, in the order in which they
 * are wanted: for each vector of columns those of all rows, one after another. Against tiles this takes fewer
 * instructions a multiply-add, and more loads: a B that comes from L2 is better served by tiles. */

#ifndef HELD
#define HELD (GEMM_MR > 8 && VEC_BYTES == 64) /* others are not measured */
#define HELD_DEPTH 16
#define HELD_ROWS 8 /* of A at a time: so many chains of sums run side by side */
#define HELD_MOST 128 /* rows of A; with more, blocks are as good */
#define HELD_COPIED 76 /* the same for float32 where these are copied */
#define HELD_SUMS (512 << 10) /* bytes of sums: columns are cut so that they stay in L2 */
/* Bytes of B from which it is held for more rows than one strip has. Fewer hold one that other data, or other programs,
 * may have driven out of the caches: more than a quarter of the outermost. */
#define HELD_NEAR (3 << 20)
#endif

/* One vector of columns: its sums with `count` rows of B from b on, of which `tail` has the columns. */
static __attribute__((noinline)) void FN(held_vector)(ptrdiff_t count, vtail tail, ptrdiff_t rows, const REAL *x,
                                                      const REAL *b, ptrdiff_t ldb, REAL *y) {
    for (; rows > 0; rows -= HELD_ROWS / 2, x += HELD_ROWS / 2 * HELD_DEPTH, y += HELD_ROWS / 2 * VL) {
        vec sums[HELD_ROWS / 2];
        UNROLL for (int i = 0; i < HELD_ROWS / 2; i++) sums[i] = vload(y + i * VL);
        for (ptrdiff_t q = 0; q < count; q++) {
            const vec w = vload_t(b + q * ldb, tail);
            UNROLL for (int i = 0; i < HELD_ROWS / 2; i++) sums[i] = vfma_at(x + i * HELD_DEPTH + q, w, sums[i]);
        }
        UNROLL for (int i = 0; i < HELD_ROWS / 2; i++) vstore(y + i * VL, sums[i]);
    }
}

/* HELD_DEPTH rows of B: any of 16 is a base register and 0, 1, 2, 3, 4 times a stride, as in tile_body. */
typedef struct {
    const char *row[HELD_DEPTH / 5 + 1];
    ptrdiff_t step, step_3;
} FN(held_lines);

INLINE vec FN(held_line)(const FN(held_lines) *b, int q) {
    return vload((const REAL *)(b->row[q / 5] + (q % 5 == 3 ? b->step_3 : q % 5 * b->step)));
}

/* Adds w's products with some rows of x to their sums at y, and fetches the sums of the next rows. Where `next` is not
 * NULL, w is not wanted any more: each vector is followed at once by that of the next columns, so that L2 is asked
 * for them long before they are needed, one by one. */
INLINE void FN(held_rows)(const int rows, vec *w, const REAL *x, REAL *y, FN(held_lines) *next) {
    vec sums[HELD_ROWS];
    UNROLL for (int i = 0; i < rows; i++) sums[i] = vload(y + i * VL);
    UNROLL for (int q = 0; q < HELD_DEPTH; q++) {
        UNROLL for (int i = 0; i < rows; i++) sums[i] = vfma_at(x + i * HELD_DEPTH + q, w[q], sums[i]);
        if (q % 2) __builtin_prefetch(y + (rows + q / 2) * VL, 1);
        if (next) {
#if HELD /* "v" is x86's alone. Without this compilers load all of them at first. */
            __asm__("" : "+r"(next->row[q / 5]), "+v"(sums[rows - 1]));
#endif
            w[q] = FN(held_line)(next, q);
        }
    }
    UNROLL for (int i = 0; i < rows; i++) vstore(y + i * VL, sums[i]);
}

/* A line of a row of which so many bytes are left; the next row begins `down` bytes after its end. */
INLINE void FN(fetch_line)(const char **ahead, ptrdiff_t *left, ptrdiff_t down, ptrdiff_t step) {
    __builtin_prefetch(*ahead, 0, 2);
    *ahead += VEC_BYTES;
    *left -= VEC_BYTES;
    if (*left == 0) {
        *ahead += down;
        *left = step - down;
    }
}

/* n columns, whole vectors, and HELD_DEPTH rows of B. For each vector as many lines of the next ones are fetched, if
 * there are more, a row after another: memory gives the lines of a row sooner than one of each row in turn. `rows` is
 * a multiple of half of HELD_ROWS. */
static __attribute__((noinline)) void FN(held_columns)(ptrdiff_t n, ptrdiff_t rows, const REAL *x, const REAL *b,
                                                       ptrdiff_t ldb, int more, REAL *y) {
    FN(held_lines) lines = {.step = ldb * (ptrdiff_t)sizeof(REAL)};
    const char *ahead = (const char *)(b + HELD_DEPTH * ldb);
    const ptrdiff_t down = (ldb - n) * (ptrdiff_t)sizeof(REAL);
    ptrdiff_t left = lines.step - down;
    vec w[HELD_DEPTH];
    if (n <= 0) return;
    lines.step_3 = 3 * lines.step;
    UNROLL for (int q = 0; q <= HELD_DEPTH / 5; q++) lines.row[q] = (const char *)b + 5 * q * lines.step;
    __asm__("" : "+r"(lines.step), "+r"(lines.step_3));
    UNROLL for (int q = 0; q < HELD_DEPTH; q++) w[q] = FN(held_line)(&lines, q);
    for (; n > 0; n -= VL) {
        const REAL *some = x;
        ptrdiff_t i = rows, fetches = more ? HELD_DEPTH : 0;
        UNROLL for (int q = 0; q <= HELD_DEPTH / 5; q++) {
            lines.row[q] += n > VL ? VEC_BYTES : 0; /* beyond the end there may be no memory */
            __asm__("" : "+r"(lines.row[q]));
        }
        for (; i > HELD_ROWS; i -= HELD_ROWS, some += HELD_ROWS * HELD_DEPTH, y += HELD_ROWS * VL) {
            /* Two at a time: a burst of fetches would keep the loads of B waiting. */
            for (int q = 0; q < 2 && fetches > 0; q++, fetches--) FN(fetch_line)(&ahead, &left, down, lines.step);
            FN(held_rows)(HELD_ROWS, w, some, y, NULL);
        }
        for (; fetches > 0; fetches--) FN(fetch_line)(&ahead, &left, down, lines.step);
        if (i > HELD_ROWS / 2)
            FN(held_rows)(HELD_ROWS, w, some, y, &lines);
        else
            FN(held_rows)(HELD_ROWS / 2, w, some, y, &lines);
        y += i * VL;
    }
}

/* The rows of A with those that fill the last half of HELD_ROWS. */
INLINE ptrdiff_t FN(held_height)(ptrdiff_t m) { return FN(round_up)(FN(least)(m, HELD_MOST), HELD_ROWS / 2); }

/* All terms of the sums of n columns from j on. */
static void FN(held_terms)(const fnn_gemm *g, ptrdiff_t j, ptrdiff_t n, REAL *x, REAL *y) {
    const ptrdiff_t ldb = g->b_rs, rows = FN(held_height)(g->m), whole = n / VL * VL;
    const vtail tail = vtail_make(n - whole), all = vtail_make(VL);
    const REAL *b = (const REAL *)g->b + j;
    memset(x, 0, (size_t)(rows * HELD_DEPTH) * sizeof(REAL));
    for (ptrdiff_t p = 0, count; p < g->k; p += count, b += count * ldb) {
        count = FN(least)(HELD_DEPTH, g->k - p);
        const vtail low = vtail_make(FN(least)(count, VL)), high = vtail_make(count > VL ? count - VL : 0);
        for (ptrdiff_t i = 0; i < g->m; i++) {
            const REAL *const a = (const REAL *)g->a + i * g->a_rs + p;
            vstore(x + i * HELD_DEPTH, vload_t(a, low));
            if (VL < HELD_DEPTH) vstore(x + i * HELD_DEPTH + VL, vload_t(a + VL, high));
        }
        if (count == HELD_DEPTH) {
            FN(held_columns)(whole, rows, x, b, ldb, p + 2 * HELD_DEPTH <= g->k, y);
        } else {
            for (ptrdiff_t q = 0; q < whole; q += VL) FN(held_vector)(count, all, rows, x, b + q, ldb, y + q * rows);
        }
        if (whole < n) FN(held_vector)(count, tail, rows, x, b + whole, ldb, y + whole * rows);
    }
}

/* Elements of work for up to m rows and n columns. */
INLINE ptrdiff_t FN(held_room)(ptrdiff_t m, ptrdiff_t n) {
    const ptrdiff_t sums = FN(held_height)(m) * FN(round_up)(n, VL), most = HELD_SUMS / (ptrdiff_t)sizeof(REAL);
    return FN(held_height)(m) * HELD_DEPTH + FN(least)(sums, most);
}

static void FN(held)(const fnn_gemm *g) {
    const ptrdiff_t rows = FN(held_height)(g->m);
    const ptrdiff_t columns = HELD_SUMS / (ptrdiff_t)sizeof(REAL) / rows / VL * VL;
    REAL *const x = g->work, *const y = x + rows * HELD_DEPTH;
    for (ptrdiff_t j = 0, n; j < g->n; j += n) {
        n = FN(least)(columns, g->n - j);
        for (ptrdiff_t q = 0; q < n; q += VL) {
            vec start = vset1(0);
            if (g->bias) start = vload_t((const REAL *)g->bias + j + q, vtail_make(FN(least)(VL, n - q)));
            for (ptrdiff_t i = 0; i < rows; i++) vstore(y + q * rows + i * VL, start);
        }
        FN(held_terms)(g, j, n, x, y);
        for (ptrdiff_t i = 0; i < g->m; i++) {
            REAL *const c = (REAL *)g->c + i * g->ldc + j;
            for (ptrdiff_t q = 0; q < n; q += VL)
                vstore_t(c + q, vload(y + q * rows + i * VL), vtail_make(FN(least)(VL, n - q)));
            if (FN(act_in_tile)(g) && g->act != FNN_IDENTITY) FN(act)(g->act, g->slope, n, c, c);
        }
    }
    if (FN(act_after)(g)) FN(finish)(g, 0, 0, g->m, g->n);
}

INLINE int FN(better_held)(const fnn_gemm *g) {
    const ptrdiff_t size = sizeof(REAL), bytes = g->n * g->k * size, whole = g->k * g->b_rs * size;
    const ptrdiff_t cache = g->cache ? (ptrdiff_t)g->cache : STREAM_FAR;
    if (!HELD || g->b_cs != 1 || g->a_cs != 1 || g->m <= STREAM_ROWS || g->k < HELD_DEPTH) return 0;
    if (g->m > (F32 && FN(copied_b)(g) ? HELD_COPIED : HELD_MOST)) return 0;
    return whole > cache / 4 || (g->m > GEMM_MR && bytes >= HELD_NEAR);
}
