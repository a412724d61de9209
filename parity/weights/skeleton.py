"""Which weights a network has: its layers in order, each weight with its role, shape and named axes.

The form in which a skeleton describes a weight is Keras's: the roles are Keras's names, the axes are in Keras's order.
It is what a port goes through on its way from one framework or layout to another, so a skeleton is all that has to be
known of a network to move its weights; no weight is read or made for it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from parity.errors import UsageError
from parity.weights.keras_config import snake_case
from parity.weights.names import FRAMEWORKS, KINDS

__all__ = [
    "GIVE_NETWORK",
    "KNOWN",
    "Group",
    "Rows",
    "Skeleton",
    "Slot",
    "grouped",
    "names_of",
    "of_config",
    "of_groups",
    "of_keras",
    "of_numbered",
    "of_scratch",
    "of_torch",
    "roles_of",
]

Shape = tuple[int, ...]


class Rows(NamedTuple):
    """A weight's axis that runs over the elements of a flattened image. Keras flattens in the order (height, width,
    channels), PyTorch in (channels, height, width).

    image: (height, width, channels), or (places, 1, channels) where only the number of places is known.
    """

    axis: str
    image: tuple[int, int, int]


@dataclass(frozen=True)
class Slot:
    """One weight that a network has, in Keras's form. unclear: an axis runs over what was flattened after its axes had
    been moved, or moved after it was flattened, so that PyTorch's order of it is not known."""

    layer: str
    kind: str
    role: str
    shape: Shape
    axes: tuple[str, ...]
    rows: Rows | None = None
    unclear: bool = False

    @property
    def key(self) -> str:
        return f"{self.layer}/{self.role}"


@dataclass(frozen=True)
class Skeleton:
    """The weights of one network.

    name: what a message calls it; layers: name -> kind, of all layers in order; slots: the weights in Keras's order;
    config: of the Keras Sequential, where it is known; epsilons: of the layers that have one.
    """

    name: str
    layers: Mapping[str, str]
    slots: tuple[Slot, ...]
    config: Mapping[str, Any] | None = None
    epsilons: Mapping[str, float] = field(default_factory=dict)

    @property
    def by_layer(self) -> dict[str, list[Slot]]:
        """The layers that have weights, in order."""
        found: dict[str, list[Slot]] = {}
        for slot in self.slots:
            found.setdefault(slot.layer, []).append(slot)
        return found

    @property
    def shapes(self) -> dict[str, Shape]:
        return {slot.key: slot.shape for slot in self.slots}

    @property
    def images(self) -> dict[str, Shape]:
        """Kernel of a Dense behind a Flatten -> the image (height, width, channels) that is flattened."""
        return {slot.key: slot.rows.image for slot in self.slots if slot.rows and slot.kind == "Dense"}


class _Layer(NamedTuple):
    name: str
    kind: str
    input_shape: Sequence[int | None]
    weights: Mapping[str, Shape]
    epsilon: float | None


def _assembled(name: str, layers: Iterable[_Layer], config: Mapping[str, Any] | None) -> Skeleton:
    kinds: dict[str, str] = {}
    slots: list[Slot] = []
    epsilons: dict[str, float] = {}
    image: tuple[int, int, int] | None = None
    moved_axes = after_moving = False
    layers = list(layers)
    for layer, following in zip(layers, [*layers, None][1:], strict=True):
        kinds[layer.name] = layer.kind
        if layer.epsilon is not None:
            epsilons[layer.name] = layer.epsilon
        flat = len(layer.input_shape) == 2
        reshapes = layer.kind == "Reshape" and following is not None and len(following.input_shape) == 2
        flattens = (layer.kind == "Flatten" or reshapes) and not flat
        if layer.weights or (layer.kind in MOVING_AXES and not flattens):
            moved_axes = not layer.weights
        if flattens:
            image = _image(layer.input_shape)
        elif not flat:
            image = None
        made = [_slot(layer.name, layer.kind, role, shape, image) for role, shape in layer.weights.items()]
        slots += [replace(slot, unclear=after_moving and slot.rows is not None) for slot in made]
        if flattens:
            after_moving = moved_axes
        elif layer.kind == "Dense":
            image = None
        elif image is not None and layer.kind not in PER_FEATURE and not reshapes:
            after_moving = True  # what comes out of it may be in any order
    return Skeleton(name, kinds, tuple(slots), config, epsilons)


MOVING_AXES = ("Permute", "Reshape")

PER_FEATURE = (
    "Activation",
    "AlphaDropout",
    "BatchNormalization",
    "Dropout",
    "ELU",
    "Flatten",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    "LayerNormalization",
    "LeakyReLU",
    "ReLU",
    "Softmax",
    "UnitNormalization",
)
"""Behind these, a flattened image has its elements where it had them before."""


NORMALIZATIONS = ("BatchNormalization", "LayerNormalization")


def _image(shape: Sequence[int | None]) -> tuple[int, int, int] | None:
    """What a Flatten flattens, if the orders of the frameworks differ: of (height, width) alone, of a sequence of
    vectors, of one channel or of one place they are the same."""
    if len(shape) != 4 or None in shape[1:]:
        return None
    height, width, channels = (int(n) for n in shape[1:] if n is not None)
    return (height, width, channels) if channels > 1 and height * width > 1 else None


def _slot(layer: str, kind: str, role: str, shape: Shape, image: tuple[int, int, int] | None) -> Slot:
    axes = KINDS.get(kind, {}).get(role) or tuple(f"axis {number}" for number in range(len(shape)))
    runs_over_inputs = role == "kernel" if kind == "Dense" else kind in NORMALIZATIONS  # the bias runs over the units
    fits = image is not None and runs_over_inputs and shape[:1] == (math.prod(image),)
    rows = Rows(axes[0], image) if fits and image is not None else None
    return Slot(layer, kind, role, shape, axes, rows)


# -- of scratchnet and of Keras ----------------------------------------------------------------------------------------


def of_config(config: Mapping[str, Any], name: str) -> Skeleton:
    """From the config of a Keras Sequential. Nothing in it is run, and no weight is allocated. `UsageError` where it
    has layers that scratchnet lacks, or does not say the shape of the input."""
    import scratchnet

    try:
        entries = [entry for entry in config.get("layers", ()) if entry["class_name"] != "InputLayer"]
        unbuilt = {**config, "layers": entries, "build_input_shape": None}
        chain = scratchnet.Sequential.from_config(unbuilt)
        for layer in chain.layers:
            for option in [option for option in vars(layer) if option.endswith("_initializer")]:
                setattr(layer, option, _nothing)
        shape = input_shape_of(config)
        if shape is not None:
            chain.build(shape)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:  # whatever a config may say
        raise UsageError(
            f"{name}: the shapes of the weights cannot be worked out: {error}; give the live Keras model"
        ) from error
    if not chain.built:
        raise UsageError(f"{name}: the config does not say the shape of the input; add keras.Input(shape) first")
    return _of_chain(chain, name, config)


def input_shape_of(config: Mapping[str, Any]) -> tuple[int | None, ...] | None:
    """The shape of a network's input, batch axis first, as its config says it."""
    for entry in config.get("layers", ()):
        if entry["class_name"] == "InputLayer":
            found = entry["config"].get("batch_shape") or entry["config"].get("batch_input_shape")
            return None if found is None else tuple(found)
    found = config.get("build_input_shape")
    return None if found is None else tuple(found)


def _nothing(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """An initializer whose array takes no memory, however large it claims to be."""
    return np.broadcast_to(np.zeros((), dtype), tuple(shape))


def of_scratch(model: Any) -> Skeleton:
    """Of a live scratchnet network."""
    if not model.built:
        raise UsageError(f"{model.name}: the model has no weights yet; call build((None, ...)) first")
    return _of_chain(model, f"scratchnet model {model.name!r}", model.get_config())


def _of_chain(chain: Any, name: str, config: Mapping[str, Any]) -> Skeleton:
    layers = [
        _Layer(
            layer.name,
            layer.registered_name,
            layer.input_shape,
            {role: weight.shape for role, weight in layer.weights.items()},
            getattr(layer, "epsilon", None),
        )
        for layer in chain.layers
    ]
    return _assembled(name, layers, config)


def of_keras(model: Any) -> Skeleton:
    """Of a live Keras Sequential, with layers of any kind."""
    if type(model).__name__ != "Sequential":
        raise UsageError(f"model: expected a keras.Sequential; received {type(model).__name__} {model.name!r}")
    if not model.built:
        raise UsageError(f"{model.name}: the model has no weights yet; give it keras.Input(shape), or call build")
    shape = tuple(model.input_shape)
    layers = []
    for layer in model.layers:
        if getattr(layer, "data_format", None) == "channels_first":
            raise UsageError(
                f"{model.name}: layer {layer.name!r}: expected data_format='channels_last'; received 'channels_first'"
            )
        weights = {role: tuple(variable.shape) for role, variable in roles_of(layer).items()}
        layers.append(_Layer(layer.name, type(layer).__name__, shape, weights, getattr(layer, "epsilon", None)))
        shape = tuple(layer.compute_output_shape(shape))
    return _assembled(f"Keras model {model.name!r}", layers, model.get_config())


def roles_of(layer: Any) -> dict[str, Any]:
    """The variables of a live Keras layer by role: their names, with a counter from the second of a name on."""
    found: dict[str, Any] = {}
    seen: Counter[str] = Counter()
    for variable in layer.weights:
        found[f"{variable.name}_{seen[variable.name]}" if seen[variable.name] else variable.name] = variable
        seen[variable.name] += 1
    return found


# -- of PyTorch --------------------------------------------------------------------------------------------------------

MODULES = {
    "Linear": "Dense",
    "Conv2d": "Conv2D",
    "BatchNorm1d": "BatchNormalization",
    "BatchNorm2d": "BatchNormalization",
    "LayerNorm": "LayerNormalization",
    "Embedding": "Embedding",
    "Flatten": "Flatten",
}
"""PyTorch's class -> the kind of layer. Others may be there if they have no weights."""


def of_torch(model: Any) -> Skeleton:
    """Of a live `torch.nn.Sequential`, nested ones included. Its layers are named as in its `state_dict`.

    PyTorch does not know the size of an image before it sees one, but what comes out of a convolution has its number
    of channels, and a Linear behind a Flatten the number of inputs: together they say how the rows are ordered.
    """
    kinds: dict[str, str] = {}
    slots: list[Slot] = []
    epsilons: dict[str, float] = {}
    channels: int | None = None
    flattened = False
    for name, module in _leaves(model, ""):
        kind = MODULES.get(type(module).__name__, type(module).__name__)
        kinds[name] = kind
        epsilons |= {name: module.eps} if hasattr(module, "eps") else {}
        flattened = flattened or kind == "Flatten"
        for role, shape in _torch_weights(name, kind, module).items():
            image = _torch_image(shape[0], channels) if flattened and kind != "Embedding" else None
            slots.append(_slot(name, kind, role, shape, image))
        if kind == "Conv2D":
            channels, flattened = module.out_channels, False
        elif kind in ("Dense", "Embedding"):
            channels, flattened = None, False
    return Skeleton("torch model", kinds, tuple(slots), None, epsilons)


def _torch_image(inputs: int, channels: int | None) -> tuple[int, int, int] | None:
    if channels is None or channels == 1 or inputs % channels or inputs == channels:
        return None
    return (inputs // channels, 1, channels)


def _leaves(module: Any, prefix: str) -> Iterable[tuple[str, Any]]:
    if type(module).__name__ != "Sequential":
        yield prefix, module
        return
    for name, child in module._modules.items():  # `named_children` leaves out a module that is there twice
        yield from _leaves(child, f"{prefix}.{name}" if prefix else name)


def _torch_weights(name: str, kind: str, module: Any) -> dict[str, Shape]:
    """Role -> shape in Keras's form."""
    torch = FRAMEWORKS["torch"]
    present = {key: tuple(array.shape) for key, array in module.state_dict().items() if key not in torch.ignored}
    what = f"torch model: {type(module).__name__} {name!r}"
    if present and kind not in KINDS:
        raise UsageError(
            f"{what} has weights, and how they correspond to Keras's is not known; known: {', '.join(MODULES)}"
        )
    if kind == "Conv2D" and (module.groups != 1 or module.transposed):
        raise UsageError(f"{what}: expected a convolution without groups; received groups={module.groups}")
    if kind == "LayerNormalization" and len(module.normalized_shape) != 1:
        raise UsageError(f"{what}: expected one normalized axis; received {tuple(module.normalized_shape)}")
    found = {}
    for role, axes in KINDS.get(kind, {}).items():
        named = torch.of(kind, role)
        if named.name in present:
            sizes = dict(zip(named.axes, present.pop(named.name), strict=True))
            found[role] = tuple(sizes[axis] for axis in axes)
    if present:
        raise UsageError(f"{what}: unknown weights {', '.join(present)}")
    return found


# -- of keys alone -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """The keys that share a prefix, which are the weights of one layer: name within the layer -> key and shape."""

    prefix: str
    keys: Mapping[str, str]
    shapes: Mapping[str, Shape]

    @property
    def layer(self) -> str:
        """The name of the layer, if the prefix ends with it."""
        return re.split(r"[/.]", self.prefix)[-1]


def grouped(shapes: Mapping[str, Shape], naming: str, roles: Iterable[str] = ()) -> tuple[dict[str, Group], list[str]]:
    """The groups by prefix, in the order of their first keys, and the keys that hold no weight of this naming. roles:
    those of a network with layers of other kinds than `KINDS`, which are Keras's names too."""
    framework = FRAMEWORKS[naming]
    known = names_of(naming) | set(roles if naming == "keras" else ())
    keys: dict[str, dict[str, str]] = {}
    others = []
    for key in shapes:
        prefix, name = _split(key)
        if naming == "flax" and framework.prefixes is not None:
            collection, _, rest = prefix.replace(".", "/", 1).partition("/")
            prefix = rest if collection in framework.prefixes.values() else prefix
        if name in known and name not in keys.get(prefix, {}):
            keys.setdefault(prefix, {})[name] = key
        else:
            others.append(key)
    return {
        prefix: Group(prefix, names, {name: shapes[key] for name, key in names.items()})
        for prefix, names in keys.items()
    }, others


KNOWN: Mapping[str, tuple[str, ...]] = {
    "keras": tuple(KINDS),
    "torch": tuple(FRAMEWORKS["torch"].weights),
    "flax": tuple(kind for kind in KINDS if kind != "SimpleRNN"),  # Flax has a Dense in the cell for each kernel
}
"""Framework -> kinds of layers of which is known how it holds them."""


def names_of(naming: str) -> set[str]:
    """What a framework calls weights."""
    return {FRAMEWORKS[naming].of(kind, role).name for kind in KNOWN[naming] for role in KINDS[kind]}


def _split(key: str) -> tuple[str, str]:
    """dense_1/kernel:0 -> dense_1, kernel; layers.0.weight -> layers.0, weight."""
    prefix, _, name = key.rpartition("/" if "/" in key else ".")
    return prefix, name.removesuffix(":0")


def of_groups(groups: Mapping[str, Group], naming: str, name: str) -> Skeleton:
    """What keys and ranks say of a network when nothing else is known of it: which layers there are, by prefix. The
    order of the groups is taken for the order of the layers. `UsageError` where a name fits two kinds."""
    slots = []
    kinds = {}
    for prefix, group in groups.items():
        kind = kinds[prefix] = _kind(group, naming, name)
        for role, axes in KINDS[kind].items():
            named = FRAMEWORKS[naming].of(kind, role)
            if named.name in group.shapes:
                sizes = dict(zip(named.axes, group.shapes[named.name], strict=True))
                slots.append(Slot(prefix, kind, role, tuple(sizes[axis] for axis in axes), axes))
    return Skeleton(name, kinds, tuple(slots))


def of_numbered(shapes: Mapping[str, Shape], names: Mapping[str, str], name: str) -> Skeleton:
    """What a `.weights.h5` says of its network: the class of each layer in the name of its group, such as
    `layers/conv2d_1`, and beside it the name of the layer. names: group -> that name. The order of layers of different
    classes is not in the file. `UsageError` for other classes than those in `KINDS`, and for weights that may be left
    out."""
    owners: dict[str, list[str]] = {}
    for key in shapes:
        owners.setdefault("/".join(key.split("/")[:2]), []).append(key)
    kinds: dict[str, str] = {}
    slots = []
    for group, keys in owners.items():
        base = re.sub(r"_\d+$", "", group.partition("/")[2])
        kind = next((kind for kind in KINDS if snake_case(kind) == base), None)
        roles = tuple(KINDS[kind]) if kind else ()
        roles = roles[:1] if kind in ("Dense", "Conv2D") and len(keys) == 1 else roles
        if kind is None or len(roles) != len(keys):
            raise UsageError(f"{name}: which weights {', '.join(keys)} are is not known; {GIVE_NETWORK}")
        layer = names.get(group, group.partition("/")[2])
        kinds[layer] = kind
        slots += [_slot(layer, kind, role, shapes[key], None) for role, key in zip(roles, keys, strict=True)]
    return Skeleton(name, kinds, tuple(slots))


def _kind(group: Group, naming: str, name: str) -> str:
    fitting = [kind for kind in KNOWN[naming] if _may_be(kind, group, naming)]
    if len(fitting) == 1:
        return fitting[0]
    received = ", ".join(f"{group.keys[key]} {shape}" for key, shape in group.shapes.items())
    if not fitting:
        raise UsageError(f"{name}: no layer is known that has {received}, and nothing else; {GIVE_NETWORK}")
    kinds = " or a ".join(fitting)
    raise UsageError(f"{name}: {received} may belong to a {kinds}, which shapes cannot tell; {GIVE_NETWORK}")


def _may_be(kind: str, group: Group, naming: str) -> bool:
    """Whether a layer of this kind has all these weights, of these ranks, and none that it cannot do without."""
    named = {role: FRAMEWORKS[naming].of(kind, role) for role in KINDS[kind]}
    ranks = {each.name: len(each.axes) for each in named.values()}
    if not all(ranks.get(name) == len(shape) for name, shape in group.shapes.items()):
        return False
    if kind == "Embedding" and len(group.shapes) != 1:
        return False
    sizes: dict[str, set[int]] = {}
    for each in named.values():
        for axis, size in zip(each.axes, group.shapes.get(each.name, ()), strict=False):
            sizes.setdefault("out" if axis == "state" else axis, set()).add(size)
    if any(len(found) > 1 for found in sizes.values()):  # an LSTM has the names of a SimpleRNN
        return False
    needed = NEEDED.get(kind, tuple(named)[:1])
    return all(named[role].name in group.shapes for role in needed)


NEEDED = {"BatchNormalization": ("moving_mean", "moving_variance"), "SimpleRNN": ("kernel", "recurrent_kernel")}
"""Weights that a layer of this kind always has; of the other kinds, the first."""

GIVE_NETWORK = "give the network: model=..., or --model FILE"
