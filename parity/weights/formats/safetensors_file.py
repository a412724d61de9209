"""`.safetensors`: eight bytes of length, a header in JSON, and the arrays one behind the other.

Read without the package of that name: the header is checked in full before an array is touched, and the arrays are
views of the file. Written without it, too: safetensors 0.8.0 takes the memory of an array as it lies there, so that a
transposed array is saved with its shape and the elements in another order, and nobody is told.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from parity.errors import FileError, UsageError
from parity.weights import blocks
from parity.weights.formats import limits
from parity.weights.formats.limits import DTYPES, LONGEST_TEXT, METADATA, shown
from parity.weights.stored import Stored

__all__ = ["read", "write"]

LENGTH = struct.Struct("<Q")
NAMES = {
    **{name: f"{name[0].upper()}{8 * dtype.itemsize}" for name, dtype in DTYPES.items()},
    "bfloat16": "BF16",
}
"""Type -> what the header calls it."""
TYPES = {code: DTYPES[name] for name, code in NAMES.items()}
FIELDS = {"dtype", "shape", "data_offsets"}
ALIGNMENT = 8  # the header is filled with spaces, so that the first array begins at such an address


def read(data: memoryview) -> tuple[dict[str, Stored], dict[str, str]]:
    """The arrays in the order of the header, and its metadata."""
    start, header = _header(data)
    metadata = limits.texts(header.pop(METADATA, {}), METADATA)
    limits.require_count("the arrays", len(header))
    arrays, places = {}, []
    for key, about in header.items():
        dtype, shape, (begin, end) = _entry(key, about)
        limits.require_size(key, shape, dtype, end - begin)
        arrays[key] = Stored(key, shape, dtype, _loader(data, start + begin, shape, dtype))
        places.append((begin, end, key))
    _require_no_gap(sorted(places), len(data) - start)
    return arrays, metadata


def _header(data: memoryview) -> tuple[int, dict[str, Any]]:
    """Where the arrays begin, and what is said of them."""
    if len(data) < LENGTH.size:
        raise FileError(f"expected {LENGTH.size} bytes with the length of the header, received {len(data)} bytes")
    (length,) = LENGTH.unpack_from(data)
    if length > len(data) - LENGTH.size:
        raise FileError(
            f"the header: expected at most the {len(data) - LENGTH.size} bytes that follow, received a length of "
            f"{length}; the file is cut off, or no .safetensors"
        )
    text = data[LENGTH.size : LENGTH.size + length]
    if bytes(text[:1]) != b"{":
        raise FileError(f"the header: expected '{{' at its start, received {bytes(text[:1])!r}")
    return LENGTH.size + length, limits.parsed(text, "the header")


def _entry(key: str, about: Any) -> tuple[np.dtype[Any], tuple[int, ...], tuple[int, int]]:
    if not isinstance(about, dict) or set(about) != FIELDS:
        raise FileError(f"{shown(key)}: expected an object with {', '.join(sorted(FIELDS))}, received {shown(about)}")
    name, shape, offsets = about["dtype"], about["shape"], about["data_offsets"]
    if not isinstance(name, str) or name not in TYPES:
        raise FileError(f"{shown(key)}: expected a dtype of {', '.join(TYPES)}, received {shown(name)}; cast it")
    for field, value in (("shape", shape), ("data_offsets", offsets)):
        if not isinstance(value, list) or not all(type(n) is int and n >= 0 for n in value):
            raise FileError(f"{shown(key)}: {field}: expected a list of sizes, received {shown(value)}")
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise FileError(f"{shown(key)}: data_offsets: expected a begin and an end, received {shown(offsets)}")
    return TYPES[name], tuple(shape), (offsets[0], offsets[1])


def _require_no_gap(places: list[tuple[int, int, str]], size: int) -> None:
    """That every byte belongs to exactly one array. places: begin, end, key, in this order."""
    reached = 0
    for begin, end, key in places:
        if begin != reached:
            raise FileError(
                f"{shown(key)}: expected it to begin at byte {reached}, where the one before it ends, received {begin}"
            )
        reached = end
    if reached != size:
        last = shown(places[-1][2]) if places else "no array"
        raise FileError(f"the arrays: expected {reached} bytes up to the end of {last}, received {size}")


def _loader(data: memoryview, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    return lambda: limits.array(data, offset, shape, dtype.newbyteorder("<"))


def write(file: BinaryIO, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """The wider types first, so that each array lies at an address that its type divides."""
    limits.require_writable(arrays, "safetensors", NAMES)
    if METADATA in arrays:
        raise UsageError(f"safetensors: {METADATA!r} is the name of the metadata; give the array another one")
    limits.as_json(metadata)
    ordered = sorted(arrays, key=lambda key: -arrays[key].dtype.itemsize)
    offsets, reached = {}, 0
    for key in ordered:
        offsets[key] = [reached, reached + arrays[key].nbytes]
        reached += arrays[key].nbytes
    header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    for key, value in arrays.items():
        name = NAMES[value.dtype.newbyteorder("=").name]
        header[key] = {"dtype": name, "shape": list(value.shape), "data_offsets": offsets[key]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    if len(text) > LONGEST_TEXT:
        raise UsageError(f"safetensors: expected a header of at most {LONGEST_TEXT} bytes, received {len(text)}")
    file.write(LENGTH.pack(len(text)) + text)
    for key in ordered:
        for part in blocks.raw(arrays[key]):
            file.write(part)
