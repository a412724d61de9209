"""The network of one file in Keras, PyTorch and scratchnet; PyTorch's runner on every entry of the registry."""

from dataclasses import replace

import numpy as np
import pytest

import parity
from parity import cases, compare, pipeline, probe, trace
from parity.errors import NothingConcluded
from parity.inputs import representable
from parity.runners import keras as keras_runner
from parity.runners import scratch, torch_layers, torch_losses
from parity.runners import torch as runner
from parity.spec import DTYPES, Spec
from parity.weights import expectation, formats, networks, verification
from parity.weights.record import KEY, parsed
from scratchnet.layers import BatchNormalization, Conv2D, Dense, Flatten, MaxPooling2D, ReLU
from scratchnet.training import Sequential


def built(layers, shape, loss):
    """A network with random weights of the usual size; moving variances are positive."""
    model = Sequential(layers)
    model.build((None, *shape))
    model.compile(loss=loss)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        for name, weight in layer.weights.items():
            scale = 1 / np.sqrt(weight.size / weight.shape[-1]) if weight.ndim > 1 else 0.5
            drawn = rng.uniform(0.5, 1.5, weight.shape) if name == "moving_variance" else rng.normal(0, 1, weight.shape)
            layer.weights[name] = (drawn * (1 if name == "moving_variance" else scale)).astype(weight.dtype)
    return model


def sigmoid_500():
    layers = [Flatten(), Dense(500, "sigmoid"), Dense(500, "sigmoid"), Dense(10, "sigmoid")]
    return built(layers, (28, 28), "mean_squared_error")


def tanh_16():
    layers = [Flatten(), Dense(16, "tanh", name="first"), Dense(16, "tanh", name="second"), Dense(10, "softmax")]
    return built(layers, (28, 28), "categorical_crossentropy")


def pictures():
    """Eighteen inputs behind the Flatten, and as many units: rows in the other order, or a transpose, still fit."""
    layers = [
        Conv2D(3, 3, padding="same", strides=2, activation="relu", name="conv"),
        BatchNormalization(name="norm"),
        MaxPooling2D(name="pool"),
        Flatten(name="flat"),
        Dense(27, "tanh", name="hidden"),
        Dense(4, "softmax", name="top"),
    ]
    return built(layers, (12, 12, 2), "categorical_crossentropy")


def network_in(path):
    """The spec of a file's network, the weights that it holds, and the samples and labels of its record."""
    archive = formats.read(path)
    record = parsed(archive.metadata[KEY])
    count = sum(int(np.prod(tensor.shape)) for tensor in record.tensors.values())
    made = expectation.made(record.network.config, count)
    weights = expectation.wide(expectation.restored(made, archive.arrays, record.network))
    spec = expectation.spec_of(record.network)
    return spec, weights, *expectation.probed(spec, record.expected.seed)


@pytest.mark.tensorflow
@pytest.mark.parametrize("naming", ["keras", "torch", "flax"])
@pytest.mark.parametrize("make", [sigmoid_500, tanh_16, pictures])
def test_one_file_computes_the_same_in_keras_pytorch_and_scratchnet(make, naming, keras, torch, tmp_path):
    """Every output, the loss, every gradient and every weight after a step of SGD, and what `parity verify` says."""
    path = tmp_path / "net.safetensors"
    parity.port(make(), path, naming=naming, proof=False)
    spec, weights, x, y = network_in(path)
    places = list(trace.flow(scratch.Network.of(spec).layers, spec.loss_name, spec.optimizer_name))
    by_keras, by_hand = keras_runner.run(spec, weights, x, y), scratch.run(spec, weights, x, y)
    by_torch = runner.run(spec, weights, x, y)
    for reference in (by_keras, by_hand):
        rows = compare.compare_whole(by_torch, reference, places)
        assert not [row for row in rows if not row.passed]
        assert set(by_torch.tensors) == set(reference.tensors)
        assert len(rows) == len(by_torch.tensors) - 1  # the input
    result = parity.verify(path)
    assert result.passed, result.to_text()
    assert [run.runner for run in result.runs] == ["scratchnet", "Keras", "PyTorch"]


def rows_last(weight):
    """The rows behind the Flatten as Keras has them: a port that forgot to put them channels first."""
    units = weight.shape[0]
    return np.ascontiguousarray(weight.reshape(units, 3, 9).swapaxes(1, 2).reshape(units, 27))


def one_sign(weight):
    changed = weight.copy()
    changed[3, 5] *= -1
    return changed


MISTAKES = {
    "a transposed square kernel": ("hidden.weight", lambda weight: np.ascontiguousarray(weight.T)),
    "rows that are not channels first": ("hidden.weight", rows_last),
    "one sign": ("hidden.weight", one_sign),
    "a kernel upside down": ("conv.weight", lambda weight: np.ascontiguousarray(weight[:, :, ::-1])),
    "height and width": ("conv.weight", lambda weight: np.ascontiguousarray(weight.swapaxes(2, 3))),
    "a bias moved by one": ("hidden.bias", lambda bias: np.roll(bias, 1)),
    "mean and variance": ("norm.running_mean", lambda mean: mean + 1),
}


@pytest.mark.parametrize(("key", "change"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_in_the_file_are_found_in_pytorch(key, change, torch, tmp_path, monkeypatch):
    """Without a look at the hashes."""
    path = tmp_path / "net.npz"
    parity.port(pictures(), path, naming="torch", proof=False)
    monkeypatch.setattr(verification, "runs", lambda: {"PyTorch": verification._in_torch})
    archive = formats.read(path)
    arrays = {name: np.array(stored.load()) for name, stored in archive.arrays.items()}
    record = parsed(archive.metadata[KEY])
    for changed, passed in ((arrays, True), ({**arrays, key: change(arrays[key])}, False)):
        formats.write(path, changed, archive.metadata)
        runs, notes = verification.compared(record, formats.read(path))
        assert not notes
        assert [run.passed for run in runs] == [passed]


# -- the runner alone --------------------------------------------------------------------------------------------------

SPECS = [replace(spec, training=False) for spec in [*cases.cases(), *cases.find("lenet-5", 0)]]


def designed(spec):
    network = networks.described(spec)
    x = representable(probe.samples(network.input_shape, 8, 1, network.indices))
    weights = {n: representable(w).astype(spec.dtype) for n, w in probe.weights(network.weights, 1).items()}
    return network, weights, x, probe.labels(network.output_shape, 8, 1, network.labels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_entry_of_the_registry(spec, dtype, torch):
    """In float64 the whole run; in float32 each operation, on PyTorch's own tensors. With what is refused."""
    spec = spec.with_dtype(dtype).seeded()
    network, weights, x, y = designed(spec)
    if any(layer.kind == "SimpleRNN" for layer in network.layers):
        with pytest.raises(NothingConcluded, match="SimpleRNN 'simple_rnn': no PyTorch module"):
            runner.run(spec, weights, x, y)
        return
    found = runner.run(spec, weights, x, y)
    places = list(trace.flow(network.layers, spec.loss_name, spec.optimizer_name))
    judge = pipeline.judge_whole if dtype == "float64" else pipeline.judge_local
    rows = judge(spec, weights, x, y, found, places)
    assert not [row for row in rows if not row.passed]
    assert set(found.tensors) == set(scratch.run(spec, weights, x, y).tensors)
    assert {found[name].dtype.name for name in found.tensors if name != trace.INPUT} == {dtype}


def with_layers(keras, layers, shape, loss="mse"):
    model = keras.Sequential([keras.Input(shape), *layers])
    return Spec("net", model.get_config(), loss, training=False).with_dtype("float64").seeded()


def agrees_with_keras(spec, y=None):
    network, weights, x, labels = designed(spec)
    labels = labels if y is None else y
    places = list(trace.flow(network.layers, spec.loss_name, spec.optimizer_name))
    by_keras, by_torch = (each.run(spec, weights, x, labels) for each in (keras_runner, runner))
    assert set(by_keras.tensors) == set(by_torch.tensors)
    return all(row.passed for row in compare.compare_whole(by_torch, by_keras, places))


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", torch_layers.ACTIVATIONS)
def test_activations_that_scratchnet_lacks_too(name, keras, torch):
    dense = keras.layers.Dense
    layers = [dense(5), keras.layers.Activation(name), dense(3, activation=name)]
    assert agrees_with_keras(with_layers(keras, layers, (4,)))


@pytest.mark.parametrize("slope", [0.0, 0.25])
@pytest.mark.parametrize("limit", [None, 0.0, 2.0, 6.0])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 2.0, 6.0, 8.0])
def test_the_gradient_of_a_relu_at_its_kinks(slope, limit, threshold, torch):
    """Where it bends and where it stops, exactly, beside them, and at 0; scratchnet's are measured in Keras."""
    settings = {"negative_slope": slope, "max_value": limit, "threshold": threshold}
    x = np.array([[-1.0, 0.0, 0.25, 0.5, 1.0, 2.0, 6.0, 8.0, 9.0]])
    h = torch.from_numpy(x).requires_grad_()
    (module,) = torch_layers.modules(torch, "ReLU", settings, {}, h, float)
    y = module(h)
    (gradient,) = torch.autograd.grad(y.sum(), h)
    by_hand = ReLU(**settings).activation
    assert np.array_equal(y.detach().numpy(), by_hand.forward(x))
    assert np.array_equal(gradient.numpy(), by_hand.backward(x, by_hand.forward(x), np.ones_like(x)))


CLASSES = {
    "meansquarederror": "MeanSquaredError",
    "meanabsoluteerror": "MeanAbsoluteError",
    "meanabsolutepercentageerror": "MeanAbsolutePercentageError",
    "meansquaredlogarithmicerror": "MeanSquaredLogarithmicError",
    "huber": "Huber",
    "logcosh": "LogCosh",
    "poisson": "Poisson",
    "cosinesimilarity": "CosineSimilarity",
    "hinge": "Hinge",
    "squaredhinge": "SquaredHinge",
    "kldivergence": "KLDivergence",
    "binarycrossentropy": "BinaryCrossentropy",
    "categoricalcrossentropy": "CategoricalCrossentropy",
    "sparsecategoricalcrossentropy": "SparseCategoricalCrossentropy",
}


@pytest.mark.tensorflow
@pytest.mark.parametrize("behind", ["logits", "probabilities"])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("name", torch_losses.LOSSES)
def test_losses(name, activation, behind, keras, torch):
    """Behind a Flatten Keras has no logits, only probabilities."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, 8)
    y = {"sparsecategoricalcrossentropy": classes, "categoricalcrossentropy": np.eye(3)[classes]}.get(
        name, rng.integers(0, 2, (8, 3)).astype(float)
    )
    layers = [keras.layers.Dense(5), keras.layers.Dense(3, activation=activation)]
    layers += [keras.layers.Flatten()] * (behind == "probabilities")
    loss = {"module": "keras.losses", "class_name": CLASSES[name], "config": {}, "registered_name": None}
    assert agrees_with_keras(with_layers(keras, layers, (4,), loss), y)


@pytest.mark.tensorflow
@pytest.mark.parametrize("activation", [None, "softmax", "relu"])
def test_outputs_that_are_an_image_flattened_or_not(activation, keras, torch):
    """The loss compares them with labels that are channels last."""
    layers, loss = keras.layers, "categorical_crossentropy" if activation == "softmax" else "mse"
    for behind in ([], [layers.Flatten()], [layers.Flatten(), layers.LayerNormalization()]):
        stack = [layers.Conv2D(3, 2), *behind, layers.Activation(activation)]
        if activation == "softmax" and not behind:
            continue  # its labels are one class for each pixel, which no probe draws
        assert agrees_with_keras(with_layers(keras, stack, (5, 4, 2), loss))


@pytest.mark.tensorflow
def test_layers_that_scratchnet_lacks(keras, torch):
    layers = keras.layers
    stack = [layers.Conv2D(3, 2, activation="silu"), layers.AveragePooling2D(2), layers.Conv2D(4, 1), layers.ELU(0.7)]
    stack += [layers.GlobalAveragePooling2D(), layers.Dense(3, activation="softmax")]
    assert agrees_with_keras(with_layers(keras, stack, (9, 8, 2), "categorical_crossentropy"))


REFUSED = {
    "LSTM 'lstm': no PyTorch module": lambda layers: ([layers.LSTM(3, name="lstm")], (5, 2)),
    "AveragePooling2D 'pool': with padding='same'": lambda layers: (
        [layers.AveragePooling2D(2, padding="same", name="pool")],
        (5, 5, 2),
    ),
    "Conv2D 'conv': groups=2 has no counterpart": lambda layers: (
        [layers.Conv2D(4, 2, groups=2, name="conv")],
        (5, 5, 2),
    ),
    "LayerNormalization 'norm': over the channels of images": lambda layers: (
        [layers.LayerNormalization(name="norm")],
        (5, 5, 2),
    ),
    "Dense 'dense': over the channels of images": lambda layers: ([layers.Dense(3, name="dense")], (5, 5, 2)),
    "BatchNormalization 'norm': over the last axis of sequences": lambda layers: (
        [layers.BatchNormalization(name="norm")],
        (5, 2),
    ),
    "Permute 'permute': no PyTorch module": lambda layers: (
        [layers.Permute((2, 1, 3), name="permute"), layers.Flatten(), layers.Dense(2)],
        (4, 5, 2),
    ),
    "Dense 'dense': no PyTorch module is known for the activation sparsemax": lambda layers: (
        [layers.Dense(3, activation="sparsemax", name="dense")],
        (5,),
    ),
}


@pytest.mark.tensorflow
@pytest.mark.parametrize(("said", "make"), REFUSED.items(), ids=REFUSED)
def test_what_pytorch_does_otherwise_is_refused(said, make, keras, torch):
    layers, shape = make(keras.layers)
    spec = with_layers(keras, layers, shape)
    _, weights, x, y = designed(spec)
    with pytest.raises(NothingConcluded, match=said):
        runner.run(spec, weights, x, y)


def test_training_a_loss_and_an_optimizer_that_differ_are_refused(torch):
    spec = Spec("net", built([Dense(2), BatchNormalization(name="norm")], (3,), "mse").get_config(), "mse")
    _, weights, x, y = designed(spec)
    for change, said in (
        ({}, "BatchNormalization 'norm': in training"),
        ({"training": False, "loss": "dice"}, "the loss dice has no formula"),
        ({"training": False, "optimizer": "adam"}, "the optimizer adam"),
        ({"training": False, "optimizer": {"class_name": "SGD", "config": {"weight_decay": 0.1}}}, "weight_decay"),
    ):
        with pytest.raises(NothingConcluded, match=said):
            runner.run(replace(spec, **change), weights, x, y)


def test_the_users_pytorch_is_left_alone(torch):
    """Neither the random numbers nor the mode that the user is in change, or matter."""
    spec = replace(cases.find("layer-Dense", 0)[0], training=False)
    _, weights, x, y = designed(spec)
    expected = runner.run(spec, weights, x, y)
    before = torch.get_rng_state()
    with torch.inference_mode():
        found = runner.run(spec, weights, x, y)
        assert torch.is_inference_mode_enabled()
    assert all(found[name].tobytes() == expected[name].tobytes() for name in expected.tensors)
    assert torch.equal(before, torch.get_rng_state())


def test_without_pytorch(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)  # Python's own way to say: this cannot be imported
    spec = cases.find("layer-Dense", 0)[0]
    _, weights, x, y = designed(spec)
    with pytest.raises(NothingConcluded, match=r"PyTorch is not installed.*'scratchnet-parity\[torch\]'"):
        runner.run(spec, weights, x, y)
