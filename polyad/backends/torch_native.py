"""What torch does itself: activations, convolution and pooling."""

import math
from typing import Any

import torch
from torch.nn.functional import (
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    conv1d,
    conv2d,
    conv3d,
    gelu,
    max_pool1d,
    max_pool2d,
    max_pool3d,
    pad,
    silu,
)

from polyad.arrays import xp
from polyad.backends.torch_namespace import tracing
from polyad.backends.torch_tanh import LARGE, tanh_of_affine

__all__ = ["NATIVE"]


def _logsumexp(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    return torch.logsumexp(x, tuple(range(x.ndim)) if axis is None else axis, keepdims)


def _channels_first(x: Any, padding: Any, window: Any = None, fill: float = 0.0) -> tuple[Any, tuple[int, ...]]:
    """(x as torch has it, the padding left to its function: as much on both sides, half a window at most)."""
    sides = tuple(before for before, _ in padding)
    x = torch.movedim(x, -1, 1)
    fits = window is None or all(2 * side <= k for side, k in zip(sides, window, strict=True))
    if fits and all(before == after for before, after in padding):
        return x, sides
    return pad(x, [p for pair in reversed(padding) for p in pair], value=fill), (0,) * len(sides)


def _max_pool(x: Any, *, window: Any, stride: Any, padding: Any) -> Any:
    """The places by torch, and the entries taken from there: torch's own backward pass has no such plain derivative."""
    n = len(window)
    z, sides = _channels_first(x, padding, window, -math.inf)
    pool = (max_pool1d, max_pool2d, max_pool3d)[n - 1]
    places = torch.movedim(pool(z.detach(), window, stride, sides, return_indices=True)[1], 1, -1)
    z = torch.movedim(z, 1, -1).flatten(1, n)
    return torch.gather(z, 1, places.flatten(1, n)).unflatten(1, places.shape[1:-1])


def _mean_pool(x: Any, *, window: Any, stride: Any, padding: Any) -> Any:
    x, sides = _channels_first(x, padding, window)
    pool = (avg_pool1d, avg_pool2d, avg_pool3d)[len(window) - 1]
    return torch.movedim(pool(x, window, stride, sides), 1, -1)


def _affine(x: Any, weight: Any, bias: Any) -> Any:
    return torch.addmm(bias, x, weight) if x.ndim == weight.ndim == 2 else NotImplemented


def _activated(x: Any, weight: Any, bias: Any, *, activation: Any) -> Any:
    if not x.ndim == weight.ndim == 2:
        return NotImplemented
    if activation is xp.tanh and len(x) * len(bias) >= LARGE and (y := tanh_of_affine(x, weight, bias)) is not None:
        return y
    y = torch.addmm(bias, x, weight)
    # Nobody else has y, and the derivative of tanh needs its value alone, so that it may take its place: the same
    # bits in 0.94 to 0.97 of the time of a gradient (5 layers, 1024 x 64 and 4096 x 128, torch 2.13, 2026-11).
    # A compiler finds that out itself, and would copy what else is detached in a graph with writes.
    return torch.tanh_(y) if activation is xp.tanh and not tracing() else activation(y)


def _convolution(x: Any, weight: Any, *, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    n = len(stride)
    x, sides = _channels_first(x, padding)
    convolve = (conv1d, conv2d, conv3d)[n - 1]
    y = convolve(x, torch.permute(weight, (n + 1, n, *range(n))), None, stride, sides, dilation, groups)
    return torch.movedim(y, 1, -1)


def _centred(x: Any, *, axes: tuple[int, ...]) -> tuple[Any, Any, Any]:
    var, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return x - mean, mean, var


NATIVE = {
    "activated": _activated,
    "affine": _affine,
    "centred": _centred,
    "convolution": _convolution,
    "erf": torch.erf,
    "gelu": gelu,
    "log_softmax": lambda x, /, *, axis=-1: torch.log_softmax(x, axis),
    "logsumexp": _logsumexp,
    "max_pool": _max_pool,
    "mean_pool": _mean_pool,
    "relu": torch.relu,
    "rsqrt": torch.rsqrt,
    "sigmoid": torch.sigmoid,
    "silu": silu,
    "softmax": lambda x, /, *, axis=-1: torch.softmax(x, axis),
}  # softplus is not among them: torch's is linear above 20
