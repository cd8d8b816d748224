"""Truncated Taylor series: x(t) = x + c_1 t + ... + c_K t^K.

Coefficients are normalised, so that a product is a convolution of them. Every
elementary function solves a differential equation, which gives its coefficients
one after the other, in a number of products that grows with the square of the
order. Coefficients that are zero by structure are None and cost nothing.

Source: Griewank & Walther (2008), Evaluating derivatives, chapter 13.
"""

import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from polyad.arrays import xp
from polyad.jets.first_order import FIRST_ORDER
from polyad.jets.jet import Jet, make
from polyad.jets.kind import Kind, Level, Parts
from polyad.jets.rule import moves, plain, primal, tangent

if TYPE_CHECKING:
    from polyad.jets.elementwise import Elementwise

Coefficients = list[Any]

__all__ = ["TAYLOR", "Taylor"]


class Taylor(Kind):
    """Jets without a tangent, whose plain parts are the coefficients c_1 to c_K."""

    def elementwise(self, level: Level, f: "Elementwise", args: tuple[Any, ...]) -> Any:
        y = f(*(primal(level, arg) for arg in args))
        recurrence = RECURRENCES.get(f.name)
        if recurrence is not None:
            coefficients = recurrence(level, y, *(_all(level, arg) for arg in args))
        elif f.name == "pow" and isinstance(args[1], int | float):
            coefficients = _power(level, y, _all(level, args[0]), args[1])
        else:
            coefficients = _by_partials(level, f, args, y)
        return make(level, y, None, tuple(coefficients))

    def bilinear(self, level: Level, a: Any, b: Any, f: Any, left: Any, right: Any) -> Any:
        x, z = _all(level, a), _all(level, b)
        return make(level, f(x[0], z[0]), None, tuple(convolution(x, z, n, f) for n in _orders(level)))

    def multilinear(self, level: Level, args: list[Any], f: Any, along: Any) -> Any:
        factors = [_all(level, arg) for arg in args]

        def coefficient(n: int) -> Any:
            terms = None
            for orders in itertools.product(*(range(n + 1 if moves(level, arg) else 1) for arg in args)):
                parts = [factor[j] for factor, j in zip(factors, orders, strict=True)]
                if sum(orders) == n and all(part is not None for part in parts):
                    terms = _plus(terms, f(*parts))
            return terms

        return make(level, coefficient(0), None, tuple(coefficient(n) for n in _orders(level)))

    def solution(self, level: Level, a: Any, b: Any) -> Any:
        factors, rights = _all(level, a), _all(level, b)
        y = [xp.linalg.solve(factors[0], rights[0])]
        for n in _orders(level):
            right = _minus(rights[n], convolution(factors, y, n, operator.matmul, first=1))
            y.append(None if right is None else xp.linalg.solve(factors[0], right))
        return make(level, y[0], None, tuple(y[1:]))

    def inverse(self, level: Level, x: Any) -> Any:
        factors = _all(level, x)
        y = [xp.linalg.inv(factors[0])]
        for n in _orders(level):
            right = convolution(factors, y, n, operator.matmul, first=1)
            y.append(None if right is None else -(y[0] @ right))
        return make(level, y[0], None, tuple(y[1:]))

    def pulled(self, level: Level, cotangents: Sequence[Parts], pull: Callable[..., Any]) -> list[Any]:
        n = level.plain + 1
        found = pull([part for parts in cotangents for part in reversed(parts)])
        return [
            make(level, found[i + n - 1], None, tuple(reversed(found[i : i + n - 1]))) for i in range(0, len(found), n)
        ]

    def derived(self, level: Level, rule: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """y' by the rule from the series x and x', both of one order less; then the integral."""
        inner, outer = Level(TAYLOR, level.plain - 1), Level(FIRST_ORDER)

        def moving(x: Any) -> Any:
            if not moves(level, x):
                return x
            return Jet(outer, _jet(inner, _all(level, x)[:-1]), _jet(inner, _slope(_all(level, x)))[None, ...])

        def integral(y: Any) -> Any:
            value, slope = primal(inner, primal(outer, y)), tangent(outer, y)
            slopes = () if slope is None else (slope[0, ...],)
            rates = [c for s in slopes for c in (primal(inner, s), *plain(inner, s))]
            return make(level, value, None, tuple(None if c is None else c / (n + 1) for n, c in enumerate(rates)))

        out = rule(outer, *map(moving, args), **kwargs)
        return type(out)(*map(integral, out)) if isinstance(out, tuple) else integral(out)


# Series as lists [c_0, ..., c_K].


def _orders(level: Level) -> range:
    return range(1, level.plain + 1)


def _all(level: Level, x: Any) -> Coefficients:
    return [primal(level, x), *plain(level, x)]


def _jet(level: Level, coefficients: Coefficients) -> Any:
    return make(level, coefficients[0], None, tuple(coefficients[1:]))


def _slope(x: Coefficients) -> Coefficients:
    """The series of x'(t), of one order less."""
    first, *rest = (_times(j, c) for j, c in enumerate(x) if j)
    return [xp.zeros_like(x[0]) if first is None else first, *rest]


def _times(factor: float, c: Any) -> Any:
    return c if c is None or factor == 1 else factor * c


def _plus(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else a + b


def _minus(a: Any, b: Any) -> Any:
    return a if b is None else -b if a is None else a - b


def convolution(a: Coefficients, b: Coefficients, n: int, f: Any = operator.mul, first: int = 0, last: int = 0) -> Any:
    """The sum of f(a_j, b_{n-j}) for j from `first` to n - `last`."""
    total = None
    for j in range(first, n + 1 - last):
        if a[j] is not None and b[n - j] is not None:
            total = _plus(total, f(a[j], b[n - j]))
    return total


def _square(y: Coefficients, n: int, first: int = 0) -> Any:
    """The sum of y_j y_{n-j} for j from `first` to n - `first`: equal pairs once."""
    pairs = None
    for j in range(first, (n + 1) // 2):
        if y[j] is not None and y[n - j] is not None:
            pairs = _plus(pairs, y[j] * y[n - j])
    middle = y[n // 2] if n % 2 == 0 and n // 2 >= first else None
    return _plus(_times(2.0, pairs), None if middle is None else middle * middle)


def _integral(rates: Coefficients, x: Coefficients, n: int, dx: Coefficients | None = None) -> Any:
    """Coefficient n of the y with y' = rates x'."""
    return _times(1 / n, convolution(_weighted(x) if dx is None else dx, rates, n, first=1))


def _weighted(x: Coefficients) -> Coefficients:
    """j c_j: the coefficients of t x'(t)."""
    return [None if j == 0 else _times(j, c) for j, c in enumerate(x)]


# Recurrences: the coefficients of order 1 to K from the value and the series of the arguments.


def _multiply(level: Level, y: Any, a: Coefficients, b: Coefficients) -> Coefficients:
    if len(a) == len(b) and all(p is q for p, q in zip(a, b, strict=True)):
        return [_square(a, n) for n in _orders(level)]
    return [convolution(a, b, n) for n in _orders(level)]


def _divide(level: Level, y: Any, a: Coefficients, b: Coefficients) -> Coefficients:
    found, inverse = [y], 1 / b[0]
    for n in _orders(level):
        right = _minus(a[n], convolution(b, found, n, first=1))
        found.append(None if right is None else right * inverse)
    return found[1:]


def _exp(level: Level, y: Any, x: Coefficients, rate: float = 1.0) -> Coefficients:
    """y' = rate y x'."""
    found, dx = [y], _weighted(x)
    for n in _orders(level):
        found.append(_times(rate, _integral(found, x, n, dx)))
    return found[1:]


def _log(level: Level, y: Any, x: Coefficients, rate: float = 1.0) -> Coefficients:
    """x y' = rate x'."""
    found, inverse = [y], 1 / x[0]
    slopes: Coefficients = [None]  # j y_j
    for n in _orders(level):
        right = _minus(_times(rate * n, x[n]), convolution(slopes, x, n, first=1, last=1))
        slopes.append(None if right is None else right * inverse)
        found.append(_times(1 / n, slopes[n]))
    return found[1:]


def _log1p(level: Level, y: Any, x: Coefficients) -> Coefficients:
    return _log(level, y, [1 + x[0], *x[1:]])


def _sqrt(level: Level, y: Any, x: Coefficients) -> Coefficients:
    found, inverse = [y], 0.5 / y
    for n in _orders(level):
        right = _minus(x[n], _square(found, n, first=1))
        found.append(None if right is None else right * inverse)
    return found[1:]


def _power(level: Level, y: Any, x: Coefficients, r: float) -> Coefficients:
    """x y' = r y x', and products where r is a natural number: they are right at x = 0 too."""
    if r == int(r) and 0 <= r <= 32:
        return _natural_power(level, x, int(r))
    found, inverse = [y], 1 / x[0]
    for n in _orders(level):
        total = None
        for j in range(1, n + 1):
            if x[j] is not None and found[n - j] is not None:
                total = _plus(total, (r * j - (n - j)) * (x[j] * found[n - j]))
        found.append(None if total is None else total * (inverse * (1 / n)))
    return found[1:]


def _natural_power(level: Level, x: Coefficients, r: int) -> Coefficients:
    if r == 0:
        return [None for _ in _orders(level)]
    power, square, orders = None, x, range(level.plain + 1)
    while r:
        if r % 2:
            power = square if power is None else [convolution(power, square, n) for n in orders]
        r //= 2
        if r:
            square = [_square(square, n) for n in orders]
    assert power is not None
    return power[1:]


def _by_square(sign: float, constant: float) -> Callable[..., Coefficients]:
    """y' = (constant + sign y²) x': tanh and tan."""

    def recurrence(level: Level, y: Any, x: Coefficients) -> Coefficients:
        found, rates, dx = [y], [constant + sign * (y * y)], _weighted(x)
        for n in _orders(level):
            found.append(_integral(rates, x, n, dx))
            if n < level.plain:
                rates.append(_times(sign, _square(found, n)))
        return found[1:]

    return recurrence


def _sigmoid(level: Level, y: Any, x: Coefficients) -> Coefficients:
    """y' = (y - y²) x'."""
    found, rates, dx = [y], [y - y * y], _weighted(x)
    for n in _orders(level):
        found.append(_integral(rates, x, n, dx))
        if n < level.plain:
            rates.append(_minus(found[n], _square(found, n)))
    return found[1:]


def _pair(partner: str, forth: float, back: float) -> Callable[..., Coefficients]:
    """y' = forth z x', z' = back y x': sin with cos, sinh with cosh."""

    def recurrence(level: Level, y: Any, x: Coefficients) -> Coefficients:
        found, other, dx = [y], [getattr(xp, partner)(x[0])], _weighted(x)
        for n in _orders(level):
            found.append(_times(forth, _integral(other, x, n, dx)))
            if n < level.plain:
                other.append(_times(back, _integral(found, x, n, dx)))
        return found[1:]

    return recurrence


def _linear(*factors: float) -> Callable[..., Coefficients]:
    def recurrence(level: Level, y: Any, *args: Coefficients) -> Coefficients:
        found = []
        for n in _orders(level):
            total = None
            for factor, x in zip(factors, args, strict=True):
                total = _plus(total, _times(factor, x[n]))
            found.append(total)
        return found

    return recurrence


RECURRENCES: dict[str, Callable[..., Coefficients]] = {
    "add": _linear(1.0, 1.0),
    "cos": _pair("sin", -1.0, 1.0),
    "cosh": _pair("sinh", 1.0, 1.0),
    "divide": _divide,
    "exp": _exp,
    "exp2": lambda level, y, x: _exp(level, y, x, math.log(2)),
    "expm1": lambda level, y, x: _exp(level, y + 1, x),
    "log": _log,
    "log10": lambda level, y, x: _log(level, y, x, 1 / math.log(10)),
    "log1p": _log1p,
    "log2": lambda level, y, x: _log(level, y, x, 1 / math.log(2)),
    "multiply": _multiply,
    "negative": _linear(-1.0),
    "reciprocal": lambda level, y, x: _divide(level, y, [None] * len(x), x),
    "sigmoid": _sigmoid,
    "sin": _pair("cos", 1.0, -1.0),
    "sinh": _pair("cosh", 1.0, 1.0),
    "sqrt": _sqrt,
    "square": lambda level, y, x: [_square(x, n) for n in _orders(level)],
    "subtract": _linear(1.0, -1.0),
    "tan": _by_square(1.0, 1.0),
    "tanh": _by_square(-1.0, 1.0),
}

# The derivative of these is a function of x alone, so that one series of it is enough.
_OF_ARGUMENT = frozenset(
    ("acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "erf", "gelu", "silu", "sinc", "softplus")
)


def _by_partials(level: Level, f: "Elementwise", args: Sequence[Any], y: Any) -> Coefficients:
    """y' = the sum of the partial derivatives times x', each a series of lower order."""
    found: Coefficients = [y]
    if f.name in _OF_ARGUMENT:
        rates = _rates(level, f, args, None, level.plain - 1)
        return [_step(level, args, rates, n) for n in _orders(level)]
    for n in _orders(level):
        found.append(_step(level, args, _rates(level, f, args, found, n - 1), n))
    return found[1:]


def _rates(level: Level, f: "Elementwise", args: Sequence[Any], y: Coefficients | None, order: int) -> list[Any]:
    """The series of each partial derivative to this order."""
    inner = Level(TAYLOR, order)
    jets = [_jet(inner, _all(level, arg)[: order + 1]) if moves(level, arg) else arg for arg in args]
    value = None if y is None else _jet(inner, y)
    partials = [f.partial(i, jets, value) if moves(level, arg) else None for i, arg in enumerate(args)]
    return [None if p is None else _all(inner, p) for p in partials]


def _step(level: Level, args: Sequence[Any], rates: Sequence[Any], n: int) -> Any:
    total = None
    for arg, rate in zip(args, rates, strict=True):
        if rate is not None:
            total = _plus(total, _integral(rate, _all(level, arg), n))
    return total


TAYLOR = Taylor()
