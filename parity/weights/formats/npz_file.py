"""`.npz`: a zip archive with one `.npy` file an array.

`numpy.load` is not asked: it evaluates the header, allocates what that declares, and would read pickles where somebody
says so. Here the header is matched against the one form that `numpy.save` writes, and a member that is not compressed
is a view of the file. NumPy has no bfloat16 (it writes two opaque bytes), so neither has `.npz`.
"""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import IO, Any, BinaryIO

import numpy as np

from parity.errors import FileError, UsageError
from parity.weights import blocks
from parity.weights.formats import limits, zip_members
from parity.weights.formats.limits import DTYPES, METADATA, shown
from parity.weights.stored import Stored

__all__ = ["read", "write"]

MAGIC = b"\x93NUMPY"
LENGTHS = {(1, 0): "<H", (2, 0): "<L", (3, 0): "<L"}
"""Version of the format -> how the length of the header is written."""
LONGEST_HEADER = 10_000  # numpy.lib.format refuses longer ones, too
LONGEST_BEGINNING = len(MAGIC) + 6 + LONGEST_HEADER  # with the version and the length
HEADER = re.compile(
    r"\{'descr': (?P<descr>'[^']*'|\[.*\]), 'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<shape>(?:[0-9]{1,19}L?, ?)*(?:[0-9]{1,19}L?)?)\),? ?\} *\n?",
    re.DOTALL,
)
DESCR = re.compile(r"[<>|=](?:[iu][1248]|f[248])")
NAMES = tuple(name for name in DTYPES if name != "bfloat16")


def read(data: memoryview) -> tuple[dict[str, Stored], dict[str, str]]:
    """The arrays in the order of the archive, and what our own writer put beside them."""
    arrays = {}
    found = zip_members.members(data)
    for name, member in found.items():
        if not name.endswith(".npy"):
            raise FileError(f"{shown(name)}: expected only arrays, which end with .npy")
        key = name.removesuffix(".npy")
        arrays[key] = _stored(key, data, member)
    metadata = arrays.pop(METADATA, None)
    if metadata is None:
        return arrays, {}
    if metadata.dtype != np.uint8:
        raise FileError(f"{METADATA!r}: expected uint8, the bytes of a text, received {metadata.dtype.name}")
    return arrays, limits.texts(limits.parsed(metadata.load().tobytes(), METADATA), METADATA)


def _stored(key: str, data: memoryview, member: zip_members.Member) -> Stored:
    begins = zip_members.beginning(data, member, LONGEST_BEGINNING)
    if begins[: len(MAGIC)] != MAGIC:
        raise FileError(f"{shown(key)}: expected an array, received data that begins with {begins[: len(MAGIC)]!r}")
    offset, text = _header(key, begins)
    match = HEADER.fullmatch(text)
    if match is None:
        raise FileError(f"{shown(key)}: expected the header that numpy.save writes, received {shown(text.strip())}")
    dtype = _dtype(key, match["descr"])
    shape = tuple(int(n.strip(" L")) for n in match["shape"].split(",") if n.strip())
    limits.require_size(key, shape, dtype, member.size - offset)
    order = "F" if match["fortran"] == "True" else "C"
    return Stored(key, shape, dtype.newbyteorder("="), _loader(data, member, offset, shape, dtype, order))


def _header(key: str, begins: bytes) -> tuple[int, str]:
    """Where the array begins in its member, and the text in front of it."""
    at = len(MAGIC) + 2
    version = tuple(begins[at - 2 : at])
    if version not in LENGTHS:
        raise FileError(f"{shown(key)}: expected version 1.0, 2.0 or 3.0 of the format, received {version}")
    field = struct.Struct(LENGTHS[version])
    length = field.unpack_from(begins, at)[0] if len(begins) >= at + field.size else 0
    at += field.size
    if not 0 < length <= min(LONGEST_HEADER, len(begins) - at):
        raise FileError(f"{shown(key)}: expected a header of at most {LONGEST_HEADER} bytes, received {length}")
    return at + length, begins[at : at + length].decode("utf-8" if version == (3, 0) else "latin-1", errors="replace")


def _dtype(key: str, descr: str) -> np.dtype[Any]:
    text = descr.strip("'")
    if DESCR.fullmatch(text):
        return np.dtype(text)
    said = {"O": ", objects, which are pickles", "V2": ", which may be bfloat16: save it as .safetensors"}
    hint = next((hint for mark, hint in said.items() if text[1:].startswith(mark)), "")
    raise FileError(f"{shown(key)}: expected real or whole numbers, received the type {shown(text)}{hint}")


def _loader(
    data: memoryview, member: zip_members.Member, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any], order: str
) -> Callable[[], np.ndarray]:
    return lambda: limits.array(zip_members.content(data, member), offset, shape, dtype, order)


def write(file: BinaryIO, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Not compressed, so that it can be mapped."""
    limits.require_writable(arrays, "npz", NAMES)
    if METADATA in arrays:
        raise UsageError(f"npz: {METADATA!r} is the name of the metadata; give the array another one")
    limits.require_plain(arrays, "npz")
    texts = {METADATA: np.frombuffer(limits.as_json(metadata), np.uint8)} if metadata else {}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for key, value in {**texts, **arrays}.items():
            with archive.open(zip_members.aligned(archive, f"{key}.npy"), "w", force_zip64=True) as member:
                _put(member, value)


def _put(member: IO[bytes], value: np.ndarray) -> None:
    """As `numpy.lib.format.write_array` in C order, which copies an array that is in another one as a whole."""
    descr = np.lib.format.dtype_to_descr(value.dtype.newbyteorder("<"))
    header = {"descr": descr, "fortran_order": False, "shape": value.shape}
    np.lib.format.write_array_header_1_0(member, header)
    for part in blocks.raw(value):
        member.write(part)
