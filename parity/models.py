"""Whatever a user calls a model -> specs and weights: a name, a file, a live model of Keras or scratchnet, a Spec."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from parity import cases
from parity.errors import FileError, UsageError
from parity.runners import scratch
from parity.spec import DTYPES, Spec
from parity.trace import Weights

__all__ = ["Resolved", "as_data", "resolve"]

FILES = (".keras", ".json")


@dataclass(frozen=True)
class Resolved:
    """A network to check; weights None: designed ones."""

    spec: Spec
    weights: Weights | None = None


def resolve(model: Any, loss: Any, seed: int) -> list[Resolved]:
    """The networks that `model` stands for. `loss` replaces the losses they come with."""
    if model is None:
        found = [Resolved(spec) for spec in cases.networks(seed)]
    elif isinstance(model, Spec):
        found = [Resolved(model)]
    elif isinstance(model, str | Path):
        found = _named(model, seed)
    elif callable(getattr(model, "get_config", None)) and hasattr(model, "layers"):
        by_hand = type(model).__module__.startswith("scratchnet.")
        found = [_by_hand(model, seed) if by_hand else _live(model, seed)]
    else:
        raise UsageError(
            "model: expected a Keras Sequential, a scratchnet one, the name of a network, or a path to a .keras or "
            f".json file; received {type(model).__name__}"
        )
    for subject in found:
        _require_one_precision(subject.spec)
    found = [replace(subject, spec=subject.spec.seeded()) for subject in found]
    return found if loss is None else _with_loss(found, loss)


def as_data(loss: Any) -> Any:
    """A loss as a name or a config, which is how it is built again on both sides. loss: that, None, or an object or a
    function of Keras's. `UsageError` for one of the user's."""
    from parity.runners import keras

    if loss is None or isinstance(loss, str | Mapping):
        return loss
    parts = (loss, getattr(loss, "fn", loss))  # fn: what an object of keras.losses calls
    foreign = [part for part in parts if isinstance(part, type) or not _is_from("keras", part)]
    if not foreign:
        return keras.loss_config(loss)
    raise UsageError(
        "loss: expected one of Keras's own: its name, its config, or an object such as "
        f"keras.losses.MeanSquaredError(); received {_described(foreign[0])}"
    )


def _is_from(package: str, thing: Any) -> bool:
    """Whether a function, or the class of an object, was made by this package. One of the user's has a name only, and
    another of that name would be compared."""
    module = getattr(thing, "__module__", None) or ""
    return callable(thing) and module.partition(".")[0] == package


def _described(thing: Any) -> str:
    module = getattr(thing, "__module__", None)
    if module is None:
        return f"{type(thing).__name__} {thing!r}"
    return f"{module}.{getattr(thing, '__qualname__', type(thing).__name__)}"


def _require_one_precision(spec: Spec) -> None:
    """`UsageError` for a policy of mixed, half or quantized precision, with the layer that has it."""
    for entry in spec.config.get("layers", ()):
        policy = None if entry["class_name"] == "InputLayer" else entry["config"].get("dtype")
        if isinstance(policy, Mapping):
            settings = policy.get("config") or {}
            policy = settings.get("name") or settings.get("mode") or policy.get("class_name")
        if policy is not None and policy not in DTYPES:
            raise UsageError(
                f"{spec.name}: layer {entry['config']['name']!r} has the dtype policy {policy!r}; a check runs the "
                "whole network in float32 and in float64, so mixed and reduced precision cannot be compared; build the "
                "model under keras.config.set_dtype_policy('float32')"
            )


def _named(model: str | Path, seed: int) -> list[Resolved]:
    path, name = Path(model), str(model)
    if path.suffix.lower() in FILES:
        return [_file(path, seed)]
    if found := cases.find(name, seed):
        return [Resolved(spec) for spec in found]
    if name and path.is_file():
        raise FileError(f"{path}: expected a .keras or .json file; received {path.suffix or 'no suffix'}")
    known = [*cases.NETWORKS, "cases", *dict.fromkeys(spec.name for spec in cases.cases())]
    spelled = {other.lower(): other for other in known}
    near = [spelled[other] for other in difflib.get_close_matches(name.lower(), spelled, n=3)]
    if name.lower() in spelled:
        near = near[:1]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    raise UsageError(f"no network is called {name!r}, and no .keras or .json file either; {hint}")


def _file(path: Path, seed: int) -> Resolved:
    from parity.weights import keras_file

    read = keras_file.read(path)
    compiled = read.compile_config or {}
    _require_plain(path.name, compiled)
    spec = Spec(path.name, read.config, compiled.get("loss"), optimizer=_optimizer(compiled), seed=seed)
    return Resolved(spec, None if read.variables is None else _by_name(spec, read.variables))


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


def _by_hand(model: Any, seed: int) -> Resolved:
    """A scratchnet.Sequential: its config, what it was compiled with, and its weights as they are now."""
    if not model.built:
        raise UsageError(f"{model.name}: the model has no weights yet; call build((None, ...)) first")
    entries = {f"layer {layer.name}": layer for layer in model.layers}
    for layer in model.layers:
        parts = {name: part for name, part in vars(layer).items() if hasattr(part, "registered_name")}
        entries.update({f"{name} of {layer.name}": part for name, part in parts.items()})
    optimizer = getattr(model, "optimizer", None)  # there is none before compile
    entries.update({"model": model, "loss": model.loss, "optimizer": optimizer})
    for what, entry in entries.items():
        if entry is not None and not type(entry).__module__.startswith("scratchnet."):
            raise UsageError(f"{model.name}: the {what} is {_described(entry)}, not one of scratchnet's; only those "
                             "can be built again from their config")  # fmt: skip
    spec = Spec(
        model.name, model.get_config(), _written("losses", model.loss), optimizer=_written("optimizers", optimizer),
        seed=seed,
    )  # fmt: skip
    weights = {f"{layer.name}/{name}": w.copy() for layer in model.layers for name, w in layer.weights.items()}
    return Resolved(spec, weights)


def _written(module: str, entry: Any) -> Any:
    """An object of scratchnet's in the form in which Keras writes its own."""
    if entry is None:
        return None
    return {"module": f"keras.{module}", "class_name": entry.registered_name, "config": entry.get_config(),
            "registered_name": None}  # fmt: skip


def _live(model: Any, seed: int) -> Resolved:
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
    loss = as_data(model.loss) if compiled and callable(model.loss) else compiled.get("loss")
    spec = Spec(model.name, model.get_config(), loss, optimizer=_optimizer(compiled), seed=seed)
    return Resolved(spec, keras.weights_of(model))


def _require_keras_functions(model: Any) -> None:
    """`UsageError` for layers and functions of the user's: a config knows them by name only, and another of that name
    would be compared."""
    functions = {f"layer {layer.name}": layer for layer in model.layers}
    functions.update({f"activation of {layer.name}": getattr(layer, "activation", None) for layer in model.layers})
    loss = getattr(model, "loss", None)
    functions.update({"loss": loss, "function of the loss": getattr(loss, "fn", None)})
    for what, function in functions.items():
        if callable(function) and not _is_from("keras", function):
            raise UsageError(
                f"{model.name}: the {what} is {_described(function)}, not one of Keras's; only those can be compared"
            )


def _require_plain(name: str, compiled: Mapping[str, Any]) -> None:
    if compiled.get("loss_weights") is not None:
        raise UsageError(
            f"{name}: compiled with loss_weights={compiled['loss_weights']}, which is not supported; leave it out"
        )


def _optimizer(compiled: Mapping[str, Any]) -> Any:
    """The optimizer that the model was compiled with; None where scratchnet lacks it: no update is compared then."""
    return compiled.get("optimizer") if scratch.knows_optimizer(compiled.get("optimizer")) else None


def _with_loss(subjects: list[Resolved], loss: Any) -> list[Resolved]:
    """Each network once, with this loss."""
    by_name = {subject.spec.name: subject for subject in subjects}
    return [Resolved(replace(s.spec, loss=loss), s.weights) for s in by_name.values()]
