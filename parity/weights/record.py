"""The parity record of a file of weights: what its arrays are, and what the network computes with them.

A strict piece of JSON among the texts of the file, under the name `parity`. Whoever has the file can hash its arrays,
build the network again, run it on the same designed probe and compare; nothing in the record is code.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from parity.errors import FileError, NothingConcluded
from parity.weights.formats import limits
from parity.weights.formats.limits import DTYPES, shown
from parity.weights.names import FRAMEWORKS

__all__ = ["KEY", "Expected", "Network", "Record", "Tensor", "fitted", "parsed"]

KEY = "parity"
"""The name of the record among a file's texts."""
VERSION = 1
LONGEST = limits.LONGEST_TEXT // 2
"""Characters of a record as a string within JSON: half of what a reader takes, the names of the arrays are the rest."""


@dataclass(frozen=True)
class Tensor:
    """One array of the file, as the file has it. sha256: of its bytes in C order, little-endian."""

    dtype: str
    shape: tuple[int, ...]
    sha256: str

    @classmethod
    def of(cls, array: np.ndarray) -> Tensor:
        flat = limits.contiguous(array).reshape(-1).view(np.uint8)
        return cls(array.dtype.newbyteorder("=").name, array.shape, hashlib.sha256(flat.data).hexdigest())


@dataclass(frozen=True)
class Network:
    """What has to be known to run it. config: of the Keras Sequential; loss: Keras's name or config.

    naming: how the arrays are called, one of keras, torch and flax, or None where they are in a layout; keys: weight ->
    its array, under a naming; layout: a name of `parity.weights.layouts.CONVENTIONS`.
    """

    config: Mapping[str, Any]
    loss: Any
    naming: str | None
    keys: Mapping[str, str]
    layout: str | None


@dataclass(frozen=True, eq=False)
class Expected:
    """What the network computes on the designed probe, in float64 and in inference.

    seed: of the probe; inputs: SHA-256 of the samples and labels; outputs: of the first samples; loss: of all; slopes:
    weight -> its gradient times a random direction, the same numbers for everybody.
    """

    seed: int
    inputs: str
    outputs: np.ndarray
    loss: float
    slopes: Mapping[str, float]


@dataclass(frozen=True)
class Record:
    """tensors: by the file's keys. network and expected: None where the network cannot be run; why says the reason."""

    tensors: Mapping[str, Tensor]
    network: Network | None = None
    expected: Expected | None = None
    why: str = ""

    def to_text(self) -> str:
        expected = None if self.expected is None else vars(self.expected) | {"outputs": self.expected.outputs.tolist()}
        return json.dumps(
            {
                "version": VERSION,
                "tensors": {key: asdict(tensor) for key, tensor in self.tensors.items()},
                "network": None if self.network is None else vars(self.network),
                "expected": expected,
                "why": self.why,
            },
            ensure_ascii=False,
            allow_nan=False,
            separators=(",", ":"),
        )


def fitted(record: Record) -> str | None:
    """Its text; without the network if it would be too long with it, or if JSON cannot hold its config; None if it is
    too long even so."""
    hashes = Record(record.tensors, why=record.why or "the network is too large for a record, or its config is no data")
    for each in (record, hashes):
        try:
            text = each.to_text()
        except (TypeError, ValueError):
            continue
        if len(json.dumps(text)) <= LONGEST:
            return text
    return None


# -- reading -----------------------------------------------------------------------------------------------------------


def parsed(text: str) -> Record:
    """The record in a text. `FileError` for one that is damaged or hostile, `NothingConcluded` for a later version."""
    with limits.blamed("the parity record"):
        data = limits.parsed(text.encode("utf-8", errors="surrogatepass"), "its text")
        _require_finite(data)
        version = _value(data, "version", int)
        if version > VERSION:
            raise NothingConcluded(
                f"the parity record: expected version {VERSION}, received {shown(version)}; it was written by a later "
                "parity, take that one"
            )
        if version != VERSION:
            raise FileError(f"version: expected {VERSION}, received {shown(version)}")
        _require_keys(data, {"version", "tensors", "network", "expected", "why"})
        tensors = {key: _tensor(key, about) for key, about in _value(data, "tensors", dict).items()}
        why = _value(data, "why", str)
        if data["network"] is None or data["expected"] is None:
            return Record(tensors, why=why)
        network = _network(_value(data, "network", dict), tensors)
        return Record(tensors, network, _expected(_value(data, "expected", dict)), why)


def _require_finite(data: Any) -> None:
    """That no number in it is NaN or infinite. Without recursion, however deep the data is nested."""
    pending = [data]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            pending += node.values()
        elif isinstance(node, list):
            pending += node
        elif isinstance(node, float) and not math.isfinite(node):
            raise FileError(f"expected finite numbers, received {node}")


def _require_keys(data: Mapping[str, Any], keys: set[str]) -> None:
    if set(data) != keys:
        raise FileError(f"expected the keys {', '.join(sorted(keys))}, received {shown(sorted(data))}")


def _value(data: Any, key: str, *kinds: type) -> Any:
    """The value under a key; a truth value is no number."""
    if not isinstance(data, dict) or key not in data:
        raise FileError(f"expected an object with the key {key!r}, received {shown(data)}")
    value = data[key]
    if not isinstance(value, kinds) or isinstance(value, bool):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise FileError(f"{key}: expected {names}, received {shown(value)}")
    return value


def _tensor(key: str, about: Any) -> Tensor:
    with limits.blamed(shown(key)):
        dtype, shape, digest = (_value(about, *what) for what in (("dtype", str), ("shape", list), ("sha256", str)))
        if dtype not in DTYPES:
            raise FileError(f"dtype: expected one of {', '.join(DTYPES)}, received {shown(dtype)}")
        if not all(type(n) is int and 0 <= n < 2**63 for n in shape):
            raise FileError(f"shape: expected a list of sizes, received {shown(shape)}")
        _require_digest("sha256", digest)
        return Tensor(dtype, tuple(shape), digest)


def _require_digest(key: str, digest: str) -> None:
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise FileError(f"{key}: expected 64 hexadecimal digits, received {shown(digest)}")


def _network(data: dict[str, Any], tensors: Mapping[str, Tensor]) -> Network:
    _require_keys(data, {"config", "loss", "naming", "keys", "layout"})
    config, loss = _value(data, "config", dict), _value(data, "loss", str, dict)
    naming, layout = _value(data, "naming", str, type(None)), _value(data, "layout", str, type(None))
    if (naming is None) == (layout is None) or (naming is not None and naming not in FRAMEWORKS):
        raise FileError(
            f"naming, layout: expected one of {', '.join(FRAMEWORKS)}, or a layout; received {shown([naming, layout])}"
        )
    keys = _value(data, "keys", dict)
    if not all(isinstance(key, str) and key in tensors for key in keys.values()):
        raise FileError(f"keys: expected keys of the tensors, received {shown(keys)}")
    return Network(config, loss, naming, keys, layout)


def _expected(data: dict[str, Any]) -> Expected:
    _require_keys(data, {"seed", "inputs", "outputs", "loss", "slopes"})
    seed, inputs = _value(data, "seed", int), _value(data, "inputs", str)
    if not 0 <= seed < 2**63:
        raise FileError(f"seed: expected 0 to 2**63, received {shown(seed)}")
    _require_digest("inputs", inputs)
    slopes = {name: _number(_value(data, "slopes", dict), name) for name in _value(data, "slopes", dict)}
    try:
        outputs = np.asarray(_value(data, "outputs", list), dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:  # lists of different lengths, texts, huge whole numbers
        raise FileError(f"outputs: expected numbers, received {shown(data['outputs'])}") from error
    return Expected(seed, inputs, outputs, _number(data, "loss"), slopes)


def _number(data: dict[str, Any], key: str) -> float:
    try:
        return float(_value(data, key, int, float))
    except OverflowError as error:
        raise FileError(f"{key}: expected a number, received {shown(data[key])}") from error
