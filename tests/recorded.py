"""What Keras answered, kept in files: a test that compares with Keras needs TensorFlow only where it is installed.

A test asks `theirs = answers(lambda: ...)` for what Keras says: arrays, numbers, texts, lists and dictionaries of them.
With TensorFlow the function is called, the test goes on with what it returns, and the recorded answer must say the
same; without TensorFlow the test goes on with the recorded answer. `pytest -n 0 --record-answers FILE` records.

Each test file has one file of answers. In it are one array for each dtype, in which every different array stands once,
and a JSON text of all answers that says where in them each of its arrays is.
"""

from __future__ import annotations

import copy
import importlib
import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from parity.atomic import replaced

TESTS = Path(__file__).parent
FOLDER = TESTS / "goldens" / "answers"

# How far apart two machines with TensorFlow may be, by the largest element of the array. Threads, vector units and
# oneDNN change the order of sums, and each machine has its own exp and log.
RELATIVE = {
    # The float64 gate for two correct implementations; the worst of 10,000 random networks was at 3.1e-13.
    "float64": 1e-11,
    # Only what is computed element by element, or is exact, is asked for in float32: sums are asked for in float64 or
    # of integers. The worst are normal numbers, in which two libraries may be 10.5 units of the last place apart (see
    # NORMAL_ULPS in scratchnet/test_initializers.py); 16 is the next power of two.
    "float32": 16 * 2.0**-23,
}
# What is nothing but rounding, such as a gradient that is zero on paper, is no larger than this part of the largest
# element of the whole answer: the same term of the gate.
OF_ALL = 1e-14

ARRAY = "__array__"
TEXT = "answers"


def normalised(value: Any, where: str = "answer") -> Any:
    """The form in which an answer comes back from a file: lists for tuples, arrays for NumPy's numbers."""
    if isinstance(value, np.ndarray | np.generic):
        array = np.array(value, order="C")
        if array.dtype.kind in "biuf":
            return array
    elif isinstance(value, Mapping):
        if all(isinstance(key, str) and key != ARRAY for key in value):
            return {key: normalised(item, f"{where}.{key}") for key, item in value.items()}
    elif isinstance(value, list | tuple):
        return [normalised(item, f"{where}[{index}]") for index, item in enumerate(value)]
    elif value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"{where}: expected numbers, texts, arrays of numbers, and lists and dictionaries with names of these; "
        f"received {value!r}, a {type(value).__name__}"
    )


def arrays(value: Any) -> Iterator[np.ndarray]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from arrays(item)


def differences(kept: Any, live: Any, within: float | None = None) -> list[str]:
    """Where a recorded answer is not the live one, in words. within: how far apart elements of arrays may be, where
    that is more than the rules above say."""
    largest = max((_size(array) for array in arrays(live) if array.dtype == np.float64), default=0.0)
    return list(_differences(kept, live, within, OF_ALL * largest, "answer"))


def _differences(kept: Any, live: Any, within: float | None, floor: float, where: str) -> Iterator[str]:
    if isinstance(kept, np.ndarray) and isinstance(live, np.ndarray):
        yield from _array_differences(kept, live, within, floor, where)
    elif isinstance(kept, dict) and isinstance(live, dict) and list(kept) == list(live):
        for key in kept:
            yield from _differences(kept[key], live[key], within, floor, f"{where}.{key}")
    elif isinstance(kept, list) and isinstance(live, list) and len(kept) == len(live):
        for index, (one, other) in enumerate(zip(kept, live, strict=True)):
            yield from _differences(one, other, within, floor, f"{where}[{index}]")
    elif json.dumps(kept, default=_said) != json.dumps(live, default=_said):  # as texts: nan is nan, 1 is not True
        yield f"{where}: recorded {_said(kept)}, Keras says {_said(live)}"


def _array_differences(
    kept: np.ndarray, live: np.ndarray, within: float | None, floor: float, where: str
) -> Iterator[str]:
    if (kept.shape, kept.dtype) != (live.shape, live.dtype):
        yield f"{where}: recorded {_said(kept)}, Keras says {_said(live)}"
        return
    if kept.dtype.kind != "f":
        allowed = 0.0
    elif within is not None:
        allowed = within
    else:
        allowed = RELATIVE[str(live.dtype)] * _size(live) + (floor if live.dtype == np.float64 else 0)
    same = (kept == live) | (np.isnan(kept) & np.isnan(live) if kept.dtype.kind == "f" else False)
    one, other = np.where(same, 0, kept).astype(np.float64), np.where(same, 0, live).astype(np.float64)
    apart = np.abs(one - other)
    wrong = ~(apart <= allowed)  # not a number is apart from everything
    if wrong.any():
        worst = np.argmax(np.where(wrong, np.nan_to_num(apart, nan=np.inf), -1))
        index = tuple(int(i) for i in np.unravel_index(worst, live.shape))
        yield (
            f"{where}: {int(wrong.sum())} of {live.size} elements differ, worst at {index}: "
            f"recorded {kept[index].item()!r}, Keras says {live[index].item()!r}, allowed {allowed:.1e}"
        )


def _size(array: np.ndarray) -> float:
    """The largest finite magnitude."""
    return float(np.max(np.abs(array, dtype=np.float64), where=np.isfinite(array), initial=0))


def _said(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    text = json.dumps(value, default=_said)
    return text if len(text) < 200 else f"{text[:200]}..."


# -- the file ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """The answers of one test file: {test: its answers, in the order in which it asks}, and all their arrays."""

    document: Mapping[str, list[Any]]
    pools: Mapping[str, np.ndarray]

    def of(self, test: str) -> list[Any]:
        """Anew each time: what one test does to its arrays no other sees."""
        return [self._filled(answer) for answer in self.document.get(test, [])]

    def _filled(self, value: Any) -> Any:
        if isinstance(value, dict):
            if ARRAY in value:
                kind, start, shape = value[ARRAY]
                return self.pools[kind][start : start + math.prod(shape)].reshape(shape).copy()
            return {key: self._filled(item) for key, item in value.items()}
        return [self._filled(item) for item in value] if isinstance(value, list) else value

    @property
    def text(self) -> bytes:
        return json.dumps(self.document, ensure_ascii=False, separators=(",", ":")).encode()

    def holds_the_same_as(self, other: Kept) -> bool:
        """To the bit. Two versions of a compressor would give two files."""
        mine, its = ({kind: pool.tobytes() for kind, pool in each.pools.items()} for each in (self, other))
        return (self.text, mine) == (other.text, its)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as file:
            np.savez_compressed(file, allow_pickle=False, **{TEXT: np.frombuffer(self.text, np.uint8)}, **self.pools)


def packed(answers: Mapping[str, list[Any]]) -> Kept:
    """Every different array once, however many answers it is in."""
    pools: dict[str, list[np.ndarray]] = defaultdict(list)
    places: dict[tuple[str, bytes], int] = {}
    lengths: dict[str, int] = defaultdict(int)

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            kind, key = value.dtype.name, (value.dtype.name, value.tobytes())
            if key not in places:
                places[key] = lengths[kind]
                lengths[kind] += value.size
                pools[kind].append(value.ravel())
            return {ARRAY: [kind, places[key], list(value.shape)]}
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list) else value

    document = {test: plain(answers[test]) for test in sorted(answers)}
    return Kept(document, {kind: np.concatenate(pools[kind]) for kind in sorted(pools)})


def read(path: Path) -> Kept:
    """What `write` wrote; nothing where there is no file."""
    if not path.exists():
        return Kept({}, {})
    with np.load(path, allow_pickle=False) as members:
        pools = dict(members)
    return Kept(json.loads(pools.pop(TEXT).tobytes().decode()), pools)


# -- in a test ---------------------------------------------------------------------------------------------------------


class Book:
    """All answers of this run of pytest. installed: whether TensorFlow is; record: whether to record."""

    def __init__(self, installed: bool, record: bool, folder: Path = FOLDER):
        self.installed, self.record, self.folder = installed, record, folder
        self._files: dict[Path, Kept] = {}

    def path(self, test_file: Path) -> Path:
        return (self.folder / test_file.relative_to(TESTS)).with_suffix(".npz")

    def kept(self, test_file: Path) -> Kept:
        if test_file not in self._files:
            self._files[test_file] = read(self.path(test_file))
        return self._files[test_file]


@dataclass
class Answers:
    """The fixture: what Keras says to one test, question by question."""

    book: Book
    file: Path
    test: str
    slow: bool = False  # deselected unless asked for, in a run that records too
    given: list[Any] = field(default_factory=list)  # so far, as they are to be recorded

    def __post_init__(self) -> None:
        self._kept = self.book.kept(self.file).of(self.test)

    def __call__(self, ask: Callable[[], Any], within: float | None = None) -> Any:
        """ask: returns what Keras says, and imports it. within: see `differences`."""
        number = len(self.given)
        kept = self._kept[number : number + 1]
        if not self.book.installed:
            self._require(kept, "is not recorded, and TensorFlow is not installed")
            self.given.append(None)
            return kept[0]
        live = normalised(ask())
        apart = differences(kept[0], live, within) if kept else []
        if not self.book.record:
            self._require(kept, "is not recorded")
            if apart:
                self._fail("differs from the recorded one:\n  " + "\n  ".join(apart[:5]))
        # The last bits stay as they are in the file, or each machine would record a file of its own.
        self.given.append(kept[0] if kept and not apart else copy.deepcopy(live))
        return live

    def _require(self, kept: list[Any], message: str) -> None:
        if not kept:
            self._fail(message)

    def _fail(self, message: str) -> None:
        pytest.fail(f"Keras's answer {len(self.given) + 1} to this test {message}\n{self.command}", pytrace=False)

    @property
    def command(self) -> str:
        where = self.file.relative_to(TESTS.parent).as_posix()
        slow = " -m slow" if self.slow else ""
        return f"where TensorFlow is installed, this records it: pytest -n 0 --record-answers{slow} {where}"


ASKED = pytest.StashKey[Answers]()  # of a test that has the fixture


class Recorder:
    """A plugin of pytest: writes the answers of the tests that passed, when all have run."""

    def __init__(self, book: Book):
        self.book = book
        self.collected: dict[Path, set[str]] = defaultdict(set)
        self.passed: dict[Path, dict[str, list[Any]]] = defaultdict(dict)
        self.lines: list[str] = []

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        if TESTS in item.path.parents:
            self.collected[item.path].add(name_of(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        report = yield
        if call.when == "call" and report.passed and TESTS in item.path.parents:
            answers = item.stash.get(ASKED, None)
            self.passed[item.path][name_of(item)] = answers.given if answers else []
        return report

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        config = session.config
        whole = not config.getoption("lf", False) and not any("::" in argument for argument in config.args)
        for file, passed in self.passed.items():
            kept = self.book.kept(file)
            there = self.collected[file] if whole else set(kept.document)
            answers = {test: kept.of(test) for test in kept.document if test in there} | passed
            self._write(self.book.path(file), {test: given for test, given in answers.items() if given})

    def _write(self, path: Path, answers: Mapping[str, list[Any]]) -> None:
        kept = packed(answers)
        if not answers:
            path.unlink(missing_ok=True)
        elif not kept.holds_the_same_as(read(path)):
            kept.write(path)
            self.lines.append(f"{path}: the answers to {len(answers)} tests, {path.stat().st_size / 1024:.1f} KiB")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section("answers of Keras")
        for line in self.lines or ["all as they were recorded"]:
            terminalreporter.line(line)


def name_of(item: pytest.Item) -> str:
    """The name of a test in its file."""
    return item.nodeid.partition("::")[2]


def refusal(config: pytest.Config, installed: bool) -> str | None:
    """Why nothing can be recorded in this run."""
    if os.environ.get("CI"):
        return "--record-answers: refused where CI is set; record on your machine and commit the files"
    if config.getoption("numprocesses", 0):
        return "--record-answers: several processes would write one file; add -n 0"
    if not installed:
        return "--record-answers: TensorFlow and Keras are not installed; python -m pip install -e '.[tf]'"
    return None


# -- Keras -------------------------------------------------------------------------------------------------------------


def imported_keras() -> ModuleType:
    """Keras on its TensorFlow backend, without TensorFlow's lines about the machine."""
    os.environ["KERAS_BACKEND"] = "tensorflow"  # a user's ~/.keras/keras.json may name another
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return importlib.import_module("keras")


class LazyKeras:
    """Keras, imported as soon as something of it is wanted: what a question to `answers` uses.

    floatx: what Keras is set to from then on until `restore`.
    """

    def __init__(self, floatx: str | None = None):
        self._floatx = floatx
        self._before: tuple[str, Any] | None = None

    def __getattr__(self, name: str) -> Any:
        keras = imported_keras()
        if self._floatx and not self._before:
            self._before = keras.config.floatx(), keras.config.dtype_policy()
            keras.config.set_floatx(self._floatx)
            keras.config.set_dtype_policy(self._floatx)
        return getattr(keras, name)

    def restore(self) -> None:
        if self._before:
            keras = imported_keras()
            keras.config.set_floatx(self._before[0])
            keras.config.set_dtype_policy(self._before[1])
            self._before = None
