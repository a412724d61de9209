"""Which mistake makes exactly this error? The causes of wrong tensors.

A wrong tensor is compared with what every mistake of the catalogue makes of the reference's own tensors: one mistake
in the operation that computes it; then simple transforms of the right tensor, such as a constant factor or a
transposition; then two mistakes in that operation. A cause is named only where it leaves no element out of budget.
Where there is none, the shape of the error is described.

The code under test cannot be asked what is right, it may be wrong. So the right result of an operation is always the
reference's, and where a mistake is defined by calling the operation's own code, an answer from code that is itself
wrong does not count.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from parity import trace
from parity.diagnose import residuals, transforms
from parity.diagnose.distances import apart, growth, within
from parity.diagnose.findings import Cause, Finding
from parity.diagnose.transforms import Wrong
from parity.mistakes import Mistake, catalogue
from parity.runners.steps import Operation
from parity.trace import Place, Trace

__all__ = ["diagnose"]


def diagnose(
    operations: Sequence[Operation],
    reference: Trace,
    wrong: Mapping[str, np.ndarray],
    allowed: Mapping[str, Any],
    batch: int,
    *,
    local: bool = True,
) -> list[Finding]:
    """A finding for each wrong tensor, in the order of data flow.

    operations: of the code under test on the reference's tensors, as `scratch.replay` hands them to `settle`; wrong:
    the code's own value of each tensor that is out of budget; allowed: how far each tensor may be off, as a number or
    an array; batch: the number of samples. local: whether each value was computed from the reference's tensors.
    Of a whole run (False), only what is computed from right tensors can be explained.
    """
    if not wrong:
        return []
    evidence = _Evidence(operations, reference, wrong, allowed, batch)
    with np.errstate(all="ignore"):
        return [evidence.finding(place, local) for place in _places(operations, wrong)]


def _places(operations: Sequence[Operation], wrong: Mapping[str, np.ndarray]) -> Iterator[Place]:
    kinds = {op.family: op.kind for op in operations}
    places = trace.flow(operations[0].context["layers"], kinds["loss"], kinds.get("optimizer"))
    return (place for place in places if place.tensor in wrong)


# -- the operations with the reference's results -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    """An operation with the reference's results.

    tensors: output -> the tensor that it is seen in; added: output -> what comes on top of it there: the penalty's
    gradient on a layer's own, the rest of the loss on a penalty; correct: whether the code that is under test gives the
    reference's results, and may be asked; asked: notes the questions to it.
    """

    operation: Operation
    tensors: Mapping[str, str]
    added: Mapping[str, Any]
    correct: bool
    asked: list[None] = field(default_factory=list)

    def made(self, mistake: Mistake, operation: Operation) -> dict[str, Any] | None:
        """What the mistake makes of the operation; None for nothing, or nothing to rely on."""
        self.asked.clear()
        outputs = mistake.apply(operation)
        return None if outputs is None or (self.asked and not self.correct) else dict(outputs)

    def seen(self, outputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Tensor -> its value with these outputs; for outputs that no tensor shows, none."""
        shown = (output for output in outputs if output in self.tensors)
        return {self.tensors[output]: np.asarray(outputs[output] + self.added.get(output, 0)) for output in shown}


FAMILIES = ("activation", "layer", "loss", "regularizer", "optimizer")

QUESTIONS = {
    ("activation", "forward"): ("x",),
    ("activation", "backward"): ("x", "y", "dy"),
    ("loss", "forward"): ("y_true", "y_pred"),
    ("loss", "backward"): ("y_true", "y_pred"),
    ("regularizer", "forward"): ("w",),
    ("regularizer", "backward"): ("w",),
}
"""Family, direction -> the inputs of an operation that its method of that name is called with."""

ON_TOP = {("loss", "forward"): "penalty", ("regularizer", "backward"): "g"}
"""Family, direction -> the input that is added to what the method gives."""


def _answering(operation: Operation, asked: list[None]) -> Operation:
    """The operation with an entry that, asked for its own result, gives the recorded one, and that notes any other
    question."""
    key = operation.family, operation.direction
    name = "step" if operation.direction == "update" else operation.direction
    if key not in QUESTIONS and operation.family != "optimizer":
        return operation
    own = [operation[name] for name in QUESTIONS.get(key, ())]
    kind = type(operation.entry)
    (result,) = operation.outputs.values()
    answer = result - operation[ON_TOP[key]] if key in ON_TOP else result

    def method(self: Any, *operands: Any) -> Any:
        if self is entry and own and all(a is b for a, b in zip(own, operands, strict=False)):
            return answer
        asked.append(None)
        return getattr(kind, name)(self, *operands)

    entry = copy.copy(operation.entry)
    entry.__class__ = type(kind.__name__, (kind,), {name: method})
    return replace(operation, entry=entry)


def _steps(operations: Sequence[Operation], reference: Trace, allowed: Mapping[str, Any]) -> Iterator[_Step]:
    """Every operation that a tensor of the reference shows."""
    for operation in operations:
        shown = {o: t for o, t in _shown(operations, operation).items() if t[0] in reference}
        tensors = {output: tensor for output, (tensor, _) in shown.items()}
        added = {output: on_top for output, (_, on_top) in shown.items() if on_top is not None}
        results = {output: np.asarray(reference[t] - added.get(output, 0)) for output, t in tensors.items()}
        correct = all(
            within(operation.outputs[output], result, allowed[tensors[output]]) for output, result in results.items()
        )
        right = replace(operation, outputs={**operation.outputs, **results})
        step = _Step(right, tensors, added, correct)
        if tensors:
            yield replace(step, operation=_answering(right, step.asked))


def _shown(operations: Sequence[Operation], operation: Operation) -> dict[str, tuple[str, Any]]:
    """Output -> the tensor that shows it, and what is added to it on the way there."""
    shown: dict[str, tuple[str, Any]] = {output: (tensor, None) for output, tensor in operation.tensors.items()}
    for other in operations:
        if (operation.family, operation.direction) == ("layer", "backward"):
            if (other.family, other.direction, other.layer) == ("regularizer", "backward", operation.layer):
                shown[other.context["weight"]] = other.tensors["g"], other.outputs["g"] - other["g"]
        elif (operation.family, operation.direction) == ("regularizer", "forward") and "loss" in other.tensors:
            shown["penalty"] = other.tensors["loss"], other.outputs["loss"] - operation.outputs["penalty"]
    return shown


# -- the search --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Guess:
    """Mistakes, what they make of the outputs of an operation, and which tensors are seen to change."""

    mistakes: tuple[Mistake, ...]
    outputs: Mapping[str, Any]
    seen: Mapping[str, np.ndarray]


class _Evidence:
    """All that is known of one comparison."""

    def __init__(
        self,
        operations: Sequence[Operation],
        reference: Trace,
        wrong: Mapping[str, np.ndarray],
        allowed: Mapping[str, Any],
        batch: int,
    ):
        self.reference, self.wrong, self.allowed, self.batch = reference, wrong, allowed, batch
        self.operations = operations
        self.steps = list(_steps(operations, reference, allowed))
        self.singles: dict[int, list[_Guess]] = {}  # by the number of the step
        self.nearness: dict[str, tuple[tuple[int, ...], np.ndarray]] = {}
        loss = next(op for op in operations if op.family == "loss")
        self.outputs = int(np.shape(loss["y_pred"])[-1])

    def finding(self, place: Place, local: bool) -> Finding:
        tensor = place.tensor
        subject, right = np.asarray(self.wrong[tensor]), np.asarray(self.reference[tensor])
        budgets = np.inf
        if subject.shape == right.shape:
            away = apart(subject, right)
            budgets = float(np.max(np.where(away == 0, 0.0, away / self.allowed[tensor])))
        cause, residual = None, "" if local else self._inherited(tensor)
        if not residual:
            cause = self._cause(tensor)
            residual = "" if cause else residuals.described(tensor, subject, right, self.allowed[tensor], self.batch)
        return Finding(tensor, place.computed_by, budgets, cause, residual)

    def _inherited(self, tensor: str) -> str:
        """Of which wrong tensors this one was computed; "" for none."""
        for step in self._steps_of(tensor):
            for array in step.operation.inputs.values():
                # One array can be several tensors: a layer that does nothing hands its input on.
                names = [name for name, value in self.reference.tensors.items() if value is array]
                if names and all(name in self.wrong for name in names):
                    return f"computed from {names[0]}, which is wrong itself"
        return ""

    def _steps_of(self, tensor: str) -> list[_Step]:
        return [step for step in self.steps if tensor in step.tensors.values()]

    def _cause(self, tensor: str) -> Cause | None:
        if self.wrong[tensor].shape != self.reference[tensor].shape:
            return transforms.reshaped(self._wrong(tensor))
        guesses = [guess for step in self._steps_of(tensor) for guess in self._single(step)]
        found = self._best(tensor, guesses) or transforms.transformed(self._wrong(tensor))
        if found is None:
            pairs = (guess for step in self._steps_of(tensor) for guess in self._pairs(step, tensor))
            found = self._best(tensor, pairs)
        return found

    def _single(self, step: _Step) -> list[_Guess]:
        number = self.steps.index(step)
        if number not in self.singles:
            made = ((m, step.made(m, step.operation)) for m in catalogue() if not m.equivalent)
            self.singles[number] = [_Guess((m,), outputs, step.seen(outputs)) for m, outputs in made if outputs]
        return self.singles[number]

    def _pairs(self, step: _Step, tensor: str) -> Iterator[_Guess]:
        """Two mistakes in one operation: the second made of what the first gave, or their errors added up. Only
        mistakes that leave the right tensors right."""
        right = step.operation.outputs
        singles = [
            g for g in self._single(step) if all(n in self.wrong or self._equal(n, v) for n, v in g.seen.items())
        ]
        for first, second in itertools.permutations(singles, 2):
            if tensor in first.seen or tensor in second.seen:
                then = step.made(second.mistakes[0], replace(step.operation, outputs={**right, **first.outputs}))
                outputs = {**first.outputs, **(then or {})}
                yield _Guess((*first.mistakes, *second.mistakes), outputs, step.seen(outputs))
        for first, second in itertools.combinations(singles, 2):
            shared = first.outputs.keys() & second.outputs.keys()
            summed = {output: first.outputs[output] + (second.outputs[output] - right[output]) for output in shared}
            outputs = {**first.outputs, **second.outputs, **summed}
            yield _Guess((*first.mistakes, *second.mistakes), outputs, step.seen(outputs))

    def _best(self, tensor: str, guesses: Iterable[_Guess]) -> Cause | None:
        """The guess that explains the most wrong tensors, then most of this one's error, in percent: what is nearer
        than that may be rounding. Of equal ones, the mistake of this very entry rather than of its family, and then
        the nearest."""
        fitting = [guess for guess in guesses if tensor in guess.seen and self._fits(guess)]
        if not fitting:
            return None

        def rank(guess: _Guess) -> tuple[float, ...]:
            covered = sum(name in self.wrong for name in guess.seen)
            families = sum(m.on in FAMILIES for m in guess.mistakes)
            explains = self._explains(tensor, guess.seen[tensor])
            return -covered, -round(explains, 2), families, -explains

        best = min(fitting, key=rank)
        same = [g for g in fitting if g is not best and np.array_equal(g.seen[tensor], best.seen[tensor])]
        return self._named(tensor, best, same)

    def _fits(self, guess: _Guess) -> bool:
        """Whether this is what happened: to the wrong tensors, and to those that are right."""
        return all(self._equal(name, value) for name, value in guess.seen.items())

    def _equal(self, tensor: str, guess: np.ndarray) -> bool:
        """Whether a guess is the subject's tensor up to rounding."""
        if tensor not in self.wrong:
            return within(guess, self.reference[tensor], self.allowed[tensor])
        subject, (worst, near) = self.wrong[tensor], self._near(tensor)
        # One element refuses nearly all guesses, and large tensors take time.
        if guess.shape != subject.shape or not within(guess[worst], subject[worst], near[worst]):
            return False
        return within(guess, subject, near)

    def _near(self, tensor: str) -> tuple[tuple[int, ...], np.ndarray]:
        """The element of a wrong tensor that is worst, and how far each may be from a guess that explains it."""
        if tensor not in self.nearness:
            subject, right = self.wrong[tensor], self.reference[tensor]
            allowed = np.broadcast_to(self.allowed[tensor], right.shape)
            worst = np.unravel_index(int(np.argmax(apart(subject, right) / allowed)), right.shape) if right.ndim else ()
            self.nearness[tensor] = tuple(int(i) for i in worst), allowed * growth(subject, right)
        return self.nearness[tensor]

    def _explains(self, tensor: str, guess: np.ndarray) -> float:
        error = float(np.linalg.norm(apart(self.wrong[tensor], self.reference[tensor])))
        return 1 - float(np.linalg.norm(apart(self.wrong[tensor], guess))) / error

    def _named(self, tensor: str, guess: _Guess, same: Sequence[_Guess]) -> Cause:
        codes = list(dict.fromkeys("+".join(m.code for m in g.mistakes) for g in same))
        text = "; and ".join(m.text for m in guess.mistakes)
        if len(guess.mistakes) == 2:
            text = f"two mistakes: {text}"
        elif factor := transforms.factor(self._wrong(tensor)):
            text = f"{factor.text.partition(':')[0]}: {text}"
        return Cause(
            "+".join(m.code for m in guess.mistakes),
            text + (f" (the same tensor: {', '.join(codes)})" if codes and len(guess.mistakes) == 1 else ""),
            ";  ".join(m.right for m in guess.mistakes),
            ";  ".join(m.wrong for m in guess.mistakes),
            self._explains(tensor, guess.seen[tensor]),
        )

    def _wrong(self, tensor: str) -> Wrong:
        sizes = {"batch": self.batch, "outputs": self.outputs}
        return Wrong(tensor, self.wrong[tensor], self.reference[tensor], self.allowed[tensor], sizes)
