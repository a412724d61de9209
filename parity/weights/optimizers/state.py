"""Optimizers as a port knows them: class and settings in Keras's words, and whether two of them make the same step.

SGD with momentum mu and learning rate lr: Keras and scratchnet keep m = mu m - lr g and add it to the weight, PyTorch
keeps b = mu b + g and subtracts lr b. So m = -lr b, for as long as the learning rate stays the same.

Adam: Keras divides by sqrt(v) + epsilon, with its corrections for the first steps in the factor in front; PyTorch
divides by sqrt(v / (1 - beta2^t)) + epsilon. Its epsilon is thus another at every step, and no state makes them equal.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.weights.formats.limits import shown

__all__ = ["CONFIG", "NOT_TRAINED", "Optimizer", "Refused", "in_keras", "require_same", "slots_of"]

CONFIG = "optimizer_config"
"""The name, among the texts of a file, of what it says of its optimizer: JSON with `class_name` and `config`."""
NOT_TRAINED = ("moving_mean", "moving_variance")
"""Roles of weights that no optimizer changes."""

ADAM = (
    "Adam: Keras and PyTorch place epsilon differently (Keras adds it to sqrt(v), PyTorch to sqrt(v / (1 - beta2^t))), "
    "so no state makes the next steps equal; give the model without its optimizer, and train on from a fresh state"
)
OF_PYTORCH = {
    "dampening": "Keras has no dampening",
    "maximize": "Keras has no maximize",
    "weight_decay in the gradient": "PyTorch's SGD adds weight decay to the gradient, Keras takes it off the weight",
}
"""Settings that only PyTorch has, and why another value than none cannot be ported."""
NEUTRAL: Mapping[str, Any] = {
    "nesterov": False,
    "amsgrad": False,
    "weight_decay": None,
    "clipnorm": None,
    "global_clipnorm": None,
    "clipvalue": None,
    "use_ema": False,
    "ema_momentum": 0.99,
    "ema_overwrite_frequency": None,
    "loss_scale_factor": None,
    "gradient_accumulation_steps": None,
    "dampening": 0,
    "maximize": False,
    "weight_decay in the gradient": 0,
}
"""What a setting is where nothing is said of it."""
WITHOUT_EFFECT = ("name", "jit_compile", "is_legacy_optimizer")


class Refused(Exception):
    """Why the state of an optimizer cannot be ported."""


@dataclass(frozen=True)
class Optimizer:
    """kind: Keras's class, such as SGD; settings: as Keras calls them, None where a file does not say them; framework:
    keras or torch, the one whose arithmetic it has (scratchnet's is Keras's)."""

    kind: str
    settings: Mapping[str, Any] | None
    framework: str = "keras"

    def setting(self, name: str) -> Any:
        return (self.settings or {}).get(name, NEUTRAL.get(name))

    def to_text(self) -> str:
        """For the texts of a file."""
        settings = {name: value for name, value in (self.settings or {}).items() if name not in WITHOUT_EFFECT}
        return json.dumps({"class_name": self.kind, "framework": self.framework, "config": settings})

    @property
    def rate(self) -> float | None:
        """The learning rate, where it is a number; a schedule is a config."""
        found = self.setting("learning_rate")
        return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def in_keras(optimizer: Optimizer) -> Optimizer:
    """The one of Keras's with the same settings; whether it makes the same steps, `require_same` says."""
    settings = optimizer.settings
    if settings is not None:
        settings = {name: value for name, value in settings.items() if name not in OF_PYTORCH}
    return Optimizer(optimizer.kind, settings)


def slots_of(optimizer: Optimizer) -> tuple[tuple[str, ...], ...] | None:
    """What it keeps for each weight, in the groups in which Keras orders it: all of the first group for the first
    weight, then for the second ..., then the second group. None where that is not known: it has other classes and
    options, whose variables can only be moved as they stand."""
    if optimizer.settings is None or optimizer.setting("use_ema") or optimizer.setting("gradient_accumulation_steps"):
        return None
    if optimizer.kind == "SGD":
        return (("momentum",),) if optimizer.setting("momentum") else ()
    if optimizer.kind in ("Adam", "AdamW"):
        hat = (("velocity_hat",),) if optimizer.setting("amsgrad") else ()
        return (("momentum", "velocity"), *hat)
    return None


def require_same(there: Optimizer, here: Optimizer, dtype: np.dtype[Any]) -> None:
    """`Refused` where the next steps of the two would differ. Settings that a file does not say are not compared.

    dtype: of the weights; numbers are the same if they are in it.
    """
    across = there.framework != here.framework
    if across and any(each.kind.startswith("Adam") for each in (there, here)):
        raise Refused(ADAM)
    if there.settings is None or here.settings is None:
        return
    if there.kind != here.kind:
        raise Refused(f"optimizer: expected the same class at both ends; received {there.kind} and {here.kind}")
    if across and there.kind != "SGD":
        raise Refused(
            f"optimizer: expected SGD; how the state of {there.kind} corresponds in Keras and PyTorch is not known"
        )
    names = [*there.settings, *(name for name in here.settings if name not in there.settings)]
    different = [name for name in names if name not in WITHOUT_EFFECT and _differs(name, there, here, dtype)]
    if not different:
        return
    values = ", ".join(f"{name} {_shown(name, there)} and {_shown(name, here)}" for name in different)
    why = "".join(f"; {OF_PYTORCH[name]}" for name in different if name in OF_PYTORCH and across)
    if across and different == ["momentum"] and dtype.itemsize > 4:
        why = "; Keras holds it in float32 whatever the weights are: give PyTorch that number"
    raise Refused(
        f"{there.kind}: the two optimizers have different settings: {values}; their next steps would differ{why}"
    )


def _differs(name: str, there: Optimizer, here: Optimizer, dtype: np.dtype[Any]) -> bool:
    one, other = _value(name, there), _value(name, here)
    if _is_number(one) and _is_number(other):
        return bool(np.asarray(one, dtype) != np.asarray(other, dtype))
    return bool(one != other)


def _value(name: str, optimizer: Optimizer) -> Any:
    """As the optimizer computes with it: Keras casts the Python number of a momentum, which makes it float32's."""
    value = optimizer.setting(name)
    if name == "momentum" and optimizer.framework == "keras" and _is_number(value):
        return float(np.float32(value))
    return value


def _shown(name: str, optimizer: Optimizer) -> str:
    said, computed = optimizer.setting(name), _value(name, optimizer)
    in_float32 = f" ({computed} in float32)" if _is_number(said) and said != computed else ""
    return f"{said if _is_number(said) else shown(said)}{in_float32}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
