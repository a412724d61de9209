"""Embedding: what is looked up, and the sums of gradients over repeated indices."""

import numpy as np
import pytest

from scratchnet import Sequential
from scratchnet.layers import Dense, Embedding, Flatten, embedding

INDICES = np.array([[0, 3, 3, 1], [3, 0, -1, 3]])  # 3 four times, the last row by -1, row 2 never


def built(dtype="float64"):
    layer = Embedding(5, 3, dtype=dtype)
    layer.build((None, 4))
    return layer


@pytest.mark.parametrize("arguments", [{"input_dim": 5, "output_dim": 3}, {"input_dim": 400, "output_dim": 1}])
def test_gradients(check_gradients, arguments):
    check_gradients(Embedding(dtype="float64", **arguments), INDICES)


@pytest.mark.parametrize("x", [INDICES, INDICES[0], INDICES[np.newaxis], INDICES[:, :1]], ids=lambda x: str(x.shape))
def test_keras_agrees(check_against_keras, x):
    check_against_keras(Embedding(5, 3, dtype="float64"), x)


def test_keras_agrees_on_real_numbers(check_against_keras):
    """Truncated towards zero: -0.9 reads row 0, -1.9 the last one."""
    check_against_keras(Embedding(5, 3, dtype="float64"), INDICES + np.sign(INDICES) * 0.9)


def test_repeated_indices_are_summed():
    layer = built()
    _, saved = layer.forward(INDICES)
    dy = np.arange(24.0).reshape(2, 4, 3)
    dx, gradients = layer.backward(saved, dy)
    assert dx is None
    expected = np.zeros((5, 3))
    np.add.at(expected, INDICES, dy)
    assert np.array_equal(gradients["embeddings"], expected)
    assert not gradients["embeddings"][2].any()


def test_a_sum_over_many_rows_is_accumulated_in_float64():
    """To the bit, for either dtype: equal indices in the order they come in, and one rounding to float32 at the end."""
    rng = np.random.default_rng(0)
    index = rng.integers(0, 3, 900)
    for dtype in (np.float32, np.float64):
        rows = rng.standard_normal((900, 2)).astype(dtype)
        mine = [np.add.reduceat(rows[index == i].astype(np.float64), [0])[0] for i in range(3)]
        assert np.array_equal(embedding.sum_by_index(rows, index, 3), np.stack(mine).astype(dtype))


@pytest.mark.parametrize("bad", [5, -6])
def test_indices_outside_the_table_are_refused(bad):
    with pytest.raises(ValueError, match=r"indices must be in \[-5, 5\); received"):
        built().forward(np.array([[0, bad]]))


@pytest.mark.parametrize("arguments", [(0, 3), (5, -1), (True, 3), (5, 2.0)])
def test_sizes_must_be_positive_integers(arguments):
    name = "input_dim" if arguments[1] == 3 else "output_dim"
    with pytest.raises(ValueError, match=f"Embedding: {name} must be a positive integer"):
        Embedding(*arguments)


def test_a_chain_casts_indices_and_trains():
    chain = Sequential([Embedding(5, 3), Flatten(), Dense(2)])
    chain.compile("sgd", "mse")
    chain.build((None, 4))
    before = chain.layers[0].weights["embeddings"].copy()
    chain.fit(INDICES, np.ones((2, 2)), epochs=1, verbose=0)
    moved = np.any(chain.layers[0].weights["embeddings"] != before, axis=1)
    assert moved.tolist() == [True, True, False, True, True]


@pytest.mark.parametrize("arguments", Embedding.examples, ids=str)
def test_config_is_kerass(check_config, arguments):
    check_config(Embedding, arguments, (None, 4))


def last_one_wins(rows, index, count):
    result = np.zeros((count, rows.shape[1]))
    result[index] = rows
    return result


def test_finite_differences_find_overwritten_rows(check_gradients, monkeypatch):
    monkeypatch.setattr(embedding, "sum_by_index", last_one_wins)
    with pytest.raises(AssertionError, match="wrong"):
        check_gradients(Embedding(5, 3, dtype="float64"), INDICES)


def test_keras_finds_overwritten_rows(check_against_keras, monkeypatch):
    monkeypatch.setattr(embedding, "sum_by_index", last_one_wins)
    with pytest.raises(AssertionError, match="apart"):
        check_against_keras(Embedding(5, 3, dtype="float64"), INDICES)


def test_the_first_and_the_last_index():
    layer = built()
    table = layer.weights["embeddings"]
    for index in (-5, 0, 4):
        assert np.array_equal(layer.forward(np.array([[index]]))[0], table[[[index]]])


def test_the_table_has_named_axes():
    assert built().axes == {"embeddings": ("index", "out")}
