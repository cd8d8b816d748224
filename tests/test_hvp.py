"""hvp against the Hessian and against formulas, on every backend."""

from itertools import product

import numpy as np
import pytest

import polyad
from polyad import gradient, hvp, jacobian, setup, trees, xp
from tests.examples import FIELD, T, arrays, difference, host

MODES = ("forward", "reverse")
POINT, V = np.array([0.3, 0.7, -0.4]), np.array([1.0, -2.0, 0.5])


def quartic(x):
    return xp.sum(x**2) ** 2


def hessian_of_quartic(x):
    return 8 * np.outer(x, x) + 4 * (x @ x) * np.eye(3)


def test_hvp_is_the_hessian_times_the_vector(backend):
    x, v = arrays(backend, POINT, V)
    assert difference(hvp(quartic, (x,), (v,), backend=backend), hessian_of_quartic(POINT) @ V) < 1e-14


def test_trees_and_several_primals_count_the_mixed_derivatives(backend):
    a, b, da, db = arrays(backend, POINT, 2.0, V, 3.0)

    def f(p, b):
        return xp.sum(p["a"] ** 3) * b**2

    first, second = hvp(f, ({"a": a, "n": None}, b), ({"a": da, "n": None}, db), backend=backend)
    assert first["n"] is None
    assert difference(first["a"], 6 * POINT * 4 * V + 3 * POINT**2 * 4 * 3) < 1e-14
    assert difference(second, np.array(3 * POINT**2 * 4 @ V + 2 * (POINT**3).sum() * 3)) < 1e-14


def test_none_holds_an_argument_constant_and_comes_back(backend):
    x, v = arrays(backend, POINT, V)
    first, second = hvp(lambda x, n: xp.sum(x**n), (x, 3), (v, None), backend=backend)
    assert second is None
    assert difference(first, 6 * POINT * V) < 1e-14


def test_aux_comes_back(backend):
    x, v = arrays(backend, POINT, V)
    product, aux = hvp(lambda x: (quartic(x), {"square": x**2, "n": 3}), (x,), (v,), has_aux=True, backend=backend)
    assert difference(product, hessian_of_quartic(POINT) @ V) < 1e-14
    assert difference(aux["square"], POINT**2) < 1e-15
    assert aux["n"] == 3


def test_scalars_empty_arrays_and_linear_functions(backend):
    assert float(hvp(lambda x: x**3, (2.0,), (0.5,), backend=backend)) == 6.0
    empty, x, v = arrays(backend, np.zeros((0, 2)), POINT, V)
    assert tuple(hvp(lambda x: xp.sum(x**2), (empty,), (empty,), backend=backend).shape) == (0, 2)
    assert not host(hvp(lambda x: 3 * xp.sum(x), (x,), (v,), backend=backend))[0].any()
    assert hvp(lambda p: 1.0, ({},), ({},), backend=backend) == {}


@pytest.mark.parametrize("outer", MODES)
def test_it_is_differentiable_in_primals_tangents_and_what_f_captures(backend, outer):
    x, v, w = arrays(backend, POINT, V, np.array([1.5, -0.5, 2.0]))

    def loss(x, v, w):
        captured = xp.tanh(w)
        return xp.sum(hvp(lambda x: xp.sum(captured * x**4), (x,), (v,)) ** 2)

    tanh = np.tanh(host(w)[0])
    second = 12 * POINT**2 * tanh
    expected = (
        2 * second * V**2 * 24 * POINT * tanh,
        2 * second**2 * V,
        2 * second * V**2 * 12 * POINT**2 * (1 - tanh**2),
    )
    assert difference(gradient(loss, x, v, w, argnums=(0, 1, 2), mode=outer, backend=backend), expected) < 1e-12


@pytest.mark.parametrize(("inner", "outer"), list(product(MODES, repeat=2)))
def test_perturbations_are_not_confused(backend, inner, outer):
    one, two = arrays(backend, 1.0, 2.0)

    def f(x):  # x * d2/dy2 (x y^2 + y) * 1 = 2 x^2, and its gradient inside
        return x * gradient(lambda y: hvp(lambda z: x * z**2 * y, (one,), (one,)), one, mode=inner)

    assert float(host(gradient(f, two, mode=outer, backend=backend))[0]) == 8.0


def test_a_jacobian_of_hvp_in_the_vector_is_the_hessian(backend):
    x, v = arrays(backend, POINT, V)
    for mode in MODES:
        actual = jacobian(lambda v: hvp(quartic, (x,), (v,)), v, mode=mode, backend=backend)
        assert difference(actual, hessian_of_quartic(POINT)) < 1e-13


def test_parameters_of_a_net(backend):
    params, state = setup(3, FIELD, backend=backend, dtype="float64")
    t = arrays(backend, T)

    def loss(params):
        return xp.sum(polyad.StatefulLayer(FIELD, params, state)(t) ** 2)

    v = trees.map(lambda p: p + 0.5, params)
    with polyad.use_backend(backend):
        actual = hvp(loss, (params,), (v,))
        above, below = (gradient(loss, trees.map(lambda p, d, h=h: p + h * d, params, v)) for h in (1e-5, -1e-5))
    assert difference(actual, trees.map(lambda a, b: (a - b) / 2e-5, above, below)) < 1e-6


def test_errors_say_what_came(backend):
    x, v = arrays(backend, POINT, V)
    with polyad.use_backend(backend):
        with pytest.raises(polyad.errors.NotScalarError, match=r"hvp: f returned shape \(3,\)"):
            hvp(lambda x: x**2, (x,), (v,))
        with pytest.raises(polyad.errors.ArgumentError, match=r"hvp\(f, \(x,\), \(v,\)\)"):
            hvp(quartic, x, v)
        with pytest.raises(polyad.errors.ArgumentError, match="1 primals and 2 tangents"):
            hvp(quartic, (x,), (v, v))
        with pytest.raises(polyad.errors.ArgumentError, match="every tangent is None"):
            hvp(quartic, (x,), (None,))
        with pytest.raises(polyad.errors.ArgumentError, match=r"hvp: tangents has a leaf of shape \(2,\)"):
            hvp(quartic, (x,), (v[:2],))
        with pytest.raises(polyad.errors.DTypeError, match="hvp: x is the int 3"):
            hvp(lambda x: x**2, (3,), (1.0,))


def test_inside_the_transformations_of_jax():
    jax = pytest.importorskip("jax")
    x, v = arrays("jax", POINT, V)

    def f(x, v):
        return hvp(quartic, (x,), (v,))

    expected = hessian_of_quartic(POINT) @ V
    assert difference(jax.jit(f)(x, v), expected) < 1e-14
    assert difference(jax.vmap(f, (None, 0))(x, np.eye(3)), hessian_of_quartic(POINT)) < 1e-14
    assert difference(jax.jit(jax.jacfwd(f, 1))(x, v), hessian_of_quartic(POINT)) < 1e-14
    third = gradient(lambda x: xp.sum(hvp(quartic, (x,), (V,)) ** 2), POINT, backend="numpy")
    assert difference(jax.jit(jax.grad(lambda x: xp.sum(f(x, v) ** 2)))(x), third) < 1e-13


def test_inside_the_transformations_of_torch():
    torch = pytest.importorskip("torch")
    x, v = arrays("torch", POINT, V)

    def f(x, v):
        return hvp(quartic, (x,), (v,))

    third = gradient(lambda x: xp.sum(hvp(quartic, (x,), (V,)) ** 2), POINT, backend="numpy")
    assert difference(torch.func.grad(lambda x: xp.sum(f(x, v) ** 2))(x), third) < 1e-13
    assert difference(torch.func.jacfwd(f, 1)(x, v), hessian_of_quartic(POINT)) < 1e-14
    rows = torch.func.vmap(f, (None, 0))(x, torch.eye(3, dtype=torch.float64))
    assert difference(rows, hessian_of_quartic(POINT)) < 1e-14
    x.requires_grad_()
    xp.sum(f(x, v) ** 2).backward()
    assert difference(x.grad, third) < 1e-13


def test_a_newton_step_by_conjugate_gradients_ends_in_the_minimum(backend):
    x = arrays(backend, POINT)

    def f(x):
        return xp.sum(xp.exp(x) - 2 * x) + 0.5 * xp.sum(x) ** 2

    with polyad.use_backend(backend):
        for _ in range(8):
            residual = -gradient(f, x)
            step, direction = 0 * x, residual
            for _ in range(3):
                image = hvp(f, (x,), (direction,))
                length = xp.sum(residual**2) / xp.sum(direction * image)
                step, old = step + length * direction, xp.sum(residual**2)
                residual = residual - length * image
                if float(xp.sum(residual**2)) < 1e-28:
                    break
                direction = residual + xp.sum(residual**2) / old * direction
            x = x + step
            if float(xp.sum(gradient(f, x) ** 2)) < 1e-26:
                break
        assert np.max(np.abs(host(gradient(f, x))[0])) < 1e-12
