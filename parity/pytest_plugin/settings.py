"""What is settled for a run of pytest: by its flags, by variables, in its ini file, in `[tool.parity]`; and for a test,
by the arguments of the fixture and of the marker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from parity import config as configuration
from parity.errors import UsageError
from parity.pytest_plugin import MARKER

__all__ = ["ARGUMENTS", "Settings", "of_marker", "of_run"]

ARGUMENTS = ("name", "loss", "data", "batch", "seed", "modes", "training", "steps", "sketch_above")
"""Of the marker, and by keyword of the fixture."""


@dataclass(frozen=True)
class Settings:
    """goldens: the folder; reference: golden, live or record; root: of the project; project: what else is settled."""

    goldens: Path
    reference: str
    root: Path
    project: configuration.Config


def of_run(config: pytest.Config) -> Settings:
    """UsageError for what cannot be a setting, FileError for a pyproject.toml that cannot be read."""
    option, home = config.option, config.rootpath if config.inipath is None else config.inipath.parent
    goldens = str(config.getini("parity_goldens"))
    found = configuration.load(
        config.rootpath,
        {"goldens": option.parity_goldens, "reference": "live" if option.parity_live else None},
        ini={"goldens": goldens and str(home / goldens), "reference": str(config.getini("parity_reference"))},
        option="--parity-",
    )
    return Settings(
        goldens=config.invocation_params.dir / found["goldens"],
        reference="record" if option.parity_record else found["reference"],
        root=config.rootpath if found.file is None else found.file.parent,
        project=found,
    )


def of_marker(test: pytest.Item) -> Mapping[str, Any]:
    """The arguments of the markers of a test; those of the nearest marker win. UsageError for other ones."""
    found: dict[str, Any] = {}
    for marker in test.iter_markers(MARKER):
        unknown = [*map(repr, marker.args), *(name for name in marker.kwargs if name not in ARGUMENTS)]
        if unknown:
            raise UsageError(
                f"{test.nodeid}: pytest.mark.{MARKER}: expected keyword arguments of {', '.join(ARGUMENTS)}; received "
                f"{', '.join(unknown)}"
            )
        found = {**marker.kwargs, **found}
    return found
