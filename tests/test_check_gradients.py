"""check_gradients: what it confirms and what it refuses. First order: test_operators.py."""

import numpy as np
import pytest

import polyad
from polyad import check_gradients, hessian, xp
from tests.examples import arrays

V, W = np.array([0.3, -0.7]), np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]])


def test_the_second_order_is_confirmed_for_trees_and_chosen_arguments(backend):
    v, w = arrays(backend, V, W)
    with polyad.use_backend(backend):
        assert check_gradients(lambda v, w: xp.sum(xp.tanh(v["a"] @ w)), {"a": v}, w, order=2) < 1e-6
        assert check_gradients(lambda w, n, v: xp.sum(xp.tanh(v @ w)) ** n, w, 2, v, argnums=-1, order=2) < 1e-6


def test_a_wrong_second_derivative_behind_a_right_first_one_is_found(backend):
    def f(p):  # x^2: the gradient 2 x is right, the second derivative is taken for zero
        x = p["b"]
        c = polyad.stop_gradient(x)
        return xp.sum(p["a"] ** 2) + xp.sum(c**2 + 2 * c * (x - c))

    v, w = arrays(backend, V, W)
    with polyad.use_backend(backend), pytest.raises(polyad.errors.GradientCheckError, match=r"p\['b'\]"):
        check_gradients(f, {"a": v, "b": w}, order=2)


def test_a_hessian_is_a_function_as_any(backend):
    with polyad.use_backend(backend):
        assert check_gradients(hessian(lambda x: xp.sum(xp.exp(x) * x[0])), arrays(backend, V)) < 1e-6


@pytest.mark.parametrize("order", [0, 1.5, True])
def test_a_wrong_order_is_refused(order):
    with pytest.raises(polyad.errors.ArgumentError, match="check_gradients: order="):
        check_gradients(lambda x: x**2, 1.0, order=order)
