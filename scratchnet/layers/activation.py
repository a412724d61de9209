"""ReLU, LeakyReLU, Softmax: activations that Keras has as layers too, with arguments and defaults of their own."""

from typing import Any

import numpy as np

from scratchnet import activations
from scratchnet.layers.base import Layer, Saved
from scratchnet.registry import UnknownArgument, register

__all__ = ["LeakyReLU", "ReLU", "Softmax"]


class ActivationLayer(Layer):
    """Base class: y = activation(x), so the pre-activations are the input. x, y: (batch, ...)."""

    built_at_init = True

    def transform(self, x: np.ndarray, training: bool) -> tuple[np.ndarray, Any, dict[str, np.ndarray]]:
        return x, None, {}

    def transform_backward(self, saved: Saved, dz: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        return dz, {}


class ThresholdedRelu(activations.Relu):
    """y = min(x [x > t], m) - s max(t - x, 0);  dx = dy ([t < x <= m] + s [x < t]).

    m: max_value, s: negative_slope, t: threshold. At x = m Keras passes the gradient, but with m = 6 and t = 0 it takes
    TensorFlow's relu6, which does not.
    """

    def __init__(self, max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0):
        self.max_value = max_value
        self.negative_slope = negative_slope
        self.threshold = threshold

    def forward(self, x: np.ndarray) -> np.ndarray:
        # Both are x [x > t] for t = 0, except that Keras lets a NaN through there and turns it to 0 elsewhere.
        y = np.where(x > self.threshold, x, np.zeros_like(x)) if self.threshold else np.maximum(x, 0)
        if self.max_value is not None:
            y = np.minimum(y, self.max_value)
        return y - self.negative_slope * np.maximum(self.threshold - x, 0) if self.negative_slope else y

    def backward(self, x: np.ndarray, y: np.ndarray, dy: np.ndarray) -> np.ndarray:
        zero = np.zeros_like(dy)
        dx = np.where(x > self.threshold, dy, zero)
        if self.max_value is not None:
            relu6 = self.max_value == 6 and self.threshold == 0
            dx = np.where(x < self.max_value if relu6 else x <= self.max_value, dx, zero)
        return dx + np.where(x < self.threshold, dy * self.negative_slope, zero) if self.negative_slope else dx

    def two_sided(self, x: np.ndarray) -> np.ndarray:
        return (x == self.threshold) | (x == self.max_value)


@register("ReLU")
class ReLU(ActivationLayer):
    """y = max(x, 0);  dx = dy [x > 0]. With a negative_slope s alone: y = s x and dx = s dy where x <= 0.

    With max_value or threshold see `ThresholdedRelu`.
    """

    examples = (
        {},
        {"negative_slope": 0.1},
        {"max_value": 6.0},
        {"max_value": 0.5, "negative_slope": 0.1, "threshold": 0.25},
    )

    def __init__(
        self, max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0, **base: Any
    ):
        super().__init__(**base)
        if max_value is not None:
            _require_not_negative("ReLU", "max_value", max_value)
        _require_not_negative("ReLU", "negative_slope", negative_slope)
        _require_not_negative("ReLU", "threshold", threshold)
        self.max_value = max_value
        self.negative_slope = negative_slope
        self.threshold = threshold
        if max_value is not None or threshold:
            self.activation = ThresholdedRelu(max_value, negative_slope, threshold)
        else:
            self.activation = activations.LeakyRelu(negative_slope) if negative_slope else activations.Relu()


@register("LeakyReLU")
class LeakyReLU(ActivationLayer):
    """y = x if x > 0 else s x;  dx = dy if x > 0 else s dy. s = 0.3, while the *activation* leaky_relu has 0.2."""

    examples = ({}, {"negative_slope": 0.05})

    def __init__(self, negative_slope: float = 0.3, **base: Any):
        super().__init__(**base)
        _require_not_negative("LeakyReLU", "negative_slope", negative_slope)
        self.negative_slope = negative_slope
        self.activation = activations.LeakyRelu(negative_slope)


@register("Softmax")
class Softmax(ActivationLayer):
    """y = exp(x) / sum(exp(x));  dx = y (dy - <dy, y>), sums along the last axis.

    As behind the activation, a cross-entropy finds the input as the logits.
    """

    def __init__(self, axis: int = -1, **base: Any):
        super().__init__(**base)
        if axis != -1:
            raise UnknownArgument(f"Softmax(axis={axis!r}) is not supported; only axis=-1 is")
        self.axis = axis
        self.activation = activations.Softmax()


def _require_not_negative(layer: str, argument: str, value: Any) -> None:
    if value is None or value < 0:
        raise ValueError(f"{layer}: {argument} must not be negative; received {value!r}")
