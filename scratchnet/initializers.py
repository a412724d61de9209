"""Initial weights: the values that Keras's initializers give on TensorFlow, from the same seeds.

Uniform values are equal to Keras's in every bit, normal ones up to the rounding of log, sin and cos (see `philox`).
One initializer gives the same values at each call, seeded or not, as in Keras 3: an unseeded one draws its seed once,
when it is made, and its config still says `seed: None`.
"""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from scratchnet import philox, registry
from scratchnet.registry import Entry, register
from scratchnet.seeding import fresh_seed

__all__ = [
    "Constant",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "Initializer",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "Orthogonal",
    "RandomInitializer",
    "RandomNormal",
    "RandomUniform",
    "ScaledInitializer",
    "TruncatedNormal",
    "VarianceScaling",
    "Zeros",
    "fans",
    "get",
]

MODES = ("fan_in", "fan_out", "fan_avg")
DISTRIBUTIONS = ("uniform", "truncated_normal", "untruncated_normal")
TRUNCATED_DEVIATION = 0.87962566103423978  # of a unit normal that is cut off at +-2; Keras divides by it


def _cast(value: float, dtype: DTypeLike) -> np.ndarray:
    """The number as TensorFlow's `cast` sees it: a Python float is a float32 first, even on its way to float64.

    Returns an array without axes. Keras casts the limits of uniforms and the value of Constant so, but not the mean and
    deviation of normals.
    """
    return np.array(np.float32(value) if type(value) is float else value, dtype)


class Initializer(Entry):
    """Base of the initializers: a call makes an array of the shape and dtype asked for."""

    family = "initializer"

    def __call__(self, shape: Sequence[int], dtype: DTypeLike = "float32") -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} does not say which values it makes")


@register("Zeros", "zeros", "zero")
class Zeros(Initializer):
    """All 0."""

    def __call__(self, shape: Sequence[int], dtype: DTypeLike = "float32") -> np.ndarray:
        return np.zeros(shape, dtype)


@register("Ones", "ones", "one")
class Ones(Initializer):
    """All 1."""

    def __call__(self, shape: Sequence[int], dtype: DTypeLike = "float32") -> np.ndarray:
        return np.ones(shape, dtype)


@register("Constant", "constant")
class Constant(Initializer):
    """All `value`, a number."""

    examples = ({}, {"value": -0.1})

    def __init__(self, value: Any = 0.0) -> None:
        if not isinstance(value, Real):
            raise ValueError(f"Constant: expected value as a number; received {value!r}")
        self.value: Any = value  # kept as it came: `_cast` asks for its type

    def __call__(self, shape: Sequence[int], dtype: DTypeLike = "float32") -> np.ndarray:
        return np.full(shape, _cast(self.value, dtype), dtype)


@register("Identity", "identity", "IdentityInitializer")
class Identity(Initializer):
    """1 on the diagonal of a matrix, 0 elsewhere. Keras loses the argument `gain` in its config, so here it is 1."""

    neutral: Mapping[str, Any] = {"gain": 1.0}
    unwritten = ("gain",)

    def __call__(self, shape: Sequence[int], dtype: DTypeLike = "float32") -> np.ndarray:
        if len(shape) != 2:
            raise ValueError(f"Identity: expected a shape of two axes; received {tuple(shape)}")
        return np.eye(*shape, dtype=np.dtype(dtype))


class RandomInitializer(Initializer):
    """Base of those that draw. `seed` is what was given and what the config reports; None draws one, once."""

    def __init__(self, seed: int | None = None) -> None:
        if seed is not None and not isinstance(seed, int):
            raise ValueError(f"{type(self).__name__}: expected seed as an integer or None; received {seed!r}")
        self.seed = seed
        self._drawn_seed = fresh_seed() if seed is None else seed

    def _uniform(self, shape: Sequence[int], low: float, high: float, dtype: DTypeLike) -> np.ndarray:
        """u (high - low) + low, each step rounded to dtype."""
        lowest, highest = _cast(low, dtype), _cast(high, dtype)
        return philox.uniform(shape, self._drawn_seed, dtype) * (highest - lowest) + lowest

    def _normal(self, shape: Sequence[int], mean: float, deviation: float, dtype: DTypeLike) -> np.ndarray:
        return _scaled(philox.normal(shape, self._drawn_seed, dtype), mean, deviation)

    def _truncated_normal(self, shape: Sequence[int], mean: float, deviation: float, dtype: DTypeLike) -> np.ndarray:
        return _scaled(philox.truncated_normal(shape, self._drawn_seed, dtype), mean, deviation)


def _scaled(z: np.ndarray, mean: float, deviation: float) -> np.ndarray:
    return z * z.dtype.type(deviation) + z.dtype.type(mean)


@register("RandomUniform", "random_uniform", "uniform")
class RandomUniform(RandomInitializer):
    """Uniform on [minval, maxval)."""

    examples = ({"seed": 1}, {"minval": -0.3, "maxval": 0.7, "seed": 2})

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.minval = minval
        self.maxval = maxval

    def __call__(self, shape: Sequence[int], dtype: DTypeLike = "float32") -> np.ndarray:
        return self._uniform(shape, self.minval, self.maxval, dtype)


@register("RandomNormal", "random_normal", "normal")
class RandomNormal(RandomInitializer):
    """Normal with this mean and deviation."""

    examples = ({"seed": 1}, {"mean": 0.5, "stddev": 2.0, "seed": 2})

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.mean = mean
        self.stddev = stddev

    def __call__(self, shape: Sequence[int], dtype: DTypeLike = "float32") -> np.ndarray:
        return self._normal(shape, self.mean, self.stddev, dtype)


@register("TruncatedNormal", "truncated_normal")
class TruncatedNormal(RandomInitializer):
    """Normal, cut off two `stddev` from the mean; `stddev` is the deviation before the cut."""

    examples = ({"seed": 1}, {"mean": 0.5, "stddev": 2.0, "seed": 2})

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.mean = mean
        self.stddev = stddev

    def __call__(self, shape: Sequence[int], dtype: DTypeLike = "float32") -> np.ndarray:
        return self._truncated_normal(shape, self.mean, self.stddev, dtype)


class ScaledInitializer(RandomInitializer):
    """Base of those that fit the spread to the shape: mean 0 and variance scale / n.

    n is the fan in, the fan out or their mean, at least 1. uniform: limit sqrt(3 scale / n); untruncated_normal:
    deviation sqrt(scale / n); truncated_normal: the same deviation, counted after the cut.
    """

    neutral: Mapping[str, Any] = {"input_axes": None, "output_axes": None}
    examples: tuple[Mapping[str, Any], ...] = ({"seed": 1},)
    scale: float
    mode: str
    distribution: str

    def __call__(self, shape: Sequence[int], dtype: DTypeLike = "float32") -> np.ndarray:
        fan_in, fan_out = fans(shape)
        n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, n)
        if self.distribution == "uniform":
            limit = math.sqrt(3.0 * variance)
            return self._uniform(shape, -limit, limit, dtype)
        if self.distribution == "untruncated_normal":
            return self._normal(shape, 0.0, math.sqrt(variance), dtype)
        return self._truncated_normal(shape, 0.0, math.sqrt(variance) / TRUNCATED_DEVIATION, dtype)


def fans(shape: Sequence[int]) -> tuple[int, int]:
    """Inputs and outputs of one unit: the last two axes, each times the receptive field (all axes before them).

    A vector counts its length as both, a scalar 1.
    """
    if len(shape) < 2:
        n = math.prod(shape)
        return n, n
    field = math.prod(shape[:-2])
    return shape[-2] * field, shape[-1] * field


@register("VarianceScaling", "variance_scaling")
class VarianceScaling(ScaledInitializer):
    """`ScaledInitializer` with everything for the caller to say; "normal" means "truncated_normal", as in Keras."""

    examples = (
        {"seed": 1},
        {"scale": 0.3, "mode": "fan_out", "distribution": "uniform", "seed": 2},
        {"scale": 2.0, "mode": "fan_avg", "distribution": "untruncated_normal", "seed": 3},
        {"distribution": "normal", "seed": 4},
    )

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
    ) -> None:
        distribution = distribution.lower()
        if distribution == "normal":
            distribution = "truncated_normal"
        if not scale > 0:
            raise ValueError(f"VarianceScaling: expected scale > 0; received {scale!r}")
        _check_choice("mode", mode, MODES)
        _check_choice("distribution", distribution, DISTRIBUTIONS)
        super().__init__(seed)
        self.scale = scale
        self.mode = mode
        self.distribution = distribution


def _check_choice(argument: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"VarianceScaling: expected {argument} as one of {', '.join(known)}; received {value!r}")


@register("GlorotUniform", "glorot_uniform")
class GlorotUniform(ScaledInitializer):
    """Uniform with limit sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010). Keras's default for kernels."""

    scale = 1.0
    mode = "fan_avg"
    distribution = "uniform"


@register("GlorotNormal", "glorot_normal")
class GlorotNormal(ScaledInitializer):
    """Truncated normal with deviation sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""

    scale = 1.0
    mode = "fan_avg"
    distribution = "truncated_normal"


@register("HeUniform", "he_uniform")
class HeUniform(ScaledInitializer):
    """Uniform with limit sqrt(6 / fan_in) (He et al. 2015), for relu."""

    scale = 2.0
    mode = "fan_in"
    distribution = "uniform"


@register("HeNormal", "he_normal")
class HeNormal(ScaledInitializer):
    """Truncated normal with deviation sqrt(2 / fan_in) (He et al. 2015), for relu."""

    scale = 2.0
    mode = "fan_in"
    distribution = "truncated_normal"


@register("LecunUniform", "lecun_uniform")
class LecunUniform(ScaledInitializer):
    """Uniform with limit sqrt(3 / fan_in) (LeCun et al. 1998), for selu."""

    scale = 1.0
    mode = "fan_in"
    distribution = "uniform"


@register("LecunNormal", "lecun_normal")
class LecunNormal(ScaledInitializer):
    """Truncated normal with deviation sqrt(1 / fan_in) (LeCun et al. 1998), for selu."""

    scale = 1.0
    mode = "fan_in"
    distribution = "truncated_normal"


@register("Orthogonal", "orthogonal", "OrthogonalInitializer")
class Orthogonal(RandomInitializer):
    """gain times a random matrix with orthonormal columns, or rows where it is wide (Saxe et al. 2014).

    Q of A = Q R for a normal A, each column with the sign of its element on R's diagonal: that makes Q unique, so every
    library gets the same one, up to the condition of A. Of more than two axes the last one has the columns.
    """

    examples = ({"seed": 1}, {"gain": 0.5, "seed": 2})

    def __init__(self, gain: float = 1.0, seed: int | None = None) -> None:
        super().__init__(seed)
        self.gain = gain

    def __call__(self, shape: Sequence[int], dtype: DTypeLike = "float32") -> np.ndarray:
        if len(shape) < 2:
            raise ValueError(f"Orthogonal: expected a shape of at least two axes; received {tuple(shape)}")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        drawn = philox.normal((max(rows, columns), min(rows, columns)), self._drawn_seed, dtype)
        q, r = np.linalg.qr(drawn)
        q = q * np.sign(np.diag(r))
        return np.reshape(self.gain * (q.T if rows < columns else q), shape)


def get(identifier: Any) -> Initializer:
    """The initializer that Keras would take `identifier` for: a name, a config or an instance."""
    found: Initializer = registry.get("initializer", identifier)
    return found
