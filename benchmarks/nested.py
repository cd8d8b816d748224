"""Time and memory of the strategies for nested derivatives, on every backend that is installed.

    python benchmarks/nested.py                      # one thread; prints the tables of docs/nested.md
    python benchmarks/nested.py --backend torch --workload loop
    python benchmarks/nested.py --device gpu         # on the first accelerator of torch and JAX; wall time

Three workloads on a tanh MLP u with 4 hidden layers; each is the gradient of a
loss in parameters and input:

gradient   loss = sum((du^2/dx - cos x)^2)
loop       x <- x - 0.01 du^2/dx, 20 times (a scan on JAX); loss = sum(x^2)
jacobian   J of u row by row (batched_jacobian); loss = sum(J^2)

`own` is the same written by hand with the framework alone. Times are medians of
CPU seconds in units of one forward pass of u in the same run; all candidates run
in turn, so that a slow moment of the machine meets all of them. Memory is XLA's account
of temporary arrays on JAX, elsewhere the growth of a process at its highest, on an
accelerator that of torch's own account. TF32 is off.
"""

import argparse
import functools
import os
import subprocess
import sys
import time

from polyad_benchmarks.measure import medians
from polyad_benchmarks.memory import resident
from polyad_benchmarks.surroundings import ENVIRONMENT

os.environ.update(ENVIRONMENT)

import numpy as np

import polyad
from polyad import Chain, Dense, StatefulLayer, batched_jacobian, gradient, nested_switching, xp

POLICIES = ("own", "off", "taped", "recompute", "forward_over_reverse", "auto")
STEPS = 20
#           name        batch width in out
WORKLOADS = (
    ("gradient", 1024, 64, 2, 1),
    ("gradient", 4096, 128, 2, 1),
    ("gradient", 16, 12, 2, 1),
    ("loop", 1024, 64, 2, 1),
    ("loop", 4096, 128, 2, 1),
    ("jacobian", 1024, 64, 3, 3),
    ("jacobian", 1024, 64, 2, 16),
    ("jacobian", 256, 64, 32, 4),
)


class Problem:
    """One workload on one backend: candidates by policy, all without arguments."""

    def __init__(self, backend: str, name: str, batch: int, width: int, inputs: int, outputs: int, device=None) -> None:
        self.backend, self.name, self.shape, self.device = backend, name, (batch, width, inputs, outputs), device
        self.model = Chain(
            Dense(inputs, width, "tanh"), *(Dense(width, width, "tanh") for _ in range(3)), Dense(width, outputs)
        )
        self.params, self.state = polyad.setup(0, self.model, backend=backend, dtype="float32", device=device)
        x = np.random.Generator(np.random.Philox(0)).normal(size=(batch, inputs))
        self.x = polyad.convert(x, backend, dtype="float32", device=device)

    def u(self, params, x):
        return self.model(x, params, self.state)[0]

    def loss(self, params, x):
        net = StatefulLayer(self.model, params, self.state)

        def slope(x):
            return gradient(lambda x: xp.sum(net(x) ** 2), x)

        if self.name == "gradient":
            return xp.sum((slope(x) - xp.cos(x)) ** 2)
        if self.name == "jacobian":
            return xp.sum(batched_jacobian(net, x) ** 2)
        return xp.sum(self.looped(slope, x) ** 2)

    def looped(self, slope, x):
        if self.backend == "jax":
            import jax

            return jax.lax.scan(lambda x, _: (x - 0.01 * slope(x), None), x, None, length=STEPS)[0]
        for _ in range(STEPS):
            x = x - 0.01 * slope(x)
        return x

    def candidate(self, policy):
        """A function without arguments that waits for its result."""
        if policy == "forward":
            return self.compiled(self.u)
        own = OWN.get(self.backend)
        if policy == "own":
            return own(self) if own else None
        return self.compiled(
            lambda params, x: gradient(self.loss, params, x, argnums=(0, 1), backend=self.backend), policy
        )

    def compiled(self, f, policy="auto"):
        if self.backend == "jax":
            import jax

            with nested_switching(policy):
                run = jax.jit(f).lower(self.params, self.x).compile()
            call = lambda: jax.block_until_ready(run(self.params, self.x))  # noqa: E731
            call.bytes = run.memory_analysis().temp_size_in_bytes
            return call

        def call():
            with nested_switching(policy):
                return self.waited(f(self.params, self.x))

        return call

    def waited(self, found):
        """The same, computed."""
        if self.device is not None:
            polyad.backends.get(self.backend).wait(polyad.trees.leaves(found))
        return found


def own_jax(problem):
    """jax.grad in jax.grad; jacrev or jacfwd under vmap, the better one by shape."""
    import jax
    import jax.numpy as jnp

    u = problem.u

    def slope(params, x):
        return jax.grad(lambda x: jnp.sum(u(params, x) ** 2))(x)

    def loss(params, x):
        if problem.name == "gradient":
            return jnp.sum((slope(params, x) - jnp.cos(x)) ** 2)
        if problem.name == "jacobian":
            wide = u(params, x).shape[1] > x.shape[1]
            one = (jax.jacfwd if wide else jax.jacrev)(lambda x: u(params, x[None])[0])
            return jnp.sum(jax.vmap(one)(x) ** 2)
        return jnp.sum(problem.looped(functools.partial(slope, params), x) ** 2)

    return problem.compiled(jax.grad(loss, argnums=(0, 1)))


def own_torch(problem):
    """torch.autograd.grad with create_graph; a Jacobian by a loop over rows, by vmap(jvp) where columns are fewer."""
    import torch

    leaves = polyad.trees.map(lambda p: p.clone().requires_grad_(), problem.params)
    x = problem.x.clone().requires_grad_()

    def slope(x):
        return torch.autograd.grad((problem.u(leaves, x) ** 2).sum(), x, create_graph=True)[0]

    def jacobian(x):
        y = problem.u(leaves, x)
        if y.shape[1] <= 2 * x.shape[1]:
            rows = [torch.autograd.grad(y[:, i].sum(), x, create_graph=True)[0] for i in range(y.shape[1])]
            return torch.stack(rows, dim=1)
        units = torch.eye(x.shape[1], device=x.device).reshape(-1, 1, x.shape[1]).expand(-1, *x.shape).contiguous()
        return torch.func.vmap(
            lambda v: torch.func.jvp(lambda x: problem.u(leaves, x), (x,), (v,))[1], randomness="same"
        )(units)

    def call():
        if problem.name == "gradient":
            loss = ((slope(x) - torch.cos(x)) ** 2).sum()
        elif problem.name == "jacobian":
            loss = (jacobian(x) ** 2).sum()
        else:
            loss = (problem.looped(slope, x) ** 2).sum()
        return problem.waited(torch.autograd.grad(loss, [*polyad.trees.leaves(leaves), x], allow_unused=True))

    return call


def own_autograd(problem):
    """autograd.grad in autograd.grad; a Jacobian by a loop over rows."""
    import autograd
    import autograd.numpy as anp

    u = problem.u

    def slope(params, x):
        return autograd.grad(lambda x: anp.sum(u(params, x) ** 2))(x)

    def loss(arguments):
        params, x = arguments
        if problem.name == "gradient":
            return anp.sum((slope(params, x) - anp.cos(x)) ** 2)
        if problem.name == "jacobian":
            n = problem.model.layers[-1].outputs
            rows = [autograd.grad(lambda x, i=i: anp.sum(u(params, x)[:, i]))(x) for i in range(n)]
            return anp.sum(anp.stack(rows) ** 2)
        return anp.sum(problem.looped(functools.partial(slope, params), x) ** 2)

    run = autograd.grad(loss)
    return lambda: run((problem.params, problem.x))


OWN = {"jax": own_jax, "torch": own_torch, "autograd": own_autograd}


def megabytes(problem, policy) -> float:
    """XLA's account; else how far a new process grows in one call above what it had before."""
    call = problem.candidate(policy)
    if hasattr(call, "bytes"):
        return call.bytes / 2**20
    if problem.device is not None:
        import torch

        call()
        torch.accelerator.reset_peak_memory_stats()
        before = torch.accelerator.memory_allocated()
        call()
        return (torch.accelerator.max_memory_allocated() - before) / 2**20
    command = [sys.executable, __file__, "--memory", problem.backend, policy, problem.name, *map(str, problem.shape)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def growth(backend, policy, name, *shape) -> float:
    """MiB that this process needs for the second call: the first one loads libraries, on a few rows."""
    batch, *rest = map(int, shape)
    Problem(backend, name, 8, *rest).candidate(policy)()
    call = Problem(backend, name, batch, *rest).candidate(policy)
    before = resident("VmRSS")
    call()
    return (resident("VmHWM") - before) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", action="append", choices=list(OWN))
    parser.add_argument("--workload", action="append", choices=sorted({name for name, *_ in WORKLOADS}))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--memory", nargs=7, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        print(growth(*options.memory))
        return
    installed = [info.name for info in polyad.backends() if info.installed and info.name in OWN]
    for backend in options.backend or installed:
        if backend == "torch":
            import torch

            torch.set_num_threads(1)  # and matrix products of float32 are not TF32 unless somebody says so
        if backend == "jax" and options.device == "gpu":
            import jax

            jax.config.update("jax_default_matmul_precision", "highest")
        adapter = polyad.backends.get(backend)
        devices = [None] if options.device == "cpu" else [name for name in adapter.devices() if name != "cpu"]
        if not devices:
            print(f"\n{backend} has no {options.device} here", file=sys.stderr)
            continue
        print(f"\n**{backend}{'' if devices[0] is None else f', {devices[0]}'}**\n")
        print("| workload | batch, width, in, out | " + " | ".join(POLICIES) + " | auto / best | auto / own |")
        print("| --- |" + " --- |" * (len(POLICIES) + 3))
        for name, *shape in WORKLOADS:
            if options.workload and name not in options.workload:
                continue
            problem = Problem(backend, name, *shape, devices[0])
            calls = {policy: problem.candidate(policy) for policy in (*POLICIES, "forward")}
            print(f"{backend} {name} {shape} ...", end="\r", file=sys.stderr, flush=True)
            clock = time.process_time if devices[0] is None else time.perf_counter
            times = medians(calls, options.rounds, clock=clock)
            memory = {policy: megabytes(problem, policy) for policy in POLICIES} if name == "loop" else {}
            cells = []
            for policy in POLICIES:
                ratio = f"{times[policy] / times['forward']:.1f}"
                cells.append(f"{ratio}, {memory[policy]:.0f} MiB" if memory else ratio)
            best = min(times[policy] for policy in POLICIES if policy not in ("auto", "own"))
            ratios = [f"{times['auto'] / best:.2f}", f"{times['auto'] / times['own']:.2f}"]
            print(f"| {' | '.join([name, ', '.join(map(str, shape)), *cells, *ratios])} |", flush=True)


if __name__ == "__main__":
    main()
