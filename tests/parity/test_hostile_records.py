"""Parity records that want memory: refused, whatever they say, with less than 64 MiB."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parity
from parity.weights import formats
from parity.weights.formats.limits import LONGEST_TEXT, MOST_ARRAYS
from parity.weights.record import KEY
from scratchnet.layers import Dense
from scratchnet.training import Sequential

MEASURE = Path(__file__).parent / "memory.py"
MOST_MEMORY = 64 * 2**20
ROOM = LONGEST_TEXT - 2**12
"""Characters of a record in the header, where a quotation mark takes two; the rest is for the arrays."""


def size(text: str) -> int:
    return len(text) + text.count('"')


def filled(unit: str, **fields: Any) -> Callable[[Any], str]:
    """The record with a list of as many of these as there is room for."""

    def change(record: Any) -> str:
        text = json.dumps({**record, **fields, "why": "@"})
        count = (ROOM - size(text)) // (size(unit) + 1)
        return text.replace('"@"', f"[{','.join([unit] * count)}]")

    return change


def at(*path: Any, value: Any) -> Callable[[Any], str]:
    def change(record: Any) -> str:
        node = record
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
        return json.dumps(record)

    return change


LAYER = ("network", "config", "layers", 1, "config")
CHANGES: dict[str, Callable[[Any], str]] = {
    "nothing but brackets": lambda record: "[" * ROOM,
    "lists in lists": filled("[" * 300 + "]" * 300),
    "empty objects": filled("{}"),
    "objects in objects": filled('{"":' * 300 + "0" + "}" * 300),
    "as many containers as are allowed": filled("[" * 50 + "0,1" * 300 + "]" * 50),
    "many floats": filled("1e1"),
    "many outputs": at("expected", "outputs", value=[[0.5]] * 120_000),
    "outputs deep in each other": lambda record: json.dumps(record).replace(
        json.dumps(record["expected"]["outputs"]), "[" * 900 + "]" * 900
    ),
    "many names": at("expected", "slopes", value={f"{n:x}": 0 for n in range(130_000)}),
    "as many names as are allowed": at("expected", "slopes", value={f"{n:x}": 0 for n in range(MOST_ARRAYS)}),
    "many tensors": at("tensors", value={f"{n:x}": 0 for n in range(130_000)}),
    "a long number": lambda record: json.dumps(record).replace('"seed": 0', '"seed": ' + "9" * (ROOM // 2)),
    "a giant shape": at("tensors", "b/bias", "shape", value=[2**62, 2**62]),
    "many axes": at("tensors", "b/bias", "shape", value=[1] * 600_000),
    "many units": at(*LAYER, "units", value=10**9),
    "a number of units with many digits": at(*LAYER, "units", value=10**4000),
    "a giant input": at("network", "config", "layers", 0, "config", "batch_shape", value=[None, 10**9]),
    "many layers": lambda record: at(
        *LAYER[:3],
        value=[
            *record["network"]["config"]["layers"],
            *({"class_name": "Dense", "config": {"name": str(n), "units": 8}} for n in range(5_000)),
        ],
    )(record),
    "a giant padding": lambda record: at(
        *LAYER[:3],
        value=[
            {"class_name": "InputLayer", "config": {"name": "in", "batch_shape": [None, 8, 8, 1]}},
            {"class_name": "ZeroPadding2D", "config": {"name": "pad", "padding": 10**6}},
            {"class_name": "GlobalAveragePooling2D", "config": {"name": "mean"}},
            *record["network"]["config"]["layers"][1:],
        ],
    )(record),
    "a giant repetition": lambda record: at(
        *LAYER[:3],
        value=[
            *record["network"]["config"]["layers"],
            {"class_name": "RepeatVector", "config": {"name": "again", "n": 10**9}},
        ],
    )(record),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    model = Sequential([Dense(8, activation="tanh", name="a"), Dense(2, name="b")])
    model.build((None, 8))
    path = tmp_path_factory.mktemp("good") / "net.safetensors"
    parity.port(model, path, proof=False)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is asked for as Linux has it")
def test_memory_of_the_whole_process(good, tmp_path):
    archive = formats.read(good)
    arrays = {key: np.array(stored.load()) for key, stored in archive.arrays.items()}
    for number, change in enumerate(CHANGES.values()):
        text = change(json.loads(archive.metadata[KEY]))
        formats.write(tmp_path / f"{number:02}.safetensors", arrays, {**archive.metadata, KEY: text})
    command = [sys.executable, str(MEASURE), "verify", str(good), "--", *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *lines, planted = [line.split() for line in done.stdout.splitlines()]
    assert int(planted[0]) > MOST_MEMORY
    found = dict(zip(CHANGES, lines, strict=True))
    assert {name: line for name, line in found.items() if int(line[0]) >= MOST_MEMORY} == {}
    assert found["many names"][1] == "refused"
    assert found["as many names as are allowed"][1] == "differs"
