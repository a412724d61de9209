"""Metrics: one number for each sample, averaged over an epoch."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from scratchnet import registry
from scratchnet.registry import Entry, register

__all__ = ["BinaryAccuracy", "CategoricalAccuracy", "Metric", "SparseCategoricalAccuracy", "get"]


class Metric(Entry):
    """Base class. y_pred: (batch, ..., K); the result has one value per sample."""

    family = "metric"
    default_name: str

    def __init__(self, name: str | None = None):
        self.name = name or self.default_name

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build from Keras's config. Its dtype is left out: metrics are computed in the dtype of the predictions."""
        return super().from_config({name: value for name, value in config.items() if name != "dtype"})

    def per_sample(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """One value per sample."""
        raise NotImplementedError


@register("BinaryAccuracy", "binary_accuracy")
class BinaryAccuracy(Metric):
    """Share of the K outputs on the right side of the threshold; p > threshold, strictly."""

    default_name = "binary_accuracy"
    neutral = {"threshold": 0.5}

    def per_sample(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        y_true = np.asarray(y_true, y_pred.dtype).reshape(y_pred.shape)
        return np.mean(y_true == (y_pred > self.neutral["threshold"]), axis=-1, dtype=y_pred.dtype)


@register("CategoricalAccuracy", "categorical_accuracy")
class CategoricalAccuracy(Metric):
    """1 where the largest prediction and the largest target are at one place; the first of equal ones counts."""

    default_name = "categorical_accuracy"

    def per_sample(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return (np.argmax(y_true, axis=-1) == np.argmax(y_pred, axis=-1)).astype(y_pred.dtype)


@register("SparseCategoricalAccuracy", "sparse_categorical_accuracy")
class SparseCategoricalAccuracy(Metric):
    """1 where the largest prediction is at the integer label; the first of equal ones counts."""

    default_name = "sparse_categorical_accuracy"

    def per_sample(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        labels = np.asarray(y_true).reshape(y_pred.shape[:-1])
        return (labels == np.argmax(y_pred, axis=-1)).astype(y_pred.dtype)


def get(identifier: Any, y_true: np.ndarray, y_pred: np.ndarray) -> Metric:
    """The metric Keras would take `identifier` for. "accuracy" is resolved by the shapes, never by the loss."""
    if identifier in ("accuracy", "acc"):
        return _accuracy(np.asarray(y_true), y_pred)(name=identifier)
    found: Metric = registry.get("metric", identifier)
    return found


def _accuracy(y_true: np.ndarray, y_pred: np.ndarray) -> type[Metric]:
    if y_pred.shape[-1] == 1:
        return BinaryAccuracy
    if y_true.ndim < y_pred.ndim or y_true.shape[-1] == 1:
        return SparseCategoricalAccuracy
    return CategoricalAccuracy
