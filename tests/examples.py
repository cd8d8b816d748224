"""Functions and inputs that several test modules differentiate."""

from typing import Any

import numpy as np

import polyad
from polyad import BatchNorm, Chain, Dense, StatefulLayer, trees, xp

COUPLED = Chain(Dense(2, 4, "tanh"), BatchNorm(4), Dense(4, 2))
FIELD = Chain(Dense(1, 12, "tanh"), Dense(12, 12, "tanh"), Dense(12, 1))
GENERATOR = np.random.Generator(np.random.Philox(7))
X, Y = GENERATOR.normal(size=(10, 2)), GENERATOR.normal(size=(10, 2))
T = GENERATOR.normal(size=(16, 1))


def jacobian_loss(params: Any, x: Any, y: Any, state: Any) -> Any:
    """Documented example 1."""
    net = StatefulLayer(COUPLED, params, state)
    J = polyad.jacobian(net, x)
    return xp.sum((net(x) - y) ** 2) + xp.sum(J**2)


def gradient_loss(params: Any, t: Any, state: Any) -> Any:
    """Documented example 2, one layer less."""
    net = StatefulLayer(FIELD, params, state)
    slope = polyad.gradient(lambda t: xp.sum(net(t) ** 2), t)
    return xp.sum((slope - xp.cos(t)) ** 2)


def arrays(backend: str, *values: Any, dtype: str = "float64") -> Any:
    """The values as arrays of a backend."""
    made = tuple(polyad.convert(np.asarray(v), backend, dtype=dtype) for v in values)
    return made[0] if len(made) == 1 else made


def compiled(backend: str, f: Any) -> Any:
    """f under jit on JAX, which is slow operation by operation; elsewhere f."""
    if backend != "jax":
        return f
    import jax

    return jax.jit(f)


def host(tree: Any) -> list[np.ndarray]:
    """Leaves of a tree as ndarrays."""
    return [np.asarray(leaf.detach() if hasattr(leaf, "detach") else leaf) for leaf in trees.leaves(tree)]


def difference(actual: Any, expected: Any) -> float:
    """Largest difference of two trees, relative to the largest entry of each leaf of the second."""
    pairs = zip(host(actual), host(expected), strict=True)
    worst = 0.0
    for a, e in pairs:
        assert a.shape == e.shape, (a.shape, e.shape)
        assert np.max(np.abs(e), initial=0.0) > 1e-6 or e.size == 0, "a tiny expected gradient tests nothing"
        worst = max(worst, float(np.max(np.abs(a - e), initial=0.0) / np.max(np.abs(e), initial=1e-300)))
    return worst
