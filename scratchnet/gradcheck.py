"""Finite differences against any forward/backward pair: is a backward pass the derivative of its forward pass?

Along a random direction v and with a random upstream gradient dy the function becomes a curve of one variable,

    phi(t) = <dy, f(x + t v)>,      phi'(0) = <backward(dy), v>,

so one number tests the whole Jacobian. The left side comes from central differences g(h) = (phi(h) - phi(-h)) / 2h at
three steps h, h/4, h/16, combined so that the h^2 and h^4 terms of the error cancel (Richardson 1911). How far the
result may be off is derived from the same evaluations, at every step of a ladder, and the best step is taken:

* truncation: what the last correction of the extrapolation changed, and what the next shorter steps would change. One
  of them alone can be small by accident, where a bend that only the long steps reach imitates an h^2;
* rounding: the noise of phi divided by the step. The noise is measured, because it depends on what f does inside:
  phi is taken at points so close together that a smooth curve has no fourth differences, so those that are there are
  noise (Hamming 1962, chapter 6; More and Wild 2011). Never less than one rounding of each term <dy, f>.

Where f has a kink the differences mean nothing, and the check says "not smooth here" instead of "wrong": either the
slopes on both sides differ, or no step brings the truncation below the rounding.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchnet.layers.base import Layer
from scratchnet.losses import Loss
from scratchnet.sequential import Chain

__all__ = ["Check", "check_chain", "check_layer", "directional"]

RATIO = 4.0
STEPS = RATIO ** -np.arange(1, 14)
"""The ladder, relative to an array's size: 1/4 suits linear functions, and the end keeps clear of kinks beyond 1e-6."""

NOISE_SPACING = 2.0**-26  # a smooth curve's fourth differences are then below 2^-100 of it
NOISE_POINTS = np.arange(-6, 7)
DEVIATIONS = 4.0  # noise taken as bounded by four of its standard deviations

CONVERGED = 2 * RATIO + RATIO**2 + 4
"""How many roundings the truncation can be estimated at, at most, where the best step of a smooth function is.

Let the rounding be R there. It is RATIO R at the next shorter step, where the truncation is nothing beside its value T
here (it falls by RATIO^4), and the differences that estimate T carry a noise of their own: (1 + RATIO) R here, RATIO
times that there. The best step has the least sum, so T + R <= RATIO R + RATIO (1 + RATIO) R, and the estimate is below
T + (1 + RATIO) R. A kink that the shortest steps do not avoid is a million times above.
"""


@dataclass(frozen=True)
class Check:
    """The derivative along one direction, by differences and by the backward pass, and how far they may be apart."""

    name: str
    numeric: float
    analytic: float
    allowed: float
    smooth: bool

    @property
    def error(self) -> float:
        """How far the two are apart."""
        return abs(self.numeric - self.analytic)

    @property
    def verdict(self) -> str:
        """ "right", "wrong" or "not smooth here"."""
        if not self.smooth:
            return "not smooth here"
        return "right" if self.error <= self.allowed else "wrong"

    @property
    def passed(self) -> bool:
        """Whether the gradient was shown to be right; where the function is not smooth, nothing was shown."""
        return self.verdict == "right"

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.verdict}; backward {self.analytic:.12g}, differences {self.numeric:.12g}, "
            f"apart {self.error:.1e}, allowed {self.allowed:.1e}"
        )


def directional(
    f: Callable[[Mapping[str, np.ndarray]], np.ndarray],
    backward: Callable[[np.ndarray], Mapping[str, np.ndarray | None]],
    at: Mapping[str, np.ndarray],
    rng: np.random.Generator,
) -> list[Check]:
    """Check the gradient by every array of `at`, one `Check` each, in their order.

    f takes arrays by name and returns one array; it must not depend on anything that changes between calls.
    backward takes an upstream gradient in the shape of f(at) and returns the gradient by each array, in its shape; None
    for an array of indices, which is left out. float64 arrays are needed for 1e-10; in float32 the allowance grows with
    the noise. `ValueError` for a gradient that is missing or has the wrong shape.
    """
    value = np.asarray(f(at))
    dy = rng.standard_normal(value.shape)
    gradients = backward(dy.astype(value.dtype))
    checks = []
    for name, x in at.items():
        if name not in gradients:
            raise ValueError(f"{name}: backward returned no gradient for it; received {sorted(gradients)}")
        if (gradient := gradients[name]) is None:
            continue
        if gradient.shape != x.shape:
            raise ValueError(f"{name}: expected a gradient of shape {x.shape}; received {gradient.shape}")
        v = (rng.standard_normal(x.shape) * _size(x)).astype(x.dtype)
        analytic = float(np.sum(gradient.astype(np.float64) * v))
        checks.append(_check(name, _Curve(f, at, name, v, dy), analytic))
    return checks


def check_layer(layer: Layer, x: np.ndarray, rng: np.random.Generator, training: bool = False) -> list[Check]:
    """Check a built layer's backward pass: one result for each trainable weight, by its name, and one for "input".

    x: (batch, ...), of real numbers or, where the layer has no gradient by it, of indices.
    """
    weights = layer.trainable_weights

    def f(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        with _weights_set([(layer, name, arrays[name]) for name in weights]):
            return layer.forward(arrays["input"], training)[0]

    def backward(dy: np.ndarray) -> Mapping[str, np.ndarray | None]:
        dx, gradients = layer.backward(layer.forward(x, training)[1], dy)
        return {**gradients, "input": dx}

    return directional(f, backward, {**weights, "input": x}, rng)


def check_chain(
    chain: Chain,
    loss: Loss,
    x: np.ndarray,
    y: np.ndarray,
    rng: np.random.Generator,
    sample_weight: Any = None,
    training: bool = False,
) -> list[Check]:
    """Check a built network's backward pass, from the loss and the penalties down.

    One result for each trainable weight, as "layer/weight" in the order of the layers, and one for "input".
    """
    places = {f"{layer.name}/{name}": (layer, name) for layer in chain.layers for name in layer.trainable_weights}

    def f(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        with _weights_set([(layer, name, arrays[place]) for place, (layer, name) in places.items()]):
            passed = chain.forward(arrays["input"], training)
            return loss.forward(y, passed.output, passed.logits, sample_weight) + chain.penalty()

    def backward(dy: np.ndarray) -> Mapping[str, np.ndarray | None]:
        gradients = chain.backward(chain.forward(x, training), loss, y, sample_weight)
        by_name = {
            f"{layer.name}/{name}": gradient
            for layer, by_layer in zip(chain.layers, gradients.layers, strict=True)
            for name, gradient in by_layer.weights.items()
        }
        every = {**by_name, "input": gradients.dx}
        return {name: None if gradient is None else dy * gradient for name, gradient in every.items()}

    weights = {place: layer.weights[name] for place, (layer, name) in places.items()}
    return directional(f, backward, {**weights, "input": x}, rng)


class _Curve:
    """phi(t) = <dy, f(x + t v)>, with one of f's arrays moved along v."""

    def __init__(
        self, f: Callable[..., np.ndarray], at: Mapping[str, np.ndarray], name: str, v: np.ndarray, dy: np.ndarray
    ):
        self.f, self.at, self.name, self.v, self.dy = f, at, name, v, dy

    def terms(self, t: float) -> np.ndarray:
        """The terms of phi(t), before they are added."""
        moved = self.at[self.name] + (t * self.v).astype(self.v.dtype)
        with np.errstate(all="ignore"):  # a long step may leave the domain; its values are then not finite
            return self.dy * self.f({**self.at, self.name: moved})

    def __call__(self, t: float) -> float:
        return float(np.sum(self.terms(t)))

    def noise(self) -> float:
        """A bound for the rounding error of phi near 0."""
        values = np.array([self(k * NOISE_SPACING) for k in NOISE_POINTS])
        fourth = np.diff(values, 4)
        variance = np.mean(fourth**2) / 70  # 1 + 16 + 36 + 16 + 1: the variances of the terms of a fourth difference
        unit = np.finfo(np.asarray(self.f(self.at)).dtype).eps / 2
        return float(unit * np.sum(np.abs(self.terms(0.0))) + DEVIATIONS * np.sqrt(variance))


def _check(name: str, phi: _Curve, analytic: float) -> Check:
    noise, center = phi.noise(), phi(0.0)
    right = np.array([phi(h) for h in STEPS])
    left = np.array([phi(-h) for h in STEPS])
    with np.errstate(all="ignore"):
        # The error of g has even powers of h, that of the jump (slope on the right minus slope on the left) odd ones.
        slope, correction = _extrapolated((right - left) / (2 * STEPS), RATIO**2, RATIO**4)
        jump, jump_truncation = _extrapolated((right - 2 * center + left) / STEPS, RATIO, RATIO**3)
        truncation = np.maximum(correction[:-1], np.abs(np.diff(slope)))
    # Each phi is off by at most `noise`, so g(h) by noise / h and the jump by 4 noise / h. The factors are the sums of
    # the absolute weights that the extrapolation gives to the three steps, in terms of the shortest.
    rounding = 1.09 * noise / STEPS[2:-1]
    jump_rounding = 5.8 * noise / STEPS[2:]
    total = np.where(np.isfinite(truncation), truncation + rounding, np.inf)
    best = int(np.argmin(total))
    # At the best step of a smooth function the estimate of the truncation is at most CONVERGED times the rounding.
    converged = bool(truncation[best] <= CONVERGED * rounding[best])
    one_slope = bool(abs(jump[best]) <= jump_truncation[best] + jump_rounding[best])
    return Check(name, float(slope[best]), analytic, float(total[best]), converged and one_slope)


def _extrapolated(g: np.ndarray, first: float, second: float) -> tuple[np.ndarray, np.ndarray]:
    """Two Richardson steps over a ladder, for errors that fall by `first` and `second` from one step to the next.

    g: (steps,) -> the limit and the size of the last correction, each (steps - 2,).
    """
    once = (first * g[1:] - g[:-1]) / (first - 1)
    twice = (second * once[1:] - once[:-1]) / (second - 1)
    return twice, np.abs(twice - once[1:])


def _size(x: np.ndarray) -> float:
    """The root mean square of an array, 1 for one of zeros."""
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) or 1.0 if x.size else 1.0


@contextmanager
def _weights_set(values: list[tuple[Layer, str, np.ndarray]]) -> Iterator[None]:
    """Put other arrays in the place of weights, and the old ones back."""
    before = [(layer, name, layer.weights[name]) for layer, name, _ in values]
    try:
        for layer, name, array in values:
            layer.weights[name] = array
        yield
    finally:
        for layer, name, array in before:
            layer.weights[name] = array
