"""What became of one call of the fixture, as plain data: pytest-xdist carries it from process to process."""

from __future__ import annotations

from typing import TypedDict

import pytest

__all__ = ["RESULTS", "Result", "failed"]


class Result(TypedDict):
    """name: which of several in a test; verdict: pass, fail, no power, or error, where there is no report. budgets: how
    much the worst tensor uses of its budget; used: the same in two digits, "-" without a report. how: golden, missing,
    live, recorded, unchanged or not recorded. golden: its path from the folder of goldens on, "" for none; shown: the
    same as a message has it. message: of the failure, "" for none. expected: whether the test did not fail with it, as
    one that is marked xfail. line: where the test begins in its file, None where nobody knows."""

    name: str
    verdict: str
    budgets: float
    used: str
    tensor: str
    how: str
    golden: str
    shown: str
    message: str
    expected: bool
    line: int | None


def failed(result: Result) -> bool:
    """Whether a check did not pass, and its test not either."""
    return bool(result["message"]) and not result["expected"]


RESULTS = pytest.StashKey[list[Result]]()
"""Of a test, since its last report."""
