"""The catalogue of mistakes: complete, able to run, wrong where it says so, and found where it is planted."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from parity import cases, compare, oracle, probe, score
from parity.mistakes import Mistake, catalogue
from parity.mistakes.catalogue import mistake
from parity.runners import scratch
from parity.runners.steps import Operation
from parity.spec import DTYPES, Spec
from parity.trace import Place, Trace, Weights, flow
from scratchnet import registry

FAMILIES = ("activation", "layer", "loss", "regularizer", "optimizer")
WIDTHS, BATCH = score.SIZES["small"]

MISTAKES = [m for m in catalogue() if not m.equivalent]
EQUIVALENTS = [m for m in catalogue() if m.equivalent]


@dataclass(frozen=True)
class Run:
    """One case as scratchnet runs it, with all of its operations."""

    spec: Spec
    weights: Weights
    x: np.ndarray
    y: np.ndarray
    places: list[Place]
    operations: list[Operation]
    trace: Trace

    @classmethod
    def of(cls, spec: Spec) -> "Run":
        network = scratch.Network.of(spec)
        weights = {n: w.astype(spec.dtype) for n, w in probe.weights(network.weights, spec.seed).items()}
        x = probe.samples(network.input_shape, BATCH, spec.seed, network.indices)
        x = x if network.indices else x.astype(spec.dtype)
        y = probe.labels(network.output_shape, BATCH, spec.seed, network.labels)
        operations: list[Operation] = []

        def collect(operation: Operation) -> Mapping[str, Any]:
            operations.append(operation)
            return operation.outputs

        trace = scratch.run_with(spec, weights, x, y, collect)
        places = list(flow(network.layers, spec.loss_name, spec.optimizer_name))
        return cls(spec, weights, x, y, places, operations, trace)

    def budgets(self, change: Mistake) -> float:
        """The largest difference, in budgets, when every operation that can have this change has it."""

        def settle(operation: Operation) -> Mapping[str, Any]:
            return change.apply(operation) or {}

        if self.spec.dtype == "float64":
            subject = scratch.run_with(self.spec, self.weights, self.x, self.y, settle)
            rows = compare.compare_whole(subject, self.trace, self.places)
        else:
            replayed = scratch.replay(self.spec, self.weights, self.trace, self.y, settle=settle)
            bounds = oracle.bounds(self.spec, self.weights, self.trace, self.y)
            rows = compare.compare_local(replayed, bounds, self.trace, self.places)
        return max(row.budgets for row in rows)


@pytest.fixture(scope="module")
def runs() -> dict[str, list[Run]]:
    return {dtype: [Run.of(spec.with_dtype(dtype)) for spec in cases.cases(0, WIDTHS)] for dtype in DTYPES}


@pytest.fixture(scope="module")
def operations(runs: dict[str, list[Run]]) -> list[Operation]:
    return [operation for some in runs.values() for run in some for operation in run.operations]


def ids(change: Mistake) -> str:
    return change.code


def applies(change: Mistake, operation: Operation) -> bool:
    """Whether the function can be called here."""
    return operation.direction == change.direction and change.on in (operation.kind, operation.family)


def belonging(name: str, operations: list[Operation]) -> list[Operation]:
    """The steps of an entry: its own, or, for a layer that is only an activation, those of the activation in it."""
    own = [operation for operation in operations if operation.kind == name]
    return own or [operation for operation in operations if layer_kind(operation) == name]


def layer_kind(operation: Operation) -> str | None:
    kinds = {layer.name: layer.kind for layer in operation.context["layers"]}
    return kinds.get(operation.layer)


# -- the table ---------------------------------------------------------------------------------------------------------


def test_the_catalogue_is_large() -> None:
    assert len(MISTAKES) >= 80
    assert EQUIVALENTS


@pytest.mark.parametrize("one", catalogue(), ids=ids)
def test_every_field_is_filled(one: Mistake) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", one.code)
    assert one.on in FAMILIES or any(one.on in registry.entries(family) for family in FAMILIES)
    assert one.direction in ("forward", "backward", "update")
    assert all((one.text, one.right, one.wrong, one.shows))
    assert one.right != one.wrong


def test_a_code_is_used_once() -> None:
    codes = [one.code for one in catalogue()]
    assert len(codes) == len(set(codes))
    with pytest.raises(ValueError, match=codes[0]):
        mistake(codes[0], on="Dense", direction="forward", text="t", right="r", wrong="w")(lambda operation: None)


# Linear has no step of its own: nothing is computed there.
ENTRIES = [name for family in ("activation", "layer", "loss") for name in registry.entries(family) if name != "linear"]


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_has_mistakes_of_its_own(name: str, operations: list[Operation]) -> None:
    own = [one for one in MISTAKES if one.on not in FAMILIES]
    made = {one for one in own for operation in belonging(name, operations) if one.apply(operation)}
    assert len(made) >= 3
    assert {one.direction for one in made} == {"forward", "backward"}


# -- what a mistake makes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", MISTAKES, ids=ids)
def test_wrong_outputs_are_of_the_right_kind(one: Mistake, operations: list[Operation]) -> None:
    made = [(operation, wrong) for operation in operations if (wrong := one.apply(operation))]
    assert made, "no case lets this mistake show"
    for operation, wrong in made:
        for name, array in wrong.items():
            if name == "terms":
                assert type(array) is type(operation.terms)
                continue
            right = np.asarray(operation.outputs[name])
            assert np.shape(array) == right.shape
            assert np.asarray(array).dtype == right.dtype
            assert not np.array_equal(array, right)


def test_inputs_are_left_alone(runs: dict[str, list[Run]]) -> None:
    for run in runs["float64"]:
        for operation in run.operations:
            arrays = [np.asarray(array) for array in (*operation.inputs.values(), *operation.outputs.values())]
            before = [array.copy() for array in arrays]
            for one in catalogue():
                one.apply(operation)
            assert all(np.array_equal(b, a) for b, a in zip(before, arrays, strict=True) if a.dtype != object)


@pytest.mark.parametrize("one", EQUIVALENTS, ids=ids)
def test_what_is_equivalent_is_within_budget(one: Mistake, runs: dict[str, list[Run]]) -> None:
    def made(operation: Operation) -> bool:
        return applies(one, operation) and one.function(operation) is not None

    concerned = [run for dtype in DTYPES for run in runs[dtype] if any(made(operation) for operation in run.operations)]
    assert concerned, "no case has an operation like this"
    assert max(run.budgets(one) for run in concerned) <= 1


def test_what_is_not_equivalent_is_out_of_budget(runs: dict[str, list[Run]]) -> None:
    """The test before can fail."""
    one = next(one for one in MISTAKES if one.code == "dense-bias-missing")
    assert all(run.budgets(one) > 1 for dtype in DTYPES for run in runs[dtype] if run.spec.name == "loss-Huber")


def test_a_mistake_stays_where_it_belongs(operations: list[Operation]) -> None:
    one = next(one for one in MISTAKES if one.code == "dense-bias-missing")
    made = [operation for operation in operations if one.apply(operation)]
    assert {(operation.kind, operation.direction) for operation in made} == {("Dense", "forward")}


# -- the score of the checker ------------------------------------------------------------------------------------------


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "size", [pytest.param(size, marks=() if size == "small" else pytest.mark.slow) for size in score.SIZES]
)
def test_every_planted_mistake_is_found_where_it_is(size: str) -> None:
    result = score.score([size])
    assert result.alarms == ()
    assert result.missed == ()
    # A larger batch or input has no square left for the mistakes that need one; the small size has a place for all.
    assert result.unplanted == () or size != "small"
    assert len(result.misplaced) <= 0.01 * len(result.planted)
