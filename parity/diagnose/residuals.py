"""What an error looks like that has no name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from parity import trace
from parity.diagnose.distances import apart, growth, within

__all__ = ["described"]


def described(tensor: str, subject: np.ndarray, right: np.ndarray, allowed: np.ndarray, batch: int) -> str:
    """The shape of the error of a tensor: one row, one sample, constant in each column, of rank one, ..."""
    if subject.shape != right.shape:
        return f"shape {subject.shape} where TensorFlow has {right.shape}"
    allowed = np.broadcast_to(allowed, right.shape)
    outside = apart(subject, right) > allowed
    count = f"{np.count_nonzero(outside)} of {outside.size} elements"
    if not np.all(np.isfinite(subject[outside])):
        return f"not finite in {np.count_nonzero(~np.isfinite(subject))} of {outside.size} elements"
    if subject.ndim == 0:
        return f"constant factor {float(subject / right):.4g}" if right else f"constant {float(subject):.4g}"
    axes = _axes(tensor, right.shape, batch)
    if place := _place(outside, axes):
        return place
    if not np.any(subject[outside]):
        return f"zero in {count}"
    error = np.asarray(subject, np.float64) - right
    if pattern := _pattern(error, subject, right, allowed, axes):
        return pattern
    if not np.any(right[outside]):
        return f"only where TensorFlow has 0, {count}"
    return f"no pattern, {count}"


def _axes(tensor: str, shape: Sequence[int], batch: int) -> list[str]:
    """What one index of each axis is."""
    names = ["row", "column"] if len(shape) == 2 else [f"index of axis {axis}" for axis in range(len(shape))]
    of_samples = tensor.removesuffix(".gradient").endswith((trace.INPUT, "/output", "/pre_activation"))
    if shape and shape[0] == batch and of_samples:
        names[0] = "sample"
    return names if len(shape) > 1 else ["element"]


def _place(outside: np.ndarray, axes: Sequence[str]) -> str:
    """Where the error is, if it is one element, one sample, one row or one column."""
    if np.count_nonzero(outside) == 1 and outside.size > 1:
        index = ", ".join(str(int(i)) for i in np.argwhere(outside)[0])
        return f"one element ({index})"
    for axis, name in enumerate(axes):
        others = tuple(a for a in range(outside.ndim) if a != axis)
        hit = np.flatnonzero(np.any(outside, axis=others))
        if len(hit) == 1 and outside.shape[axis] > 1:
            return f"one {name} ({hit[0]})"
    return ""


def _pattern(
    error: np.ndarray, subject: np.ndarray, right: np.ndarray, allowed: np.ndarray, axes: Sequence[str]
) -> str:
    """Constant, constant along an axis, a factor for each index of an axis, or of rank one. What two elements that are
    both right up to `allowed` can differ by is twice that."""
    if not np.all(np.isfinite(error)):
        return ""
    allowed = allowed * growth(subject, right)
    largest = float(np.max(allowed))
    if error.size > 1 and np.ptp(error) <= 2 * largest:
        return f"constant {float(np.mean(error)):.4g} on top"
    for axis, name in reversed(list(enumerate(axes))):
        others = tuple(a for a in range(error.ndim) if a != axis)
        if error.size > error.shape[axis] > 1:
            if np.all(np.ptp(error, axis=others) <= 2 * largest):
                return f"constant in each {name}"
            products, squares = (np.sum(right * a, axis=others, keepdims=True) for a in (subject, right))
            factors = np.where(squares > 0, products / np.where(squares > 0, squares, 1), 0)
            if within(subject, right * factors, allowed * np.maximum(1, np.abs(factors))):
                return f"a constant factor in each {name}"
    if error.ndim == 2 and min(error.shape) > 1:
        values = np.linalg.svd(error, compute_uv=False)
        # The error of a matrix moves its singular values by at most its 2-norm, which its Frobenius norm bounds (Weyl).
        if values[1] <= np.linalg.norm(allowed) < values[0]:
            return "rank one"
    return ""
