"""Mistakes in Conv2D: z = the windows of x, each times W, + b."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from parity.mistakes.catalogue import mistake
from parity.mistakes.parts import Outputs
from parity.mistakes.windows import borders, other_side, positions, scatter_last, taken
from parity.runners.steps import Operation

# -- forward -----------------------------------------------------------------------------------------------------------


@mistake(
    "conv2d-kernel-flipped",
    on="Conv2D",
    direction="forward",
    text="the kernel is flipped: the layer computes a cross-correlation, not a convolution",
    right="z[r, c] = sum_ij x[r + i, c + j] W[i, j] + b",
    wrong="z[r, c] = sum_ij x[r + i, c + j] W[-1 - i, -1 - j] + b",
    shows="with kernels larger than 1 x 1",
)
def _(op: Operation) -> Outputs | None:
    return None if _pointwise(op) else {"z": _convolved(op, op["kernel"][::-1, ::-1])}


@mistake(
    "conv2d-kernel-rows-for-columns",
    on="Conv2D",
    direction="forward",
    text="rows and columns of the kernel are exchanged: it is (height, width, in, out)",
    right="z[r, c] = sum_ij x[r + i, c + j] W[i, j] + b",
    wrong="z[r, c] = sum_ij x[r + i, c + j] W[j, i] + b",
    shows="only a kernel as high as wide lets it run",
)
def _(op: Operation) -> Outputs | None:
    height, width = op["kernel"].shape[:2]
    if height != width or _pointwise(op):
        return None
    return {"z": _convolved(op, op["kernel"].swapaxes(0, 1))}


@mistake(
    "conv2d-channels-swapped",
    on="Conv2D",
    direction="forward",
    text="input and output channels of the kernel are exchanged: it is (height, width, in, out)",
    right="z[..., f] = sum_k x[..., k] W[..., k, f] + b[f]",
    wrong="z[..., f] = sum_k x[..., k] W[..., f, k] + b[f]",
    shows="only with as many filters as input channels",
)
def _(op: Operation) -> Outputs | None:
    return {"z": _convolved(op, op["kernel"].swapaxes(2, 3))} if _equal_channels(op) else None


@mistake(
    "conv2d-windows-channels-first",
    on="Conv2D",
    direction="forward",
    text="the rows of im2col are in the order (channels, height, width), those of the kernel in the order "
    "(height, width, channels)",
    right="z = P W + b, both in the order (height, width, channels)",
    wrong="z = P' W + b, P' in the order (channels, height, width)",
    shows="with more than one input channel and kernels larger than 1 x 1",
)
def _(op: Operation) -> Outputs | None:
    kernel = op["kernel"]
    height, width, channels, filters = kernel.shape
    if channels == 1 or _pointwise(op):
        return None
    moved = kernel.reshape(channels, height, width, filters).transpose(1, 2, 0, 3)
    return {"z": _convolved(op, moved)}


@mistake(
    "conv2d-bias-missing",
    on="Conv2D",
    direction="forward",
    text="add the bias of each filter",
    right="z = P W + b",
    wrong="z = P W",
    shows="where the bias is not zero, as it is when training starts",
)
def _(op: Operation) -> Outputs | None:
    return {"z": _convolved(op, op["kernel"], bias=False)} if "bias" in op else None


@mistake(
    "conv2d-padding-in-front",
    on="Conv2D",
    direction="forward",
    text='where "same" adds an odd number of rows or columns, the odd one belongs behind the image, not in front',
    right="added in front: missing // 2",
    wrong="added in front: missing - missing // 2",
    shows='with padding "same" where the windows lack an odd number of cells',
)
def _(op: Operation) -> Outputs | None:
    right = borders(op.entry.windows, op["x"].shape)
    wrong = other_side(right)
    return None if wrong == right else {"z": _product(op, taken(op["x"], op.entry.windows, wrong), op["kernel"])}


@mistake(
    "conv2d-dilation-ignored",
    on="Conv2D",
    direction="forward",
    text="the cells of a window are dilation_rate apart",
    right="z[r, c] = sum_ij x[r + i d, c + j d] W[i, j] + b",
    wrong="z[r, c] = sum_ij x[r + i, c + j] W[i, j] + b",
    shows='with a dilation rate above 1 and padding "same"',
)
def _(op: Operation) -> Outputs | None:
    windows = op.entry.windows
    near = type(windows)(*(replace(axis, dilation=1) for axis in (windows.rows, windows.columns)))
    if near == windows or near.counts(op["x"].shape) != windows.counts(op["x"].shape):
        return None
    return {"z": _product(op, taken(op["x"], near, borders(near, op["x"].shape)), op["kernel"])}


# -- backward: the gradient by the input -------------------------------------------------------------------------------


@mistake(
    "conv2d-input-gradient-kernel-flipped",
    on="Conv2D",
    direction="backward",
    text="the kernel is turned the wrong way in the gradient by the input: convolve dz with the rotated kernel, "
    "or scatter dz times the kernel as it is",
    right="dx[r + i, c + j] += dz[r, c] W[i, j]^T",
    wrong="dx[r + i, c + j] += dz[r, c] W[-1 - i, -1 - j]^T",
    shows="with kernels larger than 1 x 1",
)
def _(op: Operation) -> Outputs | None:
    if _pointwise(op):
        return None
    return {"dx": op.entry.windows.scatter(_pieces(op, op["kernel"][::-1, ::-1]), op["x"].shape)}


@mistake(
    "conv2d-input-gradient-channels-swapped",
    on="Conv2D",
    direction="backward",
    text="going back, sum over the filters: multiply with the transposed kernel",
    right="dx[..., k] += dz[..., f] W[..., k, f]",
    wrong="dx[..., k] += dz[..., f] W[..., f, k]",
    shows="only with as many filters as input channels",
)
def _(op: Operation) -> Outputs | None:
    if not _equal_channels(op):
        return None
    return {"dx": op.entry.windows.scatter(_pieces(op, op["kernel"].swapaxes(2, 3)), op["x"].shape)}


@mistake(
    "conv2d-input-gradient-assigned",
    on="Conv2D",
    direction="backward",
    text="cells in several windows collect a sum: += in col2im, not =",
    right="dx[cells of the window] += dz W^T",
    wrong="dx[cells of the window] = dz W^T",
    shows="where windows overlap",
)
def _(op: Operation) -> Outputs | None:
    pieces = _pieces(op, op["kernel"])
    everywhere = [np.ones_like(piece) for piece in pieces]
    if np.max(op.entry.windows.scatter(everywhere, op["x"].shape)) == 1:
        return None
    return {"dx": scatter_last(op.entry.windows, pieces, everywhere, op["x"].shape)}


@mistake(
    "conv2d-input-gradient-stride-ignored",
    on="Conv2D",
    direction="backward",
    text="put stride - 1 zeros between the elements of dz: window (r, c) starts at (r s, c s)",
    right="dx[r s + i, c s + j] += dz[r, c] W[i, j]^T",
    wrong="dx[r + i, c + j] += dz[r, c] W[i, j]^T",
    shows="with strides above 1",
)
def _(op: Operation) -> Outputs | None:
    if not _strides_matter(op):
        return None
    x, windows = op["x"], op.entry.windows
    added = borders(windows, x.shape)
    dx = np.zeros_like(np.pad(x, ((0, 0), *added, (0, 0))))
    for cells, piece in zip(_dense_cells(op), _pieces(op, op["kernel"]), strict=True):
        dx[cells] += piece
    (top, _), (left, _) = added
    return {"dx": dx[:, top : top + x.shape[1], left : left + x.shape[2]]}


@mistake(
    "conv2d-input-gradient-padding-kept",
    on="Conv2D",
    direction="backward",
    text="cut the added cells off the gradient by the padded input, in front as well as behind",
    right="dx = padded dx[top : top + height, left : left + width]",
    wrong="dx = padded dx[: height, : width]",
    shows='with padding "same" where it adds cells in front',
)
def _(op: Operation) -> Outputs | None:
    (top, bottom), (left, right) = borders(op.entry.windows, op["x"].shape)
    if top == left == 0:
        return None
    batch, height, width, channels = op["x"].shape
    padded_shape = (batch, height + top + bottom, width + left + right, channels)
    axes = op.entry.windows.rows, op.entry.windows.columns
    padded = type(op.entry.windows)(*(replace(axis, padding="valid") for axis in axes))
    return {"dx": padded.scatter(_pieces(op, op["kernel"]), padded_shape)[:, :height, :width]}


@mistake(
    "conv2d-input-gradient-scattered",
    on="Conv2D",
    direction="backward",
    text="the kernel need not be rotated where dz W^T is added to the cells that the window came from",
    right="dx = the full convolution of dz with the rotated kernel",
    wrong="dx[r s + i d - top, c s + j d - left] += dz[r, c] W[i, j]^T",
    shows="never",
    equivalent="a convolution with a rotated kernel is a correlation, and its terms are those of the scattered sum",
)
def _(op: Operation) -> Outputs:
    dx = np.zeros_like(op["x"])
    (top, _), (left, _) = borders(op.entry.windows, dx.shape)
    (down, right), (by_row, by_column) = op.entry.strides, op.entry.dilation_rate
    for r, c in np.ndindex(op["dz"].shape[1:3]):
        for i, j in positions(op.entry.windows):
            row, column = r * down + i * by_row - top, c * right + j * by_column - left
            if 0 <= row < dx.shape[1] and 0 <= column < dx.shape[2]:
                dx[:, row, column] += op["dz"][:, r, c] @ op["kernel"][i, j].T
    return {"dx": dx}


# -- backward: the gradients by the weights ----------------------------------------------------------------------------


@mistake(
    "conv2d-kernel-gradient-flipped",
    on="Conv2D",
    direction="backward",
    text="the gradient by the kernel is turned by half a turn: correlate the input with dz, do not convolve",
    right="dW[i, j] = sum_rc x[r + i, c + j]^T dz[r, c]",
    wrong="dW[-1 - i, -1 - j] = sum_rc x[r + i, c + j]^T dz[r, c]",
    shows="with kernels larger than 1 x 1",
)
def _(op: Operation) -> Outputs:
    return {"kernel": op.outputs["kernel"][::-1, ::-1]}


@mistake(
    "conv2d-kernel-gradient-channels-swapped",
    on="Conv2D",
    direction="backward",
    text="input and output channels of the gradient by the kernel are exchanged",
    right="dW[..., k, f] = sum x[..., k] dz[..., f]",
    wrong="dW[..., f, k] = sum x[..., k] dz[..., f]",
    shows="only with as many filters as input channels",
)
def _(op: Operation) -> Outputs | None:
    return {"kernel": op.outputs["kernel"].swapaxes(2, 3)} if _equal_channels(op) else None


@mistake(
    "conv2d-kernel-gradient-padding-ignored",
    on="Conv2D",
    direction="backward",
    text="the gradient by the kernel takes the windows of the padded input, as the forward pass does",
    right="dW[i, j] = sum_rc x[r s + i d - top, c s + j d - left]^T dz[r, c]",
    wrong="dW[i, j] = sum_rc x[r s + i d, c s + j d]^T dz[r, c]",
    shows='with padding "same" where it adds cells in front',
)
def _(op: Operation) -> Outputs | None:
    (top, bottom), (left, right) = borders(op.entry.windows, op["x"].shape)
    if top == left == 0:
        return None
    behind = (0, top + bottom), (0, left + right)
    return {"kernel": _kernel_gradient(op, taken(op["x"], op.entry.windows, behind))}


@mistake(
    "conv2d-kernel-gradient-stride-ignored",
    on="Conv2D",
    direction="backward",
    text="the gradient by the kernel takes the windows that the forward pass took, stride cells apart",
    right="dW[i, j] = sum_rc x[r s + i, c s + j]^T dz[r, c]",
    wrong="dW[i, j] = sum_rc x[r + i, c + j]^T dz[r, c]",
    shows="with strides above 1",
)
def _(op: Operation) -> Outputs | None:
    if not _strides_matter(op):
        return None
    padded = np.pad(op["x"], ((0, 0), *borders(op.entry.windows, op["x"].shape), (0, 0)))
    return {"kernel": _kernel_gradient(op, [padded[cells] for cells in _dense_cells(op)])}


@mistake(
    "conv2d-kernel-gradient-last-window",
    on="Conv2D",
    direction="backward",
    text="sum the gradient by the kernel over all windows: += in the loop over them, not =",
    right="dW += x[window]^T dz[r, c]",
    wrong="dW = x[window]^T dz[r, c]",
    shows="with more than one window",
)
def _(op: Operation) -> Outputs | None:
    if _single_window(op):
        return None
    cells = taken(op["x"], op.entry.windows, borders(op.entry.windows, op["x"].shape))
    last = [np.where(_is_last(cell), cell, np.zeros_like(cell)) for cell in cells]
    return {"kernel": _kernel_gradient(op, last)}


@mistake(
    "conv2d-bias-gradient-last-window",
    on="Conv2D",
    direction="backward",
    text="sum the gradient by the bias over all places, not over the batch alone",
    right="db = sum of dz over batch, rows and columns",
    wrong="db = sum of dz over the batch, at the last row and column",
    shows="with more than one window",
)
def _(op: Operation) -> Outputs | None:
    return None if _single_window(op) else {"bias": np.sum(op["dz"][:, -1, -1], axis=0)}


@mistake(
    "conv2d-bias-gradient-averaged",
    on="Conv2D",
    direction="backward",
    text="sum the gradient by the bias over rows and columns; do not take their mean",
    right="db = sum of dz over batch, rows and columns",
    wrong="db = sum over the batch of the mean of dz over rows and columns",
    shows="with more than one window",
)
def _(op: Operation) -> Outputs | None:
    return None if _single_window(op) else {"bias": np.sum(np.mean(op["dz"], axis=(1, 2)), axis=0)}


# -- the arithmetic, with parts that can be exchanged ------------------------------------------------------------------


def _convolved(op: Operation, kernel: np.ndarray, bias: bool = True) -> np.ndarray:
    windows = op.entry.windows
    return _product(op, taken(op["x"], windows, borders(windows, op["x"].shape)), kernel, bias)


def _product(op: Operation, cells: Sequence[np.ndarray], kernel: np.ndarray, bias: bool = True) -> np.ndarray:
    """z from what the windows have at each position."""
    pieces = zip(cells, positions(op.entry.windows), strict=True)
    z = sum(cell @ kernel[i, j] for cell, (i, j) in pieces)
    return z + op["bias"] if bias and "bias" in op else z


def _pieces(op: Operation, kernel: np.ndarray) -> list[np.ndarray]:
    """What each window gives back to each of its positions."""
    return [op["dz"] @ kernel[i, j].T for i, j in positions(op.entry.windows)]


def _kernel_gradient(op: Operation, cells: Sequence[np.ndarray]) -> np.ndarray:
    """dW from what the windows have at each position."""
    places = (0, 1, 2)
    matrices = [np.tensordot(cell, op["dz"], axes=(places, places)) for cell in cells]
    return np.stack(matrices).reshape(op["kernel"].shape)


def _dense_cells(op: Operation) -> list[Any]:
    """Where the padded image has each position of the windows, as if the stride were 1."""
    rows, columns = op["dz"].shape[1:3]
    down, right = op.entry.dilation_rate
    return [
        np.s_[:, i * down : i * down + rows, j * right : j * right + columns] for i, j in positions(op.entry.windows)
    ]


def _is_last(cell: np.ndarray) -> np.ndarray:
    """(rows, columns, 1): whether it is the last window."""
    rows, columns = cell.shape[1:3]
    return (np.arange(rows * columns) == rows * columns - 1).reshape(rows, columns, 1)


def _pointwise(op: Operation) -> bool:
    """Whether the kernel is 1 x 1."""
    return op["kernel"].shape[:2] == (1, 1)


def _single_window(op: Operation) -> bool:
    return op["dz"].shape[1:3] == (1, 1)


def _strides_matter(op: Operation) -> bool:
    return any(stride > 1 and count > 1 for stride, count in zip(op.entry.strides, op["dz"].shape[1:3], strict=True))


def _equal_channels(op: Operation) -> bool:
    inputs, filters = op["kernel"].shape[2:]
    return inputs == filters
