"""The pytest plugin: the fixture `parity_check`, which compares a network with a recorded reference, or with Keras.

Every pytest run in an environment with parity loads this, most of them for nothing, so here and in `run`, which keeps
what one run of pytest knows, nothing is imported but pytest and the standard library; the rest comes with the first
test that asks for the fixture. `settings` is what is settled, `place` where a golden lies, `check` the fixture,
`failure` what it says, `summary` and `actions` tell the results, `unused` finds goldens that no test asks for.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from parity.pytest_plugin.check import ParityCheck

FIXTURE = "parity_check"
MARKER = "parity"
NAME = "parity-run"
CI = ("CI", "BUILD_NUMBER")  # what pytest itself takes for a sign of it


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("parity", "comparison of networks with Keras")
    group.addoption(
        "--parity-record", action="store_true",
        help="check against Keras as it runs now, and record what passes; needs TensorFlow, refused in CI",
    )  # fmt: skip
    group.addoption(
        "--parity-live", action="store_true",
        help="check against Keras as it runs now, not against what was recorded; needs TensorFlow",
    )  # fmt: skip
    group.addoption("--parity-goldens", metavar="FOLDER", help="the folder of recorded references")
    parser.addini("parity_goldens", "the folder of recorded references", default="")
    parser.addini("parity_reference", "what to compare with: golden (recorded references) or live (Keras)", default="")


def pytest_configure(config: pytest.Config) -> None:
    from parity.pytest_plugin.run import Run

    config.addinivalue_line(
        "markers",
        f"{MARKER}(name, loss, data, batch, seed, modes, training, steps, sketch_above): defaults for {FIXTURE}; every "
        "test that uses this fixture has the marker",
    )
    told = next((name for name in CI if os.environ.get(name)), None)
    if config.option.parity_record and told is not None:
        raise pytest.UsageError(
            f"--parity-record: expected to run on your machine, where you commit what it records; {told} is set, so "
            f"this is CI. If it is none, unset {told}"
        )
    config.pluginmanager.register(Run(config), NAME)


@pytest.fixture
def parity_check(request: pytest.FixtureRequest) -> ParityCheck:
    """parity_check(model, subject, x, y, loss=..., name=...) -> Report: fail the test unless a network computes what
    Keras does: what it computed when `pytest --parity-record` ran, or with --parity-live what it computes now.
    """
    from parity.pytest_plugin.check import ParityCheck

    run = request.config.pluginmanager.getplugin(NAME)
    run.require_settings(request.node)  # markers of parameters come after the collection
    return ParityCheck(request.node, run)


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """`assert report == ...` says what the report says."""
    if "parity.report" not in sys.modules:
        return None
    from parity.pytest_plugin import failure

    return failure.of_comparison(op, left, right)
