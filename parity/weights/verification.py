"""Whether a file of weights still holds what its parity record says, and still computes it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parity import compare, trace
from parity.compare import Row
from parity.errors import FileError, NothingConcluded
from parity.runners import torch
from parity.spec import Spec
from parity.trace import Place, Trace, Weights
from parity.weights import expectation, formats, matching, networks
from parity.weights.expectation import Unrunnable
from parity.weights.formats import limits
from parity.weights.record import KEY, Record, Tensor, parsed
from parity.weights.stored import Archive

__all__ = ["Run", "Verification", "compared", "hashed", "runs", "verify"]


@dataclass(frozen=True)
class Run:
    """One run of the network: who ran it, and each compared tensor."""

    runner: str
    rows: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)

    @property
    def worst(self) -> Row:
        return max(self.rows, key=lambda row: row.budgets)

    @property
    def sentence(self) -> str:
        wrong = [row for row in self.rows if not row.passed]
        if not wrong:
            return (
                f"{self.runner}: {len(self.rows)} tensors within budget, the worst uses {self.worst.budgets:.2g} of it"
            )
        first = wrong[0]
        said = first.note or f"{first.subject:.9g} where {first.reference:.9g} is expected, allowed {first.allowed:.1e}"
        return f"{self.runner}: {len(wrong)} of {len(self.rows)} tensors differ, the first is {first.tensor}: {said}"


@dataclass(frozen=True)
class Verification:
    """differing: a sentence for each array that is not the recorded one; runs: of the network; notes: what was not
    done, and why."""

    path: str
    tensors: int
    differing: tuple[str, ...]
    runs: tuple[Run, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.differing and all(run.passed for run in self.runs)

    @property
    def exit_status(self) -> int:
        return 0 if self.passed else 1

    @property
    def sentence(self) -> str:
        count = f"{self.tensors} array" + "s" * (self.tensors != 1)
        if not self.passed:
            return f"No: {self.path} is not what its parity record says."
        *most, last = [run.runner for run in self.runs] or [""]
        by = f"{', '.join(most)} and {last}" if most else last
        computes = f", and the network computes in {by} what it should" if by else "; the network was not run"
        return f"Yes: {self.path} holds the recorded {count}, bit for bit{computes}."

    def to_text(self) -> str:
        lines = [f"differs: {each}" for each in self.differing]
        lines += [run.sentence for run in self.runs]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes), self.sentence])

    def to_json(self) -> str:
        return json.dumps(
            {
                "sentence": self.sentence,
                "passed": self.passed,
                "path": self.path,
                "tensors": self.tensors,
                "differing": list(self.differing),
                "runs": [{"runner": run.runner, "rows": [_as_json(row) for row in run.rows]} for run in self.runs],
                "notes": list(self.notes),
            },
            indent=2,
            ensure_ascii=False,
        )


def _as_json(row: Row) -> dict[str, Any]:
    """JSON has no infinity: null."""
    numbers = {"budgets": row.budgets, "received": row.subject, "expected": row.reference, "allowed": row.allowed}
    finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
    return {"tensor": row.tensor, "passed": row.passed, **finite, "note": row.note}


def verify(path: str | Path) -> Verification:
    """Hash every array of a file and compare with its parity record; then build the network of the record, in
    scratchnet and, where they are installed, in Keras on TensorFlow and in PyTorch, and compare what it computes on the
    designed probe: outputs, loss, and for every weight a slope of the loss, and what one step of SGD makes of it.

    The record is no signature: who changes a file on purpose can change its record, too.

    `NothingConcluded` for a file without a record, or with one of a later version, `FileError` for a damaged one.
    """
    archive = formats.read(path)
    if KEY not in archive.metadata:
        raise NothingConcluded(f"{path}: has no parity record; parity port writes one into the files that it makes")
    with limits.blamed(path):
        record = parsed(archive.metadata[KEY])
    differing = tuple(hashed(record, archive))  # reads every array, which blames the file itself
    with limits.blamed(path):
        found, notes = compared(record, archive)
    return Verification(str(path), len(record.tensors) + len(record.state), differing, found, notes)


def hashed(record: Record, archive: Archive) -> Iterator[str]:
    """A sentence for each array that is missing, too much, or not the recorded one."""
    for key, tensor in {**record.tensors, **record.state}.items():
        if key not in archive.arrays:
            yield f"{key}: expected {tensor.dtype} {tensor.shape}, it is not there"
            continue
        stored = archive.arrays[key]
        if (stored.dtype.name, stored.shape) != (tensor.dtype, tensor.shape):
            yield f"{key}: expected {tensor.dtype} {tensor.shape}, received {stored.dtype.name} {stored.shape}"
        elif (now := Tensor.of(stored.load()).sha256) != tensor.sha256:
            yield f"{key}: expected SHA-256 {tensor.sha256[:16]}..., received {now[:16]}..."
    for key in archive.arrays.keys() - record.tensors.keys() - record.state.keys():
        if record.state or key.partition("/")[0] not in matching.STATE:
            yield f"{key}: is not in the record"


def compared(record: Record, archive: Archive) -> tuple[tuple[Run, ...], tuple[str, ...]]:
    """What the network computes with the arrays of a file, whatever their hashes are, against what is expected; and
    notes on what could not be done. `FileError` for a record whose network cannot be built or run."""
    if record.network is None or record.expected is None:
        return (), (f"the network was not run: {record.why or NO_NETWORK}",)
    if any(key not in archive.arrays or archive.arrays[key].shape != t.shape for key, t in record.tensors.items()):
        return (), ("the network was not run, since the arrays do not have the recorded shapes",)
    arrays = {key: archive.arrays[key] for key in record.tensors}
    count = sum(math.prod(tensor.shape) for tensor in record.tensors.values())
    network = record.network
    try:
        weights = expectation.restored(expectation.made(network.config, count), arrays, network)
        spec = expectation.buildable(network)
        x, y = expectation.probed(spec, record.expected.seed)
        layers = networks.described(spec).layers
    except Unrunnable as error:
        raise FileError(f"the parity record: {error}") from error
    except NothingConcluded as error:
        return (), (f"the network was not run: it has layers that scratchnet lacks, and {error}",)
    if expectation.digest(x, y) != record.expected.inputs:
        return (), ("the network was not run: this version of NumPy draws another probe than the one of the record",)
    found, notes = [], []
    for runner, run in runs().items():
        try:
            rows = expectation.rows(spec, layers, weights, record.expected, run(spec, weights, x, y))
            found.append(Run(runner, tuple(rows)))
        except Unrunnable as error:  # it could be run when the record was made
            place = Place(trace.LOSS, "the network", "forward")
            found.append(Run(runner, (compare.incomparable(place, (), str(error)),)))
        except NothingConcluded as error:
            notes.append(f"not run in {runner}: {error}")
    return tuple(found), tuple(notes)


NO_NETWORK = "the parity record has neither a network with expected outputs nor a reason"


def runs() -> Mapping[str, Callable[[Spec, Weights, np.ndarray, np.ndarray], Trace]]:
    """Who can run a network, by name."""
    return {"scratchnet": expectation.ran, "Keras": expectation.ran_in_keras, "PyTorch": _in_torch}


def _in_torch(spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray) -> Trace:
    return torch.run(spec, expectation.wide(weights), x, y)
