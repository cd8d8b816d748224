"""One equation of a program of JAX, of all points, for a single one of them.

Where the points stand along an axis, one row for each, arrays of a single point
have no such axis: as somebody has them who writes the function for one point,
which XLA makes faster code of than of an axis of length 1.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from polyad.backends.base import Array
from polyad.backends.jax_rows import Rows, State, States, alone, is_entrywise

__all__ = ["evaluated", "parted", "shape_of_one", "single"]

Shape = tuple[int, ...]
Move = Callable[..., list[Array]]


def evaluated(jaxpr: Any, equation: Any, values: Sequence[Array]) -> list[Array]:
    """The results of one equation of a jaxpr for these values of its arguments."""
    one, places = alone(jaxpr, equation)
    found: list[Array] = jax.core.eval_jaxpr(one, (), *(values[i] for i in places))
    return found


def parted(x: Array, rows: Rows, batch: int) -> Array:
    """What each of so many points has of x, along an axis in front."""
    if rows.length != 1:
        shape = (*x.shape[: rows.axis], batch, rows.length, *x.shape[rows.axis + 1 :])
        x = jax.numpy.reshape(x, shape)
    return jax.numpy.moveaxis(x, rows.axis, 0)


def shape_of_one(shape: Shape, state: State) -> Shape:
    """That of a single point."""
    kept, axis = _kept(shape, state), _axis(state)
    return kept if axis is None else (*kept[:axis], *kept[axis + 1 :])


def single(jaxpr: Any, equation: Any, given: States, found: States) -> Move:
    """The equation of a jaxpr for a single point, as a function of its arguments.

    given, found  where the points stand in its arguments and in its results, in one of all at least
    raises        ValueError, as JAX does, where an argument that is whole has the size of all points
    """
    shapes = [tuple(variable.aval.shape) for variable in equation.outvars]
    wanted = [shape_of_one(shape, s) for shape, s in zip(shapes, found, strict=True)]
    move = _without_axis(jaxpr, equation, given, found[0]) or _with_axis(jaxpr, equation, given, found, shapes[0])

    def moved(*values: Array) -> list[Array]:
        ys = move(*values)
        if [tuple(y.shape) for y in ys] != wanted:
            raise ValueError(f"{equation.primitive.name} of one point has other shapes than {wanted}")
        return ys

    return moved


def _axis(state: State) -> int | None:
    """The axis that a single row does not have."""
    return state.axis if isinstance(state, Rows) and state.length == 1 else None


def _kept(shape: Shape, state: State) -> Shape:
    """That of a single point along the axis where the points stand."""
    return (*shape[: state.axis], state.length, *shape[state.axis + 1 :]) if isinstance(state, Rows) else shape


def _with_axis(jaxpr: Any, equation: Any, given: States, found: States, shape: Shape) -> Move:
    """The same equation with other sizes."""
    params, name, rows = dict(equation.params), equation.primitive.name, given[0]
    if name in SIZES:
        params[SIZES[name]] = _kept(shape, found[0])
    if name in SIZES_OF_FIRST:  # which is whole along that axis
        params[SIZES_OF_FIRST[name]] = _kept(params[SIZES_OF_FIRST[name]], rows)
    sized = equation.replace(params=params)
    before, after = [*map(_axis, given)], [*map(_axis, found)]

    def move(*values: Array) -> list[Array]:
        xs = [x if axis is None else jax.lax.expand_dims(x, (axis,)) for x, axis in zip(values, before, strict=True)]
        ys = evaluated(jaxpr, sized, xs)
        return [y if axis is None else jax.lax.squeeze(y, (axis,)) for y, axis in zip(ys, after, strict=True)]

    return move


SIZES = {"broadcast_in_dim": "shape", "reshape": "new_sizes"}
"""Primitives that are told the shape of their result, and the parameter that tells it."""

SIZES_OF_FIRST = {"dynamic_slice": "slice_sizes", "gather": "slice_sizes", "slice": "limit_indices"}
"""Primitives that are told sizes of their first argument."""


def _without_axis(jaxpr: Any, equation: Any, given: States, found: State) -> Move | None:
    """An equation that is the same without the axis; None for others."""
    axis = _axis(found)
    if axis is None:
        return None
    if is_entrywise(equation):
        return _entry_by_entry(jaxpr, equation, given, axis)
    moving = [i for i, s in enumerate(given) if isinstance(s, Rows)]
    if equation.primitive.name == "dot_general" and len(moving) == 1:
        return _of_vector(jaxpr, equation, given, moving[0])
    return None


def _entry_by_entry(jaxpr: Any, equation: Any, given: States, axis: int) -> Move:
    whole = [s is None and bool(atom.aval.shape) for s, atom in zip(given, equation.invars, strict=True)]

    def move(*values: Array) -> list[Array]:
        return evaluated(
            jaxpr, equation, [jax.lax.squeeze(x, (axis,)) if w else x for x, w in zip(values, whole, strict=True)]
        )

    return move


def _of_vector(jaxpr: Any, equation: Any, given: States, i: int) -> Move | None:
    """The product of a single row, argument number i; None where it is one of many products."""
    axis = _axis(given[i])
    contracting, batched = ([*map(list, pair)] for pair in equation.params["dimension_numbers"])
    if axis is None or axis in batched[i]:
        return None
    for places in (contracting, batched):
        places[i] = [a - (a > axis) for a in places[i]]
    numbers = tuple(tuple(map(tuple, pair)) for pair in (contracting, batched))
    vector = equation.replace(params={**equation.params, "dimension_numbers": numbers})
    return lambda *values: evaluated(jaxpr, vector, values)
