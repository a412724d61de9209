"""The third opinion: every operation in float64, and how far a correct float32 evaluation of it may be off."""

from __future__ import annotations

import numpy as np

from parity.budget import Bounded
from parity.runners import scratch
from parity.spec import Spec
from parity.trace import Trace, Weights

__all__ = ["bounds"]


def bounds(spec: Spec, weights: Weights, reference: Trace, y: np.ndarray) -> dict[str, np.ndarray]:
    """The rounding bound of each tensor, from the tensors that the reference put into its operation."""
    return {name: value.bound() for name, value in scratch.replay(spec, weights, reference, y, Bounded).items()}
