"""The NumPy side: scratchnet, run as a whole, or layer by layer on another run's tensors."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import scratchnet
from parity import trace
from parity.errors import UsageError
from parity.runners.steps import Operation, Settle, walk
from parity.spec import Spec
from parity.trace import Trace, Weights
from scratchnet import initializers, losses, optimizers
from scratchnet.activations import ActivationFunction
from scratchnet.layers import Layer, Saved
from scratchnet.registry import Entry
from scratchnet.regularizers import Regularizer
from scratchnet.sequential import Chain

__all__ = [
    "Broken",
    "Network",
    "build",
    "is_smooth",
    "keeps_state",
    "knows_optimizer",
    "labels",
    "loss",
    "repeated",
    "replay",
    "require_indices",
    "require_initializers",
    "require_labels",
    "run",
    "run_with",
]


class _Undrawn(initializers.Zeros):
    """Weights that others take the place of: their shape, and one number that is everywhere."""

    def __call__(self, shape: Sequence[int], dtype: Any = "float32") -> np.ndarray:
        return np.broadcast_to(np.zeros((), dtype), tuple(shape))


UNDRAWN = _Undrawn()


class Broken(Exception):
    """An operation of scratchnet that raised: a finding, like a wrong number."""

    def __init__(self, computed_by: str, shapes: Mapping[str, tuple[int, ...]], error: Exception):
        arrays = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        super().__init__(f"{type(error).__name__}: {error}; the arrays there: {arrays}")
        self.computed_by = computed_by


@dataclass(frozen=True)
class Network:
    """What the rest of parity has to know of a network; shapes are of one sample."""

    name: str
    layers: tuple[trace.Layer, ...]
    weights: Weights  # the initial ones
    weight_names: Mapping[str, tuple[str, ...]]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    indices: int | None  # where the input is indices: how many there are
    drops: bool  # whether a layer draws random cells to drop
    labels: str  # the kind of labels that the loss takes: real, binary, one_hot or integer

    @classmethod
    def of(cls, spec: Spec) -> Network:
        return cls.of_chain(spec, build(spec))

    @classmethod
    def of_chain(cls, spec: Spec, chain: Chain) -> Network:
        """Of what was built of the spec."""
        return cls(
            name=spec.name,
            layers=layers(chain, spec.training),
            weights={f"{layer.name}/{n}": w for layer in chain.layers for n, w in layer.weights.items()},
            weight_names={layer.name or "": tuple(layer.weights) for layer in chain.layers},
            input_shape=_fixed(spec, chain.input_shape),
            output_shape=_fixed(spec, chain.output_shape),
            indices=chain.layers[0].input_dim if chain.layers[0].takes_indices else None,  # type: ignore[attr-defined]
            drops=spec.training and any(getattr(layer, "rate", 0) not in (0, 1) for layer in chain.layers),
            labels=losses.get(spec.loss).labels,
        )

    @classmethod
    def declared(cls, spec: Spec) -> Network:
        """The same for whoever needs the shapes of the weights only: it takes no memory, whatever the spec declares."""
        return cls.of(spec.uninitialized(UNDRAWN))

    @property
    def takes_digits(self) -> bool:
        """Whether 28x28 pixels and ten classes fit."""
        return self.input_shape in DIGITS and self.output_shape == (10,)


DIGITS = ((28, 28), (784,), (28, 28, 1))


def build(spec: Spec, custom_objects: Mapping[str, Any] | None = None) -> scratchnet.Sequential:
    """The network of a spec. `UsageError` names the layer or argument that scratchnet does not have, and that is not
    among the custom objects."""
    if spec.loss is None:
        raise UsageError(f"{spec.name}: the model has no loss; compile it with one, or say which: --loss, or loss=...")
    try:
        losses.get(spec.loss)
    except (ValueError, TypeError) as error:
        raise UsageError(f"loss: {error}") from error
    drawn = random.getstate()
    random.seed(spec.seed)  # unseeded initializers draw their seeds here: the same spec, the same initial weights
    try:
        chain = scratchnet.Sequential.from_config(spec.config, custom_objects)
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{spec.name}: scratchnet cannot build this network: {error}") from error
    finally:
        random.setstate(drawn)
    if not chain.layers:
        raise UsageError(f"{spec.name}: the network has no layers; a comparison needs at least one")
    if not chain.built:
        raise UsageError(f"{spec.name}: the config does not say the shape of the input; add keras.Input(shape) first")
    return chain


def is_smooth(spec: Spec) -> bool:
    """Whether nothing in the network has a kink, or chooses among equal inputs."""
    chain, loss = build(spec.uninitialized(UNDRAWN)), losses.get(spec.loss)
    penalties = [layer.regularizer_of(name) for layer in chain.layers for name in layer.weights]
    return (
        type(loss).two_sided is losses.Loss.two_sided
        and all(type(layer).ties is Layer.ties for layer in chain.layers)
        and all(type(layer.outer_activation).two_sided is ActivationFunction.two_sided for layer in chain.layers)
        and all(each is None or type(each).two_sided is Regularizer.two_sided for each in penalties)
    )


def require_initializers(spec: Spec) -> None:
    """That the initializers of a spec can be made, without any weight; raises what they raise."""
    for entry in spec.config["layers"]:
        for name, identifier in entry["config"].items():
            if name.endswith("_initializer"):
                initializers.get(identifier)


def require_indices(network: Network, x: np.ndarray) -> None:
    """`UsageError` for samples that are no indices, where the network takes them."""
    if network.indices is None:
        return
    if np.any(x != np.trunc(x)) or np.min(x) < -network.indices or np.max(x) >= network.indices:
        received = f"{np.min(x)} to {np.max(x)}, {x.dtype}"
        raise UsageError(f"x: {network.name} takes whole numbers below {network.indices}; received {received}")


def require_labels(spec: Spec, y: np.ndarray, outputs: tuple[int, ...]) -> None:
    """`UsageError` for labels that the loss cannot take. outputs: the shape of the predictions, batch first."""
    try:
        losses.get(spec.loss).targets(y, np.zeros(outputs))
    except (ValueError, TypeError) as error:
        raise UsageError(f"y: {error}") from error


def labels(loss: Any) -> str:
    """The kind of labels that a loss takes; real numbers for one that scratchnet does not have."""
    try:
        return losses.get(loss).labels
    except (ValueError, TypeError):
        return "real"


def knows_optimizer(identifier: Any) -> bool:
    """Whether scratchnet has this optimizer, with these arguments."""
    try:
        return optimizers.get(identifier) is not None
    except (ValueError, TypeError):
        return False


def keeps_state(spec: Spec) -> bool:
    """Whether the optimizer keeps something from step to step."""
    optimizer = optimizers.get(spec.optimizer)
    return optimizer is not None and bool(optimizer.zero_state(np.zeros(1)))


def layers(chain: Chain, training: bool) -> tuple[trace.Layer, ...]:
    """The layers as a trace names them."""
    return tuple(
        replace(
            trace.Layer.from_config(layer.to_json(), tuple(layer.trainable_weights)),
            moving=layer.moving_weights(training),
        )
        for layer in chain.layers
    )


def run(spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray) -> Trace:
    """One forward and one backward pass of the whole network. `Broken` where an operation raises."""
    try:
        return _run(spec, weights, x, y)
    except UsageError:
        raise
    except Exception as error:
        raise _broken(error) from error


def _broken(error: Exception) -> Exception:
    """The error with the operation that raised it, found as the innermost call of a registered entry."""
    culprit, frame = None, error.__traceback__
    while frame is not None:
        for name in ("layer", "self"):  # of the chain that calls it, or of the entry itself
            if isinstance(entry := frame.tb_frame.f_locals.get(name), Entry):
                culprit = entry, frame.tb_frame
        frame = frame.tb_next
    if culprit is None:
        return error
    entry, inner = culprit
    backward = any(word in inner.f_code.co_name for word in ("backward", "derivative"))
    words = [entry.registered_name, getattr(entry, "name", None) or "", "backward" if backward else "forward"]
    shapes = {name: value.shape for name, value in inner.f_locals.items() if isinstance(value, np.ndarray)}
    shapes.update({name: value.shape for name, value in getattr(entry, "weights", {}).items()})
    return Broken(" ".join(word for word in words if word), shapes, error)


def _run(spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray) -> Trace:
    chain = _with_weights(spec, weights, lambda array: array)
    criterion = losses.get(spec.loss)
    passed = chain.forward(x, spec.training)
    backward = chain.backward(passed, criterion, y)
    tensors: dict[str, np.ndarray] = {trace.INPUT: passed.x}
    described = layers(chain, spec.training)
    for layer, saved in zip(described, passed.saved, strict=True):
        if layer.has_pre_activation:
            tensors[trace.pre_activation(layer.name)] = saved.z
        tensors[trace.output(layer.name)] = saved.y
        for name in layer.moving:
            if name in saved.updates:  # one that is forgotten is reported as missing
                tensors[trace.updated(f"{layer.name}/{name}")] = saved.updates[name]
    tensors[trace.LOSS] = criterion.forward(y, passed.output, passed.logits) + chain.penalty()
    for layer, gradients in reversed(list(zip(described, backward.layers, strict=True))):
        if gradients.dy is not None:
            tensors[trace.gradient(trace.output(layer.name))] = gradients.dy
        if layer.has_pre_activation and gradients.dz is not None:
            tensors[trace.gradient(trace.pre_activation(layer.name))] = gradients.dz
        for name, value in gradients.weights.items():
            tensors[trace.gradient(f"{layer.name}/{name}")] = value
    if backward.dx is not None:
        tensors[trace.gradient(trace.INPUT)] = backward.dx
    tensors.update(_updated(chain, described, tensors, optimizers.get(spec.optimizer)))
    return Trace(tensors, {"runner": "scratch", "dtype": spec.dtype, "numpy": np.__version__})


def loss(spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The loss alone, penalties included."""
    chain = _with_weights(spec, weights, lambda array: array)
    passed = chain.forward(x, spec.training)
    return losses.get(spec.loss).forward(y, passed.output, passed.logits) + chain.penalty()


def _updated(
    chain: Chain, described: Sequence[trace.Layer], tensors: Trace | dict[str, Any], optimizer: Any
) -> dict[str, np.ndarray]:
    """The weights after the first step of the optimizer."""
    new = {}
    for layer, named in zip(chain.layers, described, strict=True) if optimizer else ():
        for name, weight in layer.trainable_weights.items():
            tensor = f"{named.name}/{name}"
            if tensors[trace.gradient(tensor)].shape != weight.shape:
                continue  # reported where the gradient is compared
            new[trace.updated(tensor)], _ = optimizer.step(
                weight, tensors[trace.gradient(tensor)], optimizer.zero_state(weight)
            )
    return new


def replay(
    spec: Spec,
    weights: Weights,
    reference: Trace,
    y: np.ndarray,
    number: Callable[[np.ndarray], Any] = lambda array: array,
    settle: Settle = lambda operation: operation.outputs,
) -> Mapping[str, Any]:
    """Each operation alone, on the reference's own tensors, forward and backward.

    An error of one operation then stays where it is made. `number` wraps every array that goes in: the identity gives
    scratchnet's own results in the dtype of the spec, `budget.Bounded` the float64 values and the budgets. `settle` may
    replace results, to plant a mistake.
    """
    results: dict[str, Any] = {}

    def exchange(operation: Operation) -> Mapping[str, Any]:
        """Note what this operation gave, and go on with what the reference has there."""
        outputs = {**operation.outputs, **settle(operation)}
        named = {output: (name, outputs[output]) for output, name in operation.tensors.items()}
        results.update(dict(named.values()))
        taken = {output: number(reference[name]) for output, (name, _) in named.items() if name in reference}
        return {**outputs, **taken}

    _walk(spec, weights, reference[trace.INPUT], y, number, exchange)
    return results


def run_with(spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, settle: Settle) -> Trace:
    """The whole network, operation by operation, with results that `settle` may replace: to plant a mistake."""
    tensors: dict[str, np.ndarray] = {trace.INPUT: x}

    def keep(operation: Operation) -> Mapping[str, Any]:
        outputs = {**operation.outputs, **settle(operation)}
        tensors.update({name: outputs[output] for output, name in operation.tensors.items()})
        return outputs

    _walk(spec, weights, x, y, lambda array: array, keep)
    return Trace(tensors, {"runner": "scratch", "dtype": spec.dtype, "numpy": np.__version__})


def repeated(
    spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, custom_objects: Mapping[str, Any] | None = None
) -> Callable[[Settle], None]:
    """The whole network, operation by operation, ready to be run many times with other results put in. custom_objects:
    class name -> layer, for what scratchnet does not have. A layer that is given the very arrays of the first run does
    not compute them again."""
    chain = _with_weights(spec, weights, lambda array: array, custom_objects)
    for layer in chain.layers:
        vars(layer)["transform"] = _remembering(layer.transform)
        vars(layer)["transform_backward"] = _remembering(layer.transform_backward)
    named, loss, typed = layers(chain, spec.training), losses.get(spec.loss), x.astype(spec.dtype)
    samples = x if chain.layers[0].takes_indices else typed
    return lambda settle: walk(chain, named, loss, None, samples, y, spec.training, settle)


def _remembering(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, with the result of its first call kept for others on the same objects."""
    first: list[tuple[Any, ...]] = []

    def call(*arguments: Any) -> Any:
        parts = tuple(part for a in arguments for part in (vars(a).values() if isinstance(a, Saved) else (a,)))
        if first and all(part is before for part, before in zip(parts, first[0], strict=True)):
            return first[1][0]
        result = function(*arguments)
        if not first:
            first.extend([parts, (result,)])
        return result

    return call


def _walk(
    spec: Spec, weights: Weights, x: Any, y: np.ndarray, number: Callable[[np.ndarray], Any], settle: Settle
) -> None:
    chain = _with_weights(spec, weights, number)
    x = x if chain.layers[0].takes_indices else number(x.astype(spec.dtype))
    described = layers(chain, spec.training)
    walk(chain, described, losses.get(spec.loss), optimizers.get(spec.optimizer), x, y, spec.training, settle)


def _fixed(spec: Spec, shape: Any) -> tuple[int, ...]:
    if shape is None or any(n is None for n in shape[1:]):
        raise UsageError(f"{spec.name}: every size but the batch must be fixed; received the shape {shape}")
    return tuple(shape[1:])


def _with_weights(
    spec: Spec,
    weights: Weights,
    number: Callable[[np.ndarray], Any],
    custom_objects: Mapping[str, Any] | None = None,
) -> Chain:
    chain = build(spec.uninitialized("zeros" if custom_objects else UNDRAWN), custom_objects)
    chain.set_weights([weights[f"{layer.name}/{name}"] for layer in chain.layers for name in layer.weights])
    for layer in chain.layers:
        layer.weights = {name: number(weight) for name, weight in layer.weights.items()}
    return chain
