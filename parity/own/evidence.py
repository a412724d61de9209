"""One comparison of somebody's own network with Keras: both run, and each tensor is judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parity import compare, conventions, oracle, trace
from parity.compare import Row
from parity.conventions import Convention
from parity.diagnose.whole import Seen
from parity.errors import NothingConcluded, UsageError
from parity.mistakes import Mistake, catalogue, regularizers
from parity.runners import foreign, scratch
from parity.runners.reference import Reference
from parity.runners.scratch import Network
from parity.runners.steps import Operation, Settle
from parity.runners.subject import Bound
from parity.spec import Spec
from parity.subjects import Subject
from parity.trace import Place, Trace, Weights, flow

__all__ = ["Case", "Evidence", "Run", "compared", "is_narrow", "loss_operation", "network_of", "skipped"]


def network_of(spec: Spec, reference: Reference) -> tuple[Network, bool]:
    """The network of a spec, and whether scratchnet has all its layers; if not, the reference describes it."""
    try:
        return Network.of(spec), True
    except UsageError as error:
        try:
            return reference.described(spec), False
        except UsageError:
            raise error from None


@dataclass(frozen=True)
class Run:
    """One run of the user's code in Keras's terms: its tensors, what they are called there, and what it wrote to."""

    trace: Trace
    own: Mapping[str, str]
    changed: tuple[str, ...]


@dataclass(frozen=True)
class Evidence:
    """What one comparison showed. run: of the user's code; replay: the network in NumPy, None where it is not known."""

    run: Run
    seen: Seen
    conventional: list[Convention]
    rows: list[Row]
    replay: Callable[[Settle], None] | None

    @property
    def right(self) -> bool:
        return all(row.passed for row in self.rows)


@dataclass(frozen=True)
class Case:
    """The network that a subject is compared with, in the dtype that the samples are handed over in."""

    spec: Spec
    subject: Subject
    network: Network
    in_numpy: bool
    modes: Sequence[str]
    reference: Reference
    bound: Bound | None = None

    @property
    def wide(self) -> Spec:
        return self.spec.with_dtype("float64")

    @property
    def places(self) -> list[Place]:
        return list(flow(self.network.layers, self.spec.loss_name))

    def references(self, weights: Weights, x: np.ndarray, y: np.ndarray) -> dict[str, Trace]:
        exact = {name: array.astype(np.float64) for name, array in weights.items()}
        return {mode: self.reference.run(self.wide, exact, x, y, mode) for mode in self.modes}

    def evidence(self, weights: Weights, x: np.ndarray, y: np.ndarray, references: Mapping[str, Trace]) -> Evidence:
        """Run the user's code, and compare each of its tensors with Keras's."""
        assert self.bound is not None
        exact = {name: array.astype(np.float64) for name, array in weights.items()}
        reference = references[self.modes[0]]
        run = Run(*self.bound.run(weights, x, y))
        replay = replayed(self.wide, exact, x, y, self.in_numpy)
        allowed = self._allowed(run.trace, weights, x, y, reference)
        for more in (_rounded(replay) if replay is not None else {}, _stepped(self.subject, weights)):
            allowed = {name: limit + more.get(name, 0.0) for name, limit in allowed.items()}
        sizes = {"batch": len(x), **_outputs(self.network)}
        seen = Seen(compared(run.trace), reference.tensors, allowed, run.own, sizes)
        conventional = conventions.found(seen, loss_operation(replay))
        rows = _worst(self.places, seen, references, conventional)
        rows += [row for row in missing(self.places, seen, reference) if not self.bound.gives_none(row.tensor)]
        return Evidence(run, seen, conventional, rows, replay)

    def _allowed(
        self, subject: Trace, weights: Weights, x: np.ndarray, y: np.ndarray, reference: Trace
    ) -> dict[str, Any]:
        """How far each tensor may be from Keras's in float64."""
        gate = compare.gate(reference, self.places)
        if self.spec.dtype == "float64" and not is_narrow(subject):
            return gate
        narrow = {name: array.astype(np.float32) for name, array in weights.items()}
        rounded = self.reference.run(self.spec.with_dtype("float32"), narrow, x.astype(np.float32), y)
        return {
            name: max(gate[name], oracle.NOISE * oracle.spread(rounded[name], reference[name]))
            for name in gate
            if name in rounded
        }


def replayed(
    spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, in_numpy: bool
) -> Callable[[Settle], None] | None:
    """The network operation by operation, with Keras itself in place of the layers that scratchnet does not have; None
    where it lacks the loss, or where there is no Keras to stand in."""
    try:
        return scratch.repeated(spec, weights, x, y, None if in_numpy else foreign.layers_of(spec.config))
    except (UsageError, NothingConcluded):
        if in_numpy:
            raise
        return None


def _outputs(network: Network) -> dict[str, int]:
    return {"outputs": network.output_shape[-1]} if network.output_shape else {}


def compared(subject: Trace) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in subject.tensors.items() if name != trace.INPUT}


def loss_operation(replay: Callable[..., None] | None) -> Operation | None:
    """The operation that computes the loss, in NumPy and in float64."""
    found: list[Operation] = []

    def look(operation: Operation) -> Mapping[str, Any]:
        if operation.family == "loss" and operation.direction == "forward":
            found.append(operation)
        return {}

    if replay is not None:
        replay(look)
    return found[0] if found else None


def is_narrow(subject: Trace) -> bool:
    """Whether the code computes in float32, whatever it is given."""
    kinds = {
        np.asarray(array).dtype for name, array in subject.tensors.items() if name not in (trace.INPUT, trace.LOSS)
    }
    return any(kind.kind == "f" and kind.itemsize < 8 for kind in kinds)


def _stepped(subject: Subject, weights: Weights) -> dict[str, np.ndarray]:
    """How far rounding moves a gradient that is (before - after) / learning rate: each of the two by half a unit."""
    if "step" not in subject.functions or not subject.learning_rate:
        return {}
    unit = 2 * np.finfo(np.float64).eps / abs(subject.learning_rate)
    return {trace.gradient(name): unit * np.abs(array) for name, array in weights.items()}


def missing(places: list[Place], seen: Seen, reference: Trace) -> list[Row]:
    """A row out of budget for each weight that the code gives no gradient of, where it gives some: what is not compared
    does not pass."""
    weights = [p for p in places if p.tensor.endswith(".gradient") and _final(p.tensor) and p.tensor in reference]
    weights = [p for p in weights if p.tensor != trace.gradient(trace.INPUT)]
    if not any(p.tensor in seen.subject for p in weights):
        return []
    return [
        compare.incomparable(p, np.shape(reference[p.tensor]), "your code gives no such gradient")
        for p in weights
        if p.tensor not in seen.subject
    ]


def _rounded(replay: Callable[[Settle], None]) -> dict[str, np.ndarray]:
    """How far Keras's rounding of an argument to float32, in a network of float64, moves each tensor; twice that, so
    that what is wrong besides is still compared with either. Somebody's own network need not have it."""
    exacter = [mistake for mistake in catalogue() if mistake.code.endswith("-in-double")]

    def tensors(mistakes: Sequence[Mistake]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}

        def settle(operation: Operation) -> Mapping[str, Any]:
            made = next((m for mistake in mistakes if (m := mistake.apply(operation)) is not None), {})
            if mistakes and (operation.family, operation.direction) == ("regularizer", "forward"):
                made = regularizers.exact_penalty(operation)
            outputs = {**operation.outputs, **made}
            found.update({name: outputs[output] for output, name in operation.tensors.items()})
            return made

        with np.errstate(all="ignore"):
            replay(settle)
        return found

    right, exact = tensors(()), tensors(exacter)
    return {n: 2 * np.abs(exact[n] - array) for n, array in right.items() if not np.array_equal(array, exact[n])}


def _worst(
    places: list[Place], seen: Seen, references: Mapping[str, Trace], conventional: Sequence[Convention]
) -> list[Row]:
    """A row for each tensor that both sides have, in the mode in which it is furthest away."""
    scale = {tensor: (c, factor) for c in conventional for tensor, factor in c.scale.items()}
    rows = []
    for place in (p for p in places if p.tensor in seen.subject and p.tensor in seen.allowed):
        judged = []
        for mode, reference in references.items():
            value, note = seen.subject[place.tensor], ""
            if place.tensor in scale:
                convention, factor = scale[place.tensor]
                value, note = np.asarray(value / factor), f"divided by {factor:.4g}: {convention.code}, a convention"
            row = compare.judge(place, value, reference[place.tensor], seen.allowed[place.tensor])
            judged.append(replace(row, mode=mode, note=note or row.note))
        rows.append(max(judged, key=lambda row: row.budgets))
    return rows


def skipped(places: list[Place], subject: Trace, reference: Trace) -> dict[str, str]:
    """The gradients and outputs of the reference that were not compared, and why."""
    return {
        p.tensor: "your network does not give it"
        for p in places
        if p.tensor in reference and p.tensor not in subject and _final(p.tensor)
    }


def _final(tensor: str) -> bool:
    return tensor == trace.LOSS or not trace.of_samples(tensor)
