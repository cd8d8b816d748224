"""Bilinear functions: the product rule, with the directions in front."""

import math
import string
from typing import Any

from polyad.arrays import xp
from polyad.errors import UnsupportedError
from polyad.jets.jet import make
from polyad.jets.rule import primal, register, tangent

__all__: list[str] = []


@register("matmul", "linalg.matmul")
def _matmul(level: int, a: Any, b: Any) -> Any:
    pa, pb = primal(level, a), primal(level, b)
    ta, tb = tangent(level, a), tangent(level, b)
    total = None if ta is None else _left(ta, pb)
    if tb is not None:
        right = _right(pa, tb)
        total = right if total is None else total + right
    return make(level, pa @ pb, total)


def _left(t: Any, b: Any) -> Any:
    """(k, ..., m, n) @ b for each direction; one product of two matrices if it can be."""
    k, vector = t.shape[0], t.ndim == 2
    if b.ndim == 1:
        return t @ b
    if b.ndim == 2:
        rows = math.prod(t.shape[:-1])
        return xp.reshape(xp.reshape(t, (rows, t.shape[-1])) @ b, (*t.shape[:-1], b.shape[-1]))
    if vector:
        t = xp.reshape(t, (k, 1, t.shape[-1]))
    t = xp.reshape(t, (k, *(1,) * (b.ndim + 1 - t.ndim), *t.shape[1:]))
    y = t @ b
    return xp.reshape(y, (*y.shape[:-2], y.shape[-1])) if vector else y


def _right(a: Any, t: Any) -> Any:
    """a @ (k, ..., n, p) for each direction."""
    k = t.shape[0]
    if t.ndim == 2:  # b was a vector
        if a.ndim <= 2:
            return t @ (a if a.ndim == 1 else xp.matrix_transpose(a))
        y = a @ xp.reshape(t, (k, *(1,) * (a.ndim - 2), t.shape[1], 1))
        return xp.reshape(y, y.shape[:-1])
    if a.ndim <= 2:
        return a @ t
    return a @ xp.reshape(t, (k, *(1,) * (a.ndim + 1 - t.ndim), *t.shape[1:]))


@register("tensordot", "linalg.tensordot")
def _tensordot(level: int, a: Any, b: Any, axes: Any = 2) -> Any:
    if isinstance(axes, int):
        axes = (range(a.ndim - axes, a.ndim), range(axes))
    in_a, in_b = (tuple(i % z.ndim for i in _several(axis)) for axis, z in zip(axes, (a, b), strict=True))
    pa, pb = primal(level, a), primal(level, b)
    ta, tb = tangent(level, a), tangent(level, b)
    total = None
    if ta is not None:
        total = xp.tensordot(ta, pb, axes=(tuple(i + 1 for i in in_a), in_b))
    if tb is not None:
        right = xp.tensordot(pa, tb, axes=(in_a, tuple(i + 1 for i in in_b)))
        right = xp.moveaxis(right, a.ndim - len(in_a), 0)
        total = right if total is None else total + right
    return make(level, xp.tensordot(pa, pb, axes=(in_a, in_b)), total)


def _several(axis: Any) -> tuple[int, ...]:
    return (axis,) if isinstance(axis, int) else tuple(axis)


@register("einsum")
def _einsum(level: int, subscripts: str, *operands: Any, optimize: Any = True) -> Any:
    inputs, output = _subscripts(subscripts)
    primals = [primal(level, x) for x in operands]
    direction = next(c for c in string.ascii_letters if c not in subscripts)
    total = None
    for i, x in enumerate(operands):
        t = tangent(level, x)
        if t is not None:
            terms = ",".join(direction + term if i == j else term for j, term in enumerate(inputs))
            parts = [t if i == j else p for j, p in enumerate(primals)]
            term = xp.einsum(f"{terms}->{direction}{output}", *parts)
            total = term if total is None else total + term
    return make(level, xp.einsum(f"{','.join(inputs)}->{output}", *primals), total)


def _subscripts(subscripts: str) -> tuple[list[str], str]:
    """Input and output subscripts, the implicit output of NumPy written out."""
    if not isinstance(subscripts, str):
        raise UnsupportedError(
            "einsum of arrays that are being differentiated takes subscripts as a string: 'ij,jk->ik'"
        )
    left, arrow, output = subscripts.replace(" ", "").partition("->")
    if not arrow:
        output = "..." * ("..." in left) + "".join(sorted(c for c in set(left) - set(",.") if left.count(c) == 1))
    return left.split(","), output
