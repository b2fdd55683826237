"""`compare_inits`: one network from several initializations, on the same batches."""

from __future__ import annotations

import functools
import json
import math
import sys

import numpy as np
import pytest
from networks import CLASSES, N_IN, learnable

import fastnn
from fastnn import init

SIZES = (N_IN, 16, CLASSES)


@pytest.fixture(scope="module")
def data():
    return learnable()


def compare(data, **options):
    X, y = data
    defaults = {"inits": ["zeros", "he_normal"], "epochs": 4, "rng": 3}
    return fastnn.compare_inits(SIZES, X, y, **(defaults | options))


def by_hand(data, how, activation, optimizer):
    """The same network from the same start, trained without `compare_inits`."""
    seed = int(np.random.default_rng(3).integers(0, 2**64 - 1, dtype=np.uint64, endpoint=True))
    model = fastnn.Sequential(
        fastnn.Linear(N_IN, 16, weight_init=how), activation,
        fastnn.Linear(16, CLASSES, weight_init=how), rng=seed,
    )  # fmt: skip
    history = model.fit(*data, loss="cross_entropy", optimizer=optimizer, epochs=4, rng=seed)
    return model, history


def test_it_is_fit_on_the_same_batches(data):
    found = compare(data, activation=fastnn.LeakyReLU(0.2), optimizer=fastnn.SGD(0.1, 0.9))
    assert list(found.models) == list(found.reports) == list(found.histories)
    for how in ("zeros", "he_normal"):
        model, history = by_hand(data, how, fastnn.LeakyReLU(0.2), fastnn.SGD(0.1, 0.9))
        assert model._parameters.tobytes() == found.models[how]._parameters.tobytes()
        assert history.loss == found.histories[how].loss
        assert found.curves[how] == [found.reports[how].batch.loss, *history.loss]
    assert found.curves["zeros"][0] == pytest.approx(math.log(CLASSES))
    assert found.curves["he_normal"][-1] < found.curves["zeros"][-1]
    assert [one.kind for one in found.reports["zeros"].problems] == ["symmetry"]
    assert not found.models["zeros"][0].weight.any()


def test_one_distribution_in_two_sizes_differs_in_size_alone(data):
    """The same random numbers: what differs is the variance, not the luck."""
    found = compare(
        data, inits={f"std {std:g}": functools.partial(init.normal, std=std) for std in (0.5, 0.1)},
        optimizer=fastnn.SGD(0.0),
    )  # fmt: skip
    large, small = (model[0].weight for model in found.models.values())
    np.testing.assert_allclose(large, 5 * small, rtol=1e-6)
    assert list(found.curves) == ["std 0.5", "std 0.1"]


@pytest.mark.parametrize("name", ["leaky_relu", "relu", "tanh", "sigmoid", "gelu", "silu"])
def test_activations_by_name(data, name):
    found = compare(data, activation=name, inits=["auto"], epochs=1)
    (model,) = found.models.values()
    assert model[1].name == name
    assert math.isfinite(found.curves["auto"][-1])


def test_defaults_are_the_lectures(data):
    X, y = data
    found = fastnn.compare_inits(SIZES, X, y, epochs=1, rng=0)
    assert list(found.models) == ["zeros", "uniform", "normal", "xavier_normal", "he_normal"]


def test_other_losses_dtypes_and_shapes(data):
    X, _ = data
    found = fastnn.compare_inits(
        [N_IN, 8, 8, 2], X, X[:, :2], inits=["auto"], loss="huber", optimizer="adam", bias=False,
        dtype="float64", epochs=2, batch_size=50, rng=0,
    )  # fmt: skip
    model = found.models["auto"]
    assert model.dtype == np.float64
    assert not any(name.endswith("bias") for name in model.parameters())
    assert [layer.weight.shape for layer in model.layers[::2]] == [(8, N_IN), (8, 8), (2, 8)]
    assert repr(found.reports["auto"].loss).startswith("Huber")
    assert "accuracy" not in found.histories["auto"]
    assert "Adam" in str(found)
    images, labels = fastnn.data.load_digits()
    half = fastnn.compare_inits(
        [64, 10], images, labels, inits=["zeros"], uint8_scale=0.5, epochs=1
    )
    assert half.models["zeros"].uint8_scale == 0.5


def test_a_loss_without_bound_is_an_answer(data, tmp_path):
    huge = functools.partial(init.normal, std=100.0)
    found = compare(data, inits={"huge": huge, "he_normal": "he_normal"}, optimizer=fastnn.SGD(1.0))
    assert not math.isfinite(found.curves["huge"][-1]) or found.curves["huge"][-1] > 100
    assert "problem: exploding" in str(found)
    found.plot(tmp_path / "a.png")


def test_it_is_shown_as_text_html_dict_and_figure(data, tmp_path):
    found = compare(data, inits=["zeros", functools.partial(init.normal, std=0.3)])
    text = str(found)
    assert repr(found) == text
    for word in ("20-16-4, LeakyReLU(0.01): 4 epochs of SGD(lr=0.01", "normal, std 0.3",
                 "loss before", "problem: symmetry", "healthy"):  # fmt: skip
        assert word in text
    html = found._repr_html_()
    assert html.count("<tr>") == 3
    assert "problem: symmetry" in html
    told = json.loads(json.dumps(found.to_dict()))
    assert told == found.to_dict()
    assert told["zeros"]["curve"] == found.curves["zeros"]
    assert told["zeros"]["report"]["healthy"] is False
    for name in ("a.png", "b.svg"):
        found.plot(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 15_000
    deep = fastnn.compare_inits([N_IN] + [8] * 9 + [CLASSES], *data, inits=["zeros"], epochs=1)
    assert str(deep).startswith("20-8-...-4 of 10 layers, LeakyReLU(0.01): 1 epoch of")
    deep.plot(tmp_path / "deep.png")


def test_without_matplotlib_the_error_names_the_mend(data, tmp_path, monkeypatch):
    found = compare(data, epochs=1)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "fastnn-cpu\[plot\]"'):
        found.plot(tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


def test_progress(data, capsys, monkeypatch, with_tqdm):
    """As `fit` shows it: always, never, or on a terminal."""
    compare(data, progress=False)
    compare(data)
    assert capsys.readouterr() == ("", "")
    found = compare(data, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    loss = found.histories["he_normal"].loss[-1]
    assert f"he_normal: epoch 4/4: loss {loss:.4g}" in shown.err
    if with_tqdm:
        assert "8/8" in shown.err
    else:
        lines = shown.err.splitlines()
        assert len(lines) == 8
        assert lines[0].startswith("1/8 epochs: zeros: epoch 1/4: loss ")


def test_a_generator_is_advanced_once_and_rewound_by_errors(data):
    rng = np.random.default_rng(1)
    first = compare(data, inits=["he_normal"], epochs=1, rng=rng)
    second = compare(data, inits=["he_normal"], epochs=1, rng=rng)
    assert first.curves != second.curves
    before = rng.bit_generator.state
    with pytest.raises(ValueError, match="X: expected"):
        compare((data[0][:, :3], data[1]), rng=rng)
    assert rng.bit_generator.state == before
    assert compare(data, rng=7).curves == compare(data, rng=7).curves


def used():
    model = fastnn.Sequential(fastnn.Linear(2, 2), rng=0)
    optimizer = fastnn.SGD()
    model.fit(np.eye(2), [0, 1], loss="cross_entropy", optimizer=optimizer, epochs=1)
    return optimizer


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"inits": []}, ValueError, "inits: expected at least one initializer, got none"),
        ({"inits": "zeros"}, TypeError, "inits: expected a list or dict of initializers, got 'zer"),
        ({"inits": 3}, TypeError, "inits: expected a list or dict"),
        ({"inits": ["no"]}, ValueError, "inits: expected one of .*, got 'no'"),
        ({"inits": [1.5]}, TypeError, "inits: expected names or callables, got 1.5"),
        ({"inits": {"a": 2}}, TypeError, "inits: expected a name or a callable for 'a', got 2"),
        ({"inits": {1: "zeros"}}, TypeError, "inits: expected names or callables, got 1"),
        ({"inits": ["zeros", "ones", "zeros"]}, ValueError, "each name once, got 'zeros' twice"),
        ({"activation": "softmax"}, ValueError, "activation: expected one of leaky_relu, .*'soft"),
        ({"activation": fastnn.ReLU}, TypeError, "activation: expected a name or a layer such as"),
        ({"epochs": 0}, ValueError, "epochs: expected an integer of at least 1, got 0"),
        ({"batch_size": 1.5}, TypeError, "batch_size: expected an integer"),
        ({"bias": 1}, TypeError, "bias: expected True or False"),
        ({"progress": 1}, TypeError, "progress: expected True or False"),
        ({"dtype": "int8"}, TypeError, "dtype: expected float32 or float64"),
        ({"loss": "no"}, ValueError, "loss: expected one of"),
        ({"optimizer": "no"}, ValueError, "optimizer: expected one of"),
        ({"optimizer": used()}, ValueError, "optimizer: expected one that is new, got one of 1 st"),
        ({"rng": -1}, ValueError, "rng: expected"),
    ],
)
def test_bad_input_is_one_clear_error(data, options, error, message):
    with pytest.raises(error, match=message):
        compare(data, **options)


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        (5, TypeError, r"layer_sizes: expected \(64, 32, 10\) or so, got 5"),
        ((N_IN,), ValueError, "layer_sizes: expected inputs and outputs at least"),
        ((N_IN, 0, 4), ValueError, "layer_sizes: expected an integer of at least 1, got 0"),
        ((N_IN, 2.5, 4), TypeError, "layer_sizes: expected an integer"),
        ((N_IN + 1, 4), ValueError, r"X: expected shape \(m, 21\), got \(150, 20\)"),
        ((N_IN, 3), ValueError, r"y: expected labels in \[0, 3\)"),
    ],
)
def test_bad_sizes(data, sizes, error, message):
    with pytest.raises(error, match=message):
        fastnn.compare_inits(sizes, *data, epochs=1)
