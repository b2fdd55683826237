"""Training against PyTorch: the same weights and batches give the same losses and parameters.

Tolerances are derived: the distance between PyTorch's own runs in float32 and in float64 tells how
much this training amplifies roundings. Another correct implementation is within a few such
distances, scaled to the dtype, and a few roundings of the result itself.
"""

from __future__ import annotations

import copy
import itertools
import warnings

import numpy as np
import pytest

import fastnn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what PyTorch warns of when it is imported
    torch = pytest.importorskip("torch")

WIDTHS, M, BATCH, EPOCHS = (20, 16, 12, 4), 90, 16, 4  # the last batch has 10 rows
FACTOR = 8  # "a few"

OPTIMIZERS = {
    "sgd": (fastnn.SGD, torch.optim.SGD, {"lr": 0.3}),
    "sgd momentum": (fastnn.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "sgd nesterov": (
        fastnn.SGD,
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.02},
    ),
    "adam": (fastnn.Adam, torch.optim.Adam, {"lr": 0.01}),
    "adam decay": (
        fastnn.Adam,
        torch.optim.Adam,
        {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.05},
    ),
    "adamw": (fastnn.AdamW, torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    "rmsprop": (fastnn.RMSprop, torch.optim.RMSprop, {"lr": 0.003}),
    "rmsprop momentum": (
        fastnn.RMSprop,
        torch.optim.RMSprop,
        {"lr": 0.002, "alpha": 0.9, "momentum": 0.8, "weight_decay": 0.02},
    ),
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=["cross_entropy", "mse"])
def task(request):
    """(loss, inputs, targets), float64 or integers."""
    rng = np.random.default_rng(11)
    x = rng.standard_normal((M, WIDTHS[0])).astype(np.float32).astype(np.float64)
    y = x @ rng.standard_normal((WIDTHS[0], WIDTHS[-1]))
    return request.param, x, (y.argmax(axis=1) if request.param == "cross_entropy" else np.tanh(y))


@pytest.fixture(scope="module")
def start():
    """A PyTorch model in float32, whose numbers float64 has too."""
    torch.manual_seed(12)
    layers = []
    for n_in, n_out in itertools.pairwise(WIDTHS):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.LeakyReLU(0.05)]
    return torch.nn.Sequential(*layers[:-1])


def train_torch(start, task, make, arguments, dtype):
    """Losses of the epochs and final parameters, as float64."""
    loss, x, y = task
    model = copy.deepcopy(start).to(getattr(torch, dtype))
    optimizer = make(model.parameters(), **arguments)
    x = torch.tensor(x.astype(dtype))
    y = torch.tensor(y if loss == "cross_entropy" else y.astype(dtype))
    function = getattr(torch.nn.functional, loss if loss == "cross_entropy" else "mse_loss")
    losses = []
    for _ in range(EPOCHS):
        total = 0.0
        for rows in torch.arange(M).split(BATCH):
            optimizer.zero_grad()
            value = function(model(x[rows]), y[rows])
            value.backward()
            optimizer.step()
            total += float(value.detach()) * len(rows)
        losses.append(total / M)
    return np.array(losses), flat({k: v.numpy() for k, v in model.state_dict().items()})


def train_fastnn(start, task, make, arguments, dtype):
    loss, x, y = task
    layers = []
    for n_in, n_out in itertools.pairwise(WIDTHS):
        layers += [fastnn.Linear(n_in, n_out, dtype=dtype), fastnn.LeakyReLU(0.05)]
    model = fastnn.Sequential(*layers[:-1])
    model.load_state_dict({name: value.numpy() for name, value in start.state_dict().items()})
    history = model.fit(
        x.astype(dtype), y, loss=loss, optimizer=make(**arguments), epochs=EPOCHS,
        batch_size=BATCH, shuffle=False, progress=False,
    )  # fmt: skip
    return np.array(history.loss), flat(model.state_dict())


def flat(state):
    return np.concatenate([value.astype(np.float64).ravel() for value in state.values()])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_same_training(name, task, start, dtype):
    ours, theirs, arguments = OPTIMIZERS[name]
    exact = train_torch(start, task, theirs, arguments, "float64")
    rough = train_torch(start, task, theirs, arguments, "float32")
    got = train_fastnn(start, task, ours, arguments, dtype)
    first = flat({k: v.numpy() for k, v in start.state_dict().items()})
    assert exact[0][-1] < 0.9 * exact[0][0], "nothing was learnt"
    eps = np.finfo(dtype).eps
    for a, b, c, way in zip(got, exact, rough, (exact[0], exact[1] - first), strict=True):
        amplified = np.abs(c - b).max() / np.finfo("float32").eps
        bound = FACTOR * eps * (amplified + np.abs(b).max())
        assert bound < 1e-3 * np.abs(way).max(), "a vacuous comparison"
        assert np.abs(a - b).max() <= bound
