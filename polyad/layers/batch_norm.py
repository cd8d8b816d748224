"""BatchNorm: zero mean and unit variance over the batch."""

import math
from typing import Any

import numpy as np

from polyad.arrays import describe, stop_gradient, xp
from polyad.errors import ArgumentError
from polyad.layers.affine import Affine
from polyad.layers.layer import Random, Test, Train, Tree
from polyad.layers.moments import centred, rsqrt

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
            y, var = x - state["mean"], state["var"]
        else:
            y, var, state = self._statistics(x, state)
        return self.scaled(y, params, rsqrt(var + self.eps)), state

    def _statistics(self, x: Any, state: Tree) -> tuple[Any, Any, Tree]:
        n = math.prod(x.shape[:-1])
        if n < 2:
            raise ArgumentError(f"{self!r}: a batch of {n} has no variance; use more rows, or polyad.test_mode(state)")
        axes = tuple(range(x.ndim - 1))
        y, mean, var = centred(x, axes=axes)
        moved = {
            "mean": _moved(state["mean"], self.momentum, mean),
            "var": _moved(state["var"], self.momentum, var, n / (n - 1)),
        }
        return y, var, {**state, **moved}


def _moved(old: Any, step: float, new: Any, factor: float = 1.0) -> Any:
    """The old statistics, moved a part of the way to factor * new."""
    moved = (1 - step) * old + (step * factor) * xp.reshape(stop_gradient(new), tuple(old.shape))
    return moved if moved.dtype == old.dtype else xp.astype(moved, old.dtype)
