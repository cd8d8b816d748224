"""Linear algebra: differentials of matrix functions.

Source: Giles (2008), An extended collection of matrix derivative results for
forward and reverse mode algorithmic differentiation.
"""

from typing import Any

from polyad.arrays import xp
from polyad.jets.jet import make
from polyad.jets.rule import lift, primal, register, tangent

__all__: list[str] = []


def _trace(t: Any) -> Any:
    return xp.sum(xp.linalg.diagonal(t), axis=-1)


@register("linalg.inv")
def _inv(level: int, x: Any) -> Any:
    y = xp.linalg.inv(primal(level, x))
    return make(level, y, -(y @ tangent(level, x) @ y))


@register("linalg.solve")
def _solve(level: int, a: Any, b: Any) -> Any:
    vector = b.ndim == 1
    pa, pb = primal(level, a), primal(level, b)
    y = xp.linalg.solve(pa, pb)
    ta, tb = tangent(level, a), tangent(level, b)
    column = y[..., None] if vector else y
    right = None if ta is None else -(lift(ta, column.ndim) @ column)
    if tb is not None:
        tb = tb[..., None] if vector else tb
        tb = lift(tb, column.ndim)
        right = tb if right is None else right + tb
    dy = xp.linalg.solve(pa, right)
    return make(level, y, dy[..., 0] if vector else dy)


@register("linalg.det")
def _det(level: int, x: Any) -> Any:
    v, t = primal(level, x), tangent(level, x)
    y = xp.linalg.det(v)
    return make(level, y, y * _trace(xp.linalg.solve(v, t)))


@register("linalg.slogdet")
def _slogdet(level: int, x: Any) -> Any:
    v, t = primal(level, x), tangent(level, x)
    sign, log = xp.linalg.slogdet(v)
    return sign, make(level, log, _trace(xp.linalg.solve(v, t)))


@register("linalg.cholesky")
def _cholesky(level: int, x: Any, upper: bool = False) -> Any:
    v, t = primal(level, x), tangent(level, x)
    factor = xp.linalg.cholesky(v)
    half = xp.linalg.solve(factor, xp.matrix_transpose(xp.linalg.solve(factor, (t + xp.matrix_transpose(t)) / 2)))
    low = xp.tril(half) - 0.5 * half * xp.eye(x.shape[-1], dtype=x.dtype)
    y = make(level, factor, factor @ low)
    return xp.matrix_transpose(y) if upper else y


@register("linalg.eigh")
def _eigh(level: int, x: Any) -> Any:
    v, t = primal(level, x), tangent(level, x)
    values, vectors = xp.linalg.eigh(v)
    inner = xp.matrix_transpose(vectors) @ ((t + xp.matrix_transpose(t)) / 2) @ vectors
    gaps = values[..., None, :] - values[..., :, None] + xp.eye(x.shape[-1], dtype=x.dtype)
    mixing = inner * (1 - xp.eye(x.shape[-1], dtype=x.dtype)) / gaps
    return make(level, values, xp.linalg.diagonal(inner)), make(level, vectors, vectors @ mixing)


@register("linalg.eigvalsh")
def _eigvalsh(level: int, x: Any) -> Any:
    return _eigh(level, x)[0]
