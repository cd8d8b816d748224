"""Time of a Laplacian in the loss, and of Taylor series by their order.

    OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/laplacian.py    # prints Markdown tables

The loss is mean((lap u)^2) of a tanh MLP u with 4 hidden layers, in float32; its
gradient in all parameters is timed, as CPU time. The unit is one forward pass of
the same model in the same run. Competitors are timed in random order. folx is used if
installed. "jets" is the pass alone, polyad.laplacian the operator with its checks.
"""

import argparse
import importlib.util
import itertools
import os

from polyad_benchmarks.measure import medians
from polyad_benchmarks.surroundings import ENVIRONMENT

os.environ.update(ENVIRONMENT)

import jax
import jax.numpy as jnp
import numpy as np
import torch

from polyad import laplacian, xp
from polyad.jets import laplacians, series


def parameters(inputs: int, width: int, depth: int) -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.Generator(np.random.Philox(0))
    sizes = [inputs, *[width] * depth, 1]
    return [
        (random.normal(0, n**-0.5, (n, m)).astype(np.float32), np.zeros(m, np.float32))
        for n, m in itertools.pairwise(sizes)
    ]


def model(params, x):
    *hidden, (w, b) = params
    for weight, bias in hidden:
        x = xp.tanh(x @ weight + bias)
    return x @ w + b


def jets_loss(params, x, unit):
    return xp.mean(laplacians(lambda z: (model(params, z),), [x], [unit])[2][0] ** 2)


def operator_loss(params, x):
    return xp.mean(laplacian(lambda z: model(params, z), x) ** 2)


def torch_runs(inputs: int, batch: int, width: int, depth: int):
    torch.set_num_threads(1)
    params = [tuple(map(torch.from_numpy, pair)) for pair in parameters(inputs, width, depth)]
    leaves = [leaf.requires_grad_() for pair in params for leaf in pair]
    x = torch.from_numpy(points(batch, inputs))
    unit = torch.eye(inputs)[:, None, :]

    def twice(params, x):
        x = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(model(params, x).sum(), x, create_graph=True)
        lap = 0.0
        for i in range(inputs):
            lap = lap + torch.autograd.grad(first[:, i].sum(), x, create_graph=True)[0][:, i]
        return (lap**2).mean()

    return {
        "forward": lambda: model(params, x),
        "polyad.laplacian": lambda: torch.autograd.grad(operator_loss(params, x), leaves, allow_unused=True),
        "jets": lambda: torch.autograd.grad(jets_loss(params, x, unit), leaves, allow_unused=True),
        "reverse over reverse": lambda: torch.autograd.grad(twice(params, x), leaves, allow_unused=True),
    }


def jax_runs(inputs: int, batch: int, width: int, depth: int):
    params = jax.tree.map(jnp.asarray, parameters(inputs, width, depth))
    x, unit = jnp.asarray(points(batch, inputs)), jnp.eye(inputs)[:, None, :]

    def compiled(f, *args):
        g = jax.jit(f).lower(*args).compile()
        return lambda: jax.block_until_ready(g(*args))

    def trace_loss(params, x):
        hessian = jax.vmap(jax.hessian(lambda z: model(params, z)[0]))(x)
        return jnp.mean(jnp.trace(hessian, axis1=1, axis2=2) ** 2)

    runs = {
        "forward": compiled(model, params, x),
        "polyad.laplacian": compiled(jax.grad(operator_loss), params, x),
        "jets": compiled(jax.grad(lambda params, x: jets_loss(params, x, unit)), params, x),
        "trace of the Hessian": compiled(jax.grad(trace_loss), params, x),
    }
    if importlib.util.find_spec("folx"):
        import folx

        def folx_loss(params, x):
            one = folx.forward_laplacian(lambda z: model(params, z)[0])
            return jnp.mean(jax.vmap(lambda z: one(z).laplacian)(x) ** 2)

        def folx_batched_loss(params, x):
            one = folx.forward_laplacian(lambda z: model(params, z)[0], sparsity_threshold=6)
            return jnp.mean(folx.batched_vmap(lambda z: one(z).laplacian, max_batch_size=batch)(x) ** 2)

        runs["folx"] = compiled(jax.grad(folx_loss), params, x)
        runs["folx, sparse"] = compiled(jax.grad(folx_batched_loss), params, x)
    return runs


def points(batch: int, inputs: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(1)).normal(size=(batch, inputs)).astype(np.float32)


def in_turn(runs, rounds: int) -> dict[str, float]:
    """Median seconds of CPU time of each."""
    return medians(runs, rounds, warm=2, repeats={"forward": 5})


def laplacian_table(rounds: int, batch: int, width: int, depth: int, columns: list[int]) -> None:
    print("| backend | inputs | Laplacian | ms | forward passes |\n| --- | --- | --- | --- | --- |")
    for backend, built in (("torch", torch_runs), ("jax, jit", jax_runs)):
        for inputs in columns:
            medians = in_turn(built(inputs, batch, width, depth), rounds)
            for name, seconds in medians.items():
                ratio = seconds / medians["forward"]
                print(f"| {backend} | {inputs} | {name} | {1e3 * seconds:.2f} | {ratio:.1f} |", flush=True)


def series_table(rounds: int, batch: int, width: int, depth: int, orders: int) -> None:
    """Series of u(x + v t) and its gradient in the parameters.

    Memory is what torch's tape keeps, and what XLA allots besides the arguments.
    """
    print("\n| order | torch, forward passes | torch, MiB | jax, forward passes | jax, MiB |")
    print("| --- | --- | --- | --- | --- |")
    x = points(batch, 2)
    plain = parameters(2, width, depth)
    tensors = [tuple(torch.from_numpy(a).requires_grad_() for a in pair) for pair in plain]
    arrays = jax.tree.map(jnp.asarray, plain)

    def last(params, x, order):
        coefficients = series(lambda z: (model(params, z),), [x], [(xp.ones_like(x), *(None,) * (order - 1))])[1]
        return xp.mean(coefficients[0][-1] ** 2)

    z, leaves = torch.from_numpy(x), [leaf for pair in tensors for leaf in pair]
    runs = {"forward": lambda: model(tensors, z)}
    for order in range(1, orders + 1):
        runs[f"torch {order}"] = lambda order=order: torch.autograd.grad(
            last(tensors, z, order), leaves, allow_unused=True
        )
    by_torch = in_turn(runs, rounds)
    compiled = {"forward": jax.jit(model).lower(arrays, x).compile()}
    for order in range(1, orders + 1):
        gradient = jax.grad(lambda params, x, order=order: last(params, x, order))
        compiled[f"jax {order}"] = jax.jit(gradient).lower(arrays, x).compile()
    by_jax = in_turn({name: lambda f=f: jax.block_until_ready(f(arrays, x)) for name, f in compiled.items()}, rounds)
    for order in range(1, orders + 1):
        memory = compiled[f"jax {order}"].memory_analysis().temp_size_in_bytes / 2**20
        ratios = by_torch[f"torch {order}"] / by_torch["forward"], by_jax[f"jax {order}"] / by_jax["forward"]
        kept = kept_by_the_tape(lambda order=order: last(tensors, z, order)) / 2**20
        print(f"| {order} | {ratios[0]:.1f} | {kept:.1f} | {ratios[1]:.1f} | {memory:.1f} |", flush=True)


def kept_by_the_tape(f) -> int:
    """Bytes of the arrays that torch keeps for the pass back, each once."""
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = f()
    assert y.requires_grad
    return sum(kept.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--inputs", type=int, nargs="+", default=[2, 10])
    parser.add_argument("--orders", type=int, default=8, help="of the series; 0 leaves them out")
    given = parser.parse_args()
    laplacian_table(given.rounds, given.batch, given.width, given.depth, given.inputs)
    if given.orders:
        series_table(max(5, given.rounds // 3), given.batch, given.width, given.depth, given.orders)


if __name__ == "__main__":
    main()
