"""What a live PyTorch model computes: its own modules, in their own order, with autograd and `torch.optim.SGD`.

The weights say which of its modules is which layer of the network. What comes out of these modules, the loss, and every
gradient are compared; activations and poolings between them have no names, so a wrong one is seen in the next layer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from parity import probe, trace
from parity.runners import torch as rebuilt
from parity.runners import torch_layers
from parity.runners.torch import Image, Seen
from parity.spec import Spec
from parity.trace import Trace
from parity.weights.skeleton import Skeleton, Slot

__all__ = ["SAMPLES", "Unknown", "end_of", "hooked", "outputs", "run", "samples_for", "strange"]

PASSING = ("Dropout", "Identity")
ENDS = ("LogSoftmax", "Sigmoid", "Softmax")
"""Modules at the end of a model whose input are logits."""
KNOWN = frozenset((
    *PASSING, *ENDS, "AdaptiveAvgPool2d", "AvgPool2d", "BatchNorm1d", "BatchNorm2d", "CELU", "ConstantPad2d", "Conv2d",
    "ELU", "Embedding", "Flatten", "GELU", "Hardsigmoid", "Hardswish", "Hardtanh", "LayerNorm", "LeakyReLU", "Linear",
    "LogSigmoid", "MaxPool2d", "Mish", "ReLU", "ReLU6", "SELU", "Sequential", "SiLU", "Softplus", "Softsign", "Tanh",
    "Tanhshrink", "ZeroPad2d",
))  # fmt: skip
"""Modules of which is known what they take: of them alone, a model takes the samples of the network that it is."""
SAMPLES = 8
"""Of a probe that two models get."""
LARGEST = 256
"""Pixels on a side of the images, or indices in a sequence, that are tried."""


class Unknown(ValueError):
    """Why it is not known what a model takes."""


def strange(model: Any) -> list[str]:
    """The classes of a model's modules of which is not known what they take."""
    found = {type(each).__name__: type(each).__module__ for each in model.modules()}
    return [name for name, module in found.items() if name not in KNOWN or not module.startswith("torch.nn.")]


def hooked(model: Any) -> list[str]:
    """The parameters with hooks on their gradients. A copy of a model has none of them, so it trains otherwise."""
    names = ("_backward_hooks", "_post_accumulate_grad_hooks")
    parameters = model.named_parameters(remove_duplicate=False)
    return [key for key, parameter in parameters if any(getattr(parameter, name, None) for name in names)]


def end_of(model: Any) -> str:
    """The class of the last module, if what goes in there are logits, or ""."""
    kind = type(_last(model)).__name__
    return kind if kind in ENDS else ""


def outputs(model: Any, x: np.ndarray, logits: bool) -> np.ndarray:
    """What a copy of a model computes in float64 and in inference, or the logits in front of its end. x: as PyTorch
    takes it, whole numbers or others."""
    torch = rebuilt.imported()
    twin = copy.deepcopy(model).to("cpu", torch.float64).eval()
    kept: list[Any] = []
    if logits and end_of(twin):
        _last(twin).register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0].clone()))
    with torch.inference_mode(False), torch.no_grad():
        h = twin(torch.from_numpy(x))
        found: np.ndarray = (kept[-1] if kept else h).numpy()
    return found


def samples_for(model: Any, seed: int) -> np.ndarray:
    """Designed samples of a shape that a model takes, as its first layer with weights says it. How high an image is and
    how long a sequence, only a Linear behind a Flatten may say, so the sizes are tried, without memory: the largest up
    to 64, for poolings that leave something, else the next above. `Unknown` where none is taken."""
    torch = rebuilt.imported()
    first = next((each for each in model.modules() if type(each).__name__ in TAKEN), None)
    if first is None:
        raise Unknown("none of its modules says what the model takes")
    shape_of, indices = TAKEN[type(first).__name__](first)
    twin = copy.deepcopy(model).to("meta", torch.float64).eval()
    dtype = torch.float64 if indices is None else torch.int64
    why = ""
    for size in (*range(64, 0, -1), *range(65, LARGEST + 1)):
        try:
            with torch.no_grad():
                twin(torch.zeros((1, *shape_of(size)), dtype=dtype, device="meta"))
        except (RuntimeError, TypeError, ValueError, IndexError) as error:  # whatever its layers say of these samples
            why = (str(error).splitlines() or [type(error).__name__])[0]
            continue
        return probe.samples(shape_of(size), SAMPLES, seed, indices)
    raise Unknown(f"no samples were found that the model takes: {why}")


TAKEN: Mapping[str, Callable[[Any], tuple[Callable[[int], tuple[int, ...]], int | None]]] = {
    "Linear": lambda module: (lambda size: (module.in_features,), None),
    "LayerNorm": lambda module: (lambda size: tuple(module.normalized_shape), None),
    "BatchNorm1d": lambda module: (lambda size: (module.num_features,), None),
    "BatchNorm2d": lambda module: (lambda size: (module.num_features, size, size), None),
    "Conv2d": lambda module: (lambda size: (module.in_channels, size, size), None),
    "Embedding": lambda module: (lambda size: (size,), module.num_embeddings),
}
"""Class of the first module with weights -> the shape of a sample by a size, and of indices how many there are."""


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
        out = Seen(h, rebuilt.image_at_end(spec, x))
        p, z, note = _ended(torch, spec, seen, out, type(last).__name__, before_last[-1])
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


def _ended(
    torch: Any, spec: Spec, seen: dict[str, Seen], h: Seen, kind: str, before: Any
) -> tuple[Seen, Seen | None, str]:
    """Predictions, logits or None, and a note. h: what the model gives; kind: of its last module; before: what goes in
    there."""
    last = spec.config["layers"][-1]["config"]["name"]
    logits, note = rebuilt.logits_at(spec.config["layers"]), ""
    p, z = h, None
    if logits is not None and kind in ENDS:
        p, z = replace(h, tensor=torch.exp(h.tensor)) if kind == "LogSoftmax" else h, replace(h, tensor=before)
    elif logits is not None:
        p, z = replace(h, tensor=torch_layers.activation_of(torch, logits[1], h.tensor, float)(h.tensor)), h
        seen[logits[0]] = z
        note = f"the model ends in logits, the network in their {logits[1]}, which was put behind it"
    seen[trace.output(last)] = p
    return p, z, note
