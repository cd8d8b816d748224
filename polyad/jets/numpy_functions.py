"""NumPy's functions that differentiate, in functions of the standard.

Parameters bear NumPy's names; an option that is missing here is refused unless
it has its default.
"""

from typing import Any

import numpy as np

from polyad.arrays import stop_gradient, xp
from polyad.errors import UnsupportedError
from polyad.jets.numpy_names import constant, rule, standard
from polyad.jets.rule import apply

__all__: list[str] = []

standard(
    *(
        "astype",
        "broadcast_to",
        "cumulative_prod",
        "cumulative_sum",
        "diff",
        "einsum",
        "expand_dims",
        "flip",
        "full_like",
    ),
    *(
        "kron",
        "matrix_transpose",
        "meshgrid",
        "moveaxis",
        "outer",
        "repeat",
        "roll",
        "sinc",
        "stack",
        "take",
        "tensordot",
    ),
    *("tile", "tril", "triu", "unstack"),
    *(
        "linalg.cholesky",
        "linalg.cross",
        "linalg.det",
        "linalg.diagonal",
        "linalg.eigh",
        "linalg.eigvalsh",
        "linalg.inv",
    ),
    *("linalg.matmul", "linalg.matrix_norm", "linalg.matrix_power", "linalg.matrix_transpose", "linalg.outer"),
    *("linalg.pinv", "linalg.qr", "linalg.slogdet", "linalg.solve", "linalg.svd", "linalg.svdvals", "linalg.tensordot"),
    *("linalg.trace", "linalg.vecdot", "linalg.vector_norm"),
)
constant(
    *("all", "allclose", "any", "argmax", "argmin", "argpartition", "argsort", "argwhere", "around", "array2string"),
    *("array_equal", "array_equiv", "array_repr", "array_str", "can_cast", "count_nonzero", "digitize", "empty_like"),
    *("fix", "flatnonzero", "isclose", "iscomplexobj", "isneginf", "isposinf", "isreal", "isrealobj", "lexsort"),
    *("may_share_memory", "min_scalar_type", "nanargmax", "nanargmin", "ndim", "nonzero", "ones_like", "result_type"),
    *("round", "searchsorted", "shape", "shares_memory", "size", "zeros_like", "linalg.matrix_rank"),
)


# Reductions.


def _reduction(function: Any, name: str) -> None:
    @rule(function)
    def answer(a: Any, axis: Any = None, dtype: Any = None, *, keepdims: bool = False) -> Any:
        options = {} if dtype is None else {"dtype": dtype}
        return apply(name, a, axis=axis, keepdims=keepdims, **options)


for _name in ("sum", "mean", "prod"):
    _reduction(getattr(np, _name), _name)


def _extreme(function: Any, name: str) -> None:
    @rule(function)
    def answer(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
        return apply(name, a, axis=axis, keepdims=keepdims)


for _name in ("max", "min"):
    _extreme(getattr(np, _name), _name)
    _extreme(getattr(np, f"a{_name}"), _name)


def _spread(function: Any, name: str) -> None:
    @rule(function)
    def answer(
        a: Any, axis: Any = None, dtype: Any = None, *, ddof: float = 0, keepdims: bool = False, correction: Any = None
    ) -> Any:
        a = a if dtype is None else apply("astype", a, dtype)
        return apply(name, a, axis=axis, correction=ddof if correction is None else correction, keepdims=keepdims)


for _name in ("var", "std"):
    _spread(getattr(np, _name), _name)


@rule(np.cumsum)
def _cumsum(a: Any, axis: int | None = None, dtype: Any = None) -> Any:
    return apply("cumulative_sum", _flat_if_none(a, axis), axis=axis or 0, dtype=dtype)


@rule(np.cumprod)
def _cumprod(a: Any, axis: int | None = None, dtype: Any = None) -> Any:
    return apply("cumulative_prod", _flat_if_none(a, axis), axis=axis or 0, dtype=dtype)


def _flat_if_none(a: Any, axis: Any) -> Any:
    return apply("reshape", a, (-1,)) if axis is None else a


@rule(np.ptp)
def _ptp(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return np.max(a, axis=axis, keepdims=keepdims) - np.min(a, axis=axis, keepdims=keepdims)


@rule(np.average)
def _average(a: Any, axis: Any = None, weights: Any = None, *, keepdims: bool = False) -> Any:
    if weights is None:
        return np.mean(a, axis=axis, keepdims=keepdims)
    if np.ndim(weights) == 1 and np.ndim(a) > 1:
        shape = [1] * np.ndim(a)
        shape[axis] = -1
        weights = np.reshape(weights, shape)
    weights = xp.broadcast_to(xp.asarray(weights), np.shape(a))
    total = np.sum(weights, axis=axis, keepdims=keepdims)
    return np.sum(a * weights, axis=axis, keepdims=keepdims) / total


@rule(np.median)
def _median(a: Any, axis: int | None = None, *, keepdims: bool = False) -> Any:
    n = a.size if axis is None else a.shape[axis]
    middle = apply("take", _sort(a, axis), np.array([(n - 1) // 2, n // 2]), axis=axis or 0)
    y = np.mean(middle, axis=axis or 0)
    return np.reshape(y, np.sum(stop_gradient(a), axis=axis, keepdims=keepdims).shape)


def _without_nan(function: Any, over: Any) -> None:
    @rule(function)
    def answer(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
        missing = np.isnan(a)
        total = np.sum(np.where(missing, 0.0, a), axis=axis, keepdims=keepdims)
        return total / np.sum(~missing, axis=axis, keepdims=keepdims, dtype=a.dtype) if over else total


_without_nan(np.nansum, False)
_without_nan(np.nanmean, True)


@rule(np.trapezoid)
def _trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    y = xp.moveaxis(xp.asarray(y), axis, -1)
    steps = dx if x is None else np.diff(x if np.ndim(x) == 1 else xp.moveaxis(xp.asarray(x), axis, -1))
    return np.sum((y[..., 1:] + y[..., :-1]) / 2 * steps, axis=-1)


# Order.


@rule(np.sort)
def _sort(a: Any, axis: int | None = -1, kind: Any = None) -> Any:
    return apply("sort", _flat_if_none(a, axis), axis=-1 if axis is None else axis)


@rule(np.take_along_axis)
def _take_along_axis(arr: Any, indices: Any, axis: int | None = -1) -> Any:
    return apply("take_along_axis", _flat_if_none(arr, axis), indices, axis=-1 if axis is None else axis)


# Values chosen by conditions.


@rule(np.where)
def _where(condition: Any, *branches: Any) -> Any:
    if not branches:
        return np.nonzero(condition)
    return apply("where", condition, *(xp.asarray(z) if isinstance(z, list) else z for z in branches))


@rule(np.select)
def _select(condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    y = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        y = np.where(condition, choice, y)
    return y


@rule(np.clip)
def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    low, high = min if a_min is None else a_min, max if a_max is None else a_max
    a = a if low is None else np.maximum(a, low)
    return a if high is None else np.minimum(a, high)


@rule(np.nan_to_num)
def _nan_to_num(x: Any, copy: bool = True, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    largest = np.finfo(x.dtype).max
    high, low = largest if posinf is None else posinf, -largest if neginf is None else neginf
    x = np.where(np.isnan(x), nan, x)
    return np.where(np.isinf(x), np.where(x > 0, high, low), x)


@rule(np.interp)
def _interp(x: Any, xp: Any, fp: Any) -> Any:
    xp, fp = _array(xp), _array(fp)
    i = np.clip(np.searchsorted(stop_gradient(xp), stop_gradient(x), side="right"), 1, xp.shape[0] - 1)
    x0, x1, y0, y1 = xp[i - 1], xp[i], fp[i - 1], fp[i]
    inside = y0 + (x - x0) / (x1 - x0) * (y1 - y0)
    return np.where(x < xp[0], fp[0], np.where(x > xp[-1], fp[-1], inside))


# Shapes.


@rule(np.reshape)
def _reshape(a: Any, shape: Any = None, order: str = "C") -> Any:
    if order not in ("C", "A"):
        raise UnsupportedError(f"np.reshape(order={order!r}) of an array that is being differentiated; use order='C'")
    return apply("reshape", a, shape)


@rule(np.ravel)
def _ravel(a: Any, order: str = "C") -> Any:
    return _reshape(a, (-1,), "C" if order == "K" else order)


@rule(np.transpose, np.permute_dims)
def _transpose(a: Any, axes: Any = None) -> Any:
    return apply("permute_dims", a, tuple(reversed(range(a.ndim))) if axes is None else tuple(axes))


@rule(np.swapaxes)
def _swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    axes = list(range(a.ndim))
    axes[axis1], axes[axis2] = axes[axis2], axes[axis1]
    return apply("permute_dims", a, tuple(axes))


@rule(np.squeeze)
def _squeeze(a: Any, axis: Any = None) -> Any:
    axis = tuple(i for i, size in enumerate(a.shape) if size == 1) if axis is None else axis
    return apply("squeeze", a, axis=axis)


@rule(np.fliplr)
def _fliplr(m: Any) -> Any:
    return apply("flip", m, axis=1)


@rule(np.flipud)
def _flipud(m: Any) -> Any:
    return apply("flip", m, axis=0)


@rule(np.rot90)
def _rot90(m: Any, k: int = 1, axes: tuple[int, int] = (0, 1)) -> Any:
    for _ in range(k % 4):
        m = np.flip(np.swapaxes(m, *axes), axis=axes[0])
    return m


@rule(np.broadcast_arrays)
def _broadcast_arrays(*args: Any) -> Any:
    return tuple(apply("broadcast_arrays", *map(_array, args)))


@rule(np.real, np.copy, np.real_if_close)
def _same(a: Any) -> Any:
    return a


# Joining and splitting.


def _array(x: Any) -> Any:
    return x if hasattr(x, "shape") else xp.asarray(x)


def _at_least(n: int, x: Any) -> Any:
    """x with n axes or more, as np.atleast_1d, 2d and 3d place them."""
    x = _array(x)
    shape = tuple(x.shape)
    full = {(3, 1): (1, *shape, 1), (3, 2): (*shape, 1)}.get((n, x.ndim), (1,) * (n - x.ndim) + shape)
    return x if full == shape else xp.reshape(x, full)


def _joining(function: Any, n: int, axis: Any) -> None:
    @rule(function)
    def answer(tup: Any) -> Any:
        parts = [_at_least(n, x) for x in tup]
        return apply("concat", parts, axis=axis(parts[0]))


_joining(np.vstack, 2, lambda x: 0)
_joining(np.hstack, 1, lambda x: 0 if x.ndim == 1 else 1)
_joining(np.dstack, 3, lambda x: 2)


def _padding_axes(function: Any, n: int) -> None:
    @rule(function)
    def answer(*arys: Any) -> Any:
        parts = tuple(_at_least(n, x) for x in arys)
        return parts[0] if len(parts) == 1 else parts


for _n in (1, 2, 3):
    _padding_axes(getattr(np, f"atleast_{_n}d"), _n)


@rule(np.concatenate)
def _concatenate(arrays: Any, axis: int | None = 0, *, dtype: Any = None, casting: Any = None, out: Any = None) -> Any:
    if out is not None:
        raise UnsupportedError("np.concatenate(..., out=...) writes into an array. Write out = np.concatenate(...)")
    y = apply("concat", [_array(a) for a in arrays], axis=axis)
    return y if dtype is None else apply("astype", y, dtype)


@rule(np.column_stack)
def _column_stack(tup: Any) -> Any:
    return apply("concat", [a[:, None] if a.ndim == 1 else a for a in (_at_least(1, x) for x in tup)], axis=1)


@rule(np.append)
def _append(arr: Any, values: Any, axis: int | None = None) -> Any:
    return apply("concat", [_array(arr), _array(values)], axis=axis)


@rule(np.array_split)
def _array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    parts = np.array_split(np.arange(ary.shape[axis]), indices_or_sections)
    return [apply("take", ary, part, axis=axis) for part in parts]


@rule(np.split)
def _split(ary: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    if isinstance(indices_or_sections, int) and ary.shape[axis] % indices_or_sections:
        raise ValueError("np.split needs parts of equal length; use np.array_split or a list of indices")
    return _array_split(ary, indices_or_sections, axis)


@rule(np.hsplit)
def _hsplit(ary: Any, indices_or_sections: Any) -> Any:
    return _split(ary, indices_or_sections, axis=0 if ary.ndim == 1 else 1)


@rule(np.vsplit)
def _vsplit(ary: Any, indices_or_sections: Any) -> Any:
    return _split(ary, indices_or_sections)


@rule(np.pad)
def _pad(array: Any, pad_width: Any, mode: str = "constant") -> Any:
    for axis, (before, after) in enumerate(np.broadcast_to(pad_width, (array.ndim, 2))):
        index = np.pad(np.arange(1, array.shape[axis] + 1), (before, after), mode=mode)  # type: ignore[call-overload]
        shape = [1] * array.ndim
        shape[axis] = -1
        inside = np.reshape(index > 0, shape)  # the constant 0 marks no entry
        array = np.where(inside, apply("take", array, np.maximum(index - 1, 0), axis=axis), 0.0)
    return array


# Products.


@rule(np.dot)
def _dot(a: Any, b: Any) -> Any:
    a, b = _array(a), _array(b)
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    if b.ndim <= 2:
        return apply("matmul", a, b)
    return apply("tensordot", a, b, axes=((a.ndim - 1,), (b.ndim - 2,)))


@rule(np.inner)
def _inner(a: Any, b: Any) -> Any:
    a, b = _array(a), _array(b)
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    return apply("tensordot", a, b, axes=((a.ndim - 1,), (b.ndim - 1,)))


@rule(np.vdot)
def _vdot(a: Any, b: Any) -> Any:
    return apply("matmul", xp.reshape(_array(a), (-1,)), xp.reshape(_array(b), (-1,)))


@rule(np.linalg.multi_dot)
def _multi_dot(arrays: Any) -> Any:
    y, *rest = arrays
    for factor in rest:
        y = y @ factor
    return y


@rule(np.cross)
def _cross(a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> Any:
    if axis is None and not axisa == axisb == axisc:
        raise UnsupportedError("np.cross of arrays that are being differentiated takes one axis for all")
    return apply("linalg.cross", _array(a), _array(b), axis=axisa if axis is None else axis)


@rule(np.convolve)
def _convolve(a: Any, v: Any, mode: str = "full") -> Any:
    a, v = _array(a), _array(v)
    n, m = a.shape[0], v.shape[0]
    index = np.arange(n + m - 1)[:, None] - np.arange(m)
    y = apply("where", (index >= 0) & (index < n), a[np.clip(index, 0, n - 1)], 0.0) @ v
    long, short = max(n, m), min(n, m)
    first = {"full": 0, "same": (short - 1) // 2, "valid": short - 1}[mode]
    return y[first : first + {"full": n + m - 1, "same": long, "valid": long - short + 1}[mode]]


@rule(np.polyval)
def _polyval(p: Any, x: Any) -> Any:
    p = _array(p)
    y = 0.0 * x
    for i in range(p.shape[0]):
        y = y * x + p[i]
    return y


@rule(np.linspace)
def _linspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True) -> Any:
    part = np.linspace(0.0, 1.0, num, endpoint=endpoint, dtype=np.result_type(start, stop, 0.0))
    part = part.reshape(-1, *(1,) * max(np.ndim(start), np.ndim(stop)))
    return start * (1 - part) + stop * part


# Matrices.


@rule(np.trace)
def _trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return apply("sum", _diagonal(a, offset, axis1, axis2), axis=-1)


@rule(np.diagonal)
def _diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return apply("linalg.diagonal", apply("moveaxis", a, (axis1, axis2), (-2, -1)), offset=offset)


@rule(np.diag)
def _diag(v: Any, k: int = 0) -> Any:
    if v.ndim == 2:
        return _diagonal(v, k)
    n = v.shape[0]
    rows = np.eye(n + abs(k), n, k=-max(-k, 0), dtype=v.dtype)
    columns = np.eye(n, n + abs(k), k=max(k, 0), dtype=v.dtype)
    return apply("matmul", rows, v[:, None] * columns)


@rule(np.linalg.norm)
def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    axis = tuple(axis) if isinstance(axis, list | tuple) else axis
    n = x.ndim if axis is None else len(axis) if isinstance(axis, tuple) else 1
    if ord is None or n == 1:
        return apply("linalg.vector_norm", x, axis=axis, keepdims=keepdims, ord=2 if ord is None else ord)
    axes = tuple(a % x.ndim for a in (range(x.ndim) if axis is None else axis))
    if len(axes) != 2:
        raise ValueError("np.linalg.norm with ord= takes vectors or matrices; name one or two axes")
    y = apply("linalg.matrix_norm", apply("moveaxis", x, axes, (-2, -1)), ord=ord)
    return np.expand_dims(y, tuple(sorted(axes))) if keepdims else y
