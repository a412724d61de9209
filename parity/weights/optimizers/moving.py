"""From one optimizer to another: what moves, how, what does not and why, before anything is touched."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from parity.errors import FileError, UsageError
from parity.weights import formats, matching
from parity.weights.conversion import converted, require_finite
from parity.weights.ends import Source, Target
from parity.weights.formats import limits
from parity.weights.formats.limits import shown
from parity.weights.optimizers import keras_ends, own_ends, stepping, torch_ends
from parity.weights.optimizers.holder import Holder, Slot
from parity.weights.optimizers.state import CONFIG, Optimizer, Refused, in_keras, require_same
from parity.weights.plan import End, Step
from parity.weights.sides import Match
from parity.weights.skeleton import Skeleton
from parity.weights.stored import Archive

__all__ = ["At", "Moved", "nothing", "ready", "reopened", "unpaired"]


@dataclass(frozen=True)
class At:
    """One end. optimizer: PyTorch's, where a model came with it; archive: what is there, or is to be written."""

    end: Source | Target
    optimizer: Any
    match: Match
    archive: Archive
    skeleton: Skeleton

    @property
    def format(self) -> str:
        return self.archive.format

    @property
    def holds_state(self) -> bool:
        """Whether there is a state that belongs to the weights that are there."""
        if self.end.live is None:
            return any(_is_state(key) for key in self.archive.arrays)
        if self.format == "keras model":
            optimizer = getattr(self.end.owner, "optimizer", None)
            return optimizer is not None and optimizer.built and bool(optimizer.iterations > 0)
        return bool(getattr(self.optimizer, "state", None) or getattr(self.end.owner, "_state", None))


@dataclass(frozen=True)
class Moved:
    """What becomes of the state.

    words: for a reader; steps: one for each array; arrays and texts: what the target gets beside the weights; put:
    sets them, None where the target is a file or nothing moves; ends: from where to where, None where nothing moves;
    instead: what the optimizer of the source is where it does not say so itself.
    """

    words: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    put: Callable[[Mapping[str, np.ndarray]], None] | None = None
    ends: tuple[At, At] | None = None
    instead: Optimizer | None = None

    def write(self) -> None:
        """Set a live target's state."""
        if self.put is not None:
            self.put(self.arrays)


nothing = Moved()


def unpaired(thing: Any) -> tuple[Any, Any]:
    """A PyTorch model and its optimizer, where they come as a pair; else the thing itself and None."""
    torch = sys.modules.get("torch")
    pair = isinstance(thing, tuple) and len(thing) == 2
    if torch is not None and pair and isinstance(thing[1], torch.optim.Optimizer):
        return thing
    return thing, None


def ready(source: At, target: At, allow_nonfinite: bool) -> Moved:
    """What is to be done for the optimizers. `UsageError` where a PyTorch optimizer was given and its state cannot be
    ported; the others come unasked, so there it is said and left. `FileError` for a state that is damaged."""
    asked = source.optimizer is not None or target.optimizer is not None
    kept = (KEPT.format(target.archive.name),) * target.holds_state
    try:
        there, here = _opened(source, target, asked)
        if there is None or here is None:
            return Moved(kept)
        if not there.has_state:
            return Moved(("no state to port: the source has made no step", *there.notes, *kept))
        found = _moved(source, target, there, here, allow_nonfinite)
    except Refused as error:
        if asked:
            raise UsageError(str(error)) from error
        return Moved((f"state not ported: {error}", *kept))
    return found


KEPT = "{} keeps the state of its optimizer, which belongs to its old weights"
NO_OPTIMIZER = (
    "the other end has none; compile the model with the optimizer and settings of the source, or give a pair (model, "
    "optimizer) of PyTorch's"
)


# -- opening -----------------------------------------------------------------------------------------------------------


def _opened(source: At, target: At, asked: bool) -> tuple[Holder | None, Holder | None]:
    there = opened(source, _settings_of(target))
    if there is None:
        if asked:
            raise Refused(f"optimizer: {NO_OPTIMIZER}")
        return None, None
    if not there.has_state and not asked:
        return there, there
    here = _for_writing(target, there)
    if here is None:
        raise Refused(f"{target.archive.name} has no optimizer: {NO_OPTIMIZER}")
    return there, here


def opened(at: At, instead: Optimizer | None = None) -> Holder | None:
    """The state at an end, None where it has none. instead: what the optimizer is where a file does not say so."""
    if at.format == "keras model":
        return keras_ends.live(at.end.owner, at.match, to_write=False)
    if at.format == "scratchnet":
        return own_ends.scratch(at.end.owner, at.match, at.skeleton, to_write=False)
    if at.format == "torch model":
        if at.optimizer is None:
            return None
        return torch_ends.live(at.end.owner, at.optimizer, at.match, to_write=False)
    if not any(_is_state(key) for key in at.archive.arrays):
        return None
    config = _config(at)
    if at.format == "torch":
        return _of_file(at, torch_ends.in_file(at.archive, config or {}, at.match, at.skeleton))
    said = None if config is None else _optimizer(config)
    if at.format.startswith("keras"):
        return _of_file(at, keras_ends.in_file(at.archive, at.match, at.skeleton, said, instead))
    if said is None:
        raise Refused(f"{at.archive.name}: expected the text {CONFIG}, which says what optimizer it is; received none")
    if at.match.layout is not None:
        raise Refused(f"{at.archive.name}: the state of an optimizer is not read in a layout")
    return _of_file(at, own_ends.in_file(at.archive, said, at.match, at.skeleton))


def _is_state(key: str) -> bool:
    return key.partition("/")[0] in matching.STATE


def _config(at: At) -> Mapping[str, Any] | None:
    """What a file says of its optimizer."""
    text = at.archive.metadata.get(CONFIG)
    if text is None:
        return None
    with limits.blamed(at.archive.name):
        found = limits.parsed(text.encode("utf-8", errors="surrogatepass"), CONFIG)
        if not isinstance(found, dict):
            raise FileError(f"{CONFIG}: expected an object, received {shown(found)}")
    return found


def _optimizer(config: Mapping[str, Any]) -> Optimizer:
    kind, settings, framework = config.get("class_name"), config.get("config"), config.get("framework", "keras")
    if not isinstance(kind, str) or not isinstance(settings, dict) or framework not in ("keras", "torch"):
        raise Refused(f"{CONFIG}: expected class_name and config of an optimizer; received {shown(dict(config))}")
    return Optimizer(kind, settings, framework)


def _of_file(at: At, holder: Holder) -> Holder:
    """With the shapes compared before anything is loaded, and with steps that are made of what the file holds."""
    for (slot, weight), place in holder.places.items():
        if weight in at.match.held:
            expected = at.archive.arrays[at.match.held[weight].keys[0]].shape
            received = at.archive.arrays[place.key].shape
            if received != expected:
                raise FileError(
                    f"{at.archive.name}: {place.key}: expected shape {expected}, that of the weight {weight}, for its "
                    f"{slot}; received {received}"
                )
    return stepping.of_file(holder, lambda: at.match.restore(lambda key: at.archive.arrays[key].load()))


def _settings_of(target: At) -> Optimizer | None:
    """What the target's optimizer is, for a file that does not say it."""
    optimizer = getattr(target.end.owner, "optimizer", None)
    if target.format == "keras model" and optimizer is not None:
        return Optimizer(type(optimizer).__name__, optimizer.get_config())
    config = _config(target) if target.format == "keras" else None
    return None if config is None else _optimizer(config)


def _for_writing(target: At, there: Holder) -> Holder | None:
    """The end that gets the state. `Refused` where it cannot hold one, None where it has no optimizer."""
    assert isinstance(target.end, Target)
    name, match, skeleton = target.archive.name, target.match, target.skeleton
    if target.format == "keras model":
        return keras_ends.live(target.end.owner, match, to_write=True)
    if target.format == "scratchnet":
        return own_ends.scratch(target.end.owner, match, skeleton, to_write=True)
    if target.format == "torch model":
        if target.optimizer is None:
            return None
        return torch_ends.live(target.end.owner, target.optimizer, match, to_write=True)
    count = 1 + max((keras_ends.number(place.key) for place in there.places.values()), default=0)
    if target.format == "keras":
        known = _settings_of(target)
        if known is None:
            return None
        return keras_ends.template(target.archive, known, match, skeleton, count)
    if target.format == "keras-weights":
        return keras_ends.new_file(name, in_keras(there.optimizer), match, skeleton, count, _dtype(target))
    if target.format in ("safetensors", "npz") and match.layout is None and (target.end.naming or "keras") == "keras":
        return own_ends.new_file(name, there, match, skeleton)
    raise Refused(REASONS.get(target.format, WEIGHTS_ONLY).format(name))


WEIGHTS_ONLY = (
    "{}: who reads another naming than Keras's, or a layout, expects weights and nothing else; "
    "write it in Keras's naming, or a .weights.h5"
)
REASONS = {
    "arrays": "{} has no place for it",
    "torch": (
        "{}: a .pt is written as a state_dict, which has no place for it; port to a live pair (model, optimizer) and "
        "save its two state_dicts"
    ),
}


SECOND_MOMENTS = ("velocity", "velocity_hat")
"""Slots of Adam whose square root is taken."""

# -- moving ------------------------------------------------------------------------------------------------------------


def _moved(source: At, target: At, there: Holder, here: Holder, allow_nonfinite: bool) -> Moved:
    dtypes = {w: target.archive.arrays[held.keys[0]].dtype for w, held in target.match.held.items()}
    require_same(there.optimizer, here.optimizer, _dtype(target))
    _require_same_weights(there, here)
    if there.iterations is None and here.count(0) and here.optimizer.kind != "SGD":
        raise Refused(
            f"{source.archive.name}: expected the number of steps, on which those of {there.optimizer.kind} depend"
        )
    if not here.places and not here.count(0):
        return Moved((f"no state to port: {here.optimizer.kind} keeps none without momentum",))
    arrays, steps = {}, []
    for slot, place in here.places.items():
        array, step = _one(slot, source, target, there, here, dtypes.get(slot[1]), allow_nonfinite)
        arrays[place.key] = array
        steps.append(step)
    arrays |= here.count(there.iterations or 0) if there.iterations is not None or here.put is None else {}
    return Moved(_words(there, here), tuple(steps), arrays, here.texts, here.put, (source, target), there.optimizer)


def _dtype(target: At) -> np.dtype[Any]:
    """The widest of the weights' dtypes."""
    dtypes = {target.archive.arrays[key].dtype for held in target.match.held.values() for key in held.keys}
    return np.result_type(*(each for each in dtypes if each != limits.BFLOAT16), np.float16)


def _require_same_weights(there: Holder, here: Holder) -> None:
    """Where variables go by number, the weights have to be the same and in one order; else at least one shared."""
    numbered = any(slot == keras_ends.WHOLE for slot, _ in (*there.places, *here.places))
    if numbered and (there.trained != here.trained or set(there.places) != set(here.places)):
        raise Refused(
            f"optimizer: expected the same variables for the same weights in the same order; received "
            f"{len(there.places)} for {', '.join(there.trained)}, and {len(here.places)} for {', '.join(here.trained)}"
        )


def _one(
    slot: Slot,
    source: At,
    target: At,
    there: Holder,
    here: Holder,
    dtype: np.dtype[Any] | None,
    allow_nonfinite: bool,
) -> tuple[np.ndarray, Step]:
    """One array of the target, and how it comes about. dtype: that of its weight; None keeps what it has."""
    name, weight = slot
    place, origin = here.places[slot], there.places.get(slot)
    refuse = FileError if source.end.live is None else UsageError
    if origin is None:  # a weight that made no step: its momentum is zero
        shape = target.archive.arrays[target.match.held[weight].keys[0]].shape
        zeros = np.zeros(shape, dtype)
        made = End(place.key, shape, zeros.dtype.name)
        return zeros, Step(f"{name} of {weight}", shape, (), ("zeros",), (made,), "the source has made no step with it")
    stored = there.load(origin.key)
    where = f"{source.archive.name}: {origin.key}"
    if name != keras_ends.WHOLE and stored.dtype.kind in "iu":
        raise refuse(f"{where}: expected float numbers; received {stored.dtype}")
    if not allow_nonfinite:
        require_finite(where, stored, refuse)
    if name in SECOND_MOMENTS and np.any(stored < 0):
        raise refuse(
            f"{where}: expected a mean of squares; {np.count_nonzero(stored < 0)} of {stored.size} are below 0"
        )
    typed, conversion = converted(where, stored, dtype or stored.dtype, refuse)
    array = place.arranged(origin.restored(typed))
    if not allow_nonfinite:
        require_finite(f"{where}, {', '.join(place.from_keras)}", array, refuse)
    words = (*origin.to_keras, *place.from_keras)
    if origin.rate == place.rate and origin.transforms == place.transforms:
        array, words = typed, ()  # there and back again: the bits stay
    ends = End(origin.key, stored.shape, stored.dtype.name), End(place.key, array.shape, array.dtype.name)
    rounded = conversion.words if conversion.changed else None
    why = f"{name} of the weight that is matched" if name != keras_ends.WHOLE else "the same number"
    shape = origin.restored(np.broadcast_to(np.zeros((), stored.dtype), stored.shape)).shape
    return array, Step(f"{name} of {weight}", shape, ends[:1], words, ends[1:], why, rounded=rounded)


def _words(there: Holder, here: Holder) -> tuple[str, ...]:
    slots = list(dict.fromkeys(slot for slot, _ in here.places))
    count = len({weight for _, weight in here.places})
    what = f"all {count} variables" if slots == [keras_ends.WHOLE] else f"{' and '.join(slots)} of {count} weights"
    if without := len({weight for _, weight in here.places.keys() - there.places.keys()}):
        what += f", {without} of which had none in the source and get zeros"
    counts = bool(here.count(0))
    steps = f", after {there.iterations} steps" if counts and there.iterations is not None else ""
    uncounted = ("the source does not count steps, and the next steps do not depend on them",)
    return (f"{what if slots else here.optimizer.kind}{steps}", *there.notes, *uncounted * (counts and not steps))


def reopened(at: At, instead: Optimizer | None) -> Holder | None:
    """What an end holds now."""
    if at.end.live is not None:
        return opened(at)
    path = at.end.path if isinstance(at.end, Target) else at.archive.name
    assert path is not None
    return opened(replace(at, archive=formats.read(path)), instead)
