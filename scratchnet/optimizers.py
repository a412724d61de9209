"""Optimizers: the update rule of each, as Keras orders its operations, so that float32 results agree to the bit."""

from typing import Any

import numpy as np

from scratchnet import registry
from scratchnet.activations import float32
from scratchnet.registry import Entry, UnknownArgument, register

__all__ = ["SGD", "Optimizer", "get"]


class Optimizer(Entry):
    """Base class. A subclass gives `step`; its state per weight is made by `zero_state` and kept by the caller."""

    family = "optimizer"
    neutral = {
        "weight_decay": None,
        "clipnorm": None,
        "global_clipnorm": None,
        "clipvalue": None,
        "use_ema": False,
        "ema_momentum": 0.99,
        "ema_overwrite_frequency": None,
        "loss_scale_factor": None,
        "gradient_accumulation_steps": None,
    }

    def zero_state(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """The state of one weight before the first step."""
        raise NotImplementedError

    def step(
        self, weight: np.ndarray, gradient: np.ndarray, state: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The new weight and the new state, in the shapes of the old; nothing is changed in place."""
        raise NotImplementedError


@register("SGD", "sgd")
class SGD(Optimizer):
    """w = w - lr g.  With momentum mu:  m = mu m - lr g;  w = w + m, or w + mu m - lr g under nesterov."""

    examples = ({}, {"learning_rate": 0.1, "momentum": 0.9}, {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True})

    def __init__(
        self, learning_rate: float = 0.01, momentum: float = 0.0, nesterov: bool = False, name: str | None = None
    ):
        if not isinstance(learning_rate, int | float | np.number):
            raise UnknownArgument(
                f"SGD: learning_rate must be a number; received {learning_rate!r}; schedules are not supported"
            )
        if not 0 <= momentum <= 1:
            raise ValueError(f"SGD: momentum must be between 0 and 1; received {momentum}")
        if nesterov and momentum == 0:
            raise ValueError("SGD: nesterov needs a momentum above 0; received momentum=0")
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.nesterov = nesterov
        self.name = name or "sgd"

    def zero_state(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        return {"momentum": np.zeros_like(weight)} if self.momentum else {}

    def step(
        self, weight: np.ndarray, gradient: np.ndarray, state: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        change = gradient * np.asarray(self.learning_rate, gradient.dtype)  # Keras keeps the rate in the weights' dtype
        if not self.momentum:
            return weight - change, state
        mu = float32(self.momentum)  # Keras casts a Python number, so it is float32's in float64 too
        m = state["momentum"] * mu - change
        return weight + (m * mu - change if self.nesterov else m), {"momentum": m}


def get(identifier: Any) -> Optimizer:
    """The optimizer that Keras would take `identifier` for: a name, a config or an instance."""
    found: Optimizer = registry.get("optimizer", identifier)
    return found
