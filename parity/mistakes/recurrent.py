"""Mistakes in SimpleRNN: h_t = f(a_t), a_t = x_t W + b + h_{t-1} U, and back through time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from parity.mistakes.catalogue import mistake
from parity.mistakes.parts import Outputs, rows
from parity.runners.steps import Operation

# -- forward -----------------------------------------------------------------------------------------------------------


@mistake(
    "rnn-recurrence-missing",
    on="SimpleRNN",
    direction="forward",
    text="each step starts from the state that the step before left, not from zeros",
    right="a_t = x_t W + b + h_{t-1} U",
    wrong="a_t = x_t W + b",
    shows="with more than one step",
)
def _(op: Operation) -> Outputs | None:
    return None if _single_step(op) else _ran(op, lambda a, h: np.zeros_like(h))


@mistake(
    "rnn-state-before-activation",
    on="SimpleRNN",
    direction="forward",
    text="hand on the state behind the activation, h, not a",
    right="a_t = x_t W + b + h_{t-1} U",
    wrong="a_t = x_t W + b + a_{t-1} U",
    shows="with more than one step",
)
def _(op: Operation) -> Outputs | None:
    return None if _single_step(op) else _ran(op, lambda a, h: a)


@mistake(
    "rnn-state-kept",
    on="SimpleRNN",
    direction="forward",
    text="start each batch from zeros, not from the state that the last batch left",
    right="h_0 = 0",
    wrong="h_0 = h_T of the last pass (here: on the same batch)",
    shows="from the second pass on",
)
def _(op: Operation) -> Outputs:
    return _ran(op, start=op.terms.h[:, -1])


@mistake(
    "rnn-recurrent-kernel-transposed",
    on="SimpleRNN",
    direction="forward",
    text="do not transpose the recurrent kernel: states are rows",
    right="a_t = x_t W + b + h_{t-1} U",
    wrong="a_t = x_t W + b + h_{t-1} U^T",
    shows="with more than one step and one unit",
)
def _(op: Operation) -> Outputs | None:
    return None if _single_step(op) else _ran(op, recurrent=op["recurrent_kernel"].T)


@mistake(
    "rnn-bias-missing",
    on="SimpleRNN",
    direction="forward",
    text="add the bias in every step",
    right="a_t = x_t W + b + h_{t-1} U",
    wrong="a_t = x_t W + h_{t-1} U",
    shows="where the bias is not zero, as it is when training starts",
)
def _(op: Operation) -> Outputs | None:
    return _ran(op, bias=False) if "bias" in op else None


@mistake(
    "rnn-steps-reversed",
    on="SimpleRNN",
    direction="forward",
    text="go through the sequence from its first step to its last",
    right="t = 1 ... T",
    wrong="t = T ... 1",
    shows="with more than one step",
)
def _(op: Operation) -> Outputs | None:
    return None if _single_step(op) else _ran(op, x=op["x"][:, ::-1])


@mistake(
    "rnn-step-missing",
    on="SimpleRNN",
    direction="forward",
    text="the output of a step is the state behind it; the loop ends one step early, or the old state is put out",
    right="z = h_T, or z_t = h_t",
    wrong="z = h_{T-1}, or z_t = h_{t-1}",
)
def _(op: Operation) -> Outputs:
    return {"z": op.terms.before if op.entry.return_sequences else op.terms.before[:, -1]}


@mistake(
    "rnn-time-first-reshaped",
    on="SimpleRNN",
    direction="forward",
    text="to bring the time to the front, exchange the axes; a reshape mixes samples and steps",
    right="x_t = x.transpose(1, 0, 2)[t]",
    wrong="x_t = x.reshape(time, batch, features)[t]",
    shows="with more than one step and one sample",
)
def _(op: Operation) -> Outputs:
    x = op["x"]
    batch, steps, features = x.shape
    return _ran(op, x=x.reshape(steps, batch, features).swapaxes(0, 1))


@mistake(
    "rnn-kernels-stacked",
    on="SimpleRNN",
    direction="forward",
    text="one product of [x_t, h_{t-1}] with both kernels on top of each other is the same",
    right="a_t = x_t W + h_{t-1} U + b",
    wrong="a_t = [x_t, h_{t-1}] [W; U] + b",
    shows="never",
    equivalent="the terms of the sums are the same",
)
def _(op: Operation) -> Outputs:
    both = np.concatenate([op["kernel"], op["recurrent_kernel"]])
    states = [np.zeros_like(op.terms.h[:, 0])]
    for t in range(op["x"].shape[1]):
        a = np.concatenate([op["x"][:, t], states[-1]], axis=-1) @ both
        states.append(op.entry.activation.forward(a + op["bias"] if "bias" in op else a))
    return {"z": _put_out(op, states[1:])}


# -- backward: the gradient that is carried back through time ----------------------------------------------------------


@mistake(
    "rnn-carried-gradient-missing",
    on="SimpleRNN",
    direction="backward",
    text="a state goes on to the next step as well: add what comes back from there (dh_next)",
    right="dh_t = dz_t + da_{t+1} U^T",
    wrong="dh_t = dz_t",
    shows="with more than one step",
)
def _(op: Operation) -> Outputs | None:
    return None if _single_step(op) else _gradients(op, _truncated(op, 0))


@mistake(
    "rnn-gradient-truncated",
    on="SimpleRNN",
    direction="backward",
    text="carry the gradient back to the first step; here it gets no further than {value:g} before its output",
    right="da_t = f'(a_t) (dz_t + da_{{t+1}} U^T), down to t = 1",
    wrong="the same, but what dz_t gives ends at step t - {value:g}",
    shows="with more steps than that",
    values=(1, 2, 3, 4, 5, 8, 10, 16),
)
def _(op: Operation, value: float) -> Outputs | None:
    return None if op["x"].shape[1] <= value + 1 else _gradients(op, _truncated(op, int(value)))


@mistake(
    "rnn-carried-gradient-only",
    on="SimpleRNN",
    direction="backward",
    text="every output has a gradient of its own: add it in its step, not that of the last output alone",
    right="dh_t = dz_t + da_{t+1} U^T",
    wrong="dh_t = da_{t+1} U^T, from dh_T = dz_T",
    shows="with return_sequences and more than one step",
)
def _(op: Operation) -> Outputs | None:
    if not op.entry.return_sequences or _single_step(op):
        return None
    last = np.arange(op["dz"].shape[1]) == op["dz"].shape[1] - 1
    return _gradients(op, _back(op, dz=op["dz"] * last[:, np.newaxis]))


@mistake(
    "rnn-output-gradient-in-every-step",
    on="SimpleRNN",
    direction="backward",
    text="the loss takes the last state only: its gradient comes in at the last step, not in every one",
    right="dh_T = dz;  dh_t = da_{t+1} U^T",
    wrong="dh_t = dz + da_{t+1} U^T",
    shows="without return_sequences and with more than one step",
)
def _(op: Operation) -> Outputs | None:
    if op.entry.return_sequences or _single_step(op):
        return None
    return _gradients(op, _back(op, dz=np.repeat(op["dz"][:, np.newaxis], op["x"].shape[1], axis=1)))


@mistake(
    "rnn-carried-kernel-not-transposed",
    on="SimpleRNN",
    direction="backward",
    text="going back a step, multiply with the transposed recurrent kernel; it is square, so both run",
    right="dh_t = dz_t + da_{t+1} U^T",
    wrong="dh_t = dz_t + da_{t+1} U",
    shows="with more than one step and one unit",
)
def _(op: Operation) -> Outputs | None:
    return None if _single_step(op) else _gradients(op, _back(op, recurrent=op["recurrent_kernel"].T))


@mistake(
    "rnn-derivative-missing",
    on="SimpleRNN",
    direction="backward",
    text="multiply with the derivative of the activation in every step",
    right="da_t = dh_t f'(a_t)",
    wrong="da_t = dh_t",
    shows="where the activation is not linear",
)
def _(op: Operation) -> Outputs:
    return _gradients(op, _back(op, lambda a, h, dh: dh))


@mistake(
    "rnn-derivative-of-carried-missing",
    on="SimpleRNN",
    direction="backward",
    text="add what comes back from the next step first, then multiply the sum with the derivative of the activation",
    right="da_t = (dz_t + da_{t+1} U^T) f'(a_t)",
    wrong="da_t = dz_t f'(a_t) + da_{t+1} U^T",
    shows="with more than one step",
)
def _(op: Operation) -> Outputs | None:
    return None if _single_step(op) else _gradients(op, _back(op, of_carried=lambda a, h, dh: dh))


@mistake(
    "rnn-derivative-at-output",
    on="SimpleRNN",
    direction="backward",
    text="the derivative belongs at a, before the activation; it is taken at the state h",
    right="da_t = dh_t f'(a_t)",
    wrong="da_t = dh_t f'(h_t)",
    shows="where the derivative is not the same there, as it is for relu",
)
def _(op: Operation) -> Outputs:
    f = op.entry.activation
    return _gradients(op, _back(op, lambda a, h, dh: f.backward(h, f.forward(h), dh)))


@mistake(
    "rnn-derivative-of-step-before",
    on="SimpleRNN",
    direction="backward",
    text="the derivative of a step is at its own state, h_t, not at the one it started from",
    right="da_t = dh_t f'(a_t)",
    wrong="da_t = dh_t f'(a_{t-1}), a_0 = 0",
)
def _(op: Operation) -> Outputs:
    f, a = op.entry.activation, op.terms.a
    earlier = np.concatenate([np.zeros_like(a[:, :1]), a[:, :-1]], axis=1)
    return _gradients(op, _back(op, states=(earlier, f.forward(earlier))))


@mistake(
    "rnn-tanh-derivative-of-pre-activation",
    on="SimpleRNN",
    direction="backward",
    text="1 - h^2 is the derivative of tanh with its output h, not with its input",
    right="da_t = dh_t (1 - h_t^2)",
    wrong="da_t = dh_t (1 - a_t^2)",
    shows="with tanh",
)
def _(op: Operation) -> Outputs | None:
    return _gradients(op, _back(op, lambda a, h, dh: dh * (1 - a * a))) if _tanh(op) else None


@mistake(
    "rnn-tanh-derivative-not-squared",
    on="SimpleRNN",
    direction="backward",
    text="the derivative of tanh is 1 - h^2; the square is missing",
    right="da_t = dh_t (1 - h_t^2)",
    wrong="da_t = dh_t (1 - h_t)",
    shows="with tanh",
)
def _(op: Operation) -> Outputs | None:
    return _gradients(op, _back(op, lambda a, h, dh: dh * (1 - h))) if _tanh(op) else None


@mistake(
    "rnn-tanh-derivative-of-sigmoid",
    on="SimpleRNN",
    direction="backward",
    text="h (1 - h) is the derivative of sigmoid; that of tanh is 1 - h^2",
    right="da_t = dh_t (1 - h_t^2)",
    wrong="da_t = dh_t h_t (1 - h_t)",
    shows="with tanh",
)
def _(op: Operation) -> Outputs | None:
    return _gradients(op, _back(op, lambda a, h, dh: dh * (h * (1 - h)))) if _tanh(op) else None


# -- backward: what is made of it in every step ------------------------------------------------------------------------


@mistake(
    "rnn-recurrent-gradient-of-same-step",
    on="SimpleRNN",
    direction="backward",
    text="the recurrent kernel was multiplied with the state of the step before: h_{t-1}, not h_t",
    right="dU = sum_t h_{t-1}^T da_t",
    wrong="dU = sum_t h_t^T da_t",
)
def _(op: Operation) -> Outputs:
    return {"recurrent_kernel": rows(op.terms.h).T @ rows(_back(op))}


@mistake(
    "rnn-recurrent-gradient-around",
    on="SimpleRNN",
    direction="backward",
    text="the first step started from zeros; h[t - 1] at t = 0 is the last state",
    right="dU = sum_t h_{t-1}^T da_t, h_0 = 0",
    wrong="dU = sum_t h_{t-1}^T da_t, h_0 = h_T",
)
def _(op: Operation) -> Outputs:
    return {"recurrent_kernel": rows(np.roll(op.terms.h, 1, axis=1)).T @ rows(_back(op))}


@mistake(
    "rnn-weight-gradients-overwritten",
    on="SimpleRNN",
    direction="backward",
    text="all steps have the same weights: += in the loop back through time, not =",
    right="dW += x_t^T da_t;  dU += h_{t-1}^T da_t;  db += da_t",
    wrong="dW = x_1^T da_1;  dU = h_0^T da_1;  db = da_1, those of the step that comes last in the loop",
    shows="with more than one step",
)
def _(op: Operation) -> Outputs | None:
    return None if _single_step(op) else _of_step(op, 0)


@mistake(
    "rnn-kernel-gradient-overwritten",
    on="SimpleRNN",
    direction="backward",
    text="sum the gradient by the kernel over time: += in the loop back through time, not =",
    right="dW += x_t^T da_t",
    wrong="dW = x_1^T da_1, that of the step that comes last in the loop",
    shows="with more than one step",
)
def _(op: Operation) -> Outputs | None:
    return None if _single_step(op) else {"kernel": _of_step(op, 0)["kernel"]}


@mistake(
    "rnn-bias-gradient-overwritten",
    on="SimpleRNN",
    direction="backward",
    text="sum the gradient by the bias over time: += in the loop back through time, not =",
    right="db += da_t, summed over the batch",
    wrong="db = da_1, that of the step that comes last in the loop",
    shows="with more than one step",
)
def _(op: Operation) -> Outputs | None:
    return None if _single_step(op) else {"bias": _of_step(op, 0)["bias"]}


@mistake(
    "rnn-recurrent-gradient-overwritten",
    on="SimpleRNN",
    direction="backward",
    text="all steps have the same recurrent kernel: += in the loop back through time, not =; the step that comes last "
    "in the loop started from zeros, and leaves zeros",
    right="dU += h_{t-1}^T da_t",
    wrong="dU = h_0^T da_1 = 0",
    shows="with more than one step",
)
def _(op: Operation) -> Outputs:
    return {"recurrent_kernel": np.zeros_like(op["recurrent_kernel"])}


@mistake(
    "rnn-weight-gradients-last-step",
    on="SimpleRNN",
    direction="backward",
    text="all steps have the same weights: sum their gradients over time, not those of the last step alone",
    right="dW = sum_t x_t^T da_t;  dU = sum_t h_{t-1}^T da_t;  db = sum_t da_t",
    wrong="dW = x_T^T da_T;  dU = h_{T-1}^T da_T;  db = da_T",
    shows="with more than one step",
)
def _(op: Operation) -> Outputs | None:
    return None if _single_step(op) else _of_step(op, -1)


@mistake(
    "rnn-bias-gradient-last-step",
    on="SimpleRNN",
    direction="backward",
    text="the bias is added in every step: sum its gradient over time as well as over the batch",
    right="db = sum of da over batch and time",
    wrong="db = sum of da_T over the batch",
    shows="with more than one step",
)
def _(op: Operation) -> Outputs | None:
    return None if _single_step(op) else {"bias": _of_step(op, -1)["bias"]}


@mistake(
    "rnn-weight-gradients-averaged-over-time",
    on="SimpleRNN",
    direction="backward",
    text="sum the gradients by the weights over time; do not divide by the number of steps",
    right="dW = sum_t x_t^T da_t, dU and db alike",
    wrong="dW = sum_t x_t^T da_t / T, dU and db alike",
    shows="with more than one step",
)
def _(op: Operation) -> Outputs | None:
    steps = op["x"].shape[1]
    return None if _single_step(op) else {n: op.outputs[n] / steps for n in WEIGHTS if n in op.outputs}


@mistake(
    "rnn-weight-gradients-in-reverse-order",
    on="SimpleRNN",
    direction="backward",
    text="the loop goes from the last step to the first, so the errors it collects are in this order; reverse them "
    "before they meet inputs and states",
    right="dW = sum_t x_t^T da_t;  dU = sum_t h_{t-1}^T da_t",
    wrong="dW = sum_t x_t^T da_{T+1-t};  dU = sum_t h_{t-1}^T da_{T+1-t}",
    shows="with more than one step",
)
def _(op: Operation) -> Outputs | None:
    made = _gradients(op, _back(op)[:, ::-1])
    return None if _single_step(op) else {name: made[name] for name in ("kernel", "recurrent_kernel")}


@mistake(
    "rnn-input-gradient-in-reverse-order",
    on="SimpleRNN",
    direction="backward",
    text="the loop goes from the last step to the first, so the gradients by the inputs it collects are in this order; "
    "reverse them",
    right="dx_t = da_t W^T",
    wrong="dx_t = da_{T+1-t} W^T",
    shows="with more than one step",
)
def _(op: Operation) -> Outputs | None:
    return None if _single_step(op) else {"dx": op.outputs["dx"][:, ::-1]}


@mistake(
    "rnn-weight-gradients-clipped",
    on="SimpleRNN",
    direction="backward",
    text="the gradients by the weights are clipped at {value:g}: that belongs to the update, and Keras has it in the "
    "optimizer, as clipvalue",
    right="dW = sum_t x_t^T da_t, dU and db alike",
    wrong="dW = clip(sum_t x_t^T da_t, -{value:g}, {value:g}), dU and db alike",
    shows="where a gradient is larger",
    values=(1, 5, 10, 0.5, 0.1),
)
def _(op: Operation, value: float) -> Outputs:
    return {name: np.clip(op.outputs[name], -value, value) for name in WEIGHTS if name in op.outputs}


# -- the arithmetic, with parts that can be exchanged ------------------------------------------------------------------

WEIGHTS = ("kernel", "recurrent_kernel", "bias")

Derivative = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(a, h, dh) -> da, of one step."""


def _ran(
    op: Operation,
    hand_on: Callable[[np.ndarray, np.ndarray], np.ndarray] = lambda a, h: h,
    x: np.ndarray | None = None,
    recurrent: np.ndarray | None = None,
    start: np.ndarray | None = None,
    bias: bool = True,
) -> Outputs:
    """z, and the states on the way to it. hand_on: what the next step gets of a and h; start: of the first step."""
    recurrent = op["recurrent_kernel"] if recurrent is None else recurrent
    driven = (op["x"] if x is None else x) @ op["kernel"]
    driven = driven + op["bias"] if bias and "bias" in op else driven
    state = np.zeros_like(op.terms.h[:, 0]) if start is None else start
    a, h = [], []
    for t in range(driven.shape[1]):
        a.append(driven[:, t] + state @ recurrent)
        h.append(op.entry.activation.forward(a[-1]))
        state = hand_on(a[-1], h[-1])
    return {"z": _put_out(op, h), "terms": op.terms._replace(a=np.stack(a, axis=1), h=np.stack(h, axis=1))}


def _put_out(op: Operation, states: list[np.ndarray]) -> np.ndarray:
    return np.stack(states, axis=1) if op.entry.return_sequences else states[-1]


def _back(
    op: Operation,
    derivative: Derivative | None = None,
    of_carried: Derivative | None = None,
    dz: np.ndarray | None = None,
    recurrent: np.ndarray | None = None,
    states: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """da, (batch, time, units). of_carried: the derivative for what comes from the next step, if it is another one; dz:
    (batch, time, units); states: a and h."""
    derivative = derivative or op.entry.activation.backward
    of_carried = of_carried or derivative
    recurrent = op["recurrent_kernel"] if recurrent is None else recurrent
    a, h = op.terms if states is None else states
    dz = _in_time(op) if dz is None else dz
    da, carried = np.zeros_like(a), np.zeros_like(a[:, 0])
    for t in reversed(range(a.shape[1])):
        da[:, t] = derivative(a[:, t], h[:, t], dz[:, t]) + of_carried(a[:, t], h[:, t], carried)
        carried = da[:, t] @ recurrent.T
    return da


def _truncated(op: Operation, steps: int) -> np.ndarray:
    """da, where what an output gives goes back so many steps."""
    (a, h), back = op.terms, op.entry.activation.backward
    total = da = back(a, h, _in_time(op))
    for _ in range(steps):
        carried = da @ op["recurrent_kernel"].T
        earlier = np.concatenate([carried[:, 1:], np.zeros_like(carried[:, :1])], axis=1)
        da = back(a, h, earlier)
        total = total + da
    return total


def _in_time(op: Operation) -> np.ndarray:
    """dz of every step: zeros for the states that are not put out."""
    if op.entry.return_sequences:
        return op["dz"]
    return np.concatenate([np.zeros_like(op.terms.h[:, :-1]), op["dz"][:, np.newaxis]], axis=1)


def _gradients(op: Operation, da: np.ndarray) -> dict[str, np.ndarray]:
    """What a layer makes of da."""
    return {"dx": da @ op["kernel"].T, **_of_weights(op["x"], op.terms.before, da)}


def _of_step(op: Operation, t: int) -> dict[str, np.ndarray]:
    """The gradients by the weights of one step."""
    return _of_weights(*(array[:, [t]] for array in (op["x"], op.terms.before, _back(op))))


def _of_weights(x: np.ndarray, before: np.ndarray, da: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "kernel": rows(x).T @ rows(da),
        "recurrent_kernel": rows(before).T @ rows(da),
        "bias": np.sum(rows(da), axis=0),
    }


def _single_step(op: Operation) -> bool:
    return bool(op["x"].shape[1] == 1)


def _tanh(op: Operation) -> bool:
    return bool(op.entry.activation.registered_name == "tanh")
