"""The same networks recorded in several environments, and each compared with the first: what `parity record` does
there, in a process of its own, and `drift.diff` here."""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from parity.errors import NothingConcluded, UsageError
from parity.golden import drift, file
from parity.golden.drifted import BEYOND, IDENTICAL, NOT_COMPARED, Drift, Pair
from parity.report import share
from parity.report.text import Line, printable

__all__ = ["MODELS", "TIMEOUT", "Environment", "Matrix", "matrix"]

MODELS = ("sigmoid-500", "tanh-16", "cases")
"""The project's own: both reference networks, and the smallest network around each entry of the registry."""

TIMEOUT = 3600.0
"""Seconds for one command. On two cores the cases take two minutes."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # of a folder


@dataclass(frozen=True)
class Environment:
    """One environment. command: what stands for `parity` there; failures: the last line of each command that failed;
    refused: whether one of them found a network that is not what scratchnet computes; recorded: how many files."""

    name: str
    command: tuple[str, ...]
    failures: tuple[str, ...]
    refused: bool
    recorded: int


@dataclass(frozen=True)
class Matrix:
    """What became of it. drifts: each other environment that recorded something -> compared with the first."""

    environments: tuple[Environment, ...]
    drifts: Mapping[str, Drift]

    @property
    def exit_status(self) -> int:
        """1 where a tensor drifted or a check did not pass, 3 where of something nothing can be said, else 0."""
        statuses = {drift.exit_status for drift in self.drifts.values()}
        if 1 in statuses or any(each.refused for each in self.environments):
            return 1
        return 3 if 3 in statuses or any(each.failures for each in self.environments) else 0

    @property
    def first(self) -> str:
        """The environment that the others are compared with."""
        return next(each.name for each in self.environments if each.recorded)

    @property
    def sentence(self) -> str:
        """One sentence that answers the question."""
        said = [f"{name}: {each.sentence.rstrip('.')}" for name, each in self.drifts.items()]
        return f"Compared with {self.first}: {'. '.join(said)}."

    def to_text(self) -> str:
        """The table as plain text; the last line is the answer."""
        return "\n".join(line.text for line in self.lines())

    def lines(self) -> Iterator[Line]:
        """The table line by line, with the colours that a terminal shows."""
        for each in self.environments:
            yield Line(printable(f"{each.name}: {shlex.join(each.command)}: {self._conditions(each.name)}"))
            for failure in each.failures:
                yield Line(printable(f"  {failure}"), "red" if each.refused else "yellow")
        yield Line("")
        yield from self._table()
        yield Line("")
        for name, drifted in self.drifts.items():
            for reason, networks in drifted.explained().items():
                yield Line(printable(f"explained, {name}, {_count(len(networks), 'network')}: {reason}"))
        yield Line(printable(self.sentence), {0: "green", 1: "red", 3: "yellow"}[self.exit_status])

    def _conditions(self, name: str) -> str:
        """The versions, and what else is not as in the first environment."""
        if not next(each for each in self.environments if each.name == name).recorded:
            return "nothing was recorded"
        if name == self.first:
            conditions = next(iter(self.drifts.values())).environments[0]
            return ", ".join(f"{key} {conditions.get(key)}" for key in ("tensorflow", "keras", "numpy"))
        changed = self.drifts[name].changed
        return ", ".join(f"{key} {left} -> {right}" for key, (left, right) in changed.items()) or "nothing changed"

    def _table(self) -> Iterator[Line]:
        """A row for each network that is not the same everywhere, a column for each environment but the first."""
        cells: dict[str, dict[str, Pair]] = {}
        for name, each in self.drifts.items():
            for pair in each.pairs:
                cells.setdefault(pair.name, {})[name] = pair
        moved = {n: pairs for n, pairs in cells.items() if any(p.verdict != IDENTICAL for p in pairs.values())}
        rows = [("network", *self.drifts)]
        rows += [(n, *(_cell(pairs.get(name)) for name in self.drifts)) for n, pairs in moved.items()]
        if same := len(cells) - len(moved):
            rows.append((f"{same} {'others' if moved else 'networks'}", *(IDENTICAL for _ in self.drifts)))
        wrong = {n for n, pairs in moved.items() if any(p.verdict == BEYOND for p in pairs.values())}
        rows = [tuple(printable(cell) for cell in row) for row in rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            yield Line("  ".join(map(str.ljust, row, widths)).rstrip(), "red" if row[0] in wrong else "")


def matrix(
    environments: Mapping[str, str],
    models: Sequence[str] = MODELS,
    *,
    keep: str | Path | None = None,
    timeout: float = TIMEOUT,
    progress: Callable[[str], None] = lambda message: None,
) -> Matrix:
    """Record networks in several environments, and compare each with the first.

    environments: name -> the command that stands for `parity` there, such as `/venv/bin/parity` or `env
    TF_ENABLE_ONEDNN_OPTS=0 parity`: split as a shell would, and run without one, with `record MODEL FOLDER` behind it.
    models: what `parity record` takes. keep: the folder that gets the recordings, NAME/MODEL for each; None: they are
    thrown away. timeout: seconds for each command.
    UsageError for fewer than two environments or what is no command; NothingConcluded where nothing can be compared.
    """
    commands = {name: _words(name, command) for name, command in environments.items()}
    if len(commands) < 2:
        raise UsageError(f"env: expected two environments or more to compare; received {', '.join(commands) or 'none'}")
    with _folder(keep) as folder:
        made = []
        for name, command in commands.items():
            progress(f"recording in {name}")
            made.append(_recorded(name, command, models, folder / name, timeout))
        able = [each for each in made if each.recorded]
        if len(able) < 2:
            said = "; ".join(f"{each.name}: {' '.join(each.failures)}" for each in made if not each.recorded)
            raise NothingConcluded(f"fewer than two environments recorded anything, so nothing was compared: {said}")
        first, *others = able
        drifts = {each.name: drift.diff(folder / first.name, folder / each.name, progress=progress) for each in others}
    return Matrix(tuple(made), drifts)


def _words(name: str, command: str) -> tuple[str, ...]:
    if not NAME.fullmatch(name):
        raise UsageError(f"env: expected a name of letters, digits, '.', '_' and '-'; received {name!r}")
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise UsageError(f"env: {name}: expected a command; received {command!r}: {error}") from error
    if not words:
        raise UsageError(f"env: {name}: expected the command that stands for parity there; received none")
    return words


@contextmanager
def _folder(keep: str | Path | None) -> Iterator[Path]:
    if keep is not None:
        yield Path(keep)
        return
    with tempfile.TemporaryDirectory(prefix="parity-matrix-") as folder:
        yield Path(folder)


def _recorded(name: str, command: tuple[str, ...], models: Sequence[str], folder: Path, timeout: float) -> Environment:
    if any(folder.glob(f"**/*{file.ENDING}")):
        raise UsageError(f"keep: {folder}: expected no recordings there yet; give another folder, or remove them")
    failures, refused = [], False
    for model in models:
        place = folder / (re.sub(r"[^A-Za-z0-9_.-]+", "-", model).strip("-.") or "network")
        status, out, err = _run([*command, "record", model, str(place)], timeout)
        judged = status == 1 and bool(
            out
        )  # what parity says of a check that did not pass; Python itself ends with 1, too
        if status != 0:
            failures.append(f"record {model}: {_last(out or err or f'ended with status {status}')}")
            refused = refused or judged
    return Environment(name, command, tuple(failures), refused, len(list(folder.glob(f"**/*{file.ENDING}"))))


def _run(words: Sequence[str], timeout: float) -> tuple[int | None, str, str]:
    """The exit status, None where there is none, and what was said."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return None, "", f"stopped after {timeout:g} seconds"
    except OSError as error:
        return None, "", f"{words[0]}: cannot be started: {error.strerror}"
    return done.returncode, done.stdout.strip(), done.stderr.strip()


def _last(text: str) -> str:
    return text.splitlines()[-1]


def _cell(pair: Pair | None) -> str:
    if pair is None:
        return "not recorded"
    if pair.verdict == NOT_COMPARED:
        return "not recorded" if pair.unlike.startswith("only") else "another problem"
    worst = pair.worst
    return IDENTICAL if worst is None else f"{share(worst[1].budgets)}{' BEYOND' if pair.verdict == BEYOND else ''}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
