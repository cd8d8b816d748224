"""Jacobians at points that f captures and that do not depend on each other: that of one point, at all of them."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from polyad.arrays import EPSILON, dtype_name, stop_gradient, xp
from polyad.backends.base import Array, Arrays, Function, Points, Pull
from polyad.backends.directions import refuse_too_large
from polyad.errors import TooLargeError
from polyad.operators.passes import Passes, captured
from polyad.operators.rows import probe

__all__ = ["by_points", "by_trial"]

Blocks = Callable[[Passes, Arrays, Arrays, Pull], Arrays]


def by_points(
    passes: Passes, mode: str, xs: Arrays, rows: int | None, blocks: Blocks
) -> tuple[Arrays, Arrays, Arrays] | None:
    """(ys, blocks, aux) of a Jacobian where the framework sees the points of f, in reverse at each of them.

    rows     of the Jacobian; None where they are not known without running f
    blocks   (passes, xs, ys, pull) -> those of each y and each x, of shape (*y.shape, *x.shape)
    returns  None where there are no such points, or another way is better
    """
    if not xs or not rows or mode not in ("auto", "reverse"):
        return None
    fewest = _fewest(passes, rows)
    points = _seen(passes, xs) if fewest <= rows else None
    if points is None or len(points.parts[0]) < fewest or not _better(passes, mode, points):
        return None
    refuse_too_large(points.ys, xs)
    ys, found = _at_points(passes, xs, points, blocks)
    return ys, found, passes.evaluate(xs)[1] if passes.call.has_aux else ()


def by_trial(passes: Passes, mode: str, xs: Arrays, ys: Arrays, pull: Pull, blocks: Blocks) -> Arrays | None:
    """The blocks of a Jacobian as of f at each of captured points alone, where the framework's own pullback agrees.

    Arrays that f captures, as long as what it returns or as long as there are points in that, are taken for points.
    Values at single points are compared with ys, and a random combination of all rows with what pull says of it;
    where the blocks are differentiated, what the framework records of f has to prove that points do not mix, too.

    returns  None where there are no such points, or another way is better
    """
    call, rows = passes.call, sum([math.prod(y.shape) for y in ys])
    if not rows or mode not in ("auto", "reverse") or passes.f != call.flat:
        return None
    fewest = _fewest(passes, rows)
    if fewest > rows or not all(call.backend.concrete(xp.sum(y)) for y in ys):
        return None
    known = dict(vars(call))
    try:
        return _tried(passes, mode, xs, ys, pull, blocks, fewest)
    except TooLargeError:
        raise
    except Exception:  # whatever f raises for a single point
        return None
    finally:
        vars(call).update(known)  # f has left there what it returned besides arrays


def _tried(
    passes: Passes, mode: str, xs: Arrays, ys: Arrays, pull: Pull, blocks: Blocks, fewest: float
) -> Arrays | None:
    some = _captured_points(passes, ys, fewest)
    here = passes.backend.differentiates_here
    rest = tuple({id(x): x for x in captured(passes.call) if here((x,)) and all(x is not z for z in some)}.values())
    exchanged = passes.backend.of_others(lambda *xs: passes.evaluate(xs)[0], (*some, *rest)) if some else None
    if exchanged is None:
        return None

    def of_others(xs: Arrays, others: Arrays, rest: Arrays = rest) -> Arrays:
        found: Arrays = exchanged(xs, (*others, *rest))
        return found

    points = Points(of_others, tuple([xp.reshape(x, (len(x), 1, *x.shape[1:])) for x in some]), ys)
    if not _better(passes, mode, points):
        return None
    refuse_too_large(ys, xs)
    with _left_of_all(of_others, xs, some):
        again, found = _at_points(passes, xs, points, blocks)
        if not _agree(passes, xs, (ys, again), (found, pull)):
            return None
        # Who differentiates what comes out sees more than its values: of f(x) - stop_gradient(f(x)), which takes a
        # proof, and of what is zero here and not elsewhere, as a coefficient times the number of points.
        proved = not here((*xs, *ys)) or (
            _apart(passes, xs, some, of_others, len(ys)) and _agree_elsewhere(passes, xs, points, of_others, some, rest)
        )
        return found if proved else None


@contextlib.contextmanager
def _left_of_all(of_others: Function, xs: Arrays, some: Arrays) -> Iterator[None]:
    """What f leaves in lists, attributes and the like is of all points in the end, as it was before single ones."""
    try:
        yield
    finally:
        with contextlib.suppress(Exception):  # where it raises for single points too, as where f writes to an array
            of_others(xs, some)


def _fewest(passes: Passes, rows: int) -> float:
    """So many points at least are worth it."""
    entries = rows * passes.call.columns
    return max(2.0, passes.backend.points_from() / entries) if entries else math.inf


def _better(passes: Passes, mode: str, points: Points) -> bool:
    """Whether the points are taken one by one, which the plan then says."""
    n, rows = len(points.parts[0]), sum([math.prod(y.shape) for y in points.ys])
    plan = passes.choose(mode, passes.call.columns, rows // n, points=n)
    passes.plan = replace(plan, why=f"{plan.why} at each of {n} points that do not depend on each other")
    return plan.mode == "reverse"


def _at_points(passes: Passes, xs: Arrays, points: Points, blocks: Blocks) -> tuple[Arrays, Arrays]:
    """(ys, blocks) of all points."""

    def of_point(*point: Array) -> Arrays:
        ys, pull = passes.backend.pullback(lambda *xs: points.of_point(xs, point), xs)
        return (*ys, *blocks(passes, xs, ys, pull))

    shapes = [tuple(y.shape) for y in points.ys]
    shapes += [(*shape, *x.shape) for shape in shapes for x in xs]
    found = passes.backend.batch(of_point)(*points.parts)
    found = tuple([xp.reshape(z, shape) for z, shape in zip(found, shapes, strict=True)])
    return found[: len(points.ys)], found[len(points.ys) :]


def _seen(passes: Passes, xs: Arrays) -> Points | None:
    call, known = passes.call, dict(vars(passes.call))
    try:
        return passes.backend.points(lambda *xs: passes.evaluate(xs)[0], xs)
    except Exception:  # a function that cannot be traced, as one that looks at values
        vars(call).update(known)  # f has left there what it returned besides arrays
        return None


def _captured_points(passes: Passes, ys: Arrays, fewest: float) -> Arrays:
    """What f captures of most points; () where nothing has their length."""
    arrays = {id(x): x for x in captured(passes.call) if x.shape and fewest <= x.shape[0]}
    lengths = {x.shape[0] for x in arrays.values()}
    fitting = [n for n in lengths if all(y.shape and y.shape[0] % n == 0 for y in ys)]
    return tuple([x for x in arrays.values() if x.shape[0] == max(fitting, default=0)])


def _apart(passes: Passes, xs: Arrays, some: Arrays, of_others: Function, outputs: int) -> bool:
    """Whether what the framework records of f proves that no output depends on other points."""

    def apart(i: int, k: int) -> bool:
        def of_one(x: Array) -> Arrays:
            return (of_others(xs, (*some[:i], x, *some[i + 1 :]))[k],)

        _, recorded = passes.backend.pullback(of_one, (some[i],))
        return passes.backend.rows_apart(recorded, len(some[i]))

    return all(apart(i, k) for i in range(len(some)) for k in range(outputs))


def _agree_elsewhere(
    passes: Passes, xs: Arrays, points: Points, of_others: Function, some: Arrays, rest: Arrays
) -> bool:
    """Whether values of all points and of single ones are the same beside xs and the rest that is captured."""
    near_xs, near_rest = (tuple([x + 0.05 * probe(passes.call, x) for x in map(stop_gradient, z)]) for z in (xs, rest))
    ys = of_others(near_xs, tuple(map(stop_gradient, some)), near_rest)
    single = passes.backend.batch(lambda *point: of_others(near_xs, point, near_rest))
    again = single(*map(stop_gradient, points.parts))
    pairs = [(xp.reshape(mine, tuple(y.shape)), y) for mine, y in zip(again, ys, strict=True)]
    return bool(xp.all(xp.stack([_same(mine, y) for mine, y in pairs])))


def _agree(passes: Passes, xs: Arrays, ys: tuple[Arrays, Arrays], known: tuple[Arrays, Pull]) -> bool:
    """Whether ys of all points and of single ones are the same, and what is known of the Jacobian.

    known  (blocks, pull), of which a random combination of all rows is compared
    """
    with passes.backend.untracked():
        pairs = [*zip(ys[1], ys[0], strict=True)]
        weights, blocks = [probe(passes.call, y) for y in ys[0]], iter(known[0])
        told: list[Any] = [0.0] * len(xs)
        for weight in weights:
            row = xp.reshape(weight, (1, math.prod(weight.shape)))
            for i, x in enumerate(xs):
                block = xp.reshape(stop_gradient(next(blocks)), (row.shape[1], math.prod(x.shape)))
                told[i] = told[i] + (row if row.dtype == block.dtype else xp.astype(row, block.dtype)) @ block
        grads = [xp.reshape(grad, (1, math.prod(x.shape))) for grad, x in zip(known[1](weights), xs, strict=True)]
        pairs += zip(told, grads, strict=True)
        return bool(xp.all(xp.stack([_same(mine, its) for mine, its in pairs])))


def _same(found: Array, expected: Array) -> Array:
    """Whether the gap is rounding, as an array of shape (); infinities and NaN are not the same as others."""
    found, expected = stop_gradient(found), stop_gradient(expected)
    scale = EPSILON[dtype_name(expected.dtype)] ** 0.5 * xp.max(xp.abs(expected))
    return xp.max(xp.abs(found - expected)) <= scale
