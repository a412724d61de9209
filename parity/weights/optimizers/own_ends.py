"""The state of scratchnet's optimizers, and of `.safetensors` and `.npz` files in Keras's naming.

In such a file the momentum of `dense/kernel` is `optimizer/momentum/dense/kernel`, in the shape of the weight and with
Keras's meaning; `optimizer/iterations` is the number of steps. The text `optimizer_config` says the class, whose
arithmetic it is (Keras's or PyTorch's) and the settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from parity.weights.optimizers.holder import Gradients, Holder, Place, Slot
from parity.weights.optimizers.state import CONFIG, NOT_TRAINED, Optimizer, Refused, slots_of
from parity.weights.sides import Match
from parity.weights.skeleton import Skeleton
from parity.weights.stored import Archive

__all__ = ["in_file", "new_file", "scratch", "trained"]

PREFIX, STEPS = "optimizer", "optimizer/iterations"


def trained(match: Match, skeleton: Skeleton) -> tuple[str, ...]:
    """The weights that get a gradient."""
    return tuple(slot.key for slot in skeleton.slots if slot.role not in NOT_TRAINED and slot.key in match.held)


def _places(optimizer: Optimizer, weights: Iterable[str], match: Match) -> dict[Slot, Place]:
    slots = [slot for group in slots_of(optimizer) or () for slot in group]
    return {
        (slot, weight): Place(f"{PREFIX}/{slot}/{match.held[weight].keys[0]}", match.held[weight].transforms)
        for slot in slots
        for weight in weights
    }


# -- scratchnet --------------------------------------------------------------------------------------------------------


def scratch(model: Any, match: Match, skeleton: Skeleton, to_write: bool) -> Holder | None:
    """None where it is not compiled. to_write: the places are those of all weights, else of those that made a step."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return None
    settings = {name: getattr(optimizer, name) for name in ("learning_rate", "momentum", "nesterov")}
    known = Optimizer(optimizer.registered_name, settings)
    weights = trained(match, skeleton)

    def at(key: str) -> tuple[tuple[str, str], str]:
        _, slot, layer_and_name = key.split("/", 2)
        layer, _, name = layer_and_name.rpartition("/")
        return (layer, name), slot

    def put(arrays: Mapping[str, np.ndarray]) -> None:
        for key, array in arrays.items():
            weight, slot = at(key)
            model._state[weight] = {slot: np.array(array, dtype=model.dtype)}

    def load(key: str) -> np.ndarray:
        weight, slot = at(key)
        return np.asarray(model._state[weight][slot])

    found = _places(known, weights, match)
    if not to_write:
        found = {slot: place for slot, place in found.items() if at(place.key)[0] in model._state}
    return Holder(
        "the network",
        known,
        found,
        weights,
        load,
        put=put,
        stepped=lambda gradients: _stepped(model, match, weights, gradients),
        runner="scratchnet",
    )


def _stepped(model: Any, match: Match, weights: tuple[str, ...], gradients: Sequence[Gradients]) -> Sequence[Gradients]:
    layers = {layer.name: layer for layer in model.layers}
    part = Match({weight: match.held[weight] for weight in weights})
    now: dict[str, np.ndarray] = {}
    state = {}
    for held in part.held.values():
        layer, _, name = held.keys[0].rpartition("/")
        now[held.keys[0]] = layers[layer].weights[name]
        state[held.keys[0]] = model._state.get((layer, name)) or model.optimizer.zero_state(now[held.keys[0]])
    after = []
    for step in gradients:
        for key, gradient in part.arrange(step).items():
            now[key], state[key] = model.optimizer.step(now[key], gradient.astype(model.dtype), state[key])
        after.append(part.restore(dict(now).__getitem__))
    return after


# -- files -------------------------------------------------------------------------------------------------------------


def in_file(archive: Archive, optimizer: Optimizer, match: Match, skeleton: Skeleton) -> Holder:
    """What a `.safetensors` or `.npz` holds. `Refused` for arrays that are not of this form."""
    if slots_of(optimizer) is None:
        raise Refused(f"{CONFIG}: expected SGD, Adam or AdamW; received {optimizer.kind}")
    found = _places(optimizer, trained(match, skeleton), match)
    found = {slot: place for slot, place in found.items() if place.key in archive.arrays}
    known = {STEPS, *(place.key for place in found.values())}
    if strange := [key for key in archive.arrays if key.partition("/")[0] == PREFIX and key not in known]:
        raise Refused(f"{strange[0]}: expected {PREFIX}/<slot>/<weight> of a trained weight")
    steps = archive.arrays[STEPS].load() if STEPS in archive.arrays else np.array(0)
    if steps.shape or steps.dtype.kind not in "iu":
        raise Refused(f"{STEPS}: expected the number of steps; received {steps.dtype} {steps.shape}")
    return Holder(
        archive.name,
        optimizer,
        found,
        tuple(dict.fromkeys(weight for _, weight in found)),
        lambda key: archive.arrays[key].load(),
        iterations=int(steps) if STEPS in archive.arrays else None,
    )


def new_file(path: str, source: Holder, match: Match, skeleton: Skeleton) -> Holder:
    """A file that is written. It holds what the source has: no zeros for weights that it does not train."""
    optimizer = source.optimizer
    if slots_of(optimizer) is None:
        what = "an optimizer that the source does not name" if optimizer.settings is None else optimizer.kind
        raise Refused(
            f"{path} can hold what SGD, Adam and AdamW keep for each weight; received {what}, whose variables are only "
            "known by number; port it to a .weights.h5 or a live model, or save the source as .keras"
        )
    weights = [weight for weight in trained(match, skeleton) if weight in source.trained]
    return Holder(
        path,
        optimizer,
        _places(optimizer, weights, match),
        tuple(weights),
        _nothing,
        count=lambda steps: {STEPS: np.array(steps, np.int64)},
        texts={CONFIG: optimizer.to_text()},
    )


def _nothing(key: str) -> np.ndarray:
    raise AssertionError(f"{key}: of a file that is not written yet")
