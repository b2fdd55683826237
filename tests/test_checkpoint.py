"""Checkpoints of fit: going on to the same bits, and what is refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from networks import bits, fit, learnable, network
from oracle import same_bits

import fastnn
from fastnn import checkpoint, files, schedules


@pytest.fixture(autouse=True)
def _one_thread(set_threads):
    set_threads(1)


@pytest.fixture(scope="module")
def data():
    return learnable()


class Cut(BaseException):
    """The end of the process, as far as fit can tell."""


def cut_after(epochs):
    def callback(model, history):
        if history.epochs == epochs:
            raise Cut

    return callback


@pytest.mark.parametrize("cut", [1, 2, 5])
@pytest.mark.parametrize("rng", [1, None])
def test_resumed_training_ends_with_the_same_bits(data, tmp_path, cut, rng):
    X, y = data
    path = tmp_path / "run.safetensors"

    def run(checkpoint, *callbacks, epochs=6):
        model = network(fastnn.Dropout(0.3), rng=len(callbacks))  # other first values when resumed
        optimizer = fastnn.RMSprop(schedules.cosine(0.01, 30), momentum=0.5)
        history = fit(
            model, X, y, optimizer=optimizer, epochs=epochs, batch_size=32, rng=rng,
            validation_data=(X[:50], y[:50]), early_stopping=50, callbacks=callbacks,
            checkpoint=checkpoint,
        )  # fmt: skip
        return model, optimizer, history

    with pytest.raises(Cut):
        # The cut comes before the epoch is written, so the last one is done again.
        run(path, cut_after(cut + 1))
    resumed = run(path)
    assert run(path)[2] == resumed[2], "a finished run is not run again"
    if rng is None:
        return
    whole = network(fastnn.Dropout(0.3), rng=1)
    optimizer = fastnn.RMSprop(schedules.cosine(0.01, 30), momentum=0.5)
    history = fit(
        whole, X, y, optimizer=optimizer, epochs=6, batch_size=32, rng=rng,
        validation_data=(X[:50], y[:50]), early_stopping=50,
    )  # fmt: skip
    assert bits(whole) == bits(resumed[0])
    assert optimizer.t == resumed[1].t
    for name in optimizer.state_names():
        assert same_bits(optimizer.state_dict()[name], resumed[1].state_dict()[name])
    for name in history.keys() - {"seconds"}:
        assert history[name] == resumed[2][name]
    assert history.best_epoch == resumed[2].best_epoch


OPTIMIZERS = {
    "SGD": lambda: fastnn.SGD(schedules.linear(0.1, 40)),
    "momentum": lambda: fastnn.SGD(0.05, momentum=0.9, weight_decay=1e-3),
    "Nesterov": lambda: fastnn.SGD(0.05, momentum=0.9, nesterov=True),
    "Adam": lambda: fastnn.Adam(0.01, weight_decay=1e-3),
    "AdamW": lambda: fastnn.AdamW(schedules.cosine(0.01, 40, warmup=5)),
    "RMSprop": lambda: fastnn.RMSprop(0.01),
    "RMSprop, momentum": lambda: fastnn.RMSprop(schedules.step_decay(0.01, 0.5, 7), momentum=0.9),
}


def deep(dtype="float32", rng=1):
    return network(fastnn.Dropout(0.3), fastnn.GELU(), dtype=dtype, rng=rng, width=130)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_resumes_on_any_number_of_threads(
    data, tmp_path, name, isa, dtype, set_threads
):
    X, y = data
    make, whole, reference = OPTIMIZERS[name], deep(dtype), OPTIMIZERS[name]()
    options = {"batch_size": 32, "sample_weight": np.linspace(1, 2, len(X)), "epochs": 4}
    want = fit(whole, X, y, optimizer=reference, **options)
    for before, after in ((1, 5), (5, 2), (2, 1)):
        path = tmp_path / f"{before}"
        set_threads(before)
        with pytest.raises(Cut):
            fit(
                deep(dtype), X, y, optimizer=make(), checkpoint=path, callbacks=[cut_after(3)],
                **options,
            )  # fmt: skip
        set_threads(after)
        resumed, optimizer = deep(dtype, rng=2), make()
        got = fit(resumed, X, y, optimizer=optimizer, checkpoint=path, **options)
        assert bits(resumed) == bits(whole)
        assert got.loss == want.loss
        assert got.lr == want.lr
        for key, value in reference.state_dict().items():
            assert np.array_equal(optimizer.state_dict()[key], value)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_loop_of_ones_own_resumes_from_states(data, name, isa):
    X, y = data
    loss = fastnn.CrossEntropy()

    def steps(model, optimizer, begin, end):
        for i in range(begin, end):
            rows = slice(i % 5 * 20, i % 5 * 20 + 20)
            model.backward(loss(model.forward(X[rows]), y[rows])[1])
            optimizer.step(model)

    whole, optimizer = deep(), OPTIMIZERS[name]()
    steps(whole, optimizer, 0, 12)
    model, optimizer = deep(), OPTIMIZERS[name]()
    steps(model, optimizer, 0, 5)
    states = model.state_dict(), optimizer.state_dict(), json.loads(json.dumps(model.dropout_state))
    resumed, optimizer = deep(rng=3), OPTIMIZERS[name]()
    resumed.load_state_dict(states[0])
    optimizer.load_state_dict(states[1])
    resumed.dropout_state = states[2]
    steps(resumed, optimizer, 5, 12)
    assert bits(resumed) == bits(whole)


@pytest.mark.parametrize("state", [None, 3, (1,), (1, 2, 3), (-1, 0), (2**64, 0), (0, 2.0)])
def test_a_dropout_state_that_is_none_is_refused(state):
    model = deep()
    before = model.dropout_state
    with pytest.raises((TypeError, ValueError), match=r"^dropout_state(\[[01]\])?: expected"):
        model.dropout_state = state
    assert model.dropout_state == before


def test_a_checkpoint_may_be_given_more_epochs(data, tmp_path):
    X, y = data
    path = tmp_path / "run.safetensors"
    model, whole = network(), network()
    fit(model, X, y, epochs=2, checkpoint=path)
    fit(model, X, y, epochs=np.int32(5), batch_size=np.int64(32), checkpoint=str(path))
    fit(whole, X, y, epochs=5)
    assert bits(model) == bits(whole)
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"], (
        "no temporary files are left"
    )


def test_a_checkpoint_of_another_run_is_refused(data, tmp_path):
    X, y = data
    path = tmp_path / "run.safetensors"
    fit(network(), X, y, epochs=1, checkpoint=path)
    for options, message in [
        ({"batch_size": 16}, "batch_size: expected 16 as in this call, got 32"),
        ({"optimizer": "sgd"}, "optimizer: expected"),
        ({}, "rng: expected the seed that the run began with"),
        ({"shuffle": False}, "shuffle"),
        ({"early_stopping": 3}, "monitor"),
    ]:
        model, generator = network(), np.random.default_rng(2)
        before, state = bits(model), generator.bit_generator.state
        options = {"optimizer": fastnn.Adam(), "rng": generator} | options
        if message.startswith(("batch_size", "shuffle", "monitor")):
            options["rng"] = 1
        with pytest.raises(ValueError, match=f"checkpoint: .*run.safetensors: .*{message}"):
            fit(model, X, y, checkpoint=path, **options)
        assert bits(model) == before
        assert generator.bit_generator.state == state
        if isinstance(options["optimizer"], fastnn.Adam):
            fit(network(), X, y, optimizer=options["optimizer"])  # it is still free
    for model, y_of in ((network(width=17), y), (network(fastnn.Tanh()), y)):
        with pytest.raises(ValueError, match="layers: expected"):
            fit(model, X, y_of, checkpoint=path)
    with pytest.raises(ValueError, match="rows: expected 100"):
        fit(network(), X[:100], y[:100], checkpoint=path)
    other = tmp_path / "model.safetensors"
    network().save(other)
    with pytest.raises(ValueError, match="expected a checkpoint of fit"):
        fit(network(), X, y, checkpoint=other)


def broken(tensors, text, change):
    """A checkpoint's tensors and text with one of its parts changed."""
    content = json.loads(text)
    change(tensors, content)
    return tensors, json.dumps(content)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, content: content.update(version=1),
        lambda tensors, content: content.pop("run"),
        lambda tensors, content: content.update(run=[]),
        lambda tensors, content: content.update(state=None),
        lambda tensors, content: content["state"].pop("t"),
        lambda tensors, content: content["state"].update(t=-1),
        lambda tensors, content: content["state"].update(t=2.5),
        lambda tensors, content: content["state"].update(t=2**63),
        lambda tensors, content: content["state"].update(seed=-1),
        lambda tensors, content: content["state"].update(seed=2**64),
        lambda tensors, content: content["state"].update(seed=math.inf),
        lambda tensors, content: tensors.pop("history.loss"),
        lambda tensors, content: tensors.update({"history.loss": np.float64(5)[...]}),
        lambda tensors, content: tensors.update({"history.loss": np.zeros(1, bool)}),
        lambda tensors, content: tensors.update({"history.lr": np.zeros(0)}),
        lambda tensors, content: [tensors.pop(k) for k in list(tensors) if k[:4] == "hist"],
        lambda tensors, content: content["state"].update(best_epoch="x"),
        lambda tensors, content: content["state"].pop("best"),
        lambda tensors, content: tensors.pop("optimizer.mean"),
        lambda tensors, content: tensors.update({"optimizer.mean": np.zeros(3, np.float32)}),
        lambda tensors, content: tensors.pop("0.weight"),
        lambda tensors, content: tensors.update(more=np.zeros(3)),
        lambda tensors, content: tensors.update(best=np.zeros(3)),
        lambda tensors, content: tensors.update({"2.bias": np.zeros(5, np.float32)}),
    ],
)
def test_a_broken_checkpoint_is_refused(data, tmp_path, change):
    X, y = data
    path = tmp_path / "run.safetensors"
    options = {"checkpoint": path, "early_stopping": 5, "rng": None}
    fit(network(), X, y, epochs=1, **options)
    tensors, metadata = files.load_tensors(path)
    ((name, text),) = metadata.items()
    tensors, text = broken(tensors, text, change)
    files.save_tensors(path, tensors, {name: text})
    model, optimizer = network(), fastnn.Adam()
    before = bits(model)
    with pytest.raises(ValueError, match="checkpoint: .*run.safetensors: "):
        fit(model, X, y, epochs=2, optimizer=optimizer, **options)
    assert bits(model) == before
    fit(network(), X, y, optimizer=optimizer)  # it is still free


def test_a_truncated_checkpoint_is_refused(data, tmp_path):
    X, y = data
    path = tmp_path / "run.safetensors"
    fit(network(), X, y, epochs=1, checkpoint=path)
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[:-1], b"{" * 100_000):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="checkpoint: .*run.safetensors: "):
            fit(network(), X, y, epochs=2, checkpoint=path)


def test_a_checkpoint_that_cannot_be_read_is_named(data, tmp_path, monkeypatch):
    X, y = data
    path = tmp_path / "run.safetensors"
    path.write_bytes(b"")

    def load(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(checkpoint, "load_tensors", load)
    with pytest.raises(PermissionError, match="checkpoint: Permission denied: .*run.safetensors"):
        fit(network(), X, y, checkpoint=path)
