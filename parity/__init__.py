"""Is this network really the same as the Keras one, and if not, exactly what is wrong?"""

from parity.errors import FileError, NothingConcluded, ParityError, UsageError
from parity.pipeline import check
from parity.report import Check, Report
from parity.spec import Spec

__all__ = ["Check", "FileError", "NothingConcluded", "ParityError", "Report", "Spec", "UsageError", "check"]
