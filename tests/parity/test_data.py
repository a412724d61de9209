"""The bundled digits, local files good and bad, and Keras's real loader, kept from deleting what it does not know."""

import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity import data
from parity.errors import FileError, NothingConcluded, UsageError

ROOT = Path(__file__).parents[2]


def small_arrays(train=3, test=2):
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (train, 28, 28), dtype=np.uint8),
        "y_train": np.arange(train, dtype=np.uint8) % 10,
        "x_test": rng.integers(0, 256, (test, 28, 28), dtype=np.uint8),
        "y_test": 9 - np.arange(test, dtype=np.uint8) % 10,
    }


def npz(save=np.savez_compressed, **changes):
    """The bytes of a small good file, some arrays exchanged, or left out where None is given."""
    file = io.BytesIO()
    save(file, **{name: array for name, array in {**small_arrays(), **changes}.items() if array is not None})
    return file.getvalue()


def npz_with_member(name, content):
    """The bytes of a small file, one member of which is `content` as it stands."""
    file = io.BytesIO(npz(**{name: None}))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def header(shape):
    """A whole npy header with not one byte of data behind it."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def assert_holds(dataset, arrays):
    for name, array in arrays.items():
        np.testing.assert_array_equal(getattr(dataset, name), array, strict=True)


# --- The bundled digits ----------------------------------------------------------------------------------------------


def test_an_empty_name_is_no_path():
    with pytest.raises(UsageError, match="received an empty name; leave it out"):
        data.load("")


def test_the_digits_are_in_mnists_format():
    digits = data.load("digits")
    assert digits.source == "1,797 UCI handwritten digits (bundled)"
    assert (digits.x_train.shape, digits.x_test.shape) == ((1500, 28, 28), (297, 28, 28))
    assert (digits.y_train.shape, digits.y_test.shape) == ((1500,), (297,))
    assert {getattr(digits, name).dtype for name in data.ARRAYS} == {np.dtype(np.uint8)}
    assert (digits.x_train.min(), digits.x_train.max()) == (0, 255)
    assert set(digits.y_train) == set(digits.y_test) == set(range(10))


def test_the_digits_have_a_margin_of_four_pixels_and_fill_the_rest():
    inked = np.argwhere(data.load("digits").x_train.any(axis=0))
    assert inked.min() == 4
    assert inked.max() == 23


def test_the_digits_are_the_test_part_of_the_uci_data_set():
    digits = data.load("digits")
    labels = np.concatenate([digits.y_train, digits.y_test])
    # The class distribution that the data set's own description gives for its test part.
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_the_digits_images_belong_to_their_labels():
    digits = data.load("digits")
    x_train, x_test = (x.reshape(len(x), -1).astype(float) for x in (digits.x_train, digits.x_test))
    means = np.stack([x_train[digits.y_train == digit].mean(axis=0) for digit in range(10)])
    nearest = ((x_test[:, None] - means) ** 2).sum(axis=-1).argmin(axis=1)
    # By chance a tenth is right, 0.5 is 23 standard deviations of that away; the nearest mean finds 0.84.
    assert (nearest == digits.y_test).mean() > 0.5


def test_the_digits_carry_their_attribution():
    with np.load(ROOT / "parity" / "digits.npz", allow_pickle=False) as stored:
        text = str(stored["attribution"])
    for part in ("E. Alpaydin", "C. Kaynak", "1998", "UCI", "CC BY 4.0", "scikit-learn"):
        assert part in text


# --- A .npz file -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("as_path", [str, Path])
def test_a_local_file_is_read(tmp_path, save, as_path):
    path = tmp_path / "digits.npz"
    path.write_bytes(npz(save))
    dataset = data.load(as_path(path))
    assert_holds(dataset, small_arrays())
    assert dataset.source == str(path)


def test_one_image_is_enough(tmp_path):
    path = tmp_path / "one.npz"
    path.write_bytes(npz(**small_arrays(1, 1)))
    assert_holds(data.load(path), small_arrays(1, 1))


def test_column_major_images_are_read(tmp_path):
    arrays = small_arrays()
    path = tmp_path / "fortran.npz"
    path.write_bytes(npz(x_train=np.asfortranarray(arrays["x_train"])))
    assert_holds(data.load(path), arrays)


def test_a_file_named_like_a_keyword_is_read_through_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mnist").write_bytes(npz())
    assert_holds(data.load(Path("mnist")), small_arrays())


def test_the_real_mnist_is_read(mnist_path):
    mnist = data.load(mnist_path)
    assert (mnist.x_train.shape, mnist.x_test.shape) == ((60_000, 28, 28), (10_000, 28, 28))
    # The class distribution of the original label files.
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(mnist.y_train).tolist() == counts
    assert mnist.y_test[:5].tolist() == [7, 2, 1, 0, 4]


ONE_IMAGE = r"uint8 of shape \(n, 28, 28\) with n >= 1, received "
ONE_LABEL = r"uint8 of shape \(n,\) with n >= 1, received "
UNUSABLE = {
    "empty": (b"", r"expected a .npz file, received"),
    "text": (b"no zip at all", r"expected a .npz file, received"),
    "a lone array": (npy(small_arrays()["x_train"]), r"expected a .npz file, received"),
    "cut short": (npz()[:-100], r"expected a .npz file, received"),
    "no array": (npz(**dict.fromkeys(data.ARRAYS)), r"received an empty archive; missing: x_train, y_train, x_test"),
    "two missing": (npz(x_train=None, y_test=None), r"received y_train, x_test; missing: x_train, y_test;"),
    "flat": (npz(x_train=np.zeros((3, 784), np.uint8)), rf"array x_train: .*{ONE_IMAGE}uint8 of shape \(3, 784\)"),
    "channels": (npz(x_test=np.zeros((2, 28, 28, 1), np.uint8)), rf"array x_test: .*{ONE_IMAGE}.*\(2, 28, 28, 1\)"),
    "other size": (npz(x_test=np.zeros((2, 32, 32), np.uint8)), rf"array x_test: .*{ONE_IMAGE}.*\(2, 32, 32\)"),
    "no image": (npz(x_train=np.zeros((0, 28, 28), np.uint8)), rf"array x_train: .*{ONE_IMAGE}.*\(0, 28, 28\)"),
    "float": (npz(x_train=np.zeros((3, 28, 28), np.float32)), rf"array x_train: .*{ONE_IMAGE}float32"),
    "signed": (npz(x_train=np.zeros((3, 28, 28), np.int8)), rf"array x_train: .*{ONE_IMAGE}int8"),
    "wide labels": (npz(y_train=np.arange(3)), rf"array y_train: .*{ONE_LABEL}int64 of shape \(3,\)"),
    "one-hot labels": (npz(y_train=np.eye(3, 10, dtype=np.uint8)), rf"array y_train: .*{ONE_LABEL}.*\(3, 10\)"),
    "a scalar label": (npz(y_test=np.uint8(3)), rf"array y_test: .*{ONE_LABEL}uint8 of shape \(\)"),
    "records": (npz(y_test=np.zeros(2, [("label", "u1")])), rf"array y_test: .*{ONE_LABEL}"),
    "label 10": (npz(y_train=np.uint8([0, 10, 11])), r"array y_train: .*labels 0..9, received 10 at index 1 \(2 of 3"),
    "too few labels": (npz(y_train=np.uint8([1])), r"array y_train: .*each of the 3 images of x_train, received 1;"),
    "too many labels": (
        npz(y_test=np.uint8([1, 2, 3])),
        r"array y_test: .*each of the 2 images of x_test, received 3;",
    ),
    "objects": (npz(y_train=np.array([1, "2", None], object)), r"array y_train: .*received pickled Python objects"),
    "not an array": (npz_with_member("x_test", b"plain text"), r"array x_test: .*damaged data"),
    "half a header": (npz_with_member("x_test", header((2, 28, 28))[:20]), r"array x_test: .*damaged data"),
    "a later format": (npz_with_member("x_test", b"\x93NUMPY\x03\x00"), r"array x_test: .*npy format \(3, 0\)"),
    "data missing": (npz_with_member("x_test", header((2, 28, 28))), r"array x_test: .*damaged data"),
    "data too long": (npz_with_member("y_test", header((2,)) + b"\1\2\3"), r"array y_test: .*more bytes than"),
    "huge": (npz_with_member("x_test", header((10**15, 28, 28))), r"array x_test: .*declares 1,000,000,000,000,000;"),
    "one too many": (npz_with_member("y_test", header((1_000_001,))), r"array y_test: .*declares 1,000,001;"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_unusable_file_is_named_with_what_is_wrong(tmp_path, kind):
    content, message = UNUSABLE[kind]
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(FileError, match=message) as caught:
        data.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileError, match=r"absent.npz: expected a .npz file, received nothing of that name"):
        data.load(tmp_path / "absent.npz")


def test_a_folder_is_an_error(tmp_path):
    with pytest.raises(FileError, match="received something that is not a file"):
        data.load(tmp_path)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pickled_objects_are_never_opened(tmp_path):
    path, sprung = tmp_path / "trap.npz", tmp_path / "sprung"
    path.write_bytes(npz(y_test=np.array([Trap(str(sprung)), 1], object)))
    with pytest.raises(FileError, match="pickled"):
        data.load(path)
    assert not sprung.exists()
    np.load(path, allow_pickle=True)["y_test"]  # the trap works where it is opened
    assert sprung.exists()


GOOD = [npz(np.savez), npz()]


@pytest.mark.filterwarnings("default")  # NumPy warns of headers that look like Python 2's, as a damaged one may
@settings(max_examples=300)
@given(good=st.sampled_from(GOOD), at=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), cut=st.booleans())
def test_no_damage_goes_unseen(tmp_path_factory, good, at, value, cut):
    """One byte changed or the end lost: either it did not matter, or it is an error for the user."""
    content = bytearray(good)
    if cut:
        del content[int(at * len(good)) :]
    else:
        content[int(at * len(good))] = value
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(content)
    try:
        dataset = data.load(path)
    except FileError:
        return
    assert_holds(dataset, small_arrays())


# --- Without --data --------------------------------------------------------------------------------------------------


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Where mnist.npz would be in an empty cache, for a process that has not imported Keras."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delitem(sys.modules, "keras.src.backend.config", raising=False)
    folder = tmp_path / "keras" / "datasets"
    folder.mkdir(parents=True)
    return folder / "mnist.npz"


def test_without_a_cached_mnist_the_digits_are_taken(cached):
    assert data.load().source == "1,797 UCI handwritten digits (bundled)"


def test_a_cached_mnist_is_taken(cached, monkeypatch):
    cached.write_bytes(npz())
    monkeypatch.setattr(data, "KERAS_SHA256", hashlib.sha256(npz()).hexdigest())  # as if this were Keras's file
    dataset = data.load()
    assert_holds(dataset, small_arrays())
    assert dataset.source == f"MNIST from {cached}"


def test_a_cached_file_that_is_not_keras_mnist_is_not_taken_and_stays(cached):
    cached.write_bytes(npz())
    dataset = data.load()
    assert (
        dataset.source == f"1,797 UCI handwritten digits (bundled), because {cached} is not the MNIST that Keras knows"
    )
    assert len(dataset.x_train) == 1500
    assert cached.read_bytes() == npz()


def test_the_cache_is_in_the_home_folder_unless_told_otherwise(tmp_path, cached, monkeypatch):
    cached.write_bytes(npz())
    cached.parents[1].rename(tmp_path / ".keras")
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(tmp_path / ".keras" / "datasets" / "mnist.npz") in data.load().source


# --- MNIST through Keras ---------------------------------------------------------------------------------------------


def test_without_keras_nothing_is_concluded(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)  # Python's own way to make an import fail
    with pytest.raises(NothingConcluded, match=r"--data mnist: .*install Keras.*--data digits.*--data PATH"):
        data.load("mnist")


@pytest.fixture
def in_keras_process(tmp_path):
    """Run a script in a fresh Python with a Keras folder of its own and no way out to the network; its JSON answer.

    Keras reads KERAS_HOME when it is imported, so each folder needs a process.
    """
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))  # bound but not listening: whoever connects is refused, at once

        def run(script, home=tmp_path / "keras"):
            proxy = f"http://127.0.0.1:{refusing.getsockname()[1]}"
            environment = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
            environment |= {"https_proxy": proxy, "HTTPS_PROXY": proxy, "KERAS_HOME": str(home)}
            environment |= {"PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
            done = subprocess.run(
                [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)  # fails if anything else was printed to stdout

        yield run


NOT_KERAS_FILE = """
import contextlib, json, sys
import keras
from parity import data
from parity.errors import FileError

def message():
    try:
        return data.load("mnist").source
    except FileError as error:
        return str(error)

cached = data._keras_folder() / "mnist.npz"
before = cached.read_bytes()
refused = message()
survived = cached.read_bytes() == before
try:
    with contextlib.redirect_stdout(sys.stderr):
        keras.datasets.mnist.load_data()
except Exception as error:
    by_keras = str(error)
print(json.dumps([refused, survived, by_keras, cached.exists(), message()]))
"""


@pytest.mark.tensorflow
def test_a_file_that_keras_would_delete_survives(tmp_path, in_keras_process):
    cached = tmp_path / "keras" / "datasets" / "mnist.npz"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(npz())
    refused, survived, by_keras, still_there, offline = in_keras_process(NOT_KERAS_FILE)

    assert refused.startswith(f"{cached}: expected Keras's own mnist.npz (SHA-256 731c5ac6")
    assert "--data digits" in refused
    assert "--data PATH" in refused
    assert survived
    # The danger is real: Keras's loader alone deletes the file.
    assert "URL fetch failure" in by_keras
    assert not still_there
    # And with no file left and no network, the message says where and what else.
    assert f"cache folder {cached.parent}" in offline
    assert "URL fetch failure" in offline
    assert "--data digits" in offline
    assert "--data PATH" in offline


# Only Keras's own file has the hash that its loader asks for, and a repacked MNIST has another. The loader is the real
# one; of all its code only that constant is exchanged for the hash of the file at hand, if the two differ at all.
THROUGH_KERAS = """
import hashlib, json, sys
import keras
from parity import data

cached = data._keras_folder() / "mnist.npz"
loader = keras.datasets.mnist.load_data
constants = loader.__code__.co_consts
known = constants.count(data.KERAS_SHA256)
at_hand = hashlib.sha256(cached.read_bytes()).hexdigest()
loader.__code__ = loader.__code__.replace(
    co_consts=tuple(at_hand if constant == data.KERAS_SHA256 else constant for constant in constants)
)
data.KERAS_SHA256 = at_hand
by_keras, by_us = data.load("mnist"), data.load()
equal = all((getattr(by_keras, name) == getattr(by_us, name)).all() for name in data.ARRAYS)
print(json.dumps([known, by_keras.source, by_us.source, len(by_keras.x_train), equal]))
"""


@pytest.mark.tensorflow
def test_keras_loads_the_cached_mnist_and_we_read_the_same(tmp_path, mnist_path, in_keras_process):
    cached = tmp_path / "keras" / "datasets" / "mnist.npz"
    cached.parent.mkdir(parents=True)
    shutil.copyfile(mnist_path, cached)
    known, by_keras, by_us, images, equal = in_keras_process(THROUGH_KERAS)
    assert known == 1, "this version of Keras asks for another hash than data.KERAS_SHA256"
    assert by_keras == by_us == f"MNIST from {cached}"
    assert images == 60_000
    assert equal


UNWRITABLE = """
import json
from parity import data
from parity.errors import FileError

try:
    answer = data.load("mnist").source
except FileError as error:
    answer = str(error)
print(json.dumps(answer))
"""


@pytest.mark.tensorflow
def test_a_folder_that_keras_cannot_write_is_an_error(tmp_path, in_keras_process):
    file = tmp_path / "file"
    file.touch()
    answer = in_keras_process(UNWRITABLE, home=file / "keras")  # nobody can make a folder inside a file
    assert f"received {file / 'keras'}; set KERAS_HOME" in answer
    assert "--data digits" in answer
