"""Long sequences: the bounds of many steps must not be so wide that anything passes."""

from typing import Any

import numpy as np
import pytest

import parity
from parity.report import Report
from scratchnet.layers import SimpleRNN

pytestmark = pytest.mark.tensorflow

PER_MILLE = 1.001  # the error that is planted: in float32 31 to 54 times what is allowed, as measured
NETWORKS = [
    (6, {}),
    (28, {}),
    (80, {}),
    (28, {"activation": "relu"}),
    (28, {"recurrent_regularizer": "l2"}),
]


def check(steps: int, dtype: str, **settings: Any) -> Report:
    keras = pytest.importorskip("keras")
    layers = [keras.Input((steps, 9)), keras.layers.SimpleRNN(32, name="rnn", **settings), keras.layers.Dense(3)]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    return parity.check(model, dtype=dtype, modes=("eager",))


@pytest.mark.parametrize(("steps", "settings"), NETWORKS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_right_network_passes_and_a_slightly_wrong_one_does_not(
    steps: int, dtype: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check(steps, dtype, **settings).verdict == "pass"
    right = SimpleRNN.transform_backward

    def wrong(self: SimpleRNN, saved: Any, dz: np.ndarray) -> Any:
        dx, gradients = right(self, saved, dz)
        return dx, {**gradients, "recurrent_kernel": gradients["recurrent_kernel"] * PER_MILLE}

    monkeypatch.setattr(SimpleRNN, "transform_backward", wrong)
    report = check(steps, dtype, **settings)
    assert report.verdict == "fail", report.sentence
    assert report.checks[0].first_wrong is not None
    assert report.checks[0].first_wrong.tensor == "rnn/recurrent_kernel.gradient"
