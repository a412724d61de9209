"""A config for an earlier Keras: without the arguments that it does not have yet, where they say what it does anyway.

Recordings of several releases are compared with each other (`parity.golden.drift`), and the networks of parity are
written in the words of the latest one.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

__all__ = ["understood"]

LATER: Mapping[tuple[str, str], Any] = {
    ("layers", "quantization_config"): None,
    ("initializers", "input_axes"): None,
    ("initializers", "output_axes"): None,
    ("layers", "renorm"): False,
    ("layers", "renorm_clipping"): None,
    ("layers", "renorm_momentum"): 0.99,
    ("losses", "axis"): -1,
}
"""What releases after Keras 3.5 added -> the value that changes nothing."""


def understood(keras: Any, node: Any, family: str = "layers") -> Any:
    """The same config, or part of one. family: the module of Keras that an entry without `module` is of."""
    if isinstance(node, list | tuple):
        return [understood(keras, each, family) for each in node]
    if not isinstance(node, Mapping):
        return node
    found = {key: understood(keras, value, family) for key, value in node.items()}
    if not isinstance(found.get("class_name"), str) or not isinstance(found.get("config"), dict):
        return found
    of = str(found.get("module") or family).removeprefix("keras.")
    made_by = getattr(getattr(keras, of, None), found["class_name"], None)
    if made_by is None:
        return found
    taken = inspect.signature(made_by.__init__).parameters
    kept = {key: value for key, value in found["config"].items() if key in taken or not _neutral(of, key, value)}
    return {**found, "config": kept}


def _neutral(family: str, key: str, value: Any) -> bool:
    return (family, key) in LATER and value == LATER[family, key]
