"""One pass of truncated Taylor series."""

from collections.abc import Callable, Sequence
from typing import Any

from polyad.arrays import xp
from polyad.errors import ArgumentError
from polyad.jets.jet import Jet
from polyad.jets.kind import Level
from polyad.jets.push import evaluated
from polyad.jets.rule import plain, primal
from polyad.jets.taylor import TAYLOR
from polyad.jets.trail import UNSEEN, Trail

__all__ = ["series"]


def series(
    f: Callable[..., Any], xs: Sequence[Any], coefficients: Sequence[Any], has_aux: bool = False, trail: Trail = UNSEEN
) -> Any:
    """f along the curve xs(t) = xs + c_1 t + ... + c_K t^K, as its own series to the order K.

    xs            arrays of any backend; f(*xs) is a tuple of arrays
    coefficients  for each x the coefficients (c_1, ..., c_K), arrays of x.shape
                  or None for zero; None for an x that does not move. The longest
                  gives the order K, and what a shorter one lacks is zero: of
                  x + v t to the order 3 they are (v, None, None)
    trail         notes what f did with its arguments
    returns       (ys, coefficients) or (ys, coefficients, aux): for each y the
                  tuple (c_1, ..., c_K) of y(t) = y + c_1 t + ... + c_K t^K. They
                  are normalised: the derivative of order j at t = 0 is j! c_j
    raises        UnsupportedError where f calls a function without a rule
    source        Griewank & Walther (2008), chapter 13
    """
    order = max((len(cs) for cs in coefficients if cs is not None), default=0)
    if not order:
        raise ArgumentError("series: no coefficients; of x + v t to the order 2 they are [(v, None)]")
    level = Level(TAYLOR, plain=order, trail=trail)
    jets = [_jet(level, x, cs) for x, cs in zip(xs, coefficients, strict=True)]
    ys, aux = evaluated(level, f, jets, has_aux)
    found = tuple(tuple(xp.zeros_like(primal(level, y)) if c is None else c for c in plain(level, y)) for y in ys)
    rest = (tuple(primal(level, a) for a in aux),) if has_aux else ()
    return (tuple(primal(level, y) for y in ys), found, *rest)


def _jet(level: Level, x: Any, coefficients: Any) -> Any:
    given = () if coefficients is None else tuple(coefficients)
    if all(c is None for c in given):
        return x
    return Jet(level, x, None, given + (None,) * (level.plain - len(given)))
