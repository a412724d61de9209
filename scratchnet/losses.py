"""Loss functions: the loss of each sample and its derivative, side by side.

Keras computes a cross-entropy behind a sigmoid or a softmax from the *pre-activations* ("logits"), which the activation
hangs on its output. So `forward` and `backward` take them as `logits`; where a loss uses them, `backward` returns the
gradient by the logits, otherwise the gradient by the predictions. All labels are taken as given: a row of targets need
not sum to 1, and the gradient is the derivative of the loss for any row (TensorFlow's is not: CategoricalCrossentropy).

Shapes: y_pred and logits (batch, ..., K); y_true the same, or without the last axis for integer labels; the loss of
each sample (batch, ...). A reduction makes one number of them.
"""

from typing import Any

import numpy as np
from scipy.special import expit

from scratchnet import registry
from scratchnet.activations import Softmax
from scratchnet.registry import Entry, register

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "Huber",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "SparseCategoricalCrossentropy",
    "get",
]

softmax = Softmax().forward

EPSILON = 1e-7  # Keras clips probabilities to [EPSILON, 1 - EPSILON] before the logarithm
REDUCTIONS = ("sum_over_batch_size", "mean", "sum", "mean_with_sample_weight")


class Loss(Entry):
    """Base class: a subclass gives `per_sample` and `derivative`; reduction and sample weights are done here."""

    family = "loss"
    default_name: str
    labels = "real"  # what y_true is made of: real, binary, one_hot or integer
    head = "tanh"  # an activation whose outputs the loss is made for

    def __init__(self, reduction: str = "sum_over_batch_size", name: str | None = None):
        if reduction not in REDUCTIONS:
            raise ValueError(f"unknown reduction {reduction!r}; known: {', '.join(REDUCTIONS)}")
        self.reduction = reduction
        self.name = name or self.default_name

    def per_sample(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """The loss of each sample, (batch, ...)."""
        raise NotImplementedError

    def derivative(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """Derivative of the sum of `per_sample` by y_pred, (batch, ..., K)."""
        raise NotImplementedError

    def two_sided(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray | None:
        """Where the derivative by y_pred jumps, so that the one from either side is an answer; booleans in its shape.
        None where it never does."""
        return None

    def uses(self, logits: np.ndarray | None) -> bool:
        """Whether the loss is computed from `logits` rather than from the predictions."""
        return False

    def targets(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """y_true in the shape and dtype of y_pred. A last axis of 1 may be missing; nothing else is broadcast."""
        y_true = np.asarray(y_true, dtype=y_pred.dtype)
        if y_pred.ndim == y_true.ndim + 1 and y_pred.shape[-1] == 1:
            y_true = y_true[..., np.newaxis]
        if y_true.shape != y_pred.shape:
            raise ValueError(f"{self.name}: y_true must have y_pred's shape {y_pred.shape}; received {y_true.shape}")
        return y_true

    def forward(
        self,
        y_true: np.ndarray,
        y_pred: np.ndarray,
        logits: np.ndarray | None = None,
        sample_weight: np.ndarray | None = None,
    ) -> np.ndarray:
        """The loss as one number (rank 0)."""
        losses = self._select("per_sample", y_true, y_pred, logits)
        weights, divisor = self._weights(losses, sample_weight)
        return np.sum(losses if weights is None else losses * weights) / divisor

    def backward(
        self,
        y_true: np.ndarray,
        y_pred: np.ndarray,
        logits: np.ndarray | None = None,
        sample_weight: np.ndarray | None = None,
    ) -> np.ndarray:
        """Gradient of `forward` by the logits where the loss `uses` them, else by y_pred; in their shape."""
        slopes = self._select("derivative", y_true, y_pred, logits)
        weights, divisor = self._weights(slopes[..., 0], sample_weight)
        return slopes / divisor if weights is None else slopes * (weights / divisor)[..., np.newaxis]

    def _select(self, what: str, y_true: np.ndarray, y_pred: np.ndarray, logits: np.ndarray | None) -> np.ndarray:
        if self.uses(logits):
            result: np.ndarray = getattr(self, f"{what}_from_logits")(self.targets(y_true, y_pred), logits)
        else:
            result = getattr(self, what)(self.targets(y_true, y_pred), y_pred)
        return result

    def _weights(self, losses: np.ndarray, sample_weight: np.ndarray | None) -> tuple[np.ndarray | None, Any]:
        """The factor of each sample's loss and the divisor of the sum. Both means of Keras divide by a *count*
        of losses, "mean_with_sample_weight" alone by the sum of the weights."""
        weights = None
        if sample_weight is not None:
            weights = np.asarray(sample_weight, dtype=losses.dtype)
            if weights.shape != losses.shape[: weights.ndim]:
                raise ValueError(
                    f"{self.name}: sample_weight must have the losses' shape {losses.shape}; received {weights.shape}"
                )
            weights = np.broadcast_to(
                weights.reshape(weights.shape + (1,) * (losses.ndim - weights.ndim)), losses.shape
            )
        if self.reduction == "sum":
            return weights, 1
        if self.reduction == "mean_with_sample_weight" and weights is not None:
            return weights, np.sum(weights) or np.inf
        return weights, max(losses.size, 1)


@register("MeanSquaredError", "mean_squared_error", "mse", "MSE")
class MeanSquaredError(Loss):
    """l = mean((p - y)^2) over the last axis;  dl/dp = 2 (p - y) / K."""

    default_name = "mean_squared_error"

    def per_sample(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return np.mean((y_pred - y_true) ** 2, axis=-1)

    def derivative(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return 2 * (y_pred - y_true) / y_pred.shape[-1]


@register("MeanAbsoluteError", "mean_absolute_error", "mae", "MAE")
class MeanAbsoluteError(Loss):
    """l = mean(|p - y|) over the last axis;  dl/dp = sign(p - y) / K, 0 where p = y."""

    default_name = "mean_absolute_error"

    def per_sample(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return np.mean(np.abs(y_pred - y_true), axis=-1)

    def derivative(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return np.sign(y_pred - y_true) / y_pred.shape[-1]

    def two_sided(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return self.targets(y_true, y_pred) == y_pred


@register("Huber", "huber")
class Huber(Loss):
    """With e = p - y: l = mean(e^2/2 where |e| <= d, else d |e| - d^2/2);  dl/dp = clip(e, -d, d) / K."""

    default_name = "huber_loss"
    examples = ({}, {"delta": 0.25})

    def __init__(self, delta: float = 1.0, reduction: str = "sum_over_batch_size", name: str | None = None):
        super().__init__(reduction, name)
        self.delta = delta

    def per_sample(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        size = np.abs(y_pred - y_true)
        tail = self.delta * size - 0.5 * self.delta**2
        return np.mean(np.where(size <= self.delta, 0.5 * size * size, tail), axis=-1)

    def derivative(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return np.clip(y_pred - y_true, -self.delta, self.delta) / y_pred.shape[-1]


class Crossentropy(Loss):
    """What the three share: predictions are probabilities unless `from_logits`, and recovered logits win."""

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
    ):
        super().__init__(reduction, name)
        if axis != -1:
            raise ValueError(f"{self.name}: only axis=-1 is supported; received axis={axis}")
        self.from_logits = from_logits
        self.label_smoothing = label_smoothing
        self.axis = axis

    def uses(self, logits: np.ndarray | None) -> bool:
        return logits is not None

    def per_sample_from_logits(self, y_true: np.ndarray, logits: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def derivative_from_logits(self, y_true: np.ndarray, logits: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _select(self, what: str, y_true: np.ndarray, y_pred: np.ndarray, logits: np.ndarray | None) -> np.ndarray:
        # With from_logits=True the predictions are the logits, unless an activation has cached better ones: Keras
        # then only warns, and uses the cached ones.
        if self.from_logits and logits is None:
            result: np.ndarray = getattr(self, f"{what}_from_logits")(self.targets(y_true, y_pred), y_pred)
            return result
        return super()._select(what, y_true, y_pred, logits)


@register("BinaryCrossentropy", "binary_crossentropy", "bce", "BCE")
class BinaryCrossentropy(Crossentropy):
    """Independent yes-or-no labels, mean over the last axis (K of them).

    From probabilities, c = clip(p, eps, 1 - eps):  l = -mean(y log c + (1-y) log(1-c));
    dl/dp = -(y/c - (1-y)/(1-c)) / K inside the clip, 0 outside.
    From logits:  l = mean(max(z,0) - z y + log(1 + exp(-|z|)));  dl/dz = (sigmoid(z) - y) / K.
    label_smoothing s:  y (1-s) + s/2.
    """

    default_name = "binary_crossentropy"
    labels = "binary"
    head = "sigmoid"
    examples = ({}, {"label_smoothing": 0.1}, {"from_logits": True})

    def targets(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        y_true = super().targets(y_true, y_pred)
        s = self.label_smoothing
        return y_true * (1 - s) + 0.5 * s if s else y_true

    def per_sample(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        c = np.clip(y_pred, EPSILON, 1 - EPSILON)
        return -np.mean(y_true * np.log(c) + (1 - y_true) * np.log(1 - c), axis=-1)

    def derivative(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        c = np.clip(y_pred, EPSILON, 1 - EPSILON)
        return _inside(y_pred) * ((1 - y_true) / (1 - c) - y_true / c) / y_pred.shape[-1]

    def per_sample_from_logits(self, y_true: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return np.mean(np.maximum(logits, 0) - logits * y_true + np.log1p(np.exp(-np.abs(logits))), axis=-1)

    def derivative_from_logits(self, y_true: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return (expit(logits) - y_true) / logits.shape[-1]


@register("CategoricalCrossentropy", "categorical_crossentropy")
class CategoricalCrossentropy(Crossentropy):
    """One of K classes, targets as rows of probabilities (one-hot or soft).

    From probabilities, q = p / sum(p), c = clip(q, eps, 1 - eps):  l = -sum(y log c);
    with g = -y/c inside the clip, else 0:  dl/dp = (g - sum(g q)) / sum(p). Keras renormalises the rows.
    From logits:  l = -sum(y log softmax(z));  dl/dz = sum(y) softmax(z) - y. TensorFlow returns softmax(z) - y, which
    is the derivative only of rows with sum(y) = 1 (tensorflow 2.21, unless op determinism is on).
    label_smoothing s:  y (1-s) + s/K.
    """

    default_name = "categorical_crossentropy"
    labels = "one_hot"
    head = "softmax"
    examples = ({}, {"label_smoothing": 0.1}, {"from_logits": True})

    def targets(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        y_true = super().targets(y_true, y_pred)
        s = self.label_smoothing
        return y_true * (1 - s) + s / y_true.shape[-1] if s else y_true

    def per_sample(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        q = y_pred / np.sum(y_pred, axis=-1, keepdims=True)
        return -np.sum(y_true * np.log(np.clip(q, EPSILON, 1 - EPSILON)), axis=-1)

    def derivative(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        total = np.sum(y_pred, axis=-1, keepdims=True)
        q = y_pred / total
        g = -y_true / np.clip(q, EPSILON, 1 - EPSILON) * _inside(q)
        return (g - np.sum(g * q, axis=-1, keepdims=True)) / total

    def per_sample_from_logits(self, y_true: np.ndarray, logits: np.ndarray) -> np.ndarray:
        z = logits - np.max(logits, axis=-1, keepdims=True)
        return np.sum(y_true * (np.log(np.sum(np.exp(z), axis=-1, keepdims=True)) - z), axis=-1)

    def derivative_from_logits(self, y_true: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return np.sum(y_true, axis=-1, keepdims=True) * softmax(logits) - y_true


@register("SparseCategoricalCrossentropy", "sparse_categorical_crossentropy")
class SparseCategoricalCrossentropy(Crossentropy):
    """One of K classes, targets as integers t: (batch, ...) or with a last axis of 1.

    From probabilities, c = clip(p, eps, 1 - eps):  l = log(sum c) - log c_t;
    dl/dp = 1 / sum c - [j = t] / c_t inside the clip. The clip comes *before* the renormalisation, unlike categorical.
    c / sum c is taken as softmax(log c), as Keras does: of a small c that is less exact, and so is Keras.
    From logits:  l = log(sum(exp z)) - z_t;  dl/dz = softmax(z) - [j = t].
    """

    default_name = "sparse_categorical_crossentropy"
    labels = "integer"
    head = "softmax"
    neutral = {"ignore_class": None}
    examples = ({}, {"from_logits": True})

    def __init__(
        self,
        from_logits: bool = False,
        reduction: str = "sum_over_batch_size",
        axis: int = -1,
        name: str | None = None,
    ):
        super().__init__(from_logits, 0.0, axis, reduction, name)

    def targets(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """The labels as integers, (batch, ...)."""
        y_true = np.asarray(y_true)
        if y_true.ndim == y_pred.ndim and y_true.shape[-1] == 1:
            y_true = y_true[..., 0]
        if y_true.shape != y_pred.shape[:-1]:
            raise ValueError(f"{self.name}: y_true must have the shape {y_pred.shape[:-1]}; received {y_true.shape}")
        labels = y_true.astype(np.int64)
        if labels.size and not 0 <= labels.min() <= labels.max() < y_pred.shape[-1]:
            raise ValueError(
                f"{self.name}: labels must be in [0, {y_pred.shape[-1]}); received {labels.min()} to {labels.max()}"
            )
        return labels

    def per_sample(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        c = np.clip(y_pred, EPSILON, 1 - EPSILON)
        return np.log(np.sum(c, axis=-1)) - _pick(np.log(c), y_true)

    def derivative(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        c = np.clip(y_pred, EPSILON, 1 - EPSILON)
        return _inside(y_pred) * (softmax(np.log(c)) - _one_hot(y_true, y_pred)) / c

    def per_sample_from_logits(self, y_true: np.ndarray, logits: np.ndarray) -> np.ndarray:
        z = logits - np.max(logits, axis=-1, keepdims=True)
        return np.log(np.sum(np.exp(z), axis=-1)) - _pick(z, y_true)

    def derivative_from_logits(self, y_true: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return softmax(logits) - _one_hot(y_true, logits)


def _inside(p: np.ndarray) -> np.ndarray:
    """Where the clip passes the gradient: both bounds included."""
    return (p >= np.asarray(EPSILON, p.dtype)) & (p <= np.asarray(1 - EPSILON, p.dtype))


def _pick(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The value of each sample's own class: values (..., K), labels (...) -> (...)."""
    return np.take_along_axis(values, labels[..., np.newaxis], axis=-1)[..., 0]


def _one_hot(labels: np.ndarray, like: np.ndarray) -> np.ndarray:
    return (labels[..., np.newaxis] == np.arange(like.shape[-1])).astype(like.dtype)


def get(identifier: Any) -> Loss:
    """The loss that Keras would take `identifier` for: a name, a config or an instance."""
    found: Loss = registry.get("loss", identifier)
    return found
