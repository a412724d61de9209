"""The report in short, as Markdown for GitHub: the verdict, the first wrong tensor and its cause, the ten worst
tensors, and what reproduces the run.

Names come from files. What is a sign of Markdown or HTML in them is written as a numeric entity, which CommonMark never
takes for structure; an empty comment stands where GitHub would make a link or call somebody (`@name`, `#12`, an
address), because it looks for those in the text behind the entities.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from parity.report import SCRATCHNET, Check, Report, share
from parity.report.text import digits, how_wrong, printable, rough

__all__ = ["code", "plain", "render"]

VERDICTS = {"pass": "✓ pass", "fail": "✗ fail", "no power": "? no power"}

_SIGNS = re.compile(r"[&<>\[\]|\\`*~$]|(?<![^\W_])_|_(?![^\W_])")  # an underscore within a word is none
_LINKS = re.compile(r"(?<=[@#])(?=\w)|(?<=:)(?=//)|(?<=www)(?=\.)|(?<=GH-)(?=\d)", re.IGNORECASE)


def plain(text: str) -> str:
    """Text that stays what it is, on one line."""
    pieces = _LINKS.split(printable(text))
    return "<!-- -->".join(_SIGNS.sub(lambda sign: f"&#{ord(sign[0])};", piece) for piece in pieces)


def code(text: str) -> str:
    """A name or a formula. A code span of backticks has no way to write a `|` in a table that all readers agree on."""
    return f"<code>{plain(text)}</code>"


def render(report: Report) -> str:
    """The document, with a final newline."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"## parity: {VERDICTS[report.verdict]}"
    yield ""
    yield plain(report.sentence)
    yield ""
    yield from _first_wrong(report)
    yield from _worst(report)
    yield from _fenced(report.command)
    yield from _details(f"Checks: {len(report.checks)}", _checks(report.checks))
    told = {"data": report.data, "batch": report.batch, "seed": report.seed, **report.environment}
    yield from _details("Environment", _table(("what", "value"), [(plain(k), plain(str(v))) for k, v in told.items()]))


def _first_wrong(report: Report) -> Iterator[str]:
    """The tensor where to look, and what is known of the mistake."""
    check = next((check for check in report.checks if check.first_wrong is not None), None)
    if check is None or (row := check.first_wrong) is None:
        return
    yield f"- **First wrong:** {code(row.tensor)}, {plain(how_wrong(row, check.subject))}"
    if (cause := report.cause) is not None:
        yield f"- **Cause:** {code(cause.code)}: {plain(cause.text)}"
        yield f"- **Right:** {code(cause.right)}"
        yield f"- **Yours:** {code(cause.wrong)}"
    yield ""


def _worst(report: Report) -> Iterator[str]:
    pairs = report.worst_rows()
    by_hand = all(check.subject == SCRATCHNET for check, _ in pairs)
    titles = ("", "tensor", "network, loss, dtype", "worst at", SCRATCHNET if by_hand else "yours", "Keras",
              "difference", "allowed", "used")  # fmt: skip
    cells = [
        (
            "-" if not row.compared else "✓" if row.passed else "✗",
            code(row.tensor),
            plain(_name(check)),
            str(row.index),
            digits(row.subject),
            digits(row.reference),
            rough(row.difference),
            rough(row.allowed),
            share(row.budgets) if row.compared else "-",
        )
        for check, row in pairs
    ]
    if cells:
        yield f"The worst of {len(report.rows)} tensors; used = difference / allowed, up to 1 is right:"
        yield ""
        yield from _table(titles, cells)
        yield ""


def _checks(checks: Sequence[Check]) -> Iterator[str]:
    cells = [
        (
            plain(_name(check)),
            "✓" if check.passed else "✗" if check.first_wrong else plain(f"no power: {check.why_powerless}"),
            f"{sum(row.passed and row.compared for row in check.rows)} of {len(check.rows)}",
            share(check.worst.budgets) if check.rows else "-",
        )
        for check in checks
    ]
    yield from _table(("network, loss, dtype", "passed", "tensors within budget", "worst uses"), cells)


def _name(check: Check) -> str:
    return f"{check.network}, {check.loss}, {check.dtype}"


def _table(titles: Sequence[str], cells: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (titles, ["---"] * len(titles), *cells):
        yield f"| {' | '.join(row)} |"


def _details(title: str, lines: Iterator[str]) -> Iterator[str]:
    """Folded; the empty lines end the HTML, so that what is between them is read as Markdown."""
    yield from (f"<details><summary>{title}</summary>", "", *lines, "", "</details>", "")


def _fenced(command: str) -> Iterator[str]:
    """A command to be copied, between more backticks than it has in a row."""
    command = printable(command)
    fence = "`" * max(3, *(len(ticks) + 1 for ticks in re.findall("`+", command)), 0)
    yield from ("Reproduce:", "", fence, command, fence, "")
