"""Fully-connected networks forward: the same weights in each peer, each in its best form.

A network is Linear layers with LeakyReLU between them, and after the last too where a cell is one
fused layer. Weights are W (n_out, n_in) in C order, or wt, a (n_in, n_out) copy; of a peer that may
own its weights both are measured. The tables at the end name the makers of forms.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any

import numpy as np
from peer_timing import Form

import fastnn

SLOPE = 0.01
ROWS = 64  # of the answer, at most, that are compared
# Of the largest element. Sums of 4096 products in any order stay far below; 16-bit or TF32
# arithmetic would not.
TOLERANCE = {"float32": 1e-4, "float64": 1e-12}

Array = Any


class Network:
    """Inputs and weights. `last` tells whether LeakyReLU follows the last layer too."""

    def __init__(self, widths: tuple[int, ...], m: int, dtype: str, *, last: bool) -> None:
        rng = np.random.default_rng(1)
        self.widths, self.m, self.dtype, self.last = widths, m, dtype, last
        self.x = rng.standard_normal((m, widths[0]), np.dtype(dtype))
        self.W, self.b = [], []
        for n_in, n_out in itertools.pairwise(widths):
            W = rng.standard_normal((n_out, n_in), np.dtype(dtype))
            self.W.append(W * np.asarray(np.sqrt(2 / n_in), dtype))
            self.b.append(rng.standard_normal(n_out, np.dtype(dtype)))

    @cached_property
    def wt(self) -> list[Array]:
        return [np.ascontiguousarray(W.T) for W in self.W]

    def active(self, layer: int) -> bool:
        """Whether LeakyReLU follows this layer."""
        return self.last or layer < len(self.W) - 1

    def reference(self, rows: Array, slope: float) -> Array:
        """The answer for these rows, in float64."""
        a = self.x[rows].astype(np.float64)
        for i, (W, b) in enumerate(zip(self.W, self.b, strict=True)):
            a = a @ W.T.astype(np.float64) + b
            if self.active(i):
                a = np.where(a > 0, a, slope * a)
        return a

    def check(self, form: Form) -> str | None:
        """What is wrong with a form's answer, if anything."""
        rows = np.unique(np.linspace(0, self.m - 1, min(self.m, ROWS)).astype(int))
        want = self.reference(rows, 0.0 if form.peer == "scikit-learn" else SLOPE)
        got = np.asarray(form.answer())
        if got.shape != (self.m, self.widths[-1]) or got.dtype != self.dtype:
            return f"{form.variant}: the answer is {got.dtype} of shape {got.shape}"
        error = np.abs(got[rows] - want).max() / np.abs(want).max()
        if not error <= TOLERANCE[self.dtype]:
            return f"{form.variant}: the answer is off by {error:.1e} of the largest element"
        return None


def fastnn_model(net: Network) -> Iterator[Form]:
    layers: list[Any] = []
    for i, (n_in, n_out) in enumerate(itertools.pairwise(net.widths)):
        layers.append(fastnn.Linear(n_in, n_out, dtype=net.dtype))
        layers += [fastnn.LeakyReLU(SLOPE)] if net.active(i) else []
    model = fastnn.Sequential(*layers, rng=0)
    names = model.parameters()
    values = itertools.chain.from_iterable(zip(net.W, net.b, strict=True))
    model.load_state_dict(dict(zip(names, values, strict=True)))
    out = np.empty((net.m, net.widths[-1]), net.dtype)
    yield Form("fastnn", "predict(x, out)", partial(model.predict, net.x, out))


def fastnn_linear(net: Network) -> Iterator[Form]:
    out = np.empty((net.m, net.widths[-1]), net.dtype)
    linear, x, W, b = fastnn.linear, net.x, net.W[0], net.b[0]

    def call() -> Array:  # functools.partial takes 120 ns to pass a keyword
        return linear(x, W, b, negative_slope=SLOPE, out=out)

    yield Form("fastnn", "linear(x, W, b, out=)", call)


def numpy_plain(net: Network) -> Iterator[Form]:
    layers = list(zip(net.W, net.b, map(net.active, range(len(net.W))), strict=True))

    def call() -> Array:
        a = net.x
        for W, b, active in layers:
            z = a @ W.T + b
            a = np.where(z > 0, z, SLOPE * z) if active else z
        return a

    yield Form("NumPy plain", "x @ W.T + b, where", call)


def _numpy_out(net: Network, name: str, weights: list[Array]) -> Form:
    outputs = [np.empty((net.m, n), net.dtype) for n in net.widths[1:]]
    scratch = [np.empty((net.m, n), net.dtype) for n in net.widths[1:]]
    active = map(net.active, range(len(net.W)))
    layers = list(zip(weights, net.b, outputs, scratch, active, strict=True))

    def call() -> Array:
        a = net.x
        for w, b, z, s, active in layers:
            np.matmul(a, w, out=z)
            a = np.add(z, b, out=z)
            if active:
                np.multiply(z, SLOPE, out=s)
                a = np.maximum(z, s, out=z)
        return a

    return Form("NumPy out=", name, call)


def numpy_out(net: Network) -> Iterator[Form]:
    yield _numpy_out(net, "W", [W.T for W in net.W])


def numpy_out_both(net: Network) -> Iterator[Form]:
    yield from numpy_out(net)
    yield _numpy_out(net, "wt", net.wt)


def _torch_layers(net: Network) -> list[tuple[Any, Any, bool]]:
    import torch

    pairs = enumerate(zip(net.W, net.b, strict=True))
    return [(torch.tensor(W), torch.tensor(b), net.active(i)) for i, (W, b) in pairs]


def torch_eager(net: Network) -> Iterator[Form]:
    import torch
    from torch.nn.functional import leaky_relu_, linear

    x, layers = torch.tensor(net.x), _torch_layers(net)
    outputs = [torch.empty(net.m, n, dtype=x.dtype) for n in net.widths[1:]]

    def functional() -> Array:
        a = x
        for W, b, active in layers:
            a = linear(a, W, b)
            if active:
                leaky_relu_(a, SLOPE)
        return a

    def with_out() -> Array:
        a = x
        for (W, b, active), z in zip(layers, outputs, strict=True):
            a = torch.addmm(b, a, W.T, out=z)
            if active:
                leaky_relu_(z, SLOPE)
        return a

    def vector() -> Array:
        a = x[0]
        for W, b, active in layers:
            a = torch.addmv(b, W, a)
            if active:
                leaky_relu_(a, SLOPE)
        return a[None]

    yield Form("PyTorch", "linear, leaky_relu_", functional, torch.inference_mode)
    yield Form("PyTorch", "addmm(out=), leaky_relu_", with_out, torch.inference_mode)
    if net.m == 1:
        yield Form("PyTorch", "addmv, leaky_relu_", vector, torch.inference_mode)


def _torch_module(net: Network) -> Any:
    import torch

    modules: list[Any] = []
    for W, b, active in _torch_layers(net):
        linear = torch.nn.Linear(W.shape[1], W.shape[0], dtype=W.dtype)
        linear.weight.data, linear.bias.data = W, b
        modules += [linear, torch.nn.LeakyReLU(SLOPE, inplace=True)] if active else [linear]
    return torch.nn.Sequential(*modules).eval()


def torch_script(net: Network) -> Iterator[Form]:
    import torch

    yield from torch_eager(net)
    x = torch.tensor(net.x)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and at times the fastest
        frozen = torch.jit.freeze(torch.jit.trace(_torch_module(net), x))
        for _ in range(3):
            frozen(x)
    yield Form("PyTorch", "TorchScript, frozen", partial(frozen, x), torch.inference_mode)


def torch_compile(net: Network) -> Iterator[Form]:
    """Compiled ahead of time by inductor, which takes the fastest of its kernels for each layer."""
    import torch
    import torch._inductor.config

    x = torch.tensor(net.x)
    settings = {
        "freezing": True,
        "max_autotune": True,
        "autotune_num_choices_displayed": 0,
        "max_autotune_report_choices_stats": False,
    }
    with (
        torch._inductor.config.patch(settings),
        torch.no_grad(),
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stderr(io.StringIO()),
    ):
        exported = torch.export.export(_torch_module(net), (x,))
        path = os.path.join(folder, "network.pt2")
        torch._inductor.aoti_compile_and_package(exported, package_path=path)
        compiled = torch._inductor.aoti_load_package(path)
    # The loader takes and gives lists; its callable wrapper costs many times a small network.
    yield Form("torch.compile", "AOTInductor", partial(compiled, x), torch.inference_mode)
    run, inputs = compiled.loader.run, [x]
    yield Form(
        "torch.compile", "AOTInductor's loader", lambda: run(inputs)[0], torch.inference_mode
    )


def onednn(net: Network) -> Iterator[Form]:
    import torch

    if not torch.backends.mkldnn.is_available():
        raise RuntimeError("this PyTorch has no oneDNN")
    op = torch.ops.mkldnn._linear_pointwise.default
    reorder = torch.ops.mkldnn._reorder_linear_weight
    x = torch.tensor(net.x)
    layers = [
        (reorder(W, net.m), b, "leaky_relu" if active else "none", [SLOPE] if active else [])
        for W, b, active in _torch_layers(net)
    ]

    def call() -> Array:
        a = x
        for packed, b, act, scalars in layers:
            a = op(a, packed, b, act, scalars, "")
        return a

    yield Form("oneDNN", "prepacked, fused", call, torch.inference_mode)


def _onnx_session(net: Network, threads: int) -> Any:
    import onnx
    import onnxruntime
    from onnx import helper, numpy_helper

    nodes, initializers, a = [], [], "x"
    for i, (W, b) in enumerate(zip(net.W, net.b, strict=True)):
        initializers += [numpy_helper.from_array(W, f"W{i}"), numpy_helper.from_array(b, f"b{i}")]
        nodes.append(helper.make_node("Gemm", [a, f"W{i}", f"b{i}"], [f"z{i}"], transB=1))
        a = f"z{i}"
        if net.active(i):
            nodes.append(helper.make_node("LeakyRelu", [a], [f"a{i}"], alpha=SLOPE))
            a = f"a{i}"
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", kind, (net.m, net.widths[0]))],
        [helper.make_tensor_value_info(a, kind, (net.m, net.widths[-1]))],
        initializers,
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    provider = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=provider)


def onnx_runtime(net: Network) -> Iterator[Form]:
    session = _onnx_session(net, int(os.environ["OMP_NUM_THREADS"]))
    y = np.empty((net.m, net.widths[-1]), net.dtype)
    binding = session.io_binding()
    name = session.get_outputs()[0].name
    binding.bind_input("x", "cpu", 0, np.float32, net.x.shape, net.x.ctypes.data)
    binding.bind_output(name, "cpu", 0, np.float32, y.shape, y.ctypes.data)
    bound = partial(session.run_with_iobinding, binding)
    yield Form("ONNX Runtime", "IO binding", bound, result=lambda: y)
    bare = partial(session._sess.run_with_iobinding, binding._iobinding, None)
    yield Form("ONNX Runtime", "IO binding, bare", bare, result=lambda: y)
    yield Form("ONNX Runtime", "run", lambda: session.run(None, {"x": net.x})[0])


def _jax_forward(net: Network) -> Callable[..., Any]:
    import jax.numpy as jnp

    def forward(x: Any, weights: list[Any], biases: list[Any]) -> Any:
        for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
            x = x @ w + b
            if net.active(i):
                x = jnp.where(x > 0, x, SLOPE * x)
        return x

    return forward


def jax_jit(net: Network) -> Iterator[Form]:
    """Weights (n_in, n_out), as arguments and as constants of the compiled program."""
    import jax

    forward = _jax_forward(net)
    x, w, b = jax.device_put((net.x, net.wt, net.b))
    jitted, constant = jax.jit(forward), jax.jit(lambda x: forward(x, w, b))
    yield Form("JAX", "wt", lambda: jitted(x, w, b).block_until_ready())
    yield Form("JAX", "wt constant", lambda: constant(x).block_until_ready())


def jax_linear(net: Network) -> Iterator[Form]:
    """The caller's W (n_out, n_in)."""
    import jax
    import jax.numpy as jnp

    @jax.jit
    def linear(x: Any, W: Any, b: Any) -> Any:
        z = x @ W.T + b
        return jnp.where(z > 0, z, SLOPE * z)

    x, W, b = jax.device_put((net.x, net.W[0], net.b[0]))
    yield Form("JAX", "W", lambda: linear(x, W, b).block_until_ready())


def sklearn_mlp(net: Network) -> Iterator[Form]:
    """ReLU: scikit-learn has no LeakyReLU. MLPRegressor gives raw outputs, as the others do."""
    from sklearn.neural_network import MLPRegressor

    mlp = MLPRegressor(hidden_layer_sizes=net.widths[1:-1], batch_size=2)
    mlp.partial_fit(np.zeros((2, net.widths[0]), "f4"), np.zeros((2, net.widths[-1]), "f4"))
    mlp.coefs_, mlp.intercepts_ = net.wt, net.b
    yield Form("scikit-learn", "predict", partial(mlp.predict, net.x))
    inner = partial(mlp._forward_pass_fast, net.x, check_input=False)
    yield Form("scikit-learn", "_forward_pass_fast", inner)


# By section: who takes part, the maker of the peer's forms.
OWNED = {
    "fastnn": fastnn_model,
    "NumPy plain": numpy_plain,
    "NumPy out=": numpy_out_both,
    "PyTorch": torch_eager,
    "torch.compile": torch_compile,
    "oneDNN": onednn,
    "ONNX Runtime": onnx_runtime,
    "JAX": jax_jit,
}
FLOAT64 = {name: OWNED[name] for name in ("fastnn", "NumPy plain", "NumPy out=", "PyTorch")}
CALLERS = {
    "fastnn": fastnn_linear,
    "NumPy plain": numpy_plain,
    "NumPy out=": numpy_out,
    "PyTorch": torch_eager,
    "JAX": jax_linear,
}
PREDICT = OWNED | {
    "PyTorch": torch_script,
    "scikit-learn": sklearn_mlp,
}
