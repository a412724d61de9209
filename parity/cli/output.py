"""What the commands print: a report, and what is being done."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING

from parity.errors import FileError

if TYPE_CHECKING:
    from rich.console import Console

    from parity.report import Report
    from parity.report.text import Line

__all__ = ["coloured", "marks", "progress", "styled", "write"]


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A spinner that says what is being done, on stderr and only where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda message: None
        return
    from rich.console import Console
    from rich.text import Text

    # On a file descriptor of its own: while TensorFlow starts, the runner holds back what is written to the usual one.
    with (
        open(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="backslashreplace") as stream,
        Console(file=stream).status("reading the network") as status,
    ):
        yield lambda message: status.update(Text(message))


FORCED = {"FORCE_COLOR", "TTY_COMPATIBLE"}
"""Variables by which rich takes what is no terminal for one."""


def styled(report: Report) -> str:
    """The report as stdout can show it: in colour on a terminal (rich reads NO_COLOR), and fitted to its width."""
    from parity.report import text

    return coloured(text.lines(report, _console(StringIO()).width if sys.stdout.isatty() else None, marks()))


def coloured(lines: Iterable[Line]) -> str:
    """Lines as stdout can show them."""
    if not (sys.stdout.isatty() or FORCED & os.environ.keys()):  # then rich, which takes its time, would add nothing
        return "".join(f"{line.text}\n" for line in lines)
    from rich.text import Text

    shown = StringIO()
    console = _console(shown)
    for line in lines:
        console.print(Text(line.text, style=line.colour))
    return shown.getvalue()


def _console(file: StringIO) -> Console:
    from rich.console import Console

    return Console(file=file, force_terminal=sys.stdout.isatty() or None, soft_wrap=True)


def marks() -> Mapping[bool | None, str]:
    """What a line begins with, in signs that stdout can show."""
    from parity.report.text import ASCII_MARKS, MARKS

    try:
        "".join(MARKS.values()).encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return ASCII_MARKS
    return MARKS


def write(output: str) -> None:
    """Write to stdout. A reader such as `head` may leave early: the verdict stands. A full disk is an error."""
    try:
        sys.stdout.write(output)
        sys.stdout.flush()
    except OSError as error:
        # Python flushes once more as it exits; what is left has to go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise FileError(f"the report cannot be written to standard output: {error.strerror}") from error
