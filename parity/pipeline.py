"""check(): a model in, a report out. Spec -> build -> copy weights -> run both sides -> compare -> report."""

from __future__ import annotations

import operator
import os
import platform
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from parity import compare, data, diagnose, known, models, oracle, power, precision, probe, trace
from parity.budget import FLOAT64
from parity.compare import Row
from parity.diagnose import Finding
from parity.errors import NothingConcluded, UsageError
from parity.report import Check, Report
from parity.runners import keras, scratch
from parity.runners.steps import Operation
from parity.spec import DTYPES, Spec
from parity.trace import Place, Trace, Weights, flow

__all__ = ["check"]

BATCH = 32
MODES = ("eager", "function")
NOISE = 32
"""Two correct float32 runs were measured at up to 14 times the reference's own distance from float64 (bias gradients of
60,000 rows); up to about twice that is rounding."""
ROUNDED = 1e-5  # how far rounding takes a row of float32 labels from the sum 1, with thousands of classes
GLUE = 64  # samples on which the chains are compared with their operations
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
    batch = None if batch is None else _whole_number("batch", batch, 1)
    seed = _whole_number("seed", seed, 0)
    if not isinstance(training, bool):
        raise UsageError(f"training: expected True or False; received {training!r}")
    if x is not None and (batch is not None or data is not None):
        raise UsageError("x and y are given, so there is nothing to choose with data or batch; leave them out")
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
        scratch.require_indices(network, samples)
        scratch.require_labels(subject.spec, labels, (len(samples), *network.output_shape))
        for one in DTYPES if dtype == "both" else (dtype,):
            progress(f"{subject.spec.name}, {subject.spec.loss_name}, {one}")
            checks.append(_checked(subject.spec.with_dtype(one), weights, samples, labels, modes))
    return Report(
        checks=tuple(checks),
        data=inputs.source,
        batch=inputs.batch,
        seed=seed,
        command=_command(model, loss, dtype, inputs, seed),
        environment=_environment(),
    )


def _checked(spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, modes: Sequence[str]) -> Check:
    """`_check`, with what stops it halfway as a message."""
    try:
        return _check(spec, weights, x, y, modes)
    except scratch.Broken as broken:
        network = scratch.Network.of(spec)
        places = flow(network.layers, spec.loss_name, spec.optimizer_name)
        there = (place for place in places if place.computed_by == broken.computed_by)
        place = next(there, Place(broken.computed_by, broken.computed_by, "backward"))
        row = compare.incomparable(place, (), str(broken))
        return Check(spec.name, spec.loss_name, spec.dtype, tuple(modes), (row,), {})
    except MemoryError as error:
        raise UsageError(f"{spec.name}: does not fit into memory ({error}); take a smaller batch or network") from error


def _check(spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, modes: Sequence[str]) -> Check:
    """One network with one loss in one dtype, against each way that the reference can run."""
    weights = {name: array.astype(spec.dtype) for name, array in weights.items()}
    network = scratch.Network.of(spec)
    places = list(flow(network.layers, spec.loss_name, spec.optimizer_name))
    judge = judge_whole if spec.dtype == "float64" else judge_local
    worst = {row.tensor: row for row in _glue(spec, weights, x[:GLUE], y[:GLUE], places)}
    for mode in modes:
        reference = keras.run(spec, weights, x, y, mode)
        for row in judge(spec, weights, x, y, reference, places):
            if row.tensor not in worst or row.budgets > worst[row.tensor].budgets:
                worst[row.tensor] = replace(row, mode=mode)
    order = {place.tensor: position for position, place in enumerate(places)}
    rows = tuple(sorted(worst.values(), key=lambda row: order.get(row.tensor, len(order))))
    blind = power.blind_spots(spec.config["layers"], weights, reference, rows, spec.dtype, scratch.keeps_state(spec))
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
            said.append(f"{count}: Keras takes its own side there and you do not; no other element of it differs")
    return tuple(said)


def _explained(check: Check, spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, reference: Trace) -> Check:
    """The check with what a mismatch calls for: a vote on the gradients, and whether it matters end to end."""
    subject = scratch.run(spec, weights, x, y)
    forward = all(row.passed for row in check.rows if not row.tensor.endswith((".gradient", ".updated")))
    check = replace(check, findings=_findings(check, spec, weights, y, subject, reference))
    sentence = _vote(check, spec, weights, x, y, subject, reference) if forward else ""
    if spec.dtype == "float64":
        return replace(check, vote=sentence)
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    exact = keras.run(spec.with_dtype("float64"), wide, x, y)
    end_to_end = _end_to_end(oracle.floors(subject, reference, exact))
    if not sentence:
        sentence = precision.reduced(check.rows, scratch.replay(spec, weights, reference, y), reference)
    return replace(check, vote=sentence, end_to_end=end_to_end)


def _findings(
    check: Check, spec: Spec, weights: Weights, y: np.ndarray, subject: Trace, reference: Trace
) -> tuple[Finding, ...]:
    """The causes of what is wrong: in float32 from the operations alone, in float64 from the whole run."""
    if any(row.note and row.budgets == np.inf for row in check.rows):
        return ()  # another shape, a tensor that is not there: the note says it all
    operations: list[Operation] = []

    def collect(operation: Operation) -> Mapping[str, Any]:
        operations.append(operation)
        return {}

    replayed = scratch.replay(spec, weights, reference, y, settle=collect)
    local = spec.dtype == "float32"
    values = replayed if local else subject.tensors
    network = scratch.Network.of(spec)
    places = list(flow(network.layers, spec.loss_name, spec.optimizer_name))
    if local:
        allowed: Mapping[str, Any] = {n: 2 * b for n, b in oracle.bounds(spec, weights, reference, y).items()}
    else:
        allowed = compare.gate(reference, places)
    shared = [place for place in places if place.tensor in values and place.tensor in reference]
    rows = [compare.judge(p, values[p.tensor], reference[p.tensor], allowed[p.tensor]) for p in shared]
    wrong = {row.tensor: values[row.tensor] for row in rows if not row.passed}
    batch = len(reference[trace.INPUT])
    return tuple(diagnose.diagnose(operations, reference, wrong, allowed, batch, local=local))


def _vote(
    check: Check, spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, subject: Trace, reference: Trace
) -> str:
    """Finite differences decide on the first gradient behind the first wrong tensor that differs in the whole runs."""
    order = [row.tensor for row in check.rows]
    assert check.first_wrong is not None
    behind = set(order[order.index(check.first_wrong.tensor) :])
    sources = {trace.gradient(name): name for name in (*weights, trace.INPUT)}
    for tensor in (name for name in order if name in behind and name in sources and name in subject):
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


def _glue(spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, places: list[Any]) -> list[Row]:
    """The rows that are out of budget because the chains of scratchnet.Sequential are not their own operations, one
    after the other: bit for bit, on a few samples. The local pass sees the operations only, `fit` runs the chains."""
    whole = scratch.run(spec, weights, x, y)
    apart = scratch.run_with(spec, weights, x, y, lambda operation: operation.outputs)
    rows = [compare.judge(p, whole[p.tensor], apart[p.tensor], 0.0) for p in places if p.tensor in whole]
    return [replace(row, note="Sequential and its operations, one by one, differ") for row in rows if not row.passed]


def judge_whole(
    spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, reference: Trace, places: list[Any]
) -> list[Row]:
    subject = scratch.run(spec, weights, x, y)
    rows = compare.compare_whole(subject, reference, places) + compare.missing(reference, subject.tensors, places)
    if all(row.passed for row in rows):
        return rows
    alone = [_each_alone(spec, weights, y, side, places) for side in (reference, subject)]
    return compare.settled(rows, *alone)


def _each_alone(spec: Spec, weights: Weights, y: np.ndarray, side: Trace, places: list[Any]) -> list[Row]:
    """Each operation in float64 on the tensors of one side, against what that side has: within four rounding bounds, or
    a hundredth of the gate, which bounds of nearly nothing would be."""
    gate = compare.gate(side, places)
    bounds = {
        name: np.maximum(4 * bound, gate.get(name, 0.0) / 200)
        for name, bound in oracle.bounds(spec, weights, side, y, FLOAT64).items()
    }
    return compare.compare_local(scratch.replay(spec, weights, side, y), bounds, side, places)


def judge_local(
    spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, reference: Trace, places: list[Any]
) -> list[Row]:
    bounds = oracle.bounds(spec, weights, reference, y)
    replayed = scratch.replay(spec, weights, reference, y)
    rows = compare.compare_local(replayed, bounds, reference, places)
    return rows + compare.missing(reference, replayed, places)


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
            x, y = _numbers("x", self.x), _numbers("y", self.y)
            if len(x) != len(y):
                raise UsageError(f"x has {len(x)} samples, y has {len(y)}; each sample needs its label")
            if x.shape[1:] != network.input_shape or not len(x):
                raise UsageError(
                    f"x: expected at least one sample of shape {network.input_shape}; received the array {x.shape}"
                )
            self.source, self.batch = "the caller's x and y", len(x)
            return _representable(x), _whole_rows(y, network.labels)
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


def _whole_number(name: str, value: Any, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise UsageError(f"{name}: expected a whole number of at least {least}; received {value!r}")
    return number


def _numbers(name: str, values: Any) -> np.ndarray:
    """An array of finite real numbers with at least one axis."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise UsageError(f"{name}: expected an array; {error}") from error
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise UsageError(
            f"{name}: expected an array of real numbers; received dtype {array.dtype}, shape {array.shape}"
        )
    with np.errstate(over="ignore"):
        finite = np.isfinite(array.astype(np.float32))
    if not np.all(finite):
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise NothingConcluded(
            f"{name}: {np.count_nonzero(~finite)} numbers are NaN, infinite or beyond float32, the first at {first}: "
            f"{array[first]}; right and wrong look the same behind them"
        )
    return array


def _whole_rows(y: np.ndarray, kind: str) -> np.ndarray:
    """Labels whose rows sum to 1 but for float32 rounding, in float64 and summing to 1: TensorFlow's gradient takes
    that for granted, and 1e-7 is a large error in float64."""
    if kind != "one_hot" or not np.issubdtype(y.dtype, np.floating) or y.ndim < 2:
        return y
    total = np.sum(y, axis=-1, keepdims=True, dtype=np.float64)
    return np.where(np.abs(total - 1) < ROUNDED, y / np.where(total == 0, 1, total), y)


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
