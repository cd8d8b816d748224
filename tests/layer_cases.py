"""A layer of each kind with an input, and one number with all its derivatives made of it."""

import functools

import numpy as np

import polyad
from polyad import (
    BatchNorm,
    Branch,
    Chain,
    Conv,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    FourierFeatures,
    GroupNorm,
    GRUCell,
    InstanceNorm,
    Lambda,
    LayerNorm,
    LSTMCell,
    Maxout,
    MaxPool,
    MeanPool,
    MultiHeadAttention,
    Parallel,
    Recurrence,
    RMSNorm,
    RNNCell,
    Scale,
    Siren,
    SkipConnection,
    setup,
    xp,
)
from polyad.jets import series

GENERATOR = np.random.Generator(np.random.Philox(11))


def normal(*shape):
    return GENERATOR.normal(size=shape)


MASK = np.array([[True, True, False, True], [True, False, False, True], [False, True, True, True]])

CASES = {
    "attention": (MultiHeadAttention(4, 2), normal(2, 3, 4)),
    "attention, causal": (MultiHeadAttention(4, 1, causal=True, bias=False), normal(2, 3, 4)),
    "attention, memory": (
        Chain(lambda x: (x[:, :3], x, MASK), MultiHeadAttention(4, 2)),
        normal(2, 4, 4),
    ),
    "batch norm": (BatchNorm(3), normal(5, 3)),
    "branch": (Branch(Dense(3, 2, "tanh"), Dense(3, 2), join="multiply"), normal(3, 3)),
    "conv 1": (Conv(3, 4, 3, "tanh", stride=2, padding="same"), normal(2, 6, 3)),
    "conv 2": (Conv(2, 4, (3, 2), padding=((1, 2), 0), dilation=(2, 1), groups=2), normal(2, 6, 3, 2)),
    "conv 3": (Conv(1, 2, (2, 2, 2), padding=(0, 1, 0), stride=(1, 2, 1), bias=False), normal(1, 3, 3, 2, 1)),
    "dense": (Dense(3, 2, "tanh"), normal(3, 3)),
    "dropout": (Dropout(0.4), normal(4, 5)),
    "embedding": (
        Chain(Branch(lambda x: x, Chain(lambda x: np.array([[0, 2], [1, 2]]), Embedding(3, 2)), join="multiply")),
        normal(2, 2, 2),
    ),
    "flatten": (Flatten(), normal(2, 3, 2)),
    "fourier features": (FourierFeatures(2, 3, 0.5), normal(3, 2)),
    "group norm": (GroupNorm(4, 2), normal(2, 3, 4)),
    "gru": (Recurrence(GRUCell(3, 4), last=True, reverse=True), normal(2, 3, 3)),
    "gru, one step": (Chain(lambda x: (x[:, :3], x[:, 3:]), GRUCell(3, 2), lambda y: y[0]), normal(2, 5)),
    "instance norm": (InstanceNorm(3), normal(2, 4, 3)),
    "lambda": (Lambda("gelu"), normal(3, 2)),
    "layer norm": (LayerNorm(4), normal(3, 4)),
    "lstm": (Recurrence(LSTMCell(3, 2)), normal(2, 3, 3)),
    "max pool 1": (MaxPool(2), normal(2, 6, 3)),
    "max pool 2": (MaxPool((3, 2), stride=2, padding="same"), normal(2, 4, 5, 2)),
    "maxout": (Maxout(Dense(3, 2), Dense(3, 2), Dense(3, 2)), normal(4, 3)),
    "mean pool": (MeanPool((3, 2), stride=(2, 1), padding=1), normal(2, 4, 4, 2)),
    "parallel": (Chain(lambda x: (x, x[:, :1]), Parallel(Dense(3, 2, "tanh"), Scale(1), join="concat")), normal(3, 3)),
    "rms norm": (RMSNorm(4), normal(3, 4)),
    "rnn": (Recurrence(RNNCell(3, 4), reverse=True), normal(2, 3, 3)),
    "scale": (Scale(3), normal(2, 3)),
    "siren": (Chain(Siren(2, 3, 5.0, first=True), Siren(3, 1, 5.0)), normal(4, 2)),
    "skip": (SkipConnection(Conv(2, 2, 3, padding="same")), normal(2, 4, 2)),
}


def parts(name, backend, dtype="float64"):
    """(layer, params, state, x, direction) of a case; no parameter is left at 0 or 1."""
    layer, x = CASES[name]
    params, state = setup(0, layer, backend="numpy", dtype="float64")
    random = np.random.Generator(np.random.Philox(3))
    params = polyad.trees.map(lambda p: p + 0.1 * random.normal(size=p.shape), params)
    given = polyad.convert((params, state, x, np.cos(np.arange(x.size)).reshape(x.shape)), backend, dtype=dtype)
    return layer, *given


def number(layer, state, params, x):
    """A curved function of the output, in which each entry has a weight of its own."""
    y, _ = layer(x, params, state)
    weights = np.cos(1.0 + np.arange(int(np.prod(y.shape)))).reshape(tuple(y.shape))
    return xp.sum(xp.multiply(xp.sin(2 * y), weights) + y * y)


def derivatives(backend, layer, params, state, x, direction):
    """Value, gradient, the gradient of an inner gradient, and the third derivative along a line, by jets."""
    f = functools.partial(number, layer, state)

    def nested(params, x):
        slope = polyad.gradient(lambda x: f(params, x), x, backend=backend)
        return xp.sum(slope**2 * direction)

    first = polyad.gradient(f, params, x, argnums=(0, 1), backend=backend)
    second = polyad.gradient(nested, params, x, argnums=(0, 1), backend=backend)
    _, (line,) = series(lambda x: (f(params, x),), (x,), ((direction, None, None),))
    return f(params, x), first, second, [6 * line[2]]


def on(backend, f, *args):
    """f(*args); on JAX compiled as a whole, and quickly."""
    if backend != "jax":
        return f(*args)
    import jax

    quickly = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(f).lower(*args).compile(quickly)(*args)
