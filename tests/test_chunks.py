"""chunk_size: so many directions in one sweep, and the same result."""

import re
import sys

import numpy as np
import pytest

import polyad
from polyad import backends, convert, gradient, xp
from polyad.backends import directions
from polyad.backends.directions import MOST_DIRECTIONS, MOST_ENTRIES, at_once
from polyad.errors import ArgumentError, ImpureFunctionError, TooLargeError
from tests.examples import compiled

RANDOM = np.random.Generator(np.random.Philox(3))
X, W = RANDOM.normal(size=(4, 5)), RANDOM.normal(size=(5, 5))


def field(x):
    return xp.tanh(xp.matmul(x, W)) * x


def potential(x):
    return xp.sum(field(x) ** 2)


OPERATORS = {
    "jacobian": (polyad.jacobian, field),
    "value_and_jacobian": (lambda *args, **options: polyad.value_and_jacobian(*args, **options)[1], field),
    "batched_jacobian": (polyad.batched_jacobian, field),
    "hessian": (polyad.hessian, potential),
    "laplacian": (polyad.laplacian, field),
    "divergence": (polyad.divergence, field),
}
MODES = ("auto", "forward", "reverse")


def close(actual, expected):
    actual, expected = np.asarray(convert(actual, "numpy")), np.asarray(convert(expected, "numpy"))
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-11)


def compare(backend, name, mode, size):
    """The operator in chunks of this size with the operator as it is."""
    operator, f = OPERATORS[name]
    if mode not in ("auto", *backends.get(backend).modes):
        mode = "auto"
    x = convert(X, backend)
    whole = compiled(backend, lambda x: operator(f, x, mode=mode, backend=backend))(x)
    found = compiled(backend, lambda x: operator(f, x, mode=mode, backend=backend, chunk_size=size))(x)
    close(found, whole)
    assert np.max(np.abs(np.asarray(convert(found, "numpy")))) > 0.1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", OPERATORS)
def test_the_result_is_the_same(backend, name, mode):
    compare(backend, name, mode, 3)


@pytest.mark.parametrize("size", [1, 5, 100])
@pytest.mark.parametrize("name", OPERATORS)
def test_the_size_may_be_any(name, size):
    compare("numpy", name, "auto", size)


@pytest.mark.parametrize("name", OPERATORS)
def test_it_is_differentiated_around(backend, name):
    operator, f = OPERATORS[name]
    x = convert(X, backend)

    def loss(size):
        def inner(x):
            return xp.sum(operator(f, x, chunk_size=size) ** 2)

        return compiled(backend, lambda x: gradient(inner, x, backend=backend))

    close(loss(2)(x), loss(None)(x))


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("name", ["jacobian", "batched_jacobian", "hessian", "divergence"])
def test_no_sweep_has_more_directions(backend, name, mode, monkeypatch):
    """Seen on the two functions of an adapter that take many directions, and on that of jets."""
    adapter = backends.get(backend)
    if mode not in adapter.modes:
        mode = "forward"
    seen = []

    def spied(original, place):
        def spy(*args, **options):
            seen.extend(d.shape[0] for d in args[place] if d is not None)
            return original(*args, **options)

        return spy

    for method in ("pullbacks", "pushforwards"):
        original = getattr(type(adapter), method)
        monkeypatch.setattr(type(adapter), method, spied(original, 2 if method == "pullbacks" else 3))
    by_jets = sys.modules["polyad.operators.batched_jacobian"]
    monkeypatch.setattr(by_jets, "pushforwards", spied(by_jets.pushforwards, 2))
    operator, f = OPERATORS[name]
    operator(f, convert(X, backend), mode=mode, backend=backend, chunk_size=3)
    if mode == "forward" and backend == "jax" and name in ("jacobian", "hessian"):
        assert not seen  # columns go through one linearization: two tests below
    else:
        assert seen
        assert max(seen) <= 3


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_chunks_on_jax_hold_so_many_directions_at_most(mode):
    jax = pytest.importorskip("jax")
    jaxpr = jax.make_jaxpr(lambda x: polyad.jacobian(lambda x: xp.sin(x) * x, x, mode=mode, chunk_size=7))
    sizes = {int(size) for size in re.findall(r"f64\[(\d+),40\] = mul", str(jaxpr(np.ones(40))))}
    assert max(sizes) == 7


def test_by_default_the_memory_of_a_sweep_is_bounded():
    assert at_once(1000, 1) == MOST_DIRECTIONS
    assert at_once(10, 1) == 10
    assert at_once(MOST_DIRECTIONS * 3 // 2, 1) == MOST_DIRECTIONS * 3 // 2  # a rest of half a sweep goes along
    assert at_once(MOST_DIRECTIONS * 3 // 2 + 1, 1) == MOST_DIRECTIONS
    assert at_once(1000, MOST_ENTRIES // 4) == 4
    assert at_once(1000, 10 * MOST_ENTRIES) == 1
    assert at_once(1000, MOST_ENTRIES, chunk_size=500) == 500
    assert at_once(0, 1) == at_once(0, 1, chunk_size=500) == 1


@pytest.mark.parametrize("size", [0, -3, 2.5, True, "all"])
@pytest.mark.parametrize("name", OPERATORS)
def test_a_wrong_size_is_refused(name, size):
    operator, f = OPERATORS[name]
    with pytest.raises(ArgumentError, match=r"chunk_size=.*the number of directions in one sweep"):
        operator(f, X, chunk_size=size)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["jacobian", "hessian"])
def test_a_jacobian_that_no_memory_holds_is_refused_before_it_is_made(backend, name, mode, monkeypatch):
    monkeypatch.setattr(directions, "_memory", lambda: 1e5)
    x = convert(np.linspace(0.0, 1.0, 120), backend)  # 120 x 120 x 8 bytes
    if mode not in ("auto", *backends.get(backend).modes):
        mode = "auto"
    f = {"jacobian": xp.sin, "hessian": lambda x: xp.sum(xp.sin(x))}[name]
    with pytest.raises(TooLargeError, match=r"120 outputs in 120 inputs takes .*jvp, vjp, hvp"):
        getattr(polyad, name)(f, x, mode=mode, backend=backend)


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("gradient", {"a": np.ones(2), "b": np.ones(2)}),  # a sweep for each leaf
        ("gradient", np.ones(2 * MOST_DIRECTIONS)),  # and for each chunk
        ("jacobian", {"a": np.ones(2), "b": np.ones(2)}),
        ("laplacian", np.ones((1, 2 * MOST_DIRECTIONS))),
    ],
)
def test_two_masks_in_one_derivative_are_refused(backend, name, inputs):
    """f is evaluated once a sweep: where it draws another number each time, columns would be of two functions."""
    drawn = []

    def f(x):
        drawn.append(1.0)
        leaves = polyad.trees.leaves(x)
        total = sum(xp.sum(leaf**2, axis=None if name != "laplacian" else 1) for leaf in leaves)
        return len(drawn) * total

    options = {} if name == "laplacian" else {"mode": "forward"}
    if backend == "jax" and name == "gradient" and not isinstance(inputs, dict):  # one linearization for all chunks
        found = getattr(polyad, name)(f, convert(inputs, backend), mode="forward")
        close(found, 2 * inputs)
    else:
        with pytest.raises(ImpureFunctionError, match="Draw the numbers outside and pass them in"):
            getattr(polyad, name)(f, convert(inputs, backend), backend=backend, **options)
