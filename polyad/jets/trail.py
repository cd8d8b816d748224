"""What the jets of a pass went through, where that says that nothing has to be checked."""

import math
from collections.abc import Callable
from typing import Any

from polyad.jets.rule import moves

__all__ = ["UNSEEN", "Trail"]


class Trail:
    """Written by the functions that the jets of one pass meet.

    rows   of a batch: how many entries the first axis of its jets has; None where nobody asks
    apart  whether no function has mixed entries along that axis
    own    whether all were functions of polyad, or have the derivative that these have wherever there is one
    """

    # Names of functions of numbers, whose results are those of the entries at one place of their arguments.
    numberwise = frozenset(
        (
            *("abs", "acos", "acosh", "add", "asin", "asinh", "atan", "atan2", "atanh", "cos", "cosh", "divide", "erf"),
            *(
                "exp",
                "exp2",
                "expm1",
                "gelu",
                "hypot",
                "log",
                "log10",
                "log1p",
                "log2",
                "logaddexp",
                "maximum",
                "minimum",
            ),
            *("multiply", "negative", "positive", "pow", "reciprocal", "sigmoid", "silu", "sin", "sinc", "sinh"),
            *("softplus", "sqrt", "square", "subtract", "tan", "tanh", "where"),
        )
    )

    def __init__(self, rows: int | None = None) -> None:
        self.rows, self.apart, self.own = rows, rows is not None, True

    def lost(self) -> None:
        """Note a pass of another kind, which takes the jets apart."""
        self.apart = self.own = False

    def pass_through(self, level: int, name: str, args: Any, kwargs: dict[str, Any], y: Any) -> None:
        """Note the function of this name on jets of this level, whose result is y.

        Of one number after the other it needs not be told: as long as no function has mixed
        rows, they are the first axis of all jets.
        """
        if isinstance(y, tuple) or moves(level, y):
            keeps = _KEEPING.get(name, _numberwise if name in self.numberwise else None)
            self.apart = keeps is not None and self.rows is not None and keeps(self.rows, level, args, kwargs)


UNSEEN = Trail()
"""That of all passes where nobody asks."""


# Functions of which row i of the result is made of row i of the jets and of constants alone.


def _numberwise(rows: int, level: int, args: Any, kwargs: dict[str, Any]) -> bool:
    """Functions of numbers: all jets have the rows in front, and no constant adds an axis or rows."""
    n = max(getattr(arg, "ndim", 0) for arg in args)
    if kwargs or any(isinstance(arg, list | tuple) for arg in args):
        return False
    return n > 0 and all(_in_front(rows, n, arg, moves(level, arg)) for arg in args)


def _in_front(rows: int, n: int, x: Any, moving: bool) -> bool:
    if moving:
        return bool(x.ndim == n and x.shape[0] == rows)
    return getattr(x, "ndim", 0) < n or x.shape[0] in (1, rows)


def _itself(rows: int, level: int, args: Any, kwargs: dict[str, Any]) -> bool:
    return bool(args[0].shape[:1] == (rows,))


def _product(rows: int, level: int, args: Any, kwargs: dict[str, Any]) -> bool:
    """x @ weight + bias with constant weight and bias."""
    x, weight, *bias = args
    n = x.ndim
    if kwargs or n < 2 or x.shape[0] != rows or weight.ndim > 2 or moves(level, weight):
        return False
    return not bias or (not moves(level, bias[0]) and _in_front(rows, n, bias[0], False))


def _reduction(rows: int, level: int, args: Any, kwargs: dict[str, Any]) -> bool:
    axis = kwargs.get("axis")
    axes = axis if isinstance(axis, tuple) else (axis,)
    (x, *rest) = args
    return not rest and x.shape[:1] == (rows,) and all(isinstance(i, int) and i % x.ndim for i in axes)


def _index(rows: int, level: int, args: Any, kwargs: dict[str, Any]) -> bool:
    """x[:, ...] and x[..., i]."""
    x, index = args
    if not isinstance(index, tuple) or not index or x.shape[:1] != (rows,):
        return False
    if not all(type(i) in (int, slice) or i is None or i is Ellipsis for i in index):
        return False
    if index[0] is Ellipsis:
        return sum(i is not None for i in index[1:]) < x.ndim
    return bool(index[0] == slice(None))


def _reshape(rows: int, level: int, args: Any, kwargs: dict[str, Any]) -> bool:
    x, shape, *rest = args
    known = isinstance(shape, tuple) and not rest and not kwargs and len(shape) > 0 and x.shape[:1] == (rows,)
    return known and rows > 0 and shape[0] == rows and math.prod(x.shape) > 0


def _joined(rows: int, level: int, args: Any, kwargs: dict[str, Any]) -> bool:
    """concat along another axis than the first."""
    (parts, *rest), axis = args, kwargs.get("axis", 0)
    if rest or not isinstance(axis, int) or not isinstance(parts, list | tuple):
        return False
    return all(x.ndim > 0 and x.shape[0] == rows and axis % x.ndim for x in parts)


_KEEPING: dict[str, Callable[..., bool]] = {
    "astype": _itself,
    "concat": _joined,
    "getitem": _index,
    "layers.affine": _product,
    "matmul": _product,
    "max": _reduction,
    "mean": _reduction,
    "min": _reduction,
    "reshape": _reshape,
    "sum": _reduction,
}
