"""laplacian and derivative by jets, and by passes of the framework where jets would say something else."""

import numpy as np
import pytest

import polyad
from polyad import derivative, explain, gradient, hessian, laplacian, nested_switching, xp
from polyad.errors import UnsupportedError
from tests.examples import arrays, difference, host

X = np.random.Generator(np.random.Philox(3)).normal(size=(5, 3))
W = np.random.Generator(np.random.Philox(4)).normal(size=(3, 4))
KINKS = np.array([0.0, 1.0, -1.0, 0.5])


def other_mode(backend):
    return "forward" if backend == "numpy" else "reverse"


def first_line(operator, f, *args, **options):
    return str(explain(operator, f, *args, **options)).splitlines()[0]


def test_explain_says_that_jets_run(backend):
    x, w, t = arrays(backend, X, W, 0.3)
    with polyad.use_backend(backend):
        said = first_line(laplacian, lambda x: xp.sin(x @ w), x)
        assert said == f"laplacian on {backend}: jets, 1 sweep: 1 forward Laplacian through f"
        said = first_line(derivative, xp.sin, t, order=4)
        assert said == f"derivative on {backend}: jets, 1 sweep: one Taylor series of order 4 through f"
        for mode in ("forward", other_mode(backend)):
            assert f"laplacian on {backend}: {mode}, " in first_line(laplacian, lambda x: xp.sin(x), x, mode=mode)


def test_a_function_of_jax_goes_by_passes_of_jax_and_explain_says_so():
    jnp = pytest.importorskip("jax.numpy")
    x, t = arrays("jax", X, 0.3)
    said = first_line(laplacian, lambda x: jnp.sum(jnp.sin(x), axis=1), x)
    assert said.startswith("laplacian on jax: reverse, ")
    assert (
        "jets do not go through f (a function in it takes arrays of its framework alone, as all of jnp and cupy do)"
        in said
    )
    assert difference(laplacian(lambda x: jnp.sum(jnp.sin(x), axis=1), x), -np.sin(X).sum(1)) < 1e-14
    assert "jets do not go through f" in first_line(derivative, jnp.sin, t, order=3)
    assert difference(derivative(jnp.sin, t, order=3), np.array(-np.cos(0.3))) < 1e-14


def rounding():
    """y = round(x) x forward, slope 5 x backward: a rule of its own, which jets do not see."""
    torch = pytest.importorskip("torch")

    class Rounding(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(*[x] if isinstance(x, torch.Tensor) else [])
            return torch.round(x) * x

        @staticmethod
        def backward(ctx, cotangent):
            return 5 * ctx.saved_tensors[0] * cotangent

    return Rounding.apply


def test_a_rule_of_its_own_in_torch_is_kept():
    f, (x, t) = rounding(), arrays("torch", X, 0.3)
    assert "no_grad() or an autograd.Function in f" in first_line(laplacian, lambda x: f(x) + x**2, x)
    assert difference(laplacian(lambda x: f(x) + x**2, x), np.full(X.shape, 7.0)) < 1e-14
    assert difference(derivative(f, t, order=2), np.array(5.0)) < 1e-14
    vmap = pytest.importorskip("torch").func.vmap
    rows = vmap(lambda p: laplacian(lambda p: xp.sum(p**4), p))(x)
    assert difference(rows, (12 * X**2).sum(1)) < 1e-13


def square():
    """x^2 by a rule of its own, which is right, so that its first derivative tells nothing to jets."""
    torch = pytest.importorskip("torch")

    class Square(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return x * x

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def backward(ctx, cotangent):
            return 2 * ctx.saved_tensors[0] * cotangent

        @staticmethod
        def jvp(ctx, dx):
            return 2 * ctx.saved_tensors[0] * dx

    return Square.apply


def test_an_outer_derivative_sees_through_a_rule_of_its_own_in_torch():
    torch, f = pytest.importorskip("torch"), square()
    x, t = (z.requires_grad_() for z in arrays("torch", X, 0.3))
    lap = laplacian(lambda x: xp.sum(f(x) * x**2, axis=1), x)
    assert difference(lap, (12 * X**2).sum(1)) < 1e-13
    assert difference(torch.autograd.grad(lap.sum(), x)[0], 24 * X) < 1e-13
    second = derivative(lambda t: f(t) * t**2, t, order=2)
    assert difference(torch.autograd.grad(second, t)[0], np.array(24 * 0.3)) < 1e-13
    jac = polyad.batched_jacobian(f, x, mode="forward")
    assert difference(torch.autograd.grad((jac**2).sum(), x)[0], 8 * X) < 1e-13


def test_forward_in_forward_through_a_rule_of_its_own_in_torch_is_refused():
    torch, f = pytest.importorskip("torch"), square()
    x, t = arrays("torch", X), arrays("torch", 0.3)

    def fourth(t):
        return f(t) * t**2

    one = torch.ones_like(t)
    dropped = torch.func.jvp(lambda t: torch.func.jvp(fourth, (t,), (one,))[1], (t,), (one,))[1]
    assert difference(dropped, np.array(12 * 0.3**2)) > 0.1  # the error of torch itself
    with pytest.raises(UnsupportedError, match="Square: forward mode in forward mode"):
        hessian(lambda x: xp.sum(f(x) * x**2), x, mode="forward")
    assert difference(derivative(fourth, t, order=2), np.array(12 * 0.3**2)) < 1e-14
    assert difference(hessian(fourth, t), np.array(12 * 0.3**2)) < 1e-14
    inner = torch.func.jvp(lambda t: polyad.gradient(fourth, t), (t,), (one,))[1]
    assert difference(inner, np.array(12 * 0.3**2)) < 1e-14


def test_no_grad_inside_of_f_makes_constants():
    torch = pytest.importorskip("torch")
    x = arrays("torch", X)

    def field(x):
        with torch.no_grad():
            constant = x**2
        return constant * x**2

    assert difference(laplacian(field, x), 2 * X**2) < 1e-14
    assert difference(laplacian(lambda x: x.detach() ** 2 * x**2, x), 2 * X**2) < 1e-14


def test_modules_of_torch_go_by_jets_fused_norms_too():
    torch = pytest.importorskip("torch")
    x = arrays("torch", X)
    module = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).double()
    assert "laplacian on torch: jets, " in first_line(laplacian, module, x)
    assert difference(laplacian(module, x), laplacian(module, x, mode="reverse")) < 1e-13
    norm = torch.nn.LayerNorm(8)
    normed = torch.nn.Sequential(torch.nn.Linear(3, 8), norm, torch.nn.Tanh(), torch.nn.Linear(8, 2)).double()
    assert "laplacian on torch: jets, " in first_line(laplacian, normed, x)
    assert difference(laplacian(normed, x), laplacian(normed, x, mode="reverse")) < 1e-12
    both = {
        mode: torch.autograd.grad((laplacian(module, x, mode=mode) ** 2).sum(), [*module.parameters()][:3])
        for mode in ("auto", "reverse")
    }
    assert difference(list(both["auto"]), list(both["reverse"])) < 1e-12


AT_KINKS = {
    "abs": lambda x: xp.abs(x) + x**2,
    "x abs": lambda x: x * xp.abs(x),
    "abs of a square": lambda x: xp.abs(x**2 - x),
    "relu": lambda x: xp.relu(x) + x**2,
    "x relu": lambda x: x * xp.relu(x),
    "relu squared": lambda x: xp.relu(x) ** 2,
    "maximum": lambda x: (x - 1) * xp.maximum(x**2, x),
    "minimum": lambda x: xp.minimum(x**2, x**3),
    "clip": lambda x: xp.clip(x, -1.0, 1.0) + x**2,
    "x clip": lambda x: (x - 1) * xp.clip(x, -1.0, 1.0),
    "clip of a square": lambda x: xp.clip(x**2, 0.0, 1.0),
    "where": lambda x: xp.where(x > 0, xp.sqrt(xp.where(x > 0, x, 1.0)), x**2),
    "sign": lambda x: xp.sign(x) * x**2,
    "floor": lambda x: xp.floor(x) * x**2,
    "stop_gradient": lambda x: polyad.stop_gradient(x) * x**2,
    "silu": lambda x: xp.silu(x),
    "power": lambda x: x**3.0,
    "quotient": lambda x: xp.sin(x) / xp.where(x == 0, 1.0, x),
}


@pytest.mark.parametrize("name", AT_KINKS)
def test_at_a_kink_the_framework_has_its_own_way(backend, name):
    f = AT_KINKS[name]
    for point in KINKS:  # one by one: a point where all agree must not lean on one where they do not
        x = arrays(backend, np.full((1, 1), point))
        actual, expected = (host(laplacian(f, x, mode=m, backend=backend))[0] for m in ("auto", other_mode(backend)))
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12, err_msg=f"{name} at {point}")
        of_order_2 = host(derivative(f, arrays(backend, point), order=2, backend=backend))[0]
        np.testing.assert_allclose(of_order_2, expected[0, 0], rtol=1e-12, atol=1e-12, err_msg=f"{name} at {point}")


def test_ties_in_rows(backend):
    x = arrays(backend, np.array([[1.0, 1.0, -1.0], [0.0, 2.0, 2.0]]))
    for f in (lambda x: xp.sort(x**3, axis=1), lambda x: xp.max(x**2, axis=1), lambda x: xp.prod(x, axis=1) ** 2):
        actual, expected = (host(laplacian(f, x, mode=m, backend=backend))[0] for m in ("auto", other_mode(backend)))
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


def test_the_branch_that_is_not_taken_may_be_infinite(backend):
    x = arrays(backend, np.array([[0.0], [2.0]]))
    with np.errstate(divide="ignore", invalid="ignore"):
        actual = laplacian(lambda x: xp.where(x > 0.1, xp.log(x), x**2), x, backend=backend)
    assert difference(actual, np.array([[2.0], [-0.25]])) < 1e-14  # mode="reverse": NaN at 0


def test_a_gradient_inside_of_the_field(backend):
    x, w = arrays(backend, X, W[:, 0])

    def field(w, x):
        slope = gradient(lambda z: xp.sum(xp.sin(w * z) ** 2), x)  # w sin(2 w x)
        return xp.sum(slope, axis=1)

    def loss(w):
        return xp.sum(laplacian(field, w, x, argnums=1) ** 2)

    with polyad.use_backend(backend):
        expected = (-4 * W[:, 0] ** 3 * np.sin(2 * W[:, 0] * X)).sum(1)
        assert difference(laplacian(field, w, x, argnums=1), expected) < 1e-13
        inner = -12 * W[:, 0] ** 2 * np.sin(2 * W[:, 0] * X) - 8 * W[:, 0] ** 3 * X * np.cos(2 * W[:, 0] * X)
        assert difference(gradient(loss, w), (2 * expected[:, None] * inner).sum(0)) < 1e-12


@pytest.mark.parametrize("policy", ["off", "taped", "recompute", "forward_over_reverse"])
def test_whatever_is_kept_for_the_pass_around_the_numbers_are_the_same(backend, policy):
    x, w = arrays(backend, X, W)

    def loss(w, x):
        return xp.sum(laplacian(lambda x: xp.sin(x @ w), x) ** 2)

    with nested_switching(policy), polyad.use_backend(backend):
        actual = gradient(loss, w, x, argnums=(0, 1))
    laps, size = -np.sin(X @ W) * (W**2).sum(0), (W**2).sum(0)
    by_u = 2 * laps * -np.cos(X @ W) * size
    expected = (X.T @ by_u + (2 * laps * -np.sin(X @ W)).sum(0) * 2 * W, by_u @ W.T)
    assert difference(actual, expected) < 1e-12


def test_functions_of_jax_inside_a_compiled_loss():
    jax = pytest.importorskip("jax")
    x, w = arrays("jax", X, W)
    for module in (xp, jax.numpy):

        def loss(w, x, module=module):
            return xp.mean(laplacian(lambda x: module.tanh(x @ w), x) ** 2)

        grads = jax.jit(jax.grad(loss, argnums=(0, 1)))(w, x)
        expected = jax.grad(lambda w, x: xp.mean(laplacian(lambda x: xp.tanh(x @ w), x, mode="reverse") ** 2), (0, 1))
        assert difference(grads, expected(w, x)) < 1e-12
        rows = jax.jit(jax.vmap(lambda p, module=module: laplacian(lambda p: module.sum(p**4), p)))(x)
        assert difference(rows, (12 * X**2).sum(1)) < 1e-13


def test_an_error_of_the_function_is_its_own(backend):
    def field(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        laplacian(field, arrays(backend, X), backend=backend)


def test_a_high_order_takes_no_exponential_time(backend):
    calls = []

    def f(t):
        calls.append(1)
        return xp.exp(0.5 * t) * xp.sin(t)

    actual = derivative(f, arrays(backend, 0.3), order=20, backend=backend)
    expected = ((0.5 + 1j) ** 20 * np.exp((0.5 + 1j) * 0.3)).imag
    assert difference(actual, np.array(expected)) < 1e-10
    assert len(calls) <= 3


def test_derivatives_of_a_net_with_weights_outside(backend):
    w, t = arrays(backend, np.array([0.5, 1.5]), 0.3)

    def loss(w):
        return xp.sum(derivative(lambda t: {"u": xp.exp(w * t)}, t, order=5)["u"])

    expected = (5 * host(w)[0] ** 4 + 0.3 * host(w)[0] ** 5) * np.exp(0.3 * host(w)[0])
    assert difference(gradient(loss, w, backend=backend), expected) < 1e-12


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


WIDE = np.random.Generator(np.random.Philox(5)).normal(size=(3, 40))


def passes_of_the_framework(monkeypatch, torch):
    """Numbers of columns that torch.func pushes from now on."""
    from polyad.backends.torch import Torch

    pushed = []
    own = Torch.pushforwards

    def pushforwards(self, f, xs, dxs, has_aux=False):
        pushed.append(len(next(dx for dx in dxs if dx is not None)))
        return own(self, f, xs, dxs, has_aux)

    monkeypatch.setattr(Torch, "pushforwards", pushforwards)
    return pushed


@pytest.mark.parametrize("policy", ["auto", "taped", "recompute", "forward_over_reverse"])
def test_columns_of_a_whole_jacobian_on_torch_go_by_jets_and_have_every_order(torch, policy, monkeypatch):
    """y = tanh((x - mean of its rows) w): the mean mixes rows. The outer derivative is that of the rows."""
    pushed = passes_of_the_framework(monkeypatch, torch)
    x, w = (z.requires_grad_() for z in arrays("torch", X, WIDE))

    def f(x):
        return torch.tanh((x - x.mean(0)) @ w), torch.sin(x).sum()

    def moments(mode):
        J, _ = polyad.jacobian(f, x, mode=mode)
        return (J**2).sum() + (J[1, 2] ** 3).sum()

    J, line = polyad.jacobian(f, x)
    slope = 1 - np.tanh((X - X.mean(0)) @ WIDE) ** 2
    expected = slope[:, :, None, None] * WIDE.T[None, :, None, :] * (np.eye(5) - 0.2)[:, None, :, None]
    assert difference(J.detach(), expected) < 1e-14
    assert difference(line.detach(), np.cos(X)) < 1e-14
    with nested_switching(policy):
        found = torch.autograd.grad(moments("auto"), (x, w))
        assert not pushed or policy not in ("auto", "taped")
        reverse = torch.autograd.grad(moments("reverse"), (x, w))
    for a, b in zip(found, reverse, strict=True):
        assert b.abs().max() > 1
        assert difference(a, b) < 1e-12


def test_columns_by_jets_that_the_framework_contradicts_are_its_own(torch, monkeypatch):
    """A rule of its own, and a constant under no_grad(), in a function of more outputs than inputs."""
    pushed, f = passes_of_the_framework(monkeypatch, torch), rounding()
    x, w = arrays("torch", X, WIDE)
    J = polyad.jacobian(lambda x: f(x) @ w, x, mode="reverse")
    with pytest.raises(Exception, match="jvp"):  # torch's forward mode does not have this rule: then by rows
        polyad.jacobian(lambda x: f(x) @ w, x, mode="forward")
    assert difference(polyad.jacobian(lambda x: f(x) @ w, x), J) < 1e-14
    slope = 5 * X[:, None, :] * WIDE.T[None]
    assert difference(J, slope[:, :, None, :] * np.eye(5)[:, None, :, None]) < 1e-13

    def cut(x):
        with torch.no_grad():
            size = torch.sum(x**2)
        return (x * size) @ w

    pushed.clear()
    expected = np.sum(X**2) * WIDE.T[None, :, None, :] * np.eye(5)[:, None, :, None]
    assert difference(polyad.jacobian(cut, x), expected) < 1e-12
    assert pushed == [15]  # jets were refused, and so was torch's forward mode, which does not see no_grad()


def test_columns_by_jets_of_several_arguments_with_aux_in_chunks(torch, monkeypatch):
    """y = a exp(b) w for a and b of other shapes: the Jacobians are exp(b) w, and a exp(b) w."""
    pushed = passes_of_the_framework(monkeypatch, torch)
    a, b, w = arrays("torch", X[:, 0], 0.7, WIDE)

    def f(a, b):
        return (a[:, None] * torch.exp(b) * w[0], torch.exp(b) * w[1]), {"sum": a.sum()}

    for chunk in (None, 2):
        ((by_a, by_b), (none, only)), aux = polyad.jacobian(f, a, b, argnums=(0, 1), has_aux=True, chunk_size=chunk)
        assert difference(by_a, np.eye(5)[:, None] * np.exp(0.7) * WIDE[0][:, None]) < 1e-14
        assert difference(by_b, X[:, :1] * np.exp(0.7) * WIDE[0]) < 1e-14
        assert none.shape == (40, 5)
        assert not none.any()
        assert difference(only, np.exp(0.7) * WIDE[1]) < 1e-14
        assert difference(aux["sum"], X[:, 0].sum()) < 1e-14
    assert not pushed


def pushes_of_autograd(monkeypatch):
    """Whether autograd's own forward mode ran, one entry for each direction."""
    pytest.importorskip("autograd")
    from polyad.backends.autograd import Autograd

    pushed, own = [], Autograd.pushforward
    monkeypatch.setattr(Autograd, "pushforward", lambda *args: pushed.append(1) or own(*args))
    return pushed


@pytest.mark.parametrize("policy", ["auto", "taped", "recompute", "forward_over_reverse"])
def test_columns_of_a_whole_jacobian_on_autograd_go_by_jets(policy, monkeypatch):
    """y = tanh((x - mean of its rows) w), as on torch; autograd has one direction in a pass."""
    pushed = pushes_of_autograd(monkeypatch)

    def f(x, w):
        return xp.tanh((x - xp.mean(x, axis=0)) @ w), xp.sum(xp.sin(x))

    def moments(x, w, mode):
        J, _ = polyad.jacobian(f, x, w, mode=mode)
        return xp.sum(J**2) + xp.sum(J[1, 2] ** 3)

    with polyad.use_backend("autograd"), nested_switching(policy):
        J, line = polyad.jacobian(f, X, WIDE)
        assert policy not in ("auto", "taped") or not pushed
        slope = 1 - np.tanh((X - X.mean(0)) @ WIDE) ** 2
        expected = slope[:, :, None, None] * WIDE.T[None, :, None, :] * (np.eye(5) - 0.2)[:, None, :, None]
        assert difference(J, expected) < 1e-14
        assert difference(line, np.cos(X)) < 1e-14
        assert str(explain(polyad.jacobian, f, X, WIDE)).startswith("jacobian on autograd: forward, 15 sweeps")
        found = gradient(moments, X, WIDE, "auto", argnums=(0, 1))
        reverse = gradient(moments, X, WIDE, "reverse", argnums=(0, 1))
    for a, b in zip(found, reverse, strict=True):
        assert np.abs(b).max() > 1
        assert difference(a, b) < 1e-12


@pytest.mark.parametrize("operator", [polyad.jacobian, polyad.batched_jacobian])
def test_a_rule_of_its_own_in_autograd_is_kept(operator, monkeypatch):
    """y = round(x) x forward, slope 5 x backward, which jets do not see: they go through what NumPy does."""
    extend = pytest.importorskip("autograd.extend")
    rounded = extend.primitive(lambda x: np.round(x) * x)
    extend.defvjp(rounded, lambda y, x: lambda g: 5 * g * x)
    slope = 5 * X[:, None, :] * WIDE.T[None]
    expected = slope if operator is polyad.batched_jacobian else slope[:, :, None, :] * np.eye(5)[:, None, :, None]
    with polyad.use_backend("autograd"):
        for mode in ("auto", "forward"):
            assert difference(operator(lambda x: rounded(x) @ WIDE, X, mode=mode), expected) < 1e-13
