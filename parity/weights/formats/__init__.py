"""Files that hold weights, one module a format. `read` and `write` choose it by the ending of the name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from parity.atomic import replaced
from parity.errors import FileError, UsageError
from parity.weights.formats import (
    keras_archive,
    keras_h5,
    limits,
    npz_file,
    onnx_file,
    safetensors_file,
    torch_file,
)
from parity.weights.stored import Archive, Stored

__all__ = ["ENDINGS", "WRITABLE", "read", "write"]

ENDINGS = {
    ".keras": "keras",
    ".weights.h5": "keras-weights",
    ".h5": "keras-legacy",
    ".hdf5": "keras-legacy",
    ".safetensors": "safetensors",
    ".pt": "torch",
    ".pth": "torch",
    ".npz": "npz",
    ".onnx": "onnx",
}
"""Ending of a file's name -> format. What is in a `.h5` says which of the two it is."""
WRITABLE = ("keras", "keras-weights", "safetensors", "torch", "npz")


def read(path: str | Path) -> Archive:
    """What a file holds. Nothing of the arrays is read yet, and nothing in the file is run, imported or followed.

    FileError, with the file, the key, what was expected and what came, for a file that is missing, damaged, hostile or
    of another format, here or when an array is loaded. NothingConcluded where the format needs a package that is not
    installed (h5py, torch).
    """
    path = Path(path)
    with limits.blamed(path):
        format = _format(path, FileError)
        format, arrays, config, metadata = _read(format, path, limits.mapped(path))
    named = {key: replace(stored, load=_blaming(path, stored.load)) for key, stored in arrays.items()}
    return Archive(str(path), format, named, config, metadata)


def _read(format: str, path: Path, data: memoryview) -> keras_h5.Contents:
    if format == "keras":
        return keras_archive.read(data)
    if format in ("keras-weights", "keras-legacy"):
        return keras_h5.read(data)
    readers: dict[str, Callable[[memoryview], tuple[dict[str, Stored], dict[str, str]]]] = {
        "safetensors": safetensors_file.read,
        "torch": lambda data: torch_file.read(path, data),
        "npz": npz_file.read,
        "onnx": onnx_file.read,
    }
    arrays, metadata = readers[format](data)
    return format, arrays, None, metadata


def _blaming(path: Path, load: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
    def loaded() -> np.ndarray:
        with limits.blamed(path):
            return load()

    return loaded


def write(
    path: str | Path,
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
    format: str | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    template: str | Path | None = None,
) -> None:
    """Write arrays under their keys, bit for bit; the file is the old one until the new one is whole.

    metadata: texts that the file carries beside them. format: one of `WRITABLE`, else by the ending of the name.
    config: for "keras-weights", of the Sequential, so that its layers have their groups and names. template: for
    "keras", the `.keras` file whose variables are replaced; it may be the target.
    UsageError for what the format cannot hold, FileError where the system refuses.
    """
    path = Path(path)
    format = format or _format(path, UsageError)
    if format not in WRITABLE:
        raise UsageError(f"{path}: expected a format to write, {', '.join(WRITABLE)}, received {format!r}")
    metadata = dict(metadata or {})
    if format == "keras" and template is None:
        raise UsageError(
            f"{path}: expected the .keras file of the model as a template, received none; write a .weights.h5, or save "
            "the model with model.save('name.keras') first"
        )
    with replaced(path) as file:
        if format == "keras":
            keras_archive.write(file, arrays, metadata, Path(template or path))
        elif format == "keras-weights":
            names = {group: name for name, group in keras_h5.groups(config).items()} if config else {}
            keras_h5.write(file, arrays, metadata, names)
        else:
            {"safetensors": safetensors_file.write, "torch": torch_file.write, "npz": npz_file.write}[format](
                file, arrays, metadata
            )


def _format(path: Path, error: type[FileError] | type[UsageError]) -> str:
    name = path.name.lower()
    for ending, format in ENDINGS.items():
        if name.endswith(ending):
            return format
    raise error(f"expected a name that ends with one of {', '.join(ENDINGS)}, received {path.name!r}")
