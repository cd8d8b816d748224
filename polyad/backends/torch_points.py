"""A function of torch with others in the place of tensors that it captures, evaluated for a single point."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._C._functorch import is_functorch_wrapped_tensor

from polyad.backends.base import Array, Arrays, Function
from polyad.backends.torch_replay import Later, Surroundings, mapped, may_write, written
from polyad.errors import ImpureFunctionError

__all__ = ["of_others"]


def of_others(f: Function, captured: Sequence[Array]) -> Callable[[Arrays, Arrays], Arrays]:
    """(xs, others) -> f(*xs), where the others stand in the place of what is captured."""
    surroundings = Surroundings(tuple(captured))

    def of_these(xs: Arrays, others: Arrays) -> Arrays:
        try:
            with _Once({id(x): other for x, other in zip(captured, others, strict=True)}):
                ys: Arrays = f(*xs)
        finally:
            surroundings.restore()
        return ys

    return of_these


class _Once(Later):
    """As Later, of a function that has been evaluated: to what is not its own it may not write once more."""

    def __init__(self, standing: dict[int, Array]) -> None:
        super().__init__(standing)
        self.run = object()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        writes, refused = _facts(func)
        if refused:
            raise ImpureFunctionError("a hook may do with a gradient what the graph does not show")
        if kwargs.get("generator") is not None:
            raise ImpureFunctionError(f"{func.__name__} draws numbers that cannot be put back")
        if (writes or "out" in kwargs) and not all(map(self._is_own, written(func.__name__, args, kwargs))):
            raise ImpureFunctionError(f"{func.__name__} writes to a tensor that f has not made")
        given = [self._moved(x) if type(x) is torch.Tensor else mapped(self._moved, x) for x in args]
        out = func(*given, **mapped(self._moved, kwargs)) if kwargs else func(*given)
        if type(out) is torch.Tensor and not is_functorch_wrapped_tensor(out) and all(out is not x for x in given):
            out.polyad_made = self.run
        return out

    def _moved(self, x: Array) -> Array:
        other = self.standing.get(id(x))
        if other is None:
            return x
        if x.requires_grad and not torch.is_grad_enabled():
            # The forward pass of an autograd.Function, whose graph is that of the tensor itself.
            raise ImpureFunctionError("what stands in for a tensor has no graph where nothing is recorded")
        return other

    def _is_own(self, x: Array) -> bool:
        if is_functorch_wrapped_tensor(x):
            return True
        return getattr(x if x._base is None else x._base, "polyad_made", None) is self.run


@functools.lru_cache(maxsize=4096)
def _facts(func: Any) -> tuple[bool, bool]:
    """Whether a function may write to its arguments, and whether it gives access to what the graph does not show."""
    name = getattr(func, "__name__", "")
    return may_write(name), name == "register_hook" or func == torch.Tensor.grad_fn.__get__
