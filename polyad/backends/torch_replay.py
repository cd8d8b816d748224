"""A function of torch with what it captures as arguments.

Every function of torch passes the TorchFunctionMode around it and so shows the
tensors that it works on. Those that require a gradient and were not made inside
are captured; while f runs, another tensor stands in for each of them: a
constant in the first evaluation, an argument in the later ones. Tensors that f
writes to are written once: later evaluations write to copies.

What no mode sees, such as a custom autograd.Function or a hook, whose backward
pass may capture anything, is found in the recorded graph; then the function is
not replayed, and what the first evaluation did is undone.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import get_device_states, set_device_states

from polyad import trees
from polyad.backends.base import Array, Arrays, Function
from polyad.backends.torch_graph import StandIn, has_python_nodes, hook, reaches_outside
from polyad.errors import ImpureFunctionError

__all__ = ["Later", "Replay", "Surroundings", "mapped", "may_write", "written"]


class Replay:
    """f, first evaluated on constants by `first`, then as a function of `captured` too by `closed`.

    complete  whether everything that f captures was seen
    dual      whether forward mode stops where reverse mode does: it does not at no_grad()
    """

    def __init__(self, f: Function) -> None:
        self.f = f
        self.complete = self.dual = True
        self._stand_ins: dict[int, tuple[Array, Array]] = {}
        self._written: dict[int, tuple[Array, Array]] = {}
        self._surroundings: Surroundings | None = None
        self._mark = StandIn()

    @property
    def captured(self) -> Arrays:
        """The tensors that f captures, as it was seen so far."""
        return tuple(tensor for tensor, _ in self._stand_ins.values())

    def first(self, *xs: Array) -> Any:
        """f(*xs), where captured tensors are constants."""
        self._surroundings = self._surroundings or Surroundings(xs)
        for x in xs:
            x.polyad_stand_in = self._mark
        with torch.enable_grad(), _First(self, xs):
            out = self.f(*xs)
        leaves = trees.leaves(out)
        own = [*xs, *(alias for _, alias in self._stand_ins.values())]
        self.complete = self.complete and not has_python_nodes(leaves) and not reaches_outside(leaves, own)
        return out

    def end(self) -> None:
        """No more first evaluations; what they did is undone if f is not replayed."""
        self._mark.running = False
        if not self.complete and self._surroundings is not None:
            self._surroundings.restore()
            for tensor, before in self._written.values():
                with torch.no_grad():
                    tensor.copy_(before)

    def closed(self, *args: Array) -> Any:
        """f(*xs) of args = (*xs, *captured)."""
        n = len(args) - len(self._stand_ins)
        xs, standing = args[:n], dict(zip(self._stand_ins, args[n:], strict=True))
        standing.update((key, before.clone()) for key, (_, before) in self._written.items())
        assert self._surroundings is not None
        with self._surroundings.again(), Later(standing):
            out = self.f(*xs)
        if reaches_outside(trees.leaves(out), args, stop=True):
            raise ImpureFunctionError(
                "a function inside a nested derivative captured other tensors when it was evaluated again than the "
                "first time. Let it use the same ones each time, or type nested_switching('taped'), which evaluates "
                "it once"
            )
        return out

    def stand_in(self, tensor: Array) -> Array:
        """The constant in the place of a captured tensor."""
        if id(tensor) not in self._stand_ins:
            with temporarily_clear_interpreter_stack():  # inside a transformation detach() would wrap it
                alias = tensor.detach().requires_grad_()
            alias.polyad_stand_in = self._mark
            hook(alias, self._mark.refuse)
            self._stand_ins[id(tensor)] = (tensor, alias)
        return self._stand_ins[id(tensor)][1]

    def note_write(self, tensor: Array) -> None:
        """Remember a tensor that is going to be written to, as it is."""
        if id(tensor) not in self._written:
            self._written[id(tensor)] = (tensor, tensor.detach().clone())


class Later(TorchFunctionMode):  # type: ignore[misc]  # torch has no types for it
    """Puts others in the place of tensors, by their id."""

    def __init__(self, standing: dict[int, Array]) -> None:
        super().__init__()
        self.standing = standing

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = mapped(self._moved, args), mapped(self._moved, kwargs or {})
        return func(*args, **kwargs)

    def _moved(self, x: Array) -> Array:
        return self.standing.get(id(x), x)


class _First(TorchFunctionMode):  # type: ignore[misc]
    """Puts stand-ins in the place of captured tensors, and tells the replay what it sees."""

    def __init__(self, replay: Replay, xs: Sequence[Array]) -> None:
        super().__init__()
        self.replay = replay
        self.inside = object()
        self.start = torch._C._autograd._get_sequence_nr()
        for x in xs:
            self._mark(x)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        given: list[Array] = []
        if func in (torch.autograd.grad, torch.autograd.backward, torch.Tensor.backward) or name == "register_hook":
            # Inside of this call the graphs of captured tensors are not those that it asks for.
            if any(self._is_captured(x) for x in trees.leaves((args, kwargs or {})) if isinstance(x, torch.Tensor)):
                self.replay.complete = False
            self.replay.complete = self.replay.complete and name != "register_hook"
        if not torch.is_grad_enabled() or (name == "__get__" and func == torch.Tensor.data.__get__):
            self.replay.dual = False

        def moved(x: Array) -> Array:
            x = self._stand_in(x) if self._is_captured(x) else x
            given.append(x)
            return x

        args, kwargs = mapped(moved, args), mapped(moved, kwargs or {})
        for x in written(name, args, kwargs):
            base = x if x._base is None else x._base
            if not self._is_inside(base) and not base.requires_grad:
                self.replay.note_write(base)
        was_constant = func is torch.Tensor.requires_grad_ and not args[0].requires_grad
        out = func(*args, **kwargs)
        for y in out if isinstance(out, tuple | list) else (out,):
            if isinstance(y, torch.Tensor) and (was_constant or not any(y is x for x in given)):
                self._mark(y)
        return out

    def _is_captured(self, x: Array) -> bool:
        return x.requires_grad and torch.is_grad_enabled() and not self._is_inside(x)

    def _stand_in(self, x: Array) -> Array:
        stand_in = self.replay.stand_in(x)
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
        return x.grad_fn is not None and x.grad_fn._sequence_nr() >= self.start


def mapped(f: Callable[[Array], Array], x: Any) -> Any:
    """f of the tensors in plain containers."""
    if isinstance(x, torch.Tensor):
        return f(x)
    if type(x) in (tuple, list):
        return type(x)(mapped(f, part) for part in x)
    return {key: mapped(f, part) for key, part in x.items()} if type(x) is dict else x


def written(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Array]:
    """The tensors that a function of this name writes to."""
    found = [kwargs.get("out")]
    if name in NORMS:
        found += [*args[1:5], kwargs.get("running_mean"), kwargs.get("running_var")]
    elif may_write(name):
        found += list(args[:1])
    flat = [x for part in found for x in (part if isinstance(part, tuple | list) else [part])]
    return [x for x in flat if isinstance(x, torch.Tensor) and not x.is_inference()]


def may_write(name: str) -> bool:
    """Whether a function of this name may write to what it is given, its `out` aside."""
    return (name.endswith("_") and not name.endswith("__")) or name in WRITING or name in NORMS


NORMS = {"batch_norm", "instance_norm"}
"""Which write to running statistics."""

WRITING = {
    *("__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__ipow__"),
    *("__imod__", "__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__"),
}


class Surroundings:
    """Random numbers and precision of the first evaluation, for the later ones."""

    def __init__(self, xs: Arrays) -> None:
        self.kind = next((x.device.type for x in xs), "cpu")
        self.random = torch.get_rng_state()
        self.devices, self.states = get_device_states(*xs)
        self.cast = self.kind if torch.amp.is_autocast_available(self.kind) else "cpu"  # not on "meta"
        self.precision = torch.is_autocast_enabled(self.cast), torch.get_autocast_dtype(self.cast)

    def restore(self) -> None:
        """The random numbers of the first evaluation once more."""
        torch.set_rng_state(self.random)
        set_device_states(self.devices, self.states, device_type=self.kind)

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """The same surroundings; those of the caller are put back."""
        enabled, dtype = self.precision
        with (
            torch.random.fork_rng(devices=self.devices, device_type=self.kind if self.devices else "cuda"),
            torch.autocast(self.cast, enabled=enabled, dtype=dtype),
        ):
            self.restore()
            yield
