"""Jets over the arrays of torch and JAX: whose they are, what they meet, nested operators."""

import itertools

import numpy as np
import pytest

import polyad
from polyad import BatchNorm, Chain, Dense, StatefulLayer, convert, gradient, jacobian, stop_gradient, xp
from polyad.backends import owner
from polyad.errors import DetachError, MixedArraysError, UnsupportedError
from polyad.jets import Jet, laplacians, pushforwards, series
from tests.jet_cases import close, made, second_derivative

X = np.random.Generator(np.random.Philox(1)).normal(size=(5, 3))
W = np.random.Generator(np.random.Philox(2)).normal(size=(3, 3))
DX = np.random.Generator(np.random.Philox(3)).normal(size=(2, 5, 3))
FRAMEWORKS = ["numpy", "torch", "jax"]


def along(kind, f, x):
    """f'(x) at a number, by jets of a kind or by an operator."""
    one = xp.ones_like(x)
    if kind == "gradient":
        return gradient(f, x)
    if kind == "series":
        return series(lambda z: (f(z),), [x], [(one, None)])[1][0][0]
    passes = {"push": pushforwards, "laplacian": laplacians}[kind]
    return passes(lambda z: (f(z),), [x], [one[None]])[1][0][0]


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("outer", "inner"), list(itertools.product(("push", "laplacian", "series", "gradient"), repeat=2))
)
def test_perturbations_of_two_kinds_are_not_confused(outer, inner, framework):
    make = made(framework)
    assert float(along(outer, lambda x: x * along(inner, lambda y: x + y, x), make(1.0))) == 1
    third = along(outer, lambda x: x * along(inner, lambda y: x * y * y, 2 * x), make(3.0))
    assert float(third) == pytest.approx(12 * 3.0**2)


def slope_by_hand(x, w):
    y = xp.tanh(x @ w)
    return (2 * y * (1 - y * y)) @ xp.matrix_transpose(w)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_gradient_inside_is_differentiated(framework):
    x, w, dx = map(made(framework), (X, W, DX))

    def slope(z):
        return gradient(lambda q: xp.sum(xp.tanh(q @ w) ** 2), z)

    for f, g in zip(
        laplacians(lambda z: (slope(z),), [x], [dx]),
        laplacians(lambda z: (slope_by_hand(z, w),), [x], [dx]),
        strict=True,
    ):
        close(f[0], g[0])
    curve = [(dx[0], dx[1], None)]
    for f, g in zip(
        series(lambda z: (slope(z),), [x], curve)[1][0],
        series(lambda z: (slope_by_hand(z, w),), [x], curve)[1][0],
        strict=True,
    ):
        close(f, g)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_gradient_inside_sees_the_jets_that_it_captures(framework):
    x, w, dx = map(made(framework), (X, W, DX))

    def by_weight(z):
        return gradient(lambda v: xp.sum(xp.tanh(z @ v) ** 2), w)

    def by_hand(z):
        y = xp.tanh(z @ w)
        return xp.matrix_transpose(z) @ (2 * y * (1 - y * y))

    close(
        laplacians(lambda z: (by_weight(z),), [x], [dx])[2][0],
        laplacians(lambda z: (by_hand(z),), [x], [dx])[2][0],
    )


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_kind_goes_through_every_other_and_a_gradient(framework):
    x, w, dx = map(made(framework), (X, W, DX))

    def nested(slope):
        def lap(z):
            return laplacians(lambda q: (slope(q),), [z], [dx])[2][0]

        return series(lambda z: (lap(z),), [x], [(dx[0], None)])[1][0][1]

    actual = nested(lambda z: gradient(lambda q: xp.sum(xp.tanh(q @ w) ** 2), z))
    close(actual, nested(lambda z: slope_by_hand(z, w)))


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_modes_of_an_inner_jacobian_agree(framework):
    x, dx = map(made(framework), (X[0], DX[:, 0]))
    found = [
        laplacians(lambda z, m=m: (jacobian(lambda q: xp.sin(q) * q[0], z, mode=m),), [x], [dx])[2][0]
        for m in ("forward", "reverse")
    ]
    close(found[0], found[1])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_layer_with_parameters_takes_jets(framework):
    model = Chain(Dense(3, 4, "tanh"), BatchNorm(4), Dense(4, 2, "gelu"))
    params, state = polyad.setup(0, model, backend=framework, dtype="float64")
    plain, plain_state = polyad.setup(0, model, backend="numpy", dtype="float64")
    x, dx = map(made(framework), (X, DX))
    net = StatefulLayer(model, params, state)
    lap = laplacians(lambda z: (net(z),), [x], [dx])[2][0]
    f = lambda z: model(z, plain, plain_state)[0]  # noqa: E731
    expected = sum(second_derivative(f, [X], [d]) for d in DX)
    close(lap.detach() if framework == "torch" else lap, expected, 1e-7)
    assert not any(isinstance(leaf, Jet) for leaf in polyad.trees.leaves(net.state))


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_jet_belongs_to_the_framework_of_its_parts(framework):
    make = made(framework)

    def f(z):
        assert owner(z).name == framework
        assert owner(z).over is polyad.backends.get(framework)
        assert convert(z, framework) is z
        assert owner(z.__array_namespace__().zeros(3)) is polyad.backends.get(framework)
        assert owner(stop_gradient(z)) is polyad.backends.get(framework)
        assert xp.any(z > -100.0)
        with pytest.raises(DetachError, match="convert"):
            convert(z, "numpy")
        with pytest.raises(MixedArraysError, match="Convert"):
            gradient(lambda q: xp.sum(q), z, backend="numpy")
        return z * np.ones(3) + np.ones(3) * z

    ys, dys, _ = laplacians(lambda z: (f(z),), [make(X)], [make(DX)])
    assert owner(ys[0]) is owner(dys[0]) is polyad.backends.get(framework)


# torch's own functions.


def test_a_module_of_torch_takes_jets():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    nn = torch.nn
    activations = (nn.Tanh(), nn.GELU(), nn.SiLU(), nn.Softplus(), nn.Sigmoid(), nn.ELU(), nn.LogSoftmax(dim=-1))
    f = nn.Sequential(*(layer for a in activations for layer in (nn.Linear(3, 3), a))).double()
    x = torch.from_numpy(X)
    lap = laplacians(lambda z: (torch.sum(f(z), dim=1),), [x], [torch.eye(3, dtype=x.dtype)[:, None, :]])[2][0]
    hessians = torch.func.vmap(torch.func.hessian(lambda row: torch.sum(f(row))))(x)
    close(lap.detach(), torch.einsum("bii->b", hessians).detach())


def torch_functions():
    torch = pytest.importorskip("torch")
    F, w = torch.nn.functional, torch.from_numpy(W)
    return {
        "tensor @ jet": lambda z: w @ z.T,
        "tensor + jet": lambda z: w[0] + z**2,
        "tensor / jet": lambda z: w[0] / z,
        "number - jet": lambda z: 2 - z * z,
        "torch.cat": lambda z: torch.cat([z, z * z], dim=1),
        "torch.stack": lambda z: torch.stack([z, z * z, torch.ones_like(z)], dim=1),
        "F.softmax": lambda z: F.softmax(z, dim=-1),
        "torch.where": lambda z: torch.where(z > 0, z**2, torch.sin(z)),
        "torch.clamp": lambda z: torch.clamp(z, min=-0.3) ** 2,
        "torch.einsum": lambda z: torch.einsum("bi,ij,bj->b", z, w, z),
        "torch.linalg.norm": lambda z: torch.linalg.norm(z, dim=1),
        "F.linear": lambda z: F.linear(z**2, w, w[0]),
        "torch.linalg.solve": lambda z: torch.linalg.solve(w, (z * z).mT),
        "torch.std": lambda z: torch.std(z, dim=1),
        "methods": lambda z: z.pow(2).unsqueeze(1).transpose(1, 2).sum(dim=2).tanh() * z.std(),
        "torch.add with alpha": lambda z: torch.add(z, z * z, alpha=3.0),
        "torch.logsumexp": lambda z: torch.logsumexp(z, 1),
        "torch.rsub": lambda z: torch.rsub(z * z, 1.0),
        "F.mse_loss": lambda z: F.mse_loss(z, w[:1].expand(5, 3)),
    }


@pytest.mark.parametrize("name", torch_functions())
def test_functions_of_torch_have_their_own_meaning(name):
    torch = pytest.importorskip("torch")
    f, x, dx = torch_functions()[name], torch.from_numpy(X), torch.from_numpy(DX)
    (y,), _, (lap,) = laplacians(lambda z: (f(z),), [x], [dx])
    close(y, f(x))
    second = [torch.func.jvp(lambda z, d=d: torch.func.jvp(f, (z,), (d,))[1], (x,), (d,))[1] for d in dx]
    close(lap, sum(second))


def test_what_would_lose_a_derivative_on_torch_raises():
    torch = pytest.importorskip("torch")
    x, dx, w = torch.from_numpy(X), torch.from_numpy(DX), torch.from_numpy(W)
    refused = {
        "fft_fft": (lambda z: torch.fft.fft(z), UnsupportedError),
        "autograd.grad": (lambda z: torch.autograd.grad(z.sum(), z), UnsupportedError),
        "conv1d": (lambda z: torch.nn.functional.conv1d(z[None], w[None]), UnsupportedError),
        "add_": (lambda z: w.add_(z[0]), UnsupportedError),
        "out=": (lambda z: torch.add(z, z, out=w), UnsupportedError),
        "numpy": (lambda z: z.numpy(), UnsupportedError),
        "asarray": (lambda z: np.asarray(z), DetachError),
        "float": (lambda z: float(z[0, 0]), DetachError),
        "item": (lambda z: z[0, 0].item(), DetachError),
        "of a 0-d tensor|being differentiated": (lambda z: torch.tensor(z[0, 0]), TypeError),
    }
    for words, (f, error) in refused.items():
        with pytest.raises(error, match=words):
            laplacians(lambda z, f=f: (f(z),), [x], [dx])


def test_what_would_lose_a_derivative_on_jax_raises():
    jax = pytest.importorskip("jax")
    for f in (jax.numpy.tanh, jax.numpy.sum, jax.nn.relu, jax.numpy.asarray, jax.jit(lambda z: z)):
        with pytest.raises(TypeError, match=r"Jet|being differentiated"):
            laplacians(lambda z, f=f: (f(z),), [jax.numpy.asarray(X)], [jax.numpy.asarray(DX)])


def test_a_function_of_jax_that_takes_no_jet_is_named_with_what_to_type():
    jnp = pytest.importorskip("jax.numpy")
    for f, name in (
        (lambda z: jnp.tanh(z), r"jnp\.tanh\(z\).*xp\.tanh"),
        (lambda z: jnp.where(z > 0, z, 0.0), r"jnp\.where\(z > 0.*xp"),
        (lambda z: jnp.linalg.det(z), r"jnp\.linalg\.det\(z\).*xp"),
    ):
        with pytest.raises(DetachError, match=name):
            pushforwards(lambda z, f=f: (f(z),), [jnp.ones((3, 3))], [jnp.ones((1, 3, 3))])


def captured_loss(w, x, dx):
    """A Laplacian of a gradient, whose captured weight is differentiated from outside."""

    def slope(z):
        return gradient(lambda q: xp.sum(xp.tanh(q @ w) ** 2), z)

    return xp.sum(xp.sin(laplacians(lambda z: (slope(z),), [x], [dx])[2][0]))


def test_a_captured_weight_keeps_its_gradient_through_both():
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    expected = gradient(lambda w: captured_loss(w, X, DX), W, backend="numpy")
    w = torch.tensor(W, requires_grad=True)
    captured_loss(w, torch.from_numpy(X), torch.from_numpy(DX)).backward()
    close(w.grad, expected)
    close(torch.func.grad(captured_loss)(w.detach(), torch.from_numpy(X), torch.from_numpy(DX)), expected)
    close(jax.jit(jax.grad(captured_loss))(*map(jax.numpy.asarray, (W, X, DX))), expected)
