"""784-16-16-10, tanh, tanh, softmax: samples in columns, W (out, in), b (out, 1). Nothing in its gradients is wrong."""

import itertools

import numpy as np

PUBLISHED = """
    0 0.230083 13.260000    10 0.204155 40.781667    20 0.153983 47.766667    30 0.118734 67.136667
   40 0.096660 73.488333    50 0.083073 77.815000    60 0.072998 80.786667    70 0.115302 60.456667
   80 0.061357 84.006667    90 0.060022 84.413333   100 0.058777 84.738333   110 0.057598 85.070000
  120 0.056478 85.361667   130 0.055412 85.630000   140 0.054397 85.903333
"""
"""Iteration, cost and accuracy in percent on the 60,000 images of MNIST, as published."""


def initialize(sizes=(784, 16, 16, 10)):
    random = np.random.RandomState(2)  # draws what np.random.seed(2) and np.random.randn do
    parameters = {}
    for layer, (below, units) in enumerate(itertools.pairwise(sizes), start=1):
        parameters[f"W{layer}"] = random.randn(units, below) * 0.1
        parameters[f"b{layer}"] = np.zeros((units, 1))
    return parameters


def tanh(z):
    return (np.exp(z) - np.exp(-z)) / (np.exp(z) + np.exp(-z))


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum(axis=0, keepdims=True)


def forward(X, parameters):
    cache = {}
    A = X
    for layer, function in ((1, tanh), (2, tanh), (3, softmax)):
        cache[f"Z{layer}"] = parameters[f"W{layer}"] @ A + parameters[f"b{layer}"]
        A = cache[f"A{layer}"] = function(cache[f"Z{layer}"])
    return A, cache


def backward(X, y, cache, parameters):
    m = X.shape[1]
    grads = {}
    dZ = cache["A3"] - y
    for layer in (3, 2, 1):
        below = cache[f"A{layer - 1}"] if layer > 1 else X
        grads[f"dW{layer}"] = dZ @ below.T / m
        grads[f"db{layer}"] = dZ.sum(axis=1, keepdims=True) / m
        if layer > 1:
            dZ = parameters[f"W{layer}"].T @ dZ * (1 - below**2)
    return grads


def cost(y, outputs):
    return -np.mean(y * np.log(outputs + 1e-8))


def train(X, y, learning_rate, iterations=150, late=0.1):
    """Full-batch training. The rows of the table: iteration, cost, accuracy in percent, every tenth iteration."""
    parameters = initialize()
    rows = []
    for i in range(iterations):
        outputs, cache = forward(X, parameters)
        if i % 10 == 0:
            rows.append((i, cost(y, outputs), 100 * np.mean(outputs.argmax(axis=0) == y.argmax(axis=0))))
        grads = backward(X, y, cache, parameters)
        rate = late if i > 75 else learning_rate
        parameters = {name: array - rate * grads[f"d{name}"] for name, array in parameters.items()}
    return rows


def table(rows):
    return "\n".join(f"{i:5d} {cost:.6f} {accuracy:.6f}" for i, cost, accuracy in rows)
