"""Mistakes in the values and derivatives of activations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from parity.mistakes.catalogue import mistake
from parity.runners.steps import Operation

Outputs = Mapping[str, Any]


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
    "softmax-diagonal-only",
    on="softmax",
    direction="backward",
    text="the softmax derivative lacks its off-diagonal terms -y_i sum_j(y_j dy_j)",
    right="dx = y (dy - sum(dy y))",
    wrong="dx = dy y (1 - y)",
)
def _(op: Operation) -> Outputs:
    return {"dx": op["dy"] * op["y"] * (1 - op["y"])}
