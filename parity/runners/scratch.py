"""The NumPy side: scratchnet, run as a whole, or layer by layer on another run's tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import scratchnet
from parity import trace
from parity.errors import UsageError
from parity.spec import Spec
from parity.trace import Trace, Weights
from scratchnet import losses
from scratchnet.layers import Saved
from scratchnet.sequential import Chain, penalized

__all__ = ["Network", "build", "replay", "run"]


@dataclass(frozen=True)
class Network:
    """What the rest of parity has to know of a network; shapes are of one sample."""

    name: str
    layers: tuple[trace.Layer, ...]
    weights: Weights  # the initial ones
    weight_names: Mapping[str, tuple[str, ...]]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    labels: str  # the kind of labels that the loss takes: real, binary, one_hot or integer

    @classmethod
    def of(cls, spec: Spec) -> Network:
        chain = build(spec)
        return cls(
            name=spec.name,
            layers=layers(chain),
            weights={f"{layer.name}/{n}": w for layer in chain.layers for n, w in layer.weights.items()},
            weight_names={layer.name or "": tuple(layer.weights) for layer in chain.layers},
            input_shape=_fixed(spec, chain.input_shape),
            output_shape=_fixed(spec, chain.output_shape),
            labels=losses.get(spec.loss).labels,
        )

    @property
    def takes_digits(self) -> bool:
        """Whether 28x28 pixels and ten classes fit."""
        return self.input_shape in DIGITS and self.output_shape == (10,)


DIGITS = ((28, 28), (784,), (28, 28, 1))


def build(spec: Spec) -> Chain:
    """The network of a spec. `UsageError` names the layer or argument that scratchnet does not have."""
    if spec.loss is None:
        raise UsageError(f"{spec.name}: the model has no loss; compile it with one, or say which: --loss, or loss=...")
    try:
        chain = scratchnet.Sequential.from_config(spec.config)
        losses.get(spec.loss)
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{spec.name}: scratchnet cannot build this network: {error}") from error
    if not chain.layers:
        raise UsageError(f"{spec.name}: the network has no layers; a comparison needs at least one")
    if not chain.built:
        raise UsageError(f"{spec.name}: the config does not say the shape of the input; add keras.Input(shape) first")
    return chain


def layers(chain: Chain) -> tuple[trace.Layer, ...]:
    """The layers as a trace names them."""
    return tuple(
        trace.Layer.from_config(layer.to_json(), tuple(layer.trainable_weights)) for layer in chain.layers
    )


def run(spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray) -> Trace:
    """One forward and one backward pass of the whole network."""
    chain = _with_weights(spec, weights, lambda array: array)
    loss = losses.get(spec.loss)
    passed = chain.forward(x, spec.training)
    backward = chain.backward(passed, loss, y)
    tensors: dict[str, np.ndarray] = {trace.INPUT: passed.x}
    described = layers(chain)
    for layer, saved in zip(described, passed.saved, strict=True):
        if layer.has_pre_activation:
            tensors[trace.pre_activation(layer.name)] = saved.z
        tensors[trace.output(layer.name)] = saved.y
    tensors[trace.LOSS] = loss.forward(y, passed.output, passed.logits) + chain.penalty()
    for layer, gradients in reversed(list(zip(described, backward.layers, strict=True))):
        if gradients.dy is not None:
            tensors[trace.gradient(trace.output(layer.name))] = gradients.dy
        if layer.has_pre_activation and gradients.dz is not None:
            tensors[trace.gradient(trace.pre_activation(layer.name))] = gradients.dz
        for name, value in gradients.weights.items():
            tensors[trace.gradient(f"{layer.name}/{name}")] = value
    if backward.dx is not None:
        tensors[trace.gradient(trace.INPUT)] = backward.dx
    return Trace(tensors, {"runner": "scratch", "dtype": spec.dtype, "numpy": np.__version__})


def replay(
    spec: Spec,
    weights: Weights,
    reference: Trace,
    y: np.ndarray,
    number: Callable[[np.ndarray], Any] = lambda array: array,
) -> Mapping[str, Any]:
    """Each operation alone, on the reference's own tensors, forward and backward.

    An error of one operation then stays where it is made. `number` wraps every array that goes in: the identity gives
    scratchnet's own results in the dtype of the spec, `budget.Bounded` the float64 values and the budgets.
    """
    chain = _with_weights(spec, weights, number)
    loss = losses.get(spec.loss)
    described = layers(chain)
    results: dict[str, Any] = {}
    saved = _replay_forward(chain, described, reference, spec.training, number, results)
    logits_at = chain.logits_at(spec.training)
    prediction = saved[-1].y
    logits = None if logits_at is None else saved[logits_at].z
    results[trace.LOSS] = loss.forward(y, prediction, logits) + chain.penalty()
    d = loss.backward(y, prediction, logits)
    first = logits_at if loss.uses(logits) and logits_at is not None else len(described) - 1
    by_logits = loss.uses(logits)
    for index in reversed(range(first + 1)):
        layer, kept = described[index], saved[index]
        if not (by_logits and index == first):
            d = _taken(reference, trace.gradient(trace.output(layer.name)), d, results, number)
            d = chain.layers[index].activation.backward(kept.z, kept.y, d)
        if layer.has_pre_activation:
            d = _taken(reference, trace.gradient(trace.pre_activation(layer.name)), d, results, number)
        d, grads = chain.layers[index].transform_backward(kept, d)
        for name, value in penalized(chain.layers[index], grads).items():
            results[trace.gradient(f"{layer.name}/{name}")] = value
    if d is not None:
        results[trace.gradient(trace.INPUT)] = d
    return results


def _replay_forward(
    chain: Chain,
    described: tuple[trace.Layer, ...],
    reference: Trace,
    training: bool,
    number: Callable[[np.ndarray], Any],
    results: dict[str, Any],
) -> list[Saved]:
    saved: list[Saved] = []
    x = number(reference[trace.INPUT])
    for layer, named in zip(chain.layers, described, strict=True):
        z, terms, updates = layer.transform(x, training)
        if named.has_pre_activation:
            z = _taken(reference, trace.pre_activation(named.name), z, results, number)
        y = _taken(reference, trace.output(named.name), layer.activation.forward(z), results, number)
        saved.append(Saved(x, z, y, terms, updates))
        x = y
    return saved


def _taken(reference: Trace, name: str, value: Any, results: dict[str, Any], number: Callable[[np.ndarray], Any]) -> Any:
    """Note what this operation gave, and go on with what the reference has there."""
    results[name] = value
    return number(reference[name]) if name in reference else value


def _fixed(spec: Spec, shape: Any) -> tuple[int, ...]:
    if shape is None or any(n is None for n in shape[1:]):
        raise UsageError(f"{spec.name}: every size but the batch must be fixed; received the shape {shape}")
    return tuple(shape[1:])


def _with_weights(spec: Spec, weights: Weights, number: Callable[[np.ndarray], Any]) -> Chain:
    chain = build(spec)
    chain.set_weights([weights[f"{layer.name}/{name}"] for layer in chain.layers for name in layer.weights])
    for layer in chain.layers:
        layer.weights = {name: number(weight) for name, weight in layer.weights.items()}
    return chain
