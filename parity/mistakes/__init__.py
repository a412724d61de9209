"""The catalogue of mistakes: one definition, three uses. The diagnosis searches it, the score of the checker plants it,
the documentation prints it."""

from parity.mistakes import (  # noqa: F401  (they fill the catalogue)
    activation_layers,
    activations,
    conv,
    dense,
    dropout,
    embedding,
    layers,
    losses,
    normalization,
    pooling,
    recurrent,
    regularizers,
    shape,
    updates,
)
from parity.mistakes.catalogue import Mistake, catalogue

__all__ = ["Mistake", "catalogue"]
