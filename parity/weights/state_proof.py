"""After a port with the state of an optimizer: whether the target holds it, and whether both ends make the same steps.

Three comparisons, each of which names the weight. The bits of every array of the target. What the arrays mean: each
slot of the target against that of the source, in Keras's form, within the rounding of the factors. And the next steps:
both ends step from what they hold now, on copies, with the same gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from parity import compare
from parity.compare import Row
from parity.trace import Place
from parity.weights.conversion import about
from parity.weights.optimizers.holder import Gradients, Holder
from parity.weights.optimizers.moving import Moved, reopened
from parity.weights.optimizers.state import Refused
from parity.weights.proof import Proof
from parity.weights.verification import Run

__all__ = ["STEPS", "with_state"]

STEPS = 3
"""With one step a momentum is only seen as it is added; from the second one on, as it goes on. Three are as cheap."""
SEED = 0


def with_state(proof: Proof, moved: Moved) -> Proof:
    """The proof with what the state of the optimizer adds to it; the same where none was ported."""
    if moved.ends is None:
        return proof
    found = _found(moved)
    passed = proof.passed and not found.wrong and all(row.passed for run in found.runs for row in run.rows)
    if found.wrong:
        sentences = (f"the optimizer: not what was meant: {', '.join(found.wrong)}", *proof.sentences)
    else:
        sentences = (*proof.sentences, *(run.sentence for run in found.runs), *found.notes)
    failed = tuple(run.sentence for run in found.runs if not all(row.passed for row in run.rows))
    sentences = (*failed, *(sentence for sentence in sentences if sentence not in failed))
    return replace(
        proof,
        passed=passed,
        sentences=sentences,
        worst={**proof.worst, **{run.runner: run.worst.budgets for run in found.runs}},
    )


@dataclass(frozen=True)
class _Found:
    wrong: tuple[str, ...]
    runs: tuple[Run, ...] = ()
    notes: tuple[str, ...] = ()


def _found(moved: Moved) -> _Found:
    assert moved.ends is not None
    try:
        there, here = (reopened(end, moved.instead) for end in moved.ends)
    except Refused as error:
        return _Found((str(error),))
    if there is None or here is None:
        return _Found(("its state is gone",))
    wrong = [f"{key}" for key, meant in moved.arrays.items() if not _same_bits(here, key, meant)]
    if there.iterations is not None and here.iterations not in (None, there.iterations):
        wrong.append(f"{here.iterations} steps where the source made {there.iterations}")
    if wrong:
        return _Found(tuple(wrong))
    count = f"{len(moved.arrays)} array" + "s" * (len(moved.arrays) != 1)
    notes = [f"the optimizer: {count} read back, bit for bit"]
    runs = [Run("the state of the optimizer", tuple(_slots(there, here)))] if here.places else []
    stepped = _steps(there, here, moved.ends[0].skeleton.shapes)
    if isinstance(stepped, str):
        notes.append(f"no next steps were compared: {stepped}")
    else:
        runs.append(stepped)
    return _Found((), tuple(runs), tuple(notes))


def _same_bits(here: Holder, key: str, meant: np.ndarray) -> bool:
    try:
        held = np.asarray(here.load(key))
    except (AttributeError, KeyError, IndexError):  # it is not there
        return False
    return held.dtype == meant.dtype and held.shape == meant.shape and held.tobytes() == np.asarray(meant).tobytes()


def _unit(*arrays: np.ndarray) -> float:
    """The largest unit roundoff of their dtypes."""
    return max(2.0 ** -(int(about(array.dtype).nmant) + 1) for array in arrays)


def _slots(there: Holder, here: Holder) -> list[Row]:
    """Each slot of both ends in Keras's form. Allowed is the rounding of six operations: the factor -lr and its
    rounding to the dtype, there, back and at the other end, and the change of the dtype."""
    rows = []
    for slot in here.places:
        name = " of ".join(slot)
        held = here.slot(slot)
        meant = there.slot(slot) if slot in there.places else np.zeros_like(held)
        allowed = 6 * _unit(held, meant) * np.abs(meant, dtype=np.float64) if held.dtype.kind == "f" else 0.0
        rows.append(compare.judge(Place(name, "the port", "update"), held, meant, allowed))
    return rows


# -- the next steps ----------------------------------------------------------------------------------------------------


def _steps(there: Holder, here: Holder, shapes: Mapping[str, tuple[int, ...]]) -> Run | str:
    """The weights after each step; or why none were made."""
    if there.stepped is None or here.stepped is None:
        which = there if there.stepped is None else here
        return f"how to step from {which.name} is not known, or {which.optimizer.kind}'s framework is not installed"
    shared = [weight for weight in there.trained if weight in here.trained]
    gradients = _gradients(there, here, shapes)
    try:
        ours, theirs = here.stepped(gradients), there.stepped(gradients)
    except Refused as error:
        return str(error)
    exact = there.optimizer.kind != "SGD"
    first = shared[0]
    if exact and ours[0][first].dtype != theirs[0][first].dtype:
        return f"in another dtype, rounding changes those of {there.optimizer.kind} by more than a bound would say"
    sums = {} if exact else _magnitudes(there, here, theirs, gradients)
    rows = []
    for number in range(STEPS):
        for weight in shared:
            place = Place(f"{weight} after {number + 1} steps", f"{here.optimizer.kind} update", "update")
            one, other = ours[number][weight], theirs[number][weight]
            allowed = 0.0 if exact else _rounding(number + 1, one, other) * sums[weight][number]
            rows.append(compare.judge(place, one, other, allowed))
    return Run(f"the next {STEPS} steps of {there.runner} and {here.runner}, with the same gradients", tuple(rows))


def _gradients(there: Holder, here: Holder, shapes: Mapping[str, tuple[int, ...]]) -> Sequence[Gradients]:
    """Random, and of the size of those that made the state, so that neither hides the other; numbers that float32
    has."""
    rng = np.random.default_rng(SEED)
    weights = dict.fromkeys((*there.trained, *here.trained))
    sizes = {}
    for holder in (there, here):
        for slot, weight in holder.places:
            if weight in weights and slot == "momentum":
                held = np.abs(holder.slot((slot, weight)).astype(np.float64))
                rate = holder.optimizer.rate if holder.optimizer.kind == "SGD" else 1.0
                sizes[weight] = float(held.max(initial=0.0)) / (rate or 1.0)
    return [
        {
            weight: (rng.standard_normal(shapes[weight]) * (sizes.get(weight) or 1.0)).astype(np.float32)
            for weight in weights
        }
        for _ in range(STEPS)
    ]


def _rounding(steps: int, *arrays: np.ndarray) -> float:
    """Roundings on the longest way of a term through so many steps of SGD with momentum, at both ends.

    A momentum is converted and taken times -lr and back (6, as above), then a product and a sum in each step (2), with
    mu rounded to the dtype (1); its last value goes into the weight by a product with lr, itself rounded (2), under
    nesterov one product and one sum more (3 with the rounding of mu); and the weight is a sum of one term more in each
    step (1). So it is at most 6 + 3 steps + 5 + steps, and one unit roundoff of the sum of magnitudes for each.
    """
    return 2 * (11 + 4 * steps) * _unit(*arrays)


def _magnitudes(
    there: Holder, here: Holder, after: Sequence[Gradients], gradients: Sequence[Gradients]
) -> dict[str, list[np.ndarray]]:
    """For each weight and step, the sum of the magnitudes of all terms of which the new weight consists: SGD's own
    recursion with absolute values. The weights themselves are at most those after the step and all changes."""
    optimizer = there.optimizer
    rate, mu = optimizer.rate or 0.0, float(optimizer.setting("momentum") or 0.0)
    sums: dict[str, list[np.ndarray]] = {}
    for weight in there.trained:
        if weight not in here.trained:
            continue
        slot = ("momentum", weight)
        m = np.abs(there.slot(slot).astype(np.float64)) if slot in there.places else np.zeros(1)
        changes: np.ndarray | float = 0.0
        sums[weight] = []
        for number, step in enumerate(gradients):
            change = rate * np.abs(step[weight].astype(np.float64))
            m = mu * m + change
            changes = changes + (mu * m + change if optimizer.setting("nesterov") else m)
            sums[weight].append(np.abs(after[number][weight].astype(np.float64)) + 2 * changes)
    return sums
