"""JSON from a file, taken apart: a key that is missing, too much or of another type is a FileError that says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parity.errors import FileError
from parity.weights.formats.limits import shown

__all__ = ["number", "require_keys", "value"]


def value(data: Any, key: str, *kinds: type) -> Any:
    """The value under a key; a truth value is no number."""
    if not isinstance(data, dict) or key not in data:
        raise FileError(f"expected an object with the key {key!r}, received {shown(data)}")
    found = data[key]
    if not isinstance(found, kinds) or (isinstance(found, bool) and bool not in kinds):
        names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
        raise FileError(f"{key}: expected {names}, received {shown(found)}")
    return found


def number(data: Any, key: str) -> float:
    """A number under a key, as float64."""
    try:
        return float(value(data, key, int, float))
    except OverflowError as error:
        raise FileError(f"{key}: expected a number, received {shown(data[key])}") from error


def require_keys(data: Mapping[str, Any], keys: set[str]) -> None:
    """That a document has these keys and no others."""
    if set(data) != keys:
        raise FileError(f"expected the keys {', '.join(sorted(keys))}, received {shown(sorted(data))}")
