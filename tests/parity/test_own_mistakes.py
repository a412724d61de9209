"""Mistakes in somebody's own network, of which only outputs, loss and gradients by weights are seen: each is named.

Two kinds of networks have them: one that runs scratchnet with a mistake of the catalogue in it, in every layout, so
that every mistake has its turn; and one in plain NumPy, with mistakes written into its source, so that what plants and
what diagnoses have no code in common.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import pytest

import scratchnet
from parity import cases, compare, own, probe, subject, trace
from parity.diagnose import Cause, distances
from parity.mistakes import Mistake, catalogue
from parity.report import Check
from parity.runners import keras as reference
from parity.runners import scratch
from parity.runners.steps import Operation, Settle
from parity.spec import Spec
from parity.subjects import Subject
from parity.trace import Trace, Weights, flow
from parity.weights import layouts
from parity.weights.layouts import Arrays
from scratchnet.layers import Dense, Flatten

pytestmark = pytest.mark.tensorflow

BATCH = 7  # as many as one of the layers has units: some mistakes run only then
SAMPLED_SOURCES = 17
SAMPLED = 149  # every 149th combination in a normal run; a prime, so that all parts of the catalogue have their turn


# -- the catalogue, in every layout ------------------------------------------------------------------------------------


def _apart(kernel: Callable[[np.ndarray], np.ndarray]) -> Callable[[Weights], Arrays]:
    """W1, b1, W2, b2: every weight in an array of its own."""

    def arrange(weights: Weights) -> Arrays:
        layers = list(dict.fromkeys(name.rpartition("/")[0] for name in weights))
        made = {}
        for full, weight in weights.items():
            layer, _, name = full.rpartition("/")
            called = {"kernel": "W", "bias": "b"}.get(name, name)
            made[f"{called}{layers.index(layer) + 1}"] = kernel(weight) if name.endswith("kernel") else weight
        return made

    return arrange


def _folded(stack: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[Weights], Arrays]:
    """W1, W2: kernel and bias in one matrix."""

    def arrange(weights: Weights) -> Arrays:
        layers = dict.fromkeys(name.rpartition("/")[0] for name in weights)
        return {
            f"W{number}": stack(weights[f"{layer}/kernel"], weights[f"{layer}/bias"])
            for number, layer in enumerate(layers, 1)
        }

    return arrange


def _images(weights: Weights) -> Arrays:
    """The kernel of the first layer as one image for each unit."""
    arrays = _apart(lambda kernel: kernel)(weights)
    return {**arrays, "W1": arrays["W1"].T.reshape(-1, *IMAGE)}


IMAGE = (4, 3)
ARRANGED: dict[str, Callable[[Weights], Arrays]] = {
    "rows": _apart(lambda kernel: kernel),
    "columns": _apart(lambda kernel: kernel.T if kernel.ndim == 2 else kernel),
    "bias first row": _folded(lambda kernel, bias: np.vstack([bias, kernel])),
    "bias last row": _folded(lambda kernel, bias: np.vstack([kernel, bias])),
    "bias first column": _folded(lambda kernel, bias: np.vstack([bias, kernel]).T),
    "bias last column": _folded(lambda kernel, bias: np.vstack([kernel, bias]).T),
    "images": _images,
    "channels first": _apart(lambda kernel: kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel),
    "flat": lambda weights: {"theta": np.concatenate([weight.reshape(-1) for weight in weights.values()])},
}
"""Layout -> how it arranges Keras's weights, written here once more."""


@dataclass(frozen=True)
class Case:
    """A right network, its samples, and what Keras makes of them."""

    spec: Spec
    weights: Weights
    x: np.ndarray
    y: np.ndarray

    @classmethod
    def of(cls, spec: Spec) -> Case:
        spec = spec.with_dtype("float64")
        network = scratch.Network.of(spec)
        weights = {n: w.astype(np.float64) for n, w in probe.weights(network.weights, spec.seed).items()}
        x = probe.samples(network.input_shape, BATCH, spec.seed, network.indices)
        return cls(spec, weights, x, probe.labels(network.output_shape, BATCH, spec.seed, network.labels))

    @cached_property
    def keras(self) -> Trace:
        return reference.run(self.spec, self.weights, self.x, self.y)

    @cached_property
    def allowed(self) -> Mapping[str, float]:
        layers = scratch.Network.of(self.spec).layers
        return compare.gate(self.keras, list(flow(layers, self.spec.loss_name)))

    @cached_property
    def operations(self) -> list[Operation]:
        found: list[Operation] = []

        def collect(operation: Operation) -> Mapping[str, Any]:
            found.append(operation)
            return {}

        scratch.repeated(self.spec, self.weights, self.x, self.y)(collect)
        return found

    def fits(self, layout: str) -> bool:
        names = [name.rpartition("/")[2] for name in self.weights]
        if layout.startswith("bias"):
            dense = all(weight.ndim < 3 for weight in self.weights.values())
            return dense and names == ["kernel", "bias"] * (len(names) // 2)
        if layout == "images":
            return self.x.shape[1:] == IMAGE
        return layout != "channels first" or any(w.ndim == 4 for w in self.weights.values())

    def plants(self) -> Iterator[Plant]:
        """Every mistake that can be made here, at every place; a factor that is not rounded to float32 is none of
        somebody's own."""
        for mistake in (m for m in catalogue() if not m.equivalent and not m.code.endswith("-in-double")):
            for number, operation in enumerate(self.operations):
                if mistake.apply(operation) is not None:
                    yield Plant(self, mistake, (number,))

    def seen(self, settle: Settle) -> dict[str, np.ndarray]:
        """What somebody else's network shows: outputs, loss, gradients by weights."""
        return self.shown(scratch.run_with(self.spec, self.weights, self.x, self.y, settle))

    def shown(self, run: Trace) -> dict[str, np.ndarray]:
        ends = self.operations[0].context["layers"][-1].name
        named = (trace.output(ends), trace.LOSS, *(trace.gradient(name) for name in self.weights))
        return {name: np.asarray(run[name]) for name in named if name in run and name in self.keras}

    def same(self, some: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> bool:
        """Whether all that is seen is equal to rounding."""
        return all(
            distances.within(some[n], others[n], self.allowed[n] * distances.growth(others[n], self.keras[n]))
            for n in others
        )


@dataclass(frozen=True)
class Plant:
    """One mistake at some of the operations of a network."""

    case: Case
    mistake: Mistake
    at: tuple[int, ...]

    def settle(self) -> Settle:
        """For one run."""
        numbers = iter(range(len(self.case.operations) + len(self.case.weights)))

        def settle(operation: Operation) -> Mapping[str, Any]:
            return (self.mistake.apply(operation) or {}) if next(numbers) in self.at else {}

        return settle

    @cached_property
    def seen(self) -> dict[str, np.ndarray]:
        return self.case.seen(self.settle())

    @property
    def shows(self) -> bool:
        return not self.case.same(self.seen, self.case.shown(self.case.keras))

    def subject(self, layout: str) -> Subject:
        """Somebody's network in this layout, with the mistake."""
        case, arrange = self.case, ARRANGED[layout]
        arrays = arrange(case.weights)
        shapes = {name: weight.shape for name, weight in case.weights.items()}
        held = layouts.explicit(arrange, shapes, {name: array.shape for name, array in arrays.items()})
        columns = "column" in layout

        def run(x: np.ndarray, y: np.ndarray, params: Arrays) -> Trace:
            x = x.T.reshape(-1, *case.x.shape[1:]) if columns else x
            y = y.T if columns and y.ndim == 2 else y
            return scratch.run_with(case.spec, held.restore(params), x, y, self.settle())

        def forward(x: np.ndarray, y: np.ndarray, params: Arrays) -> np.ndarray:
            outputs = next(iter(case.shown(run(x, y, params)).values()))
            return outputs.T if columns and outputs.ndim == 2 else outputs

        def backward(x: np.ndarray, y: np.ndarray, params: Arrays) -> tuple[float, Arrays]:
            found = run(x, y, params)
            gradients = {
                name: found[trace.gradient(name)] if trace.gradient(name) in found else np.zeros(shapes[name])
                for name in shapes
            }
            return float(found[trace.LOSS]), arrange(gradients)

        return subject(forward, backward, arrays, layout=layout, samples="columns" if columns else "rows")

    def judged(self, layout: str) -> Check:
        case = self.case
        return own.judge(case.spec, case.weights, case.x, case.y, self.subject(layout), ("eager",), reference)

    def named(self, layout: str) -> str:
        """How the diagnosis does. own: it names the code that was planted; same: one that makes the same tensors;
        convention: it takes this for a choice, such as a loss that is a sum; other, none: another code, or none;
        missed: it says that all is right."""
        check = self.judged(layout)
        if check.passed:
            return "convention" if check.conventions else "missed"
        causes = {finding.cause for finding in check.findings}
        codes = {cause.code if cause else "" for cause in causes}
        if codes == {self.mistake.code}:
            return "own"
        if "" in codes:
            return "none"
        return "same" if len(codes) == 1 and any(map(self.as_good, causes)) else "other"

    def as_good(self, cause: Cause) -> bool:
        """Whether the mistake that is named makes all the tensors that are seen, where it is said to be."""
        there = tuple(n for n, operation in enumerate(self.case.operations) if operation.layer in cause.where)
        return any(
            self.case.same(Plant(self.case, mistake, at).seen, self.seen)
            for one in catalogue()
            if one.code == cause.code
            for mistake in one.variants
            for at in (there, *((number,) for number in range(len(self.case.operations))))
        )


def _cases() -> Iterator[Case]:
    for spec in cases.cases():
        yield Case.of(spec)
    stack = [Flatten(), Dense(5, "tanh"), Dense(3, "softmax")]
    chain = scratchnet.Sequential(stack, name="images")
    chain.build((None, *IMAGE))
    yield Case.of(Spec("images", chain.get_config(), "categorical_crossentropy"))


@pytest.fixture
def references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras runs each network once: a mistake in somebody else's changes nothing there."""
    run, computed = reference.run, {}

    def once(spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, mode: str = "eager") -> Trace:
        key = (repr(spec), x.tobytes(), np.asarray(y).tobytes(), *(w.tobytes() for w in weights.values()))
        if key not in computed:
            computed[key] = run(spec, weights, x, y, mode)
        return computed[key]

    monkeypatch.setattr(reference, "run", once)


Combination = tuple[Plant, str]  # and the layout


def by_turns(every: int = 1) -> Iterator[Combination]:
    """Every so many of the mistakes, at every place where they show, in all the layouts by turns."""
    for number, plant in enumerate(plant for case in _cases() for plant in case.plants()):
        if number % every == 0 and plant.shows:
            fitting = [layout for layout in ARRANGED if plant.case.fits(layout)]
            yield plant, fitting[number // every % len(fitting)]


def in_every_layout() -> Iterator[Combination]:
    """Every mistake in every layout, at the first place where it shows."""
    done = set()
    for case in _cases():
        for plant in case.plants():
            for layout in ARRANGED:
                key = plant.mistake.code, layout
                if key not in done and case.fits(layout) and plant.shows:
                    done.add(key)
                    yield plant, layout


@dataclass(frozen=True)
class Figures:
    """How many combinations have each outcome of `Plant.named`, and those that have a bad one."""

    said: Counter[str]
    bad: list[str]

    @classmethod
    def of(cls, combinations: Iterable[Combination]) -> Figures:
        said: Counter[str] = Counter()
        bad = []
        for plant, layout in combinations:
            outcome = plant.named(layout)
            said[outcome] += 1
            if outcome in ("other", "none", "missed"):
                bad.append(f"{outcome}: {plant.mistake.code} in {plant.case.spec.name}, {layout}")
        return cls(said, bad)

    @property
    def named(self) -> float:
        """The share, of all but conventions, that has the code that was planted, or one that nothing seen tells from
        it."""
        right = self.said["own"] + self.said["same"]
        return right / (right + len(self.bad))


def test_mistakes_of_the_catalogue_are_named(references: None) -> None:
    figures = Figures.of(by_turns(SAMPLED))
    assert sum(figures.said.values()) >= 20
    assert figures.said["missed"] == 0
    assert figures.named >= 0.95, figures.bad
    assert figures.said["own"] > 5 * figures.said["same"]


@pytest.mark.slow
@pytest.mark.parametrize("combinations", [by_turns, in_every_layout])
def test_all_mistakes_of_the_catalogue_are_named(
    references: None, combinations: Callable[[], Iterator[Combination]]
) -> None:
    """Some minutes; pytest -s shows the figures."""
    figures = Figures.of(combinations())
    print(
        f"\n{combinations.__name__}: {sum(figures.said.values())} combinations: {dict(figures.said)}",
        *figures.bad,
        sep="\n",
    )
    assert figures.said["missed"] == 0
    assert figures.named >= 0.95


# -- mistakes in the source of a network in plain NumPy ----------------------------------------------------------------

Array = np.ndarray
Array3 = list[np.ndarray]  # one for each layer
HIDDEN = ("tanh", "sigmoid", "relu")
LOSSES = {
    "softmax": "categorical_crossentropy",
    "linear": "mean_squared_error",
    "sigmoid": "binary_crossentropy",
}
"""Head -> its loss."""


@dataclass(frozen=True)
class Source:
    """A network of two hidden layers, 6 -> 5 -> 5 -> 3, in plain NumPy, in whose source a mistake can be switched on.

    wrong: the code that the catalogue has for it; "" for none. deltas: whether the gradients by z are shown as well, as
    those of the summed loss, beside what the forward pass keeps.
    """

    wrong: str
    hidden: str
    head: str
    deltas: bool = False

    def forward(self, x: Array, W: Array3, b: Array3) -> dict[str, Any]:
        """z and a of each layer, a[0] the samples."""
        z, a = [], [x]
        for i in range(3):
            bias = b[i]
            if i == 1 and self.wrong == "dense-bias-missing":
                bias = 0
            if i == 1 and self.wrong == "dense-bias-scalar":
                bias = b[i][0]
            kernel = W[i].T if i == 1 and self.wrong == "dense-kernel-transposed" else W[i]
            z.append(a[-1] @ kernel + bias)
            a.append(self.activation(z[-1]) if i < 2 else self.output(z[-1]))
        return {"z": z, "a": a}

    def activation(self, z: Array) -> Array:
        match self.wrong:
            case "tanh-is-sigmoid":
                return 1 / (1 + np.exp(-z))
            case "sigmoid-is-tanh":
                return np.tanh(z)
            case "tanh-of-half-argument":
                return (1 - np.exp(-z)) / (1 + np.exp(-z))
            case "tanh-scaled":
                return 1.7159 * np.tanh(2 * z / 3)
            case "sigmoid-exponent-not-negated":
                return 1 / (1 + np.exp(z))
            case "sigmoid-hard":
                return np.clip(z / 6 + 0.5, 0, 1)
            case "relu-leaks":
                return np.where(z > 0, z, 0.01 * z)
            case "relu-keeps-the-negative-part":
                return np.minimum(z, 0)
        return {"tanh": np.tanh(z), "sigmoid": 1 / (1 + np.exp(-z)), "relu": np.maximum(z, 0)}[self.hidden]

    def slope(self, z: Array, a: Array, da: Array) -> Array:
        match self.wrong:
            case "activation-derivative-missing":
                return np.ones_like(z)
            case "tanh-derivative-of-input":
                return 1 - z**2
            case "tanh-derivative-of-sigmoid":
                return a * (1 - a)
            case "tanh-derivative-not-squared":
                return 1 - a
            case "tanh-derivative-of-plus":
                return 1 + a**2
            case "tanh-value-for-derivative" | "sigmoid-derivative-without-complement" | "relu-value-for-derivative":
                return a
            case "sigmoid-derivative-of-input":
                return z * (1 - z)
            case "sigmoid-derivative-of-tanh":
                return 1 - a**2
            case "sigmoid-derivative-of-plus":
                return a * (1 + a)
            case "relu-mask-inverted":
                return (z <= 0).astype(float)
            case "relu-mask-of-gradient":
                return (da > 0).astype(float)
            case "activation-derivative-at-output":
                z = a
                a = self.activation(z)
        right = {"tanh": 1 - a**2, "sigmoid": a * (1 - a), "relu": (z > 0).astype(float)}[self.hidden]
        match self.wrong:
            case "activation-derivative-twice":
                return right**2
            case "activation-gradient-negated":
                return -right
        return right

    def output(self, z: Array) -> Array:
        e = np.exp(z - z.max(axis=1, keepdims=True))
        match self.wrong:
            case "softmax-not-normalized":
                return e
            case "softmax-over-the-batch":
                return np.exp(z) / np.exp(z).sum(axis=0)
            case "softmax-over-everything":
                return np.exp(z) / np.exp(z).sum()
            case "softmax-is-sigmoid":
                return 1 / (1 + np.exp(-z))
        return {"softmax": e / e.sum(axis=1, keepdims=True), "linear": z, "sigmoid": 1 / (1 + np.exp(-z))}[self.head]

    def loss(self, p: Array, y: Array) -> float:
        n = len(y)
        match self.wrong:
            case "mse-root":
                return np.sqrt(np.mean((p - y) ** 2))
            case "mse-square-of-mean":
                return np.mean(np.mean(p - y, axis=1) ** 2)
            case "cce-base-two":
                return -np.sum(y * np.log2(p)) / n
            case "cce-without-logarithm":
                return -np.sum(y * p) / n
            case "cce-of-binary-labels":
                return -np.sum(y * np.log(p) + (1 - y) * np.log(1 - p)) / n
            case "bce-without-negative-labels":
                return -np.mean(y * np.log(p))
            case "bce-base-two":
                return -np.mean(y * np.log2(p) + (1 - y) * np.log2(1 - p))
        with np.errstate(all="ignore"):
            right = {
                "softmax": -np.sum(y * np.log(p)) / n,
                "linear": np.mean((p - y) ** 2),
                "sigmoid": -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)),
            }[self.head]
        return -right if self.wrong == "loss-negated" else right

    def delta(self, p: Array, y: Array) -> Array:
        """The gradient by the last pre-activations."""
        n, k = y.shape
        right = {"softmax": (p - y) / n, "linear": 2 * (p - y) / k / n, "sigmoid": (p - y) / k / n}[self.head]
        match self.wrong:
            case "loss-gradient-sum-for-mean":
                return right * n
            case "loss-gradient-divided-twice":
                return right / n
            case "loss-gradient-divided-by-outputs-for-samples":
                return right * n / k
            case "loss-gradient-negated":
                return -right
            case "mse-gradient-without-two":
                return (p - y) / k / n
            case "mse-gradient-summed-over-outputs":
                return 2 * (p - y) / n
            case "mse-gradient-of-half-sum":
                return (p - y) / n
            case "mse-gradient-is-the-error":
                return p - y
            case "mse-gradient-squared":
                return (p - y) ** 2 / k / n
            case "cce-gradient-averaged-over-classes":
                return (p - y) / k / n
            case "cce-gradient-by-probabilities":
                return -y / p / n
            case "cce-gradient-softmax-diagonal-extra":
                return (p - y) * p * (1 - p) / n
            case "cce-gradient-softmax-jacobian-extra":
                return p * ((p - y) - np.sum(p * (p - y), axis=1, keepdims=True)) / n
            case "cce-gradient-labels-added":
                return (p + y) / n
            case "cce-gradient-diagonal-only":
                return -y * (1 - p) / n
            case "bce-gradient-summed-over-outputs":
                return (p - y) / n
            case "bce-gradient-sigmoid-derivative-extra":
                return (p - y) * p * (1 - p) / k / n
            case "bce-gradient-by-probabilities":
                return (p - y) / (p * (1 - p)) / k / n
        return right

    def backward(self, x: Array, y: Array, W: Array3, b: Array3) -> tuple[Array3, Array3, Array3, float]:
        """dW, db, dz of each layer, and the loss."""
        passed = self.forward(x, W, b)
        z, a = passed["z"], passed["a"]
        dW, db = [np.zeros_like(w) for w in W], [np.zeros_like(c) for c in b]
        dz = [*z[:2], self.delta(a[3], y)]
        for i in (2, 1, 0):
            dW[i], db[i] = self.gradients(i, z, a, dz[i])
            if i > 0:
                da = self.below(i, dz[i], W[i], dW[i])
                dz[i - 1] = da * self.slope(z[i - 1], a[i], da)
        return dW, db, dz, self.loss(a[3], y)

    def gradients(self, i: int, z: list[Array], a: list[Array], dz: Array) -> tuple[Array, Array]:
        dW, db = a[i].T @ dz, dz.sum(axis=0)
        match self.wrong if i == 1 else "":
            case "dense-kernel-gradient-transposed":
                dW = dz.T @ a[i]
            case "dense-kernel-gradient-of-pre-activation":
                dW = z[i - 1].T @ dz
            case "dense-kernel-gradient-of-output":
                dW = z[i].T @ dz
            case "dense-kernel-gradient-last-sample":
                dW = np.outer(a[i][-1], dz[-1])
            case "dense-bias-gradient-averaged":
                db = dz.mean(axis=0)
            case "dense-bias-gradient-scalar":
                db = np.full_like(db, dz.sum())
            case "dense-bias-gradient-last-sample":
                db = dz[-1]
            case "dense-bias-gradient-missing":
                db = np.zeros_like(db)
            case "layer-weight-gradients-averaged":
                dW, db = dW / len(dz), db / len(dz)
            case "layer-weight-gradients-negated":
                dW, db = -dW, -db
            case "layer-weight-gradients-accumulated":
                dW, db = 2 * dW, 2 * db
        return dW, db

    def below(self, i: int, dz: Array, W: Array, dW: Array) -> Array:
        match self.wrong if i == 1 else "":
            case "dense-input-gradient-not-transposed":
                return dz @ W
            case "dense-input-gradient-through-kernel-gradient":
                return dz @ dW.T
            case "dense-input-gradient-through-updated-kernel":
                return dz @ (W - 0.1 * dW).T
            case "layer-input-gradient-averaged":
                return dz @ W.T / len(dz)
        return dz @ W.T

    def subject(self, layout: str, case: Case) -> Subject:
        pack, unpack, columns = ARRANGED[layout], UNPACKED[layout], "column" in layout

        def turned(array: Array) -> Array:
            return array.T if columns else array

        def forward(x: Array, params: Arrays) -> Any:
            passed = self.forward(turned(x), *unpack(params))
            cache = {f"Z{i}": turned(z) for i, z in enumerate(passed["z"], 1)}
            cache |= {f"A{i}": turned(a) for i, a in enumerate(passed["a"]) if i > 0}
            return (turned(passed["a"][-1]), cache) if self.deltas else turned(passed["a"][-1])

        def backward(x: Array, y: Array, params: Arrays) -> tuple[float, Arrays]:
            dW, db, dz, loss = self.backward(turned(x), turned(y), *unpack(params))
            both = [gradient for pair in zip(dW, db, strict=True) for gradient in pair]
            deltas = {f"dZ{i}": turned(d * len(d)) for i, d in enumerate(dz, 1)} if self.deltas else {}
            return loss, {**pack(dict(zip(case.weights, both, strict=True))), **deltas}

        return subject(forward, backward, pack(case.weights), layout=layout, samples="columns" if columns else "rows")

    def seen(self, case: Case) -> dict[str, Array]:
        """All that it shows, by Keras's names."""
        weights = list(case.weights.values())
        W, b = weights[::2], weights[1::2]
        dW, db, _, loss = self.backward(case.x, case.y, W, b)
        both = [gradient for pair in zip(dW, db, strict=True) for gradient in pair]
        names = [trace.gradient(name) for name in case.weights]
        outputs = self.forward(case.x, W, b)["a"][-1]
        ends = trace.output(case.operations[0].context["layers"][-1].name)
        return {ends: outputs, trace.LOSS: np.asarray(loss), **dict(zip(names, both, strict=True))}

    @property
    def right(self) -> Case:
        return _right(self.hidden, self.head)

    @property
    def shows(self) -> bool:
        return not self.right.same(self.seen(self.right), replace(self, wrong="").seen(self.right))

    def named(self, layout: str) -> str:
        """How the diagnosis does, as in `Plant.named`."""
        case = self.right
        check = own.judge(case.spec, case.weights, case.x, case.y, self.subject(layout, case), ("eager",), reference)
        if check.passed:
            return "convention" if check.conventions else "missed"
        causes = {finding.cause for finding in check.findings}
        codes = {cause.code if cause else "" for cause in causes}
        if codes == {self.wrong}:
            return "own"
        if "" in codes:
            return "none"
        return "same" if len(codes) == 1 and self.wrong in next(iter(causes)).text else f"other, {', '.join(codes)}"


def _apart_again(turned: bool) -> Callable[[Arrays], tuple[list[Array], list[Array]]]:
    def unpack(p: Arrays) -> tuple[list[Array], list[Array]]:
        return [p[f"W{i}"].T if turned else p[f"W{i}"] for i in (1, 2, 3)], [p[f"b{i}"] for i in (1, 2, 3)]

    return unpack


UNPACKED: dict[str, Callable[[Arrays], tuple[list[Array], list[Array]]]] = {
    "rows": _apart_again(turned=False),
    "columns": _apart_again(turned=True),
    "bias first row": lambda p: ([w[1:] for w in p.values()], [w[0] for w in p.values()]),
    "bias last column": lambda p: ([w[:, :-1].T for w in p.values()], [w[:, -1] for w in p.values()]),
}


@cache
def _right(hidden: str, head: str) -> Case:
    stack = [Dense(5, hidden), Dense(5, hidden), Dense(3, head)]
    chain = scratchnet.Sequential(stack, name=f"{hidden}_{head}")
    chain.build((None, 6))
    return Case.of(Spec(f"{hidden}-{head}", chain.get_config(), LOSSES[head]))


def sources(deltas: bool = False) -> list[Source]:
    """Every mistake in the source, in every network that has what it is made in, and where it shows."""
    every = (
        Source(mistake.code, hidden, head, deltas)
        for mistake in catalogue()
        for hidden in HIDDEN
        for head, loss in LOSSES.items()
        if mistake.on in ("Dense", "layer", "activation", "loss", hidden, loss.title().replace("_", ""))
        or (mistake.on, head) == ("softmax", "softmax")
    )
    with np.errstate(all="ignore"):
        return [source for source in every if source.shows]


def test_the_source_without_a_mistake_is_right(references: None) -> None:
    for hidden, head, layout in itertools.product(HIDDEN, LOSSES, UNPACKED):
        source = Source("", hidden, head)
        assert source.named(layout) == "missed"  # nothing was found
        assert source.right.same(source.seen(source.right), source.right.shown(source.right.keras))


@pytest.mark.parametrize("deltas", [False, True])
def test_mistakes_in_the_source_are_named(references: None, deltas: bool) -> None:
    chosen = sources(deltas)[deltas::SAMPLED_SOURCES]
    assert_named((source, list(UNPACKED)[number % len(UNPACKED)]) for number, source in enumerate(chosen))


@pytest.mark.slow
@pytest.mark.parametrize("deltas", [False, True])
def test_all_mistakes_in_the_source_are_named_in_every_layout(references: None, deltas: bool) -> None:
    assert len({source.wrong for source in sources()}) >= 60
    assert_named(itertools.product(sources(deltas), UNPACKED))


def assert_named(combinations: Iterable[tuple[Source, str]]) -> None:
    said: Counter[str] = Counter()
    bad = []
    for source, layout in combinations:
        with np.errstate(all="ignore"):
            outcome = source.named(layout)
        said[outcome.partition(",")[0]] += 1
        if outcome not in ("own", "same", "convention"):
            bad.append(f"{source} {layout}: {outcome}")
    print(f"\n{sum(said.values())} combinations in the source: {dict(said)}", *bad, sep="\n")
    right = said["own"] + said["same"]
    assert said["missed"] == 0
    assert right >= 0.95 * (right + len(bad)), bad
