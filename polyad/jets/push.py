"""One pushforward: wrap the arguments, run f, unwrap what it returns."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from polyad.arrays import xp
from polyad.errors import DetachError
from polyad.jets.jet import Jet
from polyad.jets.rule import primal, tangent

_levels = itertools.count(1)

__all__ = ["pushforwards"]


def pushforwards(f: Callable[..., Any], xs: Sequence[Any], dxs: Sequence[Any], has_aux: bool = False) -> Any:
    """f(*xs) and its derivative in k directions at once.

    xs       arrays
    dxs      for each x its tangents, shape (k, *x.shape), or None for zero
    returns  (ys, dys) or (ys, dys, aux): dys of shape (k, *y.shape)
    """
    level = next(_levels)  # above every level that is running, in any thread
    k = next(dx.shape[0] for dx in dxs if dx is not None)
    jets = [x if dx is None else Jet(level, x, dx) for x, dx in zip(xs, dxs, strict=True)]
    try:
        out = f(*jets)
    except ValueError as error:
        if isinstance(error.__cause__, DetachError):  # out[i] = x: NumPy hides our words behind its own
            raise error.__cause__ from None
        raise
    ys, aux = out if has_aux else (out, ())
    values = tuple(primal(level, y) for y in ys)
    tangents = tuple(_tangent(level, y, k) for y in ys)
    rest = (tuple(primal(level, a) for a in aux),) if has_aux else ()
    return (values, tangents, *rest)


def _tangent(level: int, y: Any, k: int) -> Any:
    dy = tangent(level, y)
    return xp.zeros((k, *y.shape), dtype=y.dtype) if dy is None else dy
