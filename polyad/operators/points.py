"""Jacobians at points that f captures and that do not depend on each other: that of one point, at all of them."""

from collections.abc import Callable
from dataclasses import replace

from polyad.arrays import xp
from polyad.backends.base import Array, Arrays, Points, Pull
from polyad.backends.directions import refuse_too_large
from polyad.operators.passes import Passes

__all__ = ["by_points"]

ENOUGH = {True: 2**12, False: 2**25}
"""Entries of the Jacobian times points, compiled and not, from which looking for the points takes less time than they
save: not compiled, 128 x 32 15 to 28 ms in place of 19, 1024 x 32 27 in place of 350 (tanh MLPs of
about 1,250 parameters, one CPU thread, jax 0.10, 2026-11)."""

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
    work = ENOUGH[passes.backend.compiles_here()] / (rows * passes.call.columns)
    points = _points(passes, xs) if work <= rows else None
    if points is None or work > (n := len(points.parts[0])):
        return None
    plan = passes.choose(mode, passes.call.columns, rows // n, points=n)
    if plan.mode != "reverse":
        return None
    passes.plan = replace(plan, why=f"{plan.why} at each of {n} points that do not depend on each other")
    refuse_too_large(points.ys, xs)

    def of_point(*point: Array) -> Arrays:
        ys, pull = passes.backend.pullback(lambda *xs: points.of_point(xs, point), xs)
        return (*ys, *blocks(passes, xs, ys, pull))

    shapes = [tuple(y.shape) for y in points.ys]
    shapes += [(*shape, *x.shape) for shape in shapes for x in xs]
    found = passes.backend.batch(of_point)(*points.parts)
    found = tuple([xp.reshape(z, shape) for z, shape in zip(found, shapes, strict=True)])
    aux = passes.evaluate(xs)[1] if passes.call.has_aux else ()
    return found[: len(points.ys)], found[len(points.ys) :], aux


def _points(passes: Passes, xs: Arrays) -> Points | None:
    call, known = passes.call, dict(vars(passes.call))
    try:
        return passes.backend.points(lambda *xs: passes.evaluate(xs)[0], xs)
    except Exception:  # a function that cannot be traced, as one that looks at values
        vars(call).update(known)  # f has left there what it returned besides arrays
        return None
