"""The state of Keras's optimizers, live and in Keras's files: one list of variables in a fixed order.

First the number of steps, then the learning rate unless a schedule gives it, then the slots: m of every weight for SGD
with momentum; m and v of the first weight, m and v of the second ... for Adam, behind them all v_hat under amsgrad
(`keras/src/optimizers/base_optimizer.py`, `sgd.py`, `adam.py`). In `.keras` and `.weights.h5` they are
`optimizer/vars/0`, `1`, `2` ..., in the `.h5` of Keras 2 they have names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from parity.weights.formats import keras_h5
from parity.weights.optimizers.holder import Gradients, Holder, Place, Slot
from parity.weights.optimizers.state import CONFIG, NOT_TRAINED, Optimizer, Refused, slots_of
from parity.weights.sides import Match
from parity.weights.skeleton import Skeleton, roles_of
from parity.weights.stored import Archive

__all__ = ["VARIABLES", "WHOLE", "in_file", "live", "new_file", "number", "places", "template", "trained_in"]

VARIABLES = "optimizer/vars"
WHOLE = "variable"
"""The slot of a variable that is only known by its number."""


def places(optimizer: Optimizer, trained: Iterable[str], match: Match, keys: list[str]) -> dict[Slot, Place]:
    """Slot -> where it is among the variables. keys: of all of them, in their order. `Refused` where the optimizer has
    more or fewer variables than these weights need; none for one that was saved before it was built."""
    first = 1 if optimizer.settings is None or optimizer.rate is None else 2
    groups = slots_of(optimizer)
    if groups is None:
        return {(WHOLE, str(n)): Place(key) for n, key in enumerate(keys) if n >= first}
    slots = [(slot, weight) for group in groups for weight in trained for slot in group]
    if len(keys) == first:
        return {}
    if len(keys) != first + len(slots):
        raise Refused(
            f"{optimizer.kind}: expected {first + len(slots)} variables for {len(set(w for _, w in slots))} trained "
            f"weights; received {len(keys)}"
        )
    return {slot: Place(key, match.held[slot[1]].transforms) for slot, key in zip(slots, keys[first:], strict=True)}


# -- live --------------------------------------------------------------------------------------------------------------


def live(model: Any, match: Match, to_write: bool) -> Holder | None:
    """None where the model is not compiled. to_write: the places are those of the optimizer once it is built."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return None
    known = Optimizer(type(optimizer).__name__, optimizer.get_config())
    weights = {held.keys[0]: weight for weight, held in match.held.items()}
    trained = tuple(weights[key] for key in _trainable(model))
    if optimizer.built and list(map(id, optimizer._trainable_variables)) != list(map(id, model.trainable_variables)):
        raise Refused("the optimizer was built for other weights than those that are trained now")
    keys = _keys(len(optimizer.variables)) if optimizer.built else []
    if to_write and not keys:
        keys = _keys(len(_copy(model).variables) if slots_of(known) is None else _needed(known, trained))

    def put(arrays: Mapping[str, np.ndarray]) -> None:
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
        for key, array in arrays.items():
            optimizer.variables[number(key)].assign(array)

    return Holder(
        "the model",
        known,
        places(known, trained, match, keys) if keys else {},
        trained,
        lambda key: np.asarray(optimizer.variables[number(key)].numpy()),
        # The variable: under gradient accumulation the property `iterations` counts updates.
        iterations=int(optimizer.variables[0]) if optimizer.built else 0,
        count=_counted,
        put=put,
        stepped=lambda gradients: _stepped(model, match, trained, gradients),
        runner="Keras",
    )


def _keys(count: int) -> list[str]:
    return [f"{VARIABLES}/{n}" for n in range(count)]


def number(key: str) -> int:
    """Of a variable; 0 for a key of another form."""
    last = key.rpartition("/")[2]
    return int(last) if key.startswith(f"{VARIABLES}/") and last.isdecimal() else 0


def _counted(steps: int) -> dict[str, np.ndarray]:
    return {f"{VARIABLES}/0": np.array(steps, np.int64)}


def _needed(optimizer: Optimizer, trained: tuple[str, ...]) -> int:
    return (1 if optimizer.rate is None else 2) + len(trained) * sum(map(len, slots_of(optimizer) or ()))


def _trainable(model: Any) -> list[str]:
    """The keys of the weights that the optimizer changes, in its order."""
    keys = {id(v): f"{layer.name}/{role}" for layer in model.layers for role, v in roles_of(layer).items()}
    return [keys[id(variable)] for variable in model.trainable_variables]


def _copy(model: Any) -> Any:
    """A new optimizer of the same class and settings, built for copies of the weights."""
    from parity.runners import tensorflow

    _, keras = tensorflow.imported()
    old = model.optimizer
    rate = getattr(old.learning_rate, "dtype", None) or keras.config.floatx()
    with tensorflow.precision(str(rate)):  # the dtype of a learning rate is Keras's global one
        new = type(old).from_config(old.get_config())
        new.build([keras.Variable(v.numpy(), dtype=v.dtype, name=v.name) for v in model.trainable_variables])
    return new


def _stepped(model: Any, match: Match, trained: tuple[str, ...], gradients: Sequence[Gradients]) -> Sequence[Gradients]:
    """What the optimizer makes of copies of the weights."""
    from parity.runners import tensorflow

    _, keras = tensorflow.imported()
    optimizer = _copy(model)
    if model.optimizer.built:
        for new, old in zip(optimizer.variables, model.optimizer.variables, strict=True):
            new.assign(old)
    variables = optimizer._trainable_variables
    part = Match({weight: match.held[weight] for weight in trained})
    keys = [held.keys[0] for held in part.held.values()]
    after = []
    for step in gradients:
        native = part.arrange(step)
        pairs = zip(keys, variables, strict=True)
        optimizer.apply_gradients([(keras.ops.convert_to_tensor(native[key], dtype=v.dtype), v) for key, v in pairs])
        now = {key: np.array(variable.numpy()) for key, variable in zip(keys, variables, strict=True)}
        after.append(part.restore(now.__getitem__))
    return after


# -- files -------------------------------------------------------------------------------------------------------------


def in_file(
    archive: Archive, match: Match, skeleton: Skeleton, said: Optimizer | None, instead: Optimizer | None
) -> Holder:
    """What a `.keras`, `.weights.h5` or `.h5` holds. said: what the file says of its optimizer; instead: what that of
    the other end is. Where neither is known, the variables can only be moved as they stand."""
    known = said or instead or Optimizer("optimizer", None)
    trained = trained_in(archive, match, skeleton)
    if archive.format == "keras-legacy":
        keys = [key for key in archive.arrays if key.startswith("optimizer_weights/")]
        _require_names(keys, known)
    else:
        keys = _keys(sum(key.startswith("optimizer/") for key in archive.arrays))
        if strange := [key for key in keys if key not in archive.arrays]:
            raise Refused(
                f"{strange[0]}: expected the variables of the optimizer by number; there is none of this name"
            )
    found = places(known, trained, match, keys) if keys else {}
    taken = said is None and instead is not None
    if taken and known.rate is not None and len(keys) > 1:
        _require_rate(archive.arrays[keys[1]].load(), known)
    steps = np.asarray(archive.arrays[keys[0]].load()) if keys else np.array(0)
    if steps.shape or steps.dtype.kind not in "iu":
        raise Refused(f"{keys[0]}: expected the number of steps; received {steps.dtype} {steps.shape}")
    return Holder(
        archive.name,
        known,
        found,
        trained,
        lambda key: archive.arrays[key].load(),
        iterations=int(steps),
        count=_counted,
        notes=(TAKEN,) * taken,
    )


TAKEN = "the file does not say the settings of its optimizer, so they are taken to be those of the target"


def _require_rate(held: np.ndarray, optimizer: Optimizer) -> None:
    """The one setting that Keras keeps among the variables."""
    if held.shape or np.float32(held) != np.float32(optimizer.rate or 0.0):
        raise Refused(f"optimizer: the learning rate in the file is {held}, that of the target {optimizer.rate}")


def _require_names(keys: list[str], optimizer: Optimizer) -> None:
    """That a file with names lists the variables as Keras 3 does: before it, other versions had other orders."""
    groups = slots_of(optimizer) or ()
    endings = {slot for group in groups for slot in group}
    first = 1 if optimizer.settings is None or optimizer.rate is None else 2
    of_keras_3 = all(re.search(rf"_({'|'.join(endings)})$", key) for key in keys[first:]) if endings else True
    if keys and (not keys[0].endswith("/iteration") or not of_keras_3):
        raise Refused(f"optimizer_weights: expected the variables of Keras 3; received {', '.join(keys[:3])} ...")


def new_file(
    path: str, optimizer: Optimizer, match: Match, skeleton: Skeleton, count: int, dtype: np.dtype[Any]
) -> Holder:
    """A `.weights.h5` that is written. count: of the variables, where only the source knows; dtype: of the weights,
    which Keras's learning rate has, too."""
    trained = trained_in(None, match, skeleton)
    keys = _keys(_needed(optimizer, trained) if slots_of(optimizer) is not None else count)
    rate = (
        {}
        if optimizer.rate is None
        else {f"{VARIABLES}/1": np.array(optimizer.rate, np.promote_types(dtype, np.float32))}
    )
    return Holder(
        path,
        optimizer,
        places(optimizer, trained, match, keys),
        trained,
        _nothing,
        count=lambda steps: {**_counted(steps), **rate},
        texts={} if optimizer.settings is None else {CONFIG: optimizer.to_text()},
    )


def template(archive: Archive, optimizer: Optimizer, match: Match, skeleton: Skeleton, count: int) -> Holder:
    """A `.keras` whose arrays are replaced. It may have been saved before its optimizer was built: then the variables
    are added, of which Keras knows the number by itself."""
    trained = trained_in(archive, match, skeleton)
    keys = _keys(_needed(optimizer, trained) if slots_of(optimizer) is not None else count)
    return Holder(archive.name, optimizer, places(optimizer, trained, match, keys), trained, _nothing, count=_counted)


def _nothing(key: str) -> np.ndarray:
    raise AssertionError(f"{key}: of a file that is not written yet")


def trained_in(archive: Archive | None, match: Match, skeleton: Skeleton) -> tuple[str, ...]:
    """The weights that an optimizer changes, in the order of the network's layers, as far as configs say it."""
    order = {slot.key: n for n, slot in enumerate(skeleton.slots)}
    if archive is not None and archive.format != "keras-weights":
        keys = {key: n for n, key in enumerate(archive.arrays)}
        order = {weight: keys[held.keys[0]] for weight, held in match.held.items()}
    config = skeleton.config if archive is None or archive.config is None else archive.config
    frozen = {
        layer["config"]["name"]
        for layer in (config or {}).get("layers", ())
        if not layer["config"].get("trainable", True)
    }
    owners = _owners(archive, match, config)
    roles = {slot.key: slot.role for slot in skeleton.slots}
    return tuple(
        weight
        for weight in sorted(match.held, key=order.__getitem__)
        if roles[weight] not in NOT_TRAINED and owners[weight] not in frozen
    )


def _owners(archive: Archive | None, match: Match, config: Any) -> dict[str, str]:
    """Weight -> the layer that the end keeps it in, by the names of the end's own config."""
    if archive is None or archive.config is None:
        return {weight: weight.rpartition("/")[0] for weight in match.held}
    if archive.format == "keras-legacy":
        return {weight: held.keys[0].partition("/")[0] for weight, held in match.held.items()}
    names = {group: name for name, group in keras_h5.groups(config).items()}
    return {weight: names["/".join(held.keys[0].split("/")[:2])] for weight, held in match.held.items()}
