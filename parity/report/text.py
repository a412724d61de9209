"""The report as text: a table for each check, one row a tensor in the order of data flow; then one sentence that
answers the question.

Nothing is ever cut. Where a width is given, sentences are wrapped, and of the tables those columns are left out that a
reader misses least, until they fit; a line says which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf, isfinite
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

from parity.compare import GATE, GATE_OF_NETWORK, Row
from parity.report import RECORDED, SCRATCHNET, Check, Report, share

if TYPE_CHECKING:
    from parity.diagnose import Finding

__all__ = ["ASCII_MARKS", "MARKS", "Line", "digits", "how_wrong", "lines", "of_check", "printable", "render", "rough"]

Marks = Mapping[bool | None, str]  # for a tensor that is right, wrong, not compared
MARKS: Marks = {True: "✓", False: "✗", None: "-"}
ASCII_MARKS: Marks = {True: "ok", False: "NO", None: "--"}

COMPARED = {
    "float32": "each operation on Keras's own tensors, against the rounding bound of that operation",
    "float64": f"both runs as a whole, against {GATE:g} of a tensor's largest element plus {GATE_OF_NETWORK:g} of "
    "the network's",
}
OF_YOURS = "whole runs at the same weights and on the same samples, in your code and in Keras"
VERDICT_COLOURS = {"pass": "green", "fail": "red", "no power": "yellow"}


class Line(NamedTuple):
    """One line of the report, and the colour that it has on a terminal; "" for none."""

    text: str
    colour: str = ""


class _Column(NamedTuple):
    title: str
    cell: Callable[[Row], str]
    align: str


def printable(text: str) -> str:
    r"""The text on one line: a name that comes from a file cannot move the cursor. Others than printable characters
    become escapes such as `\n` and `\x1b`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


COLUMNS = (
    _Column("tensor", lambda row: printable(row.tensor), "<"),
    _Column("shape", lambda row: str(row.shape), "<"),
    _Column("worst at", lambda row: str(row.index), "<"),
    _Column(SCRATCHNET, lambda row: digits(row.subject), ">"),
    _Column("Keras", lambda row: digits(row.reference), ">"),
    _Column("difference", lambda row: rough(row.difference), ">"),
    _Column("allowed", lambda row: rough(row.allowed), ">"),
    _Column("used", lambda row: share(row.budgets) if row.compared else "-", ">"),
)
LEFT_OUT: tuple[tuple[str, ...], ...] = ((), ("shape",), ("shape", "allowed"), ("shape", SCRATCHNET, "Keras"))
"""Which columns to do without, the widest table first. `allowed` is difference / used."""


def render(report: Report) -> str:
    """The whole report, every column, no colour."""
    return "\n".join(line.text for line in lines(report))


def lines(report: Report, width: int | None = None, marks: Marks = MARKS) -> Iterator[Line]:
    """The report line by line. width: in columns, None for whatever it takes; marks: what a row begins with."""
    left_out, columns = _fitting(report.rows, width, marks)
    for check in report.checks:
        yield from _check(check, columns, width, marks)
        yield Line("")
    if left_out:
        names = ", ".join(left_out)
        yield from _prose(
            f"left out to fit {width} columns: {names} (a wider terminal, a file and --json have all)", width
        )
    yield from _prose(f"data: {report.data}; batch {report.batch}; seed {report.seed}", width)
    here = {name: value for name, value in report.environment.items() if not name.startswith(RECORDED)}
    for title, conditions in (("versions", here), ("recorded", report.recorded)):
        if conditions:
            yield from _prose(f"{title}: " + ", ".join(f"{n} {value}" for n, value in conditions.items()), width)
    yield Line(printable(f"reproduce: {report.command}"))  # in one piece, to be copied
    yield Line("")
    yield from _prose(report.sentence, width, VERDICT_COLOURS[report.verdict])


def of_check(check: Check) -> str:
    """One check as plain text: its table, and what is below it."""
    _, columns = _fitting(check.rows, None, MARKS)
    return "\n".join(line.text for line in _check(check, columns, None, MARKS))


def _check(check: Check, columns: dict[_Column, int], width: int | None, marks: Marks) -> Iterator[Line]:
    yield from _prose(f"{check.network}, {check.loss}, {check.dtype}, {' and '.join(check.modes)}", width)
    by_hand = check.subject == SCRATCHNET
    yield from _prose(COMPARED[check.dtype] if by_hand else OF_YOURS, width)
    titles = {column: column.title if by_hand or column.title != SCRATCHNET else "yours" for column in columns}
    yield Line(_joined("", titles, columns, marks))
    for row in check.rows:
        cells = {column: column.cell(row) for column in columns}
        mark = marks[row.passed if row.compared else None]
        yield Line(_joined(mark, cells, columns, marks), "" if row.passed else "red")
    if check.first_wrong:
        row = check.first_wrong
        yield from _prose(f"first wrong: {row.tensor}, {how_wrong(row, check.subject)}", width, "red")
    for names, finding in _together(check.findings):
        if finding.cause is not None:
            cause = finding.cause
            yield from _prose(f"cause: {names}: {cause.code}: {cause.text}", width, "red")
            yield from _prose(f"  right: {cause.right}", width)
            yield from _prose(f"  yours: {cause.wrong}", width)
        elif finding.residual:
            yield from _prose(f"the error of {names}: {finding.residual}", width)
    for sentence in (check.vote, check.end_to_end):
        if sentence:
            yield from _prose(sentence, width, "red")
    for sentence in check.conventions:
        yield from _prose(f"convention: {sentence}", width)
    for sentence in check.notes:
        yield from _prose(f"note: {sentence}", width)
    for note in dict.fromkeys(row.note for row in check.rows if row.note):
        names = ", ".join(row.tensor for row in check.rows if row.note == note)
        yield from _prose(f"note: {names}: {note}", width)
    for tensor, reason in check.skipped.items():
        yield from _prose(f"not compared: {tensor}: {reason}", width)
    for sentence in check.kinks:
        yield from _prose(sentence, width)
    for sentence in check.blind:
        yield from _prose(f"could not be seen: {sentence}", width)
    if check.powerless:
        yield from _prose(f"no power: {check.powerless}", width, "yellow")


def _together(findings: Sequence[Finding]) -> list[tuple[str, Finding]]:
    """Each cause once, with the names of all the tensors that it explains."""
    groups: dict[Any, list[Finding]] = {}
    for finding in findings:
        key = (finding.cause.code, finding.cause.text) if finding.cause else finding.tensor
        groups.setdefault(key, []).append(finding)
    return [(", ".join(f.tensor for f in group), group[0]) for group in groups.values()]


def how_wrong(row: Row, subject: str) -> str:
    """What is known of a tensor out of budget; subject: what was compared with Keras."""
    if row.note and row.budgets == inf:
        return f"computed by {row.computed_by}: {row.note}"
    said = (
        f"computed by {row.computed_by}: {row.outside} of {row.size} elements are out of budget; worst at {row.index} "
        f"({row.mode}): {subject} {digits(row.subject)}, Keras {digits(row.reference)}, {rough(row.allowed)} allowed"
    )
    if not isfinite(row.difference):  # the sizes below leave such elements out, and would read as a small error
        return said
    sizes = f"{rough(row.largest_relative)}, {rough(row.largest_ulp)} units in the last place"
    return f"{said}; largest relative error {sizes}"


def _prose(text: str, width: int | None, colour: str = "") -> Iterator[Line]:
    """Text as one line, or wrapped between words where a width is given."""
    text = printable(text)
    pieces = [text]
    if width is not None:
        pieces = wrap(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    for piece in pieces:
        yield Line(piece, colour)


def _fitting(rows: Sequence[Row], width: int | None, marks: Marks) -> tuple[tuple[str, ...], dict[_Column, int]]:
    """What to leave out, and the other columns with their widths, which are the same in all tables of the report."""
    widths = {column: max(len(column.title), *(len(column.cell(row)) for row in rows), 0) for column in COLUMNS}
    for left_out in LEFT_OUT:
        columns = {column: wide for column, wide in widths.items() if column.title not in left_out}
        if width is None or len(_joined("", {}, columns, marks)) <= width:
            break
    return left_out, columns


def _joined(mark: str, cells: dict[_Column, str], columns: dict[_Column, int], marks: Marks) -> str:
    padded = [f"{cells.get(column, ''):{column.align}{wide}}" for column, wide in columns.items()]
    return "  ".join([f"{mark:<{max(map(len, marks.values()))}}", *padded])


def digits(value: float) -> str:
    """A value, as somebody compares it with another."""
    return f"{value:.6g}"


def rough(value: float) -> str:
    """A size, where two digits say enough."""
    return f"{value:.2g}"
