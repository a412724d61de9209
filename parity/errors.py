"""Everything a user can be told went wrong, with the exit status that the command line gives it.

A message says what is wrong, where, what was expected, what came, and what to do next.
"""

__all__ = ["FileError", "NothingConcluded", "ParityError", "SubjectError", "UsageError"]


class ParityError(Exception):
    """A user's mistake or a state of the machine, never a bug: shown without a traceback."""

    exit_status = 1


class UsageError(ParityError):
    """A wrong argument, model or option."""

    exit_status = 2


class SubjectError(ParityError):
    """Somebody's own code raised: where, and with what shapes it was called."""

    exit_status = 1


class NothingConcluded(ParityError):
    """Nothing was compared, the comparison had no power, or the reference is not installed."""

    exit_status = 3


class FileError(ParityError):
    """A file that is missing, damaged, or does not hold what it should."""

    exit_status = 4
