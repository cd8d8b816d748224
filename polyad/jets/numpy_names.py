"""NumPy's own spelling: np.tanh(jet), np.sum(jet, axis=0), np.where(...).

NumPy hands every call with a jet among its arguments to the two protocols of
NEP 13 and NEP 18. Here its names and signatures become those of the standard.
A function that is not in the table raises; none falls back to plain values.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from polyad.arrays import xp
from polyad.errors import UnsupportedError
from polyad.jets.rule import apply

__all__ = ["call_function", "call_ufunc"]

_UFUNC_NAMES = {
    "absolute": "abs",
    "fabs": "abs",
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctan2": "atan2",
    "arctanh": "atanh",
    "conjugate": "conj",
    "deg2rad": "radians",
    "float_power": "pow",
    "fmod": "fmod",
    "power": "pow",
    "rad2deg": "degrees",
    "rint": "round",
    "true_divide": "divide",
}
_SCALED = {"radians": np.pi / 180, "degrees": 180 / np.pi}
_REDUCTIONS = {"add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min"}
_DEFAULTS: dict[str, Any] = {"out": None, "where": True, "dtype": None, "casting": "same_kind", "order": "K", "subok": True}


def call_ufunc(ufunc: Any, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What Jet.__array_ufunc__ answers."""
    name = _UFUNC_NAMES.get(ufunc.__name__, ufunc.__name__)
    if method == "reduce" and name in _REDUCTIONS:
        kwargs = {"axis": 0, **kwargs}
        return call_function(getattr(np, _REDUCTIONS[name]), inputs, kwargs)
    if method != "__call__":
        raise _unsupported(f"np.{ufunc.__name__}.{method}")
    _reject_options(f"np.{ufunc.__name__}", kwargs)
    if name in _SCALED:
        return inputs[0] * _SCALED[name]
    if name == "fmod":
        return inputs[0] - inputs[1] * apply("trunc", inputs[0] / inputs[1])
    return apply(name, *inputs)


def _reject_options(name: str, options: dict[str, Any]) -> None:
    for key, value in options.items():
        if key not in _DEFAULTS or (value is not _DEFAULTS[key] and value != (None,)):
            what = "writes into an array" if key == "out" else "has no jet rule"
            raise UnsupportedError(f"{name}(..., {key}=...) {what}; leave {key} out while differentiating")


def _unsupported(name: str) -> UnsupportedError:
    return UnsupportedError(
        f"{name} has no rule for arrays that are being differentiated on the numpy backend. Write it with functions "
        f"that have one (docs: 'NumPy functions that differentiate'), or choose backend='autograd', 'jax' or 'torch'"
    )


def call_function(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What Jet.__array_function__ answers."""
    rule = FUNCTIONS.get(func)
    name = f"{getattr(func, '__module__', 'numpy') or 'numpy'}.{func.__name__}".replace("numpy", "np", 1)
    if rule is None:
        raise _unsupported(name)
    known = inspect.signature(rule).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
        extra = {key: value for key, value in kwargs.items() if key not in known}
        kwargs = {key: value for key, value in kwargs.items() if key in known}
        _reject_defaults(name, extra)
    return rule(*args, **kwargs)


def _reject_defaults(name: str, extra: dict[str, Any]) -> None:
    harmless = (None, np._NoValue, "C", "K", "raise")  # the defaults of NumPy's own options
    for key, value in extra.items():
        if not any(value is default or (isinstance(value, str) and value == default) for default in harmless):
            _reject_options(name, {key: value})


FUNCTIONS: dict[Any, Callable[..., Any]] = {}


def _rule(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def enter(f: Callable[..., Any]) -> Callable[..., Any]:
        for function in functions:
            FUNCTIONS[function] = f
        return f

    return enter


def _standard(*names: str) -> None:
    """Functions whose NumPy signature is the standard's."""
    for name in names:
        function: Any = np
        for part in name.split("."):
            function = getattr(function, part)
        FUNCTIONS[function] = lambda *args, _name=name, **kwargs: apply(_name, *args, **kwargs)


_standard(
    *("all", "any", "argsort", "broadcast_to", "can_cast", "count_nonzero", "diff", "einsum", "empty_like"),
    *("expand_dims", "flip", "full_like", "kron", "matrix_transpose", "meshgrid", "moveaxis", "nonzero"),
    *("ones_like", "outer", "result_type", "roll", "searchsorted", "sinc", "stack", "take", "tensordot", "tile"),
    *("tril", "triu", "unstack", "where", "zeros_like", "round", "repeat"),
    *("linalg.cholesky", "linalg.det", "linalg.eigh", "linalg.eigvalsh", "linalg.inv", "linalg.matrix_power"),
    *("linalg.slogdet", "linalg.solve", "linalg.vector_norm", "linalg.matrix_norm", "linalg.vecdot", "linalg.cross"),
    *("linalg.trace", "linalg.outer", "linalg.tensordot", "linalg.matmul", "linalg.matrix_transpose"),
)


def _reduction(function: Any, name: str) -> None:
    @_rule(function)
    def rule(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        _reject_options(f"np.{function.__name__}", {"out": out})
        options = {} if dtype is None else {"dtype": dtype}
        keepdims = False if keepdims is np._NoValue else keepdims
        return apply(name, a, axis=axis, keepdims=keepdims, **options)


for _function, _name in ((np.sum, "sum"), (np.mean, "mean"), (np.prod, "prod")):
    _reduction(_function, _name)


def _extreme(function: Any, name: str) -> None:
    @_rule(function)
    def rule(a: Any, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        _reject_options(f"np.{function.__name__}", {"out": out})
        return apply(name, a, axis=axis, keepdims=False if keepdims is np._NoValue else keepdims)


for _function, _name in ((np.max, "max"), (np.min, "min")):
    _extreme(_function, _name)


def _spread(function: Any, name: str) -> None:
    @_rule(function)
    def rule(
        a: Any,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        ddof: float = 0,
        keepdims: Any = False,
        *,
        correction: Any = np._NoValue,
    ) -> Any:
        _reject_options(f"np.{function.__name__}", {"out": out, "dtype": dtype})
        ddof = ddof if correction is np._NoValue else correction
        return apply(name, a, axis=axis, correction=ddof, keepdims=False if keepdims is np._NoValue else keepdims)


for _function, _name in ((np.var, "var"), (np.std, "std")):
    _spread(_function, _name)


def _index_of(function: Any, name: str) -> None:
    @_rule(function)
    def rule(a: Any, axis: Any = None, *, keepdims: Any = False) -> Any:
        return apply(name, a, axis=axis, keepdims=False if keepdims is np._NoValue else keepdims)


for _function, _name in ((np.argmax, "argmax"), (np.argmin, "argmin")):
    _index_of(_function, _name)


@_rule(np.sort)
def _sort(a: Any, axis: int | None = -1) -> Any:
    return apply("sort", apply("reshape", a, (-1,)) if axis is None else a, axis=-1 if axis is None else axis)


@_rule(np.cumsum)
def _cumsum(a: Any, axis: int | None = None) -> Any:
    return apply("cumulative_sum", _flat_if_none(a, axis), axis=axis or 0)


@_rule(np.cumprod)
def _cumprod(a: Any, axis: int | None = None) -> Any:
    return apply("cumulative_prod", _flat_if_none(a, axis), axis=axis or 0)


@_rule(np.cumulative_sum)
def _cumulative_sum(x: Any, /, *, axis: int | None = None, include_initial: bool = False) -> Any:
    return apply("cumulative_sum", x, axis=axis, include_initial=include_initial)


@_rule(np.cumulative_prod)
def _cumulative_prod(x: Any, /, *, axis: int | None = None, include_initial: bool = False) -> Any:
    return apply("cumulative_prod", x, axis=axis, include_initial=include_initial)


def _flat_if_none(a: Any, axis: Any) -> Any:
    return apply("reshape", a, (-1,)) if axis is None else a


@_rule(np.clip)
def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    low = min if a_min is None or a_min is np._NoValue else a_min
    high = max if a_max is None or a_max is np._NoValue else a_max
    low, high = (None if z is np._NoValue else z for z in (low, high))
    return np.minimum(_at_least(a, low), high) if high is not None else _at_least(a, low)


def _at_least(a: Any, low: Any) -> Any:
    return a if low is None else np.maximum(a, low)


@_rule(np.reshape)
def _reshape(a: Any, shape: Any = None, order: str = "C", newshape: Any = None) -> Any:
    if order not in ("C", "A"):
        raise UnsupportedError(f"np.reshape(order={order!r}) of an array that is being differentiated; use order='C'")
    return apply("reshape", a, newshape if shape is None else shape)


@_rule(np.ravel)
def _ravel(a: Any, order: str = "C") -> Any:
    return _reshape(a, (-1,), order)


@_rule(np.transpose, np.permute_dims)
def _transpose(a: Any, axes: Any = None) -> Any:
    return apply("permute_dims", a, tuple(reversed(range(a.ndim))) if axes is None else tuple(axes))


@_rule(np.swapaxes)
def _swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    axes = list(range(a.ndim))
    axes[axis1], axes[axis2] = axes[axis2], axes[axis1]
    return apply("permute_dims", a, tuple(axes))


@_rule(np.squeeze)
def _squeeze(a: Any, axis: Any = None) -> Any:
    axis = tuple(i for i, size in enumerate(a.shape) if size == 1) if axis is None else axis
    return apply("squeeze", a, axis=axis)


@_rule(np.concatenate)
def _concatenate(arrays: Any, axis: int | None = 0) -> Any:
    return apply("concat", [xp.asarray(a) for a in arrays], axis=axis)


@_rule(np.vstack)
def _vstack(tup: Any) -> Any:
    return apply("concat", [_atleast_2d(a) for a in tup], axis=0)


@_rule(np.hstack)
def _hstack(tup: Any) -> Any:
    parts = [_atleast_1d(a) for a in tup]
    return apply("concat", parts, axis=0 if parts[0].ndim == 1 else 1)


@_rule(np.column_stack)
def _column_stack(tup: Any) -> Any:
    return apply("concat", [a[:, None] if a.ndim == 1 else a for a in map(_atleast_1d, tup)], axis=1)


@_rule(np.atleast_1d)
def _atleast_1d(a: Any) -> Any:
    a = xp.asarray(a)
    return a[None] if a.ndim == 0 else a


@_rule(np.atleast_2d)
def _atleast_2d(a: Any) -> Any:
    a = _atleast_1d(a)
    return a[None] if a.ndim == 1 else a


@_rule(np.append)
def _append(arr: Any, values: Any, axis: int | None = None) -> Any:
    return apply("concat", [xp.asarray(arr), xp.asarray(values)], axis=axis)


@_rule(np.split, np.array_split)
def _split(ary: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    parts = np.array_split(np.arange(ary.shape[axis]), indices_or_sections)
    if isinstance(indices_or_sections, int) and ary.shape[axis] % indices_or_sections:
        raise ValueError("np.split needs parts of equal length; use a list of indices")
    return [apply("take", ary, part, axis=axis) for part in parts]


@_rule(np.dot)
def _dot(a: Any, b: Any) -> Any:
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        return a * b
    if b.ndim <= 2:
        return apply("matmul", a, b)
    return apply("tensordot", a, b, axes=((a.ndim - 1,), (b.ndim - 2,)))


@_rule(np.inner)
def _inner(a: Any, b: Any) -> Any:
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        return a * b
    return apply("tensordot", a, b, axes=((a.ndim - 1,), (b.ndim - 1,)))


@_rule(np.vdot)
def _vdot(a: Any, b: Any) -> Any:
    return apply("sum", apply("reshape", a, (-1,)) * apply("reshape", b, (-1,)))


@_rule(np.cross)
def _cross(a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> Any:
    if axis is None and not axisa == axisb == axisc:
        raise UnsupportedError("np.cross of arrays that are being differentiated takes one axis for all")
    return apply("linalg.cross", a, b, axis=axisa if axis is None else axis)


@_rule(np.trace)
def _trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return apply("sum", _diagonal(a, offset, axis1, axis2), axis=-1)


@_rule(np.diagonal)
def _diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return apply("linalg.diagonal", apply("moveaxis", a, (axis1, axis2), (-2, -1)), offset=offset)


@_rule(np.diag)
def _diag(v: Any, k: int = 0) -> Any:
    if v.ndim == 2:
        return _diagonal(v, k)
    size = v.shape[0] + abs(k)
    columns = np.eye(v.shape[0], size, k=max(k, 0))
    rows = np.eye(v.shape[0], size, k=max(-k, 0))
    return apply("matmul", rows.T.astype(v.dtype), v[:, None] * columns.astype(v.dtype))


@_rule(np.linalg.norm)
def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    if ord is None or (axis is None and x.ndim == 1) or isinstance(axis, int):
        return apply("linalg.vector_norm", x, axis=axis, keepdims=keepdims, ord=2 if ord is None else ord)
    axes = tuple(range(x.ndim)) if axis is None else axis
    moved = apply("moveaxis", x, axes, (-2, -1))
    y = apply("linalg.matrix_norm", moved, keepdims=keepdims, ord=ord)
    return apply("moveaxis", y, (-2, -1), axes) if keepdims else y


@_rule(np.take_along_axis)
def _take_along_axis(arr: Any, indices: Any, axis: int | None = -1) -> Any:
    return apply("take_along_axis", _flat_if_none(arr, axis), indices, axis=-1 if axis is None else axis)


@_rule(np.fliplr)
def _fliplr(m: Any) -> Any:
    return apply("flip", m, axis=1)


@_rule(np.flipud)
def _flipud(m: Any) -> Any:
    return apply("flip", m, axis=0)


@_rule(np.real, np.copy)
def _same(a: Any, **options: Any) -> Any:
    return a


@_rule(np.nan_to_num)
def _nan_to_num(x: Any, copy: bool = True, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    plain = np.nan_to_num(np.zeros(1, x.dtype) + np.inf)[0]
    high, low = plain if posinf is None else posinf, -plain if neginf is None else neginf
    x = np.where(np.isnan(x), nan, x)
    return np.where(np.isinf(x), np.where(x > 0, high, low), x)


@_rule(np.shape)
def _shape(a: Any) -> tuple[int, ...]:
    return tuple(a.shape)


@_rule(np.ndim)
def _ndim(a: Any) -> int:
    return int(a.ndim)


@_rule(np.size)
def _size(a: Any, axis: int | None = None) -> int:
    return int(a.size if axis is None else a.shape[axis])


@_rule(np.broadcast_arrays)
def _broadcast_arrays(*args: Any) -> Any:
    return tuple(apply("broadcast_arrays", *map(xp.asarray, args)))


@_rule(np.allclose, np.array_equal, np.isclose)
def _compare(*args: Any, **kwargs: Any) -> Any:
    raise _unsupported("np.allclose and np.isclose: compare np.abs(a - b) with a tolerance;")
