"""autograd.numpy as an array-API namespace.

autograd wraps every function of NumPy, also those for which it has no rule or
drops the derivative. Here the names and signatures of the standard come from
five places: autograd's own rules, compositions of those, own rules where
autograd's fail, functions without a derivative, and NumPy for dtypes and
creation.
"""

import functools
import operator
from typing import Any

import autograd.numpy as anp
import numpy as np
from array_api_compat import numpy as standard
from autograd.extend import defjvp, defvjp, primitive
from autograd.numpy.numpy_vjps import unbroadcast_f
from autograd.tracer import getval, isbox

from polyad import compositions
from polyad.arrays import xp
from polyad.compositions import (
    COMPOSITIONS,
    MATRIX_COMPOSITIONS,
    QR,
    SVD,
    Eigh,
    Slogdet,
    only_axis,
    reduced_qr,
    reduced_svd,
    with_initial,
)
from polyad.errors import UnsupportedError
from polyad.jets.elementwise import PARTIALS

__all__ = ["NATIVE", "AutogradNamespace", "namespace"]

_RENAMED = {
    "acos": "arccos",
    "acosh": "arccosh",
    "asin": "arcsin",
    "asinh": "arcsinh",
    "atan": "arctan",
    "atan2": "arctan2",
    "atanh": "arctanh",
    "pow": "power",
    "permute_dims": "transpose",
}
_OWN = (
    *("abs", "add", "cos", "cosh", "divide", "einsum", "exp", "exp2", "expm1", "expand_dims", "log", "log10", "log1p"),
    *("log2", "logaddexp", "matmul", "maximum", "minimum", "moveaxis", "multiply", "negative", "reciprocal"),
    *("reshape", "sin", "sinh", "sqrt", "square", "subtract", "tan", "tensordot", "tril", "triu"),
)
_CONSTANT = (
    *("all", "any", "argmax", "argmin", "argsort", "ceil", "count_nonzero", "empty_like", "equal", "floor"),
    *("floor_divide", "greater", "greater_equal", "isfinite", "isinf", "isnan", "less", "less_equal"),
    *("logical_and", "logical_not", "logical_or", "logical_xor", "nonzero", "not_equal", "ones_like", "result_type"),
    *("round", "searchsorted", "sign", "signbit", "trunc", "zeros_like"),
)
_OWN_MATRIX = ("det", "inv", "pinv")
_PARTIALS = (*("cbrt", "copysign", "fmax", "fmin", "fmod", "hypot", "logaddexp2", "remainder", "sinc", "tanh"),)


class AutogradNamespace:
    """The functions of the standard on ndarrays and on autograd's boxes."""

    __name__ = "polyad.backends.autograd_namespace"

    def __init__(self, functions: dict[str, Any], fallback: Any) -> None:
        self.__dict__.update(functions)
        self._fallback = fallback

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._fallback, name)
        if callable(value) and not isinstance(value, type):
            value = _boxes_refused(value, name)
        self.__dict__[name] = value
        return value


def _boxes_refused(f: Any, name: str) -> Any:
    @functools.wraps(f)
    def function(*args: Any, **kwargs: Any) -> Any:
        if _has_box((*args, *kwargs.values())):
            raise UnsupportedError(
                f"autograd has no derivative rule for {name}; write it with other functions, "
                f"or choose backend='jax' or 'torch'"
            )
        return f(*args, **kwargs)

    return function


def _has_box(args: Any) -> bool:
    return any(_has_box(x) if isinstance(x, list | tuple) else isbox(x) for x in args)


def _constant(name: str) -> Any:
    """A function whose result has no derivative."""
    f = operator.attrgetter(name)(standard)

    @functools.wraps(f)
    def function(*args: Any, **kwargs: Any) -> Any:
        return f(*(getval(x) for x in args), **{key: getval(x) for key, x in kwargs.items()})

    return function


def _asarray(x: Any, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Any:
    if isbox(x):
        return x if dtype is None else x.astype(dtype)
    return standard.asarray(x, dtype=dtype, copy=copy)


def _astype(x: Any, dtype: Any, copy: bool = True, device: Any = None) -> Any:
    if isbox(x) and np.dtype(dtype).kind == "f":
        return x.astype(dtype)
    return standard.astype(np.asarray(getval(x)), dtype, copy=copy)


def _full(shape: Any, fill_value: Any, dtype: Any = None, device: Any = None) -> Any:
    if isbox(fill_value):
        return np.zeros(shape, dtype or getval(fill_value).dtype) + fill_value
    return np.full(shape, fill_value, dtype)


def _full_like(x: Any, fill_value: Any, dtype: Any = None, device: Any = None) -> Any:
    return _full(x.shape, fill_value, x.dtype if dtype is None else dtype)


def _where(condition: Any, a: Any, b: Any) -> Any:
    """Branches broadcast first: autograd's rule knows equal shapes only."""
    condition = getval(condition)
    dtype = np.result_type(getval(a), getval(b))
    shape = np.broadcast_shapes(*(np.shape(getval(z)) for z in (condition, a, b)))
    a, b = (_broadcast_to(z if isbox(z) else np.asarray(z, dtype), shape) for z in (a, b))
    return anp.where(np.broadcast_to(condition, shape), a, b)


def _concat(arrays: Any, axis: int | None = 0) -> Any:
    if axis is None:
        arrays, axis = [anp.reshape(a, (-1,)) for a in arrays], 0
    return anp.concatenate(arrays, axis=axis)


def _stack(arrays: Any, axis: int = 0) -> Any:
    return anp.stack(arrays, axis=axis)


def _linspace(start: Any, stop: Any, num: int, **options: Any) -> Any:
    return (compositions.linspace if _has_box((start, stop)) else np.linspace)(start, stop, num, **options)


def _matrix_transpose(x: Any) -> Any:
    return anp.swapaxes(x, -1, -2)


def _squeeze(x: Any, axis: Any) -> Any:
    return anp.reshape(x, np.squeeze(np.empty(x.shape, np.bool_), axis).shape)


def _broadcast_to(x: Any, shape: Any) -> Any:
    """Axes in front first: autograd's rule knows equal numbers of axes only."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    return anp.broadcast_to(anp.reshape(x, (1,) * (len(shape) - x.ndim) + tuple(x.shape)), shape)


def _clip(x: Any, min: Any = None, max: Any = None) -> Any:
    x = x if min is None else anp.maximum(x, min)
    return x if max is None else anp.minimum(x, max)


def _same(x: Any) -> Any:
    return x


def _cumulative_sum(x: Any, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Any:
    axis = only_axis(x, axis)
    y = anp.cumsum(x if dtype is None else _astype(x, dtype), axis=axis)
    return with_initial(y, axis, 0.0) if include_initial else y


def _reduction(name: str) -> Any:
    f = getattr(anp, name)

    def function(x: Any, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        return f(x if dtype is None else _astype(x, dtype), axis=axis, keepdims=keepdims)

    function.__name__ = name
    return function


# Rules that autograd lacks or has wrong, given to it the way it asks for them.


@primitive  # type: ignore[untyped-decorator]
def _slope_of_tanh(y: Any) -> Any:
    """1 - y^2, in one node: a pass around goes through it in half the time of a product and a difference."""
    return 1 - y * y


defvjp(_slope_of_tanh, lambda slope, y: lambda g: g * (-2 * y))
defjvp(_slope_of_tanh, lambda g, slope, y: g * (-2 * y))
_ONE_NODE = {"tanh": (lambda x, y: _slope_of_tanh(y),)}


def _from_partials(name: str) -> Any:
    """A function of numbers by its line in the table that the jets use."""
    f = primitive(getattr(standard, name, None) or compositions.ACTIVATIONS[name])

    def times(factor: Any, g: Any) -> Any:
        return g if isinstance(factor, float) and factor == 1.0 else g * factor

    def reverse(i: int, partial: Any) -> Any:
        def rule(y: Any, *args: Any) -> Any:
            kept: list[Any] = []

            def pull(g: Any) -> Any:
                if kept:
                    return times(kept[0], g)
                factor = partial(*args, y)
                if isbox(factor):  # the trace around keeps it anyway; once for many cotangents, it is traced once
                    kept.append(factor)
                return times(factor, g)

            return unbroadcast_f(args[i], pull)

        return rule

    def forward(partial: Any) -> Any:
        return lambda g, y, *args: _broadcast_to(times(partial(*args, y), g), y.shape)

    partials = _ONE_NODE.get(name, PARTIALS[name])
    defvjp(f, *(None if p is None else reverse(i, p) for i, p in enumerate(partials)))
    defjvp(f, *(None if p is None else forward(p) for p in partials))
    return f


def _sum_to(shape: Any, g: Any) -> Any:
    """The pullback of broadcasting from this shape."""
    g = anp.sum(g, axis=tuple(range(g.ndim - len(shape))))
    return anp.sum(g, axis=tuple(i for i, n in enumerate(shape) if n == 1 != g.shape[i]), keepdims=True)


# autograd's own does not sum over the axes that were broadcast.
_solve_columns = primitive(np.linalg.solve)
defvjp(
    _solve_columns,
    lambda y, a, b: lambda g: _sum_to(a.shape, -(_solve_columns(_matrix_transpose(a), g) @ _matrix_transpose(y))),
    lambda y, a, b: lambda g: _sum_to(b.shape, _solve_columns(_matrix_transpose(a), g)),
)
defjvp(
    _solve_columns,
    lambda g, y, a, b: -_solve_columns(a, g @ y),
    lambda g, y, a, b: _broadcast_to(_solve_columns(a, g), y.shape),
)


def _solve(a: Any, b: Any) -> Any:
    return _solve_columns(a, b[..., None])[..., 0] if b.ndim == 1 else _solve_columns(a, b)


# autograd's own drops the derivative with respect to a cotangent that is zero,
# and with it the second derivative and the forward pass.
_eigenvalues = primitive(lambda x: np.linalg.eigh(x)[0])
_eigenvectors = primitive(lambda x: np.linalg.eigh(x)[1])


def _inner(x: Any, vectors: Any) -> Any:
    """A symmetric perturbation in the basis of the eigenvectors."""
    return _matrix_transpose(vectors) @ ((x + _matrix_transpose(x)) / 2) @ vectors


def _inverse_gaps(x: Any) -> Any:
    values, eye = _eigenvalues(x), np.eye(x.shape[-1], dtype=x.dtype)
    return (1 - eye) / (values[..., None, :] - values[..., :, None] + eye)


def _pull_eigenvalues(y: Any, x: Any) -> Any:
    vectors = _eigenvectors(x)
    return lambda g: (vectors * g[..., None, :]) @ _matrix_transpose(vectors)


def _pull_eigenvectors(y: Any, x: Any) -> Any:
    def pull(g: Any) -> Any:
        t = y @ ((_matrix_transpose(y) @ g) * _inverse_gaps(x)) @ _matrix_transpose(y)
        return (t + _matrix_transpose(t)) / 2

    return pull


defvjp(_eigenvalues, _pull_eigenvalues)
defvjp(_eigenvectors, _pull_eigenvectors)
defjvp(_eigenvalues, lambda g, y, x: xp.linalg.diagonal(_inner(g, _eigenvectors(x))))
defjvp(_eigenvectors, lambda g, y, x: y @ (_inner(g, y) * _inverse_gaps(x)))


def _eigh(x: Any) -> Any:
    return Eigh(_eigenvalues(x), _eigenvectors(x))


# autograd has no rule for qr.
_q = primitive(lambda x: np.linalg.qr(x)[0])
_r = primitive(lambda x: np.linalg.qr(x)[1])


def _over(t: Any, r: Any) -> Any:
    """t @ inv(r)."""
    return _matrix_transpose(_solve_columns(_matrix_transpose(r), _matrix_transpose(t)))


def _pull_qr(x: Any, g: Any, m: Any) -> Any:
    """(g + q s) r^-T, where s is symmetric with the lower triangle of m (Walter & Lehmann 2018)."""
    lower = anp.tril(m)
    s = lower + _matrix_transpose(anp.tril(m, k=-1))
    return _matrix_transpose(_solve_columns(_r(x), _matrix_transpose(g + _q(x) @ s)))


def _push_qr(t: Any, x: Any) -> Any:
    """(dq, dr), by the antisymmetric matrix qᵀ dq."""
    q, r = _q(x), _r(x)
    outer = _over(t, r)
    inner = _matrix_transpose(q) @ outer
    below = anp.tril(inner, k=-1)
    turn = below - _matrix_transpose(below)
    return q @ (turn - inner) + outer, (inner - turn) @ r


defvjp(_q, lambda y, x: lambda g: _pull_qr(x, g, -(_matrix_transpose(g) @ y)))
defvjp(_r, lambda y, x: lambda g: _pull_qr(x, 0.0, y @ _matrix_transpose(g)))
defjvp(_q, lambda g, y, x: _push_qr(g, x)[0])
defjvp(_r, lambda g, y, x: _push_qr(g, x)[1])


def _qr(x: Any, mode: str = "reduced") -> Any:
    if not isbox(x):
        return QR(*standard.linalg.qr(x, mode=mode))
    reduced_qr(x, mode)
    return QR(_q(x), _r(x))


def _slogdet(x: Any) -> Any:
    return Slogdet(np.linalg.slogdet(getval(x))[0], anp.linalg.slogdet(x)[1])


def _cholesky(x: Any, upper: bool = False) -> Any:
    factor = anp.linalg.cholesky(x)
    return _matrix_transpose(factor) if upper else factor


def _svd(x: Any, full_matrices: bool = True) -> Any:
    if not isbox(x):
        return SVD(*np.linalg.svd(x, full_matrices=full_matrices))
    if full_matrices:
        return reduced_svd(x, full_matrices)
    decomposition = anp.linalg.svd(x, full_matrices=False)
    return SVD(*(decomposition[i] for i in range(3)))


# x @ weight + bias as one node, and products of two matrices as one each: autograd's own rules are those of stacks of
# matrices and of tensordot, which take two to three times as long (16 x 12, 2026-11).


@primitive  # type: ignore[untyped-decorator]
def _product(a: Any, b: Any, of_a: bool = False, of_b: bool = False) -> Any:
    """a @ b; of_a, of_b: the transpose of a, of b."""
    return np.dot(a.T if of_a else a, b.T if of_b else b)


def _cast(g: Any, y: Any) -> Any:
    """A cotangent of y in its precision: that of a mean is one of float64."""
    return g if g.dtype == y.dtype else g.astype(y.dtype)


def _product_pulled_to_a(y: Any, a: Any, b: Any, of_a: bool = False, of_b: bool = False) -> Any:
    if of_a:
        return lambda g: _product(b, _cast(g, y), of_b, True)
    return lambda g: _product(_cast(g, y), b, False, not of_b)


def _product_pulled_to_b(y: Any, a: Any, b: Any, of_a: bool = False, of_b: bool = False) -> Any:
    if of_b:
        return lambda g: _product(_cast(g, y), a, True, of_a)
    return lambda g: _product(a, _cast(g, y), not of_a, False)


defvjp(_product, _product_pulled_to_a, _product_pulled_to_b, argnums=(0, 1))
defjvp(
    _product,
    lambda g, y, a, b, *of: _product(g, b, *of),
    lambda g, y, a, b, *of: _product(a, g, *of),
    argnums=(0, 1),
)


@primitive  # type: ignore[untyped-decorator]
def _affine_of_matrix(x: Any, weight: Any, bias: Any) -> Any:
    return np.dot(x, weight) + bias


defvjp(
    _affine_of_matrix,
    lambda y, x, weight, bias: lambda g: _product(_cast(g, y), weight, False, True),
    lambda y, x, weight, bias: lambda g: _product(x, _cast(g, y), True, False),
    lambda y, x, weight, bias: lambda g: anp.sum(_cast(g, y), axis=0),
)
defjvp(
    _affine_of_matrix,
    lambda g, y, x, weight, bias: _product(g, weight),
    lambda g, y, x, weight, bias: _product(x, g),
    lambda g, y, x, weight, bias: _broadcast_to(g, y.shape),
)


def _affine(x: Any, weight: Any, bias: Any) -> Any:
    if x.ndim == weight.ndim == 2 and bias.shape == weight.shape[1:] and x.dtype == weight.dtype == bias.dtype:
        return _affine_of_matrix(x, weight, bias)
    return anp.dot(x, weight) + bias


NATIVE = {"affine": _affine, "erf": _from_partials("erf")}
_FUNCTIONS = {
    **{name: getattr(anp, name) for name in _OWN},
    **{name: getattr(anp, own) for name, own in _RENAMED.items()},
    **{name: _constant(name) for name in _CONSTANT},
    **{name: _from_partials(name) for name in _PARTIALS},
    **{name: _reduction(name) for name in ("sum", "mean", "max", "min")},
    **COMPOSITIONS,
    "asarray": _asarray,
    "astype": _astype,
    "broadcast_to": _broadcast_to,
    "clip": _clip,
    "concat": _concat,
    "conj": _same,
    "cumulative_sum": _cumulative_sum,
    "full": _full,
    "full_like": _full_like,
    "linspace": _linspace,
    "matrix_transpose": _matrix_transpose,
    "positive": _same,
    "real": _same,
    "squeeze": _squeeze,
    "stack": _stack,
    "where": _where,
}
_MATRIX_FUNCTIONS = {
    **{name: getattr(anp.linalg, name) for name in _OWN_MATRIX},
    **MATRIX_COMPOSITIONS,
    "cholesky": _cholesky,
    "eigh": _eigh,
    "eigvalsh": _eigenvalues,
    "matmul": anp.matmul,
    "matrix_rank": _constant("linalg.matrix_rank"),
    "matrix_transpose": _matrix_transpose,
    "qr": _qr,
    "slogdet": _slogdet,
    "solve": _solve,
    "svd": _svd,
    "svdvals": lambda x: anp.linalg.svd(x, compute_uv=False),
    "tensordot": anp.tensordot,
}
_EXTENSIONS = {
    "fft": AutogradNamespace({}, standard.fft),
    "linalg": AutogradNamespace(_MATRIX_FUNCTIONS, standard.linalg),
}
namespace = AutogradNamespace({**_FUNCTIONS, **_EXTENSIONS}, standard)
