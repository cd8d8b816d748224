"""An independent witness for the documented examples 4 to 6, in plain NumPy, derived by hand.

What moves through a net of tanh layers: with z = x W + b and h = tanh(z),
dh = (1 - h^2) dz, and lap h = (1 - h^2) lap z - 2 h (1 - h^2) sum_k (d_k z)^2.
Analytic throughout, as reference.py says.

source  the product rule; for the forward Laplacian Li et al. (2023)
"""

from typing import Any

import numpy as np

from .reference import Array, Parameters, sum_of_squares, tanh_net

__all__ = ["first_order_loss", "parameter_jacobian_loss", "second_order_loss", "trace"]


def parameter_jacobian_loss(p: Parameters, t: Array) -> Any:
    """Example 4: sum of squares of d net(t) / d parameters, one output: |d/dW|^2 = |h|^2 |d/dz|^2 in each layer."""
    _, hidden = tanh_net(t, p)
    layers = list(p.values())
    inputs = [t, *hidden]
    slope = np.ones((len(t), 1))  # d y / d z of the last layer
    total: Any = 0.0
    for i in range(len(layers) - 1, -1, -1):
        squared = (slope * slope).sum(axis=1)
        total = total + (squared * ((inputs[i] * inputs[i]).sum(axis=1) + 1)).sum()
        if i:
            slope = (slope @ layers[i]["weight"].T) * (1 - inputs[i] * inputs[i])
    return total


def trace(p: Parameters, x: Array, v: Array) -> Any:
    """Example 5: v^T J v, with the direction v moved through the net by hand."""
    *inner, last = p.values()
    moved = v
    for layer in inner:
        x = np.tanh(x @ layer["weight"] + layer["bias"])
        moved = (1 - x * x) * (moved @ layer["weight"])
    return (v * (moved @ last["weight"])).sum()


def jet(p: Parameters, points: Array) -> tuple[Array, Array, Array]:
    """(u, du, u_xx + u_yy) of a net of three inputs and one output: shapes (B,), (B, 3), (B,)."""
    *inner, last = p.values()
    h, d = points, np.broadcast_to(np.eye(3)[:, None, :], (3, *points.shape))
    bend = np.zeros_like(points)
    for layer in inner:
        W = layer["weight"]
        h = np.tanh(h @ W + layer["bias"])
        dz, bend = d @ W, bend @ W
        rate = 1 - h * h
        bend = rate * bend - 2 * h * rate * (dz[0] * dz[0] + dz[1] * dz[1])
        d = rate * dz
    W = last["weight"]
    return (h @ W + last["bias"])[:, 0], np.moveaxis((d @ W)[:, :, 0], 0, 1), (bend @ W)[:, 0]


def exact(points: Array) -> Array:
    """exp(x + y) cos(x + y + 4 t)."""
    s = points[:, 0] + points[:, 1]
    return np.exp(s) * np.cos(s + 4 * points[:, 2])


def second_order_loss(nets: Any, points: Array) -> Any:
    """Example 6 with one net."""
    u, du, bend = jet(nets["u"], points)
    return sum_of_squares(du[:, 2] - bend) + sum_of_squares(u - exact(points))


def first_order_loss(nets: Any, points: Array) -> Any:
    """Example 6 with three."""
    u, du, _ = jet(nets["u"], points)
    v, dv, _ = jet(nets["v"], points)
    w, dw, _ = jet(nets["w"], points)
    return (
        sum_of_squares(du[:, 2] - dv[:, 0] - dw[:, 1])
        + sum_of_squares(du[:, 0] - v)
        + sum_of_squares(du[:, 1] - w)
        + sum_of_squares(u - exact(points))
    )
