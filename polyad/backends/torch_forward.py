"""What torch's forward mode does not do itself: fused norms, replaced by formulas, and constants by no_grad()."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch._functorch.autograd_function import custom_function_call
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.autograd.forward_ad import unpack_dual
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from polyad.backends.base import Array, Function
from polyad.backends.torch_graph import refuse_twice, unwrapped
from polyad.errors import UnsupportedError
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


def by_formulas(f: Function, again: bool = False) -> Function:
    """f, whose norms are formulas, and in which what is made under no_grad() is a constant to forward mode too.

    again  f has run before: running statistics have been written
    """

    def formulas(*xs: Array) -> Any:
        with _Forward(_stay if again else _move):
            return f(*xs)

    return formulas


_DATA = torch.Tensor.data.__get__
SEEN = {custom_function_call, _DATA, *NORMS}


class _Forward(TorchFunctionMode):  # type: ignore[misc]  # torch has no types for it
    def __init__(self, move: Callable[[Array, float, Array], None]) -> None:
        super().__init__()
        self.move, self.records = move, torch.is_grad_enabled()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in SEEN and (torch.is_grad_enabled() or not self.records):
            return func(*args) if kwargs is None else func(*args, **kwargs)
        if func is custom_function_call:
            refuse_twice(*args)
        norm = NORMS.get(func)
        call = functools.partial(func if norm is None else functools.partial(norm, self.move), *args, **(kwargs or {}))
        if func == _DATA:
            return call().detach()  # constant in reverse, where torch's forward mode drops the innermost tangent alone
        if torch.is_grad_enabled() or not self.records:
            return call()
        return _without_tangents(func, call, (*args, *(kwargs or {}).values()))


def _without_tangents(func: Any, call: Function, args: Any) -> Any:
    """What no_grad() makes in reverse, a constant: torch's forward mode would carry tangents through.

    raises  UnsupportedError where a tensor with a tangent is written to, which in reverse keeps its derivative
    """
    given = [x for x in args if isinstance(x, torch.Tensor)]
    tracked = [(x, x._version) for x in given if not x.is_inference()]  # those of inference_mode() have no tangent
    y = call()
    written = [x for x, version in tracked if x._version != version]
    if any(unpack_dual(x).tangent is not None for x in written):
        raise UnsupportedError(
            f"{func.__name__}: f writes into a tensor under no_grad(), and torch's forward mode changes its derivative "
            f"too. Choose mode='reverse', or write y = x + 1 for x += 1"
        )
    own = {*map(id, given)}  # as x.to() of the dtype that x has
    return tree_map_only(torch.Tensor, lambda z: z if id(z) in own else z.detach(), y)


def _stay(old: Array, momentum: float, new: Array) -> None:
    """Running statistics stay as they are."""


def _move(old: Array, momentum: float, new: Array) -> None:
    """Write to running statistics, as torch's own norms do."""
    value = unwrapped(new)
    with temporarily_clear_interpreter_stack(), torch.no_grad():
        old.lerp_(value.to(old.dtype), momentum)
