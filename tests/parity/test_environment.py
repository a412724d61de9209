"""`parity env`, with TensorFlow, without it, and with one that does not start."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from parity import environment

ROOT = Path(__file__).parents[2]

WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = None  # Python's own way to say that there is none
from parity.cli import main
main()
"""


def said(*arguments, path=ROOT):
    """What Python prints, as JSON, run with these arguments in a process that finds modules in `path` first."""
    variables = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run([sys.executable, *arguments], env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_without_tensorflow_the_rest_is_said():
    found = said("-c", WITHOUT_TENSORFLOW, "env", "--json")
    assert found["numpy"]["numpy"] == np.__version__
    assert found["numpy"]["python"] == platform.python_version()
    assert found["packages"]["tensorflow"] == "not installed"
    assert found["tensorflow"].keys() == {"unusable"}
    assert found["tensorflow"]["unusable"].startswith("the reference is not installed: ")


def test_a_tensorflow_that_does_not_start_is_what_there_is_to_say(tmp_path):
    """As one that was built for another NumPy."""
    (tmp_path / "tensorflow.py").write_text("raise AttributeError('_ARRAY_API not found')")
    found = said("-m", "parity", "env", "--json", path=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert found["tensorflow"] == {"unusable": "AttributeError: _ARRAY_API not found"}


def test_a_package_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(environment, "PACKAGES", ("pytest", "no_such_package", "ml_dtypes"))
    packages = environment._packages()
    assert packages["pytest"] == pytest.__version__
    assert packages["no_such_package"] == "not installed"
    assert packages["ml_dtypes"][0].isdigit()


@pytest.mark.parametrize(("told", "threads"), [("3", 3), ("", None), ("0", None), ("many", None), ("-1", None)])
def test_a_number_of_threads_that_is_none_is_ignored_as_openblas_does(monkeypatch, told, threads):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", told)
    assert environment.of_numpy()["blas_threads"] == (threads or os.cpu_count())


def test_variables_are_shown_by_name_only(monkeypatch):
    """What is shown is pasted into reports of bugs, so a password of another program must not be in it."""
    for name in ("PARITY_SEED", "TF_ENABLE_ONEDNN_OPTS", "TF_TOKEN_app_terraform_io", "SECRET"):
        monkeypatch.setenv(name, "1")
    shown = environment._variables()
    assert {"PARITY_SEED", "TF_ENABLE_ONEDNN_OPTS"} <= set(shown)
    assert not {"TF_TOKEN_app_terraform_io", "SECRET"} & set(shown)


@pytest.mark.tensorflow
def test_with_tensorflow_its_settings_are_those_of_the_caller(parity, keras, monkeypatch):
    import tensorflow

    monkeypatch.setenv("PARITY_SEED", "4\x1b[2J")
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        status, out, err = parity("env", "--json")
    finally:
        keras.config.set_dtype_policy(policy)
    found = json.loads(out)
    assert (status, err, found["schema_version"]) == (0, "", 1)
    assert found["packages"]["tensorflow"] == tensorflow.__version__
    assert found["packages"]["keras"] == keras.__version__
    assert found["tensorflow"]["dtype_policy"] == "mixed_float16"
    assert len(found["tensorflow"]["gpus"]) == len(tensorflow.config.list_physical_devices("GPU"))
    assert {"intra_op_threads", "onednn", "tensor_float_32"} <= found["tensorflow"].keys()
    assert found["variables"]["PARITY_SEED"] == "4\x1b[2J"
    status, out, err = parity("env")
    assert (status, err) == (0, "")
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    assert ["tensorflow", tensorflow.__version__] in lines
    assert ["dtype_policy", keras.config.dtype_policy().name] in lines
    assert ["PARITY_SEED", r"4\x1b[2J"] in lines


@pytest.mark.tensorflow
def test_a_report_has_both_sides_as_they_are_during_a_check(keras):
    import tensorflow

    found = environment.of_both_sides()
    assert set(environment.of_numpy()) < set(found)
    assert found["tensorflow"] == tensorflow.__version__
    assert found["tensor_float_32"] is False
    assert environment.described()["tensorflow"]["tensor_float_32"] is True
