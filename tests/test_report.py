"""`model.report`: its figures against float64 NumPy, what it leaves alone, how it is shown."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
from networks import N_IN, bits, fit, learnable, network

import fastnn
from fastnn.diagnosis import measure as measuring
from fastnn.losses import as_loss


@pytest.fixture
def data():
    return learnable()


F = {
    "identity": (lambda z: z, lambda z: np.ones_like(z)),
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
    "leaky": (lambda z: np.where(z > 0, z, 0.2 * z), lambda z: np.where(z > 0, 1, 0.2)),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "sigmoid": (
        lambda z: 1 / (1 + np.exp(-z)),
        lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2,
    ),
}
LAYERS = {
    "relu": fastnn.ReLU,
    "leaky": lambda: fastnn.LeakyReLU(0.2),
    "tanh": fastnn.Tanh,
    "sigmoid": fastnn.Sigmoid,
}


def build(names, widths=(N_IN, 17, 30, 4), dtype="float32", bias=True):
    """Linear, activation, ... Linear, with biases and weights that matter."""
    layers = []
    for name, n_in, n_out in zip([*names, "identity"], widths[:-1], widths[1:], strict=True):
        layers.append(
            fastnn.Linear(n_in, n_out, bias, dtype=dtype, bias_init="normal" if bias else "zeros")
        )
        if name != "identity":
            layers.append(LAYERS[name]())
    model = fastnn.Sequential(*layers, rng=7)
    if bias:
        for layer in model.layers[::2]:
            layer.bias[...] *= 40
    return model


def in_numpy(model, names, X, y, loss):
    """The figures of each Linear, in float64."""
    linears = model.layers[::2]
    functions = [F[name] for name in [*names, "identity"]]
    x, xs, zs = X.astype(np.float64), [], []
    for layer, (f, _) in zip(linears, functions, strict=True):
        xs.append(x)
        zs.append(x @ layer.weight.T.astype(np.float64) + (0 if layer.bias is None else layer.bias))
        x = f(zs[-1])
    value, grad = loss(x, y)
    found = []
    for layer, inputs, z, (f, derivative) in reversed(
        list(zip(linears, xs, zs, functions, strict=True))
    ):
        grad = grad * derivative(z)
        found.append({
            "z_mean": z.mean(), "z_std": z.std(), "y_mean": f(z).mean(), "y_std": f(z).std(),
            "grad_std": np.sqrt((grad**2).mean()),
            "grad_weight_std": np.sqrt(((grad.T @ inputs) ** 2).mean()),
            "weight_mean": layer.weight.mean(dtype=np.float64),
            "weight_std": layer.weight.std(dtype=np.float64),
        })  # fmt: skip
        if layer.bias is not None:
            b = layer.bias.astype(np.float64)
            found[-1] |= {
                "bias_mean": b.mean(), "bias_std": b.std(),
                "grad_bias_std": np.sqrt((grad.sum(axis=0) ** 2).mean()),
                "bias_share": (b**2).mean() / ((b**2).mean() + ((z - b) ** 2).mean()),
            }  # fmt: skip
        grad = grad @ layer.weight.astype(np.float64)
    return value, found[::-1], zs


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "huber"])
@pytest.mark.parametrize(
    "names", [("relu", "leaky"), ("tanh", "sigmoid"), ("leaky", "tanh", "relu")], ids="-".join
)
def test_figures_are_those_of_numpy(names, loss, dtype, data, isa):
    X, y = data
    y = y if loss == "cross_entropy" else np.random.default_rng(0).standard_normal((len(X), 4))
    model = build(names, (*(N_IN, 17, 30, 12)[: len(names) + 1], 4), dtype)
    report = model.report(X, y, loss)
    value, found, zs = in_numpy(model, names, X, y, as_loss(loss))
    eps = float(np.finfo(dtype).eps)
    assert report.batch.loss == pytest.approx(value, rel=100 * eps)
    assert report.batch.x_rms == pytest.approx(np.sqrt((X.astype(float) ** 2).mean()), rel=1e-12)
    before = report.batch.x_rms
    for one, want, z, name in zip(report.layers, found, zs, [*names, "identity"], strict=True):
        got = one.to_dict()
        for key, number in want.items():
            # The largest numbers that an error can come from are about 1, and so are the products.
            assert got[key] == pytest.approx(number, rel=2000 * eps, abs=20 * eps), key
        assert one.ratio == pytest.approx(want["z_std"] / before, rel=2000 * eps)
        before = want["z_std"]
        if name in ("relu", "leaky"):
            assert one.dead == np.count_nonzero(~(z > 0).any(axis=0))
            bias = model[one.index].bias
            assert one.dead_without_bias == np.count_nonzero(~(z - bias > 0).any(axis=0))
            assert one.saturated is None
        elif name in ("tanh", "sigmoid"):
            derivative = F[name][1]
            flat = derivative(z) < 0.1 * derivative(np.zeros(1))
            assert one.saturated == pytest.approx(flat.mean(), abs=2 / z.size)
            assert one.saturated_units == np.count_nonzero(flat.all(axis=0))
            assert one.dead is None
    for one, after in zip(report.layers, report.layers[1:], strict=False):
        assert one.grad_ratio == one.grad_std / after.grad_std


def test_some_units_are_dead_and_some_saturated(data):
    """The figures of the test above are not all 0."""
    X, y = data
    model = build(("relu", "leaky"))
    model[0].bias[:3] = -30
    model[2].weight[5] = -abs(model[2].weight[5])
    model[2].bias[5] = 0
    report = model.report(X, y)
    assert report.layers[0].dead == 3
    assert report.layers[0].dead_without_bias == 0
    assert report.layers[1].dead == report.layers[1].dead_without_bias == 1
    model = build(("tanh", "sigmoid"))
    model[0].bias[:2] = 50
    model[2].bias[:7] = -90
    report = model.report(X, y)
    assert report.layers[0].saturated_units == 2
    assert report.layers[1].saturated_units == 7
    assert 2 / 17 < report.layers[0].saturated < 1


def test_chunks_of_rows_make_no_difference(data, monkeypatch):
    X, y = data
    model = build(("relu", "leaky"))
    whole = model.report(X, y).to_dict()
    monkeypatch.setattr(measuring, "_CHUNK", 7 * (N_IN + 17 + 30 + 4))
    parts = model.report(X, y).to_dict()
    assert parts["batch"].keys() == whole["batch"].keys()
    for key, value in whole["batch"].items():
        assert parts["batch"][key] == (
            None if value is None else pytest.approx(value, rel=1e-6)
        ), key
    for one, other in zip(parts["layers"], whole["layers"], strict=True):
        one.pop("predicted"), other.pop("predicted")
        for key, value in other.items():
            if isinstance(value, float):
                assert one[key] == pytest.approx(value, rel=1e-4, abs=1e-7), key
            else:
                assert one[key] == value, key


def test_any_layers_in_any_order(data):
    """Gradients through activations that follow no Linear, dropout, and a Softmax in the middle."""
    X, y = data
    model = fastnn.Sequential(
        fastnn.Tanh(), fastnn.Linear(N_IN, 9), fastnn.Dropout(0.5), fastnn.LeakyReLU(-0.2),
        fastnn.Linear(9, 8), fastnn.Softmax(), fastnn.Linear(8, 6), fastnn.GELU(), fastnn.SiLU(),
        fastnn.Linear(6, 4), rng=0,
    )  # fmt: skip
    report = model.report(X, y)
    _, grad = fastnn.CrossEntropy()(model.forward(X, training=False), y)
    model.backward(grad)
    assert [one.index for one in report.layers] == [1, 4, 6, 9]
    assert [one.activation for one in report.layers] == ["LeakyReLU(-0.2)", "Softmax", "GELU", ""]
    for one in report.layers:
        want = np.sqrt((model[one.index].grad_weight.astype(float) ** 2).mean())
        assert one.grad_weight_std == pytest.approx(want, rel=1e-5)
    assert report.layers[1].y_mean == pytest.approx(1 / 8)


def test_nothing_of_the_model_changes(data):
    X, y = data
    model = network(fastnn.Dropout(0.3))
    twin = network(fastnn.Dropout(0.3))
    for one in (model, twin):
        fit(one, X, y)
        one.forward(X[:5])
    before, gradients = bits(model), model._gradients.tobytes()
    saved = [layer._saved for layer in model]
    model.report(X, y)
    model.report(X)
    fastnn.predict_signal(model)
    assert bits(model) == before
    assert model._gradients.tobytes() == gradients
    assert [layer._saved for layer in model] == saved
    grad = np.ones((5, 4), np.float32)
    model.backward(grad)  # the forward pass before the report still waits for it
    twin.backward(grad)
    assert model._gradients.tobytes() == twin._gradients.tobytes()
    np.testing.assert_array_equal(model.forward(X), twin.forward(X))


def test_a_callback_may_report(data):
    X, y = data
    seen = []
    fit(network(), X, y, callbacks=[lambda model, _: seen.append(model.report(X, y))])
    assert [report.batch.loss for report in seen] == sorted(
        (report.batch.loss for report in seen), reverse=True
    )
    assert seen[-1].healthy


def test_uint8_and_other_dtypes_are_read_as_fit_reads_them():
    X, y = fastnn.data.load_digits()
    model = network_for_digits()
    report = model.report(X, y)
    same = model.report((X / 16).astype(np.float32), y)
    assert report.to_dict() == same.to_dict()
    assert model.report(X / 16, y).batch.loss == pytest.approx(report.batch.loss, rel=1e-6)


def network_for_digits(activation=fastnn.LeakyReLU, **options):
    return fastnn.Sequential(
        fastnn.Linear(64, 128, **options), activation(), fastnn.Linear(128, 10), rng=0,
        uint8_scale=1 / 16,
    )  # fmt: skip


def test_the_loss_is_found_where_it_is_not_given(data):
    X, y = data
    assert repr(network().report(X, y).loss) == "CrossEntropy()"
    assert repr(network(n_out=1).report(X, y).loss) == "MSE()"
    assert repr(network().report(X, X[:, :4]).loss) == "MSE()"
    assert network().report(X, X[:, :4], fastnn.Huber(2)).to_dict()["loss"] == ["huber", 2.0]
    assert network().report(X).loss is None


def test_what_is_known_of_the_weights():
    weight = np.zeros((6, 3), np.float32)
    weight[1:] = np.arange(15).reshape(5, 3)
    weight[3] = weight[2]
    weight[4] = -0.0  # as unit 0
    model = fastnn.Sequential(
        fastnn.Linear(3, 6, weight_init=weight), fastnn.LeakyReLU(0.5), fastnn.Linear(6, 5),
        fastnn.Tanh(), fastnn.Linear(5, 2, False), rng=0,
    )  # fmt: skip
    first, second, third = model.report(np.eye(3)).layers
    assert (first.distinct, second.distinct, third.distinct) == (4, 5, 2)
    assert first.apart, "the next layer's weights differ"
    assert first.initialization == "given values"
    assert first.asked == "sqrt(2 / ((1 + 0.5^2) 3))"
    assert first.asked_std == pytest.approx(math.sqrt(2 / (1.25 * 3)))
    assert second.asked == "sqrt(2 / (6 + 5))"
    assert second.asked_std == pytest.approx(math.sqrt(2 / 11))
    assert second.initialization == "xavier_normal, std 0.426"
    assert third.bias_mean is None
    assert third.bias_share is None
    model[0].bias[4] = 1
    assert model.report(np.eye(3)).layers[0].distinct == 5


def test_units_that_are_alike_stay_so_to_the_last_bit(data):
    """Why exact equality is the right question."""
    X, y = data
    model = network(width=33)
    weights = model[0].weight[0].copy()
    outgoing = model[2].weight[:, 0].copy()
    for unit in range(33):
        model[0].weight[unit], model[2].weight[:, unit] = weights, outgoing
    assert not model.report(X, y).layers[0].apart
    fit(model, X, y, epochs=5)
    assert model.report(X, y).layers[0].distinct == 1


def test_it_is_shown_as_text_html_and_dict(data):
    X, y = data
    report = build(("relu", "tanh")).report(X, y)
    text = str(report)
    assert repr(report) == text
    for word in (
        "Report on 150 rows of 20 features", "CrossEntropy(): ", "Linear(20, 17), ReLU",
        "he_normal, slope 0, std 0.316", "sqrt(2 / 20)", "dL/dW", "saturated", "bias share",
        "verdict: healthy",
    ):  # fmt: skip
        assert word in text
    assert max(map(len, text.splitlines())) <= 120
    html = report._repr_html_()
    assert html.count("<table>") == html.count("</table>") == 3
    assert html.count("<tr>") == 3 * 4
    assert "Linear(20, 17), ReLU" in html
    told = json.loads(json.dumps(report.to_dict()))
    assert told == report.to_dict()
    assert told["layers"][0]["z_std"] == report.layers[0].z_std
    assert told["layers"][0]["predicted"]["z_std"] == report.layers[0].predicted.z_std
    assert told["healthy"] is True
    silent = str(build(("relu", "tanh"), bias=False).report(X))
    assert "bias" not in silent.partition("units\n")[2].partition("\n")[0].replace(
        "dead without bias", ""
    )
    assert "dL" not in silent.partition("\n\n")[2].replace("dL/dz to the one after", "")


def test_html_is_escaped(data):
    X, y = data
    name = "<b>&"
    init = type(name, (), {"__call__": lambda self, shape, **_: np.ones(shape)})()
    html = network_with(init).report(X, y)._repr_html_()
    assert "&lt;b&gt;&amp;" in html
    assert name not in html


def network_with(init):
    return fastnn.Sequential(
        fastnn.Linear(N_IN, 8, weight_init=init), fastnn.ReLU(), fastnn.Linear(8, 4), rng=0
    )


def test_it_draws_a_figure(data, tmp_path):
    X, y = data
    for i, report in enumerate([
        build(("relu", "tanh")).report(X, y),
        build(("relu", "tanh")).report(X),
        fastnn.predict_signal(build(("relu", "tanh"))),
        network_with("zeros").report(X, y),
        network_with(lambda shape, **_: np.full(shape, 1e38)).report(X, y),
    ]):  # fmt: skip
        path = tmp_path / f"{i}.png"
        report.plot(path)
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert path.stat().st_size > 20_000


def test_without_matplotlib_the_error_names_the_mend(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    report = network().report(data[0])
    with pytest.raises(ImportError, match=r'pip install "fastnn-cpu\[plot\]"'):
        report.plot(tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


def test_importing_fastnn_does_not_import_it(python):
    done = python(
        "import sys, fastnn\n"
        "assert not any('diagnosis' in name for name in sys.modules)\n"
        "assert fastnn.predict_signal and fastnn.Report\n"
        "assert 'fastnn.diagnosis.report' in sys.modules\n"
        "assert 'matplotlib' not in sys.modules\n"
        "try:\n    fastnn.nothing\n"
        "except AttributeError as error:\n    print(error)"
    )
    assert done.stdout == "module 'fastnn' has no attribute 'nothing'\n", done.stderr
    assert isinstance(fastnn.Sequential(fastnn.Linear(2, 2)).report([[1.0, 2.0]]), fastnn.Report)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.zeros((0, N_IN)),), ValueError, r"X: expected at least one row, got shape \(0, 20\)"),
        ((np.zeros((5, 3)),), ValueError, r"X: expected shape \(m, 20\), got \(5, 3\)"),
        ((np.zeros(N_IN),), ValueError, r"X: expected shape \(m, 20\), got \(20,\)"),
        ((np.full((3, N_IN), np.nan),), ValueError, "X: expected finite numbers, got nan in row 0"),
        ((np.full((3, N_IN), 1e39),), ValueError, "X: expected numbers that float32 can hold"),
        (([["a"] * N_IN],), TypeError, "X: expected"),
        ((np.zeros((3, N_IN)), [0, 1]), ValueError, r"y: expected shape \(3,\), got \(2,\)"),
        ((np.zeros((3, N_IN)), [0, 1, 4]), ValueError, r"y: expected labels in \[0, 4\), got 4"),
        ((np.zeros((3, N_IN)), [0.0, 1.0, 2.5]), TypeError, "y: expected integer labels"),
        ((np.zeros((3, N_IN)), [0, 1, 2], "no"), ValueError, "loss: expected one of"),
        ((np.zeros((3, N_IN)), [0, 1, 2], 7), TypeError, "loss: expected a loss"),
        ((np.zeros((3, N_IN)), None, "mse"), ValueError, "loss: expected y with it"),
    ],
)
def test_bad_input_is_one_clear_error(arguments, error, message):
    with pytest.raises(error, match=message):
        network().report(*arguments)


def test_a_model_without_a_linear():
    with pytest.raises(ValueError, match="model: expected at least one Linear layer, got none"):
        fastnn.Sequential(fastnn.ReLU()).report([[1.0]])


@pytest.mark.parametrize("rows", [1, 40])
def test_rows_that_are_all_the_same_cannot_tell(data, rows):
    X = np.repeat(data[0][:1], rows, axis=0)
    for names in (("relu", "leaky"), ("tanh", "sigmoid")):
        report = build(names).report(X, data[1][:rows])
        assert report.healthy
        assert [one.kind for one in report.findings] == ["rows"]
        assert "cannot tell which units are dead" in str(report.findings[0])
        assert "give some hundred different rows" in str(report)
        assert all(one.dead is one.saturated_units is None for one in report.layers)
        assert all(one.z_std > 0 and one.grad_std > 0 for one in report.layers)


def test_few_rows_and_constant_features(data):
    X, y = data
    model = build(("relu", "leaky"))
    model[0].bias[...] = -30
    few = model.report(X[:5], y[:5])
    assert "5 rows are too few to tell dead units from live ones" in str(few)
    assert "dead" not in [one.kind for one in few.findings]
    X = X.copy()
    X[:, :15] = 1
    report = build(("relu", "leaky")).report(X, y)
    assert report.healthy
    assert "15 of 20 features are the same in all rows" in str(report)
    assert report.batch.varying == 5
    zeros = build(("relu", "leaky")).report(0 * X, y)
    assert "X is all zeros: only the biases speak" in str(zeros)
