"""Dense, Flatten, Activation: layers without geometry."""

from math import prod
from typing import Any

import numpy as np

from scratchnet import activations, initializers, regularizers
from scratchnet.layers.base import Layer, Saved, Shape
from scratchnet.registry import register

__all__ = ["Activation", "Dense", "Flatten"]


@register("Dense")
class Dense(Layer):
    """z = x W + b, y = activation(z), over the last axis;  x: (batch, ..., in), W: (in, out), b: (out,).

    dx = dz W^T;  dW = sum of x^T dz and db = sum of dz over all leading axes.
    """

    neutral = {  # in the order of Keras's config
        "kernel_constraint": None,
        "bias_constraint": None,
        "quantization_config": None,
        "activity_regularizer": None,
        "lora_rank": None,
        "lora_alpha": None,
    }
    unwritten = ("activity_regularizer", "lora_rank", "lora_alpha")
    examples = (
        {"units": 4},
        {"units": 3, "activation": "softmax"},
        {"units": 2, "use_bias": False, "activation": "relu"},
        {"units": 5, "activation": "tanh", "kernel_regularizer": "l2", "bias_regularizer": "l1"},
        {"units": 4, "kernel_regularizer": {"class_name": "L1L2", "config": {"l1": 0.01, "l2": 0.02}}},
        {"units": 7},  # as many as the network of its test has below: a transpose that is missing still runs
        {"units": 8},  # as many as the smallest batch: so does a sum over the wrong axis
    )

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        **base: Any,
    ):
        super().__init__(**base)
        if not isinstance(units, int) or units <= 0:
            raise ValueError(f"Dense: units must be a positive integer; received {units!r}")
        self.units = units
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)

    def build(self, input_shape: Shape) -> None:
        inputs = input_shape[-1]
        if inputs is None:
            raise ValueError(f"{self.name}: Dense needs the size of its input's last axis; received {input_shape}")
        self.add_weight("kernel", (inputs, self.units), self.kernel_initializer, ("in", "out"))
        if self.use_bias:
            self.add_weight("bias", (self.units,), self.bias_initializer, ("out",))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)

    def transform(self, x: np.ndarray, training: bool) -> tuple[np.ndarray, Any, dict[str, np.ndarray]]:
        z = x @ self.weights["kernel"]
        return (z + self.weights["bias"] if self.use_bias else z), None, {}

    def transform_backward(self, saved: Saved, dz: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        dx = dz @ self.weights["kernel"].T
        rows = dz.reshape(-1, self.units)
        grads = {"kernel": saved.x.reshape(-1, saved.x.shape[-1]).T @ rows}
        if self.use_bias:
            grads["bias"] = sum_rows(rows)
        return dx, grads


@register("Flatten")
class Flatten(Layer):
    """(batch, ...) -> (batch, product of the rest), in C order; a batch of scalars gets a trailing axis of 1."""

    neutral = {"data_format": "channels_last"}

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        rest = input_shape[1:]
        return (input_shape[0], None if None in rest else prod(rest))  # type: ignore[arg-type]

    def transform(self, x: np.ndarray, training: bool) -> tuple[np.ndarray, Any, dict[str, np.ndarray]]:
        return x.reshape(x.shape[0], prod(x.shape[1:])), None, {}

    def transform_backward(self, saved: Saved, dz: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        return dz.reshape(saved.x.shape), {}


@register("Activation")
class Activation(Layer):
    """y = activation(x): an activation as a layer of its own, so its pre-activations are its input."""

    built_at_init = True
    examples = ({"activation": "tanh"}, {"activation": "softmax"})

    def __init__(self, activation: Any, **base: Any):
        super().__init__(**base)
        self.activation = activations.get(activation)

    def transform(self, x: np.ndarray, training: bool) -> tuple[np.ndarray, Any, dict[str, np.ndarray]]:
        return x, None, {}

    def transform_backward(self, saved: Saved, dz: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        return dz, {}

    def keeps_tensor(self, training: bool) -> bool:
        return isinstance(self.activation, activations.Linear)


def sum_rows(rows: np.ndarray) -> np.ndarray:
    """Sum of (n, k) over the n rows, accumulated in float64: NumPy adds rows one after another, which at 60,000 of them
    is 5e-5 off in float32 (TensorFlow: 3e-6)."""
    return np.sum(rows, axis=0, dtype=np.float64).astype(rows.dtype)
