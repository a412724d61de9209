"""The right numbers, multiplied by a constant, in other places, or in another shape."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from parity.diagnose.distances import apart, growth, within
from parity.diagnose.findings import Cause

__all__ = ["Factor", "Wrong", "factor", "named_factor", "named_values", "rearranged", "reshaped", "transformed"]


@dataclass(frozen=True)
class Wrong:
    """A tensor that is out of budget.

    name: as the message calls it; subject, right: its value, and the reference's; allowed: how far each element may be
    off; sizes: batch and outputs, which a factor may be made of; like: what `allowed` is for, where `right` is a guess.
    """

    name: str
    subject: np.ndarray
    right: np.ndarray
    allowed: Any
    sizes: Mapping[str, int]
    like: np.ndarray | None = None

    def equals(self, guess: np.ndarray) -> bool:
        """Whether a guess is the subject's tensor up to rounding."""
        return within(guess, self.subject, self._limit)

    @property
    def _like(self) -> np.ndarray:
        return self.right if self.like is None else self.like

    @cached_property
    def _limit(self) -> np.ndarray:
        return np.broadcast_to(np.asarray(self.allowed) * growth(self.subject, self._like), self.right.shape)

    def explains(self, guess: np.ndarray) -> float:
        """The share of the error that a guess explains."""
        error = float(np.linalg.norm(apart(self.subject, self.right)))
        return 1 - float(np.linalg.norm(apart(self.subject, guess))) / error


def transformed(wrong: Wrong) -> Cause | None:
    """The simple transform of the right tensor that this one is."""
    if wrong.subject.shape != wrong.right.shape:
        return reshaped(wrong)
    return factor(wrong) or rearranged(wrong)


def factor(wrong: Wrong) -> Cause | None:
    """Zeros, or a constant factor. Of a lone number every other one is a multiple, so there it needs a name."""
    subject, right, name = wrong.subject, wrong.right, wrong.name
    if subject.shape == right.shape and np.any(right) and not np.any(subject):
        return Cause("zeros", f"{name} is all zeros: it is never computed, or multiplied with 0", name, "0", 1.0)
    found = _fitted(wrong)
    if found is None:
        return None
    guess = np.asarray(right * found.value)
    return Cause(found.code, found.text(name), name, f"{found.digits} * {name}", wrong.explains(guess))


def named_factor(wrong: Wrong) -> Factor | None:
    """The constant factor between the tensors, if it is made of the sizes that there are."""
    found = _fitted(wrong)
    return found if found is not None and found.known else None


def named_values(sizes: Mapping[str, int]) -> list[float]:
    """1, and the factors that have a name."""
    return [1.0, *dict.fromkeys(one.value for one in _named_factors(sizes))]


def _fitted(wrong: Wrong) -> Factor | None:
    subject, right = wrong.subject, wrong.right
    if subject.shape != right.shape or not (np.all(np.isfinite(subject)) and np.all(np.isfinite(right))):
        return None
    sizes = {**wrong.sizes, "units": subject.shape[-1] if subject.ndim else 1}
    lone = np.count_nonzero(np.abs(right) > wrong.allowed) < 2
    fitted = Factor(float(np.vdot(right, subject) / (np.vdot(right, right) or np.nan)))
    if not (lone or wrong.equals(np.asarray(right * fitted.value))):
        return None
    candidates = (*_named_factors(sizes), *([] if lone else [fitted]))
    return next((one for one in candidates if wrong.equals(np.asarray(right * one.value))), None)


def rearranged(wrong: Wrong) -> Cause | None:
    """The right numbers in other places."""
    subject, right = wrong.subject, wrong.right
    allowed = np.broadcast_to(wrong.allowed, right.shape)
    largest = np.max(allowed, initial=0.0)
    same_numbers = within(_extremes(subject), _extremes(right), largest)  # sorting is slow, and needless otherwise
    for code, how, move in _moves(subject, right):
        if (same_numbers or code == "shifted-zeros") and within(subject, move(right), move(allowed)):
            text = f"{wrong.name} is TensorFlow's {how}: undo that"
            return Cause(code, text, wrong.name, f"{wrong.name} {how}", wrong.explains(move(right)))
    return None


def _extremes(array: np.ndarray) -> np.ndarray:
    return np.array([np.min(array), np.max(array)]) if array.size else array


def reshaped(wrong: Wrong) -> Cause | None:
    """What the wrong shape comes from. Nothing of such a tensor is right, so its error is all of it."""
    subject, right = wrong.subject, wrong.right
    allowed = np.broadcast_to(wrong.allowed, right.shape)
    ways: list[tuple[str, str, Callable[[np.ndarray], np.ndarray], np.ndarray]] = [
        ("transposed", "TensorFlow's transposed", np.transpose, subject),
        ("shape", f"TensorFlow's with the shape {subject.shape}", lambda a: a.reshape(subject.shape), subject),
        ("summed", "the sum of TensorFlow's", np.sum, subject),
    ]
    for axis in range(subject.ndim):
        words = f"TensorFlow's before it is summed over axis {axis}"
        ways.append(("not-summed", words, lambda a: a, np.sum(subject, axis=axis)))
    for code, words, move, seen in ways:
        if code != "shape" or subject.size == right.size:
            expected = move(right)
            if expected.shape == seen.shape and within(seen, expected, move(allowed)):
                text = f"{wrong.name} is {words}: its shape is {subject.shape} and must be {right.shape}"
                explains = 1 - float(np.linalg.norm(apart(seen, expected)) / (np.linalg.norm(seen) or 1))
                return Cause(code, text, f"shape {right.shape}", f"shape {subject.shape}", explains)
    return None


# -- factors -----------------------------------------------------------------------------------------------------------

WORDS = {"batch": "the batch size", "outputs": "the number of outputs", "units": "the number of units"}
FACTS = {"batch": "your batch is {}", "outputs": "there are {} outputs", "units": "there are {} units"}


@dataclass(frozen=True)
class Factor:
    """A factor and the sizes that it is made of; `two` is a size that is always 2."""

    value: float
    over: Mapping[str, int] = field(default_factory=dict)
    under: Mapping[str, int] = field(default_factory=dict)
    equal: str = ""  # what else has the size that it names

    @property
    def known(self) -> bool:
        return bool(self.over or self.under) or self.value == -1

    @property
    def code(self) -> str:
        if not self.known:
            return "factor"
        sign = ["minus"] if self.value < 0 else []
        return "-".join(["factor", *sign, *(self.over or ["one"]), *(["per", *self.under] if self.under else [])])

    @property
    def because(self) -> str:
        """The sizes that it is made of, as the rest of a sentence."""
        sizes = {**self.over, **self.under}
        facts = [FACTS[name].format(size) for name, size in sizes.items() if name in FACTS]
        return (f" and {' and '.join(facts)}" if facts else "") + self.equal

    @property
    def digits(self) -> str:
        """So many that a factor of nearly one is not shown as 1."""
        return f"{self.value:.4g}" if abs(self.value - 1) > 1e-3 else f"{self.value:.12g}"

    def text(self, tensor: str) -> str:
        return f"{tensor} is {self.digits} times TensorFlow's{self.because}: {' and '.join(self._advice())}"

    def _advice(self) -> Iterator[str]:
        if not self.known:
            yield "look for a factor that is missing or one too many"
        if self.over:
            yield "divide by " + " and by ".join(WORDS.get(name, "2") for name in self.over)
        if self.under:
            yield "multiply by " + " and by ".join(WORDS.get(name, "2") for name in self.under)
        if self.value < 0 and self.known:
            yield "change the sign"


def _named_factors(sizes: Mapping[str, int]) -> list[Factor]:
    """What 2 and these sizes make as a product or quotient, with either sign, the simplest first."""
    used = {"two": 2}
    for name, size in sizes.items():
        if size not in (1, *used.values()):
            used[name] = size
    equal = {"batch": ", as many as there are outputs"} if sizes["batch"] == sizes["outputs"] else {}
    found = []
    for powers in itertools.product((0, 1, -1), repeat=len(used)):
        over = {name: size for (name, size), p in zip(used.items(), powers, strict=True) if p == 1}
        under = {name: size for (name, size), p in zip(used.items(), powers, strict=True) if p == -1}
        said = "".join(equal.get(name, "") for name in (*over, *under))
        value = float(np.prod([*over.values()]) / np.prod([*under.values()]))
        found += [Factor(sign * value, over, under, said) for sign in (1, -1) if sign * value != 1]
    return sorted(found, key=lambda factor: (len(factor.over) + len(factor.under), factor.value < 0))


# -- numbers in other places -------------------------------------------------------------------------------------------

Move = tuple[str, str, Callable[[np.ndarray], np.ndarray]]


def _moves(subject: np.ndarray, right: np.ndarray) -> Iterator[Move]:
    """Code, words and function of the ways to put the elements of the right tensor into other places."""
    shape, axes = right.shape, range(right.ndim)
    for order in itertools.permutations(axes):
        if order != tuple(axes) and tuple(shape[axis] for axis in order) == shape:
            how = "transposed" if right.ndim == 2 else f"with the axes in the order {order}"
            yield "transposed", how, lambda a, order=order: np.transpose(a, order)  # type: ignore[misc]
    if right.ndim > 1:
        yield "reshaped", "transposed, then reshaped", lambda a: a.T.reshape(shape)
    for count in range(1, right.ndim + 1):
        for some in itertools.combinations(axes, count):
            how = f"backwards along {_listed(some)}"
            yield "reversed", how, lambda a, some=some: np.flip(a, some)  # type: ignore[misc]
    for axis in axes:
        for by in (1, -1):
            how = f"shifted by {by:+d} along axis {axis}"
            yield "shifted", how, lambda a, by=by, axis=axis: np.roll(a, by, axis)  # type: ignore[misc]
            how += ", with zeros for what is missing"
            yield "shifted-zeros", how, lambda a, by=by, axis=axis: _shifted(a, by, axis)  # type: ignore[misc]
    if np.all(np.isfinite(subject)):
        for axis in axes:
            how = f"with its slices along axis {axis} in another order"
            yield "permuted", how, lambda a, axis=axis: np.take(a, _matching(subject, right, axis), axis)  # type: ignore[misc]
        how = "with its elements in other places"
        yield "reordered", how, lambda a: a.reshape(-1)[_ranked(subject, right)].reshape(shape)


def _ranked(subject: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Where in the right tensor, flat, each element of the subject's would be: the one of the same rank."""
    places: np.ndarray = np.argsort(right, axis=None)[np.argsort(np.argsort(subject, axis=None))]
    return places


def _shifted(array: np.ndarray, by: int, axis: int) -> np.ndarray:
    moved = np.moveaxis(np.roll(array, by, axis), axis, 0).copy()
    moved[0 if by == 1 else -1] = 0
    return np.moveaxis(moved, 0, axis)


def _matching(subject: np.ndarray, right: np.ndarray, axis: int) -> np.ndarray:
    """Which slice of the right tensor each slice of the subject's would be: the one with the same rank in a random
    projection, which equal slices share."""
    direction = np.random.default_rng(0).standard_normal(right.size // max(right.shape[axis], 1))
    s, r = (np.moveaxis(a, axis, 0).reshape(a.shape[axis], -1) @ direction for a in (subject, right))
    matched: np.ndarray = np.argsort(r)[np.argsort(np.argsort(s))]
    return matched


def _listed(axes: Sequence[int]) -> str:
    return f"axis {axes[0]}" if len(axes) == 1 else f"the axes {', '.join(map(str, axes))}"
