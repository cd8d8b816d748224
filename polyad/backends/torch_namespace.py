"""array_api_compat.torch, with right derivatives where torch's own are wrong or missing.

torch differentiates linalg.det, slogdet and solve wrongly when the inner pass is
forward mode (torch 2.13: det'' of a 2 x 2 matrix gives 8.9 and not -4). Inside of
torch.func they are therefore written in qr and inv, whose rules are right. full,
full_like and linspace take the values out of a tensor and drop its derivative; here
they keep it. floor_divide and remainder of a number by a tensor have no rule in torch.
"""

from typing import Any

import torch
from array_api_compat import torch as standard
from torch.autograd import forward_ad

from polyad import compositions
from polyad.backends.overlay import Overlay

__all__ = ["TENSORS", "inside_functorch", "namespace", "traced", "tracing", "watched"]


TENSORS = frozenset((torch.Tensor, torch.nn.Parameter))
"""Types of what is a tensor and nothing more."""


def inside_functorch() -> bool:
    """Whether a transformation of torch.func is running."""
    return torch._C._functorch.maybe_current_level() is not None


def tracing() -> bool:
    """Whether every function of torch becomes a node of a graph here, and no value is known."""
    return traced() is not None


def watched() -> bool:
    """Whether something wants to see every function of torch: a transformation, dual numbers, a mode or a compiler."""
    return bool(
        inside_functorch()
        or forward_ad._current_level >= 0
        or torch._C._len_torch_function_stack()
        or torch._C._len_torch_dispatch_stack()
        or torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
    )


def traced() -> Any:
    """The mode that writes that graph; None where there is none."""
    return _mode_of(_PROXY)


_mode_of, _PROXY = torch._C._get_dispatch_mode, torch._C._TorchDispatchModeKey.PROXY  # asked for each layer


def _det(x: Any, /) -> Any:
    if not inside_functorch():
        return torch.linalg.det(x)
    sign, sizes = _factors(x)
    return sign * torch.prod(sizes, -1)


def _slogdet(x: Any, /) -> Any:
    if not inside_functorch():
        return torch.linalg.slogdet(x)
    sign, sizes = _factors(x)
    return torch.return_types.linalg_slogdet((sign, torch.sum(torch.log(sizes), -1)))


def _factors(x: Any) -> tuple[Any, Any]:
    """(sign of det x, numbers whose product is its size): the diagonal of R in x = Q R."""
    sizes = torch.abs(torch.diagonal(torch.linalg.qr(x)[1], dim1=-2, dim2=-1))
    return torch.linalg.slogdet(x.detach())[0], sizes


def _eigh(x: Any, /) -> Any:
    """Reverse through torch's forward rule gives NaN: there, its values, refined by steps that are differentiated.

    Each step doubles the order that is right, so three are enough for the seventh derivative.

    source  Ogita & Aishima (2018), Iterative refinement for symmetric eigenvalue decomposition
    """
    if not inside_functorch():
        return torch.linalg.eigh(x)
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    constant, symmetric = x.detach(), (x + x.mT) / 2
    _, vectors = torch.linalg.eigh(constant)
    # As torch has it: the values of the lower half, and the derivative of the symmetric part.
    x = torch.tril(constant) + torch.tril(constant, -1).mT + (symmetric - symmetric.detach())
    for _ in range(3):
        rest, turned = eye - vectors.mT @ vectors, vectors.mT @ x @ vectors
        values = torch.diagonal(turned, dim1=-2, dim2=-1) / (1 - torch.diagonal(rest, dim1=-2, dim2=-1))
        gaps = values[..., None, :] - values[..., :, None] + eye
        turn = (1 - eye) * (turned + values[..., None, :] * rest) / gaps + 0.5 * eye * rest
        vectors = vectors + vectors @ turn
    return torch.return_types.linalg_eigh((values, vectors))


def _solve(a: Any, b: Any, /) -> Any:
    if not inside_functorch():
        return standard.linalg.solve(a, b)
    return torch.linalg.inv(a) @ b


def _cbrt(x: Any, /) -> Any:
    """The real third root; infinite slope at 0."""
    size = torch.where(x < 0, -x, x)
    root = size ** (1 / 3)
    return torch.where(x < 0, -root, root)


def _sign(x: Any, /) -> Any:
    # The standard's keeps NaN, for which array-api-compat writes by a mask: vmap refuses that.
    return torch.where(torch.isnan(x), x, torch.sign(x)) if x.is_floating_point() else standard.sign(x)


def _of_numbers(f: Any, standards: Any) -> Any:
    """A function of two tensors of which one may be a number; anything but floats as in the standard's."""

    def function(a: Any, b: Any, /) -> Any:
        like = a if isinstance(a, torch.Tensor) else b
        if not like.is_floating_point():
            return standards(a, b)
        a, b = (z if isinstance(z, torch.Tensor) else torch.full_like(like, z) for z in (a, b))
        return f(a, b)

    return function


def _floor_divide(a: Any, b: Any) -> Any:
    return torch.div(a, b, rounding_mode="floor")


def _eye(n_rows: int, n_cols: int | None = None, /, *, k: int = 0, **options: Any) -> Any:
    if k:
        return standard.eye(n_rows, n_cols, k=k, **options)
    return torch.eye(n_rows, n_rows if n_cols is None else n_cols, **options)


def _full(shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
    if not isinstance(fill_value, torch.Tensor):
        return standard.full(shape, fill_value, dtype=dtype, device=device)
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    return torch.broadcast_to(fill_value.to(dtype=dtype, device=device), shape).clone()


def _full_like(x: Any, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
    if not isinstance(fill_value, torch.Tensor):
        return standard.full_like(x, fill_value, dtype=dtype, device=device)
    return _full(tuple(x.shape), fill_value, dtype=x.dtype if dtype is None else dtype, device=device)


def _linspace(start: Any, stop: Any, /, num: int, **options: Any) -> Any:
    tensors = isinstance(start, torch.Tensor) or isinstance(stop, torch.Tensor)
    return (compositions.linspace if tensors else standard.linspace)(start, stop, num, **options)


def _promoted(name: str) -> Any:
    """A function of two tensors, whose dtypes are promoted as in the standard if they differ: looking costs 6 us."""
    f, standards = getattr(torch, name), getattr(standard, name)

    def function(a: Any, b: Any, /, **options: Any) -> Any:
        direct = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.dtype is b.dtype
        return (f if direct else standards)(a, b, **options)

    return function


def _sum(x: Any, /, *, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
    """That of all entries is torch's own, and the last step of most losses."""
    if axis is None and not keepdims:
        return torch.sum(x, **options)
    return standard.sum(x, axis=axis, keepdims=keepdims, **options)


_OF_TWO = "add atan2 divide hypot logaddexp matmul maximum minimum multiply pow subtract"


_NAME = "polyad.backends.torch_namespace"
_MATRICES = {"det": _det, "eigh": _eigh, "slogdet": _slogdet, "solve": _solve}
_linalg = Overlay(f"{_NAME}.linalg", _MATRICES, standard.linalg)
_FUNCTIONS = {
    **{name: _promoted(name) for name in _OF_TWO.split()},
    "cbrt": _cbrt,
    "eye": _eye,
    "floor_divide": _of_numbers(_floor_divide, standard.floor_divide),
    "full": _full,
    "full_like": _full_like,
    "linspace": _linspace,
    "remainder": _of_numbers(torch.remainder, standard.remainder),
    "sign": _sign,
    "sum": _sum,
}
namespace = Overlay(_NAME, {**_FUNCTIONS, "linalg": _linalg}, standard)
