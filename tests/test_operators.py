"""Operators against formulas, on every backend and in every mode."""

import gc
import weakref

import numpy as np
import pytest

import polyad
from polyad import gradient, jacobian, jvp, value_and_gradient, value_and_jacobian, vjp, xp
from tests.examples import arrays, difference, host

MODES = ("auto", "forward", "reverse", "finite_difference")
W = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]])
V = np.array([0.3, -0.7])


def tolerance(mode):
    return 1e-6 if mode == "finite_difference" else 1e-12


@pytest.mark.parametrize("mode", MODES)
def test_gradient_of_a_sum_of_cubes_is_three_squares(backend, mode):
    x = arrays(backend, W)
    assert difference(gradient(lambda x: xp.sum(x**3), x, mode=mode, backend=backend), 3 * W**2) < tolerance(mode)


@pytest.mark.parametrize("mode", MODES)
def test_value_and_gradient_returns_the_value_first(backend, mode):
    value, grad = value_and_gradient(lambda x: xp.sum(xp.exp(x)), arrays(backend, V), mode=mode, backend=backend)
    assert difference(value, np.exp(V).sum()) < 1e-14
    assert difference(grad, np.exp(V)) < tolerance(mode)


@pytest.mark.parametrize("mode", MODES)
def test_jacobian_has_output_axes_first(backend, mode):
    w, v = arrays(backend, W, V)
    actual = jacobian(lambda w: v @ xp.sin(w), w, mode=mode, backend=backend)
    expected = np.einsum("jk,i,ik->jik", np.eye(3), V, np.cos(W))
    assert tuple(actual.shape) == (3, 2, 3)
    assert difference(actual, expected) < tolerance(mode)


@pytest.mark.parametrize("shapes", [((3,), (5,)), ((5,), (3,)), ((), (4,)), ((4,), ()), ((2, 3), (2, 2)), ((1,), (1,))])
def test_jacobian_of_a_linear_map_is_its_matrix_for_wide_and_tall(backend, shapes):
    inputs, outputs = shapes
    n, m = int(np.prod(inputs)), int(np.prod(outputs))
    A = np.random.Generator(np.random.Philox(1)).normal(size=(m, n))
    x, a = arrays(backend, np.ones(inputs), A)
    actual = jacobian(lambda x: xp.reshape(a @ xp.reshape(x, (n,)), outputs), x, backend=backend)
    assert tuple(actual.shape) == (*outputs, *inputs)
    assert difference(actual, A.reshape(*outputs, *inputs)) < 1e-14


def test_value_and_jacobian_agree_with_their_parts(backend):
    x = arrays(backend, V)
    value, jac = value_and_jacobian(lambda x: x**2, x, backend=backend)
    assert difference(value, V**2) < 1e-15
    assert difference(jac, np.diag(2 * V)) < 1e-15


def test_trees_go_in_and_come_out(backend):
    w, v = arrays(backend, W, V)
    params = {"w": w, "rest": [v, None, ()]}
    grads = gradient(lambda p: xp.sum(p["rest"][0] @ p["w"]), params, backend=backend)
    assert grads["rest"][1] is None
    assert grads["rest"][2] == ()
    assert difference(grads["w"], np.outer(V, np.ones(3))) < 1e-15
    assert difference(grads["rest"][0], W.sum(1)) < 1e-15


def test_jacobian_of_trees_is_the_tree_of_f_with_trees_of_x(backend):
    v = arrays(backend, V)
    jac = jacobian(lambda p: {"a": p["x"] ** 2, "b": (xp.sum(p["x"]),)}, {"x": v}, backend=backend)
    assert difference(jac["a"]["x"], np.diag(2 * V)) < 1e-15
    assert difference(jac["b"][0]["x"], np.ones(2)) < 1e-15


def test_argnums_choose_arguments_and_may_count_from_the_end(backend):
    w, v = arrays(backend, W, V)

    def f(v, w):
        return xp.sum(v @ w)

    assert difference(gradient(f, v, w, argnums=-1, backend=backend), np.outer(V, np.ones(3))) < 1e-15
    both = gradient(f, v, w, argnums=(1, 0), backend=backend)
    assert isinstance(both, tuple)
    assert difference(both, (np.outer(V, np.ones(3)), W.sum(1))) < 1e-15


@pytest.mark.parametrize("mode", MODES)
def test_aux_comes_back_without_a_derivative(backend, mode):
    def f(x):
        return xp.sum(x**2), {"count": 3, "double": 2 * x, "above": x > 0, "name": "f"}

    grad, aux = gradient(f, arrays(backend, V), has_aux=True, mode=mode, backend=backend)
    assert difference(grad, 2 * V) < tolerance(mode)
    assert aux["count"] == 3
    assert aux["name"] == "f"
    assert difference(aux["double"], 2 * V) < 1e-15
    assert host(aux["above"])[0].tolist() == [True, False]
    (value, aux), grad = value_and_gradient(f, arrays(backend, V), has_aux=True, mode=mode, backend=backend)
    assert difference(value, (V**2).sum()) < 1e-15
    jac, aux = jacobian(f, arrays(backend, V), has_aux=True, mode=mode, backend=backend)
    assert difference(jac, 2 * V) < tolerance(mode)
    assert difference(aux["double"], 2 * V) < 1e-15


def test_aux_with_an_infinite_derivative_does_not_touch_the_gradient(backend):
    x = arrays(backend, np.array([0.0, 4.0]))
    grad, aux = gradient(lambda x: (xp.sum(x**2 + x), xp.sqrt(x)), x, has_aux=True, backend=backend)
    assert difference(grad, np.array([1.0, 9.0])) < 1e-15
    assert difference(aux, np.array([0.0, 2.0])) < 1e-15


def test_aux_keeps_its_derivative_to_the_outside(backend):
    def outer(x):
        _, double = gradient(lambda y: (xp.sum(y**2), y * y), x, has_aux=True)
        return xp.sum(double)

    assert difference(gradient(outer, arrays(backend, V), backend=backend), 2 * V) < 1e-15


def test_without_arguments_an_operator_returns_a_function_that_passes_keywords_on(backend):
    f = gradient(lambda x, power=1: xp.sum(x**power), backend=backend)
    assert difference(f(arrays(backend, V), power=2), 2 * V) < 1e-15


def test_numbers_are_scalars_and_unused_arguments_have_zero_gradients(backend):
    assert float(gradient(lambda x: x**3, 2.0, backend=backend)) == 12.0
    v, w = arrays(backend, V, W)
    _, unused = gradient(lambda v, w: xp.sum(v), v, w, argnums=(0, 1), backend=backend)
    assert host(unused)[0].shape == W.shape
    assert not host(unused)[0].any()


def test_a_constant_function_has_a_zero_gradient(backend):
    assert not host(gradient(lambda x: 3.0, arrays(backend, V), backend=backend))[0].any()


@pytest.mark.parametrize("mode", ["auto", "forward", "reverse"])
def test_empty_batches_have_empty_derivatives(backend, mode):
    x = arrays(backend, np.zeros((0, 3)))
    assert tuple(gradient(lambda x: xp.sum(x**2), x, backend=backend, mode=mode).shape) == (0, 3)
    assert tuple(jacobian(lambda x: x * 2, x, backend=backend, mode=mode).shape) == (0, 3, 0, 3)
    assert gradient(lambda p, v: xp.sum(v), {}, arrays(backend, V), backend=backend) == {}


def test_float32_stays_float32(backend):
    x = arrays(backend, V, dtype="float32")
    for result in (
        gradient(lambda x: xp.sum(xp.tanh(x) * 2.0), x, backend=backend),
        jacobian(lambda x: x / 3, x, backend=backend),
    ):
        assert host(result)[0].dtype == np.float32


def test_jvp_and_vjp_are_adjoint_and_may_be_called_again(backend):
    w, v, dv = arrays(backend, W, V, np.array([0.2, 1.1]))
    dy = arrays(backend, np.array([1.0, -2.0, 0.5]))

    def f(v, w):
        return xp.sin(v @ w)

    with polyad.use_backend(backend):
        y, change = jvp(f, (v, w), (dv, None))
        value, pull = vjp(f, v, w)
        first, again = pull(dy), pull(dy)
    assert difference(y, np.sin(V @ W)) < 1e-14
    assert difference(value, np.sin(V @ W)) < 1e-14
    assert difference(change, np.cos(V @ W) * (host(dv)[0] @ W)) < 1e-14
    assert difference(first, again) == 0.0
    assert abs(host(change)[0] @ host(dy)[0] - host(dv)[0] @ host(first[0])[0]) < 1e-14


def test_the_cotangent_of_a_pullback_and_the_tangent_of_a_pushforward_keep_their_gradient(backend):
    v, u = arrays(backend, V, np.array([0.4, -1.3]))

    def by_vjp(u):
        _, pull = vjp(lambda x: x**3, v)
        return xp.sum(pull(u)[0] ** 2)

    def by_jvp(u):
        _, dy = jvp(lambda x: x**3, (v,), (u,))
        return xp.sum(dy**2)

    expected = 2 * host(u)[0] * (3 * V**2) ** 2
    for f in (by_vjp, by_jvp):
        assert difference(gradient(f, u, backend=backend), expected) < 1e-13


def test_batched_jacobian_is_the_block_diagonal_of_the_jacobian(backend):
    x, w = arrays(backend, np.random.Generator(np.random.Philox(2)).normal(size=(5, 2)), W)

    def f(x):
        return xp.tanh(x @ w)

    for mode in ("auto", "forward", "reverse"):
        rows = host(polyad.batched_jacobian(f, x, backend=backend, mode=mode))[0]
        full = host(jacobian(f, x, backend=backend))[0]
        assert rows.shape == (5, 3, 2)
        assert difference(rows, np.stack([full[b, :, b] for b in range(5)])) < 1e-14


@pytest.mark.parametrize("mode", ["auto", "forward", "reverse"])
def test_batched_jacobian_refuses_rows_that_mix(backend, mode):
    x = arrays(backend, np.random.Generator(np.random.Philox(3)).normal(size=(5, 2)))
    with pytest.raises(polyad.errors.RowsMixError, match="BatchNorm in training mode"):
        polyad.batched_jacobian(lambda x: x - xp.mean(x, axis=0), x, backend=backend, mode=mode)


def test_rows_that_mix_are_refused_inside_a_loss_and_are_nan_where_values_cannot_be_seen(backend):
    x = arrays(backend, np.random.Generator(np.random.Philox(3)).normal(size=(5, 2)))

    def loss(x):
        return xp.sum(polyad.batched_jacobian(lambda x: x**2 - xp.mean(x, axis=0), x) ** 2)

    with pytest.raises(polyad.errors.RowsMixError):
        gradient(loss, x, backend=backend)
    compiled = polyad.backends.get(backend).compile(lambda x: (loss(x),))
    if backend == "jax":
        assert np.isnan(host(compiled(x))[0])


def test_check_gradients_confirms_a_right_derivative_and_names_the_leaf_of_a_wrong_one(backend):
    v, w = arrays(backend, V, W)

    def wrong(p):
        return xp.sum(p["a"]) + xp.sum(p["b"] * polyad.stop_gradient(p["b"]))

    with polyad.use_backend(backend):
        assert polyad.check_gradients(lambda v, w: xp.sum(xp.tanh(v @ w)), v, w) < 1e-6
        with pytest.raises(polyad.errors.GradientCheckError, match=r"p\['b'\]"):
            polyad.check_gradients(wrong, {"a": v, "b": w})


def test_check_gradients_does_not_pass_on_a_gradient_it_cannot_see(backend):
    def loss(x):
        return 1e6 + 1e-8 * xp.sum(polyad.stop_gradient(x) * x)

    with polyad.use_backend(backend), pytest.raises(polyad.errors.GradientCheckError):
        polyad.check_gradients(loss, arrays(backend, V))


def test_an_operator_calls_f_once_where_the_framework_has_the_pass(backend):
    calls = []

    def f(x):
        calls.append(1)
        return xp.sum(x**2)

    value_and_gradient(f, arrays(backend, V), backend=backend)
    assert len(calls) == 1


def test_batched_jacobian_has_a_gradient_under_jit():
    jax = pytest.importorskip("jax")
    x = arrays("jax", np.array([[0.3, 0.7], [-0.4, 1.1]]))

    def loss(w):
        return xp.sum(polyad.batched_jacobian(lambda x: xp.tanh(w * x), x) ** 2)

    compiled, eager = jax.jit(jax.grad(loss))(1.0), jax.grad(loss)(1.0)
    assert difference(compiled, eager) < 1e-12


@pytest.mark.parametrize("shapes", [((0, 2), (0, 3)), ((3, 2), (3, 0)), ((3, 0), (3, 2))])
@pytest.mark.parametrize("mode", ["auto", "forward", "reverse"])
def test_batched_jacobian_of_nothing_is_empty(backend, shapes, mode):
    x = arrays(backend, np.ones(shapes[0]))
    y = arrays(backend, np.ones(shapes[1]))
    jac = polyad.batched_jacobian(lambda x: y * (1 + xp.sum(x)), x, backend=backend, mode=mode)
    assert tuple(jac.shape) == (*shapes[1], *shapes[0][1:])


def test_finite_differences_see_small_and_large_scales(backend):
    for point, f, slope in ((1e-4, xp.log, 1e4), (1e3, xp.sin, np.cos(1e3)), (0.0, xp.exp, 1.0)):
        x = arrays(backend, np.array(point))
        found = gradient(f, x, mode="finite_difference", backend=backend)
        assert difference(found, np.array(slope)) < 1e-8


def test_directions_must_be_the_trees_that_they_belong_to(backend):
    one, two = arrays(backend, np.ones(2), np.ones(3))
    with polyad.use_backend(backend):
        _, pull = vjp(lambda x: x**2, one)
        for wrong in (two, {"a": one}, one * 1j if backend != "autograd" else "text"):
            with pytest.raises(polyad.errors.PolyadError, match="vjp: the cotangent"):
                pull(wrong)
        with pytest.raises(polyad.errors.ArgumentError, match="jvp: tangents is the tree"):
            jvp(lambda d: d["a"], ({"a": one, "b": one},), ([one, one],))
        assert float(jvp(lambda x: x**3, (2.0,), (1.0,))[1]) == 12.0


def test_inputs_are_freed_when_the_call_is_over(backend):
    class Token:
        """Something that f carries."""

    x = arrays(backend, V)

    def run():
        inner = Token()
        reference = weakref.ref(inner)
        gradient(lambda x, inner=inner: xp.sum(x**2), x, backend=backend)
        return reference

    gc.disable()
    try:
        assert run()() is None
    finally:
        gc.enable()


def test_auto_takes_the_pass_that_a_function_of_jax_has():
    jax = pytest.importorskip("jax")
    x = arrays("jax", V)

    @jax.custom_vjp
    def cube(x):
        return x**3

    cube.defvjp(lambda x: (x**3, x), lambda x, g: (3 * x**2 * g,))
    wide = jacobian(lambda x: xp.concat([cube(x)] * 5), x)
    assert difference(wide[:2], np.diag(3 * V**2)) < 1e-14
    square = jacobian(lambda x: jax.lax.while_loop(lambda x: xp.sum(x**2) < 5, lambda x: 2 * x, x), x)
    assert difference(square, 4 * np.eye(2)) < 1e-14


@pytest.mark.parametrize("mode", ["auto", "forward", "reverse"])
def test_many_rows_are_checked_by_a_few_alone_and_by_all_where_those_tell_nothing(backend, mode):
    x = arrays(backend, np.random.Generator(np.random.Philox(5)).normal(size=(100, 2)))
    slope = np.cos(host(x)[0])[:, :, None] * np.eye(2)
    shape = tuple(x.shape)
    held = arrays(backend, np.arange(200.0).reshape(100, 2) + 1)
    mixing = {
        "mean": lambda x: x - xp.mean(x, axis=0),
        "sum": lambda x: x * xp.sum(x),
        "before": lambda x: xp.cumulative_sum(x, axis=0),
        "pairs": lambda x: xp.reshape(xp.reshape(x, (50, 4)) * xp.sum(x) / xp.sum(x), shape) + xp.flip(x, axis=0),
        "far": lambda x: x * xp.concat([x[50:], x[:50]]) if x.shape[0] == 100 else x * x,
    }
    jac, aux = polyad.batched_jacobian(
        lambda x: (xp.sin(x), {"rows": x.shape[0], "y": x}), x, has_aux=True, backend=backend, mode=mode
    )
    assert difference(jac, slope) < 1e-12
    assert aux["rows"] == 100
    assert tuple(aux["y"].shape) == shape
    by_row = polyad.batched_jacobian(lambda x: held * xp.sin(x), x, backend=backend, mode=mode)
    assert difference(by_row, host(held)[0][:, :, None] * slope) < 1e-12
    for f in mixing.values():
        with pytest.raises(polyad.errors.RowsMixError):
            polyad.batched_jacobian(f, x, backend=backend, mode=mode)
