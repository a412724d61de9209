"""Whatever a user calls a model -> specs and weights: a name, a file, a live Keras model, a Spec."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from parity import cases
from parity.errors import FileError, UsageError
from parity.runners import scratch
from parity.spec import Spec
from parity.trace import Weights

__all__ = ["Subject", "resolve"]

FILES = (".keras", ".json")


@dataclass(frozen=True)
class Subject:
    """A network to check; weights None: designed ones."""

    spec: Spec
    weights: Weights | None = None


def resolve(model: Any, loss: Any, seed: int) -> list[Subject]:
    """The networks that `model` stands for. `loss` replaces the losses they come with."""
    if model is None:
        found = [Subject(spec) for spec in cases.networks(seed)]
    elif isinstance(model, Spec):
        found = [Subject(model)]
    elif isinstance(model, str | Path):
        found = _named(model, seed)
    elif callable(getattr(model, "get_config", None)) and hasattr(model, "layers"):
        found = [_live(model, loss, seed)]
    else:
        raise UsageError(
            "model: expected a Keras Sequential, the name of a network, or a path to a .keras or .json file; "
            f"received {type(model).__name__}"
        )
    found = [replace(subject, spec=subject.spec.seeded()) for subject in found]
    return found if loss is None else _with_loss(found, loss)


def _named(model: str | Path, seed: int) -> list[Subject]:
    path, name = Path(model), str(model)
    if path.suffix.lower() in FILES:
        return [_file(path, seed)]
    if found := cases.find(name, seed):
        return [Subject(spec) for spec in found]
    if name and path.is_file():
        raise FileError(f"{path}: expected a .keras or .json file; received {path.suffix or 'no suffix'}")
    known = [*cases.NETWORKS, "cases", *dict.fromkeys(spec.name for spec in cases.cases())]
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    raise UsageError(f"no network is called {name!r}, and no .keras or .json file either; {hint}")


def _file(path: Path, seed: int) -> Subject:
    from parity.weights import keras_file

    read = keras_file.read(path)
    compiled = read.compile_config or {}
    _require_plain(path.name, compiled)
    spec = Spec(path.name, read.config, compiled.get("loss"), optimizer=_optimizer(compiled), seed=seed)
    return Subject(spec, None if read.variables is None else _by_name(spec, read.variables))


def _by_name(spec: Spec, variables: Mapping[str, list[Any]]) -> Weights:
    """Name the variables of a file, which come in Keras's order, as the layers call them."""
    network = scratch.Network.of(replace(spec, loss=spec.loss or "mse"))
    weights: Weights = {}
    for layer, names in network.weight_names.items():
        arrays = variables.get(layer, [])
        if len(arrays) != len(names):
            raise FileError(
                f"{spec.name}: layer {layer!r} has {len(names)} weights, {', '.join(names)}; the file has {len(arrays)}"
            )
        for name, array in zip(names, arrays, strict=True):
            expected = network.weights[f"{layer}/{name}"].shape
            if array.shape != expected:
                raise FileError(f"{spec.name}: {layer}/{name}: expected shape {expected}; the file has {array.shape}")
            weights[f"{layer}/{name}"] = array
    return weights


def _live(model: Any, loss: Any, seed: int) -> Subject:
    from parity.runners import keras

    if type(model).__name__ != "Sequential":
        raise UsageError(
            f"model: expected a Sequential; received {type(model).__name__} {getattr(model, 'name', '')!r}"
        )
    if not model.built:
        raise UsageError(f"{model.name}: the model has no weights yet; give it keras.Input(shape), or call build")
    if not type(model).__module__.startswith("keras."):
        raise UsageError(f"model: expected Keras's own Sequential; received a class of {type(model).__module__}, whose "
                         "methods may compute something else")  # fmt: skip
    _require_keras_functions(model)
    compiled: Mapping[str, Any] = getattr(model, "get_compile_config", dict)() or {}
    _require_plain(model.name, compiled)
    spec = Spec(model.name, model.get_config(), compiled.get("loss"), optimizer=_optimizer(compiled), seed=seed)
    return Subject(spec, keras.weights_of(model))


def _require_keras_functions(model: Any) -> None:
    """`UsageError` for functions of the user's: a config knows them by name only, and another of that name would be
    compared."""
    functions = {f"activation of {layer.name}": getattr(layer, "activation", None) for layer in model.layers}
    functions["loss"] = getattr(model, "loss", None)
    for what, function in functions.items():
        module = getattr(function, "__module__", None) or "keras."
        if callable(function) and not module.startswith("keras."):
            name = f"{module}.{getattr(function, '__name__', type(function).__name__)}"
            raise UsageError(f"{model.name}: the {what} is {name}, not one of Keras's; only those can be compared")


def _require_plain(name: str, compiled: Mapping[str, Any]) -> None:
    if compiled.get("loss_weights") is not None:
        raise UsageError(
            f"{name}: compiled with loss_weights={compiled['loss_weights']}, which is not supported; leave it out"
        )


def _optimizer(compiled: Mapping[str, Any]) -> Any:
    """The optimizer that the model was compiled with; None where scratchnet lacks it: no update is compared then."""
    return compiled.get("optimizer") if scratch.knows_optimizer(compiled.get("optimizer")) else None


def _with_loss(subjects: list[Subject], loss: Any) -> list[Subject]:
    """Each network once, with this loss."""
    by_name = {subject.spec.name: subject for subject in subjects}
    return [Subject(replace(s.spec, loss=loss), s.weights) for s in by_name.values()]
