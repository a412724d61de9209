"""Embedding: a table of vectors, looked up by index."""

from typing import Any

import numpy as np

from scratchnet import initializers, regularizers
from scratchnet.layers.base import Layer, Saved, Shape
from scratchnet.registry import register

__all__ = ["Embedding"]


@register("Embedding")
class Embedding(Layer):
    """z = E[x];  x: (batch, ...) indices, E: (index, out), z: (batch, ..., out).

    dE: row i is the sum of dz over all places that hold index i. There is no dx, since an index cannot move a little:
    `transform_backward` returns None for it. Keras keeps dE as a list of rows, an index as often as it occurs;
    optimizers that square gradients then square each row by itself, not the sum.

    Real numbers are truncated to indices, because a Sequential casts its input to its own dtype; a negative index
    counts from the end; both as in Keras.
    """

    neutral = {  # in the order of Keras's config
        "activity_regularizer": None,
        "embeddings_constraint": None,
        "mask_zero": False,
        "quantization_config": None,
        "lora_rank": None,
        "lora_alpha": None,
    }
    unwritten = ("lora_rank", "lora_alpha")
    takes_indices = True
    example_shape = (6,)
    examples = (
        {"input_dim": 5, "output_dim": 3},
        {"input_dim": 4, "output_dim": 2, "embeddings_regularizer": "l2"},
    )

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        **base: Any,
    ):
        super().__init__(**base)
        for argument, size in (("input_dim", input_dim), ("output_dim", output_dim)):
            if not isinstance(size, int) or isinstance(size, bool) or size <= 0:
                raise ValueError(f"Embedding: {argument} must be a positive integer; received {size!r}")
        self.input_dim = input_dim
        self.output_dim = output_dim
        self.embeddings_initializer = initializers.get(embeddings_initializer)
        self.embeddings_regularizer = regularizers.get(embeddings_regularizer)

    def build(self, input_shape: Shape) -> None:
        shape = (self.input_dim, self.output_dim)
        self.add_weight("embeddings", shape, self.embeddings_initializer, ("index", "out"))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape, self.output_dim)

    def transform(self, x: np.ndarray, training: bool) -> tuple[np.ndarray, Any, dict[str, np.ndarray]]:
        indices = x.astype(np.int64)  # towards zero
        n = self.input_dim
        if indices.size and not -n <= indices.min() <= indices.max() < n:
            raise ValueError(
                f"{self.name}: indices must be in [{-n}, {n}); received {indices.min()} to {indices.max()}"
            )
        return self.weights["embeddings"][indices], indices % n, {}

    def transform_backward(self, saved: Saved, dz: np.ndarray) -> tuple[None, dict[str, np.ndarray]]:
        rows = dz.reshape(-1, self.output_dim)
        return None, {"embeddings": sum_by_index(rows, saved.terms.reshape(-1), self.input_dim)}


def sum_by_index(rows: np.ndarray, index: np.ndarray, count: int) -> np.ndarray:
    """(n, k) rows -> (count, k): row i is the sum of the rows whose index is i, 0 where there is none. index: (n,).

    Equal indices are brought together and summed in one go, in float64 as `sum_rows` does.
    """
    order = np.argsort(index, kind="stable")
    found, starts = np.unique(index[order], return_index=True)
    sums = np.add.reduceat(rows[order], starts, axis=0, dtype=np.float64).astype(rows.dtype)
    place = np.minimum(np.searchsorted(found, np.arange(count)), len(found) - 1)
    spread = sums[place]
    return np.where((found[place] == np.arange(count))[:, np.newaxis], spread, np.zeros_like(spread))
