"""An independent witness: the documented losses in plain NumPy, derived by hand.

The inner derivative is a formula here, never an operator: tanh' = 1 - tanh^2,
the chain rule, and the Jacobian of BatchNorm. The gradient of the whole loss is
taken by complex steps, which have no difference and so lose no digit. Every
formula is therefore analytic: z * z and not |z|^2, no conjugate, no norm.

source  Squire & Trapp (1998) for complex steps; Ioffe & Szegedy (2015) for
        BatchNorm, whose Jacobian is the usual hand derivation from their eq. 1
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray
Parameters = Mapping[str, Mapping[str, Array]]
Loss = Callable[..., Any]

__all__ = [
    "EPS",
    "batched_jacobian_loss",
    "complex_step",
    "gradient_loss",
    "jacobian_loss",
    "net_with_batch_norm",
    "net_with_batch_norm_jacobian",
    "slope_of_squares",
    "sum_of_squares",
    "tanh_net",
    "two_layer_jacobian",
]

EPS = 1e-5
"""Added to the variance in BatchNorm."""

STEP = 1e-30
"""Imaginary step: its square is lost beside any number, so the error is one rounding."""


def complex_step(loss: Loss, *args: Any) -> tuple[float, tuple[Any, ...]]:
    """(value, gradients) of an analytic real function of arrays and nested dicts of arrays.

    args     float64 arrays, or dicts of them, of any depth
    returns  the value, and for each argument a copy of its structure with
             d loss / d entry = Im loss(entry + i STEP) / STEP
    """
    moved = [_complex(arg) for arg in args]
    gradients = tuple(_gradient(lambda: loss(*moved), arg) for arg in moved)
    return float(loss(*args)), gradients


def _complex(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _complex(part) for key, part in tree.items()}
    return np.array(tree, dtype=np.complex128)


def _gradient(value: Callable[[], Any], tree: Any) -> Any:
    """d value() / d tree, entry by entry; each entry is put back as it was."""
    if isinstance(tree, Mapping):
        return {key: _gradient(value, part) for key, part in tree.items()}
    gradient = np.empty(tree.shape)
    for index in np.ndindex(tree.shape):
        entry = tree[index]
        tree[index] = entry + 1j * STEP
        gradient[index] = value().imag / STEP
        tree[index] = entry
    return gradient


# Networks.


def affine(x: Array, layer: Mapping[str, Array]) -> Array:
    """x W + b, x of (B, n), W of (n, m), b of (m,)."""
    return x @ layer["weight"] + layer["bias"]


def tanh_net(x: Array, p: Parameters) -> tuple[Array, list[Array]]:
    """(y, hidden): tanh after every layer but the last; hidden are the values of tanh."""
    *inner, last = p.values()
    hidden = []
    for layer in inner:
        x = np.tanh(affine(x, layer))
        hidden.append(x)
    return affine(x, last), hidden


def batch_statistics(h: Array) -> tuple[Array, Array]:
    """(normalised, s): (h - mean) / s and s = sqrt(variance + EPS), biased, over the rows."""
    centred = h - h.mean(axis=0)
    s = np.sqrt((centred * centred).mean(axis=0) + EPS)
    return centred / s, s


def net_with_batch_norm(x: Array, p: Parameters) -> Array:
    """Dense, tanh, BatchNorm in training mode, Dense."""
    normalised, _ = batch_statistics(np.tanh(affine(x, p["layer_0"])))
    return affine(normalised * p["layer_1"]["scale"] + p["layer_1"]["bias"], p["layer_2"])


# Inner derivatives.


def batch_norm_jacobian(h: Array, scale: Array) -> Array:
    """d BatchNorm(h)[i, c] / d h[j, c], of shape (B, B, C).

    With n the normalised rows and s the standard deviation,
    scale_c / s_c (delta_ij - 1/B - n_ic n_jc / B): the second term is the mean
    that moves, the third the variance that does. Features stay apart.
    """
    normalised, s = batch_statistics(h)
    B = len(h)
    moved = np.eye(B)[:, :, None] - 1 / B - normalised[:, None, :] * normalised[None, :, :] / B
    return moved * (scale / s)


def net_with_batch_norm_jacobian(x: Array, p: Parameters) -> Array:
    """J[i, a, j, b] = d y[i, a] / d x[j, b], of shape (B, out, B, in): the rows are coupled."""
    h = np.tanh(affine(x, p["layer_0"]))
    return np.einsum(
        "ca,ijc,jc,bc->iajb",
        p["layer_2"]["weight"],
        batch_norm_jacobian(h, p["layer_1"]["scale"]),
        1 - h * h,
        p["layer_0"]["weight"],
    )


def two_layer_jacobian(x: Array, p: Parameters) -> Array:
    """J[i, a, b] = d y[i, a] / d x[i, b] of Dense, tanh, Dense, of shape (B, out, in)."""
    _, (h,) = tanh_net(x, p)
    return np.einsum("ca,ic,bc->iab", p["layer_1"]["weight"], 1 - h * h, p["layer_0"]["weight"])


def slope_of_squares(t: Array, p: Parameters) -> Array:
    """d sum(net(t)^2) / dt, of the shape of t: the chain rule from the last layer to the first."""
    y, hidden = tanh_net(t, p)
    layers = list(p.values())
    slope = 2 * y @ layers[-1]["weight"].T
    for h, layer in zip(reversed(hidden), reversed(layers[:-1]), strict=True):
        slope = (slope * (1 - h * h)) @ layer["weight"].T
    return slope


# Losses, as the documented examples state them.


def sum_of_squares(a: Array) -> Any:
    """sum(a^2), analytic in complex entries."""
    return (a * a).sum()


def jacobian_loss(p: Parameters, x: Array, y: Array) -> Any:
    """Example 1: sum((net(x) - y)^2) + |J|_F^2."""
    return sum_of_squares(net_with_batch_norm(x, p) - y) + sum_of_squares(net_with_batch_norm_jacobian(x, p))


def gradient_loss(p: Parameters, t: Array) -> Any:
    """Example 2: sum((d sum(net(t)^2)/dt - cos t)^2)."""
    return sum_of_squares(slope_of_squares(t, p) - np.cos(t))


def batched_jacobian_loss(p: Parameters, x: Array, y: Array) -> Any:
    """Example 3: sum((net(x) - y)^2) + |0.01 J|_F^2."""
    return sum_of_squares(tanh_net(x, p)[0] - y) + sum_of_squares(0.01 * two_layer_jacobian(x, p))
