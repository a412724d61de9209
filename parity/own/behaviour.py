"""How somebody's code behaves, whatever it computes: what it writes to, what it remembers, and in how many digits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from parity import compare
from parity.compare import Row
from parity.diagnose import Cause, Finding
from parity.errors import ParityError
from parity.own.evidence import Case, Evidence, Run, compared
from parity.runners.subject import Bound
from parity.trace import Place, Weights

__all__ = ["elsewhere", "misbehaviour", "other_batches"]

Misbehaved = tuple[Row, Finding]


def misbehaviour(bound: Bound, weights: Weights, x: np.ndarray, y: np.ndarray, first: Run) -> list[Misbehaved]:
    """What is wrong with the code whatever it computes: it writes to what is not its own, does not repeat itself, or
    computes in too few digits."""
    bound.run(weights, x[::-1], y[::-1])  # another batch, which a stale cache would remember
    again = Run(*bound.run(weights, x, y))
    return [*_writes(first), *_repeats(first, again), *_digits(first)]


Broken = Iterator[Misbehaved]
ALONE, BEFORE = "f(x) depends on x alone", "f(x) depends on the calls before"


def _writes(run: Run) -> Broken:
    if run.changed:
        names = ", ".join(run.changed)
        text = f"your code changes {names}: work on copies, and compute all gradients before anything is updated"
        yield _broken(names, "changes-its-arguments", text, "arguments are read", "arguments are written to")


def _repeats(first: Run, again: Run) -> Broken:
    """Whether the same batch gives the same once more, after another one."""
    before, after = compared(first.trace), again.trace
    name = next((n for n, a in before.items() if not np.array_equal(a, after[n], equal_nan=True)), None)
    if name is None:
        return
    with np.errstate(all="ignore"):
        ratio = np.nanmedian(np.asarray(after[name]) / before[name])
    why = "something is kept from the batch before (a stale cache), or drawn at random"
    if ratio > 1.5:
        why = "gradients are added up from call to call: set them to zero first"
    called = first.own.get(name, name)
    text = f"{called} is not the same when the same batch comes again after another one: {why}"
    yield _broken(called, "does-not-repeat", text, ALONE, BEFORE)


OTHER = 0.75  # what the weights are multiplied with for the second comparison: representable, and far from the first


def elsewhere(case: Case, weights: Weights, x: np.ndarray, y: np.ndarray, first: Evidence) -> Broken:
    """Code that is right for the first batch must be right for another one, of another size and at other weights:
    otherwise something in it is fixed to the first."""
    if not first.right or case.network.drops:
        return
    tries = (_other_batch(case, *batch) for batch in other_batches(weights, x, y))
    second = next((evidence for evidence in tries if evidence is not None), None)
    wrong = next((row for row in second.rows if not row.passed), None) if second is not None else None
    if wrong is None or second is None:
        return
    called, size = first.run.own.get(wrong.tensor, wrong.tensor), second.seen.sizes["batch"]
    text = f"{called} is right for the first batch and wrong for another one, of {size} samples and at other weights: "
    if wrong.tensor in second.seen.subject and _scaled_by(second, wrong.tensor, size / len(x)):
        text += f"the batch size is fixed at {len(x)} in your code"
        yield _broken(called, "batch-size-fixed", text, "divide by the size of this batch", f"divide by {len(x)}")
    else:
        text += "something is kept from before (an activation, or a copy of a weight)"
        yield _broken(called, "stale-cache", text, ALONE, BEFORE)


def other_batches(weights: Weights, x: np.ndarray, y: np.ndarray) -> Iterator[tuple[Weights, np.ndarray, np.ndarray]]:
    """Weights, samples and labels to compare on once more: with fewer samples, and, for code that does not run on
    another number of them, with as many."""
    other = {name: np.asarray(array * OTHER, array.dtype) for name, array in weights.items()}
    if len(x) > 1:
        yield other, x[len(x) // 3 :], y[len(x) // 3 :]
    yield other, x[::-1], y[::-1]


def _other_batch(case: Case, weights: Weights, x: np.ndarray, y: np.ndarray) -> Evidence | None:
    """The second comparison; None where the code does not run on so many samples."""
    try:
        return replace(case, modes=case.modes[:1]).evidence(weights, x, y, case.references(weights, x, y))
    except ParityError:
        return None


def _scaled_by(evidence: Evidence, tensor: str, factor: float) -> bool:
    return evidence.seen.equal(tensor, np.asarray(evidence.seen.reference[tensor]) * factor)


def _digits(run: Run) -> Broken:
    kinds = {run.own.get(name, name): array.dtype for name, array in compared(run.trace).items()}
    odd = {name: kind for name, kind in kinds.items() if kind.kind != "f" or kind.itemsize < 4}
    if odd:
        said = ", ".join(f"{name} is {kind}" for name, kind in odd.items())
        text = f"{said}: compute in float64 or float32 (integers are cut off, float16 keeps three digits)"
        yield _broken(", ".join(odd), "dtype", text, "float64 or float32", said)


def _broken(name: str, code: str, text: str, right: str, wrong: str) -> tuple[Row, Finding]:
    where = "your code"
    cause = Cause(code, text, right, wrong, 1.0)
    return compare.incomparable(Place(name, where, "forward"), (), text), Finding(name, where, np.inf, cause, "")
