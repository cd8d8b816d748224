"""Functions of numbers: one line each, the partial derivatives.

Derivatives of higher order come from the same table: a partial is run on jets.
Where that is much work, the second derivative is written down as well.

A partial sees the arguments and the value y, and is written so that it stays
finite wherever the function has a derivative. Sources: any table of
derivatives. At kinks: as the framework of the parts has it, whose adapter says
what abs has at 0 and clip at a bound. Ties share the derivative evenly. x**p with a
real p has its true derivative at 0 (JAX: NaN where p is 0, and in the second
derivative where p is 1).
"""

import math
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polyad.arrays import number_kind, xp
from polyad.backends import get, owner
from polyad.jets.first_order import FIRST_ORDER
from polyad.jets.jet import Jet, bottom, make
from polyad.jets.kind import Level
from polyad.jets.rule import apply, call, constant, lift, moves, plain, primal, register, tangent

if TYPE_CHECKING:
    from polyad.backends.base import Backend

Partial = Callable[..., Any]

__all__ = ["PARTIALS", "Elementwise"]


def _share(a: Any, b: Any, y: Any) -> Any:
    """1 where a is the chosen one of two, 1/2 where they are equal."""
    one = xp.astype(y == a, y.dtype)
    return xp.where(y == b, 0.5 * one, one)


def _at_kinks(x: Any) -> "Backend":
    """The adapter that says what the derivative at a kink is: that of the framework of the parts of x."""
    return owner(bottom(x)) or get("numpy")


def _sign(x: Any, y: Any) -> Any:
    return 2 * xp.astype(x >= 0, y.dtype) - 1 if _at_kinks(x).abs_at_zero else xp.sign(x)


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


def _normal(x: Any) -> Any:
    """Density of the normal distribution."""
    return xp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))


def _gelu(x: Any, y: Any) -> Any:
    return 0.5 * (1 + xp.erf(x * math.sqrt(0.5))) + x * _normal(x)


def _silu(x: Any, y: Any) -> Any:
    s = xp.sigmoid(x)
    return s * (1 + x * (1 - s))


PARTIALS: dict[str, tuple[Partial | None, ...]] = {
    "abs": (_sign,),
    "acos": (lambda x, y: -1 / xp.sqrt((1 - x) * (1 + x)),),
    "acosh": (lambda x, y: 1 / (xp.sqrt(x - 1) * xp.sqrt(x + 1)),),
    "add": (lambda a, b, y: 1.0, lambda a, b, y: 1.0),
    "asin": (lambda x, y: 1 / xp.sqrt((1 - x) * (1 + x)),),
    "asinh": (lambda x, y: 1 / xp.hypot(x, xp.ones_like(x)),),
    "atan": (lambda x, y: 1 / (1 + x * x),),
    "atan2": (lambda a, b, y: b / (a * a + b * b), lambda a, b, y: -a / (a * a + b * b)),
    "atanh": (lambda x, y: 1 / ((1 - x) * (1 + x)),),
    "cbrt": (lambda x, y: 1 / (3 * y * y),),
    "copysign": (lambda a, b, y: _sign(a, y) * xp.copysign(xp.ones_like(y), y), None),
    "cos": (lambda x, y: -xp.sin(x),),
    "cosh": (lambda x, y: xp.sinh(x),),
    "divide": (lambda a, b, y: 1 / b, lambda a, b, y: -y / b),
    "erf": (lambda x, y: xp.exp(-x * x) * (2 / math.sqrt(math.pi)),),
    "exp": (lambda x, y: y,),
    "exp2": (lambda x, y: y * math.log(2),),
    "expm1": (lambda x, y: y + 1,),
    "fmax": (_share, lambda a, b, y: _share(b, a, y)),
    "fmin": (_share, lambda a, b, y: _share(b, a, y)),
    "fmod": (lambda a, b, y: 1.0, lambda a, b, y: -xp.trunc(a / b)),
    "gelu": (_gelu,),
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
    "relu": (lambda x, y: xp.astype(x > 0, y.dtype),),
    "remainder": (lambda a, b, y: 1.0, lambda a, b, y: xp.round((y - a) / b)),
    "sigmoid": (lambda x, y: y - y * y,),
    "silu": (_silu,),
    "sin": (lambda x, y: xp.cos(x),),
    "sinc": (_sinc,),
    "sinh": (lambda x, y: xp.cosh(x),),
    "softplus": (lambda x, y: xp.sigmoid(x),),
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


def _pow_second(a: Any, b: Any, y: Any, p: Any) -> Any:
    if b in (0, 1):
        return None
    return 2.0 if b == 2 else (b * (b - 1)) * a ** (b - 2)


# Second derivatives by the arguments, the value y and the first derivative p.
SECONDS: dict[str, Partial] = {
    "asinh": lambda x, y, p: -x * p * p * p,
    "atan": lambda x, y, p: -2.0 * x * p * p,
    "cos": lambda x, y, p: -y,
    "cosh": lambda x, y, p: y,
    "erf": lambda x, y, p: -2.0 * x * p,
    "exp": lambda x, y, p: y,
    "exp2": lambda x, y, p: p * math.log(2),
    "expm1": lambda x, y, p: p,
    "gelu": lambda x, y, p: (2.0 - x * x) * _normal(x),
    "log": lambda x, y, p: -p * p,
    "log10": lambda x, y, p: -math.log(10) * p * p,
    "log1p": lambda x, y, p: -p * p,
    "log2": lambda x, y, p: -math.log(2) * p * p,
    "reciprocal": lambda x, y, p: -2.0 * p * y,
    "relu": lambda x, y, p: None,
    "sigmoid": lambda x, y, p: p * (1.0 - 2.0 * y),
    "sin": lambda x, y, p: -y,
    "sinh": lambda x, y, p: y,
    "softplus": lambda x, y, p: p - p * p,
    "sqrt": lambda x, y, p: -(p * p) / y,
    "square": lambda x, y, p: 2.0,
    "tan": lambda x, y, p: 2.0 * y * p,
    "tanh": lambda x, y, p: -2.0 * y * p,
}

# (shift, c, d) of functions y for which z = y + shift solves the Riccati equation z' = d + c z².
RICCATI = {"sigmoid": (-0.5, -1.0, 0.25), "tan": (0.0, 1.0, 1.0), "tanh": (0.0, -1.0, 1.0)}


class Elementwise:
    """A function of numbers with its derivatives."""

    def __init__(self, name: str) -> None:
        self.name, self.partials, self.second = name, PARTIALS[name], SECONDS.get(name)
        self.riccati = RICCATI.get(name)
        self.compute = _OPERATORS.get(name) or getattr(xp, name)

    def __call__(self, *args: Any) -> Any:
        return self.compute(*args)

    def rule(self, level: Level, *args: Any) -> Any:
        """The rule of the kind of this level."""
        if not level.host:
            return level.kind.elementwise(level, self, args)
        # An infinite derivative is a value like any other; NumPy would warn of it
        # even where nobody asks for it, as in aux or in the branch not taken.
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return level.kind.elementwise(level, self, args)

    def partial(self, i: int, args: Any, y: Any) -> Any:
        """The derivative in argument i; None is zero."""
        partial = self.partials[i]
        return None if partial is None else partial(*args, y)

    def curvature(self, i: int, args: Any, y: Any, p: Any) -> Any:
        """The second derivative in argument i, where p is the first; None is zero."""
        if type(p) is float:  # not a float64 of NumPy, which is a value
            return None
        if self.second is not None:
            return self.second(*args, y, p)
        if self.name == "pow" and i == 0 and isinstance(args[1], int | float):
            return _pow_second(args[0], args[1], y, p)
        level = Level(FIRST_ORDER)
        unit = Jet(level, args[i], xp.ones_like(args[i])[None, ...])
        value = Jet(level, y, xp.broadcast_to(p, tuple(y.shape))[None, ...])
        change = tangent(level, self.partial(i, [unit if i == j else arg for j, arg in enumerate(args)], value))
        return None if change is None else change[0, ...]


for _name in PARTIALS:
    register(_name)(Elementwise(_name).rule)


@register("positive", "conj", "real")
def _same(level: Level, x: Any) -> Any:
    return x


@register("where")
def _where(level: Level, condition: Any, a: Any, b: Any) -> Any:
    condition = primal(level, condition)
    y = xp.where(condition, primal(level, a), primal(level, b))

    def chosen(parts: Sequence[Any]) -> Any:
        # The derivative of the branch not taken may be NaN; where() leaves it out.
        if all(part is None for part in parts):
            return None
        zero = xp.zeros_like(next(part for part in parts if part is not None))
        return xp.where(condition, *(zero if part is None else part for part in parts))

    tangents = [None if t is None else lift(t, y.ndim) for t in (tangent(level, a), tangent(level, b))]
    return make(level, y, chosen(tangents), tuple(map(chosen, zip(plain(level, a), plain(level, b), strict=True))))


@register("clip")
def _clip(level: Level, x: Any, min: Any = None, max: Any = None) -> Any:
    if _at_kinks(x).clip_at_bound == 1.0:
        x = x if min is None else xp.where(x < min, _like(min, x), x)
        return x if max is None else xp.where(x > max, _like(max, x), x)
    x = x if min is None else apply("maximum", x, _like(min, x))
    return x if max is None else apply("minimum", x, _like(max, x))


def _like(value: Any, x: Any) -> Any:
    return value if hasattr(value, "shape") else xp.full_like(x, value)


@register("astype")
def _astype(level: Level, x: Any, dtype: Any, copy: bool = True, device: Any = None) -> Any:
    y = xp.astype(primal(level, x), dtype)  # to integers: piecewise constant, as floor() is
    return make(level, y, x.tangent, x.plain) if number_kind(y) in ("floating", "complex") else y


@register("asarray")
def _asarray(level: Level, x: Any, dtype: Any = None, device: Any = None, copy: Any = None) -> Any:
    return x if dtype is None else xp.astype(x, dtype)


@register("full")
def _full(level: Level, shape: Any, fill_value: Any, dtype: Any = None, device: Any = None) -> Any:
    return xp.broadcast_to(_asarray(level, fill_value, dtype), (shape,) if isinstance(shape, int) else shape)


@register("full_like")
def _full_like(level: Level, x: Any, fill_value: Any, dtype: Any = None, device: Any = None) -> Any:
    if not moves(level, fill_value):
        return call("full_like", primal(level, x), fill_value, dtype=dtype)
    return _full(level, x.shape, fill_value, x.dtype if dtype is None else dtype)


@register("heaviside")
def _heaviside(level: Level, x: Any, middle: Any) -> Any:
    x = primal(level, x)
    step = call("heaviside", x, primal(level, middle))
    return xp.where(x == 0, middle, step) if moves(level, middle) else step


constant(
    *("all", "any", "argmax", "argmin", "argsort", "ceil", "count_nonzero", "equal", "floor", "floor_divide"),
    *("greater", "greater_equal", "isfinite", "isinf", "isnan", "less", "less_equal", "logical_and", "logical_not"),
    *("logical_or", "logical_xor", "nonzero", "not_equal", "round", "searchsorted", "sign", "signbit", "trunc"),
    *("zeros_like", "ones_like", "empty_like", "isdtype", "result_type", "can_cast", "finfo", "linalg.matrix_rank"),
)
