"""Windows that slide over the axes of space: sizes, padding, and the slices that they see."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from polyad.arrays import stop_gradient, xp
from polyad.errors import ArgumentError

Pairs = tuple[tuple[int, int], ...]
Padding = int | str | Sequence[int | Sequence[int]]

__all__ = ["Padding", "Pairs", "check_padding", "pads", "sizes", "slices"]


def sizes(layer: str, name: str, given: Any, n: int | None = None) -> tuple[int, ...]:
    """Positive integers, one an axis of space; one integer stands for all n."""
    found = (given,) * (n or 1) if isinstance(given, int) else tuple(given) if isinstance(given, list | tuple) else ()
    if (
        not 1 <= len(found) <= 3
        or (n is not None and len(found) != n)
        or not all(type(k) is int and k > 0 for k in found)
    ):
        axes = "1 to 3 positive integers, one an axis of space" if n is None else f"one positive integer or {n}"
        raise ArgumentError(f"{layer}: {name}={given!r}; it needs {axes}")
    return found


def check_padding(layer: str, given: Any, n: int) -> str | Pairs:
    """ "same", "valid", or (before, after) for each of n axes of space."""
    if given in ("same", "valid"):
        return str(given)
    pairs = tuple(given) if isinstance(given, list | tuple) else (given,) * n
    pairs = tuple(
        (pair, pair) if isinstance(pair, int) else tuple(pair) if isinstance(pair, list | tuple) else ()
        for pair in pairs
    )
    if len(pairs) != n or not all(len(pair) == 2 and all(type(p) is int and p >= 0 for p in pair) for pair in pairs):
        raise ArgumentError(
            f"{layer}: padding={given!r}; it needs 'same', 'valid', an integer >= 0, or for each of {n} axes of space "
            f"an integer or a pair (before, after)"
        )
    return pairs


def pads(
    layer: Any, x: Any, window: Sequence[int], stride: Sequence[int], dilation: Sequence[int], padding: str | Pairs
) -> Pairs:
    """(before, after) for each axis of space of x.

    "same" gives ceil(size / stride) windows, with the odd entry of padding behind, as XLA and TensorFlow do.
    raises  ArgumentError where no window fits
    """
    shape, reach = x.shape[1:-1], [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
    if padding == "valid":
        pairs: Pairs = ((0, 0),) * len(window)
    elif padding == "same":
        totals = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(shape, stride, reach, strict=True)]
        pairs = tuple((total // 2, total - total // 2) for total in totals)
    else:
        pairs = padding  # type: ignore[assignment]  # checked when the layer was made
    if any(n + sum(pair) < r for n, pair, r in zip(shape, pairs, reach, strict=True)):
        raise ArgumentError(f"{layer!r}: its input has shape {tuple(x.shape)}, and no window fits in")
    return pairs


def slices(
    x: Any, window: Sequence[int], stride: Sequence[int], dilation: Sequence[int], padding: Pairs, fill: float = 0.0
) -> list[Any]:
    """For each place in the window, what all windows see there: arrays (B, *out, channels)."""
    for axis, (before, after) in enumerate(padding, start=1):
        x = _padded(x, axis, before, after, fill)
    out = [(n - (k - 1) * d - 1) // s + 1 for n, k, s, d in zip(x.shape[1:-1], window, stride, dilation, strict=True)]
    found = []
    for place in itertools.product(*map(range, window)):
        starts = [i * d for i, d in zip(place, dilation, strict=True)]
        index = [slice(a, a + (m - 1) * s + 1, s) for a, m, s in zip(starts, out, stride, strict=True)]
        found.append(x[(slice(None), *index, slice(None))])
    return found


def _padded(x: Any, axis: int, before: int, after: int, fill: float) -> Any:
    if not before and not after:
        return x
    shape = list(x.shape)
    parts = [x]
    for count, place in ((before, 0), (after, 2)):
        if count:
            shape[axis] = count
            edge = _filled(x, tuple(shape), fill)
            parts = [edge, *parts] if place == 0 else [*parts, edge]
    return xp.concat(parts, axis=axis)


def _filled(x: Any, shape: tuple[int, ...], fill: float) -> Any:
    """A constant array of this shape, of the framework, dtype and device of x."""
    if not math.prod(shape):
        return xp.reshape(xp.zeros_like(stop_gradient(x))[:0], shape)
    first = stop_gradient(x)[(slice(0, 1),) * x.ndim]
    return xp.broadcast_to(xp.full_like(first, fill), shape)
