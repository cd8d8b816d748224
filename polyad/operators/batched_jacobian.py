"""batched_jacobian: one small Jacobian for each row of a batch."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from polyad.arrays import dtype_name, xp
from polyad.backends.base import Arrays, Backend, basis
from polyad.errors import ArgumentError, ModeError, RowsMixError
from polyad.operators.call import Call
from polyad.operators.curry import curried
from polyad.operators.passes import EPSILON, Passes, in_some_mode, nested

__all__ = ["batched_jacobian"]


@curried
def batched_jacobian(
    f: Callable[..., Any],
    *args: Any,
    argnums: int = 0,
    has_aux: bool = False,
    backend: str | Backend | None = None,
    mode: str = "auto",
    _kwargs: dict[str, Any] | None = None,
) -> Any:
    """Jacobian of each row of f(x) in the same row of x, all rows in one sweep.

    args     x = args[argnums], an array of shape (B, *in); the others as they are
    returns  shape (B, *out, *in) for f(x) of shape (B, *out); with has_aux
             (jacobian, aux)
    raises   RowsMixError where a row of f(x) depends on another row of x, as it
             does after BatchNorm in training mode. One random combination of
             rows is checked in the same sweep. Under jit, where the values
             cannot be looked at, the result is NaN instead.
    source   the row sums of Griewank & Walther (2008), section 8.2
    """
    call = Call("batched_jacobian", f, args, argnums, backend, has_aux, _kwargs)
    _one_array(call)
    jac, aux = nested(call, in_some_mode(call, mode, _sweep))
    return (jac[0], call.aux(aux)) if has_aux else jac[0]


def _sweep(mode: str, passes: Passes, x: Any) -> tuple[Arrays, Arrays]:
    """((Jacobian,), aux)."""
    call = passes.call
    batch, inner = x.shape[0], math.prod(x.shape[1:])
    rows = passes.output_rows((x,))
    plan = passes.choose(mode, inner, None if rows is None else rows // max(batch, 1))
    if plan.mode == "finite_difference":
        raise ModeError("batched_jacobian: mode='finite_difference' has no batched form; use jacobian, or mode='auto'")
    if plan.mode == "reverse":
        ys, pull, aux = passes.pullback((x,))
        y = _one_output(call, ys, batch)
        better = passes.choose(mode, inner, math.prod(y.shape[1:])).mode
        if better == "reverse" or not passes.backend.forward_is_right(pull):
            return (_by_rows(passes, pull, x, y),), aux
    return _by_columns(passes, x)


def _one_array(call: Call) -> None:
    if len(call.xs) != 1 or not call.xs[0].ndim:
        raise ArgumentError(
            f"batched_jacobian: needs one array with a batch axis to differentiate; args[{call.argnums[0]}] has "
            f"{len(call.xs)} leaves. For trees ask for jacobian"
        )


def _one_output(call: Call, ys: Any, batch: int) -> Any:
    if len(ys) != 1 or not ys[0].ndim or ys[0].shape[0] != batch:
        shapes = ", ".join(str(tuple(y.shape)) for y in ys)
        raise ArgumentError(
            f"batched_jacobian: x has {batch} rows, f returned {shapes}; f must map (B, *in) to (B, *out). "
            f"Otherwise ask for jacobian"
        )
    return ys[0]


def _by_rows(passes: Passes, pull: Any, x: Any, y: Any) -> Any:
    call, probe = passes.call, _probe(passes.call, y)
    cotangents = xp.concat([_units(call, y), probe[None]])
    (rows,) = passes.backend.pullbacks(pull, (cotangents,))
    batch, outer, inner = x.shape[0], math.prod(y.shape[1:]), math.prod(x.shape[1:])
    jac = xp.permute_dims(xp.reshape(rows[:outer], (outer, batch, inner)), (1, 0, 2))
    expected = xp.matrix_transpose(jac) @ xp.reshape(probe, (y.shape[0], outer, 1))
    return _checked(call, xp.reshape(jac, (*y.shape, *x.shape[1:])), expected, rows[outer])


def _by_columns(passes: Passes, x: Any) -> tuple[Arrays, Arrays]:
    call, inner = passes.call, math.prod(x.shape[1:])
    probe = _probe(call, x)
    tangents = xp.concat([_units(call, x), probe[None]])
    ys, (dys,), aux = passes.pushforwards((x,), (tangents,))
    y = _one_output(call, ys, x.shape[0])
    outer = math.prod(y.shape[1:])
    jac = xp.permute_dims(xp.reshape(dys[:inner], (inner, y.shape[0], outer)), (1, 2, 0))
    expected = jac @ xp.reshape(probe, (x.shape[0], inner, 1))
    return (_checked(call, xp.reshape(jac, (*y.shape, *x.shape[1:])), expected, dys[inner]),), aux


def _units(call: Call, x: Any) -> Any:
    """The same unit (co)tangent in every row: shape (entries of a row, *x.shape)."""
    entries = math.prod(x.shape[1:])
    unit = basis(call.backend, x, 0, entries, tuple(x.shape[1:]))
    return xp.broadcast_to(xp.reshape(unit, (entries, 1, *x.shape[1:])), (entries, *x.shape))


def _probe(call: Call, x: Any) -> Any:
    """A different (co)tangent in every row."""
    return call.backend.asarray(_numbers(tuple(x.shape)), dtype_name(x.dtype), call.backend.device(x))


@functools.lru_cache(maxsize=32)
def _numbers(shape: tuple[int, ...]) -> np.ndarray:
    """Between 0.5 and 1.5, always the same: none is so small that another row could hide behind it."""
    values = np.random.Generator(np.random.Philox(0)).uniform(0.5, 1.5, shape)
    values.flags.writeable = False
    return values


def _checked(call: Call, jac: Any, expected: Any, found: Any) -> Any:
    """The Jacobian, if other rows add nothing to the product with the probe."""
    found = xp.reshape(found, tuple(expected.shape))
    if not math.prod(found.shape) or not math.prod(jac.shape):
        return jac
    gap = xp.max(xp.abs(expected - found))
    limit = EPSILON[dtype_name(jac.dtype)] ** 0.5 * xp.max(xp.abs(found))
    raise_if = gap > limit
    if not call.backend.concrete(raise_if):
        return jac * xp.where(raise_if, xp.nan, xp.ones_like(gap))  # where() on jac would make its gradient NaN
    if bool(raise_if):
        raise RowsMixError(
            "batched_jacobian: rows of f(x) depend on other rows of x, so one Jacobian a row does not say it all. "
            "A BatchNorm in training mode does this (polyad.test_mode(state) stops it). "
            "Otherwise ask for jacobian(f, x), which has shape (B, *out, B, *in)"
        )
    return jac
