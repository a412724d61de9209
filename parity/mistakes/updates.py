"""Mistakes in the steps of optimizers. A comparison sees the first step, so all states are zero there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from parity.mistakes.catalogue import mistake
from parity.runners.steps import Operation

Outputs = Mapping[str, Any]

DECAY = 0.01
"""A common weight decay."""


def _entry(op: Operation) -> Any:
    """The optimizer, of the class that the mistake is entered on."""
    return op.entry


def _step(op: Operation, gradient: Any) -> Outputs:
    """A right step with another gradient."""
    new, _ = _entry(op).step(op["w"], gradient, {name: op[name] for name in op.inputs if name not in ("w", "g")})
    return {"w": new}


def _batch(op: Operation) -> int:
    return int(op.context["saved"][0].x.shape[0])


@mistake(
    "sgd-ascent",
    on="SGD",
    direction="update",
    text="the step goes uphill: subtract the gradient",
    right="w = w - lr g",
    wrong="w = w + lr g",
)
def _(op: Operation) -> Outputs:
    return _step(op, -op["g"])


@mistake(
    "sgd-without-learning-rate",
    on="SGD",
    direction="update",
    text="the learning rate is missing",
    right="w = w - lr g",
    wrong="w = w - g",
    shows="where the learning rate is not 1",
)
def _(op: Operation) -> Outputs | None:
    rate = _entry(op).learning_rate
    return None if rate in (0, 1) else _step(op, op["g"] / rate)


@mistake(
    "sgd-learning-rate-twice",
    on="SGD",
    direction="update",
    text="the learning rate is multiplied in twice",
    right="w = w - lr g",
    wrong="w = w - lr^2 g",
    shows="where the learning rate is not 1",
)
def _(op: Operation) -> Outputs | None:
    rate = _entry(op).learning_rate
    return None if rate in (0, 1) else _step(op, op["g"] * rate)


@mistake(
    "sgd-weight-not-updated",
    on="SGD",
    direction="update",
    text="this weight is not updated",
    right="w = w - lr g",
    wrong="w = w",
)
def _(op: Operation) -> Outputs:
    return {"w": op["w"]}


@mistake(
    "sgd-mean-of-gradient",
    on="SGD",
    direction="update",
    text="every element is moved by the mean of the gradient: each has its own",
    right="w = w - lr g",
    wrong="w = w - lr mean(g)",
    shows="with more than one element",
)
def _(op: Operation) -> Outputs | None:
    return None if op["g"].size == 1 else _step(op, np.full_like(op["g"], np.mean(op["g"])))


@mistake(
    "sgd-divided-by-batch",
    on="SGD",
    direction="update",
    text="the step is divided by the batch size, but the gradient is a mean already",
    right="w = w - lr g",
    wrong="w = w - lr g / n",
    shows="with more than one sample",
)
def _(op: Operation) -> Outputs | None:
    return None if _batch(op) == 1 else _step(op, op["g"] / _batch(op))


@mistake(
    "sgd-sign-of-gradient",
    on="SGD",
    direction="update",
    text="only the sign of the gradient is used: take its value",
    right="w = w - lr g",
    wrong="w = w - lr sign(g)",
)
def _(op: Operation) -> Outputs:
    return _step(op, np.sign(op["g"]))


@mistake(
    "sgd-gradient-normalized",
    on="SGD",
    direction="update",
    text="the gradient is divided by its norm: SGD takes it as it is",
    right="w = w - lr g",
    wrong="w = w - lr g / sqrt(sum(g^2))",
)
def _(op: Operation) -> Outputs | None:
    norm = np.sqrt(np.sum(op["g"] * op["g"]))
    return _step(op, op["g"] / norm) if norm else None


@mistake(
    "sgd-weight-decay",
    on="SGD",
    direction="update",
    text="the weights decay as well: SGD has no weight decay unless asked for, and the penalties are in the gradient",
    right="w = w - lr g",
    wrong="w = w - lr (g + 0.01 w)",
)
def _(op: Operation) -> Outputs:
    return _step(op, op["g"] + DECAY * op["w"])


@mistake(
    "sgd-momentum-dampened",
    on="SGD",
    direction="update",
    text="the gradient enters the momentum with the factor 1 - mu, as in a moving average; in Keras it enters whole",
    right="m = mu m - lr g",
    wrong="m = mu m - (1 - mu) lr g",
    shows="with momentum",
)
def _(op: Operation) -> Outputs | None:
    mu = _entry(op).momentum
    return _step(op, op["g"] * (1 - mu)) if mu else None


@mistake(
    "sgd-nesterov-missing",
    on="SGD",
    direction="update",
    text="this is plain momentum: nesterov=True looks one step ahead",
    right="w = w + mu m - lr g",
    wrong="w = w + m",
    shows="with nesterov",
)
def _(op: Operation) -> Outputs | None:
    entry = _entry(op)
    return {"w": op["w"] + _moved(op)} if entry.nesterov else None


@mistake(
    "sgd-nesterov-unasked",
    on="SGD",
    direction="update",
    text="this is Nesterov's momentum: without nesterov=True the step is the momentum itself",
    right="w = w + m",
    wrong="w = w + mu m - lr g",
    shows="with momentum",
)
def _(op: Operation) -> Outputs | None:
    entry = _entry(op)
    if not entry.momentum or entry.nesterov:
        return None
    return {"w": op["w"] + entry.momentum * _moved(op) - entry.learning_rate * op["g"]}


@mistake(
    "sgd-nesterov-without-gradient",
    on="SGD",
    direction="update",
    text="the gradient of this step is missing beside the momentum",
    right="w = w + mu m - lr g",
    wrong="w = w + mu m",
    shows="with nesterov",
)
def _(op: Operation) -> Outputs | None:
    entry = _entry(op)
    return {"w": op["w"] + entry.momentum * _moved(op)} if entry.nesterov else None


@mistake(
    "sgd-learning-rate-outside-momentum",
    on="SGD",
    direction="update",
    text="nothing to change while the learning rate stays the same",
    right="m = mu m - lr g;  w = w + m",
    wrong="v = mu v + g;  w = w - lr v",
    shows="only from the step on where the learning rate changes",
    equivalent="m = -lr v",
)
def _(op: Operation) -> Outputs | None:
    entry = _entry(op)
    if not entry.momentum or entry.nesterov or not entry.learning_rate:
        return None
    velocity = entry.momentum * (op["momentum"] / -entry.learning_rate) + op["g"]
    return {"w": op["w"] - entry.learning_rate * velocity}


def _moved(op: Operation) -> Any:
    """The new momentum m."""
    return _entry(op).momentum * op["momentum"] - _entry(op).learning_rate * op["g"]
