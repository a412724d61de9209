"""Dropout: the masks are Keras's bit for bit, call after call."""

import json
import random

import numpy as np
import pytest

from scratchnet import Sequential, philox, set_random_seed
from scratchnet.layers import BatchNormalization, Dense, Dropout

X = np.random.default_rng(0).standard_normal((7, 5, 3))
NOISE_SHAPES = (None, (None, 1, 3), (1, 5, 1), (7, 5, 3))


def calls(layer, x, count):
    """The outputs of several training passes, each with its update stored."""
    for _ in range(count):
        y, saved = layer.forward(x, training=True)
        layer.store(saved.updates)
        yield y


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("arguments", Dropout.examples, ids=str)
def test_gradients(check_gradients, arguments, training):
    check_gradients(Dropout(dtype="float64", **arguments), X, training)


@pytest.mark.parametrize("noise_shape", NOISE_SHAPES, ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_keras_agrees(check_against_keras, noise_shape, training):
    check_against_keras(Dropout(0.4, noise_shape=noise_shape, seed=3, dtype="float64"), X, training)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("noise_shape", NOISE_SHAPES, ids=str)
@pytest.mark.parametrize(("rate", "seed"), [(0.1, 0), (0.5, 1234), (0.9, 2**40 + 3), (0.3, -5), (0.0, 1), (1.0, 1)])
def test_several_calls_are_keras_bit_for_bit(keras, answers, rate, seed, noise_shape, dtype):
    x = X.astype(dtype)
    ours = Dropout(rate, noise_shape=noise_shape, seed=seed, dtype=dtype)

    def of_keras():
        theirs = keras.layers.Dropout(rate, noise_shape=noise_shape, seed=seed, dtype=dtype)
        outputs = [np.asarray(theirs(x, training=True)) for _ in range(3)]
        return {"outputs": outputs, "state": np.asarray(theirs.seed_generator.state) if rate else None}

    theirs = answers(of_keras)
    for y, expected in zip(calls(ours, x, 3), theirs["outputs"], strict=True):
        assert np.array_equal(y, expected)
    if rate:
        assert np.array_equal(ours.seed_generator_state, theirs["state"])


def test_unseeded_layers_draw_what_keras_draws(keras, answers):
    def state():
        keras.utils.set_random_seed(8)
        theirs = [keras.layers.Dropout(rate) for rate in (0.5, 0.0, 0.5)]
        return np.asarray(theirs[2].seed_generator.state)

    expected = answers(state)
    set_random_seed(8)
    ours = [Dropout(rate) for rate in (0.5, 0.0, 0.5)]
    assert ours[0].seed is None
    assert np.array_equal(ours[2].seed_generator_state, expected)


def test_rate_0_draws_no_seed():
    random.seed(1)
    before = random.getstate()
    assert Dropout(0.0).seed_generator_state is None
    assert random.getstate() == before


@pytest.mark.parametrize(("rate", "training"), [(0.5, False), (0.0, True), (0.0, False)])
def test_an_inactive_layer_returns_its_input(rate, training):
    layer = Dropout(rate, seed=1)
    y, saved = layer.forward(X, training)
    assert y is X
    assert layer.keeps_tensor(training)
    assert saved.updates == {}
    assert layer.backward(saved, X)[0] is X


def test_an_active_layer_does_not_keep_the_tensor():
    assert not Dropout(0.5, seed=1).keeps_tensor(training=True)


def test_a_pass_is_inference_unless_it_says_otherwise():
    assert Dropout(0.5, seed=1).forward(X)[0] is X


def test_a_pass_is_repeatable_until_its_update_is_stored():
    layer = Dropout(0.5, seed=1)
    first, second = layer.forward(X, training=True), layer.forward(X, training=True)
    assert np.array_equal(first[0], second[0])
    layer.store(second[1].updates)
    assert layer.seed_generator_state.tolist() == [1, 1]
    assert not np.array_equal(first[0], layer.forward(X, training=True)[0])


def test_a_dropped_nan_is_zero():
    x = np.full((1, 40), np.nan)
    y = Dropout(0.5, seed=1).forward(x, training=True)[0]
    assert set(np.isnan(y[0]).tolist()) == {True, False}
    assert np.nansum(np.abs(y)) == 0


def test_the_state_is_no_weight():
    chain = Sequential([Dense(3), Dropout(0.5, seed=1)])
    chain.build((None, 2))
    assert chain.count_params() == 9
    assert len(chain.get_weights()) == 2


def test_training_draws_on_from_batch_to_batch():
    chain = Sequential([Dense(3), Dropout(0.5, seed=1)])
    chain.compile("sgd", "mse")
    chain.fit(np.ones((5, 2)), np.ones((5, 3)), batch_size=2, epochs=2, verbose=0)
    assert chain.layers[1].seed_generator_state.tolist() == [1, 6]
    assert chain.layers[1].weights == {}


def test_training_with_masks_and_moving_averages_is_kerass(keras64, answers):
    """Two epochs of three batches, the last one of a single sample; then the weights and the predictions.

    No bias below the normalization: it has no gradient there but rounding.
    """
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((7, 3)), rng.standard_normal((7, 2))
    fitted = {"batch_size": 3, "epochs": 2, "shuffle": False, "verbose": 0}

    def trained():
        keras64.utils.set_random_seed(4)
        layers = keras64.layers
        stack = [
            layers.Dense(6, use_bias=False, name="first"),
            layers.BatchNormalization(momentum=0.8, name="normalization"),
            layers.Dropout(0.4, seed=5, name="dropout"),
            layers.Dense(2, name="last"),
        ]
        model = keras64.Sequential([keras64.Input((3,), name="input"), *stack], name="model")
        config, start = model.get_config(), model.get_weights()
        model.compile("sgd", "mse")
        model.fit(x, y, **fitted)
        return {
            "config": json.loads(json.dumps(config)),
            "start": start,
            "end": model.get_weights(),
            "predicted": model.predict(x, verbose=0),
        }

    theirs = answers(trained)
    ours = Sequential.from_config(theirs["config"])
    assert isinstance(ours.layers[1], BatchNormalization)
    ours.set_weights(theirs["start"])
    ours.compile("sgd", "mse")
    ours.fit(x, y, **fitted)
    for one, other in zip(ours.get_weights(), theirs["end"], strict=True):
        assert np.abs(one - other).max() <= 1e-11 * np.abs(other).max()  # the float64 gate
    predicted = theirs["predicted"]
    assert np.abs(ours.predict(x) - predicted).max() <= 1e-11 * np.abs(predicted).max()


def test_a_chain_finds_the_logits_through_an_inactive_layer():
    chain = Sequential([Dense(3, activation="softmax"), Dropout(0.5, seed=1)])
    assert (chain.logits_at(training=False), chain.logits_at(training=True)) == (0, None)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_other_rates_are_refused(rate):
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\]"):
        Dropout(rate)


def test_a_noise_shape_of_another_rank_is_refused():
    with pytest.raises(ValueError, match="noise_shape needs one entry for each axis"):
        Dropout(0.5, noise_shape=(None, 1)).forward(X, training=True)


@pytest.mark.parametrize("arguments", [*Dropout.examples, {"rate": 0.5, "noise_shape": (None, 1, 3)}], ids=str)
def test_config_is_kerass(check_config, arguments):
    check_config(Dropout, arguments, (None, 5, 3))


class NotScaled(Dropout):
    def transform_backward(self, saved, dz):
        return np.where(saved.terms, dz, 0), {}


class AnotherMask(Dropout):
    def transform_backward(self, saved, dz):
        return self._kept(dz, ~saved.terms), {}


@pytest.mark.parametrize("mistake", [NotScaled, AnotherMask])
def test_finite_differences_find(check_gradients, mistake):
    with pytest.raises(AssertionError, match="wrong"):
        check_gradients(mistake(0.4, seed=3, dtype="float64"), X)


@pytest.mark.parametrize("mistake", [NotScaled, AnotherMask])
def test_keras_finds(check_against_keras, mistake):
    with pytest.raises(AssertionError, match="apart"):
        check_against_keras(mistake(0.4, seed=3, dtype="float64"), X)


@pytest.mark.parametrize(("layer_dtype", "dtype"), [("float32", "float64"), ("float64", "float32"), (None, "float32")])
@pytest.mark.parametrize("noise_shape", NOISE_SHAPES, ids=str)
def test_the_mask_is_drawn_in_the_layers_dtype_and_scales_what_is_kept(layer_dtype, dtype, noise_shape):
    layer, x = Dropout(0.4, noise_shape=noise_shape, seed=3, dtype=layer_dtype), X.astype(dtype)
    shape = {None: (7, 5, 3), (None, 1, 3): (7, 1, 3)}.get(noise_shape, noise_shape)
    kept = philox.dropout_mask(shape, 0.4, 3, 0, layer_dtype or dtype)
    y = layer.forward(x, training=True)[0]
    assert np.array_equal(y, np.where(kept, x * (1 / (1 - 0.4)), 0).astype(dtype))


def test_rate_1_leaves_nothing_and_draws_nothing():
    layer = Dropout(1.0, seed=7)
    y, saved = layer.forward(X, training=True)
    assert not y.any()
    assert saved.updates == {}
    layer.store(saved.updates)
    assert layer.seed_generator_state.tolist() == [7, 0]


def test_a_seed_is_kept_and_one_is_drawn_where_none_is_given(seeded):
    assert Dropout(0.5, seed=3).seed == 3
    seeded(1)
    layer = Dropout(0.5)
    assert layer.seed is None
    assert layer.seed_generator_state.dtype.kind == "i"
    with pytest.raises(ValueError, match=r"Dropout: expected seed as an integer or None; received 1\.5"):
        Dropout(0.5, seed=1.5)
