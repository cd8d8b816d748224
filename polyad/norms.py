"""The norms of torch.nn.functional as formulas in xp, which are right at every order and in every pass.

torch's own are fused: their third derivatives are wrong, and with a forward pass
the second (torch 2.13). `move(old, momentum, new)` is called with running statistics
and with what they move towards.
"""

import math
from collections.abc import Callable
from typing import Any

from polyad.arrays import EPSILON, dtype_name, stop_gradient, xp

Array = Any
Move = Callable[[Array, float, Array], None]

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm"]


def _wide(x: Array) -> Array:
    """Half precision is summed in float32, as the fused norms do."""
    return xp.astype(x, xp.float32) if dtype_name(x.dtype) in ("float16", "bfloat16") else x


def _scaled(y: Array, weight: Any, bias: Any, shape: tuple[int, ...]) -> Array:
    y = y if weight is None else y * xp.reshape(weight, shape)
    return y if bias is None else y + xp.reshape(bias, shape)


def _centred(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """(x - mean, mean, biased variance)."""
    mean = xp.mean(x, axis=axes, keepdims=True)
    centred = x - mean
    return centred, mean, xp.mean(centred * centred, axis=axes, keepdims=True)


def layer_norm(
    move: Move | None,
    input: Array,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *_: Any,
) -> Array:
    axes = tuple(range(input.ndim - len(normalized_shape), input.ndim))
    centred, _mean, var = _centred(_wide(input), axes)
    y = _scaled(centred / xp.sqrt(var + eps), weight, bias, tuple(normalized_shape))
    return _like(y, input)


def rms_norm(
    move: Move | None, input: Array, normalized_shape: Any, weight: Array | None = None, eps: float | None = None
) -> Array:
    axes = tuple(range(input.ndim - len(normalized_shape), input.ndim))
    x = _wide(input)
    tiny = EPSILON[dtype_name(input.dtype)] if eps is None else eps
    y = x / xp.sqrt(xp.mean(x * x, axis=axes, keepdims=True) + tiny)
    return _like(_scaled(y, weight, None, tuple(normalized_shape)), input)


def group_norm(
    move: Move | None, input: Array, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Array:
    batch, channels, *rest = input.shape
    if channels % num_groups:
        raise ValueError(f"group_norm: {channels} channels do not fall into {num_groups} groups")
    x = xp.reshape(_wide(input), (batch, num_groups, channels // num_groups * math.prod(rest)))
    centred, _mean, var = _centred(x, (2,))
    y = xp.reshape(centred / xp.sqrt(var + eps), tuple(input.shape))
    return _like(_scaled(y, weight, bias, (channels, *(1,) * len(rest))), input)


def batch_norm(
    move: Move,
    input: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Array:
    return _normed(move, input, running_mean, running_var, weight, bias, training, momentum, eps, batch=True)


def instance_norm(
    move: Move,
    input: Array,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Array:
    return _normed(move, input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps, batch=False)


def _normed(
    move: Move,
    input: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None,
    bias: Array | None,
    measure: bool,
    momentum: float,
    eps: float,
    batch: bool,
) -> Array:
    """Norm over the axes behind the channels, and over the batch too; measure: by the statistics of the input."""
    x = _wide(input)
    shape = (x.shape[1], *(1,) * (x.ndim - 2))
    if not measure:
        assert running_mean is not None
        assert running_var is not None
        centred, var = x - xp.reshape(running_mean, shape), xp.reshape(running_var, shape)
        return _like(_scaled(centred / xp.sqrt(var + eps), weight, bias, shape), input)
    axes = (0, *range(2, x.ndim)) if batch else tuple(range(2, x.ndim))
    n = math.prod(x.shape[axis] for axis in axes)
    if n < 2:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {tuple(x.shape)}")
    centred, mean, var = _centred(x, axes)
    for old, new in ((running_mean, mean), (running_var, var * (n / (n - 1)))):
        if old is not None:
            new = xp.reshape(xp.mean(stop_gradient(new), axis=0), tuple(old.shape))
            move(old, momentum, new)
    return _like(_scaled(centred / xp.sqrt(var + eps), weight, bias, shape), input)


def _like(y: Array, input: Array) -> Array:
    return y if y.dtype == input.dtype else xp.astype(y, input.dtype)
