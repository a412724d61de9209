"""A saved Keras Sequential read as data: its config and its arrays, without Keras and without running anything.

`keras.saving.load_model` builds Python objects from what a file says. Here a `.keras` file is only a zip archive with a
`config.json` and a `model.weights.h5` in it, and nothing in it is looked up, imported or called. What is allocated is
bounded by what lies on the disk, and what would lead out of the file (links, external storage) is refused.

The h5 groups are named as `keras/src/saving/saving_lib.py` names them: by the class of the layer in snake case and a
counter per class, in the order of the layers. The group is *not* the layer's name: `layers/dense_1` holds the second
Dense, whatever that layer is called.
"""

import io
import lzma
import math
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as shown
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.errors import FileError, NothingConcluded
from parity.weights.keras_config import group_names, parsed, sequential

if TYPE_CHECKING:
    import h5py

__all__ = ["KerasFile", "read"]

CONFIG = "config.json"
WEIGHTS = "model.weights.h5"

# Nothing below this size is worth refusing: TensorFlow alone takes several times as much. A layer's config is about one
# kilobyte, so as a bound on the config it leaves room for sixty thousand layers.
ALWAYS_ALLOWED = 64 * 2**20

# Keras stores archive members and arrays uncompressed, 1:1. Somebody may have packed them again: DEFLATE reaches at
# most 1032:1, and 100:1 would need weights of which 99 % repeat. Keras's own loader draws its line for archives there.
LARGEST_EXPANSION = 100

# What Python's zip reader raises on damaged, encrypted or exotically packed archives.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError, ValueError)
# What h5py raises when the HDF5 library finds a file inconsistent.
HDF5_ERRORS = (OSError, KeyError, OverflowError, RuntimeError, ValueError, TypeError)

SAVE_AGAIN = "save the model again with model.save('name.keras')"

# The variables that a layer of this class has, in Keras's order: (the option that switches it off, its rank or None if
# the rank depends on the input). Classes that are not here are read as the file numbers them.
_KERNEL_AND_BIAS = {rank: ((None, rank), ("use_bias", 1)) for rank in (2, 3, 4, 5)}
_SEPARABLE = {rank: ((None, rank), (None, rank), ("use_bias", 1)) for rank in (3, 4)}
VARIABLES: dict[str, tuple[tuple[str | None, int | None], ...]] = {
    "Dense": _KERNEL_AND_BIAS[2],
    "Conv1D": _KERNEL_AND_BIAS[3],
    "Conv2D": _KERNEL_AND_BIAS[4],
    "Conv3D": _KERNEL_AND_BIAS[5],
    "Conv1DTranspose": _KERNEL_AND_BIAS[3],
    "Conv2DTranspose": _KERNEL_AND_BIAS[4],
    "Conv3DTranspose": _KERNEL_AND_BIAS[5],
    "DepthwiseConv1D": _KERNEL_AND_BIAS[3],
    "DepthwiseConv2D": _KERNEL_AND_BIAS[4],
    "SeparableConv1D": _SEPARABLE[3],
    "SeparableConv2D": _SEPARABLE[4],
    "Embedding": ((None, 2),),
    "PReLU": ((None, None),),
    "BatchNormalization": (("scale", 1), ("center", 1), (None, 1), (None, 1)),
    "LayerNormalization": (("scale", None), ("center", None)),
    "GroupNormalization": (("scale", 1), ("center", 1)),
    "SimpleRNN": ((None, 2), (None, 2), ("use_bias", 1)),
    "LSTM": ((None, 2), (None, 2), ("use_bias", 1)),
    "GRU": ((None, 2), (None, 2), ("use_bias", None)),  # the bias has rank 2 with reset_after, else 1
}
# These keep their variables in an object of their own, so one group further down.
OWNER = {"SimpleRNN": "cell/", "LSTM": "cell/", "GRU": "cell/"}


DTYPE_NAMES = {"|V2": "bfloat16"}  # NumPy has no such type, so HDF5 stores two opaque bytes


@dataclass(frozen=True)
class KerasFile:
    """What a file says about a Sequential.

    `config` is what `model.get_config()` gives, `compile_config` what `model.get_compile_config()` gives, None when the
    model was not compiled. `variables` is None for a `.json` file; else every layer of `model.layers` (so without the
    InputLayer), by name and in order, with its arrays in the order and with the dtype in which Keras saved them, which
    is the order of `layer.weights`; a layer without variables has an empty list.
    """

    config: dict[str, Any]
    compile_config: dict[str, Any] | None
    variables: dict[str, list[np.ndarray]] | None


def read(path: str | Path) -> KerasFile:
    """Read a `.keras` file, or a `.json` file with `model.to_json()` or the JSON of a Sequential's `get_config()`.

    Raises FileError for whatever is wrong with the file, NothingConcluded if h5py is needed and not installed.
    """
    path = Path(path)
    try:
        return _read(path)
    except FileError as error:
        raise FileError(f"{path}: {error}") from error
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read(path: Path) -> KerasFile:
    readers = {".keras": _read_archive, ".json": _read_json}
    if path.is_dir():
        raise FileError("expected a .keras or .json file, received a directory")
    if not path.exists():
        raise FileError("there is no such file")
    if path.suffix.lower() not in readers:
        raise FileError(f"expected the ending .keras or .json, received {path.suffix!r}; {SAVE_AGAIN}")
    if path.stat().st_size == 0:
        raise FileError("the file is empty")
    return readers[path.suffix.lower()](path)


def _read_json(path: Path) -> KerasFile:
    _check_size("the file", path.stat().st_size, ALWAYS_ALLOWED)
    config, compile_config = sequential(parsed(path.read_bytes()))
    return KerasFile(config, compile_config, variables=None)


def _read_archive(path: Path) -> KerasFile:
    allowed = max(ALWAYS_ALLOWED, LARGEST_EXPANSION * path.stat().st_size)
    try:
        with zipfile.ZipFile(path) as archive:
            config_json = _member(archive, CONFIG, ALWAYS_ALLOWED)
            weights_h5 = _member(archive, WEIGHTS, allowed)
    except ZIP_ERRORS as error:
        raise FileError(f"expected a whole zip archive, received: {error}; copy or save it again") from error
    try:
        config, compile_config = sequential(parsed(config_json))
    except FileError as error:
        raise FileError(f"{CONFIG}: {error}") from error
    try:
        return KerasFile(config, compile_config, _read_variables(weights_h5, config["layers"], allowed))
    except FileError as error:
        raise FileError(f"{WEIGHTS}: {error}") from error


def _check_size(what: str, declared: int, allowed: int) -> None:
    if declared > allowed:
        raise FileError(f"{what}: expected at most {allowed} bytes, received {declared}, which no saved model needs")


def _member(archive: zipfile.ZipFile, name: str, allowed: int) -> bytes:
    if name not in archive.namelist():
        raise FileError(f"expected {name} in the archive, received {shown(archive.namelist())}; {SAVE_AGAIN}")
    _check_size(name, archive.getinfo(name).file_size, allowed)
    return archive.read(name)  # never more than the declared size: zipfile stops there and compares the checksum


# --- the weights ---


def _read_variables(weights_h5: bytes, layers: list[dict[str, Any]], allowed: int) -> dict[str, list[np.ndarray]]:
    try:
        import h5py
    except ImportError as error:
        raise NothingConcluded(
            "the weights in a .keras file are read with h5py, which is not installed;"
            " pip install 'scratchnet-parity[tf]', or give the model as .json"
        ) from error
    try:
        with h5py.File(io.BytesIO(weights_h5), "r") as file:
            groups, datasets = _walk(file)
            for path, dataset in datasets.items():
                _check_dataset(path, dataset)
            chosen = _assign(layers, groups, datasets)
            # The sum, because many small declarations make a large one.
            _check_size("the arrays", sum(_size(dataset) for dataset in datasets.values()), allowed)
            return {name: [_array(dataset) for dataset in found] for name, found in chosen.items()}
    except HDF5_ERRORS as error:
        raise FileError(f"expected a whole HDF5 file, received: {error}; {SAVE_AGAIN}") from error


def _walk(file: "h5py.File") -> tuple[dict[str, "h5py.Group"], dict[str, "h5py.Dataset"]]:
    """Every group and dataset under `layers`, by path; the optimizer's state beside it is not looked at.

    Attributes are not read: Keras's loader does not need them either, and their size cannot be bounded beforehand.

    Each object may be reached once only: that ends a walk through a group that contains itself, and no file of a few
    bytes can name one array a thousand times.
    """
    import h5py

    groups: dict[str, h5py.Group] = {}
    datasets: dict[str, h5py.Dataset] = {}
    addresses = set()
    if "layers" not in list(file):
        raise FileError(f"expected the group 'layers', received {shown(list(file))}; {SAVE_AGAIN}")
    pending = [("layers", file, "layers")]
    while pending:
        path, parent, key = pending.pop()
        item = _child(parent, key, path)
        address = h5py.h5o.get_info(item.id).addr
        if address in addresses:
            raise FileError(f"{path!r}: expected an object of its own, received a second name for another one")
        addresses.add(address)
        if isinstance(item, h5py.Dataset):
            datasets[path] = item
        elif isinstance(item, h5py.Group):
            groups[path] = item
            # Random state is no weight. Keras 3 keeps it out of the file; where it is written, it is passed over.
            pending += [(f"{path}/{name}", item, name) for name in item if name != "seed_generator"]
        else:
            raise FileError(f"{path!r}: expected a group or a dataset, received a {type(item).__name__}")
    return groups, datasets


def _child(parent: "h5py.Group", key: str, path: str) -> Any:
    import h5py

    link = parent.get(key, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise FileError(f"{path!r}: expected an object of this file, received a {type(link).__name__} to another place")
    return parent[key]


def _assign(
    layers: list[dict[str, Any]], groups: dict[str, "h5py.Group"], datasets: dict[str, "h5py.Dataset"]
) -> dict[str, list["h5py.Dataset"]]:
    """Layer name -> its datasets in order; every group and every dataset must have been asked for."""
    expected = group_names(layers)
    held: dict[str, dict[str, h5py.Dataset]] = {path: {} for path in expected}
    for path in [*groups, *datasets]:
        owner = "/".join(path.split("/")[:2])
        if owner not in expected and path != "layers":
            raise FileError(f"{path!r}: expected only the config's layers, {shown(sorted(expected))}; {SAVE_AGAIN}")
        if path in datasets:
            held[owner][path] = datasets[path]
    for path, layer in expected.items():
        _check_group(path, layer, groups)
    return {layer["config"]["name"]: _in_order(path, layer, held[path]) for path, layer in expected.items()}


def _described(layer: dict[str, Any]) -> str:
    return f"layer {layer['config']['name']!r} ({layer['class_name']})"


def _check_group(path: str, layer: dict[str, Any], groups: dict[str, "h5py.Group"]) -> None:
    if f"{path}/vars" not in groups:
        raise FileError(
            f"expected the group '{path}/vars' with the variables of {_described(layer)},"
            f" received {shown(sorted(name for name in groups if name.endswith('/vars')))}; {SAVE_AGAIN}"
        )


def _in_order(path: str, layer: dict[str, Any], held: dict[str, "h5py.Dataset"]) -> list["h5py.Dataset"]:
    """The datasets under a layer's group as Keras numbers them, after a look at their count and ranks."""
    ranks = _ranks(layer)
    count = len(held) if ranks is None else len(ranks)
    names = [f"{path}/{OWNER.get(layer['class_name'], '')}vars/{number}" for number in range(count)]
    if set(names) != set(held):
        hint = "" if held else "; a model that was never built has no weights: call it on data, then save it"
        raise FileError(f"{_described(layer)}: expected the variables {names}, received {shown(sorted(held))}{hint}")
    for name, rank in zip(names, ranks or [], strict=False):
        if rank is not None and held[name].ndim != rank:
            raise FileError(f"{name!r} of {_described(layer)}: expected rank {rank}, received shape {held[name].shape}")
    return [held[name] for name in names]


def _ranks(layer: dict[str, Any]) -> list[int | None] | None:
    """The ranks of the variables that this layer should have, None for a class that is not in the table."""
    if layer["class_name"] not in VARIABLES:
        return None
    options = layer["config"]  # one that is not said has Keras's default, which is True for all that the table names
    return [rank for option, rank in VARIABLES[layer["class_name"]] if option is None or options.get(option, True)]


def _check_dataset(path: str, dataset: "h5py.Dataset") -> None:
    """Real or whole numbers of up to 8 bytes that lie in this file, all of them."""
    if dataset.external or dataset.is_virtual:
        raise FileError(f"{path!r}: expected data of this file, received a reference to data of other files")
    if dataset.shape is None:
        raise FileError(f"{path!r}: expected an array, received a dataset without a shape")
    if dataset.dtype.kind not in "fiu" or dataset.dtype.itemsize > 8:
        raise FileError(
            f"{path!r}: expected float16, float32, float64 or whole numbers,"
            f" received {DTYPE_NAMES.get(dataset.dtype.str, dataset.dtype)}; cast the model and {SAVE_AGAIN}"
        )
    stored = dataset.id.get_storage_size()
    if (stored == 0 and dataset.nbytes) or (dataset.chunks is None and stored != dataset.nbytes):
        raise FileError(f"{path!r}: expected {dataset.nbytes} bytes for {dataset.shape}, received {stored} in the file")


def _size(dataset: "h5py.Dataset") -> int:
    """What reading it allocates: the array, and one chunk at a time where it is stored in chunks."""
    return int(dataset.nbytes + dataset.dtype.itemsize * math.prod(dataset.chunks or (0,)))


def _array(dataset: "h5py.Dataset") -> np.ndarray:
    """The values in this machine's byte order."""
    return np.asarray(dataset[()], dtype=dataset.dtype.newbyteorder("="))
