"""The three ways to compare: with a golden, with Keras as it runs now, and that with a recording of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import parity
from parity.config import Config
from parity.errors import FileError
from parity.golden import file
from parity.inputs import Preferred
from parity.report import Report
from parity.runners import tensorflow
from parity.subjects import Subject, require_subject

__all__ = ["Asked", "live", "recorded", "replayed"]

# "how" of a `parity.pytest_plugin.result.Result`, after a recording
RECORDED, UNCHANGED, NOT_RECORDED = "recorded", "unchanged", "not recorded"


@dataclass(frozen=True, eq=False)
class Asked:
    """What a test asks for. model: as for `parity.check`, or a function that makes it; settings: those of loss, data,
    batch, seed, modes, training, steps and sketch_above that the test names; project: the others."""

    model: Any
    subject: Subject | None
    x: Any
    y: Any
    settings: Mapping[str, Any]
    project: Config

    def __post_init__(self) -> None:
        require_subject(self.subject)

    @property
    def is_deferred(self) -> bool:
        """Whether the model is a function that makes it. Live models can be called, too."""
        return callable(self.model) and not hasattr(self.model, "get_config")

    def made(self) -> Any:
        """The model. NothingConcluded where Keras is not at hand: what makes a model may import it. Keras counts the
        names of a process from the beginning, so that a golden does not depend on the tests before it."""
        __tracebackhide__ = True
        _, keras = tensorflow.imported()
        if not self.is_deferred:
            return self.model
        keras.utils.clear_session(free_memory=False)
        return self.model()

    def settled(self, *names: str) -> dict[str, Any]:
        """These settings: what the test says, or what the project has settled."""
        found = {name: self.project[name] for name in ("seed", "modes")}
        found |= {"dtype": self.project["dtype"], "sketch_above": self.project["sketch-above"]}
        if self.x is None:
            images = self.project["data"]
            found |= {"batch": self.project["batch"], "data": None if images is None else Preferred(images)}
        found |= self.settings
        return {name: found[name] for name in names if name in found}


def replayed(asked: Asked, path: Path, command: str) -> Report:
    """Judged by a golden. command: what records it. FileError where there is none, or one of something else."""
    if not path.exists():
        raise FileError(
            f"{path}: there is no recorded reference for this check; where TensorFlow is installed, make it with: "
            f"{command}"
        )
    _require_settings(asked, path, command)
    model = None if asked.is_deferred else asked.model
    loss = None if model is None else asked.settings.get("loss")
    return parity.replay(path, asked.subject, asked.x, asked.y, model=model, loss=loss)


def live(asked: Asked) -> Report:
    """Judged by Keras as it runs now."""
    __tracebackhide__ = True
    settings = asked.settled("loss", "dtype", "data", "batch", "seed", "modes", "training")
    return parity.check(asked.made(), asked.subject, asked.x, asked.y, **settings)


def recorded(asked: Asked, path: Path) -> tuple[Report, str]:
    """Judged by Keras as it runs now, and what became of the golden."""
    __tracebackhide__ = True
    model = asked.made()
    before = path.read_bytes() if path.exists() else None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{path.parent}: the folder cannot be made: {error.strerror or error}") from error
    settings = asked.settled("loss", "data", "batch", "seed", "modes", "training", "steps", "sketch_above")
    done = parity.record(model, path, asked.subject, asked.x, asked.y, **settings)
    if not done.paths:
        return done.report, NOT_RECORDED
    return done.report, UNCHANGED if path.read_bytes() == before else RECORDED


def _require_settings(asked: Asked, path: Path, command: str) -> None:
    """FileError for a golden that was recorded with other settings than the test names now. Its seed does not matter:
    whatever the samples are, they are in the golden."""
    for recording in file.read(path).recordings if HELD.keys() & asked.settings else ():
        for name, held in HELD.items():
            wanted, there = asked.settings.get(name), held(recording)
            if wanted is not None and there != (tuple(wanted) if name == "modes" else wanted):
                raise FileError(
                    f"{path}: {name}: the test asks for {wanted!r}, recorded was {there!r}; if it was meant to change, "
                    f"record it again with: {command}"
                )


HELD: Mapping[str, Callable[[Any], Any]] = {
    "batch": lambda recording: len(recording.x),
    "modes": lambda recording: recording.modes,
    "training": lambda recording: recording.spec.training,
    "steps": lambda recording: len(recording.steps),
}
"""Setting -> what a recording has of it."""
