"""hessian: the matrix of second derivatives."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from polyad.backends.base import Arrays, Backend
from polyad.operators.call import Call
from polyad.operators.curry import curried
from polyad.operators.jacobian import jacobian
from polyad.operators.outer import outer_mode
from polyad.operators.passes import in_some_mode
from polyad.operators.value import value_and

__all__ = ["hessian", "value_and_hessian"]


@curried
def hessian(
    f: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    backend: str | Backend | None = None,
    mode: str = "auto",
    chunk_size: int | None = None,
    _kwargs: dict[str, Any] | None = None,
) -> Any:
    """Second derivatives of f: the Jacobian of its Jacobian.

    args        pytrees of floating arrays; without any, a function of them is
                returned. argnums, has_aux and backend as in `gradient`
    mode        of both passes; "auto": a reverse pass, and around it the one that
                was measured to be faster on the backend
    chunk_size  of both passes, as in `jacobian`
    returns     for an array f and an array x, shape (*f(x).shape, *x.shape,
                *x.shape); for trees, the tree of f whose leaves are trees of
                args[argnums] whose leaves are trees of args[argnums]; unit
                [f]/[x]^2. Symmetric up to rounding, which nothing is done about
    raises      ArgumentError, LeafError, BackendError, ModeError
    source      Griewank & Walther (2008), ch. 5
    """
    call = Call("hessian", f, args, argnums, backend, has_aux, _kwargs, chunk_size)
    rows, *aux = in_some_mode(call, mode, functools.partial(_blocks, call))(*call.xs)
    tree = call.outputs([call.inputs([call.inputs(columns) for columns in row]) for row in rows])
    return (tree, *map(call.aux, aux)) if has_aux else tree


value_and_hessian = value_and(hessian)


def _blocks(call: Call, mode: str, *xs: Any) -> tuple[Any, ...]:
    """(blocks,) or (blocks, aux): for each y and two of the xs, shape (*y.shape, *x.shape, *x.shape)."""
    options: dict[str, Any] = {"has_aux": call.has_aux, "backend": call.backend, "chunk_size": call.chunk_size}

    def first(xs: Arrays) -> Any:
        return jacobian(lambda xs: call.flat(*xs), xs, mode=mode, **options)

    outer = outer_mode(call, call.columns, xs) if mode == "auto" else mode
    blocks = jacobian(first, xs, mode=outer, **options)
    return blocks if call.has_aux else (blocks,)
