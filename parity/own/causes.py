"""The causes of what is wrong in somebody's own network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from parity import trace
from parity.compare import Row
from parity.conventions import Convention
from parity.diagnose import Cause, Finding, residuals, transforms, whole
from parity.diagnose.whole import Explained, Seen
from parity.mistakes import losses
from parity.own.evidence import loss_operation
from parity.runners.steps import Operation, Settle

__all__ = ["findings_of"]


def findings_of(
    seen: Seen,
    rows: Sequence[Row],
    replay: Callable[..., None] | None,
    conventional: Sequence[Convention],
) -> list[Finding]:
    """A finding for each wrong tensor, with the cause that explains it."""
    scale = {tensor: factor for c in conventional for tensor, factor in c.scale.items()}
    plain = {n: np.asarray(a / scale[n]) if n in scale else a for n, a in seen.subject.items()}
    known = {n: a for n, a in plain.items() if n in seen.allowed}
    seen = replace(seen, subject=known)
    wrong = [row for row in rows if not row.passed and (row.tensor in known or row.tensor in seen.reference)]
    if not wrong:
        return []
    causes = {row.tensor: MISSING for row in wrong if row.tensor not in known}
    causes.update({n: _not_finite(seen, n) for n in known if not _comparable(seen, n)})
    explicable = replace(seen, subject={n: a for n, a in known.items() if n not in causes})
    unexplained = [
        row.tensor
        for row in wrong
        # Of a reference that is a sketch, the elements may be right where the sums are not.
        if row.tensor not in causes and not seen.equal(row.tensor, seen.reference[row.tensor])
    ]
    explained = Explained({}, False)
    if replay is not None and unexplained:
        explained = _causes(explicable, replay, len(unexplained))
    found = explained.causes
    if not found:  # no mistake explains the run; then each tensor by itself
        alone = {n: transforms.transformed(seen.wrong(n, seen.reference[n])) for n in unexplained}
        found = {n: cause for n, cause in alone.items() if cause is not None}
    return [_finding(seen, row, {**causes, **found}.get(row.tensor), explained.stopped) for row in wrong]


MISSING = Cause(
    "gradient-missing",
    "your code gives no gradient for this weight: return it with the others, under a name such as dW1, or say what it "
    "is called: gradients={'W1': 'my_name'}",
    "one gradient for each weight",
    "none",
    1.0,
)


def _comparable(seen: Seen, tensor: str) -> bool:
    """Whether a tensor has numbers where the reference has; NaN is what every mistake can lead to."""
    subject, right = seen.subject[tensor], np.asarray(seen.reference[tensor])
    return bool(np.all(np.isfinite(subject)) or not np.all(np.isfinite(right)))


def _not_finite(seen: Seen, tensor: str) -> Cause:
    subject = seen.subject[tensor]
    count = f"{np.count_nonzero(~np.isfinite(subject))} of {np.size(subject)} elements of {seen.name(tensor)}"
    outputs = [a for n, a in seen.subject.items() if n.endswith("/output") and np.any(np.isin(a, (0.0, 1.0)))]
    why = "something overflows, or is divided by 0: look at exp, log and /"
    if tensor == trace.LOSS and outputs:
        why = "an output is exactly 0 or 1, and 0 * log(0) is nan: compute the loss from the logits"
    text = f"{count} are not finite, and TensorFlow's are: {why}"
    return Cause("not-finite", text, "finite numbers", "nan or inf", 1.0)


def _finding(seen: Seen, row: Row, cause: Cause | None, stopped: bool) -> Finding:
    tensor, residual = row.tensor, ""
    if cause is None and not seen.equal(tensor, seen.reference[tensor]):
        right = np.asarray(seen.reference[tensor])
        residual = residuals.described(tensor, seen.subject[tensor], right, seen.allowed[tensor], seen.sizes["batch"])
        if stopped:
            residual += f" (the search for two mistakes was stopped after {whole.SECONDS:g} s; try fewer samples)"
    name = seen.names.get(tensor)
    return Finding(f"{name} ({tensor})" if name else tensor, row.computed_by, row.budgets, cause, residual)


def _causes(seen: Seen, replay: Callable[[Settle], None], wrong: int) -> Explained:
    """The causes of the errors. Where the logits do not lead to all of them, code that has only its outputs may: it
    goes on from whatever they are."""
    explained = whole.explain(seen, replay)
    if len(explained.causes) < wrong:
        others = whole.explain(seen, _by_outputs(replay))
        return others if len(others.causes) > len(explained.causes) else explained
    return explained


def _by_outputs(replay: Callable[[Settle], None]) -> Callable[[Settle], None]:
    """The run with a cross-entropy of the outputs in place of one of the logits, where the outputs are wrong ones."""
    operation = loss_operation(replay)
    right = operation["y_pred"] if operation is not None and "logits" in operation else None

    def run(settle: Settle) -> None:
        def through(operation: Operation) -> Mapping[str, Any]:
            if operation.family == "loss" and right is not None and not np.array_equal(operation["y_pred"], right):
                outputs = {**operation.outputs, **losses.of_outputs(operation)}
                operation = replace(operation, outputs=outputs)
            return settle(operation)

        replay(through)

    return run
