"""A layer that scratchnet does not have, in a chain of scratchnet's: Keras itself computes it, forward and back.

So that mistakes in the layers around it can be planted and recognised, and the ones that any layer can have in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from parity.runners import tensorflow
from scratchnet import activations, registry
from scratchnet.layers import Layer, Saved
from scratchnet.layers.base import Shape

__all__ = ["layers_of"]

KEPT = 64  # results of backward passes: most mistakes that are tried leave this layer's inputs as they are


def layers_of(config: Mapping[str, Any]) -> dict[str, type[Layer]]:
    """Class name -> a class that stands in for it, for each entry of a Sequential's config that scratchnet refuses."""
    found: dict[str, type[Layer]] = {}
    for entry in config["layers"]:
        if entry["class_name"] != "InputLayer":
            try:
                registry.deserialize("layer", entry)
            except (ValueError, TypeError, KeyError):
                name = entry["class_name"]
                found[name] = type(name, (_KerasLayer,), {"registered_name": name})
    return found


class _KerasLayer(Layer):
    """One layer of Keras's, in float64. Its activation is taken out of it where scratchnet has that one."""

    def __init__(self, config: Mapping[str, Any]):
        super().__init__(name=config["name"], trainable=config.get("trainable", True))
        self.config = dict(config)
        self.results: dict[bytes, tuple[Any, dict[str, Any]]] = {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> _KerasLayer:
        return cls(config)

    def build(self, input_shape: Shape) -> None:
        _, keras = tensorflow.imported()
        config = {**self.config, "dtype": "float64"}
        activation = config.get("activation")
        if activation not in (None, "linear") and "recurrent_activation" not in config and "units" not in config:
            self.activation = activations.get(activation)
            config["activation"] = "linear"
        with tensorflow.precision("float64"):
            entry = {"module": "keras.layers", "class_name": self.registered_name, "config": config}
            self.layer = keras.saving.deserialize_keras_object(entry)
            self.layer.build(input_shape)
            self.weights = {variable.name: np.array(variable.numpy()) for variable in self.layer.weights}
            self.non_trainable = {variable.name for variable in self.layer.non_trainable_variables}

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(self.layer.compute_output_shape(input_shape))

    def transform(self, x: np.ndarray, training: bool) -> tuple[np.ndarray, Any, Mapping[str, np.ndarray]]:
        return np.asarray(self._called(x, training)), training, {}

    def transform_backward(self, saved: Saved, dz: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        key = saved.x.tobytes() + dz.tobytes()
        if key not in self.results:
            if len(self.results) == KEPT:
                self.results.clear()
            self.results[key] = self._differentiated(saved, dz)
        return self.results[key]

    def _differentiated(self, saved: Saved, dz: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        tf, _ = tensorflow.imported()
        x = tf.constant(saved.x)
        with tensorflow.precision("float64"), tf.GradientTape() as tape:
            tape.watch(x)
            z = self._called(x, saved.terms)
        variables = {variable.name: variable.value for variable in self.layer.trainable_weights}
        dx, grads = tape.gradient(z, (x, variables), output_gradients=tf.constant(dz))
        return np.asarray(dx), {name: np.asarray(tf.convert_to_tensor(g)) for name, g in grads.items()}

    def _called(self, x: Any, training: bool) -> Any:
        for variable in self.layer.weights:
            variable.assign(self.weights[variable.name])
        with tensorflow.precision("float64"):
            return self.layer(x, training=training) if self.layer._call_has_training_arg else self.layer(x)

    def to_json(self) -> dict[str, Any]:
        return {"module": "keras.layers", "class_name": self.registered_name, "config": self.config}
