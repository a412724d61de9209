"""The report as JSON, for programs: the document that `schema.json` describes, which says what each key means.

It is strict JSON (RFC 8259). Numbers are written with every digit that Python needs to read the same float64 back; what
JSON has no number for is one of the strings "nan", "inf" and "-inf". The version of the schema grows when a key goes or
changes its meaning, not when one is added.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from parity.compare import Row
from parity.report import Check, Report
from parity.report.schema import read

if TYPE_CHECKING:
    from parity.diagnose import Finding

__all__ = ["KIND", "SCHEMA_VERSION", "render", "schema", "strict"]

KIND = "check"  # training.py has the other one
SCHEMA_VERSION = 1


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what `render` writes."""
    return read("schema.json")


def render(report: Report) -> str:
    """The document, indented, without a final newline."""
    document = {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "verdict": report.verdict,
        "passed": report.passed,
        "sentence": report.sentence,
        "command": report.command,
        "data": report.data,
        "batch": report.batch,
        "seed": report.seed,
        "environment": report.environment,
        "findings": [_finding(finding) for finding in report.findings],
        "checks": [_check(check) for check in report.checks],
    }
    return json.dumps(strict(document), indent=2, allow_nan=False)


def _check(check: Check) -> dict[str, Any]:
    return {
        "network": check.network,
        "loss": check.loss,
        "dtype": check.dtype,
        "modes": check.modes,
        "passed": check.passed,
        "powerless": check.powerless,
        "blind": list(check.blind),
        "kinks": list(check.kinks),
        "findings": [_finding(finding) for finding in check.findings],
        "vote": check.vote,
        "end_to_end": check.end_to_end,
        "conventions": list(check.conventions),
        "notes": list(check.notes),
        "subject": check.subject,
        "skipped": check.skipped,
        "rows": [_row(row) for row in check.rows],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return asdict(finding)


def _row(row: Row) -> dict[str, Any]:
    return {field.name: getattr(row, field.name) for field in fields(row) if field.repr}  # not the array of elements


def strict(node: Any) -> Any:
    """The same tree with a string in place of each number that JSON does not have."""
    if isinstance(node, Mapping):
        return {key: strict(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [strict(value) for value in node]
    return str(node) if isinstance(node, float) and not math.isfinite(node) else node
