"""Every registered class with each of its examples, Keras in float64, and what "equal" means there."""

import functools
import importlib

import numpy as np
import pytest

import scratchnet
from scratchnet import registry

# Two correct float64 implementations: measured in 10,000 random networks, the worst was 3.1e-13 of the largest element.
GATE = 1e-11

FAMILIES = {
    "any_activation": ("activation",),
    "any_layer": ("layer",),
    "any_loss": ("loss",),
    "any_metric": ("metric",),
    "any_optimizer": ("optimizer",),
    "any_regularizer": ("regularizer",),
    "any_entry": ("activation", "initializer", "layer", "loss", "metric", "optimizer", "regularizer"),
    # Activations are functions in Keras, which have no config.
    "any_entry_with_a_config": ("initializer", "layer", "loss", "metric", "optimizer", "regularizer"),
    "any_regularized_layer": ("layer",),
}


def pytest_generate_tests(metafunc):
    """`any_loss` and its like: a test runs once for each example, which is the class with its arguments filled in."""
    for fixture in set(FAMILIES) & set(metafunc.fixturenames):
        examples = [
            pytest.param(functools.partial(cls, **example), id=f"{name}-{example}")
            for family in FAMILIES[fixture]
            for name, cls in registry.entries(family).items()
            for example in cls.examples
            if fixture != "any_regularized_layer" or any(name.endswith("_regularizer") for name in example)
        ]
        assert examples, f"no entries for {fixture}"
        metafunc.parametrize(fixture, examples)


@pytest.fixture
def rng():
    return np.random.default_rng(20240229)


@pytest.fixture
def keras(lazy_keras):
    """Keras for what `answers` is given. A test that uses it outside is marked `tensorflow`."""
    return lazy_keras()


@pytest.fixture
def keras64(lazy_keras):
    """Keras in float64 as a whole: in a float32 floatx losses and learning rates of float64 layers stay in float32."""
    keras = lazy_keras("float64")
    yield keras
    keras.restore()


@pytest.fixture
def gradient():
    """gradient(f, *arrays) -> (f's value, [its gradients]) for a random upstream gradient, which is given as `dy`."""

    def by(f, *arrays, dy=None):
        tf = importlib.import_module("tensorflow")
        tensors = [tf.constant(array) for array in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = f(*tensors)
        upstream = None if dy is None else tf.constant(dy)
        return value.numpy(), [part.numpy() for part in tape.gradient(value, tensors, upstream)]

    return by


@pytest.fixture
def assert_equal64():
    """assert_equal64(ours, theirs): same shape, both float64, apart by no more than the gate."""

    def check(ours, theirs, what=""):
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        assert (ours.shape, ours.dtype, theirs.dtype) == (theirs.shape, np.float64, np.float64), what
        apart, size = np.max(np.abs(ours - theirs), initial=0), np.max(np.abs(theirs), initial=0)
        assert apart <= GATE * size, f"{what}: {apart:.2e} apart, largest element {size:.2e}"

    return check


@pytest.fixture
def assert_right():
    """assert_right(checks): all gradients were checked, and all are right."""

    def check(checks):
        assert checks
        assert not [str(one) for one in checks if not one.passed]

    return check


@pytest.fixture
def seeded():
    """seeded(seed) sets scratchnet's global seed; afterwards there is none again."""
    yield scratchnet.set_random_seed
    scratchnet.seeding._global_seed = None
