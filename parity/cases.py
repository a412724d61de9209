"""Networks by name: the two reference networks, two with more kinds of layers, and the smallest network around each
entry of the registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import scratchnet
from parity.spec import Spec
from scratchnet import layers, losses, registry

__all__ = ["NETWORKS", "REFERENCE", "Network", "cases", "find", "networks"]

DENSE = layers.Dense


def _sigmoid_500() -> list[layers.Layer]:
    return [layers.Flatten(), DENSE(500, "sigmoid"), DENSE(500, "sigmoid"), DENSE(10, "sigmoid")]


def _tanh_16() -> list[layers.Layer]:
    return [layers.Flatten(), DENSE(16, "tanh"), DENSE(16, "tanh"), DENSE(10, "softmax")]


def _lenet_5() -> list[layers.Layer]:
    """LeNet-5 (LeCun et al. 1998, section II.B) as it is taught today: maxima for trainable means, every map of the
    second convolution joined to all of the first, and a softmax for the radial basis functions."""
    convolution, pooling = layers.Conv2D, layers.MaxPooling2D
    return [
        convolution(6, 5, padding="same", activation="tanh"),  # the paper pads the 28x28 pixels to 32x32
        pooling(2),
        convolution(16, 5, activation="tanh"),
        pooling(2),
        layers.Flatten(),
        DENSE(120, "tanh"),
        DENSE(84, "tanh"),
        DENSE(10, "softmax"),
    ]


def _normalized() -> list[layers.Layer]:
    """A network that computes something else in training than in inference, in two of its layers."""
    return [
        layers.Flatten(),
        DENSE(32),
        layers.BatchNormalization(),
        layers.Activation("relu"),
        layers.Dropout(0.3, seed=5),
        DENSE(16, "tanh"),
        layers.LayerNormalization(),
        DENSE(10, "softmax"),
    ]


class Network(NamedTuple):
    """A network by name: what makes its layers, the losses it comes with, and the shape of one sample."""

    make: Callable[[], list[layers.Layer]]
    losses: tuple[str, ...]
    shape: tuple[int, ...] = (28, 28)


NETWORKS = {
    "sigmoid-500": Network(_sigmoid_500, ("mean_squared_error", "binary_crossentropy")),
    "tanh-16": Network(_tanh_16, ("categorical_crossentropy", "sparse_categorical_crossentropy")),
    "lenet-5": Network(_lenet_5, ("categorical_crossentropy",), (28, 28, 1)),
    "normalized": Network(_normalized, ("categorical_crossentropy",)),
}
REFERENCE = ("sigmoid-500", "tanh-16")
"""The networks that are checked where none is named."""

IN_INFERENCE = (layers.BatchNormalization, layers.Dropout)  # the layers that are something else there


def networks(seed: int = 0) -> list[Spec]:
    """Both reference networks, with each of their losses."""
    return [spec for name in REFERENCE for spec in _network(name, seed)]


def cases(seed: int = 0, widths: int = 1) -> Iterator[Spec]:
    """For every activation, loss, optimizer and layer example of the registry, the smallest network that exercises it.

    widths: a factor for the number of inputs, of images per side.
    """
    for name, activation in registry.entries("activation").items():
        for settings in activation.examples:
            if settings:
                continue  # in a config, Keras knows an activation by its bare name only
            yield _case(
                f"activation-{name}",
                [DENSE(5), layers.Activation(activation(**settings)), DENSE(3)],
                "mse",
                seed,
                widths,
            )
    for name, loss in registry.entries("loss").items():
        for settings in loss.examples:
            yield _case(
                f"loss-{name}",
                [DENSE(5, "tanh"), DENSE(3, _head(loss, settings))],
                registry.serialize(loss(**settings)),
                seed,
                widths,
            )
    yield _case("loss-of-one-output", [DENSE(5, "tanh"), DENSE(1)], "mse", seed, widths)
    for name, loss in registry.entries("loss").items():
        if issubclass(loss, losses.Crossentropy):  # behind a Flatten Keras has no logits left, only probabilities
            stack = [DENSE(5, "tanh"), DENSE(3, loss.head), layers.Flatten()]
            yield _case(f"loss-{name}-of-probabilities", stack, registry.serialize(loss()), seed, widths)
    for name, optimizer in registry.entries("optimizer").items():
        for settings in optimizer.examples:
            spec = _case(f"optimizer-{name}", [DENSE(5, "tanh"), DENSE(3)], "mse", seed, widths)
            yield replace(spec, optimizer=registry.serialize(optimizer(**settings)))
    relu = [layers.Activation("relu"), layers.Activation("relu")]  # the second one sees exact zeros
    yield _case("relu-at-zero", [DENSE(5), *relu, DENSE(3)], "mse", seed, widths)
    for name, layer in registry.entries("layer").items():
        for settings in layer.examples:
            stack = [*_below(layer), layer(**settings), layers.Flatten(), DENSE(3)]
            spec = _spec(f"layer-{name}", stack, _wider(layer, widths), "mse", seed)
            yield spec
            if layer in IN_INFERENCE:
                yield replace(spec, name=f"{spec.name}-inference", training=False)


def _below(layer: type[layers.Layer]) -> list[layers.Layer]:
    """What is below the layer under test. For images a cut at 1: it makes ties in the windows of a pooling, and
    leaves negative cells."""
    if layer.takes_indices:
        return []
    return [layers.ReLU(max_value=1.0, negative_slope=0.1)] if len(layer.example_shape) > 1 else [DENSE(7, "tanh")]


def find(name: str, seed: int = 0) -> list[Spec]:
    """The specs that a name stands for; an empty list where there are none."""
    if name in NETWORKS:
        return _network(name, seed)
    return [spec for spec in cases(seed) if name == "cases" or spec.name == name]


def _network(name: str, seed: int) -> list[Spec]:
    network = NETWORKS[name]
    return [_spec(name, network.make(), network.shape, loss, seed) for loss in network.losses]


def _case(name: str, stack: list[layers.Layer], loss: Any, seed: int, widths: int) -> Spec:
    return _spec(name, stack, (11 * widths,), loss, seed)


def _wider(layer: type[layers.Layer], widths: int) -> tuple[int, ...]:
    """The example's input with more features, or, for images, more pixels but the same channels. Sequences stay as long
    as they are: after twenty steps of a sigmoid nothing of the first one is left in float32."""
    if len(layer.example_shape) <= 2:
        *steps, features = layer.example_shape
        return (*steps, features * widths)
    *sides, channels = layer.example_shape
    return (*(side * round(widths**0.5) for side in sides), channels)


def _head(loss: type[losses.Loss], settings: Any) -> str:
    return "linear" if settings.get("from_logits") else loss.head


def _spec(name: str, stack: list[layers.Layer], shape: tuple[int, ...], loss: Any, seed: int) -> Spec:
    chain = scratchnet.Sequential(stack, name=name.replace("-", "_"))
    chain.build((None, *shape))
    return Spec(name, chain.get_config(), loss, seed=seed)
