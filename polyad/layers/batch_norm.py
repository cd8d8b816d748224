"""BatchNorm: zero mean and unit variance over the batch."""

import math
from typing import Any

import numpy as np

from polyad.arrays import describe, stop_gradient, xp
from polyad.errors import ArgumentError
from polyad.layers.affine import Affine
from polyad.layers.layer import Random, Test, Train, Tree

__all__ = ["BatchNorm"]


class BatchNorm(Affine):
    """(x - mean) / sqrt(var + eps) * scale + bias, x of shape (B, ..., features).

    In training mode mean and (biased) variance are those of the batch, over all
    axes but the last, and the running ones in the state move towards them by
    `momentum`, with the unbiased variance. In test mode the running ones are
    used. Running statistics are constants to every derivative. Written in
    primitives: fused kernels are wrong at third order.

    source  Ioffe & Szegedy (2015)
    """

    def __init__(self, features: int, *, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True) -> None:
        super().__init__(features, eps=eps, affine=affine)
        self.momentum = momentum

    def init(self, random: Random) -> tuple[Tree, Tree]:
        mean, var = np.zeros(self.features, np.float32), np.ones(self.features, np.float32)
        return super().init(random)[0], {"mean": mean, "var": var, "mode": Train()}

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        if x.ndim < 2 or x.shape[-1] != self.features:
            raise ArgumentError(f"{self!r}: its input is a {describe(x)}; it needs (B, ..., {self.features})")
        if isinstance(state["mode"], Test):
            centred, var = x - state["mean"], state["var"]
        else:
            centred, var, state = self._statistics(x, state)
        return self.scaled(centred, params, 1 / xp.sqrt(var + self.eps)), state

    def _statistics(self, x: Any, state: Tree) -> tuple[Any, Any, Tree]:
        n = math.prod(x.shape[:-1])
        if n < 2:
            raise ArgumentError(f"{self!r}: a batch of {n} has no variance; use more rows, or polyad.test_mode(state)")
        axes = tuple(range(x.ndim - 1))
        mean = xp.mean(x, axis=axes)
        centred = x - mean
        var = xp.mean(centred * centred, axis=axes)
        seen = {"mean": mean, "var": var * (n / (n - 1))}
        moved = {
            key: xp.astype((1 - self.momentum) * state[key] + self.momentum * stop_gradient(value), state[key].dtype)
            for key, value in seen.items()
        }
        return centred, var, {**state, **moved}
