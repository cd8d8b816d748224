"""autograd.numpy as an array-API namespace.

autograd wraps every function of NumPy, also those for which it has no rule or
drops the derivative. Here the names and signatures of the standard come from
four places: autograd's own rules, compositions of those, functions without a
derivative, and NumPy for dtypes and creation.
"""

import functools
from typing import Any

import autograd.numpy as anp
import numpy as np
from array_api_compat import numpy as standard
from autograd.extend import defjvp, defvjp, primitive
from autograd.tracer import getval, isbox

from polyad.compositions import COMPOSITIONS, MATRIX_COMPOSITIONS, only_axis, with_initial
from polyad.errors import UnsupportedError

__all__ = ["AutogradNamespace", "namespace"]

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
    *("reshape", "sin", "sinc", "sinh", "sqrt", "square", "subtract", "tan", "tanh", "tensordot", "tril", "triu"),
)
_CONSTANT = (
    *("all", "any", "argmax", "argmin", "argsort", "ceil", "count_nonzero", "empty_like", "equal", "floor"),
    *("floor_divide", "greater", "greater_equal", "isfinite", "isinf", "isnan", "less", "less_equal"),
    *("logical_and", "logical_not", "logical_or", "logical_xor", "nonzero", "not_equal", "ones_like", "result_type"),
    *("round", "searchsorted", "sign", "signbit", "trunc", "zeros_like"),
)
_OWN_MATRIX = ("cholesky", "det", "eigh", "inv", "pinv", "slogdet", "solve", "svd")


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
        if any(isbox(x) for x in (*args, *kwargs.values())):
            raise UnsupportedError(
                f"autograd has no derivative rule for {name}; write it with other functions, "
                f"or choose backend='jax' or 'torch'"
            )
        return f(*args, **kwargs)

    return function


def _constant(name: str) -> Any:
    """A function whose result has no derivative."""
    f = getattr(standard, name)

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
    a, b = (anp.broadcast_to(z if isbox(z) else np.asarray(z, dtype), shape) for z in (a, b))
    return anp.where(np.broadcast_to(condition, shape), a, b)


def _concat(arrays: Any, axis: int | None = 0) -> Any:
    if axis is None:
        arrays, axis = [anp.reshape(a, (-1,)) for a in arrays], 0
    return anp.concatenate(arrays, axis=axis)


def _stack(arrays: Any, axis: int = 0) -> Any:
    return anp.stack(arrays, axis=axis)


def _matrix_transpose(x: Any) -> Any:
    return anp.swapaxes(x, -1, -2)


def _squeeze(x: Any, axis: Any) -> Any:
    return anp.reshape(x, np.squeeze(np.empty(x.shape, np.bool_), axis).shape)


def _broadcast_to(x: Any, shape: Any) -> Any:
    return anp.broadcast_to(x, tuple(shape))


def _clip(x: Any, min: Any = None, max: Any = None) -> Any:
    x = x if min is None else anp.maximum(x, min)
    return x if max is None else anp.minimum(x, max)


def _copysign(a: Any, b: Any) -> Any:
    return a * (np.sign(getval(a)) * np.copysign(1.0, getval(b)))


def _remainder(a: Any, b: Any) -> Any:
    return a - np.floor(getval(a) / getval(b)) * b


def _hypot(a: Any, b: Any) -> Any:
    return anp.sqrt(a * a + b * b)


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


# Rules that autograd lacks, given to it the way it asks for them.
_cbrt = primitive(np.cbrt)
defvjp(_cbrt, lambda ans, x: lambda g: g / (3 * ans * ans))
defjvp(_cbrt, lambda g, ans, x: g / (3 * ans * ans))

_FUNCTIONS = {
    **{name: getattr(anp, name) for name in _OWN},
    **{name: getattr(anp, own) for name, own in _RENAMED.items()},
    **{name: _constant(name) for name in _CONSTANT},
    **{name: _reduction(name) for name in ("sum", "mean", "max", "min")},
    **COMPOSITIONS,
    "asarray": _asarray,
    "astype": _astype,
    "broadcast_to": _broadcast_to,
    "cbrt": _cbrt,
    "clip": _clip,
    "concat": _concat,
    "conj": _same,
    "copysign": _copysign,
    "cumulative_sum": _cumulative_sum,
    "full": _full,
    "full_like": _full_like,
    "hypot": _hypot,
    "matrix_transpose": _matrix_transpose,
    "positive": _same,
    "real": _same,
    "remainder": _remainder,
    "squeeze": _squeeze,
    "stack": _stack,
    "where": _where,
}
_MATRIX_FUNCTIONS = {
    **{name: getattr(anp.linalg, name) for name in _OWN_MATRIX},
    **MATRIX_COMPOSITIONS,
    "eigvalsh": lambda x: anp.linalg.eigh(x)[0],
    "matmul": anp.matmul,
    "matrix_transpose": _matrix_transpose,
    "tensordot": anp.tensordot,
}
namespace = AutogradNamespace({**_FUNCTIONS, "linalg": AutogradNamespace(_MATRIX_FUNCTIONS, standard.linalg)}, standard)

