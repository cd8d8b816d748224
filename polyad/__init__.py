"""polyad: derivatives inside losses, right and fast, on every array framework."""

from polyad import backends, errors
from polyad.arrays import array_namespace, convert, stop_gradient, xp
from polyad.backends import register_backend, set_backend, use_backend
from polyad.layers import BatchNorm, Chain, Dense, Layer, setup, test_mode, train_mode
from polyad.models import adopt, release
from polyad.nested import nested_switching
from polyad.operators import (
    batched_jacobian,
    check_gradients,
    derivative,
    divergence,
    explain,
    gradient,
    hessian,
    hvp,
    jacobian,
    jvp,
    laplacian,
    ravel,
    value_and_batched_jacobian,
    value_and_derivative,
    value_and_divergence,
    value_and_gradient,
    value_and_hessian,
    value_and_hvp,
    value_and_jacobian,
    value_and_laplacian,
    vjp,
)
from polyad.stateful import StatefulLayer, compose
from polyad.version import __version__

__all__ = [
    "BatchNorm",
    "Chain",
    "Dense",
    "Layer",
    "StatefulLayer",
    "__version__",
    "adopt",
    "array_namespace",
    "backends",
    "batched_jacobian",
    "check_gradients",
    "compose",
    "convert",
    "derivative",
    "divergence",
    "errors",
    "explain",
    "gradient",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "laplacian",
    "nested_switching",
    "ravel",
    "register_backend",
    "release",
    "set_backend",
    "setup",
    "stop_gradient",
    "test_mode",
    "train_mode",
    "use_backend",
    "value_and_batched_jacobian",
    "value_and_derivative",
    "value_and_divergence",
    "value_and_gradient",
    "value_and_hessian",
    "value_and_hvp",
    "value_and_jacobian",
    "value_and_laplacian",
    "vjp",
    "xp",
]
