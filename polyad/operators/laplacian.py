"""laplacian: the sum of the second derivatives of a field in its coordinates."""

import math
from collections.abc import Callable
from typing import Any

from polyad.backends.base import Arrays, Backend
from polyad.operators.by_jets import by_jets, forward_laplacian
from polyad.operators.curry import curried
from polyad.operators.curvature import curvatures
from polyad.operators.field import Field
from polyad.operators.passes import Passes, in_some_mode, nested
from polyad.operators.value import value_and

__all__ = ["laplacian", "value_and_laplacian"]


@curried
def laplacian(
    f: Callable[..., Any],
    *args: Any,
    argnums: int = 0,
    has_aux: bool = False,
    backend: str | Backend | None = None,
    mode: str = "auto",
    chunk_size: int | None = None,
    _kwargs: dict[str, Any] | None = None,
) -> Any:
    """Laplacian of the field f, at each point of a batch.

    args     x = args[argnums], an array of shape (B, *in): a point in each row,
             f(x) of shape (B, *out), rows independent. An x of shape (n,) or ()
             is one point, and f(x) has any shape; a batch of points on a line
             is (B, 1). The other arguments are constants
    mode     "auto": one forward Laplacian, polyad's own jets through f; where they
             do not go through f, as through jnp.* or an autograd.Function, two
             passes of the framework, and explain() says so. "reverse" and
             "forward" are always these two passes: gradients and a pass around
             them, a sweep for each output and coordinate; or two forward passes
    chunk_size  the most coordinates in one sweep, which bounds the memory of the
             pass; None: as many as fit
    returns  the sum over all coordinates in *in of the second derivative of each
             output: the shape of f(x); unit [f]/[x]^2. With has_aux
             (laplacian, aux): an f that returns (u, u) gives both from one call
    raises   RowsMixError where a row of f(x) depends on another row of x, as it
             does after BatchNorm in training mode; NaN instead under jit, where
             the values cannot be looked at. ArgumentError, LeafError, ModeError
    source   Li et al. (2023), Forward Laplacian; Griewank & Walther (2008), ch. 13
    """
    field = Field("laplacian", f, args, argnums, has_aux, backend, mode, _kwargs, chunk_size)

    def sweep(mode: str, passes: Passes, x: Any) -> tuple[Arrays, Arrays]:
        here, points = field.on(passes), field.batch(x)

        def by_passes() -> tuple[Any, Arrays]:
            return curvatures(here, mode, points)

        if mode != "auto" or not math.prod(points.shape):
            laps, aux = by_passes()
        else:
            laps, aux = by_jets(passes, lambda: forward_laplacian(here, points), by_passes)
        return (laps,), aux

    with field.naming_rows():
        kept = "jets" if mode == "auto" else "reverse"
        (laps,), aux = nested(field.call, in_some_mode(field.call, mode, sweep), first_order=False, mode=kept)
    return field.result(laps, aux)


value_and_laplacian = value_and(laplacian)
