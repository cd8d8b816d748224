"""By JAX alone, and by folx."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import checkpoint, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

from .. import quantities
from ..memory import growth
from ..problem import Problem, plain
from .way import Absent, Way, Ways, small

__all__ = ["Framework"]

way = Ways()
few = small(10)


class Framework:
    """Candidates of one problem, each a function without arguments that waits for its result."""

    def __init__(self, problem: Problem, compiled: bool) -> None:
        self.problem, self.compiled = problem, compiled
        self.layers, self.x = plain(problem.params), problem.x
        # Taken apart under jit, where that costs nothing: the dictionaries of polyad's layers take jit 2 us more
        # than lists at each call, which is none of a derivative's.
        self.given = problem.params if compiled else self.layers
        _ = problem.signs  # made here, not in the first trace that asks for it

    def forward(self) -> Callable[[], Any]:
        return self._call(self._of_layers(u), self.given)

    def polyad(self, quantity: str) -> Callable[[], Any]:
        return self._call(quantities.call(self.problem, quantity), self.problem.params)

    def ways(self, quantity: str) -> dict[str, tuple[Way, Callable[[], Callable[[], Any]]]]:
        return {
            w.name: (w, functools.partial(self._call, self._of_layers(step), self.given))
            for w, step in self.steps(quantity).items()
        }

    def _of_layers(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """f(layers, x) as a function of what all candidates are given."""
        return (lambda params, x: f(plain(params), x)) if self.compiled else f

    def steps(self, quantity: str) -> dict[Way, Callable[[Any, Any], Any]]:
        """The ways as functions of (layers, x)."""
        return {w: self._step(w) for w in way.of(quantity, self.problem)}

    def _step(self, way: Way) -> Callable[[Any, Any], Any]:
        problem = self.problem

        def quantity(layers: Any, x: Any) -> Any:
            return way.run(problem, layers, x)

        if way.whole or not problem.nested:
            return quantity
        return grad(lambda layers, x: mean_of_squares(quantity(layers, x)))

    def _call(self, f: Callable[..., Any], params: Any) -> Callable[[], Any]:
        x = self.x
        run = jax.jit(f) if self.compiled else f

        def call() -> Any:
            return jax.block_until_ready(run(params, x))

        call.run, call.arguments = run, (params, x)
        return call

    def peak(self, call: Callable[[], Any]) -> int | None:
        """Bytes that XLA allots, results included; how far the process grows where nothing is compiled, or None.

        A process grows by pages, and by what Python makes: less than a mebibyte says nothing of arrays.
        """
        if not self.compiled:
            grown = growth(call)
            return grown if grown >= 2**20 else None
        analysis = call.run.lower(*call.arguments).compile().memory_analysis()
        return analysis.temp_size_in_bytes + analysis.output_size_in_bytes


def mean_of_squares(found: Any) -> Any:
    parts = jax.tree.leaves(found)
    return sum(jnp.sum(part**2) for part in parts) / sum(part.size for part in parts)


# The network.


def u(layers: Any, x: Any) -> Any:
    """Of one point or a batch; a layer whose weight is a vector is a BatchNorm."""
    for weight, bias in layers[:-1]:
        x = batch_norm(x, weight, bias) if weight.ndim == 1 else jnp.tanh(x @ weight + bias)
    weight, bias = layers[-1]
    return x @ weight + bias


def batch_norm(x: Any, scale: Any, bias: Any) -> Any:
    mean, var = jnp.mean(x, 0), jnp.var(x, 0)
    return (x - mean) * (jax.lax.rsqrt(var + 1e-5) * scale) + bias


def units(x: Any) -> Any:
    """Unit vectors of one point's entries, each for all rows: (inputs, batch, inputs)."""
    return jnp.broadcast_to(jnp.eye(x.shape[1], dtype=x.dtype)[:, None, :], (x.shape[1], *x.shape))


def rows_of(y: Any) -> Any:
    return jnp.broadcast_to(jnp.eye(y.shape[1], dtype=y.dtype)[:, None, :], (y.shape[1], *y.shape))


def tangents(layers: Any, x: Any) -> Any:
    """(u, its Jacobian as (inputs, batch, outputs)) by the chain rule written out."""
    k, batch = x.shape[1], x.shape[0]
    dx = None
    for weight, bias in layers[:-1]:
        x = jnp.tanh(x @ weight + bias)
        slope = 1 - x * x
        dx = (
            weight[:, None, :] * slope
            if dx is None
            else (dx.reshape(k * batch, -1) @ weight).reshape(k, batch, -1) * slope
        )
    weight, bias = layers[-1]
    return x @ weight + bias, (dx.reshape(k * batch, -1) @ weight).reshape(k, batch, -1)


# First order.


@way("output", "grad", where=lambda problem: problem.nested)
@way("output", "network written out", where=lambda problem: not problem.nested)
def _(problem, layers, x):
    return u(layers, x)


@way("output", "vjp", whole=True)
def _(problem, layers, x):
    y, pull = vjp(lambda layers: u(layers, x), layers)
    return pull(y * (2 / y.size))[0]


# The gradient in x in the loss.


@way("input gradient", "grad of grad")
def _(problem, layers, x):
    return grad(lambda x: jnp.sum(u(layers, x) ** 2))(x)


@way("input gradient", "grad of checkpointed grad")
def _(problem, layers, x):
    return checkpoint(lambda layers, x: grad(lambda x: jnp.sum(u(layers, x) ** 2))(x))(layers, x)


@way("input gradient", "vmap(grad)", "usual")
def _(problem, layers, x):
    return vmap(grad(lambda x: jnp.sum(u(layers, x) ** 2)))(x)


@way("input gradient", "forward over reverse", whole=True)
def _(problem, layers, x):
    found, push = linearize(lambda x: grad(lambda layers, x: jnp.sum(u(layers, x) ** 2), (0, 1))(layers, x), x)
    return push(found[1] * (2 / x.size))[0]


@way("input gradient", "reverse over forward", whole=True)
def _(problem, layers, x):
    direction = grad(lambda x: jnp.sum(u(layers, x) ** 2))(x) * (2 / x.size)
    return grad(lambda layers: jvp(lambda x: jnp.sum(u(layers, x) ** 2), (x,), (direction,))[1])(layers)


# Jacobians, rows of the batch independent.


@way("Jacobian of rows", "loop over rows", where=lambda problem: problem.size.outputs <= 16)
def _(problem, layers, x):
    y, pull = vjp(lambda x: u(layers, x), x)
    return jnp.stack([pull(unit)[0] for unit in rows_of(y)], 1)


@way("Jacobian of rows", "vjp under vmap")
def _(problem, layers, x):
    y, pull = vjp(lambda x: u(layers, x), x)
    return jnp.moveaxis(vmap(pull)(rows_of(y))[0], 0, 1)


@way("Jacobian of rows", "vjp under vmap, checkpointed")
def _(problem, layers, x):
    def found(layers, x):
        y, pull = vjp(lambda x: u(layers, x), x)
        return vmap(pull)(rows_of(y))[0]

    return jnp.moveaxis(checkpoint(found)(layers, x), 0, 1)


@way("Jacobian of rows", "jvp under vmap")
def _(problem, layers, x):
    return jnp.transpose(vmap(lambda v: jvp(lambda x: u(layers, x), (x,), (v,))[1])(units(x)), (1, 2, 0))


@way("Jacobian of rows", "jvp under vmap, checkpointed")
def _(problem, layers, x):
    def found(layers, x):
        return vmap(lambda v: jvp(lambda x: u(layers, x), (x,), (v,))[1])(units(x))

    return jnp.transpose(checkpoint(found)(layers, x), (1, 2, 0))


@way("Jacobian of rows", "linearize under vmap")
def _(problem, layers, x):
    return jnp.transpose(vmap(linearize(lambda x: u(layers, x), x)[1])(units(x)), (1, 2, 0))


@way("Jacobian of rows", "one jvp of a larger batch")
def _(problem, layers, x):
    k, batch = x.shape[1], x.shape[0]
    points = jnp.broadcast_to(x, (k, *x.shape)).reshape(k * batch, -1)
    pushed = jvp(lambda x: u(layers, x), (points,), (units(x).reshape(k * batch, -1),))[1]
    return jnp.transpose(pushed.reshape(k, batch, -1), (1, 2, 0))


@way("Jacobian of rows", "tangents written out", "formula")
def _(problem, layers, x):
    return jnp.transpose(tangents(layers, x)[1], (1, 2, 0))


@way("Jacobian of rows", "tangents written out, checkpointed", "formula")
def _(problem, layers, x):
    return jnp.transpose(checkpoint(tangents)(layers, x)[1], (1, 2, 0))


@way("Jacobian of rows", "cotangents written out", "formula")
def _(problem, layers, x):
    hidden = []
    for weight, bias in layers[:-1]:
        x = jnp.tanh(x @ weight + bias)
        hidden.append(x)
    n, batch = layers[-1][0].shape[1], x.shape[0]
    cotangent = layers[-1][0].T[:, None, :] * (1 - hidden[-1] ** 2)
    for (weight, _), h in zip(reversed(layers[1:-1]), reversed(hidden[:-1])):
        cotangent = (cotangent.reshape(n * batch, -1) @ weight.T).reshape(n, batch, -1) * (1 - h * h)
    return jnp.moveaxis((cotangent.reshape(n * batch, -1) @ layers[0][0].T).reshape(n, batch, -1), 0, 1)


@way("Jacobian of rows", "vmap(jacrev)", "usual")
def _(problem, layers, x):
    return vmap(jacrev(lambda x: u(layers, x)))(x)


@way("Jacobian of rows", "vmap(jacfwd)", "usual")
def _(problem, layers, x):
    return vmap(jacfwd(lambda x: u(layers, x)))(x)


# Jacobians of a batch whose rows are coupled.


@way("Jacobian of a batch", "jacrev", "usual")
def _(problem, layers, x):
    return jacrev(lambda x: u(layers, x))(x)


@way("Jacobian of a batch", "jacfwd", "usual")
def _(problem, layers, x):
    return jacfwd(lambda x: u(layers, x))(x)


@way("Jacobian of a batch", "checkpointed jacrev")
def _(problem, layers, x):
    return checkpoint(lambda layers, x: jacrev(lambda x: u(layers, x))(x))(layers, x)


@way("Jacobian of a batch", "checkpointed jacfwd")
def _(problem, layers, x):
    return checkpoint(lambda layers, x: jacfwd(lambda x: u(layers, x))(x))(layers, x)


@way("Jacobian of a batch", "linearize under vmap")
def _(problem, layers, x):
    push = linearize(lambda x: u(layers, x), x)[1]
    unit = jnp.eye(x.size, dtype=x.dtype).reshape(-1, *x.shape)
    return jnp.moveaxis(vmap(push)(unit), 0, -1).reshape(x.shape[0], -1, *x.shape)


# A loop with a gradient in each step.


def _slope(layers: Any, x: Any) -> Any:
    return grad(lambda x: jnp.sum(u(layers, x) ** 2))(x)


def _scan(problem: Problem, step: Callable[[Any, Any], Any], layers: Any, x: Any) -> Any:
    return jax.lax.scan(lambda x, _: (step(layers, x), None), x, None, problem.size.steps)[0]


@way("loop", "scan", "usual")
def _(problem, layers, x):
    return _scan(problem, lambda layers, x: x - 0.01 * _slope(layers, x), layers, x)


@way("loop", "scan of a checkpointed step")
def _(problem, layers, x):
    return _scan(problem, checkpoint(lambda layers, x: x - 0.01 * _slope(layers, x)), layers, x)


@way("loop", "scan of a checkpointed gradient")
def _(problem, layers, x):
    return _scan(problem, lambda layers, x: x - 0.01 * checkpoint(_slope)(layers, x), layers, x)


@way("loop", "Python's loop, checkpointed")
def _(problem, layers, x):
    for _ in range(problem.size.steps):
        x = x - 0.01 * checkpoint(_slope)(layers, x)
    return x


# Laplacians of a field with one output.


@way("Laplacian", "hessian and trace", "usual", where=few)
def _(problem, layers, x):
    return vmap(lambda x: jnp.trace(hessian(lambda x: u(layers, x)[0])(x)))(x)


@way("Laplacian", "forward over reverse of the batch")
def _(problem, layers, x):
    slope = grad(lambda x: jnp.sum(u(layers, x)))
    return jnp.sum(vmap(lambda v: jnp.sum(jvp(slope, (x,), (v,))[1] * v, 1))(units(x)), 0)


@way("Laplacian", "forward over reverse, linearized", where=few)
def _(problem, layers, x):
    push = linearize(grad(lambda x: jnp.sum(u(layers, x))), x)[1]
    return jnp.sum(vmap(lambda v: jnp.sum(push(v) * v, 1))(units(x)), 0)


@way("Laplacian", "forward over reverse of a point", where=few)
def _(problem, layers, x):
    slope = grad(lambda x: u(layers, x)[0])

    def at(x):
        return sum(jvp(slope, (x,), (v,))[1] @ v for v in jnp.eye(x.size, dtype=x.dtype))

    return vmap(at)(x)


@way("Laplacian", "forward over forward", where=few)
def _(problem, layers, x):
    def twice(v):
        return jvp(lambda x: jvp(lambda x: u(layers, x)[:, 0], (x,), (v,))[1], (x,), (v,))[1]

    return jnp.sum(vmap(twice)(units(x)), 0)


@way("Laplacian", "jax.experimental.jet", where=few)
def _(problem, layers, x):
    from jax.experimental.jet import jet

    def second(v):
        return jet(lambda x: u(layers, x)[:, 0], (x,), ((v, jnp.zeros_like(v)),))[1][1]

    return jnp.sum(vmap(second)(units(x)), 0)


def _forward_laplacian(layers: Any, x: Any) -> Any:
    k, batch = x.shape[1], x.shape[0]
    dx, lap = None, None
    for weight, bias in layers[:-1]:
        x = jnp.tanh(x @ weight + bias)
        if dx is None:
            dx = jnp.broadcast_to(weight[:, None, :], (k, batch, weight.shape[1]))
        else:
            dx = (dx.reshape(k * batch, -1) @ weight).reshape(k, batch, -1)
        lap = 0 if lap is None else lap @ weight
        slope = 1 - x * x
        lap = slope * (lap - 2 * x * jnp.sum(dx * dx, 0))
        dx = dx * slope
    return (lap @ layers[-1][0])[:, 0]


@way("Laplacian", "forward Laplacian written out", "formula")
def _(problem, layers, x):
    return _forward_laplacian(layers, x)


@way("Laplacian", "forward Laplacian written out, checkpointed", "formula")
def _(problem, layers, x):
    return checkpoint(_forward_laplacian)(layers, x)


@way("Laplacian", "folx", "library")
def _(problem, layers, x):
    field = folx().forward_laplacian(lambda x: u(layers, x)[0], sparsity_threshold=0)
    return vmap(lambda x: field(x).laplacian)(x)


@way("Laplacian", "folx, sparse", "library")
def _(problem, layers, x):
    field = folx().forward_laplacian(lambda x: u(layers, x)[0], sparsity_threshold=6)
    return folx().batched_vmap(lambda x: field(x).laplacian, max_batch_size=x.shape[0])(x)


def folx() -> Any:
    try:
        import folx
    except ImportError:
        raise Absent("folx") from None
    return folx


# The Jacobian in the parameters.


@way("Jacobian in parameters", "jacrev", "usual")
def _(problem, layers, x):
    return jacrev(lambda layers: u(layers, x))(layers)


@way("Jacobian in parameters", "checkpointed jacrev")
def _(problem, layers, x):
    return checkpoint(jacrev(u))(layers, x)


@way("Jacobian in parameters", "vmap(jacrev) of single points")
def _(problem, layers, x):
    return vmap(jacrev(u), (None, 0))(layers, x)


@way("Jacobian in parameters", "vmap(grad) of single points", where=lambda problem: problem.size.outputs == 1)
def _(problem, layers, x):
    found = vmap(grad(lambda layers, x: u(layers, x)[0]), (None, 0))(layers, x)
    return jax.tree.map(lambda part: part[:, None], found)


@way("Jacobian in parameters", "factors written out", "formula")
def _(problem, layers, x):
    """Of a weight it is the outer product of what goes in and what comes back."""
    inputs = [x]
    for weight, bias in layers[:-1]:
        inputs.append(jnp.tanh(inputs[-1] @ weight + bias))
    n = layers[-1][0].shape[1]
    back = jnp.broadcast_to(jnp.eye(n, dtype=x.dtype), (x.shape[0], n, n))
    found = []
    for i in range(len(layers) - 1, -1, -1):
        found = [(inputs[i][:, None, :, None] * back[:, :, None, :], back), *found]
        if i:
            back = (back @ layers[i][0].T) * (1 - inputs[i] ** 2)[:, None, :]
    return found


# The trace of a Jacobian with random signs.


@way.trace("vjp")
def _(problem, layers, x):
    (pulled,) = vjp(lambda x: u(layers, x), x)[1](problem.signs)
    return jnp.sum(pulled * problem.signs, 1)


@way.trace("jvp", forward=True)
def _(problem, layers, x):
    pushed = jvp(lambda x: u(layers, x), (x,), (problem.signs,))[1]
    return jnp.sum(pushed * problem.signs, 1)


@way.trace("checkpointed jvp", forward=True)
def _(problem, layers, x):
    pushed = checkpoint(lambda layers, x: jvp(lambda x: u(layers, x), (x,), (problem.signs,))[1])(layers, x)
    return jnp.sum(pushed * problem.signs, 1)


@way.trace("linearize", forward=True)
def _(problem, layers, x):
    return jnp.sum(linearize(lambda x: u(layers, x), x)[1](problem.signs) * problem.signs, 1)


@way.trace("vmap of a vjp", "usual")
def _(problem, layers, x):
    return vmap(lambda x, v: vjp(lambda x: u(layers, x), x)[1](v)[0] @ v)(x, problem.signs)


@way.trace("tangent written out", "formula", forward=True)
def _(problem, layers, x):
    dx = problem.signs
    for weight, bias in layers[:-1]:
        x = jnp.tanh(x @ weight + bias)
        dx = (dx @ weight) * (1 - x * x)
    return jnp.sum((dx @ layers[-1][0]) * problem.signs, 1)


@way.trace("cotangent written out", "formula")
def _(problem, layers, x):
    hidden = []
    for weight, bias in layers[:-1]:
        x = jnp.tanh(x @ weight + bias)
        hidden.append(x)
    back = problem.signs
    for (weight, _), h in zip(reversed(layers[1:]), reversed(hidden)):
        back = (back @ weight.T) * (1 - h * h)
    return jnp.sum((back @ layers[0][0].T) * problem.signs, 1)


# Third derivatives.


@way("third order", "grad three times of the sum")
def _(problem, layers, x):
    f = lambda x: u(layers, x)  # noqa: E731
    for _ in range(3):
        f = grad(lambda x, f=f: jnp.sum(f(x)))
    return f(x)


@way("third order", "vmap(grad(grad(grad)))", "usual")
def _(problem, layers, x):
    return vmap(grad(grad(grad(lambda t: u(layers, t[None])[0]))))(x[:, 0])[:, None]


@way("third order", "jvp three times")
def _(problem, layers, x):
    def push(f):
        return lambda x: jvp(f, (x,), (jnp.ones_like(x),))[1]

    return push(push(push(lambda x: u(layers, x))))(x)


@way("third order", "jax.experimental.jet")
def _(problem, layers, x):
    from jax.experimental.jet import jet

    zero = jnp.zeros_like(x)
    return jet(lambda x: u(layers, x), (x,), ((jnp.ones_like(x), zero, zero),))[1][2]


@way("third order", "Taylor series written out", "formula")
def _(problem, layers, x):
    return _series(layers, x) * 6


@way("third derivative at a point", "grad three times", "usual")
def _(problem, layers, x):
    return grad(grad(grad(lambda t: u(layers, t.reshape(1, 1))[0, 0])))(x[0, 0])


@way("third derivative at a point", "jvp three times")
def _(problem, layers, x):
    def push(f):
        return lambda t: jvp(f, (t,), (jnp.ones_like(t),))[1]

    return push(push(push(lambda t: u(layers, t.reshape(1, 1))[0, 0])))(x[0, 0])


@way("third derivative at a point", "Taylor series written out", "formula")
def _(problem, layers, x):
    return _series(layers, x[:1, :1])[0, 0] * 6


def _series(layers: Any, x: Any) -> Any:
    """The third Taylor coefficient in x of shape (batch, 1): of tanh y' = (1 - y^2) z'."""
    a, b, c = jnp.ones_like(x), None, None
    for weight, bias in layers[:-1]:
        y = jnp.tanh(x @ weight + bias)
        a = a @ weight
        b, c = (jnp.zeros_like(a),) * 2 if b is None else (b @ weight, c @ weight)
        s0 = 1 - y * y
        y1 = s0 * a
        s1 = -2 * y * y1
        y2 = s0 * b + s1 * a / 2
        s2 = -2 * y * y2 - y1 * y1
        c = (3 * s0 * c + 2 * s1 * b + s2 * a) / 3
        x, a, b = y, y1, y2
    return c @ layers[-1][0]
