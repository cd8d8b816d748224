"""Transformations of torch.func on tuples of tensors.

Those of torch itself search their arguments and results for tensors in trees, several times: for 8
tensors vmap takes 60 us more, and vjp 150 us (torch 2.13, one CPU thread, 2026-11).
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch._C import _functorch as functorch
from torch._functorch.vmap import lazy_load_decompositions

from polyad.backends.base import Array, Arrays, Function

__all__ = ["of_rows", "vjp"]


def of_rows(f: Function, xs: Arrays, has_shared: bool = False) -> Any:
    """vmap(f)(*xs), with has_shared and those of a second tuple, which are the same for each row."""
    lazy_load_decompositions()
    k = len(xs[0])
    level = functorch._vmap_increment_nesting(k, "error")
    try:
        out = f(*[functorch._add_batch_dim(x, 0, level) for x in xs])
        ys, shared = out if has_shared else (out, ())
        if any(functorch.maybe_get_level(y) == level for y in shared):
            raise ValueError("not the same for each row")
        rows = tuple([functorch._remove_batch_dim(y, level, k, 0) for y in ys])
    finally:
        functorch._vmap_decrement_nesting()
    return (rows, shared) if has_shared else rows


HOOKS = "hooks on saved tensors (torch.autograd.graph.saved_tensors_hooks) do not go through torch.func"


def vjp(f: Function, xs: Arrays, has_aux: bool = False) -> Any:
    """(ys, pull) or (ys, pull, aux), with what was recorded as pull.wrapped."""
    with torch.autograd.graph.disable_saved_tensors_hooks(HOOKS):
        level = functorch._grad_increment_nesting()
        try:
            with torch.enable_grad():
                leaves = tuple([_leaf(x, level) for x in xs])
                out = f(*leaves)
                ys, aux = out if has_aux else (out, ())
                values = tuple([functorch._unwrap_for_grad(y, level) for y in ys])
                aux = tuple([functorch._unwrap_for_grad(a, level) for a in aux])
        finally:
            functorch._grad_decrement_nesting()

    def pull(cotangents: Sequence[Array | None]) -> Arrays:
        used = [(y, ct) for y, ct in zip(ys, cotangents, strict=True) if ct is not None and y.requires_grad]
        if not used:
            return tuple([torch.zeros_like(x) for x in leaves])
        some, given = zip(*used, strict=True)
        again = torch.is_grad_enabled()
        with _out_of_inference(again), _interpreted():
            grads = torch.autograd.grad(some, leaves, given, True, again, allow_unused=True)
        return tuple([torch.zeros_like(x) if g is None else g for g, x in zip(grads, leaves, strict=True)])

    pull.wrapped = ys  # type: ignore[attr-defined]
    return (values, pull, aux) if has_aux else (values, pull)


def _leaf(x: Array, level: int) -> Array:
    """x as a variable of this level."""
    variable = functorch._wrap_for_grad(x, level)
    before = functorch.get_inplace_requires_grad_allowed()
    functorch.set_inplace_requires_grad_allowed(True)
    try:
        return variable.requires_grad_()
    finally:
        functorch.set_inplace_requires_grad_allowed(before)


@contextmanager
def _out_of_inference(recording: bool) -> Iterator[None]:
    """Where torch.autograd.grad runs at all, with recording on or off as it is."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.set_grad_enabled(recording):
        yield


def _interpreted() -> Any:
    """Where torch's compiled autograd, which knows nothing of these transformations, is off."""
    compiled = sys.modules.get("torch._dynamo.compiled_autograd")
    return nullcontext() if compiled is None else compiled._disable()
