"""Parallel and Branch: layers beside each other."""

from collections.abc import Sequence
from typing import Any

from polyad.errors import ArgumentError
from polyad.layers.container import Container, Join, as_join
from polyad.layers.layer import Tree

__all__ = ["Branch", "Parallel"]


class _Beside(Container):
    """Layers whose outputs come as a tuple, or joined."""

    def __init__(self, *layers: Any, join: str | Join | None = None) -> None:
        if not layers:
            raise ArgumentError(f"{type(self).__name__}(): needs layers")
        super().__init__(layers)
        self.name = join
        self.join = None if join is None else as_join(join, type(self).__name__)

    def options(self) -> list[str]:
        return [] if self.name is None else [f"join={getattr(self.name, '__name__', self.name)!r}"]

    def joined(self, xs: Sequence[Any], params: Tree, state: Tree) -> tuple[Any, Tree]:
        """The output for one input of each layer."""
        moved: dict[str, Any] = {}
        ys = tuple(self.run(i, x, params, state, moved) for i, x in enumerate(xs))
        return ys if self.join is None else self.join(*ys), {**state, **moved} if moved else state


class Parallel(_Beside):
    """(layer_0(x[0]), layer_1(x[1]), ...) for a tuple x with an entry for each layer.

    join    None: a tuple; "add", "multiply", "concat" along the last axis, or a
            function of all outputs
    raises  ArgumentError for another number of inputs
    """

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        if not isinstance(x, list | tuple) or len(x) != len(self.layers):
            came = f"{len(x)} entries" if isinstance(x, list | tuple) else type(x).__name__
            raise ArgumentError(
                f"{self!r}: its input is {came}; it needs a tuple of {len(self.layers)} inputs. "
                f"For one input of all layers type Branch(...)"
            )
        return self.joined(x, params, state)


class Branch(_Beside):
    """(layer_0(x), layer_1(x), ...), the same x for each layer; join as in Parallel."""

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        return self.joined([x] * len(self.layers), params, state)
