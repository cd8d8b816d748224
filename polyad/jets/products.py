"""Bilinear functions: the product rule, with the directions in front."""

import math
import operator
import string
from typing import Any

from polyad.arrays import xp
from polyad.backends import owner
from polyad.compositions import affine
from polyad.errors import UnsupportedError
from polyad.jets.jet import make
from polyad.jets.kind import Level
from polyad.jets.rule import moves, register

__all__: list[str] = []


@register("matmul", "linalg.matmul")
def _matmul(level: Level, a: Any, b: Any) -> Any:
    if moves(level, b) or b.ndim != 2 or a.ndim < 2:
        return level.kind.bilinear(level, a, b, operator.matmul, _left, _right)
    return _linear(level, a, b, a.primal @ b)


@register("layers.affine")
def _affine(level: Level, x: Any, weight: Any, bias: Any) -> Any:
    alone = moves(level, x) and not (moves(level, weight) or moves(level, bias))
    if alone and x.ndim >= 2 and weight.ndim == 2 and bias.shape == weight.shape[1:]:
        return _linear(level, x, weight, affine(x.primal, weight, bias))
    return x @ weight + bias


def _linear(level: Level, x: Any, weight: Any, y: Any) -> Any:
    """The jet of y = x @ weight + a constant, where only x moves."""
    t = x.compact
    if t is not None:
        t = t if t.shape[-1] == weight.shape[0] else x.tangent
        backend = owner(y)
        t = t @ weight if backend is not None and backend.folds else _left(t, weight)
    return make(level, y, t, tuple([None if c is None else c @ weight for c in x.plain]) if x.plain else ())


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
def _tensordot(level: Level, a: Any, b: Any, axes: Any = 2) -> Any:
    if isinstance(axes, int):
        axes = (range(a.ndim - axes, a.ndim), range(axes))
    in_a, in_b = (tuple(i % z.ndim for i in _several(axis)) for axis, z in zip(axes, (a, b), strict=True))
    behind_a, behind_b = tuple(i + 1 for i in in_a), tuple(i + 1 for i in in_b)
    return level.kind.bilinear(
        level,
        a,
        b,
        lambda a, b: xp.tensordot(a, b, axes=(in_a, in_b)),
        lambda t, b: xp.tensordot(t, b, axes=(behind_a, in_b)),
        lambda a, t: xp.moveaxis(xp.tensordot(a, t, axes=(in_a, behind_b)), a.ndim - len(in_a), 0),
    )


def _several(axis: Any) -> tuple[int, ...]:
    return (axis,) if isinstance(axis, int) else tuple(axis)


@register("einsum")
def _einsum(level: Level, subscripts: str, *operands: Any, optimize: Any = True) -> Any:
    inputs, output = _subscripts(subscripts)
    direction = next(c for c in string.ascii_letters if c not in subscripts)

    def along(places: tuple[int, ...], sum_up: bool, *args: Any) -> Any:
        terms = ",".join(direction + term if i in places else term for i, term in enumerate(inputs))
        return xp.einsum(f"{terms}->{'' if sum_up else direction}{output}", *args)

    return level.kind.multilinear(
        level, list(operands), lambda *args: xp.einsum(f"{','.join(inputs)}->{output}", *args), along
    )


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
