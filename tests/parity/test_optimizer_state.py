"""The state of an optimizer goes along with the weights, and the next steps are the same; or it is said why not."""

import json

import numpy as np
import pytest

from parity import port
from parity.errors import UsageError
from parity.runners import tensorflow
from scratchnet import Sequential

RATE, MOMENTUM = 0.125, 0.875  # powers of two and sums of them: the same number in every dtype
BATCHES = [np.random.default_rng(seed).standard_normal((6, 4)) for seed in range(6)]
LABELS = np.random.default_rng(9).standard_normal((6, 2))
STEPS = 3
DTYPES = ("float32", "float64")


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(params=DTYPES)
def dtype(request, keras):
    with tensorflow.precision(request.param):
        yield request.param


def sgd(keras, **more):
    return keras.optimizers.SGD(RATE, MOMENTUM, **more)


def in_keras(keras, optimizer, steps=STEPS, frozen=False):
    layers = [keras.layers.Dense(4, "tanh"), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.layers[0].trainable = not frozen
    model.compile(optimizer=optimizer, loss="mse", run_eagerly=True)  # compiling a graph takes longer than the steps
    train_keras(model, range(steps))
    return model


def train_keras(model, numbers):
    for number in numbers:
        model.train_on_batch(BATCHES[number], LABELS)


def in_scratchnet(config, steps=0, **more):
    model = Sequential.from_config(config)
    settings = {"learning_rate": RATE, "momentum": MOMENTUM, **more}
    model.compile({"class_name": "SGD", "config": settings}, "mse")
    train_scratchnet(model, range(steps))
    return model


def train_scratchnet(model, numbers):
    for number in numbers:
        batch = BATCHES[number].astype(model.dtype)
        model.fit(batch, LABELS.astype(model.dtype), batch_size=6, shuffle=False, verbose=0)


def in_torch(torch, dtype="float32", steps=0, optimizer="SGD", **more):
    nn = torch.nn
    layers = nn.Linear(4, 4), nn.Tanh(), nn.BatchNorm1d(4, eps=1e-3), nn.Linear(4, 2)
    model = nn.Sequential(*layers).to(getattr(torch, dtype))
    settings = {"lr": RATE, "momentum": MOMENTUM, **more} if optimizer == "SGD" else {"lr": 0.01, **more}
    pair = model, getattr(torch.optim, optimizer)(model.parameters(), **settings)
    train_torch(torch, pair, range(steps))
    return pair


def train_torch(torch, pair, numbers):
    model, optimizer = pair
    kind = model[0].weight.dtype
    for number in numbers:
        optimizer.zero_grad()
        outputs = model(torch.from_numpy(BATCHES[number]).to(kind))
        torch.nn.functional.mse_loss(outputs, torch.from_numpy(LABELS).to(kind)).backward()
        optimizer.step()


def weights_of(model):
    """The trained ones, in Keras's form."""
    if isinstance(model, tuple):
        return [p.detach().numpy().T for p in model[0].parameters()]
    if isinstance(model, Sequential):
        return [layer.weights[n] for layer in model.layers for n in layer.weights if not n.startswith("moving")]
    return [np.asarray(variable) for layer in model.layers for variable in layer.trainable_weights]


def allowed(weights):
    """Three steps from the same weights and state. What is left is the rounding of some ten operations on numbers of
    the size of the weights in each step, of gradients that a batch normalisation makes from six samples: 100 of the
    last bits. A momentum that is lost or has the other sign changes a weight by a thousandth and more."""
    largest = max(float(np.max(np.abs(weight))) for weight in weights)
    return 100 * STEPS * float(np.finfo(weights[0].dtype).eps) * largest


def require_same_steps(torch, source, target, numbers=range(STEPS, 2 * STEPS)):
    for model in (source, target):
        if isinstance(model, tuple):
            train_torch(torch, model, numbers)
        elif isinstance(model, Sequential):
            train_scratchnet(model, numbers)
        else:
            train_keras(model, numbers)
    expected, found = weights_of(source), weights_of(target)
    for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert np.max(np.abs(ours - theirs)) <= allowed(expected), f"weight {number}"


# -- SGD with momentum -------------------------------------------------------------------------------------------------


@pytest.fixture
def made(keras, torch, dtype, tmp_path):
    """A trained network of each kind, or an untrained one; and files of them."""

    def make(kind, steps, nesterov=False):
        if kind == "keras":
            return in_keras(keras, sgd(keras, nesterov=nesterov), steps)
        if kind == "scratchnet":
            return in_scratchnet(in_keras(keras, "sgd", 0).get_config(), steps, nesterov=nesterov)
        return in_torch(torch, dtype, steps, nesterov=nesterov)

    return make


LIVE = ("keras", "scratchnet", "torch")


@pytest.mark.tensorflow
@pytest.mark.parametrize("target", LIVE)
@pytest.mark.parametrize("source", LIVE)
@pytest.mark.parametrize("nesterov", [False, True])
def test_the_next_steps_are_the_same(torch, made, source, target, nesterov):
    there, here = made(source, STEPS, nesterov), made(target, 1, nesterov)
    report = port(there, here, proof=False)
    assert report.state[0].startswith("momentum of 6 weights")
    assert [step.weight.split(" of ")[0] for step in report.state_steps] == ["momentum"] * 6
    require_same_steps(torch, there, here)


@pytest.mark.tensorflow
@pytest.mark.parametrize("source", LIVE)
@pytest.mark.parametrize("name", ["a.safetensors", "a.npz", "a.weights.h5", "a.keras"])
def test_through_a_file(torch, made, tmp_path, source, name):
    there, here = made(source, STEPS), made("keras" if source == "torch" else "torch", 0)
    if name == "a.keras":
        made("keras", 0).save(tmp_path / name)  # before its optimizer was built
    report = port(there, tmp_path / name, model=made("keras", 0), proof=False)
    assert report.state[0].startswith("momentum of 6 weights")
    port(tmp_path / name, here, proof=False)
    require_same_steps(torch, there, here)


@pytest.mark.tensorflow
@pytest.mark.parametrize("target", LIVE)
@pytest.mark.parametrize("name", ["a.keras", "a.h5"])
def test_what_keras_saved(torch, made, tmp_path, name, target):
    there, here = made("keras", STEPS), made(target, 0)
    there.save(tmp_path / name)
    port(tmp_path / name, tmp_path / "b.npz", proof=False)
    assert port(tmp_path / "b.npz", here, proof=False).state[0].startswith("momentum of 6 weights")
    require_same_steps(torch, there, here)


@pytest.mark.tensorflow
def test_a_file_that_does_not_say_its_settings(keras, torch, made, tmp_path):
    there, here = made("keras", STEPS), made("keras", 0)
    there.save_weights(tmp_path / "a.weights.h5")
    assert port(tmp_path / "a.weights.h5", here, proof=False).state == (
        "momentum of 6 weights, after 3 steps",
        "the file does not say the settings of its optimizer, so they are taken to be those of the target",
    )
    require_same_steps(torch, there, here)
    other = in_keras(keras, keras.optimizers.SGD(0.5, MOMENTUM), 0)
    said = port(tmp_path / "a.weights.h5", other, proof=False).state[0]
    assert said == "state not ported: optimizer: the learning rate in the file is 0.125, that of the target 0.5"
    adam = in_keras(keras, "adam", 0)
    said = port(tmp_path / "a.weights.h5", adam, proof=False).state[0]
    assert said == "state not ported: Adam: expected 14 variables for 6 trained weights; received 8"
    said = port(tmp_path / "a.weights.h5", tmp_path / "b.npz", model=there, proof=False).state[0]
    assert "received an optimizer that the source does not name" in said


@pytest.mark.tensorflow
@pytest.mark.parametrize("names", [("model_state_dict", "optimizer_state_dict"), ("state_dict", "optimizer")])
def test_a_checkpoint_of_pytorch(keras, torch, made, tmp_path, names):
    there, here = made("torch", STEPS), made("keras", 1)
    state = dict(zip(names, [part.state_dict() for part in there], strict=True))
    torch.save({**state, "epoch": 3, "losses": [0.5, 0.25]}, tmp_path / "a.pt")
    report = port(tmp_path / "a.pt", here, proof=False)
    assert report.state[:2] == (
        "momentum of 6 weights",
        "the checkpoint numbers them; taken in the order of the model's weights",
    )
    assert report.state_steps[0].transforms == ("m = -lr b, lr = 0.125", "(out, in) as (in, out)")
    port(tmp_path / "a.pt", tmp_path / "b.safetensors", naming=":keras", model=here, proof=False)
    again = made("torch", 0)
    port(tmp_path / "b.safetensors", again, proof=False)
    require_same_steps(torch, there, here)
    train_torch(torch, again, range(STEPS, 2 * STEPS))
    for ours, theirs in zip(weights_of(again), weights_of(there), strict=True):
        assert np.max(np.abs(ours - theirs)) <= allowed([theirs])


@pytest.mark.tensorflow
def test_what_is_written_is_what_keras_loads(keras, torch, made, tmp_path):
    there, here, template = made("torch", STEPS), made("keras", 0), made("keras", 1)
    template.save(tmp_path / "a.keras")
    port(there, tmp_path / "a.keras", proof=False)
    require = keras.models.load_model(tmp_path / "a.keras")
    port(there, tmp_path / "a.weights.h5", model=here, proof=False)
    here.optimizer.build(here.trainable_variables)  # Keras passes over the state of one that is not built
    here.load_weights(tmp_path / "a.weights.h5")
    train_torch(torch, there, range(STEPS, 2 * STEPS))
    for model in (here, require):
        train_keras(model, range(STEPS, 2 * STEPS))
        for ours, theirs in zip(weights_of(model), weights_of(there), strict=True):
            assert np.max(np.abs(ours - theirs)) <= allowed(weights_of(there))


# -- the others --------------------------------------------------------------------------------------------------------

OTHERS = {
    "adam": lambda keras: keras.optimizers.Adam(0.01),
    "amsgrad": lambda keras: keras.optimizers.Adam(0.01, amsgrad=True),
    "a schedule": lambda keras: keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)),
    "adamw": lambda keras: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "rmsprop": lambda keras: keras.optimizers.RMSprop(0.01, momentum=0.5),
    "an average": lambda keras: keras.optimizers.SGD(0.1, 0.9, use_ema=True),
    "accumulation": lambda keras: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2),
    "no momentum": lambda keras: keras.optimizers.SGD(0.1),
}


@pytest.mark.tensorflow
@pytest.mark.parametrize("kind", OTHERS)
def test_within_keras_everything_moves(keras, tmp_path, kind):
    there = in_keras(keras, OTHERS[kind](keras))
    for suffix in (".keras", ".h5"):
        there.save(tmp_path / f"a{suffix}")
    there.save_weights(tmp_path / "a.weights.h5")
    in_keras(keras, OTHERS[kind](keras), 0).save(tmp_path / "b.keras")
    port(tmp_path / "a.keras", tmp_path / "b.keras", proof=False)
    port(there, tmp_path / "b.weights.h5", proof=False)
    names = ("a.keras", "a.h5", "a.weights.h5", "b.keras", "b.weights.h5")
    targets = {name: in_keras(keras, OTHERS[kind](keras), 0) for name in names}
    for name, here in targets.items():
        assert port(tmp_path / name, here, proof=False).state_steps or kind == "no momentum", name
    live = in_keras(keras, OTHERS[kind](keras), 1)
    assert port(there, live, dry_run=True).state == port(there, live, proof=False).state
    train_keras(there, range(STEPS, 2 * STEPS))
    for name, model in {**targets, "live": live}.items():
        train_keras(model, range(STEPS, 2 * STEPS))
        for ours, theirs in zip(model.get_weights(), there.get_weights(), strict=True):
            assert np.array_equal(ours, theirs), name
        for ours, theirs in zip(model.optimizer.variables, there.optimizer.variables, strict=True):
            assert np.array_equal(ours, theirs), name


@pytest.mark.tensorflow
def test_adam_within_pytorch(torch, tmp_path):
    there, here, again = (in_torch(torch, optimizer="Adam", steps=n, amsgrad=True) for n in (STEPS, 1, 0))
    torch.save({"model": there[0].state_dict(), "optimizer": there[1].state_dict()}, tmp_path / "a.pt")
    assert port(there, here, proof=False).state == (
        "momentum and velocity and velocity_hat of 6 weights, after 3 steps",
    )
    port(tmp_path / "a.pt", tmp_path / "a.npz", naming=":keras", model=there[0], proof=False)
    port(tmp_path / "a.npz", again, proof=False)
    for pair in (there, here, again):
        train_torch(torch, pair, range(STEPS, 2 * STEPS))
    for found in (here, again):
        assert all(np.array_equal(a, b) for a, b in zip(weights_of(found), weights_of(there), strict=True))


@pytest.mark.tensorflow
def test_frozen_layers_have_no_state(keras, tmp_path):
    there = in_keras(keras, sgd(keras), frozen=True)
    there.save(tmp_path / "a.keras")
    here = in_keras(keras, sgd(keras), 0, frozen=True)
    assert port(tmp_path / "a.keras", here, proof=False).state == ("momentum of 4 weights, after 3 steps",)
    for ours, theirs in zip(here.optimizer.variables, there.optimizer.variables, strict=True):
        assert np.array_equal(ours, theirs)
    unfrozen = in_keras(keras, sgd(keras), 1)
    report = port(there, unfrozen, proof=False)
    assert [step.transforms for step in report.state_steps[:3]] == [("zeros",), ("zeros",), ()]
    assert not np.any(unfrozen.optimizer.momentums[0])


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.tensorflow
def test_adam_between_keras_and_pytorch_is_refused(keras, torch, tmp_path):
    there, pair = in_keras(keras, "adam"), in_torch(torch, optimizer="Adam", steps=1)
    before = [p.detach().clone() for p in pair[0].parameters()]
    for source, target in ((there, pair), (pair, there)):
        with pytest.raises(UsageError, match=r"Keras and PyTorch place epsilon differently .* no state makes the next"):
            port(source, target)
    assert all(torch.equal(old, new) for old, new in zip(before, pair[0].parameters(), strict=True))
    torch.save({"model": pair[0].state_dict(), "optimizer": pair[1].state_dict()}, tmp_path / "a.pt")
    report = port(tmp_path / "a.pt", there, proof=False)
    assert report.written
    assert report.state[0].startswith("state not ported: Adam: Keras and PyTorch place epsilon differently")
    assert report.state[1].endswith("keeps the state of its optimizer, which belongs to its old weights")


DIFFERENT = {
    ("lr", 0.5): "learning_rate 0.125 and 0.5",
    ("momentum", 0.5): "momentum 0.875 and 0.5",
    ("nesterov", True): "nesterov False and True",
    ("dampening", 0.5): "dampening 0 and 0.5; their next steps would differ; Keras has no dampening",
    ("maximize", True): "Keras has no maximize",
    ("weight_decay", 0.5): "PyTorch's SGD adds weight decay to the gradient, Keras takes it off the weight",
}


@pytest.mark.tensorflow
@pytest.mark.parametrize("change", DIFFERENT, ids=lambda change: change[0])
def test_other_settings_are_refused(keras, torch, change):
    with pytest.raises(UsageError, match=DIFFERENT[change]):
        port(in_keras(keras, sgd(keras)), in_torch(torch, **dict([change])))


@pytest.mark.tensorflow
def test_settings_of_keras_that_pytorch_lacks(keras, torch):
    here = in_keras(keras, sgd(keras), 1)
    for change in ({"weight_decay": 0.5}, {"clipnorm": 1.0}, {"clipvalue": 1.0}, {"global_clipnorm": 1.0}):
        there = in_keras(keras, sgd(keras, **change), 1)
        with pytest.raises(UsageError, match=f"{next(iter(change))} .* and None; their next steps would differ"):
            port(there, in_torch(torch))
        report = port(there, here, proof=False)
        assert report.state[0].startswith("state not ported: SGD: the two optimizers have different settings")


@pytest.mark.tensorflow
def test_a_momentum_that_keras_rounds(keras, torch):
    """In float64, Keras computes with float32's 0.9, PyTorch with float64's."""
    with tensorflow.precision("float64"):
        there = in_keras(keras, keras.optimizers.SGD(RATE, 0.9))
        rounded = float(np.float32(0.9))
        message = r"momentum 0\.9 \(0\.8999999761581421 in float32\) and 0\.9; .* give PyTorch that number"
        with pytest.raises(UsageError, match=message):
            port(there, in_torch(torch, "float64", momentum=0.9))
        here = in_torch(torch, "float64", momentum=rounded)
        port(there, here, proof=False)
        require_same_steps(torch, there, here)


@pytest.mark.tensorflow
def test_who_cannot_hold_it_says_so(keras, torch, tmp_path):
    there = in_keras(keras, sgd(keras))
    config = there.get_config()
    arrays = {f"{layer.name}/{v.name}": np.zeros(v.shape, "float32") for layer in there.layers for v in layer.weights}
    for target, more, why in (
        (tmp_path / "a.pt", {}, "written as a state_dict"),
        (tmp_path / "a.safetensors", {"naming": "torch"}, "expects weights and nothing else"),
        (tmp_path / "a.npz", {"naming": "flax"}, "expects weights and nothing else"),
        (arrays, {}, "has no place for it"),
        (in_torch(torch)[0], {}, "has no optimizer: the other end has none; compile the model"),
        (Sequential.from_config(config), {}, "has no optimizer: the other end has none; compile the model"),
    ):
        report = port(there, target, proof=False, **more)
        assert report.written
        assert report.state[0].startswith("state not ported: ")
        assert why in report.state[0]
    rms = in_keras(keras, "rmsprop")
    assert "received RMSprop, whose variables are only known by number" in port(rms, tmp_path / "b.npz").state[0]
    assert port(in_keras(keras, sgd(keras), 0), tmp_path / "c.npz", proof=False).state == (
        "no state to port: the source has made no step",
    )
    with pytest.raises(UsageError, match="the other end has none"):
        port(Sequential.from_config(config), in_torch(torch))


@pytest.mark.tensorflow
def test_a_state_that_stays_behind_is_said(keras, tmp_path):
    trained = in_keras(keras, "adam")
    source = Sequential.from_config(trained.get_config())
    stale = "keeps the state of its optimizer, which belongs to its old weights"
    assert port(source, trained, proof=False).state == (f"Keras model {trained.name!r} {stale}",)
    trained.save(tmp_path / "a.keras")
    assert port(source, tmp_path / "a.keras", proof=False).state == (f"{tmp_path / 'a.keras'} {stale}",)
    assert "optimizer/vars/0" in port(tmp_path / "a.keras", source, proof=False).plan.ignored


@pytest.mark.tensorflow
def test_the_plan_has_a_line_for_each_array(keras, torch):
    there, here = in_keras(keras, sgd(keras)), in_torch(torch)
    report = port(there, here, dry_run=True)
    text, data = report.to_text(), json.loads(report.to_json())
    assert data["optimizer"] == ["momentum of 6 weights"]
    kernel = data["optimizer_steps"][0]
    assert kernel["weight"] == f"momentum of {there.layers[0].name}/kernel"
    assert kernel["sources"] == [{"key": "optimizer/vars/2", "shape": [4, 4], "dtype": "float32"}]
    assert kernel["targets"] == [{"key": "optimizer/momentum_buffer/0.weight", "shape": [4, 4], "dtype": "float32"}]
    assert kernel["transforms"] == ["(in, out) as (out, in)", "b = -m / lr, lr = 0.125"]
    assert "  moved    (in, out) as (out, in); b = -m / lr, lr = 0.125\n" in text
    assert not here[1].state
    wide = in_torch(torch, "float64", 1)
    assert "of 16 values change" in port(wide, there, dry_run=True).state_steps[0].rounded
