"""check(): a model in, a report out. Spec -> build -> copy weights -> run both sides -> compare -> report."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from parity import compare, data, known, models, oracle, power, precision, probe, trace
from parity.compare import Row
from parity.errors import UsageError
from parity.report import Check, Report
from parity.runners import keras, scratch
from parity.spec import DTYPES, Spec
from parity.trace import Trace, Weights, flow

__all__ = ["check"]

BATCH = 32
MODES = ("eager", "function")
NOISE = 32
"""Two correct float32 runs were measured at up to 14 times the reference's own distance from float64 (bias gradients of
60,000 rows); up to about twice that is rounding."""
DIFFERENT = 1e-5
"""Of a tensor's norm: what two correct float32 runs of networks of this size are apart is 3e-7, so this is a difference
that a mistake makes, and one that finite differences in float64 can tell."""


def check(
    model: Any = None,
    x: np.ndarray | None = None,
    y: np.ndarray | None = None,
    *,
    loss: Any = None,
    dtype: str = "both",
    data: str | Path | None = None,
    batch: int | None = None,
    seed: int = 0,
    modes: Sequence[str] = MODES,
    training: bool = True,
    progress: Callable[[str], None] = lambda message: None,
) -> Report:
    """Compare scratchnet with Keras on TensorFlow: outputs, loss and every gradient.

    model: a Keras Sequential (compiled, or with `loss`), the name of a built-in network or case, a path to a `.keras`
    or `.json` file, a Spec, or None for both reference networks with all their losses. x, y: samples and labels;
    without them digits where the network takes 28x28 pixels, else a designed probe. dtype: float32, float64 or both.
    data, batch: which digits and how many; seed: of weights and probe; modes: how Keras runs, of eager, function and
    xla; training: whether layers such as Dropout and BatchNormalization run as in training, or as in inference.
    progress: called with what is being done.

    Raises UsageError, FileError or NothingConcluded (all `parity.errors.ParityError`).
    """
    if dtype not in (*DTYPES, "both"):
        raise UsageError(f"dtype: expected float32, float64 or both; received {dtype!r}")
    if batch is not None and batch < 1:
        raise UsageError(f"batch: expected at least 1 sample; received {batch}")
    if seed < 0:
        raise UsageError(f"seed: expected 0 or more; received {seed}")
    if not modes or any(mode not in keras.MODES for mode in modes):
        raise UsageError(f"modes: expected some of {', '.join(keras.MODES)}; received {modes!r}")
    subjects = models.resolve(model, loss, seed)
    inputs = _Inputs(x, y, data, batch or BATCH, seed)
    checks = []
    for subject in subjects:
        subject = subject if training else replace(subject, spec=replace(subject.spec, training=False))
        network = scratch.Network.of(subject.spec)
        if network.drops and "xla" in modes:
            raise UsageError(f"modes: {network.name} drops cells at random, and XLA draws other ones; leave xla out")
        weights = {n: _representable(w) for n, w in (subject.weights or probe.weights(network.weights, seed)).items()}
        samples, labels = inputs.for_network(network)
        scratch.require_labels(subject.spec, labels, (len(samples), *network.output_shape))
        for one in DTYPES if dtype == "both" else (dtype,):
            progress(f"{subject.spec.name}, {subject.spec.loss_name}, {one}")
            checks.append(_check(subject.spec.with_dtype(one), weights, samples, labels, modes))
    return Report(
        checks=tuple(checks),
        data=inputs.source,
        batch=inputs.batch,
        seed=seed,
        command=_command(model, loss, dtype, inputs, seed),
        environment=_environment(),
    )


def _check(spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, modes: Sequence[str]) -> Check:
    """One network with one loss in one dtype, against each way that the reference can run."""
    weights = {name: array.astype(spec.dtype) for name, array in weights.items()}
    network = scratch.Network.of(spec)
    places = list(flow(network.layers, spec.loss_name, spec.optimizer_name))
    judge = judge_whole if spec.dtype == "float64" else judge_local
    worst: dict[str, Row] = {}
    for mode in modes:
        reference = keras.run(spec, weights, x, y, mode)
        for row in judge(spec, weights, x, y, reference, places):
            if row.tensor not in worst or row.budgets > worst[row.tensor].budgets:
                worst[row.tensor] = replace(row, mode=mode)
    rows = tuple(worst[place.tensor] for place in places if place.tensor in worst)
    blind = power.blind_spots(spec.config["layers"], weights, reference, rows, spec.dtype)
    check = Check(
        network=spec.name,
        loss=spec.loss_name,
        dtype=spec.dtype,
        modes=tuple(modes),
        rows=rows,
        skipped=power.skipped(places, worst, reference, spec.optimizer),
        powerless=power.powerless(rows, reference),
        blind=tuple(blind),
        kinks=_kinks(rows, scratch.two_sided(spec, weights, reference, y)),
    )
    return check if check.first_wrong is None else _explained(check, spec, weights, x, y, reference)


def _kinks(rows: Sequence[Row], two_sided: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """What happens exactly at kinks and ties, where both one-sided derivatives are answers and Keras takes one."""
    said = []
    for row in (row for row in rows if row.tensor in two_sided):
        at = two_sided[row.tensor]
        count = f"{int(np.count_nonzero(at))} elements of {row.tensor} are exactly at a kink or a tie"
        if row.passed:
            said.append(f"{count}: Keras's side was taken")
        elif row.wrong is not None and not np.any(row.wrong & ~at):
            said.append(f"{count}: Keras takes the other side there; no other element of it differs")
    return tuple(said)


def _explained(check: Check, spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, reference: Trace) -> Check:
    """The check with what a mismatch calls for: a vote on the gradients, and whether it matters end to end."""
    subject = scratch.run(spec, weights, x, y)
    forward = all(row.passed for row in check.rows if not row.tensor.endswith((".gradient", ".updated")))
    sentence = _vote(check, spec, weights, x, y, subject, reference) if forward else ""
    if spec.dtype == "float64":
        return replace(check, vote=sentence)
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    exact = keras.run(spec.with_dtype("float64"), wide, x, y)
    end_to_end = _end_to_end(oracle.floors(subject, reference, exact))
    return replace(check, vote=precision.reduced(check.rows) or sentence, end_to_end=end_to_end)


def _vote(
    check: Check, spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, subject: Trace, reference: Trace
) -> str:
    """Finite differences decide on the first gradient behind the first wrong tensor that differs in the whole runs."""
    order = [row.tensor for row in check.rows]
    assert check.first_wrong is not None
    behind = set(order[order.index(check.first_wrong.tensor) :])
    sources = {trace.gradient(name): name for name in (*weights, trace.INPUT)}
    for tensor in (name for name in order if name in behind and name in sources):
        s, r = np.asarray(subject[tensor], np.float64), np.asarray(reference[tensor], np.float64)
        if s.shape == r.shape and np.linalg.norm(s - r) > DIFFERENT * np.linalg.norm(r):
            nearer = oracle.vote(spec, weights, x, y, subject, reference, sources[tensor])
            said = oracle.VOTES[nearer].format(tensor=sources[tensor]) if nearer else ""
            by_logits = trace.gradient(trace.output(spec.config["layers"][-1]["config"]["name"])) not in reference
            why = known.explanation(spec.loss_name, y, by_logits) if nearer == "subject" else ""
            return f"{said} ({why.rstrip('.')})" if why else said
    return ""


def _end_to_end(floors: Mapping[str, float]) -> str:
    if not floors:
        return ""
    tensor, far = max(floors.items(), key=lambda item: item[1])
    if far > NOISE:
        return f"end to end it matters: {tensor} of the whole run is {far:.2g} times as far off as rounding explains"
    return f"end to end it does not matter: no tensor of the whole run is more than {far:.2g} times the rounding off"


def judge_whole(
    spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, reference: Trace, places: list[Any]
) -> list[Row]:
    subject = scratch.run(spec, weights, x, y)
    rows = compare.compare_whole(subject, reference, places)
    if all(row.passed for row in rows):
        return rows
    own = compare.compare_local(
        scratch.replay(spec, weights, subject, y), oracle.bounds(spec, weights, subject, y), subject, places
    )
    return compare.settled(rows, judge_local(spec, weights, x, y, reference, places), own)


def judge_local(
    spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, reference: Trace, places: list[Any]
) -> list[Row]:
    bounds = oracle.bounds(spec, weights, reference, y)
    return compare.compare_local(scratch.replay(spec, weights, reference, y), bounds, reference, places)


@dataclass
class _Inputs:
    """The samples and labels of a check: the caller's, digits, or a designed probe; and what to call them."""

    x: np.ndarray | None
    y: np.ndarray | None
    data: str | Path | None
    batch: int
    seed: int
    source: str = ""
    used: str | Path | None = None  # of `data`, where digits were used: what it stood for

    def for_network(self, network: scratch.Network) -> tuple[np.ndarray, np.ndarray]:
        if (self.x is None) != (self.y is None):
            raise UsageError("x and y go together: give both, or neither for designed inputs")
        if self.x is not None and self.y is not None:
            x = np.asarray(self.x)
            if x.shape[1:] != network.input_shape or not len(x):
                raise UsageError(
                    f"x: expected at least one sample of shape {network.input_shape}; received the array {x.shape}"
                )
            self.source, self.batch = "the caller's x and y", len(x)
            return _representable(x), np.asarray(self.y)
        if network.takes_digits:
            return self._digits(network)
        if self.data is not None:
            raise UsageError(
                f"data: {network.name} takes samples of shape {network.input_shape}, not 28x28 digits; leave data out"
            )
        self.source = "designed probe"
        x = probe.samples(network.input_shape, self.batch, self.seed, network.indices)
        return _representable(x), probe.labels(network.output_shape, self.batch, self.seed, network.labels)

    def _digits(self, network: scratch.Network) -> tuple[np.ndarray, np.ndarray]:
        digits = data.load(self.data)
        if self.batch > len(digits.x_train):
            raise UsageError(f"batch: {self.batch} samples asked for, {digits.source} has {len(digits.x_train)}")
        self.source = digits.source
        self.used = self.data or ("mnist" if digits.source.startswith("MNIST") else "digits")
        pixels = digits.x_train[: self.batch].reshape(self.batch, *network.input_shape) / 255
        return _representable(pixels), probe.encoded(digits.y_train[: self.batch], network.output_shape, network.labels)


def _representable(x: np.ndarray) -> np.ndarray:
    """Values that float32 holds exactly, so that both dtypes compare the same computation. Subnormal ones are 0, which
    TensorFlow takes them for."""
    if np.issubdtype(x.dtype, np.integer):
        return x
    narrow = x.astype(np.float32)
    return np.where(np.abs(narrow) < np.finfo(np.float32).tiny, np.float32(0), narrow)


def _command(model: Any, loss: Any, dtype: str, inputs: _Inputs, seed: int) -> str:
    if inputs.x is not None:
        return f"parity.check(model, x, y, dtype={dtype!r}, seed={seed})  # in Python, with the same model, x and y"
    words = ["parity", "check"]
    if model is not None:
        words.append(str(model) if isinstance(model, str | Path) else "MODEL.keras")
    words += ["--loss", str(loss)] if loss is not None else []
    words += ["--data", str(inputs.used)] if inputs.used is not None else []
    return shlex.join([*words, "--batch", str(inputs.batch), "--dtype", dtype, "--seed", str(seed)])


def _environment() -> dict[str, Any]:
    """Versions, and what else moves last bits, on both sides; TensorFlow's as they are set during a comparison."""
    from parity.runners import tensorflow

    with tensorflow.precision("float32"):
        conditions = tensorflow.versions()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "blas": np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"],
        "blas_threads": int(os.environ.get("OPENBLAS_NUM_THREADS") or os.cpu_count() or 1),
        **{name: value for name, value in conditions.items() if name != "dtype_policy"},
    }
