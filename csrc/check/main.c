/* main.c: runs every suite (SUITES, from the Makefile), or those that are named, on every instruction set,
 * or those that FASTNN_ISA names (avx2,avx512), and dtype. Each instruction set has a process: they run
 * beside one another. */
#include "check.h"

#include <float.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define X(name) int check_##name(const fnn_kernels *k);
SUITES
#undef X

static const struct {
    const char *name;
    int (*run)(const fnn_kernels *k);
} suites[] = {
#define X(name) {#name, check_##name},
    SUITES
#undef X
};

enum { PRINTED = 10 };
static long passed, failed;
static int failures;
static const fnn_kernels *tested;
static uint64_t random_state;

static struct block {
    struct block *next;
    char pad[64 - sizeof(struct block *)];
} *blocks;

int check_that(int ok, const char *format, ...) {
    if (ok) {
        passed++;
        return 1;
    }
    failed++;
    if (failures++ < PRINTED) {
        va_list arguments;
        va_start(arguments, format);
        printf("    FAILED: %s float%d: ", fnn_isa_name(tested->isa), (int)(8 * tested->itemsize));
        vprintf(format, arguments);
        printf("\n");
        va_end(arguments);
    }
    return 0;
}

int check_failures(void) { return failures; }

void *check_alloc(const fnn_kernels *k, ptrdiff_t n) {
    const size_t bytes = (sizeof(struct block) + (size_t)(n * k->itemsize) + 63) / 64 * 64;
    struct block *block = aligned_alloc(64, bytes);
    if (!block) {
        printf("out of memory\n");
        exit(2);
    }
    memset(block, 0, bytes);
    block->next = blocks;
    blocks = block;
    return block + 1;
}

void check_free_all(void) {
    while (blocks) {
        struct block *next = blocks->next;
        free(blocks);
        blocks = next;
    }
}

double check_get(const fnn_kernels *k, const void *array, ptrdiff_t i) {
    return k->dtype == FNN_F32 ? ((const float *)array)[i] : ((const double *)array)[i];
}

void check_set(const fnn_kernels *k, void *array, ptrdiff_t i, double value) {
    if (k->dtype == FNN_F32)
        ((float *)array)[i] = (float)value;
    else
        ((double *)array)[i] = value;
}

/* SplitMix64 (Steele, Lea and Flood 2014). */
static uint64_t next_random(void) {
    uint64_t z = (random_state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

double check_uniform(void) { return (double)(next_random() >> 11) * 0x1p-52 - 1; }

int check_integer(int limit) { return (int)(next_random() % (uint64_t)(2 * limit + 1)) - limit; }

double check_eps(const fnn_kernels *k) { return k->dtype == FNN_F32 ? FLT_EPSILON : DBL_EPSILON; }

/* Names of suites as arguments run those alone. */
static int wanted(const char *name, int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], name)) return 1;
    return argc == 1;
}

static void run_suites(fnn_isa isa, int argc, char **argv) {
    for (int dtype = 0; dtype < FNN_DTYPES; dtype++) {
        const fnn_kernels *k = fnn_get_kernels(isa, (fnn_dtype)dtype);
        for (size_t s = 0; k && s < sizeof suites / sizeof suites[0]; s++) {
            if (!wanted(suites[s].name, argc, argv)) continue;
            failures = 0;
            tested = k;
            random_state = 1;
            const long before = passed;
            const clock_t start = clock();
            const int bad = suites[s].run(k);
            check_free_all();
            printf("%-9s float%d %-16s %8ld passed, %d failed, %.2f s\n", fnn_isa_name(k->isa),
                   (int)(8 * k->itemsize), suites[s].name, passed - before, bad,
                   (double)(clock() - start) / CLOCKS_PER_SEC);
            fflush(stdout);
        }
    }
}

/* In a process of its own: the instruction sets run side by side. 0: this one is not wanted, -1: no process. */
static pid_t start(fnn_isa isa, long *totals, int argc, char **argv) {
    const char *const only = getenv("FASTNN_ISA");
    if (only && !strstr(only, fnn_isa_name(isa))) return 0; /* none of the names is part of another */
    const pid_t child = fork();
    if (child) return child;
    run_suites(isa, argc, argv);
    totals[0] = passed;
    totals[1] = failed;
    exit(0);
}

int main(int argc, char **argv) {
    const size_t bytes = FNN_ISAS * sizeof(long[2]);
    long(*const totals)[2] = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t children[FNN_ISAS];
    int broken = 0;
    if (totals == MAP_FAILED) return 2;
    for (int isa = 0; isa < FNN_ISAS; isa++) children[isa] = start((fnn_isa)isa, totals[isa], argc, argv);
    for (int isa = 0; isa < FNN_ISAS; isa++) {
        const char *const name = fnn_isa_name((fnn_isa)isa);
        int status = 0;
        if (children[isa] < 0 || (children[isa] && waitpid(children[isa], &status, 0) < 0)) {
            printf("%s: no process of its own\n", name);
            broken = 1;
        } else if (status) {
            const int signal = WIFSIGNALED(status), number = signal ? WTERMSIG(status) : WEXITSTATUS(status);
            printf("%s: its process ended with %s %d\n", name, signal ? "signal" : "status", number);
            broken = 1;
        }
        passed += totals[isa][0];
        failed += totals[isa][1];
    }
    printf("%ld passed, %ld failed\n", passed, failed);
    return failed || broken || !passed;
}
