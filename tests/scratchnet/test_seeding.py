"""The global seed: remembered, refused and spread as Keras does, up to the weights of an unseeded network."""

import random

import numpy as np
import pytest

import scratchnet.initializers  # noqa: F401  (enters the initializers into the registry)
from scratchnet import registry, seeding


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """Leaves the global generators as they were."""
    monkeypatch.setattr(seeding, "_global_seed", None)
    python, numpy = random.getstate(), np.random.get_state()
    yield
    random.setstate(python)
    np.random.set_state(numpy)


def test_global_seed_is_remembered():
    assert seeding.global_seed() is None
    seeding.set_random_seed(0)
    assert seeding.global_seed() == 0


def test_fresh_seeds_repeat_after_the_global_seed():
    def draws():
        seeding.set_random_seed(8)
        return [seeding.fresh_seed() for _ in range(3)]

    first = draws()
    assert first == draws()
    assert len(set(first)) == 3


@pytest.mark.parametrize("seed", [1.0, "1", None, -1, 2**32])
def test_seeds_that_keras_refuses(seed):
    before = random.getstate()
    with pytest.raises(ValueError, match=r"[Ss]eed"):
        seeding.set_random_seed(seed)
    assert seeding.global_seed() is None
    assert random.getstate() == before


def test_global_generators_are_left_as_keras_leaves_them(keras, answers):
    def drawn():
        keras.utils.set_random_seed(77)
        return random.random(), np.random.random()

    expected = answers(drawn)
    seeding.set_random_seed(77)
    assert [random.random(), np.random.random()] == expected


@pytest.mark.tensorflow
def test_unseeded_network_has_keras_weights(keras):
    """784-16-16-10: one fresh seed for each kernel in the order of the layers, none for the biases' zeros."""
    widths = (784, 16, 16, 10)
    keras.utils.set_random_seed(1234)
    model = keras.Sequential([keras.Input(widths[:1]), *(keras.layers.Dense(units) for units in widths[1:])])

    seeding.set_random_seed(1234)
    made = [(registry.get("initializer", "glorot_uniform"), registry.get("initializer", "zeros")) for _ in widths[1:]]
    for layer, (kernel, bias), inputs, units in zip(model.layers, made, widths[:-1], widths[1:], strict=True):
        assert np.array_equal(kernel((inputs, units)), layer.kernel.numpy())
        assert np.array_equal(bias((units,)), layer.bias.numpy())
