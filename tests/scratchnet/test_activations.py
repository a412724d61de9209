"""Activations over the registry: finite differences, Keras in float64, kinks and saturation."""

import numpy as np
import pytest

from scratchnet import activations, gradcheck

# 0 and +-1 are kinks of one activation or another; beyond 40 sigmoid and tanh are constant, from 750 on exp overflows.
SPECIAL = (0.0, -0.0, 1.0, -1.0, 1e-9, -1e-9, 20.0, -20.0, 40.0, -40.0, 800.0, -800.0)


def points(rng, shape=(6, 5)):
    """Away from 0 by a tenth, which is the only kink here."""
    x = rng.standard_normal(shape) * 2
    return x + np.copysign(0.1, x)


def checked(activation, x, rng):
    def backward(dy):
        return {"x": activation.backward(x, activation.forward(x), dy)}

    return gradcheck.directional(lambda at: activation.forward(at["x"]), backward, {"x": x}, rng)


def test_finite_differences(any_activation, rng, assert_right):
    for shape in ((6, 5), (2, 3, 4), (1, 1)):
        assert_right(checked(any_activation(), points(rng, shape), rng))


def test_finite_differences_where_it_saturates(any_activation, rng, assert_right):
    assert_right(checked(any_activation(), 10 * points(rng), rng))


@pytest.fixture
def by_keras(keras64, gradient):
    """f(activation with its arguments, x, dy): Keras's value and its gradient by x."""

    def run(any_activation, x, dy):
        function = getattr(keras64.activations, any_activation.func.registered_name)
        return gradient(lambda x: function(x, **any_activation.keywords), x, dy=dy)

    return run


def test_keras(any_activation, by_keras, answers, rng, assert_equal64):
    activation = any_activation()
    special = np.array(SPECIAL)
    for x in (points(rng), special.reshape(3, 4), points(rng, (2, 3, 4))):
        dy = rng.standard_normal(x.shape)
        y = activation.forward(x)
        theirs, (dx,) = answers(lambda x=x, dy=dy: by_keras(any_activation, x, dy))
        assert_equal64(y, theirs, "y")
        assert_equal64(activation.backward(x, y, dy), dx, "dx")


def test_keras_at_each_special_point(any_activation, by_keras, answers):
    """One by one, so that no large neighbour hides them: to 64 roundings, since the exp of x is off by x of them."""
    activation = any_activation()
    for special in SPECIAL:
        x, dy = np.full((1, 3), special), np.array([[0.3, -1.7, 0.9]])
        y = activation.forward(x)
        theirs, (dx,) = answers(lambda x=x, dy=dy: by_keras(any_activation, x, dy))
        ours = activation.backward(x, y, dy)
        unit = np.finfo(np.float64).eps / 2
        assert np.all(np.abs(y - theirs) <= 64 * unit * np.abs(theirs)), special
        # the slopes of saturating functions are differences of numbers near 1
        assert np.all(np.abs(ours - dx) <= 64 * unit * np.abs(dy)), special


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtypes_are_kept(any_activation, dtype, rng):
    activation = any_activation()
    x = points(rng).astype(dtype)
    y = activation.forward(x)
    assert (y.dtype, y.shape) == (x.dtype, x.shape)
    dx = activation.backward(x, y, np.ones_like(x))
    assert (dx.dtype, dx.shape) == (x.dtype, x.shape)


def test_large_inputs_raise_no_warning(any_activation):
    """Warnings are errors in these tests."""
    activation = any_activation()
    for dtype in (np.float32, np.float64):
        x = np.array([[800.0, -800.0, 0.0]], dtype)
        y = activation.forward(x)
        assert np.all(np.isfinite(y))
        assert np.all(np.isfinite(activation.backward(x, y, np.ones_like(x))))


def test_none_is_linear():
    assert isinstance(activations.get(None), activations.Linear)


def test_defaults_that_differ_from_the_layers():
    assert activations.get("leaky_relu").negative_slope == 0.2
    assert activations.get("gelu").approximate is False


def test_at_the_kink_the_slope_is_that_of_the_negative_side():
    """As TensorFlow's: a relu at 0 passes nothing on."""
    zero, dy = np.array([0.0, -0.0]), np.array([3.0, 3.0])
    assert not activations.get("relu").backward(zero, zero, dy).any()
    assert np.array_equal(activations.LeakyRelu(0.25).backward(zero, zero, dy), [0.75, 0.75])


def test_the_config_of_a_layer_names_an_activation_unless_it_has_arguments():
    assert activations.LeakyRelu().as_value() == "leaky_relu"
    assert activations.LeakyRelu(0.5).as_value()["config"] == {"negative_slope": 0.5}


def test_a_relu_has_two_sides_at_zero_only():
    x = np.array([-1.0, -0.0, 0.0, 1.0])
    for activation in (activations.Relu(), activations.LeakyRelu()):
        assert activation.two_sided(x).tolist() == [False, True, True, False]
