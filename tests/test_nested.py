"""The switching rule: every strategy gives the numbers of the framework untouched."""

import threading
import weakref

import numpy as np
import pytest

import polyad
from polyad import explain, gradient, nested_switching, setup, trees, value_and_gradient, xp
from polyad.errors import ArgumentError
from polyad.nested import _of_environment, policy
from tests.examples import COUPLED, FIELD, T, X, Y, arrays, difference, gradient_loss, host, jacobian_loss

LOSSES = {"jacobian": (jacobian_loss, COUPLED, (X, Y)), "gradient": (gradient_loss, FIELD, (T,))}


@pytest.fixture
def strategies(backend):
    return (*polyad.backends.get(backend).strategies, "auto")


@pytest.mark.parametrize("name", LOSSES)
def test_strategies_agree_with_the_framework_untouched(backend, strategies, name):
    loss, model, data = LOSSES[name]
    params, state = setup(0, model, backend=backend, dtype="float64")
    data = [arrays(backend, d) for d in data]

    def result():
        return value_and_gradient(loss, params, *data, state, argnums=(0, 1), backend=backend)

    with nested_switching("off"):
        expected = result()
    for strategy in strategies:
        with nested_switching(strategy):
            assert difference(result(), expected) < 1e-10, strategy


@pytest.mark.parametrize("inner", ["forward", "reverse"])
def test_strategies_keep_captured_arrays_and_go_to_third_order(backend, strategies, inner):
    w, x = arrays(backend, np.array([1.5, -0.5, 2.0]), np.array([0.3, 0.7, -0.4]))

    def slope(x, w):
        captured = xp.sin(w)
        return xp.sum(gradient(lambda x: xp.sum(captured * x**4), x, mode=inner) ** 2)

    def curvature(x, w):
        return xp.sum(gradient(slope, x, w) ** 2)

    sin, cos, point = np.sin(host(w)[0]), np.cos(host(w)[0]), host(x)[0]
    # slope = sum (4 s x^3)^2, its derivative in x is 96 s^2 x^5
    expected = (2 * 96 * sin**2 * point**5 * 480 * sin**2 * point**4, 2 * 96**2 * point**10 * sin**3 * 2 * cos)
    for strategy in strategies:
        with nested_switching(strategy):
            assert difference(gradient(curvature, x, w, argnums=(0, 1), backend=backend), expected) < 1e-11, strategy


@pytest.mark.parametrize("strategy", ["auto", "recompute", "forward_over_reverse"])
def test_strategies_work_under_jax_itself(strategy):
    jax = pytest.importorskip("jax")
    loss, model, data = LOSSES["gradient"]
    params, state = setup(0, model, backend="jax", dtype="float64")
    t = arrays("jax", *data)
    expected = jax.grad(loss)(params, t, state)

    def by_scan(params):
        def step(t, _):
            net = polyad.StatefulLayer(model, params, state)
            return t - 0.1 * gradient(lambda t: xp.sum(net(t) ** 2), t), None

        return xp.sum(jax.lax.scan(step, t, None, length=3)[0] ** 2)

    with nested_switching("off"):
        scanned = jax.jit(jax.grad(by_scan))(params)
    with nested_switching(strategy):
        for outer in (jax.jit(jax.grad(loss)), jax.jit(jax.jacfwd(loss)), jax.jacrev(loss), jax.jacfwd(loss)):
            assert difference(outer(params, t, state), expected) < 1e-12
        rows = jax.jit(jax.vmap(lambda t: loss(params, t[None], state)))(t)
        assert rows.shape == (16,)
        assert difference(jax.jit(jax.grad(by_scan))(params), scanned) < 1e-10
        hessian = jax.jit(jax.hessian(lambda t: loss(params, t, state)))(t)
    assert difference(hessian, jax.hessian(lambda t: loss(params, t, state))(t)) < 1e-10


def test_a_scan_keeps_its_inputs_alone_under_auto():
    jax = pytest.importorskip("jax")
    params, state = setup(0, FIELD, backend="jax", dtype="float64")
    t = arrays("jax", np.tile(T, (64, 1)))

    def loss(params):
        def step(t, _):
            net = polyad.StatefulLayer(FIELD, params, state)
            return t - 0.01 * gradient(lambda t: xp.sum(net(t) ** 2), t), None

        return xp.sum(jax.lax.scan(step, t, None, length=20)[0] ** 2)

    def memory(name):
        with nested_switching(name):
            return jax.jit(jax.grad(lambda p: loss(p))).lower(params).compile().memory_analysis().temp_size_in_bytes

    assert memory("auto") < memory("off") / 8


@pytest.mark.parametrize("strategy", ["auto", "taped", "recompute", "forward_over_reverse"])
def test_strategies_work_under_torch_itself(strategy):
    torch = pytest.importorskip("torch")
    loss, model, data = LOSSES["gradient"]
    params, state = setup(0, model, backend="torch", dtype="float64")
    t = arrays("torch", *data)
    expected = torch.func.grad(loss)(params, t, state)
    with nested_switching(strategy):
        assert difference(torch.func.grad(loss)(params, t, state), expected) < 1e-12
        assert difference(torch.func.jacfwd(loss)(params, t, state), expected) < 1e-12
        leaves = trees.map(lambda p: p.requires_grad_(), params)
        loss(leaves, t, state).backward()
        assert difference(trees.map(lambda p: p.grad, leaves), expected) < 1e-12
        with torch.no_grad():
            assert not gradient(lambda t: xp.sum(t**2), t).requires_grad


@pytest.mark.parametrize("strategy", ["auto", "taped", "recompute", "forward_over_reverse"])
@pytest.mark.parametrize("name", LOSSES)
def test_strategies_work_under_autograd_itself(strategy, name):
    autograd = pytest.importorskip("autograd")
    loss, model, data = LOSSES[name]
    params, state = setup(0, model, backend="autograd", dtype="float64")

    def of_both(both):
        with polyad.use_backend("autograd"):
            return loss(both[0], *both[1:], state)

    expected = autograd.grad(of_both)((params, *data))
    with nested_switching(strategy):
        assert difference(autograd.grad(of_both)((params, *data)), expected) < 1e-11


@pytest.mark.parametrize("strategy", ["recompute", "forward_over_reverse"])
def test_a_loop_of_torch_keeps_its_inputs_alone(strategy):
    torch = pytest.importorskip("torch")
    w = torch.ones((7, 70), dtype=torch.float64, requires_grad=True)

    class Kept:
        def __init__(self, tensor):
            self.tensor = tensor

    def saved(policy):
        """Entries that the graph of five steps still holds when they are done."""
        kept = weakref.WeakSet()

        def pack(tensor):
            held = Kept(tensor)
            kept.add(held)
            return held

        x = torch.full((31, 7), 0.1, dtype=torch.float64)
        with nested_switching(policy), torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor):
            for _ in range(5):
                x = x - 0.1 * gradient(lambda x: xp.sum(xp.tanh(x @ w) ** 2), x)
        return sum(held.tensor.numel() for held in kept if held.tensor.shape[:1] == (31,))

    assert saved(strategy) < saved("taped") / 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("strategy", ["auto", "recompute", "forward_over_reverse"])
def test_strategies_work_inside_torch_compile(strategy):
    torch = pytest.importorskip("torch")
    loss, model, data = LOSSES["gradient"]
    params, state = setup(0, model, backend="torch", dtype="float64")
    t = arrays("torch", *data)
    leaves = trees.map(lambda p: p.requires_grad_(), params)
    expected = torch.autograd.grad(loss(leaves, t, state), trees.leaves(leaves))
    with nested_switching(strategy):
        compiled = torch.compile(loss, backend="aot_eager")
        for _ in range(2):
            assert difference(torch.autograd.grad(compiled(leaves, t, state), trees.leaves(leaves)), expected) < 1e-12


def test_policies_are_said_in_a_block_or_in_the_environment(monkeypatch):
    monkeypatch.setattr("polyad.nested._of_environment", _of_environment.__wrapped__)  # read each time
    assert policy() == "auto"
    monkeypatch.setenv("POLYAD_NESTED_SWITCHING", "off")
    assert policy() == "off"
    with nested_switching("recompute"):
        assert policy() == "recompute"
        seen = []
        thread = threading.Thread(target=lambda: seen.append(policy()))
        thread.start()
        thread.join()
        assert seen == ["off"]
    monkeypatch.setenv("POLYAD_NESTED_SWITCHING", "on")
    with pytest.raises(ArgumentError, match="POLYAD_NESTED_SWITCHING: there is no policy 'on'"):
        gradient(lambda x: x, 1.0)
    with pytest.raises(ArgumentError, match="'auto', 'off', 'taped', 'recompute'"), nested_switching("reverse"):
        pass


def test_a_strategy_that_a_backend_does_not_have_is_taped(capsys):
    with nested_switching("recompute"):
        explanation = explain(gradient, lambda x: xp.sum(gradient(lambda x: xp.sum(x**3), x) ** 2), np.ones(2))
    inner = explanation.steps[0].inner[0]
    assert (inner.backend, inner.strategy) == ("numpy", "taped")
    assert "forward pass keeps its directions" in capsys.readouterr().out


@pytest.mark.parametrize("strategy", ["auto", "recompute", "forward_over_reverse"])
@pytest.mark.parametrize("outer", ["grad", "jacfwd(grad)", "jacrev(grad)", "jacfwd(jacfwd)"])
def test_an_inner_derivative_inside_of_scan_map_and_vmap_of_jax(strategy, outer):
    jax = pytest.importorskip("jax")
    jnp = jax.numpy
    x, w = jnp.array([0.3, 0.7, -0.4]), jnp.array([1.5, -0.5, 2.0])

    def by_scan(w):
        def step(c, _):
            return gradient(lambda a: jnp.sum(jnp.sin(a * w) ** 2), c), None

        return jnp.sum(jax.lax.scan(step, x, None, length=2)[0] ** 2)

    def by_map(w):
        _, pull = polyad.vjp(lambda a: jnp.real(jnp.exp(a * jnp.exp(1j * w))) * x, x)
        return jnp.sum(jax.lax.map(lambda u: pull(u * w)[0], jnp.eye(3)) ** 2)

    def by_vmap(w):
        _, pull = polyad.vjp(lambda a: jnp.sin(a * w) * x, x)
        return jnp.sum(jax.vmap(lambda u: pull(u)[0])(jnp.eye(3)) ** 2)

    tools = {
        "grad": jax.grad,
        "jacfwd(grad)": lambda f: jax.jacfwd(jax.grad(f)),
        "jacrev(grad)": lambda f: jax.jacrev(jax.grad(f)),
        "jacfwd(jacfwd)": lambda f: jax.jacfwd(jax.jacfwd(f)),
    }
    for loss in (by_scan, by_map, by_vmap):
        with nested_switching("off"):
            expected = tools[outer](loss)(w)
        with nested_switching(strategy):
            assert difference(jax.jit(tools[outer](loss))(w), expected) < 1e-10, loss
