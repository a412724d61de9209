"""JSON from a file, taken apart: a key that is missing, too much or of another type is a FileError that says so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from parity.errors import FileError
from parity.weights.formats.limits import shown

__all__ = ["number", "require_keys", "require_plain", "value"]

DEEPEST = 64
"""Objects and lists in each other: a config has nine, and what is walked through must not end Python's stack."""


def require_plain(data: Any) -> None:
    """That a document is nested no deeper than anything that was written on purpose, and has finite numbers only: `NaN`
    and `1e999` are none, though Python reads them."""
    level = [data]
    for _ in range(DEEPEST):
        if any(isinstance(each, float) and not math.isfinite(each) for each in level):
            raise FileError("expected finite numbers, received NaN, or a number beyond float64")
        inside = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [each for container in inside for each in container]
    if level:
        raise FileError(f"expected at most {DEEPEST} lists and objects in each other, received more")


def value(data: Any, key: str, *kinds: type) -> Any:
    """The value under a key; a truth value is no number."""
    if not isinstance(data, dict) or key not in data:
        received = f"one with {shown(list(data))}" if isinstance(data, dict) else shown(data)
        raise FileError(f"expected an object with the key {key!r}, received {received}")
    found = data[key]
    if not isinstance(found, kinds) or (isinstance(found, bool) and bool not in kinds):
        names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
        raise FileError(f"{_plain(key)}: expected {names}, received {shown(found)}")
    return found


def number(data: Any, key: str) -> float:
    """A number under a key, as float64."""
    try:
        return float(value(data, key, int, float))
    except OverflowError as error:
        raise FileError(f"{_plain(key)}: expected a number, received {shown(data[key])}") from error


def require_keys(data: Mapping[str, Any], keys: set[str]) -> None:
    """That a document has these keys and no others."""
    if set(data) != keys:
        raise FileError(f"expected the keys {', '.join(sorted(keys))}, received {shown(sorted(data))}")


def _plain(key: str) -> str:
    """A key as a message has it; one that comes from the file may be anything."""
    return key if key.isprintable() and len(key) < 200 else str(shown(key))
