"""Losses: values against the formulas in long double, central differences, bad input."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
from gradients import assert_gradient, numeric_gradient
from oracle import WIDE, same_bits

import fastnn
from fastnn.losses import NAMES, as_loss

LOSSES = [
    fastnn.CrossEntropy(),
    fastnn.BinaryCrossEntropy(),
    fastnn.MSE(),
    fastnn.MAE(),
    fastnn.Huber(),
    fastnn.Huber(0.3),
]
ELEMENTWISE = LOSSES[1:]


def formula(loss, y, target, weight=None):
    """The mean of w_i l_i, in long double."""
    y = y.astype(WIDE)
    if isinstance(loss, fastnn.CrossEntropy):
        shifted = y - y.max(axis=1, keepdims=True)
        rows = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(y)), target]
    else:
        t = target.astype(WIDE)
        d = y - t
        if isinstance(loss, fastnn.BinaryCrossEntropy):
            each = np.maximum(y, 0) - y * t + np.log1p(np.exp(-np.abs(y)))
        elif isinstance(loss, fastnn.MSE):
            each = d * d
        elif isinstance(loss, fastnn.MAE):
            each = np.abs(d)
        else:
            delta = loss.delta
            each = np.where(np.abs(d) <= delta, d * d / 2, delta * (np.abs(d) - delta / 2))
        rows = each.mean(axis=1)
    return float((rows if weight is None else rows * weight).mean())


def example(loss, rng, m=7, n=5, dtype="float64"):
    y = (2 * rng.standard_normal((m, n))).astype(dtype)
    if isinstance(loss, fastnn.CrossEntropy):
        return y, rng.integers(0, n, m)
    target = rng.random((m, n)).astype(dtype)
    return y, target


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("weighted", [False, True])
def test_value_and_gradient(loss, weighted, rng, isa):
    y, target = example(loss, rng)
    weight = rng.random(len(y)) if weighted else None
    value, grad = loss(y, target, weight)
    assert isinstance(value, float)
    assert math.isclose(value, formula(loss, y, target, weight), rel_tol=1e-13)
    assert_gradient(grad, numeric_gradient(lambda: loss(y, target, weight)[0], y))


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_float32_is_float64_rounded(loss, rng, isa):
    y, target = example(loss, rng, m=40, n=11, dtype="float32")
    value, grad = loss(y, target)
    wide_target = target if target.dtype == np.int64 else target.astype(np.float64)
    wide_value, wide_grad = loss(y.astype(np.float64), wide_target)
    eps = float(np.finfo(np.float32).eps)
    assert grad.dtype == np.float32
    assert math.isclose(value, wide_value, rel_tol=8 * eps)
    np.testing.assert_allclose(grad, wide_grad, rtol=0, atol=8 * eps / len(y))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_losses_are_stable_far_out(dtype, isa):
    top = np.array([[1000, 0, -1000], [-1000, 0, 1000]], dtype)
    value, grad = fastnn.CrossEntropy()(top, [0, 0])
    assert value == 1000.0
    np.testing.assert_array_equal(grad, np.array([[0, 0, 0], [-1, 0, 1]]) / 2)
    value, grad = fastnn.BinaryCrossEntropy()(np.array([[1000], [-1000]], dtype), [1, 1])
    assert value == 500.0
    np.testing.assert_array_equal(grad, [[0], [-0.5]])


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_a_nan_stays_in_its_row(loss, rng):
    y, target = example(loss, rng)
    y[2, 1] = np.nan
    value, grad = loss(y, target)
    assert math.isnan(value)
    assert np.isnan(grad[2]).any()
    assert np.isfinite(np.delete(grad, 2, axis=0)).all()


def test_the_kinks():
    y = np.array([[1.0, 2.0, 3.0]])
    assert fastnn.MAE()(y, y)[1].tolist() == [[0, 0, 0]]
    _, grad = fastnn.Huber(1.0)(y, [[2.0, 2.0, 1.0]])
    np.testing.assert_allclose(grad, [[-1 / 3, 0, 1 / 3]])


@pytest.mark.parametrize("loss", ELEMENTWISE, ids=repr)
def test_one_output_takes_a_flat_target(loss, rng):
    y, target = example(loss, rng, n=1)
    flat, column = loss(y, target[:, 0]), loss(y, target)
    assert flat[0] == column[0]
    assert same_bits(flat[1], column[1])


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_strided_and_read_only_arrays_are_taken(loss, rng):
    y, target = example(loss, rng)
    want = loss(y, target)
    wide = np.empty((2 * len(y), y.shape[1]))[::2]
    wide[...] = y
    wide.flags.writeable = False
    got = loss(wide, np.asfortranarray(target))
    assert got[0] == want[0]
    assert same_bits(got[1], want[1])


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_a_loss_does_not_depend_on_the_number_of_threads(loss, rng, isa, set_threads):
    y, target = example(loss, rng, m=3000, n=7, dtype="float32")
    weight = rng.random(len(y))
    results = []
    for n in (1, 2, 5):
        set_threads(n)
        results.append(loss(y, target, weight))
    for value, grad in results[1:]:
        assert value == results[0][0]
        assert same_bits(grad, results[0][1])


def test_names_repr_and_copies():
    assert [repr(as_loss(name)) for name in NAMES] == [
        "CrossEntropy()",
        "BinaryCrossEntropy()",
        "MSE()",
        "MAE()",
        "Huber(1)",
    ]
    for loss in LOSSES:
        for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
            assert other.spec == loss.spec


Y = np.zeros((4, 3))
BAD = [
    (fastnn.CrossEntropy(), Y, [0, 1, 2, 3], ValueError, r"target: expected labels in \[0, 3\)"),
    (fastnn.CrossEntropy(), Y, [0, 1, 2, -1], ValueError, "target: .* got -1 at index 3"),
    (fastnn.CrossEntropy(), Y, [0, 1], ValueError, r"target: expected shape \(4,\), got \(2,\)"),
    (fastnn.CrossEntropy(), Y, Y, TypeError, "target: expected integer labels, got dtype float64"),
    (fastnn.CrossEntropy(), Y, np.eye(4, 3, dtype=int), ValueError, "target: expected shape"),
    (fastnn.CrossEntropy(), Y[:, :1], [0, 0, 0, 0], ValueError, "an output for each class"),
    (fastnn.CrossEntropy(), Y[0], [0], ValueError, r"y: expected shape \(m, n\)"),
    (fastnn.CrossEntropy(), Y[:0], np.zeros(0, int), ValueError, "y: .*at least one row"),
    (fastnn.MSE(), Y, Y[:, :2], ValueError, r"target: expected shape \(4, 3\), got \(4, 2\)"),
    (fastnn.MSE(), Y, np.zeros(4), ValueError, r"target: expected shape \(4, 3\), got \(4,\)"),
    (fastnn.MSE(), Y[:, :1], np.zeros(3), ValueError, r"\(4, 1\) or \(4,\), got \(3, 1\)"),
    (fastnn.MSE(), Y, np.full((4, 3), np.nan), ValueError, "target: .*finite.* nan in row 0"),
    (fastnn.MAE(), Y, np.full((4, 3), np.inf), ValueError, "target: .*finite.* inf in row 0"),
    (fastnn.MAE(), Y, Y + 1j, TypeError, "target: expected real numbers"),
    (fastnn.MAE(), Y, "text", TypeError, "target"),
    (fastnn.MAE(), Y.astype(int), Y, TypeError, "y: expected dtype float32 or float64"),
    (fastnn.BinaryCrossEntropy(), Y, Y + 1.5, ValueError, r"values in \[0, 1\], got 1.5 in row 0"),
    (fastnn.BinaryCrossEntropy(), Y, Y - 0.5, ValueError, r"values in \[0, 1\], got -0.5"),
]


@pytest.mark.parametrize(("loss", "y", "target", "error", "message"), BAD)
def test_bad_targets_are_refused(loss, y, target, error, message):
    with pytest.raises(error, match=message):
        loss(y, target)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1, 1, 1], r"sample_weight: expected shape \(4,\), got \(3,\)"),
        ([1, 1, -1, 1], "sample_weight: expected at least 0, got -1 in row 2"),
        ([1, np.nan, 1, 1], "sample_weight: expected finite numbers, got nan in row 1"),
        ([0, 0, 0, 0], "sample_weight: expected at least one above 0"),
    ],
)
def test_bad_weights_are_refused(weight, message):
    with pytest.raises(ValueError, match=message):
        fastnn.MSE()(Y, Y, weight)


@pytest.mark.parametrize("delta", [0, -1, math.nan, math.inf])
def test_a_delta_that_is_not_above_0_is_refused(delta):
    with pytest.raises(ValueError, match="delta: expected"):
        fastnn.Huber(delta)


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="loss: expected one of cross_entropy, .*, got 'nll'"):
        as_loss("nll")
    with pytest.raises(TypeError, match="loss: expected a loss such as"):
        as_loss(fastnn.MSE)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (1e39, "sample_weight: expected numbers that float32 can hold, got 1e\\+39 in row 0"),
        (1e-50, "sample_weight: expected a number that float32 can tell from 0, got at most 1e-50"),
    ],
)
def test_weights_that_the_dtype_cannot_hold_are_refused(weight, message):
    with pytest.raises(ValueError, match=message):
        fastnn.MSE()(Y.astype(np.float32), Y, np.full(4, weight))
    assert fastnn.MSE()(Y + 1, Y, np.full(4, weight))[0] == pytest.approx(weight)


def test_a_target_that_the_dtype_cannot_hold_is_refused_without_a_warning():
    with pytest.raises(ValueError, match="target: expected numbers that float32 can hold, got 1e"):
        fastnn.MSE()(Y.astype(np.float32), np.full((4, 3), 1e300))
