"""The project's own references: both reference networks, and the smallest network for each entry of the registry.

Replayed from tests/goldens without TensorFlow, or with --parity-live compared with Keras as it runs now.
"""

import numpy as np
import pytest

import parity
from parity import cases
from parity.spec import Spec

MODES = ("eager",)  # the others are compared live; a recording of each would double the files
SKETCH_ABOVE = 1000  # elements: the kernels of the reference networks, their gradients, what lies between layers


def named(spec: Spec) -> str:
    return f"{spec.name}-{spec.loss_name}"


@pytest.mark.parity(modes=MODES, sketch_above=SKETCH_ABOVE, data="digits", batch=4)
@pytest.mark.parametrize("spec", cases.networks(), ids=named)
def test_reference_network(spec: Spec, parity_check) -> None:
    assert parity_check(spec).passed


@pytest.mark.parity(modes=MODES, batch=4)
@pytest.mark.parametrize("spec", list(cases.cases()), ids=named)
def test_case(spec: Spec, parity_check) -> None:
    assert parity_check(spec).passed


@pytest.mark.parity(modes=MODES, sketch_above=SKETCH_ABOVE, data="digits", batch=4)
def test_a_network_of_ones_own(parity_check) -> None:
    """tanh-16 in plain NumPy, weights in Keras's order."""

    def forward(x, params):
        a0 = x.reshape(len(x), -1)
        a1 = np.tanh(a0 @ params["W1"] + params["b1"])
        a2 = np.tanh(a1 @ params["W2"] + params["b2"])
        e = np.exp(a2 @ params["W3"] + params["b3"])
        return e / e.sum(axis=1, keepdims=True), (a0, a1, a2)

    def backward(x, y, params, cache, p):
        a0, a1, a2 = cache
        dz3 = (p - y) / len(x)
        dz2 = dz3 @ params["W3"].T * (1 - a2**2)
        dz1 = dz2 @ params["W2"].T * (1 - a1**2)
        return {"dW1": a0.T @ dz1, "db1": dz1.sum(axis=0), "dW2": a1.T @ dz2, "db2": dz2.sum(axis=0),
                "dW3": a2.T @ dz3, "db3": dz3.sum(axis=0)}  # fmt: skip

    shapes = {"W1": (784, 16), "b1": (16,), "W2": (16, 16), "b2": (16,), "W3": (16, 10), "b3": (10,)}
    params = {name: np.zeros(shape) for name, shape in shapes.items()}
    mine = parity.subject(forward, backward, params)
    assert parity_check("tanh-16", mine, loss="categorical_crossentropy").passed
