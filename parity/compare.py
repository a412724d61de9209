"""Two traces -> one row a tensor: how far apart, how far they may be, and where it is worst. Arrays only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from parity.errors import NothingConcluded
from parity.sketch import Sketch, Vouched, seen_from
from parity.trace import INPUT, Place, Trace

__all__ = ["GATE", "Row", "compare_local", "compare_whole", "gate", "incomparable", "judge", "missing", "settled"]

GATE = 1e-11
"""Of a tensor's largest element: the float64 gate. In 10,000 random networks the worst correct tensor was at 3.1e-13,
and a lone error of 1e-9 in one gradient was seen in 99.5 % of them."""

GATE_OF_NETWORK = 1e-14
"""Of the largest element of all forward, all backward or all updated tensors: for tensors that cancel to zero, such as
the gradient by a bias in front of a batch normalisation."""

NEAR_A_KINK = (
    "the whole runs are further apart than the gate, but every operation of both is right: rounding decided a kink, a "
    "tie or a clip, or something close to a singularity grew; judged operation by operation"
)


@dataclass(frozen=True)
class Row:
    """One tensor of one comparison.

    budgets: the largest difference in units of what is allowed there; up to 1 is right. index, subject, reference,
    difference and allowed belong to that worst element. `outside` of `size` elements are out of budget, the ones that
    `wrong` marks. The relative error and the distance in units in the last place are information: in correct code,
    elements that cancel are 10 % off. below_noise: the reference is nowhere larger than what is allowed, so zeros would
    pass. unjudged: elements of which nothing is known, because what is allowed there overflows, or both sides do.
    note: why a tensor could not be compared as usual; mode: how the reference ran.
    """

    tensor: str
    computed_by: str
    shape: tuple[int, ...]
    budgets: float
    index: tuple[int, ...]
    subject: float
    reference: float
    difference: float
    allowed: float
    outside: int
    size: int
    largest_absolute: float
    largest_relative: float
    largest_ulp: float
    below_noise: bool = False
    unjudged: int = 0
    wrong: np.ndarray | None = field(default=None, compare=False, repr=False)
    note: str = ""
    mode: str = ""

    @property
    def passed(self) -> bool:
        return self.budgets <= 1

    @property
    def compared(self) -> bool:
        """Whether the row is a statement on the whole tensor: it is wrong, or every element was judged."""
        return not self.passed or not self.unjudged


def gate(reference: Trace, places: Sequence[Place]) -> dict[str, float]:
    """How far float64 runs may be apart: each tensor on the scale of its own largest element."""
    scales = {stage: _scale(reference, (p for p in places if p.stage == stage)) for stage in {p.stage for p in places}}
    return {
        p.tensor: GATE * _largest(reference[p.tensor]) + GATE_OF_NETWORK * scales[p.stage]
        for p in places
        if p.tensor in reference
    }


def compare_whole(subject: Trace, reference: Trace, places: Sequence[Place]) -> list[Row]:
    """The float64 gate: both runs as a whole."""
    allowed = gate(reference, places)
    return [
        judge(place, subject[place.tensor], reference[place.tensor], allowed[place.tensor])
        for place in _shared(subject.tensors, reference, places)
    ]


def missing(reference: Trace, subject: Mapping[str, Any], places: Sequence[Place]) -> list[Row]:
    """A row out of budget for each tensor of the reference that the subject does not have: where nothing is compared,
    nothing agrees."""
    known = {place.tensor: place for place in places}
    rows = []
    for name, tensor in reference.tensors.items():
        if name not in subject and name != INPUT:
            place = known.get(name, Place(name, "nothing in scratchnet", "backward"))
            rows.append(incomparable(place, np.shape(tensor), "the subject has no such tensor"))
    return rows


def compare_local(
    replayed: Mapping[str, Any], bounds: Mapping[str, np.ndarray], reference: Trace, places: Sequence[Place]
) -> list[Row]:
    """The local pass: each operation on the reference's own tensors.

    bounds: how far a correct evaluation may be from the exact result of that operation; two correct ones may be twice
    that apart.
    """
    return [
        judge(place, replayed[place.tensor], reference[place.tensor], 2 * bounds[place.tensor])
        for place in _shared(replayed, reference, places)
    ]


def settled(whole: Sequence[Row], local: Sequence[Row], own: Sequence[Row]) -> list[Row]:
    """The verdict on two runs that are further apart than the gate.

    Both are right all the same if each operation of each of them is: on the reference's tensors (`local`), and on the
    subject's (`own`), with no element that could not be judged. Then the two took different sides of a kink, a tie or a
    clip that is within rounding, such as a pre-activation of a relu that is 3e-18 in one and 0 in the other, or
    something close to a singularity grew. Rows beyond the gate then become the local ones, which say so.
    """
    if all(row.passed for row in whole) or not all(row.passed and row.compared for row in (*local, *own)):
        return list(whole)
    known = {row.tensor: row for row in local}
    if not all(row.passed or row.tensor in known for row in whole):
        return list(whole)
    return [row if row.passed else replace(known[row.tensor], note=NEAR_A_KINK) for row in whole]


def judge(place: Place, subject: Any, reference: Any, allowed: np.ndarray | float) -> Row:
    """One tensor: every element against what is allowed there, or anywhere.

    An infinite budget would let everything pass, and a right and a wrong result overflow to the same infinity: such
    elements are counted in `unjudged`. Where only one side is infinite or NaN, it is wrong whatever is allowed. Of a
    `Vouched` reference, the sketch decides what was recorded.
    """
    s, r = np.asarray(subject), np.asarray(reference)
    if s.shape != r.shape:
        return incomparable(place, r.shape, f"shape {s.shape} where the reference has {r.shape}")
    row = _elementwise(place, s, r, allowed)
    sketch = reference.sketch if isinstance(reference, Vouched) else None
    return row if sketch is None else _sketched(place, row, s, r, sketch, allowed)


def _elementwise(place: Place, s: np.ndarray, r: np.ndarray, allowed: np.ndarray | float) -> Row:
    allowed = np.broadcast_to(allowed, r.shape)
    with np.errstate(all="ignore"):
        difference = _difference(s, r)
        budgets = np.where(difference == 0, 0.0, difference / allowed)
        budgets = np.where(np.isinf(difference), np.inf, np.where(np.isnan(budgets), 0.0, budgets))
        relative = np.where(difference == 0, 0.0, difference / np.abs(r, dtype=np.float64))
        ulp = np.where(difference == 0, 0.0, difference / np.spacing(np.abs(r)))
    worst = np.unravel_index(int(np.argmax(budgets)), r.shape) if r.size else ()
    index = tuple(int(i) for i in worst)

    def at_worst(array: np.ndarray) -> float:
        return float(array[index]) if r.size else 0.0

    return Row(
        tensor=place.tensor,
        computed_by=place.computed_by,
        shape=r.shape,
        budgets=at_worst(budgets),
        index=index,
        subject=at_worst(s),
        reference=at_worst(r),
        difference=at_worst(difference),
        allowed=at_worst(allowed),
        outside=int(np.count_nonzero(budgets > 1)),
        size=r.size,
        largest_absolute=_largest(difference),
        largest_relative=_largest(relative),
        largest_ulp=_largest(ulp),
        wrong=budgets > 1 if np.any(budgets > 1) else None,
        below_noise=bool(np.all(np.abs(r) <= allowed)),
        unjudged=int(np.count_nonzero(~(np.isfinite(allowed) & np.isfinite(r)) & np.isfinite(difference))),
        note="NaN on both sides" if np.any(np.isnan(s) & np.isnan(r)) else "",
    )


def _sketched(place: Place, row: Row, s: np.ndarray, r: np.ndarray, sketch: Sketch, allowed: np.ndarray | float) -> Row:
    """What the sketch says of a tensor, or, if that is worse, its elements beside those that were computed again: the
    sketch has to agree with those, too."""
    found = _by_sums(place, s, sketch, allowed)
    if np.array_equal(s, r, equal_nan=True) or not _by_sums(place, r, sketch, allowed).passed:
        return found
    computed_again = replace(row, note="recorded as a sketch; the reference shown here is what scratchnet computes")
    return max(found, computed_again, key=lambda each: each.budgets)


def _by_sums(place: Place, array: np.ndarray, sketch: Sketch, allowed: np.ndarray | float) -> Row:
    """The worst sum of a sketch in place of the worst element. Two sums that are NaN or the same infinity hide the
    other elements of their buckets."""
    sums, limits = sketch.compared(array, allowed)
    row = _elementwise(place, sums, sketch.sums, limits)
    seen = f"a single element is seen from {seen_from(array.size):.2g} budgets on"
    wrong = None if row.wrong is None else sketch.elements(row.wrong)
    return replace(
        row,
        shape=array.shape,
        size=array.size,
        outside=0 if wrong is None else int(np.count_nonzero(wrong)),
        unjudged=int(np.count_nonzero(sketch.elements(~(np.isfinite(limits) & np.isfinite(sketch.sums))))),
        wrong=wrong,
        note=f"recorded as a sketch of {len(sums)} sums, of which the worst is shown: {seen}",
    )


def incomparable(place: Place, shape: tuple[int, ...], note: str) -> Row:
    """The row of a tensor that cannot be compared, which is as wrong as can be; note: why."""
    size = int(np.prod(shape))
    return Row(place.tensor, place.computed_by, shape, np.inf, (), np.nan, np.nan, np.inf, 0.0, size, size,
               np.inf, np.inf, np.inf, note=note)  # fmt: skip


def _difference(s: np.ndarray, r: np.ndarray) -> np.ndarray:
    """|s - r|; 0 where both are the same infinity or both NaN, infinite where only one of them is."""
    same = (s == r) | (np.isnan(s) & np.isnan(r))
    difference = np.abs(s.astype(np.float64) - r.astype(np.float64))
    return np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))


def _shared(subject: Mapping[str, Any], reference: Trace, places: Sequence[Place]) -> list[Place]:
    shared = [place for place in places if place.tensor in subject and place.tensor in reference]
    if not shared:
        raise NothingConcluded(
            f"nothing was compared: no tensor is on both sides; subject: {sorted(subject)}, "
            f"reference: {sorted(reference.tensors)}"
        )
    return shared


def _scale(reference: Trace, places: Iterable[Place]) -> float:
    return max((_largest(reference[p.tensor]) for p in places if p.tensor in reference), default=0.0)


def _largest(array: Any) -> float:
    """The largest finite magnitude."""
    sizes = np.abs(np.asarray(array, dtype=np.float64))
    return float(np.max(sizes, where=np.isfinite(sizes), initial=0.0))
