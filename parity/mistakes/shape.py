"""Mistakes in Flatten: the cells of each sample, row by row, channels last."""

from __future__ import annotations

import numpy as np

from parity.mistakes.catalogue import mistake
from parity.mistakes.parts import Outputs
from parity.runners.steps import Operation


@mistake(
    "flatten-fortran-order",
    on="Flatten",
    direction="forward",
    text="flatten in C order, the last axis fastest; this is Fortran order, the first axis fastest",
    right="z[n] = x[n] in C order",
    wrong="z[n] = x[n] in Fortran order",
    shows="with more than one axis in a sample",
)
def _(op: Operation) -> Outputs:
    return {"z": op["x"].reshape(len(op["x"]), -1, order="F")}


@mistake(
    "flatten-channels-first",
    on="Flatten",
    direction="forward",
    text="the cells are in the order (channels, height, width), Keras has (height, width, channels); the kernel of the "
    "layer behind has its rows in that order",
    right="z[n] = x[n] as (height, width, channels)",
    wrong="z[n] = x[n] as (channels, height, width)",
    shows="with more than one channel",
)
def _(op: Operation) -> Outputs:
    return {"z": np.moveaxis(op["x"], -1, 1).reshape(op.outputs["z"].shape)}


@mistake(
    "flatten-samples-mixed",
    on="Flatten",
    direction="forward",
    text="keep the batch as the first axis; reshape(-1, m).T deals the cells out to the samples in turn",
    right="z = reshape(x, (m, -1))",
    wrong="z = reshape(x, (-1, m))^T",
    shows="with a batch of more than one",
)
def _(op: Operation) -> Outputs:
    return {"z": op["x"].reshape(-1, len(op["x"])).T}


@mistake(
    "flatten-gradient-fortran-order",
    on="Flatten",
    direction="backward",
    text="bring the gradient back into shape in C order, the order in which the input was flattened",
    right="dx[n] = dz[n] in C order",
    wrong="dx[n] = dz[n] in Fortran order",
    shows="with more than one axis in a sample",
)
def _(op: Operation) -> Outputs:
    fastest_last = op["dz"].reshape(len(op["dz"]), *op["x"].shape[:0:-1])  # the axes of a sample, backwards
    return {"dx": fastest_last.transpose(0, *range(op["x"].ndim - 1, 0, -1))}


@mistake(
    "flatten-gradient-channels-first",
    on="Flatten",
    direction="backward",
    text="bring the gradient back into the shape (height, width, channels), not (channels, height, width)",
    right="dx[n] = dz[n] as (height, width, channels)",
    wrong="dx[n] = dz[n] as (channels, height, width), then transposed",
    shows="with more than one channel",
)
def _(op: Operation) -> Outputs:
    batch, *sides, channels = op["x"].shape
    return {"dx": np.moveaxis(op["dz"].reshape(batch, channels, *sides), 1, -1)}


@mistake(
    "flatten-gradient-samples-mixed",
    on="Flatten",
    direction="backward",
    text="keep the batch as the first axis; to reshape the transposed gradient mixes the samples",
    right="dx = reshape(dz, shape of x)",
    wrong="dx = reshape(dz^T, shape of x)",
    shows="with a batch of more than one",
)
def _(op: Operation) -> Outputs:
    return {"dx": op["dz"].T.reshape(op["x"].shape)}
