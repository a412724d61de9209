"""Mistakes in the values and derivatives of activations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import erf, erfc, expit

from parity.mistakes.catalogue import mistake
from parity.runners.steps import Operation

Outputs = Mapping[str, Any]

MODERATE = 80
"""Up to here, exp of a float32 number neither overflows (above 88.7) nor becomes subnormal (below -87.3)."""


def _entry(op: Operation) -> Any:
    """The activation, of the class that the mistake is entered on."""
    return op.entry


def _as_float32(constant: float) -> float:
    """The constant as TensorFlow holds it, also in float64."""
    return float(np.float32(constant))


def _in_double(op: Operation) -> bool:
    """Whether the difference between a constant and its float32 can show."""
    return bool(op["x"].dtype == np.float64)


# -- any activation ----------------------------------------------------------------------------------------------------


@mistake(
    "activation-derivative-missing",
    on="activation",
    direction="backward",
    text="the derivative of the activation is missing: multiply the upstream gradient with it",
    right="dx = dy f'(x)",
    wrong="dx = dy",
    shows="where the slope is not 1",
)
def _(op: Operation) -> Outputs | None:
    return None if op.kind == "linear" else {"dx": op["dy"]}


@mistake(
    "activation-derivative-twice",
    on="activation",
    direction="backward",
    text="the derivative of the activation is multiplied in twice: leave one of them out",
    right="dx = dy f'(x)",
    wrong="dx = dy f'(x) f'(x)",
    shows="where the slope is neither 0 nor 1, so never with relu",
)
def _(op: Operation) -> Outputs | None:
    return None if op.kind == "relu" else {"dx": _entry(op).backward(op["x"], op["y"], op.outputs["dx"])}


@mistake(
    "activation-derivative-at-output",
    on="activation",
    direction="backward",
    text="the derivative f' is taken at the activation y instead of the pre-activation x",
    right="dx = dy f'(x)",
    wrong="dx = dy f'(y), with y = f(x)",
    shows="with a curved f; relu and leaky_relu have the same slope at x and at y",
)
def _(op: Operation) -> Outputs | None:
    if op.kind in ("relu", "leaky_relu"):
        return None
    return {"dx": _entry(op).backward(op["y"], _entry(op).forward(op["y"]), op["dy"])}


@mistake(
    "activation-derivative-in-reverse-order",
    on="activation",
    direction="backward",
    text="the hidden layers are paired with the errors in the wrong order: the errors come from the last layer to the "
    "first, so go through the activations backwards as well",
    right="dx = dy f'(x)",
    wrong="dx = dy f'(x of the hidden layer that is as far from the other end)",
    shows="with as many units in both layers, or it does not run; with one hidden layer there is no wrong order",
)
def _(op: Operation) -> Outputs | None:
    layers, saved = op.context["layers"], op.context["saved"]
    activations = [layer.outer_activation.registered_name for layer in op.context["chain"].layers]
    hidden = [i for i, name in enumerate(activations[:-1]) if name != "linear"]
    index = [layer.name for layer in layers].index(op.layer)
    other = dict(zip(hidden, reversed(hidden), strict=True)).get(index, index)
    if other == index:
        return None
    x = saved[other].z
    return {"dx": _entry(op).backward(x, _entry(op).forward(x), op["dy"])} if x.shape == op["x"].shape else None


@mistake(
    "activation-gradient-negated",
    on="activation",
    direction="backward",
    text="the gradient has the wrong sign from this activation downwards: there is one minus too many",
    right="dx = dy f'(x)",
    wrong="dx = -dy f'(x)",
)
def _(op: Operation) -> Outputs:
    return {"dx": -op.outputs["dx"]}


# -- relu --------------------------------------------------------------------------------------------------------------


def _has_arguments(op: Operation) -> bool:
    """Whether a relu has a threshold, a maximum or a slope, as the layer ReLU can give it."""
    return bool(vars(_entry(op)))


@mistake(
    "relu-keeps-the-negative-part",
    on="relu",
    direction="forward",
    text="take the larger of x and 0, not the smaller",
    right="y = max(x, 0)",
    wrong="y = min(x, 0)",
)
def _(op: Operation) -> Outputs | None:
    return None if _has_arguments(op) else {"y": np.minimum(op["x"], 0)}


@mistake(
    "relu-leaks",
    on="relu",
    direction="forward",
    text="this is a leaky ReLU with the slope 0.01; relu is 0 for negative x",
    right="y = max(x, 0)",
    wrong="y = max(x, 0.01 x)",
    shows="where x < 0",
)
def _(op: Operation) -> Outputs | None:
    return None if _has_arguments(op) or not np.any(op["x"] < 0) else {"y": np.maximum(op["x"], 0.01 * op["x"])}


@mistake(
    "relu-is-its-derivative",
    on="relu",
    direction="forward",
    text="this is the derivative of relu, 0 or 1; keep the value of x where it is positive",
    right="y = max(x, 0)",
    wrong="y = 1 where x > 0, else 0",
)
def _(op: Operation) -> Outputs | None:
    return None if _has_arguments(op) else {"y": (op["x"] > 0).astype(op["x"].dtype)}


@mistake(
    "relu-mask-of-output-not-strict",
    on="relu",
    direction="backward",
    text="the mask y >= 0 of the output is true everywhere, because relu is never negative: use y > 0 or x > 0",
    right="dx = dy where x > 0, else 0",
    wrong="dx = dy where y >= 0, else 0",
    shows="where x < 0",
)
def _(op: Operation) -> Outputs | None:
    if _has_arguments(op) or not np.any(op["x"] < 0):
        return None
    return {"dx": np.where(op["y"] >= 0, op["dy"], 0)}


@mistake(
    "relu-passes-at-zero",
    on="relu",
    direction="backward",
    text="the derivative of relu at exactly 0 is 0 in TensorFlow: use x > 0 instead of x >= 0",
    right="dx = dy where x > 0, else 0",
    wrong="dx = dy where x >= 0, else 0",
    shows="only where a pre-activation is exactly 0",
)
def _(op: Operation) -> Outputs | None:
    if _has_arguments(op) or not np.any(op["dy"][op["x"] == 0]):
        return None
    return {"dx": np.where(op["x"] >= 0, op["dy"], 0)}


@mistake(
    "relu-mask-of-gradient",
    on="relu",
    direction="backward",
    text="the mask comes from the upstream gradient: let dy pass where x > 0, whatever the sign of dy",
    right="dx = dy where x > 0, else 0",
    wrong="dx = dy where dy > 0, else 0",
)
def _(op: Operation) -> Outputs | None:
    return None if _has_arguments(op) else {"dx": np.where(op["dy"] > 0, op["dy"], 0)}


@mistake(
    "relu-mask-inverted",
    on="relu",
    direction="backward",
    text="the mask is the wrong way round: the gradient passes where x > 0",
    right="dx = dy where x > 0, else 0",
    wrong="dx = dy where x <= 0, else 0",
)
def _(op: Operation) -> Outputs | None:
    return None if _has_arguments(op) else {"dx": np.where(op["x"] > 0, 0, op["dy"])}


@mistake(
    "relu-value-for-derivative",
    on="relu",
    direction="backward",
    text="the upstream gradient is multiplied with relu(x); its derivative is 0 or 1",
    right="dx = dy where x > 0, else 0",
    wrong="dx = dy max(x, 0)",
)
def _(op: Operation) -> Outputs | None:
    return None if _has_arguments(op) else {"dx": op["dy"] * op["y"]}


@mistake(
    "relu-mask-of-output",
    on="relu",
    direction="backward",
    text="nothing to change: the mask may come from the output",
    right="dx = dy where x > 0, else 0",
    wrong="dx = dy where y > 0, else 0",
    equivalent="y = max(x, 0) is positive exactly where x is",
)
def _(op: Operation) -> Outputs | None:
    return None if _has_arguments(op) else {"dx": np.where(op["y"] > 0, op["dy"], 0)}


# -- leaky_relu --------------------------------------------------------------------------------------------------------


def _leaky(op: Operation, slope: float, along: str) -> Any:
    """`along` (x forward, dy backward) with another slope; None where that slope is the right one or has no effect."""
    if slope == _entry(op).negative_slope or not np.any(op["x"] < 0):
        return None
    return np.where(op["x"] > 0, op[along], slope * op[along])


@mistake(
    "leaky-relu-slope-of-other-libraries",
    on="leaky_relu",
    direction="forward",
    text="0.01 is PyTorch's slope; Keras has 0.2 in the activation and 0.3 in the layer",
    right="y = s x where x <= 0, s = 0.2 (layer: 0.3)",
    wrong="y = 0.01 x where x <= 0",
)
def _(op: Operation) -> Outputs | None:
    y = _leaky(op, 0.01, "x")
    return None if y is None else {"y": y}


@mistake(
    "leaky-relu-slope-of-layer",
    on="leaky_relu",
    direction="forward",
    text="0.3 is the slope of the layer LeakyReLU; the activation leaky_relu has 0.2",
    right="y = 0.2 x where x <= 0",
    wrong="y = 0.3 x where x <= 0",
)
def _(op: Operation) -> Outputs | None:
    y = _leaky(op, 0.3, "x")
    return None if y is None else {"y": y}


@mistake(
    "leaky-relu-slope-of-activation",
    on="leaky_relu",
    direction="forward",
    text="0.2 is the slope of the activation leaky_relu; the layer LeakyReLU has 0.3",
    right="y = 0.3 x where x <= 0",
    wrong="y = 0.2 x where x <= 0",
)
def _(op: Operation) -> Outputs | None:
    y = _leaky(op, 0.2, "x")
    return None if y is None else {"y": y}


@mistake(
    "leaky-relu-without-slope",
    on="leaky_relu",
    direction="forward",
    text="this is relu; leaky_relu keeps s x where x is negative",
    right="y = s x where x <= 0",
    wrong="y = 0 where x <= 0",
)
def _(op: Operation) -> Outputs | None:
    y = _leaky(op, 0.0, "x")
    return None if y is None else {"y": y}


@mistake(
    "leaky-relu-slope-on-positive-side",
    on="leaky_relu",
    direction="forward",
    text="the slope is on the wrong side: it belongs to negative x",
    right="y = x where x > 0, else s x",
    wrong="y = s x where x > 0, else x",
)
def _(op: Operation) -> Outputs:
    return {"y": np.where(op["x"] > 0, _entry(op).negative_slope * op["x"], op["x"])}


@mistake(
    "leaky-relu-gradient-slope-of-other-libraries",
    on="leaky_relu",
    direction="backward",
    text="the derivative has PyTorch's slope 0.01; use the slope of the forward pass",
    right="dx = s dy where x <= 0, s = 0.2 (layer: 0.3)",
    wrong="dx = 0.01 dy where x <= 0",
)
def _(op: Operation) -> Outputs | None:
    dx = _leaky(op, 0.01, "dy")
    return None if dx is None else {"dx": dx}


@mistake(
    "leaky-relu-gradient-of-relu",
    on="leaky_relu",
    direction="backward",
    text="this is the derivative of relu; where x is negative it is the slope s, not 0",
    right="dx = s dy where x <= 0",
    wrong="dx = 0 where x <= 0",
)
def _(op: Operation) -> Outputs | None:
    dx = _leaky(op, 0.0, "dy")
    return None if dx is None else {"dx": dx}


@mistake(
    "leaky-relu-gradient-slope-on-positive-side",
    on="leaky_relu",
    direction="backward",
    text="the slope is on the wrong side of the derivative: it belongs to negative x",
    right="dx = dy where x > 0, else s dy",
    wrong="dx = s dy where x > 0, else dy",
)
def _(op: Operation) -> Outputs:
    return {"dx": np.where(op["x"] > 0, _entry(op).negative_slope * op["dy"], op["dy"])}


@mistake(
    "leaky-relu-gradient-times-input",
    on="leaky_relu",
    direction="backward",
    text="where x is negative the derivative is the slope s, not the value s x",
    right="dx = s dy where x <= 0",
    wrong="dx = s x dy where x <= 0",
)
def _(op: Operation) -> Outputs | None:
    return {"dx": np.where(op["x"] > 0, op["dy"], op["y"] * op["dy"])} if np.any(op["x"] < 0) else None


@mistake(
    "leaky-relu-slope-in-double",
    on="leaky_relu",
    direction="forward",
    text="your slope is the more exact one: Keras rounds it to float32 also in float64; write float32(s) to agree",
    right="y = float32(s) x where x <= 0",
    wrong="y = s x where x <= 0",
    shows="in float64, where s is no float32 number",
)
def _(op: Operation) -> Outputs | None:
    s = _entry(op).negative_slope
    return {"y": np.where(op["x"] > 0, op["x"], s * op["x"])} if _in_double(op) else None


@mistake(
    "leaky-relu-gradient-slope-in-double",
    on="leaky_relu",
    direction="backward",
    text="your slope is the more exact one: Keras rounds it to float32 also in float64; write float32(s) to agree",
    right="dx = float32(s) dy where x <= 0",
    wrong="dx = s dy where x <= 0",
    shows="in float64, where s is no float32 number",
)
def _(op: Operation) -> Outputs | None:
    s = _entry(op).negative_slope
    return {"dx": np.where(op["x"] > 0, op["dy"], s * op["dy"])} if _in_double(op) else None


@mistake(
    "leaky-relu-mask-of-output",
    on="leaky_relu",
    direction="backward",
    text="nothing to change: the mask may come from the output",
    right="dx = dy where x > 0, else s dy",
    wrong="dx = dy where y > 0, else s dy",
    equivalent="with s >= 0, y is positive exactly where x is",
)
def _(op: Operation) -> Outputs:
    return {"dx": _entry(op).backward(op["y"], op["y"], op["dy"])}


# -- sigmoid -----------------------------------------------------------------------------------------------------------


@mistake(
    "sigmoid-exponent-not-negated",
    on="sigmoid",
    direction="forward",
    text="the exponent lacks its minus",
    right="y = 1 / (1 + exp(-x))",
    wrong="y = 1 / (1 + exp(x))",
)
def _(op: Operation) -> Outputs:
    return {"y": expit(-op["x"])}


@mistake(
    "sigmoid-from-tanh-of-full-argument",
    on="sigmoid",
    direction="forward",
    text="written with tanh, the sigmoid takes half the argument",
    right="y = (1 + tanh(x / 2)) / 2",
    wrong="y = (1 + tanh(x)) / 2",
)
def _(op: Operation) -> Outputs:
    return {"y": expit(2 * op["x"])}


@mistake(
    "sigmoid-hard",
    on="sigmoid",
    direction="forward",
    text="this is the piecewise linear hard_sigmoid; sigmoid needs the exponential",
    right="y = 1 / (1 + exp(-x))",
    wrong="y = clip(x / 6 + 1/2, 0, 1)",
)
def _(op: Operation) -> Outputs:
    return {"y": np.clip(op["x"] / 6 + 0.5, 0, 1)}


@mistake(
    "sigmoid-is-tanh",
    on="sigmoid",
    direction="forward",
    text="this is tanh; sigmoid lies between 0 and 1",
    right="y = 1 / (1 + exp(-x))",
    wrong="y = tanh(x)",
)
def _(op: Operation) -> Outputs:
    return {"y": np.tanh(op["x"])}


@mistake(
    "sigmoid-derivative-of-input",
    on="sigmoid",
    direction="backward",
    text="y (1 - y) takes the output y, not the pre-activation x",
    right="dx = dy y (1 - y)",
    wrong="dx = dy x (1 - x)",
)
def _(op: Operation) -> Outputs:
    return {"dx": op["dy"] * op["x"] * (1 - op["x"])}


@mistake(
    "sigmoid-derivative-of-tanh",
    on="sigmoid",
    direction="backward",
    text="1 - y^2 is the derivative of tanh; sigmoid has y (1 - y)",
    right="dx = dy y (1 - y)",
    wrong="dx = dy (1 - y^2)",
)
def _(op: Operation) -> Outputs:
    return {"dx": op["dy"] * (1 - op["y"] * op["y"])}


@mistake(
    "sigmoid-derivative-without-complement",
    on="sigmoid",
    direction="backward",
    text="the factor 1 - y of the derivative is missing",
    right="dx = dy y (1 - y)",
    wrong="dx = dy y",
)
def _(op: Operation) -> Outputs:
    return {"dx": op["dy"] * op["y"]}


@mistake(
    "sigmoid-derivative-of-plus",
    on="sigmoid",
    direction="backward",
    text="the derivative has 1 - y, not 1 + y",
    right="dx = dy y (1 - y)",
    wrong="dx = dy y (1 + y)",
)
def _(op: Operation) -> Outputs:
    return {"dx": op["dy"] * op["y"] * (1 + op["y"])}


@mistake(
    "sigmoid-as-ratio-of-exponentials",
    on="sigmoid",
    direction="forward",
    text="nothing to change for moderate x; exp(x) overflows for large ones",
    right="y = 1 / (1 + exp(-x))",
    wrong="y = exp(x) / (1 + exp(x))",
    shows="only where exp(x) overflows",
    equivalent="multiply numerator and denominator with exp(x)",
)
def _(op: Operation) -> Outputs | None:
    if np.max(np.abs(op["x"])) > MODERATE:
        return None
    e = np.exp(op["x"])
    return {"y": e / (1 + e)}


@mistake(
    "sigmoid-derivative-of-output",
    on="sigmoid",
    direction="backward",
    text="nothing to change: a (1 - a) is the derivative in terms of the activation a",
    right="dx = dy f(x) (1 - f(x))",
    wrong="dx = dy y (1 - y)",
    equivalent="y is f(x)",
)
def _(op: Operation) -> Outputs:
    return {"dx": op["dy"] * (op["y"] * (1 - op["y"]))}


# -- tanh --------------------------------------------------------------------------------------------------------------


@mistake(
    "tanh-is-sigmoid",
    on="tanh",
    direction="forward",
    text="this is the sigmoid; tanh lies between -1 and 1",
    right="y = tanh(x)",
    wrong="y = 1 / (1 + exp(-x))",
)
def _(op: Operation) -> Outputs:
    return {"y": expit(op["x"])}


@mistake(
    "tanh-of-half-argument",
    on="tanh",
    direction="forward",
    text="the exponents lack the factor 2: this is the bipolar sigmoid",
    right="y = (1 - exp(-2x)) / (1 + exp(-2x))",
    wrong="y = (1 - exp(-x)) / (1 + exp(-x)) = tanh(x / 2)",
)
def _(op: Operation) -> Outputs:
    return {"y": np.tanh(op["x"] / 2)}


@mistake(
    "tanh-scaled",
    on="tanh",
    direction="forward",
    text="this is the scaled tanh of older textbooks; Keras has the plain one",
    right="y = tanh(x)",
    wrong="y = 1.7159 tanh(2x / 3)",
)
def _(op: Operation) -> Outputs:
    return {"y": 1.7159 * np.tanh(2 * op["x"] / 3)}


@mistake(
    "tanh-derivative-of-input",
    on="tanh",
    direction="backward",
    text="1 - x^2 takes the output y, not the pre-activation x",
    right="dx = dy (1 - tanh(x)^2)",
    wrong="dx = dy (1 - x^2)",
)
def _(op: Operation) -> Outputs:
    return {"dx": op["dy"] * (1 - op["x"] * op["x"])}


@mistake(
    "tanh-derivative-of-sigmoid",
    on="tanh",
    direction="backward",
    text="y (1 - y) is the derivative of the sigmoid; tanh has 1 - y^2",
    right="dx = dy (1 - y^2)",
    wrong="dx = dy y (1 - y)",
)
def _(op: Operation) -> Outputs:
    return {"dx": op["dy"] * op["y"] * (1 - op["y"])}


@mistake(
    "tanh-derivative-not-squared",
    on="tanh",
    direction="backward",
    text="the derivative has the square of y",
    right="dx = dy (1 - y^2)",
    wrong="dx = dy (1 - y)",
)
def _(op: Operation) -> Outputs:
    return {"dx": op["dy"] * (1 - op["y"])}


@mistake(
    "tanh-derivative-of-plus",
    on="tanh",
    direction="backward",
    text="the derivative has 1 - y^2, not 1 + y^2",
    right="dx = dy (1 - y^2)",
    wrong="dx = dy (1 + y^2)",
)
def _(op: Operation) -> Outputs:
    return {"dx": op["dy"] * (1 + op["y"] * op["y"])}


@mistake(
    "tanh-value-for-derivative",
    on="tanh",
    direction="backward",
    text="the upstream gradient is multiplied with tanh(x) instead of its derivative",
    right="dx = dy (1 - y^2)",
    wrong="dx = dy y",
)
def _(op: Operation) -> Outputs:
    return {"dx": op["dy"] * op["y"]}


@mistake(
    "tanh-derivative-of-output",
    on="tanh",
    direction="backward",
    text="nothing to change: 1 - a^2 is the derivative in terms of the activation a",
    right="dx = dy (1 - tanh(x)^2)",
    wrong="dx = dy (1 - y) (1 + y)",
    equivalent="y is tanh(x), and 1 - y^2 = (1 - y) (1 + y)",
)
def _(op: Operation) -> Outputs:
    return {"dx": op["dy"] * ((1 - op["y"]) * (1 + op["y"]))}


# -- softmax -----------------------------------------------------------------------------------------------------------


@mistake(
    "softmax-over-the-batch",
    on="softmax",
    direction="forward",
    text="softmax runs over the samples (axis 0); it belongs on the last axis, so that each row sums to 1",
    right="y = exp(x) / sum(exp(x), axis=-1)",
    wrong="y = exp(x) / sum(exp(x), axis=0)",
)
def _(op: Operation) -> Outputs:
    e = np.exp(op["x"] - np.max(op["x"], axis=0))
    return {"y": e / np.sum(e, axis=0)}


@mistake(
    "softmax-over-everything",
    on="softmax",
    direction="forward",
    text="the sum runs over the whole batch: give it axis=-1 and keepdims=True, so that each row sums to 1",
    right="y = exp(x) / sum(exp(x), axis=-1)",
    wrong="y = exp(x) / sum(exp(x))",
    shows="with more than one row",
)
def _(op: Operation) -> Outputs | None:
    x = op["x"]
    if x.size == x.shape[-1]:
        return None
    e = np.exp(x - np.max(x))
    return {"y": e / np.sum(e)}


@mistake(
    "softmax-not-normalized",
    on="softmax",
    direction="forward",
    text="the exponentials are not divided by their sum",
    right="y = exp(x) / sum(exp(x))",
    wrong="y = exp(x - max(x))",
)
def _(op: Operation) -> Outputs:
    return {"y": np.exp(op["x"] - np.max(op["x"], axis=-1, keepdims=True))}


@mistake(
    "softmax-is-sigmoid",
    on="softmax",
    direction="forward",
    text="this is the sigmoid of each output alone; softmax divides by the sum over all classes",
    right="y = exp(x) / sum(exp(x))",
    wrong="y = 1 / (1 + exp(-x))",
)
def _(op: Operation) -> Outputs:
    return {"y": expit(op["x"])}


@mistake(
    "softmax-of-softmax",
    on="softmax",
    direction="forward",
    text="the outputs fit softmax(softmax(z)): apply softmax once",
    right="y = softmax(x)",
    wrong="y = softmax(softmax(x))",
    shows="with more than one class",
)
def _(op: Operation) -> Outputs | None:
    return None if op["x"].shape[-1] == 1 else {"y": op.entry.forward(op.outputs["y"])}


@mistake(
    "softmax-diagonal-only",
    on="softmax",
    direction="backward",
    text="softmax backward lacks its off-diagonal terms -p_i * sum(p*g)",
    right="dx = y (dy - sum(dy y))",
    wrong="dx = dy y (1 - y)",
    shows="with more than one class",
)
def _(op: Operation) -> Outputs | None:
    return None if op["x"].shape[-1] == 1 else {"dx": op["dy"] * op["y"] * (1 - op["y"])}


UNLESS_ORTHOGONAL = "unless sum(dy y) is 0, as behind a cross-entropy that divides by the sum of the probabilities"


def _orthogonal(op: Operation) -> bool:
    """Whether sum(dy y) is 0 in every row but for rounding: n terms, each off by a few units."""
    terms = op["dy"] * op["y"]
    rounding = 8 * terms.shape[-1] * np.finfo(terms.dtype).eps * np.sum(np.abs(terms), axis=-1)
    return bool(np.all(np.abs(np.sum(terms, axis=-1)) <= rounding))


@mistake(
    "softmax-off-diagonal-sign",
    on="softmax",
    direction="backward",
    text="the sum is subtracted, not added: off the diagonal the Jacobian is -y_i y_j",
    right="dx = y (dy - sum(dy y))",
    wrong="dx = y (dy + sum(dy y))",
    shows=UNLESS_ORTHOGONAL,
)
def _(op: Operation) -> Outputs | None:
    return (
        None if _orthogonal(op) else {"dx": op["y"] * (op["dy"] + np.sum(op["dy"] * op["y"], axis=-1, keepdims=True))}
    )


@mistake(
    "softmax-without-off-diagonal",
    on="softmax",
    direction="backward",
    text="the term -y sum(dy y) of the softmax derivative is missing",
    right="dx = y (dy - sum(dy y))",
    wrong="dx = y dy",
    shows=UNLESS_ORTHOGONAL,
)
def _(op: Operation) -> Outputs | None:
    return None if _orthogonal(op) else {"dx": op["y"] * op["dy"]}


@mistake(
    "softmax-gradient-across-the-batch",
    on="softmax",
    direction="backward",
    text="the sum of the derivative runs over the whole batch: each row has its own Jacobian",
    right="dx = y (dy - sum(dy y, axis=-1))",
    wrong="dx = y (dy - sum(dy y))",
    shows=f"with more than one row, {UNLESS_ORTHOGONAL}",
)
def _(op: Operation) -> Outputs | None:
    if op["x"].size == op["x"].shape[-1] or _orthogonal(op):
        return None
    return {"dx": op["y"] * (op["dy"] - np.sum(op["dy"] * op["y"]))}


@mistake(
    "softmax-gradient-sum-not-weighted",
    on="softmax",
    direction="backward",
    text="the sum is of dy y, not of dy alone",
    right="dx = y (dy - sum(dy y))",
    wrong="dx = y (dy - sum(dy))",
)
def _(op: Operation) -> Outputs:
    return {"dx": op["y"] * (op["dy"] - np.sum(op["dy"], axis=-1, keepdims=True))}


@mistake(
    "softmax-without-maximum",
    on="softmax",
    direction="forward",
    text="nothing to change for moderate x; subtract the maximum before exp overflows",
    right="y = exp(x - max(x)) / sum(exp(x - max(x)))",
    wrong="y = exp(x) / sum(exp(x))",
    shows="only where exp(x) overflows or vanishes",
    equivalent="the factor exp(-max(x)) cancels",
)
def _(op: Operation) -> Outputs | None:
    if np.max(np.abs(op["x"])) > MODERATE:
        return None
    e = np.exp(op["x"])
    return {"y": e / np.sum(e, axis=-1, keepdims=True)}


@mistake(
    "softmax-one-maximum-for-the-batch",
    on="softmax",
    direction="forward",
    text="nothing to change for moderate x; take the maximum of each row before rows far below the largest vanish",
    right="y = exp(x - max(x, axis=-1)) / sum(exp(x - max(x, axis=-1)))",
    wrong="y = exp(x - max(x)) / sum(exp(x - max(x)), axis=-1)",
    shows="only in rows far below the largest",
    equivalent="any one factor cancels in each row",
)
def _(op: Operation) -> Outputs | None:
    if np.ptp(op["x"]) > MODERATE:
        return None
    e = np.exp(op["x"] - np.max(op["x"]))
    return {"y": e / np.sum(e, axis=-1, keepdims=True)}


@mistake(
    "softmax-jacobian-transposed",
    on="softmax",
    direction="backward",
    text="nothing to change: the Jacobian of softmax is symmetric",
    right="dx_i = sum_j dy_j (y_j [i = j] - y_j y_i)",
    wrong="dx_i = sum_j (y_i [i = j] - y_i y_j) dy_j",
    equivalent="y_i y_j = y_j y_i",
)
def _(op: Operation) -> Outputs:
    return {"dx": op["y"] * (op["dy"] - np.sum(op["y"] * op["dy"], axis=-1, keepdims=True))}


# -- gelu --------------------------------------------------------------------------------------------------------------


def _other_gelu(op: Operation) -> Any:
    """The approximate gelu for the exact one, and the exact for the approximate."""
    return type(_entry(op))(approximate=not _entry(op).approximate)


def _exact(op: Operation) -> bool:
    return not _entry(op).approximate


def _distribution(x: Any) -> Any:
    """The standard normal distribution."""
    return 0.5 * erfc(-x * math.sqrt(0.5))


def _density(x: Any) -> Any:
    """The standard normal density."""
    return np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


@mistake(
    "gelu-other-formula",
    on="gelu",
    direction="forward",
    text="Keras has the exact gelu unless approximate=True; this is the other of the two formulas",
    right="y = x Phi(x); with approximate=True, y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))",
    wrong="y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))); with approximate=True, y = x Phi(x)",
)
def _(op: Operation) -> Outputs:
    return {"y": _other_gelu(op).forward(op["x"])}


@mistake(
    "gelu-by-sigmoid",
    on="gelu",
    direction="forward",
    text="this is the approximation of gelu by a sigmoid; Keras has the normal distribution",
    right="y = x Phi(x)",
    wrong="y = x / (1 + exp(-1.702 x))",
)
def _(op: Operation) -> Outputs:
    return {"y": op["x"] * expit(1.702 * op["x"])}


@mistake(
    "gelu-erf-of-unscaled-argument",
    on="gelu",
    direction="forward",
    text="erf takes x / sqrt(2), not x",
    right="y = x/2 (1 + erf(x / sqrt(2)))",
    wrong="y = x/2 (1 + erf(x))",
)
def _(op: Operation) -> Outputs | None:
    return {"y": 0.5 * op["x"] * erfc(-op["x"])} if _exact(op) else None


@mistake(
    "gelu-without-half",
    on="gelu",
    direction="forward",
    text="the factor 1/2 in front of 1 + erf is missing",
    right="y = x/2 (1 + erf(x / sqrt(2)))",
    wrong="y = x (1 + erf(x / sqrt(2)))",
)
def _(op: Operation) -> Outputs:
    return {"y": 2 * op.outputs["y"]}


@mistake(
    "gelu-derivative-of-other-formula",
    on="gelu",
    direction="backward",
    text="this is the derivative of the other gelu: the exact one unless approximate=True",
    right="dx = dy f'(x)",
    wrong="dx = dy g'(x), g the approximate gelu for the exact one, or the reverse",
)
def _(op: Operation) -> Outputs:
    return {"dx": _other_gelu(op).backward(op["x"], op["y"], op["dy"])}


@mistake(
    "gelu-derivative-without-density",
    on="gelu",
    direction="backward",
    text="the second term of the product rule, x phi(x), is missing",
    right="dx = dy (Phi(x) + x phi(x))",
    wrong="dx = dy Phi(x)",
)
def _(op: Operation) -> Outputs | None:
    return {"dx": op["dy"] * _distribution(op["x"])} if _exact(op) else None


@mistake(
    "gelu-derivative-density-without-input",
    on="gelu",
    direction="backward",
    text="the density in the derivative lacks its factor x",
    right="dx = dy (Phi(x) + x phi(x))",
    wrong="dx = dy (Phi(x) + phi(x))",
)
def _(op: Operation) -> Outputs | None:
    return {"dx": op["dy"] * (_distribution(op["x"]) + _density(op["x"]))} if _exact(op) else None


@mistake(
    "gelu-derivative-without-distribution",
    on="gelu",
    direction="backward",
    text="the first term of the product rule, Phi(x), is missing",
    right="dx = dy (Phi(x) + x phi(x))",
    wrong="dx = dy x phi(x)",
)
def _(op: Operation) -> Outputs | None:
    return {"dx": op["dy"] * op["x"] * _density(op["x"])} if _exact(op) else None


@mistake(
    "gelu-root-in-double",
    on="gelu",
    direction="forward",
    text="your sqrt(1/2) is the more exact one: Keras rounds it to float32 also in float64; do so to agree",
    right="y = x/2 erfc(-x float32(sqrt(1/2)))",
    wrong="y = x/2 erfc(-x sqrt(1/2))",
    shows="in float64",
)
def _(op: Operation) -> Outputs | None:
    return {"y": op["x"] * _distribution(op["x"])} if _exact(op) and _in_double(op) else None


@mistake(
    "gelu-derivative-root-in-double",
    on="gelu",
    direction="backward",
    text="your sqrt(1/2) is the more exact one: Keras rounds it to float32 also in float64; do so to agree",
    right="dx = dy (Phi(x) + x phi(x)) with float32(sqrt(1/2))",
    wrong="dx = dy (Phi(x) + x phi(x)) with sqrt(1/2)",
    shows="in float64",
)
def _(op: Operation) -> Outputs | None:
    x = op["x"]
    return {"dx": op["dy"] * (_distribution(x) + x * _density(x))} if _exact(op) and _in_double(op) else None


@mistake(
    "gelu-distribution-from-erf",
    on="gelu",
    direction="forward",
    text="nothing to change; for large negative x, erfc keeps the digits that 1 + erf loses",
    right="y = x/2 erfc(-x / sqrt(2))",
    wrong="y = x/2 (1 + erf(x / sqrt(2)))",
    shows="only in the left tail, where 1 + erf cancels, and only in float32",
    equivalent="erfc(-t) = 1 - erf(-t) = 1 + erf(t)",
)
def _(op: Operation) -> Outputs | None:
    x = op["x"]
    if not _exact(op) or (x.dtype == np.float32 and np.min(x) < -1):  # below, 1 + erf < 1/3 has lost more than a bit
        return None
    return {"y": 0.5 * x * (1 + erf(x * _as_float32(math.sqrt(0.5))))}


@mistake(
    "linear-derivative-of-value",
    on="linear",
    direction="backward",
    text="the derivative of a linear output is 1, not the value itself",
    right="dx = dy",
    wrong="dx = dy x",
    shows="where x is not 1",
)
def _(op: Operation) -> Outputs:
    return {"dx": op["dy"] * op["x"]}


@mistake(
    "linear-derivative-zero",
    on="linear",
    direction="backward",
    text="a linear output passes the gradient on; it does not stop it",
    right="dx = dy",
    wrong="dx = 0",
)
def _(op: Operation) -> Outputs:
    return {"dx": np.zeros_like(op["dy"])}


@mistake(
    "linear-output-activated",
    on="linear",
    direction="forward",
    text="this layer has no activation: leave the tanh out",
    right="y = x",
    wrong="y = tanh(x)",
)
def _(op: Operation) -> Outputs:
    return {"y": np.tanh(op["x"])}
