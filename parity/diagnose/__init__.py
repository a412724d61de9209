"""Differences -> findings with causes."""

from parity.diagnose.findings import Cause, Finding
from parity.diagnose.search import diagnose

__all__ = ["Cause", "Finding", "diagnose"]
