"""Mistakes in the penalties on weights, and in the gradients that they add."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from parity.mistakes.catalogue import mistake
from parity.runners.steps import Operation

Outputs = Mapping[str, Any]


def _entry(op: Operation) -> Any:
    """The regularizer, of the class that the mistake is entered on."""
    return op.entry


def _added(op: Operation) -> Any:
    """What a right regularizer adds to the gradient."""
    return _entry(op).backward(op["w"])


def _gradient(op: Operation, added: Any) -> Outputs:
    return {"g": op["g"] + added}


def _factors(op: Operation) -> tuple[float, float]:
    """Of the absolute values and of the squares, as they were given."""
    return getattr(_entry(op), "l1", 0.0), getattr(_entry(op), "l2", 0.0)


def exact_penalty(op: Operation) -> Outputs:
    """The penalty with the factors as they were given, which Keras rounds to float32 also in float64: no mistake."""
    l1, l2 = _factors(op)
    return {"penalty": l1 * np.sum(np.abs(op["w"])) + l2 * np.sum(op["w"] ** 2)}


def _batch(op: Operation) -> int:
    return int(op.context["saved"][0].x.shape[0])


def _bias_without_penalty(layer: Any) -> Any:
    """The bias of a layer whose kernel alone is regularized; None elsewhere."""
    if layer.regularizer_of("kernel") is None or layer.regularizer_of("bias") is not None:
        return None
    return layer.trainable_weights.get("bias")


# -- any regularizer ---------------------------------------------------------------------------------------------------


@mistake(
    "regularizer-penalty-missing",
    on="regularizer",
    direction="forward",
    text="the penalty is missing in the loss",
    right="L = loss + penalty",
    wrong="L = loss",
)
def _(op: Operation) -> Outputs:
    return {"penalty": np.zeros_like(op.outputs["penalty"])}


@mistake(
    "regularizer-penalty-negated",
    on="regularizer",
    direction="forward",
    text="the penalty is subtracted from the loss: add it",
    right="L = loss + penalty",
    wrong="L = loss - penalty",
)
def _(op: Operation) -> Outputs:
    return {"penalty": -op.outputs["penalty"]}


@mistake(
    "regularizer-penalty-divided-by-batch",
    on="regularizer",
    direction="forward",
    text="the penalty is divided by the batch size; Keras adds it once, whatever the batch",
    right="L = loss + penalty",
    wrong="L = loss + penalty / n",
    shows="with more than one sample",
)
def _(op: Operation) -> Outputs | None:
    return None if _batch(op) == 1 else {"penalty": op.outputs["penalty"] / _batch(op)}


@mistake(
    "regularizer-penalty-also-on-bias",
    on="regularizer",
    direction="forward",
    text="the penalty of the kernel counts the bias as well: leave the bias out",
    right="L = loss + penalty(W)",
    wrong="L = loss + penalty(W) + penalty(b)",
    shows="where the layer has a bias without a penalty of its own",
)
def _(op: Operation) -> Outputs | None:
    layer = next(layer for layer in op.context["chain"].layers if layer.name == op.layer)
    bias = _bias_without_penalty(layer)
    if bias is None or op.context["weight"] != "kernel":
        return None
    return {"penalty": op.outputs["penalty"] + _entry(op).forward(bias)}


@mistake(
    "regularizer-gradient-missing",
    on="regularizer",
    direction="backward",
    text="the penalty is missing in the gradient: add its derivative",
    right="g = dL/dW + penalty'(W)",
    wrong="g = dL/dW",
)
def _(op: Operation) -> Outputs:
    return {"g": op["g"]}


@mistake(
    "regularizer-gradient-negated",
    on="regularizer",
    direction="backward",
    text="the derivative of the penalty is subtracted: add it",
    right="g = dL/dW + penalty'(W)",
    wrong="g = dL/dW - penalty'(W)",
)
def _(op: Operation) -> Outputs:
    return _gradient(op, -_added(op))


@mistake(
    "regularizer-gradient-divided-by-batch",
    on="regularizer",
    direction="backward",
    text="the derivative of the penalty is divided by the batch size; Keras adds it once, whatever the batch",
    right="g = dL/dW + penalty'(W)",
    wrong="g = dL/dW + penalty'(W) / n",
    shows="with more than one sample",
)
def _(op: Operation) -> Outputs | None:
    return None if _batch(op) == 1 else _gradient(op, _added(op) / _batch(op))


@mistake(
    "regularizer-gradient-factor-in-double",
    on="regularizer",
    direction="backward",
    text="your factor is the more exact one: Keras rounds it to float32 also in float64; write float32(l) to agree",
    right="g = dL/dW + penalty'(W) with float32(l)",
    wrong="g = dL/dW + penalty'(W) with l",
    shows="in float64, where l is no float32 number",
)
def _(op: Operation) -> Outputs | None:
    if op["w"].dtype != np.float64:
        return None
    l1, l2 = _factors(op)
    return _gradient(op, l1 * np.sign(op["w"]) + 2 * l2 * op["w"])


@mistake(
    "regularizer-gradient-also-on-bias",
    on="layer",
    direction="backward",
    text="the penalty of the kernel is in the gradient of the bias as well: leave it out there",
    right="db = sum(dz)",
    wrong="db = sum(dz) + penalty'(b)",
    shows="where the layer has a bias without a penalty of its own",
)
def _(op: Operation) -> Outputs | None:
    bias = _bias_without_penalty(op.entry)
    if bias is None:
        return None
    return {"bias": op.outputs["bias"] + _entry(op).regularizer_of("kernel").backward(bias)}


# -- L1 ----------------------------------------------------------------------------------------------------------------


@mistake(
    "l1-penalty-without-absolute",
    on="L1",
    direction="forward",
    text="the absolute value is missing: weights of either sign cancel",
    right="penalty = l sum |w|",
    wrong="penalty = l sum w",
    shows="where a weight is negative",
)
def _(op: Operation) -> Outputs | None:
    return {"penalty": _entry(op).l1 * np.sum(op["w"])} if np.any(op["w"] < 0) else None


@mistake(
    "l1-penalty-squared",
    on="L1",
    direction="forward",
    text="this is the penalty of L2: take absolute values, not squares",
    right="penalty = l sum |w|",
    wrong="penalty = l sum w^2",
)
def _(op: Operation) -> Outputs:
    return {"penalty": _entry(op).l1 * np.sum(op["w"] * op["w"])}


@mistake(
    "l1-gradient-without-sign",
    on="L1",
    direction="backward",
    text="the derivative is l times the sign of the weight, not l",
    right="g = dL/dw + l sign(w)",
    wrong="g = dL/dw + l",
    shows="where a weight is negative",
)
def _(op: Operation) -> Outputs | None:
    return _gradient(op, _entry(op).l1) if np.any(op["w"] < 0) else None


@mistake(
    "l1-gradient-of-weight",
    on="L1",
    direction="backward",
    text="the derivative is l times the sign of the weight, not its value",
    right="g = dL/dw + l sign(w)",
    wrong="g = dL/dw + l w",
)
def _(op: Operation) -> Outputs:
    return _gradient(op, _entry(op).l1 * op["w"])


# -- L2 ----------------------------------------------------------------------------------------------------------------


@mistake(
    "l2-penalty-halved",
    on="L2",
    direction="forward",
    text="this is the penalty of textbooks; Keras has no 1/2",
    right="penalty = l sum w^2",
    wrong="penalty = l/2 sum w^2",
)
def _(op: Operation) -> Outputs:
    return {"penalty": op.outputs["penalty"] / 2}


@mistake(
    "l2-penalty-root",
    on="L2",
    direction="forward",
    text="this is the norm of the weights; the penalty has its square",
    right="penalty = l sum w^2",
    wrong="penalty = l sqrt(sum w^2)",
)
def _(op: Operation) -> Outputs:
    return {"penalty": _entry(op).l2 * np.sqrt(np.sum(op["w"] * op["w"]))}


@mistake(
    "l2-penalty-averaged",
    on="L2",
    direction="forward",
    text="the squares are averaged over the weights: sum them",
    right="penalty = l sum w^2",
    wrong="penalty = l mean(w^2)",
    shows="with more than one weight",
)
def _(op: Operation) -> Outputs | None:
    return None if op["w"].size == 1 else {"penalty": op.outputs["penalty"] / op["w"].size}


@mistake(
    "l2-gradient-without-two",
    on="L2",
    direction="backward",
    text="the factor 2 of the derivative is missing: Keras squares the weights without a 1/2",
    right="g = dL/dw + 2 l w",
    wrong="g = dL/dw + l w",
)
def _(op: Operation) -> Outputs:
    return _gradient(op, _added(op) / 2)


@mistake(
    "l2-gradient-doubled",
    on="L2",
    direction="backward",
    text="the derivative of the penalty is added twice",
    right="g = dL/dw + 2 l w",
    wrong="g = dL/dw + 4 l w",
)
def _(op: Operation) -> Outputs:
    return _gradient(op, 2 * _added(op))


@mistake(
    "l2-gradient-of-sign",
    on="L2",
    direction="backward",
    text="this is the derivative of L1: take 2 l w, not the sign of w",
    right="g = dL/dw + 2 l w",
    wrong="g = dL/dw + l sign(w)",
)
def _(op: Operation) -> Outputs:
    return _gradient(op, _entry(op).l2 * np.sign(op["w"]))


# -- L1L2: None where the part that goes wrong has the factor 0 --------------------------------------------------------


def _both(op: Operation) -> bool:
    return bool(_entry(op).l1 and _entry(op).l2)


@mistake(
    "l1l2-penalty-without-squares",
    on="L1L2",
    direction="forward",
    text="the part with the squares is missing",
    right="penalty = l1 sum |w| + l2 sum w^2",
    wrong="penalty = l1 sum |w|",
    shows="where l2 is not 0",
)
def _(op: Operation) -> Outputs | None:
    return {"penalty": _entry(op).l1 * np.sum(np.abs(op["w"]))} if _entry(op).l2 else None


@mistake(
    "l1l2-penalty-squares-halved",
    on="L1L2",
    direction="forward",
    text="the part with the squares is that of textbooks; Keras has no 1/2",
    right="penalty = l1 sum |w| + l2 sum w^2",
    wrong="penalty = l1 sum |w| + l2/2 sum w^2",
    shows="where l2 is not 0",
)
def _(op: Operation) -> Outputs | None:
    if not _entry(op).l2:
        return None
    return {"penalty": _entry(op).l1 * np.sum(np.abs(op["w"])) + _entry(op).l2 / 2 * np.sum(op["w"] * op["w"])}


@mistake(
    "l1l2-penalty-factors-swapped",
    on="L1L2",
    direction="forward",
    text="the two factors are swapped",
    right="penalty = l1 sum |w| + l2 sum w^2",
    wrong="penalty = l2 sum |w| + l1 sum w^2",
    shows="where the factors differ",
)
def _(op: Operation) -> Outputs | None:
    l1, l2 = _entry(op).l1, _entry(op).l2
    return None if l1 == l2 else {"penalty": l2 * np.sum(np.abs(op["w"])) + l1 * np.sum(op["w"] * op["w"])}


@mistake(
    "l1l2-gradient-without-squares",
    on="L1L2",
    direction="backward",
    text="the derivative of the part with the squares is missing",
    right="g = dL/dw + l1 sign(w) + 2 l2 w",
    wrong="g = dL/dw + l1 sign(w)",
    shows="where l2 is not 0",
)
def _(op: Operation) -> Outputs | None:
    return _gradient(op, _entry(op).l1 * np.sign(op["w"])) if _entry(op).l2 else None


@mistake(
    "l1l2-gradient-without-absolute",
    on="L1L2",
    direction="backward",
    text="the derivative of the part with the absolute values is missing",
    right="g = dL/dw + l1 sign(w) + 2 l2 w",
    wrong="g = dL/dw + 2 l2 w",
    shows="where l1 is not 0",
)
def _(op: Operation) -> Outputs | None:
    return _gradient(op, 2 * _entry(op).l2 * op["w"]) if _entry(op).l1 else None


@mistake(
    "l1l2-gradient-without-two",
    on="L1L2",
    direction="backward",
    text="the factor 2 of the part with the squares is missing",
    right="g = dL/dw + l1 sign(w) + 2 l2 w",
    wrong="g = dL/dw + l1 sign(w) + l2 w",
    shows="where l2 is not 0",
)
def _(op: Operation) -> Outputs | None:
    if not _entry(op).l2:
        return None
    return _gradient(op, _entry(op).l1 * np.sign(op["w"]) + _entry(op).l2 * op["w"])
