"""Mistakes in the forward and backward passes of layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from parity.mistakes.catalogue import mistake
from parity.runners.steps import Operation

Outputs = Mapping[str, Any]


@mistake(
    "dense-input-gradient-not-transposed",
    on="Dense",
    direction="backward",
    text="going back, multiply with the transposed kernel",
    right="dx = dz W^T",
    wrong="dx = dz W",
    shows="only a square layer lets it run",
)
def _(op: Operation) -> Outputs | None:
    kernel = op["kernel"]
    return {"dx": op["dz"] @ kernel} if kernel.shape[0] == kernel.shape[1] else None
