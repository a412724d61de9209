"""Record: check scratchnet against Keras as it runs now, and keep everything that Keras computed."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from parity import environment, models, own
from parity.errors import FileError, NothingConcluded, UsageError
from parity.golden import file, replay
from parity.golden import training as training_steps
from parity.golden.form import Golden, Recording, Run, Tensor, point
from parity.golden.posed import posed, required
from parity.inputs import Inputs, whole_number
from parity.pipeline import BATCH, Problem, judged, problems
from parity.report import Check, Report
from parity.reproduce import MODES
from parity.runners import keras
from parity.runners.scratch import Network
from parity.sketch import Sketch
from parity.spec import Spec
from parity.subjects import Subject, require_subject
from parity.trace import INPUT, Trace, Weights, gradient, of_samples

__all__ = ["Recorded", "record", "run_of"]


@dataclass(frozen=True)
class Recorded:
    """What `record` did. report: of the live check; paths: the files that were written: in a folder, of the networks
    that passed; else none if one did not. refused: networks that this Keras cannot run, and why; in a folder only."""

    report: Report
    paths: tuple[Path, ...]
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def exit_status(self) -> int:
        return self.report.exit_status or (NothingConcluded.exit_status if self.refused else 0)

    @property
    def sentence(self) -> str:
        if not self.paths:
            return f"Nothing was recorded, because the check did not pass. {self.report.sentence}"
        size = sum(path.stat().st_size for path in self.paths)
        where = str(self.paths[0]) if len(self.paths) == 1 else f"{len(self.paths)} files in {self.paths[0].parent}"
        without = dict.fromkeys(check.network for check in self.report.checks if not check.passed)
        left_out = f" Not recorded, because their check did not pass: {', '.join(without)}." if without else ""
        refused = "".join(f" Not recorded: {reason}." for reason in self.refused.values())
        return f"Recorded {where}, {size / 1024:,.0f} KiB.{left_out}{refused} {self.report.sentence}"


def record(
    model: Any,
    path: str | Path,
    subject: Subject | None = None,
    x: np.ndarray | None = None,
    y: np.ndarray | None = None,
    *,
    loss: Any = None,
    data: str | Path | None = None,
    batch: int | None = None,
    seed: int = 0,
    modes: Sequence[str] = MODES,
    training: bool = True,
    steps: int = 0,
    sketch_above: int | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> Recorded:
    """Check a network against Keras, and if it passes, keep what Keras computed, to be replayed without TensorFlow.

    model, x, y, loss, data, batch, seed, modes, training: as in `parity.check`. path: a `.safetensors` file, or a
    folder that gets one for each network and loss. subject: your own network, which has to pass, too; a golden is good
    for any subject, also without it. steps: of training that are recorded as well. sketch_above: a tensor of more
    elements is kept as a sketch (`parity.sketch`), and designed weights as their seed; None for all as they are.

    Weights that are constant, such as zero biases, are moved off it, because a mistake would hide behind them.
    UsageError for what cannot be recorded, FileError where the file cannot be written.
    """
    if model is None:
        raise UsageError("model: expected the network to record; received None")
    require_subject(subject)
    steps, above = (
        whole_number("steps", steps, 0),
        None if sketch_above is None else whole_number("sketch_above", sketch_above, 1),
    )
    seed = whole_number("seed", seed, 0)
    loss = models.as_data(loss)
    inputs = Inputs(x, y, data, whole_number("batch", batch or BATCH, 1), seed)
    known = models.resolve(model, loss, seed)
    checks: list[Check] = []
    recordings = []
    refused: dict[str, UsageError] = {}
    for resolved in known:
        try:
            mine, recording = _one(resolved, inputs, subject, modes, training, steps, above, progress)
        except UsageError as error:
            if _in_one_file(path) or len(known) == 1:
                raise
            refused[resolved.spec.name] = error
            continue
        checks += mine
        recordings += [recording] if recording is not None else []
    if not checks:
        raise next(iter(refused.values()))
    conditions = environment.of_both_sides()
    report = Report(tuple(checks), inputs.source, inputs.batch, seed, _command(model, path), conditions)
    if not recordings or (_in_one_file(path) and not report.passed):
        return Recorded(report, ())
    written = tuple(_written(Path(path), recordings, conditions))
    return Recorded(report, written, {name: str(error) for name, error in refused.items()})


def _one(
    resolved: models.Resolved,
    inputs: Inputs,
    subject: Subject | None,
    modes: Sequence[str],
    training: bool,
    steps: int,
    sketch_above: int | None,
    progress: Callable[[str], None],
) -> tuple[list[Check], Recording | None]:
    """The live checks of one network, and its recording if they pass."""
    (problem,) = problems([resolved], inputs, modes, training, only_scratchnet=False)
    kept = _Keeping()
    y_true = problem.y.astype(np.uint8) if problem.y.dtype == bool else problem.y  # files of arrays have no truths
    designed = resolved.weights is None
    weights = problem.weights if designed else problem.designed
    at = Problem(problem.spec, weights, weights, problem.x, y_true)
    checks = list(_live(at, kept, subject, modes, progress))
    first = training_steps.recorded(at.spec, at.weights, at.x, at.y, steps)
    if first:
        checks.append(training_steps.judged(at.spec, at.weights, at.x, at.y, first))
    if not all(check.passed for check in checks):
        return checks, None
    progress(f"recording {at.spec.name}, {at.spec.loss_name}")
    recording = _recording(at, designed, kept, inputs.source, checks, modes, first, sketch_above)
    _require_replayable(recording)
    return checks, recording


@dataclass
class _Keeping:
    """Keras, and every run that was asked for."""

    traces: dict[tuple[str, str, str], Trace] = field(default_factory=dict)

    def run(self, spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, mode: str = "eager") -> Trace:
        key = (point(weights, x, y), spec.dtype, mode)
        if key not in self.traces:
            self.traces[key] = keras.run(spec, weights, x, y, mode)
        return self.traces[key]

    def described(self, spec: Spec) -> Network:
        return keras.described(spec)


def _live(
    problem: Problem, kept: _Keeping, subject: Subject | None, modes: Sequence[str], progress: Callable[[str], None]
) -> Iterator[Check]:
    """The check that has to pass: of scratchnet where it has all layers, and of the subject."""
    _, in_scratchnet = own.network_of(problem.spec, kept)
    if in_scratchnet:
        yield from judged(problem, None, "both", modes, kept, progress)
    elif subject is None:
        raise NothingConcluded(
            f"{problem.spec.name}: has layers that scratchnet does not have, so there is nothing to check Keras with "
            "before it is recorded; give your own network: --subject FILE.py:FUNCTION, or subject=..."
        )
    if subject is not None:
        yield from judged(problem, subject, "both", modes, kept, progress)


def _recording(
    problem: Problem,
    designed: bool,
    kept: _Keeping,
    source: str,
    checks: Sequence[Check],
    modes: Sequence[str],
    steps: training_steps.Steps,
    sketch_above: int | None,
) -> Recording:
    spec, x, y = problem.spec, problem.x, problem.y
    network, in_scratchnet = own.network_of(spec, kept)
    _run_all(problem, kept, network.drops, modes)
    above = sketch_above if in_scratchnet else None  # what was sketched is computed again by scratchnet
    here = point(problem.designed, x, y)
    return Recording(
        spec=spec,
        weights={
            name: point({name: array}, x, y) if designed and _is_sketched(name, array, above, kept) else array
            for name, array in problem.designed.items()
        },
        x=x,
        y=y,
        source=source,
        modes=tuple(modes),
        runs=tuple(run_of(key, trace, spec, above, key[0] == here) for key, trace in kept.traces.items()),
        used={check.dtype: {row.tensor: row.budgets for row in check.rows} for check in checks},
        described=None if in_scratchnet else network,
        steps=tuple(steps),
    )


def _require_replayable(recording: Recording) -> None:
    """NothingConcluded for what would not pass here and now: where rounding decides a kink, a sketch of what follows
    does not say so."""
    problem = posed(recording)
    if recording.sketched:
        replayed = judged(problem, None, "both", recording.modes, replay.Recorded(recording), lambda message: None)
        wrong = next((check.first_wrong for check in replayed if check.first_wrong), None)
        if wrong is not None:
            raise NothingConcluded(
                f"{recording.name}: the sketch of {wrong.tensor} cannot be replayed, while the check of Keras itself "
                "passes; record it without --sketch-above"
            )


def _run_all(problem: Problem, kept: _Keeping, drops: bool, modes: Sequence[str]) -> None:
    """Every run that the judges may ask for."""
    for weights, x, y, dtype, mode in required(problem.designed, problem.x, problem.y, tuple(modes), drops):
        typed = {name: array.astype(dtype) for name, array in weights.items()}
        kept.run(problem.spec.with_dtype(dtype), typed, x, y, mode)


def _is_sketched(name: str, weight: np.ndarray, above: int | None, kept: _Keeping) -> bool:
    """Whether a weight can be left to its seed: a large one whose gradient is there, so that a file is never much
    smaller than what it stands for."""
    return above is not None and weight.size > above and all(gradient(name) in run for run in kept.traces.values())


def run_of(key: tuple[str, str, str], trace: Trace, spec: Spec, above: int | None, here: bool) -> Run:
    """A run with its large tensors as sketches.

    In float32 each operation is judged on the tensors that go into it, so there what lies between layers is kept, and
    an update is left out whose gradient is a sketch; float64 has it. here: whether it is at the weights and samples of
    the recording; elsewhere only whole runs are compared.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in trace.tensors.items():
        array = np.asarray(tensor)
        by_operation = here and array.dtype == np.float32
        source = gradient(name.removesuffix(".updated")) if name.endswith(".updated") else ""
        if name == INPUT or (by_operation and isinstance(tensors.get(source), Sketch)):
            continue
        large = above is not None and array.size > above
        tensors[name] = Sketch.of(array, spec.seed) if large and not (by_operation and of_samples(name)) else array
    return Run(*key, tensors)


def _written(path: Path, recordings: Sequence[Recording], conditions: Mapping[str, Any]) -> Iterator[Path]:
    """All in one file, or each in its own in a folder."""
    folder = path.parent if _in_one_file(path) else path
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"{folder}: cannot be made: {error.strerror}; give a file *{file.ENDING}, or a folder"
        ) from error
    if _in_one_file(path):
        file.write(path, Golden(tuple(recordings), conditions))
        yield path
        return
    for name, recording in zip(_names(recordings), recordings, strict=True):
        file.write(path / name, Golden((recording,), conditions))
        yield path / name


def _in_one_file(path: str | Path) -> bool:
    return str(path).lower().endswith(file.ENDING)


def _names(recordings: Sequence[Recording]) -> list[str]:
    """After network and loss, in letters that every file system takes; numbered where that is not enough."""
    names: dict[str, None] = {}
    for recording in recordings:
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", recording.name).strip("-.") or "network"
        numbered = (f"{stem}-{number}" for number in itertools.count(2))
        names[next(name for name in itertools.chain([stem], numbered) if name not in names)] = None
    return [f"{name}{file.ENDING}" for name in names]


def _command(model: Any, path: str | Path) -> str:
    if isinstance(model, str | Path):
        return shlex.join(["parity", "record", str(model), str(path)])
    return "parity.record(model, path)  # in Python"
