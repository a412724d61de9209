"""Keras's layers as PyTorch modules: for the entry of a Sequential's config, what a `torch.nn.Sequential` would have.

Images are channels first, as PyTorch wants them. What a module cannot do exactly as Keras does is refused.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from parity.errors import NothingConcluded

__all__ = ["LOGITS", "Held", "Refused", "activation_of", "as_tensorflow", "modules"]

Shape = tuple[int, ...]
Modules = list[Any]
Held = Callable[[float], float]

LOGITS = ("sigmoid", "softmax")
"""Activations that leave their pre-activations on the output, where Keras's cross-entropies find them."""


class Refused(NothingConcluded):
    """What PyTorch does not do as Keras does it."""


def modules(
    torch: Any, kind: str, settings: Mapping[str, Any], shapes: Mapping[str, Shape], h: Any, held: Held
) -> Modules:
    """The modules that compute the transform of a layer, without its activation; the last one has its weights.

    settings: of Keras's config; shapes: role -> shape of the weight in Keras's form; h: a tensor of the shape that goes
    in, (1, ...); held: how a constant is held, by `float` or `as_tensorflow`.
    """
    if kind not in LAYERS:
        raise Refused(f"no PyTorch module is known for a {kind}")
    make, used = LAYERS[kind]
    for key, value in settings.items():
        if key in used or key in IGNORED or key.endswith(("_initializer", "_regularizer")):
            continue
        if not (value is None or value is False or NEUTRAL.get(key) == value):
            raise Refused(f"{key}={value!r} has no counterpart")
    if settings.get("activity_regularizer") is not None:
        raise Refused("an activity_regularizer has no counterpart")
    made: Modules = make(torch, settings, shapes, h, held)
    return made


IGNORED = ("name", "trainable", "dtype", "seed", "noise_shape", "rate", "momentum")
NEUTRAL = {"data_format": "channels_last", "groups": 1}


def activation_of(torch: Any, name: Any, h: Any, held: Held) -> Any:
    """The module of an activation by its name in a config."""
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise Refused(f"no PyTorch module is known for the activation {name if isinstance(name, str) else 'given'}")
    return ACTIVATIONS[name](torch, 1 if h.ndim == 4 else -1, held)


def as_tensorflow(constant: float) -> float:
    """TensorFlow turns some constants into float32 on their way into a float64 operation."""
    return float(np.float32(constant))


def _function(torch: Any, formula: Callable[[Any], Any]) -> Any:
    """A module of a formula."""
    return _function_class(torch)(formula)


@functools.cache
def _function_class(torch: Any) -> Any:
    class Function(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, formula: Callable[[Any], Any]):
            super().__init__()
            self.forward = formula

    return Function


def _gelu(torch: Any, dim: int, held: Held) -> Any:
    half = held(math.sqrt(0.5))
    return _function(torch, lambda x: 0.5 * x * torch.special.erfc(-x * half))


def _hard_sigmoid(torch: Any, dim: int, held: Held) -> Any:
    """PyTorch's own, where its constants are wanted: in its derivative 1/6 is a float32."""
    return torch.nn.Hardsigmoid() if held is float else _function(torch, lambda x: torch.nn.functional.relu6(x + 3) / 6)


ACTIVATIONS: Mapping[str, Callable[[Any, int, Held], Any]] = {
    "linear": lambda torch, dim, held: torch.nn.Identity(),
    "relu": lambda torch, dim, held: torch.nn.ReLU(),
    "relu6": lambda torch, dim, held: torch.nn.ReLU6(),
    "leaky_relu": lambda torch, dim, held: torch.nn.LeakyReLU(held(0.2)),
    "sigmoid": lambda torch, dim, held: torch.nn.Sigmoid(),
    "tanh": lambda torch, dim, held: torch.nn.Tanh(),
    "softmax": lambda torch, dim, held: torch.nn.Softmax(dim),
    "log_softmax": lambda torch, dim, held: torch.nn.LogSoftmax(dim),
    "log_sigmoid": lambda torch, dim, held: torch.nn.LogSigmoid(),
    "gelu": _gelu,
    "elu": lambda torch, dim, held: torch.nn.ELU(),
    "selu": lambda torch, dim, held: torch.nn.SELU(),
    "celu": lambda torch, dim, held: torch.nn.CELU(),
    "softplus": lambda torch, dim, held: torch.nn.Softplus(threshold=40.0),  # behind it, log(1 + e^-x) is rounding
    "softsign": lambda torch, dim, held: torch.nn.Softsign(),
    "silu": lambda torch, dim, held: torch.nn.SiLU(),
    "swish": lambda torch, dim, held: torch.nn.SiLU(),
    "mish": lambda torch, dim, held: torch.nn.Mish(),
    "exponential": lambda torch, dim, held: _function(torch, torch.exp),
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": lambda torch, dim, held: torch.nn.Hardswish(),
    "hard_swish": lambda torch, dim, held: torch.nn.Hardswish(),
    "hard_tanh": lambda torch, dim, held: torch.nn.Hardtanh(),
    "tanh_shrink": lambda torch, dim, held: torch.nn.Tanhshrink(),
}
"""Keras's name -> the module. (torch, the axis of the features, how constants are held)"""


# -- layers ------------------------------------------------------------------------------------------------------------


def _dense(torch: Any, settings: Any, shapes: Any, h: Any, held: Held) -> Modules:
    if h.ndim == 4:
        raise Refused("over the channels of images; PyTorch's Linear goes along the last axis, which is the width")
    return [torch.nn.Linear(*shapes["kernel"], bias="bias" in shapes)]


def _convolution(torch: Any, settings: Any, shapes: Any, h: Any, held: Held) -> Modules:
    height, width, inputs, filters = shapes["kernel"]
    strides, dilation = _pair(settings.get("strides", 1)), _pair(settings.get("dilation_rate", 1))
    border = _border(torch, settings, (height, width), strides, dilation, h, 0.0)
    made = torch.nn.Conv2d(inputs, filters, (height, width), strides, dilation=dilation, bias="bias" in shapes)
    return [*border, made]


def _pair(value: Any) -> tuple[int, int]:
    """Keras's reading of a size: two numbers, or one for both."""
    first, second = (value, value) if isinstance(value, int) else value
    return first, second


def _pool(settings: Mapping[str, Any]) -> tuple[tuple[int, int], tuple[int, int]]:
    size = _pair(settings.get("pool_size", 2))
    return size, _pair(settings.get("strides") or size)


def _border(
    torch: Any, settings: Any, size: Sequence[int], strides: Sequence[int], dilation: Sequence[int], h: Any, fill: float
) -> Modules:
    """What Keras's "same" adds: so much that there are ceil(size / stride) windows, the odd cell behind. PyTorch's own
    "same" knows no strides, and its `padding=` adds as much in front as behind."""
    if h.ndim != 4:
        raise Refused("expected images of one batch, (batch, height, width, channels)")
    if str(settings.get("padding", "valid")).lower() == "valid":
        return []
    sides: list[int] = []
    for cells, length, stride, step in zip(h.shape[2:], size, strides, dilation, strict=True):
        missing = max((-(-cells // stride) - 1) * stride + (length - 1) * step + 1 - cells, 0)
        sides = [missing // 2, missing - missing // 2, *sides]  # PyTorch wants the last axis first
    return [torch.nn.ConstantPad2d(tuple(sides), fill)] if any(sides) else []


def _max_pooling(torch: Any, settings: Any, shapes: Any, h: Any, held: Held) -> Modules:
    size, strides = _pool(settings)
    return [*_border(torch, settings, size, strides, (1, 1), h, -math.inf), torch.nn.MaxPool2d(size, strides)]


def _average_pooling(torch: Any, settings: Any, shapes: Any, h: Any, held: Held) -> Modules:
    size, strides = _pool(settings)
    if _border(torch, settings, size, strides, (1, 1), h, 0.0):
        raise Refused("with padding='same' its windows have fewer cells at the border")
    return [torch.nn.AvgPool2d(size, strides)]


def _global_average(torch: Any, settings: Any, shapes: Any, h: Any, held: Held) -> Modules:
    if h.ndim != 4:
        raise Refused("expected images of one batch, (batch, height, width, channels)")
    return [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]


def _batch_normalization(torch: Any, settings: Any, shapes: Any, h: Any, held: Held) -> Modules:
    _require_last_axis(settings, h)
    if h.ndim not in (2, 4):
        raise Refused("over the last axis of sequences; PyTorch's BatchNorm1d goes along the second")
    made = torch.nn.BatchNorm1d if h.ndim == 2 else torch.nn.BatchNorm2d
    return [made(shapes["moving_mean"][0], eps=settings.get("epsilon", 1e-3))]


def _layer_normalization(torch: Any, settings: Any, shapes: Any, h: Any, held: Held) -> Modules:
    _require_last_axis(settings, h)
    if h.ndim == 4:
        raise Refused("over the channels of images; PyTorch's LayerNorm goes along the last axes")
    return [torch.nn.LayerNorm(h.shape[-1], eps=settings.get("epsilon", 1e-3))]


def _require_last_axis(settings: Any, h: Any) -> None:
    axis = settings.get("axis", -1)
    if (list(axis) if isinstance(axis, Sequence) else [axis]) not in ([-1], [h.ndim - 1]):
        raise Refused(f"axis={axis} has no counterpart")


def _embedding(torch: Any, settings: Any, shapes: Any, h: Any, held: Held) -> Modules:
    if h.ndim > 2 or h.dtype.is_floating_point:
        raise Refused("expected sequences of indices, (batch, length), as the input of the network")
    return [torch.nn.Embedding(*shapes["embeddings"])]


def _relu(torch: Any, settings: Any, shapes: Any, h: Any, held: Held) -> Modules:
    slope, limit, t = (settings.get(key) or 0.0 for key in ("negative_slope", "max_value", "threshold"))
    if settings.get("max_value") is None and not t:
        return [torch.nn.LeakyReLU(held(slope)) if slope else torch.nn.ReLU()]
    if limit == 6 and not slope and not t:
        return [torch.nn.ReLU6()]

    def formula(x: Any) -> Any:
        if limit == 6 and not t:  # whose gradient Keras takes in its own way, too: none at 6, where a clip passes it
            y = torch.nn.functional.relu6(x)
        else:
            y = torch.where(x > t, x, torch.zeros_like(x))
            y = y if settings.get("max_value") is None else torch.clamp(y, max=limit)
        return y - slope * torch.relu(t - x)  # no gradient at the threshold, where `clamp` would pass it

    return [_function(torch, formula)]


def _leaky_relu(torch: Any, settings: Any, shapes: Any, h: Any, held: Held) -> Modules:
    return [torch.nn.LeakyReLU(held(settings.get("negative_slope", 0.3)))]


def _elu(torch: Any, settings: Any, shapes: Any, h: Any, held: Held) -> Modules:
    return [torch.nn.ELU(settings.get("alpha", 1.0))]


def _softmax(torch: Any, settings: Any, shapes: Any, h: Any, held: Held) -> Modules:
    _require_last_axis(settings, h)
    return [activation_of(torch, "softmax", h, held)]


def _flatten(torch: Any, settings: Any, shapes: Any, h: Any, held: Held) -> Modules:
    return [torch.nn.Flatten()]


def _nothing(torch: Any, settings: Any, shapes: Any, h: Any, held: Held) -> Modules:
    return [torch.nn.Identity()]


LAYERS: Mapping[str, tuple[Callable[..., Modules], tuple[str, ...]]] = {
    "Dense": (_dense, ("units", "activation", "use_bias")),
    "Conv2D": (
        _convolution,
        ("filters", "kernel_size", "strides", "padding", "dilation_rate", "activation", "use_bias"),
    ),
    "MaxPooling2D": (_max_pooling, ("pool_size", "strides", "padding")),
    "AveragePooling2D": (_average_pooling, ("pool_size", "strides", "padding")),
    "GlobalAveragePooling2D": (_global_average, ()),
    "BatchNormalization": (_batch_normalization, ("axis", "epsilon", "center", "scale", "renorm_momentum")),
    "LayerNormalization": (_layer_normalization, ("axis", "epsilon", "center", "scale")),
    "Embedding": (_embedding, ("input_dim", "output_dim")),
    "Flatten": (_flatten, ()),
    "Activation": (_nothing, ("activation",)),
    "ReLU": (_relu, ("max_value", "negative_slope", "threshold")),
    "LeakyReLU": (_leaky_relu, ("negative_slope",)),
    "ELU": (_elu, ("alpha",)),
    "Softmax": (_softmax, ("axis",)),
    "Dropout": (_nothing, ()),
}
"""Kind of layer -> what makes its modules, and the settings that this looks at. Others must have no effect."""
