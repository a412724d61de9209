"""The answers of Keras that are kept in files: what counts as the same answer, what a run says, and what it records."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import recorded  # loaded by conftest.py

FILE = recorded.TESTS / "test_it.py"
COMMAND = "pytest -n 0 --record-answers tests/test_it.py"

ROW = np.array([1.0, -2.0, 0.0])
EPS = float(np.finfo(np.float32).eps)

ANSWER = {
    "y": np.arange(6.0).reshape(2, 3),
    "again": [np.arange(6.0), np.float32(1.5), np.array([], np.int64)],
    "config": {"name": "ä", "rate": 0.1, "units": [3, None, True], "nothing": {}},
}


def kept_and_read(path, **answers):
    recorded.packed({test: [recorded.normalised(answer)] for test, answer in answers.items()}).write(path)
    return recorded.read(path)


# -- the file ----------------------------------------------------------------------------------------------------------


def test_an_answer_comes_back_as_it_was(tmp_path):
    back = kept_and_read(tmp_path / "a.npz", one=ANSWER).of("one")[0]
    assert recorded.differences(back, recorded.normalised(ANSWER)) == []
    assert back["config"] == ANSWER["config"]
    assert [(a.shape, a.dtype) for a in recorded.arrays(back)] == [
        ((2, 3), np.float64),
        ((6,), np.float64),
        ((), np.float32),
        ((0,), np.int64),
    ]


def test_equal_arrays_are_in_the_file_once_and_each_test_gets_its_own(tmp_path):
    kept = kept_and_read(tmp_path / "a.npz", one=ANSWER, other=ROW, third=ROW)
    assert kept.pools["float64"].tolist() == [0, 1, 2, 3, 4, 5, 1, -2, 0]
    kept.of("other")[0][:] = 7
    assert kept.of("third")[0].tolist() == ROW.tolist()


def test_the_same_answers_give_the_same_bytes(tmp_path):
    kept_and_read(tmp_path / "a.npz", one=ANSWER, other=ROW)
    kept_and_read(tmp_path / "b.npz", other=ROW, one=ANSWER)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_pickles_are_not_read(tmp_path):
    np.savez(tmp_path / "a.npz", answers=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        recorded.read(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "answer",
    [{"x": [object()]}, {1: "x"}, {"x": {recorded.ARRAY: 1}}, np.array([None]), np.array(["x"]), {1, 2}],
)
def test_other_things_are_no_answers(answer):
    with pytest.raises(TypeError, match=r"^answer.*: expected numbers, texts, arrays"):
        recorded.normalised(answer)


# -- what is the same --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kept", "live"),
    [
        (ROW, ROW * (1 + 0.9e-11)),
        ({"x": np.zeros(2), "y": ROW}, {"x": np.full(2, 1.9e-14), "y": ROW}),  # rounding beside a largest element of 2
        (np.float32([1, 2]), np.float32([1, 2 + 31 * EPS])),
        (np.array([np.nan, np.inf, -np.inf, 1e300]), np.array([np.nan, np.inf, -np.inf, 1e300])),
        (float("nan"), float("nan")),
        (np.zeros((0, 3)), np.zeros((0, 3))),
    ],
    ids=str,
)
def test_what_two_machines_may_say(kept, live):
    assert recorded.differences(kept, live) == []


@pytest.mark.parametrize(
    ("kept", "live", "said"),
    [
        (
            ROW,
            ROW + np.array([0, 0, 3e-11]),
            r"answer: 1 of 3 .* at \(2,\): recorded 0\.0, Keras says 3e-11, .* 2.0e-11",
        ),
        ({"x": np.zeros(2)}, {"x": np.full(2, 1e-14)}, r"answer\.x: 2 of 2"),
        (np.float32([1, 2]), np.float32([1, 2 + 34 * EPS]), "1 of 2"),
        (np.array([1, 2]), np.array([1, 3]), "1 of 2 elements differ"),
        (np.array([True]), np.array([False]), "1 of 1 elements differ"),
        (np.array([np.nan, 1.0]), np.array([0.0, 1.0]), r"at \(0,\): recorded nan"),
        (np.array([np.inf]), np.array([-np.inf]), "recorded inf, Keras says -inf"),
        (np.array([np.inf]), np.array([1e300]), "recorded inf"),
        (ROW, ROW[np.newaxis], r"float64 of shape \(3,\), Keras says float64 of shape \(1, 3\)"),
        (ROW, ROW.astype(np.float32), "Keras says float32"),
        ([1, ROW], [1], "answer: recorded"),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, "answer: recorded"),
        ({"a": [1]}, {"a": [True]}, r"answer\.a\[0\]: recorded 1, Keras says true"),
        (ROW, None, "Keras says null"),
        (0.1, 0.1 + 2e-17 + 1e-16, "recorded 0.1, Keras says 0.1000000000000001"),
        ("relu", "relu6", 'recorded "relu", Keras says "relu6"'),
    ],
)
def test_what_is_another_answer(kept, live, said):
    with pytest.raises(AssertionError, match=said):
        raise AssertionError("\n".join(recorded.differences(kept, live)))


def test_a_test_may_know_better_how_far_apart_they_may_be():
    assert recorded.differences(ROW, ROW + 1e-3, within=2e-3) == []
    assert recorded.differences(ROW, ROW + 3e-3, within=2e-3) != []
    assert recorded.differences(np.array([1]), np.array([2]), within=5) != []  # whole numbers have no last bits


# -- in a test ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(tmp_path):
    """asked(installed, record=False): the fixture `answers` of a test whose one answer is ROW."""
    recorded.packed({"known": [ROW]}).write(tmp_path / "test_it.npz")

    def make(installed, record=False, test="known", slow=False):
        return recorded.Answers(recorded.Book(installed, record, tmp_path), FILE, test, slow)

    return make


def not_called():
    raise RuntimeError("asked Keras")


def test_without_tensorflow_the_recorded_answer_is_given(asked):
    assert asked(installed=False)(not_called).tolist() == ROW.tolist()


def test_with_tensorflow_the_live_answer_is_given_to_the_last_bit(asked):
    assert asked(installed=True)(lambda: ROW + 1e-15).tolist() == (ROW + 1e-15).tolist()


@pytest.mark.parametrize("installed", [False, True])
def test_an_answer_that_is_not_there_is_a_failure(asked, installed):
    with pytest.raises(pytest.fail.Exception, match=rf"answer 1 .*is not recorded(?s:.*): {COMMAND}$"):
        asked(installed, test="unknown")(lambda: ROW)
    answers = asked(installed)
    answers(lambda: ROW)
    with pytest.raises(pytest.fail.Exception, match=r"answer 2 .*is not recorded"):
        answers(lambda: ROW)


def test_a_slow_test_says_so_in_the_command(asked):
    with pytest.raises(pytest.fail.Exception, match="--record-answers -m slow tests"):
        asked(False, test="unknown", slow=True)(not_called)


def test_another_answer_is_a_failure(asked):
    with pytest.raises(pytest.fail.Exception, match=rf"(?s)differs from the recorded.*1 of 3.*: {COMMAND}$"):
        asked(installed=True)(lambda: ROW + np.array([0, 0, 1e-9]))


def test_what_is_recorded_keeps_its_last_bits(asked):
    same, another = asked(installed=True, record=True), asked(installed=True, record=True)
    same(lambda: ROW + 1e-15)
    another(lambda: ROW + 1e-3)[:] = 0  # what the test does to it is not recorded
    assert same.given[0].tolist() == ROW.tolist()
    assert another.given[0].tolist() == (ROW + 1e-3).tolist()


# -- a run that records ------------------------------------------------------------------------------------------------

PROJECT = {
    "pytest.ini": """
[pytest]
addopts = --import-mode=importlib -m "not slow"
markers =
    slow: x
    tensorflow: x
    torch: x
""",
    "tests/test_it.py": """
import pytest

def test_one(answers):
    assert answers(lambda: 1) == 1
def test_other(answers):
    assert answers(lambda: [2]) == [2]
def test_fails(answers):
    assert answers(lambda: 3) == 4
def test_none():
    pass
@pytest.mark.slow
def test_slow(answers):
    assert answers(lambda: 5) == 5
""",
}


@pytest.fixture
def project(tmp_path):
    for name in ("conftest.py", "recorded.py"):
        (tmp_path / "tests").mkdir(exist_ok=True)
        shutil.copy(recorded.TESTS / name, tmp_path / "tests" / name)
    for name, text in PROJECT.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def run(project, *arguments, **environment):
    """Output, and the document of answers afterwards."""
    clean = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_ADDOPTS")}
    paths = os.pathsep.join([str(recorded.TESTS.parent), *filter(None, [clean.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--record-answers", *arguments],
        cwd=project,
        env=clean | {"PYTHONPATH": paths} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr, recorded.read(project / "tests/goldens/answers/test_it.npz").document


@pytest.mark.tensorflow  # nothing is recorded where it is not installed
def test_what_passed_is_recorded_and_what_is_gone_is_dropped(project: Path):
    everything = {"test_one": [1], "test_other": [[2]], "test_slow": [5]}
    said, document = run(project, "-n", "0", "-m", "")
    assert "1 failed, 4 passed" in said
    assert "the answers to 3 tests" in said
    assert document == everything
    file = project / "tests/test_it.py"
    file.write_text(
        file.read_text().replace("def test_other", "def other").replace("lambda: 1) == 1", "lambda: 6) == 6")
    )
    assert run(project, "-n", "0", "tests/test_it.py::test_none")[1] == everything
    said, document = run(project, "-n", "0")
    assert document == {"test_one": [6], "test_slow": [5]}
    assert "all as they were recorded" in run(project, "-n", "0")[0]


def test_a_run_that_must_not_record_says_so(project: Path):
    said, document = run(project, "-n", "0", CI="true")
    assert "--record-answers: refused where CI is set" in said
    assert document == {}


def test_several_processes_are_refused(project: Path):
    assert "add -n 0" in run(project, "-n", "2")[0]
