"""Keras's h5 files: which group holds which layer, where the groups are numbered by class."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from parity.errors import ParityError
from parity.weights.keras_config import snake_case
from parity.weights.keras_file import OWNER
from parity.weights.sides import Held, Match, Side, described, natural
from parity.weights.skeleton import Skeleton

__all__ = ["NUMBERED", "by_number", "groups_by_counter"]

NUMBERED = re.compile(r"(layers/[^/]+)/(?:.+/)?vars/(\d+)")


def groups_by_counter(layers: Mapping[str, str]) -> dict[str, str]:
    """Layer -> the group in which Keras keeps it: `layers/dense_1` is the second Dense, whatever it is called."""
    used: Counter[str] = Counter()
    found = {}
    for layer, kind in layers.items():
        base = snake_case(kind)
        found[layer] = f"layers/{base}_{used[base]}" if used[base] else f"layers/{base}"
        used[base] += 1
    return found


def by_number(side: Side, skeleton: Skeleton, pins: Mapping[str, str]) -> list[Match]:
    """By counter, as Keras itself reads such a file, and by the names that it notes beside them, where they are those
    of the network: two ways if they contradict each other and both fit."""
    names = {side.archive.metadata.get(_group_of(key), ""): _group_of(key) for key in side.archive.arrays}
    by_counter = groups_by_counter(skeleton.layers)
    ways = [(by_counter, "Keras's count of the layers of each class")]
    if set(skeleton.by_layer) <= set(names):
        by_name = {layer: names[layer] for layer in skeleton.by_layer}
        same = all(by_counter[layer] == group for layer, group in by_name.items())
        ways = [(by_name, "the names and Keras's count agree")] if same else [*ways, (by_name, "the name in the file")]
    if pins:
        ways = [({**ways[0][0], **pins}, "map says so")]
    found, errors = [], []
    for groups, why in ways:
        try:
            found.append(_numbered_match(side, skeleton, groups, why))
        except ParityError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    return found


def _numbered_match(side: Side, skeleton: Skeleton, groups: Mapping[str, str], why: str) -> Match:
    held: dict[str, Held] = {}
    left = dict.fromkeys(side.archive.arrays)
    for layer, slots in skeleton.by_layer.items():
        keys = [key for key in left if _group_of(key) == groups[layer]]
        # Of a layer that has others inside, such as Bidirectional, the order is not that of the groups' names.
        flat = (f"{groups[layer]}/vars/", f"{groups[layer]}/{OWNER.get(slots[0].kind, '')}vars/")
        if strange := [key for key in keys if not key.startswith(flat)]:
            raise side.wrong(
                f"{strange[0]!r}: how Keras orders the weights in a {slots[0].kind} is not known; expected "
                f"{flat[1]}0, ...; load the file with Keras and port the live model"
            )
        if len(keys) != len(slots):
            raise side.wrong(
                f"{groups[layer]!r}: expected the {len(slots)} weights of layer {layer!r} ({slots[0].kind}), "
                f"{described({slot.role: slot.shape for slot in slots})}; received {', '.join(keys) or 'none'}"
            )
        for slot, key in zip(slots, sorted(keys, key=natural), strict=True):
            if (received := side.shapes[key]) != slot.shape:
                raise side.wrong(f"{key!r}: expected {slot.shape} for {slot.key}; received {received}")
            held[slot.key] = Held((key,), f"{groups[layer]!r}: {why}")
            del left[key]
    if left:
        raise side.wrong(f"holds what the network does not have: {described({key: side.shapes[key] for key in left})}")
    return Match(held)


def _group_of(key: str) -> str:
    found = NUMBERED.fullmatch(key)
    return found[1] if found else ""
