"""What a port does before anything moves: which array is which weight, why, and what is refused. Without a framework
but scratchnet; PyTorch where a test asks for it."""

import functools
import json
import math

import numpy as np
import pytest

import parity
from parity.errors import FileError, UsageError
from parity.weights import skeleton
from parity.weights.conversion import converted, require_finite
from parity.weights.matching import matches
from parity.weights.sides import Side
from parity.weights.stored import Archive, Stored
from parity.weights.transforms import Axes, Flattened, applied, undone
from scratchnet.layers import (
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    LayerNormalization,
    MaxPooling2D,
    SimpleRNN,
)
from scratchnet.training import Sequential

port = functools.partial(parity.port, proof=False)  # what is proved is the subject of test_verify.py


def filled(model, seed=0):
    rng = np.random.default_rng(seed)
    model.set_weights([rng.uniform(-1, 1, weight.shape) for weight in model.get_weights()])
    return model


def chain(*units, inputs=4, names=None, seed=0, activation="tanh"):
    names = names or [None] * len(units)
    model = Sequential([Dense(n, activation=activation, name=name) for n, name in zip(units, names, strict=True)])
    model.build((None, inputs))
    return filled(model, seed)


def convolutional(units=12):
    """Its Dense has as many units as inputs, so that neither shapes nor a bias of the same length tell anything."""
    layers = [
        Conv2D(3, 3, name="conv"),
        MaxPooling2D(name="pool"),
        Flatten(name="flat"),
        Dense(units, name="hidden"),
        Dense(2, name="top"),
    ]
    model = Sequential(layers)
    model.build((None, 6, 6, 2))
    return filled(model)


def same(one, other):
    return all(a.tobytes() == b.tobytes() for a, b in zip(one.get_weights(), other.get_weights(), strict=True))


def columns(model):
    arrays = {}
    for number, layer in enumerate(model.layers, 1):
        arrays[f"W{number}"] = layer.weights["kernel"].T.copy()
        arrays[f"b{number}"] = layer.weights["bias"][:, None].copy()
    return arrays


def side(arrays, ordered=False, **more):
    archive = Archive("some.file", "safetensors", {key: Stored.of(key, array) for key, array in arrays.items()})
    return Side(archive, ordered, is_file=True, **more)


# -- skeletons ---------------------------------------------------------------------------------------------------------


def test_a_skeleton_has_the_layers_the_axes_and_the_flattened_image():
    found = skeleton.of_scratch(convolutional())
    assert [slot.key for slot in found.slots] == [
        "conv/kernel", "conv/bias", "hidden/kernel", "hidden/bias", "top/kernel", "top/bias"
    ]  # fmt: skip
    assert found.slots[0].axes == ("height", "width", "in", "out")
    assert found.images == {"hidden/kernel": (2, 2, 3)}
    assert found.slots[3].rows is None, "the bias runs over units, although there are as many as inputs"
    assert list(found.layers.values()) == ["Conv2D", "MaxPooling2D", "Flatten", "Dense", "Dense"]


def test_normalization_behind_a_flatten_runs_over_the_image_too():
    model = Sequential([Flatten(), BatchNormalization(), Dropout(0.1), LayerNormalization(), Dense(3), Dense(8)])
    model.build((None, 2, 2, 2))
    rows = {slot.key for slot in skeleton.of_scratch(model).slots if slot.rows}
    assert rows == {
        *(f"batch_normalization/{role}" for role in ("gamma", "beta", "moving_mean", "moving_variance")),
        *("layer_normalization/gamma", "layer_normalization/beta", "dense/kernel"),
    }


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 1), (1, 1, 6)], ids=str)
def test_a_flatten_without_several_places_and_channels_is_the_same_everywhere(shape):
    model = Sequential([Flatten(), Dense(3)])
    model.build((None, *shape))
    assert skeleton.of_scratch(model).images == {}


def test_the_skeleton_of_a_config_is_that_of_the_network_and_takes_no_memory():
    model = convolutional()
    found = skeleton.of_config(model.get_config(), "x")
    assert found.slots == skeleton.of_scratch(model).slots
    config = chain(3).get_config()
    config["layers"][1]["config"]["units"] = 10**15
    assert skeleton.of_config(config, "x").slots[0].shape == (4, 10**15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": []}, "does not say the shape of the input"),
        ({"layers": [{"class_name": "Lambda", "config": {"name": "x"}}]}, "unknown layer 'Lambda'"),
    ],
    ids=["no input", "unknown layer"],
)
def test_a_config_that_says_too_little_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        skeleton.of_config({"name": "x", **change}, "x")


@pytest.mark.parametrize(
    ("naming", "shapes", "kind"),
    [
        ("keras", {"a/kernel": (2, 3), "a/bias": (3,)}, "Dense"),
        ("keras", {"a/embeddings": (2, 3)}, "Embedding"),
        ("keras", {"a/kernel": (2, 3), "a/recurrent_kernel": (3, 3), "a/bias": (3,)}, "SimpleRNN"),
        ("torch", {"a.weight": (3, 2), "a.bias": (3,)}, "Dense"),
        ("torch", {"a.weight": (3, 2, 3, 3), "a.bias": (3,)}, "Conv2D"),
        ("torch", {"a.weight": (3,), "a.bias": (3,)}, "LayerNormalization"),
        ("torch", {n: (3,) for n in ("a.weight", "a.bias", "a.running_mean", "a.running_var")}, "BatchNormalization"),
        ("flax", {"params/a/scale": (3,), "batch_stats/a/mean": (3,), "batch_stats/a/var": (3,)}, "BatchNormalization"),
        ("flax", {"params/a/embedding": (3, 2)}, "Embedding"),
    ],
)
def test_kinds_are_read_from_names_and_ranks(naming, shapes, kind):
    groups, others = skeleton.grouped(shapes, naming)
    assert others == []
    found = skeleton.of_groups(groups, naming, "x")
    assert found.layers == {"a": kind}
    assert len(found.slots) == len(shapes)


@pytest.mark.parametrize(
    ("naming", "shapes", "message"),
    [
        ("torch", {"a.weight": (3, 2)}, "Dense or a Embedding, which shapes cannot tell"),
        ("torch", {"a.bias": (3,)}, "no layer is known"),
        ("torch", {"a.weight": (3, 2), "a.bias": (4,)}, "no layer is known"),
        ("keras", {"a/kernel": (2, 12), "a/recurrent_kernel": (3, 12), "a/bias": (12,)}, "no layer is known"),
    ],
    ids=["without a bias", "no weight", "sizes that disagree", "an LSTM"],
)
def test_keys_that_may_be_two_things_or_nothing_are_refused(naming, shapes, message):
    with pytest.raises(UsageError, match=message):
        skeleton.of_groups(skeleton.grouped(shapes, naming)[0], naming, "x")


# -- transforms --------------------------------------------------------------------------------------------------------


def test_transforms_and_their_way_back():
    array = np.arange(24).reshape(2, 12)
    steps = (Axes(("out", "in"), ("in", "out")), Flattened((2, 3, 2), to_last=True))
    moved = applied(steps, array)
    assert moved.shape == (12, 2)
    # In PyTorch's order, place p of channel c is number c * 6 + p; in Keras's p * 2 + c.
    assert moved[5 * 2 + 1, 0] == array[0, 1 * 6 + 5]
    assert np.array_equal(applied(undone(steps), moved), array)
    assert steps[1].words == "rows (channels, height, width) = (2, 2, 3) as (height, width, channels)"


# -- matching by name and by order -------------------------------------------------------------------------------------


def test_layers_of_the_same_name_match_whatever_their_order(tmp_path):
    source = chain(4, 4, 4, names=["c", "a", "b"])
    port(source, tmp_path / "a.safetensors")
    target = chain(4, 4, 4, names=["c", "a", "b"], seed=1)
    report = port(tmp_path / "a.safetensors", target)
    assert same(source, target)
    assert report.plan.steps[0].why == "the layer has the same name"
    assert report.plan.steps[0].rivals == ("a/kernel", "b/kernel")


def test_dense_10_comes_after_dense_2(tmp_path):
    source = chain(*[4] * 12)
    port(source, tmp_path / "a.safetensors")
    target = chain(*[4] * 12, names=[f"dense_{n + 30}" for n in range(12)], seed=1)
    port(tmp_path / "a.safetensors", target)
    assert same(source, target)


def test_names_that_a_framework_made_up_are_numbers_not_names():
    """dense_1 is the second layer here and the first there."""
    source = chain(4, 4, 4, names=["dense", "dense_1", "dense_2"])
    target = chain(4, 4, 4, names=["dense_1", "dense_2", "dense_3"], seed=1)
    port(source, target)
    assert same(source, target)


def test_a_name_that_somebody_chose_binds():
    source = chain(4, 4, names=["first", "last"])
    target = chain(4, 4, names=["last", "other"], seed=1)
    port(source, target)
    assert np.array_equal(target.layers[0].weights["kernel"], source.layers[1].weights["kernel"])


def test_equal_shapes_without_an_order_are_ambiguous_and_the_rivals_are_listed(tmp_path):
    port(chain(4, 4, 4, names=["a", "b", "c"]), tmp_path / "a.safetensors")
    target = chain(4, 4, 4, names=["u", "v", "w"], seed=1)
    before = target.get_weights()
    with pytest.raises(UsageError) as refused:
        port(tmp_path / "a.safetensors", target)
    message = str(refused.value)
    assert "6 ways" in message
    assert "u/kernel: 'a/kernel' or 'b/kernel' or 'c/kernel'" in message
    assert "map=" in message
    assert "probe=" in message
    assert all(np.array_equal(a, b) for a, b in zip(before, target.get_weights(), strict=True))


@pytest.mark.parametrize(
    "pins", [{"u": "a", "v": "b"}, {"u/kernel": "a/kernel", "v/bias": "b/bias"}], ids=["layers", "weights"]
)
def test_a_map_decides(tmp_path, pins):
    source = chain(4, 4, 4, names=["a", "b", "c"])
    port(source, tmp_path / "a.safetensors")
    target = chain(4, 4, 4, names=["u", "v", "w"], seed=1)
    report = port(tmp_path / "a.safetensors", target, map=pins)
    assert same(source, target)
    assert report.plan.steps[0].why == "map says so"


def test_a_map_goes_before_names_and_numbers():
    source = chain(4, 4, names=["dense", "dense_1"])
    target = chain(4, 4, names=["dense", "dense_1"], seed=1)
    port(source, target, map={"dense": "dense_1", "dense_1": "dense"})
    assert np.array_equal(target.layers[0].weights["kernel"], source.layers[1].weights["kernel"])


@pytest.mark.parametrize(
    ("pins", "message"),
    [
        ({"nobody": "no one"}, "expected a weight or a layer of the network for 'nobody'"),
        ({"dense": "nobody"}, "no keys begin with 'nobody'"),
        ({"dense/kernel": "nobody"}, "has no key 'nobody'"),
        ({"dense/kernel": "dense_1/bias"}, r"expected \(4, 4\) for dense/kernel; received \(4,\)"),
    ],
)
def test_a_map_to_nothing_is_refused(pins, message):
    with pytest.raises(UsageError, match=message):
        port(chain(4, 4), chain(4, 4), map=pins)


def test_the_order_of_a_dict_counts_and_what_contradicts_it_is_ambiguous():
    network = skeleton.of_scratch(chain(4, 4))
    first, second = np.ones((4, 4)), np.zeros((4, 4))
    arrays = {"z.kernel": first, "z.bias": first[0], "a.kernel": second, "a.bias": second[0]}
    assert len(matches(side(arrays, ordered=True), network)) == 1
    assert len(matches(side(arrays, ordered=False), network)) == 2
    numbered = {"l2.kernel": first, "l2.bias": first[0], "l1.kernel": second, "l1.bias": second[0]}
    assert len(matches(side(numbered, ordered=False), network)) == 1
    assert len(matches(side(numbered, ordered=True), network)) == 2


def test_flax_sorts_its_names_so_their_order_says_nothing():
    network = skeleton.of_scratch(chain(4, 4))
    square, vector = np.ones((4, 4)), np.ones(4)
    arrays = {f"params/{name}/{n}": w for name in ("a", "b") for n, w in (("bias", vector), ("kernel", square))}
    assert len(matches(side(arrays, ordered=True), network)) == 2
    numbered = {f"params/Dense_{n}/{name}": w for n in (0, 1) for name, w in (("bias", vector), ("kernel", square))}
    assert len(matches(side(numbered, ordered=False), network)) == 1


def test_many_layers_that_look_alike_take_no_time():
    """More ways than can be listed; and no way at all, which is seen before the ways are gone through."""
    network = chain(*[4] * 20, names=[f"layer {chr(97 + n)}" for n in range(20)])
    square, vector = np.ones((4, 4)), np.ones(4)
    arrays = {f"{chr(97 + n)}.kernel": square for n in range(20)} | {f"{chr(97 + n)}.bias": vector for n in range(20)}
    assert len(matches(side(arrays), skeleton.of_scratch(network))) == 720
    last = chain(*[4] * 18, 3, 3, names=[f"layer {chr(97 + n)}" for n in range(20)])
    arrays |= {"t.kernel": np.ones((4, 3)), "t.bias": np.ones(3)}
    with pytest.raises(FileError, match="no order of its layers fits"):
        matches(side(arrays), skeleton.of_scratch(last))
    # The names say that l2 follows l1, the shapes that it comes first; nineteen others may go in between.
    behind = chain(2, *[2] * 9, 3, inputs=2, names=[f"layer {n}{chr(97 + n)}" for n in range(11)])
    arrays = {"l2.kernel": np.ones((2, 2)), "l2.bias": np.ones(2), "l1.kernel": np.ones((2, 3)), "l1.bias": np.ones(3)}
    arrays |= {f"{chr(97 + n)}.kernel": np.ones((2, 2)) for n in range(9)}
    arrays |= {f"{chr(97 + n)}.bias": np.ones(2) for n in range(9)}
    with pytest.raises(UsageError, match="more than 100000 attempts"):
        matches(side(arrays), skeleton.of_scratch(behind))


# -- missing, left over, of another shape ------------------------------------------------------------------------------


def keras_arrays():
    return {"a/kernel": np.ones((4, 3)), "a/bias": np.ones(3), "b/kernel": np.ones((3, 2)), "b/bias": np.ones(2)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b/bias": None}, r"b: no 'bias' for b/bias \(2,\)"),
        ({"b/kernel": None, "b/bias": None}, r"missing: b/kernel \(3, 2\), b/bias \(2,\)"),
        ({"c/kernel": np.ones((2, 2)), "c/bias": np.ones(2)}, r"left over: c/kernel \(2, 2\), c/bias \(2,\)"),
        ({"b/gamma": np.ones(2)}, r"'b/gamma' \(2,\) is no weight of b \(Dense\)"),
        ({"b/noise": np.ones(2)}, r"holds what the network does not have.*b/noise \(2,\)"),
        ({"b/kernel": np.ones((2, 3))}, r"'b/kernel': expected \(in, out\) = \(3, 2\).*received \(2, 3\).*transposed"),
        ({"b/kernel": np.ones((3, 2, 1))}, r"'b/kernel': expected \(in, out\) = \(3, 2\).*received \(3, 2, 1\)"),
        (dict.fromkeys(keras_arrays()), "holds no weights"),
    ],
    ids=[
        "weight missing",
        "layer missing",
        "layer too many",
        "weight too many",
        "unknown",
        "transposed",
        "rank",
        "none",
    ],
)
def test_what_does_not_fit_is_named(change, message):
    arrays = {key: array for key, array in {**keras_arrays(), **change}.items() if array is not None}
    with pytest.raises(FileError, match=message):
        matches(side(arrays), skeleton.of_scratch(chain(3, 2, names=["a", "b"])))


def test_an_order_in_which_nothing_fits_is_explained():
    with pytest.raises(FileError, match=r"no order of its layers fits.*expected \(in, out\) = \(4, 5\)"):
        matches(side(keras_arrays()), skeleton.of_scratch(chain(5, 2)))


def test_counters_of_pytorch_are_no_weights():
    arrays = {"0.weight": np.ones((3, 4)), "0.bias": np.ones(3), "0.num_batches_tracked": np.ones((), int)}
    (match,) = matches(side(arrays), skeleton.of_scratch(chain(3)))
    assert match.ignored == ("0.num_batches_tracked",)


# -- Keras's numbered groups -------------------------------------------------------------------------------------------


def numbered(names):
    arrays = {
        key: Stored.of(key, np.full(shape, fill, np.float32))
        for fill, group in enumerate(["layers/dense", "layers/dense_1"])
        for key, shape in {f"{group}/vars/0": (4, 4), f"{group}/vars/1": (4,)}.items()
    }
    return Side(Archive("a.weights.h5", "keras-weights", arrays, metadata=names), ordered=False, is_file=True)


SWAPPED = {"layers/dense": "dense_1", "layers/dense_1": "dense"}


def test_a_group_is_a_number_not_a_name():
    (match,) = matches(numbered(SWAPPED), skeleton.of_scratch(chain(4, 4, names=["dense_1", "dense"])))
    assert match.held["dense_1/kernel"].keys == ("layers/dense/vars/0",)
    (match,) = matches(numbered(SWAPPED), skeleton.of_scratch(chain(4, 4, names=["u", "v"])))
    assert match.held["u/kernel"].keys == ("layers/dense/vars/0",)


def test_names_that_contradict_the_count_are_ambiguous_and_a_map_decides():
    network = skeleton.of_scratch(chain(4, 4, names=["dense", "dense_1"]))
    assert len(matches(numbered(SWAPPED), network)) == 2
    (match,) = matches(numbered(SWAPPED), network, {"dense": "layers/dense_1", "dense_1": "layers/dense"})
    assert match.held["dense/kernel"].keys == ("layers/dense_1/vars/0",)


def test_numbered_groups_that_do_not_fit():
    with pytest.raises(FileError, match=r"'layers/dense_2': expected the 2 weights of layer 'dense_2'.*received none"):
        matches(numbered({}), skeleton.of_scratch(chain(4, 4, 4)))
    with pytest.raises(FileError, match=r"holds what the network does not have: layers/dense_1/vars/0 \(4, 4\)"):
        matches(numbered({}), skeleton.of_scratch(chain(4)))
    with pytest.raises(FileError, match=r"'layers/dense/vars/0': expected \(4, 5\).*received \(4, 4\)"):
        matches(numbered({}), skeleton.of_scratch(chain(5, 4)))


# -- layouts and probes ------------------------------------------------------------------------------------------------


def test_square_matrices_are_ambiguous_until_a_layout_or_a_probe_says_which():
    source, target = chain(4, 4), chain(4, 4, seed=1)
    with pytest.raises(UsageError, match="2 layouts fit, and shapes cannot tell: rows, columns"):
        port(columns(source), target)
    port(columns(source), target, layout="columns")
    assert same(source, target)
    target, x = chain(4, 4, seed=1), np.random.default_rng(2).standard_normal((5, 4)).astype(np.float32)
    report = port(columns(source), target, probe=(x, source.predict(x)))
    assert same(source, target)
    assert report.plan.steps[0].why.startswith("the probe: outputs ")


def test_a_probe_that_cannot_tell_is_a_tie():
    """From inputs of zero, the first matrix makes no difference, and the second fits one way only."""
    source = chain(4, 3)
    zeros = np.zeros((2, 4), np.float32)
    square = {"W1": source.layers[0].weights["kernel"].T.copy(), "b1": source.layers[0].weights["bias"].copy()}
    network = chain(4, seed=1)
    only = chain(4)
    with pytest.raises(UsageError, match=r"a tie: 2 of 2 ways.*the layout, 'rows' or 'columns'"):
        port(square, network, probe=(zeros, only.predict(zeros)))


def test_a_probe_that_nothing_explains_is_refused():
    source, x = chain(4, 4), np.ones((2, 4), np.float32)
    with pytest.raises(UsageError, match=r"none of 2 ways.*the nearest is 1\.0e-03 off, where rounding explains"):
        port(columns(source), chain(4, 4), probe=(x, source.predict(x) + np.float32(1e-3)))


def test_a_probe_also_tests_the_only_way():
    source, target = chain(4, 3), chain(4, 3, seed=1)
    before, x = target.get_weights(), np.ones((2, 4), np.float32)
    with pytest.raises(UsageError, match="none of 1 ways"):
        port(source, target, probe=(x, target.predict(x)))
    assert all(np.array_equal(a, b) for a, b in zip(before, target.get_weights(), strict=True))


def test_ways_that_give_the_same_weights_are_no_tie():
    source = chain(4, 4)
    for layer in source.layers:
        layer.weights["kernel"] = layer.weights["kernel"] + layer.weights["kernel"].T
    target, x = chain(4, 4, seed=1), np.ones((2, 4), np.float32)
    port(columns(source), target, probe=(x, source.predict(x)))
    assert same(source, target)


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ((np.ones((2, 5)), np.ones((2, 4))), r"expected inputs \(batch, 4\).*received \(2, 5\)"),
        ((np.ones((2, 4)), np.ones((3, 4))), r"outputs \(batch, 4\); received \(2, 4\) and \(3, 4\)"),
        ((np.ones((2, 4)), np.full((2, 4), np.nan)), "expected finite outputs"),
        ((np.ones((2, 4)), np.ones((2, 4), int)), "expected finite outputs in float32 or float64"),
    ],
)
def test_a_probe_of_the_wrong_kind_is_refused(probe, message):
    with pytest.raises(UsageError, match=message):
        port(chain(4, 4), chain(4, 4), probe=probe)


def test_a_probe_finds_the_order_of_the_layers_and_of_flattened_rows(tmp_path):
    source = chain(4, 4, 4, names=["a", "b", "c"])
    port(source, tmp_path / "a.safetensors")
    target, x = chain(4, 4, 4, names=["u", "v", "w"], seed=1), np.random.default_rng(3).standard_normal((5, 4))
    port(tmp_path / "a.safetensors", target, probe=(x, source.predict(x)))
    assert same(source, target)

    source = convolutional()
    layout = "channels first, channels first rows"
    port(source, tmp_path / "c.npz", layout=layout)
    target = Sequential.from_config(source.get_config())
    with pytest.raises(UsageError, match=f"channels first, {layout}"):
        port(tmp_path / "c.npz", target)
    x = np.random.default_rng(3).standard_normal((5, 6, 6, 2))
    port(tmp_path / "c.npz", target, probe=(x, source.predict(x)))
    assert same(source, target)


def test_keys_without_an_order_of_their_own_are_not_taken_in_the_order_of_the_file():
    network = skeleton.of_scratch(chain(4, 4))
    square, vector = np.ones((4, 4)), np.ones((4,))
    arrays = {"top": square, "top shift": vector, "up": square, "up shift": vector}
    with pytest.raises(UsageError, match=r"top, top shift, up, up shift: .*no order.*map="):
        matches(side(arrays), network)
    assert len(matches(side(arrays, ordered=True), network)) == 2  # rows or columns
    (match,) = matches(
        side(arrays, naming="keras"), network,
        {"dense/kernel": "up", "dense/bias": "up shift", "dense_1/kernel": "top", "dense_1/bias": "top shift"},
    )  # fmt: skip
    assert match.held["dense/kernel"].keys == ("up",)


def test_weight_and_bias_may_be_pytorchs_words_or_anybodys():
    """In a dict; in a file of PyTorch's, and in .safetensors, they are PyTorch's."""

    def arrays(model, turned):
        return {
            f"{layer.name}.{name}": layer.weights[role].T.copy() if turned else layer.weights[role]
            for layer in model.layers
            for name, role in (("weight", "kernel"), ("bias", "bias"))
        }

    source, target = chain(4, 4), chain(4, 4, seed=1)
    with pytest.raises(
        UsageError, match=r"2 layouts fit, and shapes cannot tell: that of PyTorch, rows.*'rows:'.*naming='torch:'"
    ):
        port(arrays(source, False), target)
    port(arrays(source, False), target, layout="rows")
    assert same(source, target)
    target, x = chain(4, 4, seed=1), np.random.default_rng(2).standard_normal((3, 4))
    port(arrays(source, True), target, probe=(x, source.predict(x)))
    assert same(source, target)
    for turned in (False, True):
        source, target = chain(3, 2), chain(3, 2, seed=1)
        port(arrays(source, turned), target)
        assert same(source, target)
    assert len(matches(side(arrays(source, True)), skeleton.of_scratch(source))) == 1


def test_a_layout_as_a_function():
    source, target = chain(3, 2), chain(3, 2, seed=1)

    def turned(weights):
        return {
            "A": weights["dense/kernel"].T[::-1],
            "B": weights["dense_1/kernel"],
            "v": weights["dense/bias"][:, None],
            "w": weights["dense_1/bias"],
        }

    weights = {f"{layer.name}/{name}": array for layer in source.layers for name, array in layer.weights.items()}
    port(turned(weights), target, layout=turned)
    assert same(source, target)


def test_which_end_a_word_is_for(tmp_path):
    source, target = chain(4, 4), chain(4, 4, seed=1)
    port(source, tmp_path / "a.npz", layout="columns")
    port(tmp_path / "a.npz", tmp_path / "b.npz", layout="columns:flat", model=target)
    port(tmp_path / "b.npz", tmp_path / "c.npz", layout="flat:", naming="torch", model=target)
    port(tmp_path / "c.npz", tmp_path / "d.npz", naming="torch:flax")
    port(tmp_path / "d.npz", target)
    assert same(source, target)
    with np.load(tmp_path / "d.npz") as found:
        assert sorted(key for key in found if not key.startswith("__"))[0] == "params/dense/bias"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"naming": "chainer"}, "naming: expected one of keras, torch, flax; received 'chainer'"),
        ({"layout": "diagonal"}, "layout: expected one of rows, .*received 'diagonal'"),
        ({"layout": "images"}, "how high the images are is not known"),
        ({"dtype": "int8"}, "dtype: expected one of float64, .*received 'int8'"),
        ({"map": {"x": "y"}}, "expected a weight or a layer of the network for 'x'"),
    ],
)
def test_words_that_mean_nothing_are_refused(tmp_path, words, message):
    with pytest.raises(UsageError, match=message):
        port(chain(3, 2), tmp_path / "a.npz", **words)
    assert list(tmp_path.iterdir()) == []


def test_models_have_names_and_types_of_their_own():
    with pytest.raises(UsageError, match="has its own names"):
        port(chain(4), chain(4), naming="torch")
    with pytest.raises(UsageError, match="has its own; dtype='float16' is for files"):
        port(chain(4), chain(4), dtype="float16")


@pytest.mark.parametrize("thing", [3, None, {"a": "b"}, [], {"a": np.ones(3, complex)}], ids=str)
def test_what_holds_no_weights_is_refused(thing):
    with pytest.raises(UsageError):
        port(thing, chain(4))


def test_what_the_keys_of_a_file_do_not_say(tmp_path):
    port(convolutional(), tmp_path / "a.npz", naming="torch")
    with pytest.raises(UsageError, match=r"may stand behind a Flatten of 3 channels.*give the network"):
        port(tmp_path / "a.npz", tmp_path / "b.npz", naming="keras")
    port(tmp_path / "a.npz", tmp_path / "b.npz", naming="torch")  # nothing has to be known of that
    port(chain(3), tmp_path / "c.npz", layout="rows")
    with pytest.raises(UsageError, match="do not say of what network they are"):
        port(tmp_path / "c.npz", tmp_path / "d.npz")


def test_kinds_that_only_keras_names_are_refused_elsewhere(tmp_path):
    model = Sequential([SimpleRNN(3)])
    model.build((None, 5, 2))
    port(model, tmp_path / "a.npz")
    for naming in ("torch", "flax"):
        with pytest.raises(UsageError, match=f"how {naming} holds the weights of a SimpleRNN is not known"):
            port(model, tmp_path / "b.npz", naming=naming)


# -- dtypes ------------------------------------------------------------------------------------------------------------


def test_rounding_is_counted():
    values = np.array([1.0, 1.0 + 2.0**-30, -0.0, 1e-60, 3.0, 5e-324])
    new, account = converted("x", values, np.dtype(np.float32), UsageError)
    assert new.dtype == np.float32
    assert math.copysign(1, new[2]) == -1
    assert (account.changed, account.to_zero, account.size) == (3, 2, 6)
    assert account.worst_ulp == pytest.approx(2.0**-30 / 2.0**-23)


def test_the_worst_rounding_is_half_a_unit_also_of_bfloat16_and_of_denormals():
    from parity.weights.formats.limits import BFLOAT16

    half = np.array([1 + 2.0**-8], np.float32)  # in the middle between two bfloat16
    assert converted("x", half, BFLOAT16, UsageError)[1].worst_ulp == 0.5
    smallest = np.array([1.5 * 2.0**-149])  # in the middle between two denormals of float32
    assert converted("x", smallest, np.dtype(np.float32), UsageError)[1].worst_ulp == 0.5


def test_rounding_is_counted_in_views_and_in_large_arrays():
    values = np.ones((700, 300)).T * (1 + 2.0**-40)
    values[:, 5] = 1
    assert converted("x", values, np.dtype(np.float32), UsageError)[1].changed == 699 * 300


def test_overflow_is_refused_and_infinity_stays():
    with pytest.raises(UsageError, match=r"x: 1e\+39 is beyond the largest float32, 3\.40282e\+38"):
        converted("x", np.array([1.0, 1e39]), np.dtype(np.float32), UsageError)
    new, account = converted("x", np.array([np.inf, np.nan]), np.dtype(np.float32), UsageError)
    assert np.isinf(new[0])
    assert np.isnan(new[1])
    assert account.changed == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_found_and_counted(bad):
    values = np.zeros((300, 400), np.float32)
    values[7, 8] = bad
    with pytest.raises(FileError, match="x: expected finite numbers; 1 of 120000 are NaN or infinite"):
        require_finite("x", values, FileError)
    require_finite("x", np.zeros((0, 3)), FileError)


def test_the_report_says_what_is_rounded_and_a_dry_run_changes_nothing():
    source, target = chain(3), chain(3, seed=1)
    before = target.get_weights()
    arrays = {"a/kernel": source.layers[0].weights["kernel"] + np.float64(1e-12), "a/bias": np.float64([1, 2, 3])}
    report = port(arrays, target, dry_run=True)
    assert all(np.array_equal(a, b) for a, b in zip(before, target.get_weights(), strict=True))
    assert report.sentence.startswith("Would port 2 weights from the dict of arrays to scratchnet model")
    assert report.sentence.endswith("1 of them rounded.")
    assert "rounded  float64 to float32: 12 of 12 values change" in report.to_text()
    document = json.loads(report.to_json())
    assert document["written"] is False
    first, second = document["plan"]["steps"]
    assert first["sources"] == [{"key": "a/kernel", "shape": [4, 3], "dtype": "float64"}]
    assert first["targets"] == [{"key": "dense/kernel", "shape": [4, 3], "dtype": "float32"}]
    assert "12 of 12" in first["rounded"]
    assert second["rounded"] is None
    assert document["conversions"]["dense/kernel"]["changed"] == 12


def test_a_config_in_a_file_that_makes_no_sense_is_a_file_error(tmp_path):
    config = chain(3).get_config()
    config["layers"][1]["config"]["units"] = "many"
    (tmp_path / "network.json").write_text(json.dumps({"class_name": "Sequential", "config": config}))
    with pytest.raises(FileError, match=r"network\.json: the shapes of the weights cannot be worked out: .*'many'"):
        port(chain(3), tmp_path / "a.npz", model=tmp_path / "network.json")


# -- every layout, there and back --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layout",
    ["rows", "columns", "bias first row", "bias last row", "bias first column", "bias last column", "flat",
     "flat columns"],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_layout_there_and_back_bit_for_bit(tmp_path, layout, dtype):
    source = Sequential([Dense(3), Dense(4), Dense(2)], dtype=dtype)
    source.build((None, 4))
    filled(source)
    source.layers[0].weights["kernel"][0] = [-0.0, np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max]
    port(source, tmp_path / "a.npz", layout=layout)
    target = Sequential.from_config(source.get_config())
    port(tmp_path / "a.npz", target, layout=layout)
    assert same(source, target)


@pytest.mark.parametrize("naming", ["keras", "torch", "flax"])
@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_every_naming_there_and_back_bit_for_bit(tmp_path, naming, ending):
    layers = [
        Embedding(7, 4), Conv2D(3, 2), BatchNormalization(), Flatten(), Dense(24), LayerNormalization(), Dense(2),
    ]  # fmt: skip
    source = Sequential(layers)
    source.build((None, 5, 5))
    filled(source)
    port(source, tmp_path / f"a.{ending}", naming=naming)
    target = Sequential.from_config(source.get_config())
    port(tmp_path / f"a.{ending}", target)
    assert same(source, target)
