"""GitHub Actions: annotations, which are lines that a step prints, and the summary of the step, which is a file.

Escapes as in `@actions/core`, which GitHub's own actions print their commands with.
"""

from __future__ import annotations

import os
from pathlib import Path

from parity.compare import Row
from parity.errors import FileError, UsageError
from parity.report import WORST, Check, Report, how_far
from parity.report.text import how_wrong, printable

__all__ = ["annotation", "annotations_of", "append_summary", "summary_file"]

VARIABLE = "GITHUB_STEP_SUMMARY"


def annotation(level: str, message: str, *, title: str = "", file: str = "", line: int | None = None) -> str:
    """The line that makes GitHub show a message beside the code. level: error, warning or notice; file: from the root
    of the repository."""
    given = {"title": title, "file": file, "line": "" if line is None else str(line)}
    told = ",".join(f"{name}={_property(value)}" for name, value in given.items() if value)
    return f"::{level}{' ' if told else ''}{told}::{_data(message)}"


def annotations_of(report: Report) -> tuple[str, ...]:
    """An error for each of the ten worst wrong tensors at most, the first wrong one before the others."""
    if report.verdict == "no power":
        return (annotation("error", printable(report.sentence), title="parity: no power"),)
    return tuple(
        annotation("error", _explained(check, row), title=printable(f"parity: {row.tensor}: {how_far(row)}"))
        for check, row in _wrong(report)[:WORST]
    )


def summary_file() -> Path:
    """Where the summary of this step goes. UsageError outside of GitHub Actions."""
    if not (name := os.environ.get(VARIABLE)):
        raise UsageError(
            f"step summary: expected the variable {VARIABLE}, which GitHub Actions sets, received none; elsewhere, "
            "write the same with --markdown FILE"
        )
    return Path(name)


def append_summary(markdown: str) -> None:
    """Add to the summary of this step, behind what is there. UsageError outside of GitHub Actions, FileError where it
    cannot be written."""
    path = summary_file()
    try:
        with open(path, "a", encoding="utf-8", newline="\n") as file:
            file.write(f"{markdown}\n")
    except OSError as error:
        raise FileError(f"{path}: the step summary cannot be written: {error.strerror or error}") from error


def _wrong(report: Report) -> list[tuple[Check, Row]]:
    first = next((row for row in report.rows if not row.passed), None)
    every = [pair for pair in report.worst_rows(len(report.rows)) if not pair[1].passed]
    return sorted(every, key=lambda pair: pair[1] is not first)  # stable: the others stay as they are


def _explained(check: Check, row: Row) -> str:
    lines = [f"{check.network}, {check.loss}, {check.dtype}: {how_wrong(row, check.subject)}"]
    if (cause := check.cause_of(row)) is not None:
        lines += [f"{cause.code}: {cause.text}", f"right: {cause.right}", f"yours: {cause.wrong}"]
    return "\n".join(map(printable, lines))


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
