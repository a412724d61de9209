"""Metrics over the registry against Keras, and what "accuracy" stands for."""

import functools
import importlib

import numpy as np
import pytest

from scratchnet import metrics

FORMS = {
    "one output": ((6, 1), (6, 1), "BinaryAccuracy"),
    "one output, flat targets": ((6,), (6, 1), "BinaryAccuracy"),
    "classes": ((6, 4), (6, 4), "CategoricalAccuracy"),
    "labels": ((6,), (6, 4), "SparseCategoricalAccuracy"),
    "labels with an axis": ((6, 1), (6, 4), "SparseCategoricalAccuracy"),
    "sequences of classes": ((2, 3, 4), (2, 3, 4), "CategoricalAccuracy"),
    "sequences of labels": ((2, 3), (2, 3, 4), "SparseCategoricalAccuracy"),
}


def data(form, rng):
    """Targets and predictions with ties, for each form."""
    of_targets, of_predictions, kind = FORMS[form]
    p = rng.integers(0, 4, of_predictions) / 4  # quarters, so that ties and the threshold 0.5 itself occur
    if kind == "SparseCategoricalAccuracy":
        return rng.integers(0, 4, of_targets), p
    return rng.integers(0, 2, of_targets).astype(np.float64), p


@pytest.mark.parametrize("identifier", ["accuracy", "acc"])
@pytest.mark.parametrize("form", FORMS)
def test_accuracy_is_resolved_by_the_shapes(form, identifier, rng):
    y, p = data(form, rng)
    metric = metrics.get(identifier, y, p)
    assert type(metric).__name__ == FORMS[form][2]
    assert metric.name == identifier


@pytest.mark.parametrize("form", FORMS)
def test_keras_resolves_accuracy_the_same_way(form, keras, answers, rng):
    def accuracy(y, p):
        ops = keras.ops
        theirs = importlib.import_module("keras.src.trainers.compile_utils").CompileMetrics(["accuracy"], None)
        theirs.update_state(ops.convert_to_tensor(y), ops.convert_to_tensor(p))
        return np.asarray(theirs.result()["accuracy"])

    for _ in range(5):
        y, p = data(form, rng)
        theirs = answers(functools.partial(accuracy, y, p))
        ours = np.mean(metrics.get("accuracy", y, p).per_sample(y, p))
        assert ours == pytest.approx(float(theirs), rel=2**-23)  # one unit of float32


def test_keras_sample_by_sample(any_metric, keras, answers, rng):
    metric = any_metric()
    for form, (_, _, kind) in FORMS.items():
        if kind == type(metric).__name__ and form != "one output, flat targets":  # Keras broadcasts those to (6, 6)
            y, p = data(form, rng)
            theirs = answers(lambda y=y, p=p: np.asarray(getattr(keras.metrics, metric.default_name)(y, p)))
            values = metric.per_sample(y, p)
            assert np.array_equal(values, theirs.reshape(values.shape))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_are_in_the_dtype_of_the_predictions(any_metric, dtype, rng):
    metric = any_metric()
    for form, (_, of_predictions, kind) in FORMS.items():
        if kind == type(metric).__name__:
            y, p = data(form, rng)
            values = metric.per_sample(y, p.astype(dtype))
            assert (values.dtype, values.shape) == (dtype, of_predictions[:-1])


def test_a_half_is_no():
    y, p = np.ones((3, 1)), np.array([[0.5], [np.nextafter(0.5, 1)], [0.4]])
    assert metrics.BinaryAccuracy().per_sample(y, p).tolist() == [0, 1, 0]


def test_the_first_of_equal_ones_counts():
    p = np.full((2, 3), 0.25)
    assert metrics.SparseCategoricalAccuracy().per_sample(np.array([0, 1]), p).tolist() == [1, 0]
    assert metrics.CategoricalAccuracy().per_sample(np.ones((2, 3)), p).tolist() == [1, 1]
