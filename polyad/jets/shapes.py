"""Functions that only move or add entries: linear, so the same for every part of a jet.

A tangent has one axis in front, its k directions. Axes counted from the end
stay what they are; axes counted from the front move by one.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from polyad.arrays import xp
from polyad.jets.jet import make
from polyad.jets.kind import Level
from polyad.jets.rule import lift, moves, ndim, plain, primal, register, tangent

Axis = int | tuple[int, ...] | None

__all__ = ["behind", "linear"]


def behind(axis: Axis, n: int) -> Any:
    """The same axes of an array of n axes, seen from its tangent."""
    if axis is None:
        return tuple(range(1, n + 1))
    if isinstance(axis, tuple | list):
        return tuple(behind(a, n) for a in axis)
    return axis if axis < 0 else axis + 1


def linear(
    level: Level, x: Any, f: Callable[[Any], Any], df: Callable[[Any], Any], part: Callable[[Any], Any] | None = None
) -> Any:
    """A linear function of x.

    f     the map of the primal
    df    the same map behind the axis of directions, of the tangent
    part  the same map of parts that have the shape of the primal, if f is not it
    """
    if not moves(level, x):
        return f(x)
    t, part = x.tangent, part or f
    rest = tuple(None if c is None else part(c) for c in x.plain)
    return make(level, f(x.primal), None if t is None else df(t), rest)


@register("reshape")
def _reshape(level: Level, x: Any, shape: Any, copy: Any = None) -> Any:
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    y = xp.reshape(primal(level, x), shape)
    full = tuple(y.shape)
    return linear(level, x, lambda v: xp.reshape(v, full), lambda t: xp.reshape(t, (t.shape[0], *full)))


@register("permute_dims")
def _permute_dims(level: Level, x: Any, axes: Any) -> Any:
    axes = tuple(a % x.ndim for a in axes)
    return linear(
        level, x, lambda v: xp.permute_dims(v, axes), lambda t: xp.permute_dims(t, (0, *(a + 1 for a in axes)))
    )


@register("matrix_transpose", "linalg.matrix_transpose")
def _matrix_transpose(level: Level, x: Any) -> Any:
    return linear(level, x, xp.matrix_transpose, xp.matrix_transpose)


@register("moveaxis")
def _moveaxis(level: Level, x: Any, source: Any, destination: Any) -> Any:
    n = x.ndim
    return linear(
        level,
        x,
        lambda v: xp.moveaxis(v, source, destination),
        lambda t: xp.moveaxis(t, behind(source, n), behind(destination, n)),
    )


@register("squeeze")
def _squeeze(level: Level, x: Any, axis: Any) -> Any:
    return linear(level, x, lambda v: xp.squeeze(v, axis=axis), lambda t: xp.squeeze(t, axis=behind(axis, x.ndim)))


@register("expand_dims")
def _expand_dims(level: Level, x: Any, axis: int = 0) -> Any:
    return linear(
        level, x, lambda v: xp.expand_dims(v, axis=axis), lambda t: xp.expand_dims(t, axis=behind(axis, x.ndim + 1))
    )


@register("linalg.diagonal")
def _diagonal(level: Level, x: Any, offset: int = 0) -> Any:
    return linear(
        level, x, lambda v: xp.linalg.diagonal(v, offset=offset), lambda t: xp.linalg.diagonal(t, offset=offset)
    )


def _triangle(name: str) -> None:
    f = getattr(xp, name)

    @register(name)
    def rule(level: Level, x: Any, k: int = 0) -> Any:
        return linear(level, x, lambda v: f(v, k=k), lambda t: f(t, k=k))


_triangle("tril")
_triangle("triu")


@register("broadcast_to")
def _broadcast_to(level: Level, x: Any, shape: Any) -> Any:
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    return linear(
        level,
        x,
        lambda v: xp.broadcast_to(v, shape),
        lambda t: xp.broadcast_to(lift(t, len(shape)), (t.shape[0], *shape)),
    )


@register("flip")
def _flip(level: Level, x: Any, axis: Any = None) -> Any:
    n = x.ndim
    return linear(level, x, lambda v: xp.flip(v, axis=axis), lambda t: xp.flip(t, axis=behind(axis, n)))


def _joined(level: Level, xs: Any, join: Callable[[Any], Any], join_tangents: Callable[[Any], Any]) -> Any:
    like = next(x for x in xs if moves(level, x))
    xs = [x if hasattr(x, "shape") else xp.full_like(primal(level, like), x) for x in xs]
    primals = [primal(level, x) for x in xs]
    tangents = [tangent(level, x) for x in xs]
    k = next((t.shape[0] for t in tangents if t is not None), None)
    zeros = [
        None if t is not None or k is None else _zero_tangent(k, v) for v, t in zip(primals, tangents, strict=True)
    ]
    full = [zero if t is None else t for zero, t in zip(zeros, tangents, strict=True)]
    parts = tuple(
        None if all(c is None for c in group) else join([_or_zero(c, v) for c, v in zip(group, primals, strict=True)])
        for group in zip(*(plain(level, x) for x in xs), strict=True)
    )
    return make(level, join(primals), None if k is None else join_tangents(full), parts)


def _zero_tangent(k: int, v: Any) -> Any:
    zero = xp.zeros_like(v)
    return xp.broadcast_to(zero[None, ...], (k, *zero.shape))


def _or_zero(part: Any, v: Any) -> Any:
    return xp.zeros_like(v) if part is None else part


@register("concat")
def _concat(level: Level, xs: Any, axis: int | None = 0) -> Any:
    if axis is None:
        xs, axis = [xp.reshape(x, (-1,)) for x in xs], 0
    n = ndim(xs[0])
    return _joined(level, xs, lambda vs: xp.concat(vs, axis=axis), lambda ts: xp.concat(ts, axis=behind(axis, n)))


@register("stack")
def _stack(level: Level, xs: Any, axis: int = 0) -> Any:
    n = ndim(xs[0])
    return _joined(level, xs, lambda vs: xp.stack(vs, axis=axis), lambda ts: xp.stack(ts, axis=behind(axis, n + 1)))


@register("getitem")
def _getitem(level: Level, x: Any, index: Any) -> Any:
    index = _expanded([_plain(i) for i in (index if isinstance(index, tuple) else (index,))], x.ndim)
    if not any(_is_advanced(i) for i in index):
        return linear(level, x, lambda v: v[index], lambda t: t[(slice(None), *index)])
    # Index arrays may bring their axes to the front; a last axis stays last.
    return linear(level, x, lambda v: v[index], lambda t: xp.moveaxis(xp.moveaxis(t, 0, -1)[index], -1, 0))


def _plain(i: Any) -> Any:
    """Lists and ranges as index arrays, so that all of one kind count alike."""
    return np.asarray(i, dtype=None if len(i) else np.intp) if isinstance(i, list | range) else i


def _expanded(index: list[Any], n: int) -> tuple[Any, ...]:
    """The index with its ellipsis written out."""
    used = sum(_axes_used(i) for i in index)
    at = next((j for j, i in enumerate(index) if i is Ellipsis), len(index))
    return (*index[:at], *(slice(None),) * (n - used), *index[at + 1 :])


def _axes_used(i: Any) -> int:
    if i is None or i is Ellipsis or isinstance(i, bool | np.bool_):
        return 0
    if hasattr(i, "dtype") and str(i.dtype).endswith("bool"):
        return int(i.ndim)
    return 1


def _is_advanced(i: Any) -> bool:
    return isinstance(i, bool | np.bool_) or (hasattr(i, "ndim") and hasattr(i, "dtype") and not np.isscalar(i))
