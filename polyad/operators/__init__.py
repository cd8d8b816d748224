"""Derivatives, one noun a file. A call goes: Call -> plan -> pass -> adapter."""

from polyad.operators.batched_jacobian import batched_jacobian
from polyad.operators.check_gradients import check_gradients
from polyad.operators.derivative import derivative
from polyad.operators.divergence import divergence
from polyad.operators.explain import explain
from polyad.operators.gradient import gradient, value_and_gradient
from polyad.operators.hessian import hessian
from polyad.operators.hvp import hvp
from polyad.operators.jacobian import jacobian, value_and_jacobian
from polyad.operators.laplacian import laplacian
from polyad.operators.products import jvp, vjp
from polyad.operators.ravel import ravel

__all__ = [
    "batched_jacobian",
    "check_gradients",
    "derivative",
    "divergence",
    "explain",
    "gradient",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "laplacian",
    "ravel",
    "value_and_gradient",
    "value_and_jacobian",
    "vjp",
]
