"""The third opinion: how far a correct float32 evaluation of every operation may be off, finite differences where two
gradients disagree, and how far rounding alone moves the tensors of a whole run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from parity import trace
from parity.budget import FLOAT32, Arithmetic, Bounded
from parity.runners import scratch
from parity.runners.steps import Operation
from parity.spec import Spec
from parity.trace import Trace, Weights
from scratchnet import gradcheck

__all__ = ["NOISE", "VOTES", "bounds", "floors", "spread", "vote"]

VOTES = {
    "subject": "NumPy and finite differences agree, TensorFlow is the odd one out: its gradient by {tensor} is not the "
    "derivative of the loss",
    "reference": "finite differences agree with TensorFlow: scratchnet's gradient by {tensor} is not the derivative of "
    "its own loss",
}
FLUSHED = 2.0**-102
"""TensorFlow's own intermediate products are flushed to zero below 2^-126, and what follows can multiply that: a
derivative of a normalisation by up to epsilon^-1.5. Gradients of 1e-31 were seen 24 budgets off; 2^24 times the
smallest normal number covers an epsilon of 1e-5."""

NOISE = 32
"""Times the rounding of one float32 evaluation that another one may be off: of whole runs at most 14 were measured."""
CLEARLY = 8  # times nearer to the finite differences than the other one, to have their vote
SAME_RUN = 0.01  # of a tensor's norm; rounding of a float32 run was measured at up to 5e-5
VOTERS = 256  # samples: finite differences take some 40 runs for each tensor


def bounds(
    spec: Spec, weights: Weights, reference: Trace, y: np.ndarray, arithmetic: Arithmetic = FLOAT32
) -> dict[str, np.ndarray]:
    """The rounding bound of each tensor in this arithmetic, from the tensors that the reference put into its
    operation.

    A recurrence is one operation of many steps, and what is certain to bound its errors grows with the magnitudes of
    all weights in each of them: 10^139 after 28 steps of 32 units. So there the rounding of a float32 evaluation is the
    measure as well, as it is for whole runs.
    """
    recurrent: dict[str, None] = {}

    def look(operation: Operation) -> Mapping[str, Any]:
        if operation.family in ("layer", "regularizer"):
            layer = next(each for each in operation.context["chain"].layers if each.name == operation.layer)
            if "return_sequences" in layer.arguments():
                recurrent.update(dict.fromkeys(operation.tensors.values()))
        return operation.outputs

    results = scratch.replay(spec, weights, reference, y, lambda array: Bounded(array, None, arithmetic), look)
    flushed = FLUSHED if arithmetic is FLOAT32 else 0.0
    found = {name: value.bound() + flushed for name, value in results.items()}
    if reference.conditions.get("runner") == "torch":
        for name, more in _bias_among_the_terms(weights, spec, arithmetic).items():
            if name in found:
                found[name] = found[name] + more
    if recurrent:
        rounded = scratch.replay(spec, weights, reference, y, lambda array: np.asarray(array, np.float32))
        roundings = NOISE * arithmetic.unit / FLOAT32.unit
        for name in recurrent:
            found[name] = np.fmin(found[name], roundings * spread(rounded[name], results[name].value) + flushed)
    return found


def _bias_among_the_terms(weights: Weights, spec: Spec, arithmetic: Arithmetic) -> dict[str, np.ndarray]:
    """What PyTorch's biases add to the bounds of a Dense and a Conv2D.

    Keras adds a bias to the finished sum, with one rounding. PyTorch's kernels may begin with it and add the n products
    to that, so each of at most n + 1 roundings is of a number as large as the bias as well: (n + 1) u |b|. Two bounds
    are allowed between two results, and the other one has its bias at the end, so half of that goes into each. Where
    small inputs meet a large bias, convolutions of 1 x 1 were seen at 2.8 times what is allowed without this.
    """
    found = {}
    for entry in spec.config["layers"]:
        name = entry["config"].get("name")
        kernel, bias = weights.get(f"{name}/kernel"), weights.get(f"{name}/bias")
        if entry["class_name"] in ("Dense", "Conv2D") and kernel is not None and bias is not None:
            layer = trace.Layer.from_config(entry, ())
            tensor = trace.pre_activation(name) if layer.has_pre_activation else trace.output(name)
            terms = kernel.size // max(kernel.shape[-1], 1)
            found[tensor] = (terms + 1) / 2 * arithmetic.unit * np.abs(bias, dtype=np.float64)
    return found


def floors(subject: Trace, reference: Trace, exact: Trace) -> dict[str, float]:
    """For each tensor, how far subject and reference are apart, both as whole float32 runs, in units of how far the
    reference is from its own float64 run. The norms are of whole tensors; a unit is at least 2^-24 of the tensor.
    Tensors that differ between float32 and float64 by more than rounding are left out: Dropout draws other cells there.
    """
    found = {}
    for name in reference.tensors:
        if name in subject and name in exact and np.shape(subject[name]) == np.shape(reference[name]):
            s, r, o = (np.asarray(side[name], dtype=np.float64) for side in (subject, reference, exact))
            floor = _floor(r, o)
            if floor <= SAME_RUN * _norm(o):
                found[name] = _norm(s - r) / floor if floor else (np.inf if _norm(s - r) else 0.0)
    return found


def spread(reference: np.ndarray, exact: np.ndarray) -> float:
    """How far one element of a float32 run is moved by rounding: the root mean square of the tensor's errors, times
    four, because where most elements are exact (dead units) all of the error is in the others."""
    r, o = np.asarray(reference, np.float64), np.asarray(exact, np.float64)
    return _floor(r, o) * min(1.0, 4 / np.sqrt(max(o.size, 1)))


def _floor(r: np.ndarray, o: np.ndarray) -> float:
    return max(_norm(r - o), 2.0**-24 * _norm(o))


def vote(
    spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, subject: Trace, reference: Trace, tensor: str
) -> str:
    """Whose gradient by `tensor`, a weight or "input", is the derivative of the loss along a random direction:
    "subject", "reference", or "" where finite differences cannot tell (a kink, too many samples, both or neither)."""
    if len(x) > VOTERS:
        return ""
    spec = spec.with_dtype("float64")
    weights = {name: array.astype(np.float64) for name, array in weights.items()}
    at = {tensor: x.astype(np.float64) if tensor == trace.INPUT else weights[tensor]}

    def loss(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        moved = {name: arrays.get(name, array) for name, array in weights.items()}
        return scratch.loss(spec, moved, arrays.get(trace.INPUT, x), y)

    errors = []
    for side in (subject, reference):
        gradient = np.asarray(side[trace.gradient(tensor)], dtype=np.float64)
        rng = np.random.default_rng(spec.seed)  # the same direction for both
        (check,) = gradcheck.directional(loss, lambda dy, g=gradient: {tensor: dy * g}, at, rng)  # type: ignore[misc]
        if not check.smooth:
            return ""
        errors.append(max(check.error, check.allowed))
    nearer = "subject" if errors[0] < errors[1] else "reference"
    return nearer if max(errors) > CLEARLY * min(errors) else ""


def _norm(array: np.ndarray) -> float:
    return float(np.linalg.norm(array))
