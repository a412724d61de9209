"""ReLU, LeakyReLU and Softmax as layers: kinks, specials, and the logits behind a Softmax layer."""

import numpy as np
import pytest

from scratchnet import Sequential
from scratchnet.layers import Activation, Dense, LeakyReLU, ReLU, Softmax
from scratchnet.layers.activation import ThresholdedRelu
from scratchnet.registry import UnknownArgument

EXAMPLES = [(cls, example) for cls in (ReLU, LeakyReLU, Softmax) for example in cls.examples]
VARIANTS = [
    {"max_value": m, "negative_slope": s, "threshold": t}
    for m in (None, 0.0, 2.0, 6.0)
    for s in (0.0, 0.5)
    for t in (0.0, 1.0, 3.0)
]
KINKS = np.array([[-2.0, -0.0, 0.0, 1.0, 2.0, 3.0, 6.0, 7.0, 0.5, 1.5, 2.5]])
SPECIALS = np.array([np.nan, np.inf, -np.inf, 1e300, -1e300])


def inputs(shape=(6, 2, 5)):
    return 3 * np.random.default_rng(0).standard_normal(shape)


@pytest.mark.parametrize(("cls", "arguments"), EXAMPLES, ids=str)
def test_gradients(check_gradients, cls, arguments):
    check_gradients(cls(dtype="float64", **arguments), inputs())


@pytest.mark.parametrize(("cls", "arguments"), EXAMPLES, ids=str)
def test_keras_agrees(check_against_keras, cls, arguments):
    check_against_keras(cls(dtype="float64", **arguments), inputs())


@pytest.mark.parametrize("arguments", VARIANTS, ids=str)
def test_keras_agrees_at_the_kinks(check_against_keras, arguments):
    check_against_keras(ReLU(dtype="float64", **arguments), KINKS)


@pytest.mark.parametrize("arguments", VARIANTS, ids=str)
def test_specials_are_kerass(keras64, answers, gradient, arguments):
    """NaN and the infinities, value and derivative, as exact as they are."""
    layer = ReLU(dtype="float64", **arguments)
    y, saved = layer.forward(SPECIALS)
    theirs, (dx,) = answers(lambda: gradient(keras64.layers.ReLU(**arguments), SPECIALS))
    assert np.array_equal(y, theirs, equal_nan=True)
    assert np.array_equal(layer.backward(saved, np.ones(5))[0], dx)


def test_the_slopes_of_the_layer_and_of_the_activation_differ():
    x = np.array([[-1.0]], np.float32)
    assert LeakyReLU().forward(x)[0] == np.float32(-0.3)
    assert Activation("leaky_relu").forward(x)[0] == np.float32(-0.2)


def test_the_slope_is_a_float32_in_float64_too():
    """TensorFlow's alone: the plain product of ReLU with a threshold keeps the slope as it is given."""
    x = np.array([[-1.0]])
    assert LeakyReLU(0.3, dtype="float64").forward(x)[0] == -float(np.float32(0.3))
    assert ReLU(negative_slope=0.3, threshold=1.0, dtype="float64").forward(x)[0] == -0.6


def test_the_logits_are_the_input_of_a_softmax_layer():
    chain = Sequential([Dense(3), Softmax()])
    passed = chain.forward(inputs((4, 2)).astype(np.float32))
    assert passed.logits_at == 1
    assert passed.logits is passed.saved[0].y
    assert Sequential([Dense(3), ReLU()]).logits_at() is None


@pytest.mark.parametrize("argument", ["max_value", "negative_slope", "threshold"])
def test_negative_arguments_are_refused(argument):
    with pytest.raises(ValueError, match=f"ReLU: {argument} must not be negative; received -1.0"):
        ReLU(**{argument: -1.0})


@pytest.mark.parametrize("value", [None, -0.1])
def test_a_missing_or_negative_slope_is_refused(value):
    with pytest.raises(ValueError, match="LeakyReLU: negative_slope must not be negative"):
        LeakyReLU(negative_slope=value)


def test_another_axis_is_refused():
    with pytest.raises(UnknownArgument, match="only axis=-1 is"):
        Softmax(axis=1)


@pytest.mark.parametrize(("cls", "arguments"), EXAMPLES, ids=str)
def test_config_is_kerass(check_config, cls, arguments):
    check_config(cls, arguments, (None, 5, 3))


class ForgottenSlope(LeakyReLU):
    def transform_backward(self, saved, dz):
        return np.where(saved.x > 0, dz, dz / self.negative_slope), {}


class OnlyTheDiagonal(Softmax):
    """dy y (1 - y): what works for the sigmoid."""

    def backward(self, saved, dy):
        return dy * saved.y * (1 - saved.y), {}


@pytest.mark.parametrize("mistake", [ForgottenSlope, OnlyTheDiagonal])
def test_finite_differences_find(check_gradients, mistake):
    with pytest.raises(AssertionError, match="wrong"):
        check_gradients(mistake(dtype="float64"), inputs())


@pytest.mark.parametrize("mistake", [ForgottenSlope, OnlyTheDiagonal])
def test_keras_finds(check_against_keras, mistake):
    with pytest.raises(AssertionError, match="apart"):
        check_against_keras(mistake(dtype="float64"), inputs())


@pytest.mark.parametrize(
    ("arguments", "y", "dx"),
    [
        ({}, [0, 0, 0, 1, 2, 3, 6, 7], [0, 0, 0, 1, 1, 1, 1, 1]),
        ({"negative_slope": 0.5}, [-1, 0, 0, 1, 2, 3, 6, 7], [0.5, 0.5, 0.5, 1, 1, 1, 1, 1]),
        ({"max_value": 6.0}, [0, 0, 0, 1, 2, 3, 6, 6], [0, 0, 0, 1, 1, 1, 0, 0]),  # TensorFlow's relu6
        ({"max_value": 2.0}, [0, 0, 0, 1, 2, 2, 2, 2], [0, 0, 0, 1, 1, 0, 0, 0]),
        ({"max_value": 6.0, "threshold": 1.0}, [0, 0, 0, 0, 2, 3, 6, 6], [0, 0, 0, 0, 1, 1, 1, 0]),
        ({"max_value": 7.0}, [0, 0, 0, 1, 2, 3, 6, 7], [0, 0, 0, 1, 1, 1, 1, 1]),
        ({"threshold": 2.0}, [0, 0, 0, 0, 0, 3, 6, 7], [0, 0, 0, 0, 0, 1, 1, 1]),
        ({"negative_slope": 0.5, "threshold": 2.0}, [-2, -1, -1, -0.5, 0, 3, 6, 7], [0.5] * 4 + [0, 1, 1, 1]),
    ],
    ids=str,
)
def test_the_kinks(arguments, y, dx):
    """As measured in Keras; see test_keras_agrees_at_the_kinks."""
    layer, x = ReLU(dtype="float64", **arguments), KINKS[:, :8]
    output, saved = layer.forward(x)
    assert output[0].tolist() == y
    assert layer.backward(saved, np.ones_like(x))[0][0].tolist() == dx
    assert {name: getattr(layer, name) for name in arguments} == arguments


@pytest.mark.parametrize(
    ("arguments", "expected"), [({}, [np.nan, np.inf, 0]), ({"max_value": 6.0}, [np.nan, 6, 0])], ids=str
)
def test_a_relu_lets_nan_through_and_makes_zero_of_minus_infinity(arguments, expected):
    layer = ReLU(dtype="float64", **arguments)
    y, saved = layer.forward(SPECIALS[:3])
    assert np.array_equal(y, expected, equal_nan=True)
    assert layer.backward(saved, np.full(3, np.inf))[0].tolist() == [0, 0 if arguments else np.inf, 0]


def test_defaults():
    assert (ReLU().max_value, ReLU().negative_slope, ReLU().threshold) == (None, 0.0, 0.0)
    assert LeakyReLU().negative_slope == 0.3


def test_the_kinks_of_a_relu_are_its_threshold_and_its_maximum():
    x = np.array([-1.0, 0.0, 1.0, 2.0])
    assert ThresholdedRelu(2.0, threshold=1.0).two_sided(x).tolist() == [False, False, True, True]
    assert ThresholdedRelu(2.0).two_sided(x).tolist() == [False, True, False, True]
    assert ThresholdedRelu(1.5).forward(x).tolist() == [0, 0, 1, 1.5]
