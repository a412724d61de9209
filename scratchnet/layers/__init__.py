"""The layers, by topic. Importing this package registers all of them."""

from scratchnet.layers.activation import LeakyReLU, ReLU, Softmax
from scratchnet.layers.base import Layer, Saved
from scratchnet.layers.conv import Conv2D
from scratchnet.layers.core import Activation, Dense, Flatten
from scratchnet.layers.embedding import Embedding
from scratchnet.layers.normalization import BatchNormalization, LayerNormalization
from scratchnet.layers.pooling import MaxPooling2D
from scratchnet.layers.recurrent import SimpleRNN
from scratchnet.layers.regularization import Dropout

__all__ = [
    "Activation",
    "BatchNormalization",
    "Conv2D",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "Layer",
    "LayerNormalization",
    "LeakyReLU",
    "MaxPooling2D",
    "ReLU",
    "Saved",
    "SimpleRNN",
    "Softmax",
]
