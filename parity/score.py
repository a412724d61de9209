"""The checker judged by its own rules: plant every mistake, see whether it is found, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parity import cases, compare, oracle, probe
from parity.compare import Row
from parity.mistakes import Mistake, catalogue
from parity.report.score import Planted, Score
from parity.runners import keras, scratch
from parity.runners.reference import Reference
from parity.runners.steps import Operation
from parity.sketch import Vouched
from parity.spec import DTYPES, Spec
from parity.trace import LOSS, Place, Trace, Weights, flow, gradient

__all__ = ["SIZES", "score"]

SIZES = {"small": (1, 8), "medium": (4, 32), "large": (16, 256)}
"""Name -> (factor of the widths of the inputs, batch)."""


def score(
    sizes: Sequence[str] = tuple(SIZES),
    seed: int = 0,
    progress: Callable[[str], None] = lambda message: None,
    reference: Reference = keras,
    specs: Sequence[Spec] | None = None,
) -> Score:
    """Plant the catalogue into every case of the registry, in these sizes, in both dtypes.

    reference: Keras, or what was recorded of it; specs: some of the cases only.
    """
    planted: list[Planted] = []
    alarms: list[str] = []
    correct = 0
    for size in sizes:
        widths, batch = SIZES[size]
        for spec in cases.cases(seed, widths) if specs is None else specs:
            for dtype in DTYPES:
                progress(f"{size} {spec.name} {dtype}")
                trial = _Trial.of(spec.with_dtype(dtype), batch, seed, reference)
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
    allowed: Mapping[str, Any]  # how far each tensor may be off, in the way that its dtype is judged

    @classmethod
    def of(cls, spec: Spec, batch: int, seed: int, runner: Reference) -> _Trial:
        network = scratch.Network.of(spec.with_dtype("float32"))  # the same numbers in both, as a recording has them
        weights = {n: w.astype(spec.dtype) for n, w in probe.weights(network.weights, seed).items()}
        x = probe.samples(network.input_shape, batch, seed, network.indices)
        x = x if network.indices else x.astype(np.float32)
        y = probe.labels(network.output_shape, batch, seed, network.labels)
        reference = runner.run(spec, weights, x, y)
        places = list(flow(network.layers, spec.loss_name, spec.optimizer_name))
        if spec.dtype == "float64":
            return cls(spec, weights, x, y, places, reference, compare.gate(reference, places))
        bounds = oracle.bounds(spec, weights, reference, y)
        return cls(spec, weights, x, y, places, reference, {name: 2 * bound for name, bound in bounds.items()})

    def rows(self, settle: Callable[[Operation], Mapping[str, Any]]) -> list[Row]:
        """What the checker says of this network when `settle` has its way with the operations."""
        if self.spec.dtype == "float64":
            subject = scratch.run_with(self.spec, self.weights, self.x, self.y, settle)
            return compare.compare_whole(subject, self._beside(subject.tensors), self.places)
        replayed = scratch.replay(self.spec, self.weights, self.reference, self.y, settle=settle)
        bounds = {name: allowed / 2 for name, allowed in self.allowed.items()}
        return compare.compare_local(replayed, bounds, self._beside(replayed), self.places)

    def _beside(self, subject: Mapping[str, Any]) -> Trace:
        """The reference. What was kept of it as a sketch is filled in by the code under test, as it is where scratchnet
        has the mistake."""
        filled = {
            name: Vouched.by(tensor.sketch, subject[name])
            if isinstance(tensor, Vouched) and tensor.sketch is not None and name in subject
            else tensor
            for name, tensor in self.reference.tensors.items()
        }
        return replace(self.reference, tensors=filled)

    def plant(self) -> Iterator[tuple[Mistake, str, str | None]]:
        """(mistake, where it is, where the checker finds it), for every operation where one can be made."""
        for index, operation in enumerate(self._operations()):
            for mistake in catalogue():
                wrong = {} if mistake.equivalent else mistake.apply(operation) or {}
                place = self._place(operation, wrong)
                if place is not None:
                    yield mistake, place, self._judged(operation, wrong) or self._first_wrong(index, wrong)

    def _operations(self) -> list[Operation]:
        found: list[Operation] = []

        def collect(operation: Operation) -> Mapping[str, Any]:
            found.append(operation)
            return operation.outputs

        self.rows(collect)
        return found

    def _judged(self, operation: Operation, wrong: Mapping[str, Any]) -> str | None:
        """The first of the tensors that come out wrong which the checker calls wrong.

        All tensors before them are the right network's, so where there is one, the whole comparison finds it first too
        and need not be run. None where none of them is wrong enough, or some have no name in a trace.
        """
        if not set(wrong) <= set(operation.tensors):
            return None
        named = {operation.tensors[output]: value for output, value in wrong.items()}
        reference = self._beside(named)
        for place in (p for p in self.places if p.tensor in named and p.tensor in self.reference):
            name = place.tensor
            if not compare.judge(place, named[name], reference[name], self.allowed[name]).passed:
                return name
        return None

    def _first_wrong(self, index: int, wrong: Mapping[str, Any]) -> str | None:
        """The first wrong tensor of the whole comparison, with the mistake in the operation of this number."""
        counter = iter(range(index + 1))
        rows = self.rows(lambda operation: wrong if next(counter, None) == index else {})
        return next((row.tensor for row in rows if not row.passed), None)

    def _place(self, operation: Operation, wrong: Mapping[str, Any]) -> str | None:
        """The first tensor that changes; an output without a name shows in the loss. None where there is nothing to
        compare with, as behind a Dropout that drops all."""
        tensors = {operation.tensors.get(output) or self._behind(operation, output) for output in wrong}
        return next((p.tensor for p in self.places if p.tensor in tensors and p.tensor in self.reference), None)

    def _behind(self, operation: Operation, output: str) -> str:
        """Where an output without a name shows: a gradient that a penalty is added to, or else the loss."""
        return gradient(f"{operation.layer}/{output}") if operation.direction == "backward" else LOSS
