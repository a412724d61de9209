"""The first steps of training: what Keras's optimizer makes of the weights, step after step, and whether scratchnet's
`fit` does the same.

In float64, on one batch, one step behind the other, so an error of one step is in all that follow. Two right runs drift
apart, too: by how much is measured, with scratchnet's own run from start weights that are off by a rounding error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from parity import compare, oracle
from parity.compare import Row
from parity.errors import UsageError
from parity.report import Check
from parity.runners import keras, scratch
from parity.spec import Spec
from parity.trace import LOSS, Place, Weights

__all__ = ["apart", "judged", "recorded"]

Steps = Sequence[Mapping[str, np.ndarray]]
"""For each step the loss in front of it, under `loss`, and the weights behind it."""

ROUNDING = 2.0**-50
"""By how much of itself each weight is moved to see how rounding grows: eight units in the last place, about the error
of a sum over a layer."""


def recorded(spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, steps: int) -> Steps:
    """So many steps of Keras's. UsageError where scratchnet has no such optimizer, or the network drops cells at
    random: from the second step on the two draw different ones."""
    if not steps:
        return ()
    if spec.optimizer is None:
        raise UsageError(
            f"{spec.name}: steps of training need an optimizer that scratchnet has; compile the model with one"
        )
    if scratch.Network.of(spec).drops:
        raise UsageError(
            f"{spec.name}: drops cells at random, other ones at each step; leave the steps of training out"
        )
    return keras.trained(spec.with_dtype("float64"), _wide(weights), x, y, steps)


def judged(spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, reference: Steps) -> Check:
    """scratchnet's `fit` against recorded steps."""
    spec, weights = spec.with_dtype("float64"), _wide(weights)
    ours, others = _side_by_side(spec, weights, x, y, len(reference))
    return Check(
        network=f"{spec.name}, {len(reference)} steps of {spec.optimizer_name}",
        loss=spec.loss_name,
        dtype=spec.dtype,
        modes=("eager",),
        rows=_rows(ours, others, ours, reference),
        skipped={},
        powerless=_powerless(weights, reference),
    )


def apart(
    spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, subject: Steps, reference: Steps
) -> tuple[Row, ...]:
    """How far recorded steps are from as many others of the same network."""
    spec, weights = spec.with_dtype("float64"), _wide(weights)
    return _rows(*_side_by_side(spec, weights, x, y, len(reference)), subject, reference)


def _side_by_side(spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, steps: int) -> tuple[Steps, Steps]:
    """scratchnet's steps, and those from start weights that are off by a rounding error."""
    rng = np.random.default_rng([spec.seed, 4])
    moved = {n: w * (1 + ROUNDING * rng.standard_normal(w.shape)) for n, w in weights.items()}
    return _trained(spec, weights, x, y, steps), _trained(spec, moved, x, y, steps)


def _rows(ours: Steps, others: Steps, subject: Steps, reference: Steps) -> tuple[Row, ...]:
    together = enumerate(zip(ours, others, subject, reference, strict=True), start=1)
    return tuple(
        _row(f"step {index}/{name}", compared[name], recorded[name], _spread(mine[name], beside[name]))
        for index, (mine, beside, compared, recorded) in together
        for name in recorded
    )


def _row(name: str, subject: np.ndarray, reference: np.ndarray, rounding: float) -> Row:
    place = Place(name, f"{name.partition('/')[0]} of training", "update")
    gate = (compare.GATE + compare.GATE_OF_NETWORK) * float(np.max(np.abs(reference), initial=0.0))
    return compare.judge(place, subject, reference, gate + oracle.NOISE * rounding)


def _spread(mine: np.ndarray, beside: np.ndarray) -> float:
    """The root mean square of what a rounding error at the start has become."""
    return float(np.sqrt(np.mean(np.square(np.asarray(beside) - mine)))) if np.size(mine) else 0.0


def _powerless(weights: Weights, reference: Steps) -> str:
    same = all(np.array_equal(reference[-1][name], weight) for name, weight in weights.items())
    return "the recorded steps do not change any weight" if same else ""


def _trained(spec: Spec, weights: Weights, x: np.ndarray, y: np.ndarray, steps: int) -> Steps:
    """So many epochs of scratchnet's `fit`, of one batch each."""
    chain = scratch.build(spec)
    chain.compile(spec.optimizer, spec.loss)
    names = [f"{layer.name}/{name}" for layer in chain.layers for name in layer.weights]
    chain.set_weights([weights[name] for name in names])
    x = x if chain.layers[0].takes_indices else x.astype(np.float64)
    found = []
    for _ in range(steps):
        history = chain.fit(x, y, batch_size=len(x), shuffle=False, verbose=0).history
        after = dict(zip(names, (np.array(weight) for weight in chain.get_weights()), strict=True))
        found.append({LOSS: np.asarray(history["loss"][0]), **after})
    return found


def _wide(weights: Weights) -> Weights:
    return {name: array.astype(np.float64) for name, array in weights.items()}
