"""Models and arrays in memory as something to port from and to: their weights by key, and how to set them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.errors import UsageError
from parity.parameters import Parameters
from parity.weights import blocks, skeleton
from parity.weights.formats.limits import BFLOAT16, DTYPES
from parity.weights.skeleton import Skeleton
from parity.weights.stored import Archive, Stored

__all__ = ["Live", "opened"]


@dataclass(frozen=True)
class Live:
    """archive: its arrays, as they are when they are loaded; skeleton: where it is a network; naming: of its keys;
    write: set all arrays at once, of the keys, shapes and dtypes of the archive; owner: the model itself."""

    archive: Archive
    skeleton: Skeleton | None
    naming: str | None
    write: Callable[[Mapping[str, np.ndarray]], None]
    owner: Any


def opened(thing: Any) -> Live:
    """A live Keras Sequential, scratchnet network or `torch.nn.Sequential`, or arrays in a dict, a list or attributes.
    `UsageError` for anything else, and for models without weights."""
    if type(thing).__module__.startswith("scratchnet."):
        return _of_scratch(thing)
    if (keras := sys.modules.get("keras")) is not None and isinstance(thing, keras.Model):
        return _of_keras(thing)
    if (torch := sys.modules.get("torch")) is not None and isinstance(thing, torch.nn.Module):
        return _of_torch(torch, thing)
    return _of_arrays(thing)


def _of_scratch(model: Any) -> Live:
    known = skeleton.of_scratch(model)
    layers = {layer.name: layer for layer in model.layers}
    arrays = {slot.key: Stored.of(slot.key, layers[slot.layer].weights[slot.role]) for slot in known.slots}

    def write(new: Mapping[str, np.ndarray]) -> None:
        model.set_weights([new[slot.key] for slot in known.slots])

    return Live(Archive(known.name, "scratchnet", arrays, known.config), known, "keras", write, model)


def _of_keras(model: Any) -> Live:
    known = skeleton.of_keras(model)
    variables = {f"{layer.name}/{role}": v for layer in model.layers for role, v in skeleton.roles_of(layer).items()}
    arrays = {key: _keras_stored(key, variable) for key, variable in variables.items()}

    def write(new: Mapping[str, np.ndarray]) -> None:
        for key, variable in variables.items():
            variable.assign(new[key])

    return Live(Archive(known.name, "keras model", arrays, known.config), known, "keras", write, model)


def _keras_stored(key: str, variable: Any) -> Stored:
    if variable.dtype not in DTYPES:
        raise UsageError(f"{key}: expected one of {', '.join(DTYPES)}; received {variable.dtype}")
    return Stored(key, tuple(variable.shape), DTYPES[variable.dtype], lambda: np.asarray(variable.numpy()))


def _of_torch(torch: Any, model: Any) -> Live:
    if not isinstance(model, torch.nn.Sequential):
        raise UsageError(
            f"model: expected a torch.nn.Sequential; received {type(model).__name__}, whose forward pass "
            "may use its layers in any order; save its state_dict() and port the file"
        )
    tensors = dict(model.state_dict(keep_vars=True))
    _require_memory(torch, tensors)
    known = skeleton.of_torch(model)
    arrays = {key: _torch_stored(key, tensor) for key, tensor in tensors.items()}

    def write(new: Mapping[str, np.ndarray]) -> None:
        _require_writable(torch, {key: tensors[key] for key in new})
        _require_unshared(tensors, new)
        values = {
            key: _tensor(torch, array) for key, array in new.items()
        }  # all copied: they may be parts of the model
        with torch.no_grad():
            for key, value in values.items():
                tensors[key].copy_(value)

    return Live(Archive("torch model", "torch model", arrays), known, "torch", write, model)


def _torch_stored(key: str, tensor: Any) -> Stored:
    name = str(tensor.dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise UsageError(f"torch model: {key}: expected one of {', '.join(DTYPES)}; received {tensor.dtype}")

    def load() -> np.ndarray:
        there = tensor.detach().cpu()
        if name == "bfloat16":  # NumPy does not know it, so its bits are taken over
            import torch

            return np.asarray(there.contiguous().view(torch.int16).numpy()).view(BFLOAT16)
        return np.asarray(there.numpy())

    return Stored(key, tuple(tensor.shape), DTYPES[name], load)


def _tensor(torch: Any, array: np.ndarray) -> Any:
    bits = blocks.copied(array)  # torch wants memory that it may write to
    if bits.dtype == BFLOAT16:
        return torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(bits)


def _require_memory(torch: Any, tensors: Mapping[str, Any]) -> None:
    for key, tensor in tensors.items():
        if torch.nn.parameter.is_lazy(tensor):
            raise UsageError(f"torch model: {key} has no shape yet; call the model once, with one batch")
        if tensor.is_meta:
            raise UsageError(
                f"torch model: {key} is on the device meta and has no numbers; call model.to_empty(device)"
            )


def _require_writable(torch: Any, tensors: Mapping[str, Any]) -> None:
    """`UsageError` where PyTorch would refuse, which would be after the tensors in front of it have changed."""
    for key, tensor in tensors.items():
        if tensor.is_inference() and not torch.is_inference_mode_enabled():
            raise UsageError(
                f"torch model: {key} was made in torch.inference_mode(), so it cannot be changed outside; make the "
                "model outside; nothing was changed"
            )
        if any(size > 1 and not step for size, step in zip(tensor.shape, tensor.stride(), strict=True)):
            raise UsageError(
                f"torch model: {key} is an expanded tensor, several of its elements are one; clone() it; nothing was "
                "changed"
            )


def _require_unshared(tensors: Mapping[str, Any], new: Mapping[str, np.ndarray]) -> None:
    """`UsageError` where two keys are one tensor and are to get different values: the second would win."""
    seen: dict[tuple[int, tuple[int, ...]], str] = {}
    for key, array in new.items():
        place = (tensors[key].data_ptr(), tuple(tensors[key].shape))
        first = seen.setdefault(place, key)
        if first != key and tensors[key].numel() and array.tobytes() != new[first].tobytes():
            raise UsageError(
                f"torch model: {first} and {key} are one and the same tensor and would get different "
                "values; nothing was changed"
            )
    there = {key: _bits(tensors[key]) for key in new if tensors[key].device.type == "cpu"}
    _require_apart("torch model", there, new)


def _bits(tensor: Any) -> np.ndarray:
    """A view of a tensor's memory, whatever its dtype is."""
    import torch

    signed = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return np.asarray(tensor.detach().view(signed[tensor.element_size()]).numpy())


def _require_apart(name: str, there: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray]) -> None:
    """`UsageError` where two arrays share memory and are not to get the same: the second would change the first."""
    ends = {key: np.lib.array_utils.byte_bounds(array) for key, array in there.items() if array.size}
    before: list[str] = []
    for key in sorted(ends, key=ends.__getitem__):
        before = [other for other in before if ends[other][1] > ends[key][0]]
        for other in before:
            one, two = there[other], there[key]
            if np.shares_memory(one, two) and not (
                (one.ctypes.data, one.shape, one.strides) == (two.ctypes.data, two.shape, two.strides)
                and new[other].tobytes() == new[key].tobytes()
            ):
                raise UsageError(f"{name}: {other} and {key} share memory; give each its own; nothing was changed")
        before.append(key)


def _of_arrays(thing: Any) -> Live:
    try:
        parameters = Parameters.of(thing)
    except UsageError as error:
        raise UsageError(
            "expected a path, a keras.Sequential, a scratchnet.Sequential, a torch.nn.Sequential or arrays in a dict "
            f"or a list; received {type(thing).__name__}"
        ) from error
    arrays = {key: Stored.of(key, array) for key, array in parameters.read().items()}
    for key, array in parameters.read().items():
        if array.dtype.newbyteorder("=") not in DTYPES.values():
            raise UsageError(f"{key}: expected numbers of one of the types {', '.join(DTYPES)}; received {array.dtype}")
    name = f"the {type(thing).__name__} of arrays"

    def write(new: Mapping[str, np.ndarray]) -> None:
        there = {key: array for key, array in parameters.read().items() if isinstance(array, np.ndarray)}
        for key, array in there.items():
            if not array.flags.writeable:
                raise UsageError(f"{name}: {key} is read-only; give a copy; nothing was changed")
        _require_apart(name, there, new)
        # Copied, since they may be parts of those that change.
        parameters.write({key: blocks.copied(array) for key, array in new.items()})

    return Live(Archive(name, "arrays", arrays), None, None, write, thing)
