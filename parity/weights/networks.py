"""Which network a config describes: by scratchnet, or by Keras where scratchnet lacks a layer or a loss.

A config may come out of a file, so nothing in it is trusted. It names classes of Keras's own; for a network that only
Keras has, every layer, activation and loss in it is looked up in the lists below before Keras sees it, and Keras first
works out the shapes without any memory for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from parity.errors import UsageError
from parity.runners import keras, scratch, tensorflow
from parity.spec import Spec
from parity.weights import skeleton
from parity.weights.skeleton import Skeleton

__all__ = ["described", "lacking", "largest", "require_of_keras", "skeleton_of"]

LAYERS = frozenset((
    "Activation", "AlphaDropout", "AveragePooling1D", "AveragePooling2D", "AveragePooling3D", "BatchNormalization",
    "Conv1D", "Conv1DTranspose", "Conv2D", "Conv2DTranspose", "Conv3D", "Conv3DTranspose", "Cropping1D",
    "Cropping2D", "Cropping3D", "Dense", "DepthwiseConv1D", "DepthwiseConv2D", "Dropout", "ELU", "Embedding",
    "Flatten", "GRU", "GaussianDropout", "GaussianNoise", "GlobalAveragePooling1D", "GlobalAveragePooling2D",
    "GlobalAveragePooling3D", "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D",
    "GroupNormalization", "Identity", "LSTM", "LayerNormalization", "LeakyReLU", "MaxPooling1D", "MaxPooling2D",
    "MaxPooling3D", "PReLU", "Permute", "ReLU", "RepeatVector", "Reshape", "RMSNormalization", "SeparableConv1D",
    "SeparableConv2D", "SimpleRNN", "Softmax", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D",
    "UnitNormalization", "UpSampling1D", "UpSampling2D", "UpSampling3D", "ZeroPadding1D", "ZeroPadding2D",
    "ZeroPadding3D",
))  # fmt: skip
"""Layers of Keras whose config is numbers and names, and which run nothing but themselves."""
ACTIVATIONS = frozenset((
    "celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_swish",
    "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid",
    "silu", "soft_shrink", "softmax", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "sparsemax",
    "squareplus", "swish", "tanh", "tanh_shrink", "threshold",
))  # fmt: skip
LOSSES = frozenset((
    "binarycrossentropy", "binaryfocalcrossentropy", "categoricalcrossentropy", "categoricalfocalcrossentropy",
    "categoricalgeneralizedcrossentropy", "categoricalhinge", "cosinesimilarity", "dice", "hinge", "huber",
    "kldivergence", "logcosh", "meanabsoluteerror", "meanabsolutepercentageerror", "meansquarederror",
    "meansquaredlogarithmicerror", "poisson", "sparsecategoricalcrossentropy", "squaredhinge", "tversky", "mse",
    "mae", "mape", "msle", "bce", "kld",
))  # fmt: skip
"""In small letters, without "_": as a class or as a function."""
REGULARIZERS = ("L1", "L2", "L1L2")
MODULES = ("keras", "builtins")
DEPTH = 16
"""Levels of a config; Keras's own have six."""


def require_of_keras(node: Any, depth: int = 0) -> None:
    """That every class that a config names is one of Keras's own. `UsageError` for one of somebody else's: Keras would
    import its module."""
    if depth > DEPTH:
        raise UsageError(f"the config has more than {DEPTH} levels")
    if isinstance(node, Mapping):
        module, registered = node.get("module"), node.get("registered_name")
        if "class_name" in node and not (module is None or str(module).partition(".")[0] in MODULES):
            raise UsageError(f"expected classes of Keras's own; received {module!r} for {node['class_name']!r}")
        if "class_name" in node and ">" in str(registered):
            raise UsageError(f"expected classes of Keras's own; received the registered name {registered!r}")
        for value in node.values():
            require_of_keras(value, depth + 1)
    elif isinstance(node, list | tuple):
        for value in node:
            require_of_keras(value, depth + 1)


def skeleton_of(config: Mapping[str, Any], name: str) -> Skeleton:
    """The weights of a network, none of which are made. `UsageError` for what neither scratchnet nor Keras can build,
    `NothingConcluded` where it would take Keras and that is not installed."""
    try:
        return skeleton.of_config(config, name)
    except UsageError as error:
        require_known(config, None, error)
        return _shaped(config, name)[0]


def lacking(spec: Spec) -> str:
    """Why scratchnet cannot run a network that Keras may have; "" where it can. Its weights are made for that."""
    try:
        scratch.build(spec)
    except UsageError as error:
        require_known(spec.config, spec.loss, error)
        return str(error).removeprefix(f"{spec.name}: ").partition("; known:")[0]
    return ""


def described(spec: Spec) -> scratch.Network:
    """What has to be known to run it, by scratchnet or by Keras. Its weights are made for that."""
    return keras.described(spec) if lacking(spec) else scratch.Network.of(spec)


def largest(spec: Spec) -> int:
    """Numbers of one sample in the largest tensor between two layers."""
    if lacking(spec):
        return _shaped(spec.config, spec.name)[1]
    chain = scratch.build(spec)
    shapes = [*(layer.input_shape for layer in chain.layers), chain.output_shape]
    return max(_size(shape) for shape in shapes)


def _size(shape: Any) -> int:
    return math.prod(int(n or 1) for n in (shape or ())[1:])


def _shaped(config: Mapping[str, Any], name: str) -> tuple[Skeleton, int]:
    """The skeleton and the largest tensor, from a Keras model whose variables are shapes."""
    _, imported = tensorflow.imported()
    try:
        with tensorflow.precision("float64"), imported.StatelessScope(initialize_variables=False):
            model = imported.Sequential.from_config(config)
            found = skeleton.of_keras(model)
            shape = tuple(model.input_shape)
            sizes = [_size(shape)]
            for layer in model.layers:
                shape = tuple(layer.compute_output_shape(shape))
                sizes.append(_size(shape))
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        said = str(error).splitlines() or [type(error).__name__]
        raise UsageError(f"{name}: Keras cannot build this network: {said[0]}") from error
    return found, max(sizes)


# -- what Keras is asked to build --------------------------------------------------------------------------------------


def require_known(config: Mapping[str, Any], loss: Any, error: UsageError) -> None:
    """That a network is made of known parts of Keras's. error: why scratchnet does not build it, which is raised for
    one that is not."""
    try:
        for entry in config["layers"]:
            if entry["class_name"] != "InputLayer":
                _require_known_layer(entry["class_name"], entry["config"])
        if loss is not None:
            _require_known_loss(loss)
    except (AttributeError, LookupError, TypeError, ValueError):
        raise error from None


def _require_known_layer(kind: str, settings: Mapping[str, Any]) -> None:
    if kind not in LAYERS:
        raise ValueError(kind)
    for key, value in settings.items():
        if key.endswith("_initializer") or key == "dtype":
            continue
        if key.endswith("activation") and value is not None and value not in ACTIVATIONS:
            raise ValueError(value)
        if isinstance(value, Mapping):
            if not key.endswith("_regularizer") or value["class_name"] not in REGULARIZERS:
                raise ValueError(key)
            value = list(value["config"].values())
        _require_plain(value)


def _require_known_loss(loss: Any) -> None:
    settings = {}
    if isinstance(loss, Mapping):
        settings, loss = loss.get("config", {}), loss["class_name"]
        if loss == "function":
            settings, loss = {}, settings
    if str(loss).replace("_", "").lower() not in LOSSES:
        raise ValueError(loss)
    for value in settings.values():
        _require_plain(value)


def _require_plain(value: Any) -> None:
    """Names and numbers, and lists of them."""
    values = value if isinstance(value, list | tuple) else [value]
    if not all(each is None or isinstance(each, str | int | float) for each in values):
        raise TypeError(value)
