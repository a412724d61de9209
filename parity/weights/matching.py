"""Which array of a file or a model is which weight of a network: every way that names, order and shapes allow.

Where more than one way is left, all are returned, and whoever asked has to choose.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from parity.errors import FileError, UsageError
from parity.weights.groups import MOST, by_group
from parity.weights.laid_out import by_layout, laid_out, layout_name
from parity.weights.names import FRAMEWORKS
from parity.weights.numbered import NUMBERED, by_number
from parity.weights.sides import Held, Match, Side, described, named, shape_in, step_to_keras
from parity.weights.skeleton import KNOWN, Skeleton, Slot, grouped, names_of
from parity.weights.stored import Archive
from parity.weights.transforms import Flattened, Transform

__all__ = ["STATE", "ambiguous", "matches", "naming_of"]


def matches(side: Side, skeleton: Skeleton, pins: Mapping[str, str] | None = None) -> list[Match]:
    """Every way that is consistent; more than `MOST` are cut off.

    pins: weight or layer -> key or prefix of keys, as the user says. FileError or UsageError where there is none, with
    what is missing, what is left over and what has another shape.
    """
    state = tuple(key for key in side.archive.arrays if key.partition("/")[0] in STATE)
    ignored = state + tuple(key for key in side.archive.arrays if _counts(key) and key not in state)
    left = _without(side, ignored)
    if not left.archive.arrays:
        raise side.wrong(f"holds no weights; the network needs {described(skeleton.shapes)}")
    found = _found(left, skeleton, dict(pins or {}))
    return [replace(match, ignored=ignored) for match in found]


STATE = ("optimizer", "optimizer_weights", "optimizer_state")
"""Where Keras's files keep what is no weight."""


def _counts(key: str) -> bool:
    return any(key.endswith(name) for framework in FRAMEWORKS.values() for name in framework.ignored)


def _without(side: Side, keys: Sequence[str]) -> Side:
    dropped = set(keys)
    arrays = {key: stored for key, stored in side.archive.arrays.items() if key not in dropped}
    return replace(side, archive=replace(side.archive, arrays=arrays))


def _found(side: Side, skeleton: Skeleton, pins: dict[str, str]) -> list[Match]:
    if side.layout is not None:
        if pins:
            raise UsageError("map and layout: expected one of them; a layout says where each array goes")
        return by_layout(side, skeleton)
    pins = _by_layer(side, skeleton, pins)
    direct = {weight: pins.pop(weight) for weight in list(pins) if weight in skeleton.shapes}
    ways = _direct(side, skeleton, direct)
    rest = Skeleton(
        skeleton.name,
        skeleton.layers,
        tuple(slot for slot in skeleton.slots if slot.key not in direct),
        skeleton.config,
        skeleton.epsilons,
    )
    left = _without(side, tuple(direct.values()))
    if not rest.slots and not left.archive.arrays:
        return ways
    others = _indirect(left, rest, pins)
    return [
        Match({slot.key: {**way.held, **other.held}[slot.key] for slot in skeleton.slots}) if way.held else other
        for way, other in itertools.islice(itertools.product(ways, others), MOST)
    ]


def _by_layer(side: Side, skeleton: Skeleton, pins: Mapping[str, str]) -> dict[str, str]:
    """Pins with a layer in place of a weight, where the key that is said for it belongs to a group that may be it."""
    naming = side.naming or naming_of(side.archive)
    if naming is None:
        return dict(pins)
    groups = grouped(side.shapes, naming)[0].values()
    found = dict(pins)
    for slot in skeleton.slots:
        group = next((g for g in groups if g.keys.get(named(naming, slot).name) == pins.get(slot.key, "")), None)
        if group is not None and found.get(slot.layer, group.prefix) == group.prefix:
            del found[slot.key]
            found[slot.layer] = group.prefix
    return found


def _indirect(side: Side, skeleton: Skeleton, pins: Mapping[str, str]) -> list[Match]:
    """By keys that say something themselves."""
    if all(NUMBERED.fullmatch(key) for key in side.archive.arrays):
        return by_number(side, skeleton, pins)
    naming = side.naming or naming_of(side.archive, skeleton)
    if naming is None and not pins and (found := laid_out(side, skeleton, None)):
        return found
    naming = naming or _nearest(side)
    if naming == "torch" and side.naming is None and not pins and side.archive.format in OF_ANYBODY:
        return _weight_and_bias(side, skeleton)
    if naming is None:
        raise side.wrong(
            f"its keys are in none of the namings {', '.join(FRAMEWORKS)} and their shapes in no known "
            f"layout: {described(side.shapes)}; the network needs {described(skeleton.shapes)}; say "
            "which array is which: map={weight: key}, or --map WEIGHT=KEY"
        )
    return by_group(side, skeleton, naming, pins)


OF_ANYBODY = ("arrays", "npz")
"""Where a tutorial keeps its arrays. In the other formats `weight` is PyTorch's word."""


def _weight_and_bias(side: Side, skeleton: Skeleton) -> list[Match]:
    """Arrays called weight and bias are PyTorch's, or somebody's whose matrices are rows, or both fit."""
    rows = laid_out(side, skeleton, "rows")
    try:
        return [*by_group(side, skeleton, "torch", {}), *rows]
    except (FileError, UsageError):
        if not rows:
            raise
        return rows


def naming_of(archive: Archive, skeleton: Skeleton | None = None) -> str | None:
    """The framework all of whose keys these may be; None where there is none. (Keras and Flax call kernels and biases
    the same, and mean the same by it.)"""
    shapes = {key: stored.shape for key, stored in archive.arrays.items() if not _counts(key)}
    roles = {slot.role for slot in skeleton.slots} if skeleton else ()
    collections = set((FRAMEWORKS["flax"].prefixes or {}).values())
    of_flax = all(re.split(r"[/.]", key)[0] in collections for key in shapes)
    order = ("flax", "keras", "torch") if of_flax else tuple(FRAMEWORKS)
    return next((naming for naming in order if not grouped(shapes, naming, roles)[1]), None)


def _nearest(side: Side) -> str | None:
    """The naming that knows most of the keys: what it does not know is then reported as left over."""
    known = {naming: len(side.shapes) - len(grouped(side.shapes, naming)[1]) for naming in FRAMEWORKS}
    best = max(known, key=lambda naming: known[naming])
    return best if known[best] else None


def ambiguous(side: Side, skeleton: Skeleton, ways: Sequence[Match], probed: bool = True) -> UsageError:
    """The error for more than one way: the rivals, and how to choose. probed: whether a probe would be of use."""
    probe = ", or probe=(inputs, outputs), --probe FILE.npz, to try them" if probed else ""
    count = f"more than {MOST - 1}" if len(ways) == MOST else str(len(ways))
    names = list(dict.fromkeys(layout_name(way.layout) for way in ways if way.layout is not None))
    by_naming = any(way.layout is None for way in ways)
    if names:
        rivals_of_layout = ", ".join([*["that of PyTorch"] * by_naming, *names])
        # A word without a colon is meant for the source if that does not speak for itself.
        word = f":{names[0]}" if not probed else f"{names[0]}:" if by_naming else names[0]
        choice = f"layout={word!r}, --layout {word!r}" + ", or naming='torch:', --naming torch:" * by_naming
        return UsageError(
            f"{side.archive.name}: {count} layouts fit, and shapes cannot tell: {rivals_of_layout}; say which: "
            f"{choice}{probe}"
        )
    rivals = {slot.key: list(dict.fromkeys(_option(way.held[slot.key]) for way in ways)) for slot in skeleton.slots}
    rivals = {weight: options for weight, options in rivals.items() if len(options) > 1}
    shown = "; ".join(
        f"{weight}: {' or '.join(options)}" for weight, options in itertools.islice(rivals.items(), SHOWN)
    )
    more = f"; and {len(rivals) - SHOWN} more weights" if len(rivals) > SHOWN else ""
    weight = next(iter(rivals))
    key = ways[0].held[weight].keys[0]
    return UsageError(
        f"{side.archive.name}: {count} ways to match its arrays fit, and shapes cannot tell: {shown}{more}; "
        f"say which: map={{{weight!r}: {key!r}}}, --map {weight}={key}, or naming=...{probe}"
    )


SHOWN = 8  # weights in a message


def _option(held: Held) -> str:
    moved = "; ".join(transform.words for transform in held.transforms)
    return f"{held.keys[0]!r}" + f" ({moved})" * bool(moved)


# -- one key, said by the user -----------------------------------------------------------------------------------------


def _direct(side: Side, skeleton: Skeleton, pins: Mapping[str, str]) -> list[Match]:
    slots = {slot.key: slot for slot in skeleton.slots}
    options = []
    for weight, key in pins.items():
        if key not in side.archive.arrays:
            raise UsageError(
                f"map: {weight}: {side.archive.name} has no key {key!r}; it has {', '.join(side.archive.arrays)}"
            )
        options.append([(weight, Held((key,), why, steps)) for why, steps in _orders(side, slots[weight], key)])
    if twice := [key for key, count in Counter(pins.values()).items() if count > 1]:
        raise UsageError(f"map: expected each key once; received {', '.join(twice)} more than once")
    return [Match(dict(chosen)) for chosen in itertools.islice(itertools.product(*options), MOST)]


def _orders(side: Side, slot: Slot, key: str) -> Iterator[tuple[str, tuple[Transform, ...]]]:
    """The ways in which the array under this key can be this weight: Keras's order of the axes, or PyTorch's."""
    shape = side.shapes[key]
    name = re.split(r"[/.]", key)[-1]
    by_name = ["keras"] if NUMBERED.fullmatch(key) else [n for n in ("keras", "torch") if name in names_of(n)]
    known = [side.naming] if side.naming else by_name
    namings = known if len(known) == 1 else ["keras", *(["torch"] if slot.kind in KNOWN["torch"] else [])]
    ways = {step_to_keras(n, slot): n for n in reversed(namings) if n and shape_in(n, slot) == shape}
    if slot.rows is not None and len(namings) > 1:
        ways |= {(*steps, Flattened(slot.rows.image, True)): n for steps, n in list(ways.items()) if n == "keras"}
        ways |= {steps[:-1]: n for steps, n in list(ways.items()) if n == "torch"}
    if not ways:
        expected = " or ".join(dict.fromkeys(str(shape_in(n, slot)) for n in namings if n))
        raise side.wrong(f"{key!r}: expected {expected} for {slot.key}; received {shape}")
    for steps, naming in ways.items():
        yield f"map says so; axes as in {naming}", steps
