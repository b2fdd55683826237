"""What holds for the library as a whole: which instruction set runs, threads, forks, the state of
the process, what help() shows."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import pathlib
import threading

import numpy as np
import pytest
from oracle import same_bits

import fastnn
from fastnn._core import kernels, threads

ISAS = ("baseline", "avx2", "avx512", "neon")
# (1 + e)^2 - (1 + 2 e) is e^2 with one rounding, and 0 where the product is rounded first.
FUSED = """
import numpy as np
from fastnn import linear
from fastnn._core import kernels
e = np.float32(2.0 ** -12)
y = linear(np.full((3, 1), 1 + e), np.full((40, 1), 1 + e), np.full(40, -1 - 2 * e))
assert (y == y[0, 0]).all()
print(kernels.isa(), y[0, 0] == e * e)
"""


def test_names_of_instruction_sets():
    available = kernels.available_isas()
    assert available[0] == "baseline"
    assert set(available) <= set(ISAS)
    assert kernels.isa() in available


@pytest.mark.parametrize("name", kernels.available_isas())
def test_the_forced_instruction_set_is_the_one_that_runs(python, name):
    done = python(FUSED, FASTNN_ISA=name)
    assert done.stdout.split() == [name, str(name != "baseline")], done.stderr


def test_the_best_instruction_set_is_the_default(python):
    done = python(FUSED)
    assert done.stdout.split()[0] == kernels.available_isas()[-1], done.stderr


def missing_isa():
    return next(name for name in ISAS if name not in kernels.available_isas())


@pytest.mark.parametrize("name", ["nonsense", "AVX2", missing_isa()])
def test_an_instruction_set_that_is_not_there_is_an_error(python, name):
    done = python("import fastnn", FASTNN_ISA=name)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: FASTNN_ISA: ")
    assert repr(name) in last
    assert "baseline" in last


def test_set_isa_refuses_and_keeps():
    before = kernels.isa()
    with pytest.raises(ValueError, match="got 'nonsense'"):
        kernels.set_isa("nonsense")
    assert kernels.isa() == before


def test_importing_leaves_the_floating_point_mode_alone(python):
    done = python(
        """
import sys
tiny = sys.float_info.min / 4
state = (tiny * 0.5, 1.0 + 2.0 ** -53, 0.1 + 0.2, 1.0 / 3.0)
import numpy as np
import fastnn
x = np.ones((200, 300), np.float32)
fastnn.linear(x, x, negative_slope=0.01)
assert tiny * 0.5 != 0.0
assert np.float32(1e-45) * np.float32(1.0) != 0
assert state == (tiny * 0.5, 1.0 + 2.0 ** -53, 0.1 + 0.2, 1.0 / 3.0)
print("same")
"""
    )
    assert done.stdout == "same\n", done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("n", ["1", "2", "5", "3,2"])
def test_omp_num_threads_is_honoured(python, n):
    done = python("import fastnn; print(fastnn.get_num_threads())", OMP_NUM_THREADS=n)
    assert done.stdout.strip() == n[0], done.stderr


def test_fewer_threads_than_asked_for(python):
    """The runtime may give a smaller team: the parts of the missing members are computed too."""
    code = """
import hashlib
import numpy as np
import fastnn
rng = np.random.default_rng(3)
x, weight = rng.standard_normal((300, 90)), rng.standard_normal((210, 90))
y = fastnn.linear(x, weight, negative_slope=0.01)
digest = hashlib.sha256(y)
for grad in fastnn.linear_backward(y, x, weight, y=y, negative_slope=0.01):
    digest.update(np.ascontiguousarray(grad))
digest.update(fastnn.leaky_relu(rng.standard_normal(500_000)))
print(fastnn.get_num_threads(), digest.hexdigest())
"""
    one = python(code, OMP_NUM_THREADS="1").stdout.split()
    limited = python(code, OMP_NUM_THREADS="5", OMP_THREAD_LIMIT="2").stdout.split()
    assert (one[0], limited[0]) == ("1", "5")
    assert one[1] == limited[1]


def test_threads_without_the_variable(python):
    done = python("import fastnn; print(fastnn.get_num_threads())")
    assert int(done.stdout) == threads.available_cpus(), done.stderr


def test_number_of_threads_is_checked(set_threads):
    set_threads(3)
    for wrong, error in [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)]:
        with pytest.raises(error, match=r"^n: expected "):
            fastnn.set_num_threads(wrong)
        assert fastnn.get_num_threads() == 3


FORK = """
import os, signal, warnings
import numpy as np
import fastnn
warnings.simplefilter("ignore", DeprecationWarning)
fastnn.set_num_threads(4)
x = np.ones((300, 300), np.float32)
want = fastnn.linear(x, x, negative_slope=0.01).tobytes()
for _ in range(3):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        fine = fastnn.linear(x, x, negative_slope=0.01).tobytes() == want
        grads = fastnn.linear_backward(x, x, x)
        fine = fine and fastnn.leaky_relu(np.ones(10**6)).sum() == 10**6
        os._exit(0 if fine else 1)
    assert os.waitpid(child, 0)[1] == 0
assert fastnn.linear(x, x, negative_slope=0.01).tobytes() == want
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_computes_and_does_not_hang(python):
    done = python(FORK)
    assert done.stdout == "done\n", done.stderr


def test_many_python_threads_at_once(rng, set_threads):
    set_threads(2)
    weight = np.asfortranarray(rng.standard_normal((190, 210)).astype(np.float32))
    inputs = [rng.standard_normal((m, 210)).astype(np.float32) for m in (1, 5, 64, 200)] * 3
    wanted = [fastnn.linear(x, weight, negative_slope=0.01) for x in inputs]
    grads = [fastnn.linear_backward(y, x, weight) for x, y in zip(inputs, wanted, strict=True)]
    start = threading.Barrier(len(inputs))
    wrong = []

    def work(i):
        start.wait()
        for _ in range(20):
            y = fastnn.linear(inputs[i], weight, negative_slope=0.01)
            got = fastnn.linear_backward(y, inputs[i], weight)
            if not same_bits(y, wanted[i]) or not all(map(same_bits, got, grads[i])):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    assert wrong == []


FUNCTIONS = ("linear", "linear_backward", "leaky_relu", "leaky_relu_derivative")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_help_shows_the_signature_and_the_contract(name):
    function = getattr(fastnn, name)
    parameters = list(inspect.signature(function).parameters)
    text = inspect.getdoc(function)
    for section in ("Parameters", "Returns", "Raises", "Maas"):
        assert section in text
    for parameter in parameters:
        assert parameter in text


@pytest.mark.parametrize("module", ["arrays", "linear", "pointwise"])
def test_type_stubs_have_the_signatures_of_the_functions(module):
    compiled = importlib.import_module(f"fastnn._core.{module}")
    folder = pathlib.Path(compiled.__file__).parent
    for node in ast.parse((folder / f"{module}.pyi").read_text()).body:
        if isinstance(node, ast.FunctionDef):
            given = inspect.signature(getattr(compiled, node.name)).parameters
            stub = node.args
            names = [a.arg for a in stub.posonlyargs + stub.args + stub.kwonlyargs]
            plain = [n for n, p in given.items() if p.kind is not p.VAR_POSITIONAL]
            assert names == plain, node.name
