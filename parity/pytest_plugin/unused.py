"""The goldens that no test asks for any more, and where `parity goldens` finds their names afterwards.

Only what a whole, successful run leaves unused is. The goldens of a test that was deselected, was skipped or failed are
not, nor are those of files that were not collected, nor what lies directly in the folder of goldens: `parity record`
may have put that there for `parity replay`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from parity.pytest_plugin import place

if TYPE_CHECKING:
    from parity.pytest_plugin.run import Run

__all__ = ["CACHE", "noted"]

CACHE = "parity/unused"
"""The key in pytest's cache, of a dictionary: goldens: paths from the rootdir on; time: when the last whole run ended,
in ISO 8601; complete: false where a part ran since, whose goldens are not among these any more."""


def noted(run: Run, exitstatus: int) -> list[str]:
    """The unused goldens after a whole run, as paths from the rootdir on; nothing after any other. Either way pytest's
    cache knows."""
    whole = exitstatus == pytest.ExitCode.OK and run.settings().reference != "live" and _is_whole(run)
    found = [_from_rootdir(each, run) for each in _unused(run)] if whole else []
    cache = getattr(run.config, "cache", None)  # there is none with -p no:cacheprovider
    if cache is not None and whole:
        cache.set(CACHE, {"goldens": found, "time": datetime.now(UTC).isoformat(timespec="seconds"), "complete": True})
    elif cache is not None and isinstance(kept := cache.get(CACHE, None), dict):
        used = {_from_rootdir(each, run) for each in _used(run)}
        rest = [each for each in kept["goldens"] if each not in used]
        cache.set(CACHE, {**kept, "goldens": rest, "complete": False})
    return found


def _from_rootdir(golden: str, run: Run) -> str:
    return os.path.relpath(run.settings().goldens / golden, run.config.rootpath).replace(os.sep, "/")


def _used(run: Run) -> set[str]:
    return {result["golden"] for results in run.results.values() for result in results if result["golden"]}


def _is_whole(run: Run) -> bool:
    """Whether pytest was asked for everything that lies beside the goldens."""
    config, option = run.config, run.config.option
    if option.keyword or option.collectonly or getattr(option, "lf", False):
        return False
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        return True
    beside = Path(os.path.realpath(run.settings().goldens.parent))
    asked = (Path(os.path.realpath(config.invocation_params.dir / arg)) for arg in config.args)
    return any(beside.is_relative_to(path) for path in asked)


def _unused(run: Run) -> Iterator[str]:
    """Paths from the folder of goldens on."""
    goldens, root, used = run.settings().goldens, run.settings().root, _used(run)
    unsure = [stem for nodeid, stem in run.known.items() if nodeid not in run.passed]
    left_out = [place.module(Path(path), goldens, root) for path in run.left_out]
    for path in sorted(goldens.glob(f"*/**/*{place.ENDING}")):
        golden = path.relative_to(goldens)
        if (
            golden.as_posix() not in used
            and not any(place.is_of(golden.as_posix(), stem) for stem in unsure)
            and not any(golden.is_relative_to(folder) for folder in left_out)
        ):
            yield golden.as_posix()
