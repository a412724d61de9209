"""Names, and the order of data flow."""

import numpy as np

from parity import trace
from parity.trace import Layer, Trace, flow

LAYERS = (
    Layer("flatten", "Flatten", (), None),
    Layer("dense", "Dense", ("kernel", "bias"), "tanh"),
    Layer("dense_1", "Dense", ("kernel",), None),
    Layer("head", "Dense", ("kernel", "bias"), "softmax"),
)


def entry(kind: str, **config: object) -> dict[str, object]:
    return {"class_name": kind, "config": {"name": "it", **config}}


def test_names() -> None:
    assert trace.pre_activation("dense") == "dense/pre_activation"
    assert trace.output("dense") == "dense/output"
    assert trace.gradient("dense/kernel") == "dense/kernel.gradient"
    assert (trace.INPUT, trace.LOSS) == ("input", "loss")


def test_the_order_is_that_of_data_flow() -> None:
    places = list(flow(LAYERS, "mse"))
    assert [place.tensor for place in places] == [
        "flatten/output",
        "dense/pre_activation",
        "dense/output",
        "dense_1/output",
        "head/pre_activation",
        "head/output",
        "loss",
        "head/output.gradient",
        "head/pre_activation.gradient",
        "head/kernel.gradient",
        "head/bias.gradient",
        "dense_1/output.gradient",
        "dense_1/kernel.gradient",
        "dense/output.gradient",
        "dense/pre_activation.gradient",
        "dense/kernel.gradient",
        "dense/bias.gradient",
        "flatten/output.gradient",
        "input.gradient",
    ]
    first_backward = [place.stage for place in places].index("backward")
    assert places[first_backward - 1].tensor == "loss"
    assert all(place.stage == "backward" for place in places[first_backward:])


def test_moving_averages_come_with_the_outputs_of_their_layer() -> None:
    """The forward pass changes them, not the optimizer."""
    layer = Layer("bn", "BatchNormalization", ("gamma",), None, ("moving_mean", "moving_variance"))
    places = list(flow((layer,), "mse", "SGD"))
    assert [place.tensor for place in places] == [
        "bn/output",
        "bn/moving_mean.updated",
        "bn/moving_variance.updated",
        "loss",
        "bn/output.gradient",
        "bn/gamma.gradient",
        "input.gradient",
        "bn/gamma.updated",
    ]
    moving = [(place.stage, place.computed_by) for place in places if "moving" in place.tensor]
    assert moving == [("forward", "BatchNormalization bn forward")] * 2


def test_every_tensor_says_which_operation_computes_it() -> None:
    by = {place.tensor: place.computed_by for place in flow(LAYERS, "mse")}
    assert by["dense/pre_activation"] == "Dense dense forward"
    assert by["dense/output"] == "tanh of dense forward"
    assert by["dense_1/output"] == "Dense dense_1 forward"
    assert by["loss"] == "mse forward"
    assert by["head/output.gradient"] == "mse backward"
    assert by["head/pre_activation.gradient"] == "softmax of head backward and mse"
    assert by["dense_1/output.gradient"] == "Dense head backward"
    assert by["dense/pre_activation.gradient"] == "tanh of dense backward"
    assert by["dense/bias.gradient"] == "Dense dense backward"
    assert by["input.gradient"] == "Flatten flatten backward"


def test_names_in_a_flow_are_unique() -> None:
    names = [place.tensor for place in flow(LAYERS, "mse")]
    assert len(names) == len(set(names))


def test_a_layer_has_pre_activations_where_an_activation_follows() -> None:
    assert Layer.from_config(entry("Dense", activation="relu"), ()).activation == "relu"
    assert Layer.from_config(entry("Dense", activation={"class_name": "gelu", "config": {}}), ()).activation == "gelu"
    for none in (entry("Dense", activation="linear"), entry("Dense", activation=None), entry("Flatten")):
        assert not Layer.from_config(none, ()).has_pre_activation
    alone = Layer.from_config(entry("Activation", activation="relu"), ("w",))
    assert not alone.has_pre_activation
    assert (alone.name, alone.kind, alone.weights) == ("it", "Activation", ("w",))


def test_a_recurrent_layer_has_its_activation_inside() -> None:
    for kind in ("SimpleRNN", "LSTM"):
        recurrent = Layer.from_config(entry(kind, activation="tanh", return_sequences=False), ("kernel",))
        assert (recurrent.kind, recurrent.activation, recurrent.has_pre_activation) == (kind, None, False)


def test_a_trace_is_looked_up_by_name() -> None:
    one = Trace({"loss": np.float32(2)}, {"runner": "scratch"})
    assert one["loss"] == 2
    assert "loss" in one
    assert "input" not in one
