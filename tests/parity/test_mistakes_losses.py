"""Wrong formulas against numbers that were worked out by hand, and the conditions under which they cannot be seen."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from parity.mistakes import catalogue
from parity.runners.steps import Operation
from scratchnet import activations, losses, optimizers, regularizers

ROUNDING = 16 * 2.0**-53  # no formula here rounds more often, and all terms are of order 1
BY_CODE = {m.code: m for m in catalogue()}
QUARTERS = np.log([[1.0, 3.0], [3.0, 1.0]])  # softmax: rows (1/4, 3/4) and (3/4, 1/4)


def array(*values: Any) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def activation(entry: Any, direction: str, x: np.ndarray, dy: np.ndarray) -> Operation:
    y = entry.forward(x)
    outputs = {"y": y} if direction == "forward" else {"dx": entry.backward(x, y, dy)}
    return Operation(entry, direction, "layer", {"x": x, "y": y, "dy": dy}, outputs, {})


def loss(entry: Any, direction: str, y_true: np.ndarray, y_pred: np.ndarray, **logits: np.ndarray) -> Operation:
    inputs = {"y_true": y_true, "y_pred": y_pred, **logits, "penalty": 0.5}
    result = getattr(entry, direction)(y_true, y_pred, logits.get("logits"))
    outputs = {"loss": result + 0.5} if direction == "forward" else {"d": result}
    return Operation(entry, direction, "", inputs, outputs, {})


def classes(entry: Any, direction: str, y_true: np.ndarray) -> Operation:
    return loss(entry, direction, y_true, activations.Softmax().forward(QUARTERS), logits=QUARTERS)


def penalty(entry: Any, direction: str, w: np.ndarray, batch: int = 2) -> Operation:
    g = np.ones_like(w)
    outputs = {"penalty": entry.forward(w)} if direction == "forward" else {"g": g + entry.backward(w)}
    context = {"saved": [SimpleNamespace(x=np.zeros((batch, 1)))]}
    return Operation(entry, direction, "layer", {"w": w, "g": g}, outputs, {}, context=context)


def update(entry: Any, g: np.ndarray, batch: int = 2) -> Operation:
    w = np.ones_like(g)
    state = entry.zero_state(w)
    context = {"saved": [SimpleNamespace(x=np.zeros((batch, 1)))]}
    outputs = {"w": entry.step(w, g, state)[0]}
    return Operation(entry, "update", "layer", {"w": w, "g": g, **state}, outputs, {}, context=context)


ROWS = array([1.0, 0.0], [1.0, 0.0])  # both samples belong to class 0
LOG = np.log
WITNESSES = [
    ("tanh-derivative-of-input", activation(activations.Tanh(), "backward", array(2.0), array(5.0)), array(-15.0)),
    ("relu-passes-at-zero", activation(activations.Relu(), "backward", array(-1.0, 0.0), array(5.0, 7.0)), array(0, 7)),
    ("leaky-relu-slope-of-layer", activation(activations.LeakyRelu(), "forward", array(-2.0), array(1.0)), array(-0.6)),
    (
        "softmax-diagonal-only",  # right: (3/16, -3/16)
        activation(activations.Softmax(), "backward", QUARTERS[:1], array([1.0, 0.0])),
        array([3 / 16, 0.0]),
    ),
    (
        "gelu-derivative-density-without-input",  # at 0: Phi = 1/2, phi = 1/sqrt(2 pi)
        activation(activations.Gelu(), "backward", array(0.0), array(1.0)),
        array(0.5 + (2 * np.pi) ** -0.5),
    ),
    (
        "mse-gradient-of-half-sum",
        loss(losses.MeanSquaredError(), "backward", array([0.0, 0, 0], [0, 0, 0]), array([1.0, 2, 3], [4, 5, 6])),
        array([0.5, 1, 1.5], [2, 2.5, 3]),
    ),
    (
        "mae-gradient-of-squared-error",
        loss(losses.MeanAbsoluteError(), "backward", array([0.0], [0.0]), array([3.0], [-5.0])),
        array([1.5], [-2.5]),
    ),
    (
        "huber-without-constant",  # 4.5 and 1/8
        loss(losses.Huber(), "forward", array([0.0], [0.0]), array([4.5], [0.5])),
        array(4.625 / 2 + 0.5),
    ),
    (
        "bce-gradient-by-probabilities",  # p = 3/4, y = 1: -1/p
        loss(losses.BinaryCrossentropy(), "backward", array([1.0]), array([0.75]), logits=LOG(array([3.0]))),
        array([-4 / 3]),
    ),
    (
        "cce-averaged-over-classes",
        classes(losses.CategoricalCrossentropy(), "forward", ROWS),
        array((LOG(4) + LOG(4 / 3)) / 4 + 0.5),
    ),
    (
        "cce-gradient-diagonal-only",  # -(1 - p) at the own class
        classes(losses.CategoricalCrossentropy(), "backward", ROWS),
        array([-3 / 8, 0], [-1 / 8, 0]),
    ),
    (
        "cce-gradient-smoothed-over-other-classes",  # labels (0.8, 0.2)
        classes(losses.CategoricalCrossentropy(label_smoothing=0.2), "backward", ROWS),
        array([-0.55 / 2, 0.55 / 2], [-0.05 / 2, 0.05 / 2]),
    ),
    (
        "scce-every-label-in-every-row",  # each row gives both of its probabilities
        classes(losses.SparseCategoricalCrossentropy(), "forward", np.array([0, 1])),
        array((LOG(4) + LOG(4 / 3)) / 2 + 0.5),
    ),
    (
        "scce-gradient-every-label-in-every-row",
        classes(losses.SparseCategoricalCrossentropy(), "backward", np.array([0, 1])),
        array([-3 / 8, -1 / 8], [-1 / 8, -3 / 8]),
    ),
    ("l2-penalty-root", penalty(regularizers.L2(0.5), "forward", array(3.0, 4.0)), array(2.5)),
    ("l1-gradient-without-sign", penalty(regularizers.L1(0.5), "backward", array(-3.0, 4.0)), array(1.5, 1.5)),
    ("l1l2-penalty-factors-swapped", penalty(regularizers.L1L2(0.5, 0.25), "forward", array(3.0, 4.0)), array(14.25)),
    ("sgd-mean-of-gradient", update(optimizers.SGD(0.5), array(1.0, 3.0)), array(0.0, 0.0)),
    ("sgd-nesterov-missing", update(optimizers.SGD(0.5, 0.5, nesterov=True), array(4.0)), array(-1.0)),
]


@pytest.mark.parametrize(("code", "operation", "expected"), WITNESSES, ids=[code for code, *_ in WITNESSES])
def test_the_wrong_formula_by_hand(code: str, operation: Operation, expected: np.ndarray) -> None:
    wrong = BY_CODE[code].apply(operation)
    assert wrong is not None
    [result] = wrong.values()
    [right] = operation.outputs.values()
    assert np.shape(result) == np.shape(right)
    np.testing.assert_allclose(result, np.reshape(expected, np.shape(result)), rtol=ROUNDING, atol=ROUNDING)


ONE = array([0.5])
UNSEEN = [
    ("relu-passes-at-zero", activation(activations.Relu(), "backward", array(-1.0, 2.0), array(5.0, 7.0))),
    ("leaky-relu-slope-of-activation", activation(activations.LeakyRelu(0.2), "forward", array(-1.0), array(1.0))),
    ("softmax-over-everything", activation(activations.Softmax(), "forward", QUARTERS[:1], QUARTERS[:1])),
    ("loss-gradient-sum-for-mean", loss(losses.MeanSquaredError(), "backward", ONE, array([2.0]))),
    ("mse-gradient-of-half-sum", loss(losses.MeanSquaredError(), "backward", ROWS, QUARTERS)),
    ("huber-gradient-not-clipped", loss(losses.Huber(9.0), "backward", ROWS, QUARTERS)),
    ("cce-labels-not-smoothed", classes(losses.CategoricalCrossentropy(), "forward", ROWS)),
    ("regularizer-gradient-divided-by-batch", penalty(regularizers.L2(), "backward", array(3.0), batch=1)),
    ("sgd-divided-by-batch", update(optimizers.SGD(), array(1.0), batch=1)),
    ("sgd-without-learning-rate", update(optimizers.SGD(1.0), array(1.0))),
]


@pytest.mark.parametrize(("code", "operation"), UNSEEN, ids=[code for code, _ in UNSEEN])
def test_a_mistake_that_changes_nothing_is_not_made(code: str, operation: Operation) -> None:
    assert BY_CODE[code].function(operation) is None


def test_two_errors_that_cancel() -> None:
    """Half of a softmax Jacobian and the wrong cross-entropy give p - y; each alone does not."""
    operation = classes(losses.CategoricalCrossentropy(), "backward", ROWS)
    both = BY_CODE["cce-gradient-of-binary-labels-and-diagonal"]
    assert both.equivalent
    np.testing.assert_allclose(both.function(operation)["d"], operation.outputs["d"], rtol=ROUNDING)  # type: ignore[index]
    for code in ("cce-gradient-of-binary-labels", "cce-gradient-diagonal-only"):
        assert not np.allclose(BY_CODE[code].function(operation)["d"], operation.outputs["d"], rtol=0.1)  # type: ignore[index]
