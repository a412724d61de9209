"""Replay: judge scratchnet or somebody's own network against what was recorded, with no TensorFlow at hand."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from parity import environment, models
from parity.errors import FileError, NothingConcluded, UsageError
from parity.golden import file, training
from parity.golden.form import Golden, Recording, Run, point
from parity.golden.posed import posed
from parity.inputs import Inputs
from parity.pipeline import Problem, judged
from parity.report import RECORDED, Check, Report
from parity.runners import scratch
from parity.runners.scratch import Network
from parity.sketch import Sketch, Vouched
from parity.spec import Spec
from parity.subjects import Subject, require_subject
from parity.trace import INPUT, Trace, Weights
from parity.weights.formats import limits
from scratchnet import losses, optimizers

__all__ = ["Recorded", "differing", "replay"]


def replay(
    path: str | Path | Sequence[str | Path],
    subject: Subject | None = None,
    x: np.ndarray | None = None,
    y: np.ndarray | None = None,
    *,
    model: Any = None,
    loss: Any = None,
    progress: Callable[[str], None] = lambda message: None,
) -> Report:
    """Judge scratchnet, or your own network, against what was recorded, by the same budgets as against Keras live.

    path: a golden, several, or a folder of them. subject: as in `parity.check`. model, loss, x, y: what the goldens
    have to be of, as in `parity.check`; None to take them as they are.
    FileError for a golden that is missing, damaged, edited, of a later version, of another network or other samples.
    """
    require_subject(subject)
    loss = models.as_data(loss)
    checks: list[Check] = []
    recordings: list[Recording] = []
    conditions = []
    files = list(_files(path))
    for each in files:
        golden = _read(each, len(files))
        with limits.blamed(each):
            problems = [_posed(recording) for recording in golden.recordings]
            if model is not None:
                require_model(golden, model, loss)
            for recording in golden.recordings if x is not None or y is not None else ():
                require_samples(recording, x, y)
            for recording, problem in zip(golden.recordings, problems, strict=True):
                progress(f"{each.name}: {recording.name}")
                checks += _judged(recording, problem, subject)
        recordings += golden.recordings
        conditions.append(golden.environment)
    return Report(
        checks=tuple(checks),
        data=", ".join(dict.fromkeys(recording.source for recording in recordings)),
        batch=max(len(recording.x) for recording in recordings),
        seed=recordings[0].spec.seed,
        command=_command(path, subject),
        environment={**environment.of_numpy(), **_together(conditions)},
    )


def _read(path: Path, among: int) -> Golden:
    try:
        return file.read(path)
    except FileError as error:
        all_of_them = f"; nothing was judged; parity goldens --verify {path.parent} names all that cannot be used"
        raise FileError(f"{error}{all_of_them * (among > 1)}") from error


def _together(conditions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The conditions of several recordings, as those of a report: where they differ, all that there are."""
    found: dict[str, Any] = {}
    for key in dict.fromkeys(key for each in conditions for key in each):
        values = list({repr(each.get(key)): each.get(key) for each in conditions}.values())
        found[f"{RECORDED}{key}"] = values[0] if len(values) == 1 else " or ".join(map(str, values))
    return found


def _command(path: str | Path | Sequence[str | Path], subject: Subject | None) -> str:
    paths = [path] if isinstance(path, str | Path) else path
    words = ["parity", "replay", *map(str, paths)]
    return shlex.join([*words, "--subject", subject.source] if subject is not None and subject.source else words)


def _files(path: str | Path | Sequence[str | Path]) -> Iterator[Path]:
    paths = [Path(each) for each in ([path] if isinstance(path, str | Path) else path)]
    if not paths:
        raise UsageError("path: expected a golden or a folder of them; received none")
    for each in paths:
        if each.is_dir():
            found = sorted(each.glob(f"**/*{file.ENDING}"))
            if not found:
                raise FileError(
                    f"{each}: expected goldens in this folder, files named *{file.ENDING}; received none; make them "
                    f"with: {how_to_record('MODEL', each)}"
                )
            yield from found
        elif not each.exists():
            raise FileError(f"{each}: expected a golden, there is none; make it with: {how_to_record('MODEL', each)}")
        else:
            yield each


def how_to_record(model: str, path: str | Path) -> str:
    """The command that makes a golden."""
    return shlex.join(["parity", "record", model, str(path)])


def _posed(recording: Recording) -> Problem:
    with limits.blamed(recording.name):
        return posed(recording)


def _judged(recording: Recording, problem: Problem, subject: Subject | None) -> list[Check]:
    """What is said of scratchnet, or of somebody's own network. What was kept as a sketch is computed again by
    scratchnet, so there it has to be right first."""
    reference = Recorded(recording)
    if subject is None:
        return list(_of_scratchnet(problem, reference))
    if recording.sketched and not all(check.first_wrong is None for check in _of_scratchnet(problem, reference)):
        raise FileError(
            f"{recording.name}: scratchnet does not compute what was recorded, so of what was kept as a sketch nothing "
            "is known; replay it without your own network to see what differs"
        )
    return list(judged(problem, subject, "both", recording.modes, reference, lambda message: None))


def _of_scratchnet(problem: Problem, reference: Recorded) -> Iterator[Check]:
    recording = reference.recording
    if recording.described is not None:
        raise NothingConcluded(
            f"{recording.name} has layers that scratchnet does not have; give the network that is to be judged: "
            "--subject FILE.py:FUNCTION, or subject=..."
        )
    try:
        yield from judged(problem, None, "both", recording.modes, reference, lambda message: None)
        if recording.steps:
            yield training.judged(recording.spec, problem.weights, problem.x, problem.y, recording.steps)
    except UsageError as error:
        raise FileError(f"{recording.name}: cannot be run: {error}") from error


@dataclass(frozen=True, eq=False)
class Recorded:
    """A recording in the place of Keras: a `parity.runners.reference.Reference`."""

    recording: Recording

    def run(self, spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, mode: str = "eager") -> Trace:
        """What was recorded at these weights and samples."""
        key = (point(weights, x, y), spec.dtype, mode)
        run = next((run for run in self.recording.runs if run.key == key), None)
        if run is None:
            raise FileError(
                f"the golden has no run in {spec.dtype}, {mode}, at these weights and samples; record it again"
            )
        return self._whole(run, spec, weights, x, y)

    def described(self, spec: Spec) -> Network:
        if self.recording.described is None:
            raise UsageError(f"{spec.name}: the golden does not describe the network; record it again")
        return self.recording.described

    def _whole(self, run: Run, spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray) -> Trace:
        """Every tensor as an array: of a sketch, the one that scratchnet computes, which the sketch then judges."""
        arrays: dict[str, Any] = {n: t for n, t in run.tensors.items() if not isinstance(t, Sketch)}
        sketches = {n: t for n, t in run.tensors.items() if isinstance(t, Sketch)}
        found = Trace({INPUT: x, **arrays}, {"runner": "golden", "dtype": run.dtype, "mode": run.mode})
        if not sketches:
            return found
        again = scratch.replay(replace(spec, dtype=run.dtype), weights, found, y)
        if unknown := sketches.keys() - again:
            raise FileError(f"expected no sketches of what scratchnet does not compute; received {', '.join(unknown)}")
        whole = {n: arrays[n] if n in arrays else Vouched.by(sketches[n], again[n]) for n in run.tensors}
        return replace(found, tensors={INPUT: x, **whole})


def require_model(golden: Golden, model: Any, loss: Any = None) -> None:
    """FileError for a golden of another network than this one."""
    recorded = [each.spec for each in golden.recordings]
    for wanted in (resolved.spec for resolved in models.resolve(model, loss, recorded[0].seed)):
        reasons = [differing(wanted, there) for there in recorded]
        if all(reasons):
            raise FileError(
                f"expected a recording of {wanted.name}, {wanted.loss_name}; {reasons[0]}. If the network was meant to "
                "change, record it again"
            )


def require_samples(recording: Recording, x: Any, y: Any) -> None:
    """FileError for a golden that was recorded on other samples or labels."""
    network = recording.described or Network.declared(recording.spec)
    given = Inputs(x, y, None, len(recording.x), recording.spec.seed).for_network(network)
    for name, wanted, there in zip(("x", "y"), given, (recording.x, recording.y), strict=True):
        if wanted.shape != there.shape or not np.array_equal(wanted, there):
            said = f"shape {wanted.shape}" if wanted.shape != there.shape else "the values that were given"
            held = f"shape {there.shape}" if wanted.shape != there.shape else "others"
            raise FileError(
                f"{name}: expected {said}, the golden has {held}. If the samples were meant to change, record it again"
            )


def differing(wanted: Spec, recorded: Spec) -> str:
    """The first thing in which a recorded network is another one; "" where it is the same."""
    asked, there = _layers(wanted), _layers(recorded)
    if len(asked) != len(there):
        return f"it has {len(there)} layers where {len(asked)} are expected"
    for (name, one), (_, other) in zip(asked, there, strict=True):
        for key in (key for key in {**one, **other} if one.get(key) != other.get(key)):
            return f"layer {name!r}: its {key} is {other.get(key)!r} where {one.get(key)!r} is expected"
    for key, family in (("loss", losses), ("optimizer", optimizers)):
        ours, theirs = (_setting(family, getattr(spec, key)) for spec in (wanted, recorded))
        if ours != theirs:
            return f"its {key} is {theirs!r} where {ours!r} is expected"
    return ""


def _layers(spec: Spec) -> list[tuple[str, dict[str, Any]]]:
    """Each layer's name and what it computes: Keras numbers the names, and the recorded weights have their values."""
    try:
        entries = [layer.to_json() for layer in scratch.build(spec.uninitialized(scratch.UNDRAWN)).layers]
    except UsageError:  # with layers that only Keras has
        plain = json.loads(json.dumps(spec.config["layers"]))  # a live model has tuples where a file has lists
        entries = [entry for entry in plain if entry["class_name"] != "InputLayer"]
    return [
        (
            entry["config"]["name"],
            {"class": entry["class_name"]}
            | {k: v for k, v in entry["config"].items() if k not in IGNORED and not k.endswith("_initializer")},
        )
        for entry in entries
    ]


IGNORED = {"name", "dtype"}


def _setting(family: Any, identifier: Any) -> Any:
    """A loss or an optimizer with all its arguments, in one form whatever it was given as; Keras numbers its name."""
    try:
        found = family.get(identifier)
    except (ValueError, TypeError):
        return identifier
    if found is None:
        return None
    return {"class": found.registered_name, **{k: v for k, v in found.get_config().items() if k not in IGNORED}}
