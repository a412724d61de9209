"""Judge somebody's own network: run it and Keras at the same weights on the same samples, and say what is wrong.

The user's code is a closed box with some windows: outputs, loss, gradients, and what a cache shows. So whole runs are
compared, by the float64 gate; where the code computes in float32 whatever it is given, by how far rounding moves
TensorFlow's own run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from parity import facts, kinks, power, trace
from parity.diagnose import Cause
from parity.diagnose.whole import Seen
from parity.mistakes import Mistake, catalogue
from parity.own.behaviour import elsewhere, misbehaviour
from parity.own.causes import findings_of
from parity.own.evidence import Case, Evidence, Run, compared, is_narrow, network_of, skipped
from parity.report import Check
from parity.runners import subject as runner
from parity.runners.reference import Reference
from parity.runners.scratch import Network
from parity.runners.steps import Operation, Settle
from parity.runners.subject import Bound
from parity.spec import Spec
from parity.subjects import Subject
from parity.trace import Place, Trace, Weights

__all__ = ["judge", "network_of"]


def judge(
    spec: Spec,
    weights: Weights,
    x: np.ndarray,
    y: np.ndarray,
    subject: Subject,
    modes: Sequence[str],
    reference: Reference,
) -> Check:
    """The verdict on a subject. spec: in the dtype that the samples are handed over in."""
    network, in_numpy = network_of(spec, reference)
    weights = {name: array.astype(spec.dtype) for name, array in weights.items()}
    x = x if network.indices else x.astype(spec.dtype)
    case = Case(spec, subject, network, in_numpy, modes, reference)
    references = case.references(weights, x, y)
    first = references[modes[0]]
    bound = runner.bind(subject, network.layers, _held(subject, weights, network), x, y, first)
    case = replace(case, bound=bound)
    evidence = case.evidence(weights, x, y, references)
    misbehaved = [*misbehaviour(bound, weights, x, y, evidence.run), *elsewhere(case, weights, x, y, evidence)]
    rows = [*evidence.rows, *(row for row, _ in misbehaved)]
    # Where the code misbehaves, that is the cause; what it computes then need not be one mistake.
    findings = findings_of(evidence.seen, rows, None if misbehaved else evidence.replay, evidence.conventional)
    check = Check(
        network=spec.name,
        loss=spec.loss_name,
        dtype=spec.dtype,
        modes=tuple(modes),
        rows=tuple(rows),
        skipped=skipped(case.places, evidence.run.trace, first),
        powerless=power.powerless(rows, first),
        blind=tuple(power.blind_spots(spec.config["layers"], weights, first, rows, spec.dtype, False)),
        findings=tuple([*(finding for _, finding in misbehaved), *findings]),
        conventions=tuple(convention.text for convention in evidence.conventional),
        notes=tuple(_notes(bound, evidence.run, weights, x, y, spec)),
        subject=subject.name,
    )
    return _with_facts(check, case, evidence, weights, x, y, first)


def _with_facts(
    check: Check, case: Case, evidence: Evidence, weights: Weights, x: np.ndarray, y: np.ndarray, reference: Trace
) -> Check:
    """The check with what the data does to this network, where NumPy knows it."""
    bound, replay = case.bound, evidence.replay
    if replay is not None and bound is not None:
        said = _facts(check, evidence.seen, replay, bound.labels(y))
        check = replace(check, notes=(*check.notes, *said))
    if not case.in_numpy:
        return check
    exact = {name: array.astype(np.float64) for name, array in weights.items()}
    notes = (*check.notes, *facts.of_loss(case.wide, exact, reference, y))
    return replace(check, kinks=_kinks(check, case.wide, exact, reference, y, case.places), notes=notes)


def _held(subject: Subject, weights: Weights, network: Network) -> Weights:
    """The weights that the subject's parameters hold: all, or those without moving averages and the like."""
    trainable = {f"{layer.name}/{name}" for layer in network.layers for name in layer.weights}
    sizes = sum(int(np.prod(shape)) for shape in subject.parameters.shapes.values())
    if sizes == sum(array.size for array in weights.values()):
        return weights
    return {name: array for name, array in weights.items() if name in trainable}


def _notes(bound: Bound, run: Run, weights: Weights, x: np.ndarray, y: np.ndarray, spec: Spec) -> Iterator[str]:
    """What is worth knowing and not wrong: the layout that was found, and the dtypes."""
    yield f"layout: {bound.layout.name}; samples: {bound.form.name}"
    for kernel in bound.layout.channels_first:
        holders = ", ".join(bound.layout.holders(kernel))
        yield (
            f"{holders}: the rows of this Dense kernel fit the order (channels, height, width), Keras has (height, "
            f"width, channels): reorder them when you move {kernel} from one to the other"
        )
    if is_narrow(run.trace):
        yield (
            "your code computes in float32 where it is given float64: it was judged by how far rounding moves "
            "TensorFlow's own float32 run; a difference below that cannot be seen"
        )
    elif spec.dtype == "float64" and x.dtype.kind == "f" and bound.subject.by_argument:
        narrow = {name: array.astype(np.float32) for name, array in weights.items()}
        labels = y.astype(np.float32) if y.dtype.kind == "f" else y
        given = Run(*bound.run(narrow, x.astype(np.float32), labels))
        kinds = {given.own.get(n, n): a.dtype for n, a in compared(given.trace).items() if n != trace.LOSS}
        wide = [name for name, kind in kinds.items() if kind == np.float64]
        if wide:
            yield (
                f"given float32, your code returns float64 for {', '.join(wide)}: some array or constant in it is "
                "float64"
            )


# -- facts beside the verdict ------------------------------------------------------------------------------------------


def _kinks(
    check: Check, spec: Spec, weights: Weights, reference: Trace, y: np.ndarray, places: Sequence[Place]
) -> tuple[str, ...]:
    """What an explained difference is where it is one at kinks and ties. Elsewhere it is not known what the code does
    there, even if it passes: another choice need not show in what is seen."""
    if check.passed or any(finding.cause is None for finding in check.findings):
        return ()
    causes = {finding.cause for finding in check.findings if finding.cause is not None and finding.cause.where}
    planted = [(mistake, cause.where) for cause in causes for mistake in _mistakes(cause)]

    def settle(operation: Operation) -> Mapping[str, Any]:
        made = (mistake.apply(operation) for mistake, where in planted if operation.layer in where)
        return next((outputs for outputs in made if outputs is not None), {})

    sentences = kinks.judged(spec, weights, reference, y, check.rows, places, settle) if planted else ()
    return tuple(sentence for sentence in sentences if "so do you" not in sentence)


def _mistakes(cause: Cause) -> list[Mistake]:
    """The mistakes of the catalogue that a cause names, with the numbers that it names."""
    codes, wrong = cause.code.split("+"), cause.wrong.split(";  ")
    return [m for one in catalogue() if one.code in codes for m in one.variants if m.wrong in wrong]


def _facts(check: Check, seen: Seen, replay: Callable[[Settle], None], labels: np.ndarray) -> Iterator[str]:
    """What else answers a question: which gradients are right, what cancels, how visible an epsilon is."""
    weights = [row for row in check.rows if row.tensor.endswith(".gradient") and not trace.of_samples(row.tensor)]
    right = [seen.name(row.tensor) for row in weights if row.passed]
    if right and len(right) < len(weights):
        yield f"right: {', '.join(dict.fromkeys(right))}"
    codes = {finding.cause.code for finding in check.findings if finding.cause is not None}
    if "mse-over-all-pairs" in codes:
        yield facts.of_labels(len(labels))
    operations: list[Operation] = []

    def collect(operation: Operation) -> Mapping[str, Any]:
        operations.append(operation)
        return {}

    replay(collect)
    for operation in operations:
        yield from facts.of_epsilon(operation, check.findings)
    ends = next((op for op in operations if trace.output(op.context["layers"][-1].name) in op.tensors.values()), None)
    if ends is not None and ends.kind == "softmax" and ends["x"].shape[-1] > 1:
        if check.passed and ends.tensors["y"] in seen.subject:
            yield f"no double softmax: {seen.name(ends.tensors['y'])} fit softmax(z)"
        yield from facts.of_cancelling(ends, seen, {row.tensor for row in check.rows if row.passed})
