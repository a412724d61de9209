"""Designed inputs: weights, samples and labels on which a mistake shows.

Glorot weights and non-zero biases; samples without exact zeros; labels of every kind that a loss takes. A comparison on
zero biases or on a batch of one cannot see a bias that is forgotten, or a mean that is a sum.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from parity.trace import Weights

__all__ = ["encoded", "labels", "samples", "weights"]

BIAS = 0.1  # of the order of the weights of a layer with a few hundred inputs, so that neither hides the other


def weights(shapes: Mapping[str, np.ndarray], seed: int) -> Weights:
    """The initial weights given, with every weight that is constant (a zero bias, a gamma of ones) moved off it."""
    rng = np.random.default_rng([seed, 0])
    return {
        name: array + rng.uniform(-BIAS, BIAS, array.shape).astype(array.dtype) if np.ptp(array) == 0 else array
        for name, array in shapes.items()
    }


def samples(shape: tuple[int, ...], batch: int, seed: int, indices: int | None = None) -> np.ndarray:
    """Standard normal samples, (batch, *shape); for a network that takes them, indices below `indices`."""
    rng = np.random.default_rng([seed, 1])
    return rng.standard_normal((batch, *shape)) if indices is None else rng.integers(0, indices, (batch, *shape))


def labels(outputs: tuple[int, ...], batch: int, seed: int, kind: str) -> np.ndarray:
    """Random labels of the kind that a loss takes. outputs: the shape of one prediction.

    real: (batch, *outputs) numbers; binary: the same, 0 or 1; one_hot: rows with a single 1; integer: (batch, ...).
    """
    rng = np.random.default_rng([seed, 2])
    if kind == "real":
        return rng.standard_normal((batch, *outputs))
    if kind == "binary":
        return rng.integers(0, 2, (batch, *outputs)).astype(np.float64)
    return encoded(rng.integers(0, outputs[-1], (batch, *outputs[:-1])), outputs, kind)


def encoded(classes: np.ndarray, outputs: tuple[int, ...], kind: str) -> np.ndarray:
    """Integer class labels in the form that a loss takes: as they are, or as rows with a single 1."""
    return classes.astype(np.int64) if kind == "integer" else np.eye(outputs[-1])[classes]
