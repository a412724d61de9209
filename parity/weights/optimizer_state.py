"""What an optimizer keeps from step to step, ported where the next step can be the same.

SGD with momentum mu and learning rate lr: Keras and scratchnet keep m = mu m - lr g and add it to the weight, PyTorch
keeps b = mu b + g and subtracts lr b. So m = -lr b, for as long as the learning rate stays the same.

Adam: Keras divides by sqrt(v) + epsilon, with its corrections for the first steps in the factor in front; PyTorch
divides by sqrt(v / (1 - beta2^t)) + epsilon. Its epsilon is thus another at every step, and no state makes them equal.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parity.errors import UsageError
from parity.weights.sides import Match
from parity.weights.skeleton import roles_of

__all__ = ["Ready", "ready", "unpaired"]

End = tuple[Any, Any, Match]
"""A live model or None, its PyTorch optimizer or None, and how its arrays hold the weights."""

ADAM = (
    "Adam: Keras and PyTorch place epsilon differently (Keras adds it to sqrt(v), PyTorch to sqrt(v / (1 - beta2^t))), "
    "so no state makes the next steps equal; give the model without its optimizer, and train on from a fresh state"
)


@dataclass(frozen=True)
class Ready:
    """words: what becomes of the state; write: sets it, None where there is nothing to set."""

    words: tuple[str, ...] = ()
    write: Callable[[], None] | None = None


def unpaired(thing: Any) -> tuple[Any, Any]:
    """A PyTorch model and its optimizer, where they come as a pair; else the thing itself and None."""
    torch = sys.modules.get("torch")
    pair = isinstance(thing, tuple) and len(thing) == 2
    if torch is not None and pair and isinstance(thing[1], torch.optim.Optimizer):
        return thing
    return thing, None


@dataclass(frozen=True)
class _Momentum:
    """An SGD with momentum: its settings as Keras calls them, and the momentum by the keys of its side, each as
    Keras keeps it. set: puts such a momentum there."""

    settings: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    set: Callable[[Mapping[str, np.ndarray]], None]


def ready(source: End, target: End) -> Ready:
    """What is to be done for the optimizers. `UsageError` where a PyTorch optimizer was given and its state cannot be
    ported; models of Keras and scratchnet come with theirs unasked, so there it is said and left."""
    asked = source[1] is not None or target[1] is not None
    if not asked and not (_has_optimizer(source[0]) and _has_optimizer(target[0])):
        return Ready((KEPT,) if _has_state(target[0]) else ())
    try:
        if not asked and all(type(model).__module__.startswith("keras.") for model in (source[0], target[0])):
            return _between_keras(source, target)
        there, here = _momentum(*source[:2]), _momentum(*target[:2])
        _require_same(there.settings, here.settings)
    except UsageError as error:
        if asked:
            raise
        return Ready((f"state not ported: {error}", *[KEPT] * _has_state(target[0])))
    if not there.arrays:
        return Ready(("no state to port: the source has made no step with momentum",))
    momentum = _part(source[2], there.arrays).restore(lambda key: there.arrays[key])
    keys = {weight: held for weight, held in target[2].held.items() if weight in momentum}
    arrays = replace(target[2], held=keys).arrange(momentum)
    return Ready((f"momentum of {len(momentum)} weights",), lambda: here.set(arrays))


def _between_keras(source: End, target: End) -> Ready:
    """Any optimizer of Keras's: all that it keeps, if both are of one class with the same settings."""
    there, here = source[0].optimizer, target[0].optimizer
    settings = [{k: v for k, v in each.get_config().items() if k != "name"} for each in (there, here)]
    if type(there) is not type(here) or settings[0] != settings[1]:
        raise UsageError(f"optimizer: expected the same class and settings; received {settings[0]} and {settings[1]}")
    if not there.built:
        return Ready(("no state to port: the source has made no step",))
    partner = {held.keys[0]: target[2].held[weight].keys[0] for weight, held in source[2].held.items()}
    if [partner[key] for key in _trainable(source[0])] != _trainable(target[0]):
        raise UsageError("optimizer: the two models have their weights in different orders")

    def write() -> None:
        here.build(target[0].trainable_variables)
        for old, new in zip(there.variables, here.variables, strict=True):
            new.assign(old)

    return Ready((f"all {len(there.variables)} variables of {type(there).__name__}",), write)


def _trainable(model: Any) -> list[str]:
    """The keys of the weights that the optimizer changes, in its order."""
    paths = {v.path: f"{layer.name}/{role}" for layer in model.layers for role, v in roles_of(layer).items()}
    return [paths[variable.path] for variable in model.trainable_variables]


def _part(match: Match, arrays: Mapping[str, np.ndarray]) -> Match:
    return replace(match, held={weight: held for weight, held in match.held.items() if held.keys[0] in arrays})


def _has_optimizer(model: Any) -> bool:
    return getattr(model, "optimizer", None) is not None


KEPT = "the target keeps the state of its optimizer, which belongs to its old weights"


def _has_state(model: Any) -> bool:
    optimizer = getattr(model, "optimizer", None)
    steps = optimizer.iterations if optimizer is not None and getattr(optimizer, "built", False) else 0
    return bool(getattr(model, "_state", None) or steps > 0)


def _require_same(there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    different = [name for name in there if there[name] != here[name]]
    if different:
        shown = ", ".join(f"{name} {there[name]} and {here[name]}" for name in different)
        raise UsageError(f"SGD: the two optimizers have different settings: {shown}; their next steps would differ")


def _momentum(model: Any, optimizer: Any) -> _Momentum:
    if optimizer is not None:
        return _of_torch(model, optimizer)
    if not _has_optimizer(model):
        raise UsageError(
            "optimizer: the other end has none; compile the model with SGD(momentum=...), or give a pair "
            "(model, optimizer) of PyTorch's"
        )
    return _of_scratch(model) if type(model).__module__.startswith("scratchnet.") else _of_keras(model)


def _require_sgd(optimizer: Any) -> None:
    name = type(optimizer).__name__
    if name.startswith("Adam"):
        raise UsageError(ADAM)
    if name != "SGD":
        raise UsageError(f"optimizer: expected SGD; how the state of {name} corresponds is not known")


def _of_keras(model: Any) -> _Momentum:
    optimizer = model.optimizer
    _require_sgd(optimizer)
    settings = _settings(float(optimizer.learning_rate), optimizer.momentum, optimizer.nesterov, optimizer.weight_decay)
    has_made = optimizer.built and optimizer.momentum
    kept = zip(_trainable(model), optimizer.momentums, strict=True) if has_made else ()
    arrays = {key: np.asarray(variable.numpy()) for key, variable in kept}

    def put(new: Mapping[str, np.ndarray]) -> None:
        optimizer.build(model.trainable_variables)
        variables = dict(zip(_trainable(model), optimizer.momentums, strict=True))
        for key, array in new.items():
            variables[key].assign(array)

    return _Momentum(settings, arrays, put)


def _of_scratch(model: Any) -> _Momentum:
    optimizer = model.optimizer
    _require_sgd(optimizer)
    settings = _settings(optimizer.learning_rate, optimizer.momentum, optimizer.nesterov, None)
    arrays = {f"{layer}/{name}": kept["momentum"] for (layer, name), kept in model._state.items() if "momentum" in kept}

    def put(new: Mapping[str, np.ndarray]) -> None:
        for key, array in new.items():
            layer, _, name = key.rpartition("/")
            model._state[layer, name] = {"momentum": np.array(array, dtype=model.dtype)}

    return _Momentum(settings, arrays, put)


def _of_torch(model: Any, optimizer: Any) -> _Momentum:
    _require_sgd(optimizer)
    if len(optimizer.param_groups) != 1:
        raise UsageError(f"SGD: expected one group of parameters; received {len(optimizer.param_groups)}")
    group = optimizer.param_groups[0]
    if group["dampening"] or group["maximize"]:
        raise UsageError("SGD: Keras has neither dampening nor maximize; expected a PyTorch optimizer without them")
    rate = float(group["lr"])
    settings = _settings(rate, group["momentum"], group["nesterov"], group["weight_decay"] or None)
    parameters = dict(model.named_parameters())
    buffers = {
        name: optimizer.state[p].get("momentum_buffer") for name, p in parameters.items() if p in optimizer.state
    }
    arrays = {name: -rate * buffer.detach().cpu().numpy() for name, buffer in buffers.items() if buffer is not None}

    def put(new: Mapping[str, np.ndarray]) -> None:
        torch = sys.modules["torch"]
        for name, array in new.items():
            value = torch.from_numpy(np.array(array / -rate, order="C"))
            optimizer.state[parameters[name]]["momentum_buffer"] = value.to(parameters[name])

    return _Momentum(settings, arrays, put)


def _settings(rate: float, momentum: float, nesterov: bool, decay: float | None) -> dict[str, Any]:
    # Keras keeps the learning rate in float32, so that is what the two are compared in.
    return {"learning_rate": float(np.float32(rate)), "momentum": momentum, "nesterov": nesterov, "weight_decay": decay}
