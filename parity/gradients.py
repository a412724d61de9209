"""The gradients of somebody's own network, by whatever names and in whatever they come back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from parity.calling import described
from parity.errors import UsageError
from parity.parameters import Parameters, flattened

__all__ = ["Gradients"]

PREFIX = re.compile(r"^(d[Ll]_?d|dloss_?d?|d_|grads?_?|gradient_|g_|nabla_|d|g)(?=[A-Za-z_])")
SUFFIX = re.compile(r"(_grad|_gradient|\.grad|_g)$")


class Gradients:
    """Finds the gradient of each parameter in what a backward pass returned or left behind.

    parameters: of the network; wanted: the names of gradients that the user gave; instance: the object that may hold
    them; shapes: of the parameters. After `of`: own, what each gradient is called; others, the arrays beside them;
    loss, a number that came with them.
    """

    def __init__(
        self,
        parameters: Parameters,
        wanted: Mapping[str, str | None],
        instance: Any,
        shapes: Mapping[str, tuple[int, ...]],
    ):
        self.parameters, self.wanted, self.instance, self.shapes = parameters, wanted, instance, shapes
        self.own: dict[str, str] = {}
        self.others: dict[str, np.ndarray] = {}
        self.loss: np.ndarray | None = None

    def of(self, result: Any) -> dict[str, np.ndarray]:
        value = self._without_loss(result)
        found = self._found(value)
        wanted = {p: name for p, name in self.wanted.items() if name is not None}
        missed = {p: name for p, name in wanted.items() if self.own.get(p) != name}
        for parameter, name in missed.items():
            there = ", ".join(map(str, [*self.own.values(), *self.others])) or described(value)
            what = "backward gives no such" if parameter in self.shapes else "that is none of the parameters"
            raise UsageError(
                f"gradients: {parameter!r}: {name!r}: {what}; it gives {there}; the parameters are "
                f"{', '.join(self.shapes)}"
            )
        return found

    def _found(self, value: Any) -> dict[str, np.ndarray]:
        found = self._by_name(value) or self._by_order(value)
        if not found and self.instance is not None:
            found = self._in_attributes()
        if not found:
            raise UsageError(
                f"backward: no gradient was found in what it returned, {described(value)}; the parameters are "
                f"{', '.join(f'{name} {shape}' for name, shape in self.shapes.items())}. Return a dict with names such "
                "as dW1, a list in the order of the parameters, or say which is which: gradients={'W1': 'my_name'}"
            )
        return found

    def _without_loss(self, result: Any) -> Any:
        """What is returned beside a loss, a number."""
        if not isinstance(result, tuple):
            return result
        numbers = [part for part in result if isinstance(part, float | np.floating | np.ndarray) and np.ndim(part) == 0]
        rest = [part for part in result if not any(part is number for number in numbers)]
        if len(numbers) == 1 and len(result) > 1:
            self.loss = np.asarray(numbers[0])
            return rest[0] if len(rest) == 1 else tuple(rest)
        return result

    def _by_name(self, value: Any) -> dict[str, np.ndarray]:
        leaves = {".".join(map(str, path)): leaf for path, leaf in flattened(value) if path}
        if not all(any(isinstance(p, str) for p in path) for path, _ in flattened(value)):
            return {}
        return self._named(leaves)

    def _named(self, arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for parameter in self.shapes:
            wanted = self.wanted.get(parameter)
            alike = [n for n in arrays if n == wanted or (wanted is None and _same_parameter(n, parameter))]
            if alike:
                name = next((n for n in alike if n != parameter), parameter)  # dW1 rather than the W1 beside it
                found[parameter] = _numbers(name, arrays[name])
                self.own[parameter] = name
        used = set(self.own.values())
        self.others = {
            n.rpartition(".")[2]: a for n, a in arrays.items() if n not in used and isinstance(a, np.ndarray)
        }
        return found

    def _by_order(self, value: Any) -> dict[str, np.ndarray]:
        """A list: in the order of the parameters, or, where the shapes do not fit that, by shapes that occur once."""
        if isinstance(value, np.ndarray) and len(self.shapes) == 1:
            (parameter,) = self.shapes
            self.own[parameter] = _gradient_of(parameter)
            return {parameter: _numbers(parameter, value)}
        leaves = [(path, np.asarray(leaf)) for path, leaf in flattened(value) if path]
        paths = self.parameters.paths
        same = {path: leaf for path, leaf in leaves}
        if set(paths.values()) <= set(same):
            found = {name: same[path] for name, path in paths.items()}
        elif len(leaves) == len(self.shapes):
            found = {name: leaf for name, (_, leaf) in zip(self.shapes, leaves, strict=True)}
        else:
            return {}
        shapes = [leaf.shape for _, leaf in leaves]
        misplaced = any(found[name].shape != shape for name, shape in self.shapes.items())
        if misplaced and sorted(shapes) == sorted(self.shapes.values()) and len(set(shapes)) == len(shapes):
            found = {name: leaves[shapes.index(shape)][1] for name, shape in self.shapes.items()}
        self.own.update({name: _gradient_of(name) for name in found})
        return {name: _numbers(_gradient_of(name), array) for name, array in found.items()}

    def _in_attributes(self) -> dict[str, np.ndarray]:
        """In attributes that the object or its layers have: dW1, grads, layers[0].dW."""
        arrays: dict[str, np.ndarray] = {}
        for name, value in vars(self.instance).items():
            if re.match(r"_?(d?grad|nabla)", name):
                inner = Gradients(self.parameters, self.wanted, self.instance, self.shapes)
                if found := inner._by_name(value) or inner._by_order(value):
                    self.own.update(inner.own)
                    return found
            arrays.update(_arrays(value, name))
        parameters = set(self.parameters.paths)
        return self._named({name: array for name, array in arrays.items() if name not in parameters})


def _arrays(value: Any, name: str) -> Iterator[tuple[str, np.ndarray]]:
    for path, leaf in flattened(value):
        full = ".".join([name, *map(str, path)])
        if isinstance(leaf, np.ndarray):
            yield full, leaf
        elif hasattr(leaf, "__dict__") and not callable(leaf):
            for inner, item in vars(leaf).items():
                if isinstance(item, np.ndarray):
                    yield f"{full}.{inner}", item


def _numbers(name: str, value: Any) -> np.ndarray:
    """A gradient as an array. `UsageError` for what is none, such as None or an array of objects."""
    array = np.asarray(value)
    if array.dtype.kind in "iuf":
        return array
    shown = described(value) if array.dtype == object else f"{array.dtype} {array.shape}"
    raise UsageError(f"backward: {name}: expected an array of real numbers; received {shown}")


def _gradient_of(parameter: str) -> str:
    """What a gradient without a name of its own is called; in a list, a parameter has only a number."""
    return f"the gradient of params[{parameter}]" if parameter.isdigit() else f"the gradient of {parameter}"


def _same_parameter(name: str, parameter: str) -> bool:
    """dW1, grad_W1, W1_grad, dL_dW1, W1: the gradient of W1."""
    head, _, tail = name.rpartition(".")
    parameter_head, _, parameter_tail = parameter.rpartition(".")
    bare = SUFFIX.sub("", PREFIX.sub("", tail))
    same_tail = parameter_tail.lower() in (tail.lower(), bare.lower())
    return same_tail and (head == parameter_head or PREFIX.sub("", head) == parameter_head)
