/* check_gemm.c: the matrix product against a naive one, on exact integers and on random numbers;
 * the same bits for any batch and any split; nothing touched outside the operands. */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum form { FORWARD, DW, DX, FORMS };
static const char *const form_name[] = {"forward", "dW", "dX"};
enum { PAD = 3, GUARD = 12345 };

/* Operands end where an unreadable page begins, so a read or write past the end is a fault. */
typedef struct {
    char *base;
    size_t size;
} arena;

static arena arena_make(size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), size = (bytes + page - 1) / page * page;
    const int access = PROT_READ | PROT_WRITE, kind = MAP_PRIVATE | MAP_ANONYMOUS;
    char *base = mmap(NULL, size + page, access, kind, -1, 0);
    if (base == MAP_FAILED || mprotect(base + size, page, PROT_NONE)) abort();
    return (arena){base, size};
}

static void arena_free(arena *a) {
    munmap(a->base, a->size + (size_t)sysconf(_SC_PAGESIZE));
}

static void *arena_end(const arena *a, size_t bytes) {
    if (bytes > a->size) abort();
    return a->base + a->size - bytes;
}

/* One product with its operands. `pad` elements lie between the rows of every matrix. */
typedef struct {
    const fnn_kernels *k;
    fnn_gemm g;
    fnn_picked picked;
    enum form form;
    ptrdiff_t a_rows, a_width, b_rows, b_width, pad;
    arena a, b, bias, c, saved, work;
} problem;

static ptrdiff_t span(ptrdiff_t rows, ptrdiff_t width, ptrdiff_t pad) {
    return rows ? (rows - 1) * (width + pad) + width : 0;
}

static problem problem_make(const fnn_kernels *k, size_t bytes) {
    problem p = {.k = k, .a = arena_make(bytes), .b = arena_make(bytes), .bias = arena_make(bytes),
                 .c = arena_make(bytes), .saved = arena_make(bytes), .work = arena_make(64)};
    return p;
}

static void problem_free(problem *p) {
    arena_free(&p->a), arena_free(&p->b), arena_free(&p->bias);
    arena_free(&p->c), arena_free(&p->saved), arena_free(&p->work);
}

static void fill(const fnn_kernels *k, void *x, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t pad,
                 int integers) {
    for (ptrdiff_t i = 0; i < rows; i++) {
        for (ptrdiff_t j = 0; j < width; j++)
            check_set(k, x, i * (width + pad) + j,
                      integers ? check_integer(integers) : check_uniform());
        for (ptrdiff_t j = width; j < width + pad && i + 1 < rows; j++)
            check_set(k, x, i * (width + pad) + j, NAN);
    }
}

static void set_guards(problem *p) {
    const ptrdiff_t n = span(p->g.m, p->g.n, p->pad);
    for (ptrdiff_t i = 0; i < n; i++)
        check_set(p->k, p->g.c, i, i % p->g.ldc < p->g.n ? NAN : GUARD);
}

/* Sizes and fresh data; `integers` is their largest size, or 0 for uniform numbers. */
static void shape(problem *p, enum form form, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, ptrdiff_t pad,
                  int integers, int with_bias, int with_saved) {
    const size_t size = (size_t)p->k->itemsize;
    fnn_gemm *g = &p->g;
    p->form = form;
    p->pad = pad;
    p->a_rows = form == DW ? k : m, p->a_width = form == DW ? m : k;
    p->b_rows = form == DX ? n : k, p->b_width = form == DX ? k : n;
    memset(g, 0, sizeof *g);
    g->m = m, g->n = n, g->k = k;
    void *a = arena_end(&p->a, (size_t)span(p->a_rows, p->a_width, pad) * size);
    void *b = arena_end(&p->b, (size_t)span(p->b_rows, p->b_width, pad) * size);
    fill(p->k, a, p->a_rows, p->a_width, pad, integers);
    fill(p->k, b, p->b_rows, p->b_width, pad, integers);
    g->a = a, g->b = b;
    g->a_rs = form == DW ? 1 : k + pad, g->a_cs = form == DW ? m + pad : 1;
    g->b_rs = form == DX ? 1 : n + pad, g->b_cs = form == DX ? k + pad : 1;
    if (with_bias) {
        void *bias = arena_end(&p->bias, (size_t)n * size);
        fill(p->k, bias, 1, n, 0, integers);
        g->bias = bias;
    }
    g->ldc = g->lds = n + pad;
    g->c = arena_end(&p->c, (size_t)span(m, n, pad) * size);
    if (with_saved) {
        void *saved = arena_end(&p->saved, (size_t)span(m, n, pad) * size);
        fill(p->k, saved, m, n, pad, integers);
        g->saved = saved;
    }
    g->soon[0] = g->c, g->soon[1] = a; /* fetched, whatever there is; the second one's end is past a guard */
    g->soon_bytes = (size_t)(m * n) * size;
    static const int64_t rows[] = {2, 0, 1};
    p->picked = (fnn_picked){.data = a, .index = rows, .stride = 77, .bytes = 300, .rows = 3, .every = 2, .turn = -1};
    g->picked = &p->picked;
}

static void run(const problem *p, fnn_gemm *g) {
    const size_t bytes = (p->k->gemm_work(g->m, g->n, g->k, g->b_cs) + 63) / 64 * 64;
    arena work = p->work;
    if (bytes > work.size) work = arena_make(bytes);
    g->work = bytes ? arena_end(&work, bytes) : NULL;
    p->k->gemm(g);
    if (work.base != p->work.base) arena_free(&work);
}

static double a_at(const problem *p, ptrdiff_t i, ptrdiff_t q) {
    return check_get(p->k, p->g.a, i * p->g.a_rs + q * p->g.a_cs);
}
static double b_at(const problem *p, ptrdiff_t q, ptrdiff_t j) {
    return check_get(p->k, p->g.b, q * p->g.b_rs + j * p->g.b_cs);
}

/* What the epilogue makes of c, exact for the piecewise linear activations on small integers. */
static double epilogue(const fnn_gemm *g, double c, double saved) {
    const double factor = g->act == FNN_LEAKY_RELU ? g->slope : 0;
    if (g->act == FNN_IDENTITY) return c;
    if (g->saved) return saved > 0 ? c : factor * c + 0.0;
    return g->act == FNN_LEAKY_RELU ? (c > 0 ? c : g->slope * c) : c < 0 ? 0 : c;
}

/* sum and absolute sum of each element, in float64 (long double for float64 data) */
static void reference(const problem *p, long double *sums, double *sizes) {
    const fnn_gemm *g = &p->g;
    for (ptrdiff_t i = 0; i < g->m; i++)
        for (ptrdiff_t j = 0; j < g->n; j++) {
            const double bias = g->bias ? check_get(p->k, g->bias, j) : 0;
            sums[i * g->n + j] = bias;
            sizes[i * g->n + j] = fabs(bias);
        }
    for (ptrdiff_t i = 0; i < g->m; i++)
        for (ptrdiff_t q = 0; q < g->k; q++)
            for (ptrdiff_t j = 0; j < g->n; j++) {
                const long double product = (long double)a_at(p, i, q) * b_at(p, q, j);
                sums[i * g->n + j] += product;
                sizes[i * g->n + j] += fabs((double)product);
            }
}

static int guards_hold(const problem *p) {
    const ptrdiff_t n = span(p->g.m, p->g.n, p->pad);
    for (ptrdiff_t i = 0; i < n; i++)
        if (i % p->g.ldc >= p->g.n && check_get(p->k, p->g.c, i) != GUARD) return 0;
    return 1;
}

/* Small integers: every sum is exact, so the product must be equal to the naive one. */
static void check_exact(problem *p, enum form form, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k,
                        int variant) {
    static const struct {
        fnn_act act;
        double slope;
        int bias, saved;
    } variants[] = {
        {FNN_IDENTITY, 0, 1, 0}, {FNN_LEAKY_RELU, 2, 1, 0}, {FNN_RELU, 0, 0, 0},
        {FNN_IDENTITY, 0, 0, 0}, {FNN_LEAKY_RELU, -3, 0, 1}, {FNN_LEAKY_RELU, 0, 1, 0},
        {FNN_RELU, 0, 0, 1}, {FNN_RELU, 0, 1, 0},
        {FNN_LEAKY_RELU, -1, 0, 0}, {FNN_IDENTITY, 0, 0, 1}, {FNN_LEAKY_RELU, 0.5, 1, 1},
    };
    const int v = variant % (int)(sizeof variants / sizeof variants[0]);
    shape(p, form, m, n, k, variant % 2 ? PAD : 0, 2, variants[v].bias, variants[v].saved);
    fnn_gemm *g = &p->g;
    g->act = variants[v].act, g->slope = variants[v].slope;
    set_guards(p);
    run(p, g);
    ptrdiff_t wrong = 0;
    double *sums = malloc(sizeof *sums * (size_t)(n ? n : 1));
    for (ptrdiff_t i = 0; i < m; i++) {
        for (ptrdiff_t j = 0; j < n; j++) sums[j] = g->bias ? check_get(p->k, g->bias, j) : 0;
        for (ptrdiff_t q = 0; q < k; q++) {
            const double x = a_at(p, i, q);
            for (ptrdiff_t j = 0; j < n; j++) sums[j] += x * b_at(p, q, j);
        }
        for (ptrdiff_t j = 0; j < n; j++) {
            const double saved = g->saved ? check_get(p->k, g->saved, i * g->lds + j) : 0;
            wrong += check_get(p->k, g->c, i * g->ldc + j) != epilogue(g, sums[j], saved);
        }
    }
    free(sums);
    check_that(!wrong && guards_hold(p),
               "%s m=%td n=%td k=%td variant %d: %td wrong, guards %s", form_name[form], m, n, k, v,
               wrong, guards_hold(p) ? "hold" : "broken");
}

static void check_sizes(const fnn_kernels *k) {
    const ptrdiff_t mr = k->gemm_mr, nr = k->gemm_nr, vl = k->lanes;
    const ptrdiff_t kc = k->isa == FNN_AVX512 ? 384 : (mr > 8 ? 1536 : 1024) / k->itemsize; /* of a B^T: KC of gemm.h */
    const ptrdiff_t ms[] = {0, 1, 2, 3, 4, 5, mr - 1, mr, mr + 1, 2 * mr + 3};
    const ptrdiff_t ns[] = {0, 1, 2, vl - 1, vl, vl + 1, nr - 1, nr, nr + 1, 2 * nr + 1, 100};
    const ptrdiff_t ks[] = {0, 1, 2, 7, 64, kc - 1, kc, kc + 1};
    problem p = problem_make(k, (size_t)(200 * (kc + 800) * k->itemsize));
    int variant = 0;
    for (int form = 0; form < FORMS; form++)
        for (size_t i = 0; i < sizeof ms / sizeof ms[0]; i++)
            for (size_t j = 0; j < sizeof ns / sizeof ns[0]; j++)
                for (size_t q = 0; q < sizeof ks / sizeof ks[0]; q++)
                    check_exact(&p, (enum form)form, ms[i], ns[j], ks[q], variant++);
    for (int form = 0; form < FORMS; form++) /* every width, and every number of rows */
        for (ptrdiff_t size = 1; size <= 130; size++) {
            check_exact(&p, (enum form)form, 1 + size % 3, size, 9, variant++);
            check_exact(&p, (enum form)form, size, 1 + 7 * (size % 6), 9, variant++);
            if (size <= 4 * mr) check_exact(&p, (enum form)form, size, 5 * nr - 1, 9, variant++);
        }
    for (int form = 0; form < FORMS; form++) /* by panels: the least depths and the most, and several chunks */
        for (int v = 0; v < 2; v++) {
            check_exact(&p, (enum form)form, 41, 2 * nr + v, 0, v);
            check_exact(&p, (enum form)form, 41, 2 * nr + v, 1, v);
            check_exact(&p, (enum form)form, 100, nr, 1280 / k->itemsize + v, v); /* PANEL_DEPTH */
            check_exact(&p, (enum form)form, 200, 3 * nr + v, 40, 2 * v);
        }
    for (int v = 0; v < 2 && k->dtype == FNN_F64; v++) { /* a B that is cut, not copied; the deepest blocks */
        check_exact(&p, FORWARD, 30, 300, 511 + v, v);
        check_exact(&p, FORWARD, 30, 300, 513 + v, v);
    }
    problem_free(&p);
}

static int same_bits(const fnn_kernels *k, const void *x, ptrdiff_t i, const void *y, ptrdiff_t j,
                     ptrdiff_t n) {
    return !memcmp((const char *)x + i * k->itemsize, (const char *)y + j * k->itemsize,
                   (size_t)(n * k->itemsize));
}

static const void *at(const fnn_kernels *k, const void *x, ptrdiff_t i) {
    return x ? (const char *)x + i * k->itemsize : NULL;
}

static void check_block_in(const problem *p, size_t cache, ptrdiff_t i, ptrdiff_t rows, ptrdiff_t j,
                           ptrdiff_t columns) {
    const fnn_kernels *k = p->k;
    fnn_gemm g = p->g;
    g.m = rows, g.n = columns;
    g.cache = cache;
    g.a = at(k, g.a, i * g.a_rs);
    g.b = at(k, g.b, j * g.b_cs);
    g.bias = at(k, g.bias, j);
    g.saved = at(k, g.saved, i * g.lds + j);
    g.ldc = columns;
    g.c = malloc((size_t)(rows * columns * k->itemsize));
    run(p, &g);
    int same = 1;
    for (ptrdiff_t r = 0; r < rows; r++)
        same &= same_bits(k, g.c, r * columns, p->g.c, (i + r) * p->g.ldc + j, columns);
    check_that(same, "%s %tdx%tdx%td: rows %td+%td columns %td+%td differ when alone",
               form_name[p->form], p->g.m, p->g.n, p->g.k, i, rows, j, columns);
    free(g.c);
}

/* Where there are ways of the product that others lack: see HELD and GEMM_COPIES. */
static int has_more_ways(const fnn_kernels *k) { return k->lanes * k->itemsize == 64; }

/* A block of C computed alone has the bits that it has in the whole, with B taken to be beyond all caches; and, where
 * it then takes another way, without. */
static void check_block(const problem *p, ptrdiff_t i, ptrdiff_t rows, ptrdiff_t j, ptrdiff_t columns) {
    check_block_in(p, 1, i, rows, j, columns);
    if (has_more_ways(p->k) && p->form == FORWARD && rows > 4) check_block_in(p, 0, i, rows, j, columns);
}

static void check_splits(problem *p) {
    const ptrdiff_t m = p->g.m, n = p->g.n, nr = p->k->gemm_nr;
    const ptrdiff_t half = n / 2 / nr * nr;
    const ptrdiff_t rows[] = {0, m / 2, m - 1};
    for (int r = 0; r < 3; r++) check_block(p, rows[r], 1, 0, n);
    for (ptrdiff_t few = 2; few <= 20 && few <= m; few += 3) check_block(p, m - few, few, 0, n);
    check_block(p, 0, m, 0, half ? half : n);
    check_block(p, m / 3, m - m / 3, half, n - half);
}

/* Random numbers: within (k + 2) eps (|a||b| + |bias|) of the reference; the same bits in parts. */
static void check_random(const fnn_kernels *k, ptrdiff_t m, ptrdiff_t n, ptrdiff_t depth,
                         int accuracy) {
    const ptrdiff_t longer = m > n ? m : n;
    problem p = problem_make(k, (size_t)((longer + depth) * (longer + PAD) * k->itemsize));
    for (int form = 0; form < FORMS; form++) {
        shape(&p, (enum form)form, m, n, depth, PAD, 0, 1, 0);
        set_guards(&p);
        run(&p, &p.g);
        check_that(guards_hold(&p), "%s: guards broken", form_name[form]);
        if (accuracy) {
            long double *sums = malloc(sizeof *sums * (size_t)(m * n));
            double *sizes = malloc(sizeof *sizes * (size_t)(m * n)), worst = 0;
            reference(&p, sums, sizes);
            for (ptrdiff_t i = 0; i < m; i++)
                for (ptrdiff_t j = 0; j < n; j++) {
                    const double y = check_get(k, p.g.c, i * p.g.ldc + j);
                    const double error = fabs((double)(y - sums[i * n + j]));
                    const double share =
                        error / ((double)(depth + 2) * check_eps(k) * sizes[i * n + j]);
                    if (!(share <= worst)) worst = share;
                }
            check_that(worst <= 1, "%s: error is %g of the bound", form_name[form], worst);
            free(sums);
            free(sizes);
        }
        check_splits(&p);
    }
    problem_free(&p);
}

/* A C that the caches do not hold is computed in another order of blocks: rows of it have the same bits. */
static void check_large(const fnn_kernels *k) {
    const ptrdiff_t m = 200, n = 520, depth = 520, far = 10500; /* between rows: many without the work */
    problem p = problem_make(k, (size_t)(n * (n + far) * k->itemsize));
    shape(&p, FORWARD, m, n, depth, far, 0, 1, 0);
    set_guards(&p);
    run(&p, &p.g);
    check_that(guards_hold(&p), "guards broken");
    check_block(&p, m - 60, 60, 0, n);
    problem_free(&p);
}

/* Some rows of a W in blocks of whole rows, or of one that is held, which parts of its columns are not: these have the
 * same bits. */
static void check_whole(const fnn_kernels *k) {
    const ptrdiff_t page = 4096 / k->itemsize;
    const ptrdiff_t shapes[][3] = {{20, 1000, 700}, {50, page, 512}, {76, page - 16, 800}};
    problem p = problem_make(k, (size_t)(1024 * 1024 * k->itemsize));
    for (int i = 0; i < (has_more_ways(k) ? 3 : 2); i++) {
        const ptrdiff_t *s = shapes[i];
        shape(&p, FORWARD, s[0], s[1], s[2], 0, 0, i == 1, 0);
        set_guards(&p);
        run(&p, &p.g);
        check_that(guards_hold(&p), "guards broken");
        check_block(&p, 0, s[0], 100, 130);
        check_block(&p, 3, 2, 0, s[1]);
    }
    problem_free(&p);
}

/* A B^T that only the outer caches hold is turned in other steps: columns of it have the same bits. */
static void check_large_turned(const fnn_kernels *k) {
    const ptrdiff_t n = 1031, deepest = has_more_ways(k) ? 1537 : 543;
    problem p = problem_make(k, (size_t)(n * (deepest + 2 * PAD) * k->itemsize));
    for (ptrdiff_t m = 1; m <= (deepest > 543 ? 12 : 8); m++) {
        if (m <= 8)
            shape(&p, DX, m, n, 543, 1, 0, m % 2, 0); /* rows of 544: whole lines */
        else
            shape(&p, DX, m - 8, n, deepest, 0, 0, m % 2, 0); /* rows that straddle lines, from afar */
        set_guards(&p);
        run(&p, &p.g);
        check_that(guards_hold(&p), "guards broken");
        check_block(&p, 0, p.g.m, n - 43, 43);
        check_block(&p, p.g.m - 1, 1, 5, 70);
    }
    problem_free(&p);
}

/* dW of a B that is as deep as one may be and not be cut: its strips of A are copied all the same. */
static void check_deep(const fnn_kernels *k) {
    const ptrdiff_t m = 49, n = 8 * k->gemm_nr, large = (k->gemm_mr > 8 ? 1024 : 288) << 10;
    const ptrdiff_t depth = large / (n * k->itemsize);
    problem p = problem_make(k, (size_t)(depth * (n > m ? n : m) * k->itemsize));
    shape(&p, DW, m, n, depth, 0, 0, 0, 0);
    set_guards(&p);
    run(&p, &p.g);
    check_that(guards_hold(&p), "guards broken");
    check_block(&p, 3, 5, 0, n);
    problem_free(&p);
}

/* An epilogue is that of `act` or `act_grad` on the bare product, whatever the split. */
static void check_epilogue(problem *p, enum form form, ptrdiff_t m, ptrdiff_t n, ptrdiff_t depth,
                           fnn_act act, double slope, int saved) {
    const fnn_kernels *k = p->k;
    void *bare = check_alloc(k, m * n), *expected = check_alloc(k, n);
    shape(p, form, m, n, depth, PAD, 0, 1, saved);
    fnn_gemm plain = p->g;
    plain.c = bare, plain.ldc = n, plain.saved = NULL;
    run(p, &plain);
    p->g.act = act, p->g.slope = slope;
    set_guards(p);
    run(p, &p->g);
    int same = guards_hold(p);
    for (ptrdiff_t i = 0; i < m; i++) {
        const void *row = at(k, bare, i * n);
        if (saved)
            k->act_grad(act, slope, n, at(k, p->g.saved, i * p->g.lds), row, expected);
        else
            k->act(act, slope, n, row, expected);
        same &= same_bits(k, expected, 0, p->g.c, i * p->g.ldc, n);
    }
    check_that(same, "%s %tdx%tdx%td: epilogue %d slope %g%s differs", form_name[form], m, n, depth,
               act, slope, saved ? " (gradient)" : "");
    check_splits(p);
}

static void check_epilogues(const fnn_kernels *k, ptrdiff_t m, ptrdiff_t n, ptrdiff_t depth) {
    static const double slopes[] = {0.01, 0, -0.5, 1.5};
    problem p = problem_make(k, (size_t)((m + n + PAD) * (n + depth + PAD) * k->itemsize));
    for (int form = 0; form < FORMS; form++)
        for (int saved = 0; saved < 2; saved++)
            for (int act = 0; act < FNN_ACTS + 3; act++)
                check_epilogue(&p, (enum form)form, m, n, depth,
                               act < FNN_ACTS ? (fnn_act)act : FNN_LEAKY_RELU,
                               slopes[act < FNN_ACTS ? 0 : act - FNN_ACTS + 1], saved);
    problem_free(&p);
}

/* The same for products too large for all of them: streams in groups of rows, several depths, a W that is held in
 * parts of its columns, one that is copied ahead (in float64 held too). */
static void check_large_epilogues(const fnn_kernels *k) {
    static const ptrdiff_t shapes[][3] = {{7, 1024 - PAD, 530}, {45, 70, 700}, {70, 1500, 701}, {90, 1500, 701}};
    problem p = problem_make(k, (size_t)(1100 * 1800 * k->itemsize));
    for (int i = 0; i < (has_more_ways(k) ? 4 : 2); i++) {
        const ptrdiff_t *s = shapes[i];
        check_epilogue(&p, FORWARD, s[0], s[1], s[2], FNN_TANH, 0, 0);
        check_epilogue(&p, FORWARD, s[0], s[1], s[2], FNN_LEAKY_RELU, 0.01, 0);
        check_epilogue(&p, FORWARD, s[0], s[1], s[2], FNN_LEAKY_RELU, 0.01, 1);
    }
    problem_free(&p);
}

/* Many rows, whose copies are kept, in two parts. */
static void check_kept(const fnn_kernels *k) {
    const ptrdiff_t m = 1100, n = 1000, depth = 400;
    problem p = problem_make(k, (size_t)((m + depth) * (n + PAD) * k->itemsize));
    check_epilogue(&p, FORWARD, m, n, depth, FNN_LEAKY_RELU, 0.01, 1);
    shape(&p, FORWARD, m, n, depth, PAD, 0, 1, 0);
    set_guards(&p);
    run(&p, &p.g);
    check_that(guards_hold(&p), "guards broken");
    check_block(&p, 530, 50, 0, n);
    check_block(&p, m - 9, 9, 40, n - 40);
    problem_free(&p);
}

static void set_a(problem *p, ptrdiff_t i, ptrdiff_t q, double value) {
    check_set(p->k, (void *)p->g.a, i * p->g.a_rs + q * p->g.a_cs, value);
}
static void set_b(problem *p, ptrdiff_t q, ptrdiff_t j, double value) {
    check_set(p->k, (void *)p->g.b, q * p->g.b_rs + j * p->g.b_cs, value);
}

/* A NaN stays in its row of A, an infinity in its column of B. */
static void check_not_finite(problem *p) {
    enum { NAN_ROW = 2, INF_COLUMN = 4 };
    for (ptrdiff_t i = 0; i < p->g.m; i++) set_a(p, i, 1, i == NAN_ROW ? NAN : 1);
    set_b(p, 1, INF_COLUMN, INFINITY);
    run(p, &p->g);
    int right = 1;
    for (ptrdiff_t i = 0; i < p->g.m; i++)
        for (ptrdiff_t j = 0; j < p->g.n; j++) {
            const double y = check_get(p->k, p->g.c, i * p->g.ldc + j);
            right &= i == NAN_ROW      ? isnan(y) != 0
                     : j == INF_COLUMN ? isinf(y) && y > 0
                                       : isfinite(y) != 0;
        }
    check_that(right, "%s: NaN or infinity strays, act %d", form_name[p->form], p->g.act);
}

/* -0 + (-0)(1) + ... stays -0. */
static void check_negative_zero(problem *p) {
    for (ptrdiff_t q = 0; q < p->g.k; q++) {
        for (ptrdiff_t i = 0; i < p->g.m; i++) set_a(p, i, q, -0.0);
        for (ptrdiff_t j = 0; j < p->g.n; j++) set_b(p, q, j, 1);
    }
    for (ptrdiff_t j = 0; j < p->g.n; j++) check_set(p->k, (void *)p->g.bias, j, -0.0);
    run(p, &p->g);
    int right = 1;
    for (ptrdiff_t i = 0; i < p->g.m; i++)
        for (ptrdiff_t j = 0; j < p->g.n; j++) {
            const double y = check_get(p->k, p->g.c, i * p->g.ldc + j);
            right &= y == 0 && signbit(y);
        }
    check_that(right, "%s: -0.0 loses its sign, act %d", form_name[p->form], p->g.act);
}

static void check_special(const fnn_kernels *k, ptrdiff_t m, ptrdiff_t n) {
    const ptrdiff_t depth = 18;
    problem p = problem_make(k, (size_t)((m + n + PAD) * (n + depth + PAD) * k->itemsize));
    for (int form = 0; form < FORMS; form++)
        for (int act = FNN_IDENTITY; act <= FNN_RELU; act++)
            for (size_t cache = 0; cache < 2; cache++) { /* 1: B is beyond it */
                shape(&p, (enum form)form, m, n, depth, PAD, 3, 0, 0);
                p.g.act = (fnn_act)act, p.g.slope = 0.25, p.g.cache = cache;
                check_not_finite(&p);
                shape(&p, (enum form)form, m, n, depth, PAD, 3, 1, 0);
                p.g.act = (fnn_act)act, p.g.slope = 0.25, p.g.cache = cache;
                check_negative_zero(&p);
            }
    problem_free(&p);
}

/* Work for the largest product of a kind does for every smaller one. */
static void check_work(const fnn_kernels *k) {
    static const ptrdiff_t sizes[] = {1,   4,   5,   14,  15,  16,   31,   48,   96,   97,  127,
                                      128, 200, 511, 512, 513, 1023, 1024, 1025, 2048, 2049};
    enum { COUNT = sizeof sizes / sizeof *sizes };
    for (int b_cs = 1; b_cs <= 2; b_cs++)
        for (int m = 0; m < COUNT; m++)
            for (int n = 0; n < COUNT; n++)
                for (int d = 0; d < COUNT; d++) {
                    const size_t work = k->gemm_work(sizes[m], sizes[n], sizes[d], b_cs);
                    int enough = 1;
                    if (m) enough &= k->gemm_work(sizes[m - 1], sizes[n], sizes[d], b_cs) <= work;
                    if (n) enough &= k->gemm_work(sizes[m], sizes[n - 1], sizes[d], b_cs) <= work;
                    if (d) enough &= k->gemm_work(sizes[m], sizes[n], sizes[d - 1], b_cs) <= work;
                    check_that(enough, "a smaller product than %tdx%tdx%td needs more work", sizes[m],
                               sizes[n], sizes[d]);
                }
}

/* How far eight tiles of dW get with picked rows: the third, fifth and seventh fetch. */
static void check_picked(const fnn_kernels *k) {
    static const struct {
        ptrdiff_t bytes, rows, row, at;
    } cases[] = {{300, 3, 3, 0},  {300, 2, 2, 0},     {300, 9, 3, 0},
                 {5000, 9, 1, 0}, {4000, 9, 1, 2000}, {8192, 9, 0, 6144}};
    problem p = problem_make(k, (size_t)(64 * 128 * k->itemsize));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        shape(&p, DW, 4 * k->gemm_mr, 2 * k->gemm_nr, 32, 0, 3, 0, 0);
        const int64_t index[9] = {0};
        p.picked.index = index;
        p.picked.bytes = cases[i].bytes;
        p.picked.rows = cases[i].rows;
        run(&p, &p.g);
        check_that(p.picked.row == cases[i].row && p.picked.at == cases[i].at,
                   "%td rows of %td bytes: fetched up to %td of row %td", cases[i].rows, cases[i].bytes, p.picked.at,
                   p.picked.row);
    }
    problem_free(&p);
}

int check_gemm(const fnn_kernels *k) {
    if (has_more_ways(k)) check_picked(k);
    check_work(k);
    check_sizes(k);
    check_random(k, 45, 77, 130, 1);
    check_random(k, 3, 301, 700, 1);
    check_random(k, 1, 1100, 90, 0);
    check_random(k, 512, 780, 1024 - PAD, 0); /* packed; rows of A 4096 bytes apart */
    check_random(k, 60, 700, 500, 0); /* several blocks both ways, few strips (its parts, in float64) */
    if (has_more_ways(k)) {
        check_random(k, 30, 7, 40, 1);
        check_random(k, 140, 300, 200, 0); /* vectors of W straddle lines */
        check_random(k, 600, 40, 100, 0); /* dW of columns of A more than 2 KiB apart, and of 1 KiB */
        check_random(k, 300, 40, 300, 0);
        check_random(k, 80, 1076, 800, 0); /* blocks copied ahead; those of the last columns have one tile or none */
    }
    check_random(k, 7, 1024 - PAD, 801, 0); /* streams through W in two groups of rows */
    check_random(k, 250, 70, 100, 0); /* by panels, in two chunks of rows */
    check_random(k, 90, 530, 700, 0); /* by panels that come from afar, in several depths */
    check_random(k, 8, 2048 - PAD, 259, 0); /* streams of eight rows, several runs of columns */
    check_random(k, 6, 1024 - PAD, 530, 0);
    if (k->gemm_mr > 8) /* narrow and deep, as dW of a large batch */
        check_random(k, 200, 80, 3400, 0);
    else
        check_random(k, 50, 80, 1000, 0);
    check_large(k);
    check_kept(k);
    check_large_turned(k);
    check_whole(k);
    check_deep(k);
    check_epilogues(k, 2 * k->gemm_mr + 1, 2 * k->gemm_nr + 5, 40);
    check_epilogues(k, 110, 2 * k->gemm_nr + 5, 40);
    check_epilogues(k, 1, 37, 40);
    check_large_epilogues(k);
    check_epilogues(k, 1, 791, 733); /* the row streams through W, its halves do not */
    check_special(k, k->gemm_mr + 2, k->gemm_nr + 3);
    check_special(k, 41, 2 * k->gemm_nr + 3);
    return check_failures();
}
