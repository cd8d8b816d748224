"""What torch's graph proves about the rows of a batch, without evaluating anything.

A function is row by row if every node of its graph is. Nodes are known by their
names; what is not in the tables proves nothing. All entries of row r of an array
stand in one block of its first axis, so that (B, T, C) and (B * T, C) are both
"by rows", and a first axis that is not a multiple of B is not.
"""

from collections.abc import Callable, Sequence
from typing import Any

from polyad.backends.base import Array

__all__ = ["rows_apart"]

Shape = tuple[int, ...]
Parents = Sequence[tuple[bool, Shape]]
"""Of each input of a node: whether it depends on the rows, and its shape."""


def rows_apart(y: Array, x: Array, batch: int) -> bool:
    """Whether the graph of y shows that each row of y depends on the same row of x alone.

    x      the leaf or alias that y was recorded on, shape (batch, ...); y (batch, ...)
    False  means that it is not seen
    """
    if y.grad_fn is None or y.grad_fn is x.grad_fn:
        return True
    depends: dict[Any, bool] = {None: False}
    stack = [y.grad_fn]
    while stack:
        node = stack[-1]
        if node in depends:
            stack.pop()
            continue
        behind = node.next_functions
        if node is x.grad_fn or (not behind and getattr(node, "variable", None) is x):
            depends[node] = True
            continue
        waiting = [parent for parent, _ in behind if parent not in depends]
        if waiting:
            stack += waiting
            continue
        if any(depends[parent] for parent, _ in behind):
            if not _by_rows(node, [(depends[p], () if p is None else _shape(p, i, x)) for p, i in behind], batch):
                return False
            depends[node] = True
        else:
            depends[node] = False
    return True


def _shape(node: Any, i: int, x: Array) -> Shape:
    """Shape of output number i of the node."""
    if node.next_functions:
        return tuple(node._input_metadata[i].shape)
    return tuple(x.shape)  # the leaf; the shapes of others are not asked


def _by_rows(node: Any, parents: Parents, batch: int) -> bool:
    name = node.name()
    rule = RULES.get(name[:-9]) if name[-9:-1] == "Backward" and name[-1].isdigit() else None
    if rule is None:  # a custom autograd.Function has a name without a number
        return False
    shape = tuple(node._input_metadata[0].shape)
    rows = [s for moves, s in parents if moves] + [shape]
    return all(s and s[0] and s[0] % batch == 0 for s in rows) and rule(node, shape, parents)


def _aligned(node: Any, shape: Shape, parents: Parents) -> bool:
    """Entry by entry, or along other axes than the first: nothing is broadcast into another row."""
    return all(len(s) == len(shape) and s[0] == shape[0] for moves, s in parents if moves)


def _folded(node: Any, shape: Shape, parents: Parents) -> bool:
    """The same entries in the same order."""
    return True


def _first(node: Any, shape: Shape, parents: Parents) -> bool:
    """The first input by rows, and the others the same for all."""
    return parents[0][1][:1] == shape[:1] and not any(moves for moves, _ in parents[1:])


def _addmm(node: Any, shape: Shape, parents: Parents) -> bool:
    return _aligned(node, shape, parents[:1]) and _first(node, shape, parents[1:])


def _batches(node: Any, shape: Shape, parents: Parents) -> bool:
    """Matrices along the first axis, each with its own."""
    return all(s[0] == shape[0] for moves, s in parents if moves)


def _along(node: Any, shape: Shape, parents: Parents) -> bool:
    """Along an axis, or several, that the node remembers and that is not the first of its input."""
    dims, n = getattr(node, "_saved_dim", None), len(parents[0][1])
    dims = dims if isinstance(dims, tuple) else (0,) if dims is None else (dims,)
    return bool(dims) and all(_axis(dim, n) != 0 for dim in dims) and all(s[0] == shape[0] for m, s in parents if m)


def _placed(node: Any, shape: Shape, parents: Parents) -> bool:
    """Along an axis of the result that is not the first."""
    return _axis(node._saved_dim, len(shape)) != 0 and all(s[0] == shape[0] for moves, s in parents if moves)


def _swapped(node: Any, shape: Shape, parents: Parents) -> bool:
    return 0 not in (_axis(node._saved_dim0, len(shape)), _axis(node._saved_dim1, len(shape)))


def _permuted(node: Any, shape: Shape, parents: Parents) -> bool:
    return _axis(node._saved_dims[0], len(shape)) == 0


def _normalized(node: Any, shape: Shape, parents: Parents) -> bool:
    return len(node._saved_normalized_shape) < len(shape) and _first(node, shape, parents)


def _constant_statistics(node: Any, shape: Shape, parents: Parents) -> bool:
    return not node._saved_training and _first(node, shape, parents)


def _axis(dim: int, n: int) -> int:
    """From 0; torch saves -1 as an unsigned number."""
    return (dim - 2**64 if dim >= 2**63 else dim) % n


Rule = Callable[[Any, Shape, Parents], bool]
NAMES: dict[Rule, str] = {
    _aligned: (
        "Abs Acos Acosh Add Addcdiv Addcmul Alias Asin Asinh Atan Atan2 Atanh Celu Clamp ClampMax ClampMin Clone Cos "
        "Cosh Div Elu Erf Erfc Exp Exp2 Expand Expm1 Gelu Hardsigmoid Hardswish Hardtanh Hypot LeakyRelu Lerp Log "
        "Log10 Log1P Log2 LogSigmoid Logaddexp Maximum Minimum Mish Mul Neg Pow Reciprocal Relu Rsqrt Rsub Sigmoid "
        "Silu Sin Sinc Sinh Softplus Sqrt Square Sub Tan Tanh Threshold ToCopy Where Xlogy"
    ),
    _addmm: "Addmm",
    _along: "Amax Amin Cumsum LogSoftmax Logsumexp Mean Select Slice Softmax Squeeze Sum Unbind",
    _batches: "Bmm",
    _constant_statistics: "NativeBatchNorm",
    _first: "Convolution Mm",
    _folded: "ReshapeAlias UnsafeView View",
    _normalized: "NativeLayerNorm",
    _permuted: "Permute",
    _placed: "Cat Stack Unsqueeze",
    _swapped: "Transpose",
}
RULES = {name: rule for rule, names in NAMES.items() for name in names.split()}
