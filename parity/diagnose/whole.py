"""Which mistake explains a whole run, of which only some tensors are seen?

Somebody's own network shows its outputs, its loss and the gradients by its weights, but not what happens between them.
So each mistake of the catalogue is planted where it can be made, at one place or at all of them, and the network is run
with it in NumPy: the mistake is the cause if every tensor that is seen comes out as the user's. A gradient by a weight
goes nowhere else, so there one mistake more may explain it by itself: one of the catalogue, or a constant factor, a
transposition or another simple transform.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from parity import trace
from parity.diagnose import transforms
from parity.diagnose.distances import apart, growth, within
from parity.diagnose.findings import Cause
from parity.diagnose.transforms import Wrong
from parity.mistakes import Mistake, catalogue
from parity.runners.steps import Operation, Settle

__all__ = ["Explained", "Seen", "explain"]

BEST = 8  # hypotheses that a second mistake is added to: those that get furthest through the run

FAMILIES = ("activation", "layer", "loss", "regularizer", "optimizer")
BARE = ("factor", "permuted", "reordered", "shifted", "shifted-zeros", "reversed", "reshaped", "zeros")
"""Transforms that say what the tensor looks like, not what was done."""

GENERAL = 0.1  # what a mistake of a family costs more than one of a kind, which says more
REPEATED = 0.05  # what one mistake at several places costs more than at one, where both make the same
TRANSFORM = 1.5  # a mistake explains why, a transform only what: one mistake is the better story, two are not
UNNAMED = 3.0
SIMPLE = 2 + 2 * GENERAL  # two mistakes; what costs more may have a better story


@dataclass(frozen=True)
class Seen:
    """What is known of a run: the user's tensors and the reference's, how far each may be off, the user's names for
    them, and the sizes that factors are made of."""

    subject: Mapping[str, np.ndarray]
    reference: Mapping[str, np.ndarray]
    allowed: Mapping[str, Any]
    names: Mapping[str, str]
    sizes: Mapping[str, int]

    def name(self, tensor: str) -> str:
        """The user's name of a tensor, or ours."""
        return self.names.get(tensor, tensor)

    def equal(self, tensor: str, guess: Any) -> bool:
        """Whether a guess is the user's tensor, up to what both may be off."""
        limit = self._limit(tensor)
        return np.shape(guess) == limit.shape and within(guess, self.subject[tensor], limit)

    def _limit(self, tensor: str) -> np.ndarray:
        if tensor not in self._limits:
            right = np.asarray(self.reference[tensor])
            limit = np.asarray(self.allowed[tensor]) * growth(self.subject[tensor], right)
            self._limits[tensor] = np.broadcast_to(limit, right.shape)
        return self._limits[tensor]

    @cached_property
    def _limits(self) -> dict[str, np.ndarray]:
        return {}

    def wrong(self, tensor: str, guess: Any) -> Wrong:
        """The tensor as wrong in comparison with a guess of what it would be."""
        like = np.asarray(self.reference[tensor])
        return Wrong(self.name(tensor), self.subject[tensor], np.asarray(guess), self.allowed[tensor], self.sizes, like)


Run = Callable[[Settle], None]
"""The network in NumPy, operation by operation, with results that are replaced on the way."""


SECONDS = 30.0
"""How long two mistakes together are searched for. One mistake takes a tenth of that in a network of the size of
LeNet-5 with 32 samples; errors that nothing explains would take minutes."""


@dataclass(frozen=True)
class Explained:
    """causes: tensor -> the cause of its error, where it is explained; stopped: whether the search for two mistakes was
    not finished."""

    causes: dict[str, Cause]
    stopped: bool


def explain(seen: Seen, run: Run) -> Explained:
    """The causes of what is wrong."""
    wrong = {name for name in seen.subject if name in seen.reference and not seen.equal(name, seen.reference[name])}
    if not wrong:
        return Explained({}, False)
    with np.errstate(all="ignore"):
        search = _Search(seen, run, wrong)
        return Explained(search.causes(), search.stopped)


@dataclass(frozen=True)
class _Hypothesis:
    """One mistake at some operations, by their numbers, or wherever it can be made (None)."""

    mistake: Mistake
    at: tuple[int, ...] | None

    def plant(self, number: int, operation: Operation) -> Mapping[str, Any] | None:
        return self.mistake.apply(operation) if self.at is None or number in self.at else None


@dataclass
class _Story:
    """A run under some hypotheses: how far it agrees with the user's, and what had to be explained by itself."""

    hypotheses: tuple[_Hypothesis, ...]
    layers: list[str] = field(default_factory=list)  # where the mistakes were made
    agreed: list[str] = field(default_factory=list)
    alone: dict[str, Cause] = field(default_factory=dict)
    refuted: int | None = None  # the operation that gave a tensor which is not the user's

    @property
    def complete(self) -> bool:
        return self.refuted is None

    @property
    def cost(self) -> float:
        """How much has to be believed: the mistakes, and the further explanations, of which equal ones count once."""
        families = sum(GENERAL for h in self.hypotheses if h.mistake.on in FAMILIES)
        spread = REPEATED if len(self.layers) > len(self.hypotheses) else 0.0
        alone = {cause.code: _price(cause.code) for cause in self.alone.values()}
        return len(self.hypotheses) + families + spread + sum(alone.values())


def _price(code: str) -> float:
    """What the explanation of one tensor by itself costs."""
    known = {mistake.code: mistake for mistake in catalogue()}
    if code in known:
        return 1 + GENERAL * (known[code].on in FAMILIES)
    return UNNAMED if code in BARE else TRANSFORM


class _RefutedError(Exception):
    """A tensor of the run is not the user's."""


class _Search:
    def __init__(self, seen: Seen, run: Run, wrong: set[str]):
        self.seen, self.run, self.wrong = seen, run, wrong
        self.operations: list[Operation] = []
        self.run(self._collect)
        self.ends = self.operations[0].context["layers"][-1].name
        self.by_themselves: dict[str, Cause | None] = {}
        self.end = time.monotonic() + SECONDS
        self.stopped = False
        self.best = np.inf  # the cost of the simplest complete story so far
        self.changes: dict[tuple[int, str, str], set[str]] = {}  # what a mistake changes at an operation
        self.candidates: dict[tuple[str, str, str], list[Mistake]] = {}

    def _collect(self, operation: Operation) -> Mapping[str, Any]:
        self.operations.append(operation)
        return {}

    def causes(self) -> dict[str, Cause]:
        """The simplest story: of one mistake and what goes nowhere, else of more."""
        without = self._told(())
        hypotheses = list(self._hypotheses(self._last(without)))
        stories = [without, *(self._told((hypothesis,)) for hypothesis in hypotheses)]
        if not self._simple(stories):
            stories += [self._told((h,), freely=True) for h in self._in_time(hypotheses)]
        if not self._simple(stories):
            pairs = (pair for first in self._promising(stories) for pair in self._with_second(first))
            stories += [self._told(pair, freely=True) for pair in self._in_time(pairs)]
        found = self._cheapest(stories) or max(stories, key=lambda story: len(story.agreed))
        return self._as_causes(found, [s for s in stories if s.complete and s.cost <= found.cost + 2 * GENERAL])

    def _in_time(self, hypotheses: Iterable[Any]) -> Iterator[Any]:
        """As many of them as there is time for."""
        for hypothesis in hypotheses:
            if time.monotonic() > self.end:
                self.stopped = True
                return
            yield hypothesis

    def _simple(self, stories: list[_Story]) -> bool:
        found = self._cheapest(stories)
        return found is not None and found.cost <= SIMPLE

    def _mistakes(self, operation: Operation) -> list[Mistake]:
        """Those that can belong to such an operation, with each of their numbers."""
        key = operation.kind, operation.family, operation.direction
        if key not in self.candidates:
            self.candidates[key] = [
                variant
                for mistake in catalogue()
                if mistake.direction == key[2] and mistake.on in key[:2] and not mistake.equivalent
                for variant in mistake.variants
            ]
        return self.candidates[key]

    def _hypotheses(self, last: int) -> Iterator[_Hypothesis]:
        """Every mistake at every place up to the last one, at all its places, and at all but the last layer."""
        places: dict[int, tuple[Mistake, list[int]]] = {}
        for number, operation in enumerate(self.operations[: last + 1]):
            for mistake in self._mistakes(operation):
                if mistake.apply(operation) is not None:
                    places.setdefault(id(mistake), (mistake, []))[1].append(number)
        for mistake, numbers in places.values():
            everywhere = [n for n, operation in enumerate(self.operations) if mistake in self._mistakes(operation)]
            hidden = tuple(n for n in everywhere if self.operations[n].layer != self.ends)
            if len(everywhere) > 1:
                yield _Hypothesis(mistake, None)
            if 1 < len(hidden) < len(everywhere):  # the last layer often has code of its own
                yield _Hypothesis(mistake, hidden)
            yield from (_Hypothesis(mistake, (number,)) for number in numbers)

    def _last(self, without: _Story) -> int:
        """The operation that shows the first wrong tensor: what comes later is not to blame for it. One that has an
        explanation by itself does not count where others have none; the run without a mistake ends at these."""
        if without.refuted is not None:
            return without.refuted
        for number, operation in enumerate(self.operations):
            if any(tensor in self.wrong for tensor in operation.tensors.values()):
                return number
        return len(self.operations) - 1

    def _told(self, hypotheses: tuple[_Hypothesis, ...], freely: bool = False) -> _Story:
        """Run the network with these mistakes, as far as it agrees with what is seen.

        freely: whether what the mistakes change may have an explanation of its own on top of them before they have
        explained anything.
        """
        story = _Story(hypotheses)
        numbers = iter(range(len(self.operations) + 1))

        def settle(operation: Operation) -> Mapping[str, Any]:
            number, outputs = next(numbers), dict(operation.outputs)
            for hypothesis in hypotheses:
                made = hypothesis.plant(number, replace(operation, outputs=outputs))
                if made is not None:
                    outputs.update(made)
                    story.layers.append(operation.layer)
            if not self._agree(number, operation, outputs, story, freely):
                story.refuted = number
                raise _RefutedError
            right = self.operations[number].outputs  # the same arrays, where nothing changed, need not be computed from
            return {n: right[n] if n in right and _equal(right[n], array) else array for n, array in outputs.items()}

        with contextlib.suppress(_RefutedError):
            self.run(settle)
            if story.hypotheses or story.alone:
                self.best = min(self.best, story.cost)
        return story

    def _agree(
        self, number: int, operation: Operation, outputs: Mapping[str, Any], story: _Story, freely: bool
    ) -> bool:
        """Whether all of these outputs that are seen are the user's, or have an explanation of their own and go nowhere
        else."""
        for output, tensor in operation.tensors.items():
            if tensor not in self.seen.subject or tensor not in self.seen.reference:
                continue
            if self.seen.equal(tensor, outputs[output]):
                story.agreed.append(tensor)
                continue
            cause = None
            if tensor in self.wrong and _goes_nowhere(tensor) and self._may_go_on(story):
                right = self.operations[number]
                if np.array_equal(outputs[output], right.outputs[output], equal_nan=True):
                    cause = self._by_itself(right, output, tensor)
                elif freely or any(agreed in self.wrong for agreed in story.agreed):
                    cause = self._alone(operation, outputs, output, tensor)
            if cause is None:
                return False
            story.alone[tensor] = cause
        return True

    def _may_go_on(self, story: _Story) -> bool:
        """Whether a story with one more explanation can still be among the simplest that are known."""
        return story.cost + (0 if story.alone else 1) <= self.best + 2 * GENERAL

    def _by_itself(self, right: Operation, output: str, tensor: str) -> Cause | None:
        """What explains one tensor where nothing else is wrong."""
        if tensor not in self.by_themselves:
            self.by_themselves[tensor] = self._alone(right, right.outputs, output, tensor)
        return self.by_themselves[tensor]

    def _alone(self, operation: Operation, outputs: Mapping[str, Any], output: str, tensor: str) -> Cause | None:
        """What explains one tensor on top of a run: a mistake that changes nothing else, or a simple transform."""
        here = replace(operation, outputs=dict(outputs))
        for mistake in self._mistakes(operation):
            key = id(mistake), operation.layer, operation.kind
            if self.changes.get(key, {output}) == {output}:
                made = mistake.apply(here) or {}
                self.changes.setdefault(key, set(made) or {output})
                if set(made) == {output} and self.seen.equal(tensor, made[output]):
                    return self._cause((mistake,), [tensor], made[output])
        return transforms.transformed(self.seen.wrong(tensor, outputs[output]))

    def _promising(self, stories: list[_Story]) -> list[_Story]:
        """Those that explain the first wrong tensors, the furthest first."""
        with_mistakes = [story for story in stories if story.hypotheses and self._gain(story)]
        return sorted(with_mistakes, key=lambda story: (-self._gain(story), story.cost))[:BEST]

    def _gain(self, story: _Story) -> int:
        return sum(tensor in self.wrong for tensor in (*story.agreed, *story.alone))

    def _with_second(self, first: _Story) -> Iterator[tuple[_Hypothesis, ...]]:
        """One more mistake, no later than where the first one alone is refuted."""
        end = len(self.operations) if first.refuted is None else first.refuted + 1
        tried = set()
        for number, operation in enumerate(self.operations[:end]):
            for mistake in self._mistakes(operation):
                for at in ((number,), None):
                    if (id(mistake), at) not in tried:
                        tried.add((id(mistake), at))
                        yield *first.hypotheses, _Hypothesis(mistake, at)

    def _cheapest(self, stories: list[_Story]) -> _Story | None:
        complete = [story for story in stories if story.complete and (story.hypotheses or story.alone)]
        return min(complete, key=lambda story: story.cost, default=None)

    def _as_causes(self, story: _Story, alike: list[_Story]) -> dict[str, Cause]:
        """The cause of each wrong tensor; alike: stories that are as good."""
        causes = self._grouped(story.alone)
        agreed = [tensor for tensor in story.agreed if tensor in self.wrong]
        if agreed and story.hypotheses:
            others = [h.mistake.code for s in alike if s is not story for h in s.hypotheses]
            same = sorted(set(others) - {h.mistake.code for h in story.hypotheses})
            cause = self._cause(tuple(h.mistake for h in story.hypotheses), agreed, None, same, story.layers)
            causes.update(dict.fromkeys(agreed, cause))
        return {tensor: cause for tensor, cause in causes.items() if tensor in self.wrong}

    def _grouped(self, alone: Mapping[str, Cause]) -> dict[str, Cause]:
        """One sentence for all tensors with the same explanation: dW1, dW2 are 7 times TensorFlow's."""
        grouped = {}
        for tensor, cause in alone.items():
            own = self.seen.name(tensor)
            names = [self.seen.name(other) for other in alone if alone[other].code == cause.code]
            same = all(c.text.replace(self.seen.name(t), own, 1) == cause.text for t, c in alone.items()
                       if c.code == cause.code)  # fmt: skip
            text = cause.text.replace(f"{own} is ", f"{', '.join(dict.fromkeys(names))} are ", 1)
            grouped[tensor] = replace(cause, text=text) if same and len(set(names)) > 1 else cause
        return grouped

    def _scaled(self, tensors: list[str], named: str) -> str:
        """dW2, dW1 are 7 times TensorFlow's and your batch is 7: where one number does for all of them."""
        factors = [transforms.factor(self.seen.wrong(tensor, self.seen.reference[tensor])) for tensor in tensors]
        first = factors[0]
        if first is None or any(factor is None or factor.code != first.code for factor in factors):
            return ""
        said = first.text.partition(":")[0].replace(f"{self.seen.name(tensors[0])} ", f"{named} ", 1)
        return said.replace(f"{named} is ", f"{named} are ", 1) if "," in named else said

    def _cause(
        self,
        mistakes: tuple[Mistake, ...],
        tensors: list[str],
        guess: Any,
        same: list[str] | None = None,
        layers: list[str] | None = None,
    ) -> Cause:
        """The mistakes in the user's terms; guess: the tensor that they make, None where the whole run agrees."""
        text = "; and ".join(mistake.text for mistake in mistakes)
        if len(mistakes) > 1:
            text = f"two mistakes: {text}"
        named = ", ".join(dict.fromkeys(self.seen.name(tensor) for tensor in tensors))
        said = self._scaled(tensors, named) or named
        places = ", ".join(dict.fromkeys(layer for layer in layers or () if layer))
        where = f" (in {places})" if places else ""
        again = f" (the same tensors: {', '.join(same)})" if same else ""
        error = float(np.sum([np.sum(apart(self.seen.subject[t], self.seen.reference[t]) ** 2) for t in tensors]))
        left = 0.0 if guess is None else float(np.sum(apart(self.seen.subject[tensors[0]], guess) ** 2))
        return Cause(
            "+".join(mistake.code for mistake in mistakes),
            f"{said}: {text}{where}{again}",
            ";  ".join(mistake.right for mistake in mistakes),
            ";  ".join(mistake.wrong for mistake in mistakes),
            1 - float(np.sqrt(left / error)) if np.isfinite(error) and error else 1.0,
            tuple(dict.fromkeys(layers or ())),
        )


def _equal(a: Any, b: Any) -> bool:
    return a is b or (a is not None and np.array_equal(a, b, equal_nan=True))


def _goes_nowhere(tensor: str) -> bool:
    """Whether nothing else of a run is computed from a tensor: the loss, and the gradients by weights and input."""
    return tensor == trace.LOSS or (tensor.endswith(".gradient") and not trace.of_samples(tensor))
