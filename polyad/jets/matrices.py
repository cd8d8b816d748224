"""Linear algebra: differentials of matrix functions.

A symmetric or positive definite matrix is taken as its symmetric part, as JAX
does; a decomposition with two equal eigenvalues or singular values has no
derivative of its vectors, which come out as NaN or infinite.

Sources: Giles (2008), An extended collection of matrix derivative results for
forward and reverse mode algorithmic differentiation; Townsend (2016),
Differentiating the singular value decomposition; Golub & Pereyra (1973) for the
pseudoinverse.
"""

from typing import Any

from polyad.arrays import xp
from polyad.compositions import QR, SVD, Eigh, Slogdet, identity_like, reduced_qr, reduced_svd
from polyad.jets.jet import make
from polyad.jets.kind import Level
from polyad.jets.rule import first_order, primal, register, tangent

__all__: list[str] = []

transposed = xp.matrix_transpose


def _diagonal(t: Any) -> Any:
    return xp.linalg.diagonal(t)


def _trace(t: Any) -> Any:
    return xp.sum(_diagonal(t), axis=-1)


def _symmetric(t: Any) -> Any:
    return (t + transposed(t)) / 2


def _over_gaps(t: Any, values: Any) -> Any:
    """t[i, j] / (values[j] - values[i]), zero on the diagonal."""
    eye = identity_like(values[..., None, :] * values[..., :, None])
    return t * (1 - eye) / (values[..., None, :] - values[..., :, None] + eye)


def _right_solve(t: Any, r: Any) -> Any:
    """t @ inv(r)."""
    return transposed(xp.linalg.solve(transposed(r), transposed(t)))


@first_order("linalg.pinv")
def _pinv(level: Level, x: Any, rtol: Any = None) -> Any:
    v, t = primal(level, x), tangent(level, x)
    y = xp.linalg.pinv(v) if rtol is None else xp.linalg.pinv(v, rtol=rtol)
    yT, tT = transposed(y), transposed(t)
    rows, columns = tT - (tT @ v) @ y, tT - y @ (v @ tT)
    return make(level, y, -(y @ t @ y) + y @ yT @ rows + columns @ yT @ y)


@register("linalg.inv")
def _inv(level: Level, x: Any) -> Any:
    return level.kind.inverse(level, x)


@register("linalg.solve")
def _solve(level: Level, a: Any, b: Any) -> Any:
    if b.ndim > 1:
        return level.kind.solution(level, a, b)
    return level.kind.solution(level, a, b[:, None])[..., 0]


@first_order("linalg.det")
def _det(level: Level, x: Any) -> Any:
    v, t = primal(level, x), tangent(level, x)
    y = xp.linalg.det(v)
    return make(level, y, y * _trace(xp.linalg.solve(v, t)))


@first_order("linalg.slogdet")
def _slogdet(level: Level, x: Any) -> Any:
    v, t = primal(level, x), tangent(level, x)
    sign, log = xp.linalg.slogdet(v)
    return Slogdet(sign, make(level, log, _trace(xp.linalg.solve(v, t))))


@first_order("linalg.cholesky")
def _cholesky(level: Level, x: Any, upper: bool = False) -> Any:
    v, t = primal(level, x), tangent(level, x)
    factor = xp.linalg.cholesky(v)
    half = xp.linalg.solve(factor, transposed(xp.linalg.solve(factor, _symmetric(t))))
    y = make(level, factor, factor @ (xp.tril(half) - 0.5 * half * identity_like(factor)))
    return transposed(y) if upper else y


@first_order("linalg.eigh")
def _eigh(level: Level, x: Any) -> Any:
    v, t = primal(level, x), tangent(level, x)
    values, vectors = xp.linalg.eigh(v)
    inner = transposed(vectors) @ _symmetric(t) @ vectors
    dvectors = vectors @ _over_gaps(inner, values)
    return Eigh(make(level, values, _diagonal(inner)), make(level, vectors, dvectors))


@first_order("linalg.eigvalsh")
def _eigvalsh(level: Level, x: Any) -> Any:
    v, t = primal(level, x), tangent(level, x)
    values, vectors = xp.linalg.eigh(v)  # no gaps here: equal eigenvalues are no trouble
    return make(level, values, _diagonal(transposed(vectors) @ _symmetric(t) @ vectors))


@first_order("linalg.svd")
def _svd(level: Level, x: Any, full_matrices: bool = True) -> Any:
    v, t = primal(level, x), tangent(level, x)
    u, s, vh = reduced_svd(v, full_matrices)
    inner = transposed(u) @ t @ transposed(vh)
    row, column = s[..., None, :], s[..., :, None]
    du = u @ _over_gaps(inner * row + column * transposed(inner), s * s)
    dv = transposed(vh) @ _over_gaps(column * inner + transposed(inner) * row, s * s)
    if u.shape[-2] > u.shape[-1]:
        du = du + (t @ transposed(vh) - u @ inner) / row
    if vh.shape[-1] > vh.shape[-2]:
        dv = dv + (transposed(t) @ u - transposed(vh) @ transposed(inner)) / row
    parts = ((u, du), (s, _diagonal(inner)), (vh, transposed(dv)))
    return SVD(*(make(level, y, dy) for y, dy in parts))


@first_order("linalg.svdvals")
def _svdvals(level: Level, x: Any) -> Any:
    v, t = primal(level, x), tangent(level, x)
    u, s, vh = reduced_svd(v, False)
    return make(level, s, _diagonal(transposed(u) @ t @ transposed(vh)))


@first_order("linalg.qr")
def _qr(level: Level, x: Any, mode: str = "reduced") -> Any:
    reduced_qr(x, mode)
    v, t = primal(level, x), tangent(level, x)
    q, r = xp.linalg.qr(v)
    outer = _right_solve(t, r)
    inner = transposed(q) @ outer
    below = xp.tril(inner, k=-1)
    turn = below - transposed(below)
    dq = q @ (turn - inner) + outer
    return QR(make(level, q, dq), make(level, r, (inner - turn) @ r))
