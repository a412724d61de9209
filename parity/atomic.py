"""A file that is either the old one or the whole new one, whatever happens while it is written."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from parity.errors import FileError

__all__ = ["replaced"]


@contextmanager
def replaced(path: str | Path) -> Iterator[BinaryIO]:
    """An empty file, open for writing and reading, that takes the place of `path` when the block ends without an error.

    It lies beside the target under a name of its own, because a rename is atomic within one file system only, and it is
    on the disk before it gets the name. After an error it is gone and the target has the bytes that it had; a process
    that is killed leaves at most the file with the other name. FileError where the system refuses.
    """
    path = Path(path)
    target = Path(os.path.realpath(path))  # a link keeps pointing at what it points at, as with open(path, "w")
    temporary = target.with_name(f".parity-{secrets.token_hex(8)}.tmp")
    try:
        mode = _mode(target)
        with open(temporary, "x+b") as file:
            try:
                yield file
                file.flush()
                if mode is not None:
                    temporary.chmod(mode)
                os.fsync(file.fileno())
            except BaseException:
                _abandon(file, temporary)
                raise
        _rename(temporary, target)
    except OSError as error:
        raise FileError(
            f"{path}: cannot be written: {error.strerror or error}; what was there before is unchanged"
        ) from error


def _mode(target: Path) -> int | None:
    """The permissions of the file that is replaced, None where there is none."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        raise FileError(f"{target}: expected a file to write to, received a directory or a device")
    return stat.S_IMODE(mode)


def _abandon(file: BinaryIO, temporary: Path) -> None:
    """Close and remove; what was still to be written may fail once more, and that is no news."""
    try:
        file.close()
    except OSError:
        pass
    finally:
        temporary.unlink(missing_ok=True)


def _rename(temporary: Path, target: Path) -> None:
    try:
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened, and the rename is synced by the system
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
