"""A small network to train, and data that it can learn."""

from __future__ import annotations

import numpy as np

import fastnn

M, N_IN, CLASSES = 150, 20, 4


def learnable():
    """Inputs and labels that a small network can learn."""
    rng = np.random.default_rng(5)
    X = rng.standard_normal((M, N_IN)).astype(np.float32)
    return X, np.argmax(X @ rng.standard_normal((N_IN, CLASSES)), axis=1)


def network(*extra, n_out=CLASSES, dtype="float32", rng=0, width=16):
    return fastnn.Sequential(
        fastnn.Linear(N_IN, width, dtype=dtype),
        fastnn.LeakyReLU(),
        *extra,
        fastnn.Linear(width, n_out, dtype=dtype),
        rng=rng,
    )


def bits(model):
    return model._parameters.tobytes()


def fit(model, X, y, **options):
    defaults = {"loss": "cross_entropy", "optimizer": "adam", "epochs": 3, "rng": 1}
    return model.fit(X, y, **(defaults | options))
