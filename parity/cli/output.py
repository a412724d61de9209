"""What the commands print: a report, and what is being done."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING

from parity.errors import FileError

if TYPE_CHECKING:
    from parity.report import Report

__all__ = ["progress", "styled", "write"]


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


def styled(report: Report) -> str:
    """The report as stdout can show it: in colour on a terminal (rich reads NO_COLOR), and fitted to its width."""
    from rich.console import Console
    from rich.text import Text

    from parity.report import text

    on_terminal = sys.stdout.isatty()
    shown = StringIO()
    console = Console(file=shown, force_terminal=on_terminal or None, soft_wrap=True)
    marks = text.MARKS if _can_show_marks() else text.ASCII_MARKS
    for line in text.lines(report, console.width if on_terminal else None, marks):
        console.print(Text(line.text, style=line.colour))
    return shown.getvalue()


def _can_show_marks() -> bool:
    from parity.report.text import MARKS

    try:
        "".join(MARKS.values()).encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


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
