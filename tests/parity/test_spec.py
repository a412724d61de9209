"""A model as plain data, and the same model in another dtype."""

import json
from typing import Any

import pytest

from parity import cases
from parity.spec import DTYPES, Spec

POLICY = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": None}


def dtypes_in(node: Any) -> list[Any]:
    """Every "dtype" entry, however deep."""
    if isinstance(node, dict):
        here = [value for key, value in node.items() if key == "dtype"]
        return here + [d for key, value in node.items() if key != "dtype" for d in dtypes_in(value)]
    return [d for value in node for d in dtypes_in(value)] if isinstance(node, list) else []


def test_with_dtype_says_it_where_nobody_did() -> None:
    config = {"name": "net", "layers": [{"class_name": "Dense", "config": {"name": "d", "units": 3}}]}
    assert dtypes_in(Spec("net", config, "mse").with_dtype("float64").config) == ["float64", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_with_dtype_reaches_every_entry(dtype: str) -> None:
    inner = {"class_name": "Dense", "config": {"name": "d", "dtype": POLICY}}
    config = {
        "name": "net",
        "dtype": POLICY,
        "layers": [
            {"class_name": "InputLayer", "config": {"batch_shape": (None, 3), "dtype": "float32"}},
            {"class_name": "TimeDistributed", "config": {"dtype": {**POLICY, "shared_object_id": 7}, "layer": inner}},
            {"class_name": "Dense", "config": {"dtype": None, "kernel_initializer": {"config": {"dtype": "float16"}}}},
        ],
    }
    before = json.dumps(config)
    spec = Spec("net", config, "mse").with_dtype(dtype)
    assert dtypes_in(spec.config) == [dtype] * 6
    assert spec.dtype == dtype
    assert json.dumps(config) == before  # the original is left alone


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_with_dtype_changes_nothing_else(name: str) -> None:
    spec = cases.find(name)[0]
    there = spec.with_dtype("float64")
    assert there.with_dtype("float32") == spec.with_dtype("float32")
    assert (there.name, there.loss, there.seed, there.training) == (spec.name, spec.loss, spec.seed, spec.training)
    assert len(dtypes_in(there.config)) == len(dtypes_in(json.loads(json.dumps(spec.config)))) > 4


def test_shared_object_ids_do_not_survive() -> None:
    """Keras would look a shared policy up by its number, in the old dtype."""
    config = {"layers": [{"config": {"dtype": {**POLICY, "shared_object_id": 3}}, "shared_object_id": 4}]}
    assert "shared_object_id" not in json.dumps(Spec("net", config, "mse").with_dtype("float64").config)


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        ("mse", "mse"),
        ({"class_name": "BinaryCrossentropy", "config": {"name": "bce"}}, "bce"),
        ({"class_name": "Huber", "config": {}}, "Huber"),
        ({"class_name": "function", "config": "mean_squared_error"}, "mean_squared_error"),
    ],
)
def test_a_loss_in_one_word(loss: Any, name: str) -> None:
    assert Spec("net", {}, loss).loss_name == name
