"""A network of one's own: how functions are called, where parameters and gradients are, what the code may not do."""

import json

import numpy as np
import pytest

import parity
from parity.errors import SubjectError, UsageError
from parity.subjects import subject

pytestmark = pytest.mark.tensorflow

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((7, 6)), np.eye(3)[RNG.integers(0, 3, 7)]


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def parameters():
    return {"W1": RNG.normal(size=(6, 5)), "b1": np.zeros(5), "W2": RNG.normal(size=(5, 3)), "b2": np.zeros(3)}


def forward(x, params):
    a1 = np.tanh(x @ params["W1"] + params["b1"])
    return softmax(a1 @ params["W2"] + params["b2"]), {"a1": a1}


def backward(x, y, params, cache, outputs):
    dz2 = (outputs - y) / len(x)
    dz1 = dz2 @ params["W2"].T * (1 - cache["a1"] ** 2)
    return {"dW1": x.T @ dz1, "db1": dz1.sum(axis=0), "dW2": cache["a1"].T @ dz2, "db2": dz2.sum(axis=0)}


@pytest.fixture(scope="module")
def model():
    keras = pytest.importorskip("keras")
    seeded = keras.initializers.GlorotUniform
    built = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(5, "tanh", kernel_initializer=seeded(seed=1), name="dense"),
            keras.layers.Dense(3, "softmax", kernel_initializer=seeded(seed=2), name="dense_1"),
        ],
        name="sequential",
    )
    built.compile(loss="categorical_crossentropy")
    return built


def check(model, brought, **options):
    return parity.check(model, brought, X, Y, **{"modes": ("eager",), **options})


def codes(report):
    return [finding.cause and finding.cause.code for finding in report.findings]


# -- the report --------------------------------------------------------------------------------------------------------


def test_a_right_network_passes_without_a_finding(model):
    report = check(model, subject(forward, backward, parameters()))
    assert (report.verdict, report.findings, report.exit_status) == ("pass", (), 0)
    assert report.sentence.startswith("Yes: your network and Keras compute the same")


def test_a_finding_has_both_names_its_place_and_its_cause(model):
    def averaged(x, y, params, cache, outputs):
        found = backward(x, y, params, cache, outputs)
        return {**found, "db1": found["db1"] / len(x)}

    report = check(model, subject(forward, averaged, parameters()))
    [finding] = report.findings
    assert report.verdict == "fail"
    assert "db1" in finding.tensor
    assert "dense/bias.gradient" in finding.tensor
    assert finding.place == "Dense dense backward"
    assert finding.budgets > 1e6
    assert finding.cause.code == "dense-bias-gradient-averaged"
    assert finding.cause.explains > 0.999
    assert finding.cause.right != finding.cause.wrong


def test_findings_come_in_the_order_of_data_flow(model):
    def two(x, y, params, cache, outputs):
        found = backward(x, y, params, cache, outputs)
        return {**found, "db1": found["db1"] / len(x), "dW2": -found["dW2"]}

    report = check(model, subject(forward, two, parameters()))
    assert codes(report) == ["factor-minus-one", "dense-bias-gradient-averaged"]
    assert [f.tensor.split()[0] for f in report.findings] == ["dW2", "db1"]


def test_the_sum_over_the_batch_is_said_of_all_tensors_at_once(model):
    def summed(x, y, params, cache, outputs):
        return {name: len(x) * g for name, g in backward(x, y, params, cache, outputs).items()}

    report = check(model, subject(forward, summed, parameters()))
    assert set(codes(report)) == {"loss-gradient-sum-for-mean"}
    assert "dW2, db2, dW1, db1 are 7 times TensorFlow's and your batch is 7: " in report.sentence


def test_with_the_loss_it_is_a_convention(model):
    def summed(x, y, params, cache, outputs):
        return {name: len(x) * g for name, g in backward(x, y, params, cache, outputs).items()}

    brought = subject(forward, summed, parameters(), loss=lambda outputs, y: -np.sum(y * np.log(outputs)))
    report = check(model, brought)
    assert (report.verdict, report.findings) == ("pass", ())
    assert "7 times TensorFlow's and your batch is 7: a consistent choice" in report.checks[0].conventions[0]


def test_a_scaled_gradient_beside_a_right_loss_is_a_mistake(model):
    def summed(x, y, params, cache, outputs):
        return {name: len(x) * g for name, g in backward(x, y, params, cache, outputs).items()}

    mean = subject(forward, summed, parameters(), loss=lambda outputs, y: -np.sum(y * np.log(outputs)) / len(y))
    assert check(model, mean).verdict == "fail"


def test_a_loss_that_is_only_printed_otherwise_is_a_convention(model):
    brought = subject(forward, backward, parameters(), loss=lambda outputs, y: -np.mean(y * np.log(outputs + 1e-8)))
    report = check(model, brought)
    assert (report.verdict, report.findings) == ("pass", ())
    assert "0.3333 times l = -sum(y log(p + 1e-08))" in report.checks[0].conventions[0]


def test_a_wrong_loss_is_no_convention(model):
    brought = subject(forward, backward, parameters(), loss=lambda outputs, y: -np.sum(y * outputs) / len(y))
    report = check(model, brought)
    assert codes(report) == ["cce-without-logarithm"]


def test_deltas_that_are_divided_later_are_a_convention(model):
    def later(x, y, params, cache, outputs):
        dZ2 = outputs - y
        dZ1 = dZ2 @ params["W2"].T * (1 - cache["a1"] ** 2)
        m = len(x)
        return {"dZ2": dZ2, "dZ1": dZ1, "dW1": x.T @ dZ1 / m, "db1": dZ1.sum(0) / m, "dW2": cache["a1"].T @ dZ2 / m,
                "db2": dZ2.sum(0) / m}  # fmt: skip

    report = check(model, subject(forward, later, parameters()))
    assert (report.verdict, report.findings) == ("pass", ())
    assert "divide by the batch later" in report.checks[0].conventions[0]


def test_the_report_as_json_has_the_same(model):
    report = check(model, subject(forward, backward, parameters()))
    document = json.loads(report.to_json())
    assert document["checks"][0]["subject"] == "your network"
    assert document["checks"][0]["notes"][0] == "layout: rows; samples: rows"


def test_nothing_but_outputs_has_no_power(model):
    report = check(model, subject(forward, None, parameters()))
    assert (report.verdict, report.exit_status) == ("no power", 3)


def test_gradients_alone_are_enough(model):
    def alone(x, y, params):
        outputs, cache = forward(x, params)
        return backward(x, y, params, cache, outputs)

    report = check(model, subject(backward=alone, params=parameters()))
    assert report.verdict == "pass"
    assert "dense_1/output" not in {row.tensor for row in report.rows}


# -- how the code behaves ----------------------------------------------------------------------------------------------


def test_parameters_that_are_updated_on_the_way_are_the_finding(model):
    def updating(x, y, params, cache, outputs):
        found = backward(x, y, params, cache, outputs)
        for name in params:
            params[name] -= 0.1 * found["d" + name]
        return found

    report = check(model, subject(forward, updating, parameters()))
    assert codes(report) == ["changes-its-arguments"]
    assert "W1 (a parameter)" in report.sentence


def test_labels_that_are_written_to_are_the_finding(model):
    def writing(x, y, params, cache, outputs):
        y -= outputs
        return backward(x, y * 0 + (outputs + y), params, cache, outputs)

    report = check(model, subject(forward, writing, parameters()))
    assert codes(report) == ["changes-its-arguments"]
    assert "y (the labels)" in report.sentence


class Stateful:
    """Adds its gradients up, or keeps the activations of the first batch."""

    def __init__(self, adds=False, stale=False):
        for name, array in parameters().items():
            setattr(self, name, array)
        self.adds, self.stale, self.grads, self.cache = adds, stale, {}, None

    def forward(self, x):
        params = {name: getattr(self, name) for name in ("W1", "b1", "W2", "b2")}
        outputs, cache = forward(x, params)
        if self.cache is None or not self.stale:
            self.cache = cache
        self.outputs = outputs
        return outputs

    def backward(self, x, y):
        params = {name: getattr(self, name) for name in ("W1", "b1", "W2", "b2")}
        new = backward(x, y, params, self.cache, self.outputs)
        self.grads = {name: g + (self.grads.get(name, 0) if self.adds else 0) for name, g in new.items()}


def test_an_object_with_attributes_passes(model):
    net = Stateful()
    kept = {name: getattr(net, name).copy() for name in ("W1", "b1", "W2", "b2")}
    report = check(model, subject(net))
    assert (report.verdict, report.findings) == ("pass", ())
    assert all(np.array_equal(getattr(net, name), array) for name, array in kept.items()), (
        "its weights were not restored"
    )


def test_gradients_that_add_up_are_the_finding(model):
    report = check(model, subject(Stateful(adds=True)))
    assert "does-not-repeat" in codes(report)
    assert "added up from call to call" in report.to_text()


def test_a_stale_cache_is_the_finding(model):
    report = check(model, subject(Stateful(stale=True)))
    assert report.verdict == "fail"


@pytest.mark.parametrize("kind", [np.int64, np.float16])
def test_dtypes_without_digits_are_the_finding(model, kind):
    def cut(x, y, params, cache, outputs):
        return {name: g.astype(kind) for name, g in backward(x, y, params, cache, outputs).items()}

    report = check(model, subject(forward, cut, parameters()))
    assert codes(report)[0] == "dtype"
    assert f"dW2 is {np.dtype(kind)}" in report.to_text()


def test_float32_code_is_judged_by_what_float32_can_do(model):
    def narrow(x, params):
        outputs, cache = forward(x.astype("f"), {name: array.astype("f") for name, array in params.items()})
        return outputs, cache

    def back(x, y, params, cache, outputs):
        found = backward(x.astype("f"), y.astype("f"), {n: a.astype("f") for n, a in params.items()}, cache, outputs)
        return {name: g.astype("f") for name, g in found.items()}

    report = check(model, subject(narrow, back, parameters()))
    assert (report.verdict, report.findings) == ("pass", ())
    assert any("computes in float32" in note for note in report.checks[0].notes)

    def wrong(x, y, params, cache, outputs):
        return {name: g * np.float32(1.001) for name, g in back(x, y, params, cache, outputs).items()}

    assert check(model, subject(narrow, wrong, parameters())).verdict == "fail"


def test_an_accidental_float64_is_noted(model):
    def forward_wide(x, params):
        return forward(x, {name: array + np.zeros(array.shape) for name, array in params.items()})

    report = check(model, subject(forward_wide, backward, parameters()))
    assert report.verdict == "pass"
    assert any("given float32, your code returns float64" in note for note in report.checks[0].notes)


# -- what cannot be called ---------------------------------------------------------------------------------------------


def test_an_exception_shows_its_own_line_and_the_shapes(model):
    def broken(x, params):
        return softmax(x @ params["W2"]), {}

    with pytest.raises(SubjectError) as raised:
        check(model, subject(broken, backward, parameters(), samples="rows", layout="rows"))
    message = str(raised.value)
    assert "test_subjects.py" in message
    assert 'return softmax(x @ params["W2"]), {}' in message
    assert "x (7, 6), params {W1: (6, 5), b1: (5,), W2: (5, 3), b2: (3,)}" in message


MISUSED = [
    (lambda: subject(lambda q, params: q, backward, parameters()), "nothing is known for its parameter 'q'"),
    (lambda: subject(forward, lambda x: {"grad": 1}, parameters()), "no gradient was found"),
    (lambda: subject(lambda x, params: x[:, :2], backward, parameters()), "expected outputs with 21 numbers"),
    (lambda: subject(forward, backward, {"W": np.zeros((2, 2))}), "hold Keras's weights"),
    (lambda: subject(forward, backward, parameters(), layout="diagonal"), "layout: expected one of rows"),
    (lambda: subject(forward, backward, parameters(), samples="diagonal"), "samples: expected one of rows"),
    (lambda: subject(forward, None, parameters(), step=lambda params, x, y: None), "step needs learning_rate"),
    (lambda: subject(forward, backward), "params: give the parameters"),
    (lambda: subject(forward, backward, "W1"), "params: expected arrays"),
    (lambda: subject(forward, 3, parameters()), "backward: expected a function"),
    (lambda: subject(None, None, parameters()), "give at least forward, backward or step"),
    (lambda: subject(object()), "has none of the methods"),
    (lambda: subject(Stateful(), "undo"), "has no method 'undo'"),
]


@pytest.mark.parametrize(("make", "message"), MISUSED, ids=[message for _, message in MISUSED])
def test_what_is_no_subject_gets_one_clear_message(model, make, message):
    with pytest.raises(UsageError, match=message):
        check(model, make())


def test_something_else_than_a_subject(model):
    with pytest.raises(UsageError, match=r"parity.subject\(...\).*received ndarray.*leave it out"):
        parity.check(model, X, Y)


# -- layouts -----------------------------------------------------------------------------------------------------------


def test_an_ambiguous_layout_is_resolved_by_the_forward_pass():
    keras = pytest.importorskip("keras")
    seeded = keras.initializers.GlorotUniform(seed=1)
    built = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, "tanh", kernel_initializer=seeded)])
    built.compile(loss="mse")

    def columns(x, params):
        return np.tanh(params["W"] @ x.T + params["b"][:, None]).T

    def back(x, y, params, outputs):
        dz = (2 * (outputs - y) * (1 - outputs**2) / y.size).T
        return {"dW": dz @ x, "db": dz.sum(axis=1)}

    x, y = RNG.standard_normal((2, 6, 4))
    square = {"W": np.zeros((4, 4)), "b": np.zeros(4)}
    report = parity.check(built, subject(columns, back, square), x, y, modes=("eager",))
    assert (report.verdict, report.checks[0].notes) == ("pass", ("layout: columns; samples: rows",))

    def neither(x, params):
        return 9 + np.cos(params["W"] @ x.T + params["b"][:, None]).T

    with pytest.raises(UsageError, match=r"fit in \d+ ways.*(rows.*columns|columns.*rows).*Say which"):
        parity.check(built, subject(neither, back, square), x, y, modes=("eager",))
    named = subject(neither, back, square, layout="columns", samples="rows")
    assert parity.check(built, named, x, y, modes=("eager",)).verdict == "fail"


def test_a_step_that_trains_in_place(model):
    def step(x, y, params, learning_rate):
        outputs, cache = forward(x, params)
        found = backward(x, y, params, cache, outputs)
        for name in params:
            params[name] -= learning_rate * found["d" + name]

    report = check(model, subject(forward, None, parameters(), step=step, learning_rate=0.5))
    assert (report.verdict, report.findings) == ("pass", ())

    def climbing(x, y, params, learning_rate):
        outputs, cache = forward(x, params)
        found = backward(x, y, params, cache, outputs)
        return {name: params[name] + learning_rate * found["d" + name] for name in params}

    report = check(model, subject(forward, None, parameters(), step=climbing, learning_rate=0.5))
    assert set(codes(report)) == {"loss-gradient-negated"}
    assert "are -1 times TensorFlow's" in report.sentence


def test_a_layer_that_scratchnet_lacks_is_judged_by_keras():
    keras = pytest.importorskip("keras")
    built = keras.Sequential([keras.Input((5, 3)), keras.layers.Conv1D(4, 2), keras.layers.GlobalAveragePooling1D()])
    built.compile(loss="mse")

    def run(x, K, b):
        z = x[:, :-1] @ K[0] + x[:, 1:] @ K[1] + b
        return z.mean(axis=1)

    def back(x, y, K, b, outputs):
        dz = np.repeat((2 * (outputs - y) / y.size)[:, None] / 4, 4, axis=1)
        return [np.stack([np.einsum("nti,nto->io", x[:, i : i + 4], dz) for i in (0, 1)]), dz.sum(axis=(0, 1))]

    arrays = {"K": np.zeros((2, 3, 4)), "b": np.zeros(4)}
    x, y = RNG.standard_normal((6, 5, 3)), RNG.standard_normal((6, 4))
    report = parity.check(built, subject(run, back, arrays), x, y, modes=("eager",))
    assert (report.verdict, report.findings) == ("pass", ())

    def summed(x, y, K, b, outputs):
        return [6 * g for g in back(x, y, K, b, outputs)]

    report = parity.check(built, subject(run, summed, arrays), x, y, modes=("eager",))
    assert set(codes(report)) == {"loss-gradient-sum-for-mean"}


def test_a_mistake_above_a_layer_that_scratchnet_lacks_is_named():
    keras = pytest.importorskip("keras")
    built = keras.Sequential(
        [
            keras.Input((5, 3)),
            keras.layers.Conv1D(4, 2, activation="tanh", name="conv"),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(3, "sigmoid", name="dense"),
        ]
    )
    built.compile(loss="mse")

    def run(x, K, c, W, b):
        h = np.tanh(x[:, :-1] @ K[0] + x[:, 1:] @ K[1] + c)
        return 1 / (1 + np.exp(-(h.mean(axis=1) @ W + b))), {"h": h}

    def back(x, y, K, c, W, b, h, outputs, slope):
        dz = 2 * (outputs - y) / y.size * slope(outputs)
        dh = np.repeat((dz @ W.T)[:, None] / 4, 4, axis=1) * (1 - h**2)
        kernel = np.stack([np.einsum("nti,nto->io", x[:, i : i + 4], dh) for i in (0, 1)])
        return [kernel, dh.sum(axis=(0, 1)), h.mean(axis=1).T @ dz, dz.sum(axis=0)]

    arrays = {"K": np.zeros((2, 3, 4)), "c": np.zeros(4), "W": np.zeros((4, 3)), "b": np.zeros(3)}
    x, y = RNG.standard_normal((6, 5, 3)), RNG.standard_normal((6, 3))
    slopes = {"sigmoid-derivative-missing-factor": lambda a: a, "": lambda a: a * (1 - a)}
    for code, slope in slopes.items():

        def bound(x, y, K, c, W, b, h, outputs, slope=slope):
            return back(x, y, K, c, W, b, h, outputs, slope)

        report = parity.check(built, subject(run, bound, arrays), x, y, modes=("eager",))
        assert report.verdict == ("fail" if code else "pass")
        assert all(finding.cause and "sigmoid" in finding.cause.code for finding in report.findings)


# -- what an attempt to fool the judge found ---------------------------------------------------------------------------


def test_a_gradient_that_is_not_given_does_not_pass_unless_that_is_said(model):
    def partly(x, y, params, cache, outputs):
        return {"dW2": backward(x, y, params, cache, outputs)["dW2"]}

    report = check(model, subject(forward, partly, parameters()))
    assert report.verdict == "fail"
    assert set(codes(report)) == {"gradient-missing"}
    said = subject(forward, partly, parameters(), gradients={"W1": None, "b1": None, "b2": None})
    assert check(model, said).verdict == "pass"


def test_a_fixed_batch_size_is_the_finding(model):
    def fixed(x, y, params, cache, outputs):
        return {n: g * len(x) / len(X) for n, g in backward(x, y, params, cache, outputs).items()}

    assert codes(check(model, subject(forward, fixed, parameters()))) == ["batch-size-fixed"]


def test_a_loss_that_is_nan_is_blamed_on_no_mistake(model):
    brought = subject(forward, backward, parameters(), loss=lambda outputs, y: np.nan)
    assert codes(check(model, brought)) == ["not-finite"]


def test_an_error_of_the_size_of_rounding_gets_no_named_factor(model):
    def nearly(x, y, params, cache, outputs):
        noise = np.random.default_rng(5)
        return {n: g * (1 + 1e-10 * noise.standard_normal(g.shape))
                for n, g in backward(x, y, params, cache, outputs).items()}  # fmt: skip

    report = check(model, subject(forward, nearly, parameters()))
    assert report.verdict == "fail"
    assert not any("times TensorFlow's" in f.cause.text for f in report.findings if f.cause)


def test_a_tuple_of_all_that_was_computed(model):
    def everything(x, W1, b1, W2, b2):
        Z1 = x @ W1 + b1
        A1 = np.tanh(Z1)
        Z2 = A1 @ W2 + b2
        A2 = softmax(Z2)
        return Z1, A1, Z2, A2

    def back(x, y, A1, A2, W2):
        dz2 = (A2 - y) / len(x)
        dz1 = dz2 @ W2.T * (1 - A1**2)
        return x.T @ dz1, dz1.sum(axis=0), A1.T @ dz2, dz2.sum(axis=0)

    assert check(model, subject(everything, back, parameters())).verdict == "pass"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradients": {"W1": "nope"}}, "backward gives no such"),
        ({"tensors": {"a1": "nope/output"}}, "has no 'nope/output'"),
        ({"labels": "int"}, "labels: expected integers, one-hot"),
        ({"layout": lambda w: []}, "layout: expected a dict"),
    ],
)
def test_a_mapping_that_fits_nothing_is_refused(model, options, message):
    with pytest.raises(UsageError, match=message):
        check(model, subject(forward, backward, parameters(), **options))


def test_arrays_of_an_object_stay_the_same_arrays(model):
    net = Stateful()
    held = net.W1
    check(model, subject(net))
    assert net.W1 is held


def test_code_that_exits_is_no_verdict(model):
    def leaving(x, params):
        raise SystemExit(0)

    with pytest.raises(SubjectError, match="SystemExit"):
        check(model, subject(leaving, backward, parameters()))
