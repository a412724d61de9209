"""Attempts to fool the checker: wrong code that once passed, right code that once failed, and what was not said."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import parity
from parity import cases
from scratchnet import layers
from scratchnet.sequential import Chain

pytestmark = pytest.mark.tensorflow

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((32, 7)), RNG.standard_normal((32, 3))


def model(*stack: Any, optimizer: Any = "sgd", loss: Any = "mse") -> Any:
    import keras

    built = keras.Sequential([keras.Input((7,)), *stack])
    built.compile(optimizer, loss)
    return built


def dense(optimizer: Any = "sgd") -> Any:
    import keras

    return model(keras.layers.Dense(5, "tanh"), keras.layers.Dense(3), optimizer=optimizer)


def check(built: Any, x: np.ndarray = X, y: np.ndarray = Y, **options: Any) -> parity.Report:
    return parity.check(built, x=x, y=y, modes=("eager",), **options)


def patch(monkeypatch: pytest.MonkeyPatch, cls: type, name: str, make: Callable[[Any], Any]) -> None:
    monkeypatch.setattr(cls, name, make(getattr(cls, name)))


@pytest.mark.parametrize("mean", [300, 1000, 10000])
def test_a_float64_gate_that_fails_is_not_forgiven_by_float32_budgets(
    keras: Any, monkeypatch: pytest.MonkeyPatch, mean: float
) -> None:
    built = model(keras.layers.BatchNormalization(), keras.layers.Dense(3))
    assert check(built, X + mean).passed
    patch(monkeypatch, layers.BatchNormalization, "transform_backward", lambda right: (
        lambda self, saved, dz: (right(self, saved, dz)[0] * 1.1, right(self, saved, dz)[1])))  # fmt: skip
    report = check(built, X + mean)
    assert report.verdict == "fail"
    assert report.checks[1].first_wrong.tensor == "input.gradient"


def test_a_weight_that_is_not_trained_on_one_side(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(right: Any) -> Any:
        def without_bias(self: Any, input_shape: Any) -> None:
            right(self, input_shape)
            self.non_trainable.add("bias")

        return without_bias

    patch(monkeypatch, layers.Dense, "build", build)
    report = check(dense())
    assert report.verdict == "fail"
    assert "the subject has no such tensor" in report.sentence


def test_chains_that_are_not_their_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """`fit` runs Chain.backward, which the local pass of float32 never sees."""

    def backward(right: Any) -> Any:
        def wrong(self: Any, *arguments: Any, **keywords: Any) -> Any:
            found = right(self, *arguments, **keywords)
            if self.dtype == "float64":
                return found
            tripled = (replace(g, weights={n: 3 * w for n, w in g.weights.items()}) for g in found.layers)
            return replace(found, layers=tuple(tripled))

        return wrong

    patch(monkeypatch, Chain, "backward", backward)
    assert "Sequential and its operations, one by one, differ" in check(dense(), dtype="float32").sentence


def test_a_wrong_factor_is_not_called_reduced_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    patch(monkeypatch, layers.Dense, "transform_backward", lambda right: (
        lambda self, saved, dz: (right(self, saved, dz)[0], {
            **right(self, saved, dz)[1], "kernel": -right(self, saved, dz)[1]["kernel"]})))  # fmt: skip
    report = check(dense(), np.tile(X, (30, 1)), np.tile(Y, (30, 1)), dtype="float32")
    assert "precision" not in report.sentence
    assert "bfloat16" not in report.sentence
    assert report.checks[0].findings[0].cause.code == "factor-minus-one"


def test_an_operation_that_raises_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    patch(monkeypatch, layers.Dense, "transform_backward", lambda right: (
        lambda self, saved, dz: (dz @ self.weights["kernel"], right(self, saved, dz)[1])))  # fmt: skip
    report = check(dense())
    assert report.verdict == "fail"
    assert "ValueError: matmul" in report.sentence
    assert "Dense" in report.checks[0].first_wrong.computed_by


def test_soft_labels_in_float32_sum_to_one_but_for_rounding(keras: Any) -> None:
    built = model(keras.layers.Dense(4, "softmax"), loss="categorical_crossentropy")
    assert check(built, y=RNG.dirichlet(np.ones(4), 32).astype("float32")).passed


def test_a_learning_rate_schedule_is_no_crash(keras: Any) -> None:
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    report = check(dense(keras.optimizers.SGD(schedule)))
    assert report.passed
    assert "updated weights" in report.checks[0].skipped


def test_what_one_step_cannot_show_is_said(keras: Any) -> None:
    built = model(
        keras.layers.BatchNormalization(), keras.layers.Dense(3), optimizer=keras.optimizers.SGD(momentum=0.9)
    )
    blind = check(built).checks[0].blind
    assert any("what the optimizer keeps from step to step" in sentence for sentence in blind)
    assert any("the other one of training and inference" in sentence for sentence in blind)


def mean_squared_error(y_true: Any, y_pred: Any) -> Any:
    return abs(y_true - y_pred) ** 4


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda m: m.compile("sgd", "mse", loss_weights=[5.0]), "loss_weights"),
        (lambda m: m.compile("sgd", mean_squared_error), "the loss is .*mean_squared_error, not one of Keras's"),
        (lambda m: setattr(m.layers[0], "activation", mean_squared_error), "activation of .*not one of Keras's"),
    ],
)
def test_a_model_that_its_config_does_not_tell(prepare: Callable[[Any], None], said: str) -> None:
    built = dense()
    prepare(built)
    with pytest.raises(parity.UsageError, match=said):
        check(built)


@pytest.mark.parametrize(
    ("x", "y", "options", "said"),
    [
        (X, Y[:30], {}, "x has 32 samples, y has 30"),
        (X.astype(str), Y, {}, "x: expected an array of real numbers; received dtype <U32"),
        (X * (1 + 1j), Y, {}, "received dtype complex128"),
        (X[:0], Y[:0], {}, "x: expected at least one sample"),
        (X[:, :5], Y, {}, "x: expected at least one sample of shape \\(7,\\); received the array \\(32, 5\\)"),
        (X, Y, {"batch": 3}, "nothing to choose with data or batch"),
        (X, Y, {"training": "no"}, "training: expected True or False"),
        (X, Y, {"seed": 1.5}, "seed: expected a whole number of at least 0; received 1.5"),
        (None, None, {"batch": True}, "batch: expected a whole number of at least 1; received True"),
    ],
)
def test_wrong_arguments(x: Any, y: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(parity.UsageError, match=said):
        check(dense(), x, y, **options)


def test_what_is_not_a_number_is_found_first() -> None:
    x = X.copy()
    x[3, 1] = np.nan
    with pytest.raises(parity.NothingConcluded, match=r"x: 1 numbers are NaN.* the first at \(3, 1\): nan"):
        check(dense(), x)


def test_indices_out_of_range(keras: Any) -> None:
    built = model(keras.layers.Embedding(5, 2), keras.layers.Flatten(), keras.layers.Dense(3))
    with pytest.raises(parity.UsageError, match="takes whole numbers below 5; received 7"):
        check(built, np.full((32, 7), 7))


def test_cross_entropies_are_also_compared_on_probabilities() -> None:
    names = {spec.name for spec in cases.cases()}
    assert "loss-CategoricalCrossentropy-of-probabilities" in names
    assert parity.check("loss-CategoricalCrossentropy-of-probabilities", modes=("eager",)).passed


# -- numbers that overflow ---------------------------------------------------------------------------------------------


def overflowing(*stack: Any, kernel: float = 1.0) -> parity.Check:
    """Samples of 1e25, so that gradients by kernels are 1e50: infinities in float32. All of one sign, so that nothing
    is NaN."""
    built = model(*stack)
    built.set_weights([np.abs(w) * np.float32(kernel) for w in built.get_weights()])
    with np.errstate(all="ignore"):
        return check(built, np.abs(X) * 1e25, dtype="float32").checks[0]


def test_what_overflows_on_both_sides_is_not_compared(keras: Any) -> None:
    """Three times an infinity is the same infinity."""
    one = overflowing(keras.layers.Dense(5), keras.layers.Dense(3))
    kernels = [row for row in one.rows if row.tensor.endswith(("kernel.gradient", "kernel.updated"))]
    assert [(row.budgets, row.unjudged, row.compared) for row in kernels] == [(0.0, row.size, False) for row in kernels]
    assert kernels
    assert one.skipped.keys() == {"loss", *(row.tensor for row in kernels)}
    assert all("overflows" in why for why in one.skipped.values())
    assert one.passed  # the bias gradients are finite, and right
    assert not any("kernel.updated" in sentence for sentence in one.blind)


def test_a_tensor_that_overflows_does_not_hide_a_wrong_one(keras: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    patch(monkeypatch, layers.Dense, "transform_backward", lambda right: (
        lambda self, saved, dz: (right(self, saved, dz)[0], {
            n: 3 * g for n, g in right(self, saved, dz)[1].items()})))  # fmt: skip
    one = overflowing(keras.layers.Dense(5), keras.layers.Dense(3, name="last"))
    assert one.first_wrong.tensor == "last/bias.gradient"


def test_where_every_gradient_overflows_nothing_is_concluded(keras: Any) -> None:
    one = overflowing(keras.layers.Dense(3, use_bias=False), kernel=1e25)
    assert not one.passed
    assert one.first_wrong is None
    assert "overflows" in one.powerless


# -- names, policies, commands -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["_x", "two words", "x:0", "-x", "Größe"])
def test_a_layer_name_that_tensorflow_has_no_scope_for(keras: Any, name: str) -> None:
    stack = [keras.layers.Dense(5, "tanh", name=name), keras.layers.BatchNormalization(name="layer_0")]
    loss = keras.losses.MeanSquaredError(name="my loss")
    built = model(*stack, keras.layers.Dense(3), optimizer=keras.optimizers.SGD(name="_mine"), loss=loss)
    report = parity.check(built, x=X, y=Y, dtype="float64")
    assert report.passed
    assert {f"{name}/kernel.gradient", "layer_0/gamma.updated"} <= {row.tensor for row in report.rows}


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "bfloat16"])
def test_the_report_has_the_dtype_policy_of_the_caller(keras: Any, policy: str) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        report = parity.check("activation-tanh", modes=("eager",), dtype="float32")
    finally:
        keras.config.set_dtype_policy(before)
    assert report.passed
    assert report.environment["dtype_policy"] == policy
    assert f"dtype_policy {policy}" in report.to_text()


@pytest.mark.parametrize("policy", ["mixed_float16", "float16", "mixed_bfloat16", "int8_from_float32"])
def test_reduced_precision_is_refused_by_name(keras: Any, policy: str) -> None:
    built = model(keras.layers.Dense(5, name="first"), keras.layers.Dense(3, name="second", dtype=policy))
    said = f"layer 'second' has the dtype policy '{policy.partition('_from')[0]}'; a check runs the whole network in"
    with pytest.raises(parity.UsageError, match=said):
        check(built)


@pytest.mark.parametrize(
    "options",
    [
        {"training": False},
        {"loss": {"class_name": "Huber", "config": {"delta": 0.3}}, "batch": 5, "seed": 2},
        {"training": False, "modes": ("function", "eager"), "dtype": "float64"},
    ],
)
def test_the_command_has_every_argument_that_matters(options: dict[str, Any]) -> None:
    report = parity.check("activation-tanh", **options)
    again = eval(report.command, {"parity": parity})
    assert again.command == report.command
    assert [(c.loss, c.dtype, c.modes) for c in again.checks] == [(c.loss, c.dtype, c.modes) for c in report.checks]
    said = eval(report.command, {"parity": type("Said", (), {"check": staticmethod(lambda *_, **given: given)})})
    assert {**said, **options} == said


def test_the_command_for_what_lives_in_python() -> None:
    built = dense()
    given = check(built, loss="mae", dtype="float64").command
    assert given == (
        "parity.check(model, loss='mae', x=x, y=y, dtype='float64', seed=0, modes=('eager',))"
        "  # in Python, with the same model, x and y"
    )
    assert eval(given, {"parity": parity, "model": built, "x": X, "y": Y}).command == given
    alone = parity.check(built, dtype="float64").command
    assert alone == "parity.check(model, batch=32, dtype='float64', seed=0)  # in Python, with the same model"
    assert parity.check("activation-tanh", dtype="float64").command.startswith("parity check activation-tanh --batch")
