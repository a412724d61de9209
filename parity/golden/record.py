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
from parity.golden import file
from parity.golden import training as training_steps
from parity.golden.form import Golden, Recording, Run, Tensor, point
from parity.inputs import Inputs, whole_number
from parity.own.behaviour import other_batches
from parity.pipeline import BATCH, Problem, judged, problems
from parity.report import Check, Report
from parity.reproduce import MODES
from parity.runners import keras
from parity.runners.scratch import Network
from parity.sketch import Sketch
from parity.spec import Spec
from parity.subjects import Subject
from parity.trace import INPUT, Trace, Weights, of_samples

__all__ = ["Recorded", "record"]


@dataclass(frozen=True)
class Recorded:
    """What `record` did. report: of the live check; paths: the files that were written, none if it did not pass."""

    report: Report
    paths: tuple[Path, ...]

    @property
    def exit_status(self) -> int:
        return self.report.exit_status

    @property
    def sentence(self) -> str:
        if not self.paths:
            return f"Nothing was recorded, because the check did not pass. {self.report.sentence}"
        size = sum(path.stat().st_size for path in self.paths)
        where = str(self.paths[0]) if len(self.paths) == 1 else f"{len(self.paths)} files in {self.paths[0].parent}"
        return f"Recorded {where}, {size / 1024:,.0f} KiB. {self.report.sentence}"


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
    for resolved in known:
        (problem,) = problems([resolved], inputs, modes, training, only_scratchnet=False)
        kept = _Keeping()
        at = Problem(problem.spec, problem.designed, problem.designed, problem.x, problem.y)
        mine = list(_live(at, kept, subject, modes, progress))
        first = training_steps.recorded(at.spec, at.weights, at.x, at.y, steps)
        if first:
            mine.append(training_steps.judged(at.spec, at.weights, at.x, at.y, first))
        checks += mine
        if all(check.passed for check in checks):
            progress(f"recording {at.spec.name}, {at.spec.loss_name}")
            designed = resolved.weights is None
            recordings.append(_recording(at, designed, kept, inputs.source, mine, modes, first, above))
    conditions = environment.of_both_sides()
    report = Report(tuple(checks), inputs.source, inputs.batch, seed, _command(model, path), conditions)
    if not report.passed:
        return Recorded(report, ())
    return Recorded(report, tuple(_written(Path(path), recordings, conditions)))


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
    return Recording(
        spec=spec,
        weights={
            name: point({name: array}, x, y) if designed and above is not None and array.size > above else array
            for name, array in problem.designed.items()
        },
        x=x,
        y=y,
        source=source,
        modes=tuple(modes),
        runs=tuple(
            Run(*key, {n: _kept(n, np.asarray(a), spec.seed, above) for n, a in trace.tensors.items() if n != INPUT})
            for key, trace in kept.traces.items()
        ),
        used={check.dtype: {row.tensor: row.budgets for row in check.rows} for check in checks},
        described=None if in_scratchnet else network,
        steps=tuple(steps),
    )


def _run_all(problem: Problem, kept: _Keeping, drops: bool, modes: Sequence[str]) -> None:
    """Every run that the judges may ask for: in both dtypes and each mode, and what a second comparison of somebody's
    own network needs."""
    spec, weights, x, y = problem.spec, problem.designed, problem.x, problem.y
    points = [(weights, x, y, tuple(modes))]
    if not drops:
        points += [(*other, ("eager",)) for other in other_batches(weights, x, y)]
    for at, samples, labels, in_modes in points:
        for dtype in ("float64", "float32"):
            typed = {name: array.astype(dtype) for name, array in at.items()}
            for mode in in_modes:
                kept.run(spec.with_dtype(dtype), typed, samples, labels, mode)


def _kept(name: str, array: np.ndarray, seed: int, above: int | None) -> Tensor:
    """The tensor, or its sketch. In float32 each operation is judged on the tensors that go into it, so only what goes
    into no other can be a sketch."""
    ends = name.endswith(".updated") or (name.endswith(".gradient") and not of_samples(name))
    if above is None or array.size <= above or not (ends or array.dtype == np.float64):
        return array
    return Sketch.of(array, seed)


def _written(path: Path, recordings: Sequence[Recording], conditions: Mapping[str, Any]) -> Iterator[Path]:
    """All in one file, or each in its own in a folder."""
    if str(path).lower().endswith(file.ENDING):
        file.write(path, Golden(tuple(recordings), conditions))
        yield path
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{path}: cannot be made: {error.strerror}; give a file *{file.ENDING}, or a folder") from error
    for name, recording in zip(_names(recordings), recordings, strict=True):
        file.write(path / name, Golden((recording,), conditions))
        yield path / name


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
