"""The sum of second derivatives of a field over all coordinates, by two passes of the framework.

This is what `laplacian` does where jets do not go through f (by_jets.py). It
needs nothing of f but that the framework differentiates it twice. Rows are
independent: one direction moves all rows at once.
"""

import functools
import math
from collections.abc import Iterator
from typing import Any

from polyad.arrays import stop_gradient, xp
from polyad.backends.base import Arrays, Backend, with_aux
from polyad.backends.directions import at_once, largest
from polyad.operators.field import Field, trace
from polyad.operators.outer import outer_mode
from polyad.operators.rows import checked, probe, units
from polyad.plans import by_sweeps, choose

__all__ = ["curvatures", "steps"]


def curvatures(field: Field, mode: str, x: Any) -> tuple[Any, Arrays]:
    """(sum over i of the second derivative in x[:, i], aux): the first of the shape of f(x).

    A gradient and a pass around it cost a sweep for each output and coordinate,
    two forward passes about two such sweeps for a coordinate, whatever the
    outputs: on torch, a tanh MLP of 64 x 4 with 1024 points of 2 coordinates, the
    gradient of a Laplacian loss takes 22, 58 and 131 ms with 1, 3 and 8 outputs,
    and 59, 63 and 48 ms forward (one thread, 2026-11).
    """
    if not math.prod(x.shape):
        y, aux = field.evaluate(x)
        return xp.zeros_like(y), aux
    field.passes.plan = plan = by_sweeps(field.call.backend, mode, 1, _outputs(field, x))
    return _by_gradients(field, mode, x) if plan.mode == "reverse" else _by_directions(field, x)


def _outputs(field: Field, x: Any) -> int | None:
    """Entries in a row of f(x), where the framework tells without running f."""
    shapes = field.backend.output_shapes(lambda x: (field.evaluate(x)[0],), (x,))
    return None if shapes is None else math.prod(shapes[0][1:])


# A gradient of each output, and a pass around them.


def _by_gradients(field: Field, mode: str, x: Any) -> tuple[Any, Arrays]:
    outer = _outer(field, x) if mode == "auto" else mode
    sums, grads, (y, found, *aux) = (_pushed if outer == "forward" else _pulled)(field, x)
    outputs = math.prod(y.shape[1:])
    weights = xp.reshape(probe(field.call, y), (x.shape[0], outputs))
    expected = xp.zeros_like(x)
    for i in range(outputs):
        expected = expected + xp.reshape(weights[:, i], (x.shape[0],) + (1,) * (x.ndim - 1)) * grads[i]
    laps = xp.reshape(xp.stack(sums, axis=1)[:, :outputs], tuple(y.shape))
    return checked(field.call, laps, expected - found, expected), tuple(aux)


# Gradient of a Laplacian loss on compiled JAX, tanh MLP of 64 x 4, 1024 points (one
# CPU thread, 2026-11): directions one by one through the pullback 30 ms for 2 and
# 210 ms for 10, batched 132 and 509 ms, batched forward 67 and 519 ms. With 16
# points of 3 coordinates batching takes half the time.
FEW, LARGE = 16, 1024


def _one_by_one(x: Any) -> bool:
    """Whether the directions are few and large enough to go without batching."""
    n = math.prod(x.shape[1:])
    return n <= FEW and n * math.prod(x.shape) > LARGE


def _outer(field: Field, x: Any) -> str:
    if _one_by_one(x):
        return "reverse"
    return outer_mode(field.call, math.prod(x.shape[1:]), (x,), field.flat)


def _pushed(field: Field, x: Any) -> tuple[Arrays, Arrays, Arrays]:
    sums: list[Any] = []
    for start, stop in steps(field, x):
        directions = units(field.call, x, start, stop - start)
        push = with_aux(field.backend.pushforwards, True)
        grads, changes, rest = push(lambda x: _gradients(field, x), (x,), (directions,))
        found = [_diagonal(change, start, stop) for change in changes]
        sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
    return tuple(sums), grads, rest


def _pulled(field: Field, x: Any) -> tuple[Arrays, Arrays, Arrays]:
    """The Hessian of a row is symmetric: its pullback is its pushforward."""
    backend = field.backend
    grads, pull, rest = with_aux(backend.pullback, True)(lambda x: _gradients(field, x), (x,))
    own, n = field.call.backend, math.prod(x.shape[1:])
    plan = choose(own, "reverse", 1, n, x.shape[0], own.compiles_here(), nested=True)
    loop = plan.at_once == 1 or _one_by_one(x)
    pullbacks = functools.partial(Backend.pullbacks, backend) if loop else backend.pullbacks
    sums = [xp.zeros_like(xp.reshape(x, (x.shape[0], -1))[:, 0]) for _ in grads]
    for i in range(len(grads)):
        for start, stop in steps(field, x):
            directions = units(field.call, x, start, stop - start)
            (change,) = pullbacks(pull, tuple(directions if j == i else None for j in range(len(grads))))
            sums[i] = sums[i] + _diagonal(change, start, stop)
    return tuple(sums), grads, rest


def _gradients(field: Field, x: Any) -> tuple[Arrays, Arrays]:
    """The gradient of each output in its row of x, shape (B, *in); and (y, one of a random combination, *aux).

    Rows mix where the combination of outputs, a different one in each row, has
    not that combination of the gradients. It is looked at, not differentiated.
    """
    out = with_aux(field.backend.pullback, field.call.has_aux)(field.flat, (x,))
    (y,), pull = out[0], out[1]
    cotangents = units(field.call, y, 0, math.prod(y.shape[1:]))
    grads = tuple(pull((cotangents[i],))[0] for i in range(cotangents.shape[0]))
    found = stop_gradient(pull((probe(field.call, y),))[0])
    return grads or (xp.zeros_like(x),), (y, found, *(out[2] if field.call.has_aux else ()))


# Two forward passes in each direction.


def _by_directions(field: Field, x: Any) -> tuple[Any, Arrays]:
    call = field.call
    push = with_aux(field.backend.pushforward, call.has_aux)

    def twice(v: Any) -> Arrays:
        """(derivative in the direction v, second derivative, *aux)."""

        def once(x: Any) -> Any:
            _, dys, *aux = push(field.flat, (x,), (v,))
            return (dys, *aux) if call.has_aux else dys

        dys, laps, *aux = push(once, (x,), (v,))
        return (*dys, *laps, *(aux[0] if aux else ()))

    combination = probe(call, x)
    _, (found,), *_ = push(field.flat, (x,), (combination,))
    weights = xp.permute_dims(xp.reshape(combination, (x.shape[0], -1)), (1, 0))
    laps, expected = xp.zeros_like(found), xp.zeros_like(found)
    for start, stop in steps(field, x):
        dys, seconds, *aux = field.backend.batch(twice)(units(field.call, x, start, stop - start))
        laps = laps + xp.sum(seconds, axis=0)
        weight = xp.reshape(weights[start:stop], (stop - start, x.shape[0]) + (1,) * (found.ndim - 1))
        expected = expected + xp.sum(weight * dys, axis=0)
    return checked(call, laps, expected - found, expected), tuple(a[0] for a in aux)


# Directions: the same unit vector in every row.


def steps(field: Field, x: Any) -> Iterator[tuple[int, int]]:
    """(start, stop) over the coordinates of a row, few enough at a time to fit in memory."""
    n = math.prod(x.shape[1:])
    step = at_once(n, largest(x), field.call.chunk_size)
    for start in range(0, n, step):
        yield start, min(start + step, n)


def _diagonal(change: Any, start: int, stop: int) -> Any:
    """Sum over i of entry start + i of change i: (stop - start, B, *in) to (B,)."""
    entries = xp.reshape(change, (*change.shape[:2], -1))[:, :, start:stop]
    return trace(xp.permute_dims(entries, (1, 0, 2)), 1)
