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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from parity import trace
from parity.mistakes import Mistake, catalogue
from parity.runners.steps import Operation
from parity.trace import Place, Trace

__all__ = ["Cause", "Finding", "diagnose"]


@dataclass(frozen=True)
class Cause:
    """What makes an error.

    code: stable, for programs: that of a mistake, of two joined by `+`, or of a transform; text: one sentence that says
    what to change; right, wrong: the formulas; explains: the share of the error that it explains,
    1 - |residual| / |error| in the 2-norm.
    """

    code: str
    text: str
    right: str
    wrong: str
    explains: float


@dataclass(frozen=True)
class Finding:
    """One tensor out of budget, in the order of data flow; residual: what its error looks like, where no cause was
    found."""

    tensor: str
    computed_by: str
    budgets: float
    cause: Cause | None
    residual: str


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
            _within(operation.outputs[output], result, allowed[tensors[output]]) for output, result in results.items()
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
            away = _apart(subject, right)
            budgets = float(np.max(np.where(away == 0, 0.0, away / self.allowed[tensor])))
        cause, residual = None, "" if local else self._inherited(tensor)
        if not residual:
            cause = self._cause(tensor)
            residual = "" if cause else self._residual(tensor)
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
            return self._of_another_shape(tensor)
        guesses = [guess for step in self._steps_of(tensor) for guess in self._single(step)]
        found = self._best(tensor, guesses) or self._factor(tensor) or self._rearranged(tensor)
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
            return _within(guess, self.reference[tensor], self.allowed[tensor])
        subject, (worst, near) = self.wrong[tensor], self._near(tensor)
        # One element refuses nearly all guesses, and large tensors take time.
        if guess.shape != subject.shape or not _within(guess[worst], subject[worst], near[worst]):
            return False
        return _within(guess, subject, near)

    def _near(self, tensor: str) -> tuple[tuple[int, ...], np.ndarray]:
        """The element of a wrong tensor that is worst, and how far each may be from a guess that explains it."""
        if tensor not in self.nearness:
            subject, right = self.wrong[tensor], self.reference[tensor]
            allowed = np.broadcast_to(self.allowed[tensor], right.shape)
            worst = (
                np.unravel_index(int(np.argmax(_apart(subject, right) / allowed)), right.shape) if right.ndim else ()
            )
            self.nearness[tensor] = tuple(int(i) for i in worst), allowed * _growth(subject, right)
        return self.nearness[tensor]

    def _explains(self, tensor: str, guess: np.ndarray) -> float:
        error = float(np.linalg.norm(_apart(self.wrong[tensor], self.reference[tensor])))
        return 1 - float(np.linalg.norm(_apart(self.wrong[tensor], guess))) / error

    def _named(self, tensor: str, guess: _Guess, same: Sequence[_Guess]) -> Cause:
        codes = list(dict.fromkeys("+".join(m.code for m in g.mistakes) for g in same))
        text = "; and ".join(m.text for m in guess.mistakes)
        if len(guess.mistakes) == 2:
            text = f"two mistakes: {text}"
        elif factor := self._factor(tensor):
            text = f"{factor.text.partition(':')[0]}: {text}"
        return Cause(
            "+".join(m.code for m in guess.mistakes),
            text + (f" (the same tensor: {', '.join(codes)})" if codes and len(guess.mistakes) == 1 else ""),
            ";  ".join(m.right for m in guess.mistakes),
            ";  ".join(m.wrong for m in guess.mistakes),
            self._explains(tensor, guess.seen[tensor]),
        )

    # -- transforms ----------------------------------------------------------------------------------------------------

    def _factor(self, tensor: str) -> Cause | None:
        """Zeros, or a constant factor. Of a lone number every other one is a multiple, so there it needs a name."""
        subject, right = self.wrong[tensor], self.reference[tensor]
        if subject.shape != right.shape or not (np.all(np.isfinite(subject)) and np.all(np.isfinite(right))):
            return None
        if not np.any(subject):
            return Cause(
                "zeros", f"{tensor} is all zeros: it is never computed, or multiplied with 0", tensor, "0", 1.0
            )
        names = {"batch": self.batch, "outputs": self.outputs, "units": subject.shape[-1] if subject.ndim else 1}
        lone = np.count_nonzero(np.abs(right) > self.allowed[tensor]) < 2
        fitted = _Factor(float(np.vdot(right, subject) / (np.vdot(right, right) or np.nan)))
        if not (lone or self._equal(tensor, np.asarray(right * fitted.value))):
            return None
        for factor in (*_named_factors(names), *([] if lone else [fitted])):
            guess = np.asarray(right * factor.value)
            if self._equal(tensor, guess):
                explains = self._explains(tensor, guess)
                return Cause(factor.code, factor.text(tensor), tensor, f"{factor.value:.4g} * {tensor}", explains)
        return None

    def _rearranged(self, tensor: str) -> Cause | None:
        """The right numbers in other places."""
        subject, right = self.wrong[tensor], self.reference[tensor]
        allowed = np.broadcast_to(self.allowed[tensor], right.shape)
        for code, how, move in _moves(subject, right):
            if _within(subject, move(right), move(allowed)):
                text = f"{tensor} is TensorFlow's {how}: undo that"
                return Cause(code, text, tensor, f"{tensor} {how}", self._explains(tensor, move(right)))
        return None

    def _of_another_shape(self, tensor: str) -> Cause | None:
        """What the wrong shape comes from. Nothing of such a tensor is right, so its error is all of it."""
        subject, right = self.wrong[tensor], self.reference[tensor]
        allowed = np.broadcast_to(self.allowed[tensor], right.shape)
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
                if expected.shape == seen.shape and _within(seen, expected, move(allowed)):
                    text = f"{tensor} is {words}: its shape is {subject.shape} and must be {right.shape}"
                    explains = 1 - float(np.linalg.norm(_apart(seen, expected)) / (np.linalg.norm(seen) or 1))
                    return Cause(code, text, f"shape {right.shape}", f"shape {subject.shape}", explains)
        return None

    # -- what is left --------------------------------------------------------------------------------------------------

    def _residual(self, tensor: str) -> str:
        """What an error looks like that has no name."""
        subject, right = self.wrong[tensor], self.reference[tensor]
        if subject.shape != right.shape:
            return f"shape {subject.shape} where TensorFlow has {right.shape}"
        allowed = np.broadcast_to(self.allowed[tensor], right.shape)
        outside = _apart(subject, right) > allowed
        count = f"{np.count_nonzero(outside)} of {outside.size} elements"
        if not np.all(np.isfinite(subject[outside])):
            return f"not finite in {np.count_nonzero(~np.isfinite(subject))} of {outside.size} elements"
        if subject.ndim == 0:
            return f"constant factor {float(subject / right):.4g}" if right else f"constant {float(subject):.4g}"
        axes = _axes(tensor, right.shape, self.batch)
        if place := _place(outside, axes):
            return place
        if not np.any(subject[outside]):
            return f"zero in {count}"
        error = np.asarray(subject, np.float64) - right
        if pattern := _pattern(error, subject, right, allowed, axes):
            return pattern
        if not np.any(right[outside]):
            return f"only where TensorFlow has 0, {count}"
        return f"no pattern, {count}"


# -- factors -----------------------------------------------------------------------------------------------------------

WORDS = {"batch": "the batch size", "outputs": "the number of outputs", "units": "the number of units"}
FACTS = {"batch": "your batch is {}", "outputs": "there are {} outputs", "units": "there are {} units"}


@dataclass(frozen=True)
class _Factor:
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

    def text(self, tensor: str) -> str:
        sizes = {**self.over, **self.under}
        facts = [FACTS[name].format(size) for name, size in sizes.items() if name in FACTS]
        because = f" and {' and '.join(facts)}" if facts else ""
        return f"{tensor} is {self.value:.4g} times TensorFlow's{because}{self.equal}: {' and '.join(self._advice())}"

    def _advice(self) -> Iterator[str]:
        if not self.known:
            yield "look for a factor that is missing or one too many"
        if self.over:
            yield "divide by " + " and by ".join(WORDS.get(name, "2") for name in self.over)
        if self.under:
            yield "multiply by " + " and by ".join(WORDS.get(name, "2") for name in self.under)
        if self.value < 0 and self.known:
            yield "change the sign"


def _named_factors(sizes: Mapping[str, int]) -> list[_Factor]:
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
        found += [_Factor(sign * value, over, under, said) for sign in (1, -1) if sign * value != 1]
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
            slices = _matching(subject, right, axis)
            how = f"with its slices along axis {axis} in another order"
            yield "permuted", how, lambda a, slices=slices, axis=axis: np.take(a, slices, axis)  # type: ignore[misc]
        places = np.argsort(right, axis=None)[np.argsort(np.argsort(subject, axis=None))]
        yield "reordered", "with its elements in other places", lambda a: a.reshape(-1)[places].reshape(shape)


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


# -- shapes of errors --------------------------------------------------------------------------------------------------


def _axes(tensor: str, shape: Sequence[int], batch: int) -> list[str]:
    """What one index of each axis is."""
    names = ["row", "column"] if len(shape) == 2 else [f"index of axis {axis}" for axis in range(len(shape))]
    of_samples = tensor.removesuffix(".gradient").endswith((trace.INPUT, "/output", "/pre_activation"))
    if shape and shape[0] == batch and of_samples:
        names[0] = "sample"
    return names if len(shape) > 1 else ["element"]


def _place(outside: np.ndarray, axes: Sequence[str]) -> str:
    """Where the error is, if it is one element, one sample, one row or one column."""
    if np.count_nonzero(outside) == 1 and outside.size > 1:
        index = ", ".join(str(int(i)) for i in np.argwhere(outside)[0])
        return f"one element ({index})"
    for axis, name in enumerate(axes):
        others = tuple(a for a in range(outside.ndim) if a != axis)
        hit = np.flatnonzero(np.any(outside, axis=others))
        if len(hit) == 1 and outside.shape[axis] > 1:
            return f"one {name} ({hit[0]})"
    return ""


def _pattern(
    error: np.ndarray, subject: np.ndarray, right: np.ndarray, allowed: np.ndarray, axes: Sequence[str]
) -> str:
    """Constant, constant along an axis, a factor for each index of an axis, or of rank one. What two elements that are
    both right up to `allowed` can differ by is twice that."""
    if not np.all(np.isfinite(error)):
        return ""
    allowed = allowed * _growth(subject, right)
    largest = float(np.max(allowed))
    if error.size > 1 and np.ptp(error) <= 2 * largest:
        return f"constant {float(np.mean(error)):.4g} on top"
    for axis, name in reversed(list(enumerate(axes))):
        others = tuple(a for a in range(error.ndim) if a != axis)
        if error.size > error.shape[axis] > 1:
            if np.all(np.ptp(error, axis=others) <= 2 * largest):
                return f"constant in each {name}"
            products, squares = (np.sum(right * a, axis=others, keepdims=True) for a in (subject, right))
            factors = np.where(squares > 0, products / np.where(squares > 0, squares, 1), 0)
            if _within(subject, right * factors, allowed * np.maximum(1, np.abs(factors))):
                return f"a constant factor in each {name}"
    if error.ndim == 2 and min(error.shape) > 1:
        values = np.linalg.svd(error, compute_uv=False)
        # The error of a matrix moves its singular values by at most its 2-norm, which its Frobenius norm bounds (Weyl).
        if values[1] <= np.linalg.norm(allowed) < values[0]:
            return "rank one"
    return ""


# -- distances ---------------------------------------------------------------------------------------------------------


def _apart(a: Any, b: Any) -> np.ndarray:
    """|a - b|; 0 where both are the same infinity or both NaN, infinite where only one of them is."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    away = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y))
    return np.where(np.isnan(away), np.inf, away)


def _within(a: Any, b: Any, allowed: Any) -> bool:
    return np.shape(a) == np.shape(b) and bool(np.all(_apart(a, b) <= allowed))


def _growth(array: np.ndarray, right: np.ndarray) -> float:
    """Rounding errors are in proportion to what is rounded: what is seven times too large may be seven budgets off."""
    return max(1.0, _largest(array) / (_largest(right) or np.inf))


def _largest(array: Any) -> float:
    sizes = np.abs(np.asarray(array, np.float64))
    return float(np.max(sizes, where=np.isfinite(sizes), initial=0.0))
