"""Penalties on weights: the value that is added to the loss, and its derivative by the weight.

Keras holds the factors as float32 tensors whatever the dtype of the weights, so 0.01 is 0.00999999977 in float64 too.
"""

from typing import Any

import numpy as np

from scratchnet import registry
from scratchnet.activations import float32
from scratchnet.registry import Entry, register

__all__ = ["L1", "L1L2", "L2", "Regularizer", "get"]


class Regularizer(Entry):
    """Base class. w and its gradient have one shape; the penalty is one number."""

    family = "regularizer"

    def forward(self, w: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def backward(self, w: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def two_sided(self, w: np.ndarray) -> np.ndarray | None:
        """Where the derivative jumps, so that the one from either side is an answer; booleans in the shape of w. None
        where it never does."""
        return None


@register("L1", "l1")
class L1(Regularizer):
    """l sum |w|;  gradient l sign(w), 0 at 0."""

    def __init__(self, l1: float = 0.01):
        self.l1 = l1

    def forward(self, w: np.ndarray) -> np.ndarray:
        return float32(self.l1) * np.sum(np.abs(w))

    def backward(self, w: np.ndarray) -> np.ndarray:
        return float32(self.l1) * np.sign(w)

    def two_sided(self, w: np.ndarray) -> np.ndarray:
        return w == 0


@register("L2", "l2")
class L2(Regularizer):
    """l sum w^2, without the half that textbooks put there;  gradient 2 l w."""

    def __init__(self, l2: float = 0.01):
        self.l2 = l2

    def forward(self, w: np.ndarray) -> np.ndarray:
        return float32(self.l2) * np.sum(w * w)

    def backward(self, w: np.ndarray) -> np.ndarray:
        return 2 * float32(self.l2) * w


@register("L1L2", "l1_l2")
class L1L2(Regularizer):
    """l1 sum |w| + l2 sum w^2;  gradient l1 sign(w) + 2 l2 w. Both default to 0, as in Keras."""

    examples = ({"l1": 0.01, "l2": 0.02},)

    def __init__(self, l1: float = 0.0, l2: float = 0.0):
        self.l1 = l1
        self.l2 = l2

    def forward(self, w: np.ndarray) -> np.ndarray:
        return float32(self.l1) * np.sum(np.abs(w)) + float32(self.l2) * np.sum(w * w)

    def backward(self, w: np.ndarray) -> np.ndarray:
        return float32(self.l1) * np.sign(w) + 2 * float32(self.l2) * w

    def two_sided(self, w: np.ndarray) -> np.ndarray | None:
        return w == 0 if self.l1 else None


def get(identifier: Any) -> Regularizer | None:
    """The regularizer that Keras would take `identifier` for; None stays None."""
    found: Regularizer | None = registry.get("regularizer", identifier)
    return found
