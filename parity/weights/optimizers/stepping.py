"""The next steps of an optimizer that lies in a file: made of its settings, its state and the weights beside it.

In the framework whose arithmetic it has, as far as that is installed: SGD of Keras by scratchnet, whose rule is
written out there; the others by their framework.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from parity.weights.optimizers.holder import Gradients, Holder
from parity.weights.optimizers.state import Refused, slots_of
from parity.weights.optimizers.torch_ends import OF_ADAM
from scratchnet import optimizers

__all__ = ["of_file"]

Weights = Mapping[str, np.ndarray]


def of_file(holder: Holder, weights: Callable[[], Weights]) -> Holder:
    """With the way to make its steps, where there is one. weights: of the file, in Keras's form."""
    optimizer = holder.optimizer
    if slots_of(optimizer) is None or optimizer.rate is None:
        return holder
    if optimizer.framework == "torch":
        return replace(holder, stepped=lambda gradients: _in_torch(holder, weights(), gradients), runner="PyTorch")
    if optimizer.kind == "SGD" and (rule := _rule(optimizer.settings or {})) is not None:
        found = rule  # the name of the condition may be None in a function that is called later

        def stepped(gradients: Sequence[Gradients]) -> Sequence[Gradients]:
            return _in_scratchnet(found, holder, weights(), gradients)

        return replace(holder, stepped=stepped, runner="scratchnet")
    if importlib.util.find_spec("keras") is None:
        return holder
    return replace(holder, stepped=lambda gradients: _in_keras(holder, weights(), gradients), runner="Keras")


def _slots(holder: Holder, weight: str) -> dict[str, np.ndarray]:
    return {slot: holder.slot((slot, of)) for slot, of in holder.places if of == weight}


def _rule(settings: Mapping[str, Any]) -> Any:
    """scratchnet's SGD; None where it does not have these settings."""
    known = {name: value for name, value in settings.items() if name not in ("jit_compile", "is_legacy_optimizer")}
    try:
        return optimizers.get({"class_name": "SGD", "config": known})
    except (TypeError, ValueError):
        return None


def _in_scratchnet(rule: Any, holder: Holder, weights: Weights, gradients: Sequence[Gradients]) -> Sequence[Gradients]:
    now = {weight: weights[weight] for weight in holder.trained}
    state = {weight: _slots(holder, weight) or rule.zero_state(now[weight]) for weight in now}
    after = []
    for step in gradients:
        for weight, before in now.items():
            now[weight], state[weight] = rule.step(before, step[weight].astype(before.dtype), state[weight])
        after.append(dict(now))
    return after


def _built(kind: Any, settings: Mapping[str, Any]) -> Any:
    """An optimizer with the settings of a file. `Refused` where they are none of its own."""
    try:
        return kind(**settings)
    except (TypeError, ValueError) as error:
        raise Refused(f"the file has other settings than {kind.__name__}: {error}") from error


def _in_keras(holder: Holder, weights: Weights, gradients: Sequence[Gradients]) -> Sequence[Gradients]:
    from parity.runners import tensorflow

    _, keras = tensorflow.imported()
    optimizer = holder.optimizer
    own = {weight: weights[weight] for weight in holder.trained}
    dtype = np.result_type(*own.values())
    with tensorflow.precision(dtype.name):
        made = _built(getattr(keras.optimizers, optimizer.kind), dict(optimizer.settings or {}))
        variables = {weight: keras.Variable(array, dtype=array.dtype.name) for weight, array in own.items()}
        made.build(list(variables.values()))
    made.iterations.assign(holder.iterations or 0)
    lists = {"momentum": "_momentums", "velocity": "_velocities", "velocity_hat": "_velocity_hats"}
    for number, weight in enumerate(own):
        for slot, array in _slots(holder, weight).items():
            getattr(made, lists[slot])[number].assign(array)
    after = []
    for step in gradients:
        tensors = [keras.ops.convert_to_tensor(step[weight], dtype=v.dtype) for weight, v in variables.items()]
        made.apply_gradients(list(zip(tensors, variables.values(), strict=True)))
        after.append({weight: np.array(variable.numpy()) for weight, variable in variables.items()})
    return after


def _in_torch(holder: Holder, weights: Weights, gradients: Sequence[Gradients]) -> Sequence[Gradients]:
    import torch

    optimizer = holder.optimizer
    settings = dict(optimizer.settings or {})
    rate = settings.pop("learning_rate")
    if optimizer.kind == "SGD":
        settings["weight_decay"] = settings.pop("weight_decay in the gradient")

    def tensor(array: np.ndarray) -> Any:
        return torch.from_numpy(np.array(array, order="C"))

    parameters = {weight: torch.nn.Parameter(tensor(weights[weight])) for weight in holder.trained}
    made = _built(getattr(torch.optim, optimizer.kind), {"params": parameters.values(), "lr": rate, **settings})
    for weight, parameter in parameters.items():
        for slot, array in _slots(holder, weight).items():
            if optimizer.kind == "SGD":
                made.state[parameter]["momentum_buffer"] = tensor(array / array.dtype.type(-rate))
                continue
            made.state[parameter][OF_ADAM[slot]] = tensor(array)
            made.state[parameter]["step"] = torch.tensor(float(holder.iterations or 0))
    after = []
    for step in gradients:
        for weight, parameter in parameters.items():
            parameter.grad = tensor(step[weight]).to(parameter)
        made.step()
        after.append({weight: p.detach().numpy().copy() for weight, p in parameters.items()})
    return after
