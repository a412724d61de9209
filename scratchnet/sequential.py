"""The forward chain and the backward chain through a stack of layers, and its form as Keras's config."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from scratchnet import registry
from scratchnet.layers.base import Layer, Saved, Shape, dtype_name, dtype_policy
from scratchnet.losses import Loss
from scratchnet.registry import UnknownArgument

__all__ = ["BackwardPass", "Chain", "ForwardPass", "LayerGradients"]


@dataclass(frozen=True)
class ForwardPass:
    """One pass up: the input, and what each layer saved."""

    x: np.ndarray
    saved: tuple[Saved, ...]
    logits_at: int | None  # the layer whose pre-activations a cross-entropy finds cached on the output

    @property
    def output(self) -> np.ndarray:
        return self.saved[-1].y if self.saved else self.x

    @property
    def logits(self) -> np.ndarray | None:
        return None if self.logits_at is None else self.saved[self.logits_at].z


@dataclass(frozen=True)
class LayerGradients:
    """The gradients of one layer: by its output, its pre-activations and its weights. dy is None behind the logits:
    the loss then does not pass through the outputs."""

    dy: np.ndarray | None
    dz: np.ndarray | None
    weights: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class BackwardPass:
    """One pass down: the gradients of each layer, in the order of the layers, and the gradient by the input."""

    layers: tuple[LayerGradients, ...]
    dx: np.ndarray | None  # None where the input is indices


class Chain:
    """A stack of layers: y = layer_n(... layer_1(x)).

    Layers without a name get Keras's: the class in snake case, and a counter from the second one on.
    """

    def __init__(self, layers: Iterable[Layer] = (), name: str = "sequential", dtype: Any = "float32"):
        self.name = name
        self.dtype = dtype_name(dtype) or "float32"
        self.layers: list[Layer] = []
        self.input_shape: Shape | None = None
        self.input_name = "input_layer"
        self.built = False
        for layer in layers:
            self.add(layer)

    def add(self, layer: Layer) -> None:
        """Append a layer; the name, if it has none, and the dtype, if it has none, are given here."""
        taken = {other.name for other in self.layers}
        if layer.name is None:
            layer.name = _free_name(_snake_case(layer.registered_name), taken)
        elif layer.name in taken:
            raise ValueError(f"two layers are called {layer.name!r}; names in a Sequential must be different")
        layer.dtype = layer.dtype or self.dtype
        if layer.dtype != self.dtype:
            raise UnknownArgument(
                f"layer {layer.name!r} is {layer.dtype} in a {self.dtype} network; mixed dtypes are not supported"
            )
        self.layers.append(layer)
        self.built = False

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Create the weights, for inputs of this shape with the batch axis first."""
        self.input_shape = shape = (None, *input_shape[1:])
        for layer in self.layers:
            layer.input_shape = shape
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
        self.output_shape = shape
        self.built = True

    def forward(self, x: np.ndarray, training: bool = False) -> ForwardPass:
        """Run the layers in order and keep what each saved. x: (batch, ...)."""
        x = self._input(x)
        saved: list[Saved] = []
        y = x
        for layer in self.layers:
            y, kept = layer.forward(y, training)
            saved.append(kept)
        return ForwardPass(x, tuple(saved), self.logits_at(training))

    def backward(self, passed: ForwardPass, loss: Loss, y_true: np.ndarray, sample_weight: Any = None) -> BackwardPass:
        """Run the layers in reverse order: the gradient of the loss (and of the penalties) by everything."""
        dy: np.ndarray | None = None
        dz: np.ndarray | None = None
        d: np.ndarray | None = loss.backward(y_true, passed.output, passed.logits, sample_weight)
        by_logits = loss.uses(passed.logits)
        gradients: list[LayerGradients] = []
        for index in reversed(range(len(self.layers))):
            layer, saved = self.layers[index], passed.saved[index]
            if d is None:
                raise ValueError(f"{self.layers[index + 1].name} takes indices, so it must be the first layer")
            if by_logits and passed.logits_at is not None and index > passed.logits_at:
                gradients.append(LayerGradients(None, None, {}))
                continue
            if by_logits and index == passed.logits_at:
                dy, dz = None, d
            else:
                dy, dz = d, layer.outer_activation.backward(saved.z, saved.y, d)
            d, grads = layer.transform_backward(saved, dz)
            gradients.append(LayerGradients(dy, dz, penalized(layer, grads)))
        return BackwardPass(tuple(reversed(gradients)), d)

    def logits_at(self, training: bool = False) -> int | None:
        """The layer whose pre-activations Keras hangs on the output: the last one that is not a mere pass-through, if
        its activation caches logits."""
        for index in reversed(range(len(self.layers))):
            if not self.layers[index].keeps_tensor(training):
                return index if self.layers[index].outer_activation.caches_logits else None
        return None

    def penalty(self) -> np.ndarray:
        """The sum of all regularizers, as one number."""
        total = np.zeros((), self.dtype)
        for layer in self.layers:
            for name, weight in layer.trainable_weights.items():
                if (regularizer := layer.regularizer_of(name)) is not None:
                    total = total + regularizer.forward(weight)
        return total

    def get_weights(self) -> list[np.ndarray]:
        """Copies of all weights, in Keras's order."""
        self._require_built("get_weights")
        return [weight.copy() for layer in self.layers for weight in layer.weights.values()]

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Set all weights from arrays in Keras's order; every shape is checked before the first one is set."""
        self._require_built("set_weights")
        places = [(layer, name) for layer in self.layers for name in layer.weights]
        if len(weights) != len(places):
            raise ValueError(f"set_weights: expected {len(places)} arrays; received {len(weights)}")
        arrays = [np.array(array, dtype=self.dtype) for array in weights]
        for (layer, name), array in zip(places, arrays, strict=True):
            if array.shape != layer.weights[name].shape:
                expected = ", ".join(
                    f"{a}={n}" for a, n in zip(layer.axes[name], layer.weights[name].shape, strict=True)
                )
                raise ValueError(f"{layer.name}/{name}: expected ({expected}); received {array.shape}")
        for (layer, name), array in zip(places, arrays, strict=True):
            layer.weights[name] = array

    def count_params(self) -> int:
        """The number of weights, trainable or not."""
        return sum(weight.size for layer in self.layers for weight in layer.weights.values())

    def get_config(self) -> dict[str, Any]:
        """Keras's own Sequential config: `keras.Sequential.from_config` takes it."""
        layers = [layer.to_json() for layer in self.layers]
        config = {"name": self.name, "trainable": True, "dtype": dtype_policy(self.dtype), "layers": layers}
        if self.input_shape is None:
            return config
        layers.insert(0, _input_layer(self.input_name, self.input_shape, self.dtype))
        return {**config, "build_input_shape": list(self.input_shape)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, type[Layer]] | None = None) -> Self:
        """Build from the config of a Keras Sequential; weights are created when it carries the input's shape.

        custom_objects: class name -> class of a layer that is not in the registry, or is to be taken for the one there.
        """
        custom = custom_objects or {}
        dtype, shape, layers = config.get("dtype"), config.get("build_input_shape"), []
        input_name = "input_layer"
        for entry in config["layers"]:
            if entry["class_name"] == "InputLayer":
                shape = entry["config"].get("batch_shape") or entry["config"].get("batch_input_shape")
                dtype = dtype or entry["config"].get("dtype")
                input_name = entry["config"].get("name", input_name)
            else:
                known = custom.get(entry["class_name"])
                layers.append(
                    registry.deserialize("layer", entry) if known is None else known.from_config(entry["config"])
                )
        chain = cls(layers, name=config.get("name", "sequential"), dtype=dtype or "float32")
        chain.input_name = input_name
        if shape is not None:
            chain.build(tuple(shape))
        return chain

    def summary(self) -> str:
        """A table of the layers, their output shapes and their numbers of weights."""
        self._require_built("summary")
        rows = [("Layer (type)", "Output Shape", "Param #")]
        shape = self.input_shape
        assert shape is not None
        for layer in self.layers:
            shape = layer.compute_output_shape(shape)
            count = sum(weight.size for weight in layer.weights.values())
            rows.append((f"{layer.name} ({layer.registered_name})", str(shape), f"{count:,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows]
        rule = "-" * len(lines[0])
        return "\n".join(
            [f'Model: "{self.name}"', lines[0], rule, *lines[1:], rule, f"Total params: {self.count_params():,}"]
        )

    def _input(self, x: np.ndarray) -> np.ndarray:
        x = x if hasattr(x, "dtype") and x.dtype == self.dtype else np.asarray(x, dtype=self.dtype)
        if not self.built:
            self.build(x.shape)
        assert self.input_shape is not None
        if len(x.shape) != len(self.input_shape) or x.shape[1:] != self.input_shape[1:]:
            raise ValueError(f"{self.name}: expected inputs of shape {self.input_shape}; received {x.shape}")
        return x

    def _require_built(self, what: str) -> None:
        if not self.built:
            raise ValueError(f"{what}: the network has no weights yet; call build((None, ...)) or run it on data first")


def penalized(layer: Layer, grads: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The gradients of a layer's trainable weights, with the derivative of each weight's penalty added."""
    result = {}
    for name, weight in layer.trainable_weights.items():
        regularizer = layer.regularizer_of(name)
        result[name] = grads[name] if regularizer is None else grads[name] + regularizer.backward(weight)
    return result


def _input_layer(name: str, shape: Shape, dtype: str) -> dict[str, Any]:
    config = {
        "batch_shape": list(shape),
        "dtype": dtype,
        "sparse": False,
        "ragged": False,
        "name": name,
        "optional": False,
    }
    return {"module": "keras.layers", "class_name": "InputLayer", "config": config, "registered_name": None}


def _snake_case(name: str) -> str:
    """Keras's rule: Conv2D -> conv2d, LeakyReLU -> leaky_re_lu, GlobalMaxPooling2D -> global_max_pooling2d."""
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))).lower()


def _free_name(stem: str, taken: set[str | None]) -> str:
    name, count = stem, 0
    while name in taken:
        count += 1
        name = f"{stem}_{count}"
    return name
