"""A port with its proof: the weights are moved, read back, and run by everybody who is installed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from parity import compare, models, pipeline, trace
from parity.compare import Row
from parity.errors import NothingConcluded, ParityError
from parity.inputs import representable
from parity.runners import keras, live_torch, scratch, torch
from parity.spec import DTYPES, Spec
from parity.trace import Place, Trace, Weights, flow
from parity.weights import expectation, networks, state_proof, verification
from parity.weights import port as ports
from parity.weights.expectation import Unrunnable
from parity.weights.port import Ported, PortReport
from parity.weights.proof import Proof, differing, read_back, recorded
from parity.weights.record import KEY, Record, fitted
from parity.weights.skeleton import Skeleton
from parity.weights.stored import Archive
from parity.weights.verification import Run

__all__ = ["port"]

SEED = 0  # of the designed probe
FAILED = "the proof of the port failed: {}; do not use {}"


def port(
    source: Any,
    target: Any,
    *,
    model: Any = None,
    naming: str | None = None,
    layout: str | Callable[..., Any] | None = None,
    map: Mapping[str, str] | None = None,
    probe: tuple[Any, Any] | None = None,
    dtype: str | None = None,
    dry_run: bool = False,
    allow_nonfinite: bool = False,
    proof: bool = True,
) -> PortReport:
    """Move the weights of `source` into `target`; with dry_run, everything but that.

    source, target: a path, a live Keras Sequential, scratchnet network or `torch.nn.Sequential`, or arrays in a dict, a
    list or attributes; a PyTorch model may come with its optimizer, as a pair. model: the network, where neither end
    says what it is: a live one, or a .keras or .json file. naming: keras, torch or flax; layout: a name of
    `parity.weights.layouts.CONVENTIONS` or a function of Keras's weights. Each is of the end that needs it, or
    "SOURCE:TARGET". map: weight or layer of the network -> key or prefix; probe: inputs and the outputs that the source
    has for them, to choose between several ways; dtype: of a file that is written. proof: whether the target is read
    back afterwards and the network run with what it holds; a file carries its parity record in any case.

    `UsageError` for what is ambiguous or cannot be asked for, `FileError` for files that do not hold what they should.
    In both cases the target is as it was. A proof that fails is in the report, and a warning.
    """
    ported, report = ports.ready(
        source,
        target,
        model=model,
        naming=naming,
        layout=layout,
        map=map,
        probe=probe,
        dtype=dtype,
        allow_nonfinite=allow_nonfinite,
    )
    if dry_run:
        return report
    record, found = _recorded(ported, model)
    text = fitted(record)
    ports.written(ported, {KEY: text} if text else {})
    report = replace(report, written=True)
    if proof:
        proved = state_proof.with_state(_proved(ported, report, record, found, text), ported.state)
        if not proved.passed:
            warnings.warn(FAILED.format(proved.sentences[0], ported.target.name), RuntimeWarning, stacklevel=2)
        report = replace(report, proof=proved)
    return report


def _proved(ported: Ported, report: PortReport, record: Record, found: Trace | None, text: str | None) -> Proof:
    """What the target holds now, and what the network computes with that."""
    archive = read_back(ported)
    wrong = differing(record, archive)
    count = f"{len(record.tensors)} array" + "s" * (len(record.tensors) != 1)
    said = [f"not what was meant: {', '.join(wrong)}" if wrong else f"{count} read back, bit for bit"]
    runs: list[Run] = []
    if record.network is None or found is None:
        said.append(f"the network was not run: {record.why or verification.NO_NETWORK}")
        runs, notes = _both_in_torch(ported, report)
        said += [run.sentence for run in runs] + notes
    elif not wrong:
        weights = expectation.restored(ported.skeleton, archive.arrays, record.network)
        runs, notes = _run_by_all(ported, report, record, archive, weights)
        said += [run.sentence for run in runs] + notes
        if blind := expectation.unseen(found, weights):
            said.append(f"{blind} weights have no effect on the designed probe: only their bits were compared")
    if ported.target.path is not None:
        said.append("the file carries its parity record" if text else "no parity record: it would be too long")
    failed = [run.sentence for run in runs if not run.passed]
    sentences = (*failed, *(sentence for sentence in said if sentence not in failed))
    return Proof(not wrong and not failed, sentences, {run.runner: run.worst.budgets for run in runs})


def _run_by_all(
    ported: Ported, report: PortReport, record: Record, archive: Archive, weights: Weights
) -> tuple[list[Run], list[str]]:
    """The network in every framework that is installed, one step of training in each beside scratchnet, and the live
    PyTorch models at the ends; and notes."""
    by_all, notes = verification.compared(record, archive)
    runs, said = list(by_all), list(notes)
    for framework in (run.runner for run in by_all):
        if framework in STEPS:
            steps, not_done = _steps(framework, record, weights)
            runs += steps
            said += not_done
    live, not_live = _live_torch(ported, report, record, weights)
    return [*runs, *live], [*said, *not_live]


def _live_torch(ported: Ported, report: PortReport, record: Record, weights: Weights) -> tuple[list[Run], list[str]]:
    """The live PyTorch models at the ends; a source only if it has the very weights of the target."""
    runs: list[Run] = []
    said: list[str] = []
    for side, live in (("target", ported.target.live), ("source", ported.source.live)):
        if live is None or live.naming != "torch":
            continue
        name = f"the PyTorch model, {side} of the port"
        if side == "source" and any(each.changed for each in report.conversions.values()):
            said.append(f"{name}: not run, since weights were rounded on their way")
            continue
        ends = {step.weight: step.targets if side == "target" else step.sources for step in ported.plan.steps}
        keys = {weight: arrays[0].key for weight, arrays in ends.items()}
        hooks = live_torch.hooked(live.owner)
        if hooked := [weight for weight, key in keys.items() if key in hooks]:
            runs.append(Run(name, tuple(_incomparable(trace.gradient(weight), HOOK) for weight in hooked)))
            continue
        if one := _shared(live.owner, keys):
            said.append(f"{name}: not run: {' and '.join(one)} are one tensor there, which a step changes as one")
            continue
        try:
            rows, note = _of_itself(live.owner, keys, ported.skeleton, record, weights)
        except NothingConcluded as error:
            said.append(f"{name}: not run: {error}")
            continue
        except (RuntimeError, TypeError, ValueError, IndexError) as error:  # whatever its layers say of these samples
            _untaken(name, live.owner, error, runs, said)
            continue
        runs.append(Run(name, tuple(rows)))
        said += [f"{name}: {note}"] * bool(note)
        said += [f"{name}: {NO_WEIGHT}"] * (not runs[-1].passed)
    return runs, said


HOOK = "its parameter has a hook, which makes of the gradient whatever it wants; remove it, port, and put it back"


def _incomparable(tensor: str, why: str) -> Row:
    return compare.incomparable(Place(tensor, "the PyTorch model", "forward"), (), why)


def _untaken(name: str, model: Any, error: Exception, runs: list[Run], said: list[str]) -> None:
    """What it means that a model does not take the samples of its network: that it is another network, unless it has
    modules that may want them in another form."""
    why = f"does not take the designed probe: {(str(error).splitlines() or [type(error).__name__])[0]}"
    if strange := live_torch.strange(model):
        said.append(f"{name}: not run, it {why}; what {', '.join(strange)} takes is not known")
    else:
        runs.append(Run(name, (_incomparable("outputs", why),)))


def _both_in_torch(ported: Ported, report: PortReport) -> tuple[list[Run], list[str]]:
    """The outputs of two live PyTorch models for one designed probe, where no config says what network they are; and
    notes. Nothing where not both ends are such models."""
    ends = ported.source.live, ported.target.live
    if not all(live is not None and live.naming == "torch" for live in ends):
        return [], []
    source, target = (live.owner for live in ends if live is not None)
    name, runs, said = "the two PyTorch models on one designed probe, float64", list[Run](), list[str]()
    if any(each.changed for each in report.conversions.values()):
        return [], [f"{name}: not run, since weights were rounded on their way"]
    try:
        x = live_torch.samples_for(source, SEED)
        ends_in = live_torch.end_of(source), live_torch.end_of(target)
        logits = ends_in[0] != ends_in[1] and ("" in ends_in or "Sigmoid" not in ends_in)
        expected = live_torch.outputs(source, x, logits)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        return [], [f"{name}: nothing was run, only the bits were compared: {why}"]
    try:
        computed = live_torch.outputs(target, x, logits)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        _untaken(name, target, error, runs, said)
        return runs, said
    place = Place("outputs", "the PyTorch model", "forward")
    if not np.all(np.isfinite(expected)):
        return [], [f"{name}: nothing was compared: the outputs of the source are not finite"]
    allowed = compare.gate(Trace({place.tensor: expected}), [place])[place.tensor]
    runs.append(Run(name, (compare.judge(place, computed, expected, allowed),)))
    said += [f"{name}: {NO_WEIGHT}"] * (not runs[0].passed)
    if logits:
        said.append(
            f"{name}: {' and '.join(end or 'nothing' for end in ends_in)} behind the logits, which were compared"
        )
    if hooked := [*live_torch.hooked(source), *live_torch.hooked(target)]:
        said.append(f"{name}: hooks on the gradients of {', '.join(dict.fromkeys(hooked))} were not run")
    return runs, said


def _shared(model: Any, keys: Mapping[str, str]) -> list[str]:
    """The first keys of a PyTorch model that are one tensor, which the network has apart: with a gradient for each."""
    tensors = model.state_dict(keep_vars=True)
    by_tensor: dict[int, list[str]] = {}
    for key in keys.values():
        by_tensor.setdefault(id(tensors[key]), []).append(key)
    return next((each for each in by_tensor.values() if len(each) > 1), [])


NO_WEIGHT = "its weights are right; what differs is no weight, such as an activation or an epsilon"


def _of_itself(
    model: Any, keys: Mapping[str, str], skeleton: Skeleton, record: Record, weights: Weights
) -> tuple[list[Row], str]:
    """What a live PyTorch model computes, against the network rebuilt in PyTorch, which was compared with the others;
    and a note on how the model ends. Constants are as PyTorch holds them, on both sides."""
    assert record.network is not None
    assert record.expected is not None
    spec = expectation.spec_of(record.network)
    x, y = expectation.probed(spec, record.expected.seed)
    reference = torch.run(spec, expectation.wide(weights), x, y, held=float)
    computed, note = live_torch.run(model, spec, skeleton, keys, x, y)
    places = list(flow(networks.described(spec).layers, spec.loss_name, spec.optimizer_name))
    return compare.compare_whole(computed, reference, places), note


STEPS = {"Keras": (keras, True), "PyTorch": (torch, False)}
"""Framework -> its runner, and whether layers run as in training, where both must drop the same cells."""


def _steps(framework: str, record: Record, weights: Weights) -> tuple[list[Run], list[str]]:
    """One training step of scratchnet and of a framework, layer by layer, with the budgets of a check; or why not."""
    assert record.network is not None
    assert record.expected is not None
    runs: list[Run] = []
    runner, training = STEPS[framework]
    for dtype in DTYPES:
        spec = replace(expectation.spec_of(record.network), training=training).with_dtype(dtype)
        name = f"one {'training ' * training}step in {framework} and scratchnet, {dtype}"
        try:
            if why := networks.lacking(spec):
                raise NothingConcluded(why)
            runs.append(Run(name, tuple(_step(runner, spec, weights, record.expected.seed))))
        except (NothingConcluded, scratch.Broken, Unrunnable) as error:
            return runs, [f"no step of {framework} and scratchnet was compared: {error}"]
    return runs, []


def _step(runner: Any, spec: Spec, weights: Weights, seed: int) -> list[Row]:
    """The rows of a check: numbers that float32 has, in both dtypes."""
    x, y = expectation.probed(spec, seed)
    x = representable(x)
    places = list(flow(scratch.Network.of(spec).layers, spec.loss_name, spec.optimizer_name))
    judge = pipeline.judge_whole if spec.dtype == "float64" else pipeline.judge_local
    with np.errstate(all="ignore"):  # what is finite in the reference only is a row out of budget
        typed = {name: representable(w).astype(spec.dtype) for name, w in expectation.wide(weights).items()}
        reference = runner.run(spec, typed, x, y)
        expectation.require_finite(reference)
        return judge(spec, typed, x, y, reference, places)


def _recorded(ported: Ported, model: Any) -> tuple[Record, Trace | None]:
    """With the loss that one of the models is compiled with, or else the mean squared error, which every output has."""
    record: Record | None = None
    found: Trace | None = None
    for loss in (_loss(ported, model), "mean_squared_error"):
        if loss is not None and (record is None or record.network is None):
            record, found = recorded(ported, loss, SEED)
    assert record is not None
    return record, found


def _loss(ported: Ported, model: Any) -> Any:
    """The first that says one: the target, the source, the model. Files are looked at where the network will be run."""
    known = [thing for thing in (ported.target.owner, ported.source.owner, model) if hasattr(thing, "layers")]
    if sum(weight.size for weight in ported.weights.values()) <= expectation.MOST_WEIGHTS:
        paths = (ported.target.path, ported.source.side.archive.name, model if isinstance(model, str | Path) else None)
        known += [path for path in paths if path is not None and Path(path).suffix.lower() in (".keras", ".json")]
    for each in known:
        try:
            loss = models.resolve(each, None, SEED)[0].spec.loss
        except ParityError:  # a loss or a layer of the user's, or of PyTorch's
            continue
        if loss is not None:
            return loss
    return None
