"""The update rules of SGD, RMSprop and Adam as a textbook has them, in pieces that a mistake can replace.

`run` is the loop over the steps. What a step computes is cut into small methods, each of them one line of the formula;
`parity.mistakes.training` makes a wrong rule by putting another function in the place of one of them. The rules are
Keras's, where books differ from each other; they take their constants from Keras's config.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["Adam", "Arrays", "Path", "RMSprop", "Rule", "restarted", "rule_for", "run"]

Arrays = list[np.ndarray]
"""One array for each tensor."""

Path = list[Arrays]
"""The weights after each step."""

State = dict[str, Any]


class Rule:
    """What all optimizers have: clipping, then weight decay, then a change that is subtracted.

    config: Keras's; decays: which tensors the weight decay is for.
    """

    kind = ""

    def __init__(self, config: Mapping[str, Any], decays: Sequence[bool]):
        self.config = dict(config)
        self.decays = list(decays)
        self.weight_decay = config.get("weight_decay") or 0.0
        self.clipnorm = config.get("clipnorm") or 0.0
        self.global_clipnorm = config.get("global_clipnorm") or 0.0
        self.clipvalue = config.get("clipvalue") or 0.0
        self.momentum = config.get("momentum") or 0.0

    # -- what is used at a step, t = 1, 2, ... -------------------------------------------------------------------------

    def given(self, t: int, gradients: Sequence[Arrays]) -> Arrays:
        """The gradients that step t works with."""
        return gradients[t - 1]

    def rate(self, t: int, rates: Sequence[float]) -> float:
        """The learning rate of step t."""
        return rates[t - 1]

    def count(self, t: int, index: int, tensors: int) -> int:
        """The number of the step, as the rule counts it for the tensor `index`."""
        return t

    def states(self, before: list[State] | None, weights: Arrays) -> list[State]:
        """The state of each tensor at the start of a step; `before` is None at the first."""
        return [self.zero_state(w) for w in weights] if before is None else before

    # -- clipping ------------------------------------------------------------------------------------------------------

    @property
    def bound(self) -> float:
        """The number that gradients are clipped to; 0 for no clipping. Keras takes one of the three."""
        return self.clipnorm or self.global_clipnorm or self.clipvalue

    def clip(self, gradients: Arrays) -> Arrays:
        """g min(1, c / |g|), with the norm of each tensor or of all; or every element between -c and c."""
        if self.clipvalue:
            return [np.clip(g, -self.clipvalue, self.clipvalue) for g in gradients]
        return [self.shorten(g, norm) for g, norm in zip(gradients, self.norms(gradients), strict=True)]

    def norms(self, gradients: Arrays) -> list[float]:
        """The norm that decides about each tensor."""
        if self.global_clipnorm:
            return [float(np.sqrt(sum(np.sum(g * g) for g in gradients)))] * len(gradients)
        return [float(np.sqrt(np.sum(g * g))) for g in gradients]

    def shorten(self, g: np.ndarray, norm: float) -> np.ndarray:
        """The gradient, made as long as is allowed where it is longer."""
        return g * (self.bound / norm) if norm > self.bound else g

    def finish(self, changes: Arrays, lr: float) -> Arrays:
        """The changes as they are applied."""
        return changes

    # -- one tensor ----------------------------------------------------------------------------------------------------

    def penalize(self, g: np.ndarray, w: np.ndarray, index: int) -> np.ndarray:
        """The gradient with what is added to it; Keras's weight decay is not."""
        return g

    def decay(self, w: np.ndarray, lr: float, index: int) -> np.ndarray:
        """w - lr wd w, before the update."""
        return w - lr * self.weight_decay * w if self.weight_decay and self.decays[index] else w

    def apply(self, w: np.ndarray, change: np.ndarray, lr: float, index: int) -> np.ndarray:
        return w - change

    def zero_state(self, w: np.ndarray) -> State:
        raise NotImplementedError

    def change(self, g: np.ndarray, state: State, lr: float, t: float) -> np.ndarray:
        """What is subtracted from the weight; the state becomes the new one."""
        raise NotImplementedError


class SGD(Rule):
    """w = w - lr g.  With momentum:  m = mu m - lr g;  w = w + m, or w + mu m - lr g under nesterov."""

    kind = "SGD"

    def __init__(self, config: Mapping[str, Any], decays: Sequence[bool]):
        super().__init__(config, decays)
        self.nesterov = bool(config.get("nesterov"))

    def zero_state(self, w: np.ndarray) -> State:
        return {"m": np.zeros_like(w)}

    def change(self, g: np.ndarray, state: State, lr: float, t: float) -> np.ndarray:
        old, new = state["m"], self.velocity(state["m"], g, lr)
        state["m"] = new
        return -self.move(old, new, g, lr)

    def velocity(self, m: np.ndarray, g: np.ndarray, lr: float) -> np.ndarray:
        return self.momentum * m - lr * g

    def move(self, old: np.ndarray, new: np.ndarray, g: np.ndarray, lr: float) -> np.ndarray:
        """What is added to the weight."""
        return self.momentum * new - lr * g if self.nesterov else new


class RMSprop(Rule):
    """v = rho v + (1 - rho) g^2;  w = w - lr g / sqrt(v + eps).

    centered: a = rho a + (1 - rho) g, and v - a^2 for v under the root. With momentum:  b = mu b + lr g / sqrt(...);
    w = w - b.
    """

    kind = "RMSprop"

    def __init__(self, config: Mapping[str, Any], decays: Sequence[bool]):
        super().__init__(config, decays)
        self.rho, self.epsilon, self.centered = config["rho"], config["epsilon"], bool(config.get("centered"))

    def zero_state(self, w: np.ndarray) -> State:
        return {name: np.zeros_like(w) for name in ("v", "a", "b")}

    def change(self, g: np.ndarray, state: State, lr: float, t: float) -> np.ndarray:
        before = state["v"]
        state["v"] = self.squares(state["v"], g)
        state["a"] = self.mean(state["a"], g)
        increment = self.increment(g, self.variance(self.used(before, state["v"]), state["a"]), t)
        if not self.momentum:
            return lr * increment
        state["b"] = self.buffer(state["b"], increment, lr)
        return self.move(state["b"], lr)

    def squares(self, v: np.ndarray, g: np.ndarray) -> np.ndarray:
        return self.rho * v + (1 - self.rho) * g * g

    def used(self, old: np.ndarray, new: np.ndarray) -> np.ndarray:
        return new

    def mean(self, a: np.ndarray, g: np.ndarray) -> np.ndarray:
        return self.rho * a + (1 - self.rho) * g

    def variance(self, v: np.ndarray, a: np.ndarray) -> np.ndarray:
        return v - a * a if self.centered else v

    def increment(self, g: np.ndarray, v: np.ndarray, t: float) -> np.ndarray:
        return g / np.sqrt(v + self.epsilon)

    def buffer(self, b: np.ndarray, increment: np.ndarray, lr: float) -> np.ndarray:
        return self.momentum * b + lr * increment

    def move(self, b: np.ndarray, lr: float) -> np.ndarray:
        return b


class Adam(Rule):
    """m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  w = w - lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps).

    This is the form before section 2.1 of Kingma and Ba 2015, with eps beside the uncorrected root ("epsilon hat").
    amsgrad: the largest v so far for v. AdamW is Adam with a weight decay.
    """

    kind = "Adam"

    def __init__(self, config: Mapping[str, Any], decays: Sequence[bool]):
        super().__init__(config, decays)
        self.beta_1, self.beta_2, self.epsilon = config["beta_1"], config["beta_2"], config["epsilon"]
        self.amsgrad = bool(config.get("amsgrad"))

    def zero_state(self, w: np.ndarray) -> State:
        return {name: np.zeros_like(w) for name in ("m", "v", "h")}

    def change(self, g: np.ndarray, state: State, lr: float, t: float) -> np.ndarray:
        old_m, old_v = state["m"], state["v"]
        self.moments(state, g)
        c1, c2 = self.corrections(t)
        m, v = self.used(old_m, state["m"], g), self.used(old_v, state["v"], g)
        state["h"] = self.largest(state["h"], v, c2)
        step = self.ratio(m, state["h"], c1, c2)
        self.keep(state, c1, c2)
        return self.scale(lr, t) * step

    def moments(self, state: State, g: np.ndarray) -> None:
        state["m"] = self.first(state["m"], g)
        state["v"] = self.second(state["v"], g, state["m"])

    def first(self, m: np.ndarray, g: np.ndarray) -> np.ndarray:
        return self.beta_1 * m + (1 - self.beta_1) * g

    def second(self, v: np.ndarray, g: np.ndarray, m: np.ndarray) -> np.ndarray:
        return self.beta_2 * v + (1 - self.beta_2) * g * g

    def used(self, old: np.ndarray, new: np.ndarray, g: np.ndarray) -> np.ndarray:
        return new

    def corrections(self, t: float) -> tuple[float, float]:
        """What the moments are divided by to take away their bias towards 0."""
        return 1 - self.beta_1**t, 1 - self.beta_2**t

    def largest(self, h: np.ndarray, v: np.ndarray, c2: float) -> np.ndarray:
        return np.maximum(h, v) if self.amsgrad else v

    def ratio(self, m: np.ndarray, v: np.ndarray, c1: float, c2: float) -> np.ndarray:
        return (m / c1) * np.sqrt(c2) / (np.sqrt(v) + self.epsilon)

    def scale(self, lr: float, t: float) -> float:
        return lr

    def keep(self, state: State, c1: float, c2: float) -> None:
        """What becomes of the moments after the step: they stay as they are."""


_RULES: dict[str, type[Rule]] = {"SGD": SGD, "RMSprop": RMSprop, "Adam": Adam, "AdamW": Adam}


def rule_for(name: str, config: Mapping[str, Any], decays: Sequence[bool]) -> Rule | None:
    """The rule of Keras's optimizer of this class name; None for one that is not written down here."""
    return _RULES[name](config, decays) if name in _RULES else None


def run(rule: Rule, weights: Arrays, gradients: Sequence[Arrays], rates: Sequence[float]) -> Path:
    """The weights after each step. Nothing that is given is changed. Weights that are not finite begin again."""
    path: Path = []
    start = weights
    states: list[State] | None = None
    with np.errstate(all="ignore"):
        for t in range(1, len(rates) + 1):
            weights = restarted(path[-1], start) if path else start
            lr = rule.rate(t, rates)
            clipped = rule.clip(rule.given(t, gradients)) if rule.bound else rule.given(t, gradients)
            states = rule.states(states, weights)
            changes, decayed = [], []
            for index, (w, g, state) in enumerate(zip(weights, clipped, states, strict=True)):
                count = np.float64(rule.count(t, index, len(weights)))  # whose division by 0 is infinite
                decayed.append(rule.decay(w, lr, index))
                changes.append(rule.change(rule.penalize(g, w, index), state, lr, count))
            finished = zip(decayed, rule.finish(changes, lr), strict=True)
            weights = [rule.apply(w, change, lr, index) for index, (w, change) in enumerate(finished)]
            path.append(weights)
    return path


def restarted(weights: Arrays, start: Arrays) -> Arrays:
    """The weights, with those of the start where they are not finite.

    What is added to nan stays nan, so that all later steps would be lost: any two rules that begin with nan agree.
    """
    finite = (np.isfinite(w) for w in weights)
    return [w if f.all() else np.where(f, w, s) for w, s, f in zip(weights, start, finite, strict=True)]
