"""Where the golden of a test lies: `<goldens>/<module>/<test>.safetensors`, or `<test>-<name>.safetensors`.

No two tests have the same one, on a file system that takes upper and lower case for the same neither: what is not the
same letter by letter in a file's name as in the test's has a digest behind it. So has what is in upper case.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path, PurePosixPath

__all__ = ["ENDING", "OUTSIDE", "is_of", "module", "named", "segment", "test"]

ENDING = ".safetensors"
LONGEST = 100
"""Letters: two of them, the digests and the ending stay below the 255 bytes of most file systems."""
OUTSIDE = "@root"
"""The folder of the tests that do not lie beside the goldens; no segment has this name."""

_FOREIGN = re.compile(r"[^A-Za-z0-9_.=,+-]+")
_FOREIGN_TO_TEST = re.compile(r"[^A-Za-z0-9_.=,+\[\]-]+")  # with the brackets around parameters


def module(path: Path, goldens: Path, root: Path) -> PurePosixPath:
    """The folder for the tests of a file, or of a folder of files, from the folder of goldens on. root: of the
    project."""
    path = Path(os.path.realpath(path.parent), path.name.removesuffix(".py"))
    for base, prefix in ((goldens.parent, PurePosixPath()), (root, PurePosixPath(OUTSIDE))):
        real = os.path.realpath(base)
        if path.is_relative_to(real):
            return prefix.joinpath(*map(segment, path.relative_to(real).parts))
    return PurePosixPath(OUTSIDE, segment(path.name))


def test(name: str) -> str:
    """The beginning of the names of a test's goldens. name: what follows the file in the test's node id."""
    return _segment(name, _FOREIGN_TO_TEST)


def named(stem: str, name: str) -> str:
    """The file of one golden. stem: the path of its test; name: which of several in that test, or ""."""
    return f"{stem}-{segment(name)}{ENDING}" if name else f"{stem}{ENDING}"


def is_of(golden: str, stem: str) -> bool:
    """Whether the test with this beginning may have this golden."""
    return golden.startswith((f"{stem}-", stem + ENDING))


def segment(text: str) -> str:
    """A part of a path."""
    return _segment(text, _FOREIGN)


def _segment(text: str, foreign: re.Pattern[str]) -> str:
    kept = foreign.sub("-", text.replace("::", "."))[:LONGEST]
    if kept == text.lower() and not kept.endswith("."):
        return kept
    return f"{kept.rstrip('.')}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"
