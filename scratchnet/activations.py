"""Activation functions: the value and the derivative of each, side by side.

TensorFlow turns some constants into float32 before it uses them in float64 (`tf.cast` of a Python number, attributes of
its kernels): a slope of 0.2 is 0.200000003 there. Such constants are `float32(...)` here as well.

`backward` takes the upstream gradient dy and returns the product dx = dy * dy/dx, never a bare slope, so that softmax
(whose derivative is a matrix) looks like tanh. x, y, dx and dy all have one shape; softmax works along the last axis.
"""

import math
from typing import Any

import numpy as np
from scipy.special import erfc, expit

from scratchnet import registry
from scratchnet.registry import Entry, register, serialize

__all__ = ["ActivationFunction", "Gelu", "LeakyRelu", "Linear", "Relu", "Sigmoid", "Softmax", "Tanh", "get"]


def float32(constant: float) -> float:
    """The constant as TensorFlow holds it."""
    return float(np.float32(constant))


class ActivationFunction(Entry):
    """Base class. x, y, dx, dy: (batch, ...)."""

    family = "activation"
    caches_logits = False  # Keras hangs the pre-activations on the output, and cross-entropies use them

    def forward(self, x: np.ndarray) -> np.ndarray:
        """y for the pre-activations x."""
        raise NotImplementedError

    def backward(self, x: np.ndarray, y: np.ndarray, dy: np.ndarray) -> np.ndarray:
        """dx for the upstream gradient dy, given what `forward` took and returned."""
        raise NotImplementedError

    def two_sided(self, x: np.ndarray) -> np.ndarray | None:
        """Where the derivative jumps, so that the one from either side is an answer; booleans in the shape of x. None
        where it never does."""
        return None

    def as_value(self) -> Any:
        """Keras writes an activation as its bare name; one with arguments has none there and keeps its full JSON."""
        return self.registered_name if vars(self) == vars(type(self)()) else serialize(self)


@register("linear")
class Linear(ActivationFunction):
    """y = x;  dx = dy."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        return x

    def backward(self, x: np.ndarray, y: np.ndarray, dy: np.ndarray) -> np.ndarray:
        return dy


@register("relu")
class Relu(ActivationFunction):
    """y = max(x, 0);  dx = dy where x > 0, else 0. TensorFlow takes 0 for the derivative at exactly 0."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 0)

    def backward(self, x: np.ndarray, y: np.ndarray, dy: np.ndarray) -> np.ndarray:
        return np.where(x > 0, dy, np.zeros_like(dy))

    def two_sided(self, x: np.ndarray) -> np.ndarray:
        return x == 0


@register("leaky_relu")
class LeakyRelu(ActivationFunction):
    """y = x if x > 0 else s x;  dx = dy if x > 0 else s dy. s = 0.2, while the *layer* LeakyReLU has 0.3."""

    def __init__(self, negative_slope: float = 0.2):
        self.negative_slope = negative_slope

    def forward(self, x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x, x * float32(self.negative_slope))

    def backward(self, x: np.ndarray, y: np.ndarray, dy: np.ndarray) -> np.ndarray:
        return np.where(x > 0, dy, dy * float32(self.negative_slope))

    def two_sided(self, x: np.ndarray) -> np.ndarray:
        return x == 0


@register("sigmoid")
class Sigmoid(ActivationFunction):
    """y = 1 / (1 + exp(-x));  dx = dy y (1 - y)."""

    caches_logits = True

    def forward(self, x: np.ndarray) -> np.ndarray:
        return expit(x)

    def backward(self, x: np.ndarray, y: np.ndarray, dy: np.ndarray) -> np.ndarray:
        return dy * y * (1 - y)


@register("tanh")
class Tanh(ActivationFunction):
    """y = tanh(x);  dx = dy (1 - y^2)."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        return np.tanh(x)

    def backward(self, x: np.ndarray, y: np.ndarray, dy: np.ndarray) -> np.ndarray:
        return dy * (1 - y * y)


@register("softmax")
class Softmax(ActivationFunction):
    """y = exp(x) / sum(exp(x));  dx = y (dy - <dy, y>), sums along the last axis.

    The maximum of each row is subtracted first; it cancels, and without it exp overflows.
    """

    caches_logits = True

    def forward(self, x: np.ndarray) -> np.ndarray:
        e = np.exp(x - np.max(x, axis=-1, keepdims=True))
        return e / np.sum(e, axis=-1, keepdims=True)

    def backward(self, x: np.ndarray, y: np.ndarray, dy: np.ndarray) -> np.ndarray:
        return y * (dy - np.sum(dy * y, axis=-1, keepdims=True))


@register("gelu")
class Gelu(ActivationFunction):
    """y = x Phi(x);  dx = dy (Phi(x) + x phi(x)), Phi and phi the standard normal distribution and density.

    Phi(x) = erfc(-x / sqrt 2) / 2, as Keras has it: right in the left tail, where 1 + erf cancels. With
    approximate=True, y = x/2 (1 + t) with t = tanh(sqrt(2/pi) (x + 0.044715 x^3)).
    """

    examples = ({}, {"approximate": True})

    def __init__(self, approximate: bool = False):
        self.approximate = approximate

    def forward(self, x: np.ndarray) -> np.ndarray:
        if self.approximate:
            return 0.5 * x * (1 + np.tanh(_inner(x)))
        return 0.5 * x * erfc(-x * SQRT_HALF)

    def backward(self, x: np.ndarray, y: np.ndarray, dy: np.ndarray) -> np.ndarray:
        if self.approximate:
            t = np.tanh(_inner(x))
            slope = SQRT_2_OVER_PI * (1 + 3 * CUBIC * x * x)
            return dy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope)
        u = x * SQRT_HALF
        return dy * (0.5 * erfc(-u) + u * INVERSE_SQRT_PI * np.exp(-u * u))


SQRT_HALF = float32(0.5**0.5)
CUBIC = float32(0.044715)  # Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2
SQRT_2_OVER_PI = (2 / math.pi) ** 0.5
INVERSE_SQRT_PI = math.pi**-0.5


def _inner(x: np.ndarray) -> np.ndarray:
    return SQRT_2_OVER_PI * (x + CUBIC * x * x * x)


def get(identifier: Any) -> ActivationFunction:
    """The activation that Keras would take `identifier` for; None is linear."""
    found: ActivationFunction = registry.get("activation", "linear" if identifier is None else identifier)
    return found
