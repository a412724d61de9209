"""Parity records: what a verification finds, with and without the hashes, and what it makes of broken records."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import parity
from parity.cli import main
from parity.errors import FileError, NothingConcluded
from parity.weights import expectation, formats, verification
from parity.weights.record import KEY, fitted, parsed
from scratchnet.layers import BatchNormalization, Conv2D, Dense, Dropout, Embedding, Flatten, MaxPooling2D
from scratchnet.training import Sequential

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def scratchnet_alone(request, monkeypatch):
    """Most tests judge what is found without a framework; those that are marked ask Keras, and whoever is there."""
    if not request.node.get_closest_marker("tensorflow"):
        monkeypatch.setattr(verification, "runs", lambda: {"scratchnet": expectation.ran})


def built(layers, shape, loss="mean_squared_error", seed=0):
    """A network with random weights: square kernels, so that a transpose fits; variances are positive."""
    model = Sequential(layers)
    model.build((None, *shape))
    model.compile(loss=loss)
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        for name, weight in layer.weights.items():
            low = 0.5 if name == "moving_variance" else -1
            layer.weights[name] = rng.uniform(low, 1.5, weight.shape).astype(weight.dtype)
    return model


def pictures():
    layers = [
        Conv2D(3, 3, activation="relu", name="conv"),
        BatchNormalization(name="norm"),
        MaxPooling2D(name="pool"),
        Flatten(name="flat"),
        Dense(12, activation="tanh", name="hidden"),
        Dropout(0.5, name="drop"),
        Dense(12, activation="relu", name="middle"),
        Dense(3, activation="softmax", name="top"),
    ]
    return built(layers, (6, 6, 2), "categorical_crossentropy")


def words():
    layers = [Embedding(20, 4, name="table"), Flatten(name="flat"), Dense(20, activation="gelu", name="top")]
    return built(layers, (5,), "sparse_categorical_crossentropy")


def deep():
    return built([Dense(8, activation="tanh", name=f"layer_{number}") for number in range(4)], (8,), "huber")


NETWORKS = (pictures, words, deep)


def ported(source, path, **options):
    parity.port(source, path, proof=False, **options)
    return path


def record_of(path):
    archive = formats.read(path)
    return parsed(archive.metadata[KEY]), archive


def judged(path, arrays):
    """Whether a file with these arrays and the old record passes when the hashes are not looked at."""
    record, archive = record_of(path)
    formats.write(path, arrays, archive.metadata)
    runs, notes = verification.compared(record, formats.read(path))
    assert runs, notes
    return all(row.passed for run in runs for row in run.rows)


def arrays_of(path):
    return {key: np.array(stored.load()) for key, stored in formats.read(path).arrays.items()}


# -- files as they were written ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("keras.safetensors", {}),
        ("torch.safetensors", {"naming": "torch"}),
        ("flax.npz", {"naming": "flax"}),
        ("narrow.safetensors", {"dtype": "bfloat16"}),
    ],
)
def test_what_was_written_is_verified(make, name, options, tmp_path):
    result = parity.verify(ported(make(), tmp_path / name, **options))
    assert result.passed, result.to_text()
    assert [run.runner for run in result.runs] == ["scratchnet"]
    assert json.loads(result.to_json())["passed"]


@pytest.mark.parametrize("layout", ["rows", "columns", "bias first row", "bias last column", "flat"])
def test_layouts_are_verified(layout, tmp_path):
    result = parity.verify(ported(deep(), tmp_path / "mine.npz", layout=layout))
    assert result.passed, result.to_text()
    assert result.runs


def test_a_file_of_keras(tmp_path):
    pytest.importorskip("h5py")
    assert parity.verify(ported(deep(), tmp_path / "net.weights.h5")).passed


def test_a_port_on_from_a_file_has_a_record_of_its_own(tmp_path):
    first = ported(pictures(), tmp_path / "first.safetensors")
    second = ported(str(first), tmp_path / "second.safetensors", model=pictures(), naming="keras:torch")
    assert parity.verify(second).runs
    assert record_of(first)[0].tensors != record_of(second)[0].tensors


def test_a_network_that_is_not_known_has_hashes_only(tmp_path):
    path = ported({"a/kernel": np.eye(3), "a/bias": np.ones(3)}, tmp_path / "a.safetensors", naming="keras:keras")
    result = parity.verify(path)
    assert result.passed
    assert not result.runs
    assert "--model" in result.notes[0]


@pytest.mark.tensorflow
@pytest.mark.parametrize("make", [pictures, words])
def test_the_proof_runs_the_network_in_keras(make, keras, tmp_path):
    model = make()
    report = parity.port(model, tmp_path / "net.safetensors")
    assert report.proof.passed, report.to_text()
    assert [name for name in report.proof.worst if "PyTorch" not in name] == [
        "scratchnet",
        "Keras",
        "one training step in Keras and scratchnet, float32",
        "one training step in Keras and scratchnet, float64",
    ]
    assert 0 < report.proof.worst["Keras"] < 1
    assert json.loads(report.to_json())["proof"]["passed"]
    twin = keras.Sequential.from_config(model.get_config())
    assert parity.port(model, twin).proof.passed
    result = parity.verify(tmp_path / "net.safetensors")
    assert result.passed
    assert [run.runner for run in result.runs][:2] == ["scratchnet", "Keras"]
    tensors = {row.tensor for row in result.runs[1].rows}
    assert tensors >= {"top/output", "loss", "top/bias.gradient", "top/bias.updated"}


@pytest.fixture
def in_torch(torch, monkeypatch):
    """scratchnet and PyTorch; Keras has its own tests."""
    monkeypatch.setattr(
        verification, "runs", lambda: {"scratchnet": expectation.ran, "PyTorch": verification._in_torch}
    )
    return torch.nn


def pictures_in(nn, *end, epsilon=1e-3, activation=None):
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), activation or nn.ReLU(inplace=True), nn.BatchNorm2d(3, eps=epsilon), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(12, 12), nn.Tanh(), nn.Dropout(0.5), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3),
        *end,
    )  # fmt: skip


ITSELF = "the PyTorch model, {} of the port"


def test_a_live_pytorch_model_is_run_itself(in_torch):
    """Outputs, loss, gradients and a step of its own modules, as target and as source, with and without logits."""
    model = pictures()
    logits, log_softmax = in_torch.Identity(), in_torch.LogSoftmax(-1)
    for end in ((), (logits,), (in_torch.Softmax(-1),), (log_softmax,)):
        net = pictures_in(in_torch, *end)
        proof = parity.port(model, net).proof
        assert proof.passed, proof.to_text()
        assert list(proof.worst) == [
            "scratchnet",
            "PyTorch",
            "one step in PyTorch and scratchnet, float32",
            "one step in PyTorch and scratchnet, float64",
            ITSELF.format("target"),
        ]
        assert ("ends in logits" in proof.to_text()) == (end in ((), (logits,)))
    assert ITSELF.format("source") in parity.port(net, model).proof.worst
    assert net[1].inplace
    assert all(parameter.grad is None for parameter in net.parameters())
    table = in_torch.Sequential(in_torch.Embedding(20, 4), in_torch.Flatten(), in_torch.Linear(20, 20), in_torch.GELU())
    assert ITSELF.format("target") in parity.port(words(), table).proof.worst


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"epsilon": 1e-5}, "norm/output"),
        ({"activation": "Tanh"}, "norm/output"),
        ({"end": "Tanh"}, "top/pre_activation"),
        ({"end": "Softplus"}, "top/pre_activation"),
    ],
)
def test_a_live_pytorch_model_that_computes_something_else(change, first, in_torch):
    """All weights have arrived, and the proof fails all the same: the port does not compute what it should."""
    made = {name: getattr(in_torch, value)() for name, value in change.items() if name != "epsilon"}
    net = pictures_in(
        in_torch,
        *filter(None, [made.get("end")]),
        epsilon=change.get("epsilon", 1e-3),
        activation=made.get("activation"),
    )
    with pytest.warns(RuntimeWarning, match="the PyTorch model, target of the port: .* tensors differ"):
        report = parity.port(pictures(), net)
    assert report.exit_status == 1
    assert "PROOF FAILED" in report.to_text()
    assert f"the first is {first}" in report.proof.sentences[0]
    assert "its weights are right" in report.proof.to_text()
    assert report.proof.worst["PyTorch"] < 1


def test_a_live_pytorch_model_that_cannot_be_run(in_torch):
    """Nothing is said of it: modules of which nobody knows what they take, and a source whose weights were rounded on
    their way. Known modules that do not take the samples of the network are another network."""
    longer = pictures_in(in_torch, in_torch.Flatten(2))
    with pytest.warns(RuntimeWarning, match="target of the port: .* does not take the designed probe"):
        assert not parity.port(pictures(), longer).proof.passed
    unknown = pictures_in(in_torch, in_torch.Unflatten(1, (2, 2)))
    proof = parity.port(pictures(), unknown).proof
    assert proof.passed
    assert "target of the port: not run, it does not take the designed probe" in proof.to_text()
    assert "what Unflatten takes is not known" in proof.to_text()
    wide = pictures_in(in_torch).double()
    wide[0].bias.data += 1e-12
    proof = parity.port(wide, pictures()).proof
    assert proof.passed
    assert "source of the port: not run, since weights were rounded" in proof.to_text()


@pytest.mark.tensorflow
def test_a_live_pytorch_model_with_a_loss_that_has_no_formula(keras, torch):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="sigmoid")])
    model.compile(loss="dice")
    proof = parity.port(model, torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Sigmoid())).proof
    assert proof.passed, proof.to_text()
    assert list(proof.worst) == ["Keras"]
    assert "target of the port: not run: the loss dice has no formula" in proof.to_text()


# -- networks that scratchnet lacks ------------------------------------------------------------------------------------


def sequences(keras):
    layers = keras.layers
    stack = [
        layers.LSTM(4, return_sequences=True, name="long"),
        layers.GRU(3, name="gated"),
        layers.Dense(2, name="top"),
    ]
    model = keras.Sequential([keras.Input((5, 3)), *stack], name="sequences")
    model.compile(loss="mse")
    return model


@pytest.mark.tensorflow
def test_keras_says_what_to_expect_of_a_network_that_scratchnet_lacks(keras, tmp_path):
    report = parity.port(sequences(keras), tmp_path / "net.safetensors")
    assert report.proof.passed, report.proof.to_text()
    assert "not run in scratchnet: scratchnet cannot build this network: unknown layer 'LSTM'" in report.to_text()
    assert "no step of Keras and scratchnet was compared" in report.to_text()
    result = parity.verify(tmp_path / "net.safetensors")
    assert result.passed, result.to_text()
    assert [run.runner for run in result.runs] == ["Keras"]
    path = ported(sequences(keras), tmp_path / "net.npz")
    assert judged(path, arrays_of(path))
    original = arrays_of(path)
    for key, array in original.items():
        changed = array.copy()
        changed.reshape(-1)[-1] *= -1
        if np.any(changed != array):
            assert not judged(path, {**original, key: changed}), key


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.update(class_name="Lambda"),
        lambda layer: layer.update(module="os"),
        lambda layer: layer.update(registered_name="package>LSTM"),
        lambda layer: layer["config"].update(units=10**9),
        lambda layer: layer["config"].update(activation="exec"),
        lambda layer: layer["config"].update(activation={"class_name": "function", "config": "exec"}),
        lambda layer: layer["config"].update(kernel_regularizer={"class_name": "Lambda", "config": {}}),
        lambda layer: layer["config"].update(kernel_constraint={"class_name": "MaxNorm", "config": {}}),
        lambda layer: layer["config"].update(units={"class_name": "int"}),
        lambda layer: layer["config"].update(return_sequences=False),
    ],
)
def test_hostile_records_of_a_network_that_scratchnet_lacks(change, keras, tmp_path):
    """Keras gets nothing to build but its own layers, of the sizes that the file has."""

    def changed(record):
        change(record["network"]["config"]["layers"][1])
        return record

    path = with_record(ported(sequences(keras), tmp_path / "net.npz"), changed)
    with pytest.raises(FileError, match=r"net\.npz: the parity record: "):
        parity.verify(path)


@pytest.mark.tensorflow
def test_the_loss_is_the_one_that_the_model_is_compiled_with(keras, tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(loss="mean_absolute_error")
    model.save(tmp_path / "net.keras")
    arrays = {"dense/kernel": np.ones((3, 2)), "dense/bias": np.ones(2)}
    sources = {"live": (model, None), "file": (tmp_path / "net.keras", None), "model": (arrays, tmp_path / "net.keras")}
    for name, (source, network) in sources.items():
        path = ported(
            source, tmp_path / f"{name}.safetensors", model=network, naming="keras:keras" if network else None
        )
        assert record_of(path)[0].network.loss == "mean_absolute_error", name
    model.compile(loss=lambda y, outputs: outputs)
    assert record_of(ported(model, tmp_path / "own.npz"))[0].network.loss == "mean_squared_error"


def test_a_target_that_holds_something_else_fails_loudly(tmp_path, monkeypatch, capsys):
    """The disk, or the writer, swaps two weights on the way."""
    model, write = deep(), formats.write

    def swapped(path, arrays, *rest, **options):
        one, other = "layer_1/kernel", "layer_2/kernel"
        return write(path, {**arrays, one: arrays[other], other: arrays[one]}, *rest, **options)

    source = ported(model, tmp_path / "right.safetensors")
    monkeypatch.setattr(formats, "write", swapped)
    with pytest.warns(RuntimeWarning, match="layer_1/kernel, layer_2/kernel"):
        report = parity.port(model, tmp_path / "wrong.safetensors")
    assert not report.proof.passed
    with pytest.warns(RuntimeWarning), pytest.raises(SystemExit) as done:
        main(["port", str(source), str(tmp_path / "again.safetensors"), "--model", str(_network_file(model, tmp_path))])
    assert done.value.code == 1
    assert "PROOF FAILED" in capsys.readouterr().out


def _network_file(model, folder):
    path = folder / "network.json"
    path.write_text(json.dumps({"class_name": "Sequential", "config": model.get_config()}))
    return path


# -- changed weights, found without the hashes -------------------------------------------------------------------------


@pytest.mark.parametrize("make", NETWORKS)
def test_flipped_signs(make, tmp_path):
    """Of a sample of single weights: at least 99 %."""
    path = ported(make(), tmp_path / "net.npz")
    record, archive = record_of(path)
    original = arrays_of(path)
    places = [(key, index) for key, array in original.items() for index in np.ndindex(array.shape)]
    rng = np.random.default_rng(1)
    chosen = [places[at] for at in rng.choice(len(places), min(len(places), 200), replace=False)]
    found = 0
    for key, index in chosen:
        changed = original[key].copy()
        changed[index] *= -1
        arrays = {**archive.arrays, key: replace(archive.arrays[key], load=lambda changed=changed: changed)}
        runs, _ = verification.compared(record, replace(archive, arrays=arrays))
        found += not all(row.passed for run in runs for row in run.rows)
    assert found >= 0.99 * len(chosen)


def changes(arrays):
    """What goes wrong in ports: transposes of square kernels, swaps of weights of one shape, biases moved by a row."""
    for key, array in arrays.items():
        if array.ndim > 1 and array.shape[-1] == array.shape[-2]:
            yield f"{key} transposed", {key: array.swapaxes(-1, -2).copy()}
        if array.ndim == 1 and array.size > 1:
            yield f"{key} moved", {key: np.roll(array, 1)}
        if array.ndim > 1:
            yield f"{key} rows reversed", {key: array[::-1].copy()}
    keys = list(arrays)
    for position, one in enumerate(keys):
        for other in keys[position + 1 :]:
            if arrays[one].shape == arrays[other].shape:
                yield f"{one} and {other} swapped", {one: arrays[other], other: arrays[one]}


@pytest.mark.parametrize("make", NETWORKS)
def test_transposes_swaps_and_moved_rows(make, tmp_path):
    path = ported(make(), tmp_path / "net.npz")
    original = arrays_of(path)
    found = {what: judged(path, {**original, **changed}) for what, changed in changes(original)}
    assert len(found) > 3
    assert not [what for what, passed in found.items() if passed]


@pytest.mark.parametrize("layout", ["bias first row", "bias last row"])
def test_bias_rows_at_the_other_end(layout, tmp_path):
    path = ported(deep(), tmp_path / "net.npz", layout=layout)
    original = arrays_of(path)
    step = -1 if "first" in layout else 1
    for key, array in original.items():
        assert not judged(path, {**original, key: np.roll(array, step, axis=0)}), key


def test_the_old_arrays_pass_again(tmp_path):
    path = ported(pictures(), tmp_path / "net.npz")
    assert judged(path, arrays_of(path))


# -- the hashes --------------------------------------------------------------------------------------------------------


def test_one_bit_is_found_and_the_array_named(tmp_path, capsys):
    path = ported(deep(), tmp_path / "net.safetensors")
    arrays, metadata = arrays_of(path), formats.read(path).metadata
    arrays["layer_2/bias"].view(np.uint32)[3] ^= 1
    formats.write(path, arrays, metadata)
    result = parity.verify(path)
    assert result.exit_status == 1
    assert len(result.differing) == 1
    assert result.differing[0].startswith("layer_2/bias: expected SHA-256 ")
    with pytest.raises(SystemExit) as done:
        main(["verify", str(path)])
    assert done.value.code == 1
    assert "differs: layer_2/bias" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda arrays: arrays.pop("layer_0/bias"), "layer_0/bias: expected float32 (8,), it is not there"),
        (lambda arrays: arrays.update(more=np.ones(1)), "more: is not in the record"),
        (
            lambda arrays: arrays.update({"layer_0/bias": np.ones(9, np.float32)}),
            "layer_0/bias: expected float32 (8,), received float32 (9,)",
        ),
    ],
)
def test_missing_and_other_arrays(change, said, tmp_path):
    path = ported(deep(), tmp_path / "net.safetensors")
    arrays, metadata = arrays_of(path), formats.read(path).metadata
    change(arrays)
    formats.write(path, arrays, metadata)
    assert said in parity.verify(path).differing


def test_zero_is_not_minus_zero(tmp_path):
    model = deep()
    model.layers[0].weights["bias"][:] = 0
    path = ported(model, tmp_path / "net.npz")
    arrays, metadata = arrays_of(path), formats.read(path).metadata
    arrays["layer_0/bias"] *= -1
    formats.write(path, arrays, metadata)
    assert parity.verify(path).exit_status == 1


# -- records -----------------------------------------------------------------------------------------------------------


def with_record(path, change):
    """The file with a record that `change` gives for the old one, as data or as text."""
    archive = formats.read(path)
    record = change(json.loads(archive.metadata[KEY]))
    text = record if isinstance(record, str) else json.dumps(record)
    formats.write(path, arrays_of(path), {**archive.metadata, KEY: text})
    return path


def test_without_a_record(tmp_path, capsys):
    formats.write(tmp_path / "net.npz", {"a": np.ones(3)})
    with pytest.raises(NothingConcluded, match="has no parity record"):
        parity.verify(tmp_path / "net.npz")
    with pytest.raises(SystemExit) as done:
        main(["verify", str(tmp_path / "net.npz")])
    assert done.value.code == 3
    assert "no parity record" in capsys.readouterr().err


def test_a_record_of_the_future(tmp_path):
    path = with_record(ported(deep(), tmp_path / "net.npz"), lambda record: {"version": 2, "other": "things"})
    with pytest.raises(NothingConcluded, match=r"later parity"):
        parity.verify(path)


def deeper(record, *path, value):
    node = record
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return record


LAYER = ("network", "config", "layers", 1, "config")
HOSTILE = {
    "no JSON": lambda record: "{",
    "a list": lambda record: "[]",
    "a key twice": lambda record: '{"version": 1, "version": 1}',
    "version of another type": lambda record: deeper(record, "version", value="1"),
    "version true": lambda record: deeper(record, "version", value=True),
    "version 0": lambda record: deeper(record, "version", value=0),
    "a key too much": lambda record: deeper(record, "more", value=1),
    "no loss": lambda record: deeper(record, "expected", value={"seed": 0}),
    "infinite loss": lambda record: json.dumps(deeper(record, "expected", "loss", value=0)).replace(
        '"loss": 0', '"loss": 1e999'
    ),
    "NaN": lambda record: deeper(record, "expected", "loss", value=float("nan")),
    "a huge whole number": lambda record: deeper(record, "expected", "loss", value=10**400),
    "a huge seed": lambda record: deeper(record, "expected", "seed", value=10**40),
    "a negative seed": lambda record: deeper(record, "expected", "seed", value=-1),
    "ragged outputs": lambda record: deeper(record, "expected", "outputs", value=[[1.0], [1.0, 2.0]]),
    "outputs of text": lambda record: deeper(record, "expected", "outputs", value=["one"]),
    "endless nesting": lambda record: "[" * 100_000,
    "a hash of another length": lambda record: deeper(record, "tensors", "layer_0/bias", "sha256", value="ab"),
    "a negative size": lambda record: deeper(record, "tensors", "layer_0/bias", "shape", value=[-8]),
    "an unknown dtype": lambda record: deeper(record, "tensors", "layer_0/bias", "dtype", value="object"),
    "an unknown naming": lambda record: deeper(record, "network", "naming", value="pickle"),
    "a key that is no array": lambda record: deeper(record, "network", "keys", "layer_0/bias", value="../etc"),
    "no layers": lambda record: deeper(record, "network", "config", value={}),
    "layers of another type": lambda record: deeper(record, "network", "config", "layers", value=7),
    "an unknown layer": lambda record: deeper(record, "network", "config", "layers", 1, "class_name", value="Lambda"),
    "a huge layer": lambda record: deeper(record, *LAYER, "units", value=10**12),
    "a huge input": lambda record: deeper(
        record, "network", "config", "layers", 0, "config", "batch_shape", value=[None, 10**9, 8]
    ),
    "an unknown loss": lambda record: deeper(record, "network", "loss", value="os.system"),
    "a loss that is no loss": lambda record: deeper(record, "network", "loss", value={"class_name": 7}),
    "an unknown activation": lambda record: deeper(record, *LAYER, "activation", value="exec"),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_hostile_records(change, tmp_path, capsys):
    path = with_record(ported(deep(), tmp_path / "net.npz"), change)
    with pytest.raises(FileError, match=r"net\.npz: .*record"):
        parity.verify(path)
    with pytest.raises(SystemExit) as done:
        main(["verify", str(path)])
    assert done.value.code == 4
    assert len(capsys.readouterr().err) < 2000


@pytest.mark.parametrize(
    "change",
    [
        lambda record: deeper(record, "expected", "loss", value=record["expected"]["loss"] + 1e-6),
        lambda record: deeper(record, "expected", "outputs", 0, 0, value=record["expected"]["outputs"][0][0] + 1e-6),
        lambda record: deeper(record, "expected", "outputs", value=[]),
        lambda record: deeper(record, "expected", "slopes", value={}),
        lambda record: deeper(record, "expected", "slopes", "layer_0/bias", value=1e300),
        lambda record: deeper(record, "network", "config", "layers", 1, "config", "activation", value="sigmoid"),
    ],
)
def test_another_expectation_is_not_met(change, tmp_path):
    """The hashes are right, the network computes something else."""
    result = parity.verify(with_record(ported(deep(), tmp_path / "net.npz"), change))
    assert not result.differing
    assert result.exit_status == 1
    json.loads(result.to_json())


def test_a_record_that_would_be_too_long_has_hashes_only(tmp_path):
    path = ported(deep(), tmp_path / "net.npz")
    record, _ = record_of(path)
    assert record.to_text() == parsed(fitted(record)).to_text()
    many = {f"{number:0200}": tensor for number in range(1000) for tensor in record.tensors.values()}
    assert parsed(fitted(replace(record, tensors={**many, **record.tensors}))).network is not None
    config = {**record.network.config, "more": "x" * 2**20}
    shorter = parsed(fitted(replace(record, network=replace(record.network, config=config))))
    assert shorter.network is None
    assert shorter.tensors == record.tensors
    assert "too large" in shorter.why
    assert parsed(fitted(replace(record, expected=replace(record.expected, loss=np.inf)))).expected is None
    assert (
        fitted(replace(record, tensors={f"{number:0400}": record.tensors["layer_0/bias"] for number in range(3000)}))
        is None
    )


def test_another_probe_is_said(tmp_path):
    change = lambda record: deeper(record, "expected", "inputs", value="0" * 64)  # noqa: E731
    result = parity.verify(with_record(ported(deep(), tmp_path / "net.npz"), change))
    assert result.passed
    assert "draws another probe" in result.notes[0]


WITHOUT_FRAMEWORKS = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "keras", "torch", "h5py"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
from parity.cli import main
main(["verify", sys.argv[1]])
"""


def without_frameworks(path):
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_FRAMEWORKS, str(path)], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_a_command_without_a_framework(tmp_path):
    """TensorFlow, Keras and PyTorch cannot be imported there: scratchnet alone verifies."""
    done = without_frameworks(ported(deep(), tmp_path / "net.npz"))
    assert done.returncode == 0, done.stderr
    assert "computes in scratchnet what it should" in done.stdout
    assert "not run in Keras" in done.stdout
    assert "not run in PyTorch" in done.stdout


@pytest.mark.tensorflow
def test_without_keras_only_the_bits_of_what_scratchnet_lacks_are_verified(keras, tmp_path):
    done = without_frameworks(ported(sequences(keras), tmp_path / "net.npz"))
    assert done.returncode == 0, done.stderr
    assert (
        "the network was not run: it has layers that scratchnet lacks, and the reference is not installed"
        in done.stdout
    )
    assert "bit for bit; the network was not run." in done.stdout
