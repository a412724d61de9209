"""Random networks: valid Sequentials over the registry, judged against Keras; the smallest one that fails, as code.

Whatever is registered is drawn: layers, activations, regularizers, losses and optimizers, from their `examples` and
with their sizes and switches varied. A layer that does not fit where it falls is left out.
"""

from __future__ import annotations

import contextlib
import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

import scratchnet
from parity import pipeline, power, probe
from parity.budget import Bounded
from parity.compare import Row
from parity.errors import NothingConcluded, UsageError
from parity.report import Check, share
from parity.runners import keras, scratch
from parity.spec import DTYPES, Spec
from parity.trace import Trace, Weights, flow
from scratchnet import losses, registry

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = [
    "Case",
    "Failure",
    "Fuzz",
    "Made",
    "contradicts_itself",
    "examine",
    "networks",
    "reproduce",
    "run",
    "weights",
]

DEPTH = 5  # layers between the first one and the head
CELLS = 256  # of one input: up to 256 features, or images of 6 x 6 x 6
WIDER = 8  # sizes are drawn up to so many times that of the example
BATCH = 40
SCALES = (1.0, 0.01, 0.1, 4.0, 30.0)
"""Of weights and inputs: from gradients that hardly arrive to units that are all saturated."""
STEPS, GENTLE = 8, SCALES[:-1]
"""Of a recurrence, and of the weights where there is one: each step multiplies with them once more, and 26 steps of 30
are beyond float32. What becomes of an overflow in the steps behind it depends on the order of the operations."""
EAGER_AND_FUNCTION = ("eager",) * 48 + ("function",)
MODES = (*EAGER_AND_FUNCTION, "xla")
"""Tracing and compiling a network costs 10 to 50 times its eager run."""
PROBES = ("normal", "halves")
"""Standard normal samples; the same rounded to multiples of 1/2, which brings zeros and ties."""


@dataclass(frozen=True)
class Made:
    """A registered entry and its arguments, so that both libraries can make it and code can be written of it."""

    family: str
    name: str
    arguments: Mapping[str, Any]

    def build(self) -> Any:
        """scratchnet's object."""
        built = {name: value.build() if isinstance(value, Made) else value for name, value in self.arguments.items()}
        return registry.find(self.family, self.name)(**built)

    def code(self, library: str) -> str:
        """The expression that makes it; the same words in Keras and in scratchnet."""
        words = (f"{n}={v.code(library) if isinstance(v, Made) else repr(v)}" for n, v in self.arguments.items())
        module = f"{self.family}{'es' if self.family.endswith('s') else 's'}"
        return f"{library}.{module}.{self.name}({', '.join(words)})"


@dataclass(frozen=True)
class Case:
    """One random network, and all that a comparison of it needs. input_shape: of one sample; mode: of the reference."""

    layers: tuple[Made, ...]
    input_shape: tuple[int, ...]
    loss: Made
    optimizer: Made
    dtype: str
    batch: int
    seed: int
    weight_scale: float
    input_scale: float
    probe: str
    mode: str

    @property
    def spec(self) -> Spec:
        """The network as plain data, in float32; `examine` compares it in `dtype`."""
        chain = scratchnet.Sequential([layer.build() for layer in self.layers], name="fuzz")
        chain.build((None, *self.input_shape))
        loss, optimizer = (registry.serialize(made.build()) for made in (self.loss, self.optimizer))
        return Spec("fuzz", chain.get_config(), loss, optimizer=optimizer, seed=self.seed)


@dataclass(frozen=True)
class Failure:
    """A network that both sides do not compute alike. reason: the first wrong tensor, or what was raised."""

    case: Case
    reason: str

    @property
    def code(self) -> str:
        """A script that shows the failure."""
        return reproduce(self.case)


@dataclass(frozen=True)
class Fuzz:
    """What became of a run.

    cases: networks checked, up to the first that failed; powerless: how many of them could not have failed, such as
    saturated ones whose gradients are all zero; odd: those in which the reference `contradicts_itself`, which is no
    failure; failure: the smallest network that fails; elapsed: in seconds.
    """

    cases: int
    powerless: int
    odd: tuple[Case, ...]
    failure: Failure | None
    elapsed: float

    @property
    def passed(self) -> bool:
        return self.failure is None and self.powerless < self.cases

    @property
    def exit_status(self) -> int:
        """0 for all alike, 1 for a failure, 3 where nothing can be concluded."""
        return 0 if self.passed else 1 if self.failure else 3


def run(cases: int = 100, seed: int = 0, progress: Callable[[str], None] = lambda message: None) -> Fuzz:
    """Check so many random networks, up to the first that fails; that one is then made as small as possible.

    progress: called with how far it is and how long it will take. Raises UsageError, and NothingConcluded where
    Hypothesis or TensorFlow is not installed.
    """
    if cases < 1:
        raise UsageError(f"cases: expected at least 1 network; received {cases}")
    hypothesis = _hypothesis()
    trial = _Trial(cases, progress)
    settings = hypothesis.settings(
        max_examples=cases,
        database=None,  # nothing is remembered from run to run: the seed decides
        derandomize=False,
        deadline=None,  # the first network loads TensorFlow
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
    )
    # A network that fails once and passes the next time (Flaky) has still failed: the last one seen is reported.
    with contextlib.suppress(hypothesis.errors.NoSuchExample, hypothesis.errors.Flaky):
        hypothesis.find(networks(), trial.fails, settings=settings, random=random.Random(seed))
    return Fuzz(trial.checked, trial.powerless, tuple(trial.odd), trial.failure, time.monotonic() - trial.started)


@dataclass
class _Trial:
    """The predicate that Hypothesis searches with, and what it has seen."""

    cases: int
    progress: Callable[[str], None]
    checked: int = 0
    powerless: int = 0
    odd: list[Case] = field(default_factory=list)
    smaller: int = 0
    failure: Failure | None = None
    started: float = field(default_factory=time.monotonic)

    def fails(self, case: Case) -> bool:
        failure = self._judge(case)
        if self.failure is None:
            self.checked += 1
            left = (time.monotonic() - self.started) / self.checked * (self.cases - self.checked)
            self.progress(f"{self.checked} of {self.cases} networks, {left:.0f} s left")
        else:
            self.smaller += 1
            self.progress(f"one fails; looking for a smaller one, {self.smaller} tried")
        self.failure = failure or self.failure
        return failure is not None

    def _judge(self, case: Case) -> Failure | None:
        try:
            check = examine(case)
        except NothingConcluded:  # TensorFlow is not there
            raise
        except Exception as error:  # whatever one of the two libraries cannot do is a finding, not the end of the run
            return Failure(case, f"{type(error).__name__}: {error}")
        self.powerless += bool(check.powerless) and self.failure is None
        row = check.first_wrong
        if row is None:
            return None
        if contradicts_itself(case):
            self.odd.append(case)
            return None
        return Failure(
            case, f"{row.tensor}, computed by {row.computed_by}: {share(row.budgets)} times the allowed difference"
        )


def examine(case: Case) -> Check:
    """One network against Keras, judged as `parity.check` does; without the search for a cause."""
    compared = _Compared.of(case)
    rows, reference = compared.rows, compared.reference
    spec = compared.spec
    return Check(spec.name, spec.loss_name, spec.dtype, (case.mode,), rows, {}, power.powerless(rows, reference))


def contradicts_itself(case: Case) -> bool:
    """Whether a float32 network fails because the reference is wrong, and scratchnet right.

    So it is where both sides agree in float64, and wherever they do not in float32, scratchnet is within the rounding
    bound of the exact result and the reference is not. TensorFlow 2.21 with oneDNN on a CPU is wrong, and reads memory
    that was never set, in convolutions of a single channel to a single column: batch 2, image 2 x 3, kernel 1 x 2,
    strides (1, 2).
    """
    if case.dtype == "float64" or not examine(replace(case, dtype="float64")).passed:
        return False
    return _Compared.of(case).only_reference_is_wrong()


@dataclass(frozen=True)
class _Compared:
    """A case after both sides have run."""

    spec: Spec
    weights: Weights
    y: np.ndarray
    reference: Trace
    rows: tuple[Row, ...]

    @classmethod
    def of(cls, case: Case) -> _Compared:
        spec = case.spec.with_dtype(case.dtype)
        network = scratch.Network.of(spec)
        drawn = weights(list(network.weights.values()), case.seed, case.weight_scale)
        named = {name: array.astype(case.dtype) for name, array in zip(network.weights, drawn, strict=True)}
        x, y = _inputs(case, network), probe.labels(network.output_shape, case.batch, case.seed, network.labels)
        places = list(flow(network.layers, spec.loss_name, spec.optimizer_name))
        judge = pipeline.judge_whole if case.dtype == "float64" else pipeline.judge_local
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter(
                "ignore"
            )  # odd networks, such as a softmax of one class, and overflow are wanted here
            reference = keras.run(spec, named, x, y, case.mode)
            rows = judge(spec, named, x, y, reference, places)
        return cls(spec, named, y, reference, tuple(rows))

    def only_reference_is_wrong(self) -> bool:
        with np.errstate(all="ignore"):
            subject = scratch.replay(self.spec, self.weights, self.reference, self.y)
            exact = scratch.replay(self.spec, self.weights, self.reference, self.y, Bounded)
            wrong = [row.tensor for row in self.rows if not row.passed]
            return bool(wrong) and all(
                np.all(np.abs(subject[name] - exact[name].value) <= exact[name].bound())
                and not np.all(np.abs(self.reference[name] - exact[name].value) <= exact[name].bound())
                for name in wrong
            )


def weights(initial: Sequence[np.ndarray], seed: int, scale: float) -> list[np.ndarray]:
    """Random float32 weights in the shapes of the initial ones, `scale` times a usual size.

    Vectors that start constant (a bias, a gamma, a moving variance) are moved off it, as far as no sign changes where
    they start at 1; all others are normal, divided by the root of the number of inputs.
    """
    rng = np.random.default_rng([seed, 0])
    drawn = []
    for array in initial:
        if array.ndim == 1 and np.ptp(array) == 0:
            new = array + rng.uniform(-probe.BIAS, probe.BIAS, array.shape)
        else:
            new = rng.standard_normal(array.shape) * (array.shape[-1] / array.size) ** 0.5
        drawn.append((scale * new).astype(np.float32))
    return drawn


def _inputs(case: Case, network: scratch.Network) -> np.ndarray:
    x = probe.samples(network.input_shape, case.batch, case.seed, network.indices)
    if network.indices is not None:
        return x
    x = np.round(2 * x) / 2 if case.probe == "halves" else x
    return (case.input_scale * x).astype(np.float32)


# -- the code that reproduces a case -----------------------------------------------------------------------------------


def reproduce(case: Case) -> str:
    """A script that builds this network in Keras and in scratchnet and compares them."""
    network = scratch.Network.of(case.spec)
    indices = "" if network.indices is None else f", indices={network.indices}"
    samples = f"probe.samples({case.input_shape}, batch={case.batch}, seed={case.seed}{indices})"
    if network.indices is None:
        samples = f"np.round(2 * {samples}) / 2" if case.probe == "halves" else samples
        samples = f"({case.input_scale} * {samples}).astype(np.float32)"
    numpy = ["import numpy as np"] if "np." in samples else []
    return "\n".join(
        [
            "import keras",
            *numpy,
            "",
            "import parity",
            "import scratchnet",
            "from parity import fuzz, probe",
            "",
            "",
            "def layers(library):  # Keras and scratchnet have the same words",
            "    return [",
            *(f"        {layer.code('library')}," for layer in case.layers),
            "    ]",
            "",
            "",
            f"model = keras.Sequential([keras.Input({case.input_shape}), *layers(keras)])",
            f"model.compile(optimizer={case.optimizer.code('keras')}, loss={case.loss.code('keras')})",
            "network = scratchnet.Sequential(layers(scratchnet))",
            f"network.build({(None, *case.input_shape)})",
            f"network.set_weights(fuzz.weights(network.get_weights(), seed={case.seed}, scale={case.weight_scale}))",
            "model.set_weights(network.get_weights())",
            f"x = {samples}",
            f"y = probe.labels({network.output_shape}, batch={case.batch}, seed={case.seed}, kind={network.labels!r})",
            f"report = parity.check(model, x=x, y=y, dtype={case.dtype!r}, modes=[{case.mode!r}])",
            "print(report.to_text())",
            "raise SystemExit(report.exit_status)",
            "",
        ]
    )


# -- what is drawn -----------------------------------------------------------------------------------------------------


def networks() -> SearchStrategy[Case]:
    """The Hypothesis strategy. What is drawn first in each list is what a failure shrinks to."""
    strategies = _hypothesis().strategies
    return strategies.composite(lambda draw: _Draw(draw, strategies).case())()


def _hypothesis() -> Any:
    try:
        import hypothesis
        import hypothesis.errors
        import hypothesis.strategies
    except ImportError as error:
        raise NothingConcluded(
            "random networks need Hypothesis. Install it with: python -m pip install 'scratchnet-parity[test]'"
        ) from error
    return hypothesis


@dataclass(frozen=True)
class _Draw:
    """Random choices, each of them Hypothesis's, so that it can shrink them."""

    draw: Callable[[Any], Any]
    strategies: Any

    def case(self) -> Case:
        loss = self.entry("loss")
        with _random_kept():
            layers, shape = self.stack(loss)
            modes = EAGER_AND_FUNCTION if any(map(_draws, layers)) else MODES
            scales = GENTLE if any(_recurs(registry.find("layer", layer.name)) for layer in layers) else SCALES
        return Case(
            layers=layers,
            input_shape=shape,
            loss=loss,
            optimizer=self.entry("optimizer"),
            dtype=self.one(DTYPES),
            batch=self.integer(BATCH),
            seed=self.integer(1000) - 1,
            weight_scale=self.one(scales),
            input_scale=self.one(SCALES),
            probe=self.one(PROBES),
            mode=self.one(modes),
        )

    def one(self, options: Sequence[Any]) -> Any:
        return self.draw(self.strategies.sampled_from(options))

    def integer(self, largest: int, smallest: int = 1) -> int:
        return int(self.draw(self.strategies.integers(smallest, largest)))

    def rarely(self) -> bool:
        return self.one((False,) * 7 + (True,))

    def stack(self, loss: Made) -> tuple[tuple[Made, ...], tuple[int, ...]]:
        """(layers, shape of one sample): a first layer on its own kind of input, up to DEPTH more, and a head."""
        known = registry.entries("layer")
        kind = self.one(tuple(known.values()))
        rank = len(kind.example_shape)
        largest = round(CELLS ** (1 / rank))
        shape = sizes = tuple(self.integer(largest) for _ in range(rank))
        inner = [kind, *(self.one(tuple(known.values())) for _ in range(self.integer(DEPTH, 0)))]
        layers: list[Made] = []
        for index, cls in enumerate(inner):
            if cls.takes_indices and index:
                continue
            layer, sizes = self.fitting(cls, sizes)
            layers += [layer] if layer else []
        return (*layers, *self.head(loss)), shape

    def fitting(self, cls: Any, shape: tuple[int, ...]) -> tuple[Made | None, tuple[int, ...]]:
        """(a layer of this class, its output shape) for inputs of this shape; (None, shape) where none fits."""
        if _recurs(cls) and shape[0] > STEPS:
            return None, shape
        example = self.one(cls.examples)
        for arguments in (self.varied(cls, example), example):
            layer = Made("layer", cls.registered_name, arguments)
            if (output := _output_shape(layer, shape)) is not None:
                return layer, output
        return None, shape

    def varied(self, cls: Any, example: Mapping[str, Any]) -> dict[str, Any]:
        """The example with other sizes, another activation, and now and then a switch flipped or a penalty added."""
        made, settings = cls(**example), dict(example)
        for name in cls.arguments():
            value = settings.get(name, getattr(made, name))
            if name == "activation":
                settings[name] = self.one(tuple(registry.entries("activation")))
            elif name.endswith("_regularizer"):
                settings.update({name: self.entry("regularizer")} if self.rarely() else {})
            elif isinstance(value, bool):
                settings.update({name: not value} if self.rarely() else {})
            elif name in example and isinstance(value, int) and value > 0:
                settings[name] = self.integer(WIDER * value)
        return settings

    def entry(self, family: str) -> Made:
        """An entry other than a layer, as one of its examples has it; a loss also with another reduction."""
        cls = self.one(tuple(registry.entries(family).values()))
        arguments = dict(self.one(cls.examples))
        if "reduction" in cls.arguments() and self.rarely():
            arguments["reduction"] = self.one(losses.REDUCTIONS)
        return Made(family, cls.registered_name, arguments)

    def head(self, loss: Made) -> Iterator[Made]:
        """The last layers: what they give is what the loss is made for."""
        cls = registry.find("loss", loss.name)
        known = registry.entries("activation")
        if cls.labels == "real":
            activations = [*known]
        elif loss.arguments.get("from_logits"):
            activations = ["linear"]
        else:
            activations = [cls.head, *(name for name, activation in known.items() if activation.caches_logits)]
        if self.one((True, False)):
            yield Made("layer", "Flatten", {})
        classes = 2 if cls.labels in ("one_hot", "integer") else 1
        yield Made("layer", "Dense", {"units": self.integer(2 * WIDER, classes), "activation": self.one(activations)})
        if self.rarely():  # behind it, a cross-entropy no longer finds the logits
            yield Made("layer", "Flatten", {})


def _output_shape(layer: Made, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape of the layer's output for inputs of this shape; None where it does not take them."""
    try:
        built = layer.build()
        built.build((None, *shape))
        return tuple(built.compute_output_shape((None, *shape))[1:])
    except ValueError:
        return None


def _recurs(cls: Any) -> bool:
    """Whether the layer goes through its input step by step."""
    return "return_sequences" in cls.arguments()


def _draws(layer: Made) -> bool:
    """Whether the layer draws random numbers, as Dropout does. Under XLA, TensorFlow draws others from a seed."""
    return getattr(layer.build(), "seed_generator_state", None) is not None


@contextlib.contextmanager
def _random_kept() -> Iterator[None]:
    """Initializers draw their seeds from Python's `random`; Hypothesis wants that left as it was."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)
