"""Arrays as a file or a live model holds them: by its own keys, and not read before somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Archive", "Stored"]


@dataclass(frozen=True)
class Stored:
    """One array: its key in the file, what the file says of it, and how to read it.

    dtype: NumPy's, or `ml_dtypes.bfloat16`. load: the array with this shape and dtype, a view of the file where the
    format allows; raises FileError where the file does not hold what it says.
    """

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    load: Callable[[], np.ndarray]

    @classmethod
    def of(cls, key: str, array: np.ndarray) -> Stored:
        """An array that is already there."""
        return cls(key, array.shape, array.dtype, lambda: array)


@dataclass(frozen=True)
class Archive:
    """Everything that one file or live model holds.

    name: the path, or what a message calls it; format: such as "safetensors"; arrays: by key, in the order of the file;
    config: of the Keras Sequential, where it is there; metadata: other texts that the file carries.
    """

    name: str
    format: str
    arrays: Mapping[str, Stored]
    config: Mapping[str, Any] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
