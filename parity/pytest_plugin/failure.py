"""What a check that did not pass is told, in the test and in JUnit's XML."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from parity.errors import ParityError
from parity.pytest_plugin.result import Result
from parity.report import Report
from parity.report.text import how_wrong, printable

__all__ = ["command", "of_comparison", "of_error", "of_report", "properties"]

FLAGS = {"live": ["--parity-live"], "record": ["--parity-record"], "not recorded": ["--parity-record"]}
VERSIONS = ("python", "numpy", "scipy", "keras", "tensorflow")


def command(item: pytest.Item, how: str) -> str:
    """What runs a test again in this way."""
    file = os.path.relpath(item.path, item.config.invocation_params.dir)
    return shlex.join(["pytest", f"{file}::{item.nodeid.partition('::')[2]}", *FLAGS.get(how, [])])


def of_report(report: Report, against: str, command: str) -> str:
    """against: what was compared with, in words; command: what runs the test again."""
    return "\n".join([*_explained(report), f"compared with: {printable(against)}", f"reproduce: {command}"])


def of_error(error: ParityError, path: Path, shown: str, command: str, again: str = "") -> str:
    """path: of the golden, which the message has as `shown`; command: what records it or what runs the test again,
    unless the message has one; again: what records it, where it may be of a network that has changed since."""
    said = str(error).replace(str(path), shown)
    said = said if said.endswith(command) else f"{said}\nrun: {command}"
    return f"{said}\nif {shown} is of the network as it was before: {again}" if again else said


def of_comparison(op: str, left: object, right: object) -> list[str] | None:
    """The lines below an assertion with a report in it, None for others."""
    reports = [each for each in (left, right) if isinstance(each, Report)]
    if not reports:
        return None
    sides = (f"<report: {each.verdict}>" if isinstance(each, Report) else repr(each) for each in (left, right))
    said = [line for each in reports for line in _explained(each)]
    hint = ["a report is no text; assert report.passed, or compare report.verdict"] if len(reports) == 1 else []
    return [f" {op} ".join(sides), *hint, *said]


def properties(result: Result, report: Report | None) -> list[tuple[str, object]]:
    """Of the test, for JUnit's XML; those of a check with a name have it in theirs."""
    told: dict[str, object] = {"verdict": result["verdict"], "compared": result["how"]}
    if result["golden"]:
        told["golden"] = result["shown"]
    if report is not None:
        versions = {**report.recorded, **report.environment}
        first = next((check.first_wrong.tensor for check in report.checks if check.first_wrong), "")
        told |= {"worst": result["tensor"], "budgets": result["used"], "seed": report.seed}
        told |= {"first wrong": first} if first else {}
        told |= {"cause": report.cause.code} if report.cause else {}
        told["versions"] = ", ".join(f"{name} {versions[name]}" for name in VERSIONS if name in versions)
    prefix = f"parity {result['name']}" if result["name"] else "parity"
    return [(f"{prefix} {name}", value) for name, value in told.items()]


def _explained(report: Report) -> Iterator[str]:
    """The sentence, where the worst element of the first wrong tensor is, and its cause."""
    yield printable(report.sentence.removeprefix("No: "))
    check = next((check for check in report.checks if check.first_wrong is not None), None)
    if check is None or (row := check.first_wrong) is None:
        return
    finding = next((each for each in check.findings if row.tensor in each.tensor), None)
    yield printable(f"{finding.tensor if finding else row.tensor}: {how_wrong(row, check.subject)}")
    if (cause := report.cause) is not None:
        yield printable(f"right: {cause.right}")
        yield printable(f"yours: {cause.wrong}")
    elif finding is not None and finding.residual:
        yield printable(f"the error: {finding.residual}")
