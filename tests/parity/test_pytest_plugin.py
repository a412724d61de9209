"""The pytest plugin, in real runs of pytest: what it compares, what it says, and what it costs those who do not use it.

The runs without a golden need none; the others share one project, which is recorded once.
"""

import importlib
import importlib.util
import json
import os
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import pytest

import parity
from parity.pytest_plugin import place

# What a run of pytest inside of this process imports is forgotten after it, and there must be nothing twice.
for module in pkgutil.walk_packages(parity.__path__, "parity."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)

pytest_plugins = "pytester"

AWAY = ("CI", "BUILD_NUMBER", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE", "PYTEST_ADDOPTS", "WRONG")
WITHOUT_TENSORFLOW = importlib.util.find_spec("tensorflow") is None


@pytest.fixture
def environment(monkeypatch):
    """That of somebody's own machine, whatever runs this test."""
    for name in [name for name in os.environ if name in AWAY or name.startswith("PARITY_")]:
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def project(pytester, environment):
    """Write the files of a project -> a function that runs pytest there, in this process."""

    def write(tests="", settings="", **files):
        pytester.makepyprojecttoml(f"[project]\nname = 'net'\nversion = '1'\n{settings}")
        for name, text in {"test_net": tests, **files}.items():
            path = pytester.path / "tests" / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return pytester.runpytest_inprocess

    return write


def lines(result, beginning):
    return [line for line in result.stdout.lines if line.startswith(beginning)]


CHECK = "def test_net(parity_check):\n    parity_check('activation-tanh')\n"
MISSING = (
    "E       Failed: tests/goldens/test_net/{golden}: there is no recorded reference for this check; where TensorFlow "
    "is installed, make it with: pytest {test} --parity-record"
)


# --- What it costs ----------------------------------------------------------------------------------------------------


def test_a_run_that_does_not_use_it_loads_next_to_nothing(project, pytester):
    project(
        "import sys\n"
        "def test_modules():\n"
        "    loaded = {name for name in sys.modules if name.partition('.')[0] == 'parity'}\n"
        "    plugin = 'parity.pytest_plugin'\n"
        "    assert loaded == {'parity', 'parity.errors', plugin, f'{plugin}.run', f'{plugin}.result'}\n"
        "    assert not {'numpy', 'scipy', 'scratchnet', 'click', 'rich', 'tensorflow'} & sys.modules.keys()\n"
    )
    result = pytester.runpytest_subprocess("-p", "no:hypothesispytest")
    result.assert_outcomes(passed=1)
    assert not lines(result, "=== parity")
    assert "parity" not in result.stdout.lines[-1]


# --- Where a golden lies ----------------------------------------------------------------------------------------------


def test_no_two_tests_have_the_same_golden():
    as_they_are = ["test_a", "test_a[x]", "test_a-x", "test_a[a-b]"]
    names = [*as_they_are, "test_A", "test_a[X]", "test_a[a/b]", "test_a[a:b]", "TestA::test_a", "TestA.test_a", "..",
             "test_a[\u00e4]", "test_a[a\u0308]", "test_a.", "x" * 300, "x" * 299 + "y"]  # fmt: skip
    stems = [place.test(name) for name in names]
    assert len({stem.lower() for stem in stems}) == len(names)
    assert [stem for stem, name in zip(stems, names, strict=True) if stem == name] == as_they_are
    for stem in stems:
        golden = place.named(stem, "n" * 300)
        assert len(golden) < 255
        assert golden.isascii()
        assert not set(golden) & set('<>:"/\\|?*')
        assert place.is_of(golden, stem)
    assert place.is_of(place.named("a/test_b", ""), "a/test_b")
    assert not place.is_of(place.named("a/test_bc", ""), "a/test_b")


def test_the_folder_is_that_of_the_module(tmp_path):
    goldens = tmp_path / "tests" / "goldens"

    def of(path):
        return place.module(tmp_path / path, goldens, tmp_path)

    assert of("tests/test_a.py") == PurePosixPath("test_a")
    assert of("tests/unit/test_a.py") == PurePosixPath("unit/test_a")
    assert of("src/net/test_a.py") == PurePosixPath("@root/src/net/test_a")
    assert of("tests") == PurePosixPath(".")
    assert place.module(Path("/elsewhere/test_a.py"), goldens, tmp_path) == PurePosixPath("@root/test_a")
    assert str(of("tests/Unit/test_a.py")) != "Unit/test_a"


def test_a_link_to_the_project_is_the_project(tmp_path):
    (tmp_path / "real" / "tests").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    at = place.module(tmp_path / "link" / "tests" / "test_a.py", tmp_path / "real" / "tests" / "goldens", tmp_path)
    assert at == PurePosixPath("test_a")


# --- Without a golden -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_missing_golden_is_a_failure_with_the_command_that_makes_it(project, workers):
    run = project(
        CHECK + "import pytest\n"
        "@pytest.mark.parametrize('kind', ['a b', 'c'])\n"
        "def test_kinds(parity_check, kind):\n    parity_check('activation-tanh', name='one')\n"
        "class TestNet:\n"
        "    @pytest.mark.parity(name='other')\n"
        "    def test_net(self, parity_check):\n        parity_check('activation-tanh')\n"
    )
    result = run("-n", workers)
    result.assert_outcomes(failed=4)
    for golden, test in (
        ("test_net.safetensors", "tests/test_net.py::test_net"),
        ("test_kinds[[]a-b]-????????-one.safetensors", "'tests/test_net.py::test_kinds[[]a b]'"),
        ("test_kinds[[]c]-one.safetensors", "'tests/test_net.py::test_kinds[[]c]'"),
        ("TestNet.test_net-????????-other.safetensors", "tests/test_net.py::TestNet::test_net"),
    ):
        result.stdout.fnmatch_lines(MISSING.format(golden=golden, test=test))
    rows = lines(result, "error")
    assert len(rows) == 4
    assert rows == sorted(rows)
    assert all(row.split("missing")[1].strip().startswith("tests/goldens/test_net/") for row in rows)
    result.stdout.fnmatch_lines("4 checks, 4 failed")
    assert "pytest_plugin" not in result.stdout.str()  # no traceback into it
    assert not (Path("tests") / "goldens").exists()


def test_quiet_is_one_line(project):
    result = project(CHECK)("-q")
    assert [line for line in result.stdout.lines if line.startswith("parity:")] == ["parity: 1 check, 1 failed"]
    assert not lines(result, "error")


def test_a_broken_golden_is_a_failure_with_one_message(project, pytester):
    run = project(CHECK)
    path = pytester.path / "tests" / "goldens" / "test_net" / "test_net.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x10\0\0\0\0\0\0\0not a golden")
    result = run()
    result.assert_outcomes(failed=1)
    said = lines(result, "E  ")
    assert said[0].startswith("E       Failed: tests/goldens/test_net/test_net.safetensors: ")
    assert said[1:] == ["E       run: pytest tests/test_net.py::test_net --parity-record"]
    assert path.read_bytes() == b"\x10\0\0\0\0\0\0\0not a golden"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("parity_check('activation-tanh', [[1.0]], [[1.0]])", "subject: expected what parity.subject(...) returns; "
         "received list. Without a network of your own leave it out, and give samples as x=x, y=y"),
        ("parity_check('activation-tanh', bacth=3)", "TypeError: *unexpected keyword argument 'bacth'"),
    ],
)  # fmt: skip
def test_a_wrong_call_says_so(project, call, message):
    result = project(f"def test_net(parity_check):\n    {call}\n")()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(f"E*{message}*")


def test_two_checks_of_one_test_need_names(project):
    result = project(
        "import pytest\n"
        "def test_net(parity_check):\n"
        "    for _ in range(2):\n"
        "        with pytest.raises(pytest.fail.Exception) as told:\n            parity_check('activation-tanh')\n"
        "    assert 'tell them apart with name=' in str(told.value)\n"
    )()
    result.assert_outcomes(passed=1)


# --- Settings ---------------------------------------------------------------------------------------------------------


def test_the_folder_of_goldens_is_settled_in_four_places(project, pytester, environment):
    def shown(*flags):
        return lines(pytester.runpytest_inprocess(*flags), "error")[0].split()[-1]

    project(CHECK, "[tool.parity]\ngoldens = 'a'\n[tool.pytest.ini_options]\nparity_goldens = ''")
    assert shown() == "a/tests/test_net/test_net.safetensors"
    project(CHECK, "[tool.parity]\ngoldens = 'a'\n[tool.pytest.ini_options]\nparity_goldens = 'b'")
    assert shown() == "b/tests/test_net/test_net.safetensors"
    environment.setenv("PARITY_GOLDENS", "tests/c")
    assert shown() == "tests/c/test_net/test_net.safetensors"
    assert shown("--parity-goldens=tests/d/e") == "tests/d/e/@root/tests/test_net/test_net.safetensors"


@pytest.mark.parametrize(
    ("tests", "settings", "message"),
    [
        ("import pytest\npytestmark = pytest.mark.parity(bacth=3)\n" + CHECK, "", "received bacth"),
        ("import pytest\n@pytest.mark.parity('tanh-16')\n" + CHECK, "", "received 'tanh-16'"),
        (CHECK, "[tool.parity]\nreference = 'keras'", "expected golden or live; received 'keras'"),
        (
            CHECK,
            "[tool.pytest.ini_options]\nparity_reference = 'keras'",
            "ini key parity_reference: expected golden or",
        ),
        (CHECK, "[tool.parity]\nsead = 3", "there is no setting 'sead'; did you mean seed?"),
    ],
    ids=["argument", "positional", "value", "ini", "key"],
)
def test_what_cannot_be_settled_is_an_error_before_any_test_runs(project, tests, settings, message):
    result = project(tests, settings)()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(f"*{message}*")
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


def test_a_worker_says_so_too(project):
    result = project(CHECK, "[tool.parity]\nsead = 3")("-n", "1")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines("*there is no setting 'sead'; did you mean seed?*")
    assert "INTERNALERROR" not in result.stdout.str()


def test_settings_of_a_project_that_does_not_use_it_do_not_matter(project):
    result = project("def test_other():\n    pass\n", "[tool.parity]\nsead = 3")()
    result.assert_outcomes(passed=1)


def test_the_marker_of_a_parameter_is_looked_at_too(project):
    result = project(
        "import pytest\n"
        "@pytest.mark.parametrize('kind', [pytest.param(1, marks=pytest.mark.parity(bacth=3))])\n"
        "def test_net(parity_check, kind):\n    parity_check('activation-tanh')\n"
    )()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines("tests/test_net.py::test_net[[]1]: pytest.mark.parity: expected keyword arguments *")


def test_every_test_with_the_fixture_has_the_marker(project):
    run = project(
        CHECK + "import pytest\n"
        "def test_other():\n    pass\n"
        "@pytest.fixture\ndef mine(parity_check):\n    return parity_check\n"
        "def test_through_another(mine):\n    pass\n"
    )
    run("-m", "parity", "--strict-markers").assert_outcomes(failed=1, passed=1, deselected=1)
    run("-m", "not parity").assert_outcomes(passed=1, deselected=2)


@pytest.mark.parametrize("name", ["CI", "BUILD_NUMBER"])
def test_nothing_is_recorded_in_ci(project, environment, name):
    run = project(CHECK)
    environment.setenv(name, "true")
    result = run("--parity-record")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(f"ERROR: --parity-record: *{name} is set, so this is CI. If it is none, unset {name}")
    run().assert_outcomes(failed=1)  # everything else works


@pytest.mark.skipif(not WITHOUT_TENSORFLOW, reason="TensorFlow is installed")
@pytest.mark.parametrize("flag", ["--parity-record", "--parity-live"])
def test_without_tensorflow_nothing_is_recorded_or_compared_live(project, flag):
    result = project("def make():\n    import keras\n\ndef test_net(parity_check):\n    parity_check(make)\n")(flag)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*Failed: the reference is not installed: No module named 'tensorflow'. *",
                                 f"E*run: pytest tests/test_net.py::test_net {flag}"])  # fmt: skip


# --- Unused goldens ---------------------------------------------------------------------------------------------------

SKIPPED = "import pytest\n@pytest.mark.skip\n" + CHECK


@pytest.fixture
def stale(project, pytester):
    """A project with goldens that no test asks for, and some that tests ask for which do not run -> run."""
    run = project(
        SKIPPED,
        unit__test_more="import pytest\npytest.skip(allow_module_level=True)\n" + CHECK,
        conftest="collect_ignore = ['test_ignored.py']",
        test_ignored=CHECK,
        test_chosen=CHECK,
    )
    folder = pytester.path / "tests" / "goldens"
    for name in ("for-replay", "test_net/test_net", "test_net/test_net-one", "unit/test_more/test_net",
                 "test_ignored/test_net", "test_chosen/test_net", "test_net/test_other", "gone/test_net"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.safetensors").touch()
    return run


STALE = ["tests/goldens/gone/test_net.safetensors", "tests/goldens/test_net/test_other.safetensors"]
ONLY = "--deselect=tests/test_chosen.py"


def cached(pytester):
    path = pytester.path / ".pytest_cache" / "v" / "parity" / "unused"
    return json.loads(path.read_text()) if path.exists() else None


@pytest.mark.parametrize("arguments", [(), ("tests",), ("-n", "2"), ("-m", "not slow")], ids=" ".join)
def test_goldens_that_no_test_asks_for_are_named_after_a_whole_run(stale, pytester, arguments):
    result = stale(ONLY, *arguments)
    assert lines(result, "unused:") == [f"unused: {path}" for path in STALE]
    result.stdout.fnmatch_lines("No test asks for 2 goldens; to delete: parity goldens --prune")
    found = cached(pytester)
    assert (found["goldens"], found["complete"]) == (STALE, True)
    assert found["time"].endswith("+00:00")


@pytest.mark.parametrize(
    "arguments",
    [(), (ONLY, "-k", "net"), (ONLY, "tests/test_net.py"), (ONLY, "--lf"), (ONLY, "--co"), (ONLY, "--parity-live")],
    ids=["failed", "-k", "path", "--lf", "--co", "--parity-live"],
)
def test_no_golden_is_called_unused_after_any_other(stale, pytester, arguments):
    result = stale(*arguments)
    assert not lines(result, "unused:")
    assert cached(pytester) is None


def test_a_part_of_the_run_forgets_nothing_but_what_it_used(stale, pytester):
    stale(ONLY)
    with (pytester.path / "tests" / "test_net.py").open("a") as file:
        file.write("\ndef test_other(parity_check):\n    parity_check('activation-tanh')\n")
    stale("-k", "other")  # fails, because the golden is empty, but asks for it
    found = cached(pytester)
    assert (found["goldens"], found["complete"]) == (STALE[:1], False)


def test_without_pytest_s_cache_they_are_named_all_the_same(stale, pytester):
    result = stale(ONLY, "-p", "no:cacheprovider", "-q")
    assert lines(result, "parity:") == ["parity: none checked; 2 goldens unused: parity goldens --prune"]
    assert cached(pytester) is None


# --- With goldens -----------------------------------------------------------------------------------------------------

NETWORK = """
import os
import sys

import numpy as np
import pytest

import parity


def make():
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        keras.Input((6,)),
        keras.layers.Dense(5, "tanh", name="hidden"),
        keras.layers.Dense(3, "softmax", name="top"),
    ])
    model.compile(loss="categorical_crossentropy")
    return model


params = {"W1": np.zeros((5, 6)), "b1": np.zeros((5, 1)), "W2": np.zeros((3, 5)), "b2": np.zeros((3, 1))}


def forward(X, params):  # a sample in each column
    A1 = np.tanh(params["W1"] @ X + params["b1"])
    Z2 = params["W2"] @ A1 + params["b2"]
    E = np.exp(Z2 - Z2.max(axis=0))
    return E / E.sum(axis=0), {"A1": A1}


def backward(X, Y, params, cache, outputs):
    A1 = cache["A1"]
    dZ2 = (outputs - Y) / X.shape[1]
    dZ1 = params["W2"].T @ dZ2 * (1 - (A1 if os.environ.get("WRONG") else A1**2))
    return {"dW2": dZ2 @ A1.T, "db2": dZ2.sum(axis=1, keepdims=True),
            "dW1": dZ1 @ X.T, "db1": dZ1.sum(axis=1, keepdims=True)}


@pytest.mark.parity(batch=4, modes=["eager"])
class TestMine:
    def test_mine(self, parity_check):
        report = parity_check(make, parity.subject(forward, backward, params))
        assert report.passed
        assert not (os.environ.get("FRESH") and "tensorflow" in sys.modules)


@pytest.mark.parametrize("batch", [2, 3])
def test_named(parity_check, batch):
    settings = {"batch": batch, "modes": ("eager",)}
    settings |= {"batch": 5} if os.environ.get("OTHER") == "batch" else {}
    settings |= {"steps": 1} if os.environ.get("OTHER") == "steps" else {}
    settings |= {"loss": "mae"} if os.environ.get("OTHER") == "loss" else {}
    model = "activation-relu" if os.environ.get("OTHER") == "model" else "activation-tanh"
    parity_check(model, name="one", **settings)
"""
TESTS = ["TestMine::test_mine", "test_named[2], one", "test_named[3], one"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The project above with its goldens -> its folder, and what pytest said."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "pyproject.toml").write_text("[project]\nname = 'net'\nversion = '1'\n")
    (folder / "tests").mkdir()
    (folder / "tests" / "test_net.py").write_text(NETWORK)
    clean = {n: value for n, value in os.environ.items() if n not in AWAY and not n.startswith("PARITY_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--parity-record", "-p", "no:cacheprovider"],
        cwd=folder, env=clean, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return folder, done.stdout


@pytest.fixture
def replay(recorded, pytester, environment):
    """A copy of the project above -> a function that runs pytest there, in this process."""
    shutil.copytree(recorded[0], pytester.path, dirs_exist_ok=True)
    return pytester.runpytest_inprocess


def goldens(folder):
    return {path.name: path.read_bytes() for path in (folder / "tests" / "goldens" / "test_net").iterdir()}


def rows(result):
    """(verdict, test, how) of each line of the summary, sorted by test."""
    text = result if isinstance(result, str) else result.stdout.str()
    found = [line.split("  ") for line in text.splitlines() if "tests/test_net.py::" in line and line[0] in "pfen"]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in found]
    return sorted((row[0], row[2].removeprefix("tests/test_net.py::"), row[3]) for row in cells if len(row) > 3)


@pytest.mark.tensorflow
def test_what_was_recorded_passes_without_tensorflow(recorded, replay, pytester, environment):
    folder, said = recorded
    assert rows(said) == [("pass", test, "recorded") for test in TESTS]
    assert len(goldens(folder)) == 3
    environment.setenv("FRESH", "1")
    for workers in ("0", "2"):
        result = pytester.runpytest_subprocess("-n", workers)
        result.assert_outcomes(passed=3)
        assert rows(result) == [("pass", test, "replayed") for test in TESTS]
        result.stdout.fnmatch_lines("3 checks, none failed; the most that is used of a budget: 0.* (*)")


@pytest.mark.tensorflow
def test_recorded_again_it_is_unchanged(recorded, replay, pytester, environment):
    result = replay("--parity-record", "-n", "1")  # TensorFlow is loaded in the worker
    result.assert_outcomes(passed=3)
    assert rows(result) == [("pass", test, "unchanged") for test in TESTS]
    assert goldens(pytester.path) == goldens(recorded[0])


@pytest.mark.tensorflow
def test_a_mistake_is_found_by_the_golden_alone(replay, pytester, environment):
    environment.setenv("WRONG", "1")
    result = replay("-n", "1", "--junit-xml=junit.xml")
    result.assert_outcomes(passed=2, failed=1)
    golden = "tests/goldens/test_net/TestMine.test_mine-????????.safetensors"
    result.stdout.fnmatch_lines(
        [
            ">*report = parity_check(make, parity.subject(forward, backward, params))",
            "E*Failed: hidden/kernel.gradient is the first tensor that differs*, computed by Dense hidden backward *; "
            "tanh-derivative-not-squared: *",
            "E*dW1 (hidden/kernel.gradient): *are out of budget; worst at *: your network *, Keras *, * allowed*",
            "E*right: dx = dy (1 - y^2)",
            "E*yours: dx = dy (1 - y)",
            f"E*compared with: {golden}, recorded with Keras 3.* on TensorFlow 2.*",
            "E*reproduce: pytest tests/test_net.py::TestMine::test_mine",
            f"fail *tests/test_net.py::TestMine::test_mine *replayed *{golden}",
            "3 checks, 1 failed; the most that is used of a budget, of those that passed: 0.*",
        ]
    )
    assert "pytest_plugin" not in result.stdout.str()
    properties = {
        case.get("name"): {each.get("name"): each.get("value") for each in case.iter("property")}
        for case in ElementTree.parse(pytester.path / "junit.xml").iter("testcase")
    }
    mine, named = properties["test_mine"], properties["test_named[2]"]
    assert mine["parity verdict"] == "fail"
    assert mine["parity first wrong"] == "hidden/kernel.gradient"
    assert mine["parity cause"] == "tanh-derivative-not-squared"
    assert float(mine["parity budgets"]) > 1
    assert named["parity one verdict"] == "pass"
    assert named["parity one seed"] == "0"
    assert "tensorflow 2." in named["parity one versions"]
    assert named["parity one golden"] == "tests/goldens/test_net/test_named[2]-one.safetensors"


@pytest.mark.tensorflow
def test_verbose_shows_every_tensor(replay, environment):
    environment.setenv("WRONG", "1")
    result = replay("-v", "-k", "mine")
    result.stdout.fnmatch_lines(["*Captured parity call*", "*tensor *worst at *yours *Keras *allowed *used"])


@pytest.mark.tensorflow
def test_stop_at_the_first_and_run_the_last_failed(replay, environment):
    environment.setenv("WRONG", "1")
    result = replay("-x")
    result.assert_outcomes(failed=1)
    assert rows(result) == [("fail", TESTS[0], "replayed")]
    environment.delenv("WRONG")
    result = replay("--lf")
    result.assert_outcomes(passed=1)
    assert rows(result) == [("pass", TESTS[0], "replayed")]


@pytest.mark.tensorflow
def test_github_gets_annotations_and_a_summary(replay, pytester, environment):
    summary = pytester.path / "summary.md"
    for name in ("WRONG", "CI", "GITHUB_ACTIONS"):
        environment.setenv(name, "true")
    environment.setenv("GITHUB_STEP_SUMMARY", str(summary))
    environment.setenv("GITHUB_WORKSPACE", str(pytester.path.parent))
    result = replay("-q")
    (annotation,) = lines(result, "::error ")
    told, _, message = annotation.removeprefix("::error ").partition("::")
    line = NETWORK.splitlines().index("    def test_mine(self, parity_check):") + 1
    assert told == (
        "title=parity%3A tests/test_net.py%3A%3ATestMine%3A%3Atest_mine,"
        f"file={pytester.path.name}/tests/test_net.py,line={line}"
    )
    assert message.startswith("hidden/kernel.gradient is the first tensor that differs ")
    assert message.count("%0A") == 5
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("## parity: ✗ fail\n\n3 checks, 1 failed; ")
    table = [line for line in text.splitlines() if line.startswith("| ✓") or line.startswith("| ✗")]
    assert [line[:3] for line in table] == ["| ✗", "| ✓", "| ✓"]
    assert "- yours: dx = dy (1 - y)" in text.splitlines()
    environment.delenv("WRONG")
    result = replay("-q")
    assert not lines(result, "::error")
    assert "## parity: ✓ pass" in summary.read_text(encoding="utf-8")


def test_a_failure_that_a_test_expects_is_none(project, pytester, environment):
    summary = pytester.path / "summary.md"
    environment.setenv("GITHUB_ACTIONS", "true")
    environment.setenv("GITHUB_STEP_SUMMARY", str(summary))
    run = project(
        f"import pytest\n@pytest.mark.xfail(strict=True)\n{CHECK}"
        "def test_raises(parity_check):\n"
        "    with pytest.raises(pytest.fail.Exception):\n"
        "        parity_check('activation-tanh')\n"
    )
    result = run()
    result.assert_outcomes(passed=1, xfailed=1)
    assert lines(result, "2 checks") == ["2 checks, none failed, 2 as the test expected"]
    assert not lines(result, "::error")
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("## parity: ✓ pass\n")
    assert text.count("\n| - | ") == 2


@pytest.mark.tensorflow
@pytest.mark.usefixtures("replay")
def test_the_workers_of_xdist_leave_the_summary_to_the_process_that_sums_up(pytester, environment):
    summary = pytester.path / "summary.md"
    environment.setenv("GITHUB_ACTIONS", "true")
    environment.setenv("GITHUB_STEP_SUMMARY", str(summary))
    pytester.runpytest_subprocess("-n", "2").assert_outcomes(passed=3)
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("## parity: ✓ pass\n\n3 checks, none failed; ")
    assert text.count("## parity") == 1


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("batch", "batch: the test asks for 5, recorded was 2; if it was meant to change, record it again with: "),
        ("steps", "steps: the test asks for 1, recorded was 0; if it was meant to change, record it again with: "),
        ("model", "expected a recording of activation-relu, "),
        ("loss", "its loss is "),
    ],
)
def test_a_golden_of_something_else_is_a_failure(replay, pytester, environment, other, message):
    environment.setenv("OTHER", other)
    before = goldens(pytester.path)
    result = replay("-k", "test_named and 2")
    result.assert_outcomes(failed=1, deselected=2)
    result.stdout.fnmatch_lines(f"E*Failed: tests/goldens/test_net/test_named[[]2]-one.safetensors: *{message}*")
    result.stdout.fnmatch_lines("*pytest 'tests/test_net.py::test_named[[]2]' --parity-record")
    assert goldens(pytester.path) == before


@pytest.mark.tensorflow
@pytest.mark.usefixtures("replay")
def test_what_does_not_pass_is_not_recorded(pytester, environment):
    environment.setenv("WRONG", "1")
    before = goldens(pytester.path)
    result = pytester.runpytest_subprocess("--parity-record", "-k", "mine")
    result.assert_outcomes(failed=1, deselected=2)
    result.stdout.fnmatch_lines(
        [
            "E*Failed: hidden/kernel.gradient is the first tensor that differs, *",
            "E*compared with: Keras 3.* on TensorFlow 2.*, as it runs now; nothing was recorded",
            "E*reproduce: pytest tests/test_net.py::TestMine::test_mine --parity-record",
        ]
    )
    assert rows(result) == [("fail", TESTS[0], "not recorded")]
    assert goldens(pytester.path) == before


@pytest.mark.tensorflow
@pytest.mark.usefixtures("replay")
def test_live_is_keras_as_it_runs_now_and_needs_no_golden(pytester, environment):
    shutil.rmtree(pytester.path / "tests" / "goldens")
    environment.setenv("PARITY_REFERENCE", "live")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=3)
    assert rows(result) == [("pass", test, "live") for test in TESTS]
    assert all(line.endswith("  live") for line in lines(result, "pass "))
    assert not (pytester.path / "tests" / "goldens").exists()


@pytest.mark.tensorflow
def test_a_report_in_an_assertion_says_what_it_says(replay, pytester):
    golden = next((pytester.path / "tests" / "goldens" / "test_net").glob("test_named*"))
    (pytester.path / "tests" / "test_net.py").write_text(
        f"import parity\ndef test_net():\n    assert parity.replay({str(golden)!r}) == 'pass'\n"
    )
    result = replay()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*AssertionError: assert <report: pass> == 'pass'",
            "E*a report is no text; assert report.passed, or compare report.verdict",
            "E*Yes: scratchnet and * compute the same activation-tanh*",
        ]
    )
