"""The same rules hold however TensorFlow runs: eager, in `tf.function`, under XLA, with one thread or two, with oneDNN
or without. What differs all the same is in `parity.known`.

Each condition is a process of its own, because threads and oneDNN are settled when TensorFlow starts. `pytest -rP`
shows how much of the budgets each of them used.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import parity
from parity import cases
from parity.known import KNOWN
from parity.spec import DTYPES, Spec

pytestmark = pytest.mark.tensorflow

ROOT = Path(__file__).parents[2]

MODES = ("eager", "function", "xla")

BOTH = "one thread, oneDNN off"
CONDITIONS = {
    BOTH: {"threads": 1, "onednn": False},
    "oneDNN off": {"threads": 2, "onednn": False},
    "one thread": {"threads": 1, "onednn": True},
    "two threads": {"threads": 2, "onednn": True},
}

SCRIPT = """
import importlib.util, json, sys
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
spec = importlib.util.spec_from_file_location("conditions", sys.argv[2])
conditions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(conditions)
print(json.dumps(conditions.measured(sys.argv[3].split(","), sys.argv[4].split(","))))
"""


def drops(spec: Spec) -> bool:
    """Whether cells are dropped at random. XLA draws other ones, so there is nothing to compare: `dropout-mask`."""
    rates = [entry["config"]["rate"] for entry in spec.config["layers"] if entry["class_name"] == "Dropout"]
    return spec.training and any(0 < rate < 1 for rate in rates)


def measured(names: list[str], modes: list[str]) -> dict[str, Any]:
    """Every spec of these names in every mode and both dtypes: the worst tensor of each mode and dtype, all that are
    out of budget, and the settings that TensorFlow says it has."""
    worst: dict[str, tuple[float, str]] = {}
    wrong: list[str] = []
    environment = {}
    for spec in (spec for name in names for spec in cases.find(name)):
        for mode in modes:
            if mode == "xla" and drops(spec):
                continue
            report = parity.check(spec, modes=(mode,))
            environment = report.environment
            wrong += [f"{spec.name}: {check.powerless}" for check in report.checks if check.powerless]
            for check in report.checks:
                for row in check.rows:
                    at = f"{spec.name}, {spec.loss_name}: {row.tensor}"
                    key = f"{mode} {check.dtype}"
                    worst[key] = max(worst.get(key, (0.0, "")), (row.budgets, at))
                    if not row.passed:
                        wrong.append(f"{key}, {at}: {row.budgets:.3g}")
    settings = {"threads": environment["intra_op_threads"], "onednn": environment["onednn"]}
    return {"worst": worst, "wrong": wrong, "settings": settings}


def in_process(condition: str, names: list[str], modes: tuple[str, ...]) -> dict[str, Any]:
    """`measured` in a fresh process under this condition."""
    threads, onednn = CONDITIONS[condition].values()
    environment = {
        **os.environ,
        "TF_ENABLE_ONEDNN_OPTS": str(int(onednn)),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "KERAS_BACKEND": "tensorflow",
    }
    arguments = [str(threads), __file__, ",".join(names), ",".join(modes)]
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def assert_within_budget(result: dict[str, Any], modes: tuple[str, ...], condition: str) -> None:
    for key, (budgets, at) in result["worst"].items():
        print(f"{condition}, {key}: at most {budgets:.3g} of a budget ({at})")
    assert set(result["worst"]) == {f"{mode} {dtype}" for mode in modes for dtype in DTYPES}
    assert not result["wrong"]


def test_the_reference_networks_eager_in_a_function_and_under_xla(keras: ModuleType) -> None:
    assert_within_budget(measured(list(cases.REFERENCE), list(MODES)), MODES, "as installed")


def test_without_onednn_on_one_thread(keras: ModuleType) -> None:
    """Both settings at once, of the ones that every network meets; each alone, with all networks, is a slow test."""
    modes = ("eager", "function")
    result = in_process(BOTH, list(cases.REFERENCE), modes)
    assert result["settings"] == CONDITIONS[BOTH]
    assert_within_budget(result, modes, BOTH)


@pytest.mark.slow
@pytest.mark.parametrize("condition", [condition for condition in CONDITIONS if condition != BOTH])
def test_all_networks_and_cases(condition: str, keras: ModuleType) -> None:
    result = in_process(condition, [*cases.NETWORKS, "cases"], MODES)
    assert result["settings"] == CONDITIONS[condition]
    assert_within_budget(result, MODES, condition)


def test_only_networks_that_drop_cells_are_left_out_under_xla() -> None:
    left_out = {spec.name for name in (*cases.NETWORKS, "cases") for spec in cases.find(name) if drops(spec)}
    assert left_out == {"normalized", "layer-Dropout"}
    assert "dropout-mask" in [known.code for known in KNOWN]
