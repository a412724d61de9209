"""How long porting a gigabyte takes, and how much memory, beside the libraries that read and write the same files.

    python tests/benchmarks/port_benchmark.py [--mib 1024] [--runs 3] [--only TEXT] [--folder FOLDER]

Four square Dense kernels of float32 and their biases. Each run is a process of its own, which imports what it needs and
only then is looked at: the time of the task, how much of it was `fsync`, and by how much the process's own memory (the
pages that are not of a file) grew at most, asked for every two milliseconds. The runs of all contenders take turns, and
the median counts. What is read was read before, so it is in the cache of the disk. Linux only.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import select
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAYERS = 4

# What every process begins with. Only what is behind `measured()` counts.
PRELUDE = """
import json, os, sys, time
from pathlib import Path
import numpy as np

UNITS, LAYERS = int(sys.argv[1]), int(sys.argv[2])
NAMES = ["dense", *(f"dense_{n}" for n in range(1, LAYERS))]
fsync, synced = os.fsync, [0.0]

def timed_fsync(file):
    start = time.perf_counter()
    fsync(file)
    synced[0] += time.perf_counter() - start

os.fsync = timed_fsync

def weights():
    "Some random rows again and again: nobody compresses."
    rows = np.random.default_rng(0).standard_normal((64, UNITS), "f4")
    made = {}
    for number, name in enumerate(NAMES):
        made[name + "/kernel"] = np.resize(rows, (UNITS, UNITS))
        made[name + "/bias"] = rows[number]
    return made

def network():
    import keras
    model = keras.Sequential([keras.Input((UNITS,)), *(keras.layers.Dense(UNITS, name=name) for name in NAMES)])
    model.set_weights(list(weights().values()))
    return model

def look(arrays):
    "One byte of every page, so that what was only mapped is read, too."
    return sum(int(np.asarray(a).reshape(-1).view(np.uint8)[::4096].sum()) for a in arrays)

def measured(task):
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.perf_counter()
    task()
    seconds = time.perf_counter() - start
    print(json.dumps([seconds, synced[0]]), flush=True)
    sys.stdin.readline()

def in_keras(arrays):
    "The keys of Keras's own files."
    numbers = {"/kernel": "/vars/0", "/bias": "/vars/1"}
    return {f"layers/{key.partition('/')[0]}{numbers[key[key.index('/'):]]}": a for key, a in arrays.items()}

def in_torch(arrays):
    "The keys and the order of axes of PyTorch, by hand."
    return {key.replace("/kernel", ".weight").replace("/", "."): np.ascontiguousarray(a.T) for key, a in arrays.items()}
"""


@dataclass(frozen=True)
class Contender:
    """Who does it, and the code: what is ready before, and what is measured."""

    name: str
    before: str
    task: str
    needs: tuple[str, ...] = ()


def ours(before: str, task: str, *needs: str, name: str = "parity") -> Contender:
    return Contender(name, f"import parity.porting\nfrom parity.weights import formats\n{before}", task, needs)


READ = "look(stored.load() for stored in formats.read('{}').arrays.values())"
KERAS_KEYS = "arrays = in_keras(weights())"
SAFETENSORS = "import safetensors.numpy"
BY_HAND = "safetensors.numpy.save_file(in_torch(safetensors.numpy.load_file('in.safetensors')), 'out')"
NETWORK = "from keras.saving import load_model\nmodel = network()"

TASKS: dict[str, list[Contender]] = {
    "write .safetensors": [
        ours("arrays = weights()", "formats.write('out', arrays, format='safetensors')"),
        Contender(
            "safetensors",
            f"{SAFETENSORS}\narrays = weights()",
            "safetensors.numpy.save_file(arrays, 'out')",
            ("safetensors",),
        ),
    ],
    "write .npz": [
        ours("arrays = weights()", "formats.write('out', arrays, format='npz')"),
        Contender("numpy", "arrays = weights()\nfile = open('out', 'wb')", "np.savez(file, **arrays)\nfile.flush()"),
    ],
    "write .weights.h5": [
        ours(KERAS_KEYS, "formats.write('out', arrays, format='keras-weights')", "h5py"),
        Contender(
            "h5py",
            f"import h5py\n{KERAS_KEYS}\nfile = h5py.File('out', 'w')",
            "for key, a in arrays.items(): file[key] = a\nfile.close()",
            ("h5py",),
        ),
        Contender("Keras", NETWORK, "model.save_weights('out.weights.h5')", ("keras", "tensorflow")),
    ],
    "write .keras": [
        ours(KERAS_KEYS, "formats.write('out', arrays, format='keras', template='in.keras')", "h5py", "tensorflow"),
        Contender("Keras", NETWORK, "model.save('out.keras')", ("keras", "tensorflow")),
    ],
    "write .pt": [
        ours("import torch\narrays = weights()", "formats.write('out', arrays, format='torch')", "torch"),
        Contender(
            "PyTorch",
            "import torch\narrays = {k: torch.from_numpy(a) for k, a in weights().items()}",
            "torch.save(arrays, 'out')",
            ("torch",),
        ),
    ],
    "read .safetensors": [
        ours("", READ.format("in.safetensors")),
        Contender(
            "safetensors", SAFETENSORS, "look(safetensors.numpy.load_file('in.safetensors').values())", ("safetensors",)
        ),
    ],
    "read .npz": [
        ours("", READ.format("in.npz")),
        ours("", READ.format("foreign.npz"), name="parity, of numpy.savez"),
        Contender("numpy", "", "look(np.load('foreign.npz').values())"),
    ],
    "read .weights.h5": [
        ours("import h5py", READ.format("in.weights.h5"), "h5py"),
        Contender(
            "h5py",
            "import h5py\nfile = h5py.File('in.weights.h5')\nkeys = []\nfile.visit(keys.append)",
            "look(file[key][()] for key in keys if isinstance(file[key], h5py.Dataset))",
            ("h5py",),
        ),
        Contender("Keras", NETWORK, "model.load_weights('keras.weights.h5')", ("keras", "tensorflow")),
    ],
    "read .keras": [
        ours("import h5py", READ.format("in.keras"), "h5py", "tensorflow"),
        Contender("Keras", NETWORK, "load_model('in.keras')", ("keras", "tensorflow")),
    ],
    "read .pt": [
        ours("import torch", READ.format("in.pt"), "torch"),
        Contender("PyTorch", "import torch", "look(a.numpy() for a in torch.load('in.pt').values())", ("torch",)),
        Contender(
            "PyTorch, mapped",
            "import torch",
            "look(a.numpy() for a in torch.load('in.pt', mmap=True).values())",
            ("torch",),
        ),
    ],
    "port .safetensors, Keras to PyTorch": [
        ours("", "parity.port('in.safetensors', 'out.safetensors', naming='torch')"),
        ours(
            "", "parity.port('in.safetensors', 'out.safetensors', naming='torch', proof=False)", name="parity, no proof"
        ),
        Contender("safetensors, NumPy", SAFETENSORS, BY_HAND, ("safetensors",)),
    ],
    "port .npz to .safetensors, the same keys": [
        ours("", "parity.port('in.npz', 'out.safetensors')"),
        Contender(
            "NumPy, safetensors",
            SAFETENSORS,
            "safetensors.numpy.save_file(dict(np.load('foreign.npz')), 'out')",
            ("safetensors",),
        ),
    ],
    "port .weights.h5 to .pt": [
        ours(
            "import h5py, torch",
            "parity.port('keras.weights.h5', 'out.pt', model='in.json')",
            "h5py",
            "torch",
            "tensorflow",
        ),
        Contender(
            "Keras, PyTorch",
            f"import torch\n{NETWORK}\nkeys = list(weights())",
            "model.load_weights('keras.weights.h5')\n"
            "arrays = in_torch(dict(zip(keys, model.get_weights())))\n"
            "torch.save({k: torch.from_numpy(a) for k, a in arrays.items()}, 'out')",
            ("keras", "tensorflow", "torch"),
        ),
    ],
}
# Files to read -> how they are written. `foreign.npz` is NumPy's, `keras.weights.h5` Keras's, as is `in.keras`.
OURS = "from parity.weights import formats\narrays = weights()\n"
SOURCES = {
    ("in.safetensors",): f"{OURS}formats.write('in.safetensors', arrays)",
    ("in.npz",): f"{OURS}formats.write('in.npz', arrays)",
    ("foreign.npz",): "np.savez('foreign.npz', **weights())",
    ("in.weights.h5",): f"{OURS}formats.write('in.weights.h5', in_keras(arrays))",
    ("in.pt",): f"{OURS}formats.write('in.pt', arrays)",
    ("in.keras", "keras.weights.h5", "in.json"): f"{NETWORK}\nmodel.save('in.keras')\n"
    "model.save_weights('keras.weights.h5')\nPath('in.json').write_text(model.to_json())",
}


@dataclass(frozen=True)
class Run:
    seconds: float
    synced: float
    grown: int


def process(code: str, units: int, folder: Path) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PRELUDE + code, str(units), str(LAYERS)],
        cwd=folder,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def own_memory(pid: int) -> int:
    """Bytes in pages that are not of a file."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return 1024 * int(found[1])


def ran(contender: Contender, units: int, folder: Path) -> Run:
    task = "".join(f"    {line}\n" for line in contender.task.splitlines())
    with process(f"{contender.before}\ndef task():\n{task}measured(task)", units, folder) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        if child.stdout.readline() != "ready\n":
            raise SystemExit(f"{contender.name} did not start: {contender.before}")
        before = peak = own_memory(child.pid)
        print(file=child.stdin, flush=True)
        while not select.select([child.stdout], [], [], 0.002)[0]:
            peak = max(peak, own_memory(child.pid))
        line = child.stdout.readline()
        peak = max(peak, own_memory(child.pid)) if line else peak
        print(file=child.stdin, flush=True)
    if not line:
        raise SystemExit(f"{contender.name} failed: {contender.task}")
    seconds, synced = json.loads(line)
    for path in folder.glob("out*"):
        path.unlink()
    return Run(seconds, synced, peak - before)


def installed(names: tuple[str, ...]) -> bool:
    import importlib.util

    return all(importlib.util.find_spec(name) for name in names)


def prepare(contenders: list[Contender], units: int, folder: Path) -> None:
    """The files that one of them reads."""
    read = "".join(contender.task for contender in contenders)
    for names, code in SOURCES.items():
        if any(f"'{name}'" in read for name in names):
            with process(code, units, folder) as child:
                pass
            if child.returncode:
                raise SystemExit(f"{', '.join(names)} could not be written")


def report(task: str, found: dict[str, list[Run]], size: int) -> None:
    """Lines of a Markdown table. The ratio is of the time without `fsync`, to the best of the others."""
    middle = {
        name: Run(
            *(statistics.median(column) for column in zip(*((r.seconds, r.synced, r.grown) for r in runs), strict=True))
        )
        for name, runs in found.items()
    }
    others = [r.seconds - r.synced for name, r in middle.items() if not name.startswith("parity")] or [math.nan]
    for name, r in middle.items():
        own = r.seconds - r.synced
        print(
            f"| {task} | {name} | {own:.2f} | {r.synced:.2f} | {own / min(others):.2f} | {r.grown / size:.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mib", type=int, default=1024, help="of weights")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="", help="tasks with this in their name")
    parser.add_argument("--folder", help="on the disk that is to be measured; else that of temporary files")
    options = parser.parse_args()
    if not sys.platform.startswith("linux"):
        raise SystemExit("the memory of a process is asked for as Linux has it")
    units = math.isqrt(options.mib * 2**20 // (4 * LAYERS))
    size = 4 * LAYERS * units * (units + 1)
    print(f"{LAYERS} x ({units}, {units}) float32, {size / 2**20:.0f} MiB; {options.runs} runs")
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n")
    print("| task | by | seconds | fsync | times the best other | own memory, in copies of the weights |")
    print("|---|---|---:|---:|---:|---:|")
    for task, contenders in TASKS.items():
        if options.only in task:
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                there = [contender for contender in contenders if installed(contender.needs)]
                report(task, compared(there, units, options.runs, Path(folder)), size)


def compared(contenders: list[Contender], units: int, runs: int, folder: Path) -> dict[str, list[Run]]:
    """They take turns, so that what else the machine does is for all of them."""
    prepare(contenders, units, folder)
    found: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
    for _ in range(runs):
        for contender in contenders:
            found[contender.name].append(ran(contender, units, folder))
    return found


if __name__ == "__main__":
    main()
