"""Windows over images with a fault in them, for the mistakes of convolution and pooling.

`windows` is the geometry of a layer, its attribute of that name; a window has positions, numbered row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["Borders", "borders", "other_side", "positions", "scatter_last", "taken"]

Borders = tuple[tuple[int, int], tuple[int, int]]
"""The cells added (before, behind) the rows, and the columns."""


def positions(windows: Any) -> list[tuple[int, int]]:
    """(row, column) of each position in a window."""
    return [(i, j) for i in range(windows.rows.length) for j in range(windows.columns.length)]


def borders(windows: Any, image_shape: tuple[int, ...]) -> Borders:
    """What "same" adds; zeros for "valid"."""
    return windows.rows.borders(image_shape[1]), windows.columns.borders(image_shape[2])


def other_side(right: Borders) -> Borders:
    """The same numbers of cells, with before and behind exchanged."""
    (top, bottom), (left, right_) = right
    return (bottom, top), (right_, left)


def taken(x: np.ndarray, windows: Any, added: Borders, fill: float = 0.0) -> list[np.ndarray]:
    """For each position what the windows have there, (batch, rows, columns, channels), with `added` cells around x."""
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), *added, (0, 0)), constant_values=fill)
    return [padded[:, windows.rows.cells(i, height), windows.columns.cells(j, width)] for i, j in positions(windows)]


def scatter_last(
    windows: Any, pieces: Sequence[np.ndarray], written: Sequence[np.ndarray], image_shape: tuple[int, ...]
) -> np.ndarray:
    """The pieces put back where they came from with = in the place of +=, window by window: the last one stays.

    pieces, written: for each position (batch, rows, columns, channels); only where `written` is the piece counts.
    """
    dx = np.zeros(image_shape, pieces[0].dtype)
    # A cell is at the earliest position of the last window that has it.
    for k in reversed(range(len(pieces))):
        covered = windows.scatter(_alone(written, k), image_shape)
        dx = np.where(covered, windows.scatter(_alone(pieces, k), image_shape), dx)
    return dx


def _alone(pieces: Sequence[np.ndarray], k: int) -> list[np.ndarray]:
    return [piece if n == k else np.zeros_like(piece) for n, piece in enumerate(pieces)]
