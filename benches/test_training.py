"""Whole networks: answers and training steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fastnn.cli.bench_cases import CASES, Case

PREDICT = [case for case in CASES if case.name.startswith("predict")]
TRAIN = [case for case in CASES if case.name.startswith("train")]


def by_name(value: object) -> str:
    return getattr(value, "name", str(value)).replace(" ", "_").replace(",", "")


@pytest.mark.benchmark(max_time=0.5, min_rounds=5, warmup=True, warmup_iterations=3)
@pytest.mark.parametrize("form", ["fastnn", "numpy_out", "numpy"])
@pytest.mark.parametrize("case", PREDICT + TRAIN, ids=by_name)
def test_network(time_form: Callable[[Case, str], None], case: Case, form: str) -> None:
    time_form(case, form)


@pytest.mark.parametrize("case", PREDICT, ids=by_name)
def test_answers_agree(case: Case) -> None:
    forms = case.make("float32")
    assert forms.fastnn_out is not None
    want = forms.numpy()
    for got in (forms.fastnn(), forms.fastnn_out(), forms.numpy_out()):
        np.testing.assert_allclose(got, want, rtol=0, atol=case.tolerance * np.abs(want).max())


@pytest.mark.parametrize("case", TRAIN, ids=by_name)
def test_training_steps_agree(case: Case) -> None:
    """Loss after loss: the steps do the same to the parameters."""
    forms = case.make("float32")
    losses = np.array([[form() for form in forms[:3]] for _ in range(20)])
    np.testing.assert_allclose(losses[:, 0], losses[:, 1], rtol=case.tolerance)
    np.testing.assert_allclose(losses[:, 2], losses[:, 1], rtol=case.tolerance)
    assert (np.diff(losses, axis=0) < 0).all()
