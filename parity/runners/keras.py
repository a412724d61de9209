"""The reference: Keras on TensorFlow, every gradient from `tf.GradientTape`, eager, in `tf.function`, or under XLA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from parity import trace
from parity.errors import UsageError
from parity.runners import tensorflow
from parity.spec import Spec
from parity.trace import Trace, Weights

__all__ = ["MODES", "run", "weights_of"]

MODES = ("eager", "function", "xla")


def run(spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, mode: str = "eager") -> Trace:
    """One step of a fresh Keras model with these weights: every tensor of the forward pass, the loss that `fit` would
    see, and the gradients by all of them."""
    tf, keras = tensorflow.imported()
    with tensorflow.precision(spec.dtype):
        model = _build(keras, spec, weights)
        entries = keras.saving.serialize_keras_object(model)["config"]["layers"]
        described = [trace.Layer.from_config(entry, ()) for entry in entries if entry["class_name"] != "InputLayer"]
        step = _Step(tf, model, described, spec)
        call = step if mode == "eager" else tf.function(step, jit_compile=mode == "xla", autograph=False)
        tensors = call(tf.constant(x, dtype=spec.dtype), tf.constant(y))
        arrays = {name: np.asarray(tensor) for name, tensor in tensors.items()}
        conditions = {"runner": "keras", "mode": mode, "dtype": spec.dtype, **tensorflow.versions()}
    return Trace({**arrays, trace.INPUT: x}, conditions)


def weights_of(model: Any) -> Weights:
    """Copies of the weights of a live Keras model, by `<layer>/<weight>`."""
    return {
        f"{layer.name}/{variable.name}": np.array(variable.numpy())
        for layer in model.layers
        for variable in layer.weights
    }


class _Step:
    """The computation that is recorded; as an object, because `tf.function` calls it too."""

    def __init__(self, tf: Any, model: Any, layers: list[trace.Layer], spec: Spec):
        self.tf, self.model, self.layers, self.training = tf, model, layers, spec.training
        self.optimizer = model.optimizer if spec.optimizer is not None else None
        if self.optimizer is not None:
            self.optimizer.build(model.trainable_variables)  # variables cannot be made inside tf.function

    def __call__(self, x: Any, y: Any) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        with self.tf.GradientTape() as tape:
            tape.watch(x)
            h = x
            for layer, named in zip(self.model.layers, self.layers, strict=True):
                original = getattr(layer, "activation", None)
                if named.has_pre_activation:
                    layer.activation = _watched(original, seen, trace.pre_activation(named.name))
                h = layer(h, training=self.training) if layer._call_has_training_arg else layer(h)
                if named.has_pre_activation:
                    layer.activation = original
                seen[trace.output(named.name)] = h
            loss = self.model.compute_loss(x=x, y=y, y_pred=h, training=self.training)
        variables = {
            f"{layer.name}/{variable.name}": variable.value
            for layer in self.model.layers
            for variable in layer.trainable_weights
        }
        sources = {**seen, **variables, trace.INPUT: x}
        gradients = tape.gradient(loss, sources)
        found = {trace.gradient(name): _dense(self.tf, g) for name, g in gradients.items() if g is not None}
        return {**seen, trace.LOSS: loss, **found, **self._updated(gradients)}

    def _updated(self, gradients: Mapping[str, Any]) -> dict[str, Any]:
        """One step of the optimizer, with the gradients as the tape gives them: slices are not added up."""
        if self.optimizer is None:
            return {}
        paths = {
            f"{layer.name}/{variable.name}": variable
            for layer in self.model.layers
            for variable in layer.trainable_weights
            if gradients[f"{layer.name}/{variable.name}"] is not None
        }
        self.optimizer.apply([gradients[name] for name in paths], list(paths.values()))
        return {trace.updated(name): variable.value + 0 for name, variable in paths.items()}


def _watched(activation: Any, seen: dict[str, Any], name: str) -> Any:
    def call(z: Any) -> Any:
        seen[name] = z
        return activation(z)

    return call


def _dense(tf: Any, gradient: Any) -> Any:
    """An embedding's gradient comes as slices, with repeated rows; added up it is the gradient by the table."""
    return tf.convert_to_tensor(gradient) if isinstance(gradient, tf.IndexedSlices) else gradient


def _build(keras: Any, spec: Spec, weights: Mapping[str, np.ndarray]) -> Any:
    try:
        model = keras.Sequential.from_config(spec.config)
        loss = keras.losses.get(spec.loss) if isinstance(spec.loss, Mapping) else spec.loss
        model.compile(optimizer=keras.optimizers.get(spec.optimizer or "sgd"), loss=loss, jit_compile=False)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{spec.name}: Keras cannot build this network: {str(error).splitlines()[0]}") from error
    for layer in model.layers:
        for variable in layer.weights:
            variable.assign(weights[f"{layer.name}/{variable.name}"])
    return model
