"""`parity port` is killed at a random moment: the target is the old file or the whole new one, and is verified."""

import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import pytest

import parity
from parity.weights import formats

ROOT = Path(__file__).parents[2]
NEEDS = {"pt": "torch", "weights.h5": "h5py"}
LAYERS, UNITS = 4, 1024  # 17 MB: some hundredths of a second to write
OPTIONS = {"safetensors": ["--naming", "torch"], "npz": [], "pt": [], "weights.h5": ["--model", "network.json"]}

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is copied and killed as POSIX has it")

# A process that has everything imported copies itself, so that a kill does not land in the start of Python. It is told
# after how many seconds its copy is killed, counted from the start of the port or of the writing, and answers with how
# that ended, how long it took, and how long there was a file with another name.
FORKING = """
    import contextlib, io, os, signal, sys, time
    from parity.cli import main

    def port():
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                main(["port", *sys.argv[1:]])
            except SystemExit as done:
                return done.code or 0
        return 0

    assert port() == 0  # with all imports
    for line in sys.stdin:
        delay, of_writing = float(line.split()[0]), line.split()[1] == "True"
        start, begun, ended = time.perf_counter(), 0, 0
        if not (child := os.fork()):
            os._exit(port())
        while not (done := os.waitpid(child, os.WNOHANG))[0]:
            now = time.perf_counter() - start
            if any(name.startswith(".parity-") for name in os.listdir()):
                begun, ended = begun or now, now
            if now - begun * of_writing >= delay and (begun or not of_writing):
                os.kill(child, signal.SIGKILL)
            time.sleep(1e-4)
        print(os.waitstatus_to_exitcode(done[1]), time.perf_counter() - start, ended - begun, flush=True)
"""


@contextmanager
def ports(folder: Path, ending: str) -> Iterator[subprocess.Popen[str]]:
    """A process that ports `source.safetensors` into `target.ending` whenever it is told to."""
    command = [sys.executable, "-c", textwrap.dedent(FORKING), "source.safetensors", f"target.{ending}"]
    with subprocess.Popen(
        [*command, *OPTIONS[ending]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        stream(process.stdin).close()


def stream(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def ported(
    process: subprocess.Popen[str], killed_after: float = math.inf, of_writing: bool = False
) -> tuple[int, float, float]:
    """The exit status, the duration, and that of the writing."""
    print(killed_after, of_writing, file=stream(process.stdin), flush=True)
    status, seconds, writing = stream(process.stdout).readline().split()
    return int(status), float(seconds), float(writing)


def prepare(folder: Path) -> None:
    """The source, and the network that it is of."""
    rng = np.random.default_rng(0)
    names = ["dense", *(f"dense_{number}" for number in range(1, LAYERS))]
    arrays = {f"{name}/kernel": rng.standard_normal((UNITS, UNITS), "f4") for name in names}
    arrays |= {f"{name}/bias": rng.standard_normal(UNITS, "f4") for name in names}
    formats.write(folder / "source.safetensors", arrays)
    layers = [{"class_name": "Dense", "config": {"name": name, "units": UNITS, "dtype": "float32"}} for name in names]
    # An input that is too large to be run, so that a port does little but write.
    shape = [None, 10**5, UNITS]
    start = {"class_name": "InputLayer", "config": {"name": "input", "batch_shape": shape, "dtype": "float32"}}
    (folder / "network.json").write_text(json.dumps({"name": "network", "layers": [start, *layers]}))


def check_kills(folder: Path, ending: str, times: int) -> Counter[str]:
    """How many kills came before, during and after the writing. Every second one is meant for it, half of
    these for its beginning: on a busy machine the others may come too late."""
    rng = random.Random(5)
    prepare(folder)
    target = folder / f"target.{ending}"
    others = {"source.safetensors", "network.json", target.name}
    old = b"the old file"
    landed: Counter[str] = Counter()
    with ports(folder, ending) as process:
        done = [ported(process) for _ in range(3)]
        assert {status for status, _, _ in done} == {0}
        new = target.read_bytes()
        assert parity.verify(target).passed
        whole, writing = (1.1 * statistics.median(each[place] for each in done) for place in (1, 2))
        for number in range(times):
            target.write_bytes(old)
            of_writing = number % 2 == 1
            delay = 0 if number % 4 == 1 else rng.uniform(0, writing if of_writing else whole)
            status, _, _ = ported(process, delay, of_writing)
            assert status in (0, -signal.SIGKILL)
            found = target.read_bytes()
            assert found in (old, new)
            left = set(os.listdir(folder)) - others
            assert len(left) <= 1
            assert all(name.startswith(".parity-") and name.endswith(".tmp") for name in left)
            landed["after" if found == new else "during" if left else "before"] += 1
            for name in left:
                (folder / name).unlink()
        assert ported(process)[0] == 0
    assert target.read_bytes() == new
    assert landed["during"], "no port was killed while it wrote, so nothing was shown"
    return landed


def test_a_killed_port_leaves_a_whole_file(tmp_path):
    check_kills(tmp_path, "safetensors", 8)


@pytest.mark.slow
@pytest.mark.parametrize("ending", OPTIONS)
def test_ports_killed_at_two_hundred_moments(tmp_path, ending):
    if ending in NEEDS:
        pytest.importorskip(NEEDS[ending])
    print(f"\n{ending}: {dict(check_kills(tmp_path, ending, 50))}")
