"""A neural ODE that needs fewer steps of its solver: the derivative along its paths, inside its loss.

    python examples/neural_ode.py                    on the fastest backend that is installed
    python examples/neural_ode.py --backend all      first the same 20 steps on every backend, compared

dz/dt = f(z, t), a network, carries points of two half moons into a normal distribution between t = 0 and 1; the
density of the moons is then log p(x) = log normal(z(1)) + integral of div f. One Jacobian of f in (z, t) gives
everything: its trace is div f, and J_z f + df/dt is the acceleration z'' of the paths.

Training minimises -mean log p(x) with four steps of Runge and Kutta, once as it is and once with a penalty,
weight * integral of |z''|². Nothing else keeps paths straight enough for four steps: without the penalty the network
finds paths on which the solver errs in its favour. Then both are solved with many steps, and the truth comes out.

The error is the mean of |log p by four steps - log p by many| over points that were not trained on, in nats.

source  Chen et al. (2018), Neural ordinary differential equations; Kelly et al. (2020), Learning differential
        equations that are easy to solve; Finlay et al. (2020), How to train your neural ODE
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import training

import polyad
from polyad import StatefulLayer, value_and_batched_jacobian, xp

MANY = 64  # steps of the solver that count as exact: halving them changes log p by 1e-4 on a wild network

# The flow, once for all backends. Points are (n, 2).

State = tuple[Any, ...]


def rk4(rates: Callable[[float, State], State], z: State, steps: int) -> list[State]:
    """Solutions of z' = rates(t, z) at steps + 1 times between 0 and 1, by the method of Runge and Kutta."""
    path, h = [z], 1 / steps
    for i in range(steps):
        t, z = i * h, path[-1]
        a = rates(t, z)
        b = rates(t + h / 2, _moved(z, h / 2, a))
        c = rates(t + h / 2, _moved(z, h / 2, b))
        d = rates(t + h, _moved(z, h, c))
        path.append(_moved(_moved(z, h / 6, a), h / 3, _moved(_moved(b, 1, c), 0.5, d)))
    return path


def _moved(z: State, h: float, rates: State) -> State:
    return tuple(x + h * dx for x, dx in zip(z, rates, strict=True))


def velocity_divergence_acceleration(f: Callable[[Any], Any], z: Any, t: float) -> State:
    """f (n, 2), div f (n,) and z'' = J_z f + df/dt (n, 2) along the paths of z' = f(z, t)."""
    velocity, J = value_and_batched_jacobian(f, xp.concat([z, xp.full_like(z[:, :1], t)], axis=1))  # J is (n, 2, 3)
    acceleration = xp.sum(J[:, :, :2] * velocity[:, None, :], axis=2) + J[:, :, 2]
    return velocity, J[:, 0, 0] + J[:, 1, 1], acceleration


class Setting(NamedTuple):
    """Sizes: units of both hidden layers, points a step, steps of the solver."""

    hidden: int = 32
    batch: int = 256
    solver: int = 4


SMALL = Setting(hidden=4, batch=16, solver=2)


class Flow:
    """The network as a flow of points, and the loss."""

    def __init__(self, setting: Setting, backend: str, weight: float = 0.0) -> None:
        self.setting, self.weight, self.model = setting, weight, training.perceptron(3, setting.hidden, 2, 2)
        self.params, self.state = polyad.setup(0, self.model, backend=backend, dtype="float64")

    def path(self, params: Any, x: Any, steps: int) -> list[State]:
        """(points, integral of div f, integral of |z''|²) at steps + 1 times."""
        f = StatefulLayer(self.model, params, self.state)

        def rates(t: float, now: State) -> State:
            velocity, divergence, acceleration = velocity_divergence_acceleration(f, now[0], t)
            return velocity, divergence, xp.sum(acceleration**2, axis=1)

        zero = xp.zeros_like(x[:, 0])
        return rk4(rates, (x, zero, zero), steps)

    def log_density(self, params: Any, x: Any, steps: int) -> tuple[Any, Any]:
        """(log p(x), integral of |z''|²), both (n,)."""
        z, integral, bend = self.path(params, x, steps)[-1]
        return integral - xp.sum(z**2, axis=1) / 2 - np.log(2 * np.pi), bend

    def loss(self, params: Any, x: Any) -> Any:
        log_p, bend = self.log_density(params, x, self.setting.solver)
        return self.weight * xp.mean(bend) - xp.mean(log_p)


def moons(n: int, stream: int) -> np.ndarray:
    """n points of two half circles with noise, (n, 2), centred, about as wide as the normal distribution."""
    random = np.random.default_rng(stream)
    angle, upper = random.uniform(0, np.pi, n), random.integers(0, 2, n) * 2 - 1
    circle = np.stack([np.cos(angle) - 0.5 * upper, upper * (np.sin(angle) - 0.25)], axis=1)
    return (circle + 0.07 * random.normal(size=(n, 2))) * (1.2, 2.0)


UNSEEN = 2**20  # the stream of points that no step trains on


def problem(backend: str, setting: Setting, weight: float) -> training.Problem:
    flow = Flow(setting, backend, weight)
    x = moons(256, UNSEEN)

    def error(params: Any) -> float:
        return gap(flow, params, x, setting.solver)

    return training.Problem(flow.params, flow.loss, lambda params, asked: (moons(setting.batch, asked),), error)


def gap(flow: Flow, params: Any, x: np.ndarray, steps: int) -> float:
    """Mean of |log p by so many steps - log p by many|, in nats."""
    few, many = (flow.log_density(params, x, n)[0] for n in (steps, MANY))
    return float(np.abs(few - many).mean())


def solve(backend: str, setting: Setting, steps: int, weight: float) -> training.Run:
    task = problem(backend, setting, weight)
    name = f"penalty {weight:g}" if weight else "no penalty"
    return training.train(name, backend, task, training.Adam(task.params, 0.01, steps), steps, every=1, looks=20)


# What the penalty buys.

COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # steps of the solver


class Outcome(NamedTuple):
    """A trained flow on unseen points."""

    setting: Setting
    run: training.Run
    reported: float
    """-mean log p by as many steps of the solver as in training."""
    true: float
    """The same by many."""
    gaps: np.ndarray
    """Mean error of log p by each of COUNTS."""


def judged(run: training.Run, setting: Setting) -> Outcome:
    flow, x = Flow(setting, "numpy"), moons(1000, UNSEEN + 1)
    with polyad.use_backend("numpy"):
        solved = {n: flow.log_density(run.params, x, n)[0] for n in (*COUNTS, setting.solver, MANY)}
    gaps = np.array([np.abs(solved[n] - solved[MANY]).mean() for n in COUNTS])
    return Outcome(setting, run, -solved[setting.solver].mean(), -solved[MANY].mean(), gaps)


def findings(outcomes: Sequence[Outcome]) -> str:
    """The outcomes as plain text."""
    rows = [
        (f"-log p by {outcomes[0].setting.solver} steps, as in training", [f"{o.reported:.3f}" for o in outcomes]),
        (f"-log p by {MANY} steps, the truth", [f"{o.true:.3f}" for o in outcomes]),
        *((f"error of log p by {n} steps", [f"{_error(o, n):.4f}" for o in outcomes]) for n in (2, 4, 8, 16)),
        ("steps for an error below 0.01", [_needed(o) for o in outcomes]),
    ]
    head = f"{'unseen points, nats':<36}" + "".join(f"{o.run.name:>14}" for o in outcomes)
    return "\n".join([head, *(f"{name:<36}" + "".join(f"{cell:>14}" for cell in cells) for name, cells in rows)])


def _error(outcome: Outcome, steps: int) -> float:
    return float(outcome.gaps[COUNTS.index(steps)])


def _needed(outcome: Outcome) -> str:
    enough = [n for n, error in zip(COUNTS, outcome.gaps, strict=True) if error < 0.01]
    return str(enough[0]) if enough else f"> {COUNTS[-1]}"


# The picture.

LOOK = ((training.ORANGE, "o"), (training.BLUE, "s"))


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """A row for each flow, its paths and its density; beside them, the error of log p and how training went."""
    with plt.rc_context(training.STYLE), polyad.use_backend("numpy"):
        figure = plt.figure(figsize=(9.6, 5.6))
        left, right = figure.subfigures(1, 2, width_ratios=(2, 1.1))
        axes = left.subplots(len(outcomes), 2, sharex=True, sharey=True)
        for (paths, density), outcome in zip(axes, outcomes, strict=True):
            _draw_paths(paths, outcome)
            _draw_density(density, outcome)
        for axis in axes[-1]:
            axis.set_xlabel("$x_1$")
        gaps, training_axis = right.subplots(2, 1)
        _draw_gaps(gaps, outcomes)
        _draw_training(training_axis, outcomes)
        training.save(figure, path)


def _draw_paths(axis: Any, outcome: Outcome) -> None:
    x = moons(60, UNSEEN + 2)
    path = np.stack([now[0] for now in Flow(outcome.setting, "numpy").path(outcome.run.params, x, MANY)])
    axis.plot(path[..., 0], path[..., 1], color="0.45", linewidth=0.7)
    axis.plot(*path[0].T, "o", color=training.BLACK, markersize=2.5, label="data, t = 0")
    axis.plot(*path[-1].T, "o", color=training.ORANGE, markersize=2.5, label="normal, t = 1")
    axis.set(title=f"paths, {outcome.run.name}", ylabel="$x_2$", aspect="equal")
    axis.legend(loc="upper right", ncols=2, fontsize=7, handletextpad=0.1, columnspacing=1, borderpad=0)


def _draw_density(axis: Any, outcome: Outcome) -> None:
    side = np.linspace(-3, 3, 121)
    points = np.stack([c.ravel() for c in np.meshgrid(side, side)], axis=1)
    density = np.exp(Flow(outcome.setting, "numpy").log_density(outcome.run.params, points, 32)[0])
    axis.imshow(density.reshape(121, 121), extent=(-3, 3, -3, 3), origin="lower", cmap="cividis")
    axis.set(title=f"density, -log p = {outcome.true:.2f}", xlim=(-3, 3), ylim=(-3, 3))


def _draw_gaps(axis: Any, outcomes: Sequence[Outcome]) -> None:
    for outcome, (colour, mark) in zip(outcomes, LOOK, strict=True):
        axis.plot(COUNTS, outcome.gaps, color=colour, marker=mark, markersize=4, label=outcome.run.name)
    axis.axvline(outcomes[0].setting.solver, color="grey", linestyle="--", linewidth=0.9)
    below = axis.get_xaxis_transform()
    axis.text(outcomes[0].setting.solver, 0.02, " in training", color="0.35", fontsize=8, transform=below)
    axis.set(xscale="log", yscale="log", xlabel="steps of the solver", ylabel="nats", title="mean error of log p")
    axis.set_xticks(COUNTS, [str(n) if n in (1, 2, 4, 8, 16, 32) else "" for n in COUNTS])
    axis.minorticks_off()


def _draw_training(axis: Any, outcomes: Sequence[Outcome]) -> None:
    for outcome, (colour, mark) in zip(outcomes, LOOK, strict=True):
        axis.plot(*outcome.run.errors.T, color=colour, marker=mark, markersize=3, label=outcome.run.name)
    axis.set(yscale="log", xlabel="step of training", ylabel="nats")
    axis.set(title=f"the same by {outcomes[0].setting.solver} steps, while training")
    axis.legend(loc="center right", bbox_to_anchor=(1, 0.45))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = training.parser("A neural ODE whose paths are easy to solve, from one source on any backend.", steps=1500)
    parser.add_argument("--weight", type=float, default=0.02, help="of the penalty")
    parser.add_argument("--hidden", type=int, default=32, help="units of both hidden layers")
    parser.add_argument("--solver", type=int, default=4, help="steps of the solver in training")
    asked = parser.parse_args(arguments)
    setting, weights = Setting(asked.hidden, solver=asked.solver), (0.0, asked.weight)
    backend, setting = training.prepared(asked, setting, SMALL, lambda *a: [solve(*a, weight) for weight in weights])
    outcomes = [judged(solve(backend, setting, asked.steps, weight), setting) for weight in weights]
    print(training.table([outcome.run for outcome in outcomes], "error of log p, nats"))
    print(f"\n{findings(outcomes)}")
    draw(outcomes, asked.out / "neural_ode.png")


if __name__ == "__main__":
    main()
