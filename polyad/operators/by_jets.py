"""Derivatives of higher order by one pass of polyad's jets, where jets may go through f.

A function of the framework that has no rule refuses a jet, and then the passes
of the framework are right. A few let it through and mean something else: a
custom rule of torch (autograd.Function), no_grad(), a kink where conventions
differ. So the first derivative, which every pass of jets has, is compared with
the framework's own, in a pullback on constants, which sees rows of a batch that
mix too: a pullback of a few rows by themselves, of all where those do not agree.
Nothing is compared where the trail of the jets says that they met functions of
polyad alone, none of which mixes rows, and no other function could have taken them.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from polyad.arrays import stop_gradient, xp
from polyad.backends.base import Arrays, Backend, Function, Pull, with_aux
from polyad.backends.directions import basis
from polyad.backends.purity import refuse_changed
from polyad.errors import ImpureFunctionError, PolyadError, RowsMixError, UnsupportedError
from polyad.jets import Trail, laplacians, pushforwards, series
from polyad.operators.curvature import steps
from polyad.operators.field import Field
from polyad.operators.passes import Passes
from polyad.operators.rows import agree, alone, apart, differs, probe, refused, verified
from polyad.plans import Plan

__all__ = ["by_jets", "columns", "compare", "forward_laplacian", "refuse_another", "right", "taylor"]


class _NotByJetsError(UnsupportedError):
    """What the framework has to do itself."""


class _ChangedError(ImpureFunctionError):
    """Two sweeps were of two functions, which no other pass makes one."""


def by_jets(passes: Passes, jets: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
    """jets(), or otherwise() where jets may not go through f; the plan says which and why."""
    try:
        return jets()
    except (_ChangedError, RowsMixError):
        raise
    except Exception as error:  # f is a stranger: whatever it does with a jet, its own words come from the other pass
        why = _short(error)
    result = otherwise()
    if passes.plan is not None:
        passes.plan = replace(passes.plan, why=f"{passes.plan.why}; jets do not go through f ({why})")
    return result


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()).split(". ")[0]
    text = text if len(text) <= 100 else f"{text[:97]}..."
    return text if isinstance(error, PolyadError) else f"{type(error).__name__}: {text}"


# The forward Laplacian.


def forward_laplacian(field: Field, x: Any) -> tuple[Any, Arrays]:
    """(the sum of second derivatives over the coordinates of a row, aux), each direction the same in all rows."""
    total, slopes, aux = None, [], ()
    y: Any = None
    trail = Trail(x.shape[0])
    chunks = list(steps(field, x))
    for start, stop in chunks:
        unit = basis(field.backend, x, start, stop - start, tuple(x.shape[1:]))
        unit = xp.reshape(unit, (stop - start, 1, *x.shape[1:]))
        before = y
        (y,), (dy,), (lap,), *rest = laplacians(field.flat, (x,), (unit,), field.call.has_aux, trail)
        if before is not None:
            refuse_another(field.backend, y, before)
        total = lap if total is None else total + lap
        slopes.append(stop_gradient(dy))
        aux = rest[0] if rest else ()
    why = f"{len(chunks)} forward Laplacian{'s' * (len(chunks) != 1)} through f"
    field.passes.plan = Plan("jets", len(chunks), why)
    if trail.apart and right(field.passes, trail):
        return total, aux
    with field.backend.untracked():
        dys = xp.concat(slopes, axis=0) if len(slopes) > 1 else slopes[0]
    return _checked_rows(field, x, y, dys, total), aux


def refuse_another(backend: Any, y: Any, before: Any) -> None:
    """Raise where the second sweep of jets was of another function, which by_jets() does not take for a reason."""
    try:
        refuse_changed(backend, (y,), (before,), "give a larger chunk_size")
    except ImpureFunctionError as error:
        raise _ChangedError(*error.args) from None


def _checked_rows(field: Field, x: Any, y: Any, dys: Any, laps: Any) -> Any:
    """laps, where the derivatives dys of each row in its own point, shape (k, B, *out), are all that there are."""
    if not math.prod(y.shape):
        return laps
    if not field.backend.lets_jets_through and apart(field.passes, x, lambda x: field.evaluate(x)[0]):
        return laps  # nor has a jet gone through anything that is not polyad's own
    reverse = _has_reverse(field.passes)
    suspected = _few_rows(field, x, dys, "reverse" if reverse else "forward")
    if agree(field.call, suspected):
        return laps
    hidden = suspected is not None and not field.backend.concrete(suspected)
    if reverse:
        differ = suspected if hidden else _pulled_rows(field, x, y, dys)
        if _settled(field.passes, differ):
            return laps
        if field.backend.tracing():
            return refused(field.call, laps, differ)
    return verified(field.call, laps, suspected, lambda: _pushed_rows(field, x, dys))


def _few_rows(field: Field, x: Any, dys: Any, mode: str) -> Any:
    """What alone() says of the derivatives dys."""
    if mode == "reverse":
        return alone(field.passes, x, lambda rows, weights: _combined(dys[:, rows], weights), mode)
    return alone(field.passes, x, lambda rows, weights: _moved(dys[:, rows], weights), mode)


def _combined(dys: Any, weights: Any) -> Any:
    """What a pullback of these weights of y gives, shape (B, coordinates), if rows are independent."""
    return xp.permute_dims(xp.sum(xp.reshape(dys * weights, (*dys.shape[:2], -1)), axis=2), (1, 0))


def _moved(dys: Any, weights: Any) -> Any:
    """What a push along these weights of x gives, shape (B, *out), if rows are independent."""
    along = xp.permute_dims(xp.reshape(weights, (weights.shape[0], -1)), (1, 0))
    return xp.sum(xp.reshape(along, (*along.shape, *(1,) * (dys.ndim - 2))) * dys, axis=0)


def right(passes: Passes, trail: Trail) -> bool:
    """Whether the trail says that the jets have the framework's derivative, or nothing else knows it."""
    return not _has_reverse(passes) or (trail.own and passes.backend.refuses_jets())


def compare(passes: Passes, x: Any, y: Any, dys: Any) -> None:
    """Take dys, shape (k, *y.shape), for the derivatives of each row of y in the k entries of its row of x.

    raises  UnsupportedError, for by_jets(), unless the framework's own pullback says the same of these rows
    """
    call = passes.call
    if not math.prod(y.shape) or agree(call, alone(passes, x, lambda r, w: _combined(dys[:, r], w), "reverse")):
        return
    weights = probe(call, y)
    with passes.backend.untracked():
        expected = _combined(dys, weights)
        found = _pulled(passes, passes.f, stop_gradient(x), weights)
        if not _settled(passes, differs(expected - xp.reshape(found, tuple(expected.shape)), expected)):
            raise _NotByJetsError("its values cannot be compared")


def _pulled_rows(field: Field, x: Any, y: Any, dys: Any) -> Any:
    """Whether the framework's own pullback of all rows is another one than dys say."""
    weights = probe(field.call, y)
    with field.backend.untracked():
        expected = _combined(dys, weights)
        found = _pulled(field.passes, field.flat, stop_gradient(x), weights)
        return differs(expected - xp.reshape(found, tuple(expected.shape)), expected)


def _pushed_rows(field: Field, x: Any, dys: Any) -> Any:
    """Whether a push of jets that moves all rows, each in a direction of its own, gives something else than dys."""
    weights = probe(field.call, x)
    with field.backend.untracked():
        expected = _moved(dys, weights)
        return differs(expected - _pushed(field.passes, field.flat, stop_gradient(x), weights), expected)


# The columns of a whole Jacobian.


class _PushedByJets:
    """A backend that pushes many directions by jets."""

    columns = Backend.columns
    pushforwards = staticmethod(pushforwards)

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)


def columns(passes: Passes, xs: Arrays, pull: Pull, jets: bool) -> tuple[Arrays, list[Arrays], Arrays]:
    """(ys, Jacobian by columns, aux) by a forward mode, as Passes.columns has them.

    pull    the framework's own pullback, which says what random weights of the columns are
    jets    by them, else by the framework, whose forward mode may not see what its tape does, as no_grad()
    raises  UnsupportedError, for by_jets() and in_some_mode(), where the pullback says something else
    """
    pushing = Passes(passes.call, _PushedByJets(passes.backend), passes.f) if jets else passes
    ys, by_input, aux = pushing.columns(xs, "forward")
    weights = tuple(probe(passes.call, y) for y in ys)
    with passes.backend.untracked():
        for grad, dys in zip(pull(weights), by_input, strict=True):
            parts = [
                xp.sum(xp.reshape(stop_gradient(dy) * weight, (dy.shape[0], -1)), axis=1)
                for dy, weight in zip(dys, weights, strict=True)
                if math.prod(dy.shape)
            ]
            if parts:
                expected = xp.reshape(stop_gradient(grad), (-1,))
                told = sum(parts[1:], parts[0])
                told = told if told.dtype == expected.dtype else xp.astype(told, expected.dtype)
                differ = differs(expected - told, expected)
                if (jets or passes.backend.concrete(differ)) and not _settled(passes, differ):
                    raise _NotByJetsError("its values cannot be compared")
    return ys, by_input, aux


# Taylor series.


def taylor(passes: Passes, order: int, x: Any) -> tuple[Arrays, ...]:
    """(the derivatives of this order in the number x,) or (..., aux)."""
    has_aux = passes.call.has_aux
    line = ((xp.ones_like(x), *(None,) * (order - 1)),)
    trail = Trail()
    ys, coefficients, *aux = series(passes.f, (x,), line, has_aux, trail)
    passes.plan = Plan("jets", 1, f"one Taylor series of order {order} through f")
    last = tuple(c[-1] for c in coefficients)
    moving = [i for i, y in enumerate(ys) if math.prod(y.shape)]
    if moving and not right(passes, trail):
        weights = tuple(probe(passes.call, y) for y in ys)
        with passes.backend.untracked():
            found = _pulled(passes, passes.f, stop_gradient(x), *weights)
            expected = sum(xp.sum(weights[i] * stop_gradient(coefficients[i][0])) for i in moving)
            differ = differs(expected - found, expected)
        if not _settled(passes, differ) and passes.backend.tracing():
            last = tuple(refused(passes.call, c, differ) if math.prod(c.shape) else c for c in last)
    return (tuple(math.factorial(order) * c for c in last), *aux)


# The framework's own first derivative.


def _has_reverse(passes: Passes) -> bool:
    """Whether the framework has a pullback of its own: jets alone say nothing about jets."""
    return "reverse" in passes.backend.modes and passes.backend.over is None


def _settled(passes: Passes, differ: Any) -> bool:
    """Whether the values could be looked at, and agree.

    raises  _NotByJetsError where they do not, and where a framework whose functions
            let jets through does not show them, but for a trace, where the result is
            NaN if they differ
    """
    if passes.backend.concrete(differ):
        if bool(differ):
            raise _NotByJetsError(f"its first derivative is another one on {passes.backend.name}, or rows mix")
        return True
    if passes.backend.lets_jets_through and not passes.backend.tracing():
        raise _NotByJetsError("inside of a vmap its values cannot be compared")
    return False


def _pulled(passes: Passes, f: Function, x: Any, *cotangents: Any) -> Any:
    _, pull, *_ = with_aux(passes.backend.pullback, passes.call.has_aux)(f, (x,))
    return stop_gradient(pull(cotangents)[0])


def _pushed(passes: Passes, f: Function, x: Any, direction: Any) -> Any:
    _, (dy,), *_ = pushforwards(f, (x,), (direction[None],), passes.call.has_aux)
    return stop_gradient(dy[0])
