"""The sketch of a tensor: what it allows is never alarming, what it promises to see is seen, on every machine the same.

No property here needs a network. The figures of the module's docstring are measured, not repeated.
"""

import math

import numpy as np
import pytest

from parity import compare, sketch
from parity.sketch import Sketch, Vouched, buckets, seen_from
from parity.trace import Place

PLACE = Place("dense/kernel.gradient", "Dense dense backward", "backward")
SIZES = (1, 2, 100, 2048, 5000, 300_000)
MASK = 2**64 - 1


def out_of_budget(kept: Sketch, array: np.ndarray, allowed: np.ndarray | float) -> np.ndarray:
    sums, limits = kept.compared(array, allowed)
    return np.abs(sums - kept.sums) > limits


def judged(kept: Sketch, subject: np.ndarray, again: np.ndarray, allowed: np.ndarray | float = 1e-3) -> compare.Row:
    return compare.judge(PLACE, subject, Vouched.by(kept, again), allowed)


# -- the hash ----------------------------------------------------------------------------------------------------------


def splitmix64(state: int) -> int:
    """The output of the generator in this state, in whole numbers of any size."""
    z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def test_the_hash_is_splitmix64():
    """The first numbers of the generator that begins at 0, as its authors' code prints them."""
    found = sketch._hashed(np.arange(1, 4, dtype=np.uint64))
    assert [int(n) for n in found] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


@pytest.mark.parametrize("seed", [0, 1, 7, 2**31, 2**40, -3])
def test_buckets_and_signs_are_those_of_plain_python(seed):
    bucket, sign = sketch._drawn(1000, seed)
    golden = 0x9E3779B97F4A7C15
    drawn = [splitmix64((position + (seed << 32)) * golden & MASK) for position in range(1000)]
    np.testing.assert_array_equal(bucket, [z % 64 for z in drawn])
    np.testing.assert_array_equal(sign, [1 if z >> 63 else -1 for z in drawn])


def test_the_sums_of_a_small_array_are_these():
    """Fixed numbers: a golden that was written on one machine is read on another."""
    kept = Sketch.of(np.arange(1.0, 9.0), seed=5)
    found = {int(bucket): float(kept.sums[bucket]) for bucket in np.flatnonzero(kept.sums)}
    assert found == {54: -1.0, 4: 2.0, 5: 3.0, 21: 4.0, 40: -5.0, 14: 6.0, 25: -7.0, 48: 8.0}


def test_signs_and_buckets_are_even():
    """Of a million positions, by the chi-squared test at six deviations."""
    bucket, sign = sketch._drawn(10**6, 3)
    count = np.bincount(bucket, minlength=buckets(10**6))
    mean = 10**6 / len(count)
    chi = float(np.sum((count - mean) ** 2 / mean))
    assert abs(chi - (len(count) - 1)) < 6 * math.sqrt(2 * len(count))
    assert abs(float(np.sum(sign))) < 6 * 1000
    by_bucket = np.bincount(bucket, sign)  # signs that went with the bucket would not cancel there
    assert abs(float(np.sum(by_bucket**2)) / 10**6 - 1) < 6 * math.sqrt(2 / len(count))


def test_other_seeds_throw_elsewhere():
    one, other = sketch._drawn(100_000, 0), sketch._drawn(100_000, 1)
    assert np.mean(one[0] == other[0]) < 0.01
    assert 0.4 < np.mean(one[1] == other[1]) < 0.6


@pytest.mark.parametrize(("size", "expected"), [(1, 64), (4096, 64), (4097, 128), (10**7, 262_144)])
def test_a_sketch_grows_with_its_tensor(size, expected):
    assert buckets(size) == expected
    assert size / buckets(size) <= 64


# -- what is allowed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_differences_within_budget_never_alarm(size):
    """Of every kind that is hard on it: at the limit with the same sign, with random signs, and with budgets of very
    different sizes."""
    rng = np.random.default_rng(size)
    for trial in range(40 if size < 10_000 else 4):
        array = rng.standard_normal(size) * 10.0 ** rng.integers(-3, 4)
        allowed = 1e-9 * np.exp(rng.normal(0, 3, size))
        kept = Sketch.of(array, trial)
        for signs in (1.0, -1.0, rng.choice([-1.0, 1.0], size), rng.uniform(-1, 1, size)):
            assert not np.any(out_of_budget(kept, array + signs * allowed, allowed * (1 + 1e-6)))


def test_the_bound_is_needed_by_differences_that_know_the_hash():
    """Budgets that are used up with the very signs of the hash reach the sum of them, so that nothing below would do;
    with more elements than 64 in a bucket, they are told from chance."""
    for size, alarms in ((2048, False), (131_072 * 2, True)):
        few = Sketch.of(np.zeros(size), 0)
        bucket, sign = sketch._drawn(size, 0)
        crowded = np.bincount(bucket) > 64
        assert bool(np.any(crowded)) is alarms
        assert bool(np.any(out_of_budget(few, sign * 1e-9, 1e-9))) is alarms


def test_rounding_of_the_sums_is_no_difference():
    """The same numbers in another order of addition, which another NumPy may take."""
    rng = np.random.default_rng(0)
    array = rng.standard_normal(200_000) * 10.0 ** rng.integers(-8, 8, 200_000)
    kept = Sketch.of(array, 1)
    bucket, sign = sketch._drawn(array.size, 1)
    other = np.zeros_like(kept.sums)
    for i in reversed(range(array.size)):
        other[bucket[i]] += sign[i] * array[i]
    assert np.any(other != kept.sums)
    _, limits = kept.compared(array, 0.0)
    assert np.all(np.abs(other - kept.sums) <= limits)


# -- what is seen ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_a_single_element_is_seen_beyond_what_is_promised(size):
    """While all the others use up their budgets as chance has it."""
    rng = np.random.default_rng(size)
    array, allowed = rng.standard_normal(size), 1e-6
    kept = Sketch.of(array, 2)
    bucket, _ = sketch._drawn(size, 2)
    load = np.bincount(bucket, minlength=buckets(size))
    for _ in range(300 if size < 10_000 else 20):
        at = int(rng.integers(size))
        n = load[bucket[at]]
        wrong = array + allowed * rng.uniform(-1, 1, size)
        wrong[at] = array[at] + 2.001 * min(n, 8 * math.sqrt(n)) * allowed * rng.choice([-1, 1])
        assert out_of_budget(kept, wrong, allowed)[bucket[at]]


@pytest.mark.parametrize("size", SIZES)
def test_what_is_seen_of_an_average_bucket_is_what_the_report_says(size):
    """Just above in most buckets, and never where the difference is the budget."""
    array = np.random.default_rng(0).standard_normal(size)
    kept = Sketch.of(array, 0)
    bucket, _ = sketch._drawn(size, 0)
    load = np.bincount(bucket)
    at = int(np.argmin(np.abs(load[bucket] - size / buckets(size))))
    for factor, seen in ((1.0, False), (1.1 * max(seen_from(size), 2 * load[bucket[at]]), True)):
        wrong = array.copy()
        wrong[at] += 1e-5 * factor
        assert bool(np.any(out_of_budget(kept, wrong, 1e-5 * (1 + 1e-9)))) is seen


@pytest.mark.parametrize("size", [5000, 300_000])
def test_a_difference_that_is_spread_is_seen(size):
    """Its root mean square is above 2 min(sqrt(n), 8) budgets; three buckets in sixteen have to see it, at least."""
    rng = np.random.default_rng(1)
    array, allowed = rng.standard_normal(size), 1e-7
    kept = Sketch.of(array, 0)
    bucket, _ = sketch._drawn(size, 0)
    load = np.bincount(bucket, minlength=buckets(size))
    for pattern in (np.ones(size), rng.choice([-1.0, 1.0], size), array / np.sqrt(np.mean(array**2))):
        rms = 2 * np.minimum(np.sqrt(load), 8)[bucket] * allowed
        share = np.mean(out_of_budget(kept, array + pattern * rms * 1.01, allowed)[load > 0])
        assert share > 3 / 16


def test_another_order_of_the_elements_is_seen():
    array = np.random.default_rng(0).standard_normal((300, 40))
    kept = Sketch.of(array, 0)
    for other in (array[::-1], array[:, ::-1], np.roll(array, 1, axis=0), -array, array * (1 + 1e-6), array + 1e-6):
        assert not judged(kept, other, other, 1e-9).passed
    assert judged(kept, array + 1e-10, array + 1e-10, 1e-9).passed


# -- numbers that are none ---------------------------------------------------------------------------------------------


def test_a_negative_zero_is_zero():
    assert judged(Sketch.of(np.zeros((3, 5)), 0), np.full((3, 5), -0.0), np.zeros((3, 5)), 0.0).passed


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_on_one_side_is_wrong(odd):
    right = np.random.default_rng(0).standard_normal(5000)
    wrong = right.copy()
    wrong[77] = odd
    for kept, subject in ((right, wrong), (wrong, right)):
        row = judged(Sketch.of(kept, 0), subject, subject)
        assert (row.passed, row.budgets) == (False, np.inf)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_what_is_no_number_on_both_sides_hides_its_bucket_and_says_so(odd):
    right = np.random.default_rng(0).standard_normal(5000)
    right[77] = odd
    kept = Sketch.of(right, 0)
    row = judged(kept, right, right)
    bucket, _ = sketch._drawn(5000, 0)
    assert row.passed
    assert row.unjudged == np.count_nonzero(bucket == bucket[77])
    assert not row.compared


def test_a_budget_that_overflows_is_no_verdict():
    right = np.ones(100)
    row = judged(Sketch.of(right, 0), right + 1, right + 1, np.where(np.arange(100) == 3, np.inf, 10.0))
    assert row.unjudged >= 1
    assert not row.compared


# -- in place of a tensor ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (7, 9, 4)])
def test_a_right_tensor_passes_and_a_wrong_one_does_not(shape):
    right = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    kept = Sketch.of(right, 0)
    row = judged(kept, right, right)
    assert row.passed
    assert (row.shape, row.size, row.unjudged) == (shape, right.size, 0)
    assert "recorded as a sketch of 64 sums" in row.note
    wrong = right + np.float32(0.5)
    for again in (right, wrong):  # whether or not the code that fills the sketch in has the mistake as well
        row = judged(kept, wrong, again)
        assert not row.passed
        assert row.wrong is not None
        assert row.wrong.shape == shape
        assert row.outside >= 1


def test_where_the_sketch_agrees_with_what_was_computed_again_its_elements_are_compared():
    """So a lone element is seen from one budget on, where it stands."""
    right = np.random.default_rng(0).standard_normal((300, 500))
    wrong = right.copy()
    wrong[17, 4] += 3e-6
    row = judged(Sketch.of(right, 0), wrong, right, 1e-6)
    assert row.index == (17, 4)
    assert row.budgets == pytest.approx(3)
    assert judged(Sketch.of(right, 0), wrong, wrong, 1e-6).passed  # below 8 elements' worth nobody knows


def test_another_shape_is_wrong():
    kept = Sketch.of(np.ones((3, 4)), 0)
    row = judged(kept, np.ones((4, 3)), np.ones((4, 3)))
    assert row.note == "shape (4, 3) where the reference has (3, 4)"


def test_parts_of_an_array_that_was_computed_again_have_no_sketch():
    vouched = Vouched.by(Sketch.of(np.ones((3, 4)), 0), np.ones((3, 4)))
    assert vouched.sketch is not None
    assert (vouched[0].sketch, (vouched * 2).sketch) == (None, None)
