"""Training: an epoch of shuffled minibatches in each peer, with cross-entropy and Adam.

A call is one epoch: a new order of the rows, and for each batch its rows gathered, forward, loss,
backward and update. All start from the same weights. Before anything is timed each peer trains on
the first batches in their order, and must arrive at the losses and parameters of a plain NumPy
training (`fastnn.cli.plain_numpy`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from peer_timing import Form

import fastnn
from fastnn.cli.plain_numpy import PlainNetwork

SLOPE, LR = 0.01, 1e-4
CHECKED = 10  # batches
# Of the mean loss, and of the mean way that a parameter has gone. Adam's first steps are the signs
# of the gradients, so where a gradient is nearly 0 rounding decides.
LOSS_TOLERANCE, WAY_TOLERANCE = 1e-4, 0.02

Array = Any


class Data(NamedTuple):
    """Rows, labels and first weights; `scale` multiplies uint8 rows, and is None for float32."""

    widths: tuple[int, ...]
    m: int
    x: Array
    y: Array
    scale: float | None


class Training(NamedTuple):
    """What a maker gives: `epoch(order)` trains on the rows in that order, or for None in one of
    its own, and gives the mean loss; `parameters()` gives all W (n_out, n_in), then all biases."""

    peer: str
    variant: str
    epoch: Callable[[Array | None], float]
    parameters: Callable[[], list[Array]]


class Task:
    """The data set, made at first use, and the check."""

    def __init__(self, widths: tuple[int, ...], m: int, rows: int, *, uint8: bool = False) -> None:
        self.widths, self.m, self.rows, self.uint8 = widths, m, rows // m * m, uint8

    @cached_property
    def data(self) -> Data:
        rng = np.random.default_rng(2)
        shape = self.rows, self.widths[0]
        x = rng.integers(0, 256, shape, np.uint8)
        y = rng.integers(0, self.widths[-1], self.rows)
        if self.uint8:
            return Data(self.widths, self.m, x, y, 1 / 255)
        return Data(self.widths, self.m, x * np.float32(1 / 255), y, None)

    def weights(self) -> tuple[list[Array], list[Array]]:
        """W (n_out, n_in) and b of each layer: He's, the same at each call."""
        rng = np.random.default_rng(3)
        W = [
            rng.standard_normal((n_out, n_in), np.float32) * np.float32(np.sqrt(2 / n_in))
            for n_in, n_out in itertools.pairwise(self.widths)
        ]
        return W, [np.full(n, 0.01, np.float32) for n in self.widths[1:]]

    def check(self, training: Training) -> str | None:
        """Train on the first batches; what is wrong with the outcome, if anything."""
        slope = 0.0 if training.peer == "scikit-learn" else SLOPE
        order = np.arange(min(CHECKED * self.m, self.rows))
        plain = _PlainEpochs(self, slope)
        want, loss = plain.epoch(order), training.epoch(order)
        if not abs(loss - want) <= LOSS_TOLERANCE * abs(want):
            return f"{training.variant}: the loss is {loss:.6g}, not {want:.6g}"
        first = itertools.chain(*self.weights())
        far = apart = 0.0
        for a, b, start in zip(training.parameters(), plain.parameters(), first, strict=True):
            far += float(np.abs(b - start).sum())
            apart += float(np.abs(np.asarray(a) - b).sum())
        if not apart <= WAY_TOLERANCE * far:
            return f"{training.variant}: the parameters are {apart / far:.1%} off their way"
        return None

    def timed(self, training: Training) -> Form:
        """What is timed: an epoch."""
        epoch, rows, rng = training.epoch, self.rows, np.random.default_rng(4)
        if training.peer in ("fastnn", "scikit-learn"):  # they shuffle themselves
            return Form(training.peer, training.variant, lambda: epoch(None))
        return Form(training.peer, training.variant, lambda: epoch(rng.permutation(rows)))


def fastnn_fit(task: Task) -> Iterator[Training]:
    data = task.data
    layers: list[Any] = []
    for n_in, n_out in itertools.pairwise(task.widths):
        layers += [fastnn.Linear(n_in, n_out), fastnn.LeakyReLU(SLOPE)]
    model = fastnn.Sequential(*layers[:-1], rng=0, uint8_scale=data.scale or 1)
    values = itertools.chain.from_iterable(zip(*task.weights(), strict=True))
    model.load_state_dict(dict(zip(model.parameters(), values, strict=True)))
    optimizer = fastnn.Adam(lr=LR)

    def epoch(order: Array | None) -> float:
        rows = slice(None) if order is None else slice(len(order))
        history = model.fit(
            data.x[rows],
            data.y[rows],
            loss="cross_entropy",
            optimizer=optimizer,
            epochs=1,
            batch_size=data.m,
            shuffle=order is None,
            progress=False,
        )
        return float(history.loss[-1])

    def parameters() -> list[Array]:
        arrays = list(model.state_dict().values())
        return arrays[::2] + arrays[1::2]

    yield Training("fastnn", "fit", epoch, parameters)


class _PlainEpochs:
    def __init__(self, task: Task, slope: float = SLOPE) -> None:
        W, b = task.weights()
        self.data = task.data
        self.net = PlainNetwork([w.T for w in W], b, task.m, negative_slope=slope, lr=LR)
        self.rows = np.empty((task.m, task.widths[0]), np.float32)

    def epoch(self, order: Array) -> float:
        data, net, rows = self.data, self.net, self.rows
        if data.scale is not None:
            return net.epoch(data.x, data.y, data.scale, order)
        total = 0.0
        for start in range(0, len(order), data.m):
            index = order[start : start + data.m]
            np.take(data.x, index, axis=0, out=rows, mode="clip")  # other modes use a buffer
            total += net.step(rows, data.y[index])
        return total / len(order)

    def parameters(self) -> list[Array]:
        return [w.T for w in self.net.w] + self.net.b


def numpy_epochs(task: Task) -> Iterator[Training]:
    plain = _PlainEpochs(task)
    yield Training("NumPy out=", "flat buffers", plain.epoch, plain.parameters)


class _TorchEpochs:
    """The functional form, which saves the modules' own Python; fused Adam."""

    def __init__(self, task: Task) -> None:
        import torch

        self.data = data = task.data
        W, b = task.weights()
        self.W = [torch.tensor(w, requires_grad=True) for w in W]
        self.b = [torch.tensor(v, requires_grad=True) for v in b]
        self.optimizer = torch.optim.Adam([*self.W, *self.b], lr=LR, fused=True)
        self.x, self.y = torch.tensor(data.x), torch.tensor(data.y)
        self.loss = self.forward

    def forward(self, x: Any, y: Any) -> Any:
        from torch.nn.functional import cross_entropy, leaky_relu_, linear

        for W, b in zip(self.W[:-1], self.b[:-1], strict=True):
            x = leaky_relu_(linear(x, W, b), SLOPE)
        return cross_entropy(linear(x, self.W[-1], self.b[-1]), y)

    def epoch(self, order: Array) -> float:
        import torch

        data, optimizer, total = self.data, self.optimizer, torch.zeros(())
        for index in torch.from_numpy(order).split(data.m):
            x, y = self.x.index_select(0, index), self.y.index_select(0, index)
            if data.scale is not None:
                x = x.float().mul_(data.scale)
            optimizer.zero_grad(set_to_none=True)
            loss = self.loss(x, y)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return float(total) * data.m / len(order)

    def parameters(self) -> list[Array]:
        return [p.detach().numpy() for p in (*self.W, *self.b)]


def torch_epochs(task: Task) -> Iterator[Training]:
    epochs = _TorchEpochs(task)
    yield Training("PyTorch", "functional, fused Adam", epochs.epoch, epochs.parameters)


def torch_compiled(task: Task) -> Iterator[Training]:
    import torch

    epochs = _TorchEpochs(task)
    epochs.loss = torch.compile(epochs.forward, dynamic=False)
    yield Training("torch.compile", "loss compiled", epochs.epoch, epochs.parameters)


class _JaxEpochs:
    """Weights (n_in, n_out). `scan`: the whole epoch is one program; else each step is one."""

    def __init__(self, task: Task, *, scan: bool) -> None:
        import jax
        import jax.numpy as jnp

        self.data, self.scan = task.data, scan
        self.x, self.y = jax.device_put((task.data.x, task.data.y.astype(np.int32)))
        W, b = task.weights()
        parameters = [jnp.array(np.ascontiguousarray(w.T)) for w in W], [jnp.array(v) for v in b]
        zeros = jax.tree.map(jnp.zeros_like, parameters)
        self.state = parameters, zeros, jax.tree.map(jnp.copy, zeros), jnp.float32(0)
        self.step = jax.jit(self._step, donate_argnums=0)
        self.scanned = jax.jit(self._scan, donate_argnums=0)

    def _loss(self, parameters: Any, x: Any, y: Any) -> Any:
        import jax
        import jax.numpy as jnp

        *hidden, (w, b) = zip(*parameters, strict=True)
        for v, c in hidden:
            z = x @ v + c
            x = jnp.where(z > 0, z, SLOPE * z)
        log_p = jax.nn.log_softmax(x @ w + b)
        return -jnp.take_along_axis(log_p, y[:, None], axis=1).mean()

    def _step(self, state: Any, x: Any, y: Any, index: Any) -> Any:
        import jax
        import jax.numpy as jnp

        parameters, mean, square, t = state
        rows = x.at[index].get(mode="promise_in_bounds")
        if self.data.scale is not None:
            rows = rows.astype(jnp.float32) * jnp.float32(self.data.scale)
        loss, grad = jax.value_and_grad(self._loss)(parameters, rows, y[index])
        t = t + 1
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, grad)
        square = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g * g, square, grad)
        rate, root = LR / (1 - 0.9**t), jnp.sqrt(1 - 0.999**t)
        new = jax.tree.map(
            lambda p, m, s: p - rate * m / (jnp.sqrt(s) / root + 1e-8), parameters, mean, square
        )
        return (new, mean, square, t), loss

    def _scan(self, state: Any, x: Any, y: Any, batches: Any) -> Any:
        import jax

        return jax.lax.scan(lambda s, index: self._step(s, x, y, index), state, batches)

    def epoch(self, order: Array) -> float:
        batches = order.astype(np.int32).reshape(-1, self.data.m)
        if self.scan:
            self.state, losses = self.scanned(self.state, self.x, self.y, batches)
            return float(losses.mean())
        losses = []
        for index in batches:
            self.state, loss = self.step(self.state, self.x, self.y, index)
            losses.append(loss)
        return float(np.mean([float(loss) for loss in losses]))

    def parameters(self) -> list[Array]:
        W, b = self.state[0]
        return [np.asarray(w).T for w in W] + [np.asarray(v) for v in b]


def jax_epochs(task: Task) -> Iterator[Training]:
    for name, scan in (("scan over the epoch", True), ("jit of a step", False)):
        epochs = _JaxEpochs(task, scan=scan)
        yield Training("JAX", name, epochs.epoch, epochs.parameters)


def sklearn_epochs(task: Task) -> Iterator[Training]:
    """ReLU: scikit-learn has no LeakyReLU. partial_fit is one epoch that keeps Adam's state."""
    from sklearn.neural_network import MLPClassifier

    data = task.data
    mlp = MLPClassifier(
        hidden_layer_sizes=task.widths[1:-1],
        batch_size=task.m,
        alpha=0,
        learning_rate_init=LR,
        shuffle=False,
    )
    mlp.partial_fit(data.x[: task.m], data.y[: task.m], classes=np.arange(task.widths[-1]))
    W, b = task.weights()
    mlp.coefs_, mlp.intercepts_ = [np.ascontiguousarray(w.T) for w in W], b
    del mlp._optimizer  # the next call makes one for these parameters

    def epoch(order: Array | None) -> float:
        mlp.shuffle = order is None
        rows = slice(None) if order is None else slice(len(order))
        mlp.partial_fit(data.x[rows], data.y[rows])
        return float(mlp.loss_)

    def parameters() -> list[Array]:
        return [w.T for w in mlp.coefs_] + list(mlp.intercepts_)

    yield Training("scikit-learn", "partial_fit", epoch, parameters)


UINT8 = {
    "fastnn": fastnn_fit,
    "NumPy out=": numpy_epochs,
    "PyTorch": torch_epochs,
    "torch.compile": torch_compiled,
    "JAX": jax_epochs,
}
# scikit-learn does not scale uint8 rows.
MAKERS = UINT8 | {"scikit-learn": sklearn_epochs}
