"""Dense: an affine map and an activation."""

import math
from typing import Any

from polyad.arrays import describe, dtype_name
from polyad.errors import ArgumentError, DTypeError, ParameterError
from polyad.layers.activations import Activation, activation
from polyad.layers.layer import Layer, Random, Tree, named_parameter

__all__ = ["Dense"]


class Dense(Layer):
    """activation(x @ weight + bias), x of shape (..., inputs).

    weight  (inputs, outputs), Glorot uniform: within sqrt(6 / (inputs + outputs))
    bias    (outputs,), uniform within 1 / sqrt(inputs); left out with bias=False
    source  Glorot & Bengio (2010)
    """

    def __init__(
        self, inputs: int, outputs: int, activation: str | Activation | None = None, *, bias: bool = True
    ) -> None:
        if not all(isinstance(n, int) and n > 0 for n in (inputs, outputs)):
            raise ArgumentError(f"Dense({inputs!r}, {outputs!r}): sizes are positive integers")
        self.inputs, self.outputs, self.bias = inputs, outputs, bias
        self.name, self.activation = activation, _activation(activation)

    def __repr__(self) -> str:
        name = "" if self.name is None else f", {getattr(self.name, '__name__', self.name)!r}"
        return f"Dense({self.inputs}, {self.outputs}{name}{'' if self.bias else ', bias=False'})"

    def init(self, random: Random) -> tuple[Tree, Tree]:
        bound = math.sqrt(6 / (self.inputs + self.outputs))
        params = {"weight": random.at("weight").uniform(bound, (self.inputs, self.outputs))}
        if self.bias:
            params["bias"] = random.at("bias").uniform(1 / math.sqrt(self.inputs), (self.outputs,))
        return params, {}

    def parameter_shapes(self) -> Tree:
        shapes = {"weight": (self.inputs, self.outputs), "bias": (self.outputs,)}
        return shapes if self.bias else {"weight": shapes["weight"]}

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        weight = named_parameter(self, params, "weight")
        if weight.dtype != x.dtype or x.shape[-1:] != (self.inputs,) or weight.ndim != 2:
            self._explain(x, weight)
        y = x @ weight
        if self.bias:
            y = y + named_parameter(self, params, "bias")
        return self.activation(y), state

    def _explain(self, x: Any, weight: Any) -> None:
        if tuple(weight.shape) != (self.inputs, self.outputs):
            raise ParameterError(f"{self!r}: params['weight'] is a {describe(weight)}")
        if tuple(x.shape[-1:]) != (self.inputs,):
            raise ArgumentError(
                f"{self!r}: its input has shape {tuple(x.shape)}; the last axis must have {self.inputs} entries"
            )
        raise DTypeError(
            f"{self!r}: params['weight'] is {dtype_name(weight.dtype)}, its input x is {dtype_name(x.dtype)}. Type "
            f"polyad.convert(x, backend, dtype={dtype_name(weight.dtype)!r}), or setup(..., "
            f"dtype={dtype_name(x.dtype)!r})"
        )


_activation = activation
