"""The two sides: the reference is TensorFlow's own and leaves no trace; scratchnet's two ways to run are one."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import parity
from parity import cases, probe, trace
from parity.compare import GATE, compare_whole
from parity.errors import UsageError
from parity.runners import scratch
from parity.runners import tensorflow as tensorflow_settings
from parity.spec import DTYPES, Spec
from parity.trace import Trace, flow
from scratchnet import layers, registry

FEATURES, HIDDEN, CLASSES, BATCH = 7, 6, 4, 9


@pytest.fixture(autouse=True)
def same_settings() -> Iterator[None]:
    """Whatever a test does, Keras and TensorFlow are as they were."""
    import sys

    before = settings() if "keras" in sys.modules else None
    yield
    if before is not None:
        assert settings() == before


def settings() -> tuple[Any, ...]:
    import keras
    import tensorflow as tf

    return (
        keras.config.floatx(),
        keras.config.dtype_policy().name,
        keras.config.epsilon(),
        tf.config.experimental.tensor_float_32_execution_enabled(),
        tf.executing_eagerly(),
        tf.config.functions_run_eagerly(),
    )


def network(loss: str, head: str, dtype: str = "float32") -> tuple[Spec, trace.Weights, np.ndarray, np.ndarray]:
    """A spec with its designed inputs."""
    stack = [layers.Dense(HIDDEN, "tanh", name="first"), layers.Dense(CLASSES, head, name="last")]
    spec = cases._spec("net", stack, (FEATURES,), loss, 0).with_dtype(dtype)
    return (spec, *inputs(spec))


def inputs(spec: Spec, batch: int = BATCH) -> tuple[trace.Weights, np.ndarray, np.ndarray]:
    described = scratch.Network.of(spec)
    weights = {name: w.astype(spec.dtype) for name, w in probe.weights(described.weights, 5).items()}
    limit = 2 if "Embedding" in str(spec.config) else None
    x = probe.samples(described.input_shape, batch, 5)
    x = x if limit is None else np.random.default_rng(5).integers(0, limit, x.shape)
    return weights, x.astype(spec.dtype), probe.labels(described.output_shape, batch, 5, described.labels)


# -- the reference -----------------------------------------------------------------------------------------------------

LOSSES: dict[str, tuple[str, Callable[[ModuleType], Any]]] = {
    "mean_squared_error": ("sigmoid", lambda keras: keras.losses.MeanSquaredError()),
    "binary_crossentropy": ("sigmoid", lambda keras: keras.losses.BinaryCrossentropy()),
    "categorical_crossentropy": ("softmax", lambda keras: keras.losses.CategoricalCrossentropy()),
    "sparse_categorical_crossentropy": ("softmax", lambda keras: keras.losses.SparseCategoricalCrossentropy()),
}


@pytest.mark.tensorflow
@pytest.mark.parametrize("mode", ["eager", "function"])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_reference_is_a_plain_gradient_tape(keras: ModuleType, loss: str, mode: str) -> None:
    """Against a model written by itself: `model(x)` under a tape, with Keras's loss object."""
    import tensorflow as tf

    from parity.runners import keras as runner

    head, make_loss = LOSSES[loss]
    spec, weights, x, y = network(loss, head, "float32" if mode == "eager" else "float64")
    ran = runner.run(spec, weights, x, y, mode)

    with tensorflow_settings.precision(spec.dtype):
        model = keras.Sequential([
            keras.Input((FEATURES,)),
            keras.layers.Dense(HIDDEN, "tanh"),
            keras.layers.Dense(CLASSES, head),
        ])  # fmt: skip
        objective = make_loss(keras)
        model.set_weights(list(weights.values()))
    given = tf.constant(x)

    def step() -> tuple[Any, Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch(given)
            predicted = model(given, training=True)
            value = objective(y, predicted)
        variables = [variable.value for variable in model.trainable_variables]
        return predicted, value, tape.gradient(value, [given, *variables])

    predicted, value, gradients = tf.function(step)() if mode == "function" else step()
    plain = {"last/output": predicted, "loss": value, "input.gradient": gradients[0]}
    plain |= {f"{name}.gradient": g for name, g in zip(weights, gradients[1:], strict=True)}
    for name, tensor in plain.items():
        # Eager: the same kernels in the same order, so the same bits. The two graphs are optimised each in its own way.
        allowed = 0 if mode == "eager" else GATE * np.max(np.abs(tensor))
        np.testing.assert_allclose(ran[name], tensor.numpy(), rtol=0, atol=allowed, err_msg=name)


@pytest.mark.tensorflow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["eager", "function", "xla"])
def test_the_reference_has_every_tensor_in_its_dtype(dtype: str, mode: str) -> None:
    from parity.runners import keras as runner

    spec, weights, x, y = network("mean_squared_error", "sigmoid", dtype)
    ran = runner.run(spec, weights, x, y, mode)
    for place in flow(scratch.Network.of(spec).layers, spec.loss_name):
        assert ran[place.tensor].dtype == dtype, place.tensor
    assert ran.conditions["mode"] == mode
    assert ran.conditions["dtype"] == dtype


@pytest.mark.tensorflow
def test_pre_activations_are_products_plus_bias() -> None:
    from parity.runners import keras as runner

    spec, weights, x, y = network("categorical_crossentropy", "softmax", "float64")
    ran = runner.run(spec, weights, x, y)
    below = x
    for name, activate in (("first", np.tanh), ("last", None)):
        z = below @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]
        np.testing.assert_allclose(ran[trace.pre_activation(name)], z, rtol=1e-13, atol=1e-14)
        below = activate(z) if activate else z
    assert "last/output.gradient" not in ran  # the loss goes by the cached logits
    assert "last/pre_activation.gradient" in ran


@pytest.mark.tensorflow
@pytest.mark.parametrize("dtype", DTYPES)
def test_settings_are_as_before_after_a_failure(dtype: str) -> None:
    from parity.runners import keras as runner

    spec, weights, x, y = network("mean_squared_error", "sigmoid", dtype)
    before = settings()
    with pytest.raises(KeyError, match="first/kernel"):
        runner.run(spec, {}, x, y)
    with pytest.raises(UsageError, match="Keras cannot build"):
        runner.run(Spec("odd", {"layers": [{"class_name": "Nonsense", "config": {}}]}, "mse", dtype), weights, x, y)
    assert settings() == before


@pytest.mark.tensorflow
def test_the_precision_is_set_inside_and_restored_whatever_it_was(keras: ModuleType) -> None:
    import tensorflow as tf

    before = settings()
    try:
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("mixed_float16")
        tf.config.experimental.enable_tensor_float_32_execution(True)
        changed = settings()
        with tensorflow_settings.precision("float32"):
            assert settings()[:2] == ("float32", "float32")
            assert not tf.config.experimental.tensor_float_32_execution_enabled()
        assert settings() == changed
        with pytest.raises(ZeroDivisionError), tensorflow_settings.precision("float64"):
            _ = 1 / 0
        assert settings() == changed
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])
        tf.config.experimental.enable_tensor_float_32_execution(before[3])


@pytest.mark.tensorflow
def test_the_users_model_is_left_alone(keras: ModuleType) -> None:
    model = keras.Sequential([
        keras.Input((FEATURES,)),
        keras.layers.BatchNormalization(),
        keras.layers.Dense(CLASSES, "sigmoid"),
    ])  # fmt: skip
    model.compile("adam", "mse")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((BATCH, FEATURES)), rng.standard_normal((BATCH, CLASSES))
    weights, config, optimizer = model.get_weights(), model.get_config(), model.optimizer
    activation, steps = model.layers[-1].activation, int(optimizer.iterations)
    assert parity.check(model, x=x, y=y, modes=("eager", "function")).passed
    for now, then in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(now, then)
    assert (model.get_config(), model.optimizer, int(optimizer.iterations)) == (config, optimizer, steps)
    assert model.layers[-1].activation is activation
    assert np.isfinite(model.fit(x, y, verbose=0).history["loss"]).all()  # and it still trains


# -- scratchnet --------------------------------------------------------------------------------------------------------

FAMILIES = ("activation", "loss", "layer")
CASES = ["tanh-16", *(f"{family}-{name}" for family in FAMILIES for name in registry.entries(family))]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_a_replay_on_the_own_trace_gives_the_same_trace(name: str, dtype: str) -> None:
    """Bit for bit, and nothing is missing on either side: both walk the same operations."""
    for spec in cases.find(name):
        spec = spec.with_dtype(dtype)
        weights, x, y = inputs(spec)
        ran = scratch.run(spec, weights, x, y)
        again = dict(scratch.replay(spec, weights, ran, y))
        assert again.keys() | {trace.INPUT} == ran.tensors.keys() | {trace.INPUT}
        for tensor, value in again.items():
            assert value.dtype == dtype, tensor
            np.testing.assert_array_equal(value, ran[tensor], err_msg=f"{spec.name} {tensor}")


@pytest.mark.parametrize("name", CASES)
def test_a_run_has_what_flow_announces_and_in_that_order(name: str) -> None:
    for spec in cases.find(name):
        ran = scratch.run(spec, *inputs(spec))
        described = scratch.Network.of(spec).layers
        announced = [place.tensor for place in flow(described, spec.loss_name, spec.optimizer_name)]
        present = [tensor for tensor in ran.tensors if tensor != trace.INPUT]
        assert set(present) <= set(announced)
        assert present == [tensor for tensor in announced if tensor in ran]
        missing = set(announced) - set(present)
        assert all(tensor.endswith(".gradient") for tensor in missing)
        assert len(missing) <= 2


def test_a_replay_keeps_an_error_where_it_is_made() -> None:
    """The reference is off in one tensor: only that tensor and those computed from it alone differ by one operation."""
    spec, weights, x, y = network("mean_squared_error", "sigmoid", "float64")
    ran = scratch.run(spec, weights, x, y)
    off = Trace({**ran.tensors, "first/output": ran["first/output"] + 0.1})
    again = scratch.replay(spec, weights, off, y)
    places = list(flow(scratch.Network.of(spec).layers, "mse"))
    wrong = [row.tensor for row in compare_whole(Trace(again), off, places) if not row.passed]
    assert wrong == [
        "first/output",  # is what it was
        "last/pre_activation",  # these two take it as their input
        "last/kernel.gradient",
        "first/pre_activation.gradient",  # tanh' is computed from the output
    ]


def test_a_run_changes_neither_weights_nor_inputs() -> None:
    spec, weights, x, y = network("binary_crossentropy", "sigmoid")
    before = [array.copy() for array in (*weights.values(), x, y)]
    ran = scratch.run(spec, weights, x, y)
    scratch.replay(spec, weights, ran, y)
    for now, then in zip((*weights.values(), x, y), before, strict=True):
        np.testing.assert_array_equal(now, then)


# -- moving averages ---------------------------------------------------------------------------------------------------

MOVING = ("moving_mean", "moving_variance")


def normalized(dtype: str, **arguments: Any) -> Spec:
    stack = [layers.BatchNormalization(momentum=0.75, name="bn", **arguments), layers.Dropout(0.5, seed=3)]
    return cases._spec("net", [*stack, layers.Dense(2)], (FEATURES,), "mse", 0).with_dtype(dtype)


@pytest.mark.tensorflow
@pytest.mark.parametrize("mode", ["eager", "function", "xla"])
def test_the_reference_moves_its_averages_once_from_the_given_weights(mode: str) -> None:
    from parity.runners import keras as runner

    spec = normalized("float64")
    weights, x, y = inputs(spec)
    ran = runner.run(spec, weights, x, y, mode)
    for name, batch in zip(MOVING, (x.mean(axis=0), x.var(axis=0)), strict=True):
        expected = 0.75 * weights[f"bn/{name}"] + 0.25 * batch
        np.testing.assert_allclose(ran[f"bn/{name}.updated"], expected, rtol=1e-14, err_msg=name)  # a sum of nine terms
    moved = {tensor for tensor in ran.tensors if "moving" in tensor or "seed" in tensor}
    assert moved == {f"bn/{name}.updated" for name in MOVING}  # the state of the Dropout is no weight


@pytest.mark.tensorflow
@pytest.mark.parametrize("arguments", [{}, {"trainable": False}], ids=["inference", "frozen"])
def test_averages_that_do_not_move_are_on_neither_side(arguments: dict[str, Any]) -> None:
    from parity.runners import keras as runner

    spec = replace(normalized("float32", **arguments), training=bool(arguments))
    weights, x, y = inputs(spec)
    for ran in (runner.run(spec, weights, x, y), scratch.run(spec, weights, x, y)):
        assert not [tensor for tensor in ran.tensors if "moving" in tensor]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", registry.entries("layer"))
def test_moving_weights_are_those_that_a_pass_updates(name: str, training: bool) -> None:
    for spec in cases.find(f"layer-{name}"):
        chain = scratch.build(spec)
        _, x, _ = inputs(spec)
        for layer, saved in zip(chain.layers, chain.forward(x, training).saved, strict=True):
            assert layer.moving_weights(training) == tuple(n for n in saved.updates if n in layer.weights)
