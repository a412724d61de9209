"""Mistakes planted into scratchnet, one at a time: each is found, in either precision alone, and where it was made.

A judge that never says no is worth nothing, and one that says no to right networks neither; both are asked here, of
everything in the registry.
"""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import parity
import scratchnet
from parity import cases, trace
from parity.report import Report
from parity.runners import keras as reference
from parity.spec import DTYPES, Spec
from parity.trace import Trace, Weights
from scratchnet import activations, losses, registry, regularizers
from scratchnet.layers import Dense, Layer

pytestmark = pytest.mark.tensorflow

FAMILIES = ("activation", "loss", "layer")
CASES = [f"{family}-{name}" for family in FAMILIES for name in registry.entries(family)]

# XLA draws other random bits than the kernels of TensorFlow do, from the same seed.
OTHER_BITS_UNDER_XLA = ("layer-Dropout", "normalized")


@pytest.fixture(autouse=True)
def references(monkeypatch: pytest.MonkeyPatch, computed: dict[Any, Trace]) -> None:
    """Keras runs each network once: a mistake in scratchnet does not change the reference."""
    run = reference.run

    def once(spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, mode: str = "eager") -> Trace:
        key = (repr(spec), mode, x.tobytes(), np.asarray(y).tobytes(), *(w.tobytes() for w in weights.values()))
        computed[key] = computed.pop(key, None) or run(spec, weights, x, y, mode)  # the latest is the last
        return computed[key]

    monkeypatch.setattr(reference, "run", once)


@pytest.fixture(scope="module")
def computed() -> dict[Any, Trace]:
    return {}


def check(spec: Spec, x: np.ndarray | None = None, y: np.ndarray | None = None, **options: Any) -> Report:
    random.seed(7)  # initial weights, so that the reference of an earlier check serves
    return parity.check(spec, x=x, y=y, **{"modes": ("eager",), **options})


def assert_found(spec: Spec, tensor: str, computed_by: str, *data: np.ndarray, **options: Any) -> None:
    """Each precision alone says no, and names this tensor first."""
    for dtype in DTYPES:
        report = check(spec, *data, dtype=dtype, **options)
        [one] = report.checks
        assert (report.verdict, report.exit_status) == ("fail", 1), f"{spec.name}, {dtype}: {tensor} passed"
        assert one.first_wrong is not None
        assert (one.first_wrong.tensor, dtype) == (tensor, dtype), f"{spec.name}: expected {tensor}"
        assert computed_by in one.first_wrong.computed_by
        assert tensor in report.sentence
        assert report.sentence.startswith("No")


# -- no false alarm ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tanh-16", *CASES])
def test_the_right_network_passes(name: str) -> None:
    assert_right(name, ("eager",))


@pytest.mark.parametrize("name", ["activation-gelu", "loss-Huber"])
def test_the_right_network_passes_compiled(name: str) -> None:
    assert_right(name, ("function", "xla"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*cases.NETWORKS, *CASES])
def test_every_right_network_passes_compiled(name: str) -> None:
    """Compiling is what takes the time: seconds for each network and precision."""
    assert_right(name, ("function",) if name in OTHER_BITS_UNDER_XLA else ("function", "xla"))


def assert_right(name: str, modes: tuple[str, ...]) -> None:
    specs = cases.find(name)
    for spec in specs:
        report = check(spec, modes=modes)
        wrong = [
            (row.tensor, c.dtype, row.mode, row.budgets) for c in report.checks for row in c.rows if not row.passed
        ]
        assert not wrong
        assert report.verdict == "pass", report.sentence
        assert [c.dtype for c in report.checks] == list(DTYPES)
    assert specs


# -- a sign in every backward ------------------------------------------------------------------------------------------


def negative(value: Any) -> Any:
    return None if value is None else -value


def flip(monkeypatch: pytest.MonkeyPatch, cls: type, layer: str, weight: str | None) -> None:
    """The wrong sign in one result of one layer's backward: the gradient by a weight, or (None) by its input."""
    right = cls.transform_backward

    def wrong(self: Layer, saved: Any, dz: Any) -> Any:
        dx, gradients = right(self, saved, dz)
        if self.name != layer:
            return dx, gradients
        if weight is None:
            return negative(dx), gradients
        return dx, {**gradients, weight: -gradients[weight]}

    monkeypatch.setattr(cls, "transform_backward", wrong)


def flip_everywhere(monkeypatch: pytest.MonkeyPatch, cls: type) -> None:
    right = cls.backward
    monkeypatch.setattr(cls, "backward", lambda self, *operands: -right(self, *operands))


def below(chain: Any, index: int) -> str:
    """The tensor that the backward pass of this layer ends in."""
    return trace.gradient(trace.output(chain.layers[index - 1].name) if index else trace.INPUT)


def specs_of(name: str) -> list[tuple[Spec, Any]]:
    """The cases of this name, each with scratchnet's layers."""
    return [(spec, scratchnet.Sequential.from_config(spec.config)) for spec in cases.find(name)]


def weighty(spec: Spec, computed: dict[Any, Trace]) -> set[str]:
    """The gradients that are more than rounding: the sign of zero cannot be wrong."""
    check(spec, dtype="float64")
    latest = next(reversed(computed.values())).tensors.items()
    sizes = {name: np.max(np.abs(value)) for name, value in latest if name.endswith(".gradient")}
    return {name for name, size in sizes.items() if size > 1e-6 * max(sizes.values())}


@pytest.mark.parametrize("name", CASES)
def test_a_sign_in_the_backward_pass_of_any_layer(
    name: str, monkeypatch: pytest.MonkeyPatch, computed: dict[Any, Trace]
) -> None:
    """Every layer of every case: the gradient by its input, and by each of its weights."""
    planted = 0
    for spec, chain in specs_of(name):
        seen = weighty(spec, computed)
        for index, layer in enumerate(chain.layers):
            places = {
                None: below(chain, index),
                **{w: trace.gradient(f"{layer.name}/{w}") for w in layer.trainable_weights},
            }
            for weight, tensor in places.items():
                if tensor in seen:
                    with monkeypatch.context() as patch:
                        flip(patch, type(layer), layer.name, weight)
                        assert_found(spec, tensor, f"{layer.registered_name} {layer.name} backward")
                    planted += 1
    assert planted >= 5


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("loss-")])
def test_a_sign_in_the_backward_pass_of_any_activation(
    name: str, monkeypatch: pytest.MonkeyPatch, computed: dict[Any, Trace]
) -> None:
    """Of every activation class in these cases, first met by the last layer that has it."""
    for spec, chain in specs_of(name):
        seen = weighty(spec, computed)
        for cls in {type(layer.activation) for layer in chain.layers}:
            last = max(index for index, layer in enumerate(chain.layers) if type(layer.activation) is cls)
            tensor = first_behind_activation(chain, last)
            if tensor in seen:
                with monkeypatch.context() as patch:
                    flip_everywhere(patch, cls)
                    assert_found(spec, tensor, f"{chain.layers[last].name} backward")


def first_behind_activation(chain: Any, index: int) -> str:
    """The first tensor in the order of data flow that the backward pass of this layer's activation reaches."""
    layer = chain.layers[index]
    if trace.Layer.from_config(layer.to_json(), ()).has_pre_activation:
        return trace.gradient(trace.pre_activation(layer.name))
    for weight in layer.trainable_weights:
        return trace.gradient(f"{layer.name}/{weight}")
    return below(chain, index)


@pytest.mark.parametrize("name", registry.entries("loss"))
@pytest.mark.parametrize("mistake", ["sign", "no division by the batch", "twice"])
def test_a_factor_in_the_backward_pass_of_any_loss(name: str, mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cls = registry.entries("loss")[name]
    factor = {"sign": -1, "no division by the batch": 32, "twice": 2}[mistake]
    found = specs_of(f"loss-{name}")
    assert len(found) == len(cls.examples)
    right = cls.backward
    monkeypatch.setattr(cls, "backward", lambda self, *operands: right(self, *operands) * factor)
    for spec, chain in found:
        last = chain.layers[-1]
        by_logits = losses.get(spec.loss).uses(np.zeros(1)) and last.activation.caches_logits
        tensor = trace.gradient((trace.pre_activation if by_logits else trace.output)(last.name))
        assert_found(spec, tensor, spec.loss_name)


@pytest.mark.parametrize("name", registry.entries("loss"))
def test_a_factor_in_the_forward_pass_of_any_loss(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cls = registry.entries("loss")[name]
    right = cls.forward
    monkeypatch.setattr(cls, "forward", lambda self, *operands: right(self, *operands) * 1.001)
    for spec, _ in specs_of(f"loss-{name}"):
        assert_found(spec, "loss", f"{spec.loss_name} forward")


# -- classic mistakes, on layers that are square so that every shape fits ----------------------------------------------

N = 6


def square(loss: Any = "mean_squared_error", head: str = "tanh", **first: Any) -> Spec:
    stack = [Dense(N, **{"activation": "tanh", "name": "first", **first}), Dense(N, head, name="last")]
    chain = scratchnet.Sequential(stack, name="square")
    chain.build((None, N))
    return Spec("square", chain.get_config(), loss)


def dense_backward(change: Callable[[Dense, Any, Any, Any, dict[str, Any]], tuple[Any, dict[str, Any]]]) -> Any:
    """A transform_backward of Dense with something changed: (layer, saved, dz, dx, gradients) -> (dx, gradients)."""
    right = Dense.transform_backward
    return lambda self, saved, dz: change(self, saved, dz, *right(self, saved, dz))


def without_bias(self: Dense, x: Any, training: bool) -> Any:
    return x @ self.weights["kernel"], None, {}


MISTAKES: dict[str, tuple[Spec, type, str, Any, str, str]] = {
    "kernel not transposed in dx": (
        square(),
        Dense,
        "transform_backward",
        dense_backward(lambda layer, saved, dz, dx, g: (dz @ layer.weights["kernel"], g)),
        "first/output.gradient",
        "Dense last backward",
    ),
    "kernel gradient transposed": (
        square(),
        Dense,
        "transform_backward",
        dense_backward(lambda layer, saved, dz, dx, g: (dx, {**g, "kernel": g["kernel"].T})),
        "last/kernel.gradient",
        "Dense last backward",
    ),
    "kernel gradient from the output": (
        square(),
        Dense,
        "transform_backward",
        dense_backward(lambda layer, saved, dz, dx, g: (dx, {**g, "kernel": saved.y.T @ dz})),
        "last/kernel.gradient",
        "Dense last backward",
    ),
    "bias gradient over the wrong axis": (
        square(),
        Dense,
        "transform_backward",
        dense_backward(lambda layer, saved, dz, dx, g: (dx, {**g, "bias": np.sum(dz, axis=1)})),
        "last/bias.gradient",
        "Dense last backward",
    ),
    "bias gradient a mean": (
        square(),
        Dense,
        "transform_backward",
        dense_backward(lambda layer, saved, dz, dx, g: (dx, {**g, "bias": g["bias"] / len(dz)})),
        "last/bias.gradient",
        "Dense last backward",
    ),
    "bias gradient forgotten": (
        square(),
        Dense,
        "transform_backward",
        dense_backward(lambda layer, saved, dz, dx, g: (dx, {**g, "bias": 0 * g["bias"]})),
        "last/bias.gradient",
        "Dense last backward",
    ),
    "one element of one gradient": (
        square(),
        Dense,
        "transform_backward",
        dense_backward(
            lambda layer, saved, dz, dx, g: (dx, {**g, "kernel": g["kernel"] * (1 + 1e-3 * (np.arange(N) == 4))})
        ),
        "last/kernel.gradient",
        "Dense last backward",
    ),
    "bias forgotten": (
        square(),
        Dense,
        "transform",
        without_bias,
        "first/pre_activation",
        "Dense first forward",
    ),
    "tanh' of the input": (
        square(),
        activations.Tanh,
        "backward",
        lambda self, x, y, dy: dy * (1 - x * x),
        "last/pre_activation.gradient",
        "tanh of last backward",
    ),
    "sigmoid' forgotten": (
        square(head="sigmoid"),
        activations.Sigmoid,
        "backward",
        lambda self, x, y, dy: dy,
        "last/pre_activation.gradient",
        "sigmoid of last backward",
    ),
    "sigmoid' of the output": (
        square(activation="sigmoid"),
        activations.Sigmoid,
        "backward",
        lambda self, x, y, dy: dy * activations.expit(y) * (1 - activations.expit(y)),
        "first/pre_activation.gradient",
        "sigmoid of first backward",
    ),
    "softmax' by its diagonal": (
        square(head="softmax"),
        activations.Softmax,
        "backward",
        lambda self, x, y, dy: dy * y * (1 - y),
        "last/pre_activation.gradient",
        "softmax of last backward",
    ),
    "softmax over the batch": (
        square(head="softmax"),
        activations.Softmax,
        "forward",
        lambda self, x: np.exp(x) / np.sum(np.exp(x), axis=0, keepdims=True),
        "last/output",
        "softmax of last forward",
    ),
    "activation' applied behind cached logits": (
        square("binary_crossentropy", "sigmoid"),
        losses.BinaryCrossentropy,
        "derivative_from_logits",
        lambda self, y, z: (activations.expit(z) - y) / z.shape[-1] * activations.expit(z) * (1 - activations.expit(z)),
        "last/pre_activation.gradient",
        "binary_crossentropy",
    ),
    "labels smoothed towards one": (
        square({"class_name": "CategoricalCrossentropy", "config": {"label_smoothing": 0.1}}, "softmax"),
        losses.CategoricalCrossentropy,
        "targets",
        lambda self, y, p: np.asarray(y * 0.9 + 0.1, p.dtype),
        "loss",
        "CategoricalCrossentropy forward",
    ),
    "a mean that is over the wrong axis": (
        square(),
        losses.MeanSquaredError,
        "derivative",
        lambda self, y, p: 2 * (p - y) / p.shape[0],
        "last/output.gradient",
        "mean_squared_error backward",
    ),
    "half a penalty's gradient": (
        square(kernel_regularizer="l2"),
        regularizers.L2,
        "backward",
        lambda self, w: self.l2 * w,
        "first/kernel.gradient",
        "Dense first backward",
    ),
    "a penalty forgotten in the loss": (
        square(kernel_regularizer="l2"),
        scratchnet.Sequential,
        "penalty",
        lambda self: 0,
        "loss",
        "mean_squared_error forward",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_classic_mistake(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, cls, attribute, wrong, tensor, computed_by = MISTAKES[mistake]
    assert check(spec).passed
    monkeypatch.setattr(cls, attribute, wrong)
    assert_found(spec, tensor, computed_by)


@pytest.mark.parametrize("batch", [N, 32])
def test_a_bias_gradient_over_the_wrong_axis_for_batches_that_hide_the_shape(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = dense_backward(lambda layer, saved, dz, dx, g: (dx, {**g, "bias": np.sum(dz, axis=1)}))
    monkeypatch.setattr(Dense, "transform_backward", wrong)
    assert_found(square(), "last/bias.gradient", "Dense last backward", batch=batch)
    row = check(square(), batch=batch, dtype="float32").checks[0].first_wrong
    assert row is not None
    assert row.note == ("" if batch == N else f"shape ({batch},) where the reference has ({N},)")


def test_a_relu_that_passes_the_gradient_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only exact zeros show it, so the samples have some."""
    chain = scratchnet.Sequential(
        [scratchnet.layers.Activation("relu", name="relu"), Dense(3, name="last")], name="kink"
    )
    chain.build((None, 5))
    spec = Spec("kink", chain.get_config(), "mse")
    rng = np.random.default_rng(0)
    x, y = rng.integers(-1, 2, (8, 5)).astype(np.float32), rng.standard_normal((8, 3)).astype(np.float32)
    assert check(spec, x=x, y=y).passed
    monkeypatch.setattr(activations.Relu, "backward", lambda self, x, y, dy: np.where(x >= 0, dy, np.zeros_like(dy)))
    assert_found(spec, "input.gradient", "Activation relu backward", x, y)
