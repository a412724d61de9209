"""The parity record of a file of weights: what its arrays are, and what the network computes with them.

A strict piece of JSON among the texts of the file, under the name `parity`. Whoever has the file can hash its arrays,
build the network again, run it on the same designed probe and compare; nothing in the record is code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from parity.documents import number, require_keys, require_plain, value
from parity.errors import FileError, NothingConcluded
from parity.weights import blocks
from parity.weights.formats import limits
from parity.weights.formats.limits import DTYPES, shown
from parity.weights.names import FRAMEWORKS

__all__ = ["KEY", "Expected", "Network", "Record", "Tensor", "fitted", "parsed"]

KEY = limits.RECORD
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
        digest = hashlib.sha256()
        for part in blocks.raw(array):
            digest.update(part)
        return cls(array.dtype.newbyteorder("=").name, array.shape, digest.hexdigest())


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
    """tensors: the weights, by the file's keys; state: of the optimizer, if it was ported. network and expected: None
    where the network cannot be run; why says the reason."""

    tensors: Mapping[str, Tensor]
    network: Network | None = None
    expected: Expected | None = None
    why: str = ""
    state: Mapping[str, Tensor] = field(default_factory=dict)

    def to_text(self) -> str:
        expected = None if self.expected is None else vars(self.expected) | {"outputs": self.expected.outputs.tolist()}
        return json.dumps(
            {
                "version": VERSION,
                "tensors": {key: asdict(tensor) for key, tensor in self.tensors.items()},
                "state": {key: asdict(tensor) for key, tensor in self.state.items()},
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
    why = record.why or "the network is too large for a record, or its config is no data"
    hashes = Record(record.tensors, why=why, state=record.state)
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
        require_plain(data)
        version = value(data, "version", int)
        if version > VERSION:
            raise NothingConcluded(
                f"the parity record: expected version {VERSION}, received {shown(version)}; it was written by a later "
                "parity, take that one"
            )
        if version != VERSION:
            raise FileError(f"version: expected {VERSION}, received {shown(version)}")
        require_keys(data, {"version", "tensors", "state", "network", "expected", "why"})
        tensors, state = (_tensors(data, name) for name in ("tensors", "state"))
        if not tensors:
            raise FileError("tensors: expected at least one, received none")
        why = value(data, "why", str)
        if data["network"] is None or data["expected"] is None:
            return Record(tensors, why=why, state=state)
        network = _network(value(data, "network", dict), tensors)
        return Record(tensors, network, _expected(value(data, "expected", dict)), why, state)


def _tensors(data: Any, name: str) -> dict[str, Tensor]:
    found = value(data, name, dict)
    limits.require_count(name, len(found))
    return {key: _tensor(key, about) for key, about in found.items()}


def _tensor(key: str, about: Any) -> Tensor:
    with limits.blamed(shown(key)):
        dtype, shape, digest = (value(about, *what) for what in (("dtype", str), ("shape", list), ("sha256", str)))
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
    require_keys(data, {"config", "loss", "naming", "keys", "layout"})
    config, loss = value(data, "config", dict), value(data, "loss", str, dict)
    naming, layout = value(data, "naming", str, type(None)), value(data, "layout", str, type(None))
    if (naming is None) == (layout is None) or (naming is not None and naming not in FRAMEWORKS):
        raise FileError(
            f"naming, layout: expected one of {', '.join(FRAMEWORKS)}, or a layout; received {shown([naming, layout])}"
        )
    keys = value(data, "keys", dict)
    if not all(isinstance(key, str) and key in tensors for key in keys.values()):
        raise FileError(f"keys: expected keys of the tensors, received {shown(keys)}")
    return Network(config, loss, naming, keys, layout)


def _expected(data: dict[str, Any]) -> Expected:
    require_keys(data, {"seed", "inputs", "outputs", "loss", "slopes"})
    seed, inputs = value(data, "seed", int), value(data, "inputs", str)
    if not 0 <= seed < 2**63:
        raise FileError(f"seed: expected 0 to 2**63, received {shown(seed)}")
    _require_digest("inputs", inputs)
    limits.require_count("slopes", len(value(data, "slopes", dict)))
    slopes = {name: number(data["slopes"], name) for name in data["slopes"]}
    try:
        outputs = np.asarray(value(data, "outputs", list), dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:  # lists of different lengths, texts, huge whole numbers
        raise FileError(f"outputs: expected numbers, received {shown(data['outputs'])}") from error
    return Expected(seed, inputs, outputs, number(data, "loss"), slopes)
