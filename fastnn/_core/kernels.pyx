"""The one place that picks the instruction set, and the only module that is linked with csrc.

FASTNN_ISA (baseline, avx2, avx512, neon) forces one at import; one that this CPU or this build lacks
is an ImportError, never a silent fallback. The other modules reach the arithmetic through kernels().
"""

import os

from libc.stdint cimport uint32_t
from fastnn._core.csrc cimport (
    FNN_DTYPES, FNN_F32, FNN_F64, FNN_ISAS, fnn_dtype, fnn_get_kernels, fnn_isa, fnn_isa_best,
    fnn_isa_name, fnn_isa_supported, fnn_kernels, fnn_philox4x32,
)

cdef extern from *:
    """
    #if defined(__x86_64__)
    static int fnn_x86_64_v2(void) {
        return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
    }
    #else
    static int fnn_x86_64_v2(void) { return 1; }
    #endif
    """
    int fnn_x86_64_v2()

cdef const fnn_kernels *tables[2]


cdef const fnn_kernels *kernels(fnn_dtype dtype) noexcept nogil:
    return tables[<int>dtype]


cdef void use(fnn_isa isa) noexcept:
    tables[0] = fnn_get_kernels(isa, FNN_F32)
    tables[1] = fnn_get_kernels(isa, FNN_F64)


def available_isas():
    """Names of the instruction sets that this build has and this CPU can run, slowest first."""
    return tuple(
        fnn_isa_name(<fnn_isa>i).decode() for i in range(FNN_ISAS) if fnn_isa_supported(<fnn_isa>i)
    )


def runs_numpy_wheels():
    """Whether this CPU has what NumPy's own wheels take for granted: on x86-64, x86-64-v2."""
    return bool(fnn_x86_64_v2())


def isa():
    """Name of the instruction set in use."""
    return fnn_isa_name(tables[0].isa).decode()


def set_isa(str name):
    """Switch to another instruction set; for tests, with no computation under way."""
    for i in range(FNN_ISAS):
        if fnn_isa_name(<fnn_isa>i).decode() == name and fnn_isa_supported(<fnn_isa>i):
            use(<fnn_isa>i)
            return
    raise ValueError(
        f"instruction set: expected one of {', '.join(available_isas())} on this CPU, got {name!r}"
    )


def philox4x32(counter, key):
    """Philox4x32-10 of one counter (4 words) under one key (2 words): 4 words of 32 bits.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """
    cdef uint32_t c[4]
    cdef uint32_t k[2]
    cdef uint32_t out[4]
    for i in range(4):
        c[i] = counter[i]
    for i in range(2):
        k[i] = key[i]
    fnn_philox4x32(c, k, out)
    return out[0], out[1], out[2], out[3]


use(fnn_isa_best())
_forced = os.environ.get("FASTNN_ISA")
if _forced:
    try:
        set_isa(_forced)
    except ValueError as error:
        raise ImportError(f"FASTNN_ISA: {error}") from None
