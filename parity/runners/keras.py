"""The reference: Keras on TensorFlow, every gradient from `tf.GradientTape`, eager, in `tf.function`, or under XLA."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from parity import trace
from parity.errors import UsageError
from parity.runners import earlier, scratch, tensorflow
from parity.spec import Spec
from parity.trace import Trace, Weights

__all__ = ["MODES", "described", "loss_config", "run", "trained", "weights_of"]

MODES = ("eager", "function", "xla")

SCOPE = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\>-]*")
"""The names that `tf.name_scope` takes in a graph, without the "/" that Keras refuses in a layer's name. Keras opens a
scope for each layer, loss and optimizer, so in `tf.function` a layer called _x or one of two words raises."""

UNPRINTED = re.compile("\x1b\\[[0-9]*m")  # Keras prints its messages bold


def run(spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, mode: str = "eager") -> Trace:
    """One step of a fresh Keras model with these weights: every tensor of the forward pass, the loss that `fit` would
    see, and the gradients by all of them. Where TensorFlow refuses a name, the model runs under others."""
    names = _other_names(spec)
    found = _run(_renamed(spec, names), _keyed(weights, names), x, y, mode)
    return replace(found, tensors=_keyed(found.tensors, {new: old for old, new in names.items()}))


def trained(spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, steps: int) -> list[dict[str, np.ndarray]]:
    """Steps of the optimizer on one batch, one behind the other: for each the loss in front of it, and all weights,
    with moving averages, behind it."""
    names = _other_names(spec)
    spec, own = _renamed(spec, names), {new: old for old, new in names.items()}
    tf, keras = tensorflow.imported()
    found = []
    with tensorflow.precision(spec.dtype):
        model = _build(keras, spec, _keyed(weights, names))
        samples, labels = tf.constant(x, dtype=spec.dtype), tf.constant(y)
        for _ in range(steps):
            with tf.GradientTape() as tape:
                loss = model.compute_loss(x=samples, y=labels, y_pred=model(samples, training=True), training=True)
            variables = model.trainable_variables
            model.optimizer.apply(tape.gradient(loss, [variable.value for variable in variables]), variables)
            found.append({trace.LOSS: np.asarray(loss), **_keyed(weights_of(model), own)})
    return found


def _other_names(spec: Spec) -> dict[str, str]:
    """Layer -> the name it runs under: numbers for all where one is refused, so that no two get the same."""
    own = [entry["config"]["name"] for entry in spec.config["layers"] if "name" in entry["config"]]
    if all(SCOPE.fullmatch(name) for name in own):
        return {}
    return {name: f"layer_{index}" for index, name in enumerate(own)}


def _renamed(spec: Spec, names: Mapping[str, str]) -> Spec:
    def under(entry: Any, name: str) -> Any:
        return {**entry, "config": {**entry["config"], "name": name}}

    def accepted(entry: Any, name: str) -> Any:
        settings = entry.get("config") if isinstance(entry, Mapping) else None
        own = settings.get("name") if isinstance(settings, Mapping) else None
        return entry if own is None or SCOPE.fullmatch(own) else under(entry, name)

    layers = [
        under(entry, names[own]) if (own := entry["config"].get("name")) in names else entry
        for entry in spec.config["layers"]
    ]
    config = {**spec.config, "layers": layers}
    return replace(spec, config=config, loss=accepted(spec.loss, "loss"), optimizer=accepted(spec.optimizer, "step"))


def _keyed(arrays: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Arrays by `<layer>/<tensor>`, with the layers under other names."""
    keyed = {}
    for name, array in arrays.items():
        layer, slash, tensor = name.rpartition("/")
        keyed[f"{names.get(layer, layer)}{slash}{tensor}"] = array
    return keyed


def _run(spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, mode: str) -> Trace:
    tf, keras = tensorflow.imported()
    with tensorflow.precision(spec.dtype):
        model = _build(keras, spec, weights)
        entries = keras.saving.serialize_keras_object(model)["config"]["layers"]
        described = [trace.Layer.from_config(entry, ()) for entry in entries if entry["class_name"] != "InputLayer"]
        step = _Step(tf, model, described, spec)
        call = step if mode == "eager" else tf.function(step, jit_compile=mode == "xla", autograph=False)
        try:
            tensors = call(tf.constant(x, dtype=spec.dtype), tf.constant(y))
        except (tf.errors.OpError, TypeError, ValueError) as error:  # Keras has no common one
            said = " ".join(UNPRINTED.sub("", str(error)).split())
            raise UsageError(
                f"{spec.name}: Keras {keras.__version__} cannot run this network in {spec.dtype}, {mode}: {said}"
            ) from error
        arrays = {name: np.asarray(tensor) for name, tensor in tensors.items()}
        conditions = {"runner": "keras", "mode": mode, "dtype": spec.dtype, **tensorflow.versions()}
    return Trace({**arrays, trace.INPUT: x}, conditions)


def described(spec: Spec) -> scratch.Network:
    """What has to be known of a network with layers that only Keras has."""
    _, keras = tensorflow.imported()
    with tensorflow.precision(spec.dtype):
        model = _build(keras, spec, None)
        entries = keras.saving.serialize_keras_object(model)["config"]["layers"]
        named = [
            trace.Layer.from_config(entry, tuple(v.name for v in layer.trainable_weights))
            for entry, layer in zip([e for e in entries if e["class_name"] != "InputLayer"], model.layers, strict=True)
        ]
        return scratch.Network(
            name=spec.name,
            layers=tuple(named),
            weights=weights_of(model),
            weight_names={layer.name: tuple(v.name for v in layer.weights) for layer in model.layers},
            input_shape=tuple(model.input_shape[1:]),
            output_shape=tuple(model.output_shape[1:]),
            indices=model.layers[0].input_dim if type(model.layers[0]).__name__ == "Embedding" else None,
            drops=False,
            labels=scratch.labels(spec.loss),
        )


def weights_of(model: Any) -> Weights:
    """Copies of the weights of a live Keras model, by `<layer>/<weight>`."""
    return {
        f"{layer.name}/{variable.name}": np.array(variable.numpy())
        for layer in model.layers
        for variable in layer.weights
    }


def loss_config(loss: Any) -> Any:
    """The config of an object or a function of Keras's, with the arguments that Keras itself leaves out of it: a saved
    `Huber(delta=0.3)` comes back with a delta of 1."""
    _, keras = tensorflow.imported()
    config = keras.saving.serialize_keras_object(loss)
    taken = inspect.signature(type(loss)).parameters
    lost = {name: value for name, value in getattr(loss, "_fn_kwargs", {}).items() if name in taken}
    return {**config, "config": {**config["config"], **lost}} if lost else config


class _Step:
    """The computation that is recorded; as an object, because `tf.function` calls it too."""

    def __init__(self, tf: Any, model: Any, layers: list[trace.Layer], spec: Spec):
        self.tf, self.model, self.layers, self.training = tf, model, layers, spec.training
        self.optimizer = model.optimizer if spec.optimizer is not None else None
        if self.optimizer is not None:
            self.optimizer.build(model.trainable_variables)  # variables cannot be made inside tf.function

    def __call__(self, x: Any, y: Any) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        moved: dict[str, Any] = {}
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
                moved |= self._moved(layer)
            loss = self.model.compute_loss(x=x, y=y, y_pred=h, training=self.training)
        variables = {
            f"{layer.name}/{variable.name}": variable.value
            for layer in self.model.layers
            for variable in layer.trainable_weights
        }
        sources = {**seen, **variables, trace.INPUT: x}
        gradients = tape.gradient(loss, sources)
        found = {trace.gradient(name): _dense(self.tf, g) for name, g in gradients.items() if g is not None}
        return {**seen, **moved, trace.LOSS: loss, **found, **self._updated(gradients)}

    def _moved(self, layer: Any) -> dict[str, Any]:
        """What the forward pass just made of the layer's moving averages. A frozen layer runs as in inference; the
        states of seed generators are none of its weights."""
        moving = layer.non_trainable_weights if self.training and layer.trainable else ()
        return {trace.updated(f"{layer.name}/{variable.name}"): variable.value + 0 for variable in moving}

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


def _build(keras: Any, spec: Spec, weights: Mapping[str, np.ndarray] | None) -> Any:
    """The compiled model with these weights, or, where there are none, its own initial ones."""
    try:
        model = keras.Sequential.from_config(earlier.understood(keras, spec.config))
        given = earlier.understood(keras, spec.loss, "losses")
        loss = keras.losses.get(given) if isinstance(given, Mapping) else given
        model.compile(optimizer=keras.optimizers.get(spec.optimizer or "sgd"), loss=loss, jit_compile=False)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{spec.name}: Keras cannot build this network: {str(error).splitlines()[0]}") from error
    if weights is not None:
        for layer in model.layers:
            for variable in layer.weights:
                variable.assign(weights[f"{layer.name}/{variable.name}"])
    return model
