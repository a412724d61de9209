"""What a Mistake is, and the table of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.runners.steps import Operation

__all__ = ["Mistake", "Wrong", "catalogue", "mistake"]

Wrong = Callable[[Operation], Mapping[str, Any] | None]

_CATALOGUE: dict[str, Mistake] = {}


@dataclass(frozen=True)
class Mistake:
    """One known way to get backpropagation wrong.

    code: stable, for programs; on: the registered name of the entry it happens in (`Dense`, `tanh`), or a family
    (`activation`) for any of it; direction: forward, backward or update. text: what to change, to the person who made
    it. right, wrong: the formulas. shows: when it can be seen. equivalent: why it can never be seen, for the ones that
    are not mistakes. function: an operation -> the outputs that come out wrong; None where it cannot be made.
    """

    code: str
    on: str
    direction: str
    text: str
    right: str
    wrong: str
    shows: str
    function: Wrong
    equivalent: str = ""

    def apply(self, operation: Operation) -> Mapping[str, Any] | None:
        """The outputs of this operation that come out wrong; None where the mistake does not belong, cannot be made or
        changes nothing."""
        if operation.direction != self.direction or self.on not in (operation.kind, operation.family):
            return None
        wrong = self.function(operation) or {}
        right = operation.outputs
        return {
            n: w for n, w in wrong.items() if n in right and not np.array_equal(w, right[n], equal_nan=True)
        } or None


def mistake(
    code: str,
    *,
    on: str,
    direction: str,
    text: str,
    right: str,
    wrong: str,
    shows: str = "always",
    equivalent: str = "",
) -> Callable[[Wrong], Wrong]:
    """Enter a function into the catalogue."""

    def enter(function: Wrong) -> Wrong:
        if code in _CATALOGUE:
            raise ValueError(f"the mistake {code!r} is in the catalogue twice")
        _CATALOGUE[code] = Mistake(code, on, direction, text, right, wrong, shows, function, equivalent)
        return function

    return enter


def catalogue() -> tuple[Mistake, ...]:
    """All mistakes, in the order of the source."""
    return tuple(_CATALOGUE.values())
