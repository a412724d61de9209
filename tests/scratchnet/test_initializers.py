"""Initializers over the whole registry: config, seeds, refusals, and Keras's own values."""

import functools
import itertools
import math

import numpy as np
import pytest

from scratchnet import initializers, philox, registry
from scratchnet.initializers import RandomInitializer

FAMILY = registry.entries("initializer")
CASES = [
    pytest.param(cls, dict(arguments), id=f"{name}-{arguments}")
    for name, cls in FAMILY.items()
    for arguments in cls.examples
]
RANDOM = [cls for cls in FAMILY.values() if issubclass(cls, RandomInitializer)]
SHAPES = ((), (1,), (7,), (5, 3), (28, 6), (3, 2, 5), (3, 3, 2, 4))
DTYPES = ("float32", "float64")
SEEDS = (0, 42, 10**9, 2**31 + 5)

# As derived in test_philox for a unit normal, plus one rounding a side for the product with the deviation.
NORMAL_ULPS = 9.5 + 1


def shapes_of(cls):
    if cls is initializers.Orthogonal:
        return [shape for shape in SHAPES if len(shape) >= 2]
    return [shape for shape in SHAPES if cls is not initializers.Identity or len(shape) == 2]


def draws_normals(initializer):
    return "Normal" in type(initializer).__name__ or "normal" in getattr(initializer, "distribution", "")


def assert_keras_values(answers, ours, make_theirs, shape, dtype):
    """make_theirs: makes Keras's initializer."""
    drawn, within = ours(shape, dtype), None
    if isinstance(ours, initializers.Orthogonal):
        within = float(np.linalg.norm(drawn) * apart_as_factors(ours, shape, dtype))
    expected = answers(lambda: np.asarray(make_theirs()(shape, dtype=dtype)), within=within)
    assert (drawn.shape, drawn.dtype) == (expected.shape, expected.dtype)
    if draws_normals(ours):
        mean = getattr(ours, "mean", 0.0)
        # the sum with the mean rounds once a side
        allowed = np.finfo(dtype).eps * (NORMAL_ULPS * np.abs(expected - mean) + np.abs(expected))
        assert np.all(np.abs(drawn - expected) <= allowed)
    elif isinstance(ours, initializers.Orthogonal):
        assert np.linalg.norm(drawn - expected) <= within
    else:
        assert np.array_equal(drawn, expected)


def apart_as_factors(ours, shape, dtype):
    """How far the Q of two QR factorizations of Keras's normals may be apart, relative to its norm, which is at least
    that of one column.

    To first order |dQ| <= sqrt 2 |dA| / (smallest singular value of A), in Frobenius norms (Sun 1995, Linear Algebra
    and its Applications 215). dA: the rounding of the normals, and on each side, for each of n reflections, four
    roundings of every element.
    """
    n = min(math.prod(shape[:-1]), shape[-1])
    a = philox.normal((math.prod(shape) // n, n), ours._drawn_seed, dtype).astype(np.float64)
    unit = float(np.finfo(dtype).eps)
    return math.sqrt(2) * unit * (NORMAL_ULPS + 2 * 4 * n) * np.linalg.norm(a) / np.linalg.svd(a, compute_uv=False)[-1]


def test_recorded_from_keras():
    """Keras 3.15.1 on TensorFlow 2.21.0; for machines without them."""
    drawn = initializers.GlorotUniform(seed=1)((2, 2))
    expected = [[0.9271029233932495, -0.09802794456481934], [0.24566245079040527, -0.263080894947052]]
    assert drawn.tolist() == expected


@pytest.mark.parametrize(("cls", "arguments"), CASES)
def test_config_round_trip_gives_the_same_values(cls, arguments):
    first = cls(**arguments)
    second = registry.deserialize("initializer", registry.serialize(first))
    assert type(second) is cls
    assert second.get_config() == first.get_config()
    assert np.array_equal(first((4, 3)), second((4, 3)))


@pytest.mark.parametrize("cls", RANDOM)
def test_unseeded_draws_once_and_reports_none(cls):
    one, other = cls(), cls()
    assert one.get_config()["seed"] is None
    assert np.array_equal(one((4, 3)), one((4, 3)))
    assert not np.array_equal(one((4, 3)), other((4, 3)))


@pytest.mark.parametrize("seed", [1.5, "1", {"class_name": "SeedGenerator", "config": {"seed": 1}}])
@pytest.mark.parametrize("cls", RANDOM)
def test_seeds_that_are_no_integers_are_refused(cls, seed):
    with pytest.raises(ValueError, match=rf"{cls.__name__}: expected seed"):
        cls(seed=seed)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: initializers.VarianceScaling(scale=0.0), "scale > 0; received 0.0"),
        (lambda: initializers.VarianceScaling(mode="fan"), "fan_in, fan_out, fan_avg; received 'fan'"),
        (lambda: initializers.Identity.from_config({"gain": 0.3}), "only gain=1.0"),
        (lambda: initializers.VarianceScaling(distribution="cauchy"), "untruncated_normal; received 'cauchy'"),
        (lambda: initializers.Constant([1.0]), r"a number; received \[1.0\]"),
        (lambda: initializers.Identity()((2, 3, 4)), r"two axes; received \(2, 3, 4\)"),
        (lambda: initializers.Orthogonal()((4,)), r"at least two axes; received \(4,\)"),
        (lambda: initializers.GlorotUniform.from_config({"seed": 1, "input_axes": [0]}), "input_axes"),
    ],
)
def test_refusals_say_what_came(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("shape", "expected"), [((), (1, 1)), ((7,), (7, 7)), ((5, 3), (5, 3)), ((2, 3, 4, 8), (24, 48))]
)
def test_fans(shape, expected):
    assert initializers.fans(shape) == expected


@pytest.mark.parametrize(
    ("cls", "variance"),
    [
        (initializers.GlorotUniform, 2 / (200 + 300)),
        (initializers.GlorotNormal, 2 / (200 + 300)),
        (initializers.HeUniform, 2 / 200),
        (initializers.HeNormal, 2 / 200),
        (initializers.LecunUniform, 1 / 200),
        (initializers.LecunNormal, 1 / 200),
    ],
)
def test_variance_is_the_papers(cls, variance):
    """Allowed: 5 deviations of a sample variance, which are sqrt((kurtosis - 1) / n) relative; kurtosis < 3 here."""
    drawn = cls(seed=1)((200, 300), "float64")
    assert np.mean(drawn**2) == pytest.approx(variance, rel=5 * math.sqrt(2 / drawn.size))


def test_every_name_is_keras_name_for_the_same_class(answers, keras):
    def names():
        from keras.src.initializers import ALL_OBJECTS_DICT

        return {name: theirs.__name__ for name, theirs in sorted(ALL_OBJECTS_DICT.items())}  # made from a set

    of_classes = answers(names)
    for name, theirs in of_classes.items():
        if theirs in FAMILY:
            assert registry.find("initializer", name).__name__ == theirs
    assert set(FAMILY) <= set(of_classes)


@pytest.mark.parametrize(("cls", "arguments"), CASES)
def test_config_is_keras_config(answers, keras, cls, arguments):
    def theirs(given):
        return getattr(keras.initializers, cls.__name__)(**given)

    for given in ({}, arguments):
        expected = answers(lambda given=given: theirs(given).get_config())
        assert cls(**given).get_config() == expected
        assert cls.from_config(expected).get_config() == expected
    written = answers(lambda: keras.initializers.serialize(theirs(arguments)))
    assert registry.serialize(registry.deserialize("initializer", written)) == written


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("cls", "arguments"), CASES)
def test_values_are_keras_values(answers, keras, cls, arguments, dtype):
    def theirs():
        return getattr(keras.initializers, cls.__name__)(**arguments)

    for shape in shapes_of(cls):
        assert_keras_values(answers, cls(**arguments), theirs, shape, dtype)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("cls", RANDOM)
def test_values_are_keras_values_for_any_seed(answers, keras, cls, seed):
    def theirs():
        return getattr(keras.initializers, cls.__name__)(seed=seed)

    for dtype in DTYPES:
        assert_keras_values(answers, cls(seed=seed), theirs, (12, 7), dtype)


def ask_live(ask, within=None):
    """`answers` where nothing is recorded."""
    return ask()


@pytest.mark.tensorflow
@pytest.mark.parametrize("cls", RANDOM)
def test_large_values_are_keras_values(keras, cls):
    for seed, dtype, shape in itertools.product(SEEDS, DTYPES, ((784, 16), (64, 33), (3, 3, 4, 8))):
        make = functools.partial(getattr(keras.initializers, cls.__name__), seed=seed)
        assert_keras_values(ask_live, cls(seed=seed), make, shape, dtype)


@pytest.mark.parametrize("shape", [(4, 4), (7, 3), (3, 7), (2, 3, 4)])
def test_columns_or_rows_are_orthonormal(shape):
    """Householder's reflections leave Q orthogonal to some n roundings (Higham, section 19.3)."""
    matrix = initializers.Orthogonal(gain=0.5, seed=1)(shape, "float64").reshape(-1, shape[-1])
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    assert np.allclose(tall.T @ tall, 0.25 * np.eye(tall.shape[1]), rtol=0, atol=100 * np.finfo(float).eps)
