"""What changed from one release of TensorFlow or Keras to another in what a network computes, and which conditions move
last bits: what explains that two recordings differ, or that an older release cannot make one.

Every change was measured: the project's cases were recorded, or refused, by the releases on both sides of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from parity.spec import Spec

__all__ = ["CHANGES", "CONDITIONS", "UNEXPLAINED", "Change", "between", "last_bits", "modes"]


@dataclass(frozen=True)
class Change:
    """One change of a release.

    code: stable, for programs; package: whose; until: the last release that was measured without it; since: the first
    one with it; text: what changed, and how large the difference is; concerns: whether a network can show it.
    """

    code: str
    package: str
    until: str
    since: str
    text: str
    concerns: Callable[[Spec], bool]

    @property
    def sentence(self) -> str:
        return f"{self.code}: {self.text}"

    def spans(self, left: str, right: str) -> bool:
        """Whether it came between these releases, in whichever order."""
        low, high = sorted((_release(left), _release(right)))
        return low <= _release(self.until) and _release(self.since) <= high


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _has(*words: str) -> Callable[[Spec], bool]:
    """Networks with one of these words among the settings of their layers and of their loss; names are none."""

    def concerns(spec: Spec) -> bool:
        layers = [{**entry["config"], "name": "", "class": entry["class_name"]} for entry in spec.config["layers"]]
        text = json.dumps(layers, default=str)
        return spec.loss_name in words or any(f'"{word}"' in text for word in words)

    return concerns


def _drops_all(spec: Spec) -> bool:
    return any(entry["config"].get("rate") == 1 for entry in spec.config["layers"])


CHANGES = (
    Change(
        "gelu-erfc",
        "tensorflow",
        "2.18.1",
        "2.19.1",
        "TensorFlow 2.19 computes gelu as x erfc(-x / sqrt 2) / 2 where it was x (1 + erf(x / sqrt 2)) / 2: in float64 "
        "results move by 1e-8, because the root is rounded to float32 in either, and in float32 the left tail does not "
        "cancel any more",
        _has("gelu"),
    ),
    Change(
        "tanh-erf-pow-kernels",
        "tensorflow",
        "2.19.1",
        "2.20.0",
        "TensorFlow 2.20 has other kernels for tanh, erf, erfc and pow: up to 4, 7, 8 and 1 ULP from those before",
        _has("tanh", "gelu"),
    ),
    Change(
        "reciprocal-log1p-kernels",
        "tensorflow",
        "2.20.0",
        "2.21.0",
        "TensorFlow 2.21 has other kernels for reciprocals (of the gradient of log) in float32, for log1p and expm1 in "
        "float64, and for erfc: up to 1, 2, 3 and 4 ULP from those before",
        _has(
            "binary_crossentropy",
            "categorical_crossentropy",
            "sparse_categorical_crossentropy",
            "gelu",
            "softplus",
            "mish",
        ),
    ),
    Change(
        "convolution-bias-add",
        "keras",
        "3.5.0",
        "3.8.0",
        "Keras 3.8 adds the bias of a convolution with tf.nn.bias_add where 3.5 took +: in tf.function its gradient is "
        "summed in another order",
        _has("Conv2D"),
    ),
    Change(
        "simple-rnn-bias-add",
        "keras",
        "3.10.0",
        "3.12.0",
        "Keras 3.12 adds the bias of a SimpleRNN with tf.nn.bias_add where 3.10 took +: in tf.function results move by "
        "up to 3 ULP",
        _has("SimpleRNN"),
    ),
    Change(
        "regularizers-in-float32",
        "keras",
        "3.13.2",
        "3.14.0",
        "Keras 3.14 rounds the factors of L1, L2 and L1L2 to float32: in float64 penalties move by up to 3e-8 of "
        "themselves; before, L2 and L1L2 kept their factors and L1 raised an error in float64",
        _has("L1", "L2", "L1L2"),
    ),
    Change(
        "dropout-of-all",
        "keras",
        "3.13.2",
        "3.14.0",
        "Keras 3.14 takes a Dropout with rate 1, whose output is 0; before, it raised an error",
        _drops_all,
    ),
)

CONDITIONS: Mapping[str, str] = {
    "tensorflow": "another build of TensorFlow's kernels and of the libraries that it multiplies matrices with",
    "keras": "another order of the same operations in Keras",
    "platform": "another system, and perhaps another processor, whose instructions the kernels are chosen by",
    "intra_op_threads": "another number of threads divides the sums in another way",
    "onednn": "oneDNN's kernels add up in another order than TensorFlow's own",
    "tensor_float_32": "matrix products of ten bits of mantissa on an Nvidia GPU",
    "flushes_subnormals": "results below 2^-126 become 0, or do not",
    "gpus": "a GPU's kernels add up in another order than a processor's",
}
"""What moves last bits where it differs between two recordings -> why."""

MODES: Mapping[str, str] = {
    "function": "a graph is simplified before it runs, such as / 6 into * (1/6)",
    "xla": "XLA fuses operations, has approximations of its own and adds up in another order",
}
"""The same of how Keras ran."""

UNEXPLAINED = (
    "nothing that was recorded of the conditions explains it; the processors may differ, or TensorFlow does not repeat "
    "itself there"
)


def between(spec: Spec, left: Mapping[str, Any], right: Mapping[str, Any]) -> list[Change]:
    """The changes that this network can show and that came between two recordings. left, right: the conditions under
    which they were made."""
    return [
        change
        for change in CHANGES
        if change.package in left and change.package in right
        if change.spans(str(left[change.package]), str(right[change.package])) and change.concerns(spec)
    ]


def last_bits(conditions: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """What moves last bits, of the conditions that are not the same left and right."""
    return [
        f"{key} {left} -> {right}: {CONDITIONS[key]}" for key, (left, right) in conditions.items() if key in CONDITIONS
    ]


def modes(left: str, right: str) -> str:
    """What explains that a run in one mode differs from one in another."""
    return f"{left} against {right}: {MODES['xla' if 'xla' in (left, right) else 'function']}"
