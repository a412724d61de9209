"""What the data does to a cross-entropy of probabilities, with the loss written out here once more."""

import numpy as np
import pytest

from parity import facts
from parity.runners import scratch
from parity.spec import Spec
from scratchnet import Sequential
from scratchnet.layers import Dense


def said(p, y, loss):
    """The facts of a network that hands its samples to the loss as they are."""
    chain = Sequential([Dense(p.shape[1], use_bias=False)], name="as_they_are")
    chain.build((None, p.shape[1]))
    spec = Spec("as-they-are", chain.get_config(), loss).with_dtype("float64")
    (name,) = scratch.Network.of(spec).weights
    weights = {name: np.eye(p.shape[1])}
    return facts.of_loss(spec, weights, scratch.run(spec, weights, p, y), y)


P = np.array([[0.5, 0.25, 0.25], [1e-9, 0.5, 0.5 - 1e-9], [0.0, 0.5, 0.5]])


def test_probabilities_that_are_moderate_are_taken_as_they_are():
    assert said(P[:1], np.eye(3)[[0]], "categorical_crossentropy") == ()
    assert said(P, np.eye(3)[[1, 1, 1]], "categorical_crossentropy") == ()  # clipped, but the label is another one
    assert said(P * 40, np.eye(3)[[0, 0, 0]], "mean_squared_error") == ()


@pytest.mark.parametrize(
    ("loss", "y"),
    [("categorical_crossentropy", np.eye(3)[[0, 0]]), ("sparse_categorical_crossentropy", np.array([0, 0]))],
)
def test_the_clipped_samples_are_counted(loss, y):
    (sentence,) = said(P[:2], y, loss)
    assert sentence == f"1 sample is clipped at 1e-07: without the clip the loss is {-np.log([0.5, 1e-9]).mean():.4g}"


def test_without_the_clip_a_loss_may_be_infinite():
    (sentence,) = said(P, np.eye(3)[[0, 0, 0]], "categorical_crossentropy")
    assert sentence == "2 samples are clipped at 1e-07: without the clip the loss is inf"


def test_a_probability_of_one_is_clipped_for_a_binary_label():
    p, y = np.array([[0.5, 1 - 1e-9], [0.2, 0.3]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    losses = -np.mean(y * np.log(p) + (1 - y) * np.log1p(-p))
    (sentence,) = said(p, y, "binary_crossentropy")
    assert sentence == f"1 sample is clipped at 1e-07: without the clip the loss is {losses:.4g}"


def test_the_sums_of_rows():
    one = np.array([[0.89, 0.6, 0.5]])
    assert said(one, np.eye(3)[[0]], "categorical_crossentropy") == (
        "row sums are 1.99: Keras divides by the sum first",
    )
    (sentence,) = said(np.vstack([one, one / 2]), np.eye(3)[[0, 0]], "categorical_crossentropy")
    assert sentence.startswith("row sums are 0.995 to 1.99")


def test_logits_are_neither_clipped_nor_divided():
    loss = {"class_name": "CategoricalCrossentropy", "config": {"from_logits": True}}
    assert said(np.array([[-40.0, 40.0, 3.0]]), np.eye(3)[[0]], loss) == ()
