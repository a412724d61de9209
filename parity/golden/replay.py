"""Replay: judge scratchnet or somebody's own network against what was recorded, with no TensorFlow at hand."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from parity import environment, models, probe
from parity.errors import FileError, NothingConcluded, UsageError
from parity.golden import file, training
from parity.golden.form import Golden, Recording, Run, point
from parity.inputs import Inputs, representable
from parity.pipeline import Problem, judged
from parity.report import Check, Report
from parity.runners import scratch
from parity.runners.scratch import Network
from parity.sketch import Sketch, Vouched
from parity.spec import Spec
from parity.subjects import Subject
from parity.trace import INPUT, Trace, Weights
from scratchnet import losses, optimizers

__all__ = ["Recorded", "replay"]


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
    paths = list(_files(path))
    checks: list[Check] = []
    conditions: Mapping[str, Any] = {}
    sources, batches, seeds = [], [], []
    for each in paths:
        golden = file.read(each)
        if model is not None:
            require_model(each, golden, model, loss)
        for recording in golden.recordings:
            if x is not None or y is not None:
                require_samples(each, recording, x, y)
            progress(f"{each.name}: {recording.name}")
            checks += _judged(each, recording, subject)
            sources.append(recording.source)
            batches.append(len(recording.x))
            seeds.append(recording.spec.seed)
        conditions = golden.environment
    return Report(
        checks=tuple(checks),
        data=", ".join(dict.fromkeys(sources)),
        batch=max(batches),
        seed=seeds[0],
        command=_command(paths, subject),
        environment={**environment.of_numpy(), "recorded": conditions},
    )


def _command(paths: Sequence[Path], subject: Subject | None) -> str:
    words = ["parity", "replay", *map(str, paths)]
    return shlex.join([*words, "--subject", subject.source] if subject is not None and subject.source else words)


def _files(path: str | Path | Sequence[str | Path]) -> Iterator[Path]:
    for each in [path] if isinstance(path, str | Path) else path:
        if Path(each).is_dir():
            found = sorted(Path(each).glob(f"**/*{file.ENDING}"))
            if not found:
                raise FileError(f"{each}: expected goldens in this folder, files named *{file.ENDING}; received none")
            yield from found
        elif not Path(each).exists():
            raise FileError(f"{each}: expected a golden, there is none; make it with: {how_to_record('MODEL', each)}")
        else:
            yield Path(each)


def how_to_record(model: str, path: str | Path) -> str:
    """The command that makes a golden."""
    return shlex.join(["parity", "record", model, str(path)])


def _judged(path: Path, recording: Recording, subject: Subject | None) -> Iterator[Check]:
    reference = Recorded(recording)
    try:
        problem = reference.problem()
        if recording.described is not None and subject is None:
            raise NothingConcluded(
                f"{path}: {recording.name} has layers that scratchnet does not have; give the network that is to be "
                "judged: --subject FILE.py:FUNCTION, or subject=..."
            )
        checks = list(judged(problem, subject, "both", recording.modes, reference, lambda message: None))
        if recording.steps and subject is None:
            checks.append(training.judged(recording.spec, problem.weights, problem.x, problem.y, recording.steps))
    except UsageError as error:
        if subject is not None:
            raise  # of the user's network, such as a layout that fits nothing
        raise FileError(f"{path}: {recording.name}: cannot be run: {error}") from error
    yield from checks


@dataclass(frozen=True, eq=False)
class Recorded:
    """A recording in the place of Keras: a `parity.runners.reference.Reference`."""

    recording: Recording

    def problem(self) -> Problem:
        """The network with its inputs. FileError where they do not fit it."""
        spec, x, y = self.recording.spec, self.recording.x, self.recording.y
        network = self.recording.described or Network.of(spec)
        weights = self._weights(network)
        if x.shape[1:] != network.input_shape or not len(x) or len(x) != len(y):
            received = f"{x.shape} and {y.shape}"
            raise FileError(f"x, y: expected samples of shape {network.input_shape} with labels; received {received}")
        scratch.require_indices(network, x)
        if self.recording.described is None:
            scratch.require_labels(spec, y, (len(x), *network.output_shape))
        return Problem(spec, weights, weights, x, y)

    def run(self, spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, mode: str = "eager") -> Trace:
        """What was recorded at these weights and samples."""
        key = (point(weights, x, y), spec.dtype, mode)
        run = next((run for run in self.recording.runs if run.key == key), None)
        if run is None:
            raise NothingConcluded(
                f"{self.recording.name}: the golden has no run in {spec.dtype}, {mode}, at these weights and samples; "
                "record it again with this version of parity"
            )
        return self._whole(run, spec, weights, x, y)

    def described(self, spec: Spec) -> Network:
        if self.recording.described is None:
            raise UsageError(f"{spec.name}: the golden does not describe the network; record it again")
        return self.recording.described

    def _weights(self, network: Network) -> Weights:
        """Those in the file, and the ones that the seed gives again, if it does."""
        kept = self.recording.weights
        drawn: Weights = {}
        if any(isinstance(weight, str) for weight in kept.values()):
            drawn = {n: representable(w) for n, w in probe.weights(network.weights, self.recording.spec.seed).items()}
        names = [f"{layer}/{name}" for layer, found in network.weight_names.items() for name in found]
        if names != list(kept):
            raise FileError(f"weights: expected {', '.join(names)}; received {', '.join(kept)}")
        found = {}
        for name, weight in kept.items():
            if isinstance(weight, str):
                if point({name: drawn[name]}, self.recording.x, self.recording.y) != weight:
                    raise FileError(f"{name}: its seed gives other numbers with this version of NumPy; record it again")
                found[name] = drawn[name]
            else:
                found[name] = weight
        expected = network.weights or found
        for name, array in found.items():
            if array.shape != expected[name].shape:
                raise FileError(f"{name}: expected shape {expected[name].shape}; received {array.shape}")
        return found

    def _whole(self, run: Run, spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray) -> Trace:
        """Every tensor as an array: of a sketch, the one that scratchnet computes, which the sketch then judges."""
        arrays: dict[str, Any] = {n: t for n, t in run.tensors.items() if not isinstance(t, Sketch)}
        sketches = {n: t for n, t in run.tensors.items() if isinstance(t, Sketch)}
        found = Trace({INPUT: x, **arrays}, {"runner": "golden", "dtype": run.dtype, "mode": run.mode})
        if not sketches:
            return found
        again = scratch.replay(replace(spec, dtype=run.dtype), weights, found, y)
        for name, sketch in sketches.items():
            if name not in again or np.shape(again[name]) != sketch.shape:
                there = f"shape {np.shape(again[name])}" if name in again else "no such tensor"
                raise FileError(f"{name}: expected shape {sketch.shape}, scratchnet computes {there}; record it again")
        whole = {n: arrays[n] if n in arrays else Vouched.by(sketches[n], again[n]) for n in run.tensors}
        return replace(found, tensors={INPUT: x, **whole})


def require_model(path: Path, golden: Golden, model: Any, loss: Any = None) -> None:
    """FileError for a golden of another network than this one."""
    recorded = [each.spec for each in golden.recordings]
    for wanted in (resolved.spec for resolved in models.resolve(model, loss, recorded[0].seed)):
        reasons = [_differing(wanted, there) for there in recorded]
        if all(reasons):
            differing = reasons[0]
            raise FileError(
                f"{path}: expected a recording of {wanted.name}, {wanted.loss_name}; {differing}. If the network was "
                f"meant to change, record it again"
            )


def require_samples(path: Path, recording: Recording, x: Any, y: Any) -> None:
    """FileError for a golden that was recorded on other samples or labels."""
    network = recording.described or Network.of(recording.spec)
    given = Inputs(x, y, None, len(recording.x), recording.spec.seed).for_network(network)
    for name, wanted, there in zip(("x", "y"), given, (recording.x, recording.y), strict=True):
        if wanted.shape != there.shape or not np.array_equal(wanted, there):
            said = f"shape {wanted.shape}" if wanted.shape != there.shape else "the values that were given"
            held = f"shape {there.shape}" if wanted.shape != there.shape else "others"
            raise FileError(
                f"{path}: {name}: expected {said}, the golden has {held}. If the samples were meant to change, record "
                "it again"
            )


def _differing(wanted: Spec, recorded: Spec) -> str:
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
        entries = [layer.to_json() for layer in scratch.build(spec).layers]
    except UsageError:  # with layers that only Keras has
        entries = [entry for entry in spec.config["layers"] if entry["class_name"] != "InputLayer"]
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
    """A loss or an optimizer with all its arguments, in one form whatever it was given as."""
    try:
        found = family.get(identifier)
    except (ValueError, TypeError):
        return identifier
    return None if found is None else {"class": found.registered_name, **found.get_config()}
