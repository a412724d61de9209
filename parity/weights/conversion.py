"""A weight in another dtype, with an account of what that does to it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from parity.errors import ParityError

__all__ = ["Conversion", "Refuse", "about", "converted", "require_finite"]

BLOCK = 2**16  # elements that are compared at a time, so that the account takes no memory to speak of

Refuse = type[ParityError]


@dataclass(frozen=True)
class Conversion:
    """changed: how many of `size` values are others now; worst_ulp: the largest change, in units of the last place of
    the new dtype (below 1: rounding to nearest gives at most 0.5); to_zero: how many became 0."""

    source: str
    target: str
    size: int
    changed: int = 0
    worst_ulp: float = 0.0
    to_zero: int = 0

    @property
    def words(self) -> str:
        zero = f", {self.to_zero} become 0" if self.to_zero else ""
        return (
            f"{self.source} to {self.target}: {self.changed} of {self.size} values change, by up to "
            f"{self.worst_ulp:.2g} units in the last place{zero}"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "target": self.target,
            "size": self.size,
            "changed": self.changed,
            "worst_ulp": self.worst_ulp,
            "to_zero": self.to_zero,
        }


def require_finite(name: str, array: np.ndarray, refuse: Refuse) -> None:
    """An error for NaN or infinity. Least and greatest are looked at, since each of them carries a NaN on."""
    if array.size and not (np.isfinite(array.min()) and np.isfinite(array.max())):
        bad = sum(int(np.count_nonzero(~np.isfinite(block))) for (block,) in _blocks(array))
        raise refuse(
            f"{name}: expected finite numbers; {bad} of {array.size} are NaN or infinite; if they are meant, say "
            "allow_nonfinite=True, or --allow-nonfinite"
        )


def converted(name: str, array: np.ndarray, dtype: np.dtype[Any], refuse: Refuse) -> tuple[np.ndarray, Conversion]:
    """The array in another dtype, rounded to nearest; itself where it has that dtype. An error where a finite number
    would become infinite."""
    if array.dtype == dtype:
        return array, Conversion(array.dtype.name, dtype.name, array.size)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # counted below
        new = array.astype(dtype)
    changed = to_zero = 0
    worst = 0.0
    for old_block, new_block in _blocks(array, new):
        before, after = old_block.astype(np.float64), new_block.astype(np.float64)
        over = np.isinf(after) & np.isfinite(before)
        if np.any(over):
            raise refuse(
                f"{name}: {before[over][0]:.6g} is beyond the largest {dtype.name}, "
                f"{float(about(dtype).max):.6g}; nothing was changed; keep {array.dtype.name}"
            )
        differs = (before != after) & ~np.isnan(before)
        changed += int(np.count_nonzero(differs))
        to_zero += int(np.count_nonzero(differs & (after == 0)))
        if np.any(differs):
            worst = max(worst, float(np.max(np.abs(before - after)[differs] / _ulp(after[differs], dtype))))
    return new, Conversion(array.dtype.name, dtype.name, array.size, changed, worst, to_zero)


def _blocks(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Corresponding pieces of arrays of one shape and one order in memory, in that order; without a copy of the whole
    where they are not contiguous."""
    order = sorted(range(arrays[0].ndim), key=lambda axis: -abs(arrays[0].strides[axis]))
    arrays = tuple(array.transpose(order) for array in arrays)
    first = arrays[0]
    if first.ndim < 2 or first.size <= BLOCK:
        flat = [array.reshape(-1) for array in arrays]
        for start in range(0, first.size, BLOCK):
            yield tuple(piece[start : start + BLOCK] for piece in flat)
        return
    rows = max(1, BLOCK // math.prod(first.shape[1:]))
    for start in range(0, len(first), rows):
        yield tuple(array[start : start + rows] for array in arrays)


def about(dtype: np.dtype[Any]) -> Any:
    """`np.finfo`, which does not know bfloat16."""
    return ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]


def _ulp(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """The distance to the next number of this dtype: 2^(exponent - digits), not below that of the denormals."""
    known = about(dtype)
    _, exponents = np.frexp(values)  # |values| = m 2^e with m in [0.5, 1)
    return np.asarray(np.ldexp(1.0, np.maximum(exponents - 1, int(known.minexp)) - int(known.nmant)))
