"""Judge somebody's own network: run it and Keras at the same weights on the same samples, and say what is wrong.

The user's code is a closed box with some windows: outputs, loss, gradients, and what a cache shows. So whole runs are
compared, by the float64 gate; where the code computes in float32 whatever it is given, by how far rounding moves
TensorFlow's own run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parity import compare, conventions, facts, kinks, oracle, power, trace
from parity.compare import Row
from parity.conventions import Convention
from parity.diagnose import Cause, Finding, residuals, transforms, whole
from parity.diagnose.whole import Explained, Seen
from parity.errors import ParityError, UsageError
from parity.mistakes import Mistake, catalogue, losses, regularizers
from parity.report import Check
from parity.runners import foreign, keras, scratch
from parity.runners import subject as runner
from parity.runners.scratch import Network
from parity.runners.steps import Operation, Settle
from parity.runners.subject import Bound
from parity.spec import Spec
from parity.subjects import Subject
from parity.trace import Place, Trace, Weights, flow

__all__ = ["judge", "network_of"]

NOISE = 32
"""Two correct float32 runs were measured at up to 14 times the reference's own distance from float64 (bias gradients of
60,000 rows); up to about twice that is rounding."""


Misbehaved = tuple[Row, Finding]


def network_of(spec: Spec) -> tuple[Network, bool]:
    """The network of a spec, and whether scratchnet has all its layers; if not, it is Keras that describes it."""
    try:
        return Network.of(spec), True
    except UsageError as error:
        try:
            return keras.described(spec), False
        except UsageError:
            raise error from None


@dataclass(frozen=True)
class _Run:
    """One run of the user's code in Keras's terms: its tensors, what they are called there, and what it wrote to."""

    trace: Trace
    own: Mapping[str, str]
    changed: tuple[str, ...]


@dataclass(frozen=True)
class _Evidence:
    """What one comparison showed. run: of the user's code; replay: the network in NumPy, None where it is not known."""

    run: _Run
    seen: Seen
    conventional: list[Convention]
    rows: list[Row]
    replay: Callable[[Settle], None] | None

    @property
    def right(self) -> bool:
        return all(row.passed for row in self.rows)


@dataclass(frozen=True)
class _Case:
    """The network that a subject is compared with, in the dtype that the samples are handed over in."""

    spec: Spec
    subject: Subject
    network: Network
    in_numpy: bool
    modes: Sequence[str]
    bound: Bound | None = None

    @property
    def wide(self) -> Spec:
        return self.spec.with_dtype("float64")

    @property
    def places(self) -> list[Place]:
        return list(flow(self.network.layers, self.spec.loss_name))

    def references(self, weights: Weights, x: np.ndarray, y: np.ndarray) -> dict[str, Trace]:
        exact = {name: array.astype(np.float64) for name, array in weights.items()}
        return {mode: keras.run(self.wide, exact, x, y, mode) for mode in self.modes}

    def evidence(self, weights: Weights, x: np.ndarray, y: np.ndarray, references: Mapping[str, Trace]) -> _Evidence:
        """Run the user's code, and compare each of its tensors with Keras's."""
        assert self.bound is not None
        exact = {name: array.astype(np.float64) for name, array in weights.items()}
        reference = references[self.modes[0]]
        run = _Run(*self.bound.run(weights, x, y))
        replay = _replay(self.wide, exact, x, y, self.in_numpy)
        allowed = _allowed(run.trace, self.spec, weights, x, y, reference, self.places)
        for more in (_rounded(replay) if replay is not None else {}, _stepped(self.subject, weights)):
            allowed = {name: limit + more.get(name, 0.0) for name, limit in allowed.items()}
        sizes = {"batch": len(x), **_outputs(self.network)}
        seen = Seen(_compared(run.trace), reference.tensors, allowed, run.own, sizes)
        conventional = conventions.found(seen, _loss_operation(replay))
        rows = _worst(self.places, seen, references, conventional)
        rows += [row for row in _missing(self.places, seen, reference) if not self.bound.gives_none(row.tensor)]
        return _Evidence(run, seen, conventional, rows, replay)


def judge(spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, subject: Subject, modes: Sequence[str]) -> Check:
    """The verdict on a subject. spec: in the dtype that the samples are handed over in."""
    network, in_numpy = network_of(spec)
    weights = {name: array.astype(spec.dtype) for name, array in weights.items()}
    x = x if network.indices else x.astype(spec.dtype)
    case = _Case(spec, subject, network, in_numpy, modes)
    references = case.references(weights, x, y)
    reference = references[modes[0]]
    bound = runner.bind(subject, network.layers, _held(subject, weights, network), x, y, reference)
    case = replace(case, bound=bound)
    evidence = case.evidence(weights, x, y, references)
    behaviour = [*_behaviour(bound, weights, x, y, evidence.run), *_elsewhere(case, weights, x, y, evidence)]
    rows = [*evidence.rows, *(row for row, _ in behaviour)]
    # Where the code misbehaves, that is the cause; what it computes then need not be one mistake.
    findings = _findings(evidence.seen, rows, None if behaviour else evidence.replay, evidence.conventional)
    check = Check(
        network=spec.name,
        loss=spec.loss_name,
        dtype=spec.dtype,
        modes=tuple(modes),
        rows=tuple(rows),
        skipped=_skipped(case.places, evidence.run.trace, reference),
        powerless=power.powerless(rows, reference),
        blind=tuple(power.blind_spots(spec.config["layers"], weights, reference, rows, spec.dtype, False)),
        findings=tuple([*(finding for _, finding in behaviour), *findings]),
        conventions=tuple(convention.text for convention in evidence.conventional),
        notes=tuple(_notes(bound, evidence.run, weights, x, y, spec)),
        subject=subject.name,
    )
    return _with_facts(check, case, evidence, weights, x, y, reference)


def _with_facts(
    check: Check, case: _Case, evidence: _Evidence, weights: Weights, x: np.ndarray, y: np.ndarray, reference: Trace
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


def _replay(
    spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, in_numpy: bool
) -> Callable[[Settle], None] | None:
    """The network operation by operation, with Keras itself in place of the layers that scratchnet does not have; None
    where it lacks the loss."""
    try:
        return scratch.repeated(spec, weights, x, y, None if in_numpy else foreign.layers_of(spec.config))
    except UsageError:
        if in_numpy:
            raise
        return None


def _held(subject: Subject, weights: Weights, network: Network) -> Weights:
    """The weights that the subject's parameters hold: all, or those without moving averages and the like."""
    trainable = {f"{layer.name}/{name}" for layer in network.layers for name in layer.weights}
    sizes = sum(int(np.prod(shape)) for shape in subject.parameters.shapes.values())
    if sizes == sum(array.size for array in weights.values()):
        return weights
    return {name: array for name, array in weights.items() if name in trainable}


def _outputs(network: Network) -> dict[str, int]:
    return {"outputs": network.output_shape[-1]} if network.output_shape else {}


def _compared(subject: Trace) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in subject.tensors.items() if name != trace.INPUT}


def _loss_operation(replay: Callable[..., None] | None) -> Operation | None:
    """The operation that computes the loss, in NumPy and in float64."""
    found: list[Operation] = []

    def look(operation: Operation) -> Mapping[str, Any]:
        if operation.family == "loss" and operation.direction == "forward":
            found.append(operation)
        return {}

    if replay is not None:
        replay(look)
    return found[0] if found else None


# -- how far apart -----------------------------------------------------------------------------------------------------


def _narrow(subject: Trace) -> bool:
    """Whether the code computes in float32, whatever it is given."""
    kinds = {
        np.asarray(array).dtype for name, array in subject.tensors.items() if name not in (trace.INPUT, trace.LOSS)
    }
    return any(kind.kind == "f" and kind.itemsize < 8 for kind in kinds)


def _allowed(
    subject: Trace, spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, reference: Trace, places: list[Place]
) -> dict[str, Any]:
    """How far each tensor may be from Keras's in float64."""
    gate = compare.gate(reference, places)
    if spec.dtype == "float64" and not _narrow(subject):
        return gate
    narrow = spec.with_dtype("float32")
    rounded = keras.run(narrow, {n: w.astype(np.float32) for n, w in weights.items()}, x.astype(np.float32), y)
    return {
        name: max(gate[name], NOISE * oracle.spread(rounded[name], reference[name])) for name in gate if name in rounded
    }


def _stepped(subject: Subject, weights: Weights) -> dict[str, np.ndarray]:
    """How far rounding moves a gradient that is (before - after) / learning rate: each of the two by half a unit."""
    if "step" not in subject.functions or not subject.learning_rate:
        return {}
    unit = 2 * np.finfo(np.float64).eps / abs(subject.learning_rate)
    return {trace.gradient(name): unit * np.abs(array) for name, array in weights.items()}


def _missing(places: list[Place], seen: Seen, reference: Trace) -> list[Row]:
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


def _skipped(places: list[Place], subject: Trace, reference: Trace) -> dict[str, str]:
    """The gradients and outputs of the reference that were not compared, and why."""
    return {
        p.tensor: "your network does not give it"
        for p in places
        if p.tensor in reference and p.tensor not in subject and _final(p.tensor)
    }


def _final(tensor: str) -> bool:
    return tensor == trace.LOSS or not trace.of_samples(tensor)


# -- how the code behaves ----------------------------------------------------------------------------------------------


def _behaviour(bound: Bound, weights: Weights, x: np.ndarray, y: np.ndarray, first: _Run) -> list[Misbehaved]:
    """What is wrong with the code whatever it computes: it writes to what is not its own, does not repeat itself, or
    computes in too few digits."""
    bound.run(weights, x[::-1], y[::-1])  # another batch, which a stale cache would remember
    again = _Run(*bound.run(weights, x, y))
    return [*_writes(first), *_repeats(first, again), *_digits(first)]


Broken = Iterator[Misbehaved]
ALONE, BEFORE = "f(x) depends on x alone", "f(x) depends on the calls before"


def _writes(run: _Run) -> Broken:
    if run.changed:
        names = ", ".join(run.changed)
        text = f"your code changes {names}: work on copies, and compute all gradients before anything is updated"
        yield _broken(names, "changes-its-arguments", text, "arguments are read", "arguments are written to")


def _repeats(first: _Run, again: _Run) -> Broken:
    """Whether the same batch gives the same once more, after another one."""
    before, after = _compared(first.trace), again.trace
    name = next((n for n, a in before.items() if not np.array_equal(a, after[n], equal_nan=True)), None)
    if name is None:
        return
    with np.errstate(all="ignore"):
        ratio = np.nanmedian(np.asarray(after[name]) / before[name])
    why = "something is kept from the batch before (a stale cache), or drawn at random"
    if ratio > 1.5:
        why = "gradients are added up from call to call: set them to zero first"
    called = first.own.get(name, name)
    text = f"{called} is not the same when the same batch comes again after another one: {why}"
    yield _broken(called, "does-not-repeat", text, ALONE, BEFORE)


OTHER = 0.75  # what the weights are multiplied with for the second comparison: representable, and far from the first


def _elsewhere(case: _Case, weights: Weights, x: np.ndarray, y: np.ndarray, first: _Evidence) -> Broken:
    """Code that is right for the first batch must be right for another one, of another size and at other weights:
    otherwise something in it is fixed to the first."""
    if not first.right or case.network.drops:
        return
    other = {name: np.asarray(array * OTHER, array.dtype) for name, array in weights.items()}
    fewer = slice(None, None, -1) if len(x) == 1 else slice(len(x) // 3, None)
    second = _other_batch(case, other, x[fewer], y[fewer])
    if second is None:
        second = _other_batch(case, other, x[::-1], y[::-1])
    wrong = next((row for row in second.rows if not row.passed), None) if second is not None else None
    if wrong is None or second is None:
        return
    called, size = first.run.own.get(wrong.tensor, wrong.tensor), second.seen.sizes["batch"]
    text = f"{called} is right for the first batch and wrong for another one, of {size} samples and at other weights: "
    if wrong.tensor in second.seen.subject and _scaled_by(second, wrong.tensor, size / len(x)):
        text += f"the batch size is fixed at {len(x)} in your code"
        yield _broken(called, "batch-size-fixed", text, "divide by the size of this batch", f"divide by {len(x)}")
    else:
        text += "something is kept from before (an activation, or a copy of a weight)"
        yield _broken(called, "stale-cache", text, ALONE, BEFORE)


def _other_batch(case: _Case, weights: Weights, x: np.ndarray, y: np.ndarray) -> _Evidence | None:
    """The second comparison; None where the code does not run on so many samples."""
    try:
        return replace(case, modes=case.modes[:1]).evidence(weights, x, y, case.references(weights, x, y))
    except ParityError:
        return None


def _scaled_by(evidence: _Evidence, tensor: str, factor: float) -> bool:
    return evidence.seen.equal(tensor, np.asarray(evidence.seen.reference[tensor]) * factor)


def _digits(run: _Run) -> Broken:
    kinds = {run.own.get(name, name): array.dtype for name, array in _compared(run.trace).items()}
    odd = {name: kind for name, kind in kinds.items() if kind.kind != "f" or kind.itemsize < 4}
    if odd:
        said = ", ".join(f"{name} is {kind}" for name, kind in odd.items())
        text = f"{said}: compute in float64 or float32 (integers are cut off, float16 keeps three digits)"
        yield _broken(", ".join(odd), "dtype", text, "float64 or float32", said)


def _broken(name: str, code: str, text: str, right: str, wrong: str) -> tuple[Row, Finding]:
    where = "your code"
    cause = Cause(code, text, right, wrong, 1.0)
    return compare.incomparable(Place(name, where, "forward"), (), text), Finding(name, where, np.inf, cause, "")


def _notes(bound: Bound, run: _Run, weights: Weights, x: np.ndarray, y: np.ndarray, spec: Spec) -> Iterator[str]:
    """What is worth knowing and not wrong: the layout that was found, and the dtypes."""
    yield f"layout: {bound.layout.name}; samples: {bound.form.name}"
    for kernel in bound.layout.channels_first:
        holders = ", ".join(bound.layout.holders(kernel))
        yield (
            f"{holders}: the rows of this Dense kernel fit the order (channels, height, width), Keras has (height, "
            f"width, channels): reorder them when you move {kernel} from one to the other"
        )
    if _narrow(run.trace):
        yield (
            "your code computes in float32 where it is given float64: it was judged by how far rounding moves "
            "TensorFlow's own float32 run; a difference below that cannot be seen"
        )
    elif spec.dtype == "float64" and x.dtype.kind == "f" and bound.subject.by_argument:
        narrow = {name: array.astype(np.float32) for name, array in weights.items()}
        labels = y.astype(np.float32) if y.dtype.kind == "f" else y
        given = _Run(*bound.run(narrow, x.astype(np.float32), labels))
        kinds = {given.own.get(n, n): a.dtype for n, a in _compared(given.trace).items() if n != trace.LOSS}
        wide = [name for name, kind in kinds.items() if kind == np.float64]
        if wide:
            yield (
                f"given float32, your code returns float64 for {', '.join(wide)}: some array or constant in it is "
                "float64"
            )


# -- what is wrong -----------------------------------------------------------------------------------------------------


def _findings(
    seen: Seen,
    rows: Sequence[Row],
    replay: Callable[..., None] | None,
    conventional: Sequence[Convention],
) -> list[Finding]:
    """A finding for each wrong tensor, with the cause that explains it."""
    scale = {tensor: factor for c in conventional for tensor, factor in c.scale.items()}
    plain = {n: np.asarray(a / scale[n]) if n in scale else a for n, a in seen.subject.items()}
    known = {n: a for n, a in plain.items() if n in seen.allowed}
    seen = replace(seen, subject=known)
    wrong = [row for row in rows if not row.passed and (row.tensor in known or row.tensor in seen.reference)]
    if not wrong:
        return []
    causes = {row.tensor: MISSING for row in wrong if row.tensor not in known}
    causes.update({n: _not_finite(seen, n) for n in known if not _comparable(seen, n)})
    explicable = replace(seen, subject={n: a for n, a in known.items() if n not in causes})
    unexplained = [row.tensor for row in wrong if row.tensor not in causes]
    explained = Explained({}, False)
    if replay is not None and unexplained:
        explained = _causes(explicable, replay, len(unexplained))
    found = explained.causes
    if not found:  # no mistake explains the run; then each tensor by itself
        alone = {n: transforms.transformed(seen.wrong(n, seen.reference[n])) for n in unexplained}
        found = {n: cause for n, cause in alone.items() if cause is not None}
    return [_finding(seen, row, {**causes, **found}.get(row.tensor), explained.stopped) for row in wrong]


MISSING = Cause(
    "gradient-missing",
    "your code gives no gradient for this weight: return it with the others, under a name such as dW1, or say what it "
    "is called: gradients={'W1': 'my_name'}",
    "one gradient for each weight",
    "none",
    1.0,
)


def _comparable(seen: Seen, tensor: str) -> bool:
    """Whether a tensor has numbers where the reference has; NaN is what every mistake can lead to."""
    subject, right = seen.subject[tensor], np.asarray(seen.reference[tensor])
    return bool(np.all(np.isfinite(subject)) or not np.all(np.isfinite(right)))


def _not_finite(seen: Seen, tensor: str) -> Cause:
    subject = seen.subject[tensor]
    count = f"{np.count_nonzero(~np.isfinite(subject))} of {np.size(subject)} elements of {seen.name(tensor)}"
    outputs = [a for n, a in seen.subject.items() if n.endswith("/output") and np.any(np.isin(a, (0.0, 1.0)))]
    why = "something overflows, or is divided by 0: look at exp, log and /"
    if tensor == trace.LOSS and outputs:
        why = "an output is exactly 0 or 1, and 0 * log(0) is nan: compute the loss from the logits"
    text = f"{count} are not finite, and TensorFlow's are: {why}"
    return Cause("not-finite", text, "finite numbers", "nan or inf", 1.0)


def _finding(seen: Seen, row: Row, cause: Cause | None, stopped: bool) -> Finding:
    tensor, residual = row.tensor, ""
    if cause is None:
        right = np.asarray(seen.reference[tensor])
        residual = residuals.described(tensor, seen.subject[tensor], right, seen.allowed[tensor], seen.sizes["batch"])
        if stopped:
            residual += f" (the search for two mistakes was stopped after {whole.SECONDS:g} s; try fewer samples)"
    name = seen.names.get(tensor)
    return Finding(f"{name} ({tensor})" if name else tensor, row.computed_by, row.budgets, cause, residual)


def _causes(seen: Seen, replay: Callable[[Settle], None], wrong: int) -> Explained:
    """The causes of the errors. Where the logits do not lead to all of them, code that has only its outputs may: it
    goes on from whatever they are."""
    explained = whole.explain(seen, replay)
    if len(explained.causes) < wrong:
        others = whole.explain(seen, _by_outputs(replay))
        return others if len(others.causes) > len(explained.causes) else explained
    return explained


def _by_outputs(replay: Callable[[Settle], None]) -> Callable[[Settle], None]:
    """The run with a cross-entropy of the outputs in place of one of the logits, where the outputs are wrong ones."""
    operation = _loss_operation(replay)
    right = operation["y_pred"] if operation is not None and "logits" in operation else None

    def run(settle: Settle) -> None:
        def through(operation: Operation) -> Mapping[str, Any]:
            if operation.family == "loss" and right is not None and not np.array_equal(operation["y_pred"], right):
                outputs = {**operation.outputs, **losses.of_outputs(operation)}
                operation = replace(operation, outputs=outputs)
            return settle(operation)

        replay(through)

    return run


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
