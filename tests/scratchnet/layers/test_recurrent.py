"""SimpleRNN: the recurrence step by step, its gradients through time, and Keras."""

import numpy as np
import pytest

from scratchnet import initializers
from scratchnet.layers import SimpleRNN
from scratchnet.registry import UnknownArgument

SHAPE = (6, 4, 3)  # batch, time, features
SETTINGS = (
    {},
    {"return_sequences": True},
    {"activation": "sigmoid"},
    {"activation": "softmax", "return_sequences": True},
    {"activation": "relu", "use_bias": False},
    {"activation": None, "return_sequences": True, "recurrent_regularizer": "l2"},
)
REFUSED = {
    "return_state": True,
    "go_backwards": True,
    "stateful": True,
    "unroll": True,
    "zero_output_for_mask": True,
    "activity_regularizer": "l2",
    "kernel_constraint": "non_neg",
    "recurrent_constraint": "non_neg",
    "bias_constraint": "non_neg",
    "dropout": 0.1,
    "recurrent_dropout": 0.1,
    "seed": 1,
}


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal(SHAPE)


def by_hand(layer, x):
    """All states of each sample, one number after the other."""
    w, u = layer.weights["kernel"], layer.weights["recurrent_kernel"]
    b = layer.weights.get("bias", np.zeros(layer.units))
    states = np.zeros((*x.shape[:2], layer.units))
    for n, sequence in enumerate(x):
        h = np.zeros(layer.units)
        for t, inputs in enumerate(sequence):
            a = [
                sum(inputs[i] * w[i, j] for i in range(len(inputs)))
                + b[j]
                + sum(h[k] * u[k, j] for k in range(layer.units))
                for j in range(layer.units)
            ]
            h = states[n, t] = np.tanh(a)
    return states


def made(x, **settings):
    rng = np.random.default_rng(1)
    layer = SimpleRNN(5, name="it", dtype="float64", **settings)
    layer.build(x.shape)
    layer.weights = {name: rng.standard_normal(weight.shape) for name, weight in layer.weights.items()}
    return layer


def test_the_states_are_those_of_the_recurrence(x):
    sequences = made(x, return_sequences=True)
    states = by_hand(sequences, x)
    np.testing.assert_allclose(sequences.forward(x)[0], states, rtol=0, atol=1e-14)  # |h| < 1, sums of 9 terms
    np.testing.assert_array_equal(made(x).forward(x)[0], sequences.forward(x)[0][:, -1])


def test_a_sequence_starts_from_zeros_whatever_ran_before(x):
    layer = made(x)
    first, _ = layer.forward(x)
    layer.forward(x[::-1])
    assert np.array_equal(layer.forward(x)[0], first)


def test_the_last_state_is_as_a_sequence_with_a_gradient_at_its_end(x):
    """The gradient of an output that is not there is zero."""
    last, sequences = made(x), made(x, return_sequences=True)
    dz = np.random.default_rng(2).standard_normal((len(x), 5))
    at_end = np.zeros((*x.shape[:2], 5))
    at_end[:, -1] = dz
    dx, gradients = last.backward(last.forward(x)[1], dz)
    dx_of_all, gradients_of_all = sequences.backward(sequences.forward(x)[1], at_end)
    assert np.array_equal(dx, dx_of_all)
    assert all(np.array_equal(gradients[name], gradients_of_all[name]) for name in gradients)


def test_one_step_has_no_gradient_by_the_recurrent_kernel(x):
    layer = made(x[:, :1])
    y, saved = layer.forward(x[:, :1])
    _, gradients = layer.backward(saved, np.ones_like(y))
    assert not gradients["recurrent_kernel"].any()
    assert gradients["kernel"].all()


def test_the_activation_is_inside(x):
    """None follows the transform: what the layer puts out is what the next step got."""
    layer = made(x, return_sequences=True)
    y, saved = layer.forward(x)
    assert np.array_equal(y, saved.z)
    assert np.array_equal(y, np.tanh(saved.terms.a))
    assert layer.outer_activation.registered_name == "linear"
    assert layer.get_config()["activation"] == "tanh"


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_gradients_are_the_derivatives(settings, x, check_gradients):
    check_gradients(SimpleRNN(5, name="it", dtype="float64", **settings), x)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("shape", [SHAPE, (1, 1, 1), (2, 9, 2)])
def test_keras_in_float64(settings, shape, check_against_keras):
    x = np.random.default_rng(3).standard_normal(shape)
    check_against_keras(SimpleRNN(5, name="it", dtype="float64", **without_penalties(settings)), x)


def without_penalties(settings):
    """The check compares the layer's own gradients."""
    return {name: value for name, value in settings.items() if not name.endswith("_regularizer")}


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_keras_config(settings, check_config):
    check_config(SimpleRNN, {"units": 5, **settings}, (None, 4, 3))


def test_keras_starts_from_the_same_weights(keras, answers):
    """Uniform numbers in every bit; the orthogonal ones to rounding, see the test of the initializers."""
    seeds = {
        "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": 1}},
        "recurrent_initializer": {"class_name": "Orthogonal", "config": {"seed": 2}},
    }
    ours = SimpleRNN(5, name="it", **{name: initializers.get(each) for name, each in seeds.items()})
    config = ours.get_config()
    ours.build(SHAPE)

    def weights():
        theirs = keras.layers.SimpleRNN.from_config(config)
        theirs.build(SHAPE)
        return {variable.name: np.asarray(variable) for variable in theirs.weights}

    expected = answers(weights, within=1e-5)  # as below
    assert list(ours.weights) == list(expected) == ["kernel", "recurrent_kernel", "bias"]
    assert np.array_equal(ours.weights["kernel"], expected["kernel"])
    assert np.array_equal(ours.weights["bias"], expected["bias"])
    u = ours.weights["recurrent_kernel"]
    np.testing.assert_allclose(u, expected["recurrent_kernel"], rtol=0, atol=1e-5)  # condition 100 times 2^-23
    # Householder's QR is orthogonal to n^(3/2) unit roundoffs (Higham 2002, 19.3), the entries rounded once more.
    np.testing.assert_allclose(u.T @ u, np.eye(5), rtol=0, atol=(5**1.5 + 2) * 2.0**-24)


@pytest.mark.parametrize("argument", SimpleRNN.neutral)
def test_what_is_not_here_is_refused_by_name(argument):
    config = SimpleRNN(5, name="it").get_config()
    with pytest.raises(UnknownArgument, match=rf"SimpleRNN\({argument}=.*only {argument}="):
        SimpleRNN.from_config({**config, argument: REFUSED[argument]})


@pytest.mark.parametrize("shape", [(None, 4), (None, 4, 3, 2), (None, 4, None)])
def test_inputs_are_sequences_of_features(shape):
    with pytest.raises(ValueError, match=r"it: SimpleRNN needs inputs of shape \(batch, time, features\)"):
        SimpleRNN(5, name="it").build(shape)


@pytest.mark.parametrize("units", [0, -1, 2.0, "3"])
def test_a_number_of_units_is_a_positive_integer(units):
    with pytest.raises(ValueError, match="SimpleRNN: units must be a positive integer; received"):
        SimpleRNN(units)


def test_the_shape_of_the_output():
    assert SimpleRNN(5).compute_output_shape((None, None, 3)) == (None, 5)
    assert SimpleRNN(5, return_sequences=True).compute_output_shape((None, 4, 3)) == (None, 4, 5)


def test_the_axes_and_penalties_of_its_weights():
    layer = SimpleRNN(4, kernel_regularizer="l1", recurrent_regularizer="l2", bias_regularizer="l1_l2")
    layer.build((None, 5, 3))
    assert layer.axes == {"kernel": ("in", "out"), "recurrent_kernel": ("state", "out"), "bias": ("out",)}
    kinds = {name: layer.regularizer_of(name).registered_name for name in layer.weights}
    assert kinds == {"kernel": "L1", "recurrent_kernel": "L2", "bias": "L1L2"}


def test_shapes_with_and_without_a_batch_size():
    assert SimpleRNN(4).compute_output_shape((None, 5, 3)) == (None, 4)
    assert SimpleRNN(4).compute_output_shape((6, 5, 3)) == (6, 4)
    assert SimpleRNN(4, return_sequences=True).compute_output_shape((6, 5, 3)) == (6, 5, 4)


def test_one_unit_is_enough_and_none_is_not():
    assert SimpleRNN(1).units == 1
    with pytest.raises(ValueError, match="units"):
        SimpleRNN(0)
