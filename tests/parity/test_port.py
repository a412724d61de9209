"""Ports with real frameworks and real files: every form into every other, bit for bit, and what the models compute."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest

import parity
from parity.cli import main
from parity.errors import FileError, UsageError
from parity.spec import Spec
from parity.weights import formats
from parity.weights.formats.limits import BFLOAT16
from scratchnet.layers import BatchNormalization, Conv2D, Dense, Dropout, Embedding, Flatten, MaxPooling2D
from scratchnet.training import Sequential

port = functools.partial(parity.port, proof=False)  # what is proved is the subject of test_verify.py

DTYPES = ("float32", "float64")


def network(dtype="float32"):
    """Twelve inputs behind the Flatten and twelve units: a transpose, or rows in the other order, still fits."""
    layers = [
        Conv2D(3, 3, activation="relu", name="conv"),
        BatchNormalization(epsilon=1e-5, name="norm"),
        MaxPooling2D(name="pool"),
        Flatten(name="flat"),
        Dense(12, activation="tanh", name="hidden"),
        Dropout(0.5, name="drop"),
        Dense(12, name="middle"),
        Dense(2, name="top"),
    ]
    model = Sequential(layers, dtype=dtype)
    model.build((None, 6, 6, 2))
    return model


def filled(model, seed=0):
    """Random weights; variances are positive."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        for name, weight in layer.weights.items():
            low = 0.5 if name == "moving_variance" else -1
            layer.weights[name] = rng.uniform(low, 1.5, weight.shape).astype(weight.dtype)
    return model


def with_odd_values(model):
    """Values that arithmetic would change: minus zero, the smallest denormal, the largest number."""
    about = np.finfo(model.dtype)
    for layer in model.layers:
        for weight in layer.weights.values():
            weight.reshape(-1)[:2] = [-0.0, about.smallest_subnormal]
            weight.reshape(-1)[-1] = about.max
    return model


def same(one, other):
    return all(a.tobytes() == b.tobytes() for a, b in zip(one.get_weights(), other.get_weights(), strict=True))


def keras_twin(keras, model):
    """The same network in Keras, with weights of its own."""
    spec = Spec("twin", model.get_config(), "mse").with_dtype(model.dtype)
    return keras.Sequential.from_config(spec.config)


def torch_twin(torch, dtype="float32"):
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.BatchNorm2d(3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 12), nn.Tanh(),
        nn.Dropout(0.5), nn.Linear(12, 12), nn.Linear(12, 2),
    ).to(getattr(torch, dtype))  # fmt: skip


LAYOUTS = ("rows", "columns", "channels first", "channels first, channels first rows", "flat")
FILES = {
    "a.weights.h5": {},
    "a.pt": {},
    "torch.pth": {"naming": "torch"},
    **{f"{naming}.{ending}": {"naming": naming} for naming in ("keras", "torch", "flax") for ending in
       ("safetensors", "npz")},
    **{f"{layout}.npz": {"layout": layout} for layout in LAYOUTS},
}  # fmt: skip
FORMS = ("keras", "scratchnet", "torch", "dict", "a.keras", *FILES)


@pytest.fixture
def make(keras, torch, tmp_path):
    """(form, dtype, which) -> a model, a dict or a path of this form, and the words that a port from or to it needs."""

    def made(form, dtype, which):
        if form == "keras":
            return keras_twin(keras, network(dtype)), {}
        if form == "scratchnet":
            return network(dtype), {}
        if form == "torch":
            return torch_twin(torch, dtype), {}
        if form == "dict":
            return {f"{layer.name}/{n}": w for layer in network(dtype).layers for n, w in layer.weights.items()}, {}
        path = tmp_path / which / form
        path.parent.mkdir(exist_ok=True)
        if form == "a.keras":
            keras_twin(keras, network(dtype)).save(path)
        return path, FILES.get(form, {})

    return made


def words(of_source, of_target):
    """Words of both ends, as SOURCE:TARGET."""
    return {
        name: f"{of_source.get(name, '')}:{of_target.get(name, '')}"
        for name in {**of_source, **of_target}
    }  # fmt: skip


@pytest.mark.tensorflow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_into_every_other_bit_for_bit(make, form, dtype):
    reference = with_odd_values(filled(network(dtype)))
    config = reference.get_config()
    source, of_source = make(form, dtype, "source")
    port(reference, source, model=config, **words({}, of_source))
    for other in FORMS:
        target, of_target = make(other, dtype, "target")
        report = port(source, target, model=config, **words(of_source, of_target))
        assert report.written
        assert not any(each.changed for each in report.conversions.values())
        back = network(dtype)
        port(target, back, model=config, **words(of_target, {}))
        assert same(reference, back), f"{form} to {other}"


@pytest.mark.tensorflow
def test_the_old_h5_and_onnx_are_read(keras, torch, tmp_path):
    onnx = pytest.importorskip("onnx")
    reference = with_odd_values(filled(network()))
    model = keras_twin(keras, reference)
    port(reference, model)
    model.save(tmp_path / "a.h5")
    back = network()
    port(tmp_path / "a.h5", back)
    assert same(reference, back)

    port(reference, tmp_path / "a.pt")
    tensors = {key: stored.load() for key, stored in formats.read(tmp_path / "a.pt").arrays.items()}
    initializers = [onnx.numpy_helper.from_array(np.ascontiguousarray(array), key) for key, array in tensors.items()]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], initializers)), tmp_path / "a.onnx")
    back = network()
    port(tmp_path / "a.onnx", back)
    assert same(reference, back)


def test_bfloat16_where_the_format_has_it(torch, tmp_path):
    """The bits of all finite bfloat16 numbers, and what a model of PyTorch's makes of them."""
    bits = np.arange(2**16, dtype=np.uint16)
    values = bits[np.isfinite(bits.view(BFLOAT16).astype(np.float32))].view(BFLOAT16)
    arrays = {"0.weight": values.reshape(2, -1), "0.bias": values[:2].copy()}
    model = torch.nn.Sequential(torch.nn.Linear(len(values) // 2, 2)).to(torch.bfloat16)
    port(arrays, model)
    for name in ("a.pt", "a.safetensors"):
        port(model, tmp_path / name, naming="torch")
        again = torch.nn.Sequential(torch.nn.Linear(len(values) // 2, 2)).to(torch.bfloat16)
        port(tmp_path / name, again)
        found = again.state_dict()["0.weight"].view(torch.int16).numpy().view(np.uint16)
        assert found.tobytes() == values.tobytes()


# -- what the models compute -------------------------------------------------------------------------------------------


def rounding(model, x):
    """How far float32 is from float64 in this network, times the terms of the longest sum: see `probing`."""
    precise = Sequential.from_config(Spec("x", model.get_config(), "mse").with_dtype("float64").config)
    precise.set_weights(model.get_weights())
    return 18 * float(np.max(np.abs(model.predict(x) - precise.predict(x))))


@pytest.mark.tensorflow
def test_one_file_gives_the_same_outputs_in_keras_pytorch_and_scratchnet(keras, torch, tmp_path):
    reference = filled(network())
    x = np.random.default_rng(1).standard_normal((5, 6, 6, 2)).astype(np.float32)
    expected, allowed = reference.predict(x), rounding(reference, x)
    port(reference, tmp_path / "a.safetensors")
    by_keras, by_torch, by_hand = keras_twin(keras, reference), torch_twin(torch).eval(), filled(network(), 1)
    for model in (by_keras, by_torch, by_hand):
        port(tmp_path / "a.safetensors", model, model=reference)
    assert np.array_equal(by_hand.predict(x), expected)
    assert np.max(np.abs(by_keras.predict(x, verbose=0) - expected)) <= allowed
    first = torch.from_numpy(np.moveaxis(x, 3, 1).copy())
    with torch.no_grad():
        assert np.max(np.abs(by_torch(first).numpy() - expected)) <= allowed


def test_rows_behind_a_flatten_are_reordered_and_it_matters(torch):
    """The same port with the network unknown to flatten computes something else."""
    reference = filled(network())
    x = np.random.default_rng(1).standard_normal((5, 6, 6, 2)).astype(np.float32)
    model = torch_twin(torch).eval()
    report = port(reference, model)
    step = next(step for step in report.plan.steps if step.weight == "hidden/kernel")
    assert step.transforms == (
        "rows (height, width, channels) = (2, 2, 3) as (channels, height, width)",
        "(in, out) as (out, in)",
    )
    with torch.no_grad():
        model[5].weight.copy_(torch.from_numpy(reference.layers[4].weights["kernel"].T.copy()))
        outputs = model(torch.from_numpy(np.moveaxis(x, 3, 1).copy())).numpy()
    assert np.max(np.abs(outputs - reference.predict(x))) > 1000 * rounding(reference, x)


def test_a_pytorch_network_alone_knows_its_channels(torch, tmp_path):
    """From the convolution in front, without a network of Keras's: to a file in Keras's form and into scratchnet."""
    model = torch_twin(torch).eval()
    port(model, tmp_path / "a.npz")
    back = network()
    report = port(tmp_path / "a.npz", back)
    assert report.plan.steps[0].why == "the order of the keys in " + str(tmp_path / "a.npz")
    x = np.random.default_rng(1).standard_normal((5, 6, 6, 2)).astype(np.float32)
    with torch.no_grad():
        outputs = model(torch.from_numpy(np.moveaxis(x, 3, 1).copy())).numpy()
    assert np.max(np.abs(outputs - back.predict(x))) <= rounding(back, x)


def test_another_epsilon_is_noted(torch):
    model = torch_twin(torch)
    model[2].eps = 1e-3
    report = port(filled(network()), model)
    assert report.plan.notes == (
        "norm has an epsilon of 1e-05, layer '2' of torch model 0.001: with the same weights they compute different "
        "outputs",
    )


def test_a_pytorch_model_that_flattens_its_input(torch, tmp_path):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 2))
    report = port(model, tmp_path / "a.npz")
    assert "PyTorch does not know the number of channels" in report.plan.notes[0]


def test_embeddings(torch):
    source = Sequential([Embedding(5, 3), Flatten(), Dense(2)])
    source.build((None, 4))
    filled(source)
    model = torch.nn.Sequential(torch.nn.Embedding(5, 3), torch.nn.Flatten(), torch.nn.Linear(12, 2))
    port(source, model)
    x = np.array([[0, 4, 2, 2]])
    with torch.no_grad():
        outputs = model(torch.from_numpy(x)).numpy()
    assert np.max(np.abs(outputs - source.predict(x))) <= 12 * np.finfo(np.float32).eps * np.max(np.abs(outputs))


@pytest.mark.tensorflow
def test_layers_that_only_keras_has_go_between_its_own_forms(keras, tmp_path):
    def made():
        layers = keras.layers
        return keras.Sequential([keras.Input((5, 3)), layers.LSTM(4, return_sequences=True), layers.GRU(4)])

    source, target = made(), made()
    x = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)
    expected = source.predict(x, verbose=0)
    for middle in ("a.npz", "a.safetensors", "a.weights.h5"):
        port(source, tmp_path / middle)
        target.set_weights([weight * 0 for weight in target.get_weights()])
        port(tmp_path / middle, target)
        assert np.array_equal(target.predict(x, verbose=0), expected)
    target.set_weights([weight * 0 for weight in target.get_weights()])
    target.load_weights(tmp_path / "a.weights.h5")
    assert np.array_equal(target.predict(x, verbose=0), expected)


@pytest.mark.tensorflow
def test_layers_in_layers_are_not_guessed_from_numbered_groups(keras, tmp_path):
    """In the file, backward_layer comes before forward_layer; among the weights of the layer, behind it."""

    def made():
        return keras.Sequential([keras.Input((5, 3)), keras.layers.Bidirectional(keras.layers.LSTM(4))])

    model, again = made(), made()
    model.save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(FileError, match="how Keras orders the weights in a Bidirectional is not known"):
        port(tmp_path / "a.weights.h5", again)
    with pytest.raises(UsageError, match="where Keras puts the weights of a Bidirectional is not known"):
        port(model, tmp_path / "b.weights.h5")
    port(model, tmp_path / "a.npz")
    port(tmp_path / "a.npz", again)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), again.get_weights(), strict=True))


@pytest.mark.tensorflow
def test_keras_itself_loads_what_is_written(keras, tmp_path):
    """Also where groups and names contradict each other: layers/dense_1 holds the layer dense."""
    layers = [keras.Input((4,)), keras.layers.Dense(4, name="dense_1"), keras.layers.Dense(4, name="dense")]
    model = keras.Sequential(layers)
    model.save(tmp_path / "a.keras")
    rng = np.random.default_rng(0)
    arrays = {f"{n}/{w}": rng.standard_normal(shape).astype(np.float32) for n in ("dense_1", "dense")
              for w, shape in (("kernel", (4, 4)), ("bias", (4,)))}  # fmt: skip
    port(arrays, tmp_path / "a.keras")
    port(arrays, tmp_path / "a.weights.h5", model=model)
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    model.load_weights(tmp_path / "a.weights.h5")
    for found in (loaded, model):
        assert np.array_equal(found.get_layer("dense").kernel.numpy(), arrays["dense/kernel"])


@pytest.mark.tensorflow
def test_what_flattens_and_what_hides_the_order_of_rows(keras, torch, tmp_path):
    layers = keras.layers

    def skeleton_of(*between):
        return keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(3, 3), *between, layers.Dense(2, name="top")])

    plain, reshaped = skeleton_of(layers.Flatten()), skeleton_of(layers.Reshape((48,)))
    for model in (plain, reshaped):
        step = port(model, tmp_path / "a.npz", naming="torch", dry_run=True).plan.steps[2]
        assert step.transforms[0] == "rows (height, width, channels) = (4, 4, 3) as (channels, height, width)"
    for moved in (layers.Permute((3, 1, 2)), layers.Reshape((3, 4, 4))):
        model = skeleton_of(moved, layers.Flatten())
        port(model, tmp_path / "a.npz")
        with pytest.raises(UsageError, match="top/kernel: its rows went through a Permute or a Reshape"):
            port(model, tmp_path / "b.npz", naming="torch")
    first = keras.Sequential([keras.Input((2, 6, 6)), layers.Conv2D(3, 3, data_format="channels_first")])
    with pytest.raises(UsageError, match="expected data_format='channels_last'"):
        port(first, tmp_path / "b.npz")


# -- all or nothing ----------------------------------------------------------------------------------------------------


@pytest.mark.tensorflow
def test_what_is_wrong_with_the_last_weight_leaves_every_target_as_it_was(make):
    """A shape, a NaN, a number beyond float32, a type without a meaning."""
    good = {f"{layer.name}/{n}": w for layer in filled(network()).layers for n, w in layer.weights.items()}
    bad = {
        "shape": np.ones(3, np.float32),
        "nan": np.array([1, np.nan], np.float32),
        "overflow": np.array([1, 1e300]),
        "integers": np.array([1, 2]),
    }
    for form in FORMS:
        target, of_target = make(form, "float32", "target")
        port(filled(network(), 1), target, model=network(), **words({}, of_target))
        before = _contents(target)
        for what, last in bad.items():
            more = {"dtype": "float32"} if what == "overflow" and hasattr(target, "suffix") else {}
            with pytest.raises(UsageError, match="top/bias"):
                port({**good, "top/bias": last}, target, model=network(), **words({}, of_target), **more)
            assert _contents(target) == before, f"{form}, {what}"


def _contents(target):
    if hasattr(target, "read_bytes"):
        return target.read_bytes(), sorted(path.name for path in target.parent.iterdir())
    if isinstance(target, dict):
        return [array.tobytes() for array in target.values()]
    if hasattr(target, "get_weights"):
        return [array.tobytes() for array in target.get_weights()]
    return [tensor.numpy().tobytes() for tensor in target.state_dict().values()]


def test_a_file_that_does_not_fit_is_a_file_error_and_one_onto_itself_is_fine(tmp_path):
    reference = filled(network())
    path = tmp_path / "a.safetensors"
    port(reference, path)
    small = Sequential([Dense(2, name="top")])
    small.build((None, 12))
    with pytest.raises(FileError, match=r"expected 1 layers with weights, received 5; left over: conv/kernel"):
        port(path, small)
    port(path, path, naming="torch", model=reference)
    back = network()
    port(path, back)
    assert same(reference, back)


def test_not_a_number_goes_when_it_is_asked_for(tmp_path):
    source = filled(network())
    source.layers[0].weights["bias"][:] = [np.nan, np.inf, -np.inf]
    with pytest.raises(UsageError, match=r"conv/bias: expected finite numbers; 3 of 3.*allow_nonfinite"):
        port(source, tmp_path / "a.npz")
    port(source, tmp_path / "a.npz", allow_nonfinite=True)
    back = network()
    port(tmp_path / "a.npz", back, allow_nonfinite=True)
    assert same(source, back)


def test_tensors_that_are_one_cannot_get_two_values(torch):
    shared = torch.nn.Linear(4, 4)
    model = torch.nn.Sequential(shared, torch.nn.Tanh(), shared)
    before = shared.weight.detach().clone()
    source = Sequential([Dense(4), Dense(4)])
    source.build((None, 4))
    with pytest.raises(UsageError, match=r"0\.weight and 2\.weight are one and the same tensor"):
        port(filled(source), model)
    assert torch.equal(before, shared.weight)
    source.set_weights([*source.get_weights()[:2]] * 2)
    port(source, model)
    assert np.array_equal(shared.weight.detach().numpy(), source.layers[0].weights["kernel"].T)


def test_a_model_may_be_source_and_target(torch):
    """Two layers change places; what is written first is not what is read next."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh(), torch.nn.Linear(4, 4))
    first, second = (model[place].weight.detach().clone() for place in (0, 2))
    port(model, model, map={"0": "2", "2": "0"})
    assert torch.equal(model[0].weight, second)
    assert torch.equal(model[2].weight, first)


def test_modules_without_a_counterpart_are_refused(torch):
    nn = torch.nn
    source = Sequential([Dense(4)])
    source.build((None, 4))
    for module, message in {
        nn.LSTM(4, 4): "LSTM '0' has weights, and how they correspond to Keras's is not known",
        nn.Conv2d(4, 4, 3, groups=2): "expected a convolution without groups; received groups=2",
        nn.LayerNorm((2, 4)): "expected one normalized axis",
    }.items():
        with pytest.raises(UsageError, match=message):
            port(source, nn.Sequential(module))
    with pytest.raises(UsageError, match=r"expected a torch\.nn\.Sequential; received Linear"):
        port(source, nn.Linear(4, 4))


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.fixture
def run(capsys):
    def ran(*arguments):
        with pytest.raises(SystemExit) as exited:
            main(["port", *map(str, arguments)])
        return exited.value.code, *capsys.readouterr()

    return ran


@pytest.fixture
def files(tmp_path):
    """A network as JSON, its weights in PyTorch's naming, and a tutorial's arrays that may be rows or columns."""
    reference = filled(network())
    config = {"class_name": "Sequential", "config": reference.get_config()}
    (tmp_path / "network.json").write_text(json.dumps(config))
    port(reference, tmp_path / "torch.safetensors", naming="torch")
    square = Sequential([Dense(4), Dense(4)])
    square.build((None, 4))
    port(filled(square), tmp_path / "square.npz", layout="columns")
    (tmp_path / "square.json").write_text(json.dumps({"class_name": "Sequential", "config": square.get_config()}))
    x = np.random.default_rng(2).standard_normal((3, 4)).astype(np.float32)
    np.savez(tmp_path / "probe.npz", x=x, outputs=square.predict(x))
    return tmp_path


def test_the_command_prints_the_plan_and_writes(run, files):
    status, out, err = run(files / "torch.safetensors", files / "a.npz", "--model", files / "network.json")
    assert (status, err) == (0, "")
    assert (
        out.splitlines()[-1]
        == f"Ported 12 weights from {files / 'torch.safetensors'} to {files / 'a.npz'}, bit for bit."
    )
    assert (
        "moved    (out, in) as (in, out); rows (channels, height, width) = (3, 2, 2) as (height, width, channels)"
        in out
    )
    back = network()
    port(files / "a.npz", back)
    assert same(filled(network()), back)


def test_a_dry_run_in_json_writes_nothing(run, files):
    options = ("--dry-run", "--json", "--dtype", "bfloat16", "--model", files / "network.json")
    status, out, _ = run(files / "torch.safetensors", files / "a.pt", *options)
    document = json.loads(out)
    assert status == 0
    assert document["written"] is False
    assert document["plan"]["steps"][0]["targets"][0] == {
        "key": "conv.weight", "shape": [3, 2, 3, 3], "dtype": "bfloat16"
    }  # fmt: skip
    assert document["conversions"]["conv/kernel"]["changed"] > 0
    assert not (files / "a.pt").exists()


def test_an_ambiguity_has_status_2_and_says_what_to_type(run, files):
    status, out, err = run(files / "square.npz", files / "a.npz", "--model", files / "square.json")
    assert (status, out) == (2, "")
    assert "2 layouts fit, and shapes cannot tell: rows, columns" in err
    assert "--layout 'rows'" in err
    assert "--probe FILE.npz" in err
    probed = run(
        files / "square.npz", files / "a.npz", "--model", files / "square.json", "--probe", files / "probe.npz"
    )
    named = run(files / "square.npz", files / "b.npz", "--model", files / "square.json", "--layout", "columns")
    assert probed[0] == named[0] == 0
    assert (files / "a.npz").read_bytes() == (files / "b.npz").read_bytes()


def test_a_map_on_the_command_line(run, files):
    options = [f"--map=dense{end}/{role}={key}{n}" for end, n in (("", 1), ("_1", 2)) for role, key in
               (("kernel", "W"), ("bias", "b"))]  # fmt: skip
    status, _, err = run(files / "square.npz", files / "a.npz", "--model", files / "square.json", *options)
    assert status == 4, "the bias is a column, which no framework has"
    assert "'b1': expected (4,) for dense/bias; received (4, 1)" in err
    for wrong in ("--map=dense", "--map==W1", "--map=dense="):
        status, _, err = run(files / "square.npz", files / "a.npz", wrong)
        assert status == 2
        assert "expected TARGET=SOURCE" in err


def test_files_that_cannot_be_used_have_status_4(run, files):
    (files / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    for source in ("broken.npz", "nobody.pt", "network.json"):
        status, out, err = run(files / source, files / "a.npz")
        assert (status, out) == (4, "")
        assert source in err
    status, _, err = run(files / "torch.safetensors", files / "a.npz", "--probe", files / "square.npz", "--model",
                         files / "network.json")  # fmt: skip
    assert status == 4
    assert "expected the arrays x and outputs; received W1, b1, W2, b2" in err
    assert not (files / "a.npz").exists()


# -- the page ----------------------------------------------------------------------------------------------------------


@pytest.mark.tensorflow
def test_the_examples_of_the_page_run_those_with_pytorch_too(keras, torch, tmp_path, monkeypatch):
    from sybil import Sybil
    from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

    monkeypatch.chdir(tmp_path)
    parsers = [PythonCodeBlockParser(), CodeBlockParser("py", lambda each: exec(each.parsed, each.namespace))]
    page = Path(__file__).parents[2] / "docs" / "porting.md"
    assert sum(1 for example in Sybil(parsers=parsers).parse(page).examples() if not example.evaluate()) > 8
