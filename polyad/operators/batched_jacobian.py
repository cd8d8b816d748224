"""batched_jacobian: one small Jacobian for each row of a batch."""

import math
from collections.abc import Callable
from typing import Any

from polyad.arrays import stop_gradient, xp
from polyad.backends.base import Arrays, Backend, joined
from polyad.backends.directions import at_once, basis, largest
from polyad.backends.purity import refuse_changed
from polyad.errors import ArgumentError, ModeError
from polyad.jets import Trail, pushforwards
from polyad.operators.by_jets import by_jets, compare, refuse_another, right
from polyad.operators.call import Call
from polyad.operators.curry import curried
from polyad.operators.outputs import remember, remembered
from polyad.operators.passes import Passes, expected_mode, in_some_mode, nested
from polyad.operators.rows import alone, apart, differs, probe, shaped, units, verified
from polyad.operators.value import value_and

__all__ = ["batched_jacobian", "value_and_batched_jacobian"]


@curried
def batched_jacobian(
    f: Callable[..., Any],
    *args: Any,
    argnums: int = 0,
    has_aux: bool = False,
    backend: str | Backend | None = None,
    mode: str = "auto",
    chunk_size: int | None = None,
    _kwargs: dict[str, Any] | None = None,
) -> Any:
    """Jacobian of each row of f(x) in the same row of x, all rows in one sweep.

    args        x = args[argnums], an array of shape (B, *in); the others as they are
    chunk_size  as in `jacobian`; a row or column here is one of all B rows together
    returns     shape (B, *out, *in) for f(x) of shape (B, *out); with has_aux
                (jacobian, aux)
    raises      RowsMixError where a row of f(x) depends on another row of x, as it
                does after BatchNorm in training mode. Nothing is evaluated for it
                where the framework's own program of f proves that rows do not mix.
                Else of 64 rows and more, seven are evaluated by themselves (under
                jit three of 16 and more); where they tell nothing, or disagree, one
                random combination of all rows is checked. Under jit, where the
                values cannot be looked at, the result is NaN instead.
    source      the row sums of Griewank & Walther (2008), section 8.2
    """
    call = Call("batched_jacobian", f, args, argnums, backend, has_aux, _kwargs, chunk_size)
    _one_array(call)
    (x,) = call.xs
    expected = expected_mode(call, mode, math.prod(x.shape[1:]), lambda entries: entries // max(x.shape[0], 1))
    jac, aux = nested(call, in_some_mode(call, mode, _sweep), mode=expected)
    return (jac[0], call.aux(aux)) if has_aux else jac[0]


value_and_batched_jacobian = value_and(batched_jacobian)


def _sweep(mode: str, passes: Passes, x: Any) -> tuple[Arrays, Arrays]:
    """((Jacobian,), aux)."""
    call = passes.call
    batch, inner = x.shape[0], math.prod(x.shape[1:])
    rows = None if passes.backend.compiles_here() else remembered(call.f, inner)
    if rows is None and (known := passes.output_rows((x,))) is not None:
        rows = known // max(batch, 1)
    plan = passes.choose(mode, inner, rows)
    if plan.mode == "finite_difference":
        raise ModeError("batched_jacobian: mode='finite_difference' has no batched form; use jacobian, or mode='auto'")
    if plan.mode == "reverse":
        ys, pull, aux = passes.pullback((x,))
        y = _one_output(call, ys, batch)
        better = passes.choose(mode, inner, math.prod(y.shape[1:]), ys).mode
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
    """The array that f has returned, which tells what the next plan of f begins with."""
    if len(ys) != 1 or not ys[0].ndim or ys[0].shape[0] != batch:
        shapes = ", ".join(str(tuple(y.shape)) for y in ys)
        raise ArgumentError(
            f"batched_jacobian: x has {batch} rows, f returned {shapes}; f must map (B, *in) to (B, *out). "
            f"Otherwise ask for jacobian"
        )
    remember(call.f, math.prod(call.xs[0].shape[1:]), math.prod(ys[0].shape[1:]))
    return ys[0]


def _by_rows(passes: Passes, pull: Any, x: Any, y: Any) -> Any:
    if not math.prod(y.shape[1:]):
        return _empty(x, y)
    batch, outer, inner = x.shape[0], math.prod(y.shape[1:]), math.prod(x.shape[1:])
    proved = passes.backend.rows_apart(pull, batch) or apart(passes, x)
    result = _pulled(passes, pull, x, y, last=proved)
    if proved:
        return result

    def product(rows: slice, weights: Any) -> Any:
        some = xp.reshape(stop_gradient(result)[rows], (weights.shape[0], outer, inner))
        return xp.matrix_transpose(some) @ xp.reshape(weights, (weights.shape[0], outer, 1))

    def differ() -> Any:
        weights = probe(passes.call, y)
        with passes.backend.untracked():
            expected = product(slice(None), weights)
            found = stop_gradient(pull((weights,))[0])
            return differs(expected - xp.reshape(found, (batch, inner, 1)), expected)

    return verified(passes.call, result, alone(passes, x, product, "reverse"), differ)


def _pulled(passes: Passes, pull: Any, x: Any, y: Any, last: bool) -> Any:
    """The Jacobian by its rows, (*y.shape, *in); last: pull is not called again."""
    backend, outer = passes.backend, math.prod(y.shape[1:])
    if outer == 1:
        ones = (xp.ones_like(y),)
        (found,) = backend.last_pull(pull, ones) if last else pull(ones)
        return shaped(found, (*y.shape, *x.shape[1:]))

    def pulled(start: Any, count: int) -> Arrays:
        rows: Arrays = backend.pullbacks(pull, (units(passes.call, y, start, count),))
        return rows

    step = passes.at_once(outer, largest(x, y))
    if step == 1 and backend.eager:
        found = [pull((unit,))[0] for unit in units(passes.call, y, 0, outer)]
        return shaped(xp.stack(found, axis=1), (*y.shape, *x.shape[1:]))
    (found,) = backend.chunked(pulled, outer, step)
    return shaped(xp.permute_dims(found, (1, 0, *range(2, found.ndim))), (*y.shape, *x.shape[1:]))


def _by_columns(passes: Passes, x: Any) -> tuple[Arrays, Arrays]:
    if not math.prod(x.shape[1:]):
        ys, aux = passes.evaluate((x,))
        return (_empty(x, _one_output(passes.call, ys, x.shape[0])),), aux
    if not passes.backend.pushed_by_jets:
        return _by_tangents(passes, x)
    return by_jets(passes, lambda: _by_jets(passes, x), lambda: _by_tangents(passes, x))


def _by_jets(passes: Passes, x: Any) -> tuple[Arrays, Arrays]:
    """The columns by polyad's jets, whose directions are the same in all rows."""
    inner = math.prod(x.shape[1:])
    step, found, aux = at_once(inner, largest(x), passes.call.chunk_size), [], ()
    start, y, trail = 0, x, Trail(x.shape[0])
    while start < inner:
        before = y
        unit = basis(passes.call.backend, x, start, min(step, inner - start), tuple(x.shape[1:]))
        unit = xp.reshape(unit, (unit.shape[0], 1, *x.shape[1:]))
        ys, dys, *rest = pushforwards(passes.f, (x,), (unit,), passes.call.has_aux, trail)
        y, aux = _one_output(passes.call, ys, x.shape[0]), rest[0] if rest else ()
        if start:
            refuse_another(passes.backend, y, before)
        found.append(dys[0])
        start += unit.shape[0]
        step = at_once(inner, largest(x, y), passes.call.chunk_size)
    columns = xp.concat(found) if len(found) > 1 else found[0]
    if not (trail.apart and right(passes, trail)):
        compare(passes, x, y, columns)
    jac = xp.permute_dims(columns, (*range(1, columns.ndim), 0))
    return (shaped(jac, (*y.shape, *x.shape[1:])),), aux


def _by_tangents(passes: Passes, x: Any) -> tuple[Arrays, Arrays]:
    """The columns by the framework's own forward pass."""
    batch, inner = x.shape[0], math.prod(x.shape[1:])
    step = passes.at_once(inner, largest(x))
    ys, dys, aux = passes.pushforwards((x,), (units(passes.call, x, 0, step),))
    y = _one_output(passes.call, ys, batch)
    outer = math.prod(y.shape[1:])
    if step < inner:
        step = passes.at_once(inner, largest(x, y))

        def pushed(start: Any, count: int) -> Arrays:
            again, more, _ = passes.pushforwards((x,), (units(passes.call, x, done + start, count),))
            refuse_changed(passes.backend, again, ys, "give a larger chunk_size")
            return more

        done = dys[0].shape[0]
        dys = joined([dys, passes.backend.chunked(pushed, inner - done, step)])
    (dys,) = dys
    jac = xp.permute_dims(shaped(dys, (inner, batch, outer)), (1, 2, 0))
    result = shaped(jac, (*y.shape, *x.shape[1:]))

    def product(rows: slice, weights: Any) -> Any:
        return stop_gradient(jac)[rows] @ xp.reshape(weights, (weights.shape[0], inner, 1))

    def differ() -> Any:
        weights = probe(passes.call, x)
        with passes.backend.untracked():
            expected = product(slice(None), weights)
            _, (moved,), _ = passes.pushforward((stop_gradient(x),), (weights,))
            return differs(expected - xp.reshape(stop_gradient(moved), (batch, outer, 1)), expected)

    if not apart(passes, x):
        result = verified(passes.call, result, alone(passes, x, product, "forward"), differ)
    if passes.backend.pushed_by_jets and passes.call.backend.concrete(xp.sum(x)):
        compare(passes, x, y, dys)  # jets have refused f: what they see, as no_grad(), the framework's push may not
    return (result,), aux


def _empty(x: Any, y: Any) -> Any:
    """The Jacobian of rows without entries."""
    return xp.reshape(xp.zeros_like(y)[:0], (*y.shape, *x.shape[1:]))
