"""What the comparison of recordings found, and its forms: text for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from parity.compare import Row
from parity.report import how_far, share
from parity.report.json import strict
from parity.report.schema import read
from parity.report.text import MARKS, Line, digits, printable, rough

__all__ = ["KIND", "SCHEMA_VERSION", "Compared", "Drift", "Pair", "changed", "schema"]

KIND = "drift"
SCHEMA_VERSION = 1
"""Grows when a key goes or changes its meaning."""

IDENTICAL, WITHIN, BEYOND, NOT_COMPARED = "identical", "within budget", "beyond budget", "not compared"
STATUS = {IDENTICAL: 0, WITHIN: 0, BEYOND: 1, NOT_COMPARED: 3}
SHOWN = 3  # tensors of a recording that drifted; --json has all


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what `Drift.to_json` writes."""
    return read("drift.schema.json")


@dataclass(frozen=True)
class Compared:
    """One run that both recordings have.

    at: the samples and weights, in words; modes: of the left and of the right one. rows: of the tensors whose bits
    differ, in the order of data flow, the left recording as `reference`, the right one as `subject`. identical: how
    many tensors have the same bits.
    """

    at: str
    dtype: str
    modes: tuple[str, str]
    rows: tuple[Row, ...]
    identical: int

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)

    @property
    def title(self) -> str:
        left, right = self.modes
        return f"{self.dtype}, {left if left == right else f'{left} against {right}'}, {self.at}"


@dataclass(frozen=True)
class Pair:
    """One network and loss in both recordings.

    conditions: what is not the same where they were recorded, each as it is left and right; reasons: what explains that
    bits differ; unlike: why the two cannot be compared, empty where they were.
    """

    name: str
    runs: tuple[Compared, ...] = ()
    conditions: Mapping[str, tuple[Any, Any]] | None = None
    reasons: tuple[str, ...] = ()
    unlike: str = ""

    @property
    def verdict(self) -> str:
        """identical, within budget, beyond budget, or not compared."""
        if self.unlike:
            return NOT_COMPARED
        if not all(run.passed for run in self.runs):
            return BEYOND
        return WITHIN if any(run.rows for run in self.runs) else IDENTICAL

    @property
    def tensors(self) -> int:
        return sum(run.identical + len(run.rows) for run in self.runs)

    @property
    def identical(self) -> int:
        return sum(run.identical for run in self.runs)

    @property
    def worst(self) -> tuple[Compared, Row] | None:
        """The row that uses most of its budget, with its run; None where all bits are the same."""
        found = [(run, row) for run in self.runs for row in run.rows]
        return max(found, key=lambda each: each[1].budgets, default=None)

    @property
    def beyond(self) -> list[tuple[Compared, Row]]:
        """The tensors that drifted, in the order of data flow of each run, float64 first."""
        runs = sorted(self.runs, key=lambda run: run.dtype != "float64")
        return [(run, row) for run in runs for row in run.rows if not row.passed]


@dataclass(frozen=True)
class Drift:
    """Two recordings, or two folders of them, compared. left, right: what was compared, as it was named; environments:
    where each was recorded."""

    left: str
    right: str
    pairs: tuple[Pair, ...]
    environments: tuple[Mapping[str, Any], Mapping[str, Any]]

    @property
    def verdict(self) -> str:
        """The worst of the networks; one of which nothing can be said is worse than one that agrees."""
        verdicts = {pair.verdict for pair in self.pairs}
        return next(each for each in (BEYOND, NOT_COMPARED, WITHIN, IDENTICAL) if each in verdicts)

    @property
    def passed(self) -> bool:
        return self.exit_status == 0

    @property
    def exit_status(self) -> int:
        """0: the same within budgets; 1: something is beyond; 3: of some of it nothing can be said."""
        return STATUS[self.verdict]

    @property
    def changed(self) -> dict[str, tuple[Any, Any]]:
        """The conditions that are not the same, each as it is left and right."""
        return changed(*self.environments)

    @property
    def sentence(self) -> str:
        """One sentence that answers the question."""
        if self.verdict == BEYOND:
            return self._drifted()
        return self._unlike() if self.verdict == NOT_COMPARED else f"Yes: {self._agreement(self.pairs)}."

    def _drifted(self) -> str:
        pair = next(pair for pair in self.pairs if pair.verdict == BEYOND)
        run, row = pair.beyond[0]
        others = sum(len(each.beyond) for each in self.pairs) - 1
        more = f"; {_count(others, 'more tensor')} beyond budget" if others else ""
        why = f"; {pair.reasons[0]}" if pair.reasons else ""
        where = f"{pair.name}, {run.title}"
        return f"No: {row.tensor} is the first tensor that drifted ({where}): {how_far(row)}{more}{why}."

    def _unlike(self) -> str:
        unlike = [pair for pair in self.pairs if pair.unlike]
        compared = [pair for pair in self.pairs if not pair.unlike]
        others = f"; of the others: {self._agreement(compared)}" if compared else ""
        first = f"{unlike[0].name}: {unlike[0].unlike}"
        more = f", and {_count(len(unlike) - 1, 'more')}" if len(unlike) > 1 else ""
        return f"Nothing can be concluded of {_count(len(unlike), 'network')}: {first}{more}{others}."

    def _agreement(self, pairs: Sequence[Pair]) -> str:
        tensors, identical = sum(p.tensors for p in pairs), sum(p.identical for p in pairs)
        what = f"{_count(len(pairs), 'network')}, {_count(tensors, 'tensor')}"
        worst = max((p.worst for p in pairs if p.worst), key=lambda each: each[1].budgets, default=None)
        if worst is None:
            return f"every bit of {what} is the same"
        run, row = worst
        return (
            f"of {what}, {identical} are the same bit for bit, and the others are within budget; the worst uses "
            f"{share(row.budgets)} of it ({row.tensor}, {run.dtype}{_ulp(run, row)})"
        )

    def to_text(self) -> str:
        """The report as plain text; the last line is the answer."""
        return "\n".join(line.text for line in self.lines())

    def lines(self, marks: Mapping[bool | None, str] = MARKS) -> Iterator[Line]:
        """The report line by line, with the colours that a terminal shows. marks: what the line of a network begins
        with."""
        yield Line(printable(f"left:  {self.left}"))
        yield Line(printable(f"right: {self.right}"))
        for condition, (left, right) in self.changed.items():
            yield Line(printable(f"changed: {condition}: {left} -> {right}"))
        yield Line("")
        wide = max(len(printable(pair.name)) for pair in self.pairs)
        for pair in self.pairs:
            yield from _lines(pair, wide, marks)
        yield Line("")
        for reason, names in self.explained().items():
            whom = "" if len(names) == len(self.pairs) else f" ({_named(names)})"
            yield Line(printable(f"explained{whom}: {reason}"))
        yield Line(printable(self.sentence), {0: "green", 1: "red", 3: "yellow"}[self.exit_status])

    def explained(self) -> dict[str, list[str]]:
        """Reason -> the networks whose difference it explains."""
        found: dict[str, list[str]] = {}
        for pair in self.pairs:
            for reason in pair.reasons:
                found.setdefault(reason, []).append(pair.name)
        return found

    def to_json(self) -> str:
        """The report as the JSON document that `drift.schema.json` describes."""
        document = {
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
            "verdict": self.verdict,
            "passed": self.passed,
            "sentence": self.sentence,
            "left": self.left,
            "right": self.right,
            "environments": list(self.environments),
            "pairs": [_pair(pair) for pair in self.pairs],
        }
        return json.dumps(strict(document), indent=2, allow_nan=False)


def changed(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What is not the same in two mappings, each as it is left and right; None where it is not there."""
    return {key: (left.get(key), right.get(key)) for key in {**left, **right} if left.get(key) != right.get(key)}


def _lines(pair: Pair, wide: int, marks: Mapping[bool | None, str]) -> Iterator[Line]:
    mark = {IDENTICAL: True, WITHIN: True, BEYOND: False, NOT_COMPARED: None}[pair.verdict]
    said = f"{marks[mark]}  {printable(pair.name):{wide}}  "
    if pair.unlike:
        yield Line(said + printable(pair.unlike), "yellow")
        return
    count = f"{_count(len(pair.runs), 'run')}, {pair.identical} of {_count(pair.tensors, 'tensor')} identical"
    worst = pair.worst
    if worst is not None:
        run, row = worst
        count += f", worst {share(row.budgets)} budgets: {printable(row.tensor)}, {run.title}{_ulp(run, row)}"
    yield Line(said + count, "red" if pair.beyond else "")
    for run, row in pair.beyond[:SHOWN]:
        yield Line(
            f"     {printable(row.tensor)}, {run.title}: {how_far(row)}: {row.outside} of {row.size} "
            f"{'sums' if row.note else 'elements'}, worst at {row.index}: left {digits(row.reference)}, right "
            f"{digits(row.subject)}, {rough(row.allowed)} allowed",
            "red",
        )
    if len(pair.beyond) > SHOWN:
        yield Line(f"     and {_count(len(pair.beyond) - SHOWN, 'more tensor')}", "red")
    for note in dict.fromkeys(row.note for run in pair.runs for row in run.rows if row.note and row.passed):
        yield Line(printable(f"     note: {note}"))


def _pair(pair: Pair) -> dict[str, Any]:
    return {
        "network": pair.name,
        "verdict": pair.verdict,
        "unlike": pair.unlike,
        "tensors": pair.tensors,
        "identical": pair.identical,
        "conditions": {key: list(values) for key, values in (pair.conditions or {}).items()},
        "reasons": list(pair.reasons),
        "runs": [
            {
                "at": run.at,
                "dtype": run.dtype,
                "modes": list(run.modes),
                "identical": run.identical,
                "rows": [{f.name: getattr(row, f.name) for f in fields(row) if f.repr} for row in run.rows],
            }
            for run in pair.runs
        ],
    }


def _ulp(run: Compared, row: Row) -> str:
    """The worst difference in units in the last place, of a tensor that rounding moved."""
    if not row.passed or row.note or not row.difference:
        return ""
    unit = np.spacing(np.abs(np.asarray(row.reference, run.dtype)))
    return f": {row.difference / float(unit):.3g} ULP there"


def _named(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= SHOWN else f"{', '.join(names[:SHOWN])} and {len(names) - SHOWN} more"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 or thing.endswith('more') else 's'}"
