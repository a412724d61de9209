"""[tool.parity], PARITY_* variables and flags: which one wins, from where a path counts, and what a mistake is told."""

import inspect
import json
import os
import shlex
from pathlib import Path

import pytest

from parity import config, pipeline, reproduce
from parity.errors import FileError, UsageError
from parity.runners import keras as runner
from parity.spec import DTYPES

IN_FILE = {"batch": 3, "seed": 5, "dtype": "float64", "modes": ["eager"], "goldens": "recorded", "sketch-above": 9}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Write a pyproject.toml into an empty project, its .git included, and go there -> its path."""
    for name in [name for name in os.environ if name.startswith("PARITY_")]:
        monkeypatch.delenv(name)
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)

    def write(text, folder="."):
        file = tmp_path / folder / "pyproject.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return write


def table(**settings):
    lines = [f"{name.replace('_', '-')} = {json.dumps(value)}" for name, value in settings.items()]
    return "\n".join(["[tool.parity]", *lines])


# --- The settings ----------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_parity_check(project):
    settled = config.load()
    asked = inspect.signature(pipeline.check).parameters
    assert {name: settled[name] for name in ("data", "dtype", "seed")} == {
        name: asked[name].default for name in ("data", "dtype", "seed")
    }
    assert settled["batch"] == pipeline.BATCH
    assert tuple(settled["modes"]) == reproduce.MODES
    assert {settled.source(name) for name in config.SETTINGS} == {"default"}


def test_the_choices_are_those_of_a_check():
    assert tuple(runner.MODES) == config.MODES
    for name in (*DTYPES, "both"):
        assert config.load(flags={"dtype": name})["dtype"] == name


def test_every_setting_can_be_given_in_each_of_the_three_ways(project, monkeypatch):
    ways = {  # in the file, in a variable, by a flag
        "data": ("digits", "mnist", "digits"),
        "batch": (3, "4", 5),
        "dtype": ("float32", "float64", "both"),
        "seed": (0, "1", 2),
        "modes": (["xla"], "eager, xla", "function"),
        "goldens": ("a", "b", "c"),
        "sketch-above": (1, "2", 3),
        "reference": ("live", "golden", "live"),
    }
    assert set(ways) == set(config.SETTINGS)
    root = project(table(**{name: way[0] for name, way in ways.items()})).parent
    found = config.load()
    assert {name: found[name] for name in ways} == {n: w[0] for n, w in ways.items()} | {"goldens": root / "a"}
    assert {found.source(name) for name in ways} == {"pyproject.toml [tool.parity]"}
    for name, way in ways.items():
        monkeypatch.setenv(config.SETTINGS[name].variable, way[1])
    found = config.load()
    assert [found[name] for name in ways] == [
        "mnist", 4, "float64", 1, ["eager", "xla"], Path("b"), 2, "golden"
    ]  # fmt: skip
    assert [found.source(name) for name in ways] == [
        "PARITY_DATA", "PARITY_BATCH", "PARITY_DTYPE", "PARITY_SEED", "PARITY_MODES", "PARITY_GOLDENS",
        "PARITY_SKETCH_ABOVE", "PARITY_REFERENCE",
    ]  # fmt: skip
    found = config.load(flags={name: way[2] for name, way in ways.items()})
    assert [found[name] for name in ways] == ["digits", 5, "both", 2, ["function"], Path("c"), 3, "live"]
    assert [found.source(name) for name in ways] == [f"--{name}" for name in ways]


def test_pytest_s_ini_file_stands_between_the_table_and_the_variables(project, monkeypatch):
    project(table(goldens="a", reference="live"))
    ini = {"goldens": "b", "reference": ""}
    found = config.load(ini=ini)
    assert (found["goldens"], found.source("goldens")) == (Path("b"), "ini key parity_goldens")
    assert (found["reference"], found.source("reference")) == ("live", PLACE)
    monkeypatch.setenv("PARITY_GOLDENS", "c")
    assert config.load(ini=ini)["goldens"] == Path("c")
    found = config.load(flags={"goldens": "d"}, ini=ini, option="--parity-")
    assert (found["goldens"], found.source("goldens")) == (Path("d"), "--parity-goldens")
    with pytest.raises(UsageError, match="ini key parity_reference: expected golden or live; received 'keras'"):
        config.load(ini={"reference": "keras"})


def test_a_flag_that_is_not_given_and_an_empty_variable_say_nothing(project, monkeypatch):
    project(table(seed=5))
    monkeypatch.setenv("PARITY_SEED", "")
    found = config.load(flags={"seed": None})
    assert (found["seed"], found.source("seed")) == (5, "pyproject.toml [tool.parity]")
    assert config.load(flags={"seed": 0})["seed"] == 0


def test_the_file_is_read_each_time(project):
    project(table(seed=5))
    assert config.setting("seed") == 5
    project(table(seed=6))
    assert config.setting("seed") == 6


# --- Which file, and from where paths count --------------------------------------------------------------------------


def test_the_nearest_file_with_the_table_is_read(project, tmp_path, monkeypatch):
    file = project(table(goldens="recorded", data="digits.npz"))
    project("[project]\nname = 'part'", "part")
    below = tmp_path / "part" / "deep"
    below.mkdir()
    found = config.load(below)
    assert found.file == file
    assert found.source("goldens") == f"{Path('..', '..', 'pyproject.toml')} [tool.parity]"
    assert (found["goldens"], found["data"]) == (tmp_path / "recorded", tmp_path / "digits.npz")
    monkeypatch.chdir(below)
    assert config.load()["goldens"] == tmp_path / "recorded"
    assert config.load(Path("..", "..", "part"))["goldens"] == tmp_path / "recorded"
    project(table(goldens="own"), "part")
    assert config.load()["goldens"] == tmp_path / "part" / "own"
    assert config.load()["data"] is None  # one file, not a mixture


@pytest.mark.parametrize("as_file", [False, True], ids=["checkout", "worktree"])
def test_the_search_ends_at_the_root_of_the_repository(project, tmp_path, as_file):
    project(table(seed=5))
    inner = tmp_path / "inner"
    inner.mkdir()
    assert config.load(inner)["seed"] == 5
    git = inner / ".git"
    git.write_text("gitdir: elsewhere") if as_file else git.mkdir()
    assert config.load(inner)["seed"] == 0
    project(table(seed=6), "inner")
    assert config.load(inner)["seed"] == 6


def test_a_default_path_counts_from_the_root_of_the_project(project, tmp_path):
    below = tmp_path / "src"
    below.mkdir()
    assert config.load(below)["goldens"] == below / "tests" / "goldens"
    project("[project]\nname = 'mine'")
    found = config.load(below)
    assert (found["goldens"], found.file) == (tmp_path / "tests" / "goldens", None)


def test_an_absolute_path_stays_one(project, tmp_path):
    project(table(goldens=str(tmp_path / "else" / "where")), "inner")
    assert config.load(tmp_path / "inner")["goldens"] == tmp_path / "else" / "where"


# --- Mistakes --------------------------------------------------------------------------------------------------------

PLACE = "pyproject.toml [tool.parity]"
WRONG = [
    (table(seed="5"), UsageError, f"{PLACE} seed: expected a whole number of at least 0; received '5'"),
    (table(seed=-1), UsageError, f"{PLACE} seed: expected a whole number of at least 0; received -1"),
    (table(seed=True), UsageError, f"{PLACE} seed: expected a whole number of at least 0; received True"),
    (table(batch=0), UsageError, f"{PLACE} batch: expected a whole number of at least 1; received 0"),
    (table(batch=2.0), UsageError, f"{PLACE} batch: expected a whole number of at least 1; received 2.0"),
    (table(dtype="float16"), UsageError, f"{PLACE} dtype: expected float32, float64 or both; received 'float16'"),
    (table(dtype=["both"]), UsageError, f"{PLACE} dtype: expected float32, float64 or both; received ['both']"),
    (table(modes="eager"), UsageError, f"{PLACE} modes: expected some of eager, function, xla; received 'eager'"),
    (table(modes=[]), UsageError, f"{PLACE} modes: expected some of eager, function, xla; received []"),
    (table(modes=[["xla"]]), UsageError, f"{PLACE} modes: expected some of eager, function, xla; received [['xla']]"),
    (table(reference="keras"), UsageError, f"{PLACE} reference: expected golden or live; received 'keras'"),
    (table(data=""), UsageError, f"{PLACE} data: expected mnist, digits or the path of a .npz file; received ''"),
    (table(goldens="a\0b"), UsageError, f"{PLACE} goldens: expected the path of a folder; received 'a\\x00b'"),
    (table(sketch_above=0), UsageError, f"{PLACE} sketch-above: expected a whole number of at least 1; received 0"),
    (table(sed=5), UsageError, f"{PLACE}: there is no setting 'sed'; did you mean seed?"),
    ("[tool.parity]\nsketch_above = 5", UsageError, "there is no setting 'sketch_above'; did you mean sketch-above?"),
    ("[tool.parity]\nSEED = 5", UsageError, "there is no setting 'SEED'; did you mean seed?"),
    (table(tolerance=1), UsageError, "there is no setting 'tolerance'; known: data, batch, dtype, seed, modes, "),
    ("[tool.parity.check]\nseed = 1", UsageError, f"{PLACE}: there is no setting 'check'; known: data"),
    ("[tool]\nparity = 3", UsageError, "pyproject.toml tool.parity: expected a table, [tool.parity]; received 3"),
    ("[[tool.parity]]", UsageError, "pyproject.toml tool.parity: expected a table, [tool.parity]; received [{}]"),
    ("[tool.parity", FileError, "pyproject.toml: expected TOML; "),
    ("[tool.parity]\nseed = 1\nseed = 2", FileError, "pyproject.toml: expected TOML; Cannot overwrite a value"),
    (b"[tool.parity]\ngoldens = '\xff'", FileError, "pyproject.toml: expected TOML; 'utf-8' codec can't decode"),
    (f"a = {'[' * 10_000}", FileError, "pyproject.toml: expected TOML; "),
]


@pytest.mark.parametrize(("text", "error", "message"), WRONG)
def test_a_mistake_in_the_file_names_its_place(project, text, error, message):
    project(text)
    with pytest.raises(error) as told:
        config.load()
    assert message in str(told.value)


@pytest.mark.parametrize("other", ["tool = 3", "[[tool]]", "[tool.ruff]\nseed = 'x'", ""])
def test_a_file_without_the_table_says_nothing(project, other):
    project(other)
    assert config.load().file is None


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("PARITY_SEED", "five", "PARITY_SEED: expected a whole number of at least 0; received 'five'"),
        ("PARITY_SEED", "-5", "PARITY_SEED: expected a whole number of at least 0; received '-5'"),
        ("PARITY_BATCH", "1e3", "PARITY_BATCH: expected a whole number of at least 1; received '1e3'"),
        ("PARITY_MODES", "eager;xla", "PARITY_MODES: expected some of eager, function, xla; received 'eager;xla'"),
        ("PARITY_MODES", ",", "PARITY_MODES: expected some of eager, function, xla; received ','"),
        ("PARITY_DTYPE", "double", "PARITY_DTYPE: expected float32, float64 or both; received 'double'"),
    ],
)
def test_a_mistake_in_a_variable_names_it(parity, project, monkeypatch, name, text, message):
    monkeypatch.setenv(name, text)
    assert parity("config") == (2, "", f"parity: {message}\n")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--dtype", "half"), "--dtype: expected float32, float64 or both; received 'half'"),
        (("--modes", "graph"), "--modes: expected some of eager, function, xla; received 'graph'"),
        (("--batch", "-2"), "--batch: expected a whole number of at least 1; received -2"),
    ],
)
def test_a_mistake_in_a_flag_names_it(parity, project, flags, message):
    assert parity("check", *flags) == (2, "", f"parity: {message}\n")


def test_the_exit_status_of_each_kind_of_mistake(parity, project):
    project(table(sed=1))
    assert parity("check", "tanh-16")[0] == 2
    project("[tool.parity")
    status, out, err = parity("check", "tanh-16")
    assert (status, out) == (4, "")
    assert err.count("\n") == 1


def test_a_name_in_the_file_cannot_move_the_cursor(parity, project):
    project('[tool.parity]\n"\\u001b[2J\\n" = 1')
    _, _, err = parity("config")
    assert err.count("\n") == 1
    assert "\x1b" not in err


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions are POSIX's, and root has them all")
def test_a_file_that_may_not_be_read(project):
    project(table(seed=1)).chmod(0)
    with pytest.raises(FileError, match=r"pyproject.toml: cannot be read: Permission denied"):
        config.load()


# --- What the commands make of it ------------------------------------------------------------------------------------


def test_parity_config_shows_each_value_and_where_it_came_from(parity, project, monkeypatch):
    project(table(**IN_FILE))
    monkeypatch.setenv("PARITY_SEED", "7")
    monkeypatch.setenv("PARITY_BTACH", "8")
    status, out, err = parity("config")
    assert (status, err) == (0, "")
    assert [line.split(maxsplit=2) for line in out.splitlines() if line.startswith(("se", "batch", "gold", "sk"))] == [
        ["setting", "value", "from"],
        ["batch", "3", "pyproject.toml [tool.parity]"],
        ["seed", "7", "PARITY_SEED"],
        ["goldens", "recorded", "pyproject.toml [tool.parity]"],
        ["sketch-above", "9", "pyproject.toml [tool.parity]"],
    ]
    assert "reference     golden    default" in out.splitlines()
    assert out.splitlines()[-1] == "PARITY_BTACH is set, and is no setting"


def test_parity_config_as_json(parity, project, monkeypatch):
    file = project(table(**IN_FILE))
    monkeypatch.setenv("PARITY_MNIST", "x")
    status, out, err = parity("config", "--json")
    assert (status, err) == (0, "")
    document = json.loads(out)
    assert (document["schema_version"], document["file"], document["unread"]) == (1, str(file), ["PARITY_MNIST"])
    assert list(document["settings"]) == list(config.SETTINGS)
    found = {name: (entry["value"], entry["source"]) for name, entry in document["settings"].items()}
    assert found == {
        "data": (None, "default"),
        "reference": ("golden", "default"),
        **{name: (value, PLACE) for name, value in IN_FILE.items()},
        "goldens": (str(file.parent / "recorded"), PLACE),
    }
    assert {entry["variable"] for entry in document["settings"].values()} == {
        each.variable for each in config.SETTINGS.values()
    }


@pytest.fixture
def checked(parity):
    """Run `parity check --json` -> (batch, seed, {(dtype, modes)}), and the whole document."""

    def run(*arguments):
        status, out, err = parity("check", *arguments, "--json")
        assert (status, err) == (0, "")
        document = json.loads(out)
        how = {(check["dtype"], tuple(check["modes"])) for check in document["checks"]}
        return (document["batch"], document["seed"], how), document

    return run


@pytest.mark.tensorflow
def test_parity_check_takes_its_options_from_all_three(checked, project, monkeypatch):
    project(table(**IN_FILE))
    assert checked("activation-tanh")[0] == (3, 5, {("float64", ("eager",))})
    monkeypatch.setenv("PARITY_SEED", "6")
    monkeypatch.setenv("PARITY_BATCH", "4")
    assert checked("activation-tanh")[0] == (4, 6, {("float64", ("eager",))})
    found, document = checked("activation-tanh", "--seed", "0", "--modes", "function", "--dtype", "float32")
    assert found == (4, 0, {("float32", ("function",))})
    monkeypatch.setenv("PARITY_MODES", "eager,function")
    program, _, *again = shlex.split(document["command"])
    assert program == "parity"
    assert checked(*again)[0] == found  # whatever is settled by now


@pytest.mark.tensorflow
def test_images_that_a_project_settled_are_for_the_networks_that_take_them(checked, project, parity):
    project(table(data="digits", dtype="float32", modes=["eager"], batch=2))
    assert checked("tanh-16", "--loss", "mse")[1]["data"].endswith("(bundled)")
    assert checked("activation-tanh")[1]["data"] == "designed probe"
    status, _, err = parity("check", "activation-tanh", "--data", "digits")
    assert status == 2
    assert "not 28x28 digits" in err


# --- docs/configuration.md -------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")


def test_the_page_shows_what_the_command_prints(parity, project, monkeypatch):
    _, file, _, printed, *_ = PAGE.split("```")
    project(file.removeprefix("toml\n"))
    monkeypatch.setenv("PARITY_SEED", "7")
    assert parity("config") == (0, printed.lstrip("\n"), "")


def test_the_page_lists_every_setting():
    rows = [[cell.strip(" `") for cell in row.split("|")[1:4]] for row in PAGE.splitlines() if "| `PARITY_" in row]

    def written(default):
        return "" if default is None else ",".join(default) if isinstance(default, list) else str(default)

    assert rows == [[each.name, each.variable, written(each.default)] for each in config.SETTINGS.values()]
