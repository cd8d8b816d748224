"""jacobian and value_and_jacobian."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from polyad.arrays import xp
from polyad.backends.base import Arrays, Backend, basis, chunks
from polyad.operators.call import Call
from polyad.operators.curry import curried
from polyad.operators.passes import columns, output_rows, pullback
from polyad.plans import choose

__all__ = ["jacobian", "value_and_jacobian"]


@curried
def jacobian(
    f: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    backend: str | Backend | None = None,
    mode: str = "auto",
    _kwargs: dict[str, Any] | None = None,
) -> Any:
    """Jacobian of f: the derivative of every output entry in every input entry.

    args     pytrees of floating arrays; without any, a function of them is
             returned. argnums, has_aux, backend and mode as in `gradient`
    returns  for an array f and an array x, shape (*f(x).shape, *x.shape); for
             trees, the tree of f whose leaves are trees of args[argnums]
    raises   LeafError, BackendError, ModeError
    source   Griewank & Walther (2008), ch. 3
    """
    _, blocks, aux = _jacobian("jacobian", f, args, argnums, has_aux, backend, mode, _kwargs)
    return (blocks, *aux) if has_aux else blocks


@curried
def value_and_jacobian(
    f: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    backend: str | Backend | None = None,
    mode: str = "auto",
    _kwargs: dict[str, Any] | None = None,
) -> Any:
    """f(*args) and its Jacobian; otherwise as `jacobian`.

    returns  (value, jacobian), with has_aux ((value, aux), jacobian)
    """
    value, blocks, aux = _jacobian("value_and_jacobian", f, args, argnums, has_aux, backend, mode, _kwargs)
    return ((value, *aux), blocks) if has_aux else (value, blocks)


def _jacobian(
    operator: str, f: Any, args: Any, argnums: Any, has_aux: bool, backend: Any, mode: str, kwargs: Any
) -> tuple[Any, Any, tuple[Any, ...]]:
    call = Call(operator, f, args, argnums, backend, has_aux, kwargs)
    plan = choose(call.backend, mode, call.columns, output_rows(call))
    if plan.mode == "reverse" or not call.xs:
        ys, pull, aux = pullback(call)
        plan = choose(call.backend, mode, call.columns, sum(math.prod(y.shape) for y in ys))
        if plan.mode == "reverse" or not call.xs:
            rows = [_rows(call, ys, pull, i) for i in range(len(ys))]
            return call.outputs(ys), _as_trees(call, rows), tuple(call.aux(a) for a in aux)
        del pull  # its tape is not needed: the columns are fewer
    ys, by_input, aux = columns(call, plan.mode)
    rows = [tuple(_block(dys[i], y, x) for dys, x in zip(by_input, call.xs, strict=True)) for i, y in enumerate(ys)]
    return call.outputs(ys), _as_trees(call, rows), tuple(call.aux(a) for a in aux)


def _rows(call: Call, ys: Arrays, pull: Any, i: int) -> Arrays:
    """Blocks of output number i, by its rows: for each x (*y.shape, *x.shape)."""
    y, parts = ys[i], []
    for start, stop in chunks(y, (*ys, *call.xs)):
        unit = basis(call.backend, y, start, stop)
        parts.append(call.backend.pullbacks(pull, tuple(unit if j == i else None for j in range(len(ys)))))
    shapes = [(*y.shape, *x.shape) for x in call.xs]
    if not parts:
        return tuple(xp.reshape(xp.zeros_like(x)[None][:0], shape) for x, shape in zip(call.xs, shapes, strict=True))
    joined = (xp.concat(list(part)) if len(part) > 1 else part[0] for part in zip(*parts, strict=True))
    return tuple(xp.reshape(rows, shape) for rows, shape in zip(joined, shapes, strict=True))


def _block(dy: Any, y: Any, x: Any) -> Any:
    """Columns (x.size, *y.shape) as a block (*y.shape, *x.shape)."""
    return xp.reshape(xp.moveaxis(dy, 0, -1), (*y.shape, *x.shape))


def _as_trees(call: Call, rows: list[Arrays]) -> Any:
    return call.outputs([call.inputs(row) for row in rows])
