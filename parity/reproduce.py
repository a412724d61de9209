"""What runs the same check again: every report, and every failure in it, says it in one line."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parity.inputs import Inputs
from parity.subjects import Subject

__all__ = ["MODES", "command"]

MODES = ("eager", "function")
"""How the reference runs where nothing else is said."""


def command(
    model: Any,
    subject: Subject | None,
    loss: Any,
    dtype: str,
    inputs: Inputs,
    seed: int,
    modes: Sequence[str],
    training: bool,
) -> str:
    """A command line, or a call in Python where the command line has no word for it. Every option is there, because a
    configuration may have another one than the default."""
    named = (model is None or isinstance(model, str | Path)) and (subject is None or subject.source)
    spoken = loss is None or isinstance(loss, str)
    if not (named and spoken and training and inputs.x is None):
        return _call(model, subject, loss, dtype, inputs, seed, modes, training)
    words = ["parity", "check"]
    words += [str(model)] if model is not None else []
    words += ["--subject", subject.source] if subject is not None else []
    words += ["--loss", loss] if loss is not None else []
    words += ["--data", str(inputs.used)] if inputs.used is not None else []
    words += ["--batch", str(inputs.batch), "--dtype", dtype, "--seed", str(seed), "--modes", ",".join(modes)]
    return shlex.join(words)


def _call(
    model: Any,
    subject: Subject | None,
    loss: Any,
    dtype: str,
    inputs: Inputs,
    seed: int,
    modes: Sequence[str],
    training: bool,
) -> str:
    """The call of check() with every argument that matters; what no line of text can hold is named behind it."""
    named = isinstance(model, str | Path)
    arguments = [repr(str(model)) if named else "model"] if model is not None else []
    arguments += [] if subject is None else ["subject"] if model is not None else ["subject=subject"]
    arguments += [f"loss={loss!r}"] if loss is not None else []
    if inputs.x is None:
        arguments += [f"data={str(inputs.used)!r}"] if inputs.used is not None else []
        arguments += [f"batch={inputs.batch}"]
    else:
        arguments += ["x=x, y=y"]
    arguments += [f"dtype={dtype!r}", f"seed={seed}"]
    arguments += [f"modes={tuple(modes)!r}"] if tuple(modes) != MODES else []
    arguments += [] if training else ["training=False"]
    same = [] if named or model is None else ["model"]
    same += [] if subject is None else ["subject"]
    same += [] if inputs.x is None else ["x and y"]
    return f"parity.check({', '.join(arguments)})  # in Python" + (f", with the same {', '.join(same)}" if same else "")
