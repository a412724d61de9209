"""The causes of wrong tensors: mistakes planted one at a time, in pairs, or into scratchnet's own code are named."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import scratchnet
from parity import cases, compare, oracle, probe, score
from parity.diagnose import Cause, Finding, diagnose
from parity.mistakes import Mistake, catalogue
from parity.runners import scratch
from parity.runners.steps import Operation
from parity.spec import DTYPES, Spec
from parity.trace import Place, Trace, Weights, flow
from scratchnet import activations, losses, regularizers
from scratchnet.layers import Dense

WIDTHS, BATCH = score.SIZES["small"]
SAMPLED = 47  # every 47th planted mistake; a prime, so that all parts of the catalogue have their turn
KERNEL, BIAS = "first/kernel.gradient", "first/bias.gradient"


@dataclass(frozen=True)
class Trial:
    """A right network as the reference, which wrong ones are compared with."""

    spec: Spec
    weights: Weights
    x: np.ndarray
    y: np.ndarray
    places: list[Place]
    reference: Trace
    allowed: Mapping[str, Any]

    @classmethod
    def of(cls, spec: Spec, batch: int = BATCH) -> "Trial":
        network = scratch.Network.of(spec)
        weights = {n: w.astype(spec.dtype) for n, w in probe.weights(network.weights, spec.seed).items()}
        x = probe.samples(network.input_shape, batch, spec.seed, network.indices)
        x = x if network.indices else x.astype(spec.dtype)
        y = probe.labels(network.output_shape, batch, spec.seed, network.labels)
        places = list(flow(network.layers, spec.loss_name, spec.optimizer_name))
        reference = scratch.run(spec, weights, x, y)
        if spec.dtype == "float64":
            return cls(spec, weights, x, y, places, reference, compare.gate(reference, places))
        bounds = oracle.bounds(spec, weights, reference, y)
        return cls(spec, weights, x, y, places, reference, {name: 2 * bound for name, bound in bounds.items()})

    @property
    def local(self) -> bool:
        return self.spec.dtype == "float32"

    def operations(self) -> list[Operation]:
        found: list[Operation] = []

        def collect(operation: Operation) -> Mapping[str, Any]:
            found.append(operation)
            return {}

        scratch.replay(self.spec, self.weights, self.reference, self.y, settle=collect)
        return found

    def wrong(self, settle: Callable[[Operation], Mapping[str, Any]] = lambda operation: {}) -> dict[str, np.ndarray]:
        """The tensors that are out of budget when `settle` has its way."""
        if self.local:
            subject = Trace(scratch.replay(self.spec, self.weights, self.reference, self.y, settle=settle))
        else:
            subject = scratch.run_with(self.spec, self.weights, self.x, self.y, settle)
        shared = (p for p in self.places if p.tensor in subject and p.tensor in self.reference)
        rows = [compare.judge(p, subject[p.tensor], self.reference[p.tensor], self.allowed[p.tensor]) for p in shared]
        return {row.tensor: np.asarray(subject[row.tensor]) for row in rows if not row.passed}

    def findings(self, settle: Callable[[Operation], Mapping[str, Any]] = lambda operation: {}) -> list[Finding]:
        return self.explain(self.wrong(settle))

    def explain(self, wrong: Mapping[str, np.ndarray]) -> list[Finding]:
        return diagnose(self.operations(), self.reference, wrong, self.allowed, len(self.x), local=self.local)

    def changed(self, tensor: str, change: Callable[[np.ndarray], Any]) -> Finding:
        """What is said of one tensor that is changed like this."""
        wrong = np.asarray(change(self.reference[tensor].copy())).astype(self.spec.dtype)
        [finding] = self.explain({tensor: wrong})
        return finding


def network(loss: Any = "mean_squared_error", head: str = "tanh", dtype: str = "float32", **first: Any) -> Spec:
    stack = [Dense(6, **{"activation": "tanh", "name": "first", **first}), Dense(3, head, name="last")]
    chain = scratchnet.Sequential(stack, name="network")
    chain.build((None, 6))
    return Spec("network", chain.get_config(), loss, optimizer="sgd").with_dtype(dtype)


def cause(finding: Finding) -> Cause:
    assert finding.cause is not None, f"{finding.tensor}: {finding.residual}"
    assert finding.residual == ""
    return finding.cause


@pytest.fixture(scope="module")
def trial() -> Trial:
    return Trial.of(network(), batch=7)


# -- the catalogue -----------------------------------------------------------------------------------------------------


def planted(every: int) -> Iterator[tuple[Trial, Mistake, list[Finding]]]:
    """Every so many of the mistakes that can be planted into the small cases, each alone, with what is found."""
    count = 0
    for dtype in DTYPES:
        for spec in cases.cases(0, WIDTHS):
            trial = Trial.of(spec.with_dtype(dtype))
            for index, operation in enumerate(trial.operations()):
                for mistake in catalogue():
                    outputs = None if mistake.equivalent else mistake.apply(operation)
                    if outputs is None:
                        continue
                    count += 1
                    if count % every:
                        continue
                    numbers = iter(range(index + 1))
                    yield trial, mistake, trial.findings(lambda op: outputs if next(numbers, None) == index else {})  # noqa: B023


def assert_named(every: int) -> None:
    """A mistake that makes the same tensor is as good a name; its own is asked for by far the most often."""
    said: Counter[str] = Counter()
    unnamed = []
    for trial, mistake, findings in planted(every):
        if not findings:
            continue  # within budget: what other networks show
        found = findings[0].cause
        own = found is not None and found.code == mistake.code
        said["own" if own else "other" if found else "none"] += 1
        if found is None:
            unnamed.append((mistake.code, trial.spec.name, trial.spec.dtype, findings[0].residual))
    total = said.total()
    assert total > 16000 / every * 0.9
    assert said["none"] <= 0.001 * total, unnamed
    assert said["own"] >= 0.97 * total, said


def test_a_planted_mistake_is_named() -> None:
    assert_named(SAMPLED)


@pytest.mark.slow
def test_every_planted_mistake_is_named() -> None:
    assert_named(1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["loss-Huber", "layer-BatchNormalization", "layer-Conv2D"])
def test_right_code_has_no_findings(name: str, dtype: str) -> None:
    for spec in cases.find(name):
        assert Trial.of(spec.with_dtype(dtype)).findings() == []


# -- scratchnet itself is wrong: no right operation can be asked -------------------------------------------------------

BROKEN: dict[str, tuple[Spec, type, str, Callable[..., Any], str, str]] = {
    "derivative missing": (
        network(),
        activations.Tanh,
        "backward",
        lambda right, self, x, y, dy: dy,
        "last/pre_activation.gradient",
        "activation-derivative-missing",
    ),
    "derivative of the input": (
        network(),
        activations.Tanh,
        "backward",
        lambda right, self, x, y, dy: dy * (1 - x * x),
        "last/pre_activation.gradient",
        "tanh-derivative-of-input",
    ),
    "sign of a derivative": (
        network(),
        activations.Tanh,
        "backward",
        lambda right, *args: -right(*args),
        "last/pre_activation.gradient",
        "activation-gradient-negated",
    ),
    "loss negated": (
        network(kernel_regularizer="l2"),
        losses.MeanSquaredError,
        "forward",
        lambda right, *args: -right(*args),
        "loss",
        "loss-negated",
    ),
    "loss gradient not divided": (
        network(),
        losses.MeanSquaredError,
        "backward",
        lambda right, *args: right(*args) * BATCH,
        "last/output.gradient",
        "loss-gradient-sum-for-mean",
    ),
    "half a penalty": (
        network(kernel_regularizer="l2"),
        regularizers.L2,
        "forward",
        lambda right, *args: right(*args) / 2,
        "loss",
        "l2-penalty-halved",
    ),
    "a penalty's gradient negated": (
        network(kernel_regularizer="l2"),
        regularizers.L2,
        "backward",
        lambda right, *args: -right(*args),
        KERNEL,
        "regularizer-gradient-negated",
    ),
    "bias forgotten": (
        network(),
        Dense,
        "transform",
        lambda right, self, x, training: (x @ self.weights["kernel"], None, {}),
        "first/pre_activation",
        "dense-bias-missing",
    ),
    "a gradient transposed in front of its penalty": (
        network(kernel_regularizer="l2"),
        Dense,
        "transform_backward",
        lambda right, self, saved, dz: transposed(*right(self, saved, dz)),
        KERNEL,
        "dense-kernel-gradient-transposed",
    ),
}


def transposed(dx: Any, gradients: Mapping[str, Any]) -> Any:
    kernel = gradients["kernel"]
    return dx, {**gradients, "kernel": kernel.T if kernel.shape[0] == kernel.shape[1] else kernel}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("what", BROKEN)
def test_a_mistake_in_the_code_itself(what: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, cls, method, wrong, tensor, code = BROKEN[what]
    trial = Trial.of(spec.with_dtype(dtype))
    right = getattr(cls, method)
    monkeypatch.setattr(cls, method, lambda *args: wrong(right, *args))
    first = trial.findings()[0]
    assert first.tensor == tensor
    assert cause(first).code == code
    assert cause(first).explains > 0.99


def test_code_that_is_wrong_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """`f'` at the activation is made by calling the code: here that would repeat the unknown error, and be named."""
    trial = Trial.of(network())
    rng = np.random.default_rng(5)
    noise = {n: rng.standard_normal((BATCH, n)).astype("float32") for n in (3, 6)}
    monkeypatch.setattr(activations.Tanh, "backward", lambda self, x, y, dy: noise[dy.shape[1]])
    first = trial.findings()[0]
    assert (first.tensor, first.cause) == ("last/pre_activation.gradient", None)
    assert first.residual.startswith("no pattern")


# -- what is said ------------------------------------------------------------------------------------------------------


def test_a_finding_has_its_place_and_both_formulas(trial: Trial) -> None:
    finding = trial.findings(lambda op: {"bias": op.outputs["bias"] / 7} if is_backward(op, "first") else {})[0]
    assert (finding.tensor, finding.place) == (BIAS, "Dense first backward")
    assert finding.budgets > 100
    found = cause(finding)
    assert found.code == "dense-bias-gradient-averaged"
    assert found.text.startswith(f"{BIAS} is 0.1429 times TensorFlow's and your batch is 7: sum the gradient")
    assert (found.right, found.wrong) == ("db = sum of dz over the batch", "db = mean of dz over the batch")
    assert 0.99 < found.explains <= 1


def is_backward(operation: Operation, layer: str) -> bool:
    return (operation.family, operation.direction, operation.layer) == ("layer", "backward", layer)


def test_a_mistake_in_all_gradients_rather_than_one_in_each(trial: Trial) -> None:
    def averaged(op: Operation) -> Mapping[str, Any]:
        return {n: g / 7 for n, g in op.outputs.items() if n != "dx"} if is_backward(op, "first") else {}

    findings = trial.findings(averaged)
    assert [f.tensor for f in findings] == [KERNEL, BIAS]
    assert [cause(f).code for f in findings] == 2 * ["layer-weight-gradients-averaged"]


def test_two_mistakes_in_two_tensors_of_one_operation(trial: Trial) -> None:
    def wrong(op: Operation) -> Mapping[str, Any]:
        return {"kernel": op.outputs["kernel"].T, "bias": 0 * op.outputs["bias"]} if is_backward(op, "first") else {}

    codes = [cause(f).code for f in trial.findings(wrong)]
    assert codes == ["dense-kernel-gradient-transposed", "dense-bias-gradient-missing"]


def test_mistakes_in_two_operations(trial: Trial) -> None:
    """On the reference's tensors each is explained; of a whole run only what is made of right tensors."""

    def wrong(op: Operation) -> Mapping[str, Any]:
        if is_backward(op, "last"):
            return {"dx": -op.outputs["dx"]}
        return {"bias": 0 * op.outputs["bias"]} if is_backward(op, "first") else {}

    assert [cause(f).code for f in trial.findings(wrong)] == ["factor-minus-one", "dense-bias-gradient-missing"]
    whole = Trial.of(network(dtype="float64")).findings(wrong)
    assert cause(whole[0]).code == "factor-minus-one"
    assert whole[1].tensor == "first/pre_activation.gradient"
    assert all(f.cause is None and "which is wrong itself" in f.residual for f in whole[1:])


PAIRS = [
    ("tanh-derivative-of-input", "activation-gradient-negated", "last/pre_activation.gradient"),
    ("mse-gradient-squared", "loss-gradient-sum-for-mean", "last/output.gradient"),
    ("dense-kernel-gradient-last-sample", "dense-kernel-gradient-transposed", KERNEL),
    ("dense-bias-gradient-last-sample", "layer-weight-gradients-negated", BIAS),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("first", "second", "tensor"), PAIRS)
def test_two_mistakes_in_one_tensor(first: str, second: str, tensor: str, dtype: str) -> None:
    by_code = {m.code: m for m in catalogue()}
    trial = Trial.of(network(dtype=dtype), batch=7)

    def both(op: Operation) -> Mapping[str, Any]:
        if tensor not in op.tensors.values():
            return {}
        once = by_code[first].apply(op) or {}
        changed = Operation(op.entry, op.direction, op.layer, op.inputs, {**op.outputs, **once}, op.tensors,
                            op.terms, op.training, op.context)  # fmt: skip
        return {**once, **(by_code[second].apply(changed) or {})}

    found = cause(next(f for f in trial.findings(both) if f.tensor == tensor))
    assert set(found.code.split("+")) == {first, second}
    assert found.text.startswith("two mistakes: ")
    assert found.explains > 0.99


# -- transforms --------------------------------------------------------------------------------------------------------

FACTORS = {
    7: ("factor-batch", "is 7 times TensorFlow's and your batch is 7: divide by the batch size"),
    1 / 7: ("factor-one-per-batch", "is 0.1429 times TensorFlow's and your batch is 7: multiply by the batch size"),
    -1: ("factor-minus-one", "is -1 times TensorFlow's: change the sign"),
    2: ("factor-two", "is 2 times TensorFlow's: divide by 2"),
    1 / 2: ("factor-one-per-two", "is 0.5 times TensorFlow's: multiply by 2"),
    3: ("factor-outputs", "there are 3 outputs: divide by the number of outputs"),
    -7 / 3: ("factor-minus-batch-per-outputs", "divide by the batch size and multiply by the number of outputs and"),
    1.7: ("factor", "is 1.7 times TensorFlow's: look for a factor that is missing or one too many"),
    0: ("zeros", "is all zeros"),
}


@pytest.mark.parametrize("factor", FACTORS)
def test_a_constant_factor(factor: float, trial: Trial) -> None:
    code, text = FACTORS[factor]
    found = cause(trial.changed("last/pre_activation", lambda z: z * factor))
    assert found.code == code
    assert text in found.text


def test_two_sizes_that_are_equal_are_both_named() -> None:
    finding = Trial.of(network(), batch=3).changed("first/pre_activation", lambda z: z * 3)
    assert "your batch is 3, as many as there are outputs: divide by the batch size" in cause(finding).text


def test_of_one_number_everything_is_a_multiple(trial: Trial) -> None:
    assert trial.changed("loss", lambda loss: loss * 1.7).cause is None
    assert trial.changed("loss", lambda loss: loss * 1.7).residual == "constant factor 1.7"


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("transposed", lambda a: a.T),
        ("reversed", lambda a: a[::-1]),
        ("reversed", lambda a: a[::-1, ::-1]),
        ("shifted", lambda a: np.roll(a, 1, axis=1)),
        ("shifted-zeros", lambda a: np.vstack([a[1:], 0 * a[:1]])),
        ("permuted", lambda a: a[:, [2, 0, 1, 4, 3, 5]]),
        ("permuted", lambda a: a[[2, 0, 1, 4, 3, 5]]),
        ("reordered", lambda a: np.sort(a, axis=None).reshape(a.shape)),
    ],
)
def test_the_right_numbers_in_other_places(code: str, change: Callable[[np.ndarray], np.ndarray], trial: Trial) -> None:
    """A kernel after the update is a square matrix here, and no mistake of the catalogue moves its elements."""
    found = cause(trial.changed("first/kernel.updated", change))
    assert found.code == code
    assert found.explains > 0.99


def test_a_reshape_is_no_transposition(trial: Trial) -> None:
    assert cause(trial.changed("last/kernel.updated", lambda a: a.T.reshape(a.shape))).code == "reshaped"


@pytest.mark.parametrize(
    ("tensor", "change", "code"),
    [
        ("last/kernel.gradient", lambda a: a.T, "transposed"),
        (BIAS, lambda a: a[np.newaxis], "shape"),
        (BIAS, np.sum, "summed"),
        (BIAS, lambda a: np.outer([0.25, 0.5, 0.25], a), "not-summed"),
    ],
)
def test_a_tensor_of_another_shape(
    tensor: str, change: Callable[[np.ndarray], np.ndarray], code: str, trial: Trial
) -> None:
    finding = trial.changed(tensor, change)
    assert (cause(finding).code, finding.budgets) == (code, np.inf)
    assert str(trial.reference[tensor].shape) in cause(finding).text


# -- what errors without a cause look like -----------------------------------------------------------------------------


def plus(where: Any, by: Any = 1.0) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[where] += by
        return array

    return change


U, V = np.arange(1.0, 7), np.array([2.0, -1, 3, 5, 4, 7])


@pytest.mark.parametrize(
    ("tensor", "change", "residual"),
    [
        (KERNEL, plus((3, 1)), "one element (3, 1)"),
        (KERNEL, plus(3), "one row (3)"),
        (KERNEL, plus((slice(None), 2)), "one column (2)"),
        ("first/output.gradient", plus(4), "one sample (4)"),
        (KERNEL, plus(...), "constant 1 on top"),
        (KERNEL, plus(..., V), "constant in each column"),
        (KERNEL, plus(..., V[:, np.newaxis]), "constant in each row"),
        (KERNEL, lambda a: a * V, "a constant factor in each column"),
        (KERNEL, lambda a: a * V[:, np.newaxis], "a constant factor in each row"),
        (KERNEL, plus(..., np.outer(U, V)), "rank one"),
        (KERNEL, lambda a: a * (np.eye(6) == 0), "zero in 6 of 36 elements"),
        (KERNEL, lambda a: a * np.where(np.eye(6) == 0, 1, np.nan), "not finite in 6 of 36 elements"),
        (KERNEL, plus(..., np.outer(U, V) ** 2 + np.outer(V, U)), "no pattern, 36 of 36 elements"),
        (KERNEL, lambda a: a[:4], "shape (4, 6) where TensorFlow has (6, 6)"),
    ],
)
def test_an_error_without_a_cause(
    tensor: str, change: Callable[[np.ndarray], np.ndarray], residual: str, trial: Trial
) -> None:
    finding = trial.changed(tensor, change)
    assert finding.cause is None, finding.cause
    assert finding.residual == residual


def test_nothing_wrong_is_no_finding(trial: Trial) -> None:
    assert trial.explain({}) == []
