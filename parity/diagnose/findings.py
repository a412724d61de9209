"""What a diagnosis says of a wrong tensor."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Cause", "Finding"]


@dataclass(frozen=True)
class Cause:
    """What makes an error.

    code: stable, for programs: that of a mistake, of two joined by `+`, or of a transform; text: one sentence that says
    what to change; right, wrong: the formulas; explains: the share of the error that it explains,
    1 - |residual| / |error| in the 2-norm. where: the layers in which a run was given the mistakes to make the error.
    """

    code: str
    text: str
    right: str
    wrong: str
    explains: float
    where: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One tensor out of budget, in the order of data flow; residual: what its error looks like, where no cause was
    found."""

    tensor: str
    place: str
    budgets: float
    cause: Cause | None
    residual: str
