"""vmap through jets: the framework's own over the parts of the jets.

A jet of many rows is one of each row: the parts of the shape of its primal have their rows
along the first axis, and its tangent along the second one, behind the directions.
"""

from collections.abc import Callable, Sequence
from typing import Any

from polyad.arrays import xp
from polyad.jets.jet import make
from polyad.jets.kind import Level, Parts
from polyad.jets.rule import moves

__all__ = ["batch"]


def batch(levels: Sequence[Level], below: Callable[..., Any], f: Callable[..., Any], has_shared: bool = False) -> Any:
    """f over a leading axis of every argument, where jets of these levels may be anywhere.

    levels      the running ones, rising
    below       the framework's own `batch`, on its own arrays
    has_shared  f returns (ys, shared) with a second tuple, of what is the same for each row
    """
    if not levels:
        return below(f, has_shared) if has_shared else below(f)
    *lower, level = levels
    level.trail.lost()

    def batched(*xs: Any) -> Any:
        made: list[list[tuple[bool, ...]]] = []

        def of_parts(*parts: Any) -> Any:
            out = f(*_jets(level, kinds, parts))
            groups = out if has_shared else (out,)
            made[:] = [[_kind(level, y) for y in ys] for ys in groups]
            flat = tuple(tuple(part for y in ys for part in _parts(level, y)) for ys in groups)
            return flat if has_shared else flat[0]

        kinds = [_kind(level, x) for x in xs]
        rows = [part for x, kind in zip(xs, kinds, strict=True) for part in _rows_first(kind, _parts(level, x))]
        out = batch(lower, below, of_parts, has_shared)(*rows)
        if not has_shared:
            return _rows(level, made[0], out)
        return _rows(level, made[0], out[0]), tuple(_jets(level, made[1], out[1]))

    return batched


def _kind(level: Level, x: Any) -> tuple[bool, ...]:
    """Of a jet of this level which of its parts are not zero, the tangent first; () of anything else."""
    if not moves(level, x):
        return ()
    return tuple(part is not None for part in (x.compact, *x.plain))


def _parts(level: Level, x: Any) -> Parts:
    """The primal, and those that are not zero."""
    if not _kind(level, x):
        return (x,)
    return (x.primal, *(part for part in (x.compact, *x.plain) if part is not None))


def _jets(level: Level, kinds: Sequence[tuple[bool, ...]], parts: Sequence[Any]) -> list[Any]:
    rest = iter(parts)
    jets = []
    for kind in kinds:
        primal = next(rest)
        tangent, *plain = [next(rest) if there else None for there in kind] or [None]
        jets.append(make(level, primal, tangent, tuple(plain)) if kind else primal)
    return jets


def _rows_first(kind: tuple[bool, ...], parts: Parts) -> Parts:
    """The parts, of which the tangent has its rows along the first axis, all of them."""
    if not any(kind[:1]):
        return parts
    primal, tangent, *plain = parts
    if tangent.shape[1] != primal.shape[0]:
        tangent = xp.broadcast_to(tangent, (tangent.shape[0], primal.shape[0], *tangent.shape[2:]))
    return (primal, xp.moveaxis(tangent, 1, 0), *plain)


def _rows(level: Level, kinds: Sequence[tuple[bool, ...]], parts: Sequence[Any]) -> tuple[Any, ...]:
    """Jets of all rows, of parts that have their rows along the first axis."""
    rest = list(parts)
    place = 0
    for kind in kinds:
        if any(kind[:1]):
            rest[place + 1] = xp.moveaxis(rest[place + 1], 0, 1)
        place += 1 + sum(kind)
    return tuple(_jets(level, kinds, rest))
