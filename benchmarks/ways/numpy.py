"""By NumPy alone, formulas written out: there is nothing else."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import quantities
from ..memory import traced
from ..problem import Problem, plain
from .way import Way, Ways

__all__ = ["Framework"]

way = Ways()


class Framework:
    """Candidates of one problem, each a function without arguments."""

    def __init__(self, problem: Problem, compiled: bool) -> None:
        self.problem = problem
        self.layers, self.x = plain(problem.params), problem.x

    def forward(self) -> Callable[[], Any]:
        return lambda: u(self.layers, self.x)

    def polyad(self, quantity: str) -> Callable[[], Any]:
        return functools.partial(quantities.call(self.problem, quantity), self.problem.params, self.x)

    def ways(self, quantity: str) -> dict[str, tuple[Way, Callable[[], Callable[[], Any]]]]:
        return {w.name: (w, functools.partial(self._call, w)) for w in way.of(quantity, self.problem)}

    def _call(self, way: Way) -> Callable[[], Any]:
        return functools.partial(way.run, self.problem, self.layers, self.x)

    def peak(self, call: Callable[[], Any]) -> int:
        return traced(call)


def u(layers: Any, x: Any) -> Any:
    for weight, bias in layers[:-1]:
        x = np.tanh(x @ weight + bias)
    weight, bias = layers[-1]
    return x @ weight + bias


def hidden(layers: Any, x: Any) -> list[Any]:
    """The points, and what each hidden layer makes of them."""
    found = [x]
    for weight, bias in layers[:-1]:
        found.append(np.tanh(found[-1] @ weight + bias))
    return found


@way("output", "network written out")
def _(problem, layers, x):
    return u(layers, x)


@way("output", "backpropagation written out", "formula", whole=True)
def _(problem, layers, x):
    inputs = hidden(layers, x)
    weight, bias = layers[-1]
    y = inputs[-1] @ weight + bias
    back = y * (2 / y.size)
    found = []
    for i in range(len(layers) - 1, -1, -1):
        found = [(inputs[i].T @ back, back.sum(0)), *found]
        if i:
            back = (back @ layers[i][0].T) * (1 - inputs[i] ** 2)
    return found


@way("input gradient", "backpropagation written out", "formula")
def _(problem, layers, x):
    inputs = hidden(layers, x)
    weight, bias = layers[-1]
    back = 2 * (inputs[-1] @ weight + bias)
    for (weight, _), h in zip(reversed(layers[1:]), reversed(inputs[1:])):
        back = (back @ weight.T) * (1 - h * h)
    return back @ layers[0][0].T


@way("Jacobian of rows", "tangents written out", "formula")
def _(problem, layers, x):
    k, batch = x.shape[1], x.shape[0]
    dx = None
    for weight, bias in layers[:-1]:
        x = np.tanh(x @ weight + bias)
        dx = weight[:, None, :] if dx is None else (dx.reshape(k * batch, -1) @ weight).reshape(k, batch, -1)
        dx = dx * (1 - x * x)
    return (dx.reshape(k * batch, -1) @ layers[-1][0]).reshape(k, batch, -1).transpose(1, 2, 0)


@way("Jacobian of rows", "cotangents written out", "formula")
def _(problem, layers, x):
    inputs = hidden(layers, x)
    n, batch = layers[-1][0].shape[1], x.shape[0]
    back = layers[-1][0].T[:, None, :] * (1 - inputs[-1] ** 2)
    for (weight, _), h in zip(reversed(layers[1:-1]), reversed(inputs[1:-1])):
        back = (back.reshape(n * batch, -1) @ weight.T).reshape(n, batch, -1) * (1 - h * h)
    return np.moveaxis((back.reshape(n * batch, -1) @ layers[0][0].T).reshape(n, batch, -1), 0, 1)


@way("Jacobian of rows", "central differences", "usual")
def _(problem, layers, x):
    """In float64, as they need it; the same number to seven digits."""
    x = x.astype(np.float64)
    step = 1e-5 * np.eye(x.shape[1])
    return np.stack([(u(layers, x + h) - u(layers, x - h)) / 2e-5 for h in step], 2)


@way("Jacobian of a batch", "tangents written out", "formula")
def _(problem, layers, x):
    """Of a network whose rows do not mix: blocks of a diagonal."""
    unit = np.eye(x.size, dtype=x.dtype).reshape(-1, *x.shape)
    dx = unit
    for weight, bias in layers[:-1]:
        x = np.tanh(x @ weight + bias)
        dx = (dx @ weight) * (1 - x * x)
    return np.moveaxis(dx @ layers[-1][0], 0, -1).reshape(*x.shape[:1], -1, *unit.shape[1:])


@way("Laplacian", "forward Laplacian written out", "formula")
def _(problem, layers, x):
    k, batch = x.shape[1], x.shape[0]
    dx, lap = None, 0
    for i, (weight, bias) in enumerate(layers[:-1]):
        x = np.tanh(x @ weight + bias)
        dx = (dx.reshape(k * batch, -1) @ weight).reshape(k, batch, -1) if i else weight[:, None, :]
        lap = lap @ weight if i else 0
        slope = 1 - x * x
        lap = slope * (lap - 2 * x * np.sum(dx * dx, 0))
        dx = dx * slope
    return lap @ layers[-1][0]


@way("Laplacian", "central differences", "usual")
def _(problem, layers, x):
    x = x.astype(np.float64)
    middle, step = 2 * u(layers, x), 1e-4 * np.eye(x.shape[1])
    return sum(u(layers, x + h) + u(layers, x - h) - middle for h in step) / 1e-8


@way("trace by jvp", "tangent written out", "formula")
def _(problem, layers, x):
    dx = problem.signs
    for weight, bias in layers[:-1]:
        x = np.tanh(x @ weight + bias)
        dx = (dx @ weight) * (1 - x * x)
    return np.sum((dx @ layers[-1][0]) * problem.signs, 1)


@way("third derivative at a point", "Taylor series written out", "formula")
def _(problem, layers, x):
    """Of tanh y' = (1 - y^2) z'."""
    x = x[:1, :1]
    a, b, c = np.ones_like(x), None, None
    for weight, bias in layers[:-1]:
        y = np.tanh(x @ weight + bias)
        a = a @ weight
        b, c = (np.zeros_like(a),) * 2 if b is None else (b @ weight, c @ weight)
        s0 = 1 - y * y
        y1 = s0 * a
        s1 = -2 * y * y1
        y2 = s0 * b + s1 * a / 2
        s2 = -2 * y * y2 - y1 * y1
        c = (3 * s0 * c + 2 * s1 * b + s2 * a) / 3
        x, a, b = y, y1, y2
    return 6 * (c @ layers[-1][0])[0, 0]
