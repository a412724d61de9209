"""Networks by name: the two reference networks, and the smallest network around each entry of the registry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import scratchnet
from parity.spec import Spec
from scratchnet import layers, losses, registry

__all__ = ["NETWORKS", "cases", "find", "networks"]

DENSE = layers.Dense


def _sigmoid_500() -> list[layers.Layer]:
    return [layers.Flatten(), DENSE(500, "sigmoid"), DENSE(500, "sigmoid"), DENSE(10, "sigmoid")]


def _tanh_16() -> list[layers.Layer]:
    return [layers.Flatten(), DENSE(16, "tanh"), DENSE(16, "tanh"), DENSE(10, "softmax")]


NETWORKS = {
    "sigmoid-500": (_sigmoid_500, ("mean_squared_error", "binary_crossentropy")),
    "tanh-16": (_tanh_16, ("categorical_crossentropy", "sparse_categorical_crossentropy")),
}
IMAGE = (28, 28)


def networks(seed: int = 0) -> list[Spec]:
    """Both reference networks, with each of their losses."""
    return [spec for name in NETWORKS for spec in _network(name, seed)]


def cases(seed: int = 0, widths: int = 1) -> Iterator[Spec]:
    """For every activation, loss and layer example of the registry, the smallest network that exercises it.

    widths: a factor for the number of inputs, of images per side.
    """
    for name, activation in registry.entries("activation").items():
        for settings in activation.examples:
            if settings:
                continue  # in a config, Keras knows an activation by its bare name only
            yield _case(f"activation-{name}", [DENSE(5), layers.Activation(activation(**settings)), DENSE(3)], "mse", seed, widths)
    for name, loss in registry.entries("loss").items():
        for settings in loss.examples:
            yield _case(f"loss-{name}", [DENSE(5, "tanh"), DENSE(3, _head(loss, settings))], registry.serialize(loss(**settings)), seed, widths)
    for name, layer in registry.entries("layer").items():
        for settings in layer.examples:
            below = [] if layer.takes_indices or len(layer.example_shape) > 1 else [DENSE(7, "tanh")]
            stack = [*below, layer(**settings), layers.Flatten(), DENSE(3)]
            yield _spec(f"layer-{name}", stack, _wider(layer, widths), "mse", seed)


def find(name: str, seed: int = 0) -> list[Spec]:
    """The specs that a name stands for; an empty list where there are none."""
    if name in NETWORKS:
        return _network(name, seed)
    return [spec for spec in cases(seed) if name == "cases" or spec.name == name]


def _network(name: str, seed: int) -> list[Spec]:
    make, losses = NETWORKS[name]
    return [_spec(name, make(), IMAGE, loss, seed) for loss in losses]


def _case(name: str, stack: list[layers.Layer], loss: Any, seed: int, widths: int) -> Spec:
    return _spec(name, stack, (11 * widths,), loss, seed)


def _wider(layer: type[layers.Layer], widths: int) -> tuple[int, ...]:
    """The example's input with more features, or, for images, more pixels but the same channels."""
    if len(layer.example_shape) == 1:
        return (layer.example_shape[0] * widths,)
    *sides, channels = layer.example_shape
    return (*(side * round(widths**0.5) for side in sides), channels)


def _head(loss: type[losses.Loss], settings: Any) -> str:
    return "linear" if settings.get("from_logits") else loss.head


def _spec(name: str, stack: list[layers.Layer], shape: tuple[int, ...], loss: Any, seed: int) -> Spec:
    chain = scratchnet.Sequential(stack, name=name.replace("-", "_"))
    chain.build((None, *shape))
    return Spec(name, chain.get_config(), loss, seed=seed)
