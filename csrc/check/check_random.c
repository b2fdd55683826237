/* check_random.c: the random streams, word by word against the scalar Philox and bit by bit against
 * checksums, which are the same for every instruction set. */
#include "check.h"

#include <math.h>
#include <string.h>

enum { N = 2000, LONGEST = 450 };

enum { BITS, UNIFORM, NORMAL, TRUNCATED, DROPOUT, KINDS };
static const char *const names[KINDS] = {"bits", "uniform", "normal", "truncated_normal",
                                         "dropout"};

/* FNV-1a of N elements from 128 on of stream (0x0123456789abcdef, 77), parameters as in draw(). The
 * words, uniforms and masks are frozen for good, the normals as long as the method stays. */
static const uint64_t golden[FNN_DTYPES][KINDS] = {
    {0xaf65e39d18884ced, 0x51ccc2c4f25014ff, 0x34de2d9af9542f4a, 0xdb22d59c61cde144,
     0x52ef1182ebca8643},
    {0xaf65e39d18884ced, 0xa5aa5da1f152a588, 0x8100835ee0b74145, 0x1a805c2e6112a22a,
     0x3641a752023d97a6},
};

static void draw(const fnn_kernels *k, int kind, uint64_t start, ptrdiff_t n, const void *x,
                 void *out) {
    const fnn_stream s = {0x0123456789abcdefu, 77, start};
    switch (kind) {
    case BITS: k->bits(&s, n, out); break;
    case UNIFORM: k->uniform(&s, n, out, -0.1, 0.1); break;
    case NORMAL: k->normal(&s, n, out, 0.5, 2); break;
    case TRUNCATED: k->truncated_normal(&s, n, out, 0, 1, -2, 0.5); break;
    default: k->dropout(&s, 0.3, n, x, out);
    }
}

static uint64_t checksum(const void *data, size_t n) {
    uint64_t sum = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) sum = (sum ^ ((const unsigned char *)data)[i]) * 0x100000001b3u;
    return sum;
}

/* Word of element i as fastnn.h has it for 32-bit elements. */
static uint32_t word(uint64_t seed, uint64_t stream, uint64_t i) {
    const uint64_t counter = i / 64 * 16 + i % 16;
    const uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), (uint32_t)stream,
                           (uint32_t)(stream >> 32)};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t out[4];
    fnn_philox4x32(c, key, out);
    return out[i / 16 % 4];
}

static void check_published(void) {
    static const uint32_t c[3][4] = {{0},
                                     {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
                                     {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}};
    static const uint32_t key[3][2] = {{0}, {0xffffffff, 0xffffffff}, {0xa4093822, 0x299f31d0}};
    static const uint32_t expected[3][4] = {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
                                            {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
                                            {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}};
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        fnn_philox4x32(c[i], key[i], out);
        check_that(!memcmp(out, expected[i], sizeof out), "philox4x32: published vector %d", i);
    }
}

/* Around the carry into the second word of the counter, and at the end of the streams. */
static void check_words(const fnn_kernels *k) {
    static const uint64_t starts[] = {0, 64, ((uint64_t)4 << 32) - 128, (uint64_t)-1 - 1023};
    const fnn_stream ends[] = {{0, 0, 0}, {0x0123456789abcdefu, 0x0000fedcba987654u, 0}};
    uint32_t *out = check_alloc(k, LONGEST);
    for (int i = 0; i < 8; i++) {
        fnn_stream s = ends[i % 2];
        s.start = starts[i / 2];
        k->bits(&s, LONGEST, out);
        int same = 1;
        for (int e = 0; e < LONGEST; e++) same &= out[e] == word(s.seed, s.stream, s.start + e);
        check_that(same, "bits: words of stream %llx from %llx", (unsigned long long)s.stream,
                   (unsigned long long)s.start);
    }
}

/* uniform on [0, 1) is the word's upper bits, exactly; dropout keeps what is not below the rate. */
static void check_values(const fnn_kernels *k) {
    const fnn_stream s = {42, 7, 192};
    const double rate = 0.3, scale = k->dtype == FNN_F32 ? (float)(1 / (1 - rate)) : 1 / (1 - rate);
    void *u = check_alloc(k, N), *x = check_alloc(k, N);
    for (int i = 0; i < N; i++) check_set(k, x, i, i + 1);
    k->uniform(&s, N, u, 0, 1);
    k->dropout(&s, rate, N, x, x);
    int exact = 1, kept = 1;
    for (int i = 0; i < N; i++) {
        const uint32_t own = word(s.seed, s.stream, s.start + i);
        double expected = (own >> 8) * 0x1p-24;
        if (k->dtype == FNN_F64) {
            const uint64_t at = (s.start + i) / 32 * 64 + (s.start + i) % 32 / 16 * 32 + i % 16;
            const uint64_t low = word(s.seed, s.stream, at), high = word(s.seed, s.stream, at + 16);
            expected = (double)((low | high << 32) >> 11) * 0x1p-53;
        }
        exact &= check_get(k, u, i) == expected;
        double y = (own >> 8) * 0x1p-24 < rate ? 0 : (i + 1) * scale;
        if (k->dtype == FNN_F32) y = (float)y;
        kept &= check_get(k, x, i) == y;
    }
    check_that(exact, "uniform: the upper bits of each draw");
    check_that(kept, "dropout: kept where the float32 uniform is at least the rate");
}

/* Any chunk is a piece of the whole, and nothing past its end is written; the shortest ones, around the 256 of the
 * largest block, and some others. */
static void check_chunks(const fnn_kernels *k) {
    unsigned char *whole = check_alloc(k, N), *part = check_alloc(k, N), *x = check_alloc(k, N);
    for (int i = 0; i < N; i++) check_set(k, x, i, 1 + i);
    for (int kind = 0; kind < KINDS; kind++) {
        const size_t size = kind == BITS ? 4 : (size_t)k->itemsize;
        draw(k, kind, 128, N, x, whole);
        const uint64_t sum = checksum(whole, N * size);
        check_that(sum == golden[k->dtype][kind], "%s: checksum 0x%016llx", names[kind],
                   (unsigned long long)sum);
        for (int at = 0; at < 256; at += 64)
            for (int n = 0; n < LONGEST; n += n < 66 || (n > 253 && n < 258) ? 1 : n < 254 ? 47 : 37) {
                memset(part, 0xa5, N * size);
                draw(k, kind, 128 + at, n, x + at * size, part);
                int same = !memcmp(part, whole + at * size, n * size);
                for (size_t b = n * size; b < N * size; b++) same &= part[b] == 0xa5;
                check_that(same, "%s: %d elements from %d", names[kind], n, 128 + at);
            }
    }
}

/* The streams where the draws of r and of the angle are zero: the largest normals that can come. */
static void check_bounds(const fnn_kernels *k) {
    const int f32 = k->dtype == FNN_F32, at = f32 ? 6 : 11;
    const fnn_stream s = {f32 ? 0 : 185846, f32 ? 120099028433574u : 32401161635491u,
                          f32 ? 17122354659608464192u : 5856341101688192448u};
    void *out = check_alloc(k, N);
    k->normal(&s, 64, out, 0, 1);
    const double z = check_get(k, out, at), largest = sqrt(2 * log(2) * (f32 ? 33 : 65));
    check_that(fabs(z / largest - 1) < 2 * check_eps(k), "normal: largest %g, got %g", largest, z);

    draw(k, TRUNCATED, 0, N, 0, out);
    int inside = 1;
    for (int i = 0; i < N; i++) inside &= check_get(k, out, i) >= -2 && check_get(k, out, i) <= 0.5;
    check_that(inside, "truncated_normal: within its bounds");
    /* an interval that no draw can hit: attempts run out at the nearest bound */
    const fnn_stream any = {1, 2, 64};
    k->truncated_normal(&any, 1, out, 0, 1, 20, 21);
    check_that(check_get(k, out, 0) == 20, "truncated_normal: nearest bound");
}

int check_random(const fnn_kernels *k) {
    check_published();
    check_words(k);
    check_values(k);
    check_chunks(k);
    check_bounds(k);
    return check_failures();
}
