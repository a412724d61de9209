"""Who is right, what could not be seen, whether it matters, and which arithmetic explains it."""

import numpy as np
import pytest

import parity
from parity import cases, oracle, pipeline, probe
from parity.runners import keras as keras_runner
from parity.runners import scratch, steps
from scratchnet import activations, layers

pytestmark = pytest.mark.tensorflow


def images(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, 28, 28))


def test_tensorflow_is_the_odd_one_out_where_labels_do_not_sum_to_one() -> None:
    spec = cases.find("tanh-16")[0]
    y = np.random.default_rng(1).random((8, 10))
    report = parity.check(spec, x=images(8), y=y)
    assert report.verdict == "fail"
    for check in report.checks:
        assert check.first_wrong is not None
        assert check.first_wrong.tensor == "dense_2/pre_activation.gradient"
        assert "TensorFlow is the odd one out" in check.vote
        assert "it is softmax - y, whatever the sum of y" in check.vote
    assert "TensorFlow is the odd one out" in report.sentence


def test_no_vote_against_a_right_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    right = activations.Tanh.backward
    monkeypatch.setattr(activations.Tanh, "backward", lambda self, x, y, dy: right(self, x, y, dy) * 1.5)
    report = parity.check("tanh-16", loss="mse", batch=8)
    for check in report.checks:
        assert check.first_wrong is not None
        assert check.first_wrong.tensor == "dense_1/pre_activation.gradient"
        assert "finite differences agree with TensorFlow" in check.vote


def test_whether_it_matters_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    right = activations.Tanh.backward
    monkeypatch.setattr(activations.Tanh, "backward", lambda self, x, y, dy: right(self, x, y, dy) * 1.5)
    assert "end to end it matters" in parity.check("tanh-16", dtype="float32", batch=8).sentence
    monkeypatch.setattr(
        activations.Tanh, "backward", lambda self, x, y, dy: right(self, x, y, dy) * np.float32(1 + 5e-7)
    )
    report = parity.check("tanh-16", dtype="float32", batch=8)
    assert report.verdict == "fail"
    assert "end to end it does not matter" in report.sentence


def test_every_correct_case_is_within_the_noise_end_to_end() -> None:
    """The limit above which an error is said to matter is not reached by correct networks."""
    largest = {}
    for spec in cases.cases():
        network = scratch.Network.of(spec)
        weights = probe.weights(network.weights, 0)
        x = probe.samples(network.input_shape, 32, 0, network.indices)
        y = probe.labels(network.output_shape, 32, 0, network.labels)
        x = x if network.indices else x.astype(np.float32)
        reference = keras_runner.run(spec, weights, x, y)
        wide = {n: w.astype(np.float64) for n, w in weights.items()}
        exact = keras_runner.run(spec.with_dtype("float64"), wide, x, y)
        largest[spec.name] = max(oracle.floors(scratch.run(spec, weights, x, y), reference, exact).values())
    assert max(largest.values()) <= oracle.NOISE, largest


def rounded_to(bits: int, array: np.ndarray) -> np.ndarray:
    mantissa, exponent = np.frexp(array)
    return np.ldexp(np.round(mantissa * 2.0 ** (bits + 1)) / 2.0 ** (bits + 1), exponent).astype(array.dtype)


@pytest.mark.parametrize(("bits", "name"), [(10, "half precision"), (7, "half precision")])
def test_reduced_precision_is_recognised(monkeypatch: pytest.MonkeyPatch, bits: int, name: str) -> None:
    """Products of operands that keep few bits, as such hardware makes them, in the subject alone."""
    replay = scratch.replay

    def on_other_hardware(operation: steps.Operation) -> dict[str, np.ndarray]:
        if operation.kind != "Dense" or operation.direction != "forward":
            return {}
        return {"z": rounded_to(bits, operation["x"]) @ rounded_to(bits, operation["kernel"]) + operation["bias"]}

    def replay_there(*arguments: object, **keywords: object) -> object:
        return replay(*arguments, **{"settle": on_other_hardware, **keywords})  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline.scratch, "replay", _only_numbers(replay, replay_there))
    report = parity.check("tanh-16", dtype="float32", batch=8, modes=("eager",))
    assert report.verdict == "fail"
    assert name in report.checks[0].vote


def _only_numbers(right, other):
    """The other hardware is the subject's: the bounds, which replay with Bounded numbers, stay as they are."""
    return lambda *a, **k: right(*a, **k) if len(a) > 4 else other(*a, **k)


def test_a_formula_that_is_wrong_is_not_taken_for_reduced_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    right = layers.Dense.transform_backward

    def doubled(self, saved, dz):
        dx, grads = right(self, saved, dz)
        return dx, {**grads, "kernel": 2 * grads["kernel"]}

    monkeypatch.setattr(layers.Dense, "transform_backward", doubled)
    assert "bits of mantissa" not in parity.check("tanh-16", dtype="float32", batch=8).sentence


class TestBlindSpots:
    def seen(self, stack, shape, x=None, weights=None, loss="mse", what="blind") -> str:
        import keras

        model = keras.Sequential([keras.Input(shape), *stack])
        model.compile(loss=loss)
        if weights is not None:
            model.set_weights(weights(model.get_weights()))
        n = 8 if x is None else len(x)
        x = np.random.default_rng(0).standard_normal((n, *shape)) if x is None else x
        y = np.random.default_rng(1).standard_normal((len(x), *model.output_shape[1:]))
        report = parity.check(model, x=x, y=y, modes=("eager",))
        assert report.verdict == "pass"
        return "\n".join(sentence for check in report.checks for sentence in getattr(check, what))

    def test_fresh_keras_weights_have_zero_biases(self, keras) -> None:
        assert "all zero, so that forgetting them looks right: head/bias" in self.seen(
            [keras.layers.Dense(3, name="head")], (5,)
        )

    def test_a_batch_of_one(self, keras) -> None:
        assert "a batch of one" in self.seen([keras.layers.Dense(3)], (5,), np.ones((1, 5)))

    def test_square_kernels(self, keras) -> None:
        assert "transposed one would have the right shape: sq/kernel" in self.seen(
            [keras.layers.Dense(5, name="sq")], (5,)
        )

    def test_dead_units_and_kinks(self, keras) -> None:
        stack = [keras.layers.Dense(4, "relu", name="r"), keras.layers.Dense(2)]
        weights = lambda w: [w[0] * 0, w[1] * 0 - np.array([1, 0, 0, -1]), *w[2:]]  # noqa: E731
        assert "3 of 4 units of r are dead" in self.seen(stack, (5,), weights=weights)
        stack = [keras.layers.Dense(4, "relu", name="r"), keras.layers.Dense(2)]
        said = self.seen(stack, (5,), weights=weights, what="kinks")
        said_of_r = "16 elements of r/pre_activation.gradient are exactly at the kink of relu: TensorFlow takes 0"
        assert f"{said_of_r}, and so do you" in said

    def test_ties_in_windows(self, keras) -> None:
        stack = [keras.layers.MaxPooling2D(name="pool"), keras.layers.Flatten(), keras.layers.Dense(2)]
        x = np.ones((3, 4, 4, 1))
        x[:, :2, :2, 0] = [[1, 2], [3, 4]]
        said = self.seen(stack, (4, 4, 1), x, what="kinks")
        assert "9 windows of pool have equal maxima (36 elements of input.gradient)" in said

    def test_what_only_training_or_a_second_pass_shows(self, keras) -> None:
        """What one pass makes of moving averages is compared; which cells the next pass drops is not."""
        stack = [keras.layers.BatchNormalization(name="bn"), keras.layers.Dropout(0.5, seed=1, name="drop")]
        said = self.seen([*stack, keras.layers.Dense(2)], (5,)).split("\n")
        assert "the other one of training and inference: bn, drop" in said
        assert "passes after the first, in which other cells are dropped: drop" in said
        assert not any("passes after" in one for one in self.seen([stack[0], keras.layers.Dense(2)], (5,)).split("\n"))

    def test_saturated_units(self, keras) -> None:
        stack = [keras.layers.Dense(4, "tanh", name="t"), keras.layers.Dense(2)]
        assert "of t is saturated" in self.seen(stack, (5,), weights=lambda w: [w[0] * 100, *w[1:]])

    def test_an_epsilon_that_cannot_be_seen(self, keras) -> None:
        stack = [keras.layers.BatchNormalization(name="bn"), keras.layers.Dense(2)]
        large = np.random.default_rng(2).standard_normal((16, 5)) * 1e4
        assert "another epsilon looks right" in self.seen(stack, (5,), large)
        assert "another epsilon" not in self.seen(stack, (5,))

    def test_a_gradient_that_is_zero_by_construction(self, keras) -> None:
        """A bias in front of a batch normalisation: the mean takes it away again."""
        stack = [keras.layers.Dense(4, name="d"), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
        assert "no larger than their rounding, judged on the scale of what was summed: d/bias.gradient" in self.seen(
            stack, (5,)
        )


def test_the_other_side_of_a_kink_is_told_from_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Field case: a derivative of relu that is 1 at 0, on a network that has zeros."""
    monkeypatch.setattr(activations.Relu, "backward", lambda self, x, y, dy: np.where(x >= 0, dy, np.zeros_like(dy)))
    report = parity.check("relu-at-zero", modes=("eager",))
    assert report.verdict == "fail"
    for check in report.checks:
        assert any(
            "TensorFlow takes 0, you take 1, the derivative from the other side; no other difference" in said
            for said in check.kinks
        )


def test_nothing_can_be_concluded_from_zero_gradients(keras) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(loss="mse")
    x = np.ones((4, 3))
    report = parity.check(model, x=x, y=model.predict(x, verbose=0), dtype="float32", modes=("eager",))
    assert report.verdict == "no power"
    assert report.exit_status == 3


def test_an_optimizer_that_scratchnet_lacks_is_said(keras) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    report = parity.check(model, dtype="float32", modes=("eager",))
    assert report.passed
    assert report.checks[0].skipped == {"updated weights": "no optimizer that scratchnet has"}


def test_the_command_names_the_data() -> None:
    assert "--data digits" in parity.check("tanh-16", data="digits", dtype="float32").command
    assert "--data" in parity.check("tanh-16", dtype="float32").command
    assert "data='digits'" in parity.check("tanh-16", data="digits", dtype="float32", training=False).command


def test_dropout_is_not_compared_with_xla_which_draws_other_cells() -> None:
    with pytest.raises(parity.UsageError, match="normalized drops cells at random, and XLA draws other ones"):
        parity.check("normalized", modes=("eager", "xla"))
    assert parity.check("normalized", dtype="float32", modes=("xla",), training=False).passed


def test_gradients_near_the_smallest_number_are_not_judged_by_what_is_flushed(keras) -> None:
    model = keras.Sequential([keras.Input((6,)), keras.layers.LayerNormalization(epsilon=1e-5), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    model.set_weights([w * 1e-15 if w.ndim == 2 else w for w in model.get_weights()])
    x = np.random.default_rng(3).standard_normal((8, 6)) * 1e-3
    assert parity.check(model, x=x, y=np.full((8, 3), 1e-17), modes=("eager",)).verdict in ("pass", "no power")


def test_many_equal_indices_in_a_batch(keras) -> None:
    """Equal rows are added one by one in Keras, and all err alike."""
    model = keras.Sequential(
        [keras.Input((224,)), keras.layers.Embedding(2, 5), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    model.compile("sgd", "mae")
    x = np.random.default_rng(0).integers(0, 2, (27, 224))
    assert parity.check(model, x=x, y=np.full((27, 2), 1e3), modes=("eager",)).passed
