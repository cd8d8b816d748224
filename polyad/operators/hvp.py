"""hvp: the Hessian times a vector, without the Hessian."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from polyad.backends.base import Arrays, Backend, with_aux
from polyad.operators.call import Call
from polyad.operators.curry import curried
from polyad.operators.gradient import _one_number, gradient
from polyad.operators.outer import outer_mode
from polyad.operators.passes import in_some_mode
from polyad.operators.products import along, jvp
from polyad.operators.value import value_and
from polyad.plans import refuse_unknown

__all__ = ["hvp", "value_and_hvp"]


@curried
def hvp(
    f: Callable[..., Any],
    primals: Sequence[Any],
    tangents: Sequence[Any],
    *,
    has_aux: bool = False,
    backend: str | Backend | None = None,
    mode: str = "auto",
    _kwargs: dict[str, Any] | None = None,
) -> Any:
    """The Hessian of the scalar function f at the primals, times the tangents.

    primals   a tuple of pytrees of floating arrays; without primals and tangents,
              a function of them is returned
    tangents  a tuple of the same trees and shapes. None in place of a tree: this
              argument is a constant, and its place in the result is None
    mode      of both passes; "auto": a reverse pass, and around it the one that was
              measured to be faster on the backend
    returns   the product: a tree like the primal if there is one, else a tuple
              with a tree for each, all mixed derivatives included; unit
              [f] [v]/[x]^2. With has_aux (product, aux). Differentiable in
              primals, in tangents and in what f captures
    raises    NotScalarError, ArgumentError, LeafError, BackendError, ModeError
    source    Pearlmutter (1994); Dagreou et al. (2024), "How to compute
              Hessian-vector products?"
    """
    call, moving, dxs = along("hvp", f, primals, tangents, backend, has_aux, _kwargs)
    refuse_unknown(mode)
    call.check_outputs = _one_number
    products, *aux = in_some_mode(call, mode, functools.partial(_product, call, dxs))(*call.xs)
    found = dict(zip(moving, call.inputs(products), strict=True))
    result = tuple(found.get(i) for i in range(len(primals)))
    tree = result[0] if len(primals) == 1 else result
    return (tree, *map(call.aux, aux)) if has_aux else tree


value_and_hvp = value_and(hvp)


def _product(call: Call, dxs: Arrays, mode: str, *xs: Any) -> tuple[Arrays, ...]:
    """(products,) or (products, aux)."""

    def first(*xs: Any) -> Any:
        return gradient(_scalar(call), xs, has_aux=call.has_aux, backend=call.backend, mode=mode)

    outer = outer_mode(call, 1, xs) if mode == "auto" else mode
    if not xs:
        grads = first(*xs)
        return grads if call.has_aux else (grads,)
    if outer == "finite_difference":
        return _differences(call, first, xs, dxs)
    if outer == "forward" or "reverse" not in call.backend.modes:
        _, products, *aux = with_aux(call.backend.pushforward, call.has_aux)(first, xs, dxs)
        return (products, *aux)
    # The Hessian is symmetric: its pullback is its pushforward.
    _, pull, *aux = with_aux(call.backend.pullback, call.has_aux)(first, xs)
    return (pull(dxs), *aux)


def _differences(call: Call, first: Callable[..., Any], xs: Arrays, dxs: Arrays) -> tuple[Arrays, ...]:
    options: dict[str, Any] = {"has_aux": call.has_aux, "backend": call.backend, "mode": "finite_difference"}
    _, *products = jvp(first, xs, dxs, **options)
    return tuple(products)


def _scalar(call: Call) -> Callable[..., Any]:
    """The one number that f returns, of a tuple of leaves; with has_aux (number, aux)."""

    def scalar(xs: Arrays) -> Any:
        (y,), aux = call.evaluate(xs)
        return (y, aux) if call.has_aux else y

    return scalar
