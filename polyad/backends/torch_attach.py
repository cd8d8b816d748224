"""Constants of torch with a derivative of their own."""

from collections.abc import Sequence
from contextvars import copy_context
from typing import Any

import torch

from polyad.backends.base import Array, Arrays, Push, Transpose

__all__ = ["attach"]


def attach(zs: Arrays, args: Arrays, push: Push, pull: Transpose) -> Arrays:
    """The constants zs, which torch pulls back by `pull`."""
    if not torch.is_grad_enabled() or not any(x.requires_grad for x in args):
        return zs
    context = copy_context()  # the thread that runs a backward pass knows nothing of this one

    def back(args: Arrays, cotangents: Sequence[Array | None]) -> Arrays:
        return context.copy().run(pull, args, cotangents)

    seen = (x.view_as(x) for x in args)  # a custom Function shows no mode what it takes; view_as does
    outputs: Arrays = Attached.apply(back, zs, *seen)
    return outputs


class Attached(torch.autograd.Function):  # type: ignore[misc]
    """zs, as a function of args whose pullback is `pull`."""

    @staticmethod
    def forward(ctx: Any, pull: Transpose, zs: Arrays, *args: Array) -> Arrays:
        ctx.pull = pull
        ctx.save_for_backward(*args)
        ctx.set_materialize_grads(False)
        return tuple(z.clone() for z in zs)  # the user may write to them, and zs are compared with later

    @staticmethod
    def backward(ctx: Any, *cotangents: Array | None) -> Any:
        args = ctx.saved_tensors
        if all(ct is None for ct in cotangents):
            return (None, None, *(None for _ in args))
        grads = ctx.pull(args, cotangents)
        return (None, None, *(grads if torch.is_grad_enabled() else (g.detach() for g in grads)))
