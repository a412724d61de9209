"""What a golden is: networks with their inputs, and everything that Keras computed with them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity.runners.scratch import Network
from parity.sketch import Sketch
from parity.spec import Spec
from parity.trace import Weights

__all__ = ["Golden", "Recording", "Run", "Tensor", "point"]

Tensor = np.ndarray | Sketch
"""As it was, or its sketch."""


@dataclass(frozen=True, eq=False)
class Run:
    """One run of Keras. point: at which weights, samples and labels; dtype, mode: as in `parity.check`; tensors: those
    of its trace but for the samples themselves."""

    point: str
    dtype: str
    mode: str
    tensors: Mapping[str, Tensor]

    @property
    def key(self) -> tuple[str, str, str]:
        return self.point, self.dtype, self.mode


@dataclass(frozen=True, eq=False)
class Recording:
    """One network with one loss, its inputs, and every run of it that a check of scratchnet or of somebody's own
    network compares with.

    weights: `<layer>/<weight>` -> array; a digest for one that the seed gives again. source: what the samples are.
    used: dtype -> tensor -> how much of its budget scratchnet used of it when this was recorded. described: of a
    network with layers that scratchnet does not have. steps: of training, one behind the other, each with `loss` and
    the weights after it.
    """

    spec: Spec
    weights: Mapping[str, np.ndarray | str]
    x: np.ndarray
    y: np.ndarray
    source: str
    modes: tuple[str, ...]
    runs: tuple[Run, ...]
    used: Mapping[str, Mapping[str, float]]
    described: Network | None = None
    steps: tuple[Mapping[str, np.ndarray], ...] = ()

    @property
    def name(self) -> str:
        """Network and loss, in words."""
        inference = "" if self.spec.training else ", in inference"
        return f"{self.spec.name}, {self.spec.loss_name}{inference}"

    @property
    def sketched(self) -> int:
        """How many tensors are sketches."""
        return sum(isinstance(tensor, Sketch) for run in self.runs for tensor in run.tensors.values())


@dataclass(frozen=True, eq=False)
class Golden:
    """One file. environment: where it was recorded: versions, and what else moves the last bits."""

    recordings: tuple[Recording, ...]
    environment: Mapping[str, Any] = field(default_factory=dict)


def point(weights: Weights, x: np.ndarray, y: np.ndarray) -> str:
    """A digest of weights, samples and labels, the same in every dtype that holds their numbers."""
    digest = hashlib.sha256()
    for name, array in (*weights.items(), ("x", x), ("y", y)):
        digest.update(f"{name} {np.shape(array)} ".encode())
        digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    return digest.hexdigest()
