"""Mistakes that can be made in the backward pass of any layer."""

from __future__ import annotations

from parity.mistakes.catalogue import mistake
from parity.mistakes.parts import Outputs, weight_gradients
from parity.runners.steps import Operation


@mistake(
    "layer-weight-gradients-averaged",
    on="layer",
    direction="backward",
    text="the gradients by the weights are divided by the batch size once more; the loss did it already",
    right="dW = sum over the batch, of a loss that is a mean",
    wrong="dW = sum over the batch / m",
    shows="with a batch of more than one",
)
def _(op: Operation) -> Outputs:
    return {name: g / len(op["dz"]) for name, g in weight_gradients(op).items()}


@mistake(
    "layer-weight-gradients-accumulated",
    on="layer",
    direction="backward",
    text="the gradients by the weights are added to those of the pass before; set them to zero first",
    right="dW = gradient of this batch",
    wrong="dW = gradient of this batch + dW of the last pass (here: on the same batch)",
    shows="from the second pass on",
)
def _(op: Operation) -> Outputs:
    return {name: g + g for name, g in weight_gradients(op).items()}


@mistake(
    "layer-weight-gradients-negated",
    on="layer",
    direction="backward",
    text="the sign of the gradients by the weights is wrong; the update subtracts them, so they must not be negated",
    right="dW = d loss / d W",
    wrong="dW = -d loss / d W",
)
def _(op: Operation) -> Outputs:
    return {name: -g for name, g in weight_gradients(op).items()}


@mistake(
    "layer-input-gradient-averaged",
    on="layer",
    direction="backward",
    text="the gradient that goes on to the layer below is divided by the batch size; the loss did it already",
    right="dx = d loss / d x",
    wrong="dx = d loss / d x / m",
    shows="with a batch of more than one",
)
def _(op: Operation) -> Outputs | None:
    dx = op.outputs["dx"]
    return None if dx is None else {"dx": dx / len(op["dz"])}
