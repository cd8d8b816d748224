"""Jacobians in parameters at points that f captures, on torch: tried at single points, and compared."""

import sys

import numpy as np
import pytest
import torch

import polyad
from polyad import Chain, Dense, StatefulLayer, gradient, jacobian, value_and_jacobian, vmap
from polyad.backends.torch import Torch
from polyad.operators.passes import Passes


def tensor(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


X = tensor(0, 24, 2)
P = {"w": tensor(1, 2, 5), "b": tensor(2, 5), "v": tensor(3, 5, 3)}
MATRIX = tensor(4, 24, 24)  # as long as there are points


def hidden(p, x):
    return torch.tanh(x @ p["w"] + p["b"])


class Doubled(torch.autograd.Function):
    """Twice x, whose derivative mixes points."""

    @staticmethod
    def forward(ctx, x):
        return 2.0 * x

    @staticmethod
    def backward(ctx, ct):
        return 2.0 * ct + ct.flip(0)


def seen_inside(p, x):
    """Its derivatives are of each point, whatever is done with the points of others."""
    with torch.no_grad():
        shift = (x @ p["w"]).mean(0)
    return hidden(p, x) + 0.0 * shift


APART = {
    "net": lambda p, x: hidden(p, x) @ p["v"],
    "flat": lambda p, x: (hidden(p, x) @ p["v"]).reshape(-1),
    "one output": lambda p, x: (hidden(p, x) @ p["v"])[:, 1],
    "transposed": lambda p, x: (p["v"].T @ torch.tanh(p["w"].T @ x.T + p["b"][:, None])).T,
    "einsum": lambda p, x: torch.einsum("bi,io,oc->bc", x, p["w"], p["v"]) + p["b"].sum(),
    "where": lambda p, x: torch.where(x[:, :1] > 0, x @ p["w"], p["b"]),
    "stacked": lambda p, x: torch.stack([x @ p["w"], hidden(p, x)], 1),
    "layer norm": lambda p, x: torch.nn.functional.layer_norm(x @ p["w"], (5,)),
    "images": lambda p, x: torch.nn.functional.conv1d(x[:, None, :], p["w"].T[:, None, :], padding=1),
    "a shift of no weight": seen_inside,
    "a value that is the same": lambda p, x: hidden(p, x) + p["b"].sum() * (x - x.detach()).sum(),
}
MIXED = {
    "a sum over points": lambda p, x: hidden(p, x) + (x @ p["w"]).sum(0),
    "a batch norm": lambda p, x: torch.nn.functional.batch_norm(x @ p["w"], None, None, training=True),
    "other points": lambda p, x: hidden(p, x) + hidden(p, x).flip(0),
    "attention": lambda p, x: torch.softmax((x @ p["w"]) @ (x @ p["w"]).T, 1) @ x,
    "cumulated": lambda p, x: (x @ p["w"]).cumsum(0),
    "a matrix over points": lambda p, x: MATRIX @ (x @ p["w"]),
    "constants of all points": lambda p, x: (x - x.mean(0)) @ p["w"],
    "a length that is written": lambda p, x: (x @ p["w"]).reshape(12, 10).reshape(24, 5),
    "a look at the length": lambda p, x: hidden(p, x) * (2.0 if len(x) > 1 else 1.0),
    "a look at values": lambda p, x: hidden(p, x) if float(x[0, 0]) > 0 else 2.0 * hidden(p, x),
    "a rule that mixes": lambda p, x: Doubled.apply(x @ p["w"]),
    "a derivative alone": lambda p, x: hidden(p, x) + ((x @ p["w"]) - (x @ p["w"]).detach()).sum(0),
    "random numbers": lambda p, x: hidden(p, x) * (1.0 + 0.0 * torch.rand(24, 1, dtype=x.dtype)),
}


@pytest.fixture
def trials(monkeypatch):
    """What became of each trial, from 1 entry on."""
    monkeypatch.setattr(Torch, "points_from", lambda self: 1)
    module, found = sys.modules["polyad.operators.jacobian"], []
    tried = module.by_trial

    def noted(*args):
        found.append(tried(*args))
        return found[-1]

    monkeypatch.setattr(module, "by_trial", noted)
    return found


def expected(f, p):
    """Row by row, by torch."""
    leaves = {key: leaf.detach().requires_grad_() for key, leaf in p.items()}
    y = f(leaves)
    rows = [torch.autograd.grad(one, list(leaves.values()), retain_graph=True, allow_unused=True) for one in y.ravel()]
    parts = zip(*rows, strict=True)
    return {
        key: torch.stack([torch.zeros_like(leaf) if g is None else g for g in part]).reshape(y.shape + leaf.shape)
        for (key, leaf), part in zip(p.items(), parts, strict=True)
    }


def agree(found, wanted):
    assert found.keys() == wanted.keys()
    for key in found:
        torch.testing.assert_close(found[key], wanted[key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [*APART, *MIXED])
def test_they_are_what_rows_give(name, trials):
    def f(p):
        return {**APART, **MIXED}[name](p, X)

    agree(jacobian(f, P), expected(f, P))
    assert any(found is not None for found in trials) == (name in APART)


@pytest.mark.parametrize(
    "name", ["net", "flat", "where", "a batch norm", "a value that is the same", "a derivative alone"]
)
def test_losses_with_them_are_differentiated(name, trials):
    """Also in the points."""
    x, p = X.clone().requires_grad_(), {key: leaf.clone().requires_grad_() for key, leaf in P.items()}
    f = {**APART, **MIXED}[name]
    ours = jacobian(lambda p: f(p, x), p)
    found = torch.autograd.grad(sum(torch.sin(j).sum() for j in ours.values()), [x, *p.values()], allow_unused=True)
    assert (trials != [None]) == (name in ("net", "flat", "where"))
    leaves, keys = tuple(p.values()), tuple(p)
    theirs = torch.autograd.functional.jacobian(
        lambda *leaves: f(dict(zip(keys, leaves, strict=True)), x), leaves, create_graph=True
    )
    wanted = torch.autograd.grad(sum(torch.sin(j).sum() for j in theirs), [x, *leaves], allow_unused=True)
    for mine, its in zip(found, wanted, strict=True):
        zero = torch.zeros(())
        torch.testing.assert_close(*(zero if g is None else g for g in (mine, its)), rtol=1e-8, atol=1e-10)


def test_values_aux_and_arguments(trials):
    value, found = value_and_jacobian(hidden, P, X)
    agree(found, expected(lambda p: hidden(p, X), P))
    torch.testing.assert_close(value, hidden(P, X))
    found, aux = jacobian(lambda p, x: (hidden(p, x), {"sum": x.sum()}), P, X, has_aux=True)
    agree(found, expected(lambda p: hidden(p, X), P))
    torch.testing.assert_close(aux["sum"], X.sum())
    assert None not in trials


def test_other_modes_and_places_do_without(trials):
    wanted = expected(lambda p: hidden(p, X), P)
    agree(jacobian(lambda p: hidden(p, X), P, mode="forward"), wanted)
    many = {key: torch.stack([leaf, leaf]) for key, leaf in P.items()}
    found = vmap(lambda p: jacobian(lambda p: hidden(p, X), p))(many)
    agree({key: leaf[1] for key, leaf in found.items()}, wanted)
    assert all(found is None for found in trials)


def test_what_f_writes_to_is_written_once(trials):
    count = torch.zeros(())

    def f(p):
        count.add_(1.0)
        return hidden(p, X)[:, 0]

    agree(jacobian(f, P, mode="reverse"), expected(lambda p: hidden(p, X)[:, 0], P))
    assert float(count) == 1.0
    assert trials == [None]


def test_the_plan_is_asked_for_the_rows_of_one_point(trials, monkeypatch):
    asked = []
    choose = Passes.choose
    monkeypatch.setattr(
        Passes, "choose", lambda self, *args, **options: asked.append(options) or choose(self, *args, **options)
    )
    jacobian(lambda p: hidden(p, X), P)
    assert {"points": 24} in asked


def test_layers_that_write_to_what_is_their_own(trials):
    model = Chain(Dense(2, 8, "tanh"), Dense(8, 8, "tanh"), Dense(8, 1))
    params, state = polyad.setup(0, model, backend="torch", dtype="float64")

    def loss(params):
        blocks = jacobian(lambda params: StatefulLayer(model, params, state)(X), params)
        return sum((block**2).sum() for layer in blocks.values() for block in layer.values())

    found = gradient(loss, params)
    assert None not in trials
    trials.clear()
    with polyad.nested_switching("recompute"):
        wanted = gradient(loss, params)
    assert set(trials) == {None}
    for key, layer in found.items():
        agree(layer, wanted[key])


def squared_mean(p, x):
    """hidden(p, x) in values and first derivatives, but not in second ones."""
    mean = (x @ p["w"]).mean(0)
    return hidden(p, x) + (mean - mean.detach()) ** 2


def pushed(loss):
    return torch.func.jvp(loss, (X,), (torch.cos(X),))[1]


def pulled_outside(loss):
    one = torch.ones((), dtype=X.dtype)
    return torch.func.grad(lambda x: torch.func.grad(lambda t: t**2 * loss(x))(one))(X)


@pytest.mark.parametrize("around", [pushed, pulled_outside])
def test_who_differentiates_without_asking_for_a_gradient_has_other_points_too(around, trials, monkeypatch):
    def loss(x):
        return sum(torch.sin(j).sum() for j in jacobian(lambda p: squared_mean(p, x), P).values())

    found = around(loss)
    assert True not in [trial is not None for trial in trials]
    monkeypatch.setattr(sys.modules["polyad.operators.jacobian"], "by_trial", lambda *args: None)
    torch.testing.assert_close(found, around(loss), rtol=1e-9, atol=1e-12)


class Centred(torch.autograd.Function):
    """The points themselves; its derivative is another one, and mixes them."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x * 1.0

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, ct):
        return ct - ct.mean(0)


def hooked_in_the_graph(p, x):
    h = x @ p["w"]
    if h.grad_fn is not None:
        h.grad_fn.register_hook(lambda grads, _: tuple(None if g is None else 3.0 * g for g in grads))
    return torch.tanh(h)


def hooked(p, x):
    h = x @ p["w"]
    if h.requires_grad:
        h.register_hook(lambda grad: grad - grad.mean(0))
    return torch.tanh(h)


@pytest.mark.parametrize("f", [lambda p, x: hidden(p, Centred.apply(x)), hooked_in_the_graph, hooked])
def test_rules_and_hooks_are_those_of_all_points(f, trials, monkeypatch):
    def grads():
        x, p = X.clone().requires_grad_(), {key: leaf.clone().requires_grad_() for key, leaf in P.items()}
        loss = sum(torch.sin(j).sum() for j in jacobian(lambda p: f(p, x), p).values())
        return torch.autograd.grad(loss, [x, p["w"]])

    found = grads()
    assert set(trials) == {None}
    monkeypatch.setattr(sys.modules["polyad.operators.jacobian"], "by_trial", lambda *args: None)
    for mine, its in zip(found, grads(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-9, atol=1e-12)


def test_random_numbers_go_on_as_after_one_evaluation(trials):
    p = {key: leaf.clone().requires_grad_() for key, leaf in P.items()}
    torch.manual_seed(0)
    jacobian(lambda p: hidden(p, X) + 0.0 * torch.rand(5, dtype=X.dtype), p, mode="reverse")
    found = torch.rand(3)
    torch.manual_seed(0)
    torch.rand(5, dtype=X.dtype)
    torch.testing.assert_close(found, torch.rand(3), rtol=0, atol=0)
    assert len(trials) == 1


@pytest.mark.parametrize("f", [APART["net"], MIXED["a sum over points"]])
def test_what_f_leaves_is_of_all_points(f, trials):
    left = {}

    def leaving(p):
        left["y"] = f(p, X)
        return torch.sin(left["y"])

    jacobian(leaving, P, mode="reverse")
    assert len(trials) == 1
    torch.testing.assert_close(left["y"].detach(), f(P, X))


@pytest.mark.parametrize("where", ["captured", "parameter"])
def test_what_is_zero_here_alone(where, trials):
    """A coefficient of 0 times the number of points: values and Jacobians agree, their derivatives do not."""
    zero = torch.zeros((), dtype=X.dtype, requires_grad=True)
    p = {key: leaf.clone().requires_grad_() for key, leaf in P.items()}
    if where == "parameter":
        p["b"] = torch.zeros(5, dtype=X.dtype, requires_grad=True)

    def f(p):
        penalty = zero * p["w"].sum() if where == "captured" else (p["b"] ** 2).sum()
        return hidden(p, X) + len(X) * penalty

    def loss(blocks):
        return sum((block.sum() - 1.0) ** 2 for block in blocks)

    of = [zero, *p.values()]
    found = torch.autograd.grad(loss(jacobian(f, p).values()), of, allow_unused=True)
    leaves, keys = tuple(p.values()), tuple(p)
    blocks = torch.autograd.functional.jacobian(
        lambda *leaves: f(dict(zip(keys, leaves, strict=True))), leaves, create_graph=True
    )
    wanted = torch.autograd.grad(loss(blocks), of, allow_unused=True)
    for mine, its in zip(found, wanted, strict=True):
        nothing = torch.zeros(())
        torch.testing.assert_close(*(nothing if g is None else g for g in (mine, its)), rtol=1e-8, atol=1e-8)
    assert set(trials) == {None}
