"""Laplacian jets: every rule, over every framework, under every reverse mode."""

import autograd
import mpmath
import numpy as np
import pytest

from polyad import convert, gradient, xp
from polyad.backends import owner
from polyad.errors import ArgumentError, UnsupportedError
from polyad.jets import laplacians
from tests.jet_cases import CASES, ELEMENTWISE, MISSING, ON_JAX, PAIRS, A, B, close, directions, made, second_derivative

FORMULAS = {
    "tanh": mpmath.tanh,
    "sin": mpmath.sin,
    "cos": mpmath.cos,
    "exp": mpmath.exp,
    "log": mpmath.log,
    "sqrt": mpmath.sqrt,
    "tan": mpmath.tan,
    "sinh": mpmath.sinh,
    "cosh": mpmath.cosh,
    "atan": mpmath.atan,
    "asin": mpmath.asin,
    "acos": mpmath.acos,
    "asinh": mpmath.asinh,
    "atanh": mpmath.atanh,
    "erf": mpmath.erf,
    "expm1": mpmath.expm1,
    "log1p": lambda x: mpmath.log(1 + x),
    "reciprocal": lambda x: 1 / x,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "softplus": lambda x: mpmath.log(1 + mpmath.exp(x)),
    "silu": lambda x: x / (1 + mpmath.exp(-x)),
    "gelu": lambda x: x * (1 + mpmath.erf(x / mpmath.sqrt(2))) / 2,
    "square": lambda x: x * x,
}


def laplacian(f, xs, dxs):
    return laplacians(lambda *z: (f(*z),), xs, dxs)[2][0]


@pytest.mark.parametrize(("name", "framework"), PAIRS)
def test_the_laplacian_is_the_sum_of_second_derivatives(name, framework):
    if name in MISSING.get(framework, ()):
        pytest.skip(f"{framework} has no {name}")
    f, xs = CASES[name]
    make, dxs = made(framework), directions(CASES[name][1])
    expected = sum(second_derivative(f, xs, [dx[i] for dx in dxs]) for i in range(3))
    close(laplacian(f, [make(x) for x in xs], [make(dx) for dx in dxs]), expected)


@pytest.mark.parametrize("name", FORMULAS)
def test_second_derivatives_of_functions_are_those_of_mpmath(name):
    expected = [2.25 * float(mpmath.diff(FORMULAS[name], x, 2)) for x in A]
    close(laplacian(getattr(xp, name), [A], [np.full((1, 3), 1.5)]), expected)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("name", [name for name, (_, xs) in ELEMENTWISE.items() if len(xs) == 2])
def test_a_constant_argument_stays_one(name, place):
    f, xs = ELEMENTWISE[name]
    dx = directions([xs[place]], 2)[0]

    def one(z):
        return f(z, xs[1]) if place == 0 else f(xs[0], z)

    close(laplacian(one, [xs[place]], [dx]), sum(second_derivative(one, [xs[place]], [d]) for d in dx))


REVERSE = [(name, reverse) for reverse in ("torch", "autograd") for name in CASES] + [(name, "jax") for name in ON_JAX]


@pytest.mark.parametrize(("name", "reverse"), REVERSE)
def test_the_laplacian_has_the_right_gradient_in_reverse_mode(name, reverse):
    if name in MISSING.get(reverse, ()):
        pytest.skip(f"{reverse} has no {name}")
    make, (f, xs) = made(reverse), CASES[name]
    dxs = directions(xs, 2)

    def loss(make):
        return lambda *z: xp.sum(xp.sin(laplacian(f, z, [make(dx) for dx in dxs])))

    close(gradient(loss(make), *xs, backend=reverse), gradient(loss(np.asarray), *xs, backend="numpy"), 1e-7)


def test_a_batch_may_share_its_directions():
    x, unit = np.linspace(-1, 1, 12).reshape(4, 3), np.eye(3)
    f = lambda z: xp.sum(xp.exp(z) * z[:, ::-1], axis=1) + xp.sum(z, axis=0)[0] ** 2  # noqa: E731
    whole = laplacians(lambda z: (f(z),), [x], [np.broadcast_to(unit[:, None], (3, 4, 3))])
    shared = laplacians(lambda z: (f(z),), [x], [unit[:, None]])
    for a, b in zip(shared, whole, strict=True):
        close(a[0], b[0], 1e-14)


def test_aux_and_constants_come_out_plain():
    ys, dys, laps, aux = laplacians(lambda x, c: ((c, x * c), (x, c)), [A, B], [np.ones((2, 3)), None], has_aux=True)
    close(ys[0], B)
    assert dys[0].shape == (2, 3)
    assert not np.any(dys[0])
    assert not np.any(laps[0])
    assert not np.any(laps[1])
    assert all(isinstance(a, np.ndarray) for a in aux)


def test_a_branch_not_taken_may_be_infinite():
    with np.errstate(divide="ignore", invalid="ignore"):
        lap = laplacian(lambda x: xp.where(x > 0, xp.log(x), x**2), [np.array([0.0, 2.0])], [np.ones((1, 2))])
    close(lap, [2.0, -0.25])


def test_no_direction_at_all_is_an_error():
    with pytest.raises(ArgumentError, match="direction"):
        laplacians(lambda x: (x,), [A], [None])


def test_a_function_without_a_rule_names_itself():
    with pytest.raises(UnsupportedError, match="fft"):
        laplacians(lambda x: (xp.fft.fft(x),), [A], [np.ones((1, 3))])


# Networks.


def network(params, x):
    for weight, bias in params[:-1]:
        x = xp.tanh(x @ weight + bias)
    return x @ params[-1][0] + params[-1][1]


def network_parameters():
    random = np.random.Generator(np.random.Philox(3))
    return [(random.normal(size=(n, m)) / n**0.5, random.normal(size=m)) for n, m in ((3, 8), (8, 8), (8, 1))]


def network_loss(params, x, unit=None):
    unit = convert(np.eye(3)[:, None], owner(x) or "numpy") if unit is None else unit
    return xp.mean(laplacian(lambda z: network(params, z), [x], [unit]) ** 2)


def expected_gradient():
    x = np.random.Generator(np.random.Philox(4)).normal(size=(8, 3))
    return x, autograd.grad(network_loss)(network_parameters(), x)


def test_backward_of_torch_reaches_the_parameters():
    torch = pytest.importorskip("torch")
    x, expected = expected_gradient()
    params = [tuple(torch.tensor(a, requires_grad=True) for a in pair) for pair in network_parameters()]
    network_loss(params, torch.tensor(x)).backward()
    for pair, grads in zip(params[:-1], expected[:-1], strict=True):
        for leaf, grad in zip(pair, grads, strict=True):
            close(leaf.grad, grad)
    by_func = torch.func.grad(network_loss)([tuple(a.detach() for a in pair) for pair in params], torch.tensor(x))
    close(by_func[1][0], expected[1][0])


def test_jax_compiles_batches_and_scans_it():
    jax = pytest.importorskip("jax")
    x, expected = expected_gradient()
    params = jax.tree.map(jax.numpy.asarray, network_parameters())
    actual = jax.jit(jax.grad(network_loss))(params, x)
    close(actual[1][0], expected[1][0])
    rows = jax.vmap(lambda row: network_loss(params, row[None]))(jax.numpy.asarray(x))
    steps = jax.lax.scan(lambda _, row: (None, network_loss(params, row[None])), None, jax.numpy.asarray(x))[1]
    close(rows, steps)
    close(np.mean(rows), network_loss(params, jax.numpy.asarray(x)))


def test_float32_stays_float32():
    torch = pytest.importorskip("torch")
    for name, (f, xs) in {**ELEMENTWISE}.items():
        xs = [torch.tensor(x, dtype=torch.float32) for x in xs]
        ys, dys, laps = laplacians(lambda *z, f=f: (f(*z),), xs, [x[None] for x in xs])
        assert {ys[0].dtype, dys[0].dtype, laps[0].dtype} == {torch.float32}, name
