"""Right networks in plain NumPy, each written as somebody might write it: no two hold their parameters, hand on what
the forward pass computed, and return their gradients in quite the same way."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from parity import subject
from parity.subjects import Subject

__all__ = ["NETWORKS", "Own"]

Array = np.ndarray
RNG = np.random.default_rng


@dataclass(frozen=True)
class Own:
    """A network in NumPy, and the same in Keras.

    stack: class and arguments of each layer; scale: what Keras's initial kernels are multiplied by; options: of
    `parity.check`; conventions: codes of what is different and not wrong.
    """

    stack: tuple[tuple[str, Mapping[str, Any]], ...]
    loss: Any
    subject: Subject
    x: Array
    y: Array
    scale: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)
    forward_only: bool = False
    conventional: bool = False


NETWORKS: dict[str, Callable[[], Own]] = {}
"""Name -> what makes the network."""


def network(make: Callable[..., Own], name: str = "", *args: Any, **kwargs: Any) -> Callable[..., Own]:
    """Enter a network into the table; with arguments, one more of its kind."""
    NETWORKS[name or make.__name__.replace("_", " ").strip()] = partial(make, *args, **kwargs)
    return make


def dense(units: int, activation: str = "linear", **more: Any) -> tuple[str, Mapping[str, Any]]:
    return "Dense", {"units": units, "activation": activation, **more}


def samples(batch: int = 7, inputs: Any = 6) -> Array:
    return RNG(1).normal(size=(batch, *np.atleast_1d(inputs)))


def one_hot(batch: int = 7, classes: int = 3) -> Array:
    return np.eye(classes)[integers(batch, classes)]


def integers(batch: int = 7, classes: int = 3) -> Array:
    return RNG(2).integers(0, classes, batch)


def binary(batch: int = 7, outputs: int = 3) -> Array:
    return RNG(3).integers(0, 2, (batch, outputs)).astype(float)


def real(batch: int = 7, outputs: int = 3) -> Array:
    return RNG(4).normal(size=(batch, outputs))


def matrix(*shape: int) -> Array:
    return RNG(sum(shape)).normal(size=shape) * 0.4


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


def softmax(z: Array, axis: int = 1) -> Array:
    e = np.exp(z - z.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


# -- rows, a dict of parameters, a dict of what the forward pass computed: every activation and every loss -------------

ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array, Array, Array], Array]]] = {
    "linear": (lambda z: z, lambda z, a, da: da),
    "sigmoid": (sigmoid, lambda z, a, da: da * a * (1 - a)),
    "tanh": (np.tanh, lambda z, a, da: da * (1 - a**2)),
    "relu": (lambda z: np.maximum(0, z), lambda z, a, da: da * (z > 0)),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.2 * z), lambda z, a, da: da * np.where(z > 0, 1, 0.2)),
    "softmax": (softmax, lambda z, a, da: a * (da - (da * a).sum(axis=1, keepdims=True))),
}
LOSSES: dict[str, tuple[Callable[[Array, Array], float], Callable[[Array, Array], Array]]] = {
    "mean_squared_error": (lambda p, y: np.mean((p - y) ** 2), lambda p, y: 2 * (p - y) / y.size),
    "mean_absolute_error": (lambda p, y: np.mean(np.abs(p - y)), lambda p, y: np.sign(p - y) / y.size),
    "huber": (
        lambda p, y: np.mean(np.where(np.abs(p - y) < 1, 0.5 * (p - y) ** 2, np.abs(p - y) - 0.5)),
        lambda p, y: np.clip(p - y, -1, 1) / y.size,
    ),
    "binary_crossentropy": (
        lambda p, y: -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)),
        lambda p, y: (p - y) / (p * (1 - p)) / y.size,
    ),
    "categorical_crossentropy": (lambda p, y: -np.sum(y * np.log(p)) / len(y), lambda p, y: -y / p / len(y)),
}


def in_rows(hidden: str, head: str, loss: str, y: Array, x: Array | None = None, units: int = 5, **more: Any) -> Own:
    """Two layers, the chain rule written out with no shortcut for softmax and cross-entropy."""
    x = samples(len(y)) if x is None else x
    inputs, outputs = x.shape[1], y.shape[1]
    params = {"W1": matrix(inputs, units), "b1": np.zeros(units), "W2": matrix(units, outputs), "b2": np.zeros(outputs)}
    (f1, g1), (f2, g2), (value, derivative) = ACTIVATIONS[hidden], ACTIVATIONS[head], LOSSES[loss]

    def forward(x: Array, params: Any) -> Any:
        z1 = x @ params["W1"] + params["b1"]
        a1 = f1(z1)
        z2 = a1 @ params["W2"] + params["b2"]
        return f2(z2), {"Z1": z1, "A1": a1, "Z2": z2}

    def backward(x: Array, y: Array, params: Any, cache: Any, y_pred: Array) -> Any:
        dz2 = g2(cache["Z2"], y_pred, derivative(y_pred, y))
        dz1 = g1(cache["Z1"], cache["A1"], dz2 @ params["W2"].T)
        return {"dW1": x.T @ dz1, "db1": dz1.sum(axis=0), "dW2": cache["A1"].T @ dz2, "db2": dz2.sum(axis=0)}

    return Own((dense(units, hidden), dense(outputs, head)), loss, subject(forward, backward, params, loss=value), x, y,
               **more)  # fmt: skip


for _name in ACTIVATIONS:
    network(in_rows, f"rows, {_name}", _name, "linear", "mean_squared_error", real())
for _head, _loss, _y in (
    ("sigmoid", "mean_squared_error", binary()),
    ("softmax", "mean_squared_error", one_hot()),
    ("linear", "mean_absolute_error", real()),
    ("linear", "huber", real()),
    ("sigmoid", "binary_crossentropy", binary()),
    ("softmax", "categorical_crossentropy", one_hot()),
    ("tanh", "huber", real()),
):
    network(in_rows, f"rows, {_head} and {_loss}", "tanh", _head, _loss, _y)

network(in_rows, "batch of 1", "tanh", "softmax", "categorical_crossentropy", one_hot(1))
network(in_rows, "as many samples as outputs", "tanh", "sigmoid", "mean_squared_error", binary(3))
network(in_rows, "as many samples as units", "relu", "sigmoid", "mean_squared_error", binary(5))
network(in_rows, "one unit, one output", "tanh", "linear", "mean_squared_error", real(7, 1), units=1)
network(in_rows, "square layers", "tanh", "linear", "mean_squared_error", real(7, 6), units=6)
network(in_rows, "as many of everything", "tanh", "linear", "mean_squared_error", real(6, 6), samples(6), units=6)
network(in_rows, "saturated sigmoids", "sigmoid", "sigmoid", "mean_squared_error", binary(), scale=40.0)
network(in_rows, "saturated tanh", "tanh", "linear", "mean_squared_error", real(), scale=40.0)
network(in_rows, "dead units", "relu", "linear", "mean_squared_error", real(3), samples(3), units=40)
network(in_rows, "large logits, the chain rule in full", "tanh", "softmax", "categorical_crossentropy", one_hot(),
        scale=60.0)  # fmt: skip
network(in_rows, "samples of zeros", "relu", "linear", "mean_squared_error", real(), np.round(samples() / 2))
network(in_rows, "huge samples", "tanh", "linear", "mean_squared_error", real(), samples() * 1e6)
network(in_rows, "tiny samples", "tanh", "linear", "mean_squared_error", real(), samples() * 1e-9)


# -- columns, as in courses: W (units, inputs), b (units, 1), X (inputs, samples) --------------------------------------


@network
def columns_with_caches() -> Own:
    """The lists of caches of tuples of a well-known course; sigmoid at the end, any number of layers."""
    sizes = (6, 5, 4, 1)
    parameters = {f"W{i}": matrix(n, m) for i, (m, n) in enumerate(itertools.pairwise(sizes), 1)}
    parameters |= {f"b{i}": np.zeros((n, 1)) for i, n in enumerate(sizes[1:], 1)}

    def L_model_forward(X: Array, parameters: Any) -> Any:
        caches, A = [], X
        for i in range(1, 4):
            Z = parameters[f"W{i}"] @ A + parameters[f"b{i}"]
            caches.append(((A, parameters[f"W{i}"], parameters[f"b{i}"]), Z))
            A = sigmoid(Z) if i == 3 else np.maximum(0, Z)
        return A, caches

    def L_model_backward(AL: Array, Y: Array, caches: Any) -> Any:
        grads, m = {}, AL.shape[1]
        Y = Y.reshape(AL.shape)
        dA = -(np.divide(Y, AL) - np.divide(1 - Y, 1 - AL))
        for i in reversed(range(1, 4)):
            (A_prev, W, _), Z = caches[i - 1]
            dZ = dA * sigmoid(Z) * (1 - sigmoid(Z)) if i == 3 else np.where(Z <= 0, 0, dA)
            grads[f"dW{i}"] = 1 / m * dZ @ A_prev.T
            grads[f"db{i}"] = 1 / m * np.sum(dZ, axis=1, keepdims=True)
            dA = W.T @ dZ
        return grads

    def compute_cost(AL: Array, Y: Array) -> Any:
        return np.squeeze(-1 / Y.shape[1] * np.sum(Y * np.log(AL) + (1 - Y) * np.log(1 - AL)))

    own = subject(L_model_forward, L_model_backward, parameters, loss=compute_cost)
    return Own((dense(5, "relu"), dense(4, "relu"), dense(1, "sigmoid")), "binary_crossentropy", own, samples(),
               binary(7, 1))  # fmt: skip


def in_columns(
    y: Array, head: Callable[[Array], Array], named: str, loss: str, factor: float = 1.0, **more: Any
) -> Own:
    """Deltas of the summed loss, and a division by the number of samples in the gradients by the weights."""
    params = {"W1": matrix(5, 6), "b1": np.zeros((5, 1)), "W2": matrix(3, 5), "b2": np.zeros((3, 1))}

    def forward_propagation(X: Array, parameters: Any) -> Any:
        Z1 = np.dot(parameters["W1"], X) + parameters["b1"]
        A1 = np.tanh(Z1)
        Z2 = np.dot(parameters["W2"], A1) + parameters["b2"]
        return head(Z2), {"Z1": Z1, "A1": A1, "Z2": Z2, "A2": head(Z2)}

    def backward_propagation(parameters: Any, cache: Any, X: Array, Y: Array) -> Any:
        m = X.shape[1]
        dZ2 = (cache["A2"] - Y) * factor
        dW2 = dZ2 @ cache["A1"].T / m
        db2 = np.sum(dZ2, axis=1, keepdims=True) / m
        dZ1 = parameters["W2"].T @ dZ2 * (1 - np.power(cache["A1"], 2))
        return {"dZ1": dZ1, "dZ2": dZ2, "dW1": dZ1 @ X.T / m, "db1": np.sum(dZ1, axis=1, keepdims=True) / m,
                "dW2": dW2, "db2": db2}  # fmt: skip

    own = subject(forward_propagation, backward_propagation, params, samples="columns")
    return Own((dense(5, "tanh"), dense(3, named)), loss, own, samples(len(y)), y, conventional=len(y) > 1, **more)


network(in_columns, "columns, deltas divided later, softmax", one_hot(),
        partial(softmax, axis=0), "softmax", "categorical_crossentropy")  # fmt: skip
network(in_columns, "columns, deltas divided later, sigmoid", binary(),
        sigmoid, "sigmoid", "binary_crossentropy", 1 / 3)  # fmt: skip
network(in_columns, "columns, deltas divided later, mse", real(),
        lambda z: z, "linear", "mean_squared_error", 2 / 3)  # fmt: skip
network(in_columns, "columns, batch of 1", one_hot(1),
        partial(softmax, axis=0), "softmax", "categorical_crossentropy")  # fmt: skip
network(in_columns, "columns, as many samples as outputs", one_hot(3),
        partial(softmax, axis=0), "softmax", "categorical_crossentropy")  # fmt: skip


@network
def columns_of_one_square_size() -> Own:
    """Nothing but the forward pass tells which way round the matrices are."""
    params = {"W1": matrix(6, 6), "b1": np.zeros((6, 1)), "W2": matrix(6, 6), "b2": np.zeros((6, 1))}

    def forward(X: Array, params: Any) -> Any:
        H = np.tanh(params["W1"] @ X + params["b1"])
        return params["W2"] @ H + params["b2"], H

    def backward(X: Array, Y: Array, params: Any, cache: Array, Y_hat: Array) -> Any:
        D2 = 2 * (Y_hat - Y) / Y.size
        D1 = params["W2"].T @ D2 * (1 - cache**2)
        return {"W1": D1 @ X.T, "b1": D1.sum(1, keepdims=True), "W2": D2 @ cache.T, "b2": D2.sum(1, keepdims=True)}

    own = subject(forward, backward, params)
    return Own((dense(6, "tanh"), dense(6)), "mean_squared_error", own, samples(6), real(6, 6))


# -- the bias in the matrix --------------------------------------------------------------------------------------------


def folded(columns: bool, first: bool) -> Own:
    """One matrix a layer; a one is put before or behind what goes in."""
    shapes = [(7, 5), (6, 3)]
    params = {f"W{i}": matrix(*(shape[::-1] if columns else shape)) for i, shape in enumerate(shapes, 1)}
    bias, others = (0, slice(1, None)) if first else (-1, slice(None, -1))

    def with_one(a: Array) -> Array:
        ones = np.ones((1, a.shape[1])) if columns else np.ones((len(a), 1))
        return np.concatenate([ones, a] if first else [a, ones], axis=0 if columns else 1)

    def forward(x: Array, params: Any) -> Any:
        a0 = with_one(x)
        a1 = with_one(sigmoid(params["W1"] @ a0 if columns else a0 @ params["W1"]))
        return sigmoid(params["W2"] @ a1 if columns else a1 @ params["W2"]), (a0, a1)

    def backward(y: Array, params: Any, cache: Any, y_hat: Array) -> Any:
        a0, a1 = cache
        delta2 = 2 * (y_hat - y) * y_hat * (1 - y_hat) / y.size
        if columns:
            delta1 = np.delete(params["W2"].T @ delta2, bias, axis=0) * a1[others] * (1 - a1[others])
            return {"W1_grad": delta1 @ a0.T, "W2_grad": delta2 @ a1.T}
        delta1 = (delta2 @ params["W2"].T)[:, others] * a1[:, others] * (1 - a1[:, others])
        return {"W1_grad": a0.T @ delta1, "W2_grad": a1.T @ delta2}

    def loss(y_hat: Array, y: Array) -> Any:
        return ((y_hat - y) ** 2).mean()

    own = subject(forward, backward, params, loss=loss, samples="columns" if columns else "rows")
    return Own((dense(5, "sigmoid"), dense(3, "sigmoid")), "mean_squared_error", own, samples(), binary())


for _columns in (False, True):
    for _first in (False, True):
        network(folded, f"bias {'first' if _first else 'last'} {'column' if _columns else 'row'}", _columns, _first)


# -- one vector --------------------------------------------------------------------------------------------------------


def vector(turned: bool) -> Own:
    """(loss, gradient) of one vector, as optimizers of SciPy want it."""
    shapes = [(6, 5), (5,), (5, 3), (3,)]
    sizes = [int(np.prod(shape)) for shape in shapes]

    def parts(theta: Array) -> list[Array]:
        pieces = np.split(theta, np.cumsum(sizes)[:-1])
        shaped = [p.reshape(s[::-1] if turned else s) for p, s in zip(pieces, shapes, strict=True)]
        return [s.T if turned else s for s in shaped]

    def forward(theta: Array, X: Array) -> Array:
        W1, b1, W2, b2 = parts(theta)
        return softmax(np.tanh(X @ W1 + b1) @ W2 + b2)

    def cost(theta: Array, X: Array, y: Array) -> tuple[float, Array]:
        W1, b1, W2, b2 = parts(theta)
        H = np.tanh(X @ W1 + b1)
        P = softmax(H @ W2 + b2)
        D2 = (P - y) / len(X)
        D1 = D2 @ W2.T * (1 - H * H)
        gradients = [X.T @ D1, D1.sum(0), H.T @ D2, D2.sum(0)]
        flat = np.concatenate([(g.T if turned else g).ravel() for g in gradients])
        return float(-np.sum(y * np.log(P)) / len(X)), flat

    own = subject(forward, cost, np.zeros(sum(sizes)), layout="flat columns" if turned else "flat")
    return Own((dense(5, "tanh"), dense(3, "softmax")), "categorical_crossentropy", own, samples(), one_hot())


network(vector, "one vector", False)
network(vector, "one vector, matrices turned", True)


@network
def one_vector_of_folded_matrices() -> Own:
    """Theta (units, 1 + inputs) unrolled, the layout given as a function; half the squared error over the outputs."""

    def layout(w: Mapping[str, Array]) -> dict[str, Array]:
        first = np.column_stack([w["dense/bias"], w["dense/kernel"].T])
        second = np.column_stack([w["dense_1/bias"], w["dense_1/kernel"].T])
        return {"params": np.concatenate([first.ravel(), second.ravel()])}

    def activations(theta: Array, X: Array) -> Any:
        Theta1, Theta2 = theta[:35].reshape(5, 7), theta[35:].reshape(3, 6)
        A1 = np.c_[np.ones(len(X)), X]
        A2 = np.c_[np.ones(len(X)), sigmoid(A1 @ Theta1.T)]
        return A1, A2, sigmoid(A2 @ Theta2.T), Theta2

    def forward(theta: Array, X: Array) -> Array:
        return activations(theta, X)[2]

    def nnCostFunction(theta: Array, X: Array, y: Array) -> Any:
        A1, A2, A3, Theta2 = activations(theta, X)
        m = X.shape[0]
        d3 = (A3 - y) * A3 * (1 - A3)
        d2 = (d3 @ Theta2)[:, 1:] * A2[:, 1:] * (1 - A2[:, 1:])
        J = np.sum((A3 - y) ** 2) / (2 * m)
        return J, np.concatenate([(d2.T @ A1).ravel() / m, (d3.T @ A2).ravel() / m])

    own = subject(forward, nnCostFunction, np.zeros(53), layout=layout)
    return Own((dense(5, "sigmoid", name="dense"), dense(3, "sigmoid", name="dense_1")), "mean_squared_error", own,
               samples(), binary(), conventional=True)  # fmt: skip


# -- what holds the parameters -----------------------------------------------------------------------------------------


def tanh_mse(x: Array, y: Array, W1: Array, b1: Array, W2: Array, b2: Array) -> Any:
    """Outputs, loss and gradients of the network that the holders below have."""
    h = np.tanh(x @ W1 + b1)
    p = h @ W2 + b2
    d2 = 2 * (p - y) / y.size
    d1 = d2 @ W2.T * (1 - h**2)
    return p, float(np.mean((p - y) ** 2)), (x.T @ d1, d1.sum(0), h.T @ d2, d2.sum(0))


def held(params: Any, unpack: Callable[[Any], Any], pack: Callable[..., Any], **more: Any) -> Own:
    def forward(x: Array, y: Array, params: Any) -> Array:
        return tanh_mse(x, y, *unpack(params))[0]

    def backward(x: Array, y: Array, params: Any) -> Any:
        _, loss, gradients = tanh_mse(x, y, *unpack(params))
        return loss, pack(*gradients)

    own = subject(forward, backward, params, **more)
    return Own((dense(5, "tanh"), dense(3)), "mean_squared_error", own, samples(), real())


PARTS = (np.zeros((6, 5)), np.zeros(5), np.zeros((5, 3)), np.zeros(3))
W1, B1, W2, B2 = PARTS

network(held, "a list", list(PARTS), lambda p: p, lambda *g: list(g))
network(held, "a list, gradients in a tuple", list(PARTS), lambda p: p, lambda *g: g)
network(held, "a list of pairs", [(W1, B1), (W2, B2)], lambda p: (*p[0], *p[1]), lambda a, b, c, d: [(a, b), (c, d)])
network(held, "a list of dicts", [{"W": W1, "b": B1}, {"W": W2, "b": B2}],
        lambda p: (p[0]["W"], p[0]["b"], p[1]["W"], p[1]["b"]),
        lambda a, b, c, d: [{"dW": a, "db": b}, {"dW": c, "db": d}])  # fmt: skip
network(held, "a dict of dicts", {"fc1": {"weight": W1, "bias": B1}, "fc2": {"weight": W2, "bias": B2}},
        lambda p: (*p["fc1"].values(), *p["fc2"].values()),
        lambda a, b, c, d: {"fc1": {"weight": a, "bias": b}, "fc2": {"weight": c, "bias": d}})  # fmt: skip
network(held, "weights and biases", {"weights": [W1, W2], "biases": [B1, B2]},
        lambda p: (p["weights"][0], p["biases"][0], p["weights"][1], p["biases"][1]),
        lambda a, b, c, d: {"weights": [a, c], "biases": [b, d]})  # fmt: skip
network(held, "all matrices first, a list", [W1, W2, B1, B2],
        lambda p: (p[0], p[2], p[1], p[3]), lambda a, b, c, d: [a, c, b, d])  # fmt: skip
network(held, "words", {"w_hidden": W1, "b_hidden": B1, "w_output": W2, "b_output": B2},
        lambda p: p.values(),
        lambda a, b, c, d: {"grad_w_hidden": a, "grad_b_hidden": b, "grad_w_output": c,
                            "grad_b_output": d})  # fmt: skip
network(held, "gradients of other names", dict(zip(("W1", "b1", "W2", "b2"), PARTS, strict=True)),
        lambda p: p.values(), lambda a, b, c, d: {"first": a, "second": b, "third": c, "fourth": d},
        gradients={"W1": "first", "b1": "second", "W2": "third", "b2": "fourth"})  # fmt: skip
network(held, "dL_d", dict(zip(("W1", "b1", "W2", "b2"), PARTS, strict=True)),
        lambda p: p.values(), lambda a, b, c, d: {"dL_dW1": a, "dL_db1": b, "dL_dW2": c, "dL_db2": d})  # fmt: skip
network(held, "row vectors", {"W1": W1, "b1": B1[np.newaxis], "W2": W2, "b2": B2[np.newaxis]},
        lambda p: p.values(),
        lambda a, b, c, d: {"dW1": a, "db1": b[np.newaxis], "dW2": c, "db2": d[np.newaxis]})  # fmt: skip


@network
def single_parameters_as_arguments() -> Own:
    params = dict(zip(("W1", "b1", "W2", "b2"), PARTS, strict=True))

    def forward(x: Array, W1: Array, b1: Array, W2: Array, b2: Array) -> Array:
        return np.tanh(x @ W1 + b1) @ W2 + b2

    def backward(x: Array, y: Array, W1: Array, b1: Array, W2: Array, b2: Array) -> Any:
        return dict(zip(("dW1", "db1", "dW2", "db2"), tanh_mse(x, y, W1, b1, W2, b2)[2], strict=True))

    return Own(
        (dense(5, "tanh"), dense(3)), "mean_squared_error", subject(forward, backward, params), samples(), real()
    )


@network
def arrays_that_the_functions_know() -> Own:
    """Nobody hands the parameters over: the functions use the arrays of the module."""
    W1, b1, W2, b2 = (np.array(part) for part in PARTS)

    def forward(x: Array) -> Array:
        return np.tanh(x.dot(W1) + b1).dot(W2) + b2

    def backward(x: Array, y: Array) -> Any:
        return tanh_mse(x, y, W1, b1, W2, b2)[2]

    own = subject(forward, backward, [W1, b1, W2, b2])
    return Own((dense(5, "tanh"), dense(3)), "mean_squared_error", own, samples(), real())


# -- objects -----------------------------------------------------------------------------------------------------------


@network
def attributes() -> Own:
    class Net:
        def __init__(self) -> None:
            self.W1, self.b1, self.W2, self.b2 = (np.array(part) for part in PARTS)

        def forward(self, X: Array) -> Array:
            self.z1 = X @ self.W1 + self.b1
            self.a1 = sigmoid(self.z1)
            self.out = sigmoid(self.a1 @ self.W2 + self.b2)
            return self.out

        def backward(self, X: Array, y: Array) -> None:
            delta = 2 * (self.out - y) / y.size * self.out * (1 - self.out)
            self.dW2, self.db2 = self.a1.T @ delta, delta.sum(axis=0)
            delta = delta @ self.W2.T * self.a1 * (1 - self.a1)
            self.dW1, self.db1 = X.T @ delta, delta.sum(axis=0)

    return Own((dense(5, "sigmoid"), dense(3, "sigmoid")), "mean_squared_error", subject(Net()), samples(), binary())


@network
def dicts_in_attributes() -> Own:
    class TwoLayerNet:
        def __init__(self) -> None:
            self.params = dict(zip(("W1", "b1", "W2", "b2"), (np.array(part) for part in PARTS), strict=True))
            self.grads: dict[str, Array] = {}

        def predict(self, x: Array) -> Array:
            return softmax(
                np.maximum(x @ self.params["W1"] + self.params["b1"], 0) @ self.params["W2"] + self.params["b2"]
            )

        def loss(self, x: Array, t: Array) -> float:
            return -np.sum(np.log(self.predict(x)[np.arange(len(x)), t])) / len(x)

        def gradient(self, x: Array, t: Array) -> dict[str, Array]:
            hidden = np.maximum(x @ self.params["W1"] + self.params["b1"], 0)
            dy = self.predict(x)
            dy[np.arange(len(x)), t] -= 1
            dy /= len(x)
            dz = dy @ self.params["W2"].T
            dz[hidden == 0] = 0
            return {"W1": x.T @ dz, "b1": dz.sum(axis=0), "W2": hidden.T @ dy, "b2": dy.sum(axis=0)}

    return Own((dense(5, "relu"), dense(3, "softmax")), "sparse_categorical_crossentropy", subject(TwoLayerNet()),
               samples(), integers())  # fmt: skip


@network
def objects_for_layers() -> Own:
    class Affine:
        def __init__(self, W: Array, b: Array) -> None:
            self.W, self.b = np.array(W), np.array(b)

        def forward(self, x: Array) -> Array:
            self.x = x
            return x @ self.W + self.b

        def backward(self, dout: Array) -> Array:
            self.dW, self.db = self.x.T @ dout, dout.sum(axis=0)
            return dout @ self.W.T

    class Tanh:
        def forward(self, x: Array) -> Array:
            self.out = np.tanh(x)
            return self.out

        def backward(self, dout: Array) -> Array:
            return dout * (1 - self.out**2)

    class Net:
        def __init__(self) -> None:
            self.layers = [Affine(W1, B1), Tanh(), Affine(W2, B2)]

        def forward(self, x: Array) -> Array:
            for layer in self.layers:
                x = layer.forward(x)
            self.y = x
            return x

        def backward(self, target: Array) -> None:
            dout = 2 * (self.y - target) / target.size
            for layer in reversed(self.layers):
                dout = layer.backward(dout)

    return Own((dense(5, "tanh"), dense(3)), "mean_squared_error", subject(Net()), samples(), real())


@network
def one_sample_a_call() -> Own:
    """Lists of weights and biases, deltas as columns, and a sum over the samples of half the squared error."""

    class Network:
        def __init__(self, sizes: list[int]) -> None:
            self.biases = [np.zeros((n, 1)) for n in sizes[1:]]
            self.weights = [matrix(n, m) for m, n in itertools.pairwise(sizes)]

        def feedforward(self, a: Array) -> Array:
            a = a.reshape(-1, 1)
            for b, w in zip(self.biases, self.weights, strict=True):
                a = sigmoid(np.dot(w, a) + b)
            return a

        def backprop(self, x: Array, y: Array) -> Any:
            nabla_b = [np.zeros(b.shape) for b in self.biases]
            nabla_w = [np.zeros(w.shape) for w in self.weights]
            activations, zs = [x.reshape(-1, 1)], []
            for b, w in zip(self.biases, self.weights, strict=True):
                zs.append(np.dot(w, activations[-1]) + b)
                activations.append(sigmoid(zs[-1]))
            delta = 2 * (activations[-1] - y.reshape(-1, 1)) / 3 * sigmoid(zs[-1]) * (1 - sigmoid(zs[-1]))
            nabla_b[-1], nabla_w[-1] = delta, np.dot(delta, activations[-2].T)
            for n in range(2, 3):
                slope = sigmoid(zs[-n]) * (1 - sigmoid(zs[-n]))
                delta = np.dot(self.weights[-n + 1].T, delta) * slope
                nabla_b[-n], nabla_w[-n] = delta, np.dot(delta, activations[-n - 1].T)
            return (nabla_b, nabla_w)

    own = subject(Network([6, 5, 3]), samples="one", layout="columns")
    return Own((dense(5, "sigmoid"), dense(3, "sigmoid")), "mean_squared_error", own, samples(), binary())


# -- steps of training -------------------------------------------------------------------------------------------------


@network
def a_step_that_updates_in_place() -> Own:
    class Net:
        def __init__(self) -> None:
            self.W1, self.b1, self.W2, self.b2 = (np.array(part) for part in PARTS)

        def forward(self, x: Array) -> Array:
            return tanh_mse(x, np.zeros((1, 3)), self.W1, self.b1, self.W2, self.b2)[0]

        def train_step(self, x: Array, y: Array, lr: float) -> float:
            _, loss, gradients = tanh_mse(x, y, self.W1, self.b1, self.W2, self.b2)
            for weight, gradient in zip((self.W1, self.b1, self.W2, self.b2), gradients, strict=True):
                weight -= lr * gradient
            return loss

    own = subject(Net(), learning_rate=0.1)
    return Own((dense(5, "tanh"), dense(3)), "mean_squared_error", own, samples(), real())


@network
def a_step_that_returns_new_parameters() -> Own:
    params = dict(zip(("W1", "b1", "W2", "b2"), PARTS, strict=True))

    def forward(X: Array, parameters: Any) -> Array:
        return tanh_mse(X, np.zeros((1, 3)), *parameters.values())[0]

    def update_parameters(X: Array, Y: Array, parameters: Any, learning_rate: float) -> Any:
        gradients = tanh_mse(X, Y, *parameters.values())[2]
        return {k: p - learning_rate * g for (k, p), g in zip(parameters.items(), gradients, strict=True)}

    own = subject(forward, step=update_parameters, params=params, learning_rate=0.5)
    return Own((dense(5, "tanh"), dense(3)), "mean_squared_error", own, samples(), real())


# -- conventions of losses and labels ----------------------------------------------------------------------------------


def conventional(value: Callable[[Array, Array], float], delta: Callable[[Array, Array], Array], loss: str, head: str,
                 y: Array, **more: Any) -> Own:  # fmt: skip
    """tanh, then a loss as textbooks have it."""
    params = dict(zip(("W1", "b1", "W2", "b2"), PARTS, strict=True))

    def forward(x: Array, params: Any) -> Any:
        hidden = np.tanh(x @ params["W1"] + params["b1"])
        return ACTIVATIONS[head][0](hidden @ params["W2"] + params["b2"]), hidden

    def backward(x: Array, y: Array, params: Any, cache: Array, y_hat: Array) -> Any:
        d2 = delta(y_hat, y)
        d1 = d2 @ params["W2"].T * (1 - cache**2)
        return {"dW1": x.T @ d1, "db1": d1.sum(0), "dW2": cache.T @ d2, "db2": d2.sum(0)}

    own = subject(forward, backward, params, loss=value, **more)
    return Own((dense(5, "tanh"), dense(3, head)), loss, own, samples(), y, conventional=True)


def cross_entropy(p: Array, y: Array) -> Any:
    return -np.sum(y * np.log(p))


network(conventional, "half the squared error, summed", lambda p, y: 0.5 * np.sum((p - y) ** 2), lambda p, y: p - y,
        "mean_squared_error", "linear", real())  # fmt: skip
network(conventional, "half the squared error, a mean over samples", lambda p, y: 0.5 * np.sum((p - y) ** 2) / len(y),
        lambda p, y: (p - y) / len(y), "mean_squared_error", "linear", real())  # fmt: skip
network(conventional, "squared error, summed over outputs", lambda p, y: np.sum((p - y) ** 2) / len(y),
        lambda p, y: 2 * (p - y) / len(y), "mean_squared_error", "linear", real())  # fmt: skip
network(conventional, "cross-entropy, summed", cross_entropy, lambda p, y: p - y,
        "categorical_crossentropy", "softmax", one_hot())  # fmt: skip
network(conventional, "cross-entropy, an epsilon in the logarithm", lambda p, y: -np.sum(y * np.log(p + 1e-8)) / len(y),
        lambda p, y: (p - y) / len(y), "categorical_crossentropy", "softmax", one_hot())  # fmt: skip
network(conventional, "cross-entropy, printed as a sum", cross_entropy, lambda p, y: (p - y) / len(y),
        "categorical_crossentropy", "softmax", one_hot())  # fmt: skip
network(conventional, "binary cross-entropy, summed over outputs",
        lambda p, y: -np.sum(y * np.log(p) + (1 - y) * np.log(1 - p)) / len(y), lambda p, y: (p - y) / len(y),
        "binary_crossentropy", "sigmoid", binary())  # fmt: skip


def labelled(loss: str, y: Array, labels: Any, coded: Callable[[Array], Array]) -> Own:
    """The labels in another form than Keras's loss has them."""
    own = conventional(lambda p, y: cross_entropy(p, coded(y)) / len(p), lambda p, y: (p - coded(y)) / len(p), loss,
                       "softmax", y, labels=labels)  # fmt: skip
    return Own(own.stack, own.loss, own.subject, own.x, own.y)


network(labelled, "integers for one-hot", "categorical_crossentropy", one_hot(), "integers", lambda y: np.eye(3)[y])
network(labelled, "one-hot for integers", "sparse_categorical_crossentropy", integers(), "one-hot", lambda y: y)
network(labelled, "labels from 1", "sparse_categorical_crossentropy", integers(), lambda y: y + 1,
        lambda y: np.eye(3)[y - 1])  # fmt: skip
network(labelled, "integers", "sparse_categorical_crossentropy", integers(), None, lambda y: np.eye(3)[y])


@network
def a_loop_over_the_samples() -> Own:
    """Each sample alone, scalars and outer products, gradients added up and divided in the end."""
    params = dict(zip(("W1", "b1", "W2", "b2"), PARTS, strict=True))

    def forward(x: Array, params: Any) -> Array:
        return np.array([one(sample, params)[1] for sample in x])

    def one(sample: Array, params: Any) -> Any:
        hidden = np.maximum(0.0, params["W1"].T @ sample + params["b1"])
        return hidden, softmax((params["W2"].T @ hidden + params["b2"])[np.newaxis])[0]

    def backward(x: Array, y: Array, params: Any) -> Any:
        total = {f"d{name}": np.zeros_like(array) for name, array in params.items()}
        loss = 0.0
        for sample, label in zip(x, y, strict=True):
            hidden, probabilities = one(sample, params)
            loss -= np.log(probabilities[label])
            delta = probabilities.copy()
            delta[label] -= 1
            total["dW2"] += np.outer(hidden, delta)
            total["db2"] += delta
            delta = params["W2"] @ delta * (hidden > 0)
            total["dW1"] += np.outer(sample, delta)
            total["db1"] += delta
        return loss / len(x), {name: gradient / len(x) for name, gradient in total.items()}

    return Own((dense(5, "relu"), dense(3, "softmax")), "sparse_categorical_crossentropy",
               subject(forward, backward, params), samples(), integers())  # fmt: skip


@network
def only_a_forward_pass() -> Own:
    params = dict(zip(("W1", "b1", "W2", "b2"), PARTS, strict=True))

    def predict(x: Array, params: Any) -> Array:
        return softmax(np.tanh(x @ params["W1"] + params["b1"]) @ params["W2"] + params["b2"])

    own = subject(predict, params=params)
    return Own((dense(5, "tanh"), dense(3, "softmax")), "categorical_crossentropy", own, samples(), one_hot(),
               forward_only=True)  # fmt: skip


@network
def only_gradients() -> Own:
    params = dict(zip(("W1", "b1", "W2", "b2"), PARTS, strict=True))

    def gradients(x: Array, y: Array, params: Any) -> Any:
        return tanh_mse(x, y, *params.values())[2]

    own = subject(backward=gradients, params=params)
    return Own((dense(5, "tanh"), dense(3)), "mean_squared_error", own, samples(), real())


# -- small networks, and large numbers ---------------------------------------------------------------------------------


@network
def logistic_regression() -> Own:
    def forward(w: Array, b: Array, X: Array) -> Array:
        return sigmoid(w.T @ X + b)

    def propagate(w: Array, b: Array, X: Array, Y: Array) -> Any:
        m, A = X.shape[1], forward(w, b, X)
        cost = -np.sum(Y * np.log(A) + (1 - Y) * np.log(1 - A)) / m
        return {"dw": X @ (A - Y).T / m, "db": np.sum(A - Y, keepdims=True)[0] / m}, cost

    own = subject(forward, propagate, {"w": np.zeros((6, 1)), "b": np.zeros(1)}, samples="columns")
    return Own((dense(1, "sigmoid"),), "binary_crossentropy", own, samples(), binary(7, 1))


@network
def softmax_regression_without_a_bias() -> Own:
    def forward(X: Array, W: Array) -> Array:
        return softmax(X @ W)

    def loss(X: Array, y: Array, W: Array) -> float:
        return float(-np.mean(np.log(forward(X, W)[np.arange(len(X)), y])))

    def backward(X: Array, y: Array, W: Array) -> Array:
        P = forward(X, W)
        P[range(len(X)), y] -= 1
        return X.T @ P / len(X)

    own = subject(forward, backward, {"W": np.zeros((6, 3))}, loss=loss)
    return Own((dense(3, "softmax", use_bias=False),), "sparse_categorical_crossentropy", own, samples(), integers())


@network
def large_logits() -> Own:
    """Logits of several hundred: the largest is taken off first, and the loss is the one of log-sum-exp."""

    def logits(X: Array, params: Any) -> Array:
        return np.tanh(X @ params["W1"] + params["b1"]) @ params["W2"] + params["b2"]

    def loss(X: Array, y: Array, params: Any) -> Any:
        z = logits(X, params)
        top = z.max(axis=1, keepdims=True)
        return np.mean(np.log(np.exp(z - top).sum(axis=1)) + top[:, 0] - np.sum(z * y, axis=1))

    def backward(X: Array, y: Array, params: Any) -> Any:
        hidden = np.tanh(X @ params["W1"] + params["b1"])
        d2 = (softmax(logits(X, params)) - y) / len(X)
        d1 = d2 @ params["W2"].T * (1 - hidden**2)
        return {"dW1": X.T @ d1, "db1": d1.sum(0), "dW2": hidden.T @ d2, "db2": d2.sum(0)}

    params = dict(zip(("W1", "b1", "W2", "b2"), PARTS, strict=True))
    own = subject(lambda X, params: softmax(logits(X, params)), backward, params, loss=loss)
    return Own((dense(5, "tanh"), dense(3, "softmax")), "categorical_crossentropy", own, samples(), one_hot(),
               scale=300.0)  # fmt: skip


@network
def logits_for_outputs() -> Own:
    """No softmax at the end: the loss has it."""

    def logits(X: Array, params: Any) -> Array:
        return np.tanh(X @ params["W1"] + params["b1"]) @ params["W2"] + params["b2"]

    def loss_and_gradients(X: Array, y: Array, params: Any) -> Any:
        hidden = np.tanh(X @ params["W1"] + params["b1"])
        p = softmax(logits(X, params))
        d2 = p.copy()
        d2[np.arange(len(X)), y] -= 1
        d2 /= len(X)
        d1 = d2 @ params["W2"].T * (1 - hidden**2)
        return -np.mean(np.log(p[np.arange(len(X)), y])), (X.T @ d1, d1.sum(0), hidden.T @ d2, d2.sum(0))

    own = subject(logits, loss_and_gradients, dict(zip(("W1", "b1", "W2", "b2"), PARTS, strict=True)))
    loss = {"class_name": "SparseCategoricalCrossentropy", "config": {"from_logits": True}}
    return Own((dense(5, "tanh"), dense(3)), loss, own, samples(), integers())


@network
def float32_with_ten_thousand_inputs() -> Own:
    """Everything in float32, whatever is given."""
    params = {"W1": np.zeros((10_000, 5)), "b1": np.zeros(5), "W2": np.zeros((5, 3)), "b2": np.zeros(3)}

    def single(x: Array, params: Any) -> Any:
        return np.float32(x), *(np.float32(array) for array in params.values())

    def forward(x: Array, params: Any) -> Any:
        x, W1, b1, W2, b2 = single(x, params)
        hidden = 1 / (1 + np.exp(-(x @ W1 + b1)))
        return softmax(hidden @ W2 + b2), hidden

    def backward(x: Array, y: Array, params: Any, cache: Array, probs: Array) -> Any:
        x, _, _, W2, _ = single(x, params)
        d2 = (probs - y.astype(np.float32)) / np.float32(len(x))
        d1 = d2 @ W2.T * cache * (1 - cache)
        return {"dW1": x.T @ d1, "db1": d1.sum(0), "dW2": cache.T @ d2, "db2": d2.sum(0)}

    own = subject(forward, backward, params)
    return Own((dense(5, "sigmoid"), dense(3, "softmax")), "categorical_crossentropy", own, samples(32, 10_000),
               one_hot(32))  # fmt: skip


network(in_rows, "checked in float32", "tanh", "sigmoid", "binary_crossentropy", binary(), options={"dtype": "float32"})


# -- other layers ------------------------------------------------------------------------------------------------------


@network
def images_as_the_kernel_sees_them() -> Own:
    """W1 (units, height, width), and sums over pixels by einsum."""
    params = {"W1": np.zeros((5, 4, 3)), "b1": np.zeros(5), "W2": np.zeros((3, 5)), "b2": np.zeros(3)}

    def forward(images: Array, params: Any) -> Any:
        hidden = np.tanh(np.einsum("nij,uij->nu", images, params["W1"]) + params["b1"])
        return hidden @ params["W2"].T + params["b2"], {"hidden": hidden}

    def backward(images: Array, targets: Array, params: Any, cache: Any, outputs: Array) -> Any:
        d2 = 2 * (outputs - targets) / targets.size
        d1 = d2 @ params["W2"] * (1 - cache["hidden"] ** 2)
        return {"dW1": np.einsum("nu,nij->uij", d1, images), "db1": d1.sum(0),
                "dW2": d2.T @ cache["hidden"], "db2": d2.sum(0)}  # fmt: skip

    own = subject(forward, backward, params)
    return Own((("Flatten", {}), dense(5, "tanh"), dense(3)), "mean_squared_error", own, samples(7, (4, 3)), real())


def convolution(first: bool) -> Own:
    """Loops over the places of a 3x3 kernel, with relu, behind it a dense layer; first: channels before the pixels."""
    kernel = np.zeros((2, 2, 3, 3)) if first else np.zeros((3, 3, 2, 2))
    params = {"K": kernel, "c": np.zeros(2), "W": np.zeros((24, 3)), "b": np.zeros(3)}

    def conv(x: Array, K: Array, c: Array) -> Array:
        z = np.zeros((len(x), 4, 3, 2))
        for i in range(4):
            for j in range(3):
                z[:, i, j] = np.tensordot(x[:, i : i + 3, j : j + 3], K, axes=3) + c
        return z

    def last(params: Any) -> Any:
        return params["K"].transpose(2, 3, 1, 0) if first else params["K"]

    def forward(x: Array, params: Any) -> Any:
        x = x.transpose(0, 2, 3, 1) if first else x
        z = conv(x, last(params), params["c"])
        a = np.maximum(z, 0).reshape(len(x), -1)
        return a @ params["W"] + params["b"], (x, z, a)

    def backward(targets: Array, params: Any, cache: Any, outputs: Array) -> Any:
        x, z, a = cache
        d = 2 * (outputs - targets) / targets.size
        dz = (d @ params["W"].T).reshape(z.shape) * (z > 0)
        dK = np.zeros((3, 3, 2, 2))
        for i in range(4):
            for j in range(3):
                dK += np.tensordot(x[:, i : i + 3, j : j + 3], dz[:, i, j], axes=(0, 0))
        dK = dK.transpose(3, 2, 0, 1) if first else dK
        return {"dK": dK, "dc": dz.sum(axis=(0, 1, 2)), "dW": a.T @ d, "db": d.sum(axis=0)}

    own = subject(forward, backward, params, samples="channels first" if first else None)
    stack = (("Conv2D", {"filters": 2, "kernel_size": 3, "activation": "relu"}), ("Flatten", {}), dense(3))
    return Own(stack, "mean_squared_error", own, samples(4, (6, 5, 2)), real(4))


network(convolution, "convolution by loops", False)
network(convolution, "convolution by loops, channels first", True)


@network
def max_pooling() -> Own:
    params = {"W": np.zeros((12, 3)), "b": np.zeros(3)}

    def forward(images: Array, params: Any) -> Any:
        windows = images.reshape(len(images), 2, 2, 3, 2, 2).transpose(0, 1, 3, 5, 2, 4)  # (n, 2, 3, channels, 2, 2)
        flat = windows.max(axis=(4, 5)).reshape(len(images), -1)
        return flat @ params["W"] + params["b"], flat

    def backward(targets: Array, params: Any, cache: Array, outputs: Array) -> Any:
        d = 2 * (outputs - targets) / targets.size
        return {"dW": cache.T @ d, "db": d.sum(axis=0)}

    stack = (("MaxPooling2D", {}), ("Flatten", {}), dense(3))
    return Own(stack, "mean_squared_error", subject(forward, backward, params), samples(4, (4, 6, 2)), real(4))


def normalized(training: bool) -> Own:
    """dense, batch normalisation, relu, dense; the moving averages are arrays like the others."""
    params = {"W1": np.zeros((6, 5)), "b1": np.zeros(5), "gamma1": np.zeros(5), "beta1": np.zeros(5),
              "running_mean1": np.zeros(5), "running_var1": np.ones(5), "W2": np.zeros((5, 3)),
              "b2": np.zeros(3)}  # fmt: skip

    def forward(x: Array, params: Any) -> Any:
        z = x @ params["W1"] + params["b1"]
        mean, variance = (z.mean(0), z.var(0)) if training else (params["running_mean1"], params["running_var1"])
        std = np.sqrt(variance + 1e-3)
        hat = (z - mean) / std
        scaled = params["gamma1"] * hat + params["beta1"]
        a = np.maximum(scaled, 0)
        return a @ params["W2"] + params["b2"], {"xhat": hat, "std": std, "scaled": scaled, "relu": a}

    def backward(x: Array, y: Array, params: Any, cache: Any, y_hat: Array) -> Any:
        d = 2 * (y_hat - y) / y.size
        dscaled = d @ params["W2"].T * (cache["scaled"] > 0)
        dhat = dscaled * params["gamma1"]
        if training:
            dhat = dhat - dhat.mean(0) - cache["xhat"] * (dhat * cache["xhat"]).mean(0)
        dz = dhat / cache["std"]
        dgamma, dbeta = (dscaled * cache["xhat"]).sum(0), dscaled.sum(0)
        return {"dW1": x.T @ dz, "db1": dz.sum(0), "dgamma1": dgamma, "dbeta1": dbeta,
                "dW2": cache["relu"].T @ d, "db2": d.sum(0)}  # fmt: skip

    layout = {
        "W1": "dense/kernel", "b1": "dense/bias", "gamma1": "norm/gamma", "beta1": "norm/beta",
        "running_mean1": "norm/moving_mean", "running_var1": "norm/moving_variance", "W2": "last/kernel",
        "b2": "last/bias",
    }  # fmt: skip
    own = subject(forward, backward, params, layout=lambda w: {ours: w[keras] for ours, keras in layout.items()})
    stack = (dense(5, name="dense"), ("BatchNormalization", {"name": "norm"}), ("ReLU", {}), dense(3, name="last"))
    return Own(stack, "mean_squared_error", own, samples(), real(), options={"training": training})


network(normalized, "batch normalisation, training", True)
network(normalized, "batch normalisation, inference", False)


@network
def layer_normalisation() -> Own:
    params = {"W1": np.zeros((6, 5)), "b1": np.zeros(5), "gamma2": np.ones(5), "beta2": np.zeros(5),
              "W3": np.zeros((5, 3)), "b3": np.zeros(3)}  # fmt: skip

    def forward(x: Array, params: Any) -> Any:
        z = x @ params["W1"] + params["b1"]
        centred = z - z.mean(axis=1, keepdims=True)
        std = np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-3)
        hat = centred / std
        a = hat * params["gamma2"] + params["beta2"]
        return a @ params["W3"] + params["b3"], (hat, std, a)

    def backward(x: Array, y: Array, params: Any, cache: Any, y_hat: Array) -> Any:
        hat, std, a = cache
        d = 2 * (y_hat - y) / y.size
        da = d @ params["W3"].T
        dhat = da * params["gamma2"]
        dz = (dhat - dhat.mean(1, keepdims=True) - hat * (dhat * hat).mean(1, keepdims=True)) / std
        return {"dW1": x.T @ dz, "db1": dz.sum(0), "dgamma2": (da * hat).sum(0), "dbeta2": da.sum(0),
                "dW3": a.T @ d, "db3": d.sum(0)}  # fmt: skip

    stack = (dense(5), ("LayerNormalization", {}), dense(3))
    return Own(stack, "mean_squared_error", subject(forward, backward, params), samples(), real())


@network
def an_embedding() -> Own:
    params = {"table": np.zeros((9, 4)), "W": np.zeros((20, 3)), "b": np.zeros(3)}

    def forward(X: Array, params: Any) -> Any:
        rows = params["table"][X].reshape(len(X), -1)
        return softmax(rows @ params["W"] + params["b"]), rows

    def backward(X: Array, y: Array, params: Any, cache: Array, probs: Array) -> Any:
        d = probs.copy()
        d[np.arange(len(X)), y] -= 1
        d /= len(X)
        dtable = np.zeros_like(params["table"])
        np.add.at(dtable, X, (d @ params["W"].T).reshape(*X.shape, 4))
        return {"dtable": dtable, "dW": cache.T @ d, "db": d.sum(axis=0)}

    stack = (("Embedding", {"input_dim": 9, "output_dim": 4}), ("Flatten", {}), dense(3, "softmax"))
    x = RNG(5).integers(0, 9, (7, 5))
    return Own(stack, "sparse_categorical_crossentropy", subject(forward, backward, params), x, integers())


@network
def dropout_that_is_off() -> Own:
    own = in_rows("tanh", "linear", "mean_squared_error", real())
    stack = (own.stack[0], ("Dropout", {"rate": 0.5}), own.stack[1])
    return Own(stack, own.loss, own.subject, own.x, own.y, options={"training": False})


@network
def weight_decay() -> Own:
    """An L2 penalty on both matrices, in the loss and in the gradients."""
    params = dict(zip(("W1", "b1", "W2", "b2"), PARTS, strict=True))

    def forward(x: Array, params: Any) -> Array:
        return tanh_mse(x, np.zeros((1, 3)), *params.values())[0]

    def loss_and_gradients(x: Array, y: Array, params: Any) -> Any:
        _, loss, (dW1, db1, dW2, db2) = tanh_mse(x, y, *params.values())
        penalty = 0.01 * (np.sum(params["W1"] ** 2) + np.sum(params["W2"] ** 2))
        return loss + penalty, (dW1 + 0.02 * params["W1"], db1, dW2 + 0.02 * params["W2"], db2)

    decay = {"class_name": "L2", "config": {"l2": 0.01}}
    stack = (dense(5, "tanh", kernel_regularizer=decay), dense(3, kernel_regularizer=decay))
    return Own(stack, "mean_squared_error", subject(forward, loss_and_gradients, params), samples(), real())


@network
def layers_that_only_keras_has() -> Own:
    """Softplus, and a mean over the pixels: nothing in NumPy knows them but this."""
    params = {"W1": np.zeros((2, 5)), "b1": np.zeros(5), "W2": np.zeros((5, 3)), "b2": np.zeros(3)}

    def forward(images: Array, params: Any) -> Any:
        means = images.mean(axis=(1, 2))
        z = means @ params["W1"] + params["b1"]
        return np.log1p(np.exp(z)) @ params["W2"] + params["b2"], (means, z)

    def backward(targets: Array, params: Any, cache: Any, outputs: Array) -> Any:
        means, z = cache
        d2 = 2 * (outputs - targets) / targets.size
        d1 = d2 @ params["W2"].T * sigmoid(z)
        return [means.T @ d1, d1.sum(0), np.log1p(np.exp(z)).T @ d2, d2.sum(0)]

    stack = (("GlobalAveragePooling2D", {}), dense(5, "softplus"), dense(3))
    return Own(stack, "mean_squared_error", subject(forward, backward, params), samples(7, (4, 3, 2)), real())
