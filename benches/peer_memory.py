"""Work that memory bounds: random fills, pointwise functions and Adam's update."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from peer_timing import Form

import fastnn
from fastnn.cli import bench_cases

SLOPE = 0.01

Array = Any


def _threads() -> int:
    return int(os.environ["OMP_NUM_THREADS"])


class Fill:
    """n float32 of a distribution: uniform in [0, 1), or standard normal."""

    def __init__(self, name: str, n: int) -> None:
        self.name, self.n = name, n

    def check(self, form: Form) -> str | None:
        """Mean and standard deviation within six standard errors; no short period."""
        got = np.asarray(form.answer())
        mean, std = (0.5, 12**-0.5) if self.name == "uniform" else (0.0, 1.0)
        error = 6 * std / np.sqrt(self.n)
        if got.shape != (self.n,) or got.dtype != np.float32:
            return f"{form.variant}: the answer is {got.dtype} of shape {got.shape}"
        sums = got.sum(dtype=np.float64), np.square(got - mean, dtype=np.float64).sum()
        if not abs(sums[0] / self.n - mean) < error or len(np.unique(got[:1000])) < 990:
            return f"{form.variant}: not {self.name}"
        if not abs(np.sqrt(sums[1] / self.n) - std) < 1.5 * error:
            return f"{form.variant}: not {self.name}"
        return None


def fastnn_fill(fill: Fill) -> Iterator[Form]:
    out, rng = np.empty(fill.n, np.float32), np.random.default_rng(4)
    arguments = {"low": 0.0, "high": 1.0} if fill.name == "uniform" else {"std": 1.0}
    call = partial(getattr(fastnn.init, fill.name), fill.n, **arguments, rng=rng, out=out)
    yield Form("fastnn", f"init.{fill.name}(out=)", call)


def numpy_fill(fill: Fill) -> Iterator[Form]:
    """One generator, and on several threads one for each, as NumPy's manual shows it."""
    out = np.empty(fill.n, np.float32)
    method = "random" if fill.name == "uniform" else "standard_normal"
    for kind in (np.random.PCG64, np.random.SFC64):
        draw = getattr(np.random.Generator(kind(5)), method)
        yield Form("NumPy out=", kind.__name__, partial(draw, dtype=np.float32, out=out))
        if (threads := _threads()) > 1:
            seeds = np.random.SeedSequence(6).spawn(threads)
            draws = [getattr(np.random.Generator(kind(seed)), method) for seed in seeds]
            call = _in_threads(draws, np.array_split(out, threads))
            yield Form("NumPy out=", f"{kind.__name__}, threads", call, result=lambda: out)


def _in_threads(draws: list[Any], parts: list[Array]) -> Callable[[], Any]:
    pool = ThreadPoolExecutor(len(parts))

    def one(i: int) -> None:
        draws[i](dtype=np.float32, out=parts[i])

    return lambda: list(pool.map(one, range(len(parts))))


def torch_fill(fill: Fill) -> Iterator[Form]:
    import torch

    out = torch.empty(fill.n)
    call = out.uniform_ if fill.name == "uniform" else out.normal_
    yield Form("PyTorch", f"{fill.name}_", call, torch.inference_mode)


def jax_fill(fill: Fill) -> Iterator[Form]:
    """Into a donated buffer."""
    import jax
    import jax.numpy as jnp

    draw = jax.random.uniform if fill.name == "uniform" else jax.random.normal

    def make(kind: str) -> Callable[[], Any]:
        state = [jax.random.key(7, impl=kind), jnp.zeros(fill.n)]
        fresh = jax.jit(
            lambda key, _: (jax.random.fold_in(key, 1), draw(key, (fill.n,))),
            donate_argnums=1,
            keep_unused=True,
        )

        def call() -> Any:
            state[:] = fresh(*state)
            return state[1].block_until_ready()

        return call

    for kind in ("threefry2x32", "rbg"):
        yield Form("JAX", kind, make(kind))


class Pointwise:
    """leaky_relu or leaky_relu_derivative of n float32 into another buffer."""

    def __init__(self, name: str, n: int) -> None:
        self.name, self.n = name, n
        self.x = np.random.default_rng(8).standard_normal(n, np.float32)

    def check(self, form: Form) -> str | None:
        x = self.x
        want = np.where(x > 0, x, np.float32(SLOPE) * x)
        if self.name == "leaky_relu_derivative":
            want = np.where(x > 0, np.float32(1), np.float32(SLOPE))
        got = np.asarray(form.answer())
        if got.dtype != np.float32 or not np.allclose(got, want, rtol=1e-6, atol=0):
            return f"{form.variant}: another answer"
        return None


def fastnn_pointwise(work: Pointwise) -> Iterator[Form]:
    function, out = getattr(fastnn, work.name), np.empty_like(work.x)
    yield Form("fastnn", "out=", partial(function, work.x, SLOPE, out=out))


def numpy_pointwise(work: Pointwise) -> Iterator[Form]:
    x, out, scratch = work.x, np.empty_like(work.x), np.empty_like(work.x)
    best = getattr(bench_cases, f"_{work.name.removeprefix('leaky_relu_')}_best")
    yield Form("NumPy out=", "out=", partial(best, x, out, scratch))


def torch_pointwise(work: Pointwise) -> Iterator[Form]:
    import torch

    x = torch.tensor(work.x)
    out, ones = torch.empty_like(x), torch.ones_like(x)
    if work.name == "leaky_relu":
        call = partial(torch._C._nn.leaky_relu, x, SLOPE, out=out)
        yield Form("PyTorch", "leaky_relu(out=)", call, torch.inference_mode)
        return
    backward = torch.ops.aten.leaky_relu_backward.grad_input
    call = partial(backward, ones, x, SLOPE, False, grad_input=out)
    yield Form("PyTorch", "leaky_relu_backward of ones", call, torch.inference_mode)


def jax_pointwise(work: Pointwise) -> Iterator[Form]:
    """Into a donated buffer."""
    import jax
    import jax.numpy as jnp

    def leaky_relu(x: Any, _: Any) -> Any:
        return jnp.where(x > 0, x, SLOPE * x)

    def derivative(x: Any, _: Any) -> Any:
        return jnp.where(x > 0, jnp.float32(1), jnp.float32(SLOPE))

    function = leaky_relu if work.name == "leaky_relu" else derivative
    jitted = jax.jit(function, donate_argnums=1, keep_unused=True)
    x = jax.device_put(work.x)
    buffer = [jnp.zeros(work.n)]

    def call() -> Any:
        buffer[0] = jitted(x, buffer[0])
        return buffer[0].block_until_ready()

    yield Form("JAX", "jit, donated", call)


class Adam:
    """One update of n parameters by a constant gradient."""

    lr = bench_cases.LR

    def __init__(self, n_in: int, n_out: int) -> None:
        self.n_in, self.n_out, self.n = n_in, n_out, n_in * n_out
        self.g = np.random.default_rng(1).standard_normal(self.n, np.float32)

    def check(self, form: Form) -> str | None:
        """The first update is lr against the sign of the gradient."""
        got = np.asarray(form.answer()).ravel()
        want = -self.lr * self.g / (np.abs(self.g) + 1e-8)
        if got.dtype != np.float32 or not np.allclose(got, want, rtol=1e-4, atol=0):
            return f"{form.variant}: another update"
        return None


def fastnn_adam(work: Adam) -> Iterator[Form]:
    layer = fastnn.Linear(work.n_in, work.n_out, bias=False, weight_init="zeros")
    model, optimizer = fastnn.Sequential(layer), fastnn.Adam(lr=work.lr)
    layer.grad_weight.T[...] = work.g.reshape(work.n_in, work.n_out)
    step = partial(optimizer.step, model)
    yield Form("fastnn", "Adam.step", step, result=lambda: layer.weight.T)


def numpy_adam(work: Adam) -> Iterator[Form]:
    yield Form("NumPy out=", "out=", bench_cases._adam(work.n).make("float32").numpy_out)


def torch_adam(work: Adam) -> Iterator[Form]:
    import torch

    def fresh() -> Any:
        parameter = torch.zeros(work.n, requires_grad=True)
        parameter.grad = torch.tensor(work.g)
        return parameter

    p = fresh()
    optimizer = torch.optim.Adam([p], lr=work.lr, fused=True)
    yield Form("PyTorch", "Adam(fused=True).step", optimizer.step, result=p.detach)
    q = fresh().detach()
    lists = [[q], [torch.tensor(work.g)], [torch.zeros(work.n)], [torch.zeros(work.n)], []]
    t = torch.tensor(0.0)
    settings = {"lr": work.lr, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "eps": 1e-8}
    update = partial(torch._fused_adam_, *lists, [t], **settings, amsgrad=False, maximize=False)

    def call() -> Any:
        t.add_(1)
        update()
        return q

    yield Form("PyTorch", "_fused_adam_", call, torch.no_grad)


def jax_adam(work: Adam) -> Iterator[Form]:
    import jax
    import jax.numpy as jnp

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def update(p: Any, mean: Any, square: Any, g: Any, t: Any) -> Any:
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g * g
        rate, root = work.lr / (1 - 0.9**t), jnp.sqrt(1 - 0.999**t)
        return p - rate * mean / (jnp.sqrt(square) / root + 1e-8), mean, square

    g, steps = jax.device_put(work.g), itertools.count(1)
    state = [jnp.zeros(work.n) for _ in range(3)]

    def call() -> Any:
        state[:] = update(*state, g, np.float32(next(steps)))
        return state[0].block_until_ready()

    yield Form("JAX", "jit, donated", call)


FILL = {
    "fastnn": fastnn_fill,
    "NumPy out=": numpy_fill,
    "PyTorch": torch_fill,
    "JAX": jax_fill,
}
POINTWISE = {
    "fastnn": fastnn_pointwise,
    "NumPy out=": numpy_pointwise,
    "PyTorch": torch_pointwise,
    "JAX": jax_pointwise,
}
ADAM = {
    "fastnn": fastnn_adam,
    "NumPy out=": numpy_adam,
    "PyTorch": torch_adam,
    "JAX": jax_adam,
}
