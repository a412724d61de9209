"""Conv2D: one matrix product over the windows of an image."""

from math import prod
from typing import Any

import numpy as np

from scratchnet import activations, initializers, regularizers
from scratchnet.layers.base import Layer, Saved, Shape
from scratchnet.layers.core import sum_rows
from scratchnet.layers.windows import Windows, padding_name, pair
from scratchnet.registry import register

__all__ = ["Conv2D"]


@register("Conv2D")
class Conv2D(Layer):
    """z[n, r, c, f] = sum_ijk x[n, r s + i d - top, c s + j d - left, k] W[i, j, k, f] + b[f], y = activation(z).

    s: strides, d: dilation rate, top and left: the zeros that "same" adds in front. This is the cross-correlation: the
    kernel is not flipped. x: (batch, height, width, in), W: (height, width, in, out), b: (out,).

    With a row of P for each window, (batch r c, height width in), and W as a matrix of as many rows, z = P W + b. So
    dW = P^T dz, dP = dz W^T, db = sum of dz over the windows, and dx[cell] = sum of dP over the places that took the
    cell. Written out, dx is a convolution of dz with the flipped kernel.
    """

    neutral = {
        "data_format": "channels_last",
        "groups": 1,
        "activity_regularizer": None,
        "kernel_constraint": None,
        "bias_constraint": None,
        "lora_rank": None,
        "lora_alpha": None,
    }
    unwritten = ("lora_rank", "lora_alpha")
    example_shape = (7, 6, 3)
    examples = (
        {"filters": 3, "kernel_size": 2},
        {"filters": 2, "kernel_size": (3, 2), "strides": 2, "padding": "same", "activation": "tanh"},
        {"filters": 2, "kernel_size": 2, "dilation_rate": (1, 2), "padding": "same", "use_bias": False},
        {"filters": 4, "kernel_size": (1, 2), "strides": (1, 2), "activation": "relu", "kernel_regularizer": "l2"},
    )

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = (1, 1),
        padding: str = "valid",
        dilation_rate: int | tuple[int, int] = (1, 1),
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        **base: Any,
    ):
        super().__init__(**base)
        if not isinstance(filters, int) or filters <= 0:
            raise ValueError(f"Conv2D: filters must be a positive integer; received {filters!r}")
        self.filters = filters
        self.kernel_size = pair("kernel_size", kernel_size)
        self.strides = pair("strides", strides)
        self.padding = padding_name(padding)
        self.dilation_rate = pair("dilation_rate", dilation_rate)
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                f"Conv2D: strides {self.strides} with dilation_rate {self.dilation_rate} is not supported, in Keras "
                "neither; one of them must be 1"
            )
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.windows = Windows.of(self.kernel_size, self.strides, self.padding, self.dilation_rate)

    def build(self, input_shape: Shape) -> None:
        self.compute_output_shape(input_shape)  # speaks up when the kernel does not fit
        inputs = input_shape[-1]
        if inputs is None:
            raise ValueError(f"{self.name}: Conv2D needs the number of its input's channels; received {input_shape}")
        shape, axes = (*self.kernel_size, inputs, self.filters), ("height", "width", "in", "out")
        self.add_weight("kernel", shape, self.kernel_initializer, axes)
        if self.use_bias:
            self.add_weight("bias", (self.filters,), self.bias_initializer, ("out",))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], *self.windows.counts(input_shape), self.filters)

    def transform(self, x: np.ndarray, training: bool) -> tuple[np.ndarray, Any, dict[str, np.ndarray]]:
        patches = self._patches(x)
        z = rows_of(patches) @ self._matrix()
        z = z + self.weights["bias"] if self.use_bias else z
        return z.reshape(*patches.shape[:3], self.filters), None, {}

    def transform_backward(self, saved: Saved, dz: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        patches = self._patches(saved.x)  # made anew: kept, they would be height * width times the input
        rows = rows_of(dz)
        grads = {"kernel": (rows_of(patches).T @ rows).reshape(self.weights["kernel"].shape)}
        if self.use_bias:
            grads["bias"] = sum_rows(rows)
        d_patches = (rows @ self._matrix().T).reshape(patches.shape)
        return self.windows.scatter(self._by_position(d_patches), saved.x.shape), grads

    def _patches(self, x: np.ndarray) -> np.ndarray:
        """P: (batch, rows, columns, height * width * in)."""
        return np.concatenate(self.windows.cells(x, fill=0), axis=-1)

    def _matrix(self) -> np.ndarray:
        """W as (height * width * in, out)."""
        return self.weights["kernel"].reshape(-1, self.filters)

    def _by_position(self, patches: np.ndarray) -> list[np.ndarray]:
        """Undo the concatenation of `_patches`."""
        positions = prod(self.kernel_size)
        apart = patches.reshape(*patches.shape[:3], positions, -1)
        return [apart[:, :, :, k] for k in range(positions)]


def rows_of(array: np.ndarray) -> np.ndarray:
    """(..., n) as a matrix of rows of n."""
    return array.reshape(-1, array.shape[-1])
