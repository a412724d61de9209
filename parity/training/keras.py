"""The reference: Keras's own optimizer, in float64 with constants that are float64 too.

Keras turns a Python number into a float32 tensor before it casts it to the dtype of the weights, so that in a float64
model beta_2 = 0.999 is 0.99900001287, and 1 - beta_2 is off by 1.3e-5 of itself; `get_config` gives a learning rate as
float32 holds it. That is Keras's arithmetic, not its rule. A NumPy float64 is not rounded, so the constants are handed
over as such, and a learning rate as the shortest decimal number that is the same float32: the number somebody wrote.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.errors import UsageError
from parity.mistakes.update_rules import Arrays, Path
from parity.runners import tensorflow

__all__ = ["Reference", "reference_for"]


@dataclass(frozen=True)
class Reference:
    """Keras's optimizer as plain data, and how to run it. live: the optimizer itself; schedule: of its learning rate,
    None where that is a number; rounded: whether that number is known as float32 only."""

    name: str
    config: Mapping[str, Any]
    live: Any
    schedule: Any
    rounded: bool

    @property
    def rate(self) -> float:
        return float(self.config["learning_rate"])

    def scheduled(self, steps: int) -> list[float]:
        """What Keras's schedule gives for each step."""
        with tensorflow.precision("float64"):
            return [float(self.schedule(step)) for step in range(steps)]

    def run(
        self, names: Sequence[str], weights: Arrays, gradients: Sequence[Arrays], rates: Sequence[float]
    ) -> tuple[Path, list[bool]]:
        """The weights after each step, and which tensors the weight decay is for."""
        tf, keras = tensorflow.imported()
        with tensorflow.precision("float64"):
            optimizer = type(self.live).from_config({key: _exact(value) for key, value in self.config.items()})
            # The names that an optimizer excludes from weight decay are not in its config.
            excluded = getattr(self.live, "_exclude_from_weight_decay_pattern", None)
            optimizer._exclude_from_weight_decay_pattern = excluded
            variables = [
                keras.Variable(w, dtype="float64", name=_name(n, w)) for n, w in zip(names, weights, strict=True)
            ]
            optimizer.build(variables)
            path: Path = []
            for given, rate in zip(gradients, rates, strict=True):
                optimizer.learning_rate = np.float64(rate)
                optimizer.apply([tf.constant(g, tf.float64) for g in given], variables)
                path.append([np.array(variable.numpy()) for variable in variables])
            decays = [bool(optimizer._use_weight_decay(variable)) for variable in variables]
        return path, decays


def reference_for(optimizer: Any) -> Reference:
    """From a live optimizer, its config, its name, or its name with arguments: `"Adam(learning_rate=0.01)"`."""
    _, keras = tensorflow.imported()
    try:
        with tensorflow.precision("float64"):  # what is made here keeps its learning rate as it was given
            live = keras.optimizers.get(_parsed(optimizer) if isinstance(optimizer, str) else optimizer)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"optimizer: expected a Keras optimizer, its config, or its name such as 'Adam(learning_rate=0.01)'; "
            f"received {optimizer!r}: {str(error).splitlines()[0]}"
        ) from error
    config = dict(live.get_config())
    schedule = None
    if isinstance(config["learning_rate"], Mapping):
        schedule = live._learning_rate
        config["learning_rate"] = float(schedule(0))
    elif callable(config["learning_rate"]):
        raise UsageError("optimizer: the learning rate is a function; give a number, and the others as learning_rates=")
    rate = float(config["learning_rate"])
    rounded = schedule is None and rate == float(np.float32(rate))
    config["learning_rate"] = float(str(np.float32(rate))) if rounded else rate
    return Reference(type(live).__name__, config, live, schedule, rounded)


def _parsed(text: str) -> Any:
    """A name, or what the arguments after it make."""
    if "(" not in text:
        return text
    try:
        call = ast.parse(text.strip(), mode="eval").body
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Name)
        assert not call.args
        arguments = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
    except (SyntaxError, AssertionError, ValueError) as error:
        raise UsageError(
            f"optimizer: expected a name with keyword arguments that are numbers, such as 'SGD(momentum=0.9)'; "
            f"received {text!r}"
        ) from error
    return {"class_name": call.func.id, "config": arguments}


def _exact(value: Any) -> Any:
    return np.float64(value) if isinstance(value, float) else value


def _name(name: str, weight: np.ndarray) -> str:
    """A name for Keras, that an exclusion from weight decay by `kernel` or `bias` sees as it would in a model."""
    plain = "".join(c if c.isalnum() else "_" for c in name)
    return f"{plain}_{'kernel' if weight.ndim > 1 else 'bias'}"
