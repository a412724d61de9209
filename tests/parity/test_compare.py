"""Two traces in, rows out: what is equal, what is allowed, and where it is worst."""

from typing import Any

import numpy as np
import pytest

from parity.compare import (
    GATE,
    GATE_OF_NETWORK,
    NEAR_A_KINK,
    Row,
    compare_local,
    compare_whole,
    judge,
    missing,
    settled,
)
from parity.errors import NothingConcluded
from parity.trace import Place, Trace

HERE = Place("dense/output", "Dense dense forward", "forward")
INF, NAN = np.inf, np.nan


def judged(subject: Any, reference: Any, allowed: float = 1.0) -> Row:
    reference = np.asarray(reference, np.float32)
    return judge(HERE, np.asarray(subject, np.float32), reference, np.full(reference.shape, allowed))


def test_the_worst_element_is_the_one_furthest_out_of_its_own_budget() -> None:
    r = np.zeros((2, 3), np.float32)
    s = np.float32([[1, 9, 2], [0, 3, 0]])
    allowed = np.float64([[10, 100, 1], [1, 2, 1]])
    row = judge(HERE, s, r, allowed)
    assert (row.tensor, row.computed_by, row.shape) == ("dense/output", "Dense dense forward", (2, 3))
    assert (row.index, row.budgets, row.subject, row.reference) == ((0, 2), 2.0, 2.0, 0.0)
    assert (row.difference, row.allowed) == (2.0, 1.0)
    assert (row.outside, row.size) == (2, 6)
    assert row.largest_absolute == 9.0  # of all elements, not of the worst
    assert not row.passed


def test_equal_is_zero_budgets_even_where_nothing_is_allowed() -> None:
    row = judged([0.0, 1.0, -0.0], [0.0, 1.0, 0.0], allowed=0.0)
    assert row.passed
    assert (row.budgets, row.outside, row.largest_relative, row.largest_ulp, row.note) == (0.0, 0, 0.0, 0.0, "")


def test_the_slightest_difference_is_infinitely_many_budgets_where_nothing_is_allowed() -> None:
    row = judged([0.0, 1e-45], [0.0, 0.0], allowed=0.0)
    assert (row.budgets, row.index, row.outside) == (INF, (1,), 1)
    assert not row.passed


def test_exactly_the_budget_passes_and_the_next_number_does_not() -> None:
    exactly = judged([1.0], [0.0])
    assert exactly.passed
    assert exactly.outside == 0
    assert not judged([np.nextafter(np.float32(1), np.float32(2))], [0.0]).passed


def test_wrong_marks_the_elements_that_are_out_of_budget() -> None:
    assert judged([0.5, 1.0], [0.0, 0.0]).wrong is None
    wrong = judged([1.0, 1.5, 0.0], [0.0, 0.0, 0.0]).wrong
    assert wrong is not None
    assert wrong.tolist() == [False, True, False]


def test_units_in_the_last_place_are_those_of_the_reference() -> None:
    one = np.float32(1)
    assert judged([one + np.float32(2**-22)], [one]).largest_ulp == 2.0
    assert judged([3.0], [2.0]).largest_relative == 0.5
    assert judged([3.0], [2.0]).largest_ulp == 2.0**22


def test_below_noise_is_a_reference_that_zeros_would_pass_for() -> None:
    assert judged([0.0, 0.0], [0.5, -1.0]).below_noise
    assert not judged([0.5, -2.0], [0.5, -2.0]).below_noise
    assert not judged([0.5, 2.0], [0.5, 2.0]).below_noise
    assert judge(HERE, np.zeros(2), np.zeros((2, 1)), np.ones((2, 1))).below_noise is False  # not known


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_the_same_on_both_sides_is_right_also_where_it_is_no_number(value: float) -> None:
    row = judged([1.0, value], [1.0, value])
    assert row.passed
    assert row.note == ("NaN on both sides" if np.isnan(value) else "")
    assert (row.unjudged, row.compared) == (1, False)  # a wrong result may have overflown to the same


@pytest.mark.parametrize(
    ("subject", "reference"), [(NAN, 1.0), (1.0, NAN), (INF, 1.0), (1.0, -INF), (INF, -INF), (NAN, INF), (INF, NAN)]
)
@pytest.mark.parametrize("allowed", [1.0, INF])
def test_one_side_alone_that_is_no_number_is_wrong_whatever_is_allowed(
    subject: float, reference: float, allowed: float
) -> None:
    row = judged([0.0, subject], [0.5, reference], allowed)
    assert (row.budgets, row.index, row.outside) == (INF, (1,), 1)
    assert (row.difference, row.note) == (INF, "")


@pytest.mark.parametrize("allowed", [INF, NAN])
def test_where_the_budget_overflows_nothing_is_judged(allowed: float) -> None:
    """An infinite budget would let any finite difference pass, and one that is NaN would call any wrong."""
    row = judge(HERE, np.float64([9.0, 1.0, 5.0]), np.float64([0.0, 1.0, 5.0]), np.float64([allowed, allowed, 1.0]))
    assert (row.unjudged, row.outside, row.budgets) == (2, 0, 0.0)
    assert not row.compared


def test_what_is_out_of_budget_stays_wrong_beside_elements_that_are_not_judged() -> None:
    row = judge(HERE, np.float64([9.0, 3.0]), np.zeros(2), np.float64([INF, 1.0]))
    assert (row.unjudged, row.outside, row.budgets, row.passed, row.compared) == (1, 1, 3.0, False, True)
    assert judged([0.5], [0.0]).compared
    assert judged([0.5], [0.0]).unjudged == 0


@pytest.mark.parametrize("shape", [(3, 2), (6,), (2, 3, 1), (1, 3), (), (0,)])
def test_a_shape_that_differs_is_never_broadcast(shape: tuple[int, ...]) -> None:
    row = judge(HERE, np.zeros(shape), np.zeros((2, 3)), np.full((2, 3), INF))
    assert not row.passed
    assert (row.outside, row.size, row.shape) == (6, 6, (2, 3))
    assert str(shape) in row.note
    assert "(2, 3)" in row.note
    assert (row.tensor, row.computed_by) == (HERE.tensor, HERE.computed_by)
    assert (row.index, row.difference, row.allowed) == ((), INF, 0.0)
    assert np.isnan([row.subject, row.reference]).all()
    assert (row.largest_absolute, row.largest_relative, row.largest_ulp) == (INF, INF, INF)


def test_a_scalar_has_an_empty_index() -> None:
    row = judged(2.5, 2.0)
    assert (row.shape, row.index, row.subject, row.size) == ((), (), 2.5, 1)
    assert row.budgets == 0.5


def test_an_empty_tensor_has_nothing_wrong() -> None:
    row = judged(np.zeros((0, 3)), np.zeros((0, 3)))
    assert row.passed
    assert (row.index, row.outside, row.size, row.difference) == ((), 0, 0, 0.0)


def test_integers_and_mixed_dtypes_are_compared_as_numbers() -> None:
    assert judge(HERE, np.array([1, 2]), np.float32([1, 2]), np.zeros(2)).passed
    assert judge(HERE, np.array([1, 2]), np.array([1, 3]), np.full(2, 0.5)).budgets == 2.0
    big = np.float64([2.0**53])
    assert judge(HERE, big + 2, big, np.ones(1)).budgets == 2.0


# -- whole traces ------------------------------------------------------------------------------------------------------

FLOW = [
    Place("dense/output", "Dense dense forward", "forward"),
    Place("loss", "mse forward", "forward"),
    Place("dense/output.gradient", "mse backward", "backward"),
    Place("dense/kernel.gradient", "Dense dense backward", "backward"),
]
RIGHT = {
    "dense/output": np.float64([4.0, -8.0]),
    "loss": np.float64(2.0),
    "dense/output.gradient": np.float64([100.0, 1.0]),
    "dense/kernel.gradient": np.float64([0.0, 1e-3]),
}


@pytest.mark.parametrize("place", FLOW, ids=lambda place: place.tensor)
def test_the_gate_is_on_two_scales_of_the_tensor_and_of_its_direction(place: Place) -> None:
    largest = {"forward": 8.0, "backward": 100.0}[place.stage]
    allowed = GATE * np.max(np.abs(RIGHT[place.tensor])) + GATE_OF_NETWORK * largest
    for factor, passed in ((0.9, True), (1.1, False)):
        wrong = RIGHT | {place.tensor: RIGHT[place.tensor] + factor * allowed}
        rows = {row.tensor: row for row in compare_whole(Trace(wrong), Trace(RIGHT), FLOW)}
        assert list(rows) == [p.tensor for p in FLOW]
        assert rows[place.tensor].passed is passed
        assert rows[place.tensor].allowed == pytest.approx(allowed)
        assert all(row.passed for name, row in rows.items() if name != place.tensor)


def test_a_tensor_that_is_only_rounding_is_judged_on_the_scale_of_the_network() -> None:
    noise = RIGHT | {"dense/kernel.gradient": np.float64([1e-15, -1e-15])}
    other = RIGHT | {"dense/kernel.gradient": np.float64([-3e-15, 2e-15])}
    assert all(row.passed for row in compare_whole(Trace(other), Trace(noise), FLOW))


@pytest.mark.parametrize("values", [(INF, NAN), (INF, -INF), (NAN, NAN)])
def test_infinities_and_nan_in_the_reference_do_not_widen_the_gate(values: tuple[float, float]) -> None:
    r = RIGHT | {"dense/output": np.float64([*values, 2.0])}
    s = RIGHT | {"dense/output": np.float64([*values, 2.0 + 1e-9])}
    row = compare_whole(Trace(s), Trace(r), FLOW)[0]
    assert (row.passed, row.index, row.outside) == (False, (2,), 1)


def test_a_stage_that_was_not_recorded_takes_no_part() -> None:
    update = Place("dense/kernel.updated", "SGD update", "update")
    assert [row.tensor for row in compare_whole(Trace(RIGHT), Trace(RIGHT), [*FLOW, update])] == list(RIGHT)


def test_only_what_both_sides_have_is_compared() -> None:
    without = {name: value for name, value in RIGHT.items() if name != "dense/output.gradient"}
    for s, r in ((without, RIGHT), (RIGHT, without)):
        assert [row.tensor for row in compare_whole(Trace(s), Trace(r), FLOW)] == list(without)
        bounds = {name: np.zeros(np.shape(value)) for name, value in RIGHT.items()}
        assert [row.tensor for row in compare_local(s, bounds, Trace(r), FLOW)] == list(without)


def test_comparing_nothing_is_an_error_that_lists_both_sides() -> None:
    with pytest.raises(NothingConcluded, match=r"nothing was compared.*\['dense_1/output'\].*'loss'"):
        compare_whole(Trace({"dense_1/output": np.zeros(2)}), Trace(RIGHT), FLOW)
    with pytest.raises(NothingConcluded, match="nothing was compared"):
        compare_local({}, {}, Trace(RIGHT), FLOW)
    with pytest.raises(NothingConcluded, match="nothing was compared"):
        compare_whole(Trace(RIGHT), Trace(RIGHT), [])


def test_each_tensor_that_the_subject_does_not_have_is_as_wrong_as_can_be() -> None:
    unknown = Trace({"input": np.zeros(2), **RIGHT, "dense/bias.gradient": np.zeros((3, 4))})
    assert missing(unknown, unknown.tensors, FLOW) == []
    assert missing(unknown, {**RIGHT, "dense/bias.gradient": None}, FLOW) == []  # nobody computes the input
    here = [name for name in RIGHT if name != "dense/kernel.gradient"]
    absent, other = missing(unknown, dict.fromkeys(here), FLOW)
    assert (absent.tensor, absent.computed_by) == ("dense/kernel.gradient", "Dense dense backward")
    assert (other.tensor, other.computed_by) == ("dense/bias.gradient", "nothing in scratchnet")
    assert [(row.shape, row.outside, row.size) for row in (absent, other)] == [((2,), 2, 2), ((3, 4), 12, 12)]
    for row in (absent, other):
        assert (row.passed, row.budgets, row.note) == (False, INF, "the subject has no such tensor")


def test_two_right_results_may_be_twice_the_bound_apart() -> None:
    bounds = {name: np.full(np.shape(value), 0.5) for name, value in RIGHT.items()}
    replayed = {name: value + 1.0 for name, value in RIGHT.items()}
    rows = compare_local(replayed, bounds, Trace(RIGHT), FLOW)
    assert [row.budgets for row in rows] == [1.0] * 4
    assert all(row.passed for row in rows)


# -- beyond the gate, and right all the same ---------------------------------------------------------------------------


def rows(**budgets: float) -> list[Row]:
    """A row for each tensor, so many budgets off."""
    return [judge(Place(name, "it", "forward"), [off], [0.0], np.ones(1)) for name, off in budgets.items()]


def test_rows_beyond_the_gate_become_local_ones_where_every_operation_of_both_sides_is_right() -> None:
    whole, local = rows(input=0.0, z=0.5, y=7.0), rows(z=0.2, y=0.3)
    first, second, third = settled(whole, local, rows(z=0.1, y=0.9))
    assert [first, second] == whole[:2]
    assert (third.tensor, third.budgets, third.note) == ("y", 0.3, NEAR_A_KINK)
    assert "kink" in third.note


def test_an_operation_that_could_not_be_judged_is_no_excuse() -> None:
    whole, right = rows(z=0.5, y=7.0), rows(z=0.2, y=0.3)
    overflows = [judge(Place("z", "it", "forward"), [9.0], [0.0], np.full(1, INF)), right[1]]
    assert settled(whole, right, right) != whole
    assert settled(whole, overflows, right) == whole
    assert settled(whole, right, overflows) == whole


@pytest.mark.parametrize(
    ("whole", "local", "own"),
    [
        (rows(z=0.5, y=1.0), rows(z=0.2, y=0.3), rows(z=0.2, y=0.3)),  # nothing is beyond the gate
        (rows(z=0.5, y=0.6), rows(z=0.2, y=3.0), rows(z=0.2, y=3.0)),
        (rows(z=0.5, y=7.0), rows(z=0.2, y=3.0), rows(z=0.2, y=0.3)),  # an operation of the subject is wrong
        (rows(z=0.5, y=7.0), rows(z=0.2, y=0.3), rows(z=0.2, y=3.0)),  # one of the reference is
        (rows(z=0.5, y=7.0), rows(z=0.2), rows(z=0.2)),  # the tensor beyond the gate was not looked at
        (rows(z=7.0, y=7.0), rows(z=0.2), rows(z=0.2)),
    ],
)
def test_the_rows_of_the_gate_stand_in_every_other_case(whole: list[Row], local: list[Row], own: list[Row]) -> None:
    assert settled(whole, local, own) == whole
