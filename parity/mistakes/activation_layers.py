"""Mistakes in the arguments that the layer ReLU has and the activation relu has not: max_value and threshold."""

from __future__ import annotations

import numpy as np

from parity.mistakes.catalogue import mistake
from parity.mistakes.parts import Outputs
from parity.runners.steps import Operation


@mistake(
    "relu-max-value-ignored",
    on="relu",
    direction="forward",
    text="cut the output off at max_value",
    right="y = min(x [x > t], max_value) - s max(t - x, 0)",
    wrong="y = x [x > t] - s max(t - x, 0)",
    shows="where the input exceeds max_value",
)
def _(op: Operation) -> Outputs | None:
    above = _above(op)
    return None if above is None else {"y": np.where(above, op["x"], op.outputs["y"])}


@mistake(
    "relu-max-value-passes-gradient",
    on="relu",
    direction="backward",
    text="above max_value the output is constant, so nothing goes back there",
    right="dx = dy [t < x <= max_value] + s dy [x < t]",
    wrong="dx = dy [t < x] + s dy [x < t]",
    shows="where the input exceeds max_value",
)
def _(op: Operation) -> Outputs | None:
    above = _above(op)
    return None if above is None else {"dx": np.where(above, op["dy"], op.outputs["dx"])}


@mistake(
    "relu-threshold-ignored",
    on="relu",
    direction="forward",
    text="the layer is zero up to its threshold, not up to 0, and its slope starts there",
    right="y = x [x > t] - s max(t - x, 0)",
    wrong="y = x [x > 0] - s max(-x, 0)",
    shows="with a threshold",
)
def _(op: Operation) -> Outputs | None:
    if not _threshold(op):
        return None
    x, relu = op["x"], op.entry
    y = np.maximum(x, 0)
    y = y if relu.max_value is None else np.minimum(y, relu.max_value)
    return {"y": y - relu.negative_slope * np.maximum(-x, 0)}


@mistake(
    "relu-threshold-passes-gradient",
    on="relu",
    direction="backward",
    text="the gradient passes where the input exceeds the threshold, not where it exceeds 0",
    right="dx = dy [x > t] + s dy [x < t]",
    wrong="dx = dy [x > 0] + s dy [x < 0]",
    shows="with a threshold, where inputs are between 0 and it",
)
def _(op: Operation) -> Outputs | None:
    between = (op["x"] > 0) & (op["x"] < _threshold(op))
    return {"dx": np.where(between, op["dy"], op.outputs["dx"])}


def _threshold(op: Operation) -> float:
    return getattr(op.entry, "threshold", 0.0)


def _above(op: Operation) -> np.ndarray | None:
    """Where the input exceeds max_value; None where there is none."""
    limit = getattr(op.entry, "max_value", None)
    return None if limit is None else op["x"] > limit
