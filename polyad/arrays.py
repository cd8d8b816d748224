"""What array is this, and whose is it: `xp`, `array_namespace`, `convert`.

`xp` is the array-API standard as one namespace that dispatches on its
arguments: xp.tanh(x) is torch's for a tensor, JAX's for a tracer, autograd's
for a box, and a jet rule for a jet. Functions without an array argument, such
as xp.zeros(3), belong to the backend of the polyad call around them, else to
the default backend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache, partial, wraps
from typing import TYPE_CHECKING, Any

import numpy as np

from polyad import trees
from polyad.backends import current, get, is_array, is_host, owner, ways
from polyad.errors import DTypeError, MixedArraysError, UnsupportedError

if TYPE_CHECKING:
    from polyad.backends.base import Backend

__all__ = [
    "EPSILON",
    "DType",
    "Namespace",
    "array_namespace",
    "asarray",
    "convert",
    "dtype_name",
    "floating",
    "is_floating",
    "number_kind",
    "operation",
    "single_owner",
    "stop_gradient",
    "xp",
]


class DType:
    """A dtype by its name: equal to the dtype of that name in every framework."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return dtype_name(other) == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"xp.{self.name}"


_DTYPES = {
    name: DType(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float32", "float64", "complex64", "complex128"),
    )
}
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""Relative precision, by the name of the dtype."""
_CONSTANTS = {"e": np.e, "inf": np.inf, "nan": np.nan, "newaxis": None, "pi": np.pi}


@lru_cache(maxsize=None, typed=True)  # those of two frameworks may be equal, or not like to be compared
def dtype_name(dtype: Any) -> str:
    """ "float64" for the float64 of any framework."""
    if isinstance(dtype, DType):
        return dtype.name
    if isinstance(scalar := getattr(dtype, "dtype", None), np.dtype):  # jnp.float64
        return scalar.name
    if isinstance(dtype, type) and issubclass(dtype, np.generic | float | int | bool | complex):
        return np.dtype(dtype).name
    return str(dtype).removeprefix("torch.")


@cache
def _kind(name: str) -> str:
    for prefix, kind in (("float", "floating"), ("bfloat", "floating"), ("complex", "complex"), ("bool", "boolean")):
        if name.startswith(prefix):
            return kind
    return "integer" if name.startswith(("int", "uint")) else name


def number_kind(array: Any) -> str:
    """ "floating", "complex", "integer" or "boolean"; another dtype by its name."""
    return _kind(dtype_name(array.dtype))


def is_floating(x: Any) -> bool:
    """Whether x is an array of real floating numbers."""
    return is_array(x) and floating(x.dtype)


@lru_cache(maxsize=None, typed=True)
def floating(dtype: Any) -> bool:
    """Whether this is a dtype of real floating numbers."""
    return _kind(dtype_name(dtype)) == "floating"


def single_owner(arrays: Iterable[Any]) -> Backend | None:
    """The one framework of these arrays; None if all are ndarrays or no arrays.

    raises  MixedArraysError for two frameworks
    """
    found: Backend | None = None
    first: Any = None
    for x in arrays:
        backend = owner(x)
        if backend is None or backend is found:
            continue
        if found is None or found.name in backend.wraps:
            found, first = backend, x
        elif backend.name not in found.wraps:
            raise MixedArraysError(
                f"arrays of two frameworks in one call: {describe(first)} of {found.name} and {describe(x)} of "
                f"{backend.name}. Convert one of them: polyad.convert(x, {found.name!r})"
            )
    return found


def describe(x: Any) -> str:
    """Shape and dtype of an array, for messages."""
    return f"{dtype_name(x.dtype)} array of shape {tuple(x.shape)}"


def array_namespace(*xs: Any) -> Any:
    """The array-API namespace of these arrays, for library code.

    xs       arrays; numbers and None are passed over
    returns  the namespace of their framework, of NumPy for ndarrays, of the
             current backend if there is no array among them
    raises   MixedArraysError for two frameworks
    """
    return _dispatch(_members(xs))[0]


def asarray(obj: Any, **kwargs: Any) -> Any:
    """xp.asarray; traced arrays stay traced and lists of them are stacked, so nothing is detached.

    An ndarray becomes an array of the current backend, as a list does; an index or a
    mask stays known under a compiler where the framework takes ndarrays.
    """
    backend = owner(obj)
    if backend is None and is_host(obj) and not current().host:
        if not kwargs and obj.dtype.kind in "biu":
            return current().constant(obj)
        backend, obj = current(), np.array(obj) if kwargs.get("copy") else obj
    if backend is not None:
        dtype = kwargs.get("dtype")
        return backend.asarray(obj, None if dtype is None else dtype_name(dtype), kwargs.get("device"))
    if isinstance(obj, list | tuple) and any(True for x in _members(obj) if owner(x) is not None):
        return xp.stack([asarray(x, **kwargs) for x in _with_one_owner(obj)])
    return _call("asarray", (obj,), kwargs)


def _with_one_owner(items: Sequence[Any]) -> list[Any]:
    backend = single_owner(_members(items))
    like = next(x for x in _members(items) if owner(x) is not None)
    assert backend is not None
    return [backend.asarray(x, dtype_name(like.dtype)) if isinstance(x, float | int | np.generic) else x for x in items]


# What holds no array; xp is called often enough that not looking there counts.
_INERT = frozenset((bool, int, float, complex, str, slice, type(None), type(...)))


def _members(args: Iterable[Any]) -> list[Any]:
    """The arguments that may be arrays, those in lists and tuples included."""
    found: list[Any] = []
    for arg in args:
        if type(arg) in _INERT:
            continue
        if isinstance(arg, list | tuple):
            found += _members(arg)
        else:
            found.append(arg)
    return found


def _dispatch(members: Sequence[Any]) -> tuple[Any, Backend | None]:
    """(namespace, its backend or None for plain ndarrays)."""
    found = single_owner(members)
    if found is not None:
        for x in members:
            if owner(x) is found:
                namespace = found.namespace_of(x)
                if namespace is not found.namespace:
                    return namespace, found
        return found.namespace, found
    for x in members:
        if is_host(x):
            return get("numpy").namespace, None
        if hasattr(x, "__array_namespace__"):  # an array of a framework that no adapter knows speaks for itself
            return x.__array_namespace__(), None
    return current().namespace, None


def _call(path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    members = _members((*args, *kwargs.values()))
    namespace, backend = _dispatch(members)
    f = _found(path, namespace, backend)
    if _by_type(members, backend) and _plain(path, args, kwargs):
        ways[path, *map(type, args), *kwargs, *map(type, kwargs.values())] = f
    if path in _JOINING and args and type(args[0]) in (list, tuple):  # an array is the sequence of its rows, too
        kinds = {*map(type, args[0])}
        if len(kinds) == 1 and _by_type(args[0], backend):
            ways[path, "of", *kinds] = f
    if backend is not None and not backend.host and any(isinstance(x, np.ndarray) for x in members):
        args = tuple(_lift(arg, backend, members) for arg in args)
        kwargs = {key: _lift(x, backend, members) for key, x in kwargs.items()}
    if any(type(x) is DType for x in members):
        args = tuple(getattr(namespace, x.name) if type(x) is DType else x for x in args)
    return f(*args, **_resolve(kwargs, namespace)) if kwargs else f(*args)


def _by_type(members: Sequence[Any], backend: Backend | None) -> bool:
    """Whether arrays of these types always mean the same function: nothing has to be converted."""
    if backend is None:
        return bool(members) and all(type(x) is np.ndarray for x in members)
    return all(map(partial(_taken, backend), members))


def _taken(backend: Backend, x: Any) -> bool:
    """Whether the functions of the backend take x as it is, as all of its type."""
    found = owner(x)
    if found is None:
        return backend.host and type(x) is np.ndarray
    return found is backend or found is backend.over


_JOINING = frozenset(("concat", "stack"))  # of many arrays

# What a tuple among their arguments holds are numbers.
_SHAPES = frozenset(("broadcast_to", "permute_dims", "reshape", "axis", "axes"))


def _plain(path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether these arguments are arrays by themselves and what holds none."""
    if not all(type(x) in _INERT or (type(x) is tuple and name in _SHAPES) for name, x in kwargs.items()):
        return False
    return all(type(x) is tuple and path in _SHAPES for x in args if isinstance(x, list | tuple))


def _found(path: str, namespace: Any, backend: Backend | None) -> Any:
    from polyad.compositions import ACTIVATIONS  # they are written in xp

    if path in ACTIVATIONS:  # names that are not the standard's mean something else in some frameworks
        return (backend.native if backend else {}).get(path) or ACTIVATIONS[path]
    f = namespace
    try:
        for part in path.split("."):
            f = getattr(f, part)
    except AttributeError:
        raise UnsupportedError(
            f"xp.{path} is not there for {backend.name if backend else 'this backend'}: "
            f"{getattr(namespace, '__name__', namespace)} has no {path}"
        ) from None
    return f


def _lift(arg: Any, backend: Backend, beside: Any) -> Any:
    """An ndarray as an array of the framework, on the device of the first one beside it."""
    if isinstance(arg, np.ndarray):
        return backend.constant(arg, next((x for x in _members(beside) if owner(x) is not None), None))
    if isinstance(arg, list | tuple) and any(isinstance(x, np.ndarray) for x in arg):
        return type(arg)(_lift(x, backend, beside) for x in arg)
    return arg


def _resolve(kwargs: dict[str, Any], namespace: Any) -> dict[str, Any]:
    return {key: getattr(namespace, x.name) if isinstance(x, DType) else x for key, x in kwargs.items()}


def operation(f: Callable[..., Any]) -> Callable[..., Any]:
    """f, written in xp; where the framework of its arguments has one of this name in `Backend.native`, that one.

    The arguments are trees of arrays. Those that f captures are not seen, so
    what f depends on is given to it. `f.primitive` is f in xp; a native function
    that returns NotImplemented leaves the call to it.
    """
    name = f.__name__

    @wraps(f)
    def dispatched(*args: Any, **kwargs: Any) -> Any:
        native = ways.get((f, *map(type, args)))
        if native is None and (known := _native(f, args)) is not None:
            native = ways[f, *map(type, args)] = known
        if native is not None:
            y = native(*args, **kwargs) if kwargs else native(*args)
            return f(*args, **kwargs) if y is NotImplemented else y
        leaves = [leaf for arg in args if not callable(arg) for leaf in trees.leaves(arg)]
        backend = single_owner(leaves)
        native = None if backend is None else backend.native.get(name)
        if native is not None and backend is not None:
            lift = partial(_lift, backend=backend, beside=leaves)
            lifted = (arg if callable(arg) else trees.map(lift, arg) for arg in args)
            y = native(*lifted, **kwargs)
            if y is not NotImplemented:
                return y
        return f(*args, **kwargs)

    dispatched.primitive = f  # type: ignore[attr-defined]
    return dispatched


def _native(f: Callable[..., Any], args: tuple[Any, ...]) -> Callable[..., Any] | None:
    """What f is for arguments that are all arrays and whose types tell that nothing is to convert; else None."""
    owners = [backend for backend in map(owner, args) if backend is not None]
    if not owners:
        return f if args and all(type(arg) is np.ndarray for arg in args) else None
    found = next((backend for backend in owners if backend.over is not None), owners[0])
    return found.native.get(f.__name__, f) if all(map(partial(_taken, found), args)) else None


class Namespace:
    """The array API, or one of its extensions, dispatching on the arguments."""

    def __init__(self, path: str = "") -> None:
        self._path = path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        special = not self._path and name in _SPECIAL
        value = _SPECIAL[name] if special else _function(f"{self._path}{name}")
        self.__dict__[name] = value  # found without __getattr__ from now on
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_SPECIAL, *dir(get("numpy").namespace)})

    def __repr__(self) -> str:
        return f"<polyad.xp{'.' + self._path.rstrip('.') if self._path else ''}: the array API of its arguments>"


def _function(path: str) -> Any:
    joining = path in _JOINING

    def function(*args: Any, **kwargs: Any) -> Any:
        if joining and len(args) == 1 and type(args[0]) in (list, tuple) and len(kinds := {*map(type, args[0])}) == 1:
            way = ways.get((path, "of", *kinds)) if kwargs.keys() <= {"axis"} else None
            return _call(path, args, kwargs) if way is None else way(*args, **kwargs)
        if kwargs:
            way = ways.get((path, *map(type, args), *kwargs, *map(type, kwargs.values())))
            return _call(path, args, kwargs) if way is None else way(*args, **kwargs)
        way = ways.get((path, *map(type, args)))
        return _call(path, args, kwargs) if way is None else way(*args)

    function.__name__ = path.rpartition(".")[2]
    function.__qualname__ = f"xp.{path}"
    return function


_SPECIAL: dict[str, Any] = {
    **_DTYPES,
    **_CONSTANTS,
    "asarray": asarray,
    "fft": Namespace("fft."),
    "linalg": Namespace("linalg."),
}
xp: Any = Namespace()


def convert(tree: Any, backend: str | Backend, *, device: Any = None, dtype: Any = None) -> Any:
    """The same tree with arrays of another backend.

    tree     a pytree; leaves that are no arrays stay as they are
    dtype    "float32" or "float64" for the floating leaves; the others keep theirs
    device   as the framework names it
    returns  the tree; ndarrays and CPU tensors share memory where the dtype
             stays, a copy is made where JAX would share what others may write to
    raises   DetachError for a traced array, whose derivative would be lost;
             PrecisionError for float64 where the backend has it switched off
    """
    target = get(backend)
    return trees.map(lambda leaf: _convert_leaf(leaf, target, device, dtype) if is_array(leaf) else leaf, tree)


def _convert_leaf(array: Any, target: Backend, device: Any, dtype: Any) -> Any:
    name = dtype_name(dtype) if dtype is not None and number_kind(array) == "floating" else None
    if name is not None and _kind(name) != "floating":
        raise DTypeError(f"convert: dtype={name!r} is no floating dtype; write 'float32' or 'float64'")
    source = owner(array)
    if source is not None and source.over is target:  # a jet over its arrays stays one
        target = source
    values = array if source is None or source is target else source.to_host(array)
    return target.asarray(values, name, device)


def stop_gradient(tree: Any) -> Any:
    """The same values; a constant to every derivative around, of any order and mode."""
    return trees.map(_stop_leaf, tree)


def _stop_leaf(x: Any) -> Any:
    backend = owner(x)
    while backend is not None:
        x = backend.stop_gradient(x)
        inner = owner(x)  # a jet may have had boxes as its parts
        backend = inner if inner is not backend else None
    return x
