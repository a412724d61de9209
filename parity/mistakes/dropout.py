"""Mistakes in Dropout: z = x / (1 - rate) where a cell is kept, else 0."""

from __future__ import annotations

import numpy as np

from parity.mistakes.catalogue import mistake
from parity.mistakes.parts import Outputs
from parity.runners.steps import Operation

# -- forward -----------------------------------------------------------------------------------------------------------


@mistake(
    "dropout-not-scaled",
    on="Dropout",
    direction="forward",
    text="scale what is kept by 1 / (1 - rate), so that inference needs no scale",
    right="z = x kept / (1 - rate)",
    wrong="z = x kept",
)
def _(op: Operation) -> Outputs | None:
    return {"z": op["x"] * op.terms} if _drops(op) else None


@mistake(
    "dropout-scaled-by-rate",
    on="Dropout",
    direction="forward",
    text="rate is the share that is dropped: scale by 1 / (1 - rate), not by 1 / rate",
    right="z = x kept / (1 - rate)",
    wrong="z = x kept / rate",
    shows="where the rate is not 0.5",
)
def _(op: Operation) -> Outputs | None:
    return {"z": op["x"] * op.terms / op.entry.rate} if _drops(op) and op.entry.rate != 0.5 else None


@mistake(
    "dropout-keeps-the-dropped",
    on="Dropout",
    direction="forward",
    text="rate is the share that is dropped, not the share that is kept: a cell stays where u >= rate",
    right="z = x [u >= rate] / (1 - rate)",
    wrong="z = x [u < rate] / rate",
)
def _(op: Operation) -> Outputs | None:
    return {"z": op["x"] * ~op.terms / op.entry.rate} if _drops(op) else None


@mistake(
    "dropout-one-mask-for-all-samples",
    on="Dropout",
    direction="forward",
    text="each sample has a mask of its own; one is used for the whole batch",
    right="z[n] = x[n] kept[n] / (1 - rate)",
    wrong="z[n] = x[n] kept[0] / (1 - rate)",
    shows="with a batch of more than one",
)
def _(op: Operation) -> Outputs | None:
    return {"z": _scaled(op, op["x"], op.terms[:1])} if _drops(op) else None


@mistake(
    "dropout-active-in-inference",
    on="Dropout",
    direction="forward",
    text="nothing is dropped in inference",
    right="z = x",
    wrong="z = x kept / (1 - rate)",
    shows="in inference",
)
def _(op: Operation) -> Outputs | None:
    if op.training or not 0 < op.entry.rate < 1:
        return None
    kept = np.random.default_rng(0).random(op["x"].shape) >= op.entry.rate
    return {"z": _scaled(op, op["x"], kept)}


@mistake(
    "dropout-scaled-in-inference",
    on="Dropout",
    direction="forward",
    text="training has scaled already, so inference must not: the output is the input",
    right="z = x",
    wrong="z = x (1 - rate)",
    shows="in inference",
)
def _(op: Operation) -> Outputs | None:
    return None if op.training else {"z": op["x"] * (1 - op.entry.rate)}


# -- backward ----------------------------------------------------------------------------------------------------------


@mistake(
    "dropout-gradient-not-masked",
    on="Dropout",
    direction="backward",
    text="cells that were dropped pass no gradient: multiply with the mask of the forward pass",
    right="dx = dz kept / (1 - rate)",
    wrong="dx = dz / (1 - rate)",
)
def _(op: Operation) -> Outputs | None:
    return {"dx": op["dz"] / (1 - op.entry.rate)} if _drops(op) else None


@mistake(
    "dropout-gradient-not-scaled",
    on="Dropout",
    direction="backward",
    text="the gradient has the scale of the forward pass, 1 / (1 - rate)",
    right="dx = dz kept / (1 - rate)",
    wrong="dx = dz kept",
)
def _(op: Operation) -> Outputs | None:
    return {"dx": op["dz"] * op.terms} if _drops(op) else None


@mistake(
    "dropout-gradient-other-mask",
    on="Dropout",
    direction="backward",
    text="the backward pass needs the mask of the forward pass, not a new one",
    right="dx = dz kept / (1 - rate)",
    wrong="dx = dz kept' / (1 - rate), kept' another mask, here that of the batch in reverse",
    shows="with a batch of more than one",
)
def _(op: Operation) -> Outputs | None:
    return {"dx": _scaled(op, op["dz"], op.terms[::-1])} if _drops(op) else None


def _drops(op: Operation) -> bool:
    """Whether there is a mask, and one with cells of both kinds to expect."""
    return op.terms is not None and op.entry.rate < 1


def _scaled(op: Operation, values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    return np.where(kept, values * (1 / (1 - op.entry.rate)), np.zeros_like(values))
