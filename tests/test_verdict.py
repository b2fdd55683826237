"""The verdicts: on models built to be sick in one way each, and none on healthy ones."""

from __future__ import annotations

import copy
import functools
import re

import numpy as np
import pytest
from networks import fit

import fastnn
from fastnn import init
from fastnn.diagnosis.words import layers


def network(activation, depth, width, n_in=64, n_out=10, seed=0, **options):
    """`depth` hidden layers; the options are theirs."""
    layers = []
    for fan in [n_in] + [width] * (depth - 1):
        layers += [fastnn.Linear(fan, width, **options), activation()]
    last = fastnn.Linear(width, n_out, dtype=options.get("dtype", "float32"))
    return fastnn.Sequential(*layers, last, rng=seed, uint8_scale=1 / 16)


@pytest.fixture(scope="module")
def digits():
    images, labels = fastnn.data.load_digits()
    return images[:600], labels[:600]


@pytest.fixture(scope="module")
def normal():
    rng = np.random.default_rng(11)
    return rng.standard_normal((300, 64)).astype(np.float32), rng.integers(0, 10, 300)


def only_problem(report, kind, *words, mend):
    """The one problem, which is of that kind, and says these words."""
    assert not report.healthy
    (problem,) = report.problems
    assert problem.kind == kind, str(problem)
    for word in words:
        assert word in problem.reason, str(problem)
    assert mend in problem.mend, str(problem)
    assert str(problem) in str(report)
    assert str(problem) in report.verdict
    return problem


# Sick ones.


def test_zero_weights(digits):
    report = network(fastnn.ReLU, 2, 64, weight_init="zeros").report(*digits)
    only_problem(
        report, "symmetry", "all 64 units of layers 0 and 2 are identical: zero weights",
        mend='use weight_init="he_normal"',
    )  # fmt: skip
    one = network(fastnn.Tanh, 1, 1, weight_init="zeros").report(*digits)
    only_problem(one, "symmetry", "layer 0 has zero weights", mend="xavier_normal")


def test_the_whole_network_zero(digits):
    """The lecture's first start: only the bias of the last layer gets a gradient."""
    model = network(fastnn.ReLU, 1, 64, weight_init="zeros")
    model[-1].weight[...] = 0
    report = model.report(*digits)
    only_problem(report, "symmetry", "zero weights", mend="he_normal")
    assert [one.kind for one in report.notes] == ["symmetry"]
    assert [one.grad_weight_std for one in report.layers] == [0, 0]
    assert report.layers[1].grad_bias_std > 0


def test_constant_weights(digits):
    constant = functools.partial(init.constant, value=0.02)
    model = network(fastnn.LeakyReLU, 1, 48, weight_init=constant)
    problem = only_problem(
        model.report(*digits), "symmetry",
        "all 48 units of layer 0 are identical: constant weights, at first",
        mend='he_normal with slope 0.01, which is weight_init="auto"',
    )  # fmt: skip
    assert problem.layers == (0,)
    model[-1].weight[...] = 0.01
    only_problem(model.report(*digits), "symmetry", "stay so", mend="auto")


def test_copies_of_some_units(digits):
    model = network(fastnn.ReLU, 1, 64, weight_init="eye")
    assert model.report(*digits).healthy
    wide = network(fastnn.ReLU, 1, 256, weight_init="eye").report(*digits)
    only_problem(wide, "symmetry", "of the 256 units of layer 0 only 65 are", mend="he_normal")
    few = network(fastnn.ReLU, 1, 64)
    few[0].weight[3] = few[0].weight[4]
    report = few.report(*digits)
    assert report.healthy
    assert "only 63 are different" in str(report.notes[0])


@pytest.mark.parametrize("activation", [fastnn.ReLU, fastnn.LeakyReLU, fastnn.Tanh, fastnn.GELU])
@pytest.mark.parametrize("depth", [8, 30])
def test_a_tenth_in_deep_networks_vanishes(activation, depth, digits):
    """uniform(-0.1, 0.1), whatever the width: with 64 units half of what tanh asks for."""
    report = network(activation, depth, 64, weight_init="uniform").report(*digits)
    problem = only_problem(
        report, "vanishing", "shrink by 0.", "each: std ", "gradients shrink by 0.",
        "have std 0.05", mend="use ",
    )  # fmt: skip
    assert len(problem.layers) >= depth
    assert report.layers[-1].z_std < 0.01 * report.batch.x_rms


def test_the_figures_in_the_words(digits):
    """Reckoned from the table: factor, place and size."""
    model = network(fastnn.ReLU, 30, 64, weight_init="uniform")
    report = model.report(*digits)
    stds = [report.batch.x_rms] + [one.z_std for one in report.layers]
    assert stds == sorted(stds, reverse=True), "so that all layers are on the way"
    each = (stds[-1] / stds[0]) ** (1 / 31)
    words = f"layers 0..60 shrink by {each:.2g} each: std {stds[-1]:.2g} at the output"
    assert words in str(report)
    grads = [one.grad_std for one in report.layers]
    each = (grads[0] / grads[-1]) ** (1 / 30)
    assert f"gradients shrink by {each:.2g} a layer: {grads[0]:.2g} at layer 0" in str(report)


@pytest.mark.parametrize("activation", [fastnn.ReLU, fastnn.LeakyReLU])
@pytest.mark.parametrize("init_name", ["xavier_normal", "xavier_uniform"])
def test_xavier_before_relu_in_30_layers(activation, init_name, digits):
    report = network(activation, 30, 128, weight_init=init_name).report(*digits)
    only_problem(
        report, "vanishing",
        f"Xavier before {activation()!r}".removesuffix("()") + " loses half the variance per layer",
        "shrink by 0.7", mend="he_normal",
    )  # fmt: skip


def test_xavier_before_relu_in_few_layers_is_a_note(digits):
    report = network(fastnn.ReLU, 2, 128, weight_init="xavier_normal").report(*digits)
    assert report.healthy
    (note,) = report.notes
    assert note.kind == "variance"
    assert note.layers == (0, 2)
    assert "Xavier before ReLU" in note.reason
    assert "signal and gradients bear" in note.reason


def test_a_gain_that_is_wrong_the_other_way_round(digits):
    """Xavier can be too large before ReLU, and He too small before tanh: that loses no half."""
    large = functools.partial(init.xavier_normal, gain=4)
    report = network(fastnn.ReLU, 10, 64, weight_init=large).report(*digits)
    only_problem(report, "exploding", "where He asks for 0.177", mend="he_normal")
    small = functools.partial(init.he_normal, negative_slope=5)
    report = network(fastnn.Tanh, 10, 64, weight_init=small).report(*digits)
    only_problem(report, "vanishing", "have std 0.034", "Xavier asks for 0.12", mend="xavier")


@pytest.mark.parametrize("activation", [fastnn.ReLU, fastnn.LeakyReLU, fastnn.GELU])
def test_too_large_weights_explode(activation, digits):
    init_normal = functools.partial(init.normal, std=1.0)
    for depth in (2, 10):
        report = network(activation, depth, 64, weight_init=init_normal).report(*digits)
        only_problem(report, "exploding", "grow by ", "where He asks for 0.1", mend="he_normal")


def test_overflow_is_told_without_a_warning(digits):
    large = functools.partial(init.normal, std=100.0)
    report = network(fastnn.ReLU, 30, 64, weight_init=large).report(*digits)
    first = next(one.index for one in report.layers if not np.isfinite(one.z_std))
    only_problem(
        report, "exploding", f"exceeds what the dtype can hold from layer {first} on",
        mend="he_normal",
    )  # fmt: skip
    assert "inf" in str(report)
    assert report._repr_html_()


@pytest.mark.parametrize("activation", [fastnn.Tanh, fastnn.Sigmoid])
def test_large_weights_saturate(activation, digits):
    init_normal = functools.partial(init.normal, std=2.0)
    report = network(activation, 2, 64, weight_init=init_normal).report(*digits)
    only_problem(
        report, "saturated", "is saturated (its derivative below a tenth", "Xavier asks for 0.125",
        mend="xavier_normal",
    )  # fmt: skip


def test_he_before_tanh_saturates(normal):
    report = network(fastnn.Tanh, 5, 64, weight_init="he_normal").report(*normal)
    problem = only_problem(
        report, "saturated", "Tanh is saturated", "% of the activations of layer 0",
        "He before Tanh has up to 2 times the variance of Xavier", mend="xavier_normal",
    )  # fmt: skip
    assert 0 in problem.layers
    assert report.layers[0].saturated == pytest.approx(0.2, abs=0.03)


def test_saturation_by_inputs_and_by_biases(digits, normal):
    model = network(fastnn.Tanh, 1, 64)
    model.uint8_scale = 1.0
    report = model.report(*digits)
    problem = only_problem(report, "saturated", "of layer 0", mend="scale X")
    assert "scale X, whose root mean square is 7.7" in problem.mend
    biased = network(fastnn.Sigmoid, 1, 64, bias_init=functools.partial(init.constant, value=9.0))
    only_problem(biased.report(*normal), "saturated", "Sigmoid", mend='bias_init="zeros"')


def test_raw_pixels(digits):
    images = digits[0].astype(np.float32) * 16
    report = network(fastnn.ReLU, 1, 64).report(images, digits[1])
    (problem,) = (one for one in report.problems if one.kind == "inputs")
    assert "the root mean square of X is 124" in problem.reason
    assert "scale X" in problem.mend


def test_a_negative_bias_kills(digits, normal):
    for value in (-2.0, -30.0):
        bias = functools.partial(init.constant, value=value)
        report = network(fastnn.ReLU, 2, 64, bias_init=bias).report(*digits)
        assert {one.kind for one in report.problems} == {"dead"}
        for one in report.problems:
            assert f"the bias, {value:.2g} on average, keeps" in one.reason
            assert one.mend == 'use bias_init="zeros"'
        assert report.problems[-1].layers == (2 if value == -2 else 0,)
        assert "nothing passes, and the output is the same for every row" in str(report)
    some = network(fastnn.ReLU, 1, 64)
    some[0].bias[:20] = -30
    only_problem(some.report(*normal), "dead", "20 of 64 units of layer 0", mend="bias_init")


def test_dead_units_without_a_bias(digits):
    """All weights negative, under inputs that are not."""
    model = network(fastnn.ReLU, 1, 64)
    model[0].weight[...] = -abs(model[0].weight)
    problem = only_problem(
        model.report(*digits), "dead", "all 64 units of layer 0 are dead", mend="LeakyReLU"
    )
    assert "bias" not in problem.reason
    leaky = network(fastnn.LeakyReLU, 1, 64)
    leaky[0].weight[...] = -abs(leaky[0].weight)
    report = leaky.report(*digits)
    assert report.healthy
    assert "work as linear ones of slope 0.01" in str(report.notes[0])


@pytest.mark.parametrize("depth", [5, 12])
def test_gradients_vanish_under_sigmoids(depth, digits):
    """Right weights, and a signal that keeps its size: it is the gradients that vanish."""
    model = network(fastnn.Sigmoid, depth, 64)
    for report in (model.report(*digits), model.report(digits[0]), fastnn.predict_signal(model)):
        problem = only_problem(
            report, "vanishing", "gradients shrink by 0.", "derivative of Sigmoid is at most 1/4",
            mend="Tanh",
        )  # fmt: skip
        assert ("by theory" in problem.reason) == (report.loss is None)


def test_parameters_that_are_not_finite(digits):
    model = network(fastnn.ReLU, 3, 64)
    model[2].weight[0, 0] = np.nan
    model[4].bias[1] = np.inf
    report = model.report(*digits)
    problem = only_problem(
        report, "not finite", "weights or biases of layers 2 and 4", mend="lower learning rate"
    )
    assert problem.layers == (2, 4)


def test_the_loss_that_has_the_last_layer_in_itself(digits):
    model = fastnn.Sequential(fastnn.Linear(64, 10), fastnn.Softmax(), rng=0, uint8_scale=1 / 16)
    report = model.report(*digits)
    only_problem(report, "loss", "takes raw outputs", "Softmax()", mend="leave it out")
    assert model.report(digits[0]).healthy


def test_the_last_layer_may_start_at_zero(digits):
    model = network(fastnn.ReLU, 2, 64)
    model[-1].weight[...] = 0
    report = model.report(*digits)
    assert report.healthy
    assert "learn nothing in the first step" in str(report.notes[0])


# One bad layer among right ones: it is named, and no other.


def one_bad_layer(activation, bad, factor, digits):
    """30 layers with the weights of one scaled: the network, its report, these weights' std."""
    model = network(activation, 30, 64)
    model[bad].weight[...] *= factor
    report = model.report(*digits)
    return model, report, report.layers[bad // 2].weight_std


@pytest.mark.parametrize("activation", [fastnn.ReLU, fastnn.LeakyReLU, fastnn.Tanh, fastnn.GELU])
@pytest.mark.parametrize("bad", [2, 30, 58])
def test_one_layer_of_thirty_that_is_too_small(activation, bad, digits):
    model, report, std = one_bad_layer(activation, bad, 0.001, digits)
    problem = only_problem(
        report, "vanishing", f"the weights of layer {bad} have std {std:.3g} where ", mend="use "
    )
    theory = fastnn.predict_signal(model)
    assert f"the weights of layer {bad} have std {std:.3g}" in theory.verdict
    # What others do besides, as under GELU, is told, and what this one does alone.
    assert bad in problem.layers
    assert re.search(rf"layer {bad}( shrinks)? by 0\.0", problem.reason), str(problem)
    assert re.search(rf"through layer {bad}(:| by 0\.0)", problem.reason), str(problem)


@pytest.mark.parametrize("activation", [fastnn.ReLU, fastnn.LeakyReLU, fastnn.GELU])
@pytest.mark.parametrize("bad", [2, 30])
def test_one_layer_of_thirty_that_is_too_large(activation, bad, digits):
    _, report, std = one_bad_layer(activation, bad, 1000, digits)
    problem = only_problem(
        report, "exploding", f"the weights of layer {bad} have std {std:.3g} where He", mend="he_"
    )
    assert bad in problem.layers
    assert re.search(rf"layer {bad}( grows)? by (1.*e\+03|[89].*e\+02):", problem.reason)
    _, report, _ = one_bad_layer(activation, bad, 10, digits)
    (finding,) = (one for one in report.findings if one.kind == "exploding")
    assert f"the weights of layer {bad} have std 1.7" in finding.reason
    assert re.search(rf"layer {bad}( grows)? by (1\d|[89])", finding.reason), str(finding)


def test_two_bad_layers_of_thirty(digits):
    model = network(fastnn.ReLU, 30, 64)
    for bad in (8, 40):
        model[bad].weight[...] *= 0.02
    problem = only_problem(
        model.report(*digits), "vanishing", "layers 8 and 40 shrink by 0.02 each",
        "a layer through layers 8 and 40", "(typical of layers 8 and 40) have std 0.0035",
        mend="he_normal",
    )  # fmt: skip
    assert problem.layers == (8, 40)
    model[40].weight[...] *= 50 * 100  # now one is too small, and one too large
    found = {one.kind: one.reason for one in model.report(*digits).findings}
    assert found.keys() == {"vanishing", "exploding"}
    assert "the weights of layer 8 have std" in found["vanishing"]
    assert "the weights of layer 40 have std" in found["exploding"]


def test_one_layer_that_overflows(digits):
    model = network(fastnn.ReLU, 10, 64)
    model[8].weight[...] *= 1e38
    report = model.report(*digits)
    problem = only_problem(report, "exploding", "exceeds what the dtype can hold", mend="he_normal")
    assert "the weights of layer 8 have std 1.7" in problem.reason


def test_layers_are_named_as_they_lie():
    named = {
        (4,): "layer 4", (0, 2): "layers 0 and 2", (2, 4, 6, 9): "layers 2..9",
        (4, 20, 40): "layers 4, 20 and 40", (4, 6, 8, 20, 40, 42): "6 of layers 4..42",
    }  # fmt: skip
    assert {numbers: layers(numbers) for numbers in named} == named


def test_a_dead_layer_in_the_middle(digits):
    model = network(fastnn.ReLU, 30, 64)
    model[30].weight[...] = -abs(model[30].weight)
    problem = only_problem(
        model.report(*digits), "dead", "all 64 units of layer 30 are dead", mend="LeakyReLU"
    )
    assert problem.layers == (30,)
    model[30].weight[...] = 0
    problem = only_problem(model.report(*digits), "symmetry", "layer 30", mend="he_normal")
    assert problem.layers == (30,)


@pytest.mark.parametrize("activation", [fastnn.ReLU, fastnn.LeakyReLU, fastnn.GELU])
def test_a_bias_that_outweighs_what_comes_in(activation, digits):
    """Ten times is where SGD no longer trains such a network, three times is a note."""
    for value in (30.0, 1e6):
        model = network(activation, 3, 64)
        model[2].bias[...] = value
        for report in (model.report(*digits), fastnn.predict_signal(model)):
            problem = only_problem(report, "bias", "the biases of layer 2 outweigh", mend="zeros")
            assert f"their root mean square, {value:.3g}, is " in problem.reason
            assert problem.layers == (2,)
    model = network(activation, 3, 64)
    model[2].bias[...] = 2.0
    report = model.report(*digits)
    assert report.healthy
    assert [one.kind for one in report.notes] == ["bias"]
    model = network(activation, 3, 64)
    model[2].bias[5] = 1000.0
    only_problem(model.report(*digits), "bias", "the biases of layer 2", mend="zeros")


def test_the_bias_of_an_output(digits):
    """Of a class it is told; a regression may need it."""
    model = network(fastnn.ReLU, 3, 64)
    model[-1].bias[3] = 1000
    assert [one.kind for one in model.report(*digits).notes] == ["bias"]
    model = network(fastnn.ReLU, 3, 64, n_out=1)
    model[-1].bias[...] = 1000
    assert not model.report(digits[0], 1000.0 + digits[1]).findings


@pytest.mark.parametrize("n_out", [1, 10])
def test_an_output_that_is_saturated_and_wrong(n_out, digits):
    X, y = digits
    y = (y > 4).astype(float) if n_out == 1 else np.eye(10)[y]
    model = network(fastnn.ReLU, 1, 32, n_out=n_out)
    model = fastnn.Sequential(*map(copy.copy, model), fastnn.Sigmoid(), rng=0, uint8_scale=1 / 16)
    assert model.report(X, y).healthy
    model[2].weight[...] *= 100
    report = model.report(X, y)
    problem = only_problem(
        report, "saturated", "Sigmoid is saturated for 9", "of the outputs, and they are wrong",
        "of answering with the mean of y; the weights of layer 2 have std 2", mend="xavier_normal",
    )  # fmt: skip
    assert f"above the {y.var(axis=0).mean():.3g} of" in problem.reason
    assert model.report(X).findings[0].kind == "exploding", "without y nobody knows"
    right = model.predict(X) > 0.5
    assert "saturated" not in {one.kind for one in model.report(X, right.astype(float)).problems}


def test_an_output_that_is_dead(digits):
    model = network(fastnn.ReLU, 1, 32, n_out=1)
    model = fastnn.Sequential(*map(copy.copy, model), fastnn.ReLU(), rng=0, uint8_scale=1 / 16)
    model[2].bias[...] = -100
    report = model.report(digits[0], digits[1].astype(float))
    only_problem(report, "dead", "1 of 1 units of layer 2 are dead", mend="bias_init")


def test_a_row_that_no_unit_takes_up(digits):
    """By chance all few units may be silent on one row: that is no alarm, and no number."""
    for seed in range(60):
        report = network(fastnn.ReLU, 5, 3, seed=seed).report(digits[0][:1])
        assert "e-100" not in report.verdict
        assert report.healthy, report.verdict


# Healthy ones.

HEALTHY = [
    (fastnn.ReLU, 1, 8), (fastnn.ReLU, 3, 1024), (fastnn.ReLU, 10, 128), (fastnn.ReLU, 30, 64),
    (fastnn.ReLU, 30, 256), (fastnn.ReLU, 30, 8), (fastnn.LeakyReLU, 1, 1024),
    (fastnn.LeakyReLU, 8, 32), (fastnn.LeakyReLU, 30, 128),
    (functools.partial(fastnn.LeakyReLU, 0.2), 20, 64), (fastnn.Tanh, 1, 16),
    (fastnn.Tanh, 4, 1024), (fastnn.Tanh, 12, 64), (fastnn.Tanh, 30, 128), (fastnn.Tanh, 30, 8),
    (fastnn.Sigmoid, 1, 512), (fastnn.Sigmoid, 3, 64), (fastnn.GELU, 2, 256),
    (fastnn.GELU, 12, 64), (fastnn.GELU, 30, 128),
    (fastnn.SiLU, 1, 1024), (fastnn.SiLU, 6, 64), (fastnn.SiLU, 30, 256),
]  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("activation", "depth", "width"), HEALTHY, ids=str)
def test_no_alarm_on_healthy_networks(activation, depth, width, seed, digits, normal):
    model = network(activation, depth, width, seed=seed)
    for report in (
        model.report(*digits),
        model.report(normal[0]),
        fastnn.predict_signal(model),
    ):
        assert report.healthy, report.verdict
        assert "verdict: healthy" in str(report)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", [7, 33, 100])
@pytest.mark.parametrize(
    ("activation", "depth"),
    [(fastnn.ReLU, 5), (fastnn.LeakyReLU, 20), (fastnn.Tanh, 10), (fastnn.GELU, 20),
     (fastnn.SiLU, 5), (fastnn.Sigmoid, 2)],
)  # fmt: skip
def test_no_alarm_on_odd_widths_and_few_or_constant_rows(
    activation, depth, width, dtype, digits, normal
):
    X, y = digits
    constant = np.hstack([normal[0][:, :40], np.ones((300, 24), np.float32)])
    for seed in range(3, 6):
        model = network(activation, depth, width, seed=seed, dtype=dtype)
        for report in (
            model.report(X, y),
            model.report(X[:1], y[:1]),
            model.report(X[:3], y[:3]),
            model.report(X[:17], y[:17]),
            model.report(constant),
            fastnn.predict_signal(model),
        ):
            assert report.healthy, report.verdict


@pytest.mark.parametrize("init_name", ["he_uniform", "orthogonal", "variance_scaling"])
def test_other_right_initializations(init_name, digits):
    how = getattr(init, init_name)
    if init_name == "orthogonal":
        how = functools.partial(how, gain=2**0.5)
    elif init_name == "variance_scaling":
        how = functools.partial(how, scale=2.0)
    report = network(fastnn.ReLU, 10, 64, weight_init=how).report(*digits)
    assert report.healthy, report.verdict
    assert not report.notes


@pytest.mark.parametrize(
    ("activation", "depth"),
    [(fastnn.ReLU, 1), (fastnn.ReLU, 6), (fastnn.LeakyReLU, 3), (fastnn.Tanh, 2),
     (fastnn.Sigmoid, 1), (fastnn.GELU, 3)],
)  # fmt: skip
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_no_alarm_after_training_that_went_well(activation, depth, optimizer, digits):
    model = network(activation, depth, 64)
    how = fastnn.Adam(0.003) if optimizer == "adam" else fastnn.SGD(0.03, momentum=0.9)
    history = fit(model, *digits, epochs=40, optimizer=how)
    assert history.accuracy[-1] > 0.95
    report = model.report(*digits)
    assert report.healthy, report.verdict


def test_training_that_went_badly_is_told(digits):
    """A learning rate that kills the units of a network that was healthy."""
    model = network(fastnn.ReLU, 3, 64)
    assert model.report(*digits).healthy
    with pytest.warns(UserWarning, match="are dead"):
        fit(model, *digits, epochs=5, optimizer=fastnn.SGD(1.0, momentum=0.9), monitor_units=True)
    report = model.report(*digits)
    assert "dead" in {one.kind for one in report.problems}, report.verdict
