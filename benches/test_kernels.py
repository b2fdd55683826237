"""Each kernel in fastnn, in NumPy's best form with `out=`, and in plain NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fastnn.cli.bench_cases import CASES, Case

KERNELS = [case for case in CASES if not case.name.startswith(("predict", "train"))]


def by_name(value: object) -> str:
    return getattr(value, "name", str(value)).replace(" ", "_").replace(",", "")


@pytest.mark.benchmark(max_time=0.3, min_rounds=5, warmup=True, warmup_iterations=3)
@pytest.mark.parametrize("form", ["fastnn", "numpy_out", "numpy"])
@pytest.mark.parametrize("case", KERNELS, ids=by_name)
def test_kernel(time_form: Callable[[Case, str], None], case: Case, form: str) -> None:
    time_form(case, form)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", KERNELS, ids=by_name)
def test_forms_agree(case: Case, dtype: str) -> None:
    forms = case.make(dtype)
    want = forms.numpy()
    for form in (forms.fastnn, forms.fastnn_out, forms.numpy_out):
        if form is None:
            continue
        got = form()
        parts = zip(got, want, strict=True) if isinstance(want, tuple) else [(got, want)]
        for a, b in parts:
            if case.tolerance == 0:
                assert_alike(a, b)
            else:
                np.testing.assert_allclose(a, b, rtol=0, atol=case.tolerance * np.abs(b).max())
            assert np.asarray(a).shape == np.asarray(b).shape
            assert not isinstance(a, np.ndarray) or a.dtype == dtype


def assert_alike(a: np.ndarray, b: np.ndarray) -> None:
    """Two samples of one distribution: mean and standard deviation within six standard errors."""
    error = 6 * b.std() / np.sqrt(len(b))
    assert abs(a.mean() - b.mean()) < 1.5 * error
    assert abs(a.std() - b.std()) < 1.5 * error
    assert len(np.unique(a[:1000])) > 990
