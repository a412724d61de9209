"""The finite differences themselves: how exact they are, that they find mistakes, and that kinks are called kinks."""

import numpy as np
import pytest

from scratchnet import gradcheck, losses
from scratchnet.gradcheck import Check
from scratchnet.layers import BatchNormalization, Dense, Embedding
from scratchnet.sequential import Chain


def only(f, derivative, x, seed=0):
    """The one check of an elementwise function."""
    rng = np.random.default_rng(seed)
    (check,) = gradcheck.directional(lambda at: f(at["x"]), lambda dy: {"x": dy * derivative(x)}, {"x": x}, rng)
    return check


def tanh_slope(x):
    return 1 - np.tanh(x) ** 2


def relu(x):
    return np.maximum(x, 0)


def step(x):
    return (x > 0).astype(x.dtype)


SMOOTH = {
    "linear": (lambda x: 3 * x, lambda x: np.full_like(x, 3)),
    "constant": (np.ones_like, np.zeros_like),
    "square": (np.square, lambda x: 2 * x),
    "tanh": (np.tanh, tanh_slope),
    "exp": (np.exp, np.exp),
    "log": (lambda x: np.log(np.abs(x)), lambda x: 1 / x),
    "short scale": (lambda x: np.tanh(1e3 * x), lambda x: 1e3 * tanh_slope(1e3 * x)),
    "hidden by a constant": (lambda x: 1e6 + np.tanh(x), tanh_slope),
    "relu off its kink": (relu, step),
}


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("seed", range(5))
def test_right_derivatives_pass(name, seed):
    x = np.random.default_rng(100 + seed).standard_normal(40)
    check = only(*SMOOTH[name], x, seed)
    assert check.passed, str(check)


def test_resolution_in_float64():
    """A network's derivative is known to 1e-9, so a mistake of that size shows."""
    x = np.random.default_rng(1).standard_normal(50)
    assert only(np.tanh, tanh_slope, x).allowed < 1e-10
    assert only(np.tanh, lambda x: tanh_slope(x) * (1 + 1e-9), x).verdict == "wrong"


def test_float32_gets_a_larger_allowance():
    x = np.random.default_rng(1).standard_normal(50).astype(np.float32)
    assert only(np.tanh, tanh_slope, x).passed
    assert only(np.tanh, lambda x: tanh_slope(x) * np.float32(1.01), x).verdict == "wrong"


@pytest.mark.parametrize("offset", [0.0, 1e-15, -1e-12, 1e-9, -1e-8])
def test_a_kink_is_not_called_a_mistake(offset):
    x = np.random.default_rng(2).standard_normal(20)
    x[7] = offset
    assert only(relu, step, x).verdict == "not smooth here"


@pytest.mark.parametrize("offset", [1e-1, -1e-2, 1e-3, -1e-4, 1e-5])
def test_a_kink_nearby_is_kept_clear_of(offset):
    x = np.random.default_rng(2).standard_normal(20)
    x[7] = offset
    assert only(relu, step, x).passed
    assert only(relu, lambda x: step(x) * 1.0001, x).verdict == "wrong"


@pytest.mark.parametrize("f", [lambda x: np.sqrt(np.abs(x)), np.log, lambda x: x * np.nan])
def test_no_derivative_at_zero(f):
    with np.errstate(all="ignore"):
        assert only(f, np.zeros_like, np.zeros(3)).verdict == "not smooth here"


def test_each_array_is_checked_by_its_name():
    rng = np.random.default_rng(3)
    at = {"a": rng.standard_normal((4, 3)), "b": rng.standard_normal((3, 2))}
    checks = gradcheck.directional(
        lambda at: at["a"] @ at["b"], lambda dy: {"a": dy @ at["b"].T, "b": -at["a"].T @ dy}, at, rng
    )
    assert [(check.name, check.verdict) for check in checks] == [("a", "right"), ("b", "wrong")]
    assert "b: wrong" in str(checks[1])


@pytest.mark.parametrize(
    ("gradients", "message"), [({}, "x: .*no gradient"), ({"x": np.ones(2)}, r"x: .*\(3,\).*\(2,\)")]
)
def test_gradients_of_another_form_are_refused(gradients, message, rng):
    with pytest.raises(ValueError, match=message):
        gradcheck.directional(lambda at: at["x"], lambda dy: gradients, {"x": np.ones(3)}, rng)


def test_nothing_beyond_the_allowance_is_right():
    assert Check("w", 1.0, 1.5, 0.5, True).verdict == "right"
    assert Check("w", 1.0, 1.6, 0.5, True).verdict == "wrong"
    assert Check("w", 1.0, 1.0, 0.5, False).verdict == "not smooth here"
    assert Check("w", 1.0, float("nan"), 0.5, True).verdict == "wrong"


def network(rng, *stack):
    chain = Chain(stack, dtype="float64")
    chain.build((None, 6))
    chain.set_weights([rng.standard_normal(weight.shape) for weight in chain.get_weights()])
    return chain


def test_whole_networks(rng, assert_right):
    chain = network(rng, Dense(8, "relu", kernel_regularizer="l2"), Dense(5, "tanh"), Dense(3, "softmax"))
    x, y = rng.standard_normal((9, 6)), rng.random((9, 3))
    before = chain.get_weights()
    checks = gradcheck.check_chain(chain, losses.get("categorical_crossentropy"), x, y, rng, rng.random(9))
    assert_right(checks)
    names = ["dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias", "dense_2/kernel", "dense_2/bias", "input"]
    assert [check.name for check in checks] == names
    assert all(np.array_equal(a, b) for a, b in zip(before, chain.get_weights(), strict=True))


@pytest.mark.parametrize("training", [False, True])
def test_whole_networks_in_both_modes(training, rng, assert_right):
    chain = network(rng, Dense(4, "tanh"), BatchNormalization(), Dense(2))
    chain.layers[1].weights["moving_variance"] = rng.random(4) + 0.5
    x, y = rng.standard_normal((5, 6)), rng.standard_normal((5, 2))
    assert_right(gradcheck.check_chain(chain, losses.get("mse"), x, y, rng, training=training))


def test_indices_have_no_gradient(rng, assert_right):
    layer = Embedding(5, 3, name="table", dtype="float64")
    layer.build((None, 4))
    checks = gradcheck.check_layer(layer, rng.integers(0, 5, (6, 4)), rng)
    assert_right(checks)
    assert [check.name for check in checks] == ["embeddings"]


class LostBias(Dense):
    def transform_backward(self, saved, dz):
        dx, gradients = super().transform_backward(saved, dz)
        return dx, {**gradients, "bias": gradients["bias"] / len(dz)}


class LostTranspose(Dense):
    def transform_backward(self, saved, dz):
        _, gradients = super().transform_backward(saved, dz)
        return dz @ self.weights["kernel"], gradients


def wrong_names(checks):
    return {check.name for check in checks if check.verdict == "wrong"}


def test_planted_mistakes_are_found_where_they_are(rng):
    x, y = rng.standard_normal((9, 6)), rng.random((9, 3))
    chain = network(rng, Dense(4, "tanh"), LostBias(4, "tanh", name="here"), Dense(3))
    assert wrong_names(gradcheck.check_chain(chain, losses.get("mse"), x, y, rng)) == {"here/bias"}
    chain = network(rng, Dense(4, "tanh"), LostTranspose(4, "tanh", name="here"), Dense(3))
    below = {"dense/kernel", "dense/bias", "input"}
    assert wrong_names(gradcheck.check_chain(chain, losses.get("mse"), x, y, rng)) == below
    assert wrong_names(gradcheck.check_layer(chain.layers[1], rng.standard_normal((5, 4)), rng)) == {"input"}
