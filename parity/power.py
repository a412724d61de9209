"""What a comparison could not have seen. A pass says so; a check that could not have failed concludes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from parity.compare import Row
from parity.trace import Place, Trace

__all__ = ["powerless", "skipped"]


def skipped(places: Sequence[Place], compared: Mapping[str, Row], reference: Trace) -> dict[str, str]:
    """The tensors that were not compared, and why."""
    reason = {True: "the subject has none", False: "the reference has none: the loss does not come this way"}
    return {p.tensor: reason[p.tensor in reference] for p in places if p.tensor not in compared}


def powerless(rows: Sequence[Row], reference: Trace) -> str:
    """Why this comparison could not have failed; empty where it could."""
    gradients = [row.tensor for row in rows if row.tensor.endswith(".gradient") and row.tensor in reference]
    if not gradients:
        return "no gradient was compared"
    values = [np.asarray(reference[name]) for name in gradients]
    if any(np.any(np.isnan(value)) for value in values):
        return "a gradient of the reference is NaN, so right and wrong look the same; try smaller inputs or weights"
    if not any(np.any(value) for value in values):
        return "every gradient is exactly zero, so a backward pass that returns zeros would pass"
    return ""
