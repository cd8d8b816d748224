"""Which arrays a callable carries along: what it declares, and what it closes over."""

import functools
import inspect
import itertools
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import CellType, CodeType, FunctionType
from typing import Any

from polyad import trees
from polyad.backends import is_array, owner

__all__ = [
    "captured_arrays",
    "declared_arrays",
    "flattened",
    "pinned",
    "unboxed",
]

_ENTRIES = 256  # a longer list is data, not parameters
_PLAIN = (dict, list, tuple)
_DEPTH = 4  # closures inside closures; deeper ones are still right, only not asked for their backend


def unboxed(tree: Any) -> Any:
    """The tree, in plain containers where a framework has put boxes around them."""
    if not isinstance(tree, _PLAIN) and owner(tree) is None and tree is not None:
        return trees.map(lambda leaf: leaf, tree)  # asking for the owner has loaded the adapter that knows the box
    return tree


def flattened(tree: Any, kinds: Collection[type] = ()) -> tuple[list[Any], trees.TreeSpec]:
    """trees.flatten of the tree in plain containers, quicker for what is an array itself, as one of these types is."""
    if type(tree) in kinds:
        return [tree], trees.LEAF
    if type(tree) is dict:
        return trees.flatten(tree)
    return ([tree], trees.LEAF) if owner(tree) is not None else trees.flatten(unboxed(tree))


def declared_arrays(f: Any) -> list[Any]:
    """The arrays of a StatefulLayer or of a composition with one."""
    if type(f) is FunctionType:
        return []
    f = f.__self__ if inspect.ismethod(f) else f
    declare = getattr(type(f), "declared_arrays", None)
    return list(declare(f)) if declare else []


def captured_arrays(f: Callable[..., Any]) -> list[Any]:
    """Arrays in closures, variables of the module, defaults, partials and bound objects. Looks at no source."""
    return [x for x in _reachable(f, _DEPTH) if is_array(x)]


@contextmanager
def pinned(f: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """f with its closed-over variables as they are now, for evaluations when the caller has gone on.

    A loop that defines f in its body gives the variables other values before
    the pass around f evaluates it again. What f itself assigns (nonlocal) in
    the block goes to the variables of the caller.
    """
    if not inspect.isfunction(f) or not f.__closure__:
        yield f
        return
    cells = [(cell, _copied(cell)) for cell in f.__closure__]
    copy = FunctionType(f.__code__, f.__globals__, f.__name__, f.__defaults__, tuple(new for _, new in cells))
    copy.__kwdefaults__, copy.__qualname__, copy.__module__ = f.__kwdefaults__, f.__qualname__, f.__module__
    before = [_content(new) for _, new in cells]
    yield copy
    for (cell, new), old in zip(cells, before, strict=True):
        if _content(new) is not old:
            cell.cell_contents = new.cell_contents


_EMPTY = object()


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that is not assigned yet
        return _EMPTY


def _copied(cell: CellType) -> CellType:
    content = _content(cell)
    return cell if content is _EMPTY else CellType(content)


def _reachable(x: Any, depth: int) -> Iterator[Any]:
    if depth < 0:
        return
    if inspect.isfunction(x):  # first, since the owner of what is no array is looked for each time
        for part in itertools.chain(_cells(x), _globals(x), x.__defaults__ or ()):
            yield from _reachable(part, depth - 1)
    elif hasattr(type(x), "declared_arrays"):
        yield from declared_arrays(x)
    elif is_array(x):
        yield x
    elif isinstance(x, functools.partial):
        for part in (x.func, *x.args, *x.keywords.values()):
            yield from _reachable(part, depth - 1)
    elif inspect.ismethod(x):
        yield from _reachable(x.__func__, depth - 1)
        yield from _reachable(getattr(x.__self__, "__dict__", None), depth - 1)
    elif callable(x) and not isinstance(x, type) and not inspect.isbuiltin(x):
        yield from _reachable(getattr(x, "__dict__", None), depth - 1)
    elif isinstance(x, dict | list | tuple) and len(x) <= _ENTRIES:
        for leaf in trees.leaves(x):
            yield from _reachable(leaf, depth - 1)


def _globals(f: Any) -> Iterator[Any]:
    """Variables of its module that f names; functions of other modules are not gone into."""
    for name in _names(f.__code__):
        value = f.__globals__.get(name)
        if not inspect.isfunction(value) or value.__module__ == f.__module__:
            yield value


def _names(code: CodeType) -> Iterator[str]:
    """Names in a function and in the functions that are written inside of it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _cells(f: Any) -> Iterator[Any]:
    for cell in f.__closure__ or ():
        if _content(cell) is not _EMPTY:
            yield cell.cell_contents
