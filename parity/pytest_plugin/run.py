"""One run of pytest: which tests have goldens, what became of them, and when that is told.

Under pytest-xdist the workers collect and run the tests, and this is in each of them and in the process that sums up.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from parity.errors import ParityError
from parity.pytest_plugin import FIXTURE, MARKER
from parity.pytest_plugin.result import RESULTS, Result

if TYPE_CHECKING:
    from parity.pytest_plugin.settings import Settings

__all__ = ["Run"]

OUTPUT = "parity"  # of a worker, to the process that sums up


class Run:
    """known: node id -> the beginning of its goldens' paths, of each collected test that asks for the fixture; passed:
    those of them that passed; results: node id -> what became of its checks; left_out: files and folders that were not
    collected; unused: the goldens that no test asked for."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.known: dict[str, str] = {}
        self.passed: set[str] = set()
        self.results: dict[str, list[Result]] = {}
        self.left_out: list[str] = []
        self.unused: list[str] = []
        self._settings: Settings | None = None

    def settings(self) -> Settings:
        """UsageError for what cannot be a setting, FileError for a pyproject.toml that cannot be read. This is no
        property, because pytest looks at all attributes of a plugin."""
        from parity.pytest_plugin import settings

        if self._settings is None:
            self._settings = settings.of_run(self.config)
        return self._settings

    def stem(self, item: pytest.Item) -> str:
        """The beginning of the paths of a test's goldens, from the folder of goldens on."""
        from parity.pytest_plugin import place

        settings = self.settings()
        folder = place.module(item.path, settings.goldens, settings.root)
        return str(folder / place.test(item.nodeid.partition("::")[2]))

    # -- collection ----------------------------------------------------------------------------------------------------

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """A wrong setting, and a wrong argument of the marker, is an error of the collection: under pytest-xdist, too,
        where nobody hears the usage errors of a worker."""
        marked = any(True for _ in metafunc.definition.iter_markers(MARKER))
        if marked or FIXTURE in metafunc.fixturenames:
            self.require_settings(metafunc.definition)

    def require_settings(self, test: pytest.Item) -> None:
        """Fail where something that the fixture reads is wrong."""
        from parity.pytest_plugin import settings

        try:
            settings.of_marker(test)
            self.settings()
        except ParityError as error:
            message = str(error)
        else:
            return
        pytest.fail(message, pytrace=False)

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        if FIXTURE in getattr(item, "fixturenames", ()):
            self.known[item.nodeid] = self.stem(item)
            item.add_marker(MARKER)

    @pytest.hookimpl(wrapper=True)
    def pytest_ignore_collect(self, collection_path: Path) -> Generator[None, bool | None, bool | None]:
        ignored = yield
        if ignored:
            self.left_out.append(str(collection_path))
        return ignored

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.left_out.append(str(self.config.rootpath / report.nodeid.partition("::")[0]))

    # -- tests ---------------------------------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """The results travel with the reports of their test."""
        report = yield
        if item.nodeid in self.known or RESULTS in item.stash:
            report.parity = item.stash.get(RESULTS, [])  # type: ignore[attr-defined]
            item.stash[RESULTS] = []
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found: list[Result] | None = getattr(report, "parity", None)
        if found is None:
            return
        if report.when == "setup":
            self.results.pop(report.nodeid, None)  # of a run before, where a plugin repeats tests
        if found:
            self.results.setdefault(report.nodeid, []).extend(found)
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid)
        if report.when == "call" and not report.failed:  # xfail, or pytest.raises
            for result in found:
                result["expected"] = bool(result["message"])

    # -- the end -------------------------------------------------------------------------------------------------------

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker of pytest-xdist is done; one that crashed has left nothing."""
        told = getattr(node, "workeroutput", {}).get(OUTPUT)
        if told is not None:
            self.known.update(told["known"])
            self.left_out += told["left out"]

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput[OUTPUT] = {"known": self.known, "left out": self.left_out}
        elif self.known:
            from parity.pytest_plugin import unused

            self.unused = unused.noted(self, exitstatus)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Once: a worker of pytest-xdist has a reporter of its own, whose text nobody sees, and would add its part of
        the tests to the step summary of GitHub."""
        if not hasattr(self.config, "workeroutput") and (self.results or self.unused):
            from parity.pytest_plugin import summary

            summary.write(terminalreporter, self.results, self.unused)
