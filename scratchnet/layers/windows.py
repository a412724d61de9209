"""The geometry that convolution and pooling share: windows that move over the height and the width of an image.

An image batch is (batch, height, width, channels). A window of (h, w) cells that stops at (rows, columns) places gives
h * w arrays (batch, rows, columns, channels), one for each position in the window: a strided view of the padded image.
All arithmetic is on those arrays, so there is no loop over pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from scratchnet.layers.base import Shape

__all__ = ["Axis", "Windows", "padding_name", "pair"]

Pair = tuple[int, int]

PADDINGS = ("same", "valid")


@dataclass(frozen=True)
class Axis:
    """Windows along one axis: window o has the cells o stride + k dilation - before, for k = 0 ... length - 1.

    "valid" stays inside. "same" makes ceil(size / stride) windows and splits the cells that they lack at the borders;
    an odd one goes behind, so an even window, or stride 2 on an even size, sticks out further there.
    """

    length: int
    stride: int
    dilation: int
    padding: str

    def count(self, size: int) -> int:
        """How many windows an axis of `size` cells has. `ValueError` when not even one fits."""
        windows = -(-size // self.stride) if self.padding == "same" else (size - self._span) // self.stride + 1
        if windows < 1:
            raise ValueError(
                f"a window over {self._span} cells does not fit into {size}; make it smaller, or use padding='same'"
            )
        return windows

    def borders(self, size: int) -> Pair:
        """The number of cells to add before and after."""
        missing = max((self.count(size) - 1) * self.stride + self._span - size, 0) if self.padding == "same" else 0
        return missing // 2, missing - missing // 2

    def cells(self, k: int, size: int) -> slice:
        """Where the padded axis has the k-th cell of each window."""
        first = k * self.dilation
        return slice(first, first + self._reach(size), self.stride)

    def first_inside(self, size: int) -> np.ndarray:
        """For each window the smallest k whose cell is not added; (count,)."""
        added = self.borders(size)[0] - self.stride * np.arange(self.count(size))
        return np.maximum(-(-added // self.dilation), 0)

    def gaps(self, k: int, size: int) -> Pair:
        """The cells of the padded axis before and behind those that `cells` goes through."""
        first = k * self.dilation
        return first, sum(self.borders(size)) + size - first - self._reach(size)

    def _reach(self, size: int) -> int:
        """From the first to the last window's cell of one position, both included."""
        return (self.count(size) - 1) * self.stride + 1

    @property
    def _span(self) -> int:
        return (self.length - 1) * self.dilation + 1


@dataclass(frozen=True)
class Windows:
    """Windows over images; positions in a window are numbered row by row."""

    rows: Axis
    columns: Axis

    @classmethod
    def of(cls, lengths: Pair, strides: Pair, padding: str, dilation: Pair = (1, 1)) -> Self:
        """From Keras's arguments, each (height, width)."""
        rows, columns = (Axis(*axis, padding) for axis in zip(lengths, strides, dilation, strict=True))
        return cls(rows, columns)

    def counts(self, image_shape: Shape) -> tuple[int | None, int | None]:
        """(rows, columns) of windows over images (batch, height, width, channels); None where the size is."""
        if len(image_shape) != 4:
            raise ValueError(f"expected images of shape (batch, height, width, channels); received {image_shape}")
        height, width = image_shape[1:3]
        return (
            None if height is None else self.rows.count(height),
            None if width is None else self.columns.count(width),
        )

    def cells(self, x: np.ndarray, fill: float) -> list[np.ndarray]:
        """For each position in the window, what the windows have there: (batch, rows, columns, channels) each.

        x: (batch, height, width, channels); `fill` is the value of the cells that "same" adds.
        """
        self.counts(x.shape)  # speaks up when no window fits
        height, width = x.shape[1:3]
        borders = ((0, 0), self.rows.borders(height), self.columns.borders(width), (0, 0))
        padded = np.pad(x, borders, constant_values=fill)
        return [padded[:, self.rows.cells(i, height), self.columns.cells(j, width)] for i, j in self._positions()]

    def scatter(self, pieces: Sequence[np.ndarray], image_shape: tuple[int, ...]) -> np.ndarray:
        """The transpose of `cells`: add each piece where `cells` took its array from; (batch, height, width, channels).

        Cells in several windows collect a sum; what falls on added cells is dropped.
        """
        height, width = image_shape[1:3]
        strides = self.rows.stride, self.columns.stride
        placed = [
            np.pad(_spread(piece, strides), ((0, 0), self.rows.gaps(i, height), self.columns.gaps(j, width), (0, 0)))
            for piece, (i, j) in zip(pieces, self._positions(), strict=True)
        ]
        top, left = self.rows.borders(height)[0], self.columns.borders(width)[0]
        return np.sum(np.stack(placed), axis=0)[:, top : top + height, left : left + width]

    def first_inside(self, image_shape: tuple[int, ...]) -> np.ndarray:
        """The number of the first position in each window that lies in the image; (rows, columns, 1)."""
        height, width = image_shape[1:3]
        rows, columns = self.rows.first_inside(height), self.columns.first_inside(width)
        return (rows[:, np.newaxis] * self.columns.length + columns)[..., np.newaxis]

    def _positions(self) -> list[Pair]:
        return [(i, j) for i in range(self.rows.length) for j in range(self.columns.length)]


def _spread(piece: np.ndarray, strides: Pair) -> np.ndarray:
    """Put stride - 1 zeros between neighbours: (batch, r, c, channels) -> (batch, (r-1)s+1, (c-1)s+1, channels)."""
    batch, rows, columns, channels = piece.shape
    down, right = strides
    if strides == (1, 1):
        return piece
    apart = piece.reshape(batch, rows, 1, columns, 1, channels)
    filled = np.pad(apart, ((0, 0), (0, 0), (0, down - 1), (0, 0), (0, right - 1), (0, 0)))
    return filled.reshape(batch, rows * down, columns * right, channels)[:, : 1 - down or None, : 1 - right or None]


def pair(argument: str, value: Any) -> Pair:
    """Keras's reading of a size: two positive integers (height, width), or one for both."""
    values = (value, value) if isinstance(value, int) else value
    if (
        not isinstance(values, tuple | list)
        or len(values) != 2
        or not all(isinstance(number, int) and number > 0 for number in values)
    ):
        raise ValueError(f"{argument}: expected a positive integer or two, (height, width); received {value!r}")
    return values[0], values[1]


def padding_name(value: Any) -> str:
    """Keras takes the name in any case."""
    if not isinstance(value, str) or value.lower() not in PADDINGS:
        raise ValueError(f"padding: expected one of {', '.join(PADDINGS)}; received {value!r}")
    return value.lower()
