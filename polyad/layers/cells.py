"""Cells: one step of a recurrent network. Recurrence runs them over time."""

import math
from typing import Any

from polyad.arrays import stop_gradient, xp
from polyad.layers.layer import Layer, Random, Tree, check_features, check_sizes, check_weight, named_parameter

__all__ = ["Cell", "GRUCell", "LSTMCell", "RNNCell"]


class Cell(Layer):
    """One step: x (B, inputs) or (x, carry) to (y, carry), with y of shape (B, hidden).

    A carry that is not given is zero. Subclasses give `gates`, the number of
    blocks of `hidden` columns in their weights, and `step`.

    input, hidden  (inputs, gates * hidden), (hidden, gates * hidden), uniform within 1 / sqrt(hidden)
    bias           (gates * hidden,), the same
    """

    gates = 1

    def __init__(self, inputs: int, hidden: int) -> None:
        check_sizes(type(self).__name__, inputs=inputs, hidden=hidden)
        self.inputs, self.hidden = inputs, hidden

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inputs}, {self.hidden})"

    def init(self, random: Random) -> tuple[Tree, Tree]:
        bound = 1 / math.sqrt(self.hidden)
        return {key: random.at(key).uniform(bound, shape) for key, shape in self.parameter_shapes().items()}, {}

    def parameter_shapes(self) -> Tree:
        columns = self.gates * self.hidden
        return {"input": (self.inputs, columns), "hidden": (self.hidden, columns), "bias": (columns,)}

    def start(self, x: Any) -> Tree:
        """The carry before the first step, for an input (B, ...)."""
        return self.zeros(x)

    def project(self, x: Any, params: Tree) -> Any:
        """What `step` needs of x (..., inputs), for all steps at once: one product of matrices."""
        check_features(self, x, self.inputs)
        weight = named_parameter(self, params, "input")
        check_weight(self, x, weight, (self.inputs, self.gates * self.hidden), "params['input']")
        return x @ weight + named_parameter(self, params, "bias")

    def step(self, carry: Tree, projected: Any, params: Tree) -> tuple[Tree, Any]:
        """(the carry after this step, y)."""
        raise NotImplementedError(f"{type(self).__name__} has no step(carry, projected, params)")

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        x, carry = x if isinstance(x, tuple) else (x, self.start(x))
        carry, y = self.step(carry, self.project(x, params), params)
        return (y, carry), state

    def zeros(self, x: Any) -> Any:
        """Zeros (B, hidden) as x is."""
        first = xp.zeros_like(stop_gradient(x))
        return xp.broadcast_to(first[(slice(None), *(0,) * (x.ndim - 1), None)], (x.shape[0], self.hidden))

    def blocks(self, x: Any) -> list[Any]:
        """The gates of x (B, gates * hidden)."""
        return [x[:, i * self.hidden : (i + 1) * self.hidden] for i in range(self.gates)]


class RNNCell(Cell):
    """h' = tanh(x @ input + h @ hidden + bias); the carry and y are h'.

    source  Elman (1990)
    """

    def step(self, carry: Tree, projected: Any, params: Tree) -> tuple[Tree, Any]:
        h = xp.tanh(projected + carry @ named_parameter(self, params, "hidden"))
        return h, h


class LSTMCell(Cell):
    """c' = f c + i g, h' = o tanh(c'), with the gates i, f, g, o in this order.

    i, f and o are sigmoids, g is tanh, of x @ input + h @ hidden + bias. The carry
    is (h, c), y is h'.

    source  Hochreiter & Schmidhuber (1997); the order is torch's and Keras'
    """

    gates = 4

    def start(self, x: Any) -> Tree:
        zeros = self.zeros(x)
        return zeros, zeros

    def step(self, carry: Tree, projected: Any, params: Tree) -> tuple[Tree, Any]:
        h, c = carry
        columns = projected + h @ named_parameter(self, params, "hidden")
        i, f, _, o = self.blocks(xp.sigmoid(columns))  # of all at once: one call for three
        c = f * c + i * xp.tanh(columns[:, 2 * self.hidden : 3 * self.hidden])
        h = o * xp.tanh(c)
        return (h, c), h


class GRUCell(Cell):
    """h' = (1 - z) n + z h, with the gates r, z, n in this order.

    r and z are sigmoids of x @ input + h @ hidden + bias, and
    n = tanh(x @ input + bias + r (h @ hidden + hidden_bias)). The carry and y are h'.

    hidden_bias  (hidden,)
    source       Cho et al. (2014) in the variant of cuDNN, which torch, Flax and Keras have
    """

    gates = 3

    def parameter_shapes(self) -> Tree:
        return {**super().parameter_shapes(), "hidden_bias": (self.hidden,)}

    def step(self, carry: Tree, projected: Any, params: Tree) -> tuple[Tree, Any]:
        two = 2 * self.hidden
        columns = carry @ named_parameter(self, params, "hidden")
        gates = xp.sigmoid(projected[:, :two] + columns[:, :two])
        r, z = gates[:, : self.hidden], gates[:, self.hidden :]
        n = xp.tanh(projected[:, two:] + r * (columns[:, two:] + named_parameter(self, params, "hidden_bias")))
        h = n + z * (carry - n)
        return h, h
