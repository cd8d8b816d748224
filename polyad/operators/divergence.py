"""divergence: the trace of the Jacobian of a vector field."""

from collections.abc import Callable
from typing import Any

from polyad.backends.base import Arrays, Backend
from polyad.errors import ArgumentError
from polyad.operators.batched_jacobian import batched_jacobian
from polyad.operators.call import Call
from polyad.operators.curry import curried
from polyad.operators.field import Field, trace
from polyad.operators.value import value_and

__all__ = ["divergence", "value_and_divergence"]


@curried
def divergence(
    f: Callable[..., Any],
    *args: Any,
    argnums: int = 0,
    has_aux: bool = False,
    backend: str | Backend | None = None,
    mode: str = "auto",
    chunk_size: int | None = None,
    _kwargs: dict[str, Any] | None = None,
) -> Any:
    """Divergence of the vector field f, at each point of a batch, exactly.

    args     x = args[argnums], an array of shape (B, *in): a point in each row,
             f(x) of the same shape, rows independent. An x of shape (n,) or ()
             is one point. The other arguments are constants
    chunk_size  as in `batched_jacobian`
    returns  shape (B,), for one point (); unit [f]/[x]. With has_aux
             (divergence, aux)
    raises   RowsMixError where a row of f(x) depends on another row of x, as it
             does after BatchNorm in training mode; NaN instead under jit, where
             the values cannot be looked at. ArgumentError, LeafError, ModeError
    source   for an estimate from few directions, Hutchinson (1990): a jvp with
             random signs v, times v
    """
    field = Field("divergence", f, args, argnums, has_aux, backend, mode, _kwargs, chunk_size)
    field.call.check_outputs = _same_shape
    with field.naming_rows():
        jac, aux = batched_jacobian(
            field.evaluate, field.x, has_aux=True, backend=field.call.backend, mode=mode, chunk_size=chunk_size
        )
    return field.result(trace(jac, field.x.ndim - 1), aux)


value_and_divergence = value_and(divergence)


def _same_shape(call: Call, xs: Arrays, ys: Arrays) -> None:
    shape, found = tuple(xs[0].shape), [tuple(y.shape) for y in ys]
    if found != [shape]:
        raise ArgumentError(
            f"divergence: x has shape {shape}, f returned {', '.join(map(str, found)) or 'nothing'}; a vector field "
            f"has as many components as coordinates. Otherwise ask for batched_jacobian(f, x)"
        )
