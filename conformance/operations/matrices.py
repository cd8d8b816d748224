"""Products and linear algebra."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .operation import Argument, Domain, Operation, apart, definite, regular, signed

__all__ = ["MATRICES"]

SOME = signed(0.2, 1.2)


def product(name: str, f: Callable[..., Any], *shapes: str, covers: tuple[str, ...] = ()) -> Operation:
    """A multilinear function."""
    return Operation(name, f, tuple(Argument(shape, SOME) for shape in shapes), covers)


def of_matrix(
    name: str, f: Callable[..., Any], *shapes: str, domain: Domain = regular, covers: tuple[str, ...] = ()
) -> Operation:
    """A function of a well-conditioned matrix, and of a right side where there are two shapes."""
    first, *rest = shapes or ("n n",)
    arguments = (Argument(first, domain), *(Argument(shape, SOME) for shape in rest))
    return Operation(f"linalg.{name}", f, arguments, covers)


def _symmetric(xp: Any, x: Any) -> Any:
    return (x + xp.matrix_transpose(x)) / 2


_PRODUCTS = (
    product("matmul(x, y)", lambda xp, a, b: xp.matmul(a, b), "m n", "n k"),
    product("matmul of batches", lambda xp, a, b: xp.matmul(a, b), "b m n", "n k", covers=("matmul",)),
    product("x @ y", lambda xp, a, b: a @ b, "m n", "n k", covers=("__matmul__",)),
    product("vector @ vector", lambda xp, a, b: a @ b, "n", "n", covers=("__matmul__",)),
    product("vector @ matrix", lambda xp, a, b: a @ b, "n", "n m", covers=("__matmul__",)),
    product("matrix @ vector", lambda xp, a, b: a @ b, "m n", "n", covers=("__matmul__",)),
    product("matrix @ batch", lambda xp, a, b: a @ b, "m n", "b n k", covers=("__matmul__",)),
    product("batch @ vector", lambda xp, a, b: a @ b, "b m n", "n", covers=("__matmul__",)),
    product("tensordot(x, y, axes=1)", lambda xp, a, b: xp.tensordot(a, b, axes=1), "m n", "n k"),
    product("tensordot(x, y, axes=((0, 1), (1, 0)))", lambda xp, a, b: xp.tensordot(a, b, axes=((0, 1), (1, 0))),
            "m n", "n m"),
    product("vecdot(x, y)", lambda xp, a, b: xp.vecdot(a, b), "m n", "n"),
    product("vecdot(x, y, axis=-2)", lambda xp, a, b: xp.vecdot(a, b, axis=-2), "m n", "m n"),
    product("einsum('ij,kj->ik', x, y)", lambda xp, a, b: xp.einsum("ij,kj->ik", a, b), "m n", "k n"),
    product("kron(x, y)", lambda xp, a, b: xp.kron(a, b), "m 2", "2 k"),
    product("linalg.matmul(x, y)", lambda xp, a, b: xp.linalg.matmul(a, b), "m n", "n k"),
    product("linalg.tensordot(x, y)", lambda xp, a, b: xp.linalg.tensordot(a, b), "m n", "m n"),
    product("linalg.vecdot(x, y)", lambda xp, a, b: xp.linalg.vecdot(a, b), "m n", "m n"),
    product("linalg.outer(x, y)", lambda xp, a, b: xp.linalg.outer(a, b), "m", "n"),
    product("linalg.cross(x, y)", lambda xp, a, b: xp.linalg.cross(a, b), "m 3", "m 3"),
    product("linalg.cross(x, y, axis=0)", lambda xp, a, b: xp.linalg.cross(a, b, axis=0), "3", "3"),
    product("linalg.matrix_transpose(x)", lambda xp, x: xp.linalg.matrix_transpose(x), "b m n"),
    product("linalg.diagonal(x, offset=-1)", lambda xp, x: xp.linalg.diagonal(x, offset=-1) + x[0, 0], "n n"),
    product("linalg.trace(x, offset=1)", lambda xp, x: xp.linalg.trace(x, offset=1) + x[0, 0], "n n"),
)  # fmt: skip
_NORMS = (
    of_matrix("vector_norm(x)", lambda xp, x: xp.linalg.vector_norm(x), "m n", domain=SOME),
    of_matrix("vector_norm(x, axis=-1, keepdims=True)",
              lambda xp, x: xp.linalg.vector_norm(x, axis=-1, keepdims=True) * x, "m n", domain=SOME),
    of_matrix("vector_norm(x, ord=1)", lambda xp, x: xp.linalg.vector_norm(x, axis=0, ord=1), "m n", domain=SOME),
    of_matrix("vector_norm(x, ord=3)", lambda xp, x: xp.linalg.vector_norm(x, ord=3), "m n", domain=SOME),
    of_matrix("vector_norm(x, ord=inf)", lambda xp, x: xp.linalg.vector_norm(x, ord=np.inf), "n n"),
    of_matrix("vector_norm(x, ord=-inf)", lambda xp, x: xp.linalg.vector_norm(x, ord=-np.inf) * x, "m n",
              domain=apart),
    of_matrix("matrix_norm(x)", lambda xp, x: xp.linalg.matrix_norm(x), "m n"),
    of_matrix("matrix_norm(x, keepdims=True)", lambda xp, x: xp.linalg.matrix_norm(x, keepdims=True) * x, "b n n"),
    of_matrix("matrix_norm(x, ord=1)", lambda xp, x: xp.linalg.matrix_norm(x, ord=1), "n n"),
    of_matrix("matrix_norm(x, ord=-inf)", lambda xp, x: xp.linalg.matrix_norm(x, ord=-np.inf), "n n"),
    of_matrix("matrix_norm(x, ord=2)", lambda xp, x: xp.linalg.matrix_norm(x, ord=2), "n n"),
    of_matrix("matrix_norm(x, ord=-2)", lambda xp, x: xp.linalg.matrix_norm(x, ord=-2), "n n"),
    of_matrix("matrix_norm(x, ord='nuc')", lambda xp, x: xp.linalg.matrix_norm(x, ord="nuc"), "n n"),
)  # fmt: skip
_INVERSES = (
    of_matrix("det(x)", lambda xp, x: xp.linalg.det(x)),
    of_matrix("det of a batch", lambda xp, x: xp.linalg.det(x), "b 2 2", covers=("linalg.det",)),
    of_matrix("inv(x)", lambda xp, x: xp.linalg.inv(x)),
    of_matrix("inv of a batch", lambda xp, x: xp.linalg.inv(x), "b 2 2", covers=("linalg.inv",)),
    of_matrix("matrix_power(x, 3)", lambda xp, x: xp.linalg.matrix_power(x, 3)),
    of_matrix("matrix_power(x, -2)", lambda xp, x: xp.linalg.matrix_power(x, -2)),
    of_matrix("pinv of a tall matrix", lambda xp, x: xp.linalg.pinv(x), "n+1 n", covers=("linalg.pinv",)),
    of_matrix("pinv of a wide matrix", lambda xp, x: xp.linalg.pinv(x), "n n+1", covers=("linalg.pinv",)),
    of_matrix("slogdet(x).logabsdet", lambda xp, x: xp.linalg.slogdet(x).logabsdet),
    of_matrix("solve(a, b)", lambda xp, a, b: xp.linalg.solve(a, b), "n n", "n k"),
    of_matrix("solve of a vector", lambda xp, a, b: xp.linalg.solve(a, b), "n n", "n", covers=("linalg.solve",)),
    of_matrix("solve of a batch", lambda xp, a, b: xp.linalg.solve(a, b), "b 2 2", "2 k", covers=("linalg.solve",)),
    of_matrix("solve with one matrix", lambda xp, a, b: xp.linalg.solve(a, b), "2 2", "b 2 k",
              covers=("linalg.solve",)),
)  # fmt: skip
# Vectors are squared, since their signs are free.
_DECOMPOSITIONS = (
    of_matrix("cholesky(x)", lambda xp, x: xp.linalg.cholesky(_symmetric(xp, x)), domain=definite),
    of_matrix("cholesky(x, upper=True)", lambda xp, x: xp.linalg.cholesky(_symmetric(xp, x), upper=True),
              "b 2 2", domain=definite),
    of_matrix("eigh(x).eigenvalues", lambda xp, x: xp.linalg.eigh(_symmetric(xp, x)).eigenvalues, domain=definite),
    of_matrix("eigh(x).eigenvectors", lambda xp, x: xp.linalg.eigh(_symmetric(xp, x)).eigenvectors ** 2,
              domain=definite),
    of_matrix("eigvalsh(x)", lambda xp, x: xp.linalg.eigvalsh(_symmetric(xp, x)), "b 2 2", domain=definite),
    of_matrix("qr(x).Q", lambda xp, x: xp.linalg.qr(x).Q ** 2, "n+1 n"),
    of_matrix("qr(x).R", lambda xp, x: xp.linalg.qr(x).R ** 2),
    of_matrix("svd(x).U", lambda xp, x: xp.linalg.svd(x, full_matrices=False).U ** 2, "n+1 n"),
    of_matrix("svd(x).S", lambda xp, x: xp.linalg.svd(x, full_matrices=False).S, "n n+1"),
    of_matrix("svd(x).Vh", lambda xp, x: xp.linalg.svd(x, full_matrices=False).Vh ** 2),
    of_matrix("svdvals(x)", lambda xp, x: xp.linalg.svdvals(x), "n n+1"),
)  # fmt: skip

MATRICES: tuple[Operation, ...] = (*_PRODUCTS, *_NORMS, *_INVERSES, *_DECOMPOSITIONS)
