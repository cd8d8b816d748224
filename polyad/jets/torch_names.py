"""torch's own spelling: torch.tanh(jet), torch.sum(jet, dim=0), F.linear(jet, w, b), tensor @ jet.

torch hands every call with a jet among its arguments to `__torch_function__`.
Here its names and signatures become those of the standard. A function or an
option that is not in the tables raises; none falls back to plain values.

torch is imported by whoever calls this, never from here.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from polyad import norms
from polyad.arrays import stop_gradient, xp
from polyad.errors import UnsupportedError
from polyad.jets.elementwise import PARTIALS
from polyad.jets.rule import RULES, apply, foreign

__all__ = ["FUNCTIONS", "call_function", "method"]

_RENAMED = {
    "absolute": "abs",
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctan2": "atan2",
    "arctanh": "atanh",
    "bitwise_and": "logical_and",
    "bitwise_not": "logical_not",
    "bitwise_or": "logical_or",
    "bmm": "matmul",
    "dot": "matmul",
    "eq": "equal",
    "ge": "greater_equal",
    "gt": "greater",
    "le": "less_equal",
    "lt": "less",
    "mm": "matmul",
    "mul": "multiply",
    "mv": "matmul",
    "ne": "not_equal",
    "neg": "negative",
    "special_erf": "erf",
    "special_expit": "sigmoid",
}
_SAME = (
    *("broadcast_to", "ceil", "einsum", "equal", "floor", "greater", "greater_equal", "isfinite", "isinf", "isnan"),
    *("kron", "less", "less_equal", "logical_and", "logical_not", "logical_or", "matmul", "not_equal", "round"),
    *("sign", "trunc", "where", "zeros_like", "ones_like"),
)
_OPERATORS = {
    "__add__": "add",
    "__and__": "logical_and",
    "__eq__": "equal",
    "__ge__": "greater_equal",
    "__gt__": "greater",
    "__le__": "less_equal",
    "__lt__": "less",
    "__matmul__": "matmul",
    "__mod__": "remainder",
    "__mul__": "multiply",
    "__ne__": "not_equal",
    "__pow__": "pow",
    "__sub__": "subtract",
    "__truediv__": "divide",
}

# Functions without a kink, of which torch can mean nothing else than polyad does.
_SMOOTH: frozenset[str] = frozenset(
    (
        *("__add__", "__getitem__", "__matmul__", "__mul__", "__neg__", "__radd__", "__rmul__", "__rsub__", "__sub__"),
        *("add", "addmm", "cat", "concat", "cos", "cosh", "exp", "linear", "matmul", "mean", "mm", "mul", "multiply"),
        *("neg", "reshape", "rsub", "sigmoid", "sin", "sinh", "square", "stack", "sub", "subtract", "sum", "tanh"),
        *("unsqueeze", "view"),
    )
)

FUNCTIONS: dict[str, Callable[..., Any]] = {}


def call_function(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What Jet.__torch_function__ answers."""
    name = getattr(func, "__name__", str(func))
    if name not in _SMOOTH:
        foreign((*args, *kwargs.values()))
    answer = FUNCTIONS.get(_qualified(func, name)) or FUNCTIONS.get(name)
    if answer is None or not _is_of_torch(func):
        raise _unsupported(_spelled(func, name))
    accepted = _options(answer)
    refused = [key for key in kwargs if accepted is not None and key not in accepted]
    for key in refused:
        if kwargs[key] is not None and kwargs[key] is not False:
            raise UnsupportedError(
                f"{_spelled(func, name)}(..., {key}=...) has no derivative rule for jets. Call it without {key}="
            )
    return answer(*args, **{key: value for key, value in kwargs.items() if key not in refused})


def method(name: str, jet: Any) -> Callable[..., Any]:
    """The method of this name of a tensor, for a jet. UnsupportedError where there is no rule."""
    if name not in _SMOOTH:
        foreign((jet,))
    answer = FUNCTIONS.get(name)
    if answer is None:
        raise _unsupported(f"torch.Tensor.{name}")
    return functools.partial(answer, jet)


def _qualified(func: Any, name: str) -> str:
    return f"linalg.{name.removeprefix('linalg_')}" if name.startswith("linalg_") else name


def _is_of_torch(func: Any) -> bool:
    """Whether this is a function of torch, and not one of somebody else of the same name."""
    module = getattr(func, "__module__", None) or "torch"  # methods of tensors have none
    if module.startswith("torch._ops."):  # operators, also of other libraries
        return bool(module == "torch._ops.aten")
    return bool(module == "torch" or module.startswith("torch."))


def _spelled(func: Any, name: str) -> str:
    module = getattr(func, "__module__", None) or "torch"
    owner = getattr(func, "__objclass__", None)
    return (
        f"torch.Tensor.{name}" if owner is not None else f"{module if module.startswith('torch') else 'torch'}.{name}"
    )


def _unsupported(name: str) -> UnsupportedError:
    return UnsupportedError(
        f"{name} has no rule for arrays that are being differentiated by polyad's jets. Write it with functions of "
        f"polyad.xp, which have one; polyad.stop_gradient(x) makes x a constant"
    )


@functools.cache
def _options(f: Any) -> frozenset[str] | None:
    """Names of the parameters of a rule, None for any."""
    parameters = inspect.signature(f).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(p.name for p in parameters)


def _rule(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def enter(f: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            FUNCTIONS[name] = f
        return f

    return enter


def _named(torch_name: str, name: str) -> None:
    FUNCTIONS[torch_name] = lambda *args: apply(name, *args)


def _reflected(torch_name: str, name: str) -> None:
    FUNCTIONS[torch_name] = lambda a, b: apply(name, b, a)


for _name in (*PARTIALS, *_SAME):
    _named(_name, _name)
for _torch, _name in {**_RENAMED, **_OPERATORS}.items():
    if _name in RULES:
        _named(_torch, _name)
for _torch, _name in _OPERATORS.items():
    if _name in ("add", "divide", "matmul", "multiply", "pow", "remainder", "subtract"):
        _reflected(f"__r{_torch[2:]}", _name)
_reflected("rsub", "subtract")
for _name in ("cholesky", "det", "eigh", "eigvalsh", "inv", "pinv", "qr", "slogdet", "solve", "svdvals"):
    _named(f"linalg.{_name}", f"linalg.{_name}")
for _torch, _name in (("inverse", "inv"), ("det", "det"), ("slogdet", "slogdet"), ("pinverse", "pinv")):
    _named(_torch, f"linalg.{_name}")


# Sums and products with a factor.


@_rule("add")
def _add(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    return apply("add", input, other if alpha == 1 else alpha * other)


@_rule("sub", "subtract")
def _sub(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    return apply("subtract", input, other if alpha == 1 else alpha * other)


@_rule("div", "divide", "true_divide")
def _div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    y = apply("divide", input, other)
    return y if rounding_mode is None else xp.floor(y) if rounding_mode == "floor" else xp.trunc(y)


@_rule("addmm", "addmv", "baddbmm")
def _addmm(input: Any, mat1: Any, mat2: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    return beta * input + alpha * (mat1 @ mat2)


@_rule("linear")
def _linear(input: Any, weight: Any, bias: Any = None) -> Any:
    y = input @ weight.T
    return y if bias is None else y + bias


@_rule("tensordot")
def _tensordot(a: Any, b: Any, dims: Any = 2) -> Any:
    return apply("tensordot", a, b, axes=dims if isinstance(dims, int) else tuple(map(tuple, dims)))


@_rule("outer", "ger")
def _outer(input: Any, vec2: Any) -> Any:
    return apply("outer", input, vec2)


@_rule("rsqrt")
def _rsqrt(input: Any) -> Any:
    return 1 / xp.sqrt(input)


# Reductions. Where torch returns indices too, there is no rule.


def _reduction(torch_name: str, name: str) -> None:
    @_rule(torch_name)
    def answer(input: Any, dim: Any = None, keepdim: bool = False, *, axis: Any = None, dtype: Any = None) -> Any:
        input = input if dtype is None else apply("astype", input, dtype)
        return apply(name, input, axis=_axes(dim if axis is None else axis), keepdims=keepdim)


def _axes(dim: Any) -> Any:
    """To torch, dim=() means all axes, to the standard none."""
    return (tuple(dim) or None) if isinstance(dim, list | tuple) else dim


for _torch, _name in (("sum", "sum"), ("mean", "mean"), ("prod", "prod"), ("amax", "max"), ("amin", "min")):
    _reduction(_torch, _name)
for _name in ("all", "any", "argmax", "argmin"):
    _reduction(_name, _name)
_reduction("logsumexp", "logsumexp")


def _extreme(name: str, pairwise: str) -> None:
    @_rule(name)
    def answer(input: Any, other: Any = None) -> Any:
        if isinstance(other, int):
            raise UnsupportedError(f"torch.{name}(x, dim) has no rule for jets; write torch.a{name}(x, dim)")
        return apply(name, input) if other is None else apply(pairwise, input, other)


_extreme("max", "maximum")
_extreme("min", "minimum")


def _spread(name: str) -> None:
    @_rule(name)
    def answer(input: Any, dim: Any = None, *, correction: Any = 1, keepdim: bool = False, unbiased: Any = True) -> Any:
        return apply(name, input, axis=_axes(dim), correction=correction if unbiased else 0, keepdims=keepdim)


_spread("std")
_spread("var")


@_rule("cumsum")
def _cumsum(input: Any, dim: int) -> Any:
    return apply("cumulative_sum", input, axis=dim)


@_rule("cumprod")
def _cumprod(input: Any, dim: int) -> Any:
    return apply("cumulative_prod", input, axis=dim)


@_rule("norm", "linalg.vector_norm", "linalg.norm")
def _norm(input: Any, p: Any = 2, dim: Any = None, keepdim: bool = False, ord: Any = None) -> Any:
    order = 2 if p in (None, "fro") and ord is None else p if ord is None else ord
    return apply("linalg.vector_norm", input, axis=_axes(dim), keepdims=keepdim, ord=order)


# Shapes.


def _several(shape: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape


@_rule("reshape", "view")
def _reshape(input: Any, *shape: Any) -> Any:
    return apply("reshape", input, _several(shape))


@_rule("expand")
def _expand(input: Any, *size: Any) -> Any:
    size = _several(size)
    missing = len(size) - input.ndim
    kept = [input.shape[i - missing] if n == -1 else n for i, n in enumerate(size)]
    return apply("broadcast_to", input, tuple(kept))


@_rule("flatten")
def _flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    first, last = start_dim % input.ndim, end_dim % input.ndim
    return apply("reshape", input, (*input.shape[:first], -1, *input.shape[last + 1 :]))


@_rule("permute")
def _permute(input: Any, *dims: Any) -> Any:
    return apply("permute_dims", input, _several(dims))


@_rule("transpose", "swapaxes", "swapdims")
def _transpose(input: Any, dim0: int, dim1: int) -> Any:
    axes = list(range(input.ndim))
    axes[dim0], axes[dim1] = axes[dim1], axes[dim0]
    return apply("permute_dims", input, tuple(axes))


@_rule("t")
def _t(input: Any) -> Any:
    return input.T


@_rule("movedim", "moveaxis")
def _movedim(input: Any, source: Any, destination: Any) -> Any:
    return apply("moveaxis", input, source, destination)


@_rule("unsqueeze")
def _unsqueeze(input: Any, dim: int) -> Any:
    return apply("expand_dims", input, axis=dim)


@_rule("squeeze")
def _squeeze(input: Any, dim: Any = None) -> Any:
    dims = range(input.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    return apply("squeeze", input, axis=tuple(d for d in dims if input.shape[d] == 1))


@_rule("cat", "concat", "concatenate")
def _cat(tensors: Any, dim: int = 0) -> Any:
    return apply("concat", list(tensors), axis=dim)


@_rule("stack")
def _stack(tensors: Any, dim: int = 0) -> Any:
    return apply("stack", list(tensors), axis=dim)


@_rule("unbind")
def _unbind(input: Any, dim: int = 0) -> Any:
    return apply("unstack", input, axis=dim)


@_rule("flip")
def _flip(input: Any, *dims: Any) -> Any:
    return apply("flip", input, axis=_several(dims))


@_rule("roll")
def _roll(input: Any, shifts: Any, dims: Any = None) -> Any:
    return apply("roll", input, shifts, axis=dims)


def _triangle(name: str) -> None:
    @_rule(name)
    def answer(input: Any, diagonal: int = 0) -> Any:
        return apply(name, input, k=diagonal)


_triangle("tril")
_triangle("triu")


@_rule("diagonal")
def _diagonal(input: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    return apply("linalg.diagonal", apply("moveaxis", input, (dim1, dim2), (-2, -1)), offset=offset)


@_rule("trace")
def _trace(input: Any) -> Any:
    return apply("linalg.trace", input)


@_rule("index_select")
def _index_select(input: Any, dim: int, index: Any) -> Any:
    return apply("take", input, index, axis=dim)


@_rule("__getitem__")
def _getitem(input: Any, index: Any) -> Any:
    return apply("getitem", input, index)


# Values.


@_rule("clamp", "clip")
def _clamp(input: Any, min: Any = None, max: Any = None) -> Any:
    return apply("clip", input, min, max)


@_rule("detach")
def _detach(input: Any) -> Any:
    return stop_gradient(input)


@_rule("clone", "contiguous")
def _clone(input: Any) -> Any:
    return input


@_rule("full_like")
def _full_like(input: Any, fill_value: Any) -> Any:
    return apply("full_like", input, fill_value)


# Activations.


def _softened(name: str) -> None:
    @_rule(name)
    def answer(input: Any, dim: int, dtype: Any = None, *, _stacklevel: int = 3) -> Any:
        return apply(name, input if dtype is None else apply("astype", input, dtype), axis=dim)


_softened("softmax")
_softened("log_softmax")


def _inplace_free(name: str) -> None:
    @_rule(name)
    def answer(input: Any, inplace: bool = False) -> Any:
        return apply(name, input)


@_rule("layer_norm")
def _layer_norm(input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    return norms.layer_norm(None, input, normalized_shape, weight, bias, eps)


@_rule("group_norm")
def _group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    return norms.group_norm(None, input, num_groups, weight, bias, eps)


@_rule("rms_norm")
def _rms_norm(input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    return norms.rms_norm(None, input, normalized_shape, weight, eps)


_inplace_free("relu")
_inplace_free("silu")


@_rule("gelu")
def _gelu(input: Any, approximate: str = "none") -> Any:
    if approximate == "none":
        return apply("gelu", input)
    return 0.5 * input * (1 + xp.tanh((2 / xp.pi) ** 0.5 * (input + 0.044715 * input * input * input)))


@_rule("softplus")
def _softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    return apply("softplus", beta * input) / beta


@_rule("leaky_relu")
def _leaky_relu(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Any:
    return xp.where(input > 0, input, negative_slope * input)


@_rule("elu")
def _elu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    below = xp.where(input > 0, xp.zeros_like(input), input)
    return xp.where(input > 0, input, alpha * xp.expm1(below))


@_rule("logsigmoid")
def _logsigmoid(input: Any) -> Any:
    return -apply("softplus", -input)


@_rule("mse_loss")
def _mse_loss(input: Any, target: Any, reduction: str = "mean") -> Any:
    error = (input - target) ** 2
    return error if reduction == "none" else xp.mean(error) if reduction == "mean" else xp.sum(error)
