"""The initialisers of an ONNX model, which are its weights.

The package `onnx` builds an object of everything in a file, nodes and texts included. Here the messages are walked
over instead (https://protobuf.dev/programming-guides/encoding: a field is a number with a kind, then a number or a
length with so many bytes), and only tensors are looked at. Those with `raw_data`, which is what exporters write, are
views of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from parity.errors import FileError, NothingConcluded
from parity.weights.formats import limits
from parity.weights.formats.limits import DTYPES, shown
from parity.weights.stored import Stored

__all__ = ["read"]

# Numbers of fields in onnx/onnx.proto.
MODEL_VERSION, MODEL_GRAPH, MODEL_OPSET, MODEL_TEXTS = 1, 7, 8, 14
GRAPH_INITIALIZER, GRAPH_SPARSE = 5, 15
TEXT_KEY, TEXT_VALUE = 1, 2
DIMS, TYPE, SEGMENT, NAME, RAW, EXTERNAL, LOCATION = 1, 2, 3, 8, 9, 13, 14
LISTS = {4: "float_data", 5: "int32_data", 6: "string_data", 7: "int64_data", 10: "double_data", 11: "uint64_data"}
TYPES = {
    number: DTYPES[name]
    for number, name in {
        **{1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"},
        **{2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 12: "uint32", 13: "uint64"},
    }.items()
}
VARINT, WIDE, BYTES, NARROW = 0, 1, 2, 5
FIXED = {WIDE: 8, NARROW: 4}
LONGEST_VARINT = 10

Value = int | memoryview


def read(data: memoryview) -> tuple[dict[str, Stored], dict[str, str]]:
    """The initialisers in the order of the graph, and the texts beside the model. NothingConcluded where one does not
    have its bytes in `raw_data` and `onnx`, which knows the other forms, is not installed."""
    graphs: list[memoryview] = []
    texts: dict[str, str] = {}
    seen = set()
    for field, value in _fields(data, "the model"):
        seen.add(field)
        if field == MODEL_GRAPH:
            graphs.append(_bytes(value, "the graph"))
        elif field == MODEL_TEXTS:
            about = dict(_fields(_bytes(value, "metadata_props"), "metadata_props"))
            key, text = (_text(about.get(part, memoryview(b"")), "metadata_props") for part in (TEXT_KEY, TEXT_VALUE))
            texts[key] = text
            limits.require_count("metadata_props", len(texts))
    if not {MODEL_VERSION, MODEL_OPSET} <= seen or len(graphs) != 1:  # the operators come behind the graph
        raise FileError(
            f"expected an ONNX model with its version, one graph and the version of the operators, received the fields "
            f"{sorted(seen)}; it is no .onnx, or cut off"
        )
    arrays: dict[str, Stored] = {}
    for field, value in _fields(graphs[0], "the graph"):
        if field == GRAPH_SPARSE:
            raise FileError("expected initialisers with all their elements, received a sparse one")
        if field == GRAPH_INITIALIZER:
            stored = _tensor(_bytes(value, "an initialiser"))
            if stored.key in arrays:
                raise FileError(f"{shown(stored.key)}: expected one initialiser of this name, received a second one")
            arrays[stored.key] = stored
            limits.require_count("the initialisers", len(arrays))
    return arrays, texts


def _tensor(message: memoryview) -> Stored:
    shape: list[int] = []
    single: dict[int, Value] = {}
    lists = set()
    for field, value in _fields(message, "an initialiser"):
        if field == DIMS:
            shape += [value] if isinstance(value, int) else _varints(value)  # one by one, or packed
            if len(shape) > 32:
                raise FileError("an initialiser: expected at most 32 axes, received more")
        elif field in LISTS:
            lists.add(LISTS[field])
        else:
            single[field] = value
    key = _text(single.get(NAME, memoryview(b"")), "an initialiser")
    if EXTERNAL in single or single.get(LOCATION, 0) != 0:
        raise FileError(f"{shown(key)}: expected data of this file, received a reference to another file; save the "
                        "model with its data: onnx.save(model, path, save_as_external_data=False)")  # fmt: skip
    number = single.get(TYPE, 0)
    if not isinstance(number, int) or number not in TYPES:
        raise FileError(f"{shown(key)}: expected real or whole numbers, received type {shown(number)} of ONNX")
    dtype = TYPES[number]
    if SEGMENT in single or any(n >= 2**63 for n in shape) or (RAW in single and lists) or len(lists) > 1:
        raise FileError(f"{shown(key)}: expected one array, received {shape} with {sorted(lists)}, or a piece of one")
    return Stored(key, tuple(shape), dtype, _loader(key, tuple(shape), dtype, single.get(RAW), message))


def _loader(
    key: str, shape: tuple[int, ...], dtype: np.dtype[Any], raw: Value | None, message: memoryview
) -> Callable[[], np.ndarray]:
    if raw is not None:
        data = _bytes(raw, shown(key))
        limits.require_size(key, shape, dtype, len(data))
        return lambda: limits.array(data, 0, shape, dtype.newbyteorder("<"))
    # Every element takes at least a byte.
    if (count := limits.size_of(shape, dtype) // dtype.itemsize) > len(message):
        raise FileError(f"{shown(key)}: expected {count} elements for {shown(shape)}, received {len(message)} bytes")

    def load() -> np.ndarray:
        try:
            import onnx
            from google.protobuf.message import DecodeError
        except ImportError as error:
            raise NothingConcluded(
                f"{key}: initialisers without raw_data are read with onnx, which is not installed; pip install onnx"
            ) from error
        try:
            found = onnx.numpy_helper.to_array(onnx.TensorProto.FromString(bytes(message)))
        except (DecodeError, ValueError, TypeError) as error:
            raise FileError(f"{shown(key)}: expected an array, received {shown(str(error))}") from error
        return np.asarray(found, dtype).reshape(shape)

    return load


# -- messages ----------------------------------------------------------------------------------------------------------


def _fields(message: memoryview, what: str) -> Iterator[tuple[int, Value]]:
    """The fields in their order: number, and a whole number or some bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at, what)
        field, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, at = _varint(message, at, what)
            yield field, value
            continue
        if kind == BYTES:
            size, at = _varint(message, at, what)
        elif kind in FIXED:
            size = FIXED[kind]
        else:
            raise FileError(f"{what}: expected a field of a message, received the kind {kind}; this is no .onnx, or "
                            "it is damaged")  # fmt: skip
        if at + size > len(message):
            raise FileError(f"{what}: expected {size} bytes in field {field}, received {len(message) - at}")
        yield field, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int, what: str) -> tuple[int, int]:
    """A whole number in groups of seven bits, and where it ends."""
    value = 0
    for shift in range(LONGEST_VARINT):
        if at >= len(message):
            raise FileError(f"{what}: expected more, received its end")
        byte = message[at]
        at += 1
        value |= (byte & 127) << 7 * shift
        if byte < 128:
            return value, at
    raise FileError(f"{what}: expected a number of at most {LONGEST_VARINT} bytes, received a longer one")


def _varints(packed: memoryview) -> list[int]:
    found: list[int] = []
    at = 0
    while at < len(packed) and len(found) <= 32:
        value, at = _varint(packed, at, "an initialiser")
        found.append(value)
    return found


def _bytes(value: Value, what: str) -> memoryview:
    if isinstance(value, int):
        raise FileError(f"{what}: expected bytes, received the number {value}")
    return value


def _text(value: Value, what: str) -> str:
    text = _bytes(value, what)
    if len(text) > limits.LONGEST_TEXT:
        raise FileError(f"{what}: expected a text of at most {limits.LONGEST_TEXT} bytes, received {len(text)}")
    try:
        return bytes(text).decode()
    except UnicodeDecodeError as error:
        raise FileError(f"{what}: expected a text, received {shown(bytes(text))}") from error
