"""`parity config` and `parity env`: what is settled, and on what machine."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parity.cli.output import progress, write

if TYPE_CHECKING:
    from parity.config import Config

__all__ = ["config", "env"]

SCHEMA_VERSION = 1  # grows when a key goes or changes its meaning, not when one is added


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The settings as JSON instead of text.")
def config(as_json: bool) -> int:
    """What is settled for this folder, and where.

    Flags are stronger than PARITY_* variables, these than [tool.parity] in the nearest pyproject.toml that has it, and
    that than the default. Exit status: 0, 2 for a setting that does not exist or a value that it cannot have, 4 for a
    pyproject.toml that cannot be read.
    """
    from parity.config import load

    settled = load()
    write(_json(_config_document(settled)) if as_json else _config_text(settled))
    return 0


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The environment as JSON instead of text.")
def env(as_json: bool) -> int:
    """Versions, devices, and the settings and variables that move the last bits of a result.

    TensorFlow is asked where it is installed. Exit status: 0.
    """
    from parity import environment

    with progress() as say:
        say("asking NumPy and TensorFlow")
        found = environment.described()
    write(_json(found) if as_json else _env_text(found))
    return 0


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps({"schema_version": SCHEMA_VERSION, **document}, indent=2) + "\n"


def _config_document(settled: Config) -> dict[str, Any]:
    from parity.config import SETTINGS

    def plain(value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value

    return {
        "file": None if settled.file is None else str(settled.file),
        "settings": {
            each.name: {
                "value": plain(settled[each.name]),
                "source": settled.source(each.name),
                "variable": each.variable,
                "expected": each.expected,
                "meaning": each.meaning,
            }
            for each in SETTINGS.values()
        },
        "unread": settled.unread,
    }


def _config_text(settled: Config) -> str:
    rows = [(name, _shown(value), settled.source(name)) for name, value in settled.values.items()]
    said = [f"{name} is set, and is no setting" for name in settled.unread]
    return "\n".join([*_columns([("setting", "value", "from"), *rows]), *said]) + "\n"


def _env_text(found: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for part, facts in found.items():
        lines += [part, *_columns([(f"  {name}", _shown(value)) for name, value in facts.items()] or [("  none",)])]
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    """A value in words, printable on any terminal; a path in the current folder as one from there."""
    from parity.report.text import printable

    if isinstance(value, Path) and value.is_relative_to(Path.cwd()):
        value = os.path.relpath(value)
    if isinstance(value, list):
        value = ", ".join(map(str, value)) or None
    if value is None or isinstance(value, bool):
        value = {None: "none", True: "yes", False: "no"}[value]
    return printable(str(value))


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text under each other, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
