"""A golden as a file: `.safetensors` whose arrays are called by their SHA-256, so that equal ones are there once.

The text `parity_golden` of its metadata says in JSON which array is what; `parity_golden_sha256` is the digest of that
text. Both are there to notice damage and careless edits, not to stop somebody who writes the digests anew.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from parity import documents
from parity.documents import value
from parity.errors import FileError, UsageError
from parity.golden.form import Golden, Recording, Run, Tensor
from parity.runners import keras
from parity.runners.scratch import Network
from parity.sketch import Sketch, buckets
from parity.spec import DTYPES, Spec
from parity.trace import Layer
from parity.weights import blocks, formats
from parity.weights.formats import limits
from parity.weights.formats.limits import shown

__all__ = ["ENDING", "VERSION", "read", "spare", "write"]

ENDING = ".safetensors"
KEY, DIGEST = "parity_golden", "parity_golden_sha256"
VERSION = 1
"""Grows when a key goes or changes its meaning."""


# -- writing -----------------------------------------------------------------------------------------------------------


def write(path: str | Path, golden: Golden) -> None:
    """The file is the old one until the new one is whole."""
    arrays: dict[str, np.ndarray] = {}

    def kept(array: np.ndarray) -> str:
        key = _digest(array)
        arrays[key] = array
        return key

    document = {
        "version": VERSION,
        "environment": dict(golden.environment),
        "recordings": [_recording(each, kept) for each in golden.recordings],
    }
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path}: the network cannot be written as JSON: {error}") from error
    if len(golden.recordings) > 1 and len(text) > limits.LONGEST_TEXT // 2:  # as much again says where the arrays are
        raise UsageError(
            f"{path}: {len(golden.recordings)} networks are too many for one file; give a folder, which gets a file "
            "for each of them"
        )
    formats.write(path, arrays, {KEY: text, DIGEST: _text_digest(text)}, "safetensors")


def _recording(recording: Recording, kept: Callable[[np.ndarray], str]) -> dict[str, Any]:
    return {
        "spec": asdict(recording.spec),
        "weights": {n: {"again": w} if isinstance(w, str) else kept(w) for n, w in recording.weights.items()},
        "x": kept(recording.x),
        "y": kept(recording.y),
        "source": recording.source,
        "modes": list(recording.modes),
        "used": {dtype: {n: _finite(u) for n, u in rows.items()} for dtype, rows in recording.used.items()},
        "described": None if recording.described is None else _described(recording.described),
        "runs": [
            {"point": run.point, "dtype": run.dtype, "mode": run.mode,
             "tensors": {name: _tensor(tensor, kept) for name, tensor in run.tensors.items()}}
            for run in recording.runs
        ],
        "steps": [{name: kept(array) for name, array in step.items()} for step in recording.steps],
    }  # fmt: skip


def _tensor(tensor: Tensor, kept: Callable[[np.ndarray], str]) -> Any:
    if isinstance(tensor, Sketch):
        return {"sketch": kept(tensor.sums), "shape": tensor.shape, "dtype": tensor.dtype, "seed": tensor.seed}
    return kept(tensor)


def _described(network: Network) -> dict[str, Any]:
    """Without the initial weights: those of the recording are at hand."""
    return {
        "layers": [asdict(layer) for layer in network.layers],
        "weight_names": {layer: list(names) for layer, names in network.weight_names.items()},
        "input_shape": network.input_shape,
        "output_shape": network.output_shape,
        "indices": network.indices,
        "drops": network.drops,
        "labels": network.labels,
    }


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _digest(array: np.ndarray) -> str:
    """Of its type, its shape and its bytes in C order, little-endian."""
    digest = hashlib.sha256(f"{array.dtype.name} {array.shape} ".encode())
    digest.update(blocks.contiguous(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


# -- reading -----------------------------------------------------------------------------------------------------------


def read(path: str | Path) -> Golden:
    """A golden, every array of it hashed. `FileError` for a file that is missing, damaged, edited, of a later
    version, or no golden."""
    if not str(path).lower().endswith(ENDING):
        raise FileError(f"{path}: expected a golden, a file that parity record wrote, named *{ENDING}")
    archive = formats.read(path)
    with limits.blamed(path):
        text = archive.metadata.get(KEY)
        if text is None:
            raise FileError(f"expected a golden, with the text {KEY!r}; received a .safetensors file of something else")
        document = limits.parsed(text.encode("utf-8", errors="surrogatepass"), KEY)
        with limits.blamed(KEY):
            documents.require_plain(document)
        version = value(document, "version", int)
        if version > VERSION:
            raise FileError(
                f"expected a golden of version {VERSION}, received version {shown(version)}: a later parity wrote it; "
                "update parity, or record it again"
            )
        if archive.metadata.get(DIGEST) != _text_digest(text):
            raise FileError(f"{KEY}: expected the SHA-256 that {DIGEST} says; the text was edited: record it again")
        arrays = {key: stored.load() for key, stored in archive.arrays.items()}
        for key, array in arrays.items():
            if _digest(array) != key:
                raise FileError(f"{shown(key)}: expected an array with this SHA-256, received another; record it again")
        return _golden(document, version, arrays)


def spare(path: str | Path) -> list[str]:
    """The arrays of a golden that its text does not speak of."""
    archive = formats.read(path)
    return [key for key in archive.arrays if key not in archive.metadata.get(KEY, "")]


def _golden(document: Any, version: int, arrays: Mapping[str, np.ndarray]) -> Golden:
    documents.require_keys(document, {"version", "environment", "recordings"})
    if version != VERSION:
        raise FileError(f"version: expected {VERSION}, received {shown(version)}")
    found = []
    for index, about in enumerate(value(document, "recordings", list)):
        with limits.blamed(f"recording {index}"):
            found.append(_read_recording(about, arrays))
    if not found:
        raise FileError("recordings: expected at least one, received none")
    conditions = value(document, "environment", dict)
    for key in conditions:
        value(conditions, key, str, int, float, bool, type(None))
    return Golden(tuple(found), conditions)


def _read_recording(about: Any, arrays: Mapping[str, np.ndarray]) -> Recording:
    def array(data: Any, key: str) -> np.ndarray:
        return _array(value(data, key, str), key, arrays)

    documents.require_keys(
        value({"recording": about}, "recording", dict),
        {"spec", "weights", "x", "y", "source", "modes", "used", "described", "runs", "steps"},
    )
    weights = value(about, "weights", dict)
    described = value(about, "described", dict, type(None))
    spec = _spec(value(about, "spec", dict))
    runs = tuple(_run(run, arrays) for run in value(about, "runs", list))
    used = {dtype: dict(value(about["used"], dtype, dict)) for dtype in value(about, "used", dict)}
    return Recording(
        spec=spec,
        weights={n: value(w, "again", str) if isinstance(w, dict) else array(weights, n) for n, w in weights.items()},
        x=array(about, "x"),
        y=array(about, "y"),
        source=value(about, "source", str),
        modes=_modes(about),
        runs=runs,
        used={dtype: {n: math.inf if u is None else documents.number(rows, n) for n, u in rows.items()}
              for dtype, rows in used.items()},
        described=None if described is None else _network(spec, described),
        steps=tuple({n: array(step, n) for n in _mapping(step)} for step in value(about, "steps", list)),
    )  # fmt: skip


def _modes(about: Any) -> tuple[str, ...]:
    modes = _texts(about, "modes")
    if not modes or not set(modes) <= set(keras.MODES):
        raise FileError(f"modes: expected some of {', '.join(keras.MODES)}, received {shown(list(modes))}")
    return modes


def _spec(data: dict[str, Any]) -> Spec:
    documents.require_keys(data, {"name", "config", "loss", "dtype", "optimizer", "training", "seed"})
    for entry in value(value(data, "config", dict), "layers", list):
        value(entry, "class_name", str)
        value(value(entry, "config", dict), "name", str)
    seed = value(data, "seed", int)
    if seed < 0:
        raise FileError(f"seed: expected a whole number of at least 0, received {shown(seed)}")
    return Spec(
        name=value(data, "name", str),
        config=data["config"],
        loss=_entry(data, "loss", str),
        dtype=_dtype(data),
        optimizer=_entry(data, "optimizer", str, type(None)),
        training=value(data, "training", bool),
        seed=seed,
    )


def _entry(data: dict[str, Any], key: str, *kinds: type) -> Any:
    """What Keras makes an object of: one of these kinds, or an object with the name of a class."""
    found = value(data, key, dict, *kinds)
    if isinstance(found, dict):
        value(found, "class_name", str)
        value({"config": {}, **found}, "config", str, dict)
    return found


def _dtype(data: Any) -> str:
    dtype: str = value(data, "dtype", str)
    if dtype not in DTYPES:
        raise FileError(f"dtype: expected one of {', '.join(DTYPES)}, received {shown(dtype)}")
    return dtype


def _run(data: Any, arrays: Mapping[str, np.ndarray]) -> Run:
    documents.require_keys(_mapping(data), {"point", "dtype", "mode", "tensors"})
    tensors = value(data, "tensors", dict)
    found = {name: _read_tensor(name, about, arrays) for name, about in tensors.items()}
    return Run(value(data, "point", str), _dtype(data), value(data, "mode", str), found)


def _read_tensor(name: str, about: Any, arrays: Mapping[str, np.ndarray]) -> Tensor:
    if isinstance(about, str):
        return _array(about, name, arrays)
    documents.require_keys(_mapping(about), {"sketch", "shape", "dtype", "seed"})
    sums = _array(value(about, "sketch", str), name, arrays)
    shape = tuple(_sizes(about, "shape"))
    size = buckets(math.prod(shape))
    if sums.dtype != np.float64 or sums.shape != (size,):
        raise FileError(f"{shown(name)}: expected {size} float64 sums, received {sums.dtype} {sums.shape}; record "
                        "it again with this version of parity")  # fmt: skip
    return Sketch(shape, _dtype(about), value(about, "seed", int), sums)


def _array(key: str, name: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    if key not in arrays:
        raise FileError(f"{shown(name)}: expected the array {shown(key)}, it is not there")
    return arrays[key]


def _network(spec: Spec, data: dict[str, Any]) -> Network:
    documents.require_keys(
        data, {"layers", "weight_names", "input_shape", "output_shape", "indices", "drops", "labels"}
    )
    layers = tuple(_layer(each) for each in value(data, "layers", list))
    if not layers:
        raise FileError("layers: expected at least one, received none")
    names = {layer: _texts(data["weight_names"], layer) for layer in value(data, "weight_names", dict)}
    return Network(
        name=spec.name,
        layers=layers,
        weights={},
        weight_names=names,
        input_shape=tuple(_sizes(data, "input_shape")),
        output_shape=tuple(_sizes(data, "output_shape")),
        indices=value(data, "indices", int, type(None)),
        drops=value(data, "drops", bool),
        labels=value(data, "labels", str),
    )


def _layer(data: Any) -> Layer:
    documents.require_keys(_mapping(data), {"name", "kind", "weights", "activation", "moving"})
    return Layer(
        value(data, "name", str),
        value(data, "kind", str),
        _texts(data, "weights"),
        value(data, "activation", str, type(None)),
        _texts(data, "moving"),
    )


def _mapping(data: Any) -> dict[str, Any]:
    found: dict[str, Any] = value({"entry": data}, "entry", dict)
    return found


def _texts(data: Any, key: str) -> tuple[str, ...]:
    found = value(data, key, list)
    if not all(isinstance(each, str) for each in found):
        raise FileError(f"{key}: expected a list of texts, received {shown(found)}")
    return tuple(found)


def _sizes(data: Any, key: str) -> Iterator[int]:
    for size in value(data, key, list):
        if type(size) is not int or not 0 <= size < 2**31:
            raise FileError(f"{key}: expected a list of sizes, received {shown(data[key])}")
        yield size
