"""Every strategy on every backend: documented examples 1 to 5, forms of a call, captured arrays, state, traps."""

import functools

import numpy as np
import pytest

import polyad
from polyad import (
    BatchNorm,
    Chain,
    Dense,
    StatefulLayer,
    batched_jacobian,
    compose,
    gradient,
    jacobian,
    jvp,
    nested_switching,
    setup,
    trees,
    value_and_gradient,
    vjp,
    xp,
)
from tests.examples import COUPLED, T, X, Y, arrays, difference, host

STRATEGIES = ("off", "taped", "recompute", "forward_over_reverse", "auto")
FIELD = Chain(Dense(1, 12, "tanh"), Dense(12, 12, "tanh"), Dense(12, 12, "tanh"), Dense(12, 1))
PLAIN = Chain(Dense(2, 4, "tanh"), Dense(4, 2))
TRACE = Chain(Dense(4, 12, "tanh"), Dense(12, 12, "tanh"), Dense(12, 12, "tanh"), Dense(12, 4))
Z = np.random.Generator(np.random.Philox(3)).normal(size=(12, 4))
SIGNS = np.sign(np.random.Generator(np.random.Philox(4)).normal(size=(12, 4)))
POINT = np.array([0.3, 0.7, -0.4])
WEIGHT = np.array([1.5, -0.5, 2.0])


@pytest.fixture(params=STRATEGIES)
def strategy(request):
    """The policy in whose block the test runs."""
    with nested_switching(request.param):
        yield request.param


# The documented examples, each (model, inputs, loss of a net and the inputs).


def jacobian_loss(net, x, y):
    return xp.sum((net(x) - y) ** 2) + xp.sum(jacobian(net, x) ** 2)


def gradient_loss(net, t):
    return xp.sum((gradient(lambda t: xp.sum(net(t) ** 2), t) - xp.cos(t)) ** 2)


def batched_jacobian_loss(net, x, y):
    return xp.sum((net(x) - y) ** 2) + xp.sum((0.01 * batched_jacobian(net, x)) ** 2)


def parameter_jacobian_loss(net, t):
    J = jacobian(lambda params: net(t, params), net.params)
    return sum(xp.sum(block**2) for block in trees.leaves(J))


def trace_by_vjp(net, x, v):
    return xp.sum(v * vjp(net, x)[1](v)[0] ** 2)


def trace_by_jvp(net, x, v):
    return xp.sum(v * jvp(net, (x,), (v,))[1] ** 2)


def trace_by_jacobian(net, x, v):
    return xp.sum(v * xp.sum(batched_jacobian(net, x) * v[:, None, :], axis=-1) ** 2)


EXAMPLES = {
    "1": (COUPLED, (X, Y), jacobian_loss),
    "2": (FIELD, (T,), gradient_loss),
    "3": (PLAIN, (X, Y), batched_jacobian_loss),
    "4": (FIELD, (T,), parameter_jacobian_loss),
    "5 vjp": (TRACE, (Z, SIGNS), trace_by_vjp),
    "5 jvp": (TRACE, (Z, SIGNS), trace_by_jvp),
    "5 jacobian": (TRACE, (Z, SIGNS), trace_by_jacobian),
}


def result(backend, name):
    """(value, gradients in parameters and inputs) of a documented example."""
    model, inputs, loss = EXAMPLES[name]
    params, state = setup(0, model, backend=backend, dtype="float64")
    args = [params, *(arrays(backend, x) for x in inputs)]

    def of_net(params, *inputs):
        return loss(StatefulLayer(model, params, state), *inputs)

    return value_and_gradient(of_net, *args, argnums=tuple(range(len(args))), backend=backend)


@functools.cache
def untouched(backend, name):
    """The same by the framework's own nesting."""
    with nested_switching("off"):
        return result(backend, name)


def largest(actual, expected):
    """Largest difference, relative to the leaf; leaves that are zero, such as that of a last bias, to all of them."""
    pairs = list(zip(host(actual), host(expected), strict=True))
    size = max(np.max(np.abs(e)) for _, e in pairs)
    sizes = [np.max(np.abs(e)) for _, e in pairs]
    assert sum(s > 1e-3 * size for s in sizes) >= len(sizes) / 2  # else there is little that could be wrong
    return max(
        np.max(np.abs(a - e)) / (s if s > 1e-10 * size else size) for (a, e), s in zip(pairs, sizes, strict=True)
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_strategies_agree_on_the_documented_examples(backend, strategy, name):
    assert largest(result(backend, name), untouched(backend, name)) < 1e-10


def test_the_trace_by_jvp_and_by_the_jacobian_agree(backend, strategy):
    assert largest(result(backend, "5 jvp"), result(backend, "5 jacobian")) < 1e-10


# Forms of a call.


def forms(net, other, w):
    """Functions of x with two nets and an array inside, and how a plain lambda would say them."""

    class Shifted:
        def __init__(self, by):
            self.by = by

        def field(self, x):
            return net(x) * self.by

        def __call__(self, x):
            return self.field(x) + other(x)

    def scaled(w, x):
        return w * net(x)

    return {
        "net >> f": (net >> (lambda y: w * y**2), lambda x: w * net(x) ** 2),
        "f << net": ((lambda y: w * y**2) << net, lambda x: w * net(x) ** 2),
        "net << f": (net << (lambda x: x * w), lambda x: net(x * w)),
        "compose": (compose(lambda y: y * w, other, xp.sin, net), lambda x: w * other(xp.sin(net(x)))),
        "two in a row": (net >> other, lambda x: other(net(x))),
        "partial": (functools.partial(scaled, w), lambda x: w * net(x)),
        "bound method": (Shifted(w).field, lambda x: net(x) * w),
        "object": (Shifted(w), lambda x: net(x) * w + other(x)),
        "net(x, params)": (lambda x: net(x, trees.map(lambda p: p * 1.5, net.params)), None),
    }


FORMS = (
    *("net >> f", "f << net", "net << f", "compose", "two in a row"),
    *("partial", "bound method", "object", "net(x, params)"),
)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_call_keeps_the_gradients_of_all_that_it_captures(backend, strategy, form):
    params, state = setup(0, PLAIN, backend=backend, dtype="float64")
    others, _ = setup(1, PLAIN, backend=backend, dtype="float64")
    x, w = arrays(backend, X, np.array([1.5, -0.7]))

    def loss(params, others, w, x, plain=False):
        found = forms(StatefulLayer(PLAIN, params, state), StatefulLayer(PLAIN, others, state), w)[form]
        f = found[1] if plain and found[1] else found[0]
        return xp.sum(batched_jacobian(f, x) ** 2) + xp.sum(gradient(lambda x: xp.sum(f(x) ** 2), x) ** 2)

    args = params, others, w, x
    actual = gradient(loss, *args, argnums=(0, 1, 2, 3), backend=backend)
    with nested_switching("off"):
        expected = gradient(functools.partial(loss, plain=True), *args, argnums=(0, 1, 2, 3), backend=backend)
    for one, other in zip(trees.leaves(actual), trees.leaves(expected), strict=True):
        assert np.max(np.abs(polyad.convert(one - other, "numpy"))) < 1e-10


# What a function captures, against formulas.


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_captured_arrays_that_depend_on_each_other_count_once(backend, strategy, mode):
    x, w = arrays(backend, POINT, WEIGHT)

    def loss(w, x):
        s = xp.sin(w)
        held = {"both": [w, s]}
        slope = gradient(lambda x: xp.sum(held["both"][0] * s * x**3), x, mode=mode)  # 3 w sin(w) x^2
        return xp.sum(slope**2)

    sin, cos = np.sin(WEIGHT), np.cos(WEIGHT)
    expected = (18 * POINT**4 * WEIGHT * sin * (sin + WEIGHT * cos), 36 * POINT**3 * (WEIGHT * sin) ** 2)
    assert difference(gradient(loss, w, x, argnums=(0, 1), backend=backend), expected) < 1e-11


def test_an_argument_that_is_captured_as_well_is_both(backend, strategy):
    x = arrays(backend, POINT)

    def loss(x):
        return xp.sum(gradient(lambda z: xp.sum(z**2 * x), x) ** 2)  # (2 z x)^2 at z = x: 4 x^4

    assert difference(gradient(loss, x, backend=backend), 16 * POINT**3) < 1e-12


def test_changed_captured_values_are_seen_by_the_next_call(backend, strategy):
    x = arrays(backend, POINT)
    scale = {"w": arrays(backend, WEIGHT)}

    def loss(x):
        return xp.sum(gradient(lambda x: xp.sum(scale["w"] * x**3), x) ** 2)  # 9 w^2 x^4

    for factor in (1.0, 3.0):
        scale["w"] = arrays(backend, factor * WEIGHT)
        assert difference(gradient(loss, x, backend=backend), 36 * (factor * WEIGHT) ** 2 * POINT**3) < 1e-12


def test_the_cotangent_and_the_tangent_keep_their_gradient(backend, strategy):
    x, u = arrays(backend, POINT, WEIGHT)

    def by_vjp(x, u):
        return xp.sum(vjp(lambda x: xp.sin(x) * x, x)[1](u)[0] ** 2)

    def by_jvp(x, u):
        return xp.sum(jvp(lambda x: xp.sin(x) * x, (x,), (u,))[1] ** 2)

    slope = np.sin(POINT) + POINT * np.cos(POINT)
    bend = 2 * np.cos(POINT) - POINT * np.sin(POINT)
    expected = (2 * WEIGHT**2 * slope * bend, 2 * WEIGHT * slope**2)
    for loss in (by_vjp, by_jvp):
        assert difference(gradient(loss, x, u, argnums=(0, 1), backend=backend), expected) < 1e-12


def test_a_pullback_may_be_called_again_and_its_value_is_differentiated(backend, strategy):
    x, u = arrays(backend, POINT, WEIGHT)

    def loss(x):
        y, pull = vjp(lambda x: x**3, x)
        (once,), (twice,) = pull(u), pull(y)
        return xp.sum(once * twice) + xp.sum(y)  # 9 u x^7 + x^3

    expected = 63 * WEIGHT * POINT**6 + 3 * POINT**2
    assert difference(gradient(loss, x, backend=backend), expected) < 1e-12


def test_trees_unused_arguments_and_constant_functions(backend, strategy):
    x, w = arrays(backend, POINT, WEIGHT)

    def loss(w, x):
        grads = gradient(lambda tree: xp.sum(w * tree["a"] ** 3), {"a": x, "b": [w], "none": None})
        flat = jacobian(lambda x: {"y": (w * x**2, w * 1.0)}, x)
        return xp.sum(grads["a"] ** 2) + xp.sum(grads["b"][0] ** 2) + xp.sum(flat["y"][0]) + xp.sum(flat["y"][1])

    expected = (18 * WEIGHT * POINT**4 + 2 * POINT, 36 * WEIGHT**2 * POINT**3 + 2 * WEIGHT)
    assert difference(gradient(loss, w, x, argnums=(0, 1), backend=backend), expected) < 1e-12


def test_aux_is_differentiated_by_the_pass_around(backend, strategy):
    x, w = arrays(backend, POINT, WEIGHT)

    def loss(w, x):
        slope, aux = gradient(lambda x: (xp.sum(w * x**2), {"z": w * xp.sin(x), "n": 3}), x, has_aux=True)
        return xp.sum(slope * aux["z"]) * aux["n"]  # 6 w^2 x sin x

    expected = (12 * WEIGHT * POINT * np.sin(POINT), 6 * WEIGHT**2 * (np.sin(POINT) + POINT * np.cos(POINT)))
    assert difference(gradient(loss, w, x, argnums=(0, 1), backend=backend), expected) < 1e-12


def test_twenty_steps_of_an_inner_gradient(backend, strategy):
    w, x = arrays(backend, WEIGHT, POINT)

    def loss(w, x):
        for _ in range(20):
            x = x - 0.01 * gradient(lambda x: xp.sum(w * x**2), x)
        return xp.sum(x**2)  # x (1 - 0.02 w)^20

    factor = (1 - 0.02 * WEIGHT) ** 20
    expected = (
        -2 * POINT**2 * factor * 20 * 0.02 * (1 - 0.02 * WEIGHT) ** 19,
        2 * POINT * factor**2,
    )
    assert difference(gradient(loss, w, x, argnums=(0, 1), backend=backend), expected) < 1e-12


@pytest.mark.parametrize("inner", ["recompute", "forward_over_reverse"])
def test_levels_may_have_policies_of_their_own(backend, strategy, inner):
    x, w = arrays(backend, POINT, WEIGHT)

    def slope(x, w):
        with nested_switching(inner):
            return xp.sum(gradient(lambda x: xp.sum(w * x**4), x) ** 2)  # 16 w^2 x^6

    def bend(w, x):
        return xp.sum(gradient(slope, x, w) ** 2)  # (96 w^2 x^5)^2

    expected = (4 * 96**2 * WEIGHT**3 * POINT**10, 10 * 96**2 * WEIGHT**4 * POINT**9)
    assert difference(gradient(bend, w, x, argnums=(0, 1), backend=backend), expected) < 1e-11


def test_variables_of_a_loop_are_those_of_their_step(backend, strategy):
    x = arrays(backend, POINT)
    calls = 0

    def loss(x):
        nonlocal calls
        total = 0.0
        for k in (1.0, 2.0, 3.0):

            def f(x):
                nonlocal calls
                calls += 1
                return xp.sum(k * x**3)  # noqa: B023  (that is what is tested)

            total = total + xp.sum(gradient(f, x) ** 2)  # 9 k^2 x^4
        return total

    assert difference(gradient(loss, x, backend=backend), 36 * 14 * POINT**3) < 1e-12
    assert calls >= 3


# State.


def test_an_inner_derivative_and_its_backward_pass_leave_the_state(backend, strategy):
    model = Chain(Dense(2, 4, "tanh"), BatchNorm(4), Dense(4, 2))
    params, state = setup(0, model, backend=backend, dtype="float64")
    x = arrays(backend, X)
    states = []

    def loss(params, x):
        net = StatefulLayer(model, params, state)
        value = xp.sum(jacobian(net, x) ** 2)
        states.append(net.state is state)
        return value

    net = StatefulLayer(model, params, state)
    gradient(loss, params, x, backend=backend)
    jacobian(net, x)
    assert net.state is state
    assert all(states)
    net(x)
    once = net.state
    assert once is not state
    net.state = state
    polyad.value_and_jacobian(net, x)
    assert difference(list(trees.leaves(net.state)), list(trees.leaves(once))) < 1e-12


def test_an_exception_in_the_backward_pass_leaves_captured_arrays_as_they_were(backend, strategy):
    x, w = arrays(backend, POINT, WEIGHT)
    fails = [False]

    def f(x):
        if fails[0]:
            raise KeyError("inside f")
        return xp.sum(w * x**3)

    def loss(x):
        slope = gradient(f, x)
        fails[0] = True
        return xp.sum(slope**2)

    expected = 36 * WEIGHT**2 * POINT**3
    try:
        gradient(loss, x, backend=backend)
    except KeyError:
        assert strategy in ("recompute", "forward_over_reverse")  # they evaluate f again
    fails[0] = False
    assert difference(gradient(lambda x: xp.sum(gradient(f, x) ** 2), x, backend=backend), expected) < 1e-12


def test_the_policy_of_a_thread_is_its_own(backend):
    import threading

    seen = {}

    def work(policy):
        with nested_switching(policy):
            explanation = polyad.explain(
                gradient,
                lambda x: xp.sum(gradient(lambda x: xp.sum(x**3), x) ** 2),
                arrays(backend, POINT),
                backend=backend,
            )
            seen[policy] = explanation.steps[0].inner[0].strategy

    threads = [threading.Thread(target=work, args=(policy,)) for policy in ("taped", "recompute")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    has = "recompute" in polyad.backends.get(backend).strategies
    assert seen == {"taped": "taped", "recompute": "recompute" if has else "taped"}
