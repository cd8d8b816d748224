"""Functions of torch with a derivative of their own, that several test modules differentiate."""

import torch

__all__ = ["Cube"]


class Cube(torch.autograd.Function):
    """x^3, which is said to be differentiable once."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return 3 * g * ctx.saved_tensors[0] ** 2
