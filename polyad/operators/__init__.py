"""Derivatives, one noun a file. A call goes: Call -> plan -> pass -> adapter."""

from polyad.operators.batched_jacobian import batched_jacobian, value_and_batched_jacobian
from polyad.operators.check_gradients import check_gradients
from polyad.operators.derivative import derivative, value_and_derivative
from polyad.operators.divergence import divergence, value_and_divergence
from polyad.operators.explain import explain
from polyad.operators.gradient import gradient, value_and_gradient
from polyad.operators.hessian import hessian, value_and_hessian
from polyad.operators.hvp import hvp, value_and_hvp
from polyad.operators.jacobian import jacobian, value_and_jacobian
from polyad.operators.laplacian import laplacian, value_and_laplacian
from polyad.operators.products import jvp, vjp
from polyad.operators.ravel import ravel
from polyad.operators.tune import tune
from polyad.operators.vmap import vmap

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
    "tune",
    "value_and_batched_jacobian",
    "value_and_derivative",
    "value_and_divergence",
    "value_and_gradient",
    "value_and_hessian",
    "value_and_hvp",
    "value_and_jacobian",
    "value_and_laplacian",
    "vjp",
    "vmap",
]
