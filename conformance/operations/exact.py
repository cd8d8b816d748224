"""The witness: the array API on numbers of sixty digits, which shares no line with polyad.

Arrays are ndarrays of objects, numbers of mpmath. Entries are moved by NumPy,
functions of numbers and matrix decompositions are mpmath's. Sixty digits leave
room for differences with a step of 1e-12 (witness.py), so that derivatives up
to the third order are exact in every digit of a float64.
"""

import functools
import itertools
from collections import namedtuple
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from mpmath.ctx_mp import MPContext

DIGITS = 60
mp = MPContext()
mp.dps = DIGITS
mp.mpf.__floordiv__ = lambda a, b: mp.floor(a / b)  # which mpmath leaves out
mp.mpf.__rfloordiv__ = lambda a, b: mp.floor(b / a)

Array = Any

__all__ = ["DIGITS", "exact", "floats", "numbers"]


def numbers(x: Any) -> Array:
    """An array of floats as one of mpmath's numbers, of the same values."""
    x = np.asarray(x)
    return objects([mp.mpf(float(entry)) for entry in x.ravel()], x.shape)


def floats(x: Any) -> np.ndarray:
    """The nearest float64 of every entry."""
    x = np.asarray(x, dtype=object)
    return np.array([float(entry) for entry in x.ravel()], dtype=np.float64).reshape(x.shape)


def objects(entries: Any, shape: tuple[int, ...]) -> Array:
    out = np.empty(len(entries), dtype=object)
    out[:] = entries
    return out.reshape(shape)


def _entrywise(f: Callable[..., Any]) -> Callable[..., Array]:
    """f of numbers as a function of arrays, which are broadcast."""
    ufunc = np.frompyfunc(f, f.__code__.co_argcount, 1)
    return lambda *args: np.asarray(ufunc(*args), dtype=object)


def _matrixwise(f: Callable[..., Any]) -> Callable[..., Array]:
    """f of one matrix, a list of rows, as a function of batches; f returns a list, a list of rows or a number."""

    @functools.wraps(f)
    def batched(x: Array, *args: Any, **kwargs: Any) -> Array:
        rows = [f(mp.matrix(x[i].tolist()), *args, **kwargs) for i in np.ndindex(x.shape[:-2])]
        shape = np.shape(np.asarray(rows[0], dtype=object))
        entries = [entry for row in rows for entry in np.asarray(row, dtype=object).ravel()]
        return objects(entries, (*x.shape[:-2], *shape))

    return batched


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": lambda x: abs(x),
    "acos": lambda x: mp.acos(x),
    "acosh": lambda x: mp.acosh(x),
    "add": lambda a, b: a + b,
    "asin": lambda x: mp.asin(x),
    "asinh": lambda x: mp.asinh(x),
    "atan": lambda x: mp.atan(x),
    "atan2": lambda a, b: mp.atan2(a, b),
    "atanh": lambda x: mp.atanh(x),
    "cbrt": lambda x: mp.sign(x) * mp.cbrt(abs(x)),
    "ceil": lambda x: mp.ceil(x),
    "conj": lambda x: x,
    "copysign": lambda a, b: abs(a) if b >= 0 else -abs(a),
    "cos": lambda x: mp.cos(x),
    "cosh": lambda x: mp.cosh(x),
    "divide": lambda a, b: a / b,
    "erf": lambda x: mp.erf(x),
    "exp": lambda x: mp.exp(x),
    "exp2": lambda x: mp.mpf(2) ** x,
    "expm1": lambda x: mp.expm1(x),
    "floor": lambda x: mp.floor(x),
    "floor_divide": lambda a, b: mp.floor(a / b),
    "fmax": lambda a, b: max(a, b),
    "fmin": lambda a, b: min(a, b),
    "fmod": lambda a, b: a - b * (mp.floor(a / b) if a / b >= 0 else mp.ceil(a / b)),
    "gelu": lambda x: x * (1 + mp.erf(x / mp.sqrt(2))) / 2,
    "hypot": lambda a, b: mp.sqrt(a * a + b * b),
    "log": lambda x: mp.log(x),
    "log10": lambda x: mp.log(x) / mp.log(10),
    "log1p": lambda x: mp.log1p(x),
    "log2": lambda x: mp.log(x) / mp.log(2),
    "logaddexp": lambda a, b: mp.log(mp.exp(a) + mp.exp(b)),
    "logaddexp2": lambda a, b: mp.log(mp.mpf(2) ** a + mp.mpf(2) ** b) / mp.log(2),
    "maximum": lambda a, b: max(a, b),
    "minimum": lambda a, b: min(a, b),
    "multiply": lambda a, b: a * b,
    "negative": lambda x: -x,
    "positive": lambda x: x,
    "pow": lambda a, b: mp.power(a, b),
    "real": lambda x: x,
    "reciprocal": lambda x: 1 / x,
    "relu": lambda x: x if x > 0 else mp.zero,
    "remainder": lambda a, b: a - b * mp.floor(a / b),
    "round": lambda x: mp.nint(x),
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "sign": lambda x: mp.sign(x),
    "silu": lambda x: x / (1 + mp.exp(-x)),
    "sin": lambda x: mp.sin(x),
    "sinc": lambda x: mp.sincpi(x),
    "sinh": lambda x: mp.sinh(x),
    "softplus": lambda x: mp.log(1 + mp.exp(x)),
    "sqrt": lambda x: mp.sqrt(x),
    "square": lambda x: x * x,
    "subtract": lambda a, b: a - b,
    "tan": lambda x: mp.tan(x),
    "tanh": lambda x: mp.tanh(x),
    "trunc": lambda x: mp.floor(x) if x >= 0 else mp.ceil(x),
}

# Reductions and functions that move entries.


def _mean(x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    total = np.sum(x, axis=axis, keepdims=keepdims)
    return total * np.size(total) / mp.mpf(np.size(x))


def _var(x: Array, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> Array:
    centred = x - _mean(x, axis=axis, keepdims=True)
    total = np.sum(centred * centred, axis=axis, keepdims=keepdims)
    return total / (mp.mpf(np.size(x)) / np.size(total) - correction)


def _std(x: Array, **options: Any) -> Array:
    return _sqrt(_var(x, **options))


def _clip(x: Array, min: Any = None, max: Any = None) -> Array:
    x = x if min is None else np.maximum(x, min)
    return x if max is None else np.minimum(x, max)


def _prod(x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    return np.prod(x, axis=axis, keepdims=keepdims)


def _take_along_axis(x: Array, indices: Array, axis: int = -1) -> Array:
    return np.take_along_axis(x, indices, axis)


def _sort(x: Array, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    y = np.sort(x, axis=axis, kind="stable")
    return np.flip(y, axis=axis) if descending else y


def _cumulative(f: Any, first: int) -> Callable[..., Array]:
    def cumulative(x: Array, axis: int | None = None, include_initial: bool = False) -> Array:
        axis = 0 if axis is None else axis
        y = f(x, axis=axis)
        if not include_initial:
            return y
        shape = [1 if i == axis % y.ndim else n for i, n in enumerate(y.shape)]
        return np.concat([numbers(np.full(shape, first)), y], axis=axis)

    return cumulative


def _where(condition: Array, a: Any, b: Any) -> Array:
    return np.where(np.asarray(condition, dtype=bool), a, b)


def _logsumexp(x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    return _log(np.sum(_exp(x), axis=axis, keepdims=keepdims))


def _softmax(x: Array, axis: int = -1) -> Array:
    return _exp(x) / np.sum(_exp(x), axis=axis, keepdims=True)


def _log_softmax(x: Array, axis: int = -1) -> Array:
    return _log(_softmax(x, axis))


_log, _exp, _sqrt = (_entrywise(FUNCTIONS[name]) for name in ("log", "exp", "sqrt"))


# Matrices. What the others are made of has no derivative here: numbers alone.

Eigh = namedtuple("Eigh", "eigenvalues eigenvectors")
Slogdet = namedtuple("Slogdet", "sign logabsdet")
QR = namedtuple("QR", "Q R")
SVD = namedtuple("SVD", "U S Vh")


def _rows(m: Any) -> Any:
    return [[m[i, j] for j in range(m.cols)] for i in range(m.rows)]


_inv = _matrixwise(lambda m: _rows(mp.inverse(m)))
_det = _matrixwise(lambda m: mp.det(m))
_lower = _matrixwise(lambda m: _rows(mp.cholesky(m)))
_eigenvalues = _matrixwise(lambda m: list(mp.eigsy(m, eigvals_only=True)))
_eigenvectors = _matrixwise(lambda m: _rows(mp.eigsy(m)[1]))


def _svd_part(part: int) -> Callable[..., Array]:
    def one(m: Any) -> Any:
        found = mp.svd_r(m, full_matrices=False)[part]
        return list(found) if part == 1 else _rows(found)

    return _matrixwise(one)


_u, _s, _vh = map(_svd_part, range(3))


def _solve(a: Array, b: Array) -> Array:
    return _inv(a) @ b


def _slogdet(x: Array) -> Slogdet:
    det = _det(x)
    return Slogdet(_entrywise(FUNCTIONS["sign"])(det), _log(abs(det)))


def _cholesky(x: Array, upper: bool = False) -> Array:
    return np.matrix_transpose(_lower(x)) if upper else _lower(x)


def _qr(x: Array) -> QR:
    """By the Cholesky factor of xᵀx: R has a positive diagonal; callers square, which signs survive."""
    r = np.matrix_transpose(_lower(np.matrix_transpose(x) @ x))
    return QR(x @ _inv(r), r)


def _pinv(x: Array) -> Array:
    """Of a matrix of full rank."""
    t = np.matrix_transpose(x)
    return _inv(t @ x) @ t if x.shape[-2] >= x.shape[-1] else t @ _inv(x @ t)


def _matrix_power(x: Array, n: int) -> Array:
    return functools.reduce(np.matmul, [_inv(x) if n < 0 else x] * abs(n))


def _vector_norm(x: Array, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Array:
    size = abs(x)
    if np.isinf(ord):
        return (np.max if ord > 0 else np.min)(size, axis=axis, keepdims=keepdims)
    total = np.sum(_entrywise(FUNCTIONS["pow"])(size, mp.mpf(ord)), axis=axis, keepdims=keepdims)
    return _entrywise(FUNCTIONS["pow"])(total, 1 / mp.mpf(ord))


def _matrix_norm(x: Array, keepdims: bool = False, ord: Any = "fro") -> Array:
    if ord == "fro":
        y = _sqrt(np.sum(x * x, axis=(-2, -1)))
    elif ord == "nuc":
        y = np.sum(_s(x), axis=-1)
    elif abs(ord) == 2:
        y = (np.max if ord > 0 else np.min)(_s(x), axis=-1)
    else:
        sums = np.sum(abs(x), axis=-2 if abs(ord) == 1 else -1)
        y = (np.max if ord > 0 else np.min)(sums, axis=-1)
    return np.asarray(y, dtype=object)[..., None, None] if keepdims else y


def _vecdot(a: Array, b: Array, axis: int = -1) -> Array:
    return np.sum(a * b, axis=axis)


def _cross(a: Array, b: Array, axis: int = -1) -> Array:
    a, b = np.broadcast_arrays(np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0))
    signs = np.zeros((3, 3, 3), dtype=int)
    for i, j, k in itertools.permutations(range(3)):
        signs[i, j, k] = (i - j) * (j - k) * (k - i) // 2
    return np.moveaxis(np.einsum("ijk,j...,k...->i...", signs.astype(object), a, b), 0, axis)


def _trace(x: Array, offset: int = 0) -> Array:
    return np.trace(x, offset=offset, axis1=-2, axis2=-1)


def _diagonal(x: Array, offset: int = 0) -> Array:
    return np.diagonal(x, offset=offset, axis1=-2, axis2=-1)


_NUMPY = (
    *("broadcast_arrays", "broadcast_to", "concat", "diff", "einsum", "expand_dims", "flip", "kron", "matmul"),
    *("matrix_transpose", "max", "meshgrid", "min", "moveaxis", "permute_dims", "repeat", "reshape", "roll"),
    *("squeeze", "stack", "sum", "take", "tensordot", "tile", "tril", "triu", "unstack"),
)
_linalg = SimpleNamespace(
    cholesky=_cholesky,
    cross=_cross,
    det=_det,
    diagonal=_diagonal,
    eigh=lambda x: Eigh(_eigenvalues(x), _eigenvectors(x)),
    eigvalsh=_eigenvalues,
    inv=_inv,
    matmul=np.matmul,
    matrix_norm=_matrix_norm,
    matrix_power=_matrix_power,
    matrix_transpose=np.matrix_transpose,
    outer=lambda a, b: a[:, None] * b[None, :],
    pinv=_pinv,
    qr=_qr,
    slogdet=_slogdet,
    solve=_solve,
    svd=lambda x, full_matrices=True: SVD(_u(x), _s(x), _vh(x)),
    svdvals=_s,
    tensordot=np.tensordot,
    trace=_trace,
    vecdot=_vecdot,
    vector_norm=_vector_norm,
)
exact = SimpleNamespace(
    **{name: _entrywise(f) for name, f in FUNCTIONS.items()},
    **{name: getattr(np, name) for name in _NUMPY},
    argsort=lambda x, axis=-1, stable=True: np.argsort(x, axis=axis, kind="stable"),
    asarray=np.asarray,
    astype=lambda x, dtype: np.asarray(x, dtype=object),
    clip=_clip,
    cumulative_prod=_cumulative(np.cumprod, 1),
    cumulative_sum=_cumulative(np.cumsum, 0),
    float64=object,
    full=lambda shape, value: np.broadcast_to(value, shape),
    full_like=lambda x, value: np.broadcast_to(value, np.shape(x)),
    linalg=_linalg,
    linspace=lambda a, b, n: np.stack([a + (b - a) * mp.mpf(i) / (n - 1) for i in range(n)]),
    log_softmax=_log_softmax,
    logsumexp=_logsumexp,
    mean=_mean,
    prod=_prod,
    softmax=_softmax,
    sort=_sort,
    std=_std,
    take_along_axis=_take_along_axis,
    var=_var,
    vecdot=_vecdot,
    where=_where,
    zeros_like=lambda x: numbers(np.zeros(np.shape(x))),
)
"""The functions of `polyad.xp` that the operations use, under the same names."""
