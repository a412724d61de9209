"""MaxPooling2D against finite differences and Keras, ties and nan included; and the comparison against mistakes."""

import json

import numpy as np
import pytest

from scratchnet import registry
from scratchnet.layers import MaxPooling2D, pooling
from scratchnet.layers.windows import Axis

CASES = (
    ((6, 4), {}),
    ((7, 5), {}),  # leaves a row and a column out
    ((7, 5), {"padding": "same"}),
    ((8, 6), {"pool_size": 3, "strides": 2, "padding": "same"}),  # overlaps, and pads only below and on the right
    ((7, 6), {"pool_size": (3, 4), "strides": 1, "padding": "same"}),
    ((7, 9), {"pool_size": (2, 3), "strides": (1, 2)}),
    ((8, 7), {"pool_size": (1, 2), "strides": 3, "padding": "same"}),  # windows with gaps between them
    ((3, 2), {"pool_size": (5, 4), "strides": 1, "padding": "same"}),  # a window larger than the image
)
EXAMPLES = tuple(((7, 6), dict(example)) for example in MaxPooling2D.examples)
SHAPED = [pytest.param(size, arguments, id=f"{size}-{arguments}") for size, arguments in CASES + EXAMPLES]


def distinct(rng, shape):
    return rng.permutation(np.prod(shape)).reshape(shape)


def tied(rng, shape):
    return rng.integers(-2, 1, shape)  # three values: most windows have several maxima, and zeros are not special


def infinite(rng, shape):
    return rng.choice([-np.inf, -1.0, np.inf], shape, p=[0.8, 0.1, 0.1])


def with_nan(rng, shape):
    return rng.choice([np.nan, -np.inf, -1.0, 2.0], shape, p=[0.5, 0.3, 0.1, 0.1])


def drawn(layer, size, values):
    """Input, and an upstream gradient of integers, which add up without rounding."""
    rng = np.random.default_rng(3)
    x = values(rng, (3, *size, 2)).astype(layer.dtype)
    return x, rng.integers(-50, 50, layer.compute_output_shape(x.shape)).astype(layer.dtype)


def by_scratch(layer, x, dy):
    y, saved = layer.forward(x)
    dx, grads = layer.backward(saved, dy)
    assert grads == {}
    return {"y": y, "dx": dx}


def by_keras(keras, layer, x, dy):
    import tensorflow as tf

    theirs = keras.layers.deserialize(json.loads(json.dumps(registry.serialize(layer))))
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = theirs(x)
    return {"y": y.numpy(), "dx": tape.gradient(y, x, output_gradients=tf.constant(dy)).numpy()}


def differing(ours, theirs):
    """The names of the tensors that are not equal in every element."""
    for name, array in theirs.items():
        assert (ours[name].shape, ours[name].dtype) == (array.shape, array.dtype)
    return {name for name, array in theirs.items() if not np.array_equal(ours[name], array)}


@pytest.mark.parametrize(("size", "arguments"), SHAPED)
def test_derivative(size, arguments):
    """Values are 1 apart, so steps up to 1/4 change no winner: z is linear there, and sums of eighths are exact."""
    layer = MaxPooling2D(**arguments, dtype="float64")
    x, dy = drawn(layer, size, distinct)
    step = np.random.default_rng(4).integers(-2, 3, x.shape) / 8
    numeric = np.vdot(dy, layer.forward(x + step)[0] - layer.forward(x - step)[0]) / 2
    assert np.vdot(by_scratch(layer, x, dy)["dx"], step) == numeric


def test_one_worked_by_hand():
    layer = MaxPooling2D(2, strides=1, dtype="float32")
    y, saved = layer.forward(np.float32([[1, 3, 3], [3, 0, 3]]).reshape(1, 2, 3, 1))
    assert y.ravel().tolist() == [3, 3]
    dx, _ = layer.backward(saved, np.float32([5, 7]).reshape(1, 1, 2, 1))
    assert dx.reshape(2, 3).tolist() == [[0, 12, 0], [0, 0, 0]]  # first of three, twice


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("values", [distinct, tied, infinite, with_nan])
@pytest.mark.parametrize(("size", "arguments"), SHAPED)
def test_equal_to_keras(size, arguments, values, dtype, keras, answers):
    layer = MaxPooling2D(**arguments, name="pool", dtype=dtype)
    x, dy = drawn(layer, size, values)
    theirs = answers(lambda: by_keras(keras, layer, x, dy))
    assert differing(by_scratch(layer, x, dy), theirs) == set()


def last_winners(cells, first):
    """The last of equal cells, where the first should win."""
    return len(cells) - 1 - np.argmax(np.stack(cells[::-1]), axis=0)


def test_ties_to_the_last_are_seen(keras, answers, monkeypatch):
    monkeypatch.setattr(pooling, "_winners", last_winners)
    layer = MaxPooling2D(name="pool", dtype="float32")
    for values, wrong in ((distinct, set()), (tied, {"dx"})):
        x, dy = drawn(layer, (6, 4), values)
        theirs = answers(lambda x=x, dy=dy: by_keras(keras, layer, x, dy))
        assert differing(by_scratch(layer, x, dy), theirs) == wrong


def test_padding_on_the_wrong_side_is_seen(keras, answers, monkeypatch):
    right = Axis.borders
    monkeypatch.setattr(Axis, "borders", lambda self, size: right(self, size)[::-1])
    layer = MaxPooling2D(padding="same", name="pool", dtype="float32")
    x, dy = drawn(layer, (7, 5), distinct)
    theirs = answers(lambda: by_keras(keras, layer, x, dy))
    assert differing(by_scratch(layer, x, dy), theirs) == {"y", "dx"}


@pytest.mark.parametrize("arguments", MaxPooling2D.examples)
def test_config_is_keras_config(arguments, keras, answers):
    def theirs():
        layer = keras.layers.MaxPooling2D(**arguments, name="pool")
        return json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))

    assert registry.serialize(MaxPooling2D(**arguments, name="pool")) == answers(theirs)


@pytest.mark.parametrize("arguments", MaxPooling2D.examples)
def test_config_round_trip(arguments):
    ours = MaxPooling2D(**arguments, name="pool")
    again = registry.deserialize("layer", json.loads(json.dumps(registry.serialize(ours))))
    assert type(again) is MaxPooling2D
    assert again.get_config() == ours.get_config()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pool_size": 0}, "pool_size: expected a positive integer or two.*received 0"),
        ({"strides": (2, 0)}, "strides: expected"),
        ({"padding": "full"}, "padding: expected one of same, valid; received 'full'"),
        ({"data_format": "channels_first"}, "only data_format='channels_last' is"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        MaxPooling2D.from_config(arguments)


@pytest.mark.parametrize("shape", [(2, 8, 2, 3), (2, 8, 9)])
def test_images_that_do_not_fit(shape):
    with pytest.raises(ValueError, match=r"does not fit into 2|expected images of shape"):
        MaxPooling2D(3).forward(np.zeros(shape))


@pytest.mark.parametrize("value", [-np.inf, np.nan])
def test_a_window_of_nothing_but_minus_infinity_or_nan(value):
    """The smallest finite number; the gradient goes to the first cell of the image, never to the padding around it."""
    layer = MaxPooling2D(3, strides=1, padding="same", dtype="float64")
    y, saved = layer.forward(np.full((1, 1, 1, 1), value))
    assert y.item() == np.finfo(np.float64).min
    assert layer.backward(saved, np.full((1, 1, 1, 1), 5.0))[0].item() == 5


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_the_cells_that_share_a_maximum(padding):
    image = [[1, 3, 3, 0], [3, 0, 3, 0], [5, 1, -9, -9], [2, 5, -9, -8]]
    x = np.array(image, np.float64).reshape(1, 4, 4, 1)
    shared = [[0, 1, 1, 0], [1, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]]
    assert MaxPooling2D(2, padding=padding).two_sided(x)[0, ..., 0].astype(int).tolist() == shared
    assert not MaxPooling2D(2, padding=padding).two_sided(np.arange(16.0).reshape(x.shape)).any()
    image = np.array([[0.0, 7.0, 7.0, 7.0]]).reshape(1, 1, 4, 1)  # two in each of two windows, one of them in both
    assert MaxPooling2D((1, 2), strides=1, padding="valid").two_sided(image).ravel().tolist() == [0, 1, 1, 1]
    assert not MaxPooling2D(3, strides=2, padding="same").two_sided(-np.arange(1.0, 17.0).reshape(x.shape)).any()
    image = np.array([[7.0, 7.0]]).reshape(1, 1, 2, 1)  # each window sticks out, and what is added shares nothing
    assert MaxPooling2D(3, strides=1, padding="same").two_sided(image).all()


def test_ties_are_every_window_that_a_shared_maximum_wins():
    x = np.array([[2.0, 7.0, 7.0, 1.0], [0.0, 3.0, 0.0, 9.0]]).reshape(1, 2, 4, 1)
    window, cell = MaxPooling2D((1, 2), strides=1).ties(x)
    assert (window.tolist(), cell.tolist()) == ([0, 1, 1, 2], [1, 1, 2, 2])  # 0 and 2 have one maximum each
    window, cell = MaxPooling2D(2, padding="same").ties(np.full((1, 3, 3, 1), -1.0))
    assert window.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]  # what is added wins nothing, and the last window has one cell
    assert cell.tolist() == [0, 1, 3, 4, 2, 5, 6, 7]
    window, cell = MaxPooling2D((1, 2), strides=1, padding="same").ties(np.full((1, 1, 2, 1), -np.inf))
    assert (window.tolist(), cell.tolist()) == ([0, 0, 1], [0, 1, 1])  # nor there, where it is as large


def test_ties_of_each_sample_and_channel_are_its_own():
    x = np.arange(16.0).reshape(2, 2, 2, 2)  # flat: sample, row, column, channel
    x[1, 0, 0, 1] = x[1, 1, 1, 1]
    window, cell = MaxPooling2D(2).ties(x)
    assert (window.tolist(), cell.tolist()) == ([3, 3], [9, 15])
