"""Every known difference is shown on the installed versions, and the page lists the table as it is."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from parity.known import KNOWN, Known

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "known-differences.md"
MODES = ("eager", "function", "xla")
BY_CODE = {known.code: known for known in KNOWN}

Shown = Mapping[str, str]


def modes(function: Callable[[Any], Any], x: Any, digits: int = 4) -> Shown:
    """Mode -> what comes out of `function`, in words."""
    return {mode: outcome(function, x, mode, digits) for mode in MODES}


def outcome(function: Callable[[Any], Any], x: Any, mode: str, digits: int = 4) -> str:
    import tensorflow as tf

    call = function if mode == "eager" else tf.function(function, autograph=False, jit_compile=mode == "xla")
    try:
        return words(call(tf.constant(x)).numpy(), digits)
    except tf.errors.InvalidArgumentError:
        return "error"


def words(values: Any, digits: int = 4) -> str:
    return " ".join(f"{value:.{digits}g}" for value in np.ravel(values))


def slope(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """x -> the gradient of the sum of function(x)."""

    def gradient(x: Any) -> Any:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, x)

    return gradient


# -- one function for each known difference ----------------------------------------------------------------------------


def selu_at_zero(keras: ModuleType) -> Shown:
    return modes(slope(keras.activations.selu), np.float32([0]))


def elu_near_zero(keras: ModuleType) -> Shown:
    return modes(keras.activations.elu, np.float32([-1e-7]))


def tanh_saturated(keras: ModuleType) -> Shown:
    return modes(slope(keras.activations.tanh), np.float32([7.95]))


def gelu_approximate_tail(keras: ModuleType) -> Shown:
    return modes(slope(lambda x: keras.activations.gelu(x, approximate=True)), np.float32([-4]))


def hard_silu_at_infinity(keras: ModuleType) -> Shown:
    return modes(slope(keras.activations.hard_silu), np.float32([np.inf, -np.inf]))


def softmax_of_infinity(keras: ModuleType) -> Shown:
    return modes(keras.activations.softmax, np.float32([[np.inf, 0, 1, 2]]))


def cosine_similarity_of_zero(keras: ModuleType) -> Shown:
    target = np.float32([[1, 0]])
    return modes(slope(lambda p: keras.losses.cosine_similarity(target, p)), np.float32([[0, 0]]))


def max_pooling_of_minus_infinity(keras: ModuleType) -> Shown:
    return modes(keras.layers.MaxPooling2D(2), np.full((1, 2, 2, 1), -np.inf, np.float32))


def max_pooling_of_nan(keras: ModuleType) -> Shown:
    return modes(slope(keras.layers.MaxPooling2D(2)), np.float32([np.nan, 1, 2, 0]).reshape(1, 2, 2, 1))


def global_max_of_nan(keras: ModuleType) -> Shown:
    return modes(keras.layers.GlobalMaxPooling2D(), np.float32([np.nan, 1, 2, 0]).reshape(1, 2, 2, 1))


def sparse_label_out_of_range(keras: ModuleType) -> Shown:
    loss = keras.losses.sparse_categorical_crossentropy
    return modes(lambda z: loss(np.array([5]), z, from_logits=True), np.float32([[1, 2, 3]]))


def index_out_of_range(keras: ModuleType) -> Shown:
    layer = keras.layers.Embedding(3, 1)
    layer.build()
    layer.set_weights([np.float32([[1], [2], [3]])])
    return modes(layer, np.array([5]))


def dropout_mask(keras: ModuleType) -> Shown:
    def kept(mode: str) -> str:
        dropout = keras.layers.Dropout(0.5, seed=7)  # a fresh one: each call draws other cells
        cells = lambda x: keras.ops.cast(dropout(x, training=True)[0] != 0, "float32")  # noqa: E731
        return outcome(cells, np.ones((2, 8), np.float32), mode)

    return {mode: kept(mode) for mode in MODES}


def raw_softmax(keras: ModuleType) -> Shown:
    import tensorflow as tf

    target = np.float32([[0, 1, 0]])
    loss = keras.losses.categorical_crossentropy
    return modes(lambda z: loss(target, tf.nn.softmax(z)), np.float32([[40, 0, -1]]))


def raw_sigmoid(keras: ModuleType) -> Shown:
    import tensorflow as tf

    target = np.float32([[0]])
    return modes(lambda z: keras.losses.binary_crossentropy(target, tf.sigmoid(z)), np.float32([[40]]))


def eager_graph_last_bit(keras: ModuleType) -> Shown:
    return modes(keras.activations.hard_sigmoid, np.float32([-1.7]), digits=8)


def targets_not_summing_to_one(keras: ModuleType) -> Shown:
    """In processes of their own: op determinism cannot be switched off again."""
    script = """
        import keras, numpy as np, tensorflow as tf
        if {deterministic}:
            tf.config.experimental.enable_op_determinism()
        logits = tf.constant([[1.0, 2.0, 3.0]])
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = keras.losses.categorical_crossentropy(np.float32([[1, 1, 0]]), logits, from_logits=True)
        print(*(f"{{g:.4g}}" for g in np.ravel(tape.gradient(loss, logits))))
    """
    by_default, deterministic = (printed(script.format(deterministic=d)) for d in (False, True))
    return {"default": by_default, "enable_op_determinism()": deterministic}


def onednn_last_bits(keras: ModuleType) -> Shown:
    return {"oneDNN": "one result", "TF_ENABLE_ONEDNN_OPTS=0": compared(product(32), product(32, onednn="0"))}


def thread_last_bits(keras: ModuleType) -> Shown:
    return {"2 threads": "one result", "1 thread": compared(product(1), product(1, threads=1))}


def product(rows: int, threads: int = 2, onednn: str = "1") -> str:
    """The bytes of (rows, 784) @ (784, 500) in a process of its own, as hexadecimal digits."""
    script = f"""
        import numpy as np, tensorflow as tf
        tf.config.threading.set_intra_op_parallelism_threads({threads})
        rng = np.random.default_rng(0)
        x, kernel = (rng.standard_normal(shape).astype("float32") for shape in (({rows}, 784), (784, 500)))
        print((tf.constant(x) @ tf.constant(kernel)).numpy().tobytes().hex())
    """
    return printed(script, TF_ENABLE_ONEDNN_OPTS=onednn)


def compared(one: str, other: str) -> str:
    """`another in the last bits` where every element agrees to 1e-5 of the largest but not all bits do."""
    a, b = (np.frombuffer(bytes.fromhex(text), np.float32) for text in (one, other))
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.max(np.abs(a)))  # 784 terms: sqrt(784) * 2^-24 = 1.7e-6
    return "the same" if np.array_equal(a, b) else "another in the last bits"


def printed(script: str, **environment: str) -> str:
    variables = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", **environment}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    run = subprocess.run(command, capture_output=True, text=True, env=variables)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


IN_PROCESS = {
    "selu-at-zero": selu_at_zero,
    "elu-near-zero": elu_near_zero,
    "tanh-saturated": tanh_saturated,
    "gelu-approximate-tail": gelu_approximate_tail,
    "hard-silu-at-infinity": hard_silu_at_infinity,
    "softmax-of-infinity": softmax_of_infinity,
    "cosine-similarity-of-zero": cosine_similarity_of_zero,
    "max-pooling-of-minus-infinity": max_pooling_of_minus_infinity,
    "max-pooling-of-nan": max_pooling_of_nan,
    "global-max-of-nan": global_max_of_nan,
    "sparse-label-out-of-range": sparse_label_out_of_range,
    "index-out-of-range": index_out_of_range,
    "dropout-mask": dropout_mask,
    "raw-softmax": raw_softmax,
    "raw-sigmoid": raw_sigmoid,
    "eager-graph-last-bit": eager_graph_last_bit,
}
IN_OTHER_PROCESSES = {
    "targets-not-summing-to-one": targets_not_summing_to_one,
    "onednn-last-bits": onednn_last_bits,
    "thread-last-bits": thread_last_bits,
}


@pytest.mark.tensorflow
@pytest.mark.parametrize("code", IN_PROCESS)
def test_the_difference_still_applies(code: str, keras: ModuleType) -> None:
    assert IN_PROCESS[code](keras) == BY_CODE[code].results


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("code", IN_OTHER_PROCESSES)
def test_the_difference_between_processes_still_applies(code: str, keras: ModuleType) -> None:
    assert IN_OTHER_PROCESSES[code](keras) == BY_CODE[code].results


@pytest.mark.tensorflow
def test_what_does_not_differ_would_be_noticed(keras: ModuleType) -> None:
    """The kink of relu is the same in all three modes, so it must not be in the table."""
    shown = modes(slope(keras.activations.relu), np.float32([0]))
    assert shown == {"eager": "0", "function": "0", "xla": "0"}
    assert not differs(Known("relu-at-zero", "derivative of relu at 0", shown, ""))


def differs(known: Known) -> bool:
    return len(set(known.results.values())) > 1


def test_each_is_a_difference_with_a_reason_and_is_shown() -> None:
    assert len(BY_CODE) == len(KNOWN)
    assert {*IN_PROCESS, *IN_OTHER_PROCESSES} == set(BY_CODE)
    assert all(differs(known) and known.reason for known in KNOWN)


def line(known: Known) -> str:
    results = "<br>".join(f"{condition}: {result}" for condition, result in known.results.items())
    return f"| `{known.code}` | {known.where} | {results} | {known.reason} |"


def test_the_page_lists_the_table() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert [text for text in lines if text.startswith("| `")] == [line(known) for known in KNOWN]
