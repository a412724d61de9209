"""The result of a check, and its forms: text and Markdown for people, JSON and JUnit XML for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.compare import Row

if TYPE_CHECKING:
    from parity.diagnose import Cause, Finding

__all__ = ["RECORDED", "Check", "Report", "share"]


SCRATCHNET = "scratchnet"  # what is compared with Keras where nobody brings a network
RECORDED = "recorded_"  # begins the names of what a recording was made with
NAMED = 4  # networks: more of them are counted
NOTHING = "nothing was compared"
WORST = 10  # tensors: as many as GitHub shows annotations of one step


def share(budgets: float) -> str:
    """A number of budgets in two digits: 0.31, 3.1e+05. What is just over one is never rounded to a 1 that is right."""
    shown = f"{budgets:.2g}"
    return ">1" if shown == "1" and budgets > 1 else shown


def how_far(row: Row) -> str:
    """By how much a row is out of budget, or why it cannot be compared."""
    return row.note if row.note and row.budgets == inf else f"{share(row.budgets)} times the allowed difference"


def _rounding(row: Row) -> str:
    """A difference of two right float32 runs in units in the last place, as somebody sees it who prints the digits."""
    if not row.difference:
        return ""
    with np.errstate(over="ignore", invalid="ignore"):  # a saved report may hold what float32 does not
        ulp = float(np.spacing(np.abs(np.float32(row.reference))))
    return f": {row.difference / ulp:.3g} ULP there, nothing to fix"


def _first(sentences: Iterable[str]) -> str:
    return next((sentence for sentence in sentences if sentence), "")


@dataclass(frozen=True)
class Check:
    """One network, one loss, one dtype: a row for each tensor, in the order of data flow.

    modes: the ways the reference ran (eager, function); each row is the worse of them, and says which.
    skipped: tensors that only one side has, or that overflow, with the reason. powerless: why this check could not have
    failed; empty where it could. blind: what a mistake could hide behind. kinks: the gradients with two right answers.
    findings: every wrong tensor, with the mistake that explains it where one does. vote: where the sides differ, whose
    gradient finite differences find right, or which arithmetic explains it. end_to_end: whether that matters to a whole
    float32 run. conventions: what the subject does otherwise than Keras and not wrongly. notes: what else is worth
    knowing. subject: what is compared with Keras.
    """

    network: str
    loss: str
    dtype: str
    modes: tuple[str, ...]
    rows: tuple[Row, ...]
    skipped: Mapping[str, str]
    powerless: str = ""
    blind: tuple[str, ...] = ()
    kinks: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    vote: str = ""
    end_to_end: str = ""
    conventions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    subject: str = SCRATCHNET

    @property
    def passed(self) -> bool:
        return bool(self.rows) and not self.powerless and all(row.passed for row in self.rows)

    @property
    def first_wrong(self) -> Row | None:
        """The first tensor out of budget in the order of data flow: where the mistake is."""
        return next((row for row in self.rows if not row.passed), None)

    def cause_of(self, row: Row) -> Cause | None:
        """The mistake that explains a wrong tensor. A finding calls it as the row does, or `dW2 (as the row does)`."""
        causes = (f.cause for f in self.findings if f.tensor == row.tensor or f.tensor.endswith(f" ({row.tensor})"))
        return next(causes, None)

    @property
    def why_powerless(self) -> str:
        """Why nothing can be concluded from it; empty where something can."""
        return self.powerless or ("" if self.rows else NOTHING)

    @property
    def worst(self) -> Row:
        return max(self.rows, key=lambda row: row.budgets)


@dataclass(frozen=True, repr=False)
class Report:
    """All checks of one run.

    data: what the inputs were; command: what reproduces the run; environment: versions and settings of the machine,
    and, under names that begin with `RECORDED`, those of the machine where a recording was made.
    """

    checks: tuple[Check, ...]
    data: str
    batch: int
    seed: int
    command: str
    environment: Mapping[str, Any]

    @property
    def recorded(self) -> dict[str, Any]:
        """Versions and settings of the recording that stood in for Keras; empty where Keras ran."""
        return {n.removeprefix(RECORDED): value for n, value in self.environment.items() if n.startswith(RECORDED)}

    def __repr__(self) -> str:
        """Short, because `assert report.passed` shows it."""
        return f"<Report {self.verdict}: {self.sentence}>"

    @property
    def verdict(self) -> str:
        """pass, fail, or no power: at least one check compared nothing that could have failed, and none failed."""
        if any(check.first_wrong for check in self.checks):
            return "fail"
        return "pass" if self.checks and all(check.passed for check in self.checks) else "no power"

    @property
    def passed(self) -> bool:
        return self.verdict == "pass"

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong, in the order of data flow, of all checks."""
        return tuple(finding for check in self.checks for finding in check.findings)

    @property
    def cause(self) -> Cause | None:
        """That of the first wrong tensor, as the first check that knows it names it."""
        first = ((check, check.first_wrong) for check in self.checks)
        causes = (check.cause_of(row) for check, row in first if row is not None)
        return next((cause for cause in causes if cause is not None), None)

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of all checks."""
        return tuple(row for check in self.checks for row in check.rows)

    def worst_rows(self, count: int = WORST) -> tuple[tuple[Check, Row], ...]:
        """The rows of all checks that use most of their budgets, each with its check, the worst first."""
        every = [(check, row) for check in self.checks for row in check.rows]
        return tuple(sorted(every, key=lambda pair: -pair[1].budgets)[:count])

    @property
    def exit_status(self) -> int:
        return {"pass": 0, "fail": 1, "no power": 3}[self.verdict]

    @property
    def sentence(self) -> str:
        """One sentence that answers the question."""
        failed = [check for check in self.checks if check.first_wrong]
        if not failed:
            return self._agreement() if self.passed else self._powerless()
        check = failed[0]
        row = check.first_wrong
        assert row is not None
        others = sum(not r.passed for c in failed for r in c.rows) - 1
        more = f"; {others} more {'tensor is' if others == 1 else 'tensors are'} out of budget" if others else ""
        recorded = " from what was recorded" if self.recorded else ""
        return (
            f"No: {row.tensor} is the first tensor that differs{recorded}, computed by {row.computed_by} "
            f"({check.network}, {check.loss}, {check.dtype}): {how_far(row)}{more}"
            + "".join(f"; {said}" for said in self._explanations(failed) if said)
            + "."
        )

    def _explanations(self, failed: Sequence[Check]) -> tuple[str, ...]:
        """The cause, who is right, and whether it matters: each as the first check that knows says it."""
        return (
            f"{self.cause.code}: {self.cause.text}" if self.cause else "",
            _first(check.vote for check in failed),
            _first(check.end_to_end for check in failed),
        )

    def _agreement(self) -> str:
        names = list(dict.fromkeys(check.network for check in self.checks))
        what = ", ".join(names) if len(names) <= NAMED else f"{len(names)} networks"
        nearest = max(self.checks, key=lambda check: check.worst.budgets)
        worst = nearest.worst
        who = " and ".join(dict.fromkeys(check.subject for check in self.checks))
        dtypes = " and ".join(dict.fromkeys(check.dtype for check in self.checks))
        compared = sum(row.compared for row in self.rows)
        others = len(self.rows) - compared
        overflown = f" ({others} could not be compared)" if others else ""
        reference = "the recorded Keras" if self.recorded else "Keras"
        return (
            f"Yes: {who} and {reference} compute the same {what} in {dtypes}: {compared} of {len(self.rows)} "
            f"tensors are within budget{overflown}, the worst uses {share(worst.budgets)} of it ({worst.tensor})"
            f"{_rounding(worst) if nearest.dtype == 'float32' else ''}."
        )

    def _powerless(self) -> str:
        powerless = [check for check in self.checks if not check.passed]
        reasons = "; ".join(dict.fromkeys(f"{check.network}: {check.why_powerless}" for check in powerless))
        return f"Nothing can be concluded: {reasons or NOTHING}."

    def to_json(self) -> str:
        """The report as a JSON document; see `parity.report.json`."""
        from parity.report import json

        return json.render(self)

    def to_junit(self) -> str:
        """The report as JUnit XML; see `parity.report.junit`."""
        from parity.report import junit

        return junit.render(self)

    def to_markdown(self) -> str:
        """The report in short, as Markdown for GitHub; see `parity.report.markdown`."""
        from parity.report import markdown

        return markdown.render(self)

    def to_text(self) -> str:
        """The report as plain text, as the command line shows it without colour."""
        from parity.report import text

        return text.render(self)
