"""The chain rule of a forward Laplacian as one step of torch's tape, against the same rule function by function."""

import numpy as np
import pytest

from polyad import Chain, Dense, gradient, laplacian, nested_switching, setup, xp
from polyad.jets import laplacians
from polyad.jets.elementwise import PARTIALS, RICCATI, SECONDS
from tests.examples import difference

torch = pytest.importorskip("torch")
torch_chain = pytest.importorskip("polyad.backends.torch_chain")

K = 3


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """No arrays are too small for the one step."""
    monkeypatch.setattr(torch_chain, "SMALL", 0)


@pytest.fixture(params=[1, 10**9], ids=["one direction at a time", "together"])
def large(request, monkeypatch):
    """From how many entries on directions go one at a time."""
    monkeypatch.setattr(torch_chain, "LARGE", request.param)


@pytest.fixture
def steps(monkeypatch):
    """How often the one step was taken."""
    taken = []
    values = torch_chain._values
    monkeypatch.setattr(torch_chain, "_values", lambda *args: taken.append(1) or values(*args))
    return taken


def tensors(*shapes):
    generator = torch.Generator().manual_seed(7)
    drawn = [torch.rand(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [(1.6 * x - 0.8).requires_grad_() for x in drawn]  # tan is far from its poles


def function_by_function(name, x, t, lap):
    y = getattr(torch, name)(x)
    (p,) = (partial(x, y) for partial in PARTIALS[name])
    s = (t * t).sum(0)
    bent = SECONDS[name](x, y, p) * s
    return y, t * p, bent if lap is None else bent + p * lap


def one_step(name, x, t, lap):
    return torch_chain.chain(getattr(torch, name), RICCATI[name], x, t, lap)


@pytest.mark.parametrize("name", RICCATI)
@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("with_lap", [False, True])
@pytest.mark.parametrize("cotangents", [(1, 1, 1), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (1, 0, 1)])
def test_values_and_derivatives_to_the_third_order(large, name, compact, with_lap, cotangents):
    x, t, lap, *weights = tensors((5, 4), (K, 1, 4) if compact else (K, 5, 4), (5, 4), (5, 4), (K, 5, 4), (5, 4))
    weights = [w.detach() for w in weights]
    given = [x, t, lap] if with_lap else [x, t]

    def derivatives(rule):
        """The values, and gradients of gradients of what the outputs in use sum up to."""
        outputs = rule(name, x, t, lap if with_lap else None)
        found, total = [y.detach() for y in outputs], 0.0
        for used, weight, y in zip(cotangents, weights, outputs, strict=True):
            total = total + (weight * torch.sin(y)).sum() if used else total
        found += [g for g in torch.autograd.grad(total, given, retain_graph=True, allow_unused=True) if g is not None]
        for _ in range(3):
            grads = torch.autograd.grad(total, given, create_graph=True, allow_unused=True)
            grads = [g for g in grads if g is not None]
            found += [g.detach() for g in grads]
            total = sum(((g + 0.3 * g * g) * (i + 1)).sum() for i, g in enumerate(grads))
        return found

    actual, expected = derivatives(one_step), derivatives(function_by_function)
    assert len(actual) == len(expected) > 6
    for a, b in zip(actual, expected, strict=True):
        assert difference(a, b.numpy()) < 1e-11
    assert all(b.abs().max() > 1e-2 for b in expected)


def test_gradcheck_of_torch_itself(large):
    x, t, lap = tensors((3, 2), (K, 3, 2), (3, 2))
    assert torch.autograd.gradcheck(lambda *args: one_step("tanh", *args), (x, t, lap))
    assert torch.autograd.gradgradcheck(lambda *args: one_step("tanh", *args), (x, t, lap))


MODEL = Chain(Dense(2, 16, "tanh"), Dense(16, 16, "sigmoid"), Dense(16, 1))


def loss(params, x, state, mode="auto"):
    def u(x):
        return MODEL(x, params, state)[0]

    return xp.mean((laplacian(u, x, mode=mode) + u(x)) ** 2)


@pytest.fixture
def net():
    params, state = setup(3, MODEL, backend="torch", dtype="float64")
    (x,) = tensors((80, 2))
    weights = params["layer_0"]["weight"]
    return params, x.detach(), state, weights


def test_a_laplacian_loss_takes_it_and_agrees_with_two_passes_of_torch(net, large, steps):
    params, x, state, _ = net
    actual, expected = (
        gradient(lambda params, x, mode=mode: loss(params, x, state, mode), params, x, argnums=(0, 1))
        for mode in ("auto", "reverse")
    )
    assert len(steps) == 2
    assert difference(actual, expected) < 1e-11


@pytest.mark.parametrize("policy", ["off", "taped", "recompute", "forward_over_reverse"])
def test_under_every_policy_and_as_a_hessian(net, large, policy):
    params, x, state, weights = net

    def of_weights(w):
        return loss({**params, "layer_0": {**params["layer_0"], "weight": w}}, x, state)

    def double_backward(w):
        w = w.detach().requires_grad_()
        (g,) = torch.autograd.grad(of_weights(w), w, create_graph=True)
        rows = [torch.autograd.grad(part, w, retain_graph=True)[0] for part in g.flatten()]
        return torch.stack(rows).reshape(*w.shape, *w.shape)

    expected = torch.func.hessian(of_weights)(weights)  # nothing is recorded there: function by function
    assert expected.abs().max() > 1e-3
    with nested_switching(policy):
        assert difference(double_backward(weights), expected.detach().numpy()) < 1e-9
        assert difference(torch.func.grad(of_weights)(weights), gradient(of_weights, weights).numpy()) < 1e-11


def test_a_pullback_under_vmap_and_in_forward_mode(net, large, steps):
    params, x, state, weights = net

    def laps(w):
        p = {**params, "layer_0": {**params["layer_0"], "weight": w}}
        return laplacian(lambda x: MODEL(x, p, state)[0], x)

    w = weights.detach().requires_grad_()
    values = laps(w)
    assert len(steps) == 2
    cotangents = torch.randn(4, *values.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (rows,) = torch.autograd.grad(values, w, cotangents, is_grads_batched=True, retain_graph=True)
    one_by_one = [torch.autograd.grad(values, w, c, retain_graph=True)[0] for c in cotangents]
    assert difference(rows, torch.stack(one_by_one).numpy()) < 1e-12
    jacobian = torch.func.jacrev(laps)(weights)
    assert difference(torch.einsum("b...,b...ij->ij", cotangents[0], jacobian), one_by_one[0].numpy()) < 1e-11
    _, along = torch.func.jvp(laps, (weights,), (torch.ones_like(weights),))
    assert difference(along, jacobian.sum((-1, -2)).detach().numpy()) < 1e-11


def test_where_nothing_is_recorded_nothing_is_kept(net, steps):
    params, x, state, _ = net
    with torch.no_grad():
        assert not laplacian(lambda x: MODEL(x, params, state)[0], x).requires_grad
    assert len(steps) == 2


def test_directions_of_their_own_dtype_and_modes_go_function_by_function():
    x, t = tensors((5, 4), (K, 5, 4))
    assert torch_chain.chain(torch.tanh, RICCATI["tanh"], x, t.float(), None) is None
    with torch.overrides.BaseTorchFunctionMode():
        assert torch_chain.chain(torch.tanh, RICCATI["tanh"], x, t, None) is None
    with torch.autograd.forward_ad.dual_level():
        assert torch_chain.chain(torch.tanh, RICCATI["tanh"], x, t, None) is None
    found = []
    torch.func.vmap(lambda x: found.append(torch_chain.chain(torch.tanh, RICCATI["tanh"], x, t, None)) or x)(x)
    assert found == [None]


def test_the_equations_are_those_of_the_functions():
    x = np.linspace(-1.2, 1.3, 7)
    for name, (shift, c, d) in RICCATI.items():
        t = torch.tensor(x, requires_grad=True)
        y = getattr(torch, name)(t)
        (slope,) = torch.autograd.grad(y.sum(), t)
        assert difference(d + c * (y.detach().numpy() + shift) ** 2, slope.numpy()) < 1e-13


def test_the_jets_of_a_captured_tensor_keep_its_gradient(large):
    x, w = tensors((6, 2), (2, 5))

    def total():
        laps = laplacians(lambda x: (xp.tanh(x @ torch.tanh(w)),), (x,), (torch.eye(2, dtype=torch.float64)[:, None],))
        return (laps[2][0] ** 2).sum()

    def written_out():
        y = torch.tanh(x @ torch.tanh(w))
        return ((-2 * y * (1 - y * y) * (torch.tanh(w) ** 2).sum(0)) ** 2).sum()

    actual, expected = (torch.autograd.grad(f(), (x, w)) for f in (total, written_out))
    assert difference(actual, [g.numpy() for g in expected]) < 1e-12


def test_small_arrays_go_function_by_function(steps, monkeypatch):
    monkeypatch.undo()
    x, t, lap = tensors((5, 4), (K, 5, 4), (5, 4))
    assert one_step("tanh", x, t, lap) is None
    assert not steps
