"""tanh(x @ weight + bias) on torch's CPU as one kernel of oneDNN and one step of the tape.

torch's own tanh takes longer than the product before it; oneDNN computes it as it writes
the product, to the same accuracy. Its kernel has no derivative in torch. The step gives it
one, which is written in functions of torch and so right to every order.
"""

import functools
import threading
from operator import is_
from typing import Any

import torch

from polyad.backends.base import Array, Arrays
from polyad.backends.torch_graph import AccumulateGrad
from polyad.backends.torch_namespace import TENSORS, watched

__all__ = ["LARGE", "Node", "running", "tanh_of_affine"]

LARGE = 2**16
"""Entries of a layer from which its step in Python takes less time than it saves: of gradients of five layers in
parameters and of losses with one in x, in those of function by function, 256 x 64 1.14 and 1.14, 512 x 64 0.96 and
1.02, 1024 x 64 0.86 and 0.98, 2048 x 32 0.86 and 0.94, 4096 x 128 0.82 and 0.93 (one CPU thread, torch 2.13, 2026-11).
"""


class _Pass(threading.local):
    """The reverse pass of polyad that runs in this thread: the leaves and aliases whose gradients it asks for."""

    wanted: Arrays = ()


running = _Pass()


def tanh_of_affine(x: Array, weight: Array, bias: Array) -> Array | None:
    """tanh(x @ weight + bias); None where the kernel is not there for it, or something wants to see each function."""
    args = x, weight, bias
    if not (all(map(_plain, args)) and weight.shape == (x.shape[1], len(bias)) and bias.ndim == 1 and x.shape[1]):
        return None
    if 1 in (len(x), len(bias)):  # a product with a vector, for which the kernel takes up to seven times as long
        return None
    if watched() or torch.is_autocast_enabled("cpu") or not (torch._C._get_mkldnn_enabled() and _works()):
        return None
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad or bias.requires_grad):
        y: Array = _Tanh.apply(*args)
        return y
    return _kernel(*args)


def _plain(z: Array) -> bool:
    """Whether it is a tensor and nothing more, of the kind that the kernel takes."""
    kind = z.dtype is torch.float32 and z.is_cpu and z.layout is torch.strided
    return kind and type(z) in TENSORS


def _kernel(x: Array, weight: Array, bias: Array) -> Array:
    # It reads a bias as if its entries stood side by side, and refuses weights that share entries (torch 2.13).
    dense = weight.is_contiguous() or weight.t().is_contiguous()
    rows = (weight if dense else weight.contiguous()).t()
    y: Array = torch.ops.mkldnn._linear_pointwise.default(x, rows, bias.contiguous(), "tanh", [], "")
    return y


@functools.cache
def _works() -> bool:
    """Whether this torch and this processor have the kernel, and it gives what torch gives."""
    if not torch.backends.mkldnn.is_available():
        return False
    x = torch.linspace(-4.0, 4.0, 48, dtype=torch.float32).reshape(6, 8)
    try:
        with torch.no_grad():
            y = _kernel(x, torch.eye(8, dtype=torch.float32), x[0])
    except (AttributeError, RuntimeError):
        return False
    return torch.allclose(y, torch.tanh(x + x[0]), rtol=1e-6, atol=0.0)


class _Tanh(torch.autograd.Function):  # type: ignore[misc]  # torch has no types for it
    """The kernel, whose pullback looks at who asks: torch would have products with all three computed each time."""

    @staticmethod
    def forward(ctx: Any, x: Array, weight: Array, bias: Array) -> Array:
        y = _kernel(x, weight, bias)
        by_x, by_weight, _ = ctx.needs_input_grad
        # As torch does, so that what no gradient needs may be written to, or come from inference_mode().
        ctx.save_for_backward(x if by_weight else None, weight if by_x else None, y)
        return y

    @staticmethod
    def backward(ctx: Any, by_y: Array) -> Any:
        x, weight, y = ctx.saved_tensors
        (to_x, _), (to_weight, _), (to_bias, _) = ctx.next_functions
        by_affine = torch.ops.aten.tanh_backward.default(by_y, y)
        return (
            torch.mm(by_affine, weight.t()) if _asked(to_x) else None,
            torch.mm(x.t(), by_affine) if _asked(to_weight) else None,
            by_affine.sum(0) if _asked(to_bias) else None,
        )


Node: type = _Tanh._backward_cls
"""What stands in a graph for it."""


def _asked(node: Any) -> bool:
    """Whether the pass that runs goes on to this node."""
    if node is None:
        return False
    if type(node) is AccumulateGrad and any(map(functools.partial(is_, node.variable), running.wanted)):
        return True
    try:
        return bool(torch._C._will_engine_execute_node(node))
    except RuntimeError:  # what torch says of a leaf that torch.autograd.grad was asked for
        return True
