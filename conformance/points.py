"""First order: functions of single points, mapped over many by vmap, with derivatives inside of it and around it.

The field is u = tanh(x W) v of a point x (n,), with h = tanh(x W) and d = 1 - h^2. In a point
du/dv = h, du/dW = x (v d)^T and du/dx = W (v d).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

import polyad
from polyad import xp

from .case import Case, numbers
from .reference import complex_step

__all__ = ["CASES"]

GROUP = "first order"
P = {"W": 0.6 * numbers("points/W", 2, 3), "v": numbers("points/v", 3)}
X = numbers("points/x", 5, 2)
C = numbers("points/c", 5)

_cases: list[Case] = []
CASES = _cases


def field(p: Any, x: Any) -> Any:
    """(n,) to one number."""
    return xp.sum(xp.tanh(x @ p["W"]) * p["v"])


def features(p: Any, x: Any) -> Any:
    """(n,) to (3,)."""
    return xp.tanh(x @ p["W"]) * p["v"]


# In NumPy, of all points at once, analytic.


def parts(p: Any, x: Any) -> tuple[Any, Any]:
    """(h, v d), each (B, 3)."""
    h = np.tanh(x @ p["W"])
    return h, p["v"] * (1 - h * h)


def slopes(p: Any, x: Any) -> Any:
    """Gradients of the field in parameters."""
    h, back = parts(p, x)
    return {"W": x[:, :, None] * back[:, None, :], "v": h}


def case(name: str, ask: Callable[..., Any], expected: Callable[..., Any], *inputs: Any, loss: Any = None) -> None:
    _cases.append(Case(GROUP, f"vmap: {name}", ask, inputs or (P, X), expected, loss))


def both(p: Any, x: Any) -> Any:
    """The values of the field, and its slopes."""
    return np.sum(parts(p, x)[0] * p["v"], axis=1), slopes(p, x)


case("values and gradients in parameters", polyad.vmap(polyad.value_and_gradient(field), (None, 0)), both)
case("the same, two points at a time", polyad.vmap(polyad.value_and_gradient(field), (None, 0), chunk_size=2), both)
case(
    "Jacobians in the point",
    polyad.vmap(polyad.jacobian(features, argnums=1), (None, 0)),
    lambda p, x: np.einsum("bh,nh->bhn", parts(p, x)[1], p["W"]),
)
case(
    "second derivatives, along the point itself",
    polyad.vmap(lambda p, x: polyad.hvp(lambda x: field(p, x), (x,), (x,)), (None, 0)),
    lambda p, x: (-2 * parts(p, x)[0] * parts(p, x)[1] * (x @ p["W"])) @ p["W"].T,
)
case(
    "points along other axes, in and out",
    polyad.vmap(lambda p, x, c: c * polyad.gradient(field, p, x)["v"], ({"W": None, "v": None}, 1, 0), 1),
    lambda p, x, c: (c[:, None] * parts(p, x.T)[0]).T,
    *(P, np.ascontiguousarray(X.T), C),
)
case(
    "what all points share",
    polyad.vmap(
        lambda p, x: {"own": field(p, x), "same": polyad.gradient(lambda v: xp.sum(v**3), p["v"])},
        in_axes=(None, 0),
        out_axes={"own": 0, "same": None},
    ),
    lambda p, x: {"own": np.sum(parts(p, x)[0] * p["v"], axis=1), "same": 3 * p["v"] ** 2},
)
case(
    "in itself",
    polyad.vmap(polyad.vmap(lambda v, c: polyad.gradient(lambda v: v**3 * c, v), (None, 0)), (0, None)),
    lambda v, c: np.outer(3 * v**2, c),
    *(P["v"], C),
)
case(
    "no points, beside some",
    lambda p, x: [polyad.vmap(polyad.gradient(field), (None, 0))(p, x[:n]) for n in (0, 2)],
    lambda p, x: [slopes(p, x[:n]) for n in (0, 2)],
)


def energy(p: Any, x: Any) -> Any:
    """Of gradients of points in the parameters."""
    found = polyad.vmap(polyad.gradient(field), (None, 0))(p, x)
    return xp.sum(found["W"] ** 2) + xp.sum(found["v"] ** 4)


def energy_in_numpy(p: Any, x: Any) -> Any:
    h, back = parts(p, x)
    return np.sum(np.sum(x * x, axis=1) * np.sum(back * back, axis=1)) + np.sum(h**4)


case(
    "a loss of gradients of points, differentiated",
    polyad.value_and_gradient(energy, argnums=(0, 1)),
    lambda p, x: complex_step(energy_in_numpy, p, x),
    loss=energy,
)
