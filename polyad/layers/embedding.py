"""Embedding: a vector for each of a number of things."""

import math
from typing import Any

from polyad.arrays import describe, number_kind, xp
from polyad.backends import get, is_array, owner
from polyad.errors import ArgumentError
from polyad.layers.layer import Layer, Random, Tree, check_sizes, named_parameter

__all__ = ["Embedding"]


class Embedding(Layer):
    """weight[x], x of integers of any shape (...), to (..., features).

    weight  (entries, features), normal with variance 1 / features
    raises  ArgumentError for an index outside of 0 <= x < entries; where values are
            not known, as under jit, such an index gives NaN
    """

    def __init__(self, entries: int, features: int) -> None:
        check_sizes("Embedding", entries=entries, features=features)
        self.entries, self.features = entries, features

    def __repr__(self) -> str:
        return f"Embedding({self.entries}, {self.features})"

    def init(self, random: Random) -> tuple[Tree, Tree]:
        return {"weight": random.at("weight").normal(1 / math.sqrt(self.features), (self.entries, self.features))}, {}

    def parameter_shapes(self) -> Tree:
        return {"weight": (self.entries, self.features)}

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        weight = named_parameter(self, params, "weight")
        if not is_array(x) or number_kind(x) != "integer":
            came = describe(x) if is_array(x) else repr(x)
            raise ArgumentError(f"{self!r}: its input is a {came}; it needs an array of integers")
        outside = (x < 0) | (x >= self.entries)
        wrong = xp.any(outside)
        if not (owner(wrong) or get("numpy")).concrete(wrong):
            y = self._rows(weight, xp.where(outside, xp.zeros_like(x), x))
            return xp.where(outside[..., None], math.nan, y), state
        if wrong:
            raise ArgumentError(
                f"{self!r}: an index is {int(xp.min(x))} or {int(xp.max(x))}; they are 0 to {self.entries - 1}"
            )
        return self._rows(weight, x), state

    def _rows(self, weight: Any, x: Any) -> Any:
        return xp.reshape(xp.take(weight, xp.reshape(x, (-1,)), axis=0), (*x.shape, self.features))
