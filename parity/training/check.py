"""`check_training`: a hand-written update against Keras's optimizer, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from parity.errors import SubjectError, UsageError
from parity.mistakes.update_rules import Arrays
from parity.report.training import TrainingReport
from parity.training import design
from parity.training.comparison import Comparison, Trial
from parity.training.keras import Reference, reference_for
from parity.training.subject import Failed, Form, Subject

__all__ = ["check_training"]

STEPS = 10  # five before and five after the learning rate changes: a state that is wrong by one factor is by five

FLOAT32 = 2.0**-24  # how far apart two numbers may be, in units of themselves, that are one float32: half a last place


def check_training(
    optimizer: Any,
    update: Any,
    *,
    steps: int | None = None,
    seed: int = 0,
    weights: Any = None,
    gradients: Sequence[Any] | None = None,
    learning_rates: Sequence[float] | None = None,
) -> TrainingReport:
    """Compare a hand-written update with Keras's optimizer after every step, in float64, and name the mistake.

    optimizer: a Keras optimizer, its config, its name, or its name with arguments: "Adam(learning_rate=0.01)".
    update: a function of weights and gradients, or an object with a method `update`, `step` or `apply_gradients`. It
    may return new weights (and new state after them) or change the arrays in place; it takes a list of arrays, a
    dictionary of arrays, or one array. Arguments are bound by name: w, params ...; g, grads ...; m, v, cache, state
    ...; t, step ...; lr, learning_rate ...; and constants such as beta_1 that have no default. It is called once for
    each step. What it keeps from call to call is put back at the end.
    steps: 10, or as many as there are gradients or learning rates. weights: the start weights, in the form that the
    update takes. gradients: for each step, in the form of the weights. learning_rates: for each step; without them
    the optimizer's schedule, or its learning rate and, from the middle on, a smaller one where the code takes one.
    Raises UsageError for what cannot be called, SubjectError, with its line, where the code itself raises.
    """
    reference = reference_for(optimizer)
    subject = Subject.of(update, reference.config)
    count = _steps(steps, gradients, learning_rates)
    rates = _rates(reference, subject, count, learning_rates)
    given = _forms(weights) if weights is not None else list(_designed_forms())
    if gradients is not None and weights is None:
        raise UsageError("gradients: give the start weights that they belong to as well, as weights=")
    trial = _runnable(subject, reference, given, weights, gradients, rates, seed)
    comparison = Comparison(reference, subject, trial, rates, seed)
    if reference.rounded and (factor := comparison.rate_factor()) != 1 and abs(factor - 1) <= FLOAT32:
        # The learning rate of the code is another number than Keras's, but the same float32.
        comparison = Comparison(reference, subject, trial, [rate * factor for rate in rates], seed)
    return comparison.report()


# -- what the code is given --------------------------------------------------------------------------------------------


def _steps(steps: int | None, gradients: Sequence[Any] | None, rates: Sequence[float] | None) -> int:
    lengths = {name: len(s) for name, s in (("gradients", gradients), ("learning_rates", rates)) if s is not None}
    if steps is not None:
        lengths["steps"] = steps
    if any(length < 1 for length in lengths.values()) or len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} for {length} steps" for name, length in lengths.items())
        raise UsageError(f"steps: expected one number of steps, at least 1; received {said}")
    return next(iter(lengths.values()), STEPS)


def _rates(reference: Reference, subject: Subject, steps: int, rates: Sequence[float] | None) -> list[float]:
    if rates is not None:
        chosen = [float(rate) for rate in rates]
    elif reference.schedule is not None:
        chosen = reference.scheduled(steps)
    else:
        chosen = design.rates(reference.rate, steps) if subject.takes_rate else [reference.rate] * steps
    if len(set(chosen)) > 1 and not subject.takes_rate:
        raise UsageError(
            "learning_rates: they change, and your code takes no learning rate: give it an argument lr, or the object "
            "an attribute lr"
        )
    return chosen


def _designed_forms() -> list[Form]:
    """What is tried, in this order. Code that shares a state between tensors runs only where all have one shape."""
    forms = [
        Form(kind, design.NAMES, shapes, design.NAMES)
        for shapes in (design.SHAPES, design.EQUAL)
        for kind in ("list", "dict")
    ]
    return [*forms, Form("array", design.NAMES[:1], design.SHAPES[:1])]


def _forms(weights: Any) -> list[Form]:
    """The form of the weights that somebody gives."""
    if isinstance(weights, Mapping):
        arrays = _arrays(weights.values())
        return [Form("dict", tuple(map(str, weights)), tuple(a.shape for a in arrays), tuple(weights))]
    if isinstance(weights, list | tuple):
        arrays = _arrays(weights)
        return [Form("list", tuple(f"weights[{i}]" for i in range(len(arrays))), tuple(a.shape for a in arrays))]
    return [Form("array", ("w",), tuple(a.shape for a in _arrays([weights])))]


def _arrays(values: Any) -> Arrays:
    try:
        arrays = [np.array(value, np.float64) for value in values]
    except (TypeError, ValueError) as error:
        raise UsageError(f"weights and gradients: expected arrays of numbers, one or several: {error}") from error
    if not arrays:
        raise UsageError("weights: expected at least one array; received none")
    return arrays


def _unpacked(form: Form, value: Any) -> Arrays:
    """Given weights or gradients as arrays, in the order of the form."""
    if form.kind == "dict":
        if not isinstance(value, Mapping) or set(value) != set(form.keys):
            raise UsageError(f"gradients: expected for each step a dictionary with the keys {list(form.keys)}")
        value = [value[key] for key in form.keys]
    arrays = _arrays([value] if form.kind == "array" else value)
    shapes = tuple(a.shape for a in arrays)
    if shapes != form.shapes:
        raise UsageError(f"gradients: expected for each step arrays of the shapes {form.shapes}; received {shapes}")
    return arrays


def _runnable(
    subject: Subject,
    reference: Reference,
    forms: Sequence[Form],
    weights: Any,
    gradients: Sequence[Any] | None,
    rates: Sequence[float],
    seed: int,
) -> Trial:
    """The first form with which the code makes a step, one that moves the weights if there is such a form: NumPy takes
    a list of arrays of one shape for one array, and does not change it in place. SubjectError where none can be run."""
    refusals: dict[Form, str] = {}
    still: Trial | None = None
    for form in forms:
        start = design.weights(form.shapes, seed) if weights is None else _unpacked(form, weights)
        made = (
            design.gradients(form.shapes, len(rates), seed, reference.config)
            if gradients is None
            else [_unpacked(form, each) for each in gradients]
        )
        try:
            first = subject.run(form, start, made[:1], rates[:1])[0]
        except Failed as failed:
            refusals[form] = str(failed)
            continue
        finally:
            subject.notes.clear()
        trial = Trial(form, start, made)
        if not all(map(np.array_equal, first, start)):
            return _noted(trial, subject, refusals)
        still = still or trial
    if still is None:
        raise SubjectError(_refused(refusals))
    return _noted(still, subject, refusals)


def _noted(trial: Trial, subject: Subject, refusals: Mapping[Form, str]) -> Trial:
    """The trial, with a note where the code was given tensors of one shape because it cannot run with others."""
    different = [
        text for form, text in refusals.items() if form.kind == trial.form.kind and form.shapes == design.SHAPES
    ]
    if trial.form.shapes == design.EQUAL and different:
        said = f"with {trial.form.said} of shapes {design.SHAPES}: {different[0]}"
        subject.notes[f"your code runs only where all tensors have one shape; {said}"] = None
    return trial


def _refused(refusals: Mapping[Form, str]) -> str:
    """Why no form can be run: once, where it is the same for all."""
    if len(set(refusals.values())) == 1:
        reasons = list(refusals.values())[:1]
    else:
        reasons = [f"with {form.said} of shapes {form.shapes}: {text}" for form, text in refusals.items()]
    hint = "if it needs other weights, give some in its own form: weights={'W1': ..., 'b1': ...}"
    return "\n  ".join(["update: your code cannot make a step", *reasons, hint])
