"""A function of torch with others in the place of tensors that it captures, evaluated for a single point."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._C._functorch import is_functorch_wrapped_tensor

from polyad.backends.base import Array, Arrays, Function
from polyad.backends.torch_replay import Later, Surroundings, written
from polyad.errors import ImpureFunctionError

__all__ = ["of_others"]


def of_others(f: Function, captured: Sequence[Array]) -> Callable[[Arrays, Arrays], Arrays]:
    """(xs, others) -> f(*xs), where the others stand in the place of what is captured."""

    def of_these(xs: Arrays, others: Arrays) -> Arrays:
        with (
            Surroundings(tuple(captured)).again(),
            _Once({id(x): other for x, other in zip(captured, others, strict=True)}),
        ):
            ys: Arrays = f(*xs)
        return ys

    return of_these


class _Once(Later):
    """As Later, of a function that has been evaluated: to what is not its own it may not write once more."""

    def __init__(self, standing: dict[int, Array]) -> None:
        super().__init__(standing)
        self.run = object()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name == "register_hook" or func == torch.Tensor.grad_fn.__get__:
            raise ImpureFunctionError("a hook may do with a gradient what the graph does not show")
        if (kwargs or {}).get("generator") is not None:
            raise ImpureFunctionError(f"{name} draws numbers that cannot be put back")
        if any(not self._is_own(x) for x in written(name, args, kwargs or {})):
            raise ImpureFunctionError(f"{name} writes to a tensor that f has not made")
        out = super().__torch_function__(func, types, args, kwargs)
        if isinstance(out, torch.Tensor) and not is_functorch_wrapped_tensor(out) and all(out is not x for x in args):
            out.polyad_made = self.run
        return out

    def _moved(self, x: Array) -> Array:
        if id(x) in self.standing and x.requires_grad and not torch.is_grad_enabled():
            # The forward pass of an autograd.Function, whose graph is that of the tensor itself.
            raise ImpureFunctionError("what stands in for a tensor has no graph where nothing is recorded")
        return super()._moved(x)

    def _is_own(self, x: Array) -> bool:
        if is_functorch_wrapped_tensor(x):
            return True
        return getattr(x if x._base is None else x._base, "polyad_made", None) is self.run
