"""The graph that torch records: what stands behind a tensor."""

from collections.abc import Sequence
from typing import Any

from torch._C._functorch import get_unwrapped, is_functorch_wrapped_tensor

from polyad.backends.base import Array
from polyad.errors import UnsupportedError

__all__ = ["reaches_outside", "recorded", "refuse_dead_ends"]


def recorded(outputs: Sequence[Array]) -> set[Any]:
    """The nodes of the graph behind the outputs."""
    stack = [y.grad_fn for y in outputs if y.grad_fn is not None]
    seen: set[Any] = set()
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(parent for parent, _ in node.next_functions if parent is not None)
    return seen


def reaches_outside(outputs: Sequence[Array], aliases: Sequence[Array]) -> bool:
    """Whether a tensor that requires a gradient went into the outputs, aliases of this and of finished calls aside."""
    own = {id(alias) for alias in aliases} | {id(_bare(alias)) for alias in aliases}
    bare = [y for y in map(_bare, outputs) if y is not None]

    def foreign(leaf: Any) -> bool:
        return id(leaf) not in own and not hasattr(leaf, "polyad_done")

    if any(y.requires_grad and y.is_leaf and foreign(y) for y in bare):
        return True
    return any(not node.next_functions and foreign(getattr(node, "variable", None)) for node in recorded(bare))


def refuse_dead_ends(outputs: Sequence[Array]) -> None:
    """torch cuts the graph behind a function that is differentiable once; the gradient would be zero."""
    if any(node.name() in ("Error", "torch::autograd::Error") for node in recorded(outputs)):
        raise UnsupportedError(
            "a function in f is marked once_differentiable, so that torch has no second derivative of it and would "
            "give zero. Write its backward pass in differentiable functions, or pass stop_gradient(x) to it"
        )


def _bare(y: Any) -> Any:
    """The tensor inside the wrappers of torch.func; None for what is no tensor."""
    while hasattr(y, "grad_fn") and is_functorch_wrapped_tensor(y):
        y = get_unwrapped(y)
    return y if hasattr(y, "grad_fn") else None
