"""Functions with points inside their domain, and the frameworks that jets are run over."""

import importlib.util

import numpy as np
import pytest

from polyad import convert, xp
from polyad.jets import pushforwards
from polyad.jets.elementwise import PARTIALS

RANDOM = np.random.Generator(np.random.Philox(7))
A, B = np.array([0.3, 0.6, 0.8]), np.array([0.7, 0.4, 0.9])
W, V, STACK = RANDOM.normal(size=(4, 4)), RANDOM.normal(size=(5, 4)), RANDOM.normal(size=(2, 4, 4))
S = W @ W.T + np.eye(4)


def points(name):
    """Arguments inside the domain of a function of numbers."""
    domain = {"acosh": (A + 1,), "remainder": (A + 2, B), "fmod": (A + 2, B)}
    return domain.get(name, (A, B)[: len(PARTIALS[name])])


MATRICES = {
    "inv": (xp.linalg.inv, (S,)),
    "solve": (xp.linalg.solve, (S, W)),
    "solve a vector": (lambda a, b: xp.linalg.solve(a, b), (S, W[0])),
    "solve a batch": (lambda a, b: xp.linalg.solve(a, b), (STACK, W)),
    "det": (xp.linalg.det, (S,)),
    "slogdet": (lambda x: xp.linalg.slogdet(x)[1], (S,)),
    "cholesky": (xp.linalg.cholesky, (S,)),
    "eigenvectors": (lambda x: xp.linalg.eigh(x)[1] ** 2, (S,)),
    "eigvalsh": (xp.linalg.eigvalsh, (S,)),
    "svd": (lambda x: xp.linalg.svd(x, full_matrices=False)[0] ** 2, (V,)),
    "svdvals": (xp.linalg.svdvals, (V,)),
    "qr": (lambda x: xp.linalg.qr(x)[1] ** 2, (V,)),
    "pinv": (xp.linalg.pinv, (V,)),
    "matrix_power": (lambda x: xp.linalg.matrix_power(x, 3), (W,)),
    "matrix_norm": (xp.linalg.matrix_norm, (V,)),
}
PRODUCTS = {
    "matmul": (lambda a, b: a @ b, (W, S)),
    "matrix and vector": (lambda a, b: a @ b, (W, S[0])),
    "vector and matrix": (lambda a, b: a @ b, (W[0], S)),
    "two vectors": (lambda a, b: a @ b, (W[0], S[0])),
    "batch and matrix": (lambda a, b: a @ b, (STACK, S)),
    "matrix and batch": (lambda a, b: a @ b, (W, STACK)),
    "batch and vector": (lambda a, b: a @ b, (STACK, W[0])),
    "tensordot": (lambda a, b: xp.tensordot(a, b, axes=((2,), (0,))), (STACK, W)),
    "einsum": (lambda a, b, c: xp.einsum("bij,jk,k->bi", a, b, c), (STACK, W, S[0])),
    "vecdot": (lambda a, b: xp.linalg.vecdot(a, b), (V, V + 1)),
    "cross": (lambda a, b: xp.linalg.cross(a, b), (V[:, :3], V[:, 1:])),
    "broadcast": (lambda a, b: a * b + b, (V, W[0])),
}
SHAPES = {
    "sum": (lambda x: xp.sum(x**3, axis=0), (W,)),
    "mean": (lambda x: xp.mean(x * x), (W,)),
    "max": (lambda x: xp.max(x * x, axis=1), (W,)),
    "prod": (lambda x: xp.prod(x, axis=0), (W,)),
    "std": (lambda x: xp.std(x, axis=0), (W,)),
    "cumulative_sum": (lambda x: xp.cumulative_sum(x * x, axis=1), (W,)),
    "softmax": (lambda x: xp.softmax(x, axis=1), (W,)),
    "log_softmax": (lambda x: xp.log_softmax(x, axis=0), (W,)),
    "logsumexp": (lambda x: xp.logsumexp(x, axis=0), (W,)),
    "concat": (lambda a, b: xp.concat([a * a, b, xp.ones_like(a)], axis=1) * 2, (W, S)),
    "stack": (lambda a, b: xp.stack([a * b, b], axis=1), (W, S)),
    "slices": (lambda a: (a * a)[1:, ::2], (W,)),
    "matrix_transpose": (lambda a: xp.matrix_transpose(a) @ a, (V,)),
    "reshape": (lambda a: xp.reshape(a * a, (-1,)), (V,)),
    "flip": (lambda a: xp.flip(a * a, axis=0), (V,)),
    "where": (lambda a: xp.where(a > 0, a**2, xp.sin(a)), (V,)),
    "clip": (lambda a: xp.clip(a, -0.5, 0.5) * a, (V,)),
    "vector_norm": (lambda a: xp.linalg.vector_norm(a, axis=1), (V,)),
    "tril": (lambda a: xp.tril(a @ a), (W,)),
    "natural powers": (lambda a: a**3 + a**0 + a**1, (V,)),
    "real powers": (lambda a: (a * a + 1) ** 2.5, (V,)),
    "negative powers": (lambda a: (a * a + 1) ** -2, (V,)),
    "a power as exponent": (lambda a: 2.0**a, (V,)),
    "a number over": (lambda a: 2.0 / (a * a + 1), (V,)),
    "expand_dims": (lambda a: xp.expand_dims(a * a, axis=1), (V,)),
    "moveaxis": (lambda a: xp.moveaxis(a * a, 0, 1), (V,)),
}
NUMPY_STYLE = {
    "index arrays": (lambda a: (a * a)[[0, 2, 2], [1, 1, 3]], (W,)),
    "sort": (lambda a: xp.sort(a**3, axis=0), (V,)),
    "take": (lambda a: xp.take(a * a, np.array([0, 1]), axis=1), (V,)),
    "roll": (lambda a: xp.roll(a * a, 1, axis=0), (V,)),
    "an ndarray beside": (lambda a: np.ones((5, 4)) * a * a, (V,)),
    "diff": (lambda a: xp.diff(a * a, axis=0), (V,)),
}
ELEMENTWISE = {name: (getattr(xp, name), points(name)) for name in sorted(PARTIALS)}
CASES = {**ELEMENTWISE, **MATRICES, **PRODUCTS, **SHAPES, **NUMPY_STYLE}

# What a framework does not have for its own arrays either; strict arrays do not leave x @ jet to the jet.
MISSING = {
    "strict": {"cbrt", "erf", "exp2", "fmax", "fmin", "fmod", "gelu", "logaddexp2", "sinc", "einsum"}
    | {"pinv", "svd", *NUMPY_STYLE} - {"diff"},
}
# JAX compiles each operation at its first use, so some functions of each kind are enough there.
ON_JAX = (
    "tanh",
    "divide",
    "pow",
    "maximum",
    "gelu",
    "sinc",
    "solve",
    "eigenvectors",
    "matmul",
    "einsum",
    "softmax",
    "max",
)
PAIRS = [(name, framework) for framework in ("numpy", "torch", "strict") for name in CASES] + [
    (name, "jax") for name in ON_JAX
]


def made(framework):
    """What makes arrays of a framework of ndarrays; skipped where it is not installed."""
    if framework == "strict":
        strict = pytest.importorskip("array_api_strict")
        return strict.asarray
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    return lambda x: convert(np.asarray(x), framework)


def directions(xs, k=3):
    random = np.random.Generator(np.random.Philox(11))
    return [random.normal(size=(k, *x.shape)) for x in xs]


def second_derivative(f, xs, dxs):
    """f'' along one direction, by pushing a pushforward: the witness."""

    def first(*zs):
        return (pushforwards(lambda *z: (f(*z),), zs, [dx[None] for dx in dxs])[1][0][0],)

    return pushforwards(first, xs, [dx[None] for dx in dxs])[1][0][0]


def close(actual, expected, tolerance=1e-9):
    """To a share of the largest entry."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.max(np.abs(actual - expected)) <= tolerance * (np.max(np.abs(expected)) + 1e-3)
