"""derivative of any order against formulas, on every backend."""

import functools
import math

import numpy as np
import pytest

import polyad
from polyad import derivative, gradient, setup, xp
from tests.examples import FIELD, arrays, difference, host


@pytest.mark.parametrize("order", range(6))
def test_derivatives_of_a_product_follow_leibniz(backend, order):
    x = 0.7
    waves = [np.sin(x + k * math.pi / 2) for k in range(order + 1)]
    powers = [math.perm(3, k) * x ** (3 - k) if k <= 3 else 0.0 for k in range(order + 1)]
    expected = sum(math.comb(order, k) * waves[order - k] * powers[k] for k in range(order + 1))
    actual = derivative(lambda x: x**3 * xp.sin(x), arrays(backend, x), order=order, backend=backend)
    assert tuple(actual.shape) == ()
    assert difference(actual, np.array(expected)) < 1e-12


def test_the_order_is_one_unless_said_and_may_be_given_by_position(backend):
    x = arrays(backend, 0.7)
    assert difference(derivative(xp.sin, x, backend=backend), np.array(np.cos(0.7))) < 1e-15
    assert difference(derivative(xp.sin, x, 2, backend=backend), np.array(-np.sin(0.7))) < 1e-15
    second = derivative(lambda x, power=1: x**power, order=2, backend=backend)
    assert difference(second(x, power=3), np.array(6 * 0.7)) < 1e-15


def test_python_floats_arrays_and_trees(backend):
    assert float(derivative(lambda x: x**4, 2.0, order=3, backend=backend)) == 48.0
    w = arrays(backend, np.array([1.0, 2.0, -0.5]))
    tree = derivative(lambda t: {"a": xp.exp(w * t), "b": [t**2, None]}, arrays(backend, 0.3), order=2, backend=backend)
    w = host(w)[0]
    assert difference(tree["a"], w**2 * np.exp(0.3 * w)) < 1e-14
    assert difference(tree["b"][0], np.array(2.0)) < 1e-15
    assert tree["b"][1] is None
    inside = derivative(lambda p: p["t"] ** 2, {"t": arrays(backend, 3.0)}, backend=backend)
    assert float(host(inside)[0]) == 6.0


@pytest.mark.parametrize("order", range(4))
def test_aux_comes_back(backend, order):
    actual, aux = derivative(
        lambda x: (xp.exp(2 * x), {"square": x**2, "n": 3}), arrays(backend, 0.3), order, has_aux=True, backend=backend
    )
    assert difference(actual, np.array(2.0**order * np.exp(0.6))) < 1e-14
    assert difference(aux["square"], np.array(0.09)) < 1e-14
    assert aux["n"] == 3


def test_a_constant_has_no_derivative_of_any_order(backend):
    x = arrays(backend, 0.3)
    for order in (1, 3):
        assert float(derivative(lambda x: 2.0, x, order, backend=backend)) == 0.0
        assert float(derivative(lambda x: x**0.0, x, order, backend=backend)) == 0.0


@pytest.mark.parametrize("outer", ["forward", "reverse"])
def test_inside_a_loss_with_captured_arrays(backend, outer):
    w, x = arrays(backend, np.array([1.5, -0.5, 2.0]), 0.3)

    def loss(w, x):
        captured = xp.tanh(w)
        return xp.sum(derivative(lambda t: xp.sin(captured * t), x, order=3) ** 2)

    tanh, slope = np.tanh(host(w)[0]), 1 - np.tanh(host(w)[0]) ** 2
    third = -(tanh**3) * np.cos(0.3 * tanh)
    by_captured = -3 * tanh**2 * np.cos(0.3 * tanh) + 0.3 * tanh**3 * np.sin(0.3 * tanh)
    expected = (2 * third * by_captured * slope, np.array((2 * third * tanh**4 * np.sin(0.3 * tanh)).sum()))
    assert difference(gradient(loss, w, x, argnums=(0, 1), mode=outer, backend=backend), expected) < 1e-13


BY = {
    "derivative": derivative,
    "forward": functools.partial(gradient, mode="forward"),
    "reverse": functools.partial(gradient, mode="reverse"),
}


@pytest.mark.parametrize("outer", BY)
@pytest.mark.parametrize("inner", BY)
def test_perturbations_are_not_confused(backend, inner, outer):
    one, two = arrays(backend, 1.0, 2.0)
    actual = BY[outer](lambda x: x * BY[inner](lambda y: x + y, one), two, backend=backend)
    assert float(host(actual)[0]) == 1.0


def test_a_net_along_a_line(backend):
    params, state = setup(3, FIELD, backend=backend, dtype="float64")
    net = polyad.StatefulLayer(FIELD, params, state)
    t = arrays(backend, 0.4)

    def u(t):
        return net(xp.reshape(t, (1, 1)))[0, 0]

    third = derivative(u, t, order=3, backend=backend)
    second = derivative(u, order=2, backend=backend)
    step = 1e-4
    estimate = (host(second(t + step))[0] - host(second(t - step))[0]) / (2 * step)
    assert difference(third, estimate) < 1e-6


@pytest.mark.parametrize("order", [-1, 1.5, True, "two", {"w": 1.0}])
def test_a_wrong_order_is_refused(backend, order):
    with pytest.raises(polyad.errors.ArgumentError, match=r"derivative: order=.* it is a whole number"):
        derivative(xp.sin, arrays(backend, 0.3), order, backend=backend)


def test_more_than_one_number_is_refused(backend):
    with pytest.raises(polyad.errors.ArgumentError, match=r"derivative: x is \(3,\); it must be one number.*jacobian"):
        derivative(xp.sin, arrays(backend, np.ones(3)), backend=backend)
    with pytest.raises(polyad.errors.ArgumentError, match=r"derivative: x is \(\), \(\)"):
        derivative(lambda p: p[0], [1.0, 2.0], backend=backend)
    with pytest.raises(polyad.errors.DTypeError, match="derivative: x is the int 3"):
        derivative(lambda x: x**2, 3, backend=backend)


def test_inside_the_transformations_of_jax():
    jax = pytest.importorskip("jax")

    def third(x):
        return derivative(lambda x: xp.sin(2 * x), x, order=3)

    x = arrays("jax", 0.3)
    assert difference(jax.jit(third)(x), np.array(-8 * np.cos(0.6))) < 1e-14
    assert difference(jax.jit(jax.grad(third))(x), np.array(16 * np.sin(0.6))) < 1e-14
    points = np.array([0.1, 0.5, 0.9])
    assert difference(jax.vmap(third)(arrays("jax", points)), -8 * np.cos(2 * points)) < 1e-14


def test_inside_the_transformations_of_torch():
    torch = pytest.importorskip("torch")

    def third(x):
        return derivative(lambda x: xp.sin(2 * x), x, order=3)

    x = arrays("torch", 0.3)
    assert difference(torch.func.grad(third)(x), np.array(16 * np.sin(0.6))) < 1e-14
    points = np.array([0.1, 0.5, 0.9])
    assert difference(torch.func.vmap(third)(arrays("torch", points)), -8 * np.cos(2 * points)) < 1e-14
    x.requires_grad_()
    third(x).backward()
    assert difference(x.grad, np.array(16 * np.sin(0.6))) < 1e-14


NORMED = np.array([1.0, 2.0, -0.5, 0.3])


def fused(t):
    """A sum of the entries of a layer norm."""
    torch = pytest.importorskip("torch")
    w = torch.tensor(NORMED)
    return (w * torch.nn.functional.layer_norm(torch.sin(w * t), (4,))).sum()


def written_out(t):
    y = xp.sin(xp.asarray(NORMED) * t)
    centred = y - xp.mean(y)
    return xp.sum(NORMED * centred / xp.sqrt(xp.mean(centred**2) + 1e-5))


def test_a_fused_norm_of_torch_is_right_at_every_order():
    torch = pytest.importorskip("torch")
    t = arrays("torch", 0.7)

    def as_a_batch(t):  # for which jets have no rule
        y = torch.sin(torch.tensor(NORMED) * t)[:, None]
        return (torch.tensor(NORMED) * torch.nn.functional.batch_norm(y, None, None, training=True)[:, 0]).sum()

    for order in (1, 2, 3, 4):
        expected = derivative(written_out, 0.7, order, backend="numpy")
        assert difference(derivative(fused, t, order=order), expected) < 1e-11
        assert difference(derivative(as_a_batch, t, order=order), expected) < 1e-11


def test_an_operation_that_torch_differentiates_wrongly_is_refused_above_second_order():
    torch = pytest.importorskip("torch")
    t = arrays("torch", 0.7)
    f = lambda t: torch.logcumsumexp(torch.tensor(NORMED) * torch.sin(t), 0).sum()  # noqa: E731
    with pytest.raises(polyad.errors.UnsupportedError, match="wrong derivatives"):
        derivative(f, t, order=3)


def test_a_fused_norm_of_torch_is_right_where_another_pass_goes_around():
    torch = pytest.importorskip("torch")
    t = arrays("torch", 0.7)
    second = derivative(written_out, 0.7, 2, backend="numpy")
    assert difference(gradient(lambda t: derivative(fused, t), t), second) < 1e-12
    assert difference(torch.func.grad(lambda t: derivative(fused, t))(t), second) < 1e-12
    rows = torch.func.vmap(lambda t: derivative(fused, t, order=2))(t[None])
    assert difference(rows, second[None]) < 1e-12
