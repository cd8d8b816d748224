"""Layers: pure functions (x, params, state) -> (y, state), written in `xp`.

Channels are last, (B, *space, channels), and time is axis 1, (B, time, features).
"""

from polyad.layers.affine import Scale
from polyad.layers.attention import MultiHeadAttention
from polyad.layers.batch_norm import BatchNorm
from polyad.layers.cells import Cell, GRUCell, LSTMCell, RNNCell
from polyad.layers.chain import Chain
from polyad.layers.convolution import Conv
from polyad.layers.dense import Dense
from polyad.layers.dropout import Dropout
from polyad.layers.embedding import Embedding
from polyad.layers.flatten import Flatten
from polyad.layers.fourier_features import FourierFeatures
from polyad.layers.function import Lambda
from polyad.layers.layer import Layer
from polyad.layers.maxout import Maxout
from polyad.layers.norms import GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from polyad.layers.parallel import Branch, Parallel
from polyad.layers.pooling import MaxPool, MeanPool
from polyad.layers.recurrence import Recurrence
from polyad.layers.setup import setup, test_mode, train_mode
from polyad.layers.siren import Siren
from polyad.layers.skip_connection import SkipConnection

__all__ = [
    "BatchNorm",
    "Branch",
    "Cell",
    "Chain",
    "Conv",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "FourierFeatures",
    "GRUCell",
    "GroupNorm",
    "InstanceNorm",
    "LSTMCell",
    "Lambda",
    "Layer",
    "LayerNorm",
    "MaxPool",
    "Maxout",
    "MeanPool",
    "MultiHeadAttention",
    "Parallel",
    "RMSNorm",
    "RNNCell",
    "Recurrence",
    "Scale",
    "Siren",
    "SkipConnection",
    "setup",
    "test_mode",
    "train_mode",
]
