"""The moments that theory predicts, against another quadrature, closed forms and random draws."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastnn
from fastnn._core.pointwise import act, act_derivative
from fastnn.diagnosis.theory import (
    SATURATING,
    Moments,
    after_linear,
    expected,
    gain,
    saturation,
    transformed,
)

CASES = [
    (name, slope, mean, std)
    for name, slope in [
        ("identity", 0.0), ("relu", 0.0), ("leaky_relu", 0.01), ("leaky_relu", -0.5),
        ("tanh", 0.0), ("sigmoid", 0.0), ("gelu", 0.0), ("silu", 0.0),
    ]
    for mean, std in [(0.0, 1.0), (0.0, 1e-3), (0.7, 1.3), (-2.0, 0.5), (0.5, 40.0), (3.0, 0.0)]
]  # fmt: skip


def integral(f, mean, std):
    """E f(mean + std t) by Gauss-Legendre on 4000 panels, which end at the kink of a ReLU."""
    if std == 0:
        return float(f(np.array([mean]))[0])
    ends = np.unique(np.append(np.linspace(-12, 12, 4001), np.clip(-mean / std, -12, 12)))
    nodes, weights = np.polynomial.legendre.leggauss(8)
    half, middle = np.diff(ends)[:, None] / 2, (ends[1:] + ends[:-1])[:, None] / 2
    t = middle + half * nodes
    values = f(np.ascontiguousarray(mean + std * t)) * np.exp(-t * t / 2)
    return float((values * weights * half).sum() / math.sqrt(2 * math.pi))


@pytest.mark.parametrize(("name", "slope", "mean", "std"), CASES)
def test_moments_of_an_activation(name, slope, mean, std):
    z = Moments(mean, mean * mean + std * std)
    got = transformed(name, slope, z)
    want_mean = integral(lambda x: act(name, x, slope), mean, std)
    want_square = integral(lambda x: act(name, x, slope) ** 2, mean, std)
    scale = math.sqrt(want_square)
    assert got.mean == pytest.approx(want_mean, rel=1e-10, abs=1e-10 * scale)
    assert got.square == pytest.approx(want_square, rel=1e-10)
    want_gain = integral(lambda x: act_derivative(name, x, slope) ** 2, mean, std)
    assert gain(name, slope, z) == pytest.approx(want_gain, rel=1e-9)


def test_he_keeps_the_mean_square():
    """He et al. 2015, equations 10 and 15: n_in Var w (1 + a^2) / 2 = 1."""
    for slope in (0.0, 0.01, 0.5):
        weight = Moments(0.0, 2 / ((1 + slope**2) * 300))
        z = Moments(0.0, 1.7)
        y = transformed("leaky_relu", slope, z)
        assert after_linear(y, weight, Moments(0.0, 0.0), 300).square == pytest.approx(1.7)
        assert gain("leaky_relu", slope, z) == pytest.approx((1 + slope**2) / 2)


def test_relu_with_a_mean():
    """Closed forms at a ratio of 1: Phi(1) and phi(1)."""
    phi, density = 0.8413447460685429, 0.24197072451914337
    y = transformed("relu", 0.0, Moments(2.0, 8.0))
    assert y.mean == pytest.approx(2 * phi + 2 * density, rel=1e-14)
    assert y.square == pytest.approx(8 * phi + 4 * density, rel=1e-14)
    assert gain("relu", 0.0, Moments(2.0, 8.0)) == pytest.approx(phi, rel=1e-14)


def test_moments_after_a_linear_layer(rng):
    """Of many draws of a layer with weights, inputs and biases that all have a mean."""
    n, draws = 40, 20000
    x = rng.normal(0.5, 1.2, (draws, n))
    w = rng.normal(0.1, 0.3, (draws, n))
    z = (w * x).sum(axis=1) + rng.normal(-0.4, 0.7, draws)
    got = after_linear(
        Moments(0.5, 0.25 + 1.44), Moments(0.1, 0.01 + 0.09), Moments(-0.4, 0.16 + 0.49), n
    )
    assert z.mean() == pytest.approx(got.mean, abs=5 * got.std / math.sqrt(draws))
    assert z.std() == pytest.approx(got.std, rel=5 / math.sqrt(2 * draws))


@pytest.mark.parametrize("name", SATURATING)
def test_saturation(name, rng):
    edge = np.array([SATURATING[name]])
    assert act_derivative(name, edge)[0] == pytest.approx(0.1 * act_derivative(name, 0 * edge)[0])
    draws = rng.normal(1.0, 3.0, 100_000)
    want = (np.abs(draws) > edge).mean()
    assert saturation(name, Moments(1.0, 10.0)) == pytest.approx(want, abs=5 / math.sqrt(100_000))
    assert saturation(name, Moments(4.0, 16.0)) == 1.0
    assert saturation("relu", Moments(0.0, 1.0)) is None


def test_quadrature_sees_a_narrow_peak():
    """tanh' far narrower than the distribution: E tanh'^2 -> (4 / 3) density of z at 0."""
    std = 2000.0
    want = 4 / 3 / (std * math.sqrt(2 * math.pi))
    assert gain("tanh", 0.0, Moments(0.0, std**2)) == pytest.approx(want, rel=1e-5)
    assert expected(np.square, Moments(0.0, 1e20)) == pytest.approx(1e20)


def deep(activation, depth=8, width=600, **options):
    layers = []
    for n_in, n_out in zip([80] + [width] * depth, [width] * depth + [10], strict=True):
        layers += [fastnn.Linear(n_in, n_out, **options), activation()]
    return fastnn.Sequential(*layers[:-1], rng=3)


@pytest.mark.parametrize(
    "activation", [fastnn.ReLU, fastnn.LeakyReLU, fastnn.Tanh, fastnn.Sigmoid, fastnn.GELU]
)
def test_predicted_is_measured_in_wide_networks(activation, rng):
    """600 units a layer: chance leaves a few percent a layer."""
    model = deep(activation, bias_init="normal")
    X = rng.standard_normal((500, 80)) + 0.3
    y = rng.integers(0, 10, 500)
    report = model.report(X, y)
    for one in report.layers[:-1]:
        told = one.predicted
        assert one.z_std == pytest.approx(told.z_std, rel=0.2)
        assert one.y_std == pytest.approx(told.y_std, rel=0.2)
        assert one.y_mean == pytest.approx(told.y_mean, abs=0.2 * told.y_std)
        assert one.grad_std == pytest.approx(told.grad_std, rel=0.2)
        if told.saturated is not None:
            assert one.saturated == pytest.approx(told.saturated, abs=0.02)


def test_predict_signal_without_data():
    model = deep(fastnn.LeakyReLU)
    report = fastnn.predict_signal(model)
    assert report.batch.rows == 0
    assert report.layers[-1].predicted.grad_std == 1.0
    assert all(one.z_std is None and one.predicted.z_std > 0.5 for one in report.layers)
    assert report.layers[0].predicted.z_std == pytest.approx(math.sqrt(2), rel=0.02)
    assert report.healthy
    doubled = fastnn.predict_signal(model, std=2.0)
    assert doubled.layers[3].predicted.z_std == pytest.approx(
        2 * report.layers[3].predicted.z_std, rel=1e-6
    )
    for given in (report, doubled):
        assert "by theory" in str(given)
    with pytest.raises(ValueError, match="std: expected at least 0, got -1"):
        fastnn.predict_signal(model, std=-1)
    with pytest.raises(ValueError, match="model: expected at least one Linear layer, got none"):
        fastnn.predict_signal(fastnn.Sequential(fastnn.ReLU()))


def test_theory_tells_the_verdict_too():
    for init, kind in (("uniform", "vanishing"), ("zeros", "symmetry")):
        report = fastnn.predict_signal(deep(fastnn.ReLU, width=64, weight_init=init))
        assert [one.kind for one in report.problems] == [kind]


def test_theory_ends_where_it_does_not_apply():
    """After a Softmax, after an activation of an activation, after units that are all alike."""
    linear = fastnn.Linear
    models = {
        2: [linear(4, 8), fastnn.Softmax(), linear(8, 8), fastnn.ReLU(), linear(8, 2)],
        3: [linear(4, 8), fastnn.ReLU(), fastnn.Tanh(), linear(8, 8), linear(8, 2)],
        1: [linear(4, 8, weight_init="ones"), linear(8, 8), linear(8, 2)],
    }
    for end, layers in models.items():
        report = fastnn.predict_signal(fastnn.Sequential(*layers, rng=0))
        known = [one.index for one in report.layers if one.predicted.z_std is not None]
        assert known == [0], end
        assert report.layers[-1].predicted.grad_std == 1.0
        assert report.layers[0].predicted.grad_std is None
    dropped = fastnn.Sequential(
        linear(4, 8), fastnn.Dropout(0.5), fastnn.ReLU(), fastnn.Dropout(0.5), linear(8, 2), rng=0
    )
    plain = fastnn.Sequential(linear(4, 8), fastnn.ReLU(), linear(8, 2), rng=0)
    plain.load_state_dict({
        "0.weight": dropped[0].weight, "0.bias": dropped[0].bias,
        "2.weight": dropped[4].weight, "2.bias": dropped[4].bias,
    })  # fmt: skip
    a, b = fastnn.predict_signal(dropped), fastnn.predict_signal(plain)
    assert [one.predicted for one in a.layers] == [one.predicted for one in b.layers]
