"""torch's fused norms, replaced by formulas while a forward pass runs; and what it differentiates wrongly there."""

from collections.abc import Callable
from typing import Any

import torch
from torch._functorch.autograd_function import custom_function_call
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from polyad.backends.base import Array, Function
from polyad.backends.torch_graph import refuse_forward_twice, unwrapped
from polyad.norms import batch_norm, group_norm, instance_norm, layer_norm, rms_norm

__all__ = ["NORMS", "by_formulas"]


def _weights_first(norm: Callable[..., Array]) -> Callable[..., Array]:
    """The order of the arguments of torch.batch_norm, which is not that of torch.nn.functional."""

    def reordered(move: Any, input: Array, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any) -> Array:
        return norm(move, input, mean, var, weight, bias, *rest[:3])

    return reordered


NORMS: dict[Any, Callable[..., Array]] = {
    functional.batch_norm: batch_norm,
    functional.group_norm: group_norm,
    functional.instance_norm: instance_norm,
    functional.layer_norm: layer_norm,
    functional.rms_norm: rms_norm,
    torch.batch_norm: _weights_first(batch_norm),
    torch.group_norm: group_norm,
    torch.instance_norm: _weights_first(instance_norm),
    torch.layer_norm: layer_norm,
    torch.rms_norm: rms_norm,
}


def by_formulas(f: Function) -> Function:
    """f, whose norms are formulas."""

    def formulas(*xs: Array) -> Any:
        with _Formulas():
            return f(*xs)

    return formulas


class _Formulas(TorchFunctionMode):  # type: ignore[misc]  # torch has no types for it
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is custom_function_call:
            refuse_forward_twice(*args)
        norm = NORMS.get(func)
        return func(*args, **(kwargs or {})) if norm is None else norm(_move, *args, **(kwargs or {}))


def _move(old: Array, momentum: float, new: Array) -> None:
    """Write to running statistics, as torch's own norms do."""
    value = unwrapped(new)
    with temporarily_clear_interpreter_stack(), torch.no_grad():
        old.lerp_(value.to(old.dtype), momentum)
