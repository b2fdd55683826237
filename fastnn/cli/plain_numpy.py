"""The same training in plain NumPy, as its author would write it for speed: the demo's yardstick.

float32 throughout, `out=` wherever NumPy has it, flat buffers for parameters, gradients and Adam's
moments, so that the update is a handful of passes. Weights are (n_in, n_out) here.
"""

import itertools

import numpy as np


class PlainNetwork:
    """Linear layers with LeakyReLU between them, cross-entropy and Adam, for one batch size."""

    def __init__(
        self,
        weights: list[np.ndarray],
        biases: list[np.ndarray],
        batch_size: int,
        *,
        negative_slope: float = 0.01,
        lr: float = 1e-3,
    ) -> None:
        self.slope, self.lr, self.step_count = negative_slope, lr, 0
        sizes = [weights[0].shape[0]] + [len(b) for b in biases]
        count = sum(w.size for w in weights) + sum(b.size for b in biases)
        self.parameters, self.gradients, self.mean, self.square, self.work = (
            np.zeros(count, np.float32) for _ in range(5)
        )
        self.w, self.b = _views(self.parameters, sizes)
        self.grad_w, self.grad_b = _views(self.gradients, sizes)
        for view, value in zip(self.w + self.b, weights + biases, strict=True):
            view[...] = value
        self.rows = np.empty((batch_size, sizes[0]), np.float32)
        self.outputs = [np.empty((batch_size, n), np.float32) for n in sizes[1:]]
        self.scratch = [np.empty((batch_size, n), np.float32) for n in sizes[1:]]

    def epoch(self, x: np.ndarray, labels: np.ndarray, scale: float, order: np.ndarray) -> float:
        """Train on the rows of x (uint8, multiplied by scale) in the given order; the mean loss."""
        total = 0.0
        size = len(self.rows)
        for start in range(0, len(order), size):
            index = order[start : start + size]
            rows = self.rows[: len(index)]
            np.multiply(x[index], np.float32(scale), out=rows)
            total += self.step(rows, labels[index])
        return total / len(order)

    def step(self, x: np.ndarray, labels: np.ndarray) -> float:
        """One minibatch: forward, loss, backward, Adam. Returns the sum of the row losses."""
        m = len(x)
        a = x
        inputs = []
        for layer, (w, b) in enumerate(zip(self.w, self.b, strict=True)):
            inputs.append(a)
            a, scratch = self.outputs[layer][:m], self.scratch[layer][:m]
            np.matmul(inputs[-1], w, out=a)
            a += b
            if layer < len(self.w) - 1:
                np.multiply(a, np.float32(self.slope), out=scratch)
                np.maximum(a, scratch, out=a)  # LeakyReLU for slopes in [0, 1]
        a -= a.max(axis=1, keepdims=True)
        picked = a[np.arange(m), labels]
        np.exp(a, out=a)
        sums = a.sum(axis=1, keepdims=True)
        loss = float((np.log(sums[:, 0]) - picked).sum())
        a /= sums
        a[np.arange(m), labels] -= 1
        a /= np.float32(m)
        grad = a
        for layer in reversed(range(len(self.w))):
            np.matmul(inputs[layer].T, grad, out=self.grad_w[layer])
            np.sum(grad, axis=0, out=self.grad_b[layer])
            if layer:
                below = self.scratch[layer - 1][:m]
                np.matmul(grad, self.w[layer].T, out=below)
                np.multiply(below, np.float32(self.slope), out=below, where=inputs[layer] <= 0)
                grad = below
        self._adam()
        return loss

    def _adam(self, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        self.step_count += 1
        g, work = self.gradients, self.work
        self.mean *= np.float32(beta1)
        np.multiply(g, np.float32(1 - beta1), out=work)
        self.mean += work
        self.square *= np.float32(beta2)
        np.multiply(g, g, out=work)
        work *= np.float32(1 - beta2)
        self.square += work
        np.sqrt(self.square, out=work)
        work *= np.float32(1 / np.sqrt(1 - beta2**self.step_count))
        work += np.float32(eps)
        np.divide(self.mean, work, out=work)
        work *= np.float32(self.lr / (1 - beta1**self.step_count))
        self.parameters -= work


def _views(flat: np.ndarray, sizes: list[int]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    weights, biases, offset = [], [], 0
    for n_in, n_out in itertools.pairwise(sizes):
        weights.append(flat[offset : offset + n_in * n_out].reshape(n_in, n_out))
        offset += n_in * n_out
        biases.append(flat[offset : offset + n_out])
        offset += n_out
    return weights, biases
