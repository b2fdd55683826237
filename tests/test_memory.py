"""How much memory a training run takes beyond its data, and that a steady state asks for none."""

import itertools
import os
import platform
import shutil
import subprocess
import tracemalloc

import numpy as np
import pytest

import fastnn

# Counts every request for memory that the process makes of the C library.
COUNTER = """
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
static atomic_long requests;
long allocations(void) { return requests; }
void *malloc(size_t n) { requests++; return __libc_malloc(n); }
void *calloc(size_t m, size_t n) { requests++; return __libc_calloc(m, n); }
void *realloc(void *p, size_t n) { requests++; return __libc_realloc(p, n); }
void *memalign(size_t a, size_t n) { requests++; return __libc_memalign(a, n); }
void *aligned_alloc(size_t a, size_t n) { requests++; return __libc_memalign(a, n); }
int posix_memalign(void **p, size_t a, size_t n) {
    requests++;
    *p = __libc_memalign(a, n);
    return *p ? 0 : ENOMEM;
}
"""
STEADY = """
import ctypes
import numpy as np
import fastnn
from fastnn._core import kernels
from fastnn._core.trainer import Trainer

allocations = ctypes.CDLL(None).allocations
allocations.restype = ctypes.c_long

def requested(call):
    for _ in range(5):
        call()
    before = allocations()
    for _ in range(20):
        call()
    return allocations() - before

assert allocations() > 1000 and requested(lambda: np.empty(100_000)) >= 20, "it does not count"
rng = np.random.default_rng(0)
for isa in kernels.available_isas():
    kernels.set_isa(isa)
    for n in (1, 2, 5):
        fastnn.set_num_threads(n)
        for m, dtype in ((1, "f4"), (1, "f8"), (60, "f4"), (300, "u1"), (300, "f8")):
            model = fastnn.Sequential(
                fastnn.Linear(200, 300), fastnn.LeakyReLU(), fastnn.Dropout(0.1),
                fastnn.Linear(300, 10), fastnn.Softmax(), rng=0,
            )
            x, y = (9 * rng.random((m, 200))).astype(dtype), rng.integers(0, 10, m)
            out, order, update = np.empty((m, 10), "f4"), np.arange(m), fastnn.Adam().bind(model)
            trainer = Trainer(model._plan, x, y, None, ("cross_entropy",), update, m, 7)
            calls = {
                "predict": lambda: model.predict(x, out),
                "step": lambda: trainer.step(order, 0, m, update.t),
            }
            for name, call in calls.items():
                count = requested(call)
                assert count == 0, (isa, n, m, dtype, name, count)
print("none")
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="replaces malloc of glibc")
@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="another library replaces malloc")
def test_a_steady_state_asks_the_c_library_for_no_memory(python, tmp_path):
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("needs a C compiler")
    source, library = tmp_path / "count.c", tmp_path / "count.so"
    source.write_text(COUNTER)
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
    done = python(STEADY, LD_PRELOAD=str(library))
    assert done.stdout == "none\n", done.stderr


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(("widths", "batch"), [((784, 512, 256, 10), 128), ((512, 2048, 10), 512)])
def test_training_takes_four_times_the_parameters_and_twice_the_activations(
    widths, batch, n_threads, set_threads, rng
):
    set_threads(n_threads)
    X = rng.random((4 * batch, widths[0]), dtype=np.float32)
    y = rng.integers(0, widths[-1], len(X))
    parameters = 4 * sum((n_in + 1) * n_out for n_in, n_out in itertools.pairwise(widths))
    activations = 4 * batch * sum(widths)
    tracemalloc.start()
    try:
        model = fastnn.Sequential(
            *(
                layer
                for n_in, n_out in itertools.pairwise(widths)
                for layer in (fastnn.Linear(n_in, n_out), fastnn.LeakyReLU(0.01))
            ),
            rng=0,
        )
        model.fit(
            X, y, loss="cross_entropy", optimizer="adam", epochs=2, batch_size=batch,
            progress=False, rng=0,
        )  # fmt: skip
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 4 * parameters < peak < 4 * parameters + 2 * activations + (16 << 20)
