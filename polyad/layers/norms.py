"""LayerNorm, GroupNorm, InstanceNorm and RMSNorm: zero mean and unit variance within each row of a batch.

Written in primitives: fused kernels of frameworks are wrong at third order. The
variance is the biased one, and eps is added to it before the root.
"""

from typing import Any

from polyad.arrays import describe, xp
from polyad.errors import ArgumentError
from polyad.layers.affine import Affine
from polyad.layers.layer import Tree, check_features, check_sizes
from polyad.layers.moments import centred, rsqrt

__all__ = ["GroupNorm", "InstanceNorm", "LayerNorm", "RMSNorm"]


def _normed(x: Any, axes: tuple[int, ...], eps: float) -> tuple[Any, Any]:
    """(x - mean, 1 / sqrt(var + eps)) over these axes."""
    y, _mean, var = centred(x, axes=axes)
    return y, rsqrt(var + eps)


class LayerNorm(Affine):
    """(x - mean) / sqrt(var + eps) * scale + bias over the last axis, x of shape (..., features).

    source  Ba, Kiros & Hinton (2016)
    """

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        check_features(self, x, self.features)
        y, factor = _normed(x, (-1,), self.eps)
        return self.scaled(y, params, factor), state


class RMSNorm(Affine):
    """x / sqrt(mean of x**2 + eps) * scale over the last axis, x of shape (..., features).

    source  Zhang & Sennrich (2019)
    """

    def parameter_shapes(self) -> Tree:
        return {"scale": (self.features,)} if self.affine else {}

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        check_features(self, x, self.features)
        factor = rsqrt(xp.mean(x * x, axis=-1, keepdims=True) + self.eps)
        return self.scaled(x, params, factor), state


class InstanceNorm(Affine):
    """As LayerNorm, but over the axes of space of each row and channel: x of shape (B, *space, features).

    source  Ulyanov, Vedaldi & Lempitsky (2016)
    """

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        check_features(self, x, self.features)
        if x.ndim < 3:
            raise ArgumentError(
                f"{self!r}: its input is a {describe(x)}; it needs axes of space, (B, ..., {self.features})"
            )
        y, factor = _normed(x, tuple(range(1, x.ndim - 1)), self.eps)
        return self.scaled(y, params, factor), state


class GroupNorm(Affine):
    """As LayerNorm, but over space and the channels of each group: x of shape (B, ..., features).

    groups  of neighbouring channels; 1 is all channels, `features` an InstanceNorm
    source  Wu & He (2018)
    """

    def __init__(self, features: int, groups: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(features, eps=eps, affine=affine)
        check_sizes("GroupNorm", groups=groups)
        if features % groups:
            raise ArgumentError(f"GroupNorm({features}, {groups}): features is a multiple of groups")
        self.groups = groups

    def __repr__(self) -> str:
        return super().__repr__().replace(f"({self.features}", f"({self.features}, {self.groups}", 1)

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        check_features(self, x, self.features, least=2)
        y = x - self._mean(x)
        return self.scaled(y, params, rsqrt(self._mean(y * y) + self.eps)), state

    def _mean(self, x: Any) -> Any:
        """The mean of each group, for each of its channels: (B, 1, ..., features)."""
        size = self.features // self.groups
        channels = xp.mean(x, axis=tuple(range(1, x.ndim - 1)), keepdims=True) if x.ndim > 2 else x
        groups = xp.reshape(channels, (*channels.shape[:-1], self.groups, size))
        each = xp.broadcast_to(xp.mean(groups, axis=-1, keepdims=True), tuple(groups.shape))
        return xp.reshape(each, tuple(channels.shape))
