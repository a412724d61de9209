"""The arrays of an HDF5 file that lies in memory or is mapped: found, checked, and read where somebody asks.

The HDF5 library follows links to other files, runs whatever filters are installed, and allocates what a file declares.
So every group is opened by its own link, every array must lie in this file with all its bytes, and what is stored in
one piece is not read by the library at all: it is a view of the file.
"""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.errors import FileError, NothingConcluded
from parity.weights.formats import limits
from parity.weights.formats.limits import ALWAYS_ALLOWED, BFLOAT16, DTYPES, LARGEST_EXPANSION, LONGEST_TEXT, shown
from parity.weights.stored import Stored

if TYPE_CHECKING:
    import h5py

__all__ = ["Texts", "blamed", "opened", "stored", "walk"]

# What h5py raises when the HDF5 library finds a file inconsistent.
ERRORS = (OSError, KeyError, OverflowError, RuntimeError, ValueError, TypeError, MemoryError)
HEAP = re.compile(rb"GCOL\x01[\s\S]{3}(?P<size>[\s\S]{8})")
OBJECT = struct.Struct("<H6xQ")  # in a heap: its number, how often it is used, and its size
MOST_OBJECTS = 2**16  # as many numbers as there are
MAGIC = b"\x89HDF\r\n\x1a\n"
DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3
FILTERS = (DEFLATE, SHUFFLE, FLETCHER32)
"""The filters of HDF5's registry that h5py has without a plugin; one that is not here could be anybody's code."""
SAVE_AGAIN = "copy or save the file again"


class _Window(io.RawIOBase):
    """Bytes as a file to read."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._data)}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        found = self._data[self._at : self._at + len(buffer)]
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)


@contextmanager
def opened(data: memoryview) -> Iterator[h5py.File]:
    """NothingConcluded without h5py, FileError for what the library finds wrong as long as it is open."""
    try:
        import h5py
    except ImportError as error:
        raise NothingConcluded(
            "HDF5 is read and written with h5py, which is not installed; pip install 'scratchnet-parity[tf]'"
        ) from error
    if data[: len(MAGIC)] != MAGIC:
        raise FileError(f"expected an HDF5 file, which begins with {MAGIC!r}, received {bytes(data[: len(MAGIC)])!r}")
    with blamed(), h5py.File(_Window(data), "r") as file:
        yield file


@contextmanager
def blamed() -> Iterator[None]:
    """What the library says, in one line."""
    try:
        yield
    except ERRORS as error:
        raise FileError(
            f"expected a whole HDF5 file, received: {' '.join(str(error).split())}; {SAVE_AGAIN}"
        ) from error


def walk(file: h5py.File) -> tuple[dict[str, h5py.Group], dict[str, h5py.Dataset]]:
    """Every group and every dataset by path, in natural order.

    Each may be reached once only: that ends a walk through a group that contains itself, and no file of a few bytes can
    name one array a thousand times.
    """
    import h5py

    groups: dict[str, h5py.Group] = {}
    datasets: dict[str, h5py.Dataset] = {}
    addresses = set()
    pending = [("", file)]
    while pending:
        path, item = pending.pop()
        address = h5py.h5o.get_info(item.id).addr
        if address in addresses:
            raise FileError(f"{shown(path)}: expected an object of its own, received a second name for another one")
        addresses.add(address)
        limits.require_count("the groups and arrays", len(addresses))
        if isinstance(item, h5py.Dataset):
            datasets[path] = item
        elif isinstance(item, h5py.Group):
            groups[path] = item
            limits.require_count(f"{shown(path)}: the members", len(item))
            pending += [(f"{path}/{name}".lstrip("/"), _child(item, name, path)) for name in item]
        else:
            raise FileError(f"{shown(path)}: expected a group or an array, received a {type(item).__name__}")
    return {path: groups[path] for path in sorted(groups, key=_natural)}, {
        path: datasets[path] for path in sorted(datasets, key=_natural)
    }


def _natural(path: str) -> list[Any]:
    """Sorts `dense_2` before `dense_10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path)]


def _child(parent: h5py.Group, name: str, path: str) -> Any:
    import h5py

    where = shown(f"{path}/{name}".lstrip("/"))
    if not isinstance(name, str) or not name.isprintable():  # bytes where it is no UTF-8
        raise FileError(f"{where}: expected a name that can be shown")
    link = parent.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise FileError(f"{where}: expected an object of this file, received a {type(link).__name__} to another place")
    return parent[name]


class Texts:
    """The texts that are attached to the groups and arrays of a file: few of them, and none that is repeated endlessly.

    A text of variable length is a reference, and many of them may refer to one text. So before any is read, as many as
    there are are taken to be as long as the longest; and all that were read are counted.
    """

    def __init__(self, data: memoryview) -> None:
        self._data, self._read = data, 0

    def of(self, item: h5py.Group | h5py.Dataset, name: str, path: str) -> list[str] | None:
        """What has this name at a group or an array, None where there is nothing."""
        import h5py

        if not h5py.h5a.exists(item.id, name.encode()):
            return None
        about = h5py.h5a.open(item.id, name.encode())
        count, kind = math.prod(about.shape), about.get_type()
        if count == 0:
            return []
        where = f"the attribute {name!r} of {shown(path)}"
        if kind.get_class() != h5py.h5t.STRING:
            raise FileError(f"{where}: expected texts, received {about.dtype}")
        size = count * self._longest if kind.is_variable_str() else about.get_storage_size()
        if size > ALWAYS_ALLOWED:
            raise FileError(f"{where}: expected at most {ALWAYS_ALLOWED} bytes, received up to {size}")
        raw = np.asarray(item.attrs[name]).reshape(-1)
        found = [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in raw]
        self._read += sum(map(len, found))
        if self._read > LONGEST_TEXT:
            raise FileError(f"{where}: expected at most {LONGEST_TEXT} bytes in all attributes, received more")
        return found

    @cached_property
    def _longest(self) -> int:
        """Each text of variable length lies in a global heap, which begins with its mark, its version and its size
        ("HDF5 File Format Specification", III.E)."""
        longest = 0
        for match in re.finditer(HEAP, self._data):
            size = int.from_bytes(match["size"], "little")
            if match.start() + size <= len(self._data):
                _require_heap(self._data[match.start() : match.start() + size])
                longest = max(longest, size)
        return longest


def _require_heap(heap: memoryview) -> None:
    """That the objects of a heap follow each other to its end. The library goes round in circles where one has the size
    zero, without an end and without a word."""
    at, count = OBJECT.size, 0
    while len(heap) - at >= OBJECT.size:
        index, size = OBJECT.unpack_from(heap, at)
        step = OBJECT.size + -(-size // 8) * 8 if index else size  # number 0 is what is free, with its own head
        count += 1
        if at + step > len(heap) or (index == 0 and at + step != len(heap)) or count > MOST_OBJECTS:
            raise FileError(
                f"the texts of attributes: expected objects that fill {len(heap)} bytes, received one of {size} bytes "
                f"at {at}; {SAVE_AGAIN}"
            )
        at += step


def stored(datasets: dict[str, h5py.Dataset], data: memoryview, texts: Texts) -> dict[str, Stored]:
    """The arrays. data: the file that they are in."""
    checked = {path: (_checked(path, dataset, texts), dataset) for path, dataset in datasets.items()}
    on_disk = sum(dataset.id.get_storage_size() for dataset in datasets.values())
    if on_disk > len(data):
        raise FileError(f"the arrays: expected at most the {len(data)} bytes of the file, received {on_disk}")
    packed = [dataset for dataset in datasets.values() if dataset.chunks is not None]
    # One chunk at a time is unpacked beside the array.
    grown = sum(dataset.nbytes + dataset.dtype.itemsize * math.prod(dataset.chunks) for dataset in packed)
    limits.require_expansion("the arrays", grown, len(data))
    return {
        path: Stored(path, dataset.shape, dtype.newbyteorder("="), _loader(path, dataset, dtype, data))
        for path, (dtype, dataset) in checked.items()
    }


def _checked(path: str, dataset: h5py.Dataset, texts: Texts) -> np.dtype[Any]:
    """The type, as the file has it, after a look at whether all bytes of the array are in the file."""
    import h5py

    if dataset.external or dataset.is_virtual:
        raise FileError(f"{shown(path)}: expected data of this file, received a reference to data of other files")
    if dataset.shape is None:
        raise FileError(f"{shown(path)}: expected an array, received a dataset without a shape")
    dtype = dataset.dtype
    if dtype.str == "|V2" and texts.of(dataset, "dtype", path) == ["bfloat16"]:
        dtype = BFLOAT16  # Keras's own mark
    elif dtype.newbyteorder("=") not in DTYPES.values() or not dataset.id.get_type().equal(h5py.h5t.py_create(dtype)):
        raise FileError(
            f"{shown(path)}: expected real or whole numbers, received {shown(str(dtype))}"
            f"{', which may be bfloat16' if dtype.str == '|V2' else ''}; cast it"
        )
    if dataset.chunks is not None:
        _require_chunks(path, dataset)
    else:
        limits.require_size(path, dataset.shape, dtype, dataset.id.get_storage_size())
    return dtype


def _require_chunks(path: str, dataset: h5py.Dataset) -> None:
    """That every chunk was written, and packed with filters that are known."""
    settings = dataset.id.get_create_plist()
    filters = [settings.get_filter(number)[0] for number in range(settings.get_nfilters())]
    if strange := [code for code in filters if code not in FILTERS]:
        raise FileError(f"{shown(path)}: expected no filters but gzip, shuffle and fletcher32, received {strange}")
    chunks = math.prod(-(-n // part) for n, part in zip(dataset.shape, dataset.chunks, strict=True))
    if chunks != (written := dataset.id.get_num_chunks()):
        raise FileError(f"{shown(path)}: expected {chunks} chunks for {dataset.shape}, received {written} in the file")
    size, held = limits.size_of(dataset.chunks, dataset.dtype), dataset.id.get_storage_size()
    if size * chunks > LARGEST_EXPANSION * held + ALWAYS_ALLOWED:
        raise FileError(
            f"{shown(path)}: expected at most {LARGEST_EXPANSION} times the {held} bytes that are stored, received "
            f"{chunks} chunks of {size} bytes; if it is no bomb, save it without compression"
        )


def _loader(path: str, dataset: h5py.Dataset, dtype: np.dtype[Any], data: memoryview) -> Callable[[], np.ndarray]:
    shape, offset = dataset.shape, dataset.id.get_offset()
    if offset is not None and dataset.chunks is None:
        if offset + limits.size_of(shape, dtype) > len(data):
            raise FileError(
                f"{shown(path)}: expected {limits.size_of(shape, dtype)} bytes, received {len(data) - offset}"
            )
        return lambda: limits.array(data, offset, shape, dtype)

    def load() -> np.ndarray:
        with opened(data) as file:
            found = np.asarray(file[path][()])
        # Bits, not values: bfloat16 comes as two opaque bytes.
        return np.asarray(found.view(dtype) if dtype == BFLOAT16 else found, dtype.newbyteorder("="))

    return load
