"""Each layer against the layer of torch and of Flax, with the same parameters: values, first and second derivatives."""

import functools

import numpy as np
import pytest

import polyad
from polyad import (
    BatchNorm,
    Branch,
    Conv,
    Dense,
    Embedding,
    GroupNorm,
    GRUCell,
    InstanceNorm,
    Lambda,
    LayerNorm,
    LSTMCell,
    MaxPool,
    MeanPool,
    MultiHeadAttention,
    Recurrence,
    RMSNorm,
    RNNCell,
    setup,
    xp,
)
from tests.examples import arrays, host
from tests.layer_cases import normal, on
from tests.test_layers_agree import close

# Mappings of parameters: polyad's tree to what the framework's layer is given. Both are linear, so that the
# derivatives in polyad's parameters go the same way.


def kernel(weight):
    """(*window, inputs, outputs) to torch's (outputs, inputs, *window)."""
    n = weight.ndim
    return weight.permute(n - 1, n - 2, *range(n - 2))


def space_behind(f):
    """A module of torch with channels in front, as a function with channels behind."""
    return lambda x: f(x.movedim(-1, 1)).movedim(1, -1)


def recurrent(params):
    """torch's two biases are one; of the GRU, the block of n has a second one."""
    import torch

    second = torch.zeros_like(params["bias"])
    if "hidden_bias" in params:
        second = torch.cat([second[: -len(params["hidden_bias"])], params["hidden_bias"]])
    return {
        "weight_ih_l0": params["input"].T,
        "weight_hh_l0": params["hidden"].T,
        "bias_ih_l0": params["bias"],
        "bias_hh_l0": second,
    }


def projections(params):
    import torch

    names = ("query", "key", "value")
    return {
        "in_proj_weight": torch.cat([params[name]["weight"].T for name in names]),
        "in_proj_bias": torch.cat([params[name]["bias"] for name in names]),
        "out_proj.weight": params["out"]["weight"].T,
        "out_proj.bias": params["out"]["bias"],
    }


def scale(params):
    return {{"scale": "weight"}.get(key, key): value for key, value in params.items()}


def filters(params):
    return {"weight": kernel(params["weight"]), "bias": params["bias"]}


def of_torch():
    """name -> (layer, x, module, the function of the module that has x as ours has, its parameters from ours)."""
    from torch import nn, ones

    triangle = ~ones(4, 4).tril().bool()
    return {
        "batch norm": (BatchNorm(3), normal(4, 5, 3), nn.BatchNorm1d(3), space_behind, scale),
        "conv 1": (
            Conv(4, 6, 3, padding="same", groups=2),
            normal(2, 7, 4),
            nn.Conv1d(4, 6, 3, padding="same", groups=2),
            space_behind,
            filters,
        ),
        "conv 2": (
            Conv(2, 3, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
            normal(2, 6, 5, 2),
            nn.Conv2d(2, 3, (3, 2), (2, 1), (1, 0), (1, 2)),
            space_behind,
            filters,
        ),
        "dense": (
            Dense(3, 2),
            normal(4, 3),
            nn.Linear(3, 2),
            None,
            lambda p: {"weight": p["weight"].T, "bias": p["bias"]},
        ),
        "gelu": (Lambda("gelu"), normal(4, 3), nn.GELU("tanh"), None, dict),
        "group norm": (GroupNorm(4, 2), normal(2, 5, 4), nn.GroupNorm(2, 4), space_behind, scale),
        "gru": (Recurrence(GRUCell(3, 4)), normal(2, 5, 3), nn.GRU(3, 4, batch_first=True), None, recurrent),
        "instance norm": (InstanceNorm(3), normal(2, 5, 3), nn.InstanceNorm1d(3, affine=True), space_behind, scale),
        "layer norm": (LayerNorm(4), normal(3, 5, 4), nn.LayerNorm(4), None, scale),
        "lstm": (Recurrence(LSTMCell(3, 4)), normal(2, 5, 3), nn.LSTM(3, 4, batch_first=True), None, recurrent),
        "max pool 1": (MaxPool(3, stride=2, padding=1), normal(2, 7, 3), nn.MaxPool1d(3, 2, 1), space_behind, dict),
        "max pool 2": (MaxPool((2, 3)), normal(2, 5, 6, 2), nn.MaxPool2d((2, 3)), space_behind, dict),
        "mean pool 1": (MeanPool(3, stride=2, padding=1), normal(2, 7, 3), nn.AvgPool1d(3, 2, 1), space_behind, dict),
        "mean pool 2": (MeanPool((2, 3), stride=1), normal(2, 4, 5, 2), nn.AvgPool2d((2, 3), 1), space_behind, dict),
        "attention": (
            MultiHeadAttention(6, 2),
            normal(2, 4, 6),
            nn.MultiheadAttention(6, 2, batch_first=True),
            lambda f: lambda x: f(x, x, x),
            projections,
        ),
        "causal attention": (
            MultiHeadAttention(6, 3, causal=True),
            normal(2, 4, 6),
            nn.MultiheadAttention(6, 3, batch_first=True),
            lambda f: lambda x: f(x, x, x, attn_mask=triangle),
            projections,
        ),
        "rms norm": (RMSNorm(4), normal(3, 5, 4), nn.RMSNorm(4, eps=1e-5), None, scale),
        "rnn": (Recurrence(RNNCell(3, 4)), normal(2, 5, 3), nn.RNN(3, 4, batch_first=True), None, recurrent),
    }


TORCH = sorted(
    [
        "attention",
        "batch norm",
        "causal attention",
        "conv 1",
        "conv 2",
        "dense",
        "gelu",
        "group norm",
        "gru",
        "instance norm",
        "layer norm",
        "lstm",
        "max pool 1",
        "max pool 2",
        "mean pool 1",
        "mean pool 2",
        "rms norm",
        "rnn",
    ]
)


def both_orders(backend, f, params, x):
    """(the sum of sines of f, its gradient, and the gradient of a number made of its gradient)."""

    def number(params, x):
        y = f(params, x)
        weights = np.cos(1.0 + np.arange(int(np.prod(y.shape)))).reshape(tuple(y.shape))
        return xp.sum(xp.multiply(xp.sin(2 * y), weights) + y * y)

    def nested(params, x):
        slopes = polyad.gradient(number, params, x, argnums=(0, 1), backend=backend)
        return sum(xp.sum(s**2) for s in polyad.trees.leaves(slopes))

    first = polyad.gradient(number, params, x, argnums=(0, 1), backend=backend)
    return f(params, x), first, polyad.gradient(nested, params, x, argnums=(0, 1), backend=backend)


def moved(layer, backend):
    """Parameters and state of a layer, none of them 0 or 1."""
    random = np.random.Generator(np.random.Philox(5))
    params, state = setup(0, layer, backend="numpy", dtype="float64")
    params = polyad.trees.map(lambda p: p + 0.1 * random.normal(size=p.shape), params)
    return polyad.convert((params, state), backend)


def test_every_layer_of_torch_is_compared():
    pytest.importorskip("torch")
    assert sorted(of_torch()) == TORCH


@pytest.mark.parametrize("name", TORCH)
def test_a_layer_is_the_one_of_torch_to_the_second_derivative(name):
    torch = pytest.importorskip("torch")
    layer, x, module, around, mapped = of_torch()[name]
    params, state = moved(layer, "torch")
    x = arrays("torch", x)
    module = module.to(torch.float64).train()

    def theirs(params, x):
        def call(*args, **kwargs):
            y = torch.func.functional_call(module, mapped(params), args, kwargs)
            return y[0] if isinstance(y, tuple) else y

        return (around(call) if around else call)(x)

    ours = both_orders("torch", lambda params, x: layer(x, params, state)[0], params, x)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = both_orders("torch", theirs, params, x)
    for a, e in zip(ours, expected, strict=True):
        close(a, e, 1e-10)


def test_running_statistics_are_those_of_torch():
    torch = pytest.importorskip("torch")
    layer, module = BatchNorm(3), torch.nn.BatchNorm1d(3).double()
    params, state = setup(0, layer, backend="torch", dtype="float64")
    for _ in range(3):
        x = arrays("torch", normal(4, 5, 3))
        _, state = layer(x, params, state)
        module(x.movedim(-1, 1))
    close([state["mean"], state["var"]], [module.running_mean, module.running_var], 1e-12)


def test_an_embedding_is_the_one_of_torch():
    torch = pytest.importorskip("torch")
    layer, x = Embedding(5, 3), torch.tensor([[0, 4, 4], [1, 0, 2]])
    params, _ = setup(0, layer, backend="torch", dtype="float64")

    def loss(f):
        return polyad.gradient(lambda p: xp.sum(f(p) ** 3), params, backend="torch")

    actual = loss(lambda p: layer(x, p, {})[0])
    close(actual, loss(lambda p: torch.nn.functional.embedding(x, p["weight"])), 1e-12)


def test_both_directions_are_torch_s_bidirectional_lstm():
    torch = pytest.importorskip("torch")
    layer = Branch(Recurrence(LSTMCell(3, 4)), Recurrence(LSTMCell(3, 4), reverse=True), join="concat")
    params, state = setup(0, layer, backend="torch", dtype="float64")
    module, x = torch.nn.LSTM(3, 4, batch_first=True, bidirectional=True).double(), arrays("torch", normal(2, 5, 3))
    given = {
        **recurrent(params["layer_0"]),
        **{f"{key}_reverse": value for key, value in recurrent(params["layer_1"]).items()},
    }
    close(layer(x, params, state)[0], torch.func.functional_call(module, given, x)[0], 1e-12)


# Flax.


def of_flax():
    """name -> (layer, x, module, its variables from our parameters)."""
    import flax.linen as nn
    import jax.numpy as jnp

    def convolution(params):
        return {"kernel": params["weight"], "bias": params["bias"]}

    def gated(params, n=2):
        """One Dense of Flax for each gate of an LSTM."""
        found = {}
        for i, gate in enumerate("ifgo"):
            columns = slice(i * n, (i + 1) * n)
            found[f"i{gate}"] = {"kernel": params["input"][:, columns]}
            found[f"h{gate}"] = {"kernel": params["hidden"][:, columns], "bias": params["bias"][columns]}
        return {"cell": found}

    def heads(params, n=2):
        found = {}
        for key, p in params.items():
            size = len(p["bias"])
            shape = (n, size // n, size) if key == "out" else (size, n, size // n)
            found[key] = {
                "kernel": p["weight"].reshape(shape),
                "bias": p["bias"] if key == "out" else p["bias"].reshape(n, -1),
            }
        return found

    return {
        "attention": (
            MultiHeadAttention(4, 2),
            normal(2, 3, 4),
            nn.MultiHeadDotProductAttention(2, param_dtype=jnp.float64),
            heads,
        ),
        "conv 2": (
            Conv(2, 4, (3, 2), stride=(1, 2), padding="same", groups=2),
            normal(2, 4, 5, 2),
            nn.Conv(4, (3, 2), (1, 2), "SAME", feature_group_count=2, param_dtype=jnp.float64),
            convolution,
        ),
        "group norm": (GroupNorm(4, 2), normal(2, 3, 4), nn.GroupNorm(2, epsilon=1e-5, use_fast_variance=False), dict),
        "lstm": (
            Recurrence(LSTMCell(3, 2)),
            normal(2, 3, 3),
            nn.RNN(nn.LSTMCell(2, param_dtype=jnp.float64)),
            gated,
        ),
        "max pool": (
            MaxPool((2, 3), stride=2, padding="same"),
            normal(2, 4, 5, 2),
            lambda x: nn.max_pool(x, (2, 3), (2, 2), "SAME"),
            None,
        ),
        "mean pool": (
            MeanPool(3, stride=2, padding="same"),
            normal(2, 6, 2),
            lambda x: nn.avg_pool(x, (3,), (2,), "SAME"),
            None,
        ),
        "rms norm": (RMSNorm(4), normal(2, 3, 4), nn.RMSNorm(epsilon=1e-5), dict),
    }


FLAX = ["attention", "conv 2", "group norm", "lstm", "max pool", "mean pool", "rms norm"]


@pytest.mark.parametrize("name", FLAX)
def test_a_layer_is_the_one_of_flax_to_the_second_derivative(name):
    pytest.importorskip("flax.linen")
    layer, x, module, mapped = of_flax()[name]
    params, state = moved(layer, "jax")
    x = arrays("jax", x)

    def ours(params, x):
        return layer(x, params, state)[0]

    def theirs(params, x):
        return module(x) if mapped is None else module.apply({"params": mapped(params)}, x)

    compute = functools.partial(both_orders, "jax")
    actual = on("jax", functools.partial(compute, ours), params, x)
    expected = on("jax", functools.partial(compute, theirs), params, x)
    for a, e in zip(actual, expected, strict=True):
        close(a, e, 1e-10)
    assert all(a.dtype == np.float64 for a in host(actual))
