"""A folder of goldens: what is in it, whether it is whole, and what no test asks for any more."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parity.errors import FileError, NothingConcluded
from parity.golden import file
from parity.golden.form import Recording
from parity.golden.posed import posed
from parity.report.text import printable
from parity.weights.formats import limits

__all__ = ["UNUSED", "Found", "found", "lines", "pruned", "root"]

UNUSED = Path(".pytest_cache", "v", "parity", "unused")
"""Where `pytest` says, beside its own cache, which goldens its last run did not ask for."""
LEFT = ".parity-*.tmp"
STALE = 3600.0
"""Seconds after which a file that was being written is one that a killed process left: none takes that long."""


@dataclass(frozen=True)
class Found:
    """One file. problem: why it cannot be used; "" where it can. recordings: what `parity goldens --json` says of each;
    environment: where it was recorded."""

    path: Path
    size: int
    recordings: tuple[Mapping[str, Any], ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""

    def document(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "path": str(self.path),
            "size": self.size,
            "problem": self.problem,
            "recordings": list(self.recordings),
            "environment": dict(self.environment),
        }


def found(folder: Path, verify: bool = False) -> Iterator[Found]:
    """Every golden of a folder, or one file, each array of it hashed. verify: whether the networks are compared with
    the arrays, as they are before a replay, and whether every array belongs to one."""
    if not folder.exists():
        raise FileError(
            f"{folder}: expected a folder with goldens, there is none; parity record MODEL {folder} makes it"
        )
    for path in sorted(folder.glob(f"**/*{file.ENDING}")) if folder.is_dir() else [folder]:
        size = path.stat().st_size
        try:
            golden = file.read(path)
            about = tuple(_about(recording) for recording in golden.recordings)
            problem = _problem(path, golden.recordings) if verify else ""
            yield Found(path, size, about, golden.environment, problem)
        except FileError as error:
            yield Found(path, size, problem=str(error).removeprefix(f"{path}: "))


def _about(recording: Recording) -> dict[str, Any]:
    runs = recording.runs
    return {
        "network": recording.spec.name,
        "loss": recording.spec.loss_name,
        "dtypes": sorted({run.dtype for run in runs}),
        "modes": list(recording.modes),
        "training": recording.spec.training,
        "batch": len(recording.x),
        "seed": recording.spec.seed,
        "steps": len(recording.steps),
        "tensors": sum(len(run.tensors) for run in runs),
        "sketches": recording.sketched,
    }


def _problem(path: Path, recordings: tuple[Recording, ...]) -> str:
    """The first thing that would end a replay, or an array that belongs to nothing."""
    for recording in recordings:
        with limits.blamed(recording.name):
            posed(recording)
    spare = file.spare(path)
    return f"expected arrays that a recording has; {len(spare)} belong to none, such as {spare[0]}" if spare else ""


def lines(goldens: Sequence[Found], removed: Sequence[Path]) -> Iterator[str]:
    """What `parity goldens` prints."""
    for path in removed:
        yield printable(f"removed {path}")
    for each in goldens:
        named = (name for name in ("tensorflow", "keras") if name in each.environment)
        made = ", ".join(f"{name} {each.environment[name]}" for name in named)
        yield printable(f"{each.path}  {each.size / 1024:,.0f} KiB{f'  {made}' if made else ''}")
        for recording in each.recordings:
            yield printable(f"  {_sentence(recording)}")
        if each.problem:
            yield printable(f"  cannot be used: {each.problem}")
    size = sum(each.size for each in goldens)
    yield f"{len(goldens)} golden{'s' * (len(goldens) != 1)}, {size / 1024:,.0f} KiB"


def _sentence(recording: Mapping[str, Any]) -> str:
    parts = [
        f"{recording['network']}, {recording['loss']}" + ("" if recording["training"] else ", in inference"),
        " and ".join(recording["dtypes"]),
        " and ".join(recording["modes"]),
        f"batch {recording['batch']}",
        f"seed {recording['seed']}",
        f"{recording['tensors']} tensors" + (f", {recording['sketches']} as sketches" if recording["sketches"] else ""),
        *([f"{recording['steps']} steps of training"] if recording["steps"] else []),
    ]
    return "; ".join(parts)


def root() -> Path:
    """Of the project: the nearest folder from here upwards in which pytest has left its record, or this one."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / UNUSED).is_file()), here)


def pruned(folder: Path, root: Path, now: float | None = None) -> list[Path]:
    """Remove from a folder the goldens that the last complete run of pytest did not ask for, and what killed processes
    left. root: of the project, which has the cache of pytest. Returns what was removed.

    A file that was written after that run stays, since the run knew nothing of it. NothingConcluded where there was no
    such run.
    """
    record = root / UNUSED
    names = _unused(record)
    told = record.stat().st_mtime
    home = folder.resolve()
    removed = []
    for path in (root / name for name in names):
        inside = path.suffix == file.ENDING and path.resolve().is_relative_to(home)
        if inside and path.is_file() and path.stat().st_mtime <= told:
            removed.append(path)
    oldest = (time.time() if now is None else now) - STALE
    removed += [path for path in sorted(folder.glob(f"**/{LEFT}")) if path.stat().st_mtime < oldest]
    for path in removed:
        try:
            path.unlink()
        except OSError as error:
            raise FileError(f"{path}: cannot be removed: {error.strerror}") from error
    return removed


def _unused(record: Path) -> list[str]:
    todo = "run all tests with pytest, without -k, -x or a selection of files, and then parity goldens --prune again"
    try:
        document = json.loads(record.read_bytes())
    except FileNotFoundError as error:
        raise NothingConcluded(f"{record}: there is none, so nobody knows which goldens are unused; {todo}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"{record}: expected what pytest writes there, received: {error}; {todo}") from error
    # As `parity.pytest_plugin.unused` writes it.
    names = document.get("goldens") if isinstance(document, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FileError(f"{record}: expected a list of paths under 'goldens', received {limits.shown(names)}; {todo}")
    if document.get("complete") is not True:
        raise NothingConcluded(f"{record}: the last run of pytest did not run all tests; {todo}")
    return names
