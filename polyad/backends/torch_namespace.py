"""array_api_compat.torch, with right second derivatives where torch's own are wrong.

torch differentiates linalg.det, slogdet and solve wrongly when the inner pass is
forward mode (torch 2.13: det'' of a 2 x 2 matrix gives 8.9 and not -4). Inside of
torch.func they are therefore written in qr and inv, whose rules are right.
"""

from typing import Any

import torch
from array_api_compat import torch as standard

__all__ = ["inside_functorch", "namespace"]


def inside_functorch() -> bool:
    """Whether a transformation of torch.func is running."""
    return torch._C._functorch.maybe_current_level() is not None


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


def _solve(a: Any, b: Any, /) -> Any:
    if not inside_functorch():
        return standard.linalg.solve(a, b)
    return torch.linalg.inv(a) @ b


class TorchNamespace:
    """The given functions, and a module for everything else."""

    def __init__(self, name: str, functions: dict[str, Any], fallback: Any) -> None:
        self.__name__ = name
        self.__dict__.update(functions)
        self._fallback = fallback

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._fallback, name)
        self.__dict__[name] = value
        return value


_NAME = "polyad.backends.torch_namespace"
_MATRICES = {"det": _det, "slogdet": _slogdet, "solve": _solve}
_linalg = TorchNamespace(f"{_NAME}.linalg", _MATRICES, standard.linalg)
namespace = TorchNamespace(_NAME, {"linalg": _linalg}, standard)
