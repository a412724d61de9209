"""Somebody's own network as plain functions or an object, ready to be run at other weights and on other samples."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from parity.calling import call, described, guarded, takes
from parity.errors import FileError, UsageError
from parity.gradients import Gradients
from parity.parameters import Parameters, flattened

__all__ = ["Pass", "Subject", "load", "require_subject", "subject"]

METHODS = {
    "forward": (
        "forward", "forward_pass", "forward_propagation", "forward_prop", "forwardprop", "feedforward", "feed_forward",
        "predict", "__call__",
    ),
    "backward": (
        "backward", "backward_pass", "backward_propagation", "backward_prop", "backprop", "back_prop",
        "backpropagation", "backpropagate", "gradients", "compute_gradients", "gradient",
    ),
    "loss": ("loss", "compute_loss", "cost", "compute_cost", "loss_function", "cost_function"),
    "step": ("train_step", "train_on_batch", "update", "train", "step"),
}  # fmt: skip
"""What the methods of an object are called that do each thing."""


def subject(
    forward: Any = None,
    backward: Callable[..., Any] | str | None = None,
    params: Any = None,
    *,
    loss: Callable[..., Any] | str | None = None,
    step: Callable[..., Any] | str | None = None,
    learning_rate: float | None = None,
    gradients: Mapping[str, str | None] | None = None,
    tensors: Mapping[str, str] | None = None,
    layout: str | Callable[..., Any] | None = None,
    samples: str | Callable[..., Any] | None = None,
    labels: str | Callable[..., Any] | None = None,
    name: str = "your network",
) -> Subject:
    """Your own network, to be given to `parity.check(model, subject, x, y)`.

    forward: a function that returns the outputs, alone or with a cache; or an object with methods, of which the usual
    names are found and others are given as strings. backward: a function that returns the gradients, as a dict, a list
    or in attributes, alone or beside the loss. params: the parameters, as a dict, a list, one flat vector, or an object
    with attributes. Each function is called with what the names of its parameters ask for: x, y, params or single ones
    of them, cache, outputs (`parity.calling.NAMES` has all names). loss: a function that returns the loss.

    step: in place of `backward`, a function that trains for one step, in place or by returning new parameters; the
    gradients are then what it moved, divided by `learning_rate`.

    gradients: parameter -> name of its gradient, where that is not the usual one (dW1, grad_W1, W1); None for one that
    your code does not give, which then is not compared; otherwise a missing one is a finding. tensors: name in
    your cache or gradients -> Keras's tensor, such as "dense/pre_activation"; Z1, A1, dZ1, dA1 are known.

    layout: how your parameters hold Keras's weights: a name of `parity.weights.layouts.CONVENTIONS`, or a function of
    Keras's weights by "<layer>/<weight>" that returns yours, in NumPy. samples: "rows" (batch first), "columns",
    "channels first", "flat", "one" (one sample a call), or a function of x. labels: "integers", "one-hot", or a
    function of y. What is left out is found by the shapes and the forward pass.

    Raises UsageError for what cannot be called or is not there.
    """
    if forward is not None and not isinstance(forward, FunctionType | MethodType | type(len) | type(np.dot)):
        return _of_object(forward, backward, params, loss, step, learning_rate, gradients, tensors, layout, samples,
                          labels, name)  # fmt: skip
    functions: dict[str, Any] = {"forward": forward, "backward": backward, "loss": loss, "step": step}
    for what, function in functions.items():
        if function is not None and not callable(function):
            raise UsageError(f"subject: {what}: expected a function; received {function!r}")
    if backward is None and step is None and forward is None:
        raise UsageError("subject: give at least forward, backward or step")
    if params is None:
        raise UsageError(
            "subject: params: give the parameters of your network: a dict or a list of arrays, one vector, or an object"
        )
    return Subject(
        functions={what: function for what, function in functions.items() if function is not None},
        parameters=Parameters.of(params),
        learning_rate=learning_rate,
        gradients=dict(gradients or {}),
        tensors=dict(tensors or {}),
        layout=layout,
        samples=samples,
        labels=labels,
        name=name,
    )


def _of_object(
    instance: Any, backward: Any, params: Any, loss: Any, step: Any, learning_rate: float | None, gradients: Any,
    tensors: Any, layout: Any, samples: Any, labels: Any, name: str,
) -> Subject:  # fmt: skip
    """From an object: its methods by their usual names, or by the ones given."""
    given = {"forward": None, "backward": backward, "loss": loss, "step": step}
    found: dict[str, Callable[..., Any]] = {}
    for what, usual in METHODS.items():
        wanted = given[what]
        names = (wanted,) if isinstance(wanted, str) else usual
        method = (
            wanted if callable(wanted) else next((getattr(instance, n) for n in names if hasattr(instance, n)), None)
        )
        if method is None and isinstance(wanted, str):
            raise UsageError(f"subject: {type(instance).__name__} has no method {wanted!r}")
        if callable(method):
            found[what] = method
    if "backward" in found and not isinstance(step, str) and not callable(step):
        found.pop("step", None)
    if not found:
        raise UsageError(
            f"subject: {type(instance).__name__} has none of the methods {', '.join(METHODS['forward'])}; "
            f"{', '.join(METHODS['backward'])}; give their names: subject(net, backward='my_backward')"
        )
    return Subject(
        functions=found,
        parameters=Parameters.of(instance if params is None else params),
        learning_rate=learning_rate,
        gradients=dict(gradients or {}),
        tensors=dict(tensors or {}),
        layout=layout,
        samples=samples,
        labels=labels,
        name=name if name != "your network" else type(instance).__name__,
        instance=instance,
    )


def load(place: str) -> Subject:
    """The subject that a file makes: `my_net.py:build`, a function without required arguments that returns it, or its
    name in the file. The file runs as Python code, with its own folder to import from.

    Raises FileError for a file that cannot be read, UsageError for what is not in it, SubjectError where it raises.
    """
    file, _, name = place.rpartition(":")
    path = Path(file)
    if not file or path.suffix != ".py":
        raise UsageError(f"subject: expected FILE.py:FUNCTION, such as my_net.py:build; received {place!r}")
    if not path.is_file():
        raise FileError(f"subject: there is no file {path}")
    module = guarded(f"{path}", lambda: _executed(path))
    if not hasattr(module, name):
        there = ", ".join(n for n, v in vars(module).items() if isinstance(v, FunctionType | Subject)) or "none"
        raise UsageError(f"subject: {path} has no {name!r}; its functions: {there}")
    made = getattr(module, name)
    if isinstance(made, FunctionType):
        made = call(name, made, {}, {})
    if not isinstance(made, Subject):
        raise UsageError(f"subject: {place}: expected what parity.subject(...) returns; received {type(made).__name__}")
    return replace(made, source=place)


def _executed(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


@dataclass(frozen=True)
class Pass:
    """What one call of the user's functions gave, in their own layout.

    outputs, loss: None where there are none. gradients: parameter -> gradient, of whatever shape it has. own: what each
    is called there. kept: other arrays, from the cache and from among the gradients. changed: what the functions wrote
    to although it was not theirs, and what that is. choices: how many arrays could be the outputs.
    """

    outputs: np.ndarray | None
    loss: np.ndarray | None
    gradients: Mapping[str, np.ndarray]
    own: Mapping[str, str]
    kept: Mapping[str, np.ndarray]
    changed: tuple[tuple[str, str], ...]
    choices: int = 1


def require_subject(given: Any) -> None:
    """UsageError for what is neither None nor made by `subject`."""
    if not (given is None or isinstance(given, Subject)):
        raise UsageError(
            f"subject: expected what parity.subject(...) returns; received {type(given).__name__}. Without a network "
            "of your own leave it out, and give samples as x=x, y=y"
        )


@dataclass(frozen=True)
class Subject:
    """Functions, parameters, and what is known about their conventions; made by `subject`."""

    functions: Mapping[str, Callable[..., Any]]
    parameters: Parameters
    learning_rate: float | None
    gradients: Mapping[str, str | None]
    tensors: Mapping[str, str]
    layout: Any
    samples: Any
    labels: Any
    name: str
    instance: Any = None
    source: str = ""  # where `load` found it

    @property
    def by_argument(self) -> bool:
        """Whether the functions are handed their parameters, so that nothing of the user's is written to."""
        names = self._names()
        return self.instance is None and all(
            takes(f, "params", names) for what, f in self.functions.items() if what not in ("loss",)
        )

    def _names(self) -> set[str]:
        root = self.parameters.root
        return {str(key) for key in root} if isinstance(root, Mapping) else set()

    def run(
        self,
        arrays: Mapping[str, np.ndarray],
        x: np.ndarray,
        y: np.ndarray,
        outputs: int,
        forward_only: bool = False,
        pick: int = 0,
    ) -> Pass:
        """One forward and one backward pass at these parameters, whose own values are restored afterwards.

        outputs: how many numbers the network gives for the batch, to find them among what `forward` returns; pick:
        which one, where several arrays have as many.
        """
        before = {name: np.array(array) for name, array in self.parameters.read().items()}
        try:
            with np.errstate(all="ignore"):  # what overflows shows in the numbers
                return _Run(self, arrays, x, y, outputs, pick).result(forward_only)
        finally:
            if not self.by_argument:
                self.parameters.write(before)


class _Run:
    """One call of each of the functions."""

    def __init__(
        self,
        subject: Subject,
        arrays: Mapping[str, np.ndarray],
        x: np.ndarray,
        y: np.ndarray,
        outputs: int,
        pick: int,
    ):
        self.subject, self.size, self.pick, self.choices = subject, outputs, pick, 1
        self.x, self.y = np.array(x), np.array(y)
        self.given = {"x": np.array(x), "y": np.array(y)}
        self.at = {name: np.array(array) for name, array in arrays.items()}
        self.roles: dict[str, Any] = {"x": self.x, "y": self.y}
        self.named: dict[str, Any] = {}
        self.kept: dict[str, np.ndarray] = {}
        self._give_parameters()

    def _give_parameters(self) -> None:
        if not self.subject.by_argument:
            self.subject.parameters.write(self.at)
        if self.subject.instance is None and not self.subject.parameters.of_object:
            filled = (
                self.subject.parameters.filled(self.at) if self.subject.by_argument else self.subject.parameters.root
            )
            self.roles["params"] = filled
            if isinstance(filled, Mapping):
                self.named.update({str(key): value for key, value in filled.items()})
                self.roles["keywords"] = dict(self.named)
        elif self.subject.instance is None:
            self.roles["params"] = self.subject.parameters.root

    def result(self, forward_only: bool) -> Pass:
        functions = self.subject.functions
        if "forward" in functions:
            self._forward(functions["forward"])
        outputs = None if "outputs" not in self.roles else np.array(self.roles["outputs"])
        kept = {name: np.array(array) for name, array in self.kept.items()}  # before anything is written over
        if forward_only:
            return Pass(outputs, None, {}, {}, kept, (), self.choices)
        gradients, own, loss = self._backward()
        if "loss" in functions:
            loss = self._scalar(call("loss", functions["loss"], self._with(outputs=outputs), self.named))
        kept.update({name: array for name, array in self.kept.items() if name not in kept})
        return Pass(outputs, loss, gradients, own, kept, self._changed(), self.choices)

    def _with(self, **roles: Any) -> dict[str, Any]:
        return {**self.roles, **{role: value for role, value in roles.items() if value is not None}}

    def _forward(self, function: Callable[..., Any]) -> None:
        roles = self.roles if takes(function, "x") else {**self.roles, "outputs": self.x}  # feedforward(a): a = f(a)
        result = call("forward", function, roles, self.named)
        parts = list(result) if isinstance(result, tuple) else [result]
        names = returned_names(function)
        if len(names) == len(parts):
            self._keep(dict(zip(names, parts, strict=True)), of_cache=True)
        fitting = [i for i, part in enumerate(parts) if isinstance(part, np.ndarray) and part.size == self.size]
        if fitting:
            self.choices = len(fitting)
            self.roles["outputs"] = parts.pop(fitting[self.pick])
            self.roles["cache"] = parts[0] if len(parts) == 1 else tuple(parts)
        else:  # all that was computed, and the outputs somewhere in it
            self.roles["cache"] = result
            leaves = [leaf for _, leaf in flattened(result) if isinstance(leaf, np.ndarray)]
            inside = [leaf for leaf in leaves if leaf.size == self.size][::-1]
            if not inside:
                raise UsageError(
                    f"forward: expected outputs with {self.size} numbers for these samples of shape {self.x.shape}; "
                    f"received {described(result)}"
                )
            self.choices = len(inside)
            self.roles["outputs"] = inside[self.pick]
        self._keep(self.roles["cache"], of_cache=True)

    def _keep(self, value: Any, of_cache: bool = False) -> None:
        for path, leaf in flattened(value):
            if isinstance(leaf, np.ndarray) and path and isinstance(path[-1], str):
                self.kept[path[-1]] = leaf
                if of_cache:
                    self.named.setdefault(path[-1], leaf)

    def _backward(self) -> tuple[dict[str, np.ndarray], dict[str, str], np.ndarray | None]:
        functions = self.subject.functions
        if "backward" in functions:
            result = call("backward", functions["backward"], self.roles, self.named)
            given = self.subject
            gradients = Gradients(given.parameters, given.gradients, given.instance, self._shapes())
            found = gradients.of(result)
            self._keep(gradients.others)
            return found, gradients.own, gradients.loss
        if "step" in functions:
            return self._moved(functions["step"])
        return {}, {}, None

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: self.at[name].shape for name in self.subject.parameters.paths if name in self.at}

    def _moved(self, function: Callable[..., Any]) -> tuple[dict[str, np.ndarray], dict[str, str], np.ndarray | None]:
        """The gradients by what one step of training moved."""
        rate = self.subject.learning_rate
        if rate is None:
            raise UsageError("subject: step needs learning_rate: the gradients are what it moves, divided by that")
        result = call("step", function, self._with(learning_rate=rate), self.named)
        after = self._parameters_after(result)
        moved = {name: (self.at[name] - after[name]) / rate for name in self.at}
        return moved, {name: f"the step of {name}" for name in moved}, None

    def _parameters_after(self, result: Any) -> dict[str, np.ndarray]:
        paths = self.subject.parameters.paths
        returned = {path: leaf for path, leaf in flattened(result)} if result is not None else {}
        if set(paths.values()) <= set(returned):
            return {name: np.asarray(returned[path]) for name, path in paths.items()}
        if self.subject.by_argument:
            filled = dict(flattened(self.roles["params"]))
            return {name: np.asarray(filled[path]) for name, path in paths.items()}
        return {name: np.array(array) for name, array in self.subject.parameters.read().items()}

    def _scalar(self, value: Any) -> np.ndarray:
        array = np.asarray(value)
        if array.size == 1 and array.dtype.kind in "iuf":
            return array.reshape(())
        raise UsageError(f"loss: expected one number; received {described(value)}")

    def _changed(self) -> tuple[tuple[str, str], ...]:
        """What the functions wrote to: samples, labels, parameters."""
        changed = [
            (name, what)
            for name, what, now in (("x", "the samples", self.x), ("y", "the labels", self.y))
            if not np.array_equal(now, self.given[name], equal_nan=True)
        ]
        if "step" not in self.subject.functions:
            if self.subject.by_argument:
                now = dict(flattened(self.roles["params"]))
                after = {name: now[path] for name, path in self.subject.parameters.paths.items() if path in now}
            else:
                after = self.subject.parameters.read()
            changed += [
                (name, "a parameter")
                for name, array in self.at.items()
                if not np.array_equal(np.asarray(after.get(name)), array, equal_nan=True)
            ]
        return tuple(changed)


def returned_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names in the last `return a, b, c` of a function; none where it returns something else."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # no source, or a piece of a line, as of a lambda
        return ()
    found = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    if not found or not isinstance(found[-1], ast.Tuple):
        return ()
    names = tuple(item.id for item in found[-1].elts if isinstance(item, ast.Name))
    return names if len(names) == len(found[-1].elts) else ()
