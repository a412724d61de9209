"""The start weights, gradients and learning rates that a hand-written update is given.

The gradients do not depend on the weights, so an error stays where it was made. Sizes differ from tensor to tensor and
from step to step; there are exact zeros, elements without any gradient, and elements so small that an epsilon counts.
Where gradients are clipped, they are on both sides of the bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from parity.mistakes.update_rules import Arrays

__all__ = ["CHANGE", "EQUAL", "NAMES", "SHAPES", "gradients", "rates", "weights"]

NAMES = ("W1", "b1", "W2", "b2")
SHAPES = ((3, 5), (5,), (5, 7), (7,))
EQUAL = ((3, 5),) * 4
"""For code that runs only where all tensors have one shape: it shares something between them."""

CHANGE = 0.3
"""The factor on the learning rate in the second half. No constant of an optimizer is its usual value."""

SIZES = (1.3, 0.3, 2.0, 0.6, 4.0, 1.5, 0.2)
"""Of the gradients, from step to step, in units of the bound where they are clipped: 3 of 7 are below it, none is
at it."""

SMALL = 1e-4  # of an element whose second moment an epsilon of 1e-7 moves by 1e-3 of itself


def weights(shapes: Sequence[tuple[int, ...]], seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in shapes]


def gradients(shapes: Sequence[tuple[int, ...]], steps: int, seed: int, config: Mapping[str, Any]) -> list[Arrays]:
    """For each step, one array for each tensor."""
    rng = np.random.default_rng((seed, 1))
    return [_step([rng.normal(size=shape) for shape in shapes], t, config) for t in range(steps)]


def _step(raw: Arrays, t: int, config: Mapping[str, Any]) -> Arrays:
    made = []
    for index, g in enumerate(raw):
        if g.size > 4:
            flat = g.reshape(-1)
            flat[0] = 0.0  # never a gradient
            flat[1 + (t + index) % 2] = 0.0  # every other step none
            flat[3] *= SMALL
        made.append(g * SIZES[(t + 2 * index) % len(SIZES)])
    return _around(made, t, config)


def _around(made: Arrays, t: int, config: Mapping[str, Any]) -> Arrays:
    """On both sides of the bound that they are clipped to."""
    if bound := config.get("global_clipnorm"):
        norm = np.sqrt(sum(np.sum(g * g) for g in made))
        return [g * (bound * SIZES[t % len(SIZES)] / norm) for g in made]
    if bound := config.get("clipnorm"):
        sizes = (SIZES[(t + 2 * index) % len(SIZES)] for index in range(len(made)))
        return [g * (bound * size / (np.linalg.norm(g) or 1.0)) for g, size in zip(made, sizes, strict=True)]
    return [g * (config.get("clipvalue") or 1.0) for g in made]


def rates(rate: float, steps: int) -> list[float]:
    """The optimizer's learning rate, and a smaller one from the middle on."""
    return [rate if t < (steps + 1) // 2 else rate * CHANGE for t in range(steps)]
