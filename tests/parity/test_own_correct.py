"""Right networks in many conventions: none of them is called wrong, and no cause is named."""

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import parity
from parity import trace
from parity.report import Report
from parity.subjects import Subject

pytestmark = pytest.mark.tensorflow


def _loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plain", Path(__file__).parent / "plain.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NETWORKS: Mapping[str, Any] = _loaded().NETWORKS


def model_of(keras: ModuleType, own: Any) -> Any:
    """The same network in Keras."""
    keras.utils.set_random_seed(0)
    start = keras.Input(own.x.shape[1:], dtype="int32" if own.x.dtype.kind == "i" else None)
    model = keras.Sequential([start, *(getattr(keras.layers, kind)(**settings) for kind, settings in own.stack)])
    model.compile(loss=keras.losses.get(own.loss))
    if own.scale != 1:
        model.set_weights([own.scale * weight for weight in model.get_weights()])
    return model


def judged(model: Any, own: Any) -> Report:
    return parity.check(model, own.subject, own.x, own.y, modes=("eager",), **own.options)


def test_there_are_many() -> None:
    assert len(NETWORKS) >= 80


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "only a forward pass"])
def test_it_passes(keras: ModuleType, name: str) -> None:
    own = NETWORKS[name]()
    model = model_of(keras, own)
    report = judged(model, own)
    [one] = report.checks
    assert report.findings == (), [finding.cause for finding in report.findings]
    assert report.verdict == "pass", report.sentence
    assert bool(one.conventions) == own.conventional
    compared = {row.tensor for row in one.rows}
    trainable = {row.removesuffix(".gradient") for row in compared if not trace.of_samples(row)} - {trace.LOSS}
    assert len(trainable) == len(model.trainable_weights)


def test_a_forward_pass_alone_is_right_and_no_proof(keras: ModuleType) -> None:
    """Nothing was found, and nothing is concluded: no gradient was compared."""
    own = NETWORKS["only a forward pass"]()
    report = judged(model_of(keras, own), own)
    assert report.findings == ()
    assert all(row.passed for row in report.checks[0].rows)
    assert report.verdict == "no power"


# -- these tests can fail ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rows, tanh", "columns with caches", "one vector", "a list of pairs", "attributes"])
def test_another_number_in_a_gradient_is_found(keras: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = NETWORKS[name]()
    right = Subject.run

    def nearly(self: Subject, *arguments: Any, **options: Any) -> Any:
        passed = right(self, *arguments, **options)
        largest = {key: np.max(np.abs(gradient)) for key, gradient in passed.gradients.items()}
        return replace(passed, gradients={key: g + 1e-9 * largest[key] for key, g in passed.gradients.items()})

    monkeypatch.setattr(Subject, "run", nearly)
    assert judged(model_of(keras, own), own).verdict == "fail"
