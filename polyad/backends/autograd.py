"""HIPS autograd: NumPy code, reverse and forward mode."""

import functools
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from autograd.builtins import DictBox, SequenceBox
from autograd.builtins import tuple as tuple_
from autograd.core import JVPNode, VJPNode, add_outgrads, defjvp_argnums, defvjp_argnums
from autograd.numpy.numpy_boxes import ArrayBox
from autograd.tracer import Node, getval, isbox, new_box, notrace_primitives, primitive, trace_stack
from autograd.util import toposort

from polyad import trees
from polyad.arrays import dtype_name, xp
from polyad.backends.autograd_namespace import NATIVE, namespace
from polyad.backends.base import (
    Array,
    Arrays,
    Aside,
    Backend,
    Captured,
    Function,
    Push,
    Sweep,
    Transpose,
)
from polyad.errors import ESCAPED, DetachError, ImpureFunctionError

__all__ = ["Autograd"]

# autograd numbers its traces with one counter for all threads: two threads
# that trace at the same time would mistake each other's traces for their own.
_tracing = threading.RLock()


# Under autograd's own grad, a dict or a list of parameters arrives as one box.
trees.register(
    DictBox,
    lambda box: ([box[key] for key in sorted(box.keys())], sorted(box.keys()), sorted(box.keys())),
    lambda keys, children: dict(zip(keys, children, strict=True)),
)
trees.register(
    SequenceBox,
    lambda box: ([box[i] for i in range(len(box))], type(getval(box)), range(len(box))),
    lambda kind, children: kind(children),
)


class Autograd(Backend):
    """Several inputs and outputs in one trace, which autograd itself does through tuples."""

    name = "autograd"
    host = True
    pushed_by_jets = True
    strategies = ("taped", "recompute", "forward_over_reverse")

    @property
    def namespace(self) -> Any:
        return namespace

    @property
    def native(self) -> Mapping[str, Function]:
        return NATIVE

    def owns(self, array: Any) -> bool:
        return isinstance(array, ArrayBox)

    def pullback(self, f: Function, xs: Arrays, has_aux: bool = False) -> Any:
        roots = [VJPNode.new_root() for _ in xs]
        ys, nodes, aux = _trace(f, xs, roots, has_aux)

        def pull(cotangents: Sequence[Array | None]) -> Arrays:
            grads = _backward(nodes, cotangents)
            return tuple(_like(grads.get(root), x) for root, x in zip(roots, xs, strict=True))

        return (ys, pull, aux) if has_aux else (ys, pull)

    def pushforward(self, f: Function, xs: Arrays, dxs: Sequence[Array | None], has_aux: bool = False) -> Any:
        roots = [None if dx is None else JVPNode.new_root(dx) for dx in dxs]
        try:
            ys, nodes, aux = _trace(f, xs, roots, has_aux)
        except NotImplementedError:  # a function without a forward rule: go through its reverse one
            return super().pushforward(f, xs, dxs, has_aux)
        dys = tuple(_like(node and node.g, y) for node, y in zip(nodes, ys, strict=True))
        return (ys, dys, aux) if has_aux else (ys, dys)

    def aside(self, sweep: Sweep, f: Function, xs: Arrays, captured: Captured, beside: Arrays = ()) -> Aside | None:
        boxes = tuple({id(box): box for box in captured() if isbox(box)}.values())
        closed = _lending(f, boxes, len(xs))
        constants = tuple(map(getval, boxes))
        zs = sweep(lambda *xs: closed(*xs, *constants), *map(getval, (*xs, *beside)))
        if any(map(isbox, zs)):  # f captures a box that is not among those found
            return None
        return zs, boxes, closed, True

    def attach(self, zs: Arrays, args: Arrays, push: Push, pull: Transpose) -> Arrays:
        # Boxes of its own: those that f captures hold other arrays while it is evaluated again.
        return tuple(_attached(_Rule(zs, push, pull), *map(_own, args)))

    def differentiates_here(self, arrays: Sequence[Array]) -> bool:
        return any(map(isbox, arrays))

    def stop_gradient(self, array: Array) -> Array:
        return getval(array)

    def scope(self) -> Any:
        return trace_stack.top + 1  # 0 where nothing is traced

    def asarray(self, values: Any, dtype: str | None = None, device: Any = None) -> Array:
        if isbox(values):
            return values if dtype in (None, dtype_name(values.dtype)) else values.astype(dtype)
        return np.asarray(values, dtype=dtype)

    def to_host(self, array: Array) -> Any:
        raise DetachError(
            "convert: this array is being differentiated by autograd; as an array of another framework it would "
            "lose its derivative. Convert before the call, or use polyad.stop_gradient(x) first"
        )


class _Constant(Node):  # type: ignore[misc]  # autograd has no types
    """A node that remembers nothing but whether the evaluation it belongs to is running."""

    __slots__ = ("running",)

    def __init__(self, value: Any, fun: Any, args: Any, kwargs: Any, argnums: Any, parents: Any) -> None:
        self.running = parents[0].running
        if not self.running[0]:
            raise ImpureFunctionError(ESCAPED)

    def initialize_root(self, running: list[bool]) -> None:
        self.running = running


notrace_primitives[_Constant] = notrace_primitives[VJPNode]


def _lending(f: Function, boxes: Arrays, n: int) -> Function:
    """f(*xs) as a function of xs and of the boxes that it captures.

    While f runs, each captured box holds the array that was given for it, on a
    trace above all others: every function takes the array out of it first, so
    no rule remembers the box.
    """

    def closed(*args: Array) -> Any:
        with _new_trace() as trace:  # which one thread holds at a time
            owned = [(box._value, box._trace, box._node) for box in boxes]
            running = [True]
            try:
                for box, array in zip(boxes, args[n:], strict=True):
                    box._value, box._trace, box._node = array, trace, _Constant.new_root(running)
                out = f(*args[:n])
            finally:
                running[0] = False
                for box, (value, number, node) in zip(boxes, owned, strict=True):
                    box._value, box._trace, box._node = value, number, node
        return trees.map(functools.partial(_taken_out, trace), out)

    return closed


def _taken_out(trace: int, y: Any) -> Any:
    """y, or the array in a box of this trace; a jet has them as its parts."""
    if isbox(y):
        return y._value if y._trace == trace else y
    return y._mapped(functools.partial(_taken_out, trace)) if hasattr(type(y), "_jet_level") else y


def _own(x: Any) -> Any:
    """The same array in boxes that nobody else holds."""
    return new_box(_own(x._value), x._trace, x._node) if isbox(x) else x


@dataclass(frozen=True)
class _Rule:
    """Constants, and their derivative as a function of arguments."""

    zs: Arrays
    push: Push
    pull: Transpose


@primitive  # type: ignore[untyped-decorator]
def _attached(rule: _Rule, *args: Array) -> Arrays:
    return rule.zs


def _attached_vjp(argnums: Any, zs: Any, args: Any, kwargs: Any) -> Function:
    rule, *arrays = args

    def pull(cotangents: Any) -> Any:
        grads = rule.pull(tuple(arrays), tuple(cotangents))
        return (grads[i - 1] for i in argnums)

    return pull


def _attached_jvp(argnums: Any, tangents: Any, zs: Any, args: Any, kwargs: Any) -> Any:
    rule, *arrays = args
    given = dict(zip(argnums, tangents, strict=True))
    return tuple_(rule.push(tuple(arrays), tuple(given.get(i) for i in range(1, len(args)))))


defvjp_argnums(_attached, _attached_vjp)
defjvp_argnums(_attached, _attached_jvp)


@contextmanager
def _new_trace() -> Iterator[int]:
    """autograd's own leaves its counter behind when f raises."""
    with _tracing:
        before = trace_stack.top
        trace_stack.top = before + 1
        try:
            yield trace_stack.top
        finally:
            trace_stack.top = before


def _trace(f: Function, xs: Arrays, roots: Sequence[Any], has_aux: bool) -> tuple[Arrays, list[Any], Arrays]:
    """(values, nodes, aux) of f on boxes; the node is None where y does not depend on xs."""
    with _new_trace() as trace:
        boxes = [x if root is None else new_box(x, trace, root) for x, root in zip(xs, roots, strict=True)]
        out = f(*boxes)
        ys, aux = out if has_aux else (out, ())

        def inside(y: Any) -> bool:
            return isbox(y) and y._trace == trace

        values = tuple(y._value if inside(y) else y for y in ys)
        nodes = [y._node if inside(y) else None for y in ys]
        return values, nodes, tuple(a._value if inside(a) else a for a in aux)


def _backward(nodes: Sequence[Any], cotangents: Sequence[Array | None]) -> dict[Any, Array]:
    """Cotangent of every root that the nodes depend on."""
    grads: dict[Any, Any] = {}
    for node, ct in zip(nodes, cotangents, strict=True):
        if node is not None and ct is not None:
            grads[node] = add_outgrads(grads.get(node), ct)
    end = VJPNode.new_root()
    end.parents = list(grads)  # one node behind all outputs, to sort the whole graph at once
    for node in toposort(end):
        if node.parents and node is not end and node in grads:
            grad = grads.pop(node)[0]
            for parent, part in zip(node.parents, node.vjp(grad), strict=False):
                grads[parent] = add_outgrads(grads.get(parent), part)
    return {node: grad for node, (grad, _) in grads.items()}


def _like(grad: Array | None, x: Array) -> Array:
    """The gradient with shape and dtype of x; zeros for none."""
    if grad is None:
        return np.zeros(x.shape, x.dtype)
    if tuple(grad.shape) != tuple(x.shape):  # forward rules leave broadcasts to the sum
        grad = xp.broadcast_to(grad, x.shape)
    return grad if grad.dtype == x.dtype else grad.astype(x.dtype)
