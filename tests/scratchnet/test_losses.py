"""Losses over the registry: finite differences, Keras in float64, both ways to a cross-entropy, known differences."""

import functools
from dataclasses import dataclass

import numpy as np
import pytest

from scratchnet import activations, gradcheck, losses
from scratchnet.losses import EPSILON, REDUCTIONS, CategoricalCrossentropy, SparseCategoricalCrossentropy

BATCHES = ((6,), (3, 4))
CLASSES = 5


@dataclass(frozen=True)
class Problem:
    """Targets and what a network's last layer made for them."""

    y: np.ndarray
    p: np.ndarray
    z: np.ndarray


def problem(loss, rng, batch=(6,), head=None):
    """Random targets that the loss is made for, pre-activations and predictions: (*batch, CLASSES)."""
    z = rng.standard_normal((*batch, CLASSES))
    p = activations.get(head or loss.head).forward(z)
    if isinstance(loss, SparseCategoricalCrossentropy):
        return Problem(rng.integers(0, CLASSES, batch), p, z)
    y = rng.random((*batch, CLASSES))
    if isinstance(loss, CategoricalCrossentropy):
        y /= y.sum(axis=-1, keepdims=True)
    return Problem(y, p, z)


def predictions(loss, given):
    return given.z if getattr(loss, "from_logits", False) else given.p


def crosses(any_loss):
    return issubclass(any_loss.func, losses.Crossentropy)


def twin(keras, any_loss, **arguments):
    return getattr(keras.losses, any_loss.func.__name__)(**any_loss.keywords, **arguments)


def checked_by_predictions(loss, y, p, weight, rng):
    def f(at):
        return np.asarray(loss.forward(y, at["p"], None, weight))

    return gradcheck.directional(f, lambda dy: {"p": dy * loss.backward(y, p, None, weight)}, {"p": p}, rng)


def checked_by_logits(loss, given, rng, weight=None):
    def f(at):
        return np.asarray(loss.forward(given.y, given.p, at["z"], weight))

    def backward(dy):
        return {"z": dy * loss.backward(given.y, given.p, given.z, weight)}

    return gradcheck.directional(f, backward, {"z": given.z}, rng)


@pytest.mark.parametrize("batch", BATCHES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_finite_differences(any_loss, batch, reduction, weighted, rng, assert_right):
    loss = any_loss(reduction=reduction)
    given = problem(loss, rng, batch)
    weight = rng.random(batch) + 0.5 if weighted else None
    assert_right(checked_by_predictions(loss, given.y, predictions(loss, given), weight, rng))
    if crosses(any_loss):
        assert_right(checked_by_logits(loss, given, rng, weight))


def test_finite_differences_of_rows_that_do_not_sum_to_one(any_loss, rng, assert_right):
    loss = any_loss()
    given = problem(loss, rng)
    y = given.y if given.y.ndim == 1 else rng.random(given.y.shape)  # integer labels have no sum
    given = Problem(y, given.p * rng.uniform(0.2, 0.9, (6, 1)), given.z)
    assert_right(checked_by_predictions(loss, given.y, predictions(loss, given), None, rng))
    if crosses(any_loss):
        assert_right(checked_by_logits(loss, given, rng))


@pytest.mark.parametrize("batch", BATCHES, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_keras_as_a_function_of_arrays(any_loss, batch, weighted, keras64, answers, gradient, rng, assert_equal64):
    def theirs(reduction, y, p, weight):
        of_keras = twin(keras64, any_loss, reduction=reduction)
        return gradient(lambda p: of_keras(y, p, sample_weight=weight), p)

    for reduction in REDUCTIONS:
        loss = any_loss(reduction=reduction)
        given = problem(loss, rng, batch)
        weight = rng.random(batch) if weighted else None
        p = predictions(loss, given)
        value, (dp,) = answers(functools.partial(theirs, reduction, given.y, p, weight))
        assert_equal64(loss.forward(given.y, p, None, weight), value, reduction)
        assert_equal64(loss.backward(given.y, p, None, weight), dp, reduction)


def test_keras_at_saturated_and_equal_values(any_loss, keras64, answers, gradient, assert_equal64):
    """The bounds of the clip, one step beyond them, certainty, and predictions that are the targets."""
    loss = any_loss()
    high = 1 - EPSILON
    p = np.array(
        [
            [0.0, 1.0, 0.0, 0.0],
            [1.0, 0.0, 0.0, 0.0],
            [EPSILON, high, 0.0, 0.0],
            [np.nextafter(EPSILON, 0), np.nextafter(high, 1), 0.0, 0.0],
            [np.nextafter(EPSILON, 1), np.nextafter(high, 0), 0.0, 0.0],
            [0.25, 0.25, 0.25, 0.25],
            [-0.25, 1.25, 0.5, 0.5],
        ]
    )
    targets = [np.eye(4)[row] for row in (np.arange(7) % 4, np.zeros(7, int), np.ones(7, int))]
    if isinstance(loss, SparseCategoricalCrossentropy):
        targets = [np.argmax(y, axis=-1) for y in targets]

    def theirs(y, p):
        return gradient(lambda p: twin(keras64, any_loss)(y, p), p)

    for y in targets:
        for row in range(len(p)):  # one by one, so that no large neighbour hides a mistake
            rows = slice(row, row + 1)
            value, (dp,) = answers(functools.partial(theirs, y[rows], p[rows]))
            # the logarithm of a number near 1 is known to that number's rounding only
            assert loss.forward(y[rows], p[rows]) == pytest.approx(value, rel=1e-11, abs=np.finfo(np.float64).eps)
            assert_equal64(loss.backward(y[rows], p[rows]), dp, p[row])


@pytest.fixture
def by_pre_activations(keras64, gradient):
    """f(makes the loss of Keras, activation, y, z): the loss of a model that ends in the activation, and its gradient
    by z."""

    def run(make_loss, head, y, z):
        loss, model = make_loss(), keras64.Sequential([keras64.layers.Activation(head)])
        return gradient(lambda z: loss(y, model(z)), z)

    return run


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_keras_behind_an_activation(any_loss, head, keras64, answers, by_pre_activations, rng, assert_equal64):
    """Every cross-entropy takes the cached pre-activations of either: binary a softmax's, categorical a sigmoid's."""
    if any_loss.keywords.get("from_logits"):
        pytest.skip("Keras warns; see the next test")
    loss = any_loss()
    given = problem(loss, rng, head=head)
    extreme = np.array([[40.0, 0.0, -40.0, 3.0, 200.0]])  # the clip would make constants of these
    for z in (given.z, np.repeat(extreme, 6, axis=0)):
        p = activations.get(head).forward(z)
        value, (dz,) = answers(lambda z=z: by_pre_activations(lambda: twin(keras64, any_loss), head, given.y, z))
        if loss.uses(z):
            ours = loss.backward(given.y, p, z)
        else:
            ours = activations.get(head).backward(z, p, loss.backward(given.y, p, z))
        assert_equal64(loss.forward(given.y, p, z), value)
        assert_equal64(ours, dz)


@pytest.mark.parametrize("name", ["BinaryCrossentropy", "CategoricalCrossentropy", "SparseCategoricalCrossentropy"])
def test_cached_logits_win_over_from_logits(name, keras64, answers, by_pre_activations, rng, assert_equal64):
    loss = getattr(losses, name)(from_logits=True)
    given = problem(loss, rng)

    def theirs():
        of_keras = functools.partial(getattr(keras64.losses, name), from_logits=True)
        with pytest.warns(UserWarning, match="from_logits"):
            return by_pre_activations(of_keras, loss.head, given.y, given.z)

    value, (dz,) = answers(theirs)
    assert_equal64(loss.forward(given.y, given.p, given.z), value)
    assert_equal64(loss.backward(given.y, given.p, given.z), dz)


def test_witnesses_of_the_two_ways():
    """Measured in Keras 3.15.1: the wrong class has the logit 40."""
    y, z = np.array([[0.0, 1.0, 0.0]]), np.array([[40.0, 0.0, 0.0]])
    p, loss = activations.get("softmax").forward(z), CategoricalCrossentropy()
    assert loss.forward(y, p, z) == pytest.approx(40, rel=1e-15)
    assert loss.forward(y, p) == pytest.approx(-np.log(EPSILON), rel=1e-15)  # 16.118
    assert np.allclose(loss.backward(y, p, z), [[1, -1, 0]], rtol=0, atol=1e-15)
    assert not loss.backward(y, p).any()


@pytest.mark.parametrize(
    "row", [[0.0, 0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0, 0.0], [0.2, 0.1, 0.0, 0.0, 0.3]], ids=str
)
def test_categorical_targets_that_do_not_sum_to_one(
    row, keras64, answers, by_pre_activations, rng, assert_equal64, assert_right
):
    """TensorFlow's gradient is softmax - y whatever the sum of y is. Ours is the derivative, as differences show."""
    loss = CategoricalCrossentropy()
    given = problem(loss, rng)
    given = Problem(np.tile(row, (6, 1)), given.p, given.z)
    value, (dz,) = answers(
        lambda: by_pre_activations(lambda: keras64.losses.CategoricalCrossentropy(), "softmax", given.y, given.z)
    )
    ours = loss.backward(given.y, given.p, given.z)
    assert_equal64(loss.forward(given.y, given.p, given.z), value)
    assert_equal64((given.p - given.y) / 6, dz)
    assert_equal64((given.p * np.sum(row) - given.y) / 6, ours)
    assert np.max(np.abs(ours - dz)) > 1e-3
    assert_right(checked_by_logits(loss, given, rng))
    assert {check.verdict for check in with_gradient(loss, given, dz, rng)} == {"wrong"}


def with_gradient(loss, given, dz, rng):
    """What finite differences say about somebody else's gradient."""
    f = lambda at: np.asarray(loss.forward(given.y, given.p, at["z"]))  # noqa: E731
    return gradcheck.directional(f, lambda dy: {"z": dy * dz}, {"z": given.z}, rng)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weighted", [False, True])
def test_dtypes_are_kept(any_loss, dtype, weighted, rng):
    for reduction in REDUCTIONS:
        loss = any_loss(reduction=reduction)
        given = problem(loss, rng)
        p, z = given.p.astype(dtype), given.z.astype(dtype)
        weight = rng.random(6) if weighted else None
        for logits in (None, z):
            assert loss.forward(given.y, p, logits, weight).dtype == dtype
            assert np.shape(loss.forward(given.y, p, logits, weight)) == ()
            assert loss.backward(given.y, p, logits, weight).dtype == dtype
            assert loss.backward(given.y, p, logits, weight).shape == p.shape


def test_float32_clips_where_keras_does(keras, answers):
    """The bounds are rounded to float32 first: 0.9999999 is 1 - 2^-23."""
    p = np.array([[0.0], [1.0], [1e-7], [1 - 1e-7]], np.float32)
    for y in (np.zeros_like(p), np.ones_like(p)):
        theirs = answers(lambda y=y: keras.losses.BinaryCrossentropy(reduction="none")(y, p).numpy())
        ours = losses.BinaryCrossentropy().per_sample(y, p)
        assert np.allclose(ours, theirs, rtol=2 * np.finfo(np.float32).eps, atol=0)


def test_last_axis_of_one_may_be_missing(rng):
    for loss in (losses.MeanSquaredError(), losses.BinaryCrossentropy()):
        y, p = rng.random(6), rng.random((6, 1))
        assert loss.forward(y, p) == loss.forward(y[:, np.newaxis], p)
        assert np.array_equal(loss.backward(y, p), loss.backward(y[:, np.newaxis], p))


def test_mistaken_shapes_are_refused(any_loss, rng):
    loss = any_loss()
    given = problem(loss, rng)
    with pytest.raises(ValueError, match=rf"{loss.name}: y_true .*{given.p.shape[0]}"):
        loss.forward(given.y[:3], given.p)
    with pytest.raises(ValueError, match=f"{loss.name}: sample_weight"):
        loss.forward(given.y, given.p, None, np.ones(3))


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_labels_out_of_range_are_refused(label, rng):
    with pytest.raises(ValueError, match=rf"labels must be in \[0, {CLASSES}\)"):
        SparseCategoricalCrossentropy().forward(np.array([0, label]), rng.random((2, CLASSES)))


def test_unknown_reductions_are_refused(any_loss):
    with pytest.raises(ValueError, match="'gello'; known: sum_over_batch_size, mean, sum, "):
        any_loss(reduction="gello")


def test_values_of_huber():
    loss, e = losses.Huber(0.5), np.array([[0.25, -0.5, 2.0, -3.0]])
    assert loss.forward(np.zeros((1, 4)), e) == (0.25**2 / 2 + 0.5**2 / 2 + (1 - 0.125) + (1.5 - 0.125)) / 4
    assert np.array_equal(loss.backward(np.zeros((1, 4)), e), np.array([[0.25, -0.5, 0.5, -0.5]]) / 4)


def test_the_absolute_error_has_two_sides_where_it_is_zero():
    loss, y = losses.MeanAbsoluteError(), np.array([[1.0, 0.0, -2.0]])
    assert loss.two_sided(y, np.array([[1.0, 0.5, -2.0]])).tolist() == [[True, False, True]]
    assert loss.two_sided(np.array([1, 2]), np.array([[1.0], [1.0]])).tolist() == [[True], [False]]
    assert losses.MeanSquaredError().two_sided(y, y) is None


def test_the_clip_keeps_sure_predictions_finite_and_gives_them_no_gradient():
    """The logarithms of EPSILON and of 1 - EPSILON, at each end, for the right and for the wrong label."""
    low, high = -np.log(EPSILON), -np.log(1 - EPSILON)
    near_one = np.finfo(np.float64).eps / EPSILON  # 1 - EPSILON is rounded, and its distance from 1 is EPSILON
    p = np.array([[0.0], [1.0]])
    binary = losses.BinaryCrossentropy()
    for y, expected in ((0.0, [high, low]), (1.0, [low, high])):
        assert np.allclose(binary.per_sample(np.full((2, 1), y), p), expected, rtol=near_one, atol=0)
        assert not binary.derivative(np.full((2, 1), y), p).any()
    categorical, sure = CategoricalCrossentropy(), np.array([[1.0, 0.0]])
    for label, expected in ((0, high), (1, low)):
        assert categorical.forward(np.eye(2)[[label]], sure) == pytest.approx(expected, rel=near_one)
        assert not categorical.backward(np.eye(2)[[label]], sure).any()


def test_sparse_labels_clip_before_they_renormalise():
    """So probabilities of 0, 1 and 2 are EPSILON and twice 1 - EPSILON, and none of them has a gradient."""
    sparse, p, inside = SparseCategoricalCrossentropy(), np.array([[0.0, 1.0, 2.0]]), np.array([[0.25, 2.0, 0.5]])
    total = EPSILON + 2 * (1 - EPSILON)
    for label, clipped in enumerate((EPSILON, 1 - EPSILON, 1 - EPSILON)):
        assert sparse.forward([label], p) == pytest.approx(np.log(total / clipped), rel=1e-12)
        assert not sparse.backward([label], p).any()
    share = 1 / (0.75 + 1 - EPSILON)
    assert np.allclose(sparse.backward([0], inside), [[share - 4, 0, share]], rtol=1e-12)
    assert np.allclose(sparse.backward([1], inside), [[share, 0, share]], rtol=1e-12)


def test_names_and_defaults(any_loss):
    assert any_loss().name == any_loss.func.default_name
    assert any_loss(name="mine").name == "mine"
    assert losses.Huber().delta == 1.0
    if crosses(any_loss):
        assert (any_loss.func().from_logits, any_loss.func().label_smoothing) == (False, 0.0)


@pytest.mark.parametrize("y", [[2], [2, 1, 0], [[2, 2]], [[0], [1]], [[[0], [1], [2]], [[1], [0], [2]]]], ids=str)
def test_integer_labels_with_and_without_a_last_axis_of_one(y, rng):
    labels = np.array(y)
    bare = labels[..., 0] if labels.shape[-1] == 1 and labels.ndim > 1 else labels
    p = activations.get("softmax").forward(rng.standard_normal((*bare.shape, 3)))
    expected = -np.log(np.take_along_axis(p, bare[..., np.newaxis], axis=-1)[..., 0])
    assert np.allclose(SparseCategoricalCrossentropy().per_sample(bare, p), expected, rtol=1e-14)
    assert SparseCategoricalCrossentropy(reduction="sum").forward(labels, p) == pytest.approx(expected.sum(), rel=1e-14)


def test_labels_of_another_shape_are_refused_with_the_one_that_they_must_have():
    with pytest.raises(ValueError, match=r"must have the shape \(1, 2\); received \(2,\)"):
        SparseCategoricalCrossentropy().forward(np.array([0, 1]), np.ones((1, 2, 5)))


def test_labels_out_of_range_are_refused_in_images_too():
    with pytest.raises(ValueError, match=r"labels must be in \[0, 5\); received 0 to 7"):
        SparseCategoricalCrossentropy().forward(np.array([[0, 7]]), np.ones((1, 2, 5)))


def test_labels_are_smoothed_towards_equal_shares():
    y, p = np.eye(4)[[[0, 1, 3], [2, 2, 0]]], np.ones((2, 3, 4))
    assert np.allclose(CategoricalCrossentropy(label_smoothing=0.2).targets(y, p), 0.8 * y + 0.05, rtol=1e-15)
    assert np.allclose(losses.BinaryCrossentropy(label_smoothing=0.2).targets(y, p), 0.8 * y + 0.1, rtol=1e-15)
    assert np.array_equal(CategoricalCrossentropy().targets(y, p), y)


def test_rows_of_logits_far_from_each_other():
    """Each row is shifted by its own maximum: by that of all, the exponentials of the second row would be 0."""
    z = np.array([[2000.0, 2001.0], [0.0, 1.0]])
    expected = np.log1p(np.exp([1.0, -1.0]))
    for loss, y in ((CategoricalCrossentropy(), np.eye(2)), (SparseCategoricalCrossentropy(), np.arange(2))):
        assert np.allclose(loss.per_sample_from_logits(y, z), expected, rtol=1e-12)  # 2001 - 2000 is exact, log is not


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bounds_of_the_clip_belong_to_its_inside(dtype):
    low, high = np.asarray(EPSILON, dtype), np.asarray(1 - EPSILON, dtype)
    p = np.array([np.nextafter(low, low - 1), low, high, np.nextafter(high, high + 1)], dtype)[:, np.newaxis]
    for y in (np.zeros_like(p), np.ones_like(p)):
        assert losses.BinaryCrossentropy().derivative(y, p)[:, 0].astype(bool).tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("reduction", "divisor", "weighted_divisor"),
    [("sum_over_batch_size", 6, 6), ("mean", 6, 6), ("sum", 1, 1), ("mean_with_sample_weight", 6, 15)],
)
def test_reductions_by_hand(reduction, divisor, weighted_divisor):
    """The losses are 1, 4, 9 and 16, 25, 36; each of the first row weighs 2, each of the second 3."""
    loss, y, p = losses.MeanSquaredError(reduction), np.zeros((2, 3)), np.arange(1.0, 7.0).reshape(2, 3, 1)
    assert loss.forward(y, p) == 91 / divisor
    assert loss.forward(y, p, None, np.array([2, 3])) == (2 * 14 + 3 * 77) / weighted_divisor
    assert loss.forward(y, p, None, np.zeros(2)) == 0


def test_weights_that_cancel_leave_nothing():
    """As in Keras, where a division by their sum of 0 gives 0."""
    loss, y, p, weights = losses.MeanSquaredError("mean_with_sample_weight"), np.zeros((2, 1)), np.ones((2, 1)), [1, -1]
    p[1] = 2.0
    assert loss.forward(y, p, None, weights) == 0
    assert not loss.backward(y, p, None, weights).any()


def test_another_axis_is_refused():
    with pytest.raises(ValueError, match=r"binary_crossentropy: only axis=-1 is supported; received axis=1"):
        losses.BinaryCrossentropy(axis=1)
