"""Recognise reduced precision from the size of the errors: TensorFloat-32 is no mistake of a formula.

A budget of the local pass is a multiple of u = 2^-24. Products whose operands keep 10 bits of mantissa
(TensorFloat-32, float16) are off by up to 2^13 times that, with 7 bits (bfloat16) by up to 2^16. So if only matrix
products and convolutions are out of budget, none by more, and the errors point in all directions, the arithmetic
explains it. A wrong factor can be of that size too, where many terms are summed, but its errors are proportional to the
tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from parity.compare import Row
from parity.trace import Trace

__all__ = ["reduced"]

FORMATS = (
    (2.0**13, "TensorFloat-32 or half precision (7 to 10 bits of mantissa)"),
    (2.0**16, "bfloat16 (7 bits of mantissa)"),
)
PRODUCTS = ("Dense ", "Conv2D ")  # how `computed_by` begins where TensorFlow calls a matrix product
DIRECTED = 0.5  # of 1; tensors of 16 elements and more are seldom there by accident
MOST = 0.5  # of a tensor's elements: rounding shows everywhere, a single wrong element is a mistake


def reduced(rows: Sequence[Row], subject: Mapping[str, Any], reference: Trace) -> str:
    """The format that would explain every row that is out of budget, in a sentence; "" where none does. subject: what
    the rows were judged by."""
    wrong = [row for row in rows if not row.passed]
    if any(row.budgets == np.inf for row in wrong):
        return ""  # another shape, or nothing there: no arithmetic explains that
    if not wrong or not all(row.computed_by.startswith(PRODUCTS) for row in wrong):
        return ""
    if not any(row.outside > MOST * row.size for row in wrong):
        return ""
    if not all(_undirected(np.asarray(subject[row.tensor]), np.asarray(reference[row.tensor])) for row in wrong):
        return ""
    worst = max(row.budgets for row in wrong)
    for limit, name in FORMATS:
        if worst <= limit:
            return f"the differences are in matrix products only and at most {worst:.2g} budgets: the size of {name}"
    return ""


def _undirected(s: np.ndarray, r: np.ndarray) -> bool:
    """Whether the error is not proportional to the tensor: the cosine between them is 1 for a wrong factor, and of the
    order of 1 / sqrt(size) for rounding."""
    error = (s.astype(np.float64) - r).ravel()
    tensor = r.astype(np.float64).ravel()
    return abs(float(error @ tensor)) < DIRECTED * float(np.linalg.norm(error) * np.linalg.norm(tensor))
