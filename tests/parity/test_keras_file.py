"""Saved Keras models read as data: against real Keras, and against files that are damaged, foreign or hostile."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from parity.errors import FileError, NothingConcluded
from parity.weights.keras_config import snake_case
from parity.weights.keras_file import ALWAYS_ALLOWED, VARIABLES, read

tensorflow = pytest.mark.tensorflow

LAYER = {"class_name": "Flatten", "config": {"name": "flatten"}}
BARE = {"name": "net", "layers": [LAYER]}


def message(path: Path) -> str:
    """What a user is told about this file: one line that names it."""
    with pytest.raises(FileError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def as_json(value: object) -> object:
    return json.loads(json.dumps(value))


def numbered(model) -> None:
    """Give every weight values of its own."""
    rng = np.random.default_rng(7)
    for layer in model.layers:
        layer.set_weights([rng.standard_normal(weight.shape) for weight in layer.get_weights()])


@pytest.fixture(scope="module")
def model(keras):
    """The first Dense is called dense_1 and the second dense, the other way round than Keras names their groups."""
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((4, 3)),
            layers.Flatten(name="flatten"),
            layers.Dense(5, name="dense_1"),
            layers.BatchNormalization(name="batch_normalization"),
            layers.Dropout(0.5, name="dropout"),
            layers.Dense(5, name="dense"),
        ]
    )
    model.compile("adam", "mse", metrics=["mae"])
    numbered(model)
    return model


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(path)
    return path


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, contents: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def rewritten(saved: Path, path: Path, edit) -> Path:
    """The saved file with its weights opened in h5py and edited."""
    import h5py

    contents = members(saved)
    buffer = io.BytesIO(contents["model.weights.h5"])
    with h5py.File(buffer, "r+") as file:
        edit(file)
    return write(path, contents | {"model.weights.h5": buffer.getvalue()})


# --- what Keras saved is what is read ---


def same(arrays, layer) -> None:
    expected = layer.get_weights()
    assert [(each.shape, each.dtype) for each in arrays] == [(each.shape, each.dtype) for each in expected]
    for each, other in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(each, other)


@tensorflow
def test_config_and_variables_are_those_of_the_model(model, saved):
    file = read(saved)
    assert file.config == as_json(model.get_config())
    assert file.compile_config == as_json(model.get_compile_config())
    assert list(file.variables) == ["flatten", "dense_1", "batch_normalization", "dropout", "dense"]
    for layer in model.layers:
        same(file.variables[layer.name], layer)


@tensorflow
def test_json_of_a_model_and_its_bare_config(model, tmp_path):
    (tmp_path / "model.json").write_text(model.to_json())
    (tmp_path / "bare.json").write_text(json.dumps(model.get_config()))
    whole, bare = read(tmp_path / "model.json"), read(tmp_path / "bare.json")
    assert whole.config == bare.config == as_json(model.get_config())
    assert whole.compile_config == as_json(model.get_compile_config())
    assert bare.compile_config is None
    assert whole.variables is bare.variables is None


@tensorflow
def test_a_model_that_was_not_compiled(keras, tmp_path):
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.save(tmp_path / "model.keras")
    assert read(tmp_path / "model.keras").compile_config is None


INPUTS = {"1D": (6, 4), "2D": (6, 6, 4), "3D": (6, 6, 6, 4)}
ARGUMENTS = {"Embedding": (7, 2), "PReLU": (), "BatchNormalization": (), "LayerNormalization": ()}
OPTIONS = [(name, {}) for name in VARIABLES] + [
    (name, {option: False})
    for name, variables in VARIABLES.items()
    for option in sorted({option for option, _ in variables if option})
]


@tensorflow
@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_every_class_of_the_table_has_these_variables(keras, name, options, tmp_path):
    kernel = (2,) if name.startswith("Depthwise") else (2, 2) if "Conv" in name else (2,)
    shape = next((shape for rank, shape in INPUTS.items() if rank in name), INPUTS["1D"])
    layer = getattr(keras.layers, name)(*ARGUMENTS.get(name, kernel), **options)
    model = keras.Sequential([keras.layers.Input(shape), keras.layers.Activation("relu"), layer])
    numbered(model)
    model.save(tmp_path / "model.keras")
    assert layer.get_weights()
    same(read(tmp_path / "model.keras").variables[layer.name], layer)


@tensorflow
def test_a_class_outside_the_table_is_read_as_numbered(keras, tmp_path):
    layer = keras.layers.EinsumDense("ab,bc->ac", 3, bias_axes="c")
    model = keras.Sequential([keras.layers.Input((4,)), layer])
    numbered(model)
    model.save(tmp_path / "model.keras")
    same(read(tmp_path / "model.keras").variables[layer.name], layer)


@tensorflow
def test_groups_are_named_by_keras_rule(keras):
    from keras.src.utils.naming import to_snake_case

    classes = [name for name in dir(keras.layers) if isinstance(getattr(keras.layers, name), type)]
    assert len(classes) > 100
    for name in [*classes, "A", "HTTPServerV2", "My_Layer", "Conv2Dx3D", "camelCase", "Über>Layer"]:
        assert snake_case(name) == to_snake_case(name)


@tensorflow
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_dtypes_are_kept(keras, dtype, tmp_path):
    layer = keras.layers.Dense(2, dtype=dtype)
    model = keras.Sequential([keras.layers.Input((3,)), layer])
    model.save(tmp_path / "model.keras")
    arrays = read(tmp_path / "model.keras").variables[layer.name]
    assert {str(array.dtype) for array in arrays} == {dtype}
    same(arrays, layer)


@tensorflow
def test_bfloat16_is_refused(keras, tmp_path):
    keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2, dtype="bfloat16")]).save(tmp_path / "m.keras")
    assert "expected float16, float32, float64 or whole numbers, received bfloat16" in message(tmp_path / "m.keras")


@tensorflow
def test_an_archive_that_was_packed_again(saved, tmp_path, model):
    file = read(write(tmp_path / "packed.keras", members(saved), zipfile.ZIP_DEFLATED))
    same(file.variables["dense"], model.get_layer("dense"))


@tensorflow
def test_reading_loads_no_keras(saved):
    code = (
        "import sys; from parity.weights.keras_file import read\n"
        "assert len(read(sys.argv[1]).variables) == 5\n"
        "assert 'h5py' in sys.modules\n"
        "assert not {'keras', 'tensorflow', 'tf_keras'} & set(sys.modules)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, str(saved)], check=True, cwd=root)


@tensorflow
def test_without_h5py_the_json_is_still_read(saved, model, tmp_path, monkeypatch):
    (tmp_path / "model.json").write_text(model.to_json())
    monkeypatch.setitem(sys.modules, "h5py", None)  # Python's own way to say: this cannot be imported
    with pytest.raises(NothingConcluded, match=r"h5py.*pip install 'scratchnet-parity\[tf\]'"):
        read(saved)
    assert read(tmp_path / "model.json").config["name"] == model.name


# --- files that are no saved Sequential ---


@pytest.mark.parametrize("name", ["model.keras", "model.json"])
def test_missing_empty_and_directory(tmp_path, name):
    path = tmp_path / name
    assert "no such file" in message(path)
    path.touch()
    assert "empty" in message(path)
    path.unlink()
    path.mkdir()
    assert "received a directory" in message(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_no_permission(tmp_path):
    path = tmp_path / "model.json"
    path.write_text(json.dumps(BARE))
    path.chmod(0)
    assert "Permission denied" in message(path)


def test_another_ending(tmp_path):
    (tmp_path / "model.h5").write_bytes(b"\x89HDF")
    assert "expected the ending .keras or .json, received '.h5'" in message(tmp_path / "model.h5")


def test_not_a_zip(tmp_path):
    (tmp_path / "model.keras").write_text("PK is how a zip begins")
    assert "expected a whole zip archive" in message(tmp_path / "model.keras")


@tensorflow
@pytest.mark.parametrize("part", [0.001, 0.1, 0.5, 0.9, 0.99, 0.9999])
def test_truncated(saved, tmp_path, part):
    content = saved.read_bytes()
    (tmp_path / "cut.keras").write_bytes(content[: int(part * len(content))])
    assert "expected a whole zip archive" in message(tmp_path / "cut.keras")


@tensorflow
@pytest.mark.parametrize("part", [0, 0.001, 0.1, 0.5, 0.9, 0.9999])
def test_truncated_weights(saved, tmp_path, part):
    contents = members(saved)
    weights = contents["model.weights.h5"]
    path = write(tmp_path / "cut.keras", contents | {"model.weights.h5": weights[: int(part * len(weights))]})
    assert "model.weights.h5: expected a whole HDF5 file" in message(path)


@tensorflow
def test_damaged_bytes_are_noticed_by_the_checksum(saved, tmp_path):
    content = bytearray(saved.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "model.keras").write_bytes(content)
    assert "Bad CRC-32" in message(tmp_path / "model.keras")


@tensorflow
@pytest.mark.parametrize("name", ["config.json", "model.weights.h5"])
def test_a_member_is_missing(saved, tmp_path, name):
    contents = members(saved)
    del contents[name]
    assert f"expected {name} in the archive" in message(write(tmp_path / "model.keras", contents))


@tensorflow
@pytest.mark.parametrize("name", ["config.json", "model.weights.h5"])
def test_a_member_that_unpacks_to_far_more_than_a_model(saved, tmp_path, name):
    bomb = bytes(ALWAYS_ALLOWED + 1)
    path = write(tmp_path / "model.keras", members(saved) | {name: bomb}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < ALWAYS_ALLOWED / 100
    assert f"{name}: expected at most {ALWAYS_ALLOWED} bytes, received {ALWAYS_ALLOWED + 1}" in message(path)


@tensorflow
def test_a_functional_model(keras, tmp_path):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    model.save(tmp_path / "model.keras")
    (tmp_path / "bare.json").write_text(json.dumps(model.get_config()))
    assert "config.json: class_name: expected 'Sequential', received 'Functional'" in message(tmp_path / "model.keras")
    assert "class_name: expected 'Sequential', received 'Functional'" in message(tmp_path / "bare.json")


@tensorflow
@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
def test_a_model_that_was_never_built(keras, tmp_path):
    keras.Sequential([keras.layers.Dense(2)]).save(tmp_path / "model.keras")
    assert "a model that was never built has no weights" in message(tmp_path / "model.keras")


@tensorflow
def test_weights_of_another_model(keras, saved, tmp_path):
    other = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(5, name="other")])
    other.save(tmp_path / "other.keras")
    contents = members(saved) | {"model.weights.h5": members(tmp_path / "other.keras")["model.weights.h5"]}
    assert "expected the group 'layers/flatten/vars'" in message(write(tmp_path / "mixed.keras", contents))


BAD_JSON = {
    '{"name": "net",\n "layers": [}': "not JSON: line 2, column 13",
    "": "empty",
    "[1, 2]": "expected a saved Sequential (an object with the keys class_name and config, or its config: name and "
    "layers), received [1, 2]; write it with model.to_json()",
    "null": "received None",
    "{}": "expected a saved Sequential (an object with the keys class_name and config",
    '{"version": "1.0", "name": "x"}': "received an object with the keys ['name', 'version']; write it with",
    '{"layers": []}': "expected the key config.name, received the keys ['layers']",
    '{"class_name": "Sequential"}': "expected the key config, received the keys ['class_name']",
    '{"class_name": "Sequential", "config": [1]}': "config: expected an object, received [1]",
    '{"class_name": "Model", "config": {}}': "class_name: expected 'Sequential', received 'Model'",
    '{"class_name": ["Sequential"], "config": {}}': "class_name: expected 'Sequential', received ['Sequential']",
    '{"class_name": "Sequential", "config": {"name": "net"}}': "expected the key config.layers, received the keys",
    '{"name": 3, "layers": []}': "config.name: expected a string, received 3",
    '{"name": "net", "layers": {}}': "config.layers: expected a list, received {}",
    '{"name": "net", "layers": [3]}': "config.layers[0]: expected an object, received 3",
    '{"name": "net", "layers": [{}]}': "expected the key config.layers[0].class_name",
    '{"name": "net", "layers": [{"class_name": "Dense", "config": {}}]}': "the key config.layers[0].config.name",
    json.dumps({"name": "net", "layers": [LAYER, LAYER]}): "config.layers[1].config.name: expected a name of its own",
    json.dumps({"class_name": "Sequential", "config": BARE, "compile_config": "adam"}): "compile_config: expected an",
    "[" * 100_000: "not JSON",
    "9" * 10_000: "not JSON",
    "\ufeff\xff{": "not JSON: line 1, column",
}


@pytest.mark.parametrize(("text", "expected"), BAD_JSON.items(), ids=range(len(BAD_JSON)))
def test_json_that_is_no_sequential(tmp_path, text, expected):
    (tmp_path / "model.json").write_text(text, encoding="utf-8")
    assert expected in message(tmp_path / "model.json")


@tensorflow
def test_a_config_in_an_archive_that_is_not_json(saved, tmp_path):
    path = write(tmp_path / "model.keras", members(saved) | {"config.json": b"\x00\xff\xfe"})
    assert "config.json: not JSON" in message(path)


def test_a_number_that_is_none_is_data(tmp_path):
    layer = {"class_name": "Dropout", "config": {"name": "dropout", "rate": float("nan")}}
    (tmp_path / "model.json").write_text(json.dumps({"name": "net", "layers": [layer]}))
    assert np.isnan(read(tmp_path / "model.json").config["layers"][0]["config"]["rate"])


# --- weights that are not as Keras writes them ---


def put(path: str, data: object):
    def edit(file):
        if path in file:
            del file[path]
        file[path] = data

    return edit


def remove(path: str):
    return lambda file: file.__delitem__(path)


def declare(path: str, **arguments):
    """A dataset that says how large it is and holds nothing."""

    def edit(file):
        if path in file:
            del file[path]
        file.create_dataset(path, **arguments)

    return edit


def soft_link(path: str, target: str):
    def edit(file):
        import h5py

        del file[path]
        file[path] = h5py.SoftLink(target)

    return edit


def external_link(file):
    import h5py

    del file["layers/dense/vars"]
    file["layers/dense/vars"] = h5py.ExternalLink("other.h5", "/secret")


def virtual(file):
    import h5py

    layout = h5py.VirtualLayout(shape=(5,), dtype="f4")
    layout[:] = h5py.VirtualSource("other.h5", "secret", shape=(5,))
    del file["layers/dense/vars/1"]
    file.create_virtual_dataset("layers/dense/vars/1", layout)


def nothing_in_it(file):
    import h5py

    put("layers/dense/vars/1", h5py.Empty("f4"))(file)


def named_type(file):
    put("layers/dense/vars/1", np.dtype("f4"))(file)


def many_chunked(file):
    """Each is small enough, all of them are not; a chunk of zeros shrinks to a thousandth."""
    del file["layers/flatten/vars"]
    group = file.create_group("layers/flatten/vars")
    for number in range(5):
        group.create_dataset(
            str(number), data=np.zeros(ALWAYS_ALLOWED // 16, "f4"), chunks=(2**16,), compression="gzip"
        )


def large_chunk(file):
    declare("layers/dense/vars/1", shape=(5,), maxshape=(None,), dtype="f4", chunks=(2**28,), compression="gzip")(file)
    file["layers/dense/vars/1"].id.write_direct_chunk((0,), b"x")


EDITS = {
    "no layers": (remove("layers"), "expected the group 'layers', received ["),
    "no group": (
        remove("layers/dense_1"),
        "expected the group 'layers/dense_1/vars' with the variables of layer 'dense'",
    ),
    "no group of a layer without variables": (remove("layers/flatten"), "expected the group 'layers/flatten/vars'"),
    "no variables": (remove("layers/dense/vars"), "expected the group 'layers/dense/vars'"),
    "one group more": (put("layers/dense_2/vars/0", [1.0]), "'layers/dense_2': expected only the config's layers"),
    "a stray array": (put("layers/stray", [1.0]), "'layers/stray': expected only the config's layers"),
    "one variable less": (
        remove("layers/dense/vars/1"),
        "layer 'dense_1' (Dense): expected the variables ['layers/dense/vars/0', 'layers/dense/vars/1'],"
        " received ['layers/dense/vars/0']",
    ),
    "one variable more": (
        put("layers/dense/vars/2", [1.0]),
        "received ['layers/dense/vars/0', 'layers/dense/vars/1', ",
    ),
    "a gap": (put("layers/flatten/vars/1", [1.0]), "['layers/flatten/vars/0'], received ['layers/flatten/vars/1']"),
    "a nested variable": (put("layers/dense/lora/vars/0", [1.0]), "layers/dense/lora/vars/0"),
    "rank": (
        put("layers/dense/vars/0", np.ones(5, "f4")),
        "'layers/dense/vars/0' of layer 'dense_1' (Dense): expected rank 2, received shape (5,)",
    ),
    "a group for an array": (
        lambda file: remove("layers/dense/vars/1")(file) or file.create_group("layers/dense/vars/1"),
        "(Dense): expected the variables",
    ),
    "soft link": (soft_link("layers/dense/vars/1", "/layers/dense_1/vars/1"), "received a SoftLink"),
    "soft link to nowhere": (soft_link("layers", "/nowhere"), "'layers': expected an object of this file"),
    "external link": (external_link, "received a ExternalLink"),
    "external storage": (
        declare("layers/dense/vars/1", shape=(5,), dtype="f4", external=[("secret", 0, 20)]),
        "received a reference to data of other files",
    ),
    "virtual": (virtual, "received a reference to data of other files"),
    "second name": (lambda file: put("layers/dense/vars/1", file["layers/dense_1/vars/1"])(file), "a second name"),
    "a circle": (lambda file: put("layers/dense/vars/1", file["layers"])(file), "a second name"),
    "a type": (named_type, "expected a group or a dataset, received a Datatype"),
    "text": (put("layers/dense/vars/1", ["one"] * 5), "or whole numbers, received object"),
    "bytes": (put("layers/dense/vars/1", np.array([b"one"] * 5)), "or whole numbers, received |S3"),
    "complex": (put("layers/dense/vars/1", np.ones(5, "c8")), "or whole numbers, received complex64"),
    "truth values": (put("layers/dense/vars/1", np.ones(5, "?")), "or whole numbers, received bool"),
    "no shape": (nothing_in_it, "received a dataset without a shape"),
    "never written": (declare("layers/dense/vars/1", shape=(5,), dtype="f4"), "expected 20 bytes for (5,), received 0"),
    "huge and never written": (
        declare("layers/dense/vars/0", shape=(2**20, 2**40), dtype="f8", chunks=(1, 1)),
        f"expected {2**63} bytes",
    ),
    "many": (many_chunked, f"the arrays: expected at most {ALWAYS_ALLOWED} bytes"),
    "a large chunk": (large_chunk, f"the arrays: expected at most {ALWAYS_ALLOWED} bytes"),
}


@tensorflow
@pytest.mark.parametrize(("edit", "expected"), EDITS.values(), ids=EDITS)
def test_weights_that_are_refused(saved, tmp_path, edit, expected):
    text = message(rewritten(saved, tmp_path / "model.keras", edit))
    assert "model.weights.h5: " in text
    assert expected in text


def loosened(file):
    """What other releases of Keras may do differently, and what is none of our business."""
    import h5py

    file["layers/dropout/seed_generator/vars/0"] = np.zeros(2, "u4")
    put("layers/dense_1/vars/1", np.arange(5, dtype=">f4"))(file)
    file["optimizer/link"] = h5py.SoftLink("/nowhere")


@tensorflow
def test_weights_that_are_accepted(saved, model, tmp_path):
    variables = read(rewritten(saved, tmp_path / "model.keras", loosened)).variables
    same(variables["dense_1"], model.get_layer("dense_1"))
    assert variables["dropout"] == []
    assert variables["dense"][1].dtype == np.dtype("f4")
    assert variables["dense"][1].dtype.isnative
    np.testing.assert_array_equal(variables["dense"][1], np.arange(5))


@tensorflow
def test_flipped_bits_end_in_arrays_or_in_a_file_error(saved, tmp_path):
    """The archive's checksum is written anew, so that the damage reaches the HDF5 library."""
    rng = np.random.default_rng(11)
    contents = members(saved)
    weights = contents["model.weights.h5"]
    in_use = np.flatnonzero(np.frombuffer(weights, np.uint8))
    refused = 0
    for _ in range(100):
        damaged = bytearray(weights)
        damaged[rng.choice(in_use)] ^= 1 << rng.integers(8)
        try:
            file = read(write(tmp_path / "model.keras", contents | {"model.weights.h5": bytes(damaged)}))
        except FileError:
            refused += 1
        else:
            assert [len(arrays) for arrays in file.variables.values()] == [0, 2, 4, 0, 2]
    assert 0 < refused < 100
