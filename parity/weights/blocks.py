"""Arrays in C order, as files have them: moved in tiles where they lie otherwise, and in pieces where they are large.

NumPy copies along the target's last axis. In a transposed array the elements of such a row lie far apart in the source:
each is fetched with a whole line of the cache, whose other elements are wanted one row later, when the line is gone.
In tiles that are long enough in both orders, a line is used up while it is there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

__all__ = ["contiguous", "copied", "pieces", "raw"]

ByteOrder = Literal["<", ">", "="]
"""Little, big, or that of this machine."""

EDGE = 256
"""Elements in a row of a tile, in the order of the source and in that of the target. A transposed 8192 x 8192 of
float32 takes 0.53 s as NumPy copies it, 0.25 s with 32, 0.21 s with 128 to 512; of float64 0.34 s with 512."""
SMALLEST = 2**18
"""Elements of an array that is worth tiles: 400 x 400 takes 0.1 ms either way."""
PIECE = 8 * 2**20
"""Bytes of a piece: a tile's edge of rows of 32 KiB."""
FEWEST_ROWS = 16
"""Rows of a piece, however long: as many float32 as a line of the cache has, so that a line of the source is fetched
for one piece only."""


def contiguous(array: np.ndarray, byteorder: ByteOrder = "<") -> np.ndarray:
    """In C order and this byte order, bit for bit; itself where it is so already. Any strides, any number of axes."""
    dtype = array.dtype.newbyteorder(byteorder)
    if array.flags.c_contiguous and array.dtype == dtype:
        return array
    return copied(array, byteorder)


def copied(array: np.ndarray, byteorder: ByteOrder = "=") -> np.ndarray:
    """A new array in C order and this byte order, bit for bit."""
    new = np.empty(array.shape, array.dtype.newbyteorder(byteorder))
    _copy(new, array)
    return new


def pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """The array in C order and little-endian, as consecutive parts of its first axis: the whole where it is so already,
    else copies of about `PIECE` bytes. The next piece takes the memory of the one before."""
    if array.ndim == 0 or (array.flags.c_contiguous and array.dtype == array.dtype.newbyteorder("<")):
        yield contiguous(array)
        return
    row = math.prod(array.shape[1:]) * array.itemsize
    rows = max(FEWEST_ROWS, PIECE // max(1, row))
    buffer = np.empty((min(rows, len(array)), *array.shape[1:]), array.dtype.newbyteorder("<"))
    for start in range(0, max(1, len(array)), rows):
        part = array[start : start + rows]
        _copy(buffer[: len(part)], part)
        yield buffer[: len(part)]


def raw(array: np.ndarray) -> Iterator[memoryview]:
    """The bytes of its pieces, each to be used before the next is asked for."""
    for piece in pieces(array):
        yield piece.reshape(-1).view(np.uint8).data


def _copy(target: np.ndarray, source: np.ndarray) -> None:
    """target: in C order."""
    if not _scattered(source):
        np.copyto(target, source)
        return
    edges = [max(pair) for pair in zip(_edges(target), _edges(source), strict=True)]
    starts = [range(0, length, edge) for length, edge in zip(source.shape, edges, strict=True)]
    for corner in itertools.product(*starts):
        tile = tuple(slice(start, start + edge) for start, edge in zip(corner, edges, strict=True))
        target[tile] = source[tile]


def _scattered(source: np.ndarray) -> bool:
    """Whether neighbours in the source are many elements apart in C order, so that tiles pay. Channels last from
    channels first is not: three elements later the next one is fetched from the same line."""
    axes = _by_stride(source)
    return source.size > SMALLEST and bool(axes) and math.prod(source.shape[axes[0] + 1 :]) >= EDGE


def _edges(array: np.ndarray) -> Sequence[int]:
    """For each axis how far a tile reaches, so that it holds runs of `EDGE` elements in this array's own order."""
    edges, run = [1] * array.ndim, 1
    for axis in _by_stride(array):
        edges[axis] = min(array.shape[axis], -(-EDGE // run))
        run *= edges[axis]
    return edges


def _by_stride(array: np.ndarray) -> list[int]:
    """The axes along which something changes, the nearest neighbours first."""
    moving = [axis for axis in range(array.ndim) if array.shape[axis] > 1 and array.strides[axis]]
    return sorted(moving, key=lambda axis: abs(array.strides[axis]))
