"""How the tests of a layer judge it: by finite differences, by a Keras twin in float64, and by Keras's config."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from scratchnet import gradcheck
from scratchnet.layers import Layer

# The float64 gate, as measured (10,000 random networks; the worst correct tensor was at 3.1e-13): each tensor within
# 1e-11 of its own largest element, plus 1e-14 of the largest of all, for tensors that are nothing but rounding.
OF_TENSOR, OF_ALL = 1e-11, 1e-14


@pytest.fixture
def check_gradients() -> Callable[..., None]:
    """(layer, input, training=True): fails where a gradient is not the derivative. Builds the layer."""

    def check(layer: Layer, x: np.ndarray, training: bool = True) -> None:
        rng = np.random.default_rng(1)
        _build(layer, x, rng)
        checks = gradcheck.check_layer(layer, x, rng, training)
        assert checks
        assert all(one.passed for one in checks), "\n".join(str(one) for one in checks)

    return check


@pytest.fixture
def check_against_keras(keras64: ModuleType, answers: Callable[..., Any]) -> Callable[..., None]:
    """(layer, input, training=True): fails where a tensor of a pass is not that of a twin made from the config."""

    def check(layer: Layer, x: np.ndarray, training: bool = True) -> None:
        rng = np.random.default_rng(2)
        _build(layer, x, rng)
        dy = rng.standard_normal(layer.forward(x, training)[0].shape)

        def of_the_twin() -> dict[str, np.ndarray]:
            twin = getattr(keras64.layers, layer.registered_name).from_config(layer.get_config())
            twin.build(x.shape)
            twin.set_weights(list(layer.weights.values()))
            return _run_keras(twin, x, dy, training)

        _assert_equal(_run(layer, x, dy, training), answers(of_the_twin))

    return check


@pytest.fixture
def check_config(keras: ModuleType, answers: Callable[..., Any]) -> Callable[..., None]:
    """(class, arguments, input shape): fails unless both sides write one config and take it back, built or not."""

    def check(cls: type[Layer], arguments: Mapping[str, Any], shape: tuple[int | None, ...]) -> None:
        ours = cls(name="it", **arguments)
        of_ours = {}
        for state in ("made", "built"):
            if state == "built":
                ours.build(shape)
            of_ours[state] = ours.get_config()

        def of_theirs() -> dict[str, Any]:
            kind = getattr(keras.layers, cls.__name__)
            theirs, configs = kind(name="it", **arguments), {}
            for state, config in of_ours.items():
                if state == "built":
                    theirs.build(shape)
                configs[state] = {"own": theirs.get_config(), "read": kind.from_config(config).get_config()}
            return configs

        for state, theirs in answers(of_theirs).items():
            config = _plain(of_ours[state])
            assert theirs == {"own": config, "read": config}
            for given in (of_ours[state], theirs["own"]):
                assert _plain(cls.from_config(given).get_config()) == config

    return check


def _build(layer: Layer, x: np.ndarray, rng: np.random.Generator) -> None:
    """Weights that hide nothing: no zeros, no ones, variances that are positive."""
    layer.build(x.shape)
    for name, weight in layer.weights.items():
        layer.weights[name] = rng.uniform(0.5, 1.5, weight.shape)


def _run(layer: Layer, x: np.ndarray, dy: np.ndarray, training: bool) -> dict[str, np.ndarray]:
    """Every tensor of one pass up and down: y, dx, the gradient of each weight, and the moving averages after it."""
    y, saved = layer.forward(x, training)
    dx, gradients = layer.backward(saved, dy)
    tensors = {"y": y} if dx is None else {"y": y, "dx": dx}
    tensors |= {f"d{name}": gradients[name] for name in layer.trainable_weights}
    return tensors | {name: w for name, w in (layer.weights | dict(saved.updates)).items() if name.startswith("moving")}


def _run_keras(twin: Any, x: np.ndarray, dy: np.ndarray, training: bool) -> dict[str, np.ndarray]:
    """The same tensors from a Keras layer."""
    import tensorflow as tf

    given = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(given)
        y = twin(given, training=training)
    by = {"dx": given, **{f"d{v.name}": v.value for v in twin.trainable_weights}}
    gradients = {name: g for name, g in tape.gradient(y, by, tf.constant(dy)).items() if g is not None}
    tensors = {"y": y, **{name: tf.convert_to_tensor(g) for name, g in gradients.items()}}
    tensors |= {v.name: v.value for v in twin.weights if v.name.startswith("moving")}
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _assert_equal(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    floor = OF_ALL * max(float(np.abs(b).max()) for b in theirs.values())
    for name, b in theirs.items():
        assert (ours[name].shape, ours[name].dtype, b.dtype) == (b.shape, np.float64, np.float64), name
        apart, largest = float(np.abs(ours[name] - b).max()), float(np.abs(b).max())
        assert apart <= OF_TENSOR * largest + floor, f"{name}: {apart:.2e} apart, largest element {largest:.2e}"


def _plain(value: Any) -> Any:
    """Tuples as lists, which is what JSON makes of them."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
