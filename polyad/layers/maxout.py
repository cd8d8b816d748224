"""Maxout: the largest of several layers."""

from typing import Any

from polyad.errors import ArgumentError
from polyad.layers.container import Container
from polyad.layers.layer import Tree
from polyad.layers.pooling import larger

__all__ = ["Maxout"]


class Maxout(Container):
    """max(layer_0(x), layer_1(x), ...), entry by entry; of equal ones the first takes the derivative.

    source  Goodfellow et al. (2013), where the layers are Dense without activation
    """

    def __init__(self, *layers: Any) -> None:
        if not layers:
            raise ArgumentError("Maxout(): needs layers, as in Maxout(Dense(2, 4), Dense(2, 4))")
        super().__init__(layers)

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        moved: dict[str, Any] = {}
        y = self.run(0, x, params, state, moved)
        for i in range(1, len(self.layers)):
            y = larger(y, self.run(i, x, params, state, moved))
        return y, {**state, **moved} if moved else state
