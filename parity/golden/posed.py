"""What a recording asks: the network with its weights and samples; and whether its runs are of that network.

A file may say anything. So every shape is derived from the network and compared with the arrays that are there, before
anything is made of what the network declares: a Dense of 10^9 units costs as much here as one of ten.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from parity import probe
from parity.errors import FileError, UsageError
from parity.golden.form import Recording, Run, point
from parity.inputs import representable
from parity.own.behaviour import other_batches
from parity.pipeline import Problem
from parity.runners import scratch
from parity.runners.scratch import Network
from parity.sketch import Sketch
from parity.spec import DTYPES
from parity.trace import INPUT, LOSS, Weights, flow, gradient, output, pre_activation, updated
from parity.weights.formats import limits
from parity.weights.formats.limits import shown

__all__ = ["posed", "required"]

BROKEN = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, UsageError, ValueError)
"""What a config that no framework wrote may raise where a network is built from it."""

EAGER = "eager"
"""How the reference runs where it is asked how far rounding moves it, whatever the modes."""

Shape = tuple[int, ...]


def posed(recording: Recording) -> Problem:
    """The network with its inputs. FileError where the parts of the recording do not fit each other."""
    network, outputs = _network(recording)
    _require_inputs(recording, network)
    _require_steps(recording, network)
    shapes = _require_weights(recording, network)
    for run in recording.runs:
        with limits.blamed(f"run in {run.dtype}, {run.mode}"):
            _require_tensors(recording, network, run, shapes, outputs)
    for number, step in enumerate(recording.steps, start=1):
        _require_step(number, step, shapes)
    _require_labels(recording, network)
    weights = _weights(recording)
    _require_gradients(recording, network, weights)
    missing = [key for key in _keys(recording, network, weights) if key not in {run.key for run in recording.runs}]
    if missing:
        _, dtype, mode = missing[0]
        raise FileError(
            f"runs: expected one in {dtype}, {mode}, at each of the weights and samples that a replay asks for; "
            f"{len(missing)} are not there; record it again"
        )
    return Problem(recording.spec, weights, weights, recording.x, recording.y)


def required(
    weights: Weights, x: np.ndarray, y: np.ndarray, modes: tuple[str, ...], drops: bool
) -> Iterator[tuple[Weights, np.ndarray, np.ndarray, str, str]]:
    """Every run that the judges may ask for, as weights, samples, labels, dtype and mode: in both dtypes and each mode,
    and what a second comparison of somebody's own network needs."""
    for dtype in DTYPES:
        for mode in dict.fromkeys((*modes, EAGER)):
            yield weights, x, y, dtype, mode
    for other in () if drops else other_batches(weights, x, y):
        yield *other, "float64", modes[0]
        yield *other, "float32", EAGER


def _keys(recording: Recording, network: Network, weights: Weights) -> Iterator[tuple[str, str, str]]:
    before, digest = None, ""
    for at, x, y, dtype, mode in required(weights, recording.x, recording.y, recording.modes, network.drops):
        if x is not before:
            before, digest = x, point(at, x, y)
        yield digest, dtype, mode


def _network(recording: Recording) -> tuple[Network, Mapping[str, Shape] | None]:
    """The network, and the shape of what each layer puts out for one sample, where scratchnet has the layers."""
    spec = recording.spec
    try:
        if spec.optimizer is not None and not scratch.knows_optimizer(spec.optimizer):
            raise UsageError(f"the optimizer {shown(spec.optimizer)}, which scratchnet does not have")
        if recording.described is not None:
            return recording.described, None
        scratch.require_initializers(spec)
        chain = scratch.build(spec.uninitialized(scratch.UNDRAWN))
        network = Network.of_chain(spec, chain)
        shapes = {layer.name or "": layer.compute_output_shape(layer.input_shape or ()) for layer in chain.layers}
        return network, {name: tuple(int(n or 0) for n in shape[1:]) for name, shape in shapes.items()}
    except BROKEN as error:
        raise FileError(f"expected a network that scratchnet can build; received: {error}") from error


def _require_inputs(recording: Recording, network: Network) -> None:
    x, y = recording.x, recording.y
    for name, array in (("x", x), ("y", y)):
        if array.dtype.kind not in "iuf" or array.ndim == 0 or not np.all(np.isfinite(array)):
            raise FileError(f"{name}: expected finite numbers, one or more for each sample; received {_said(array)}")
    if x.shape[1:] != network.input_shape or not len(x):
        raise FileError(f"x: expected at least one sample of shape {network.input_shape}; received {_said(x)}")
    if len(x) != len(y):
        raise FileError(f"y: expected a label for each of {len(x)} samples; received {_said(y)}")


def _require_labels(recording: Recording, network: Network) -> None:
    """That the network takes these samples, and its loss these labels."""
    try:
        scratch.require_indices(network, recording.x)
        if recording.described is None:
            scratch.require_labels(recording.spec, recording.y, (len(recording.x), *network.output_shape))
    except UsageError as error:
        raise FileError(str(error)) from error


def _require_weights(recording: Recording, network: Network) -> Mapping[str, Shape]:
    """That they are the network's; their shapes."""
    kept = recording.weights
    names = [f"{layer}/{name}" for layer, found in network.weight_names.items() for name in found]
    if names != list(kept):
        raise FileError(f"weights: expected {', '.join(names) or 'none'}; received {', '.join(kept) or 'none'}")
    if recording.described is not None:
        declared = {name: np.shape(weight) for name, weight in kept.items()}
    else:
        declared = {name: weight.shape for name, weight in network.weights.items()}
    seeded = 0
    for name, weight in kept.items():
        if isinstance(weight, str):
            seeded += math.prod(declared[name])
        elif weight.dtype != np.float32 or weight.shape != declared[name] or not np.all(np.isfinite(weight)):
            raise FileError(
                f"weights: {name}: expected finite float32 numbers of shape {declared[name]}; received {_said(weight)}"
            )
    if seeded and recording.described is not None:
        raise FileError("weights: expected those of a network that scratchnet does not have as arrays; received seeds")
    held = sum(tensor.sums.nbytes if isinstance(tensor, Sketch) else tensor.nbytes for tensor in _arrays(recording))
    limits.require_expansion("weights that the seed gives again", 4 * seeded, held)
    return declared


def _arrays(recording: Recording) -> Iterator[np.ndarray | Sketch]:
    yield recording.x
    for run in recording.runs:
        yield from run.tensors.values()


def _require_tensors(
    recording: Recording, network: Network, run: Run, weights: Mapping[str, Shape], outputs: Mapping[str, Shape] | None
) -> None:
    """That a run has the tensors of this network, each in its shape and in the dtype of the run."""
    ends = output(network.layers[-1].name)
    for name in (LOSS, *(output(layer.name) for layer in network.layers)):
        if name not in run.tensors:
            raise FileError(f"expected the tensor {name}, received {shown(list(run.tensors))}")
    first = next(each for each in recording.runs if each.mode == run.mode)  # Keras caches logits in another way in each
    if other := [name for name in run.tensors.keys() ^ first.tensors.keys() if not _left_out(name, run, first)]:
        raise FileError(f"expected the tensors of the first run; {shown(sorted(other))} are in one of them only")
    batch = run.tensors[ends].shape[:1]
    if batch not in {(len(recording.x),), *((len(x),) for _, x, _ in other_batches({}, recording.x, recording.y))}:
        raise FileError(f"{ends}: expected a row for each of {len(recording.x)} samples, or for two thirds of them; "
                        f"received {shown(run.tensors[ends].shape)}")  # fmt: skip
    expected = _shapes(recording, network, run, weights, outputs, batch)
    for name, tensor in run.tensors.items():
        if name not in expected:
            raise FileError(f"{shown(name)}: expected a tensor of this network, it has none of this name")
        if tensor.shape != expected[name] or tensor.dtype != run.dtype:
            raise FileError(
                f"{name}: expected {run.dtype} of shape {expected[name]}; received {tensor.dtype} {tensor.shape}"
            )
        if recording.described is not None and isinstance(tensor, Sketch):
            raise FileError(f"{name}: expected an array, since scratchnet does not have all layers; received a sketch")


def _require_gradients(recording: Recording, network: Network, weights: Weights) -> None:
    """That every run has the gradient by every weight, and what a step makes of it: what is not there is not compared.
    Keras gives none by a weight that the loss does not depend on, as behind a dropout of everything."""
    trained = [f"{layer.name}/{weight}" for layer in network.layers for weight in layer.weights]
    steps = [updated] if recording.spec.optimizer is not None else []
    missing = {
        name: weight
        for run in recording.runs
        for weight in trained
        for name in (gradient(weight), *(step(weight) for step in steps))
        if name not in run.tensors and not _left_out(name, run)
    }
    if not missing:
        return
    moving = set(missing)
    if recording.described is None:
        wide = {name: array.astype(np.float64) for name, array in weights.items()}
        found = scratch.run(recording.spec.with_dtype("float64"), wide, recording.x, recording.y)
        moving = {name for name, weight in missing.items() if np.any(found[gradient(weight)])}
    if moving:
        first = next(name for name in missing if name in moving)
        raise FileError(f"{first}: expected in every run, it is not there; record it again")


def _left_out(name: str, *runs: Run) -> bool:
    """Whether it is an update whose gradient is a sketch."""
    sources = (run.tensors.get(gradient(name.removesuffix(".updated"))) for run in runs if name not in run.tensors)
    return name.endswith(".updated") and all(isinstance(source, Sketch) for source in sources)


def _shapes(
    recording: Recording, network: Network, run: Run, weights: Mapping[str, Shape],
    outputs: Mapping[str, Shape] | None, batch: Shape,
) -> dict[str, Shape]:  # fmt: skip
    """Of everything that a run of the network may hold. What layers put out that scratchnet does not have can only be
    compared with the gradient by it."""
    found = {LOSS: (), gradient(INPUT): (*batch, *network.input_shape)}
    for layer in network.layers:
        for name in (output(layer.name), pre_activation(layer.name)):
            if name in run.tensors:
                inner = run.tensors[name].shape[1:] if outputs is None else outputs[layer.name]
                found |= {name: (*batch, *inner), gradient(name): (*batch, *inner)}
        for name in (f"{layer.name}/{weight}" for weight in (*layer.weights, *layer.moving)):
            if name in weights:
                found |= {gradient(name): weights[name], updated(name): weights[name]}
    known = {place.tensor for place in flow(network.layers, recording.spec.loss_name, recording.spec.optimizer_name)}
    return {name: shape for name, shape in found.items() if name in known}


def _require_steps(recording: Recording, network: Network) -> None:
    """That recorded training is of a network that scratchnet can train in the same way."""
    trains = recording.described is None and not network.drops and scratch.knows_optimizer(recording.spec.optimizer)
    if recording.steps and not trains:
        raise FileError("steps: expected none of a network that scratchnet cannot train in the same way")


def _require_step(number: int, step: Mapping[str, np.ndarray], weights: Mapping[str, Shape]) -> None:
    """That a step has the loss and every weight, in float64."""
    expected = {LOSS: (), **weights}
    for name, array in step.items():
        if name not in expected or array.shape != expected[name] or array.dtype != np.float64:
            raise FileError(
                f"step {number}: {shown(name)}: expected float64 of shape {expected.get(name)}; received {_said(array)}"
            )
    if step.keys() != expected.keys():
        raise FileError(f"step {number}: expected {', '.join(expected)}; received {', '.join(step)}")


def _weights(recording: Recording) -> Weights:
    """Those in the file, and the ones that the seed gives again, if it does."""
    kept = recording.weights
    drawn: Weights = {}
    if any(isinstance(weight, str) for weight in kept.values()):
        given = probe.weights(Network.of(recording.spec).weights, recording.spec.seed)
        drawn = {name: representable(weight) for name, weight in given.items()}
    found = {}
    for name, weight in kept.items():
        found[name] = drawn[name] if isinstance(weight, str) else weight
        if isinstance(weight, str) and point({name: drawn[name]}, recording.x, recording.y) != weight:
            raise FileError(
                f"weights: {name}: its seed gives other numbers with these versions of NumPy and parity; record it "
                "again, without --sketch-above"
            )
    return found


def _said(array: np.ndarray) -> str:
    return f"{array.dtype} of shape {array.shape}"
