"""A tanh network, its parameters and points: the same numbers on every backend."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

import polyad
from polyad import BatchNorm, Chain, Dense

__all__ = ["Problem", "Size"]


@dataclass(frozen=True)
class Size:
    """Of a network: inputs, outputs, rows of a batch, width and number of hidden layers.

    steps  of a loop
    """

    inputs: int
    outputs: int
    batch: int
    width: int
    depth: int = 4
    steps: int = 20

    def __str__(self) -> str:
        return f"{self.inputs} to {self.outputs}, {self.batch} x {self.width} x {self.depth}"


@dataclass(frozen=True)
class Problem:
    """The network of a size on a backend, in a precision.

    coupled  a BatchNorm in training mode after the first layer: rows of the batch depend on each other
    nested   the derivative stands in a loss that is differentiated; otherwise it is wanted itself
    """

    backend: str
    size: Size
    dtype: str = "float32"
    coupled: bool = False
    nested: bool = True

    @cached_property
    def model(self) -> Chain:
        size = self.size
        hidden = [
            Dense(size.inputs, size.width, "tanh"),
            *(Dense(size.width, size.width, "tanh") for _ in range(1, size.depth)),
        ]
        if self.coupled:
            hidden.insert(1, BatchNorm(size.width))
        return Chain(*hidden, Dense(size.width, size.outputs))

    @cached_property
    def _setup(self) -> tuple[Any, Any]:
        return polyad.setup(0, self.model, backend=self.backend, dtype=self.dtype)

    @property
    def params(self) -> Any:
        """As polyad's layers have them."""
        return self._setup[0]

    @property
    def state(self) -> Any:
        return self._setup[1]

    @cached_property
    def x(self) -> Any:
        """Points of shape (batch, inputs)."""
        return self._array(_random(1).normal(size=(self.size.batch, self.size.inputs)))

    @cached_property
    def signs(self) -> Any:
        """Random signs of the shape of x."""
        return self._array(_random(2).choice([-1.0, 1.0], size=(self.size.batch, self.size.inputs)))

    def _array(self, values: np.ndarray) -> Any:
        return polyad.convert(values, self.backend, dtype=self.dtype)


def plain(params: Any) -> list[tuple[Any, Any]]:
    """Parameters, or their gradient, as everybody else has them: (weight or scale, bias) of each layer."""
    layers = (params[f"layer_{i}"] for i in range(len(params)))
    return [(layer.get("weight", layer.get("scale")), layer["bias"]) for layer in layers]


def _random(key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key))
