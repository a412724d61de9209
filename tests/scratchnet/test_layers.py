"""Layers over the registry: finite differences, Keras in float64, shapes, dtypes."""

import importlib

import numpy as np
import pytest

from scratchnet import activations, gradcheck, initializers, registry, regularizers
from scratchnet.layers import BatchNormalization, Conv2D, Dense, Embedding, Flatten, LayerNormalization, ReLU, core
from scratchnet.registry import UnknownArgument
from scratchnet.sequential import penalized

BATCH = 5


def built(any_layer, rng, dtype="float64"):
    """A layer on its own with no weight at a special value; variances are positive."""
    layer = any_layer(name="probe", dtype=dtype)
    layer.build((None, *layer.example_shape))
    for name, weight in layer.weights.items():
        values = rng.uniform(0.5, 1.5, weight.shape) if "variance" in name else rng.standard_normal(weight.shape)
        layer.weights[name] = values.astype(dtype)
    return layer


def inputs(layer, rng):
    """Random numbers, which meet no kink and no tie; indices where the layer looks them up."""
    shape = (BATCH, *layer.example_shape)
    if isinstance(layer, Embedding):
        return rng.integers(0, layer.input_dim, shape).astype(layer.dtype)
    return rng.standard_normal(shape).astype(layer.dtype)


@pytest.mark.parametrize("training", [False, True])
def test_finite_differences(any_layer, training, rng):
    layer = built(any_layer, rng)
    checks = gradcheck.check_layer(layer, inputs(layer, rng), rng, training)
    assert not [str(check) for check in checks if not check.passed]
    names = {*layer.trainable_weights} | (set() if isinstance(layer, Embedding) else {"input"})
    assert {check.name for check in checks} == names


def test_gradients_by_weights_that_are_regularized(any_regularized_layer, rng, assert_right):
    layer = built(any_regularized_layer, rng)
    regularized = {n: w for n, w in layer.trainable_weights.items() if layer.regularizer_of(n) is not None}
    assert regularized
    for name, weight in regularized.items():
        zero = {other: np.zeros_like(values) for other, values in layer.trainable_weights.items()}
        slope = penalized(layer, zero)[name]
        f = lambda at, name=name: np.asarray(layer.regularizer_of(name).forward(at["w"]))  # noqa: E731
        assert_right(gradcheck.directional(f, lambda dy, slope=slope: {"w": dy * slope}, {"w": weight}, rng))


def pass_of_keras(keras, layer, x, dy, training):
    """Output, gradients and weights after a pass of the twin; names in Keras's order."""
    tf = importlib.import_module("tensorflow")
    theirs = getattr(keras.layers, type(layer).__name__).from_config(layer.get_config())
    theirs.build(x.shape)
    theirs.set_weights(list(layer.weights.values()))
    given = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(given)
        output = theirs(given, **({"training": training} if theirs._call_has_training_arg else {}))
        total = tf.reduce_sum(output * dy) + sum(theirs.losses)
    dx, *gradients = tape.gradient(total, [given, *(variable.value for variable in theirs.trainable_variables)])
    by_name = zip(theirs.trainable_variables, gradients, strict=True)
    return {
        "y": output.numpy(),
        "dx": None if dx is None else dx.numpy(),
        "gradients": {variable.name: tf.convert_to_tensor(gradient).numpy() for variable, gradient in by_name},
        "weights": [variable.numpy() for variable in theirs.weights],
    }


@pytest.mark.parametrize("training", [False, True])
def test_keras(any_layer, training, keras64, answers, rng, assert_equal64):
    layer = built(any_layer, rng)
    x = inputs(layer, rng)
    y, saved = layer.forward(x, training)
    dy = rng.standard_normal(y.shape)
    dx, gradients = layer.backward(saved, dy)
    gradients = penalized(layer, gradients)
    theirs = answers(lambda: pass_of_keras(keras64, layer, x, dy, training))

    assert_equal64(y, theirs["y"], "y")
    if dx is None:
        assert theirs["dx"] is None
    elif theirs["dx"] is None:  # nothing of the input is left, as behind a dropout of everything
        assert not dx.any()
    else:
        assert_equal64(dx, theirs["dx"], "dx")
    assert list(gradients) == list(theirs["gradients"])
    for name, gradient in gradients.items():
        assert_equal64(gradient, theirs["gradients"][name], name)
    updated = {**layer.weights, **{name: new for name, new in saved.updates.items() if name in layer.weights}}
    for (name, weight), variable in zip(updated.items(), theirs["weights"], strict=True):
        assert_equal64(weight, variable, f"{name} after the pass")


def test_keras_has_the_same_weights_and_shapes(any_layer, keras, answers):
    layer = any_layer(name="probe", dtype="float32")
    shape = (None, *layer.example_shape)
    layer.build(shape)

    def of_keras():
        theirs = getattr(keras.layers, type(layer).__name__).from_config(layer.get_config())
        theirs.build(shape)
        weights = [[variable.name, *variable.shape] for variable in theirs.weights]
        trainable = [variable.name for variable in theirs.trainable_weights]
        return {"weights": weights, "trainable": trainable, "output": theirs.compute_output_shape(shape)}

    theirs = answers(of_keras)
    assert [[name, *weight.shape] for name, weight in layer.weights.items()] == theirs["weights"]
    assert list(layer.trainable_weights) == theirs["trainable"]
    assert list(layer.compute_output_shape(shape)) == theirs["output"]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shapes_and_dtypes(any_layer, dtype, training, rng):
    layer = built(any_layer, rng, dtype)
    x = inputs(layer, rng)
    y, saved = layer.forward(x, training)
    assert y.shape == (BATCH, *layer.compute_output_shape((None, *layer.example_shape))[1:])
    dx, gradients = layer.backward(saved, np.ones_like(y))
    weights = {name: new for name, new in saved.updates.items() if name in layer.weights}
    for array in (y, saved.z, *gradients.values(), *weights.values(), *(() if dx is None else (dx,))):
        assert array.dtype == dtype
    assert dx is None or dx.shape == x.shape
    assert {name: gradient.shape for name, gradient in gradients.items()} == {
        name: weight.shape for name, weight in layer.trainable_weights.items()
    }
    assert {name: len(axes) for name, axes in layer.axes.items()} == {
        name: weight.ndim for name, weight in layer.weights.items()
    }


def test_passes_change_nothing(any_layer, rng):
    """What a pass needs later it returns: a second pass gives the same, and the weights stay."""
    layer = built(any_layer, rng)
    x = inputs(layer, rng)
    given, before = x.copy(), {name: weight.copy() for name, weight in layer.weights.items()}
    first, saved = layer.forward(x, True)
    kept, dy = first.copy(), rng.standard_normal(first.shape)
    dx, _ = layer.backward(saved, dy)
    again, saved_again = layer.forward(x, True)
    assert np.array_equal(kept, again)
    assert np.array_equal(x, given)
    assert all(np.array_equal(before[name], weight) for name, weight in layer.weights.items())
    assert dx is None or np.array_equal(dx, layer.backward(saved_again, dy)[0])


def test_frozen_layers_have_no_trainable_weights(any_layer, rng):
    layer = any_layer(name="probe", dtype="float64", trainable=False)
    layer.build((None, *layer.example_shape))
    assert not layer.trainable_weights
    x = inputs(layer, rng)
    y, saved = layer.forward(x)
    _, gradients = layer.backward(saved, np.ones_like(y))
    assert not penalized(layer, gradients)


@pytest.mark.parametrize("name", registry.entries("layer"))
def test_each_weight_has_the_regularizer_that_was_given(name):
    cls = registry.entries("layer")[name]
    arguments = [argument for argument in cls.arguments() if argument.endswith("_regularizer")]
    given = {argument: regularizers.L1(0.5) for argument in arguments}
    layer = cls(**{**cls.examples[0], **given})
    for argument in arguments:
        assert layer.regularizer_of(argument.removesuffix("_regularizer")) is given[argument]
        assert cls(**cls.examples[0]).regularizer_of(argument.removesuffix("_regularizer")) is None
    assert layer.regularizer_of("another") is None


@pytest.mark.parametrize("make", [lambda **k: Dense(3, **k), lambda **k: Conv2D(3, 2, **k)])
def test_the_activation_is_the_one_that_was_given(make):
    assert isinstance(make(activation="relu").activation, activations.Relu)
    assert isinstance(make().activation, activations.Linear)


def test_the_json_of_a_layer():
    """The dtype as a policy of Keras; the shape it was built for, except where Keras builds nothing."""
    policy = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": None}
    dense = Dense(3, name="it")
    assert dense.to_json()["config"]["dtype"] == policy
    assert dense.to_json() == registry.serialize(dense)
    dense.input_shape = (None, 4)
    assert dense.to_json() == {**registry.serialize(dense), "build_config": {"input_shape": [None, 4]}}
    relu = ReLU(name="it", dtype="float64")
    relu.input_shape = (None, 4)
    assert relu.to_json() == registry.serialize(relu)
    assert relu.to_json()["config"]["dtype"] == {**policy, "config": {"name": "float64"}}


@pytest.mark.parametrize("units", [0, -1, 2.0, "3"])
def test_a_dense_layer_of_no_units_is_refused(units):
    with pytest.raises(ValueError, match="Dense: units must be a positive integer; received"):
        Dense(units)
    assert Dense(1).units == 1


def test_a_dense_layer_needs_to_know_how_many_features_come_in():
    with pytest.raises(ValueError, match=r"it: Dense needs the size .* received \(None, None\)"):
        Dense(3, name="it").build((None, None))


def test_the_shape_of_what_is_flattened():
    assert Flatten().compute_output_shape((7, 2, 3)) == (7, 6)
    assert Flatten().compute_output_shape((None, 2, None)) == (None, None)


@pytest.mark.parametrize("name", registry.entries("layer"))
def test_each_weight_starts_from_the_initializer_that_was_given(name):
    cls = registry.entries("layer")[name]
    arguments = [argument for argument in cls.arguments() if argument.endswith("_initializer")]
    given = {argument: initializers.Constant(0.5 + k) for k, argument in enumerate(arguments)}
    layer = cls(**{**cls.examples[0], **given}, name="it")
    layer.build((None, *layer.example_shape))
    weights = {f"{weight.replace('recurrent_kernel', 'recurrent')}_initializer": weight for weight in layer.weights}
    assert {*weights} == {*arguments}
    for argument, initializer in given.items():
        assert np.all(layer.weights[weights[argument]] == initializer.value)


@pytest.mark.parametrize("cls", [BatchNormalization, LayerNormalization])
def test_a_normalization_starts_as_no_more_than_that(cls):
    layer = cls()
    layer.build((None, 3))
    start = {"gamma": 1, "beta": 0, "moving_mean": 0, "moving_variance": 1}
    assert {name: set(weight.tolist()) for name, weight in layer.weights.items()} == {
        name: {start[name]} for name in layer.weights
    }
    assert layer.axes == dict.fromkeys(layer.weights, ("out",))


def test_a_dtype_is_a_name_a_dtype_or_a_policy():
    policy = {"class_name": "DTypePolicy", "config": {"name": "float64"}}
    for given in ("float64", np.float64, np.dtype("float64"), policy):
        assert Dense(3, dtype=given).dtype == "float64"
    assert Dense(3, dtype={"class_name": "DTypePolicy"}).dtype is None
    for refused in ("mixed_bfloat16", np.float16):
        with pytest.raises(UnknownArgument, match=r"dtype '\w+16' is not supported; known: float32, float64$"):
            Dense(3, dtype=refused)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_are_summed_in_float64_and_rounded_once(dtype, rng):
    rows = rng.standard_normal((900, 3)).astype(dtype)
    assert np.array_equal(core.sum_rows(rows), rows.astype(np.float64).sum(axis=0).astype(dtype))
