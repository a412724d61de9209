"""Groups of keys with one prefix, such as `dense_1/kernel` and `dense_1/bias`: which of them is which layer.

Names come first, then order: numbers in names (dense_10 after dense_2), or the order that the source itself keeps.
Shapes only exclude.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from parity.errors import ParityError, UsageError
from parity.weights.keras_config import snake_case
from parity.weights.sides import Held, Match, Side, described, named, natural, shape_in, step_to_keras
from parity.weights.skeleton import Group, Skeleton, Slot, grouped

__all__ = ["MOST", "by_group"]

MOST = 720
"""Ways that are listed or tried: all orders of six equal layers. Where there are more, a probe is no way to choose."""

MOST_STEPS = 100_000
"""Attempts to deal groups of keys out to layers; all of `MOST` ways for a hundred layers need fewer."""


def by_group(side: Side, skeleton: Skeleton, naming: str, pins: Mapping[str, str]) -> list[Match]:
    """Every consistent way. pins: layer -> prefix, as the user says. An error where there is none."""
    groups, others = grouped(side.shapes, naming, {slot.role for slot in skeleton.slots})
    if others:
        raise side.wrong(
            f"holds what the network does not have, or what {naming} does not call a weight: "
            f"{described({key: side.shapes[key] for key in others})}"
        )
    layers = skeleton.by_layer
    pinned = _pinned(groups, layers, pins)
    named_alike = _named_alike(groups, layers)
    agreed = {layer: group for layer, group in named_alike.items() if group not in pinned.values()} | pinned
    if len(set(agreed.values())) == len(layers) == len(groups):
        reasons = {layer: "map says so" if layer in pins else "the layer has the same name" for layer in layers}
        return [_grouped_match(side, naming, layers, agreed, groups, reasons)]
    same = {k: v for k, v in named_alike.items() if not _automatic(k, layers[k][0].kind) and k not in pinned}
    pinned |= {layer: group for layer, group in same.items() if group not in pinned.values()}
    if len(groups) != len(layers):
        raise _unequal(side, naming, groups, layers, named_alike)
    ways, why = _assignments(side, naming, groups, layers, pinned)
    if not ways:
        raise _unfitting(side, naming, groups, layers, pinned)
    reasons = {
        layer: "map says so" if layer in pins else "the layer has the same name" if layer in same else why
        for layer in layers
    }
    return [_grouped_match(side, naming, layers, way, groups, reasons) for way in ways]


def _pinned(groups: Mapping[str, Group], layers: Mapping[str, Any], pins: Mapping[str, str]) -> dict[str, str]:
    for layer, prefix in pins.items():
        if layer not in layers:
            raise UsageError(f"map: the network has neither a weight nor a layer {layer!r}; it has {', '.join(layers)}")
        if prefix not in groups:
            raise UsageError(f"map: {layer}: no keys begin with {prefix!r}; there are {', '.join(groups)}")
    return dict(pins)


def _named_alike(groups: Mapping[str, Group], layers: Mapping[str, Any]) -> dict[str, str]:
    """Layer -> the group that has its name: all of the prefix, or else the last part of it, if that is unique."""
    tails = Counter(group.layer for group in groups.values())
    found = {layer: layer for layer in layers if layer in groups}
    for prefix, group in groups.items():
        if group.layer in layers and group.layer not in found and tails[group.layer] == 1:
            found[group.layer] = prefix
    return found


def _automatic(name: str, kind: str) -> bool:
    """Whether a framework made up this name, so that it says no more than which number the layer has."""
    return bool(re.fullmatch(rf"({re.escape(snake_case(kind))}|{re.escape(kind)}|layers)?[_.]?\d*", name))


def _problems(side: Side, naming: str, group: Group, slots: Sequence[Slot]) -> list[str]:
    """Why this group is not this layer."""
    expected = {named(naming, slot).name: slot for slot in slots}
    found = [
        f"{group.prefix}: no {name!r} for {slot.key} {slot.shape}"
        for name, slot in expected.items()
        if name not in group.keys
    ]
    found += [
        f"{key!r} {side.shapes[key]} is no weight of {slots[0].layer} ({slots[0].kind})"
        for name, key in group.keys.items()
        if name not in expected
    ]
    for name, slot in expected.items():
        if name in group.shapes and (shape := shape_in(naming, slot)) != group.shapes[name]:
            axes = ", ".join(named(naming, slot).axes)
            found.append(
                f"{group.keys[name]!r}: expected ({axes}) = {shape} for {slot.key}; received "
                f"{group.shapes[name]}{_hint(group.shapes[name], shape)}"
            )
    return found


def _hint(received: tuple[int, ...], expected: tuple[int, ...]) -> str:
    transposed = len(expected) == 2 and received == expected[::-1]
    return "; it fits transposed: if it is, say so with another naming, or layout='rows' or 'columns'" * transposed


def _assignments(
    side: Side,
    naming: str,
    groups: Mapping[str, Group],
    layers: Mapping[str, Sequence[Slot]],
    pinned: Mapping[str, str],
) -> tuple[list[dict[str, str]], str]:
    """The ways to deal groups out to layers, and what is known when one is left."""
    fits = {
        layer: [prefix for prefix in groups if not _problems(side, naming, groups[prefix], slots)]
        for layer, slots in layers.items()
    }
    fits |= {layer: [prefix] for layer, prefix in pinned.items() if prefix in fits[layer]}
    free = [prefix for prefix in groups if prefix not in pinned.values()]
    before = _by_number(free)
    own = dict(zip((layer for layer in layers if layer not in pinned), free, strict=True)) | dict(pinned)
    # JAX sorts the names in a tree of parameters, so in Flax's naming the order says nothing.
    by_own_order = side.ordered and naming != "flax" and all(own[layer] in fits[layer] for layer in layers)
    if by_own_order and all(before[prefix] in (None, *free[:place]) for place, prefix in enumerate(free)):
        return [own], f"the order of the keys in {side.archive.name}"
    if not _enough(fits):
        return [], ""
    ways = list(itertools.islice(_dealt(list(layers), fits, before, (), itertools.count()), MOST))
    if by_own_order and own not in ways:
        ways.insert(0, own)
    if any(before.values()):
        return ways, "the numbers in the names, and the only order in which the shapes fit"
    return ways, "the only way that the shapes allow"


def _by_number(groups: Sequence[str]) -> dict[str, str | None]:
    """Prefix -> the one that comes before it by the numbers in their names: of dense_10, dense_9, not dense_1."""
    stems: dict[str, list[str]] = {}
    for prefix in groups:
        stems.setdefault(re.sub(r"[_.]?\d+", "#", prefix).rstrip("#"), []).append(prefix)
    before: dict[str, str | None] = {}
    for alike in stems.values():
        ordered = sorted(alike, key=lambda prefix: [int(number) for number in re.findall(r"\d+", prefix)])
        before |= dict(zip(ordered, [None, *ordered], strict=False))
    return before


def _enough(fits: Mapping[str, Sequence[str]]) -> bool:
    """Whether each layer can have a group of its own (bipartite matching by augmenting paths)."""
    taken: dict[str, str] = {}

    def given(layer: str, tried: set[str]) -> bool:
        for prefix in fits[layer]:
            if prefix not in tried:
                tried.add(prefix)
                if prefix not in taken or given(taken[prefix], tried):
                    taken[prefix] = layer
                    return True
        return False

    return all(given(layer, set()) for layer in fits)


def _dealt(
    layers: Sequence[str],
    fits: Mapping[str, Sequence[str]],
    before: Mapping[str, str | None],
    used: tuple[str, ...],
    steps: Iterator[int],
) -> Iterator[dict[str, str]]:
    """Depth first: each layer in turn gets a group that fits and that follows those of its own numbering.

    With numbered names there is one way to go on from almost everywhere; a branch ends as soon as a layer that is left
    has no group left. `UsageError` after `MOST_STEPS`: names that contradict the order of the layers can make every
    branch end late.
    """
    if next(steps) > MOST_STEPS:
        raise UsageError(
            f"more than {MOST_STEPS} attempts to match {', '.join(before)} with the layers {', '.join(layers)}; say "
            "which is which: map={layer: prefix}, or --map LAYER=PREFIX"
        )
    if len(used) == len(layers):
        yield dict(zip(layers, used, strict=True))
        return
    if any(all(prefix in used for prefix in fits[layer]) for layer in layers[len(used) :]):
        return
    for prefix in fits[layers[len(used)]]:
        if prefix not in used and before.get(prefix) in (None, *used):
            yield from _dealt(layers, fits, before, (*used, prefix), steps)


def _grouped_match(
    side: Side,
    naming: str,
    layers: Mapping[str, Sequence[Slot]],
    way: Mapping[str, str],
    groups: Mapping[str, Group],
    reasons: Mapping[str, str],
) -> Match:
    held = {}
    for layer, slots in layers.items():
        group = groups[way[layer]]
        if problems := _problems(side, naming, group, slots):
            raise side.wrong("; ".join(problems))
        same_shape = [other for other in groups.values() if other is not group and other.shapes == group.shapes]
        for slot in slots:
            name = named(naming, slot).name
            rivals = tuple(other.keys[name] for other in same_shape)
            held[slot.key] = Held((group.keys[name],), reasons[layer], step_to_keras(naming, slot), rivals)
    return Match(held)


def _unequal(
    side: Side, naming: str, groups: Mapping[str, Group], layers: Mapping[str, Sequence[Slot]], alike: Mapping[str, str]
) -> ParityError:
    """More or fewer layers than the network has: what is missing and what is left over, by name, else by shape."""
    missing, extra = list(layers), list(groups)
    for layer, slots in layers.items():
        fitting = (
            [alike[layer]]
            if layer in alike
            else [
                prefix
                for prefix in extra
                if prefix not in alike.values() and not _problems(side, naming, groups[prefix], slots)
            ]
        )
        if fitting:
            missing.remove(layer)
            extra.remove(fitting[0])
    lost = described({slot.key: slot.shape for layer in missing for slot in layers[layer]})
    over = described({key: groups[p].shapes[name] for p in extra for name, key in groups[p].keys.items()})
    parts = [f"missing: {lost}"] * bool(missing) + [f"left over: {over}"] * bool(extra)
    return side.wrong(f"expected {len(layers)} layers with weights, received {len(groups)}; {'; '.join(parts)}")


def _unfitting(
    side: Side,
    naming: str,
    groups: Mapping[str, Group],
    layers: Mapping[str, Sequence[Slot]],
    pinned: Mapping[str, str],
) -> ParityError:
    """As many layers as the network has, but no order in which they fit: what is wrong in the most likely one."""
    free = [prefix for prefix in groups if prefix not in pinned.values()]
    if not side.ordered:
        free.sort(key=natural)
    rest = iter(free)
    order = [pinned[layer] if layer in pinned else next(rest) for layer in layers]
    problems = [
        problem
        for (_, slots), prefix in zip(layers.items(), order, strict=True)
        for problem in _problems(side, naming, groups[prefix], slots)
    ]
    shown = "; ".join(problems) or f"the numbers in the names {', '.join(order)} contradict the order of the layers"
    return side.wrong(f"no order of its layers fits the network; in the order of their names: {shown}")
