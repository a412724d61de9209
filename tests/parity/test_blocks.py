"""Arrays in C order: the same bits as NumPy's own copy has, for any strides, any type, in tiles and in pieces."""

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from parity.weights import blocks
from parity.weights.blocks import contiguous, copied, pieces

DTYPES = [np.dtype(name) for name in ("f2", "f4", "f8", "i1", "u2", "i4", "u8")] + [np.dtype(ml_dtypes.bfloat16)]
SHAPES: list[tuple[int, ...]] = [(), (0,), (7,), (0, 3), (3, 0, 2), (1, 1), (5, 9), (17, 1, 6), (3, 3, 4, 5)]


def bits(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Any bits: NaN with whatever payload, denormals, zeros of both signs."""
    rng = np.random.default_rng(len(shape))
    size = int(np.prod(shape, dtype=int)) * dtype.itemsize
    return np.frombuffer(rng.bytes(size), dtype).reshape(shape)


def views(array: np.ndarray) -> list[np.ndarray]:
    """The array with its axes in every order, forwards, backwards, and every second element."""
    orders = [array.transpose(order) for order in itertools.permutations(range(array.ndim))]
    backwards = tuple(slice(None, None, -1) for _ in array.shape)
    every_second = tuple(slice(None, None, 2 - 4 * (axis % 2)) for axis in range(array.ndim))
    return [view[part] for view in orders for part in ((), backwards, every_second)]


def require_same(received: np.ndarray, expected: np.ndarray) -> None:
    assert received.shape == expected.shape
    assert received.dtype == expected.dtype
    assert received.flags.c_contiguous
    assert received.tobytes() == expected.tobytes()


@pytest.fixture
def tiny(monkeypatch):
    """Limits so small that small arrays have many tiles and pieces."""
    for name, value in {"EDGE": 2, "SMALLEST": 1, "PIECE": 64, "FEWEST_ROWS": 1}.items():
        monkeypatch.setattr(blocks, name, value)


def check(view: np.ndarray) -> None:
    expected = np.asarray(view, order="C")
    require_same(contiguous(view), expected)
    require_same(copied(view), expected)
    parts = [part.copy() for part in pieces(view)]
    require_same(np.concatenate(parts) if view.ndim else parts[0], expected)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_bit_in_tiles_and_pieces(tiny, dtype, shape):
    for view in views(bits(shape, dtype)):
        check(view)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_bit_as_it_is_by_default(shape):
    for view in views(bits(shape, np.dtype("f4"))):
        check(view)


@pytest.mark.parametrize("dtype", [np.dtype("f4"), np.dtype(ml_dtypes.bfloat16)], ids=str)
@pytest.mark.parametrize(
    ("shape", "order"),
    [((700, 900), (1, 0)), ((3, 3, 160, 200), (3, 2, 0, 1)), ((200, 160, 3, 3), (2, 3, 1, 0)), ((9, 70000), (1, 0))],
)
def test_large_arrays(dtype, shape, order):
    """With the edges, the sizes and the order of axes of real weights, and remainders at every side."""
    view = bits(shape, dtype).transpose(order)
    check(view)
    check(view[::-1])


def test_weights_are_copied_in_tiles():
    """Dense and Conv2D between Keras and PyTorch; not what NumPy copies as fast."""
    dense, hwio = np.empty((1000, 1000), "f4"), np.empty((3, 3, 256, 256), "f4")
    oihw, pixels = np.empty((256, 256, 3, 3), "f4"), np.empty((9, 3, 224, 224), "f4")
    assert blocks._scattered(dense.T)
    assert blocks._scattered(hwio.transpose(3, 2, 0, 1))
    assert blocks._scattered(oihw.transpose(2, 3, 1, 0))
    for plain in (dense, dense[::2], dense.T[:100, :100], pixels.transpose(0, 2, 3, 1)):
        assert not blocks._scattered(plain)


def test_repeated_elements(tiny):
    for view in (np.broadcast_to(np.float64(3), (4, 5)), np.broadcast_to(bits((3, 1, 4), np.dtype("f4")), (3, 5, 4))):
        check(view.T)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4"])
def test_big_endian(tiny, dtype):
    plain = bits((5, 9), np.dtype(dtype))
    big = plain.view(plain.dtype.newbyteorder(">"))
    for view in (big, big.T):
        expected = np.asarray(view, dtype, order="C")
        require_same(contiguous(view), expected)
        require_same(np.concatenate([part.copy() for part in pieces(view)]), expected)
    require_same(contiguous(plain.T, ">"), np.asarray(plain.T, plain.dtype.newbyteorder(">"), order="C"))


def test_what_is_in_order_is_not_copied():
    plain = bits((40, 30), np.dtype("f4"))
    assert contiguous(plain) is plain
    assert next(pieces(plain)) is plain
    assert not np.shares_memory(copied(plain), plain)


def test_a_piece_takes_the_memory_of_the_one_before(monkeypatch):
    monkeypatch.setattr(blocks, "PIECE", 2**16)
    array = bits((256, 1000), np.dtype("f4")).T
    parts = list(pieces(array))
    assert sum(map(len, parts)) == 1000
    assert all(np.shares_memory(part, parts[0]) for part in parts)
    assert max(part.nbytes for part in parts) <= 2**16
