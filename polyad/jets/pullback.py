"""Reverse mode through jets: the framework's own sweep over the parts of the jets.

A function of jets is a function F of their parts, and the framework can pull
cotangents through F. By the symmetry of second derivatives, what comes back is
the jet of the gradient in another order: with S the last part of the jet of
<ct, y>, the derivative of S in the last part of x is the primal of the gradient,
and the derivative of S in the primal of x is its last part:

first order   S = <c, dy> + <dc, y>               dS/dx = dg, dS/d(dx) = g
Laplacian     S = <c, lap y> + 2 <dc, dy> + <lc, y>   dS/dx = lap g, dS/d(dx) = 2 dg, dS/d(lap x) = g
series        S = the sum of <c_{K-j}, y_j>        dS/dx_j = g_{K-j}

One sweep, whatever the number of entries of x; at first order one for each
direction. Levels are taken one at a time, the highest first; the parts of its
jets are arrays, or jets of the lower ones.

Source: Griewank & Walther (2008), section 5.4 and chapter 13.
"""

from collections.abc import Callable, Sequence
from typing import Any

from polyad.arrays import xp
from polyad.jets.jet import make
from polyad.jets.kind import Level, Parts
from polyad.jets.push import zero_tangent
from polyad.jets.rule import plain, primal, tangent

__all__ = ["pullback"]


def pullback(levels: Sequence[Level], below: Callable[..., Any], f: Callable[..., Any], xs: Sequence[Any]) -> Any:
    """(ys, pull, aux) of f, which returns (ys, aux), where jets of these levels may be anywhere.

    levels  the running ones, rising
    below   the framework's pullback with aux, on its own arrays
    """
    if not levels:
        return below(f, tuple(xs))
    *lower, level = levels
    level.trail.lost()
    counts: list[int] = []

    def of_parts(*parts: Any) -> tuple[Parts, Parts]:
        ys, aux = f(*(_jet(level, group) for group in _groups(level, parts)))
        counts[:] = [len(ys)]
        return _flat(level, ys), _flat(level, aux)

    values, pull_parts, aux = pullback(lower, below, of_parts, _flat(level, xs))

    def pull(cotangents: Sequence[Any]) -> tuple[Any, ...]:
        cts = [xp.zeros_like(y) if ct is None else ct for ct, y in zip(cotangents, ys, strict=True)]
        return tuple(level.kind.pulled(level, [_parts(level, ct) for ct in cts], pull_parts))

    ys = tuple(_jet(level, group) for group in _groups(level, values))
    assert len(ys) == counts[0]
    return ys, pull, tuple(_jet(level, group) for group in _groups(level, aux))


def _parts(level: Level, x: Any) -> Parts:
    """Primal, tangent if the kind has one, and the plain parts, zeros written out."""
    v = primal(level, x)
    rest = tuple(xp.zeros_like(v) if c is None else c for c in plain(level, x))
    if not level.directions:
        return (v, *rest)
    t = tangent(level, x)
    return (v, zero_tangent(level.directions, v) if t is None else t, *rest)


def _flat(level: Level, xs: Sequence[Any]) -> Parts:
    return tuple(part for x in xs for part in _parts(level, x))


def _groups(level: Level, parts: Sequence[Any]) -> list[Parts]:
    n = 1 + bool(level.directions) + level.plain
    return [tuple(parts[i : i + n]) for i in range(0, len(parts), n)]


def _jet(level: Level, parts: Parts) -> Any:
    v, *rest = parts
    return make(level, v, rest.pop(0) if level.directions else None, tuple(rest))
