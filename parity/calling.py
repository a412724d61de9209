"""Call somebody else's functions with what they ask for, by the names of their parameters."""

from __future__ import annotations

import inspect
import linecache
import re
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parity.errors import SubjectError, UsageError

__all__ = ["NAMES", "call", "described", "guarded", "takes"]

NAMES = {
    "x": "x, X, x_batch, X_batch, x_train, X_train, inputs, input, images, image, features, data, batch, A0, a0",
    "y": "y, Y, y_t, Y_t, y_batch, Y_batch, y_train, Y_train, y_true, Y_true, labels, label, targets, target, t, T",
    "params": "params, parameters, weights, theta, thetas, model",
    "cache": "cache, caches, memory, activations, intermediates, saved",
    "outputs": "outputs, output, y_pred, Y_pred, y_hat, Y_hat, yhat, probs, predictions, prediction, pred, p, P, AL, "
    "out, o, a, A",
    "gradients": "grads, gradients, grad",
    "learning_rate": "learning_rate, lr, alpha, eta",
}
"""What a call can be given -> the parameter names that ask for it."""

LISTED = 8  # items of a list in a message

_ROLE = {name: role for role, names in NAMES.items() for name in names.split(", ")}


def takes(function: Callable[..., Any], role: str, names: Iterable[str] = ()) -> bool:
    """Whether a function has a parameter for this role, or one of these names."""
    if role == "params" and names and _takes_keywords(function):
        return True
    return any(p in names or _ROLE.get(p) == role for p in _parameters(function))


def call(what: str, function: Callable[..., Any], roles: Mapping[str, Any], named: Mapping[str, Any]) -> Any:
    """Call a function with the roles and named values that its parameters ask for.

    what: the function in a message. `UsageError` for a required parameter that nothing is known for, `SubjectError`
    where the function raises.
    """
    arguments: dict[str, Any] = {}
    for name, parameter in _parameters(function).items():
        if name in named:
            arguments[name] = named[name]
        elif _ROLE.get(name) in roles:
            arguments[name] = roles[_ROLE[name]]
        elif parameter.default is inspect.Parameter.empty:
            raise UsageError(_unknown(what, function, name, roles, named))
    if _takes_keywords(function):  # forward(X, **params)
        arguments.update({name: value for name, value in roles.get("keywords", {}).items() if name not in arguments})
    by_position = any(p.kind is p.POSITIONAL_ONLY for p in _parameters(function).values())
    run = (lambda: function(*arguments.values())) if by_position else (lambda: function(**arguments))
    return guarded(what, run, arguments)


def guarded(what: str, run: Callable[[], Any], arguments: Mapping[str, Any] | None = None) -> Any:
    """Run somebody else's code. `SubjectError` where it raises: where, and what it was called with."""
    try:
        return run()
    except (Exception, SystemExit) as error:  # a file that exits must not pass for a verdict
        raise SubjectError(_raised(what, error, arguments or {})) from error


def _takes_keywords(function: Callable[..., Any]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise UsageError(f"{function!r}: its parameters cannot be read; wrap it in a lambda with named ones") from error
    return {n: p for n, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def _unknown(what: str, function: Callable[..., Any], name: str, roles: Mapping[str, Any], named: Any) -> str:
    given = [role for role in roles if role in NAMES]
    if not given:
        return f"{what}: it must not have parameters without a default; it has {name!r}"
    known = "; ".join(f"{role} ({NAMES[role]})" for role in given)
    own = f"; your own names: {', '.join(named)}" if named else ""
    return (
        f"{what}: nothing is known for its parameter {name!r}. What can be given, with the names that ask for it: "
        f"{known}{own}. For other names pass a lambda with these, for example: lambda x, params: yours(params, x, 0.1)"
    )


def _raised(what: str, error: BaseException, arguments: Mapping[str, Any]) -> str:
    """The error of user code: where in their file, and what it was called with."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _library(f.filename)]
    where = ""
    if frames:
        last = frames[-1]
        line = linecache.getline(last.filename, last.lineno or 0).strip()
        where = f"{Path(last.filename).name}, line {last.lineno}, in {last.name}: {line}"
    lines = [f"{what} raised {type(error).__name__}: {error}", where]
    if arguments:
        lines += [f"it was called with: {', '.join(f'{n} {described(v)}' for n, v in arguments.items())}"]
    return "\n  ".join(line for line in lines if line)


def _library(filename: str) -> bool:
    """Whether a frame belongs to this package or to an installed one."""
    ours = Path(filename).is_relative_to(Path(__file__).parent)
    return ours or bool(re.search(r"site-packages|<frozen|<__array|importlib", filename))


def described(value: Any) -> str:
    """An argument as a message shows it: shapes and dtypes of arrays, and the names of what holds them."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {described(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        shown = [described(item) for item in value[:LISTED]] + (["..."] if len(value) > LISTED else [])
        return "[" + ", ".join(shown) + "]"
    if isinstance(value, np.ndarray):
        return f"{value.shape}" + ("" if value.dtype == np.float64 else f" {value.dtype}")
    return repr(value) if isinstance(value, int | float | str) else type(value).__name__
