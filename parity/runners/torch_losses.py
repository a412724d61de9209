"""Keras's losses in PyTorch's operations: autograd takes the derivative of the very formula that Keras has.

Each is written out instead of taken from `torch.nn`, whose losses clip, weigh and average in other ways. y, p, z:
labels, predictions and, where Keras finds them cached on the output, the logits, (batch, ..., K); integer labels are
without the last axis. A formula gives the loss of each sample, (batch, ...).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from parity.errors import NothingConcluded

__all__ = ["loss"]

EPSILON = 1e-7  # `keras.backend.epsilon()`
LOG_2 = float(np.float32(math.log(2)))  # TensorFlow makes it a float32 before it subtracts it

Formula = Callable[..., Any]


def loss(torch: Any, identifier: Any, y: Any, p: Any, z: Any) -> Any:
    """The loss of a batch, a tensor without axes. identifier: Keras's name or config; y: a NumPy array; z: the logits
    that Keras would find on p, or None. `NothingConcluded` for a loss that is not here."""
    name, settings = _parsed(identifier)
    formula, own = LOSSES[name]
    reduction = settings.pop("reduction", "sum_over_batch_size")
    settings = {key: value for key, value in settings.items() if value is not None and key not in ("name", "axis")}
    if reduction not in REDUCTIONS or not settings.keys() <= set(own):
        raise NothingConcluded(f"the loss {name} with {settings | {'reduction': reduction}} has no formula here")
    samples = formula(torch, _labels(torch, name, y, p), p, z, **settings)
    return torch.sum(samples) if reduction == "sum" else torch.mean(samples)


def _parsed(identifier: Any) -> tuple[str, dict[str, Any]]:
    """The name in `LOSSES` and the arguments."""
    settings: Any = {}
    if isinstance(identifier, Mapping):
        settings = identifier.get("config") or {}
        identifier = identifier.get("class_name")
        if identifier == "function":  # how Keras writes a loss that was given by its name
            identifier, settings = settings, {}
    words = str(identifier).replace("_", "").lower()
    name = ALIASES.get(words, words)
    if name not in LOSSES:
        raise NothingConcluded(f"the loss {identifier} has no formula in PyTorch's operations here")
    if settings.get("axis", -1) != -1:
        raise NothingConcluded(f"the loss {identifier} over axis {settings['axis']} has no formula here")
    return name, dict(settings)


def _labels(torch: Any, name: str, y: Any, p: Any) -> Any:
    """As a tensor in the shape of the predictions; a last axis of 1 may be missing, integer labels have none."""
    if name == "sparsecategoricalcrossentropy":
        found = torch.from_numpy(y).long()
        return found[..., 0] if found.ndim == p.ndim else found
    found = torch.from_numpy(y).to(p.dtype)
    return found[..., None] if found.ndim == p.ndim - 1 and p.shape[-1] == 1 else found


def _mean(values: Any) -> Any:
    return values.mean(dim=-1)


def _log(torch: Any, probabilities: Any) -> Any:
    return torch.log(torch.clamp(probabilities, EPSILON, 1 - EPSILON))  # the clip passes gradients at both bounds


# -- differences -------------------------------------------------------------------------------------------------------


def _squared(torch: Any, y: Any, p: Any, z: Any) -> Any:
    return _mean((p - y) ** 2)


def _absolute(torch: Any, y: Any, p: Any, z: Any) -> Any:
    return _mean(torch.abs(y - p))


def _percentage(torch: Any, y: Any, p: Any, z: Any) -> Any:
    return 100 * _mean(torch.abs(y - p) / torch.clamp(torch.abs(y), min=EPSILON))


def _logarithmic(torch: Any, y: Any, p: Any, z: Any) -> Any:
    first, second = (torch.log(1 + torch.clamp(each, min=EPSILON)) for each in (p, y))
    return _mean((first - second) ** 2)


def _huber(torch: Any, y: Any, p: Any, z: Any, delta: float = 1.0) -> Any:
    e = p - y
    size = torch.abs(e)
    return _mean(torch.where(size <= delta, 0.5 * e * e, delta * size - 0.5 * delta**2))


def _log_cosh(torch: Any, y: Any, p: Any, z: Any) -> Any:
    e = p - y
    return _mean(e + torch.nn.functional.softplus(-2 * e, threshold=40.0) - LOG_2)


def _poisson(torch: Any, y: Any, p: Any, z: Any) -> Any:
    return _mean(p - y * torch.log(p + EPSILON))


def _cosine(torch: Any, y: Any, p: Any, z: Any) -> Any:
    first, second = (v / torch.clamp(torch.linalg.vector_norm(v, dim=-1, keepdim=True), min=EPSILON) for v in (y, p))
    return -(first * second).sum(dim=-1)


# -- margins: labels of 0 and 1 are taken for -1 and 1 -----------------------------------------------------------------


def _hinge(torch: Any, y: Any, p: Any, z: Any, power: int = 1) -> Any:
    signs = 2 * y - 1 if bool(torch.all((y == 0) | (y == 1))) else y
    return _mean(torch.clamp(1 - signs * p, min=0) ** power)  # passes the gradient at the kink, as Keras does


def _squared_hinge(torch: Any, y: Any, p: Any, z: Any) -> Any:
    return _hinge(torch, y, p, z, power=2)


# -- probabilities: from cached logits, where there are some, whatever the loss was told -------------------------------


def _divergence(torch: Any, y: Any, p: Any, z: Any) -> Any:
    first, second = (torch.clamp(each, EPSILON, 1) for each in (y, p))
    return (first * torch.log(first / second)).sum(dim=-1)


def _binary(torch: Any, y: Any, p: Any, z: Any, from_logits: bool = False, label_smoothing: float = 0.0) -> Any:
    y = y * (1 - label_smoothing) + 0.5 * label_smoothing
    z = p if z is None and from_logits else z
    if z is not None:
        return _mean(torch.clamp(z, min=0) - z * y + torch.log1p(torch.exp(-torch.abs(z))))
    c = torch.clamp(p, EPSILON, 1 - EPSILON)
    return -_mean(y * torch.log(c) + (1 - y) * torch.log(1 - c))


def _categorical(torch: Any, y: Any, p: Any, z: Any, from_logits: bool = False, label_smoothing: float = 0.0) -> Any:
    y = y * (1 - label_smoothing) + label_smoothing / y.shape[-1]
    z = p if z is None and from_logits else z
    if z is not None:
        return -(y * torch.log_softmax(z, dim=-1)).sum(dim=-1)
    return -(y * _log(torch, p / p.sum(dim=-1, keepdim=True))).sum(dim=-1)  # Keras makes the rows sum to 1


def _sparse(torch: Any, y: Any, p: Any, z: Any, from_logits: bool = False) -> Any:
    z = p if z is None and from_logits else z
    # Without logits Keras clips first and normalizes then, which a softmax of the logarithms does.
    logarithms = torch.log_softmax(_log(torch, p) if z is None else z, dim=-1)
    return -logarithms.gather(-1, y[..., None])[..., 0]


REDUCTIONS = ("sum_over_batch_size", "mean", "sum", "mean_with_sample_weight")
CROSSENTROPY = ("from_logits", "label_smoothing")
LOSSES: Mapping[str, tuple[Formula, tuple[str, ...]]] = {
    "meansquarederror": (_squared, ()),
    "meanabsoluteerror": (_absolute, ()),
    "meanabsolutepercentageerror": (_percentage, ()),
    "meansquaredlogarithmicerror": (_logarithmic, ()),
    "huber": (_huber, ("delta",)),
    "logcosh": (_log_cosh, ()),
    "poisson": (_poisson, ()),
    "cosinesimilarity": (_cosine, ()),
    "hinge": (_hinge, ()),
    "squaredhinge": (_squared_hinge, ()),
    "kldivergence": (_divergence, ()),
    "binarycrossentropy": (_binary, CROSSENTROPY),
    "categoricalcrossentropy": (_categorical, CROSSENTROPY),
    "sparsecategoricalcrossentropy": (_sparse, ("from_logits",)),
}
"""Keras's name in small letters, without "_" -> formula, and the arguments that it has. Not here: focal, Dice, Tversky,
CTC, circle, categorical hinge and generalized cross-entropy."""
ALIASES = {
    "mse": "meansquarederror",
    "mae": "meanabsoluteerror",
    "mape": "meanabsolutepercentageerror",
    "msle": "meansquaredlogarithmicerror",
    "bce": "binarycrossentropy",
    "kld": "kldivergence",
}
