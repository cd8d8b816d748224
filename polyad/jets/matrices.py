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
from polyad.compositions import QR, SVD, Eigh, Slogdet, reduced_svd
from polyad.errors import UnsupportedError
from polyad.jets.jet import make
from polyad.jets.rule import lift, primal, register, tangent

__all__: list[str] = []

transposed = xp.matrix_transpose


def _diagonal(t: Any) -> Any:
    return xp.linalg.diagonal(t)


def _trace(t: Any) -> Any:
    return xp.sum(_diagonal(t), axis=-1)


def _symmetric(t: Any) -> Any:
    return (t + transposed(t)) / 2


def _eye(x: Any) -> Any:
    return xp.eye(x.shape[-1], dtype=x.dtype)


def _over_gaps(t: Any, values: Any) -> Any:
    """t[i, j] / (values[j] - values[i]), zero on the diagonal."""
    eye = _eye(values)
    return t * (1 - eye) / (values[..., None, :] - values[..., :, None] + eye)


def _right_solve(t: Any, r: Any) -> Any:
    """t @ inv(r)."""
    return transposed(xp.linalg.solve(transposed(r), transposed(t)))


@register("linalg.inv")
def _inv(level: int, x: Any) -> Any:
    y = xp.linalg.inv(primal(level, x))
    return make(level, y, -(y @ tangent(level, x) @ y))


@register("linalg.pinv")
def _pinv(level: int, x: Any, rtol: Any = None) -> Any:
    v, t = primal(level, x), tangent(level, x)
    y = xp.linalg.pinv(v) if rtol is None else xp.linalg.pinv(v, rtol=rtol)
    yT, tT = transposed(y), transposed(t)
    rows, columns = tT - (tT @ v) @ y, tT - y @ (v @ tT)
    return make(level, y, -(y @ t @ y) + y @ yT @ rows + columns @ yT @ y)


@register("linalg.solve")
def _solve(level: int, a: Any, b: Any) -> Any:
    vector = b.ndim == 1
    pa, pb = primal(level, a), primal(level, b)
    y = xp.linalg.solve(pa, pb)
    ta, tb = tangent(level, a), tangent(level, b)
    column = y[..., None] if vector else y
    right = None if ta is None else -(lift(ta, column.ndim) @ column)
    if tb is not None:
        tb = tb[..., None] if vector else tb
        tb = lift(tb, column.ndim)
        right = tb if right is None else right + tb
    dy = xp.linalg.solve(pa, right)
    return make(level, y, dy[..., 0] if vector else dy)


@register("linalg.det")
def _det(level: int, x: Any) -> Any:
    v, t = primal(level, x), tangent(level, x)
    y = xp.linalg.det(v)
    return make(level, y, y * _trace(xp.linalg.solve(v, t)))


@register("linalg.slogdet")
def _slogdet(level: int, x: Any) -> Any:
    v, t = primal(level, x), tangent(level, x)
    sign, log = xp.linalg.slogdet(v)
    return Slogdet(sign, make(level, log, _trace(xp.linalg.solve(v, t))))


@register("linalg.cholesky")
def _cholesky(level: int, x: Any, upper: bool = False) -> Any:
    v, t = primal(level, x), tangent(level, x)
    factor = xp.linalg.cholesky(v)
    half = xp.linalg.solve(factor, transposed(xp.linalg.solve(factor, _symmetric(t))))
    y = make(level, factor, factor @ (xp.tril(half) - 0.5 * half * _eye(x)))
    return transposed(y) if upper else y


@register("linalg.eigh")
def _eigh(level: int, x: Any) -> Any:
    v, t = primal(level, x), tangent(level, x)
    values, vectors = xp.linalg.eigh(v)
    inner = transposed(vectors) @ _symmetric(t) @ vectors
    dvectors = vectors @ _over_gaps(inner, values)
    return Eigh(make(level, values, _diagonal(inner)), make(level, vectors, dvectors))


@register("linalg.eigvalsh")
def _eigvalsh(level: int, x: Any) -> Any:
    v, t = primal(level, x), tangent(level, x)
    values, vectors = xp.linalg.eigh(v)  # no gaps here: equal eigenvalues are no trouble
    return make(level, values, _diagonal(transposed(vectors) @ _symmetric(t) @ vectors))


@register("linalg.svd")
def _svd(level: int, x: Any, full_matrices: bool = True) -> Any:
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


@register("linalg.svdvals")
def _svdvals(level: int, x: Any) -> Any:
    v, t = primal(level, x), tangent(level, x)
    u, s, vh = reduced_svd(v, False)
    return make(level, s, _diagonal(transposed(u) @ t @ transposed(vh)))


@register("linalg.qr")
def _qr(level: int, x: Any, mode: str = "reduced") -> Any:
    if mode != "reduced" or x.shape[-2] < x.shape[-1]:
        raise UnsupportedError(
            f"qr of {tuple(x.shape)} with mode={mode!r}: its derivative needs 'reduced' and no wide matrix"
        )
    v, t = primal(level, x), tangent(level, x)
    q, r = xp.linalg.qr(v)
    outer = _right_solve(t, r)
    inner = transposed(q) @ outer
    below = xp.tril(inner, k=-1)
    turn = below - transposed(below)
    dq = q @ (turn - inner) + outer
    return QR(make(level, q, dq), make(level, r, (inner - turn) @ r))
