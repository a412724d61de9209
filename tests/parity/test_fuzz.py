"""Random networks: what is drawn, that correct ones pass, and that a planted mistake is found, shrunk and printed."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import settings

from parity import fuzz
from parity.errors import NothingConcluded, UsageError
from parity.fuzz import Case, Made
from parity.runners import scratch
from scratchnet import activations, optimizers, registry
from scratchnet.layers import Conv2D, Dense, SimpleRNN

MANY = settings(max_examples=800, database=None, phases=(hypothesis.Phase.generate,))

DENSE = Made("layer", "Dense", {"units": 2, "activation": "tanh"})
SMALL = Case(
    layers=(DENSE,),
    input_shape=(3,),
    loss=Made("loss", "MeanSquaredError", {}),
    optimizer=Made("optimizer", "SGD", {}),
    dtype="float32",
    batch=4,
    seed=1,
    weight_scale=1.0,
    input_scale=4.0,
    probe="halves",
    mode="eager",
)


def drawn() -> list[Case]:
    """Many random networks, the same in every run."""
    found: list[Case] = []
    with contextlib.suppress(hypothesis.errors.NoSuchExample):
        hypothesis.find(fuzz.networks(), lambda case: found.append(case), settings=MANY, random=Random(0))
    return found


@pytest.fixture(scope="module")
def many() -> list[Case]:
    return drawn()


def mentioned(value: Any) -> Iterator[tuple[str, str]]:
    """(family, name) of everything that a case is made of."""
    if isinstance(value, Made):
        yield value.family, value.name
        if "activation" in value.arguments:
            yield "activation", value.arguments["activation"]
        for argument in value.arguments.values():
            yield from mentioned(argument)


def parts(case: Case) -> set[tuple[str, str]]:
    return {part for made in (*case.layers, case.loss, case.optimizer) for part in mentioned(made)}


@pytest.mark.parametrize("family", ["layer", "activation", "loss", "optimizer", "regularizer"])
def test_everything_that_is_registered_is_drawn(family: str, many: list[Case]) -> None:
    found = set().union(*map(parts, many))
    assert {(family, name) for name in registry.entries(family)} <= found


def test_a_new_activation_is_drawn_without_a_change_here(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cube(activations.Tanh):
        registered_name = "cube"

    monkeypatch.setitem(registry._TABLE["activation"], "cube", Cube)
    assert ("activation", "cube") in set().union(*map(parts, drawn()))


@pytest.mark.parametrize("value", [*fuzz.SCALES, *fuzz.PROBES, "float32", "float64", "xla", False])
def test_scales_probes_dtypes_modes_and_switches_are_drawn(value: Any, many: list[Case]) -> None:
    def has(case: Case) -> bool:
        chosen = (case.weight_scale, case.input_scale, case.probe, case.dtype, case.mode)
        return value in chosen or any(value is v for layer in case.layers for v in layer.arguments.values())

    assert any(map(has, many))


def test_a_recurrence_is_short_and_its_weights_are_not_the_largest(many: list[Case]) -> None:
    """Or it overflows."""
    recurrent = [case for case in many if any(layer.name == "SimpleRNN" for layer in case.layers)]
    assert recurrent
    for case in recurrent:
        assert case.weight_scale < max(fuzz.SCALES)
        chain, shape = scratch.build(case.spec), (None, *case.input_shape)
        for layer in chain.layers:
            assert not isinstance(layer, SimpleRNN) or shape[1] <= fuzz.STEPS
            shape = layer.compute_output_shape(shape)


def test_what_is_drawn_runs_in_scratchnet_and_can_be_written_down(many: list[Case]) -> None:
    for case in many[:100]:
        chain = scratch.build(case.spec)
        output = chain.forward(np.zeros((2, *case.input_shape)), training=True).output
        assert output.shape == (2, *(chain.output_shape or ())[1:])
        compile(fuzz.reproduce(case), "reproduced", "exec")


def test_weights_are_drawn_by_the_seed_and_scaled() -> None:
    initial = [np.ones((40, 10), np.float32), np.zeros(10, np.float32), np.ones(10, np.float32)]
    kernel, bias, gamma = fuzz.weights(initial, seed=3, scale=1.0)
    assert [w.dtype for w in (kernel, bias, gamma)] == [np.float32] * 3
    assert kernel.std() == pytest.approx(40**-0.5, rel=0.1)  # 400 numbers: a standard error of 3.5 %
    assert 0 < np.abs(bias).max() <= 0.1
    assert 0.9 <= gamma.min() < gamma.max() <= 1.1
    np.testing.assert_array_equal(fuzz.weights(initial, seed=3, scale=4.0)[0], 4 * kernel)
    assert not np.array_equal(fuzz.weights(initial, seed=4, scale=1.0)[0], kernel)


def test_no_cases_are_a_wrong_usage() -> None:
    with pytest.raises(UsageError, match="at least 1 network; received 0"):
        fuzz.run(0)


def test_without_hypothesis_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(NothingConcluded, match=r"scratchnet-parity\[test\]"):
        fuzz.run(1)


@pytest.mark.tensorflow
def test_correct_networks_pass() -> None:
    messages: list[str] = []
    result = fuzz.run(40, seed=0, progress=messages.append)
    assert result.failure is None
    assert (result.cases, result.exit_status, len(messages)) == (40, 0, 40)
    assert messages[-1] == "40 of 40 networks, 0 s left"


def _tanh(right: Any) -> Any:
    return lambda self, x, y, dy: dy * (1 - y)


def _kernel(right: Any) -> Any:
    def backward(self: Any, saved: Any, dz: Any) -> Any:
        dx, grads = right(self, saved, dz)
        return dx, {**grads, "kernel": grads["kernel"] / len(dz)}

    return backward


def _step(right: Any) -> Any:
    return lambda self, weight, gradient, state: right(self, weight, -gradient, state)


def _raises(right: Any) -> Any:
    def transform(self: Any, x: Any, training: bool) -> Any:
        raise IndexError("no such window")

    return transform


PLANTED = [
    (activations.Tanh, "backward", _tanh, "pre_activation.gradient", "tanh"),
    (Dense, "transform_backward", _kernel, "kernel.gradient", "Dense"),
    (optimizers.SGD, "step", _step, ".updated", "SGD"),
    (Conv2D, "transform", _raises, "IndexError: no such window", "Conv2D"),
]


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("cls", "method", "wrong", "where", "part"), PLANTED, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_planted_mistake_is_found_and_shrunk(
    cls: type, method: str, wrong: Any, where: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cls, method, wrong(getattr(cls, method)))
    result = fuzz.run(300, seed=1)
    assert result.exit_status == 1
    failure = result.failure
    assert failure is not None
    assert where in failure.reason
    assert part in {name for _, name in parts(failure.case)}
    assert len(failure.case.layers) <= 3


SCRIPT_PLANT = """
import scratchnet
scratchnet.activations.Tanh.backward = lambda self, x, y, dy: dy * (1 - y)
"""


@pytest.mark.tensorflow
@pytest.mark.parametrize(("plant", "status"), [("", 0), (SCRIPT_PLANT, 1)], ids=["right", "planted"])
def test_the_printed_code_runs_as_it_is_and_shows_the_failure(plant: str, status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", plant + fuzz.reproduce(SMALL)], capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    assert ("dense/pre_activation.gradient is the first tensor that differs" in done.stdout) == bool(plant)


def layers(*made: tuple[str, dict[str, Any]]) -> tuple[Made, ...]:
    return tuple(Made("layer", name, arguments) for name, arguments in made)


WIDE = replace(SMALL, batch=27, probe="normal", input_scale=1.0)
ONCE_FALSE_ALARMS = {
    "momentum that Keras holds in float32": replace(
        WIDE,
        layers=layers(("Dense", {"units": 3})),
        optimizer=Made("optimizer", "SGD", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
        dtype="float64",
    ),
    "rows of equal indices that are added one by one": replace(
        WIDE,
        layers=layers(("Embedding", {"input_dim": 50, "output_dim": 17})),
        input_shape=(200,),
        loss=Made("loss", "MeanSquaredError", {"reduction": "sum"}),
        optimizer=Made("optimizer", "SGD", {"learning_rate": 0.1}),
        weight_scale=0.1,
    ),
    "few values that are added up often": replace(
        WIDE,
        layers=layers(
            ("Embedding", {"input_dim": 5, "output_dim": 1}),
            ("Dropout", {"rate": 0.4, "seed": 1}),
            ("Softmax", {}),
            ("Dense", {"units": 16, "activation": "sigmoid"}),
        ),
        input_shape=(200,),
        loss=Made("loss", "BinaryCrossentropy", {"label_smoothing": 0.1}),
        batch=12,
        seed=607,
    ),
}


@pytest.mark.tensorflow
@pytest.mark.parametrize("case", ONCE_FALSE_ALARMS.values(), ids=ONCE_FALSE_ALARMS)
def test_what_was_a_false_alarm_once_passes(case: Case) -> None:
    assert fuzz.examine(case).first_wrong is None


KINK = replace(
    WIDE,
    layers=layers(
        ("Dense", {"units": 12, "use_bias": False, "activation": "softmax"}),
        ("ReLU", {"negative_slope": 0.1}),
        ("Dense", {"units": 7, "activation": "sigmoid"}),
    ),
    input_shape=(155,),
    dtype="float64",
    batch=40,
    seed=280,
    weight_scale=30.0,
    input_scale=30.0,
)


@pytest.mark.tensorflow
def test_two_sides_of_a_kink_are_both_right() -> None:
    """Softmaxes of 2e-314 are 0 in TensorFlow, and the relu behind them has its kink at 0."""
    check = fuzz.examine(KINK)
    assert check.first_wrong is None
    assert [row.tensor for row in check.rows if "kink" in row.note] == ["dense/output.gradient"]


@pytest.mark.tensorflow
def test_a_mistake_is_not_taken_for_a_kink(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations.Sigmoid, "backward", lambda self, x, y, dy: dy * y)
    assert fuzz.examine(KINK).first_wrong is not None


@pytest.mark.tensorflow
def test_a_mistake_is_not_blamed_on_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations.Tanh, "backward", lambda self, x, y, dy: dy * (1 - y))
    assert fuzz.examine(SMALL).first_wrong is not None
    assert not fuzz.contradicts_itself(SMALL)


@pytest.mark.tensorflow
def test_what_tensorflow_gets_wrong_is_not_blamed_on_scratchnet() -> None:
    """On CPUs where oneDNN reads memory that was never set; on others this convolution is right."""
    case = replace(
        SMALL,
        layers=layers(("Conv2D", {"filters": 2, "kernel_size": (1, 2), "strides": (1, 2)})),
        input_shape=(4, 3, 1),
        batch=17,
    )
    assert fuzz.examine(case).first_wrong is None or fuzz.contradicts_itself(case)
    assert fuzz.examine(replace(case, dtype="float64")).first_wrong is None
