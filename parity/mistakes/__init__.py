"""The catalogue of mistakes: one definition, three uses. The diagnosis searches it, the score of the checker plants it,
the documentation prints it."""

from parity.mistakes import activations, layers, losses, updates  # noqa: F401  (they fill the catalogue)
from parity.mistakes.catalogue import Mistake, catalogue

__all__ = ["Mistake", "catalogue"]
