"""Mistakes in MaxPooling2D: the largest cell of each window."""

from __future__ import annotations

from functools import reduce

import numpy as np

from parity.mistakes.catalogue import mistake
from parity.mistakes.parts import Outputs
from parity.mistakes.windows import borders, other_side, positions, scatter_last, taken
from parity.runners.steps import Operation

# -- forward -----------------------------------------------------------------------------------------------------------


@mistake(
    "max-pooling2d-mean",
    on="MaxPooling2D",
    direction="forward",
    text="take the largest cell of the window, not the mean of its cells",
    right="z = max of x over the window",
    wrong="z = mean of x over the window",
)
def _(op: Operation) -> Outputs:
    cells = _cells(op, fill=0.0)
    inside = taken(np.ones_like(op["x"]), op.entry.windows, borders(op.entry.windows, op["x"].shape))
    return {"z": sum(cells) / sum(inside)}


@mistake(
    "max-pooling2d-padding-zero",
    on="MaxPooling2D",
    direction="forward",
    text='the cells that "same" adds never win: fill them with -inf, not with 0',
    right="z = max of x over the cells of the window in the image",
    wrong="z = max(x over the cells of the window in the image, 0)",
    shows='with padding "same", where all cells of a window at the border are negative',
)
def _(op: Operation) -> Outputs:
    return {"z": reduce(np.maximum, _cells(op, fill=0.0))}


@mistake(
    "max-pooling2d-padding-in-front",
    on="MaxPooling2D",
    direction="forward",
    text='where "same" adds an odd number of rows or columns, the odd one belongs behind the image, not in front',
    right="added in front: missing // 2",
    wrong="added in front: missing - missing // 2",
    shows='with padding "same" where the windows lack an odd number of cells',
)
def _(op: Operation) -> Outputs:
    wrong = other_side(borders(op.entry.windows, op["x"].shape))
    return {"z": reduce(np.maximum, taken(op["x"], op.entry.windows, wrong, fill=-np.inf))}


# -- backward ----------------------------------------------------------------------------------------------------------


@mistake(
    "max-pooling2d-gradient-to-all",
    on="MaxPooling2D",
    direction="backward",
    text="the gradient goes to the largest cell of the window alone, not to all of its cells",
    right="dx[cell that won] += dz",
    wrong="dx[each cell of the window] += dz",
)
def _(op: Operation) -> Outputs:
    return _scattered(op, [np.ones_like(cell) for cell in _cells(op)])


@mistake(
    "max-pooling2d-gradient-averaged",
    on="MaxPooling2D",
    direction="backward",
    text="the gradient goes to the largest cell of the window; spreading it evenly is the gradient of a mean",
    right="dx[cell that won] += dz",
    wrong="dx[each cell of the window] += dz / number of cells",
)
def _(op: Operation) -> Outputs:
    cells = _cells(op)
    return _scattered(op, [np.full_like(cell, 1 / len(cells)) for cell in cells])


@mistake(
    "max-pooling2d-ties-to-all",
    on="MaxPooling2D",
    direction="backward",
    text="of equal largest cells only the first gets the gradient; a mask x == max gives it to each of them",
    right="dx[first cell with x = max] += dz",
    wrong="dx[every cell with x = max] += dz",
    shows="where a window has several largest cells, as behind relu",
)
def _(op: Operation) -> Outputs:
    return _scattered(op, _largest(op))


@mistake(
    "max-pooling2d-ties-split",
    on="MaxPooling2D",
    direction="backward",
    text="of equal largest cells only the first gets the gradient; it is split among them",
    right="dx[first cell with x = max] += dz",
    wrong="dx[every cell with x = max] += dz / number of them",
    shows="where a window has several largest cells, as behind relu",
)
def _(op: Operation) -> Outputs:
    largest = _largest(op)
    return _scattered(op, [one / sum(largest) for one in largest])


@mistake(
    "max-pooling2d-ties-to-last",
    on="MaxPooling2D",
    direction="backward",
    text="of equal largest cells the first gets the gradient, not the last: compare with > in the search, not with >=",
    right="dx[first cell with x = max] += dz",
    wrong="dx[last cell with x = max] += dz",
    shows="where a window has several largest cells, as behind relu",
)
def _(op: Operation) -> Outputs:
    largest = np.stack(_largest(op))
    behind = np.cumsum(largest[::-1], axis=0)[::-1]  # of these cells, how many from here on
    return _scattered(op, list(largest * (behind == 1)))


@mistake(
    "max-pooling2d-overlap-assigned",
    on="MaxPooling2D",
    direction="backward",
    text="a cell that wins several windows collects a sum: +=, not =",
    right="dx[cell that won] += dz",
    wrong="dx[cell that won] = dz",
    shows="where windows overlap",
)
def _(op: Operation) -> Outputs:
    won = [op.terms == k for k in range(len(positions(op.entry.windows)))]
    pieces = [np.where(one, op["dz"], np.zeros_like(op["dz"])) for one in won]
    written = [one.astype(op["dz"].dtype) for one in won]
    return {"dx": scatter_last(op.entry.windows, pieces, written, op["x"].shape)}


@mistake(
    "max-pooling2d-winner-transposed",
    on="MaxPooling2D",
    direction="backward",
    text="the number of the winner in its window counts row by row: row = k // width, column = k % width",
    right="dx[k // width, k % width] += dz",
    wrong="dx[k % width, k // width] += dz",
    shows="only a window as high as wide lets it run",
)
def _(op: Operation) -> Outputs | None:
    height, width = op.entry.pool_size
    if height != width:
        return None
    return _scattered(op, [op.terms == i + j * width for i, j in positions(op.entry.windows)])


def _cells(op: Operation, fill: float = -np.inf) -> list[np.ndarray]:
    return taken(op["x"], op.entry.windows, borders(op.entry.windows, op["x"].shape), fill)


def _largest(op: Operation) -> list[np.ndarray]:
    """For each position 1 where the window has its maximum there, else 0."""
    return [(cell == op["z"]).astype(cell.dtype) for cell in _cells(op)]


def _scattered(op: Operation, shares: list[np.ndarray]) -> Outputs:
    """dx where each position gets its share of dz."""
    return {"dx": op.entry.windows.scatter([op["dz"] * share for share in shares], op["x"].shape)}
