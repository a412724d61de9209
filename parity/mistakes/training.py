"""Mistakes in update rules, over all steps: what a first step cannot show.

A mistake puts another function in the place of one piece of a rule (`parity.mistakes.update_rules`); the wrong rule is
then run over the same gradients as the code under test, and explains it only if every weight after every step agrees.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.mistakes.update_rules import Rule

__all__ = ["ANY", "WrongRule", "constants", "made", "rules_for", "wrong_rules"]

Change = Callable[[Any], bool | None]
"""Changes the rule that it is given; False where this rule has no such place."""

ANY = "any"


@dataclass(frozen=True)
class WrongRule:
    """One known way to write an update that is not Keras's.

    code: stable, for programs; on: the rule's kind, or `any`; text: what is wrong, to the person who wrote it; right,
    wrong: the formulas. convention: who does it that way, for what is no mistake: both are right, and they differ.
    """

    code: str
    on: str
    text: str
    right: str
    wrong: str
    function: Change
    convention: str = ""


def made(rule: Rule, changes: Sequence[WrongRule]) -> Rule | None:
    """The rule with all of these changes; None where this one cannot be wrong in this way."""
    changed = copy.copy(rule)  # one copy for all: each sees what the others made of it
    possible = all(one.on in (ANY, rule.kind) and one.function(changed) is not False for one in changes)
    return changed if possible else None


_CATALOGUE: dict[str, WrongRule] = {}


def wrong(code: str, *, on: str, text: str, right: str, wrong: str, convention: str = "") -> Callable[[Change], Change]:
    """Enter a function into the catalogue."""

    def enter(function: Change) -> Change:
        if code in _CATALOGUE:
            raise ValueError(f"the wrong rule {code!r} is in the catalogue twice")
        _CATALOGUE[code] = WrongRule(code, on, text, right, wrong, function, convention)
        return function

    return enter


def wrong_rules() -> tuple[WrongRule, ...]:
    """All of them, in the order of the source."""
    return tuple(_CATALOGUE.values())


def rules_for(rule: Rule) -> list[WrongRule]:
    """Those that this rule can have, the wrong constants last."""
    return [one for one in (*wrong_rules(), *constants(rule)) if made(rule, [one]) is not None]


# -- wrong constants ---------------------------------------------------------------------------------------------------

VALUES = {
    "epsilon": (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-10, 1e-12, 0.0),
    "momentum": (0.9, 0.99, 0.95, 0.8, 0.5, 0.0),
    "rho": (0.9, 0.99, 0.95, 0.999, 0.8, 0.5),
    "beta_1": (0.9, 0.99, 0.95, 0.8, 0.5, 0.0),
    "beta_2": (0.999, 0.99, 0.9, 0.95, 0.98, 0.9999),
    "weight_decay": (1e-4, 4e-3, 5e-4, 1e-3, 1e-2, 5e-2, 1e-1),
}
"""The values that other libraries, papers and courses have."""


SCALES = (2.0, 0.5, *(1 / batch for batch in (8, 10, 16, 20, 32, 50, 64, 100, 128, 256)))
"""Factors on a gradient: of a square without its half, of usual batch sizes."""


def constants(rule: Rule) -> Iterator[WrongRule]:
    """Rules with another usual value of a constant that this one uses, or with a factor on the gradient, where that is
    more than a factor on the change."""
    for factor in SCALES if rule.kind != "SGD" or rule.bound else ():
        yield WrongRule(
            "update-gradient-scaled",
            ANY,
            f"the gradient has a factor {factor:g}" + (f", as if divided by {1 / factor:g}" if factor < 0.5 else ""),
            "g",
            f"{factor:g} g",
            functools.partial(_scaled, factor=factor),
        )
    for name, values in VALUES.items():
        right = getattr(rule, name, 0.0)
        for value in values if right else ():
            if value != right:
                yield WrongRule(
                    f"{rule.kind.lower()}-{name.replace('_', '-')}-value",
                    rule.kind,
                    f"{name} is {value:g}, Keras's is {right:g}",
                    f"{name} = {right:g}",
                    f"{name} = {value:g}",
                    lambda changed, name=name, value=value: setattr(changed, name, value),  # type: ignore[misc]
                )


def _scaled(rule: Any, factor: float) -> None:
    rule.given = lambda t, gradients: [factor * g for g in gradients[t - 1]]


# -- any rule ----------------------------------------------------------------------------------------------------------


@wrong(
    "update-missing",
    on=ANY,
    text="the weights do not move: return the new ones, or change the arrays in place (w -= ..., not w = w - ...)",
    right="w = w - change",
    wrong="w = w",
)
def _(rule: Any) -> None:
    rule.decay = lambda w, lr, index: w
    rule.apply = lambda w, change, lr, index: w


@wrong(
    "update-ascent",
    on=ANY,
    text="the step goes uphill: subtract the change",
    right="w = w - change",
    wrong="w = w + change",
)
def _(rule: Any) -> None:
    rule.apply = lambda w, change, lr, index: w + change


@wrong(
    "update-twice",
    on=ANY,
    text="each update is applied twice",
    right="w = w - change",
    wrong="w = w - 2 change",
)
def _(rule: Any) -> None:
    rule.apply = lambda w, change, lr, index: w - 2 * change


@wrong(
    "update-without-learning-rate",
    on=ANY,
    text="the learning rate is missing",
    right="w = w - lr ...",
    wrong="w = w - ...",
)
def _(rule: Any) -> bool | None:
    if rule.weight_decay:
        return False  # there it multiplies two things
    rule.rate = lambda t, rates: 1.0
    return None


@wrong(
    "update-learning-rate-twice",
    on=ANY,
    text="the learning rate is multiplied in twice",
    right="w = w - lr ...",
    wrong="w = w - lr^2 ...",
)
def _(rule: Any) -> None:
    rule.apply = lambda w, change, lr, index: w - lr * change


@wrong(
    "update-learning-rate-change-ignored",
    on=ANY,
    text="the learning rate stays what it was at the first step: read it at every step",
    right="lr_t",
    wrong="lr_1",
)
def _(rule: Any) -> None:
    rule.rate = lambda t, rates: rates[0]


@wrong(
    "update-learning-rate-late",
    on=ANY,
    text="each learning rate is used one step late",
    right="lr_t",
    wrong="lr_(t-1)",
)
def _(rule: Any) -> None:
    rule.rate = lambda t, rates: rates[max(t - 2, 0)]


@wrong(
    "update-gradient-of-step-before",
    on=ANY,
    text="the gradient of the step before is used: take the one that is given at this step",
    right="g_t",
    wrong="g_(t-1), 0 at the first step",
)
def _(rule: Any) -> None:
    rule.given = lambda t, gradients: gradients[t - 2] if t > 1 else [np.zeros_like(g) for g in gradients[0]]


@wrong(
    "update-gradient-of-first-step",
    on=ANY,
    text="the gradient of the first step is used at every step",
    right="g_t",
    wrong="g_1",
)
def _(rule: Any) -> None:
    rule.given = lambda t, gradients: gradients[0]


@wrong(
    "update-gradients-added-up",
    on=ANY,
    text="the gradients of all steps so far are added up: set them to zero after each step",
    right="g_t",
    wrong="g_1 + ... + g_t",
)
def _(rule: Any) -> None:
    rule.given = lambda t, gradients: [sum(some[1:], some[0]) for some in zip(*gradients[:t], strict=True)]


@wrong(
    "update-sign-of-gradient",
    on=ANY,
    text="only the sign of the gradient is used: take its value",
    right="g",
    wrong="sign(g)",
)
def _(rule: Any) -> None:
    rule.given = lambda t, gradients: [np.sign(g) for g in gradients[t - 1]]


@wrong(
    "update-state-lost",
    on=ANY,
    text="the state starts at zero at every step: keep it from step to step",
    right="the state of the step before",
    wrong="0",
)
def _(rule: Any) -> bool | None:
    if rule.kind == "SGD" and not rule.momentum:
        return False
    rule.states = lambda before, weights: [rule.zero_state(w) for w in weights]
    return None


@wrong(
    "update-state-shared",
    on=ANY,
    text="all tensors share one state: keep one for each",
    right="one state for each tensor",
    wrong="one state",
)
def _(rule: Any) -> bool | None:
    if rule.kind == "SGD" and not rule.momentum:
        return False
    rule.states = _shared(rule)
    return None


def _shared(rule: Any) -> Callable[[Any, Any], Any]:
    def states(before: Any, weights: Any) -> Any:
        if len({w.shape for w in weights}) > 1:  # it cannot run
            return [{name: np.full_like(w, np.nan) for name in rule.zero_state(w)} for w in weights]
        return [rule.zero_state(weights[0])] * len(weights) if before is None else before

    return states


@wrong(
    "update-first-tensor-only",
    on=ANY,
    text="only the first tensor is updated: the loop ends too early",
    right="every tensor",
    wrong="the first tensor",
)
def _(rule: Any) -> None:
    rule.decay = _where(rule.decay, lambda index: index == 0)
    rule.apply = _where(rule.apply, lambda index: index == 0)


@wrong(
    "update-last-tensor-left-out",
    on=ANY,
    text="the last tensor is not updated: the loop ends one too early",
    right="every tensor",
    wrong="every tensor but the last",
)
def _(rule: Any) -> None:
    rule.decay = _where(rule.decay, lambda index: index < len(rule.decays) - 1)
    rule.apply = _where(rule.apply, lambda index: index < len(rule.decays) - 1)


@wrong(
    "update-biases-left-out",
    on=ANY,
    text="the biases are not updated",
    right="every tensor",
    wrong="the kernels",
)
def _(rule: Any) -> None:
    right = rule.apply
    rule.apply = lambda w, change, lr, index: right(w, change, lr, index) if w.ndim > 1 else w


def _where(function: Any, here: Callable[[int], bool]) -> Any:
    """The function for some tensors; the others keep their weights."""
    return lambda w, *rest: function(w, *rest) if here(rest[-1]) else w


# -- weight decay ------------------------------------------------------------------------------------------------------


def _decays(rule: Any) -> bool:
    return bool(rule.weight_decay)


@wrong(
    "decay-missing",
    on=ANY,
    text="the weight decay is missing",
    right="w = w - lr wd w",
    wrong="no decay",
)
def _(rule: Any) -> bool | None:
    if not _decays(rule):
        return False
    rule.weight_decay = 0.0
    return None


@wrong(
    "decay-in-gradient",
    on=ANY,
    text="the weight decay is added to the gradient, an L2 penalty that goes through the state; Keras's is decoupled: "
    "it shrinks the weights themselves",
    right="w = w - lr wd w, then the update by g",
    wrong="g = g + wd w, then the update by g",
)
def _(rule: Any) -> bool | None:
    return _penalized(rule, 1)


@wrong(
    "decay-in-gradient-twice",
    on=ANY,
    text="the weight decay is added to the gradient, as the derivative of wd w^2; Keras's is decoupled: it shrinks the "
    "weights themselves",
    right="w = w - lr wd w, then the update by g",
    wrong="g = g + 2 wd w, then the update by g",
)
def _(rule: Any) -> bool | None:
    return _penalized(rule, 2)


def _penalized(rule: Any, times: float) -> bool | None:
    if not _decays(rule):
        return False
    decay = times * rule.weight_decay
    rule.penalize = lambda g, w, index: g + decay * w if rule.decays[index] else g
    rule.decay = lambda w, lr, index: w
    return None


def _decay_by(rule: Any, factor: Callable[[float], float]) -> bool | None:
    if not _decays(rule):
        return False
    rule.decay = lambda w, lr, index: w - factor(lr) * w if rule.decays[index] else w
    return None


@wrong(
    "decay-without-learning-rate",
    on=ANY,
    text="the weight decay is not multiplied by the learning rate",
    right="w = w - lr wd w",
    wrong="w = w - wd w",
)
def _(rule: Any) -> bool | None:
    return _decay_by(rule, lambda lr: rule.weight_decay)


@wrong(
    "decay-sign",
    on=ANY,
    text="the weights grow instead of decaying: change the sign",
    right="w = w - lr wd w",
    wrong="w = w + lr wd w",
)
def _(rule: Any) -> bool | None:
    return _decay_by(rule, lambda lr: -lr * rule.weight_decay)


@wrong(
    "decay-doubled",
    on=ANY,
    text="the weight decay has a factor 2, the derivative of w^2",
    right="w = w - lr wd w",
    wrong="w = w - 2 lr wd w",
)
def _(rule: Any) -> bool | None:
    return _decay_by(rule, lambda lr: 2 * lr * rule.weight_decay)


@wrong(
    "decay-after-update",
    on=ANY,
    text="the weights decay after the update; Keras lets them decay first",
    right="w = w - lr wd w; w = w - change",
    wrong="w = w - change; w = w - lr wd w",
)
def _(rule: Any) -> bool | None:
    if not _decays(rule):
        return False
    decay, apply = rule.decay, rule.apply
    rule.decay = lambda w, lr, index: w
    rule.apply = lambda w, change, lr, index: decay(apply(w, change, lr, index), lr, index)
    return None


@wrong(
    "decay-not-on-biases",
    on=ANY,
    text="the biases do not decay; Keras's do, unless exclude_from_weight_decay names them",
    right="every tensor decays",
    wrong="the kernels decay",
    convention="many training scripts",
)
def _(rule: Any) -> bool | None:
    if not _decays(rule):
        return False
    decay = rule.decay
    rule.decay = lambda w, lr, index: decay(w, lr, index) if w.ndim > 1 else w
    return None


@wrong(
    "decay-not-excluded",
    on=ANY,
    text="every tensor decays, also those that exclude_from_weight_decay names",
    right="some tensors decay",
    wrong="every tensor decays",
)
def _(rule: Any) -> bool | None:
    if not _decays(rule) or all(rule.decays):
        return False
    rule.decays = [True] * len(rule.decays)
    return None


# -- clipping ----------------------------------------------------------------------------------------------------------


@wrong("clip-missing", on=ANY, text="the gradients are not clipped", right="g = clip(g)", wrong="g = g")
def _(rule: Any) -> bool | None:
    return _clip(rule, lambda gradients: gradients)


def _clip(rule: Any, clip: Callable[[Any], Any]) -> bool | None:
    if not rule.bound:
        return False
    rule.clip = clip
    return None


@wrong(
    "clip-global-for-each",
    on=ANY,
    text="the norm is taken over all tensors together (Keras's global_clipnorm); clipnorm is for each tensor",
    right="g min(1, c / |g|)",
    wrong="g min(1, c / |all g|)",
)
def _(rule: Any) -> bool | None:
    if not rule.clipnorm:
        return False
    rule.norms = lambda gradients: [float(np.sqrt(sum(np.sum(g * g) for g in gradients)))] * len(gradients)
    return None


@wrong(
    "clip-each-for-global",
    on=ANY,
    text="the norm is taken of each tensor (Keras's clipnorm); global_clipnorm is over all together",
    right="g min(1, c / |all g|)",
    wrong="g min(1, c / |g|)",
)
def _(rule: Any) -> bool | None:
    if not rule.global_clipnorm:
        return False
    rule.norms = lambda gradients: [float(np.sqrt(np.sum(g * g))) for g in gradients]
    return None


@wrong(
    "clip-value-for-norm",
    on=ANY,
    text="every element is clipped (Keras's clipvalue): the norm is to be clipped",
    right="g min(1, c / norm)",
    wrong="clip(g, -c, c)",
)
def _(rule: Any) -> bool | None:
    return False if rule.clipvalue else _clip(rule, lambda all_: [np.clip(g, -rule.bound, rule.bound) for g in all_])


@wrong(
    "clip-norm-for-value",
    on=ANY,
    text="the norm is clipped (Keras's clipnorm): every element is to be clipped",
    right="clip(g, -c, c)",
    wrong="g min(1, c / |g|)",
)
def _(rule: Any) -> bool | None:
    def clip(gradients: Any) -> Any:
        return [rule.shorten(g, float(np.sqrt(np.sum(g * g)))) for g in gradients]

    return _clip(rule, clip) if rule.clipvalue else False


@wrong(
    "clip-above-only",
    on=ANY,
    text="gradients are clipped above only: below -c as well",
    right="clip(g, -c, c)",
    wrong="minimum(g, c)",
)
def _(rule: Any) -> bool | None:
    return _clip(rule, lambda all_: [np.minimum(g, rule.bound) for g in all_]) if rule.clipvalue else False


def _shorten(rule: Any, shorten: Callable[[Any, float], Any]) -> bool | None:
    if not rule.bound or rule.clipvalue:
        return False
    rule.shorten = shorten
    return None


@wrong(
    "clip-always",
    on=ANY,
    text="gradients are brought to the norm c also where they are shorter",
    right="g min(1, c / norm)",
    wrong="g c / norm",
)
def _(rule: Any) -> bool | None:
    return _shorten(rule, lambda g, norm: g * (rule.bound / norm) if norm else g)


@wrong(
    "clip-to-one",
    on=ANY,
    text="gradients that are too long are brought to the norm 1, not c",
    right="g c / norm",
    wrong="g / norm",
)
def _(rule: Any) -> bool | None:
    if rule.bound == 1:
        return False
    return _shorten(rule, lambda g, norm: g / norm if norm > rule.bound else g)


@wrong(
    "clip-by-square",
    on=ANY,
    text="the root of the sum of squares is missing in the norm",
    right="norm = sqrt(sum(g^2))",
    wrong="norm = sum(g^2)",
)
def _(rule: Any) -> bool | None:
    right = rule.shorten
    return _shorten(rule, lambda g, norm: right(g, norm * norm))


@wrong(
    "clip-with-epsilon",
    on=ANY,
    text="1e-6 is added to the norm; Keras adds nothing",
    right="g min(1, c / norm)",
    wrong="g min(1, c / (norm + 1e-6))",
    convention="PyTorch's clip_grad_norm_",
)
def _(rule: Any) -> bool | None:
    return _shorten(rule, lambda g, norm: g * min(1.0, rule.bound / (norm + 1e-6)))


@wrong(
    "clip-of-change",
    on=ANY,
    text="the change is clipped, after momentum and learning rate: clip the gradient, before them",
    right="change(clip(g))",
    wrong="clip(change(g))",
)
def _(rule: Any) -> bool | None:
    right = rule.clip
    if not rule.bound:
        return False
    rule.clip = lambda gradients: gradients
    rule.finish = lambda changes, lr: right(changes)
    return None


@wrong(
    "clip-after-state",
    on=ANY,
    text="the clipping comes after the momentum: clip the gradient, before it",
    right="lr state(clip(g))",
    wrong="lr clip(state(g))",
)
def _(rule: Any) -> bool | None:
    right = rule.clip
    if not rule.bound or (rule.kind == "SGD" and not rule.momentum):
        return False
    rule.clip = lambda gradients: gradients
    rule.finish = lambda changes, lr: [lr * change for change in right([change / lr for change in changes])]
    return None


# -- SGD with momentum -------------------------------------------------------------------------------------------------


def _with_momentum(rule: Any, velocity: Any = None, move: Any = None) -> bool | None:
    if not rule.momentum:
        return False
    rule.velocity = velocity or rule.velocity
    rule.move = move or rule.move
    return None


@wrong(
    "momentum-learning-rate-outside",
    on="SGD",
    text="the learning rate is outside the velocity, so a new one counts for old gradients too; in Keras it is inside",
    right="m = mu m - lr g;  w = w + m",
    wrong="v = mu v + g;  w = w - lr v",
    convention="PyTorch",
)
def _(rule: Any) -> bool | None:
    mu = rule.momentum
    return _with_momentum(
        rule,
        lambda v, g, lr: mu * v + g,
        lambda old, new, g, lr: -lr * (g + mu * new) if rule.nesterov else -lr * new,
    )


@wrong(
    "momentum-dampened",
    on="SGD",
    text="the gradient enters the velocity with the factor 1 - mu, a moving average; in Keras it enters whole",
    right="m = mu m - lr g",
    wrong="m = mu m - (1 - mu) lr g",
    convention="the moving-average form of several courses; it is Keras's with a learning rate of (1 - mu) lr",
)
def _(rule: Any) -> bool | None:
    return _with_momentum(rule, lambda m, g, lr: rule.momentum * m - (1 - rule.momentum) * lr * g)


@wrong(
    "momentum-dampened-learning-rate-outside",
    on="SGD",
    text="the velocity is a moving average with the factor 1 - mu, and the learning rate is outside it",
    right="m = mu m - lr g;  w = w + m",
    wrong="v = mu v + (1 - mu) g;  w = w - lr v",
    convention="several courses; PyTorch with dampening = mu, except for its first step",
)
def _(rule: Any) -> bool | None:
    mu = rule.momentum
    return _with_momentum(rule, lambda v, g, lr: mu * v + (1 - mu) * g, lambda old, new, g, lr: -lr * new)


@wrong(
    "momentum-missing",
    on="SGD",
    text="the momentum has no effect: this is plain gradient descent",
    right="m = mu m - lr g;  w = w + m",
    wrong="w = w - lr g",
)
def _(rule: Any) -> bool | None:
    return _with_momentum(rule, lambda m, g, lr: -lr * g, lambda old, new, g, lr: new)


@wrong(
    "momentum-velocity-sign",
    on="SGD",
    text="the old velocity enters with the wrong sign",
    right="m = mu m - lr g",
    wrong="m = -mu m - lr g",
)
def _(rule: Any) -> bool | None:
    return _with_momentum(rule, lambda m, g, lr: -rule.momentum * m - lr * g)


@wrong(
    "momentum-mixed-signs",
    on="SGD",
    text="the velocity has the sign of w = w + m, but is subtracted: old gradients count with the wrong sign",
    right="m = mu m - lr g;  w = w + m",
    wrong="m = mu m - lr g;  w = w - m",
)
def _(rule: Any) -> bool | None:
    return _with_momentum(rule, move=lambda old, new, g, lr: -new)


@wrong(
    "momentum-not-multiplied",
    on="SGD",
    text="the old velocity is not multiplied by mu",
    right="m = mu m - lr g",
    wrong="m = m - lr g",
)
def _(rule: Any) -> bool | None:
    return _with_momentum(rule, lambda m, g, lr: m - lr * g)


@wrong(
    "momentum-complement",
    on="SGD",
    text="the velocity is multiplied by 1 - mu instead of mu",
    right="m = mu m - lr g",
    wrong="m = (1 - mu) m - lr g",
)
def _(rule: Any) -> bool | None:
    return _with_momentum(rule, lambda m, g, lr: (1 - rule.momentum) * m - lr * g)


@wrong(
    "momentum-factors-exchanged",
    on="SGD",
    text="mu and 1 - mu are exchanged in a moving average",
    right="m = mu m - lr g",
    wrong="m = (1 - mu) m - mu lr g",
)
def _(rule: Any) -> bool | None:
    return _with_momentum(rule, lambda m, g, lr: (1 - rule.momentum) * m - rule.momentum * lr * g)


@wrong(
    "momentum-on-everything",
    on="SGD",
    text="mu multiplies the new gradient too",
    right="m = mu m - lr g",
    wrong="m = mu (m - lr g)",
)
def _(rule: Any) -> bool | None:
    return _with_momentum(rule, lambda m, g, lr: rule.momentum * (m - lr * g))


@wrong(
    "momentum-velocity-late",
    on="SGD",
    text="the weights move by the velocity of the step before: compute the new one first",
    right="m = mu m - lr g;  w = w + m",
    wrong="w = w + m;  m = mu m - lr g",
)
def _(rule: Any) -> bool | None:
    return _with_momentum(rule, move=lambda old, new, g, lr: old)


@wrong(
    "momentum-gradient-twice",
    on="SGD",
    text="the gradient is in the velocity and is subtracted once more",
    right="m = mu m - lr g;  w = w + m",
    wrong="m = mu m - lr g;  w = w + m - lr g",
)
def _(rule: Any) -> bool | None:
    return False if rule.nesterov else _with_momentum(rule, move=lambda old, new, g, lr: new - lr * g)


@wrong(
    "momentum-of-last-change-only",
    on="SGD",
    text="only the last gradient is remembered, not the velocity",
    right="m = mu m - lr g",
    wrong="m = mu (-lr g_(t-1)) - lr g",
)
def _(rule: Any) -> bool | None:
    mu = rule.momentum
    return _with_momentum(rule, lambda m, g, lr: -lr * g, lambda old, new, g, lr: mu * old + new)


@wrong(
    "momentum-nesterov-unasked",
    on="SGD",
    text="this is Nesterov's momentum: without nesterov=True the step is the velocity itself",
    right="w = w + m",
    wrong="w = w + mu m - lr g",
)
def _(rule: Any) -> bool | None:
    mu = rule.momentum
    return False if rule.nesterov else _with_momentum(rule, move=lambda old, new, g, lr: mu * new - lr * g)


def _nesterov(rule: Any, move: Any) -> bool | None:
    return _with_momentum(rule, move=move) if rule.nesterov else False


@wrong(
    "nesterov-missing",
    on="SGD",
    text="this is plain momentum: with nesterov=True the step looks one step ahead",
    right="w = w + mu m - lr g",
    wrong="w = w + m",
)
def _(rule: Any) -> bool | None:
    return _nesterov(rule, lambda old, new, g, lr: new)


@wrong(
    "nesterov-without-gradient",
    on="SGD",
    text="the gradient of this step is missing beside the velocity",
    right="w = w + mu m - lr g",
    wrong="w = w + mu m",
)
def _(rule: Any) -> bool | None:
    return _nesterov(rule, lambda old, new, g, lr: rule.momentum * new)


@wrong(
    "nesterov-velocity-whole",
    on="SGD",
    text="the velocity is not multiplied by mu when the weights move",
    right="w = w + mu m - lr g",
    wrong="w = w + m - lr g",
)
def _(rule: Any) -> bool | None:
    return _nesterov(rule, lambda old, new, g, lr: new - lr * g)


@wrong(
    "nesterov-old-velocity-sign",
    on="SGD",
    text="the old velocity is added: in this form it is subtracted",
    right="w = w - mu m_old + (1 + mu) m",
    wrong="w = w + mu m_old + (1 + mu) m",
)
def _(rule: Any) -> bool | None:
    return _nesterov(rule, lambda old, new, g, lr: rule.momentum * old + (1 + rule.momentum) * new)


@wrong(
    "nesterov-velocities-exchanged",
    on="SGD",
    text="the old and the new velocity are exchanged",
    right="w = w - mu m_old + (1 + mu) m",
    wrong="w = w - mu m + (1 + mu) m_old",
)
def _(rule: Any) -> bool | None:
    return _nesterov(rule, lambda old, new, g, lr: (1 + rule.momentum) * old - rule.momentum * new)


@wrong(
    "nesterov-old-velocity-missing",
    on="SGD",
    text="the old velocity is not taken away",
    right="w = w - mu m_old + (1 + mu) m",
    wrong="w = w + (1 + mu) m",
)
def _(rule: Any) -> bool | None:
    return _nesterov(rule, lambda old, new, g, lr: (1 + rule.momentum) * new)


@wrong(
    "nesterov-old-velocity-not-kept",
    on="SGD",
    text="the old velocity is overwritten before it is used (v_old = v makes no copy): it is the new one",
    right="w = w - mu m_old + (1 + mu) m",
    wrong="w = w - mu m + (1 + mu) m",
)
def _(rule: Any) -> bool | None:
    return False if not rule.nesterov else _with_momentum(rule, move=lambda old, new, g, lr: new)


# -- RMSprop -----------------------------------------------------------------------------------------------------------


@wrong(
    "rmsprop-epsilon-outside",
    on="RMSprop",
    text="epsilon is beside the root; Keras has it inside",
    right="g / sqrt(v + eps)",
    wrong="g / (sqrt(v) + eps)",
    convention="PyTorch and most books",
)
def _(rule: Any) -> None:
    rule.increment = lambda g, v, t: g / (np.sqrt(v) + rule.epsilon)


@wrong(
    "rmsprop-learning-rate-outside",
    on="RMSprop",
    text="the learning rate is outside the momentum, so a new one counts for old steps too; in Keras it is inside",
    right="b = mu b + lr g / sqrt(v + eps);  w = w - b",
    wrong="b = mu b + g / sqrt(v + eps);  w = w - lr b",
    convention="PyTorch",
)
def _(rule: Any) -> bool | None:
    return _with_buffer(rule, lambda b, step, lr: rule.momentum * b + step, lambda b, lr: lr * b)


def _with_buffer(rule: Any, buffer: Any, move: Any = None) -> bool | None:
    if not rule.momentum:
        return False
    rule.buffer = buffer
    rule.move = move or rule.move
    return None


@wrong(
    "rmsprop-momentum-dampened",
    on="RMSprop",
    text="the step enters the momentum with the factor 1 - mu; in Keras it enters whole",
    right="b = mu b + lr g / sqrt(v + eps)",
    wrong="b = mu b + (1 - mu) lr g / sqrt(v + eps)",
)
def _(rule: Any) -> bool | None:
    return _with_buffer(rule, lambda b, step, lr: rule.momentum * b + (1 - rule.momentum) * lr * step)


@wrong(
    "rmsprop-momentum-missing",
    on="RMSprop",
    text="the momentum is missing",
    right="b = mu b + lr g / sqrt(v + eps);  w = w - b",
    wrong="w = w - lr g / sqrt(v + eps)",
)
def _(rule: Any) -> bool | None:
    return _with_buffer(rule, lambda b, step, lr: lr * step)


@wrong(
    "rmsprop-epsilon-missing",
    on="RMSprop",
    text="epsilon is missing: elements without a gradient become nan",
    right="g / sqrt(v + eps)",
    wrong="g / sqrt(v)",
)
def _(rule: Any) -> None:
    rule.increment = lambda g, v, t: g / np.sqrt(v)


@wrong(
    "rmsprop-root-missing",
    on="RMSprop",
    text="the square root is missing",
    right="g / sqrt(v + eps)",
    wrong="g / (v + eps)",
)
def _(rule: Any) -> None:
    rule.increment = lambda g, v, t: g / (v + rule.epsilon)


@wrong(
    "rmsprop-multiplied",
    on="RMSprop",
    text="the gradient is multiplied by the root: divide by it",
    right="g / sqrt(v + eps)",
    wrong="g sqrt(v + eps)",
)
def _(rule: Any) -> None:
    rule.increment = lambda g, v, t: g * np.sqrt(v + rule.epsilon)


@wrong(
    "rmsprop-bias-corrected",
    on="RMSprop",
    text="the average is corrected for its start at 0, as in Adam; RMSprop has no correction",
    right="v",
    wrong="v / (1 - rho^t)",
)
def _(rule: Any) -> None:
    right = rule.increment
    rule.increment = lambda g, v, t: right(g, v / (1 - rule.rho**t), t)


def _squares(rule: Any, squares: Callable[[Any, Any], Any]) -> None:
    rule.squares = squares


@wrong(
    "rmsprop-factors-exchanged",
    on="RMSprop",
    text="rho and 1 - rho are exchanged",
    right="v = rho v + (1 - rho) g^2",
    wrong="v = (1 - rho) v + rho g^2",
)
def _(rule: Any) -> None:
    _squares(rule, lambda v, g: (1 - rule.rho) * v + rule.rho * g * g)


@wrong(
    "rmsprop-complement-missing",
    on="RMSprop",
    text="the factor 1 - rho is missing",
    right="v = rho v + (1 - rho) g^2",
    wrong="v = rho v + g^2",
)
def _(rule: Any) -> None:
    _squares(rule, lambda v, g: rule.rho * v + g * g)


@wrong(
    "rmsprop-adagrad",
    on="RMSprop",
    text="the squares are added up, as in Adagrad: RMSprop takes a moving average",
    right="v = rho v + (1 - rho) g^2",
    wrong="v = v + g^2",
)
def _(rule: Any) -> None:
    _squares(rule, lambda v, g: v + g * g)


@wrong(
    "rmsprop-decay-missing",
    on="RMSprop",
    text="the old average is not multiplied by rho",
    right="v = rho v + (1 - rho) g^2",
    wrong="v = v + (1 - rho) g^2",
)
def _(rule: Any) -> None:
    _squares(rule, lambda v, g: v + (1 - rule.rho) * g * g)


@wrong(
    "rmsprop-square-missing",
    on="RMSprop",
    text="the gradient is not squared",
    right="v = rho v + (1 - rho) g^2",
    wrong="v = rho v + (1 - rho) g",
)
def _(rule: Any) -> None:
    _squares(rule, lambda v, g: rule.rho * v + (1 - rule.rho) * g)


@wrong(
    "rmsprop-squared-after",
    on="RMSprop",
    text="the factor 1 - rho is squared with the gradient",
    right="v = rho v + (1 - rho) g^2",
    wrong="v = rho v + ((1 - rho) g)^2",
)
def _(rule: Any) -> None:
    _squares(rule, lambda v, g: rule.rho * v + ((1 - rule.rho) * g) ** 2)


@wrong(
    "rmsprop-mean-of-squares",
    on="RMSprop",
    text="one average for the whole tensor: each element has its own",
    right="v = rho v + (1 - rho) g^2",
    wrong="v = rho v + (1 - rho) mean(g^2)",
)
def _(rule: Any) -> None:
    _squares(rule, lambda v, g: rule.rho * v + (1 - rule.rho) * np.mean(g * g))


@wrong(
    "rmsprop-average-late",
    on="RMSprop",
    text="the average of the step before is used: update it first",
    right="v = ...; w = w - lr g / sqrt(v + eps)",
    wrong="w = w - lr g / sqrt(v + eps); v = ...",
)
def _(rule: Any) -> None:
    rule.used = lambda old, new: old


@wrong(
    "rmsprop-centered-missing",
    on="RMSprop",
    text="the mean is not taken away: with centered=True the root is of v - a^2",
    right="g / sqrt(v - a^2 + eps)",
    wrong="g / sqrt(v + eps)",
)
def _(rule: Any) -> bool | None:
    if not rule.centered:
        return False
    rule.variance = lambda v, a: v
    return None


@wrong(
    "rmsprop-centered-unasked",
    on="RMSprop",
    text="the mean is taken away, as with centered=True",
    right="g / sqrt(v + eps)",
    wrong="g / sqrt(v - a^2 + eps)",
)
def _(rule: Any) -> bool | None:
    if rule.centered:
        return False
    rule.variance = lambda v, a: v - a * a
    return None


@wrong(
    "rmsprop-mean-not-squared",
    on="RMSprop",
    text="the mean is not squared",
    right="v - a^2",
    wrong="v - a",
)
def _(rule: Any) -> bool | None:
    if not rule.centered:
        return False
    rule.variance = lambda v, a: v - a
    return None


# -- Adam --------------------------------------------------------------------------------------------------------------


@wrong(
    "adam-epsilon-at-corrected",
    on="Adam",
    text="epsilon is beside the root of the corrected moment; Keras has it beside the uncorrected one, before the "
    "correction",
    right="lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps)",
    wrong="lr m^ / (sqrt(v^) + eps)",
    convention="Algorithm 1 of the paper, and PyTorch",
)
def _(rule: Any) -> None:
    rule.ratio = lambda m, v, c1, c2: (m / c1) / (np.sqrt(v / c2) + rule.epsilon)


def _corrections(rule: Any, of: Callable[[float], tuple[float, float]]) -> None:
    rule.corrections = of


@wrong(
    "adam-correction-without-power",
    on="Adam",
    text="the bias correction lacks the power of t",
    right="1 - b1^t, 1 - b2^t",
    wrong="1 - b1, 1 - b2",
)
def _(rule: Any) -> None:
    _corrections(rule, lambda t: (1 - rule.beta_1, 1 - rule.beta_2))


@wrong(
    "adam-correction-multiplied-by-t",
    on="Adam",
    text="the bias correction has b t where b^t belongs",
    right="1 - b1^t, 1 - b2^t",
    wrong="1 - b1 t, 1 - b2 t",
)
def _(rule: Any) -> None:
    _corrections(rule, lambda t: (1 - rule.beta_1 * t, 1 - rule.beta_2 * t))


@wrong(
    "adam-correction-missing",
    on="Adam",
    text="there is no bias correction",
    right="m / (1 - b1^t), v / (1 - b2^t)",
    wrong="m, v",
)
def _(rule: Any) -> None:
    _corrections(rule, lambda t: (1.0, 1.0))


@wrong(
    "adam-first-correction-missing",
    on="Adam",
    text="the first moment has no bias correction",
    right="m / (1 - b1^t)",
    wrong="m",
)
def _(rule: Any) -> None:
    _corrections(rule, lambda t: (1.0, 1 - rule.beta_2**t))


@wrong(
    "adam-second-correction-missing",
    on="Adam",
    text="the second moment has no bias correction",
    right="v / (1 - b2^t)",
    wrong="v",
)
def _(rule: Any) -> None:
    _corrections(rule, lambda t: (1 - rule.beta_1**t, 1.0))


@wrong(
    "adam-second-correction-not-rooted",
    on="Adam",
    text="the correction of the second moment lacks its square root",
    right="lr sqrt(1 - b2^t) / (1 - b1^t)",
    wrong="lr (1 - b2^t) / (1 - b1^t)",
)
def _(rule: Any) -> None:
    _corrections(rule, lambda t: (1 - rule.beta_1**t, (1 - rule.beta_2**t) ** 2))


@wrong(
    "adam-correction-betas-exchanged",
    on="Adam",
    text="beta_1 and beta_2 are exchanged in the bias correction",
    right="m / (1 - b1^t), v / (1 - b2^t)",
    wrong="m / (1 - b2^t), v / (1 - b1^t)",
)
def _(rule: Any) -> None:
    _corrections(rule, lambda t: (1 - rule.beta_2**t, 1 - rule.beta_1**t))


@wrong(
    "adam-correction-of-beta-1-for-both",
    on="Adam",
    text="beta_1 corrects both moments",
    right="v / (1 - b2^t)",
    wrong="v / (1 - b1^t)",
)
def _(rule: Any) -> None:
    _corrections(rule, lambda t: (1 - rule.beta_1**t, 1 - rule.beta_1**t))


@wrong(
    "adam-correction-of-beta-2-for-both",
    on="Adam",
    text="beta_2 corrects both moments",
    right="m / (1 - b1^t)",
    wrong="m / (1 - b2^t)",
)
def _(rule: Any) -> None:
    _corrections(rule, lambda t: (1 - rule.beta_2**t, 1 - rule.beta_2**t))


@wrong(
    "adam-correction-inverted",
    on="Adam",
    text="the moments are multiplied by the bias correction: divide by it",
    right="m / (1 - b1^t), v / (1 - b2^t)",
    wrong="m (1 - b1^t), v (1 - b2^t)",
)
def _(rule: Any) -> None:
    _corrections(rule, lambda t: (1 / (1 - rule.beta_1**t), 1 / (1 - rule.beta_2**t)))


@wrong(
    "adam-t-one-ahead",
    on="Adam",
    text="t is one too large: it is 1 at the first step",
    right="t = 1, 2, 3, ...",
    wrong="t = 2, 3, 4, ...",
)
def _(rule: Any) -> None:
    rule.count = lambda t, index, tensors: t + 1


@wrong(
    "adam-t-from-zero",
    on="Adam",
    text="t starts at 0, where the bias correction divides by 0: it is 1 at the first step",
    right="t = 1, 2, 3, ...",
    wrong="t = 0, 1, 2, ...",
)
def _(rule: Any) -> None:
    rule.count = lambda t, index, tensors: t - 1


@wrong(
    "adam-t-counts-tensors",
    on="Adam",
    text="t is counted up for every tensor: count it once for each step",
    right="t: the number of the step",
    wrong="t: the number of tensors updated so far",
)
def _(rule: Any) -> bool | None:
    if len(rule.decays) == 1:
        return False
    rule.count = lambda t, index, tensors: (t - 1) * tensors + index + 1
    return None


@wrong(
    "adam-t-stays-one",
    on="Adam",
    text="t is not counted up: it is 1 at every step",
    right="t = 1, 2, 3, ...",
    wrong="t = 1, 1, 1, ...",
)
def _(rule: Any) -> None:
    rule.count = lambda t, index, tensors: 1


@wrong(
    "adam-corrected-moments-kept",
    on="Adam",
    text="the corrected moments are kept for the next step: keep the uncorrected ones",
    right="m^ = m / (1 - b1^t)",
    wrong="m = m / (1 - b1^t)",
)
def _(rule: Any) -> None:
    def keep(state: Any, c1: float, c2: float) -> None:
        state["m"], state["v"] = state["m"] / c1, state["v"] / c2

    rule.keep = keep


@wrong(
    "adam-betas-exchanged",
    on="Adam",
    text="beta_1 and beta_2 are exchanged",
    right="m by b1, v by b2",
    wrong="m by b2, v by b1",
)
def _(rule: Any) -> None:
    rule.beta_1, rule.beta_2 = rule.beta_2, rule.beta_1


@wrong(
    "adam-moment-betas-exchanged",
    on="Adam",
    text="beta_1 and beta_2 are exchanged in the moments, but not in their correction",
    right="m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2",
    wrong="m = b2 m + (1 - b2) g;  v = b1 v + (1 - b1) g^2",
)
def _(rule: Any) -> None:
    rule.first = lambda m, g: rule.beta_2 * m + (1 - rule.beta_2) * g
    rule.second = lambda v, g, m: rule.beta_1 * v + (1 - rule.beta_1) * g * g


@wrong(
    "adam-beta-1-for-both",
    on="Adam",
    text="beta_1 is used for both moments",
    right="v = b2 v + (1 - b2) g^2",
    wrong="v = b1 v + (1 - b1) g^2",
)
def _(rule: Any) -> None:
    rule.second = lambda v, g, m: rule.beta_1 * v + (1 - rule.beta_1) * g * g


@wrong(
    "adam-complements-missing",
    on="Adam",
    text="the factors 1 - b1 and 1 - b2 are missing",
    right="m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2",
    wrong="m = b1 m + g;  v = b2 v + g^2",
)
def _(rule: Any) -> None:
    rule.first = lambda m, g: rule.beta_1 * m + g
    rule.second = lambda v, g, m: rule.beta_2 * v + g * g


@wrong(
    "adam-first-complement-missing",
    on="Adam",
    text="the factor 1 - b1 is missing in the first moment",
    right="m = b1 m + (1 - b1) g",
    wrong="m = b1 m + g",
)
def _(rule: Any) -> None:
    rule.first = lambda m, g: rule.beta_1 * m + g


@wrong(
    "adam-second-complement-missing",
    on="Adam",
    text="the factor 1 - b2 is missing in the second moment",
    right="v = b2 v + (1 - b2) g^2",
    wrong="v = b2 v + g^2",
)
def _(rule: Any) -> None:
    rule.second = lambda v, g, m: rule.beta_2 * v + g * g


@wrong(
    "adam-factors-exchanged",
    on="Adam",
    text="b and 1 - b are exchanged in both moments",
    right="m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2",
    wrong="m = (1 - b1) m + b1 g;  v = (1 - b2) v + b2 g^2",
)
def _(rule: Any) -> None:
    rule.first = lambda m, g: (1 - rule.beta_1) * m + rule.beta_1 * g
    rule.second = lambda v, g, m: (1 - rule.beta_2) * v + rule.beta_2 * g * g


@wrong(
    "adam-square-missing",
    on="Adam",
    text="the gradient is not squared in the second moment",
    right="v = b2 v + (1 - b2) g^2",
    wrong="v = b2 v + (1 - b2) g",
)
def _(rule: Any) -> None:
    rule.second = lambda v, g, m: rule.beta_2 * v + (1 - rule.beta_2) * g


@wrong(
    "adam-squared-after",
    on="Adam",
    text="the factor 1 - b2 is squared with the gradient",
    right="v = b2 v + (1 - b2) g^2",
    wrong="v = b2 v + ((1 - b2) g)^2",
)
def _(rule: Any) -> None:
    rule.second = lambda v, g, m: rule.beta_2 * v + ((1 - rule.beta_2) * g) ** 2


@wrong(
    "adam-square-of-moment",
    on="Adam",
    text="the second moment is made of the first one: make it of the gradient",
    right="v = b2 v + (1 - b2) g^2",
    wrong="v = b2 v + (1 - b2) m^2",
)
def _(rule: Any) -> None:
    rule.second = lambda v, g, m: rule.beta_2 * v + (1 - rule.beta_2) * m * m


@wrong(
    "adam-second-moment-on-first",
    on="Adam",
    text="the second moment goes on from the first one",
    right="v = b2 v + (1 - b2) g^2",
    wrong="v = b2 m + (1 - b2) g^2",
)
def _(rule: Any) -> None:
    rule.second = lambda v, g, m: rule.beta_2 * m + (1 - rule.beta_2) * g * g


@wrong(
    "adam-moments-one-array",
    on="Adam",
    text="m and v are one and the same array (m = v = ...): make two",
    right="m = zeros; v = zeros",
    wrong="m = v = zeros",
)
def _(rule: Any) -> None:
    def moments(state: Any, g: Any) -> None:
        m = rule.first(state["m"], g)
        state["m"] = state["v"] = rule.second(m, g, m)

    rule.moments = moments


@wrong(
    "adam-moments-exchanged",
    on="Adam",
    text="the two moments are exchanged in the step",
    right="m^ / (sqrt(v^) + eps)",
    wrong="v^ / (sqrt(m^) + eps)",
)
def _(rule: Any) -> None:
    rule.ratio = lambda m, v, c1, c2: (v / c2) / (np.sqrt(m / c1) + rule.epsilon)


@wrong(
    "adam-gradient-for-moment",
    on="Adam",
    text="the step takes the gradient itself, not the first moment",
    right="m^ / (sqrt(v^) + eps)",
    wrong="g / (sqrt(v^) + eps)",
)
def _(rule: Any) -> None:
    rule.first = lambda m, g: g
    _corrections(rule, lambda t: (1.0, 1 - rule.beta_2**t))


@wrong(
    "adam-gradient-for-moment-corrected",
    on="Adam",
    text="the step takes the gradient itself, corrected like the first moment",
    right="m / (1 - b1^t)",
    wrong="g / (1 - b1^t)",
)
def _(rule: Any) -> None:
    rule.first = lambda m, g: g


@wrong(
    "adam-moments-late",
    on="Adam",
    text="the moments of the step before are used: update them first",
    right="m, v = ...; w = w - ...",
    wrong="w = w - ...; m, v = ...",
)
def _(rule: Any) -> None:
    rule.used = lambda old, new, g: old


@wrong(
    "adam-root-missing",
    on="Adam",
    text="the square root of the second moment is missing",
    right="m^ / (sqrt(v^) + eps)",
    wrong="m^ / (v^ + eps)",
)
def _(rule: Any) -> None:
    rule.ratio = lambda m, v, c1, c2: (m / c1) / (v / c2 + rule.epsilon)


@wrong(
    "adam-multiplied",
    on="Adam",
    text="the step is multiplied by the root of the second moment: divide by it",
    right="m^ / (sqrt(v^) + eps)",
    wrong="m^ (sqrt(v^) + eps)",
)
def _(rule: Any) -> None:
    rule.ratio = lambda m, v, c1, c2: (m / c1) * (np.sqrt(v / c2) + rule.epsilon)


@wrong(
    "adam-epsilon-inside",
    on="Adam",
    text="epsilon is inside the root: it is added to the root",
    right="m^ / (sqrt(v^) + eps)",
    wrong="m^ / sqrt(v^ + eps)",
)
def _(rule: Any) -> None:
    rule.ratio = lambda m, v, c1, c2: (m / c1) / np.sqrt(v / c2 + rule.epsilon)


@wrong(
    "adam-epsilon-inside-uncorrected",
    on="Adam",
    text="epsilon is inside the root of the uncorrected moment: it is added to the root",
    right="m / (sqrt(v) + eps)",
    wrong="m / sqrt(v + eps)",
)
def _(rule: Any) -> None:
    rule.ratio = lambda m, v, c1, c2: (m / c1) * np.sqrt(c2) / np.sqrt(v + rule.epsilon)


@wrong(
    "adam-epsilon-missing",
    on="Adam",
    text="epsilon is missing: elements without a gradient become nan",
    right="m^ / (sqrt(v^) + eps)",
    wrong="m^ / sqrt(v^)",
)
def _(rule: Any) -> None:
    rule.ratio = lambda m, v, c1, c2: (m / c1) / np.sqrt(v / c2)


@wrong(
    "adam-epsilon-added-after",
    on="Adam",
    text="epsilon is added to the quotient (a bracket is missing)",
    right="m^ / (sqrt(v^) + eps)",
    wrong="m^ / sqrt(v^) + eps",
)
def _(rule: Any) -> None:
    rule.ratio = lambda m, v, c1, c2: (m / c1) / np.sqrt(v / c2) + rule.epsilon


@wrong(
    "adam-amsgrad-missing",
    on="Adam",
    text="the largest second moment is not kept: with amsgrad=True the root is of the largest so far",
    right="h = max(h, v);  m / (sqrt(h) + eps)",
    wrong="m / (sqrt(v) + eps)",
)
def _(rule: Any) -> bool | None:
    if not rule.amsgrad:
        return False
    rule.amsgrad = False
    return None


@wrong(
    "adam-amsgrad-unasked",
    on="Adam",
    text="the root is of the largest second moment so far, as with amsgrad=True",
    right="m / (sqrt(v) + eps)",
    wrong="h = max(h, v);  m / (sqrt(h) + eps)",
)
def _(rule: Any) -> bool | None:
    if rule.amsgrad:
        return False
    rule.amsgrad = True
    return None


@wrong(
    "adam-amsgrad-of-corrected",
    on="Adam",
    text="the largest corrected second moment is kept; Keras keeps the largest uncorrected one, and corrects it then",
    right="h = max(h, v)",
    wrong="h = max(h, v / (1 - b2^t))",
)
def _(rule: Any) -> bool | None:
    if not rule.amsgrad:
        return False
    rule.largest = lambda h, v, c2: np.maximum(h, v / c2)
    ratio = rule.ratio
    rule.ratio = lambda m, h, c1, c2: ratio(m, h * c2, c1, c2)
    return None


@wrong(
    "adam-decay-of-learning-rate",
    on="Adam",
    text="the learning rate is divided by the root of t as well",
    right="lr",
    wrong="lr / sqrt(t)",
)
def _(rule: Any) -> None:
    rule.scale = lambda lr, t: lr / np.sqrt(t)
