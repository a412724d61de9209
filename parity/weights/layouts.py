"""How somebody's own arrays hold the weights of a Keras network.

A layout only puts the same numbers elsewhere: it transposes, reshapes, stacks. So it is written once, as the function
that arranges Keras's weights in the other form. Run on the positions of the elements instead of on their values, that
function says where each element goes, which proves that none is lost or used twice and gives the way back.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.calling import guarded
from parity.errors import SubjectError, UsageError
from parity.trace import Weights

__all__ = ["CONVENTIONS", "Arrays", "Layout", "candidates", "explicit"]

Arrays = dict[str, np.ndarray]
"""The user's own arrays by their own names."""

Shapes = Mapping[str, tuple[int, ...]]
Arrange = Callable[[Weights], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Layout:
    """A one-to-one arrangement of Keras's weights in arrays of other names and shapes.

    name: in words, such as "rows"; shapes: of Keras's weights; places: array -> for each of its elements, its position
    in Keras's weights, counted through all of them in order. channels_first: the kernels whose rows are in the order
    (channels, height, width) of what was flattened in front of them.
    """

    name: str
    shapes: Shapes
    places: Mapping[str, np.ndarray]
    channels_first: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, arrange: Arrange, shapes: Shapes) -> Layout:
        """From the function that arranges Keras's weights. `UsageError` where it drops, repeats or changes elements."""
        positions: Weights = {}
        count = 0
        for weight, shape in shapes.items():
            positions[weight] = np.arange(count, count + math.prod(shape)).reshape(shape)
            count += math.prod(shape)
        places = {key: np.asarray(array) for key, array in arrange(positions).items()}
        _require_each_once(name, places, positions, count)
        return cls(name, dict(shapes), places)

    def arrange(self, weights: Weights) -> Arrays:
        """Keras's weights as the user holds them."""
        flat = np.concatenate([np.asarray(weights[name]).reshape(-1) for name in self.shapes])
        return {key: flat[at] for key, at in self.places.items()}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> Weights:
        """The user's arrays, or gradients by them, as Keras's. Weights of which an array is missing are left out."""
        known = {key: at for key, at in self.places.items() if key in arrays}
        kind = np.result_type(*(np.asarray(arrays[key]).dtype for key in known)) if known else np.float64
        flat = np.zeros(self._size, kind)
        filled = np.zeros(self._size, bool)
        for key, at in known.items():
            flat[at.reshape(-1)] = np.asarray(arrays[key]).reshape(-1)
            filled[at.reshape(-1)] = True
        return {name: flat[here].reshape(self.shapes[name]) for name, here in self._blocks() if np.all(filled[here])}

    def holders(self, weight: str) -> tuple[str, ...]:
        """The names of the user's arrays that hold elements of one of Keras's weights."""
        here = dict(self._blocks())[weight]
        return tuple(k for k, at in self.places.items() if np.any((at >= here.start) & (at < here.stop)))

    def flattened(self, images: Shapes) -> Layout:
        """The same with the rows of some kernels in the order (channels, height, width). images: kernel -> the shape
        (height, width, channels) that is flattened in front of it."""
        positions = np.arange(self._size)
        for name, here in self._blocks():
            if name in images:
                rows = positions[here].reshape(*images[name], -1)
                positions[here] = np.moveaxis(rows, 2, 0).reshape(-1)
        name = f"{self.name}, the rows of {', '.join(images)} as (channels, height, width)"
        places = {key: positions[at] for key, at in self.places.items()}
        return Layout(name, self.shapes, places, tuple(images))

    @property
    def _size(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())

    def _blocks(self) -> Iterator[tuple[str, slice]]:
        start = 0
        for name, shape in self.shapes.items():
            yield name, slice(start, start + math.prod(shape))
            start += math.prod(shape)


def _require_each_once(name: str, places: Arrays, positions: Weights, count: int) -> None:
    what = f"layout {name!r}"
    for key, at in places.items():
        if at.dtype.kind not in "iu" or (at.size and not 0 <= at.min() <= at.max() < count):
            raise UsageError(
                f"{what}: {key} must only put elements of the weights elsewhere (transpose, reshape, stack); "
                "it computes something, or brings numbers of its own"
            )
    times = np.bincount(np.concatenate([at.reshape(-1) for at in places.values()] or [np.empty(0, int)]),
                        minlength=count)  # fmt: skip
    for weight, at in positions.items():
        if np.any(times[at] != 1):
            lost = np.any(times[at] == 0)
            raise UsageError(
                f"{what}: {'no array holds' if lost else 'more than one place holds'} "
                f"{np.count_nonzero(times[at] != 1)} of the {at.size} elements of {weight} {at.shape}"
            )


def explicit(arrange: Arrange, shapes: Shapes, template: Shapes) -> Layout:
    """A layout that the user wrote as a function of Keras's weights; checked against the user's own arrays."""

    def arranged(weights: Weights) -> Mapping[str, np.ndarray]:
        made = guarded("layout", lambda: arrange(weights))
        if not isinstance(made, Mapping):
            raise UsageError(f"layout: expected a dict, your parameter -> array; received {type(made).__name__}")
        return made

    try:
        layout = Layout.of("explicit", arranged, shapes)
    except SubjectError as error:
        if isinstance(error.__cause__, KeyError):
            there = ", ".join(shapes)
            raise UsageError(f"layout: no weight is called {error.__cause__}; there are {there}") from error
        raise
    for key in {**template, **layout.places}:
        expected = template.get(key)
        received = layout.places[key].shape if key in layout.places else None
        if expected != received:
            raise UsageError(
                f"layout: {key}: your array has the shape {expected}, the layout makes {received}"
                if expected and received
                else f"layout: {key} is {'not in the layout' if expected else 'none of your parameters'}; "
                f"your parameters: {', '.join(template)}; the layout has: {', '.join(layout.places)}"
            )
    return layout


# -- named conventions -------------------------------------------------------------------------------------------------

Fit = Callable[[Weights, Sequence[tuple[int, ...]]], "Sequence[np.ndarray] | None"]
"""The weights of one layer by their own names, and the shapes of the user's arrays for it -> these arrays."""


def _rows(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    return kernel if kernel.shape == shape else None


def _columns(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    return kernel.T if kernel.ndim == 2 and kernel.T.shape == shape else None


def _channels_first(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Convolution: (height, width, in, out) as (out, in, height, width)."""
    moved = np.transpose(kernel, (kernel.ndim - 1, kernel.ndim - 2, *range(kernel.ndim - 2)))
    return moved if kernel.ndim > 2 and moved.shape == shape else None


def _images(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """(inputs, units) as (units, height, width)."""
    fits = kernel.ndim == 2 and len(shape) > 2 and (shape[0], math.prod(shape[1:])) == kernel.T.shape
    return kernel.T.reshape(shape) if fits else None


def _images_last(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """(inputs, units) as (height, width, units)."""
    fits = kernel.ndim == 2 and len(shape) > 2 and (math.prod(shape[:-1]), shape[-1]) == kernel.shape
    return kernel.reshape(shape) if fits else None


Kernel = Callable[[np.ndarray, tuple[int, ...]], "np.ndarray | None"]


def _apart(kernel: Kernel) -> Fit:
    """Every weight in an array of its own, the matrices in one of the forms above."""

    def fit(weights: Weights, shapes: Sequence[tuple[int, ...]]) -> Sequence[np.ndarray] | None:
        if len(weights) != len(shapes):
            return None
        made = []
        for (name, weight), shape in zip(weights.items(), shapes, strict=True):
            array = kernel(weight, shape) if weight.ndim > 1 else _vector(weight, shape)
            multiplied = weight.ndim == 2 and name == "kernel"
            if array is None and weight.ndim > 1 and not (kernel is _columns and multiplied):
                array = _rows(weight, shape)  # only one layer of a network sees images, channels or indices
            if array is None and kernel in (_images, _channels_first):
                array = _columns(weight, shape)
            if array is None and weight.ndim == 2 and 1 in weight.shape:
                array = _vector(weight, shape)  # one unit: its kernel may be a vector, too
            if array is None:
                return None
            made.append(array)
        return made

    return fit


def _vector(weight: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """(n,), (1, n), (n, 1): a vector with axes of size 1."""
    return weight.reshape(shape) if [n for n in shape if n != 1] == [n for n in weight.shape if n != 1] else None


def _folded(axis: int, first: bool) -> Fit:
    """Kernel and bias in one matrix: the bias as a row of (inputs + 1, units), or a column of (units, inputs + 1)."""

    def fit(weights: Weights, shapes: Sequence[tuple[int, ...]]) -> Sequence[np.ndarray] | None:
        if list(weights) != ["kernel", "bias"] or len(shapes) != 1 or weights["kernel"].ndim != 2:
            return None
        both = [weights["bias"][np.newaxis], weights["kernel"]]
        stacked = np.concatenate(both if first else both[::-1])
        array = stacked.T if axis == 1 else stacked
        return [array] if array.shape == shapes[0] else None

    return fit


def _flat(kernel: Kernel) -> Fit:
    def fit(weights: Weights, shapes: Sequence[tuple[int, ...]]) -> Sequence[np.ndarray] | None:
        sizes = sum(w.size for w in weights.values())
        if len(shapes) != 1 or math.prod(shapes[0]) != sizes or max(shapes[0]) != sizes:
            return None
        parts = [w.T if kernel is _columns and w.ndim == 2 else w for w in weights.values()]
        return [np.concatenate([part.reshape(-1) for part in parts]).reshape(shapes[0])]

    return fit


CONVENTIONS: dict[str, Fit] = {
    "rows": _apart(_rows),
    "columns": _apart(_columns),
    "bias first row": _folded(0, first=True),
    "bias last row": _folded(0, first=False),
    "bias first column": _folded(1, first=True),
    "bias last column": _folded(1, first=False),
    "images": _apart(_images),
    "images last": _apart(_images_last),
    "channels first": _apart(_channels_first),
    "flat": _flat(_rows),
    "flat columns": _flat(_columns),
}
"""Name -> how the arrays of one layer hold its weights. `rows`: kernels (inputs, units), as in Keras; `columns`:
(units, inputs); a bias folded in as a row of the one or a column of the other; `images`: (units, height, width);
`channels first`: (out, in, height, width); `flat`: one vector for each layer, or for all of them."""


def candidates(shapes: Shapes, template: Shapes, name: str | None = None, images: Shapes | None = None) -> list[Layout]:
    """Every different layout by the named conventions that fits the shapes of the user's arrays, or the one named.

    images: kernel of a Dense behind a Flatten -> the shape (height, width, channels) that is flattened. Where none is
    named, its rows may also be in the order (channels, height, width).
    """
    found: list[Layout] = []
    for convention in CONVENTIONS if name is None else (name,):
        for order in _orders(shapes, template, convention):
            layout = _laid_out(convention, shapes, template, order)
            if layout is not None and not any(_same(layout, other) for other in found):
                found.append(layout)
    if images and name is None:
        found += [layout.flattened(images) for layout in found]
    return found


def _same(a: Layout, b: Layout) -> bool:
    return a.places.keys() == b.places.keys() and all(np.array_equal(a.places[k], b.places[k]) for k in a.places)


def _laid_out(convention: str, shapes: Shapes, template: Shapes, order: Sequence[Sequence[str]]) -> Layout | None:
    layers = _layers(shapes)
    if convention.startswith("flat") and len(order) == 1 and len(layers) > 1:
        layers = {"": {weight: weight for weight in shapes}}
    if len(order) != len(layers):
        return None
    fit = CONVENTIONS[convention]

    def arrange(weights: Weights) -> Mapping[str, np.ndarray]:
        made: dict[str, np.ndarray] = {}
        for names, keys in zip(layers.values(), order, strict=True):
            arrays = fit({own: weights[full] for own, full in names.items()}, [template[key] for key in keys])
            if arrays is None:
                raise _DoesNotFitError
            made.update(zip(keys, arrays, strict=True))
        return made

    try:
        return Layout.of(convention, arrange, shapes)
    except _DoesNotFitError:
        return None


class _DoesNotFitError(Exception):
    pass


def _layers(shapes: Shapes) -> dict[str, dict[str, str]]:
    """Layer -> its weights by their own names -> by their full names."""
    found: dict[str, dict[str, str]] = {}
    for full in shapes:
        layer, _, own = full.rpartition("/")
        found.setdefault(layer, {})[own] = full
    return found


def _orders(shapes: Shapes, template: Shapes, convention: str) -> Iterator[Sequence[Sequence[str]]]:
    """The ways to deal the user's arrays out to the layers: by the numbers in their names, or by their order, in which
    all of a kind may come first."""
    keys = list(template)
    sizes = [len(names) for names in _layers(shapes).values()]
    if not convention.startswith(("bias", "flat")):
        yield from _apart_orders(keys, sizes)
    elif len(keys) == len(sizes):
        yield [[key] for key in sorted(keys, key=_number)]
        yield [[key] for key in keys]
    elif len(keys) == 1:
        yield [keys]


def _apart_orders(keys: Sequence[str], sizes: Sequence[int]) -> Iterator[list[list[str]]]:
    if len(keys) != sum(sizes):
        return
    numbers = [_number(key) for key in keys]
    by_number = [[k for k, n in zip(keys, numbers, strict=True) if n == number] for number in sorted(set(numbers))]
    if [len(group) for group in by_number] == list(sizes):
        yield [sorted(group, key=_kind) for group in by_number]
        if () not in numbers:  # every name has a number, and the numbers deal them out
            return
    dealt = iter(keys)
    yield [list(itertools.islice(dealt, size)) for size in sizes]
    if len(set(sizes)) == 1 and sizes[0] > 1:  # all kernels, then all biases
        yield [list(keys[index :: len(sizes)]) for index in range(len(sizes))]


KINDS = ("kernel", "weight", "w", "theta", "gamma", "scale", "recurrent", "u", "bias", "b", "beta", "mean", "var")
"""How the names of arrays start, in the order in which Keras has them in a layer; other names count as kernels."""


def _kind(key: str) -> int:
    named = [part for part in key.split(".") if not part.isdigit()]  # biases.0 is one of the biases
    words = re.sub(r"[^a-z]", " ", named[-1].lower()).split() if named else []
    first = next((word for word in words if word not in ("moving", "running")), "")
    matching = [i for i, kind in enumerate(KINDS) if (first == kind if len(kind) == 1 else first.startswith(kind))]
    return matching[0] if matching else 0


def _number(key: str) -> tuple[int, ...]:
    """The numbers in a name but the last part's own kind: W2 -> 2, layer1.weight -> 1."""
    return tuple(int(digits) for digits in re.findall(r"\d+", key))


def described(value: Any) -> str:
    """The names and shapes of arrays, for a message."""
    return ", ".join(f"{key} {tuple(np.shape(array))}" for key, array in value.items())
