"""Chain: one layer after the other."""

from typing import Any

from polyad.layers.container import Container
from polyad.layers.layer import Tree

__all__ = ["Chain"]


class Chain(Container):
    """Layers in a row; functions and names of activations are layers too.

    Parameters and states are dicts with the keys 'layer_0', 'layer_1', ...
    """

    def __init__(self, *layers: Any) -> None:
        super().__init__(layers)

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        moved: dict[str, Any] = {}
        y = self.in_a_row(x, params, state, moved)
        return y, {**state, **moved} if moved else state
