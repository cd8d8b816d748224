"""What torch's graph proves about the rows of a batch, without evaluating anything.

A function is row by row if every node of its graph is. Nodes are known by their
names; what is not in the tables proves nothing. All entries of row r of an array
stand in one block of its first axis, so that (B, T, C) and (B * T, C) are both
"by rows", and a first axis that is not a multiple of B is not.
"""

from collections.abc import Callable, Sequence
from typing import Any

from polyad.backends.base import Array
from polyad.backends.torch_graph import AccumulateGrad
from polyad.backends.torch_tanh import Node

__all__ = ["rows_apart"]

Place = tuple[int, int]
"""Of an array that is by rows: how many axes it has, and the length of the first."""

Parents = Sequence[Place | None]
"""Of each input of a node; None where it does not depend on the rows."""

Rule = Callable[[Any, Parents], Place | None]
"""(node, parents, of which one depends on the rows) -> the place of its result; None where rows may mix."""


def rows_apart(y: Array, x: Array, batch: int) -> bool:
    """Whether the graph of y shows that each row of y depends on the same row of x alone.

    x      the leaf or alias that y was recorded on, shape (batch, ...); y (batch, ...)
    False  means that it is not seen
    """
    start, own = y.grad_fn, x.grad_fn
    if start is None or start is own:
        return True
    if not batch:
        return False
    begin = (x.ndim, batch)
    places: dict[Any, Place | None] = {None: None, own: begin} if own is not None else {None: None}
    stack = [(start, start.next_functions)]
    while stack:
        node, behind = stack[-1]
        moving = waiting = False
        for parent, i in behind:
            if type(parent) is AccumulateGrad:
                if parent.variable is x:
                    places[parent], moving = begin, True
            elif parent in places:
                if places[parent] is not None:
                    moving = True
                    if i and _place(parent, i) != places[parent]:  # of another shape than its first result
                        return False
            elif further := parent.next_functions:
                stack.append((parent, further))
                waiting = True
            else:
                places[parent] = None
        if waiting:
            continue
        stack.pop()
        if node in places:
            continue
        if not moving:
            places[node] = None
            continue
        rule = _RULE_OF.get(type(node)) or _rule(node)
        place = rule and rule(node, [places.get(parent) for parent, _ in behind])
        if not place or place[1] % batch or not place[1]:
            return False
        places[node] = place
    return True


def _rule(node: Any) -> Rule | None:
    """That of the node's name, remembered for its type."""
    name = node.name()
    rule = RULES.get(name[:-9]) if name[-9:-1] == "Backward" and name[-1].isdigit() else None
    if rule is not None and type(node).__name__ == name:  # a custom autograd.Function has a name without a number
        _RULE_OF[type(node)] = rule
    return rule


def _place(node: Any, i: int = 0) -> Place:
    """Of result number i of the node."""
    shape = node._input_metadata[i].shape
    return len(shape), shape[0] if len(shape) else 0


def _alike(node: Any, parents: Parents) -> Place | None:
    """A function of numbers: its result has the shape of its input."""
    return parents[0] if len(parents) == 1 else _aligned(node, parents)


def _aligned(node: Any, parents: Parents) -> Place | None:
    """Entry by entry, or along other axes than the first: nothing is broadcast into another row."""
    place = _place(node)
    return place if {None, place}.issuperset(parents) else None


def _folded(node: Any, parents: Parents) -> Place | None:
    """The same entries in the same order."""
    return _place(node)


def _rowwise(node: Any, parents: Parents) -> Place | None:
    """The first input by rows, and the others the same for all."""
    place = _place(node)
    first, *others = parents
    return place if first is not None and first[1] == place[1] and not any(others) else None


def _mm(node: Any, parents: Parents) -> Place | None:
    """The rows of the first input, and the second the same for all."""
    return parents[0] if parents[1] is None else None


def _addmm(node: Any, parents: Parents) -> Place | None:
    added, rows, weight = parents
    if weight is not None:
        return None
    return rows if added is None else _aligned(node, (added, rows))


def _layer(node: Any, parents: Parents) -> Place | None:
    """The rows of the first input, the weight and the bias the same for all."""
    rows, *others = parents
    return None if any(others) else rows


def _batches(node: Any, parents: Parents) -> Place | None:
    """Matrices along the first axis, each with its own."""
    return _by_first(_place(node), parents)


def _along(node: Any, parents: Parents) -> Place | None:
    """Along an axis, or several, that the node remembers and that is not the first of its input."""
    dims, (here, *_) = getattr(node, "_saved_dim", None), parents
    dims = dims if isinstance(dims, tuple) else (0,) if dims is None else (dims,)
    if here is None or not dims or 0 in [_axis(dim, here[0]) for dim in dims]:
        return None
    return _by_first(_place(node), parents)


def _placed(node: Any, parents: Parents) -> Place | None:
    """Along an axis of the result that is not the first."""
    place = _place(node)
    return _by_first(place, parents) if _axis(node._saved_dim, place[0]) != 0 else None


def _swapped(node: Any, parents: Parents) -> Place | None:
    place = _place(node)
    return None if 0 in (_axis(node._saved_dim0, place[0]), _axis(node._saved_dim1, place[0])) else place


def _permuted(node: Any, parents: Parents) -> Place | None:
    place = _place(node)
    return place if _axis(node._saved_dims[0], place[0]) == 0 else None


def _normalized(node: Any, parents: Parents) -> Place | None:
    place = _rowwise(node, parents)
    return place if place and len(node._saved_normalized_shape) < place[0] else None


def _constant_statistics(node: Any, parents: Parents) -> Place | None:
    return None if node._saved_training else _rowwise(node, parents)


def _by_first(place: Place, parents: Parents) -> Place | None:
    """The place, if the first axes of what depends on the rows are as long."""
    return place if all(here is None or here[1] == place[1] for here in parents) else None


def _axis(dim: int, n: int) -> int:
    """From 0; torch saves -1 as an unsigned number."""
    return (dim - 2**64 if dim >= 2**63 else dim) % n


NAMES: dict[Rule, str] = {
    _aligned: "Add Addcdiv Addcmul Atan2 Div Expand Hypot Lerp Logaddexp Maximum Minimum Mul Rsub Sub Where Xlogy",
    _alike: (
        "Abs Acos Acosh Alias Asin Asinh Atan Atanh Celu Clamp ClampMax ClampMin Clone Cos Cosh Elu Erf Erfc Exp Exp2 "
        "Expm1 Gelu Hardsigmoid Hardswish Hardtanh LeakyRelu Log Log10 Log1P Log2 LogSigmoid Mish Neg Pow Reciprocal "
        "Relu Rsqrt Sigmoid Silu Sin Sinc Sinh Softplus Sqrt Square Tan Tanh Threshold ToCopy"
    ),
    _addmm: "Addmm",
    _along: "Amax Amin Cumsum LogSoftmax Logsumexp Mean Select Slice Softmax Squeeze Sum Unbind Var VarMean",
    _batches: "Bmm",
    _constant_statistics: "NativeBatchNorm",
    _folded: "ReshapeAlias UnsafeView View",
    _mm: "Mm",
    _normalized: "NativeLayerNorm",
    _permuted: "Permute",
    _placed: "Cat Stack Unsqueeze",
    _rowwise: "Convolution",
    _swapped: "Transpose",
}
RULES = {name: rule for rule, names in NAMES.items() for name in names.split()}
_RULE_OF: dict[type, Rule] = {Node: _layer}  # by the type of the node: a look at its name takes longer
