"""Layers: pure functions (x, params, state) -> (y, state), written in `xp`."""

from polyad.layers.batch_norm import BatchNorm
from polyad.layers.chain import Chain
from polyad.layers.dense import Dense
from polyad.layers.layer import Layer
from polyad.layers.setup import setup, test_mode, train_mode

__all__ = ["BatchNorm", "Chain", "Dense", "Layer", "setup", "test_mode", "train_mode"]
