"""A model as plain data: Keras's own Sequential config, and what else a run of it needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["DTYPES", "Spec"]

DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Spec:
    """One network with one loss, ready to be built by any runner.

    config: what `keras.Sequential.get_config()` returns; loss: a Keras name or config; dtype: of all layers, weights
    and the loss; optimizer: whose first step is compared, None for no step; training: whether layers run in training
    mode; seed: of the probe.
    """

    name: str
    config: Mapping[str, Any]
    loss: Any
    dtype: str = "float32"
    optimizer: Any = "sgd"
    training: bool = True
    seed: int = 0

    def with_dtype(self, dtype: str) -> Spec:
        """The same network in another dtype, throughout; also where the config does not say any, as one that was
        written by hand."""
        config = _retyped(json.loads(json.dumps(self.config)), dtype)
        layers = [{**entry, "config": {**entry["config"], "dtype": dtype}} for entry in config.get("layers", ())]
        return replace(self, dtype=dtype, config={**config, "dtype": dtype, "layers": layers})

    def seeded(self) -> Spec:
        """The same network, with a seed in every layer that would draw its own: both sides must drop the same cells."""
        config = json.loads(json.dumps(self.config))
        for index, entry in enumerate(config.get("layers", ())):
            if "seed" in entry["config"] and entry["config"]["seed"] is None:
                entry["config"]["seed"] = self.seed + index
        return replace(self, config=config)

    def uninitialized(self, initializer: Any = "zeros") -> Spec:
        """The same network with initial weights that cost nothing to make, for one that is given others."""

        def entry(layer: Any) -> Any:
            settings = {k: initializer if k.endswith("_initializer") else v for k, v in layer["config"].items()}
            return {**layer, "config": settings}

        return replace(self, config={**self.config, "layers": [entry(each) for each in self.config["layers"]]})

    @property
    def loss_name(self) -> str:
        """The loss in one word, as it was given: a name, or the class of a config."""
        return _one_word(self.loss)

    @property
    def optimizer_name(self) -> str | None:
        """The optimizer in one word; None where no step is compared."""
        return None if self.optimizer is None else _one_word(self.optimizer)


def _one_word(entry: Any) -> str:
    if not isinstance(entry, Mapping):
        return str(entry)
    settings = entry.get("config", {})
    return str(settings.get("name") or entry["class_name"]) if isinstance(settings, Mapping) else str(settings)


def _retyped(node: Any, dtype: str) -> Any:
    """Every "dtype" entry of a config replaced. Shared objects of a saved config are written out in full."""
    if isinstance(node, dict):
        kept = {key: _retyped(value, dtype) for key, value in node.items() if key != "shared_object_id"}
        return {key: dtype if key == "dtype" else value for key, value in kept.items()}
    return [_retyped(value, dtype) for value in node] if isinstance(node, list) else node
