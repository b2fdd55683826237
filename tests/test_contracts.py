"""What holds for the library as a whole: which instruction set runs, threads, forks, the state of
the process, what help() shows."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import pathlib
import sys
import threading

import numpy as np
import pytest
from oracle import same_bits

import fastnn
from fastnn import init, schedules
from fastnn._core import kernels, threads
from fastnn._core.trainer import Trainer

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


def test_each_instruction_set_has_code_of_its_own(python):
    """The multiply-adds of a tile, which the code itself counts, differ from set to set."""
    code = "from fastnn._core.limits import Probe; print(Probe('float32', 1, 0).run('fma', 1))"
    counts = [python(code, FASTNN_ISA=name).stdout for name in kernels.available_isas()]
    assert all(float(count) > 0 for count in counts)
    assert len(set(counts)) == len(counts)


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
def test_omp_num_threads_is_honoured(python, n, granted):
    done = python("import fastnn; print(fastnn.get_num_threads())", OMP_NUM_THREADS=n)
    assert int(done.stdout) == granted(int(n[0])), done.stderr


def test_fewer_threads_than_asked_for(python, granted):
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
    assert (int(one[0]), int(limited[0])) == (1, granted(5))
    assert one[1] == limited[1]


def test_threads_without_the_variable(python, granted):
    done = python("import fastnn; print(fastnn.get_num_threads())")
    assert int(done.stdout) == granted(threads.available_cpus()), done.stderr


def test_number_of_threads_is_checked(set_threads, granted):
    set_threads(3)
    for wrong, error in [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)]:
        with pytest.raises(error, match=r"^n: expected "):
            fastnn.set_num_threads(wrong)
        assert fastnn.get_num_threads() == granted(3)


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


OTHERS_FORK = """
import ctypes, os, re, signal, warnings
import numpy as np
import fastnn
warnings.simplefilter("ignore", DeprecationWarning)
with open("/proc/self/maps") as maps:
    path = re.search(r"/\\S*lib(?:g|i)?omp\\S*", maps.read())
nothing = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)
ctypes.CDLL(path[0]).GOMP_parallel(nothing, None, 4, 0)
if os.fork() == 0:
    signal.alarm(20)
    fastnn.set_num_threads(4)
    fastnn.linear(np.ones((300, 300)), np.ones((300, 300)))
    os._exit(fastnn.get_num_threads())
print(os.waitpid(-1, 0)[1] >> 8)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
def test_a_child_does_not_wait_for_threads_that_others_started(python, granted):
    """Another module may have used the same OpenMP library before the fork."""
    if granted(4) == 1:
        pytest.skip("built without OpenMP")
    done = python(OTHERS_FORK)
    assert done.stdout == "1\n", done.stderr


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


INITIALIZERS = [getattr(init, name) for name in init.__all__]
# Their constructors are not for users.
MADE_BY_FASTNN = ("History", "InitComparison", "Report", "StopTraining")
KINDS = [getattr(fastnn, name) for name in fastnn.__all__ if name not in MADE_BY_FASTNN]
KINDS = [kind for kind in KINDS if inspect.isclass(kind)]
SCHEDULES = [getattr(schedules, name) for name in schedules.__all__]
METHODS = ("forward", "backward", "predict", "fit", "evaluate", "save", "step")
METHODS += ("load_state_dict", "plot", "report")


def tells_errors(thing):
    text = inspect.getdoc(thing) or ""
    return "Error" in text or "errors" in text


@pytest.mark.parametrize("thing", [*INITIALIZERS, *SCHEDULES, fastnn.load, fastnn.data.load_idx])
def test_help_tells_the_errors(thing):
    assert tells_errors(thing)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_help_of_a_class_and_its_methods_tells_the_errors(kind):
    if inspect.signature(kind).parameters:
        assert tells_errors(kind)
    for name in METHODS:
        if name in dir(kind):
            assert tells_errors(getattr(kind, name)), name


CORE = pathlib.Path(threads.__file__).parent
STUBS = sorted(path.stem for path in CORE.glob("*.pyi"))


def stub_parameters(node, skip=0):
    """(name, kind, default) of each parameter in a stub, from the AST."""
    namespace = {}
    bare = ast.parse(f"def f({ast.unparse(node.args)}): pass")
    for inner in ast.walk(bare):
        if isinstance(inner, ast.arg):
            inner.annotation = None
    exec(compile(bare, "stub", "exec"), namespace)
    return parameters(namespace["f"])[skip:]


def parameters(function):
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("module", STUBS)
def test_type_stubs_have_the_signatures_of_the_functions(module):
    compiled = importlib.import_module(f"fastnn._core.{module}")
    body = ast.parse((CORE / f"{module}.pyi").read_text()).body
    for node in body:
        if isinstance(node, ast.FunctionDef):
            assert parameters(getattr(compiled, node.name)) == stub_parameters(node), node.name
        if isinstance(node, ast.ClassDef):
            check_class(getattr(compiled, node.name), node)
    stubbed = {n.name for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    public = {
        name
        for name, value in vars(compiled).items()
        if getattr(value, "__module__", None) == compiled.__name__ and not name.startswith("_")
    }
    assert stubbed == public


def check_class(kind, node):
    for member in node.body:
        if isinstance(member, ast.AnnAssign):
            assert hasattr(kind, member.target.id), member.target.id
        elif member.name != "__init__":  # a compiled constructor has no signature
            self, *others = parameters(getattr(kind, member.name))
            assert self[:2] == ("self", inspect.Parameter.POSITIONAL_ONLY), member.name
            assert others == stub_parameters(member, skip=1), member.name


def traced_peak(call, times):
    """Bytes that Python and NumPy allocate at most at a time in so many calls, and keep.

    Free-threaded Python at times allocates 4 KB for what it will free: there the least of three.
    """
    import tracemalloc
    from sysconfig import get_config_var

    def traced():
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(times):
            call()
        now, peak = tracemalloc.get_traced_memory()
        return peak - before, now - before

    tracemalloc.start()
    try:
        call()
        return min(traced() for _ in range(3 if get_config_var("Py_GIL_DISABLED") else 1))
    finally:
        tracemalloc.stop()


def small_model(dtype):
    return fastnn.Sequential(
        fastnn.Linear(64, 128, dtype=dtype, rng=1),
        fastnn.LeakyReLU(),
        fastnn.Dropout(0.1),
        fastnn.Linear(128, 10, dtype=dtype, rng=2),
    )


def one_step(model, x, labels, dtype):
    """A training step on all rows, as `fit` does it."""
    update = fastnn.Adam().bind(model)
    update.lr = 1e-3
    trainer = Trainer(model._plan_for(x), x, labels, None, ("cross_entropy",), update, 100, 7)
    return lambda: trainer.step(None, 0, 100, update.t)


@pytest.mark.parametrize("m", [1, 300])
def test_predict_allocates_nothing_once_warm(rng, dtype, m, n_threads):
    model = small_model(dtype)
    x, out = rng.standard_normal((m, 64)).astype(dtype), np.empty((m, 10), dtype)
    model.predict(x, out)
    peak, kept = traced_peak(lambda: model.predict(x, out), 200)
    assert peak < 4096
    assert kept < 1024


def test_training_allocates_nothing_once_warm(rng, dtype, n_threads):
    model = small_model(dtype)
    x, labels = rng.standard_normal((100, 64)).astype(dtype), rng.integers(0, 10, 100)
    step = one_step(model, x, labels, dtype)
    step()
    peak, kept = traced_peak(step, 50)
    assert peak < 4096
    assert kept < 1024


RESIDENT = """
import numpy as np
import fastnn
from fastnn._core.trainer import Trainer

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

rng = np.random.default_rng(1)
model = fastnn.Sequential(fastnn.Linear(64, 256), fastnn.ReLU(), fastnn.Linear(256, 10), rng=1)
x, labels = rng.standard_normal((200, 64)).astype("f"), rng.integers(0, 10, 200)
out = np.empty((200, 10), "f")
update = fastnn.Adam().bind(model)
trainer = Trainer(model._plan_for(x), x, labels, None, ("cross_entropy",), update, 200, 7)
def work(times):
    for i in range(times):
        model.predict(x, out)
        model.predict(x)
        trainer.step(None, 0, 200, i)
        model.backward(model.forward(x))
work(100)
before = resident()
work(1500)
print(resident() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc")
@pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer holds freed memory back"
)
def test_resident_memory_does_not_grow(python):
    done = python(RESIDENT)
    # a leak of one row of the output per call would be 60 kB, one of the output 12 MB
    assert int(done.stdout) < 1 << 20, done.stderr
