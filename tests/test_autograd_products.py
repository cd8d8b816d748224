"""Products and affine maps of autograd as single nodes: every pass of every order, in the precision of their arrays."""

import numpy as np
import pytest

import polyad
from polyad import gradient, jacobian, xp

pytest.importorskip("autograd")
check_grads = pytest.importorskip("autograd.test_util").check_grads
rules = pytest.importorskip("polyad.backends.autograd_namespace")

DRAW = np.random.Generator(np.random.Philox(5))
A, B = DRAW.normal(size=(5, 3)), DRAW.normal(size=(3, 2))
BIAS = DRAW.normal(size=2)


@pytest.mark.parametrize("of_a", [False, True])
@pytest.mark.parametrize("of_b", [False, True])
@pytest.mark.parametrize("mode", ["fwd", "rev"])
def test_a_product_of_any_transposes_has_its_derivatives(of_a, of_b, mode):
    a, b = (A.T if of_a else A), (B.T if of_b else B)
    np.testing.assert_array_equal(rules._product(a, b, of_a, of_b), A @ B)
    check_grads(lambda a, b: rules._product(a, b, of_a, of_b) ** 3, (0, 1), modes=[mode], order=2)(a, b)


@pytest.mark.parametrize("mode", ["fwd", "rev"])
def test_an_affine_map_has_its_derivatives(mode):
    check_grads(lambda x, w, b: rules._affine(x, w, b) ** 3, (0, 1, 2), modes=[mode], order=2)(A, B, BIAS)


@pytest.mark.parametrize("shape", [(3,), (2, 5, 3)])
def test_other_shapes_go_through_autograds_own_rules(shape):
    x = DRAW.normal(size=shape)
    check_grads(lambda x, w, b: rules._affine(x, w, b) ** 3, (0, 1, 2), modes=["rev"], order=2)(x, B, BIAS)


@pytest.mark.parametrize(("of_weight", "of_bias"), [((3, 2), (1,)), ((3, 1), (2,)), ((3, 2), ()), ((3,), (5,))])
def test_weights_and_biases_that_are_broadcast_keep_their_shapes(of_weight, of_bias):
    w, b = DRAW.normal(size=of_weight), DRAW.normal(size=of_bias)
    check_grads(lambda x, w, b: rules._affine(x, w, b) ** 3, (0, 1, 2), modes=["fwd", "rev"], order=2)(A, w, b)
    grads = gradient(lambda *args: xp.sum(rules._affine(*args) ** 3), A, w, b, argnums=(0, 1, 2), backend="autograd")
    assert [g.shape for g in grads] == [A.shape, of_weight, of_bias]


def test_a_slope_of_tanh_has_derivatives_up_to_the_third():
    tanh = rules.namespace.tanh
    check_grads(lambda x: tanh(x), modes=["fwd", "rev"], order=3)(A)
    t = np.tanh(0.7)
    third = polyad.derivative(lambda x: xp.tanh(x), 0.7, order=3, backend="autograd", mode="reverse")
    assert float(third) == pytest.approx(-2 * (1 - t**2) * (1 - 3 * t**2), rel=1e-13)


def test_a_slope_that_many_rows_share_keeps_its_derivative():
    """The Hessian-like product of each row: sum of J^2, J = diag(1 - tanh(x w)^2) w, by w."""
    w = np.array([[0.7, -0.3], [0.2, 0.5]])

    def loss(w):
        return xp.sum(jacobian(lambda x: xp.tanh(x @ w), A[:1, :2], mode="reverse") ** 2)

    def by_hand(w):
        s = 1 - np.tanh(A[:1, :2] @ w) ** 2
        return np.sum((s * w) ** 2)

    found, h = gradient(loss, w, backend="autograd"), 1e-6
    expected = np.zeros_like(w)
    for i in np.ndindex(*w.shape):
        step = np.zeros_like(w)
        step[i] = h
        expected[i] = (by_hand(w + step) - by_hand(w - step)) / (2 * h)
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_a_cotangent_of_another_precision_is_brought_to_that_of_the_arrays(monkeypatch):
    seen, dot = [], np.dot
    monkeypatch.setattr(rules.np, "dot", lambda a, b: seen.append((a.dtype, b.dtype)) or dot(a, b))
    x, w, b = (z.astype(np.float32) for z in (A, B, BIAS))
    grads = gradient(
        lambda w, b: xp.mean(polyad.layers.dense.affine(x, w, b) ** 2), w, b, argnums=(0, 1), backend="autograd"
    )
    assert {str(dtype) for pair in seen for dtype in pair} == {"float32"}
    assert {str(g.dtype) for g in grads} == {"float32"}
