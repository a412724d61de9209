"""The report as JUnit XML, in the dialect of Jenkins and pytest that CI systems read: a test case for each check.

A check without power is an `error`, which says that the test could not be carried out. It is no `skipped`: that would
turn the run green, and to compare nothing is no success.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from parity.report import NOTHING, Check, Report, how_far
from parity.report.text import of_check, printable

__all__ = ["render"]

NAME = "parity"


def render(report: Report) -> str:
    """The document, with its declaration and a final newline."""
    counts = {
        "tests": str(max(len(report.checks), 1)),
        "failures": str(sum(check.first_wrong is not None for check in report.checks)),
        "errors": str(sum(_without_power(check) for check in report.checks) + (not report.checks)),
    }
    root = Element("testsuites", {"name": NAME, **counts})
    suite = SubElement(root, "testsuite", {"name": NAME, **counts, "skipped": "0"})
    told = {"verdict": report.verdict, "sentence": report.sentence, "command": report.command, "data": report.data,
            "batch": report.batch, "seed": report.seed}  # fmt: skip
    _properties(suite, {**told, **report.environment})
    for check in report.checks:
        _case(suite, check)
    if not report.checks:
        case = SubElement(suite, "testcase", classname=NAME, name="check")
        SubElement(case, "error", type="no power", message=NOTHING)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _case(suite: Element, check: Check) -> None:
    case = SubElement(
        suite, "testcase", classname=printable(check.network), name=printable(f"{check.loss}, {check.dtype}")
    )
    told: dict[str, Any] = {"subject": check.subject, "modes": ", ".join(check.modes)}
    if check.rows:
        within = sum(row.passed and row.compared for row in check.rows)
        told |= {"tensors": len(check.rows), "tensors within budget": within,
                 "worst tensor": check.worst.tensor, "budgets": check.worst.budgets}  # fmt: skip
    _properties(case, told)
    if (row := check.first_wrong) is not None:
        said = printable(f"{row.tensor}, computed by {row.computed_by}: {how_far(row)}")
        SubElement(case, "failure", type="difference", message=said).text = of_check(check)
    elif _without_power(check):
        said = printable(check.why_powerless)
        SubElement(case, "error", type="no power", message=said).text = of_check(check)


def _without_power(check: Check) -> bool:
    return check.first_wrong is None and not check.passed


def _properties(parent: Element, told: Mapping[str, Any]) -> None:
    """Names and values on one line each. What cannot be printed is escaped, and what can be printed is lawful XML."""
    properties = SubElement(parent, "properties")
    for name, value in told.items():
        SubElement(properties, "property", name=printable(name), value=printable(str(value)))
