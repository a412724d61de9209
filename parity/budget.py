"""How far two correct implementations of one operation may be apart: running error analysis.

`Bounded` is an array that carries, beside each value in float64, a bound on how far a correct float32 (or other)
evaluation of the same formula may be from it. NumPy functions work on it, so the code of a layer, an activation or a
loss is also the text from which its budget is derived: there is no second formula to keep in step.

Each operation adds its own rounding error, u |y| for a correctly rounded one (u: unit roundoff, 2^-24 for float32), to
what the errors of its operands become (J. H. Wilkinson 1963; N. J. Higham, Accuracy and Stability of Numerical
Algorithms, section 3.3). The constants:

matrix product, n terms   min(n + 1, 16 + 2 sqrt r) u sum|terms|
sum, n terms              min(n, 16 + 8 sqrt r) u sum|terms|
                          The first of each pair holds for any order of summation. The second is what was measured: in
                          27 states of two networks (initialised, trained, saturated; 1 to 60,000 rows) Keras on
                          TensorFlow used at most half of it, and a lone error of 1e-3 in one element was seen in
                          96 to 100 % of kernel gradients and 81 to 100 % of bias gradients.
                          r is n where all terms differ. A root of n stands for rounding errors that point both ways;
                          but what is lost when a term is added to a partial sum depends, within a binade, on the term
                          alone, so equal terms err alike. With m_v terms of the value v, r = sum of m_v^2, up to n^2.
                          Seen in saturated networks: 6,048 terms of 9 values were 386 u sum|terms| off.
tanh, logistic, erfc      16 u |y|. TensorFlow's kernels were measured at up to 5 units in the last place = 10 u.
exp, log, log1p, expm1    8 u |y|. Measured: up to 4 units in the last place.
square root               2 u |y|: TensorFlow often has a reciprocal root instead, measured at up to 2.9 u with 1/x.
flush to zero             2^-126 for each result that is not exactly zero: TensorFlow flushes subnormal numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from scipy import special

__all__ = ["FLOAT32", "FLOAT64", "Arithmetic", "Bounded", "Condition", "UnboundedOperation", "roundings"]


@dataclass(frozen=True)
class Arithmetic:
    """The arithmetic that is judged: its dtype, unit roundoff and smallest normal number."""

    dtype: np.dtype[Any]
    unit: float
    tiny: float


FLOAT32 = Arithmetic(np.dtype("float32"), 2.0**-24, 2.0**-126)
FLOAT64 = Arithmetic(np.dtype("float64"), 2.0**-53, 2.0**-1022)

TRANSCENDENTAL = 16  # tanh, logistic, erfc: in units of u |y|
SAMPLE = 4096  # terms of a sum that are looked at for equal ones
ELEMENTARY = 8  # exp, log, log1p, expm1


class UnboundedOperation(TypeError):
    """A NumPy function for which no rounding bound is written down yet."""


class Condition(NDArrayOperatorsMixin):
    """The outcome of a comparison whose operands carry errors: `unsure` marks where the other outcome is also right.

    `np.where` and products then allow both answers.
    """

    def __init__(self, value: np.ndarray, unsure: np.ndarray):
        self.value = value
        self.unsure = unsure

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if ufunc in (np.logical_and, np.bitwise_and, np.logical_or, np.bitwise_or):
            sides = [i if isinstance(i, Condition) else Condition(i, np.asarray(False)) for i in inputs]
            return Condition(ufunc(*(s.value for s in sides)), sides[0].unsure | sides[1].unsure)
        if ufunc is np.multiply:
            other = next(i for i in inputs if not isinstance(i, Condition))
            return _where(self, other, 0.0)
        return NotImplemented

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return _where(*args) if func is np.where else NotImplemented


class Bounded(NDArrayOperatorsMixin):
    """Values in float64, each with a bound on the error of a correct evaluation in `arithmetic`.

    value: float64 array; error: float64 array of the same shape, or None for exact values.
    """

    def __init__(self, value: Any, error: Any = None, arithmetic: Arithmetic = FLOAT32):
        self.value = np.asarray(value, dtype=np.float64)
        self.error = None if error is None else np.broadcast_to(error, self.value.shape)
        self.arithmetic = arithmetic

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    @property
    def ndim(self) -> int:
        return self.value.ndim

    @property
    def size(self) -> int:
        return self.value.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that is judged, so that constants are rounded to it."""
        return self.arithmetic.dtype

    @property
    def T(self) -> Bounded:
        return self._each(lambda a: a.T)

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, index: Any) -> Bounded:
        return self._each(lambda a: a[index])

    def reshape(self, *shape: Any) -> Bounded:
        return self._each(lambda a: a.reshape(*shape))

    def transpose(self, *axes: Any) -> Bounded:
        return self._each(lambda a: a.transpose(*axes))

    def rounded(self, times: float, of: Bounded) -> Bounded:
        """The same values after so many more roundings of numbers up to the size of `of`."""
        return Bounded(self.value, _error(self) + times * self.arithmetic.unit * np.abs(of.value), self.arithmetic)

    def astype(self, dtype: Any) -> Bounded:
        """A conversion rounds once."""
        return self._rounded(self.value, _error(self))

    def bound(self) -> np.ndarray:
        """The error bounds as a full array."""
        return np.zeros(self.shape) if self.error is None else np.array(self.error)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method == "__call__" and not kwargs:
            operands = [self._constant(each) for each in inputs]
            if ufunc in _COMPARISONS:
                return _compare(ufunc, *operands)
            if ufunc in _RULES:
                with np.errstate(all="ignore"):
                    return _RULES[ufunc](self, *operands)
        if method == "reduceat" and ufunc is np.add:
            return _sum_at(*inputs, **kwargs)
        raise UnboundedOperation(f"no rounding bound is known for numpy.{ufunc.__name__} ({method}, {sorted(kwargs)})")

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if func in _FUNCTIONS:
            with np.errstate(all="ignore"):
                return _FUNCTIONS[func](*args, **kwargs)
        if func in _STRUCTURAL:
            return self._each(lambda a: func(a, *args[1:], **kwargs))
        raise UnboundedOperation(f"no rounding bound is known for numpy.{func.__name__}")

    def _each(self, move: Callable[[np.ndarray], np.ndarray]) -> Bounded:
        """The same rearrangement of values and errors: exact."""
        return Bounded(move(self.value), None if self.error is None else move(self.error), self.arithmetic)

    def _constant(self, operand: Any) -> Any:
        """A Python number as the arithmetic holds it: off by what rounding it costs."""
        if not isinstance(operand, float):
            return operand
        return Bounded(operand, abs(operand - float(self.dtype.type(operand))), self.arithmetic)

    def _rounded(self, value: np.ndarray, inherited: Any, roundings: float | np.ndarray = 1.0) -> Bounded:
        """A computed value: the error inherited from its operands and its own. In place: batches can be large."""
        error = np.asarray(np.abs(value))
        error *= roundings * self.arithmetic.unit
        np.add(error, self.arithmetic.tiny, out=error, where=value != 0)
        error += inherited
        np.copyto(error, np.inf, where=np.isnan(error))
        return Bounded(value, error, self.arithmetic)


def _value(operand: Any) -> Any:
    return operand.value if isinstance(operand, Bounded) else operand


def _error(operand: Any) -> Any:
    """Error of an operand: its bound; other arrays and numbers have none."""
    return 0.0 if not isinstance(operand, Bounded) or operand.error is None else operand.error


def _wide(operand: Any) -> np.ndarray:
    return np.asarray(_value(operand), dtype=np.float64)


# -- elementwise operations: (any Bounded operand, operands...) -> Bounded ---------------------------------------------


def _add(like: Bounded, a: Any, b: Any) -> Bounded:
    return like._rounded(_wide(a) + _wide(b), _error(a) + _error(b))


def _subtract(like: Bounded, a: Any, b: Any) -> Bounded:
    return like._rounded(_wide(a) - _wide(b), _error(a) + _error(b))


def _multiply(like: Bounded, a: Any, b: Any) -> Any:
    if isinstance(a, Condition) or isinstance(b, Condition):
        return NotImplemented  # the Condition knows what to do
    x, y, ex, ey = _wide(a), _wide(b), _error(a), _error(b)
    inherited = np.abs(x) * ey + np.abs(y) * ex + ex * ey
    exact = any(np.asarray(_value(side)).dtype == bool for side in (a, b))
    return like._rounded(x * y, inherited, 0.0 if exact else 1.0)


def _divide(like: Bounded, a: Any, b: Any) -> Bounded:
    x, y, ex, ey = _wide(a), _wide(b), _error(a), _error(b)
    quotient = x / y
    room = np.abs(y) - ey
    return like._rounded(quotient, np.where(room > 0, (ex + np.abs(quotient) * ey) / room, np.inf))


def _power(like: Bounded, a: Any, b: Any) -> Any:
    if b != 2:
        raise UnboundedOperation(f"no rounding bound is known for numpy.power with the exponent {b!r}")
    return _multiply(like, a, a)


def _extreme(ufunc: np.ufunc) -> Callable[..., Bounded]:
    def apply(like: Bounded, a: Any, b: Any) -> Bounded:
        value = ufunc(_wide(a), _wide(b))
        return Bounded(value, np.maximum(_error(a), _error(b)), like.arithmetic)

    return apply


def _smooth(
    function: Callable[[np.ndarray], np.ndarray],
    growth: Callable[[np.ndarray, Any, np.ndarray], Any],
    roundings: float,
) -> Callable[..., Bounded]:
    """A function of one argument. growth(a, ea, y): how far y moves when a moves by at most ea."""

    def apply(like: Bounded, a: Bounded) -> Bounded:
        y = function(a.value)
        inherited = 0.0 if a.error is None else growth(a.value, a.error, y)
        return like._rounded(y, inherited, roundings)

    return apply


def _nearest(a: np.ndarray, ea: Any) -> np.ndarray:
    """The point of the interval a +- ea that is nearest to 0, where bell-shaped slopes are largest."""
    return np.maximum(np.abs(a) - ea, 0)


def _logistic_slope(a: np.ndarray) -> np.ndarray:
    s = special.expit(a)
    return s * special.expit(-a)


def _log_growth(a: np.ndarray, ea: Any, y: np.ndarray) -> np.ndarray:
    return np.where(a > ea, -np.log1p(-ea / a), np.inf)


def _sign(like: Bounded, a: Bounded) -> Bounded:
    """Exact, unless the argument may be on the other side of 0."""
    return Bounded(
        np.sign(a.value), np.where((np.abs(a.value) <= _error(a)) & (_error(a) > 0), 2.0, 0.0), like.arithmetic
    )


_RULES: Mapping[np.ufunc, Callable[..., Any]] = {
    np.add: _add,
    np.subtract: _subtract,
    np.multiply: _multiply,
    np.true_divide: _divide,
    np.power: _power,
    np.square: lambda like, a: _multiply(like, a, a),
    np.matmul: lambda like, a, b: _matmul(like, a, b),
    np.maximum: _extreme(np.maximum),
    np.minimum: _extreme(np.minimum),
    np.fmax: _extreme(np.fmax),
    np.negative: lambda like, a: a._each(np.negative) if a.error is None else Bounded(-a.value, a.error, a.arithmetic),
    np.absolute: lambda like, a: Bounded(np.abs(a.value), a.error, a.arithmetic),
    np.sign: _sign,
    np.sqrt: _smooth(
        np.sqrt, lambda a, ea, y: np.where(a > ea, ea / (y + np.sqrt(np.abs(a - ea))), np.sqrt(a + ea)), 2
    ),
    np.exp: _smooth(np.exp, lambda a, ea, y: y * np.expm1(ea), ELEMENTARY),
    np.expm1: _smooth(np.expm1, lambda a, ea, y: np.exp(a) * np.expm1(ea), ELEMENTARY),
    np.log: _smooth(np.log, _log_growth, ELEMENTARY),
    np.log1p: _smooth(np.log1p, lambda a, ea, y: _log_growth(1 + a, ea, y), ELEMENTARY),
    np.tanh: _smooth(np.tanh, lambda a, ea, y: ea * (1 - np.tanh(_nearest(a, ea)) ** 2), TRANSCENDENTAL),
    special.expit: _smooth(special.expit, lambda a, ea, y: ea * _logistic_slope(_nearest(a, ea)), TRANSCENDENTAL),
    special.erfc: _smooth(
        special.erfc, lambda a, ea, y: ea * 2 / np.sqrt(np.pi) * np.exp(-(_nearest(a, ea) ** 2)), TRANSCENDENTAL
    ),
}

_COMPARISONS = frozenset({np.greater, np.greater_equal, np.less, np.less_equal, np.equal, np.not_equal})


def _compare(ufunc: np.ufunc, a: Any, b: Any) -> Any:
    value = ufunc(_wide(a), _wide(b))
    margin = _error(a) + _error(b)
    if not np.any(margin):
        return value
    with np.errstate(invalid="ignore"):  # infinity - infinity
        unsure = (np.abs(_wide(a) - _wide(b)) <= margin) & (np.asarray(margin) > 0)
    return Condition(value, unsure) if np.any(unsure) else value


# -- sums and products of matrices -------------------------------------------------------------------------------------


def _matmul(like: Bounded, a: Any, b: Any) -> Bounded:
    x, y = _wide(a), _wide(b)
    n = x.shape[-1]
    size = np.abs(x) @ np.abs(y)
    inherited: Any = np.minimum(n + 1, 16 + 2 * np.sqrt(_alike_products(x, y))) * like.arithmetic.unit * size
    if np.any(_error(a)):
        inherited = inherited + _error(a) @ (np.abs(y) + _error(b))
    if np.any(_error(b)):
        inherited = inherited + np.abs(x) @ np.broadcast_to(_error(b), y.shape)
    return Bounded(x @ y, inherited + np.where(size == 0, 0.0, n * like.arithmetic.tiny), like.arithmetic)


def roundings(terms: np.ndarray) -> float:
    """How many units of roundoff it costs at most to add terms one after another: (..., n) -> the worst of all."""
    n = terms.shape[-1]
    return float(np.max(np.minimum(n, 16 + 2 * np.sqrt(_alike(terms)))))


def _alike_products(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`_alike` of the terms of x @ y, or more. Two terms are taken for equal only where both their factors are, so the
    smaller operand, often a kernel of all different weights, mostly settles it."""
    n = x.shape[-1]
    if x.size < y.size:
        alike = _alike(x)[..., np.newaxis]
        return alike if np.all(alike <= 2 * n) else np.minimum(alike, _alike(y.swapaxes(-1, -2))[..., np.newaxis, :])
    alike = _alike(y.swapaxes(-1, -2))[..., np.newaxis, :]
    return alike if np.all(alike <= 2 * n) else np.minimum(alike, _alike(x)[..., np.newaxis])


def _alike(terms: np.ndarray) -> np.ndarray:
    """What stands for n in the square roots: sum of m^2 over the values that occur m times, (..., n) -> (...).

    The roundings of different terms are as good as random, and n of them grow like sqrt n; adding one value over and
    over rounds the same way each time, and grows like n. Values are equal here if their first 22 bits are, or if they
    are so close that partial sums cannot tell them apart and make up more than 1/64 of all. Of many terms a sample is
    looked at. Zeros round nothing.
    """
    n = terms.shape[-1]
    sample = terms[..., :: max(1, n // SAMPLE)]
    scale = n / sample.shape[-1]
    mantissa, exponent = np.frexp(sample)
    close = np.maximum(n * FLOAT32.unit, 2.0**-22)
    fine = _runs(np.ldexp(np.round(mantissa * 2.0**22), exponent)) * scale
    coarse = _runs(np.ldexp(np.round(mantissa / close), exponent)) * scale
    repeated = np.sum(np.where(fine > scale, fine**2, fine), axis=-1)
    return np.maximum(repeated, np.sum(np.where(coarse > n / 64, coarse, 0) ** 2, axis=-1))


def _runs(values: np.ndarray) -> np.ndarray:
    """How often each value other than 0 occurs along the last axis, at one place for each value; 0 elsewhere."""
    values = np.sort(values, axis=-1)
    place = np.arange(values.shape[-1])
    first = np.ones(values.shape, bool)
    first[..., 1:] = values[..., 1:] != values[..., :-1]
    last = np.ones(values.shape, bool)
    last[..., :-1] = first[..., 1:]
    begun = np.maximum.accumulate(np.where(first, place, 0), axis=-1)
    return np.where(last & (values != 0), place - begun + 1.0, 0.0)


def _sum(a: Bounded, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Bounded:
    value = a.value.sum(axis=axis, keepdims=keepdims)
    n = a.size / max(value.size, 1)
    size = np.abs(a.value).sum(axis=axis, keepdims=keepdims)
    kept = [] if axis is None else [i for i in range(a.ndim) if i not in np.arange(a.ndim)[np.atleast_1d(axis)]]
    terms = np.moveaxis(a.value, kept, range(len(kept))).reshape(*(a.shape[i] for i in kept), -1)
    alike = _alike(terms).reshape(size.shape)
    own = np.minimum(n, 16 + 8 * np.sqrt(alike)) * a.arithmetic.unit * size
    inherited = 0.0 if a.error is None else a.error.sum(axis=axis, keepdims=keepdims)
    flushed = np.where(size == 0, 0.0, n * a.arithmetic.tiny)
    return Bounded(value, inherited + own + flushed, a.arithmetic)


def _sum_at(a: Bounded, starts: np.ndarray, axis: int = 0, dtype: Any = None) -> Bounded:
    """Sums of consecutive slices along the first axis."""
    n = np.diff(starts, append=len(a)).reshape(-1, *(1,) * (a.ndim - 1))
    size = np.add.reduceat(np.abs(a.value), starts, axis=axis)
    own = np.minimum(n, 16 + 8 * np.sqrt(n)) * a.arithmetic.unit * size + np.where(
        size == 0, 0.0, n * a.arithmetic.tiny
    )
    inherited = 0.0 if a.error is None else np.add.reduceat(a.error, starts, axis=axis)
    return Bounded(np.add.reduceat(a.value, starts, axis=axis), inherited + own, a.arithmetic)


def _mean(a: Bounded, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    total = _sum(a, axis, dtype, keepdims)
    return total / (a.size // max(total.size, 1))


def _max(a: Bounded, axis: Any = None, keepdims: bool = False) -> Bounded:
    """A maximum moves no further than the operand that moves furthest."""
    error = None if a.error is None else a.error.max(axis=axis, keepdims=keepdims)
    return Bounded(a.value.max(axis=axis, keepdims=keepdims), error, a.arithmetic)


# -- selection ---------------------------------------------------------------------------------------------------------


def _where(condition: Any, a: Any, b: Any) -> Bounded:
    like = next(side for side in (a, b) if isinstance(side, Bounded))
    a, b = like._constant(a), like._constant(b)
    sure = condition.value if isinstance(condition, Condition) else condition
    value = np.where(sure, _wide(a), _wide(b))
    error = np.where(sure, _error(a), _error(b))
    if isinstance(condition, Condition):  # the other branch is right as well
        reach = np.maximum(_error(a), _error(b)) + np.abs(_wide(a) - _wide(b))
        error = np.where(condition.unsure, reach, error)
    return Bounded(value, error, like.arithmetic)


def _clip(a: Bounded, low: Any, high: Any) -> Bounded:
    """The bounds are rounded to the judged dtype first, as a float32 implementation holds them."""
    low, high = (float(np.asarray(bound, a.dtype)) for bound in (low, high))
    return Bounded(np.clip(a.value, low, high), a.error, a.arithmetic)


def _joined(func: Callable[..., np.ndarray]) -> Callable[..., Bounded]:
    def apply(parts: Sequence[Any], *args: Any, **kwargs: Any) -> Bounded:
        like = next(part for part in parts if isinstance(part, Bounded))
        errors = [part.bound() if isinstance(part, Bounded) else np.zeros(np.shape(part)) for part in parts]
        return Bounded(func([_wide(p) for p in parts], *args, **kwargs), func(errors, *args, **kwargs), like.arithmetic)

    return apply


def _pad(a: Bounded, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Bounded:
    value = np.pad(a.value, pad_width, mode, constant_values=constant_values)  # type: ignore[call-overload]
    return Bounded(value, None if a.error is None else np.pad(a.error, pad_width), a.arithmetic)


_FUNCTIONS: Mapping[Any, Callable[..., Any]] = {
    np.sum: _sum,
    np.mean: _mean,
    np.max: _max,
    np.where: _where,
    np.clip: _clip,
    np.concatenate: _joined(np.concatenate),
    np.stack: _joined(np.stack),
    np.pad: _pad,
    np.zeros_like: lambda a: Bounded(np.zeros(a.shape), None, a.arithmetic),
    np.ones_like: lambda a: Bounded(np.ones(a.shape), None, a.arithmetic),
    np.argmax: lambda a, axis=None: np.argmax(a.value, axis=axis),
    np.shape: lambda a: a.shape,
    np.ndim: lambda a: a.ndim,
}

_STRUCTURAL = frozenset(
    {
        np.reshape,
        np.transpose,
        np.moveaxis,
        np.swapaxes,
        np.expand_dims,
        np.squeeze,
        np.broadcast_to,
        np.take,
        np.take_along_axis,
        np.flip,
        np.repeat,
        np.tile,
        np.copy,
        np.ascontiguousarray,
        np.lib.stride_tricks.sliding_window_view,
    }
)
