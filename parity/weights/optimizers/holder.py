"""One end of a port and the state of its optimizer: what it is, and which of its arrays is what of which weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from parity.weights.optimizers.state import Optimizer
from parity.weights.transforms import Transform, applied, undone

__all__ = ["Gradients", "Holder", "Place", "Slot"]

Slot = tuple[str, str]
"""What it is, in Keras's words, and of which weight: ("momentum", "dense/kernel")."""
Gradients = Mapping[str, np.ndarray]
"""By weight, in Keras's form."""


@dataclass(frozen=True)
class Place:
    """Where an end holds one slot. transforms: to Keras's form, those of the weight; rate: PyTorch's learning rate, if
    the array is its b, which is m = -lr b in Keras."""

    key: str
    transforms: tuple[Transform, ...] = ()
    rate: float | None = None

    @property
    def to_keras(self) -> tuple[str, ...]:
        """In words."""
        words = tuple(step.words for step in self.transforms)
        return words if self.rate is None else (f"m = -lr b, lr = {self.rate:g}", *words)

    @property
    def from_keras(self) -> tuple[str, ...]:
        words = tuple(step.words for step in undone(self.transforms))
        return words if self.rate is None else (*words, f"b = -m / lr, lr = {self.rate:g}")

    def restored(self, array: np.ndarray) -> np.ndarray:
        """In Keras's form and with Keras's meaning."""
        found = applied(self.transforms, array)
        return found if self.rate is None else np.asarray(found * found.dtype.type(-self.rate))

    def arranged(self, array: np.ndarray) -> np.ndarray:
        """The way back."""
        found = applied(undone(self.transforms), array)
        if self.rate is None:
            return found
        with np.errstate(all="ignore"):  # whatever is not finite is refused
            return np.asarray(found / found.dtype.type(-self.rate))


@dataclass(frozen=True)
class Holder:
    """An end that has an optimizer, or can hold the state of one.

    places: where each slot is, or will be; trained: the weights that it changes, in its order; load: an array by its
    key; iterations: the steps that were made, None where they are not counted; count: what stands there for a number
    of steps, by key; put: sets arrays by key, of a live end; texts: that a file needs beside the arrays; stepped: the
    weights after each of several steps with these gradients, made on a copy; None where nobody can make them.
    """

    name: str
    optimizer: Optimizer
    places: Mapping[Slot, Place]
    trained: tuple[str, ...]
    load: Callable[[str], np.ndarray]
    iterations: int | None = None
    count: Callable[[int], Mapping[str, np.ndarray]] = lambda steps: {}
    put: Callable[[Mapping[str, np.ndarray]], None] | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    stepped: Callable[[Sequence[Gradients]], Sequence[Gradients]] | None = None
    notes: tuple[str, ...] = ()
    runner: str = ""

    @property
    def has_state(self) -> bool:
        return bool(self.places) or bool(self.iterations)

    def slot(self, slot: Slot) -> np.ndarray:
        """One slot in Keras's form."""
        place = self.places[slot]
        return place.restored(self.load(place.key))
