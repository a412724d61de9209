"""Differences that are a choice, not a mistake: a loss summed where Keras takes the mean, half of a squared error.

A loss and its gradients may both be multiplied by one number: the derivation is right, and the learning rate means
something else. A loss that is only printed may be scaled, or have a small number in its logarithm, beside gradients
that are those of Keras's loss. A gradient that is scaled while the loss is not is a mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from parity import trace
from parity.diagnose import transforms
from parity.diagnose.whole import Seen
from parity.mistakes import catalogue
from parity.runners.steps import Operation

__all__ = ["Convention", "found"]

OF_LOSS = ("averaged-over-classes", "epsilon-in-logarithm", "summed-over-outputs")
"""How the codes of mistakes in a loss end that are a way to print it."""


@dataclass(frozen=True)
class Convention:
    """scale: tensor -> what its difference is divided out by to be compared; text: one sentence."""

    code: str
    text: str
    scale: Mapping[str, float]


def found(seen: Seen, loss: Operation | None) -> list[Convention]:
    """The conventions of a run. loss: the operation that computes the loss, where NumPy has it."""
    shared = [name for name in seen.subject if name in seen.reference]
    right = {name for name in shared if seen.equal(name, seen.reference[name])}
    weights = [n for n in shared if n.endswith(".gradient") and not trace.of_samples(n)]
    between = [n for n in shared if n.endswith(".gradient") and trace.of_samples(n)]
    conventions = []
    if trace.LOSS in shared and trace.LOSS not in right:
        scaled = _both_scaled(seen, weights) if weights and not right & set(weights) else None
        conventions += [scaled or _printed_loss(seen, loss, bool(weights) and set(weights) <= right)]
    factor = conventions[0].scale.get(weights[0], 1.0) if conventions and conventions[0] and weights else 1.0
    if between:
        conventions += [_deltas(seen, between, factor, loss)]
    return [convention for convention in conventions if convention is not None]


def _both_scaled(seen: Seen, weights: list[str]) -> Convention | None:
    """The loss times one number that has a name. Its gradients are then times the same number; what is wrong in them
    besides is judged on top of that."""
    factor = transforms.named_factor(seen.wrong(trace.LOSS, seen.reference[trace.LOSS]))
    if factor is None or factor.value < 0:
        return None
    times = f"{factor.value:.4g} times"
    if all(seen.equal(name, seen.reference[name] * factor.value) for name in weights):
        text = (
            f"your loss and all its gradients are {times} TensorFlow's{factor.because}: a consistent choice (such as a "
            f"sum for a mean), not an error; your learning rate means {times} that of Keras"
        )
    else:
        text = (
            f"your loss is {times} TensorFlow's{factor.because}: a choice (such as a sum for a mean), not an error. So "
            f"your gradients have to be {times} TensorFlow's, and are judged as such"
        )
    return Convention(factor.code, text, dict.fromkeys([trace.LOSS, *weights], factor.value))


def _printed_loss(seen: Seen, loss: Operation | None, gradients_right: bool) -> Convention | None:
    """The loss as it is printed, beside gradients that are Keras's."""
    if not gradients_right:
        return None
    wrong = seen.wrong(trace.LOSS, seen.reference[trace.LOSS])
    value, right = float(wrong.subject), float(wrong.right)
    tail = "the gradients are those of Keras's loss, so this is only what is printed, not an error"
    factor = transforms.named_factor(wrong)
    if factor is not None and factor.value > 0:
        text = f"your loss is {factor.value:.4g} times TensorFlow's{factor.because}: {tail}"
        return Convention(factor.code, text, {trace.LOSS: factor.value})
    for code, words, made in _ways_to_print(loss):
        for scale in transforms.named_values(seen.sizes):
            if scale > 0 and made and seen.equal(trace.LOSS, np.asarray(made * scale)):
                times = "" if scale == 1 else f"{scale:.4g} times "
                text = f"your loss is {times}{words}: {tail}"
                return Convention(code, text, {trace.LOSS: value / right})
    return None


def _ways_to_print(loss: Operation | None) -> list[tuple[str, str, float]]:
    """Code, formula and value of each way to print this loss that the catalogue knows."""
    if loss is None:
        return []
    ways = []
    for mistake in (v for m in catalogue() if m.code.endswith(OF_LOSS) for v in m.variants):
        made = mistake.apply(loss)
        if made is not None:
            ways.append((mistake.code, mistake.wrong, float(made["loss"])))
    return ways


def _deltas(seen: Seen, between: list[str], factor: float, loss: Operation | None) -> Convention | None:
    """Intermediate gradients of the summed loss, before the mean is taken in the gradients by the weights; or of a loss
    that is scaled by a factor."""
    names = ", ".join(seen.name(name) for name in between)
    if loss is not None and seen.sizes["batch"] > 1 and _divided_later(seen, loss):
        scale = seen.sizes["batch"] * factor
        text = f"{names}: {scale:.4g} times TensorFlow's, because you divide by the batch later: not an error"
        return Convention("deltas-of-the-sum", text, dict.fromkeys(between, scale))
    if factor != 1.0:
        text = f"{names}: {factor:.4g} times TensorFlow's, as your loss is: not an error"
        return Convention("deltas-of-the-loss", text, dict.fromkeys(between, factor))
    return None


def _divided_later(seen: Seen, loss: Operation) -> bool:
    """Whether the gradient by some weight is what the user's own intermediate gradient leads to, divided by the batch:
    whatever else is wrong in both."""
    batch = seen.sizes["batch"]
    parts = zip(loss.context["chain"].layers, loss.context["layers"], loss.context["saved"], strict=True)
    for layer, named, saved in parts:
        tensor = trace.pre_activation(named.name) if named.has_pre_activation else trace.output(named.name)
        delta = seen.subject.get(trace.gradient(tensor))
        if delta is None or delta.shape != saved.z.shape:
            continue
        _, led_to = layer.transform_backward(saved, delta)
        known = {trace.gradient(f"{named.name}/{weight}"): summed for weight, summed in led_to.items()}
        if any(seen.equal(n, s / batch) and not seen.equal(n, s) for n, s in known.items() if n in seen.subject):
            return True
    return False
