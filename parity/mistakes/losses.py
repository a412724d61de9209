"""Mistakes in the values and derivatives of losses.

A cross-entropy behind a sigmoid or a softmax is computed from the logits z, and its derivative is by them; p is then
what the activation made of z. n is the number of losses (samples, times positions where there are any), K the number of
outputs. What a mistake does to the penalties of regularizers is a matter of regularizers.py: here they stay right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.special import expit

from parity.mistakes.catalogue import mistake
from parity.runners.steps import Operation

Outputs = Mapping[str, Any]

SMALL = (1e-8, 1e-7, 1e-9, 1e-10, 1e-12, 1e-6, 1e-5, 1e-15)
"""What people add to a probability before its logarithm."""


def _entry(op: Operation) -> Any:
    """The loss, of the class that the mistake is entered on."""
    return op.entry


def _logits(op: Operation) -> Any:
    """The logits that a cross-entropy takes; None where it has only probabilities."""
    if "logits" in op:
        return op["logits"]
    return op["y_pred"] if _entry(op).from_logits else None


def _outputs(op: Operation) -> int:
    """K: the number of outputs of a sample, or of classes."""
    return int(op["y_pred"].shape[-1])


def _count(op: Operation) -> int:
    """n: how many losses are averaged; 1 where they are summed."""
    return 1 if _entry(op).reduction == "sum" else op["y_pred"].size // _outputs(op)


def _targets(op: Operation) -> Any:
    """The labels as the loss uses them: smoothed, in the dtype of the predictions, integers where they are classes."""
    return _entry(op).targets(op["y_true"], op["y_pred"])


def _rows(op: Operation) -> Any:
    """The labels as rows of K, also where they are classes."""
    targets = _targets(op)
    if targets.ndim == op["y_pred"].ndim:
        return targets
    return (targets[..., np.newaxis] == np.arange(_outputs(op))).astype(op["y_pred"].dtype)


def _error(op: Operation) -> Any:
    """e = p - y."""
    return op["y_pred"] - _targets(op)


def _data_loss(op: Operation) -> Any:
    """The loss without the penalties."""
    return _entry(op).forward(op["y_true"], op["y_pred"], op.inputs.get("logits"))


def _loss(op: Operation, losses: Any) -> Outputs:
    """The number that `losses`, one a sample, are reduced to, with the penalties."""
    return {"loss": np.sum(losses) / _count(op) + op["penalty"]}


def _scaled_loss(op: Operation, factor: float) -> Outputs:
    return {"loss": _data_loss(op) * factor + op["penalty"]}


def _scaled(op: Operation, factor: float) -> Outputs:
    return {"d": op.outputs["d"] * factor}


def _gradient(op: Operation, derivative: Any) -> Outputs:
    """The gradient for the derivative of each sample's own loss."""
    return {"d": derivative / _count(op)}


def of_outputs(op: Operation) -> Outputs:
    """A cross-entropy, or its gradient by the logits, as code has them that goes on from its outputs p, not from the
    logits: -sum(y log p) and p - y. The same where p is right; where it is wrong, they take it as it is."""
    p, binary = op["y_pred"], op.kind == "BinaryCrossentropy"
    y = _targets(op) if binary else _rows(op)
    if op.direction == "backward":
        return _gradient(op, (p - y) / (_outputs(op) if binary else 1))
    if binary:
        return _loss(op, -np.mean(y * np.log(p) + (1 - y) * np.log1p(-p), axis=-1))
    return _loss(op, -np.sum(y * np.log(p), axis=-1))


# -- any loss ----------------------------------------------------------------------------------------------------------


@mistake(
    "loss-sum-for-mean",
    on="loss",
    direction="forward",
    text="the losses are summed over the batch: divide by the number of samples",
    right="L = sum(l) / n",
    wrong="L = sum(l)",
    shows="with more than one sample",
)
def _(op: Operation) -> Outputs | None:
    return None if _count(op) == 1 else _scaled_loss(op, _count(op))


@mistake(
    "loss-mean-of-mean",
    on="loss",
    direction="forward",
    text="the loss is divided by the number of samples twice",
    right="L = sum(l) / n",
    wrong="L = sum(l) / n^2",
    shows="with more than one sample",
)
def _(op: Operation) -> Outputs | None:
    return None if _count(op) == 1 else _scaled_loss(op, 1 / _count(op))


@mistake(
    "loss-negated",
    on="loss",
    direction="forward",
    text="the loss has the wrong sign",
    right="L = sum(l) / n",
    wrong="L = -sum(l) / n",
)
def _(op: Operation) -> Outputs:
    return _scaled_loss(op, -1)


@mistake(
    "loss-gradient-sum-for-mean",
    on="loss",
    direction="backward",
    text="the gradient of the loss is not divided by the number of samples: divide it by the batch size",
    right="d = dl / n",
    wrong="d = dl",
    shows="with more than one sample",
)
def _(op: Operation) -> Outputs | None:
    return None if _count(op) == 1 else _scaled(op, _count(op))


@mistake(
    "loss-gradient-divided-twice",
    on="loss",
    direction="backward",
    text="the gradient of the loss is divided by the number of samples twice",
    right="d = dl / n",
    wrong="d = dl / n^2",
    shows="with more than one sample",
)
def _(op: Operation) -> Outputs | None:
    return None if _count(op) == 1 else _scaled(op, 1 / _count(op))


@mistake(
    "loss-gradient-divided-by-outputs-for-samples",
    on="loss",
    direction="backward",
    text="the batch size comes from the wrong axis: divide by shape[0], not by shape[1]",
    right="d = dl / n",
    wrong="d = dl / K",
    shows="where there are not as many outputs as samples",
)
def _(op: Operation) -> Outputs | None:
    n, k = _count(op), _outputs(op)
    return None if n in (1, k) else _scaled(op, n / k)


@mistake(
    "loss-gradient-negated",
    on="loss",
    direction="backward",
    text="the gradient of the loss has the wrong sign: prediction minus target, not target minus prediction",
    right="d = dl / n",
    wrong="d = -dl / n",
)
def _(op: Operation) -> Outputs:
    return _scaled(op, -1)


# -- MeanSquaredError --------------------------------------------------------------------------------------------------


@mistake(
    "mse-halved",
    on="MeanSquaredError",
    direction="forward",
    text="this is half the squared error of textbooks; Keras has no 1/2",
    right="l = mean((p - y)^2)",
    wrong="l = mean((p - y)^2) / 2",
)
def _(op: Operation) -> Outputs:
    return _scaled_loss(op, 0.5)


@mistake(
    "mse-summed-over-outputs",
    on="MeanSquaredError",
    direction="forward",
    text="the squares are summed over the outputs; Keras takes their mean",
    right="l = mean((p - y)^2)",
    wrong="l = sum((p - y)^2)",
    shows="with more than one output",
)
def _(op: Operation) -> Outputs | None:
    return None if _outputs(op) == 1 else _scaled_loss(op, _outputs(op))


@mistake(
    "mse-half-sum-over-outputs",
    on="MeanSquaredError",
    direction="forward",
    text="this is half the sum of squares of textbooks; Keras takes the mean over the outputs, without the 1/2",
    right="l = mean((p - y)^2)",
    wrong="l = sum((p - y)^2) / 2",
    shows="except with two outputs",
)
def _(op: Operation) -> Outputs | None:
    return None if _outputs(op) == 2 else _scaled_loss(op, _outputs(op) / 2)


@mistake(
    "mse-root",
    on="MeanSquaredError",
    direction="forward",
    text="this is the root of the mean squared error",
    right="l = mean((p - y)^2)",
    wrong="L = sqrt(mean((p - y)^2))",
)
def _(op: Operation) -> Outputs:
    return {"loss": np.sqrt(_data_loss(op)) + op["penalty"]}


@mistake(
    "mse-square-of-mean",
    on="MeanSquaredError",
    direction="forward",
    text="square each error before the mean: a parenthesis is in the wrong place",
    right="l = mean((p - y)^2)",
    wrong="l = mean(p - y)^2",
    shows="with more than one output",
)
def _(op: Operation) -> Outputs | None:
    return None if _outputs(op) == 1 else _loss(op, np.mean(_error(op), axis=-1) ** 2)


@mistake(
    "mse-over-all-pairs",
    on="MeanSquaredError",
    direction="forward",
    text="the loss is the mean over n*n pairs: y_true has shape (n,), y_pred (n, 1), and so their difference (n, n); "
    "reshape y_true to (n, 1)",
    right="L = sum_i (p_i - y_i)^2 / n",
    wrong="L = sum_ij (p_i - y_j)^2 / n^2",
    shows="with one output and more than one sample",
)
def _(op: Operation) -> Outputs | None:
    if _outputs(op) != 1 or _count(op) == 1 or op["y_pred"].ndim != 2:
        return None
    return _loss(op, np.mean((op["y_pred"] - _targets(op).T) ** 2, axis=-1))


@mistake(
    "mse-gradient-without-two",
    on="MeanSquaredError",
    direction="backward",
    text="the factor 2 of the derivative is missing: Keras squares the error without a 1/2",
    right="d = 2 (p - y) / K / n",
    wrong="d = (p - y) / K / n",
)
def _(op: Operation) -> Outputs:
    return _scaled(op, 0.5)


@mistake(
    "mse-gradient-summed-over-outputs",
    on="MeanSquaredError",
    direction="backward",
    text="the gradient is not divided by the number of outputs: Keras takes the mean over them too",
    right="d = 2 (p - y) / K / n",
    wrong="d = 2 (p - y) / n",
    shows="with more than one output",
)
def _(op: Operation) -> Outputs | None:
    return None if _outputs(op) == 1 else _scaled(op, _outputs(op))


@mistake(
    "mse-gradient-of-half-sum",
    on="MeanSquaredError",
    direction="backward",
    text="this is the gradient of half the sum of squares: double it and divide it by the number of outputs",
    right="d = 2 (p - y) / K / n",
    wrong="d = (p - y) / n",
    shows="except with two outputs",
)
def _(op: Operation) -> Outputs | None:
    return None if _outputs(op) == 2 else _gradient(op, _error(op))


@mistake(
    "mse-gradient-is-the-error",
    on="MeanSquaredError",
    direction="backward",
    text="this is the textbook delta p - y: double it, divide it by the number of outputs and by the batch size",
    right="d = 2 (p - y) / K / n",
    wrong="d = p - y",
    shows="unless outputs times samples are two",
)
def _(op: Operation) -> Outputs | None:
    return None if _outputs(op) * _count(op) == 2 else {"d": _error(op)}


@mistake(
    "mse-gradient-squared",
    on="MeanSquaredError",
    direction="backward",
    text="the error is squared in the gradient as well: its derivative is linear in p - y",
    right="d = 2 (p - y) / K / n",
    wrong="d = (p - y)^2 / K / n",
)
def _(op: Operation) -> Outputs:
    return _gradient(op, _error(op) ** 2 / _outputs(op))


# -- MeanAbsoluteError -------------------------------------------------------------------------------------------------


@mistake(
    "mae-summed-over-outputs",
    on="MeanAbsoluteError",
    direction="forward",
    text="the absolute errors are summed over the outputs; Keras takes their mean",
    right="l = mean(|p - y|)",
    wrong="l = sum(|p - y|)",
    shows="with more than one output",
)
def _(op: Operation) -> Outputs | None:
    return None if _outputs(op) == 1 else _scaled_loss(op, _outputs(op))


@mistake(
    "mae-without-absolute",
    on="MeanAbsoluteError",
    direction="forward",
    text="the absolute value is missing: errors of either sign cancel",
    right="l = mean(|p - y|)",
    wrong="l = mean(p - y)",
    shows="where a prediction is below its target",
)
def _(op: Operation) -> Outputs | None:
    return _loss(op, np.mean(_error(op), axis=-1)) if np.any(_error(op) < 0) else None


@mistake(
    "mae-squared",
    on="MeanAbsoluteError",
    direction="forward",
    text="this is the squared error; the loss is the absolute one",
    right="l = mean(|p - y|)",
    wrong="l = mean((p - y)^2)",
)
def _(op: Operation) -> Outputs:
    return _loss(op, np.mean(_error(op) ** 2, axis=-1))


@mistake(
    "mae-gradient-of-squared-error",
    on="MeanAbsoluteError",
    direction="backward",
    text="you differentiated 0.5*(p - y)^2, the loss is abs(p - y): take the sign of p - y",
    right="d = sign(p - y) / K / n",
    wrong="d = (p - y) / K / n",
)
def _(op: Operation) -> Outputs:
    return _gradient(op, _error(op) / _outputs(op))


@mistake(
    "mae-gradient-summed-over-outputs",
    on="MeanAbsoluteError",
    direction="backward",
    text="the gradient is not divided by the number of outputs: Keras takes the mean over them too",
    right="d = sign(p - y) / K / n",
    wrong="d = sign(p - y) / n",
    shows="with more than one output",
)
def _(op: Operation) -> Outputs | None:
    return None if _outputs(op) == 1 else _scaled(op, _outputs(op))


@mistake(
    "mae-gradient-one-sided",
    on="MeanAbsoluteError",
    direction="backward",
    text="the gradient is -1, not 0, where the prediction is below its target",
    right="d = sign(p - y) / K / n",
    wrong="d = [p > y] / K / n",
    shows="where a prediction is below its target",
)
def _(op: Operation) -> Outputs | None:
    return {"d": np.maximum(op.outputs["d"], 0)} if np.any(_error(op) < 0) else None


# -- Huber -------------------------------------------------------------------------------------------------------------


def _beyond(op: Operation) -> Any:
    """Where the error is larger than delta; None where it is nowhere."""
    beyond = np.abs(_error(op)) > _entry(op).delta
    return beyond if np.any(beyond) else None


@mistake(
    "huber-delta-ignored",
    on="Huber",
    direction="forward",
    text="delta is taken as 1: use the one that the loss was given",
    right="l = mean(e^2/2 where |e| <= delta, else delta |e| - delta^2/2)",
    wrong="l = mean(e^2/2 where |e| <= 1, else |e| - 1/2)",
    shows="where delta is not 1 and an error is larger than one of the two",
)
def _(op: Operation) -> Outputs | None:
    other = type(_entry(op))(delta=1.0)
    if _entry(op).delta == 1 or not np.any(np.abs(_error(op)) > min(1, _entry(op).delta)):
        return None
    return _loss(op, other.per_sample(_targets(op), op["y_pred"]))


@mistake(
    "huber-without-linear-part",
    on="Huber",
    direction="forward",
    text="beyond delta the loss is linear, not half the square",
    right="l = mean(e^2/2 where |e| <= delta, else delta |e| - delta^2/2)",
    wrong="l = mean(e^2/2)",
    shows="where an error is larger than delta",
)
def _(op: Operation) -> Outputs | None:
    return None if _beyond(op) is None else _loss(op, np.mean(0.5 * _error(op) ** 2, axis=-1))


@mistake(
    "huber-without-constant",
    on="Huber",
    direction="forward",
    text="the linear part lacks its constant -delta^2/2, so the two parts do not meet",
    right="l = delta |e| - delta^2/2 where |e| > delta",
    wrong="l = delta |e| where |e| > delta",
    shows="where an error is larger than delta",
)
def _(op: Operation) -> Outputs | None:
    if (beyond := _beyond(op)) is None:
        return None
    e = _error(op)
    return _loss(op, np.mean(np.where(beyond, _entry(op).delta * np.abs(e), 0.5 * e * e), axis=-1))


@mistake(
    "huber-without-half",
    on="Huber",
    direction="forward",
    text="the quadratic part is half the square",
    right="l = e^2/2 where |e| <= delta",
    wrong="l = e^2 where |e| <= delta",
    shows="where an error is not larger than delta",
)
def _(op: Operation) -> Outputs | None:
    delta, e = _entry(op).delta, _error(op)
    size = np.abs(e)
    if np.all(size > delta):
        return None
    return _loss(op, np.mean(np.where(size <= delta, e * e, delta * size - 0.5 * delta**2), axis=-1))


@mistake(
    "huber-gradient-not-clipped",
    on="Huber",
    direction="backward",
    text="the gradient is not clipped to [-delta, delta]: this is the one of half the squared error",
    right="d = clip(e, -delta, delta) / K / n",
    wrong="d = e / K / n",
    shows="where an error is larger than delta",
)
def _(op: Operation) -> Outputs | None:
    return None if _beyond(op) is None else _gradient(op, _error(op) / _outputs(op))


@mistake(
    "huber-gradient-sign-without-delta",
    on="Huber",
    direction="backward",
    text="beyond delta the gradient is delta sign(e), not sign(e)",
    right="d = clip(e, -delta, delta) / K / n",
    wrong="d = (e where |e| <= delta, else sign(e)) / K / n",
    shows="where delta is not 1 and an error is larger than delta",
)
def _(op: Operation) -> Outputs | None:
    beyond = _beyond(op)
    if _entry(op).delta == 1 or beyond is None:
        return None
    return _gradient(op, np.where(beyond, np.sign(_error(op)), _error(op)) / _outputs(op))


@mistake(
    "huber-gradient-zero-beyond-delta",
    on="Huber",
    direction="backward",
    text="beyond delta the gradient is delta sign(e), not 0",
    right="d = clip(e, -delta, delta) / K / n",
    wrong="d = (e where |e| <= delta, else 0) / K / n",
    shows="where an error is larger than delta",
)
def _(op: Operation) -> Outputs | None:
    beyond = _beyond(op)
    return None if beyond is None else {"d": np.where(beyond, 0, op.outputs["d"])}


@mistake(
    "huber-gradient-summed-over-outputs",
    on="Huber",
    direction="backward",
    text="the gradient is not divided by the number of outputs: Keras takes the mean over them too",
    right="d = clip(e, -delta, delta) / K / n",
    wrong="d = clip(e, -delta, delta) / n",
    shows="with more than one output",
)
def _(op: Operation) -> Outputs | None:
    return None if _outputs(op) == 1 else _scaled(op, _outputs(op))


# -- BinaryCrossentropy ------------------------------------------------------------------------------------------------


def _binary(op: Operation, y: Any, z: Any) -> Any:
    """y log p + (1 - y) log(1 - p), negated, for p = sigmoid(z): elementwise."""
    return np.maximum(z, 0) - z * y + np.log1p(np.exp(-np.abs(z)))


def _unsmoothed(op: Operation) -> Any:
    """The labels before smoothing; None where they are not smoothed."""
    return op["y_true"].astype(op["y_pred"].dtype) if _entry(op).label_smoothing else None


@mistake(
    "bce-summed-over-outputs",
    on="BinaryCrossentropy",
    direction="forward",
    text="the terms are summed over the outputs; Keras takes their mean",
    right="l = -mean(y log p + (1 - y) log(1 - p))",
    wrong="l = -sum(y log p + (1 - y) log(1 - p))",
    shows="with more than one output",
)
def _(op: Operation) -> Outputs | None:
    return None if _outputs(op) == 1 else _scaled_loss(op, _outputs(op))


@mistake(
    "bce-without-negative-labels",
    on="BinaryCrossentropy",
    direction="forward",
    text="the term (1 - y) log(1 - p) is missing: this is the cross-entropy for softmax",
    right="l = -mean(y log p + (1 - y) log(1 - p))",
    wrong="l = -mean(y log p)",
    shows="where a label is not 1",
)
def _(op: Operation) -> Outputs | None:
    z, y = _logits(op), _targets(op)
    return None if z is None or np.all(y == 1) else _loss(op, np.mean(y * _binary(op, 1, z), axis=-1))


@mistake(
    "bce-base-two",
    on="BinaryCrossentropy",
    direction="forward",
    text="the logarithm is to base 2; the loss takes the natural one",
    right="l = -mean(y ln p + (1 - y) ln(1 - p))",
    wrong="l = -mean(y log2 p + (1 - y) log2(1 - p))",
)
def _(op: Operation) -> Outputs:
    return _scaled_loss(op, 1 / np.log(2).item())


@mistake(
    "bce-sigmoid-twice",
    on="BinaryCrossentropy",
    direction="forward",
    text="the sigmoid is applied twice: from_logits=True is for pre-activations, not for probabilities",
    right="l from p = sigmoid(z)",
    wrong="l from sigmoid(sigmoid(z))",
)
def _(op: Operation) -> Outputs | None:
    z = _logits(op)
    return None if z is None else _loss(op, np.mean(_binary(op, _targets(op), expit(z)), axis=-1))


@mistake(
    "bce-epsilon-in-logarithm",
    on="BinaryCrossentropy",
    direction="forward",
    text="a small number is added inside the logarithm: compute the loss from the logits instead, which needs none",
    right="l = -mean(y log p + (1 - y) log(1 - p))",
    wrong="l = -mean(y log(p + {value:g}) + (1 - y) log(1 - p + {value:g}))",
    shows="in float64; in float32 the number is smaller than the rounding of p",
    values=SMALL,
)
def _(op: Operation, value: float) -> Outputs | None:
    z, y = _logits(op), _targets(op)
    if z is None or z.dtype == np.float32:
        return None
    return _loss(op, -np.mean(y * np.log(expit(z) + value) + (1 - y) * np.log(expit(-z) + value), axis=-1))


@mistake(
    "bce-labels-not-smoothed",
    on="BinaryCrossentropy",
    direction="forward",
    text="the loss uses the labels as they are: smooth them first",
    right="l of y (1 - s) + s/2",
    wrong="l of y",
    shows="with label_smoothing",
)
def _(op: Operation) -> Outputs | None:
    z, y = _logits(op), _unsmoothed(op)
    return None if z is None or y is None else _loss(op, np.mean(_binary(op, y, z), axis=-1))


@mistake(
    "bce-gradient-summed-over-outputs",
    on="BinaryCrossentropy",
    direction="backward",
    text="the gradient is not divided by the number of outputs: Keras takes the mean over them too",
    right="d = (p - y) / K / n",
    wrong="d = (p - y) / n",
    shows="with more than one output",
)
def _(op: Operation) -> Outputs | None:
    return None if _outputs(op) == 1 else _scaled(op, _outputs(op))


@mistake(
    "bce-gradient-by-probabilities",
    on="BinaryCrossentropy",
    direction="backward",
    text="this is the gradient by the probabilities: multiply it with the derivative of the sigmoid, p (1 - p)",
    right="d = (p - y) / K / n",
    wrong="d = (p - y) / (p (1 - p)) / K / n",
)
def _(op: Operation) -> Outputs | None:
    z = _logits(op)
    return None if z is None else {"d": op.outputs["d"] / (expit(z) * expit(-z))}


@mistake(
    "bce-gradient-sigmoid-derivative-extra",
    on="BinaryCrossentropy",
    direction="backward",
    text="p - y contains the derivative of the sigmoid already: do not multiply with p (1 - p)",
    right="d = (p - y) / K / n",
    wrong="d = (p - y) p (1 - p) / K / n",
)
def _(op: Operation) -> Outputs | None:
    z = _logits(op)
    return None if z is None else {"d": op.outputs["d"] * expit(z) * expit(-z)}


@mistake(
    "bce-gradient-labels-not-smoothed",
    on="BinaryCrossentropy",
    direction="backward",
    text="the gradient uses the labels as they are: smooth them there as well as in the loss",
    right="d = (p - (y (1 - s) + s/2)) / K / n",
    wrong="d = (p - y) / K / n",
    shows="with label_smoothing",
)
def _(op: Operation) -> Outputs | None:
    z, y = _logits(op), _unsmoothed(op)
    return None if z is None or y is None else _gradient(op, (expit(z) - y) / _outputs(op))


@mistake(
    "bce-gradient-smoothing-without-shift",
    on="BinaryCrossentropy",
    direction="backward",
    text="smoothing pulls the labels towards 1/2: the term + s/2 is missing",
    right="d = (p - (y (1 - s) + s/2)) / K / n",
    wrong="d = (p - y (1 - s)) / K / n",
    shows="with label_smoothing",
)
def _(op: Operation) -> Outputs | None:
    z, y, s = _logits(op), _unsmoothed(op), _entry(op).label_smoothing
    return None if z is None or y is None else _gradient(op, (expit(z) - y * (1 - s)) / _outputs(op))


@mistake(
    "bce-gradient-from-predictions",
    on="BinaryCrossentropy",
    direction="backward",
    text="nothing to change: the derivative by p times the derivative of the sigmoid is p - y",
    right="d = (p - y) / K / n",
    wrong="d = ((1 - y) / (1 - p) - y / p) p (1 - p) / K / n",
    shows="only where p is 0 or 1 to rounding",
    equivalent="((1 - y) p - y (1 - p)) = p - y",
)
def _(op: Operation) -> Outputs | None:
    z = _logits(op)
    if z is None or np.any(expit(z) * (1 - expit(z)) == 0):
        return None
    p, y = expit(z), _targets(op)
    return _gradient(op, ((1 - y) / (1 - p) - y / p) * (p * (1 - p)) / _outputs(op))


# -- CategoricalCrossentropy and SparseCategoricalCrossentropy ---------------------------------------------------------


def _on_both(code: str, **words: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function for the two losses behind a softmax, which differ only in how labels are written."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        mistake(f"cce-{code}", on="CategoricalCrossentropy", **words)(function)
        mistake(f"scce-{code}", on="SparseCategoricalCrossentropy", **words)(function)
        return function

    return enter


def _softmax(z: Any) -> Any:
    e = np.exp(z - np.max(z, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def _surprise(z: Any) -> Any:
    """-log softmax(z): what each class would cost."""
    shifted = z - np.max(z, axis=-1, keepdims=True)
    return np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True)) - shifted


@_on_both(
    "averaged-over-classes",
    direction="forward",
    text="the loss is averaged over the classes too: sum over them, and take the mean over the samples alone",
    right="l = -sum(y log p)",
    wrong="l = -mean(y log p)",
    shows="with more than one class",
)
def _(op: Operation) -> Outputs | None:
    return None if _outputs(op) == 1 else _scaled_loss(op, 1 / _outputs(op))


@_on_both(
    "base-two",
    direction="forward",
    text="the logarithm is to base 2; the loss takes the natural one",
    right="l = -sum(y ln p)",
    wrong="l = -sum(y log2 p)",
)
def _(op: Operation) -> Outputs:
    return _scaled_loss(op, 1 / np.log(2).item())


@_on_both(
    "without-logarithm",
    direction="forward",
    text="the logarithm is missing: the loss is -log of the probability of the true class",
    right="l = -sum(y log p)",
    wrong="l = -sum(y p)",
)
def _(op: Operation) -> Outputs | None:
    z = _logits(op)
    return None if z is None else _loss(op, -np.sum(_rows(op) * _softmax(z), axis=-1))


@_on_both(
    "softmax-twice",
    direction="forward",
    text="softmax is applied twice: from_logits=True is for pre-activations, not for probabilities",
    right="l = -sum(y log softmax(z))",
    wrong="l = -sum(y log softmax(softmax(z)))",
)
def _(op: Operation) -> Outputs | None:
    z = _logits(op)
    return None if z is None else _loss(op, np.sum(_rows(op) * _surprise(_softmax(z)), axis=-1))


@_on_both(
    "of-binary-labels",
    direction="forward",
    text="this is the binary cross-entropy of each output: behind a softmax there is no term (1 - y) log(1 - p)",
    right="l = -sum(y log p)",
    wrong="l = -sum(y log p + (1 - y) log(1 - p))",
    shows="with more than one class",
)
def _(op: Operation) -> Outputs | None:
    z, y = _logits(op), _rows(op)
    if z is None or np.any(_softmax(z) == 1):
        return None
    return _loss(op, np.sum(y * _surprise(z) - (1 - y) * np.log(1 - _softmax(z)), axis=-1))


@_on_both(
    "labels-shifted",
    direction="forward",
    text="the labels are off by one: classes are counted from 0",
    right="l = -log p_t",
    wrong="l = -log p_(t+1)",
    shows="with more than one class",
)
def _(op: Operation) -> Outputs | None:
    z = _logits(op)
    if z is None or _outputs(op) == 1:
        return None
    return _loss(op, np.sum(np.roll(_rows(op), 1, axis=-1) * _surprise(z), axis=-1))


@_on_both(
    "epsilon-in-logarithm",
    direction="forward",
    text="a small number is added inside the logarithm: compute the loss from the logits instead, which needs none",
    right="l = -sum(y log p)",
    wrong="l = -sum(y log(p + {value:g}))",
    shows="in float64; in float32 the number is smaller than the rounding of p",
    values=SMALL,
)
def _(op: Operation, value: float) -> Outputs | None:
    z = _logits(op)
    if z is None or z.dtype == np.float32:
        return None
    return _loss(op, -np.sum(_rows(op) * np.log(_softmax(z) + value), axis=-1))


@_on_both(
    "gradient-averaged-over-classes",
    direction="backward",
    text="the gradient is divided by the number of classes: divide it by the batch size alone",
    right="d = (p - y) / n",
    wrong="d = (p - y) / K / n",
    shows="with more than one class",
)
def _(op: Operation) -> Outputs | None:
    return None if _outputs(op) == 1 else _scaled(op, 1 / _outputs(op))


@_on_both(
    "gradient-by-probabilities",
    direction="backward",
    text="this is the gradient by the probabilities: multiply it with the Jacobian of softmax, which gives p - y",
    right="d = (p - y) / n",
    wrong="d = -y / p / n",
)
def _(op: Operation) -> Outputs | None:
    z = _logits(op)
    return None if z is None else _gradient(op, -_rows(op) / _softmax(z))


@_on_both(
    "gradient-diagonal-only",
    direction="backward",
    text="-y / p met only the diagonal p (1 - p): softmax backward lacks its off-diagonal terms -p_i * sum(p*g); with "
    "them, p - y comes out",
    right="d = (p - y) / n",
    wrong="d = -y (1 - p) / n",
    shows="with more than one class",
)
def _(op: Operation) -> Outputs | None:
    z = _logits(op)
    return None if z is None or _outputs(op) == 1 else _gradient(op, -_rows(op) * (1 - _softmax(z)))


@_on_both(
    "gradient-softmax-diagonal-extra",
    direction="backward",
    text="p - y contains the derivative of softmax already: do not multiply with p (1 - p)",
    right="d = (p - y) / n",
    wrong="d = (p - y) p (1 - p) / n",
)
def _(op: Operation) -> Outputs | None:
    z = _logits(op)
    return None if z is None else {"d": op.outputs["d"] * _softmax(z) * (1 - _softmax(z))}


@_on_both(
    "gradient-softmax-jacobian-extra",
    direction="backward",
    text="p - y contains the derivative of softmax already: do not multiply with its Jacobian again",
    right="d = (p - y) / n",
    wrong="d = p ((p - y) - sum(p (p - y))) / n",
)
def _(op: Operation) -> Outputs | None:
    z = _logits(op)
    if z is None:
        return None
    p, d = _softmax(z), op.outputs["d"]
    return {"d": p * (d - np.sum(p * d, axis=-1, keepdims=True))}


@_on_both(
    "gradient-labels-added",
    direction="backward",
    text="subtract the labels from the probabilities, do not add them",
    right="d = (p - y) / n",
    wrong="d = (p + y) / n",
)
def _(op: Operation) -> Outputs | None:
    z = _logits(op)
    return None if z is None else _gradient(op, _softmax(z) + _rows(op))


@_on_both(
    "gradient-labels-shifted",
    direction="backward",
    text="the labels are off by one in the gradient: classes are counted from 0",
    right="d = (p - [j = t]) / n",
    wrong="d = (p - [j = t + 1]) / n",
    shows="with more than one class",
)
def _(op: Operation) -> Outputs | None:
    z = _logits(op)
    return None if z is None or _outputs(op) == 1 else _gradient(op, _softmax(z) - np.roll(_rows(op), 1, axis=-1))


@_on_both(
    "gradient-of-binary-labels",
    direction="backward",
    text="this is the gradient of binary cross-entropies behind a softmax: drop the term (1 - y) / (1 - p)",
    right="d = (p - y) / n",
    wrong="d = J g / n, g = (1 - y) / (1 - p) - y / p, J the Jacobian of softmax",
    shows="with more than one class",
)
def _(op: Operation) -> Outputs | None:
    z, y = _logits(op), _rows(op)
    if z is None or _outputs(op) == 1 or np.any(_softmax(z) == 1):
        return None
    p = _softmax(z)
    g = (1 - y) / (1 - p) - y / p
    return _gradient(op, p * (g - np.sum(p * g, axis=-1, keepdims=True)))


@_on_both(
    "log-of-softmax",
    direction="forward",
    text="nothing to change for moderate logits; for large ones, a probability that vanishes makes the loss infinite",
    right="l = sum(y (log(sum(exp z)) - z))",
    wrong="l = -sum(y log softmax(z))",
    shows="only where a probability is 0 to rounding",
    equivalent="log softmax(z) = z - log(sum(exp z))",
)
def _(op: Operation) -> Outputs | None:
    z = _logits(op)
    return (
        None if z is None or np.any(_softmax(z) == 0) else _loss(op, -np.sum(_rows(op) * np.log(_softmax(z)), axis=-1))
    )


@_on_both(
    "gradient-of-binary-labels-and-diagonal",
    direction="backward",
    text="nothing to change in the result: the derivative of binary cross-entropy and the missing rest of the softmax "
    "derivative cancel",
    right="d = (p - y) / n",
    wrong="d = ((1 - y) / (1 - p) - y / p) p (1 - p) / n",
    shows="where a row of labels does not sum to 1",
    equivalent="(1 - y) p - y (1 - p) = p - y",
)
def _(op: Operation) -> Outputs | None:
    z, y = _logits(op), _rows(op)
    if z is None or np.any(_softmax(z) * (1 - _softmax(z)) == 0) or not np.allclose(np.sum(y, axis=-1), 1):
        return None
    p = _softmax(z)
    return _gradient(op, ((1 - y) / (1 - p) - y / p) * (p * (1 - p)))


# -- CategoricalCrossentropy alone: smoothed labels --------------------------------------------------------------------


def _smoothed_over_others(op: Operation) -> Any:
    """The smoothing is shared by the wrong classes only; None without smoothing, or where there are none."""
    y, s, k = _unsmoothed(op), _entry(op).label_smoothing, _outputs(op)
    return None if y is None or k == 1 else y * (1 - s) + (1 - y) * s / (k - 1)


@mistake(
    "cce-labels-not-smoothed",
    on="CategoricalCrossentropy",
    direction="forward",
    text="the loss uses the labels as they are: smooth them first",
    right="l of y (1 - s) + s/K",
    wrong="l of y",
    shows="with label_smoothing",
)
def _(op: Operation) -> Outputs | None:
    z, y = _logits(op), _unsmoothed(op)
    return None if z is None or y is None else _loss(op, np.sum(y * _surprise(z), axis=-1))


@mistake(
    "cce-smoothed-over-other-classes",
    on="CategoricalCrossentropy",
    direction="forward",
    text="the smoothing is shared by the other K - 1 classes; Keras shares it between all K",
    right="l of y (1 - s) + s/K",
    wrong="l of y (1 - s) + (1 - y) s/(K-1)",
    shows="with label_smoothing",
)
def _(op: Operation) -> Outputs | None:
    z, y = _logits(op), _smoothed_over_others(op)
    return None if z is None or y is None else _loss(op, np.sum(y * _surprise(z), axis=-1))


@mistake(
    "cce-gradient-labels-not-smoothed",
    on="CategoricalCrossentropy",
    direction="backward",
    text="the gradient uses the labels as they are: smooth them there as well as in the loss",
    right="d = (p - (y (1 - s) + s/K)) / n",
    wrong="d = (p - y) / n",
    shows="with label_smoothing",
)
def _(op: Operation) -> Outputs | None:
    z, y = _logits(op), _unsmoothed(op)
    return None if z is None or y is None else _gradient(op, _softmax(z) - y)


@mistake(
    "cce-gradient-smoothed-over-other-classes",
    on="CategoricalCrossentropy",
    direction="backward",
    text="the smoothing is shared by the other K - 1 classes; Keras shares it between all K",
    right="d = (p - (y (1 - s) + s/K)) / n",
    wrong="d = (p - (y (1 - s) + (1 - y) s/(K-1))) / n",
    shows="with label_smoothing",
)
def _(op: Operation) -> Outputs | None:
    z, y = _logits(op), _smoothed_over_others(op)
    return None if z is None or y is None else _gradient(op, _softmax(z) - y)


# -- SparseCategoricalCrossentropy alone: classes as numbers -----------------------------------------------------------


@mistake(
    "scce-every-label-in-every-row",
    on="SparseCategoricalCrossentropy",
    direction="forward",
    text="p[:, t] takes the labels of all samples from every row: index the rows too, p[range(n), t]",
    right="L = -mean(log p[i, t_i])",
    wrong="L = -mean(log p[:, t])",
    shows="with more than one sample",
)
def _(op: Operation) -> Outputs | None:
    z, labels = _logits(op), _targets(op)
    if z is None or labels.size == 1:
        return None
    taken = np.take(_surprise(z).reshape(-1, _outputs(op)), labels.reshape(-1), axis=1)
    factor = 1 if _entry(op).reduction == "sum" else taken.size
    return {"loss": np.sum(taken) / factor + op["penalty"]}


@mistake(
    "scce-gradient-every-label-in-every-row",
    on="SparseCategoricalCrossentropy",
    direction="backward",
    text="p[:, t] -= 1 subtracts the labels of all samples from every row: index the rows too, p[range(n), t] -= 1",
    right="d = (p - [j = t_i]) / n",
    wrong="d = (p - [j in t]) / n",
    shows="with samples of more than one class",
)
def _(op: Operation) -> Outputs | None:
    z, present = _logits(op), np.unique(_targets(op))
    if z is None or present.size == 1:
        return None
    return _gradient(op, _softmax(z) - np.isin(np.arange(_outputs(op)), present).astype(z.dtype))


@mistake(
    "scce-gradient-class-number-as-target",
    on="SparseCategoricalCrossentropy",
    direction="backward",
    text="the number of the class is subtracted from every probability: write the labels as rows with a single 1 first",
    right="d = (p - [j = t]) / n",
    wrong="d = (p - t) / n",
)
def _(op: Operation) -> Outputs | None:
    z = _logits(op)
    return None if z is None else _gradient(op, _softmax(z) - _targets(op)[..., np.newaxis].astype(z.dtype))
