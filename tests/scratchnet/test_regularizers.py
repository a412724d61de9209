"""Regularizers over the registry: finite differences, Keras, and no half in L2."""

import numpy as np
import pytest

from scratchnet import gradcheck, regularizers


def weights(rng):
    """No element within a tenth of 0, the kink of L1."""
    w = rng.standard_normal((4, 3))
    return w + np.copysign(0.1, w)


def test_finite_differences(any_regularizer, rng, assert_right):
    regularizer, w = any_regularizer(), weights(rng)
    f = lambda at: np.asarray(regularizer.forward(at["w"]))  # noqa: E731
    assert_right(gradcheck.directional(f, lambda dy: {"w": dy * regularizer.backward(w)}, {"w": w}, rng))


def test_keras(any_regularizer, keras64, answers, gradient, rng, assert_equal64):
    regularizer, w = any_regularizer(), weights(rng)
    w[0, 0] = 0.0

    def theirs():
        return gradient(getattr(keras64.regularizers, any_regularizer.func.__name__)(**any_regularizer.keywords), w)

    value, (dw,) = answers(theirs)
    assert_equal64(regularizer.forward(w), value)
    assert_equal64(regularizer.backward(w), dw)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtypes_are_kept(any_regularizer, dtype, rng):
    w = weights(rng).astype(dtype)
    assert any_regularizer().forward(w).dtype == w.dtype
    assert any_regularizer().backward(w).dtype == w.dtype


def test_values():
    w = np.array([[1.0, -2.0], [0.0, 3.0]])
    assert regularizers.L1(0.5).forward(w) == 3.0
    assert regularizers.L2(0.5).forward(w) == 7.0
    assert regularizers.L1L2(0.5, 0.5).forward(w) == 10.0
    assert np.array_equal(regularizers.L1(0.5).backward(w), [[0.5, -0.5], [0.0, 0.5]])
    assert np.array_equal(regularizers.L1L2(0.5, 0.25).backward(w), [[1.0, -1.5], [0.0, 2.0]])
    assert regularizers.get(None) is None
    assert isinstance(regularizers.get("l2"), regularizers.L2)


def test_a_penalty_has_two_sides_at_zero_where_it_has_a_part_of_l1():
    w = np.array([[1.0, -0.0], [0.0, -2.0]])
    at_zero = [[False, True], [True, False]]
    assert regularizers.L1(0.5).two_sided(w).tolist() == at_zero
    assert regularizers.L1L2(l1=0.5).two_sided(w).tolist() == at_zero
    assert regularizers.L1L2(l2=0.5).two_sided(w) is None
    assert regularizers.L2(0.5).two_sided(w) is None


def test_defaults():
    assert regularizers.L1().l1 == regularizers.L2().l2 == 0.01
    assert (regularizers.L1L2().l1, regularizers.L1L2().l2) == (0.0, 0.0)
