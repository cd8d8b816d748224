"""MultiHeadAttention: each entry of a sequence as a mean over others."""

import math
from typing import Any

import numpy as np

from polyad.arrays import describe, number_kind, stop_gradient, xp
from polyad.errors import ArgumentError
from polyad.layers.dense import Dense
from polyad.layers.layer import Layer, Random, Tree, check_sizes, named_parameter

__all__ = ["MultiHeadAttention", "attention"]

LOWEST = -1e30
"""A score that no other is below, finite so that differences of two are 0."""


def attention(query: Any, key: Any, value: Any, mask: Any = None) -> Any:
    """softmax(query @ key^T / sqrt(size)) @ value over the last two axes, (..., time, size).

    mask     booleans that broadcast to (..., queries, keys); False is not attended to
    returns  (..., queries, size); zeros for a query that may attend to nothing
    source   Vaswani et al. (2017)
    """
    scores = (query / math.sqrt(query.shape[-1])) @ xp.matrix_transpose(key)
    if mask is None:
        return xp.softmax(scores, axis=-1) @ value
    scores = xp.where(mask, scores, xp.full_like(stop_gradient(scores), LOWEST))
    e = xp.exp(scores - stop_gradient(xp.max(scores, axis=-1, keepdims=True)))
    e = xp.where(mask, e, xp.zeros_like(e))
    total = xp.sum(e, axis=-1, keepdims=True)
    return (e / xp.where(total == 0, xp.ones_like(total), total)) @ value


class MultiHeadAttention(Layer):
    """Attention in several heads, of x (B, time, features) to itself.

    x is an array; or (query, memory), to attend to another sequence; or (query,
    memory, mask) with booleans that broadcast to (B, heads, queries, keys), False
    where nothing is attended to, and None for a memory that is the query. A query
    that may attend to nothing gets zeros before the last Dense.

    causal   no entry attends to a later one
    params   query, key, value, out: each a Dense(features, features)
    raises   ArgumentError for features that are no multiple of heads
    source   Vaswani et al. (2017). Written in primitives: fused kernels lack second derivatives
    """

    parts = ("query", "key", "value", "out")

    def __init__(self, features: int, heads: int, *, causal: bool = False, bias: bool = True) -> None:
        check_sizes("MultiHeadAttention", features=features, heads=heads)
        if features % heads:
            raise ArgumentError(f"MultiHeadAttention({features}, {heads}): features is a multiple of heads")
        self.features, self.heads, self.causal = features, heads, causal
        self.dense = Dense(features, features, bias=bias)

    def __repr__(self) -> str:
        marks = (", causal=True" if self.causal else "") + ("" if self.dense.bias else ", bias=False")
        return f"MultiHeadAttention({self.features}, {self.heads}{marks})"

    def init(self, random: Random) -> tuple[Tree, Tree]:
        return {key: self.dense.init(random.at(key))[0] for key in self.parts}, {}

    def parameter_shapes(self) -> Tree:
        return {key: self.dense.parameter_shapes() for key in self.parts}

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        query, memory, mask = (*x, None, None)[:3] if isinstance(x, tuple) else (x, None, None)
        memory = query if memory is None else memory
        for z in (query, memory):
            if z.ndim != 3 or z.shape[-1] != self.features:
                raise ArgumentError(f"{self!r}: its input is a {describe(z)}; it needs (B, time, {self.features})")
        if mask is not None and number_kind(mask) != "boolean":
            raise ArgumentError(f"{self!r}: its mask is a {describe(mask)}; it needs booleans, True where to attend")
        if self.causal:
            ones = np.tri(query.shape[1], memory.shape[1], dtype=bool)
            mask = ones if mask is None else xp.logical_and(mask, ones)
        q, k, v = (self._heads(z, params, key) for key, z in zip(self.parts, (query, memory, memory), strict=False))
        y = xp.reshape(xp.moveaxis(attention(q, k, v, mask), 1, 2), tuple(query.shape))
        return self._dense(y, params, "out"), state

    def _dense(self, x: Any, params: Tree, key: str) -> Any:
        return self.dense(x, named_parameter(self, params, key), {})[0]

    def _heads(self, x: Any, params: Tree, key: str) -> Any:
        """(B, heads, time, features / heads)."""
        y = self._dense(x, params, key)
        return xp.moveaxis(xp.reshape(y, (*y.shape[:2], self.heads, self.features // self.heads)), 2, 1)
