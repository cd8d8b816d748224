"""Time and memory of the strategies for nested derivatives, compiled by JAX.

    python benchmarks/nested.py            # one thread; prints the table of docs/nested.md

Two workloads on a tanh MLP u of 2 inputs: one gradient in the loss,
loss = sum((du^2/dx - cos x)^2), and a scan x <- x - 0.01 du^2/dx.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax
import numpy as np

import polyad
from polyad import Chain, Dense, StatefulLayer, gradient, nested_switching, xp

POLICIES = ("off", "taped", "recompute", "auto")
WORKLOADS = (
    ("gradient in the loss", 1024, 64, 0),
    ("gradient in the loss", 4096, 128, 0),
    ("scan", 1024, 64, 20),
    ("scan", 4096, 128, 20),
)


def network(width: int) -> Chain:
    """Four hidden layers."""
    return Chain(Dense(2, width, "tanh"), *(Dense(width, width, "tanh") for _ in range(3)), Dense(width, 1))


def workload(batch: int, width: int, steps: int, policy: str):
    """(compiled gradient of the loss, its arguments, the compiled forward pass)."""
    model = network(width)
    params, state = polyad.setup(0, model, backend="jax", dtype="float32")
    x = polyad.convert(np.random.Generator(np.random.Philox(0)).normal(size=(batch, 2)), "jax", dtype="float32")

    def loss(params, x):
        net = StatefulLayer(model, params, state)

        def slope(x):
            return gradient(lambda x: xp.sum(net(x) ** 2), x)

        if not steps:
            return xp.sum((slope(x) - xp.cos(x)) ** 2)
        x, _ = jax.lax.scan(lambda x, _: (x - 0.01 * slope(x), None), x, None, length=steps)
        return xp.sum(x**2)

    with nested_switching(policy):
        compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(params, x).compile()
    forward = jax.jit(lambda params, x: model(x, params, state)[0]).lower(params, x).compile()
    return compiled, (params, x), forward


def seconds(f, args, repeats: int) -> float:
    """One call."""
    start = time.perf_counter()
    for _ in range(repeats):
        jax.block_until_ready(f(*args))
    return (time.perf_counter() - start) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    print("| workload | batch x width | policy | time, forward passes | memory, MiB |")
    print("| --- | --- | --- | --- | --- |")
    for name, batch, width, steps in WORKLOADS:
        built = {policy: workload(batch, width, steps, policy) for policy in POLICIES}
        forward, args = built["off"][2], built["off"][1]
        times = {policy: [] for policy in (*POLICIES, "forward")}
        for _ in range(rounds + 1):  # in turn, so that a slow moment of the machine meets all of them
            for policy, (f, args, _) in built.items():
                times[policy].append(seconds(f, args, 1))
            seconds(forward, args, 1)  # the arrays of the last one have left the cache cold
            times["forward"].append(seconds(forward, args, 3))
        medians = {key: statistics.median(values[1:]) for key, values in times.items()}  # the first one warms up
        for policy, (f, _, _) in built.items():
            memory = f.memory_analysis().temp_size_in_bytes / 2**20
            steps_text = f"{name}, {steps} steps" if steps else name
            ratio = medians[policy] / medians["forward"]
            print(f"| {steps_text} | {batch} x {width} | {policy} | {ratio:.1f} | {memory:.1f} |", flush=True)


if __name__ == "__main__":
    main()
