"""A function of torch with what it captures as arguments, and constants with a derivative of their own.

Every function of torch passes the TorchFunctionMode around it and so shows the
tensors that it works on. Those that require a gradient and were not made inside
are captured; while f runs, another tensor stands in for each of them: a
constant in the first evaluation, an argument in the later ones. What no mode
sees, such as the input of a custom autograd.Function, is found in the recorded
graph, and then the function is not replayed.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from typing import Any

import torch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import get_device_states, set_device_states

from polyad import trees
from polyad.backends.base import Array, Arrays, Function, Push, Transpose
from polyad.backends.torch_graph import reaches_outside
from polyad.errors import ImpureFunctionError

__all__ = ["Replay", "attach"]

Standing = Callable[[torch.Tensor], torch.Tensor]


class Replay:
    """f, first evaluated on constants by `first`, then as a function of `captured` too by `closed`."""

    def __init__(self, f: Function) -> None:
        self.f = f
        self.complete = True
        self._stand_ins: dict[int, tuple[Array, Array]] = {}
        self._written: dict[int, Array] = {}
        self._surroundings: _Surroundings | None = None

    @property
    def captured(self) -> Arrays:
        """The tensors that f captures, as it was seen so far."""
        return tuple(tensor for tensor, _ in self._stand_ins.values())

    def first(self, *xs: Array) -> Any:
        """f(*xs), where captured tensors are constants."""
        self._surroundings = _Surroundings(xs)
        with torch.enable_grad(), _Mode(xs, self._constant, self._note_write):
            out = self.f(*xs)
        own = [*xs, *(alias for _, alias in self._stand_ins.values())]
        self.complete = self.complete and not reaches_outside(trees.leaves(out), own)
        return out

    def closed(self, *args: Array) -> Any:
        """f(*xs) of args = (*xs, *captured)."""
        n = len(args) - len(self._stand_ins)
        xs, standing = args[:n], dict(zip(self._stand_ins, args[n:], strict=True))
        copies = {key: tensor.clone() for key, tensor in self._written.items()}  # state is written once, not again

        def given(tensor: Array) -> Array:
            try:
                return standing[id(tensor)]
            except KeyError:
                raise ImpureFunctionError(
                    f"a function inside a nested derivative captured a tensor of shape {tuple(tensor.shape)} when it "
                    "was evaluated again and not the first time. Let it use the same tensors each time, or type "
                    "nested_switching('taped'), which evaluates it once"
                ) from None

        assert self._surroundings is not None
        with self._surroundings.again(), _Mode(xs, given, copies=copies):
            return self.f(*xs)

    def _constant(self, tensor: Array) -> Array:
        if id(tensor) not in self._stand_ins:
            with temporarily_clear_interpreter_stack():  # inside a transformation detach() would wrap it
                alias = tensor.detach().requires_grad_()
            alias.polyad_done = True  # nobody outside asks for its gradient
            self._stand_ins[id(tensor)] = (tensor, alias)
        return self._stand_ins[id(tensor)][1]

    def _note_write(self, tensor: Array) -> None:
        self._written[id(tensor)] = tensor


class _Mode(TorchFunctionMode):  # type: ignore[misc]  # torch has no types for it
    """Puts stand-ins in the place of captured tensors.

    stand_in  of a captured tensor; copies are those of tensors that are written to
    """

    def __init__(
        self,
        xs: Sequence[Array],
        stand_in: Standing,
        note_write: Callable[[Array], None] | None = None,
        copies: dict[int, Array] | None = None,
    ) -> None:
        super().__init__()
        self.stand_in, self.note_write, self.copies = stand_in, note_write, copies or {}
        self.inside = object()
        self.start = torch._C._autograd._get_sequence_nr()
        self.xs = tuple(xs)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args = [self._moved(arg) for arg in args]
        kwargs = {key: self._moved(arg) for key, arg in kwargs.items()} if kwargs else {}
        given = [x for x in args if isinstance(x, torch.Tensor)]
        before = [x._version for x in given] if self.note_write else []
        was_constant = func is torch.Tensor.requires_grad_ and not args[0].requires_grad
        out = func(*args, **kwargs)
        for x, version in zip(given, before, strict=False):
            if x._version != version and not self._is_inside(x) and self.note_write:
                self.note_write(x)
        for y in out if isinstance(out, tuple | list) else (out,):
            if isinstance(y, torch.Tensor) and (was_constant or not any(y is x for x in given)):
                self._mark(y)
        return out

    def _moved(self, x: Any) -> Any:
        if isinstance(x, torch.Tensor):
            if id(x) in self.copies:
                return self.copies[id(x)]
            captured = x.requires_grad and torch.is_grad_enabled() and not self._is_inside(x)
            return self._stand_in(x) if captured else x
        return trees.map(self._moved, x) if isinstance(x, tuple | list | dict) and x else x

    def _stand_in(self, x: Array) -> Array:
        stand_in = self.stand_in(x)
        self._mark(stand_in)  # x.contiguous() and the like return it
        return stand_in

    def _mark(self, x: Array) -> None:
        if not hasattr(x, "polyad_inside"):
            x.polyad_inside = set()
        x.polyad_inside.add(self.inside)

    def _is_inside(self, x: Array) -> bool:
        if self.inside in getattr(x, "polyad_inside", ()):
            return True
        # Each node of the graph has a number; those of this thread that are older were made outside.
        if x.grad_fn is not None and x.grad_fn._sequence_nr() >= self.start:
            return True
        return any(x is own for own in self.xs)


class _Surroundings:
    """Random numbers and precision of the first evaluation, for the later ones."""

    def __init__(self, xs: Arrays) -> None:
        self.kind = next((x.device.type for x in xs), "cpu")
        self.random = torch.get_rng_state()
        self.devices, self.states = get_device_states(*xs)
        self.precision = torch.is_autocast_enabled(self.kind), torch.get_autocast_dtype(self.kind)

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """The same surroundings; those of the caller are put back."""
        enabled, dtype = self.precision
        with (
            torch.random.fork_rng(devices=self.devices, device_type=self.kind if self.devices else "cuda"),
            torch.autocast(self.kind, enabled=enabled, dtype=dtype),
        ):
            torch.set_rng_state(self.random)
            set_device_states(self.devices, self.states, device_type=self.kind)
            yield


def attach(zs: Arrays, args: Arrays, push: Push, pull: Transpose) -> Arrays:
    """The constants zs, which torch pulls back by `pull`."""
    if not torch.is_grad_enabled() or not any(x.requires_grad for x in args):
        return zs
    context = copy_context()  # the thread that runs a backward pass knows nothing of this one

    def back(args: Arrays, cotangents: Sequence[Array | None]) -> Arrays:
        return context.copy().run(pull, args, cotangents)

    seen = (x.view_as(x) for x in args)  # a custom Function shows no mode what it takes; view_as does
    outputs: Arrays = _Attached.apply(back, zs, *seen)
    return outputs


class _Attached(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, pull: Transpose, zs: Arrays, *args: Array) -> Arrays:
        ctx.pull = pull
        ctx.save_for_backward(*args)
        ctx.set_materialize_grads(False)
        return tuple(z.view_as(z) for z in zs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Array | None) -> Any:
        args = ctx.saved_tensors
        if all(ct is None for ct in cotangents):
            return (None, None, *(None for _ in args))
        return (None, None, *ctx.pull(args, cotangents))
