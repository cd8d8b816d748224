"""divergence against formulas and against Hutchinson's estimate, on every backend."""

from itertools import product

import numpy as np
import pytest

import polyad
from polyad import BatchNorm, Chain, Dense, divergence, gradient, jacobian, jvp, setup, value_and_gradient, vjp, xp
from tests.examples import arrays, compiled, difference, host

MODES = ("auto", "forward", "reverse")
GENERATOR = np.random.Generator(np.random.Philox(12))
X = GENERATOR.normal(size=(6, 3))
W = GENERATOR.normal(size=(3, 3))


@pytest.mark.parametrize("mode", MODES)
def test_divergence_of_a_wave_is_the_trace_of_its_jacobian(backend, mode):
    x, w = arrays(backend, X, W)
    actual = divergence(lambda x: xp.sin(x @ w), x, mode=mode, backend=backend)
    assert difference(actual, (np.cos(X @ W) * np.diag(W)).sum(1)) < 1e-13


def test_one_point_is_a_vector_or_a_number(backend):
    x, w = arrays(backend, X[0], W)
    with polyad.use_backend(backend):
        assert difference(divergence(lambda x: xp.sin(x @ w), x), np.array(np.cos(X[0] @ W) @ np.diag(W))) < 1e-13
        assert float(divergence(lambda x: x**3, 2.0)) == 12.0


def test_coordinates_may_have_several_axes(backend):
    x = arrays(backend, X.reshape(3, 2, 3))
    actual = divergence(lambda x: x**2 * xp.sum(x, axis=(1, 2), keepdims=True), x, backend=backend)
    y = X.reshape(3, 6)
    assert difference(actual, (2 * y * y.sum(1, keepdims=True) + y**2).sum(1)) < 1e-13


def test_a_rotation_has_none(backend):
    actual = divergence(lambda x: xp.stack([-x[:, 1], x[:, 0]], axis=1), arrays(backend, X[:, :2]), backend=backend)
    assert not host(actual)[0].any()


def test_other_arguments_are_constants_and_aux_comes_back(backend):
    x, w = arrays(backend, X, W)
    actual, aux = divergence(lambda w, x: (x @ w, {"w": w, "n": 3}), w, x, argnums=-1, has_aux=True, backend=backend)
    assert difference(actual, np.full(6, np.trace(W))) < 1e-13
    assert difference(aux["w"], W) == 0.0
    assert aux["n"] == 3
    late = divergence(lambda x, power=1: x**power, backend=backend)
    assert difference(late(x, power=2), 2 * X.sum(1)) < 1e-14


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0,)])
def test_of_nothing_it_is_empty_or_zero(backend, shape):
    actual = divergence(lambda x: x**2, arrays(backend, np.ones(shape)), backend=backend)
    assert tuple(actual.shape) == (shape[:1] if len(shape) > 1 else ())
    assert not host(actual)[0].any()


@pytest.mark.parametrize("mode", MODES)
def test_batch_norm_in_training_mode_is_refused(backend, mode):
    model = Chain(Dense(3, 4, "tanh"), BatchNorm(4), Dense(4, 3))
    params, state = setup(0, model, backend=backend, dtype="float64")
    x = arrays(backend, X)
    with polyad.use_backend(backend):
        with pytest.raises(polyad.errors.RowsMixError, match=r"divergence: .*BatchNorm in training mode.*test_mode"):
            divergence(polyad.StatefulLayer(model, params, state), x, mode=mode)
        net = polyad.StatefulLayer(model, params, polyad.test_mode(state))
        full = host(jacobian(net, x))[0]
        assert difference(divergence(net, x, mode=mode), np.einsum("bibi->b", full)) < 1e-13


def test_rows_that_mix_are_nan_under_jit():
    jax = pytest.importorskip("jax")
    compiled = jax.jit(lambda x: divergence(lambda x: x - xp.mean(x, axis=0), x))
    assert np.isnan(host(compiled(arrays("jax", X)))[0]).all()


@pytest.mark.parametrize(("inner", "outer"), list(product(MODES, ("forward", "reverse"))))
def test_it_is_differentiable_in_points_and_in_what_f_captures(backend, inner, outer):
    x, w = arrays(backend, X, np.array([1.5, -0.5, 2.0]))

    def loss(w, x):
        captured = xp.tanh(w)
        return xp.sum(divergence(lambda x: captured * x**3, x, mode=inner) ** 2)

    tanh = np.tanh(host(w)[0])
    div = (3 * tanh * X**2).sum(1, keepdims=True)
    expected = ((2 * div * 3 * X**2).sum(0) * (1 - tanh**2), 2 * div * 6 * tanh * X)
    assert difference(gradient(loss, w, x, argnums=(0, 1), mode=outer, backend=backend), expected) < 1e-12


@pytest.mark.parametrize(("inner", "outer"), list(product(MODES, ("forward", "reverse"))))
def test_perturbations_are_not_confused(backend, inner, outer):
    two = arrays(backend, np.array([2.0]))
    actual = gradient(
        lambda x: xp.sum(x * divergence(lambda y: x + y, 0 * x + 1, mode=inner)), two, mode=outer, backend=backend
    )
    assert host(actual)[0] == 1.0


def test_errors_say_what_came(backend):
    x = arrays(backend, X)
    with polyad.use_backend(backend):
        with pytest.raises(
            polyad.errors.ArgumentError, match=r"divergence: x has shape \(6, 3\), f returned \(6, 2\);"
        ):
            divergence(lambda x: x[:, :2], x)
        with pytest.raises(polyad.errors.ArgumentError, match=r"one array of points; args\[0\] has 2 leaves"):
            divergence(lambda p: p["a"], {"a": x, "b": x})
        with pytest.raises(polyad.errors.ModeError, match="divergence: mode='finite_difference'"):
            divergence(lambda x: x, x, mode="finite_difference")


def test_inside_the_transformations_of_the_frameworks():
    expected = (np.cos(X @ W) * np.diag(W)).sum(1)
    for name, module in (("jax", "jax"), ("torch", "torch.func")):
        functions = pytest.importorskip(module)
        x, w = arrays(name, X, W)

        def field(x, w=w):
            return xp.sin(x @ w)

        assert difference(functions.vmap(lambda p, field=field: divergence(field, p))(x), expected) < 1e-13
        by_framework = functions.grad(lambda x, field=field: xp.sum(divergence(field, x) ** 2))(x)
        assert difference(by_framework, -2 * expected[:, None] * ((np.sin(X @ W) * np.diag(W)) @ W.T)) < 1e-12


# Documented example 5: v^T J v of a net, by vjp, by jvp and by the whole Jacobian.

FLOW = Chain(Dense(4, 12, "tanh"), Dense(12, 12, "tanh"), Dense(12, 12, "tanh"), Dense(12, 4))
POINTS = GENERATOR.normal(size=(12, 4))
SIGNS = np.where(GENERATOR.uniform(size=(12, 4)) < 0.5, -1.0, 1.0)


def by_vjp(net, x, v):
    return xp.sum(vjp(net, x)[1](v)[0] * v, axis=1)


def by_jvp(net, x, v):
    return xp.sum(jvp(net, (x,), (v,))[1] * v, axis=1)


def by_jacobian(net, x, v):
    J = polyad.batched_jacobian(net, x)
    return xp.sum(v * xp.reshape(J @ v[:, :, None], tuple(v.shape)), axis=1)


def flow_loss(params, x, v, state, estimate):
    return xp.sum(estimate(polyad.StatefulLayer(FLOW, params, state), x, v) ** 2)


@pytest.fixture(scope="module")
def expected_of_flow():
    """From another backend, by the Jacobian; checked there against finite differences."""
    params, state = setup(2, FLOW, backend="numpy", dtype="float64")
    args = (params, POINTS, SIGNS, state, by_jacobian)
    exact = gradient(flow_loss, *args, argnums=(0, 1, 2), backend="autograd")
    estimate = gradient(flow_loss, *args, argnums=(1, 2), backend="numpy", mode="finite_difference")
    assert difference(exact[1:], estimate) < 1e-6
    return exact


@pytest.mark.parametrize("estimate", [by_vjp, by_jvp, by_jacobian])
def test_three_ways_to_hutchinsons_trace_and_their_gradients_agree(backend, estimate, expected_of_flow):
    params, state = setup(2, FLOW, backend=backend, dtype="float64")
    x, v = arrays(backend, POINTS, SIGNS)
    grads = gradient(lambda *args: flow_loss(*args, state, estimate), argnums=(0, 1, 2), backend=backend)
    actual = compiled(backend, grads)(params, x, v)
    biases = [i for i, e in enumerate(host(expected_of_flow)) if np.max(np.abs(e)) < 1e-6]
    assert len(biases) == 1  # that of the last layer moves the field, not its Jacobian
    pairs = [p for i, p in enumerate(zip(host(actual), host(expected_of_flow), strict=True)) if i not in biases]
    assert difference([a for a, _ in pairs], [e for _, e in pairs]) < 1e-11
    assert not host(actual)[biases[0]].any()


def test_the_mean_of_hutchinsons_estimate_over_all_signs_is_the_divergence(backend):
    params, state = setup(2, FLOW, backend=backend, dtype="float64")
    x = arrays(backend, POINTS)
    rows = [arrays(backend, np.broadcast_to(np.array(v), (12, 4))) for v in product((-1.0, 1.0), repeat=4)][:8]

    def exact(params):
        return xp.sum(divergence(polyad.StatefulLayer(FLOW, params, state), x))

    def mean(params):  # over half of the signs: v and -v are the same
        return sum(xp.sum(by_jvp(polyad.StatefulLayer(FLOW, params, state), x, v)) for v in rows) / 8

    (value, grads), (expected, expected_grads) = (
        compiled(backend, value_and_gradient(f, backend=backend))(params) for f in (exact, mean)
    )
    assert difference(value, expected) < 1e-12
    assert all(np.allclose(a, e, atol=1e-11) for a, e in zip(host(grads), host(expected_grads), strict=True))
