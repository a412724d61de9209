"""What drifted from one recording to another is found and named; what rounding moved is not.

The recordings hold what scratchnet computes in the place of Keras, so that most tests need no TensorFlow: what is asked
is what the comparison says of numbers, whoever made them.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

import parity
from parity import cases, known_changes, probe
from parity.cli import cli
from parity.errors import FileError, NothingConcluded, UsageError
from parity.golden import file
from parity.golden.drifted import schema
from parity.golden.form import Golden, Recording, Run, point
from parity.golden.matrix import matrix
from parity.golden.posed import required
from parity.golden.record import run_of
from parity.inputs import representable
from parity.runners import scratch
from parity.runners.earlier import understood
from parity.spec import Spec

HERE = {"tensorflow": "2.21.0", "keras": "3.15.1", "onednn": True}
NORMALIZED = "layer-BatchNormalization"
GRADIENT = "dense/kernel.gradient"
BETWEEN = "dense/output.gradient"
Plant = Callable[[str, str, np.ndarray], np.ndarray]
"""dtype, tensor, array -> the array as it is recorded."""


def recorded(spec: Spec, plant: Plant | None = None, above: int | None = None, modes=("eager",), batch=6) -> Recording:
    """A recording of what scratchnet computes, with something planted in it."""
    spec = spec.seeded()
    network = scratch.Network.of(spec)
    weights = {n: representable(w) for n, w in probe.weights(network.weights, spec.seed).items()}
    x = representable(probe.samples(network.input_shape, batch, spec.seed, network.indices))
    y = probe.labels(network.output_shape, batch, spec.seed, network.labels)
    here, runs = point(weights, x, y), {}
    for at, samples, labels, dtype, mode in required(weights, x, y, modes, network.drops):
        typed = {name: array.astype(dtype) for name, array in at.items()}
        trace = scratch.run(spec.with_dtype(dtype), typed, samples, labels)
        if plant is not None:
            planted = {n: np.asarray(plant(dtype, n, np.asarray(a)), dtype) for n, a in trace.tensors.items()}
            trace = replace(trace, tensors={**planted, "input": samples})
        key = (point(at, samples, labels), dtype, mode)
        runs[key] = run_of(key, trace, spec, above, key[0] == here)
    return Recording(spec, weights, x, y, "designed probe", tuple(modes), tuple(runs.values()), {})


def case(name: str = NORMALIZED) -> Spec:
    return cases.find(name)[0]


def diff(tmp_path: Path, left: Recording, right: Recording, there: Mapping[str, object] = HERE):
    for name, recording, environment in (("left", left, HERE), ("right", right, there)):
        file.write(tmp_path / f"{name}.safetensors", Golden((recording,), environment))
    return parity.diff(tmp_path / "left.safetensors", tmp_path / "right.safetensors")


def at_one(change: Callable[[np.ndarray], np.ndarray], *, dtype: str, tensor: str = GRADIENT) -> Plant:
    """A change of the largest element of one tensor."""

    def plant(kind: str, name: str, array: np.ndarray) -> np.ndarray:
        if (kind, name) != (dtype, tensor):
            return array
        planted = array.copy()
        worst = np.unravel_index(int(np.argmax(np.abs(array))), array.shape)
        planted[worst] = change(array[worst])
        return planted

    return plant


@pytest.fixture(scope="module")
def whole() -> Recording:
    return recorded(case())


@pytest.fixture(scope="module")
def sketched() -> Recording:
    return recorded(case(), above=8)


# -- the same, and within budget ---------------------------------------------------------------------------------------


def test_every_bit_is_the_same(whole, tmp_path):
    found = diff(tmp_path, whole, recorded(case()))
    assert (found.verdict, found.exit_status) == ("identical", 0)
    (pair,) = found.pairs
    assert pair.tensors == pair.identical > 100
    assert "every bit" in found.sentence


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_unit_in_the_last_place_is_rounding(dtype, whole, tmp_path):
    planted = recorded(case(), at_one(lambda v: np.nextafter(v, 2 * v), dtype=dtype))
    found = diff(tmp_path, whole, planted)
    assert (found.verdict, found.exit_status) == ("within budget", 0)
    assert {row.tensor for run in found.pairs[0].runs for row in run.rows} == {GRADIENT}
    assert f"({GRADIENT}, {dtype}: 1 ULP there)" in found.sentence
    assert known_changes.UNEXPLAINED in found.to_text()  # the same conditions, and yet other bits


# -- planted drift -----------------------------------------------------------------------------------------------------


def scaled(kind: str, name: str, array: np.ndarray) -> np.ndarray:
    return array * (1 + 1e-6) if name == GRADIENT else array


def swapped() -> Recording:
    """gamma's gradient and beta's, which have one shape, each in the place of the other."""
    plain = recorded(case())
    names = ["batch_normalization/gamma.gradient", "batch_normalization/beta.gradient"]
    runs = [replace(r, tensors={**r.tensors, **dict(zip(names, [r.tensors[n] for n in names[::-1]], strict=True))})
            for r in plain.runs]  # fmt: skip
    return replace(plain, runs=tuple(runs))


PLANTED: Mapping[str, tuple[Callable[[], Recording], str]] = {
    "one element of float64": (lambda: recorded(case(), at_one(lambda v: v * (1 + 1e-9), dtype="float64")), GRADIENT),
    "one element of float32": (lambda: recorded(case(), at_one(lambda v: v * (1 + 1e-3), dtype="float32")), GRADIENT),
    "one NaN": (lambda: recorded(case(), at_one(lambda v: v * np.nan, dtype="float32")), GRADIENT),
    "a gradient 1 + 1e-6 too large": (lambda: recorded(case(), scaled), GRADIENT),
    "two tensors swapped": (swapped, "batch_normalization/gamma.gradient"),
    "the loss": (lambda: recorded(case(), at_one(lambda v: v * 1.001, dtype="float64", tensor="loss")), "loss"),
}


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("above", [None, 8], ids=["whole", "sketched"])
def test_what_drifted_is_found_and_named(name, above, tmp_path):
    make, tensor = PLANTED[name]
    if above is not None:
        plain = make()
        right = replace(plain, runs=tuple(sketch(run, plain, above) for run in plain.runs))
    else:
        right = make()
    found = diff(tmp_path, recorded(case(), above=above), right)
    assert (found.verdict, found.exit_status) == ("beyond budget", 1)
    assert {row.tensor for _, row in found.pairs[0].beyond} >= {tensor}
    assert found.pairs[0].beyond[0][1].tensor == tensor
    assert found.sentence.startswith(f"No: {tensor} is the first tensor that drifted")
    assert f"the right recording is not what scratchnet computes: {tensor}" in found.to_text()
    assert "the left recording is not" not in found.to_text()


def sketch(run: Run, recording: Recording, above: int) -> Run:
    """The run as it would have been recorded with sketches."""
    here = run.point == point(recording.weights, recording.x, recording.y)
    trace = parity.trace.Trace(dict(run.tensors))
    return run_of(run.key, trace, recording.spec, above, here)


def test_left_and_right_are_equally_strict(whole, tmp_path):
    """A recording with half the digits does not excuse itself by the width of its own noise."""
    coarse = recorded(case(), lambda dtype, name, a: a.astype(np.float16) if dtype == "float32" and a.ndim else a)
    for left, right in ((whole, coarse), (coarse, whole)):
        assert diff(tmp_path, left, right).exit_status == 1


def test_a_tensor_that_one_side_does_not_have_is_no_agreement(whole, tmp_path):
    def without(run: Run) -> Run:
        return replace(run, tensors={n: t for n, t in run.tensors.items() if n != BETWEEN})

    found = diff(tmp_path, whole, replace(whole, runs=tuple(map(without, whole.runs))))
    assert found.exit_status == 1
    assert "only the left one has it" in found.sentence


def test_another_mode_may_give_other_tensors(whole, tmp_path):
    """With cached logits, Keras has no gradient by the output of a softmax, and it caches in some modes only."""
    right = recorded(case(), modes=("xla",))
    runs = [
        replace(r, tensors={n: t for n, t in r.tensors.items() if r.mode != "xla" or n != BETWEEN}) for r in right.runs
    ]
    found = diff(tmp_path, whole, replace(right, runs=tuple(runs)))
    assert found.verdict == "identical"
    assert {run.modes for run in found.pairs[0].runs} >= {("eager", "xla")}


def test_a_sketch_and_an_array_are_compared_by_sums(whole, sketched, tmp_path):
    assert diff(tmp_path, whole, sketched).verdict == "identical"
    found = diff(tmp_path, recorded(case(), scaled), sketched)
    assert found.exit_status == 1
    assert found.pairs[0].beyond[0][1].tensor == GRADIENT


def test_random_cells_that_float64_does_not_draw_excuse_nothing(tmp_path):
    """Dropout's float32 run is no rounded float64 run, so the distance between the two is not what rounding moves."""
    spec = next(spec for spec in cases.find("layer-Dropout") if scratch.Network.of(spec).drops)
    plain = recorded(spec)
    last_bit = recorded(spec, at_one(lambda v: np.nextafter(v, 2 * v), dtype="float32"))
    assert diff(tmp_path, plain, last_bit).exit_status == 0
    wrong = recorded(spec, at_one(lambda v: v * (1 + 1e-3), dtype="float32"))
    assert diff(tmp_path, plain, wrong).exit_status == 1


def test_steps_of_training_are_compared(tmp_path):
    spec = case("optimizer-SGD")
    plain = recorded(spec)
    weights = {n: np.asarray(w, np.float64) for n, w in plain.weights.items()}
    steps = tuple({"loss": np.asarray(1.0 + step), **weights} for step in range(3))
    left = replace(plain, steps=steps)
    assert diff(tmp_path, left, replace(plain, steps=steps[:2])).verdict == "identical"
    moved = [dict(step) for step in steps]
    moved[1]["dense/kernel"] = moved[1]["dense/kernel"] * (1 + 1e-6)
    found = diff(tmp_path, left, replace(plain, steps=tuple(moved)))
    assert found.exit_status == 1
    assert "step 2/dense/kernel" in found.sentence


# -- different problems ------------------------------------------------------------------------------------------------


def other_epsilon() -> Recording:
    spec = case()
    layers = [
        {**e, "config": {**e["config"], "epsilon": 1e-5}} if e["class_name"] == "BatchNormalization" else e
        for e in spec.config["layers"]
    ]
    return recorded(replace(spec, config={**spec.config, "layers": layers}))


def test_another_epsilon_is_another_network(whole, tmp_path):
    with pytest.raises(NothingConcluded, match=r"different networks.*epsilon"):
        diff(tmp_path, whole, other_epsilon())


@pytest.mark.parametrize(("name", "said"), [("x", "different samples: x"), ("y", "different labels: y")])
def test_other_samples_or_labels_are_another_problem(name, said, tmp_path):
    left = recorded(case())
    spec = left.spec.seeded()
    right = recorded(replace(spec, seed=spec.seed + 1))
    right = replace(right, spec=spec)
    with pytest.raises(NothingConcluded, match="recorded at different weights"):
        diff(tmp_path, left, right)
    moved = recorded_at(left, **{name: np.nextafter(getattr(left, name), np.inf, dtype=getattr(left, name).dtype)})
    with pytest.raises(NothingConcluded, match=said):
        diff(tmp_path, left, moved)


def recorded_at(recording: Recording, **inputs: np.ndarray) -> Recording:
    """The same network on other samples or labels."""
    changed = replace(recording, **inputs)
    weights = dict(changed.weights)
    runs = []
    for at, samples, labels, dtype, mode in required(weights, changed.x, changed.y, changed.modes, False):
        typed = {name: array.astype(dtype) for name, array in at.items()}
        trace = scratch.run(changed.spec.with_dtype(dtype), typed, samples, labels)
        key = (point(at, samples, labels), dtype, mode)
        runs.append(run_of(key, trace, changed.spec, None, True))
    return replace(changed, runs=tuple({run.key: run for run in runs}.values()))


def test_networks_are_matched_whatever_their_files_are_called(whole, tmp_path):
    other = recorded(case("loss-MeanSquaredError"))
    alone = recorded(case("loss-Huber"))
    for folder, files in {"left": {"a": whole, "b": other}, "right": {"b": whole, "a": other, "c": alone}}.items():
        (tmp_path / folder).mkdir()
        for name, recording in files.items():
            file.write(tmp_path / folder / f"{name}.safetensors", Golden((recording,), HERE))
    found = parity.diff(tmp_path / "left", tmp_path / "right")
    assert [pair.verdict for pair in found.pairs] == ["identical", "identical", "not compared"]
    assert found.exit_status == 3  # nothing is known of the third
    assert "only right" in found.sentence
    assert "every bit of 2 networks" in found.sentence
    assert parity.diff(tmp_path / "left", tmp_path / "left").exit_status == 0


def test_what_is_no_recording_is_a_bad_file(whole, tmp_path):
    file.write(tmp_path / "left.safetensors", Golden((whole,), HERE))
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "left.safetensors").read_bytes()[:-9])
    for name in ("empty", "torn.safetensors", "none.safetensors"):
        with pytest.raises(FileError, match=name.partition(".")[0]):
            parity.diff(tmp_path / "left.safetensors", tmp_path / name)


# -- why ---------------------------------------------------------------------------------------------------------------


def last_bit(kind: str, name: str, array: np.ndarray) -> np.ndarray:
    return np.nextafter(array, 2 * array) if name == GRADIENT else array


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"onednn": False}, "onednn True -> False: oneDNN's kernels"),
        ({"intra_op_threads": 1}, "another number of threads"),
        ({"gpus": 1}, "a GPU's kernels"),
        ({"tensorflow": "2.20.0"}, "another build of TensorFlow's kernels"),
    ],
)
def test_last_bits_are_explained_by_the_conditions(changed, said, whole, tmp_path):
    found = diff(tmp_path, whole, recorded(case(), last_bit), {**HERE, **changed})
    assert any(said in reason for reason in found.explained())
    assert known_changes.UNEXPLAINED not in found.explained()
    assert set(found.changed) == set(changed)


def test_a_run_in_another_mode_is_compared_with_the_first_one(tmp_path):
    found = diff(tmp_path, recorded(case()), recorded(case(), last_bit, modes=("xla",)))
    assert ("eager", "xla") in {run.modes for run in found.pairs[0].runs}
    assert any(reason.startswith("eager against xla: XLA") for reason in found.explained())


def test_a_change_of_a_release_explains_what_it_can_change(tmp_path):
    old = {**HERE, "tensorflow": "2.18.1"}

    def erf(kind: str, name: str, array: np.ndarray) -> np.ndarray:
        return array * (1 + 1e-8) if name == "activation/output" else array

    gelu = diff(tmp_path, recorded(case("activation-gelu")), recorded(case("activation-gelu"), erf), old)
    assert gelu.exit_status == 1
    assert "gelu-erfc" in gelu.sentence
    relu = diff(tmp_path, recorded(case("activation-relu")), recorded(case("activation-relu"), last_bit), old)
    assert not any("gelu-erfc" in reason for reason in relu.explained())


def test_known_changes_lie_between_two_releases():
    gelu = case("activation-gelu")
    assert len({change.code for change in known_changes.CHANGES}) == len(known_changes.CHANGES)
    for change in known_changes.CHANGES:
        assert change.spans(change.until, change.since)
        assert change.spans(change.since, change.until)
        assert not change.spans(change.since, change.since)
        assert not change.spans(change.until, change.until)
    assert known_changes.between(gelu, {"tensorflow": "2.18.1"}, {"tensorflow": "2.19.1"})
    assert not known_changes.between(gelu, {"tensorflow": "2.18.1"}, {"numpy": "2"})


def test_every_known_change_is_in_the_documentation():
    page = " ".join((Path(__file__).parents[2] / "docs" / "drift.md").read_text(encoding="utf-8").split())
    for change in known_changes.CHANGES:
        assert f"| `{change.code}` | {change.package} {change.until} | {change.since} | {change.text} |" in page


# -- its forms ---------------------------------------------------------------------------------------------------------


def test_the_document_is_as_described(whole, sketched, tmp_path):
    for left, right in ((whole, recorded(case(), scaled)), (sketched, recorded(case(), last_bit, above=8))):
        found = diff(tmp_path, left, right)
        document = json.loads(found.to_json())
        Draft202012Validator(schema()).validate(document)
        assert document["verdict"] == found.verdict
        assert document["pairs"][0]["runs"]


def test_the_command_line(whole, tmp_path):
    diff(tmp_path, whole, recorded(case(), scaled))
    left, right = (str(tmp_path / f"{side}.safetensors") for side in ("left", "right"))
    done = CliRunner().invoke(cli, ["diff", left, right], standalone_mode=False)
    assert done.return_value == 1
    assert GRADIENT in done.stdout.splitlines()[-1]
    same = CliRunner().invoke(cli, ["diff", left, left, "--json"], standalone_mode=False)
    assert same.return_value == 0
    assert json.loads(same.stdout)["verdict"] == "identical"


# -- several environments ----------------------------------------------------------------------------------------------

STAND_IN = """
    import shutil, sys, time
    source, _, model, folder = sys.argv[1:]
    if source == "sleep":
        time.sleep(60)
    if source == "none":
        sys.exit("Traceback\\nModuleNotFoundError: no parity here")
    shutil.copytree(source, folder)
    if source.endswith("partly"):
        print("Not recorded, because their check did not pass: b.")
        sys.exit(1)
"""


@pytest.fixture
def stand_in(whole, tmp_path) -> Callable[[str], str]:
    """A command that does what `parity record` does with recordings that are made already."""
    script = tmp_path / "stand_in.py"
    script.write_text(textwrap.dedent(STAND_IN))
    other = recorded(case("loss-MeanSquaredError"))
    made = {
        "first": {"a": (whole, HERE), "b": (other, HERE)},
        "moved": {"a": (recorded(case(), last_bit), {**HERE, "onednn": False}), "b": (other, HERE)},
        "wrong": {"a": (recorded(case(), scaled), HERE), "b": (other, HERE)},
        "partly": {"a": (whole, HERE)},
    }
    for folder, files in made.items():
        (tmp_path / folder).mkdir()
        for name, (recording, environment) in files.items():
            file.write(tmp_path / folder / f"{name}.safetensors", Golden((recording,), environment))
    return lambda name: shlex.join([sys.executable, str(script), str(tmp_path / name) if name in made else name])


def test_environments_are_compared_with_the_first(stand_in, tmp_path):
    names = {"ours": "first", "quiet": "first", "moved": "moved", "wrong": "wrong", "partly": "partly"}
    found = matrix({k: stand_in(v) for k, v in names.items()}, ["cases"], keep=tmp_path / "kept")
    table = found.to_text()
    row = next(line for line in table.splitlines() if line.startswith("layer-BatchNormalization"))
    assert row.split()[2] == "identical"
    assert row.endswith("BEYOND  identical")
    assert "not recorded" in next(line for line in table.splitlines() if line.startswith("loss-MeanSquaredError"))
    assert "record cases: Not recorded, because their check did not pass: b." in table
    assert "explained, moved, 1 network: onednn True -> False" in table
    assert found.exit_status == 1
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == sorted(names)
    assert parity.diff(tmp_path / "kept" / "ours", tmp_path / "kept" / "quiet").verdict == "identical"


def test_an_environment_that_fails_says_so_in_the_table(stand_in):
    found = matrix({"a": stand_in("first"), "b": stand_in("moved"), "c": stand_in("none"), "d": "no-such-command"})
    assert "record cases: ModuleNotFoundError: no parity here" in found.to_text()
    assert "no-such-command: cannot be started" in found.to_text()
    assert found.exit_status == 3
    assert set(found.drifts) == {"b"}


def test_a_command_that_does_not_end_is_stopped(stand_in):
    with pytest.raises(NothingConcluded, match=r"stopped after 0\.5 seconds"):
        matrix({"a": stand_in("first"), "b": stand_in("sleep")}, ["cases"], timeout=0.5)


@pytest.mark.parametrize(
    ("environments", "said"),
    [
        ({"a": "parity"}, "two environments"),
        ({"a": "parity", "b": " "}, "the command"),
        ({"a": "parity", "b": "it's"}, "expected a command"),
        ({"a": "parity", "../b": "parity"}, "expected a name"),
    ],
)
def test_what_is_no_environment_is_refused(environments, said):
    with pytest.raises(UsageError, match=said):
        matrix(environments)


def test_kept_recordings_are_not_mixed_with_others(stand_in, tmp_path):
    shutil.copytree(tmp_path / "first", tmp_path / "kept" / "a")
    with pytest.raises(UsageError, match="expected no recordings there yet"):
        matrix({"a": stand_in("first"), "b": stand_in("first")}, ["cases"], keep=tmp_path / "kept")


def test_the_command_line_of_the_matrix(stand_in):
    commands = [f"--env=a={stand_in('first')}", f"--env=b={stand_in('moved')}"]
    done = CliRunner().invoke(cli, ["matrix", *commands, "cases"], standalone_mode=False)
    assert done.return_value == 0
    assert done.stdout.splitlines()[-1].startswith("Compared with a: b: Yes")
    for wrong in (["--env=parity"], [commands[0], commands[0]]):
        assert isinstance(CliRunner().invoke(cli, ["matrix", *wrong], standalone_mode=False).exception, UsageError)


# -- an earlier Keras --------------------------------------------------------------------------------------------------


class Dense:
    """As Keras 3.12 had it."""

    def __init__(self, units, kernel_regularizer=None):
        """No quantization_config."""


class Embedding:
    """As Keras 3.15 has it."""

    def __init__(self, quantization_config=None):
        """With it."""


EARLIER = SimpleNamespace(layers=SimpleNamespace(Dense=Dense, Embedding=Embedding))


def test_an_earlier_keras_gets_no_argument_that_changes_nothing():
    def entry(name: str, **config: object) -> dict[str, object]:
        return {"class_name": name, "config": config}

    layers = [entry("Dense", units=3, quantization_config=None), entry("Embedding", quantization_config=None)]
    assert understood(EARLIER, {"layers": layers}) == {"layers": [entry("Dense", units=3), layers[1]]}
    meant = entry("Dense", units=3, quantization_config={"bits": 8}, unheard_of=None)
    assert understood(EARLIER, [meant]) == [meant]  # that Keras refuses it is for it to say


# -- TensorFlow itself -------------------------------------------------------------------------------------------------


@pytest.mark.tensorflow
def test_eager_and_compiled_recordings_are_within_budget(keras, tmp_path):
    for name in ("eager", "function", "xla"):
        made = parity.record("tanh-16", tmp_path / name, batch=4, data="digits", modes=(name,))
        assert made.report.passed
    for name in ("function", "xla"):
        found = parity.diff(tmp_path / "eager", tmp_path / name)
        assert found.exit_status == 0
        assert ("eager", name) in {run.modes for pair in found.pairs for run in pair.runs}
    assert found.verdict == "within budget"  # XLA's last bits are others
    assert any(reason.startswith("eager against xla") for reason in found.explained())


@pytest.mark.tensorflow
def test_a_folder_gets_the_networks_that_keras_runs(keras, tmp_path, monkeypatch):
    """One that Keras refuses, such as a Dropout of everything before Keras 3.14, does not keep the others out."""
    specs = [case("layer-Flatten"), case("layer-ReLU")]
    layers = [*specs[1].config["layers"]]
    place = next(index for index, entry in enumerate(layers) if entry["class_name"] == "ReLU")
    layers[place] = {**layers[place], "config": {**layers[place]["config"], "max_value": -1.0}}
    refused = replace(specs[1], config={**specs[1].config, "layers": layers})
    monkeypatch.setattr(cases, "find", lambda name, seed=0: [specs[0], refused])
    with pytest.raises(UsageError):
        parity.record("both", tmp_path / "both.safetensors", batch=4)
    made = parity.record("both", tmp_path / "both", batch=4)
    assert [path.name for path in made.paths] == ["layer-Flatten-mse.safetensors"]
    assert (made.exit_status, list(made.refused)) == (3, [refused.name])
    assert "Not recorded: " in made.sentence


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.skipif("PARITY_OTHER_PARITY" not in os.environ, reason="PARITY_OTHER_PARITY names no command")
def test_another_release_is_explained(keras, tmp_path):
    """PARITY_OTHER_PARITY: the command that stands for parity in an environment with another TensorFlow or Keras."""
    ours = f"{sys.executable} -m parity"
    other = os.environ["PARITY_OTHER_PARITY"]
    subprocess.run([*shlex.split(other), "--version"], check=True)
    found = matrix({"ours": ours, "other": other}, ["cases", "tanh-16"], keep=tmp_path)
    drift = found.drifts["other"]
    assert not [pair for pair in drift.pairs if pair.verdict == "beyond budget"]
    for pair in drift.pairs:
        if pair.verdict == "not compared":
            assert any(change.sentence in pair.reasons for change in known_changes.CHANGES), pair
        elif pair.verdict == "within budget":
            assert pair.reasons, pair
            assert known_changes.UNEXPLAINED not in pair.reasons, pair
