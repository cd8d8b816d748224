"""ravel: a tree of arrays as one flat vector, and back."""

import functools
import math
from collections.abc import Callable
from typing import Any

from polyad import trees
from polyad.arrays import describe, dtype_name, is_floating, number_kind, single_owner, xp
from polyad.backends import current, get, is_array, is_host, owner
from polyad.backends.base import Backend
from polyad.captures import unboxed
from polyad.errors import ArgumentError, DTypeError, LeafError, MixedArraysError

__all__ = ["ravel"]

Unravel = Callable[[Any], Any]


def ravel(tree: Any) -> tuple[Any, Unravel]:
    """All leaves of a tree in one vector, and the function that makes the tree again.

    tree     a pytree of floating arrays and Python floats; None has no leaves
    returns  (vector, unravel): vector of shape (n,), in the order of the leaves,
             on their device. Leaves of several dtypes are promoted in it, and
             cast back by unravel, as in jax.flatten_util.ravel_pytree; Python
             floats take the dtype of the others. Both directions differentiate
    raises   DTypeError for integer, boolean and complex leaves, LeafError for
             what is no array, MixedArraysError for two frameworks or devices;
             all name the leaf. unravel raises ArgumentError and DTypeError for
             a vector of another shape or dtype
    """
    leaves, spec = trees.flatten(unboxed(tree))
    names = trees.names(trees.unflatten(spec, leaves), "tree")
    for leaf, name in zip(leaves, names, strict=True):
        _check(leaf, name)
    backend, device = _one_backend(leaves, names)
    arrays = [leaf for leaf in leaves if is_array(leaf)]
    dtype = dtype_name(xp.result_type(*arrays)) if arrays else (backend or current()).default_dtype()
    parts = [_cast(_array(leaf, dtype, backend, device), dtype) for leaf in leaves]
    flat = [xp.reshape(part, (math.prod(part.shape),)) for part in parts]
    vector = xp.concat(flat) if flat else current().asarray([], dtype)
    layout = [(tuple(x.shape), dtype_name(x.dtype)) if is_array(x) else ((), dtype) for x in leaves]
    return vector, functools.partial(_unravel, spec, layout, dtype)


def _unravel(spec: trees.TreeSpec, layout: list[tuple[tuple[int, ...], str]], dtype: str, vector: Any) -> Any:
    """The tree of this structure, its leaves cut from the vector."""
    n = sum(math.prod(shape) for shape, _ in layout)
    if not is_array(vector) or tuple(vector.shape) != (n,):
        what = describe(vector) if is_array(vector) else repr(vector)
        raise ArgumentError(f"unravel: got {what}; this tree needs a vector of shape ({n},)")
    if dtype_name(vector.dtype) != dtype:
        raise DTypeError(
            f"unravel: the vector is {dtype_name(vector.dtype)}, the tree was raveled to {dtype}. "
            f"Type unravel(xp.astype(vector, xp.{dtype}))"
        )
    leaves, start = [], 0
    for shape, own in layout:
        stop = start + math.prod(shape)
        leaves.append(_cast(xp.reshape(vector[start:stop], shape), own))
        start = stop
    return trees.unflatten(spec, leaves)


def _check(leaf: Any, name: str) -> None:
    if isinstance(leaf, float) or is_floating(leaf):
        return
    if is_array(leaf) or isinstance(leaf, bool | int | complex):
        what = describe(leaf) if is_array(leaf) else f"{type(leaf).__name__} {leaf!r}"
        kind = number_kind(leaf) if is_array(leaf) else type(leaf).__name__
        raise DTypeError(
            f"ravel: {name} is the {what}; {kind} numbers have no derivative and do not go into the vector. "
            f"Make it floating, or keep it out of the tree: put None in its place"
        )
    raise LeafError(f"ravel: {name} is of type {type(leaf).__name__}, not an array. Put None in its place")


def _one_backend(leaves: list[Any], names: list[str]) -> tuple[Backend | None, Any]:
    """(backend, device) of the leaves; MixedArraysError names two that do not go together."""
    try:
        backend = single_owner(leaves)
    except MixedArraysError as error:
        raise MixedArraysError(f"ravel: {error}") from None
    first: tuple[Any, str] | None = None
    for leaf, name in zip(leaves, names, strict=True):
        if backend is None or owner(leaf) is not backend:
            continue
        device = backend.device(leaf)
        first = first or (device, name)
        if device != first[0]:
            raise MixedArraysError(
                f"ravel: {first[1]} is on {first[0]}, {name} on {device}. "
                f"Move one: polyad.convert({name}, {backend.name!r}, device={str(first[0])!r})"
            )
    return backend, first[0] if first else None


def _array(leaf: Any, dtype: str, backend: Backend | None, device: Any) -> Any:
    """Numbers, and ndarrays next to arrays of another backend, as arrays of the backend."""
    if not is_array(leaf):
        return (backend or current()).asarray(leaf, dtype, device)
    return backend.asarray(leaf, None, device) if backend and is_host(leaf) and not backend.host else leaf


def _cast(x: Any, dtype: str) -> Any:
    return x if dtype_name(x.dtype) == dtype else xp.astype(x, (owner(x) or get("numpy")).dtype(dtype))
