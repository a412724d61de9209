"""A port with its proof: the weights are moved, read back, and run by everybody who is installed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from parity import compare, models, pipeline
from parity.compare import Row
from parity.errors import NothingConcluded, ParityError
from parity.inputs import representable
from parity.runners import keras, live_torch, scratch
from parity.spec import DTYPES, Spec
from parity.trace import INPUT, LOSS, Trace, Weights, flow
from parity.weights import expectation, verification
from parity.weights import port as ports
from parity.weights.expectation import Unrunnable
from parity.weights.port import Ported, PortReport
from parity.weights.proof import Proof, differing, read_back, recorded
from parity.weights.record import KEY, Record, fitted
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
        proved = _proved(ported, record, found, text)
        if not proved.passed:
            warnings.warn(FAILED.format(proved.sentences[0], ported.target.name), RuntimeWarning, stacklevel=2)
        report = replace(report, proof=proved)
    return report


def _proved(ported: Ported, record: Record, found: Trace | None, text: str | None) -> Proof:
    """What the target holds now, and what the network computes with that."""
    archive = read_back(ported)
    wrong = differing(record, archive)
    count = f"{len(record.tensors)} array" + "s" * (len(record.tensors) != 1)
    said = [f"not what was meant: {', '.join(wrong)}" if wrong else f"{count} read back, bit for bit"]
    runs: list[Run] = []
    if record.network is None or found is None:
        said.append(f"the network was not run: {record.why}")
    elif not wrong:
        weights = expectation.restored(ported.skeleton, archive.arrays, record.network)
        by_all, notes = verification.compared(record, archive)
        steps, not_done = _steps(record, weights)
        runs = [*by_all, *steps]
        said += [run.sentence for run in runs] + [*notes, *not_done]
        if blind := expectation.unseen(found, weights):
            said.append(f"{blind} weights have no effect on the designed probe: only their bits were compared")
        said += _in_torch(ported, record, found)
    if ported.target.path is not None:
        said.append("the file carries its parity record" if text else "no parity record: it would be too long")
    passed = not wrong and all(row.passed for run in runs for row in run.rows)
    return Proof(passed, tuple(said), {run.runner: run.worst.budgets for run in runs})


def _in_torch(ported: Ported, record: Record, found: Trace) -> list[str]:
    """Whether a live PyTorch target computes the same outputs. A sentence and no verdict: with the same weights it may
    well be meant to end in logits, or to have another epsilon."""
    live = ported.target.live
    if live is None or live.naming != "torch" or record.network is None:
        return []
    spec = expectation.spec_of(record.network)
    places = [place for place in flow(scratch.Network.of(spec).layers, spec.loss_name) if place.stage == "forward"]
    expected = [place for place in places if place.tensor != LOSS][-1]
    try:
        computed = live_torch.outputs(live.owner, found[INPUT])
    except (RuntimeError, TypeError, ValueError, IndexError) as error:  # whatever its layers say of these samples
        return [f"PyTorch: the model does not take the designed probe: {str(error).splitlines()[0]}"]
    row = compare.judge(expected, computed, found[expected.tensor], compare.gate(found, places)[expected.tensor])
    if row.passed:
        return [f"PyTorch: the outputs of the model are within budget, the worst uses {row.budgets:.2g} of it"]
    how = row.note or f"by up to {row.largest_absolute:.2g}"
    return [
        f"PyTorch: the weights arrived, and the outputs of the model differ {how}: something that is no weight does, "
        "such as an activation, a softmax at the end or an epsilon"
    ]


def _steps(record: Record, weights: Weights) -> tuple[list[Run], list[str]]:
    """One training step of scratchnet and of Keras, layer by layer, with the budgets of a check; or why not."""
    assert record.network is not None
    assert record.expected is not None
    network = record.network
    runs: list[Run] = []
    for dtype in DTYPES:
        spec = replace(expectation.spec_of(network), training=True, optimizer="sgd").with_dtype(dtype)
        name = f"one training step in Keras and scratchnet, {dtype}"
        try:
            runs.append(Run(name, tuple(_step(spec, weights, record.expected.seed))))
        except (NothingConcluded, scratch.Broken, Unrunnable) as error:
            return runs, [f"no training step was compared: {error}"]
    return runs, []


def _step(spec: Spec, weights: Weights, seed: int) -> list[Row]:
    """The rows of a check: numbers that float32 has, in both dtypes."""
    x, y = expectation.probed(spec, seed)
    x = representable(x)
    places = list(flow(scratch.Network.of(spec).layers, spec.loss_name, spec.optimizer_name))
    judge = pipeline.judge_whole if spec.dtype == "float64" else pipeline.judge_local
    with np.errstate(all="ignore"):  # what is finite in the reference only is a row out of budget
        typed = {name: representable(w).astype(spec.dtype) for name, w in expectation.wide(weights).items()}
        reference = keras.run(spec, typed, x, y)
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
