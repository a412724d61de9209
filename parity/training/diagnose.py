"""Which wrong rule makes exactly these weights? Hypotheses are run over all steps and compared with the whole path.

First the learning rate, where the code is known to have another one; then one change of the rule: a mistake, a wrong
constant, or a convention that is not Keras's; then a convention beside it; then what only a fit can find, a factor on
the change or an unasked weight decay, alone and beside a mistake; then two mistakes. All that fit equally well at the
first of these that fits at all are named.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parity.compare import GATE
from parity.mistakes.training import ANY, VALUES, WrongRule, made, rules_for
from parity.mistakes.update_rules import Arrays, Path, Rule, restarted, run

__all__ = ["UNIT", "Explanation", "Task", "alike", "allowed", "apart", "blind", "explain"]

UNIT = 2.0**-53
ROUNDINGS = 8
"""Of a weight in one step, on both sides together: lr wd w, its subtraction and that of the change, at the size of the
weight."""

OPERATIONS = 32
"""Roundings in a change on both sides, at most; that of 1 - b^t is 1 / (1 - b) times as large at the first step."""


def allowed(path: Path, start: Arrays, decay: float, unit: float = UNIT) -> list[list[float]]:
    """How far each tensor may be off after each step, for two correct implementations of one rule.

    decay: the largest constant b of a moving average. The changes so far, each within the float64 gate or, where
    1 - b loses more, its rounding; and the rounding of the weights themselves. unit: the unit roundoff, float64's.
    """
    relative = max(GATE, OPERATIONS * unit / (1 - decay)) if decay < 1 else GATE
    moved, rows = [0.0] * len(start), []
    befores = [start, *(restarted(now, start) for now in path[:-1])]
    for t, (before, now) in enumerate(zip(befores, path, strict=True), 1):
        with np.errstate(invalid="ignore"):
            moved = [m + _largest(b - a) for m, a, b in zip(moved, before, now, strict=True)]
        rows.append([relative * m + ROUNDINGS * unit * t * _largest(w) for m, w in zip(moved, now, strict=True)])
    return rows


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference; infinite where only one side is not a number."""
    with np.errstate(invalid="ignore"):
        away = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    return float(np.max(np.where(np.isnan(away), np.inf, away), initial=0.0))


def _largest(array: np.ndarray) -> float:
    sizes = np.abs(array)
    return float(np.max(sizes, where=np.isfinite(sizes), initial=0.0))


Changes = tuple[WrongRule, ...]


@dataclass(frozen=True)
class Task:
    """What is to be explained: the code's path from these weights with these gradients and rates, and the right one.

    takes_rate: whether the code is given the learning rate, or has one that can be read; own_rate: the one that it has,
    None where it is the optimizer's.
    """

    rule: Rule
    start: Arrays
    gradients: Sequence[Arrays]
    rates: Sequence[float]
    subject: Path
    right: Path
    takes_rate: bool = True
    own_rate: float | None = None

    @property
    def decay(self) -> float:
        return max(float(self.rule.config.get(name) or 0.0) for name in ("beta_1", "beta_2", "rho", "momentum"))

    def predicted(self, changes: Sequence[WrongRule], steps: int | None = None) -> Path | None:
        """The path of the rule with these changes, over the first steps or all."""
        wrong = made(self.rule, changes)
        return None if wrong is None else run(wrong, self.start, self.gradients, self.rates[:steps])

    def fits(self, path: Path, tensors: Sequence[int]) -> bool:
        """Whether the code took this path, as far as these tensors and the steps of the path show."""
        return self.same(self.subject[: len(path)], path, tensors)

    def same(self, a: Path, b: Path, tensors: Sequence[int]) -> bool:
        rows = allowed(b, self.start, self.decay)
        return all(
            apart(x[i], y[i]) <= row[i] for x, y, row in reversed(list(zip(a, b, rows, strict=True))) for i in tensors
        )

    def shows(self, path: Path, tensors: Sequence[int]) -> bool:
        """Whether numbers of this path are wrong: two that are not finite explain nothing about each other."""
        pairs = zip(path, self.right, strict=True)
        numbers = [[np.where(np.isfinite(a), a, b) for a, b in zip(x, y, strict=True)] for x, y in pairs]
        return not self.same(numbers, self.right, tensors)


@dataclass(frozen=True)
class Explanation:
    """Changes of the rule that make exactly this path: mistakes, and conventions beside them."""

    changes: tuple[WrongRule, ...]

    @property
    def mistakes(self) -> tuple[WrongRule, ...]:
        return tuple(one for one in self.changes if not one.convention)

    @property
    def conventions(self) -> tuple[WrongRule, ...]:
        return tuple(one for one in self.changes if one.convention)


def explain(task: Task, tensors: Sequence[int], pairs: bool = True) -> list[Explanation]:
    """Everything at the first level of search that explains these tensors; empty where nothing does. pairs: whether two
    mistakes are looked for."""
    if not task.shows(task.subject, tensors):
        return []
    if task.own_rate is None or not task.rates[0]:
        return _search(task, tensors, pairs)
    factor = task.own_rate / task.rates[0]
    found = _search(replace(task, rates=[factor * rate for rate in task.rates]), tensors, pairs)
    rate = _rate(task.own_rate, task.rates[0])
    return [Explanation((*each.changes, rate)) for each in found] or _search(task, tensors, pairs=False)


def _search(task: Task, tensors: Sequence[int], pairs: bool) -> list[Explanation]:
    known = rules_for(task.rule)
    mistakes = [(one,) for one in known if not one.convention]
    conventions = [(one,) for one in known if one.convention]
    two = [a + b for a, b in itertools.combinations(conventions, 2)]
    none: list[Changes] = [()]
    # Of code with a learning rate that nobody sees, another one is as likely as what multiplies it by accident.
    factor = [] if task.takes_rate else [(one,) for one in _fitted_factor(task, (), tensors)]
    levels: list[Iterable[Changes]] = [
        none,
        [*factor, *conventions, *mistakes],
        two,
        _both(conventions, mistakes),
        _both(two, mistakes),
        *(_with_fit(task, some, tensors) for some in (none, conventions, two)),
        _with_fit(task, mistakes, tensors),
        _with_fit(task, list(_both(conventions, mistakes)), tensors),
    ]
    if pairs:
        combined = [a + b for a, b in itertools.combinations(mistakes, 2)]
        levels += [combined, _both(conventions, combined)]
    for level in levels:
        found = [Explanation(changes) for changes in level if _explains(task, changes, tensors)]
        if found:
            return found
    return []


def _both(some: Sequence[Changes], others: Sequence[Changes]) -> Iterator[Changes]:
    return (a + b for a, b in itertools.product(some, others))


def _with_fit(task: Task, some: Sequence[Changes], tensors: Sequence[int]) -> Iterator[Changes]:
    return ((*changes, one) for changes in some for one in _fitted(task, changes, tensors))


def _explains(task: Task, changes: Sequence[WrongRule], tensors: Sequence[int]) -> bool:
    first = task.predicted(changes, steps=1)  # most are wrong there
    if first is None or not task.fits(first, tensors):
        return False
    path = task.predicted(changes)
    return path is not None and task.fits(path, tensors) and task.shows(path, tensors)


def alike(task: Task, tensors: Sequence[int]) -> list[WrongRule]:
    """The mistakes that stop being finite where this code does, and are the right rule up to there. They are hints, no
    explanations: what else is not finite there looks the same."""
    if not all(any(np.any(np.isfinite(now[i])) for now in task.subject) for i in tensors):
        return []
    paths = ((one, task.predicted([one])) for one in rules_for(task.rule))
    return [one for one, path in paths if path is not None and task.fits(path, tensors)]


def blind(task: Task, tensors: Sequence[int]) -> list[WrongRule]:
    """The mistakes that these gradients and rates cannot show."""
    return [one for one in rules_for(task.rule) if _unseen(task, one, tensors)]


def _unseen(task: Task, one: WrongRule, tensors: Sequence[int]) -> bool:
    for steps in (1, len(task.rates)):  # most are seen at the first
        path = task.predicted([one], steps)
        if path is None or not task.same(path, task.right[:steps], tensors):
            return False
    return True


# -- what a fit finds --------------------------------------------------------------------------------------------------


def _fitted(task: Task, beside: Sequence[WrongRule], tensors: Sequence[int]) -> Iterator[WrongRule]:
    """A factor on the change, and a weight decay that nobody asked for, as the first step has them."""
    yield from _fitted_factor(task, beside, tensors)
    lr = task.rates[0]
    weights = np.concatenate([task.start[i].ravel() for i in tensors])
    if (changes := _changes(task, beside, tensors)) and lr and np.any(weights) and not task.rule.weight_decay:
        mine, right = changes
        fitted = float((right - mine) @ weights / (weights @ weights) / lr)
        yield _decay(fitted)
        yield from (_penalty(decay) for decay in (fitted, *VALUES["weight_decay"]))


def _fitted_factor(task: Task, beside: Sequence[WrongRule], tensors: Sequence[int]) -> Iterator[WrongRule]:
    """A factor on the change, where there is one; other signs are mistakes of their own."""
    if changes := _changes(task, beside, tensors):
        mine, right = changes
        factor = float(mine @ right / (right @ right)) if np.any(right) else 0.0
        if factor > 0 and not math.isclose(factor, 1, rel_tol=GATE):
            yield _factor(factor)


def _changes(task: Task, beside: Sequence[WrongRule], tensors: Sequence[int]) -> tuple[np.ndarray, np.ndarray] | None:
    """How far the first step goes, the code's and that of the rule with these changes; None where it is not finite."""
    path = task.predicted(beside, steps=1)
    if path is None:
        return None
    mine, right = (
        np.concatenate([(now[i] - task.start[i]).ravel() for i in tensors]) for now in (task.subject[0], path[0])
    )
    return (mine, right) if np.all(np.isfinite(mine)) and np.all(np.isfinite(right)) else None


def _rate(own: float, keras: float) -> WrongRule:
    def change(rule: Any) -> None:
        right = rule.rate
        rule.rate = lambda t, rates: right(t, [own / keras * rate for rate in rates])

    return WrongRule(
        "update-learning-rate-value",
        ANY,
        f"the learning rate is {own:g}, Keras's is {keras:g}",
        f"lr = {keras:g}",
        f"lr = {own:g}",
        change,
    )


def _factor(factor: float) -> WrongRule:
    def change(rule: Any) -> None:
        right = rule.apply
        rule.apply = lambda w, change, lr, index: right(w, factor * change, lr, index)

    return WrongRule(
        "update-factor",
        ANY,
        f"every change is {factor:.9g} times Keras's: another learning rate, or a factor (1 / batch size?) too many",
        "w = w - change",
        f"w = w - {factor:.9g} change",
        change,
    )


def _decay(decay: float) -> WrongRule:
    def change(rule: Any) -> None:
        rule.decay = lambda w, lr, index: w - lr * decay * w

    return WrongRule(
        "decay-unasked",
        ANY,
        f"the weights decay by lr {decay:.6g} w as well; the optimizer has no weight_decay",
        "no decay",
        f"w = w - lr {decay:.6g} w",
        change,
    )


def _penalty(decay: float) -> WrongRule:
    def change(rule: Any) -> None:
        rule.penalize = lambda g, w, index: g + decay * w

    return WrongRule(
        "penalty-unasked",
        ANY,
        f"{decay:.6g} w is added to the gradient; the optimizer has no such penalty",
        "g",
        f"g + {decay:.6g} w",
        change,
    )
