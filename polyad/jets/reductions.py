"""Many entries to one."""

from typing import Any

from polyad.arrays import xp
from polyad.compositions import only_axis, with_initial
from polyad.jets.kind import Level
from polyad.jets.rule import primal, register
from polyad.jets.shapes import behind, linear

__all__: list[str] = []


def _additive(name: str) -> None:
    f = getattr(xp, name)

    @register(name)
    def rule(level: Level, x: Any, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        if dtype is not None:
            x = xp.astype(x, dtype)
        if not x.ndim:
            return x
        return linear(
            level,
            x,
            lambda v: f(v, axis=axis, keepdims=keepdims),
            lambda t: f(t, axis=behind(axis, x.ndim), keepdims=keepdims),
        )


_additive("sum")
_additive("mean")


@register("cumulative_sum")
def _cumulative_sum(
    level: Level, x: Any, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Any:
    axis = only_axis(x, axis)
    y = linear(
        level,
        x if dtype is None else xp.astype(x, dtype),
        lambda v: xp.cumulative_sum(v, axis=axis),
        lambda t: xp.cumulative_sum(t, axis=behind(axis, x.ndim)),
    )
    return with_initial(y, axis, 0.0) if include_initial else y


def _extreme(name: str) -> None:
    f = getattr(xp, name)

    @register(name)
    def rule(level: Level, x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        if not x.ndim:
            return x
        v = primal(level, x)
        chosen = xp.astype(v == f(v, axis=axis, keepdims=True), v.dtype)
        weights = chosen / xp.sum(chosen, axis=axis, keepdims=True)  # ties share evenly
        return linear(
            level,
            x,
            lambda v: f(v, axis=axis, keepdims=keepdims),
            lambda t: xp.sum(t * weights, axis=behind(axis, x.ndim), keepdims=keepdims),
            lambda c: xp.sum(c * weights, axis=axis, keepdims=keepdims),
        )


_extreme("max")
_extreme("min")
