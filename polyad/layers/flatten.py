"""Flatten: all axes but the batch as one."""

import math
from typing import Any

from polyad.arrays import xp
from polyad.layers.layer import Layer, Tree

__all__ = ["Flatten"]


class Flatten(Layer):
    """(B, ...) to (B, features), the last axis running fastest."""

    def __repr__(self) -> str:
        return "Flatten()"

    def parameter_shapes(self) -> Tree:
        return {}

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        return xp.reshape(x, (x.shape[0], math.prod(x.shape[1:]))), state
