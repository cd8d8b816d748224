"""Flax Linen, Flax NNX and Equinox adopted: against jax.jacrev of their own calls written by hand."""

import pickle

import numpy as np
import pytest

import polyad
from polyad import StatefulLayer, adopt, jacobian, release, value_and_gradient, xp
from polyad.layers import layer
from tests.examples import GENERATOR, difference

jax = pytest.importorskip("jax")
eqx = pytest.importorskip("equinox")
pytest.importorskip("flax")
optax = pytest.importorskip("optax")
from flax import linen, nnx  # noqa: E402

jnp = jax.numpy
X = jnp.asarray(GENERATOR.normal(size=(8, 4, 2)))
STRATEGIES = ("taped", "recompute", "forward_over_reverse")
FLOAT64 = {"dtype": jnp.float64, "param_dtype": jnp.float64}


def fast(f):
    """f under jit, compiled without XLA's optimizations: half of the time of these tests."""
    return jax.jit(f, compiler_options={"xla_backend_optimization_level": 0})


class LinenNet(linen.Module):
    """(B, 4, 2) to (B, 2): Conv, BatchNorm and Dropout."""

    @linen.compact
    def __call__(self, x, train: bool):
        x = linen.Conv(3, (3,), use_bias=False, **FLOAT64)(x)
        x = linen.BatchNorm(use_running_average=not train, **FLOAT64)(x)
        x = linen.Dropout(0.3, deterministic=not train)(jnp.tanh(x))
        return linen.Dense(2, **FLOAT64)(x.mean(1))


class NNXNet(nnx.Module):
    """The same."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 3, (3,), use_bias=False, rngs=rngs, **FLOAT64)
        self.norm = nnx.BatchNorm(3, rngs=rngs, **FLOAT64)
        self.norm.mean, self.norm.var = nnx.BatchStat(jnp.zeros(3)), nnx.BatchStat(jnp.ones(3))
        self.drop = nnx.Dropout(0.3, rngs=rngs)
        self.out = nnx.Linear(3, 2, rngs=rngs, **FLOAT64)

    def __call__(self, x):
        return self.out(self.drop(jnp.tanh(self.norm(self.conv(x)))).mean(1))


class EquinoxNet(eqx.Module):
    """The same for one example, channels first."""

    conv: eqx.nn.Conv1d
    norm: eqx.nn.BatchNorm
    drop: eqx.nn.Dropout
    out: eqx.nn.Linear

    def __init__(self, key):
        one, two = jax.random.split(key)
        self.conv = eqx.nn.Conv1d(2, 3, 3, padding=1, use_bias=False, key=one)
        self.norm = eqx.nn.BatchNorm(3, axis_name="rows", mode="batch")
        self.drop = eqx.nn.Dropout(0.3)
        self.out = eqx.nn.Linear(3, 2, key=two)

    def __call__(self, x, state, *, key=None):
        x, state = self.norm(self.conv(x.T), state)
        return self.out(self.drop(jnp.tanh(x), key=key).mean(1)), state


def shifted(params):
    """Parameters that are not 0 or 1."""
    return jax.tree.map(lambda p: p + 0.1 * jnp.cos(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), params)


def linen_case():
    module = LinenNet()
    variables = module.init(jax.random.key(0), X, train=False)
    variables = {"params": shifted(variables["params"]), "batch_stats": variables["batch_stats"]}
    net = adopt(module, variables)

    def by_hand(params, x, call):
        key = jax.random.fold_in(jax.random.key(0), call)
        rngs = {"dropout": jax.random.split(key, 1)[0]}
        given = {"params": params, "batch_stats": variables["batch_stats"]}
        return module.apply(given, x, train=True, rngs=rngs, mutable=["batch_stats"])[0]

    return net, by_hand, variables["params"], lambda grads: grads


def nnx_case():
    module = NNXNet(nnx.Rngs(0))
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    params = shifted(params)
    nnx.update(module, params)
    net = adopt(module)

    def by_hand(params, x, call):
        merged = nnx.merge(graph, params, jax.tree.map(lambda leaf: leaf, rest))
        for _ in range(call):
            merged(x)
        return merged(x)

    return net, by_hand, params, lambda grads: net.model.param_leaves.dict(grads)


def equinox_case():
    model, state = eqx.nn.make_with_state(EquinoxNet)(jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    params = shifted(params)
    net = adopt(eqx.combine(params, static), state, batch=True)

    def by_hand(params, x, call):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), call), len(x))
        clone = jax.tree.map(lambda leaf: leaf, state)
        one = lambda x, key: eqx.combine(params, static)(x, clone, key=key)  # noqa: E731
        return jax.vmap(one, axis_name="rows", out_axes=(0, None))(x, keys)[0]

    return net, by_hand, params, lambda grads: net.model.leaves.dict(grads)


CASES = {"linen": linen_case, "nnx": nnx_case, "equinox": equinox_case}


@pytest.fixture(params=CASES, scope="module")
def case(request):
    net, *rest = CASES[request.param]()
    # Flax keeps running statistics in float32 and moves them in float64.
    return StatefulLayer(net.model, net.params, polyad.convert(net.state, "jax", dtype="float64")), *rest


def fresh(net):
    return StatefulLayer(net.model, net.params, net.state)


def jacobian_loss(net, params, x):
    both = StatefulLayer(net.model, params, net.state)
    value = xp.sum(both(x) ** 2)
    return value + xp.sum(jacobian(both, x) ** 2), both.state


def test_a_jacobian_inside_a_loss_is_the_one_written_by_hand(case):
    net, by_hand, params, named = case

    def hand(params, x):
        J = jax.jacrev(lambda x: by_hand(params, x, 1))(x)
        return jnp.sum(by_hand(params, x, 0) ** 2) + jnp.sum(J**2)

    def found(params, x):
        results = {}
        for policy in STRATEGIES:
            with polyad.nested_switching(policy):
                f = lambda p, x: jacobian_loss(net, p, x)  # noqa: E731
                (value, _), grads = value_and_gradient(f, params, x, argnums=(0, 1), has_aux=True)
            results[policy] = value, *grads
        return results

    value, (of_params, of_x) = fast(jax.value_and_grad(hand, argnums=(0, 1)))(params, X)
    results = fast(found)(net.params, X)
    for policy in STRATEGIES:
        assert difference(results[policy][0], value) < 1e-12
        assert difference(results[policy][1], named(of_params)) < 1e-10
        assert difference(results[policy][2], of_x) < 1e-10


def test_laplacian_and_batched_jacobian_in_test_mode(case):
    net = fresh(case[0])
    net(X)
    net = StatefulLayer(net.model, net.params, polyad.test_mode(net.state))
    before, f = net.state, lambda x: net.model(x, net.params, net.state)[0]
    J = fast(jax.jacrev(f))(X)
    rows = fast(lambda x: polyad.batched_jacobian(net, x))(X)
    assert difference(rows, jnp.stack([J[b, :, b] for b in range(len(X))])) < 1e-12
    hessian = fast(jax.vmap(jax.hessian(lambda row: f(row[None])[0])))(X)
    lap = fast(lambda x: polyad.laplacian(net, x))(X)
    assert difference(lap, jnp.einsum("boijij->bo", hessian)) < 1e-11
    net(X)
    assert net.state is before


def test_the_state_moves_once_a_plain_call_and_not_by_derivatives(case):
    net = fresh(case[0])
    before = net.state
    jacobian(net, X)
    assert net.state is before
    first = net(X)
    names = polyad.trees.names(before, "state")
    moved = {
        name: after
        for name, old, after in zip(names, *map(polyad.trees.leaves, (before, net.state)), strict=True)
        if np.any(np.asarray(old) != np.asarray(after))
    }
    assert len([name for name in moved if "count" in name]) == 1
    assert len(moved) >= 3  # the mean and the variance too
    assert difference(net(X), first) > 1e-3  # another mask
    assert difference(fresh(case[0])(X), first) < 1e-12


def test_a_model_trains_under_jit_with_its_state_carried_and_traces_once(case):
    net, traces = fresh(case[0]), []
    optimizer = optax.adam(0.02)

    @fast
    def step(params, state, moments):
        traces.append(1)
        both = StatefulLayer(net.model, params, state)
        (value, after), grads = value_and_gradient(lambda p: jacobian_loss(both, p, X), params, has_aux=True)
        updates, moments = optimizer.update(grads, moments)
        return optax.apply_updates(params, updates), after, moments, value

    params, state, moments, values = net.params, net.state, optimizer.init(net.params), []
    for _ in range(20):
        params, state, moments, value = step(params, state, moments)
        values.append(float(value))
    assert len(traces) == 1
    assert np.mean(values[-3:]) < 0.6 * np.mean(values[:3])


def test_a_net_can_be_pickled(case):
    net = case[0]
    assert difference(pickle.loads(pickle.dumps(net))(X), net.value_and_state(X)[0]) < 1e-12


def test_released_models_are_those_of_the_framework():
    net = linen_case()[0]
    net(X)
    variables = release(net)
    tested = StatefulLayer(net.model, net.params, polyad.test_mode(net.state))
    assert difference(LinenNet().apply(variables, X, train=False), tested(X)) < 1e-12
    net = nnx_case()[0]
    net(X)
    tested = StatefulLayer(net.model, net.params, polyad.test_mode(net.state))
    module = release(tested)
    assert module.drop.deterministic
    assert difference(module(X), tested(X)) < 1e-12
    net = equinox_case()[0]
    net(X)
    tested = StatefulLayer(net.model, net.params, polyad.test_mode(net.state))
    model, state = release(tested)
    assert difference(jax.vmap(lambda x: model(x, state)[0], axis_name="rows")(X), tested(X)) < 1e-12


def test_a_linen_module_is_made_for_an_example():
    net = adopt(LinenNet(), example=X, seed=3)
    variables = LinenNet().init(jax.random.key(3), X, train=False)
    for name in ("Conv_0", "Dense_0"):
        assert difference(net.params[name]["kernel"], variables["params"][name]["kernel"]) == 0.0
    with pytest.raises(polyad.errors.ArgumentError, match="example=x"):
        adopt(LinenNet())


def test_the_arguments_of_a_mode_are_found_or_given():
    class Odd(linen.Module):
        @linen.compact
        def __call__(self, x, phase="sleep"):
            return linen.Dense(1, **FLOAT64)(x) * (2.0 if phase == "wake" else 1.0)

    net = adopt(Odd(), example=X, train={"phase": "wake"}, test={"phase": "sleep"})
    tested = StatefulLayer(net.model, net.params, polyad.test_mode(net.state))
    assert difference(net(X), 2 * tested(X)) < 1e-14
    found = adopt(LinenNet(), example=X).model.options
    assert found == {True: {"train": True}, False: {"train": False}}


def test_several_inputs_are_a_tuple_or_a_dict():
    class Two(linen.Module):
        @linen.compact
        def __call__(self, a, b):
            return linen.Dense(1, **FLOAT64)(a) * b

    net = adopt(Two(), example=(X[:, 0], X[:, 1, :1]))
    y = net((X[:, 0], X[:, 1, :1]))
    assert difference(net({"b": X[:, 1, :1], "a": X[:, 0]}), y) == 0.0
    assert difference(jacobian(lambda b: xp.sum(net((X[:, 0], b))), X[:, 1, :1]), y / X[:, 1, :1]) < 1e-12


def test_modes_are_those_of_the_module_and_frozen_parts_stay_frozen():
    module = NNXNet(nnx.Rngs(0))
    module.norm.eval()
    frozen = adopt(module)
    frozen(X)
    assert isinstance(frozen.state["mode"], layer.Train)
    assert float(jnp.abs(frozen.state["variables"]["norm.mean"]).max()) == 0.0
    module.eval()
    tested = adopt(module)
    assert isinstance(tested.state["mode"], layer.Test)
    assert difference(tested(X), module(X)) < 1e-12
    model, state = eqx.nn.make_with_state(EquinoxNet)(jax.random.key(0))
    assert isinstance(adopt(eqx.nn.inference_mode(model), state, batch=True).state["mode"], layer.Test)


def test_an_equinox_model_of_one_example_is_adopted_as_it_is():
    model = eqx.nn.MLP(2, 1, 5, 2, activation=jnp.tanh, key=jax.random.key(0))
    net, rows = adopt(model), adopt(model, batch=True)
    points = X[:, 0]
    assert difference(net(points[0]), model(points[0])) == 0.0
    assert difference(rows(points), jax.vmap(model)(points)) < 1e-14
    expected = fast(jax.vmap(lambda p: jnp.trace(jax.hessian(lambda p: model(p)[0])(p))))(points)
    assert difference(fast(lambda x: polyad.laplacian(rows, x))(points)[:, 0], expected) < 1e-12
    assert difference(release(net)(points[0]), model(points[0])) == 0.0


def test_wrong_parameters_are_named():
    for case in (linen_case, nnx_case, equinox_case):
        net = case()[0]
        with pytest.raises(polyad.errors.ParameterError, match=r"polyad\.adopt"):
            StatefulLayer(net.model, {"weight": X}, net.state)
    with pytest.raises(polyad.errors.ArgumentError, match="has no variables"):
        adopt(NNXNet(nnx.Rngs(0)), {"params": {}})
