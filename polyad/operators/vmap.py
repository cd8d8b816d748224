"""vmap: a function of one point, for many points."""

import numbers
from collections.abc import Callable
from typing import Any

from polyad import trees
from polyad.arrays import describe, dtype_name, is_floating, xp
from polyad.backends import Evaluation, Scope, evaluates, is_array
from polyad.backends.base import Arrays, Backend, joined
from polyad.errors import ArgumentError, LeafError, PolyadError, UnsupportedError
from polyad.operators.call import Call
from polyad.operators.doubt import settled
from polyad.operators.rows import FEW, MANY, spread
from polyad.plans import Plan
from polyad.steps import step

__all__ = ["vmap"]


def vmap(
    f: Callable[..., Any],
    in_axes: Any = 0,
    out_axes: Any = 0,
    *,
    chunk_size: int | None = None,
    backend: str | Backend | None = None,
) -> Callable[..., Any]:
    """f, a function of one point, as a function of many points at once.

    in_axes     where the points lie in each argument: an axis for all arguments, or a tuple
                with an entry for each, which is an axis, None for an argument that is the
                same for all points, or a tree of those as the upper part of the argument is
    out_axes    where they lie in what is returned: an axis, or a tree as the upper part of
                what f returns; None for what does not depend on the point
    chunk_size  the most points at once, which bounds the memory of the pass; None: all
    backend     None: that of the arrays
    returns     a function of pytrees of arrays, to be differentiated to any order around it and
                inside of f. Keywords go to f as they are, without an axis, and hold no arrays
    raises      ArgumentError, LeafError, BackendError; ImpureFunctionError for a StatefulLayer
                from outside whose state f changes

    JAX and torch compute all points at once, by their own vmap. Elsewhere, and inside of jets
    over NumPy, one point follows the other, and the results are the same.

        slopes = vmap(gradient(loss_of_a_point), in_axes=(None, 0, 0))(params, x, y)
    """
    if not callable(f):
        raise ArgumentError(f"vmap: the first argument is {f!r}, not a function. Type vmap(f)(x)")
    if chunk_size is not None and (not _is_axis(chunk_size) or chunk_size < 1):
        raise ArgumentError(
            f"vmap: chunk_size={chunk_size!r}; it is the number of points at once, 1 or more, or None for all"
        )
    in_axes = tuple(in_axes) if isinstance(in_axes, list) else in_axes
    _refuse_no_axes("in_axes", in_axes)
    _refuse_no_axes("out_axes", out_axes)

    def mapped(*args: Any, **kwargs: Any) -> Any:
        points = _Points(f, args, kwargs, in_axes, out_axes, backend)
        with step("vmap", points.backend.name) as this:
            this.plan = points.plan(chunk_size)
            return points.result(*points.backend.shielded(points.evaluated, chunk_size))

    mapped.__name__ = f"vmap_of_{getattr(f, '__name__', type(f).__name__)}"
    return mapped


class _Points(Call):
    """One use of the mapped function.

    xs      leaves of the arguments that have an axis in some leaf
    places  where among them those with an axis are
    rows    these, with the points along the first axis
    count   of points
    """

    def __init__(
        self,
        f: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        in_axes: Any,
        out_axes: Any,
        backend: str | Backend | None,
    ) -> None:
        entries = _of_arguments(in_axes, args)
        for name, value in kwargs.items():
            if any(map(is_array, trees.leaves(value))):
                raise ArgumentError(
                    f"vmap: the keyword {name} holds an array, and in_axes says nothing of keywords. Give it by its "
                    f"position, or write lambda x: f(x, {name}={name}), if it is the same for all points"
                )
        argnums = [i for i, entry in enumerate(entries) if entry is not None]
        super().__init__("vmap", f, args, argnums, backend, False, kwargs)
        axes = [axis for i in argnums for axis in self._axes_of(i, entries[i])]
        names = [(i, j) for i in argnums for j in range(len(self.leaves[i]))]
        given = [(place, axis) for place, axis in enumerate(axes) if axis is not None]
        self.places = [place for place, _ in given]
        self.rows = tuple(self._row_first(self.xs[place], axis, *names[place]) for place, axis in given)
        self.count = self._one_size([(*names[place], axis) for place, axis in given])
        self.out_axes, self.scope = out_axes, Scope()
        self.has_shared = None in trees.entries(out_axes)
        self.out_spec: Any = None

    def plan(self, chunk_size: int | None) -> Plan:
        """For `explain`."""
        if not self.backend.batches:
            return Plan("loop", self.count, f"{self.backend.name} has no vmap")
        return Plan("batch", -(-self.count // (chunk_size or max(self.count, 1))), f"{self.count} points")

    def evaluated(self, chunk_size: int | None) -> tuple[Arrays, Arrays]:
        """(what has an axis of points, in front; what is the same for all of them)."""
        self.returned = False
        try:
            return settled(self.backend, lambda: self._at_all(chunk_size), self._few(chunk_size))
        except PolyadError:
            raise
        except Exception as error:
            if self.has_shared and self.returned and isinstance(error, ValueError):
                raise ArgumentError(self._not_shared()) from error
            words = self.backend.refusal(error)
            if not words or evaluates() or self.backend.compiles_here():  # a strategy around may know another way
                raise
            raise UnsupportedError(f"vmap: f {words}") from error

    def point(self, *rows: Any) -> Any:
        """f of one point, whose leaves with an axis are these: its leaves, or with has_shared (ys, shared)."""
        self.returned = False
        xs = list(self.xs)
        for place, row in zip(self.places, rows, strict=True):
            xs[place] = row
        with Evaluation(self.backend, self._known, self.scope) as backend:
            out = self.f(*self._rebuilt(xs), **self.kwargs)
            leaves, spec = trees.flatten(out)
            self.out_spec = self._the_same(spec)
            self.axes = [self.out_axes] * len(leaves) if _is_axis(self.out_axes) else self._axes_of_outputs(out)
            ys = [self._output(leaf, i, backend) for i, leaf in enumerate(leaves)]
        self.returned = True
        if not self.has_shared:
            return tuple(ys)
        return tuple(
            tuple(y for y, axis in zip(ys, self.axes, strict=True) if (axis is None) is shared)
            for shared in (False, True)
        )

    def result(self, ys: Arrays, shared: Arrays) -> Any:
        """The tree that f returns, of all points."""
        rest, same = iter(ys), iter(shared)
        leaves = [next(same) if axis is None else next(rest) for axis in self.axes]
        places = enumerate(zip(leaves, self.axes, strict=True))
        return self.outputs([y if not axis else self._points_at(y, axis, i) for i, (y, axis) in places])

    # Passes.

    def _at_all(self, chunk_size: int | None) -> tuple[Arrays, Arrays]:
        if chunk_size is None or chunk_size >= self.count or not self.backend.batches:
            return self._batched(self.rows)
        return self._in_chunks(chunk_size)

    def _few(self, chunk_size: int | None) -> Callable[[], Any] | None:
        """f at a few of the points, no more than in a chunk; None where there are not many."""
        if self.count < MANY:
            return None
        some = spread(self.count, min(FEW[MANY], chunk_size or MANY))
        return lambda: self._batched(tuple(row[some] for row in self.rows))

    def _batched(self, rows: Arrays) -> tuple[Arrays, Arrays]:
        out = self.backend.batch(self.point, *((True,) if self.has_shared else ()))(*rows)
        return out if self.has_shared else (out, ())

    def _in_chunks(self, size: int) -> tuple[Arrays, Arrays]:
        def chunk(start: Any, count: int) -> tuple[Arrays, Arrays]:
            return self._batched(tuple(self.backend.rows(row, start, count) for row in self.rows))

        if not self.has_shared:
            return self.backend.chunked(lambda start, count: chunk(start, count)[0], self.count, size), ()
        first, shared = chunk(0, size)  # of which there is one for all chunks
        rest = self.backend.chunked(lambda start, count: chunk(size + start, count)[0], self.count - size, size)
        return joined([first, rest]), shared

    # Arguments.

    def _axes_of(self, i: int, entry: Any) -> list[int | None]:
        """The axis of each leaf of argument i."""
        if _is_axis(entry):
            return [entry] * len(self.leaves[i])
        try:
            return trees.prefix(entry, trees.unflatten(self.specs[i], self.leaves[i]))
        except ValueError:
            raise ArgumentError(
                f"vmap: in_axes has {entry!r} for {self._argument_name(i)}, which is the tree "
                f"{_of_leaves(self.specs[i])}. Give an axis, None, or a tree of them that is the upper part of this one"
            ) from None

    def _differentiable(self, leaf: Any, i: int, j: int) -> Any:
        return self.adopt(leaf)  # nothing is differentiated here: any array will do, and anything without an axis

    def _row_first(self, leaf: Any, axis: int, i: int, j: int) -> Any:
        if not is_array(leaf):
            raise LeafError(
                f"vmap: {self.name(i, j)} is {leaf!r} of type {type(leaf).__name__}, which has no axis {axis}. Give "
                f"None for it in in_axes, and it is the same for all points"
            )
        if not -leaf.ndim <= axis < leaf.ndim:
            raise ArgumentError(
                f"vmap: {self.name(i, j)} is a {describe(leaf)}, which has no axis {axis} for in_axes={axis}. Choose "
                f"another axis, or None, if it is the same for all points"
            )
        return leaf if axis % leaf.ndim == 0 else xp.moveaxis(leaf, axis, 0)

    def _one_size(self, given: list[tuple[int, int, int]]) -> int:
        """The number of points, of leaf j of argument i along this axis, for each of those."""
        if not given:
            raise ArgumentError("vmap: the arguments that in_axes maps have no arrays, so there are no points")
        sizes = [row.shape[0] for row in self.rows]
        if len(set(sizes)) > 1:
            found = [
                f"{self.name(i, j)} has {n} along axis {axis}" for (i, j, axis), n in zip(given, sizes, strict=True)
            ]
            other = next(i for i, n in enumerate(sizes) if n != sizes[0])
            raise ArgumentError(
                f"vmap: {found[0]}, {found[other]}: there must be as many points in each. Give None in in_axes for "
                f"what is the same for all points, or another axis"
            )
        return sizes[0]

    # Outputs.

    def _the_same(self, spec: Any) -> Any:
        if self.out_spec not in (None, spec):
            raise ArgumentError(
                f"vmap: f returned the tree {_of_leaves(self.out_spec)} for one point, and {_of_leaves(spec)} for "
                f"another one. Return the same tree for all of them"
            )
        return spec

    def _axes_of_outputs(self, out: Any) -> list[int | None]:
        try:
            return trees.prefix(self.out_axes, out)
        except ValueError:
            raise ArgumentError(
                f"vmap: out_axes={self.out_axes!r}, but f returned the tree {_of_leaves(self.out_spec)}. Give an axis, "
                f"or a tree of them that is the upper part of this one"
            ) from None

    def _output(self, leaf: Any, i: int, backend: Backend) -> Any:
        if isinstance(leaf, bool | int):
            return self.backend.asarray(leaf)
        if not is_array(leaf) and not isinstance(leaf, float):
            raise LeafError(
                f"vmap: f returned {leaf!r} of type {type(leaf).__name__}{self._output_place(i)}, which is not an "
                f"array. Return arrays, numbers, and trees of them"
            )
        if is_array(leaf) and not is_floating(leaf):
            return self.adopt(leaf)
        return super()._output(leaf, i, backend)

    def _dtype(self) -> str:
        return next((dtype_name(x.dtype) for x in self.xs if is_floating(x)), self.backend.default_dtype())

    def _points_at(self, y: Any, axis: int, i: int) -> Any:
        if not -y.ndim <= axis < y.ndim:
            raise ArgumentError(
                f"vmap: out_axes={axis}, but f returned{self._output_place(i, ' an ')}array of shape "
                f"{tuple(y.shape[1:])}, which has {y.ndim} axes with that of the points. Choose from {-y.ndim} to "
                f"{y.ndim - 1}"
            )
        return xp.moveaxis(y, 0, axis)

    def _not_shared(self) -> str:
        names = trees.names(self.outputs(range(len(self.axes))), "f(...)")
        shared = [name for name, axis in zip(names, self.axes, strict=True) if axis is None]
        return (
            f"vmap: out_axes has None for {', '.join(shared)}, but that is not the same for all points. Give an axis "
            f"for what depends on the point"
        )


def _of_arguments(in_axes: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """An entry of in_axes for each argument."""
    if not args:
        raise ArgumentError("vmap: no arguments, so there are no points. Type vmap(f)(x)")
    entries = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(args)
    if len(entries) != len(args):
        raise ArgumentError(
            f"vmap: in_axes={in_axes!r} has {len(entries)} entries for {len(args)} arguments; give one for each, "
            f"None for one that is the same for all points"
        )
    if all(axis is None for axis in trees.entries(entries)):
        raise ArgumentError(
            f"vmap: in_axes={in_axes!r} maps no argument, so there are no points. Give an axis to one at least, as in "
            f"in_axes=({', '.join(['None'] * (len(args) - 1) + ['0'])}{',' * (len(args) == 1)})"
        )
    return entries


def _refuse_no_axes(name: str, axes: Any) -> None:
    """ArgumentError for what is no tree of axes."""
    for axis in trees.entries(axes):
        if axis is not None and not _is_axis(axis):
            given = f"a {describe(axis)}" if is_array(axis) else f"{axis!r} of type {type(axis).__name__}"
            raise ArgumentError(
                f"vmap: {name} holds {given}; an axis is an int, or None. vmap(f) returns a function: type vmap(f)(x)"
            )


def _is_axis(x: Any) -> bool:
    return isinstance(x, numbers.Integral) and not isinstance(x, bool)


def _of_leaves(spec: Any) -> str:
    return str(spec).removeprefix("PyTreeSpec(").removesuffix(")").replace(", namespace='polyad'", "")
