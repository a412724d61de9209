"""What code keeps from call to call, put back afterwards: a trial is no step, and a second check is like the first."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

__all__ = ["kept"]


@contextlib.contextmanager
def kept(*things: Any) -> Iterator[None]:
    """Put back what functions and objects keep: their attributes, the variables around them, the globals they name,
    mutable defaults. Containers are refilled, so that they stay the same objects. What cannot be copied stays, and so
    do the objects of installed libraries."""
    restore: list[Callable[[], None]] = []
    _remember(list(things), restore, set())
    try:
        yield
    finally:
        for each in restore:
            each()


def _remember(things: list[Any], restore: list[Callable[[], None]], seen: set[int]) -> None:
    for thing in things:
        if id(thing) in seen or isinstance(thing, ModuleType | type):
            continue
        seen.add(id(thing))
        if isinstance(thing, functools.partial):
            _remember([thing.func, *thing.args, *thing.keywords.values()], restore, seen)
        elif isinstance(thing, MethodType):
            _remember([thing.__self__, thing.__func__], restore, seen)
        elif isinstance(thing, FunctionType):
            _remember(_around(thing, restore), restore, seen)
        else:
            _contents(thing, restore)


def _around(function: FunctionType, restore: list[Callable[[], None]]) -> list[Any]:
    """The values that a function can reach, after noting the names that it can bind anew."""
    values: list[Any] = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    if function.__dict__:
        values.append(function.__dict__)
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # a variable that has no value yet
            values.append(cell.cell_contents)
            restore.append(functools.partial(setattr, cell, "cell_contents", _again(cell.cell_contents)))
    for name in _names(function.__code__):
        if name in function.__globals__:
            values.append(function.__globals__[name])
            again = _again(function.__globals__[name])
            restore.append(functools.partial(function.__globals__.__setitem__, name, again))
    return values


def _again(value: Any) -> Any:
    """The value to bind a name to again: itself, or the counter as it is now."""
    return copy.copy(value) if isinstance(value, itertools.count) else value


def _names(code: CodeType) -> set[str]:
    """The names in a function and in those inside it; some are attributes, and are no globals."""
    inner = [_names(each) for each in code.co_consts if isinstance(each, CodeType)]
    return set(code.co_names).union(*inner)


def _contents(thing: Any, restore: list[Callable[[], None]]) -> None:
    holder = thing if isinstance(thing, dict | list | set | np.ndarray) else getattr(thing, "__dict__", None)
    if holder is None or _installed(type(thing)):
        return
    try:
        saved = copy.deepcopy(holder)
    except Exception:  # a lock, a file, a generator: whatever cannot be copied has its own exception
        return
    restore.append(functools.partial(_refill, holder, saved))


def _installed(cls: type) -> bool:
    """Whether a class is an installed library's: its objects, such as models, are not taken apart."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None) or ""
    return "site-packages" in file and not issubclass(cls, dict | list | set | np.ndarray)


def _refill(holder: Any, saved: Any) -> None:
    if isinstance(holder, np.ndarray):
        holder[...] = saved
    elif isinstance(holder, list):
        holder[:] = saved
    else:
        holder.clear()
        holder.update(saved)
