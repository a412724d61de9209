"""Mistakes in BatchNormalization and LayerNormalization: z = gamma xh + beta, xh = (x - m) / sqrt(v + epsilon).

One statistic is over the batch, the other over the features; all else that can go wrong is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parity.mistakes.catalogue import Wrong, mistake
from parity.mistakes.parts import Outputs
from parity.runners.steps import Operation

PYTORCH_EPSILON = 1e-5


def both(code: str, **fields: Any) -> Callable[[Wrong], Wrong]:
    """Enter a mistake for both layers, as batch-normalization-<code> and layer-normalization-<code>."""

    def enter(function: Wrong) -> Wrong:
        mistake(f"batch-normalization-{code}", on="BatchNormalization", **fields)(function)
        return mistake(f"layer-normalization-{code}", on="LayerNormalization", **fields)(function)

    return enter


@dataclass(frozen=True)
class Normalized:
    """The parts of one normalization. mean and variance broadcast against x; axes: what they are taken over."""

    x: np.ndarray
    axes: tuple[int, ...]
    mean: np.ndarray
    variance: np.ndarray
    epsilon: float
    gamma: Any
    beta: Any
    constant: bool  # whether mean and variance are the moving averages, which no derivative passes through

    @classmethod
    def of(cls, op: Operation) -> Normalized:
        x, of_batch = op["x"], op.kind == "BatchNormalization"
        axes = tuple(range(x.ndim - 1)) if of_batch else (x.ndim - 1,)
        gamma, beta = (op.inputs.get(name, default) for name, default in (("gamma", 1.0), ("beta", 0.0)))
        own = cls(x, axes, *_moments(x, axes), op.entry.epsilon, gamma, beta, not op.terms.of_input)
        return replace(own, mean=op["moving_mean"], variance=op["moving_variance"]) if own.constant else own

    @property
    def inverse(self) -> np.ndarray:
        return 1 / np.sqrt(self.variance + self.epsilon)

    @property
    def xh(self) -> np.ndarray:
        return (self.x - self.mean) * self.inverse

    @property
    def z(self) -> np.ndarray:
        return self.gamma * self.xh + self.beta

    @property
    def count(self) -> int:
        """How many cells a statistic is taken over."""
        return int(np.prod([self.x.shape[axis] for axis in self.axes]))

    @property
    def rounding(self) -> float:
        """How far two correct float evaluations of i may be apart, relative.

        With n terms and unit roundoff u, the sum of squares is off by n u of v, and the mean in them adds 2 n u
        (where the mean is small against the deviation); i by half of the 3 n u, two of them by twice that. eps = 2 u.
        """
        return float(1.5 * self.count * np.finfo(self.x.dtype).eps)

    def average(self, values: np.ndarray) -> np.ndarray:
        return np.mean(values, axis=self.axes, keepdims=True)


def _moments(x: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return np.mean(x, axis=axes, keepdims=True), np.var(x, axis=axes, keepdims=True)


# -- forward -----------------------------------------------------------------------------------------------------------


@both(
    "epsilon-outside-root",
    direction="forward",
    text="this fits (x - mean) / (sqrt(var) + epsilon); Keras divides by sqrt(var + epsilon), epsilon under the root",
    right="i = 1 / sqrt(v + epsilon)",
    wrong="i = 1 / (sqrt(v) + epsilon)",
    shows="where epsilon is not small against what rounding does to the variance",
)
def _(op: Operation) -> Outputs | None:
    n = Normalized.of(op)
    inverse = 1 / (np.sqrt(n.variance) + n.epsilon)
    # They differ by epsilon |1 / (2 v) - 1 / sqrt(v)|, which is nothing at v = 1/4.
    if np.all(np.abs(inverse / n.inverse - 1) <= n.rounding):
        return None
    return {"z": n.gamma * (n.x - n.mean) * inverse + n.beta}


@both(
    "epsilon-of-pytorch",
    direction="forward",
    text="this fits epsilon=1e-5, PyTorch's default; Keras has 1e-3, and it is an argument of the layer",
    right="i = 1 / sqrt(v + epsilon)",
    wrong="i = 1 / sqrt(v + 1e-5)",
    shows="where the layer's epsilon is another one",
)
def _(op: Operation) -> Outputs | None:
    n = Normalized.of(op)
    return None if n.epsilon == PYTORCH_EPSILON else {"z": replace(n, epsilon=PYTORCH_EPSILON).z}


@both(
    "epsilon-missing",
    direction="forward",
    text="add epsilon to the variance",
    right="i = 1 / sqrt(v + epsilon)",
    wrong="i = 1 / sqrt(v)",
    shows="where epsilon is not small against what rounding does to the variance",
)
def _(op: Operation) -> Outputs | None:
    n = Normalized.of(op)
    if np.any(n.variance == 0) or np.all(n.epsilon / (2 * n.variance) <= n.rounding):
        return None
    return {"z": replace(n, epsilon=0.0).z}


@both(
    "root-missing",
    direction="forward",
    text="divide by the standard deviation, the root of the variance",
    right="i = 1 / sqrt(v + epsilon)",
    wrong="i = 1 / (v + epsilon)",
)
def _(op: Operation) -> Outputs:
    n = Normalized.of(op)
    return {"z": n.gamma * (n.x - n.mean) / (n.variance + n.epsilon) + n.beta}


@both(
    "mean-missing",
    direction="forward",
    text="subtract the mean before dividing",
    right="xh = (x - m) i",
    wrong="xh = x i",
)
def _(op: Operation) -> Outputs:
    n = Normalized.of(op)
    return {"z": n.gamma * n.x * n.inverse + n.beta}


@both(
    "variance-unbiased",
    direction="forward",
    text="the variance is divided by n, not by n - 1 (np.var without ddof)",
    right="v = sum (x - m)^2 / n",
    wrong="v = sum (x - m)^2 / (n - 1)",
    shows="in training, with n above 1",
)
def _(op: Operation) -> Outputs | None:
    n = Normalized.of(op)
    if n.constant or n.count == 1:
        return None
    return {"z": replace(n, variance=n.variance * (n.count / (n.count - 1))).z}


@both(
    "gamma-missing",
    direction="forward",
    text="multiply the normalized input with gamma",
    right="z = gamma xh + beta",
    wrong="z = xh + beta",
    shows="where gamma is not one, as it is when training starts",
)
def _(op: Operation) -> Outputs | None:
    return {"z": replace(Normalized.of(op), gamma=1.0).z} if "gamma" in op else None


@both(
    "beta-missing",
    direction="forward",
    text="add beta to the normalized input",
    right="z = gamma xh + beta",
    wrong="z = gamma xh",
    shows="where beta is not zero, as it is when training starts",
)
def _(op: Operation) -> Outputs | None:
    return {"z": replace(Normalized.of(op), beta=0.0).z} if "beta" in op else None


@both(
    "statistics-over-everything",
    direction="forward",
    text="keep the axis that is not normalized over: mean and variance are taken over all cells (no axis given)",
    right="m, v: over the batch (batch normalization) or over the features (layer normalization)",
    wrong="m, v: over both",
    shows="with more than one sample and more than one feature",
)
def _(op: Operation) -> Outputs | None:
    return _forward_over(op, tuple(range(op["x"].ndim)))


@mistake(
    "batch-normalization-statistics-over-features",
    on="BatchNormalization",
    direction="forward",
    text="mean and variance are taken over the batch, for each feature, not over the features of a sample",
    right="m, v = mean and variance of x over axis 0",
    wrong="m, v = mean and variance of x over the last axis",
    shows="in training",
)
def _(op: Operation) -> Outputs | None:
    return _forward_over(op, (op["x"].ndim - 1,))


@mistake(
    "layer-normalization-statistics-over-batch",
    on="LayerNormalization",
    direction="forward",
    text="mean and variance are taken over the features of a sample, not over the batch",
    right="m, v = mean and variance of x over the last axis",
    wrong="m, v = mean and variance of x over axis 0",
)
def _(op: Operation) -> Outputs | None:
    return _forward_over(op, (0,))


@mistake(
    "batch-normalization-moving-statistics-in-training",
    on="BatchNormalization",
    direction="forward",
    text="training normalizes with the statistics of the batch; the moving averages are for inference",
    right="m, v = mean and variance of the batch",
    wrong="m, v = moving averages",
    shows="in training",
)
def _(op: Operation) -> Outputs | None:
    n = Normalized.of(op)
    return None if n.constant else {"z": replace(n, mean=op["moving_mean"], variance=op["moving_variance"]).z}


@mistake(
    "batch-normalization-batch-statistics-in-inference",
    on="BatchNormalization",
    direction="forward",
    text="inference normalizes with the moving averages, not with the statistics of the batch",
    right="m, v = moving averages",
    wrong="m, v = mean and variance of the batch",
    shows="in inference, and with trainable=False",
)
def _(op: Operation) -> Outputs | None:
    n = Normalized.of(op)
    if not n.constant:
        return None
    mean, variance = _moments(n.x, n.axes)
    return {"z": replace(n, mean=mean, variance=variance).z}


def _forward_over(op: Operation, axes: tuple[int, ...]) -> Outputs | None:
    """z with statistics over other axes; None in inference, and where the axes that differ have one cell."""
    n = Normalized.of(op)
    if n.constant or all(n.x.shape[axis] == 1 for axis in set(axes) ^ set(n.axes)):
        return None
    mean, variance = _moments(n.x, axes)
    return {"z": replace(n, mean=mean, variance=variance).z}


# -- forward: the moving averages --------------------------------------------------------------------------------------


@mistake(
    "batch-normalization-moving-averages-not-updated",
    on="BatchNormalization",
    direction="forward",
    text="a training pass moves the moving averages; without it inference goes by their initial values",
    right="moving = momentum moving + (1 - momentum) batch",
    wrong="moving = moving",
    shows="in training, with a momentum below 1",
)
def _(op: Operation) -> Outputs | None:
    return _moved(op, lambda n, moving, batch: moving)


@mistake(
    "batch-normalization-momentum-exchanged",
    on="BatchNormalization",
    direction="forward",
    text="momentum is the share that is kept; PyTorch's is the share of the batch, 1 - Keras's",
    right="moving = momentum moving + (1 - momentum) batch",
    wrong="moving = (1 - momentum) moving + momentum batch",
    shows="in training, with a momentum other than 1/2",
)
def _(op: Operation) -> Outputs | None:
    momentum = op.entry.momentum
    return _moved(op, lambda n, moving, batch: moving * (1 - momentum) + batch * momentum)


@mistake(
    "batch-normalization-moving-variance-unbiased",
    on="BatchNormalization",
    direction="forward",
    text="the moving variance moves towards the variance of the batch divided by n, as in the output; PyTorch's n - 1 "
    "is not Keras's",
    right="moving_variance = momentum moving_variance + (1 - momentum) sum (x - m)^2 / n",
    wrong="moving_variance = momentum moving_variance + (1 - momentum) sum (x - m)^2 / (n - 1)",
    shows="in training, with n above 1",
)
def _(op: Operation) -> Outputs | None:
    def unbiased(n: Normalized, moving: np.ndarray, batch: np.ndarray) -> np.ndarray:
        return _average(op, moving, batch * (n.count / (n.count - 1)))

    return None if Normalized.of(op).count == 1 else _moved(op, unbiased, "moving_variance")


@mistake(
    "batch-normalization-moving-deviation",
    on="BatchNormalization",
    direction="forward",
    text="the moving variance moves towards the variance of the batch, not towards its root, the standard deviation",
    right="moving_variance = momentum moving_variance + (1 - momentum) v",
    wrong="moving_variance = momentum moving_variance + (1 - momentum) sqrt(v)",
    shows="in training",
)
def _(op: Operation) -> Outputs | None:
    return _moved(op, lambda n, moving, batch: _average(op, moving, np.sqrt(batch)), "moving_variance")


def _moved(
    op: Operation, new: Callable[[Normalized, np.ndarray, np.ndarray], np.ndarray], *names: str
) -> Outputs | None:
    """new(n, moving, batch) for these moving averages, or both; None in inference, where nothing moves."""
    n = Normalized.of(op)
    batches = {"moving_mean": n.mean.reshape(-1), "moving_variance": n.variance.reshape(-1)}
    return None if n.constant else {name: new(n, op[name], batches[name]) for name in names or batches}


def _average(op: Operation, moving: np.ndarray, batch: np.ndarray) -> np.ndarray:
    return moving * op.entry.momentum + batch * (1 - op.entry.momentum)


# -- backward: the gradient by the input -------------------------------------------------------------------------------
# With h = dz gamma and means over the cells of a statistic, both layers have  dx = i (h - mean h - xh mean(h xh)).


@both(
    "mean-term-missing",
    direction="backward",
    text="the mean depends on the input too: its term is missing",
    right="dx = i (h - mean h - xh mean(h xh)), h = dz gamma",
    wrong="dx = i (h - xh mean(h xh))",
    shows="in training",
)
def _(op: Operation) -> Outputs | None:
    return _input_gradient(op, lambda n, h: h - n.xh * n.average(h * n.xh))


@both(
    "variance-term-missing",
    direction="backward",
    text="the variance depends on the input too: its term is missing",
    right="dx = i (h - mean h - xh mean(h xh)), h = dz gamma",
    wrong="dx = i (h - mean h)",
    shows="in training",
)
def _(op: Operation) -> Outputs | None:
    return _input_gradient(op, lambda n, h: h - n.average(h))


@both(
    "statistics-constant",
    direction="backward",
    text="mean and variance depend on the input: both of their terms are missing",
    right="dx = i (h - mean h - xh mean(h xh)), h = dz gamma",
    wrong="dx = i h",
    shows="in training",
)
def _(op: Operation) -> Outputs | None:
    return _input_gradient(op, lambda n, h: h)


@both(
    "terms-not-averaged",
    direction="backward",
    text="the terms of mean and variance are means, not sums: divide by the number of cells",
    right="dx = i (h - mean h - xh mean(h xh)), h = dz gamma",
    wrong="dx = i (h - sum h - xh sum(h xh))",
    shows="in training",
)
def _(op: Operation) -> Outputs | None:
    return _input_gradient(op, lambda n, h: h - n.count * (n.average(h) + n.xh * n.average(h * n.xh)))


@both(
    "variance-power",
    direction="backward",
    text="the derivative by the variance has the power -3/2: d (v + epsilon)^(-1/2) = -1/2 (v + epsilon)^(-3/2) dv",
    right="dv = -1/2 sum(h (x - m)) i^3",
    wrong="dv = -1/2 sum(h (x - m)) i",
    shows="in training",
)
def _(op: Operation) -> Outputs | None:
    return _input_gradient(op, lambda n, h: h - n.average(h) - n.xh * n.average(h * n.xh) / n.inverse**2)


@both(
    "gamma-missing-in-input-gradient",
    direction="backward",
    text="going back, multiply with gamma",
    right="dx = i (h - mean h - xh mean(h xh)), h = dz gamma",
    wrong="dx = i (dz - mean dz - xh mean(dz xh))",
    shows="where gamma is not one, as it is when training starts",
)
def _(op: Operation) -> Outputs | None:
    if "gamma" not in op:
        return None
    n, dz = replace(Normalized.of(op), gamma=1.0), op["dz"]
    return {"dx": n.inverse * (dz if n.constant else dz - n.average(dz) - n.xh * n.average(dz * n.xh))}


@mistake(
    "layer-normalization-gamma-outside-means",
    on="LayerNormalization",
    direction="backward",
    text="gamma differs along the axis of the means, so it belongs inside them; in batch normalization it does not",
    right="dx = i (h - mean h - xh mean(h xh)), h = dz gamma",
    wrong="dx = gamma i (dz - mean dz - xh mean(dz xh))",
    shows="where gamma differs from feature to feature",
)
def _(op: Operation) -> Outputs | None:
    if "gamma" not in op:
        return None
    n, dz = Normalized.of(op), op["dz"]
    return {"dx": n.gamma * n.inverse * (dz - n.average(dz) - n.xh * n.average(dz * n.xh))}


@both(
    "deviation-sum-missing",
    direction="backward",
    text="the term dv sum(x - m) in the derivative by the mean may be left out",
    right="dm = -i sum h - 2 dv sum(x - m) / n",
    wrong="dm = -i sum h",
    shows="never",
    equivalent="deviations from the mean add up to zero",
)
def _(op: Operation) -> Outputs | None:
    n = Normalized.of(op)
    if n.constant:
        return None
    h = op["dz"] * n.gamma
    deviation = n.x - n.mean
    dv = -(n.inverse**3) / 2 * n.count * n.average(h * deviation)
    dm = -n.inverse * n.count * n.average(h)
    return {"dx": h * n.inverse + (2 * dv * deviation + dm) / n.count}


def _input_gradient(op: Operation, through: Callable[[Normalized, np.ndarray], np.ndarray]) -> Outputs | None:
    """dx = i through(n, h); None in inference, where h is all there is."""
    n = Normalized.of(op)
    return None if n.constant else {"dx": n.inverse * through(n, op["dz"] * n.gamma)}


# -- backward: another epsilon, as behind a forward pass that has it ---------------------------------------------------


@both(
    "gradient-epsilon-outside-root",
    direction="backward",
    text="the gradients have epsilon outside the root, too",
    right="dx, dgamma of xh = (x - m) / sqrt(v + epsilon)",
    wrong="dx, dgamma of xh = (x - m) / (sqrt(v) + epsilon)",
    shows="where epsilon is not small against what rounding does to the variance",
)
def _(op: Operation) -> Outputs | None:
    n = Normalized.of(op)
    deviation = np.sqrt(n.variance)
    inverse = 1 / (deviation + n.epsilon)
    if np.any(deviation == 0) or np.all(np.abs(inverse / n.inverse - 1) <= n.rounding):
        return None
    h, xh = op["dz"] * n.gamma, (n.x - n.mean) * inverse
    # The derivative of the deviation s is (x - m) / (n s), and that of 1 / (s + epsilon) by s is -1 / (s + epsilon)^2.
    dx = inverse * (h if n.constant else h - n.average(h) - xh * n.average(h * (n.x - n.mean)) / deviation)
    return _with_gamma(op, dx, xh)


@both(
    "gradient-epsilon-of-pytorch",
    direction="backward",
    text="the gradients have that epsilon, too",
    right="dx, dgamma of xh = (x - m) / sqrt(v + epsilon)",
    wrong="dx, dgamma of xh = (x - m) / sqrt(v + 1e-5)",
    shows="where the layer's epsilon is another one",
)
def _(op: Operation) -> Outputs | None:
    n = Normalized.of(op)
    if n.epsilon == PYTORCH_EPSILON:
        return None
    n, h = replace(n, epsilon=PYTORCH_EPSILON), op["dz"] * n.gamma
    dx = n.inverse * (h if n.constant else h - n.average(h) - n.xh * n.average(h * n.xh))
    return _with_gamma(op, dx, n.xh)


def _with_gamma(op: Operation, dx: np.ndarray, xh: np.ndarray) -> Outputs:
    return {"dx": dx, "gamma": _over_samples(op["dz"] * xh)} if "gamma" in op else {"dx": dx}


# -- backward: the gradients by gamma and beta -------------------------------------------------------------------------


@both(
    "gamma-gradient-without-input",
    direction="backward",
    text="the gradient by gamma takes the normalized input: dz times xh",
    right="dgamma = sum of dz xh",
    wrong="dgamma = sum of dz",
)
def _(op: Operation) -> Outputs:
    return {"gamma": _over_samples(op["dz"])}


@both(
    "gamma-gradient-of-input",
    direction="backward",
    text="the gradient by gamma takes the normalized input, not the input as it came",
    right="dgamma = sum of dz xh",
    wrong="dgamma = sum of dz x",
)
def _(op: Operation) -> Outputs:
    return {"gamma": _over_samples(op["dz"] * op["x"])}


@both(
    "gamma-gradient-of-output",
    direction="backward",
    text="the gradient by gamma takes the normalized input before gamma and beta, not the output",
    right="dgamma = sum of dz xh",
    wrong="dgamma = sum of dz z",
    shows="where gamma is not one or beta not zero, as they are when training starts",
)
def _(op: Operation) -> Outputs:
    return {"gamma": _over_samples(op["dz"] * op["z"])}


@both(
    "beta-gradient-averaged",
    direction="backward",
    text="sum the gradient by beta over the batch; do not take the mean",
    right="dbeta = sum of dz",
    wrong="dbeta = mean of dz",
    shows="with a batch of more than one",
)
def _(op: Operation) -> Outputs:
    dz = op["dz"]
    return {"beta": _over_samples(dz) * (dz.shape[-1] / dz.size)}


def _over_samples(values: np.ndarray) -> np.ndarray:
    """The sum over all axes but the last."""
    return np.sum(values, axis=tuple(range(values.ndim - 1)))
