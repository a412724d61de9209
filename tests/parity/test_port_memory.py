"""A port takes no more memory of its own than one copy of the weights, and none where both files can be mapped."""

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from parity.weights import formats

ROOT = Path(__file__).parents[2]
LAYERS, UNITS = 4, 2048
COPY = 4 * LAYERS * UNITS * (UNITS + 1)  # 64 MiB
BESIDE = 32 * 2**20  # what is imported on the way, and pieces of 8 MiB

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux limits the memory of a process so")

# The system gives the process no more than so many bytes, so nothing has to be caught at its peak. What is mapped from
# a file does not count.
LIMITED = """
    import json, re, resource, sys
    from pathlib import Path
    import numpy as np
    import parity
    from parity.weights import formats

    formats.write("small.npz", {"dense/kernel": np.ones((2, 2), "f4"), "dense/bias": np.ones(2, "f4")})
    parity.port("small.npz", "small.safetensors")
    if sys.argv[2].endswith(".h5"):
        import h5py
    has = 1024 * int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
    resource.setrlimit(resource.RLIMIT_DATA, (has + int(sys.argv[3]), resource.RLIM_INFINITY))
    parity.port(sys.argv[1], sys.argv[2], **json.loads(sys.argv[4]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The same weights in several files."""
    made = tmp_path_factory.mktemp("weights")
    rng = np.random.default_rng(0)
    names = ["dense", *(f"dense_{number}" for number in range(1, LAYERS))]
    arrays = {f"{name}/kernel": rng.standard_normal((UNITS, UNITS), "f4") for name in names}
    arrays |= {f"{name}/bias": rng.standard_normal(UNITS, "f4") for name in names}
    formats.write(made / "keras.safetensors", arrays)
    formats.write(made / "keras.npz", arrays)
    np.savez(made / "foreign.npz", **arrays)  # not aligned, so its arrays cannot be used where they lie
    # An input that is too large for the network to be run, which takes float64 copies of its weights.
    start = {"class_name": "InputLayer", "config": {"name": "input", "batch_shape": [None, 10**5, UNITS]}}
    layers = [{"class_name": "Dense", "config": {"name": name, "units": UNITS}} for name in names]
    (made / "network.json").write_text(json.dumps({"name": "network", "layers": [start, *layers]}))
    return made


def limited(folder: Path, source: str, target: str, limit: int, options: dict[str, object]) -> str:
    """What a port says that goes wrong under this limit."""
    command = [sys.executable, "-c", textwrap.dedent(LIMITED), source, target, str(limit), json.dumps(options)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert (done.returncode == 0) == (not done.stderr)
    return done.stderr


@pytest.mark.parametrize(
    ("source", "target", "copies", "options"),
    [
        ("keras.safetensors", "out.safetensors", 0, {"naming": "torch"}),
        ("foreign.npz", "out.safetensors", 1, {"naming": "torch"}),
        ("keras.npz", "out.weights.h5", 0, {"model": "network.json"}),
    ],
)
def test_copies_of_the_weights(folder, source, target, copies, options):
    if target.endswith("h5") and not importlib.util.find_spec("h5py"):
        pytest.skip("h5py is not installed")
    assert limited(folder, source, target, copies * COPY + BESIDE, options) == ""


def test_the_limit_is_felt(folder):
    """A file that has to be copied is refused half of what a copy takes."""
    assert "emory" in limited(folder, "foreign.npz", "out.npz", COPY // 2, {"naming": "torch"})
