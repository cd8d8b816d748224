"""What torch does itself: activations and convolution."""

from typing import Any

import torch
from torch.nn.functional import conv1d, conv2d, conv3d, gelu, pad, silu

__all__ = ["NATIVE"]


def _logsumexp(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    return torch.logsumexp(x, tuple(range(x.ndim)) if axis is None else axis, keepdims)


def _convolution(x: Any, weight: Any, *, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    """torch has channels in front, and the same padding on both sides."""
    n = len(stride)
    x, sides = torch.movedim(x, -1, 1), tuple(before for before, _ in padding)
    if any(before != after for before, after in padding):
        x, sides = pad(x, [p for pair in reversed(padding) for p in pair]), (0,) * n
    convolve = (conv1d, conv2d, conv3d)[n - 1]
    y = convolve(x, torch.permute(weight, (n + 1, n, *range(n))), None, stride, sides, dilation, groups)
    return torch.movedim(y, 1, -1)


NATIVE = {
    "convolution": _convolution,
    "erf": torch.erf,
    "gelu": gelu,
    "log_softmax": lambda x, /, *, axis=-1: torch.log_softmax(x, axis),
    "logsumexp": _logsumexp,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "silu": silu,
    "softmax": lambda x, /, *, axis=-1: torch.softmax(x, axis),
}  # softplus is not among them: torch's is linear above 20
