"""One pass of Laplacian jets: the forward Laplacian."""

from collections.abc import Callable, Sequence
from typing import Any

from polyad.arrays import xp
from polyad.jets.jet import Jet
from polyad.jets.kind import Level
from polyad.jets.laplacian_rules import LAPLACIAN
from polyad.jets.push import directions, evaluated, zero_tangent
from polyad.jets.rule import plain, primal, tangent
from polyad.jets.trail import UNSEEN, Trail

__all__ = ["laplacians"]


def laplacians(
    f: Callable[..., Any], xs: Sequence[Any], dxs: Sequence[Any], has_aux: bool = False, trail: Trail = UNSEEN
) -> Any:
    """f(*xs), its derivative in k directions, and the sum of its second derivatives along them.

    xs       arrays of any backend; f(*xs) is a tuple of arrays
    dxs      for each x its tangents, shape (k, *x.shape), or None for zero; an axis
             along which they do not vary, as the batch, may have length 1: less work
    trail    notes what f did with its arguments
    returns  (ys, dys, laps) or (ys, dys, laps, aux): dys of shape (k, *y.shape),
             laps of shape y.shape: the sum over k of d²/ds² f(xs + s dxs[k]) at s = 0
    raises   UnsupportedError where f calls a function without a rule
    source   Li et al. (2023), Forward Laplacian
    """
    k = directions(dxs)
    level = Level(LAPLACIAN, plain=1, directions=k, trail=trail)
    jets = [x if dx is None else Jet(level, x, dx, (None,)) for x, dx in zip(xs, dxs, strict=True)]
    ys, aux = evaluated(level, f, jets, has_aux)
    values = tuple(primal(level, y) for y in ys)
    dys = tuple(zero_tangent(k, y) if (dy := tangent(level, y)) is None else dy for y in ys)
    laps = tuple(
        xp.zeros_like(v) if plain(level, y)[0] is None else y.plain[0] for v, y in zip(values, ys, strict=True)
    )
    return (values, dys, laps, *((tuple(primal(level, a) for a in aux),) if has_aux else ()))
