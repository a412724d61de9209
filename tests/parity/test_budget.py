"""The budgets, judged by what they promise: no honest float32 evaluation is outside, and little else is inside."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import special

from parity import budget, probe
from parity.budget import FLOAT32, FLOAT64, Arithmetic, Bounded, Condition, UnboundedOperation
from scratchnet import registry
from scratchnet.activations import Relu
from scratchnet.layers import Layer

Function = Callable[..., Any]

SHAPE = (40, 25)
DETECTED = 1e-3  # the lone relative error that a budget has to leave outside


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng([20, *seed])


def normal(seed: int, scale: float = 1.0, offset: float = 0.0) -> np.ndarray:
    return (rng(seed).standard_normal(SHAPE) * scale + offset).astype(np.float32)


def wide(seed: int) -> np.ndarray:
    """Magnitudes from 1e-12 to 1e12, both signs."""
    size = 10.0 ** rng(seed, 1).uniform(-12, 12, SHAPE)
    return (size * rng(seed, 2).choice([-1, 1], SHAPE)).astype(np.float32)


def near_powers_of_two(seed: int) -> np.ndarray:
    """Where half a unit in the last place is largest against the value, and one step below."""
    powers = 2.0 ** rng(seed, 3).integers(-6, 6, SHAPE)
    return (powers * (1 + rng(seed, 4).integers(-3, 4, SHAPE) * 2.0**-24)).astype(np.float32)


# Squares and cubes of all of these stay finite in float32: an overflow is infinite on both sides, and compared as such.
INPUTS: dict[str, Callable[[int], np.ndarray]] = {
    "ordinary": normal,
    "saturated": lambda seed: normal(seed, 30),
    "huge": lambda seed: normal(seed, 1e8),
    "tiny": lambda seed: normal(seed, 1e-19),
    "subnormal": lambda seed: normal(seed, 1e-40),
    "wide": wide,
    "powers": near_powers_of_two,
    "integers": lambda seed: rng(seed).integers(-2, 3, SHAPE).astype(np.float32),
    "offset": lambda seed: normal(seed, 1, 1000),
}


def outside(plain: Any, bounded: Bounded) -> np.ndarray:
    """Where a float32 result is not within its bound. A NaN is outside unless the value is NaN as well; beyond its
    range, float32 has infinity."""
    with np.errstate(invalid="ignore"):
        off = np.abs(np.asarray(plain, np.float64) - bounded.value)
    overflown = np.isinf(plain) & (np.abs(bounded.value) + bounded.bound() >= np.finfo(np.float32).max)
    same = np.isnan(plain) & np.isnan(bounded.value) | (plain == bounded.value) | overflown
    return ~(same | (off <= bounded.bound()))


def both(function: Function, *operands: np.ndarray) -> tuple[Any, Any]:
    """The function in float32, and with bounds."""
    with np.errstate(all="ignore"):
        return function(*operands), function(*(Bounded(operand) for operand in operands))


def assert_honest(function: Function, *operands: np.ndarray) -> None:
    """float32 stays inside the bounds, also where it flushes to zero."""
    plain, bounded = both(function, *operands)
    if not isinstance(bounded, Bounded):  # a comparison without doubt, an argmax, a shape: exact
        np.testing.assert_array_equal(plain, bounded)
        return
    assert np.asarray(plain).dtype == np.float32
    assert plain.shape == bounded.shape == bounded.bound().shape
    results = [plain]
    if not any(np.any((operand != 0) & (np.abs(operand) < FLOAT32.tiny)) for operand in operands):
        results.append(np.where(np.abs(plain) < FLOAT32.tiny, 0, plain))  # what TensorFlow makes of subnormal results
    for result in results:
        bad = outside(result, bounded)
        assert not bad.any(), (
            f"{np.count_nonzero(bad)} of {bad.size} outside, such as {result[bad].flat[0]!r}: "
            f"{bounded.value[bad].flat[0]!r} +- {bounded.bound()[bad].flat[0]!r}"
        )


def assert_float64(function: Function, *operands: np.ndarray) -> None:
    """The values are those of an evaluation in float64, bit for bit."""
    with np.errstate(all="ignore"):
        exact = function(*(operand.astype(np.float64) for operand in operands))
        np.testing.assert_array_equal(function(*(Bounded(operand) for operand in operands)).value, exact)


# -- one rule at a time ------------------------------------------------------------------------------------------------

DOMAIN: dict[Any, Function] = {
    np.sqrt: np.abs,
    np.log: np.abs,
    np.log1p: np.abs,
    np.exp: lambda a: np.clip(a, -100, 80),
    np.expm1: lambda a: np.clip(a, -100, 80),
}
UNARY = sorted((ufunc for ufunc in budget._RULES if ufunc.nin == 1), key=lambda ufunc: ufunc.__name__)
BINARY = sorted(
    (ufunc for ufunc in budget._RULES if ufunc.nin == 2 and ufunc not in (np.power, np.matmul)),
    key=lambda ufunc: ufunc.__name__,
)
COMPARISONS = sorted(budget._COMPARISONS, key=lambda ufunc: ufunc.__name__)


def name_of(function: Any) -> str:
    return function.__name__


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("ufunc", UNARY, ids=name_of)
def test_a_function_of_one_argument(ufunc: np.ufunc, kind: str) -> None:
    make, domain = INPUTS[kind], DOMAIN.get(ufunc, lambda a: a)
    a, b = make(1), make(2)
    assert_honest(lambda a: ufunc(domain(a)), a)
    assert_float64(lambda a: ufunc(abs(a) if domain is np.abs else a), np.clip(a, -100, 80))
    assert_honest(lambda a, b: ufunc(domain(a * 0.7 + b)), a, b)  # and on operands that carry errors
    assert_honest(lambda a, b: ufunc(domain(a * 0.7 + b)), a, (a * np.float32(-0.7)))  # nothing but errors


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("ufunc", BINARY, ids=name_of)
def test_a_function_of_two_arguments(ufunc: np.ufunc, kind: str) -> None:
    make = INPUTS[kind]
    a, b = make(1), make(2)
    neighbour = np.where(a == 0, a, np.nextafter(a, np.float32(np.inf)))
    for other in (b, neighbour, -neighbour, a[:1], np.zeros_like(a)):
        assert_honest(ufunc, a, other)
        assert_float64(ufunc, a, other)
        assert_honest(lambda a, b: ufunc(a * 1.1, b + a), a, other)
    for constant in (0.1, 3, 1e-7):
        assert_honest(lambda a, c=constant: ufunc(a, c), a)
        assert_honest(lambda a, c=constant: ufunc(c, a), a)
    assert_honest(lambda a: ufunc(a, b), a)  # an exact array on one side
    assert_honest(lambda a: ufunc(b, a), a)


@given(
    a=arrays(np.float32, array_shapes(max_dims=2), elements=st.floats(-(2.0**40), 2.0**40, width=32)),
    b=st.floats(-(2.0**40), 2.0**40, width=32),
)
def test_sums_products_and_quotients_of_anything(a: np.ndarray, b: float) -> None:
    other = np.full_like(a, b)
    assert_honest(lambda a, b: a + b, a, other)
    assert_honest(lambda a, b: a - b, a, other)
    assert_honest(lambda a, b: a * b - b, a, other)
    assert_honest(lambda a, b: (a + b) / (b * b + 1), a, other)
    assert_honest(lambda a, b: np.sum(a * b, axis=-1), a, other)


@pytest.mark.parametrize("kind", INPUTS)
def test_a_square(kind: str) -> None:
    a, b = INPUTS[kind](1), INPUTS[kind](2)
    assert_honest(lambda a: a**2, a)
    assert_honest(lambda a, b: (a - b) ** 2, a, b)
    with pytest.raises(UnboundedOperation, match=r"numpy\.power with the exponent 3"):
        Bounded(a) ** 3


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("n", [1, 2, 25, 784])
def test_a_matrix_product(kind: str, n: int) -> None:
    a, b = np.resize(INPUTS[kind](1), (12, n)), np.resize(INPUTS[kind](2), (n, 9))
    assert_honest(lambda a, b: a @ b, a, b)
    assert_float64(lambda a, b: a @ b, a, b)
    assert_honest(lambda a: a @ b, a)
    assert_honest(lambda b: a @ b, b)
    assert_honest(lambda a, b: (a * 0.3) @ (b + 0.1), a, b)
    reordered = rng(n).permutation(n)
    bad = outside(a[:, reordered] @ b[reordered], Bounded(a) @ Bounded(b))
    assert not bad.any()


FUNCTIONS: dict[Any, tuple[Function, ...]] = {
    np.sum: (np.sum, lambda a: np.sum(a, axis=0), lambda a: np.sum(a * 0.3, axis=-1, keepdims=True)),
    np.mean: (np.mean, lambda a: np.mean(a, axis=0), lambda a: np.mean(a * 0.3, axis=-1, keepdims=True)),
    np.max: (np.max, lambda a: np.max(a * 0.3, axis=-1, keepdims=True)),
    np.where: (
        lambda a: np.where(a > 0.25, a * 0.3, a),
        lambda a: np.where(a * 0.3 > a * 0.1 + a * 0.2, a, 2.0),  # nothing but errors decides
        lambda a: np.where(a * 0.3 > 0, np.zeros_like(a), a),
    ),
    np.clip: (lambda a: np.clip(a, -0.1, 1e-7), lambda a: np.clip(a * 0.3, -0.1, 0.1)),
    np.concatenate: (lambda a: np.concatenate([a * 0.3, a], axis=-1), lambda a: np.concatenate([a * 0.3, a], 1)),
    np.stack: (lambda a: np.stack([a * 0.3, a]),),
    np.pad: (
        lambda a: np.pad(a * 0.3, ((1, 0), (0, 2))),
        lambda a: np.pad(a, ((1, 0), (0, 2)), constant_values=-np.inf),
    ),
    np.zeros_like: (np.zeros_like,),
    np.ones_like: (np.ones_like,),
    np.argmax: (lambda a: np.argmax(a, axis=-1),),
    np.shape: (np.shape,),
    np.ndim: (np.ndim,),
}


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("function", FUNCTIONS, ids=name_of)
def test_a_function_of_whole_arrays(function: Any, kind: str) -> None:
    for expression in FUNCTIONS[function]:
        assert_honest(expression, INPUTS[kind](1))


@pytest.mark.parametrize("where", ["first", "last", "neither"])
def test_arrays_without_bounds_may_stand_among_bounded_ones(where: str) -> None:
    a, b = normal(1), normal(2)
    order = {"first": lambda c: [b, c], "last": lambda c: [c, b], "neither": lambda c: [c, c]}[where]
    assert_honest(lambda a: np.concatenate(order(a * 0.3)), a)


MOVES: list[Function] = [
    lambda v: np.reshape(v, (25, 40)),
    lambda v: v.reshape(-1),
    np.transpose,
    lambda v: v.T,
    lambda v: v.transpose(1, 0),
    lambda v: v[3:9, ::2],
    lambda v: v[:, np.newaxis],
    lambda v: np.flip(v, 0),
    lambda v: np.take(v, [3, 1, 3], axis=1),
    lambda v: np.take_along_axis(v, np.arange(40)[:, np.newaxis] % 25, axis=1),
    lambda v: np.moveaxis(v, 0, 1),
    lambda v: np.expand_dims(v, 0),
    lambda v: np.squeeze(np.expand_dims(v, 0), 0),
    lambda v: np.broadcast_to(v, (2, *SHAPE)),
    lambda v: np.repeat(v, 2, axis=0),
    lambda v: np.tile(v, (2, 1)),
    lambda v: np.lib.stride_tricks.sliding_window_view(v, 3, axis=0),
]


def test_rearrangements_move_bounds_along() -> None:
    a = Bounded(normal(1)) * 0.3
    for move in MOVES:
        moved = move(a)
        np.testing.assert_array_equal(moved.value, move(a.value))
        np.testing.assert_array_equal(moved.bound(), move(a.bound()))


def test_every_function_that_is_known_is_tested() -> None:
    assert set(FUNCTIONS) == set(budget._FUNCTIONS)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (np.cosh, "cosh"),
        (np.median, "median"),
        (lambda a: np.linalg.norm(a), "norm"),
        (lambda a: np.einsum("ij->j", a), "einsum"),
        (lambda a: np.add.reduce(a), r"add \(reduce"),
        (lambda a: np.add(a, a, where=np.ones(SHAPE, bool)), r"add \(__call__, \['where'\]"),
        (special.erf, "erf"),
        (np.prod, "prod"),
        (lambda a: a // 2, "floor_divide"),
    ],
)
def test_what_has_no_rule_is_refused_by_name(call: Function, name: str) -> None:
    with pytest.raises(UnboundedOperation, match=name):
        call(Bounded(normal(1)))


# -- what the bounds are -----------------------------------------------------------------------------------------------

# Each arithmetic here has one kind of error only, so that a bound counts what it is made of.
ROUNDS = Arithmetic(np.dtype("float32"), FLOAT32.unit, tiny=0.0)
FLUSHES = Arithmetic(np.dtype("float32"), unit=0.0, tiny=FLOAT32.tiny)
EXACT = Arithmetic(np.dtype("float32"), unit=0.0, tiny=0.0)


def counted(bounded: Bounded) -> np.ndarray:
    """How many units of roundoff, or how many flushed numbers, the bound is made of."""
    return bounded.bound() / (bounded.arithmetic.unit or bounded.arithmetic.tiny)


ROUNDINGS = {np.sqrt: 2, **dict.fromkeys([np.tanh, special.expit, special.erfc], 16)}
ROUNDINGS |= dict.fromkeys([np.exp, np.expm1, np.log, np.log1p], 8)


@pytest.mark.parametrize("ufunc", ROUNDINGS, ids=name_of)
def test_a_function_costs_as_many_roundings_as_the_table_says(ufunc: np.ufunc) -> None:
    y = ufunc(Bounded([0.3, 1.7], arithmetic=ROUNDS))
    # Here and below, 1e-15 and 1e-14: the same float64 formula, its terms taken in another order.
    np.testing.assert_allclose(counted(y), ROUNDINGS[ufunc] * np.abs(y.value), rtol=1e-15)


def test_an_operation_costs_one_rounding_and_a_mask_or_a_zero_none() -> None:
    a, b, mask = Bounded([3.0, 0.0], arithmetic=ROUNDS), Bounded([2.0, 4.0], arithmetic=ROUNDS), np.array([True, False])
    for result in (a + b, a - b, a * b, a / b, b * np.float32([2, 2])):
        np.testing.assert_array_equal(counted(result), np.abs(result.value))
    np.testing.assert_array_equal(counted(mask * b), [0, 0])
    np.testing.assert_array_equal(counted(b * mask), [0, 0])
    a, b = Bounded(a.value, arithmetic=FLUSHES), Bounded(b.value, arithmetic=FLUSHES)
    for result in (a * b, a / b, a + a):
        np.testing.assert_array_equal(counted(result), [1, 0])


def interval(function: Function, *operands: Bounded) -> np.ndarray:
    """How far a monotone function moves when its operands take the ends of their intervals."""
    centre = function(*(operand.value for operand in operands))
    corners = itertools.product(*((each.value - each.bound(), each.value + each.bound()) for each in operands))
    return np.max([np.abs(function(*corner) - centre) for corner in corners], axis=0)


@pytest.mark.parametrize("ufunc", [u for u in UNARY if u not in (np.square, np.sign, np.tanh)], ids=name_of)
def test_an_inherited_error_is_what_the_ends_of_the_interval_give(ufunc: np.ufunc) -> None:
    a = Bounded([0.5, 1.0, 2.0], [0.25, 1e-6, 1.5], EXACT)
    bound, moved = ufunc(a).bound(), interval(ufunc, a)
    if ufunc in (special.expit, special.erfc):  # the largest slope in the interval, times its half width
        slope = {special.expit: lambda x: special.expit(x) * special.expit(-x)}
        steepest = slope.get(ufunc, lambda x: 2 / np.sqrt(np.pi) * np.exp(-(x**2)))(a.value - a.bound())
        assert np.all(bound >= moved)
        np.testing.assert_allclose(bound, a.bound() * steepest, rtol=1e-14)
    else:
        # a difference of two numbers of that size, known to a part in 1e16, is 1e-6: 1e-9 is left
        np.testing.assert_allclose(bound, moved, rtol=1e-9)


def test_the_slope_of_tanh_is_taken_where_it_is_largest() -> None:
    a = Bounded([0.5, 1.0, -2.0, 0.1], [0.25, 1e-6, 1.5, 0.2], EXACT)
    # the second slope is taken 1e-6 nearer to 0 than here, which moves it by 2 tanh(1) 1e-6 = 1.5e-6
    np.testing.assert_allclose(np.tanh(a).bound(), a.bound() / np.cosh([0.25, 1.0, 0.5, 0.0]) ** 2, rtol=1e-5)
    assert np.all(np.tanh(a).bound() >= interval(np.tanh, a))


@pytest.mark.parametrize("ufunc", BINARY, ids=name_of)
def test_two_inherited_errors_are_what_the_ends_of_both_intervals_give(ufunc: np.ufunc) -> None:
    a, b = Bounded([3.0, 1.0, 4.0], [0.5, 0.1, 0.0], EXACT), Bounded([2.0, 4.0, 1.0], [0.25, 0.5, 0.5], EXACT)
    bound = ufunc(a, b).bound()
    if ufunc in (np.maximum, np.minimum, np.fmax):  # the larger error of the two, whichever is chosen
        np.testing.assert_array_equal(bound, [0.5, 0.5, 0.5])
        np.testing.assert_array_equal(ufunc(b, a).bound(), [0.5, 0.5, 0.5])
        assert np.all(bound >= interval(ufunc, a, b))
    else:
        np.testing.assert_allclose(bound, interval(ufunc, a, b), rtol=1e-14)


@pytest.mark.parametrize("numerator", [0.0, 3.0])
def test_a_divisor_that_may_be_zero_allows_anything(numerator: float) -> None:
    for divisor in (0.5, 0.25, 0.0):
        quotient = Bounded([numerator], arithmetic=EXACT) / Bounded([divisor], [0.5], EXACT)
        np.testing.assert_array_equal(quotient.bound(), [np.inf])


def test_a_logarithm_of_what_may_be_zero_may_be_anything() -> None:
    a = Bounded([0.5, 0.25, 0.0], [0.5, 0.5, 0.5], EXACT)
    np.testing.assert_array_equal(np.log(a).bound(), [np.inf] * 3)
    np.testing.assert_array_equal(np.log1p(a - 1).bound(), [np.inf] * 3)


def test_a_root_of_what_may_be_zero_moves_by_the_root() -> None:
    np.testing.assert_allclose(np.sqrt(Bounded([0.25, 0.0], [1.0, 1.0], EXACT)).bound(), np.sqrt([1.25, 1.0]))


def test_a_sign_is_unsure_where_the_error_reaches_zero() -> None:
    a = Bounded([1.0, 1.0, 0.0, 1.0, -1.0], [0.5, 1.0, 0.0, 2.0, 2.0])
    np.testing.assert_array_equal(np.sign(a).bound(), [0, 2, 0, 2, 2])


def test_a_maximum_has_the_largest_error_of_its_own_row() -> None:
    a = Bounded([[1.0, 2.0], [3.0, 4.0]], [[0.1, 0.2], [0.7, 0.3]])
    np.testing.assert_array_equal(np.max(a, axis=-1).bound(), [0.2, 0.7])
    np.testing.assert_array_equal(np.max(a, axis=0).bound(), [0.7, 0.3])
    assert np.max(a).bound() == 0.7


def test_an_unsure_choice_reaches_the_other_value_and_the_larger_error() -> None:
    unsure = Bounded([0.0], [1.0]) > 0
    small, large = Bounded([5.0], [0.1]), Bounded([2.0], [0.4])
    for a, b in ((small, large), (large, small)):
        assert np.where(unsure, a, b).bound() == 0.4 + 3.0


def test_another_rounding_adds_a_unit_of_what_is_rounded() -> None:
    a, of = Bounded([2.0, 3.0], [ROUNDS.unit, 0.0], ROUNDS), Bounded([-10.0, 4.0])
    more = a.rounded(3, of)
    np.testing.assert_array_equal(more.value, a.value)
    np.testing.assert_array_equal(counted(more), [1 + 30, 12])
    assert more.arithmetic is ROUNDS


def arithmetic_of(function: Function) -> Any:
    result = function(Bounded(np.abs(normal(1)) + 1, np.full(SHAPE, 1e-9), FLOAT64))
    return result.arithmetic if isinstance(result, Bounded) else FLOAT64  # a comparison, an argmax, a shape


@pytest.mark.parametrize(
    "function",
    [
        *UNARY,
        *(lambda a, f=f: f(a, a) for f in BINARY),
        *MOVES,
        *(f for each in FUNCTIONS.values() for f in each),
        lambda a: a @ a.T,
        lambda a: np.add.reduceat(a, [0, 3]),
        lambda a: a.rounded(1, a),
        lambda a: a.astype("float32"),
    ],
)
def test_a_result_is_judged_in_the_arithmetic_of_its_operands(function: Function) -> None:
    assert arithmetic_of(function) is FLOAT64


def test_infinities_and_nan_pass_without_a_warning() -> None:
    """NumPy warns of infinity - infinity; here they are values like others, and warnings are errors."""
    a = Bounded([np.inf, -np.inf], [1.0, 1.0])
    assert np.isnan(np.sum(a).value)
    assert np.isnan((a - a).value).all()
    np.testing.assert_array_equal(a > Bounded([np.inf, -np.inf], [1.0, 1.0]), [False, False])


def test_a_padding_with_anything_but_a_constant_is_refused() -> None:
    with pytest.raises(ValueError, match="edge"):
        np.pad(Bounded(normal(1)), 1, "edge")


# -- long sums ---------------------------------------------------------------------------------------------------------

TERMS: dict[str, Function] = {
    "normal": lambda n: rng(n).standard_normal(n),
    "positive": lambda n: rng(n).uniform(0, 1, n),
    "skewed": lambda n: rng(n).lognormal(0, 4, n),
    "cancelling": lambda n: np.concatenate([t := rng(n).standard_normal(n // 2) * 1e4, -t[::-1] * (1 + 1e-6)]),
}
ORDERS: dict[str, Function] = {
    "numpy": np.sum,
    "one after another": lambda a: np.cumsum(a, dtype=a.dtype)[-1],
    "backwards": lambda a: np.cumsum(a[::-1], dtype=a.dtype)[-1],
    "smallest first": lambda a: np.cumsum(a[np.argsort(np.abs(a))], dtype=a.dtype)[-1],
    "eight lanes": lambda a: np.sum(np.cumsum(a.reshape(-1, 8), axis=0, dtype=a.dtype)[-1]),
    "blocks": lambda a: np.sum(np.cumsum(a.reshape(8, -1), axis=1, dtype=a.dtype)[:, -1]),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("n", [8, 784, 60_000])
def test_a_sum_in_any_usual_order(terms: str, order: str, n: int) -> None:
    a = TERMS[terms](n).astype(np.float32)
    assert not outside(ORDERS[order](a), np.sum(Bounded(a))).any()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("n", [16, 104])
def test_a_short_sum_of_the_worst_terms(order: str, n: int) -> None:
    """Up to a hundred terms the bound holds for every order and all terms: here each addition rounds the same way."""
    a = np.full(n, 1 + 2.0**-23, np.float32)
    assert not outside(ORDERS[order](a), np.sum(Bounded(a))).any()


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: a + b,
        lambda a, b: a - -b,
        lambda a, b: (a * 0.5) * (b / b),
        lambda a, b: a / (b * 4 / b),
        lambda a, b: np.sum(np.stack([a, b]), axis=0),
        lambda a, b: np.mean(np.stack([a, b]), axis=0),
        lambda a, b: np.stack([a, b]).T @ np.ones((2, 1), np.float32),
    ],
    ids=["add", "subtract", "multiply", "divide", "sum", "mean", "matmul"],
)
def test_a_subnormal_result_may_be_flushed_to_zero(function: Function) -> None:
    """TensorFlow does so, on CPUs: a reduce_sum of these two is 0."""
    a, b = np.float32([1.5 * 2.0**-126]), np.float32([-(2.0**-126)])
    plain, bounded = both(function, a, b)
    assert 0 < np.abs(plain) < FLOAT32.tiny
    assert not outside(np.zeros_like(plain), bounded).any()


def spread(n: int) -> np.ndarray:
    """n values that differ in their first bits, so none is close to another."""
    steps = np.arange(n)
    return np.ldexp(0.5 + (steps % 512) * 2.0**-10, steps // 512)


def in_groups(n: int, m: int) -> np.ndarray:
    """n values, m of each kind. Every second one is off in its 23rd bit: so little does not count."""
    return np.repeat(spread(n // m), m) * (1 + 2.0**-23 * (np.arange(n) % 2))


@pytest.mark.parametrize(("n", "sampled"), [(4096, 1), (8192, 2)])
def test_equal_terms_err_alike(n: int, sampled: int) -> None:
    """r is the sum of m^2, where m terms are equal; a sum costs 16 + 8 sqrt r roundings, a product 16 + 2 sqrt r."""
    half, quarter = n // 2, n // 4
    mixed, close = np.empty(n), np.empty(n)
    mixed[:half], mixed[half:] = spread(half), in_groups(half, 16) * 2.0**20
    close[quarter:], close[:quarter] = spread(n - quarter), 0.0
    near = n // 16  # so close that partial sums cannot tell them apart, and more than 1/64 of all
    close[:near] = (0.5 + np.arange(near) % 128 * 2.0**-22) * 2.0**30
    few = n // 64  # two clusters of no more than 1/64 each
    clusters = spread(n)
    for start in (0, few):
        clusters[start : start + few] = (0.5 + np.arange(few) * 2.0**-22) * 2.0 ** (30 + start)
    order = rng(n).permutation(n) if sampled == 1 else np.arange(n)
    rows = {
        "different": (spread(n), n),
        "equal": (np.full(n, 3.0), n**2),
        "in groups": (in_groups(n, 16), 16 * n),
        "mixed": (mixed, half + 16 * half),
        "close": (close, max(n - quarter + near, near**2)),
        "not close enough": (clusters, n),
        "zeros": (np.zeros(n), 0),
    }
    terms = np.stack([row[order] for row, _ in rows.values()])
    r = np.array([expected for _, expected in rows.values()])
    np.testing.assert_array_equal(budget._alike(terms), r)
    a = Bounded(terms, arithmetic=ROUNDS)
    size = terms.sum(axis=-1)
    np.testing.assert_allclose(counted(np.sum(a, axis=-1)), np.minimum(n, 16 + 8 * np.sqrt(r)) * size, rtol=1e-14)
    product = a @ np.ones((n, 1))
    np.testing.assert_allclose(counted(product)[:, 0], np.minimum(n + 1, 16 + 2 * np.sqrt(r)) * size, rtol=1e-14)
    worst = np.minimum(n, 16 + 2 * np.sqrt(r))
    assert [budget.roundings(row) for row in terms] == pytest.approx(worst, rel=1e-14)
    assert budget.roundings(terms) == pytest.approx(worst.max(), rel=1e-14)


@pytest.mark.parametrize("flip", [False, True])
def test_the_terms_of_a_product_are_equal_where_both_factors_are(flip: bool) -> None:
    """The smaller operand settles it, unless more of its values are equal than would be by chance; then both count."""
    n = 256
    different, pairs, groups = spread(n), in_groups(n, 2), in_groups(n, 16)
    triples = np.append(in_groups(n - 1, 3), 9.0)
    r_triples = 3 * (n - 1) + 1

    def r(x: list[np.ndarray], y: list[np.ndarray]) -> list[list[float]]:
        left, right = np.stack([np.stack(x)] * 2), np.stack([np.stack(y, axis=-1)] * 2)  # a batch of two
        if flip:
            left, right = right.swapaxes(-1, -2), left.swapaxes(-1, -2)
        result = np.broadcast_to(budget._alike_products(left, right), (2, left.shape[-2], right.shape[-1]))
        np.testing.assert_array_equal(result[0], result[1])
        return (result[0].T if flip else result[0]).tolist()

    three = [different, groups, triples]
    assert r([different], three) == [[n] * 3]
    assert r([pairs], three) == [[2 * n] * 3]  # as few could be chance
    assert r([triples], three) == [[n, r_triples, r_triples]]
    assert r([groups], three) == [[n, 16 * n, r_triples]]
    assert r([different, groups], three) == [[n] * 3, [n, 16 * n, r_triples]]
    assert r([pairs], [different]) == [[2 * n]] if flip else [[n]]  # of two of the same size, the second is taken


def test_short_sums_and_products_cost_a_rounding_for_each_term() -> None:
    a = rng(9).standard_normal((2, 3, 5))
    b = rng(10).standard_normal((5, 4))
    bounded = Bounded(a, arithmetic=ROUNDS)
    np.testing.assert_allclose(counted(bounded @ b), 6 * (np.abs(a) @ np.abs(b)), rtol=1e-14)
    for axis, n in ((-1, 5), (0, 2), ((0, 2), 10), (None, 30)):
        size = np.abs(a).sum(axis=axis)
        np.testing.assert_allclose(counted(np.sum(bounded, axis=axis)), np.minimum(n, 16 + 8 * np.sqrt(n)) * size)
        mean = (np.minimum(n, 16 + 8 * np.sqrt(n)) * size + np.abs(a.sum(axis=axis))) / n  # and one for the division
        np.testing.assert_allclose(counted(np.mean(bounded, axis=axis)), mean)


def test_each_term_may_be_flushed_to_zero_unless_all_are_zero() -> None:
    a = np.float64([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [1.0, -1.0, 0.0], [1.0, 0.0, 0.0]])
    bounded = Bounded(a, arithmetic=FLUSHES)
    np.testing.assert_array_equal(counted(np.sum(bounded, axis=1)), [3, 0, 3, 3])
    np.testing.assert_array_equal(counted(bounded @ np.ones((3, 1)))[:, 0], [3, 0, 3, 3])
    np.testing.assert_array_equal(counted(np.add.reduceat(bounded.T, [0, 1])), [[1, 0, 1, 1], [2, 0, 2, 0]])


def test_a_product_inherits_the_errors_of_both_sides_and_of_their_product() -> None:
    x, ex = np.float64([[1.0, -2.0]]), np.float64([[0.5, 0.25]])
    y, ey = np.float64([[3.0], [-4.0]]), np.float64([[0.125], [2.0]])
    a, b = Bounded(x, ex, EXACT), Bounded(y, ey, EXACT)
    assert (a @ b).bound().item() == 0.5 * 3.125 + 0.25 * 6 + 0.125 + 4
    assert (a @ y).bound().item() == 0.5 * 3 + 0.25 * 4
    assert (x @ b).bound().item() == 0.125 + 4


def test_a_sum_of_slices() -> None:
    a = rng(11).standard_normal((790, 2))
    starts, n = [0, 1, 6], np.array([[1], [5], [784]])
    size = np.add.reduceat(np.abs(a), starts)
    for sums in (lambda v: np.add.reduceat(v, starts), lambda v: np.add.reduceat(v, starts, axis=0)):
        bounded = sums(Bounded(a, arithmetic=ROUNDS))
        np.testing.assert_array_equal(bounded.value, sums(a))
        np.testing.assert_allclose(counted(bounded), np.minimum(n, 16 + 8 * np.sqrt(n)) * size, rtol=1e-14)
        errors = sums(Bounded(a, np.abs(a), EXACT)).bound()
        np.testing.assert_allclose(errors, size, rtol=1e-14)


# -- comparisons -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ufunc", COMPARISONS, ids=name_of)
@pytest.mark.parametrize("kind", INPUTS)
def test_a_comparison_of_exact_values_is_exact(ufunc: np.ufunc, kind: str) -> None:
    a = INPUTS[kind](1)
    for other in (INPUTS[kind](2), a, np.nextafter(a, np.float32(np.inf))):
        outcome = ufunc(Bounded(a), Bounded(other))
        assert isinstance(outcome, np.ndarray)
        np.testing.assert_array_equal(outcome, ufunc(a, other))


@pytest.mark.parametrize("ufunc", COMPARISONS, ids=name_of)
def test_a_comparison_of_inexact_values_knows_where_it_is_unsure(ufunc: np.ufunc) -> None:
    a, b = np.float32([1, 1, 1, 2]), np.float32([1, np.nextafter(np.float32(1), np.float32(2)), 2, 1])
    outcome = ufunc(Bounded(a) * 1, Bounded(b) * 1)
    assert isinstance(outcome, Condition)
    np.testing.assert_array_equal(outcome.unsure, [True, True, False, False])
    np.testing.assert_array_equal(outcome.value, ufunc(a, b))


def test_two_intervals_that_touch_may_be_equal_and_exact_values_are_never_unsure() -> None:
    a, b = Bounded([1.0, 1.0, 1.0], [0.5, 0.0, 0.25]), Bounded([2.0, 1.0, 2.0], [0.5, 0.0, 0.5])
    np.testing.assert_array_equal((a < b).unsure, [True, False, False])
    assert isinstance(Bounded([5.0], [1.0]) > 0, np.ndarray)  # nobody doubts it


def test_both_answers_are_right_where_a_condition_is_unsure_and_only_there() -> None:
    near = Bounded(np.float32([0.0, 1.0, -1.0]), [1e-6, 1e-6, 1e-6])
    chosen = np.where(near > 0, Bounded(np.float32([5, 5, 5])), Bounded(np.float32([2, 2, 2])))
    for answer in (5, 2):
        assert outside(np.float32([answer, 5, 2]), chosen).sum() == 0
    np.testing.assert_array_equal(outside(np.float32([5.1, 2, 5]), chosen), [True, True, True])
    for masked in ((near > 0) * Bounded(np.float32([3, 3, 3])), Bounded(np.float32([3, 3, 3])) * (near > 0)):
        assert not outside(np.float32([3, 3, 0]), masked).any()
        assert not outside(np.float32([0, 3, 0]), masked).any()
        np.testing.assert_array_equal(outside(np.float32([4, 0, 3]), masked), [True, True, True])


@pytest.mark.parametrize("combine", [np.logical_and, np.logical_or])
def test_conditions_combine_with_each_other_and_with_plain_ones(combine: np.ufunc) -> None:
    near = Bounded(np.float32([0.0, 1.0]), [1e-6, 1e-6])
    for other in (near < 2, near > 0, np.array([True, True]), np.array([False, False])):
        outcome = combine(near > 0, other)
        np.testing.assert_array_equal(outcome.value, combine([False, True], getattr(other, "value", other)))
        assert outcome.unsure[0]
        assert not outcome.unsure[1]


def test_a_relu_behind_a_sum_that_cancels() -> None:
    """float32 and float64 disagree about the sign of the pre-activation, so both gradients are right."""
    a = normal(1)
    z, dy = np.float32(0.1) * a - a * np.float32(0.1), normal(2)
    assert_honest(lambda a, dy: Relu().backward(a * 0.1 - a / 10, None, dy), a, dy)
    assert z.shape == dy.shape


# -- compositions ------------------------------------------------------------------------------------------------------


def activations() -> Iterator[Any]:
    for name, cls in registry.entries("activation").items():
        for settings in cls.examples:
            yield pytest.param(cls(**settings), id=f"{name}-{settings}")


def losses() -> Iterator[Any]:
    for name, cls in registry.entries("loss").items():
        for settings in cls.examples:
            yield pytest.param(cls(**settings), id=f"{name}-{settings}")


def all_layers() -> Iterator[Any]:
    for name, cls in registry.entries("layer").items():
        for settings in cls.examples:
            yield pytest.param(lambda cls=cls, settings=settings: cls(**settings), id=f"{name}-{settings}")


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("activation", list(activations()))
def test_an_activation(activation: Any, kind: str) -> None:
    x, dy = INPUTS[kind](1), normal(2)
    assert_honest(activation.forward, x)
    assert_honest(lambda x, dy: activation.backward(x, activation.forward(x), dy), x, dy)
    y = activation.forward(x)
    assert_honest(activation.backward, x, y, dy)  # as the local pass does it: on given outputs
    assert_honest(lambda x: activation.forward(x * 0.7 + 0.1), x)


PREDICTIONS: dict[str, Function] = {
    "ordinary": lambda head: head(normal(3)),
    "saturated": lambda head: head(normal(3, 60)),
    "tiny": lambda head: head(normal(3)) * np.float32(1e-8),
    "sure": lambda head: np.round(head(normal(3))),
}


def labels_for(loss: Any, shape: tuple[int, ...]) -> np.ndarray:
    return probe.labels(shape[1:], shape[0], 0, loss.labels)


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("loss", list(losses()))
def test_a_loss_of_predictions(loss: Any, kind: str) -> None:
    p = PREDICTIONS[kind](registry.get("activation", loss.head).forward)
    y = labels_for(loss, p.shape)
    assert_honest(lambda p: loss.forward(y, p), p)
    assert_honest(lambda p: loss.backward(y, p), p)


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("loss", list(losses()))
def test_a_loss_of_logits(loss: Any, kind: str) -> None:
    z = INPUTS[kind](4)
    if not loss.uses(z):
        pytest.skip("this loss takes predictions only")
    y = labels_for(loss, z.shape)
    assert_honest(lambda z: loss.forward(y, z, z), z)
    assert_honest(lambda z: loss.backward(y, z, z), z)


@pytest.mark.parametrize("loss", list(losses()))
def test_the_bounds_of_a_loss_hold_for_a_float64_evaluation(loss: Any) -> None:
    if getattr(loss, "label_smoothing", 0):
        pytest.skip("labels are smoothed in float32, on both sides alike, and then taken as exact")
    head = registry.get("activation", loss.head).forward
    p = head(normal(3))
    y = labels_for(loss, p.shape)
    if y.dtype == np.float64:
        y = y.astype(np.float32).astype(np.float64)
    for what in (loss.forward, loss.backward):
        assert not outside(what(y, p.astype(np.float64)), what(y, Bounded(p))).any()


LAYER_INPUTS: dict[str, tuple[float, float]] = {"ordinary": (1, 0), "far from zero": (1, 100), "large": (1e6, 0)}


@pytest.mark.parametrize("kind", LAYER_INPUTS)
@pytest.mark.parametrize("make", list(all_layers()))
def test_a_layer(make: Callable[[], Layer], kind: str) -> None:
    scale, offset = LAYER_INPUTS[kind]
    layer, bounded = make(), make()
    shape = (6, *layer.example_shape)
    x = (rng(5).standard_normal(shape) * scale + offset).astype(np.float32)
    if layer.takes_indices:
        x = rng(5).integers(0, 2, shape)
    for one in (layer, bounded):
        one.name, one.dtype, one.input_shape = "it", "float32", (None, *layer.example_shape)
        one.build(one.input_shape)
    weights = probe.weights(layer.weights, 0)
    layer.weights = weights
    bounded.weights = {name: Bounded(weight) for name, weight in weights.items()}
    _, saved = layer.forward(x, training=True)
    _, saved_bounded = bounded.forward(x if layer.takes_indices else Bounded(x), training=True)
    assert not outside(saved.z, as_bounded(saved_bounded.z)).any()
    dz = rng(6).standard_normal(saved.z.shape).astype(np.float32)
    dx, gradients = layer.transform_backward(saved, dz)
    dx_bounded, bounds = bounded.transform_backward(saved_bounded, Bounded(dz))
    assert gradients.keys() == bounds.keys()
    if dx is not None:
        assert not outside(dx, dx_bounded).any()
    for name, value in gradients.items():
        assert value.dtype == np.float32
        assert not outside(value, as_bounded(bounds[name])).any(), name


def as_bounded(value: Any) -> Bounded:
    return value if isinstance(value, Bounded) else Bounded(value)


# -- and tight ---------------------------------------------------------------------------------------------------------


def seen(bounded: Bounded) -> np.ndarray:
    """For each element: whether a lone relative error of DETECTED is out of the budget of two honest evaluations."""
    return DETECTED * np.abs(bounded.value) > 2 * bounded.bound()


def weighty(value: np.ndarray) -> np.ndarray:
    """The elements that matter: at least a tenth of the root of the mean square."""
    return np.abs(value) >= 0.1 * np.sqrt(np.mean(value**2))


def looseness(plain: np.ndarray, bounded: Bounded) -> float:
    off = np.abs(plain - bounded.value)
    return float(np.median(bounded.bound()[off > 0] / off[off > 0])) if np.any(off) else 0.0


@pytest.mark.parametrize("n", [16, 784])
def test_a_lone_error_in_a_matrix_product_is_out_of_budget(n: int, record_property: Function) -> None:
    """A sum of n terms cancels to about 1/sqrt(n) of their magnitudes, so of 784 random terms a few are not seen."""
    a, b = rng(7).standard_normal((64, n)).astype(np.float32), rng(8).standard_normal((n, 50)).astype(np.float32)
    plain, bounded = both(np.matmul, a, b)
    record_property("bound / observed, median", looseness(plain, bounded))
    assert np.mean(seen(bounded)) > 0.85
    size = np.sqrt(np.mean(bounded.value**2))
    assert np.all(seen(bounded)[np.abs(bounded.value) >= 0.25 * size])


@pytest.mark.parametrize("activation", list(activations()))
def test_a_lone_error_in_an_activation_is_out_of_budget(activation: Any, record_property: Function) -> None:
    x, dy = normal(1), normal(2)
    for what, function in {
        "forward": activation.forward,
        "backward": lambda x: activation.backward(x, activation.forward(x), dy),
    }.items():
        plain, bounded = both(function, x)
        bounded = as_bounded(bounded)
        record_property(f"{what}: bound / observed, median", looseness(plain, bounded))
        assert np.mean(seen(bounded)[weighty(bounded.value)]) > 0.99
        assert looseness(plain, bounded) < 250


@pytest.mark.parametrize("loss", list(losses()))
def test_a_lone_error_in_a_loss_is_out_of_budget(loss: Any, record_property: Function) -> None:
    p = registry.get("activation", loss.head).forward(normal(3))
    y = labels_for(loss, p.shape)
    for what in ("forward", "backward"):
        plain, bounded = both(lambda p, what=what: getattr(loss, what)(y, p), p)
        record_property(f"{what}: bound / observed, median", looseness(plain, bounded))
        assert np.mean(seen(bounded)[weighty(bounded.value)]) > 0.99
