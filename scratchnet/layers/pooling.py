"""MaxPooling2D: the largest cell of each window, channel by channel."""

from functools import reduce
from typing import Any

import numpy as np

from scratchnet.layers.base import Layer, Saved, Shape
from scratchnet.layers.windows import Windows, padding_name, pair
from scratchnet.registry import register

__all__ = ["MaxPooling2D"]


@register("MaxPooling2D")
class MaxPooling2D(Layer):
    """z[n, r, c, k] = max of x[n, ., ., k] over the window (r, c);  dx[cell] = sum of dz over the windows it won.

    Of equal cells the first one wins, row by row; cells that "same" adds never do. x: (batch, height, width, channels).

    As in TensorFlow, z starts from the smallest finite number and skips nan, so a window of -inf or nan alone gives
    that number; the search for the winner starts from the first cell, so one that is nan there keeps the gradient.
    """

    neutral = {"data_format": "channels_last"}
    built_at_init = True
    example_shape = (7, 6, 3)
    examples = (
        {},
        {"pool_size": (2, 3), "padding": "same"},
        {"pool_size": 3, "strides": 1, "padding": "same"},
        {"pool_size": 2, "strides": (1, 2)},
    )

    def __init__(
        self,
        pool_size: int | tuple[int, int] = (2, 2),
        strides: int | tuple[int, int] | None = None,
        padding: str = "valid",
        **base: Any,
    ):
        super().__init__(**base)
        self.pool_size = pair("pool_size", pool_size)
        self.strides = self.pool_size if strides is None else pair("strides", strides)
        self.padding = padding_name(padding)
        self.windows = Windows.of(self.pool_size, self.strides, self.padding)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], *self.windows.counts(input_shape), input_shape[3])

    def transform(self, x: np.ndarray, training: bool) -> tuple[np.ndarray, Any, dict[str, np.ndarray]]:
        cells = self.windows.cells(x, fill=-np.inf)
        z = reduce(np.fmax, cells, np.finfo(x.dtype).min)
        return z, _winners(cells, self.windows.first_inside(x.shape)), {}

    def transform_backward(self, saved: Saved, dz: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        nothing = np.zeros_like(dz)
        pieces = [np.where(saved.terms == k, dz, nothing) for k in range(self.pool_size[0] * self.pool_size[1])]
        return self.windows.scatter(pieces, saved.x.shape), {}

    def two_sided(self, x: np.ndarray) -> np.ndarray:
        """The cells that share the maximum of a window with another one."""
        cells = self.windows.cells(x, fill=-np.inf)
        z = reduce(np.fmax, cells)
        shared = sum((cell == z).astype(int) for cell in cells) > 1
        return self.windows.scatter([(shared & (cell == z)).astype(x.dtype) for cell in cells], x.shape) > 0

    def ties(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cells = self.windows.cells(x, fill=-np.inf)
        shared = self.windows.cells(self.two_sided(x), fill=False)
        numbers = self.windows.cells(np.arange(x.size).reshape(x.shape), fill=-1)
        z = reduce(np.fmax, cells)
        wins = np.stack([at & (cell == z) for at, cell in zip(shared, cells, strict=True)], axis=-1)
        window, position = np.nonzero(wins.reshape(z.size, -1))
        return window, np.stack(numbers, axis=-1).reshape(z.size, -1)[window, position]


def _winners(cells: list[np.ndarray], first: np.ndarray) -> np.ndarray:
    """The position of each window's first maximum, searched from position `first` on; the shape of one of `cells`."""
    largest, winner = cells[0], np.zeros_like(first)
    for k, cell in enumerate(cells):
        wins = (cell > largest) | (first == k)
        largest, winner = np.where(wins, cell, largest), np.where(wins, k, winner)
    return winner
