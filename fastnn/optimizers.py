"""Optimizers: how gradients change parameters. One optimizer serves one model.

The parameters, the gradients and each piece of state lie in flat buffers of one layout, so a step
is one pass over memory. The formulas are those of PyTorch's optimizers of the same names, so
results can be compared; weight decay is added to the gradient except in `AdamW`. On x86 a step
counts subnormal numbers, below 1.2e-38 in float32, as 0: so with an eps of 0 a gradient below about
3e-18, whose square is one, is divided by 0, as a gradient of 0 is everywhere.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ._checks import as_bool, as_float, as_int
from ._core.arrays import as_real
from ._core.updates import Update
from ._memory import flat_zeros

if TYPE_CHECKING:
    from .sequential import Sequential

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop", "as_optimizer"]

LearningRate = float | Callable[[int], float]


class Optimizer:
    """What all optimizers have in common: `step`, `lr`, and state that can be saved.

    lr is a number, or a callable that gives it for a step (an int, 0 for the first): see
    `fastnn.schedules`.
    """

    kind: ClassVar[str]  # what the compiled modules call it

    def __init__(self, lr: LearningRate, **hyper: Any) -> None:
        self.hyper = hyper
        self.lr = lr
        self._model: Callable[[], Sequential | None] | None = None
        self._update: Update | None = None
        self._loaded: dict[str, Any] | None = None  # state for the model to come

    @property
    def lr(self) -> LearningRate:
        """The learning rate, or the schedule. May be set at any time."""
        return self._lr

    @lr.setter
    def lr(self, value: LearningRate) -> None:
        self._lr = value if callable(value) else as_float(value, "lr", 0.0)

    @property
    def t(self) -> int:
        """Number of steps done."""
        if self._update is not None:
            return self._update.t
        return 0 if self._loaded is None else int(self._loaded["t"])

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, 0 for the first.

        Raises ValueError or TypeError if the schedule gives something else than a finite number of
        at least 0.
        """
        if not callable(self._lr):
            return self._lr
        return as_float(self._lr(step), f"lr({step})", 0.0)

    def step(self, model: Sequential) -> None:
        """Change the model's parameters by its gradients as they stand.

        Raises
        ------
        ValueError
            If this optimizer has served another model.
        RuntimeError
            If the model is being trained in another thread.
        """
        update = self.bind(model)
        with model._claim:
            update.lr = self.lr_at(update.t)
            update.apply()

    def bind(self, model: Sequential) -> Update:
        """The compiled update of this model's buffers; made at first use."""
        if self._update is not None:
            if self._model is None or self._model() is not model:
                raise ValueError(
                    "optimizer: expected the model that it has served before, got another one"
                )
            return self._update
        if not hasattr(model, "_claim"):
            raise TypeError(f"model: expected a Sequential, got {type(model).__name__}")
        parameters, gradients = model._parameters, model._gradients
        size, dtype = parameters.size, parameters.dtype
        state = [flat_zeros(size, dtype, 2 + i) for i in range(len(self.state_names()))]
        update = Update(self.kind, parameters, gradients, state, lr=0.0, **self.hyper)
        if self._loaded is not None:
            self._fill(update, self._loaded)
        self._model, self._update, self._loaded = weakref.ref(model), update, None
        return update

    def state_names(self) -> tuple[str, ...]:
        """Names of the state arrays."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Copies of the state: "t", and flat arrays in the order of the model's buffer.

        With the model's own `state_dict`, and its `dropout_state` where it has dropout, all that
        training needs to go on as if never stopped. The arguments of the constructor are not part
        of it.
        """
        if self._update is None:
            return dict(self._loaded or {"t": 0})
        arrays = zip(self.state_names(), self._update.state, strict=True)
        return {"t": self._update.t, **{name: array.copy() for name, array in arrays}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises ValueError or TypeError, with nothing changed, if names, shapes or dtypes differ.
        Before the optimizer has met its model the shapes are checked when it does.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state: expected a mapping of names to arrays, got {state!r}")
        t = as_int(state.get("t", 0), "t", 0, below=2**63)
        names = {"t", *self.state_names()} if t or len(state) > 1 else {"t"}
        if state.keys() != names:
            got = sorted(map(str, state))
            raise ValueError(f"state: expected {sorted(names)}, got {got}")
        loaded = {name: state[name] for name in self.state_names() if name in state}
        loaded = {name: np.array(as_real(value, name)) for name, value in loaded.items()}
        loaded["t"] = t
        if self._update is None:
            self._loaded = loaded
        else:
            self._fill(self._update, loaded)

    def _fill(self, update: Update, loaded: dict[str, Any]) -> None:
        arrays = [loaded.get(name) for name in self.state_names()]
        for name, target, value in zip(self.state_names(), update.state, arrays, strict=True):
            if value is not None and (value.shape, value.dtype) != (target.shape, target.dtype):
                raise ValueError(
                    f"{name}: expected {target.dtype} of shape {target.shape} for this model, "
                    f"got {value.dtype} of shape {value.shape}"
                )
        for target, value in zip(update.state, arrays, strict=True):
            target[...] = 0 if value is None else value
        update.t = loaded["t"]

    def __getstate__(self) -> dict[str, Any]:
        # A copy has met no model yet, and brings its state to the first that it meets.
        state = self.__dict__ | {"_model": None, "_update": None, "_loaded": self.state_dict()}
        return state

    def __repr__(self) -> str:
        lr = f"{self._lr:g}" if isinstance(self._lr, float) else repr(self._lr)
        hyper = (f"{name}={value!r}" for name, value in self.hyper.items() if name != "decoupled")
        return f"{type(self).__name__}({', '.join([f'lr={lr}', *hyper])})"


class SGD(Optimizer):
    """Stochastic gradient descent: w -= lr g, with momentum v = momentum v + g, w -= lr v.

    lr : float at least 0, or callable of the step. momentum, weight_decay : at least 0.
    nesterov : w -= lr (g + momentum v) instead; needs a momentum above 0.

    The first step sets v = g. Sources: Polyak 1964 for momentum, Sutskever et al. 2013 for
    Nesterov's form.

    Raises
    ------
    ValueError
        If a number is negative or not finite, or nesterov comes without momentum.
    TypeError
        If lr, momentum or weight_decay is not a number (or lr a callable), or nesterov not a bool.
    """

    kind = "sgd"

    def __init__(
        self,
        lr: LearningRate = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        momentum = as_float(momentum, "momentum", 0.0)
        if as_bool(nesterov, "nesterov") and momentum == 0:
            raise ValueError("nesterov: expected a momentum above 0 with it, got 0")
        super().__init__(
            lr,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=as_float(weight_decay, "weight_decay", 0.0),
        )

    def state_names(self) -> tuple[str, ...]:
        return ("momentum",) if self.hyper["momentum"] else ()


class Adam(Optimizer):
    """Adam: steps by the running mean of the gradient over the root of that of its square.

    m = beta1 m + (1 - beta1) g;  s = beta2 s + (1 - beta2) g^2; after t steps
    w -= lr m / (1 - beta1^t) / (sqrt(s / (1 - beta2^t)) + eps).

    lr : float at least 0, or callable of the step. betas : two numbers in [0, 1).
    eps, weight_decay : at least 0; weight decay is added to the gradient. Source: Kingma & Ba 2015.

    Raises
    ------
    ValueError
        If a number is out of its range or not finite.
    TypeError
        If one is not a number (lr: or a callable), or betas not a pair.
    """

    kind = "adam"
    _decoupled = False

    def __init__(
        self,
        lr: LearningRate = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise TypeError(f"betas: expected two numbers, got {betas!r}")
        super().__init__(
            lr,
            beta1=as_float(betas[0], "betas[0]", 0.0, below=1.0),
            beta2=as_float(betas[1], "betas[1]", 0.0, below=1.0),
            eps=as_float(eps, "eps", 0.0),
            weight_decay=as_float(weight_decay, "weight_decay", 0.0),
            decoupled=self._decoupled,
        )

    def state_names(self) -> tuple[str, ...]:
        return ("mean", "square")


class AdamW(Adam):
    """Adam with the weight decay apart from the gradient: first w -= lr weight_decay w.

    Arguments and errors (ValueError, TypeError) as for `Adam`. Source: Loshchilov & Hutter 2019.
    """

    _decoupled = True

    def __init__(
        self,
        lr: LearningRate = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay)


class RMSprop(Optimizer):
    """RMSprop: s = alpha s + (1 - alpha) g^2;  w -= lr g / (sqrt(s) + eps).

    With momentum v = momentum v + g / (sqrt(s) + eps), w -= lr v.

    lr : float at least 0, or callable of the step. alpha : in [0, 1). eps, momentum, weight_decay
    : at least 0. Source: Tieleman & Hinton 2012, lecture 6.5 of Neural Networks for Machine
    Learning.

    Raises
    ------
    ValueError
        If a number is out of its range or not finite.
    TypeError
        If one is not a number (lr: or a callable).
    """

    kind = "rmsprop"

    def __init__(
        self,
        lr: LearningRate = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            lr,
            alpha=as_float(alpha, "alpha", 0.0, below=1.0),
            eps=as_float(eps, "eps", 0.0),
            momentum=as_float(momentum, "momentum", 0.0),
            weight_decay=as_float(weight_decay, "weight_decay", 0.0),
        )

    def state_names(self) -> tuple[str, ...]:
        return ("square", "momentum") if self.hyper["momentum"] else ("square",)


NAMES: dict[str, Callable[[], Optimizer]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
}


def as_optimizer(optimizer: Any) -> Optimizer:
    """An optimizer from one or its name; ValueError for an unknown name, else TypeError."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    if isinstance(optimizer, str):
        if optimizer not in NAMES:
            raise ValueError(f"optimizer: expected one of {', '.join(NAMES)}, got {optimizer!r}")
        return NAMES[optimizer]()
    raise TypeError(
        f"optimizer: expected an optimizer such as Adam(), or its name, got {optimizer!r}"
    )
