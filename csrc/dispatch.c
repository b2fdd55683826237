/* dispatch.c: which tables this build has and this CPU can run. A new instruction set is one isa_*.c
 * file and one row of `sets`. */
#include "fastnn.h"

typedef const fnn_kernels *const fnn_table[FNN_DTYPES];
extern fnn_table fnn_table_baseline;
#if defined(__x86_64__)
extern fnn_table fnn_table_avx2, fnn_table_avx512;
static int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static int has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#elif defined(__aarch64__)
extern fnn_table fnn_table_neon;
#endif
static int always(void) { return 1; }

static const struct {
    const char *name;
    fnn_table *table;
    int (*supported)(void);
} sets[FNN_ISAS] = {
    [FNN_BASELINE] = {"baseline", &fnn_table_baseline, always},
#if defined(__x86_64__)
    [FNN_AVX2] = {"avx2", &fnn_table_avx2, has_avx2},
    [FNN_AVX512] = {"avx512", &fnn_table_avx512, has_avx512},
    [FNN_NEON] = {"neon", 0, always},
#elif defined(__aarch64__)
    [FNN_AVX2] = {"avx2", 0, always},
    [FNN_AVX512] = {"avx512", 0, always},
    [FNN_NEON] = {"neon", &fnn_table_neon, always},
#else
    [FNN_AVX2] = {"avx2", 0, always},
    [FNN_AVX512] = {"avx512", 0, always},
    [FNN_NEON] = {"neon", 0, always},
#endif
};

int fnn_isa_supported(fnn_isa isa) {
    return (unsigned)isa < FNN_ISAS && sets[isa].table && sets[isa].supported();
}

const fnn_kernels *fnn_get_kernels(fnn_isa isa, fnn_dtype dtype) {
    return fnn_isa_supported(isa) && (unsigned)dtype < FNN_DTYPES ? (*sets[isa].table)[dtype] : 0;
}

fnn_isa fnn_isa_best(void) {
    for (int isa = FNN_ISAS - 1; isa > FNN_BASELINE; isa--)
        if (fnn_isa_supported((fnn_isa)isa)) return (fnn_isa)isa;
    return FNN_BASELINE;
}

const char *fnn_isa_name(fnn_isa isa) { return (unsigned)isa < FNN_ISAS ? sets[isa].name : 0; }
