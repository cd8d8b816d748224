"""Each layer has the same values and derivatives on every backend, and by its native operations."""

import functools

import numpy as np
import pytest

import polyad
from tests.examples import host
from tests.layer_cases import CASES, derivatives, number, on, parts


def close(actual, expected, tolerance):
    """Leaf by leaf, relative to the largest entry of the tree: the gradient of a key's bias is exactly 0."""
    actual, expected = host(actual), host(expected)
    assert [a.shape for a in actual] == [e.shape for e in expected]
    scale = max(np.abs(e).max(initial=0.0) for e in expected)
    assert scale > 1e-3, "a tiny expected derivative tests nothing"
    worst = max(float(np.abs(a - e).max(initial=0.0)) for a, e in zip(actual, expected, strict=True)) / scale
    assert worst < tolerance, worst


@functools.cache
def reference(name):
    """The numbers of autograd; the third derivative by nested forward passes, without jets."""
    layer, params, state, x, direction = parts(name, "autograd")
    value, first, second, _ = derivatives("autograd", layer, params, state, x, direction)

    def along(f):
        return lambda x: polyad.jvp(f, (x,), (direction,), backend="autograd")[1]

    third = along(along(along(lambda x: number(layer, state, params, x))))
    return value, first, second, [third(x)]


@pytest.mark.parametrize("name", sorted(CASES))
def test_values_and_derivatives_are_the_same_on_every_backend(name, backend):
    layer, params, state, x, direction = parts(name, backend)
    f = functools.partial(derivatives, backend, layer)
    for actual, expected in zip(on(backend, f, params, state, x, direction), reference(name), strict=True):
        if max(np.abs(e).max(initial=0.0) for e in host(expected)) > 1e-3:  # pieces of constants have no second one
            close(actual, expected, 1e-12)


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_gradient_is_the_one_of_finite_differences(name):
    layer, params, state, x, _ = parts(name, "numpy")
    exact = polyad.gradient(functools.partial(number, layer, state), params, x, argnums=(0, 1), backend="autograd")
    estimate = polyad.gradient(
        functools.partial(number, layer, state), params, x, argnums=(0, 1), mode="finite_difference", backend="numpy"
    )
    close(exact, estimate, 1e-7)
