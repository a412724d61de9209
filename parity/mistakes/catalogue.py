"""What a Mistake is, and the table of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
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
    are not mistakes. function: an operation -> the outputs that come out wrong; None where it cannot be made. others:
    the same with other numbers.
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
    others: tuple[Mistake, ...] = ()

    @property
    def variants(self) -> tuple[Mistake, ...]:
        """The same mistake with each of the numbers that people put there, such as other epsilons."""
        return (replace(self, others=()), *self.others)

    def apply(self, operation: Operation) -> Mapping[str, Any] | None:
        """The outputs of this operation that come out wrong, with the terms that go with them if they are others; None
        where the mistake does not belong, cannot be made or changes nothing."""
        if operation.direction != self.direction or self.on not in (operation.kind, operation.family):
            return None
        wrong = self.function(operation) or {}
        right = operation.outputs
        changed = {n: w for n, w in wrong.items() if n in right and not np.array_equal(w, right[n], equal_nan=True)}
        terms = {"terms": wrong["terms"]} if changed and "terms" in wrong else {}
        return {**changed, **terms} or None


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
    values: tuple[float, ...] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function into the catalogue.

    values: the numbers that people put in this place, the most usual first. The function then takes an operation and
    one of them, and `{value:g}` in the sentences stands for it.
    """

    def made(function: Callable[..., Any], value: float | None) -> Mistake:
        words = [text, right, wrong, shows]
        if value is not None:
            words = [each.format(value=value) for each in words]
            function = partial(function, value=value)
        return Mistake(code, on, direction, words[0], words[1], words[2], words[3], function, equivalent)

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        if code in _CATALOGUE:
            raise ValueError(f"the mistake {code!r} is in the catalogue twice")
        first, *others = [made(function, value) for value in values or (None,)]
        _CATALOGUE[code] = replace(first, others=tuple(others))
        return function

    return enter


def catalogue() -> tuple[Mistake, ...]:
    """All mistakes, in the order of the source."""
    return tuple(_CATALOGUE.values())
