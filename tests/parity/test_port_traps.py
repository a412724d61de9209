"""Ports that went wrong, or were refused, before somebody tried: shared memory, modules that are there twice, layers
between a Flatten and a Dense, optimizers of other models."""

import json

import numpy as np
import pytest

import parity
from parity.errors import FileError, UsageError
from parity.weights import formats
from parity.weights.record import KEY
from scratchnet import Sequential
from scratchnet.layers import Activation, Conv2D, Dense, Flatten


def drawn(layers, shape):
    """Random weights everywhere, so that no two of them can be mistaken for each other."""
    model = Sequential(layers)
    model.build((None, *shape))
    model.compile(loss="mse")
    rng = np.random.default_rng(0)
    model.set_weights([rng.standard_normal(w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


def squares():
    return drawn([Dense(4, "tanh", name="a"), Dense(4, "tanh", name="b"), Dense(4, name="c")], (4,))


def torch_squares(torch):
    nn = torch.nn
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))


def state(model):
    return {key: tensor.detach().numpy().copy() for key, tensor in model.state_dict().items()}


def unchanged(before, after):
    return all(before[key].tobytes() == after[key].tobytes() for key in before)


# -- rows behind a Flatten ---------------------------------------------------------------------------------------------


def test_a_second_flatten_changes_nothing(torch):
    model = drawn([Conv2D(3, 3, name="conv"), Flatten(), Flatten(), Dense(27, name="top")], (5, 5, 2))
    nn = torch.nn
    twin = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Flatten(), nn.Linear(27, 27))
    report = parity.port(model, twin)
    assert report.proof.passed, report.to_text()
    assert any("as (channels, height, width)" in words for words in report.plan.steps[2].transforms)


@pytest.mark.tensorflow
def test_a_layer_that_may_move_flattened_rows_is_not_passed_over(keras, tmp_path):
    """It once made the port forget the image, and wrote the rows in Keras's order under PyTorch's names."""
    layers = keras.layers

    def model(between):
        return keras.Sequential(
            [keras.Input((3, 4, 2)), layers.Flatten(), between, layers.Dense(24, use_bias=False, name="top")]
        )

    for same in (layers.Identity(), layers.Reshape((24,)), layers.UnitNormalization()):
        plan = parity.port(model(same), tmp_path / "a.npz", naming="torch", dry_run=True).plan
        assert any("as (channels, height, width)" in words for words in plan.steps[0].transforms)
    backwards = layers.Lambda(lambda x: x[:, ::-1], output_shape=(24,))
    with pytest.raises(UsageError, match="in which order PyTorch would have them is not known"):
        parity.port(model(backwards), tmp_path / "a.npz", naming="torch", dry_run=True)


def test_a_flatten_that_is_there_twice_counts_twice(torch, tmp_path):
    nn = torch.nn
    flat = nn.Flatten()
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3),
        flat,
        nn.Linear(27, 8),
        nn.Unflatten(1, (2, 2, 2)),
        nn.Conv2d(2, 3, 1),
        flat,
        nn.Linear(12, 5),
    )
    steps = parity.port(net, tmp_path / "a.safetensors", naming="keras", dry_run=True).plan.steps
    rows = [step.weight for step in steps if any("channels" in words for words in step.transforms)]
    assert rows == ["2/kernel", "6/kernel"]


# -- live ends ---------------------------------------------------------------------------------------------------------


def expanded(torch, net):
    net[2].weight.data = torch.zeros(1, 4).expand(4, 4)


def overlapping(torch, net):
    memory = torch.zeros(7, 4)
    net[0].weight.data, net[2].weight.data = memory[:4], memory[3:]


@pytest.mark.parametrize(("spoil", "message"), [(expanded, "expanded tensor"), (overlapping, "share memory")])
def test_what_pytorch_would_refuse_is_refused_before_anything_changes(torch, spoil, message):
    net = torch_squares(torch)
    spoil(torch, net)
    before = state(net)
    with pytest.raises(UsageError, match=message):
        parity.port(squares(), net)
    assert unchanged(before, state(net))


def test_tensors_side_by_side_in_one_memory_are_apart(torch):
    net, memory = torch_squares(torch), torch.zeros(4, 8)
    net[0].weight.data, net[2].weight.data = memory[:, ::2], memory[:, 1::2]
    assert parity.port(squares(), net).proof.passed


def test_inference_meta_and_lazy_tensors_are_refused(torch, tmp_path):
    with torch.inference_mode():
        net = torch_squares(torch)
    with pytest.raises(UsageError, match="inference_mode"):
        parity.port(squares(), net)
    lazy = torch.nn.Sequential(torch.nn.LazyLinear(4))
    for source, message in ((torch_squares(torch).to("meta"), "on the device meta"), (lazy, "has no shape yet")):
        with pytest.raises(UsageError, match=message):
            parity.port(source, tmp_path / "a.safetensors")


def arrays():
    weights = squares().get_weights()
    return dict(zip(("W1", "b1", "W2", "b2", "W3", "b3"), (np.zeros_like(w) for w in weights), strict=True))


def test_arrays_that_cannot_be_filled_are_refused_before_anything_changes():
    one_is_read_only, one_in_another = arrays(), arrays()
    one_is_read_only["b3"].flags.writeable = False
    one_in_another["W2"] = one_in_another["W1"].T
    for params, message in ((one_is_read_only, "b3 is read-only"), (one_in_another, "W1 and W2 share memory")):
        with pytest.raises(UsageError, match=message):
            parity.port(squares(), params, layout="rows")
        assert not any(array.any() for array in params.values())


def test_a_module_that_is_there_twice_is_no_wrong_port(torch):
    nn = torch.nn
    shared = nn.Linear(4, 4)
    net = nn.Sequential(shared, nn.Tanh(), shared, nn.Tanh(), nn.Linear(4, 4))
    model = squares()
    proof = parity.port(net, model).proof
    assert proof.passed
    assert "0.weight and 2.weight are one tensor there" in proof.to_text()
    x = np.random.default_rng(1).standard_normal((5, 4)).astype("float32")
    weights = model.get_weights()
    magnitudes = np.abs(x, dtype=np.float64)  # tanh makes nothing larger
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        magnitudes = magnitudes @ np.abs(kernel) + np.abs(bias)
    # In each of three layers four products, four sums and a tanh to two units, on both sides.
    allowed = 2 * 3 * 10 * 2.0**-24 * magnitudes
    assert np.all(np.abs(model.predict(x) - net(torch.from_numpy(x)).detach().numpy()) <= allowed)


# -- live PyTorch models that are run themselves -----------------------------------------------------------------------


@pytest.mark.parametrize("end", [[], [Activation("softmax")]], ids=["image", "softmax"])
def test_outputs_that_are_a_flattened_image(torch, end):
    """They come channels first out of PyTorch, and the labels are channels last."""
    nn = torch.nn
    model = drawn([Conv2D(3, 3, name="conv"), Flatten(), *end], (5, 4, 2))
    if end:
        model.compile(loss="categorical_crossentropy")
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), *[nn.Softmax(-1)] * len(end))
    report = parity.port(model, net)
    assert report.proof.passed, report.to_text()
    assert "the PyTorch model, target of the port" in report.proof.worst
    logits = parity.port(model, nn.Sequential(*net[:2])).proof
    assert logits.passed, logits.to_text()
    backwards = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Hardtanh(-1.0, 1.0), *[nn.Softmax(-1)] * len(end))
    with pytest.warns(RuntimeWarning, match="tensors differ"):
        assert not parity.port(model, backwards).proof.passed


@pytest.mark.parametrize("way", ["register_hook", "register_post_accumulate_grad_hook"])
def test_a_hook_on_a_parameter_is_not_passed_over(torch, way):
    """A copy of the model has none, so what is run is not what is trained."""
    net = torch_squares(torch)
    hook = getattr(net[2].weight, way)(lambda gradient: None)
    with pytest.warns(RuntimeWarning, match="b/kernel.gradient: its parameter has a hook"):
        report = parity.port(squares(), net)
    assert report.exit_status == 1
    hook.remove()
    assert parity.port(squares(), net).proof.passed


def test_a_model_that_does_not_take_the_samples_of_its_network_fails(torch):
    nn = torch.nn
    model = drawn([Conv2D(3, 3, name="conv"), Flatten(), Dense(4, name="top")], (5, 5, 2))
    net = nn.Sequential(nn.Conv2d(2, 3, 3, dilation=2), nn.Flatten(), nn.Linear(27, 4))
    with pytest.warns(RuntimeWarning, match="does not take the designed probe"):
        assert parity.port(model, net).exit_status == 1


BOTH = "the two PyTorch models on one designed probe, float64"


def two_in_torch(torch, kind, seed, **changed):
    nn = torch.nn
    torch.manual_seed(seed)
    inner = changed.get("activation", nn.ReLU)()
    end = [changed["end"](-1)] if "end" in changed else []
    if kind == "words":
        return nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 6), inner, nn.Linear(6, 3), *end)
    if kind == "table":
        return nn.Sequential(nn.Linear(4, 6), inner, nn.BatchNorm1d(6, eps=changed.get("eps", 1e-3)), *end)
    dilation = changed.get("dilation", 1)
    conv = nn.Sequential(nn.Conv2d(2, 3, 3, dilation=dilation), inner, nn.MaxPool2d(2))
    if kind == "pooled":
        return nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4), *end)
    return nn.Sequential(conv, nn.Dropout(), nn.Flatten(), nn.Linear(3 * 13 * 13, 4), *end)


@pytest.mark.parametrize("kind", ["words", "table", "pooled", "images"])
def test_two_pytorch_models_compute_the_same(torch, kind):
    source = two_in_torch(torch, kind, 0)
    for seed, changed in enumerate(({}, {"end": torch.nn.Softmax}, {"end": torch.nn.LogSoftmax}), 1):
        proof = parity.port(source, two_in_torch(torch, kind, seed, **changed)).proof
        assert proof.passed, proof.to_text()
        assert list(proof.worst) == [BOTH]
        assert ("behind the logits, which were compared" in proof.to_text()) == bool(changed)
    with pytest.warns(RuntimeWarning, match="1 of 1 tensors differ, the first is outputs"):
        report = parity.port(source, two_in_torch(torch, kind, 1, activation=torch.nn.Tanh))
    assert report.exit_status == 1
    assert "its weights are right" in report.proof.to_text()


@pytest.mark.parametrize(("kind", "changed"), [("table", {"eps": 1e-5}), ("images", {"dilation": 3})])
def test_two_pytorch_models_that_differ_in_a_setting(torch, kind, changed):
    with pytest.warns(RuntimeWarning, match="outputs"):
        assert parity.port(two_in_torch(torch, kind, 0), two_in_torch(torch, kind, 1, **changed)).exit_status == 1


def test_two_pytorch_models_of_which_nobody_knows_what_they_take(torch):
    nn = torch.nn
    source, target = (nn.Sequential(nn.Unflatten(1, (2, 4)), nn.Conv2d(2, 3, 3)) for _ in range(2))
    proof = parity.port(source, target).proof
    assert proof.passed
    assert f"{BOTH}: nothing was run, only the bits were compared: no samples were found" in proof.to_text()


# -- optimizers --------------------------------------------------------------------------------------------------------


def trained(torch, kind="SGD", **settings):
    torch.manual_seed(0)
    net = torch_squares(torch)
    optimizer = getattr(torch.optim, kind)(net.parameters(), lr=0.125, **settings)
    net(torch.randn(8, 4)).pow(2).mean().backward()
    optimizer.step()
    return net, optimizer


def test_an_optimizer_of_another_model_is_refused(torch):
    (_, optimizer), (net, _) = trained(torch, momentum=0.875), trained(torch, momentum=0.875)
    model = squares()
    model.compile({"class_name": "SGD", "config": {"learning_rate": 0.125, "momentum": 0.875}}, "mse")
    for source, target in (((net, optimizer), model), (trained(torch, momentum=0.875), (net, optimizer))):
        with pytest.raises(UsageError, match="expected one of the model's parameters; received 6 others"):
            parity.port(source, target)


def test_half_of_adam_and_a_negative_mean_of_squares_are_refused(torch, tmp_path):
    net, optimizer = trained(torch, "Adam")
    optimizer.state[net[2].bias]["exp_avg_sq"][1] *= -1
    with pytest.raises(UsageError, match="expected a mean of squares; 1 of 4 are below 0"):
        parity.port((net, optimizer), trained(torch, "Adam"))
    del optimizer.state[net[2].bias]["exp_avg_sq"]
    with pytest.raises(UsageError, match=r"momentum and velocity of 2/bias; received no velocity"):
        parity.port((net, optimizer), trained(torch, "Adam"))
    path = tmp_path / "a.pt"
    torch.save({"model_state_dict": net.state_dict(), "optimizer_state_dict": optimizer.state_dict()}, path)
    with pytest.raises(UsageError, match="received no velocity"):
        parity.port(path, trained(torch, "Adam"))


def test_weights_without_a_momentum_are_counted(torch, tmp_path):
    source, target = trained(torch, momentum=0.875), trained(torch, momentum=0.875)
    net, optimizer = source
    for parameter in (net[0].weight, net[2].bias):
        del optimizer.state[parameter]
    said = "momentum of 6 weights, 2 of which had none in the source and get zeros"
    assert parity.port(source, target, proof=False).state == (said,)
    assert not optimizer.state[net[0].weight]


def test_a_state_of_unknown_parameters_is_said(torch, tmp_path):
    net, optimizer = trained(torch, momentum=0.875)
    state, path = optimizer.state_dict(), tmp_path / "a.pt"
    state["state"][99] = {"momentum_buffer": torch.zeros(4)}
    torch.save({"model_state_dict": net.state_dict(), "optimizer_state_dict": state}, path)
    report = parity.port(path, trained(torch, momentum=0.875), dry_run=True)
    assert report.state[0] == "momentum of 6 weights"
    left = "left behind, since it is not known of which weight it is or what: optimizer/momentum_buffer/99"
    assert left in report.state
    state["state"] = {99: state["state"][99]}
    torch.save({"model_state_dict": net.state_dict(), "optimizer_state_dict": state}, path)
    report = parity.port(path, trained(torch, momentum=0.875), dry_run=True)
    assert report.state[:2] == ("no state to port: the source has made no step", left)


# -- records -----------------------------------------------------------------------------------------------------------


def test_a_record_of_no_arrays_is_not_a_pass(tmp_path):
    path = tmp_path / "a.npz"
    parity.port(squares(), path, proof=False)
    metadata = formats.read(path).metadata
    empty = json.loads(metadata[KEY]) | {"tensors": {}, "network": None, "expected": None}
    formats.write(path, {}, {KEY: json.dumps(empty)})
    with pytest.raises(FileError, match="tensors: expected at least one, received none"):
        parity.verify(path)


def test_a_record_without_a_network_or_a_reason_says_so(tmp_path):
    path = tmp_path / "a.npz"
    parity.port(squares(), path, proof=False)
    archive = formats.read(path)
    arrays = {key: np.array(stored.load()) for key, stored in archive.arrays.items()}
    record = json.loads(archive.metadata[KEY]) | {"network": None, "expected": None, "why": ""}
    formats.write(path, arrays, {KEY: json.dumps(record)})
    (note,) = parity.verify(path).notes
    assert note == (
        "the network was not run: the parity record has neither a network with expected outputs nor a reason"
    )
