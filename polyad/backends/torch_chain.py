"""The chain rule of a forward Laplacian on torch as one step of its tape.

tanh, sigmoid and tan solve a Riccati equation: with z = y + shift, z' = p = d + c z².
So for the directions t and the Laplacian l of x

    dy = p t,   lap y = p (l + 2 c z s),   s = the sum of t² over the directions,

and for cotangents b of y, k of dy and e of lap y the pullback is

    by x: p (b + 2 c z (the sum of k t, and e l) + (6 c p - 4 c d) s e)
    by t: p k + 4 c p e z t
    by l: p e

Function by function that is ten steps, each of which keeps and makes arrays; the
one step keeps y, t, l, p and s, and takes the directions one at a time, so that what
they share stays in the cache. A pullback that is differentiated again is written in
functions of torch, which makes it right to every order.
"""

from typing import Any

import torch

from polyad.backends.base import Array, Function, Riccati
from polyad.backends.torch_namespace import TENSORS, watched

__all__ = ["chain"]

Some = Array | None
Three = tuple[Array, Array, Array]


def chain(f: Function, riccati: Riccati, x: Array, t: Array, lap: Some) -> Three | None:
    """As Backend.chain; None where the arrays are small, or something wants to see every function of torch."""
    if t.numel() < SMALL or watched() or not (_plain(x, x) and _plain(t, x) and (lap is None or _plain(lap, x))):
        return None
    if torch.is_grad_enabled() and (x.requires_grad or t.requires_grad or (lap is not None and lap.requires_grad)):
        result: Three = _Chain.apply(f, riccati, x, t, lap)
        return result
    return _values(f, riccati, x, t, lap)[:3]


def _batched(*cotangents: Some) -> bool:
    """Whether autograd.grad(..., is_grads_batched=True) runs, whose vmap is none of torch.func."""
    return any(c is not None and torch._C._functorch.is_legacy_batchedtensor(c) for c in cotangents)


def _plain(z: Any, x: Array) -> bool:
    """Whether z is a tensor and nothing more, of the kind of x."""
    return type(z) in TENSORS and z.dtype == x.dtype and z.device == x.device


class _Chain(torch.autograd.Function):  # type: ignore[misc]  # torch has no types for it
    """x, t and lap to the three of y."""

    @staticmethod
    def forward(ctx: Any, f: Function, riccati: Riccati, x: Array, t: Array, lap: Some) -> Three:
        ctx.set_materialize_grads(False)
        ctx.riccati = riccati
        y, dy, bent, p, s = _values(f, riccati, x, t, lap)
        ctx.save_for_backward(y, t, lap, p, s)
        return y, dy, bent

    @staticmethod
    def backward(ctx: Any, by_y: Some, by_dy: Some, by_lap: Some) -> Any:
        y, t, lap, p, s = ctx.saved_tensors
        if torch.is_grad_enabled() or watched() or _batched(by_y, by_dy, by_lap):  # p and s have no graph
            p, s = _slope(ctx.riccati, y)[1], (t * t).sum(0)
            pulled = _pulled(ctx.riccati, y, t, lap, p, s, by_y, by_dy, by_lap)
        elif _together(y) or by_lap is None:
            pulled = _pulled(ctx.riccati, y, t, lap, p, s, by_y, by_dy, by_lap)
        else:
            pulled = _pulled_in_place(ctx.riccati, y, t, lap, p, s, by_y, by_dy, by_lap)
        return None, None, *pulled


def _slope(riccati: Riccati, y: Array) -> tuple[Array, Array]:
    """z and p."""
    shift, c, d = riccati
    z = y + shift if shift else y
    return z, torch.addcmul(torch.full((), d, dtype=y.dtype, device=y.device), z, z, value=c)


def _values(f: Function, riccati: Riccati, x: Array, t: Array, lap: Some) -> tuple[Array, Array, Array, Array, Array]:
    """y, dy, lap y, p and s."""
    y, c = f(x), riccati[1]
    z, p = _slope(riccati, y)
    if _together(x) or t.shape[1:] != x.shape:
        dy, s = p * t, (t * t).sum(0)
    else:
        dy, s = torch.empty_like(t, memory_format=torch.contiguous_format), torch.square(t[0])
        for i, (along, out) in enumerate(zip(t.unbind(), dy.unbind(), strict=True)):
            torch.mul(along, p, out=out)
            if i:
                s.addcmul_(along, along)
    bent = (z * s).mul_(2.0 * c) if lap is None else torch.addcmul(lap, z, s, value=2.0 * c)
    return y, dy, bent.mul_(p), p, s


def _pulled(
    riccati: Riccati, y: Array, t: Array, lap: Some, p: Array, s: Array, by_y: Some, by_dy: Some, by_lap: Some
) -> tuple[Some, Some, Some]:
    """The cotangents of x, t and lap."""
    shift, c, d = riccati
    z, by_x = y + shift, by_y
    by_t = by_l = turned = None
    if by_dy is not None:
        by_t, turned = (p * by_dy).sum_to_size(t.shape), (by_dy * t).sum(0)
    if by_lap is not None:
        by_l = p * by_lap
        bend = (4.0 * c * by_l * z).sum_to_size(t.shape[1:]) * t
        by_t = bend if by_t is None else by_t + bend
        third = (6.0 * c * p - 4.0 * c * d) * s * by_lap
        by_x = third if by_x is None else by_x + third
        if lap is not None:
            turned = by_lap * lap if turned is None else turned + by_lap * lap
    if turned is not None:
        turned = 2.0 * c * z * turned
        by_x = turned if by_x is None else by_x + turned
    return None if by_x is None else p * by_x, by_t, None if lap is None else by_l


def _pulled_in_place(
    riccati: Riccati, y: Array, t: Array, lap: Some, p: Array, s: Array, by_y: Some, by_dy: Some, by_lap: Array
) -> tuple[Array, Array, Some]:
    """As _pulled, where lap y has a cotangent, in as few arrays as it takes."""
    shift, c, d = riccati
    z = y + shift if shift else y
    by_l = p * by_lap
    bend = by_l * z
    turned = None if lap is None else by_lap * lap
    if by_dy is None or t.shape[1:] != p.shape:
        by_t = bend.mul_(4.0 * c).sum_to_size(t.shape[1:]) * t
        if by_dy is not None:
            by_t.add_((p * by_dy).sum_to_size(t.shape))
    else:
        by_t = torch.empty_like(t, memory_format=torch.contiguous_format)
        for along, k, out in zip(t.unbind(), by_dy.unbind(), by_t.unbind(), strict=True):
            torch.mul(k, p, out=out).addcmul_(along, bend, value=4.0 * c)
    for along, k in zip(t.unbind(), () if by_dy is None else by_dy.unbind(), strict=False):
        turned = along * k if turned is None else turned.addcmul_(along, k)
    third = by_lap * s
    by_x = (third * (-4.0 * c * d)).addcmul_(p, third, value=6.0 * c)
    if by_y is not None:
        by_x.add_(by_y)
    if turned is not None:
        by_x.addcmul_(z, turned, value=2.0 * c)
    return by_x.mul_(p), by_t, None if lap is None else by_l


# Entries of all directions below which a step in Python takes more time than it saves: of tanh MLPs in a loss, in
# those of function by function, 3 x 16 x 12 1.16, 10 x 128 x 64 1.15, 2 x 1024 x 64 1.02, 10 x 512 x 64 0.93,
# 10 x 1024 x 64 0.78 (one CPU thread, torch 2.13, 2026-11).
SMALL = 2**17

# Entries of one direction from which directions go one at a time, on a CPU.
LARGE = 8192


def _together(x: Array) -> bool:
    return x.numel() < LARGE or x.device.type != "cpu"
