"""A heat equation solved by networks, in two forms: one Laplacian, or first derivatives alone.

    python examples/pinn.py                    on the fastest backend that is installed
    python examples/pinn.py --backend all      first the same 20 steps on every backend, compared

u_t = u_xx + u_yy for (x, y, t) in [0, 2]³, where u = exp(x + y) cos(x + y + 4t) is the solution: with
r = x + y + 4t, u_t = -4 exp(x + y) sin(r), and u_xx and u_yy are half of that each. The networks are told u at
t = 0 and on the sides x, y = 0, 2, and have to find it inside.

- second order: one network u; the loss has its Laplacian, the gradient of the loss a third derivative.
- first order: networks u, v, w with v = u_x, w = u_y and u_t = v_x + w_y in the loss; three times the parameters
  and more terms to balance, but no derivative beyond the first inside of the loss.

The error is |network - u| / |u| (Euclidean) on points that were not trained on.
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
from polyad import StatefulLayer, jvp, laplacian, value_and_batched_jacobian, xp

SIZE = 2.0  # of the domain in each coordinate
SCALE = 10.0  # of u, which reaches exp(4) = 55; networks are happier with numbers near 1
WEIGHT = 10.0  # of the given values against the equation
FORMS = {"second order": ("u",), "first order": ("u", "v", "w")}

# The problem, once for all backends. Points are (n, 3) with columns x, y, t.


def exact(points: Any) -> Any:
    """The solution, shape (n, 1)."""
    s = points[:, :1] + points[:, 1:2]
    return xp.exp(s) * xp.cos(s + 4 * points[:, 2:])


Field = Callable[[Any], Any]


def heat(u: Field, points: Any) -> Any:
    """u_t - u_xx - u_yy, shape (n, 1)."""
    places, times = points[:, :2], points[:, 2:]
    _, u_t = jvp(lambda t: u(xp.concat([places, t], axis=1)), (times,), (xp.ones_like(times),))
    return u_t - laplacian(lambda p: u(xp.concat([p, times], axis=1)), places)


def heat_in_first_order(u: Field, v: Field, w: Field, points: Any) -> Any:
    """u_t - v_x - w_y, u_x - v and u_y - w, shape (n, 3)."""
    _, du = value_and_batched_jacobian(u, points)
    v_here, dv = value_and_batched_jacobian(v, points)
    w_here, dw = value_and_batched_jacobian(w, points)
    balance = du[:, :, 2] - dv[:, :, 0] - dw[:, :, 1]
    return xp.concat([balance, du[:, :, 0] - v_here, du[:, :, 1] - w_here], axis=1)


class Setting(NamedTuple):
    """Sizes: units in each of the hidden layers, their number, points inside, points on the edge."""

    hidden: int = 16
    layers: int = 3
    points: int = 1024
    edge: int = 1024


SMALL = Setting(hidden=4, layers=2, points=16, edge=8)


class Networks:
    """One network for each name, as functions of points, and the loss."""

    def __init__(self, form: str, setting: Setting, backend: str) -> None:
        self.names = FORMS[form]
        self.model = training.perceptron(3, setting.hidden, setting.layers, 1)
        made = [polyad.setup(seed, self.model, backend=backend, dtype="float64") for seed in range(len(self.names))]
        self.params = {name: params for name, (params, _) in zip(self.names, made, strict=True)}
        self.state = made[0][1]

    def field(self, params: Any, name: str) -> Field:
        net = StatefulLayer(self.model, params[name], self.state)
        return lambda points: SCALE * net(points - SIZE / 2)

    def loss(self, params: Any, inside: Any, edge: Any, given: Any) -> Any:
        fields = [self.field(params, name) for name in self.names]
        residual = (heat if len(fields) == 1 else heat_in_first_order)(*fields, inside)
        missed = fields[0](edge) - given
        return (xp.mean(xp.sum(residual**2, axis=1)) + WEIGHT * xp.mean(missed**2)) / SCALE**2


def problem(form: str, backend: str, setting: Setting) -> training.Problem:
    nets = Networks(form, setting, backend)
    inside, edge = cube(setting.points), sides(setting.edge)
    unseen = np.random.default_rng(1).uniform(0, SIZE, (4096, 3))
    truth = exact(unseen)

    def error(params: Any) -> float:
        u = nets.field(params, "u")(unseen)
        return float(np.linalg.norm(u - truth) / np.linalg.norm(truth))

    return training.Problem(nets.params, nets.loss, lambda params, asked: (inside, edge, exact(edge)), error)


def cube(n: int) -> np.ndarray:
    """n points inside; n is a power of 2."""
    return _spread(qmc.Sobol(3, seed=0).random(n))


def sides(n: int) -> np.ndarray:
    """n points on the four sides and at t = 0, as many on each."""
    faces = ((2, 0.0), (0, 0.0), (0, SIZE), (1, 0.0), (1, SIZE))
    points = _spread(qmc.Sobol(3, seed=1).random(n))
    for i, (axis, value) in enumerate(faces):
        points[i :: len(faces), axis] = value
    return points


def _spread(s: np.ndarray) -> np.ndarray:
    """Even numbers in [0, 1] to coordinates that are denser at both ends, where errors are largest (Chebyshev)."""
    return SIZE * (1 - np.cos(np.pi * s)) / 2


def solve(form: str, backend: str, setting: Setting, steps: int) -> training.Run:
    task = problem(form, backend, setting)
    return training.train(form, backend, task, training.BFGS(task.params, backend), steps, every=steps)


# The picture.

TIMES = (0.5, 1.25, 2.0)
GRID = 81  # points along each side of a slice


def draw(runs: Sequence[training.Run], setting: Setting, path: Path) -> None:
    """The field at three times, the errors of both forms there, and how they fell."""
    with plt.rc_context(training.STYLE):
        figure = plt.figure(figsize=(9.2, 5.9))
        left, right = figure.subfigures(1, 2, width_ratios=(2.1, 1))
        axes = left.subplots(1 + len(runs), len(TIMES), sharex=True, sharey=True)
        _slices(left, axes, runs, setting)
        for form, axis in zip((_errors, _losses), right.subplots(2, 1), strict=True):
            form(axis, runs)
        training.save(figure, path)


def _slices(figure: Any, axes: Any, runs: Sequence[training.Run], setting: Setting) -> None:
    truth = [_exact_slice(t) for t in TIMES]
    top = np.abs(truth).max()
    for row, run in enumerate(runs, start=1):
        fields = [_slice(run, setting, t) for t in TIMES]
        if row == 1:
            image = _images(axes[0], fields, cmap="RdBu_r", vmin=-top, vmax=top)
            figure.colorbar(image, ax=list(axes[0]), label="u", shrink=0.9, pad=0.02)
            axes[0, 0].set_ylabel(f"u, {run.name}\n\ny")
        wrong = [100 * np.abs(u - e) / top for u, e in zip(fields, truth, strict=True)]
        image = _images(axes[row], wrong, cmap="viridis", norm=LogNorm(1e-5, 1e-1, clip=True))
        figure.colorbar(image, ax=list(axes[row]), label="|error|, % of max |u|", shrink=0.9, pad=0.02)
        axes[row, 0].set_ylabel(f"error, {run.name}\n\ny")
    for axis, t in zip(axes[0], TIMES, strict=True):
        axis.set_title(f"t = {t:g}")
    for axis in axes[-1]:
        axis.set_xlabel("x")


def _images(axes: Any, fields: Sequence[np.ndarray], **look: Any) -> Any:
    """Slices in a row; the last of them, for a colour bar."""
    for axis, values in zip(axes, fields, strict=True):
        axis.set(xticks=(0, 1, 2), yticks=(0, 1, 2))
        axis.spines[:].set_visible(True)
        image = axis.imshow(values, extent=(0, SIZE, 0, SIZE), origin="lower", **look)
    return image


def _plane(t: float) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(0, SIZE, GRID), np.linspace(0, SIZE, GRID))
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, t)], axis=1)


def _exact_slice(t: float) -> np.ndarray:
    return exact(_plane(t)).reshape(GRID, GRID)


def _slice(run: training.Run, setting: Setting, t: float) -> np.ndarray:
    nets = Networks(run.name, setting, "numpy")
    return nets.field(run.params, "u")(_plane(t)).reshape(GRID, GRID)


def _errors(axis: Any, runs: Sequence[training.Run]) -> None:
    for run, colour, mark in zip(runs, (training.BLUE, training.ORANGE), "os", strict=False):
        steps, errors = run.errors.T
        axis.plot(steps, 100 * errors, color=colour, marker=mark, markersize=3, linewidth=1.2, label=run.name)
    axis.axhline(1, color="grey", linestyle="--", linewidth=0.9)
    axis.text(0.98, 1, "1 %", color="0.35", fontsize=8, va="bottom", ha="right", transform=axis.get_yaxis_transform())
    axis.set(yscale="log", xlabel="step", ylabel="|network - u| / |u|, %", title="error on points not trained on")
    axis.legend()


def _losses(axis: Any, runs: Sequence[training.Run]) -> None:
    for run, colour in zip(runs, (training.BLUE, training.ORANGE), strict=False):
        axis.plot(run.losses, color=colour, linewidth=1.2, label=run.name)
    axis.set(yscale="log", xlabel="step", ylabel="loss", title="loss: equation and given values")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = training.parser("A heat equation by networks in two forms, from one source on any backend.", steps=1500)
    parser.add_argument("--hidden", type=int, default=16, help="units of each of three hidden layers")
    parser.add_argument("--points", type=int, default=1024, help="points inside, a power of 2")
    asked = parser.parse_args(arguments)
    setting = Setting(asked.hidden, 3, asked.points, asked.points)
    backend, setting = training.prepared(asked, setting, SMALL, lambda *a: [solve(form, *a) for form in FORMS])
    runs = [solve(form, backend, setting, asked.steps) for form in FORMS]
    print(training.table(runs, "error of u"))
    draw(runs, setting, asked.out / "pinn.png")


if __name__ == "__main__":
    main()
