"""From what a user writes to what an adapter sees, and back.

A Call flattens the arguments, finds the backend, checks every leaf, and turns
f into a function of flat tuples of arrays. Errors name a leaf the way a person
would type it: "params['layer_0']['weight']".
"""

import contextlib
import functools
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from types import FunctionType
from typing import Any

import numpy as np

from polyad import trees
from polyad.arrays import describe, dtype_name, floating, is_floating, number_kind, single_owner
from polyad.backends import Evaluation, carried, current, get, is_array, is_host, owner
from polyad.backends.base import Arrays, Backend
from polyad.captures import captured_arrays, declared_arrays, flattened
from polyad.errors import ArgumentError, DTypeError, LeafError, MixedArraysError

__all__ = ["Call", "KeepValue"]

CARRIED = "a parameter that f carries"
_dtype = attrgetter("dtype")


class KeepValue:
    """In place of has_aux: (value, aux) is what comes out beside the derivative; aux is None without has_aux."""

    def __init__(self, has_aux: bool) -> None:
        self.has_aux = has_aux


class Call:
    """One use of an operator on f and its arguments.

    xs        the differentiated leaves, arrays of one backend
    flat      f as a function of xs: a tuple of arrays, and with has_aux a
              second tuple of those that are not differentiated
    """

    def __init__(
        self,
        operator: str,
        f: Callable[..., Any],
        args: tuple[Any, ...],
        argnums: int | Sequence[int],
        backend: str | Backend | None,
        has_aux: bool | KeepValue = False,
        kwargs: dict[str, Any] | None = None,
        chunk_size: int | None = None,
    ) -> None:
        if not callable(f):
            raise ArgumentError(f"{operator}: the first argument is {_short(f)}, not a function. Type {operator}(f, x)")
        self.operator, self.f, self.args, self.has_aux = operator, f, args, bool(has_aux)
        self.keeps_value = isinstance(has_aux, KeepValue)
        self._pairs = has_aux.has_aux if isinstance(has_aux, KeepValue) else has_aux
        self.kwargs = kwargs or {}
        self._known: dict[int, Any] = {}  # states that f has read
        self.chunk_size = None if chunk_size is None else _whole(operator, chunk_size)
        self.check_outputs: Callable[[Call, Arrays, Arrays], None] | None = None  # of some operators
        self.single = not isinstance(argnums, (tuple, list))  # the tuple is made once, tuple | list each time
        first = self.single and argnums == 0 and bool(args)
        self.argnums = (0,) if first else self._positions((argnums,) if self.single else tuple(argnums))  # type: ignore[arg-type]
        # Loops, where a comprehension would be a call: all of this is paid for each gradient of a small model.
        self.leaves: list[list[Any]] = []
        self.specs: list[Any] = []
        for arg in args:
            leaves, spec = flattened(arg)
            self.leaves.append(leaves)
            self.specs.append(spec)
        self.kinds: set[type] = set()  # the types of the leaves, where they tell the backend; else none
        self.xs: Arrays = ()
        self.backend = self._plain(backend) or self._of_some(backend)
        self.constants: list[Any] = [None] * len(args)
        for i, leaves in enumerate(self.leaves):
            if i not in self.argnums:
                adopted = leaves if self.kinds else [*map(self.adopt, leaves)]
                self.constants[i] = trees.unflatten(self.specs[i], adopted)

    @functools.cached_property
    def columns(self) -> int:
        """Number of differentiated entries: the columns of the Jacobian."""
        return sum([math.prod(x.shape) for x in self.xs])

    # Inside: what the adapter calls.

    def flat(self, *xs: Any) -> Any:
        """f on the leaves xs, which may be jets over arrays of the backend."""
        jets = None if self.kinds.issuperset(map(type, xs)) else self._of_jets(xs)
        with Evaluation(jets or self.backend, self._known) as backend:
            out = self.f(*self._rebuilt(xs), **self.kwargs)
            y, aux = self._split(out) if self._pairs else (out, None)
            leaves, self.out_spec = flattened(y, self.kinds)
            for i, leaf in enumerate(leaves):
                known = type(leaf) in self.kinds or owner(leaf) in (self.backend, jets or self.backend)
                if not (known and floating(leaf.dtype)):
                    leaves[i] = self._output(leaf, i, backend)
            ys = tuple(leaves)
            if self.check_outputs is not None:
                self.check_outputs(self, xs, ys)
            if self.keeps_value:
                aux = (self.outputs(ys), aux)
            return (ys, self._put_aside(aux)) if self.has_aux else ys

    def evaluate(self, xs: Arrays) -> tuple[Arrays, Arrays]:
        """(ys, aux) of f on these leaves; aux is empty without has_aux."""
        out = self.flat(*xs)
        return out if self.has_aux else (out, ())

    def _rebuilt(self, xs: Sequence[Any]) -> list[Any]:
        args = self.constants.copy()
        if len(self.argnums) == 1:
            i = self.argnums[0]
            args[i] = trees.unflatten(self.specs[i], xs)
            return args
        for i, tree in zip(self.argnums, self._trees(xs), strict=True):
            args[i] = tree
        return args

    def _trees(self, xs: Sequence[Any]) -> list[Any]:
        """The differentiated arguments, with these leaves."""
        rest = iter(xs)
        return [trees.unflatten(self.specs[i], list(itertools.islice(rest, len(self.leaves[i])))) for i in self.argnums]

    def _split(self, out: Any) -> tuple[Any, Any]:
        if not (isinstance(out, tuple) and len(out) == 2):
            raise ArgumentError(
                f"{self.operator}: with has_aux=True, f must return a pair (value, aux); it returned {_short(out)}"
            )
        return out

    def _of_jets(self, xs: Sequence[Any]) -> Backend | None:
        """Whose jets are among xs; those of a pass around are arrays of the backend like others."""
        for x in xs:
            found = owner(x)
            if found is not None and found is not self.backend and hasattr(x, "_jet_level"):
                return found
        return None

    def _output(self, leaf: Any, i: int, backend: Backend) -> Any:
        if isinstance(leaf, float | int) and not isinstance(leaf, bool):
            return self.backend.asarray(float(leaf), self._dtype())  # a constant function is a function
        if not is_array(leaf):
            raise LeafError(
                f"{self.operator}: f returned {_short(leaf)} of type {type(leaf).__name__}"
                f"{self._output_place(i)}, which is not an array. Return arrays, and the rest as aux with has_aux=True"
            )
        if not is_floating(leaf):
            raise DTypeError(
                f"{self.operator}: f returned{self._output_place(i, ' an ')}{describe(leaf)}; "
                f"{number_kind(leaf)} numbers have no derivative here. Return real floating arrays"
            )
        foreign = owner(leaf)
        if foreign is not None and foreign not in (self.backend, backend) and foreign.name not in backend.wraps:
            raise MixedArraysError(
                f"{self.operator}: f returned an array of {foreign.name}, but its arguments are "
                f"of {self.backend.name}. "
                f"Pass backend={foreign.name!r}, or convert what f captures: polyad.convert(x, {self.backend.name!r})"
            )
        return self.adopt(leaf)

    def _output_place(self, i: int, article: str = "") -> str:
        name = trees.names(trees.unflatten(self.out_spec, range(self.out_spec.num_leaves)), "")[i]
        return f" at {name}, {article}" if name else article

    def _dtype(self) -> str:
        return dtype_name(self.xs[0].dtype) if self.xs else self.backend.default_dtype()

    def _put_aside(self, aux: Any) -> Arrays:
        """The arrays of aux, for the adapter; what is no array waits here."""
        leaves, self._aux_spec = trees.flatten(aux)
        self._aux_leaves = [None if is_array(leaf) else leaf for leaf in leaves]
        self._aux_places = [i for i, leaf in enumerate(leaves) if is_array(leaf)]
        return tuple(self.adopt(leaves[i]) for i in self._aux_places)

    # Outside: from the adapter's tuples to the user's trees.

    def outputs(self, ys: Sequence[Any]) -> Any:
        """The tree that f returned, with these leaves."""
        return trees.unflatten(self.out_spec, list(ys))

    def aux(self, arrays: Sequence[Any]) -> Any:
        """The second result of f."""
        leaves = list(self._aux_leaves)
        for place, array in zip(self._aux_places, arrays, strict=True):
            leaves[place] = array
        return trees.unflatten(self._aux_spec, leaves)

    def inputs(self, leaves: Sequence[Any]) -> Any:
        """A tree like args[argnums], or a tuple of them, with these leaves."""
        return trees.unflatten(self.specs[self.argnums[0]], leaves) if self.single else tuple(self._trees(leaves))

    # Checks.

    def _positions(self, argnums: tuple[Any, ...]) -> tuple[int, ...]:
        n = len(self.args)
        if not n:
            raise ArgumentError(f"{self.operator}: no arguments to differentiate. Type {self.operator}(f, x)")
        if not argnums or not all(isinstance(i, int | np.integer) and -n <= i < n for i in argnums):
            raise ArgumentError(
                f"{self.operator}: argnums={argnums if len(argnums) != 1 else argnums[0]!r} with {n} "
                f"argument{'s' * (n != 1)}; give positions from 0 to {n - 1}"
            )
        positions = tuple(int(i) % n for i in argnums)
        if len(set(positions)) != len(positions):
            raise ArgumentError(f"{self.operator}: argnums={argnums} names an argument twice")
        return positions

    def _plain(self, asked: Any) -> Backend | None:
        """The backend where types of leaves tell it, they fit together, and no other is said; with its xs."""
        leaves = [*itertools.chain(*self.leaves)]
        kinds = {*map(type, leaves)}
        found = owner(leaves[0]) if leaves else None
        if found is None or (asked is not None and get(asked) is not found):
            return None
        if len(kinds) > 1 and any(owner(leaf) is not found for leaf in leaves):
            return None
        if type(self.f) is not FunctionType and not kinds.issuperset(map(type, declared_arrays(self.f))):
            return None
        if carried(found) is not found or not found.side_by_side(leaves):
            return None
        xs = tuple(self._chosen())
        if not all(map(floating, {*map(_dtype, xs)})):
            return None
        self.xs, self.kinds = xs, kinds
        return found

    def _of_some(self, asked: str | Backend | None) -> Backend:
        """The backend of a call whose arguments are not that plain, checked; with its xs."""
        self.backend = self._resolve(asked)
        self._check_devices()
        self.xs = tuple(self._differentiated())
        return self.backend

    def _resolve(self, asked: str | Backend | None) -> Backend:
        try:
            found = single_owner(itertools.chain(*self.leaves, declared_arrays(self.f)))
        except MixedArraysError:
            raise MixedArraysError(self._mixed()) from None
        if asked is not None:
            backend = carried(get(asked))
            if found is not None and found is not backend and found.name not in backend.wraps:
                raise MixedArraysError(
                    f"{self.operator}: backend={backend.name!r}, but {self._name_of_first(found)} is an array of "
                    f"{found.name}. Convert the arguments: polyad.convert(x, {backend.name!r})"
                )
            return backend
        if found is None:  # ndarrays alone: what f captures may still speak for itself
            with contextlib.suppress(MixedArraysError):  # f need not use all of it
                found = single_owner(captured_arrays(self.f))
        return carried(found or current())

    def _mixed(self) -> str:
        named = [
            (self.name(i, j), owner(leaf))
            for i, leaves in enumerate(self.leaves)
            for j, leaf in enumerate(leaves)
            if owner(leaf) is not None
        ]
        named += [(CARRIED, owner(x)) for x in declared_arrays(self.f) if owner(x) is not None]
        (first, mine), (second, other) = named[0], next(n for n in named if n[1] is not named[0][1])
        name, target = (first, other) if second == CARRIED else (second, mine)
        return (
            f"{self.operator}: {first} is an array of {_called(mine)}, {second} of {_called(other)}. "
            f"Convert one of them: polyad.convert({name}, {_called(target)!r})"
        )

    def _name_of_first(self, backend: Backend) -> str:
        for i, leaves in enumerate(self.leaves):
            for j, leaf in enumerate(leaves):
                if owner(leaf) is backend:
                    return self.name(i, j)
        return "an array of f"

    def _check_devices(self) -> None:
        backend, known = self.backend, None
        for leaves in self.leaves:
            for leaf in leaves:
                device = backend.device(leaf) if owner(leaf) is backend else known
                known = device if known is None else known
                if device != known:
                    return self._refuse_devices()
        return None

    def _refuse_devices(self) -> None:
        first: tuple[int, int, Any] | None = None
        for i, leaves in enumerate(self.leaves):
            for j, leaf in enumerate(leaves):
                if owner(leaf) is not self.backend or not tuple(leaf.shape):  # numbers go to any device
                    continue
                device = self.backend.device(leaf)
                first = first or (i, j, device)
                if device != first[2]:
                    here, there = self.name(i, j), self.name(first[0], first[1])
                    raise MixedArraysError(
                        f"{self.operator}: {there} is on {first[2]}, {here} on {device}. "
                        f"Move one: polyad.convert({here}, {self.backend.name!r}, device={str(first[2])!r})"
                    )

    def _chosen(self) -> Iterable[Any]:
        return self.leaves[0] if self.argnums == (0,) else itertools.chain(*[self.leaves[i] for i in self.argnums])

    def _differentiated(self) -> list[Any]:
        xs = [*self._chosen()]
        places = [(i, j) for i in self.argnums for j in range(len(self.leaves[i]))]
        for place, (x, (i, j)) in enumerate(zip(xs, places, strict=True)):
            if owner(x) is not self.backend or not floating(x.dtype):
                xs[place] = self._differentiable(x, i, j)
        return xs

    def _differentiable(self, leaf: Any, i: int, j: int) -> Any:
        if isinstance(leaf, float):
            return self.backend.asarray(leaf, self.backend.default_dtype())
        if is_floating(leaf):
            return self.adopt(leaf)
        name = self.name(i, j)
        if isinstance(leaf, bool | int | complex) or is_array(leaf):
            what = describe(leaf) if is_array(leaf) else f"the {type(leaf).__name__} {leaf!r}"
            kind = number_kind(leaf) if is_array(leaf) else type(leaf).__name__
            cure = (
                "differentiate with respect to its real and imaginary parts"
                if kind == "complex"
                else f"make it floating ({_floating(leaf)}), or choose other argnums"
            )
            raise DTypeError(f"{self.operator}: {name} is {_an(what)}; {kind} numbers have no derivative here: {cure}")
        raise LeafError(
            f"{self.operator}: {name} is {_short(leaf)} of type {type(leaf).__name__}, not an array. Keep it out of "
            f"the differentiated arguments (argnums), or put None in its place"
        )

    def adopt(self, leaf: Any) -> Any:
        """ndarrays as arrays of the backend; everything else as it is."""
        if is_host(leaf) and leaf.dtype.kind in "biufc":
            return np.asarray(leaf) if self.backend.host else self.backend.asarray(leaf, None, self._device)
        return leaf

    @functools.cached_property
    def _device(self) -> Any:
        for leaves in self.leaves:
            for leaf in leaves:
                if owner(leaf) is self.backend:
                    return self.backend.device(leaf)
        return None

    def name(self, i: int, j: int) -> str:
        """What a person would type to reach leaf j of argument i."""
        return trees.names(self.args[i], self._argument_name(i))[j]

    def _argument_name(self, i: int) -> str:
        try:
            parameters = list(inspect.signature(self.f).parameters.values())
        except (TypeError, ValueError):
            parameters = []
        if i < len(parameters) and parameters[i].kind in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        ):
            return parameters[i].name
        return f"args[{i}]"


def _whole(operator: str, chunk_size: Any) -> int:
    if isinstance(chunk_size, bool) or not isinstance(chunk_size, int | np.integer) or chunk_size < 1:
        raise ArgumentError(
            f"{operator}: chunk_size={chunk_size!r}; it is the number of directions in one sweep, 1 or more, or None "
            f"for as many as fit in memory"
        )
    return int(chunk_size)


def _called(backend: Backend | None) -> str:
    return backend.name if backend else "numpy"


def _short(x: Any) -> str:
    text = " ".join(repr(x).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _an(what: str) -> str:
    if what.startswith("the "):
        return what
    return f"{'an' if what[0] in 'aeiou' else 'a'} {what}"


def _floating(leaf: Any) -> str:
    return f"write {float(leaf)!r}" if isinstance(leaf, bool | int) else "x * 1.0 or x.astype(float)"
