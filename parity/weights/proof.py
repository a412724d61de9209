"""After a port: whether the target holds the weights bit for bit, and what it takes to say so later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.errors import NothingConcluded
from parity.trace import Trace
from parity.weights import expectation, formats, live
from parity.weights.expectation import Unrunnable
from parity.weights.names import FRAMEWORKS
from parity.weights.record import Network, Record, Tensor
from parity.weights.stored import Archive, Stored

__all__ = ["Proof", "differing", "read_back", "recorded"]

FAILED = "PROOF FAILED: the target is not what was meant, or computes something else; do not use it."


@dataclass(frozen=True)
class Proof:
    """What was compared after a port, in sentences; worst: run -> the most that a tensor used of its budget."""

    passed: bool
    sentences: tuple[str, ...]
    worst: Mapping[str, float]

    def to_text(self) -> str:
        head = [] if self.passed else [FAILED]
        return "\n".join([*head, *(f"proof: {sentence}" for sentence in self.sentences)])

    def to_json(self) -> dict[str, Any]:
        worst = {run: value if np.isfinite(value) else None for run, value in self.worst.items()}
        return {"passed": self.passed, "sentences": list(self.sentences), "worst": worst}


def recorded(ported: Any, loss: Any, seed: int) -> tuple[Record, Trace | None]:
    """The record of a port that is ready, and the run of its network; without one where it cannot be run.

    ported: `parity.weights.port.Ported`; loss: Keras's name or config; seed: of the probe.
    """
    tensors = {key: Tensor.of(array) for key, array in ported.arrays.items()}
    state = {key: Tensor.of(array) for key, array in ported.state.arrays.items()}
    try:
        network = _network(ported, loss)
        expected, found = expectation.expectation(network, ported.weights, seed)
    except (Unrunnable, NothingConcluded) as error:
        return Record(tensors, why=str(error), state=state), None
    return Record(tensors, network, expected, state=state), found


def _network(ported: Any, loss: Any) -> Network:
    """With the way back from the target's arrays to the weights, after it was tried."""
    config = ported.skeleton.config
    if config is None:
        raise Unrunnable("what the network computes is not known; give model=..., or --model FILE")
    expectation.made(config, sum(weight.size for weight in ported.weights.values()))
    arrays = {key: Stored.of(key, array) for key, array in ported.arrays.items()}
    for naming, layout in _ways(ported.target):
        keys = {step.weight: step.targets[0].key for step in ported.plan.steps} if naming else {}
        network = Network(config, loss, naming, keys, layout)
        try:
            weights = expectation.restored(ported.skeleton, arrays, network)
        except Unrunnable:
            continue
        if all(_same_bits(weights[name], array) for name, array in ported.weights.items()):
            return network
    raise Unrunnable("how the target holds the weights has no name: it is a function, or chosen by hand")


def _same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    """Also of NaN and of -0.0, without a copy."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    bits = f"u{one.itemsize}"
    return np.array_equal(one.view(bits), other.view(bits))


def _ways(target: Any) -> list[tuple[str | None, str | None]]:
    """Naming and layout: first what the target says of itself, then the other namings."""
    side = target.side
    said = target.naming or (side.naming if side else None)
    layout = target.layout or (side.layout if side else None)
    ways: list[tuple[str | None, str | None]] = [(None, layout)] if isinstance(layout, str) else []
    return ways + [(naming, None) for naming in dict.fromkeys(filter(None, (said, *FRAMEWORKS)))]


def read_back(ported: Any) -> Archive:
    """What the target holds now."""
    if ported.target.path is not None:
        return formats.read(ported.target.path)
    return live.opened(ported.target.owner).archive


def differing(record: Record, archive: Archive) -> list[str]:
    """The recorded arrays that a target does not hold bit for bit."""
    there = archive.arrays
    return [key for key, meant in record.tensors.items() if key not in there or Tensor.of(there[key].load()) != meant]
