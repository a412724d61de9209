"""Conv2D against finite differences, sums written out with integers, and Keras; and the comparison against mistakes."""

import json
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchnet import registry
from scratchnet.layers import Conv2D
from scratchnet.layers.windows import Axis, Windows

GATE = (
    1e-11  # of the largest element: the gate for two correct float64 implementations, 30 times the worst one measured
)

# image, and Keras's arguments; no two sizes of a case are equal, so that a swap of axes shows
CASES = (
    ((5, 7), {"kernel_size": (2, 3)}),
    ((8, 6), {"kernel_size": 3, "strides": 2, "padding": "same"}),  # pads only below and on the right
    ((8, 6), {"kernel_size": (2, 5), "strides": (2, 3), "padding": "same"}),
    ((9, 7), {"kernel_size": (4, 2), "padding": "same"}),
    ((8, 9), {"kernel_size": (3, 2), "strides": (3, 2)}),  # leaves two rows and a column out
    ((9, 8), {"kernel_size": (2, 3), "padding": "same", "dilation_rate": (3, 2)}),
    ((9, 8), {"kernel_size": (3, 2), "dilation_rate": (1, 4)}),
    ((5, 6), {"kernel_size": 1, "strides": (3, 2), "padding": "same"}),  # windows with gaps between them
    ((3, 2), {"kernel_size": (5, 4), "padding": "same"}),  # a kernel larger than the image
    ((3, 4), {"kernel_size": (3, 4)}),  # one window
)
EXAMPLES = tuple(((7, 6), dict(example)) for example in Conv2D.examples)
SHAPED = [
    pytest.param(size, {"filters": 4} | arguments, id=f"{size}-{arguments}") for size, arguments in CASES + EXAMPLES
]


def built(size, arguments, dtype="float64", cls=Conv2D):
    layer = cls(**arguments, name="conv", dtype=dtype)
    layer.build((None, *size, 3))
    return layer


def drawn(layer, size, draw):
    """Random weights, input, and upstream gradient."""
    for name, weight in layer.weights.items():
        layer.weights[name] = draw(weight.shape).astype(weight.dtype)
    x = draw((2, *size, 3)).astype(layer.dtype)
    return x, draw(layer.compute_output_shape(x.shape)).astype(layer.dtype)


def normal(shape):
    return np.random.default_rng(1).standard_normal(shape)


def integers(shape):
    return np.random.default_rng(1).integers(-4, 5, shape)


def by_scratch(layer, x, dy):
    y, saved = layer.forward(x)
    dx, grads = layer.backward(saved, dy)
    return {"y": y, "dx": dx, **grads}


def by_keras(keras, layer, x, dy):
    import tensorflow as tf

    theirs = keras.layers.deserialize(json.loads(json.dumps(registry.serialize(layer))))
    theirs.build(x.shape)
    theirs.set_weights(list(layer.weights.values()))
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = theirs(x)
    dx, *grads = tape.gradient(y, [x, *theirs.trainable_variables], output_gradients=tf.constant(dy))
    by_name = dict(zip(layer.weights, grads, strict=True))
    return {name: np.asarray(array) for name, array in {"y": y, "dx": dx, **by_name}.items()}


def differing(ours, theirs, gate=GATE):
    """The names of the tensors that do not agree."""
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert (ours[name].shape, ours[name].dtype) == (array.shape, array.dtype)
    return {name for name, array in theirs.items() if np.abs(ours[name] - array).max() > gate * np.abs(array).max()}


@pytest.mark.parametrize(("size", "arguments"), SHAPED)
def test_derivatives(size, arguments):
    """z is linear in x, in the kernel and in the bias, so a central difference has no error of its own and h is 1."""
    layer = built(size, arguments)
    x, dz = drawn(layer, size, normal)
    dx, grads = layer.transform_backward(layer.forward(x)[1], dz)
    rng = np.random.default_rng(2)

    v = rng.standard_normal(x.shape)
    numeric = np.vdot(dz, layer.transform(x + v, False)[0] - layer.transform(x - v, False)[0]) / 2
    assert abs(np.vdot(dx, v) - numeric) <= GATE * np.vdot(np.abs(dx), np.abs(v))

    for name, weight in list(layer.weights.items()):
        v = rng.standard_normal(weight.shape)
        ends = []
        for end in (weight + v, weight - v):
            layer.weights[name] = end
            ends.append(layer.transform(x, False)[0])
        layer.weights[name] = weight
        numeric = np.vdot(dz, ends[0] - ends[1]) / 2
        assert abs(np.vdot(grads[name], v) - numeric) <= GATE * np.vdot(np.abs(grads[name]), np.abs(v))


def test_one_worked_by_hand():
    layer = Conv2D(1, 2, strides=2, padding="same", name="conv", dtype="float32")
    layer.build((None, 3, 2, 1))  # three rows: one of zeros is added, behind
    layer.weights["kernel"] = np.float32([[1, 2], [3, 4]]).reshape(2, 2, 1, 1)
    layer.weights["bias"] = np.float32([10])
    y, saved = layer.forward(np.float32([[1, 2], [3, 4], [5, 6]]).reshape(1, 3, 2, 1))
    assert y.ravel().tolist() == [10 + 1 + 4 + 9 + 16, 10 + 5 + 12]
    dx, grads = layer.backward(saved, np.float32([1, 10]).reshape(1, 2, 1, 1))
    assert dx.ravel().tolist() == [1, 2, 3, 4, 10, 20]
    assert grads["kernel"].ravel().tolist() == [51, 62, 3, 4]
    assert grads["bias"].tolist() == [11]


@pytest.mark.parametrize(("size", "arguments"), SHAPED)
def test_keras_float64(size, arguments, keras64, answers):
    layer = built(size, arguments)
    x, dy = drawn(layer, size, normal)
    theirs = answers(lambda: by_keras(keras64, layer, x, dy))
    assert differing(by_scratch(layer, x, dy), theirs) == set()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("size", "arguments"), CASES)
def test_keras_integers_are_equal_bit_for_bit(size, arguments, dtype, keras, answers):
    layer = built(size, {"filters": 4} | arguments, dtype)
    x, dy = drawn(layer, size, integers)
    theirs = answers(lambda: by_keras(keras, layer, x, dy))
    assert differing(by_scratch(layer, x, dy), theirs, gate=0) == set()


class Flipped(Conv2D):
    """The kernel turned by 180 degrees: a convolution in the sense of mathematics."""

    def _matrix(self):
        return self.weights["kernel"][::-1, ::-1].reshape(-1, self.filters)


def test_a_flipped_kernel_is_seen(keras64, answers):
    size, arguments = CASES[1]
    layer = built(size, {"filters": 4} | arguments, cls=Flipped)
    x, dy = drawn(layer, size, normal)
    theirs = answers(lambda: by_keras(keras64, layer, x, dy))
    assert differing(by_scratch(layer, x, dy), theirs) == {"y", "dx"}


def test_padding_on_the_wrong_side_is_seen(keras64, answers, monkeypatch):
    right = Axis.borders
    monkeypatch.setattr(Axis, "borders", lambda self, size: right(self, size)[::-1])
    size, arguments = CASES[1]
    layer = built(size, {"filters": 4} | arguments)
    x, dy = drawn(layer, size, normal)
    theirs = answers(lambda: by_keras(keras64, layer, x, dy))
    assert differing(by_scratch(layer, x, dy), theirs) == {"y", "dx", "kernel"}


@pytest.mark.parametrize(("size", "arguments"), EXAMPLES)
def test_float32_stays_float32(size, arguments):
    layer = built(size, arguments, "float32")
    results = by_scratch(layer, *drawn(layer, size, normal))
    assert {array.dtype for array in results.values()} == {np.dtype("float32")}


geometries = st.fixed_dictionaries(
    {
        "lengths": st.tuples(*[st.integers(1, 4)] * 2),
        "strides": st.tuples(*[st.integers(1, 4)] * 2),
        "dilation": st.tuples(*[st.integers(1, 3)] * 2),
        "padding": st.sampled_from(["same", "valid"]),
    }
)


@given(geometries, st.tuples(st.integers(10, 13), st.integers(10, 13)))
def test_windows_take_the_cells_of_the_formula_and_scatter_gives_them_back(geometry, size):
    """Every cell is its own coordinates, so that each place shows where it came from."""
    windows = Windows.of(**geometry)
    height, width = size
    image = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1)[np.newaxis]
    cells = windows.cells(image, fill=-1)
    top, left = windows.rows.borders(height)[0], windows.columns.borders(width)[0]
    visits = np.zeros_like(image)
    count = windows.counts(image.shape)
    first = np.full(count, -1)
    for k, (i, j) in enumerate(product(*map(range, geometry["lengths"]))):
        for row, column in product(*map(range, count)):
            y = row * geometry["strides"][0] + i * geometry["dilation"][0] - top
            x = column * geometry["strides"][1] + j * geometry["dilation"][1] - left
            inside = 0 <= y < height and 0 <= x < width
            assert cells[k][0, row, column].tolist() == ([y, x] if inside else [-1, -1])
            if inside:
                visits[0, y, x] += 1
                first[row, column] = k if first[row, column] < 0 else first[row, column]
    assert np.array_equal(windows.scatter([np.ones_like(cell) for cell in cells], image.shape), visits)
    seen = first >= 0  # a dilated window can lie around the image without touching it
    assert np.array_equal(windows.first_inside(image.shape)[..., 0][seen], first[seen])


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.sampled_from(["same", "valid"]), st.integers(10, 13))
def test_no_more_is_added_than_the_last_window_needs(length, stride, dilation, padding, size):
    axis = Axis(length, stride, dilation, padding)
    before, behind = axis.borders(size)
    reach = (axis.count(size) - 1) * stride + 1
    lacking = max(reach + (length - 1) * dilation - size, 0)
    assert (before, behind) == (lacking // 2, (lacking + 1) // 2)
    for k in range(length):
        assert sum(axis.gaps(k, size)) + reach == before + size + behind


@pytest.mark.parametrize("arguments", Conv2D.examples)
def test_config_is_keras_config(arguments, keras, answers):
    def theirs():
        layer = keras.layers.Conv2D(**arguments, name="conv", trainable=False)
        return json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))

    assert registry.serialize(Conv2D(**arguments, name="conv", trainable=False)) == answers(theirs)


@pytest.mark.parametrize("arguments", Conv2D.examples)
def test_config_round_trip(arguments):
    ours = Conv2D(**arguments, name="conv")
    again = registry.deserialize("layer", json.loads(json.dumps(registry.serialize(ours))))
    assert type(again) is Conv2D
    assert again.get_config() == ours.get_config()


def test_weights_have_named_axes():
    layer = built((5, 7), {"filters": 4, "kernel_size": (2, 3)})
    assert layer.axes == {"kernel": ("height", "width", "in", "out"), "bias": ("out",)}
    assert {name: weight.shape for name, weight in layer.weights.items()} == {"kernel": (2, 3, 3, 4), "bias": (4,)}
    assert layer.compute_output_shape((None, None, 7, 3)) == (None, None, 5, 4)
    assert layer.compute_output_shape((None, 5, None, 3)) == (None, 4, None, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": 0}, "filters must be a positive integer; received 0"),
        ({"kernel_size": (1, 2, 3)}, r"kernel_size: expected a positive integer or two.*received \(1, 2, 3\)"),
        ({"strides": 0}, "strides: expected .* received 0"),
        ({"dilation_rate": 0}, "dilation_rate: expected .* received 0"),
        ({"padding": "causal"}, "padding: expected one of same, valid; received 'causal'"),
        ({"strides": 2, "dilation_rate": 2}, "not supported, in Keras neither"),
        ({"groups": 2}, r"Conv2D\(groups=2\) is not supported; only groups=1 is"),
        ({"data_format": "channels_first"}, "only data_format='channels_last' is"),
        ({"kernel_constraint": "non_neg"}, "only kernel_constraint=None is"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        Conv2D.from_config({"filters": 3, "kernel_size": 2} | arguments)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((None, 8, 4, 3), "a window over 5 cells does not fit into 4"),
        ((None, 8, 7), "expected images of shape"),
        ((None, 8, 7, None), "conv: Conv2D needs the number of its input's channels"),
    ],
)
def test_shapes_that_do_not_fit(shape, message):
    with pytest.raises(ValueError, match=message):
        Conv2D(3, (2, 3), dilation_rate=2, name="conv").build(shape)
