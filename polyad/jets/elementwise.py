"""Functions of numbers: one line each, the partial derivatives.

A partial sees the arguments and the value y, and is written so that it stays
finite wherever the function has a derivative. Sources: any table of
derivatives. At kinks: ties share the derivative evenly, as in JAX; abs has the
derivative 0 at 0, as in PyTorch and autograd (JAX 0.10: 1); x**p with a real p
has its true derivative at 0 (JAX: NaN where p is 0).
"""

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from polyad.arrays import number_kind, xp
from polyad.jets.jet import make
from polyad.jets.rule import Rule, apply, call, constant, lift, ndim, primal, register, tangent

Partial = Callable[..., Any]

__all__ = ["PARTIALS"]


def _share(a: Any, b: Any, y: Any) -> Any:
    """1 where a is the chosen one of two, 1/2 where they are equal."""
    one = xp.where(a == y, 1.0, 0.0)
    return xp.astype(xp.where(b == y, 0.5 * one, one), y.dtype)


def _pow_base(a: Any, b: Any, y: Any) -> Any:
    if isinstance(b, int | float):
        return 0.0 * a if b == 0 else b * a ** (b - 1) if b != 2 else 2 * a
    return b * a ** xp.where(b == 0, xp.ones_like(b), b - 1)


def _pow_exponent(a: Any, b: Any, y: Any) -> Any:
    if isinstance(a, int | float):
        return y * (math.log(a) if a > 0 else 0.0 if a == 0 else math.nan)
    return y * xp.log(xp.where(a == 0, xp.ones_like(a), a))


# The derivative of sin(z) / z by powers of z, below 1 exact to double precision to
# the fifth order and more; the closed form would lose all digits there.
_SINC_SERIES = [(-1) ** n * 2 * n / math.factorial(2 * n + 1) for n in range(1, 13)]


def _sinc(x: Any, y: Any) -> Any:
    small = abs(x) < 0.3
    z = math.pi * xp.where(small, x, xp.zeros_like(x))
    series = _SINC_SERIES[-1] * xp.ones_like(x)
    for coefficient in reversed(_SINC_SERIES[:-1]):
        series = series * (z * z) + coefficient
    w = math.pi * xp.where(small, xp.ones_like(x), x)
    return math.pi * xp.where(small, z * series, (xp.cos(w) * w - xp.sin(w)) / (w * w))


PARTIALS: dict[str, tuple[Partial | None, ...]] = {
    "abs": (lambda x, y: xp.sign(x),),
    "acos": (lambda x, y: -1 / xp.sqrt((1 - x) * (1 + x)),),
    "acosh": (lambda x, y: 1 / (xp.sqrt(x - 1) * xp.sqrt(x + 1)),),
    "add": (lambda a, b, y: 1.0, lambda a, b, y: 1.0),
    "asin": (lambda x, y: 1 / xp.sqrt((1 - x) * (1 + x)),),
    "asinh": (lambda x, y: 1 / xp.hypot(x, xp.ones_like(x)),),
    "atan": (lambda x, y: 1 / (1 + x * x),),
    "atan2": (lambda a, b, y: b / (a * a + b * b), lambda a, b, y: -a / (a * a + b * b)),
    "atanh": (lambda x, y: 1 / ((1 - x) * (1 + x)),),
    "cbrt": (lambda x, y: 1 / (3 * y * y),),
    "copysign": (lambda a, b, y: xp.sign(a) * xp.copysign(xp.ones_like(y), y), None),
    "cos": (lambda x, y: -xp.sin(x),),
    "cosh": (lambda x, y: xp.sinh(x),),
    "divide": (lambda a, b, y: 1 / b, lambda a, b, y: -y / b),
    "exp": (lambda x, y: y,),
    "exp2": (lambda x, y: y * math.log(2),),
    "expm1": (lambda x, y: y + 1,),
    "fmax": (_share, lambda a, b, y: _share(b, a, y)),
    "fmin": (_share, lambda a, b, y: _share(b, a, y)),
    "fmod": (lambda a, b, y: 1.0, lambda a, b, y: -xp.trunc(a / b)),
    "hypot": (lambda a, b, y: a / y, lambda a, b, y: b / y),
    "log": (lambda x, y: 1 / x,),
    "log10": (lambda x, y: 1 / (x * math.log(10)),),
    "log1p": (lambda x, y: 1 / (1 + x),),
    "log2": (lambda x, y: 1 / (x * math.log(2)),),
    "logaddexp": (lambda a, b, y: xp.exp(a - y), lambda a, b, y: xp.exp(b - y)),
    "logaddexp2": (lambda a, b, y: 2.0 ** (a - y), lambda a, b, y: 2.0 ** (b - y)),
    "maximum": (_share, lambda a, b, y: _share(b, a, y)),
    "minimum": (_share, lambda a, b, y: _share(b, a, y)),
    "multiply": (lambda a, b, y: b, lambda a, b, y: a),
    "negative": (lambda x, y: -1.0,),
    "pow": (_pow_base, _pow_exponent),
    "reciprocal": (lambda x, y: -y * y,),
    "remainder": (lambda a, b, y: 1.0, lambda a, b, y: xp.round((y - a) / b)),
    "sin": (lambda x, y: xp.cos(x),),
    "sinc": (_sinc,),
    "sinh": (lambda x, y: xp.cosh(x),),
    "sqrt": (lambda x, y: 0.5 / y,),
    "square": (lambda x, y: 2 * x,),
    "subtract": (lambda a, b, y: 1.0, lambda a, b, y: -1.0),
    "tan": (lambda x, y: 1 + y * y,),
    "tanh": (lambda x, y: 1 - y * y,),
}

_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "pow": operator.pow,
    "remainder": operator.mod,
    "negative": operator.neg,
    "abs": abs,
}


def _elementwise(name: str, partials: tuple[Partial | None, ...]) -> Rule:
    compute = _OPERATORS.get(name) or (lambda *args: call(name, *args))

    def rule(level: int, *args: Any) -> Any:
        primals = [primal(level, arg) for arg in args]
        y = compute(*primals)
        # An infinite derivative is a value like any other; NumPy would warn of it
        # even where nobody asks for it, as in aux or in the branch not taken.
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return make(level, y, _total(level, args, primals, y, partials))

    return rule


def _total(level: int, args: Any, primals: list[Any], y: Any, partials: tuple[Partial | None, ...]) -> Any:
    """The sum of the partial derivatives times their tangents."""
    total = None
    for arg, partial in zip(args, partials, strict=True):
        t = tangent(level, arg)
        if t is not None and partial is not None:
            factor = partial(*primals, y)
            term = lift(t, ndim(y))
            term = term if isinstance(factor, float) and factor == 1.0 else term * factor
            total = term if total is None else total + term
    return total


for _name, _partials in PARTIALS.items():
    register(_name)(_elementwise(_name, _partials))


@register("positive", "conj", "real")
def _same(level: int, x: Any) -> Any:
    return x


@register("where")
def _where(level: int, condition: Any, a: Any, b: Any) -> Any:
    condition = primal(level, condition)
    y = xp.where(condition, primal(level, a), primal(level, b))
    ta, tb = (tangent(level, z) for z in (a, b))
    if ta is None and tb is None:
        return y
    # The tangent of the branch not taken may be NaN; where() leaves it out.
    parts = [0.0 if t is None else lift(t, y.ndim) for t in (ta, tb)]
    return make(level, y, xp.astype(xp.where(condition, *parts), y.dtype))


@register("clip")
def _clip(level: int, x: Any, min: Any = None, max: Any = None) -> Any:
    x = x if min is None else apply("maximum", x, _like(min, x))
    return x if max is None else apply("minimum", x, _like(max, x))


def _like(value: Any, x: Any) -> Any:
    return value if hasattr(value, "shape") else xp.full_like(x, value)


@register("astype")
def _astype(level: int, x: Any, dtype: Any, copy: bool = True, device: Any = None) -> Any:
    y = xp.astype(primal(level, x), dtype)  # to integers: piecewise constant, as floor() is
    return make(level, y, tangent(level, x)) if number_kind(y) in ("floating", "complex") else y


@register("asarray")
def _asarray(level: int, x: Any, dtype: Any = None, device: Any = None, copy: Any = None) -> Any:
    return x if dtype is None else xp.astype(x, dtype)


@register("full")
def _full(level: int, shape: Any, fill_value: Any, dtype: Any = None, device: Any = None) -> Any:
    return xp.broadcast_to(_asarray(level, fill_value, dtype), (shape,) if isinstance(shape, int) else shape)


@register("full_like")
def _full_like(level: int, x: Any, fill_value: Any, dtype: Any = None, device: Any = None) -> Any:
    if tangent(level, fill_value) is None:
        return call("full_like", primal(level, x), fill_value, dtype=dtype)
    return _full(level, x.shape, fill_value, x.dtype if dtype is None else dtype)


@register("heaviside")
def _heaviside(level: int, x: Any, middle: Any) -> Any:
    x, t = primal(level, x), tangent(level, middle)
    y = call("heaviside", x, primal(level, middle))
    return y if t is None else make(level, y, lift(t, y.ndim) * xp.astype(x == 0, y.dtype))


constant(
    *("all", "any", "argmax", "argmin", "argsort", "ceil", "count_nonzero", "equal", "floor", "floor_divide"),
    *("greater", "greater_equal", "isfinite", "isinf", "isnan", "less", "less_equal", "logical_and", "logical_not"),
    *("logical_or", "logical_xor", "nonzero", "not_equal", "round", "searchsorted", "sign", "signbit", "trunc"),
    *("zeros_like", "ones_like", "empty_like", "isdtype", "result_type", "can_cast", "finfo", "linalg.matrix_rank"),
)
