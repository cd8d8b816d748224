"""One row after the other: what `Backend.batch` is without a vmap of the framework."""

from collections.abc import Callable, Sequence
from typing import Any

from polyad.arrays import number_kind, stop_gradient, xp
from polyad.errors import ArgumentError

Arrays = tuple[Any, ...]

__all__ = ["loop", "of_no_rows"]


def loop(f: Callable[..., Any], has_shared: bool = False) -> Callable[..., Any]:
    """f over the leading axis of every argument, as `Backend.batch` says it.

    raises  ArgumentError where f returns other arrays for one row than for another
    """

    def batched(*xs: Any) -> Any:
        outs = [f(*(x[i] for x in xs)) for i in range(xs[0].shape[0])]
        if not outs:
            return of_no_rows(f, xs, has_shared)
        if not has_shared:
            return _stacked(outs)
        return _stacked([ys for ys, _ in outs]), _equal([shared for _, shared in outs])

    return batched


def of_no_rows(f: Callable[..., Any], xs: Arrays, has_shared: bool = False) -> Any:
    """The same for no rows: constants, whose shapes are those of what f returns for a row of ones."""
    out = f(*map(_some_row, xs))
    ys, shared = out if has_shared else (out, ())
    empty = tuple(xp.zeros_like(y)[None][:0] for y in ys)
    return (empty, shared) if has_shared else empty


def _stacked(rows: Sequence[Arrays]) -> Arrays:
    for i, row in enumerate(rows):
        before, now = ([tuple(y.shape) for y in ys] for ys in (rows[0], row))
        if before != now:
            raise ArgumentError(
                f"vmap: f returns arrays of shapes {', '.join(map(str, before))} for point 0 of a batch, and "
                f"{', '.join(map(str, now))} for point {i}; they must be the same for all"
            )
    return tuple(xp.stack(list(ys)) for ys in zip(*rows, strict=True))


def _equal(rows: Sequence[Arrays]) -> Arrays:
    first = [stop_gradient(y) for y in rows[0]]
    for row in rows:
        if not all(map(_same, first, row)):
            raise ValueError("not the same for each row")
    return rows[0]


def _same(first: Any, y: Any) -> bool:
    y = stop_gradient(y)
    if tuple(first.shape) != tuple(y.shape):
        return False
    return bool(xp.all((first == y) | ((first != first) & (y != y))))  # nan is the same as nan


def _some_row(x: Any) -> Any:
    row = xp.sum(x, axis=0)  # of no rows: its shape is what counts
    return xp.astype(xp.ones_like(row) if number_kind(x) == "floating" else xp.zeros_like(row), x.dtype)
