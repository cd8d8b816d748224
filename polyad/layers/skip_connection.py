"""SkipConnection: a layer and the way around it."""

from typing import Any

from polyad.layers.container import Container, Join, as_join
from polyad.layers.layer import Tree

__all__ = ["SkipConnection"]


class SkipConnection(Container):
    """join(layer(x), x).

    join    "add", "multiply", "concat" along the last axis, or a function of both
    source  He et al. (2016), for "add"
    """

    def __init__(self, layer: Any, join: str | Join = "add") -> None:
        super().__init__((layer,))
        self.name, self.join = join, as_join(join, "SkipConnection")

    def options(self) -> list[str]:
        return [] if self.name == "add" else [f"join={getattr(self.name, '__name__', self.name)!r}"]

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        moved: dict[str, Any] = {}
        y = self.join(self.run(0, x, params, state, moved), x)
        return y, {**state, **moved} if moved else state
