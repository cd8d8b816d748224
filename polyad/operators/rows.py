"""Whether the rows of a batch are independent: a few by themselves tell, or one random combination of all."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from polyad.arrays import EPSILON, dtype_name, stop_gradient, xp
from polyad.backends.directions import basis
from polyad.errors import RowsMixError
from polyad.operators.call import Call
from polyad.operators.passes import Passes

__all__ = ["agree", "alone", "apart", "checked", "differs", "probe", "refused", "shaped", "spread", "units", "verified"]


def units(call: Call, x: Any, start: Any, count: int) -> Any:
    """The same unit (co)tangent in every row, so many from number start on: shape (count, *x.shape)."""
    unit = basis(call.backend, x, start, count, tuple(x.shape[1:]))
    return xp.broadcast_to(xp.reshape(unit, (count, 1, *x.shape[1:])), (count, *x.shape))


def shaped(x: Any, shape: tuple[int, ...]) -> Any:
    """x of this shape, which it may have: a framework that records would record it."""
    return x if tuple(x.shape) == shape else xp.reshape(x, shape)


def probe(call: Call, x: Any) -> Any:
    """A different (co)tangent in every row."""
    return call.backend.asarray(_numbers(tuple(x.shape)), dtype_name(x.dtype), call.backend.device(x))


@functools.lru_cache(maxsize=32)
def _numbers(shape: tuple[int, ...]) -> np.ndarray:
    """Between 0.5 and 1.5, always the same: none is so small that another row could hide behind it."""
    values = np.random.Generator(np.random.Philox(0)).uniform(0.5, 1.5, shape)
    values.flags.writeable = False
    return values


def apart(passes: Passes, x: Any, f: Callable[[Any], Any] | None = None) -> bool:
    """Whether the framework proves that rows of f(x) do not mix, which leaves nothing to be looked at.

    f  None: that of the passes
    """
    call, known = passes.call, dict(vars(passes.call))
    try:
        return passes.backend.proves_rows_apart(f or (lambda x: passes.evaluate((x,))[0]), x)
    except Exception:  # a function that cannot be traced, as one that looks at values
        return False
    finally:
        vars(call).update(known)  # f has left there what it returned besides arrays


# Rows that are evaluated by themselves, by the least number of rows that they stand for. Prime
# numbers: what pairs or reshapes rows fails with them. Where values can be looked at, a product with
# all of so few rows as 16 costs less than an evaluation of three does.
MANY = 64
FEW = {MANY: 7, 16: 3}


def spread(n: int, few: int) -> slice:
    """So many of n rows, at equal distances."""
    step = n // few
    return slice(0, few * step, step)


def _few(call: Call, x: Any) -> int:
    """How many rows of x are evaluated by themselves; 0: none."""
    enough = [few for many, few in FEW.items() if x.shape[0] >= many]
    return enough[0] if enough and (enough[0] == FEW[MANY] or not call.backend.concrete(xp.sum(x))) else 0


def alone(passes: Passes, x: Any, product: Callable[[slice, Any], Any], mode: str) -> Any:
    """Whether a few rows of x have other Jacobians alone than they have among all of them.

    product  (rows, weights) -> what the pass gives for these weights if rows are independent
    mode     of the pass through the few rows: "forward" or "reverse"
    returns  an array of shape (); None where that cannot be told, as where rows are few or f
             holds an array with as many rows as x

    True means nothing yet: f may draw random numbers. It costs next to nothing,
    where asking all rows costs a pass.
    """
    few_rows = _few(passes.call, x)
    if not few_rows:
        return None
    call, known = passes.call, dict(vars(passes.call))
    rows = spread(x.shape[0], few_rows)
    few = stop_gradient(x)[rows]
    try:
        with passes.backend.untracked():
            if mode == "forward":
                weights = probe(call, few)
                _, (found,), _ = passes.pushforward((few,), (weights,))
            else:
                (y,), pull, _ = passes.pullback((few,))
                weights = probe(call, y)
                (found,) = pull((weights,))
            expected = product(rows, weights)
            return differs(expected - xp.reshape(stop_gradient(found), tuple(expected.shape)), expected)
    except Exception:  # whatever f raises for so few rows
        return None
    finally:
        vars(call).update(known)  # f has left there what it returned besides arrays


def agree(call: Call, differ: Any) -> bool:
    """Whether what alone() returned is seen to be false."""
    return differ is not None and call.backend.concrete(differ) and not bool(differ)


def differs(gap: Any, expected: Any) -> Any:
    """Whether the gap between what was expected and what was found is more than rounding, as an array of shape ().

    Where one of the two is infinite or NaN nothing is known, which says nothing of the other entries.
    """
    known, zero = xp.isfinite(gap), xp.zeros_like(gap)
    found = xp.max(xp.abs(xp.where(known, expected - gap, zero)))
    return xp.max(xp.abs(xp.where(known, gap, zero))) > EPSILON[dtype_name(gap.dtype)] ** 0.5 * found


def verified(call: Call, result: Any, suspected: Any, differ: Callable[[], Any]) -> Any:
    """The result, if its rows are not mixed.

    suspected  what `alone` says of a few rows
    differ     tells the same of all rows, for a pass; asked where the few do not settle it
    raises     as `refused`
    """
    if agree(call, suspected) or not math.prod(result.shape):
        return result
    if suspected is None or call.backend.concrete(suspected):
        return refused(call, result, differ())
    return refused(call, result, call.backend.both(suspected, differ))


def checked(call: Call, result: Any, gap: Any, expected: Any) -> Any:
    """The result, if the gap between what rows give one by one and what was found is rounding.

    raises  RowsMixError; the result is NaN where values cannot be looked at
    """
    if not math.prod(gap.shape) or not math.prod(result.shape):
        return result
    return refused(call, result, differs(gap, expected))


def refused(call: Call, result: Any, mixed: Any) -> Any:
    """The result, if its rows are not mixed, as checked() says it."""
    if not call.backend.concrete(mixed):
        ones = xp.ones_like(xp.max(result))
        return result * xp.where(mixed, xp.nan, ones)  # where() on the result would make its gradient NaN
    if bool(mixed):
        raise RowsMixError(
            "batched_jacobian: rows of f(x) depend on other rows of x, so one Jacobian a row does not say it all. "
            "A BatchNorm in training mode does this (polyad.test_mode(state) stops it). "
            "Otherwise ask for jacobian(f, x), which has shape (B, *out, B, *in)"
        )
    return result
