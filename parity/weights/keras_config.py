"""The config of a Keras Sequential as data, and what Keras's files call its layers."""

from __future__ import annotations

import json
import re
from collections import Counter
from reprlib import repr as shown
from typing import Any

from parity.errors import FileError

__all__ = ["group_names", "parsed", "sequential", "snake_case"]

KIND_NAMES: dict[type, str] = {dict: "an object", list: "a list", str: "a string"}
EXPECTED = "expected a saved Sequential (an object with the keys class_name and config, or its config: name and layers)"
AS_JSON = "write it with model.to_json(), or save it with model.save('name.keras')"


def parsed(text: bytes) -> Any:
    """The JSON of a config. `FileError` for anything else."""
    try:
        return json.loads(text, object_hook=_without_identity)
    except json.JSONDecodeError as error:
        raise FileError(f"not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # not text, a number of thousands of digits, endless nesting
        raise FileError(f"not JSON: {error}") from error


def _without_identity(data: dict[str, Any]) -> dict[str, Any]:
    """Saved files number the objects that were one and the same; `get_config()` does not, and data has no identity."""
    data.pop("shared_object_id", None)
    return data


def sequential(data: Any) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The model's config and compile config (None where it was not compiled) from the saved form of a Sequential or
    from its bare config. `FileError` for anything else."""
    if not isinstance(data, dict):
        raise FileError(f"{EXPECTED}, received {shown(data)}; {AS_JSON}")
    if "class_name" not in data and "layers" not in data:
        raise FileError(f"{EXPECTED}, received an object with the keys {shown(sorted(data))}; {AS_JSON}")
    if "class_name" not in data:
        data = {"class_name": "Functional" if "input_layers" in data else "Sequential", "config": data}
    if data["class_name"] != "Sequential":
        raise FileError(
            f"class_name: expected 'Sequential', received {shown(data['class_name'])}; functional and subclassed models"
            " are not supported: put the layers into a keras.Sequential and save that"
        )
    config = _value(data, "config", dict, "")
    _check_layers(config)
    compile_config = _value(data, "compile_config", dict, "") if data.get("compile_config") else None
    return config, compile_config


def _value(data: dict[str, Any], key: str, kind: type, where: str) -> Any:
    if key not in data:
        raise FileError(f"expected the key {where}{key}, received the keys {shown(sorted(data))}")
    if not isinstance(data[key], kind):
        raise FileError(f"{where}{key}: expected {KIND_NAMES[kind]}, received {shown(data[key])}")
    return data[key]


def _check_layers(config: dict[str, Any]) -> None:
    _value(config, "name", str, "config.")
    names = set()
    for number, layer in enumerate(_value(config, "layers", list, "config.")):
        where = f"config.layers[{number}]"
        if not isinstance(layer, dict):
            raise FileError(f"{where}: expected an object, received {shown(layer)}")
        _value(layer, "class_name", str, f"{where}.")
        name = _value(_value(layer, "config", dict, f"{where}."), "name", str, f"{where}.config.")
        if name in names:
            raise FileError(f"{where}.config.name: expected a name of its own, received {name!r} a second time")
        names.add(name)


def group_names(layers: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """h5 group -> layer config, by Keras's rule; an InputLayer at the front is not one of `model.layers`."""
    if layers and layers[0]["class_name"] == "InputLayer":
        layers = layers[1:]
    names: dict[str, dict[str, Any]] = {}
    used: Counter[str] = Counter()
    for layer in layers:
        base = snake_case(layer["class_name"])
        names[f"layers/{base}_{used[base]}" if used[base] else f"layers/{base}"] = layer
        used[base] += 1
    return names


def snake_case(class_name: str) -> str:
    """Keras's spelling of a class in a path: BatchNormalization, Conv2DTranspose, PReLU give batch_normalization,
    conv2d_transpose, p_re_lu (the rule of `keras/src/utils/naming.py`)."""
    word = re.sub(r"\W", "", class_name)
    return re.sub(r"(?<=.)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])", "_", word).lower()
