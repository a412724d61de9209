"""fit, evaluate and predict against Keras: the same batches, the same weights, the same history."""

import numpy as np
import pytest

import scratchnet
from scratchnet import Sequential
from scratchnet.layers import BatchNormalization, Dense, Dropout

SEED = 1234
SAMPLES, BATCH = 22, 8  # the last batch of each epoch is short

SETTINGS = {
    "softmax": ("softmax", "categorical_crossentropy", "sgd", {}),
    "labels": ("softmax", "sparse_categorical_crossentropy", "momentum", {}),
    "sigmoid": ("sigmoid", "binary_crossentropy", "nesterov", {}),
    "in order": ("softmax", "categorical_crossentropy", "sgd", {"shuffle": False}),
    "weighted": ("tanh", "mse", "sgd", {"sample_weight": True}),
    "held out": ("softmax", "categorical_crossentropy", "momentum", {"validation_split": 0.3}),
    "held out, weighted": (
        "softmax",
        "sparse_categorical_crossentropy",
        "sgd",
        {"sample_weight": True, "validation_split": 0.3},
    ),
    "validated": ("tanh", "huber", "nesterov", {"validation_data": True}),
    "one batch": ("softmax", "categorical_crossentropy", "sgd", {"batch_size": 100}),
}
OPTIMIZERS = {
    "sgd": {"learning_rate": 0.3},
    "momentum": {"learning_rate": 0.1, "momentum": 0.9},
    "nesterov": {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True},
}


def network(head, dtype="float64", optional=()):
    stack = [Dense(5, "tanh", kernel_regularizer="l2"), *optional, Dense(3, head)]
    chain = Sequential(stack, dtype=dtype)
    chain.build((None, 4))
    return chain


def data(loss, rng, samples=SAMPLES):
    labels = rng.integers(0, 3, samples)
    return rng.standard_normal((samples, 4)), labels if loss.startswith("sparse") else np.eye(3)[labels]


def twin(keras, chain):
    model = keras.Sequential.from_config(chain.get_config())
    model.set_weights(chain.get_weights())
    return model


def fit_arguments(changes, loss, rng):
    filled = {"batch_size": BATCH, "epochs": 3, "verbose": 0, **changes}
    if filled.get("sample_weight"):
        filled["sample_weight"] = rng.random(SAMPLES) + 0.5
    if filled.get("validation_data"):
        filled["validation_data"] = data(loss, rng, 9)
    return filled


def trained_by_keras(keras, chain, loss, optimizer, x, y, arguments, weight=None):
    """History and weights; what is evaluated afterwards, without and with this weight of the samples; predictions."""
    model = twin(keras, chain)
    model.compile(optimizer=keras.optimizers.SGD(**OPTIMIZERS[optimizer]), loss=loss, metrics=["accuracy"])
    keras.utils.set_random_seed(SEED)
    history = model.fit(x, y, **arguments).history
    said = {
        "history": {name: np.array(values, np.float64) for name, values in history.items()},
        "weights": model.get_weights(),
    }
    if weight is not None:
        evaluated = [
            np.array(model.evaluate(x, y, batch_size=BATCH, verbose=0, sample_weight=each), np.float64)
            for each in (None, weight)
        ]
        said |= {"evaluated": evaluated, "predicted": model.predict(x, batch_size=BATCH, verbose=0)}
    return said


def assert_same_training(chain, loss, optimizer, x, y, arguments, theirs, assert_equal64):
    chain.compile(optimizer=scratchnet.optimizers.SGD(**OPTIMIZERS[optimizer]), loss=loss, metrics=["accuracy"])
    scratchnet.set_random_seed(SEED)
    ours = chain.fit(x, y, **arguments).history
    assert set(ours) == set(theirs["history"])  # a compiled function gives Keras its own back in alphabetical order
    for name in ours:
        assert_equal64(np.array(ours[name]), theirs["history"][name], name)
    for weight, expected in zip(chain.get_weights(), theirs["weights"], strict=True):
        assert_equal64(weight, expected)


@pytest.mark.parametrize("setting", SETTINGS)
def test_fit_is_that_of_keras(setting, keras64, answers, rng, seeded, assert_equal64):
    head, loss, optimizer, changes = SETTINGS[setting]
    x, y = data(loss, rng)
    seeded(SEED)
    chain = network(head)
    arguments = fit_arguments(changes, loss, rng)
    weight = rng.random(SAMPLES) if setting == "labels" else None
    theirs = answers(lambda: trained_by_keras(keras64, chain, loss, optimizer, x, y, arguments, weight))
    assert_same_training(chain, loss, optimizer, x, y, arguments, theirs, assert_equal64)
    if setting == "labels":
        for more, expected in zip(({}, {"sample_weight": weight}), theirs["evaluated"], strict=True):
            assert_equal64(np.array(chain.evaluate(x, y, batch_size=BATCH, **more)), expected)
        assert_equal64(chain.predict(x, batch_size=BATCH), theirs["predicted"])


def test_fit_with_state_is_that_of_keras(keras64, answers, rng, seeded, assert_equal64):
    """Moving averages and dropout masks go on from batch to batch, and rest in evaluation."""
    x, y = data("categorical_crossentropy", rng)
    seeded(SEED)
    chain = network("softmax", optional=(BatchNormalization(), Dropout(0.4, seed=5)))
    arguments = {"batch_size": BATCH, "epochs": 2, "verbose": 0, "validation_split": 0.3}
    given = (chain, "categorical_crossentropy", "sgd", x, y, arguments)
    theirs = answers(lambda: trained_by_keras(keras64, *given))
    assert_same_training(*given, theirs, assert_equal64)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtypes_are_kept_through_training(dtype, rng):
    x, y = data("categorical_crossentropy", rng)
    chain = network("softmax", dtype, optional=(BatchNormalization(),))
    chain.compile(optimizer=scratchnet.optimizers.SGD(0.1, 0.9, True), loss="categorical_crossentropy")
    chain.fit(x, y, batch_size=BATCH, epochs=2, verbose=0, sample_weight=rng.random(SAMPLES))
    assert {str(weight.dtype) for weight in chain.get_weights()} == {dtype}
    assert chain.predict(x).dtype == dtype


def test_training_learns(rng, seeded):
    seeded(1)  # the start weights and the order of the samples; without it accuracy ends anywhere from 0.89 to 1
    x = rng.standard_normal((200, 4))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    chain = Sequential([Dense(16, "tanh"), Dense(2, "softmax")])
    chain.compile(scratchnet.optimizers.SGD(0.3, 0.9), "sparse_categorical_crossentropy", ["accuracy"])
    history = chain.fit(x, y, epochs=30, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] / 2
    assert history["accuracy"][-1] > 0.9


def trained(chain, x, y, **arguments):
    chain.compile("sgd", "mse")
    return chain.fit(x, y, verbose=0, **arguments).history["loss"]


def test_the_seed_decides_the_batches(seeded, rng):
    x, y = data("mse", rng)
    runs = []
    for seed in (SEED, SEED, SEED + 1):
        chain = network("tanh")
        chain.set_weights([np.full(weight.shape, 0.1) for weight in chain.get_weights()])
        seeded(seed)
        runs.append(trained(chain, x, y, batch_size=BATCH, epochs=2))
    assert runs[0] == runs[1] != runs[2]


def test_frozen_weights_stay(rng):
    x, y = data("mse", rng)
    chain = Sequential([Dense(5, "tanh", trainable=False), Dense(3)])
    chain.build((None, 4))
    before = chain.get_weights()
    trained(chain, x, y)
    same = [np.array_equal(a, b) for a, b in zip(before, chain.get_weights(), strict=True)]
    assert same == [True, True, False, False]


def test_what_evaluate_returns(rng):
    x, y = data("mse", rng)
    chain = network("tanh")
    chain.compile(loss="mse", metrics=["accuracy", "binary_accuracy"])
    logs = chain.evaluate(x, y, return_dict=True)
    assert list(logs) == ["loss", "accuracy", "binary_accuracy"]
    assert chain.evaluate(x, y) == list(logs.values())
    chain.compile(loss="mse")
    assert chain.evaluate(x, y) == logs["loss"]


def test_verbose_prints_a_line_for_each_epoch(capsys, rng):
    x, y = data("mse", rng)
    chain = network("tanh")
    chain.compile("sgd", "mse")
    chain.fit(x, y, epochs=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" - ")[0] for line in lines] == ["Epoch 1/2", "Epoch 2/2"]
    chain.fit(x, y, verbose=0)
    assert capsys.readouterr().out == ""


def test_mistakes_are_refused(rng):
    x, y = data("mse", rng)
    chain = network("tanh")
    for call in (chain.fit, chain.evaluate):
        with pytest.raises(ValueError, match="no loss; call compile"):
            call(x, y)
    chain.compile("sgd", "mse")
    with pytest.raises(ValueError, match=f"same number of samples.*'x': {SAMPLES}, 'y': 3"):
        chain.fit(x, y[:3])
    with pytest.raises(ValueError, match="'sample_weight': 2"):
        chain.evaluate(x, y, sample_weight=np.ones(2))
    with pytest.raises(ValueError, match=r"validation_split must be in \[0, 1\); received 1\.5"):
        chain.fit(x, y, validation_split=1.5)
    with pytest.raises(ValueError, match="at least one"):
        chain.fit(x[:0], y[:0])
