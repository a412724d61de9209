"""What a port is going to do, before anything moves: which key becomes which, how, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parity.weights.sides import Held, Match
from parity.weights.skeleton import Skeleton
from parity.weights.stored import Archive
from parity.weights.transforms import undone

__all__ = ["End", "Plan", "Step", "planned"]


@dataclass(frozen=True)
class End:
    """One array at one end of a port: its key, shape and dtype."""

    key: str
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.key} {self.shape} {self.dtype}"


@dataclass(frozen=True)
class Step:
    """How one weight moves.

    weight: `<layer>/<role>`, and its shape in Keras's form, through which everything goes; sources, targets: the arrays
    that hold it; transforms: in words, in this order; why: the source and the target were matched; rivals: other keys
    that the shapes alone would have allowed; rounded: what the conversion of the dtype costs, None where it is exact.
    """

    weight: str
    shape: tuple[int, ...]
    sources: tuple[End, ...]
    transforms: tuple[str, ...]
    targets: tuple[End, ...]
    why: str
    rivals: tuple[str, ...] = ()
    rounded: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "weight": self.weight,
            "shape": list(self.shape),
            "sources": [_as_json(end) for end in self.sources],
            "transforms": list(self.transforms),
            "targets": [_as_json(end) for end in self.targets],
            "why": self.why,
            "rivals": list(self.rivals),
            "rounded": self.rounded,
        }

    def to_text(self) -> str:
        lines = [
            f"{self.weight} {self.shape}",
            f"  from     {', '.join(map(str, self.sources))}",
            f"  to       {', '.join(map(str, self.targets))}",
            f"  moved    {'; '.join(self.transforms) or 'as it is'}",
            f"  because  {self.why}",
        ]
        lines += [f"  rivals   {', '.join(self.rivals)}"] * bool(self.rivals)
        lines += [f"  rounded  {self.rounded}"] * bool(self.rounded)
        return "\n".join(lines)


def _as_json(end: End) -> dict[str, Any]:
    return {"key": end.key, "shape": list(end.shape), "dtype": end.dtype}


@dataclass(frozen=True)
class Plan:
    """All steps, in Keras's order. ignored: keys of the source without a weight; notes: what a reader should know."""

    source: str
    source_format: str
    target: str
    target_format: str
    steps: tuple[Step, ...]
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_text(self) -> str:
        head = f"{self.source} ({self.source_format}) to {self.target} ({self.target_format}):"
        count = f"{len(self.steps)} weight" + "s" * (len(self.steps) != 1)
        ignored = [f"ignored, since they hold no weights: {', '.join(self.ignored)}"] * bool(self.ignored)
        notes = [f"note: {note}" for note in self.notes]
        return "\n".join([f"{head} {count}", *(step.to_text() for step in self.steps), *ignored, *notes])

    def to_json(self) -> dict[str, Any]:
        return {
            "source": {"name": self.source, "format": self.source_format},
            "target": {"name": self.target, "format": self.target_format},
            "steps": [step.to_json() for step in self.steps],
            "ignored": list(self.ignored),
            "notes": list(self.notes),
        }


def planned(
    skeleton: Skeleton,
    source: tuple[Archive, Match],
    target: tuple[Archive, Match],
    rounded: Mapping[str, str],
    notes: tuple[str, ...],
) -> Plan:
    """The plan for two matches. rounded: weight -> in words, where a conversion changes values."""
    (source_archive, there), (target_archive, here) = source, target
    steps = tuple(
        Step(
            slot.key,
            slot.shape,
            _ends(source_archive, there.held[slot.key]),
            _words(there, here, slot.key),
            _ends(target_archive, here.held[slot.key]),
            _why(there.held[slot.key], here.held[slot.key]),
            tuple(dict.fromkeys((*there.held[slot.key].rivals, *here.held[slot.key].rivals))),
            rounded.get(slot.key),
        )
        for slot in skeleton.slots
    )
    return Plan(
        source_archive.name,
        source_archive.format,
        target_archive.name,
        target_archive.format,
        steps,
        there.ignored,
        notes,
    )


def _ends(archive: Archive, held: Held) -> tuple[End, ...]:
    return tuple(End(key, archive.arrays[key].shape, archive.arrays[key].dtype.name) for key in held.keys)


def _words(there: Match, here: Match, weight: str) -> tuple[str, ...]:
    """Transforms that undo one another, as from PyTorch to PyTorch, are left out."""
    steps = [*there.held[weight].transforms]
    for step in undone(here.held[weight].transforms):
        if steps and steps[-1].inverse == step:
            steps.pop()
        else:
            steps.append(step)
    words = [step.words for step in steps]
    if there.layout is not None:
        words.insert(0, f"out of the layout {there.layout.name!r}")
    if here.layout is not None:
        words.append(f"into the layout {here.layout.name!r}")
    return tuple(words)


def _why(there: Held, here: Held) -> str:
    reasons = {"in the source": there.why, "in the target": here.why}
    given = {end: why for end, why in reasons.items() if why}
    if len(set(given.values())) == 1:
        return next(iter(given.values()))
    return "; ".join(f"{end}: {why}" for end, why in given.items()) or "its own weight"
