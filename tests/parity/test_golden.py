"""Recorded references: Keras runs once, and whatever is judged by the recording is judged as by Keras itself."""

import importlib.util
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import parity
from parity import cases, sketch
from parity.errors import FileError, NothingConcluded, ParityError, UsageError
from parity.golden import file
from parity.golden.replay import Recorded
from parity.report import Check, Report
from parity.runners.scratch import Network
from parity.score import SIZES, score
from parity.sketch import Sketch
from parity.spec import DTYPES, Spec
from parity.subjects import Subject
from parity.trace import Trace, Weights
from scratchnet import activations, losses
from scratchnet.layers import Dense

pytestmark = pytest.mark.tensorflow

ROOT = Path(__file__).parents[2]
EAGER = ("eager",)
posix = pytest.mark.skipif(os.name != "posix", reason="forks are those of POSIX")


def _beside(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def two_layers() -> Any:
    """A live model, with zero biases, as everybody has them."""
    import keras

    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5, "tanh", name="hidden"), keras.layers.Dense(3, name="out")]
    )
    model.compile("sgd", loss="mean_squared_error")
    return model


def with_momentum() -> Any:
    import keras

    model = two_layers()
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss="mean_squared_error")
    return model


def with_layers_of_keras_alone() -> Any:
    import keras

    keras.utils.set_random_seed(0)
    stack = [keras.Input((4, 3, 2)), keras.layers.GlobalAveragePooling2D(),
             keras.layers.Dense(5, "softplus", name="first"), keras.layers.Dense(3, name="last")]  # fmt: skip
    model = keras.Sequential(stack)
    model.compile(loss="mean_squared_error")
    return model


def own() -> Subject:
    """`two_layers` in plain NumPy."""
    params = {"W1": np.zeros((6, 5)), "b1": np.zeros(5), "W2": np.zeros((5, 3)), "b2": np.zeros(3)}

    def forward(x: np.ndarray, params: Any) -> np.ndarray:
        return np.tanh(x @ params["W1"] + params["b1"]) @ params["W2"] + params["b2"]

    def backward(x: np.ndarray, y: np.ndarray, params: Any) -> Any:
        a = np.tanh(x @ params["W1"] + params["b1"])
        d = 2 * (a @ params["W2"] + params["b2"] - y) / y.size
        dz = d @ params["W2"].T * (1 - a**2)
        return {"dW1": x.T @ dz, "db1": dz.sum(0), "dW2": a.T @ d, "db2": d.sum(0)}

    return parity.subject(forward, backward, params)


def own_with_layers_of_keras_alone() -> Subject:
    subject: Subject = _beside("plain").layers_that_only_keras_has().subject
    return subject


Settings = Mapping[str, Any]
KINDS: dict[str, tuple[Any, Settings]] = {
    "both losses of a reference network": ("tanh-16", {"batch": 8, "modes": EAGER}),
    "in a function": ("activation-gelu", {"batch": 4, "modes": ("function",)}),
    "in XLA": ("loss-Huber", {"batch": 4, "modes": ("eager", "xla")}),
    "indices": ("layer-Embedding", {"batch": 5, "modes": EAGER}),
    "cells that are dropped": ("layer-Dropout", {"batch": 5, "modes": EAGER}),
    "inference": ("layer-Dropout", {"batch": 5, "modes": EAGER, "training": False}),
    "labels that are classes": ("loss-SparseCategoricalCrossentropy", {"batch": 5, "modes": EAGER}),
    "a recurrence": ("layer-SimpleRNN", {"batch": 3, "modes": EAGER}),
    "one sample": ("loss-MeanAbsoluteError", {"batch": 1, "modes": EAGER}),
    "steps of training": (with_momentum, {"batch": 5, "modes": EAGER, "steps": 3}),
    "steps with moving averages": ("layer-BatchNormalization", {"batch": 5, "modes": EAGER, "steps": 3}),
    "a live model": (two_layers, {"batch": 7, "modes": EAGER}),
    "truths for labels": (two_layers, {"x": np.eye(6), "y": np.eye(6, 3) > 0, "modes": EAGER}),
    "sketches": ("tanh-16", {"batch": 8, "modes": EAGER, "sketch_above": 1000}),
    "sketches of everything": ("layer-Conv2D", {"batch": 3, "modes": EAGER, "sketch_above": 1}),
    "sketches of what is dropped": ("layer-Dropout", {"batch": 5, "modes": EAGER, "sketch_above": 1}),
    "sketches of a live model": (two_layers, {"batch": 7, "modes": EAGER, "sketch_above": 1}),
}


@pytest.fixture(scope="module")
def folder(keras: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A golden of each kind."""
    home = tmp_path_factory.mktemp("goldens")
    for kind, (model, settings) in KINDS.items():
        made = model() if callable(model) else model
        done = parity.record(made, path_of(home, kind), **settings)
        assert done.exit_status == 0, done.sentence
        assert done.paths == (path_of(home, kind),)
    return home


def path_of(home: Path, kind: str) -> Path:
    return home / f"{kind.replace(' ', '-').replace(',', '')}.safetensors"


# -- a right network passes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_recorded_is_replayed(folder: Path, kind: str) -> None:
    report = parity.replay(path_of(folder, kind))
    assert report.verdict == "pass", report.sentence
    assert {check.dtype for check in report.checks} == set(DTYPES)
    assert report.recorded["tensorflow"]
    assert "and the recorded Keras compute the same" in report.sentence
    assert "\nrecorded: " in report.to_text()
    assert "{" not in report.to_text()
    assert bool(sum("steps of" in check.network for check in report.checks)) is ("steps" in KINDS[kind][1])


def test_the_replay_says_what_keras_says(folder: Path) -> None:
    """The same tensors, the same budgets used."""
    live = parity.check("tanh-16", batch=8, modes=EAGER)
    replayed = parity.replay(path_of(folder, "both losses of a reference network"))
    for one, other in zip(live.checks, replayed.checks, strict=True):
        assert [(row.tensor, row.shape) for row in one.rows] == [(row.tensor, row.shape) for row in other.rows]
        assert [row.budgets for row in one.rows] == pytest.approx([row.budgets for row in other.rows], abs=0.2)
        assert (one.skipped, one.blind, one.kinks, one.notes) == (other.skipped, other.blind, other.kinks, other.notes)


def test_zero_biases_are_moved_off_before_they_are_recorded(folder: Path) -> None:
    """A bias that is forgotten would hide behind them."""
    (recording,) = file.read(path_of(folder, "a live model")).recordings
    model = two_layers()
    assert not np.any(model.layers[0].bias)
    assert np.all(recording.weights["hidden/bias"] != 0)
    np.testing.assert_array_equal(recording.weights["hidden/kernel"], model.layers[0].kernel.numpy())


def test_a_file_of_a_model(keras: ModuleType, tmp_path: Path) -> None:
    model = two_layers()
    model.save(tmp_path / "net.keras")
    done = parity.record(tmp_path / "net.keras", tmp_path / "golden.safetensors", batch=5, modes=EAGER)
    assert done.exit_status == 0
    assert parity.replay(tmp_path / "golden.safetensors", model=tmp_path / "net.keras").passed
    assert parity.replay(tmp_path / "golden.safetensors", own(), model=model).passed


def test_a_folder_gets_a_file_for_each_network_and_loss(keras: ModuleType, tmp_path: Path) -> None:
    done = parity.record("loss-Huber", tmp_path / "new" / "goldens", batch=3, modes=EAGER)
    names = ["loss-Huber-huber_loss.safetensors", "loss-Huber-huber_loss-2.safetensors"]
    assert [path.name for path in done.paths] == names
    report = parity.replay(tmp_path / "new" / "goldens")
    assert report.passed
    assert len(report.checks) == 4
    assert report.command == f"parity replay {tmp_path / 'new' / 'goldens'}"


def test_sketches_make_a_golden_small(folder: Path, tmp_path: Path) -> None:
    """And the report says what they can see."""
    whole, small = (path_of(folder, kind) for kind in ("both losses of a reference network", "sketches"))
    assert small.stat().st_size < whole.stat().st_size / 2
    recordings = file.read(small).recordings
    assert all(recording.sketched for recording in recordings)
    text = parity.replay(small).to_text()
    assert "of which the worst is shown: a single element is seen from " in text or "scratchnet computes" in text
    assert "its gradient was recorded as a sketch, which does not give the update in float32" in text


# -- without TensorFlow ------------------------------------------------------------------------------------------------

WITHOUT = """
    import importlib.abc, json, sys

    class Missing(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in ("tensorflow", "keras", "torch", "h5py"):
                raise ImportError(f"{name} is not installed here")

    sys.meta_path.insert(0, Missing())
    import parity
    from parity.subjects import load

    report = parity.replay(sys.argv[1], load(sys.argv[2]) if len(sys.argv) > 2 else None)
    assert not {"tensorflow", "keras"} & set(sys.modules)
    print(json.dumps([report.verdict, len(report.checks), report.sentence]))
"""


def replayed_without(*arguments: Any) -> list[Any]:
    command = [sys.executable, "-c", textwrap.dedent(WITHOUT), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


def test_all_of_them_are_replayed_where_there_is_no_tensorflow(folder: Path) -> None:
    verdict, checks, sentence = replayed_without(folder)
    assert verdict == "pass", sentence
    assert checks >= 2 * len(KINDS)


OWN = """
    import importlib.util, sys

    spec = importlib.util.spec_from_file_location("theirs", {path!r})
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)

    def made():
        return theirs.{name}
"""


def test_a_network_of_layers_that_scratchnet_lacks(keras: ModuleType, tmp_path: Path) -> None:
    """There is only the subject to judge, also without TensorFlow."""
    model, subject = with_layers_of_keras_alone(), own_with_layers_of_keras_alone()
    path = tmp_path / "golden.safetensors"
    with pytest.raises(NothingConcluded, match=r"give your own network: --subject FILE\.py:FUNCTION"):
        parity.record(model, path, batch=7, modes=EAGER)
    assert not path.exists()
    assert parity.record(model, path, subject, batch=7, modes=EAGER).exit_status == 0
    assert parity.replay(path, subject).passed
    with pytest.raises(NothingConcluded, match="has layers that scratchnet does not have; give the network"):
        parity.replay(path)
    source = tmp_path / "mine.py"
    name = "layers_that_only_keras_has().subject"
    source.write_text(textwrap.dedent(OWN.format(path=str(Path(__file__).parent / "plain.py"), name=name)))
    verdict, checks, sentence = replayed_without(path, f"{source}:made")
    assert (verdict, checks) == ("pass", 1), sentence


def test_mistakes_around_layers_that_scratchnet_lacks_are_found(keras: ModuleType, tmp_path: Path) -> None:
    model, right = with_layers_of_keras_alone(), own_with_layers_of_keras_alone()
    path = tmp_path / "golden.safetensors"
    parity.record(model, path, right, batch=7, modes=EAGER)
    (recording,) = file.read(path).recordings
    assert recording.described is not None
    (functions,) = (right.functions,)
    backward = functions["backward"]

    def wrong(targets: np.ndarray, params: Any, cache: Any, outputs: np.ndarray) -> Any:
        dW1, db1, dW2, db2 = backward(targets, params, cache, outputs)
        return [dW1, db1 / 2, dW2, db2]

    params = {"W1": np.zeros((2, 5)), "b1": np.zeros(5), "W2": np.zeros((5, 3)), "b2": np.zeros(3)}
    report = parity.replay(path, parity.subject(functions["forward"], wrong, params))
    assert report.verdict == "fail"
    (check,) = report.checks
    assert [row.tensor for row in check.rows if not row.passed] == ["first/bias.gradient"]


# -- a wrong network does not ------------------------------------------------------------------------------------------

BACKWARD = Dense.transform_backward


def with_gradients(change: Callable[[Any, Any], dict[str, Any]]) -> Callable[..., Any]:
    """A Dense whose gradients by the weights are changed."""

    def backward(self: Dense, saved: Any, dz: Any) -> Any:
        dx, gradients = BACKWARD(self, saved, dz)
        return dx, {**gradients, **change(gradients, len(saved.x))}

    return backward


PLANTED: dict[str, tuple[str, type, str, Callable[..., Any], str]] = {
    "tanh' of the input": (
        "both losses of a reference network", activations.Tanh, "backward",
        lambda self, x, y, dy: dy * (1 - x * x), "dense_1/pre_activation.gradient",
    ),
    "the same, sketched": (
        "sketches", activations.Tanh, "backward",
        lambda self, x, y, dy: dy * (1 - x * x), "dense_1/pre_activation.gradient",
    ),
    "a bias gradient that is a mean": (
        "a live model", Dense, "transform_backward",
        with_gradients(lambda gradients, batch: {"bias": gradients["bias"] * (1 / batch)}), "out/bias.gradient",
    ),
    "a kernel gradient in another order, sketched": (
        "sketches of a live model", Dense, "transform_backward",
        with_gradients(lambda gradients, batch: {"kernel": gradients["kernel"][::-1]}), "out/kernel.gradient",
    ),
    "a loss without its half": (
        "in XLA", losses.Huber, "forward", lambda self, y, p, *rest: np.mean(np.abs(p - y)), "loss",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_mistake_in_scratchnet_is_found_where_it_is(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, cls, attribute, wrong, tensor = PLANTED[name]
    monkeypatch.setattr(cls, attribute, wrong)
    report = parity.replay(path_of(folder, kind))
    assert (report.verdict, report.exit_status) == ("fail", 1)
    assert next(check.first_wrong.tensor for check in report.checks if check.first_wrong) == tensor
    assert f"No: {tensor} is the first tensor that differs from what was recorded" in report.sentence
    assert tensor in report.to_text()


@pytest.mark.parametrize("sketched", [False, True])
def test_a_mistake_in_an_own_network_is_found_and_named(folder: Path, sketched: bool) -> None:
    path = path_of(folder, "sketches of a live model" if sketched else "a live model")
    right = own()
    assert parity.replay(path, right).passed
    backward = right.functions["backward"]

    def wrong(x: np.ndarray, y: np.ndarray, params: Any) -> Any:
        found = backward(x, y, params)
        return {**found, "db1": found["db1"] / len(x)}

    params = {"W1": np.zeros((6, 5)), "b1": np.zeros(5), "W2": np.zeros((5, 3)), "b2": np.zeros(3)}
    report = parity.replay(path, parity.subject(right.functions["forward"], wrong, params))
    assert report.cause is not None
    assert report.cause.code == "dense-bias-gradient-averaged"
    assert report.command.startswith(f"parity replay {path}")


def test_a_subject_is_not_judged_by_sketches_that_scratchnet_cannot_fill_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations.Tanh, "backward", lambda self, x, y, dy: dy * (1 - x * x))
    with pytest.raises(FileError, match="scratchnet does not compute what was recorded"):
        parity.replay(path_of(folder, "sketches of a live model"), own())
    assert parity.replay(path_of(folder, "a live model"), own()).passed  # where all is there, scratchnet is not asked


def test_steps_that_were_recorded_are_judged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A learning rate that decays, which no first step shows."""
    from scratchnet.optimizers import SGD

    step = SGD.step

    def slower(self: SGD, w: Any, g: Any, state: Any) -> Any:
        new, kept = step(self, w, g, state)
        moving = isinstance(g, np.ndarray) and any(np.any(value) for value in state.values())
        return (w + (new - w) * (1 - 1e-7) if moving else new), kept

    path = path_of(folder, "steps of training")
    monkeypatch.setattr(SGD, "step", slower)
    report = parity.replay(path)
    wrong = [check for check in report.checks if check.first_wrong]
    assert wrong
    assert all("3 steps of" in check.network for check in wrong)
    assert {check.first_wrong.tensor.partition("/")[0] for check in wrong if check.first_wrong} == {"step 2"}


# -- another network, other samples, no golden -------------------------------------------------------------------------


def test_the_golden_of_another_network_is_refused(folder: Path) -> None:
    path = path_of(folder, "a live model")
    model = two_layers()
    x, y = file.read(path).recordings[0].x, file.read(path).recordings[0].y
    assert parity.replay(path, x=x, y=y, model=model).passed
    import keras

    wider = keras.Sequential([keras.Input((6,)), keras.layers.Dense(7, "tanh"), keras.layers.Dense(3)])
    wider.compile("sgd", loss="mean_squared_error")
    others: list[tuple[dict[str, Any], str]] = [
        ({"model": wider}, "layer 'dense.*': its units is 5 where 7 is expected. If the network was meant to change"),
        ({"model": model, "loss": "mean_absolute_error"}, "its loss is .*MeanSquaredError.* is expected"),
        ({"model": "tanh-16"}, "expected a recording of tanh-16, categorical_crossentropy; it has 2 layers where 4"),
        ({"x": x + 1, "y": y}, "x: expected the values that were given, the golden has others. If the samples"),
        ({"x": x, "y": y * 2}, "y: expected the values that were given, the golden has others"),
        ({"x": x[:3], "y": y[:3]}, r"x: expected shape \(3, 6\), the golden has shape \(7, 6\)"),
    ]
    for asked, text in others:
        with pytest.raises(FileError, match=text) as caught:
            parity.replay(path, **asked)
        assert str(caught.value).startswith(f"{path}: ")
    with pytest.raises(UsageError, match="no network is called"):
        parity.replay(path, model="no-such-network")


def test_a_missing_golden_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=f"make it with: parity record MODEL {tmp_path / 'net.safetensors'}"):
        parity.replay(tmp_path / "net.safetensors")
    with pytest.raises(UsageError, match="path: expected a golden or a folder of them; received none"):
        parity.replay([])


# -- what does not pass is not recorded --------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"what was there before")
    return path


def require_unchanged(old: Path) -> None:
    assert old.read_bytes() == b"what was there before"
    assert os.listdir(old.parent) == [old.name]


def test_a_wrong_scratchnet_records_nothing(old: Path, keras: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations.Tanh, "backward", lambda self, x, y, dy: dy * (1 - x * x))
    done = parity.record("loss-MeanSquaredError", old, batch=4, modes=EAGER)
    assert (done.exit_status, done.paths) == (1, ())
    assert done.sentence.startswith("Nothing was recorded, because the check did not pass. No: ")
    require_unchanged(old)


def test_a_wrong_subject_records_nothing(old: Path, keras: ModuleType) -> None:
    right = own()
    params = {"W1": np.zeros((6, 5)), "b1": np.zeros(5), "W2": np.zeros((5, 3)), "b2": np.zeros(3)}
    wrong = parity.subject(
        lambda x, params: right.functions["forward"](x, params) * 2, right.functions["backward"], params
    )
    done = parity.record(two_layers(), old, wrong, batch=4, modes=EAGER)
    assert (done.exit_status, done.paths) == (1, ())
    require_unchanged(old)


REFUSED: dict[str, tuple[Any, dict[str, Any], type[ParityError], str]] = {
    "no model": (None, {}, UsageError, "model: expected the network to record; received None"),
    "an unknown network": ("no-such-network", {}, UsageError, "no network is called"),
    "steps below nothing": ("tanh-16", {"steps": -1}, UsageError, "steps: expected a whole number of at least 0"),
    "half a sketch": ("tanh-16", {"sketch_above": 0.5}, UsageError, "sketch_above: expected a whole number of at lea"),
    "steps of what drops cells": (
        "layer-Dropout", {"steps": 2, "batch": 3, "modes": EAGER}, UsageError, "drops cells at random, other ones at",
    ),
    "a single number": (two_layers, {"x": np.ones((2, 6)), "y": np.ones(5)}, UsageError, "x has 2 samples, y has 5"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_recorded_is_refused(name: str, old: Path, keras: ModuleType) -> None:
    model, settings, error, text = REFUSED[name]
    with pytest.raises(error, match=text):
        parity.record(model() if callable(model) else model, old, **settings)
    require_unchanged(old)


def test_too_many_networks_for_one_file_are_refused(
    old: Path, keras: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parity.weights.formats.limits.LONGEST_TEXT", 2**15)
    with pytest.raises(UsageError, match="2 networks are too many for one file; give a folder"):
        parity.record("loss-Huber", old, batch=3, modes=EAGER)
    require_unchanged(old)


def run(*arguments: Any, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "CI": "true"}
    command = [sys.executable, "-m", "parity", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, check=False)


def test_the_commands(keras: ModuleType, tmp_path: Path) -> None:
    """As somebody types them, one after the other."""
    missing = run("replay", "net.safetensors", cwd=tmp_path)
    assert (missing.returncode, missing.stdout) == (4, "")
    assert "make it with: parity record MODEL net.safetensors" in missing.stderr
    made = run("record", "loss-Huber", "net.safetensors", "--batch", 3, "--modes", "eager", cwd=tmp_path)
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.startswith("Recorded net.safetensors, ")
    again = run("replay", "net.safetensors", "--model", "loss-Huber", cwd=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.rstrip().splitlines()[-1].startswith("Yes: scratchnet and the recorded Keras compute the same")


# -- the catalogue, planted into the network that is replayed ----------------------------------------------------------


@dataclass
class Goldens:
    """Everything in a folder of goldens, in the place of Keras."""

    found: dict[str, Recorded]

    @classmethod
    def of(cls, folder: Path) -> "Goldens":
        recordings = (r for path in sorted(folder.glob("*.safetensors")) for r in file.read(path).recordings)
        return cls({cls.key(recording.spec): Recorded(recording) for recording in recordings})

    @staticmethod
    def key(spec: Spec) -> str:
        """Keras writes the class of an optimizer in small letters into the config that it reads."""
        plain = spec.seeded().with_dtype("float32")
        return json.dumps([plain.name, plain.config, plain.loss, plain.optimizer, plain.training]).lower()

    def run(self, spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, mode: str = "eager") -> Trace:
        return self.found[self.key(spec)].run(spec, weights, x, y, mode)

    def described(self, spec: Spec) -> Network:
        return self.found[self.key(spec)].described(spec)


SAMPLED = ("loss-CategoricalCrossentropy", "layer-LayerNormalization", "activation-sigmoid")
KEPT: dict[str, tuple[int | None, int]] = {
    "whole": (None, sketch.FEWEST),
    "sketches": (1, sketch.FEWEST),
    "sketches of four sums": (1, 4),
}
"""How the tensors are kept -> above how many elements as a sketch, and of how many sums at least: four, so that many
elements share one, as in large networks."""


def check_planted(specs: Sequence[Spec], kept: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Record the cases as the score has them, and plant the catalogue: each mistake is found, and where Keras itself
    finds it. Returns how many there were."""
    above, fewest = KEPT[kept]
    monkeypatch.setattr(sketch, "FEWEST", fewest)
    _, batch = SIZES["small"]
    for number, spec in enumerate(specs):
        path = folder / f"{number:03}.safetensors"
        assert parity.record(spec, path, batch=batch, modes=EAGER, sketch_above=above).exit_status == 0
    result = score(("small",), reference=Goldens.of(folder), specs=specs)
    elsewhere = [p for p in result.planted if not p.located]
    print(f"\n{kept}: {len(result.planted)} planted, {len({p.code for p in result.planted})} codes, "
          f"{sum(p.found for p in result.planted)} found, {sum(p.located for p in result.planted)} where they are",
          *elsewhere, sep="\n")  # fmt: skip
    assert result.alarms == ()
    assert [p for p in result.planted if not p.found] == []
    if elsewhere:  # the first tensor that a mistake changes may be changed by less than rounding
        names = {p.network for p in elsewhere}
        live = score(("small",), specs=[spec for spec in specs if spec.name in names])
        assert [p for p in live.planted if not p.located] == elsewhere
    return len(result.planted)


@pytest.mark.parametrize("kept", KEPT)
def test_mistakes_of_the_catalogue_are_found_from_the_golden(
    kept: str, keras: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [spec for name in SAMPLED for spec in cases.find(name)[:1]]
    assert check_planted(specs, kept, tmp_path, monkeypatch) > 300


@pytest.mark.slow
@pytest.mark.parametrize("kept", KEPT)
def test_every_mistake_of_the_catalogue_is_found_from_the_golden(
    kept: str, keras: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every case of the registry; pytest -s shows the figures."""
    assert check_planted(list(cases.cases()), kept, tmp_path, monkeypatch) > 15_000


# -- mistakes in the source of a network in plain NumPy ----------------------------------------------------------------


@pytest.fixture(scope="module")
def mistakes() -> ModuleType:
    return _beside("test_own_mistakes")


def sources_of(mistakes: ModuleType, folder: Path, every: int, above: int | None) -> Iterator[tuple[Any, Path]]:
    """Every so many of the mistakes, each with the golden of the network that it is made in."""
    for source in mistakes.sources()[::every]:
        path = folder / f"{source.hidden}-{source.head}.safetensors"
        if not path.exists():
            case = source.right
            done = parity.record(case.spec, path, x=case.x, y=case.y, modes=EAGER, sketch_above=above)
            assert done.exit_status == 0, done.sentence
        yield source, path


def named(source: Any, report: Report) -> str:
    """As `Source.named` of the tests with live Keras says it."""
    check: Check = report.checks[0]
    if check.passed:
        return "convention" if check.conventions else "missed"
    codes = {finding.cause.code if finding.cause else "" for finding in check.findings}
    if codes == {source.wrong}:
        return "own"
    if "" in codes:
        return "none"
    texts = [finding.cause.text for finding in check.findings if finding.cause]
    return "same" if len(codes) == 1 and source.wrong in texts[0] else "other"


def check_sources(found: Iterator[tuple[Any, Path]], layouts: Callable[[int], Sequence[str]]) -> Counter[str]:
    said: Counter[str] = Counter()
    bad = []
    for number, (source, path) in enumerate(found):
        for layout in layouts(number):
            with np.errstate(all="ignore"):
                outcome = named(source, parity.replay(path, source.subject(layout, source.right)))
            said[outcome] += 1
            if outcome not in ("own", "same", "convention"):
                bad.append(f"{outcome}: {source} {layout}")
    print(f"\n{dict(said)}", *bad, sep="\n")
    right = said["own"] + said["same"]
    assert said["missed"] == 0
    assert right >= 0.95 * (right + len(bad)), bad
    return said


@pytest.mark.parametrize("above", [None, 4])
def test_mistakes_in_the_source_are_named_from_the_golden(
    mistakes: ModuleType, keras: ModuleType, tmp_path: Path, above: int | None
) -> None:
    layouts = itertools.cycle(mistakes.UNPACKED)
    said = check_sources(sources_of(mistakes, tmp_path, 37, above), lambda number: [next(layouts)])
    assert said["own"] >= 3


@pytest.mark.slow
@pytest.mark.parametrize("above", [None, 4])
def test_all_mistakes_in_the_source_are_named_from_the_golden(
    mistakes: ModuleType, keras: ModuleType, tmp_path: Path, above: int | None
) -> None:
    check_sources(sources_of(mistakes, tmp_path, 1, above), lambda number: list(mistakes.UNPACKED))


# -- many at once ------------------------------------------------------------------------------------------------------

CROWD = """
    import os, sys, time
    import tensorflow, keras  # loaded once, and used by none before they part
    import parity

    path, begin = sys.argv[1], time.time() + 1
    children = []
    for number in range(8):
        child = os.fork()
        if child == 0:
            time.sleep(max(0, begin - time.time()))
            status = 1
            try:
                for turn in range(2):
                    if number % 2:
                        done = parity.record("loss-Huber", path, batch=3 + number, modes=("eager",))
                        status = done.exit_status or 2 * (done.paths == ())
                    else:
                        status = parity.replay(path).exit_status
                    if status:
                        break
            finally:
                os._exit(status)
        children.append(child)
    print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


@posix
@pytest.mark.slow
def test_eight_processes_record_and_replay_one_file(keras: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    assert parity.record("loss-Huber", path, batch=3, modes=EAGER).exit_status == 0
    command = [sys.executable, "-c", textwrap.dedent(CROWD), str(path)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip() == str([0] * 8), done.stderr
    assert os.listdir(tmp_path) == [path.name]
    assert len(file.read(path).recordings[0].x) in {4, 6, 8, 10}
    assert parity.replay(path).passed


# -- speed -------------------------------------------------------------------------------------------------------------

MOST_SECONDS = 3.0
"""Of two processor cores, for the whole process: what somebody waits for in a job of CI."""


@pytest.mark.slow
def test_a_hundred_goldens_are_replayed_in_three_seconds(
    keras: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of the processor, of the run that was least disturbed by others; pytest -s shows all of them."""
    resource = pytest.importorskip("resource")
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # what is installed has been compiled
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "compiled"))
    specs = list(itertools.islice(itertools.chain(cases.cases(), cases.cases(seed=1)), 100))
    for number, spec in enumerate(specs):
        assert parity.record(spec, tmp_path / "goldens" / f"{number:03}.safetensors", modes=EAGER).exit_status == 0
    wall, processor = [], []
    for _ in range(5):
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = run("replay", tmp_path / "goldens", cwd=tmp_path)
        wall.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == 0
    print(
        f"\nmedian: {statistics.median(wall):.2f} s, of the processor {statistics.median(processor):.2f} s", processor
    )
    assert min(processor) <= MOST_SECONDS


def test_nothing_is_left_out(folder: Path) -> None:
    """Every tensor of Keras's run is in the golden, as it was or as a sketch."""
    (recording, *_) = file.read(path_of(folder, "sketches of everything")).recordings
    by_dtype = {run.dtype: run for run in reversed(recording.runs)}
    assert not any(isinstance(t, np.ndarray) for n, t in by_dtype["float64"].tensors.items() if n != "loss" and t.shape)
    between = [n for n, t in by_dtype["float32"].tensors.items() if n.endswith(("/output", "/output.gradient"))]
    assert between
    assert not any(isinstance(by_dtype["float32"].tensors[name], Sketch) for name in between)


def test_a_golden_moves_as_one_file(folder: Path, tmp_path: Path) -> None:
    shutil.copy(path_of(folder, "a live model"), tmp_path / "moved.safetensors")
    assert parity.replay(tmp_path / "moved.safetensors", own()).passed
