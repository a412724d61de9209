"""Mistakes in Dense: z = x W + b."""

from __future__ import annotations

import numpy as np

from parity.mistakes.catalogue import mistake
from parity.mistakes.parts import Outputs, rows, saved_below
from parity.runners.steps import Operation

STEPS = (0.01, 0.1, 1.0, 0.5, 0.05, 0.001)  # the first is Keras's SGD where nothing else is said


# -- forward -----------------------------------------------------------------------------------------------------------


@mistake(
    "dense-bias-missing",
    on="Dense",
    direction="forward",
    text="add the bias to the product",
    right="z = x W + b",
    wrong="z = x W",
    shows="where the bias is not zero, as it is when training starts",
)
def _(op: Operation) -> Outputs | None:
    return {"z": op["x"] @ op["kernel"]} if "bias" in op else None


@mistake(
    "dense-bias-scalar",
    on="Dense",
    direction="forward",
    text="each unit has a bias of its own; one number is added to all of them",
    right="z[j] = (x W)[j] + b[j]",
    wrong="z[j] = (x W)[j] + b[0]",
    shows="where the biases differ, which they do not when training starts",
)
def _(op: Operation) -> Outputs | None:
    return {"z": op["x"] @ op["kernel"] + op["bias"][0]} if "bias" in op else None


@mistake(
    "dense-kernel-transposed",
    on="Dense",
    direction="forward",
    text="the kernel is (inputs, units): multiply with it as it is, not with its transpose",
    right="z = x W + b",
    wrong="z = x W^T + b",
    shows="only a square layer lets it run",
)
def _(op: Operation) -> Outputs | None:
    z = op["x"] @ op["kernel"].T if _square(op) else None
    return z if z is None else {"z": z + op["bias"] if "bias" in op else z}


# -- backward: the gradient by the input -------------------------------------------------------------------------------


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
    return {"dx": op["dz"] @ op["kernel"]} if _square(op) else None


@mistake(
    "dense-input-gradient-through-kernel-gradient",
    on="Dense",
    direction="backward",
    text="going back, multiply with the kernel W, not with its gradient dW",
    right="dx = dz W^T",
    wrong="dx = dz dW^T",
)
def _(op: Operation) -> Outputs:
    return {"dx": op["dz"] @ op.outputs["kernel"].T}


@mistake(
    "dense-input-gradient-through-updated-kernel",
    on="Dense",
    direction="backward",
    text="the kernel was updated before it was used to go back; compute all gradients first, then update",
    right="dx = dz W^T",
    wrong="dx = dz (W - lr dW)^T, here with lr = {value:g}",
    values=STEPS,
)
def _(op: Operation, value: float) -> Outputs:
    return {"dx": op["dz"] @ (op["kernel"] - value * op.outputs["kernel"]).T}


@mistake(
    "dense-input-gradient-of-bias-row",
    on="Dense",
    direction="backward",
    text="with the bias as row 0 of the kernel, drop row 0 when going back, not the last row: "
    "the deltas are shifted by one unit",
    right="dx = (dz [b; W]^T) without its first column",
    wrong="dx = (dz [b; W]^T) without its last column",
    shows="where the bias is a row of the kernel",
)
def _(op: Operation) -> Outputs | None:
    if "bias" not in op:
        return None
    by_bias = (op["dz"] @ op["bias"])[..., np.newaxis]
    return {"dx": np.concatenate([by_bias, op.outputs["dx"][..., :-1]], axis=-1)}


# -- backward: the gradient by the kernel ------------------------------------------------------------------------------


@mistake(
    "dense-kernel-gradient-transposed",
    on="Dense",
    direction="backward",
    text="the gradient by the kernel is transposed",
    right="dW = x^T dz",
    wrong="dW = dz^T x",
    shows="only a square layer lets it run",
)
def _(op: Operation) -> Outputs | None:
    return {"kernel": op.outputs["kernel"].T} if _square(op) else None


@mistake(
    "dense-kernel-gradient-reshaped",
    on="Dense",
    direction="backward",
    text="reshape is no transpose: it has the right shape and the numbers in other places",
    right="dW = x^T dz",
    wrong="dW = reshape(dz^T x, shape of W)",
    shows="where the layer has more than one input and more than one unit",
)
def _(op: Operation) -> Outputs:
    gradient = op.outputs["kernel"]
    return {"kernel": gradient.T.reshape(gradient.shape)}


@mistake(
    "dense-kernel-gradient-of-pre-activation",
    on="Dense",
    direction="backward",
    text="the gradient by the kernel takes what came into the layer, the output a of the layer below, "
    "not its pre-activations z",
    right="dW = a_below^T dz",
    wrong="dW = z_below^T dz",
    shows="behind a layer with an activation",
)
def _(op: Operation) -> Outputs | None:
    below = saved_below(op)
    return None if below is None else _kernel_gradient(op, below.z)


@mistake(
    "dense-kernel-gradient-of-layer-below",
    on="Dense",
    direction="backward",
    text="the gradient by the kernel takes this layer's own input, not that of the layer below",
    right="dW = x^T dz",
    wrong="dW = x_below^T dz",
    shows="only where the layer below has as many inputs",
)
def _(op: Operation) -> Outputs | None:
    below = saved_below(op)
    return None if below is None else _kernel_gradient(op, below.x)


@mistake(
    "dense-kernel-gradient-of-output",
    on="Dense",
    direction="backward",
    text="the gradient by the kernel takes what came into the layer, not what it gave",
    right="dW = x^T dz",
    wrong="dW = z^T dz",
    shows="only a square layer lets it run",
)
def _(op: Operation) -> Outputs | None:
    return _kernel_gradient(op, op["z"])


@mistake(
    "dense-kernel-gradient-last-sample",
    on="Dense",
    direction="backward",
    text="sum the gradient by the kernel over the batch; only the last sample is in it",
    right="dW = sum of x[n]^T dz[n]",
    wrong="dW = x[-1]^T dz[-1]",
    shows="with a batch of more than one",
)
def _(op: Operation) -> Outputs | None:
    return None if len(op["dz"]) == 1 else {"kernel": rows(op["x"][-1:]).T @ rows(op["dz"][-1:])}


# -- backward: the gradient by the bias --------------------------------------------------------------------------------


@mistake(
    "dense-bias-gradient-averaged",
    on="Dense",
    direction="backward",
    text="sum the gradient by the bias over the batch; the mean over it divides by the batch size once more",
    right="db = sum of dz over the batch",
    wrong="db = mean of dz over the batch",
    shows="with a batch of more than one",
)
def _(op: Operation) -> Outputs | None:
    dz = rows(op["dz"])
    return None if len(dz) == 1 else {"bias": np.mean(dz, axis=0)}


@mistake(
    "dense-bias-gradient-scalar",
    on="Dense",
    direction="backward",
    text="sum the gradient by the bias over the batch alone; np.sum without an axis adds the units up as well",
    right="db = sum of dz over the batch, axis=0",
    wrong="db = sum of all dz",
    shows="with more than one unit",
)
def _(op: Operation) -> Outputs | None:
    if "bias" not in op or len(op["bias"]) == 1:
        return None
    return {"bias": np.full_like(op["bias"], np.sum(op["dz"]))}


@mistake(
    "dense-bias-gradient-over-units",
    on="Dense",
    direction="backward",
    text="sum the gradient by the bias over the batch, axis 0, not over the units",
    right="db[j] = sum of dz[n, j] over n",
    wrong="db[n] = sum of dz[n, j] over j",
    shows="only with as many samples as units",
)
def _(op: Operation) -> Outputs | None:
    dz = rows(op["dz"])
    return {"bias": np.sum(dz, axis=1)} if dz.shape[0] == dz.shape[1] else None


@mistake(
    "dense-bias-gradient-last-sample",
    on="Dense",
    direction="backward",
    text="sum the gradient by the bias over the batch; only the last sample is in it",
    right="db = sum of dz over the batch",
    wrong="db = dz[-1]",
    shows="with a batch of more than one",
)
def _(op: Operation) -> Outputs | None:
    return None if len(op["dz"]) == 1 else {"bias": np.sum(rows(op["dz"][-1:]), axis=0)}


@mistake(
    "dense-bias-gradient-missing",
    on="Dense",
    direction="backward",
    text="the bias has a gradient too: it was left at zero",
    right="db = sum of dz over the batch",
    wrong="db = 0",
)
def _(op: Operation) -> Outputs | None:
    return {"bias": np.zeros_like(op["bias"])} if "bias" in op else None


def _square(op: Operation) -> bool:
    inputs, units = op["kernel"].shape
    return inputs == units


def _kernel_gradient(op: Operation, x: np.ndarray) -> Outputs | None:
    """dW with another array in the place of the input; None where its shape does not let it."""
    return {"kernel": rows(x).T @ rows(op["dz"])} if x.shape == op["x"].shape else None
