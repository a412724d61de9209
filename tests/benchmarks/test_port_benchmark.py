"""The benchmark runs: with little, and not timed."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is asked for as Linux has it")
def test_it_runs(tmp_path):
    script = Path(__file__).parent / "port_benchmark.py"
    command = [sys.executable, str(script), "--mib", "1", "--runs", "1", "--only", "npz", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for task in ("write .npz | parity", "read .npz | numpy", "port .npz to .safetensors"):
        assert f"| {task}" in done.stdout
