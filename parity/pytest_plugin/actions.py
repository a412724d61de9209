"""What GitHub Actions gets: an annotation for each of the ten worst checks that did not pass, and a step summary."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from parity.errors import FileError
from parity.pytest_plugin import summary
from parity.pytest_plugin.result import failed
from parity.pytest_plugin.summary import Told
from parity.report import WORST, github
from parity.report.markdown import code, plain
from parity.report.text import printable

__all__ = ["tell"]


def tell(terminal: pytest.TerminalReporter, told: Sequence[Told]) -> None:
    """told: the worst first."""
    for nodeid, result in told[:WORST]:
        if failed(result):
            file = _from_repository(terminal.config.rootpath / nodeid.partition("::")[0])
            title = printable(f"parity: {summary.named(nodeid, result)}")
            line = github.annotation("error", result["message"], title=title, file=file, line=result["line"])
            terminal.write_line(line)
    if os.environ.get(github.VARIABLE):
        try:
            github.append_summary("\n".join(_markdown(told)))
        except FileError as error:
            terminal.write_line(f"parity: {error}", yellow=True)


def _from_repository(path: Path) -> str:
    """The path as GitHub knows it: rootdir may be a part of the repository."""
    root = os.environ.get("GITHUB_WORKSPACE", "")
    return path.relative_to(root).as_posix() if root and path.is_relative_to(root) else path.as_posix()


def _markdown(told: Sequence[Told]) -> Iterator[str]:
    wrong = any(failed(result) for _, result in told)
    yield from (f"## parity: {'✗ fail' if wrong else '✓ pass'}", "", plain(summary.totals(told)), "")
    yield from ("| | test | worst tensor | used | compared |", "| --- | --- | --- | --- | --- |")
    for nodeid, result in told[:WORST]:
        cells = (
            "✗" if failed(result) else "-" if result["expected"] else "✓",
            code(summary.named(nodeid, result)),
            code(result["tensor"]) if result["tensor"] else "-",
            result["used"],
            plain(f"{summary.compared(result)} {result['shown']}"),
        )
        yield f"| {' | '.join(cells)} |"
    for nodeid, result in told[:WORST]:
        if failed(result):
            yield from ("", f"{code(summary.named(nodeid, result))}", "")
            yield from (f"- {plain(line)}" for line in result["message"].splitlines())
