"""Functions of the standard written in other functions of the standard.

For namespaces that have no rule of their own for them: jets and autograd. Each
is differentiable to any order wherever the function is, zeros and ties
included; that is why prod() multiplies and never divides.
"""

import functools
import math
import operator
from collections import namedtuple
from typing import Any

import numpy as np

from polyad.arrays import dtype_name, operation, stop_gradient, xp
from polyad.backends import owner
from polyad.errors import UnsupportedError

__all__ = [
    "ACTIVATIONS",
    "COMPOSITIONS",
    "MATRIX_COMPOSITIONS",
    "QR",
    "SVD",
    "Eigh",
    "Slogdet",
    "affine",
    "identity_like",
    "reduced_qr",
    "reduced_svd",
]

# The standard's results with names, for namespaces that make their own.
Eigh = namedtuple("Eigh", "eigenvalues eigenvectors")
Slogdet = namedtuple("Slogdet", "sign logabsdet")
QR = namedtuple("QR", "Q R")
SVD = namedtuple("SVD", "U S Vh")


@operation
def affine(x: Any, weight: Any, bias: Any) -> Any:
    """What a layer is but for its activation, which frameworks have as one function."""
    return x @ weight + bias


# Moving entries: by indexing and reshaping.


def unstack(x: Any, /, *, axis: int = 0) -> Any:
    moved = xp.moveaxis(x, axis, 0)
    return tuple(moved[i] for i in range(moved.shape[0]))


def linspace(
    start: Any, stop: Any, /, num: int, *, dtype: Any = None, device: Any = None, endpoint: bool = True
) -> Any:
    """num numbers from start to stop, of which at least one is an array of one entry."""
    like = start if hasattr(start, "shape") else stop
    share = np.arange(num) / max(1, num - endpoint)
    share = share.astype(dtype_name(like.dtype))
    y = xp.add(xp.multiply(start, 1 - share), xp.multiply(stop, share))  # both ends exact
    return y if dtype is None else xp.astype(y, dtype)


def broadcast_arrays(*arrays: Any) -> Any:
    shape = np.broadcast_shapes(*(tuple(a.shape) for a in arrays))
    return [xp.broadcast_to(a, shape) for a in arrays]


def meshgrid(*arrays: Any, indexing: str = "xy") -> Any:
    n = len(arrays)
    places = list(range(n))
    if indexing == "xy" and n > 1:
        places[:2] = [1, 0]
    grid = [
        xp.reshape(a, tuple(-1 if i == place else 1 for i in range(n))) for a, place in zip(arrays, places, strict=True)
    ]
    return broadcast_arrays(*grid)


def flip(x: Any, /, axis: Any = None) -> Any:
    index = [slice(None)] * x.ndim
    for a in _axes(x, axis):
        index[a] = slice(None, None, -1)
    return x[tuple(index)]


def take(x: Any, /, indices: Any, axis: int | None = None) -> Any:
    if axis is None:
        x, axis = xp.reshape(x, (-1,)), 0
    return x[(slice(None),) * (axis % x.ndim) + (_index(indices),)]


def _index(indices: Any) -> Any:
    return indices if hasattr(indices, "ndim") else np.asarray(indices)


def take_along_axis(x: Any, /, indices: Any, axis: int = -1) -> Any:
    shape = [1 if i == axis % x.ndim else n for i, n in enumerate(x.shape)]
    grid = list(np.ogrid[tuple(slice(n) for n in shape)])
    grid[axis] = _index(indices)
    return x[tuple(grid)]


def roll(x: Any, /, shift: Any, axis: Any = None) -> Any:
    if axis is None:
        return xp.reshape(roll(xp.reshape(x, (-1,)), shift, axis=0), x.shape)
    for s, a in zip(*(z.ravel().tolist() for z in np.broadcast_arrays(_host(shift), axis)), strict=True):
        x = take(x, np.roll(np.arange(x.shape[a]), s), axis=a)
    return x


def repeat(x: Any, /, repeats: Any, axis: int | None = None) -> Any:
    if axis is None:
        x, axis = xp.reshape(x, (-1,)), 0
    return take(x, np.repeat(np.arange(x.shape[axis]), _host(repeats)), axis=axis)


def _host(counts: Any) -> Any:
    """Integers that say where entries go, as an ndarray: shapes depend on them."""
    backend = owner(counts)
    return np.asarray(counts if backend is None else backend.to_host(counts))


def tile(x: Any, /, reps: Any) -> Any:
    reps = (reps,) if isinstance(reps, int) else tuple(reps)
    n = max(len(reps), x.ndim)
    reps = (1,) * (n - len(reps)) + reps
    x = xp.reshape(x, (1,) * (n - x.ndim) + tuple(x.shape))
    for axis, r in enumerate(reps):
        if r != 1:
            x = take(x, np.tile(np.arange(x.shape[axis]), r), axis=axis)
    return x


def diff(x: Any, /, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Any:
    parts = [x if z is x else _edge(z, x, axis) for z in (prepend, x, append) if z is not None]
    x = xp.concat(parts, axis=axis) if len(parts) > 1 else x
    for _ in range(n):
        later, earlier = [slice(None)] * x.ndim, [slice(None)] * x.ndim
        later[axis], earlier[axis] = slice(1, None), slice(None, -1)
        x = x[tuple(later)] - x[tuple(earlier)]
    return x


def _edge(z: Any, x: Any, axis: int) -> Any:
    """z, or a number z as a slice of length 1 of x."""
    shape = [1 if i == axis % x.ndim else n for i, n in enumerate(x.shape)]
    return z if getattr(z, "ndim", 0) else xp.broadcast_to(xp.full_like(xp.sum(x), z), shape)


def diagonal(x: Any, /, *, offset: int = 0) -> Any:
    first = (max(0, -offset), max(0, offset))
    i = np.arange(max(0, min(x.shape[-2] - first[0], x.shape[-1] - first[1])))
    return x[..., i + first[0], i + first[1]]


def sort(x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
    y = take_along_axis(x, xp.argsort(stop_gradient(x), axis=axis, stable=True), axis=axis)
    return flip(y, axis=axis) if descending else y


# Products.


def vecdot(a: Any, b: Any, /, *, axis: int = -1) -> Any:
    return xp.sum(a * b, axis=axis)


def outer(a: Any, b: Any, /) -> Any:
    return xp.reshape(a, (-1, 1)) * xp.reshape(b, (1, -1))


def cross(a: Any, b: Any, /, *, axis: int = -1) -> Any:
    if a.shape[axis] != 3 or b.shape[axis] != 3:
        raise UnsupportedError(f"cross needs vectors of 3 entries; these have {a.shape[axis]} and {b.shape[axis]}")
    a, b = (xp.moveaxis(z, axis, 0) for z in (a, b))
    return xp.stack([a[i - 2] * b[i - 1] - a[i - 1] * b[i - 2] for i in range(3)], axis=axis)


def kron(a: Any, b: Any, /) -> Any:
    n = max(a.ndim, b.ndim)
    a, b = (xp.reshape(z, (1,) * (n - z.ndim) + tuple(z.shape)) for z in (a, b))
    left = xp.reshape(a, tuple(s for size in a.shape for s in (size, 1)))
    right = xp.reshape(b, tuple(s for size in b.shape for s in (1, size)))
    return xp.reshape(left * right, tuple(i * j for i, j in zip(a.shape, b.shape, strict=True)))


def matrix_power(x: Any, n: int, /) -> Any:
    if n < 0:
        return matrix_power(xp.linalg.inv(x), -n)
    return functools.reduce(operator.matmul, [x] * n) if n else identity_like(x)


def identity_like(x: Any) -> Any:
    """Identity matrices of the shape (..., n, n), the dtype and on the device of x, whatever framework it is of."""
    ones = xp.ones_like(stop_gradient(x))
    return xp.tril(ones) - xp.tril(ones, k=-1)


# Reductions.


def _axes(x: Any, axis: Any) -> tuple[int, ...]:
    axes = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return tuple(a % x.ndim for a in axes)


def prod(x: Any, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    x = x if dtype is None else xp.astype(x, dtype)
    axes = _axes(x, axis)
    kept = tuple(a for a in range(x.ndim) if a not in axes)
    rows = tuple(x.shape[a] for a in kept)
    flat = xp.reshape(xp.permute_dims(x, (*kept, *axes)), (*rows, math.prod(x.shape[a] for a in axes)))
    while flat.shape[-1] > 1:  # pairwise: a product of n entries in log2(n) steps
        n = flat.shape[-1]
        pairs = flat[..., : n // 2] * flat[..., n // 2 : n // 2 * 2]
        flat = xp.concat([pairs, flat[..., n - 1 :]], axis=-1) if n % 2 else pairs
    shape = tuple(1 if a in axes else n for a, n in enumerate(x.shape)) if keepdims else rows
    return xp.reshape(flat if flat.shape[-1] else xp.sum(flat, axis=-1) + 1.0, shape)


def cumulative_prod(x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Any:
    axis = only_axis(x, axis)
    x = x if dtype is None else xp.astype(x, dtype)
    products: list[Any] = []
    for row in unstack(x, axis=axis):
        products.append(products[-1] * row if products else row)
    y = xp.stack(products, axis=axis) if products else x
    return with_initial(y, axis, 1.0) if include_initial else y


def only_axis(x: Any, axis: int | None) -> int:
    """The axis of a cumulative function."""
    if axis is None and x.ndim != 1:
        raise ValueError("a cumulative function of several axes needs axis=")
    return 0 if axis is None else axis


def with_initial(y: Any, axis: int, value: float) -> Any:
    """y with one more entry in front, along an axis."""
    first = xp.sum(y, axis=axis, keepdims=True)  # whatever its values, it has the shape
    return xp.concat([xp.full_like(stop_gradient(first), value), y], axis=axis)


def var(x: Any, /, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    centred = x - xp.mean(x, axis=axis, keepdims=True)
    squares = xp.sum(centred * centred, axis=axis, keepdims=keepdims)
    return squares / (math.prod(x.shape[a] for a in _axes(x, axis)) - correction)


def std(x: Any, /, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    return xp.sqrt(var(x, axis=axis, correction=correction, keepdims=keepdims))


def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
    if ord == 2:
        return xp.sqrt(xp.sum(x * x, axis=axis, keepdims=keepdims))
    if ord == 0:
        return xp.sum(xp.astype(x != 0, x.dtype), axis=axis, keepdims=keepdims)
    if abs(ord) == math.inf:
        return (xp.max if ord > 0 else xp.min)(xp.abs(x), axis=axis, keepdims=keepdims)
    return xp.sum(xp.abs(x) ** ord, axis=axis, keepdims=keepdims) ** (1 / ord)


def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    if ord == "fro":
        return vector_norm(x, axis=(-2, -1), keepdims=keepdims)
    if ord in (2, -2, "nuc"):
        s = xp.linalg.svdvals(x)
        y = xp.sum(s, axis=-1) if ord == "nuc" else s[..., 0 if ord == 2 else -1]
        return y[..., None, None] if keepdims else y
    if ord not in (1, -1, math.inf, -math.inf):
        raise ValueError(
            f"there is no matrix norm ord={ord!r}; there are 'fro', 'nuc', 1, 2, inf and the negative ones"
        )
    inner, last = (-2, -1) if abs(ord) == 1 else (-1, -2)
    sums = xp.sum(xp.abs(x), axis=inner, keepdims=True)
    y = (xp.max if ord > 0 else xp.min)(sums, axis=last, keepdims=True)
    return y if keepdims else y[..., 0, 0]


def trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Any:
    return xp.sum(diagonal(x, offset=offset), axis=-1, dtype=dtype)


def reduced_svd(x: Any, full_matrices: bool) -> Any:
    """The SVD with the vectors that have a derivative."""
    if full_matrices and x.shape[-2] != x.shape[-1]:
        raise UnsupportedError(
            f"svd of shape {tuple(x.shape)}: the vectors that fill up U or Vh have no derivative; "
            f"type svd(x, full_matrices=False), or svdvals(x)"
        )
    return xp.linalg.svd(x, full_matrices=False)


def reduced_qr(x: Any, mode: str) -> None:
    """UnsupportedError for a QR decomposition that has no derivative."""
    if mode != "reduced" or x.shape[-2] < x.shape[-1]:
        raise UnsupportedError(
            f"qr of {tuple(x.shape)} with mode={mode!r}: its derivative needs 'reduced' and no wide matrix"
        )


# Functions of deep learning, which the standard leaves to each framework.


def logsumexp(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    """log of the sum of exp(x), without overflow."""
    top = stop_gradient(xp.max(x, axis=axis, keepdims=True))
    y = xp.log(xp.sum(xp.exp(x - top), axis=axis, keepdims=True)) + top
    return y if keepdims else xp.squeeze(y, axis=_axes(x, axis))


def log_softmax(x: Any, /, *, axis: int = -1) -> Any:
    """Logarithm of softmax, without overflow."""
    shifted = x - stop_gradient(xp.max(x, axis=axis, keepdims=True))
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True))


def softmax(x: Any, /, *, axis: int = -1) -> Any:
    """exp(x) over its sum."""
    e = xp.exp(x - stop_gradient(xp.max(x, axis=axis, keepdims=True)))
    return e / xp.sum(e, axis=axis, keepdims=True)


def sigmoid(x: Any, /) -> Any:
    """1 / (1 + exp(-x)), through tanh so that nothing overflows."""
    return 0.5 * xp.tanh(0.5 * x) + 0.5


def softplus(x: Any, /) -> Any:
    """log(1 + exp(x)), without overflow."""
    return xp.logaddexp(x, xp.zeros_like(x))


def relu(x: Any, /) -> Any:
    """max(x, 0); the derivative at 0 is 0."""
    return xp.where(x > 0, x, xp.zeros_like(x))


def silu(x: Any, /) -> Any:
    """x sigmoid(x), also called swish."""
    return x * xp.sigmoid(x)


def gelu(x: Any, /) -> Any:
    """x times the distribution function of the normal distribution at x (Hendrycks & Gimpel 2016)."""
    return 0.5 * x * (1 + xp.erf(x * math.sqrt(0.5)))


def erf(x: Any, /) -> Any:
    """The error function of an ndarray, entry by entry: neither NumPy nor the standard has one."""
    if not isinstance(x, np.ndarray | np.generic):
        raise UnsupportedError("xp.erf is not there for these arrays; choose backend='jax' or 'torch'")
    return np.vectorize(math.erf, otypes=[x.dtype])(x)


ACTIVATIONS = {f.__name__: f for f in (erf, gelu, log_softmax, logsumexp, relu, sigmoid, silu, softmax, softplus)}
"""Found in `xp` on every backend; an adapter may give its own."""
COMPOSITIONS = {
    f.__name__: f
    for f in (
        *(
            broadcast_arrays,
            cumulative_prod,
            diff,
            flip,
            kron,
            linspace,
            meshgrid,
            outer,
            prod,
            repeat,
            roll,
            sort,
            std,
        ),
        *(take, take_along_axis, tile, unstack, var, vecdot),
    )
}
MATRIX_COMPOSITIONS = {
    f.__name__: f for f in (cross, diagonal, matrix_norm, matrix_power, outer, trace, vecdot, vector_norm)
}
