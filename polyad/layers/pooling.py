"""MaxPool and MeanPool: the largest entry or the mean of each window."""

import math
from typing import Any

from polyad.arrays import describe, operation, xp
from polyad.errors import ArgumentError
from polyad.layers.layer import Layer, Tree
from polyad.layers.windows import Padding, Pairs, check_padding, pads, sizes, slices

__all__ = ["MaxPool", "MeanPool", "larger", "max_pool", "mean_pool"]


def larger(a: Any, b: Any) -> Any:
    """The larger one, NaN where one is; of equal ones a takes the derivative."""
    return xp.where((a >= b) | (a != a), a, b)


@operation
def max_pool(x: Any, *, window: tuple[int, ...], stride: tuple[int, ...], padding: Pairs) -> Any:
    """The largest entry of each window of x, (B, *space, channels); the first of equal ones takes the derivative."""
    first, *rest = slices(x, window, stride, (1,) * len(window), padding, -math.inf)
    for other in rest:
        first = larger(first, other)
    return first


@operation
def mean_pool(x: Any, *, window: tuple[int, ...], stride: tuple[int, ...], padding: Pairs) -> Any:
    """The mean of each window of x, (B, *space, channels); padding counts as zeros."""
    total, *rest = slices(x, window, stride, (1,) * len(window), padding)
    for other in rest:
        total = total + other
    return total / math.prod(window)


class _Pool(Layer):
    """What the layers share: the windows."""

    def __init__(self, window: int | tuple[int, ...], stride: Any = None, padding: Padding = "valid") -> None:
        name = type(self).__name__
        self.window = sizes(name, "window", window)
        self.stride = self.window if stride is None else sizes(name, "stride", stride, len(self.window))
        self.padding = check_padding(name, padding, len(self.window))
        if not isinstance(self.padding, str) and any(
            max(pair) >= k for pair, k in zip(self.padding, self.window, strict=True)
        ):
            raise ArgumentError(
                f"{name}: padding={padding!r} makes windows of padding alone; it is less than the window"
            )

    def __repr__(self) -> str:
        window = self.window[0] if len(self.window) == 1 else self.window
        stride = self.stride[0] if len(self.stride) == 1 else self.stride
        rest = "" if self.stride == self.window else f", stride={stride}"
        return (
            f"{type(self).__name__}({window}{rest}{'' if self.padding == 'valid' else f', padding={self.padding!r}'})"
        )

    def parameter_shapes(self) -> Tree:
        return {}

    def geometry(self, x: Any) -> dict[str, Any]:
        """Window, stride and padding for the input x."""
        if x.ndim != len(self.window) + 2:
            space = ", ".join(f"n{i}" for i in range(len(self.window)))
            raise ArgumentError(f"{self!r}: its input is a {describe(x)}; it needs (B, {space}, channels)")
        ones = (1,) * len(self.window)
        return {
            "window": self.window,
            "stride": self.stride,
            "padding": pads(self, x, self.window, self.stride, ones, self.padding),
        }


class MaxPool(_Pool):
    """The largest entry of each window, x of shape (B, *space, channels), one to three axes of space.

    window   an integer for one axis of space, or a tuple with one for each
    stride   the same; None: the window, so that windows do not overlap
    padding  "valid" (none), "same", an integer, or a pair (before, after) for each axis; it never wins
    ties     the first of equal entries, row by row, takes the derivative, as in torch and XLA
    """

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        return max_pool(x, **self.geometry(x)), state


class MeanPool(_Pool):
    """The mean of each window; arguments as of MaxPool. Padding counts as zeros, as in torch and Flax."""

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        return mean_pool(x, **self.geometry(x)), state
