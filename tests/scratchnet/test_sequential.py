"""The chain of layers against a Keras Sequential: config, names, weights, outputs, gradients."""

import functools
import importlib
import json

import numpy as np
import pytest

from scratchnet import Sequential, UnknownArgument, losses, registry
from scratchnet.layers import Activation, BatchNormalization, Conv2D, Dense, Dropout, Flatten, MaxPooling2D
from scratchnet.sequential import Chain

# name -> (shape of one sample, layers by Keras's names and arguments)
NETWORKS = {
    "dense": ((6,), [("Dense", {"units": 5, "activation": "tanh"}), ("Dense", {"units": 3, "activation": "softmax"})]),
    "penalties": (
        (6,),
        [("Dense", {"units": 4, "activation": "gelu", "kernel_regularizer": "l2"}), ("Dense", {"units": 3})],
    ),
    "images": (
        (7, 6, 2),
        [
            ("Conv2D", {"filters": 3, "kernel_size": 2, "activation": "relu"}),
            ("MaxPooling2D", {"pool_size": 2}),
            ("BatchNormalization", {}),
            ("Flatten", {}),
            ("Dense", {"units": 3}),
            ("Activation", {"activation": "softmax"}),
        ],
    ),
    "steps": ((4, 5), [("Dense", {"units": 6, "activation": "sigmoid"}), ("Flatten", {}), ("Dense", {"units": 3})]),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]


def of_keras(keras, network):
    """With names: Keras counts those that it gives itself over the whole process."""
    shape, stack = network
    layers = [
        getattr(keras.layers, kind)(**arguments, name=f"number_{index}")
        for index, (kind, arguments) in enumerate(stack)
    ]
    return keras.Sequential([keras.Input(shape, name="given"), *layers], name="model")


def of_scratchnet(network, dtype="float64"):
    shape, stack = network
    chain = Sequential([registry.find("layer", name)(**arguments) for name, arguments in stack], dtype=dtype)
    chain.build((None, *shape))
    return chain


def randomize(chain, rng):
    chain.set_weights([rng.uniform(0.1, 1.0, w.shape) * rng.choice([1, 1, -1], w.shape) for w in chain.get_weights()])
    for layer in chain.layers:
        if "moving_variance" in layer.weights:
            layer.weights["moving_variance"] = np.abs(layer.weights["moving_variance"])


def test_a_keras_model_by_its_config_and_weights(network, keras64, answers, rng, assert_equal64):
    model = functools.cache(lambda: of_keras(keras64, network))
    said = answers(
        lambda: {
            "config": json.loads(json.dumps(model().get_config())),
            "layers": [layer.name for layer in model().layers],
            "output_shape": model().output_shape,
            "parameters": model().count_params(),
        }
    )
    ours = Sequential.from_config(said["config"])
    assert ours.dtype == "float64"
    assert [layer.name for layer in ours.layers] == said["layers"]
    randomize(ours, rng)
    x = rng.standard_normal((5, *network[0]))

    def output():
        model().set_weights(ours.get_weights())
        return {"weights": model().get_weights(), "output": model()(x).numpy()}

    theirs = answers(output)
    ours.set_weights(theirs["weights"])
    assert_equal64(ours.forward(x).output, theirs["output"])
    assert list(ours.output_shape) == said["output_shape"]
    assert ours.count_params() == said["parameters"]


def test_keras_takes_our_config_and_writes_the_same(network, keras, answers):
    """In float32, Keras's default, in which nothing in these configs is rounded."""
    ours = of_scratchnet(network, "float32")
    config = json.loads(json.dumps(ours.get_config()))

    def again():
        theirs = keras.Sequential.from_config(json.loads(json.dumps(config)))
        theirs.set_weights(ours.get_weights())
        return json.loads(json.dumps(theirs.get_config()))

    written = answers(again)
    assert written == config
    assert Sequential.from_config(written).get_config() == ours.get_config()


def test_gradients_of_a_whole_network(network, keras64, answers, rng, assert_equal64):
    ours = of_scratchnet(network)
    randomize(ours, rng)
    x, labels = rng.standard_normal((5, *network[0])), rng.integers(0, 3, 5)
    loss = "sparse_categorical_crossentropy" if "softmax" in str(network) else "mean_squared_error"
    y = labels if loss.startswith("sparse") else np.eye(3)[labels]

    def of_keras64():
        theirs = keras64.Sequential.from_config(ours.get_config())
        tf = importlib.import_module("tensorflow")
        theirs.set_weights(ours.get_weights())
        given = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(given)
            value = tf.reduce_mean(keras64.losses.get(loss)(y, theirs(given, training=True))) + sum(theirs.losses)
        expected = tape.gradient(value, [given, *(variable.value for variable in theirs.trainable_variables)])
        return value.numpy(), [gradient.numpy() for gradient in expected]

    value, expected = answers(of_keras64)
    found = losses.get(loss)
    passed = ours.forward(x, training=True)
    down = ours.backward(passed, found, y)
    assert_equal64(found.forward(y, passed.output, passed.logits) + ours.penalty(), value, "loss")
    gradients = [gradient for layer in down.layers for gradient in layer.weights.values()]
    for gradient, by_tape in zip([down.dx, *gradients], expected, strict=True):
        assert_equal64(gradient, by_tape)


def test_names_without_a_name(keras, answers):
    """Keras counts over the whole process, from the second of a kind on; here each network counts for itself."""
    kinds = ("Dense", "Dense", "Conv2D", "LeakyReLU", "ReLU", "MaxPooling2D", "BatchNormalization", "Dense")
    arguments = {"Dense": {"units": 2}, "Conv2D": {"filters": 1, "kernel_size": 1}}

    def names():
        keras.backend.clear_session()
        return [getattr(keras.layers, kind)(**arguments.get(kind, {})).name for kind in kinds]

    ours = Chain([registry.find("layer", kind)(**arguments.get(kind, {})) for kind in kinds])
    assert [layer.name for layer in ours.layers] == answers(names)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtypes(network, dtype, rng):
    chain = of_scratchnet(network, dtype)
    x = rng.standard_normal((5, *network[0]))
    passed = chain.forward(x, training=True)
    down = chain.backward(passed, losses.get("mse"), np.ones((5, 3)))
    arrays = [passed.x, down.dx, chain.penalty(), *chain.get_weights()]
    for saved, by_layer in zip(passed.saved, down.layers, strict=True):
        arrays += [saved.x, saved.z, saved.y, by_layer.dy, by_layer.dz, *by_layer.weights.values()]
    assert {str(array.dtype) for array in arrays} == {dtype}


def test_where_the_logits_are():
    def at(*stack, training=False):
        return Chain(stack).logits_at(training)

    assert at(Dense(3, "softmax")) == 0
    assert at(Dense(3), Activation("sigmoid")) == 1
    assert at(Dense(3, "softmax"), Activation("linear"), Dropout(0.5)) == 0
    assert at(Dense(3, "softmax"), Dropout(0.5), training=True) is None
    assert at(Dense(3, "softmax"), Flatten()) is None
    assert at(Dense(3, "tanh")) is None
    assert at() is None


def test_gradients_behind_the_logits_are_none(rng):
    chain = Chain([Dense(3, "softmax"), Activation("linear")], dtype="float64")
    passed = chain.forward(rng.standard_normal((4, 2)))
    down = chain.backward(passed, losses.get("categorical_crossentropy"), np.eye(3)[[0, 1, 2, 0]])
    assert [(by_layer.dy is None, by_layer.dz is None) for by_layer in down.layers] == [(True, False), (True, True)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights[:-1], "expected 4 arrays; received 3"),
        (lambda weights: [*weights, np.zeros(3)], "expected 4 arrays; received 5"),
        (lambda weights: [*weights[:2], weights[2].T, weights[3]], r"second/kernel: .*in=5, out=3.*\(3, 5\)"),
        (lambda weights: [*weights[:3], np.zeros(4)], r"second/bias: .*out=3.*\(4,\)"),
        (lambda weights: [np.zeros(()), *weights[1:]], r"first/kernel: .*in=6, out=5.*\(\)"),
    ],
)
def test_wrong_weights_change_nothing(change, message, rng):
    chain = Sequential([Dense(5, "tanh", name="first"), Dense(3, name="second")])
    chain.build((None, 6))
    before = chain.get_weights()
    with pytest.raises(ValueError, match=message):
        chain.set_weights(change([weight + 1 for weight in before]))
    assert all(np.array_equal(a, b) for a, b in zip(before, chain.get_weights(), strict=True))


def test_weights_are_copies():
    chain = Sequential([Dense(2)])
    chain.build((None, 3))
    given = np.ones((3, 2), np.float32)
    chain.set_weights([given, np.zeros(2)])
    given[:] = 7
    chain.get_weights()[0][:] = 9
    assert np.array_equal(chain.layers[0].weights["kernel"], np.ones((3, 2)))
    assert chain.layers[0].weights["bias"].dtype == np.float32


def test_mistakes_in_the_making(rng):
    with pytest.raises(ValueError, match="two layers are called 'a'"):
        Sequential([Dense(2, name="a"), Dense(2, name="a")])
    with pytest.raises(UnknownArgument, match="'a' is float64 in a float32 network"):
        Sequential([Dense(2, name="a", dtype="float64")])
    with pytest.raises(UnknownArgument, match="float16"):
        Sequential([Dense(2)], dtype="float16")
    with pytest.raises(ValueError, match=r"get_weights: .*no weights yet"):
        Sequential([Dense(2)]).get_weights()
    chain = Sequential([Dense(2)])
    chain.build((None, 3))
    with pytest.raises(ValueError, match=r"expected inputs of shape \(None, 3\); received \(4, 5\)"):
        chain.forward(rng.standard_normal((4, 5)))


def test_summary_counts_every_weight():
    chain = Sequential([Conv2D(2, 2), MaxPooling2D(), BatchNormalization(), Flatten(), Dense(3)])
    chain.build((None, 5, 5, 1))
    text = chain.summary()
    assert f"Total params: {chain.count_params():,}" in text
    assert all(layer.name in text for layer in chain.layers)
