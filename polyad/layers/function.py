"""Lambda: a function as a layer."""

from collections.abc import Callable
from typing import Any

from polyad.layers.activations import activation
from polyad.layers.layer import Layer, Tree

__all__ = ["Lambda"]


class Lambda(Layer):
    """f(x), without parameters; f is a function written in `xp`, or the name of an activation.

    raises  ArgumentError for an unknown name
    """

    def __init__(self, f: str | Callable[[Any], Any]) -> None:
        self.f = activation(f)

    def __repr__(self) -> str:
        return getattr(self.f, "__name__", repr(self.f))

    def parameter_shapes(self) -> Tree:
        return {}

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        return self.f(x), state
