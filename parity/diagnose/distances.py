"""How far arrays are apart, with NaN and infinity where they belong."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["apart", "growth", "largest", "within"]


def apart(a: Any, b: Any) -> np.ndarray:
    """|a - b|; 0 where both are the same infinity or both NaN, infinite where only one of them is."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    with np.errstate(all="ignore"):
        away = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y))
    return np.where(np.isnan(away), np.inf, away)


GLANCED = 97  # elements of a large array that are looked at first; a wrong guess is wrong in most of them


def within(a: Any, b: Any, allowed: Any) -> bool:
    """Whether no element is further away than allowed. Where most are, a glance at a few tells."""
    x, y = np.asarray(a), np.asarray(b)
    if x.shape != y.shape:
        return False
    if x.size > 2 * GLANCED and x.shape == np.broadcast_shapes(x.shape, np.shape(allowed)):
        few = slice(None, None, x.size // GLANCED)
        parts = (array.reshape(-1)[few] for array in (x, y, np.broadcast_to(allowed, x.shape)))
        if not _within(*parts):
            return False
    return _within(x, y, allowed)


def _within(a: np.ndarray, b: np.ndarray, allowed: Any) -> bool:
    return bool(np.all(apart(a, b) <= allowed))


def growth(array: np.ndarray, right: np.ndarray) -> float:
    """Rounding errors are in proportion to what is rounded: what is seven times too large may be seven budgets off."""
    return max(1.0, largest(array) / (largest(right) or np.inf))


def largest(array: Any) -> float:
    sizes = np.abs(np.asarray(array, np.float64))
    return float(np.max(sizes, where=np.isfinite(sizes), initial=0.0))
