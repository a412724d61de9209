"""PyTorch: the network of a Spec as modules of `torch.nn`, every gradient by autograd, the step by `torch.optim.SGD`.

Images are channels first there, and weights are as PyTorch holds them, put so by the transforms of a port. A trace is
in Keras's form, so outputs and gradients go back through the same transforms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity import trace
from parity.errors import NothingConcluded, UsageError
from parity.runners import torch_layers, torch_losses
from parity.runners.torch_layers import Held, Refused, as_tensorflow
from parity.spec import Spec
from parity.trace import Trace, Weights
from parity.weights import networks
from parity.weights.sides import named, step_to_keras
from parity.weights.skeleton import PER_FEATURE, Slot
from parity.weights.transforms import Flattened, applied, undone

__all__ = ["Image", "Seen", "image_at_end", "imported", "logits_at", "loss_of", "run", "samples", "traced"]

Image = tuple[int, int, int]


def imported() -> Any:
    """torch. `NothingConcluded` where it is not installed."""
    try:
        import torch
    except ImportError as error:
        raise NothingConcluded(
            f"PyTorch is not installed: {error}. Install it with: python -m pip install 'scratchnet-parity[torch]'"
        ) from error
    return torch


@dataclass(frozen=True)
class Part:
    """One layer, or the part of it in front of its activation, or the activation.

    tensor: the name in a trace of what comes out; slots: the weights, which the last module has; image: (height, width,
    channels) where what comes out runs over a flattened image, in PyTorch's order.
    """

    modules: tuple[Any, ...]
    tensor: str
    slots: tuple[Slot, ...] = ()
    image: Image | None = None

    def parameters(self) -> Iterator[tuple[Slot, Any]]:
        """Each weight that has a gradient, with its tensor."""
        for slot in self.slots:
            tensor = getattr(self.modules[-1], named("torch", slot).name)
            if tensor.requires_grad:
                yield slot, tensor


@dataclass(frozen=True)
class Seen:
    """A tensor between two layers, and the image that it runs over, if that was flattened."""

    tensor: Any
    image: Image | None = None

    def keras_form(self, array: Any) -> np.ndarray:
        """An array of its shape, or the gradient by it, with channels last."""
        found = array.detach().cpu().numpy()
        if found.ndim == 4:
            return np.ascontiguousarray(np.moveaxis(found, 1, -1))
        return found if self.image is None else Flattened(self.image, to_last=True).apply(found.T).T

    @property
    def channels_last(self) -> Any:
        """The tensor in Keras's form, with its gradient: a loss compares it with labels, which are in that form."""
        if self.tensor.ndim == 4:
            return self.tensor.movedim(1, -1)
        if self.image is None:
            return self.tensor
        return self.tensor.unflatten(1, (self.image[2], -1)).transpose(1, 2).flatten(1)


def run(spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, held: Held = as_tensorflow) -> Trace:
    """One step of a fresh PyTorch network with these weights, in the dtype of the spec.

    held: how constants such as the slope of a leaky relu are held, as TensorFlow rounds them, or by `float`.
    `NothingConcluded` names the layer, loss or optimizer that PyTorch does not have like Keras.
    """
    torch = imported()
    with torch.inference_mode(False), torch.enable_grad():
        parts = _built(torch, spec, weights, x, held)
        seen = {trace.INPUT: Seen(samples(torch, spec, x))}
        out = seen[trace.INPUT]
        for part in parts:
            out = seen[part.tensor] = Seen(_called(part.modules, out.tensor), part.image)
        pairs = [pair for part in parts for pair in part.parameters()]
        logits = logits_at(spec.config["layers"])
        loss = loss_of(torch, spec, y, out, seen[logits[0]] if logits else None, pairs, held)
        tensors = traced(torch, spec, seen, loss, pairs, held)
    conditions = {"runner": "torch", "dtype": spec.dtype, "torch": str(torch.__version__)}
    return Trace({**tensors, trace.INPUT: x}, conditions)


def image_at_end(spec: Spec, x: np.ndarray) -> Image | None:
    """The image that the outputs run over, if they are a flattened one. `NothingConcluded` as `run`."""
    torch = imported()
    return _built(torch, spec, None, x, float)[-1].image


def samples(torch: Any, spec: Spec, x: np.ndarray) -> Any:
    """As PyTorch takes them: indices as whole numbers that count from the front, images channels first."""
    first = next(entry for entry in spec.config["layers"] if entry["class_name"] != "InputLayer")
    if first["class_name"] == "Embedding":
        return torch.from_numpy(np.mod(x.astype(np.int64), first["config"]["input_dim"]))
    typed = np.moveaxis(x, -1, 1) if x.ndim == 4 else x
    return torch.from_numpy(np.array(typed, dtype=spec.dtype, order="C")).requires_grad_()


# -- building ----------------------------------------------------------------------------------------------------------


def _built(torch: Any, spec: Spec, weights: Weights | None, x: np.ndarray, held: Held) -> list[Part]:
    """The parts of the network, with these weights, or without any. Shapes are worked out on a device without
    memory."""
    try:
        by_layer = networks.skeleton_of(spec.config, spec.name).by_layer
    except UsageError as error:
        raise NothingConcluded(str(error)) from error
    h = Seen(samples(torch, spec, x[:1]).detach().to("meta"))
    parts: list[Part] = []
    for entry in spec.config["layers"]:
        if entry["class_name"] != "InputLayer":
            slots = tuple(by_layer.get(entry["config"]["name"], ()))
            try:
                _require_inference(spec, entry)
                made, h = _layer(torch, spec, entry, slots, h, held)
                trained = entry["config"].get("trainable", True)
                if weights is not None:
                    _load(torch, made[0].modules[-1], slots, weights, spec.dtype, trained)
            except (Refused, UsageError) as error:
                raise NothingConcluded(f"{entry['class_name']} {entry['config']['name']!r}: {error}") from error
            parts += made
    return parts


def _require_inference(spec: Spec, entry: Mapping[str, Any]) -> None:
    kind, settings = entry["class_name"], entry["config"]
    if spec.training and kind == "Dropout" and settings.get("rate"):
        raise Refused("in training PyTorch drops other cells")
    if spec.training and kind == "BatchNormalization" and settings.get("trainable", True):
        raise Refused("in training PyTorch's moving variance is of unbiased variances, Keras's of biased ones")


def _layer(
    torch: Any, spec: Spec, entry: Mapping[str, Any], slots: tuple[Slot, ...], below: Seen, held: Held
) -> tuple[list[Part], Seen]:
    """The parts of one layer, still without memory, and what comes out of it."""
    kind, settings, dtype = entry["class_name"], entry["config"], getattr(torch, spec.dtype)
    name, h = settings["name"], below.tensor
    image = below.image if kind in PER_FEATURE else None
    if kind == "Flatten" and h.ndim == 4:
        image = (*h.shape[2:], h.shape[1])
    with torch.device("meta"):
        inner = torch_layers.modules(torch, kind, settings, {slot.role: slot.shape for slot in slots}, h, held)
        h = _called([module.to(dtype).eval() for module in inner], h)
        outer = [torch_layers.activation_of(torch, activation, h, held) for activation in _outer(settings)]
        h = _called(outer, h)
    if outer and trace.Layer.from_config(entry, ()).has_pre_activation:
        before = Part(tuple(inner), trace.pre_activation(name), slots, image)
        return [before, Part(tuple(outer), trace.output(name), (), image)], Seen(h, image)
    return [Part((*inner, *outer), trace.output(name), slots, image)], Seen(h, image)


def _outer(settings: Mapping[str, Any]) -> list[Any]:
    return [] if settings.get("activation") in (None, "linear") else [settings["activation"]]


def _called(modules: Sequence[Any], h: Any) -> Any:
    for module in modules:
        h = module(h)
    return h


def _load(
    torch: Any, module: Any, slots: Sequence[Slot], weights: Mapping[str, np.ndarray], dtype: str, trainable: bool
) -> None:
    """Give a module its weights, in PyTorch's form."""
    state = {
        named("torch", slot).name: torch.from_numpy(
            np.array(applied(undone(step_to_keras("torch", slot)), weights[slot.key]), dtype=dtype, order="C")
        )
        for slot in slots
    }
    own = set(state)
    for name, tensor in module.state_dict().items():
        if name not in own:  # a gamma or a beta that Keras leaves out, and counters
            state[name] = torch.full_like(tensor, name == "weight", device="cpu")
    module.load_state_dict(state, assign=True)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(trainable and name in own)


# -- what a trace has --------------------------------------------------------------------------------------------------


def logits_at(entries: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """The tensor that Keras's cross-entropies find cached on the output, and the activation behind it; None where there
    is none. A dropout in inference and a linear activation pass it on."""
    entries = [entry for entry in entries if entry["class_name"] != "InputLayer"]
    for position in reversed(range(len(entries))):
        kind, settings = entries[position]["class_name"], entries[position]["config"]
        activation = "softmax" if kind == "Softmax" else settings.get("activation")
        if kind == "Dropout" or (kind == "Activation" and activation == "linear"):
            continue
        if activation not in torch_layers.LOGITS:
            return None
        if trace.Layer.from_config(entries[position], ()).has_pre_activation:
            return trace.pre_activation(settings["name"]), activation
        return trace.output(entries[position - 1]["config"]["name"]) if position else trace.INPUT, activation
    return None


def loss_of(
    torch: Any,
    spec: Spec,
    y: np.ndarray,
    p: Seen,
    z: Seen | None,
    pairs: Sequence[tuple[Slot, Any]],
    held: Held,
) -> Any:
    """The loss of the outputs p, of logits z where there are some, and the penalties on the weights."""
    total = torch_losses.loss(torch, spec.loss, y, p.channels_last, None if z is None else z.channels_last)
    settings = {entry["config"].get("name"): entry["config"] for entry in spec.config["layers"]}
    for slot, tensor in pairs:
        regularizer = settings[slot.layer].get(f"{slot.role}_regularizer")
        if regularizer is not None:
            absolute, squared = (held(factor) for factor in _factors(regularizer))
            total = total + absolute * torch.sum(torch.abs(tensor)) + squared * torch.sum(tensor * tensor)
    return total


def _factors(regularizer: Any) -> tuple[float, float]:
    """Of the sum of magnitudes and of the sum of squares."""
    by_name = isinstance(regularizer, str)
    name, given = (regularizer, {}) if by_name else (regularizer.get("class_name"), regularizer.get("config", {}))
    known = str(name).replace("_", "").upper()
    if known not in ("L1", "L2", "L1L2"):
        raise NothingConcluded(f"the regularizer {name} has no formula in PyTorch's operations here")
    default = 0.01 if by_name or known != "L1L2" else 0.0
    return given.get("l1", default) * ("L1" in known), given.get("l2", default) * ("L2" in known)


def traced(
    torch: Any, spec: Spec, seen: Mapping[str, Seen], loss: Any, pairs: Sequence[tuple[Slot, Any]], held: Held
) -> dict[str, np.ndarray]:
    """Outputs, loss, the gradient by each of them and by each weight, and the weights after a step. seen: in the order
    of the forward pass; pairs: the weights and their tensors, which the step changes."""
    between = {name: each for name, each in seen.items() if each.tensor.requires_grad}
    sources = [each.tensor for each in between.values()] + [tensor for _, tensor in pairs]
    found = torch.autograd.grad(loss, sources, allow_unused=True)
    tensors = {name: each.keras_form(each.tensor) for name, each in seen.items() if name != trace.INPUT}
    tensors[trace.LOSS] = loss.detach().cpu().numpy()
    for (name, each), gradient in zip(between.items(), found, strict=False):
        if gradient is not None:
            tensors[trace.gradient(name)] = each.keras_form(gradient)
    used = [
        (slot, tensor, gradient)
        for (slot, tensor), gradient in zip(pairs, found[len(between) :], strict=True)
        if gradient is not None
    ]
    for slot, _, gradient in used:
        tensors[trace.gradient(slot.key)] = _in_keras_form(slot, gradient)
    if spec.optimizer is not None and used:
        _step(torch, spec, [(tensor, gradient) for _, tensor, gradient in used], held)
        tensors |= {trace.updated(slot.key): _in_keras_form(slot, tensor) for slot, tensor, _ in used}
    return tensors


def _in_keras_form(slot: Slot, tensor: Any) -> np.ndarray:
    array = np.array(tensor.detach().cpu().numpy())  # a copy: a step changes the tensor
    return np.ascontiguousarray(applied(step_to_keras("torch", slot), array))


def _step(torch: Any, spec: Spec, pairs: Sequence[tuple[Any, Any]], held: Held) -> None:
    """The first step of `torch.optim.SGD`. From no state Keras's momentum and PyTorch's make the same one."""
    settings = dict(spec.optimizer.get("config", {})) if isinstance(spec.optimizer, Mapping) else {}
    name = spec.optimizer["class_name"] if isinstance(spec.optimizer, Mapping) else spec.optimizer
    rate = settings.pop("learning_rate", 0.01)
    momentum, nesterov = held(settings.pop("momentum", 0.0)), settings.pop("nesterov", False)
    other = {key: v for key, v in settings.items() if key not in ("name", "ema_momentum") and v not in (None, False)}
    if str(name).lower() != "sgd" or other or not isinstance(rate, float | int):
        raise NothingConcluded(f"the optimizer {name} with {other or rate}: PyTorch's step is not known to be the same")
    for tensor, gradient in pairs:
        tensor.grad = gradient
    torch.optim.SGD([tensor for tensor, _ in pairs], lr=rate, momentum=momentum, nesterov=nesterov).step()
