"""Directions: unit tangents and cotangents, and how many of them go through one sweep."""

import functools
import math
import os
from collections.abc import Sequence
from typing import Any

from polyad.arrays import dtype_name
from polyad.errors import TooLargeError

__all__ = ["MOST_DIRECTIONS", "at_once", "basis", "largest", "refuse_too_large"]

# More directions in a sweep save calls, fewer save memory: of the digits example on
# NumPy 256, 128, 64 and 32 take the same time (2.1 to 2.5 s a step) and 972, 566, 363
# and 250 MiB (one thread, 2026-11).
MOST_DIRECTIONS = 64
MOST_ENTRIES = 2**21
SMALL = 2**10  # entries of a Jacobian that no machine has too little memory for


def at_once(n: int, entries: int, chunk_size: int | None = None) -> int:
    """How many of n directions go through one sweep, at least 1.

    entries     of the largest array that is known to be there once for each direction
    chunk_size  what the user says; None: as many as fit in memory
    """
    if chunk_size is not None:
        return max(1, min(n, chunk_size))
    fit = MOST_ENTRIES // max(1, entries)
    # A rest of up to half a sweep goes along: of a loss with 96 rows on torch 0.90 of the time of 64 and 32.
    return max(1, min(n, fit, n if 2 * n <= 3 * MOST_DIRECTIONS else MOST_DIRECTIONS))


def largest(*arrays: Any) -> int:
    """Entries of the largest of these arrays."""
    return max([math.prod(x.shape) for x in arrays], default=0)


def refuse_too_large(ys: Sequence[Any], xs: Sequence[Any]) -> None:
    """Raise before the Jacobian of ys in xs is made that the machine cannot hold.

    raises  TooLargeError
    """
    rows, columns = (sum([math.prod(z.shape) for z in zs]) for zs in (ys, xs))
    if rows * columns > SMALL and sum(math.prod(y.shape) * _bytes(y) for y in ys) * columns > _memory():
        need = sum(math.prod(y.shape) * _bytes(y) for y in ys) * columns
        raise TooLargeError(
            f"a Jacobian of {rows:,} outputs in {columns:,} inputs takes {need / 1e9:,.3g} GB; this machine has "
            f"{_memory() / 1e9:,.0f} GB. Products with it take little more than f does: jvp, vjp, hvp. Where the rows "
            f"of a batch are independent, batched_jacobian(f, x) has the blocks that are not zero"
        )


def _bytes(y: Any) -> int:
    digits = "".join(c for c in dtype_name(y.dtype) if c.isdigit())
    return int(digits or 8) // 8


@functools.cache
def _memory() -> float:
    """Bytes of the machine; unbounded where the system does not tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return math.inf


def basis(backend: Any, x: Any, start: Any, count: int, shape: tuple[int, ...] | None = None) -> Any:
    """So many unit tangents of x from number start on, or of an array like x of this shape: (count, *shape)."""
    shape = tuple(x.shape) if shape is None else shape
    device = backend.device(x)
    options = {} if device is None else {"device": device}
    flat = backend.namespace.eye(count, math.prod(shape), k=start, dtype=x.dtype, **options)
    return flat if len(shape) == 1 else backend.namespace.reshape(flat, (count, *shape))
