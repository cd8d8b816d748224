"""Dropout: entries set to zero by a generator that is part of the state."""

import math
from typing import Any

import numpy as np

from polyad.arrays import array_namespace, xp
from polyad.backends import get, owner
from polyad.errors import ArgumentError
from polyad.layers.layer import Layer, Random, Test, Train, Tree

__all__ = ["Dropout", "random_words"]


def _signed(word: int) -> int:
    """The 32-bit word as an int32."""
    return word - 2**32 if word >= 2**31 else word


# The multipliers of triple32 (Wellons 2018), found by a search for the least bias, and the golden ratio.
M1, M2, M3 = _signed(0xED5AD4BB), _signed(0xAC4C1B51), _signed(0x31848BAB)
STEP = _signed(0x9E3779B9)


def _mixed(x: Any, key: Any) -> Any:
    """Words of int32 from counters of int32, a bijection for each key; all arithmetic wraps.

    >> keeps the sign of an int32; the masks make it the shift of unsigned words.
    """
    x = (x ^ ((x >> 17) & 0x7FFF)) * M1
    x = ((x ^ ((x >> 11) & 0x1FFFFF)) ^ key) * M2
    x = (x ^ ((x >> 15) & 0x1FFFF)) * M3
    return x ^ ((x >> 14) & 0x3FFFF)


def random_words(key: Any, count: Any, shape: tuple[int, ...]) -> Any:
    """Random int32 of this shape, a function of key, count and place alone: the same on every backend.

    key    int32 (2,)
    count  int32 (), other numbers for each
    """
    words = _mixed(key + xp.reshape(count, (1,)) * STEP, 0)
    index = _indices(key, math.prod(shape))
    return xp.reshape(_mixed(index ^ words[:1], words[1:]), shape)


def _indices(like: Any, n: int) -> Any:
    """0, 1, ... n - 1 as int32, of the framework and on the device of `like`."""
    namespace, backend = array_namespace(like), owner(like) or get("numpy")
    return namespace.arange(n, dtype=namespace.int32, device=backend.device(like))


class Dropout(Layer):
    """Each entry is 0 with probability `rate`, else x / (1 - rate); x itself in test mode.

    The mask is a function of the key and of the number of calls so far, both in
    the state, and of the place in x. A derivative reads the state and leaves it,
    so value, inner and outer passes of a call see one mask. Inside a vmap all
    examples have the same mask; for others give each a key of its own.

    state   key int32 (2,), count int32 (), which a call in training mode moves by one
    raises  ArgumentError for a rate outside of 0 <= rate < 1
    source  Srivastava et al. (2014); the generator: docs/layers.md
    """

    def __init__(self, rate: float = 0.5) -> None:
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
            raise ArgumentError(f"Dropout({rate!r}): the rate is a number with 0 <= rate < 1")
        self.rate = float(rate)

    def __repr__(self) -> str:
        return f"Dropout({self.rate:g})"

    def init(self, random: Random) -> tuple[Tree, Tree]:
        return {}, {"key": random.at("key").words((2,)), "count": np.zeros((), np.int32), "mode": Train()}

    def parameter_shapes(self) -> Tree:
        return {}

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        if isinstance(state["mode"], Test):
            return x, state
        words = random_words(state["key"], state["count"], tuple(x.shape))
        keep = words >= min(round(self.rate * 2**32) - 2**31, 2**31 - 1)
        # A product, as in torch: where() takes four times as long there, and would hide a NaN.
        mask = xp.astype(keep, x.dtype) / (1 - self.rate)
        return x * mask, {**state, "count": xp.reshape(state["count"] + 1, ())}
