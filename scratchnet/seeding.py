"""The global seed, as `keras.utils.set_random_seed` sets it, and the seeds that unseeded objects draw."""

import random

import numpy as np

__all__ = ["fresh_seed", "global_seed", "set_random_seed"]

LARGEST_FRESH_SEED = 10**9

_global_seed: int | None = None


def set_random_seed(seed: int) -> None:
    """Make everything that follows reproducible, and equal to Keras after its `set_random_seed(seed)`.

    Seeds Python's `random`, from which unseeded initializers and dropout layers draw their seeds, and NumPy's global
    generator, and remembers the seed: `fit(shuffle=True)` then uses `philox.permutation(n, seed)` in every epoch.
    The seed is at most 2^32 - 1, because NumPy's global generator takes no more.
    """
    global _global_seed
    if not isinstance(seed, int):
        raise ValueError(f"expected the seed as an integer; received {seed!r} of type {type(seed).__name__}")
    np.random.seed(seed)  # first, because it refuses what is out of range
    random.seed(seed)
    _global_seed = seed


def global_seed() -> int | None:
    """The seed of the last `set_random_seed`; None if there was none."""
    return _global_seed


def fresh_seed() -> int:
    """The seed that Keras draws, from Python's `random`, for an object that was given none."""
    return random.randint(1, LARGEST_FRESH_SEED)
