"""BatchNormalization and LayerNormalization: derivatives by finite differences, every tensor against Keras."""

import json

import numpy as np
import pytest

from scratchnet import Sequential
from scratchnet.layers import BatchNormalization, Dense, LayerNormalization
from scratchnet.registry import UnknownArgument

BOTH = (BatchNormalization, LayerNormalization)
EXAMPLES = [(cls, example) for cls in BOTH for example in cls.examples]
SHAPES = ((6, 3), (4, 5, 3), (2, 3, 2, 4))


def inputs(shape, mean=0.7):
    """Features of different means and spreads."""
    rng = np.random.default_rng(0)
    spread = np.arange(1, shape[-1] + 1)
    return rng.standard_normal(shape) * spread + mean * spread


def step(layer, x):
    """One training pass with its updates stored."""
    y, saved = layer.forward(x, training=True)
    layer.weights.update(saved.updates)
    return y


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("cls", "arguments"), EXAMPLES, ids=str)
def test_gradients(check_gradients, cls, arguments, training):
    for shape in SHAPES:
        check_gradients(cls(dtype="float64", **arguments), inputs(shape), training)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("cls", "arguments"), EXAMPLES, ids=str)
def test_keras_agrees(check_against_keras, cls, arguments, training):
    for shape in SHAPES:
        check_against_keras(cls(**arguments, dtype="float64"), inputs(shape), training)


@pytest.mark.parametrize("cls", BOTH)
def test_keras_agrees_on_one_sample(check_against_keras, cls):
    check_against_keras(cls(dtype="float64"), inputs((1, 4)))


@pytest.mark.parametrize("cls", BOTH)
def test_keras_agrees_on_constant_features(check_against_keras, cls):
    x = inputs((5, 4))
    x[:, 1] = 0.3
    x[2] = -1.7
    check_against_keras(cls(dtype="float64"), x)


@pytest.mark.parametrize("training", [True, False])
def test_keras_agrees_on_frozen_layers(check_against_keras, training):
    check_against_keras(BatchNormalization(trainable=False, dtype="float64"), inputs((5, 4)), training)


def test_one_sample_gives_beta_and_no_gradient_of_the_input():
    layer = BatchNormalization(dtype="float64")
    x = inputs((1, 4))
    layer.build(x.shape)
    layer.weights["beta"] = np.arange(4.0)
    y, saved = layer.forward(x, training=True)
    dx, _ = layer.backward(saved, np.ones_like(x))
    assert np.array_equal(y, np.arange(4.0)[np.newaxis])
    assert not dx.any()
    assert np.array_equal(saved.updates["moving_variance"], np.full(4, 0.99))


def test_a_pass_changes_nothing_until_its_updates_are_stored():
    layer = BatchNormalization(momentum=0.75, dtype="float64")
    x = inputs((6, 3))
    layer.build(x.shape)
    layer.forward(x, training=True)
    assert not layer.weights["moving_mean"].any()
    step(layer, x)
    assert np.allclose(layer.weights["moving_mean"], 0.25 * x.mean(axis=0), rtol=1e-14)  # one sum of six terms


def test_moving_averages_move_in_training_unless_the_layer_is_frozen():
    moving, frozen = BatchNormalization(), BatchNormalization(trainable=False)
    for layer in (moving, frozen):
        layer.build((None, 3))
    assert moving.moving_weights(training=True) == ("moving_mean", "moving_variance")
    assert moving.moving_weights(training=False) == ()
    assert frozen.moving_weights(training=True) == frozen.moving_weights(training=False) == ()


def test_frozen_layers_and_inference_return_no_updates():
    for layer, training in ((BatchNormalization(trainable=False), True), (BatchNormalization(), False)):
        layer.build((None, 3))
        assert layer.forward(inputs((6, 3)), training)[1].updates == {}


@pytest.mark.parametrize("cls", BOTH)
def test_float32_stays_float32(cls):
    layer, x = cls(), inputs((6, 3)).astype(np.float32)
    layer.build(x.shape)
    y, saved = layer.forward(x, training=True)
    dx, gradients = layer.backward(saved, x)
    assert {a.dtype for a in (y, dx, *gradients.values(), *saved.updates.values())} == {np.dtype("float32")}


def test_the_weights_of_a_chain_in_kerass_order():
    chain = Sequential([Dense(3), BatchNormalization(), LayerNormalization()])
    chain.build((None, 2))
    assert list(chain.layers[1].weights) == ["gamma", "beta", "moving_mean", "moving_variance"]
    assert list(chain.layers[1].trainable_weights) == ["gamma", "beta"]
    assert list(chain.layers[2].weights) == ["gamma", "beta"]


@pytest.mark.parametrize("cls", BOTH)
def test_other_axes_are_refused(cls):
    with pytest.raises(UnknownArgument, match="axis=-1"):
        cls(axis=1).build((None, 4, 3))
    cls(axis=2).build((None, 4, 3))


@pytest.mark.parametrize("cls", BOTH)
def test_a_last_axis_of_unknown_size_is_refused(cls):
    with pytest.raises(ValueError, match="last axis"):
        cls().build((None, None))


def test_renorm_is_refused():
    with pytest.raises(UnknownArgument, match="renorm"):
        BatchNormalization.from_config({"renorm": True})


@pytest.mark.parametrize(("cls", "arguments"), [*EXAMPLES, (BatchNormalization, {"axis": 2})], ids=str)
def test_config_is_kerass(check_config, cls, arguments):
    check_config(cls, arguments, (None, 5, 3))


def test_a_chain_writes_the_config_that_keras_writes(keras, answers):
    """The axis of LayerNormalization is a list once it is built."""

    def of_keras():
        layers = [keras.layers.BatchNormalization(name="batch"), keras.layers.LayerNormalization(name="features")]
        model = keras.Sequential([keras.Input((4,), name="input"), *layers], name="chain")
        return json.loads(json.dumps(model.get_config()))

    config = answers(of_keras)
    assert Sequential.from_config(config).get_config()["layers"] == config["layers"]


class WithoutMeanTerm(BatchNormalization):
    def transform_backward(self, saved, dz):
        dx, gradients = super().transform_backward(saved, dz)
        return dx + self._slope(saved.terms) * gradients["beta"] / dz[..., 0].size, gradients


class WithoutVarianceTerm(BatchNormalization):
    def transform_backward(self, saved, dz):
        dx, gradients = super().transform_backward(saved, dz)
        xh = saved.terms.normalized(saved.x)
        return dx + self._slope(saved.terms) * xh * gradients["gamma"] / dz[..., 0].size, gradients


class WithoutGamma(BatchNormalization):
    def transform_backward(self, saved, dz):
        dx, gradients = super().transform_backward(saved, dz)
        return dx / self.weights["gamma"], gradients


class OverTheWrongAxis(LayerNormalization):
    def transform_backward(self, saved, dz):
        dx, gradients = super().transform_backward(saved, dz)
        h = dz * self.weights["gamma"]
        return dx + saved.terms.inverse * (h.mean(axis=-1, keepdims=True) - h.mean(axis=0)), gradients


class LayerWithoutVarianceTerm(LayerNormalization):
    def transform_backward(self, saved, dz):
        dx, gradients = super().transform_backward(saved, dz)
        xh = saved.terms.normalized(saved.x)
        h = dz * self.weights["gamma"]
        return dx + saved.terms.inverse * xh * (h * xh).mean(axis=-1, keepdims=True), gradients


class UnbiasedMovingVariance(BatchNormalization):
    def _moved(self, name, batch):
        n = 6  # the samples of the test's batch
        return super()._moved(name, batch * n / (n - 1) if name == "moving_variance" else batch)


class SwappedMomentum(BatchNormalization):
    def _moved(self, name, batch):
        return batch * self.momentum + self.weights[name] * (1 - self.momentum)


class OtherEpsilon(BatchNormalization):
    def _inverse(self, variance):
        return 1 / (np.sqrt(variance) + self.epsilon)


WRONG_GRADIENTS = (WithoutMeanTerm, WithoutVarianceTerm, WithoutGamma, OverTheWrongAxis, LayerWithoutVarianceTerm)
WRONG_VALUES = (UnbiasedMovingVariance, SwappedMomentum, OtherEpsilon)


@pytest.mark.parametrize("mistake", WRONG_GRADIENTS)
def test_finite_differences_find(check_gradients, mistake):
    with pytest.raises(AssertionError, match="wrong"):
        check_gradients(mistake(dtype="float64"), inputs((6, 3)))


@pytest.mark.parametrize("mistake", [*WRONG_GRADIENTS, *WRONG_VALUES])
def test_keras_finds(check_against_keras, mistake):
    with pytest.raises(AssertionError, match="apart"):
        check_against_keras(mistake(dtype="float64"), inputs((6, 3)))


def test_the_axis_is_a_list_once_it_is_built_and_epsilon_has_kerass_default():
    for axis in (-1, [-1], (1,)):
        layer = LayerNormalization(axis=axis)
        assert layer.axis == (axis if isinstance(axis, int) else list(axis))
        layer.build((None, 3))
        assert layer.get_config()["axis"] == ([axis] if isinstance(axis, int) else list(axis))
    assert LayerNormalization().epsilon == BatchNormalization().epsilon == 1e-3
