"""The command line as a user meets it: what it prints, where, and the exit status. Most runs are in this process,
because TensorFlow takes seconds to start; what only a process has (signals, pipes, a fresh interpreter) gets one."""

import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scratchnet import activations

ROOT = Path(__file__).parents[2]
SMALL = ("check", "activation-tanh", "--batch", "3")


def started(*arguments, code=None, **more):
    """The command line in a process of its own; with `code`, run by that instead of `python -m parity`."""
    how = ["-m", "parity"] if code is None else ["-c", code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # other tests set it
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    if os.name == "posix":  # tests that run side by side do so in processes that ignore SIGINT, which is inherited
        streams["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen([sys.executable, *how, *arguments], env=environment, encoding="utf-8", **streams)


def what_was_run(document):
    """A report without its last bits, which differ from run to run: threads add up in any order."""
    rows = [
        [(row["tensor"], row["shape"], row["allowed"] > 0) for row in check["rows"]] for check in document["checks"]
    ]
    asked = {key: document[key] for key in ("command", "data", "batch", "seed", "environment", "verdict")}
    return asked, [(check["network"], check["loss"], check["dtype"]) for check in document["checks"]], rows


# --- 0: a pass -------------------------------------------------------------------------------------------------------


@pytest.mark.tensorflow
def test_a_pass_prints_the_report_and_nothing_else(parity):
    status, out, err = parity(*SMALL, "--dtype", "float64")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1].startswith("Yes: ")
    assert "✗" not in out
    assert "\x1b" not in out


@pytest.mark.tensorflow
def test_without_a_name_both_networks_with_all_their_losses(parity):
    status, out, _ = parity("check", "--batch", "2", "--dtype", "float64", "--json", "--data", "digits")
    assert status == 0
    assert [(check["network"], check["loss"]) for check in json.loads(out)["checks"]] == [
        ("sigmoid-500", "mean_squared_error"),
        ("sigmoid-500", "binary_crossentropy"),
        ("tanh-16", "categorical_crossentropy"),
        ("tanh-16", "sparse_categorical_crossentropy"),
    ]


@pytest.mark.tensorflow
def test_the_options_reach_the_run_and_its_command_reproduces_it(parity):
    asked = (
        "check",
        "tanh-16",
        "--data",
        "digits",
        "--batch",
        "5",
        "--dtype",
        "float64",
        "--loss",
        "mse",
        "--seed",
        "3",
    )
    status, out, _ = parity(*asked, "--json")
    document = json.loads(out)
    assert status == 0
    assert (document["batch"], document["seed"]) == (5, 3)
    assert [(check["network"], check["loss"], check["dtype"]) for check in document["checks"]] == [
        ("tanh-16", "mse", "float64")
    ]
    assert {"python", "numpy", "tensorflow", "keras"} <= set(document["environment"])
    program, *again = shlex.split(document["command"])
    assert program == "parity"
    _, repeated, _ = parity(*again, "--json")
    assert what_was_run(json.loads(repeated)) == what_was_run(document)


@pytest.mark.tensorflow
def test_a_mark_that_stdout_cannot_show_has_an_ascii_form(parity, monkeypatch):
    read, write = os.pipe()
    with open(write, "w", encoding="ascii") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        status, *_ = parity(*SMALL, "--dtype", "float64")
        monkeypatch.undo()
    with open(read, encoding="ascii") as printed:
        assert "\nok  loss" in printed.read()
    assert status == 0


# --- 1: a mismatch ---------------------------------------------------------------------------------------------------


@pytest.fixture
def wrong_sign(monkeypatch):
    """A mistake planted in scratchnet: the derivative of tanh with the wrong sign."""
    right = activations.Tanh.backward
    monkeypatch.setattr(activations.Tanh, "backward", lambda self, x, y, dy: -right(self, x, y, dy))


@pytest.mark.tensorflow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_mismatch_names_the_first_wrong_tensor(parity, wrong_sign, dtype):
    status, out, err = parity("check", "tanh-16", "--batch", "4", "--loss", "mse", "--dtype", dtype, "--data", "digits")
    assert (status, err) == (1, "")
    assert out.splitlines()[-1].startswith("No: dense_1/pre_activation.gradient is the first tensor that differs")
    wrong = [line.split()[1] for line in out.splitlines() if line.startswith("✗")]
    assert wrong[0] == "dense_1/pre_activation.gradient"
    assert "dense_2/kernel.gradient" not in wrong


@pytest.mark.tensorflow
def test_the_json_of_a_mismatch(parity, wrong_sign):
    status, out, _ = parity(*SMALL, "--dtype", "float64", "--json")
    document = json.loads(out)
    assert (status, document["verdict"], document["passed"]) == (1, "fail", False)
    assert any(row["budgets"] > 1 for row in document["checks"][0]["rows"])


# --- 2: wrong usage --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chek"], "No such command 'chek'"),
        (["check", "--nope"], "--nope"),
        (["check", "tanh-16", "sigmoid-500"], "unexpected extra argument (sigmoid-500)"),
        (["check", "--batch", "many"], "'many' is not a valid integer"),
        (["check", "--seed", "0.5"], "'0.5' is not a valid integer"),
        (["check", "--batch", "0"], "batch: expected a whole number of at least 1; received 0"),
        (["check", "--dtype", "float16"], "dtype: expected float32, float64 or both; received 'float16'"),
        (["check", "tanh-16", "--data", "digits", "--batch", "9999"], "9999"),
        (["check", "activation-tanh", "--data", "digits"], "not 28x28 digits"),
        (["check", "tanh-16", "--data", ""], "--data: expected mnist, digits or the path of a .npz file; received ''"),
        (["check", "TANH-16"], "did you mean tanh-16?\n"),
        (["check", "Sigmoid-500"], "did you mean sigmoid-500?\n"),
        (["check", "layer-conv2d"], "did you mean layer-Conv2D?\n"),
        (["check", "LENET"], "did you mean lenet-5?\n"),
    ],
)
def test_wrong_usage(parity, arguments, message):
    status, out, err = parity(*arguments)
    assert (status, out) == (2, "")
    assert message in err


@pytest.mark.parametrize("arguments", [["check", "tanh-61"], ["check", "--loss", "mean_squered_error"]])
def test_an_unknown_name_is_one_line_that_lists_the_known_ones(parity, arguments):
    status, out, err = parity(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("parity: ")
    assert err.count("\n") == 1
    assert arguments[-1] in err
    assert {"check": "tanh-16", "--loss": "MeanSquaredError"}[arguments[-2]] in err


# --- 3: nothing can be concluded -------------------------------------------------------------------------------------

WITHOUT_TENSORFLOW = """
import sys

class Missing:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in ("keras", "tensorflow"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing)
from parity.cli import main
main()
"""


def test_without_the_reference_nothing_is_concluded():
    process = started(*SMALL, code=WITHOUT_TENSORFLOW)
    out, err = process.communicate()
    assert (process.returncode, out) == (3, "")
    assert err.startswith("parity: the reference is not installed: No module named 'tensorflow'")
    assert "scratchnet-parity[tf]" in err


ONE_CLASS = {
    "class_name": "Sequential",
    "config": {
        "name": "one_class",
        "layers": [
            {"class_name": "InputLayer", "config": {"name": "i", "batch_shape": [None, 3], "dtype": "float32"}},
            {"class_name": "Dense", "config": {"name": "d", "units": 1, "activation": "softmax", "dtype": "float32"}},
        ],
    },
}


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1:UserWarning")  # Keras knows it too
def test_a_comparison_that_could_not_have_failed_concludes_nothing(parity, tmp_path):
    """The only class has probability 1 whatever the weights are, so every gradient is exactly zero."""
    path = tmp_path / "one_class.json"
    path.write_text(json.dumps(ONE_CLASS))
    asked = ("check", str(path), "--loss", "sparse_categorical_crossentropy", "--dtype", "float64")
    status, out, err = parity(*asked)
    assert (status, err) == (3, "")
    assert out.splitlines()[-1].startswith("Nothing can be concluded: one_class.json: every gradient is exactly zero")
    status, out, _ = parity(*asked, "--json")
    assert (status, json.loads(out)["verdict"]) == (3, "no power")


# --- 4: a file that cannot be used -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "content"),
    [
        (["check", "{}/model.keras"], None),
        (["check", "{}/model.keras"], b"no archive"),
        (["check", "{}/config.json"], b'{"class_name": '),
        (["check", "{}/package.json"], b'{"name": "site", "version": "1.0.0"}'),
        (["check", "{}/model.h5"], b"\x89HDF"),
        (["check", "tanh-16", "--data", "{}/digits.npz"], None),
        (["check", "tanh-16", "--data", "{}/digits.npz"], b"no archive"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_in_one_line(parity, tmp_path, arguments, content):
    *first, path = [argument.format(tmp_path) for argument in arguments]
    if content is not None:
        Path(path).write_bytes(content)
    status, out, err = parity(*first, path)
    assert (status, out) == (4, "")
    assert err.startswith(f"parity: {path}: ")
    assert err.count("\n") == 1


def test_a_file_name_cannot_move_the_cursor(parity):
    status, _, err = parity("check", "a\x1b[2J\n.keras")
    assert status == 4
    assert r"a\x1b[2J\n.keras" in err
    assert "\x1b" not in err


@pytest.mark.tensorflow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_report_that_cannot_be_written_is_an_error(parity, monkeypatch):
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        status, _, err = parity(*SMALL, "--dtype", "float64")
        monkeypatch.undo()
    assert status == 4
    assert err == "parity: the report cannot be written to standard output: No space left on device\n"


# --- 70: a bug -------------------------------------------------------------------------------------------------------


def test_a_bug_is_no_mismatch(parity, monkeypatch):
    def broken(*arguments, **options):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("parity.pipeline.check", broken)
    status, out, err = parity(*SMALL)
    assert (status, out) == (70, "")
    *traceback, last = err.splitlines()
    assert traceback[0] == "Traceback (most recent call last):"
    assert traceback[-1] == "ZeroDivisionError: planted"
    assert last.startswith("parity: this is a bug in parity")
    assert "please report" in last


# --- A process of its own --------------------------------------------------------------------------------------------


@pytest.mark.tensorflow
def test_a_reader_may_leave_early_and_tensorflow_starts_silently():
    process = started(*SMALL, "--dtype", "float64")
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait() == 0


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals and SIGINT are POSIX")
@pytest.mark.tensorflow
def test_ctrl_c_ends_it_with_130_and_one_line():
    """stderr is a terminal, so the spinner says when the check has begun."""
    terminal, stderr = os.openpty()
    process = started("check", "sigmoid-500", "--batch", "1024", stderr=stderr)
    os.close(stderr)
    seen = read_until(terminal, b"float32")
    process.send_signal(signal.SIGINT)
    seen += read_until(terminal, b"interrupted")
    with process.stdout:
        assert process.stdout.read() == ""
    os.close(terminal)
    assert process.wait() == 130
    assert re.search(rb"parity: interrupted\b", seen)
    assert b"Traceback" not in seen


def read_until(terminal, text, patience=60):
    """What a terminal shows, up to `text`."""
    seen, end = b"", time.monotonic() + patience
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], end - time.monotonic())
        assert ready, f"{text!r} did not come; so far: {seen!r}"
        seen += os.read(terminal, 65536)
    return seen


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_answers_at_once(flag):
    began = time.monotonic()
    out, err = started(flag).communicate()
    assert "check" in out
    assert err == ""
    assert time.monotonic() - began < 1  # 0.05 s on an idle core; the rest is for machines that are busy


@pytest.mark.parametrize("arguments", [["--help"], ["check", "--help"], ["--version"]])
def test_what_needs_no_numbers_loads_no_numpy(arguments):
    code = (
        "import sys\nfrom parity.cli import main\ntry:\n    main()\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    )
    process = started(*arguments, code=code)
    _, loaded = process.communicate()
    assert process.returncode == 0
    assert not {"numpy", "scipy", "rich", "parity.pipeline"} & set(loaded.split())


def test_the_help_lists_options_and_exit_statuses(parity):
    status, out, err = parity("check", "--help")
    assert (status, err) == (0, "")
    for word in ("--data", "--batch", "--dtype", "--loss", "--seed", "--json", "28x28x1", "130"):
        assert word in out
    assert "\n     70  a bug in parity" in out
    assert parity("--help")[0] == 0
    assert parity("--version")[1].startswith("parity ")


# --- A terminal ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")
@pytest.mark.tensorflow
@pytest.mark.parametrize("no_color", [False, True])
def test_colour_on_a_terminal_unless_no_color(parity, monkeypatch, no_color):
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    terminal, stdout = os.openpty()
    with open(stdout, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        status, *_ = parity(*SMALL, "--dtype", "float64")
        shown = read_until(terminal, b"Yes: ").decode()
        monkeypatch.undo()
    os.close(terminal)
    assert status == 0
    assert ("\x1b[32mYes: " in shown) is not no_color
    assert ("\x1b" in shown) is not no_color
    assert "\n✓  dense/output" in shown


# --- The same in Python ----------------------------------------------------------------------------------------------


@pytest.mark.tensorflow
def test_check_in_python_returns_the_same_report(parity):
    import parity as package

    report = package.check("activation-tanh", dtype="float64", batch=3)
    assert isinstance(report, package.Report)
    assert report.passed
    assert report.rows[0].tensor == "dense/output"
    _, out, _ = parity(*SMALL, "--dtype", "float64", "--json")
    assert what_was_run(json.loads(report.to_json())) == what_was_run(json.loads(out))


def test_the_package_is_light_and_complete():
    code = (
        "import sys, parity\n"
        "assert 'numpy' not in sys.modules\n"
        "assert set(parity.__all__) <= set(dir(parity))\n"
        "for name in parity.__all__:\n"
        "    getattr(parity, name)\n"
        "from parity import *\n"
        "assert check.__module__ == 'parity.pipeline'\n"
        "assert not hasattr(parity, 'nothing')\n"
    )
    process = started(code=code)
    assert process.communicate() == ("", "")
    assert process.returncode == 0


# --- --subject: one's own network -------------------------------------------------------------------------------------

OWN = """
import numpy as np
import parity
from helper import slope

params = {"W": np.zeros((7, 5)), "b": np.zeros(5)}

def forward(X, W, b):
    return np.tanh(X @ W + b)

def backward(X, Y, outputs, sign=1):
    dZ = 2 * (outputs - Y) / Y.size * slope(outputs)
    return {"dW": sign * X.T @ dZ, "db": dZ.sum(axis=0)}

right = parity.subject(forward, backward, params)

def wrong():
    return parity.subject(forward, lambda X, Y, outputs: backward(X, Y, outputs, -1), params)

def raising():
    return parity.subject(lambda X, W: X @ W.T, backward, params, layout="rows", samples="rows")

def something():
    return 7

def one_argument(x):
    return x
"""


@pytest.fixture
def own(tmp_path, parity):
    """Run `parity check` with a subject from a file, on the network around tanh."""
    (tmp_path / "my_net.py").write_text(OWN, encoding="utf-8")
    (tmp_path / "helper.py").write_text("def slope(a):\n    return 1 - a * a\n", encoding="utf-8")
    (tmp_path / "broken.py").write_text("import numpy as np\nx = = 1\n", encoding="utf-8")
    (tmp_path / "model.json").write_text(MODEL, encoding="utf-8")

    def run(subject, *more):
        model, brought = str(tmp_path / "model.json"), str(tmp_path / subject)
        return parity("check", model, "--loss", "mse", "--subject", brought, *more)

    return run


MODEL = json.dumps(
    {
        "class_name": "Sequential",
        "config": {
            "name": "net",
            "layers": [
                {"class_name": "InputLayer", "config": {"batch_shape": [None, 7], "name": "input"}},
                {"class_name": "Dense", "config": {"name": "dense", "units": 5, "activation": "tanh"}},
            ],
        },
    }
)


@pytest.mark.tensorflow
def test_a_right_network_of_ones_own_passes(own):
    status, out, err = own("my_net.py:right", "--batch", "6")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1].startswith("Yes: your network and Keras compute the same")
    command = next(line for line in out.splitlines() if line.startswith("reproduce: "))
    assert "--subject" in shlex.split(command)


@pytest.mark.tensorflow
def test_a_wrong_network_of_ones_own_fails_with_its_cause(own):
    status, out, _ = own("my_net.py:wrong", "--batch", "6", "--json")
    assert status == 1
    [finding] = json.loads(out)["findings"]
    assert finding["cause"]["code"] == "factor-minus-one"
    assert finding["cause"]["text"] == "dW is -1 times TensorFlow's: change the sign"


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("subject", "status", "message"),
    [
        ("my_net.py:raising", 1, "my_net.py, line 21, in <lambda>: return parity.subject(lambda X, W: X @ W.T"),
        ("broken.py:right", 1, "raised SyntaxError"),
        ("my_net.py:absent", 2, "has no 'absent'; its functions: slope, forward, backward, right, wrong"),
        ("my_net.py:something", 2, "expected what parity.subject(...) returns; received int"),
        ("my_net.py:one_argument", 2, "one_argument: it must not have parameters without a default; it has 'x'"),
        ("my_net.py", 2, "expected FILE.py:FUNCTION"),
        ("absent.py:right", 4, "there is no file"),
    ],
)
def test_a_subject_that_cannot_be_used_gets_one_message(own, subject, status, message):
    code, out, err = own(subject)
    assert (code, out) == (status, "")
    assert err.startswith("parity: ")
    assert message in err
    assert "Traceback" not in err
