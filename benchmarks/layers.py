"""Time of each layer against the framework's own layer with the same parameters.

    OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/layers.py    # prints a Markdown table

CPU time in float32 of one forward pass, and of the gradient of the sum of squares of
the output in the parameters and in x; the median over rounds in which all are run in
random order. A ratio above 1 is polyad's loss. JAX is compiled; the layers of Flax.
"""

import argparse
import os

from polyad_benchmarks.measure import medians
from polyad_benchmarks.surroundings import ENVIRONMENT

os.environ.update(ENVIRONMENT)

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import torch

import polyad
from polyad import (
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Embedding,
    GroupNorm,
    GRUCell,
    InstanceNorm,
    LayerNorm,
    LSTMCell,
    MaxPool,
    MeanPool,
    MultiHeadAttention,
    Recurrence,
    RMSNorm,
    RNNCell,
    setup,
)

RANDOM = np.random.Generator(np.random.Philox(0))


def normal(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


def channels_first(module):
    return lambda x: module(x.movedim(-1, 1)).movedim(1, -1)


def first(module):
    return lambda x: module(x)[0]


def attend(module):
    return lambda x: module(x, x, x, need_weights=False)[0]


rows, image, sequence = normal(1024, 64), normal(16, 28, 28, 16), normal(32, 50, 32)
tnn = torch.nn
CASES = {
    "Dense, 1024 x 64": (
        Dense(64, 64, "tanh"),
        rows,
        tnn.Sequential(tnn.Linear(64, 64), tnn.Tanh()),
        None,
        nn.Sequential([nn.Dense(64), nn.tanh]),
    ),
    "Conv 1-d, 32 x 50 x 32": (
        Conv(32, 32, 5, padding="same"),
        sequence,
        tnn.Conv1d(32, 32, 5, padding="same"),
        channels_first,
        nn.Conv(32, (5,)),
    ),
    "Conv 2-d, 16 x 28 x 28 x 16": (
        Conv(16, 32, (3, 3), padding="same"),
        image,
        tnn.Conv2d(16, 32, 3, padding="same"),
        channels_first,
        nn.Conv(32, (3, 3)),
    ),
    "Conv 2-d, a filter a channel": (
        Conv(16, 16, (3, 3), padding="same", groups=16),
        image,
        tnn.Conv2d(16, 16, 3, padding="same", groups=16),
        channels_first,
        nn.Conv(16, (3, 3), feature_group_count=16),
    ),
    "MaxPool 2 x 2": (
        MaxPool((2, 2)),
        image,
        tnn.MaxPool2d(2),
        channels_first,
        lambda x: nn.max_pool(x, (2, 2), (2, 2)),
    ),
    "MaxPool 3 x 3, stride 2": (
        MaxPool((3, 3), stride=2),
        image,
        tnn.MaxPool2d(3, 2),
        channels_first,
        lambda x: nn.max_pool(x, (3, 3), (2, 2)),
    ),
    "MeanPool 2 x 2": (
        MeanPool((2, 2)),
        image,
        tnn.AvgPool2d(2),
        channels_first,
        lambda x: nn.avg_pool(x, (2, 2), (2, 2)),
    ),
    "BatchNorm": (BatchNorm(16), image, tnn.BatchNorm2d(16), channels_first, nn.BatchNorm(use_running_average=False)),
    "LayerNorm": (LayerNorm(64), rows, tnn.LayerNorm(64), None, nn.LayerNorm()),
    "GroupNorm": (GroupNorm(16, 4), image, tnn.GroupNorm(4, 16), channels_first, nn.GroupNorm(4)),
    "InstanceNorm": (InstanceNorm(16), image, tnn.InstanceNorm2d(16, affine=True), channels_first, nn.InstanceNorm()),
    "RMSNorm": (RMSNorm(64), rows, tnn.RMSNorm(64), None, nn.RMSNorm()),
    "Dropout, 1024 x 64": (Dropout(0.5), rows, tnn.Dropout(0.5), None, nn.Dropout(0.5, deterministic=False)),
    "Embedding, 1000 x 64": (
        Embedding(1000, 64),
        RANDOM.integers(0, 1000, (32, 50)),
        tnn.Embedding(1000, 64),
        None,
        nn.Embed(1000, 64),
    ),
    "RNN, 50 steps of 32 x 32": (
        Recurrence(RNNCell(32, 32)),
        sequence,
        tnn.RNN(32, 32, batch_first=True),
        first,
        nn.RNN(nn.SimpleCell(32)),
    ),
    "LSTM": (
        Recurrence(LSTMCell(32, 32)),
        sequence,
        tnn.LSTM(32, 32, batch_first=True),
        first,
        nn.RNN(nn.OptimizedLSTMCell(32)),
    ),
    "GRU": (Recurrence(GRUCell(32, 32)), sequence, tnn.GRU(32, 32, batch_first=True), first, nn.RNN(nn.GRUCell(32))),
    "MultiHeadAttention, 4 heads": (
        MultiHeadAttention(32, 4),
        sequence,
        tnn.MultiheadAttention(32, 4, batch_first=True),
        attend,
        nn.MultiHeadDotProductAttention(4),
    ),
}


def torch_runs(layer, x, module, around):
    params, state = setup(0, layer, backend="torch", dtype="float32")
    leaves = [leaf.requires_grad_() for leaf in polyad.trees.leaves(params)]
    x = torch.from_numpy(x)
    own, theirs = list(leaves), list(module.parameters())
    if x.is_floating_point():
        x.requires_grad_()
        own, theirs = [x, *own], [x, *theirs]
    call = around(module) if around else module

    def forward(f):
        def run():
            with torch.no_grad():
                f()

        return run

    def gradient(f, leaves):
        return lambda: torch.autograd.grad((f() ** 2).sum(), leaves)

    def ours():
        return layer(x, params, state)[0]

    def framework():
        return call(x)

    return {
        ("forward", "polyad"): forward(ours),
        ("forward", "own"): forward(framework),
        ("gradient", "polyad"): gradient(ours, own),
        ("gradient", "own"): gradient(framework, theirs),
    }


def jax_runs(layer, x, module):
    params, state = setup(0, layer, backend="jax", dtype="float32")
    x, key = jnp.asarray(x), jax.random.key(0)
    rest = {}
    if isinstance(module, nn.Module):
        variables = dict(module.init({"params": key, "dropout": key}, x))
        theirs, rest = variables.pop("params", {}), variables
    else:
        theirs = {}

    def ours(params, x, state):
        return layer(x, params, state)[0]

    def framework(params, x, key):
        if not isinstance(module, nn.Module):
            return module(x)
        y = module.apply({"params": params, **rest}, x, rngs={"dropout": key}, mutable=list(rest) or False)
        return y[0] if rest else y

    def compiled(f, *args):
        g = jax.jit(f).lower(*args).compile()
        return lambda: jax.block_until_ready(g(*args))

    places = (0, 1) if x.dtype == jnp.float32 else 0

    def gradient(f):
        return jax.grad(lambda *args: jnp.sum(f(*args) ** 2), argnums=places)

    return {
        ("forward", "polyad"): compiled(ours, params, x, state),
        ("forward", "own"): compiled(framework, theirs, x, key),
        ("gradient", "polyad"): compiled(gradient(ours), params, x, state),
        ("gradient", "own"): compiled(gradient(framework), theirs, x, key),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| layer | torch ms | ratio | its gradient ms | ratio | jax ms | ratio | its gradient ms | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, (layer, x, module, around, flax) in CASES.items():
        if given.only not in name:
            continue
        cells = []
        for runs in (torch_runs(layer, x, module, around), jax_runs(layer, x, flax)):
            found = medians(runs, given.rounds, warm=2, repeats=dict.fromkeys(runs, 3))
            for what in ("forward", "gradient"):
                ours, own = found[what, "polyad"], found[what, "own"]
                cells += [f"{1e3 * ours:.2f}", f"{ours / own:.2f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
