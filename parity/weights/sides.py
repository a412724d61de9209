"""What a match goes by: the arrays of one end of a port, and one way in which they hold the weights of a network."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.errors import FileError, ParityError, UsageError
from parity.trace import Weights
from parity.weights.layouts import Layout
from parity.weights.names import FRAMEWORKS, Name
from parity.weights.skeleton import KNOWN, Slot
from parity.weights.stored import Archive
from parity.weights.transforms import Axes, Flattened, Transform, applied, undone

__all__ = ["Held", "Load", "Match", "Side", "described", "named", "natural", "shape_in", "step_to_keras"]

Load = Callable[[str], np.ndarray]


@dataclass(frozen=True)
class Side:
    """The source or the target of a port, as far as a match has to know it.

    ordered: whether the order of the keys means something; is_file: whether what is wrong is wrong with a file.
    """

    archive: Archive
    ordered: bool
    is_file: bool
    naming: str | None = None
    layout: str | Callable[..., Any] | None = None

    def wrong(self, message: str) -> ParityError:
        """An error that says that what it holds is not what the network needs."""
        return (FileError if self.is_file else UsageError)(f"{self.archive.name}: {message}")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {key: stored.shape for key, stored in self.archive.arrays.items()}


@dataclass(frozen=True)
class Held:
    """How one side holds one weight. transforms: of its one array to Keras's form; none under a layout."""

    keys: tuple[str, ...]
    why: str
    transforms: tuple[Transform, ...] = ()
    rivals: tuple[str, ...] = ()


@dataclass(frozen=True)
class Match:
    """One way in which the arrays of a side hold the weights of a network.

    held: weight -> how; ignored: keys that hold none; layout: where the arrays are not one for each weight.
    """

    held: Mapping[str, Held]
    ignored: tuple[str, ...] = ()
    layout: Layout | None = None

    def restore(self, load: Load) -> Weights:
        """The weights in Keras's form: views of what `load` gives where the transforms allow."""
        if self.layout is not None:
            return self.layout.restore({key: load(key) for key in self.layout.places})
        return {weight: applied(held.transforms, load(held.keys[0])) for weight, held in self.held.items()}

    def arrange(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The way back: the arrays by the side's own keys."""
        if self.layout is not None:
            return self.layout.arrange(dict(weights))
        return {held.keys[0]: applied(undone(held.transforms), weights[w]) for w, held in self.held.items()}


def named(naming: str, slot: Slot) -> Name:
    """What a framework calls a weight. `UsageError` for a kind of layer that only Keras's naming has."""
    if naming == "keras":
        return Name(slot.role, slot.axes)
    if slot.kind not in KNOWN[naming]:
        raise UsageError(
            f"{slot.key}: how {naming} holds the weights of a {slot.kind} is not known; known: "
            f"{', '.join(KNOWN[naming])}; other layers can be ported between Keras's own forms"
        )
    return FRAMEWORKS[naming].of(slot.kind, slot.role)


def step_to_keras(naming: str, slot: Slot) -> tuple[Transform, ...]:
    """What makes Keras's form of a weight out of the framework's."""
    axes = named(naming, slot).axes
    steps: list[Transform] = [] if axes == slot.axes else [Axes(axes, slot.axes)]
    if naming == "torch" and slot.unclear:
        raise UsageError(
            f"{slot.key}: its rows went through a Permute or a Reshape, or another layer that may move them, and a "
            "Flatten, so in which order PyTorch would have them is not known; port it between forms of Keras's, or "
            "from a network without these layers"
        )
    if naming == "torch" and slot.rows is not None:
        steps.append(Flattened(slot.rows.image, to_last=True))
    return tuple(steps)


def shape_in(naming: str, slot: Slot) -> tuple[int, ...]:
    sizes = dict(zip(slot.axes, slot.shape, strict=True))
    return tuple(sizes[axis] for axis in named(naming, slot).axes)


def natural(key: str) -> list[tuple[int, str]]:
    """For sorting: numbers by their size, the rest as text."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", key)]


def described(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{key} {shape}" for key, shape in shapes.items())
