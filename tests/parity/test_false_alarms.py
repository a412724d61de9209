"""Correct networks whose arithmetic once cost more than the float32 budgets allowed."""

import numpy as np
import pytest

from parity import fuzz, pipeline, trace
from parity.runners import scratch
from parity.runners import torch as in_torch
from parity.spec import Spec
from scratchnet import Sequential
from scratchnet.layers import Conv2D, Dense, Flatten


def test_pytorch_begins_a_sum_with_the_bias(torch):
    """Small inputs behind a large bias: nearly all of the rounding is of the bias, once for each term."""
    model = Sequential([Conv2D(17, 1), Flatten(), Dense(3)])
    model.build((None, 4, 4, 16))
    spec = Spec("biased", model.get_config(), "mse", training=False).with_dtype("float32")
    rng = np.random.default_rng(0)
    x = (0.01 * rng.standard_normal((64, *model.layers[0].input_shape[1:]))).astype("float32")
    named = dict(zip(scratch.Network.of(spec).weights, model.get_weights(), strict=True))
    weights = {name: (0.01 * rng.standard_normal(w.shape)).astype("float32") for name, w in named.items()}
    y = rng.standard_normal((64, *model.output_shape[1:])).astype("float32")
    places = list(trace.flow(scratch.Network.of(spec).layers, "mse", "sgd"))
    rows = pipeline.judge_local(spec, weights, x, y, in_torch.run(spec, weights, x, y), places)
    assert not [row for row in rows if not row.passed]


@pytest.mark.tensorflow
def test_keras_takes_the_sparse_crossentropy_of_probabilities_by_their_logarithms(keras):
    """Of a probability of 1e-7 the logarithm is rounded at 16, and the exponential of that is 16 times less exact."""
    layers = (fuzz.Made("layer", "Dense", {"units": 2, "activation": "sigmoid"}), fuzz.Made("layer", "Flatten", {}))
    loss, sgd = fuzz.Made("loss", "SparseCategoricalCrossentropy", {}), fuzz.Made("optimizer", "SGD", {})
    case = fuzz.Case(layers, (123,), loss, sgd, "float32", 256, 664, 30.0, 1.0, "normal", "eager")
    check = fuzz.examine(case)
    assert check.passed
    assert {row.tensor: row.budgets for row in check.rows}["flatten/output.gradient"] > 0  # it is no power to be exact
