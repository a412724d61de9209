"""What the fixture `parity_check` is."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity.errors import FileError, ParityError, UsageError
from parity.pytest_plugin import failure, place, reference, settings
from parity.pytest_plugin.result import RESULTS, Result
from parity.pytest_plugin.run import Run
from parity.report import Report, share
from parity.subjects import Subject

__all__ = ["ParityCheck"]

TAKEN = pytest.StashKey[set[str]]()
"""The goldens that a test has asked for."""


class ParityCheck:
    """Compares networks for one test."""

    def __init__(self, item: pytest.Item, run: Run) -> None:
        self._item = item
        self._run = run
        self._settings = run.settings()

    def __repr__(self) -> str:
        """Short, because pytest shows the fixtures of a test that fails."""
        return "<parity_check>"

    def __call__(
        self,
        model: Any = None,
        subject: Subject | None = None,
        x: np.ndarray | None = None,
        y: np.ndarray | None = None,
        *,
        name: str | None = None,
        loss: Any = None,
        data: str | Path | None = None,
        batch: int | None = None,
        seed: int | None = None,
        modes: Sequence[str] | None = None,
        training: bool | None = None,
        steps: int | None = None,
        sketch_above: int | None = None,
    ) -> Report:
        """Fail the test, with the first wrong tensor and its cause, unless a network computes what Keras does.

        model: as for `parity.check`, or a function without arguments that returns one of these. It is called only where
        Keras is at hand, to record and with --parity-live, so a test file that makes its model there needs no
        TensorFlow. subject: your network, made with `parity.subject`; without one, scratchnet is judged. x, y: samples
        and labels; without them digits where the network takes 28x28 pixels, else a designed probe. name: which of
        several checks of one test this is.

        loss, data, batch, seed, modes, training, steps, sketch_above: as for `parity.record`; without them what the
        marker `parity` of the test says, then what the project has settled.
        """
        __tracebackhide__ = True
        given = {"name": name, "loss": loss, "data": data, "batch": batch, "seed": seed, "modes": modes,
                 "training": training, "steps": steps, "sketch_above": sketch_above}  # fmt: skip
        asked = {**settings.of_marker(self._item), **{n: value for n, value in given.items() if value is not None}}
        name = str(asked.pop("name", ""))
        golden = place.named(self._run.stem(self._item), name)
        how = {"record": reference.NOT_RECORDED}.get(self._settings.reference, self._settings.reference)
        report, message = None, ""
        try:
            wanted = reference.Asked(model, subject, x, y, asked, self._settings.project)
            report, how = self._judged(wanted, golden)
            if not report.passed:
                message = failure.of_report(report, self._against(report, golden, how), self._command(how))
        except ParityError as error:
            how = "missing" if how == "golden" and not self._path(golden).exists() else how
            ask = "record" if how in ("golden", "missing") and isinstance(error, FileError) else how
            changed = ask == "golden" and isinstance(subject, Subject)  # it does not fit, or raises: so may a new one
            again = self._command("record") if changed else ""
            message = failure.of_error(error, self._path(golden), self._shown(golden), self._command(ask), again)
        self._keep(name, golden, how, report, message)
        if report is None or message:
            pytest.fail(message)
        return report

    def _judged(self, asked: reference.Asked, golden: str) -> tuple[Report, str]:
        """The report, and how it came about: golden, live, recorded, unchanged or not recorded."""
        __tracebackhide__ = True
        how = self._settings.reference
        if how == "live":
            return reference.live(asked), how
        self._take(golden)
        if how == "record":
            return reference.recorded(asked, self._path(golden))
        return reference.replayed(asked, self._path(golden), self._command("record")), how

    def _take(self, golden: str) -> None:
        """UsageError for the second check of a test with the same golden."""
        taken = self._item.stash.setdefault(TAKEN, set())
        if golden in taken:
            raise UsageError(
                f"{self._shown(golden)}: two checks of this test have the same golden; tell them apart with name=..."
            )
        taken.add(golden)

    def _path(self, golden: str) -> Path:
        return self._settings.goldens / golden

    def _shown(self, golden: str) -> str:
        """The path as a message has it: from the rootdir on, as pytest shows the files of tests."""
        path, root = self._path(golden), self._item.config.rootpath
        return os.path.relpath(path, root) if path.is_relative_to(root) else str(path)

    def _command(self, how: str) -> str:
        return failure.command(self._item, how)

    def _against(self, report: Report, golden: str, how: str) -> str:
        """What was compared with, in words."""
        conditions = report.recorded or report.environment
        versions = f"Keras {conditions.get('keras')} on TensorFlow {conditions.get('tensorflow')}"
        if how == "golden":
            return f"{self._shown(golden)}, recorded with {versions}"
        return f"{versions}, as it runs now" + ("; nothing was recorded" if how == "not recorded" else "")

    def _keep(self, name: str, golden: str, how: str, report: Report | None, message: str) -> None:
        """For the summary, for JUnit, and with -v below the message."""
        worst = max(report.rows, key=lambda row: row.budgets, default=None) if report is not None else None
        budgets = math.inf if worst is None else worst.budgets
        result: Result = {
            "name": name,
            "verdict": "error" if report is None else report.verdict,
            "budgets": budgets,
            "used": "-" if worst is None else share(budgets),
            "tensor": "" if worst is None else worst.tensor,
            "how": how,
            "golden": "" if how == "live" else golden,
            "shown": "" if how == "live" else self._shown(golden),
            "message": message,
            "expected": False,
            "line": None if (line := self._item.location[1]) is None else line + 1,
        }
        self._item.stash.setdefault(RESULTS, []).append(result)
        self._item.user_properties += failure.properties(result, report)
        if report is not None and message and self._item.config.option.verbose > 0:
            self._item.add_report_section("call", "parity", report.to_text())
