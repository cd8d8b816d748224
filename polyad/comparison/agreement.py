"""How far two results are from each other, and how far they may be."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["ALLOWED", "differences", "gap", "most_agreed", "worst"]

ALLOWED = {"float64": 1e-8, "float32": 1e-3}
"""Between two backends, relative to the largest entry of a leaf: sums may run in another order."""

ROUNDING = 100
"""In units of the precision, relative to the largest gradient of all: noise in a gradient that cancels."""


def gap(a: Any, b: Any, floor: float = 0.0) -> float:
    """Largest difference of two arrays, relative to their largest entry, or to the floor where that is larger.

    Entries that are infinite or no numbers must be the same in both; else it is infinite.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        return float("inf")
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    a, b = a[finite], b[finite]
    distance = float(np.max(np.abs(a - b), initial=0.0))
    size = max(float(np.max(np.abs(a), initial=0.0)), float(np.max(np.abs(b), initial=0.0)), floor)
    return distance / size if distance else 0.0


def differences(
    mine: Mapping[str, Any], reference: Mapping[str, Any], limit: float, epsilon: float
) -> dict[str, float]:
    """Relative differences of results by name.

    What is below the rounding error of the largest gradient is measured by
    that: the gradient of a bias in front of BatchNorm is zero, and comes out
    as some 1e-17 on each backend. So it is with a value, which is known no
    better than the gradient times the rounding error of the arguments.
    """
    largest = max((_largest(g) for name, g in reference.items() if name != "value"), default=0.0)
    floor = ROUNDING * epsilon * largest / limit
    return {name: gap(mine[name], reference[name], floor) for name in reference}


def worst(found: Mapping[str, float]) -> tuple[str, float]:
    """(name, how much) of the largest difference."""
    if not found:
        return "", 0.0
    name = max(found, key=lambda name: found[name])
    return name, found[name]


def most_agreed(agree: Sequence[Sequence[bool]], confirmed: Sequence[bool]) -> int:
    """Position of the result with which most others agree; of several, the first that finite differences confirm."""
    return max(range(len(agree)), key=lambda i: (sum(agree[i]), confirmed[i], -i))


def _largest(x: Any) -> float:
    x = np.abs(np.asarray(x, dtype=np.float64))
    return float(np.max(x[np.isfinite(x)], initial=0.0))
