"""What a file may ask for before anything is allocated, and the arrays that are made of its bytes.

A reader never takes more than the bytes of the file, mapped and not read, plus what is bounded here. Together the
bounds stay below 64 MiB for a file of any content: of a text of `LONGEST_TEXT` bytes, Python makes at most 200 bytes
for each of `MOST_CONTAINERS` lists and objects, and 14 times the text for all else (measured with many short keys); one
of `MOST_ARRAYS` arrays takes about a kilobyte.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from reprlib import Repr
from typing import Any

import ml_dtypes
import numpy as np

from parity.errors import FileError, UsageError
from parity.weights import blocks

__all__ = [
    "ALWAYS_ALLOWED",
    "BFLOAT16",
    "DTYPES",
    "LARGEST_EXPANSION",
    "LONGEST_TEXT",
    "METADATA",
    "MOST_ARRAYS",
    "MOST_CONTAINERS",
    "RECORD",
    "array",
    "as_json",
    "blamed",
    "is_plain",
    "mapped",
    "parsed",
    "require_count",
    "require_expansion",
    "require_plain",
    "require_size",
    "require_writable",
    "shown",
    "size_of",
    "texts",
]

_REPR = Repr()
_REPR.maxstring = _REPR.maxother = 200  # a key in full, a hostile one not
shown = _REPR.repr

LONGEST_TEXT = 2 * 2**20
"""Bytes of JSON: a header, a config, metadata. Two thousand layers with a kilobyte each."""
MOST_CONTAINERS = 2**17
"""Lists and objects in a JSON text: the longest header of a .safetensors has as many, with names of one letter. A text
of nothing but brackets would become 48 times as long."""
MOST_ARRAYS = 2**14
"""In one file: four thousand layers with four weights each."""
ALWAYS_ALLOWED = 16 * 2**20
LARGEST_EXPANSION = 100
"""What was compressed may become `ALWAYS_ALLOWED` bytes or so many times the file. DEFLATE reaches 1032:1; 100:1 would
need weights of which 99 % repeat. Keras's own loader draws its line for archives there."""

METADATA = "__metadata__"
"""The name under which a format without a place for texts carries them, as safetensors calls it."""
RECORD = "parity"
"""The name of the parity record among these texts."""


BFLOAT16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
DTYPES: Mapping[str, np.dtype[Any]] = {
    **{
        name: np.dtype(name)
        for name in (
            *("float64", "float32", "float16", "int64", "int32", "int16", "int8"),
            *("uint64", "uint32", "uint16", "uint8"),
        )
    },
    "bfloat16": BFLOAT16,
}
"""Name -> type of everything that a weight may be, in this machine's byte order."""


# -- reading -----------------------------------------------------------------------------------------------------------


@contextmanager
def blamed(where: str | Path) -> Iterator[None]:
    """Whatever is wrong in this block is wrong with this file or part of a file."""
    try:
        yield
    except FileError as error:
        raise FileError(f"{where}: {error}") from error
    except OSError as error:
        raise FileError(f"{where}: cannot be read: {error.strerror or error}") from error


def mapped(path: Path) -> memoryview:
    """The bytes of a file, read from the disk where somebody looks at them. A pipe or a device is not opened."""
    if not path.exists():
        raise FileError("there is no such file")
    if path.is_dir():
        raise FileError("expected a file, received a directory")
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise FileError("expected a file, received a pipe or a device")
        if about.st_size == 0:
            raise FileError("the file is empty")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def size_of(shape: Iterable[int], dtype: np.dtype[Any]) -> int:
    """Bytes of an array, in whole numbers of any size."""
    return math.prod(shape) * dtype.itemsize


def require_size(key: str, shape: tuple[int, ...], dtype: np.dtype[Any], received: int) -> None:
    """That the file holds exactly what an array of this shape and type needs."""
    if (expected := size_of(shape, dtype)) != received:
        raise FileError(
            f"{shown(key)}: expected {expected} bytes for {dtype.name} of shape {shown(shape)}, received {received}"
        )
    if len(shape) > 32:  # NumPy 2.0 ends at 64, HDF5 at 32
        raise FileError(f"{shown(key)}: expected at most 32 axes, received {len(shape)}")
    if any(n >= 2**63 for n in shape):  # beside a zero, the product says nothing of the others
        raise FileError(f"{shown(key)}: expected axes of fewer than 2**63 elements, received shape {shown(shape)}")


def require_count(what: str, count: int) -> None:
    if count > MOST_ARRAYS:
        raise FileError(f"{what}: expected at most {MOST_ARRAYS}, received {count}")


def require_expansion(what: str, declared: int, file_size: int) -> None:
    """That what a file grows to when it is unpacked is in proportion to the file."""
    allowed = max(ALWAYS_ALLOWED, LARGEST_EXPANSION * file_size)
    if declared > allowed:
        raise FileError(
            f"{what}: expected at most {allowed} bytes of a file of {file_size}, received {declared}; "
            "if it is no bomb, save it without compression"
        )


def parsed(text: bytes | memoryview, what: str) -> Any:
    """JSON of a bounded length whose objects have each key once."""
    if len(text) > LONGEST_TEXT:
        raise FileError(f"{what}: expected at most {LONGEST_TEXT} bytes, received {len(text)}")
    text = bytes(text)
    if (count := text.count(b"[") + text.count(b"{")) > MOST_CONTAINERS:
        raise FileError(f"{what}: expected at most {MOST_CONTAINERS} lists and objects, received {count}")
    try:
        return json.loads(text, object_pairs_hook=_each_once)
    except FileError as error:
        raise FileError(f"{what}: {error}") from error
    except json.JSONDecodeError as error:
        raise FileError(
            f"{what}: expected JSON, received line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    except (ValueError, RecursionError) as error:  # not text, a number of thousands of digits, endless nesting
        raise FileError(f"{what}: expected JSON, received {shown(str(error))}") from error


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise FileError(f"the key {shown(key)}: expected it once, received it a second time")
        found[key] = value
    return found


def texts(data: Any, what: str) -> dict[str, str]:
    """Metadata: an object of strings."""
    if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
        raise FileError(f"{what}: expected an object of strings, received {shown(data)}")
    return data


def array(data: memoryview, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any], order: str = "C") -> np.ndarray:
    """The array at this place, in C order and this machine's byte order: a view of the file where it lies like that.

    dtype: as the file has it. An array at an address that its type does not divide is copied, since not everything that
    takes arrays takes those.
    """
    flat = np.frombuffer(data, dtype, math.prod(shape), offset)
    found = flat.reshape(shape) if order == "C" else flat.reshape(shape[::-1]).T
    return blocks.contiguous(found, "=") if found.flags.aligned else blocks.copied(found)


# -- writing -----------------------------------------------------------------------------------------------------------


def is_plain(key: str) -> bool:
    """Whether a name leads to no other place when somebody unpacks the file, and can be shown."""
    parts = key.split("/")
    return key.isprintable() and "\\" not in key and parts[0][1:2] != ":" and not {"", ".", ".."} & set(parts)


def require_plain(keys: Iterable[str], format: str) -> None:
    """UsageError for names that a reader refuses."""
    for key in keys:
        if not is_plain(key):
            raise UsageError(
                f"{format}: expected a name without '..', empty parts and signs that cannot be shown, "
                f"received {shown(key)}"
            )


def require_writable(arrays: Mapping[str, np.ndarray], format: str, names: Iterable[str]) -> None:
    """UsageError for an array of a type that the format or the reader of it does not have."""
    names = tuple(names)
    for key, value in arrays.items():
        if value.dtype.newbyteorder("=").name not in names:
            raise UsageError(
                f"{format}: {shown(key)}: expected one of {', '.join(names)}, received {value.dtype}; cast it, or "
                "write another format"
            )


def as_json(metadata: Mapping[str, str]) -> bytes:
    """UsageError where it is longer than what a reader takes."""
    text = json.dumps(dict(metadata), ensure_ascii=False, separators=(",", ":")).encode()
    if len(text) > LONGEST_TEXT:
        raise UsageError(f"metadata: expected at most {LONGEST_TEXT} bytes, received {len(text)}")
    return text
