"""Optimizers over the registry: bit for bit what Keras computes in eager mode, and the recorded witnesses."""

import numpy as np
import pytest

from scratchnet import optimizers

STEPS = 5


def run(optimizer, weight, gradients):
    """The weight after each step."""
    state, path = optimizer.zero_state(weight), []
    for gradient in gradients:
        weight, state = optimizer.step(weight, gradient, state)
        path.append(weight)
    return path


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_to_keras_bit_for_bit(any_optimizer, dtype, answers, request, rng):
    keras = request.getfixturevalue("keras64" if dtype == "float64" else "keras")
    weight = rng.standard_normal((5, 4)).astype(dtype)
    gradients = [rng.standard_normal(weight.shape).astype(dtype) for _ in range(STEPS)]

    def path():
        theirs = getattr(keras.optimizers, any_optimizer.func.__name__)(**any_optimizer.keywords)
        variable = keras.Variable(weight)
        for gradient in gradients:
            theirs.apply([keras.ops.convert_to_tensor(gradient)], [variable])
            yield variable.numpy()

    theirs = answers(lambda: list(path()))
    for ours, expected in zip(run(any_optimizer(), weight, gradients), theirs, strict=True):
        assert ours.dtype == dtype
        assert np.array_equal(ours, expected)


# Measured in Keras 3.15.1, float32, w = [1, -2], learning_rate 0.1, gradients [0.1, -0.3], [0.2, 0], [-0.4, 0.5].
WITNESSES = (
    ({}, [(0.99, -1.97), (0.97, -1.97), (1.01, -2.02)]),
    ({"momentum": 0.9}, [(0.99, -1.97), (0.961, -1.9430001), (0.9749, -1.9687)]),
    ({"momentum": 0.9, "nesterov": True}, [(0.981, -1.943), (0.9349, -1.9187), (0.98741, -1.99183)]),
)


@pytest.mark.parametrize(("arguments", "path"), WITNESSES, ids=str)
def test_witnesses_of_sgd(arguments, path):
    gradients = np.array([[0.1, -0.3], [0.2, 0.0], [-0.4, 0.5]], np.float32)
    ours = run(optimizers.SGD(0.1, **arguments), np.array([1.0, -2.0], np.float32), gradients)
    assert np.array_equal(ours, np.array(path, np.float32))


def test_nothing_is_changed_in_place(any_optimizer, rng):
    optimizer = any_optimizer()
    weight, gradient = rng.standard_normal((2, 3, 3))
    state = optimizer.zero_state(weight)
    before = [part.copy() for part in (weight, gradient, *state.values())]
    optimizer.step(weight, gradient, state)
    assert all(np.array_equal(a, b) for a, b in zip(before, (weight, gradient, *state.values()), strict=True))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"momentum must be between 0 and 1; received 1\.5"):
        optimizers.SGD(momentum=1.5)
    with pytest.raises(ValueError, match="nesterov needs a momentum"):
        optimizers.SGD(nesterov=True)
