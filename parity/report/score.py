"""The catalogue of mistakes, and the score of the checker, as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parity.mistakes import Mistake

__all__ = ["Planted", "Score", "render_catalogue", "render_score"]

SHOWN = 20  # of the mistakes that were missed or misplaced


@dataclass(frozen=True)
class Planted:
    """One mistake in one operation of one network: what became of it."""

    code: str
    network: str
    size: str
    dtype: str
    place: str  # the first tensor that the mistake changes
    first_wrong: str | None  # the first tensor that the checker calls wrong

    @property
    def found(self) -> bool:
        return self.first_wrong is not None

    @property
    def located(self) -> bool:
        return self.first_wrong == self.place


@dataclass(frozen=True)
class Score:
    """planted: every mistake that can show, everywhere it can be made. alarms: correct networks that were called
    wrong. unplanted: codes that found no place. equivalent: code -> why it is no mistake."""

    planted: tuple[Planted, ...]
    correct: int
    alarms: tuple[str, ...]
    unplanted: tuple[str, ...]
    equivalent: Mapping[str, str]

    @property
    def missed(self) -> tuple[Planted, ...]:
        return tuple(p for p in self.planted if not p.found)

    @property
    def misplaced(self) -> tuple[Planted, ...]:
        return tuple(p for p in self.planted if p.found and not p.located)

    @property
    def passed(self) -> bool:
        return bool(self.planted) and not (self.missed or self.alarms or self.unplanted)


def render_catalogue(mistakes: Sequence[Mistake]) -> str:
    """Every mistake: its code, where it is made, what to change, and both formulas."""
    blocks = [f"{len(mistakes)} mistakes, {sum(bool(m.equivalent) for m in mistakes)} of them equivalent to right code"]
    for m in mistakes:
        lines = [f"{m.code}  ({m.on}, {m.direction})", f"  {m.text}", f"  right: {m.right}", f"  wrong: {m.wrong}"]
        lines.append(f"  equivalent: {m.equivalent}" if m.equivalent else f"  shows: {m.shows}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def render_score(score: Score) -> str:
    """A line for each size and dtype, what was missed or misplaced, and one sentence."""
    return "\n".join(_score_lines(score))


def _score_lines(score: Score) -> Iterator[str]:
    yield f"{'size':<8} {'dtype':<8} {'planted':>8} {'found':>8} {'located':>8}"
    for size, dtype in dict.fromkeys((p.size, p.dtype) for p in score.planted):
        group = [p for p in score.planted if (p.size, p.dtype) == (size, dtype)]
        found, located = sum(p.found for p in group), sum(p.located for p in group)
        yield f"{size:<8} {dtype:<8} {len(group):>8} {found:>8} {located:>8}"
    yield from _listed("missed", score.missed)
    yield from _listed("found at another tensor", score.misplaced)
    yield from (f"false alarm: {name}" for name in score.alarms)
    yield from (f"nowhere to plant: {code}" for code in score.unplanted)
    yield from (f"equivalent: {code}: {argument}" for code, argument in score.equivalent.items())
    codes = len({p.code for p in score.planted})
    planted, found = len(score.planted), len(score.planted) - len(score.missed)
    located = found - len(score.misplaced)
    yield (
        f"{codes} mistakes planted {planted} times: {found} found, {located} of them at the right tensor first "
        f"({located / max(found, 1):.2%}); {len(score.alarms)} false alarms in {score.correct} correct networks."
    )


def _listed(what: str, planted: Sequence[Planted]) -> Iterator[str]:
    for p in planted[:SHOWN]:
        seen = f", seen at {p.first_wrong}" if p.first_wrong else ""
        yield f"{what}: {p.code} in {p.network}, {p.size}, {p.dtype}, at {p.place}{seen}"
    if len(planted) > SHOWN:
        yield f"{what}: {len(planted) - SHOWN} more"
