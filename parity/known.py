"""Where Keras on TensorFlow does not compute the same thing under all conditions: eager, in `tf.function`, under XLA,
with other threads or settings. A comparison against one of them says nothing about the others there.

Measured with Keras 3.15.1 and TensorFlow 2.21.0 on x86-64. A test shows each of them on the installed versions, and
fails when one no longer applies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["KNOWN", "Known", "explanation"]

ROUNDED = 1e-6  # how far rounding takes the sum of a row of float32 labels from 1: up to 16 u for thousands of classes


@dataclass(frozen=True)
class Known:
    """One known difference.

    code: stable, for programs; where: what is computed, of which input; results: condition -> what comes out, numbers
    in four digits unless the last bit is the point; reason: why, and what follows from it.
    """

    code: str
    where: str
    results: Mapping[str, str]
    reason: str


def _modes(eager: str, function: str, xla: str) -> Mapping[str, str]:
    return {"eager": eager, "function": function, "xla": xla}


KNOWN = (
    Known(
        "selu-at-zero",
        "derivative of selu at 0",
        _modes("1.051", "1.051", "1.758"),
        "TensorFlow's kernel takes the slope of the right side, XLA that of the left.",
    ),
    Known(
        "elu-near-zero",
        "elu(-1e-7)",
        _modes("-1.192e-07", "-1.192e-07", "-1e-07"),
        "TensorFlow's kernel computes exp(x) - 1, which cancels; XLA computes expm1(x).",
    ),
    Known(
        "tanh-saturated",
        "derivative of tanh at 7.95",
        _modes("0", "0", "3.576e-07"),
        "Two approximations: TensorFlow's is exactly 1 from 7.91 on, XLA's is not yet.",
    ),
    Known(
        "gelu-approximate-tail",
        "derivative of gelu(approximate=True) at -4",
        _modes("-0.000335", "-0.000335", "-0.0003344"),
        "1 + tanh(z) cancels, and what is left is the rounding of the two approximations of tanh.",
    ),
    Known(
        "hard-silu-at-infinity",
        "derivative of hard_silu at inf and -inf",
        _modes("nan nan", "nan nan", "1 0"),
        "TensorFlow's kernel for relu6 multiplies with the mask, and 0 * inf is NaN; XLA selects.",
    ),
    Known(
        "softmax-of-infinity",
        "softmax(inf, 0, 1, 2)",
        _modes("nan 0 0 0", "nan 0 0 0", "nan nan nan nan"),
        "inf - inf is NaN; XLA's sum carries it into the whole row, TensorFlow's kernel keeps it in its cell.",
    ),
    Known(
        "cosine-similarity-of-zero",
        "gradient of cosine_similarity by a prediction of zeros, target (1, 0)",
        _modes("-1e+07 0", "-1e+07 0", "nan nan"),
        "The norm's reciprocal is infinite at 0 and cut off at 1e7; XLA's gradient meets the infinity all the same.",
    ),
    Known(
        "max-pooling-of-minus-infinity",
        "MaxPooling2D of a window of -inf",
        _modes("-3.403e+38", "-3.403e+38", "-inf"),
        "TensorFlow's kernel starts the maximum from the lowest finite number.",
    ),
    Known(
        "max-pooling-of-nan",
        "gradient of MaxPooling2D by the window (nan, 1, 2, 0)",
        _modes("1 0 0 0", "0 0 1 0", "0 0 1 0"),
        "The output is 2 in all of them. NaN is neither larger nor smaller, so which cell is kept depends on the scan.",
    ),
    Known(
        "global-max-of-nan",
        "GlobalMaxPooling2D of (nan, 1, 2, 0)",
        _modes("nan", "nan", "2"),
        "XLA's maximum on the processor compares, and NaN loses every comparison.",
    ),
    Known(
        "sparse-label-out-of-range",
        "sparse_categorical_crossentropy from logits, label 5 of 3 classes",
        _modes("error", "error", "nan"),
        "Compiled code cannot raise an error. The sample's loss is NaN, and so is the mean.",
    ),
    Known(
        "index-out-of-range",
        "Embedding with the rows 1, 2, 3, index 5",
        _modes("error", "error", "3"),
        "Compiled code cannot raise an error. XLA clamps the index to the last row, silently.",
    ),
    Known(
        "dropout-mask",
        "Dropout(0.5, seed=7): cells of the first row of eight that are kept",
        _modes("1 1 0 1 0 1 0 1", "1 1 0 1 0 1 0 1", "1 0 1 1 0 0 1 0"),
        "Keras leaves the random generator's algorithm open, and XLA takes another one than Philox. Networks that drop "
        "cells cannot be compared under XLA.",
    ),
    Known(
        "raw-softmax",
        "categorical_crossentropy of tf.nn.softmax(40, 0, -1), true class the second",
        _modes("16.12", "40", "40"),
        "In a graph Keras finds the operation that made the probabilities, and goes on from its logits; eager tensors "
        "have no such operation. keras.activations.softmax hangs the logits on its output: no such difference there.",
    ),
    Known(
        "raw-sigmoid",
        "binary_crossentropy of tf.sigmoid(40), label 0",
        _modes("15.94", "40", "40"),
        "As for raw-softmax.",
    ),
    Known(
        "eager-graph-last-bit",
        "hard_sigmoid(-1.7)",
        _modes("0.21666665", "0.21666667", "0.21666667"),
        "Constant folding in a graph turns / 6 into * (1/6). Eager and graph are not bit-identical in general.",
    ),
    Known(
        "targets-not-summing-to-one",
        "gradient of categorical_crossentropy from the logits (1, 2, 3), target (1, 1, 0)",
        {"default": "-0.91 -0.7553 0.6652", "enable_op_determinism()": "-0.8199 -0.5105 1.33"},
        "By default it is softmax - y, whatever the sum of y; the derivative of the loss is softmax * sum(y) - y, and "
        "the deterministic implementation gives that.",
    ),
    Known(
        "onednn-last-bits",
        "product of (32, 784) and (784, 500), float32",
        {"oneDNN": "one result", "TF_ENABLE_ONEDNN_OPTS=0": "another in the last bits"},
        "Another order of summation. Both are within the budget.",
    ),
    Known(
        "thread-last-bits",
        "product of (1, 784) and (784, 500), float32",
        {"2 threads": "one result", "1 thread": "another in the last bits"},
        "With a batch of one, each thread sums a part of the terms. Both are within the budget.",
    ),
)


def explanation(loss: str, y: np.ndarray, logits: bool) -> str:
    """Why TensorFlow's gradient is not the derivative of its loss, where that is known; "" elsewhere.

    logits: whether the loss was computed from them.
    """
    rows = np.sum(y, axis=-1) if y.ndim > 1 else np.ones(1)
    if loss == "categorical_crossentropy" and logits and not np.allclose(rows, 1, rtol=0, atol=ROUNDED):
        (entry,) = (known for known in KNOWN if known.code == "targets-not-summing-to-one")
        return f"{entry.reason} Here the labels sum to {np.min(rows):.3g} to {np.max(rows):.3g}."
    return ""
