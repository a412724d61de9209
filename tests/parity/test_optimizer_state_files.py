"""Files with a state that is damaged or hostile, and proofs of ports that went wrong."""

import json
import re
import warnings

import numpy as np
import pytest

from parity import port, verify
from parity.errors import FileError, UsageError
from parity.weights import formats
from parity.weights.optimizers import holder, keras_ends, moving, torch_ends
from parity.weights.optimizers.holder import Place
from scratchnet import Sequential
from scratchnet.layers import Dense

RATE, MOMENTUM = 0.125, 0.875
RNG = np.random.default_rng(3)
X, Y = RNG.standard_normal((6, 4)).astype("float32"), RNG.standard_normal((6, 4)).astype("float32")
SETTINGS = {"learning_rate": RATE, "momentum": MOMENTUM}


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def network(steps=0):
    """Square layers: a momentum that is transposed or another layer's still fits."""
    model = Sequential([Dense(4, "tanh", name="one"), Dense(4, name="two")])
    model.build((None, 4))
    model.compile({"class_name": "SGD", "config": SETTINGS}, "mse")
    if steps:
        model.fit(X, Y, epochs=steps, shuffle=False, verbose=0)
    return model


def in_torch(torch, steps=0):
    nn = torch.nn
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(torch.from_numpy(X)), torch.from_numpy(Y)).backward()
        optimizer.step()
    return model, optimizer


# -- damaged and hostile files -----------------------------------------------------------------------------------------


def changed(tmp_path, change, suffix=".safetensors"):
    """A file with a state, of which an array or a text is another."""
    path = tmp_path / f"a{suffix}"
    port(network(2), path, proof=False)
    archive = formats.read(path)
    arrays = {key: np.array(stored.load()) for key, stored in archive.arrays.items()}
    texts = dict(archive.metadata)
    change(arrays, texts)
    formats.write(path, arrays, texts)
    return path


KERNEL = "optimizer/momentum/one/kernel"


def put(key, value):
    def change(arrays, texts):
        arrays[key] = np.asarray(value)

    return change


def say(text):
    def change(arrays, texts):
        texts["optimizer_config"] = text

    return change


def config(**more):
    return json.dumps({"class_name": "SGD", "config": SETTINGS, **more})


NAN = np.full((4, 4), np.nan, np.float32)
DAMAGED = {
    "a wrong shape": (put(KERNEL, np.zeros((4, 5), np.float32)), r"expected shape \(4, 4\), .*; received \(4, 5\)"),
    "one axis more": (put(KERNEL, np.zeros((4, 4, 1), np.float32)), r"expected shape \(4, 4\), that of the weight one"),
    "NaN": (put(KERNEL, NAN), "expected finite numbers; 16 of 16 are NaN or infinite; if they are meant"),
    "infinity": (put(KERNEL, -np.inf * np.ones((4, 4), np.float32)), "16 of 16 are NaN or infinite"),
    "too large": (put(KERNEL, np.full((4, 4), 1e300)), "beyond the largest float32"),
    "whole numbers": (put(KERNEL, np.ones((4, 4), np.int64)), "expected float numbers; received int64"),
    "no JSON": (say("{"), "optimizer_config: expected JSON"),
    "a list": (say("[]"), r"optimizer_config: expected an object, received \[\]"),
    "a key twice": (say('{"class_name": "SGD", "class_name": "SGD"}'), "expected it once"),
}
LEFT = {
    "a strange key": (put("optimizer/momentum/three/kernel", NAN), "optimizer/<slot>/<weight> of a trained weight"),
    "an unknown class": (say(config(class_name="Evil")), "expected SGD, Adam or AdamW; received Evil"),
    "no class": (say(config(class_name=None)), "expected class_name and config of an optimizer"),
    "no settings": (say(config(config=[])), "expected class_name and config of an optimizer"),
    "a strange framework": (say(config(framework="os")), "expected class_name and config of an optimizer"),
    "another rate": (say(config(config={**SETTINGS, "learning_rate": 0.5})), "learning_rate 0.5 and 0.125"),
    "a rate that is text": (say(config(config={**SETTINGS, "learning_rate": "a"})), "learning_rate 'a' and 0.125"),
    "a rate that is NaN": (say(config(config={**SETTINGS, "learning_rate": float("nan")})), "learning_rate nan and"),
    "many steps": (put("optimizer/iterations", np.zeros(3, np.int64)), "expected the number of steps"),
    "half a step": (put("optimizer/iterations", np.float64(0.5)), "expected the number of steps"),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_state_ends_the_port(tmp_path, name, suffix):
    change, message = DAMAGED[name]
    path, target = changed(tmp_path, change, suffix), network(1)
    before = [*target.get_weights(), *(kept["momentum"] for kept in target._state.values())]
    with pytest.raises(FileError, match=message) as raised:
        port(path, target, proof=False)
    assert str(path) in str(raised.value)
    after = [*target.get_weights(), *(kept["momentum"] for kept in target._state.values())]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", LEFT)
def test_a_state_that_is_not_understood_is_left(tmp_path, name):
    change, message = LEFT[name]
    source = changed(tmp_path, change)
    target = network(1)
    state = {weight: kept["momentum"] for weight, kept in target._state.items()}
    report = port(source, target, proof=False)
    assert report.state[0].startswith("state not ported: ")
    assert message in report.state[0]
    assert report.state[1].endswith("keeps the state of its optimizer, which belongs to its old weights")
    assert all(kept["momentum"] is state[weight] for weight, kept in target._state.items())


def test_nan_is_taken_if_asked_for(tmp_path):
    target = network()
    port(changed(tmp_path, put(KERNEL, NAN)), target, proof=False, allow_nonfinite=True)
    assert np.isnan(target._state["one", "kernel"]["momentum"]).all()


def test_complex_numbers_are_refused(tmp_path):
    path = changed(tmp_path, put(KERNEL, NAN), ".npz")
    with np.load(path) as file:
        arrays = {key: np.array(file[key]) for key in file.files}
    np.savez(path, **{**arrays, KERNEL: np.ones((4, 4), complex)})
    with pytest.raises(FileError, match=f"'{KERNEL}': expected real or whole numbers"):
        port(path, network(), proof=False)


@pytest.mark.tensorflow
def test_a_keras_file_with_a_wrong_state(keras, tmp_path):
    h5py = pytest.importorskip("h5py")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), keras.layers.Dense(4)])
    model.compile(keras.optimizers.SGD(RATE, MOMENTUM), "mse", run_eagerly=True)
    model.train_on_batch(X, Y)
    path = tmp_path / "a.weights.h5"
    for key, value, error, message in (
        ("optimizer/vars/2", np.zeros((5, 4), "f"), FileError, r"optimizer/vars/2: expected shape \(4, 4\)"),
        ("optimizer/vars/2", np.ones((4, 4), complex), FileError, "optimizer/vars/2"),
        ("optimizer/vars/9", np.zeros(1, "f"), None, "optimizer/vars/6: expected the variables of the optimizer by"),
        ("optimizer/vars/6", np.zeros(1, "f"), None, "expected 6 variables for 4 trained weights; received 7"),
        ("optimizer/vars/0", np.zeros(2, "f"), None, "optimizer/vars/0: expected the number of steps"),
    ):
        model.save_weights(path)
        with h5py.File(path, "a") as file:
            file.pop(key, None)
            file[key] = value
        if error is None:
            assert message in port(path, model, proof=False).state[0]
            continue
        with pytest.raises(error, match=message):
            port(path, model, proof=False)


CHECKPOINTS = {
    "a number in the model": (lambda c: c["model"].update(a=3), "model: 'a': expected names with tensors; received 3"),
    "a state in the model": (lambda c: c["model"].update({"optimizer/a": c["model"]["0.bias"]}), "'optimizer/a'"),
    "no state": (lambda c: c["optimizer"].pop("state"), "optimizer: expected state and param_groups"),
    "a list of states": (lambda c: c["optimizer"].update(state=[1]), "expected state and param_groups"),
    "a name for a number": (lambda c: c["optimizer"]["state"].update(a={}), "'a': expected a number with names"),
    "a path for a name": (lambda c: c["optimizer"]["state"][0].update({"../a": 1}), "expected a name; received '../a'"),
    "no network": (
        lambda c: c.update(net=c.pop("model")),
        "'optimizer': expected a state_dict, names with tensors, or a",
    ),
}
CHECKPOINTS["a model in itself"] = (
    lambda c: c["model"].update(a=c["model"]),
    "model: 'a': expected names with tensors",
)
NOT_TAKEN = {
    "no groups": (lambda c: c["optimizer"].update(param_groups=[]), "expected one group of parameters"),
    "two groups": (lambda c: c["optimizer"]["param_groups"].append({}), "expected one group of parameters"),
    "fewer parameters": (lambda c: c["optimizer"]["param_groups"][0].update(params=[0]), "expected 4 parameters"),
    "another class": (lambda c: c["optimizer"]["param_groups"][0].pop("nesterov"), "expected SGD or Adam; received"),
    "a rate that is text": (lambda c: c["optimizer"]["param_groups"][0].update(lr="1"), "a learning rate that is a"),
    "a rate of 0": (lambda c: c["optimizer"]["param_groups"][0].update(lr=0), "a number above 0; received 0"),
    "a strange momentum": (lambda c: c["optimizer"]["param_groups"][0].update(momentum="a"), "a momentum that is a"),
    "another order": (
        lambda c: c["optimizer"]["param_groups"][0].update(params=[1, 0, 2, 3]),
        "the optimizer has its parameters in another order than the model",
    ),
}


@pytest.mark.parametrize("name", [*CHECKPOINTS, *NOT_TAKEN])
def test_a_strange_checkpoint(torch, tmp_path, name):
    change, message = {**CHECKPOINTS, **NOT_TAKEN}[name]
    model, optimizer = in_torch(torch, 2)
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 2}
    change(saved)
    torch.save(saved, tmp_path / "a.pt")
    if name in NOT_TAKEN:
        assert message in port(tmp_path / "a.pt", network(), proof=False).state[0]
        return
    with pytest.raises(FileError, match=re.escape(message)):
        port(tmp_path / "a.pt", network(), proof=False)


def test_adam_without_its_steps_is_left(torch, tmp_path):
    model, _ = in_torch(torch)
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    torch.nn.functional.mse_loss(model(torch.from_numpy(X)), torch.from_numpy(Y)).backward()
    adam.step()
    port((model, adam), tmp_path / "a.npz", naming=":keras", model=network(), proof=False)
    archive = formats.read(tmp_path / "a.npz")
    arrays = {key: np.array(a.load()) for key, a in archive.arrays.items() if key != "optimizer/iterations"}
    formats.write(tmp_path / "a.npz", arrays, archive.metadata)
    with pytest.raises(UsageError, match="expected the number of steps, on which those of Adam depend"):
        port(tmp_path / "a.npz", (model, adam), proof=False)


def test_settings_that_no_optimizer_has(tmp_path):
    """From file to file nobody else looks at them: the proof says that it could not make the steps."""
    pytest.importorskip("keras")
    source = changed(tmp_path, say(config(config={**SETTINGS, "evil": 1})))
    report = port(source, tmp_path / "b.npz", model=network())
    assert any("the file has other settings than SGD" in sentence for sentence in report.proof.sentences)


def test_other_data_of_a_checkpoint_is_passed_over(torch, tmp_path):
    model, optimizer = in_torch(torch, 2)
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "losses": [0.5, (1, "a")], "best": None}
    saved["itself"] = saved
    torch.save(saved, tmp_path / "a.pt")
    assert port(tmp_path / "a.pt", network()).proof.passed


def test_parameters_by_name(torch, tmp_path):
    """An optimizer that was given names keeps them, and they count."""
    model, _ = in_torch(torch)
    named = list(model.named_parameters())[::-1]
    optimizer = torch.optim.SGD(named, lr=RATE, momentum=MOMENTUM)
    torch.nn.functional.mse_loss(model(torch.from_numpy(X)), torch.from_numpy(Y)).backward()
    optimizer.step()
    if "param_names" not in optimizer.state_dict()["param_groups"][0]:
        pytest.skip("this PyTorch keeps no names")
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "a.pt")
    target = network()
    assert port(tmp_path / "a.pt", target, proof=False).state[0] == "momentum of 4 weights"
    expected = -RATE * optimizer.state[model[0].weight]["momentum_buffer"].numpy().T
    assert np.array_equal(target._state["one", "kernel"]["momentum"], expected)


# -- the proof ---------------------------------------------------------------------------------------------------------


def test_a_right_port_is_proved(torch, tmp_path):
    report = port(network(2), in_torch(torch))
    assert report.proof.passed
    said = "\n".join(report.proof.sentences)
    assert "the optimizer: 4 arrays read back, bit for bit" in said
    assert "the state of the optimizer: 4 tensors within budget" in said
    assert "the next 3 steps of scratchnet and PyTorch, with the same gradients: 12 tensors within budget" in said
    assert port(in_torch(torch, 2), tmp_path / "a.safetensors", naming=":keras", model=network()).proof.passed


def test_the_models_are_as_they_were(torch):
    there, here = network(2), in_torch(torch)
    port(there, here)
    weights = [w.copy() for w in there.get_weights()]
    state = {weight: kept["momentum"].copy() for weight, kept in there._state.items()}
    held = [p.detach().clone() for p in here[0].parameters()]
    port(there, here)
    assert all(np.array_equal(a, b) for a, b in zip(weights, there.get_weights(), strict=True))
    assert all(np.array_equal(kept["momentum"], state[weight]) for weight, kept in there._state.items())
    assert all(torch.equal(a, b) for a, b in zip(held, here[0].parameters(), strict=True))


def failed(source, target):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        report = port(source, target)
    assert not report.proof.passed
    assert report.exit_status == 1
    return "\n".join(report.proof.sentences)


@pytest.fixture
def put_wrong(monkeypatch):
    """What a live PyTorch target is given is changed on its way."""

    def changing(change):
        right = moving._for_writing

        def wrong(target, there):
            found = right(target, there)
            put = found.put
            return moving.replace(found, put=lambda arrays: put(change(dict(arrays))))

        monkeypatch.setattr(moving, "_for_writing", wrong)

    return changing


ONE, TWO = "optimizer/momentum_buffer/0.weight", "optimizer/momentum_buffer/2.weight"
WRITTEN_WRONG = {
    "the sign of one": lambda a: {**a, ONE: -a[ONE]},
    "transposed": lambda a: {**a, ONE: a[ONE].T},
    "lost": lambda a: {key: array for key, array in a.items() if key != ONE},
    "one bit": lambda a: {**a, ONE: np.nextafter(a[ONE], np.float32(1))},
    "swapped": lambda a: {**a, ONE: a[TWO], TWO: a[ONE]},
}


@pytest.mark.parametrize("mistake", WRITTEN_WRONG)
def test_a_momentum_that_arrives_wrong_is_named(torch, put_wrong, mistake):
    put_wrong(WRITTEN_WRONG[mistake])
    assert "momentum_buffer/0.weight" in failed(network(2), in_torch(torch))


MEANT_WRONG = {
    "the sign": lambda place, array: -np.asarray(array / np.float32(-RATE)),
    "no learning rate": lambda place, array: -array,
    "the rate twice": lambda place, array: array / np.float32(-RATE) / np.float32(RATE),
    "one sign that was forgotten": lambda place, array: np.where(np.arange(4) == 2, -1, 1) * array / np.float32(-RATE),
}


@pytest.mark.parametrize("mistake", MEANT_WRONG)
def test_a_wrong_formula_is_found(torch, monkeypatch, mistake):
    """The bits are as meant: what is wrong is what was meant."""
    right = Place.arranged

    def arranged(place, array):
        if place.rate is None:
            return right(place, array)
        plain = Place(place.key, place.transforms).arranged(array)
        return MEANT_WRONG[mistake](place, plain).astype(np.float32)

    monkeypatch.setattr(holder.Place, "arranged", arranged)
    said = failed(network(2), in_torch(torch))
    assert "the state of the optimizer: 4 of 4 tensors differ, the first is momentum of one/kernel" in said
    assert re.search(
        r"the next 3 steps of scratchnet and PyTorch.*: 12 of 12 tensors differ, .* is one/kernel after 1", said
    )


@pytest.mark.parametrize("mistake", ["no learning rate", "the sign"])
def test_a_formula_that_is_wrong_both_ways_is_found_by_the_steps(torch, monkeypatch, mistake):
    """Read back with the same mistake, the momentum looks right; PyTorch's own steps show that it is not."""
    factor = {"no learning rate": np.float32(-1), "the sign": np.float32(RATE)}[mistake]
    monkeypatch.setattr(Place, "arranged", lambda place, array: Place_arranged(place, array, factor))
    monkeypatch.setattr(Place, "restored", lambda place, array: Place_restored(place, array, factor))
    said = failed(network(2), in_torch(torch))
    assert "the state of the optimizer" not in said or "4 tensors within budget" in said
    assert re.search(r"12 of 12 tensors differ, the first is one/kernel after 1 steps", said)


def Place_arranged(place, array, factor):
    found = array.T if place.transforms else array
    return found if place.rate is None else found / factor


def Place_restored(place, array, factor):
    found = array.T if place.transforms else array
    return found if place.rate is None else found * factor


def test_momentum_of_another_layer_is_found(torch, monkeypatch):
    """Two slots that change places in the plan, consistently."""
    right = torch_ends._places

    def swapped(*arguments):
        found = right(*arguments)
        one, two = ("momentum", "one/kernel"), ("momentum", "two/kernel")
        return {**found, one: found[two], two: found[one]}

    monkeypatch.setattr(torch_ends, "_places", swapped)
    said = failed(network(2), in_torch(torch))
    assert "the first is one/kernel after 1 steps" in said
    assert "6 of 12 tensors differ" in said


@pytest.mark.tensorflow
def test_lost_iterations_are_found(keras, monkeypatch):
    def made(steps):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), keras.layers.Dense(4)])
        model.compile("adam", "mse", run_eagerly=True)
        for _ in range(steps):
            model.train_on_batch(X, Y)
        return model

    there = made(3)
    assert port(there, made(0)).proof.passed
    right = moving._moved
    without = lambda found: {k: a for k, a in found.arrays.items() if k != "optimizer/vars/0"}  # noqa: E731
    monkeypatch.setattr(moving, "_moved", lambda *rest: moving.replace(found := right(*rest), arrays=without(found)))
    assert "0 steps where the source made 3" in failed(there, made(0))
    monkeypatch.undo()
    monkeypatch.setattr(keras_ends, "_counted", lambda steps: {"optimizer/vars/0": np.array(0, np.int64)})
    assert "0 steps where the source made 3" in failed(there, made(0))


def test_a_file_that_loses_its_state_is_found(tmp_path, monkeypatch):
    right = formats.write

    def without(path, arrays, *rest, **more):
        right(path, {key: array for key, array in arrays.items() if key != KERNEL}, *rest, **more)

    monkeypatch.setattr(formats, "write", without)
    assert KERNEL in failed(network(2), tmp_path / "a.npz")


# -- the record of a file ----------------------------------------------------------------------------------------------


def touched(arrays, texts):
    arrays[KERNEL][1, 2] += 1


def dropped(arrays, texts):
    del arrays[KERNEL]


@pytest.mark.parametrize("change", [touched, dropped, put("optimizer/momentum/three/kernel", np.zeros(3, "f4"))])
def test_the_record_knows_the_state(tmp_path, change):
    port(network(2), tmp_path / "a.safetensors")
    assert verify(tmp_path / "a.safetensors").passed
    archive = formats.read(tmp_path / "a.safetensors")
    arrays, texts = {key: np.array(stored.load()) for key, stored in archive.arrays.items()}, dict(archive.metadata)
    change(arrays, texts)
    formats.write(tmp_path / "b.safetensors", arrays, texts)
    [differs] = verify(tmp_path / "b.safetensors").differing
    assert differs.startswith("optimizer/momentum/")
