"""What happens to a weight on its way: each transform says so in words, is exact, and knows the way back.

A transform moves elements; it computes nothing. What rounds is a conversion of the dtype, and comes last (see `port`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from parity.weights import blocks
from parity.weights.names import moved

__all__ = ["Axes", "Flattened", "Transform", "applied", "undone"]


class Transform(Protocol):
    """words: what it does, for a reader."""

    @property
    def words(self) -> str: ...

    @property
    def inverse(self) -> Transform: ...

    def apply(self, array: np.ndarray) -> np.ndarray:
        """The array with its elements elsewhere; a view where that is possible."""
        ...


@dataclass(frozen=True)
class Axes:
    """Named axes in another order."""

    source: tuple[str, ...]
    target: tuple[str, ...]

    @property
    def words(self) -> str:
        return f"({', '.join(self.source)}) as ({', '.join(self.target)})"

    @property
    def inverse(self) -> Axes:
        return Axes(self.target, self.source)

    def apply(self, array: np.ndarray) -> np.ndarray:
        return moved(array, self.source, self.target)


@dataclass(frozen=True)
class Flattened:
    """The first axis runs over a flattened image: its elements in the other order, channels last or channels first.

    image: (height, width, channels).
    """

    image: tuple[int, int, int]
    to_last: bool

    @property
    def words(self) -> str:
        height, width, channels = self.image
        places = ("height", "width") if width > 1 else ("places",)
        sizes = (height, width) if width > 1 else (height,)
        last, first = (*places, "channels"), ("channels", *places)
        shown = {True: (last, (*sizes, channels)), False: (first, (channels, *sizes))}
        (before, counts), (after, _) = shown[not self.to_last], shown[self.to_last]
        return f"rows ({', '.join(before)}) = {counts} as ({', '.join(after)})"

    @property
    def inverse(self) -> Flattened:
        return Flattened(self.image, not self.to_last)

    def apply(self, array: np.ndarray) -> np.ndarray:
        height, width, channels = self.image
        sizes = (channels, height * width) if self.to_last else (height * width, channels)
        return blocks.copied(array.reshape(*sizes, *array.shape[1:]).swapaxes(0, 1)).reshape(array.shape)


def applied(transforms: Sequence[Transform], array: np.ndarray) -> np.ndarray:
    for transform in transforms:
        array = transform.apply(array)
    return array


def undone(transforms: Sequence[Transform]) -> tuple[Transform, ...]:
    """The way back."""
    return tuple(transform.inverse for transform in reversed(transforms))
