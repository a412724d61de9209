"""What a network computes with given weights on a designed probe, and whether another run of it computes the same.

In float64 and in inference: then every weight has its effect, moving averages and weights behind a dropout included,
and the float64 gate of the checker says how far two correct runs may be apart. The gradient of each weight is compared
in one random direction p: if no element of it may be off by more than a, then <gradient, p> by no more than a sum |p|.
So is the weight after one step of SGD, w - lr gradient: what is expected of that, <w, p> - lr <gradient, p>, follows
from the weight and its slope, so no record has to say it, and every runner makes the step with its own optimizer.

The expectation is scratchnet's; of a network with layers or a loss that scratchnet lacks it is Keras's.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from parity import compare, probe, trace
from parity.compare import Row
from parity.errors import FileError, NothingConcluded, UsageError
from parity.runners import keras, scratch
from parity.spec import Spec
from parity.trace import Place, Trace, Weights
from parity.weights import matching, networks
from parity.weights.formats.limits import DTYPES
from parity.weights.record import Expected, Network
from parity.weights.sides import Held, Match, Side, shape_in, step_to_keras
from parity.weights.skeleton import Skeleton
from parity.weights.stored import Archive, Stored

__all__ = [
    "Unrunnable",
    "buildable",
    "digest",
    "expectation",
    "made",
    "probed",
    "ran",
    "ran_in_keras",
    "require_finite",
    "restored",
    "rows",
    "spec_of",
    "unseen",
    "wide",
]

BATCH = 32
"""Samples, that of the checker. A relu of random sign is off for all of them once in 2^32 units."""
MOST_NUMBERS = 2**22
"""In one tensor between two layers, 32 MiB in float64: fewer samples where one of them is large."""
MOST_WEIGHTS = 2**25
"""A float64 copy of them and their gradients are half a gigabyte. Of larger networks the hashes are kept, no run."""
MOST_OUTPUTS = 2**12
"""That a record holds: 25 characters each, a hundred kilobytes. Loss and gradients are of all samples."""


RATE = 0.01
STEP = {"module": "keras.optimizers", "class_name": "SGD", "config": {"learning_rate": RATE}, "registered_name": None}


class Unrunnable(Exception):
    """Why nothing can be said of what a network computes."""


def spec_of(network: Network) -> Spec:
    """In float64 and inference, with one step of SGD, and with initial weights that cost nothing to make. `Unrunnable`
    for classes that are not Keras's own."""
    try:
        networks.require_of_keras(network.config)
        networks.require_of_keras(network.loss)
    except UsageError as error:
        raise Unrunnable(str(error)) from error
    layers = [{**entry, "config": _uninitialized(entry["config"])} for entry in network.config["layers"]]
    config, name = {**network.config, "layers": layers}, str(network.config.get("name") or "the network")
    return Spec(name, config, network.loss, optimizer=STEP, training=False).with_dtype("float64").seeded()


def _uninitialized(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: "zeros" if key.endswith("_initializer") else value for key, value in settings.items()}


def buildable(network: Network) -> Spec:
    """The spec, after it was built once. `Unrunnable` for whatever else a config or a loss may say, `NothingConcluded`
    where it takes Keras, which is not installed."""
    try:
        spec = spec_of(network)
        networks.described(spec)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, UsageError, MemoryError) as error:
        raise Unrunnable(f"{network.config.get('name')}: the network cannot be built: {error}") from error
    return spec


def made(config: Mapping[str, Any], count: int) -> Skeleton:
    """The skeleton of a config that has so many weights; nothing is allocated for it. `Unrunnable` for one that is
    refused, or that has more or fewer weights; `NothingConcluded` where it takes Keras, which is not installed."""
    try:
        networks.require_of_keras(config)
        found = networks.skeleton_of(config, str(config.get("name") or "the network"))
    except UsageError as error:
        raise Unrunnable(str(error)) from error
    has = sum(math.prod(shape) for shape in found.shapes.values())
    if has != count:
        raise Unrunnable(f"{found.name} has {has} weights, and {count} are there")
    if count > MOST_WEIGHTS:
        raise Unrunnable(f"{count} weights are more than the {MOST_WEIGHTS} that are run")
    return found


def restored(found: Skeleton, arrays: Mapping[str, Stored], network: Network) -> Weights:
    """The weights in Keras's form out of a file's arrays, as the record says. `Unrunnable` where that is not so."""
    try:
        weights = _match(found, arrays, network).restore(lambda key: arrays[key].load())
    except (UsageError, FileError) as error:
        raise Unrunnable(str(error)) from error
    if {name: array.shape for name, array in weights.items()} != found.shapes:
        raise Unrunnable(f"the arrays do not have the shapes of {found.name}")
    return weights


def _match(found: Skeleton, arrays: Mapping[str, Stored], network: Network) -> Match:
    if network.layout is not None:
        archive = Archive("the file", "", arrays)
        return matching.matches(Side(archive, True, True, layout=network.layout), found)[0]
    naming = str(network.naming)
    if set(network.keys) != set(found.shapes):
        raise Unrunnable(f"there are keys for {', '.join(network.keys)}, the weights are {', '.join(found.shapes)}")
    for slot in found.slots:
        key, shape = network.keys[slot.key], shape_in(naming, slot)
        if arrays[key].shape != shape:
            raise Unrunnable(f"{key} for {slot.key}: expected shape {shape}, received {arrays[key].shape}")
    return Match({slot.key: Held((network.keys[slot.key],), "", step_to_keras(naming, slot)) for slot in found.slots})


def probed(spec: Spec, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Designed samples and labels. The spec was built before, so its weights are no larger than what is there."""
    largest = max(1, networks.largest(spec))
    if largest > MOST_NUMBERS:
        raise Unrunnable(f"{largest} numbers between two layers are more than the {MOST_NUMBERS} that are run")
    network = networks.described(spec)
    batch = min(BATCH, MOST_NUMBERS // largest)
    x = probe.samples(network.input_shape, batch, seed, network.indices)
    return x, probe.labels(network.output_shape, batch, seed, network.labels)


def ran(spec: Spec, weights: Mapping[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> Trace:
    """One pass of scratchnet. `Unrunnable` where an operation raises, `NothingConcluded` where it lacks a layer."""
    if why := networks.lacking(spec):
        raise NothingConcluded(why)
    try:
        with np.errstate(all="ignore"):  # whatever is not finite is seen in the comparison
            return scratch.run(spec, wide(weights), x, y)
    except (scratch.Broken, UsageError) as error:
        raise Unrunnable(f"{spec.name} cannot be run: {error}") from error


def ran_in_keras(spec: Spec, weights: Mapping[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> Trace:
    """One pass of Keras. `Unrunnable` where it cannot build the network, `NothingConcluded` if it is not installed."""
    try:
        return keras.run(spec, wide(weights), x, y)
    except UsageError as error:
        raise Unrunnable(str(error)) from error


def require_finite(found: Trace) -> None:
    """`Unrunnable` for a run that says nothing: NaN and infinity hide what is wrong behind them."""
    for name, tensor in found.tensors.items():
        if not np.all(np.isfinite(tensor)):
            raise Unrunnable(f"{name} is not finite on the designed probe")


def wide(weights: Mapping[str, np.ndarray]) -> Weights:
    """In float64, which holds every number of every dtype of a weight."""
    return {name: array.astype(np.float64) for name, array in weights.items()}


def expectation(network: Network, weights: Mapping[str, np.ndarray], seed: int) -> tuple[Expected, Trace]:
    """What scratchnet computes, or Keras if scratchnet cannot; and the whole run. `Unrunnable` where neither can."""
    try:
        spec = buildable(network)
        x, y = probed(spec, seed)
        found = (ran_in_keras if networks.lacking(spec) else ran)(spec, weights, x, y)
    except (UsageError, NothingConcluded) as error:
        raise Unrunnable(str(error)) from error
    require_finite(found)
    slopes = {
        name: float(np.sum(found[trace.gradient(name)] * _direction(found, name, seed)))
        for name in _with_gradient(found, weights)
    }
    outputs = np.asarray(found[_output(spec)])[: _kept(found[_output(spec)])]
    return Expected(seed, digest(x, y), outputs, float(found[trace.LOSS]), slopes), found


@np.errstate(all="ignore")  # what is not finite is out of budget
def rows(
    spec: Spec, layers: tuple[trace.Layer, ...], weights: Mapping[str, np.ndarray], expected: Expected, found: Trace
) -> list[Row]:
    """A run against what is expected: outputs, loss, and for each weight with a gradient one slope, and one of what the
    step made of it."""
    places = list(trace.flow(layers, spec.loss_name, spec.optimizer_name))
    allowed = compare.gate(found, places)
    known = {place.tensor: place for place in places}
    output = _output(spec)
    first = np.asarray(found[output])[: _kept(found[output])]
    judged = [
        compare.judge(known[output], first, expected.outputs, allowed[output]),
        compare.judge(known[trace.LOSS], found[trace.LOSS], np.float64(expected.loss), allowed[trace.LOSS]),
    ]
    for name in dict.fromkeys((*_with_gradient(found, weights), *expected.slopes)):
        tensors = trace.gradient(name), trace.updated(name)
        if name not in expected.slopes or any(tensor not in found for tensor in tensors):
            place = known.get(tensors[0], Place(tensors[0], "nothing", "backward"))
            judged.append(compare.incomparable(place, (), "only one side has this gradient"))
            continue
        direction, slope = _direction(found, name, expected.seed), expected.slopes[name]
        stepped = float(np.sum(weights[name] * direction, dtype=np.float64)) - RATE * slope
        for tensor, reference in zip(tensors, (slope, stepped), strict=True):
            within = allowed[tensor] * float(np.sum(np.abs(direction)))
            along = np.sum(np.asarray(found[tensor]) * direction)
            judged.append(compare.judge(known[tensor], along, np.float64(reference), within))
    return judged


def unseen(found: Trace, weights: Mapping[str, np.ndarray]) -> int:
    """How many weights have no effect on the probe: their gradient is exactly zero, such as that of an embedding's row
    of which no index was drawn."""
    return sum(int(np.count_nonzero(np.asarray(found[trace.gradient(n)]) == 0)) for n in _with_gradient(found, weights))


def digest(x: np.ndarray, y: np.ndarray) -> str:
    """Of the designed inputs: another version of NumPy might draw other ones."""
    both = hashlib.sha256()
    for array in (x, y):
        both.update(np.asarray(array, DTYPES["float64"].newbyteorder("<")).tobytes())
    return both.hexdigest()


def _with_gradient(found: Trace, weights: Mapping[str, np.ndarray]) -> list[str]:
    return [name for name in weights if trace.gradient(name) in found]


def _output(spec: Spec) -> str:
    return trace.output(spec.config["layers"][-1]["config"]["name"])


def _kept(outputs: np.ndarray) -> int:
    """Samples whose outputs are recorded."""
    return MOST_OUTPUTS // max(1, math.prod(np.shape(outputs)[1:]))


def _direction(found: Trace, name: str, seed: int) -> np.ndarray:
    words = list(hashlib.sha256(name.encode("utf-8", errors="surrogatepass")).digest()[:8])
    rng = np.random.default_rng([seed, 3, *words])  # 0 to 2: the weights, samples and labels of the probe
    return rng.standard_normal(np.shape(found[trace.gradient(name)]))
