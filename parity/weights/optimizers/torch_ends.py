"""The state of PyTorch's optimizers: of a live one, and of the checkpoint that its `state_dict` was saved in.

A `state_dict` has a dictionary for each parameter, by number, and the settings by group; which class the optimizer is
of it does not say, but no two of the classes here keep the same names.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np

from parity.weights.formats.limits import shown
from parity.weights.optimizers.holder import Gradients, Holder, Place, Slot
from parity.weights.optimizers.state import NOT_TRAINED, Optimizer, Refused
from parity.weights.sides import Match
from parity.weights.skeleton import Skeleton
from parity.weights.stored import Archive

__all__ = ["OF_ADAM", "in_file", "live"]

STEP = "step"
OF_ADAM = {"momentum": "exp_avg", "velocity": "exp_avg_sq", "velocity_hat": "max_exp_avg_sq"}
SLOTS: Mapping[str, Mapping[str, str]] = {"SGD": {"momentum": "momentum_buffer"}, "Adam": OF_ADAM, "AdamW": OF_ADAM}
"""Class -> what Keras calls a slot -> what PyTorch does."""
SETTINGS = {"SGD": {"lr", "momentum", "nesterov"}, "Adam": {"lr", "betas", "eps", "amsgrad"}}
"""What tells a class by its settings."""


def _key(name: str, parameter: str) -> str:
    return f"optimizer/{name}/{parameter}"


def _optimizer(kind: str, group: Mapping[str, Any]) -> Optimizer:
    """`Refused` for a class whose state is not known."""
    rate = group.get("lr")
    if not _is_number(rate) or not 0 < rate < math.inf:
        raise Refused(f"optimizer: expected a learning rate that is a number above 0; received {shown(rate)}")
    if kind == "SGD":
        if not _is_number(group["momentum"]):
            raise Refused(f"optimizer: expected a momentum that is a number; received {shown(group['momentum'])}")
        return Optimizer(
            kind,
            {
                "learning_rate": float(rate),
                "momentum": group["momentum"],
                "nesterov": group["nesterov"],
                "dampening": group.get("dampening", 0),
                "maximize": group.get("maximize", False),
                "weight_decay in the gradient": group.get("weight_decay", 0),
            },
            "torch",
        )
    if kind in ("Adam", "AdamW"):
        betas = group["betas"]
        if not isinstance(betas, list | tuple) or not all(map(_is_number, betas)):
            raise Refused(f"optimizer: expected betas that are numbers; received {shown(betas)}")
        names = ("eps", "weight_decay", "amsgrad", "maximize")
        settings = {"learning_rate": float(rate), "betas": list(betas), **{n: group.get(n) for n in names}}
        return Optimizer(kind, settings, "torch")
    raise Refused(f"optimizer: expected SGD or Adam; how the state of {kind} corresponds is not known")


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _places(optimizer: Optimizer, weights: Mapping[str, str], match: Match, names: Iterable[str]) -> dict[Slot, Place]:
    """weights: weight -> the parameter's name or number; names: of what is kept."""
    kept = set(names)
    rate = optimizer.rate if optimizer.kind == "SGD" else None
    return {
        (slot, weight): Place(_key(name, parameter), match.held[weight].transforms, rate)
        for slot, name in SLOTS[optimizer.kind].items()
        if name in kept
        for weight, parameter in weights.items()
    }


# -- live --------------------------------------------------------------------------------------------------------------


def live(model: Any, optimizer: Any, match: Match, to_write: bool) -> Holder:
    """to_write: the places are those of all parameters, else of those that have made a step."""
    if len(optimizer.param_groups) != 1:
        raise Refused(f"optimizer: expected one group of parameters; received {len(optimizer.param_groups)}")
    group = optimizer.param_groups[0]
    known = _optimizer(type(optimizer).__name__, group)
    parameters = dict(model.named_parameters())
    given = set(map(id, group["params"]))
    weights = {w: held.keys[0] for w, held in match.held.items() if id(parameters.get(held.keys[0])) in given}
    if not weights:
        raise Refused(
            f"optimizer: expected one of the model's parameters; received {len(given)} others: of another model, or of "
            "this one before it was copied"
        )

    def kept(key: str) -> Any:
        _, name, parameter = key.split("/")
        return optimizer.state.get(parameters[parameter], {}).get(name)

    found = _places(known, weights, match, _kept(known))
    if not to_write:
        found = {slot: place for slot, place in found.items() if kept(place.key) is not None}
        _require_whole(known, found)
    steps = {int(s[STEP]) for p in parameters.values() if STEP in (s := optimizer.state.get(p, {}))}

    def put(arrays: Mapping[str, np.ndarray]) -> None:
        torch = sys.modules["torch"]
        for key, array in arrays.items():
            _, name, parameter = key.split("/")
            there = parameters[parameter]
            value = torch.from_numpy(np.array(array, order="C"))
            # A count is float32 on the CPU, whatever the parameter is; the rest is as the parameter.
            optimizer.state[there][name] = value if name == STEP else value.to(there)

    return Holder(
        "the optimizer",
        known,
        found,
        tuple(weights),
        lambda key: np.asarray(kept(key).detach().cpu().numpy()),
        iterations=_one(steps),
        count=_counter(known, weights),
        put=put,
        stepped=lambda gradients: _stepped(model, optimizer, match, weights, gradients),
        runner="PyTorch",
    )


def _kept(optimizer: Optimizer) -> list[str]:
    if optimizer.kind == "SGD":
        return ["momentum_buffer"] if optimizer.setting("momentum") else []
    hat = ["max_exp_avg_sq"] if optimizer.setting("amsgrad") else []
    return ["exp_avg", "exp_avg_sq", *hat]


def _require_whole(optimizer: Optimizer, found: Mapping[Slot, Place]) -> None:
    """Adam makes all its slots at once: a weight has each of them, or made no step."""
    names = [slot for slot, name in SLOTS[optimizer.kind].items() if name in _kept(optimizer)]
    for weight in dict.fromkeys(weight for _, weight in found):
        lacking = [name for name in names if (name, weight) not in found]
        if lacking:
            raise Refused(f"optimizer: expected {' and '.join(names)} of {weight}; received no {', '.join(lacking)}")


def _one(steps: set[int]) -> int | None:
    if len(steps) > 1:
        raise Refused(f"optimizer: expected the same number of steps for all parameters; received {sorted(steps)}")
    return next(iter(steps), None)


def _counter(optimizer: Optimizer, weights: Mapping[str, str]) -> Callable[[int], dict[str, np.ndarray]]:
    """Adam counts for each parameter, SGD does not."""
    counted = {} if optimizer.kind == "SGD" else weights
    return lambda steps: {_key(STEP, parameter): np.array(steps, np.float32) for parameter in counted.values()}


def _stepped(
    model: Any, optimizer: Any, match: Match, weights: Mapping[str, str], gradients: Sequence[Gradients]
) -> Sequence[Gradients]:
    """What the optimizer makes of a copy of the model."""
    torch = sys.modules["torch"]
    twin, its_optimizer = copy.deepcopy((model, optimizer))  # together, so that the one still belongs to the other
    parameters = dict(twin.named_parameters())
    part = Match({weight: match.held[weight] for weight in weights})
    after = []
    for step in gradients:
        for name, array in part.arrange(step).items():
            parameters[name].grad = torch.from_numpy(np.array(array, order="C")).to(parameters[name])
        its_optimizer.step()
        now = {name: parameters[name].detach().cpu().numpy().copy() for name in weights.values()}
        after.append(part.restore(now.__getitem__))
    return after


# -- checkpoints -------------------------------------------------------------------------------------------------------


def in_file(archive: Archive, config: Mapping[str, Any], match: Match, skeleton: Skeleton) -> Holder:
    """What a checkpoint holds. Its parameters have numbers; the order is that of the weights in the file, as
    `model.parameters()` has it, unless the optimizer was given names."""
    groups = config.get("param_groups")
    if not isinstance(groups, list) or len(groups) != 1 or not isinstance(groups[0], dict):
        raise Refused("optimizer: expected one group of parameters in the checkpoint")
    group = groups[0]
    kind = next((kind for kind, names in SETTINGS.items() if names <= set(group)), None)
    if kind is None:
        raise Refused(f"optimizer: expected SGD or Adam; received the settings {', '.join(map(str, group))}")
    if kind == "Adam" and group.get("decoupled_weight_decay"):
        kind = "AdamW"
    known = _optimizer(kind, group)
    weights = _numbered(group, archive, match, skeleton)
    found = _places(known, weights, match, _kept(known))
    found = {slot: place for slot, place in found.items() if place.key in archive.arrays}
    _require_whole(known, found)
    for (name, weight), place in found.items():
        expected, received = archive.arrays[match.held[weight].keys[0]].shape, archive.arrays[place.key].shape
        if received != expected:
            raise Refused(
                f"{name} of {weight}: expected {expected} as its weight; received {received}: the optimizer has its "
                "parameters in another order than the model"
            )
    steps = {_steps(archive, _key(STEP, number)) for number in weights.values() if _key(STEP, number) in archive.arrays}
    counts = config.get("steps", {})  # before PyTorch 1.12, numbers and no tensors
    steps |= {counts[number] for number in weights.values() if number in counts}
    named = [NUMBERED] if "param_names" not in group and found else []
    if left := _left(archive, found, weights):
        named.append(f"left behind, since it is not known of which weight it is or what: {', '.join(left)}")
    return Holder(
        archive.name,
        known,
        found,
        tuple(weights),
        lambda key: archive.arrays[key].load(),
        iterations=_one(steps),
        notes=tuple(named),
    )


NUMBERED = "the checkpoint numbers them; taken in the order of the model's weights"


def _left(archive: Archive, found: Mapping[Slot, Place], weights: Mapping[str, str]) -> list[str]:
    """The state that is neither a slot of a weight nor its number of steps."""
    known = {place.key for place in found.values()} | {_key(STEP, number) for number in weights.values()}
    return [key for key in archive.arrays if key.startswith("optimizer/") and key not in known]


def _numbered(group: Mapping[str, Any], archive: Archive, match: Match, skeleton: Skeleton) -> dict[str, str]:
    """Weight -> the number of its parameter."""
    roles = {slot.key: slot.role for slot in skeleton.slots}
    keys = {held.keys[0]: weight for weight, held in match.held.items() if roles[weight] not in NOT_TRAINED}
    names = group.get("param_names") or [key for key in archive.arrays if key in keys]
    numbers = group.get("params")
    if not isinstance(numbers, list) or not isinstance(names, list) or len(numbers) != len(names):
        raise Refused(
            f"optimizer: expected {len(keys)} parameters, as the model has weights; received {shown(numbers)}"
        )
    if len(set(map(str, names)) & set(keys)) != len(names):
        raise Refused(f"optimizer: expected the parameters {', '.join(keys)}; received {shown(names)}")
    return {keys[name]: str(number) for name, number in zip(names, numbers, strict=True)}


def _steps(archive: Archive, key: str) -> int:
    value = archive.arrays[key].load()
    if value.shape or not 0 <= float(value) < 2**53 or float(value) != int(value):
        raise Refused(f"{key}: expected a number of steps; received {shown(value)}")
    return int(value)
