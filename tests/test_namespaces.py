"""polyad.xp: every backend has the same functions with the same derivatives.

The numpy backend is the reference here; tests/test_numpy_names.py holds it
against differences.
"""

import functools

import numpy as np
import pytest

import polyad
from polyad import gradient, jacobian, jvp, vjp, xp
from polyad.errors import UnsupportedError
from tests.examples import arrays

GENERATOR = np.random.Generator(np.random.Philox(5))
A, B = GENERATOR.uniform(0.2, 0.8, size=(2, 3, 3))
ROW, COLUMN = GENERATOR.normal(size=3), GENERATOR.normal(size=(3, 1))
N = GENERATOR.normal(size=(3, 3))
Q = N + 3 * np.eye(3)
BATCH = np.stack([Q, Q.T + 1])
TALL = np.ascontiguousarray(Q[:, :2])
L = xp.linalg
IDENTITY = np.eye(3)


def symmetric(x):
    return (x + xp.matrix_transpose(x)) / 2


def table(names, *args):
    """Functions of this name on these arguments, made curved so that each has a second derivative."""
    return {name: (functools.partial(curved, name), args) for name in names.split()}


def curved(name, *args):
    y = getattr(xp, name)(*args)
    return y * y + xp.sin(args[0]) * xp.sum(args[-1] ** 2)


def plain(**functions):
    return {name: (f, (N,)) for name, f in functions.items()}


CASES = {
    **table("abs acos asin asinh atan atanh ceil conj cos cosh exp exp2 expm1 floor log log10 log1p log2 negative", A),
    **table("positive real reciprocal round sign sin sinc sinh sqrt square tan tanh trunc", A),
    "acosh": (lambda x: xp.acosh(x + 1), (A,)),
    "cbrt": (lambda x: xp.cbrt(x), (A,)),
    **table("add atan2 copysign divide hypot logaddexp maximum minimum multiply pow remainder subtract", A, B),
    "maximum of a row": (lambda x, y: xp.maximum(x, y) * x, (N, ROW)),
    "where": (lambda x, y: xp.where(x > y, x * y, y * y), (N, ROW)),
    "where number": (lambda x: xp.where(x > 0, x * x, 0.5), (N,)),
    **plain(
        sum=lambda x: xp.sum(x, axis=0, keepdims=True) * x,
        sum_all=lambda x: xp.sum(x**3),
        sum_axes=lambda x: xp.sum(x**3, axis=(0, -1)),
        mean=lambda x: xp.mean(x**3, axis=-1),
        prod=lambda x: xp.prod(x, axis=1),
        prod_all=lambda x: xp.prod(x, axis=(0, 1), keepdims=True),
        max=lambda x: xp.max(x**3, axis=0),
        min=lambda x: xp.min(x**3, keepdims=True),
        var=lambda x: xp.var(x**2, axis=0, correction=1),
        std=lambda x: xp.std(x, axis=-1, keepdims=True),
        cumulative_sum=lambda x: xp.cumulative_sum(x**3, axis=1),
        cumulative_sum_initial=lambda x: xp.cumulative_sum(x[0] ** 3, include_initial=True),
        cumulative_prod=lambda x: xp.cumulative_prod(x, axis=0),
        clip=lambda x: xp.clip(x, -0.5, 0.5) * x,
        clip_one_side=lambda x: xp.clip(x, max=0.5) * x,
        reshape=lambda x: xp.reshape(x, (9,)) ** 3,
        permute_dims=lambda x: xp.permute_dims(x**3, (1, 0)),
        matrix_transpose=lambda x: xp.matrix_transpose(x) * x,
        moveaxis=lambda x: xp.moveaxis(x**3, 0, -1),
        squeeze=lambda x: xp.squeeze(x[:1] ** 3, axis=0),
        expand_dims=lambda x: xp.expand_dims(x**3, axis=1),
        broadcast_to=lambda x: xp.broadcast_to(x**2, (2, 3, 3)),
        broadcast_to_rows=lambda x: xp.broadcast_to(x[0] ** 2, (3, 3)) * x,
        broadcast_arrays=lambda x: xp.broadcast_arrays(x, x[0])[1] * x,
        flip=lambda x: xp.flip(x, axis=0) * x,
        flip_all=lambda x: xp.flip(x) * x,
        roll=lambda x: xp.roll(x, 1, axis=1) * x,
        roll_flat=lambda x: xp.roll(x, 2) * x,
        repeat=lambda x: xp.repeat(x**3, 2, axis=1),
        tile=lambda x: xp.tile(x**3, (2, 1)),
        tril=lambda x: xp.tril(x, k=-1) * x,
        triu=lambda x: xp.triu(x) * x,
        diff=lambda x: xp.diff(x**3, axis=0),
        diff_twice=lambda x: xp.diff(x**3, n=2),
        take=lambda x: xp.take(x**3, xp.asarray(np.array([0, 2, 2])), axis=0),
        take_along_axis=lambda x: xp.take_along_axis(x**3, xp.argsort(x, axis=1), axis=1),
        sort=lambda x: xp.sort(x, axis=0) * x,
        sort_descending=lambda x: xp.sort(x, descending=True) * x,
        concat=lambda x: xp.concat([x, x * x], axis=1),
        concat_flat=lambda x: xp.concat([x, x[0] ** 2], axis=None),
        stack=lambda x: xp.stack([x[0], x[1] * x[2]], axis=1),
        unstack=lambda x: xp.unstack(x, axis=1)[1] ** 3,
        meshgrid=lambda x: xp.meshgrid(x[0], x[1])[0] * x,
        getitem=lambda x: x[1:, 0] * x[0, 1],
        getitem_array=lambda x: x[np.array([0, 2, 2])] ** 3,
        asarray=lambda x: xp.asarray([x[0, 0] * x[1, 1], 2 * x[2, 2], 1.0]),
        astype=lambda x: xp.astype(x, xp.float64) ** 3,
        constants=lambda x: x * xp.astype(xp.argmax(x, axis=0), xp.float64) * xp.astype(xp.sum(x > 0), xp.float64),
        vecdot=lambda x: xp.vecdot(x, x * x),
        einsum=lambda x: xp.einsum("ij,kj->ik", x, x),
        kron=lambda x: xp.kron(x[:2, :2], x[:1]),
        trace=lambda x: L.trace(x @ x, offset=1),
        diagonal=lambda x: L.diagonal(x, offset=-1) ** 3,
        outer=lambda x: L.outer(x[0], x[1]),
        cross=lambda x: L.cross(x[0], x[1]),
        matrix_norm=lambda x: L.matrix_norm(x),
        matrix_norm_1=lambda x: L.matrix_norm(x * x, ord=1, keepdims=True),
        matrix_norm_2=lambda x: L.matrix_norm(x, ord=2),
        matrix_norm_nuc=lambda x: L.matrix_norm(x, ord="nuc"),
        vector_norm=lambda x: L.vector_norm(x, axis=-1),
        vector_norm_3=lambda x: L.vector_norm(x, ord=3),
        matrix_power=lambda x: L.matrix_power(x, 3),
        matrix_rank=lambda x: x**3 * xp.astype(L.matrix_rank(x), xp.float64),
    ),
    "matmul": (lambda x, y: xp.matmul(x, y), (N, Q)),
    "matmul batch": (lambda x, y: x @ y, (BATCH, N)),
    "matmul batch right": (lambda x, y: x @ y, (N, BATCH)),
    "matmul vector": (lambda x, y: x @ y, (BATCH, ROW)),
    "tensordot": (lambda x, y: xp.tensordot(x, y, axes=1), (N, Q)),
    "tensordot axes": (lambda x, y: xp.tensordot(x, y, axes=((0, 1), (1, 0))), (N, Q)),
    "inv": (lambda x: L.inv(x), (BATCH,)),
    "pinv": (lambda x: L.pinv(x), (TALL,)),
    "det": (lambda x: L.det(x), (Q,)),
    "slogdet": (lambda x: L.slogdet(x).logabsdet, (Q,)),
    "solve": (lambda x, y: L.solve(x, y), (Q, ROW)),
    "solve matrix": (lambda x, y: L.solve(x, y), (Q, N)),
    "solve batch": (lambda x, y: L.solve(x, y), (BATCH, N)),
    "solve batch right": (lambda x, y: L.solve(x, y), (Q, BATCH)),
    "cholesky": (lambda x: L.cholesky(x @ xp.matrix_transpose(x)), (Q,)),
    "cholesky upper": (lambda x: L.cholesky(x @ xp.matrix_transpose(x), upper=True), (Q,)),
    "eigh values": (lambda x: L.eigh(symmetric(x)).eigenvalues, (Q,)),
    "eigh vectors": (lambda x: xp.abs(L.eigh(symmetric(x)).eigenvectors), (Q,)),
    "eigh batch": (lambda x: xp.abs(L.eigh(symmetric(x))[1]), (BATCH,)),
    "eigvalsh": (lambda x: L.eigvalsh(symmetric(x)), (Q,)),
    "svd": (lambda x: xp.abs(L.svd(x, full_matrices=False)[0]), (TALL,)),
    "svd right": (lambda x: xp.abs(L.svd(x)[2]), (Q,)),
    "svdvals": (lambda x: L.svdvals(x), (BATCH,)),
    "qr": (lambda x: xp.abs(L.qr(x)[1]), (Q,)),
}
LACKS: dict[tuple[str, str], str] = {}


def direction(size, shape, backend, phase=0.0):
    return arrays(backend, np.cos(phase + np.arange(size)).reshape(shape))


def first(f, backend, *xs):
    """Value, pushforward and pullback."""
    y, dy = jvp(f, xs, tuple(direction(x.size, x.shape, "numpy") for x in xs), backend=backend)
    return (y, dy, *pullback(f, backend, *xs))


def pullback(f, backend, *xs):
    y, pull = vjp(f, *xs, backend=backend)
    return pull(direction(int(np.prod(y.shape)), tuple(y.shape), "numpy", 1.0))


def results(f, args, backend):
    """As first(), and the pushforward of the pullback, as ndarrays."""
    xs = tuple(arrays(backend, x) for x in args)
    if backend == "jax":  # its second derivatives are its own; jit, because many small compilations take long
        import jax

        return [np.asarray(leaf) for leaf in jax.jit(functools.partial(first, f, backend))(*xs)]
    vs = tuple(direction(x.size, x.shape, backend) for x in args)
    second = jvp(functools.partial(pullback, f, backend), xs, vs, backend=backend)[1]
    leaves = (*first(f, backend, *args), *second)
    return [np.asarray(leaf.detach().numpy(force=True) if backend == "torch" else leaf) for leaf in leaves]


@functools.cache
def reference(case):
    return results(*CASES[case], "numpy")


@pytest.mark.parametrize("case", CASES)
def test_values_and_derivatives_of_two_orders_are_those_of_the_reference(backend, case):
    if (backend, case) in LACKS:
        with pytest.raises(UnsupportedError):
            results(*CASES[case], backend)
        return
    for actual, expected in zip(results(*CASES[case], backend), reference(case), strict=backend != "jax"):
        np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["numpy", "autograd"])
@pytest.mark.parametrize("case", sorted(set(CASES) - {"astype", "constants", "matrix_rank", "asarray"}))
def test_single_precision_stays_single(name, case):
    if (name, case) not in LACKS:
        f, args = CASES[case]
        x32 = tuple(x.astype(np.float32) for x in args)
        grads = vjp(f, *x32, backend=name)[1](np.ones(f(*x32).shape, np.float32))
        (y, dy) = jvp(f, x32, x32, backend=name)
        assert {leaf.dtype for leaf in (y, dy, *grads)} == {np.dtype(np.float32)}


# Second derivatives by every pair of passes, where autograd's own rules fail.


@pytest.mark.parametrize(
    "case", ["eigh values", "eigh vectors", "eigvalsh", "solve batch", "solve batch right", "svdvals"]
)
def test_four_pairs_of_passes_agree_on_autograd(case):
    f, args = CASES[case]

    def scalar(x):
        return xp.sum(f(x, *args[1:]) ** 2 * 0.5)

    inner = [lambda z, m=m: jacobian(scalar, z, backend="autograd", mode=m) for m in ("forward", "reverse")]
    pairs = [jacobian(g, args[0], backend="autograd", mode=m) for g in inner for m in ("forward", "reverse")]
    expected = jacobian(lambda z: jacobian(scalar, z, backend="numpy"), args[0], backend="numpy")
    for actual in pairs:
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)


def test_equal_eigenvalues_have_a_derivative_on_autograd():
    J = jacobian(lambda x: L.eigh(x).eigenvalues[0], IDENTITY, backend="autograd")
    np.testing.assert_allclose(J, np.diag([1.0, 0, 0]), atol=1e-15)


def test_tanh_and_sinc_stay_finite_on_autograd():
    for f, x, expected in ((xp.tanh, 800.0, 0.0), (xp.sinc, 0.0, -(np.pi**2) / 3)):
        second = gradient(lambda z, f=f: gradient(f, z, backend="autograd"), np.array(x), backend="autograd")
        assert second == pytest.approx(expected)


def test_functions_without_a_rule_refuse_boxes_and_jets():
    for f in (lambda x: xp.fft.fft(x), lambda x: xp.nextafter(x, x), lambda x: xp.block([[x], [x]])):
        for name in ("numpy", "autograd"):
            with pytest.raises((UnsupportedError, polyad.errors.DetachError)):
                jacobian(f, N, backend=name)


# Random programs.

UNARY = (
    xp.tanh,
    lambda x: xp.sin(x) * x,
    lambda x: xp.exp(-x * x),
    lambda x: xp.sqrt(1 + x * x),
    lambda x: xp.where(x > 0.1, x * x, xp.cos(x)),
    lambda x: xp.maximum(x, 0.3 * x * x - 1),
    lambda x: xp.abs(x) ** 3,
    lambda x: x / (2 + xp.cos(x)),
    lambda x: xp.clip(x, -1.0, 1.0),
    lambda x: (1 + x * x) ** 0.7,
    lambda x: xp.flip(x, axis=0),
    lambda x: x[np.array([2, 0, 1])],
    lambda x: xp.sort(x, axis=0),
    lambda x: xp.cumulative_sum(x, axis=1) / 3,
    lambda x: xp.stack([x[0], x[1], x[2]], axis=1),
    lambda x: x - xp.max(x, axis=1, keepdims=True),
    lambda x: x * xp.std(x, axis=0),
    lambda x: x * xp.prod(x, axis=1, keepdims=True),
    lambda x: L.inv(x @ xp.matrix_transpose(x) + 3 * xp.tril(xp.triu(xp.ones_like(x)))),
)
BINARY = (
    lambda x, y: x @ y / 3,
    lambda x, y: x - y * y,
    lambda x, y: xp.einsum("ij,kj->ik", x, y) / 2,
    lambda x, y: x + y[:, :1],
    lambda x, y: xp.where(x > y, x * y, y),
    lambda x, y: L.solve(x @ xp.matrix_transpose(x) + 3 * xp.tril(xp.triu(xp.ones_like(x))), y),
)


def program(seed):
    """5 to 10 operations on earlier results, drawn by the seed."""
    g = np.random.Generator(np.random.Philox(seed))
    steps = [tuple(int(i) for i in g.integers(0, 1000, size=4)) for _ in range(int(g.integers(5, 11)))]

    def f(x):
        values = [x, x * 0.5 + 1]
        for kind, op, i, j in steps:
            a, b = values[i % len(values)], values[j % len(values)]
            values.append(UNARY[op % len(UNARY)](a) if kind % 3 else BINARY[op % len(BINARY)](a, b))
        return xp.sum(values[-1] * values[-2]) + xp.sum(xp.tanh(values[-3]))

    return f, g.normal(size=(3, 3))


PROGRAMS = {"autograd": 40, "torch": 25, "jax": 2}  # JAX compiles each anew


@functools.cache
def program_reference(seed):
    f, x = program(seed)
    rough = jacobian(f, x, backend="numpy", mode="finite_difference")
    grad, hessian = gradient(f, x, backend="numpy"), jacobian(lambda z: gradient(f, z), x, backend="numpy")
    np.testing.assert_allclose(grad, rough, rtol=1e-5, atol=1e-6 * (1 + abs(hessian).max()))
    return grad, hessian


@pytest.mark.parametrize(("name", "seed"), [(name, seed) for name, n in PROGRAMS.items() for seed in range(n)])
def test_random_programs_have_one_gradient_and_one_hessian(name, seed):
    backend = pytest.importorskip(name) and name
    f, x = program(seed)
    z = arrays(backend, x)
    grad = gradient(f, z, backend=backend)
    hessian = jacobian(lambda z: gradient(f, z, backend=backend), z, backend=backend)
    for actual, expected in zip((grad, hessian), program_reference(seed), strict=True):
        host = np.asarray(actual.detach().numpy(force=True) if backend == "torch" else actual)
        assert np.abs(host - expected).max() <= 1e-10 * (1 + np.abs(expected).max())
