"""What layers say of themselves and of wrong inputs, and what their parameters are first."""

import re

import numpy as np
import pytest

import polyad
from polyad import (
    Branch,
    Cell,
    Chain,
    Conv,
    Dense,
    Dropout,
    Embedding,
    FourierFeatures,
    GroupNorm,
    GRUCell,
    InstanceNorm,
    LayerNorm,
    LSTMCell,
    Maxout,
    MaxPool,
    MeanPool,
    MultiHeadAttention,
    Parallel,
    Recurrence,
    RMSNorm,
    Scale,
    Siren,
    SkipConnection,
    StatefulLayer,
    setup,
    xp,
)
from polyad.errors import ArgumentError, DTypeError, ParameterError
from tests.examples import arrays, difference, host
from tests.layer_cases import CASES, normal, on

ONE = Dense(2, 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Conv(0, 2, 3), "sizes are positive integers"),
        (lambda: Conv(2, 3, 3, groups=2), "multiples of groups"),
        (lambda: Conv(2, 2, (3, 0)), "kernel=(3, 0)"),
        (lambda: Conv(2, 2, (1, 1, 1, 1)), "1 to 3 positive integers"),
        (lambda: Conv(2, 2, 3, stride=(1, 1)), "stride=(1, 1); it needs one positive integer or 1"),
        (lambda: Conv(2, 2, 3, padding=-1), "padding=-1"),
        (lambda: Conv(2, 2, 3, padding="all"), "padding='all'; it needs 'same', 'valid'"),
        (lambda: Conv(2, 2, 3, padding=((1, 2, 3),)), "padding=((1, 2, 3),)"),
        (lambda: Conv(2, 2, 3, "tahn"), "Did you mean 'tanh'"),
        (lambda: MaxPool(2, padding=2), "windows of padding alone"),
        (lambda: MeanPool(2.0), "window=2.0"),
        (lambda: LayerNorm(0), "LayerNorm: features=0; it is a positive integer"),
        (lambda: GroupNorm(4, 3), "features is a multiple of groups"),
        (lambda: Embedding(3, True), "features=True"),
        (lambda: LSTMCell(2, -1), "LSTMCell: hidden=-1"),
        (lambda: Recurrence(ONE), "Dense(2, 2) is no cell"),
        (lambda: MultiHeadAttention(5, 2), "features is a multiple of heads"),
        (lambda: FourierFeatures(2, 2, 0), "deviation=0; it is a positive number"),
        (lambda: Siren(2, 2, -1.0), "omega=-1.0"),
        (lambda: SkipConnection(3), "SkipConnection: 3 is no layer"),
        (lambda: Branch(), "Branch(): needs layers"),
        (lambda: Maxout(), "Maxout(): needs layers"),
        (lambda: Parallel(ONE, join="sum"), "there is no join='sum'. Known are add, concat, multiply"),
    ],
)
def test_wrong_descriptions_say_what_is_wrong(wrong, message):
    with pytest.raises(ArgumentError, match=re.escape(message)):
        wrong()


@pytest.mark.parametrize(
    ("layer", "x", "message"),
    [
        (Conv(2, 3, 3), normal(2, 6), "its input is a float64 array of shape (2, 6); it needs (B, n0, 2)"),
        (Conv(2, 3, (3, 3)), normal(2, 6, 6, 3), "it needs (B, n0, n1, 2)"),
        (Conv(2, 3, 3), normal(2, 2, 2), "no window fits in"),
        (MaxPool(2), normal(2, 6), "MaxPool(2): its input is a float64 array of shape (2, 6)"),
        (LayerNorm(3), normal(2, 4), "it needs (..., 3)"),
        (GroupNorm(4, 2), normal(4), "it needs (B, ..., 4)"),
        (InstanceNorm(4), normal(2, 4), "it needs axes of space"),
        (Embedding(3, 2), normal(2), "it needs an array of integers"),
        (Embedding(3, 2), np.array([0, 3]), "an index is 0 or 3; they are 0 to 2"),
        (Embedding(3, 2), np.array([-1, 1]), "an index is -1 or 1"),
        (Recurrence(LSTMCell(2, 3)), normal(2, 2), "it needs (B, time, features), time at least 1"),
        (Recurrence(LSTMCell(2, 3)), np.zeros((2, 0, 2)), "time at least 1"),
        (Recurrence(LSTMCell(2, 3)), normal(2, 4, 5), "it needs (..., 2)"),
        (MultiHeadAttention(4, 2), normal(2, 4), "it needs (B, time, 4)"),
        (MultiHeadAttention(4, 2), (normal(2, 3, 4), None, np.ones((3, 3))), "it needs booleans"),
        (Parallel(ONE, ONE), normal(2, 2), "its input is ndarray; it needs a tuple of 2 inputs"),
        (Parallel(ONE, ONE), (normal(2, 2),), "its input is 1 entries"),
        (FourierFeatures(2, 3), normal(2, 3), "it needs (..., 2)"),
        (Dense(2, 3), normal(2, 3), "Dense(2, 3): its input is a float64 array of shape (2, 3); it needs (..., 2)"),
    ],
)  # fmt: skip
def test_wrong_inputs_are_named_with_the_layer(layer, x, message):
    params, state = setup(0, layer, backend="numpy", dtype="float64")
    with pytest.raises(ArgumentError, match=re.escape(message)):
        layer(x, params, state)


@pytest.mark.parametrize("layer", [Conv(2, 2, 1), FourierFeatures(2, 2), Recurrence(GRUCell(2, 3)), ONE])
def test_two_precisions_are_refused_by_name(layer):
    params, state = setup(0, layer, backend="numpy", dtype="float32")
    with pytest.raises(DTypeError, match="is float32, its input x is float64"):
        layer(normal(2, 3, 2), params, state)


def test_parameters_of_another_model_are_refused_by_name():
    params, state = setup(0, Recurrence(LSTMCell(2, 3)), backend="numpy")
    with pytest.raises(ParameterError, match=r"params\['input'\] is a float\d\d array of shape \(2, 12\)"):
        StatefulLayer(Recurrence(LSTMCell(3, 3)), params, state)
    with pytest.raises(ParameterError, match="needs params\\['hidden_bias'\\]"):
        GRUCell(2, 3)(normal(2, 2), {"input": normal(2, 9), "hidden": normal(3, 9), "bias": normal(9)}, {})


@pytest.mark.parametrize("name", sorted(CASES))
def test_parameters_have_the_shapes_that_a_layer_states(name):
    layer, _ = CASES[name]
    params, _ = setup(0, layer, backend="numpy")
    layer.check_parameters(params)
    with pytest.raises(ParameterError):
        layer.check_parameters({**params, "more": np.ones(1)})


@pytest.mark.parametrize(
    "layer",
    [
        Conv(2, 4, (3, 2), "tanh", stride=(2, 1), padding=((1, 0), (0, 0)), dilation=(1, 2), groups=2, bias=False),
        Conv(2, 4, 3, stride=2, padding="same"),
        MaxPool((2, 3), stride=(1, 2), padding=((1, 0), (2, 1))),
        GroupNorm(4, 2, eps=1e-3, affine=False),
        RMSNorm(4),
        Scale(3, bias=False),
        Embedding(3, 2),
        Recurrence(LSTMCell(2, 3), last=True, reverse=True),
        MultiHeadAttention(4, 2, causal=True, bias=False),
        FourierFeatures(2, 3, 5.0),
        Siren(2, 3, 10.0, first=True),
        Branch(Dense(2, 2, "relu"), Dropout(0.25), join="concat"),
        SkipConnection(Dense(2, 2), join="multiply"),
    ],
)
def test_what_a_layer_prints_makes_it_again(layer):
    again = eval(repr(layer), vars(polyad))
    assert repr(again) == repr(layer)
    assert again.parameter_shapes() == layer.parameter_shapes()
    plain = (int, float, str)
    assert [v for v in vars(again).values() if type(v) in plain] == [
        v for v in vars(layer).values() if type(v) in plain
    ]


def spread(values, bound):
    """Uniform within a bound: the largest entry, and the deviation."""
    assert np.abs(values).max() <= bound
    assert abs(values.std() - bound / np.sqrt(3)) < 0.03 * bound


def test_first_parameters_are_distributed_as_the_page_says():
    conv = setup(0, Conv(16, 32, (3, 3), groups=2), backend="numpy")[0]
    spread(conv["weight"], np.sqrt(6 / (9 * (16 + 32) / 2)))
    lstm = setup(0, LSTMCell(50, 64), backend="numpy")[0]
    spread(lstm["input"], 1 / 8)
    spread(lstm["hidden"], 1 / 8)
    spread(setup(0, Siren(100, 200), backend="numpy")[0]["weight"], np.sqrt(6 / 100) / 30)
    spread(setup(0, Siren(2, 5000, first=True), backend="numpy")[0]["weight"], 1 / 2)
    embedding = setup(0, Embedding(500, 64), backend="numpy")[0]["weight"]
    assert abs(embedding.std() - 1 / 8) < 0.002
    frequencies = setup(0, FourierFeatures(2, 5000, 10.0), backend="numpy")[1]["frequencies"]
    assert abs(frequencies.std() - 10) < 0.3
    assert abs(frequencies.mean()) < 0.4


def test_the_sines_of_a_siren_are_distributed_alike_in_every_layer():
    net = Chain(Siren(2, 256, first=True), *[Siren(256, 256) for _ in range(4)])
    params, state = setup(0, net, backend="numpy")
    x = np.random.Generator(np.random.Philox(1)).uniform(-1, 1, (256, 2))
    for layer, key in zip(net.layers, net.keys, strict=True):
        x, _ = layer(x, params[key], state[key])
        assert abs(x.std() - np.sqrt(0.5)) < 0.05  # that of the sine of a wide argument


def test_an_index_that_is_not_there_gives_nan_under_jit_and_never_another_vector():
    jax = pytest.importorskip("jax")
    layer = Embedding(3, 2)
    params, _ = setup(0, layer, backend="jax", dtype="float64")
    y = np.asarray(jax.jit(lambda x: layer(x, params, {})[0])(np.array([0, 3, -1])))
    assert np.isnan(y[1:]).all()
    assert np.array_equal(y[0], np.asarray(params["weight"])[0])


def test_a_query_that_may_attend_to_nothing_gets_zeros_and_finite_derivatives(backend):
    layer = MultiHeadAttention(4, 2)
    params, _ = setup(0, layer, backend=backend, dtype="float64")
    x, mask = arrays(backend, normal(1, 3, 4)), np.ones((3, 3), bool)
    mask[1] = False

    def f(x):
        return layer((x, None, polyad.convert(mask, backend)), params, {})[0]

    assert difference(on(backend, f, x)[0, 1], params["out"]["bias"]) < 1e-15
    jac = host(on(backend, lambda x: polyad.jacobian(f, x, backend=backend), x))[0]
    assert np.isfinite(jac).all()
    assert np.all(jac[0, 1] == 0)


def test_a_causal_attention_sees_nothing_later():
    layer = MultiHeadAttention(4, 2, causal=True)
    params, _ = setup(0, layer, backend="numpy", dtype="float64")
    x = normal(1, 5, 4)
    jac = polyad.jacobian(lambda x: layer(x, params, {})[0], x, backend="autograd")[0, :, :, 0]
    assert all(np.all(jac[i, :, j] == 0) == (j > i) for i in range(5) for j in range(5))


def test_a_cell_of_one_s_own_runs_over_time(backend):
    class Decay(Cell):
        """h' = (h + x @ input + bias) / 2."""

        def step(self, carry, projected, params):
            carry = (carry + projected) / 2
            return carry, carry

    layer = Recurrence(Decay(2, 3))
    params, state = setup(0, layer, backend=backend, dtype="float64")
    x = normal(2, 4, 2)
    (y, carry), _ = layer((arrays(backend, x), arrays(backend, np.ones((2, 3)))), params, state)
    h, p = np.ones((2, 3)), {key: host(value)[0] for key, value in params.items()}
    for t in range(4):
        h = (h + x[:, t] @ p["input"] + p["bias"]) / 2
        assert difference(y[:, t], h) < 1e-14
    assert difference(carry, h) < 1e-14


def test_containers_thread_the_states_of_what_is_in_them(backend):
    layer = Chain(
        SkipConnection(Branch(Dropout(0.5), Chain(polyad.BatchNorm(3), Dropout(0.5)), join="add")),
        Maxout(Dropout(0.5), "tanh"),
    )
    params, state = setup(0, layer, backend=backend, dtype="float64")
    _, after = layer(arrays(backend, normal(4, 3)), params, state)
    _, after = layer(arrays(backend, normal(4, 3)), params, after)
    branch = after["layer_0"]["layer_0"]
    counts = [branch["layer_0"]["count"], branch["layer_1"]["layer_1"]["count"], after["layer_1"]["layer_0"]["count"]]
    assert [int(host(c)[0]) for c in counts] == [2, 2, 2]
    assert difference(branch["layer_1"]["layer_0"]["var"], np.ones(3)) > 0.01
    tested = polyad.test_mode(after)
    x = arrays(backend, normal(4, 3))
    y, same = layer(x, params, tested)
    assert same is tested
    standard = (x - branch["layer_1"]["layer_0"]["mean"]) / xp.sqrt(branch["layer_1"]["layer_0"]["var"] + 1e-5)
    inner = 2 * x + standard
    assert difference(y, xp.maximum(inner, xp.tanh(inner))) < 1e-13
