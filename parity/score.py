"""The checker judged by its own rules: plant every mistake, see whether it is found, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity import cases, compare, oracle, probe
from parity.compare import Row
from parity.mistakes import Mistake, catalogue
from parity.runners import keras, scratch
from parity.runners.steps import Operation
from parity.spec import DTYPES, Spec
from parity.trace import LOSS, Place, Trace, Weights, flow, gradient

__all__ = ["SIZES", "Planted", "Score", "score"]

SIZES = {"small": (1, 8), "medium": (4, 32), "large": (16, 256)}
"""Name -> (factor of the widths of the inputs, batch)."""


@dataclass(frozen=True)
class Planted:
    """One mistake in one operation of one network: what became of it."""

    code: str
    network: str
    size: str
    dtype: str
    place: str  # the first tensor that the mistake changes
    first_wrong: str | None  # the first tensor that the checker calls wrong

    @property
    def found(self) -> bool:
        return self.first_wrong is not None

    @property
    def located(self) -> bool:
        return self.first_wrong == self.place


@dataclass(frozen=True)
class Score:
    """planted: every mistake that can show, everywhere it can be made. alarms: correct networks that were called
    wrong. unplanted: codes that found no place. equivalent: code -> why it is no mistake."""

    planted: tuple[Planted, ...]
    correct: int
    alarms: tuple[str, ...]
    unplanted: tuple[str, ...]
    equivalent: Mapping[str, str]

    @property
    def missed(self) -> tuple[Planted, ...]:
        return tuple(p for p in self.planted if not p.found)

    @property
    def misplaced(self) -> tuple[Planted, ...]:
        return tuple(p for p in self.planted if p.found and not p.located)

    @property
    def passed(self) -> bool:
        return bool(self.planted) and not (self.missed or self.alarms or self.unplanted)


def score(
    sizes: Sequence[str] = tuple(SIZES), seed: int = 0, progress: Callable[[str], None] = lambda message: None
) -> Score:
    """Plant the catalogue into every case of the registry, in these sizes, in both dtypes."""
    planted: list[Planted] = []
    alarms: list[str] = []
    correct = 0
    for size in sizes:
        widths, batch = SIZES[size]
        for spec in cases.cases(seed, widths):
            for dtype in DTYPES:
                progress(f"{size} {spec.name} {dtype}")
                trial = _Trial.of(spec.with_dtype(dtype), batch, seed)
                correct += 1
                if not all(row.passed for row in trial.rows(lambda op: op.outputs)):
                    alarms.append(f"{spec.name} {size} {dtype}")
                planted.extend(
                    Planted(m.code, spec.name, size, dtype, place, first) for m, place, first in trial.plant()
                )
    seen = {p.code for p in planted}
    equivalent = {m.code: m.equivalent for m in catalogue() if m.equivalent}
    unplanted = tuple(m.code for m in catalogue() if m.code not in seen and not m.equivalent)
    return Score(tuple(planted), correct, tuple(alarms), unplanted, equivalent)


@dataclass(frozen=True)
class _Trial:
    """One network that ran on the reference, ready to be judged with and without mistakes."""

    spec: Spec
    weights: Weights
    x: np.ndarray
    y: np.ndarray
    places: list[Place]
    reference: Trace
    bounds: Mapping[str, np.ndarray] | None

    @classmethod
    def of(cls, spec: Spec, batch: int, seed: int) -> _Trial:
        network = scratch.Network.of(spec)
        weights = {n: w.astype(spec.dtype) for n, w in probe.weights(network.weights, seed).items()}
        x = probe.samples(network.input_shape, batch, seed, network.indices)
        x = x if network.indices else x.astype(np.float32)
        y = probe.labels(network.output_shape, batch, seed, network.labels)
        reference = keras.run(spec, weights, x, y)
        places = list(flow(network.layers, spec.loss_name, spec.optimizer_name))
        bounds = oracle.bounds(spec, weights, reference, y) if spec.dtype == "float32" else None
        return cls(spec, weights, x, y, places, reference, bounds)

    def rows(self, settle: Callable[[Operation], Mapping[str, Any]]) -> list[Row]:
        """What the checker says of this network when `settle` has its way with the operations."""
        if self.bounds is None:
            subject = scratch.run_with(self.spec, self.weights, self.x, self.y, settle)
            return compare.compare_whole(subject, self.reference, self.places)
        replayed = scratch.replay(self.spec, self.weights, self.reference, self.y, settle=settle)
        return compare.compare_local(replayed, self.bounds, self.reference, self.places)

    def plant(self) -> Iterator[tuple[Mistake, str, str | None]]:
        """(mistake, where it is, where the checker finds it), for every operation where one can be made."""
        for mistake, index, place in self._plantable():
            counter = iter(range(10**9))

            def settle(
                operation: Operation, mistake: Mistake = mistake, index: int = index, counter: Any = counter
            ) -> Any:
                return (mistake.apply(operation) or {}) if next(counter) == index else {}

            rows = self.rows(settle)
            yield mistake, place, next((row.tensor for row in rows if not row.passed), None)

    def _plantable(self) -> list[tuple[Mistake, int, str]]:
        found: list[tuple[Mistake, int, str]] = []
        operations: list[Operation] = []

        def collect(operation: Operation) -> Mapping[str, Any]:
            operations.append(operation)
            return operation.outputs

        self.rows(collect)
        order = {place.tensor: position for position, place in enumerate(self.places)}
        for index, operation in enumerate(operations):
            for mistake in catalogue():
                wrong = None if mistake.equivalent else mistake.apply(operation)
                place = self._place(operation, wrong or {}, order)
                if place is not None:
                    found.append((mistake, index, place))
        return found

    def _place(self, operation: Operation, wrong: Mapping[str, Any], order: Mapping[str, int]) -> str | None:
        """The first tensor that changes; an output without a name shows in the loss. None where there is nothing to
        compare with, as behind a Dropout that drops all."""
        tensors = {operation.tensors.get(output) or self._behind(operation, output) for output in wrong}
        return min((t for t in tensors if t in self.reference), key=order.__getitem__, default=None)

    def _behind(self, operation: Operation, output: str) -> str:
        """Where an output without a name shows: a gradient that a penalty is added to, or else the loss."""
        return gradient(f"{operation.layer}/{output}") if operation.direction == "backward" else LOSS
