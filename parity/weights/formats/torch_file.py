"""PyTorch's `.pt`: a zip archive with a pickle that describes the tensors, and their bytes beside it.

A pickle is a program. So it is looked at twice before PyTorch sees it: each instruction must be one that a saved
`state_dict` consists of, and what it would build is built of inert descriptions, whose sizes are compared with the
bytes in the archive. Only then `torch.load` reads it, with `weights_only=True` and the bytes mapped.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from parity.errors import FileError, NothingConcluded
from parity.weights import blocks
from parity.weights.formats import limits, torch_checkpoint, zip_members
from parity.weights.formats.limits import DTYPES, shown
from parity.weights.stored import Stored

__all__ = ["read", "write"]

PICKLE, TEXTS = "data.pkl", "metadata.json"
BESIDE = {PICKLE, TEXTS, "version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id"}
"""What `torch.save` puts beside the tensors, and what our writer adds; anything else is code or some other data."""
STORAGES = {
    f"{name}Storage": DTYPES[dtype]
    for name, dtype in {
        **{"Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64"},
        **{"Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8"},
    }.items()
}
REMEMBERING = {"BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"}
INSTRUCTIONS = {
    *REMEMBERING,
    *(
        "PROTO",
        "STOP",
        "MARK",
        "EMPTY_TUPLE",
        "TUPLE",
        "TUPLE1",
        "TUPLE2",
        "TUPLE3",
        "EMPTY_DICT",
        "SETITEM",
        "SETITEMS",
    ),
    *("BINUNICODE", "BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1", "NEWFALSE", "NEWTRUE", "NONE"),
    *("EMPTY_LIST", "APPEND", "APPENDS"),
    *("GLOBAL", "REDUCE", "BUILD", "BINPERSID"),  # what these may name is in _Inert
}
MOST_INSTRUCTIONS = 20 * limits.MOST_ARRAYS  # a tensor of a state_dict is described in about twenty that make an object
DICT = (
    "expected a state_dict, names with tensors, or a checkpoint that has one as "
    f"{' or '.join(torch_checkpoint.MODEL_NAMES)}; save it with torch.save(model.state_dict(), 'name.pt')"
)


def read(path: Path, data: memoryview) -> tuple[dict[str, Stored], dict[str, str]]:
    """The tensors in the order of the dictionary. path: of the same bytes, for PyTorch.

    NothingConcluded without PyTorch.
    """
    members = _members(data)
    described, config = _described(zip_members.content(data, members[PICKLE]), members)
    torch = _torch()
    texts = limits.texts(limits.parsed(zip_members.content(data, members[TEXTS]), TEXTS), TEXTS) if TEXTS in members \
        else {}  # fmt: skip

    @cache
    def tensors() -> dict[str, Any]:
        for member in members.values():
            zip_members.content(data, member)  # PyTorch does not compare checksums of what it maps
        try:
            return dict(torch.load(path, map_location="cpu", weights_only=True, mmap=True))
        except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
            raise FileError(f"expected what torch.load reads, received {shown(str(error))}") from error

    def loader(key: str, dtype: np.dtype[Any]) -> Callable[[], np.ndarray]:
        return lambda: _array(torch, _at(tensors(), described[key][0]), dtype)

    arrays = {key: Stored(key, t.shape, t.dtype, loader(key, t.dtype)) for key, (_, t) in described.items()}
    return arrays, {**texts, **config}


def _at(found: Any, path: torch_checkpoint.Path) -> Any:
    for key in path:
        found = found[key]
    return found


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise NothingConcluded(
            "a .pt file is read and written with PyTorch, which is not installed; pip install torch, or save the "
            "weights as .safetensors"
        ) from error
    return torch


def _array(torch: Any, tensor: Any, dtype: np.dtype[Any]) -> np.ndarray:
    there = tensor.detach()
    if dtype == limits.BFLOAT16:  # NumPy has none, so PyTorch gives its bits only
        return blocks.contiguous(there.view(torch.int16).numpy()).view(dtype)
    return blocks.contiguous(there.numpy(), "=")


def _members(data: memoryview) -> dict[str, zip_members.Member]:
    """By their names below the archive's only folder."""
    if bytes(data[:4]) != b"PK\3\4":
        raise FileError(f"expected a zip archive, received {bytes(data[:4])!r}; the form before PyTorch 1.6 is a bare "
                        "pickle: save it again")  # fmt: skip
    found = zip_members.members(data)
    root = next(iter(found)).split("/")[0] + "/"
    members = {name.removeprefix(root): member for name, member in found.items() if name.startswith(root)}
    if len(members) != len(found) or PICKLE not in members:
        raise FileError(f"expected {PICKLE} and data in one folder, received {shown(sorted(found))}")
    for name, member in members.items():
        if name not in BESIDE and not name.startswith("data/"):
            raise FileError(f"expected tensors and nothing else, received {shown(name)}; {DICT}")
        if member.method != zip_members.STORED:
            raise FileError(f"{shown(name)}: expected data that is not compressed, received DEFLATE")
        if not name.startswith("data/") and member.size > limits.LONGEST_TEXT:
            raise FileError(f"{name}: expected at most {limits.LONGEST_TEXT} bytes, received {member.size}")
    if "byteorder" in members and bytes(zip_members.content(data, members["byteorder"])) != b"little":
        raise FileError("byteorder: expected little, received another; save it on a little-endian machine")
    return members


# -- what the pickle would build ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Storage:
    name: str
    dtype: np.dtype[Any]
    size: int


@dataclass(frozen=True)
class _Tensor:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class _Dict(dict[Any, Any]):
    """An OrderedDict, to which PyTorch attaches the versions of the modules."""


class _Inert(pickle.Unpickler):
    """Builds descriptions; a name that is not here stands for nothing."""

    def __init__(self, text: bytes, members: Mapping[str, zip_members.Member]) -> None:
        super().__init__(io.BytesIO(text))
        self._members = members
        self.built: list[_Tensor] = []

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        known = {
            "collections.OrderedDict": _Dict,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
        }
        if f"{module}.{name}" not in known:
            raise FileError(f"{PICKLE}: {DICT}; received {shown(f'{module}.{name}')}, which is not called")
        return known[f"{module}.{name}"]

    def _tensor(self, *arguments: Any) -> _Tensor:
        self.built.append(_tensor(*arguments))
        return self.built[-1]

    def persistent_load(self, reference: Any) -> _Storage:
        kind, dtype, key, _, count = reference
        name = f"data/{key}"
        if kind != "storage" or not isinstance(dtype, np.dtype) or type(count) is not int or name not in self._members:
            raise FileError(f"{PICKLE}: expected a reference to data of the archive, received {shown(reference)}")
        limits.require_size(name, (count,), dtype, self._members[name].size)
        return _Storage(name, dtype, count)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    """That the tensor's elements are in its storage, each once, in whatever order of the axes."""
    whole = all(
        isinstance(sizes, tuple) and all(type(n) is int and n >= 0 for n in sizes) for sizes in (shape, strides)
    )
    if not (isinstance(storage, _Storage) and whole and len(shape) == len(strides) and type(offset) is int):
        raise FileError(f"{PICKLE}: expected a tensor, received shape {shown(shape)} with strides {shown(strides)}")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    count = math.prod(shape)
    if offset < 0 or (count and last >= storage.size) or count > storage.size:
        raise FileError(
            f"{storage.name}: expected {count} elements for shape {shown(shape)} with strides {shown(strides)} from "
            f"{offset} on, received {storage.size}"
        )
    limits.require_size(storage.name, shape, storage.dtype, limits.size_of(shape, storage.dtype))
    return _Tensor(shape, storage.dtype)


def _described(
    text: memoryview, members: Mapping[str, zip_members.Member]
) -> tuple[dict[str, tuple[torch_checkpoint.Path, _Tensor]], dict[str, str]]:
    """Key -> where the tensor is, and what it is; and what a checkpoint says of its optimizer."""
    _require_instructions(bytes(text))
    unpickler = _Inert(bytes(text), members)
    try:
        found = unpickler.load()
    except (pickle.UnpicklingError, *_BROKEN) as error:
        raise FileError(f"{PICKLE}: {DICT}; received {shown(str(error))}") from error
    if not isinstance(found, dict):
        raise FileError(f"{PICKLE}: {DICT}; received {shown(found)}")
    if len(torch_checkpoint.tensors_in(found, _is_tensor)) != len(unpickler.built):  # the one that came first is gone
        raise FileError(f"{PICKLE}: expected each tensor under a name of its own, received one name for several")
    if torch_checkpoint.is_checkpoint(found):
        with limits.blamed(PICKLE):
            paths, texts = torch_checkpoint.parts(found, _is_tensor)
    else:
        for key, value in found.items():
            if not isinstance(key, str) or not _is_tensor(value):
                raise FileError(f"{PICKLE}: {shown(key)}: {DICT}; received {shown(value)}")
        paths, texts = {key: (key,) for key in found}, {}
    limits.require_count("the tensors", len(paths))
    return {key: (path, _at(found, path)) for key, path in paths.items()}, texts


def _is_tensor(value: Any) -> bool:
    return isinstance(value, _Tensor)


# What Python's unpickler raises on instructions that do not fit each other.
_BROKEN = (EOFError, IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError, MemoryError)


def _require_instructions(text: bytes) -> None:
    """That there are only harmless ones, and not too many. The memory of what was built may be as large as the text,
    no larger: the unpickler would make room for whatever number stands there."""
    making = 0
    try:
        for instruction, value, _ in pickletools.genops(text):
            if instruction.name not in INSTRUCTIONS:
                raise FileError(f"{PICKLE}: {DICT}; received the instruction {instruction.name} of a pickle")
            if instruction.name == "LONG_BINPUT" and int(value or 0) > len(text):
                raise FileError(f"{PICKLE}: expected at most {len(text)} objects, received number {value}")
            making += instruction.name not in REMEMBERING
    except ValueError as error:
        raise FileError(f"{PICKLE}: expected a whole pickle, received {shown(str(error))}") from error
    if making > MOST_INSTRUCTIONS:
        raise FileError(f"{PICKLE}: expected at most {MOST_INSTRUCTIONS} instructions, received {making}")


# -- writing -----------------------------------------------------------------------------------------------------------


def write(file: BinaryIO, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """As `torch.save` of a state_dict; the metadata is one more member of the archive, which PyTorch passes over."""
    limits.require_writable(arrays, "torch", [dtype.name for dtype in STORAGES.values()])
    text = limits.as_json(metadata)
    torch = _torch()
    with warnings.catch_warnings():
        # The tensors are read only, as the arrays may be.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        tensors = {key: _as_tensor(torch, blocks.contiguous(value)) for key, value in arrays.items()}
    try:
        torch.save(tensors, file)
    except RuntimeError as error:  # that it could not end the archive, after a write that failed
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise
    if metadata:
        with zipfile.ZipFile(file, "a") as archive:
            root = archive.namelist()[0].split("/")[0]
            archive.writestr(zipfile.ZipInfo(f"{root}/{TEXTS}"), text)


def _as_tensor(torch: Any, value: np.ndarray) -> Any:
    if value.dtype == limits.BFLOAT16:
        return torch.from_numpy(value.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(value)
