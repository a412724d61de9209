"""The parameters of somebody's own network, in whatever holds them: a dict, a list, one array, or attributes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from parity.errors import UsageError

__all__ = ["Parameters", "flattened"]

Path = tuple[Any, ...]

INTERMEDIATE = re.compile(
    r"_*([zahxyvmsp]\d*$|[xyz]_|d[A-Zbwx_]|(grad|cache|out|input|delta|loss|mask|last|prob|pred|veloc|moment))"
)
PARAMETER = re.compile(r"weight|bias|kernel|theta|gamma|beta|embed", re.IGNORECASE)
"""How the attributes are called in which objects keep what is not a parameter, unless they sound like one."""


DEEPEST = 8  # levels of dicts and lists in each other; one that holds itself has no end


def flattened(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The leaves of nested dicts, lists and tuples, with the way to each."""
    if len(path) == DEEPEST:
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flattened(item, (*path, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from flattened(item, (*path, index))
    else:
        yield path, value


@dataclass(frozen=True)
class Parameters:
    """Named arrays, and the way to each in what the user gave. left_out: arrays that were not taken for parameters."""

    root: Any
    paths: Mapping[str, Path]
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(cls, root: Any) -> Parameters:
        """From a dict, a list, one array, or an object with arrays in its attributes; each array once."""
        leaves: dict[str, Path] = {}
        seen: set[int] = set()
        chosen, others = _leaves(root)
        for path, leaf in chosen:
            if isinstance(leaf, np.ndarray | float) and id(leaf) not in seen:
                leaves[_name(path)] = path
                if isinstance(leaf, np.ndarray):
                    seen.add(id(leaf))
        if not leaves:
            raise UsageError(
                "params: expected arrays in a dict, a list or attributes, or one array; "
                f"received {type(root).__name__} without a NumPy array of floating-point numbers"
            )
        return cls(root, leaves, tuple(dict.fromkeys(_name(path) for path, _ in others)))

    @property
    def of_object(self) -> bool:
        """Whether they are attributes, to be set where the code looks for them."""
        return not isinstance(self.root, Mapping | list | tuple | np.ndarray)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: np.shape(array) for name, array in self.read().items()}

    def read(self) -> dict[str, np.ndarray]:
        """The arrays as they are, not copied."""
        return {name: _get(self.root, path) for name, path in self.paths.items()}

    def filled(self, arrays: Mapping[str, np.ndarray]) -> Any:
        """The same structure of dicts and lists, with copies of other arrays."""
        by_path = {path: np.array(arrays[name]) for name, path in self.paths.items()}
        return _rebuilt(self.root, (), by_path)

    def write(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Change the elements of the user's own arrays, which their code may know by other names. `UsageError` for
        arrays that cannot hold them."""
        for name, path in self.paths.items():
            array = _get(self.root, path)
            if isinstance(array, float):
                _set(_get(self.root, path[:-1]), path[-1], float(arrays[name]))
                continue
            if array.dtype.kind != "f":
                raise UsageError(
                    f"params: {name} is {array.dtype}, and not all of your functions are handed their parameters, so "
                    "they would have to be changed in place: make it a float64 array"
                )
            array[...] = arrays[name]


def _set(holder: Any, key: Any, value: float) -> None:
    if isinstance(holder, dict | list):
        holder[key] = value
    else:
        setattr(holder, key, value)


def _name(path: Path) -> str:
    return ".".join(str(part) for part in path) or "params"


Leaves = list[tuple[Path, Any]]


def _leaves(root: Any) -> tuple[Leaves, Leaves]:
    """What holds parameters, and which arrays beside them do not sound like parameters."""
    if isinstance(root, Mapping | list | tuple | np.ndarray):
        return list(flattened(root)), []
    found = list(_attributes(root, ()))
    others = [(p, leaf) for p, leaf in found if INTERMEDIATE.match(_last_name(p)) and not PARAMETER.search(_name(p))]
    left = {path for path, _ in others}
    chosen = [(path, leaf) for path, leaf in found if path not in left]
    return (chosen, others) if chosen else (found, [])


def _last_name(path: Path) -> str:
    return next(part for part in reversed(path) if isinstance(part, str))


def _attributes(holder: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Float arrays in attributes, in lists and dicts there, and in the attributes of the layers that are there."""
    for name, value in getattr(holder, "__dict__", {}).items():
        for way, leaf in flattened(value, (*path, name)):
            if isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f":
                yield way, leaf
            elif (
                hasattr(leaf, "__dict__") and not isinstance(leaf, type | ModuleType | FunctionType) and leaf != holder
            ):
                yield from _attributes(leaf, way)


def _get(root: Any, path: Sequence[Any]) -> Any:
    for part in path:
        root = getattr(root, part) if isinstance(part, str) and not isinstance(root, Mapping) else root[part]
    return root


def _rebuilt(value: Any, path: Path, arrays: Mapping[Path, np.ndarray]) -> Any:
    if path in arrays:
        return arrays[path]
    if isinstance(value, Mapping):
        return {key: _rebuilt(item, (*path, key), arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_rebuilt(item, (*path, index), arrays) for index, item in enumerate(value))
    return value
