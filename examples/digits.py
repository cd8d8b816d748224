"""A classifier that noise moves less: the Jacobian of a network inside its loss.

    python examples/digits.py                      every installed backend
    python examples/digits.py --backend torch      one of them

The images are the 1797 handwritten digits of scikit-learn, 8 x 8 pixels between
0 and 1. The loss is cross entropy plus weight * mean_b |J_b|_F^2, where J_b is
the Jacobian of the ten logits in the 64 pixels of image b: the square of how
far a small random change of the pixels moves the logits.

First the same few steps run on every backend, and their losses are compared.
Then the fastest of them trains a wider network with and without the penalty,
and both meet images that they have never seen, with noise on them. The penalty
more than halves how far the logits move, and fewer decisions change. The
probabilities are less sure with it, and so a little less steady in weak noise.

source  Hoffman, Roberts & Yaida (2019), Robust learning with Jacobian regularization
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ["JAX_ENABLE_X64"] = "1"  # JAX reads it once, when it is imported; the others compute in float64 anyway

import matplotlib

matplotlib.use("Agg")  # a picture in a file needs no window

import matplotlib.pyplot as plt
import numpy as np
import optree
from rich.console import Console
from rich.progress import track
from sklearn.datasets import load_digits

import polyad
from polyad import Chain, Dense, StatefulLayer, batched_jacobian, stop_gradient, value_and_gradient, xp

PIXELS, CLASSES, TRAINING = 64, 10, 1000
LEVELS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)  # standard deviations of the noise; 1 is from white to black
AGREEMENT = 1e-6  # relative; float64 has room for ten more orders, a wrong derivative has none
PATIENCE = 1200.0  # seconds for the training with and without penalty; forward mode alone would take an hour

# The problem, once for all backends.


def classifier(hidden: int) -> Chain:
    """Logits of ten classes from 64 pixels."""
    return Chain(Dense(PIXELS, hidden, "tanh"), Dense(hidden, CLASSES))


def log_softmax(z: Any) -> Any:
    """Logarithms of the probabilities; the largest logit is taken out so that nothing overflows."""
    z = z - stop_gradient(xp.max(z, axis=-1, keepdims=True))
    return z - xp.log(xp.sum(xp.exp(z), axis=-1, keepdims=True))


def cross_entropy(logits: Any, labels: Any) -> Any:
    """Mean over the rows of -log p(label); labels are rows of the unit matrix."""
    return -xp.mean(xp.sum(labels * log_softmax(logits), axis=-1))


def sensitivity(net: Callable[[Any], Any], x: Any) -> Any:
    """Mean over the rows of |J_b|_F^2: noise of deviation s moves the logits by s |J_b|_F."""
    J = batched_jacobian(net, x)
    return xp.mean(xp.sum(J**2, axis=(1, 2)))


def objective(model: Chain, state: Any, weight: float) -> Callable[[Any, Any, Any], Any]:
    """The loss as a function of (params, x, labels)."""

    def loss(params: Any, x: Any, labels: Any) -> Any:
        net = StatefulLayer(model, params, state)
        return cross_entropy(net(x), labels) + weight * sensitivity(net, x)

    return loss


# Data: the same numbers in the same order on every backend.


class Data(NamedTuple):
    """Images (n, 64) and labels (n, 10), for training and held out."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def digits(training: int = TRAINING) -> Data:
    """The digits, shuffled once: neighbours in the file were written by one hand."""
    images, labels = load_digits(return_X_y=True)
    order = _random(0).permutation(len(images))
    x, y = images[order] / 16, np.eye(CLASSES)[labels[order]]
    return Data(x[:training], y[:training], x[TRAINING:], y[TRAINING:])


def batch(data: Data, size: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Batch number `step`, whatever was drawn before; all images where size is theirs."""
    rows = _random(1, step).choice(len(data.x), size, replace=False)
    return data.x[rows], data.y[rows]


def _random(stream: int, counter: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=stream, counter=[0, 0, 0, counter]))


# Training.


class Setting(NamedTuple):
    """What all runs of one comparison share."""

    hidden: int = 16
    batch: int = 100
    rate: float = 0.5
    weight: float = 0.003


class Run(NamedTuple):
    """A trained network, with the loss before each step and the seconds it took."""

    backend: str
    params: Any
    losses: np.ndarray
    seconds: np.ndarray


def train(backend: str, data: Data, setting: Setting, steps: int, seed: int = 0, name: str = "") -> Run:
    """Gradient descent, p <- p - rate * dloss/dp; params come back as ndarrays."""
    model = classifier(setting.hidden)
    params, state = polyad.setup(seed, model, backend=backend, dtype="float64")
    loss = objective(model, state, setting.weight)
    losses, seconds = [], []
    with polyad.use_backend(backend):  # decides for ndarrays, which belong to numpy and to autograd
        for step in _progress(steps, name or backend):
            start = time.perf_counter()
            x, y = polyad.convert(batch(data, setting.batch, step), backend)
            value, slope = value_and_gradient(loss, params, x, y)
            params = optree.tree_map(lambda p, g: p - setting.rate * g, params, slope)
            losses.append(float(value))
            seconds.append(time.perf_counter() - start)
    return Run(backend, polyad.convert(params, "numpy"), np.array(losses), np.array(seconds))


def _progress(steps: int, name: str) -> Any:
    console = Console()
    return track(range(steps), name.ljust(24), console=console, transient=True, disable=not console.is_terminal)


def differences(runs: Sequence[Run]) -> np.ndarray:
    """|loss - loss of the first run| / |loss of the first run|, shape (runs, steps)."""
    reference = runs[0].losses
    return np.abs(np.stack([run.losses for run in runs]) - reference) / np.abs(reference)


# What noise does to a trained network.


class Effect(NamedTuple):
    """Means over held-out images and draws of the noise, one number a level: shape (levels,)."""

    logits: np.ndarray
    """Euclidean distance between the logits with noise and those without."""
    probabilities: np.ndarray
    """Total variation: how much probability moves to other classes, 0 to 1."""
    decisions: np.ndarray
    """Share of images that noise moves to another class; no scale of the logits matters to it."""
    accuracy: np.ndarray
    """Share of noisy images in the right class."""


QUANTITIES = {
    "logits": ("change of the logits", "mean Euclidean distance"),
    "probabilities": ("change of the probabilities", "mean total variation"),
    "decisions": ("decisions that noise changes", "share of images"),
    "accuracy": ("accuracy under noise", "share of images"),
}


def effect(params: Any, data: Data, hidden: int, levels: Sequence[float] = LEVELS, draws: int = 20) -> Effect:
    """The same noise for every network that is compared."""
    model = classifier(hidden)
    net = StatefulLayer(model, params, polyad.setup(0, model, backend="numpy", dtype="float64")[1])
    calm = net(data.x_test)
    noise = _random(2).normal(size=(draws, *data.x_test.shape))
    rows = [_moved(calm, net(data.x_test + level * noise), data.y_test) for level in levels]
    return Effect(*map(np.array, zip(*rows, strict=True)))


def _moved(calm: np.ndarray, noisy: np.ndarray, labels: np.ndarray) -> tuple[float, float, float, float]:
    probability = np.exp(log_softmax(noisy)) - np.exp(log_softmax(calm))
    choice = noisy.argmax(-1)
    return (
        np.linalg.norm(noisy - calm, axis=-1).mean(),
        np.abs(probability).sum(-1).mean() / 2,
        (choice != calm.argmax(-1)).mean(),
        (choice == labels.argmax(-1)).mean(),
    )


class Trial(NamedTuple):
    """Effects of several seeds with one weight, shape (seeds, levels)."""

    weight: float
    effect: Effect


def trial(backend: str, data: Data, setting: Setting, steps: int, seeds: int) -> Trial:
    """Train from several starting points and show each network the same noise."""
    effects = []
    for seed in range(seeds):
        run = train(backend, data, setting, steps, seed, f"weight {setting.weight:g}, seed {seed}")
        effects.append(effect(run.params, data, setting.hidden))
        accuracy = effects[-1].accuracy[0]
        print(f"weight {setting.weight:<6g} seed {seed}: {steps} steps on {backend}, accuracy {accuracy:.3f}")
    return Trial(setting.weight, Effect(*map(np.stack, zip(*effects, strict=True))))


# What a person sees.

# Okabe & Ito: told apart by colour-blind readers, and by their greys in print.
COLOURS = ("#56B4E9", "#D55E00", "#009E73", "#000000", "#CC79A7", "#E69F00")
MARKS = ("o", "s", "^", "v", "D", "P")
SHOWN = (0.0, 0.1, 0.2, 0.3)  # levels in the table; the picture has all
EQUAL = 1e-17  # where a logarithmic axis shows that nothing differs


def tables(runs: Sequence[Run], trials: Sequence[Trial]) -> str:
    """Both results as plain text."""
    return "\n".join([*_agreement_table(runs), *(["", *_noise_table(trials)] if trials else [])])


def _agreement_table(runs: Sequence[Run]) -> list[str]:
    gaps = differences(runs).max(axis=1)
    return [
        f"{'backend':<10} {'steps':>5} {'first loss':>12} {'last loss':>12} {'rel. difference':>16} {'s / step':>9}",
        *(
            f"{run.backend:<10} {len(run.losses):>5} {run.losses[0]:>12.8f} {run.losses[-1]:>12.8f} "
            f"{gap if run is not runs[0] else 'reference':>16{'.1e' if run is not runs[0] else ''}} "
            f"{_pace(run):>9.4f}"
            for run, gap in zip(runs, gaps, strict=True)
        ),
    ]


def _pace(run: Run) -> float:
    return float(np.median(run.seconds))  # the first step also pays for imports and traces


def _noise_table(trials: Sequence[Trial]) -> list[str]:
    seeds = len(trials[0].effect.logits)
    heads = "".join(f"{f'weight {t.weight:g}':>14}" for t in trials)
    lines = [f"{f'held-out images, mean of {seeds} seeds':<40}{heads}"]
    for field, (title, _) in QUANTITIES.items():
        for i, level in enumerate(LEVELS):
            if level in SHOWN and (level or field == "accuracy"):
                means = (getattr(t.effect, field)[:, i].mean() for t in trials)
                lines.append(f"{f'{title}, noise {level:g}':<40}{''.join(f'{m:>14.4f}' for m in means)}")
    return lines


def draw(runs: Sequence[Run], trials: Sequence[Trial], out: Path) -> None:
    """Losses and their differences on the left; beside them, the effect of noise."""
    style = {"font.size": 9, "axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False}
    with plt.rc_context(style):
        columns = 3 if trials else 1
        figure, axes = plt.subplots(2, columns, figsize=(3.5 * columns, 6), layout="constrained", squeeze=False)
        _draw_losses(axes[0, 0], runs)
        _draw_differences(axes[1, 0], runs)
        for axis, field in zip(axes[:, 1:].flat, QUANTITIES, strict=bool(trials)):
            _draw_effect(axis, field, trials)
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=160)
        plt.close(figure)


def _draw_losses(axis: Any, runs: Sequence[Run]) -> None:
    for i, run in enumerate(runs):
        # Thick below thin: equal curves stay visible as the rims of one band.
        width = 1.2 + 2.4 * (len(runs) - 1 - i)
        axis.plot(run.losses, color=COLOURS[i % len(COLOURS)], linewidth=width, label=run.backend)
    axis.set(title="the same steps on every backend", ylabel="loss of the batch", xlabel="step")
    axis.legend(frameon=False)


def _draw_differences(axis: Any, runs: Sequence[Run]) -> None:
    for i, (run, gap) in enumerate(zip(runs, differences(runs), strict=True)):
        if i:
            steps = np.arange(len(gap)) + 0.3 * (i - len(runs) / 2)  # side by side where they are equal
            look = {"color": COLOURS[i % len(COLOURS)], "markersize": 3, "linestyle": "none"}
            axis.plot(steps, np.maximum(gap, EQUAL), MARKS[i % len(MARKS)], label=run.backend, **look)
    axis.axhline(AGREEMENT, color="grey", linestyle="--", linewidth=0.9)
    axis.axhline(np.finfo(float).eps, color="grey", linestyle=":", linewidth=0.9)
    for height, words in ((AGREEMENT * 1.6, "limit of the test"), (np.finfo(float).eps * 5, "spacing of float64")):
        axis.text(0, height, words, color="0.35", fontsize=8)
    axis.set(yscale="log", ylim=(EQUAL / 4, 1e-4), xlabel="step", title=f"difference from {runs[0].backend}")
    axis.set(ylabel="relative difference of the loss")
    axis.set_yticks([EQUAL, *10.0 ** np.arange(-16, -3, 2)], ["equal", *(f"$10^{{{n}}}$" for n in range(-16, -3, 2))])
    axis.minorticks_off()
    if len(runs) > 1:
        axis.legend(frameon=False, loc="center right", bbox_to_anchor=(1, 0.6))


def _draw_effect(axis: Any, field: str, trials: Sequence[Trial]) -> None:
    title, unit = QUANTITIES[field]
    for tried, colour, mark in zip(trials, ("#D55E00", "#0072B2"), "os", strict=True):
        values = getattr(tried.effect, field)
        name = f"penalty, weight {tried.weight:g}" if tried.weight else "no penalty"
        axis.fill_between(LEVELS, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.25, linewidth=0)
        axis.plot(LEVELS, values.mean(axis=0), color=colour, marker=mark, markersize=4, label=name)
    axis.set(title=title, ylabel=unit, xlabel="std. deviation of noise on pixels in [0, 1]")
    if field != "accuracy":
        axis.set_ylim(bottom=0)
    if field == "logits":
        axis.legend(frameon=False, loc="upper left", title=f"mean and range of {len(values)} seeds", alignment="left")


# From the command line.


def installed() -> list[str]:
    """Backends that can run here, in the order in which polyad lists them."""
    return [backend.name for backend in polyad.backends() if backend.installed]


def main(arguments: Sequence[str] | None = None) -> None:
    asked = _parser().parse_args(arguments)
    setting, data = Setting(asked.hidden, asked.batch, asked.rate, asked.weight), digits()
    runs = []
    for name in installed() if asked.backend == "all" else [asked.backend]:
        runs.append(train(name, data, setting, asked.steps))
        print(f"{name:<10} {asked.steps} steps in {runs[-1].seconds.sum():.1f} s, loss {runs[-1].losses[-1]:.8f}")
    fastest = min(runs, key=_pace)
    needed = 2 * asked.seeds * asked.long * _pace(fastest)
    trials = _trials(fastest.backend, data, setting._replace(hidden=asked.wide), asked.long, asked.seeds, needed)
    draw(runs, trials, asked.out)
    print(f"\n{tables(runs, trials)}\n\npicture: {asked.out}")


def _trials(backend: str, data: Data, setting: Setting, steps: int, seeds: int, needed: float) -> list[Trial]:
    if needed > PATIENCE:
        print(f"no trial with noise: on {backend} it would take more than {needed / 60:.0f} minutes (--long, --seeds)")
        return []
    return [trial(backend, data, setting._replace(weight=w), steps, seeds) for w in (0.0, setting.weight)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Digits with a Jacobian penalty, from one source on any backend.")
    parser.add_argument("--backend", default="all", choices=["all", *(b.name for b in polyad.backends())])
    parser.add_argument("--steps", type=int, default=20, help="steps that are compared across backends")
    parser.add_argument("--long", type=int, default=400, help="steps with and without penalty, on the fastest backend")
    parser.add_argument("--seeds", type=int, default=3, help="starting points of these")
    parser.add_argument("--wide", type=int, default=32, help="hidden units of these")
    parser.add_argument("--hidden", type=int, default=16, help="hidden units there; forward mode alone pays for each")
    parser.add_argument("--batch", type=int, default=100, help="images a step")
    parser.add_argument("--rate", type=float, default=0.5, help="learning rate")
    parser.add_argument("--weight", type=float, default=0.003, help="weight of the penalty")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out" / "digits.png")
    return parser


if __name__ == "__main__":
    main()
