"""compile, fit, evaluate, predict: the training loop around the two chains, batch for batch as Keras runs it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scratchnet import losses, metrics, optimizers, philox, seeding
from scratchnet.sequential import Chain

__all__ = ["History", "Sequential"]

BATCH_SIZE = 32  # Keras's default


@dataclass
class History:
    """What `fit` returns: history["loss"][e] is the loss of epoch e; so for metrics and, as val_..., validation."""

    history: dict[str, list[float]] = field(default_factory=dict)
    epoch: list[int] = field(default_factory=list)


class Sequential(Chain):
    """A Keras Sequential in NumPy: the same layers, config, weights, outputs, gradients and training."""

    loss: losses.Loss | None = None
    optimizer: optimizers.Optimizer

    def compile(self, optimizer: Any = "sgd", loss: Any = None, metrics: Sequence[Any] = ()) -> None:
        """Choose the loss, the optimizer and the metrics: names, configs or instances, as in Keras."""
        self.optimizer = optimizers.get(optimizer)
        self.loss = losses.get(loss)
        self.metrics = list(metrics or ())
        self._state: dict[tuple[str, str], dict[str, np.ndarray]] = {}

    def fit(
        self,
        x: np.ndarray,
        y: np.ndarray,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        validation_split: float = 0.0,
        validation_data: tuple[np.ndarray, ...] | None = None,
        shuffle: bool = True,
        sample_weight: np.ndarray | None = None,
    ) -> History:
        """Train. x: (samples, ...), y: (samples, ...).

        shuffle permutes the samples and then cuts batches, the last one short. After `set_random_seed(s)` every epoch
        has the *same* permutation, as in Keras; without it each has a new one. validation_split holds out the last
        rows, before any shuffling. verbose prints a line for each epoch, unless 0.
        """
        loss = self._loss("fit")
        _same_length(x, y, sample_weight)
        if validation_split:
            if not 0 < validation_split < 1:
                raise ValueError(f"validation_split must be in [0, 1); received {validation_split}")
            kept = int(np.floor(len(x) * (1 - validation_split)))
            validation_data = tuple(part[kept:] for part in (x, y, sample_weight) if part is not None)
            x, y, sample_weight = x[:kept], y[:kept], None if sample_weight is None else sample_weight[:kept]
        result = History()
        for epoch in range(epochs):
            averages = _Averages()
            for rows in _batches(len(x), batch_size or BATCH_SIZE, _order(len(x)) if shuffle else None):
                weight = None if sample_weight is None else sample_weight[rows]
                self._train_batch(loss, x[rows], y[rows], weight, averages)
            logs = averages.result()
            if validation_data is not None:
                held_out = self._evaluate(loss, *validation_data, batch_size=batch_size)
                logs.update({f"val_{name}": value for name, value in held_out.items()})
            result.epoch.append(epoch)
            for name, value in logs.items():
                result.history.setdefault(name, []).append(value)
            if verbose:
                shown = " - ".join(f"{name}: {value:.4f}" for name, value in logs.items())
                print(f"Epoch {epoch + 1}/{epochs} - {shown}")
        return result

    def evaluate(
        self,
        x: np.ndarray,
        y: np.ndarray,
        batch_size: int | None = None,
        sample_weight: np.ndarray | None = None,
        return_dict: bool = False,
    ) -> Any:
        """The loss, then the metrics if there are any: a number, a list, or a dict."""
        _same_length(x, y, sample_weight)
        logs = self._evaluate(self._loss("evaluate"), x, y, sample_weight, batch_size=batch_size)
        if return_dict:
            return logs
        values = list(logs.values())
        return values if len(values) > 1 else values[0]

    def predict(self, x: np.ndarray, batch_size: int | None = None) -> np.ndarray:
        """The outputs, computed in batches; (samples, ...)."""
        return np.concatenate([self.forward(x[rows]).output for rows in _batches(len(x), batch_size or BATCH_SIZE)])

    def _train_batch(
        self, loss: losses.Loss, x: np.ndarray, y: np.ndarray, weight: np.ndarray | None, averages: "_Averages"
    ) -> None:
        passed = self.forward(x, training=True)
        value = loss.forward(y, passed.output, passed.logits, weight) + self.penalty()
        gradients = self.backward(passed, loss, y, weight)
        self._update(gradients.layers)
        for layer, saved in zip(self.layers, passed.saved, strict=True):
            layer.store(saved.updates)
        self._observe(averages, value, y, passed.output)

    def _update(self, gradients: Sequence[Any]) -> None:
        for layer, by_layer in zip(self.layers, gradients, strict=True):
            for name, gradient in by_layer.weights.items():
                weight = layer.weights[name]
                state = self._state.get((layer.name or "", name)) or self.optimizer.zero_state(weight)
                layer.weights[name], self._state[layer.name or "", name] = self.optimizer.step(weight, gradient, state)

    def _evaluate(
        self,
        loss: losses.Loss,
        x: np.ndarray,
        y: np.ndarray,
        sample_weight: np.ndarray | None = None,
        *,
        batch_size: int | None,
    ) -> dict[str, float]:
        averages = _Averages()
        for rows in _batches(len(x), batch_size or BATCH_SIZE):
            passed = self.forward(x[rows])
            weight = None if sample_weight is None else sample_weight[rows]
            value = loss.forward(y[rows], passed.output, passed.logits, weight) + self.penalty()
            self._observe(averages, value, y[rows], passed.output)
        return averages.result()

    def _observe(self, averages: "_Averages", loss: np.ndarray, y_true: np.ndarray, y_pred: np.ndarray) -> None:
        averages.add("loss", float(loss), len(y_pred))
        for identifier in self.metrics:
            metric = metrics.get(identifier, y_true, y_pred)
            values = metric.per_sample(y_true, y_pred)
            averages.add(metric.name, float(np.mean(values)), values.size)

    def _loss(self, what: str) -> losses.Loss:
        if self.loss is None:
            raise ValueError(f"{what}: the network has no loss; call compile(optimizer=..., loss=...) first")
        return self.loss


class _Averages:
    """Means over an epoch, each batch weighted with its size, so a short last batch counts less."""

    def __init__(self) -> None:
        self.totals: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def add(self, name: str, mean: float, count: int) -> None:
        self.totals[name] = self.totals.get(name, 0.0) + mean * count
        self.counts[name] = self.counts.get(name, 0) + count

    def result(self) -> dict[str, float]:
        return {name: total / self.counts[name] for name, total in self.totals.items()}


def _order(n: int) -> np.ndarray:
    seed = seeding.global_seed()
    return np.random.default_rng().permutation(n) if seed is None else philox.permutation(n, seed)


def _batches(n: int, size: int, order: np.ndarray | None = None) -> Iterator[Any]:
    for start in range(0, n, size):
        yield slice(start, start + size) if order is None else order[start : start + size]


def _same_length(x: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None) -> None:
    lengths = {"x": len(x), "y": len(y)} | ({} if sample_weight is None else {"sample_weight": len(sample_weight)})
    if len(set(lengths.values())) > 1 or lengths["x"] == 0:
        raise ValueError(f"expected the same number of samples, at least one, in all arrays; received {lengths}")
