"""The chain rule of a forward Laplacian on torch as one step of its tape.

For y = f(x) with the directions t and the Laplacian l of x,

    dy = f' t,   lap y = f' l + f'' s,   s = the sum of t² over the directions.

Function by function this is ten steps of the tape, each of which keeps and makes
arrays. Here it is one, which keeps its arguments, and goes through the directions
one at a time, so that what they share stays in the cache. Its pullback is

    by x: f' cy + f'' (the sum of c t + cl l) + f''' s cl
    by t: f' c + 2 f'' cl t
    by l: f' cl

for cotangents cy, c and cl of y, dy and lap y. Where that is differentiated again it
is written in functions of torch, so that it is right to every order.
"""

from typing import Any

import torch
from torch.autograd import forward_ad

from polyad.backends.base import Array, Derivatives, Function
from polyad.backends.torch_namespace import inside_functorch

__all__ = ["chain"]

Three = tuple[Array, Array, Array]
Some = Array | None


def chain(f: Function, derivatives: Derivatives, x: Array, t: Array, lap: Some) -> Three | None:
    """(f(x), its directions, its Laplacian); None where something wants to see every function of torch."""
    if _watched() or not _plain(x, t, lap):
        return None
    if torch.is_grad_enabled() and (x.requires_grad or t.requires_grad or (lap is not None and lap.requires_grad)):
        result: Three = _Chain.apply(f, derivatives, x, t, lap)
        return result
    return _values(f, derivatives, x, t, lap)[0]


def _watched() -> bool:
    """Whether a transformation, dual numbers, a mode or a compiler is around."""
    return bool(
        inside_functorch()
        or forward_ad._current_level >= 0
        or torch._C._len_torch_function_stack()
        or torch.compiler.is_compiling()
    )


def _plain(x: Array, t: Array, lap: Some) -> bool:
    """Whether these are tensors and nothing more, of one dtype."""
    return all(
        z is None or (type(z) in (torch.Tensor, torch.nn.Parameter) and z.dtype == x.dtype and z.device == x.device)
        for z in (x, t, lap)
    )


class _Chain(torch.autograd.Function):  # type: ignore[misc]  # torch has no types for it
    """x, t and lap to the three of y."""

    @staticmethod
    def forward(ctx: Any, f: Function, derivatives: Derivatives, x: Array, t: Array, lap: Some) -> Three:
        ctx.set_materialize_grads(False)
        ctx.f, ctx.derivatives = f, derivatives
        values, kept = _values(f, derivatives, x, t, lap)
        ctx.save_for_backward(x, t, lap, *kept)
        return values

    @staticmethod
    def backward(ctx: Any, by_y: Some, by_dy: Some, by_lap: Some) -> Any:
        x, t, lap, *kept = ctx.saved_tensors
        if by_y is None and by_dy is None and by_lap is None:
            return None, None, None, None, None
        if torch.is_grad_enabled() or _watched():
            kept = [y := ctx.f(x), *ctx.derivatives(x, y), (t * t).sum(0)]
            pulled = _pulled
        else:
            pulled = _pulled if _together(x) else _pulled_in_place
        third = None if by_lap is None else ctx.derivatives(x, *kept[:3])
        return None, None, *pulled(t, lap, *kept[1:], third, by_y, by_dy, by_lap)


def _values(f: Function, derivatives: Derivatives, x: Array, t: Array, lap: Some) -> tuple[Three, tuple[Array, ...]]:
    """The three of y, and (y, f', f'', s)."""
    y = f(x)
    p, q = derivatives(x, y)
    if _together(x) or t.shape[1:] != x.shape:
        dy, s = p * t, (t * t).sum(0)
    else:
        dy, s = torch.empty_like(t, memory_format=torch.contiguous_format), t[0] * t[0]
        for i, (along, out) in enumerate(zip(t.unbind(), dy.unbind(), strict=True)):
            torch.mul(along, p, out=out)
            if i:
                s.addcmul_(along, along)
    bent = q * s
    return (y, dy, bent if lap is None else bent.addcmul_(p, lap)), (y, p, q, s)


def _pulled(
    t: Array, lap: Some, p: Array, q: Array, s: Array, r: Some, by_y: Some, by_dy: Some, by_lap: Some
) -> tuple[Some, Some, Some]:
    """The cotangents of x, t and lap, of which r = f''' may be None where by_lap is."""
    by_x = None if by_y is None else p * by_y
    by_t = turned = pulled_lap = None
    if by_dy is not None:
        by_t, turned = (by_dy * p).sum_to_size(t.shape), (by_dy * t).sum(0)
    if by_lap is not None:
        bend = (2.0 * (by_lap * q)).sum_to_size(t.shape[1:]) * t
        by_t = bend if by_t is None else by_t + bend
        by_x = r * s * by_lap if by_x is None else by_x + r * s * by_lap
        if lap is not None:
            pulled_lap = p * by_lap
            turned = lap * by_lap if turned is None else turned + lap * by_lap
    if turned is not None:
        by_x = q * turned if by_x is None else by_x + q * turned
    return by_x, by_t, pulled_lap


def _pulled_in_place(
    t: Array, lap: Some, p: Array, q: Array, s: Array, r: Some, by_y: Some, by_dy: Some, by_lap: Some
) -> tuple[Some, Some, Some]:
    """As _pulled, in as few arrays as it takes, one direction at a time."""
    by_x = torch.zeros_like(p) if by_y is None else p * by_y
    turned = bend = pulled_lap = None
    if by_lap is not None:
        bend = by_lap * q
        by_x.addcmul_(r, s * by_lap)
        if lap is not None:
            turned, pulled_lap = lap * by_lap, p * by_lap
    if by_dy is None:
        bend = bend.mul_(2.0).sum_to_size(t.shape[1:])
        by_t = t * bend
    elif t.shape[1:] != p.shape:
        by_t = (by_dy * p).sum_to_size(t.shape)
        if bend is not None:
            by_t.addcmul_(t, bend.sum_to_size(t.shape[1:]), value=2.0)
        for along, c in zip(t.unbind(), by_dy.unbind(), strict=True):
            turned = c * along if turned is None else turned.addcmul_(c, along)
    else:
        by_t = torch.empty_like(t, memory_format=torch.contiguous_format)
        for along, c, out in zip(t.unbind(), by_dy.unbind(), by_t.unbind(), strict=True):
            torch.mul(c, p, out=out)
            if bend is not None:
                out.addcmul_(along, bend, value=2.0)
            turned = c * along if turned is None else turned.addcmul_(c, along)
    return by_x if turned is None else by_x.addcmul_(q, turned), by_t, pulled_lap


# Entries of one direction from which directions go one at a time, on a CPU.
LARGE = 8192


def _together(x: Array) -> bool:
    return x.numel() < LARGE or x.device.type != "cpu"
