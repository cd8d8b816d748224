"""Derivatives of an operation by differences of numbers of sixty digits.

With a step h = 1e-12, central differences of the first, second and third order
are off by h² = 1e-24 of the derivative two orders higher, and rounding by
1e-60 / h³ = 1e-24: both are nothing beside a float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .exact import exact, floats, mp, numbers
from .operation import Operation

__all__ = ["WITNESS", "Derivatives", "derivatives", "gradient"]

WITNESS = "differences of mpmath numbers of 60 digits"
STEP = mp.mpf(10) ** -12

Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Derivatives:
    """With y = f(x), directions v, a cotangent c, and the number s = <c, y>.

    value     y
    along     Dy[v]
    bent      D²y[v, v]
    gradient  the derivative of s in each argument
    hessian   that of Ds[v]
    third     that of D²s[v, v]
    """

    value: np.ndarray
    along: np.ndarray
    bent: np.ndarray
    gradient: Arrays
    hessian: Arrays
    third: Arrays


def derivatives(operation: Operation, xs: Arrays, vs: Arrays, c: np.ndarray) -> Derivatives:
    """All of them at the point xs; float64 arrays in and out."""
    points, directions, weights = [numbers(x) for x in xs], [numbers(v) for v in vs], numbers(c)

    def f(points: Sequence[Any], t: int) -> Any:
        moved = (np.asarray(x + t * STEP * v, dtype=object) for x, v in zip(points, directions, strict=True))
        return np.asarray(operation(exact, *moved), dtype=object)

    def line(points: Sequence[Any]) -> tuple[Any, Any, Any]:
        """y, Dy[v], D²y[v, v] at these points."""
        below, here, above = (f(points, t) for t in (-1, 0, 1))
        return here, (above - below) / (2 * STEP), (above - 2 * here + below) / STEP**2

    def slope(i: int, index: tuple[int, ...]) -> tuple[Any, ...]:
        """The derivatives of s, Ds[v] and D²s[v, v] in one entry."""
        ends = []
        for sign in (1, -1):
            moved = list(points)
            moved[i] = points[i].copy()
            moved[i][index] += sign * STEP
            ends.append([np.sum(weights * part) for part in line(moved)])
        return tuple((above - below) / (2 * STEP) for above, below in zip(*ends, strict=True))

    slopes = [[slope(i, index) for index in np.ndindex(x.shape)] for i, x in enumerate(xs)]
    orders = [
        tuple(
            floats([entry[order] for entry in entries]).reshape(x.shape) for entries, x in zip(slopes, xs, strict=True)
        )
        for order in range(3)
    ]
    y, along, bent = map(floats, line(points))
    return Derivatives(y, along, bent, *orders)


def gradient(operation: Operation, xs: Arrays, c: np.ndarray) -> Arrays:
    """The derivative of <c, y> in each argument."""
    return derivatives(operation, xs, tuple(np.zeros_like(x) for x in xs), c).gradient


def value(operation: Operation, xs: Arrays) -> np.ndarray:
    """y as float64."""
    return floats(operation(exact, *(numbers(x) for x in xs)))
