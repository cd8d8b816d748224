"""Jacobians in parameters at points that f captures: JAX's program of f for one of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import polyad
from polyad import Chain, Dense, StatefulLayer, explain, gradient, jacobian, value_and_jacobian, xp
from polyad.backends import jax_points
from tests.layer_cases import on

POINTS = np.random.default_rng(0).normal(size=(24, 2))
PARAMS = {
    "w": np.random.default_rng(1).normal(size=(2, 5)),
    "b": np.random.default_rng(2).normal(size=(5,)),
    "v": np.random.default_rng(3).normal(size=(5, 3)),
}
MATRIX = np.random.default_rng(4).normal(size=(24, 24))  # as long as there are points


@jax.custom_jvp
def cubed(x):
    return x**3


cubed.defjvp(lambda primals, tangents: (cubed(*primals), 7.0 * primals[0] * tangents[0]))


@jax.custom_jvp
def mixes_in_its_rule(x):
    return x * 1.0


mixes_in_its_rule.defjvp(lambda primals, tangents: (primals[0] * 1.0, tangents[0] + 0.1 * tangents[0][::-1]))


@jax.custom_jvp
def mixes_in_the_rule_of_its_rule(x):
    return x**2


mixes_in_the_rule_of_its_rule.defjvp(lambda xs, dxs: (xs[0] ** 2, 2.0 * mixes_in_its_rule(xs[0]) * dxs[0]))


@jax.custom_vjp
def doubled(x):
    return 2.0 * x


doubled.defvjp(lambda x: (2.0 * x, None), lambda _, ct: (2.0 * ct,))


def hidden(p, x):
    return jnp.tanh(x @ p["w"] + p["b"])


APART = {
    "net": lambda p, x: hidden(p, x) @ p["v"],
    "flat": lambda p, x: (hidden(p, x) @ p["v"]).reshape(-1),
    "one output": lambda p, x: (hidden(p, x) @ p["v"])[:, 1],
    "transposed": lambda p, x: (p["v"].T @ jnp.tanh(p["w"].T @ x.T + p["b"][:, None])).T,
    "einsum": lambda p, x: jnp.einsum("bi,io,oc->bc", x, p["w"], p["v"]) + jnp.sum(p["b"]),
    "custom jvp": lambda p, x: cubed(x @ p["w"]) + jax.nn.relu(x @ p["w"]),
    "custom jvp of parameters": lambda p, x: x @ cubed(p["w"]),
    "softplus": lambda p, x: jax.nn.softplus(x @ p["w"]),
    "logsumexp": lambda p, x: jax.nn.logsumexp(x @ p["w"] + p["b"], axis=1, keepdims=True),
    "softmax": lambda p, x: jax.nn.softmax(x @ p["w"] + p["b"]),
    "where": lambda p, x: jnp.where(x[:, :1] > 0, x @ p["w"], p["b"]),
    "constants of all points": lambda p, x: (x - x.mean(0)) @ p["w"] * jnp.linspace(1.0, 2.0, len(x))[:, None],
    "filled": lambda p, x: x @ p["w"] + jnp.full((len(x), 5), 2.0) * p["b"],
    "parameters for each point": lambda p, x: x @ p["w"] + jnp.broadcast_to(p["b"][None], (24, 5)),
    "stacked": lambda p, x: jnp.stack([x @ p["w"], hidden(p, x)], axis=1),
    "concatenated": lambda p, x: jnp.concatenate([x @ p["w"], hidden(p, x)], axis=-1),
    "a scan over the parameters": lambda p, x: x @ jax.lax.scan(lambda c, b: (c * b, None), p["w"], p["b"])[0],
    "jit": lambda p, x: jax.jit(hidden)(p, x) * jax.jit(hidden)(p, 2.0 * x),
    "checkpoint": lambda p, x: jax.checkpoint(hidden)(p, x),
    "a custom vjp of parameters": lambda p, x: x @ doubled(p["w"]),
    "images": lambda p, x: jax.lax.conv_general_dilated(
        jnp.broadcast_to(x[:, None, :, None], (len(x), 1, 2, 2)), p["w"][None, None, :, :2], (1, 1), "SAME"
    ),
    "an inner derivative": lambda p, x: jax.vmap(jax.grad(lambda z: jnp.sum(hidden(p, z))))(x),
    "a matrix as long as the points": lambda p, x: (x @ p["w"][:, :1] * p["b"][:1]) @ (MATRIX[:1] * p["b"][0]),
}
MIXED = {
    "a sum over points": lambda p, x: hidden(p, x) + jnp.sum(x @ p["w"], axis=0),
    "a batch norm": lambda p, x: (x @ p["w"]) / jnp.std(x @ p["w"], axis=0),
    "other points": lambda p, x: hidden(p, x) + hidden(p, x)[::-1],
    "sorted": lambda p, x: jnp.sort(x @ p["w"], axis=0),
    "attention": lambda p, x: jax.nn.softmax((x @ p["w"]) @ (x @ p["w"]).T) @ x,
    "cumulated": lambda p, x: jnp.cumsum(x @ p["w"], axis=0),
    "a matrix over points": lambda p, x: MATRIX @ (x @ p["w"]),
    "a rule that mixes": lambda p, x: mixes_in_its_rule(x @ p["w"]),
    "a rule whose rule mixes": lambda p, x: mixes_in_the_rule_of_its_rule(x @ p["w"]),
    "a custom vjp": lambda p, x: doubled(x @ p["w"]),
    "one number": lambda p, x: jnp.mean(hidden(p, x)),
    "a loop": lambda p, x: jax.lax.fori_loop(0, 2, lambda i, y: y * 2.0, x @ p["w"]),
}


@pytest.fixture(autouse=True)
def _exactly():
    with polyad.backends.get("jax").default_precision("float64"):
        yield


@pytest.fixture
def looking(monkeypatch):
    monkeypatch.setattr("polyad.backends.jax.Jax.points_from", lambda self: 1)


def given():
    return jax.tree.map(jnp.asarray, PARAMS), jnp.asarray(POINTS)


def seen(f, p):
    leaves, tree = jax.tree.flatten(p)
    return jax_points.points(lambda *leaves: (f(jax.tree.unflatten(tree, leaves)),), tuple(leaves))


def quickly(f):
    """f, compiled as a whole with little care."""
    return functools.partial(on, "jax", f)


def agree(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for mine, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "compiled"),
    [
        *((name, True) for name in (*APART, *MIXED)),
        *((name, False) for name in ("net", "flat", "softplus", "attention")),
    ],
)
def test_they_are_what_jacrev_gives(name, compiled, looking):
    f, (p, x) = {**APART, **MIXED}[name], given()
    way = quickly if compiled else lambda f: f
    reverse = way(jax.jacrev(lambda p: f(p, x)))(p) if name != "a loop" else way(jax.jacfwd(lambda p: f(p, x)))(p)
    agree(way(lambda p: jacobian(lambda p: f(p, x), p))(p), reverse)


@pytest.mark.parametrize("name", [name for name in APART if name != "a matrix as long as the points"])
def test_points_are_seen(name):
    p, x = given()
    found = seen(lambda p: APART[name](p, x), p)
    assert found is not None
    assert {len(part) for part in found.parts} == {24}


@pytest.mark.parametrize("name", MIXED)
def test_points_that_depend_on_each_other_are_seen(name):
    p, x = given()
    assert seen(lambda p: MIXED[name](p, x), p) is None


@pytest.mark.parametrize("name", ["net", "flat", "custom jvp", "softplus", "where", "constants of all points"])
def test_losses_with_them_are_differentiated(name):
    """Also in the points, and where a rule that is no derivative says something else."""
    f, (p, x) = APART[name], given()

    def loss(jacobian):
        return lambda p, x: sum(jnp.sum(jnp.sin(j)) for j in jax.tree.leaves(jacobian(lambda p: f(p, x), p)))

    expected = quickly(jax.grad(loss(lambda f, p: jax.jacrev(f)(p)), (0, 1)))(p, x)
    agree(quickly(lambda p, x: gradient(loss(jacobian), p, x, argnums=(0, 1)))(p, x), expected)
    agree(quickly(jax.grad(loss(jacobian), (0, 1)))(p, x), expected)


def test_rules_see_what_moves_in_a_pass_around_alone(looking):
    """logaddexp has a rule of two arguments, of which parameters do not move the one, and points do the other."""
    p, x = given()

    def loss(jacobian):
        def f(p, x):
            return jnp.logaddexp(jax.lax.stop_gradient(x @ p["w"]), x[:, :1] * jnp.ones((1, 5))) * p["b"]

        return lambda x: jnp.sum(jnp.sin(jacobian(lambda p: f(p, x), p)["b"]))

    found = quickly(jax.grad(loss(lambda f, p: jacobian(f, p, mode="reverse"))))(x)
    agree(found, quickly(jax.grad(loss(lambda f, p: jax.jacrev(f)(p))))(x))


def test_rules_of_rules_are_not_found_to_mix_when_it_is_too_late(looking):
    p, x = given()

    def loss(jacobian):
        return lambda w: jnp.sum(jnp.sin(jacobian(lambda w: mixes_in_the_rule_of_its_rule(x @ w), w)))

    found = quickly(jax.grad(loss(lambda f, w: jacobian(f, w, mode="reverse"))))(p["w"])
    agree(found, quickly(jax.grad(loss(lambda f, w: jax.jacrev(f)(w))))(p["w"]))


@pytest.mark.parametrize("f", [lambda b: jnp.ones((24, 5)) * b, lambda b: jnp.zeros((24, 5)) + b + POINTS.sum()])
def test_points_of_which_nothing_is_captured(f, looking):
    b = jnp.asarray(PARAMS["b"])
    agree(jacobian(f, b, mode="reverse"), jax.jacrev(f)(b))


def test_no_parameters_at_all(looking):
    p, x = given()
    assert jacobian(lambda q: x @ jnp.concatenate([q, p["w"]], axis=1), jnp.zeros((2, 0))).shape == (24, 5, 2, 0)


def test_several_outputs_values_and_aux():
    p, x = given()

    def f(p):
        return {"y": hidden(p, x), "z": (x @ p["w"])[:, 0]}, jnp.sum(x)

    expected = jax.jacrev(lambda p: f(p)[0])(p)
    found, aux = quickly(lambda p: jacobian(f, p, has_aux=True))(p)
    agree(found, expected)
    np.testing.assert_allclose(aux, POINTS.sum())
    value, found = quickly(lambda p: value_and_jacobian(lambda p: f(p)[0], p))(p)
    agree((value, found), (f(p)[0], expected))


def test_arguments_that_are_not_differentiated_are_captured_too():
    p, x = given()
    agree(quickly(lambda p, x: jacobian(hidden, p, x))(p, x), jax.jacrev(hidden)(p, x))


def test_they_may_be_of_one_of_many_models():
    p, x = given()
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, 2.0 * leaf]), p)
    found = quickly(jax.vmap(lambda p: jacobian(lambda p: hidden(p, x), p)))(many)
    agree(found, jax.vmap(jax.jacrev(lambda p: hidden(p, x)))(many))


def test_explain_says_it_and_modes_are_obeyed():
    model = Chain(Dense(2, 16, "tanh"), Dense(16, 3))
    params, state = polyad.setup(0, model, backend="jax")
    x = xp.asarray(jnp.asarray(np.random.default_rng(0).normal(size=(512, 2))))

    def f(p):
        return StatefulLayer(model, p, state)(x)

    plan = explain(jacobian, f, params).steps[0].plan
    assert plan.why == "3 rows against 99 columns at each of 512 points that do not depend on each other"
    assert plan.sweeps == 3
    assert "points" not in explain(jacobian, f, params, mode="forward").steps[0].plan.why
