"""`.keras`: a zip archive with `config.json`, `metadata.json` and `model.weights.h5`.

Nothing in it is looked up, imported or called: `keras.saving.load_model` builds Python objects, here the config is
data. It is written only from one that is there, since a model that Keras can load has more in it than its weights.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from parity.errors import FileError, UsageError
from parity.weights.formats import keras_h5, limits, zip_members
from parity.weights.formats.limits import shown
from parity.weights.stored import Stored

__all__ = ["read", "write"]

CONFIG, ABOUT, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
STATE = "optimizer/vars/"
SAVE_AGAIN = "save the model again with model.save('name.keras')"


def read(data: memoryview) -> keras_h5.Contents:
    """The arrays by their paths in `model.weights.h5`, such as `layers/dense_1/vars/0`, layers in the model's order."""
    members = zip_members.members(data)
    arrays, config, about, names = _contents(data, members)
    compiled = limits.parsed(_text(data, members[CONFIG]), CONFIG).get("compile_config")
    return "keras", arrays, config, {**about, **names, **keras_h5.optimizer_of(compiled, "optimizer")}


def _contents(
    data: memoryview, members: Mapping[str, zip_members.Member]
) -> tuple[dict[str, Stored], dict[str, Any], dict[str, str], dict[str, str]]:
    """Arrays, config, the texts of the file, and the names of the groups."""
    for name in (CONFIG, WEIGHTS):
        if name not in members:
            raise FileError(f"expected {name} in the archive, received {shown(sorted(members))}; {SAVE_AGAIN}")
    config = keras_h5.config_of(_text(data, members[CONFIG]), CONFIG)
    about = limits.parsed(_text(data, members[ABOUT]), ABOUT) if ABOUT in members else {}
    with limits.blamed(WEIGHTS):
        format, arrays, _, names = keras_h5.read(zip_members.content(data, members[WEIGHTS]), config)
        if format != "keras-weights":
            raise FileError(f"expected the layout of Keras 3, received that of Keras 2; {SAVE_AGAIN}")
    return arrays, config, limits.texts(about, ABOUT), names


def _text(data: memoryview, member: zip_members.Member) -> memoryview:
    if member.size > limits.LONGEST_TEXT:
        raise FileError(f"{member.name}: expected at most {limits.LONGEST_TEXT} bytes, received {member.size}")
    return zip_members.content(data, member)


def write(file: BinaryIO, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str], template: Path) -> None:
    """The template with these arrays. What has no array here, such as the state of an optimizer, stays as it is.

    UsageError for an array of another name or shape than the template has, and for a layer's array that is missing.
    """
    with limits.blamed(template):
        data = limits.mapped(template)
        members = zip_members.members(data)
        old, _, about, names = _contents(data, members)
    about.pop(limits.RECORD, None)  # it says what the old weights were
    _require_same(arrays, old, template)
    new = {**{key: stored.load() for key, stored in old.items() if key not in arrays}, **arrays}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, member in members.items():
            if name not in (ABOUT, WEIGHTS):
                archive.writestr(zipfile.ZipInfo(name, zip_members.DATE), bytes(zip_members.content(data, member)))
        archive.writestr(zipfile.ZipInfo(ABOUT, zip_members.DATE), limits.as_json({**about, **metadata}))
        _write_weights(archive, new, names, Path(file.name).parent)


def _require_same(arrays: Mapping[str, np.ndarray], old: Mapping[str, Stored], template: Path) -> None:
    for key, value in arrays.items():
        if key not in old and key.startswith(STATE):  # of an optimizer that was not built yet
            continue
        if key not in old:
            raise UsageError(f"{template}: expected one of the keys {', '.join(old)}, received {shown(key)}")
        if value.shape != old[key].shape:
            raise UsageError(f"{template}: {key}: expected shape {old[key].shape}, received {value.shape}")
    if missing := [key for key in old if key.startswith(f"{keras_h5.LAYERS}/") and key not in arrays]:
        raise UsageError(f"{template}: expected an array for {', '.join(missing)}, received {', '.join(arrays)}")


def _write_weights(
    archive: zipfile.ZipFile, arrays: Mapping[str, np.ndarray], names: Mapping[str, str], folder: Path
) -> None:
    """Through a file without a name: the HDF5 library writes here and there, an archive from the front to the end."""
    with tempfile.TemporaryFile(dir=folder) as bare:
        keras_h5.write(bare, arrays, {}, names)
        bare.seek(0)
        with archive.open(zip_members.aligned(archive, WEIGHTS), "w", force_zip64=True) as member:
            shutil.copyfileobj(bare, member, 2**20)
