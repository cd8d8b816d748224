"""Central differences of f along random directions, leaf by leaf."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from polyad.arrays import EPSILON, dtype_name

__all__ = ["ALLOWED", "DIRECTIONS", "slope_errors"]

DIRECTIONS = 2
"""Of each leaf, all entries at once: 4 evaluations of f a leaf, however large it is."""

ALLOWED = {"float64": 1e-6, "float32": 2e-2}

SHORTER = (1.0, 1 / 8, 1 / 64)
"""Steps that are tried where the first one is too long for a function that bends much or has a kink nearby."""


def slope_errors(
    f: Callable[[int, Any], float], xs: Sequence[Any], gradients: Sequence[Any], limit: float
) -> list[float | None]:
    """How far each gradient is from central differences of f, relative to the slope.

    f        (i, x): f with leaf i at x, the others as they are
    returns  for each leaf the larger error of its directions; None where the
             slope is below what finite differences see, or f is not finite

    A wrong entry in a leaf of n changes the slope along random signs by about
    1/sqrt(n) of what it changes the entry: it is seen whichever entry it is.
    """
    random = np.random.default_rng(0)
    terms = sum(_absolute(x, gradient) for x, gradient in zip(xs, gradients, strict=True))
    errors: list[float | None] = []
    for i, (x, gradient) in enumerate(zip(xs, gradients, strict=True)):
        lines = [_direction(random, x.shape) for _ in range(DIRECTIONS if x.size > 1 else 1)] if x.size else []
        found = [_error(partial(f, i), x, gradient, line, terms, limit) for line in lines]
        errors.append(max((error for error in found if error is not None), default=None))
    return errors


def _direction(random: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Random signs, of unequal sizes, so that equal entries do not cancel."""
    return random.choice([-1.0, 1.0], size=shape) * random.uniform(0.5, 1.5, size=shape)


def _absolute(x: Any, gradient: Any) -> float:
    """Of the terms whose rounding errors f has, if it is a sum in which they cancel."""
    terms = np.abs(np.asarray(x, dtype=np.float64) * gradient)
    return float(np.sum(terms[np.isfinite(terms)]))


def _error(
    f: Callable[[Any], float], x: Any, gradient: Any, direction: Any, terms: float, limit: float
) -> float | None:
    errors = []
    for slope, measured, noise in _slopes(f, x, gradient, direction, terms):
        if not np.isfinite(measured):
            continue
        if not np.isfinite(slope):
            return float("inf")
        size = max(abs(slope), abs(measured))
        if size > noise:
            # Of a slope near the noise nothing is known beyond it.
            errors.append(abs(slope - measured) / max(size, noise / limit))
        if not errors or errors[-1] <= limit:
            break
    return min(errors, default=None)


def _slopes(
    f: Callable[[Any], float], x: Any, gradient: Any, direction: Any, terms: float
) -> Iterator[tuple[float, float, float]]:
    """(slope by the gradient, slope by differences, its rounding error) for shorter and shorter steps."""
    epsilon = EPSILON[dtype_name(x.dtype)]
    longest = epsilon ** (1 / 3) * max(1.0, float(np.max(np.abs(x)))) / np.sqrt(x.size)
    for part in SHORTER:
        step = np.asarray(part * longest * direction, dtype=x.dtype)
        ahead, behind = x + step, x - step
        up, down = f(ahead), f(behind)
        moved = np.asarray(ahead - behind, dtype=np.float64)  # which is not quite 2 steps, after rounding
        length = float(np.sqrt(np.sum(moved**2)))
        noise = 10 * epsilon * max(abs(up), abs(down), terms) / length
        yield float(np.sum(gradient * moved)) / length, (up - down) / length, noise
