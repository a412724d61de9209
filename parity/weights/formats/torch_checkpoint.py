"""A checkpoint of PyTorch's: a dictionary with the `state_dict` of a model and, beside it, that of its optimizer.

The tensors of the model keep their names. Those of the optimizer become `optimizer/<what it is>/<parameter>`, such as
`optimizer/momentum_buffer/0`, and its settings a text. Other plain data, such as the number of the epoch, is left.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from parity.errors import FileError
from parity.weights.formats.limits import shown

__all__ = ["MODEL_NAMES", "is_checkpoint", "parts", "tensors_in"]

MODEL_NAMES = ("model_state_dict", "state_dict", "model")
OPTIMIZER_NAMES = ("optimizer_state_dict", "optimizer")
"""As PyTorch's documentation, and most who follow it, call the two."""
CONFIG = "optimizer_config"
STATE, GROUPS, STEP = "state", "param_groups", "step"
PLAIN = (bool, int, float, str, type(None))

Path = tuple[Any, ...]
"""The keys that lead to a tensor, from the outermost dictionary on."""


def is_checkpoint(found: Mapping[Any, Any]) -> bool:
    return any(isinstance(found.get(name), dict) for name in MODEL_NAMES)


def tensors_in(found: Any, is_tensor: Callable[[Any], bool]) -> list[Any]:
    """All tensors, each once, however the containers are nested; one that contains itself is entered once."""
    seen: dict[int, Any] = {}
    pending = [found]
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen[id(node)] = node
        if isinstance(node, dict):
            pending += node.values()
        elif isinstance(node, list | tuple):
            pending += node
    return [node for node in seen.values() if is_tensor(node)]


def parts(found: Mapping[Any, Any], is_tensor: Callable[[Any], bool]) -> tuple[dict[str, Path], dict[str, str]]:
    """Key -> where the tensor is; and the texts. `FileError` for a model that is no state_dict."""
    name = next(name for name in MODEL_NAMES if isinstance(found.get(name), dict))
    paths: dict[str, Path] = {}
    for key, value in found[name].items():
        if not isinstance(key, str) or not is_tensor(value) or key.startswith("optimizer/"):
            raise FileError(f"{name}: {shown(key)}: expected names with tensors; received {shown(value)}")
        paths[key] = (name, key)
    optimizer = next((each for each in OPTIMIZER_NAMES if isinstance(found.get(each), dict)), None)
    if optimizer is None:
        return paths, {}
    state, groups = found[optimizer].get(STATE), found[optimizer].get(GROUPS)
    if not isinstance(state, dict) or not isinstance(groups, list):
        raise FileError(f"{optimizer}: expected {STATE} and {GROUPS}, as torch.optim has them")
    counts = {}
    for parameter, kept, value in _entries(optimizer, state):
        if is_tensor(value):
            paths[f"optimizer/{kept}/{parameter}"] = (optimizer, STATE, parameter, kept)
        elif kept == STEP and type(value) is int:  # before PyTorch 1.12
            counts[str(parameter)] = value
    config = {GROUPS: [_plain(group) for group in groups], **({"steps": counts} if counts else {})}
    return paths, {CONFIG: json.dumps(config)}


def _entries(optimizer: str, state: Mapping[Any, Any]) -> Iterator[tuple[int, str, Any]]:
    for parameter, entry in state.items():
        if type(parameter) is not int or not isinstance(entry, dict) or not all(type(k) is str for k in entry):
            raise FileError(f"{optimizer}: {STATE}: {shown(parameter)}: expected a number with names; received "
                            f"{shown(entry)}")  # fmt: skip
        for kept, value in entry.items():
            if not kept.isidentifier():
                raise FileError(f"{optimizer}: {STATE}: {parameter}: expected a name; received {shown(kept)}")
            yield parameter, kept, value


def _plain(group: Any) -> dict[str, Any]:
    """What a group says in numbers and names; the rest is as good as not said."""
    if not isinstance(group, dict):
        return {}
    return {
        str(key): list(value) if isinstance(value, list | tuple) else value
        for key, value in group.items()
        if isinstance(value, PLAIN) or (isinstance(value, list | tuple) and all(isinstance(v, PLAIN) for v in value))
    }
