"""What several mistakes need of an operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from parity.runners.steps import Operation

__all__ = ["Outputs", "rows", "saved_below", "weight_gradients"]

Outputs = Mapping[str, Any]


def rows(array: np.ndarray) -> np.ndarray:
    """(..., n) -> (number of places, n)."""
    return array.reshape(-1, array.shape[-1])


def weight_gradients(operation: Operation) -> dict[str, np.ndarray]:
    """The gradients by the weights that a layer's backward step gave."""
    return {name: array for name, array in operation.outputs.items() if name != "dx"}


def saved_below(operation: Operation) -> Any:
    """What the layer below kept of its forward pass: x, z, y; None for the first layer."""
    index = [layer.name for layer in operation.context["layers"]].index(operation.layer)
    return operation.context["saved"][index - 1] if index else None
