"""Exactly at kinks and ties: which of the right answers TensorFlow has, which one scratchnet, and whether it is one."""

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import parity
from parity.report import Report
from scratchnet import activations, layers, losses, regularizers
from scratchnet.sequential import BackwardPass, Chain

AT_ZERO = "elements of activation/output.gradient are exactly at the kink of relu: TensorFlow takes 0"


def said(report: Report, verdict: str) -> list[str]:
    """What both precisions say of kinks, which is the same."""
    assert report.verdict == verdict
    narrow, wide = report.checks
    assert (narrow.dtype, wide.dtype) == ("float32", "float64")
    assert narrow.kinks == wide.kinks
    return list(narrow.kinks)


# -- kinks of activations ----------------------------------------------------------------------------------------------


def relu_with(slope: float) -> Callable[..., Any]:
    """A derivative of relu that is this at 0."""

    def backward(self: Any, x: Any, y: Any, dy: Any) -> Any:
        return np.where(x > 0, dy, np.where(x == 0, dy * slope, np.zeros_like(dy)))

    return backward


def relu_at_zero(monkeypatch: pytest.MonkeyPatch, backward: Callable[..., Any], verdict: str = "fail") -> str:
    """What is said of the second of two relus, the one that sees zeros, if all have this derivative."""
    monkeypatch.setattr(activations.Relu, "backward", backward)
    [sentence] = said(parity.check("relu-at-zero", modes=("eager",)), verdict)
    assert int(sentence.split()[0]) > 50
    return sentence


@pytest.mark.tensorflow
def test_the_side_of_tensorflow_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert relu_at_zero(monkeypatch, relu_with(0), "pass").endswith(f"{AT_ZERO}, and so do you")


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("slope", "answer"),
    [
        (1, "you take 1, the derivative from the other side"),
        (0.5, "you take 0.5, between the derivatives from both sides, a subgradient"),
        (-100, "you take -100, neither the derivative from one side nor between them: wrong"),
        (1.001, "you take 1.001, neither the derivative from one side nor between them: wrong"),
    ],
)
def test_another_slope_at_zero(monkeypatch: pytest.MonkeyPatch, slope: float, answer: str) -> None:
    sentence = relu_at_zero(monkeypatch, relu_with(slope))
    assert sentence.endswith(f"{AT_ZERO}, {answer}; no other difference in any operation")


@pytest.mark.tensorflow
def test_different_slopes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def backward(self: Any, x: Any, y: Any, dy: Any) -> Any:
        at_zero = dy * np.array([1, 1, 7, 7, 0])  # one for each unit
        return np.where(x > 0, dy, np.where(x == 0, at_zero.astype(dy.dtype), np.zeros_like(dy)))

    sentence = relu_at_zero(monkeypatch, backward)
    assert "you take 1 at " in sentence
    assert "the derivative from the other side; you take 7 at " in sentence


@pytest.mark.tensorflow
def test_no_answer_is_called_right_where_the_derivatives_beside_it_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is then wrong on the other side as well, and equal to that."""
    sentence = relu_at_zero(monkeypatch, lambda self, x, y, dy: np.where(x >= 0, -100 * dy, np.zeros_like(dy)))
    assert sentence.endswith(f"{AT_ZERO}, you take -100; other elements of it differ, too")


@pytest.mark.tensorflow
def test_a_difference_elsewhere_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    right = layers.Dense.transform_backward

    def doubled(self: Any, saved: Any, dz: Any) -> Any:
        dx, gradients = right(self, saved, dz)
        return dx, {**gradients, "bias": 2 * gradients["bias"]}

    monkeypatch.setattr(layers.Dense, "transform_backward", doubled)
    assert relu_at_zero(monkeypatch, relu_with(1)).endswith("no other element of it differs, but other tensors do")
    assert relu_at_zero(monkeypatch, relu_with(0)).endswith(f"{AT_ZERO}, and so do you")


@pytest.mark.tensorflow
def test_two_kinks_of_one_activation(keras: ModuleType) -> None:
    """TensorFlow takes 0 at the threshold and 1 at the maximum."""
    stack = [keras.layers.ReLU(max_value=2.0, threshold=1.0, name="cut"), keras.layers.Dense(2)]
    x = np.random.default_rng(0).integers(0, 4, (6, 5))
    [sentence] = said(check(keras, stack, (5,), x), "pass")
    count = np.count_nonzero((x == 1) | (x == 2))
    assert sentence == (
        f"{count} elements of input.gradient are exactly at the kink of relu: TensorFlow takes 0 or 1, and so do you"
    )


@pytest.mark.tensorflow
def test_where_no_gradient_arrives_there_is_nothing_to_choose(keras: ModuleType) -> None:
    kernel = np.random.default_rng(0).standard_normal((4, 2))
    kernel[2:] = 0
    x = np.zeros((3, 4))
    x[:, 0] = 1
    [sentence] = said(check(keras, [keras.layers.ReLU(), keras.layers.Dense(2)], (4,), x, [kernel, np.ones(2)]), "pass")
    assert sentence.startswith("3 elements of input.gradient")  # of nine zeros


@pytest.mark.tensorflow
@pytest.mark.parametrize(("sign", "answer"), [(1, "the derivative from one side"), (0.5, "a subgradient"),
                                              (-7, "wrong")])  # fmt: skip
def test_a_penalty_at_weights_of_zero(monkeypatch: pytest.MonkeyPatch, keras: ModuleType, sign: float, answer: str):
    kernel = np.random.default_rng(0).standard_normal((3, 2))
    kernel[1] = 0
    stack = [keras.layers.Dense(2, kernel_regularizer=keras.regularizers.L1(0.5), use_bias=False, name="dense")]
    x = np.random.default_rng(1).standard_normal((4, 3))
    [sentence] = said(check(keras, stack, (3,), x, [kernel]), "pass")
    assert sentence.startswith("2 elements of dense/kernel.gradient are exactly at the kink of L1")

    def backward(self: Any, w: Any) -> Any:
        return (0.5 * np.where(w == 0, sign, np.sign(w))).astype(w.dtype)

    monkeypatch.setattr(regularizers.L1, "backward", backward)
    sentence, *_ = said(check(keras, stack, (3,), x, [kernel]), "fail")
    assert answer in sentence


def check(
    keras: ModuleType, stack: list[Any], shape: tuple[int, ...], x: np.ndarray, weights: list[np.ndarray] | None = None
) -> Report:
    model = keras.Sequential([keras.Input(shape), *stack])
    model.compile("sgd", "mse")
    rng = np.random.default_rng(1)
    model.set_weights(weights or [rng.standard_normal(weight.shape) for weight in model.get_weights()])
    y = rng.standard_normal((len(x), *model.output_shape[1:]))
    return parity.check(model, x=x, y=y, modes=("eager",))


# -- kinks of losses ---------------------------------------------------------------------------------------------------


def absolute_error(keras: ModuleType) -> Report:
    """Six predictions in three samples of two, of which five are exact: quarters, which both precisions hold."""
    x = np.random.default_rng(0).integers(-3, 4, (3, 4))
    kernel = np.random.default_rng(1).integers(-3, 4, (4, 2)) / 4
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="last")])
    model.compile("sgd", "mae")
    model.set_weights([kernel, np.ones(2)])
    y = x @ kernel + 1
    y[0, 0] += 1
    return parity.check(model, x=x, y=y, modes=("eager",))


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("sign", "answer"),
    [
        (0, "and so do you"),
        (1, "you take 0.166667, the derivative from one side"),
        (-0.5, "you take -0.0833333, between the derivatives from both sides, a subgradient"),
        (3, "you take 0.5, neither the derivative from one side nor between them: wrong"),
    ],
)
def test_the_absolute_error_of_an_exact_prediction(
    keras: ModuleType, monkeypatch: pytest.MonkeyPatch, sign: float, answer: str
) -> None:
    """TensorFlow's 0 is between -1 and 1, of the mean of six."""

    def derivative(self: Any, y_true: Any, y_pred: Any) -> Any:
        error = y_pred - y_true
        return np.where(error == 0, np.zeros_like(y_pred) + sign, np.sign(error)) / y_pred.shape[-1]

    monkeypatch.setattr(losses.MeanAbsoluteError, "derivative", derivative)
    [sentence] = said(absolute_error(keras), "fail" if sign else "pass")
    assert sentence == (
        f"5 elements of last/output.gradient are exactly at the kink of MeanAbsoluteError: TensorFlow takes 0, {answer}"
        + ("; no other difference in any operation" if sign else "")
    )


def test_only_the_absolute_error_has_a_kink() -> None:
    y = np.array([[1.0, 0.0]])
    assert losses.MeanAbsoluteError().two_sided(y[:, 0], y[:, :1]).tolist() == [[True]]
    assert losses.MeanAbsoluteError().two_sided(y, np.array([[1.0, 0.5]])).tolist() == [[True, False]]
    assert losses.Huber().two_sided(y, y) is None


# -- ties in pooling ---------------------------------------------------------------------------------------------------

Shares = Callable[[np.ndarray], np.ndarray]
"""Which cells of each window are its largest -> the part of its gradient that each gets; (cells, windows ...)."""


def pooling_that(shares: Shares) -> Callable[..., Any]:
    def backward(self: Any, saved: Any, dz: Any) -> Any:
        x = getattr(saved.x, "value", saved.x)  # which cells are equal does not depend on rounding
        cells = np.stack(self.windows.cells(x, fill=-np.inf))
        parts = shares(cells == np.max(cells, axis=0)).astype(dz.dtype)
        return self.windows.scatter([part * dz for part in parts], x.shape), {}

    return backward


def first(largest: np.ndarray) -> np.ndarray:
    return largest & (np.cumsum(largest, axis=0) == 1)


def last(largest: np.ndarray) -> np.ndarray:
    return first(largest[::-1])[::-1]


def second(largest: np.ndarray) -> np.ndarray:
    """The second of three and more."""
    return np.where(largest.sum(axis=0) > 2, largest & (np.cumsum(largest, axis=0) == 2), first(largest))


def split(largest: np.ndarray) -> np.ndarray:
    return largest / largest.sum(axis=0)


def everything(largest: np.ndarray) -> np.ndarray:
    return largest * 1.0


def too_little(largest: np.ndarray) -> np.ndarray:
    return np.where(largest.sum(axis=0) > 1, 0.7 * first(largest), largest)


def against_each_other(largest: np.ndarray) -> np.ndarray:
    """The sum is right, the parts are not."""
    return np.where(largest.sum(axis=0) > 1, 2.0 * first(largest) - last(largest), largest)


APART: dict[str, Any] = {"pool_size": 2}
OVERLAPPING: dict[str, Any] = {"pool_size": 3, "strides": 1, "padding": "same"}
DIGITS = np.random.default_rng(0).integers(0, 3, (5, 4, 4, 2)).astype(float)
"""Images with many ties."""


def pooled(keras: ModuleType, arguments: dict[str, Any]) -> Report:
    stack = [keras.layers.MaxPooling2D(**arguments, name="pool"), keras.layers.Flatten(), keras.layers.Dense(3)]
    return check(keras, stack, (4, 4, 2), DIGITS)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("arguments", "shares", "answer"),
    [
        (APART, last, "you give it to the last"),
        (APART, split, "you split it between them"),
        (APART, everything, "what you give them is no split of it: wrong"),
        (APART, too_little, "what you give them is no split of it: wrong"),
        (APART, against_each_other, "what you give them is no split of it: wrong"),
        (OVERLAPPING, last, "you give it to the last"),
        (OVERLAPPING, split, "you split it between them"),
        (OVERLAPPING, everything, "what you give them is no split of it: wrong"),
        (OVERLAPPING, too_little, "what you give them is no split of it: wrong"),
    ],
)
def test_another_split_between_equal_maxima(
    keras: ModuleType, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], shares: Shares, answer: str
) -> None:
    monkeypatch.setattr(layers.MaxPooling2D, "transform_backward", pooling_that(shares))
    [sentence] = said(pooled(keras, arguments), "fail")
    _, has, is_given = sentence.partition("TensorFlow gives the gradient to the first, ")
    assert has, sentence
    assert is_given.startswith(answer)
    assert is_given.endswith("; no other difference in any operation")


@pytest.mark.tensorflow
@pytest.mark.parametrize("arguments", [APART, OVERLAPPING], ids=["apart", "overlapping"])
def test_the_split_of_tensorflow(keras: ModuleType, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]) -> None:
    monkeypatch.setattr(layers.MaxPooling2D, "transform_backward", pooling_that(first))
    [sentence] = said(pooled(keras, arguments), "pass")
    assert sentence.endswith(" elements of input.gradient): TensorFlow gives the gradient to the first, and so do you")


@pytest.mark.tensorflow
def test_windows_and_cells_are_counted(keras: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = DIGITS.reshape(5, 2, 2, 2, 2, 2).transpose(0, 1, 3, 5, 2, 4).reshape(-1, 4)
    largest = np.sum(blocks == blocks.max(axis=1, keepdims=True), axis=1)
    tied, three = largest > 1, largest > 2
    monkeypatch.setattr(layers.MaxPooling2D, "transform_backward", pooling_that(second))
    [sentence] = said(pooled(keras, APART), "fail")
    assert sentence == (
        f"{tied.sum()} windows of pool have equal maxima ({largest[tied].sum()} elements of input.gradient): "
        f"TensorFlow gives the gradient to the first, you give it to another one at {three.sum()} of them; "
        "no other difference in any operation"
    )


def test_ties_list_every_window_of_an_equal_cell() -> None:
    image = np.array([[0.0, 7.0, 7.0, 1.0]]).reshape(1, 1, 4, 1)
    window, cell = layers.MaxPooling2D((1, 2), strides=1).ties(image)
    assert (window.tolist(), cell.tolist()) == ([0, 1, 1, 2], [1, 1, 2, 2])  # 0 and 2 are no ties, but their cells are
    window, cell = layers.MaxPooling2D(2, padding="same").ties(np.full((1, 3, 3, 1), -1.0))
    assert window.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]  # what is added wins nothing, and the last window has one cell
    assert cell.tolist() == [0, 1, 3, 4, 2, 5, 6, 7]
    assert layers.Dense(2).ties(image) is None


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["loss-MeanAbsoluteError", "activation-relu", "layer-Dropout-inference"])
def test_off_the_kinks_there_is_nothing_to_say(name: str) -> None:
    for check in parity.check(name, modes=("eager",)).checks:
        assert check.kinks == ()


@pytest.mark.tensorflow
def test_what_only_the_chain_gets_wrong_is_no_matter_of_kinks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chain is compared with its operations on fewer samples than there are here."""
    right = Chain.backward

    def doubled(self: Chain, passed: Any, loss: Any, y_true: Any, sample_weight: Any = None) -> Any:
        below, *others = right(self, passed, loss, y_true, sample_weight).layers
        return BackwardPass((replace(below, dy=2 * below.dy), *others), None)

    monkeypatch.setattr(Chain, "backward", doubled)
    report = parity.check("relu-at-zero", dtype="float32", batch=70, modes=("eager",))
    assert report.verdict == "fail"
    assert all(sentence.endswith("and so do you") for check in report.checks for sentence in check.kinks)
