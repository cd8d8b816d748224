"""Siren: a dense layer with a sine, and the first weights that it needs."""

import math
from typing import Any

from polyad.arrays import xp
from polyad.errors import ArgumentError
from polyad.layers.dense import Dense
from polyad.layers.layer import Random, Tree

__all__ = ["Siren"]


class Siren(Dense):
    """sin(omega * (x @ weight + bias)), x of shape (..., inputs).

    weight  (inputs, outputs), uniform within sqrt(6 / inputs) / omega, so that the
            sines of all layers are distributed alike; within 1 / inputs for first=True
    bias    (outputs,), uniform within 1 / sqrt(inputs), as in the authors' code
    first   the layer that sees the coordinates, omega of them to the period
    source  Sitzmann et al. (2020), section 3.2 and supplement 1.5
    """

    def __init__(self, inputs: int, outputs: int, omega: float = 30.0, *, first: bool = False) -> None:
        super().__init__(inputs, outputs)
        if not omega > 0:
            raise ArgumentError(f"Siren: omega={omega!r}; it is a positive number")
        self.omega, self.first = omega, first

    def __repr__(self) -> str:
        marks = ("" if self.omega == 30 else f", {self.omega:g}") + (", first=True" if self.first else "")
        return f"Siren({self.inputs}, {self.outputs}{marks})"

    def init(self, random: Random) -> tuple[Tree, Tree]:
        params, state = super().init(random)
        bound = 1 / self.inputs if self.first else math.sqrt(6 / self.inputs) / self.omega
        return {**params, "weight": random.at("weight").uniform(bound, (self.inputs, self.outputs))}, state

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        y, state = super().__call__(x, params, state)
        return xp.sin(self.omega * y), state
