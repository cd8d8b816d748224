"""Dense: an affine map and an activation."""

import math
from typing import Any

from polyad.arrays import operation
from polyad.compositions import affine
from polyad.errors import ArgumentError
from polyad.layers.activations import Activation
from polyad.layers.activations import activation as as_activation
from polyad.layers.layer import Layer, Random, Tree, activation_name, check_features, check_weight, named_parameter

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
        self.shape = inputs, outputs
        self.name, self.activation = activation, as_activation(activation)

    def __repr__(self) -> str:
        parts = [
            str(self.inputs),
            str(self.outputs),
            *activation_name(self.name),
            *([] if self.bias else ["bias=False"]),
        ]
        return f"Dense({', '.join(parts)})"

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
        try:
            weight, bias = params["weight"], params["bias"] if self.bias else None
        except (KeyError, TypeError, IndexError):
            weight, bias = named_parameter(self, params, "weight"), named_parameter(self, params, "bias")
        shape = x.shape
        if not shape or shape[-1] != self.inputs or weight.shape != self.shape or weight.dtype != x.dtype:
            check_features(self, x, self.inputs)
            check_weight(self, x, weight, self.shape)
        if bias is None:
            return self.activation(x @ weight), state
        return activated(x, weight, bias, activation=self.activation), state


@operation
def activated(x: Any, weight: Any, bias: Any, *, activation: Activation) -> Any:
    """What a layer is, which may need no second array for what it is of."""
    return activation(affine(x, weight, bias))
