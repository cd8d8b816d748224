"""StatefulLayer: a model with its parameters and state, callable; and compose."""

from collections.abc import Callable, Iterator
from typing import Any

from polyad import trees
from polyad.arrays import dtype_name, is_floating
from polyad.backends import Scope, current, is_array, owner
from polyad.backends.base import Backend
from polyad.captures import declared_arrays, unboxed
from polyad.errors import ArgumentError, DTypeError, ImpureFunctionError, MixedArraysError, ParameterError
from polyad.layers.layer import Layer, Tree

__all__ = ["Composition", "StatefulLayer", "compose"]


class StatefulLayer:
    """net(x), or net(x, params) with other parameters, for a model (x, params, state) -> (y, state).

    net.state is the state after the last plain call. A derivative operator
    reads it and leaves it as it is, but for value_and_... of the net itself,
    which is a plain call too and writes it once. A call inside a transformation
    that began after the net was made writes nothing: no tracer is ever stored.
    Where an operator evaluates its function again later, the net has the state there
    that it had the first time: the same random masks.

    x is what the model takes: an array, or a tuple, list or dict of them.

    raises  ParameterError where params do not fit the model
    """

    def __init__(self, model: Callable[..., Any], params: Tree, state: Tree) -> None:
        params = params if type(params) is dict else unboxed(params)
        if isinstance(model, Layer):
            model.check_parameters(params)
        self.model, self.params, self.state = model, params, state
        self._scope = Scope()

    def __call__(self, x: Any, params: Tree = None) -> Any:
        y, state = self.value_and_state(x, params)
        self.write(state)
        return y

    def value_and_state(self, x: Any, params: Tree = None) -> tuple[Any, Tree]:
        """(y, the state after this call), which is not written."""
        params = self.params if params is None else unboxed(params)
        out = self.model(_fitting(params, x), params, self._scope.read(self, self.state))
        if not isinstance(out, tuple) or len(out) != 2:
            raise ArgumentError(f"{self.model!r} must return (y, state); it returned {type(out).__name__}")
        return out

    def write(self, state: Tree) -> None:
        """Make this the state, in the place where the net was made and nowhere else."""
        if state is self.state:
            return
        if self._scope.is_here():
            self.state = state
        elif self._scope.is_lost():
            raise ImpureFunctionError(
                "compile: a call of this StatefulLayer, which was made outside of the compiled function, changes its "
                "state, and would do so when it is compiled and never again. Make it inside, "
                "net = StatefulLayer(model, params, state), and return net.state; or type polyad.test_mode(state)"
            )
        elif self._scope.is_mapped():
            raise ImpureFunctionError(
                "vmap: a call of this StatefulLayer, which was made outside of the mapped function, changes its state, "
                "once for each point. Make it inside, net = StatefulLayer(model, params, state), where a change is one "
                "of that point, and return net.state if you want it; or type polyad.test_mode(state)"
            )

    def __reduce__(self) -> Any:
        return StatefulLayer, (self.model, self.params, self.state)  # the place of a copy is where it is made

    def declared_arrays(self) -> Iterator[Any]:
        """Arrays that decide on which backend this runs."""
        leaves, _ = trees.flatten(self.params)
        if leaves and len({*map(type, leaves)}) == 1:  # all of them or none, which is asked once
            return iter(leaves if is_array(leaves[0]) else ())
        return filter(is_array, leaves)

    def __rshift__(self, f: Callable[..., Any]) -> "Composition":
        return Composition(f, self)

    def __rlshift__(self, f: Callable[..., Any]) -> "Composition":
        return Composition(f, self)

    def __lshift__(self, f: Callable[..., Any]) -> "Composition":
        return Composition(self, f)

    def __rrshift__(self, f: Callable[..., Any]) -> "Composition":
        return Composition(self, f)

    def __repr__(self) -> str:
        return f"StatefulLayer({self.model!r})"


class Composition:
    """outer(inner(x)): parameters of StatefulLayers in it stay visible."""

    def __init__(self, outer: Callable[..., Any], inner: Callable[..., Any]) -> None:
        self.outer, self.inner = outer, inner

    def __call__(self, *args: Any) -> Any:
        return self.outer(self.inner(*args))

    def declared_arrays(self) -> Iterator[Any]:
        """Those of both parts."""
        yield from declared_arrays(self.inner)
        yield from declared_arrays(self.outer)

    __rshift__ = StatefulLayer.__rshift__
    __rlshift__ = StatefulLayer.__rlshift__
    __lshift__ = StatefulLayer.__lshift__
    __rrshift__ = StatefulLayer.__rrshift__

    def __repr__(self) -> str:
        return f"compose({self.outer!r}, {self.inner!r})"


def compose(*functions: Callable[..., Any]) -> Callable[..., Any]:
    """The function x -> f(g(net(x))) for compose(f, g, net); also net >> g >> f and f << net."""
    if not functions or not all(map(callable, functions)):
        raise ParameterError(f"compose{functions!r}: needs functions. Type compose(f, net)")
    first, *rest = reversed(functions)
    for f in rest:
        first = Composition(f, first)
    return first


def _fitting(params: Tree, x: Any) -> Any:
    """The input, or tree of inputs, in the framework of the parameters; an error where framework or dtype differ."""
    first = params
    while type(first) is dict and first:
        first = first[next(iter(first))]
    if type(x) is type(first) and owner(x) is not None and x.dtype == first.dtype:
        return x
    first = _first(params, first)
    if first is None:
        return x
    if type(x) in (tuple, list, dict):
        return trees.map(lambda leaf: _fitted(params, first, leaf), x)
    return _fitted(params, first, x)


def _first(params: Tree, guess: Any) -> Any:
    """The first array, which may be this one; None where there is none."""
    if not isinstance(guess, (dict, list, tuple)) and is_array(guess):
        return guess
    return next((leaf for leaf in trees.leaves(params) if is_array(leaf)), None)


def _fitted(params: Tree, first: Any, x: Any) -> Any:
    if not is_array(x):
        return x
    mine, other = owner(first), owner(x)
    if other is None and mine is not None and not mine.host:
        x = mine.asarray(x, None, mine.device(first))
    elif not _together(mine, other):
        name, its_name = mine.name if mine else "numpy", other.name if other else "numpy"
        # What the call around makes of x comes back whatever x was.
        cure = f"params, {its_name!r}" if other is not None and other is current() else f"x, {name!r}"
        raise MixedArraysError(
            f"{_name(params, first)} is an array of {name}, x of {its_name}. "
            f"Convert one of them: polyad.convert({cure})"
        )
    if first.dtype != x.dtype and is_floating(x) and is_floating(first):
        mine_dtype, its_dtype = dtype_name(first.dtype), dtype_name(x.dtype)
        raise DTypeError(
            f"{_name(params, first)} is {mine_dtype}, x is {its_dtype}. Type polyad.convert(x, "
            f"{(other or current()).name!r}, dtype={mine_dtype!r}), or setup(..., dtype={its_dtype!r})"
        )
    return x


def _together(mine: Backend | None, other: Backend | None) -> bool:
    """Whether arrays of the two go into one product."""
    if mine is None or other is None:
        backend = mine or other
        return backend is None or backend.host
    return mine is other or mine.name in other.wraps or other.name in mine.wraps


def _name(params: Tree, leaf: Any) -> str:
    leaves = trees.leaves(params)
    return trees.names(params, "params")[next(i for i, x in enumerate(leaves) if x is leaf)]
