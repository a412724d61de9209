"""Questions that people really asked, each as the code that they had, and the line of the report that answers it.

docs/field-cases.md lists them with their sources. A fact of the answer - a number, a name, a count, a factor - has to
be in one line of the report; the wording around it has not.
"""

import numpy as np
import pytest

import parity
from parity.errors import UsageError

pytestmark = pytest.mark.tensorflow


def answer(report, *facts):
    """The line of the report that has all of these facts."""
    text = report.to_text()
    found = [line for line in text.splitlines() if all(fact in line for fact in facts)]
    assert found, f"no line has {facts}:\n{text}"
    return found[0]


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def one_hot(rng, batch, classes):
    return np.eye(classes)[rng.integers(0, classes, batch)]


def sequential(keras, *layers, loss):
    model = keras.Sequential(layers)
    model.compile(loss=loss)
    return model


@pytest.fixture(autouse=True)
def names(keras):
    """Keras numbers its layers through a process: here they start from `dense` in every test."""
    keras.utils.clear_session()
    yield
    keras.utils.clear_session()


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def classifier(keras, activation="tanh"):
    """6 -> 5 -> 3 classes, as most of the questions have it."""
    dense = keras.layers.Dense
    return sequential(
        keras, keras.Input((6,)), dense(5, activation=activation), dense(3, activation="softmax"),
        loss="categorical_crossentropy",
    )  # fmt: skip


def parameters(rng, inputs=6, hidden=5, classes=3):
    return {
        "W1": rng.normal(size=(inputs, hidden)), "b1": np.zeros((1, hidden)),
        "W2": rng.normal(size=(hidden, classes)), "b2": np.zeros((1, classes)),
    }  # fmt: skip


def forward(x, params):
    z1 = x @ params["W1"] + params["b1"]
    a1 = np.tanh(z1)
    z2 = a1 @ params["W2"] + params["b2"]
    return softmax(z2), {"a1": a1}


def cross_entropy(p, y):
    return -np.mean(np.sum(y * np.log(p), axis=1))


# -- losses and gradients ----------------------------------------------------------------------------------------------


def test_1_the_gradient_of_half_the_squared_error_with_an_absolute_loss(keras):
    """keras-team/keras#18324"""
    model = sequential(keras, keras.Input((1,)), keras.layers.Dense(1, use_bias=False), loss="mean_absolute_error")

    def predict(x, w):
        return x @ w

    def gradient(x, y, w):
        o = x @ w
        dL_do = o - y
        return {"w": x.T @ dL_do / len(x)}

    def loss(o, y):
        return np.mean(np.abs(o - y))

    subject = parity.subject(predict, gradient, {"w": np.array([[0.2]])}, loss=loss)
    report = parity.check(model, subject, np.array([[1.5], [0.7], [-1.1]]), np.array([[0.9], [-0.4], [0.3]]))
    assert report.verdict == "fail"
    answer(report, "you differentiated 0.5*(p - y)^2, the loss is abs(p - y)")


def test_2_the_batch_is_summed(keras, rng):
    """hunkim/DeepLearningZeroToAll#173; apache/mxnet#2427"""

    def backward(x, y, params, cache, p):
        d2 = p - y  # no / len(x)
        d1 = d2 @ params["W2"].T * (1 - cache["a1"] ** 2)
        return {"dW1": x.T @ d1, "dW2": cache["a1"].T @ d2}

    params = {name: w for name, w in parameters(rng).items() if name.startswith("W")}
    model = sequential(
        keras, keras.Input((6,)), keras.layers.Dense(5, activation="tanh", use_bias=False),
        keras.layers.Dense(3, activation="softmax", use_bias=False), loss="categorical_crossentropy",
    )  # fmt: skip

    def outputs(x, params):
        return forward(x, {**params, "b1": 0.0, "b2": 0.0})

    subject = parity.subject(outputs, backward, params, loss=cross_entropy)
    report = parity.check(model, subject, rng.normal(size=(16, 6)), one_hot(rng, 16, 3))
    assert report.verdict == "fail"
    answer(report, "dW1", "dW2", "16 times TensorFlow's", "batch is 16", "divide it by the batch size")


def test_3_the_mean_of_a_mean(keras, rng):
    """kvfrans/notes#5"""

    def backward(x, y, params, cache, p):
        d2 = (p - y) / len(x)
        d1 = d2 @ params["W2"].T * (1 - cache["a1"] ** 2)
        return {
            "dW1": x.T @ d1, "db1": np.mean(d1, axis=0, keepdims=True),
            "dW2": cache["a1"].T @ d2, "db2": np.sum(d2, axis=0, keepdims=True),
        }  # fmt: skip

    subject = parity.subject(forward, backward, parameters(rng), loss=cross_entropy)
    report = parity.check(classifier(keras), subject, rng.normal(size=(16, 6)), one_hot(rng, 16, 3))
    assert report.verdict == "fail"
    answer(report, "db1", "0.0625 times TensorFlow's", "batch is 16", "divides by the batch size once more")
    answer(report, "right: dW2, db2, dW1")
    (wrong,) = (row for row in report.rows if not row.passed)
    assert wrong.tensor == "dense/bias.gradient"


def softmax_network(rng, loss_gradient):
    """Layers as classes have them: the loss gives dA2, the softmax makes dZ2 of it by its diagonal alone."""

    def backward(x, y, params, cache, p):
        dA2 = loss_gradient(p, y) / len(x)
        dZ2 = dA2 * p * (1 - p)
        dZ1 = dZ2 @ params["W2"].T * (1 - cache["a1"] ** 2)
        grads = {"dA2": dA2, "dZ2": dZ2, "dW2": cache["a1"].T @ dZ2, "db2": dZ2.sum(0, keepdims=True)}
        return {**grads, "dW1": x.T @ dZ1, "db1": dZ1.sum(0, keepdims=True)}

    return parity.subject(forward, backward, parameters(rng), loss=cross_entropy)


def test_4_softmax_backward_by_the_diagonal_of_its_jacobian(keras, rng):
    """eriklindernoren/ML-From-Scratch#71; mlpack/mlpack#2360"""
    subject = softmax_network(rng, lambda p, y: -y / p)
    report = parity.check(classifier(keras), subject, rng.normal(size=(8, 6)), one_hot(rng, 8, 3))
    assert report.verdict == "fail"
    answer(report, "softmax", "lacks its off-diagonal terms -p_i * sum(p*g)")


def test_4_two_mistakes_that_cancel(keras, rng):
    """The network of ML-From-Scratch: the loss has the gradient of binary cross-entropies."""
    subject = softmax_network(rng, lambda p, y: -(y / p) + (1 - y) / (1 - p))
    report = parity.check(classifier(keras), subject, rng.normal(size=(8, 6)), one_hot(rng, 8, 3))
    assert report.verdict == "pass"
    answer(
        report, "dZ2 is right only because", "dA2 is not the derivative of the loss",
        "lacks its off-diagonal terms -p_i * sum(p*g)",
    )  # fmt: skip


# -- optimizers --------------------------------------------------------------------------------------------------------


class Adam:
    """The bias correction divides by 1 - beta in every step."""

    def __init__(self, lr=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
        self.lr, self.beta_1, self.beta_2, self.epsilon = lr, beta_1, beta_2, epsilon
        self.m = self.v = None

    def update(self, w, grad):
        if self.m is None:
            self.m, self.v = np.zeros_like(w), np.zeros_like(w)
        self.m = self.beta_1 * self.m + (1 - self.beta_1) * grad
        self.v = self.beta_2 * self.v + (1 - self.beta_2) * grad**2
        m_hat, v_hat = self.m / (1 - self.beta_1), self.v / (1 - self.beta_2)
        return w - self.lr * m_hat / (np.sqrt(v_hat) + self.epsilon)


def test_5_a_bias_correction_without_the_power(keras):
    """eriklindernoren/ML-From-Scratch#35, #90"""
    report = parity.check_training("Adam(learning_rate=0.001)", Adam())
    assert report.verdict == "fail"
    answer(report, "exact at step 1, differs from step 2", "bias correction", "power of t")


def test_14_the_learning_rate_outside_the_velocity(keras):
    """pytorch/pytorch#1099"""
    velocity = {}

    def update(params, grads, lr):
        for name in params:
            velocity[name] = 0.9 * velocity.get(name, 0.0) + grads[name]
            params[name] -= lr * velocity[name]

    report = parity.check_training("SGD(learning_rate=0.01, momentum=0.9)", update)
    answer(report, "learning rate is constant", "step")


# -- kinks and ties ----------------------------------------------------------------------------------------------------


def test_6_the_slope_of_relu_at_zero(keras, rng):
    """tensorflow/playground#19"""
    x, y = rng.integers(-2, 3, (9, 6)).astype(float), one_hot(rng, 9, 3)
    params = {
        "W1": rng.integers(-1, 2, (6, 5)).astype(float), "b1": rng.integers(-1, 2, (1, 5)).astype(float),
        "W2": rng.normal(size=(5, 3)), "b2": rng.normal(size=(1, 3)),
    }  # fmt: skip

    def outputs(x, params):
        z1 = x @ params["W1"] + params["b1"]
        return softmax(np.maximum(z1, 0) @ params["W2"] + params["b2"]), {"z1": z1}

    def backward(x, y, params, cache, p):
        d2 = (p - y) / len(x)
        d1 = d2 @ params["W2"].T * (cache["z1"] >= 0)
        a1 = np.maximum(cache["z1"], 0)
        return {"dW1": x.T @ d1, "db1": d1.sum(0, keepdims=True), "dW2": a1.T @ d2, "db2": d2.sum(0, keepdims=True)}

    model = classifier(keras, "relu")
    model.set_weights([params["W1"], params["b1"][0], params["W2"], params["b2"][0]])
    report = parity.check(model, parity.subject(outputs, backward, params, loss=cross_entropy), x, y)
    zeros = np.count_nonzero(x @ params["W1"] + params["b1"] == 0)
    assert zeros > 3
    assert report.verdict == "fail"
    answer(
        report, f"{zeros} elements", "exactly at the kink", "TensorFlow takes 0", "you take 1", "no other difference"
    )


def windows(images):
    """(batch, height / 2, width / 2, channels, 4): the cells of each 2x2 window."""
    batch, height, width, channels = images.shape
    cells = images.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return cells.transpose(0, 1, 3, 5, 2, 4).reshape(batch, height // 2, width // 2, channels, 4)


def convolved(images, kernel):
    """A 3x3 convolution without padding. kernel: (3, 3, in, out)"""
    height, width = images.shape[1] - 2, images.shape[2] - 2
    return sum(images[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))


class Convolutional:
    """Convolution, pooling, softmax. The gradient of a window is split among its equal maxima."""

    def __init__(self, rng):
        self.K = rng.integers(-1, 2, (3, 3, 1, 2)).astype(float)
        self.W = rng.normal(size=(8, 3))

    def forward(self, x):
        self.z = convolved(x, self.K)
        self.pooled = windows(self.z).max(axis=-1)
        return softmax(self.pooled.reshape(len(x), -1) @ self.W)

    def loss(self, p, y):
        return cross_entropy(p, y)

    def backward(self, x, y, p):
        d = (p - y) / len(x)
        self.dW = self.pooled.reshape(len(x), -1).T @ d
        cells = windows(self.z)
        largest = cells == cells.max(axis=-1, keepdims=True)
        shares = largest / largest.sum(axis=-1, keepdims=True) * (d @ self.W.T).reshape(self.pooled.shape)[..., None]
        dz = shares.reshape(len(x), 2, 2, 2, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(self.z.shape)
        self.dK = np.array(
            [[np.einsum("bhwi,bhwo->io", x[:, i : i + 4, j : j + 4], dz) for j in range(3)] for i in range(3)]
        )


def test_7_ties_in_a_window(keras, rng):
    """tensorflow/tensorflow#51682, #4886"""
    network = Convolutional(rng)
    model = sequential(
        keras, keras.Input((6, 6, 1)), keras.layers.Conv2D(2, 3, use_bias=False), keras.layers.MaxPooling2D(2),
        keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax", use_bias=False),
        loss="categorical_crossentropy",
    )  # fmt: skip
    model.set_weights([network.K, network.W])
    x, y = rng.integers(0, 3, (7, 6, 6, 1)).astype(float), one_hot(rng, 7, 3)
    report = parity.check(model, parity.subject(network), x, y)
    cells = windows(convolved(x, network.K))
    tied = np.count_nonzero(np.sum(cells == cells.max(axis=-1, keepdims=True), axis=-1) > 1)
    assert report.verdict == "fail"
    answer(report, f"{tied} windows", "equal maxima", "TensorFlow gives the gradient to the first", "you split it")


# -- batch normalisation -----------------------------------------------------------------------------------------------


def normalizer(keras, **options):
    return sequential(keras, keras.Input((4,)), keras.layers.BatchNormalization(**options), loss="mean_squared_error")


def normalized(divided):
    """(x - mean) divided, gamma and beta as parameters; the gradients by them are those of any normalisation."""

    def outputs(x, gamma, beta):
        xh = (x - x.mean(0)) / divided(x.var(0))
        return gamma * xh + beta, {"xh": xh}

    def backward(y, p, cache):
        d = 2 * (p - y) / y.size
        return {"gamma": np.sum(d * cache["xh"], axis=0), "beta": np.sum(d, axis=0)}

    def loss(p, y):
        return np.mean((p - y) ** 2)

    params = {"gamma": np.array([0.8, 1.1, 0.9, 1.2]), "beta": np.array([0.1, -0.2, 0.3, 0.0])}
    return parity.subject(outputs, backward, params, loss=loss)


def test_8_epsilon_outside_the_root(keras, rng):
    """keras-team/keras PR#10427; tensorflow/tensorflow#24690"""
    x, y = rng.normal(size=(10, 4)), rng.normal(size=(10, 4))
    report = parity.check(normalizer(keras), normalized(lambda var: np.sqrt(var) + 1e-3), x, y)
    assert report.verdict == "fail"
    answer(report, "fits (x - mean) / (sqrt(var) + epsilon)", "Keras divides by sqrt(var + epsilon)")


def test_13_another_epsilon(keras, rng):
    """gzuidhof/nn-transfer PR#3; qqwweee/keras-yolo3#451"""
    x, y = rng.normal(size=(10, 4)), rng.normal(size=(10, 4))
    report = parity.check(normalizer(keras), normalized(lambda var: np.sqrt(var + 1e-5)), x, y)
    assert report.verdict == "fail"
    answer(report, "fits epsilon=1e-5", "Keras has 1e-3")
    (row,) = (row for row in report.rows if row.tensor.endswith("/output"))
    answer(report, "visible at this variance", f"{np.var(x, axis=0).min():.3g}", f"{row.budgets:.2g} budgets")


# -- shapes and samples of the loss ------------------------------------------------------------------------------------


def test_9_all_pairs(keras, rng):
    """keras-team/keras#14627, #16836"""
    model = sequential(keras, keras.Input((3,)), keras.layers.Dense(1), loss="mean_squared_error")

    def predict(x, w, b):
        return x @ w + b

    def loss(y_pred, y_true):
        return np.mean((y_pred - y_true) ** 2)

    def gradient(x, y, y_pred):
        d = 2 * (y_pred - y.reshape(-1, 1)) / len(x)
        return {"w": x.T @ d, "b": d.sum(0)}

    params = {"w": rng.normal(size=(3, 1)), "b": np.array([0.3])}
    subject = parity.subject(predict, gradient, params, loss=loss)
    report = parity.check(model, subject, rng.normal(size=(12, 3)), rng.normal(size=12))
    assert report.verdict == "fail"
    answer(report, "mean over n*n pairs", "y_true has shape (n,)", "y_pred (n, 1)")
    answer(report, "(12,)", "(12, 1)")


def probabilities(keras, classes=3):
    """A network that hands its samples to the loss as they are."""
    model = sequential(
        keras, keras.Input((classes,)), keras.layers.Dense(classes, use_bias=False), loss="categorical_crossentropy"
    )
    model.set_weights([np.eye(classes)])
    return model


def test_10_clipped_probabilities(keras):
    """stackoverflow 65131391"""
    unlikely = 1e-9
    p = np.array([[0.7, 0.2, 0.1], *[[unlikely, 0.5, 0.5 - unlikely]] * 3, [0.1, 0.3, 0.6]])
    y = np.eye(3)[[0, 0, 0, 0, 2]]
    report = parity.check(probabilities(keras), x=p, y=y)
    assert report.verdict == "pass"
    without = -np.mean(np.log(np.sum(p * y, axis=1)))
    answer(report, "3 samples are clipped at 1e-07", f"without the clip the loss is {without:.4g}")


def test_11_rows_that_do_not_sum_to_one(keras):
    """stackoverflow 68427532"""
    p = np.array([[0.89, 0.6, 0.5], [0.3, 0.89, 0.8]])
    report = parity.check(probabilities(keras), x=p, y=np.eye(3)[[0, 1]])
    assert report.verdict == "pass"
    answer(report, "sums are 1.99", "Keras divides by the sum first")
    (loss,) = {f"{row.reference:.4f}" for row in report.rows if row.tensor == "loss"}
    assert loss == "0.8047"


def test_16_labels_that_do_not_sum_to_one(keras, rng):
    """tensorflow/tensorflow#60314, PR#49178"""
    model = sequential(
        keras, keras.Input((4,)), keras.layers.Dense(2, activation="softmax"), loss="categorical_crossentropy"
    )
    y = np.array([[0.3, 0.2], [0.5, 0.1], [0.4, 0.3]])
    report = parity.check(model, x=rng.normal(size=(3, 4)), y=y)
    assert report.verdict == "fail"
    answer(
        report,
        "NumPy and finite differences agree",
        "TensorFlow is the odd one out",
        "softmax - y",
        "softmax * sum(y) - y",
    )


def test_17_the_last_bit(keras, rng):
    """techqa 41200581"""
    report = parity.check(classifier(keras), x=rng.normal(size=(4, 6)), y=one_hot(rng, 4, 3), dtype="float32")
    assert report.verdict == "pass"
    answer(report, "uses", "of it", "ULP there, nothing to fix")


# -- layouts, options, activations -------------------------------------------------------------------------------------


def test_12_a_flatten_with_the_channels_first(keras, rng):
    """gzuidhof/nn-transfer#16, #17"""
    model = sequential(
        keras, keras.Input((5, 6, 1)), keras.layers.Conv2D(2, 3, activation="tanh"), keras.layers.Flatten(),
        keras.layers.Dense(3, activation="softmax"), loss="categorical_crossentropy",
    )  # fmt: skip

    def outputs(x, params):
        a = np.tanh(convolved(x, params["K"]) + params["c"])
        flat = a.transpose(0, 3, 1, 2).reshape(len(x), -1)
        return softmax(flat @ params["W"] + params["b"]), {"flat": flat}

    def backward(x, y, p, params, cache):
        d = (p - y) / len(x)
        return {"W": cache["flat"].T @ d, "b": d.sum(0)}

    params = {"K": np.zeros((3, 3, 1, 2)), "c": np.zeros(2), "W": np.zeros((24, 3)), "b": np.zeros(3)}
    x, y = rng.normal(size=(6, 5, 6, 1)), one_hot(rng, 6, 3)
    dense_only = {"K": None, "c": None}
    report = parity.check(
        model, parity.subject(outputs, backward, params, loss=cross_entropy, gradients=dense_only), x, y
    )
    assert report.verdict == "pass"
    answer(
        report, "W", "the rows of this Dense kernel fit the order (channels, height, width)",
        "Keras has (height, width, channels)",
    )  # fmt: skip
    as_keras = parity.subject(outputs, backward, params, loss=cross_entropy, layout="rows", gradients=dense_only)
    report = parity.check(model, as_keras, x, y)
    assert report.verdict == "fail"
    answer(report, "order (channels, height, width)", "Keras has (height, width, channels)")


def double_softmax(rng, times):
    def outputs(x, params):
        p, cache = forward(x, params)
        return (softmax(p) if times == 2 else p), cache

    def backward(x, y, params, cache, p):
        d2 = (p - y) / len(x)
        d1 = d2 @ params["W2"].T * (1 - cache["a1"] ** 2)
        grads = {"dW2": cache["a1"].T @ d2, "db2": d2.sum(0, keepdims=True)}
        return {**grads, "dW1": x.T @ d1, "db1": d1.sum(0, keepdims=True)}

    return parity.subject(outputs, backward, parameters(rng), loss=cross_entropy)


def test_18_a_softmax_of_a_softmax(keras, rng):
    """vahidk/EffectiveTensorflow#9"""
    x, y = rng.normal(size=(8, 6)), one_hot(rng, 8, 3)
    report = parity.check(classifier(keras), double_softmax(rng, 2), x, y)
    assert report.verdict == "fail"
    answer(report, "the outputs of forward", "fit softmax(softmax(z))")


def test_18_no_softmax_of_a_softmax(keras, rng):
    """keras-team/keras#6636"""
    x, y = rng.normal(size=(8, 6)), one_hot(rng, 8, 3)
    report = parity.check(classifier(keras), double_softmax(rng, 1), x, y)
    assert report.verdict == "pass"
    answer(report, "no double softmax")


def network(activation="gelu", width=8):
    """Somebody's port: the option is taken and forgotten, relu is written into the code."""
    rng = np.random.default_rng(0)
    w1, w2 = rng.normal(size=(6, width)), rng.normal(size=(width, 3))
    return lambda x: softmax(np.maximum(x @ w1, 0) @ w2)


def test_15_an_option_that_is_not_used(rng):
    """huggingface/transformers#13666, PR#13679"""
    found = parity.unused(network, {"activation": "tanh", "width": 9}, rng.normal(size=(4, 6)))
    assert list(found) == ["activation"]
    assert found["activation"] == "changing activation to 'tanh' has no effect on your network: it is not used"


def test_15_a_network_that_is_another_one_each_time(rng):
    def drawn(activation="relu"):
        w = rng.normal(size=(6, 3))
        return lambda x: x @ w

    with pytest.raises(UsageError, match="seed"):
        parity.unused(drawn, {"activation": "tanh"}, np.ones((2, 6)))
    with pytest.raises(UsageError, match="at least one"):
        parity.unused(network, {}, np.ones((2, 6)))
