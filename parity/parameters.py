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
"""How the attributes are called in which objects keep what is not a parameter."""


def flattened(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The leaves of nested dicts, lists and tuples, with the way to each."""
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
    """Named arrays, and the way to each in what the user gave."""

    root: Any
    paths: Mapping[str, Path]

    @classmethod
    def of(cls, root: Any) -> Parameters:
        """From a dict, a list, one array, or an object with arrays in its attributes."""
        leaves = {_name(path): path for path, leaf in _leaves(root) if isinstance(leaf, np.ndarray)}
        if not leaves:
            raise UsageError(
                "params: expected arrays in a dict, a list or attributes, or one array; "
                f"received {type(root).__name__} without a NumPy array"
            )
        return cls(root, leaves)

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
        """Put copies of these arrays where the user's code finds its parameters."""
        for name, path in self.paths.items():
            holder = _get(self.root, path[:-1])
            if not path or isinstance(holder, tuple):
                _get(self.root, path)[...] = arrays[name]
            elif isinstance(holder, dict | list):
                holder[path[-1]] = np.array(arrays[name])
            else:
                setattr(holder, path[-1], np.array(arrays[name]))

    def write_into(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Change the elements of the user's own arrays, which functions may know by other names."""
        for name, array in self.read().items():
            array[...] = arrays[name]


def _name(path: Path) -> str:
    return ".".join(str(part) for part in path) or "params"


def _leaves(root: Any) -> Iterator[tuple[Path, Any]]:
    if isinstance(root, Mapping | list | tuple | np.ndarray):
        yield from flattened(root)
        return
    found = list(_attributes(root, ()))
    yield from [(p, leaf) for p, leaf in found if not INTERMEDIATE.match(_last_name(p))] or found


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
