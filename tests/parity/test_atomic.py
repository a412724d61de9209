"""A file is the old one or the whole new one: after errors, on a full disk, and when the process is killed."""

import os
import random
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from parity.atomic import replaced
from parity.errors import FileError
from parity.weights.formats import read, write

ROOT = Path(__file__).parents[2]
WITHOUT_A_LIBRARY = ["model.safetensors", "model.npz"]
posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits are those of POSIX")


def only(path: Path) -> bool:
    """Whether nothing lies beside it."""
    return os.listdir(path.parent) == [path.name]


def test_a_new_file(tmp_path):
    path = tmp_path / "file"
    with replaced(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert only(path)


def test_a_file_in_the_place_of_another(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replaced(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert only(path)


def begin(path: Path, error: type[BaseException]) -> None:
    with replaced(path) as file:
        file.write(b"new" * 1000)
        raise error("stop")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, FileError])
@pytest.mark.parametrize("old", [b"old", None])
def test_an_error_changes_nothing(tmp_path, error, old):
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(error, match="stop"):
        begin(path, error)
    assert os.listdir(tmp_path) == (["file"] if old else [])
    assert old is None or path.read_bytes() == old


@posix
def test_permissions_are_those_of_the_file_that_is_replaced(tmp_path):
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(b"old")
    path.chmod(0o640)
    for each in (path, other):
        with replaced(each) as file:
            file.write(b"new")
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert other.stat().st_mode == (tmp_path / "plain").stat().st_mode


@posix
def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    with replaced(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


@posix
def test_what_is_no_file_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        expected = pytest.raises(FileError, match="expected a file to write to, received a directory or a device")
        with expected, replaced(tmp_path / name):
            pytest.fail("nothing is to be written")
    assert sorted(os.listdir(tmp_path)) == ["folder", "pipe"]


def test_no_such_folder(tmp_path):
    path = tmp_path / "none" / "file"
    with pytest.raises(FileError, match="cannot be written: No such file"), replaced(path):
        pytest.fail("nothing is to be written")


FULL = """
    import resource, signal, sys
    import numpy as np
    from parity.errors import FileError
    from parity.weights.formats import write

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    arrays = {"layers/dense/vars/0": np.ones(2**18, "f4")}
    write(sys.argv[1], {"layers/dense/vars/0": np.zeros(3, "f4")})
    before = open(sys.argv[1], "rb").read()
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, resource.RLIM_INFINITY))
    try:
        write(sys.argv[1], arrays)
    except FileError as error:
        assert open(sys.argv[1], "rb").read() == before
        print(error)
"""


@posix
@pytest.mark.parametrize(
    ("name", "library"),
    [(name, None) for name in WITHOUT_A_LIBRARY] + [("model.weights.h5", "h5py"), ("model.pt", "torch")],
)
def test_a_disk_that_is_full(tmp_path, name, library):
    """A limit of 64 KiB a file, which the system reports as it does a full disk: a write that fails."""
    if library:
        pytest.importorskip(library)
    path = tmp_path / name
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL), str(path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"{path}: cannot be written: ")
    assert done.stdout.strip().endswith("what was there before is unchanged")
    assert only(path)


WRITER = """
    import sys
    import numpy as np
    from parity.weights.formats import write

    for number in range(10**9):
        write(sys.argv[1], {"a": np.full(2**18, number, "f4"), "b": np.full(2**17, number, "f8")}, {"n": str(number)})
        if number == 0:
            print("begun", flush=True)
"""


def killed(path: Path, delay: float) -> None:
    """Let a process write the file again and again, and kill it after so many seconds, counted from its first file."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(path)], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def require_whole(path: Path) -> int:
    """The number of the file; every element of it has this number."""
    archive = read(path)
    number = int(archive.metadata["n"])
    for stored in archive.arrays.values():
        np.testing.assert_array_equal(stored.load(), number)
    return number


def check_kills(path: Path, times: int) -> None:
    rng = random.Random(5)
    torn = 0
    for _ in range(times):
        # A file takes a few milliseconds, so the moment is anywhere in the writing of one.
        killed(path, rng.uniform(0, 0.05))
        require_whole(path)
        rest = [name for name in os.listdir(path.parent) if name != path.name]
        assert len(rest) <= 1
        for name in rest:
            assert name.startswith(".parity-")
            torn += 1
            (path.parent / name).unlink()
    assert torn, "no process was killed while it wrote, so nothing was shown"


@posix
@pytest.mark.parametrize("name", WITHOUT_A_LIBRARY)
def test_a_killed_process_leaves_a_whole_file(tmp_path, name):
    check_kills(tmp_path / name, 5)


@posix
@pytest.mark.slow
@pytest.mark.parametrize("name", WITHOUT_A_LIBRARY)
def test_processes_killed_at_two_hundred_moments(tmp_path, name):
    check_kills(tmp_path / name, 100)


@pytest.mark.parametrize("name", WITHOUT_A_LIBRARY)
def test_a_file_may_be_written_from_itself(tmp_path, name):
    """The old file stays mapped for as long as its arrays are used."""
    write(tmp_path / name, {"a": np.arange(5.0), "b": np.ones(3)})
    write(tmp_path / name, {key: stored.load() for key, stored in read(tmp_path / name).arrays.items() if key == "a"})
    assert list(read(tmp_path / name).arrays) == ["a"]
    np.testing.assert_array_equal(read(tmp_path / name).arrays["a"].load(), np.arange(5.0))
