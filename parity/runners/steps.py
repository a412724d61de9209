"""A run of scratchnet taken apart: one `Operation` for each forward or backward step, with all that goes in and out.

`walk` performs them in the order of data flow and asks `settle` after each one which results to go on with: its own
(a run), the reference's (the local pass: an error then stays in the operation that makes it), or wrong ones (to plant a
mistake). Mistakes are functions of an Operation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity import trace
from parity.budget import Bounded, roundings
from scratchnet.activations import Linear
from scratchnet.layers import Layer, Saved
from scratchnet.losses import Loss
from scratchnet.optimizers import Optimizer
from scratchnet.registry import Entry
from scratchnet.sequential import Chain

__all__ = ["Operation", "Settle", "walk"]


@dataclass(frozen=True)
class Operation:
    """One step of a run.

    entry: the registered object that computes it; direction: forward, backward or update; layer: whose step it is.
    inputs and outputs are arrays by short names, which are the ones of the formulas in the docstring of the entry's
    class: x, z, y, dy, dz, dx; y_true, y_pred, logits, loss, d; a weight's own name for the weight as an input, and as
    an output for its new value (forward) or the gradient by it (backward). tensors: output -> its name in a trace,
    where it has one. terms: what the layer's forward saved for its backward; a mistake that leaves other terms has them
    among its outputs. following: the layers behind this one, nearest first.
    """

    entry: Any  # the registered object; its arguments are attributes
    direction: str
    layer: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    tensors: Mapping[str, str]
    terms: Any = None
    training: bool = True
    context: Mapping[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> str:
        return self.entry.family

    @property
    def kind(self) -> str:
        """The registered name of the entry: Dense, tanh, MeanSquaredError."""
        return self.entry.registered_name

    def __getitem__(self, name: str) -> Any:
        return self.inputs[name]

    def __contains__(self, name: str) -> bool:
        return name in self.inputs


Settle = Callable[[Operation], Mapping[str, Any]]


def walk(
    chain: Chain,
    layers: Sequence[trace.Layer],
    loss: Loss,
    optimizer: Optimizer | None,
    x: Any,
    y: Any,
    training: bool,
    settle: Settle,
) -> None:
    """Forward, loss, backward and one update of every weight."""
    walker = _Walk(chain, layers, loss, x, y, training, settle)
    walker.forward()
    walker.loss_forward()
    walker.backward()
    if optimizer is not None:
        walker.update(optimizer)


class _Walk:
    def __init__(
        self, chain: Chain, layers: Sequence[trace.Layer], loss: Loss, x: Any, y: Any, training: bool, settle: Settle
    ):
        self.chain, self.layers, self.loss = chain, layers, loss
        self.x, self.y, self.training, self.settle = x, y, training, settle
        self.saved: list[Saved] = []
        self.gradients: dict[str, Any] = {}
        self.logits: Any = None
        self.rows: Any = None  # the last dz: of the first layer, when all are done
        self.by_logits: int | None = None  # the layer at whose pre-activations the loss starts to go back

    def forward(self) -> None:
        x = self.x
        for layer, named in zip(self.chain.layers, self.layers, strict=True):
            z, terms, updates = layer.transform(x, self.training)
            kind = _parts(layer, named)
            if kind == "transform":
                z = layer.outer_activation.forward(z)  # linear, but run all the same: it may be what is wrong
            if kind != "activation":
                seen = trace.pre_activation(named.name) if named.has_pre_activation else trace.output(named.name)
                moved = {name: updates[name] for name in named.moving if name in updates}
                tensors = {"z": seen, **{name: trace.updated(f"{named.name}/{name}") for name in moved}}
                outputs = {"z": z, **moved}
                inputs = {"x": x, **layer.weights}
                settled = self._done(layer, "forward", named.name, inputs, outputs, tensors, terms)
                z, terms = settled["z"], settled.get("terms", terms)
            y = z
            if kind != "transform":
                y = layer.outer_activation.forward(z)
                seen = trace.output(named.name)
                y = self._done(layer.outer_activation, "forward", named.name, {"x": z}, {"y": y}, {"y": seen})["y"]
            self.saved.append(Saved(x, z, y, terms, updates))
            x = y
        at = self.chain.logits_at(self.training)
        self.logits = None if at is None else self.saved[at].z
        self.by_logits = at if self.loss.uses(self.logits) else None

    def loss_forward(self) -> None:
        penalty = self.chain.penalty()
        for layer, name, weight, regularizer in self._regularized():
            value = regularizer.forward(weight)
            settled = self._done(regularizer, "forward", layer, {"w": weight}, {"penalty": value}, {}, weight=name)
            penalty = penalty - value + settled["penalty"]
        value = self.loss.forward(self.y, self.saved[-1].y, self.logits) + penalty
        self._done(self.loss, "forward", "", self._loss_inputs(penalty=penalty), {"loss": value}, {"loss": trace.LOSS})

    def backward(self) -> None:
        last = len(self.layers) - 1 if self.by_logits is None else self.by_logits
        d: Any = self.loss.backward(self.y, self.saved[-1].y, self.logits)
        seen = trace.gradient(trace.output(self.layers[last].name))
        if self.by_logits is not None:
            seen = self._gradient_by_z(last)
            if _parts(self.chain.layers[last], self.layers[last]) == "activation":
                d, _ = self.chain.layers[last].transform_backward(self.saved[last], d)
        d = self._done(self.loss, "backward", "", self._loss_inputs(), {"d": d}, {"d": seen})["d"]
        for index in reversed(range(last + 1)):
            if index != self.by_logits:
                d = self._activation_backward(index, d)
            d = self._layer_backward(index, d)

    def update(self, optimizer: Optimizer) -> None:
        for layer, saved in zip(self.chain.layers, self.saved, strict=True):
            for name, weight in layer.trainable_weights.items():
                tensor = f"{layer.name}/{name}"
                if self.gradients[tensor].shape != weight.shape:
                    continue  # a gradient of the wrong shape is reported where it is compared
                state = optimizer.zero_state(weight)
                new: Any = optimizer.step(weight, self.gradients[tensor], state)[0]
                if layer.takes_indices and isinstance(new, Bounded):
                    new = self._row_by_row(new, optimizer, layer, saved, name)
                inputs = {"w": weight, "g": self.gradients[tensor], **state}
                self._done(
                    optimizer, "update", layer.name or "", inputs, {"w": new}, {"w": trace.updated(tensor)}, weight=name
                )

    def _row_by_row(self, new: Bounded, optimizer: Optimizer, layer: Layer, saved: Saved, name: str) -> Bounded:
        """Keras adds the rows of equal indices one by one, and each time rounds what is there so far: at most the
        weight and all rows by their magnitudes. Of 6,000 different rows it used 11 % of what is allowed here."""
        weight = np.abs(layer.weights[name])
        _, sizes = layer.transform_backward(saved, np.abs(self.rows))
        largest: Any = optimizer.step(weight, -sizes[name], optimizer.zero_state(weight))[0]
        rows, index = self.rows.value.reshape(-1, weight.shape[-1]), saved.x.reshape(-1)
        return new.rounded(max(roundings(rows[index == i].T) for i in np.unique(index)), largest)

    def _activation_backward(self, index: int, dy: Any) -> Any:
        layer, saved = self.chain.layers[index], self.saved[index]
        kind = _parts(layer, self.layers[index])
        dx: Any = layer.outer_activation.backward(saved.z, saved.y, dy)
        if kind == "transform":
            return dx
        if kind == "activation":
            dx, _ = layer.transform_backward(saved, dx)
        inputs = {"x": saved.z, "y": saved.y, "dy": dy}
        seen = {"dx": self._gradient_by_z(index)}
        return self._done(layer.outer_activation, "backward", self.layers[index].name, inputs, {"dx": dx}, seen)["dx"]

    def _layer_backward(self, index: int, dz: Any) -> Any:
        layer, named, saved = self.chain.layers[index], self.layers[index], self.saved[index]
        if _parts(layer, named) == "activation":
            return dz
        dx, grads = layer.transform_backward(saved, dz)
        self.rows = dz
        penalties = {name: r for owner, name, _, r in self._regularized() if owner == named.name}
        tensors = {n: trace.gradient(f"{named.name}/{n}") for n in layer.trainable_weights if n not in penalties}
        if dx is not None:
            tensors["dx"] = self._gradient_below(index)
        inputs = {"x": saved.x, "z": saved.z, "dz": dz, **layer.weights}
        outputs = {"dx": dx, **{name: grads[name] for name in layer.trainable_weights}}
        settled = self._done(layer, "backward", named.name, inputs, outputs, tensors, saved.terms)
        for name in layer.trainable_weights:
            g = settled[name]
            if name in penalties:
                g = self._penalize(named.name, name, layer.weights[name], g, penalties[name])
            self.gradients[f"{named.name}/{name}"] = g
        return settled["dx"]

    def _penalize(self, layer: str, name: str, weight: Any, g: Any, regularizer: Any) -> Any:
        seen = {"g": trace.gradient(f"{layer}/{name}")}
        total = g + regularizer.backward(weight)
        return self._done(regularizer, "backward", layer, {"w": weight, "g": g}, {"g": total}, seen, weight=name)["g"]

    def _regularized(self) -> list[tuple[str, str, Any, Any]]:
        return [
            (named.name, name, weight, regularizer)
            for layer, named in zip(self.chain.layers, self.layers, strict=True)
            for name, weight in layer.trainable_weights.items()
            if (regularizer := layer.regularizer_of(name)) is not None
        ]

    def _loss_inputs(self, **more: Any) -> dict[str, Any]:
        logits = {} if self.logits is None else {"logits": self.logits}
        return {"y_true": self.y, "y_pred": self.saved[-1].y, **logits, **more}

    def _gradient_by_z(self, index: int) -> str:
        if self.layers[index].has_pre_activation:
            return trace.gradient(trace.pre_activation(self.layers[index].name))
        return self._gradient_below(index)  # a layer that is only an activation: its z is its input

    def _gradient_below(self, index: int) -> str:
        return trace.gradient(trace.output(self.layers[index - 1].name) if index else trace.INPUT)

    def _done(
        self,
        entry: Entry,
        direction: str,
        layer: str,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        tensors: Mapping[str, str],
        terms: Any = None,
        **context: Any,
    ) -> Mapping[str, Any]:
        context = {"chain": self.chain, "layers": self.layers, "saved": self.saved, **context}
        operation = Operation(entry, direction, layer, inputs, outputs, tensors, terms, self.training, context)
        return {**outputs, **self.settle(operation)}


def _parts(layer: Layer, named: trace.Layer) -> str:
    """Which operations a layer is taken apart into: its transform, an activation, or both of them.

    A linear activation behind a transform is none of its own, and a layer that is only an activation has a transform
    that does nothing; both run inside the one operation that there is.
    """
    if named.kind == "Activation" or not (named.has_pre_activation or isinstance(layer.outer_activation, Linear)):
        return "activation"
    return "both" if named.has_pre_activation else "transform"
