"""Philox and what is drawn from it: known answers, recorded values, and TensorFlow itself where it is installed."""

import itertools

import numpy as np
import pytest

from scratchnet import philox

SEEDS = (0, 7, 2**31 - 2, 2**40 + 3, -5)  # the third folds to 0, the next two are beyond 31 bits and below zero
SHAPES = ((), (0,), (1,), (3,), (5, 7), (3, 3, 2, 8))
LARGE = ((784, 16), (40_000,))  # more than one of TensorFlow's threads fills
DTYPES = ("float32", "float64")

# Both sides take log, sin and cos of the same numbers, each in its own library: NumPy's are documented within 4 ulp,
# glibc's within 1, so they differ by at most 5. The root halves the relative error of log; the root and the product
# round by half an ulp a side.
BOX_MULLER_ULPS = 5 / 2 + 1 + 5 + 1


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, (0xFFFFFFFF, 0xFFFFFFFF), [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_known_answers_of_the_authors(counter, key, expected):
    assert philox.philox(np.array(counter), key).tolist() == expected


def test_block_numbers_go_on_in_the_second_counter_word():
    block = philox.Stream(key=(1, 2), upper=(3, 4)).blocks(np.array([2**32 + 5]))
    assert np.array_equal(block, philox.philox(np.array([[5, 1, 3, 4]]), (1, 2)))


def test_recorded_from_keras():
    """Keras 3.15.1 on TensorFlow 2.21.0; for machines without them."""
    assert philox.uniform((3,), 1234).tolist() == [0.7416714429855347, 0.9717655181884766, 0.20326101779937744]
    assert philox.uniform((2,), 1234, "float64").tolist() == [0.9333716034363313, 0.6260884698219156]
    assert philox.permutation(10, 1234).tolist() == [2, 4, 9, 5, 0, 6, 1, 7, 8, 3]
    assert philox.permutation(10, 0).tolist() == [2, 0, 5, 8, 7, 1, 9, 6, 3, 4]
    assert philox.dropout_mask((8,), 0.4, seed=3, counter=0).tolist() == [0, 1, 1, 1, 0, 0, 0, 0]
    assert philox.dropout_mask((8,), 0.4, seed=3, counter=1).tolist() == [1, 1, 0, 1, 1, 0, 1, 0]


@pytest.mark.parametrize("draw", [philox.uniform, philox.normal, philox.truncated_normal])
@pytest.mark.parametrize("dtype", DTYPES)
def test_shape_and_dtype(draw, dtype):
    for shape in SHAPES:
        drawn = draw(shape, 3, dtype)
        assert (drawn.shape, drawn.dtype) == (shape, dtype)


@pytest.mark.parametrize("draw", [philox.uniform, philox.normal, philox.truncated_normal])
def test_other_dtypes_are_refused(draw):
    with pytest.raises(ValueError, match="float16"):
        draw((2,), 3, "float16")


def test_truncated_normal_redraws_without_shifting_the_rest():
    """All values are within the cut, and a longer array begins with the shorter one."""
    long = philox.truncated_normal((40_000,), 11)
    assert np.abs(long).max() < 2
    assert np.array_equal(long[:10_001], philox.truncated_normal((10_001,), 11))


@pytest.mark.parametrize("n", [0, 1, 2, 57])
def test_permutation_holds_each_index_once(n):
    assert sorted(philox.permutation(n, 5).tolist()) == list(range(n))


def drawn_by_keras(keras, name, shape, seed, dtype):
    return np.asarray(getattr(keras.random, name)(shape, seed=seed, dtype=dtype))


def assert_equal_up_to_rounding(drawn, expected, shape):
    allowed = BOX_MULLER_ULPS * np.finfo(drawn.dtype).eps * np.abs(expected)
    assert np.all(np.abs(drawn - expected) <= allowed), shape


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_uniform_is_keras_bit_for_bit(keras, answers, seed, dtype):
    for shape in SHAPES:
        expected = answers(lambda shape=shape: drawn_by_keras(keras, "uniform", shape, seed, dtype))
        assert np.array_equal(philox.uniform(shape, seed, dtype), expected), shape


@pytest.mark.parametrize("name", ["normal", "truncated_normal"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_normals_are_keras_up_to_rounding(keras, answers, seed, dtype, name):
    for shape in SHAPES:
        expected = answers(lambda shape=shape: drawn_by_keras(keras, name, shape, seed, dtype))
        assert_equal_up_to_rounding(getattr(philox, name)(shape, seed, dtype), expected, shape)


@pytest.mark.tensorflow
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_arrays_are_keras(keras, dtype):
    for seed, shape in itertools.product(SEEDS, LARGE):
        expected = drawn_by_keras(keras, "uniform", shape, seed, dtype)
        assert np.array_equal(philox.uniform(shape, seed, dtype), expected), shape
        for name in ("normal", "truncated_normal"):
            expected = drawn_by_keras(keras, name, shape, seed, dtype)
            assert_equal_up_to_rounding(getattr(philox, name)(shape, seed, dtype), expected, shape)


@pytest.mark.parametrize("dtype", DTYPES)
def test_seed_generator_counts_calls(keras, answers, dtype):
    def three_calls():
        generator = keras.random.SeedGenerator(99)
        return [np.asarray(keras.random.uniform((6,), seed=generator, dtype=dtype)) for _ in range(3)]

    for counter, expected in enumerate(answers(three_calls)):
        assert np.array_equal(philox.uniform((6,), 99, dtype, counter=counter), expected)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_mask_is_the_layers(keras, answers, rate, dtype):
    def three_calls():
        layer = keras.layers.Dropout(rate, seed=21, dtype=dtype)
        return [np.asarray(layer(np.ones((16, 9), dtype), training=True)) != 0 for _ in range(3)]

    for counter, kept in enumerate(answers(three_calls)):
        assert np.array_equal(philox.dropout_mask((16, 9), rate, 21, counter, dtype), kept)


@pytest.mark.parametrize("seed", [0, 1234, 2**31 - 1, 2**32 - 1])
@pytest.mark.parametrize("n", [1, 2, 10, 1000])
def test_permutation_is_the_data_adapters(keras, answers, n, seed):
    def two_epochs():
        keras.utils.set_random_seed(seed)
        from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter

        batches = ArrayDataAdapter(np.arange(n), batch_size=32, shuffle=True).get_tf_dataset()
        return [np.concatenate([batch.numpy() for batch in batches]).astype(np.int16) for _ in range(2)]

    for seen in answers(two_epochs):
        assert np.array_equal(philox.permutation(n, seed), seen)


def test_permutation_is_the_order_of_every_epoch_of_fit(keras, answers):
    """Two calls of fit, three epochs in all, with a dropout layer that draws numbers of its own."""
    n, seed = 23, 1234

    def order():
        seen = []

        def recording_loss(targets, predictions):
            seen.extend(np.asarray(targets).ravel().astype(int).tolist())
            return keras.ops.mean(keras.ops.square(predictions), axis=-1)

        keras.utils.set_random_seed(seed)
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
        model.compile("sgd", recording_loss, run_eagerly=True)
        targets = np.arange(n, dtype="float32")[:, None]
        model.fit(targets, targets, batch_size=8, epochs=2, verbose=0)
        model.fit(targets, targets, batch_size=8, epochs=1, verbose=0)
        return seen

    assert answers(order) == 3 * philox.permutation(n, seed).tolist()
