"""The code's weights after every step against Keras's: where they part, why, and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from parity.errors import SubjectError
from parity.mistakes.update_rules import Arrays, Path, Rule, rule_for, run
from parity.report.training import Cause, Finding, TrainingReport
from parity.runners import tensorflow
from parity.training.diagnose import Explanation, Task, alike, allowed, apart, blind, explain
from parity.training.keras import Reference
from parity.training.subject import Failed, Form, Subject

__all__ = ["Comparison", "Trial"]

UNITS = {"float32": 2.0**-24, "float16": 2.0**-11}  # unit roundoffs


@dataclass(frozen=True)
class Trial:
    """A form that the code can run with, and what it is given."""

    form: Form
    weights: Arrays
    gradients: list[Arrays]


@dataclass(frozen=True)
class _Run:
    """The code's path, and what was found out about it."""

    path: Path
    first_t: int
    first_wrong: dict[int, int]  # tensor -> the first step that is out of budget, from 0
    explained: Mapping[int, Sequence[Explanation]]


class Comparison:
    """The code against Keras, with everything that both are given."""

    def __init__(self, reference: Reference, subject: Subject, trial: Trial, rates: list[float], seed: int):
        self.reference, self.subject, self.trial, self.rates, self.seed = reference, subject, trial, rates, seed
        self.form = trial.form
        self.right, decays = reference.run(self.form.names, trial.weights, trial.gradients, rates)
        self.decay = max(float(reference.config.get(name) or 0) for name in ("beta_1", "beta_2", "rho", "momentum"))
        self.allowed = allowed(self.right, trial.weights, self.decay)
        self.rule = self._checked(rule_for(reference.name, reference.config, decays))

    def _checked(self, rule: Rule | None) -> Rule | None:
        """The rule, if it is what Keras computes: not with an average of the weights, accumulated gradients ..."""
        if rule is None:
            self.subject.notes[f"no mistakes are known for {self.reference.name}: no cause is looked for"] = None
            return None
        path = run(rule, self.trial.weights, self.trial.gradients, self.rates)
        if not self._first_wrong(path):
            return rule
        self.subject.notes["this optimizer has options without known mistakes: no cause is looked for"] = None
        return None

    def rate_factor(self) -> float:
        """How many times Keras's the first step of the code is; 1 where it is the same, or no step at all."""
        path = self.subject.run(self.form, self.trial.weights, self.trial.gradients[:1], self.rates[:1])
        start = np.concatenate([w.ravel() for w in self.trial.weights])
        mine, right = (np.concatenate([w.ravel() for w in now]) - start for now in (path[0], self.right[0]))
        return float(mine @ right / (right @ right)) if self._first_wrong(path) and np.any(right) else 1.0

    def report(self) -> TrainingReport:
        found = self._chosen()
        tensors = range(len(self.form.names))
        powerless = ""
        if all(apart(w, start) == 0 for now in self.right for w, start in zip(now, self.trial.weights, strict=True)):
            powerless = "Keras's weights do not move with these gradients and learning rates"
        order = sorted(found.first_wrong, key=lambda i: (found.first_wrong[i], i))
        budgets = [
            self._budgets(self.right[t][i], found.path[t][i], t, i) for t in range(len(self.rates)) for i in tensors
        ]
        return TrainingReport(
            optimizer=self._said(),
            steps=len(self.rates),
            learning_rates=tuple(self.rates),
            tensors=self.form.names,
            form=self.form.said,
            findings=tuple(self._finding(found, i) for i in order),
            when=self._when(found, order) if order else "",
            worst=max(budgets),
            first_t=found.first_t,
            seed=self.seed,
            notes=self._notes(found),
            blind=self._blind(),
            powerless=powerless,
            environment=tensorflow.versions(),
        )

    def _chosen(self) -> _Run:
        """The run that fits Keras, or a known mistake. Where t is an argument, it may count from 1 or from 0."""
        runs = []
        for first_t in (1, 0) if self.subject.takes_t else (1,):
            try:
                path = self.subject.run(self.form, self.trial.weights, self.trial.gradients, self.rates, first_t)
            except Failed as failed:
                if first_t == 1:
                    raise SubjectError(f"update: your code fails at {failed}") from failed
                break
            if first_t == 0 and not all(np.any(np.isfinite(w)) for w in path[0]):
                break  # nothing but the division by 1 - b^0: the code counts from 1
            runs.append(_Run(path, first_t, self._first_wrong(path), {}))
            if not runs[-1].first_wrong:
                return runs[-1]
        explained = []
        for each in runs:
            explained.append(replace(each, explained=self._explained(each)))
            if all(explained[-1].explained.values()):
                return explained[-1]
        return explained[0]

    def _budgets(self, right: np.ndarray, mine: np.ndarray, t: int, index: int) -> float:
        difference = apart(mine, right)
        return difference / self.allowed[t][index] if self.allowed[t][index] else float("inf" if difference else 0)

    def _first_wrong(self, path: Path, right: Path | None = None) -> dict[int, int]:
        """Tensor -> the first step, from 0, at which it is out of budget; right: Keras's path unless given."""
        right = self.right if right is None else right
        bounds = allowed(right, self.trial.weights, self.decay)
        wrong: dict[int, int] = {}
        for t, (mine, theirs) in enumerate(zip(path, right, strict=False)):
            for index, (a, b) in enumerate(zip(mine, theirs, strict=True)):
                if apart(a, b) > bounds[t][index]:
                    wrong.setdefault(index, t)
        return wrong

    def _task(self, path: Path) -> Task:
        assert self.rule is not None
        return Task(
            self.rule,
            self.trial.weights,
            self.trial.gradients,
            self.rates,
            path,
            self.right,
            self.subject.takes_rate,
            self._other_rate(),
        )

    def _other_rate(self) -> float | None:
        """The learning rate that the object has, where it is not the optimizer's."""
        own = self.subject.own_rate
        same = own is None or math.isclose(own, self.rates[0], rel_tol=2.0**-23)  # but for rounding to float32
        return None if same else own

    def _explained(self, found: _Run) -> dict[int, Sequence[Explanation]]:
        """For each wrong tensor what explains it: what explains all tensors, or else this one."""
        if self.rule is None:
            return {index: [] for index in found.first_wrong}
        task = self._task(found.path)
        if together := explain(task, range(len(self.form.names))):
            return {index: together for index in found.first_wrong}
        return {index: explain(task, [index], pairs=False) for index in found.first_wrong}

    # -- words ---------------------------------------------------------------------------------------------------------

    def _finding(self, found: _Run, index: int) -> Finding:
        t = found.first_wrong[index]
        mine, right = found.path[t][index], self.right[t][index]
        away = np.nan_to_num(np.abs(mine - right), nan=np.inf)
        place = tuple(int(i) for i in np.unravel_index(int(np.argmax(away)), right.shape))
        causes = [self._cause(found, index, each) for each in found.explained[index]]
        return Finding(
            tensor=self.form.names[index],
            step=t + 1,
            place=place,
            yours=float(mine[place]),
            keras=float(right[place]),
            budgets=self._budgets(right, mine, t, index),
            cause=causes[0] if causes else None,
            also=tuple(causes[1:]),
            residual="" if causes else self._residual(found, index),
        )

    def _cause(self, found: _Run, index: int, explanation: Explanation) -> Cause:
        mistakes, conventions = explanation.mistakes, explanation.conventions
        text = "; and ".join(one.text for one in mistakes)
        said = "; ".join(f"{one.text} (as in {one.convention}: a convention, no mistake)" for one in conventions)
        if said:
            since = min(found.first_wrong.values()) + 1
            text = f"{text}. Apart from that, from step {since} on, {said}" if text else said
        changes = (*mistakes, *conventions)
        return Cause(
            code="+".join(one.code for one in changes),
            text=text,
            right="; ".join(one.right for one in changes),
            wrong="; ".join(one.wrong for one in changes),
            explains=self._share(found, index, explanation),
            convention="" if mistakes else "; ".join(one.convention for one in conventions),
        )

    def _share(self, found: _Run, index: int, explanation: Explanation) -> float:
        predicted = self._task(found.path).predicted(explanation.changes)
        assert predicted is not None
        mine, wrong, right = (np.stack([now[index] for now in path]) for path in (found.path, predicted, self.right))
        finite = np.isfinite(mine) & np.isfinite(right) & np.isfinite(wrong)
        error = np.linalg.norm((mine - right)[finite])
        return float(1 - np.linalg.norm((mine - wrong)[finite]) / error) if error else 1.0

    def _when(self, found: _Run, order: Sequence[int]) -> str:
        """From which step on the code differs, beside its conventions."""
        wrong = found.first_wrong
        explanation = next(iter(found.explained[order[0]]), None)
        if explanation is not None and explanation.mistakes and explanation.conventions:
            path = self._task(found.path).predicted(explanation.conventions)
            wrong = self._first_wrong(found.path, path) if path is not None else wrong
        first = min(wrong.values()) + 1
        if first == 1:
            return "differs from step 1"
        rates = self.rates
        if len(set(rates[: first - 1])) == 1 and rates[first - 1] != rates[first - 2]:
            return f"equal while the learning rate is constant, first differs at step {first}, where it changes"
        before = "at step 1" if first == 2 else f"up to step {first - 1}"
        return f"exact {before}, differs from step {first}"

    def _residual(self, found: _Run, index: int) -> str:
        """What an error looks like that has no cause."""
        start = self.trial.weights[index]
        mine, right = (np.stack([now[index] for now in path]) for path in (found.path, self.right))
        if not np.all(np.isfinite(mine)):
            t = int(np.argmin(np.all(np.isfinite(mine.reshape(len(mine), -1)), axis=1)))
            bad = np.count_nonzero(~np.isfinite(mine[t]))
            hints = alike(self._task(found.path), range(len(self.form.names))) if self.rule is not None else []
            said = f"{self.form.names[index]} is not finite from step {t + 1} on, in {bad} of {start.size} elements"
            return said + (f", as where {' or '.join(one.text for one in hints)}" if hints else "")
        dtype = "float16" if "float16" in self.subject.dtypes else "float32"
        bounds = [row[index] for row in allowed(self.right, self.trial.weights, self.decay, UNITS[dtype])]
        if all(apart(a, b) <= bound for a, b, bound in zip(mine, right, bounds, strict=True)):
            return f"the error is no larger than rounding to {dtype}: is a weight or a state kept in {dtype}?"
        changes = mine[0] - start, right[0] - start
        outside = int(np.count_nonzero(np.abs(mine[-1] - right[-1]) > self.allowed[-1][index]))
        ratio = float(np.vdot(*changes) / np.vdot(changes[1], changes[1])) if np.any(changes[1]) else np.nan
        return (
            f"{outside} of {start.size} elements of {self.form.names[index]} are off at the end; its first change is "
            f"{ratio:.6g} times Keras's on average"
        )

    def _notes(self, found: _Run) -> tuple[str, ...]:
        notes = list(self.subject.notes)
        if found.first_t == 0:
            notes.append("your code counts steps from 0: it was called with t = 0 at the first one")
        if (own := self._other_rate()) is not None:
            notes.append(f"the learning rate of your object is {own:g}, the optimizer's is {self.rates[0]:g}")
        if self.form.kind == "array":
            notes.append("your code takes one array: what shows only with several tensors was not compared")
        if len(set(self.rates)) == 1 and not self.subject.takes_rate:
            notes.append("your code takes no learning rate, so that it could not be changed: give it an argument lr")
        return tuple(notes)

    def _blind(self) -> tuple[str, ...]:
        if self.rule is None:
            return ()
        missed = blind(self._task(self.right), range(len(self.form.names)))
        return tuple(f"{one.code}: {one.text}" for one in missed)

    def _said(self) -> str:
        """The optimizer with the arguments that say something."""
        silent = {"name", "ema_momentum", "loss_scale_factor", "ema_overwrite_frequency"}
        config = {key: v for key, v in self.reference.config.items() if key not in silent and v not in (None, False)}
        return f"{self.reference.name}({', '.join(f'{key}={value!r}' for key, value in config.items())})"
