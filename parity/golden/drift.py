"""Drift: two recordings of the same networks, compared tensor by tensor: two releases of TensorFlow or Keras, two
machines, eager and XLA.

In float64 the gate decides, as it does between scratchnet and Keras. A whole run in float32 may be as far from another
one as rounding moves it: `oracle.NOISE` times the distance from the float64 run of the same recording, of the one that
is nearer to its own, so that a recording with less precision does not excuse itself. What is further away is right all
the same where every operation of both recordings is, judged on the recording's own tensors; see `compare.settled`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from parity import compare, known_changes, oracle
from parity.compare import NEAR_A_KINK, Row
from parity.errors import FileError, NothingConcluded
from parity.golden import file, training
from parity.golden.drifted import Compared, Drift, Pair, changed
from parity.golden.form import Recording, Run, Tensor, point
from parity.golden.posed import posed
from parity.golden.replay import Recorded, differing
from parity.own.behaviour import other_batches
from parity.pipeline import Problem, judged
from parity.report import Check, how_far
from parity.runners.scratch import Network
from parity.sketch import Sketch
from parity.trace import Place, Trace, flow, gradient, of_samples
from parity.weights.formats import limits

__all__ = ["diff"]

OF_SKETCHES = "of a tensor that was kept as a sketch: its sums are compared, not its elements"
SETTLED = (
    "the whole runs are further apart than rounding is known to move them, but every operation of both is right: "
    "rounding decided a kink, a tie or a clip, or Dropout draws other cells in float64; judged operation by operation"
)


def diff(left: str | Path, right: str | Path, *, progress: Callable[[str], None] = lambda message: None) -> Drift:
    """Compare two recordings: how far each tensor moved from the left one to the right one, in budgets, and why.

    left, right: two goldens, or two folders of them. Recordings are matched by what was recorded: the same network and
    loss at the same weights, samples and labels, whatever their files are called.
    NothingConcluded where no network is in both, FileError for a golden that is missing, damaged or edited.
    """
    ours, theirs = (list(_recordings(Path(path))) for path in (left, right))
    environments = _together(ours), _together(theirs)
    pairs = []
    for one, other in _matched(ours, theirs):
        if one is not None and other is not None:
            progress(one.recording.name)
            pairs.append(_compared(one, other))
        elif side := one or other:
            reasons = tuple(change.sentence for change in known_changes.between(side.recording.spec, *environments))
            pairs.append(Pair(side.recording.name, reasons=reasons, unlike=f"only {'left' if one else 'right'}"))
    pairs = _numbered(pairs)
    if all(pair.unlike for pair in pairs):
        raise NothingConcluded(f"{left} and {right}: nothing was compared: {pairs[0].name}: {pairs[0].unlike}")
    return Drift(str(left), str(right), tuple(pairs), environments)


@dataclass(frozen=True, eq=False)
class _Side:
    """One recording, with what its file says about where it was made."""

    recording: Recording
    problem: Problem
    environment: Mapping[str, Any]

    @property
    def network(self) -> Network:
        return self.recording.described or Network.declared(self.recording.spec)

    def exact(self, run: Run) -> Run | None:
        """The float64 run of the same thing, in the same mode where there is one."""
        found = [each for each in self.recording.runs if (each.point, each.dtype) == (run.point, "float64")]
        return next((each for each in found if each.mode == run.mode), next(iter(found), None))


def _recordings(path: Path) -> Iterator[_Side]:
    if path.is_dir():
        files = sorted(path.glob(f"**/*{file.ENDING}"))
        if not files:
            raise FileError(f"{path}: expected goldens in this folder, files named *{file.ENDING}; received none")
    else:
        files = [path]
    for each in files:
        golden = file.read(each)
        for recording in golden.recordings:
            with limits.blamed(f"{each}: {recording.name}"):
                yield _Side(recording, posed(recording), golden.environment)


def _together(sides: Sequence[_Side]) -> dict[str, Any]:
    """The conditions of all files of one side; several where they differ."""
    found: dict[str, dict[str, Any]] = {}
    for side in sides:
        for key, value in side.environment.items():
            found.setdefault(key, {})[repr(value)] = value
    return {k: next(iter(v.values())) if len(v) == 1 else " or ".join(map(str, v.values())) for k, v in found.items()}


# -- which recording belongs to which ----------------------------------------------------------------------------------


def _matched(left: list[_Side], right: list[_Side]) -> Iterator[tuple[_Side | None, _Side | None]]:
    """Each recording of the left with the one of the same problem; what is left over by name, and, of one recording
    each, whatever it is called."""
    rest = list(right)
    pairs: list[tuple[_Side | None, _Side | None]] = []
    for rule in (lambda a, b: not _unlike(a, b), _same_name):
        taken = {id(one) for one, _ in pairs}
        for one in (each for each in left if id(each) not in taken):
            other = next((each for each in rest if rule(one, each)), None)
            if other is not None:
                rest.remove(other)
                pairs.append((one, other))
    taken = {id(one) for one, _ in pairs}
    alone = [each for each in left if id(each) not in taken]
    if len(left) == len(right) == len(alone) == 1:
        pairs, alone, rest = [(left[0], right[0])], [], []
    order = {id(each): position for position, each in enumerate(left)}
    yield from sorted([*pairs, *((each, None) for each in alone)], key=lambda pair: order[id(pair[0])])
    yield from ((None, each) for each in rest)


def _numbered(pairs: Sequence[Pair]) -> list[Pair]:
    """Several examples of one layer have the same name."""
    of_name = Counter(pair.name for pair in pairs)
    seen: Counter[str] = Counter()
    numbered = []
    for pair in pairs:
        seen[pair.name] += 1
        several = of_name[pair.name] > 1
        numbered.append(replace(pair, name=f"{pair.name} ({seen[pair.name]})") if several else pair)
    return numbered


def _same_name(left: _Side, right: _Side) -> bool:
    return left.recording.name == right.recording.name


def _unlike(left: _Side, right: _Side) -> str:
    """Why these are recordings of different problems; "" where they are of the same one."""
    one, other = left.recording, right.recording
    if reason := differing(one.spec, other.spec):
        return f"recordings of different networks: on the right, {reason}"
    if one.spec.training != other.spec.training:
        return "one was recorded in training, the other in inference"
    ours, theirs = ({**side.problem.weights, "x": side.problem.x, "y": side.problem.y} for side in (left, right))
    if ours.keys() != theirs.keys():
        return f"different weights: {', '.join(sorted(ours.keys() ^ theirs.keys()))} on one side only"
    kinds = {"x": "samples", "y": "labels"}
    moved = next((name for name, array in ours.items() if not _same(array, theirs[name])), None)
    return "" if moved is None else f"recorded at different {kinds.get(moved, 'weights')}: {moved}"


def _same(left: Tensor, right: Tensor) -> bool:
    """Bit for bit; of sketches, their sums."""
    if isinstance(left, Sketch) or isinstance(right, Sketch):
        one, other = _sketches(left, right)
        return one.seed == other.seed and _same(one.sums, other.sums)
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


# -- one network -------------------------------------------------------------------------------------------------------


def _compared(left: _Side, right: _Side) -> Pair:
    if unlike := _unlike(left, right):
        return Pair(left.recording.name, unlike=unlike)
    conditions = changed(left.environment, right.environment)
    runs = [*_runs(left, right), *_steps(left, right)]
    if not runs:
        return Pair(left.recording.name, conditions=conditions, unlike="no run is in both")
    return Pair(left.recording.name, tuple(runs), conditions, tuple(_reasons(left, right, runs, conditions)))


def _runs(left: _Side, right: _Side) -> Iterator[Compared]:
    places = list(flow(left.network.layers, left.recording.spec.loss_name, left.recording.spec.optimizer_name))
    points = _points(left.problem)
    for one, other in _run_pairs(left.recording, right.recording):
        at, problem = points.get(one.point, ("other samples", None))
        rows = _rows(left, right, one, other, places)
        if problem is not None and any(not row.passed for row in rows):
            rows = _settled(rows, *(_local(side, problem, run) for side, run in ((left, one), (right, other))))
        identical = sum(n in other.tensors and _same(tensor, other.tensors[n]) for n, tensor in one.tensors.items())
        yield Compared(at, one.dtype, (one.mode, other.mode), tuple(rows), identical)


def _points(problem: Problem) -> dict[str, tuple[str, Problem]]:
    """Digest -> the weights and samples of a run, in words and as a problem."""
    weights, x, y = problem.designed, problem.x, problem.y
    found = {point(weights, x, y): ("the samples", problem)}
    for other, samples, labels in other_batches(weights, x, y):
        what = f"{len(samples)} samples" if len(samples) != len(x) else "samples reversed"
        at = f"{what}, at other weights"
        found[point(other, samples, labels)] = (at, Problem(problem.spec, other, other, samples, labels))
    return found


def _run_pairs(left: Recording, right: Recording) -> Iterator[tuple[Run, Run]]:
    """Runs in the same mode; one in a mode that the other recording does not have, with its first mode."""
    ours, theirs = ({run.key: run for run in each.runs} for each in (left, right))
    for at, dtype, mode in dict.fromkeys((*ours, *theirs)):
        one = ours.get((at, dtype, mode), ours.get((at, dtype, left.modes[0])))
        other = theirs.get((at, dtype, mode), theirs.get((at, dtype, right.modes[0])))
        if one is not None and other is not None:
            yield one, other


def _rows(left: _Side, right: _Side, one: Run, other: Run, places: Sequence[Place]) -> list[Row]:
    """The tensors whose bits differ, in the order of data flow."""
    allowed = _allowed(left, right, one, other, places)
    known = {place.tensor: place for place in places}
    names = dict.fromkeys([*(name for name in known if name in one.tensors), *one.tensors, *other.tensors])
    rows = []
    for name in names:
        place = known.get(name, Place(name, "Keras", "backward"))
        a, b = one.tensors.get(name), other.tensors.get(name)
        if _left_out(one, name) or _left_out(other, name):
            continue
        if a is None or b is None:
            if one.mode != other.mode:  # Keras hangs the logits on its outputs in one mode and not in another
                continue
            shape, side = (one.tensors[name].shape, "left") if b is None else (other.tensors[name].shape, "right")
            rows.append(compare.incomparable(place, shape, f"only the {side} one has it"))
        elif not _same(a, b):
            rows.append(_row(place, a, b, allowed.get(name, 0.0)))
    return rows


def _left_out(run: Run, name: str) -> bool:
    """Whether it is an update that `record` leaves out beside the sketch of its gradient."""
    source = gradient(name.removesuffix(".updated"))
    return name.endswith(".updated") and name not in run.tensors and isinstance(run.tensors.get(source), Sketch)


def _row(place: Place, left: Tensor, right: Tensor, allowed: float) -> Row:
    if not isinstance(left, Sketch) and not isinstance(right, Sketch):
        return compare.judge(place, right, left, allowed)
    one, other = _sketches(left, right)
    if one.seed != other.seed:
        return compare.incomparable(place, one.shape, "two sketches with different seeds")
    # Like the sums of a tensor all of whose elements have the size of the root mean square of these.
    _, limit = one.compared(np.full(one.shape, _size(one)), allowed)
    row = compare.judge(place, other.sums, one.sums, limit)
    return replace(row, note=OF_SKETCHES)


def _sketches(left: Tensor, right: Tensor) -> tuple[Sketch, Sketch]:
    """Both as sketches, with the hash of the one that is one."""
    seed = next(each.seed for each in (left, right) if isinstance(each, Sketch))
    one, other = (each if isinstance(each, Sketch) else Sketch.of(each, seed) for each in (left, right))
    return one, other


# -- how far two correct runs may be apart -----------------------------------------------------------------------------


def _allowed(left: _Side, right: _Side, one: Run, other: Run, places: Sequence[Place]) -> dict[str, float]:
    exact = left.exact(one)
    sized = {n: np.asarray(_size(t)) if isinstance(t, Sketch) else t for n, t in (exact or one).tensors.items()}
    gate = compare.gate(Trace(sized), places)
    if one.dtype == "float64" and other.dtype == "float64":
        return gate
    spreads = [_spreads(run, side.exact(run)) for side, run in ((left, one), (right, other))]
    return {name: max(gate[name], oracle.NOISE * min(each.get(name, 0.0) for each in spreads)) for name in gate}


def _spreads(rounded: Run, exact: Run | None) -> dict[str, float]:
    """How far rounding moves one element of each tensor; 0 where float32 computes something else than float64 does,
    because Dropout draws other cells."""
    if exact is None:
        return {}
    return {n: _spread(t, exact.tensors[n]) for n, t in rounded.tensors.items() if n in exact.tensors}


def _spread(rounded: Tensor, exact: Tensor) -> float:
    size = int(np.prod(exact.shape))
    scale = 1.0
    if isinstance(rounded, Sketch) or isinstance(exact, Sketch):
        one, other = _sketches(rounded, exact)
        if one.seed != other.seed:
            return 0.0
        rounded, exact = one.sums, other.sums  # their norms are those of the tensors, but for 3 %
        scale = float(np.sqrt(exact.size / max(size, 16)))  # `oracle.spread` divides by the root of the size
    r, o = (np.asarray(each, np.float64) for each in (rounded, exact))
    if not float(np.linalg.norm(r - o)) <= oracle.SAME_RUN * float(np.linalg.norm(o)):
        return 0.0
    return oracle.spread(r, o) * scale


def _size(sketch: Sketch) -> float:
    """The root mean square of the elements of what was sketched: the expectation of the square of a sum is the sum of
    the squares. The largest element is not smaller."""
    sums = sketch.sums[np.isfinite(sketch.sums)]
    return float(np.linalg.norm(sums) / np.sqrt(max(int(np.prod(sketch.shape)), 1)))


# -- beyond budget: operation by operation -----------------------------------------------------------------------------


def _local(side: _Side, problem: Problem, run: Run) -> Check | None:
    """scratchnet's operations on the recording's own tensors; None where it does not have the layers, or where tensors
    that go into an operation were kept as sketches."""
    sketched = any(isinstance(tensor, Sketch) and of_samples(name) for name, tensor in run.tensors.items())
    if side.recording.described is not None or (sketched and run.dtype == "float32"):
        return None
    (check,) = judged(problem, None, run.dtype, (run.mode,), Recorded(side.recording), lambda message: None)
    return check


def _settled(rows: Sequence[Row], left: Check | None, right: Check | None) -> list[Row]:
    """The rows beyond budget as they are operation by operation, if every operation of both recordings is right. In
    float64 only where rounding decided something: else both are within the gate of the same run, and not of each other.
    """
    if left is None or right is None or not left.passed or not right.passed:
        return list(rows)
    if left.dtype == "float64" and not any(row.note == NEAR_A_KINK for row in (*left.rows, *right.rows)):
        return list(rows)
    local: dict[str, Row] = {}
    for row in (*left.rows, *right.rows):
        if row.tensor not in local or row.budgets > local[row.tensor].budgets:
            local[row.tensor] = row
    if not all(row.passed or (row.tensor in local and np.isfinite(row.budgets)) for row in rows):
        return list(rows)
    return [row if row.passed else replace(local[row.tensor], note=SETTLED) for row in rows]


# -- steps of training -------------------------------------------------------------------------------------------------


def _steps(left: _Side, right: _Side) -> Iterator[Compared]:
    count = min(len(left.recording.steps), len(right.recording.steps))
    if not count:
        return
    ours, theirs = (side.recording.steps[:count] for side in (left, right))
    problem = left.problem
    rows = training.apart(problem.spec, problem.designed, problem.x, problem.y, ours, theirs)
    together = enumerate(zip(ours, theirs, strict=True), start=1)
    same = {f"step {index}/{name}" for index, (a, b) in together for name in a if _same(a[name], b[name])}
    what = f"{count} step{'s'[: count > 1]} of training"
    yield Compared(what, "float64", ("eager", "eager"), tuple(r for r in rows if r.tensor not in same), len(same))


# -- why ---------------------------------------------------------------------------------------------------------------


def _reasons(
    left: _Side, right: _Side, runs: Sequence[Compared], conditions: Mapping[str, tuple[Any, Any]]
) -> Iterator[str]:
    """What explains that bits differ: known changes of the releases, for what is beyond budget what scratchnet says of
    each side, and the conditions that move last bits."""
    if not any(run.rows for run in runs):
        return
    changes = known_changes.between(left.recording.spec, left.environment, right.environment)
    yield from (change.sentence for change in changes)
    if any(not run.passed for run in runs):
        for name, side in (("left", left), ("right", right)):
            if departs := _departs(side):
                yield f"the {name} recording is not what scratchnet computes: {departs}"
    moved = [known_changes.modes(*each) for each in sorted({r.modes for r in runs if r.rows and len(set(r.modes)) > 1})]
    known = {change.package for change in changes}
    moved += known_changes.last_bits({key: values for key, values in conditions.items() if key not in known})
    yield from moved
    if not moved and not changes and any(row.passed for run in runs for row in run.rows):
        yield known_changes.UNEXPLAINED


def _departs(side: _Side) -> str:
    """The first tensor of a recording in which it is not scratchnet's network, with the cause; "" where it is."""
    if side.recording.described is not None:
        return ""
    problem, reference = side.problem, Recorded(side.recording)
    checks = list(judged(problem, None, "both", side.recording.modes, reference, lambda message: None))
    if side.recording.steps:
        checks.append(training.judged(problem.spec, problem.designed, problem.x, problem.y, side.recording.steps))
    check = next((check for check in checks if check.first_wrong), None)
    if check is None or check.first_wrong is None:
        return ""
    row = check.first_wrong
    cause = check.cause_of(row)
    said = f"{row.tensor}, computed by {row.computed_by}, in {check.dtype}: {how_far(row)}"
    explained = f"{cause.code}: {cause.text}" if cause else check.vote
    return f"{said}; {explained}" if explained else said
