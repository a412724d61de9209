"""Mistakes in Embedding: z = E[x]."""

from __future__ import annotations

import numpy as np

from parity.mistakes.catalogue import mistake
from parity.mistakes.parts import Outputs, rows
from parity.runners.steps import Operation

# -- forward -----------------------------------------------------------------------------------------------------------


@mistake(
    "embedding-index-from-one",
    on="Embedding",
    direction="forward",
    text="indices count from 0",
    right="z = E[x]",
    wrong="z = E[x - 1]",
)
def _(op: Operation) -> Outputs:
    return {"z": op["embeddings"][op.terms - 1]}


@mistake(
    "embedding-padding-zero",
    on="Embedding",
    direction="forward",
    text="index 0 is a row like any other; it is not taken for padding",
    right="z = E[x]",
    wrong="z = E[x] [x != 0]",
    shows="where index 0 occurs",
)
def _(op: Operation) -> Outputs:
    return {"z": op.outputs["z"] * (op.terms != 0)[..., np.newaxis]}


@mistake(
    "embedding-table-reshaped",
    on="Embedding",
    direction="forward",
    text="the table is (input_dim, output_dim); one of the other shape is reshaped, not transposed",
    right="z = E[x]",
    wrong="z = reshape(E^T, shape of E)[x]",
    shows="with more than one row and more than one column",
)
def _(op: Operation) -> Outputs:
    table = op["embeddings"]
    return {"z": table.T.reshape(table.shape)[op.terms]}


@mistake(
    "embedding-one-hot",
    on="Embedding",
    direction="forward",
    text="looking up rows is the product of one-hot rows with the table",
    right="z = E[x]",
    wrong="z = one_hot(x) E",
    shows="never",
    equivalent="each sum has one term that is not zero, times 1",
)
def _(op: Operation) -> Outputs:
    return {"z": _one_hot(op) @ op["embeddings"]}


# -- backward ----------------------------------------------------------------------------------------------------------


@mistake(
    "embedding-repeats-assigned",
    on="Embedding",
    direction="backward",
    text="an index that occurs again adds to its row: dE[x] = dz and dE[x] += dz both keep the last one only; "
    "take np.add.at(dE, x, dz)",
    right="dE[i] = sum of dz over all places with x = i",
    wrong="dE[i] = dz at the last place with x = i",
    shows="where an index occurs more than once",
)
def _(op: Operation) -> Outputs:
    gradient = np.zeros_like(op["embeddings"])
    gradient[op.terms.reshape(-1)] = rows(op["dz"])
    return {"embeddings": gradient}


@mistake(
    "embedding-repeats-averaged",
    on="Embedding",
    direction="backward",
    text="sum the gradients of an index that occurs again; do not take their mean",
    right="dE[i] = sum of dz over all places with x = i",
    wrong="dE[i] = mean of dz over all places with x = i",
    shows="where an index occurs more than once",
)
def _(op: Operation) -> Outputs:
    gradient = op.outputs["embeddings"]
    times = np.bincount(op.terms.reshape(-1), minlength=len(gradient)).astype(gradient.dtype)
    return {"embeddings": gradient / np.maximum(times, 1)[:, np.newaxis]}


@mistake(
    "embedding-gradient-from-one",
    on="Embedding",
    direction="backward",
    text="indices count from 0: the gradient is in the rows before",
    right="dE[x] += dz",
    wrong="dE[x - 1] += dz",
)
def _(op: Operation) -> Outputs:
    return {"embeddings": np.roll(op.outputs["embeddings"], -1, axis=0)}


@mistake(
    "embedding-gradient-padding-zero",
    on="Embedding",
    direction="backward",
    text="index 0 is a row like any other and learns; it is not taken for padding",
    right="dE[0] = sum of dz over all places with x = 0",
    wrong="dE[0] = 0",
    shows="where index 0 occurs",
)
def _(op: Operation) -> Outputs:
    gradient = op.outputs["embeddings"].copy()
    gradient[0] = 0
    return {"embeddings": gradient}


@mistake(
    "embedding-gradient-last-sample",
    on="Embedding",
    direction="backward",
    text="sum the gradient over the batch; only the last sample is in it",
    right="dE[x[n]] += dz[n], for all n",
    wrong="dE[x[-1]] += dz[-1]",
    shows="with a batch of more than one",
)
def _(op: Operation) -> Outputs | None:
    gradient = np.zeros_like(op["embeddings"])
    np.add.at(gradient, op.terms[-1], op["dz"][-1])
    return None if len(op.terms) == 1 else {"embeddings": gradient}


def _one_hot(op: Operation) -> np.ndarray:
    table = op["embeddings"]
    return (op.terms[..., np.newaxis] == np.arange(len(table))).astype(table.dtype)
