"""Measure what Jacobians cost on a grid of problems, and fit the model of polyad/costs.py to that.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/costs.py measure torch    # 5 to 30 minutes
    python benchmarks/costs.py fit              # writes polyad/costs.json

A point of the grid is a tanh MLP (in, out, batch, width, depth), drawn at random with a
seed. Measured is batched_jacobian in every mode, its directions one by one and together:
alone, and inside of a loss = sum(J^2) whose gradient in parameters and input is taken;
and the latter by what the Jacobian keeps for the pass around it. CPU seconds, medians,
candidates in random order, in units of one forward pass of the same run. Measurements
are kept in benchmarks/measurements; each third point is held out of the fit. NumPy has
one pass, and nothing to choose.
"""

import argparse
import datetime
import importlib.metadata
import json
import math
import os
import random
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import numpy as np
from polyad_benchmarks.report import processor

import polyad
from polyad import Chain, Dense, StatefulLayer, batched_jacobian, gradient, nested_switching, xp
from polyad.backends.directions import at_once
from polyad.costs import SCHEMA, formula

HERE = Path(__file__).parent
KEPT = HERE / "measurements"
DATA = HERE.parent / "polyad" / "costs.json"

# Inputs, outputs, batch, width and depth of the points that are always there: those of the design's table.
FIXED = ((3, 3, 1024, 64, 4), (2, 16, 1024, 64, 4), (32, 4, 256, 64, 4))
STRATEGIES = ("recompute", "forward_over_reverse")
SECONDS = 0.6
"""Of CPU time that a candidate may take, after the first two rounds."""


def grid(points: int) -> list[tuple[int, ...]]:
    """Some of all combinations, none so large that it takes minutes."""
    draw = random.Random(0)
    found = list(FIXED)
    while len(found) < points:
        inputs, outputs = (draw.choice((1, 2, 3, 4, 6, 10, 16, 32)) for _ in range(2))
        batch, width = draw.choice((4, 16, 64, 256, 1024, 4096)), draw.choice((12, 32, 64, 128))
        shape = (inputs, outputs, batch, width, draw.choice((2, 4)))
        if batch * width * max(inputs, outputs) <= 2**21 and max(inputs, outputs) > 1 and shape not in found:
            found.append(shape)
    return found


class Problem:
    """A point of the grid on a backend."""

    def __init__(self, backend, shape):
        inputs, outputs, batch, width, depth = shape
        layers = [Dense(inputs, width, "tanh"), *(Dense(width, width, "tanh") for _ in range(depth - 1))]
        self.backend, self.model = backend, Chain(*layers, Dense(width, outputs))
        self.params, self.state = polyad.setup(0, self.model, backend=backend, dtype="float32")
        x = np.random.Generator(np.random.Philox(0)).normal(size=(batch, inputs))
        self.x = polyad.convert(x, backend, dtype="float32")

    def forward(self):
        return self.model(self.x, self.params, self.state)[0]

    def jacobian(self, params, x, mode, chunk):
        net = StatefulLayer(self.model, params, self.state)
        return batched_jacobian(net, x, mode=mode, chunk_size=chunk, backend=self.backend)

    def run(self, mode, chunk, nested, strategy="taped"):
        """A function without arguments that waits for its result."""

        def loss(params, x):
            return xp.sum(self.jacobian(params, x, mode, chunk) ** 2)

        def f(params, x):
            if not nested:
                return self.jacobian(params, x, mode, chunk)
            return gradient(loss, params, x, argnums=(0, 1), backend=self.backend)

        return self.waiting(f, strategy)

    def waiting(self, f, strategy="taped", compiled=False):
        def call():
            with nested_switching(strategy):
                return f(self.params, self.x)

        if self.backend != "jax":
            return call
        import jax

        if not compiled:
            return lambda: jax.block_until_ready(call())
        with nested_switching(strategy):
            run = jax.jit(f).lower(self.params, self.x).compile()
        return lambda: jax.block_until_ready(run(self.params, self.x))


def candidates(backend, inputs, outputs):
    """(mode, batching, chunk size) of each."""
    found = []
    adapter = polyad.backends.get(backend)
    for mode in adapter.modes:
        n = inputs if mode == "forward" else outputs
        found.append((mode, "loop", 1))
        if adapter.takes_together(mode) and n > 1:
            found.append((mode, "together", 64))
    return found


def measure_point(backend, shape, compiled):
    """{"forward": seconds, "alone": {candidate: passes}, "nested": {candidate: passes}} of a point."""
    problem = Problem(backend, shape)
    forward = lambda params, x: problem.model(x, params, problem.state)[0]  # noqa: E731
    calls = {("forward",): untaped(backend, problem.waiting(forward, compiled=compiled))}
    for mode, batching, chunk in candidates(backend, *shape[:2]):
        calls["alone", mode, batching, "taped"] = compiled_or_not(problem, compiled, mode, chunk, False, "taped")
        calls["nested", mode, batching, "taped"] = compiled_or_not(problem, compiled, mode, chunk, True, "taped")
        for strategy in strategies(backend, compiled, shape):
            calls["nested", mode, batching, strategy] = compiled_or_not(problem, compiled, mode, chunk, True, strategy)
    times = medians(calls)
    unit = times.pop(("forward",))
    return {"forward": unit, "passes": {"/".join(key): time / unit for key, time in times.items()}}


def strategies(backend, compiled, shape):
    """Those that are measured beside the tape: on a third of the points, and not where each call is a trace."""
    if backend == "jax" and not compiled:
        return ()
    return STRATEGIES if shape in (*FIXED, *grid(96)[len(FIXED) :: 3]) else ()


def measure_gradient(backend, shape, compiled):
    """The same for an inner gradient, which is one sweep: loss = sum((d sum(u^2) / dx)^2), by what it keeps."""
    problem = Problem(backend, shape)

    def loss(params, x):
        net = StatefulLayer(problem.model, params, problem.state)
        return xp.sum(gradient(lambda x: xp.sum(net(x) ** 2), x, backend=backend) ** 2)

    def f(params, x):
        return gradient(loss, params, x, argnums=(0, 1), backend=backend)

    kept = ("taped", *strategies(backend, compiled, shape))
    times = medians({("nested", "gradient", "one", name): problem.waiting(f, name, compiled) for name in kept})
    unit = times["nested", "gradient", "one", "taped"]
    return {"/".join(key): time / unit for key, time in times.items()}


def compiled_or_not(problem, compiled, mode, chunk, nested, strategy):
    call = problem.run(mode, chunk, nested, strategy)
    if not compiled:
        return call

    def loss(params, x):
        return xp.sum(problem.jacobian(params, x, mode, chunk) ** 2)

    if nested:
        return problem.waiting(lambda params, x: gradient(loss, params, x, argnums=(0, 1)), strategy, True)
    return problem.waiting(lambda params, x: problem.jacobian(params, x, mode, chunk), strategy, True)


def untaped(backend, call):
    if backend != "torch":
        return call
    import torch

    def run():
        with torch.no_grad():
            call()

    return run


def medians(calls):
    """Median seconds of each call, in rounds of another order each, until SECONDS are spent on it."""
    times, draw = {key: [] for key in calls}, random.Random(0)
    for call in calls.values():
        call()
    for turn in range(9):
        for key in draw.sample(list(calls), len(calls)):
            if turn > 1 and sum(times[key]) > SECONDS:
                continue
            repeats = 5 if key == ("forward",) else 1
            if repeats > 1:
                calls[key]()
            start = time.process_time()
            for _ in range(repeats):
                calls[key]()
            times[key].append((time.process_time() - start) / repeats)
    return {key: statistics.median(values) for key, values in times.items()}


def measure(backend, compiled, points):
    """Measure what is missing in the file of this backend."""
    if backend == "torch":
        import torch

        torch.set_num_threads(1)
    KEPT.mkdir(exist_ok=True)
    path = KEPT / f"{backend}{'-compiled' if compiled else ''}.json"
    kept = json.loads(path.read_text()) if path.exists() else {"points": {}}
    kept |= {"date": str(datetime.date.today()), "version": importlib.metadata.version(backend), "cpu": processor()}
    for number, shape in enumerate(grid(points)):
        name = "x".join(map(str, shape))
        if name not in kept["points"]:
            kept["points"][name] = rounded(measure_point(backend, shape, compiled))
        if "gradient" not in kept["points"][name] and strategies(backend, compiled, shape):
            kept["points"][name]["gradient"] = rounded(measure_gradient(backend, shape, compiled))
        path.write_text(json.dumps(kept, indent=1) + "\n")
        print(f"{backend} {number + 1}/{points} {name}", file=sys.stderr, flush=True)


def rounded(x):
    if isinstance(x, dict):
        return {key: rounded(value) for key, value in x.items()}
    return float(f"{x:.4g}") if isinstance(x, float) else x


# The fit.


def rows_of(kept, situation):
    """(shape, mode, batching, strategy, forward passes) of every measurement."""
    for name, point in kept["points"].items():
        shape = tuple(map(int, name.split("x")))
        for key, passes in point["passes"].items():
            where, mode, batching, strategy = key.split("/")
            if where == situation:
                yield shape, mode, batching, strategy, passes


def explaining(shape, mode, batching):
    """(sweeps, directions, size) of a measurement, as polyad.costs has them."""
    inputs, outputs, batch, *_ = shape
    n = inputs if mode == "forward" else outputs
    size = batch * max(inputs, outputs)
    return (n if batching == "loop" else -(-n // at_once(n, size))), n, size


def fit(kept, situation, held):
    """{"even": ..., "passes": [...], "keeps": ..., "quality": ...} for the points that are not held out."""
    from scipy.optimize import least_squares

    rows = list(rows_of(kept, situation))
    taped = [row for row in rows if row[3] == "taped"]
    kinds = sorted({row[1:3] for row in taped})
    seen = [row for row in taped if "x".join(map(str, row[0])) not in held]

    def predicted(parameters, row):
        shape, mode, batching, *_ = row
        sweeps, n, size = explaining(shape, mode, batching)
        start = 1 + 4 * kinds.index((mode, batching))
        coefficients = np.exp(parameters[start : start + 4])
        return formula({"coefficients": coefficients}, size / math.exp(parameters[0]), sweeps, n)

    def residuals(parameters):
        gaps = [math.log(predicted(parameters, row) / row[4]) for row in seen]
        return np.array([*gaps, *(0.05 * (parameters[1:] - 0.0))])  # numbers that nothing decides stay near 1

    start = np.array([math.log(2000.0), *[math.log(2.0)] * (4 * len(kinds))])
    found = least_squares(residuals, start, loss="soft_l1", f_scale=0.3).x
    passes = []
    for i, (mode, batching) in enumerate(kinds):
        own = [row for row in seen if row[1:3] == (mode, batching)]
        gap = math.sqrt(statistics.mean(math.log(predicted(found, row) / row[4]) ** 2 for row in own))
        coefficients = [float(f"{c:.3g}") for c in np.exp(found[1 + 4 * i : 5 + 4 * i])]
        row = {"mode": mode, "batching": batching, "coefficients": coefficients, "points": len(own)}
        passes.append({**row, "residual": round(gap, 3)})
    table = {"even": float(f"{math.exp(found[0]):.3g}"), "passes": passes}
    if situation == "nested":
        table["keeps"] = keeps(rows, [point.get("gradient", {}) for point in kept["points"].values()])
    return {**table, "quality": quality(table, taped, held)}


def keeps(rows, gradients):
    """By mode, the median time by strategy in that of taped, with the directions taken in the better way."""
    best = {}
    for shape, mode, _, strategy, passes in rows:
        key = shape, mode, strategy
        best[key] = min(best.get(key, math.inf), passes)
    found = {}
    for mode in sorted({mode for _, mode, _ in best}):
        ratios = {"taped": [1.0]}
        for (shape, of, strategy), passes in best.items():
            if of == mode and strategy != "taped":
                ratios.setdefault(strategy, []).append(passes / best[shape, mode, "taped"])
        found[mode] = {name: round(statistics.median(values), 2) for name, values in ratios.items()}
    for name in ("taped", *STRATEGIES):
        ratios = [point[f"nested/gradient/one/{name}"] for point in gradients if f"nested/gradient/one/{name}" in point]
        if ratios:
            found.setdefault("gradient", {})[name] = round(statistics.median(ratios), 2)
    return found


def quality(table, rows, held):
    """How often the predicted best is the best or within 10 % of it, and the mean loss, on points seen and held out."""
    by_shape = {}
    for shape, mode, batching, _, passes in rows:
        by_shape.setdefault(shape, {})[mode, batching] = passes
    found = {}
    for name in ("seen", "held out"):
        losses, fixed = [], {}
        for shape, measured in by_shape.items():
            if ("x".join(map(str, shape)) in held) != (name == "held out") or len(measured) < 2:
                continue
            chosen = min(measured, key=lambda key: predict(table, shape, *key))
            losses.append(measured[chosen] / min(measured.values()))
            for key in measured:
                fixed.setdefault(key, []).append(measured[key] / min(measured.values()))
        if losses:
            within = [sum(loss <= limit for loss in losses) / len(losses) for limit in (1.0, 1.1, 1.25)]
            found[name] = {
                "points": len(losses),
                "best": round(within[0], 2),
                "within 10 %": round(within[1], 2),
                "within 25 %": round(within[2], 2),
                "mean loss": round(statistics.geometric_mean(losses), 3),
                "worst loss": round(max(losses), 2),
                "best fixed choice, mean loss": round(min(map(statistics.geometric_mean, fixed.values())), 2),
            }
    return found


def predict(table, shape, mode, batching):
    sweeps, n, size = explaining(shape, mode, batching)
    rows = [row for row in table["passes"] if row["mode"] == mode and (n == 1 or row["batching"] == batching)]
    return min(formula(row, size / table["even"], sweeps, n) for row in rows)


def fit_all():
    """Write polyad/costs.json from every file of measurements."""
    versions, backends, dates, cpus = {}, {}, [], set()
    for path in sorted(KEPT.glob("*.json")):
        kept = json.loads(path.read_text())
        backend, _, compiled = path.stem.partition("-")
        held = set(list(kept["points"])[len(FIXED) :: 3]) | {"x".join(map(str, FIXED[1]))}
        versions[backend] = kept["version"].partition("+")[0]  # which build it was does not matter
        dates.append(kept["date"])
        cpus.add(kept["cpu"])
        for situation in ("alone", "nested"):
            name = ("compiled" if compiled else "eager") + (", nested" if situation == "nested" else "")
            table = fit(kept, situation, held)
            backends.setdefault(backend, {})[name] = table
            print(backend, name, json.dumps(table["quality"]))
    head = {"schema": SCHEMA, "date": max(dates), "cpu": ", ".join(sorted(cpus)), "threads": 1, "dtype": "float32"}
    DATA.write_text(json.dumps({**head, "versions": versions, "backends": backends}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "fit"))
    parser.add_argument("backend", nargs="?", choices=("autograd", "jax", "torch"))
    parser.add_argument("--compiled", action="store_true", help="under jax.jit")
    parser.add_argument("--points", type=int, default=48)
    given = parser.parse_args()
    if given.what == "fit":
        fit_all()
    else:
        measure(given.backend, given.compiled, given.points)


if __name__ == "__main__":
    main()
