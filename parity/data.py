"""Images to train and compare on: MNIST through Keras's loader, a local `.npz`, or the bundled handwritten digits.

Nothing here touches the network but `load("mnist")`, and that only where Keras's cache has no MNIST yet.
"""

import contextlib
import hashlib
import os
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from parity.errors import FileError, NothingConcluded, UsageError

__all__ = ["Dataset", "load"]

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
SIDE = 28  # pixels, MNIST's
CLASSES = 10

KERAS_SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
"""Of the one mnist.npz that `keras.datasets.mnist.load_data` accepts (`file_hash` in its source)."""

MOST_IMAGES = 1_000_000
"""In one array. The largest set of real handwritten digits, NIST Special Database 19, has 402,953: twice that, rounded
up, is 784 MB. A header that declares more is a mistake or a trap, and is refused before anything is allocated."""

TRAIN_DIGITS = 1_500  # of the bundled 1,797; the rest are for testing

ALTERNATIVES = "use --data digits (bundled), or --data PATH (a .npz with x_train, y_train, x_test and y_test)"
HOW_TO_SAVE = "save uint8 arrays with numpy.savez_compressed(path, x_train=..., y_train=..., x_test=..., y_test=...)"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Grey images, 0 (paper) to 255 (ink), and their classes.

    x_train, x_test: (n, 28, 28) uint8; y_train, y_test: (n,) uint8, 0..9; source: one phrase for reports.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    source: str


def load(source: str | Path | None = None) -> Dataset:
    """Return the images that `source` names.

    source: None takes MNIST if Keras has it in its cache, else the bundled digits; "mnist" asks Keras, which downloads
    what it has not cached; "digits" are the bundled ones; anything else is the path of a `.npz` file.

    Raises UsageError for an empty name, FileError for a file that cannot be used, or if MNIST is neither cached nor
    reachable, and NothingConcluded for "mnist" where Keras is not installed.
    """
    if source == "":  # as a path it would be the current folder
        raise UsageError("data: expected mnist, digits or the path of a .npz file, received an empty name; leave it "
                         "out for MNIST where Keras has it, else the bundled digits")  # fmt: skip
    if source is None:
        return _cached_mnist_or_digits()
    if source == "digits":
        return _digits()
    if source == "mnist":
        return _mnist_through_keras()
    return _read(Path(source), str(source))


def _cached_mnist_or_digits() -> Dataset:
    cached = _keras_folder() / "mnist.npz"
    if not os.path.isfile(cached):
        return _digits()
    if not _is_keras_mnist(cached):
        return _digits(f", because {cached} is not the MNIST that Keras knows")
    return _read(cached, f"MNIST from {cached}")  # the bytes are Keras's own, so its loader would give the same arrays


# --- MNIST through Keras ---------------------------------------------------------------------------------------------


def _mnist_through_keras() -> Dataset:
    try:
        import keras
    except ImportError as error:
        raise NothingConcluded(
            f'--data mnist: expected Keras to load MNIST, received "{error}"; install Keras and TensorFlow, '
            f"or {ALTERNATIVES}"
        ) from error
    _require_writable(_keras_home())
    folder = _keras_folder()
    _refuse_what_keras_would_delete(folder / "mnist.npz")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras's download progress; stdout belongs to the report
            (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
    except Exception as error:  # Keras itself raises a bare Exception when the download fails
        raise FileError(
            f'--data mnist: Keras could not load MNIST into its cache folder {folder}: "{error}"; '
            f"put Keras's own mnist.npz there, or {ALTERNATIVES}"
        ) from error
    return Dataset(x_train, y_train, x_test, y_test, f"MNIST from {folder / 'mnist.npz'}")


def _keras_home() -> str:
    """Keras's own folder: KERAS_HOME or ~/.keras, as in keras/src/backend/config.py.

    Keras reads the environment once, when it is imported; from then on only Keras knows which folder its loader uses.
    """
    config = sys.modules.get("keras.src.backend.config")
    home: str = config.keras_home() if config else os.environ.get("KERAS_HOME", os.path.join("~", ".keras"))
    return os.path.expanduser(home)


def _keras_folder() -> Path:
    return Path(_keras_home(), "datasets")


def _require_writable(home: str) -> None:
    """Keras ignores a folder that it cannot write, for one that it shares with every user of the machine."""
    if not os.access(home, os.W_OK):
        raise FileError(
            f"--data mnist: expected a folder that Keras can write its cache in, received {home or 'no name'}; "
            f"set KERAS_HOME to a folder of yours, or {ALTERNATIVES}"
        )


def _refuse_what_keras_would_delete(cached: Path) -> None:
    """Keras overwrites a cached file whose hash it does not know, and removes it when the download fails."""
    if os.path.lexists(cached) and not (os.path.isfile(cached) and _is_keras_mnist(cached)):
        raise FileError(
            f"{cached}: expected Keras's own mnist.npz (SHA-256 {KERAS_SHA256}), received something else, which Keras "
            f"would replace or delete; move it away and let Keras download MNIST, or {ALTERNATIVES}"
        )


def _is_keras_mnist(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == KERAS_SHA256
    except OSError as error:
        raise FileError(f'{path}: expected a readable mnist.npz, received "{error}"; {ALTERNATIVES}') from error


# --- The bundled digits ----------------------------------------------------------------------------------------------


def _digits(why: str = "") -> Dataset:
    """Return E. Alpaydin's and C. Kaynak's digits (UCI, CC BY 4.0; made by docs/make_digits.py) in MNIST's format.

    The stored images are (1797, 8, 8) uint8, 0..16. Like MNIST's they become a 20x20 digit amid 4 pixels of paper.
    """
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as stored:
        images, labels = stored["images"], stored["labels"]
    from scipy import ndimage  # only here: not every command that may need images does

    enlarged = ndimage.zoom(images.astype(np.float32), (1, 20 / 8, 20 / 8), order=1)  # linear: stays within 0..16
    x = np.pad(np.rint(enlarged * (255 / 16)).astype(np.uint8), ((0, 0), (4, 4), (4, 4)))
    train, test = slice(TRAIN_DIGITS), slice(TRAIN_DIGITS, None)
    return Dataset(x[train], labels[train], x[test], labels[test], f"1,797 UCI handwritten digits (bundled){why}")


# --- A .npz file -----------------------------------------------------------------------------------------------------


def _read(path: Path, source: str) -> Dataset:
    """Read the four arrays; every declared shape is checked before the first array is allocated.

    Each `except Exception` below surrounds only library calls on the file's bytes: zipfile, its decompressors and
    NumPy's header parser have no common exception for bytes that are not what they claim to be.
    """
    if not os.path.isfile(path):
        came = "something that is not a file" if os.path.exists(path) else "nothing of that name"
        raise FileError(f"{path}: expected a .npz file, received {came}; check the path, or use --data digits")
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:
        raise FileError(f'{path}: expected a .npz file, received "{error}"; {HOW_TO_SAVE}') from error
    with archive:
        _require_arrays(path, archive)
        images = {name: _images_declared(path, archive, name) for name in ARRAYS}
        for part in ("train", "test"):
            _require_equal_counts(path, part, images)
        arrays = {name: _array(path, archive, name) for name in ARRAYS}
    for name in ("y_train", "y_test"):
        _require_labels(path, name, arrays[name])
    return Dataset(**arrays, source=source)


def _require_arrays(path: Path, archive: zipfile.ZipFile) -> None:
    found = [name.removesuffix(".npy") for name in archive.namelist()]
    missing = [name for name in ARRAYS if name not in found]
    if missing:
        raise FileError(
            f"{path}: expected the arrays {', '.join(ARRAYS)}, received {', '.join(found) or 'an empty archive'}; "
            f"missing: {', '.join(missing)}; {HOW_TO_SAVE}"
        )


def _images_declared(path: Path, archive: zipfile.ZipFile, name: str) -> int:
    """Return the number of images (or labels) that an array's header declares, if the header is as it should be."""
    try:
        with archive.open(f"{name}.npy") as file:
            shape, dtype = _header(file)
    except Exception as error:
        raise _damaged(path, name, error) from error
    inner = (SIDE, SIDE) if name.startswith("x") else ()
    if dtype != np.uint8 or len(shape) != 1 + len(inner) or shape[1:] != inner or shape[0] < 1:
        expected = f"uint8 of shape {f'(n, {SIDE}, {SIDE})' if inner else '(n,)'} with n >= 1"
        came = "pickled Python objects, which are never opened" if dtype.hasobject else f"{dtype} of shape {shape}"
        raise FileError(f"{path}: array {name}: expected {expected}, received {came}; {HOW_TO_SAVE}")
    if shape[0] > MOST_IMAGES:
        raise FileError(
            f"{path}: array {name}: expected at most {MOST_IMAGES:,} images, received a header that declares "
            f"{shape[0]:,}; keep a part of them"
        )
    return shape[0]


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and dtype; read without unpickling or allocating anything."""
    version = npy.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = npy.read_array_header_2_0(file)
    else:  # 3.0 differs in names of fields only, which an array of plain numbers has not
        raise ValueError(f"npy format {version} does not hold plain numbers")
    return shape, dtype


def _require_equal_counts(path: Path, part: str, images: dict[str, int]) -> None:
    x, y = images[f"x_{part}"], images[f"y_{part}"]
    if x != y:
        raise FileError(
            f"{path}: array y_{part}: expected one label for each of the {x} images of x_{part}, received {y}; "
            f"save images and labels of the same samples"
        )


def _array(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    try:
        with archive.open(f"{name}.npy") as file:
            array = npy.read_array(file, allow_pickle=False)
            if file.read(1):
                raise ValueError("more bytes than the header declares")
    except Exception as error:
        raise _damaged(path, name, error) from error
    return array


def _require_labels(path: Path, name: str, labels: np.ndarray) -> None:
    wrong = np.flatnonzero(labels >= CLASSES)
    if wrong.size:
        raise FileError(
            f"{path}: array {name}: expected labels 0..{CLASSES - 1}, received {labels[wrong[0]]} at index {wrong[0]} "
            f"({wrong.size} of {labels.size} are out of range); keep the ten digits only"
        )


def _damaged(path: Path, name: str, error: Exception) -> FileError:
    return FileError(
        f'{path}: array {name}: expected a whole array, received damaged data ("{error}"); get or save the file again'
    )
