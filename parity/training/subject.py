"""The code under test: what it is called with, in which form it takes its tensors, and what comes back.

Arguments are bound by the names that people give them. The form (a list, a dictionary, one array) is found by trying:
whatever the code keeps from call to call is put back afterwards, so that a trial is not counted as a step.
"""

from __future__ import annotations

import functools
import inspect
import reprlib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from parity.errors import UsageError
from parity.mistakes.update_rules import Arrays, Path, restarted
from parity.training.kept import kept

__all__ = ["Failed", "Form", "Subject"]

NAMES = {
    "weights": "w weight weights p param params parameter parameters theta x variables vars trainable_variables",
    "gradients": "g grad grads gradient gradients dw dp dparam dparams dtheta dx d_w d_params grad_w derivatives",
    "pairs": "grads_and_vars gradients_and_variables",
    "rate": "lr learning_rate alpha eta rate learningrate lrate step_size stepsize l_r",
    "t": "t step iteration iterations it i n_iter timestep time_step epoch k global_step num_steps counter",
    "state": "v m s r h b a vel velocity velocities velocitys cache mem memory avg averages moment moments "
    "m1 m2 moment1 moment2 first_moment second_moment mean_square squares sq acc accumulator buffer buf "
    "exp_avg exp_avg_sq v_hat vhat v_max vmax m_t v_t s_t mt vt vdw sdw v_dw s_dw v_prev m_prev prev_v prev_m",
    "open_state": "state states opt_state optimizer_state config history",
}
ROLES = {name: role for role, names in NAMES.items() for name in names.split()}

CONSTANTS = {
    "beta_1": "beta_1 beta1 b1",
    "beta_2": "beta_2 beta2 b2",
    "epsilon": "epsilon eps",
    "rho": "rho decay_rate decay beta gamma",
    "momentum": "momentum mu beta gamma rho",
    "weight_decay": "weight_decay wd decay lam lambd lmbda lambda_ l2 reg",
    "clipnorm": "clipnorm clip_norm max_norm clip threshold max_grad_norm",
    "global_clipnorm": "global_clipnorm clipnorm clip_norm max_norm clip threshold max_grad_norm",
    "clipvalue": "clipvalue clip_value clip threshold",
    "nesterov": "nesterov",
    "centered": "centered",
    "amsgrad": "amsgrad",
}
"""Keras's name of a constant -> the names that it is given under; bound only where there is no default."""

METHODS = ("update", "step", "apply_gradients", "apply", "update_params", "update_parameters", "optimize")
RATES = ("lr", "learning_rate", "alpha", "eta", "_lr", "_learning_rate")


class Failed(Exception):
    """The code under test raised, or gave back what cannot be weights; the message says what and on which line."""


# -- the form of the tensors -------------------------------------------------------------------------------------------


class _Gradients(dict[str, Any]):
    """Finds the gradient of `W1` also as `dW1`."""

    def __missing__(self, key: str) -> Any:
        plain = key.removeprefix("d") if isinstance(key, str) else key
        if plain not in self:
            raise KeyError(key)
        return self[plain]


@dataclass(frozen=True)
class Form:
    """How tensors are handed over. kind: list, dict or array; names: of the tensors; keys: of a dictionary."""

    kind: str
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    keys: tuple[Any, ...] = ()

    @property
    def said(self) -> str:
        return {"list": "a list of arrays", "dict": "a dictionary of arrays", "array": "one array"}[self.kind]

    def pack(self, arrays: Sequence[Any], gradients: bool = False) -> Any:
        """Copies, in this form."""
        copies = [np.array(a) for a in arrays]
        if self.kind == "array":
            return copies[0]
        if self.kind == "list":
            return copies
        return (_Gradients if gradients else dict)(zip(self.keys, copies, strict=True))

    def zeros(self) -> Any:
        packed = self.pack([np.zeros(shape) for shape in self.shapes], gradients=True)
        return packed

    def unpack(self, value: Any) -> list[Any] | None:
        """What is in a container of this form, one for each tensor; None for another kind of thing."""
        if self.kind == "array":
            return [value] if isinstance(value, np.ndarray | np.generic) else None
        if self.kind == "list":
            fits = isinstance(value, list | tuple) and len(value) == len(self.names)
            return list(value) if fits and all(_is_array(each) for each in value) else None
        fits = isinstance(value, Mapping) and all(key in value and _is_array(value[key]) for key in self.keys)
        return [value[key] for key in self.keys] if fits else None


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic)


# -- what is called ----------------------------------------------------------------------------------------------------


class _State(dict[Any, Any]):
    """An empty state: what is read before it is written is zeros, and 0 for a number of steps."""

    def __init__(self, form: Form):
        super().__init__()
        self.form = form

    def __missing__(self, key: Any) -> Any:
        value = 0 if ROLES.get(str(key).lower()) == "t" else self.form.zeros()
        self[key] = value
        return value


@dataclass(frozen=True)
class _Parameter:
    """One argument of the code: its name, what it is for, and whether it has a default."""

    name: str
    role: str
    optional: bool
    positional: bool


@dataclass
class Subject:
    """The code under test, ready to run. notes: what was seen besides; dtypes: of the weights that came back."""

    function: Callable[..., Any]
    owner: Any
    parameters: tuple[_Parameter, ...]
    config: Mapping[str, Any]
    notes: dict[str, None] = field(default_factory=dict)
    dtypes: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, update: Any, config: Mapping[str, Any]) -> Subject:
        """`UsageError` for what cannot be called, or has arguments that nothing is known for."""
        function, owner = _callable(update)
        return cls(function, owner, tuple(_parameters(function, config)), config)

    @property
    def takes_t(self) -> bool:
        return any(p.role == "t" for p in self.parameters)

    @property
    def rate_attribute(self) -> str | None:
        """The attribute of the object that is its learning rate."""
        return next((name for name in RATES if isinstance(getattr(self.owner, name, None), float | int)), None)

    @property
    def own_rate(self) -> float | None:
        """The learning rate that the object has; None where it has none."""
        return None if self.rate_attribute is None else float(getattr(self.owner, self.rate_attribute))

    @property
    def takes_rate(self) -> bool:
        given = any(p.role == "rate" or p.name == "config" for p in self.parameters)
        return given or self.rate_attribute is not None

    def run(
        self, form: Form, weights: Arrays, gradients: Sequence[Arrays], rates: Sequence[float], first_t: int = 1
    ) -> Path:
        """The weights after each step; `Failed` where a step cannot be made. What the code keeps is put back.

        A weight that is not finite any more has its start value again before the next step.
        """
        with kept(self.function, self.owner), np.errstate(all="ignore"):  # nan and infinities are seen in the weights
            return list(_Run(self, form, weights, first_t).steps(gradients, rates))


class _Run:
    """One run over all steps: the arguments that go from step to step."""

    def __init__(self, subject: Subject, form: Form, weights: Arrays, first_t: int):
        self.subject, self.form, self.start, self.first_t = subject, form, weights, first_t
        self.weights: Any = form.pack(weights)
        self.in_place = False  # whether a step so far changed the arrays in place: one without gradients does not
        self.values: dict[str, Any] = {}
        for p in subject.parameters:
            if p.role == "state" and not p.optional:
                self.values[p.name] = form.zeros()
            elif p.role == "open_state" and (not p.optional or p.name == "config"):
                self.values[p.name] = _State(form) if p.name != "config" else {}

    def steps(self, gradients: Sequence[Arrays], rates: Sequence[float]) -> Iterator[Arrays]:
        attribute = self.subject.rate_attribute
        own, rate = self.subject.own_rate, rates[0]
        for index, (given, lr) in enumerate(zip(gradients, rates, strict=True)):
            if (
                attribute is not None and own is not None and lr != rate
            ):  # only where it changes: its first value is under test
                setattr(self.subject.owner, attribute, own * (lr / rates[0]))
            rate = lr
            try:
                made = self._step(index, given, lr)
            except Failed as failed:
                raise Failed(f"step {index + 1}: {failed}") from failed.__cause__
            yield made
            self._restart(made)

    def _restart(self, made: Arrays) -> None:
        again = restarted(made, self.start)
        if all(a is b for a, b in zip(again, made, strict=True)):
            return
        if self.form.kind == "dict":  # it may have more in it
            self.weights = {**self.weights, **dict(zip(self.form.keys, again, strict=True))}
        else:
            self.weights = self.form.pack(again)

    def _step(self, index: int, given: Arrays, lr: float) -> Arrays:
        handed = self.form.pack(given, gradients=True)
        before = [np.array(a) for a in self.form.unpack(self.weights) or []]
        positional, named = self._arguments(index, handed, lr)
        try:
            result = self.subject.function(*positional, **named)
        except Exception as error:  # whatever the code raises is what is reported
            raise Failed(_own_line(error)) from error
        if any(not np.array_equal(a, b) for a, b in zip(self.form.unpack(handed) or [], given, strict=False)):
            self.subject.notes["your code changes the gradients that it is given, in place"] = None
        now = self.form.unpack(self.weights) or []
        in_place = any(not np.array_equal(a, b) for a, b in zip(now, before, strict=False))
        self.in_place |= in_place
        self._take(result, in_place)
        return self._read()

    def _arguments(self, index: int, handed: Any, lr: float) -> tuple[list[Any], dict[str, Any]]:
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for p in self.subject.parameters:
            found, value = self._value(p, index, handed, lr)
            if not found:
                continue
            if p.positional:
                positional.append(value)
            else:
                named[p.name] = value
        return positional, named

    def _value(self, p: _Parameter, index: int, handed: Any, lr: float) -> tuple[bool, Any]:
        if p.name == "config":
            self.values[p.name]["learning_rate"] = lr
        if p.name in self.values:
            return True, self.values[p.name]
        if p.role in ("weights", "gradients", "pairs", "rate", "t"):
            pairs = zip(self.form.unpack(handed) or [], self.form.unpack(self.weights) or [], strict=True)
            known = {
                "weights": self.weights,
                "gradients": handed,
                "pairs": list(pairs) if p.role == "pairs" else None,
                "rate": lr,
                "t": index + self.first_t,
            }
            return True, known[p.role]
        if p.role in CONSTANTS and not p.optional:
            return True, self.subject.config[p.role]
        return False, None

    def _take(self, result: Any, in_place: bool) -> None:
        """New weights, and new state, out of what came back; nothing has to where the arrays were changed, and what
        else comes back then (the object itself, a loss) is not looked at."""
        if result is None:
            return
        states = [p.name for p in self.subject.parameters if p.role in ("state", "open_state")]
        if any(result is self.values.get(name) for name in states) or (in_place and states and self._is_state(result)):
            self._take_state((result,))
        elif in_place and states and isinstance(result, tuple) and result and self._is_state(result[0]):
            self._take_state(result)
        elif self.form.unpack(result) is not None:
            self.weights = result
        elif isinstance(result, tuple) and result and self.form.unpack(result[0]) is not None:
            self.weights = result[0]
            self._take_state(result[1:])
        elif not self.in_place and result is not self.subject.owner:
            raise Failed(
                f"it returned {_described(result)}; expected the new weights in the form in which they came, alone or "
                "first in a tuple, or nothing where the arrays are changed in place"
            )

    def _is_state(self, result: Any) -> bool:
        """Whether something in the form of the weights is not the weights, which were changed in place."""
        mine, theirs = self.form.unpack(self.weights) or [], self.form.unpack(result)
        return theirs is not None and any(not np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))

    def _take_state(self, rest: Sequence[Any]) -> None:
        states = [p for p in self.subject.parameters if p.role in ("state", "open_state")]
        counters = [p for p in self.subject.parameters if p.role == "t"]
        arrays = [value for value in rest if not _is_count(value)]
        for p, value in zip(states, arrays, strict=False):
            self.values[p.name] = value
        for p, value in zip(counters, (value for value in rest if _is_count(value)), strict=False):
            self.values[p.name] = value
        if len(arrays) > len(states):
            more = len(arrays) - len(states)
            note = f"{more} of the values that your function returns have no argument to go back into, and are left out"
            self.subject.notes[note] = None

    def _read(self) -> Arrays:
        """Copies of the weights as they are now, in float64."""
        found = self.form.unpack(self.weights)
        if found is None:
            raise Failed(f"afterwards the weights are no longer {self.form.said}")
        for name, array, shape in zip(self.form.names, found, self.form.shapes, strict=True):
            if np.shape(array) != shape:
                raise Failed(f"{name} has the shape {np.shape(array)} afterwards, {shape} before")
            self.subject.dtypes.add(str(np.asarray(array).dtype))
            if np.asarray(array).dtype != np.float64:
                note = f"{name} comes back as {np.asarray(array).dtype}, and went in as float64"
                self.subject.notes[note] = None
        return [np.array(array, np.float64) for array in found]


def _described(value: Any) -> str:
    """What something is, in a few words."""
    if _is_array(value):
        return f"an array of shape {np.shape(value)}"
    if isinstance(value, Mapping):
        return f"a dictionary with the keys {reprlib.repr(list(value))}"
    if isinstance(value, list | tuple):
        first = f", the first of them {_described(value[0])}" if value else ""
        return f"a {type(value).__name__} of {len(value)}{first}"
    return f"{reprlib.repr(value)}, a {type(value).__name__}"


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer)


# -- arguments by name -------------------------------------------------------------------------------------------------


def _callable(update: Any) -> tuple[Callable[..., Any], Any]:
    """What to call, and the object that it belongs to."""
    if isinstance(update, type):
        raise UsageError(f"update: expected a function or an object; received the class {update.__name__}: make one")
    if isinstance(update, MethodType):
        return update, update.__self__
    if isinstance(update, FunctionType | functools.partial):
        return update, None
    for name in METHODS:
        if callable(getattr(update, name, None)):
            return getattr(update, name), update
    if callable(update):
        return update, update
    raise UsageError(
        f"update: expected a function, or an object with one of the methods {', '.join(METHODS)}; received {update!r}"
    )


def _parameters(function: Callable[..., Any], config: Mapping[str, Any]) -> Iterator[_Parameter]:
    unknown = []
    found = []
    for p in inspect.signature(function).parameters.values():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        optional = p.default is not p.empty
        role = _role(p.name, config, optional)
        if role is None and not optional:
            unknown.append(p.name)
        elif role is not None:
            found.append(_Parameter(p.name, role, optional, p.kind is p.POSITIONAL_ONLY))
    roles = {p.role for p in found}
    if unknown or not ({"weights", "gradients"} <= roles or "pairs" in roles):
        raise UsageError(_unbound(unknown, found, config))
    yield from found


def _role(name: str, config: Mapping[str, Any], optional: bool) -> str | None:
    plain = name.lower().strip("_")
    constants = (role for role, names in CONSTANTS.items() if plain in names.split() and config.get(role) is not None)
    constant = next(constants, None)
    if constant is not None:
        return None if optional else constant
    role = ROLES.get(plain)
    return "state" if role is None and plain.endswith(("momentum", "momentums", "velocity")) and not optional else role


def _unbound(unknown: Sequence[str], found: Sequence[_Parameter], config: Mapping[str, Any]) -> str:
    said = f"nothing is known for the argument{'s' * (len(unknown) > 1)} {', '.join(unknown)}"
    if not unknown:
        missing = [role for role in ("weights", "gradients") if role not in {p.role for p in found}]
        said = f"no argument takes the {' or the '.join(missing)}"
    known = "; ".join(f"{role.replace('_', ' ')}: {', '.join(names.split()[:6])}" for role, names in NAMES.items())
    constants = ", ".join(name for name in CONSTANTS if config.get(name) is not None)
    return (
        f"update: {said}. Arguments are bound by name: {known}"
        + (f"; constants: {constants}" if constants else "")
        + ". Write it as a function of those: lambda params, grads, lr: your_function(params, grads, lr, ...)"
    )


# -- whose line --------------------------------------------------------------------------------------------------------


def _own_line(error: Exception) -> str:
    """The exception with the last line that is not a library's."""
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first is the call in this module
    own = [frame for frame in frames if "site-packages" not in frame.filename and "numpy" not in frame.filename]
    where = ""
    if own:
        frame = own[-1]
        where = f", {frame.filename}, line {frame.lineno}, in {frame.name}" + (f": {frame.line}" if frame.line else "")
    return f"{type(error).__name__}: {error}{where}"
