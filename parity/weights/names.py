"""What frameworks call the weights of a layer, and what each axis of them means.

Every weight has a role, which is Keras's name of it, and named axes. A framework is a table: for each kind of layer and
each role its own name and its own order of the axes. From one framework to another, a weight is renamed and its axes
are put in the other order; nothing else happens to it, so the way back is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["FRAMEWORKS", "KINDS", "Name", "Naming", "moved"]

DENSE, CONVOLUTION, VECTOR = ("in", "out"), ("height", "width", "in", "out"), ("out",)
NORMALIZED = {"gamma": VECTOR, "beta": VECTOR}

KINDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "Dense": {"kernel": DENSE, "bias": VECTOR},
    "Conv2D": {"kernel": CONVOLUTION, "bias": VECTOR},
    "BatchNormalization": {**NORMALIZED, "moving_mean": VECTOR, "moving_variance": VECTOR},
    "LayerNormalization": NORMALIZED,
    "Embedding": {"embeddings": ("index", "out")},
    "SimpleRNN": {"kernel": DENSE, "recurrent_kernel": ("state", "out"), "bias": VECTOR},
}
"""Kind of layer -> role -> axes, each as Keras has them, in Keras's order."""


@dataclass(frozen=True)
class Name:
    """One weight in a framework: its name within the layer, and the order of its axes."""

    name: str
    axes: tuple[str, ...]


@dataclass(frozen=True)
class Naming:
    """One framework.

    weights: kind -> role -> name and axes, where they are not Keras's. ignored: names that hold no weight, such as
    counters. prefixes: of a weight's key before the name of the layer, for the roles that have one.
    """

    name: str
    weights: Mapping[str, Mapping[str, Name]]
    ignored: tuple[str, ...] = ()
    prefixes: Mapping[str, str] | None = None

    def of(self, kind: str, role: str) -> Name:
        """The name and the axes of a weight. KeyError for a kind that is not in `KINDS`."""
        return self.weights.get(kind, {}).get(role) or Name(role, KINDS[kind][role])


TORCH = Naming(
    "torch",
    {
        "Dense": {"kernel": Name("weight", ("out", "in")), "bias": Name("bias", VECTOR)},
        "Conv2D": {"kernel": Name("weight", ("out", "in", "height", "width")), "bias": Name("bias", VECTOR)},
        "BatchNormalization": {
            "gamma": Name("weight", VECTOR),
            "beta": Name("bias", VECTOR),
            "moving_mean": Name("running_mean", VECTOR),
            "moving_variance": Name("running_var", VECTOR),
        },
        "LayerNormalization": {"gamma": Name("weight", VECTOR), "beta": Name("bias", VECTOR)},
        "Embedding": {"embeddings": Name("weight", ("index", "out"))},
    },
    ignored=("num_batches_tracked",),
)
FLAX = Naming(
    "flax",
    {
        "BatchNormalization": {
            "gamma": Name("scale", VECTOR),
            "beta": Name("bias", VECTOR),
            "moving_mean": Name("mean", VECTOR),
            "moving_variance": Name("var", VECTOR),
        },
        "LayerNormalization": {"gamma": Name("scale", VECTOR), "beta": Name("bias", VECTOR)},
        "Embedding": {"embeddings": Name("embedding", ("index", "out"))},
    },
    prefixes={"moving_mean": "batch_stats", "moving_variance": "batch_stats", "": "params"},
)
KERAS = Naming("keras", {})
FRAMEWORKS: Mapping[str, Naming] = {naming.name: naming for naming in (KERAS, TORCH, FLAX)}
"""Name -> how it calls the weights. Convolutions are without groups; recurrent layers differ in more than their axes
(gates in another order, two biases for one) and are not here."""


def moved(array: np.ndarray, source: tuple[str, ...], target: tuple[str, ...]) -> np.ndarray:
    """The array with its named axes in another order: a view."""
    return np.transpose(array, [source.index(axis) for axis in target])
