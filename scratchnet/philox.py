"""The random numbers that Keras draws on TensorFlow, bit for bit, in NumPy.

The generator is Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a keyed mixing
of a counter, so block number i of a stream needs no other block and all blocks are computed at
once. What is TensorFlow's own:

- Keras hands TensorFlow the pair (seed mod 2^31-2, counter): an integer seed has counter 0, a `SeedGenerator` counts
  its calls. TensorFlow mixes the pair with a fixed key and takes the stream's key and the upper half of its counter
  from the result.
- Words become floats through their low mantissa bits, normals through Box-Muller, truncated normals by rejection.

Uniform numbers, dropout masks and permutations are equal to TensorFlow's in every bit. Normals are equal up to the
rounding of log, sin and cos, which no two math libraries share. Formulas: TensorFlow's `core/lib/random`,
`core/kernels/random_op_cpu.h` and `core/kernels/random_shuffle_op.cc`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

__all__ = ["Stream", "dropout_mask", "normal", "permutation", "philox", "stream", "truncated_normal", "uniform"]

ROUNDS = 10
MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
KEY_STEPS = 0x9E3779B9, 0xBB67AE85  # added to the key before each further round
WORD = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)

SEED_MIXING_KEY = 0x3EC8F720, 0x02461E29  # TensorFlow's constant for the stateless operations
SEED_MODULUS = 2**31 - 2  # Keras folds a seed into TensorFlow's int32 with this one
SHUFFLE_MODULUS = 2**31 - 1  # TensorFlow folds its global seed with this one

SMALLEST_UNIFORM = 1e-7  # Box-Muller's floor, so that log never sees 0
TRUNCATION = 2.0
RESERVED_SAMPLES = 256  # words set aside for each value of a truncated normal, so that rejections shift no others


def philox(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Ten rounds of Philox-4x32. counter: (..., 4) words, lowest first; key: two words. Returns (..., 4) uint32."""
    c0, c1, c2, c3 = np.moveaxis(np.asarray(counter, dtype=np.uint64), -1, 0)
    for r in range(ROUNDS):
        k0, k1 = (np.uint64((k + r * step) & 0xFFFFFFFF) for k, step in zip(key, KEY_STEPS, strict=True))
        left, right = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (right >> HALF) ^ c1 ^ k0, right & WORD, (left >> HALF) ^ c3 ^ k1, left & WORD
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


@dataclass(frozen=True)
class Stream:
    """An endless row of 32-bit words: block i is `philox` of the counter (i, upper) under `key`."""

    key: tuple[int, int]
    upper: tuple[int, int] = (0, 0)

    def blocks(self, index: np.ndarray) -> np.ndarray:
        """The blocks with these numbers. index: (...) -> (..., 4) uint32."""
        index = np.asarray(index, dtype=np.uint64)
        high = (np.full_like(index, word) for word in self.upper)
        return philox(np.stack([index & WORD, index >> HALF, *high], axis=-1), self.key)

    def words(self, count: int) -> np.ndarray:
        """The first `count` words. Returns (count,) uint32."""
        return self.blocks(np.arange(-(-count // 4))).reshape(-1)[:count]


def stream(seed: int, counter: int = 0) -> Stream:
    """The stream of a `keras.random` call with this integer seed, or a `SeedGenerator` in the state (seed, counter)."""
    pair = [seed % SEED_MODULUS, 0, counter % SEED_MODULUS, 0]  # each number as its low and high word
    m0, m1, m2, m3 = (int(word) for word in philox(np.array(pair), SEED_MIXING_KEY))
    return Stream(key=(m0, m1), upper=(m2, m3))


def uniform(shape: Sequence[int], seed: int, dtype: DTypeLike = "float32", counter: int = 0) -> np.ndarray:
    """`keras.random.uniform` on [0, 1). Each dtype reads the stream in its own way, so its numbers are others."""
    dtype = _real(dtype)
    size = math.prod(shape)
    return _unit_interval(stream(seed, counter).words(size * dtype.itemsize // 4), dtype).reshape(shape)


def normal(shape: Sequence[int], seed: int, dtype: DTypeLike = "float32", counter: int = 0) -> np.ndarray:
    """`keras.random.normal` with mean 0 and deviation 1; the last bits may differ from TensorFlow's."""
    dtype = _real(dtype)
    size = math.prod(shape)
    even = size + size % 2  # Box-Muller makes two at a time
    words = stream(seed, counter).words(even * dtype.itemsize // 4)
    return _box_muller(_unit_interval(words, dtype)).reshape(-1)[:size].reshape(shape)


def truncated_normal(shape: Sequence[int], seed: int, dtype: DTypeLike = "float32", counter: int = 0) -> np.ndarray:
    """`keras.random.truncated_normal` with mean 0 and deviation 1: normals of magnitude 2 and more are drawn anew.

    One block holds as many values as 16 bytes do, and this many values form a group. Each group has its own stretch of
    the stream and keeps the first values there that are small enough.
    """
    dtype = _real(dtype)
    source, size, group = stream(seed, counter), math.prod(shape), 16 // dtype.itemsize
    values = np.empty((-(-size // group), group), dtype)
    starts = np.arange(len(values)) * (group * RESERVED_SAMPLES // 4)
    pending, length = np.arange(len(values)), 2
    while pending.size:
        blocks = source.blocks(starts[pending, None] + np.arange(length))
        drawn = _box_muller(_unit_interval(blocks.reshape(len(pending), -1), dtype))
        accepted = np.abs(drawn) < TRUNCATION
        first = np.argsort(~accepted, axis=-1, kind="stable")[:, :group]
        full = accepted.sum(axis=-1) >= group
        values[pending[full]] = np.take_along_axis(drawn, first, axis=-1)[full]
        pending, length = pending[~full], 2 * length
    return values.reshape(-1)[:size].reshape(shape)


def dropout_mask(
    shape: Sequence[int], rate: float, seed: int, counter: int, dtype: DTypeLike = "float32"
) -> np.ndarray:
    """Which cells `keras.layers.Dropout` keeps: u >= rate, for inputs of `dtype`. Returns booleans of this shape.

    (seed, counter) is the state of the layer's seed generator: the counter is 0 in the first training call and grows
    by one with each.
    """
    dtype = _real(dtype)
    return uniform(shape, seed, dtype, counter) >= dtype.type(rate)


def permutation(n: int, seed: int) -> np.ndarray:
    """The order of the n samples in every epoch of `fit(shuffle=True)` after `keras.utils.set_random_seed(seed)`.

    Fisher-Yates on 0..n-1: for i = 0..n-2 swap places i and i + word_i mod (n-i). Keras shuffles inside a dataset
    pipeline that TensorFlow seeds anew for each epoch, so all epochs, and all calls of fit, have the same order.
    """
    key = seed % SHUFFLE_MODULUS
    words = Stream(key=(key, 0), upper=(0 if key else SHUFFLE_MODULUS, 0)).words(max(n - 1, 0))
    partners = np.arange(n - 1) + words % np.arange(n, 1, -1)
    order = list(range(n))
    for i, j in enumerate(partners.tolist()):
        order[i], order[j] = order[j], order[i]
    return np.array(order, dtype=np.int64)


def _real(dtype: DTypeLike) -> np.dtype:
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"random numbers are drawn as float32 or float64 here; received dtype={dtype.name!r}")
    return dtype


def _unit_interval(words: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The words' low bits as the mantissa of a number in [1, 2), minus 1. (..., w) words -> (..., w or w/2) reals.

    float32 takes 23 bits of each word; float64 takes 20 bits of one word as the upper ones, and all of the next.
    """
    if dtype == np.float32:
        return (words & np.uint32(0x7FFFFF) | np.uint32(0x3F800000)).view(np.float32) - np.float32(1)
    upper = words[..., 0::2].astype(np.uint64) & np.uint64(0xFFFFF) | np.uint64(0x3FF00000)
    return (upper << HALF | words[..., 1::2]).view(np.float64) - 1.0


def _box_muller(uniforms: np.ndarray) -> np.ndarray:
    """Pairs (u1, u2) -> pairs sqrt(-2 log u1) (sin 2 pi u2, cos 2 pi u2), side by side as they came. Shape (..., 2k).

    float32 rounds where TensorFlow does, after each function; the functions are taken in float64, because the C library
    does so inside and rounds nearly always correctly.
    """
    dtype = uniforms.dtype
    u1 = np.maximum(uniforms[..., 0::2], dtype.type(SMALLEST_UNIFORM))
    angle = (2 * np.pi * uniforms[..., 1::2].astype(np.float64)).astype(dtype).astype(np.float64)
    log = np.log(u1.astype(np.float64)).astype(dtype)
    radius = np.sqrt(dtype.type(-2) * log)
    pair = [radius * np.sin(angle).astype(dtype), radius * np.cos(angle).astype(dtype)]
    return np.stack(pair, axis=-1).reshape(uniforms.shape)
