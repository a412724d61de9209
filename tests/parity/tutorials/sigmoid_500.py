"""784-500-500-10, all sigmoid, as a tutorial publishes it: each matrix has the biases as its first row.

Two things in `backward` are wrong, as they are in the tutorial; `mended` is the derivative of the loss. The tutorial
gives no loss: its error term y_hat - y is that of the binary cross-entropy, summed over the outputs.
"""

import itertools

import numpy as np


def g(z):
    return 1 / (1 + np.exp(-z))


def g_slope(z):
    return g(z) * (1 - g(z))


def add_bias(x):
    return np.hstack([np.ones((len(x), 1)), x])


def initial_weights(sizes, random):
    pairs = itertools.pairwise(sizes)
    return [random.randn(below + 1, above) * np.sqrt(2 / (below + above)) for below, above in pairs]


def forward(weights, inputs):
    x = inputs
    for w in weights:
        x = g(add_bias(x) @ w)
    return x


def backward(inputs, labels, weights):
    sums = [inputs]
    x = inputs
    for w in weights:
        sums.append(add_bias(x) @ w)
        x = g(sums[-1])
    errors = [(x - labels).T]
    for i, z in enumerate(sums[1:-1]):  # from the first hidden layer on, while the errors come from the last
        errors.append(weights[-(i + 1)][1:] @ errors[i] * g_slope(z).T)
    errors.reverse()
    return [errors[i] @ add_bias(sums[i]) / len(labels) for i in range(len(errors))]


def mended(inputs, labels, weights):
    activations = [inputs]
    for w in weights:
        activations.append(g(add_bias(activations[-1]) @ w))
    errors = [(activations[-1] - labels).T]
    for w, a in zip(weights[:0:-1], activations[-2:0:-1], strict=True):
        errors.append(w[1:] @ errors[-1] * (a * (1 - a)).T)
    errors.reverse()
    return [errors[i] @ add_bias(activations[i]) / len(labels) for i in range(len(errors))]


def loss(outputs, labels):
    losses = -(labels * np.log(outputs) + (1 - labels) * np.log(1 - outputs))
    return losses.sum(axis=1).mean()


def train(weights, images, digits, gradients, passes, rate=0.001):
    """Train a copy of the weights, one image at a time. images: (n, 784); digits: (n,) of 0..9."""
    weights = [w.copy() for w in weights]
    for _ in range(passes):
        for image, digit in zip(images, digits, strict=True):
            label = np.eye(10)[[digit]]
            for w, gradient in zip(weights, gradients(image[np.newaxis], label, weights), strict=True):
                w -= rate * gradient.T
    return weights


def accuracy(weights, images, digits):
    return np.mean(forward(weights, images).argmax(axis=1) == digits)
