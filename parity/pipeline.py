"""check(): a model in, a report out. Spec -> build -> copy weights -> run both sides -> compare -> report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from parity import (
    compare,
    diagnose,
    environment,
    facts,
    kinks,
    known,
    models,
    oracle,
    own,
    power,
    precision,
    probe,
    reproduce,
    trace,
)
from parity.budget import FLOAT64
from parity.compare import Row
from parity.diagnose import Finding
from parity.errors import UsageError
from parity.inputs import Inputs, representable, whole_number
from parity.report import Check, Report
from parity.reproduce import MODES
from parity.runners import keras, scratch
from parity.runners.reference import Reference
from parity.runners.steps import Operation
from parity.sketch import Vouched
from parity.spec import DTYPES, Spec
from parity.subjects import Subject, require_subject
from parity.trace import Place, Trace, Weights, flow

__all__ = ["Problem", "check", "judged", "problems"]

BATCH = 32
GLUE = 64  # samples on which the chains are compared with their operations
DIFFERENT = 1e-5
"""Of a tensor's norm: what two correct float32 runs of networks of this size are apart is 3e-7, so this is a difference
that a mistake makes, and one that finite differences in float64 can tell."""


def check(
    model: Any = None,
    subject: Subject | None = None,
    x: np.ndarray | None = None,
    y: np.ndarray | None = None,
    *,
    loss: Any = None,
    dtype: str = "both",
    data: str | Path | None = None,
    batch: int | None = None,
    seed: int = 0,
    modes: Sequence[str] = MODES,
    training: bool = True,
    progress: Callable[[str], None] = lambda message: None,
) -> Report:
    """Compare a network written by hand with Keras on TensorFlow: outputs, loss and every gradient.

    subject: your own network, made with `parity.subject`; without one, scratchnet is compared.
    model: a Keras Sequential (compiled, or with `loss`), the name of a built-in network or case, a path to a `.keras`
    or `.json` file, a Spec, or None for both reference networks with all their losses. x, y: samples and labels;
    without them digits where the network takes 28x28 pixels, else a designed probe. dtype: float32, float64 or both.
    data, batch: which digits and how many; seed: of weights and probe; modes: how Keras runs, of eager, function and
    xla; training: whether layers such as Dropout and BatchNormalization run as in training, or as in inference.
    progress: called with what is being done.

    Raises UsageError, FileError or NothingConcluded (all `parity.errors.ParityError`).
    """
    if dtype not in (*DTYPES, "both"):
        raise UsageError(f"dtype: expected float32, float64 or both; received {dtype!r}")
    batch = None if batch is None else whole_number("batch", batch, 1)
    seed = whole_number("seed", seed, 0)
    if not isinstance(training, bool):
        raise UsageError(f"training: expected True or False; received {training!r}")
    if x is not None and (batch is not None or data is not None):
        raise UsageError("x and y are given, so there is nothing to choose with data or batch; leave them out")
    if not modes or any(mode not in keras.MODES for mode in modes):
        raise UsageError(f"modes: expected some of {', '.join(keras.MODES)}; received {modes!r}")
    loss = models.as_data(loss)
    require_subject(subject)
    inputs = Inputs(x, y, data, batch or BATCH, seed)
    posed = problems(models.resolve(model, loss, seed), inputs, modes, training, only_scratchnet=subject is None)
    checks = [check for problem in posed for check in judged(problem, subject, dtype, modes, keras, progress)]
    return Report(
        checks=tuple(checks),
        data=inputs.source,
        batch=inputs.batch,
        seed=seed,
        command=reproduce.command(model, subject, loss, dtype, inputs, seed, modes, training),
        environment=environment.of_both_sides(),
    )


@dataclass(frozen=True, eq=False)
class Problem:
    """One network with one loss at given weights, on given samples and labels; all numbers that float32 holds.
    designed: the same, with every constant weight (a zero bias) moved off it, which is what a subject is given."""

    spec: Spec
    weights: Weights
    designed: Weights
    x: np.ndarray
    y: np.ndarray


def problems(
    found: Sequence[models.Resolved],
    inputs: Inputs,
    modes: Sequence[str],
    training: bool,
    only_scratchnet: bool,
) -> Iterator[Problem]:
    """Each of these networks with its inputs. only_scratchnet: whether layers that scratchnet lacks are refused."""
    for resolved in found:
        spec = resolved.spec if training else replace(resolved.spec, training=False)
        network = scratch.Network.of(spec) if only_scratchnet else own.network_of(spec, keras)[0]
        if network.drops and "xla" in modes:
            raise UsageError(f"modes: {network.name} drops cells at random, and XLA draws other ones; leave xla out")
        samples, labels = inputs.for_network(network)
        scratch.require_indices(network, samples)
        scratch.require_labels(spec, labels, (len(samples), *network.output_shape))
        seed = inputs.seed
        given = resolved.weights or probe.weights(network.weights, seed)
        moved = probe.weights(given, seed)
        given, moved = ({n: representable(w) for n, w in each.items()} for each in (given, moved))
        yield Problem(spec, given, moved, samples, labels)


def judged(
    problem: Problem,
    subject: Subject | None,
    dtype: str,
    modes: Sequence[str],
    reference: Reference,
    progress: Callable[[str], None],
) -> Iterator[Check]:
    """scratchnet in each dtype, or somebody's own network, against the reference in each mode."""
    spec, x, y = problem.spec, problem.x, problem.y
    if subject is not None:
        progress(f"{subject.name}, {spec.loss_name}")
        wide = spec.with_dtype("float64" if dtype == "both" else dtype)
        yield own.judge(wide, problem.designed, x, y, subject, modes, reference)
        return
    for one in DTYPES if dtype == "both" else (dtype,):
        progress(f"{spec.name}, {spec.loss_name}, {one}")
        yield _checked(spec.with_dtype(one), problem.weights, x, y, modes, reference)


def _checked(
    spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, modes: Sequence[str], reference: Reference
) -> Check:
    """`_check`, with what stops it halfway as a message."""
    try:
        return _check(spec, weights, x, y, modes, reference)
    except scratch.Broken as broken:
        network = scratch.Network.of(spec)
        places = flow(network.layers, spec.loss_name, spec.optimizer_name)
        there = (place for place in places if place.computed_by == broken.computed_by)
        place = next(there, Place(broken.computed_by, broken.computed_by, "backward"))
        row = compare.incomparable(place, (), str(broken))
        return Check(spec.name, spec.loss_name, spec.dtype, tuple(modes), (row,), {})
    except MemoryError as error:
        raise UsageError(f"{spec.name}: does not fit into memory ({error}); take a smaller batch or network") from error


def _check(spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, modes: Sequence[str], runs: Reference) -> Check:
    """One network with one loss in one dtype, against each way that the reference can run."""
    weights = {name: array.astype(spec.dtype) for name, array in weights.items()}
    network = scratch.Network.declared(spec)
    places = list(flow(network.layers, spec.loss_name, spec.optimizer_name))
    judge = judge_whole if spec.dtype == "float64" else judge_local
    worst = {row.tensor: row for row in _glue(spec, weights, x[:GLUE], y[:GLUE], places)}
    references: list[Trace] = []
    for mode in modes:
        reference = runs.run(spec, weights, x, y, mode)
        if any(_same(reference, other) for other in references):
            continue
        references.append(reference)
        for row in judge(spec, weights, x, y, reference, places):
            if row.tensor not in worst or row.budgets > worst[row.tensor].budgets:
                worst[row.tensor] = replace(row, mode=mode)
    order = {place.tensor: position for position, place in enumerate(places)}
    rows = tuple(sorted(worst.values(), key=lambda row: order.get(row.tensor, len(order))))
    blind = power.blind_spots(spec.config["layers"], weights, reference, rows, spec.dtype, scratch.keeps_state(spec))
    check = Check(
        network=spec.name,
        loss=spec.loss_name,
        dtype=spec.dtype,
        modes=tuple(modes),
        rows=rows,
        skipped=power.skipped(places, worst, reference, spec.optimizer),
        powerless=power.powerless(rows, reference),
        blind=tuple(blind),
        kinks=kinks.judged(spec, weights, reference, y, rows, places),
        notes=facts.of_loss(spec, weights, reference, y),
    )
    if check.first_wrong is None:
        return check
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    exact = runs.run(spec.with_dtype("float64"), wide, x, y) if spec.dtype == "float32" else reference
    return _explained(check, spec, weights, x, y, reference, exact)


def _same(one: Trace, other: Trace) -> bool:
    """Bit for bit, as the modes of TensorFlow often are: what was judged once need not be judged again."""
    if one.tensors.keys() != other.tensors.keys():
        return False
    return all(a is b or _bytes(a) == _bytes(b) for a, b in ((one[name], other[name]) for name in one.tensors))


def _bytes(array: np.ndarray) -> bytes:
    """Of what the reference has: of an array that was computed again, its sketch."""
    sketch = array.sketch if isinstance(array, Vouched) else None
    return array.tobytes() if sketch is None else sketch.sums.tobytes()


def _explained(
    check: Check, spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, reference: Trace, exact: Trace
) -> Check:
    """The check with what a mismatch calls for: a vote on the gradients, and whether it matters end to end."""
    subject = scratch.run(spec, weights, x, y)
    forward = all(row.passed for row in check.rows if not row.tensor.endswith((".gradient", ".updated")))
    nearer, sentence = _vote(check, spec, weights, x, y, subject, reference) if forward else ("", "")
    if nearer != "subject":  # otherwise there is no mistake to look for
        check = replace(check, findings=_findings(check, spec, weights, y, subject, reference))
    if spec.dtype == "float64":
        return replace(check, vote=sentence)
    wrong = (row.tensor for row in check.rows if not row.passed and row.tensor in reference)
    unknown = any(isinstance(reference[name], Vouched) for name in wrong)  # of a sketch there are no elements to tell
    end_to_end = "" if unknown else _end_to_end(oracle.floors(subject, reference, exact))
    if not sentence:
        sentence = precision.reduced(check.rows, scratch.replay(spec, weights, reference, y), reference)
    return replace(check, vote=sentence, end_to_end=end_to_end)


def _findings(
    check: Check, spec: Spec, weights: Weights, y: np.ndarray, subject: Trace, reference: Trace
) -> tuple[Finding, ...]:
    """The causes of what is wrong: in float32 from the operations alone, in float64 from the whole run."""
    if any(row.note and row.budgets == np.inf for row in check.rows):
        return ()  # another shape, a tensor that is not there: the note says it all
    operations: list[Operation] = []

    def collect(operation: Operation) -> Mapping[str, Any]:
        operations.append(operation)
        return {}

    replayed = scratch.replay(spec, weights, reference, y, settle=collect)
    local = spec.dtype == "float32"
    values = replayed if local else subject.tensors
    network = scratch.Network.of(spec)
    places = list(flow(network.layers, spec.loss_name, spec.optimizer_name))
    if local:
        allowed: Mapping[str, Any] = {n: 2 * b for n, b in oracle.bounds(spec, weights, reference, y).items()}
    else:
        allowed = compare.gate(reference, places)
    shared = [place for place in places if place.tensor in values and place.tensor in reference]
    rows = [compare.judge(p, values[p.tensor], reference[p.tensor], allowed[p.tensor]) for p in shared]
    wrong = {
        row.tensor: values[row.tensor]
        for row in rows
        if not row.passed and not _is_itself(values[row.tensor], reference[row.tensor])
    }
    batch = len(reference[trace.INPUT])
    return tuple(diagnose.diagnose(operations, reference, wrong, allowed, batch, local=local))


def _is_itself(subject: np.ndarray, reference: np.ndarray) -> bool:
    """Whether all that is known of the reference is a sketch, and its elements are the subject's."""
    return isinstance(reference, Vouched) and np.array_equal(subject, reference, equal_nan=True)


def _vote(
    check: Check, spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, subject: Trace, reference: Trace
) -> tuple[str, str]:
    """Finite differences decide on the first gradient behind the first wrong tensor that differs in the whole runs: for
    the subject or the reference, and in words."""
    order = [row.tensor for row in check.rows]
    assert check.first_wrong is not None
    behind = set(order[order.index(check.first_wrong.tensor) :])
    sources = {trace.gradient(name): name for name in (*weights, trace.INPUT)}
    for tensor in (name for name in order if name in behind and name in sources and name in subject):
        s, r = np.asarray(subject[tensor], np.float64), np.asarray(reference[tensor], np.float64)
        if s.shape == r.shape and np.linalg.norm(s - r) > DIFFERENT * np.linalg.norm(r):
            nearer = oracle.vote(spec, weights, x, y, subject, reference, sources[tensor])
            said = oracle.VOTES[nearer].format(tensor=sources[tensor]) if nearer else ""
            by_logits = trace.gradient(trace.output(spec.config["layers"][-1]["config"]["name"])) not in reference
            why = known.explanation(spec.loss_name, y, by_logits) if nearer == "subject" else ""
            return nearer, f"{said} ({why.rstrip('.')})" if why else said
    return "", ""


def _end_to_end(floors: Mapping[str, float]) -> str:
    if not floors:
        return ""
    tensor, far = max(floors.items(), key=lambda item: item[1])
    if far > oracle.NOISE:
        return f"end to end it matters: {tensor} of the whole run is {far:.2g} times as far off as rounding explains"
    return f"end to end it does not matter: no tensor of the whole run is more than {far:.2g} times the rounding off"


def _glue(spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, places: list[Any]) -> list[Row]:
    """The rows that are out of budget because the chains of scratchnet.Sequential are not their own operations, one
    after the other: bit for bit, on a few samples. The local pass sees the operations only, `fit` runs the chains."""
    whole = scratch.run(spec, weights, x, y)
    apart = scratch.run_with(spec, weights, x, y, lambda operation: operation.outputs)
    shared = [place for place in places if place.tensor in whole]
    differing = [p for p in shared if not np.array_equal(whole[p.tensor], apart[p.tensor], equal_nan=True)]
    rows = [compare.judge(p, whole[p.tensor], apart[p.tensor], 0.0) for p in differing]
    return [replace(row, note="Sequential and its operations, one by one, differ") for row in rows if not row.passed]


def judge_whole(
    spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, reference: Trace, places: list[Any]
) -> list[Row]:
    subject = scratch.run(spec, weights, x, y)
    rows = compare.compare_whole(subject, reference, places) + compare.missing(reference, subject.tensors, places)
    if all(row.passed for row in rows):
        return rows
    alone = [_each_alone(spec, weights, y, side, places) for side in (reference, subject)]
    return compare.settled(rows, *alone)


def _each_alone(spec: Spec, weights: Weights, y: np.ndarray, side: Trace, places: list[Any]) -> list[Row]:
    """Each operation in float64 on the tensors of one side, against what that side has: within four rounding bounds, or
    a hundredth of the gate, which bounds of nearly nothing would be."""
    gate = compare.gate(side, places)
    bounds = {
        name: np.maximum(4 * bound, gate.get(name, 0.0) / 200)
        for name, bound in oracle.bounds(spec, weights, side, y, FLOAT64).items()
    }
    return compare.compare_local(scratch.replay(spec, weights, side, y), bounds, side, places)


def judge_local(
    spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, reference: Trace, places: list[Any]
) -> list[Row]:
    bounds = oracle.bounds(spec, weights, reference, y)
    replayed = scratch.replay(spec, weights, reference, y)
    rows = compare.compare_local(replayed, bounds, reference, places)
    return rows + compare.missing(reference, replayed, places)
