"""Derivatives inside derivatives: order, modes, captured arrays, the frameworks' own outer passes."""

import threading
from itertools import product

import numpy as np
import pytest

import polyad
from polyad import gradient, jacobian, jvp, setup, trees, value_and_gradient, vjp, xp
from tests.examples import COUPLED, FIELD, T, X, Y, arrays, difference, gradient_loss, host, jacobian_loss

MODES = ("forward", "reverse")
POINT = np.array([0.3, 0.7, -0.4])


@pytest.mark.parametrize("modes", list(product(MODES, repeat=3)))
def test_third_derivative_in_every_mix_of_modes(backend, modes):
    def f(x):
        return xp.sum(xp.sin(x) * x**2)

    def once_more(f, mode):
        return lambda x: xp.sum(gradient(f, x, mode=mode))

    x = arrays(backend, POINT)
    actual = gradient(once_more(once_more(f, modes[0]), modes[1]), x, mode=modes[2], backend=backend)
    expected = 6 * np.cos(POINT) - 6 * POINT * np.sin(POINT) - POINT**2 * np.cos(POINT)
    assert difference(actual, expected) < 1e-13


@pytest.mark.parametrize(("inner", "outer"), list(product(MODES, repeat=2)))
def test_perturbations_are_not_confused(backend, inner, outer):
    one, two = arrays(backend, 1.0, 2.0)
    actual = gradient(lambda x: x * gradient(lambda y: x + y, one, mode=inner), two, mode=outer, backend=backend)
    assert float(host(actual)[0]) == 1.0


@pytest.mark.parametrize(("inner", "outer"), list(product(MODES, repeat=2)))
def test_an_inner_call_holds_other_uses_of_its_own_argument_constant(backend, inner, outer):
    # d/dx of the partial derivative of y * g(x) in y at y = x, where g(x) = x^2 is computed outside: 2 x
    def outer_function(x):
        g = x**2
        return xp.sum(gradient(lambda y: xp.sum(y * g), x, mode=inner))

    assert difference(gradient(outer_function, arrays(backend, POINT), mode=outer, backend=backend), 2 * POINT) < 1e-14


@pytest.mark.parametrize(("inner", "outer"), list(product(MODES, repeat=2)))
def test_captured_arrays_keep_their_gradient(backend, inner, outer):
    w, x = arrays(backend, np.array([1.5, -0.5, 2.0]), POINT)

    def loss(w):
        captured = xp.tanh(w)  # neither a leaf nor an argument of the inner call
        return xp.sum(gradient(lambda x: xp.sum(captured * x**3), x, mode=inner) ** 2)

    slope = 3 * POINT**2
    tanh = np.tanh(host(w)[0])
    actual = gradient(loss, w, mode=outer, backend=backend)
    assert difference(actual, 2 * tanh * (1 - tanh**2) * slope**2) < 1e-13


def test_inner_and_direct_calls_in_one_loss_add_up(backend):
    params, state = setup(3, FIELD, backend=backend, dtype="float64")
    t = arrays(backend, T)

    def loss(params):
        net = polyad.StatefulLayer(FIELD, params, state)
        return gradient_loss(params, t, state) + xp.sum(net(t) ** 2)

    parts = [gradient(lambda p: gradient_loss(p, t, state), params, backend=backend)]
    parts.append(gradient(lambda p: xp.sum(polyad.StatefulLayer(FIELD, p, state)(t) ** 2), params, backend=backend))
    total = trees.map(lambda a, b: a + b, *parts)
    assert difference(gradient(loss, params, backend=backend), total) < 1e-12


def test_jacobian_loss_has_the_gradient_of_finite_differences(backend):
    params, state = setup(0, COUPLED, backend=backend, dtype="float64")
    x, y = arrays(backend, X, Y)

    def loss(params, x, y):
        return jacobian_loss(params, x, y, state)

    with polyad.use_backend(backend):
        exact = gradient(loss, params, x, y, argnums=(0, 1, 2))
        estimate = gradient(loss, params, x, y, argnums=(0, 1, 2), mode="finite_difference")
    assert difference(exact, estimate) < 1e-6


def reference(loss, model, *data):
    params, state = setup(0, model, backend="numpy", dtype="float64")
    return host(gradient(loss, params, *data, state, backend="numpy"))


@pytest.fixture(scope="module")
def expected():
    return {"jacobian": reference(jacobian_loss, COUPLED, X, Y), "gradient": reference(gradient_loss, FIELD, T)}


CASES = {"jacobian": (jacobian_loss, COUPLED, (X, Y)), "gradient": (gradient_loss, FIELD, (T,))}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("transform", ["grad", "jit(grad)", "jacfwd", "grad(checkpoint)"])
def test_the_outer_pass_may_be_jax_itself(expected, name, transform):
    jax = pytest.importorskip("jax")
    loss, model, data = CASES[name]
    params, state = setup(0, model, backend="jax", dtype="float64")
    data = [arrays("jax", d) for d in data]
    outer = {
        "grad": jax.grad,
        "jit(grad)": lambda f: jax.jit(jax.grad(f)),
        "jacfwd": jax.jacfwd,
        "grad(checkpoint)": lambda f: jax.grad(jax.checkpoint(f)),
    }[transform]
    assert difference(outer(loss)(params, *data, state), expected[name]) < 1e-12


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("transform", ["backward", "autograd.grad", "func.grad", "func.jacfwd"])
def test_the_outer_pass_may_be_torch_itself(expected, name, transform):
    torch = pytest.importorskip("torch")
    loss, model, data = CASES[name]
    params, state = setup(0, model, backend="torch", dtype="float64")
    data = [arrays("torch", d) for d in data]
    if transform.startswith("func"):
        outer = getattr(torch.func, transform.partition(".")[2])
        actual = outer(loss)(params, *data, state)
    else:
        params = trees.map(lambda p: p.requires_grad_(), params)
        if transform == "backward":
            loss(params, *data, state).backward()
            actual = trees.map(lambda p: p.grad, params)
        else:
            actual = torch.autograd.grad(loss(params, *data, state), trees.leaves(params))
    assert difference(actual, expected[name]) < 1e-12


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("default", ["numpy", "autograd"])
def test_the_outer_pass_may_be_autograd_itself(expected, name, default):
    autograd = pytest.importorskip("autograd")
    loss, model, data = CASES[name]
    params, state = setup(0, model, backend="numpy", dtype="float64")
    with polyad.use_backend(default):
        assert difference(autograd.grad(loss)(params, *data, state), expected[name]) < 1e-12


def test_a_gradient_inside_vmap_is_the_gradient_of_each_row():
    for name, vmap in (("jax", "jax"), ("torch", "torch.func")):
        module = pytest.importorskip(vmap)
        x = arrays(name, X)
        rows = module.vmap(lambda row: gradient(lambda r: xp.sum(r**3), row))(x)
        assert difference(rows, 3 * X**2) < 1e-14


def test_a_gradient_inside_a_scan_trains_as_the_loop_does():
    jax = pytest.importorskip("jax")
    x0 = arrays("jax", POINT)

    def step(x, _):
        return x - 0.1 * gradient(lambda y: xp.sum(y**4), x), None

    def by_scan(x):
        return xp.sum(jax.lax.scan(step, x, None, length=5)[0] ** 2)

    def by_loop(x):
        for _ in range(5):
            x, _ = step(x, None)
        return xp.sum(x**2)

    assert difference(jax.jit(jax.grad(by_scan))(x0), jax.grad(by_loop)(x0)) < 1e-13


def test_torch_results_carry_a_graph_only_where_somebody_could_ask_for_it():
    torch = pytest.importorskip("torch")
    x, w = torch.ones(3, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    plain = value_and_gradient(lambda x: xp.sum(x**2), x)
    assert not any(result.requires_grad for result in plain)
    value, grad = value_and_gradient(lambda x: w * xp.sum(x**3), x)
    (value + grad.sum()).backward()
    assert float(w.grad) == 3.0 + 9.0
    with torch.no_grad():
        assert not gradient(lambda x: w * xp.sum(x**2), x).requires_grad
    assert x.grad is None


def test_torch_forward_mode_around_a_gradient_is_not_dropped():
    torch = pytest.importorskip("torch")
    from torch.autograd import forward_ad

    x = torch.tensor(POINT)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        value, grad = value_and_gradient(lambda x: xp.sum(x**3), dual)
        tangents = [forward_ad.unpack_dual(result).tangent for result in (value, grad)]
    assert difference(tangents, [np.sum(3 * POINT**2), 6 * POINT]) < 1e-14


def test_an_exception_inside_f_leaves_everything_as_it_was(backend):
    x = arrays(backend, POINT)

    def broken(x):
        gradient(lambda y: xp.sum(y**2), x)
        raise KeyError("inside f")

    scope = polyad.backends.Scope()
    for mode in MODES:
        with pytest.raises(KeyError, match="inside f"):
            gradient(lambda x, mode=mode: xp.sum(gradient(broken, x, mode=mode)), x, backend=backend)
    assert scope.is_here()
    assert difference(gradient(lambda x: xp.sum(x**2), x, backend=backend), 2 * POINT) < 1e-15


@pytest.mark.parametrize("mode", MODES)
def test_threads_differentiate_on_their_own_backends_at_once(mode):
    wrong: list[str] = []

    def work(name):
        x = arrays(name, POINT)
        for _ in range(30):
            with polyad.use_backend(name):
                inner = gradient(lambda x: xp.sum(gradient(lambda y: xp.sum(xp.sin(y) * x), x, mode=mode)), x)
            if difference(inner, np.cos(POINT) - POINT * np.sin(POINT)) > 1e-12:
                wrong.append(name)

    names = [info.name for info in polyad.backends() if info.installed]
    threads = [threading.Thread(target=work, args=(name,)) for name in (*names, *names)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_inner_call_on_an_ndarray_inherits_the_backend_around_it():
    pytest.importorskip("autograd")
    seen = []

    def outer(x):
        seen.append(polyad.backends.current().name)
        inner = gradient(lambda z: (seen.append(polyad.backends.current().name), xp.sum(z * x))[1], POINT)
        return xp.sum(inner**2)

    assert difference(gradient(outer, POINT, backend="autograd"), 2 * POINT) < 1e-14
    assert seen == ["autograd", "autograd"]


def test_products_nest_in_jacobians(backend):
    x, v = arrays(backend, POINT, np.array([1.0, -2.0, 0.5]))

    def by_jvp(x):
        return jvp(lambda y: y**3, (x,), (v,))[1]

    def by_vjp(x):
        return vjp(lambda y: y**3, x)[1](v)[0]

    for f in (by_jvp, by_vjp):
        for mode in MODES:
            jac = jacobian(f, x, mode=mode, backend=backend)
            assert difference(jac, np.diag(6 * POINT * host(v)[0])) < 1e-13


def test_numpy_and_autograd_give_the_same_gradients_of_example_1():
    """Jets and a tape: two engines that share no rule."""
    pytest.importorskip("autograd")
    found = {}
    for name in ("numpy", "autograd"):
        params, state = setup(0, COUPLED, backend=name, dtype="float64")
        x, y = arrays(name, X, Y)
        found[name] = value_and_gradient(jacobian_loss, params, x, y, state, argnums=(0, 1, 2), backend=name)
    leaves = list(zip(*(host(found[name]) for name in found), strict=True))
    assert len(leaves) == 1 + len(trees.leaves(params)) + 2
    for jets, tape in leaves:
        assert np.max(np.abs(jets - tape)) <= 1e-12 * np.max(np.abs(tape))
        assert np.max(np.abs(tape)) > 1e-3
