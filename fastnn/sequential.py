"""A model: layers one after the other, compiled to one plan over one flat buffer of parameters.

Each Linear owns a slice of the buffer, weight block then bias; slices begin at multiples of 64
bytes. Gradients lie in a second buffer of the same layout, and optimizer state in others. The
layers hold views.
"""

from __future__ import annotations

import os
import weakref
from _thread import RLock  # threading's, which takes a tenth of fastnn's time to import
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import training as _training
from ._checks import as_bool, as_float, as_int
from ._core.arrays import as_array, as_real
from ._core.plan import Plan
from ._initialization import repeatable
from ._memory import LINE, flat_zeros
from ._rng import rewinding, stream_seed
from .callbacks import History
from .layers import Activation, Dropout, Layer, Linear
from .summary import summarize

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ._rng import RNG
    from .diagnosis import Report
    from .losses import Loss

    Array = NDArray[Any]

__all__ = ["Sequential"]


class Sequential:
    """Layers one after the other.

    Parameters
    ----------
    *layers : Layer
        At least one, each in this model only. A Linear's in_features are the outputs of the Linear
        before it; all Linears have one dtype.
    rng : None, int, SeedSequence, BitGenerator or Generator
        Where layers without an rng of their own draw their parameters, and dropout its masks.
        Layer i draws from stream i, so no two layers share one.
    uint8_scale : float
        What uint8 inputs are multiplied by: images can be given as they are.

    Raises
    ------
    ValueError, TypeError
        If there is no layer, one is not a layer or part of another model, sizes or dtypes do not
        fit, or an initializer fails; layers and generators are left as they were.

    Notes
    -----
    Any number of threads may call `predict` at once. Training, `forward` and `backward` included,
    in one thread while another trains the same model raises RuntimeError.

    A model can be pickled and copied; both give a model with buffers of its own.
    """

    def __init__(self, *layers: Layer, rng: RNG = None, uint8_scale: float = 1 / 255) -> None:
        _check_layers(layers)
        self._layers = layers
        self.uint8_scale = as_float(uint8_scale, "uint8_scale")
        with rewinding(rng, *(layer._rng for layer in layers if isinstance(layer, Linear))):
            root = repeatable(rng)
            self._draw(root)
        self._seed = stream_seed(root)  # of the dropout masks
        self._step = 0  # forward passes done: it names the next dropout masks
        self.history: History | None = None
        self._assemble()

    def _draw(self, root: RNG) -> None:
        """Give first values to the parameters that have none: to all of them, or none."""
        drawn = []
        for i, layer in enumerate(self._layers):
            if isinstance(layer, Linear) and layer._parameters is None:
                rest = (other for other in self._layers[i + 1 :] if not isinstance(other, Dropout))
                source = root if layer._rng is None else layer._rng
                drawn.append((layer, layer._draw(source, i, next(rest, None))))
        for layer, values in drawn:
            layer._weight_init, layer._parameters = values

    def _assemble(self) -> None:
        """Move all parameters into one buffer, and make the plan."""
        linears = [(i, layer) for i, layer in enumerate(self._layers) if isinstance(layer, Linear)]
        self.dtype = linears[0][1].dtype if linears else np.dtype(np.float32)
        self.n_in = linears[0][1].in_features if linears else None
        self.n_out = linears[-1][1].out_features if linears else None
        step = LINE // self.dtype.itemsize
        offsets, size = {}, 0
        for i, layer in linears:
            offsets[i] = size
            size += -(-layer.size // step) * step
        self._parameters = flat_zeros(size, self.dtype, 0)
        self._gradient_memory: Array | None = None  # a model that only predicts needs none
        self._parts = [(layer, slice(offsets[i], offsets[i] + layer.size)) for i, layer in linears]
        for layer, part in self._parts:
            layer._move(self._parameters[part])
        for each in self._layers:
            each._owner = weakref.ref(self)
        self._operations = _operations(self._layers, offsets)
        self._plans: dict[tuple[int, str], Plan] = {}
        self._plan = None if self.n_in is None else self._make_plan(self.n_in, self.dtype)
        self._last = self._plan  # that of the last forward pass
        self._claim = Claim()

    def _make_plan(self, width: int, dtype: np.dtype[Any]) -> Plan:
        parameters = self._parameters.astype(dtype, copy=False)
        return Plan(self._operations, width, dtype, parameters, None, self.uint8_scale)

    @property
    def _gradients(self) -> Array:
        """The flat buffer of all gradients, made when first asked for."""
        if self._gradient_memory is None:
            memory = flat_zeros(self._parameters.size, self.dtype, 1)
            for layer, part in self._parts:
                layer._gradients = memory[part]
            if self._plan is not None:
                self._plan.set_gradients(memory)
            self._gradient_memory = memory
        return self._gradient_memory

    def _plan_for(self, x: ArrayLike) -> Plan:
        """The plan; for a model without a Linear, that for inputs of x's width and dtype."""
        if self._plan is not None:
            return self._plan
        x = as_array(x, "x")
        if x.dtype != np.uint8:
            x = as_real(x, "x")
        if x.ndim == 0:
            raise ValueError("x: expected shape (m, n) or (n,), got ()")
        dtype = self.dtype if x.dtype == np.uint8 else x.dtype
        key = (x.shape[-1], dtype.char)
        if key not in self._plans:
            _check_slopes(self._layers, dtype)
            self._plans[key] = self._make_plan(x.shape[-1], dtype)
        return self._plans[key]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, first to last."""
        return self._layers

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._layers)

    def __getitem__(self, index: int) -> Layer:
        return self._layers[index]

    def __call__(self, x: ArrayLike) -> Array:
        """As `predict`."""
        return (self._plan or self._plan_for(x)).predict(x)

    def predict(self, x: ArrayLike, out: Array | None = None) -> Array:
        """The model's outputs, dropout off.

        Parameters
        ----------
        x : array_like, shape (m, n_in) or (n_in,)
            Any real dtype, computed in the model's; uint8 is multiplied by `uint8_scale`.
        out : ndarray, optional
            Writable, C-contiguous, of the result's shape and the model's dtype, apart from x.

        Returns
        -------
        ndarray, shape (m, n_out) or (n_out,); `out` if it was given. Row i has the same bits as for
        that row alone, and for any number of threads.

        Raises
        ------
        ValueError, TypeError
            If x or out has another shape or dtype, or they overlap.
        """
        return (self._plan or self._plan_for(x)).predict(x, out)

    def forward(self, x: ArrayLike, *, training: bool = True) -> Array:
        """The model's outputs, with what `backward` needs kept.

        Parameters
        ----------
        x : array_like, shape (m, n_in), as for `predict`
        training : bool
            Whether dropout drops elements, others at each call.

        Returns
        -------
        ndarray, shape (m, n_out)

        Raises
        ------
        RuntimeError
            If the model is being trained in another thread.
        """
        as_bool(training, "training")
        with self._claim:
            plan = self._plan_for(x)
            y = plan.forward(x, self._seed ^ _training.DROPOUT, self._step, training)
            self._last = plan
            self._step += 1
        return y

    def backward(self, grad: ArrayLike, *, want_grad_x: bool = False) -> Array | None:
        """Set all gradients, for the last `forward`.

        Parameters
        ----------
        grad : array_like, shape (m, n_out)
            The derivative of the objective by the outputs, as a loss gives it.
        want_grad_x : bool
            Whether to return that by the inputs: one more matrix product.

        Returns
        -------
        ndarray of shape (m, n_in) if it was wanted, else None.

        Raises
        ------
        RuntimeError
            If no `forward` went before, or the model is being trained in another thread.
        """
        as_bool(want_grad_x, "want_grad_x")
        with self._claim:
            if self._last is None:
                raise RuntimeError("backward: expected a forward pass before it, found none")
            _ = self._gradients  # which the plan writes
            return self._last.backward(grad, want_grad_x)

    def parameters(self) -> dict[str, Array]:
        """Views of all parameters by name: "0.weight" of shape (n_out, n_in), "0.bias" (n_out,)."""
        return self._views("weight", "bias")

    def gradients(self) -> dict[str, Array]:
        """Views of the gradients that the last `backward` left, named as in `parameters`.

        `fit` leaves none: it keeps most of them nowhere, and others in this memory.
        """
        return self._views("grad_weight", "grad_bias")

    def _views(self, weight: str, bias: str) -> dict[str, Array]:
        views = {}
        for i, layer in enumerate(self._layers):
            if isinstance(layer, Linear):
                views[f"{i}.weight"] = getattr(layer, weight)
                if layer.has_bias:
                    views[f"{i}.bias"] = getattr(layer, bias)
        return views

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(layer.size for layer in self._layers if isinstance(layer, Linear))

    def state_dict(self) -> dict[str, Array]:
        """C-contiguous copies of all parameters, named as in `parameters` and in PyTorch."""
        return {name: np.array(view, order="C") for name, view in self.parameters().items()}

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Copy in parameters named as in `parameters`.

        Raises
        ------
        ValueError, TypeError
            If a name is missing or unknown, or a shape or dtype does not fit; nothing has changed
            then.
        RuntimeError
            If the model is being trained in another thread.
        """
        arrays = self._fitting(state)
        with self._claim:
            self._assign(arrays)

    @property
    def dropout_state(self) -> tuple[int, int]:
        """(seed, step): what names the next masks of `forward`'s dropout.

        Beside the `state_dict` of model and optimizer, what a loop of one's own sets to go on with
        the same bits. Setting it raises ValueError or TypeError for anything but two such integers,
        seed below 2**64 and step below 2**63, and RuntimeError as `forward` does.
        """
        return self._seed, self._step

    @dropout_state.setter
    def dropout_state(self, state: tuple[int, int]) -> None:
        if not isinstance(state, tuple | list) or len(state) != 2:
            raise TypeError(f"dropout_state: expected (seed, step), got {state!r}")
        seed = as_int(state[0], "dropout_state[0]", 0, below=2**64)
        step = as_int(state[1], "dropout_state[1]", 0, below=2**63)
        with self._claim:
            self._seed, self._step = seed, step

    def _fitting(self, state: Mapping[str, ArrayLike]) -> dict[str, Array]:
        """The checked values of a state_dict."""
        if not isinstance(state, Mapping):
            raise TypeError(f"state: expected a mapping of names to arrays, got {state!r}")
        views = self.parameters()
        for what, names in (("missing", views.keys() - state), ("unknown", state.keys() - views)):
            if names:
                raise ValueError(f"state: expected {', '.join(views)}; {what}: {sorted(names)}")
        arrays = {name: as_real(state[name], name, self.dtype) for name in views}
        for name, array in arrays.items():
            if array.shape != views[name].shape:
                raise ValueError(f"{name}: expected shape {views[name].shape}, got {array.shape}")
        return arrays

    def _assign(self, arrays: dict[str, Array]) -> None:
        for name, view in self.parameters().items():
            view[...] = arrays[name]

    fit = _training.fit
    evaluate = _training.evaluate

    def summary(self) -> str:
        """A table to print: layers, output shapes, numbers of parameters, initializations."""
        return summarize(self)

    def report(
        self, X: ArrayLike, y: ArrayLike | None = None, loss: Loss | str | None = None
    ) -> Report:
        """Why the model learns or does not: figures of each layer on these rows, and a verdict.

        One forward pass and, with y, one backward pass; nothing is trained or changed.

        Parameters
        ----------
        X : array_like, shape (m, n_in), as for `fit`
        y : array_like, as for `fit`, optional
        loss : Loss or its name, optional
            None: cross-entropy where y has one number a row for several outputs, else MSE.

        Returns
        -------
        Report, to print, plot or read.

        Raises
        ------
        ValueError, TypeError
            If X is empty, not finite or of another width, or y does not fit the loss.
        """
        from .diagnosis import report

        return report(self, X, y, loss)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write layers and parameters to a safetensors file, which `fastnn.load` reads.

        The file appears complete or not at all. Raises OSError if it cannot be written.
        """
        from .files import save_model

        save_model(self, path)

    def __copy__(self) -> Sequential:
        from copy import deepcopy

        return deepcopy(self)  # two models cannot share layers

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for name in ("_parameters", "_gradient_memory", "_parts"):
            del state[name]
        for name in ("_plan", "_plans", "_last", "_claim"):
            del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._assemble()

    def __repr__(self) -> str:
        lines = [f"  {i}: {layer!r}" for i, layer in enumerate(self._layers)]
        return "\n".join([f"Sequential, {self.size:,} parameters, {self.dtype}", *lines])


class Claim:
    """`with claim:` holds a model for one thread's training; another thread gets RuntimeError."""

    def __init__(self) -> None:
        self._lock = RLock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise RuntimeError("this model is being trained in another thread")

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _check_layers(layers: tuple[Layer, ...]) -> None:
    if not layers:
        raise ValueError("layers: expected at least one, got none")
    before: tuple[int, Linear] | None = None
    for i, layer in enumerate(layers):
        what = f"layer {i} ({type(layer).__name__})"
        if not isinstance(layer, Layer):
            raise TypeError(f"layer {i}: expected a layer such as Linear(64, 10), got {layer!r}")
        if layer._owner is not None and layer._owner() is not None:
            raise ValueError(f"{what}: expected a layer of no other model (copy.copy makes one)")
        if any(layer is other for other in layers[:i]):
            raise ValueError(f"{what}: expected each layer once, got it twice")
        if not isinstance(layer, Linear):
            continue
        if before is not None:
            j, source = before
            if layer.in_features != source.out_features:
                raise ValueError(
                    f"{what}: expected in_features {source.out_features} as layer {j} gives, "
                    f"got {layer.in_features}"
                )
            if layer.dtype != source.dtype:
                raise TypeError(
                    f"{what}: expected dtype {source.dtype} as layer {j} has, got {layer.dtype}"
                )
        before = i, layer
    if before is not None:
        _check_slopes(layers, before[1].dtype)


def _check_slopes(layers: tuple[Layer, ...], dtype: np.dtype[Any]) -> None:
    limit = float(np.finfo(dtype).max)
    for i, layer in enumerate(layers):
        if isinstance(layer, Activation) and abs(layer.negative_slope) > limit:
            raise ValueError(
                f"layer {i} ({type(layer).__name__}): expected a negative_slope that {dtype} can "
                f"hold, got {layer.negative_slope:g}"
            )


def _operations(layers: tuple[Layer, ...], offsets: dict[int, int]) -> list[tuple[Any, ...]]:
    """The plan's operations; an activation right after a Linear becomes part of it."""
    operations: list[tuple[Any, ...]] = []
    fused = False
    for i, layer in enumerate(layers):
        if fused:
            fused = False
            continue
        if not isinstance(layer, Linear):
            operations.append(layer._operation())
            continue
        follower = layers[i + 1] if i + 1 < len(layers) else None
        name, slope = "identity", 0.0
        if isinstance(follower, Activation):
            name, slope, fused = follower.name, follower.negative_slope, True
        bias = offsets[i] + layer.in_features * layer.out_features if layer.has_bias else -1
        sizes = layer.in_features, layer.out_features
        operations.append(("linear", *sizes, offsets[i], bias, name, slope))
    return operations
