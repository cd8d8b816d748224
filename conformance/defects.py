"""Wrong derivatives of the frameworks themselves, with the fewest lines that show each.

A test runs them: one that no longer reproduces is a reason to look at what
polyad does about it. None of this is about adapters.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["DEFECTS", "Defect"]


@dataclass(frozen=True)
class Defect:
    """What a framework gets wrong.

    seen       the version in which it was seen
    reproduce  gives (what the framework says, what is right)
    instead    what polyad does about it
    """

    framework: str
    seen: str
    what: str
    reproduce: Callable[[], tuple[np.ndarray, np.ndarray]]
    instead: str
    link: str = ""


_found: list[Defect] = []


def defect(framework: str, seen: str, what: str, instead: str, link: str = "") -> Callable[..., Callable[..., object]]:
    """The function below as the reproduction."""

    def register(reproduce: Callable[[], tuple[np.ndarray, np.ndarray]]) -> Callable[..., object]:
        _found.append(Defect(framework, seen, what, reproduce, instead, link))
        return reproduce

    return register


def _third(norm: Callable[..., object], written: Callable[..., object]) -> tuple[np.ndarray, np.ndarray]:
    """Third derivatives of sum(sin(norm(x)^2) x), of the fused norm and of the one that is written out."""
    import torch

    def derivative(f: Callable[..., object]) -> np.ndarray:
        x = (torch.arange(12, dtype=torch.float64).reshape(4, 3) ** 1.5 / 10).requires_grad_()
        y = torch.sum(torch.sin(f(x) ** 2) * x)  # type: ignore[operator]
        for _ in range(3):
            (g,) = torch.autograd.grad(y, x, create_graph=True)
            y = torch.sum(g**2)
        return g.detach().numpy()

    return derivative(norm), derivative(written)


@defect("torch", "2.13", "the third derivative of the fused layer_norm", "BatchNorm is written in single operations")
def layer_norm() -> tuple[np.ndarray, np.ndarray]:
    """By tape three times."""
    import torch

    def written(x: "torch.Tensor") -> "torch.Tensor":
        centred = x - x.mean(-1, keepdim=True)
        return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5)

    return _third(lambda x: torch.nn.functional.layer_norm(x, (3,)), written)


@defect("torch", "2.13", "the third derivative of the fused batch_norm", "BatchNorm is written in single operations")
def batch_norm() -> tuple[np.ndarray, np.ndarray]:
    """By tape three times, in training."""
    import torch

    def written(x: "torch.Tensor") -> "torch.Tensor":
        centred = x - x.mean(0)
        return centred / torch.sqrt((centred**2).mean(0) + 1e-5)

    return _third(lambda x: torch.nn.functional.batch_norm(x, None, None, training=True), written)


@defect("torch", "2.13", "forward mode through the backward pass of scatter_reduce(prod)", "auto takes rows there")
def scatter_reduce() -> tuple[np.ndarray, np.ndarray]:
    """Forward over reverse, against reverse over reverse."""
    import torch

    index = torch.tensor([0, 0, 1, 1])

    def f(x: "torch.Tensor") -> "torch.Tensor":
        y = torch.ones(2, dtype=x.dtype).scatter_reduce(0, index, x, "prod")
        return torch.sum(torch.sin(y))

    x, v = torch.tensor([0.5, 1.5, 2.0, 0.7], dtype=torch.float64), torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
    _, found = torch.func.jvp(torch.func.grad(f), (x,), (v,))
    z = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(f(z), z, create_graph=True)
    (right,) = torch.autograd.grad(slope, z, v)
    return found.numpy(), right.numpy()


@defect("torch", "2.13", "several rows of cdist pulled at once", "rows of cdist are pulled one by one")
def cdist() -> tuple[np.ndarray, np.ndarray]:
    """By vmap, against a loop."""
    import torch

    x = (torch.arange(24, dtype=torch.float64).reshape(4, 6).sin()).requires_grad_()
    y = torch.cdist(x, torch.roll(x, 1, 0))
    rows = torch.eye(16, dtype=torch.float64).reshape(16, 4, 4)

    def pull(row: "torch.Tensor") -> "torch.Tensor":
        return torch.autograd.grad(y, x, row, retain_graph=True)[0]

    found, right = torch.vmap(pull)(rows), torch.stack([pull(row) for row in rows])
    return found.numpy(), right.numpy()


@defect("torch", "2.13", "the gradient of bessel_j0 by torch.func is zero", "none: xp has no bessel_j0")
def bessel() -> tuple[np.ndarray, np.ndarray]:
    """d J0 / dx = -J1."""
    import torch

    x = torch.tensor(1.5, dtype=torch.float64)
    return torch.func.grad(torch.special.bessel_j0)(x).numpy(), (-torch.special.bessel_j1(x)).numpy()


@defect("torch", "2.13", "tangents of float32 numbers are float64", "tangents are cast to the dtype of the value")
def tangent_dtype() -> tuple[np.ndarray, np.ndarray]:
    """sin(s + 1.0) of a number s; the first is the number of bytes of its tangent."""
    import torch

    s = torch.tensor(0.5)
    _, ds = torch.func.jvp(lambda s: torch.sin(s + 1.0), (s,), (torch.ones(()),))
    return np.asarray(ds.element_size()), np.asarray(s.element_size())


DEFECTS: tuple[Defect, ...] = tuple(_found)
