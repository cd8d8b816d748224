"""Plain NumPy code against differences: value, first and second derivative, shape and dtype."""

import numpy as np
import pytest

import polyad
from polyad.jets.numpy_names import _COMPOSED, _UFUNC_NAMES
from polyad.jets.rule import RULES

GENERATOR = np.random.Generator(np.random.Philox(11))


def array(*shape):
    return GENERATOR.normal(size=shape)


S, V, M, C, Q = array(), array(5), array(3, 4), array(2, 3, 4), array(3, 3) + 2 * np.eye(3)
ONE, EMPTY, ROWS = array(1, 3, 1), array(0), array(2, 0)
P = Q @ Q.T + np.eye(3)
BATCH = array(2, 3, 3) + 3 * np.eye(3)
I = np.array([0, 2, 2])  # noqa: E741
L = np.linalg


def differences(f, x, h=1e-4):
    """Central differences of sixth order: error about 1e-11."""
    columns = []
    for k in range(x.size):
        e = np.zeros(x.size)
        e[k] = h
        e = e.reshape(x.shape)
        d = [np.asarray(f(x + i * e)) - np.asarray(f(x - i * e)) for i in (1, 2, 3)]
        columns.append((45 * d[0] - 9 * d[1] + d[2]) / (60 * h))
    y = np.asarray(f(x))
    return np.stack(columns, -1).reshape(y.shape + x.shape) if columns else np.zeros(y.shape + x.shape)


def part(f, i):
    return lambda x: f(x)[i]


def check(f, x, tolerance=2e-8):
    """Value, Jacobian and the Jacobian of the Jacobian of f, each of its results if there are several."""
    y = f(x)
    if isinstance(y, tuple | list):
        for i in range(len(y)):
            check(part(f, i), x, tolerance)
        return
    value, J = polyad.value_and_jacobian(f, x, backend="numpy")
    np.testing.assert_allclose(value, y, rtol=1e-13, atol=1e-13)
    assert value.dtype == np.asarray(y).dtype
    np.testing.assert_allclose(J, differences(f, x), rtol=tolerance, atol=tolerance)
    first = polyad.jacobian(f, backend="numpy")
    np.testing.assert_allclose(
        polyad.jacobian(first, x, backend="numpy"), differences(first, x), rtol=tolerance, atol=tolerance
    )


REDUCTIONS = ["sum", "mean", "prod", "max", "min", "amax", "amin", "var", "std", "ptp"]
OPTIONS = [
    {},
    {"axis": 0},
    {"axis": -1, "keepdims": True},
    {"axis": (0, -1)},
    {"axis": np.int64(1)},
    {"keepdims": True},
]


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_differentiate_with_every_axis(name):
    f = getattr(np, name)
    for options in OPTIONS:
        check(lambda x, options=options: f(x, **options), M)
        check(lambda x, options=options: f(x, **options), C)
    check(lambda x: f(x, 0), V)
    if name not in ("std", "var", "ptp"):
        check(f, S)
        check(lambda x: f(x, axis=()), M)
        check(lambda x: f(x, axis=(0, 2)), ONE)
    if name not in ("amax", "amin", "ptp"):
        check(lambda x: getattr(x, name)(axis=0, keepdims=True), M)


@pytest.mark.parametrize("name", ["sum", "prod"])
def test_reductions_of_nothing_have_no_derivative_and_do_not_fail(name):
    check(getattr(np, name), EMPTY)
    check(lambda x: getattr(np, name)(x, axis=1), ROWS)


CUMULATIVE = {
    "cumsum": lambda x: np.cumsum(x),
    "cumsum axis": lambda x: np.cumsum(x, 1),
    "cumsum dtype": lambda x: x.cumsum(axis=-1, dtype=float),
    "cumprod": lambda x: np.cumprod(x),
    "cumprod axis": lambda x: x.cumprod(0),
    "cumulative_sum": lambda x: np.cumulative_sum(x, axis=1, include_initial=True),
    "cumulative_prod": lambda x: np.cumulative_prod(x, axis=0, include_initial=True),
    "var ddof": lambda x: np.var(x, axis=0, ddof=1),
    "std correction": lambda x: np.std(x, axis=1, correction=1),
    "var dtype": lambda x: np.var(x, 0, np.float64),
    "average": lambda x: np.average(x, axis=0),
    "average weights": lambda x: np.average(x, axis=0, weights=x * x + 1),
    "average of rows": lambda x: np.average(x, axis=1, weights=[1.0, 2.0, 3.0, 4.0]),
    "median": lambda x: np.median(x),
    "median axis": lambda x: np.median(x, axis=1, keepdims=True),
    "nansum": lambda x: np.nansum(np.where(x > 0, x * x, np.nan), axis=0),
    "nanmean": lambda x: np.nanmean(np.where(x > -3, x, np.nan)),
    "trapezoid": lambda x: np.trapezoid(x, dx=0.5),
    "trapezoid x": lambda x: np.trapezoid(x[0] ** 2, x[1]),
    "add.reduce": lambda x: np.add.reduce(x),
    "maximum.reduce": lambda x: np.maximum.reduce(x, axis=1),
}

INDEXING = {
    "int": lambda x: x[-1],
    "ints": lambda x: x[1, 2],
    "slices": lambda x: x[1:, ::2],
    "backwards": lambda x: x[::-1],
    "ellipsis": lambda x: x[..., 0],
    "newaxis": lambda x: x[None, :, None],
    "array": lambda x: x[I],
    "array behind": lambda x: x[:, I],
    "two arrays": lambda x: x[I, I],
    "int and array": lambda x: x[0, I],
    "ix_": lambda x: x[np.ix_([0, 1], [1, 3])],
    "mask": lambda x: x[x > 0],
    "mask of rows": lambda x: x[np.array([True, False, True]), 1:],
    "list": lambda x: x[[0, 2]],
    "list of bools": lambda x: x[[True, False, True]],
    "bools by rows": lambda x: x[[[True, False, True, False]] * 3],
    "range": lambda x: x[range(2)],
    "True": lambda x: x[True],
    "nothing": lambda x: x[[]],
    "argmax": lambda x: x[np.argmax(x, axis=0), np.arange(4)],
    "where": lambda x: x[np.where(x > 0)],
    "rows": lambda x: [row * row for row in x],
}
INDEXING_3D = {
    "int, slice, array": lambda x: x[0, :, I],
    "array, slice, array": lambda x: x[[0, 1], :, [1, 2]],
    "int, slice, range": lambda x: x[0, :, range(2)],
    "int, None, array": lambda x: x[0, None, :, I],
    "slice, mask": lambda x: x[:, M > 0],
    "int, slice, bools": lambda x: x[1, :, [True, False, True, False]],
}

SHAPES = {
    "reshape": lambda x: np.reshape(x, (-1, 2)),
    "method reshape": lambda x: x.reshape(2, -1),
    "ravel": lambda x: x.ravel(),
    "flatten": lambda x: x.flatten(),
    "T": lambda x: x.T,
    "mT": lambda x: x.mT,
    "transpose": lambda x: np.transpose(x, axes=[-1, *range(x.ndim - 1)]),
    "method transpose": lambda x: x.transpose(),
    "swapaxes": lambda x: x.swapaxes(0, -1),
    "moveaxis": lambda x: np.moveaxis(x, 0, -1),
    "expand_dims": lambda x: np.expand_dims(x, (0, -1)),
    "squeeze": lambda x: x[None].squeeze(),
    "squeeze axis": lambda x: np.squeeze(x[None], 0),
    "broadcast_to": lambda x: np.broadcast_to(x, (2, *x.shape)),
    "broadcast_arrays": lambda x: np.broadcast_arrays(x, x[:1]),
    "flip": lambda x: np.flip(x),
    "flip axis": lambda x: np.flip(x, 0),
    "fliplr": lambda x: np.fliplr(x),
    "flipud": lambda x: np.flipud(x),
    "rot90": lambda x: np.rot90(x, 3),
    "roll": lambda x: np.roll(x, 1),
    "roll axis": lambda x: np.roll(x, 1, 0),
    "roll axes": lambda x: np.roll(x, 1, axis=(0, 1)),
    "roll shifts": lambda x: np.roll(x, (1, 2), axis=(0, 1)),
    "repeat": lambda x: np.repeat(x, 2),
    "repeat axis": lambda x: x.repeat(2, 1),
    "repeats": lambda x: np.repeat(x, np.arange(x.shape[0]), axis=0),
    "tile": lambda x: np.tile(x, (2, 1, 2)),
    "tril": lambda x: np.tril(x, -1),
    "triu": lambda x: np.triu(x, k=1),
    "diff": lambda x: np.diff(x),
    "diff n": lambda x: np.diff(x, 1, 0),
    "diff prepend": lambda x: np.diff(x, prepend=0.0, append=x[..., :1]),
    "take": lambda x: np.take(x, [0, 5]),
    "take axis": lambda x: x.take(I, -1),
    "sort": lambda x: np.sort(x, 0),
    "sort flat": lambda x: np.sort(x, axis=None, kind="stable"),
    "take_along_axis": lambda x: np.take_along_axis(x, np.argsort(x, axis=1), 1),
    "diagonal": lambda x: x.diagonal(1),
    "trace": lambda x: np.trace(x),
    "pad": lambda x: np.pad(x, 1),
    "pad edge": lambda x: np.pad(x, ((1, 2),) * x.ndim, mode="edge"),
    "concatenate": lambda x: np.concatenate([x, 2 * x], axis=-1),
    "concatenate flat": lambda x: np.concatenate([x, [1.0]], axis=None),
    "concatenate constant": lambda x: np.concatenate((np.ones(x.shape), x)),
    "stack": lambda x: np.stack([x, np.ones(x.shape)], -1),
    "vstack": lambda x: np.vstack([x, x]),
    "hstack": lambda x: np.hstack([x, x]),
    "dstack": lambda x: np.dstack([x, x]),
    "column_stack": lambda x: np.column_stack([x, x]),
    "append": lambda x: np.append(x, 1.0),
    "split": lambda x: np.split(x, [1, 2], -1),
    "array_split": lambda x: np.array_split(x, 3, axis=1),
    "vsplit": lambda x: np.vsplit(x, x.shape[0]),
    "hsplit": lambda x: np.hsplit(x, [1]),
    "atleast_3d": lambda x: np.atleast_3d(x),
    "atleast several": lambda x: np.atleast_2d(x, x[0]),
    "unstack": lambda x: np.unstack(x, axis=1),
}

CHOICES = {
    "where": lambda x: np.where(x > 0, x * x, 1.0),
    "where number": lambda x: np.where(x > 0, 1, x),
    "where rows": lambda x: np.where(x[0] > 0, x, x[:, :1]),
    "where list": lambda x: np.where(x > 0, x, [1.0, 2.0, 3.0, 4.0]),
    "select": lambda x: np.select([x > 1, x > 0], [x, x * x], -x),
    "clip": lambda x: np.clip(x, -0.5, 0.5),
    "clip keywords": lambda x: np.clip(x * 2, min=x - 0.1, max=None),
    "method clip": lambda x: x.clip(-1, x.mean()),
    "nan_to_num": lambda x: np.nan_to_num(np.where(x > 1, np.inf, x), posinf=1.0),
    "interp": lambda x: np.interp(x, [-1.0, 0.0, 1.0], [1.0, 3.0, -4.0]),
    "full_like": lambda x: np.full_like(x, x[0, 0]),
    "zeros_like": lambda x: np.zeros_like(x) + x + np.ones_like(x, shape=(3, 1)),
    "astype": lambda x: np.astype(x.astype(float), np.float64),
    "copy": lambda x: np.copy(x).copy() + np.real(x) + x.real + x.conj(),
    "allclose": lambda x: x if np.allclose(x, 0) else 2 * x,
    "sorted by a column": lambda x: x[np.argsort(x[:, 0], kind="stable")],
    "searchsorted": lambda x: x * np.searchsorted(np.sort(x[0]), 0.1) * np.size(x, 0) * np.ndim(x),
    "count": lambda x: x * np.count_nonzero(x > 0) * x.any(axis=0) * len(np.argwhere(x)),
    "linspace": lambda x: np.linspace(x[0], 1.0, 5),
    "polyval": lambda x: np.polyval([1.0, 2.0, 3.0], x) + np.polyval(x[:, 0], x),
    "meshgrid": lambda x: np.meshgrid(x[0], x[:, 0]),
    "lists": lambda x: np.power(x * x, [1.0, 2.0, 3.0, 4.0]) + [1.0, 2.0, 3.0, 4.0] * x,
    "divmod": lambda x: divmod(x, 0.3)[1] + np.modf(x)[0] + 2 * np.divmod(x, 0.7)[1],
    "operators": lambda x: 2.0 ** (x / 3) - (1 - x) / (2 + x * x) + np.float64(2) * x // 1 - x % 0.4 + abs(-x) + +x,
    "numbers": lambda x: np.add(1, x) * np.subtract(np.float64(2), x) / np.maximum(x, 0.1) + np.hypot(x, 2),
    "heaviside": lambda x: np.heaviside(x, 0.5) * x,
    "round": lambda x: np.round(x, 1) * x + x.round() + np.around(x, 2),
}

PRODUCTS = {
    "dot of a list": (lambda x: np.dot([1.0, 2.0, 3.0], x), M),
    "inner": (lambda x: np.inner(x, x[:2] * 2), M),
    "outer": (lambda x: np.outer(x, x), M),
    "kron": (lambda x: np.kron(x, x[:2]), M),
    "cross": (lambda x: np.cross(x[:, :3], x[:, 1:]), M),
    "vdot": (lambda x: np.vdot(x, x * x), M),
    "vecdot": (lambda x: np.vecdot(x, x[0]), M),
    "matvec": (lambda x: np.matvec(x, x[0]), M),
    "vecmat": (lambda x: np.vecmat(x[:, 0], x), M),
    "tensordot": (lambda x: np.tensordot(x, x, ((0, 1), (0, 1))), M),
    "tensordot int": (lambda x: np.tensordot(x, x.T, 1), M),
    "einsum": (lambda x: np.einsum("ij,kj->ik", x, x), M),
    "einsum implicit": (lambda x: np.einsum("ij,jk", x, x.T, optimize=True), M),
    "einsum trace": (lambda x: np.einsum("ii", x), Q),
    "einsum ellipsis": (lambda x: np.einsum("...ij,...jk->...ik", x, x[0].T), C),
    "einsum ellipsis implicit": (lambda x: np.einsum("...ij,jk", x, x[0].T), C),
    "convolve": (lambda x: np.convolve(x, x[:2]), V),
    "convolve same": (lambda x: np.convolve([1.0, 2.0], x, "same"), V),
    "convolve valid": (lambda x: np.convolve(x, [1.0, 2.0], mode="valid"), V),
    "multi_dot": (lambda x: L.multi_dot([x, x.T, x]), M),
    "diag": (lambda x: np.diag(x, -2), V),
    "diag of a matrix": (lambda x: np.diag(x, 1), Q),
    "inv": (L.inv, Q),
    "inv batch": (L.inv, BATCH),
    "pinv": (lambda x: L.pinv(x), M),
    "det": (L.det, BATCH),
    "slogdet": (lambda x: L.slogdet(x).logabsdet, Q),
    "matrix_power": (lambda x: L.matrix_power(x, 3) + L.matrix_power(x, -1) + L.matrix_power(x, 0), Q),
    "solve": (lambda x: L.solve(x, x[0] * x[1]), Q),
    "solve batch": (lambda x: L.solve(x, x[0, :, :2]), BATCH),
    "solve many": (lambda x: L.solve(x[0], x[:, :, :2]), BATCH),
    "cholesky": (lambda x: L.cholesky((x + x.T) / 2), P),
    "cholesky upper": (lambda x: L.cholesky((x + x.T) / 2, upper=True), P),
    "eigh": (lambda x: L.eigh((x + x.T) / 2).eigenvalues, P),
    "eigenvectors": (lambda x: np.abs(L.eigh((x + x.T) / 2)[1]), P),
    "eigvalsh": (lambda x: L.eigvalsh((x + x.T) / 2), P),
    "svd": (lambda x: [np.abs(z) for z in L.svd(x, full_matrices=False)], M),
    "svd tall": (lambda x: [np.abs(z) for z in L.svd(x.T, False)], M),
    "svdvals": (lambda x: L.svdvals(x), BATCH),
    "qr": (lambda x: [np.abs(z) for z in L.qr(x.T)], M),
    "lin diagonal": (lambda x: L.diagonal(x, offset=1), C),
    "lin cross": (lambda x: L.cross(x[:, :3], x[:, 1:]), M),
    "rank": (lambda x: x * L.matrix_rank(x), M),
}

TABLES = {
    **{f"cumulative: {k}": (f, M) for k, f in CUMULATIVE.items()},
    **{f"index: {k}": (f, M) for k, f in INDEXING.items()},
    **{f"index 3d: {k}": (f, C) for k, f in INDEXING_3D.items()},
    **{f"shape: {k}": (f, M) for k, f in SHAPES.items()},
    **{f"choice: {k}": (f, M) for k, f in CHOICES.items()},
    **{f"product: {k}": entry for k, entry in PRODUCTS.items()},
}
ANY_SHAPE = ("ravel", "T", "flip", "roll", "tile", "concatenate flat", "repeat", "append", "stack")


@pytest.mark.parametrize("case", TABLES)
def test_numpy_code_differentiates_as_differences_say(case):
    f, x = TABLES[case]
    check(f, x, 1e-6 if case.startswith("product") else 2e-8)


@pytest.mark.parametrize("case", ANY_SHAPE)
@pytest.mark.parametrize("x", [S, V, ONE, EMPTY, C], ids=["0-d", "1-d", "size-1 axes", "empty", "3-d"])
def test_shapes_of_any_number_of_axes_differentiate(case, x):
    check(SHAPES[case], x)


@pytest.mark.parametrize(
    "shapes",
    ["4 4", "4 4,2", "3,4 4", "3,4 4,2", "2,3,4 4", "4 2,4,5", "3,4 2,4,5", "2,1,3,4 5,4,2", "3,0 0,2", "1,4 4,1"],
)
def test_matmul_differentiates_in_both_operands_with_broadcasting(shapes):
    a, b = (array(*map(int, shape.split(","))) for shape in shapes.split())
    check(lambda x: x @ b, a)
    check(lambda x: a @ x, b)
    check(lambda x: np.dot(x, b), a)
    check(lambda x: np.dot(a, x), b)
    t = array(1)
    check(lambda x: (x * a) @ (x * b), t)


ORDERS = (None, 1, 2, 3, 2.5, np.inf, -np.inf)


@pytest.mark.parametrize("ord", ORDERS)
def test_vector_norms_differentiate(ord):
    check(lambda x: L.norm(x, ord), V, 1e-6)
    check(lambda x: L.norm(x, ord, axis=1), M, 1e-6)
    check(lambda x: L.norm(x, ord=ord, axis=(0,), keepdims=True), M, 1e-6)


@pytest.mark.parametrize("ord", [None, "fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf])
def test_matrix_norms_differentiate(ord):
    check(lambda x: L.norm(x, ord), M, 1e-6)
    check(lambda x: L.norm(x, ord, axis=(2, 0), keepdims=True), C, 1e-6)


def test_a_list_of_options_by_position_is_read_as_numpy_reads_it():
    check(lambda x: np.sum(x, 0, None, None, True), M)
    check(lambda x: np.take(x, I, 0, None, "raise"), M)
    check(lambda x: np.std(x, 0, None, None, 1), M)


UNARY = {name for name in (*RULES, *_UFUNC_NAMES) if isinstance(getattr(np, name, None), np.ufunc)}


@pytest.mark.parametrize("name", sorted({*UNARY, *_COMPOSED} - {"matvec", "vecmat", "vecdot", "matmul"}))
def test_every_mapped_ufunc_differentiates(name):
    f = getattr(np, name)
    x, y = np.array([[1.3, 0.4], [0.7, 0.2]]), np.array([0.6, 0.9])
    if name in ("arccosh", "acosh"):
        x = x + 1
    elif "arc" in name or name in ("acos", "asin", "atanh"):
        x = x / 2
    if f(*(x, y)[: f.nin]) is NotImplemented or np.asarray(f(*(x, y)[: f.nin])).dtype.kind != "f":
        assert not isinstance(f(*(x, y)[: f.nin]), polyad.jets.Jet)
        return
    for i in range(f.nin):
        check(lambda z, i=i: f(*(z if j == i else (x, y)[j] for j in range(f.nin))), (x, y)[i])
