"""What a comparison could not have seen. A pass says so; a check that could not have failed concludes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from parity import trace
from parity.compare import Row
from parity.sketch import Vouched
from parity.trace import Place, Trace, Weights

__all__ = ["blind_spots", "powerless", "skipped"]

BOUNDED = {"sigmoid": (0.0, 1.0), "softmax": (0.0, 1.0), "tanh": (-1.0, 1.0)}
"""Activation -> the outputs at which its derivative is exactly zero."""

SATURATED = 0.01  # of the elements of a layer: below, the others show a wrong derivative a hundred times

OTHERWISE_IN_INFERENCE = ("BatchNormalization", "Dropout")  # layers that compute something else there

SKETCHED = "its gradient was recorded as a sketch, which does not give the update in float32; in float64 it is compared"

OTHER_EPSILON = 1e-5  # what other frameworks have where Keras has 1e-3: the epsilon that is most often confused with it


def skipped(places: Sequence[Place], compared: Mapping[str, Row], reference: Trace, optimizer: Any) -> dict[str, str]:
    """What was not compared, and why."""
    reason = "the reference has none: the loss does not come this way"
    missing = {p.tensor: reason for p in places if p.tensor not in compared}
    missing |= {p.tensor: SKETCHED for p in places if p.tensor in missing and _by_sketch(p.tensor, reference)}
    missing |= {name: _overflow(row) for name, row in compared.items() if not row.compared}
    return missing if optimizer is not None else {**missing, "updated weights": "no optimizer that scratchnet has"}


def _by_sketch(tensor: str, reference: Trace) -> bool:
    """Whether it is an update by a gradient that is known as a sketch only."""
    source = trace.gradient(tensor.removesuffix(".updated"))
    return tensor.endswith(".updated") and source in reference and isinstance(reference[source], Vouched)


def _overflow(row: Row) -> str:
    return (
        f"the allowed difference of {row.unjudged} of {row.size} elements overflows, or both sides do, so right and "
        "wrong look the same there; try smaller inputs or weights"
    )


def powerless(rows: Sequence[Row], reference: Trace) -> str:
    """Why this comparison could not have failed; empty where it could."""
    gradients = [row for row in rows if row.tensor.endswith(".gradient") and row.tensor in reference]
    if not gradients:
        return "no gradient was compared"
    if any(np.any(np.isnan(reference[row.tensor])) for row in gradients):
        return "a gradient of the reference is NaN, so right and wrong look the same; try smaller inputs or weights"
    gradients = [row for row in gradients if row.compared]
    if not gradients:
        return "the allowed difference of every gradient overflows, or the gradient does; try smaller inputs or weights"
    if not any(np.any(reference[row.tensor]) for row in gradients):
        return "every gradient is exactly zero, so a backward pass that returns zeros would pass"
    if all(row.below_noise for row in gradients):
        return "every gradient is below its rounding error, so a backward pass that returns zeros would pass"
    return ""


def blind_spots(
    layers: Sequence[Mapping[str, Any]],
    weights: Weights,
    reference: Trace,
    rows: Sequence[Row],
    dtype: str,
    optimizer_keeps: bool,
) -> Iterator[str]:
    """What a mistake could hide behind on these inputs and weights, a sentence each. layers: entries of the config;
    optimizer_keeps: whether the optimizer has a state."""
    if len(reference[trace.INPUT]) == 1:
        yield "a batch of one: a missing 1/m, and a mean where a sum belongs, look right"
    yield from _constant(weights)
    square = [name for name, w in weights.items() if w.ndim == 2 and w.shape[0] == w.shape[1]]
    if square:
        yield f"square, so that a transposed one would have the right shape: {', '.join(square)}"
    before = trace.INPUT
    for entry in layers:
        if entry["class_name"] != "InputLayer":
            yield from _units(entry, reference)
            yield from _epsilon(entry, reference[before], dtype)
            before = trace.output(entry["config"]["name"])
    zero = [row.tensor for row in rows if row.below_noise and row.compared]
    if zero:
        yield f"no larger than their rounding, judged on the scale of what was summed: {', '.join(zero)}"
    stateful = [e["config"]["name"] for e in layers if e["class_name"] in OTHERWISE_IN_INFERENCE]
    if stateful:
        yield f"the other one of training and inference: {', '.join(stateful)}"
    dropping = [e["config"]["name"] for e in layers if e["class_name"] == "Dropout"]
    if dropping:
        yield f"passes after the first, in which other cells are dropped: {', '.join(dropping)}"
    if optimizer_keeps:
        yield "one step only, from fresh state: what the optimizer keeps from step to step (momentum)"


def _constant(weights: Weights) -> Iterator[str]:
    for value, name in ((0, "zero"), (1, "one")):
        constant = [n for n, w in weights.items() if np.all(w == value)]
        if constant:
            yield f"all {name}, so that forgetting them looks right: {', '.join(constant)}"


def _units(entry: Mapping[str, Any], reference: Trace) -> Iterator[str]:
    """Dead units, whose gradients are zero whatever the formula, and saturated ones."""
    name, activation = entry["config"]["name"], entry["config"].get("activation")
    y = reference[trace.output(name)]
    if activation == "relu" or entry["class_name"] == "ReLU":
        units = y.reshape(-1, y.shape[-1])
        dead = int(np.count_nonzero(~np.any(units, axis=0)))
        if dead:
            yield f"{dead} of {units.shape[1]} units of {name} are dead: zero for every sample"
    if activation in BOUNDED:
        share = float(np.mean(np.isin(y, BOUNDED[activation])))
        if share > SATURATED:
            yield f"{share:.0%} of {name} is saturated: the derivative of {activation} is exactly zero there"


def _epsilon(entry: Mapping[str, Any], x: np.ndarray, dtype: str) -> Iterator[str]:
    """Whether the variance is so large that another epsilon makes no difference to be seen."""
    epsilon = entry["config"].get("epsilon")
    if epsilon is None:
        return
    axes: Any = -1 if entry["class_name"] == "LayerNormalization" else tuple(range(x.ndim - 1))
    variance = float(np.min(np.var(x.astype(np.float64), axis=axes)))
    change = abs(epsilon - OTHER_EPSILON) / (2 * (variance + epsilon))  # of the output, relative
    if change < 16 * np.finfo(dtype).eps:
        name = entry["config"]["name"]
        yield f"the variance in front of {name} is at least {variance:.2g}: another epsilon looks right"
