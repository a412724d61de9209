"""What the terminal says at the end of a run: a line for each check, the worst first; with -q, one line."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import pytest

from parity.pytest_plugin.result import Result, failed

__all__ = ["Told", "compared", "in_order", "named", "totals", "write"]

Told = tuple[str, Result]
"""The node id of a test, and the result of one of its checks."""

PRUNE = "parity goldens --prune"


def write(terminal: pytest.TerminalReporter, results: Mapping[str, Sequence[Result]], unused: Sequence[str]) -> None:
    told = in_order(results)
    if terminal.config.get_verbosity() < 0:
        left = f"; {_goldens(len(unused))} unused: {PRUNE}" if unused else ""
        terminal.write_line(f"parity: {totals(told)}{left}")
    else:
        terminal.write_sep("=", "parity")
        for line, (_, result) in zip(_table(told), told, strict=True):
            terminal.write_line(line, red=failed(result))
        terminal.write_line(totals(told))
        for golden in unused:
            terminal.write_line(f"unused: {golden}", yellow=True)
        if unused:
            terminal.write_line(f"No test asks for {_goldens(len(unused))}; to delete: {PRUNE}")
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from parity.pytest_plugin import actions

        actions.tell(terminal, told)


def in_order(results: Mapping[str, Sequence[Result]]) -> list[Told]:
    """What did not pass comes first, then what uses most of its budget."""
    told = [(nodeid, result) for nodeid, each in results.items() for result in each]
    return sorted(told, key=lambda pair: (not failed(pair[1]), -pair[1]["budgets"], pair[0], pair[1]["name"]))


def totals(told: Sequence[Told]) -> str:
    """One line: how many, and how near to its budget the nearest is that passed."""
    if not told:
        return "none checked"
    passed = [result for _, result in told if not result["message"]]
    wrong = sum(failed(result) for _, result in told)
    expected = len(told) - len(passed) - wrong
    said = f"{len(told)} {'check' if len(told) == 1 else 'checks'}, {wrong or 'none'} failed"
    said += f", {expected} as the test expected" if expected else ""
    if not passed:
        return said
    nearest = max(passed, key=lambda result: result["budgets"])
    of_those = ", of those that passed" if len(passed) < len(told) else ""
    return f"{said}; the most that is used of a budget{of_those}: {nearest['used']} ({nearest['tensor']})"


def named(nodeid: str, result: Result) -> str:
    """The test, and which of its checks."""
    return f"{nodeid}, {result['name']}" if result["name"] else nodeid


def compared(result: Result) -> str:
    """What it was compared with, or what became of the recording."""
    return "replayed" if result["how"] == "golden" else result["how"]


def _table(told: Sequence[Told]) -> list[str]:
    rows = [
        (result["verdict"], result["used"], named(nodeid, result), compared(result), result["shown"])
        for nodeid, result in told
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _goldens(count: int) -> str:
    return f"{count} {'golden' if count == 1 else 'goldens'}"
