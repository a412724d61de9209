"""One table of everything that has a Keras name: layers, activations, losses, ...

A class says its family once, on the family's base class, and its names where it is registered. The first name is the
one that Keras writes into a config; the others are accepted. Looking a name up accepts what Keras accepts: a name,
a config dictionary `{"class_name": ..., "config": {...}}`, a class, or an instance.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar

__all__ = ["Entry", "UnknownArgument", "UnknownName", "deserialize", "entries", "find", "get", "register", "serialize"]

T = TypeVar("T", bound=type)

_TABLE: dict[str, dict[str, Any]] = {}


class UnknownName(ValueError):
    """A name that no entry of the family has."""


class UnknownArgument(ValueError):
    """An argument that the entry does not take, or takes only with another value."""


def register(*names: str) -> Callable[[T], T]:
    """Enter a class under `names`; the first is the one that configs carry. The class attribute `family` says where."""

    def enter(cls: T) -> T:
        table = _TABLE.setdefault(cls.family, {})  # type: ignore[attr-defined]
        for name in names:
            if name in table:
                raise ValueError(f"{cls.family} {name!r} is registered twice: {table[name].__name__}, {cls.__name__}")  # type: ignore[attr-defined]
            table[name] = cls
        cls.registered_name = names[0]  # type: ignore[attr-defined]
        return cls

    return enter


def entries(family: str) -> dict[str, Any]:
    """Every class of a family once, by its first name, in the order of the source."""
    return {cls.registered_name: cls for cls in _TABLE.get(family, {}).values()}


def find(family: str, name: str) -> Any:
    """The class that `name` stands for; `UnknownName` lists what is known."""
    table = _TABLE.get(family, {})
    if name not in table:
        raise UnknownName(f"unknown {family} {name!r}; known: {', '.join(sorted(entries(family)))}")
    return table[name]


def get(family: str, identifier: Any) -> Any:
    """The object that Keras would make of `identifier`; None stays None."""
    if identifier is None or (getattr(identifier, "family", None) == family and not isinstance(identifier, type)):
        return identifier
    if isinstance(identifier, str):
        return find(family, identifier)()
    if isinstance(identifier, Mapping):
        return deserialize(family, identifier)
    if isinstance(identifier, type) and getattr(identifier, "family", None) == family:
        return identifier()
    raise TypeError(f"expected a {family}: a name, a config or an instance; received {identifier!r}")


def deserialize(family: str, config: Mapping[str, Any]) -> Any:
    """Build an entry from Keras's own JSON. Arguments are checked against the class; nothing else is executed."""
    if "class_name" not in config:
        raise UnknownName(f"expected a {family} config with the key 'class_name'; received the keys {sorted(config)}")
    name, arguments = config["class_name"], config.get("config", {})
    if name == "function":  # Keras writes a bare function, such as a loss given by name, this way
        name, arguments = str(arguments), {}
    return find(family, name).from_config(arguments)


def serialize(entry: Any) -> Any:
    """Keras's JSON for an entry: `{"module", "class_name", "config", "registered_name"}`; None stays None."""
    if entry is None:
        return None
    return {
        "module": f"keras.{entry.family}{'es' if entry.family.endswith('s') else 's'}",
        "class_name": entry.registered_name,
        "config": entry.get_config(),
        "registered_name": None,
    }


class Entry:
    """Base of every registered class: its arguments are its constructor's, kept as attributes of the same names.

    `neutral` lists arguments of the Keras class that are known here only in the value that does nothing: a config may
    carry them with that value, any other value is refused rather than ignored; `unwritten` are those that Keras itself
    leaves out of its configs. `examples` are argument sets that every test over the registry uses.
    """

    family: str
    registered_name: str
    neutral: Mapping[str, Any] = {}
    unwritten: tuple[str, ...] = ()
    examples: tuple[Mapping[str, Any], ...] = ({},)

    @classmethod
    @functools.cache  # the same class is asked at every build
    def arguments(cls) -> tuple[str, ...]:
        """The names of the constructor's arguments, then those that it passes on to its base class."""
        names: dict[str, None] = {}
        for base in cls.__mro__:
            if "__init__" in vars(base):
                parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
                names.update({p.name: None for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)})
                if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                    break  # a constructor without **kwargs passes nothing on to its base class
        names.pop("self", None)
        return tuple(names)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build from Keras's config of this class. `UnknownArgument` for what it does not take."""
        known = cls.arguments()
        for name, value in config.items():
            if name not in known and name not in cls.neutral:
                raise UnknownArgument(
                    f"{cls.registered_name} has no argument {name!r} here (received {value!r}); "
                    f"known: {', '.join(known)}"
                )
            if name in cls.neutral and value != cls.neutral[name]:
                raise UnknownArgument(
                    f"{cls.registered_name}({name}={value!r}) is not supported; only {name}={cls.neutral[name]!r} is"
                )
        return cls(**{name: value for name, value in config.items() if name in known})

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data, in Keras's names."""
        neutral = {name: value for name, value in self.neutral.items() if name not in self.unwritten}
        return {**{name: _plain(getattr(self, name)) for name in self.arguments()}, **neutral}

    def as_value(self) -> Any:
        """How the config of another entry carries this one."""
        return serialize(self)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.arguments())
        return f"{type(self).__name__}({arguments})"


def _plain(value: Any) -> Any:
    if isinstance(value, Entry):
        return value.as_value()
    return list(value) if isinstance(value, tuple) else value
