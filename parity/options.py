"""Options that do nothing: both sides of a comparison were given the same value, and one of them ignores it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from parity.errors import UsageError
from parity.parameters import flattened

__all__ = ["unused"]


def unused(build: Callable[..., Callable[[Any], Any]], options: Mapping[str, Any], x: Any) -> dict[str, str]:
    """Option -> a sentence, for each option of your network that changes none of its outputs.

    build: makes the network from keyword arguments and returns its forward function, which takes x; with the same
    weights every time, so draw them from a seed. options: name -> a value other than the default, such as
    {"activation": "tanh"}. An option is unused where the outputs are the same bit by bit. That may also be because
    these samples do not show it, so give some that do.

    Raises UsageError where the network is another one each time it is built, and where there are no options.
    """
    if not options:
        raise UsageError("options: expected at least one, such as {'activation': 'tanh'}; received none")
    before, again = (_outputs(build(), x) for _ in range(2))
    if not _same(before, again):
        raise UsageError(
            "build: built twice in the same way, your network gives different outputs; draw its weights from a seed, "
            "so that only the option makes a difference"
        )
    return {
        name: f"changing {name} to {value!r} has no effect on your network: it is not used"
        for name, value in options.items()
        if _same(before, _outputs(build(**{name: value}), x))
    }


def _outputs(forward: Callable[[Any], Any], x: Any) -> list[np.ndarray]:
    """All arrays that come out, of copies of what goes in."""
    return [np.array(leaf) for _, leaf in flattened(forward(np.array(x)))]


def _same(some: list[np.ndarray], others: list[np.ndarray]) -> bool:
    return len(some) == len(others) and all(
        a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for a, b in zip(some, others, strict=True)
    )
