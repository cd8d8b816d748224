"""derivative: of any order, in one number."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from polyad.arrays import xp
from polyad.backends.base import Arrays, Backend, Function, push_by_pullbacks, with_aux
from polyad.errors import ArgumentError, PolyadError, UnsupportedError
from polyad.operators.by_jets import by_jets, taylor
from polyad.operators.call import Call
from polyad.operators.curry import curried
from polyad.operators.jacobian import jacobian
from polyad.operators.outer import forward_is_right
from polyad.operators.passes import Passes, nested
from polyad.operators.value import value_and
from polyad.plans import Plan, refuse_unknown

__all__ = ["derivative", "value_and_derivative"]


@curried
def derivative(
    f: Callable[..., Any],
    x: Any,
    order: int = 1,
    *,
    has_aux: bool = False,
    backend: str | Backend | None = None,
    mode: str = "auto",
    _kwargs: dict[str, Any] | None = None,
) -> Any:
    """The derivative of f in the number x, of any order.

    x        a floating array of shape () or a Python float; without it, a
             function of x is returned
    order    0 is f itself; from 2 on it is one Taylor series through f, whose time grows
             with its square. Where polyad's jets do not go through f, as through jnp.*,
             passes of the framework one around the other: 2^order times the cost of f
    mode     "auto"; "forward", "reverse" and "finite_difference" are passes one around
             the other always
    returns  the tree of f(x), leaf by leaf of its shape; unit [f]/[x]^order. With
             has_aux (derivative, aux)
    raises   ArgumentError for an order that is no whole number from 0 on, and
             for an x that is no single number; LeafError, BackendError
    source   Griewank & Walther (2008), ch. 13
    """
    call = Call("derivative", f, (x,), 0, backend, has_aux, _kwargs)
    _check(call, order)
    refuse_unknown(mode)
    by_series = order > 1 and mode == "auto"

    def sweep(passes: Passes, x: Any) -> tuple[Arrays, ...]:
        def by_passes() -> tuple[Arrays, ...]:
            return _derivatives(passes, mode, order, (x,))

        return by_jets(passes, lambda: taylor(passes, order, x), by_passes) if by_series else by_passes()

    dys, *aux = nested(call, sweep, first_order=False, mode="jets" if by_series else "gradient")
    return (call.outputs(dys), *map(call.aux, aux)) if has_aux else call.outputs(dys)


value_and_derivative = value_and(derivative)


def _check(call: Call, order: Any) -> None:
    if isinstance(order, bool) or not isinstance(order, int | np.integer) or order < 0:
        raise ArgumentError(
            f"derivative: order={order!r}; it is a whole number, 0 or more. Other arguments of f are passed "
            f"by a function of one: derivative(lambda x: f(x, y), x, order=2)"
        )
    if len(call.xs) != 1 or call.xs[0].shape != ():
        shapes = ", ".join(str(tuple(x.shape)) for x in call.xs) or "nothing"
        raise ArgumentError(
            f"derivative: x is {shapes}; it must be one number, of shape (). For a derivative in each entry ask for "
            f"jacobian(f, x), for one in each row of a batch for batched_jacobian(f, x)"
        )


def _derivatives(passes: Passes, mode: str, order: int, xs: Arrays) -> tuple[Arrays, ...]:
    """(dys,) or (dys, aux): one pass around the other, 2^order times the cost of f."""
    if mode != "auto":
        passes.plan = Plan(mode, 2**order - 1, "one pass around the other, asked for")
        out = _repeated(passes, _forward if mode == "forward" else functools.partial(_in_mode, mode), order)(*xs)
        return out if passes.call.has_aux else (out,)
    once_more = _pass(passes, order, xs)
    try:
        out = _repeated(passes, once_more, order)(*xs)
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        lacks_forward = isinstance(error, UnsupportedError) or not isinstance(error, PolyadError)
        if not lacks_forward or once_more is _reverse or "reverse" not in passes.backend.modes:
            raise
        try:  # a custom rule may have a reverse pass only
            out = _repeated(passes, _reverse, order)(*xs)
        except (NotImplementedError, RuntimeError, TypeError, ValueError):
            raise error from None
        passes.plan = Plan("reverse", 2**order - 1, "one pass around the other; f has no forward pass")
    return out if passes.call.has_aux else (out,)


def _repeated(passes: Passes, once_more: Callable[[Call, Function], Function], order: int) -> Function:
    f = passes.f
    for _ in range(order):
        f = once_more(passes.call, f)
    return f


def _pass(passes: Passes, order: int, xs: Arrays) -> Callable[[Call, Function], Function]:
    """Forward, unless f may have an operation for which a pass around a forward one is wrong."""
    call = passes.call
    if order == 1 and call.backend.push_mode() == "reverse":
        passes.plan = Plan("reverse", 2, "one direction")
        return _pulled_twice
    right = order == 0 or forward_is_right(call.backend, passes.f, xs, call.has_aux)
    passes.plan = Plan("forward" if right else "reverse", 2**order - 1, "one pass around the other")
    if right:
        return _forward
    if right is False and order > 2:
        raise UnsupportedError(
            f"derivative: f has an operation of which {call.backend.name} has wrong derivatives of order {order}. "
            f"Write it in single operations, as polyad.BatchNorm does"
        )
    return _reverse


def _forward(call: Call, f: Function) -> Function:
    return _along_one(call, functools.partial(with_aux(call.backend.pushforward, call.has_aux), f))


def _pulled_twice(call: Call, f: Function) -> Function:
    return _along_one(call, functools.partial(push_by_pullbacks, call.backend, f, has_aux=call.has_aux))


def _along_one(call: Call, push: Function) -> Function:
    """The derivative in the direction of ones that push gives, (xs, dxs) -> (ys, dys) or (ys, dys, aux)."""

    def pushed(*xs: Any) -> Any:
        _, dys, *aux = push(xs, tuple(map(xp.ones_like, xs)))
        return (dys, *aux) if call.has_aux else dys

    return pushed


def _in_mode(mode: str, call: Call, f: Function) -> Function:
    def derived(x: Any) -> Any:
        return jacobian(f, x, has_aux=call.has_aux, backend=call.backend, mode=mode)

    return derived


_reverse = functools.partial(_in_mode, "reverse")
