"""What happens exactly at kinks and ties, where a derivative has more than one right answer.

At a kink, such as 0 for a relu, the derivative from either side is an answer, and so is what lies between them: a
subgradient. Of equal maxima in a window, every split of the window's gradient among them is one. TensorFlow has one of
these answers. A gradient with another one differs from Keras and stays out of budget; here it is said what it is:
another answer, or wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from parity import compare, oracle
from parity.compare import Row
from parity.runners import scratch
from parity.runners.steps import Operation, Settle
from parity.spec import Spec
from parity.trace import Place, Trace, Weights

__all__ = ["judged"]

ROUNDINGS = 16
"""Units of roundoff that two right values of one derivative may be apart: what `parity.budget` grants to a tanh, which
costs more than any derivative that has kinks."""

ONE_SIDE, BETWEEN, FIRST, LAST, ONE, SPLIT, NEITHER = "one side", "between", "first", "last", "one", "split", "neither"

OF_A_KINK = {
    ONE_SIDE: "the derivative from the other side",
    BETWEEN: "between the derivatives from both sides, a subgradient",
    NEITHER: "neither the derivative from one side nor between them: wrong",
}
BY_TENSORFLOW = {
    FIRST: "gives the gradient to the first",
    LAST: "gives the gradient to the last",
    ONE: "gives the gradient to one of them",
    SPLIT: "splits the gradient between them",
    NEITHER: "gives them what is no split of the gradient",
}
BY_YOU = {
    FIRST: "you give it to the first",
    LAST: "you give it to the last",
    ONE: "you give it to another one",
    SPLIT: "you split it between them",
    NEITHER: "what you give them is no split of it: wrong",
}


def judged(
    spec: Spec,
    weights: Weights,
    reference: Trace,
    y: np.ndarray,
    rows: Sequence[Row],
    places: Sequence[Place],
    settle: Settle = lambda operation: {},
) -> tuple[str, ...]:
    """A sentence for each gradient that has elements at a kink or a tie. rows: the verdict on every tensor; settle:
    results that the network under test has in place of scratchnet's: of a mistake that is known to be in it."""
    if scratch.is_smooth(spec):
        return ()
    choices: list[_Kink | _Tie] = []

    def look(operation: Operation) -> Mapping[str, Any]:
        with np.errstate(all="ignore"):
            if planted := settle(operation):
                operation = replace(operation, outputs={**operation.outputs, **planted})
            choices.extend(_choices(operation, reference))
        return operation.outputs

    replayed = scratch.replay(spec, weights, reference, y, settle=look)
    if choices and not all(row.passed for row in rows):
        # The rows may be of whole runs, where all that is behind a difference differs as well.
        bounds = _bounds(spec, weights, reference, y, places)
        rows = compare.compare_local(replayed, bounds, reference, places)
    with np.errstate(all="ignore"):
        return tuple(_sentence(choice, choices, rows) for choice in choices)


def _bounds(
    spec: Spec, weights: Weights, reference: Trace, y: np.ndarray, places: Sequence[Place]
) -> Mapping[str, np.ndarray]:
    """How far each operation may be off on the reference's tensors: by its rounding, in float64 by half of the gate."""
    if spec.dtype == "float32":
        return oracle.bounds(spec, weights, reference, y)
    return {name: np.asarray(allowed / 2) for name, allowed in compare.gate(reference, places).items()}


def _sentence(choice: _Kink | _Tie, choices: Sequence[_Kink | _Tie], rows: Sequence[Row]) -> str:
    wrong = next((row.wrong for row in rows if row.tensor == choice.gradients.tensor and row.wrong is not None), None)
    said = f"{choice.what}: TensorFlow {choice.theirs()}"
    if wrong is None or not np.any(wrong & choice.at):
        return f"{said}, and so do you"
    yours = "; ".join(choice.yours(wrong))
    if np.any(wrong & ~choice.at):
        return f"{said}, {yours}; other elements of it differ, too"
    if all(row.passed or _only_at(row, choices) for row in rows):
        return f"{said}, {yours}; no other difference in any operation"
    return f"{said}, {yours}; no other element of it differs, but other tensors do"


def _only_at(row: Row, choices: Sequence[_Kink | _Tie]) -> bool:
    """Whether a tensor is wrong at its kinks and ties only."""
    at = [choice.at for choice in choices if choice.gradients.tensor == row.tensor]
    return bool(at) and row.wrong is not None and not np.any(row.wrong & ~at[0])


def _choices(operation: Operation, reference: Trace) -> Iterator[_Kink | _Tie]:
    """The kinks or ties of an operation, where its inputs are exactly there."""
    found = OF_FAMILY.get((operation.family, operation.direction))
    output = {"loss": "d", "regularizer": "g"}.get(operation.family, "dx")
    tensor = operation.tensors.get(output, "")
    if found is None or tensor not in reference:
        return
    gradient = np.asarray(operation.outputs[output])
    if gradient.shape == np.shape(reference[tensor]):
        choice = found(operation, _Gradients(tensor, gradient, np.asarray(reference[tensor])))
        if choice is not None and np.any(choice.at):
            yield choice


@dataclass(frozen=True)
class _Gradients:
    """One gradient of both sides: scratchnet's on TensorFlow's tensors, and TensorFlow's."""

    tensor: str
    yours: np.ndarray
    theirs: np.ndarray


# -- kinks -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kink:
    """A gradient with elements at a kink.

    kind: of the entry that has it; below, above: the gradients just left and just right of the inputs; unit: what makes
    slopes of them. All arrays have one shape.
    """

    gradients: _Gradients
    kind: str
    two_sided: np.ndarray
    below: np.ndarray
    above: np.ndarray
    unit: np.ndarray

    @property
    def at(self) -> np.ndarray:
        """Where there is something to choose: not where nothing comes from upstream."""
        return self.two_sided & (self.below != self.above)

    @property
    def what(self) -> str:
        return f"{np.count_nonzero(self.at)} elements of {self.gradients.tensor} are exactly at the kink of {self.kind}"

    def theirs(self) -> str:
        return f"takes {self._slopes(self.gradients.theirs, self.at)}"

    def yours(self, wrong: np.ndarray) -> Iterator[str]:
        """What scratchnet takes at the kinks where it is wrong. Which answer that is goes by its own derivatives beside
        the kinks, so it is said only where all other elements are right, and TensorFlow's answer is one."""
        elsewhere, wrong = wrong & ~self.at, wrong & self.at
        answers, known = self._answers(self.gradients.yours), self._answers(self.gradients.theirs)
        if np.any(elsewhere) or np.any(known[wrong] == NEITHER):
            yield self._taken(wrong)
            return
        for answer in (ONE_SIDE, BETWEEN, NEITHER):
            chosen = wrong & (answers == answer)
            if np.any(chosen):
                words = OF_A_KINK[answer]
                if answer == ONE_SIDE and np.any(known[chosen] == BETWEEN):
                    words = "the derivative from one side"
                yield f"{self._taken(chosen)}, {words}"

    def _answers(self, gradient: np.ndarray) -> np.ndarray:
        """Which of the right answers each element is, if any."""
        low, high = np.minimum(self.below, self.above), np.maximum(self.below, self.above)
        near = ROUNDINGS * _roundoff(gradient) * np.maximum(np.abs(low), np.abs(high))
        side = (np.abs(gradient - self.below) <= near) | (np.abs(gradient - self.above) <= near)
        return np.select([side, (low <= gradient) & (gradient <= high)], [ONE_SIDE, BETWEEN], NEITHER)

    def _taken(self, at: np.ndarray) -> str:
        share = _share(np.count_nonzero(at), np.count_nonzero(self.at))
        return f"you take {self._slopes(self.gradients.yours, at)}{share}"

    def _slopes(self, gradient: np.ndarray, at: np.ndarray) -> str:
        """The slopes there: all, where they are few, or from which to which."""
        slopes = sorted({float(f"{slope:.6g}") + 0.0 for slope in (gradient / self.unit)[at].tolist()})
        few = " or ".join(f"{slope:g}" for slope in slopes)
        return few if len(slopes) <= 3 else f"{slopes[0]:g} to {slopes[-1]:g}"


def _of_activation(operation: Operation, gradients: _Gradients) -> _Kink | None:
    entry, x, dy = operation.entry, operation["x"], operation["dy"]
    at = entry.two_sided(x)
    if at is None:
        return None
    below, above = (entry.backward(beside, entry.forward(beside), dy) for beside in _neighbours(x))
    return _Kink(gradients, operation.kind, at, below, above, unit=dy)


def _of_loss(operation: Operation, gradients: _Gradients) -> _Kink | None:
    entry, y_true, y_pred = operation.entry, operation["y_true"], operation["y_pred"]
    at = None if entry.uses(operation.inputs.get("logits")) else entry.two_sided(y_true, y_pred)
    if at is None:
        return None
    below, above = (entry.backward(y_true, beside) for beside in _neighbours(y_pred))
    return _Kink(gradients, operation.kind, at, below, above, unit=np.ones_like(y_pred))


def _of_penalty(operation: Operation, gradients: _Gradients) -> _Kink | None:
    entry, w, g = operation.entry, operation["w"], operation["g"]
    at = entry.two_sided(w)
    if at is None:
        return None
    below, above = (g + entry.backward(beside) for beside in _neighbours(w))
    return _Kink(gradients, operation.kind, at, below, above, unit=np.ones_like(w))


def _neighbours(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers next to x on both sides."""
    return np.nextafter(x, -np.inf), np.nextafter(x, np.inf)


# -- ties --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tie:
    """A gradient of a layer that hands the gradient of each window to its largest cell, where some cells are equal.

    window, cell, share: of the cells that share a maximum and the windows where they do, flat indices in the order of
    `Layer.ties`, and the gradient that such a window has to give. alone: what each cell gets from windows where it is
    the largest alone, flat; rounding: of the sum of all that a cell gets.

    Windows that overlap in such cells are judged together, because nobody can tell of a sum which window gave what:
    each cell must have a possible part, and all of them together what the windows have. For a window that stands
    alone, this is exactly what a split is; for others it is necessary.
    """

    gradients: _Gradients
    layer: str
    window: np.ndarray
    cell: np.ndarray
    share: np.ndarray
    alone: np.ndarray
    rounding: np.ndarray

    @property
    def at(self) -> np.ndarray:
        shape = self.gradients.theirs.shape
        return (np.bincount(self.cell, minlength=len(self.alone)) > 0).reshape(shape)

    @property
    def what(self) -> str:
        windows, cells = np.count_nonzero(self._firsts), len(self._cells)
        return f"{windows} windows of {self.layer} have equal maxima ({cells} elements of {self.gradients.tensor})"

    def theirs(self) -> str:
        answers = self._answers(self.gradients.theirs)
        return " or ".join(BY_TENSORFLOW[answer] for answer in BY_TENSORFLOW if np.any(answers == answer))

    def yours(self, wrong: np.ndarray) -> Iterator[str]:
        """What scratchnet gives to equal cells where it is wrong."""
        answers, (of_window, of_cell) = self._answers(self.gradients.yours), self._groups
        wrong_groups = np.bincount(of_cell, wrong.reshape(-1)[self._cells]) > 0
        for answer in BY_YOU:
            chosen = wrong_groups & (answers == answer)
            if np.any(chosen):
                yield BY_YOU[answer] + _share(np.count_nonzero(chosen[of_window]), len(of_window))

    def _answers(self, gradient: np.ndarray) -> np.ndarray:
        """For each group of windows, how they give their gradients to equal cells."""
        of_window, of_cell = self._groups
        got = (gradient.reshape(-1) - self.alone)[self._cells]
        near, low, high = self.rounding[self._cells], self._sums(self.share < 0), self._sums(self.share > 0)
        total = np.bincount(of_window, self.share[self._firsts])

        def everywhere(true: np.ndarray) -> np.ndarray:
            return np.bincount(of_cell, ~true) == 0

        split = everywhere((low - near <= got) & (got <= high + near))
        split &= np.abs(np.bincount(of_cell, got) - total) <= np.bincount(of_cell, near)
        one = everywhere((np.abs(got) <= near) | (np.abs(got - total[of_cell]) <= near))
        one &= split & (np.bincount(of_window) == 1)
        first = everywhere(np.abs(got - self._sums(self._firsts)) <= near)
        last = everywhere(np.abs(got - self._sums(np.roll(self._firsts, -1))) <= near)
        return np.select([first, last, one, split], [FIRST, LAST, ONE, SPLIT], NEITHER)

    def _sums(self, chosen: np.ndarray) -> np.ndarray:
        """For each cell, the sum of the chosen ones of what it could get."""
        return np.bincount(self.cell, np.where(chosen, self.share, 0))[self._cells]

    @cached_property
    def _cells(self) -> np.ndarray:
        return np.unique(self.cell)

    @cached_property
    def _firsts(self) -> np.ndarray:
        """Where the first cell of a window stands; the one before is the last of another window."""
        return np.append(True, self.window[1:] != self.window[:-1])

    @cached_property
    def _groups(self) -> tuple[np.ndarray, np.ndarray]:
        """The group of each window and of each cell, in the order of their numbers: the connected parts."""
        from scipy import sparse  # only here, because it takes longer to load than ten cases to be judged
        from scipy.sparse import csgraph

        windows, window = np.unique(self.window, return_inverse=True)
        cells, cell = np.unique(self.cell, return_inverse=True)
        size = len(windows) + len(cells)
        joined = sparse.coo_array((np.ones(len(cell)), (window, len(windows) + cell)), shape=(size, size))
        _, groups = csgraph.connected_components(joined, directed=False)
        return groups[: len(windows)], groups[len(windows) :]


def _of_layer(operation: Operation, gradients: _Gradients) -> _Tie | None:
    ties = operation.entry.ties(operation["x"])
    if ties is None:
        return None
    dz, size = operation["dz"].reshape(-1).astype(np.float64), gradients.theirs.size
    window, cell = (indices[dz[ties[0]] != 0] for indices in ties)  # nothing to give is nothing to choose
    share = dz[window]
    tied = np.bincount(window)[window] > 1

    def sums(values: np.ndarray) -> np.ndarray:
        return np.bincount(cell, values, minlength=size)

    return _Tie(
        gradients,
        operation.layer,
        window=window[tied],
        cell=cell[tied],
        share=share[tied],
        alone=sums(np.where(tied, 0, share)),
        rounding=sums(np.ones_like(share)) * 2 * _roundoff(gradients.theirs) * sums(np.abs(share)),
    )


OF_FAMILY: Mapping[tuple[str, str], Callable[[Operation, _Gradients], _Kink | _Tie | None]] = {
    ("activation", "backward"): _of_activation,
    ("loss", "backward"): _of_loss,
    ("layer", "backward"): _of_layer,
    ("regularizer", "backward"): _of_penalty,
}
"""Family, direction -> what finds the kinks or ties of such an operation."""


def _roundoff(array: np.ndarray) -> float:
    return float(np.finfo(array.dtype).eps) / 2


def _share(count: Any, of: Any) -> str:
    return "" if count == of else f" at {count} of them"
