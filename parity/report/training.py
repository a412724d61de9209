"""The result of comparing a hand-written update with Keras's optimizer, step by step."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from parity.report import share
from parity.report.json import strict
from parity.report.schema import read

__all__ = ["Cause", "Finding", "TrainingReport", "schema"]

SCHEMA_VERSION = 1


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what `TrainingReport.to_json` writes."""
    return read("training.schema.json")


@dataclass(frozen=True)
class Cause:
    """A rule that makes exactly these weights.

    code: stable, for programs; several are joined by `+`. text: one sentence that says what is wrong; right, wrong: the
    formulas. explains: the share of the error that it explains, 1 - |residual| / |error| in the 2-norm. convention: who
    does it that way; empty unless nothing but a convention differs, and nothing is a mistake.
    """

    code: str
    text: str
    right: str
    wrong: str
    explains: float
    convention: str = ""


@dataclass(frozen=True)
class Finding:
    """One tensor out of budget.

    step: the first at which it is, counted from 1; place: the index of its worst element there; yours, keras: its
    values; budgets: the difference, in units of what is allowed. cause: what explains all its steps, None where nothing
    does; also: what explains them as well. residual: what the error looks like that has no cause.
    """

    tensor: str
    step: int
    place: tuple[int, ...]
    yours: float
    keras: float
    budgets: float
    cause: Cause | None
    also: tuple[Cause, ...] = ()
    residual: str = ""


@dataclass(frozen=True)
class TrainingReport:
    """One hand-written update against one optimizer of Keras.

    optimizer: in words; learning_rates: of each step; tensors: their names; form: how the code was given them; when:
    from which step on it differs, in words; worst: the largest difference in budgets; first_t: what t was at the first
    step. notes: what was seen besides;
    blind: the mistakes that these steps could not have shown; powerless: why nothing could have failed, or empty.
    """

    optimizer: str
    steps: int
    learning_rates: tuple[float, ...]
    tensors: tuple[str, ...]
    form: str
    findings: tuple[Finding, ...]
    when: str
    worst: float
    first_t: int
    seed: int
    notes: tuple[str, ...]
    blind: tuple[str, ...]
    powerless: str
    environment: Mapping[str, Any]

    @property
    def verdict(self) -> str:
        """pass, fail, or no power: nothing moved, so that nothing could have failed."""
        if self.findings:
            return "fail"
        return "no power" if self.powerless else "pass"

    @property
    def passed(self) -> bool:
        return self.verdict == "pass"

    @property
    def exit_status(self) -> int:
        return {"pass": 0, "fail": 1, "no power": 3}[self.verdict]

    @property
    def sentence(self) -> str:
        """One sentence that answers the question."""
        if self.verdict == "no power":
            return f"Nothing can be concluded: {self.powerless}."
        if not self.findings:
            counted = ", with t counted from 0" if self.first_t == 0 else ""
            return (
                f"Yes: your update is Keras's {self.optimizer}: {_count(len(self.tensors), 'tensor')}, the same "
                f"after each of {_count(self.steps, 'step')}{counted}; the worst uses "
                f"{share(self.worst)} of its budget."
            )
        first = self.findings[0]
        others = [f for f in self.findings[1:] if _code(f) != _code(first)]
        more = f"; {_count(len(others), 'more tensor')} with another error" if others else ""
        if first.cause is not None:
            return f"{self.when}: {first.cause.text}{more}."
        return f"{self.when}: no known mistake explains it; {first.residual}{more}."

    def to_text(self) -> str:
        """The report as plain text; the first line is the answer."""
        return "\n".join(self._lines())

    def to_json(self) -> str:
        """The report as the JSON document that `training.schema.json` describes."""
        document = {
            "kind": "training",
            "schema_version": SCHEMA_VERSION,
            "verdict": self.verdict,
            "passed": self.passed,
            "sentence": self.sentence,
            **{key: value for key, value in asdict(self).items() if key != "environment"},
            "environment": dict(self.environment),
        }
        return json.dumps(strict(document), indent=2, allow_nan=False)

    def _lines(self) -> Iterator[str]:
        yield self.sentence
        told: set[str] = set()
        for finding in self.findings:
            yield (
                f"✗ {finding.tensor} from step {finding.step}: {finding.yours:.17g} at {finding.place}, Keras has "
                f"{finding.keras:.17g}, {share(finding.budgets)} times the allowed difference"
            )
            if finding.cause is None:
                yield f"  no cause found: {finding.residual}"
            elif finding.cause.code not in told:
                told.add(finding.cause.code)
                yield from _cause("cause", finding.cause)
                for other in finding.also:
                    yield from _cause("or, just as well", other)
        yield f"optimizer: {self.optimizer}"
        rates = self.learning_rates
        changes = [str(t + 1) for t in range(1, self.steps) if rates[t] != rates[t - 1]]
        at = f"; it changes at step {', '.join(changes)}" if changes else "; it stays the same"
        yield f"{_count(self.steps, 'step')}, learning rate {rates[0]:g}{at}; seed {self.seed}"
        yield f"tensors: {', '.join(self.tensors)}, handed over as {self.form}"
        yield from (f"note: {note}" for note in self.notes)
        yield from (f"could not be seen: {text}" for text in self.blind)
        yield "versions: " + ", ".join(f"{name} {value}" for name, value in self.environment.items())


def _cause(head: str, cause: Cause) -> Iterator[str]:
    yield f"  {head}: {cause.code}: {cause.text}"
    yield f"    right: {cause.right}"
    yield f"    yours: {cause.wrong}"


def _code(finding: Finding) -> str:
    return finding.cause.code if finding.cause else ""


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
