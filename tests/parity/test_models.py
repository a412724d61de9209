"""Whatever a user calls a model: names, files that Keras wrote, live models; and what is said of everything else."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import parity
import scratchnet
from parity import cases, models
from parity.errors import FileError, UsageError
from parity.runners import scratch
from parity.spec import Spec
from scratchnet import activations, layers

X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 2, (6, 3)).astype(np.float32)
SMALL = {"dtype": "float64", "modes": ("eager",)}


@pytest.fixture
def model(keras: ModuleType) -> Any:
    """A compiled network whose layer names are not Keras's own, with biases that are not zero."""
    bias = keras.initializers.RandomUniform(-0.3, 0.3, seed=1)
    layers = [
        keras.Input((4,)),
        keras.layers.Dense(5, "tanh", name="hidden", bias_initializer=bias),
        keras.layers.Dense(3, "sigmoid", name="dense"),
    ]
    return compiled(keras.Sequential(layers, name="mine"))


def compiled(model: Any, loss: Any = "binary_crossentropy") -> Any:
    model.compile(optimizer="sgd", loss=loss)
    return model


def resolved(model: Any, loss: Any = None) -> models.Resolved:
    [subject] = models.resolve(model, loss, seed=3)
    return subject


# -- names -------------------------------------------------------------------------------------------------------------


def test_no_model_is_both_networks_with_all_their_losses() -> None:
    subjects = models.resolve(None, None, seed=3)
    assert [(s.spec.name, s.spec.loss) for s in subjects] == [
        (name, loss) for name in cases.REFERENCE for loss in cases.NETWORKS[name].losses
    ]
    assert all(s.weights is None and s.spec.seed == 3 for s in subjects)


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_a_network_by_name(name: str) -> None:
    assert [s.spec.loss for s in models.resolve(name, None, 0)] == list(cases.NETWORKS[name][1])
    [one] = models.resolve(name, "mse", 0)  # a loss replaces those that the network comes with
    assert (one.spec.name, one.spec.loss) == (name, "mse")


def test_a_spec_is_taken_as_it_is() -> None:
    spec = cases.find("tanh-16")[0]
    assert resolved(spec).spec == spec


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"no network is called 'tanh-17'.*tanh-16"):
        models.resolve("tanh-17", None, 0)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("TANH-16", "tanh-16"), ("Sigmoid-500", "sigmoid-500"), ("LENET", "lenet-5"), ("layer-conv2d", "layer-Conv2D")],
)
def test_a_name_in_other_letters_is_found(name: str, meant: str) -> None:
    with pytest.raises(UsageError, match=rf"did you mean {meant}\?$"):
        models.resolve(name, None, 0)


@pytest.mark.parametrize("thing", [42, object(), ["tanh-16"], b"tanh-16"])
def test_what_is_no_model_is_refused(thing: Any) -> None:
    with pytest.raises(UsageError, match=rf"expected a Keras Sequential.*received {type(thing).__name__}"):
        models.resolve(thing, None, 0)


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.tensorflow
def test_a_keras_file_brings_its_weights_and_its_loss(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "mine.keras"
    model.save(path)
    for one in (path, str(path)):
        subject = resolved(one)
        assert subject.spec.loss_name == "binary_crossentropy"
        assert list(subject.weights) == ["hidden/kernel", "hidden/bias", "dense/kernel", "dense/bias"]
        for array, theirs in zip(subject.weights.values(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(array, theirs)
    assert resolved(path, "mse").spec.loss == "mse"
    assert resolved(path, "mse").weights is not None


@pytest.mark.tensorflow
def test_a_json_file_has_no_weights_and_no_loss(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(model.to_json())
    subject = resolved(path, "mse")
    assert subject.weights is None
    assert parity.check(path, loss="mse", **SMALL).passed


@pytest.mark.tensorflow
def test_a_file_without_a_loss_says_how_to_give_one(keras: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "bare.keras"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save(path)
    with pytest.raises(UsageError, match="--loss"):
        parity.check(path, **SMALL)
    assert parity.check(path, loss="mse", **SMALL).passed


@pytest.mark.tensorflow
def test_the_weights_of_the_file_are_the_ones_that_run(model: Any, tmp_path: Path) -> None:
    """One weight is changed: it still passes, and the report's values are those of the changed network."""
    path = tmp_path / "mine.keras"
    losses = []
    for change in (0.0, 5.0):
        kernel, *rest = model.get_weights()
        kernel[1, 2] += change
        model.set_weights([kernel, *rest])
        model.save(path)
        report = parity.check(path, x=X, y=Y, **SMALL)
        assert report.passed
        [loss] = [row for row in report.rows if row.tensor == "loss"]
        assert loss.reference == pytest.approx(model.evaluate(X, Y, verbose=0), rel=1e-5)  # evaluate is in float32
        losses.append(loss.reference)
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


@pytest.mark.tensorflow
def test_a_saved_loss_object_runs_with_its_arguments(keras: ModuleType, model: Any, tmp_path: Path) -> None:
    loss = keras.losses.BinaryCrossentropy(label_smoothing=0.3)
    compiled(model, loss).save(tmp_path / "mine.keras")
    for one in (model, tmp_path / "mine.keras"):
        report = parity.check(one, x=X, y=Y, **SMALL)
        assert report.passed
        [row] = [row for row in report.rows if row.tensor == "loss"]
        assert row.reference == pytest.approx(model.evaluate(X, Y, verbose=0), rel=1e-5)


def test_a_file_that_is_missing_or_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"nowhere\.keras"):
        models.resolve(tmp_path / "nowhere.keras", None, 0)
    other = tmp_path / "model.h5"
    other.write_bytes(b"")
    with pytest.raises(FileError, match=r"expected a \.keras or \.json file; received .*\.h5"):
        models.resolve(other, None, 0)
    with pytest.raises(UsageError, match="no network is called"):
        models.resolve(tmp_path / "nowhere.h5", None, 0)


# -- live models -------------------------------------------------------------------------------------------------------


@pytest.mark.tensorflow
def test_a_live_model_brings_copies_of_its_weights(model: Any) -> None:
    subject = resolved(model)
    assert (subject.spec.name, subject.spec.loss, subject.spec.seed) == ("mine", "binary_crossentropy", 3)
    before = model.get_weights()
    for array in subject.weights.values():
        array += 1
    for array, theirs in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(array, theirs)
    report = parity.check(model, x=X, y=Y, dtype="both", modes=("eager",))
    assert report.passed
    assert [check.dtype for check in report.checks] == ["float32", "float64"]
    np.testing.assert_allclose(
        [row.reference for row in report.rows if row.tensor == "loss"], model.evaluate(X, Y, verbose=0), rtol=1e-5
    )


@pytest.mark.tensorflow
def test_a_live_model_in_float64(keras: ModuleType) -> None:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        model = compiled(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="dense")]), "mse")
    finally:
        keras.config.set_dtype_policy(policy)
    assert resolved(model).weights["dense/kernel"].dtype == np.float64
    report = parity.check(model, x=X, y=Y, modes=("eager",))
    assert report.passed
    assert [check.dtype for check in report.checks] == ["float32", "float64"]


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["mse", "mean_squared_error", "MSE", "mae", "huber", "bce"])
def test_a_live_model_with_any_of_the_names_of_a_loss(model: Any, name: str) -> None:
    assert parity.check(compiled(model, name), x=X, y=Y, **SMALL).passed
    assert parity.check(model, x=X, y=Y, loss=name, **SMALL).passed


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["MeanSquaredError", "BinaryCrossentropy", "Huber"])
def test_a_live_model_with_a_loss_object(keras: ModuleType, model: Any, name: str) -> None:
    assert parity.check(compiled(model, getattr(keras.losses, name)()), x=X, y=Y, **SMALL).passed


@pytest.mark.tensorflow
def test_the_delta_of_huber_is_not_lost_though_its_config_has_none(keras: ModuleType, model: Any) -> None:
    compiled(model, keras.losses.Huber(delta=0.3))
    assert "delta" not in model.get_compile_config()["loss"]["config"]
    report = parity.check(model, x=X, y=Y, **SMALL)
    assert report.passed
    [row] = [row for row in report.rows if row.tensor == "loss"]
    assert row.reference == pytest.approx(model.evaluate(X, Y, verbose=0), rel=1e-5)


@pytest.mark.tensorflow
def test_a_live_model_with_a_loss_function(keras: ModuleType, model: Any) -> None:
    assert parity.check(compiled(model, keras.losses.mean_squared_error), x=X, y=Y, **SMALL).passed


@pytest.mark.tensorflow
def test_an_uncompiled_model_says_how_to_give_a_loss(keras: ModuleType) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="bare")
    with pytest.raises(UsageError, match=r"bare: the model has no loss.*--loss"):
        parity.check(model, x=X, y=Y, **SMALL)
    assert parity.check(model, x=X, y=Y, loss="mse", **SMALL).passed


@pytest.mark.tensorflow
def test_a_model_without_weights_says_what_to_add(keras: ModuleType) -> None:
    with pytest.raises(UsageError, match=r"unbuilt: the model has no weights yet.*keras\.Input"):
        parity.check(compiled(keras.Sequential([keras.layers.Dense(3)], name="unbuilt"), "mse"), x=X, y=Y)


@pytest.mark.tensorflow
def test_a_functional_model_is_refused(keras: ModuleType) -> None:
    given = keras.Input((4,))
    model = compiled(keras.Model(given, keras.layers.Dense(3)(given), name="graph"), "mse")
    with pytest.raises(UsageError, match="expected a Sequential; received Functional 'graph'"):
        parity.check(model, x=X, y=Y)


@pytest.mark.tensorflow
def test_a_layer_that_scratchnet_lacks_is_named(keras: ModuleType) -> None:
    model = compiled(keras.Sequential([keras.Input((4,)), keras.layers.UnitNormalization()], name="odd"), "mse")
    with pytest.raises(UsageError, match=r"odd: .*unknown layer 'UnitNormalization'; known: .*Dense"):
        parity.check(model, x=X, y=Y)


@pytest.mark.tensorflow
def test_an_argument_that_scratchnet_lacks_is_named(keras: ModuleType) -> None:
    dense = keras.layers.Dense(3, kernel_constraint="non_neg")
    model = compiled(keras.Sequential([keras.Input((4,)), dense], name="odd"), "mse")
    with pytest.raises(UsageError, match=r"odd: .*Dense\(kernel_constraint=.*is not supported"):
        parity.check(model, x=X, y=Y)


@pytest.mark.tensorflow
@pytest.mark.parametrize("loss", ["mean_sqared_error", "poisson", {"class_name": "Poisson", "config": {}}, 3])
def test_a_loss_that_nobody_knows(model: Any, loss: Any) -> None:
    with pytest.raises(UsageError, match="loss"):
        parity.check(model, x=X, y=Y, loss=loss, **SMALL)


@pytest.mark.tensorflow
def test_an_empty_model_is_refused(keras: ModuleType) -> None:
    model = compiled(keras.Sequential([keras.Input((4,))], name="empty"), "mse")
    with pytest.raises(UsageError, match="empty"):
        parity.check(model, x=X, y=Y)


def test_a_config_without_the_input_shape_says_what_to_add() -> None:
    config = json.loads(json.dumps(cases.find("tanh-16")[0].config))
    config["layers"].pop(0)
    config.pop("build_input_shape")
    with pytest.raises(UsageError, match=r"keras\.Input\(shape\)"):
        scratch.build(Spec("shapeless", config, "mse"))


@pytest.mark.tensorflow
def test_a_layer_class_of_the_users_is_refused(keras: ModuleType) -> None:
    class Dense(keras.layers.Dense):
        def call(self, x: Any) -> Any:
            return 2 * super().call(x)

    model = compiled(keras.Sequential([keras.Input((4,)), Dense(3, name="twice")], name="odd"), "mse")
    with pytest.raises(UsageError, match=r"odd: the layer twice is .*Dense, not one of Keras's"):
        parity.check(model)


# -- a loss that is no name --------------------------------------------------------------------------------------------


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "settings"),
    [("MeanSquaredError", {}), ("Huber", {"delta": 0.3}), ("BinaryCrossentropy", {"label_smoothing": 0.2})],
)
def test_a_loss_object_brings_its_arguments(keras: ModuleType, model: Any, name: str, settings: dict[str, Any]) -> None:
    loss = getattr(keras.losses, name)(**settings)
    report = parity.check(model, x=X, y=Y, loss=loss, **SMALL)
    assert report.passed
    [row] = [row for row in report.rows if row.tensor == "loss"]
    model.compile(loss=loss)
    assert row.reference == pytest.approx(model.evaluate(X, Y, verbose=0), rel=1e-5)


@pytest.mark.tensorflow
def test_a_loss_function_of_keras(keras: ModuleType, model: Any) -> None:
    report = parity.check(model, x=X, y=Y, loss=keras.losses.mean_absolute_error, **SMALL)
    assert report.passed
    assert report.checks[0].loss == "mean_absolute_error"


def mine(y_true: Any, y_pred: Any) -> Any:
    return abs(y_true - y_pred) ** 4


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("loss", "received"),
    [
        (lambda losses: mine, r"received .*mine"),
        (lambda losses: type("Mine", (losses.MeanSquaredError,), {})(), r"received .*Mine"),
        (lambda losses: losses.deserialize, None),
        (lambda losses: losses.MeanSquaredError, r"received .*MeanSquaredError"),
        (lambda losses: 3, "received int 3"),
    ],
)
def test_a_loss_of_the_users_is_refused(keras: ModuleType, model: Any, loss: Any, received: str | None) -> None:
    with pytest.raises(UsageError, match=r"loss: " if received is None else rf"one of Keras's own.*{received}"):
        parity.check(model, x=X, y=Y, loss=loss(keras.losses), **SMALL)


@pytest.mark.tensorflow
def test_an_object_of_keras_around_a_function_of_the_users_is_refused(keras: ModuleType, model: Any) -> None:
    loss = type(keras.losses.MeanSquaredError()).__bases__[0](mine)
    with pytest.raises(UsageError, match=r"one of Keras's own.*received .*mine"):
        parity.check(model, x=X, y=Y, loss=loss, **SMALL)
    with pytest.raises(UsageError, match=r"the function of the loss is .*mine, not one of Keras's"):
        parity.check(compiled(model, loss), x=X, y=Y, **SMALL)


# -- a network by hand -------------------------------------------------------------------------------------------------


def by_hand(first: Any = None) -> scratchnet.Sequential:
    net = scratchnet.Sequential([first or layers.Dense(5, "tanh", name="hidden"), layers.Dense(3)], name="by_hand")
    net.build((None, 4))
    return net


@pytest.mark.tensorflow
def test_a_network_by_hand_brings_its_weights_its_loss_and_its_optimizer(keras: ModuleType) -> None:
    net = by_hand()
    net.compile(scratchnet.optimizers.SGD(0.3, nesterov=True, momentum=0.5), scratchnet.losses.Huber(delta=0.4))
    net.fit(X, Y, epochs=3, verbose=0)
    subject = resolved(net)
    assert (subject.spec.name, subject.spec.loss_name, subject.spec.optimizer_name) == ("by_hand", "huber_loss", "sgd")
    report = parity.check(net, x=X, y=Y, dtype="float32", modes=("eager",))
    assert report.passed
    rows = {row.tensor: row for row in report.rows}
    assert rows["loss"].reference == pytest.approx(net.evaluate(X, Y), rel=1e-5)
    before = [weight.copy() for weight in net.get_weights()]
    net.compile(net.optimizer, net.loss)  # fresh state, as in the check
    net.fit(X, Y, batch_size=len(X), epochs=1, shuffle=False, verbose=0)
    updated = rows["hidden/kernel.updated"]
    assert updated.reference == pytest.approx(net.get_weights()[0][updated.index], rel=1e-5)
    for array, theirs in zip(subject.weights.values(), before, strict=True):
        np.testing.assert_array_equal(array, theirs)  # a copy, which the training above does not reach


@pytest.mark.tensorflow
def test_a_network_by_hand_in_float64_that_was_not_compiled(keras: ModuleType) -> None:
    net = scratchnet.Sequential([layers.Dense(3)], dtype="float64")
    net.build((None, 4))
    assert parity.check(net, x=X, y=Y, loss="mse", modes=("eager",)).passed
    with pytest.raises(UsageError, match="the model has no loss"):
        parity.check(net, x=X, y=Y)


class Twice(layers.Dense):
    """A layer of the user's under Dense's name, which its config would bring back as Dense."""


class Cubic(activations.Tanh):
    pass


def test_a_network_by_hand_that_its_config_does_not_tell() -> None:
    for layer, said in ((Twice(5, name="h"), "layer h is .*Twice"), (layers.Dense(5, Cubic(), name="h"), ".*Cubic")):
        with pytest.raises(UsageError, match=rf"by_hand: the {said}, not one of scratchnet's"):
            models.resolve(by_hand(layer), "mse", 0)
    with pytest.raises(UsageError, match=r"no weights yet; call build"):
        models.resolve(scratchnet.Sequential([layers.Dense(3)]), "mse", 0)


# -- arguments of check ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "float16"}, "dtype: expected float32, float64 or both; received 'float16'"),
        ({"batch": 0}, "batch: expected a whole number of at least 1; received 0"),
        ({"x": X}, "x and y go together"),
        ({"y": Y}, "x and y go together"),
        ({"batch": 10**6}, "batch: 1000000 samples asked for"),
    ],
)
def test_a_wrong_argument_of_check(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parity.check("tanh-16", **arguments)


@pytest.mark.tensorflow
def test_a_config_that_says_no_dtype(model: Any, tmp_path: Path) -> None:
    """As one that was written by hand: each precision is compared all the same."""

    def without(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: without(value) for key, value in node.items() if key != "dtype"}
        return [without(value) for value in node] if isinstance(node, list) else node

    (tmp_path / "net.json").write_text(json.dumps(without(json.loads(model.to_json()))))
    report = parity.check(tmp_path / "net.json", loss="binary_crossentropy", modes=("eager",))
    assert report.passed
    assert {check.dtype for check in report.checks} == {"float32", "float64"}
