"""A saved report, read back and judged again: the verdict is that of the rows, whatever the document says it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from math import inf, isnan
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from parity.compare import Row
from parity.diagnose import Finding
from parity.diagnose.findings import Cause
from parity.errors import FileError
from parity.report import Check, Report
from parity.report.json import KIND, SCHEMA_VERSION, schema
from parity.report.schema import problem
from parity.weights.formats.limits import blamed, mapped, shown

__all__ = ["load"]

LONGEST = 16 * 2**20
"""Bytes: eight times the report of all built-in cases."""
MOST_CONTAINERS = LONGEST // 128
"""Lists and objects: a row of a report has two, and some 500 bytes. A text of nothing but brackets would take 48 times
its length; with so many it takes 16, as `parity.weights.formats.limits` explains."""

Made = TypeVar("Made", Row, Cause)


def load(path: str | Path) -> Report:
    """The report that `parity check --json` wrote. FileError for everything else, and where a document contradicts
    its own rows."""
    with blamed(path):
        document = _document(Path(path))
        _require_known(document)
        try:
            report = _report(document)
        except OverflowError as error:
            raise FileError("expected numbers within float64, received a larger one") from error
        for key, received, judged in _contradictions(document, report):
            raise FileError(
                f"{key}: the rows say {shown(judged)}, the document says {shown(received)}: it was changed after it "
                "was written, so nothing can be read off it; run the check again"
            )
        return report


# -- reading -----------------------------------------------------------------------------------------------------------


def _document(path: Path) -> Any:
    text: bytes | memoryview = mapped(path)
    if len(text) > LONGEST:
        raise FileError(f"expected a report of at most {LONGEST} bytes, received {len(text)}")
    text = bytes(text)
    if (count := text.count(b"[") + text.count(b"{")) > MOST_CONTAINERS:
        raise FileError(f"expected a report of at most {MOST_CONTAINERS} lists and objects, received {count}")
    try:
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise FileError(f"expected JSON, received line {error.lineno}, column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # not text, a number of thousands of digits, endless nesting
        raise FileError(f"expected JSON, received {shown(str(error))}") from error


def _refuse(constant: str) -> NoReturn:
    raise FileError(f'expected JSON, received {constant}, which is no JSON; parity writes the strings "nan" and "inf"')


def _require_known(document: Any) -> None:
    """That it is a report, of this version, with everything that belongs to one."""
    kind, version = (document.get(key) if isinstance(document, dict) else None for key in ("kind", "schema_version"))
    if kind != KIND:
        received = shown(document) if kind is None else f"the kind {shown(kind)}"
        raise FileError(f"expected a report as `parity check --json` writes it, received {received}")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise FileError(
            f"schema_version: expected {SCHEMA_VERSION}, received {shown(version)}: it was written by a later parity; "
            "update this one"
        )
    if (found := problem(document, schema())) is not None:
        raise FileError(f"{found.where}: {found.text}" if found.where else found.text)


# -- the report again --------------------------------------------------------------------------------------------------


def _report(document: Mapping[str, Any]) -> Report:
    return Report(
        checks=tuple(_check(check) for check in document["checks"]),
        data=document["data"],
        batch=int(document["batch"]),
        seed=int(document["seed"]),
        command=document["command"],
        environment=document["environment"],
    )


def _check(data: Mapping[str, Any]) -> Check:
    return Check(
        network=data["network"],
        loss=data["loss"],
        dtype=data["dtype"],
        modes=tuple(data["modes"]),
        rows=tuple(_made(Row, row) for row in data["rows"]),
        skipped=data["skipped"],
        powerless=data["powerless"],
        blind=tuple(data["blind"]),
        kinks=tuple(data["kinks"]),
        findings=tuple(_finding(finding) for finding in data["findings"]),
        vote=data["vote"],
        end_to_end=data["end_to_end"],
        conventions=tuple(data["conventions"]),
        notes=tuple(data["notes"]),
        subject=data["subject"],
    )


def _finding(data: Mapping[str, Any]) -> Finding:
    cause = data["cause"]
    return Finding(
        tensor=data["tensor"],
        place=data["place"],
        budgets=float(data["budgets"]),
        cause=None if cause is None else _made(Cause, cause),
        residual=data["residual"],
    )


CONVERSIONS: Mapping[str, Callable[[Any], Any]] = {
    "str": str,
    "bool": bool,
    "int": int,
    "float": float,  # of "nan" and "inf", too
    "tuple[str, ...]": tuple,
    "tuple[int, ...]": lambda numbers: tuple(int(number) for number in numbers),
}
"""From what JSON has to what a field of a dataclass is declared as."""


def _made(kind: type[Made], data: Mapping[str, Any]) -> Made:
    """A dataclass of the keys of its fields. The array of elements of a row is not saved."""
    given = [field for field in fields(kind) if field.repr]
    return kind(**{field.name: CONVERSIONS[str(field.type)](data[field.name]) for field in given})


# -- judged again ------------------------------------------------------------------------------------------------------


def _contradictions(document: Mapping[str, Any], report: Report) -> Iterator[tuple[str, Any, Any]]:
    """Key, what the document says, and what follows from its rows. Of the sentence only its answer is compared: the
    rest is worded otherwise in the next release."""
    yield from _different("verdict", document["verdict"], report.verdict)
    yield from _different("passed", document["passed"], report.passed)
    yield from _different("sentence", _answer(document["sentence"]), _answer(report.sentence))
    for position, (data, check) in enumerate(zip(document["checks"], report.checks, strict=True)):
        yield from _different(f"checks[{position}].passed", data["passed"], check.passed)
    every = [finding for data in document["checks"] for finding in data["findings"]]
    yield from _different("findings", document["findings"], every)
    for position, check in enumerate(report.checks):
        for number, row in enumerate(check.rows):
            if row.passed and (used := _used_by(row)) > 1:
                yield f"checks[{position}].rows[{number}].budgets", row.budgets, used


def _used_by(row: Row) -> float:
    """What the difference of a row uses of what is allowed. An infinite budget allows everything, and where a right
    result overflows, a NaN stands in its place, as in `parity.compare`."""
    if row.outside or row.allowed == 0 < row.difference:
        return inf
    return 0.0 if row.difference == 0 or isnan(row.allowed) else row.difference / row.allowed


def _different(key: str, received: Any, judged: Any) -> Iterator[tuple[str, Any, Any]]:
    if received != judged:
        yield key, received, judged


def _answer(sentence: str) -> str:
    return sentence.partition(":")[0]
