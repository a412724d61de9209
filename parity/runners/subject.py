"""Somebody's own network as one side of a comparison: which layout it has, and its tensors as Keras would have them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parity import trace
from parity.calling import described, guarded
from parity.errors import ParityError, UsageError
from parity.subjects import Pass, Subject
from parity.trace import Layer, Trace, Weights
from parity.weights import layouts
from parity.weights.layouts import Layout

__all__ = ["Bound", "bind"]

CLEARLY = 10  # times nearer to Keras's outputs than the next layout, to be the one
ALIKE = 1e-3  # relative; outputs of two layouts that compute the same network are nearer than that


@dataclass(frozen=True)
class Form:
    """How samples and labels are handed over, and outputs come back; batch: whether all at once; columns: whether a
    sample is a column."""

    name: str
    samples: Callable[[np.ndarray], np.ndarray]
    columns: bool = False
    batch: bool = True

    def labels(self, y: np.ndarray) -> np.ndarray:
        if self.columns and not self.batch:
            return y.reshape(len(y), -1, 1)
        return y.T if self.columns and y.ndim == 2 else y

    def outputs(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Outputs batch first; left as they are where they do not fit."""
        turned = array.T if array.ndim == 2 else array
        for each in (turned, array) if self.columns else (array, turned):
            if each.shape == shape:
                return each
        fits = [n for n in array.shape if n != 1] == [n for n in shape if n != 1]
        return array.reshape(shape) if fits else array


def _columns(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1).T


FORMS = {
    "rows": Form("rows", lambda x: x),
    "columns": Form("columns", _columns, columns=True),
    "flat": Form("flat", lambda x: x.reshape(len(x), -1)),
    "channels first": Form("channels first", lambda x: np.moveaxis(x, -1, 1)),
    "one": Form("one", lambda x: x, batch=False),
    "one column": Form("one column", lambda x: x.reshape(len(x), -1, 1), columns=True, batch=False),
}
"""Name -> how samples are handed over: batch first as to Keras, one in each column, batch first and flattened, with the
channels in front of height and width, one sample a call, or one sample a call as a column."""


@dataclass(frozen=True)
class Bound:
    """A subject whose layout is known, on one network.

    layers: of the Keras network; output: the shape of one prediction.
    """

    subject: Subject
    layout: Layout
    form: Form
    layers: tuple[Layer, ...]
    output: tuple[int, ...]
    pick: int = 0  # which of the arrays that could be the outputs

    def run(self, weights: Weights, x: np.ndarray, y: np.ndarray) -> tuple[Trace, dict[str, str], tuple[str, ...]]:
        """The tensors by Keras's names and in Keras's layout; what each is called in the user's code; and what the
        code changed that was not its own."""
        passed = self._passed(weights, x, y)
        tensors: dict[str, np.ndarray] = {trace.INPUT: x}
        own: dict[str, str] = {}
        for name, (theirs, array) in self._kept(passed, len(x)).items():
            tensors[name], own[name] = array, theirs
        if passed.outputs is not None:
            name = trace.output(self.layers[-1].name)
            tensors[name] = self.form.outputs(passed.outputs, (len(x), *self.output))
            own.setdefault(name, "the outputs of forward")
        if passed.loss is not None:
            tensors[trace.LOSS] = passed.loss
        for name, (theirs, array) in self._gradients(passed).items():
            tensors[name], own[name] = array, theirs
        return (
            Trace(tensors, {"runner": "subject", "layout": self.layout.name, "samples": self.form.name}),
            own,
            self._not_its_own(passed.changed),
        )

    def gives_none(self, gradient: str) -> bool:
        """Whether the user said that there is no such gradient: gradients={"W1": None}."""
        held = [w for w in self.layout.shapes if trace.gradient(w) == gradient]
        return any(self.subject.gradients.get(k, "") is None for w in held for k in self.layout.holders(w))

    def _not_its_own(self, changed: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
        """What the code must not write to: all but the moving averages and the like, which a forward pass updates."""
        trained = {f"{layer.name}/{weight}" for layer in self.layers for weight in layer.weights}
        own = {k for k in self.layout.places if not any(k in self.layout.holders(w) for w in trained)}
        return tuple(f"{name} ({what})" for name, what in changed if name not in own)

    def samples(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(guarded("samples", lambda: self.form.samples(x)))

    def labels(self, y: np.ndarray) -> np.ndarray:
        given = self.subject.labels
        if callable(given):
            return np.asarray(guarded("labels", lambda: given(y)))
        if given not in (None, "integers", "one-hot"):
            raise UsageError(f"labels: expected integers, one-hot, or a function of y; received {given!r}")
        if given == "integers" and y.ndim > 1:
            return np.argmax(y, axis=-1)
        if given == "one-hot" and y.ndim == 1:
            y = np.eye(self.output[-1])[y.astype(int)]
        return self.form.labels(y)

    def _passed(self, weights: Weights, x: np.ndarray, y: np.ndarray) -> Pass:
        arrays = self.layout.arrange(weights)
        size = int(np.prod(self.output))
        if self.form.batch:
            return self.subject.run(arrays, self.samples(x), self.labels(y), len(x) * size, pick=self.pick)
        return _mean([self.subject.run(arrays, one, label, size, pick=self.pick)
                      for one, label in zip(self.samples(x), self.labels(y), strict=True)])  # fmt: skip

    def _gradients(self, passed: Pass) -> dict[str, tuple[str, np.ndarray]]:
        shapes = self.subject.parameters.shapes
        lone = [k for k, g in passed.gradients.items() if np.size(g) == 1 == int(np.prod(shapes[k]))]
        fitting = {k: g for k, g in passed.gradients.items() if np.shape(g) == shapes[k] or k in lone}
        found: dict[str, tuple[str, np.ndarray]] = {}
        for weight, array in self.layout.restore(fitting).items():
            found[trace.gradient(weight)] = self._called(weight, passed.own), array
        for key, array in passed.gradients.items():
            if key not in fitting:  # of another shape: shown as it is
                weight = next(w for w in self.layout.shapes if key in self.layout.holders(w))
                found[trace.gradient(weight)] = passed.own[key], np.asarray(array)
        trainable = {trace.gradient(f"{layer.name}/{weight}") for layer in self.layers for weight in layer.weights}
        return {name: item for name, item in found.items() if name in trainable}

    def _called(self, weight: str, own: Mapping[str, str]) -> str:
        """What the gradient by a weight is called; which part of it, where an array holds several weights."""
        held = self.layout.holders(weight)
        called = ", ".join(dict.fromkeys(own[key] for key in held))
        layer, _, short = weight.rpartition("/")
        beside = [w for w in self.layout.shapes if w != weight and set(held) & set(self.layout.holders(w))]
        if not beside:
            return called
        return f"the {short if all(w.startswith(f'{layer}/') for w in beside) else weight} in {called}"

    def _kept(self, passed: Pass, batch: int) -> dict[str, tuple[str, np.ndarray]]:
        """Intermediate tensors, by the names that the user gave or the usual ones, where the sizes fit."""
        known = {place.tensor for place in trace.flow(self.layers, "")}
        for theirs, ours in self.subject.tensors.items():
            if ours not in known or (theirs not in passed.kept and passed.kept):
                missing = f"Keras's network has no {ours!r}" if ours not in known else f"your code keeps no {theirs!r}"
                there = known if ours not in known else passed.kept
                raise UsageError(f"tensors: {missing}; there are {', '.join(map(str, there))}")
        found: dict[str, tuple[str, np.ndarray]] = {}
        for theirs, array in passed.kept.items():
            name = self.subject.tensors.get(theirs) or _usual(theirs, self.layers)
            if name is not None and array.dtype.kind in "fiu" and array.ndim > 1:
                turned = array.T if self.form.columns and array.ndim == 2 else array
                if len(turned) == batch:
                    found[name] = theirs, turned
        return found


def _mean(passes: Sequence[Pass]) -> Pass:
    """Of passes of one sample each: outputs and intermediates beside each other, loss and gradients as a mean."""
    first = passes[0]
    outputs: list[Any] = [p.outputs for p in passes]
    losses: list[Any] = [p.loss for p in passes]
    return replace(
        first,
        outputs=None if first.outputs is None else np.stack(outputs),
        loss=None if first.loss is None else np.mean(losses, axis=0),
        gradients={k: np.mean([p.gradients[k] for p in passes], axis=0) for k in first.gradients},
        kept={},
        changed=tuple(dict.fromkeys(name for p in passes for name in p.changed)),
    )


USUAL = re.compile(r"^(d)?(z|a|h)_?(\d+)$", re.IGNORECASE)


def _usual(theirs: str, layers: Sequence[Layer]) -> str | None:
    """Z2, A2, dZ2, dA2: of the second layer that has weights. A gradient dZ is by the pre-activations."""
    found = USUAL.match(theirs)
    weighted = [layer for layer in layers if layer.weights]
    if not found or not 1 <= int(found[3]) <= len(weighted):
        return None
    layer = weighted[int(found[3]) - 1]
    before = found[2] in "zZ" and layer.has_pre_activation
    tensor = trace.pre_activation(layer.name) if before else trace.output(layer.name)
    return trace.gradient(tensor) if found[1] else tensor


# -- which layout ------------------------------------------------------------------------------------------------------


def bind(
    subject: Subject, layers: tuple[Layer, ...], weights: Weights, x: np.ndarray, y: np.ndarray, reference: Trace
) -> Bound:
    """The subject with the layout that it names, or the only one with which it computes what the reference does.

    `UsageError` where none fits, or where several do and none is clearly nearer than the others.
    """
    output = np.shape(reference[trace.output(layers[-1].name)])[1:]
    hypotheses = [
        Bound(subject, layout, form, layers, output)
        for layout in _layouts(subject, weights, _images(layers, weights, reference))
        for form in _forms(subject, layout, x)
    ]
    if len(hypotheses) == 1 and "forward" not in subject.functions:
        return hypotheses[0]
    tried: list[tuple[float | ParityError, Bound]] = []
    for bound in hypotheses:
        far, choices = _far(bound, weights, x, y, reference)
        tried.append((far, bound))
        hypotheses += [replace(bound, pick=pick) for pick in range(1, choices)] if bound.pick == 0 else []
    running = sorted(((far, bound) for far, bound in tried if isinstance(far, float)), key=lambda item: item[0])
    if not running:
        raise _none_runs([(error, bound) for error, bound in tried if isinstance(error, ParityError)])
    return _nearest(running)


def _none_runs(tried: Sequence[tuple[ParityError, Bound]]) -> ParityError:
    """The first error, and what else was tried."""
    error, _ = tried[0]
    if len(tried) == 1:
        return error
    ways = ", ".join(dict.fromkeys(f"layout {b.layout.name} with samples {b.form.name}" for _, b in tried))
    return type(error)(f"{error}\n  no way of handing it over runs ({ways}); say which: layout='...', samples='...'")


def _images(layers: Sequence[Layer], weights: Weights, reference: Trace) -> dict[str, tuple[int, ...]]:
    """Kernel of a Dense -> the shape (height, width, channels) that a Flatten in front of it flattens, where the order
    of these axes matters."""
    found: dict[str, tuple[int, ...]] = {}
    shape, image = np.shape(reference[trace.INPUT])[1:], None
    for layer in layers:
        kernel = f"{layer.name}/kernel"
        if layer.kind == "Flatten":
            image = shape if len(shape) == 3 and shape[2] > 1 and shape[0] * shape[1] > 1 else None
        elif layer.kind == "Dense" and image is not None and kernel in weights:
            found[kernel] = image
        if layer.weights:
            image = None
        shape = np.shape(reference[trace.output(layer.name)])[1:]
    return found


def _layouts(subject: Subject, weights: Weights, images: Mapping[str, tuple[int, ...]]) -> list[Layout]:
    shapes, template = {n: np.shape(w) for n, w in weights.items()}, subject.parameters.shapes
    if callable(subject.layout):
        return [layouts.explicit(subject.layout, shapes, template)]
    if subject.layout is not None and subject.layout not in layouts.CONVENTIONS:
        raise UsageError(
            f"layout: expected one of {', '.join(layouts.CONVENTIONS)}, or a function; received {subject.layout!r}"
        )
    found = layouts.candidates(shapes, template, subject.layout, images)
    left = subject.parameters.left_out
    if not found:
        raise UsageError(
            f"layout: your parameters, {_list(template)}, hold Keras's weights, {_list(shapes)}, in no way that is "
            "known; say how: layout=lambda w: {'W1': w['dense/kernel'].T, ...}"
            + (f". Not taken for parameters: {', '.join(left)}; if they are, give params={{...}}" if left else "")
        )
    return found


def _list(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())


def _forms(subject: Subject, layout: Layout, x: np.ndarray) -> list[Form]:
    given = subject.samples
    if callable(given):
        return [Form("explicit", lambda array: np.asarray(given(array)), columns=columns) for columns in (False, True)]
    if given is not None:
        if given not in FORMS:
            raise UsageError(f"samples: expected one of {', '.join(FORMS)}, or a function of x; received {given!r}")
        return [FORMS[given]]
    likely = ["rows", "columns"] + (["flat"] if x.ndim > 2 else []) + (["channels first"] if x.ndim == 4 else [])
    return [FORMS[name] for name in (reversed(likely[:2]) if "column" in layout.name else likely[:2])] + [
        FORMS[name] for name in likely[2:]
    ]


def _far(
    bound: Bound, weights: Weights, x: np.ndarray, y: np.ndarray, reference: Trace
) -> tuple[float | ParityError, int]:
    """How far the outputs are from the reference's, relative; or the gradients, where there is no forward pass. The
    error where the code does not run this way. And among how many arrays the outputs were chosen."""
    name = trace.output(bound.layers[-1].name)
    choices = 1
    try:
        if "forward" in bound.subject.functions:
            outputs, choices = _forward(bound, weights, x, y)
            return _relative(bound.form.outputs(outputs, np.shape(reference[name])), reference[name]), choices
        found, _, _ = bound.run(weights, x, y)
        shared = [name for name in found.tensors if name in reference and name != trace.INPUT]
        return float(np.mean([_relative(found[name], reference[name]) for name in shared])), choices
    except ParityError as error:
        return error, choices


def _forward(bound: Bound, weights: Weights, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, int]:
    """The outputs, and how many arrays could be them."""
    arrays, size = bound.layout.arrange(weights), int(np.prod(bound.output))
    samples, labels = bound.samples(x), bound.labels(y)
    if bound.form.batch:
        passed = bound.subject.run(arrays, samples, labels, len(x) * size, forward_only=True, pick=bound.pick)
        return np.asarray(passed.outputs), passed.choices
    each = [
        bound.subject.run(arrays, a, b, size, forward_only=True, pick=bound.pick)
        for a, b in zip(samples, labels, strict=True)
    ]
    outputs: list[Any] = [passed.outputs for passed in each]
    return np.stack(outputs), each[0].choices


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    if np.shape(a) != np.shape(b):
        raise UsageError(f"expected outputs of shape {np.shape(b)}; received {described(np.asarray(a))}")
    with np.errstate(all="ignore"):
        far = np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)
    return float(far) if np.isfinite(far) else np.inf


def _nearest(running: Sequence[tuple[float, Bound]]) -> Bound:
    """The hypothesis that is clearly the nearest. Several that are all right differ in nothing that was computed."""
    (far, best), *others = running
    if not others or (far < ALIKE and all(other > ALIKE for other, _ in others)) or far * CLEARLY < others[0][0]:
        return best
    if others[0][0] < ALIKE:
        same = [bound for other, bound in running if other < ALIKE and bound.layout is best.layout]
        if len(same) == sum(other < ALIKE for other, _ in running):
            return best  # one layout; samples of one column or row are the same either way
    if all(bound.layout is best.layout and bound.form == best.form for _, bound in running):
        return best  # what differs is which array the outputs are: the nearest
    said = "; ".join(f"{b.layout.name}, samples {b.form.name}: outputs {far:.2g} away" for far, b in running)
    raise UsageError(
        f"layout: your parameters fit in {len(running)} ways, and no one of them is clearly what Keras computes: "
        f"{said}. Say which: layout='...' and samples='...'"
    )
