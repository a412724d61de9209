"""The h5 files of Keras: `.weights.h5` of Keras 3, alone or in a `.keras` archive, and the `.h5` of Keras 2.

Keras 3 numbers: `layers/dense_1/vars/0` is the first variable of the second Dense, whatever the layer is called; its
name is an attribute of `vars`. Keras 2 names: attributes list the layers and the weights of each in their order, and
`dense/dense/kernel:0` is the weight `dense/kernel:0` of the layer `dense`.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from parity.errors import FileError, NothingConcluded, UsageError
from parity.weights import blocks
from parity.weights.formats import hdf5, limits
from parity.weights.formats.limits import BFLOAT16, DTYPES, METADATA, shown
from parity.weights.keras_config import group_names, parsed, sequential
from parity.weights.stored import Stored

if TYPE_CHECKING:
    import h5py

__all__ = ["Contents", "config_of", "groups", "optimizer_of", "read", "write"]

Contents = tuple[str, dict[str, Stored], "dict[str, Any] | None", dict[str, str]]
"""Format, arrays, config, metadata."""

LAYERS, VARIABLES = "layers", "vars"
ALIGNMENT = 8
"""Of what is written, so that arrays can be used where they lie: that of the widest type."""
OPTIMIZER_CONFIG = "optimizer_config"
MODEL, OPTIMIZER, TOP = "model_weights", "optimizer_weights", "top_level_model_weights"


def config_of(text: bytes | memoryview, what: str) -> dict[str, Any]:
    """The config of a Sequential from its JSON, whole or bare."""
    limits.parsed(text, what)  # the bounds, and keys that stand there twice
    with limits.blamed(what):
        return sequential(parsed(bytes(text)))[0]


def optimizer_of(saved: Any, key: str) -> dict[str, str]:
    """What a file says of the model's optimizer, as one more text; none where it says nothing. saved: what the model
    was compiled with, as Keras writes it down; key: under which the optimizer is."""
    found = saved.get(key) if isinstance(saved, dict) else None
    if not isinstance(found, dict):
        return {}
    return {OPTIMIZER_CONFIG: json.dumps({name: found.get(name) for name in ("class_name", "config")})}


def groups(config: Mapping[str, Any]) -> dict[str, str]:
    """Name of a layer -> the group in which Keras 3 keeps it, such as `layers/dense_1`, in the order of the layers."""
    return {layer["config"]["name"]: group for group, layer in group_names(list(config["layers"])).items()}


# -- reading -----------------------------------------------------------------------------------------------------------


def read(data: memoryview, config: Mapping[str, Any] | None = None) -> Contents:
    """Either kind. config: where it is known, the layers come in its order; else as their groups sort."""
    texts = hdf5.Texts(data)
    with hdf5.opened(data) as file:
        found, datasets = hdf5.walk(file)
        if LAYERS in found:
            return _read_new(found, hdf5.stored(datasets, data, texts), texts, config)
        return _read_legacy(_Legacy(found, texts), datasets, data)


def _read_new(
    found: Mapping[str, h5py.Group], arrays: dict[str, Stored], texts: hdf5.Texts, config: Mapping[str, Any] | None
) -> Contents:
    metadata = _metadata(arrays)
    for group, item in found.items():
        owner, _, last = group.rpartition("/")
        if last == VARIABLES and owner and (name := texts.of(item, "name", group)):
            metadata[owner] = name[0]
    if config is not None:
        order = {group: number for number, group in enumerate(groups(config).values())}
        # Stable: within a layer the order stays as it is; what belongs to no layer comes last.
        arrays = dict(sorted(arrays.items(), key=lambda item: order.get(_owner(item[0]), len(order))))
    return "keras-weights", arrays, None, metadata


def _owner(key: str) -> str:
    return "/".join(key.split("/")[:2])


def _metadata(arrays: dict[str, Stored]) -> dict[str, str]:
    """What our own writer put into the file, taken out of the arrays."""
    text = arrays.pop(METADATA, None)
    if text is None:
        return {}
    if text.dtype != np.uint8:
        raise FileError(f"{METADATA!r}: expected uint8, the bytes of a text, received {text.dtype.name}")
    return limits.texts(limits.parsed(text.load().tobytes(), METADATA), METADATA)


@dataclass(frozen=True)
class _Legacy:
    """The lists of names in a file of Keras 2."""

    groups: Mapping[str, h5py.Group]
    texts: hdf5.Texts

    def paths(self, root: str) -> dict[str, str]:
        """Path -> key of all arrays that are listed, in their order. root: of the layers' groups."""
        prefix = f"{root}/" if root else ""
        found: dict[str, str] = {}
        for layer in self._names("layer_names", root):
            found |= self._weights(prefix + layer, layer)
        for group, name in ((prefix + TOP, TOP), (OPTIMIZER, OPTIMIZER)):
            if group in self.groups:
                found |= self._weights(group, name)
        return found

    def text(self, name: str, path: str) -> str | None:
        return next(iter(self.texts.of(self.groups[path], name, path) or []), None)

    def _weights(self, group: str, key: str) -> dict[str, str]:
        if group not in self.groups:
            raise FileError(f"{shown(group)}: expected the group that 'layer_names' lists, received none")
        return {f"{group}/{name}": f"{key}/{name}" for name in self._names("weight_names", group)}

    def _names(self, attribute: str, path: str) -> list[str]:
        """A list of names, which Keras cuts into numbered pieces where it is long. Each may stand there once."""
        names = self.texts.of(self.groups[path], attribute, path)
        if names is None:
            numbered = (self.texts.of(self.groups[path], f"{attribute}{n}", path) for n in itertools.count())
            names = list(itertools.chain.from_iterable(iter(lambda: next(numbered), None)))
            if not names:
                raise FileError(f"{shown(path)}: expected the attribute {attribute!r}, received none")
        if twice := [name for name, times in Counter(names).items() if times > 1]:
            raise FileError(f"{shown(path)}: {attribute}: expected {shown(twice[0])} once, received it more often")
        return names


def _read_legacy(lists: _Legacy, datasets: dict[str, h5py.Dataset], data: memoryview) -> Contents:
    root = MODEL if MODEL in lists.groups else ""
    if not root and not {"layer_names", "layer_names0"} & set(lists.groups[""].attrs):
        raise FileError(
            "expected the group 'layers' (Keras 3), or the attribute 'layer_names' (Keras 2), received the groups "
            f"{shown(list(lists.groups)[1:])}"
        )
    keys = lists.paths(root)
    if missing := [path for path in keys if path not in datasets]:
        raise FileError(f"{shown(missing[0])}: expected the array that 'weight_names' lists, received none")
    if extra := [path for path in datasets if path not in keys]:
        raise FileError(f"{shown(extra[0])}: expected only arrays that 'weight_names' lists, received one more")
    arrays = hdf5.stored({path: datasets[path] for path in keys}, data, lists.texts)
    text = lists.text("model_config", "")
    config = config_of(text.encode(), "the attribute 'model_config'") if text is not None else None
    about = {name: lists.text(name, root) for name in ("keras_version", "backend")}
    metadata = {name: value for name, value in about.items() if value is not None}
    if (compiled := lists.text("training_config", "")) is not None:
        training = limits.parsed(compiled.encode(), "the attribute 'training_config'")
        metadata |= optimizer_of(training, OPTIMIZER_CONFIG)
    return "keras-legacy", {keys[path]: replace(a, key=keys[path]) for path, a in arrays.items()}, config, metadata


# -- writing -----------------------------------------------------------------------------------------------------------


def write(
    file: BinaryIO, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str], names: Mapping[str, str]
) -> None:
    """As Keras 3 does. names: group -> name of what it holds; Keras has a group for a layer without weights, too. Empty
    where nothing is known of the model."""
    try:
        import h5py
    except ImportError as error:
        raise NothingConcluded(
            "HDF5 is written with h5py, which is not installed; pip install 'scratchnet-parity[tf]'"
        ) from error
    limits.require_writable(arrays, "keras-weights", DTYPES)
    limits.require_plain(arrays, "keras-weights")
    for key in arrays:
        if names and key.startswith(f"{LAYERS}/") and _owner(key) not in names:
            raise UsageError(f"{shown(key)}: expected a layer of the config, whose groups are {', '.join(names)}")
    texts = {METADATA: np.frombuffer(limits.as_json(metadata), np.uint8)} if metadata else {}
    with h5py.File(file, "w", alignment_threshold=1, alignment_interval=ALIGNMENT) as h5:
        h5.create_group(LAYERS)
        for group, name in names.items():
            h5.create_group(f"{group}/{VARIABLES}").attrs["name"] = name
        for key, value in {**texts, **arrays}.items():
            _put(h5, key, value)


def _put(h5: h5py.File, key: str, value: np.ndarray) -> None:
    # bfloat16 as Keras writes it: two opaque bytes and the name beside them.
    is_bfloat16 = value.dtype.newbyteorder("=") == BFLOAT16
    dtype = np.dtype("V2") if is_bfloat16 else value.dtype.newbyteorder("<")
    dataset = h5.create_dataset(key, value.shape, dtype)
    row = 0
    for piece in blocks.pieces(value):
        if value.ndim == 0:
            dataset[()] = piece.view(dtype)
        else:
            dataset[row : row + len(piece)] = piece.view(dtype)
            row += len(piece)
    if is_bfloat16:
        dataset.attrs["dtype"] = "bfloat16"
