"""A derivative of a Call in a given mode, on flat tuples."""

import math
from collections.abc import Callable
from typing import Any

from polyad.arrays import dtype_name, xp
from polyad.backends.base import Arrays, basis
from polyad.operators.call import Call

__all__ = ["columns", "contract", "differences", "pullback"]

EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def pullback(call: Call) -> tuple[Arrays, Callable[..., Arrays], tuple[Arrays, ...]]:
    """(ys, pull, aux) with aux as a tuple of none or one."""
    if not call.xs:
        ys, *aux = call.evaluate()
        return ys, lambda cotangents: (), tuple(aux)
    ys, pull, *aux = call.backend.pullback(call.flat, call.xs, **_aux(call))
    return ys, pull, tuple(aux)


def columns(call: Call, mode: str) -> tuple[Arrays, list[Arrays], tuple[Arrays, ...]]:
    """(ys, Jacobian by columns, aux): for each x a tuple of (x.size, *y.shape)."""
    if mode == "finite_difference":
        (ys, *aux), by_input = differences(call)
    else:
        (ys, *aux), by_input = call.backend.columns(call.flat, call.xs, **_aux(call))
    return ys, by_input, tuple(aux)


def _aux(call: Call) -> dict[str, bool]:
    return {"has_aux": True} if call.has_aux else {}


def contract(call: Call, by_input: list[Arrays], cotangents: Arrays) -> Arrays:
    """The pullback from the columns of the Jacobian."""
    grads = []
    for x, dys in zip(call.xs, by_input, strict=True):
        n = math.prod(x.shape)
        parts = [
            xp.reshape(dy, (n, math.prod(ct.shape))) @ xp.reshape(ct, (math.prod(ct.shape),))
            for dy, ct in zip(dys, cotangents, strict=True)
        ]
        total = xp.reshape(sum(parts[1:], start=parts[0]), tuple(x.shape))
        grads.append(total if total.dtype == x.dtype else xp.astype(total, x.dtype))
    return tuple(grads)


def differences(call: Call) -> tuple[Any, list[Arrays]]:
    """Columns by central differences: error about eps^(2/3) of the largest entry.

    source  Nocedal & Wright (2006), section 8.1
    """
    xs = call.xs
    out = call.evaluate()
    by_input = []
    for i, x in enumerate(xs):
        found = [_difference(call, i, k) for k in range(math.prod(x.shape))]
        if found:
            by_input.append(tuple(xp.stack(list(dys)) for dys in zip(*found, strict=True)))
        else:
            by_input.append(tuple(xp.reshape(xp.zeros_like(y)[None][:0], (0, *y.shape)) for y in out[0]))
    return out, by_input


def _difference(call: Call, i: int, k: int) -> Arrays:
    x = call.xs[i]
    unit = basis(call.backend, x, k, k + 1)[0]
    # The step grows with the entry, so that it never drowns in its rounding.
    step = EPSILON[dtype_name(x.dtype)] ** (1 / 3) * xp.maximum(xp.sum(xp.abs(x) * unit), xp.sum(unit))
    step = xp.astype(step, x.dtype)
    ends = []
    for sign in (1.0, -1.0):
        moved = call.flat(*(x + sign * step * unit if j == i else z for j, z in enumerate(call.xs)))
        ends.append(moved[0] if call.has_aux else moved)
    return tuple((above - below) / (2 * step) for above, below in zip(*ends, strict=True))


def output_rows(call: Call) -> int | None:
    """Number of output entries, where the framework tells without running f."""
    shapes = call.backend.output_shapes(lambda *xs: call.flat(*xs)[0] if call.has_aux else call.flat(*xs), call.xs)
    return None if shapes is None else sum(math.prod(shape) for shape in shapes)
