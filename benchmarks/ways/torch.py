"""By PyTorch alone."""

import functools
import gc
from collections.abc import Callable
from typing import Any

import torch
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

import polyad

from .. import quantities
from ..problem import Problem, plain
from .way import Absent, Way, Ways, small

__all__ = ["Framework"]

way = Ways()
differentiate = torch.autograd.grad
few = small(10)


class Framework:
    """Candidates of one problem, each a function without arguments."""

    def __init__(self, problem: Problem, compiled: bool) -> None:
        torch.set_num_threads(1)
        self.problem, self.compiled = problem, compiled
        self.layers = [
            tuple(leaf.clone().requires_grad_(problem.nested) for leaf in layer) for layer in plain(problem.params)
        ]
        self.leaves = [leaf for layer in self.layers for leaf in layer]
        self.x = problem.x
        _ = problem.signs  # made here, not in the first trace that asks for it

    def forward(self) -> Callable[[], Any]:
        layers, x = [tuple(leaf.detach() for leaf in layer) for layer in self.layers], self.x
        return lambda: u(layers, x)

    def polyad(self, quantity: str) -> Callable[[], Any]:
        run = quantities.call(self.problem, quantity)
        params, x = self.problem.params, self.x
        if self.compiled:
            if not hasattr(polyad, "compile"):
                raise Absent("polyad.compile")
            run = polyad.compile(run)
        return lambda: run(params, x)

    def ways(self, quantity: str) -> dict[str, tuple[Way, Callable[[], Callable[[], Any]]]]:
        found = [w for w in way.of(quantity, self.problem) if w.compiled or not self.compiled]
        return {w.name: (w, functools.partial(self._call, w)) for w in found}

    def _call(self, way: Way) -> Callable[[], Any]:
        problem, x = self.problem, self.x

        def step(layers: Any, leaves: Any, x: Any) -> Any:
            if way.whole:
                return way.run(problem, layers, x)
            found = way.run(problem, layers, x)
            if not problem.nested:
                return found
            return differentiate(mean_of_squares(found), leaves, allow_unused=True, materialize_grads=True)

        if not self.compiled:
            return lambda: step(self.layers, self.leaves, x)

        def traced(x: Any, *leaves: Any) -> Any:
            leaves = [leaf.detach().requires_grad_(problem.nested) for leaf in leaves]
            return tuple(polyad.trees.leaves(step(list(zip(leaves[::2], leaves[1::2])), leaves, x)))

        leaves = [leaf.detach() for leaf in self.leaves]
        graph = make_fx(traced)(x, *leaves)
        run = torch._inductor.compile(graph, [x, *leaves])
        return lambda: run(x, *leaves)

    def peak(self, call: Callable[[], Any]) -> int:
        """Bytes of all tensors at the highest point of a call, as torch's allocator reports them."""
        gc.collect()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            call()
        events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
        highest = now = 0
        for event in sorted(events, key=lambda event: event.start_ns()):
            now += event.nbytes()
            highest = max(highest, now)
        return highest


def mean_of_squares(found: Any) -> Any:
    if not isinstance(found, list | tuple):
        return (found**2).mean()
    return sum((part**2).sum() for part in found) / sum(part.numel() for part in found)


# The network.


def u(layers: Any, x: Any, norm: Any = None) -> Any:
    """Of a batch; a layer whose weight is a vector is a BatchNorm."""
    for weight, bias in layers[:-1]:
        x = (norm or batch_norm)(x, weight, bias) if weight.ndim == 1 else torch.tanh(torch.addmm(bias, x, weight))
    weight, bias = layers[-1]
    return torch.addmm(bias, x, weight)


def batch_norm(x: Any, scale: Any, bias: Any) -> Any:
    var, mean = torch.var_mean(x, 0, correction=0)
    return (x - mean) * (torch.rsqrt(var + 1e-5) * scale) + bias


def fused_norm(x: Any, scale: Any, bias: Any) -> Any:
    return torch.nn.functional.batch_norm(x, None, None, scale, bias, training=True)


def one(layers: Any, x: Any) -> Any:
    """Of a single point."""
    for weight, bias in layers[:-1]:
        x = torch.tanh(x @ weight + bias)
    weight, bias = layers[-1]
    return x @ weight + bias


def asked(x: Any) -> Any:
    """The points as a leaf of their own."""
    return x.detach().requires_grad_()


def units(x: Any) -> Any:
    """Unit vectors of one point's entries, each for all rows: (inputs, batch, inputs)."""
    return torch.eye(x.shape[1], dtype=x.dtype)[:, None, :].expand(-1, *x.shape)


def tangents(layers: Any, x: Any) -> Any:
    """(u, its Jacobian as (inputs, batch, outputs)) by the chain rule written out."""
    k, batch = x.shape[1], x.shape[0]
    dx = None
    for weight, bias in layers[:-1]:
        x = torch.tanh(torch.addmm(bias, x, weight))
        slope = 1 - x * x
        dx = (
            weight[:, None, :] * slope
            if dx is None
            else (dx.reshape(k * batch, -1) @ weight).reshape(k, batch, -1) * slope
        )
    weight, bias = layers[-1]
    return torch.addmm(bias, x, weight), (dx.reshape(k * batch, -1) @ weight).reshape(k, batch, -1)


# First order.


@way("output", "autograd.grad", where=lambda problem: problem.nested, compiled=True)
@way("output", "network written out", where=lambda problem: not problem.nested)
def _(problem, layers, x):
    return u(layers, x)


@way("output", "backward()", whole=True)
def _(problem, layers, x):
    leaves = [leaf for layer in layers for leaf in layer]
    for leaf in leaves:
        leaf.grad = None
    mean_of_squares(u(layers, x)).backward()
    return [leaf.grad for leaf in leaves]


@way("output", "torch.func.grad", whole=True)
def _(problem, layers, x):
    return grad(lambda layers: mean_of_squares(u(layers, x)))(layers)


# The gradient in x in the loss.


@way("input gradient", "autograd.grad twice", compiled=True)
def _(problem, layers, x):
    x = asked(x)
    return differentiate((u(layers, x) ** 2).sum(), x, create_graph=problem.nested)[0]


@way("input gradient", "torch.func.grad of the sum")
def _(problem, layers, x):
    return grad(lambda x: (u(layers, x) ** 2).sum())(x)


@way("input gradient", "vmap(grad)", "usual")
def _(problem, layers, x):
    return vmap(grad(lambda x: (one(layers, x) ** 2).sum()))(x)


@way("input gradient", "autograd.functional.jacobian", "usual")
def _(problem, layers, x):
    return torch.autograd.functional.jacobian(lambda x: (u(layers, x) ** 2).sum(), x, create_graph=problem.nested)


@way("input gradient", "forward over reverse", whole=True, compiled=True)
def _(problem, layers, x):
    found = grad(lambda x: (u(layers, x) ** 2).sum())(x).detach()
    direction = found * (2 / found.numel())
    return jvp(lambda x: grad(lambda layers: (u(layers, x) ** 2).sum())(layers), (x,), (direction,))[1]


@way("input gradient", "reverse over forward", whole=True)
def _(problem, layers, x):
    leaf = asked(x)
    (found,) = differentiate((u(layers, leaf) ** 2).sum(), leaf)
    direction = found * (2 / found.numel())
    pushed = jvp(lambda x: (u(layers, x) ** 2).sum(), (x,), (direction,))[1]
    return differentiate(
        pushed, [leaf for layer in layers for leaf in layer], materialize_grads=True, allow_unused=True
    )


@way("input gradient", "dde.grad.jacobian", "library", where=lambda problem: problem.size.inputs <= 10)
def _(problem, layers, x):
    dde = deepxde()
    x = asked(x)
    y = (u(layers, x) ** 2).sum(1, keepdim=True)
    return torch.cat([dde.grad.jacobian(y, x, i=0, j=j) for j in range(x.shape[1])], 1)


# Jacobians, rows of the batch independent.


@way("Jacobian of rows", "loop over rows", compiled=True)
def _(problem, layers, x):
    x = asked(x)
    y = u(layers, x)
    rows = [
        differentiate(y[:, i].sum(), x, create_graph=problem.nested, retain_graph=True)[0] for i in range(y.shape[1])
    ]
    return torch.stack(rows, 1)


@way("Jacobian of rows", "loop over rows, units")
def _(problem, layers, x):
    x = asked(x)
    y = u(layers, x)
    units = torch.eye(y.shape[1], dtype=y.dtype)[:, None, :].expand(-1, *y.shape)
    rows = [differentiate(y, x, v, create_graph=problem.nested, retain_graph=True)[0] for v in units]
    return torch.stack(rows, 1)


@way("Jacobian of rows", "is_grads_batched")
def _(problem, layers, x):
    x = asked(x)
    y = u(layers, x)
    units = torch.eye(y.shape[1], dtype=y.dtype)[:, None, :].expand(-1, *y.shape)
    return differentiate(y, x, units, create_graph=problem.nested, is_grads_batched=True)[0].movedim(0, 1)


@way("Jacobian of rows", "torch.func.vjp under vmap")
def _(problem, layers, x):
    y, pull = vjp(lambda x: u(layers, x), x)
    units = torch.eye(y.shape[1], dtype=y.dtype)[:, None, :].expand(-1, *y.shape)
    return vmap(pull)(units)[0].movedim(0, 1)


@way("Jacobian of rows", "torch.func.jvp under vmap")
def _(problem, layers, x):
    return vmap(lambda v: jvp(lambda x: u(layers, x), (x,), (v,))[1])(units(x)).movedim(0, 2)


@way("Jacobian of rows", "one torch.func.jvp of a larger batch", compiled=True)
def _(problem, layers, x):
    k, batch = x.shape[1], x.shape[0]
    points = x.expand(k, *x.shape).reshape(k * batch, -1)
    pushed = jvp(lambda x: u(layers, x), (points,), (units(x).reshape(k * batch, -1),))[1]
    return pushed.reshape(k, batch, -1).permute(1, 2, 0)


@way("Jacobian of rows", "one pullback of a larger batch")
def _(problem, layers, x):
    n, batch = problem.size.outputs, x.shape[0]
    points = asked(x.expand(n, *x.shape).reshape(n * batch, -1))
    y = u(layers, points).reshape(n, batch, n)
    total = torch.diagonal(y, dim1=0, dim2=2).sum()
    return differentiate(total, points, create_graph=problem.nested)[0].reshape(n, batch, -1).movedim(0, 1)


@way("Jacobian of rows", "tangents written out", "formula", compiled=True)
def _(problem, layers, x):
    return tangents(layers, x)[1].permute(1, 2, 0)


@way("Jacobian of rows", "cotangents written out", "formula", compiled=True)
def _(problem, layers, x):
    hidden = []
    for weight, bias in layers[:-1]:
        x = torch.tanh(torch.addmm(bias, x, weight))
        hidden.append(x)
    n, batch = layers[-1][0].shape[1], x.shape[0]
    cotangent = layers[-1][0].T[:, None, :] * (1 - hidden[-1] ** 2)
    for (weight, _), h in zip(reversed(layers[1:-1]), reversed(hidden[:-1])):
        cotangent = (cotangent.reshape(n * batch, -1) @ weight.T).reshape(n, batch, -1) * (1 - h * h)
    return (cotangent.reshape(n * batch, -1) @ layers[0][0].T).reshape(n, batch, -1).movedim(0, 1)


@way("Jacobian of rows", "vmap(jacrev)", "usual")
def _(problem, layers, x):
    return vmap(jacrev(lambda x: one(layers, x)))(x)


@way("Jacobian of rows", "vmap(jacfwd)", "usual")
def _(problem, layers, x):
    return vmap(jacfwd(lambda x: one(layers, x)))(x)


@way("Jacobian of rows", "autograd.functional.jacobian of the sum", "usual")
def _(problem, layers, x):
    found = torch.autograd.functional.jacobian(lambda x: u(layers, x).sum(0), x, create_graph=problem.nested)
    return found.movedim(0, 1)


@way("Jacobian of rows", "dde.grad.jacobian", "library")
def _(problem, layers, x):
    dde = deepxde()
    x = asked(x)
    y = u(layers, x)
    return torch.stack([dde.grad.jacobian(y, x, i=i) for i in range(y.shape[1])], 1)


# Jacobians of a batch whose rows are coupled.


def _coupled(name, norm):
    fused = " with the fused norm" if norm is fused_norm else ""

    @way("Jacobian of a batch", f"{name}{fused}")
    def _(problem, layers, x):
        x = asked(x)
        y = u(layers, x, norm)
        if name == "loop over rows":
            rows = [
                differentiate(entry, x, create_graph=problem.nested, retain_graph=True)[0] for entry in y.reshape(-1)
            ]
            found = torch.stack(rows)
        else:
            unit = torch.eye(y.numel(), dtype=y.dtype).reshape(-1, *y.shape)
            found = differentiate(y, x, unit, create_graph=problem.nested, is_grads_batched=True)[0]
        return found.reshape(*y.shape, *x.shape)


for _name in ("loop over rows", "is_grads_batched"):
    for _norm in (batch_norm, fused_norm):
        _coupled(_name, _norm)


@way("Jacobian of a batch", "torch.func.jvp under vmap")
def _(problem, layers, x):
    unit = torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape)
    return (
        vmap(lambda v: jvp(lambda x: u(layers, x), (x,), (v,))[1])(unit)
        .movedim(0, -1)
        .reshape(*x.shape[:1], -1, *x.shape)
    )


@way("Jacobian of a batch", "jacrev", "usual", compiled=True)
def _(problem, layers, x):
    return jacrev(lambda x: u(layers, x))(x)


@way("Jacobian of a batch", "jacfwd", "usual", compiled=True)
def _(problem, layers, x):
    return jacfwd(lambda x: u(layers, x))(x)


@way("Jacobian of a batch", "autograd.functional.jacobian", "usual")
def _(problem, layers, x):
    return torch.autograd.functional.jacobian(lambda x: u(layers, x), x, create_graph=problem.nested)


@way("Jacobian of a batch", "autograd.functional.jacobian, vectorized", "usual")
def _(problem, layers, x):
    return torch.autograd.functional.jacobian(lambda x: u(layers, x), x, create_graph=problem.nested, vectorize=True)


# A loop with a gradient in each step.


@way("loop", "autograd.grad twice", compiled=True)
def _(problem, layers, x):
    x = asked(x)
    for _ in range(problem.size.steps):
        x = x - 0.01 * differentiate((u(layers, x) ** 2).sum(), x, create_graph=True)[0]
    return x


@way("loop", "torch.func.grad", "usual")
def _(problem, layers, x):
    slope = grad(lambda x: (u(layers, x) ** 2).sum())
    for _ in range(problem.size.steps):
        x = x - 0.01 * slope(x)
    return x


@way("loop", "checkpoint of each step")
def _(problem, layers, x):
    def step(x):
        with torch.enable_grad():
            slope = differentiate((u(layers, x) ** 2).sum(), x, create_graph=True)[0]
        return x - 0.01 * slope

    x = asked(x)
    for _ in range(problem.size.steps):
        x = checkpoint(step, x, use_reentrant=False)
    return x


@way("loop", "autograd.functional.jacobian", "usual")
def _(problem, layers, x):
    for _ in range(problem.size.steps):
        x = x - 0.01 * torch.autograd.functional.jacobian(lambda x: (u(layers, x) ** 2).sum(), x, create_graph=True)
    return x


# Laplacians of a field with one output.


@way("Laplacian", "reverse over reverse")
def _(problem, layers, x):
    x = asked(x)
    (first,) = differentiate(u(layers, x).sum(), x, create_graph=True)
    return sum(
        differentiate(first[:, i].sum(), x, create_graph=problem.nested, retain_graph=True)[0][:, i]
        for i in range(x.shape[1])
    )


@way("Laplacian", "reverse over reverse, is_grads_batched", where=few)
def _(problem, layers, x):
    x = asked(x)
    (first,) = differentiate(u(layers, x).sum(), x, create_graph=True)
    (second,) = differentiate(first, x, units(x), create_graph=problem.nested, is_grads_batched=True)
    return torch.einsum("ibi->b", second)


@way("Laplacian", "forward over reverse", where=few)
def _(problem, layers, x):
    slope = grad(lambda x: u(layers, x).sum())
    second = vmap(lambda v: (jvp(slope, (x,), (v,))[1] * v).sum(1))(units(x))
    return second.sum(0)


@way("Laplacian", "forward over forward", where=few)
def _(problem, layers, x):
    def twice(v):
        return jvp(lambda x: jvp(lambda x: u(layers, x)[:, 0], (x,), (v,))[1], (x,), (v,))[1]

    return vmap(twice)(units(x)).sum(0)


@way("Laplacian", "tangents written out, reverse over them", "formula", where=few)
def _(problem, layers, x):
    x = asked(x)
    first = tangents(layers, x)[1][:, :, 0]
    return sum(
        differentiate(first[i].sum(), x, create_graph=problem.nested, retain_graph=True)[0][:, i]
        for i in range(x.shape[1])
    )


@way("Laplacian", "forward Laplacian written out", "formula", compiled=True)
def _(problem, layers, x):
    k, batch = x.shape[1], x.shape[0]
    dx, lap = None, None
    for weight, bias in layers[:-1]:
        x = torch.tanh(torch.addmm(bias, x, weight))
        if dx is None:
            dx = weight[:, None, :].expand(-1, batch, -1)
        else:
            dx = (dx.reshape(k * batch, -1) @ weight).reshape(k, batch, -1)
        lap = 0 if lap is None else lap @ weight
        slope = 1 - x * x
        lap = slope * (lap - 2 * x * (dx * dx).sum(0))
        dx = dx * slope
    return (lap @ layers[-1][0])[:, 0]


@way("Laplacian", "vmap(hessian) and trace", "usual", where=few, compiled=True)
def _(problem, layers, x):
    return vmap(lambda x: torch.trace(hessian(lambda x: one(layers, x)[0])(x)))(x)


@way("Laplacian", "dde.grad.hessian", "library", where=few)
def _(problem, layers, x):
    dde = deepxde()
    x = asked(x)
    y = u(layers, x)
    return sum(dde.grad.hessian(y, x, i=i, j=i) for i in range(x.shape[1]))[:, 0]


# The Jacobian in the parameters.


@way("Jacobian in parameters", "loop over rows")
def _(problem, layers, x):
    y, leaves = u(layers, x), _leaves(layers)
    rows = [_grads(entry, leaves, problem) for entry in y.reshape(-1)]
    return [torch.stack(row).reshape(*y.shape, *leaf.shape) for row, leaf in zip(zip(*rows), leaves)]


@way("Jacobian in parameters", "is_grads_batched")
def _(problem, layers, x):
    y, leaves = u(layers, x), _leaves(layers)
    unit = torch.eye(y.numel(), dtype=y.dtype).reshape(-1, *y.shape)
    found = differentiate(
        y, leaves, unit, create_graph=problem.nested, is_grads_batched=True, allow_unused=True, materialize_grads=True
    )
    return [part.reshape(*y.shape, *leaf.shape) for part, leaf in zip(found, leaves)]


@way("Jacobian in parameters", "vmap(jacrev) of single points", compiled=True)
def _(problem, layers, x):
    found = vmap(jacrev(one), (None, 0))(layers, x)
    return [part for layer in found for part in layer]


@way("Jacobian in parameters", "vmap(grad) of single points", where=lambda problem: problem.size.outputs == 1)
def _(problem, layers, x):
    found = vmap(grad(lambda layers, x: one(layers, x)[0]), (None, 0))(layers, x)
    return [part[:, None] for layer in found for part in layer]


@way("Jacobian in parameters", "jacrev", "usual", compiled=True)
def _(problem, layers, x):
    return [part for layer in jacrev(lambda layers: u(layers, x))(layers) for part in layer]


@way("Jacobian in parameters", "autograd.functional.jacobian", "usual")
def _(problem, layers, x):
    leaves = tuple(_leaves(layers))
    return torch.autograd.functional.jacobian(
        lambda *leaves: u(list(zip(leaves[::2], leaves[1::2])), x), leaves, create_graph=problem.nested
    )


@way("Jacobian in parameters", "factors written out", "formula", compiled=True)
def _(problem, layers, x):
    """Of a weight it is the outer product of what goes in and what comes back."""
    inputs = [x]
    for weight, bias in layers[:-1]:
        inputs.append(torch.tanh(torch.addmm(bias, inputs[-1], weight)))
    n = layers[-1][0].shape[1]
    back = torch.eye(n, dtype=x.dtype).expand(x.shape[0], n, n)
    found = []
    for i in range(len(layers) - 1, -1, -1):
        found = [inputs[i][:, None, :, None] * back[:, :, None, :], back, *found]
        if i:
            back = (back @ layers[i][0].T) * (1 - inputs[i] ** 2)[:, None, :]
    return found


# The trace of a Jacobian with random signs.


@way.trace("autograd.grad of a product", compiled=True)
def _(problem, layers, x):
    x = asked(x)
    (pulled,) = differentiate(u(layers, x), x, problem.signs, create_graph=problem.nested)
    return (pulled * problem.signs).sum(1)


@way.trace("torch.func.vjp")
def _(problem, layers, x):
    (pulled,) = vjp(lambda x: u(layers, x), x)[1](problem.signs)
    return (pulled * problem.signs).sum(1)


@way.trace("torch.func.jvp", forward=True, compiled=True)
def _(problem, layers, x):
    pushed = jvp(lambda x: u(layers, x), (x,), (problem.signs,))[1]
    return (pushed * problem.signs).sum(1)


@way.trace("forward_ad", forward=True)
def _(problem, layers, x):
    with torch.autograd.forward_ad.dual_level():
        y = u(layers, torch.autograd.forward_ad.make_dual(x, problem.signs))
        pushed = torch.autograd.forward_ad.unpack_dual(y).tangent
        return (pushed * problem.signs).sum(1)


@way.trace("autograd.functional.vjp", "usual")
def _(problem, layers, x):
    pulled = torch.autograd.functional.vjp(lambda x: u(layers, x), x, problem.signs, create_graph=problem.nested)[1]
    return (pulled * problem.signs).sum(1)


@way.trace("autograd.functional.jvp", "usual", forward=True)
def _(problem, layers, x):
    pushed = torch.autograd.functional.jvp(lambda x: u(layers, x), x, problem.signs, create_graph=problem.nested)[1]
    return (pushed * problem.signs).sum(1)


@way.trace("tangent written out", "formula", forward=True, compiled=True)
def _(problem, layers, x):
    dx = problem.signs
    for weight, bias in layers[:-1]:
        x = torch.tanh(torch.addmm(bias, x, weight))
        dx = (dx @ weight) * (1 - x * x)
    return ((dx @ layers[-1][0]) * problem.signs).sum(1)


@way.trace("cotangent written out", "formula", compiled=True)
def _(problem, layers, x):
    hidden = []
    for weight, bias in layers[:-1]:
        x = torch.tanh(torch.addmm(bias, x, weight))
        hidden.append(x)
    back = problem.signs
    for (weight, _), h in zip(reversed(layers[1:]), reversed(hidden)):
        back = (back @ weight.T) * (1 - h * h)
    return ((back @ layers[0][0].T) * problem.signs).sum(1)


# Third derivatives.


@way("third order", "autograd.grad three times", compiled=True)
def _(problem, layers, x):
    x = asked(x)
    (first,) = differentiate(u(layers, x).sum(), x, create_graph=True)
    (second,) = differentiate(first.sum(), x, create_graph=True)
    return differentiate(second.sum(), x, create_graph=problem.nested)[0]


@way("third order", "torch.func.grad three times")
def _(problem, layers, x):
    def total(f):
        return lambda x: f(x).sum()

    first = grad(lambda x: u(layers, x).sum())
    return grad(total(grad(total(first))))(x)


@way("third order", "vmap(grad(grad(grad)))", "usual")
def _(problem, layers, x):
    return vmap(grad(grad(grad(lambda t: one(layers, t[None])[0]))))(x[:, 0])[:, None]


@way("third order", "jvp three times")
def _(problem, layers, x):
    ones = torch.ones_like(x)

    def push(f):
        return lambda x: jvp(f, (x,), (ones,))[1]

    return push(push(push(lambda x: u(layers, x))))(x)


@way("third order", "dde.grad.hessian and jacobian", "library")
def _(problem, layers, x):
    dde = deepxde()
    x = asked(x)
    second = dde.grad.hessian(u(layers, x), x)
    return dde.grad.jacobian(second, x)


@way("third order", "Taylor series written out", "formula", compiled=True)
def _(problem, layers, x):
    return _series(layers, x) * 6


@way("third derivative at a point", "autograd.grad three times")
def _(problem, layers, x):
    t = asked(x[:1, :1])
    y = u(layers, t)[0, 0]
    for _ in range(2):
        (y,) = differentiate(y, t, create_graph=True)
    return differentiate(y, t, create_graph=problem.nested)[0][0, 0]


@way("third derivative at a point", "torch.func.grad three times", "usual")
def _(problem, layers, x):
    return grad(grad(grad(lambda t: u(layers, t.reshape(1, 1))[0, 0])))(x[0, 0])


@way("third derivative at a point", "Taylor series written out", "formula")
def _(problem, layers, x):
    return _series(layers, x[:1, :1])[0, 0] * 6


def _series(layers: Any, x: Any) -> Any:
    """The third Taylor coefficient in x of shape (batch, 1): of tanh y' = (1 - y^2) z'."""
    a, b, c = torch.ones_like(x), torch.zeros_like(x), torch.zeros_like(x)
    for i, (weight, bias) in enumerate(layers[:-1]):
        y = torch.tanh(torch.addmm(bias, x, weight))
        a = a @ weight
        b, c = (b @ weight, c @ weight) if i else (torch.zeros_like(a), torch.zeros_like(a))
        s0 = 1 - y * y
        y1 = s0 * a
        s1 = -2 * y * y1
        y2 = s0 * b + s1 * a / 2
        s2 = -2 * y * y2 - y1 * y1
        c = (3 * s0 * c + 2 * s1 * b + s2 * a) / 3
        x, a, b = y, y1, y2
    return c @ layers[-1][0]


def _leaves(layers: Any) -> list[Any]:
    return [leaf for layer in layers for leaf in layer]


def _grads(y: Any, leaves: Any, problem: Problem) -> Any:
    return differentiate(
        y, leaves, create_graph=problem.nested, retain_graph=True, allow_unused=True, materialize_grads=True
    )


def deepxde() -> Any:
    """The library, on torch; what it remembers of the last call is forgotten, as in its own training loop."""
    import os

    os.environ.setdefault("DDE_BACKEND", "pytorch")
    try:
        import deepxde
    except ImportError:
        raise Absent("deepxde") from None
    deepxde.grad.clear()
    return deepxde
