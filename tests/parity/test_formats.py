"""Weights in files: bit for bit there and back, and by the library of each format."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import parity
from parity.errors import NothingConcluded, UsageError
from parity.weights import record
from parity.weights.formats import read, write

tensorflow = pytest.mark.tensorflow
ROOT = Path(__file__).parents[2]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = [np.dtype("f2"), np.dtype("f4"), np.dtype("f8"), BFLOAT16]
WHOLE = [np.dtype(name) for name in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")]
WITHOUT = {"npz": [BFLOAT16], "pt": [np.dtype(name) for name in ("u2", "u4", "u8")]}
"""Ending -> the types that the format, or the library that reads it, does not have."""
NEEDS = {"pt": "torch", "weights.h5": "h5py"}


@pytest.fixture(params=["safetensors", "npz", "weights.h5", "pt"])
def ending(request) -> str:
    if request.param in NEEDS:
        pytest.importorskip(NEEDS[request.param])
    return request.param


def special(dtype: np.dtype) -> np.ndarray:
    """Every kind of number: zeros of both signs, denormals, the largest, infinities, NaN with a payload, all else. Made
    of bits, since arithmetic would lose some of them."""
    if dtype.kind in "iu":
        return np.array([0, 1, np.iinfo(dtype).min, np.iinfo(dtype).max, 7, 8], dtype)
    width = 8 * dtype.itemsize
    about = ml_dtypes.finfo(dtype)
    exponent = ((1 << about.nexp) - 1) << about.nmant
    bits = [0, 1 << width - 1, 1, (1 << width - 1) | 3, exponent - 1, exponent, (1 << width - 1) | exponent]
    bits += [exponent | 5, exponent | (1 << about.nmant - 1) | 9, 1 << about.nmant, (1 << about.nmant) - 1, 12345]
    return np.array(bits, f"u{dtype.itemsize}").view(dtype)


def arrays_of(dtypes: list[np.dtype]) -> dict[str, np.ndarray]:
    """Arrays of all kinds and shapes, under names of layers that sort otherwise than they are counted."""
    found = {f"layers/dense_{10 - n}/vars/0": special(dtype) for n, dtype in enumerate(dtypes)}
    found |= {f"layers/conv/vars/{n}": special(dtype).reshape(2, -1).T for n, dtype in enumerate(dtypes)}
    found |= {f"layers/number/vars/{n}": special(dtype)[1] for n, dtype in enumerate(dtypes)}
    found |= {f"layers/empty/vars/{n}": np.empty((0, 3), dtype) for n, dtype in enumerate(dtypes)}
    return {key: np.asarray(value) for key, value in found.items()}


def require_same(received: np.ndarray, expected: np.ndarray) -> None:
    assert received.shape == expected.shape
    assert received.dtype == expected.dtype.newbyteorder("=")
    assert received.tobytes() == expected.astype(expected.dtype.newbyteorder("="), copy=False).tobytes()


def require_read(path: Path, expected: dict[str, np.ndarray]) -> None:
    found = read(path).arrays
    assert set(found) == set(expected)
    for key, stored in found.items():
        assert (stored.key, stored.shape) == (key, expected[key].shape)
        assert stored.dtype == expected[key].dtype.newbyteorder("=")
        loaded = stored.load()
        require_same(loaded, expected[key])
        assert loaded.flags.c_contiguous
        assert loaded.flags.aligned


def held(ending: str) -> list[np.dtype]:
    return [dtype for dtype in [*FLOATS, *WHOLE] if dtype not in WITHOUT.get(ending, [])]


def test_there_and_back_bit_for_bit(ending, tmp_path):
    arrays = arrays_of(held(ending))
    write(tmp_path / f"model.{ending}", arrays)
    require_read(tmp_path / f"model.{ending}", arrays)


def test_from_every_format_to_every_other(ending, tmp_path):
    """With the types that all of them have."""
    arrays = arrays_of([dtype for dtype in FLOATS if dtype != BFLOAT16])
    write(tmp_path / f"first.{ending}", arrays)
    for other in ("safetensors", "npz", ending):
        first = read(tmp_path / f"first.{ending}")
        write(tmp_path / f"second.{other}", {key: stored.load() for key, stored in first.arrays.items()})
        require_read(tmp_path / f"second.{other}", arrays)


def test_the_order_and_the_bytes_in_memory_do_not_matter(ending, tmp_path):
    plain = np.arange(24, dtype="f4").reshape(4, 6)
    arrays = {
        "layers/fortran/vars/0": np.asfortranarray(plain),
        "layers/strided/vars/0": plain[::2, ::-3],
        "layers/big/vars/0": plain.astype(">f4"),
        "layers/repeated/vars/0": np.broadcast_to(np.float64(3), (2, 3)),
        "layers/frozen/vars/0": plain.T.copy(),
    }
    arrays["layers/frozen/vars/0"].flags.writeable = False
    write(tmp_path / f"model.{ending}", arrays)
    require_read(tmp_path / f"model.{ending}", arrays)


def test_texts_and_no_texts(ending, tmp_path):
    path = tmp_path / f"model.{ending}"
    texts = {"parity": json.dumps({"digest": "ab", "outputs": [1e-300, -0.0]}), "näme": 'quotes " and 😀\n'}
    for metadata in (texts, {}, None):
        write(path, {"layers/a/vars/0": np.ones(3)}, metadata)
        assert read(path).metadata == (metadata or {})
        assert list(read(path).arrays) == ["layers/a/vars/0"]


def test_the_order_of_the_file(tmp_path):
    keys = ["b", "dense_10", "a", "dense_2"]
    for ending in ("safetensors", "npz"):
        write(
            tmp_path / f"model.{ending}", {key: np.ones(n + 1, "f4f8"[2 * (n % 2) :][:2]) for n, key in enumerate(keys)}
        )
        assert list(read(tmp_path / f"model.{ending}").arrays) == keys


def test_the_same_arrays_are_the_same_bytes(tmp_path):
    for ending in ("safetensors", "npz"):
        for name in ("one", "two"):
            write(tmp_path / f"{name}.{ending}", {"a": np.ones(3)}, {"text": "x"})
        assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()


def test_what_is_mapped_is_not_read(tmp_path):
    """A view of a file takes no memory of its own."""
    large = np.zeros(2**16)
    write(tmp_path / "model.safetensors", {"a": large})
    array = read(tmp_path / "model.safetensors").arrays["a"].load()
    assert not array.flags.owndata
    assert not array.flags.writeable


# -- by each format's own library --------------------------------------------------------------------------------------


def test_safetensors_reads_ours_and_we_read_its(tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    arrays = arrays_of(held("safetensors"))
    write(tmp_path / "ours.safetensors", arrays, {"format": "np"})
    found = load_file(tmp_path / "ours.safetensors")
    assert set(found) == set(arrays)
    for key, value in arrays.items():
        require_same(found[key], value)
    with safe_open(tmp_path / "ours.safetensors", "np") as file:
        assert file.metadata() == {"format": "np"}
    save_file(
        {key: np.asarray(value, order="C") for key, value in arrays.items()}, tmp_path / "its.safetensors", {"a": "b"}
    )
    require_read(tmp_path / "its.safetensors", arrays)
    assert read(tmp_path / "its.safetensors").metadata == {"a": "b"}


def test_a_transposed_array_that_safetensors_itself_corrupts(tmp_path):
    """The reason why it is not asked to write. When it no longer does so, this test says it."""
    from safetensors.numpy import load_file, save_file

    plain = np.arange(6, dtype="f4").reshape(2, 3)
    save_file({"a": plain.T}, tmp_path / "its.safetensors")
    theirs = load_file(tmp_path / "its.safetensors")["a"]
    assert theirs.shape == (3, 2)
    np.testing.assert_array_equal(theirs, plain.reshape(3, 2))  # another matrix, and no word of it
    write(tmp_path / "ours.safetensors", {"a": plain.T})
    np.testing.assert_array_equal(load_file(tmp_path / "ours.safetensors")["a"], plain.T)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_numpy_reads_ours_and_we_read_its(tmp_path, save):
    arrays = arrays_of(held("npz")) | {"file": np.ones(2), "big": np.arange(3, dtype=">f8")}
    arrays["fortran"] = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    write(tmp_path / "ours.npz", arrays)
    with np.load(tmp_path / "ours.npz", allow_pickle=False) as found:
        assert set(found.files) == set(arrays)
        for key, value in arrays.items():
            require_same(found[key], value)
    save(tmp_path / "its.npz", **{key: value for key, value in arrays.items() if key != "file"})
    require_read(tmp_path / "its.npz", {key: value for key, value in arrays.items() if key != "file"})


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_npy(tmp_path, version):
    with zipfile.ZipFile(tmp_path / "model.npz", "w") as archive, archive.open("a.npy", "w") as member:
        np.lib.format.write_array(member, np.arange(3.0), version)
    np.testing.assert_array_equal(read(tmp_path / "model.npz").arrays["a"].load(), np.arange(3.0))


def test_torch_reads_ours_and_we_read_its(torch, tmp_path):
    arrays = arrays_of(held("pt"))
    write(tmp_path / "ours.pt", arrays, {"text": "beside"})
    found = torch.load(tmp_path / "ours.pt", weights_only=True)
    assert list(found) == list(arrays)
    for key, value in arrays.items():
        bits = found[key].contiguous().view(torch.int16) if value.dtype == BFLOAT16 else found[key].contiguous()
        require_same(bits.numpy().view(value.dtype), value)
    torch.save(found, tmp_path / "its.pth")
    require_read(tmp_path / "its.pth", arrays)


def test_the_state_of_a_module(torch, tmp_path):
    """Buffers without axes, views into one storage, transposed ones, parameters, versions of the modules."""
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 2), torch.nn.BatchNorm2d(3), torch.nn.Flatten())
    state = module.state_dict()
    torch.save(state, tmp_path / "module.pt")
    require_read(tmp_path / "module.pt", {key: value.numpy() for key, value in state.items()})
    whole = torch.arange(12.0).reshape(3, 4)
    tied = {"whole": whole, "again": whole, "turned": whole.T, "part": whole[1:, ::2], "own": torch.nn.Parameter(whole)}
    torch.save(tied, tmp_path / "tied.pt")
    require_read(tmp_path / "tied.pt", {key: value.detach().numpy() for key, value in tied.items()})


def test_without_torch(torch, tmp_path, monkeypatch):
    write(tmp_path / "model.pt", {"a": np.ones(3)})
    before = (tmp_path / "model.pt").read_bytes()
    monkeypatch.setitem(sys.modules, "torch", None)  # Python's own way to say: this cannot be imported
    with pytest.raises(NothingConcluded, match=r"PyTorch, which is not installed; pip install torch"):
        read(tmp_path / "model.pt")
    with pytest.raises(NothingConcluded, match=r"pip install torch"):
        write(tmp_path / "model.pt", {"a": np.zeros(3)})
    assert (tmp_path / "model.pt").read_bytes() == before


def test_without_h5py(tmp_path, monkeypatch):
    pytest.importorskip("h5py")
    write(tmp_path / "model.weights.h5", {"layers/a/vars/0": np.ones(3)})
    monkeypatch.setitem(sys.modules, "h5py", None)
    for call in (lambda: read(tmp_path / "model.weights.h5"), lambda: write(tmp_path / "new.weights.h5", {})):
        with pytest.raises(
            NothingConcluded, match=r"h5py, which is not installed; pip install 'scratchnet-parity\[tf\]'"
        ):
            call()
    assert not (tmp_path / "new.weights.h5").exists()


def onnx_model(initializers: list, path: Path, **texts: str) -> None:
    import onnx

    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "net", values[:1], values[1:], initializers))
    onnx.helper.set_model_props(model, texts)
    onnx.save(model, path)


def test_onnx_initialisers(tmp_path):
    onnx = pytest.importorskip("onnx")
    arrays = arrays_of(held("onnx"))
    onnx_model(
        [onnx.numpy_helper.from_array(value, key) for key, value in arrays.items()], tmp_path / "raw.onnx", a="b"
    )
    require_read(tmp_path / "raw.onnx", arrays)
    assert read(tmp_path / "raw.onnx").metadata == {"a": "b"}
    assert list(read(tmp_path / "raw.onnx").arrays) == list(arrays)


def test_onnx_initialisers_as_lists_of_numbers(tmp_path):
    onnx = pytest.importorskip("onnx")
    values = {
        "f": (onnx.TensorProto.FLOAT, np.array([[1.5, -0.0], [1e-45, 3]], "f4")),
        "d": (onnx.TensorProto.DOUBLE, np.array([5e-324, -2])),
        "i": (onnx.TensorProto.INT64, np.array([-1, 300, 0])),
        "h": (onnx.TensorProto.FLOAT16, np.array([1.5, -0.0], "f2")),
        "b": (onnx.TensorProto.BFLOAT16, np.array([1.5, -0.0], BFLOAT16)),
        "u": (onnx.TensorProto.UINT64, np.array([2**63], "u8")),
        "s": (onnx.TensorProto.INT8, np.array([-128], "i1")),
    }
    tensors = [
        onnx.helper.make_tensor(key, kind, value.shape, value.reshape(-1)) for key, (kind, value) in values.items()
    ]
    assert not any(tensor.HasField("raw_data") for tensor in tensors)
    onnx_model(tensors, tmp_path / "lists.onnx")
    require_read(tmp_path / "lists.onnx", {key: value for key, (_, value) in values.items()})


# -- Keras -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(keras):
    """The first Dense is called dense_1 and the second dense, the other way round than Keras names their groups; there
    are twelve of them, so that dense_10 sorts before dense_2."""
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((4, 3)),
            layers.Flatten(),
            layers.Dense(5, name="dense_1"),
            layers.BatchNormalization(),
            layers.Dense(5, name="dense", dtype="float64"),
            *(layers.Dense(5 + n, name=f"more_{n}", use_bias=False) for n in range(9)),
            layers.Dense(2, dtype="bfloat16", name="last"),
        ]
    )
    model.compile("adam", "mse")
    rng = np.random.default_rng(3)
    model.fit(rng.standard_normal((4, 4, 3)), rng.standard_normal((4, 2)), verbose=0)
    return model


def numpy_of(model) -> list[np.ndarray]:
    return [np.asarray(weight) for weight in model.get_weights()]


@tensorflow
def test_what_keras_saves(model, tmp_path):
    model.save(tmp_path / "model.keras")
    archive = read(tmp_path / "model.keras")
    assert archive.config == json.loads(json.dumps(model.get_config()))
    keys = [key for key in archive.arrays if key.startswith("layers/")]
    assert keys[:3] == ["layers/dense/vars/0", "layers/dense/vars/1", "layers/batch_normalization/vars/0"]
    assert keys[-4:] == [
        "layers/dense_9/vars/0",
        "layers/dense_10/vars/0",
        "layers/dense_11/vars/0",
        "layers/dense_11/vars/1",
    ]
    for key, weight in zip(keys, model.weights, strict=True):
        require_same(archive.arrays[key].load(), np.asarray(weight))
    assert archive.metadata["layers/dense"] == "dense_1"
    assert archive.metadata["layers/dense_1"] == "dense"
    assert archive.metadata["keras_version"]
    state = [archive.arrays[f"optimizer/vars/{n}"].load() for n in range(len(model.optimizer.variables))]
    for received, expected in zip(state, model.optimizer.variables, strict=True):
        require_same(received, np.asarray(expected))
    model.save_weights(tmp_path / "model.weights.h5")
    bare = read(tmp_path / "model.weights.h5").arrays
    assert {key: stored.load().tobytes() for key, stored in bare.items()} == {
        key: stored.load().tobytes() for key, stored in archive.arrays.items()
    }


@tensorflow
def test_what_we_write_for_keras(keras, model, tmp_path):
    rng = np.random.default_rng(4)
    model.save(tmp_path / "model.keras")
    old = read(tmp_path / "model.keras")
    new = {
        key: rng.standard_normal(stored.shape).astype(stored.dtype)
        for key, stored in old.arrays.items()
        if key.startswith("layers/")
    }
    write(tmp_path / "new.keras", new, {"parity": "record"}, template=tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "new.keras")
    for received, expected in zip(numpy_of(loaded), new.values(), strict=True):
        require_same(received, expected)
    for received, expected in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        require_same(np.asarray(received), np.asarray(expected))
    again = read(tmp_path / "new.keras")
    assert again.metadata["parity"] == "record"
    assert again.config == old.config
    assert {**again.metadata, "parity": ""} == {**old.metadata, "parity": ""}
    write(tmp_path / "new.weights.h5", new, {"parity": "record"}, config=old.config)
    other = keras.Sequential.from_config(model.get_config())
    other.load_weights(tmp_path / "new.weights.h5")
    for received, expected in zip(numpy_of(other), new.values(), strict=True):
        require_same(received, expected)
    assert read(tmp_path / "new.weights.h5").metadata["layers/flatten"] == "flatten"


@tensorflow
def test_a_parity_record_goes_with_the_weights_that_it_is_of(keras, tmp_path, monkeypatch):
    """Where the new one would be too long, the file has none; what Keras put beside it stays."""
    path = tmp_path / "model.keras"
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="top")])
    model.save(path)
    about = read(path).metadata
    parity.port(model, path, proof=False)
    assert record.KEY in read(path).metadata
    monkeypatch.setattr(record, "LONGEST", 0)
    parity.port({"top/kernel": np.ones((3, 2), "f4"), "top/bias": np.ones(2, "f4")}, path, proof=False)
    assert read(path).metadata == about
    with pytest.raises(NothingConcluded, match="has no parity record"):
        parity.verify(path)


@tensorflow
def test_a_template_is_filled_completely_and_as_it_is(model, tmp_path):
    path = tmp_path / "model.keras"
    model.save(path)
    before = path.read_bytes()
    arrays = {key: stored.load() for key, stored in read(path).arrays.items()}
    first = next(iter(arrays))
    wrong = {
        "expected an array for layers/dense/vars/0": {key: value for key, value in arrays.items() if key != first},
        "expected one of the keys layers/dense/vars/0, .*received 'layers/none/vars/0'": {
            **arrays,
            "layers/none/vars/0": np.ones(3),
        },
        r"layers/dense/vars/0: expected shape \(12, 5\), received \(5, 12\)": {**arrays, first: arrays[first].T},
    }
    for expected, given in wrong.items():
        with pytest.raises(UsageError, match=expected):
            write(path, given, template=path)
    with pytest.raises(UsageError, match=r"expected the \.keras file of the model as a template, received none"):
        write(path, arrays)
    assert path.read_bytes() == before
    write(path, arrays, template=path)
    require_read(path, arrays)
    for stored in read(path).arrays.values():
        assert not stored.load().flags.writeable  # used where it lies


@tensorflow
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_the_files_of_keras_2(keras, tmp_path):
    layers = keras.layers
    model = keras.Sequential(
        [layers.Input((2, 2)), layers.Flatten(), layers.Dense(3, name="b"), layers.Dense(2, name="a")]
    )
    model.compile("sgd", "mse")
    model.save(tmp_path / "model.h5")
    archive = read(tmp_path / "model.h5")
    assert archive.format == "keras-legacy"
    assert archive.config["name"] == model.name
    keys = [key for key in archive.arrays if not key.startswith("optimizer_weights/")]
    assert [key.split("/")[0] for key in keys] == ["b", "b", "a", "a"]
    for key, weight in zip(keys, model.weights, strict=True):
        assert key.endswith(weight.name)
        require_same(archive.arrays[key].load(), np.asarray(weight))


def test_the_names_of_keras_2_in_pieces(tmp_path):
    """Lists of names that are longer than what an attribute may be, of fixed length as older releases wrote them."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.attrs["layer_names0"], file.attrs["layer_names1"] = np.array([b"z"]), np.array([b"a", b"empty"])
        for layer, value in {"z": 1.0, "a": 2.0}.items():
            file[f"{layer}/{layer}/kernel:0"] = np.full((2, 1), value, "f4")
            file[layer].attrs["weight_names"] = np.array([f"{layer}/kernel:0".encode()])
        file.create_group("empty").attrs["weight_names"] = []
    found = read(tmp_path / "model.h5").arrays
    assert {key: stored.load().tolist() for key, stored in found.items()} == {
        "z/z/kernel:0": [[1], [1]],
        "a/a/kernel:0": [[2], [2]],
    }
    assert list(found) == ["z/z/kernel:0", "a/a/kernel:0"]


def test_arrays_in_chunks(tmp_path):
    """As somebody may have packed them again; what is stored with filters is unpacked by the library."""
    h5py = pytest.importorskip("h5py")
    arrays = {f"layers/a/vars/{n}": special(np.dtype("f4")).reshape(6, 2) for n in range(4)}
    settings = [
        {"chunks": (4, 2)},
        {"compression": "gzip", "shuffle": True},
        {"compression": "gzip", "fletcher32": True, "chunks": (1, 1)},
        {"maxshape": (None, 2)},
    ]
    with h5py.File(tmp_path / "model.weights.h5", "w") as file:
        for (key, value), setting in zip(arrays.items(), settings, strict=True):
            file.create_dataset(key, data=value, **setting)
        file["layers/big/vars/0"] = np.arange(3, dtype=">f8")
    require_read(tmp_path / "model.weights.h5", {**arrays, "layers/big/vars/0": np.arange(3.0)})


# -- what is refused ---------------------------------------------------------------------------------------------------

REFUSED = {
    "complex": ({"layers/a/vars/0": np.ones(3, "c8")}, "expected one of .*received complex64"),
    "truth values": ({"layers/a/vars/0": np.ones(3, "?")}, "expected one of .*received bool"),
    "texts": ({"layers/a/vars/0": np.array(["a"])}, "expected one of .*received <U1"),
    "objects": ({"layers/a/vars/0": np.array([None])}, "expected one of .*received object"),
    "records": ({"layers/a/vars/0": np.ones(3, "f4,i4")}, "expected one of "),
    "dates": ({"layers/a/vars/0": np.ones(3, "M8[s]")}, "expected one of .*received datetime64"),
    "long floats": ({"layers/a/vars/0": np.ones(3, np.longdouble)}, "expected one of .*received float128"),
    "float8": ({"layers/a/vars/0": np.ones(3, ml_dtypes.float8_e4m3fn)}, "expected one of .*received float8_e4m3fn"),
}
BAD_NAMES = ["", "/a", "a/", "a//b", "../a", "a/../b", ".", "a\\b", "C:/a", "a\nb", "a\0b", "a\x1b[2J"]


@pytest.mark.parametrize(("arrays", "expected"), REFUSED.values(), ids=REFUSED)
def test_arrays_that_no_format_takes(ending, tmp_path, arrays, expected):
    path = tmp_path / f"model.{ending}"
    path.write_bytes(b"old")
    with pytest.raises(UsageError, match=expected):
        write(path, arrays)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("key", BAD_NAMES)
@pytest.mark.parametrize("ending", ["npz", "weights.h5"])
def test_names_that_lead_elsewhere(tmp_path, ending, key):
    pytest.importorskip("h5py")
    with pytest.raises(UsageError, match="expected a name without"):
        write(tmp_path / f"model.{ending}", {key: np.ones(3)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ["npz", "pt"])
def test_types_that_a_format_does_not_have(tmp_path, ending):
    for dtype in WITHOUT[ending]:
        with pytest.raises(UsageError, match=f"'a': expected one of .*received {dtype}; cast it"):
            write(tmp_path / f"model.{ending}", {"a": np.ones(3, dtype)})


def test_the_name_of_the_metadata(tmp_path):
    for ending in ("npz", "safetensors"):
        with pytest.raises(UsageError, match="'__metadata__' is the name of the metadata"):
            write(tmp_path / f"model.{ending}", {"__metadata__": np.ones(3, "u1")})


def test_metadata_that_no_reader_takes(ending, tmp_path):
    with pytest.raises(UsageError, match="metadata: expected at most 2097152 bytes, received"):
        write(tmp_path / f"model.{ending}", {"layers/a/vars/0": np.ones(3)}, {"a": "x" * 2**21})


def test_a_layer_that_the_config_does_not_have(tmp_path):
    pytest.importorskip("h5py")
    config = {"name": "net", "layers": [{"class_name": "Dense", "config": {"name": "a"}}]}
    with pytest.raises(UsageError, match=r"'layers/conv2d/vars/0': expected a layer of the config, .* layers/dense"):
        write(tmp_path / "model.weights.h5", {"layers/conv2d/vars/0": np.ones(3)}, config=config)


def test_formats_by_name(tmp_path):
    with pytest.raises(UsageError, match=r"expected a name that ends with one of \.keras, .*received 'model\.txt'"):
        write(tmp_path / "model.txt", {})
    for name in ("model.onnx", "model.h5"):
        with pytest.raises(UsageError, match=r"expected a format to write, .*, received "):
            write(tmp_path / name, {})
    write(tmp_path / "MODEL.NPZ", {"a": np.ones(1)})
    assert read(tmp_path / "MODEL.NPZ").format == "npz"
    write(tmp_path / "model.bin", {"a": np.ones(1)}, format="safetensors")
    assert (tmp_path / "model.bin").read_bytes()[8:9] == b"{"


def test_reading_loads_only_what_the_format_needs(tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(3))
    (tmp_path / "model.npz").write_bytes(buffer.getvalue())
    write(tmp_path / "model.safetensors", {"a": np.ones(3)})
    code = (
        "import sys; from parity.weights.formats import read\n"
        "for path in sys.argv[1:]: assert read(path).arrays['a'].load().sum() == 3\n"
        "heavy = {'h5py', 'torch', 'keras', 'tensorflow', 'onnx', 'safetensors'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    paths = [str(tmp_path / "model.npz"), str(tmp_path / "model.safetensors")]
    subprocess.run([sys.executable, "-c", code, *paths], check=True, cwd=ROOT)


@pytest.mark.parametrize("ending", ["safetensors", "npz", "weights.h5"])
def test_what_we_wrote_is_used_where_it_lies(ending, tmp_path):
    """Not copied into memory, whatever stands in front of it: read only, as the file is mapped."""
    if ending in NEEDS:
        pytest.importorskip(NEEDS[ending])
    path = tmp_path / f"model.{ending}"
    arrays = {"layers/dense/vars/0": special(np.dtype("f8")), "layers/näme/vars/0": special(np.dtype("i1"))}
    arrays["layers/dense_1/vars/0"] = special(np.dtype("f4"))
    for text in ("", "a", "abc"):
        write(path, arrays, {"text": text})
        for stored in read(path).arrays.values():
            assert not stored.load().flags.writeable
        require_read(path, arrays)
