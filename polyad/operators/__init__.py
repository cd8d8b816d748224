"""Derivatives, one noun a file. A call goes: Call -> plan -> pass -> adapter."""

from polyad.operators.batched_jacobian import batched_jacobian
from polyad.operators.check_gradients import check_gradients
from polyad.operators.explain import explain
from polyad.operators.gradient import gradient, value_and_gradient
from polyad.operators.jacobian import jacobian, value_and_jacobian
from polyad.operators.products import jvp, vjp

__all__ = [
    "batched_jacobian",
    "check_gradients",
    "explain",
    "gradient",
    "jacobian",
    "jvp",
    "value_and_gradient",
    "value_and_jacobian",
    "vjp",
]
