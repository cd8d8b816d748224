"""What a function reads besides its arguments: variables it closes over and of its module, attributes of its objects.

It is walked once and read at each call. Arrays among it are inputs like any
other. Everything else is a constant that must be what it was: a number by its
value, an ndarray by its entries, a container by its keys, an object by its identity
and by those of its attributes that the code names.
"""

import functools
import inspect
import operator
import sys
from collections import deque
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from polyad.backends import is_array, is_host, owner
from polyad.backends.base import Backend
from polyad.errors import ImpureFunctionError
from polyad.layers.layer import Layer
from polyad.models.adopted import Adopted

__all__ = ["PLAIN", "Environment", "Same", "plain"]

PLAIN = (bool, int, float, complex, str, bytes, type(None))
Read = Callable[[], Any]
Write = Callable[[Any], Any] | None
Part = tuple[str, Read, Write]

_UNORDERED = (set, bytearray)  # containers whose entries have no places of their own

_ENTRIES = 256  # a longer container without arrays is data


# Methods that run without their name in the code: of an object, and of a class that is called.
CALLED = frozenset(
    {f"__{name}__" for name in ("call", "getattr", "getitem", "iter", "len", "enter", "exit", "matmul", "rmatmul")}
    | {f"__{side}{name}__" for side in ("", "r") for name in ("add", "sub", "mul", "truediv", "pow")}
    | {"__neg__", "forward"}
)
MADE = CALLED | {"__init__", "__new__", "__post_init__"}


class Same:
    """An object as a key: equal to itself alone, and kept alive so that no other one takes its identity."""

    __slots__ = ("it",)

    def __init__(self, it: Any) -> None:
        self.it = it

    def __hash__(self) -> int:
        return id(self.it)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.it is self.it


def plain(value: Any) -> Any:
    """A number or text as a key: 0.0 is not -0.0, 1 is not True, and nan is nan."""
    return type(value), repr(value) if isinstance(value, float | complex) else value


def _equal(now: Any, known: Any) -> bool:
    return type(known) in PLAIN and type(now) is type(known) and plain(now) == plain(known)


class Slot:
    """A place where a value is read, and the value that it had."""

    def __init__(self, name: str, read: Read, write: Write, value: Any, settled: bool) -> None:
        self.settled = settled  # nothing else can stand there
        self.name, self.read, self.write, self.value = name, read, write, value
        self.copy: Any = None
        if is_host(value) or isinstance(value, _UNORDERED):
            self.copy = value.copy()
        elif isinstance(value, dict | list | deque):
            self.copy = dict(value) if isinstance(value, dict) else [*value]

    def is_same(self) -> bool:
        """Whether it has that value still."""
        now, known = self.read(), self.value
        if is_host(known):
            return now is known and np.array_equal(now, self.copy, equal_nan=now.dtype.kind in "fc")
        if isinstance(known, dict):
            return now is known and now.keys() == self.copy.keys()
        if isinstance(known, list | deque):
            return now is known and len(now) == len(self.copy)
        if isinstance(known, _UNORDERED):
            return now is known and now == self.copy
        return now is known or _equal(now, known)

    def restore(self) -> None:
        """Make it have that value again, as far as it can be written."""
        if isinstance(self.value, list | deque | bytearray):
            self.value.clear()
            self.value.extend(self.copy)
        elif isinstance(self.value, dict | set):
            self.value.clear()
            self.value.update(self.copy)
        elif is_host(self.value) and self.value.ndim and self.value.flags.writeable:
            self.value[...] = self.copy
        if self.write is not None:
            self.write(self.value)

    def key(self) -> Any:
        """What a function that was compiled for this value is kept under."""
        value = self.value
        if is_host(value):
            return value.shape, value.dtype, value.tobytes()
        if type(value) in PLAIN:
            return plain(value)
        if isinstance(value, dict | list | tuple | deque):
            return type(value), tuple(value) if isinstance(value, dict) else len(value)
        if isinstance(value, _UNORDERED):
            return type(value), frozenset(value) if isinstance(value, set) else bytes(value)
        if isinstance(value, FunctionType):
            return Same(value.__code__)  # what it closes over has slots of its own
        return type(value) if _open(value) else Same(value)


class _Settled:
    """Reads one thing for good."""

    def __init__(self, it: Any) -> None:
        self.it = it

    def __call__(self) -> Any:
        return self.it


class Environment:
    """What the roots, functions and objects, read besides the arguments of a call.

    backend  whose arrays are inputs; others are constants
    key      equal for environments that compiled code may be shared between; number
             is one for each key, given by who compares them
    """

    number = 0

    def __init__(self, roots: tuple[Any, ...], backend: Backend) -> None:
        self.backend, walk = backend, _Walk(backend)
        before = -1
        while len(walk.names) != before:  # names of code that was found late may be those of what was found before
            before = len(walk.names)
            walk.start()
            for i, root in enumerate(roots):
                walk.visit(getattr(root, "__name__", f"args[{i}]"), _Settled(root), None)
        self.fixed, self.moving = walk.fixed, walk.moving
        # What can change at all, since this is read at each call.
        self._reads = _Reads([slot for slot in self.fixed if not slot.settled])
        self._sizes = [(slot.value, len(slot.copy)) for slot in self.fixed if isinstance(slot.value, list | deque)]
        self._keys = [(slot.value, [*slot.copy]) for slot in self.fixed if isinstance(slot.value, dict)]
        self._entries = [slot for slot in self.fixed if is_host(slot.value) or isinstance(slot.value, _UNORDERED)]
        self._arrays = _Reads(self.moving)
        first: dict[int, int] = {}
        self.shared = [first.setdefault(id(slot.value), i) for i, slot in enumerate(self.moving)]
        self.repeated = [(i, j) for i, j in enumerate(self.shared) if i != j]
        # With the places of the arrays: (2.0, array) is not (array, 2.0).
        places = tuple([(slot.name, place) for slot, place in zip(self.moving, walk.places, strict=True)])
        self.key = (tuple([(slot.name, slot.key()) for slot in self.fixed]), places, tuple(self.shared))

    def arrays(self) -> tuple[Any, ...] | None:
        """The arrays as they are now; None where something else is not as it was."""
        try:
            found = self._reads()
            if not all(map(operator.is_, found, self._reads.known)):
                for now, known in zip(found, self._reads.known, strict=True):
                    if now is not known and not _equal(now, known):
                        return None
            for entries, size in self._sizes:
                if len(entries) != size:
                    return None
            for mapping, keys in self._keys:
                if [*mapping] != keys:  # in another order f may do something else too
                    return None
            for slot in self._entries:
                if not slot.is_same():
                    return None
            arrays = tuple(self._arrays.in_order())
        except (AttributeError, LookupError, ValueError):  # a name that is not there any more
            return None
        if any(arrays[i] is not arrays[j] for i, j in self.repeated):
            return None
        backend = self.backend
        for x in arrays:
            if owner(x) is not backend:
                return None
        return arrays

    def refuse_changes(self, before: tuple[Any, ...]) -> None:
        """Put everything back and raise, unless it is what it was when these were its arrays.

        raises  ImpureFunctionError: f assigns to a variable or an attribute outside
        """
        for slot, value in zip(self.moving, before, strict=True):
            slot.value = value
        changed = [slot for slot in (*self.fixed, *self.moving) if not _is_same(slot)]
        for slot in changed:
            slot.restore()
        if changed:
            raise ImpureFunctionError(
                f"compile: f changes {changed[0].name}{', and others' * (len(changed) > 1)}, which lies outside of it. "
                f"Compiled, it would do so when it is compiled and never again; everything is as it was before. "
                f"Return the new value, and assign it outside"
            )


class _Reads:
    """Reads many slots at once: of what stands in the same dict in one go.

    known  their values, in the order in which they are read
    """

    def __init__(self, slots: list[Slot]) -> None:
        by_dict: dict[int, list[int]] = {}
        self._others: list[Read] = []
        places = []
        for i, slot in enumerate(slots):
            if (held := _entry(slot.read)) is None:
                self._others.append(slot.read)
                places.append(i)
            else:
                by_dict.setdefault(id(held[0]), []).append(i)
        self._dicts: list[tuple[Callable[[Any], tuple[Any, ...]], Any]] = []
        order: list[int] = []
        for some in by_dict.values():
            entries = [slots[i].read.args for i in some]  # type: ignore[attr-defined]
            keys = [key for _, key in entries]
            keys, some = (keys, some) if len(keys) > 1 else (2 * keys, 2 * some)  # of one it would be no tuple
            self._dicts.append((operator.itemgetter(*keys), entries[0][0]))
            order += some
        order += places
        self.known = [slots[i].value for i in order]
        self._back = [order.index(i) for i in range(len(slots))]

    def __call__(self) -> list[Any]:
        found: list[Any] = []
        for getter, held in self._dicts:
            found += getter(held)
        for read in self._others:
            found.append(read())
        return found

    def in_order(self) -> list[Any]:
        """The values of the slots, in their order."""
        found = self()
        return [found[i] for i in self._back]


def _entry(read: Read) -> Any:
    """(dict, key) of what reads an entry of a dict; else None."""
    if not isinstance(read, functools.partial) or read.func is not operator.getitem:
        return None
    return read.args if type(read.args[0]) is dict else None


def _is_same(slot: Slot) -> bool:
    try:
        return slot.is_same()
    except (AttributeError, LookupError, ValueError):
        return False


class _Walk:
    """Slots of everything that can be reached, by names that the code uses."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.names: set[str] = set()

    def start(self) -> None:
        self.fixed: list[Slot] = []
        self.moving: list[Slot] = []
        self.places: list[int] = []  # of each that moves, how many fixed ones come before it
        self.seen: dict[int, Any] = {}
        self.read: set[tuple[int, str]] = set()

    def visit(self, name: str, read: Read, write: Write) -> None:
        """The value that is read here, and what can be reached from it."""
        try:
            value = read()
        except (AttributeError, LookupError, ValueError):  # not assigned yet
            return
        if owner(value) is self.backend:
            self.moving.append(Slot(name, read, write, value, False))
            self.places.append(len(self.fixed))
            return
        self.fixed.append(Slot(name, read, write, value, isinstance(read, _Settled)))
        if type(value) in PLAIN or is_array(value) or id(value) in self.seen:
            return
        self.seen[id(value)] = value
        for part in self.parts(name, value):
            self.visit(*part)

    def parts(self, name: str, x: Any) -> Iterator[Part]:
        if isinstance(x, FunctionType):
            yield from self.of_function(x)
        elif isinstance(x, MethodType):
            yield name, _Settled(x.__func__), None
            yield name.rpartition(".")[0] or "self", _Settled(x.__self__), None
        elif isinstance(x, functools.partial):
            for part in ("func", "args", "keywords"):
                yield f"{name}.{part}", _Settled(getattr(x, part)), None
        elif isinstance(x, dict):
            if len(x) <= _ENTRIES or any(map(is_array, x.values())):
                for key in tuple(x):
                    yield f"{name}[{key!r}]", functools.partial(operator.getitem, x, key), _setter(x, key)
        elif isinstance(x, list | tuple | deque):
            if len(x) <= _ENTRIES or any(map(is_array, x)):
                for i in range(len(x)):
                    if isinstance(x, tuple):
                        yield f"{name}[{i}]", _Settled(x[i]), None
                    else:
                        yield f"{name}[{i}]", functools.partial(operator.getitem, x, i), _setter(x, i)
        elif isinstance(x, ModuleType):
            if not _is_library(x.__name__):
                yield from self.of_attributes(name, x)
        elif isinstance(x, type):
            yield from self.of_class(name, x, MADE)
        else:
            yield from self.of_object(name, x)

    def of_function(self, f: FunctionType) -> Iterator[Part]:
        for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
            yield (
                name,
                functools.partial(getattr, cell, "cell_contents"),
                functools.partial(setattr, cell, "cell_contents"),
            )
        for default in ("__defaults__", "__kwdefaults__"):
            yield f"{f.__name__}.{default}", functools.partial(getattr, f, default), None
        if _is_library(f.__module__):
            return
        own = set(_names(f.__code__))
        self.names |= own
        for name in sorted(name for name in own & f.__globals__.keys() if (id(f.__globals__), name) not in self.read):
            self.read.add((id(f.__globals__), name))
            yield name, functools.partial(operator.getitem, f.__globals__, name), _setter(f.__globals__, name)

    def of_object(self, name: str, x: Any) -> Iterator[Part]:
        if hasattr(x, "__wrapped__"):
            yield name, functools.partial(getattr, x, "__wrapped__"), None
        if str(type(x).__module__).partition(".")[0] == "polyad" and not _open(x):
            return
        kinds = [kind for kind in type(x).__mro__ if kind is not object]
        own = [kind for kind in kinds if not _is_library(kind.__module__)]
        for kind in own:
            yield from self.of_class(name, kind, CALLED)
        if hasattr(x, "__dict__") and (len(own) < len(kinds) or own):
            yield from self.of_attributes(name, x, all_of_them=len(own) < len(kinds))
        for key in sorted({key for kind in own for key in getattr(kind, "__slots__", ())} & self.names):
            yield f"{name}.{key}", functools.partial(getattr, x, key), functools.partial(setattr, x, key)

    def of_attributes(self, name: str, x: Any, all_of_them: bool = False) -> Iterator[Part]:
        """Of an object of a library everything, but for what a net keeps to itself; else what code names."""
        known, hidden = vars(x), _open(x)
        described = _is_description(type(x))
        if not (described or isinstance(x, ModuleType)):
            self.fixed.append(Slot(f"an attribute of {name}", _Settled(known), None, known, True))
        for key in tuple(known):
            if described and not callable(known[key]) and not isinstance(known[key], list | dict):
                yield f"{name}.{key}", _Settled(known[key]), None
            elif not (hidden and key.startswith("_")) if all_of_them else key in self.names:
                yield f"{name}.{key}", functools.partial(operator.getitem, known, key), _setter(known, key)

    def of_class(self, name: str, kind: type, always: frozenset[str]) -> Iterator[Part]:
        """Methods and attributes that code names, and what Python calls without a name."""
        if _is_library(kind.__module__):
            return
        for key in sorted((self.names | always) & vars(kind).keys()):
            value = inspect.getattr_static(kind, key)
            if isinstance(value, FunctionType | property | staticmethod | classmethod):
                function = getattr(value, "fget", None) or getattr(value, "__func__", value)
                yield f"{name}.{key}", _Settled(function), None
            elif not hasattr(value, "__get__"):
                yield f"{name}.{key}", functools.partial(getattr, kind, key), functools.partial(setattr, kind, key)


def _open(x: Any) -> bool:
    """Whether an object of polyad, or of a class that is derived of one, has attributes that f may read."""
    return hasattr(type(x), "declared_arrays") or (isinstance(x, Layer) and not isinstance(x, Adopted))


def _is_description(kind: type) -> bool:
    """Whether it is a layer of polyad itself, whose sizes and rates nobody changes."""
    return str(kind.__module__).startswith("polyad.layers.")


def _setter(container: Any, key: Any) -> Callable[[Any], None]:
    return functools.partial(operator.setitem, container, key)


def _names(code: CodeType) -> Iterator[str]:
    """Names in a function and in the functions that are written inside of it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


@functools.cache
def _is_library(module: str | None) -> bool:
    """Whether variables of this module are taken for constants: of polyad, Python, and installed packages."""
    top = str(module or "builtins").partition(".")[0]
    if top in ("polyad", "builtins") or top in sys.stdlib_module_names - {"__main__"}:
        return True
    file = getattr(sys.modules.get(top), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file
