"""jvp, vjp, hvp and derivative in every mode, curried, of some arguments."""

import numpy as np
import pytest

import polyad
from polyad import backends, convert, derivative, explain, gradient, hvp, jvp, vjp, xp
from polyad.errors import ArgumentError, ModeError
from tests.examples import arrays, difference, host

X, V, W = np.array([0.3, -0.8, 0.5]), np.array([1.2, 0.4, -0.7]), np.array([0.6, 1.1, -0.9])
MODES = ("auto", "forward", "reverse", "finite_difference")


def product(x, w):
    return xp.sin(x * w) * x


def potential(x, w):
    return xp.sum(xp.sin(x * w) * x**2)


def tolerance(mode):
    return {"finite_difference": 1e-8}.get(mode, 1e-12)


SLOPE_X = np.cos(X * W) * W * X + np.sin(X * W)
SLOPE_W = np.cos(X * W) * X**2


@pytest.mark.parametrize("mode", MODES)
def test_jvp(backend, mode):
    x, w, v = arrays(backend, X, W, V)
    y, dy = jvp(product, (x, w), (v, 2 * v), backend=backend, mode=mode)
    assert difference(y, np.sin(X * W) * X) < 1e-14
    assert difference(dy, SLOPE_X * V + SLOPE_W * 2 * V) < tolerance(mode)
    _, some = jvp(product, (x, w), (v, None), backend=backend, mode=mode)
    assert difference(some, SLOPE_X * V) < tolerance(mode)


@pytest.mark.parametrize("mode", MODES)
def test_jvp_of_directions_of_any_length(backend, mode):
    """A finite difference is taken along the direction, whatever its length; along zero it is zero."""
    x, w, v = arrays(backend, X, W, V)
    for factor in (1e-3, 1e6):
        _, dy = jvp(product, (x, w), (factor * v, None), backend=backend, mode=mode)
        assert difference(dy, factor * SLOPE_X * V) < tolerance(mode)
    _, dy = jvp(product, (x, w), (0 * v, None), backend=backend, mode=mode)
    assert np.max(np.abs(host(dy)[0])) == 0


@pytest.mark.parametrize("mode", MODES)
def test_vjp(backend, mode):
    x, w, v = arrays(backend, X, W, V)
    y, pull = vjp(product, x, w, backend=backend, mode=mode)
    assert difference(y, np.sin(X * W) * X) < 1e-14
    for factor in (1.0, -3.0):  # a pullback is pulled again
        dx, dw = pull(factor * v)
        assert difference(dx, factor * SLOPE_X * V) < tolerance(mode)
        assert difference(dw, factor * SLOPE_W * V) < tolerance(mode)


def test_vjp_of_some_arguments(backend):
    x, w, v = arrays(backend, X, W, V)
    _, pull = vjp(product, x, w, argnums=1, backend=backend)
    assert difference(pull(v), SLOPE_W * V) < 1e-12
    _, pull = vjp(product, x, w, argnums=(1, 0), backend=backend)
    dw, dx = pull(v)
    assert difference(dw, SLOPE_W * V) < 1e-12
    assert difference(dx, SLOPE_X * V) < 1e-12
    _, pull = vjp(lambda x, n: x**n, x, 3, argnums=0, backend=backend)  # an integer among the others
    assert difference(pull(v), 3 * X**2 * V) < 1e-12


@pytest.mark.parametrize("mode", MODES)
def test_hvp(backend, mode):
    x, w, v = arrays(backend, X, W, V)
    second = -np.sin(X * W) * W**2 * X**2 + 4 * np.cos(X * W) * W * X + 2 * np.sin(X * W)
    found = hvp(potential, (x, w), (v, None), backend=backend, mode=mode)[0]
    assert difference(found, second * V) < (1e-4 if mode == "finite_difference" else 1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("mode", MODES)
def test_derivative(backend, mode, order):
    x = arrays(backend, 0.7)
    found = derivative(lambda x: xp.exp(2 * x), x, order, backend=backend, mode=mode)
    limit = {1: 1e-8, 2: 1e-4, 3: 1e-1}[order] if mode == "finite_difference" else 1e-12
    assert difference(found, 2**order * np.exp(1.4)) < limit


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("outer", ["forward", "reverse"])
def test_products_of_every_mode_are_differentiated_around(backend, mode, outer):
    if outer not in backends.get(backend).modes:
        outer = "auto"
    x, w, v = arrays(backend, X, W, V)
    limit = 1e-6 if mode == "finite_difference" else 1e-12
    pushed = gradient(lambda x: xp.sum(jvp(lambda x: product(x, w), (x,), (v,), mode=mode)[1] ** 2), x, mode=outer)
    slope = 2 * np.cos(X * W) * W - np.sin(X * W) * W**2 * X
    assert difference(pushed, 2 * SLOPE_X * V * slope * V) < limit
    pulled = gradient(lambda x: xp.sum(vjp(lambda x: product(x, w), x, mode=mode)[1](v)[0] ** 2), x, mode=outer)
    assert difference(pulled, 2 * SLOPE_X * V * slope * V) < limit


def test_without_arguments_they_are_functions_of_them(backend):
    x, w, v = arrays(backend, X, W, V)
    assert difference(jvp(product, backend=backend)((x, w), (v, None))[1], SLOPE_X * V) < 1e-12
    assert difference(vjp(product, backend=backend)(x, w)[1](v)[0], SLOPE_X * V) < 1e-12
    expected = hvp(potential, (x, w), (v, None), backend=backend)[0]
    assert difference(hvp(potential, backend=backend)((x, w), (v, None))[0], host(expected)[0]) < 1e-12
    keyword = jvp(lambda x, *, power: x**power, backend=backend)((x,), (v,), power=3)[1]
    assert difference(keyword, 3 * X**2 * V) < 1e-12


def test_arguments_may_be_named():
    _, dy = jvp(product, primals=(X, W), tangents=(V, None))
    assert difference(dy, SLOPE_X * V) < 1e-12
    found = hvp(potential, primals=(X, W), tangents=(V, None))
    assert difference(found[0], host(hvp(potential, (X, W), (V, None))[0])[0]) < 1e-12
    assert difference(derivative(xp.sin, x=0.7, order=2), -np.sin(0.7)) < 1e-12


def test_a_function_without_a_forward_pass_goes_by_two_reverse_passes():
    jax = pytest.importorskip("jax")

    @jax.custom_vjp
    def f(x):
        return jax.numpy.sin(x)

    f.defvjp(lambda x: (f(x), x), lambda x, ct: (jax.numpy.cos(x) * ct,))
    x, v = arrays("jax", X, V)
    assert difference(jvp(f, (x,), (v,))[1], np.cos(X) * V) < 1e-12
    with pytest.raises(TypeError, match="custom_vjp"):
        jvp(f, (x,), (v,), mode="forward")


@pytest.mark.parametrize(
    "call",
    [
        lambda mode: jvp(product, (X, W), (V, V), mode=mode),
        lambda mode: vjp(product, X, W, mode=mode),
        lambda mode: hvp(potential, (X, W), (V, V), mode=mode),
        lambda mode: derivative(xp.sin, 0.3, mode=mode),
    ],
)
def test_a_mode_that_does_not_exist_is_refused(call):
    with pytest.raises(ModeError, match="there is no mode 'sideways'"):
        call("sideways")


def test_wrong_positions_of_vjp_are_refused():
    with pytest.raises(ArgumentError, match="vjp: argnums=2 with 2 arguments"):
        vjp(product, X, W, argnums=2)
    with pytest.raises(ArgumentError, match="names an argument twice"):
        vjp(product, X, W, argnums=(0, 0))


def test_convert_keeps_what_the_products_return(backend):
    x, v = arrays(backend, X, V)
    _, dy = jvp(lambda x: {"a": x**2, "b": (xp.sum(x),)}, (x,), (v,), backend=backend)
    assert set(dy) == {"a", "b"}
    assert difference(convert(dy["b"][0], "numpy"), np.sum(V)) < 1e-14
    assert polyad.trees.flatten(dy)[1].num_leaves == 2


def test_on_torch_one_direction_is_two_pullbacks_and_norms_in_it_are_differentiated_again():
    torch = pytest.importorskip("torch")
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4) ** 3
    v = torch.cos(x)

    def f(x):
        return torch.nn.functional.layer_norm(x, (4,)) ** 2

    def loss(x, mode):
        return torch.sum(polyad.jvp(f, (x,), (v,), mode=mode)[1] ** 2)

    by_pullbacks, by_forward = (polyad.gradient(lambda x: loss(x, mode), x) for mode in ("auto", "forward"))  # noqa: B023
    assert torch.max(torch.abs(by_forward)) > 1
    torch.testing.assert_close(by_pullbacks, by_forward, rtol=1e-9, atol=1e-9)
    assert "reverse, 2 sweeps" in str(polyad.explain(polyad.jvp, f, (x,), (v,)))


def test_statistics_of_a_fused_norm_are_written_once_by_a_product_on_torch():
    """The running mean moves by a tenth. The norm is recorded, then taken as formulas, right to every order."""
    torch = pytest.importorskip("torch")
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3) ** 3
    v, mean, var = torch.cos(x), torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)

    def f(x, running):
        return torch.nn.functional.batch_norm(x, *running, training=True) ** 2

    def loss(x, mode, running):
        return torch.sum(polyad.jvp(lambda x: f(x, running), (x,), (v,), mode=mode)[1] ** 2)

    by_pullbacks = polyad.gradient(lambda x: loss(x, "auto", (mean, var)), x)
    by_forward = polyad.gradient(lambda x: loss(x, "forward", (None, None)), x)
    assert torch.max(torch.abs(by_forward)) > 1
    torch.testing.assert_close(by_pullbacks, by_forward, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(mean, 0.1 * x.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(var, 0.9 + 0.1 * x.var(0), rtol=1e-12, atol=1e-12)


def test_one_direction_on_torch_has_every_order_in_all_it_depends_on():
    """y = w x^3 along v: 3 w x^2 v, and outputs that do not move; its sum of squares by x, v and w."""
    torch = pytest.importorskip("torch")
    x, v, w = (torch.linspace(a, 2, 5, dtype=torch.float64).requires_grad_() for a in (0.5, 1.0, -1.5))

    def f(x):
        return w * x**3, torch.ones(2, dtype=torch.float64), x.detach() * 2, x[:0]

    ys, dys = polyad.jvp(f, (x,), (v,))
    torch.testing.assert_close(dys[0], 3 * w * x**2 * v)
    assert [tuple(dy.shape) for dy in dys] == [tuple(y.shape) for y in ys] == [(5,), (2,), (5,), (0,)]
    assert not any(dy.abs().sum() for dy in dys[1:])
    found = torch.autograd.grad((dys[0] ** 2).sum(), (x, v, w), create_graph=True)
    for actual, expected in zip(
        found, (36 * w**2 * x**3 * v**2, 18 * w**2 * x**4 * v, 18 * w * x**4 * v**2), strict=True
    ):
        torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(torch.autograd.grad(found[0].sum(), w)[0], 72 * w * x**3 * v**2)
    with torch.no_grad():
        assert not polyad.jvp(f, (x,), (v,))[1][0].requires_grad
    assert not polyad.jvp(lambda x: x**3, (x.detach(),), (v.detach(),))[1].requires_grad


def test_a_product_through_a_function_that_is_differentiable_once_is_refused_on_torch():
    torch = pytest.importorskip("torch")

    from tests.torch_functions import Cube

    x = torch.linspace(1, 2, 3, dtype=torch.float64)
    with pytest.raises(polyad.errors.UnsupportedError, match="once_differentiable"):
        polyad.jvp(Cube.apply, (x,), (x,), mode="reverse")


def test_one_direction_keeps_what_one_sweep_does_where_columns_go_by_jets():
    """What was measured of columns there says nothing of the framework's own pass: a third more time on autograd."""
    pytest.importorskip("autograd")

    def loss(x):
        return xp.sum(jvp(xp.sin, (x,), (x,))[1] ** 2)

    assert "keeps for the pass around it: taped" in str(explain(gradient, loss, np.ones(3), backend="autograd"))
