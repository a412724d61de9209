"""Goldens that are damaged, edited, foreign or hostile: each ends in one sentence, little memory taken.

The goldens here hold what scratchnet computes in the place of Keras, so that no test needs TensorFlow: what is asked is
what becomes of a file, not of a network.
"""

import hashlib
import json
import os
import random
import struct
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parity
from parity import cases, probe
from parity.errors import FileError, ParityError, UsageError
from parity.golden import file, manage
from parity.golden.form import Golden, Recording, point
from parity.golden.posed import posed, required
from parity.golden.record import run_of
from parity.inputs import representable
from parity.runners import scratch
from parity.spec import Spec
from parity.trace import Trace
from parity.weights import formats

ROOT = Path(__file__).parents[2]
MOST_MEMORY = 64 * 2**20
BATCH = 4
ENVIRONMENT = {"tensorflow": "2.21.0", "keras": "3.15.1"}
posix = pytest.mark.skipif(os.name != "posix", reason="limits and permissions are those of POSIX")


def recording_of(spec: Spec, above: int | None = None, modes: tuple[str, ...] = ("eager",)) -> Recording:
    """What scratchnet computes, recorded as if Keras had."""
    spec = spec.seeded()
    network = scratch.Network.of(spec)
    weights = {n: representable(w) for n, w in probe.weights(network.weights, spec.seed).items()}
    x = representable(probe.samples(network.input_shape, BATCH, spec.seed, network.indices))
    y = probe.labels(network.output_shape, BATCH, spec.seed, network.labels)
    traces: dict[tuple[str, str, str], Trace] = {}
    for at, samples, labels, dtype, mode in required(weights, x, y, modes, network.drops):
        typed = {name: array.astype(dtype) for name, array in at.items()}
        key = (point(at, samples, labels), dtype, mode)
        traces[key] = scratch.run(spec.with_dtype(dtype), typed, samples, labels)
    here = point(weights, x, y)
    return Recording(
        spec=spec,
        weights={n: point({n: w}, x, y) if above is not None and w.size > above else w for n, w in weights.items()},
        x=x,
        y=y,
        source="designed probe",
        modes=modes,
        runs=tuple(run_of(key, trace, spec, above, key[0] == here) for key, trace in traces.items()),
        used={},
    )


def case(name: str = "loss-MeanSquaredError") -> Spec:
    return cases.find(name)[0]


@pytest.fixture(scope="module")
def recording() -> Recording:
    return recording_of(case())


@pytest.fixture(scope="module")
def written(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("golden") / "net.safetensors"
    file.write(path, Golden((recording,), ENVIRONMENT))
    return path.read_bytes()


@pytest.fixture
def golden(written: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    path.write_bytes(written)
    return path


def refused(path: Path) -> str:
    """What a user is told: one line that names the file."""
    with pytest.raises(FileError) as caught:
        parity.replay(path)
    return told(caught.value, path)


def told(error: ParityError, path: Path) -> str:
    text = str(error)
    assert error.exit_status == 4
    assert text.startswith(f"{path}: ")
    assert len(text) < 2500
    return text.removeprefix(f"{path}: ")


# -- a file as it should be --------------------------------------------------------------------------------------------


NETWORKS = ("loss-MeanSquaredError", "loss-SparseCategoricalCrossentropy", "layer-Embedding", "layer-Dropout",
            "layer-BatchNormalization", "layer-BatchNormalization-inference")  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("above", [None, 1, 8])
def test_what_was_written_is_read_and_passes(name: str, above: int | None, tmp_path: Path) -> None:
    kept = recording_of(case(name), above)
    path = tmp_path / "net.safetensors"
    file.write(path, Golden((kept,), ENVIRONMENT))
    (read,) = file.read(path).recordings
    assert read.spec == replace(kept.spec, config=json.loads(json.dumps(kept.spec.config)))
    assert read.sketched == kept.sketched
    assert (read.sketched > 0) is (above is not None)
    for one, other in zip(kept.runs, read.runs, strict=True):
        assert one.key == other.key
        for name_, tensor in one.tensors.items():
            ours, theirs = (getattr(t, "sums", t) for t in (tensor, other.tensors[name_]))
            assert (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())
    report = parity.replay(path)
    assert report.passed, report.to_text()
    assert report.recorded == ENVIRONMENT
    assert {check.dtype for check in report.checks} == {"float32", "float64"}


def test_equal_arrays_are_there_once(golden: Path, tmp_path: Path) -> None:
    """Another mode that computes the same adds no array, and a second network with the same weights and samples only
    what it computes."""
    arrays = len(formats.read(golden).arrays)
    path = tmp_path / "more.safetensors"
    both = recording_of(case(), modes=("eager", "function"))
    file.write(path, Golden((both,)))
    assert len(formats.read(path).arrays) == arrays
    other = recording_of(case("loss-MeanAbsoluteError"))
    file.write(path, Golden((both, other)))
    assert len(formats.read(path).arrays) < arrays + sum(len(run.tensors) for run in other.runs)
    assert file.spare(path) == []


def test_the_same_recording_makes_the_same_bytes(written: bytes, recording: Recording, tmp_path: Path) -> None:
    """So a repository that records again has nothing to commit."""
    file.write(tmp_path / "b.safetensors", Golden((recording,), ENVIRONMENT))
    assert (tmp_path / "b.safetensors").read_bytes() == written


def test_several_networks_in_one_file(recording: Recording, tmp_path: Path) -> None:
    path = tmp_path / "nets.safetensors"
    file.write(path, Golden((recording, recording_of(case("layer-Dense"))), ENVIRONMENT))
    report = parity.replay(path)
    assert report.passed
    assert [check.network for check in report.checks] == ["loss-MeanSquaredError"] * 2 + ["layer-Dense"] * 2


# -- damage ------------------------------------------------------------------------------------------------------------


def test_a_file_that_ends_early_is_refused_wherever_it_does(written: bytes, golden: Path) -> None:
    (length,) = struct.unpack("<Q", written[:8])
    rng = random.Random(0)
    ends = [*range(0, 8 + 40), *range(length - 40, length + 60), *sorted(rng.sample(range(8, len(written)), 60))]
    for end in ends:
        golden.write_bytes(written[:end])
        refused(golden)


@pytest.mark.slow
def test_a_file_that_ends_early_is_refused_at_every_byte(written: bytes, golden: Path) -> None:
    for end in range(len(written)):
        golden.write_bytes(written[:end])
        with pytest.raises(FileError):
            file.read(golden)


def flips(written: bytes, count: int, seed: int) -> Iterator[tuple[int, bytes]]:
    rng = random.Random(seed)
    for _ in range(count):
        at = rng.randrange(8 * len(written))
        damaged = bytearray(written)
        damaged[at // 8] ^= 1 << at % 8
        yield at, bytes(damaged)


def require_found(at: int, damaged: bytes, golden: Path) -> None:
    """A flipped bit is found, or it is in what says nothing: spaces behind the header that fill it up."""
    golden.write_bytes(damaged)
    try:
        file.read(golden)
    except FileError as error:
        told(error, golden)
    else:
        pytest.fail(f"bit {at} was flipped, and nobody saw it")


def test_a_flipped_bit_is_found(written: bytes, golden: Path) -> None:
    for at, damaged in flips(written, 300, 1):
        require_found(at, damaged, golden)


@pytest.mark.slow
def test_a_flipped_bit_is_found_in_every_byte_of_the_header(written: bytes, golden: Path) -> None:
    """One in each of them, and ten thousand anywhere."""
    (length,) = struct.unpack("<Q", written[:8])
    rng = random.Random(4)
    for byte in range(8 + length):
        damaged = bytearray(written)
        damaged[byte] ^= 1 << rng.randrange(8)
        require_found(8 * byte, bytes(damaged), golden)
    for at, damaged_bytes in flips(written, 10_000, 2):
        require_found(at, damaged_bytes, golden)


def test_no_file_no_golden_no_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing.safetensors").touch()
    (tmp_path / "notes.txt").write_text("hello")
    formats.write(tmp_path / "foreign.safetensors", {"layers/dense/vars/0": np.ones((2, 3))})
    expected = {
        "none.safetensors": "expected a golden, there is none; make it with: parity record MODEL ",
        "empty": "expected goldens in this folder, files named *.safetensors; received none; make them with: ",
        "nothing.safetensors": "the file is empty",
        "notes.txt": "expected a golden, a file that parity record wrote, named *.safetensors",
        "foreign.safetensors": "expected a golden, with the text 'parity_golden'; received a .safetensors file of ",
    }
    for name, text in expected.items():
        assert refused(tmp_path / name).startswith(text)


@posix
def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert "expected a file, received a pipe or a device" in refused(tmp_path / "pipe.safetensors")


# -- edits, with digests that fit --------------------------------------------------------------------------------------


Edit = Callable[[dict[str, Any], dict[str, np.ndarray]], Any]


def edited(golden: Path, change: Edit, text: str | None = None) -> None:
    """Write a golden again with another text or other arrays, and with the digests of these."""
    archive = formats.read(golden)
    document = json.loads(archive.metadata["parity_golden"])
    arrays = {key: stored.load().copy() for key, stored in archive.arrays.items()}
    change(document, arrays)
    text = json.dumps(document) if text is None else text
    digest = hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()
    formats.write(golden, arrays, {"parity_golden": text, "parity_golden_sha256": digest})


def put(arrays: dict[str, np.ndarray], array: Any) -> str:
    """An array under its digest."""
    array = np.asarray(array)
    key = hashlib.sha256(f"{array.dtype.name} {array.shape} ".encode() + array.tobytes()).hexdigest()
    arrays[key] = array
    return key


def recorded(edit: Callable[[dict[str, Any]], Any]) -> Edit:
    return lambda document, arrays: edit(document["recordings"][0])


def array_in(*path: Any, array: Any) -> Edit:
    def edit(document: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        node: Any = document["recordings"][0]
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = put(arrays, array)

    return edit


def layer(index: int, **settings: Any) -> Edit:
    return recorded(lambda r: r["spec"]["config"]["layers"][index]["config"].update(settings))


def tensors(edit: Callable[[dict[str, Any]], Any], run: int = 0) -> Edit:
    return recorded(lambda r: edit(r["runs"][run]["tensors"]))


def without(*names: str) -> Edit:
    """These tensors are in no run."""
    return recorded(lambda r: [run["tensors"].pop(name, None) for run in r["runs"] for name in names])


def sketch(shape: Any, size: int = 64) -> Edit:
    def edit(document: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        about = {"sketch": put(arrays, np.zeros(size)), "shape": shape, "dtype": "float64", "seed": 0}
        run = next(r for r in document["recordings"][0]["runs"] if r["dtype"] == "float64")
        run["tensors"]["dense/kernel.gradient"] = about

    return edit


def nothing(document: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    pass


EDITS: dict[str, tuple[Edit, str]] = {
    "a later version": (
        lambda d, a: d.update(version=2),
        "expected a golden of version 1, received version 2: a later parity wrote it; update parity, or record it",
    ),
    "version 0": (lambda d, a: d.update(version=0), "version: expected 1, received 0"),
    "no version": (lambda d, a: d.pop("version"), "expected an object with the key 'version', received one with ['en"),
    "a key more": (lambda d, a: d.update(more=1), "expected the keys environment, recordings, version, received"),
    "no recordings": (lambda d, a: d.update(recordings=[]), "recordings: expected at least one, received none"),
    "a key of a recording less": (recorded(lambda r: r.pop("used")), "recording 0: expected the keys described, modes"),
    "no modes": (recorded(lambda r: r.update(modes=[])), "recording 0: modes: expected some of eager, function, xla"),
    "another mode": (recorded(lambda r: r.update(modes=["graph"])), "modes: expected some of eager, function, xla"),
    "a mode that was not run": (
        recorded(lambda r: r.update(modes=["eager", "xla"])),
        "runs: expected one in float32, xla, at each of the weights and samples that a replay asks for; 2 are not",
    ),
    "no runs": (recorded(lambda r: r.update(runs=[])), "runs: expected one in float32, eager, at each of the weights"),
    "a run less": (recorded(lambda r: r["runs"].pop()), "runs: expected one in float32, eager, at each of the weights"),
    "a run at other weights": (
        recorded(lambda r: r["runs"][0].update(point="0" * 64)),
        "runs: expected one in float32, eager, at each of the weights and samples that a replay asks for; 1 are not",
    ),
    "an array that is not there": (
        recorded(lambda r: r.update(x="0" * 64)), "recording 0: 'x': expected the array '00000",
    ),
    "a tensor less": (
        tensors(lambda t: t.pop("dense/kernel.gradient")),
        "expected the tensors of the first run; ['dense/kernel.gradient'] are in one of them only",
    ),
    "no loss": (
        recorded(lambda r: [run["tensors"].pop("loss") for run in r["runs"]]),
        "run in float32, eager: expected the tensor loss, received",
    ),
    "a tensor of another network": (
        recorded(lambda r: [run["tensors"].update({"conv/output": run["tensors"]["loss"]}) for run in r["runs"]]),
        "'conv/output': expected a tensor of this network, it has none of this name",
    ),
    "a tensor of another shape": (
        array_in("runs", 0, "tensors", "dense/output", array=np.zeros((BATCH, 6), "f4")),
        f"dense/output: expected float32 of shape ({BATCH}, 5); received float32 ({BATCH}, 6)",
    ),
    "a tensor of another dtype": (
        array_in("runs", 0, "tensors", "dense/output", array=np.zeros((BATCH, 5), "f8")),
        f"dense/output: expected float32 of shape ({BATCH}, 5); received float64 ({BATCH}, 5)",
    ),
    "outputs of another batch": (
        array_in("runs", 0, "tensors", "dense_1/output", array=np.zeros((BATCH + 7, 3), "f4")),
        f"dense_1/output: expected a row for each of {BATCH} samples, or for two thirds of them; received (11, 3)",
    ),
    "samples of another shape": (
        array_in("x", array=np.zeros((BATCH, 12), "f4")),
        f"x: expected at least one sample of shape (11,); received float32 of shape ({BATCH}, 12)",
    ),
    "no samples": (array_in("x", array=np.zeros((0, 11), "f4")), "x: expected at least one sample of shape (11,)"),
    "samples that are no numbers": (
        array_in("x", array=np.full((BATCH, 11), np.nan, "f4")), "x: expected finite numbers, one or more for each sam",
    ),
    "labels for other samples": (array_in("y", array=np.zeros((9, 3))), f"y: expected a label for each of {BATCH}"),
    "labels of another shape": (array_in("y", array=np.zeros((BATCH, 4))), "mean_squared_error: y: "),
    "a number for labels": (array_in("y", array=np.float64(3)), "y: expected finite numbers, one or more for each"),
    "weights of another shape": (
        array_in("weights", "dense/kernel", array=np.zeros((11, 6), "f4")),
        "weights: dense/kernel: expected finite float32 numbers of shape (11, 5); received float32 of shape (11, 6)",
    ),
    "weights in float64": (
        array_in("weights", "dense/bias", array=np.zeros(5)),
        "weights: dense/bias: expected finite float32 numbers of shape (5,); received float64 of shape (5,)",
    ),
    "weights that are no numbers": (
        array_in("weights", "dense/bias", array=np.full(5, np.inf, "f4")), "weights: dense/bias: expected finite",
    ),
    "a weight less": (
        recorded(lambda r: r["weights"].pop("dense/bias")),
        "weights: expected dense/kernel, dense/bias, dense_1/kernel, dense_1/bias; received dense/kernel, dense_1/",
    ),
    "weights in another order": (
        recorded(lambda r: r.update(weights=dict(reversed(r["weights"].items())))),
        "weights: expected dense/kernel, dense/bias, dense_1/kernel, dense_1/bias; received dense_1/bias",
    ),
    "a seed that gives other weights": (
        recorded(lambda r: r["weights"].update({"dense/kernel": {"again": "0" * 64}})),
        "weights: dense/kernel: its seed gives other numbers with these versions of NumPy and parity; record it again",
    ),
    "a network of other weights": (
        layer(1, units=6), "weights: dense/kernel: expected finite float32 numbers of shape (11, 6); received",
    ),
    "a huge layer": (
        layer(1, units=10**9), "weights: dense/kernel: expected finite float32 numbers of shape (11, 1000000000)",
    ),
    "a layer beyond everything": (layer(1, units=10**30), "expected a network that scratchnet can build; received"),
    "a huge layer whose weights a seed gives": (
        lambda d, a: (layer(1, units=10**9)(d, a), recorded(lambda r: r.update(
            weights={name: {"again": "0" * 64} for name in r["weights"]}))(d, a)),
        "weights that the seed gives again: expected at most 16777216 bytes of a file of",
    ),
    "a huge input": (layer(0, batch_shape=[None, 10**9]), "x: expected at least one sample of shape (1000000000,)"),
    "no input": (layer(0, batch_shape=None), "expected a network that scratchnet can build; received"),
    "units below nothing": (layer(1, units=-5), "expected a network that scratchnet can build; received"),
    "a layer that is not known": (
        recorded(lambda r: r["spec"]["config"]["layers"][1].update(class_name="Lambda")),
        "expected a network that scratchnet can build; received: loss-MeanSquaredError: scratchnet cannot build this",
    ),
    "no layers": (
        recorded(lambda r: r["spec"]["config"].update(layers=[])),
        "expected a network that scratchnet can build; received: loss-MeanSquaredError: the network has no layers",
    ),
    "another loss": (
        recorded(lambda r: r["spec"].update(loss="no_such_loss")),
        "expected a network that scratchnet can build; received: loss: unknown loss 'no_such_loss'",
    ),
    "a seed below nothing": (
        recorded(lambda r: r["spec"].update(seed=-1)), "seed: expected a whole number of at least 0, received -1",
    ),
    "a sketch of a huge tensor": (sketch([10**9]), "'dense/kernel.gradient': expected 16777216 float64 sums, received"),
    "a sketch beyond everything": (sketch([2**31 - 1] * 30), "'dense/kernel.gradient': expected"),
    "a sketch with a size below nothing": (sketch([-1]), "shape: expected a list of sizes, received [-1]"),
    "a sketch with half an element": (sketch([1.5]), "shape: expected a list of sizes, received [1.5]"),
    "a sketch of another shape": (sketch([11, 6]), "dense/kernel.gradient: expected float64 of shape (11, 5); "),
    "a sketch of too few sums": (sketch([11, 5], 7), "expected 64 float64 sums, received float64 (7,)"),
    "no gradient by a weight": (
        without("dense/kernel.gradient", "dense/kernel.updated"),
        "dense/kernel.gradient: expected in every run, it is not there",
    ),
    "no update of a weight": (without("dense_1/bias.updated"), "dense_1/bias.updated: expected in every run"),
    "no outputs in between": (
        without("dense/output", "dense/output.gradient"), "expected the tensor dense/output, received",
    ),
    "steps of another network": (
        lambda d, a: d["recordings"][0].update(steps=[{"loss": put(a, np.float64(1))}]),
        "step 1: expected loss, dense/kernel, dense/bias, dense_1/kernel, dense_1/bias; received loss",
    ),
    "steps in float32": (
        lambda d, a: d["recordings"][0].update(steps=[{"loss": put(a, np.float32(1))}]),
        "step 1: 'loss': expected float64 of shape (); received float32 of shape ()",
    ),
    "steps of an optimizer that is not there": (
        lambda d, a: (d["recordings"][0].update(steps=[{"loss": put(a, np.float64(1))}]),
                      d["recordings"][0]["spec"].update(optimizer=None)),
        "steps: expected none of a network that scratchnet cannot train in the same way",
    ),
    "a description without layers": (
        recorded(lambda r: r.update(described={"layers": [], "weight_names": {}, "input_shape": [], "output_shape": [],
                                               "indices": None, "drops": False, "labels": "real"})),
        "layers: expected at least one, received none",
    ),
    "an environment with more in it": (
        lambda d, a: d.update(environment={"python": {"version": 3}}), "python: expected str or int or float or bool",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_refused(name: str, golden: Path) -> None:
    edit, text = EDITS[name]
    edited(golden, edit)
    tracemalloc.start()
    try:
        said = refused(golden)
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY / 4
    finally:
        tracemalloc.stop()
    assert text in said, said


def test_an_edit_without_the_digest_is_refused(golden: Path) -> None:
    archive = formats.read(golden)
    metadata = {**archive.metadata, "parity_golden": archive.metadata["parity_golden"].replace("2.21.0", "2.20.0")}
    formats.write(golden, {key: stored.load() for key, stored in archive.arrays.items()}, metadata)
    assert refused(golden).startswith("parity_golden: expected the SHA-256 that parity_golden_sha256 says")


def test_an_array_under_the_digest_of_another_is_refused(golden: Path) -> None:
    def exchange(document: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        key = document["recordings"][0]["x"]
        arrays[key] = arrays[key] * 2

    edited(golden, exchange)
    assert "expected an array with this SHA-256, received another; record it again" in refused(golden)


TEXTS = {
    "no JSON": ("{", "parity_golden: expected JSON, received line 1"),
    "no object": ("[]", "expected an object with the key 'version', received []"),
    "endless nesting": ("[" * 100_000, "parity_golden: expected JSON, received"),
    "deep nesting": ('{"version": 1, "recordings": ' + "[" * 200 + "]" * 200 + "}", "expected at most 64 lists"),
    "NaN": ('{"version": 1, "recordings": [NaN]}', "parity_golden: expected finite numbers, received NaN, or a number"),
    "a number beyond float64": ('{"version": 1, "recordings": [1e999]}', "parity_golden: expected finite numbers"),
    "a number of five thousand digits": ('{"version": %s}' % ("9" * 5000), "parity_golden: expected JSON, received"),
    "a version of many digits": ('{"version": %s}' % ("9" * 4000), "expected a golden of version 1, received version"),
    "a key twice": ('{"version": 1, "version": 1}', "the key 'version': expected it once, received it a second time"),
    "a lone surrogate": ('{"version": 1, "recordings": "\\ud800"}', "expected the keys environment, recordings"),
    "nothing": ("", "parity_golden: expected JSON, received line 1"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_hostile_text_is_refused(name: str, golden: Path) -> None:
    text, expected = TEXTS[name]
    edited(golden, nothing, text)
    assert expected in refused(golden)


OTHERS: tuple[Any, ...] = (None, True, -1, 0, 3, 2**70, 1.5, "", "zz", [], [1], {}, {"a": 1})
"""What stands in the place of each value in turn."""


def leaves(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a document, its objects and lists as well."""
    if path:
        yield path
    if isinstance(node, dict | list):
        for key in node if isinstance(node, dict) else range(len(node)):
            yield from leaves(node[key], (*path, key))


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    copy = json.loads(json.dumps(document))
    node = copy
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return copy


def check_replaced(golden: Path, written: bytes, choose: Callable[[list[Any]], list[Any]]) -> dict[str, int]:
    """Other values in these places: each ends in a sentence, or in a report."""
    document = json.loads(formats.read(golden).metadata["parity_golden"])
    about = [(path, value) for path in leaves(document) for value in OTHERS]
    ends = {"refused": 0, "judged": 0}
    for path, value in choose(about):
        golden.write_bytes(written)
        edited(golden, lambda d, a, p=path, v=value: d.update(replaced(d, p, v)))  # type: ignore[misc]
        try:
            parity.replay(golden).to_text()
            ends["judged"] += 1
        except FileError as error:
            told(error, golden)
            ends["refused"] += 1
        except Exception as error:
            pytest.fail(f"{path}: {value!r}: {type(error).__name__}: {error}")
    return ends


def test_any_other_value_in_any_place_ends_in_a_sentence(golden: Path, written: bytes) -> None:
    ends = check_replaced(golden, written, lambda about: random.Random(3).sample(about, 120))
    assert ends["refused"] > ends["judged"] > 0  # much of a config says nothing of what is computed


@pytest.mark.slow
def test_every_other_value_in_every_place_ends_in_a_sentence(golden: Path, written: bytes) -> None:
    """Some minutes; pytest -s shows how many there were."""
    print(check_replaced(golden, written, lambda about: about))


MEMORY = """
    import json, resource, sys
    import parity
    from parity.errors import FileError

    parity.replay(sys.argv[1])  # what a replay loads is not counted
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        parity.replay(sys.argv[2])
    except FileError as error:
        print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, str(error)]))
"""


@posix
@pytest.mark.parametrize("name", [name for name in EDITS if "huge" in name])
def test_what_a_hostile_file_declares_takes_no_memory(name: str, golden: Path, tmp_path: Path) -> None:
    """Of the whole process, also what NumPy takes for itself."""
    hostile = tmp_path / "hostile.safetensors"
    hostile.write_bytes(golden.read_bytes())
    edited(hostile, EDITS[name][0])
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(MEMORY), str(golden), str(hostile)], cwd=ROOT,
                          capture_output=True, text=True, check=True)  # fmt: skip
    kibibytes, text = json.loads(done.stdout)
    assert kibibytes * 1024 < MOST_MEMORY
    assert text.startswith(str(hostile))


# -- writing -----------------------------------------------------------------------------------------------------------


def test_a_config_that_is_no_json_cannot_be_written(recording: Recording, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"old")
    for odd in (float("nan"), np.float32(1), object()):
        spec = replace(recording.spec, config={**recording.spec.config, "odd": odd})
        with pytest.raises(UsageError, match="the network cannot be written as JSON"):
            file.write(path, Golden((replace(recording, spec=spec),)))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]


FULL = """
    import resource, signal, sys
    from pathlib import Path
    from parity.errors import FileError
    from parity.golden import file

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    path = Path(sys.argv[1])
    before, golden = path.read_bytes(), file.read(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) - 1, resource.RLIM_INFINITY))
    try:
        file.write(path, golden)
    except FileError as error:
        assert path.read_bytes() == before
        print(error)
"""


@posix
def test_a_disk_that_is_full(golden: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL), str(golden)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"{golden}: cannot be written: ")
    assert done.stdout.strip().endswith("what was there before is unchanged")
    assert os.listdir(golden.parent) == [golden.name]


FORKS = """
    import json, os, random, signal, sys, time
    from dataclasses import replace
    from pathlib import Path

    import numpy as np

    from parity.errors import FileError
    from parity.golden import file

    path, times = Path(sys.argv[1]), int(sys.argv[2])
    (recording,) = file.read(path).recordings
    # Two megabytes, so that writing takes as long as what comes before it.
    first = {**recording.runs[0].tensors, "large": np.random.default_rng(0).standard_normal(2**18)}
    recording = replace(recording, runs=(replace(recording.runs[0], tensors=first), *recording.runs[1:]))

    def write(number):
        file.write(path, file.Golden((recording,), {"number": number}))

    write(0)
    began = time.perf_counter()
    write(0)
    takes = time.perf_counter() - began
    rng, landed = random.Random(7), {"before": 0, "while it was written": 0, "behind": 0}
    size, last = path.stat().st_size, 0
    for number in range(1, times + 1):
        child = os.fork()
        if child == 0:
            write(number)
            os._exit(0)
        time.sleep(rng.uniform(0, 1.2 * takes))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = file.read(path).environment["number"]  # hashes every array
        assert found in (last, number), (found, last, number)
        left = [each for each in path.parent.iterdir() if each != path]
        assert len(left) <= 1
        assert all(each.name.startswith(".parity-") and each.stat().st_size <= size + 8 for each in left)
        place = "behind" if found == number else "while it was written" if left else "before"
        landed[place] += 1
        last = found
        for each in left:
            each.unlink()
    print(json.dumps(landed))
"""


def check_kills(golden: Path, times: int) -> dict[str, int]:
    command = [sys.executable, "-c", textwrap.dedent(FORKS), str(golden), str(times)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    landed: dict[str, int] = json.loads(done.stdout)
    assert sum(landed.values()) == times
    assert landed["while it was written"], "no process was killed while it wrote, so nothing was shown"
    return landed


@posix
def test_a_process_that_is_killed_leaves_a_whole_golden(golden: Path) -> None:
    """A copy of one that has everything but the writing behind it."""
    check_kills(golden, 30)


@posix
@pytest.mark.slow
def test_two_hundred_processes_that_are_killed_leave_a_whole_golden(golden: Path) -> None:
    """pytest -s shows where the signals landed."""
    print("\n", check_kills(golden, 200))


CROWD = """
    import os, sys
    from pathlib import Path

    import parity
    from parity.golden import file

    path = Path(sys.argv[1])
    golden = file.read(path)
    children = []
    for number in range(8):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for turn in range(12):
                    if number % 2:
                        file.write(path, file.Golden(golden.recordings, {"number": number}))
                    else:
                        assert parity.replay(path).passed
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


@posix
def test_eight_processes_write_and_replay_one_golden(golden: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(CROWD), str(golden)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str([0] * 8), done.stderr
    assert os.listdir(golden.parent) == [golden.name]
    assert file.read(golden).environment["number"] in (1, 3, 5, 7)


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only(golden: Path, recording: Recording) -> None:
    golden.parent.chmod(0o500)
    try:
        with pytest.raises(FileError, match="cannot be written"):
            file.write(golden, Golden((recording,)))
    finally:
        golden.parent.chmod(0o700)


# -- a folder of goldens -----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(written: bytes, tmp_path: Path) -> Path:
    """Two goldens, one of them in a folder of its own, and a damaged one."""
    home = tmp_path / "tests" / "goldens"
    (home / "deep").mkdir(parents=True)
    (home / "a.safetensors").write_bytes(written)
    (home / "deep" / "b.safetensors").write_bytes(written)
    (home / "torn.safetensors").write_bytes(written[:-5])
    (home / "notes.txt").write_text("mine")
    return home


def test_a_folder_is_listed(folder: Path, recording: Recording) -> None:
    one, other, torn = manage.found(folder)
    assert [found.path.name for found in (one, other, torn)] == ["a.safetensors", "b.safetensors", "torn.safetensors"]
    assert one.environment == ENVIRONMENT
    (about,) = one.recordings
    assert about == {
        "network": "loss-MeanSquaredError", "loss": "mean_squared_error", "dtypes": ["float32", "float64"],
        "modes": ["eager"], "training": True, "batch": BATCH, "seed": 0, "steps": 0,
        "tensors": sum(len(run.tensors) for run in recording.runs), "sketches": 0,
    }  # fmt: skip
    assert "received a length" in torn.problem or "expected" in torn.problem
    text = "\n".join(manage.lines([one, other, torn], []))
    assert "loss-MeanSquaredError, mean_squared_error; float32 and float64; eager; batch 4; seed 0" in text
    assert "tensorflow 2.21.0, keras 3.15.1" in text
    assert "cannot be used: " in text
    assert text.endswith("KiB")


def test_verifying_finds_what_a_replay_would(folder: Path) -> None:
    edited(folder / "a.safetensors", layer(1, units=6))
    edited(folder / "deep" / "b.safetensors", lambda d, a: put(a, np.arange(7.0)))
    assert [found.problem for found in manage.found(folder)][:2] == ["", ""]
    one, other, _ = manage.found(folder, verify=True)
    assert "weights: dense/kernel: expected finite float32 numbers of shape (11, 6)" in one.problem
    assert "expected arrays that a recording has; 1 belong to none" in other.problem


def told_by_pytest(root: Path, document: Any) -> Path:
    record = root / manage.UNUSED
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(document))
    return record


def test_only_what_no_test_asked_for_is_removed(folder: Path, tmp_path: Path, written: bytes) -> None:
    (tmp_path / "elsewhere.safetensors").write_bytes(written)
    (folder / ".parity-0123.tmp").write_bytes(b"left by a killed process")
    (folder / ".parity-4567.tmp").write_bytes(b"being written")
    os.utime(folder / ".parity-0123.tmp", (0, 0))
    names = ["tests/goldens/deep/b.safetensors", "tests/goldens/notes.txt", "elsewhere.safetensors",
             "tests/goldens/none.safetensors", "tests/goldens/../../elsewhere.safetensors"]  # fmt: skip
    told_by_pytest(tmp_path, {"goldens": names, "time": "2026-01-01T00:00:00+00:00", "complete": True})
    removed = manage.pruned(folder, tmp_path)
    assert [path.name for path in removed] == ["b.safetensors", ".parity-0123.tmp"]
    left = sorted(path.name for path in tmp_path.glob("**/*") if path.is_file() and path.name != "unused")
    assert left == [".parity-4567.tmp", "a.safetensors", "elsewhere.safetensors", "notes.txt", "torn.safetensors"]


def test_what_was_recorded_since_is_not_removed(folder: Path, tmp_path: Path) -> None:
    record = told_by_pytest(tmp_path, {"goldens": ["tests/goldens/a.safetensors"], "complete": True})
    os.utime(record, (1000, 1000))
    assert manage.pruned(folder, tmp_path) == []
    assert (folder / "a.safetensors").exists()


INCOMPLETE: dict[str, tuple[Any, int, str]] = {
    "no record": (None, 3, "there is none, so nobody knows which goldens are unused; run all tests with pytest"),
    "a part of the tests": ({"goldens": [], "complete": False}, 3, "the last run of pytest did not run all tests"),
    "no list": ({"goldens": 3, "complete": True}, 4, "expected a list of paths under 'goldens', received 3"),
    "other things": (["a"], 4, "expected a list of paths under 'goldens', received None"),
}


@pytest.mark.parametrize("name", INCOMPLETE)
def test_without_a_complete_run_nothing_is_removed(name: str, folder: Path, tmp_path: Path) -> None:
    document, status, text = INCOMPLETE[name]
    if document is not None:
        told_by_pytest(tmp_path, document)
    with pytest.raises(ParityError, match=text) as caught:
        manage.pruned(folder, tmp_path)
    assert caught.value.exit_status == status
    assert len(list(folder.glob("**/*.safetensors"))) == 3


def goldens(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "parity", "goldens", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, check=False)


def test_the_command_lists_verifies_and_prunes(folder: Path, tmp_path: Path) -> None:
    """In the folder of the configuration, by default."""
    done = goldens("--verify", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (4, "")  # one is damaged
    assert "3 goldens" in done.stdout
    (folder / "torn.safetensors").unlink()
    told_by_pytest(tmp_path, {"goldens": ["tests/goldens/a.safetensors"], "complete": True})
    done = goldens("--prune", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["removed"] == [str(folder / "a.safetensors")]
    assert [Path(each["path"]).name for each in document["goldens"]] == ["b.safetensors"]
    done = goldens("nowhere", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (4, "")
    assert "expected a folder with goldens, there is none" in done.stderr


def test_what_a_recording_asks_is_what_was_recorded(recording: Recording) -> None:
    problem = posed(recording)
    np.testing.assert_array_equal(problem.x, recording.x)
    for name, weight in recording.weights.items():
        np.testing.assert_array_equal(problem.weights[name], weight)


def test_a_mapping_of_weights_is_not_changed_by_a_replay(golden: Path) -> None:
    """The arrays are views of the file."""
    before: Mapping[str, Any] = file.read(golden).recordings[0].weights
    kept = {name: np.array(weight) for name, weight in before.items()}
    assert parity.replay(golden).passed
    for name, weight in kept.items():
        np.testing.assert_array_equal(before[name], weight)
