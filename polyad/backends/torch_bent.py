"""The chain rule of second order on torch as one step of its tape.

Written in functions of torch, one rule of a forward Laplacian is eight steps,
each of which keeps and makes arrays with k directions. Here it is one, which
keeps its arguments alone. Where nothing has to be recorded, it goes through the
directions one at a time, so that what they share stays in the cache.
"""

from typing import Any

import torch
from torch.autograd import forward_ad

from polyad.backends.base import Array, Backend
from polyad.backends.torch_namespace import inside_functorch

__all__ = ["bent"]

_PLAIN = (torch.Tensor, torch.nn.Parameter)


def bent(backend: Backend, p: Array, q: Array, t: Array, lap: Array | None) -> tuple[Array, Array]:
    """As Backend.bent, which does it where more than a tape is running, or something looks at single functions."""
    if _watched() or not _fit(p, q, t, lap):
        return Backend.bent(backend, p, q, t, lap)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (p, q, t, lap)):
        dy, bent = _Bent.apply(p, q, t, lap)
    else:
        dy, bent, _ = _values(p, q, t, lap)
    return dy, bent


def _watched() -> bool:
    """Whether transformations, dual numbers, a mode or a compiler want to see every function of torch."""
    return bool(
        inside_functorch()
        or forward_ad._current_level >= 0
        or torch._C._len_torch_function_stack()
        or torch.compiler.is_compiling()
    )


def _fit(p: Any, q: Any, t: Any, lap: Any) -> bool:
    """Whether these are plain tensors of one dtype, of the shapes that are usual."""
    tensors = (p, q, t) if lap is None else (p, q, t, lap)
    if not all(type(x) in _PLAIN and x.dtype == p.dtype and x.device == p.device for x in tensors):
        return False
    broadcasts = t.ndim == p.ndim + 1 and all(m in (1, n) for m, n in zip(t.shape[1:], p.shape, strict=True))
    return broadcasts and q.shape == p.shape and (lap is None or lap.shape == p.shape)


class _Bent(torch.autograd.Function):  # type: ignore[misc]
    """(p, q, t, lap) to (p t, p lap + q s), where s is the sum of t² over the directions."""

    @staticmethod
    def forward(ctx: Any, p: Array, q: Array, t: Array, lap: Array | None) -> tuple[Array, Array]:
        ctx.set_materialize_grads(False)
        dy, bent, squares = _values(p, q, t, lap)
        ctx.save_for_backward(p, q, t, lap, squares)
        return dy, bent

    @staticmethod
    def backward(ctx: Any, by_dy: Array | None, by_bent: Array | None) -> Any:
        p, q, t, lap, squares = ctx.saved_tensors
        if torch.is_grad_enabled() or _watched():
            return _differentiable(p, q, t, lap, by_dy, by_bent)
        return _pulled(p, q, t, lap, squares, by_dy, by_bent)


def _differentiable(
    p: Array, q: Array, t: Array, lap: Array | None, by_dy: Array | None, by_bent: Array | None
) -> tuple[Array | None, ...]:
    """The pullback, in functions that are differentiated like others."""
    by_p = by_q = by_t = by_lap = None
    if by_dy is not None:
        by_p, by_t = (by_dy * t).sum(0), by_dy * p
    if by_bent is not None:
        by_q, bend = by_bent * (t * t).sum(0), 2.0 * (by_bent * q) * t
        by_t = bend if by_t is None else by_t + bend
        if lap is not None:
            by_lap = by_bent * p
            by_p = by_bent * lap if by_p is None else by_p + by_bent * lap
    return by_p, by_q, None if by_t is None else by_t.sum_to_size(t.shape), by_lap


def _values(p: Array, q: Array, t: Array, lap: Array | None) -> tuple[Array, Array, Array]:
    """(p t, p lap + q s, s)."""
    if _together(p, t):
        dy, squares = p * t, (t * t).sum(0)
    else:
        dy, squares = p.new_empty((t.shape[0], *p.shape)), torch.zeros_like(t[0])
        for along, out in zip(t, dy, strict=True):
            torch.mul(along, p, out=out)
            squares.addcmul_(along, along)
    bent = q * squares
    return dy, bent if lap is None else bent.addcmul_(p, lap), squares


def _pulled(
    p: Array,
    q: Array,
    t: Array,
    lap: Array | None,
    squares: Array,
    by_dy: Array | None,
    by_bent: Array | None,
) -> tuple[Array | None, ...]:
    """The pullback, with as few arrays as it can be."""
    if _together(p, t):
        return _differentiable(p, q, t, lap, by_dy, by_bent)
    by_q = by_lap = bend = None
    by_p = torch.zeros_like(p)
    if by_bent is not None:
        by_q, bend = by_bent * squares, (by_bent * q).mul_(2.0)
        if lap is not None:
            by_lap = by_bent * p
            torch.mul(by_bent, lap, out=by_p)
    by_t = torch.empty_like(t, memory_format=torch.contiguous_format)
    shared = bend is not None and bend.sum_to_size(t.shape[1:])
    for i, (along, out) in enumerate(zip(t, by_t, strict=True)):
        if by_dy is None:
            torch.mul(shared, along, out=out)
            continue
        by_p.addcmul_(by_dy[i], along)
        if out.shape == p.shape:
            torch.mul(by_dy[i], p, out=out)
        else:
            out.copy_((by_dy[i] * p).sum_to_size(out.shape))
        if bend is not None:
            out.addcmul_(shared, along)
    return by_p, by_q, by_t, by_lap


# Entries of one direction from which the directions go one at a time, on a CPU.
LARGE = 4096


def _together(p: Array, t: Array) -> bool:
    return p.numel() < LARGE or p.device.type != "cpu"
