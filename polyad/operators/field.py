"""A field: a function of points, of one point or of a batch with a point in each row."""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from polyad.arrays import xp
from polyad.backends.base import Arrays, Backend
from polyad.errors import ArgumentError, ModeError, RowsMixError
from polyad.operators.call import Call
from polyad.operators.passes import Passes

__all__ = ["Field", "trace"]


class Field:
    """f of a Call, as a function of a batch of points.

    x      shape (B, *in). One point, x of shape (n,) or (), is a batch of one,
           so that a (B,) of numbers counts as one point of B coordinates
    point  whether it was one
    raises ArgumentError where f(x) of a batch has no row for each row of x
    """

    def __init__(
        self,
        operator: str,
        f: Callable[..., Any],
        args: tuple[Any, ...],
        argnums: int | Sequence[int],
        has_aux: bool,
        backend: str | Backend | None,
        mode: str,
        kwargs: dict[str, Any] | None,
        chunk_size: int | None = None,
    ) -> None:
        self.call = Call(operator, f, args, argnums, backend, has_aux, kwargs, chunk_size)
        self.mode = mode
        if mode == "finite_difference":
            raise ModeError(f"{operator}: mode='finite_difference' has no batched form; use hessian, or mode='auto'")
        if len(self.call.xs) != 1:
            raise ArgumentError(
                f"{operator}: needs one array of points; args[{self.call.argnums[0]}] has {len(self.call.xs)} leaves"
            )
        (x,) = self.call.xs
        self.point = x.ndim <= 1
        self.x = self.batch(x)
        self.call.check_outputs = self._check
        self.passes = Passes(self.call, self.call.backend, self.call.flat)

    @property
    def backend(self) -> Any:
        """The backend that runs the passes."""
        return self.passes.backend

    def on(self, passes: Passes) -> "Field":
        """The same field on the passes that the switching rule gives."""
        field = copy.copy(self)
        field.passes = passes
        return field

    def batch(self, x: Any) -> Any:
        """The points x of a call as a batch."""
        return x[None] if self.point else x

    def flat(self, x: Any) -> Any:
        """(B, *in) to the tuple of one (B, *out); with has_aux ((y,), aux)."""
        y, aux = self.evaluate(x)
        return ((y,), aux) if self.call.has_aux else (y,)

    def evaluate(self, x: Any) -> tuple[Any, Arrays]:
        """(y, aux); aux is empty without has_aux."""
        (y,), aux = self.passes.evaluate((x[0] if self.point else x,))
        return self.batch(y), aux

    @contextlib.contextmanager
    def naming_rows(self) -> Iterator[None]:
        """A RowsMixError from within, as one of this operator."""
        try:
            yield
        except RowsMixError:
            raise RowsMixError(
                f"{self.call.operator}: rows of f(x) depend on other rows of x, so there is no derivative of a row in "
                f"its own point alone. A BatchNorm in training mode does this (polyad.test_mode(state) stops it). "
                f"Otherwise ask for hessian(f, x) or jacobian(f, x), which hold every row"
            ) from None

    def result(self, y: Any, aux: Arrays) -> Any:
        """What the operator returns for the rows y."""
        y = y[0] if self.point else y
        return (y, self.call.aux(aux)) if self.call.has_aux else y

    def _check(self, call: Call, xs: Arrays, ys: Arrays) -> None:
        x, shapes = xs[0], [tuple(y.shape) for y in ys]
        if len(ys) == 1 and (self.point or (shapes[0] and shapes[0][0] == x.shape[0])):
            return
        found = ", ".join(map(str, shapes)) or "nothing"
        raise ArgumentError(
            f"{call.operator}: x has shape {tuple(x.shape)}, f returned {found}; f must map a batch (B, *in) to one "
            f"array (B, *out), row by row and without a sum over rows. One point is an x of shape (n,)"
        )


def trace(matrix: Any, axes: int) -> Any:
    """Sum of the diagonal of a matrix whose rows are so many of the last axes, and whose columns are as many."""
    rest = tuple(matrix.shape[: matrix.ndim - 2 * axes])
    n = math.prod(matrix.shape[matrix.ndim - axes :])
    return xp.sum(xp.reshape(matrix, (*rest, n * n))[..., :: n + 1], axis=-1)
