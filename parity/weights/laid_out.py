"""Layouts of tutorials: W1, b1 ..., or one matrix a layer, or one vector, as weights of a network."""

from __future__ import annotations

import re
from collections import Counter

from parity.errors import UsageError
from parity.weights import layouts
from parity.weights.layouts import Layout
from parity.weights.sides import Held, Match, Side, described
from parity.weights.skeleton import Skeleton

__all__ = ["FLATTENED", "by_layout", "laid_out", "layout_name"]

FLATTENED = ", channels first rows"
"""Behind the name of a layout: the rows of a Dense behind a Flatten are in the order (channels, height, width)."""


def layout_name(layout: Layout) -> str:
    """A layout in the words by which it is asked for."""
    return layout.name.partition(", the rows of")[0] + FLATTENED * bool(layout.channels_first)


def by_layout(side: Side, skeleton: Skeleton) -> list[Match]:
    """The layout that the user names, or wrote as a function of Keras's weights."""
    if callable(side.layout):
        return [
            _laid_out_match(layouts.explicit(side.layout, skeleton.shapes, side.shapes), skeleton, "layout says so")
        ]
    assert side.layout is not None
    known = [name + suffix for name in layouts.CONVENTIONS for suffix in ("", FLATTENED)]
    if side.layout not in known:
        raise UsageError(f"layout: expected one of {', '.join(known)}; received {side.layout!r}")
    found = laid_out(side, skeleton, side.layout)
    if not found:
        raise side.wrong(
            f"the arrays {described(side.shapes)} do not hold {described(skeleton.shapes)} in the layout "
            f"{side.layout!r}"
        )
    return found


def laid_out(side: Side, skeleton: Skeleton, name: str | None) -> list[Match]:
    """The layouts that fit, of this name. Arrays are dealt out by the numbers in their names and by their order; where
    that order means nothing, no two of a number may have the same shape."""
    images = skeleton.images
    if name is None:
        found = layouts.candidates(skeleton.shapes, side.shapes, None, images)
    else:
        found = layouts.candidates(skeleton.shapes, side.shapes, name.removesuffix(FLATTENED))
        if name.endswith(FLATTENED):
            found = [layout.flattened(images) for layout in found] if images else []
    if found and not side.ordered:
        _require_told_apart(side)
    return [_laid_out_match(layout, skeleton, f"the layout {layout_name(layout)!r}") for layout in found]


def _require_told_apart(side: Side) -> None:
    alike = Counter((shape, _numbers(key)) for key, shape in side.shapes.items())
    if twins := [key for key, shape in side.shapes.items() if alike[shape, _numbers(key)] > 1]:
        raise UsageError(
            f"{side.archive.name}: {', '.join(twins)}: a {side.archive.format} file has no order, and neither their "
            "names nor their shapes say which is which; say so: map={weight: key}, or --map WEIGHT=KEY"
        )


def _numbers(key: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\d+", key))


def _laid_out_match(layout: Layout, skeleton: Skeleton, why: str) -> Match:
    held = {slot.key: Held(layout.holders(slot.key), why) for slot in skeleton.slots}
    return Match(held, layout=layout)
