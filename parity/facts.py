"""What the data does to the reference: facts that explain a number where nothing is wrong.

A probability at 0 is clipped before its logarithm, a row of outputs is divided by its sum, labels without a last axis
broadcast. Each is said with its count, because that is what somebody sees who computes the loss by hand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from parity import trace
from parity.diagnose import Finding
from parity.diagnose.whole import Seen
from parity.mistakes import catalogue
from parity.mistakes.normalization import Normalized
from parity.report import share
from parity.runners import scratch
from parity.runners.steps import Operation
from parity.spec import Spec
from parity.trace import Trace, Weights

__all__ = ["of_cancelling", "of_epsilon", "of_labels", "of_loss"]

EPSILON = 1e-7  # Keras clips probabilities to [EPSILON, 1 - EPSILON] before the logarithm
ROUNDED = 1e-6  # how far rounding takes the sum of a row of float32 probabilities from 1: 16 u for thousands of classes


def of_loss(spec: Spec, weights: Weights, reference: Trace, y: np.ndarray) -> tuple[str, ...]:
    """What a cross-entropy of probabilities does with the reference's outputs. One of logits neither clips nor
    divides, and no loss of real numbers is a cross-entropy."""
    if scratch.labels(spec.loss) == "real":
        return ()
    said: list[str] = []

    def look(operation: Operation) -> Mapping[str, Any]:
        if (operation.family, operation.direction) == ("loss", "forward"):
            said.extend(_of_probabilities(operation))
        return {}

    scratch.replay(spec, weights, reference, y, settle=look)
    return tuple(said)


def _of_probabilities(operation: Operation) -> Iterator[str]:
    loss, p = operation.entry, np.asarray(operation["y_pred"], np.float64)
    logits = "logits" in operation or getattr(loss, "from_logits", True)  # another loss takes no probabilities
    if logits:
        return
    binary, sums = operation.kind == "BinaryCrossentropy", np.sum(p, axis=-1, keepdims=True)
    if not binary:
        if np.any(np.abs(sums - 1) > ROUNDED):
            low, high = f"{np.min(sums):.4g}", f"{np.max(sums):.4g}"
            yield f"row sums are {low if low == high else f'{low} to {high}'}: Keras divides by the sum first"
        p = p / sums
    y = _rows(loss.targets(operation["y_true"], operation["y_pred"]), p)
    clipped = np.any((y > 0) & (p < EPSILON) | binary & (y < 1) & (1 - p < EPSILON), axis=-1)
    if np.any(clipped):
        count = np.count_nonzero(clipped)
        yield (
            f"{count} {'sample is' if count == 1 else 'samples are'} clipped at {EPSILON:g}: without the clip the loss "
            f"is {_unclipped(loss.reduction, y, p, binary):.4g}"
        )


def _rows(targets: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The labels as rows, also where they are classes."""
    return targets if targets.ndim == p.ndim else np.asarray(targets[..., np.newaxis] == np.arange(p.shape[-1]), float)


def _unclipped(reduction: str, y: np.ndarray, p: np.ndarray, binary: bool) -> float:
    """The cross-entropy of probabilities as they are."""
    with np.errstate(all="ignore"):
        each = -np.where(y == 0, 0, y * np.log(p))
        if binary:
            each = each - np.where(y == 1, 0, (1 - y) * np.log1p(-p))
    losses = np.mean(each, axis=-1) if binary else np.sum(each, axis=-1)
    return float(np.sum(losses) if reduction == "sum" else np.mean(losses))


def of_labels(batch: int) -> str:
    """Labels without the last axis of the outputs, which NumPy's subtraction broadcasts."""
    n = batch
    return f"y_true has shape ({n},), y_pred ({n}, 1): Keras takes them as pairs, their difference has shape ({n}, {n})"


def of_epsilon(operation: Operation, findings: Sequence[Finding]) -> Iterator[str]:
    """How visible another epsilon is in a normalisation that has one. operation: any of the run."""
    if operation.direction != "forward" or not operation.kind.endswith("Normalization"):
        return
    for finding in findings:
        if finding.cause and "epsilon" in finding.cause.code and operation.layer in finding.cause.where:
            n = Normalized.of(operation)
            yield (
                f"the epsilon of {operation.layer} is visible at this variance, {np.min(n.variance):.3g} to "
                f"{np.max(n.variance):.3g}: {share(finding.budgets)} budgets"
            )
            return


def of_cancelling(activation: Operation, seen: Seen, right: Collection[str]) -> Iterator[str]:
    """A gradient by the outputs that is not that of the loss, behind which the gradient by the pre-activations is right
    all the same: the derivative of the activation is wrong, too. Keras goes back by the logits and has no gradient by
    the outputs, so it says nothing of it.

    activation: the last one, forward; right: the tensors that are.
    """
    dy, dx = (trace.gradient(activation.tensors["y"]), trace.gradient(trace.pre_activation(activation.layer)))
    if dy not in seen.subject or dy in seen.reference or dx not in right:
        return
    inputs = {"x": activation["x"], "y": activation.outputs["y"], "dy": seen.subject[dy]}
    through = activation.entry.backward(*inputs.values())
    if seen.equal(dx, through):
        return
    back = replace(activation, direction="backward", inputs=inputs, outputs={"dx": through})
    made = ((mistake, mistake.apply(back)) for mistake in catalogue() if not mistake.equivalent)
    why = next((m.text for m, outputs in made if outputs is not None and seen.equal(dx, outputs["dx"])), "")
    yield (
        f"{seen.name(dx)} is right only because two mistakes cancel: {seen.name(dy)} is not the derivative of the loss"
        + (f", and {why}" if why else "")
    )
