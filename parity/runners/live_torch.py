"""What a live PyTorch model computes: its own modules, in their own order, with autograd and `torch.optim.SGD`.

The weights say which of its modules is which layer of the network. What comes out of these modules, the loss, and every
gradient are compared; activations and poolings between them have no names, so a wrong one is seen in the next layer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from parity import trace
from parity.runners import torch as rebuilt
from parity.runners import torch_layers
from parity.runners.torch import Image, Seen
from parity.spec import Spec
from parity.trace import Trace
from parity.weights.skeleton import Skeleton, Slot

__all__ = ["run"]

PASSING = ("Dropout", "Identity")
ENDS = ("LogSoftmax", "Sigmoid", "Softmax")
"""Modules at the end of a model whose input are logits."""


def run(
    model: Any, spec: Spec, skeleton: Skeleton, keys: Mapping[str, str], x: np.ndarray, y: np.ndarray
) -> tuple[Trace, str]:
    """A pass of a copy of the model in the dtype of the spec and in inference, and a note on how it ends, or "".

    skeleton: of the network; keys: weight of the network -> key of the model; x, y: in Keras's form. A model that ends
    in the logits of the network, as those do that are trained with `CrossEntropyLoss`, gets the network's last
    activation. `ValueError`, or what the model raises, for samples that it does not take and outputs of another shape.
    """
    torch = rebuilt.imported()
    with torch.inference_mode(False), torch.enable_grad():
        twin = copy.deepcopy(model).to("cpu", getattr(torch, spec.dtype)).eval()
        for module in twin.modules():
            if hasattr(module, "inplace"):
                module.inplace = False  # what comes out of the module before is kept
        pairs = list(_pairs(twin, spec, skeleton, keys))
        for _, parameter in pairs:
            parameter.requires_grad_()
        seen = {trace.INPUT: Seen(rebuilt.samples(torch, spec, x))}
        last, before_last = _last(twin), []
        last.register_forward_hook(lambda module, inputs, output: before_last.append(inputs[0]))
        for name, (module, image) in _named(twin, spec, skeleton, keys).items():
            module.register_forward_hook(_keeping(seen, name, image))
        h = twin(seen[trace.INPUT].tensor)
        p, z, note = _ended(torch, spec, seen, h, type(last).__name__, before_last[-1])
        loss = rebuilt.loss_of(torch, spec, y, p, z, pairs, float)
        return Trace({**rebuilt.traced(torch, spec, seen, loss, pairs, float), trace.INPUT: x}), note


def _last(module: Any) -> Any:
    """The module that comes last, of those that do something in inference."""
    while type(module).__name__ == "Sequential":
        module = [child for child in module.children() if type(child).__name__ not in PASSING][-1]
    return module


def _named(model: Any, spec: Spec, skeleton: Skeleton, keys: Mapping[str, str]) -> dict[str, tuple[Any, Image | None]]:
    """The tensor that a trace has for a layer with weights -> the module that gives it, and the image that it runs
    over, if that was flattened."""
    found: dict[str, tuple[Any, Image | None]] = {}
    for entry in spec.config["layers"]:
        slots = skeleton.by_layer.get(entry["config"].get("name"), [])
        if slots:
            layer = trace.Layer.from_config(entry, ())
            name = trace.pre_activation(layer.name) if layer.has_pre_activation else trace.output(layer.name)
            rows = slots[0].rows
            module = model.get_submodule(keys[slots[0].key].rpartition(".")[0])
            found[name] = module, rows.image if rows is not None and slots[0].kind != "Dense" else None
    return found


def _keeping(seen: dict[str, Seen], name: str, image: Image | None) -> Any:
    def keep(module: Any, inputs: Any, output: Any) -> None:
        seen[name] = Seen(output, image)

    return keep


def _pairs(model: Any, spec: Spec, skeleton: Skeleton, keys: Mapping[str, str]) -> Iterator[tuple[Slot, Any]]:
    """The weights that the network trains, with the model's parameters."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    frozen = {
        entry["config"].get("name") for entry in spec.config["layers"] if not entry["config"].get("trainable", True)
    }
    for slot in skeleton.slots:
        if keys[slot.key] in parameters and slot.layer not in frozen:
            yield slot, parameters[keys[slot.key]]


def _ended(torch: Any, spec: Spec, seen: dict[str, Seen], h: Any, kind: str, before: Any) -> tuple[Any, Any, str]:
    """Predictions, logits or None, and a note. h: what the model gives; kind: of its last module; before: what goes in
    there."""
    last = spec.config["layers"][-1]["config"]["name"]
    logits, note = rebuilt.logits_at(spec.config["layers"]), ""
    p, z = h, None
    if logits is not None and kind in ENDS:
        p, z = torch.exp(h) if kind == "LogSoftmax" else h, before
    elif logits is not None:
        p, z = torch_layers.activation_of(torch, logits[1], h, float)(h), h
        seen[logits[0]] = Seen(z)
        note = f"the model ends in logits, the network in their {logits[1]}, which was put behind it"
    seen[trace.output(last)] = Seen(p)
    return p, z, note
