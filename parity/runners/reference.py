"""What a network is compared with: Keras as it runs now, or what was recorded of it."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from parity.runners.scratch import Network
from parity.spec import Spec
from parity.trace import Trace, Weights

__all__ = ["Reference"]


class Reference(Protocol):
    """`parity.runners.keras` is one, `parity.golden.replay.Recorded` another."""

    def run(self, spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, mode: str = "eager") -> Trace:
        """One step of the network with these weights; see `parity.runners.keras.run`."""

    def described(self, spec: Spec) -> Network:
        """What has to be known of a network with layers that scratchnet does not have."""
