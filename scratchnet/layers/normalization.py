"""BatchNormalization and LayerNormalization: one affine map, with statistics over the batch or over the features."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from scratchnet import initializers, regularizers
from scratchnet.layers.base import Layer, Saved, Shape
from scratchnet.layers.core import sum_rows
from scratchnet.registry import UnknownArgument, register

__all__ = ["BatchNormalization", "LayerNormalization"]


class Statistics(NamedTuple):
    """What an input was normalized with. Both arrays broadcast against it.

    mean: m; inverse: i = 1 / sqrt(v + epsilon); of_input: whether m and v were taken from the input itself, so that a
    derivative passes through them too.
    """

    mean: np.ndarray
    inverse: np.ndarray
    of_input: bool

    def normalized(self, x: np.ndarray) -> np.ndarray:
        """xh = (x - m) i, written as x i - m i: the forward pass multiplies first as well, so both round alike."""
        return x * self.inverse - self.mean * self.inverse


class Normalization(Layer):
    """Base of both: z = x s + (beta - m s), s = i gamma, over the last axis;  x: (batch, ..., out); gamma, beta: (out,)

    This is TensorFlow's form (`nn.batch_normalization`) of gamma (x - m) i + beta. They differ in rounding alone, but
    where the mean is far from zero that is most of the error.
    """

    def __init__(
        self,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        **base: Any,
    ):
        super().__init__(**base)
        self.epsilon = epsilon
        self.center = center
        self.scale = scale
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)

    def build(self, input_shape: Shape) -> None:
        shape = (self._features(input_shape),)
        if self.scale:
            self.add_weight("gamma", shape, self.gamma_initializer, ("out",))
        if self.center:
            self.add_weight("beta", shape, self.beta_initializer, ("out",))

    def _features(self, input_shape: Shape) -> int:
        features = input_shape[-1]
        if features is None:
            raise ValueError(
                f"{self.name}: {self.registered_name} needs the size of its input's last axis; received {input_shape}"
            )
        return features

    def _inverse(self, variance: np.ndarray) -> np.ndarray:
        return 1 / np.sqrt(variance + self.epsilon)

    def _slope(self, statistics: Statistics) -> np.ndarray:
        """s: what the input is multiplied with."""
        return statistics.inverse * self.weights["gamma"] if self.scale else statistics.inverse

    def _apply(self, x: np.ndarray, statistics: Statistics) -> np.ndarray:
        s = self._slope(statistics)
        shift = statistics.mean * s
        return x * s + (self.weights["beta"] - shift) if self.center else x * s - shift

    def _present(self, dgamma: np.ndarray, dbeta: np.ndarray) -> dict[str, np.ndarray]:
        return ({"gamma": dgamma} if self.scale else {}) | ({"beta": dbeta} if self.center else {})


@register("BatchNormalization")
class BatchNormalization(Normalization):
    """z = gamma xh + beta, xh = (x - m) i, i = 1 / sqrt(v + epsilon);  x: (batch, ..., out), gamma, beta, m, v: (out,).

    In training m and v are the mean and the biased variance over all n leading places, and the moving averages become
    moving momentum + batch (1 - momentum), the variance's too from the biased one:
    dbeta = sum dz;  dgamma = sum dz xh;  dx = gamma i (dz - (dbeta + xh dgamma) / n).

    In inference m and v are the moving averages, constants, so dx = gamma i dz; dbeta and dgamma are as above.
    As in Keras, `trainable=False` means inference, whatever the pass was called with.
    """

    neutral = {
        "beta_constraint": None,
        "gamma_constraint": None,
        "synchronized": False,
        "renorm": False,
        "renorm_clipping": None,
        "renorm_momentum": 0.99,
    }
    examples = (
        {},
        {"momentum": 0.9, "epsilon": 1e-5},
        {"center": False},
        {"scale": False},
        {"gamma_regularizer": "l2", "beta_regularizer": "l2"},
    )

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        **rest: Any,
    ):
        super().__init__(float(epsilon), center, scale, beta_initializer, gamma_initializer, **rest)
        self.axis = axis
        self.momentum = float(momentum)
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)

    def build(self, input_shape: Shape) -> None:
        _require_last(self, [self.axis], input_shape)
        super().build(input_shape)
        shape = (self._features(input_shape),)
        self.add_weight("moving_mean", shape, self.moving_mean_initializer, ("out",), trainable=False)
        self.add_weight("moving_variance", shape, self.moving_variance_initializer, ("out",), trainable=False)

    def transform(self, x: np.ndarray, training: bool) -> tuple[np.ndarray, Any, dict[str, np.ndarray]]:
        mean, variance, updates = self.weights["moving_mean"], self.weights["moving_variance"], {}
        of_input = training and self.trainable
        if of_input:
            mean, variance = _moments(x.reshape(-1, x.shape[-1]))
            updates = {"moving_mean": self._moved("moving_mean", mean)}
            updates["moving_variance"] = self._moved("moving_variance", variance)
        statistics = Statistics(mean, self._inverse(variance), of_input)
        return self._apply(x, statistics), statistics, updates

    def transform_backward(self, saved: Saved, dz: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        features = saved.x.shape[-1]
        rows, xh = dz.reshape(-1, features), saved.terms.normalized(saved.x.reshape(-1, features))
        dgamma, dbeta = sum_rows(rows * xh), sum_rows(rows)
        through = rows - (dbeta + xh * dgamma) / rows.shape[0] if saved.terms.of_input else rows
        dx = through * self._slope(saved.terms)
        return dx.reshape(saved.x.shape), self._present(dgamma, dbeta)

    def _moved(self, name: str, batch: np.ndarray) -> np.ndarray:
        return self.weights[name] * self.momentum + batch * (1 - self.momentum)


@register("LayerNormalization")
class LayerNormalization(Normalization):
    """z = gamma xh + beta, xh = (x - m) i, i = 1 / sqrt(v + epsilon);  x: (batch, ..., out), gamma, beta: (out,).

    m and v are the mean and the biased variance over the last axis, for each place of its own, in training and in
    inference alike. With h = dz gamma and means over the last axis:  dx = i (h - mean h - xh mean(h xh));
    dbeta = sum dz and dgamma = sum dz xh over all leading axes.
    """

    neutral = {"rms_scaling": False, "beta_constraint": None, "gamma_constraint": None}
    examples = (
        {},
        {"epsilon": 1e-5},
        {"center": False},
        {"scale": False},
        {"gamma_regularizer": "l2", "beta_regularizer": "l2"},
    )

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        **base: Any,
    ):
        super().__init__(
            epsilon, center, scale, beta_initializer, gamma_initializer, beta_regularizer, gamma_regularizer, **base
        )
        self.axis = axis if isinstance(axis, int) else list(axis)

    def build(self, input_shape: Shape) -> None:
        # Keras turns the axis into a list here, and writes it so from then on.
        self.axis = [self.axis] if isinstance(self.axis, int) else self.axis
        _require_last(self, self.axis, input_shape)
        super().build(input_shape)

    def transform(self, x: np.ndarray, training: bool) -> tuple[np.ndarray, Any, dict[str, np.ndarray]]:
        mean = np.mean(x, axis=-1, keepdims=True)
        centred = x - mean
        variance = np.mean(centred * centred, axis=-1, keepdims=True)
        statistics = Statistics(mean, self._inverse(variance), True)
        return self._apply(x, statistics), statistics, {}

    def transform_backward(self, saved: Saved, dz: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        xh = saved.terms.normalized(saved.x)
        h = dz * self.weights["gamma"] if self.scale else dz
        mean_h, mean_hxh = np.mean(h, axis=-1, keepdims=True), np.mean(h * xh, axis=-1, keepdims=True)
        dx = saved.terms.inverse * (h - mean_h - xh * mean_hxh)
        features = dz.shape[-1]
        return dx, self._present(sum_rows((dz * xh).reshape(-1, features)), sum_rows(dz.reshape(-1, features)))


def _moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance of (n, k) over the n rows, each (k,)."""
    mean = sum_rows(rows) / rows.shape[0]
    centred = rows - mean
    return mean, sum_rows(centred * centred) / rows.shape[0]


def _require_last(layer: Layer, axis: Sequence[int], input_shape: Shape) -> None:
    if list(axis) not in ([-1], [len(input_shape) - 1]):
        raise UnknownArgument(
            f"{layer.registered_name}: only the last axis is supported, axis=-1; received axis={list(axis)} "
            f"for inputs of shape {input_shape}"
        )
