"""The two ends of a port, and the network between them: what is opened, what it is called, and how it is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from parity.errors import FileError, UsageError
from parity.spec import Spec
from parity.weights import formats, keras_file, live, matching
from parity.weights import skeleton as skeletons
from parity.weights.formats import keras_h5, limits
from parity.weights.formats.limits import DTYPES
from parity.weights.laid_out import FLATTENED
from parity.weights.layouts import CONVENTIONS
from parity.weights.live import Live
from parity.weights.names import FRAMEWORKS
from parity.weights.numbered import NUMBERED, groups_by_counter
from parity.weights.sides import Held, Match, Side, named, natural, step_to_keras
from parity.weights.skeleton import GIVE_NETWORK, Skeleton
from parity.weights.stored import Archive, Stored
from parity.weights.transforms import Axes, undone

__all__ = ["Source", "Target", "network", "opened_source", "opened_target"]

WITHOUT_ORDER = ("safetensors", "keras-weights", "onnx")
"""Formats that sort their keys, or whose writers put them down in any order."""


@dataclass(frozen=True)
class Source:
    """Where weights come from. live: where that is no file."""

    side: Side
    live: Live | None = None

    @property
    def owner(self) -> Any:
        return None if self.live is None else self.live.owner

    @property
    def speaks(self) -> bool:
        """Whether its keys say by themselves which weights they are."""
        arrays = self.side.archive.arrays
        return (
            self.side.naming is not None
            or all(NUMBERED.fullmatch(key) for key in arrays if not _is_state(key))
            or matching.naming_of(_weights_of(self.side.archive)) is not None
        )

    def notes(self, skeleton: Skeleton, match: Match) -> tuple[str, ...]:
        return _notes(self.live, skeleton, match)


@dataclass(frozen=True)
class Target:
    """Where weights go.

    side: what is there already and is filled: a live model, arrays, or a `.keras` file; None for a file that is made
    anew, by `naming` or by `layout`.
    """

    name: str
    format: str
    side: Side | None = None
    live: Live | None = None
    path: Path | None = None
    template: Path | None = None
    config: Mapping[str, Any] | None = None
    naming: str | None = None
    layout: str | Callable[..., Any] | None = None
    model: Live | None = None

    @property
    def owner(self) -> Any:
        return None if self.live is None else self.live.owner

    @property
    def is_free(self) -> bool:
        """Whether its keys are ours to choose."""
        return self.side is None and self.format != "keras-weights"

    @property
    def flattens_like_torch(self) -> bool:
        return (self.live.naming if self.live else self.naming) == "torch"

    def fitted(
        self, skeleton: Skeleton, pins: Mapping[str, str], dtypes: Mapping[str, str], dtype: str | None
    ) -> tuple[Archive, Match]:
        """Its arrays, and how they hold the weights of this network. dtypes: of the source, by weight; dtype: what a
        file is to have instead."""
        if self.side is not None:
            return self._filled(skeleton, pins, dtype)
        if pins:
            raise UsageError(f"map: {self.name} is written anew, with keys of its own; expected keys of the source")
        wanted = {weight: dtype or own for weight, own in dtypes.items()}
        if self.layout is not None:
            return _in_layout(self.name, self.format, self.layout, skeleton, wanted)
        if self.model is not None and self.naming == "torch":
            side = Side(replace(self.model.archive, name=self.name, format=self.format), True, False, "torch")
            match = _only(side, skeleton, matching.matches(side, skeleton))
        else:
            match = self._named(skeleton)
        slots = {slot.key: slot for slot in skeleton.slots}
        arrays = {}
        for weight, held in match.held.items():
            shape = _shape_under(held, slots[weight].shape)
            arrays[held.keys[0]] = Stored(held.keys[0], shape, DTYPES[wanted[weight]], _unwritten)
        return Archive(self.name, self.format, arrays), match

    def _filled(self, skeleton: Skeleton, pins: Mapping[str, str], dtype: str | None) -> tuple[Archive, Match]:
        assert self.side is not None
        archive = self.side.archive
        if dtype is not None and self.path is None:
            raise UsageError(f"dtype: {archive.name} has its own; dtype={dtype!r} is for files")
        match = _only(self.side, skeleton, matching.matches(self.side, skeleton, pins))
        if dtype is not None:
            changed = {key: replace(stored, dtype=DTYPES[dtype]) for key, stored in archive.arrays.items()}
            archive = replace(archive, arrays=changed)
        return archive, match

    def _named(self, skeleton: Skeleton) -> Match:
        """Keys by the names of the layers."""
        if self.format == "keras-weights":
            return Match(dict(_numbered(self.name, skeleton)))
        naming = self.naming or "keras"
        held = {}
        for slot in skeleton.slots:
            name = named(naming, slot).name
            prefixes = FRAMEWORKS[naming].prefixes or {}
            collection = prefixes.get(slot.role, prefixes.get(""))
            parts = [part for part in (collection, slot.layer, name) if part is not None]
            key = ("." if naming == "torch" else "/").join(parts)
            held[slot.key] = Held((key,), "", step_to_keras(naming, slot))
        return Match(held)

    def write(self, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
        """All of them; nothing of the target is changed before everything is there."""
        if self.live is not None:
            self.live.write(arrays)
        elif self.path is not None:
            formats.write(self.path, arrays, metadata, config=self.config, template=self.template)

    def notes(self, skeleton: Skeleton, match: Match) -> tuple[str, ...]:
        return _notes(self.live, skeleton, match)


def _shape_under(held: Held, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape under the key of a weight that has this shape in Keras's form."""
    array = np.broadcast_to(np.zeros((), np.uint8), shape)
    for transform in undone(held.transforms):
        if isinstance(transform, Axes):  # the others leave the shape as it is, and would copy
            array = transform.apply(array)
    return array.shape


def _unwritten() -> np.ndarray:
    raise AssertionError("a key of a file that is not written yet has no array")


def _only(side: Side, skeleton: Skeleton, ways: list[Match]) -> Match:
    if len(ways) > 1:
        raise matching.ambiguous(side, skeleton, ways, probed=False)
    return ways[0]


def _numbered(name: str, skeleton: Skeleton) -> Mapping[str, Held]:
    """Keras's own file: groups by class and counter, the variables of each by number."""
    if skeleton.config is None:
        raise UsageError(f"{name}: a file for Keras needs the Keras network; {GIVE_NETWORK}")
    held = {}
    for layer, group in groups_by_counter(skeleton.layers).items():
        owner = keras_file.OWNER.get(skeleton.layers[layer], "")
        kind = skeleton.layers[layer]
        if layer in skeleton.by_layer and kind not in keras_file.VARIABLES:
            raise UsageError(f"{name}: where Keras puts the weights of a {kind} is not known; use model.save_weights")
        for number, slot in enumerate(skeleton.by_layer.get(layer, ())):
            held[slot.key] = Held((f"{group}/{owner}vars/{number}",), "")
    return held


# -- opening -----------------------------------------------------------------------------------------------------------


def opened_source(source: Any) -> Source:
    """A path, a live model or arrays."""
    if isinstance(source, str | Path):
        archive = formats.read(source)
        return Source(Side(archive, archive.format not in WITHOUT_ORDER, is_file=True))
    there = live.opened(source)
    return Source(Side(there.archive, True, is_file=False, naming=there.naming), there)


def opened_target(target: Any, model: Any) -> Target:
    """A path, a live model or arrays. model: a PyTorch model whose keys a file gets, or the `.keras` that a new one is
    like."""
    if not isinstance(target, str | Path):
        here = live.opened(target)
        side = Side(here.archive, True, is_file=False, naming=here.naming)
        return Target(here.archive.name, here.archive.format, side, here)
    path = Path(target)
    format = next((f for ending, f in formats.ENDINGS.items() if path.name.lower().endswith(ending)), None)
    writable = [ending for ending, f in formats.ENDINGS.items() if f in formats.WRITABLE]
    if format not in formats.WRITABLE:
        raise UsageError(f"{path}: expected a name that ends with one of {', '.join(writable)}; received {path.name!r}")
    assert format is not None
    if format == "keras":
        template = path if path.exists() or not _is_keras_file(model) else Path(model)
        if not template.exists():
            raise UsageError(
                f"{path}: there is no such file, and only the weights of one that is there can be "
                "replaced; save the model with model.save('name.keras') first, or write a .weights.h5"
            )
        archive = formats.read(template)
        side = Side(replace(archive, name=str(path)), True, is_file=True)
        return Target(str(path), format, side, path=path, template=template)
    like = live.opened(model) if model is not None and not isinstance(model, str | Path | Mapping | Spec) else None
    like = like if like is not None and like.naming == "torch" else None
    naming = "torch" if format == "torch" else None
    return Target(str(path), format, path=path, naming=naming, model=like)


def _is_keras_file(model: Any) -> bool:
    return isinstance(model, str | Path) and Path(model).name.lower().endswith(".keras")


# -- the network -------------------------------------------------------------------------------------------------------


def network(model: Any, there: Source, here: Target) -> Skeleton:
    """The network whose weights move: the one that is given; else the one that an end is, a Keras network first because
    it knows its images; else what the keys of the source say."""
    known = [*_models(model), *_known(here.live, here.side), *_known(there.live, there.side)]
    with_config = [make for has_config, make in known if has_config]
    if with_config:
        return with_config[0]()
    if known:
        return known[0][1]()
    found = _of_keys(there.side)
    _require_known_images(there, here, found)
    if here.layout is not None and not there.side.ordered and len(set(found.layers.values())) > 1:
        raise UsageError(
            f"{there.side.archive.name}: the order of its layers is not known, and {here.name} is to hold them by "
            f"number; {GIVE_NETWORK}"
        )
    return found


Make = Callable[[], Skeleton]


def _known(opened: Live | None, side: Side | None) -> list[tuple[bool, Make]]:
    if opened is not None and opened.skeleton is not None:
        found = opened.skeleton
        return [(found.config is not None, lambda: found)]
    if side is not None and side.archive.config is not None:
        config, name = side.archive.config, side.archive.name
        return [(True, lambda: _in_file(config, name))]
    return []


def _in_file(config: Mapping[str, Any], name: str) -> Skeleton:
    try:
        return skeletons.of_config(config, name)
    except UsageError as error:
        raise FileError(str(error)) from error


def _models(model: Any) -> list[tuple[bool, Make]]:
    if model is None:
        return []
    if isinstance(model, Mapping):
        return [(True, lambda: skeletons.of_config(model, "model"))]
    if isinstance(model, Spec):
        return [(True, lambda: skeletons.of_config(model.config, model.name))]
    if isinstance(model, str | Path):
        path = Path(model)
        read = _config(path)
        if read is None:
            raise UsageError(f"model: expected a .keras or .json file of a network; received {path}")
        return [(True, lambda: _in_file(read, path.name))]
    found = live.opened(model).skeleton
    if found is None:
        raise UsageError(f"model: expected a network or a .keras or .json file; received {type(model).__name__}")
    return [(found.config is not None, lambda: found)]


def _config(path: Path) -> Mapping[str, Any] | None:
    if path.suffix.lower() != ".json":
        return formats.read(path).config
    with limits.blamed(path):
        return keras_h5.config_of(limits.mapped(path), "the config")


def _of_keys(side: Side) -> Skeleton:
    arrays = {key: stored.shape for key, stored in side.archive.arrays.items() if not _is_state(key)}
    if arrays and all(NUMBERED.fullmatch(key) for key in arrays):
        return skeletons.of_numbered(arrays, side.archive.metadata, side.archive.name)
    naming = side.naming or matching.naming_of(_weights_of(side.archive))
    if naming is None or side.layout is not None:
        raise UsageError(
            f"{side.archive.name}: the keys {', '.join(side.archive.arrays)} do not say of what network they "
            f"are; {GIVE_NETWORK}"
        )
    groups, _ = skeletons.grouped(arrays, naming)
    order = list(groups) if side.ordered else sorted(groups, key=natural)
    return skeletons.of_groups({prefix: groups[prefix] for prefix in order}, naming, side.archive.name)


def _require_known_images(there: Source, here: Target, skeleton: Skeleton) -> None:
    """`UsageError` where one end flattens images channels first and the other last, and the keys alone do not say
    which matrices that concerns."""
    first = (there.side.naming or matching.naming_of(_weights_of(there.side.archive))) == "torch"
    if first == here.flattens_like_torch:
        return
    convolutions = [slot.shape[-1] for slot in skeleton.slots if slot.kind == "Conv2D" and slot.role == "kernel"]
    for slot in skeleton.slots:
        if slot.kind == "Dense" and slot.role == "kernel":
            behind = [n for n in convolutions if n > 1 and slot.shape[0] > n and slot.shape[0] % n == 0]
            if behind:
                raise UsageError(
                    f"{there.side.archive.name}: {slot.key} may stand behind a Flatten of {behind[0]} channels, whose "
                    f"rows PyTorch and Keras order differently; shapes cannot tell; {GIVE_NETWORK}"
                )


def _is_state(key: str) -> bool:
    return key.partition("/")[0] in matching.STATE


def _weights_of(archive: Archive) -> Archive:
    """Without the state of an optimizer, whose keys say nothing of the naming."""
    return replace(archive, arrays={key: stored for key, stored in archive.arrays.items() if not _is_state(key)})


def _notes(opened: Live | None, skeleton: Skeleton, match: Match) -> tuple[str, ...]:
    """What will differ although the weights are the same."""
    if opened is None or opened.skeleton is None:
        return ()
    notes = {}
    for slot in skeleton.slots:
        own = match.held[slot.key].keys[0].rpartition("." if opened.naming == "torch" else "/")[0]
        one, other = skeleton.epsilons.get(slot.layer), opened.skeleton.epsilons.get(own)
        if one is not None and other is not None and one != other:
            notes[slot.layer] = (
                f"{slot.layer} has an epsilon of {one:g}, layer {own!r} of {opened.archive.name} "
                f"{other:g}: with the same weights they compute different outputs"
            )
    if skeleton is opened.skeleton and opened.naming == "torch" and "Flatten" in _before_weights(skeleton):
        notes["Flatten"] = (
            f"{opened.archive.name} flattens its input, of which PyTorch does not know the number of "
            "channels: the rows behind it stay in their order"
        )
    return tuple(notes.values())


def _before_weights(skeleton: Skeleton) -> list[str]:
    weighted = set(skeleton.by_layer)
    kinds = []
    for layer, kind in skeleton.layers.items():
        if layer in weighted:
            break
        kinds.append(kind)
    return kinds


# -- arrays as tutorials call them -------------------------------------------------------------------------------------

LETTERS = {"kernel": "W", "embeddings": "W", "bias": "b"}


def _in_layout(
    name: str, format: str, layout: str | Callable[..., Any], skeleton: Skeleton, dtypes: Mapping[str, str]
) -> tuple[Archive, Match]:
    """A new file in a layout: W1, b1, W2 ...; one matrix W1, W2 ... a layer where the bias is folded in; or params."""
    if callable(layout):
        positions = {key: np.broadcast_to(np.zeros((), np.intp), shape) for key, shape in skeleton.shapes.items()}
        shapes = {key: np.shape(array) for key, array in layout(positions).items()}
    else:
        shapes = _tutorial_shapes(name, layout, skeleton)
    dtype = np.result_type(*(DTYPES[own] for own in dtypes.values()))
    archive = Archive(name, format, {key: Stored(key, shape, dtype, _unwritten) for key, shape in shapes.items()})
    return archive, matching.matches(Side(archive, True, False, layout=layout), skeleton)[0]


def _tutorial_shapes(name: str, layout: str, skeleton: Skeleton) -> dict[str, tuple[int, ...]]:
    convention = layout.removesuffix(FLATTENED)
    if convention.startswith("flat"):
        return {"params": (sum(math.prod(slot.shape) for slot in skeleton.slots),)}
    shapes: dict[str, tuple[int, ...]] = {}
    for number, slots in enumerate(skeleton.by_layer.values(), 1):
        if convention.startswith("bias"):
            kernel = slots[0].shape
            rows = (kernel[0] + 1, *kernel[1:])
            shapes[f"W{number}"] = rows if "row" in convention else rows[::-1]
            continue
        for slot in slots:
            shape = slot.shape
            if convention == "columns" and slot.role != "embeddings":
                shape = shape[::-1] if len(shape) == 2 else (*shape, 1) if len(shape) == 1 else shape
            elif convention == "channels first" and slot.kind == "Conv2D" and len(shape) == 4:
                shape = (shape[3], shape[2], shape[0], shape[1])
            elif convention.startswith("images"):
                raise UsageError(
                    f"{name}: layout {layout!r}: how high the images are is not known; give arrays of the "
                    "right shapes as the target"
                )
            shapes[f"{LETTERS.get(slot.role, slot.role)}{number}"] = shape
    if convention not in CONVENTIONS:
        raise UsageError(f"layout: expected one of {', '.join(CONVENTIONS)}; received {layout!r}")
    return shapes
