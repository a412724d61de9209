"""Where the report of a comparison goes: the options that every command with one has, and what they do."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from parity.cli.output import styled, write
from parity.errors import UsageError

if TYPE_CHECKING:
    from parity.report import Report

__all__ = ["Outputs", "deliver", "outputs"]

STDOUT = "-"

OPTIONS = (
    click.option("--json", "as_json", is_flag=True, help="The report as JSON instead of text."),
    click.option("--junit-xml", metavar="FILE", help="Write JUnit XML, too; - for standard output instead of text."),
    click.option("--markdown", metavar="FILE",
                 help="Write a short report as Markdown, too; - for standard output instead of text."),
    click.option("--step-summary", is_flag=True,
                 help="On GitHub Actions: add that Markdown to the summary of the step, and annotate what is wrong."),
)  # fmt: skip


@dataclass(frozen=True)
class Outputs:
    """What a user asked for beside, or instead of, text on standard output. junit_xml, markdown: files, or "-"."""

    as_json: bool = False
    junit_xml: str | None = None
    markdown: str | None = None
    step_summary: bool = False

    @property
    def files(self) -> Mapping[str, str]:
        """Option -> file."""
        given = {"--junit-xml": self.junit_xml, "--markdown": self.markdown}
        return {option: name for option, name in given.items() if name is not None and name != STDOUT}

    def require_possible(self) -> None:
        """UsageError for what contradicts itself, FileError for what cannot be written: before a long run, not after
        it."""
        for_stdout = {"--json": self.as_json, "--junit-xml -": self.junit_xml == STDOUT,
                      "--markdown -": self.markdown == STDOUT}  # fmt: skip
        wanted = [option for option, asked in for_stdout.items() if asked]
        if len(wanted) > 1:
            raise UsageError(f"{' and '.join(wanted)}: only one of them can have standard output; name a file")
        if len({os.path.realpath(name) for name in self.files.values()}) < len(self.files):
            raise UsageError(f"{' and '.join(self.files)}: expected two files, received the same")
        if self.step_summary:
            from parity.report import github

            github.summary_file()
        for name in self.files.values():
            _require_writable(name)


def outputs(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of `Outputs`; it gets them as its argument `outputs`, to be passed to `deliver`."""

    @functools.wraps(command)
    def asked(*, as_json: bool, junit_xml: str | None, markdown: str | None, step_summary: bool, **others: Any) -> int:
        wanted = Outputs(as_json, junit_xml, markdown, step_summary)
        wanted.require_possible()
        return command(outputs=wanted, **others)

    for option in reversed(OPTIONS):
        asked = option(asked)
    return asked


def deliver(report: Report, outputs: Outputs) -> int:
    """Print and write the report; its exit status."""
    write(_for_stdout(report, outputs))
    render = {"--junit-xml": report.to_junit, "--markdown": report.to_markdown}
    for option, name in outputs.files.items():
        _save(name, render[option]())
    if outputs.step_summary:
        from parity.report import github

        github.append_summary(report.to_markdown())
        for line in github.annotations_of(report):
            print(line, file=sys.stderr)  # GitHub reads both streams, and stdout may be a document
    return report.exit_status


def _for_stdout(report: Report, outputs: Outputs) -> str:
    if outputs.as_json:
        return report.to_json() + "\n"
    if outputs.junit_xml == STDOUT:
        return report.to_junit()
    return report.to_markdown() if outputs.markdown == STDOUT else styled(report)


class _Tried(Exception):
    """Ends an attempt to write before anything is replaced."""


def _require_writable(name: str) -> None:
    from parity.atomic import replaced

    with suppress(_Tried), replaced(name):
        raise _Tried


def _save(name: str, document: str) -> None:
    from parity.atomic import replaced

    with replaced(name) as file:
        file.write(document.encode())
