"""laplacian against formulas, on every backend, alone and inside losses."""

from itertools import product

import numpy as np
import pytest

import polyad
from polyad import BatchNorm, Chain, Dense, gradient, hessian, laplacian, setup, trees, xp
from tests.examples import arrays, compiled, difference, host

MODES = ("auto", "forward", "reverse")
GENERATOR = np.random.Generator(np.random.Philox(11))
X = GENERATOR.normal(size=(6, 3))
W = GENERATOR.normal(size=(3, 4))
MODEL = Chain(Dense(2, 8, "tanh"), Dense(8, 8, "tanh"), Dense(8, 1))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 2)])
def test_laplacian_of_waves_has_the_shape_of_the_field(backend, mode, shape):
    x, w = arrays(backend, X, W)

    def field(x):  # (B, *shape)
        waves = xp.sin(x @ w)
        return (
            xp.reshape(waves, (6, *shape))
            if shape in ((4,), (2, 2))
            else xp.reshape(xp.sum(waves, axis=1), (6, *shape))
        )

    waves = -np.sin(X @ W) * (W**2).sum(0)
    expected = waves.reshape(6, *shape) if shape in ((4,), (2, 2)) else waves.sum(1).reshape(6, *shape)
    assert difference(laplacian(field, x, mode=mode, backend=backend), expected) < 1e-13


@pytest.mark.parametrize("mode", MODES)
def test_coordinates_may_have_several_axes(backend, mode):
    x = arrays(backend, X.reshape(3, 2, 3))
    actual = laplacian(lambda x: xp.sum(xp.sum(x, axis=2) ** 3, axis=1), x, mode=mode, backend=backend)
    assert difference(actual, (18 * X.reshape(3, 2, 3).sum(2)).sum(1)) < 1e-13


def test_one_point_is_a_vector_or_a_number(backend):
    x = arrays(backend, X[0])
    with polyad.use_backend(backend):
        assert difference(laplacian(lambda x: xp.sum(x**2) ** 2, x), np.array(20 * (X[0] ** 2).sum())) < 1e-14
        assert difference(laplacian(lambda x: x * xp.sum(x**2), x), 10 * X[0]) < 1e-14  # 2 x + 2 x + 2 n x
        assert float(laplacian(lambda x: x**3, 2.0)) == 12.0


def test_one_point_agrees_with_the_trace_of_the_hessian(backend):
    x = arrays(backend, X[0])

    def f(x):
        return xp.stack([xp.sin(x[0] * x[1]), x[2] ** 3 * x[0]])

    trace = np.trace(host(hessian(f, x, backend=backend))[0], axis1=1, axis2=2)
    assert difference(laplacian(f, x, backend=backend), trace) < 1e-14


def test_other_arguments_are_constants_and_aux_keeps_its_derivative(backend):
    x, w = arrays(backend, X, W)

    def field(w, x):
        u = xp.sin(x @ w)
        return u, {"u": u, "name": "waves"}

    laps, aux = laplacian(field, w, x, argnums=1, has_aux=True, backend=backend)
    assert difference(laps, -np.sin(X @ W) * (W**2).sum(0)) < 1e-13
    assert difference(aux["u"], np.sin(X @ W)) < 1e-14
    assert aux["name"] == "waves"

    def of_aux(w):
        return xp.sum(laplacian(field, w, x, argnums=1, has_aux=True)[1]["u"])

    assert difference(gradient(of_aux, w, backend=backend), X.T @ np.cos(X @ W)) < 1e-13


def test_without_arguments_it_returns_a_function(backend):
    f = laplacian(lambda x, power=1: x[:, 0] ** power, backend=backend)
    assert difference(f(arrays(backend, X), power=3), 6 * X[:, 0]) < 1e-14


def test_harmonic_functions_have_none(backend):
    actual = laplacian(lambda x: x[:, 0] ** 2 - x[:, 1] ** 2, arrays(backend, X), backend=backend)
    assert np.max(np.abs(host(actual)[0])) < 1e-14


@pytest.mark.parametrize("shapes", [((0, 3), (0,)), ((0, 3), (0, 2)), ((4, 3), (4, 0)), ((4, 0), (4, 2)), ((0,), ())])
def test_of_nothing_it_is_empty_or_zero(backend, shapes):
    x, y = arrays(backend, np.ones(shapes[0]), np.ones(shapes[1]))
    actual = laplacian(lambda x: y * (1 + xp.sum(x)), x, backend=backend)
    assert tuple(actual.shape) == shapes[1]
    assert not host(actual)[0].any()


def test_float32_stays_float32(backend):
    x = arrays(backend, X, dtype="float32")
    assert host(laplacian(lambda x: xp.sum(xp.sin(x) * 2.0, axis=1), x, backend=backend))[0].dtype == np.float32


@pytest.mark.parametrize("mode", MODES)
def test_batch_norm_in_training_mode_is_refused(backend, mode):
    model = Chain(Dense(2, 4, "tanh"), BatchNorm(4), Dense(4, 1))
    params, state = setup(0, model, backend=backend, dtype="float64")
    x = arrays(backend, X[:, :2])
    with polyad.use_backend(backend):
        with pytest.raises(polyad.errors.RowsMixError, match=r"laplacian: .*BatchNorm in training mode.*test_mode"):
            laplacian(polyad.StatefulLayer(model, params, state), x, mode=mode)
        net = polyad.StatefulLayer(model, params, polyad.test_mode(state))
        actual = host(laplacian(net, x, mode=mode))[0]
        full = host(hessian(net, x))[0]
    expected = np.stack([np.trace(full[b, :, b, :, b], axis1=1, axis2=2) for b in range(6)])
    assert difference(actual, expected) < 1e-12


def test_a_sum_over_rows_that_is_constant_does_not_hide_rows_that_mix(backend):
    x = arrays(backend, X)  # the rows of f sum to zero, whatever x is
    with pytest.raises(polyad.errors.RowsMixError):
        laplacian(lambda x: xp.sin(x) - xp.mean(xp.sin(x), axis=0), x, backend=backend)


def test_rows_that_mix_are_refused_inside_a_loss_and_are_nan_under_jit(backend):
    x = arrays(backend, X)

    def loss(x):
        return xp.sum(laplacian(lambda x: x**3 - xp.mean(x**2, axis=0), x) ** 2)

    with pytest.raises(polyad.errors.RowsMixError):
        gradient(loss, x, backend=backend)
    if backend == "jax":
        compiled = polyad.backends.get(backend).compile(lambda x: (loss(x),))
        assert np.isnan(host(compiled(x))[0])


@pytest.mark.parametrize(("inner", "outer"), list(product(MODES, ("forward", "reverse"))))
def test_it_is_differentiable_in_points_and_in_what_f_captures(backend, inner, outer):
    x, w = arrays(backend, X, np.array([1.5, -0.5, 2.0]))

    def loss(w, x):
        captured = xp.tanh(w)
        return xp.sum(laplacian(lambda x: xp.sum(captured * x**4, axis=1), x, mode=inner) ** 2)

    tanh = np.tanh(host(w)[0])
    laps = 12 * (tanh * X**2).sum(1, keepdims=True)
    expected = ((2 * laps * 12 * X**2).sum(0) * (1 - tanh**2), 2 * laps * 24 * tanh * X)
    assert difference(gradient(loss, w, x, argnums=(0, 1), mode=outer, backend=backend), expected) < 1e-12


@pytest.mark.parametrize(("inner", "outer"), list(product(MODES, ("forward", "reverse"))))
def test_perturbations_are_not_confused(backend, inner, outer):
    two = arrays(backend, np.array([2.0]))
    # d/dx of x * Laplacian of (x y^2 + y) = d/dx 2 x^2
    actual = gradient(
        lambda x: xp.sum(x * laplacian(lambda y: x * y**2 + y, 0 * x + 1, mode=inner)), two, mode=outer, backend=backend
    )
    assert host(actual)[0] == 8.0


def test_of_itself_it_is_the_biharmonic_operator_and_it_is_the_divergence_of_the_gradient(backend):
    x = arrays(backend, X[:, :2])
    wave = np.sin(X[:, 0]) * np.exp(0.5 * X[:, 1])  # an eigenfunction: -1 + 0.25

    def u(x):
        return xp.sin(x[:, 0]) * xp.exp(0.5 * x[:, 1])

    with polyad.use_backend(backend):
        assert difference(laplacian(laplacian(u), x), 0.75**2 * wave) < 1e-12
        assert difference(polyad.divergence(gradient(lambda x: xp.sum(u(x))), x), -0.75 * wave) < 1e-13


def test_a_net_keeps_its_state(backend):
    model = Chain(Dense(2, 4, "tanh"), BatchNorm(4), Dense(4, 1))
    params, state = setup(0, model, backend=backend, dtype="float64")
    net = polyad.StatefulLayer(model, params, state)
    x = arrays(backend, X[:, :2])
    with polyad.use_backend(backend):
        hessian(net, x)
        polyad.hvp(lambda x: xp.sum(net(x) ** 2), (x,), (x,))
        with pytest.raises(polyad.errors.RowsMixError):
            laplacian(net, x)
    assert net.state is state


def pinn_loss(params, x, state):
    """Residual of Laplace u + u^2 = f."""
    net = polyad.StatefulLayer(MODEL, params, state)

    def both(x):
        u = net(x)
        return u, u

    laps, u = laplacian(both, x, has_aux=True)
    return xp.sum((laps + u**2 - xp.cos(x[:, :1])) ** 2)


@pytest.fixture(scope="module")
def expected_of_pinn():
    params, state = setup(5, MODEL, backend="numpy", dtype="float64")
    return gradient(pinn_loss, params, X[:, :2], state, argnums=(0, 1), backend="numpy")


def test_the_loss_of_a_pinn_has_the_same_gradient_everywhere(backend, expected_of_pinn):
    params, state = setup(5, MODEL, backend=backend, dtype="float64")
    x = arrays(backend, X[:, :2])
    with polyad.use_backend(backend):
        grads = gradient(lambda params, x: pinn_loss(params, x, state), argnums=(0, 1))
        actual = compiled(backend, grads)(params, x)
        if backend == "numpy":
            assert polyad.check_gradients(pinn_loss, params, x, state, argnums=(0, 1)) < 1e-6
    assert difference(actual, expected_of_pinn) < 1e-11


@pytest.mark.parametrize("transform", ["grad", "jit(grad)", "jit(jacfwd)", "jit(grad(checkpoint))"])
def test_the_outer_pass_may_be_jax_itself(expected_of_pinn, transform):
    jax = pytest.importorskip("jax")
    params, state = setup(5, MODEL, backend="jax", dtype="float64")
    outer = {
        "grad": jax.grad,
        "jit(grad)": lambda f: jax.jit(jax.grad(f)),
        "jit(jacfwd)": lambda f: jax.jit(jax.jacfwd(f)),
        "jit(grad(checkpoint))": lambda f: jax.jit(jax.grad(jax.checkpoint(f))),
    }[transform]
    assert difference(outer(pinn_loss)(params, arrays("jax", X[:, :2]), state), expected_of_pinn[0]) < 1e-11


@pytest.mark.parametrize("transform", ["backward", "func.grad", "func.jacfwd"])
def test_the_outer_pass_may_be_torch_itself(expected_of_pinn, transform):
    torch = pytest.importorskip("torch")
    params, state = setup(5, MODEL, backend="torch", dtype="float64")
    x = arrays("torch", X[:, :2])
    if transform == "backward":
        params = trees.map(lambda p: p.requires_grad_(), params)
        pinn_loss(params, x, state).backward()
        actual = trees.map(lambda p: p.grad, params)
    else:
        actual = getattr(torch.func, transform.partition(".")[2])(pinn_loss)(params, x, state)
    assert difference(actual, expected_of_pinn[0]) < 1e-11


def test_the_outer_pass_may_be_autograd_itself(expected_of_pinn):
    autograd = pytest.importorskip("autograd")
    params, state = setup(5, MODEL, backend="numpy", dtype="float64")
    for default in ("numpy", "autograd"):
        with polyad.use_backend(default):
            assert difference(autograd.grad(pinn_loss)(params, X[:, :2], state), expected_of_pinn[0]) < 1e-11


def test_points_of_a_vmap():
    for name, module in (("jax", "jax"), ("torch", "torch.func")):
        vmap = pytest.importorskip(module).vmap
        actual = vmap(lambda p: laplacian(lambda p: xp.sum(p**4), p))(arrays(name, X))
        assert difference(actual, (12 * X**2).sum(1)) < 1e-13


def test_a_module_of_torch_keeps_its_parameters():
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    layers = [torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.LayerNorm(8), torch.nn.Linear(8, 1)]
    module = torch.nn.Sequential(*layers).double()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    x = arrays("torch", X[:, :2])
    actual = laplacian(module, x)
    full = hessian(lambda x: module(x).sum(), x, mode="reverse")
    assert difference(actual[:, 0], torch.einsum("bibi->b", full)) < 1e-12
    (actual**2).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 1e-3 for p in (module[0].weight, module[3].weight))


def test_many_coordinates_through_a_fused_norm_of_torch_are_right():
    torch = pytest.importorskip("torch")
    norm = torch.nn.LayerNorm(70, dtype=torch.float64)
    weight = torch.linspace(0.5, 2.0, 70, dtype=torch.float64)
    x = torch.sin(torch.arange(140.0, dtype=torch.float64)).reshape(2, 70)

    def written_out(x):
        centred = x - x.mean(-1, keepdim=True)
        return ((weight * centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + norm.eps)) ** 3).sum(-1)

    hess = torch.stack([torch.func.hessian(written_out)(row) for row in x])
    actual = laplacian(lambda x: ((weight * norm(x)) ** 3).sum(-1), x)
    assert difference(actual, torch.einsum("bii->b", hess)) < 1e-10


def test_more_coordinates_than_go_in_one_sweep(backend):
    x = np.linspace(0.2, 1.4, 140).reshape(2, 70)
    for mode in ("auto", "forward"):
        f = laplacian(lambda x: xp.sum(xp.sin(x), axis=1) * x[:, 0], backend=backend, mode=mode)
        actual = compiled(backend, f)(arrays(backend, x))
        assert difference(actual, -np.sin(x).sum(1) * x[:, 0] + 2 * np.cos(x[:, 0])) < 1e-12


def test_large_batches_take_the_directions_one_by_one(backend):
    x = GENERATOR.normal(size=(200, 3))
    actual = laplacian(lambda x: xp.sum(xp.sin(x), axis=1, keepdims=True) ** 2, arrays(backend, x), backend=backend)
    sine = np.sin(x).sum(1, keepdims=True)
    expected = 2 * ((np.cos(x) ** 2).sum(1, keepdims=True) - sine**2)
    assert difference(actual, expected) < 1e-13


def test_errors_say_what_came(backend):
    x = arrays(backend, X)
    with polyad.use_backend(backend):
        with pytest.raises(polyad.errors.ArgumentError, match=r"laplacian: x has shape \(6, 3\), f returned \(\);"):
            laplacian(lambda x: xp.sum(x**2), x)
        with pytest.raises(polyad.errors.ArgumentError, match=r"f returned \(6, 3\), \(6,\);"):
            laplacian(lambda x: (x, x[:, 0]), x)
        with pytest.raises(polyad.errors.ArgumentError, match=r"one array of points; args\[0\] has 2 leaves"):
            laplacian(lambda p: p["a"], {"a": x, "b": x})
        with pytest.raises(polyad.errors.ModeError, match="laplacian: mode='finite_difference'"):
            laplacian(lambda x: x, x, mode="finite_difference")
        with pytest.raises(polyad.errors.ModeError, match="no mode 'sideways'"):
            laplacian(lambda x: x, x, mode="sideways")
