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


def within(a: Any, b: Any, allowed: Any) -> bool:
    return np.shape(a) == np.shape(b) and bool(np.all(apart(a, b) <= allowed))


def growth(array: np.ndarray, right: np.ndarray) -> float:
    """Rounding errors are in proportion to what is rounded: what is seven times too large may be seven budgets off."""
    return max(1.0, largest(array) / (largest(right) or np.inf))


def largest(array: Any) -> float:
    sizes = np.abs(np.asarray(array, np.float64))
    return float(np.max(sizes, where=np.isfinite(sizes), initial=0.0))
