"""Whatever a user calls a model: names, files that Keras wrote, live models; and what is said of everything else."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import parity
from parity import cases, models
from parity.errors import FileError, UsageError
from parity.runners import scratch
from parity.spec import Spec

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


def resolved(model: Any, loss: Any = None) -> models.Subject:
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
        report = parity.check(path, X, Y, **SMALL)
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
        report = parity.check(one, X, Y, **SMALL)
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
    report = parity.check(model, X, Y, dtype="both", modes=("eager",))
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
    report = parity.check(model, X, Y, modes=("eager",))
    assert report.passed
    assert [check.dtype for check in report.checks] == ["float32", "float64"]


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["mse", "mean_squared_error", "MSE", "mae", "huber", "bce"])
def test_a_live_model_with_any_of_the_names_of_a_loss(model: Any, name: str) -> None:
    assert parity.check(compiled(model, name), X, Y, **SMALL).passed
    assert parity.check(model, X, Y, loss=name, **SMALL).passed


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["MeanSquaredError", "BinaryCrossentropy", "Huber"])
def test_a_live_model_with_a_loss_object(keras: ModuleType, model: Any, name: str) -> None:
    assert parity.check(compiled(model, getattr(keras.losses, name)()), X, Y, **SMALL).passed


@pytest.mark.tensorflow
def test_a_live_model_with_a_loss_function(keras: ModuleType, model: Any) -> None:
    assert parity.check(compiled(model, keras.losses.mean_squared_error), X, Y, **SMALL).passed


@pytest.mark.tensorflow
def test_an_uncompiled_model_says_how_to_give_a_loss(keras: ModuleType) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="bare")
    with pytest.raises(UsageError, match=r"bare: the model has no loss.*--loss"):
        parity.check(model, X, Y, **SMALL)
    assert parity.check(model, X, Y, loss="mse", **SMALL).passed


@pytest.mark.tensorflow
def test_a_model_without_weights_says_what_to_add(keras: ModuleType) -> None:
    with pytest.raises(UsageError, match=r"unbuilt: the model has no weights yet.*keras\.Input"):
        parity.check(compiled(keras.Sequential([keras.layers.Dense(3)], name="unbuilt"), "mse"), X, Y)


@pytest.mark.tensorflow
def test_a_functional_model_is_refused(keras: ModuleType) -> None:
    given = keras.Input((4,))
    model = compiled(keras.Model(given, keras.layers.Dense(3)(given), name="graph"), "mse")
    with pytest.raises(UsageError, match="expected a Sequential; received Functional 'graph'"):
        parity.check(model, X, Y)


@pytest.mark.tensorflow
def test_a_layer_that_scratchnet_lacks_is_named(keras: ModuleType) -> None:
    model = compiled(keras.Sequential([keras.Input((4,)), keras.layers.UnitNormalization()], name="odd"), "mse")
    with pytest.raises(UsageError, match=r"odd: .*unknown layer 'UnitNormalization'; known: .*Dense"):
        parity.check(model, X, Y)


@pytest.mark.tensorflow
def test_an_argument_that_scratchnet_lacks_is_named(keras: ModuleType) -> None:
    dense = keras.layers.Dense(3, kernel_constraint="non_neg")
    model = compiled(keras.Sequential([keras.Input((4,)), dense], name="odd"), "mse")
    with pytest.raises(UsageError, match=r"odd: .*Dense\(kernel_constraint=.*is not supported"):
        parity.check(model, X, Y)


@pytest.mark.tensorflow
@pytest.mark.parametrize("loss", ["mean_sqared_error", "poisson", {"class_name": "Poisson", "config": {}}, 3])
def test_a_loss_that_nobody_knows(model: Any, loss: Any) -> None:
    with pytest.raises(UsageError, match="loss"):
        parity.check(model, X, Y, loss=loss, **SMALL)


@pytest.mark.tensorflow
def test_an_empty_model_is_refused(keras: ModuleType) -> None:
    model = compiled(keras.Sequential([keras.Input((4,))], name="empty"), "mse")
    with pytest.raises(UsageError, match="empty"):
        parity.check(model, X, Y)


def test_a_config_without_the_input_shape_says_what_to_add() -> None:
    config = json.loads(json.dumps(cases.find("tanh-16")[0].config))
    config["layers"].pop(0)
    config.pop("build_input_shape")
    with pytest.raises(UsageError, match=r"keras\.Input\(shape\)"):
        scratch.build(Spec("shapeless", config, "mse"))


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
