"""What one run of a network produced: named arrays in the order of data flow.

Forward: `input`, then for each layer `<layer>/pre_activation` (where an activation follows) and `<layer>/output`, then
`loss`. Backward, from the last layer to the first: `<layer>/output.gradient`, `<layer>/pre_activation.gradient` and
`<layer>/<weight>.gradient`, at last `input.gradient`. A gradient is of the loss, by the tensor before the dot. Then
`<layer>/<weight>.updated`, the weights after one step of the optimizer; moving averages, which the forward pass itself
changes, come with the outputs of their layer. A tensor that a runner cannot see is left out: `tape.gradient` gives none
for outputs that a loss bypasses by cached logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = [
    "INPUT",
    "LOSS",
    "Layer",
    "Place",
    "Trace",
    "Weights",
    "flow",
    "gradient",
    "of_samples",
    "output",
    "pre_activation",
    "updated",
]

Weights = dict[str, np.ndarray]
"""`<layer>/<weight>` -> array, in the order of the layers."""

INPUT = "input"
LOSS = "loss"


def pre_activation(layer: str) -> str:
    return f"{layer}/pre_activation"


def output(layer: str) -> str:
    return f"{layer}/output"


def gradient(tensor: str) -> str:
    return f"{tensor}.gradient"


def updated(weight: str) -> str:
    return f"{weight}.updated"


def of_samples(tensor: str) -> bool:
    """Whether a tensor lies between layers, a row for each sample, or is the gradient by one that does."""
    return tensor.removesuffix(".gradient").endswith(("/output", "/pre_activation"))


@dataclass(frozen=True)
class Layer:
    """What a trace has to know of a layer: its name, its class, its weights, and whether an activation follows.

    weights: those that gradients are taken by; moving: those that the forward pass gives new values.
    """

    name: str
    kind: str
    weights: tuple[str, ...]
    activation: str | None  # None where there is none to look behind: linear, or a layer that is only an activation
    moving: tuple[str, ...] = ()

    @property
    def has_pre_activation(self) -> bool:
        return self.activation is not None

    @classmethod
    def from_config(cls, entry: Mapping[str, Any], weights: tuple[str, ...]) -> Layer:
        """From the entry in a Sequential's config. An `Activation` layer's pre-activations are just its input; a
        recurrent layer, known by what it returns, has its activation inside, once for each step."""
        inside = "return_sequences" in entry["config"]
        activation = None if inside else entry["config"].get("activation")
        if isinstance(activation, Mapping):
            activation = activation.get("class_name")
        seen = None if entry["class_name"] == "Activation" or activation in (None, "linear") else str(activation)
        return cls(entry["config"]["name"], entry["class_name"], weights, seen)


@dataclass(frozen=True)
class Place:
    """One tensor in the order of data flow, and in words the operation that computes it."""

    tensor: str
    computed_by: str
    stage: str  # forward, backward or update


def flow(layers: tuple[Layer, ...], loss: str, optimizer: str | None = None) -> Iterator[Place]:
    """Every tensor that a run of these layers can have, in the order of data flow."""
    for layer in layers:
        if layer.has_pre_activation:
            yield Place(pre_activation(layer.name), f"{layer.kind} {layer.name} forward", "forward")
            yield Place(output(layer.name), f"{layer.activation} of {layer.name} forward", "forward")
        else:
            yield Place(output(layer.name), f"{layer.kind} {layer.name} forward", "forward")
        for weight in layer.moving:
            yield Place(updated(f"{layer.name}/{weight}"), f"{layer.kind} {layer.name} forward", "forward")
    yield Place(LOSS, f"{loss} forward", "forward")
    below = f"{loss} backward"
    for layer in reversed(layers):
        yield Place(gradient(output(layer.name)), below, "backward")
        if layer.has_pre_activation:
            by_activation = f"{layer.activation} of {layer.name} backward"
            # behind cached logits the loss gives this gradient itself
            at_loss = layer is layers[-1]
            yield Place(
                gradient(pre_activation(layer.name)),
                f"{by_activation} and {loss}" if at_loss else by_activation,
                "backward",
            )
        for weight in layer.weights:
            yield Place(gradient(f"{layer.name}/{weight}"), f"{layer.kind} {layer.name} backward", "backward")
        below = f"{layer.kind} {layer.name} backward"
    yield Place(gradient(INPUT), below, "backward")
    for layer in layers if optimizer else ():
        for weight in layer.weights:
            yield Place(updated(f"{layer.name}/{weight}"), f"{optimizer} update", "update")


@dataclass(frozen=True)
class Trace:
    """The tensors of one run, and the conditions under which it ran."""

    tensors: Mapping[str, np.ndarray]
    conditions: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self.tensors
