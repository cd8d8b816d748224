"""FourierFeatures: coordinates as sines and cosines of random frequencies."""

import math
from typing import Any

from polyad.arrays import xp
from polyad.errors import ArgumentError
from polyad.layers.layer import Layer, Random, Tree, check_features, check_sizes, check_weight, named_parameter

__all__ = ["FourierFeatures"]


class FourierFeatures(Layer):
    """cos and sin of 2 pi x @ frequencies, x of shape (..., inputs), to (..., 2 * features).

    frequencies  (inputs, features), normal with this deviation, in the state: they are not trained
    deviation    in periods per unit of x; large ones make fine structure learnable
    source       Tancik et al. (2020)
    """

    def __init__(self, inputs: int, features: int, deviation: float = 1.0) -> None:
        check_sizes("FourierFeatures", inputs=inputs, features=features)
        if not deviation > 0:
            raise ArgumentError(f"FourierFeatures: deviation={deviation!r}; it is a positive number")
        self.inputs, self.features, self.deviation = inputs, features, deviation

    def __repr__(self) -> str:
        return (
            f"FourierFeatures({self.inputs}, {self.features}{'' if self.deviation == 1 else f', {self.deviation:g}'})"
        )

    def init(self, random: Random) -> tuple[Tree, Tree]:
        return {}, {"frequencies": random.at("frequencies").normal(self.deviation, (self.inputs, self.features))}

    def parameter_shapes(self) -> Tree:
        return {}

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        frequencies = named_parameter(self, state, "frequencies")
        check_features(self, x, self.inputs)
        check_weight(self, x, frequencies, (self.inputs, self.features), "state['frequencies']")
        angle = (2 * math.pi) * (x @ frequencies)
        return xp.concat([xp.cos(angle), xp.sin(angle)], axis=-1), state
