"""A neural network by hand, in Keras's words: every value and every derivative written out in NumPy."""

from scratchnet import activations, initializers, layers, losses, metrics, optimizers, regularizers
from scratchnet.registry import UnknownArgument, UnknownName
from scratchnet.seeding import set_random_seed
from scratchnet.training import History, Sequential

__all__ = [
    "History",
    "Sequential",
    "UnknownArgument",
    "UnknownName",
    "activations",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "optimizers",
    "regularizers",
    "set_random_seed",
]
