"""A document against a JSON Schema: as much of draft 2020-12 as the schemas of this folder use, with no package."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from reprlib import Repr
from typing import Any, NamedTuple

__all__ = ["KEYWORDS", "Problem", "problem", "read"]

_REPR = Repr()
_REPR.maxstring = _REPR.maxother = 80
_REPR.maxdict = _REPR.maxlist = 2

ANNOTATIONS = frozenset({"$schema", "$id", "$defs", "title", "description"})


class Problem(NamedTuple):
    """Where a document is not what its schema says, as a path such as `checks[0].rows`; and how."""

    where: str
    text: str


def read(name: str) -> dict[str, Any]:
    """A schema of this folder."""
    found: dict[str, Any] = json.loads(files(__package__).joinpath(name).read_text(encoding="utf-8"))
    return found


def problem(document: Any, schema: Mapping[str, Any]) -> Problem | None:
    """The first thing that is wrong with a document, None where nothing is."""
    return next(_problems(document, schema, schema, ""), None)


def _problems(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any], where: str) -> Iterator[Problem]:
    for keyword, rule in schema.items():
        if keyword not in ANNOTATIONS:
            yield from KEYWORDS[keyword](value, rule, root, where)


def _ref(value: Any, rule: str, root: Mapping[str, Any], where: str) -> Iterator[Problem]:
    yield from _problems(value, root["$defs"][rule.removeprefix("#/$defs/")], root, where)


def _any_of(value: Any, rule: Sequence[Mapping[str, Any]], root: Mapping[str, Any], where: str) -> Iterator[Problem]:
    found = [next(_problems(value, option, root, where), None) for option in rule]
    if None not in found:
        said = [each for each in found if each is not None]
        inside = [each for each in said if each.where != where]  # of the right type, and wrong further down
        texts = [each.text.removeprefix("expected ").partition(", received")[0] for each in said]
        yield inside[0] if inside else _expected(" or ".join(texts), value, where)


def _type(value: Any, rule: str | Sequence[str], root: Mapping[str, Any], where: str) -> Iterator[Problem]:
    names = [rule] if isinstance(rule, str) else rule
    if not any(_is(value, name) for name in names):
        yield _expected(" or ".join(NAMES[name] for name in names), value, where)


def _is(value: Any, name: str) -> bool:
    """Whether a value has a type; a truth value is no number, and 1.0 is an integer, as the standard has it."""
    if name == "integer":
        return (isinstance(value, int) and not isinstance(value, bool)) or (
            isinstance(value, float) and value.is_integer()
        )
    return isinstance(value, TYPES[name]) and not (name == "number" and isinstance(value, bool))


TYPES: Mapping[str, Any] = {
    "object": dict, "array": list, "string": str, "number": (int, float), "boolean": bool, "null": type(None),
}  # fmt: skip
NAMES = {
    "object": "an object", "array": "a list", "string": "a string", "number": "a number", "integer": "a whole number",
    "boolean": "true or false", "null": "null",
}  # fmt: skip


def _const(value: Any, rule: Any, root: Mapping[str, Any], where: str) -> Iterator[Problem]:
    yield from _enum(value, [rule], root, where)


def _enum(value: Any, rule: Sequence[Any], root: Mapping[str, Any], where: str) -> Iterator[Problem]:
    if isinstance(value, bool) or value not in rule:  # True == 1 in Python, and not in JSON
        yield _expected(" or ".join(json.dumps(each) for each in rule), value, where)


def _minimum(value: Any, rule: float, root: Mapping[str, Any], where: str) -> Iterator[Problem]:
    if _is(value, "number") and value < rule:
        yield _expected(f"at least {rule}", value, where)


def _required(value: Any, rule: Sequence[str], root: Mapping[str, Any], where: str) -> Iterator[Problem]:
    if isinstance(value, dict):
        yield from (Problem(where, f"the key {key!r} is missing") for key in rule if key not in value)


def _properties(value: Any, rule: Mapping[str, Any], root: Mapping[str, Any], where: str) -> Iterator[Problem]:
    if isinstance(value, dict):
        for key, schema in rule.items():
            if key in value:
                yield from _problems(value[key], schema, root, f"{where}.{key}" if where else key)


def _other_properties(value: Any, rule: Any, root: Mapping[str, Any], where: str) -> Iterator[Problem]:
    """The values of an object that is a map: no schema here has named properties beside it."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _problems(each, rule, root, f"{where}[{_REPR.repr(key)}]")


def _items(value: Any, rule: Mapping[str, Any], root: Mapping[str, Any], where: str) -> Iterator[Problem]:
    if isinstance(value, list):
        for position, each in enumerate(value):
            yield from _problems(each, rule, root, f"{where}[{position}]")


def _expected(what: str, received: Any, where: str) -> Problem:
    return Problem(where, f"expected {what}, received {_REPR.repr(received)}")


KEYWORDS: Mapping[str, Callable[[Any, Any, Mapping[str, Any], str], Iterator[Problem]]] = {
    "$ref": _ref,
    "additionalProperties": _other_properties,
    "anyOf": _any_of,
    "const": _const,
    "enum": _enum,
    "items": _items,
    "minimum": _minimum,
    "properties": _properties,
    "required": _required,
    "type": _type,
}
