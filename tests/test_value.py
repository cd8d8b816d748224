"""value_and_...: the value beside the derivative, from one evaluation."""

import numpy as np
import pytest

import polyad
from polyad import BatchNorm, Chain, Dense, StatefulLayer, convert, gradient, setup, xp

BACKENDS = ("numpy", "autograd", "jax", "torch")
W = np.array([[0.7, -0.4, 0.9], [0.2, 0.8, -0.5], [-0.6, 0.3, 0.4]])
X = np.array([[0.3, -0.8, 0.5], [1.1, 0.4, -0.2]])


def field(x):
    return xp.tanh(xp.matmul(x, W)) * x


def potential(x):
    return xp.sum(field(x) ** 2)


def scalar(t):
    return xp.sin(2.0 * t) * xp.exp(t)


CASES = {
    "batched_jacobian": (field, (X,), {}),
    "derivative": (scalar, (np.array(0.4),), {"order": 3}),
    "divergence": (field, (X,), {}),
    "gradient": (potential, (X,), {}),
    "hessian": (potential, (X,), {}),
    "hvp": (potential, ((X,), (X[::-1].copy(),)), {}),
    "jacobian": (field, (X,), {}),
    "laplacian": (field, (X,), {}),
}
PAIRS = [(name, backend) for name in CASES for backend in BACKENDS]


def made(name, backend):
    pytest.importorskip(backend)
    f, args, options = CASES[name]
    x = args[0][0] if isinstance(args[0], tuple) else args[0]
    return f, convert(args, backend), convert(x, backend), {**options, "backend": backend}


def close(actual, expected):
    actual, expected = np.asarray(convert(actual, "numpy")), np.asarray(convert(expected, "numpy"))
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "backend"), PAIRS)
def test_the_value_and_the_result(name, backend):
    f, args, x, options = made(name, backend)
    value, result = getattr(polyad, f"value_and_{name}")(f, *args, **options)
    close(value, f(x))
    close(result, getattr(polyad, name)(f, *args, **options))


@pytest.mark.parametrize(("name", "backend"), PAIRS)
def test_aux_stands_beside_the_value(name, backend):
    f, args, x, options = made(name, backend)

    def with_aux(x):
        return f(x), {"twice": 2 * x, "word": "kept"}

    (value, aux), result = getattr(polyad, f"value_and_{name}")(with_aux, *args, has_aux=True, **options)
    close(value, f(x))
    close(aux["twice"], 2 * x)
    assert aux["word"] == "kept"
    close(result, getattr(polyad, name)(f, *args, **options))


@pytest.mark.parametrize(("name", "backend"), PAIRS)
def test_it_evaluates_f_no_more_than_the_operator(name, backend):
    f, args, _, options = made(name, backend)
    calls = []

    def counted(x):
        calls.append(1)
        return f(x)

    getattr(polyad, name)(counted, *args, **options)
    alone = len(calls)
    getattr(polyad, f"value_and_{name}")(counted, *args, **options)
    assert len(calls) - alone <= alone


@pytest.mark.parametrize(("name", "backend"), PAIRS)
def test_both_are_differentiated_around(name, backend):
    """d/dx of sum(value * g + result * h) is that of the two taken apart."""
    f, args, x, options = made(name, backend)

    def moved(x):
        return (((x,), *args[1:]) if name == "hvp" else (x, *args[1:])), options

    def together(x):
        args, options = moved(x)
        value, result = getattr(polyad, f"value_and_{name}")(f, *args, **options)
        return xp.sum(xp.sin(value)) + xp.sum(result**2)

    def apart(x):
        args, options = moved(x)
        return xp.sum(xp.sin(f(x))) + xp.sum(getattr(polyad, name)(f, *args, **options) ** 2)

    found = gradient(together, x, backend=backend)
    close(found, gradient(apart, x, backend=backend))
    assert np.max(np.abs(np.asarray(convert(found, "numpy")))) > 0.1


@pytest.mark.parametrize("name", [name for name in CASES if name != "hvp"])
def test_without_arguments_it_is_a_function_of_them(name):
    f, args, options = CASES[name]
    value, result = getattr(polyad, f"value_and_{name}")(f, **options)(*args)
    close(value, f(args[0]))
    close(result, getattr(polyad, name)(f, *args, **options))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["jacobian", "hessian", "gradient"])
def test_the_state_of_a_layer_is_written_once(name, backend):
    pytest.importorskip(backend)
    model = Chain(Dense(3, 2, "tanh"), BatchNorm(2))
    params, state = setup(0, model, backend=backend, dtype="float64")
    x = convert(X, backend)
    once, net = StatefulLayer(model, params, state), StatefulLayer(model, params, state)
    expected = once(x)
    if name == "gradient":
        net = StatefulLayer(lambda x, p, s: (lambda y, s: (xp.sum(y**2), s))(*model(x, p, s)), params, state)
        expected = xp.sum(expected**2)
    value, _ = getattr(polyad, f"value_and_{name}")(net, x)
    close(value, expected)
    before, after, wanted = (polyad.trees.leaves(s) for s in (state, net.state, once.state))
    assert any(np.any(np.asarray(a) != np.asarray(b)) for a, b in zip(before, after, strict=True))
    for a, w in zip(after, wanted, strict=True):
        close(a, w)


def test_it_says_its_name():
    assert polyad.value_and_laplacian.__name__ == "value_and_laplacian"
    assert "value_and_hvp" in repr(polyad.value_and_hvp)
