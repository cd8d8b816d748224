"""StatefulLayer: when the state moves, what never enters it, and how it composes."""

import copy
import pickle

import numpy as np
import pytest

import polyad
from polyad import Chain, Dense, StatefulLayer, compose, gradient, jacobian, setup, trees, value_and_gradient, xp
from tests.examples import COUPLED, FIELD, T, X, arrays, difference, host


def net_of(model, backend):
    params, state = setup(0, model, backend=backend, dtype="float64")
    return StatefulLayer(model, params, state)


def test_a_plain_call_moves_the_running_statistics_once(backend):
    net, x = net_of(COUPLED, backend), arrays(backend, X)
    hidden = np.tanh(X @ host(net.params["layer_0"]["weight"])[0] + host(net.params["layer_0"]["bias"])[0])
    net(x)
    assert difference(net.state["layer_1"]["mean"], 0.1 * hidden.mean(0)) < 1e-12
    assert difference(net.state["layer_1"]["var"], 0.9 + 0.1 * hidden.var(0, ddof=1)) < 1e-12


def test_a_derivative_leaves_the_state_as_it_is(backend):
    net, x = net_of(COUPLED, backend), arrays(backend, X)
    before = net.state
    for mode in ("forward", "reverse", "finite_difference"):
        jacobian(net, x, mode=mode)
        gradient(lambda x: xp.sum(net(x) ** 2), x, mode=mode, backend=backend)
    assert net.state is before


def test_value_and_jacobian_of_the_net_itself_is_one_plain_call(backend):
    net, other, x = net_of(COUPLED, backend), net_of(COUPLED, backend), arrays(backend, X)
    y = other(x)
    for mode in ("auto", "forward", "reverse"):
        fresh = net_of(COUPLED, backend)
        value, jac = polyad.value_and_jacobian(fresh, x, mode=mode)
        assert difference(value, y) < 1e-14
        assert difference(jac, jacobian(net, x)) < 1e-12
        assert difference(fresh.state["layer_1"]["mean"], other.state["layer_1"]["mean"]) < 1e-14
        assert all(type(a) is type(b) for a, b in zip(*map(trees.leaves, (fresh.state, other.state)), strict=True))
    assert difference(net.state["layer_1"]["var"], np.ones(4)) == 0.0


def test_a_net_made_inside_the_loss_moves_its_state_once_a_plain_call(backend):
    params, state = setup(0, COUPLED, backend=backend, dtype="float64")
    x = arrays(backend, X)

    def loss(params):
        net = StatefulLayer(COUPLED, params, state)
        J = jacobian(net, x)
        y = net(x)
        return xp.sum(y**2) + xp.sum(J**2), net.state

    (_, after), _ = value_and_gradient(loss, params, has_aux=True, backend=backend)
    plain = StatefulLayer(COUPLED, params, state)
    plain(x)
    assert difference(after["layer_1"]["mean"], plain.state["layer_1"]["mean"]) < 1e-14
    assert all(type(a) is type(b) for a, b in zip(trees.leaves(after), trees.leaves(plain.state), strict=True))


def test_no_tracer_of_an_outer_transformation_is_stored():
    jax = pytest.importorskip("jax")
    net, x = net_of(COUPLED, "jax"), arrays("jax", X)
    before = net.state
    jax.grad(lambda x: xp.sum(net(x) ** 2))(x)
    jax.jit(lambda x: net(x))(x)
    jax.vmap(lambda row: net(xp.stack([row, 2 * row])))(x)
    assert net.state is before
    torch = pytest.importorskip("torch")
    net, x = net_of(COUPLED, "torch"), arrays("torch", X)
    before = net.state
    torch.func.grad(lambda x: xp.sum(net(x) ** 2))(x)
    assert net.state is before
    autograd = pytest.importorskip("autograd")
    net = net_of(COUPLED, "numpy")
    before = net.state
    autograd.grad(lambda x: xp.sum(net(x) ** 2))(X)
    assert net.state is before


def test_running_statistics_carry_no_graph():
    torch = pytest.importorskip("torch")
    params, state = setup(0, COUPLED, backend="torch", dtype="float64")
    params = trees.map(lambda p: p.requires_grad_(), params)
    net = StatefulLayer(COUPLED, params, state)
    for _ in range(3):
        assert net(arrays("torch", X)).requires_grad
        assert not any(leaf.requires_grad for leaf in trees.leaves(net.state))
    assert isinstance(net.state["layer_1"]["mean"], torch.Tensor)


def test_a_jax_model_trains_under_jit_with_its_state_carried_and_traces_once():
    jax = pytest.importorskip("jax")
    params, state = setup(0, COUPLED, backend="jax", dtype="float64")
    x = arrays("jax", X)
    traces = []

    @jax.jit
    def step(params, state):
        traces.append(1)

        def loss(params):
            net = StatefulLayer(COUPLED, params, state)
            return xp.sum(net(x) ** 2) + xp.sum(jacobian(net, x) ** 2), net.state

        (value, after), grads = value_and_gradient(loss, params, has_aux=True)
        return trees.map(lambda p, g: p - 0.001 * g, params, grads), after, value

    values = []
    for _ in range(4):
        params, state, value = step(params, state)
        values.append(float(value))
    assert len(traces) == 1
    assert values == sorted(values, reverse=True)
    assert difference(state["layer_1"]["var"], np.ones(4)) > 0.01


def test_test_mode_uses_the_running_statistics_and_decouples_the_rows(backend):
    net, x = net_of(COUPLED, backend), arrays(backend, X)
    for _ in range(3):
        net(x)
    tested = StatefulLayer(COUPLED, net.params, polyad.test_mode(net.state))
    before = tested.state
    tested(x)
    assert tested.state is before
    p = {key: [np.asarray(a) for a in host(value)] for key, value in net.params.items()}
    (b0, w0), (beta, gamma), (b2, w2) = p["layer_0"], p["layer_1"], p["layer_2"]
    mean, var = host(net.state["layer_1"])[0], host(net.state["layer_1"])[1]
    expected = ((np.tanh(X @ w0 + b0) - mean) / np.sqrt(var + 1e-5) * gamma + beta) @ w2 + b2
    assert difference(tested(x), expected) < 1e-12
    rows = polyad.batched_jacobian(tested, x)
    full = host(jacobian(tested, x))[0]
    assert difference(rows, np.stack([full[b, :, b] for b in range(len(X))])) < 1e-12
    again = StatefulLayer(COUPLED, net.params, polyad.train_mode(tested.state))
    assert difference(again(x), net(x)) < 1e-12


def test_other_parameters_may_be_given_to_a_call(backend):
    net, t = net_of(FIELD, backend), arrays(backend, T)
    other, _ = setup(1, FIELD, backend=backend, dtype="float64")
    assert difference(net(t, other), StatefulLayer(FIELD, other, net.state)(t)) == 0.0
    grads = gradient(lambda p: xp.sum(net(t, p) ** 2), other, backend=backend)
    assert trees.names(grads, "p") == trees.names(other, "p")


def test_compositions_are_compositions_and_keep_parameters_visible(backend):
    net, t = net_of(FIELD, backend), arrays(backend, T)

    def square(u):
        return xp.sum(u**2)

    def double(t):
        return 2 * t

    value = square(net(double(t)))
    forms = (compose(square, net, double), net >> square << double, square << (net << double), double >> net >> square)
    for f in forms:
        assert difference(f(t), value) == 0.0
        assert difference(gradient(f, t), gradient(lambda t: square(net(double(t))), t)) < 1e-14
        assert list(f.declared_arrays())


def test_both_nets_of_a_composition_get_their_gradient(backend):
    first, second = Chain(Dense(2, 3, "tanh")), Chain(Dense(3, 1))
    p, q = setup(0, first, backend=backend, dtype="float64"), setup(1, second, backend=backend, dtype="float64")
    x = arrays(backend, X)

    def loss(p0, q0):
        both = StatefulLayer(first, p0, p[1]) >> StatefulLayer(second, q0, q[1]) >> xp.sum
        return xp.sum(gradient(both, x) ** 2)

    exact = gradient(loss, p[0], q[0], argnums=(0, 1), backend=backend)
    estimate = gradient(loss, p[0], q[0], argnums=(0, 1), backend=backend, mode="finite_difference")
    for a, e in zip(host(exact), host(estimate), strict=True):
        assert np.max(np.abs(a - e)) < 1e-7
    assert sum(np.abs(a).max() > 0.1 for a in host(exact)) == 3  # the last bias drops out


def test_states_and_parameters_may_hold_none_bool_and_text(backend):
    class Tagged(polyad.Layer):
        def __call__(self, x, params, state):
            return x * params["scale"], {**state, "calls": state["calls"] + 1}

        def parameter_shapes(self):
            return {"scale": ()}

    state = {"calls": 0, "name": "t", "frozen": False, "rest": None}
    net = StatefulLayer(Tagged(), {"scale": arrays(backend, 2.0)}, state)
    x = arrays(backend, X)
    assert difference(jacobian(lambda x: xp.sum(net(x)), x, backend=backend), np.full(X.shape, 2.0)) < 1e-15
    assert net.state["calls"] == 0
    net(x)
    assert net.state == {"calls": 1, "name": "t", "frozen": False, "rest": None}


@pytest.mark.parametrize("policy", ["taped", "recompute", "forward_over_reverse"])
def test_a_derivative_that_is_evaluated_again_later_reads_the_state_of_the_first_time(backend, policy):
    class Counting(polyad.Layer):
        def __call__(self, x, params, state):
            return params["scale"] * x**2 * (1.0 + state["calls"]), {"calls": state["calls"] + 1}

    x = arrays(backend, X)
    outside = StatefulLayer(Counting(), {"scale": arrays(backend, 2.0)}, {"calls": 0})

    def loss(x):
        net = StatefulLayer(Counting(), outside.params, {"calls": 0})
        first = gradient(lambda x: xp.sum(net(x)), x)  # 4 x
        net(x)
        second = gradient(lambda x: xp.sum(net(x)), x)  # 8 x
        net(x)
        other = gradient(lambda x: xp.sum(outside(x)), x)  # 4 x: it does not move in here
        outside(x)
        return xp.sum(first**2) + xp.sum(second**2) + xp.sum(other**3)

    with polyad.nested_switching(policy):
        grads = gradient(loss, x, backend=backend)
    assert difference(grads, 2 * (16 + 64) * X + 3 * 64 * X**2) < 1e-12
    assert outside.state["calls"] == 0


def test_a_framework_that_is_loaded_later_does_not_stop_the_state(registry):
    pytest.importorskip("torch")
    net = net_of(COUPLED, "numpy")
    loaded = polyad.backends._loaded
    torch = loaded.pop("torch", None) or polyad.backends.get("torch")
    loaded.pop("torch", None)
    net = net_of(COUPLED, "numpy")
    loaded["torch"] = torch
    before = net.state
    net(X)
    assert net.state is not before


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda p: {**p, "layer_0": {**p["layer_0"], "bias": np.ones(1)}}, r"\['bias'\] is a .*needs shape \(4,\)"),
        (lambda p: {**p, "layer_0": {**p["layer_0"], "bias": 1.0}}, r"needs an array of shape \(4,\)"),
        (lambda p: {**p, "layer_0": {**p["layer_0"], "bias": {"bias": np.ones(4)}}}, r"needs an array of shape"),
        (lambda p: {**p, "layer_0": {"weight": np.ones((2, 4))}}, r"needs the keys 'weight', 'bias'"),
        (lambda p: {**p, "layer_0": {**p["layer_0"], "more": np.ones(4)}}, r"needs the keys 'weight', 'bias'"),
        (lambda p: {**p, "layer_0": [*p["layer_0"].values()]}, r"is list, but"),
        (lambda p: {"layer_0": p["layer_0"]}, r"needs the keys 'layer_0', 'layer_1'"),
    ],
)
def test_wrong_parameters_are_refused_also_where_right_ones_were_met_before(wrong, words):
    model = Chain(Dense(2, 4, "tanh"), Dense(4, 2))
    params, state = setup(0, model, backend="numpy", dtype="float64")
    for _ in range(2):
        StatefulLayer(model, params, state)
        with pytest.raises(polyad.errors.ParameterError, match=words):
            StatefulLayer(model, wrong(params), state)


def test_layers_without_stated_shapes_may_hold_any_tree():
    class Two(polyad.Layer):
        def init(self, random):
            return [random.at("a").uniform(1.0, (2,)), (random.at("b").uniform(1.0, (2,)),)], {}

        def __call__(self, x, params, state):
            return x * params[0] + params[1][0], state

    params, state = setup(0, Two(), backend="numpy", dtype="float64")
    net = StatefulLayer(Two(), params, state)
    assert difference(net(X), X * params[0] + params[1][0]) < 1e-15
    with pytest.raises(polyad.errors.ArgumentError, match=r"must return \(y, state\)"):
        StatefulLayer(lambda x, params, state: x, params, state)(X)


def test_a_net_can_be_copied_and_pickled(backend):
    net = net_of(COUPLED, backend)
    other = copy.deepcopy(net)
    other(arrays(backend, X))
    assert difference(net.state["layer_1"]["var"], np.ones(4)) == 0.0
    assert (
        difference(
            pickle.loads(pickle.dumps(net_of(Chain(Dense(2, 3)), backend)))(arrays(backend, X)),
            (net_of(Chain(Dense(2, 3)), backend)(arrays(backend, X))),
        )
        == 0.0
    )
