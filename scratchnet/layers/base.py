"""The layer: weights with named axes, a forward pass that returns what the backward pass needs, and nothing cached.

A layer is a transform (the part with the weights) and an activation behind it. Both directions are in the open, because
a check of a derivation compares in between: z, the pre-activations, and dz, the gradient by them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scratchnet import activations, initializers, regularizers
from scratchnet.registry import Entry, UnknownArgument, serialize

__all__ = ["Layer", "Saved", "Shape"]

Shape = tuple[int | None, ...]
"""A shape with the batch axis first, as None where it is not fixed."""

DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Saved:
    """What one forward pass leaves for its backward pass.

    x: the layer's input; z: the pre-activations; y: the output; terms: whatever else the transform's backward needs;
    updates: new values of non-trainable weights (moving averages), which the caller stores if it trains.
    """

    x: np.ndarray
    z: np.ndarray
    y: np.ndarray
    terms: Any = None
    updates: Mapping[str, np.ndarray] = field(default_factory=dict)


class Layer(Entry):
    """Base class. A subclass gives `transform` and `transform_backward`, and `build` where it has weights.

    weights: name -> array, in Keras's order; axes: name -> the meaning of each axis, such as ("in", "out").
    """

    family = "layer"
    example_shape: tuple[int, ...] = (7,)  # of one sample, for the examples
    activation: activations.ActivationFunction = activations.Linear()
    built_at_init = False  # where True, Keras writes no build_config
    takes_indices = False  # whether the input is integers, which have no gradient

    def __init__(self, name: str | None = None, trainable: bool = True, dtype: Any = None):
        self.name = name
        self.trainable = trainable
        self.dtype = dtype_name(dtype)
        self.weights: dict[str, np.ndarray] = {}
        self.axes: dict[str, tuple[str, ...]] = {}
        self.non_trainable: set[str] = set()
        self.input_shape: Shape | None = None

    def build(self, input_shape: Shape) -> None:
        """Create the weights for inputs of this shape."""

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The shape of the output for inputs of this shape."""
        return input_shape

    def transform(self, x: np.ndarray, training: bool) -> tuple[np.ndarray, Any, Mapping[str, np.ndarray]]:
        """(z, terms, updates) for the input x; see `Saved`."""
        raise NotImplementedError

    def transform_backward(self, saved: Saved, dz: np.ndarray) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
        """(dx, {weight name: gradient}) for the gradient dz by the pre-activations."""
        raise NotImplementedError

    def forward(self, x: np.ndarray, training: bool = False) -> tuple[np.ndarray, Saved]:
        """The output y, and what `backward` needs."""
        z, terms, updates = self.transform(x, training)
        y = self.outer_activation.forward(z)
        return y, Saved(x, z, y, terms, updates)

    def backward(self, saved: Saved, dy: np.ndarray) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
        """(dx, {weight name: gradient}) for the upstream gradient dy."""
        return self.transform_backward(saved, self.outer_activation.backward(saved.z, saved.y, dy))

    def ties(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Where an output is the largest of several inputs, and some of them are equal: (output, input), flat indices
        into z and x. For each such input they list every output that it is the largest of, in the order of z, and of x
        for each. None for a layer that does not choose."""
        return None

    def store(self, updates: Mapping[str, np.ndarray]) -> None:
        """Keep what a training pass returned as `Saved.updates`."""
        self.weights.update(updates)

    def keeps_tensor(self, training: bool) -> bool:
        """Whether the output *is* the input, so that a loss behind it still finds cached logits."""
        return False

    @property
    def outer_activation(self) -> activations.ActivationFunction:
        """The activation behind the transform: linear for a layer that has its own inside, in a recurrence."""
        return self.activation

    @property
    def trainable_weights(self) -> dict[str, np.ndarray]:
        """The weights that gradients are returned for and that training changes."""
        return {n: w for n, w in self.weights.items() if self.trainable and n not in self.non_trainable}

    def moving_weights(self, training: bool) -> tuple[str, ...]:
        """The weights that a forward pass returns new values of, as `Saved.updates`: moving averages, in training."""
        return tuple(n for n in self.weights if n in self.non_trainable) if training and self.trainable else ()

    def regularizer_of(self, weight: str) -> regularizers.Regularizer | None:
        """The penalty on this weight: the constructor's argument `<weight>_regularizer`."""
        return getattr(self, f"{weight}_regularizer", None)

    def add_weight(
        self,
        name: str,
        shape: tuple[int, ...],
        initializer: initializers.Initializer,
        axes: tuple[str, ...],
        trainable: bool = True,
    ) -> None:
        """Create one weight; `axes` names its axes, which is what a port between layouts goes by."""
        self.weights[name] = initializer(shape, dtype=self.dtype or DTYPES[0])
        self.axes[name] = axes
        if not trainable:
            self.non_trainable.add(name)

    def get_config(self) -> dict[str, Any]:
        """Keras's config of this layer."""
        config = super().get_config()
        base = {name: config.pop(name) for name in ("name", "trainable")}
        return {**base, "dtype": dtype_policy(config.pop("dtype") or DTYPES[0]), **config}

    def to_json(self) -> dict[str, Any]:
        """The entry of this layer in a Sequential's config."""
        if self.input_shape is None or self.built_at_init:
            return dict(serialize(self))
        return {**serialize(self), "build_config": {"input_shape": list(self.input_shape)}}


def dtype_policy(name: str) -> dict[str, Any]:
    """Keras's JSON of a dtype policy."""
    return {"module": "keras", "class_name": "DTypePolicy", "config": {"name": name}, "registered_name": None}


def dtype_name(dtype: Any) -> str | None:
    """The dtype of a policy: a name, or Keras's JSON of a policy. Mixed and half precision are not scratchnet's."""
    if isinstance(dtype, Mapping):
        dtype = dtype.get("config", {}).get("name")
    if dtype is None:
        return None
    name = dtype if isinstance(dtype, str) else np.dtype(dtype).name
    if name not in DTYPES:
        raise UnknownArgument(f"dtype {name!r} is not supported; known: {', '.join(DTYPES)}")
    return name
