"""What the examples share: two optimisers, the loop around them, tables, colours, the command line."""

import argparse
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ["JAX_ENABLE_X64"] = "1"  # JAX reads it once, when it is imported; the others compute in float64 anyway

import matplotlib

matplotlib.use("Agg")  # a picture in a file needs no window

import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from scipy.linalg.blas import dsymv, dsyr2
from scipy.optimize import line_search

import polyad
from polyad import Chain, Dense, ravel, trees, value_and_gradient, xp
from polyad.backends import get

AGREEMENT = 1e-6  # relative; float64 has room for ten more orders, a wrong derivative has none
PREFERRED = ("jax", "torch", "autograd", "numpy")  # the fastest for these losses comes first
STEPS_OF_ALL = 20  # that every backend takes with `--backend all`

Slope = Callable[[Any], tuple[float, Any]]  # params -> (loss, its gradient)

# Optimisers. Each has params, and step(slope), which moves them once and returns the loss before that.


class Adam:
    """p <- p - rate * m / (sqrt(v) + 1e-8), with running means m of the gradient and v of its square.

    rate  of the first step; it falls linearly, to zero after `steps` of them

    source  Kingma & Ba (2015)
    """

    def __init__(self, params: Any, rate: float, steps: int) -> None:
        self.params, self.rate, self.steps, self.done = params, rate, steps, 0
        self.m = self.v = trees.map(xp.zeros_like, params)

    def step(self, slope: Slope) -> float:
        value, g = slope(self.params)
        rate = self.rate * (1 - self.done / self.steps)
        self.done += 1
        self.m = trees.map(lambda m, g: 0.9 * m + 0.1 * g, self.m, g)
        self.v = trees.map(lambda v, g: 0.999 * v + 0.001 * g**2, self.v, g)
        a, b = rate / (1 - 0.9**self.done), 1 / (1 - 0.999**self.done)
        self.params = trees.map(lambda p, m, v: p - a * m / (xp.sqrt(b * v) + 1e-8), self.params, self.m, self.v)
        return float(value)


class BFGS:
    """Quasi-Newton steps by a dense approximation H of the inverse Hessian: n² numbers for n parameters.

    H is widened wherever a step meets less curvature than H had assumed. The
    curvatures of a differential equation's loss differ by many orders, so this
    reaches losses that methods with less memory do not.

    source  Al-Baali (1993), J. Optim. Theory Appl. 77; for PINNs Urbán, Stefanou & Pons (2025),
            J. Comput. Phys. 523
    """

    def __init__(self, params: Any, backend: str) -> None:
        vector, self._unravel = ravel(params)
        self.params, self._backend = params, backend
        self._x, self._inverse, self._slope = _host(vector), None, None

    def step(self, slope: Slope) -> float:
        seen: dict[bytes, tuple[float, np.ndarray]] = {}

        def at(x: np.ndarray) -> tuple[float, np.ndarray]:
            """Value and gradient, once for each x that the line search asks for."""
            if (key := x.tobytes()) not in seen:
                value, g = slope(self._tree(x))
                seen[key] = float(value), _host(ravel(g)[0])
            return seen[key]

        if slope is not self._slope:  # another loss: its value is not known, H stays a good guess
            self._slope, self._here, self._before = slope, at(self._x), None
        value, g = self._here
        if not g.any():
            return value
        d = -g / np.linalg.norm(g) if self._inverse is None else -dsymv(1.0, self._inverse, g)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The line search algorithm", RuntimeWarning)  # seen to below
            length = line_search(lambda x: at(x)[0], lambda x: at(x)[1], self._x, d, g, value, self._before)[0]
        if length is None:  # H misleads here; the next step goes along the gradient
            self._inverse, self._before = None, None
            return value
        self._x, self._before = self._x + length * d, value
        self._here, self.params = at(self._x), self._tree(self._x)
        self._learn(length * d, self._here[1] - g, -length * length * (d @ g))
        return value

    def _learn(self, s: np.ndarray, y: np.ndarray, assumed: float) -> None:
        """H after a step s that changed the gradient by y; assumed is s·Bs with B = H⁻¹."""
        sy = s @ y
        if not sy > 0:  # a step within rounding
            return
        if self._inverse is None:
            self._inverse, assumed = np.asfortranarray(np.eye(len(s)) * (sy / (y @ y))), sy
        wider = max(1.0, assumed / sy)
        Hy = dsymv(wider, self._inverse, y)
        w = (0.5 * (1 + y @ Hy / sy) * s - Hy) / sy
        self._inverse *= wider
        self._inverse = dsyr2(1.0, s, w, a=self._inverse, overwrite_a=True)

    def _tree(self, x: np.ndarray) -> Any:
        return self._unravel(polyad.convert(x, self._backend))


def _host(vector: Any) -> np.ndarray:
    return np.array(polyad.convert(vector, "numpy"))


# Training.


class Problem(NamedTuple):
    """A loss, where it starts, what it is evaluated on, and how far from the truth a result is."""

    params: Any
    loss: Callable[..., Any]
    """(params, *data) -> a number."""
    data: Callable[[Any, int], tuple[Any, ...]]
    """(params, how often it was asked before) -> what the loss gets, ndarrays."""
    error: Callable[[Any], float]
    """params on the host -> the error that the example reports."""


class Run(NamedTuple):
    """A trained network."""

    name: str
    backend: str
    params: Any
    """On the host."""
    losses: np.ndarray
    """Before each step, shape (steps,)."""
    errors: np.ndarray
    """(step, error) now and then, shape (n, 2); the last of them is that of params."""
    seconds: np.ndarray
    """Of each step, data included; the first is also that of tracing and compiling."""


def train(name: str, backend: str, problem: Problem, optimiser: Any, steps: int, every: int, looks: int = 40) -> Run:
    """`steps` steps with new data after every `every` of them; the error is looked at about `looks` times."""
    losses, seconds, errors = [], [], []
    of_loss = polyad.compile(value_and_gradient(problem.loss), backend=backend)
    interval = max(1, steps // looks)
    with polyad.use_backend(backend), _progress(f"{name}, {backend}", steps) as tick:
        for step in range(steps):
            if step % interval == 0:
                errors.append((step, _error(problem, optimiser)))
            start = time.perf_counter()
            if step % every == 0:
                data = polyad.convert(problem.data(optimiser.params, step // every), backend)
                slope = partial(_with, of_loss, data)
            losses.append(optimiser.step(slope))
            seconds.append(time.perf_counter() - start)
            tick(losses[-1], errors[-1][1])
        errors.append((steps, _error(problem, optimiser)))
    params = polyad.convert(optimiser.params, "numpy")
    return Run(name, backend, params, np.array(losses), np.array(errors), np.array(seconds))


def _error(problem: Problem, optimiser: Any) -> float:
    with polyad.use_backend("numpy"):
        return problem.error(polyad.convert(optimiser.params, "numpy"))


def _with(f: Callable[..., Any], data: tuple[Any, ...], params: Any) -> Any:
    return f(params, *data)


@contextmanager
def _progress(name: str, steps: int) -> Iterator[Callable[[float, float], None]]:
    """A bar where a person waits; nothing in a file or pipe."""
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    words = TextColumn("loss {task.fields[loss]:.2e}, error {task.fields[error]:.2e}")
    hidden = not console.is_terminal
    with Progress(*columns, words, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(name, total=steps, loss=float("nan"), error=float("nan"))
        yield lambda loss, error: progress.update(task, advance=1, loss=loss, error=error)


def perceptron(inputs: int, hidden: int, layers: int, outputs: int) -> Chain:
    """A tanh network with so many hidden layers."""
    inner = (Dense(hidden, hidden, "tanh") for _ in range(layers - 1))
    return Chain(Dense(inputs, hidden, "tanh"), *inner, Dense(hidden, outputs))


def differences(runs: Sequence[Run]) -> np.ndarray:
    """|loss - loss of the first run| / |loss of the first run|, shape (runs, steps)."""
    reference = runs[0].losses
    return np.abs(np.stack([run.losses for run in runs]) - reference) / np.abs(reference)


# What a person sees.

# Okabe & Ito: told apart by colour-blind readers, and by their greys in print.
BLUE, ORANGE, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#000000"
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def table(runs: Sequence[Run], error: str) -> str:
    """What was trained, for how long, and how wrong it is."""
    wide = max(len(run.name) for run in runs)
    head = f"{'':<{wide}} {'backend':<9} {'steps':>6} {'last loss':>11} {error:>24} {'seconds':>8}"
    return "\n".join([head, *(_line(run, wide) for run in runs)])


def _line(run: Run, wide: int) -> str:
    return (
        f"{run.name:<{wide}} {run.backend:<9} {len(run.losses):>6} {run.losses[-1]:>11.2e} "
        f"{run.errors[-1, 1]:>24.2e} {run.seconds.sum():>8.1f}"
    )


def agreement(runs: Sequence[Run]) -> str:
    """How equal the same steps are on all backends."""
    gaps = differences(runs).max(axis=1)
    lines = [
        f"{'backend':<9} {'steps':>6} {'first loss':>13} {'last loss':>13} {'rel. difference':>16} {'s / step':>9}"
    ]
    for run, gap in zip(runs, gaps, strict=True):
        shown = "reference" if run is runs[0] else f"{gap:.1e}"
        pace = np.median(run.seconds)  # the first step also pays for imports and traces
        first, last = run.losses[0], run.losses[-1]
        lines.append(f"{run.backend:<9} {len(run.losses):>6} {first:>13.8f} {last:>13.8f} {shown:>16} {pace:>9.4f}")
    return "\n".join(lines)


def save(figure: Any, path: Path) -> None:
    """The figure as a PNG, with the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    print(f"picture: {path}")


# From the command line.


def installed() -> list[str]:
    """Backends that can run here, in the order in which polyad lists them."""
    return [backend.name for backend in polyad.backends() if backend.installed]


def fastest() -> str:
    """The first of PREFERRED that is installed."""
    here = installed()
    return next((name for name in PREFERRED if name in here), here[0])


def has_reverse(backend: str) -> bool:
    """Whether a gradient is one sweep there; where it is not, n parameters cost n directions."""
    return "reverse" in get(backend).modes


def parser(description: str, steps: int) -> argparse.ArgumentParser:
    """The options that every example has."""
    made = argparse.ArgumentParser(description=description)
    choices = ["all", *(b.name for b in polyad.backends())]
    words = "one, or all: the same few steps on each, compared, before the fastest trains (default: %(default)s)"
    made.add_argument("--backend", default=fastest(), choices=choices, help=words)
    made.add_argument("--steps", type=int, default=steps, help="steps of the optimiser (default: %(default)s)")
    made.add_argument("--out", type=Path, default=Path(__file__).parent / "out", help="folder of the pictures")
    return made


def prepared(asked: argparse.Namespace, setting: Any, small: Any, attempt: Callable[..., Any]) -> tuple[str, Any]:
    """(backend, setting) of the training that was asked for; for `all`, after a comparison of all at small size.

    attempt  (backend, setting, steps) -> list of Run
    """
    if asked.backend == "all":
        steps = min(asked.steps, STEPS_OF_ALL)
        for same in zip(*(attempt(name, small, steps) for name in installed()), strict=True):
            print(f"{same[0].name}, {_words(small)}\n{agreement(same)}\n")
        return fastest(), setting
    if has_reverse(asked.backend):
        return asked.backend, setting
    print(f"{asked.backend} has forward mode alone, where every parameter is a direction; so small: {_words(small)}")
    return asked.backend, small


def _words(setting: Any) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in setting._asdict().items())
