"""Somebody's own recurrent network, in plain NumPy: right it passes, with a mistake in it the mistake is named."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import parity
from parity.report import Report

pytestmark = pytest.mark.tensorflow

BATCH, STEPS, FEATURES, UNITS, CLASSES = 7, 6, 3, 5, 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(BATCH, STEPS, FEATURES))
Y = np.eye(CLASSES)[RNG.integers(0, CLASSES, BATCH)]

MISTAKES: dict[str, dict[str, Callable[..., Any]]] = {
    "rnn-tanh-derivative-not-squared": {"derivative": lambda h: 1 - h},
    "rnn-derivative-missing": {"derivative": lambda h: 1},
    "rnn-carried-kernel-not-transposed": {"carried": lambda da, u, t: da @ u},
    "rnn-carried-gradient-missing": {"carried": lambda da, u, t: 0 * da},
    "rnn-gradient-truncated": {"carried": lambda da, u, t: da @ u.T * (t == STEPS - 1)},
    "rnn-recurrent-gradient-of-same-step": {"state": lambda h, t: h[t + 1]},
    "rnn-weight-gradients-overwritten": {"added": lambda old, new: new},
    "rnn-state-before-activation": {"handed_on": lambda a: a},
}
"""Code of the catalogue -> what is different in the source below."""


def network(
    derivative: Callable[..., Any] = lambda h: 1 - h**2,
    carried: Callable[..., Any] = lambda da, u, t: da @ u.T,
    state: Callable[..., Any] = lambda h, t: h[t],
    added: Callable[..., Any] = lambda old, new: old + new,
    step: Callable[..., Any] = lambda t: t,
    handed_on: Callable[..., Any] = np.tanh,
) -> Any:
    """Many steps in, one class out: tanh in the recurrence, softmax on top, cross-entropy."""
    rng = np.random.default_rng(1)
    params = {
        "Wxh": rng.normal(size=(FEATURES, UNITS)) * 0.5,
        "Whh": rng.normal(size=(UNITS, UNITS)) * 0.5,
        "bh": np.zeros(UNITS),
        "Why": rng.normal(size=(UNITS, CLASSES)) * 0.5,
        "by": np.zeros(CLASSES),
    }

    def forward(X: np.ndarray, params: dict[str, np.ndarray]) -> Any:
        h, handed = [np.zeros((len(X), UNITS))], np.zeros((len(X), UNITS))
        for t in range(STEPS):
            a = X[:, step(t)] @ params["Wxh"] + handed @ params["Whh"] + params["bh"]
            h.append(np.tanh(a))
            handed = handed_on(a)
        z = h[-1] @ params["Why"] + params["by"]
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True), h

    def backward(
        X: np.ndarray, y: np.ndarray, params: dict[str, np.ndarray], cache: Any, y_hat: np.ndarray
    ) -> dict[str, np.ndarray]:
        h, dz = cache, (y_hat - y) / len(X)
        g = {name: np.zeros_like(array) for name, array in params.items()}
        g["Why"], g["by"] = h[-1].T @ dz, dz.sum(axis=0)
        dh = dz @ params["Why"].T
        for t in reversed(range(STEPS)):
            da = dh * derivative(h[t + 1])
            g["Wxh"] = added(g["Wxh"], X[:, step(t)].T @ da)
            g["Whh"] = added(g["Whh"], state(h, t).T @ da)
            g["bh"] = added(g["bh"], da.sum(axis=0))
            dh = carried(da, params["Whh"], t)
        return g

    return parity.subject(forward, backward, params)


def check(subject: Any) -> Report:
    keras = pytest.importorskip("keras")
    layers = keras.layers
    stack = [layers.SimpleRNN(UNITS, name="rnn"), layers.Dense(CLASSES, "softmax", name="head")]
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), *stack])
    model.compile(loss="categorical_crossentropy")
    return parity.check(model, subject, X, Y, modes=("eager",))


def test_a_right_one_passes() -> None:
    report = check(network())
    assert report.verdict == "pass", report.to_text()
    assert [row.tensor for row in report.checks[0].rows] == [
        "head/output",
        "head/kernel.gradient",
        "head/bias.gradient",
        "rnn/kernel.gradient",
        "rnn/recurrent_kernel.gradient",
        "rnn/bias.gradient",
    ]


@pytest.mark.parametrize("code", MISTAKES)
def test_a_mistake_is_named(code: str) -> None:
    report = check(network(**MISTAKES[code]))
    assert report.verdict == "fail"
    assert {finding.cause.code if finding.cause else "" for finding in report.findings} == {code}, report.to_text()


def test_where_only_the_outputs_tell_the_mistake_is_named_there() -> None:
    """The gradients meet the inputs in the wrong order, too, which is right for the wrong outputs."""
    report = check(network(step=lambda t: STEPS - 1 - t))
    first = report.findings[0]
    assert "head/output" in first.tensor
    assert first.cause is not None
    assert first.cause.code.startswith("rnn-steps-reversed")
