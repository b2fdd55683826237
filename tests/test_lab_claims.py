"""Each claim of the lecture, over several seeds, and that each would fail if it were not so."""

from __future__ import annotations

import copy
import dataclasses
import math
import sys
import warnings

import numpy as np
import pytest

import fastnn
from fastnn._core.pointwise import act, act_derivative
from fastnn.diagnosis.theory import Moments, transformed
from fastnn.lab import bias, chance, depth, he, leaky, lecture, small, xavier, zeros
from fastnn.lab.parts import between, learns, learns_nothing, read
from fastnn.lab.passes import keep

CHEAP = [(module, seed) for module in (bias, zeros, lecture, leaky) for seed in range(1, 6)]
DEAR = [(module, seed) for module in (small, xavier, he, depth) for seed in range(1, 4)]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The bits are the same, and on a busy machine two threads wait for each other."""
    with fastnn.threads(1):
        yield


@pytest.fixture(scope="module")
def task():
    return read()


@pytest.fixture(scope="module")
def found(task):
    """What an experiment measures with seed 1, once for all tests: found(bias)."""
    cache = {}

    def measured(module, seed=1):
        if (module, seed) not in cache:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "the loss became", RuntimeWarning)
                needs_data = module not in (bias, lecture)
                cache[module, seed] = module.measure(*([task] if needs_data else []), seed)
        return cache[module, seed]

    return measured


def judged(module, task, measured):
    """The claims, by a task where they need it."""
    if module in (bias, lecture, depth):
        return module.claims(measured)
    return module.claims(task, measured)


def name(value):
    return value if isinstance(value, int) else value.__name__.rpartition(".")[2]


@pytest.mark.parametrize(("module", "seed"), CHEAP + DEAR, ids=name)
def test_every_claim_holds(module, seed, task, found):
    claims = judged(module, task, found(module, seed))
    assert len(claims) >= 5
    assert not [str(claim) for claim in claims if not claim.holds]


@pytest.mark.parametrize("module", [zeros, small, xavier, he, leaky, depth], ids=name)
def test_progress_comes_to_its_end(module, task, monkeypatch, capsys):
    """Each network is counted once; without training, which takes its time."""
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(fastnn.Sequential, "fit", untrained)
    few = dataclasses.replace(task, X=task.X[:40], y=task.y[:40])
    module.measure(few, 0, progress=True)
    last = capsys.readouterr().err.splitlines()[-1]
    done, total = last.partition(" networks: ")[0].split("/")
    assert done == total


def untrained(model, X, y, **options):
    model.history = fastnn.History(loss=[1.0], accuracy=[0.1])
    return model.history


def fails(module, task, measured, *words):
    """Exactly the claims that say one of these words fail."""
    for claim in judged(module, task, measured):
        assert claim.holds != any(word in claim.says for word in words), str(claim)


# A claim fails when what was measured is not what it says.


def test_bias_claims_can_fail(task, found):
    good = found(bias)
    curves = dict(good.curves) | {3.0: good.curves[0.0]}
    fails(bias, task, dataclasses.replace(good, curves=curves), "sideways")
    zeros_ = good.zeros | {False: np.full(2, 1e-30)}
    fails(bias, task, dataclasses.replace(good, zeros=zeros_), "Without bias the answer")
    zeros_ = good.zeros | {True: good.zeros[True] + 1e-6}
    fails(bias, task, dataclasses.replace(good, zeros=zeros_), "learns to answer")
    slope, intercept, loss = good.fits[True]
    fits = good.fits | {True: (slope, intercept + 1e-6, loss)}
    fails(bias, task, dataclasses.replace(good, fits=fits), "a line's m")
    fits = good.fits | {False: good.fits[True]}
    fails(bias, task, dataclasses.replace(good, fits=fits), "best line through")


def test_zero_claims_can_fail(task, found):
    good = found(zeros)

    def with_losses(**changed):
        losses = good.losses | {name.replace("_", " "): value for name, value in changed.items()}
        return dataclasses.replace(good, losses=losses)

    def with_weights(start, change):
        weights = copy.deepcopy(good.weights)
        change(weights[start][0])
        return dataclasses.replace(good, weights=weights)

    def one(weight):
        weight[3, 5] += 1e-9

    def copies(weight):
        weight[1] = weight[0]

    fails(zeros, task, with_weights("zero, with bias", one), "never change")
    fails(zeros, task, with_weights("equal", one), "stay identical")
    fails(zeros, task, with_weights("random ±0.1", copies), "break the symmetry")
    off = [loss + 1e-6 for loss in good.losses["one unit"]]
    fails(zeros, task, with_losses(one_unit=off), "what one unit")
    low = [2.3, 2.2]
    high = [math.log(10), math.log(10) + 0.002]
    for wrong in (low, high):
        losses = good.losses | {"zero, with bias": wrong}
        fails(zeros, task, dataclasses.replace(good, losses=losses), "how frequent")
    fails(zeros, task, dataclasses.replace(good, losses=good.losses | {"zero, no bias": low}),
          "stays where it starts")  # fmt: skip
    flat = good.losses["zero, no bias"]
    fails(zeros, task, dataclasses.replace(good, losses=good.losses | {"random ±0.1": flat}),
          "And they learn")  # fmt: skip


def test_claims_on_small_weights_can_fail(task, found):
    good = found(small)
    # Weights of a tenth more: the critical fan_in is a fifth less.
    sweep = {
        key: (widths, [growth + math.log(1.1) for growth in logs])
        for key, (widths, logs) in good.sweep.items()
    }
    fails(small, task, dataclasses.replace(good, sweep=sweep), "is critical")
    swapped = dataclasses.replace(good, shallow=good.deep, deep=good.shallow)
    fails(small, task, swapped, "one hidden layer", "learn nothing")
    other = copy.copy(good.deep)
    he_networks = fastnn.compare_inits(
        [64] + [64] * 20 + [10], task.X[:100], task.y[:100], inits=["he_normal"], epochs=1, rng=0
    )
    measured = he_networks.reports["he_normal"]
    other.reports = {key: with_theory_of(measured, one) for key, one in good.deep.reports.items()}
    fails(small, task, dataclasses.replace(good, deep=other), "vanishes")
    fails(small, task, dataclasses.replace(good, wide=good.shallow), "diverge")


def with_theory_of(measured, other):
    """A report with the figures of one network and the predictions for another."""
    made = copy.copy(measured)
    made.layers = tuple(
        dataclasses.replace(one, predicted=two.predicted)
        for one, two in zip(measured.layers, other.layers, strict=True)
    )
    return made


def test_critical_fan_in_is_the_lectures():
    assert small.critical(1.0) == pytest.approx(300)
    assert small.critical(0.01) == pytest.approx(600 / 1.0001)
    assert small.critical(0.5) == pytest.approx(480)


@pytest.mark.parametrize(("slope", "fan_in"), [(1.0, 300), (0.01, 600), (0.5, 480)])
def test_the_signal_neither_shrinks_nor_grows_at_the_critical_fan_in(slope, fan_in):
    """Its growth is 1 there, by the chance of twelve draws; and not at 3/4 and 4/3 of it."""
    draws, steps = 12, small.SWEEP_LAYERS - 1
    kurtosis = 6 * (1 + slope**4) / (1 + slope**2) ** 2 - 1

    def growth(width):
        return np.mean([small.growth(slope, width, seed) for seed in range(100, 100 + draws)])

    for width, factor in ((fan_in, 1.0), (fan_in * 3 // 4, 0.75), (fan_in * 4 // 3, 4 / 3)):
        s = (steps * kurtosis + 4) / width
        reach = 4 * math.sqrt(s / draws) / 2 / steps
        assert reach < abs(math.log(0.75)) / 4, "or the test could not tell them apart"
        low, high = math.log(factor) / 2 - reach - s / 4 / steps, math.log(factor) / 2 + reach
        assert low < growth(width) < high


def test_lecture_claims_can_fail(task, found):
    good = found(lecture)
    fails(lecture, task, dataclasses.replace(good, size=40), "shapes")
    fails(lecture, task, dataclasses.replace(good, z2=good.z2 + 1e-4), "as worked out")
    for key in lecture.DRAWN:
        variances = good.variances | {key: good.variances[key] * 1.07}
        words = lecture.NAMES.get(key, key) + " draws"
        fails(lecture, task, dataclasses.replace(good, variances=variances), words)


def test_xavier_claims_can_fail(task, found):
    good = found(xavier)

    def with_report(function, start, measured):
        reports = copy.deepcopy({key: dict(value) for key, value in good.reports.items()})
        reports[function][start] = with_theory_of(measured, good.reports[function][start])
        return dataclasses.replace(good, reports=reports)

    tanh, sigmoid = good.reports["tanh"], good.reports["sigmoid"]
    fails(xavier, task, with_report("tanh", "too small", tanh["Xavier"]), "too small: ")
    fails(xavier, task, with_report("tanh", "Xavier", tanh["too small"]), ", Xavier: ")
    fails(xavier, task, with_report("tanh", "too large", tanh["Xavier"]),
          "tanh, too large: share", "tanh, too large: grad")  # fmt: skip
    fails(xavier, task, with_report("sigmoid", "too large", sigmoid["Xavier"]),
          "sigmoid, too large")  # fmt: skip
    fails(xavier, task, with_report("sigmoid", "Xavier", sigmoid["too small"]),
          "lose their gradients")  # fmt: skip
    other = copy.copy(good.tanh)
    other.histories = {
        "too small": good.tanh.histories["Xavier"], "Xavier": good.tanh.histories["too small"],
        "too large": good.tanh.histories["Xavier"],
    }  # fmt: skip
    fails(xavier, task, dataclasses.replace(good, tanh=other), "tanh learn")
    worse = copy.copy(good.sigmoid)
    worse.histories = good.sigmoid.histories | {"too large": good.tanh.histories["Xavier"]}
    fails(xavier, task, dataclasses.replace(good, sigmoid=worse), "learns most")


def test_he_claims_can_fail(task, found):
    good = found(he)
    swapped = {}
    for key, comparison in good.found.items():
        other = copy.copy(comparison)
        other.reports = {
            he.HE: comparison.reports[he.XAVIER], he.XAVIER: comparison.reports[he.HE],
        }  # fmt: skip
        other.histories = {
            he.HE: comparison.histories[he.XAVIER], he.XAVIER: comparison.histories[he.HE],
        }  # fmt: skip
        swapped[key] = other
    claims = he.claims(task, he.Measured(swapped))
    # 22 layers do learn from Xavier, so that they pass for those from He, which come too soon.
    still = {"ReLU, 22 layers learn from He", "Leaky ReLU, 22 layers learn from He"}
    assert {claim.says for claim in claims if claim.holds} == still


def test_who_begins_to_learn_when(task):
    """Each of two networks may begin too soon, too late, or not at all."""
    for epoch, than, must, holds in (
        (5, 1, True, True), (1, 1, True, False), (None, 1, True, False), (5, None, True, False),
        (9, 5, False, True), (None, 5, False, True), (5, 5, False, False), (4, 5, False, False),
        (None, None, False, False), (None, he.EPOCHS, False, True),
    ):  # fmt: skip
        assert he._begins_later("x", epoch, than, must).holds is holds, (epoch, than, must)
    h = task.entropy
    lucky, learnt = h * (1 - 0.9 * task.luck), h * (1 - 1.1 * task.luck)
    assert task.begins([learnt, h, lucky, learnt, h]) == 3
    assert task.begins([learnt, h, lucky]) is None


def test_luck_is_what_answers_without_the_images_may_gain(task):
    """The definition of learning: 4,000 sets of answers that know nothing, and one that does.

    Of confident answers more is lost than won, of timid ones little is won; none comes above.
    """
    m, p = len(task.y), np.bincount(task.y) / len(task.y)
    assert task.luck == pytest.approx(math.log(16_000) / m / task.entropy)
    assert math.erfc(4 / math.sqrt(2)) == pytest.approx(1 / 16_000, rel=0.02)
    rng = np.random.default_rng(0)
    for size in (0.01, 0.03, 0.1, 1.0):
        for _ in range(1000):
            z = np.log(p) + size * rng.standard_normal((m, 10))
            z -= np.log(np.exp(z).sum(axis=1, keepdims=True))
            assert task.learnt(-z[np.arange(m), task.y].mean()) <= task.luck
    assert learns("x", task, task.entropy * (1 - 1.1 * task.luck)).holds
    assert not learns("x", task, task.entropy * (1 - 0.9 * task.luck)).holds
    assert not learns("x", task, math.nan).holds
    assert learns_nothing("x", task, task.entropy * (1 - 0.9 * task.luck)).holds
    assert not learns_nothing("x", task, task.entropy * (1 - 1.1 * task.luck)).holds


def test_the_noise_of_the_last_bias(task):
    """The loss of which only the bias learns, over 20 orders of the rows."""
    p = np.bincount(task.y) / len(task.y)
    excess = []
    for seed in range(20):
        model = fastnn.Sequential(
            fastnn.Linear(1, 10, weight_init="zeros", dtype="float64"), rng=seed
        )
        zero = np.zeros((len(task.y), 1))
        model.fit(zero, task.y, loss="cross_entropy", optimizer=fastnn.SGD(zeros.RATE), epochs=30,
                  batch_size=zeros.BATCH, rng=seed)  # fmt: skip
        loss = model.evaluate(zero, task.y, loss="cross_entropy")["loss"]
        excess.append(loss - task.entropy)
    mean = zeros.RATE / (4 * zeros.BATCH) * (1 - (p * p).sum())
    assert max(excess) < zeros._noise(task)
    # Without replacement the noise is less: what one batch has too many of, others lack.
    assert 0.1 * mean < np.mean(excess) < mean * (1 + 4 * math.sqrt(2 / 9 / 20))


def test_leaky_claims_can_fail(task, found):
    good = found(leaky)

    def course(key, **changes):
        changed = good.courses | {key: dataclasses.replace(good.courses[key], **changes)}
        return dataclasses.replace(good, courses=changed)

    f = good.f | {"Leaky ReLU, a = 0.01": good.f["ReLU"]}
    fails(leaky, task, dataclasses.replace(good, f=f), "f(x) = x")
    derivative = copy.deepcopy(good.derivative)
    derivative["Leaky ReLU, a = 0.01"][300] = 1  # at 0
    fails(leaky, task, dataclasses.replace(good, derivative=derivative), "f(x) = x")
    fails(leaky, task, dataclasses.replace(good, killing=good.gentle), "kills")
    fails(leaky, task, course("ReLU", changed=good.dead), "Dead ReLU")
    fails(leaky, task, course("Leaky ReLU, a = 0.01", with_gradient=~good.dead), "have a gradient")
    fails(leaky, task, course("Leaky ReLU, a = 0.1", still_dead=good.dead), "some come back")
    losses = good.courses["ReLU"].losses
    fails(leaky, task, course("Leaky ReLU, a = 0.1", losses=[loss + 0.01 for loss in losses]),
          "learns more")  # fmt: skip


def test_a_dead_relu_layer_never_comes_back_whatever_the_seed(task):
    """Exact, not by chance: no gradient, no change."""
    for seed in range(3):
        model = leaky._network(task, fastnn.ReLU(), seed)
        model[0].bias[:20] = -100.0
        before = model[0].weight[:20].copy(), model[0].bias[:20].copy()
        leaky._trained(task, model, 0.1, 3, seed)
        np.testing.assert_array_equal(model[0].weight[:20], before[0])
        np.testing.assert_array_equal(model[0].bias[:20], before[1])


def test_depth_claims_can_fail(task, found):
    good = found(depth)
    for key, starts in good.reports.items():
        for start, reports in starts.items():
            if start == "zeros":
                other = starts["normal(0, 0.01)"]
            else:
                # The measured ones of networks whose weights are a tenth larger in each layer.
                other = [scaled(report, 1.1) for report in reports]
            changed = good.reports | {key: starts | {start: other}}
            fails(depth, task, depth.Measured(changed), f"{key}, {start}:")


def test_what_is_farthest_off_is_told_as_it_is_judged():
    """Not the largest deviation but the one that chance allows least; more is allowed below."""

    def way(*measured):
        low, high = np.array([1, 0.9, 0.1]), np.array([1, 1.2, 5])
        return depth.Way(np.array(measured), np.ones(3), low, high)

    below = way(1, 1, 0.125)
    assert below.holds
    assert below.farthest() == (pytest.approx(8), pytest.approx(10))
    early = way(1, 1.3, 2)
    assert not early.holds
    assert early.farthest() == (pytest.approx(1.3), pytest.approx(1.2))
    assert way(1, 1, 1).farthest()[0] == 1
    assert not way(1.01, 1, 1).holds
    assert way(1.01, 1, 1).farthest() == (pytest.approx(1.01), 1)


def scaled(report, factor):
    """As if each layer multiplied signal and gradient by that factor more."""
    made = copy.copy(report)
    n = len(report.layers)
    made.layers = tuple(
        dataclasses.replace(
            one, z_std=one.z_std * factor**i, grad_std=one.grad_std * factor ** (n - i)
        )
        for i, one in enumerate(report.layers)
    )
    return made


# How far chance may lead.


@pytest.mark.parametrize(
    ("function", "slope"),
    [("identity", 0.0), ("relu", 0.0), ("leaky_relu", 0.3), ("tanh", 0.0), ("sigmoid", 0.0)],
)
@pytest.mark.parametrize("derivative", [False, True])
def test_excess_is_that_of_random_numbers(function, slope, derivative, rng):
    z = rng.normal(0.0, 1.3, 2_000_000)
    values = act(function, z, slope)
    if derivative:
        values = act_derivative(function, z, slope) * rng.standard_normal(z.size)
    squares = values**2
    want = (squares**2).mean() / squares.mean() ** 2 - 1
    got = chance.excess(function, slope, Moments(0.0, 1.69), derivative)
    # A fourth moment of so many numbers is known to about its eighth's root over their root.
    error = math.sqrt((squares**4).mean()) / (squares**2).mean() / math.sqrt(z.size)
    assert got == pytest.approx(want, abs=5 * error * (1 + want))
    assert error < 0.02


@pytest.mark.parametrize("activation", [fastnn.ReLU, fastnn.Tanh, lambda: fastnn.LeakyReLU(0.3)])
def test_networks_spread_as_much_as_chance_says(activation):
    """300 draws of a network of 6 layers, one row: the variance of log z^2 is S."""
    draws, width = 300, 64
    x = np.ones((1, 40), np.float32)
    logs = []
    for seed in range(draws):
        layers = []
        for n_in in (40, *[width] * 5):
            layers += [fastnn.Linear(n_in, width, bias=False), activation()]
        model = fastnn.Sequential(*layers, rng=seed)
        z, squares = x, []
        for layer in model:
            z = layer(z)
            if isinstance(layer, fastnn.Linear):
                squares.append(np.square(z, dtype=float).mean())
        logs.append(np.log(squares))
    s = chance.forward(model.report(x).layers)
    measured = np.var(logs, axis=0)
    # A variance of `draws` normal numbers is known to sqrt(2 / draws) of it; and S is of first
    # order in 1 / width.
    for got, want in zip(measured, s, strict=True):
        assert got == pytest.approx(want, rel=4 * math.sqrt(2 / draws) + want)
    means = np.mean(logs, axis=0) - np.log(theory_of(model))
    for mean, want in zip(means, s, strict=True):
        reach = 4 * math.sqrt(want / draws)
        assert -want / 2 - reach - want**2 <= mean <= reach


def theory_of(model):
    """The mean square of z over all draws, from the variances that were asked for."""
    z, squares = Moments(0.0, 1.0), []
    for linear, activation in zip(model.layers[::2], model.layers[1::2], strict=True):
        n_in, n_out = linear.in_features, linear.out_features
        if isinstance(activation, fastnn.Tanh):
            variance = 2 / (n_in + n_out)
        else:
            variance = 2 / ((1 + activation.negative_slope**2) * n_in)
        z = Moments(0.0, n_in * variance * z.square)
        squares.append(z.square)
        z = transformed(activation.name, activation.negative_slope, z)
    return squares


def test_bands():
    assert chance.band(0.0) == (1.0, 1.0)
    low, high = chance.band(0.04)
    assert (low, high) == (pytest.approx(math.exp(-0.41)), pytest.approx(math.exp(0.4)))
    assert chance.band(0.04, 4)[1] == pytest.approx(math.exp(0.2))


# Parts.


def test_kept_arrays_are_numpys(task):
    model = fastnn.Sequential(
        fastnn.Linear(64, 20, dtype="float64"), fastnn.Tanh(),
        fastnn.Linear(20, 15, dtype="float64"), fastnn.LeakyReLU(0.1),
        fastnn.Linear(15, 10, dtype="float64"), rng=0,
    )  # fmt: skip
    X, y = task.X[:50].astype(np.float64), task.y[:50]
    first, second, third = keep(model, X, y)
    w = [layer.weight for layer in model.layers[::2]]
    z1 = X @ w[0].T
    y1 = np.tanh(z1)
    z2 = y1 @ w[1].T
    y2 = np.where(z2 > 0, z2, 0.1 * z2)
    z3 = y2 @ w[2].T
    p = np.exp(z3) / np.exp(z3).sum(axis=1, keepdims=True)
    g3 = (p - np.eye(10)[y]) / 50
    g2 = g3 @ w[2] * np.where(z2 > 0, 1, 0.1)
    g1 = g2 @ w[1] * (1 - y1**2)
    for kept, wanted in ((first, (z1, y1, g1)), (second, (z2, y2, g2)), (third, (z3, z3, g3))):
        for got, want in zip(kept, wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-14)


def test_the_task_is_scaled_and_its_entropy_known(task):
    np.testing.assert_allclose(np.square(task.X).mean(axis=1), 1, rtol=1e-5)
    assert task.classes == 10
    assert task.of == len(task.y) == 1797
    assert 2.30 < task.entropy <= math.log(10)
    even = dataclasses.replace(task, y=np.arange(100) % 4, X=task.X[:100])
    assert even.entropy == pytest.approx(math.log(4))
    assert even.learnt(even.entropy) == pytest.approx(0)
    assert even.learnt(0.0) == 1
    # Gibbs: who knows the frequencies only, cannot do better than the entropy.
    p = np.bincount(task.y) / len(task.y)
    assert -np.log(p[task.y]).mean() == pytest.approx(task.entropy)


def test_a_claim_in_words():
    claim = between("Size", 0.25, 0.2, 0.3, "m")
    assert str(claim) == "holds  Size: 0.25 m (expected: 0.2 to 0.3 m)"
    assert str(between("Size", 0.5, -math.inf, 0.3)) == "FAILS  Size: 0.5 (expected: at most 0.3)"
    assert not between("Size", math.nan, 0, 1).holds
    assert between("Size", math.nan, 0, 1).measured == "not a number"
    assert between("Size", 3e-9, 1e-9, math.inf).expected == "at least 1e-09"
