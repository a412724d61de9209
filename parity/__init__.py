"""Is this network really the same as the Keras one, and if not, exactly what is wrong?"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from parity.errors import FileError, NothingConcluded, ParityError, SubjectError, UsageError

if TYPE_CHECKING:
    from parity.golden.drift import diff
    from parity.golden.record import record
    from parity.golden.replay import replay
    from parity.options import unused
    from parity.pipeline import check
    from parity.porting import port
    from parity.report import Check, Report
    from parity.spec import Spec
    from parity.subjects import Subject, subject
    from parity.training.check import check_training
    from parity.weights.verification import verify

__all__ = [
    "Check",
    "FileError",
    "NothingConcluded",
    "ParityError",
    "Report",
    "Spec",
    "Subject",
    "SubjectError",
    "UsageError",
    "check",
    "check_training",
    "diff",
    "port",
    "record",
    "replay",
    "subject",
    "unused",
    "verify",
]

# Loaded when first asked for (PEP 562): they bring NumPy and SciPy, and `parity --help` needs neither.
_HOMES = {
    "Check": "parity.report",
    "Report": "parity.report",
    "Spec": "parity.spec",
    "Subject": "parity.subjects",
    "check": "parity.pipeline",
    "diff": "parity.golden.drift",
    "subject": "parity.subjects",
    "unused": "parity.options",
    "check_training": "parity.training.check",
    "port": "parity.porting",
    "record": "parity.golden.record",
    "replay": "parity.golden.replay",
    "verify": "parity.weights.verification",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
