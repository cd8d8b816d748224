"""Recurrence: a cell over the axis of time."""

from collections.abc import Callable
from typing import Any

from polyad.arrays import describe, operation, xp
from polyad.errors import ArgumentError
from polyad.layers.cells import Cell
from polyad.layers.layer import Layer, Random, Tree

__all__ = ["Recurrence", "scan"]


@operation
def scan(step: Callable[..., Any], carry: Tree, xs: Any, params: Tree) -> tuple[Tree, Any]:
    """carry, y = step(carry, xs[t], params) for each t; (the last carry, the stacked y).

    step captures no arrays: what it needs of them is in params.
    """
    ys = []
    for t in range(xs.shape[0]):
        carry, y = step(carry, xs[t], params)
        ys.append(y)
    return carry, xp.stack(ys)


class Recurrence(Layer):
    """A cell run over time: x of shape (B, time, inputs) to y of shape (B, time, hidden).

    x may be (x, carry), which starts from this carry; the output is then (y, the last carry).

    last     y of the last step alone, (B, hidden)
    reverse  from the last step to the first; y keeps the order of x. For both
             directions: Branch(Recurrence(cell), Recurrence(cell, reverse=True), join="concat")
    params   those of the cell
    raises   ArgumentError for a sequence without steps
    """

    def __init__(self, cell: Cell, *, last: bool = False, reverse: bool = False) -> None:
        if not isinstance(cell, Cell):
            raise ArgumentError(f"Recurrence: {cell!r} is no cell; give an LSTMCell, GRUCell, RNNCell or your own Cell")
        self.cell, self.last, self.reverse = cell, last, reverse

    def __repr__(self) -> str:
        marks = [f", {name}=True" for name in ("last", "reverse") if getattr(self, name)]
        return f"Recurrence({self.cell!r}{''.join(marks)})"

    def init(self, random: Random) -> tuple[Tree, Tree]:
        return self.cell.init(random)

    def parameter_shapes(self) -> Tree:
        return self.cell.parameter_shapes()

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        given = isinstance(x, tuple)
        x, carry = x if given else (x, None)
        if x.ndim != 3 or not x.shape[1]:
            raise ArgumentError(
                f"{self!r}: its input is a {describe(x)}; it needs (B, time, features), time at least 1"
            )
        steps = xp.moveaxis(self.cell.project(x, params), 1, 0)
        steps = xp.flip(steps, axis=0) if self.reverse else steps
        carry, ys = scan(self.cell.step, self.cell.start(x) if carry is None else carry, steps, params)
        ordered = xp.flip(ys, axis=0) if self.reverse and not self.last else ys
        y = ys[-1] if self.last else xp.moveaxis(ordered, 0, 1)
        return (y, carry) if given else y, state
