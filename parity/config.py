"""What a project settles once: in `[tool.parity]` of pyproject.toml, under pytest in its ini file, in PARITY_*
variables, by flags; the last wins.

    [tool.parity]
    data = "digits"
    modes = ["eager"]
    goldens = "tests/goldens"

The file is the nearest pyproject.toml with that table, from where the command runs up to the root of the repository. A
path in it is relative to it, any other to the current folder. A key that is no setting and a value that cannot be one
are errors that name the place, so that a typing mistake in the configuration of a CI job does not pass unseen.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity.errors import FileError, UsageError

__all__ = ["FILE", "SETTINGS", "Config", "Setting", "load", "setting"]

FILE = "pyproject.toml"
TABLE = "tool.parity"
PREFIX = "PARITY_"
DEFAULT = "default"
MODES = ("eager", "function", "xla")


@dataclass(frozen=True)
class Setting:
    """One thing to settle.

    expected: what a value has to be, in words; fits: whether one is, as TOML has it; of_text: a variable or a flag ->
    the same in TOML, raises ValueError; path: which text is a path (of a file or a folder), as opposed to a name.
    """

    name: str
    default: Any
    meaning: str
    expected: str
    fits: Callable[[Any], bool]
    of_text: Callable[[str], Any] = str
    path: Callable[[str], bool] = lambda text: False

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper().replace("-", "_")


def _one_of(*names: str) -> dict[str, Any]:
    listed = f"{', '.join(names[:-1])} or {names[-1]}"
    return {"expected": listed, "fits": lambda value: isinstance(value, str) and value in names}


def _whole_number(least: int) -> dict[str, Any]:
    return {
        "expected": f"a whole number of at least {least}",
        "fits": lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least,
        "of_text": int,
    }


def _is_list_of_modes(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(isinstance(m, str) and m in MODES for m in value)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != "" and "\0" not in value


SETTINGS: Mapping[str, Setting] = {
    each.name: each
    for each in (
        Setting(
            "data", None, "images for networks that take digits; without one, MNIST where Keras has it, else digits",
            "mnist, digits or the path of a .npz file", _is_name, path=lambda text: text not in ("mnist", "digits"),
        ),
        Setting("batch", 32, "how many samples", **_whole_number(1)),
        Setting("dtype", "both", "in which precision", **_one_of("float32", "float64", "both")),
        Setting("seed", 0, "of designed weights and samples", **_whole_number(0)),
        Setting(
            "modes", ["eager", "function"], "how Keras runs", f"some of {', '.join(MODES)}", _is_list_of_modes,
            of_text=lambda text: [mode.strip() for mode in text.split(",")],
        ),
        Setting(
            "goldens", "tests/goldens", "the folder of recorded references", "the path of a folder", _is_name,
            path=lambda text: True,
        ),
        Setting(
            "sketch-above", None, "record a sketch of a tensor that has more elements; without one, never",
            **_whole_number(1),
        ),
        Setting(
            "reference", "golden", "what pytest compares with: a recorded reference, or Keras as it runs now",
            **_one_of("golden", "live"),
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """The value of each setting and where it comes from. file: the pyproject.toml that has [tool.parity], if any."""

    values: Mapping[str, Any]
    sources: Mapping[str, str]
    file: Path | None

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def source(self, name: str) -> str:
        """Such as "pyproject.toml [tool.parity]", "PARITY_SEED", "--seed" or "default"."""
        return self.sources[name]

    @property
    def unread(self) -> list[str]:
        """The variables that look like settings and are none; other programs may have some, so they are no errors."""
        read = {each.variable for each in SETTINGS.values()}
        return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in read)


def setting(name: str, start: Path | None = None) -> Any:
    """The value of one setting, read from the file each time: a command that needs several calls `load` once."""
    return load(start)[name]


def load(
    start: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    *,
    ini: Mapping[str, str] | None = None,
    option: str = "--",
) -> Config:
    """Read the configuration as it is now.

    start: the folder to search from, by default the current one. flags: setting -> what a command line gave for it, as
    text or as TOML would have it; None: not given. ini: setting -> what pytest's ini file says of it, which is stronger
    than [tool.parity] and weaker than a variable; "": nothing. option: what a flag begins with.

    Raises UsageError for an unknown key and for a value that cannot be one, FileError for a file that is not TOML.
    """
    start = (start or Path.cwd()).resolve()
    file, table, root = _project(start)
    values = {each.name: _resolved(each, each.default, root) for each in SETTINGS.values()}
    sources = dict.fromkeys(SETTINGS, DEFAULT)
    if file is not None:
        shown = f"{os.path.relpath(file, start)} [{TABLE}]"
        for key, value in table.items():
            each = _known(key, shown)
            values[key] = _resolved(each, _fitting(each, value, f"{shown} {key}"), root)
            sources[key] = shown
    for each, text, place in _said(ini or {}, flags or {}, option):
        value = _parsed(each, text, place) if isinstance(text, str) else text
        values[each.name] = _resolved(each, _fitting(each, value, place, text), Path())
        sources[each.name] = place
    return Config(values, sources, file)


def _said(ini: Mapping[str, str], flags: Mapping[str, Any], option: str) -> Iterator[tuple[Setting, Any, str]]:
    """(setting, value, place) of pytest's ini file, then of the variables, then of the flags. CI systems set variables
    that have no value to an empty text, so that is none."""
    for name, value in ini.items():
        if value:
            yield SETTINGS[name], value, f"ini key parity_{name}"
    for each in SETTINGS.values():
        if text := os.environ.get(each.variable):
            yield each, text, each.variable
    for name, value in flags.items():
        if value is not None:
            yield SETTINGS[name], value, f"{option}{name}"


def _project(start: Path) -> tuple[Path | None, Mapping[str, Any], Path]:
    """(the file that has the table, the table, the root of the project): the root is the folder of that file, or of the
    nearest pyproject.toml where none has it, or `start`."""
    nearest = None
    for folder in (start, *start.parents):
        file = folder / FILE
        if os.path.isfile(file):  # False, too, in a folder that may not be searched
            nearest = nearest or folder
            table = _table(file, os.path.relpath(file, start))
            if table is not None:
                return file, table, folder
        if os.path.exists(folder / ".git"):
            break
    return None, {}, nearest or start


def _table(file: Path, shown: str) -> Mapping[str, Any] | None:
    """[tool.parity], or None where there is none."""
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"{shown}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, or nested too deep
        raise FileError(f"{shown}: expected TOML; {error}") from error
    table: Any = document
    for key in TABLE.split("."):
        table = table.get(key) if isinstance(table, dict) else None
        if table is None:
            return None
    if not isinstance(table, dict):
        raise UsageError(f"{shown} {TABLE}: expected a table, [{TABLE}]; received {table!r}")
    return table


def _known(key: str, place: str) -> Setting:
    if key in SETTINGS:
        return SETTINGS[key]
    near = difflib.get_close_matches(key.lower().replace("_", "-"), SETTINGS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(SETTINGS)}"
    raise UsageError(f"{place}: there is no setting {key!r}; {hint}")


def _parsed(each: Setting, text: str, place: str) -> Any:
    try:
        return each.of_text(text)
    except ValueError:
        raise UsageError(f"{place}: expected {each.expected}; received {text!r}") from None


def _fitting(each: Setting, value: Any, place: str, received: Any = None) -> Any:
    """The value, where it is one. received: what to show if it is none, where that looked otherwise."""
    if each.fits(value):
        return value
    raise UsageError(f"{place}: expected {each.expected}; received {value if received is None else received!r}")


def _resolved(each: Setting, value: Any, folder: Path) -> Any:
    """The value, with a path as a Path, from this folder on."""
    return folder / value if isinstance(value, str) and each.path(value) else value
