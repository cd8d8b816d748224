"""Layers and setup against formulas."""

import dataclasses

import numpy as np
import pytest

import polyad
from polyad import BatchNorm, Chain, Dense, setup, trees, xp
from polyad.errors import ArgumentError
from polyad.layers.activations import ACTIVATIONS
from tests.examples import COUPLED, arrays, difference, host

FORMULAS = {
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "identity": lambda x: x,
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "log_softmax": lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True)),
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "sin": np.sin,
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "swish": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
}
POINTS = np.random.Generator(np.random.Philox(5)).normal(size=(4, 3))


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activation_and_its_derivatives_are_those_of_its_formula(backend, name):
    x = arrays(backend, POINTS)
    weights = arrays(backend, np.linspace(0.5, 1.5, 12).reshape(4, 3))

    def f(x):
        return xp.sum(weights * ACTIVATIONS[name](x))

    assert difference(ACTIVATIONS[name](x), FORMULAS[name](POINTS)) < 1e-14
    h = 1e-30  # complex step: exact to rounding for the analytic ones, and finite differences for the others
    if name in ("elu", "leaky_relu", "relu"):
        polyad.check_gradients(f, x, backend=backend)
        return
    columns = []
    for i in range(POINTS.size):
        z = POINTS.astype(complex)
        z.flat[i] += 1j * h
        columns.append((host(weights)[0] * FORMULAS[name](z)).sum().imag / h)
    assert difference(polyad.gradient(f, x, backend=backend), np.reshape(columns, POINTS.shape)) < 1e-12


@pytest.mark.parametrize("name", ["elu", "log_softmax", "sigmoid", "softmax", "softplus", "tanh"])
def test_activations_have_finite_derivatives_far_out(backend, name):
    x = arrays(backend, np.array([[-800.0, 0.5, 700.0]]))
    jac = host(polyad.jacobian(ACTIVATIONS[name], x, backend=backend))[0]
    assert np.isfinite(jac).all()


def test_equal_seeds_give_equal_numbers_on_every_backend_and_in_both_precisions(backend):
    expected = host(setup(3, COUPLED, backend="numpy", dtype="float64"))
    for dtype in ("float32", "float64", None):
        actual = host(setup(3, COUPLED, backend=backend, dtype=dtype))
        assert all(np.array_equal(a, e) for a, e in zip(actual, expected, strict=True))
    other = host(setup(4, COUPLED, backend=backend, dtype="float64"))
    assert not np.array_equal(other[1], expected[1])


def test_default_dtype_is_the_framework_s_own(backend):
    params, _ = setup(0, COUPLED, backend=backend)
    expected = {"torch": "float32"}.get(backend, "float64")
    assert host(params)[0].dtype == expected


def test_adding_a_layer_leaves_the_numbers_of_the_others():
    short, _ = setup(0, Chain(Dense(2, 4)), backend="numpy")
    longer, _ = setup(0, Chain(Dense(2, 4), Dense(4, 4)), backend="numpy")
    assert np.array_equal(short["layer_0"]["weight"], longer["layer_0"]["weight"])
    assert not np.array_equal(longer["layer_0"]["bias"], longer["layer_1"]["bias"])


def test_weights_are_glorot_uniform():
    params, _ = setup(0, Dense(300, 200), backend="numpy")
    bound = np.sqrt(6 / 500)
    weight = params["weight"]
    assert np.abs(weight).max() <= bound
    assert abs(weight.std() - bound / np.sqrt(3)) < 0.01 * bound
    assert abs(weight.mean()) < 0.01 * bound


def test_dense_is_an_affine_map_over_any_leading_axes(backend):
    params, state = setup(0, Dense(3, 2, bias=False), backend=backend, dtype="float64")
    x = arrays(backend, POINTS.reshape(2, 2, 3))
    y, _ = Dense(3, 2, bias=False)(x, params, state)
    assert difference(y, POINTS.reshape(2, 2, 3) @ host(params)[0]) < 1e-14


def test_batch_norm_reduces_all_axes_but_the_last_and_refuses_a_batch_of_one(backend):
    layer = BatchNorm(3)
    params, state = setup(0, layer, backend=backend, dtype="float64")
    x = POINTS.reshape(2, 2, 3)
    y, after = layer(arrays(backend, x), params, state)
    flat = x.reshape(-1, 3)
    assert difference(y, (x - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)) < 1e-12
    assert difference(after["var"], 0.9 + 0.1 * flat.var(0, ddof=1)) < 1e-12
    with pytest.raises(ArgumentError, match="a batch of 1 has no variance"):
        layer(arrays(backend, POINTS[:1]), params, state)


def test_models_print_what_they_are():
    assert repr(Chain(Dense(2, 4, "tanh"), "relu", BatchNorm(4), np.tanh)) == (
        "Chain(Dense(2, 4, 'tanh'), relu, BatchNorm(4), tanh)"
    )
    assert trees.names(setup(0, COUPLED, backend="numpy")[0], "p")[1] == "p['layer_0']['weight']"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Dense(0, 2), "positive integers"),
        (lambda: Dense(2, 2, "tahn"), "Did you mean 'tanh'"),
        (lambda: BatchNorm(-1), "positive integer"),
        (lambda: Chain(3), "3 is no layer"),
        (lambda: setup(-1, COUPLED), "non-negative"),
        (lambda: setup(0, np.tanh), "is no polyad layer"),
    ],
)
def test_wrong_descriptions_say_what_is_wrong(wrong, message):
    with pytest.raises(ArgumentError, match=message):
        wrong()


@dataclasses.dataclass
class Shift(polyad.layers.Layer):
    """A layer of somebody's own, which cannot be hashed."""

    features: int

    def parameter_shapes(self):
        return {"shift": (self.features,)}

    def __call__(self, x, params, state):
        return x + params["shift"], state


def test_a_layer_without_a_hash_has_its_parameters_checked():
    model = Shift(3)
    for _ in range(2):
        net = polyad.StatefulLayer(model, {"shift": np.ones(3)}, {})
        assert difference(net(POINTS), POINTS + 1) == 0
        with pytest.raises(polyad.errors.ParameterError, match=r"params\['shift'\] is a float64 array of shape \(4,\)"):
            polyad.StatefulLayer(model, {"shift": np.ones(4)}, {})
