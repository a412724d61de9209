"""A process that tells how much memory each of some files takes: `memory.py read|verify GOOD... -- FILE...`.

The good files come first and are not counted: they import what a format needs. Then a line for each file, with the
bytes by which the process grew at most, and what became of it. What could run a network cannot be imported: what it
takes is its own. Linux only; `ru_maxrss` would not do, since a process inherits that of its parent.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
HIDDEN = {"read": ("tensorflow", "keras"), "verify": ("tensorflow", "keras", "torch")}  # PyTorch reads .pt


class Missing:
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in HIDDEN[sys.argv[1]]:
            raise ModuleNotFoundError(name)


def memory(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def growth(task: Callable[[], str]) -> tuple[int, str]:
    """Bytes at the peak, and what the task says."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    before = memory("VmRSS")
    said = task()
    return memory("VmHWM") - before, said


def read(path: str) -> str:
    from parity.weights import formats

    for stored in formats.read(path).arrays.values():
        stored.load()
    return "accepted"


def verify(path: str) -> str:
    import parity

    return "accepted" if parity.verify(path).passed else "differs"


def refused(task: Callable[[str], str], path: str) -> str:
    from parity.errors import FileError

    try:
        return task(path)
    except FileError as error:
        said = str(error)
    assert said.startswith(path)
    assert len(said) < 2000
    return "refused"


def main() -> None:
    sys.meta_path.insert(0, Missing())  # type: ignore[arg-type]
    task = {"read": read, "verify": verify}[sys.argv[1]]
    end = sys.argv.index("--")
    for path in sys.argv[2:end]:
        task(path)
    for path in sys.argv[end + 1 :]:
        print(*growth(lambda path=path: refused(task, path)))  # type: ignore[misc]
    print(*growth(lambda: str(len(bytes(range(256)) * 2**19))))  # 128 MiB that have to be seen


if __name__ == "__main__":
    main()
