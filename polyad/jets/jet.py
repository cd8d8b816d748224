"""The array object: a value and the derivative parts of it."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from polyad.arrays import dtype_name, xp
from polyad.backends import owner
from polyad.errors import DetachError, UnsupportedError
from polyad.jets.kind import Level
from polyad.jets.rule import apply, foreign, lift

__all__ = ["Jet", "bottom", "make"]


class Jet:
    """An array with derivative parts; kind.py says which parts a kind of jets has.

    primal   an array, or a jet of a lower level
    tangent  shape (k, *primal.shape): the derivative in k directions, or None
    compact  the tangent as it is kept: axes along which it does not vary may have length 1
    plain    arrays of the shape of the primal, None for zero
    """

    __slots__ = ("_jet_level", "compact", "plain", "primal")
    __array_priority__ = 2000.0  # above ndarrays (0), autograd's boxes (100) and tensors (1000)

    _jet_level: Level
    primal: Any
    compact: Any
    plain: tuple[Any, ...]

    def __new__(cls, level: Level, primal: Any, tangent: Any, plain: tuple[Any, ...] = ()) -> "Jet":
        if not level.records():
            raise UnsupportedError(_UNRECORDED)
        kind = type(primal)
        jet: Jet = object.__new__(_types.get(kind) or _type_over(kind))
        jet._jet_level = level
        jet.primal = primal
        jet.compact = tangent
        jet.plain = plain
        return jet

    @property
    def tangent(self) -> Any:
        """Shape (k, *primal.shape), or None."""
        t, shape = self.compact, self.shape
        return t if t is None or tuple(t.shape[1:]) == shape else xp.broadcast_to(t, (t.shape[0], *shape))

    def _mapped(self, f: Callable[[Any], Any]) -> "Jet":
        """The jet of f of each of its parts."""
        parts = [None if part is None else f(part) for part in (self.primal, self.compact, *self.plain)]
        return Jet(self._jet_level, parts[0], parts[1], tuple(parts[2:]))

    # What every array has.

    shape = property(lambda self: tuple(self.primal.shape))
    dtype = property(lambda self: self.primal.dtype)
    ndim = property(lambda self: self.primal.ndim)
    size = property(lambda self: self.primal.size)
    device = property(lambda self: getattr(self.primal, "device", "cpu"))
    T = property(lambda self: apply("permute_dims", self, tuple(reversed(range(self.ndim)))))
    mT = property(lambda self: apply("matrix_transpose", self))  # noqa: N815  (the standard's name)
    itemsize = property(lambda self: self.primal.itemsize)
    nbytes = property(lambda self: self.primal.nbytes)
    real = property(lambda self: self)
    imag = property(lambda self: apply("zeros_like", self))

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        backend = owner(self)
        assert backend is not None
        return backend.namespace_of(self)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from polyad.jets.numpy_names import call_ufunc

        return call_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        from polyad.jets.numpy_names import call_function

        return call_function(func, args, kwargs)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from polyad.jets.torch_names import call_function

        return call_function(func, args, kwargs or {})

    def __repr__(self) -> str:
        kind = type(self._jet_level.kind).__name__
        return f"Jet(level={int(self._jet_level)}, {kind}, primal={self.primal!r}); it is being differentiated"

    def __format__(self, spec: str) -> str:
        return format(self.primal, spec) if spec else repr(self)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and _is_tensor(self) and hasattr(bottom(self), name):
            return _of_torch(name, self)
        if name.startswith("__") or not hasattr(np.ndarray, name):
            raise AttributeError(f"a Jet has no attribute {name!r}")
        what = f"writes into it; use {_INSTEAD[name]}" if name in _INSTEAD else "has no derivative rule"
        raise _MissingAttributeError(f"x.{name} of an array x that is being differentiated {what}. {_CURE}")

    def __len__(self) -> int:
        return len(self.primal)

    def __iter__(self) -> Any:
        if not self.ndim:
            raise TypeError("iteration over an array of no dimensions")
        return (self[i] for i in range(self.shape[0]))

    def __getitem__(self, index: Any) -> Any:
        return apply("getitem", self, index)

    __hash__ = None  # type: ignore[assignment]  # as ndarrays: == is elementwise

    # Values may be looked at, but not taken out: the derivative would be lost.

    def __bool__(self) -> bool:
        return bool(self.primal)

    def __float__(self) -> float:
        raise DetachError(_detached("float(x), a function of math, or out[i] = x,", "Python floats and plain ndarrays"))

    def __int__(self) -> int:
        raise DetachError(_detached("int(x)", "Python integers"))

    def __complex__(self) -> complex:
        raise DetachError(_detached("complex(x)", "Python numbers"))

    def __index__(self) -> int:
        raise DetachError(_detached("an index", "indices"))

    def item(self, *args: Any) -> Any:
        """Raises DetachError: a Python number has no derivative."""
        raise DetachError(_detached("x.item()", "Python numbers"))

    def tolist(self) -> Any:
        """Raises DetachError: a list of numbers has no derivative."""
        raise DetachError(_detached("x.tolist()", "lists of numbers"))

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise DetachError(_detached("np.asarray(x)", "plain ndarrays"))

    def __setitem__(self, index: Any, value: Any) -> None:
        raise UnsupportedError(
            "x[...] = value writes into an array that is being differentiated. "
            "Build the array instead: np.where(mask, value, x), np.concatenate or np.stack"
        )

    # Methods that NumPy code calls.

    def _method(name: str, **defaults: Any) -> Any:  # type: ignore[misc]  # noqa: N805  (used in this class body only)
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            if _is_tensor(self):  # the same name may mean another thing: std, transpose, repeat
                return _of_torch(name, self)(*args, **kwargs)
            return getattr(np, name)(self, *args, **{**defaults, **kwargs})

        method.__name__ = name
        return method

    all, any = _method("all"), _method("any")
    argmax, argmin, argsort = _method("argmax"), _method("argmin"), _method("argsort")
    clip, round = _method("clip"), _method("round")
    cumsum, cumprod = _method("cumsum"), _method("cumprod")
    diagonal, trace = _method("diagonal"), _method("trace")
    dot = _method("dot")
    max, min, sum, prod = _method("max"), _method("min"), _method("sum"), _method("prod")
    nonzero, searchsorted = _method("nonzero"), _method("searchsorted")
    mean, std, var = _method("mean"), _method("std"), _method("var")
    repeat, squeeze, swapaxes, take = _method("repeat"), _method("squeeze"), _method("swapaxes"), _method("take")
    ravel, flatten = _method("ravel"), _method("ravel")
    conj = conjugate = _method("conj")
    del _method

    def reshape(self, *shape: Any, order: str = "C") -> Any:
        """x.reshape(2, 3) or x.reshape((2, 3))."""
        if _is_tensor(self):
            return _of_torch("reshape", self)(*shape)
        return np.reshape(self, shape[0] if len(shape) == 1 else shape, order=order)  # type: ignore[call-overload]

    def transpose(self, *axes: Any) -> Any:
        """x.transpose(), x.transpose(1, 0) or x.transpose((1, 0))."""
        if _is_tensor(self):
            return _of_torch("transpose", self)(*axes)
        return np.transpose(self, axes[0] if len(axes) == 1 else axes or None)

    def astype(self, dtype: Any, copy: bool = True) -> Any:
        """Another floating dtype keeps the derivative; an integer one has none."""
        return apply("astype", self, dtype)

    def copy(self, order: str = "C") -> Any:
        """The same jet: nothing writes into one."""
        return self

    def __copy__(self) -> Any:
        foreign((self,))  # a copy of a tensor may be a constant
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self.__copy__()

    # Operators.

    def __neg__(self) -> Any:
        return apply("negative", self)

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return apply("abs", self)

    def __round__(self, ndigits: int | None = None) -> Any:
        return np.round(self, ndigits or 0)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self


# Jets have a type for each type of arrays at their bottom, which so tells their backend.
_types: dict[type, type[Jet]] = {}


def _type_over(kind: type) -> type[Jet]:
    found = kind if issubclass(kind, Jet) else type("Jet", (Jet,), {"__slots__": (), "__module__": __name__})
    return _types.setdefault(kind, found)


def _is_tensor(x: Any) -> bool:
    return hasattr(type(bottom(x)), "__torch_function__")


def _of_torch(name: str, x: Any) -> Any:
    from polyad.jets.torch_names import method

    return method(name, x)


_UNRECORDED = (
    "no_grad() or an autograd.Function in f, where torch keeps no graph of the derivatives that jets carry. "
    "Use polyad.stop_gradient(x) to make x a constant"
)
_INSTEAD = {
    "fill": "np.full_like",
    "partition": "np.sort",
    "put": "np.where",
    "resize": "np.reshape",
    "sort": "np.sort",
}
_CURE = "Use functions of numpy or polyad.xp on the array itself, or polyad.stop_gradient(x) to treat it as constant"


class _MissingAttributeError(UnsupportedError, AttributeError):
    """Both, so that hasattr() keeps its meaning."""


def _detached(what: str, result: str) -> str:
    return (
        f"{what} of an array that is being differentiated: {result} carry no derivative, so it would be lost. {_CURE}"
    )


def _binary(name: str) -> tuple[Any, Any]:
    def forward(self: Any, other: Any) -> Any:
        other = xp.asarray(other) if isinstance(other, list) else other
        return apply(name, self, other) if _is_operand(other) else NotImplemented

    def reflected(self: Any, other: Any) -> Any:
        other = xp.asarray(other) if isinstance(other, list) else other
        return apply(name, other, self) if _is_operand(other) else NotImplemented

    return forward, reflected


def _is_operand(x: Any) -> bool:
    return isinstance(x, int | float | complex | Jet) or hasattr(x, "shape")


_OPERATORS = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "pow",
    "matmul": "matmul",
}
_COMPARISONS = {
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
}
for _operator, _name in _OPERATORS.items():
    _forward, _reflected = _binary(_name)
    setattr(Jet, f"__{_operator}__", _forward)
    setattr(Jet, f"__r{_operator}__", _reflected)
for _operator, _name in _COMPARISONS.items():
    setattr(Jet, f"__{_operator}__", _binary(_name)[0])


def make(level: Level, primal: Any, tangent: Any, plain: tuple[Any, ...] = ()) -> Any:
    """A jet whose parts have the dtype of the primal; the primal alone without any part.

    raises  UnsupportedError for complex numbers: not all rules know them
    """
    if tangent is None and not [part for part in plain if part is not None]:
        return primal
    dtype, shape = primal.dtype, tuple(primal.shape)
    if _is_complex(type(dtype).__module__, dtype):
        raise UnsupportedError(
            "complex numbers made of an array that is being differentiated: jets know real ones only. "
            "Write real and imaginary parts as two arrays, or choose backend='jax' or 'torch'"
        )
    if tangent is not None:
        if tangent.dtype != dtype:
            tangent = xp.astype(tangent, dtype)
        if tangent.ndim <= len(shape):
            tangent = lift(tangent, len(shape))
    return Jet(level, primal, tangent, tuple([_fitting(part, shape, dtype) for part in plain]) if plain else plain)


def _fitting(part: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    if part is None:
        return None
    if part.dtype != dtype:
        part = xp.astype(part, dtype)
    return part if part.shape == shape or tuple(part.shape) == shape else xp.broadcast_to(part, shape)


def bottom(x: Any) -> Any:
    """The array of a framework that a jet is made of; another array itself."""
    while isinstance(x, Jet):
        x = x.primal
    return x


@cache
def _is_complex(module: str, dtype: Any) -> bool:
    # The module keeps dtypes of two frameworks apart, which may not like to be compared.
    return dtype_name(dtype).startswith("complex")
