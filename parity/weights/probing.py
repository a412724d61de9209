"""Of several ways to read the same arrays, the one that computes given outputs from given inputs.

Each way is run in float64 by scratchnet. Its outputs may differ from the given ones by rounding, and how much that is
in this network, with these weights and inputs, is measured: by how far the same pass in float32 is from it. Another
correct implementation may add up its terms in another order, which costs up to one rounding for each term of its
longest sum where the measured pass has at least one; so that many times the measured distance is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from parity.errors import UsageError
from parity.runners import scratch
from parity.spec import Spec
from parity.trace import Weights
from parity.weights.sides import Load, Match
from parity.weights.skeleton import Skeleton

__all__ = ["chosen"]

Probe = tuple[Any, Any]
"""Inputs (batch, ...) and the outputs (batch, ...) that the network had for them."""


class _Trial(NamedTuple):
    way: Match
    weights: Weights
    distance: float  # largest difference from the given outputs
    allowed: float


def chosen(ways: Sequence[Match], load: Load, skeleton: Skeleton, probe: Probe) -> tuple[Match, str]:
    """The only way that gives the outputs, and in words by how much.

    `UsageError` if none does, or if two that hold different weights do: a way is excluded when its outputs are farther
    off than rounding may bring it and the winner together.
    """
    x, outputs = (np.asarray(array) for array in probe)
    if outputs.size == 0 or outputs.dtype.kind != "f" or not np.all(np.isfinite(outputs)):
        raise UsageError(
            f"probe: expected finite outputs in float32 or float64; received {outputs.dtype} {outputs.shape}"
        )
    forward = _forward(skeleton, x, outputs)
    trials = sorted((_tried(way, load, forward, outputs, skeleton) for way in ways), key=lambda trial: trial.distance)
    best = trials[0]
    if best.distance > best.allowed:
        raise UsageError(
            f"probe: none of {len(ways)} ways to match the weights gives these outputs; the nearest is "
            f"{best.distance:.1e} off, where rounding explains {best.allowed:.1e}"
        )
    left = [trial for trial in trials[1:] if trial.distance <= trial.allowed + best.allowed and not _equal(best, trial)]
    if left:
        raise UsageError(
            f"probe: a tie: {len(left) + 1} of {len(ways)} ways give these outputs to within rounding, the best two "
            f"{best.distance:.1e} and {left[0].distance:.1e} off; they differ in {_difference(best.way, left[0].way)}; "
            "give inputs that use every part of the network, or say which with map, layout or naming"
        )
    nearest = next((trial for trial in trials[1:] if not _equal(best, trial)), None)
    others = "" if nearest is None else f"; the nearest of {len(ways) - 1} others is {nearest.distance:.1e} off"
    return best.way, f"the probe: outputs {best.distance:.1e} off, rounding explains {best.allowed:.1e}{others}"


def _forward(skeleton: Skeleton, x: np.ndarray, outputs: np.ndarray) -> Callable[[Weights, str], np.ndarray]:
    if skeleton.config is None:
        raise UsageError(
            "probe: the network is not known well enough to run it; give model=..., or --model FILE, with a Keras model"
        )
    chains = {}
    for dtype in ("float32", "float64"):
        # A chain needs no loss to go forward; the spec of a run does.
        chains[dtype] = scratch.build(Spec(skeleton.name, skeleton.config, "mse", optimizer=None).with_dtype(dtype))
    taken, given = (tuple(shape or ())[1:] for shape in (chains["float64"].input_shape, chains["float64"].output_shape))
    if x.shape[1:] != taken or outputs.shape != (len(x), *given):
        raise UsageError(
            f"probe: expected inputs (batch, {', '.join(map(str, taken))}) and outputs (batch, "
            f"{', '.join(map(str, given))}); received {x.shape} and {outputs.shape}"
        )

    def forward(weights: Weights, dtype: str) -> np.ndarray:
        chain = chains[dtype]
        chain.set_weights([weights[f"{layer.name}/{name}"] for layer in chain.layers for name in layer.weights])
        return np.asarray(chain.forward(x).output, np.float64)

    return forward


def _tried(
    way: Match, load: Load, forward: Callable[[Weights, str], np.ndarray], outputs: np.ndarray, skeleton: Skeleton
) -> _Trial:
    weights = way.restore(load)
    precise = forward(weights, "float64")
    rounding = float(np.max(np.abs(forward(weights, "float32") - precise)))
    rounding = max(rounding, float(np.finfo(np.float32).eps * np.max(np.abs(precise))))
    terms = max(slot.shape[0] if len(slot.shape) < 3 else int(np.prod(slot.shape[:-1])) for slot in skeleton.slots)
    return _Trial(way, weights, float(np.max(np.abs(precise - outputs))), rounding * terms)


def _equal(a: _Trial, b: _Trial) -> bool:
    """Whether both ways give the same weights, as where two biases are all zeros: then it does not matter which."""
    return all(np.array_equal(a.weights[name], b.weights[name]) for name in a.weights)


def _difference(a: Match, b: Match) -> str:
    names = [name for name in a.held if a.held[name] != b.held[name]]
    if a.layout is not None and b.layout is not None:
        return f"the layout, {a.layout.name!r} or {b.layout.name!r}"
    return ", ".join(names) or "nothing that has a name"
