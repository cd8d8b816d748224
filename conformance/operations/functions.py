"""Functions of numbers and operators, with the numbers where they are smooth."""

from typing import Any

import numpy as np

from .operation import Argument, Domain, Operation, between, offset, signed

__all__ = ["FUNCTIONS"]

SOME = signed(0.2, 1.2)
POSITIVE = between(0.3, 1.7)
INSIDE = signed(0.1, 0.8)
ABOVE = between(1.3, 2.5)
NEAR = between(0.9, 1.1)
BROADCAST = ((3,), (2, 1))


def either(u: np.ndarray) -> np.ndarray:
    """Numbers of either sign, in turn."""
    return SOME(np.abs(u)) * np.resize([1.0, -1.0], u.shape)


def around(u: np.ndarray) -> np.ndarray:
    """Numbers on either side of NEAR, in turn."""
    return 1 + either(u)


# Functions with derivatives of every order, as they are.
SMOOTH: dict[str, tuple[Domain, ...]] = {
    "acos": (INSIDE,),
    "acosh": (ABOVE,),
    "asin": (INSIDE,),
    "asinh": (SOME,),
    "atan": (SOME,),
    "atan2": (SOME, POSITIVE),
    "atanh": (INSIDE,),
    "cbrt": (SOME,),
    "cos": (SOME,),
    "cosh": (SOME,),
    "divide": (SOME, SOME),
    "erf": (SOME,),
    "exp": (SOME,),
    "exp2": (SOME,),
    "expm1": (SOME,),
    "gelu": (SOME,),
    "hypot": (SOME, SOME),
    "log": (POSITIVE,),
    "log10": (POSITIVE,),
    "log1p": (INSIDE,),
    "log2": (POSITIVE,),
    "logaddexp": (SOME, SOME),
    "logaddexp2": (SOME, SOME),
    "pow": (POSITIVE, SOME),
    "reciprocal": (SOME,),
    "sigmoid": (SOME,),
    "silu": (SOME,),
    "sin": (SOME,),
    "sinc": (SOME,),
    "sinh": (SOME,),
    "softplus": (SOME,),
    "sqrt": (POSITIVE,),
    "tan": (INSIDE,),
    "tanh": (SOME,),
}
# Piecewise linear or bilinear functions, whose result is cubed.
CURVED: dict[str, tuple[Domain, ...]] = {
    "abs": (SOME,),
    "add": (SOME, POSITIVE),
    "conj": (SOME,),
    "fmax": (around, NEAR),
    "fmin": (around, NEAR),
    "fmod": (between(2.2, 2.8), between(0.95, 1.0)),
    "maximum": (around, NEAR),
    "minimum": (around, NEAR),
    "multiply": (SOME, SOME),
    "negative": (SOME,),
    "positive": (SOME,),
    "real": (SOME,),
    "relu": (SOME,),
    "remainder": (between(2.2, 2.8), between(0.95, 1.0)),
    "square": (SOME,),
    "subtract": (SOME, POSITIVE),
}
# Constant between jumps: their product with x² is not.
STEPS = ("ceil", "floor", "round", "sign", "trunc")


def _named(name: str) -> Any:
    return lambda xp, *xs: getattr(xp, name)(*xs)


def of_numbers(name: str, f: Any, *domains: Domain, curved: bool = False, covers: tuple[str, ...] = ()) -> Operation:
    """A function of numbers of one or two broadcast arguments."""
    arguments = tuple(Argument("...", domain) for domain in domains)
    return Operation(name, f, arguments, covers, curved, batches=BROADCAST[: len(domains)])


def _step(name: str) -> Operation:
    return of_numbers(f"{name}(x) * x²", lambda xp, x: getattr(xp, name)(x) * x * x, offset, curved=True)


def _augmented(xp: Any, a: Any, b: Any) -> Any:
    y = a * b
    y += a
    y *= b
    y -= a * a
    y /= 2.0
    return y


_OPERATORS = (
    of_numbers("x + y", lambda xp, a, b: a + b, SOME, POSITIVE, curved=True, covers=("__add__",)),
    of_numbers("2 + x", lambda xp, x: 2.0 + x, SOME, curved=True, covers=("__radd__",)),
    of_numbers("x - y", lambda xp, a, b: a - b, SOME, POSITIVE, curved=True, covers=("__sub__",)),
    of_numbers("2 - x", lambda xp, x: 2.0 - x, SOME, curved=True, covers=("__rsub__",)),
    of_numbers("x * y", lambda xp, a, b: a * b, SOME, SOME, curved=True, covers=("__mul__",)),
    of_numbers("2 * x", lambda xp, x: 2 * x, SOME, curved=True, covers=("__rmul__",)),
    of_numbers("x / y", lambda xp, a, b: a / b, SOME, SOME, covers=("__truediv__",)),
    of_numbers("2 / x", lambda xp, x: 2 / x, SOME, covers=("__rtruediv__",)),
    of_numbers("x ** y", lambda xp, a, b: a**b, POSITIVE, SOME, covers=("__pow__",)),
    of_numbers("x ** 2", lambda xp, x: x**2, SOME, curved=True, covers=("__pow__",)),
    of_numbers("x ** 3.0", lambda xp, x: x**3.0, SOME, covers=("__pow__",)),
    of_numbers("x ** -1", lambda xp, x: x**-1, SOME, covers=("__pow__",)),
    of_numbers("x ** 0.5", lambda xp, x: x**0.5, POSITIVE, covers=("__pow__",)),
    of_numbers("2 ** x", lambda xp, x: 2.0**x, SOME, covers=("__rpow__",)),
    of_numbers("x // y * x²", lambda xp, a, b: a // b * a * a, between(2.2, 2.8), between(0.95, 1.0), curved=True,
               covers=("__floordiv__",)),
    of_numbers("x % y", lambda xp, a, b: a % b, between(2.2, 2.8), between(0.95, 1.0), curved=True,
               covers=("__mod__",)),
    of_numbers("x % -y", lambda xp, a, b: a % (-b), between(2.2, 2.8), between(0.95, 1.0), curved=True,
               covers=("__mod__",)),
    of_numbers("5 % x", lambda xp, x: 5.0 % x, between(1.1, 1.2), curved=True, covers=("__rmod__",)),
    of_numbers("5 // x * x", lambda xp, x: 5.0 // x * x, between(1.1, 1.2), curved=True, covers=("__rfloordiv__",)),
    of_numbers("abs(x)", lambda xp, x: abs(x), SOME, curved=True, covers=("__abs__",)),
    of_numbers("-x", lambda xp, x: -x, SOME, curved=True, covers=("__neg__",)),
    of_numbers("+x", lambda xp, x: +x, SOME, curved=True, covers=("__pos__",)),
    Operation("x += y", _augmented, (Argument("m n", SOME), Argument("m n", SOME)),
              ("__iadd__", "__isub__", "__imul__", "__itruediv__")),
)  # fmt: skip

FUNCTIONS: tuple[Operation, ...] = (
    *(of_numbers(name, _named(name), *domains) for name, domains in SMOOTH.items()),
    *(of_numbers(name, _named(name), *domains, curved=True) for name, domains in CURVED.items()),
    *map(_step, STEPS),
    of_numbers("floor_divide(x, y) * x²", lambda xp, a, b: xp.floor_divide(a, b) * a * a,
               between(2.2, 2.8), between(0.95, 1.0), curved=True),
    of_numbers("where(x > 0, f, g)", lambda xp, x: xp.where(x > 0, xp.sin(x), x * x * x), either),
    of_numbers("where(x > 0, x, y)", lambda xp, a, b: xp.where(a > 0, a * b, b), either, SOME, curved=True),
    of_numbers("where(x > 0, x², 0.5)", lambda xp, x: xp.where(x > 0, x * x, 0.5), either, curved=True),
    of_numbers("clip(x, -0.5, 0.5)", lambda xp, x: xp.clip(x, -0.5, 0.5) + x, signed(0.6, 1.2), curved=True),
    of_numbers("clip(x, max=2)", lambda xp, x: xp.clip(x, max=2.0), SOME, curved=True),
    of_numbers("clip(x, y)", lambda xp, a, b: xp.clip(a, b), around, NEAR, curved=True),
    of_numbers("copysign(x, y) * y", lambda xp, a, b: xp.copysign(a, b) * b, SOME, SOME, curved=True),
    *_OPERATORS,
)  # fmt: skip
