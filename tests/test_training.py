"""fit and evaluate: what they compute, early stopping, callbacks."""

from __future__ import annotations

import math
import os
import pickle
import signal
import threading
import time

import numpy as np
import pytest
from networks import CLASSES, N_IN, M, bits, fit, learnable, network

import fastnn
from fastnn import schedules, training
from fastnn._core.trainer import Trainer


@pytest.fixture(autouse=True)
def _one_thread(set_threads):
    set_threads(1)


@pytest.fixture(scope="module")
def data():
    return learnable()


def test_fit_learns_and_records(data):
    X, y = data
    model = network()
    before = model.evaluate(X, y, loss="cross_entropy")
    history = fit(
        model, X[:100], y[:100], epochs=30, batch_size=8, validation_data=(X[100:], y[100:]),
        optimizer=fastnn.Adam(0.01),
    )  # fmt: skip
    always = {"loss", "lr", "seconds", "dead_units.0"}
    assert set(history) == always | {"accuracy", "val_loss", "val_accuracy"}
    assert all(len(values) == 30 for values in history.values())
    assert history.loss[-1] < 0.1 * before["loss"]
    assert history.accuracy[-1] == 1.0
    assert history.val_accuracy[-1] > 0.6
    assert history.lr == [0.01] * 30
    assert model.history is history
    assert history.epochs == 30
    measured = model.evaluate(X[100:], y[100:], loss=fastnn.CrossEntropy())
    assert measured == {"loss": history.val_loss[-1], "accuracy": history.val_accuracy[-1]}
    assert measured["accuracy"] == (model.predict(X[100:]).argmax(axis=1) == y[100:]).mean()


@pytest.mark.parametrize("batch_size", [1, 32, 64, M, 1000])
@pytest.mark.parametrize("loss", [fastnn.CrossEntropy(), fastnn.MSE(), fastnn.Huber(0.5)], ids=repr)
def test_fit_is_a_loop_of_ones_own(data, batch_size, loss):
    X, y = data
    y = y if isinstance(loss, fastnn.CrossEntropy) else X[:, :CLASSES]
    model, other = network(), network()
    optimizer = fastnn.SGD(0.01, momentum=0.9)
    total = 0.0
    for start in range(0, M, batch_size):
        rows = slice(start, start + batch_size)
        value, grad = loss(model.forward(X[rows]), y[rows])
        model.backward(grad)
        optimizer.step(model)
        total += value * len(X[rows])
    history = other.fit(
        X, y, loss=loss, optimizer=fastnn.SGD(0.01, momentum=0.9), epochs=1, batch_size=batch_size,
        shuffle=False,
    )  # fmt: skip
    assert bits(model) == bits(other)
    assert math.isclose(history.loss[0], total / M, rel_tol=1e-12)


def test_the_training_loss_is_a_mean_over_rows_and_the_accuracy_a_share(data):
    X, y = data
    model = network()
    before = model.evaluate(X, y, loss="cross_entropy")
    history = fit(model, X, y, optimizer=fastnn.SGD(0.0), epochs=2, batch_size=7)
    for epoch in range(2):
        assert math.isclose(history.loss[epoch], before["loss"], rel_tol=1e-6)
        assert history.accuracy[epoch] == before["accuracy"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_saved_bytes_do_not_depend_on_the_number_of_threads(dtype, set_threads, isa, tmp_path):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((200, N_IN)).astype(dtype), rng.integers(0, CLASSES, 200)
    weight = rng.random(200)
    results = set()
    for n in (1, 2, 5):
        set_threads(n)
        model = network(fastnn.Dropout(0.2), dtype=dtype, width=130)
        fit(model, X, y, epochs=2, batch_size=64, sample_weight=weight)
        model.save(tmp_path / "model.safetensors")
        results.add((tmp_path / "model.safetensors").read_bytes())
    assert len(results) == 1


def test_rng_decides_order_and_dropout(data):
    X, y = data

    def trained(rng, **options):
        model = network(fastnn.Dropout(0.3))
        fit(model, X, y, rng=rng, **options)
        return bits(model)

    assert trained(1) == trained(1)
    assert trained(1) != trained(2)
    assert trained(None) != trained(None)
    assert trained(np.random.default_rng(1)) == trained(1)
    assert trained(1) != trained(1, shuffle=False)


def test_each_epoch_sees_every_row_once_in_an_order_of_its_own(data, monkeypatch):
    X, y = data
    rows = []

    class Recorder:
        def __init__(self, *arguments):
            self.trainer = Trainer(*arguments)

        def step(self, index, start, stop, step):
            assert step == len(rows)
            rows.append(index[start:stop])
            self.trainer.step(index, start, stop, step)

        def __getattr__(self, name):
            return getattr(self.trainer, name)

    monkeypatch.setattr(training, "Trainer", Recorder)
    fit(network(), X, y, epochs=3, batch_size=40)
    assert [len(batch) for batch in rows] == [40, 40, 40, 30] * 3
    orders = np.concatenate(rows).reshape(3, M)
    np.testing.assert_array_equal(np.sort(orders), np.tile(np.arange(M), (3, 1)))
    assert len({order.tobytes() for order in orders}) == 3


@pytest.mark.parametrize(
    "kind", [np.float64, np.int64, np.bool_, np.float16, list, np.asfortranarray]
)
def test_inputs_of_other_kinds_are_those_converted(data, kind):
    X, y = data
    X = np.round(X)
    given = X.tolist() if kind is list else kind(X) if kind is np.asfortranarray else X.astype(kind)
    model, other = network(), network()
    fit(model, given, y)
    fit(other, np.asarray(given).astype(np.float32), y.astype(np.uint8))
    assert bits(model) == bits(other)


def test_uint8_images_are_scaled_inside_the_step(rng):
    images, y = rng.integers(0, 256, (60, N_IN), dtype=np.uint8), rng.integers(0, CLASSES, 60)
    model, other = network(), network()
    fit(model, images, y)
    fit(other, images.astype(np.float32) * np.float32(1 / 255), y)
    assert bits(model) == bits(other)


def test_read_only_and_memory_mapped_data_are_taken(data, tmp_path):
    X, y = data
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    model, other = network(), network()
    fit(model, mapped, y)
    fit(other, X, y)
    assert bits(model) == bits(other)


def test_sample_weights_count_rows(data):
    X, y = data
    model, other = network(dtype="float64"), network(dtype="float64")
    weight = np.ones(M)
    weight[:50], weight[50:60] = 2, 0
    options = {"optimizer": fastnn.SGD(0.1), "epochs": 1, "batch_size": 1000, "shuffle": False}
    got = fit(model, X, y, sample_weight=weight, **options)
    repeated = np.concatenate([X[:50], X[:50], X[60:]]), np.concatenate([y[:50], y[:50], y[60:]])
    options["optimizer"] = fastnn.SGD(0.1)
    want = fit(other, *repeated, **options)
    np.testing.assert_allclose(model._parameters, other._parameters, rtol=1e-12, atol=1e-14)
    assert math.isclose(got.loss[0], want.loss[0], rel_tol=1e-12)
    measured = model.evaluate(X, y, loss="cross_entropy", sample_weight=weight)
    wanted = model.evaluate(*repeated, loss="cross_entropy")
    assert math.isclose(measured["loss"], wanted["loss"], rel_tol=1e-12)
    scaled = network(dtype="float64")
    fit(scaled, X, y, sample_weight=1024 * weight, **(options | {"optimizer": fastnn.SGD(0.1)}))
    assert bits(scaled) == bits(model), "only the proportions count"


@pytest.mark.parametrize("weight", [1e308, 5e-324])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_of_any_size_are_scaled(data, weight, dtype):
    X, y = data
    model, other = network(dtype=dtype), network(dtype=dtype)
    got = fit(model, X, y, sample_weight=np.full(M, weight))
    assert got.loss == fit(other, X, y).loss
    assert bits(model) == bits(other)


def test_validation_data_may_have_weights_and_changes_nothing(data):
    X, y = data
    model, other = network(fastnn.Dropout(0.2)), network(fastnn.Dropout(0.2))
    weight = np.linspace(0, 1, 50)
    history = fit(model, X, y, validation_data=(X[:50], y[:50], weight))
    fit(other, X, y)
    assert bits(model) == bits(other)
    measured = model.evaluate(X[:50], y[:50], loss="cross_entropy", sample_weight=weight)
    assert history.val_loss[-1] == measured["loss"]


def test_one_output_takes_flat_targets(data):
    X, y = data
    for loss, targets in [("mse", X[:, 0]), ("binary_cross_entropy", y > 1), ("huber", y)]:
        model = network(n_out=1)
        history = model.fit(X, targets, loss=loss, optimizer="adamw", epochs=20, batch_size=16)
        assert history.loss[-1] < 0.7 * history.loss[0]
        assert ("accuracy" in history) == (loss == "binary_cross_entropy")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_accuracy_of_binary_answers_is_a_share_of_outputs(data, dtype, n_threads):
    X, y = data
    targets = np.stack([y > 1, y % 2, y == 0], axis=1).astype("float32")
    targets[::7] = 0.5, 0.4, 0.6
    model = network(n_out=3, dtype=dtype)
    options = {"loss": "binary_cross_entropy", "optimizer": fastnn.SGD(0.0), "batch_size": 64}
    history = fit(model, X, targets, epochs=1, validation_data=(X, targets), **options)
    right = ((model.predict(X) > 0) == (targets > 0.5)).mean()
    assert 0.2 < right < 0.8
    assert history.accuracy == history.val_accuracy == [right]
    rule = fastnn.EarlyStopping(2, monitor="val_accuracy")
    options["optimizer"] = fastnn.Adam(0.01)
    history = fit(
        model, X, targets, epochs=40, validation_data=(X, targets), early_stopping=rule, **options
    )
    assert history.val_accuracy[history.best_epoch] == max(history.val_accuracy) > right


def test_a_second_fit_goes_on(data):
    X, y = data
    model, optimizer = network(), fastnn.Adam(schedules.exponential(0.01, 0.5, every=15))
    first = fit(model, X, y, optimizer=optimizer, batch_size=10, epochs=1)
    second = fit(model, X, y, optimizer=optimizer, batch_size=10, epochs=1)
    assert optimizer.t == 30
    assert first.lr == [0.01 * 0.5 ** (14 / 15)]
    assert second.lr == [0.01 * 0.5 ** (29 / 15)]
    assert second.loss[0] < first.loss[0]


def test_early_stopping_restores_the_best_epoch(rng):
    X, y = rng.standard_normal((80, N_IN)), rng.integers(0, CLASSES, 80)  # nothing to learn
    validation = rng.standard_normal((80, N_IN)), rng.integers(0, CLASSES, 80)
    model = network(width=64)
    history = fit(
        model, X, y, epochs=500, optimizer=fastnn.Adam(0.01), validation_data=validation,
        early_stopping=4,
    )  # fmt: skip
    best = int(np.argmin(history.val_loss))
    assert history.best_epoch == best
    assert history.epochs == best + 1 + 4
    assert model.evaluate(*validation, loss="cross_entropy")["loss"] == history.val_loss[best]
    assert f"best epoch: {best}" in repr(history)


def test_early_stopping_without_restoring_and_by_other_numbers(rng):
    X, y = rng.standard_normal((80, N_IN)), rng.integers(0, CLASSES, 80)
    for monitor, restore in [("val_accuracy", True), ("val_loss", False), ("accuracy", True)]:
        model = network()
        rule = fastnn.EarlyStopping(3, min_delta=0.01, monitor=monitor, restore_best=restore)
        history = fit(
            model, X, y, epochs=500, validation_data=(X[:9], y[::-1][:9]), early_stopping=rule
        )
        values = np.array(history[monitor]) * (-1 if "accuracy" in monitor else 1)
        since = values[history.best_epoch + 1 :]
        assert len(since) == 3 or history.epochs == 500
        assert (since >= values[history.best_epoch] - 0.01).all()
        measured = model.evaluate(X[:9], y[::-1][:9], loss="cross_entropy")["loss"]
        shown = history.val_loss[history.best_epoch if restore else -1]
        assert measured == shown


def test_the_best_epoch_is_restored_where_the_epochs_run_out(rng):
    X, y = rng.standard_normal((80, N_IN)), rng.integers(0, CLASSES, 80)
    model = network(width=64)
    validation = rng.standard_normal((80, N_IN)), rng.integers(0, CLASSES, 80)
    history = fit(
        model, X, y, epochs=40, optimizer=fastnn.Adam(0.02), validation_data=validation,
        early_stopping=1000,
    )  # fmt: skip
    assert history.epochs == 40
    assert history.best_epoch < 39
    assert model.evaluate(*validation, loss="cross_entropy")["loss"] == min(history.val_loss)


def test_callbacks_see_each_epoch_and_can_stop(data):
    X, y = data
    seen = []

    def callback(model, history):
        seen.append((model, history.epochs, history.last()["loss"]))
        if history.epochs == 3:
            raise fastnn.StopTraining

    model = network()
    history = fit(model, X, y, epochs=10, callbacks=[callback])
    assert seen == [(model, i + 1, history.loss[i]) for i in range(3)]
    assert history.epochs == 3

    def failing(model, history):
        raise ArithmeticError("mine")

    with pytest.raises(ArithmeticError, match="mine"):
        fit(model, X, y, callbacks=[failing])
    assert model.history.epochs == 1
    fit(model, X, y)


def test_a_callback_may_use_the_model_and_the_learning_rate(data):
    X, y = data
    optimizer = fastnn.SGD(0.5)

    def callback(model, history):
        model.forward(X[:3])
        optimizer.lr = 0.25

    history = fit(network(), X, y, optimizer=optimizer, epochs=3, callbacks=[callback])
    assert history.lr == [0.5, 0.25, 0.25]


def test_a_callback_that_spoils_the_labels_does_no_harm(data):
    X, y = data
    given, model, other = y.astype(np.int64), network(), network()

    def callback(model, history):
        given[...] = 10**9

    fit(model, X, given, callbacks=[callback])
    fit(other, X, y)
    assert bits(model) == bits(other)


def test_ctrl_c_ends_training_soon_and_leaves_the_model_usable(data):
    X, y = data
    model = network()
    before = bits(model)
    # A program that a shell runs in the background ignores SIGINT from the start.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    began = time.perf_counter()
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(model, np.tile(X, (200, 1)), np.tile(y, 200), epochs=100_000, batch_size=8)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert time.perf_counter() - began < 5
    assert bits(model) != before
    assert np.isfinite(model.predict(X)).all()
    assert fit(model, X, y).epochs == 3


def test_a_loss_that_is_not_finite_is_told_once(data):
    X, _ = data
    model = network(n_out=1)
    with pytest.warns(
        RuntimeWarning, match="in epoch 1: .*a learning rate below 1e\\+30"
    ) as caught:
        history = model.fit(X, X[:, 0], loss="mse", optimizer=fastnn.SGD(1e30), epochs=4)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert history.epochs == 4


@pytest.mark.parametrize(
    ("loss", "last", "n_out"),
    [("cross_entropy", fastnn.Softmax, 4), ("binary_cross_entropy", fastnn.Sigmoid, 1)],
)
def test_a_softmax_that_the_loss_has_already_is_told(data, loss, last, n_out):
    X, y = data
    model = fastnn.Sequential(fastnn.Linear(N_IN, n_out), last())
    y = y if n_out == 4 else y > 1
    with pytest.warns(UserWarning, match="takes raw outputs"):
        fit(model, X, y, loss=loss)
    with pytest.warns(UserWarning, match="takes raw outputs"):
        model.evaluate(X, y, loss=loss)


def test_progress(data, capsys, monkeypatch, with_tqdm):
    X, y = data
    fit(network(), X, y, progress=False)
    fit(network(), X, y)
    assert capsys.readouterr() == ("", "")
    history = fit(network(), X, y, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    last = f"epoch 3/3: loss {history.loss[-1]:.4g}, accuracy {history.accuracy[-1]:.4g}"
    assert last in shown.err
    if with_tqdm:
        assert "15/15" in shown.err
    else:
        assert len(shown.err.splitlines()) == 3


def test_history_is_a_dict_with_attributes(data):
    X, y = data
    history = fit(network(), X, y, epochs=2)
    assert history["loss"] is history.loss
    assert repr(history).startswith("History: 2 epochs in ")
    assert f"last: loss {history.loss[-1]:.4g}, accuracy" in repr(history)
    other = pickle.loads(pickle.dumps(history))
    assert other == history
    assert type(other) is fastnn.History
    with pytest.raises(AttributeError, match="expected one of loss, accuracy"):
        _ = history.val_loss
    assert repr(fastnn.History()) == "History: no epochs"


def test_one_model_is_trained_by_one_thread(data):
    X, y = data
    model, errors = network(), []

    def callback(model, history):
        def other():
            try:
                fit(model, X, y)
            except RuntimeError as error:
                errors.append(str(error))
            model.evaluate(X, y, loss="cross_entropy")

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    fit(model, X, y, epochs=1, callbacks=[callback])
    assert errors == ["this model is being trained in another thread"]


@pytest.mark.parametrize("batch", [100, 1024, 2048])
def test_a_step_of_a_narrow_layer_and_a_deep_batch(isa, dtype, batch, rng):
    x, y = rng.standard_normal((batch, 100)).astype(dtype), rng.standard_normal((batch, 32))
    model = fastnn.Sequential(fastnn.Linear(100, 32, dtype=dtype), rng=0)
    weight = model[0].weight.astype(np.float64)
    model.fit(x, y, loss="mse", optimizer=fastnn.SGD(lr=0.5), epochs=1, batch_size=batch)
    grad = 2 * (x.astype(np.float64) @ weight.T - y).T @ x.astype(np.float64) / y.size
    sizes = 2 * np.abs(x @ weight.T - y).T @ np.abs(x.astype(np.float64)) / y.size
    tolerance = (batch + 200) * np.finfo(dtype).eps * sizes + 4 * np.finfo(dtype).eps
    assert (np.abs(model[0].weight - (weight - 0.5 * grad)) <= tolerance).all()
