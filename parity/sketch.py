"""A large tensor in few numbers: enough to say whether another one is the same, not to say what it was.

The elements are thrown into buckets, each with a sign, both drawn by a hash of its position; of each bucket the sum is
kept (a count sketch: Charikar, Chen and Farach-Colton, 2002). Of two tensors, the sums differ by sum s_i d_i over the n
elements of a bucket, where d_i is the difference of an element and s_i its sign.

What is allowed. If no |d_i| is above a_i, then |sum s_i d_i| is at most sum a_i; and since the signs are independent of
the differences, it is above t sqrt(sum a_i^2) with a probability of at most 2 exp(-t^2 / 2) (Hoeffding, 1963). The
smaller of the two is allowed, with t = 8: one false alarm in 4e13 buckets.

What is seen. A single element that is off by more than 2 min(n, t sqrt(n)) a, for n elements in its bucket with the
same a, is seen: for the others to hide it, they would have to reach that bound themselves. With 64 elements in a bucket
that are 128 budgets. A difference that is spread over the tensor is seen where its root mean square is above
2 min(sqrt(n), t) a: |sum s_i d_i| is at least half of sqrt(sum d_i^2) with a probability of at least 3/16 in each
bucket (Paley and Zygmund, 1932, with E X^4 <= 3 (E X^2)^2), so that all of the buckets miss it once in (16/13)^buckets:
with 64 of them, the fewest, once in 600,000.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Sketch", "Vouched", "buckets", "seen_from"]

FEWEST = 64  # a power of two, so that the bits of the hash are divided evenly
LOAD = 64  # elements in a bucket on average, at most: t^2, up to where the sum of what is allowed is the smaller bound
DEVIATIONS = 8.0  # t


def buckets(size: int) -> int:
    """In how many buckets a tensor of so many elements is thrown: a power of two."""
    return max(FEWEST, 1 << (-(-size // LOAD) - 1).bit_length())


def seen_from(size: int) -> float:
    """How many times the allowed difference a single element of a tensor of this size has to be off to be seen, in a
    bucket of average load."""
    load = max(1.0, size / buckets(size))
    return 2 * min(load, DEVIATIONS * load**0.5)


@dataclass(frozen=True, eq=False)
class Sketch:
    """sums: (buckets,) float64, of the elements of a tensor of `shape` and `dtype` with signs; seed: of the hash."""

    shape: tuple[int, ...]
    dtype: str
    seed: int
    sums: np.ndarray

    @classmethod
    def of(cls, array: np.ndarray, seed: int) -> Sketch:
        """Of an array of at least one element; NaN and infinity stay in the sum of their bucket."""
        return cls(array.shape, array.dtype.name, seed, _sums(*_drawn(array.size, seed), _flat(array)))

    def compared(self, array: np.ndarray, allowed: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """The sums of another array of this shape, and how far each may be from the one here, if each element may be
        off by what is allowed there."""
        bucket, sign = _drawn(array.size, self.seed)
        values, each = _flat(array), _flat(np.broadcast_to(np.asarray(allowed, np.float64), array.shape))
        with np.errstate(all="ignore"):
            most = self._summed(bucket, each)
            likely = DEVIATIONS * np.sqrt(self._summed(bucket, each * each))
            return _sums(bucket, sign, values), np.fmin(most, likely) + self._rounding(bucket, values)

    def _rounding(self, bucket: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Of the two sums themselves: n additions in float64 are off by at most n 2^-53 sum |x|, twice."""
        sizes = np.abs(values)
        count = np.bincount(bucket, minlength=len(self.sums))
        return 4 * count * 2.0**-53 * self._summed(bucket, np.where(np.isfinite(sizes), sizes, 0.0))

    def _summed(self, bucket: np.ndarray, values: np.ndarray) -> np.ndarray:
        return np.bincount(bucket, values, len(self.sums))

    def elements(self, marked: np.ndarray) -> np.ndarray:
        """Which elements are in the buckets that are marked. marked: (buckets,) bool."""
        bucket, _ = _drawn(math.prod(self.shape), self.seed)
        return marked[bucket].reshape(self.shape)


class Vouched(np.ndarray):
    """An array that was computed again, in place of one of which only the sketch was kept."""

    sketch: Sketch | None = None

    @classmethod
    def by(cls, sketch: Sketch, array: np.ndarray) -> Vouched:
        """The array, or zeros where it has another shape than what was sketched."""
        fits = np.shape(array) == sketch.shape
        found = np.array(array if fits else np.zeros(sketch.shape), dtype=sketch.dtype).view(cls)
        found.sketch = sketch
        return found


def _flat(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.float64).reshape(-1)


def _sums(bucket: np.ndarray, sign: np.ndarray, values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # of infinities of both signs
        return np.bincount(bucket, sign * values, buckets(len(values)))


def _drawn(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The bucket and the sign of each position: SplitMix64 (Steele, Lea and Flood, 2014), which every version of every
    library computes the same."""
    z = _hashed(np.arange(size, dtype=np.uint64) + _word(seed << 32))
    sign = np.where(z >> _word(63), 1.0, -1.0)
    return (z & _word(buckets(size) - 1)).astype(np.intp), sign


def _hashed(position: np.ndarray) -> np.ndarray:
    """The numbers of SplitMix64 after so many steps from zero: the first is that of position 1."""
    with np.errstate(over="ignore"):
        z = position * _word(0x9E3779B97F4A7C15)
        z = (z ^ (z >> _word(30))) * _word(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> _word(27))) * _word(0x94D049BB133111EB)
        return z ^ (z >> _word(31))


def _word(number: int) -> Any:
    return np.uint64(number % 2**64)
