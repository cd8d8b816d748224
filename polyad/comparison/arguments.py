"""The arguments of a loss: which of their leaves move, and how all of them get onto a backend."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polyad import trees
from polyad.arrays import convert, number_kind, stop_gradient
from polyad.backends import is_array, owner
from polyad.backends.base import Array, Arrays, Backend
from polyad.captures import unboxed
from polyad.errors import ArgumentError, DTypeError
from polyad.stateful import StatefulLayer

__all__ = ["Arguments", "Leaf", "host"]


@dataclass(frozen=True)
class Leaf:
    """One leaf of the arguments.

    name   what a person would type to reach it
    value  an ndarray, or what is no array as it is
    moves  whether the gradient is taken in it
    """

    name: str
    value: Any
    moves: bool


class Arguments:
    """The arguments of f as ndarrays, from arrays of any backend.

    argnums  whose floating leaves move; None: those of all arguments
    raises   ArgumentError, DTypeError; DetachError for a traced array

    A StatefulLayer is the tree of its parameters, which move, and of its state,
    which does not; f gets a new one of the same model at each evaluation.
    """

    def __init__(self, f: Callable[..., Any], args: Sequence[Any], argnums: int | Sequence[int] | None) -> None:
        self.args = [unboxed(arg) for arg in args]
        names = argument_names(f, len(args))
        moving = range(len(args)) if argnums is None else _positions(argnums, len(args))
        self.leaves = [
            leaf
            for i, (arg, name) in enumerate(zip(self.args, names, strict=True))
            for leaf in _leaves(arg, name, i in moving)
        ]
        for i in moving if argnums is not None else ():
            if not any(leaf.moves for leaf in _leaves(self.args[i], names[i], True)):
                raise DTypeError(f"compare: {names[i]} has no floating leaf to differentiate; choose other argnums")
        if not self.moving:
            raise DTypeError(
                "compare: no argument has a floating leaf to differentiate. Pass arrays of floating numbers: "
                "compare(f, np.ones(3))"
            )

    @property
    def moving(self) -> list[Leaf]:
        """The leaves that are differentiated."""
        return [leaf for leaf in self.leaves if leaf.moves]

    @property
    def fixed(self) -> list[Leaf]:
        """The other arrays."""
        return [leaf for leaf in self.leaves if not leaf.moves and is_array(leaf.value)]

    @property
    def homes(self) -> dict[str, str]:
        """Backends that a model among the arguments needs, and which one does."""
        nets = [net for arg in self.args for net in trees.leaves(arg) if isinstance(net, StatefulLayer)]
        return {net.model.backend: repr(net.model) for net in nets if hasattr(net.model, "backend")}

    def placed(self, backend: Backend, device: Any, dtype: str | None) -> tuple[Arrays, Arrays]:
        """(moving, fixed) as arrays of this backend."""

        def put(leaf: Leaf) -> Array:
            value = leaf.value
            if isinstance(value, float):
                value = np.asarray(value, dtype=dtype or backend.default_dtype())
            return convert(value, backend, device=device, dtype=dtype)

        return tuple(map(put, self.moving)), tuple(map(put, self.fixed))

    def rebuilt(self, moving: Sequence[Array], fixed: Sequence[Array]) -> list[Any]:
        """The arguments of f with these arrays as their leaves."""
        some, others = iter(moving), iter(fixed)
        values = iter(
            [next(some) if leaf.moves else next(others) if is_array(leaf.value) else leaf.value for leaf in self.leaves]
        )
        return [_joined(arg, values) for arg in self.args]


def host(array: Array) -> Any:
    """The numbers of an array of any backend as an ndarray."""
    array = stop_gradient(array)
    backend = owner(array)
    return np.asarray(array if backend is None else backend.to_host(array))


def argument_names(f: Callable[..., Any], n: int) -> list[str]:
    """Names of the first n positional arguments of f."""
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [parameter.name for parameter in parameters if parameter.kind in by_position][:n]
    return [*names, *(f"args[{i}]" for i in range(len(names), n))]


def _positions(argnums: int | Sequence[int], n: int) -> list[int]:
    positions = [argnums] if isinstance(argnums, int) else list(argnums)
    if not positions or not all(isinstance(i, int) and -n <= i < n for i in positions):
        raise ArgumentError(
            f"compare: argnums={argnums!r} with {n} argument{'s' * (n != 1)}; give positions from 0 to {n - 1}"
        )
    return [i % n for i in positions]


def _leaves(tree: Any, name: str, moves: bool) -> Iterator[Leaf]:
    for value, place in zip(trees.leaves(tree), trees.names(tree, name), strict=True):
        if isinstance(value, StatefulLayer):
            yield from _leaves(value.params, f"{place}.params", moves)
            yield from _leaves(value.state, f"{place}.state", False)
        elif is_array(value):
            yield Leaf(place, host(value), moves and number_kind(value) == "floating")
        else:
            yield Leaf(place, value, moves and isinstance(value, float))


def _joined(tree: Any, values: Iterator[Any]) -> Any:
    """The tree with these leaves; a StatefulLayer is made anew."""

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, StatefulLayer):
            return next(values)
        params = trees.map(lambda _: next(values), leaf.params)
        return StatefulLayer(leaf.model, params, trees.map(lambda _: next(values), leaf.state))

    return trees.map(one, tree)
