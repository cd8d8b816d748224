"""Burgers' equation by a network that meets the front by itself: new points go where the equation is missed.

    python examples/burgers.py                    on the fastest backend that is installed
    python examples/burgers.py --backend all      first the same 20 steps on every backend, compared

u_t + u u_x = nu u_xx for x in [-1, 1] and t in [0, 1], u = -sin(pi x) at t = 0 and 0 on both sides, nu = 0.01 / pi:
at t = 0.4 a wave has steepened into a front of a width near nu. The network multiplies a factor that vanishes
there, so the given values hold whatever it is; the loss is the mean square of what is missing in the equation.

The reference is the Cole-Hopf solution, two integrals over the line, by the trapezoidal rule. For analytic
integrands its error falls faster than any power of the step: with half of the points it is the same to 1e-14,
which is measured at each run and printed.

source  Cole (1951); points: Wu et al. (2023), Comput. Methods Appl. Mech. Eng. 403; reference: Basdevant et al. (1986)
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import training
from matplotlib.colors import LogNorm
from scipy.stats import qmc

import polyad
from polyad import StatefulLayer, laplacian, value_and_batched_jacobian, xp

NU = 0.01 / np.pi

# The problem, once for all backends. Points are (n, 2) with columns x, t.


def residual(u: Callable[[Any], Any], points: Any) -> Any:
    """u_t + u u_x - nu u_xx, shape (n, 1)."""
    x, t = points[:, :1], points[:, 1:]
    value, slope = value_and_batched_jacobian(u, points)  # (n, 1), (n, 1, 2)
    u_xx = laplacian(lambda x: u(xp.concat([x, t], axis=1)), x)
    return slope[:, :, 1] + value * slope[:, :, 0] - NU * u_xx


class Setting(NamedTuple):
    """Sizes: units of each hidden layer, their number, points of the loss, points among which they are chosen."""

    hidden: int = 20
    layers: int = 4
    points: int = 2048
    choice: int = 16384
    every: int = 250
    """Steps after which points are chosen anew."""


SMALL = Setting(hidden=5, layers=2, points=32, choice=256, every=10)


class Wave:
    """The network as a function of points that has the given values, and the loss."""

    def __init__(self, setting: Setting, backend: str) -> None:
        self.model = training.perceptron(2, setting.hidden, setting.layers, 1)
        self.params, self.state = polyad.setup(0, self.model, backend=backend, dtype="float64")

    def field(self, params: Any) -> Callable[[Any], Any]:
        net = StatefulLayer(self.model, params, self.state)

        def u(points: Any) -> Any:
            x, t = points[:, :1], points[:, 1:]
            return t * (1 - x**2) * net(xp.concat([x, 2 * t - 1], axis=1)) - xp.sin(np.pi * x)

        return u

    def residual(self, params: Any, points: Any) -> Any:
        return residual(self.field(params), points)

    def loss(self, params: Any, points: Any) -> Any:
        return xp.mean(self.residual(params, points) ** 2)


def problem(backend: str, setting: Setting) -> training.Problem:
    wave = Wave(setting, backend)
    everywhere = 2 * qmc.Sobol(2, seed=0).random(setting.choice) * (1, 0.5) - (1, 0)
    missed = polyad.compile(wave.residual, backend=backend)
    grid = lattice(201, 101)
    truth = reference(grid)

    def points(params: Any, asked: int) -> tuple[np.ndarray]:
        """At first evenly; later, of many points, more of those where the equation is missed by more."""
        if not asked:
            return (everywhere[: setting.points],)
        size = np.abs(polyad.convert(missed(params, polyad.convert(everywhere, backend)), "numpy"))[:, 0]
        chance = size / size.mean() + 1
        chosen = np.random.default_rng(asked).choice(
            len(everywhere), setting.points, replace=False, p=chance / chance.sum()
        )
        return (everywhere[chosen],)

    def error(params: Any) -> float:
        u = wave.field(params)(grid)
        return float(np.linalg.norm(u - truth) / np.linalg.norm(truth))

    return training.Problem(wave.params, wave.loss, points, error)


def solve(backend: str, setting: Setting, steps: int) -> training.Run:
    task = problem(backend, setting)
    return training.train("Burgers", backend, task, training.BFGS(task.params, backend), steps, setting.every)


# The reference.


def reference(points: np.ndarray, nodes: int = 601) -> np.ndarray:
    """The solution by Cole and Hopf at points (n, 2), shape (n, 1).

    u = -I(sin(pi y) w) / I(w), w = exp(-cos(pi y) / (2 pi nu) - z²), y = x - z sqrt(4 nu t), I the integral over z.
    The exponent without z² moves by 1 / (pi nu) = 100 at most, so |z| > 12 adds less than exp(100 - 144).
    """
    z = np.linspace(-12, 12, nodes)
    y = points[:, :1] - np.sqrt(4 * NU * points[:, 1:]) * z
    exponent = -np.cos(np.pi * y) / (2 * np.pi * NU) - z**2
    w = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    return -(np.sin(np.pi * y) * w).sum(axis=1, keepdims=True) / w.sum(axis=1, keepdims=True)


def bound(points: np.ndarray) -> float:
    """Largest change of the reference at these points when every second node is left out."""
    return float(np.abs(reference(points) - reference(points, 301)).max())


def lattice(columns: int, rows: int) -> np.ndarray:
    """Points of a grid, (columns * rows, 2), x first."""
    x, t = np.meshgrid(np.linspace(-1, 1, columns), np.linspace(0, 1, rows))
    return np.stack([x.ravel(), t.ravel()], axis=1)


# The picture.

TIMES = (0.25, 0.5, 1.0)


def draw(run: training.Run, setting: Setting, path: Path) -> None:
    """The field and its error over x and t, slices at three times, and how the error fell."""
    u = Wave(setting, "numpy").field(run.params)
    with plt.rc_context(training.STYLE):
        figure, axes = plt.subplot_mosaic([["field"] * 3, ["error"] * 3, list("012"), ["fall"] * 3], figsize=(8, 9))
        _draw_planes(figure, axes["field"], axes["error"], u)
        for i, t in enumerate(TIMES):
            _draw_slice(axes[str(i)], u, t)
        axes["0"].set_ylabel("u")
        axes["2"].legend(loc="upper right", bbox_to_anchor=(1.1, 1.08), handlelength=0.8, fontsize=8)
        _draw_fall(axes["fall"], run, setting)
        training.save(figure, path)


def _draw_planes(figure: Any, above: Any, below: Any, u: Callable[[Any], Any]) -> None:
    points = lattice(301, 151)
    values, truth = (f(points).reshape(151, 301).T for f in (u, reference))
    look = {"extent": (0, 1, -1, 1), "origin": "lower", "aspect": "auto"}
    field = above.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, **look)
    error = below.imshow(np.abs(values - truth), cmap="viridis", norm=LogNorm(1e-6, 1e-2, clip=True), **look)
    for axis, image, label in ((above, field, "u"), (below, error, "|network - reference|")):
        figure.colorbar(image, ax=axis, label=label, pad=0.01)
        axis.set(ylabel="x")
        axis.spines[:].set_visible(True)
    for t in TIMES[:-1]:
        above.axvline(t, color="black", linewidth=0.8, linestyle=":")
    above.set_title("the network: $u_t + u\\,u_x = (0.01/\\pi)\\,u_{xx}$")
    below.set(xlabel="t", title="its error against the Cole-Hopf solution")


def _draw_slice(axis: Any, u: Callable[[Any], Any], t: float) -> None:
    x = np.linspace(-1, 1, 801)
    points = np.stack([x, np.full_like(x, t)], axis=1)
    axis.plot(x, reference(points), color="0.6", linewidth=4, label="reference")
    axis.plot(x, u(points), color=training.ORANGE, linewidth=1.3, label="network")
    axis.set(title=f"t = {t:g}", xlabel="x", ylim=(-1.1, 1.1))


def _draw_fall(axis: Any, run: training.Run, setting: Setting) -> None:
    axis.plot(run.losses, color=training.BLUE, linewidth=1, label="loss: mean square of what the equation misses")
    axis.plot(*run.errors.T, color=training.ORANGE, marker="o", markersize=3, label="error: |network - u| / |u|")
    axis.set(yscale="log", xlabel=f"step (new points after every {setting.every})", title="training")
    axis.legend(loc="upper right", ncols=2)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = training.parser("Burgers' equation by a network, from one source on any backend.", steps=3000)
    parser.add_argument("--hidden", type=int, default=20, help="units of each of four hidden layers")
    parser.add_argument("--points", type=int, default=2048, help="points of the loss, a power of 2")
    parser.add_argument("--every", type=int, default=250, help="steps after which points are chosen anew")
    asked = parser.parse_args(arguments)
    setting = Setting(hidden=asked.hidden, points=asked.points, choice=8 * asked.points, every=asked.every)
    backend, setting = training.prepared(asked, setting, SMALL, lambda *a: [solve(*a)])
    run = solve(backend, setting, asked.steps)
    print(training.table([run], "relative L2 error"))
    print(f"reference: trapezoidal rule, {bound(lattice(201, 101)):.0e} from itself with half of the nodes")
    draw(run, setting, asked.out / "burgers.png")


if __name__ == "__main__":
    main()
