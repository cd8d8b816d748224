"""The graph that torch records: what stands behind a tensor."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch._C._functorch import (
    TransformType,
    get_dynamic_layer_stack_depth,
    get_interpreter_stack,
    get_unwrapped,
    is_functorch_wrapped_tensor,
    maybe_get_level,
)
from torch.utils.hooks import RemovableHandle

from polyad.backends.base import Array
from polyad.errors import ESCAPED, ImpureFunctionError, UnsupportedError

CUSTOM = torch.autograd.function.BackwardCFunction
AccumulateGrad = torch._C._functions.AccumulateGrad  # what stands in a graph for a leaf

__all__ = [
    "AccumulateGrad",
    "StandIn",
    "drawn",
    "has_custom_functions",
    "has_python_nodes",
    "hook",
    "reaches_outside",
    "recorded",
    "refuse_again",
    "refuse_dead_ends",
    "refuse_third_order",
    "refuse_twice",
    "unwrapped",
]


class StandIn:
    """The mark of tensors that stand in for others while a function runs; afterwards nobody may meet them."""

    running = True

    def refuse(self, grad: Array) -> None:
        """A hook of the tensors."""
        if not self.running:
            raise ImpureFunctionError(ESCAPED)


def drawn(nodes: Iterable[Any]) -> bool:
    """Whether one of these nodes of a traced graph draws random numbers."""
    return any(torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) for node in nodes)


def recorded(outputs: Sequence[Array], stop: Sequence[Any] = ()) -> set[Any]:
    """The nodes of the graph behind the outputs, up to these nodes."""
    stack = [y.grad_fn for y in outputs if y.grad_fn is not None]
    seen: set[Any] = set(stop)
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(parent for parent, _ in node.next_functions if parent is not None)
    return seen.difference(stop)


def reaches_outside(
    outputs: Sequence[Array], aliases: Sequence[Array], stop: bool = False, met: set[Any] | None = None
) -> bool:
    """Whether a tensor that requires a gradient went into the outputs, aliases of this and of finished calls aside.

    stop    what stands behind the aliases themselves does not count
    met     the nodes of the graph are put into it
    raises  ImpureFunctionError for one that stood in for another in a finished call
    """
    if get_dynamic_layer_stack_depth():
        outputs = [y for y in map(unwrapped, outputs) if y is not None]
        bare = [y for y in map(unwrapped, aliases) if y is not None]
        aliases = [*aliases, *bare]
    own = {*map(id, aliases)}
    seen = set() if met is None else met
    if stop:
        seen.update([alias.grad_fn for alias in aliases])
    found = False
    stack = []
    for y in outputs:
        node = y.grad_fn
        if node is not None:
            stack.append(node)
        elif y.requires_grad and id(y) not in own:
            found |= _foreign(y)
    leaf_node, push = AccumulateGrad, stack.append
    # One loop without calls, since every node passes through it.
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        behind = node.next_functions
        for parent, _ in behind:
            if parent is None:
                continue
            if type(parent) is not leaf_node:
                push(parent)
            elif id(leaf := parent.variable) not in own:
                found |= _foreign(leaf)
        if not behind:  # a leaf that came straight out of f, or the end of a graph that torch cut off
            leaf = getattr(node, "variable", None)
            if id(leaf) not in own:
                found |= _foreign(leaf)
    return found


def _foreign(leaf: Any) -> bool:
    mark = getattr(leaf, "polyad_stand_in", None)
    if mark is not None and not mark.running:
        raise ImpureFunctionError(ESCAPED)
    return not hasattr(leaf, "polyad_done")  # what stands in for another still runs: that pass asks for its gradient


def has_python_nodes(outputs: Sequence[Array]) -> bool:
    """Whether a custom autograd.Function, not of polyad, went into the outputs."""
    from polyad.backends.torch_attach import Attached

    bare = [y for y in map(unwrapped, outputs) if y is not None]
    custom = (node for node in recorded(bare) if isinstance(node, CUSTOM))
    return any(getattr(node, "_forward_cls", None) is not Attached for node in custom)


def has_custom_functions() -> bool:
    """Whether there is an autograd.Function that is neither torch's nor polyad's, or was ever a hook of somebody.

    Hooks on the backward pass of a module are such functions too, which it leaves out where it meets no tensor.
    """
    if RemovableHandle.next_id > _hooks:
        return True
    new = {*CUSTOM.__subclasses__()} - _own  # each has one of its own, whatever it is derived from
    if not all(_function(node).__module__.startswith(("torch.", "polyad.")) for node in new):
        return True
    _own.update(new)
    return False


def _function(node: type) -> type:
    return getattr(node, "_forward_cls", node)


_own: set[type] = set()
"""Nodes of those that are torch's or polyad's."""


_hooks = 0
"""How many were polyad's."""


def hook(tensor: Array, f: Callable[[Array], None]) -> None:
    """Let f see the gradient of this tensor, as a hook of polyad itself."""
    global _hooks
    with torch._C.DisableTorchFunction():  # modes around take hooks for what they cannot see through
        tensor.register_hook(f)
    _hooks += 1


ONCE = torch.autograd.function.once_differentiable(lambda ctx: None).__code__  # of all backward passes marked so

ONLY_ONCE = (
    "a function in f is marked once_differentiable, so that torch has no second derivative of it and would "
    "give zero. Write its backward pass in differentiable functions, or pass stop_gradient(x) to it"
)


@contextlib.contextmanager
def refuse_again(nodes: Iterable[Any]) -> Iterator[None]:
    """Let a derivative of what those of these nodes that are marked once_differentiable give in this block raise.

    torch cuts its graph there: the derivative would be that of everything else, or zero.
    """
    custom = [node for node in nodes if isinstance(node, CUSTOM)]
    once = [node for node in custom if _once(getattr(node, "_forward_cls", None))]
    handles = [node.register_hook(functools.partial(_tied, node)) for node in once]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _once(custom: Any) -> bool:
    """Whether the backward pass of this autograd.Function is marked once_differentiable."""
    return getattr(getattr(custom, "backward", None), "__code__", None) is ONCE


def _tied(node: Any, grads: Sequence[Array | None], cotangents: Sequence[Array | None]) -> Sequence[Array | None]:
    """The grads, in the graph of all that they were made of, where it refuses a derivative."""
    kept = [x for x in (*cotangents, *node.saved_tensors, *vars(node).values()) if isinstance(x, torch.Tensor)]
    sources = [x for x in kept if x.requires_grad]
    if not sources:
        return grads
    zero = sum([x.reshape(-1)[:0].sum() for x in sources])

    def refuse(grad: Array) -> None:
        raise UnsupportedError(ONLY_ONCE)

    bare = unwrapped(zero)  # a vmap would keep the hook to itself
    hook(bare, refuse)
    return tuple([None if grad is None else grad.detach() + zero.to(grad.dtype) for grad in grads])


def refuse_dead_ends(nodes: Iterable[Any]) -> None:
    """torch cuts the graph behind a function that is differentiable once; the gradient would be zero."""
    if any(node.name() in ("Error", "torch::autograd::Error") for node in nodes):
        raise UnsupportedError(ONLY_ONCE)


def refuse_twice(custom: Any, *args: Any) -> None:
    """Raise where two passes of torch.func go through a custom autograd.Function that has one alone.

    Of two forward passes torch 2.13 runs its jvp() for the inner one with the outer one switched off, and what is
    differentiated twice is missing; behind a backward pass that is marked once_differentiable it cuts the graph.
    """
    if _once(custom):
        passes = {layer.level() for layer in get_interpreter_stack() or () if layer.key() != TransformType.Vmap}
        taped = any(x.requires_grad for x in map(unwrapped, args) if x is not None)
        if len(passes & _levels(args)) + taped > 1:
            raise UnsupportedError(ONLY_ONCE)
    forward = {layer.level() for layer in get_interpreter_stack() or () if layer.key() == TransformType.Jvp}
    if len(forward) > 1 and len(forward & _levels(args)) > 1:
        raise UnsupportedError(
            f"{custom.__name__}: forward mode in forward mode goes wrong through an autograd.Function of torch, which "
            f"drops its second derivative. Choose mode='reverse' for one of the two"
        )


def _levels(args: Sequence[Any]) -> set[int]:
    """The transformations that wrapped a tensor among the args."""
    found = set()
    for x in args:
        while isinstance(x, torch.Tensor) and is_functorch_wrapped_tensor(x):
            found.add(maybe_get_level(x))
            x = get_unwrapped(x)
    return found


# Double backward functions of fused norms, whose own derivative is wrong (torch 2.13).
THIRD_WRONGLY = {"NativeLayerNormBackwardBackward0", "NativeBatchNormBackwardBackward0"}


def refuse_third_order(outputs: Sequence[Array], grads: Sequence[Array]) -> None:
    """Let a derivative of these grads of the outputs raise where torch would give a wrong one."""
    found = next((node.name() for node in recorded(outputs) if _third_is_wrong(node)), None)
    if found is None:
        return

    def refuse(grad: Array) -> None:
        raise UnsupportedError(
            f"{found}: torch differentiates its fused norm wrongly three times. Use polyad.adopt(module), which runs "
            f"norms as formulas, or laplacian, or mode='forward' for the inner derivative, which do so too"
        )

    for grad in map(unwrapped, grads):  # a vmap would keep the hook to itself
        if grad is not None and grad.requires_grad:
            hook(grad, refuse)


def _third_is_wrong(node: Any) -> bool:
    return node.name() in THIRD_WRONGLY and getattr(node, "_saved_train", True)


def unwrapped(y: Any) -> Any:
    """The tensor inside the wrappers of torch.func; None for what is no tensor."""
    while hasattr(y, "grad_fn") and is_functorch_wrapped_tensor(y):
        y = get_unwrapped(y)
    return y if hasattr(y, "grad_fn") else None
