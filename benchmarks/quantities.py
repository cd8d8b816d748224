"""The derivatives in the losses, as a user of polyad writes them, once for every backend.

Each is a function of the problem, a net and points. The loss around it is the mean of its squares.
"""

import math
from collections.abc import Callable
from typing import Any

from polyad import (
    StatefulLayer,
    batched_jacobian,
    derivative,
    gradient,
    jacobian,
    jvp,
    laplacian,
    trees,
    use_backend,
    vjp,
    vmap,
    xp,
)

from .problem import Problem, plain

__all__ = ["QUANTITIES", "call"]


def output(problem: Problem, net: Any, x: Any) -> Any:
    """u(x): its loss is an ordinary one, of first order."""
    return net(x)


def slope(problem: Problem, net: Any, x: Any) -> Any:
    """The gradient of sum(u^2) in x."""
    return gradient(lambda x: xp.sum(net(x) ** 2), x)


def rows(problem: Problem, net: Any, x: Any) -> Any:
    """The Jacobian of each row, (batch, outputs, inputs)."""
    return batched_jacobian(net, x)


def coupled(problem: Problem, net: Any, x: Any) -> Any:
    """The Jacobian of all rows in all rows, (batch, outputs, batch, inputs)."""
    return jacobian(net, x)


def loop(problem: Problem, net: Any, x: Any) -> Any:
    """x after steps of x <- x - 0.01 du^2/dx; a scan on JAX."""
    if problem.backend == "jax":
        import jax

        return jax.lax.scan(lambda x, _: (x - 0.01 * slope(problem, net, x), None), x, None, problem.size.steps)[0]
    for _ in range(problem.size.steps):
        x = x - 0.01 * slope(problem, net, x)
    return x


def lap(problem: Problem, net: Any, x: Any) -> Any:
    """The Laplacian of u, (batch, outputs)."""
    return laplacian(net, x)


def parameters(problem: Problem, net: Any, x: Any) -> Any:
    """The Jacobian of u in the parameters, (batch, outputs, *shape) of each; of single points."""
    if problem.size.outputs == 1:
        slopes = vmap(gradient(lambda params, x: net(x, params)[0]), in_axes=(None, 0))(net.params, x)
        return [leaf[:, None] for leaf in trees.leaves(slopes)]
    return trees.leaves(vmap(jacobian(lambda params, x: net(x, params)), in_axes=(None, 0))(net.params, x))


def undivided(problem: Problem, net: Any, x: Any) -> Any:
    """The same of all points together, of which nobody says that they are independent."""
    return trees.leaves(jacobian(lambda params: net(x, params), net.params))


def trace_by_vjp(problem: Problem, net: Any, x: Any) -> Any:
    """v^T J v of each row, v random signs."""
    _, pull = vjp(net, x)
    (pulled,) = pull(problem.signs)
    return xp.sum(pulled * problem.signs, axis=1)


def trace_by_jvp(problem: Problem, net: Any, x: Any) -> Any:
    """The same by a forward pass."""
    _, pushed = jvp(net, (x,), (problem.signs,))
    return xp.sum(pushed * problem.signs, axis=1)


def third(problem: Problem, net: Any, x: Any) -> Any:
    """u_xxx of a field on a line, rows independent."""
    if problem.backend == "autograd":  # has no vmap: it would be a loop over the points
        first = gradient(lambda x: xp.sum(net(x)))
        second = gradient(lambda x: xp.sum(first(x)))
        return gradient(lambda x: xp.sum(second(x)), x)
    return vmap(lambda t: derivative(lambda t: net(xp.reshape(t, (1,)))[0], t, order=3))(x[:, 0])[:, None]


def at_a_point(problem: Problem, net: Any, x: Any) -> Any:
    """The third derivative of u in one number."""
    return derivative(lambda t: net(xp.reshape(t, (1, 1)))[0, 0], x[0, 0], order=3)


QUANTITIES: dict[str, Callable[[Problem, Any, Any], Any]] = {
    "output": output,
    "input gradient": slope,
    "Jacobian of rows": rows,
    "Jacobian of a batch": coupled,
    "loop": loop,
    "Laplacian": lap,
    "Jacobian in parameters": parameters,
    "Jacobian in parameters, undivided": undivided,
    "trace by vjp": trace_by_vjp,
    "trace by jvp": trace_by_jvp,
    "third order": third,
    "third derivative at a point": at_a_point,
}


def call(problem: Problem, name: str) -> Callable[[Any, Any], Any]:
    """(params, x) -> the gradient of the loss in params, as `plain` has it; the quantity itself if not nested."""
    quantity = QUANTITIES[name]

    def net(params: Any) -> StatefulLayer:
        return StatefulLayer(problem.model, params, problem.state)

    def itself(params: Any, x: Any) -> Any:
        with use_backend(problem.backend):  # ndarrays are autograd's only where somebody says so
            return quantity(problem, net(params), x)

    if not problem.nested:
        return itself

    def loss(params: Any, x: Any) -> Any:
        return mean_of_squares(quantity(problem, net(params), x))

    return lambda params, x: plain(gradient(loss, params, x, backend=problem.backend))


def mean_of_squares(found: Any) -> Any:
    if not isinstance(found, list):
        return xp.mean(found**2)
    return sum(xp.sum(part**2) for part in found) / sum(math.prod(part.shape) for part in found)
