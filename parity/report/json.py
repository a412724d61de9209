"""The report as JSON, for programs. Schema version 1; a version grows when a key goes or changes its meaning, not when
one is added.

The document is strict JSON (RFC 8259). Numbers are written with every digit that Python needs to read the same float64
back; what JSON has no number for is one of the strings "nan", "inf" and "-inf".

    schema_version     1
    verdict            "pass", "fail" or "no power"
    passed             true for "pass" only
    sentence           the answer in words
    command            what reproduces the run
    data, batch, seed  what the inputs were, how many samples, and the seed of weights and probe
    environment        versions: python, platform, numpy, scipy, tensorflow, keras; settings that move the last bits;
                       and dtype_policy, the caller's global one, which no check runs in
    findings           those of all checks, in the order of data flow
    checks             one for each network, loss and dtype:
      network, loss, dtype
      modes            how the reference ran: "eager", "function"
      passed           true where every row is within budget and the check could have failed
      powerless        why it could not have failed; "" where it could
      blind            what a mistake could hide behind on these inputs, a sentence each
      kinks            gradients exactly at a kink or a tie, where either side is an answer, a sentence each
      findings         the wrong tensors: tensor (yours and ours), place (the operation), budgets, residual (what the
                       error looks like), and cause: null, or code, text, right and wrong formula, and explains, its
                       share of the error
      vote             where the sides differ: whose gradient finite differences find right; "" where they cannot tell
      end_to_end       where the sides differ: whether it matters to a whole float32 run; "" elsewhere
      conventions      what the subject does otherwise than Keras and not wrongly, a sentence each
      notes            the layout that was found, dtypes, a sentence each
      subject          what was compared with Keras: "scratchnet", or the name of somebody's own network
      skipped          tensor -> why it was not compared
      rows             one for each tensor, in the order of data flow:
        tensor         "<layer>/output", "<layer>/<weight>.gradient", "loss", ...
        computed_by    the operation, in words
        shape          the reference's
        mode           the mode in which this tensor was worst
        budgets        difference / allowed at the worst element; up to 1 is right
        index, subject, reference, difference, allowed
                       of that element: where, scratchnet's value, Keras's value, how far apart, how far they may be
        outside, size  so many of so many elements are out of budget
        largest_absolute, largest_relative, largest_ulp
                       over the whole tensor, for information: they do not decide
        unjudged       of how many elements nothing is known, because what is allowed there overflows, or both sides do;
                       the tensor is then in `skipped`, unless another element is out of budget
        below_noise    whether zeros would pass, because the reference is nowhere larger than what is allowed
        note           what was unusual; "" where nothing was
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from parity.compare import Row
from parity.report import Check, Report

if TYPE_CHECKING:
    from parity.diagnose import Finding

__all__ = ["SCHEMA_VERSION", "render"]

SCHEMA_VERSION = 1


def render(report: Report) -> str:
    """The document, indented, without a final newline."""
    document = {
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
    return json.dumps(_strict(document), indent=2, allow_nan=False)


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


def _strict(node: Any) -> Any:
    """The same tree with a string in place of each number that JSON does not have."""
    if isinstance(node, Mapping):
        return {key: _strict(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_strict(value) for value in node]
    return str(node) if isinstance(node, float) and not math.isfinite(node) else node
