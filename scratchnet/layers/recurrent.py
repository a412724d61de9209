"""SimpleRNN: one state, carried from step to step, and its gradient, carried back."""

from typing import Any, NamedTuple

import numpy as np

from scratchnet import activations, initializers, regularizers
from scratchnet.layers.base import Layer, Saved, Shape
from scratchnet.layers.conv import rows_of
from scratchnet.layers.core import sum_rows
from scratchnet.registry import register

__all__ = ["SimpleRNN", "States"]


class States(NamedTuple):
    """What the steps of one pass went through, a: before and h: behind the activation; each (batch, time, units)."""

    a: np.ndarray
    h: np.ndarray

    @property
    def before(self) -> np.ndarray:
        """The state that each step started from: h_{t-1}, zeros in front of the first."""
        return np.concatenate([np.zeros_like(self.h[:, :1]), self.h[:, :-1]], axis=1)


@register("SimpleRNN")
class SimpleRNN(Layer):
    """h_t = f(a_t), a_t = x_t W + b + h_{t-1} U, h_0 = 0, for t = 1 ... T; z = h_T, or all h_t with return_sequences.

    x: (batch, time, in), W: (in, out), U: (out, out), b: (out,), a, h: (batch, time, out). The activation f is inside:
    what is behind it goes on to the next step, so z are its outputs, and none follows.

    Backward through time, from t = T down to 1. The loss takes each state along two ways, as an output and through the
    next step, so their gradients are added:  dh_t = dz_t + da_{t+1} U^T, da_{T+1} = 0, with dz_t = 0 for the states
    that are not put out;  da_t = dh_t f'(a_t). All steps have the same weights, so their gradients are sums over time
    as well as over the batch:  dx_t = da_t W^T;  dW = sum x_t^T da_t;  dU = sum h_{t-1}^T da_t;  db = sum da_t.

    Not here, although Keras has them: dropout, masks, states that stay from batch to batch or are returned, steps in
    reverse order. `unroll=True` is refused too: then Keras leaves the logits of a sigmoid or softmax on the last state,
    where a cross-entropy finds them; its loop drops them.
    """

    neutral = {
        "return_state": False,
        "go_backwards": False,
        "stateful": False,
        "unroll": False,
        "zero_output_for_mask": False,
        "activity_regularizer": None,
        "kernel_constraint": None,
        "recurrent_constraint": None,
        "bias_constraint": None,
        "dropout": 0.0,
        "recurrent_dropout": 0.0,
        "seed": None,  # of the dropout
    }
    unwritten = ("seed",)
    example_shape = (5, 3)
    examples = (
        {"units": 4},
        {"units": 3, "return_sequences": True},  # as many as there are features: exchanged kernels still run
        {"units": 2, "activation": "relu", "use_bias": False},
        {"units": 4, "activation": "sigmoid", "return_sequences": True, "recurrent_regularizer": "l2"},
        {"units": 3, "kernel_regularizer": "l2", "bias_regularizer": "l1"},
    )

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        return_sequences: bool = False,
        **base: Any,
    ):
        super().__init__(**base)
        if not isinstance(units, int) or units <= 0:
            raise ValueError(f"SimpleRNN: units must be a positive integer; received {units!r}")
        self.units = units
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.recurrent_initializer = initializers.get(recurrent_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = regularizers.get(recurrent_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.return_sequences = return_sequences

    @property
    def outer_activation(self) -> activations.ActivationFunction:
        return activations.Linear()

    def regularizer_of(self, weight: str) -> regularizers.Regularizer | None:
        """The penalty on a weight; that on the recurrent_kernel is the argument recurrent_regularizer."""
        return super().regularizer_of("recurrent" if weight == "recurrent_kernel" else weight)

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) != 3 or input_shape[-1] is None:
            raise ValueError(
                f"{self.name}: SimpleRNN needs inputs of shape (batch, time, features), with the number of features; "
                f"received {input_shape}"
            )
        self.add_weight("kernel", (input_shape[-1], self.units), self.kernel_initializer, ("in", "out"))
        self.add_weight("recurrent_kernel", (self.units, self.units), self.recurrent_initializer, ("state", "out"))
        if self.use_bias:
            self.add_weight("bias", (self.units,), self.bias_initializer, ("out",))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:2], self.units) if self.return_sequences else (input_shape[0], self.units)

    def transform(self, x: np.ndarray, training: bool) -> tuple[np.ndarray, States, dict[str, np.ndarray]]:
        driven = x @ self.weights["kernel"]  # needs no state, so all steps at once
        driven = driven + self.weights["bias"] if self.use_bias else driven
        a, h = [], [np.zeros_like(driven[:, 0])]
        for t in range(x.shape[1]):
            a.append(driven[:, t] + h[-1] @ self.weights["recurrent_kernel"])
            h.append(self.activation.forward(a[-1]))
        states = States(np.stack(a, axis=1), np.stack(h[1:], axis=1))
        return states.h if self.return_sequences else states.h[:, -1], states, {}

    def transform_backward(self, saved: Saved, dz: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        da = rows_of(self._back_through_time(saved.terms, dz))
        grads = {"kernel": rows_of(saved.x).T @ da, "recurrent_kernel": rows_of(saved.terms.before).T @ da}
        if self.use_bias:
            grads["bias"] = sum_rows(da)
        return (da @ self.weights["kernel"].T).reshape(saved.x.shape), grads

    def _back_through_time(self, states: States, dz: np.ndarray) -> np.ndarray:
        """da: (batch, time, out)."""
        if not self.return_sequences:  # the loss takes the last state only
            dz = np.concatenate([np.zeros_like(states.h[:, :-1]), dz[:, np.newaxis]], axis=1)
        da, carried = [], np.zeros_like(states.h[:, 0])
        for t in reversed(range(states.h.shape[1])):
            da.append(self.activation.backward(states.a[:, t], states.h[:, t], dz[:, t] + carried))
            carried = da[-1] @ self.weights["recurrent_kernel"].T
        return np.stack(da[::-1], axis=1)
