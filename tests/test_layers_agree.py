"""Each layer has the same values and derivatives on every backend, and by its native operations."""

import contextlib
import functools
import io

import numpy as np
import pytest

import polyad
from polyad import StatefulLayer, xp
from polyad.jets import laplacians
from tests.examples import arrays, host
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


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_a_forward_laplacian_goes_through_every_layer(name, backend):
    pytest.importorskip(backend)
    layer, params, state, x, _ = parts(name, backend)
    units = arrays(backend, np.eye(int(np.prod(x.shape))).reshape(-1, *x.shape))
    _, _, (found,) = laplacians(lambda x: (number(layer, state, params, x),), (x,), (units,))
    layer, params, state, x, _ = parts(name, "autograd")
    hessian = polyad.hessian(functools.partial(number, layer, state, params), x, backend="autograd")
    expected = np.trace(host(hessian)[0].reshape(x.size, x.size))
    assert abs(expected) > 1e-2
    assert abs(float(found) - expected) < 1e-10 * np.abs(host(hessian)[0]).max()


@pytest.mark.parametrize("name", ["conv 1", "dropout", "layer norm", "lstm", "max pool 2"])
def test_the_operators_of_higher_order_take_jets_through_layers_on_torch(name):
    pytest.importorskip("torch")
    layer, params, state, x, direction = parts(name, "torch")
    net = StatefulLayer(layer, params, state)

    def along(t):
        return xp.sum(xp.sin(net(x + t * direction)))

    t = arrays("torch", 0.3)
    found = polyad.derivative(along, t, order=3)
    with io.StringIO() as out, contextlib.redirect_stdout(out):
        polyad.explain(polyad.derivative, along, t, order=3)
        assert "one Taylor series of order 3" in out.getvalue()
        assert "jets do not go" not in out.getvalue()
    nested = functools.reduce(lambda f, _: lambda t: polyad.gradient(f, t), range(3), along)
    assert abs(float(found - nested(t))) < 1e-10 * abs(float(nested(t))) + 1e-13
    assert net.state is state
