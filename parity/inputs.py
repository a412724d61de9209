"""The samples and labels of a check: the caller's, digits, or a designed probe; made sure of, and put into form."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parity import data, probe
from parity.errors import NothingConcluded, UsageError
from parity.runners import scratch

__all__ = ["Inputs", "Preferred", "representable", "whole_number"]

ROUNDED = 1e-5  # how far rounding takes a row of float32 labels from the sum 1, with thousands of classes


class Preferred(str):
    """What `data` is for the networks that take digits, and nothing for the others: a project settled it for all of its
    networks. Asked for by name, digits for another network are a mistake."""


@dataclass
class Inputs:
    """The samples and labels of a check: the caller's, digits, or a designed probe; and what to call them."""

    x: np.ndarray | None
    y: np.ndarray | None
    data: str | Path | None
    batch: int
    seed: int
    source: str = ""
    used: str | Path | None = None  # of `data`, where digits were used: what it stood for

    def for_network(self, network: scratch.Network) -> tuple[np.ndarray, np.ndarray]:
        if (self.x is None) != (self.y is None):
            raise UsageError("x and y go together: give both, or neither for designed inputs")
        if self.x is not None and self.y is not None:
            x, y = _numbers("x", self.x), _numbers("y", self.y)
            if len(x) != len(y):
                raise UsageError(f"x has {len(x)} samples, y has {len(y)}; each sample needs its label")
            if x.shape[1:] != network.input_shape or not len(x):
                raise UsageError(
                    f"x: expected at least one sample of shape {network.input_shape}; received the array {x.shape}"
                )
            self.source, self.batch = "the caller's x and y", len(x)
            return representable(x), _whole_rows(y, network.labels)
        if network.takes_digits:
            return self._digits(network)
        if not (self.data is None or isinstance(self.data, Preferred)):
            raise UsageError(
                f"data: {network.name} takes samples of shape {network.input_shape}, not 28x28 digits; leave data out"
            )
        self.source = "designed probe"
        x = probe.samples(network.input_shape, self.batch, self.seed, network.indices)
        return representable(x), probe.labels(network.output_shape, self.batch, self.seed, network.labels)

    def _digits(self, network: scratch.Network) -> tuple[np.ndarray, np.ndarray]:
        digits = data.load(self.data)
        if self.batch > len(digits.x_train):
            raise UsageError(f"batch: {self.batch} samples asked for, {digits.source} has {len(digits.x_train)}")
        self.source = digits.source
        self.used = self.data or ("mnist" if digits.source.startswith("MNIST") else "digits")
        pixels = digits.x_train[: self.batch].reshape(self.batch, *network.input_shape) / 255
        return representable(pixels), probe.encoded(digits.y_train[: self.batch], network.output_shape, network.labels)


def whole_number(name: str, value: Any, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise UsageError(f"{name}: expected a whole number of at least {least}; received {value!r}")
    return number


def _numbers(name: str, values: Any) -> np.ndarray:
    """An array of finite real numbers with at least one axis."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise UsageError(f"{name}: expected an array; {error}") from error
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise UsageError(
            f"{name}: expected an array of real numbers; received dtype {array.dtype}, shape {array.shape}"
        )
    with np.errstate(over="ignore"):
        finite = np.isfinite(array.astype(np.float32))
    if not np.all(finite):
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise NothingConcluded(
            f"{name}: {np.count_nonzero(~finite)} numbers are NaN, infinite or beyond float32, the first at {first}: "
            f"{array[first]}; right and wrong look the same behind them"
        )
    return array


def _whole_rows(y: np.ndarray, kind: str) -> np.ndarray:
    """Labels whose rows sum to 1 but for float32 rounding, in float64 and summing to 1: TensorFlow's gradient takes
    that for granted, and 1e-7 is a large error in float64."""
    if kind != "one_hot" or not np.issubdtype(y.dtype, np.floating) or y.ndim < 2:
        return y
    total = np.sum(y, axis=-1, keepdims=True, dtype=np.float64)
    return np.where(np.abs(total - 1) < ROUNDED, y / np.where(total == 0, 1, total), y)


def representable(x: np.ndarray) -> np.ndarray:
    """Values that float32 holds exactly, so that both dtypes compare the same computation. Subnormal ones are 0, which
    TensorFlow takes them for."""
    if np.issubdtype(x.dtype, np.integer):
        return x
    narrow = x.astype(np.float32)
    return np.where(np.abs(narrow) < np.finfo(np.float32).tiny, np.float32(0), narrow)
