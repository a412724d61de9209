"""Dropout: cells that are left out at random, in training only, with the very masks that Keras draws."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scratchnet import philox
from scratchnet.layers.base import Layer, Saved
from scratchnet.registry import register
from scratchnet.seeding import fresh_seed

__all__ = ["Dropout"]


@register("Dropout")
class Dropout(Layer):
    """z = x / (1 - rate) where u >= rate, else 0;  dx = dz / (1 - rate) in the same cells, else 0.

    x, z: (batch, ...); u: uniform numbers in [0, 1), in the input's shape or in noise_shape, where None stands for the
    input's size and 1 drops whole slices. In inference, and with rate 0, the output *is* the input.

    `seed_generator_state` is Keras's pair (seed, counter), no weight there and none here: u is a function of it, so a
    pass that is run again drops the same cells. A training pass returns the next state as an update, and `store` keeps
    it. A layer without a seed draws one when it is made, unless its rate is 0. With rate 1 nothing is left and nothing
    is drawn.
    """

    built_at_init = True
    examples = ({"rate": 0.4, "seed": 7}, {"rate": 0.0}, {"rate": 1.0, "seed": 7})

    def __init__(
        self, rate: float, noise_shape: Sequence[int | None] | None = None, seed: int | None = None, **base: Any
    ):
        super().__init__(**base)
        if not 0 <= rate <= 1:
            raise ValueError(f"Dropout: rate must be in [0, 1]; received {rate!r}")
        if seed is not None and not isinstance(seed, int):
            raise ValueError(f"Dropout: expected seed as an integer or None; received {seed!r}")
        self.rate = rate
        self.noise_shape = None if noise_shape is None else tuple(noise_shape)
        self.seed = seed
        self.seed_generator_state: np.ndarray | None = None
        if rate > 0:
            self.seed_generator_state = np.array([fresh_seed() if seed is None else seed, 0])

    def transform(self, x: np.ndarray, training: bool) -> tuple[np.ndarray, Any, dict[str, np.ndarray]]:
        if self.keeps_tensor(training):
            return x, None, {}
        kept, updates = self._draw(x)
        return self._kept(x, kept), kept, updates

    def transform_backward(self, saved: Saved, dz: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        return (dz if saved.terms is None else self._kept(dz, saved.terms)), {}

    def keeps_tensor(self, training: bool) -> bool:
        return not training or self.rate == 0

    def store(self, updates: Mapping[str, np.ndarray]) -> None:
        """Keep what a training pass returned as updates: the next pass then draws other cells."""
        self.seed_generator_state = updates.get("seed_generator_state", self.seed_generator_state)

    def _draw(self, x: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(which cells are kept, the update). In the layer's dtype: the same state gives other numbers in another."""
        shape = x.shape if self.noise_shape is None else self._concrete(x.shape)
        if self.rate == 1:
            return np.zeros(shape, bool), {}
        assert self.seed_generator_state is not None
        seed, counter = self.seed_generator_state.tolist()
        kept = philox.dropout_mask(shape, self.rate, seed, counter, self.dtype or x.dtype)
        return kept, {"seed_generator_state": np.array([seed, counter + 1])}

    def _concrete(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        assert self.noise_shape is not None
        if len(self.noise_shape) != len(shape):
            raise ValueError(
                f"{self.name}: noise_shape needs one entry for each axis of the input, shape {shape}; "
                f"received {self.noise_shape}"
            )
        return tuple(size if given is None else given for given, size in zip(self.noise_shape, shape, strict=True))

    def _kept(self, values: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """Scaled where kept, 0 elsewhere: a choice, not a product, so that a dropped NaN is 0."""
        factor = 1 / (1 - self.rate) if self.rate < 1 else 0.0
        return np.where(kept, values * factor, np.zeros_like(values))
