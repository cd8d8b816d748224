"""What polyad.compile saves: gradients of losses with inner derivatives, in CPU time.

    taskset -c 0 python benchmarks/compile.py [--calls 100] [--json out.json]

Each workload is a tanh MLP with 4 hidden layers (3 for the smallest), float32, one
thread. Candidates run in random order within each round, and the median of the rounds
counts, with half of the distance between the quartiles. `own` is written by hand with the
framework alone; `own compiled` is make_fx and inductor on that, or jax.jit.
"""

import argparse
import json
import random
import statistics
import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import polyad
from polyad import Chain, Dense, StatefulLayer, batched_jacobian, gradient, laplacian, trees, value_and_gradient, xp

# The work: (name, batch, width, hidden layers, inputs).
SIZES = [("16 x 12 x 3", 16, 12, 2, 1), ("1024 x 64 x 4", 1024, 64, 4, 2)]


def slope_loss(net, x):
    """An input gradient in the loss."""
    slope = gradient(lambda x: xp.sum(net(x) ** 2), x)
    return xp.sum((slope - xp.cos(x)) ** 2)


def laplacian_loss(net, x):
    return xp.sum((laplacian(net, x) - xp.sin(x[:, :1])) ** 2)


def jacobian_loss(net, x):
    return xp.sum(batched_jacobian(net, x) ** 2) + xp.sum(net(x) ** 2)


LOSSES = {"input gradient": slope_loss, "Laplacian": laplacian_loss, "batched Jacobian": jacobian_loss}


# The same by hand.


def torch_net(params, x):
    *hidden, last = params.values()
    for layer in hidden:
        x = torch.tanh(torch.addmm(layer["bias"], x, layer["weight"]))
    return torch.addmm(last["bias"], x, last["weight"])


def own_torch(name):
    def slope(params, x):
        x = x.detach().requires_grad_()
        (s,) = torch.autograd.grad(torch.sum(torch_net(params, x) ** 2), x, create_graph=True)
        return torch.sum((s - torch.cos(x)) ** 2)

    def laplace(params, x):
        x = x.detach().requires_grad_()
        (s,) = torch.autograd.grad(torch.sum(torch_net(params, x)), x, create_graph=True)
        columns = [torch.autograd.grad(s[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(x.shape[1])]
        return torch.sum((sum(columns)[:, None] - torch.sin(x[:, :1])) ** 2)

    def jac(params, x):
        x = x.detach().requires_grad_()
        y = torch_net(params, x)
        rows = [torch.autograd.grad(y[:, i].sum(), x, create_graph=True)[0] for i in range(y.shape[1])]
        return torch.sum(torch.stack(rows, 1) ** 2) + torch.sum(y**2)

    loss = {"input gradient": slope, "Laplacian": laplace, "batched Jacobian": jac}[name]

    def ask(params, x):
        params = trees.map(lambda p: p.detach().requires_grad_(), params)
        value = loss(params, x)
        return value.detach(), torch.autograd.grad(value, trees.leaves(params), materialize_grads=True)

    return ask


def jax_net(params, x):
    *hidden, last = params.values()
    for layer in hidden:
        x = jnp.tanh(x @ layer["weight"] + layer["bias"])
    return x @ last["weight"] + last["bias"]


def own_jax(name):
    def slope(params, x):
        s = jax.grad(lambda x: jnp.sum(jax_net(params, x) ** 2))(x)
        return jnp.sum((s - jnp.cos(x)) ** 2)

    def laplace(params, x):
        one = lambda x: jax_net(params, x[None])[0, 0]  # noqa: E731
        bend = jax.vmap(lambda x: jnp.trace(jax.hessian(one)(x)))(x)
        return jnp.sum((bend[:, None] - jnp.sin(x[:, :1])) ** 2)

    def jac(params, x):
        rows = jax.vmap(jax.jacrev(lambda x: jax_net(params, x[None])[0]))(x)
        return jnp.sum(rows**2) + jnp.sum(jax_net(params, x) ** 2)

    return jax.value_and_grad({"input gradient": slope, "Laplacian": laplace, "batched Jacobian": jac}[name])


def lowered(ask, *args):
    """make_fx and inductor, by hand."""
    leaves, spec = trees.flatten(args)
    graph = make_fx(lambda *xs: trees.leaves(ask(*trees.unflatten(spec, xs))), tracing_mode="fake")(*leaves)
    with torch.no_grad():
        program = torch._inductor.compile(graph, leaves)

    def run(*args):
        with torch.no_grad():
            return program(*trees.leaves(args))

    return run


# The measurement.


@dataclass
class Row:
    workload: str
    size: str
    candidate: str
    microseconds: float
    spread: float
    first_call: float


def candidates(name, loss, params, state, model, x):
    def ask(params, x):
        return value_and_gradient(lambda params: loss(StatefulLayer(model, params, state), x), params)

    def on_jax(params, x):
        return value_and_gradient(lambda params: loss(StatefulLayer(model, params, jax_state), x), params)

    jax_params, jax_state, jax_x = polyad.convert((params, state, x), "jax")
    return {
        "torch own": (own_torch(name), (params, x)),
        "torch own compiled": (None, (params, x)),
        "torch polyad": (ask, (params, x)),
        "torch polyad.compile": (polyad.compile(ask), (params, x)),
        "jax own jit": (jax.jit(own_jax(name)), (jax_params, jax_x)),
        "jax polyad.compile": (polyad.compile(on_jax), (jax_params, jax_x)),
    }


def measured(name, loss, size, calls):
    text, batch, width, hidden, inputs = size
    model = Chain(Dense(inputs, width, "tanh"), *[Dense(width, width, "tanh")] * hidden, Dense(width, 1))
    params, state = polyad.setup(0, model, backend="torch", dtype="float32")
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(batch, inputs)).astype(np.float32))
    runs, first, times = {}, {}, {}
    for key, (run, args) in candidates(name, loss, params, state, model, x).items():
        start = time.perf_counter()
        run = lowered(own_torch(name), *args) if run is None else run
        jax.block_until_ready(run(*args))
        first[key] = time.perf_counter() - start
        runs[key], times[key] = (lambda run=run, args=args: jax.block_until_ready(run(*args))), []
    values = {key: float(np.asarray(trees.leaves(run())[0])) for key, run in runs.items()}
    assert np.ptp(list(values.values())) < 1e-3 * abs(values["torch own"]), values
    inner = 10 if batch < 100 else 1
    for _ in range(calls):
        for key in random.sample(list(runs), len(runs)):
            run = runs[key]
            start = time.process_time_ns()
            for _ in range(inner):
                run()
            times[key].append((time.process_time_ns() - start) / 1e3 / inner)
    for key, found in times.items():
        low, middle, high = statistics.quantiles(found, n=4)
        yield Row(name, text, key, middle, (high - low) / 2, first[key])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    polyad.set_backend("torch")
    rows = []
    for name, loss in LOSSES.items():
        for size in SIZES:
            found = list(measured(name, loss, size, options.calls))
            own = next(row.microseconds for row in found if row.candidate == "torch own")
            for row in found:
                print(
                    f"{row.workload:17} {row.size:14} {row.candidate:22} {row.microseconds:9.0f} us "
                    f"+- {row.spread:6.0f}  {row.microseconds / own:5.2f}  first call {row.first_call:5.1f} s",
                    flush=True,
                )
            rows += found
    if options.json:
        with open(options.json, "w") as file:
            json.dump([vars(row) for row in rows], file, indent=1)


if __name__ == "__main__":
    main()
