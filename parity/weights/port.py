"""Weights from one framework, file or layout to another, all or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from parity.errors import FileError, UsageError
from parity.trace import Weights
from parity.weights import formats, matching, probing
from parity.weights.conversion import Conversion, converted, require_finite
from parity.weights.ends import Source, Target, network, opened_source, opened_target
from parity.weights.formats.limits import DTYPES
from parity.weights.names import FRAMEWORKS
from parity.weights.optimizers import moving
from parity.weights.optimizers.moving import At, Moved
from parity.weights.plan import Plan, Step, planned
from parity.weights.proof import Proof
from parity.weights.sides import Match
from parity.weights.skeleton import Skeleton
from parity.weights.stored import Archive

__all__ = ["PortReport", "Ported", "probe_from", "ready", "written"]


@dataclass(frozen=True)
class Ported:
    """A port that is ready, before the target is touched: everything that a proof needs.

    weights: in Keras's form and the target's dtypes; arrays: the same as the target holds them, by its keys; state:
    what becomes of the optimizer's.
    """

    plan: Plan
    skeleton: Skeleton
    source: Source
    target: Target
    weights: Weights
    arrays: Mapping[str, np.ndarray]
    state: Moved = moving.nothing


@dataclass(frozen=True)
class PortReport:
    """What was done, or would be.

    conversions: weight -> what the change of its dtype did; written: whether the target has the weights now; proof:
    what was compared afterwards.
    """

    plan: Plan
    conversions: Mapping[str, Conversion]
    written: bool
    proof: Proof | None = None
    state: tuple[str, ...] = field(default=())  # what became of an optimizer's state
    state_steps: tuple[Step, ...] = field(default=())  # how each of its arrays moves

    @property
    def exit_status(self) -> int:
        return 0 if self.proof is None or self.proof.passed else 1

    @property
    def sentence(self) -> str:
        count = f"{len(self.plan.steps)} weight" + "s" * (len(self.plan.steps) != 1)
        rounded = [name for name, each in self.conversions.items() if each.changed]
        retyped = any(each.source != each.target for each in self.conversions.values())
        how = f"{len(rounded)} of them rounded" if rounded else "without rounding" if retyped else "bit for bit"
        did = "Ported" if self.written else "Would port"
        return f"{did} {count} from {self.plan.source} to {self.plan.target}, {how}."

    def to_text(self) -> str:
        proof = [self.proof.to_text()] if self.proof else []
        state = [f"optimizer: {line}" for line in self.state] + [step.to_text() for step in self.state_steps]
        return "\n".join([self.plan.to_text(), *state, *proof, self.sentence])

    def to_json(self) -> str:
        conversions = {name: each.to_json() for name, each in self.conversions.items()}
        return json.dumps(
            {
                "sentence": self.sentence,
                "written": self.written,
                "plan": self.plan.to_json(),
                "conversions": conversions,
                "optimizer": list(self.state),
                "optimizer_steps": [step.to_json() for step in self.state_steps],
                "proof": self.proof.to_json() if self.proof else None,
            },
            indent=2,
            ensure_ascii=False,
        )


def ready(
    source: Any,
    target: Any,
    *,
    model: Any = None,
    naming: str | None = None,
    layout: str | Callable[..., Any] | None = None,
    map: Mapping[str, str] | None = None,
    probe: tuple[Any, Any] | None = None,
    dtype: str | None = None,
    allow_nonfinite: bool = False,
) -> tuple[Ported, PortReport]:
    """Everything that `parity.port` does before it touches the target, with its arguments."""
    if dtype is not None and dtype not in FLOATS:
        raise UsageError(f"dtype: expected one of {', '.join(FLOATS)}; received {dtype!r}")
    source, source_optimizer = moving.unpaired(source)
    target, target_optimizer = moving.unpaired(target)
    there = opened_source(source)
    here = opened_target(target, model)
    there, here = _with_words(there, here, naming, layout)
    skeleton = network(model, there, here)
    there_pins, here_pins = _pins(map or {}, skeleton, there, here)
    ways = matching.matches(there.side, skeleton, there_pins)
    found, why = _one(ways, there, skeleton, probe)
    if why is not None:
        found = replace(found, held={key: replace(held, why=why) for key, held in found.held.items()})
    template, fitting = here.fitted(skeleton, here_pins, _dtypes(found, there), dtype)
    weights, conversions = _converted(found, there, fitting, template, allow_nonfinite)
    rounded = {name: each.words for name, each in conversions.items() if each.changed}
    notes = (*there.notes(skeleton, found), *here.notes(skeleton, fitting))
    ends = (there.side.archive, _unexplained(found, there, skeleton)), (template, _unexplained(fitting, here, skeleton))
    plan = planned(skeleton, *ends, rounded, notes)
    state = moving.ready(
        At(there, source_optimizer, found, there.side.archive, skeleton),
        At(here, target_optimizer, fitting, template, skeleton),
        allow_nonfinite,
    )
    moved = {end.key for step in state.steps for end in step.sources}
    plan = replace(plan, ignored=tuple(key for key in plan.ignored if key not in moved))
    ported = Ported(
        plan,
        skeleton,
        there,
        replace(here, config=skeleton.config),
        weights,
        fitting.arrange(weights),
        state,
    )
    return ported, PortReport(plan, conversions, False, state=state.words, state_steps=state.steps)


def probe_from(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """A probe in a file: the arrays `x` and `outputs`."""
    arrays = formats.read(path).arrays
    if set(arrays) != {"x", "outputs"}:
        raise FileError(f"{path}: expected the arrays x and outputs; received {', '.join(arrays)}")
    return arrays["x"].load(), arrays["outputs"].load()


FLOATS = tuple(name for name, dtype in DTYPES.items() if dtype.kind not in "iu")


def written(ported: Ported, metadata: Mapping[str, str] | None = None) -> None:
    """Set or replace the target. metadata: texts for a file, such as the record of a proof."""
    state = ported.state
    beside = {} if ported.target.live is not None else state.arrays
    ported.target.write({**ported.arrays, **beside}, {**(metadata or {}), **state.texts})
    state.write()


def _with_words(
    there: Source, here: Target, naming: str | None, layout: str | Callable[..., Any] | None
) -> tuple[Source, Target]:
    """Naming and layout put to the end that they are meant for: the target, if its keys are ours to choose, and for a
    layout only if the source says by itself what it holds; else the source. In a pair they are as the user says."""
    for_source, for_target = _pair(naming, here.is_free)
    if for_source is not None and there.live is not None and there.live.naming is not None:
        raise UsageError(f"naming: {there.side.archive.name} has its own names, and so has {here.name}; leave it out")
    for word in (for_source, for_target):
        if word is not None and word not in FRAMEWORKS:
            raise UsageError(f"naming: expected one of {', '.join(FRAMEWORKS)}; received {word!r}")
    open_source = there.side.naming is None and not there.speaks and for_source is None
    open_target = here.is_free or (here.live is not None and here.live.naming is None)
    laid_out, to_lay_out = _pair(layout, open_target and not open_source)
    there = replace(there, side=replace(there.side, naming=for_source or there.side.naming, layout=laid_out))
    if here.side is not None:
        side = replace(here.side, naming=for_target or here.side.naming, layout=to_lay_out)
        return there, replace(here, side=side)
    if to_lay_out is not None and not here.is_free:
        raise UsageError(f"layout: {here.name} has the layout of its format; expected a .npz or .safetensors file")
    return there, replace(here, naming=for_target or here.naming, layout=to_lay_out)


def _pair(word: Any, of_target: bool) -> tuple[Any, Any]:
    """SOURCE:TARGET, or one word for one of them."""
    if isinstance(word, str) and ":" in word:
        first, _, second = word.partition(":")
        return first or None, second or None
    return (None, word) if of_target else (word, None)


def _pins(
    map: Mapping[str, str], skeleton: Skeleton, there: Source, here: Target
) -> tuple[dict[str, str], dict[str, str]]:
    """What the user says, as weight or layer of the network -> key or prefix, for the source and for the target. The
    target may be said as the network's weight or layer, or as its own key, where the source has the network's names."""
    known = {*skeleton.shapes, *skeleton.by_layer}
    of_source, of_target = {}, {}
    for target, source in map.items():
        if target in known:
            of_source[target] = source
        elif source in known and here.side is not None:
            of_target[source] = target
        else:
            raise UsageError(
                f"map: expected a weight or a layer of the network for {target!r}; it has "
                f"{', '.join(skeleton.by_layer)}, with the weights {', '.join(skeleton.shapes)}"
            )
    return of_source, of_target


def _one(
    ways: Sequence[Match], there: Source, skeleton: Skeleton, probe: tuple[Any, Any] | None
) -> tuple[Match, str | None]:
    """The way that is taken; why, where that was found by trying."""
    if probe is not None:
        return probing.chosen(ways, _load(there), skeleton, probe)
    if len(ways) > 1:
        raise matching.ambiguous(there.side, skeleton, ways)
    return ways[0], None


def _unexplained(match: Match, end: Source | Target, skeleton: Skeleton) -> Match:
    """Of the end that the network was taken from, nobody asks why its names agree."""
    if end.live is None or end.live.skeleton is not skeleton:
        return match
    return replace(match, held={key: replace(held, why="", rivals=()) for key, held in match.held.items()})


def _load(there: Source) -> Callable[[str], np.ndarray]:
    return lambda key: there.side.archive.arrays[key].load()


def _dtypes(match: Match, there: Source) -> dict[str, str]:
    """Weight -> dtype in which the source has it."""
    found = {}
    for weight, held in match.held.items():
        dtypes = {there.side.archive.arrays[key].dtype.newbyteorder("=") for key in held.keys}
        for dtype in dtypes:
            if dtype.name not in FLOATS:
                raise there.side.wrong(
                    f"{held.keys[0]!r}: expected one of {', '.join(FLOATS)} for {weight}; received {dtype.name}"
                )
        found[weight] = np.result_type(*dtypes).name
    return found


def _converted(
    found: Match, there: Source, fitting: Match, template: Archive, allow_nonfinite: bool
) -> tuple[Weights, dict[str, Conversion]]:
    """The weights in Keras's form and the dtypes of the target."""
    refuse = FileError if there.side.is_file else UsageError
    weights: Weights = {}
    conversions = {}
    for name, array in found.restore(_load(there)).items():
        keys = ", ".join(found.held[name].keys)
        where = f"{there.side.archive.name}: {keys}" + f" ({name})" * (keys != name)
        if not allow_nonfinite:
            require_finite(where, array, refuse)
        dtype = template.arrays[fitting.held[name].keys[0]].dtype
        weights[name], conversions[name] = converted(where, array, dtype, refuse)
    return weights, conversions
