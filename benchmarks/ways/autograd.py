"""By HIPS autograd alone."""

import functools
from collections.abc import Callable
from typing import Any

import autograd.numpy as np
from autograd import elementwise_grad, grad, jacobian, make_jvp, make_vjp

from .. import quantities
from ..memory import traced
from ..problem import Problem, plain
from .way import Way, Ways, small

__all__ = ["Framework"]

way = Ways()
few = small(10)


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
        problem, x = self.problem, self.x
        if way.whole or not problem.nested:
            return functools.partial(way.run, problem, self.layers, x)
        leaves = [leaf for layer in self.layers for leaf in layer]

        def loss(*leaves: Any) -> Any:
            return mean_of_squares(way.run(problem, list(zip(leaves[::2], leaves[1::2])), x))

        return functools.partial(grad(loss, tuple(range(len(leaves)))), *leaves)

    def peak(self, call: Callable[[], Any]) -> int:
        return traced(call)


def mean_of_squares(found: Any) -> Any:
    if not isinstance(found, list | tuple):
        return np.mean(found**2)
    return sum(np.sum(part**2) for part in found) / sum(part.size for part in found)


# The network.


def u(layers: Any, x: Any) -> Any:
    """Of one point or a batch; a layer whose weight is a vector is a BatchNorm."""
    for weight, bias in layers[:-1]:
        x = batch_norm(x, weight, bias) if weight.ndim == 1 else np.tanh(np.dot(x, weight) + bias)
    weight, bias = layers[-1]
    return np.dot(x, weight) + bias


def batch_norm(x: Any, scale: Any, bias: Any) -> Any:
    centred = x - np.mean(x, 0)
    var = np.mean(centred**2, 0)
    return centred * (scale / np.sqrt(var + 1e-5)) + bias


def tangents(layers: Any, x: Any) -> Any:
    """(u, its Jacobian as (inputs, batch, outputs)) by the chain rule written out."""
    k, batch = x.shape[1], x.shape[0]
    dx = None
    for weight, bias in layers[:-1]:
        x = np.tanh(np.dot(x, weight) + bias)
        dx = (
            weight[:, None, :]
            if dx is None
            else np.reshape(np.dot(np.reshape(dx, (k * batch, -1)), weight), (k, batch, -1))
        )
        dx = dx * (1 - x * x)
    weight, bias = layers[-1]
    return np.dot(x, weight) + bias, np.reshape(np.dot(np.reshape(dx, (k * batch, -1)), weight), (k, batch, -1))


@way("output", "grad", where=lambda problem: problem.nested)
@way("output", "network written out", where=lambda problem: not problem.nested)
def _(problem, layers, x):
    return u(layers, x)


@way("input gradient", "grad of grad")
def _(problem, layers, x):
    return grad(lambda x: np.sum(u(layers, x) ** 2))(x)


@way("input gradient", "elementwise_grad", "usual")
def _(problem, layers, x):
    return elementwise_grad(lambda x: u(layers, x) ** 2)(x)


@way("input gradient", "make_vjp")
def _(problem, layers, x):
    pull, y = make_vjp(lambda x: u(layers, x))(x)
    return pull(2 * y)


@way("Jacobian of rows", "loop over rows")
def _(problem, layers, x):
    return np.stack([grad(lambda x, i=i: np.sum(u(layers, x)[:, i]))(x) for i in range(problem.size.outputs)], 1)


@way("Jacobian of rows", "loop over rows of one trace")
def _(problem, layers, x):
    pull, _ = make_vjp(lambda x: u(layers, x))(x)
    unit = np.eye(problem.size.outputs, dtype=x.dtype)
    return np.stack([pull(np.ones((len(x), 1), x.dtype) * v) for v in unit], 1)


@way("Jacobian of rows", "loop over columns by make_jvp")
def _(problem, layers, x):
    push = make_jvp(lambda x: u(layers, x))(x)
    unit = np.eye(problem.size.inputs, dtype=x.dtype)
    return np.stack([push(np.ones((len(x), 1), x.dtype) * v)[1] for v in unit], 2)


@way("Jacobian of rows", "jacobian of the sum", "usual")
def _(problem, layers, x):
    return np.moveaxis(jacobian(lambda x: np.sum(u(layers, x), 0))(x), 0, 1)


@way("Jacobian of rows", "tangents written out", "formula")
def _(problem, layers, x):
    return np.transpose(tangents(layers, x)[1], (1, 2, 0))


@way("Jacobian of rows", "cotangents written out", "formula")
def _(problem, layers, x):
    hidden = []
    for weight, bias in layers[:-1]:
        x = np.tanh(np.dot(x, weight) + bias)
        hidden.append(x)
    n, batch = layers[-1][0].shape[1], x.shape[0]
    back = np.transpose(layers[-1][0])[:, None, :] * (1 - hidden[-1] ** 2)
    for (weight, _), h in zip(reversed(layers[1:-1]), reversed(hidden[:-1])):
        back = np.reshape(np.dot(np.reshape(back, (n * batch, -1)), weight.T), (n, batch, -1)) * (1 - h * h)
    return np.moveaxis(np.reshape(np.dot(np.reshape(back, (n * batch, -1)), layers[0][0].T), (n, batch, -1)), 0, 1)


@way("Jacobian of a batch", "jacobian", "usual")
def _(problem, layers, x):
    return jacobian(lambda x: u(layers, x))(x)


@way("Jacobian of a batch", "loop over rows of one trace")
def _(problem, layers, x):
    pull, _ = make_vjp(lambda x: u(layers, x))(x)
    unit = np.reshape(np.eye(x.shape[0] * problem.size.outputs, dtype=x.dtype), (-1, x.shape[0], problem.size.outputs))
    return np.reshape(np.stack([pull(v) for v in unit]), (x.shape[0], -1, *x.shape))


@way("Jacobian of a batch", "loop over columns by make_jvp")
def _(problem, layers, x):
    push = make_jvp(lambda x: u(layers, x))(x)
    unit = np.reshape(np.eye(x.size, dtype=x.dtype), (-1, *x.shape))
    return np.reshape(np.stack([push(v)[1] for v in unit], -1), (x.shape[0], -1, *x.shape))


@way("loop", "grad of grad", "usual")
def _(problem, layers, x):
    slope = grad(lambda x: np.sum(u(layers, x) ** 2))
    for _ in range(problem.size.steps):
        x = x - 0.01 * slope(x)
    return x


@way("Laplacian", "elementwise_grad twice", "usual", where=few)
def _(problem, layers, x):
    slope = elementwise_grad(lambda x: u(layers, x))
    return sum(elementwise_grad(lambda x, i=i: slope(x)[:, i])(x)[:, i] for i in range(problem.size.inputs))


@way("Laplacian", "reverse over reverse of one trace")
def _(problem, layers, x):
    pull, _ = make_vjp(grad(lambda x: np.sum(u(layers, x))))(x)
    unit = np.eye(problem.size.inputs, dtype=x.dtype)
    return sum(pull(np.ones((len(x), 1), x.dtype) * v)[:, i] for i, v in enumerate(unit))


@way("Laplacian", "tangents written out, reverse over them", "formula", where=few)
def _(problem, layers, x):
    pull, _ = make_vjp(lambda x: tangents(layers, x)[1][:, :, 0])(x)
    unit = np.eye(problem.size.inputs, dtype=x.dtype)
    return sum(pull(np.ones((1, len(x)), x.dtype) * v[:, None])[:, i] for i, v in enumerate(unit))


@way("Laplacian", "forward Laplacian written out", "formula")
def _(problem, layers, x):
    k, batch = x.shape[1], x.shape[0]
    dx, lap = None, 0
    for i, (weight, bias) in enumerate(layers[:-1]):
        x = np.tanh(np.dot(x, weight) + bias)
        dx = np.reshape(np.dot(np.reshape(dx, (k * batch, -1)), weight), (k, batch, -1)) if i else weight[:, None, :]
        slope = 1 - x * x
        lap = slope * ((np.dot(lap, weight) if i else 0) - 2 * x * np.sum(dx * dx, 0))
        dx = dx * slope
    return np.dot(lap, layers[-1][0])[:, 0]


@way("Jacobian in parameters", "loop over rows of one trace", "usual")
def _(problem, layers, x):
    n = problem.size.outputs
    leaves = tuple(leaf for layer in layers for leaf in layer)
    pull, _ = make_vjp(lambda leaves: u(list(zip(leaves[::2], leaves[1::2])), x))(leaves)
    rows = [pull(v) for v in np.reshape(np.eye(len(x) * n, dtype=x.dtype), (-1, len(x), n))]
    return [np.reshape(np.stack([row[i] for row in rows]), (len(x), n, *leaf.shape)) for i, leaf in enumerate(leaves)]


@way("Jacobian in parameters", "factors written out", "formula")
def _(problem, layers, x):
    """Of a weight it is the outer product of what goes in and what comes back."""
    inputs = [x]
    for weight, bias in layers[:-1]:
        inputs.append(np.tanh(np.dot(inputs[-1], weight) + bias))
    n = layers[-1][0].shape[1]
    back = np.ones((len(x), 1, 1), x.dtype) * np.eye(n, dtype=x.dtype)
    found = []
    for i in range(len(layers) - 1, -1, -1):
        found = [inputs[i][:, None, :, None] * back[:, :, None, :], back, *found]
        if i:
            back = np.dot(back, layers[i][0].T) * (1 - inputs[i] ** 2)[:, None, :]
    return found


@way.trace("make_vjp")
def _(problem, layers, x):
    return np.sum(make_vjp(lambda x: u(layers, x))(x)[0](problem.signs) * problem.signs, 1)


@way.trace("make_jvp", forward=True)
def _(problem, layers, x):
    return np.sum(make_jvp(lambda x: u(layers, x))(x)(problem.signs)[1] * problem.signs, 1)


@way.trace("grad of a product", "usual")
def _(problem, layers, x):
    return np.sum(grad(lambda x: np.sum(u(layers, x) * problem.signs))(x) * problem.signs, 1)


@way.trace("tangent written out", "formula", forward=True)
def _(problem, layers, x):
    dx = problem.signs
    for weight, bias in layers[:-1]:
        x = np.tanh(np.dot(x, weight) + bias)
        dx = np.dot(dx, weight) * (1 - x * x)
    return np.sum(np.dot(dx, layers[-1][0]) * problem.signs, 1)


@way.trace("cotangent written out", "formula")
def _(problem, layers, x):
    hidden = []
    for weight, bias in layers[:-1]:
        x = np.tanh(np.dot(x, weight) + bias)
        hidden.append(x)
    back = problem.signs
    for (weight, _), h in zip(reversed(layers[1:]), reversed(hidden)):
        back = np.dot(back, weight.T) * (1 - h * h)
    return np.sum(np.dot(back, layers[0][0].T) * problem.signs, 1)


@way("third order", "elementwise_grad three times", "usual")
def _(problem, layers, x):
    return elementwise_grad(elementwise_grad(elementwise_grad(lambda x: u(layers, x))))(x)


@way("third order", "Taylor series written out", "formula")
def _(problem, layers, x):
    return _series(layers, x) * 6


@way("third derivative at a point", "grad three times", "usual")
def _(problem, layers, x):
    return grad(grad(grad(lambda t: u(layers, np.reshape(t, (1, 1)))[0, 0])))(x[0, 0])


@way("third derivative at a point", "Taylor series written out", "formula")
def _(problem, layers, x):
    return _series(layers, x[:1, :1])[0, 0] * 6


def _series(layers: Any, x: Any) -> Any:
    """The third Taylor coefficient in x of shape (batch, 1): of tanh y' = (1 - y^2) z'."""
    a, b, c = np.ones_like(x), None, None
    for weight, bias in layers[:-1]:
        y = np.tanh(np.dot(x, weight) + bias)
        a = np.dot(a, weight)
        b, c = (0 * a, 0 * a) if b is None else (np.dot(b, weight), np.dot(c, weight))
        s0 = 1 - y * y
        y1 = s0 * a
        s1 = -2 * y * y1
        y2 = s0 * b + s1 * a / 2
        s2 = -2 * y * y2 - y1 * y1
        c = (3 * s0 * c + 2 * s1 * b + s2 * a) / 3
        x, a, b = y, y1, y2
    return np.dot(c, layers[-1][0])
