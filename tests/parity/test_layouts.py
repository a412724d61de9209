"""Layouts: one definition, an exact way back, and no guess where there are two."""

import numpy as np
import pytest

from parity.errors import UsageError
from parity.weights.layouts import CONVENTIONS, Layout, candidates, explicit

SHAPES = {"first/kernel": (5, 4), "first/bias": (4,), "second/kernel": (4, 3), "second/bias": (3,)}
SQUARE = {"dense/kernel": (4, 4), "dense/bias": (4,)}
IMAGES = {"dense/kernel": (6, 4), "dense/bias": (4,)}
CONVOLUTION = {"conv/kernel": (2, 3, 4, 5), "conv/bias": (5,), "dense/kernel": (6, 7), "dense/bias": (7,)}

FITTING = [
    (SHAPES, {"W1": (5, 4), "b1": (4,), "W2": (4, 3), "b2": (3,)}, ["rows"]),
    (SHAPES, {"W1": (5, 4), "W2": (4, 3), "b1": (1, 4), "b2": (1, 3)}, ["rows"]),
    (SHAPES, {"W1": (4, 5), "b1": (4, 1), "W2": (3, 4), "b2": (3, 1)}, ["columns"]),
    (SHAPES, {"0": (4, 5), "1": (3, 4), "2": (4,), "3": (3,)}, ["columns"]),
    (SHAPES, {"0": (6, 4), "1": (5, 3)}, ["bias first row", "bias last row"]),
    (SHAPES, {"0": (4, 6), "1": (3, 5)}, ["bias first column", "bias last column"]),
    (SHAPES, {"theta": (39,)}, ["flat", "flat columns"]),
    (SHAPES, {"theta": (39, 1)}, ["flat", "flat columns"]),
    (IMAGES, {"w": (4, 2, 3), "b": (4,)}, ["images"]),
    (IMAGES, {"w": (2, 3, 4), "b": (4,)}, ["images last"]),
    (SQUARE, {"w": (4, 4), "b": (4,)}, ["rows", "columns"]),
    (CONVOLUTION, {"K": (5, 4, 2, 3), "c": (5,), "W": (7, 6), "b": (7,)}, ["channels first"]),
    (SHAPES, {"W1": (5, 4), "b1": (4,), "W2": (4, 4), "b2": (3,)}, []),
    (SHAPES, {"W1": (5, 4), "b1": (4,)}, []),
]


@pytest.mark.parametrize(("shapes", "template", "names"), FITTING, ids=lambda value: str(value)[:40])
def test_the_layouts_that_fit(shapes, template, names):
    assert [layout.name for layout in candidates(shapes, template)] == names


def weights(shapes):
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(("shapes", "template", "names"), FITTING, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_there_and_back_is_exact(shapes, template, names, dtype):
    given = {name: array.astype(dtype) for name, array in weights(shapes).items()}
    given["dense/bias" if "dense/bias" in given else "first/bias"][0] = -0.0
    for layout in candidates(shapes, template):
        theirs = layout.arrange(given)
        assert {key: array.shape for key, array in theirs.items()} == template
        back = layout.restore(theirs)
        assert list(back) == list(given)
        for name, array in given.items():
            assert back[name].dtype == dtype
            assert back[name].tobytes() == array.tobytes()


def test_each_convention_puts_the_numbers_where_its_name_says():
    given = {"dense/kernel": np.arange(6.0).reshape(3, 2), "dense/bias": np.array([10.0, 20.0])}
    kernel, bias = given["dense/kernel"], given["dense/bias"]
    shapes = {name: array.shape for name, array in given.items()}
    expected = {
        "rows": [kernel, bias],
        "columns": [kernel.T, bias.reshape(2, 1)],
        "bias first row": [np.vstack([bias, kernel])],
        "bias last row": [np.vstack([kernel, bias])],
        "bias first column": [np.vstack([bias, kernel]).T],
        "bias last column": [np.vstack([kernel, bias]).T],
        "flat": [np.concatenate([kernel.reshape(-1), bias])],
        "flat columns": [np.concatenate([kernel.T.reshape(-1), bias])],
        "images": [kernel.T.reshape(2, 1, 3), bias],
        "images last": [kernel.reshape(1, 3, 2), bias],
    }
    assert expected.keys() | {"channels first"} == CONVENTIONS.keys()
    for name, arrays in expected.items():
        template = {f"p{index}": array.shape for index, array in enumerate(arrays)}
        [layout] = candidates(shapes, template, name)
        for made, array in zip(layout.arrange(given).values(), arrays, strict=True):
            np.testing.assert_array_equal(made, array)


def test_numbers_in_the_names_order_the_layers():
    template = {"W2": (4, 3), "b2": (3,), "W1": (5, 4), "b1": (4,)}
    [layout] = candidates(SHAPES, template)
    assert layout.holders("first/kernel") == ("W1",)
    assert layout.holders("second/bias") == ("b2",)


def test_ten_layers_come_in_the_order_of_their_numbers():
    shapes = {f"layer{i}/kernel": (3, 3) for i in range(12)}
    template = {f"W{i}": (3, 3) for i in sorted(range(12), key=str)}
    layout = candidates(shapes, template, "rows")[0]
    assert [layout.holders(f"layer{i}/kernel") for i in range(12)] == [(f"W{i}",) for i in range(12)]


def test_a_layout_of_ones_own():
    template = {"W": (4, 6), "b": (4,)}
    layout = explicit(lambda w: {"W": w["dense/kernel"][::-1].T, "b": w["dense/bias"]}, IMAGES, template)
    given = weights(IMAGES)
    np.testing.assert_array_equal(layout.arrange(given)["W"], given["dense/kernel"][::-1].T)
    np.testing.assert_array_equal(layout.restore(layout.arrange(given))["dense/kernel"], given["dense/kernel"])


BOTH = {"W": (6, 4), "b": (4,)}
NOT_LAYOUTS = [
    (lambda w: {"W": w["dense/kernel"] * 2, "b": w["dense/bias"]}, BOTH, "W must only put elements"),
    (lambda w: {"W": w["dense/kernel"] / 1, "b": w["dense/bias"]}, BOTH, "W must only put elements"),
    (lambda w: {"W": w["dense/kernel"]}, {"W": (6, 4)}, "no array holds 4 of the 4 elements of dense/bias"),
    (lambda w: {"W": w["dense/kernel"], "b": w["dense/bias"], "c": w["dense/bias"]}, BOTH, "more than one place"),
    (lambda w: {"W": w["dense/kernel"][[0, 0, 2, 3, 4, 5]], "b": w["dense/bias"]}, BOTH, "of dense/kernel"),
    (lambda w: {"W": w["kernel"], "b": w["dense/bias"]}, BOTH, "no weight is called 'kernel'; there are dense/kernel"),
    (lambda w: {"W": w["dense/kernel"], "b": w["dense/bias"][:, None]}, BOTH, "b: your array has the shape"),
    (lambda w: {"V": w["dense/kernel"], "b": w["dense/bias"]}, BOTH, "W is not in the layout"),
]


@pytest.mark.parametrize(("arrange", "template", "message"), NOT_LAYOUTS)
def test_what_is_no_layout_is_refused(arrange, template, message):
    with pytest.raises(UsageError, match=message):
        explicit(arrange, IMAGES, template)


def test_weights_of_which_an_array_is_missing_are_left_out():
    [layout] = candidates(SHAPES, {"W1": (5, 4), "b1": (4,), "W2": (4, 3), "b2": (3,)})
    assert list(layout.restore({"W2": np.zeros((4, 3))})) == ["second/kernel"]


def test_a_layout_is_its_places():
    layout = Layout.of("turned", lambda w: {"W": w["dense/kernel"].T, "b": w["dense/bias"]}, IMAGES)
    assert layout.places["W"].tolist()[0] == [0, 4, 8, 12, 16, 20]
